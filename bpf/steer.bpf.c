// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * steer: which frames go to a worker's AF_XDP socket, and to which.
 *
 * Classify and redirect, nothing else; policy stays in user space. A UDP datagram to a VIP from a
 * source that the listener takes, and that does not send too much, is redirected. Whatever the program does not know goes to the
 * kernel, where an ordinary UDP socket on the same VIP runs the same code over it; so does a
 * datagram whose slot is empty, because its worker is not there yet or not any more.
 *
 * The frame is not changed. In particular the head is never moved before a redirect: user space
 * finds every frame at the same place in its chunk.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "consts.h"
#include "limit.h"
#include "maps.h"
#include "parse.h"
#include "structs.h"

/* Position of the interface in the configuration, INTERFACES_MAX if it has none. */
static __always_inline __u32 interface_position(__u32 ifindex)
{
#pragma unroll
	for (__u32 position = 0; position < INTERFACES_MAX; position++)
		if (interfaces[position] == ifindex)
			return position;
	return INTERFACES_MAX;
}

/* The worker of a datagram. By queue for now, which keeps it on the core that received it; every
 * queue has a slot for every worker so that the Call-ID can decide here one day. */
static __always_inline __u32 worker(__u32 queue)
{
	return queue % workers;
}

static __always_inline enum steer_verdict classify(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 queue = ctx->rx_queue_index;
	struct datagram datagram = {};
	enum steer_verdict verdict, taken = VERDICT_REDIRECTED;
	__u32 *enabled, position, zero = 0;
	struct vip *vip;

	enabled = bpf_map_lookup_elem(&control, &zero);
	if (!enabled || !*enabled)
		return VERDICT_DISABLED;

	verdict = parse(data, end, &datagram);
	if (verdict != VERDICT_REDIRECTED)
		return verdict;

	vip = bpf_map_lookup_elem(&vips, &datagram.destination);
	if (!vip)
		return VERDICT_NOT_VIP;
	if (vip->deny && listed(vip->deny, &datagram))
		return VERDICT_DENIED;
	if (vip->allow && !listed(vip->allow, &datagram))
		return VERDICT_NOT_ALLOWED;
	if (vip->flags & VIP_LIMITED) {
		taken = limit(vip, &datagram);
		if (taken >= VERDICT_DENIED)
			return taken;
	}

	if (end - data > frame_len_max)
		return VERDICT_TOO_LONG;

	position = interface_position(ctx->ingress_ifindex);
	if (position >= INTERFACES_MAX || queue >= queues)
		return VERDICT_NO_SOCKET;
	if (bpf_redirect_map(&xsks, (position * queues + queue) * workers + worker(queue),
			     XDP_PASS) != XDP_REDIRECT)
		return VERDICT_NO_SOCKET;
	return taken;
}

SEC("xdp")
int steer(struct xdp_md *ctx)
{
	__u32 verdict = classify(ctx);
	__u64 *count = bpf_map_lookup_elem(&verdicts, &verdict);

	if (count)
		*count += 1;
	if (verdict < VERDICT_DISABLED)
		return XDP_REDIRECT;
	return verdict >= VERDICT_DENIED ? XDP_DROP : XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
