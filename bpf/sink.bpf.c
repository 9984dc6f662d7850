// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * sink: counts the SIP messages that an interface receives, and drops them.
 *
 * The far end of a measurement. Counted by destination MAC address, since servers that exist only
 * as static neighbours of the balancer differ in nothing else. What is not UDP goes to the kernel.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

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
};

_Static_assert(sizeof(struct sink_key) == 8, "sink_key");
_Static_assert(sizeof(struct sink_counts) == 24, "sink_counts");

/* Written here, each CPU its own copy, for the addresses that user space has entered. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, SINK_STATIONS_MAX);
	__type(key, struct sink_key);
	__type(value, struct sink_counts);
} stations SEC(".maps");

/* Whether the frame was one to be counted, and so to be dropped. */
static __always_inline int counted(void *data, void *end)
{
	struct datagram datagram = {};
	struct ethhdr *ethernet = data;
	struct sink_counts *counts;
	struct sink_key key = {};
	__u8 *payload;

	if (parse(data, end, &datagram) != VERDICT_REDIRECTED)
		return 0;
	if ((void *)(ethernet + 1) > end)
		return 0;
	__builtin_memcpy(key.mac, ethernet->h_dest, ETH_ALEN);
	counts = bpf_map_lookup_elem(&stations, &key);
	if (!counts)
		return 0;

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
	return 1;
}

/* In the driver: for a NIC. */
SEC("xdp")
int sink_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;

	return counted(data, end) ? XDP_DROP : XDP_PASS;
}

/* Behind the driver: where frames come as socket buffers anyway, as out of a veth's other end, this
 * spares a copy that veth makes for XDP, at the expense of the core that sends. */
SEC("tcx/ingress")
int sink_tc(struct __sk_buff *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;

	return counted(data, end) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
