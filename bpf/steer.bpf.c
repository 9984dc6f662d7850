// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * steer: which frames go to a worker's AF_XDP socket, and to which.
 *
 * Classify and redirect, nothing else; policy stays in user space. A UDP datagram to a VIP from a
 * source that the listener takes, and that does not send too much, is redirected to the home worker
 * of its Call-ID. Whatever the program does not know goes to the kernel, where an ordinary UDP socket on the same VIP runs the same code over it; so does a
 * datagram whose slot is empty, because its worker is not there yet or not any more.
 *
 * The frame is not changed. In particular the head is never moved before a redirect: user space
 * finds every frame at the same place in its chunk.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "call_id.h"
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

/* The home worker of the message at `offset`, -1 if there is no Call-ID to tell it by.
 *
 * Not static, so that the verifier takes it as it stands, once and with arguments that it does not
 * know, and not anew for each way that leads to it. */
__attribute__((noinline)) int find_home(struct xdp_md *ctx, __u32 offset, __u64 zero)
{
	struct text text = {
		.start = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
		.zero = zero,
		.is_packet = 1,
	};

	/* No headers are longer than this: Ethernet, two tags, IPv6 and UDP have 70 bytes. */
	text.start += offset & 127;
	text.len = text.end - text.start;
	if (text.start > text.end)
		return -1;
	return home_worker(&text, call_id_key, workers);
}

/* The worker of a datagram. Its call's home, so that one flow uses all workers and nothing needs to
 * be handed over; without a Call-ID the one that the queue has. */
static __always_inline __u32 worker(struct xdp_md *ctx, __u32 offset, __u32 queue)
{
	struct steered *count;
	__u32 zero = 0;
	int home;

	if (workers == 1)
		return 0;
	if (!by_call_id)
		return queue % workers;
	home = find_home(ctx, offset, 0);
	count = bpf_map_lookup_elem(&steered, &zero);
	if (home < 0) {
		if (count)
			count->by_queue++;
		return queue % workers;
	}
	if (count)
		count->by_call_id++;
	return home;
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
	if (bpf_redirect_map(&xsks,
			     (position * queues + queue) * workers +
				     worker(ctx, datagram.payload - data, queue),
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
