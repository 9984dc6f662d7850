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
#define SINK_SUB_BUCKETS_SHIFT 7
#define SINK_BUCKETS 3584
#define SINK_STAMP_FROM_END 18

/* Sixteen hexadecimal digits. */
#define STAMP_LEN 16
/* Longest latency that has a bucket: 2^34 ns, 17 s. */
#define LATENCY_MAX ((1ULL << 34) - 1)

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

/* Whether each frame ends with the time it was sent at: digits, CR, LF. */
const volatile __u8 timed;

/* Frames by how long they took. Bucket of v below 256 ns: v; above: v's eight highest bits, and 128
 * for each bit below them, so that a bucket is at most 1/128 of its values wide. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SINK_BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
} latencies SEC(".maps");

/* The value of eight hexadecimal digits, lower case, as they stand in memory. */
static __always_inline __u64 value(__u64 digits)
{
	__u64 x = (digits & 0x0f0f0f0f0f0f0f0f) + 9 * (digits >> 6 & 0x0101010101010101);

	x = bpf_be64_to_cpu(x);
	x = (x | x >> 4) & 0x00ff00ff00ff00ff;
	x = (x | x >> 8) & 0x0000ffff0000ffff;
	return (x | x >> 16) & 0xffffffff;
}

static __always_inline void count_latency(const __u64 stamp[STAMP_LEN / 8])
{
	__u64 took = bpf_ktime_get_ns() - (value(stamp[0]) << 32 | value(stamp[1]));
	__u32 shift = 0, bucket;
	__u64 rest, *count;

	if (took > LATENCY_MAX)
		took = LATENCY_MAX;
	rest = took >> (SINK_SUB_BUCKETS_SHIFT + 1);
	/* How many bits are left of it, by halves. */
	if (rest >> 16) {
		shift += 16;
		rest >>= 16;
	}
	if (rest >> 8) {
		shift += 8;
		rest >>= 8;
	}
	if (rest >> 4) {
		shift += 4;
		rest >>= 4;
	}
	if (rest >> 2) {
		shift += 2;
		rest >>= 2;
	}
	shift += rest >> 1 ? 2 : rest;
	bucket = (shift << SINK_SUB_BUCKETS_SHIFT) + (took >> shift);
	count = bpf_map_lookup_elem(&latencies, &bucket);
	if (count)
		(*count)++;
}

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
	__u64 stamp[STAMP_LEN / 8];

	if (!counted(data, end))
		return XDP_PASS;
	if (timed && !bpf_xdp_load_bytes(ctx, bpf_xdp_get_buff_len(ctx) - SINK_STAMP_FROM_END, stamp,
					 sizeof(stamp)))
		count_latency(stamp);
	return XDP_DROP;
}

/* Behind the driver: where frames come as socket buffers anyway, as out of a veth's other end, this
 * spares a copy that veth makes for XDP, at the expense of the core that sends. */
SEC("tcx/ingress")
int sink_tc(struct __sk_buff *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u64 stamp[STAMP_LEN / 8];

	if (!counted(data, end))
		return TC_ACT_UNSPEC;
	if (timed && !bpf_skb_load_bytes(ctx, ctx->len - SINK_STAMP_FROM_END, stamp, sizeof(stamp)))
		count_latency(stamp);
	return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
