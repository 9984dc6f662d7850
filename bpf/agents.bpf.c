// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * agents: which frames go to a thread of the load generator.
 *
 * A generator plays user agents at thousands of addresses, divided among its threads. A datagram to
 * one of them goes to the AF_XDP socket of the thread whose address it is, on the queue where it
 * came in; everything else, ARP and neighbour discovery above all, goes to the kernel.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "consts.h"
#include "parse.h"
#include "structs.h"

/* Fixed at load: RX queues of the interface, threads, and the longest frame that fits a chunk. */
const volatile __u32 queues = 1;
const volatile __u32 threads = 1;
const volatile __u32 frame_len_max = 1522;

/* Addresses of the user agents, each with the number of its thread. Written once, before the
 * program is attached. Size set by the loader. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct vip_key);
	__type(value, __u32);
} agents SEC(".maps");

/* Sockets at queue × threads + thread. Size set by the loader. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

SEC("xdp")
int take(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 queue = ctx->rx_queue_index;
	struct datagram datagram = {};
	__u32 *thread;

	if (parse(data, end, &datagram) != VERDICT_REDIRECTED)
		return XDP_PASS;
	thread = bpf_map_lookup_elem(&agents, &datagram.destination);
	if (!thread || queue >= queues || end - data > frame_len_max)
		return XDP_PASS;
	return bpf_redirect_map(&xsks, queue * threads + *thread, XDP_PASS);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
