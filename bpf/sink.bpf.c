// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * sink: counts the SIP messages that an interface receives, and drops them.
 *
 * The far end of a measurement. Counted by destination MAC address, since servers that exist only
 * as static neighbours of the balancer differ in nothing else. What is not UDP goes to the kernel.
 */
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "consts.h"
#include "parse.h"
#include "structs.h"

/* Twins in src/bpf/sink.rs. */
#define SINK_STATIONS_MAX 64

/* Who frames are addressed to. */
struct sink_key {
	__u8 mac[ETH_ALEN];
	__u16 zero;
};

/* What was counted there. */
struct sink_counts {
	__u64 requests;
	__u64 responses;
	__u64 others;
	__u64 octets;
};

_Static_assert(sizeof(struct sink_key) == 8, "sink_key");
_Static_assert(sizeof(struct sink_counts) == 32, "sink_counts");

/* Written here, each CPU its own copy, for the addresses that user space has entered. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, SINK_STATIONS_MAX);
	__type(key, struct sink_key);
	__type(value, struct sink_counts);
} stations SEC(".maps");

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct datagram datagram = {};
	struct ethhdr *ethernet = data;
	struct sink_counts *counts;
	struct sink_key key = {};
	__u8 *payload;

	if (parse(data, end, &datagram) != VERDICT_REDIRECTED)
		return XDP_PASS;
	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	__builtin_memcpy(key.mac, ethernet->h_dest, ETH_ALEN);
	counts = bpf_map_lookup_elem(&stations, &key);
	if (!counts)
		return XDP_PASS;

	counts->octets += end - data;
	payload = data + sizeof(*ethernet) + sizeof(struct udphdr) +
		  (datagram.destination.family == FAMILY_IPV4 ? sizeof(struct iphdr) :
								sizeof(struct ipv6hdr));
	/* A response opens with "SIP/2.0", a request with its method in capitals. */
	if ((void *)(payload + 4) > end)
		counts->others++;
	else if (payload[0] == 'S' && payload[1] == 'I' && payload[2] == 'P' && payload[3] == '/')
		counts->responses++;
	else if (payload[0] >= 'A' && payload[0] <= 'Z')
		counts->requests++;
	else
		counts->others++;
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
