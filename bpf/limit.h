/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * How much a source may send: a bucket for each source, and one for all strangers together.
 *
 * A bucket for each source stops whoever sends too much from one place. It does nothing against a
 * flood from forged addresses, of which every single one sends little. Against that there is a
 * second bucket, which all strangers share: sources that are neither exempt (farm, trusted peers,
 * whitelist) nor known. A source becomes known when the farm has accepted a call or a registration
 * of it, which who forges addresses cannot bring about where the farm asks for a password: the
 * challenge goes to the forged address. Known sources have buckets of their own and nothing else, so
 * the flood and they have nothing in common that could run out.
 *
 * A datagram that is refused changes no bucket and makes no entry. What a flood costs here is three
 * lookups, and nobody's entry: strangers enter `strangers` only once the bucket of all has let them.
 *
 * Fragments and packets with options go to the kernel unseen, as everything the program does not
 * read; they are few on a link that serves SIP, and the kernel bounds what it reassembles.
 */
#ifndef VIADUCT_LIMIT_H
#define VIADUCT_LIMIT_H

#include <bpf/bpf_helpers.h>

#include "consts.h"
#include "maps.h"
#include "structs.h"

/* Attempts to write a bucket that other CPUs write too. */
#define TAKE_TRIES 4

/* Whether the source is on the list. */
static __always_inline int listed(__u32 list, const struct datagram *datagram)
{
	struct source_key key = {
		.prefix_len = (sizeof(key) - sizeof(key.prefix_len)) * 8,
		.list = list,
		.family = datagram->destination.family,
		.address = datagram->source,
	};

	return bpf_map_lookup_elem(&sources, &key) != NULL;
}

/*
 * Takes one datagram out of a bucket, if there is one in it.
 *
 * The bucket is one number, the time at which it will be full again (the generic cell rate
 * algorithm's theoretical arrival time): a datagram moves it on by `interval`, and it may be ahead
 * of now by `tolerance`. One number can be compared and swapped (kernel 5.12), so that CPUs need no
 * lock and the limit is exact over all of them, where buckets for each CPU would let a source have
 * as many times its share as it finds receive queues.
 *
 * Written only when a datagram is taken: at the limit CPUs share the cache line and do not fight
 * over it. Who loses every swap is refused; that takes other CPUs taking from the same bucket within
 * nanoseconds, each time.
 */
static __always_inline int take(__u64 *due, __u64 now, __u64 interval, __u64 tolerance)
{
#pragma unroll
	for (int tries = 0; tries < TAKE_TRIES; tries++) {
		__u64 seen = *(volatile __u64 *)due;
		__u64 ahead = seen > now ? seen - now : 0;

		if (ahead > tolerance) {
			/* Farther than these limits allow: written under looser ones, before a reload. */
			if (ahead > tolerance + interval)
				__sync_val_compare_and_swap(due, seen, now + tolerance + interval);
			return 0;
		}
		if (__sync_val_compare_and_swap(due, seen, now + ahead + interval) == seen)
			return 1;
	}
	return 0;
}

/* A function of its own, so that the way of a datagram that is not limited stays short. */
static __attribute__((noinline)) enum steer_verdict check_limits(const struct vip *vip,
								 const struct datagram *datagram)
{
	struct bucket_key key = {
		.family = datagram->destination.family,
		.words = { datagram->source.words[0], datagram->source.words[1] },
	};
	__u64 now, due, *bucket;
	int is_known;

	if (vip->exempt && listed(vip->exempt, datagram))
		return VERDICT_REDIRECTED;

	/* The time of the kernel's last tick, 1 to 10 ms old, which user space allows for in the
	 * tolerances; reading the clock itself takes some 17 ns more. */
	now = bpf_ktime_get_coarse_ns();
	bucket = bpf_map_lookup_elem(&known, &key);
	is_known = bucket != NULL;
	if (!is_known)
		bucket = bpf_map_lookup_elem(&strangers, &key);
	if (bucket && !take(bucket, now, vip->interval, vip->tolerance))
		return VERDICT_RATE_LIMITED;
	if (is_known)
		return VERDICT_REDIRECTED;

	if (vip->strangers_interval &&
	    !take(&strangers_due, now, vip->strangers_interval, vip->strangers_tolerance))
		return VERDICT_STRANGERS_LIMITED;
	if (!bucket) {
		due = now + vip->interval;
		/* If another CPU was faster, one datagram of the source is not counted. */
		bpf_map_update_elem(&strangers, &key, &due, BPF_NOEXIST);
	}
	return VERDICT_REDIRECTED;
}

/* Leaves the source where user space finds it. */
static __always_inline void note_refused(enum steer_verdict verdict,
					 const struct datagram *datagram)
{
	__u32 bucket = verdict == VERDICT_STRANGERS_LIMITED;
	struct refused *last = bpf_map_lookup_elem(&refused, &bucket);

	if (!last)
		return;
	last->family = datagram->destination.family;
	last->address = datagram->source;
}

/* VERDICT_REDIRECTED if the datagram is within the limits; in a dry run no verdict drops it. */
static __always_inline enum steer_verdict limit(const struct vip *vip,
						const struct datagram *datagram)
{
	enum steer_verdict verdict = check_limits(vip, datagram);

	if (verdict == VERDICT_REDIRECTED)
		return verdict;
	note_refused(verdict, datagram);
	if (!(vip->flags & VIP_LIMIT_DRY_RUN))
		return verdict;
	if (verdict == VERDICT_RATE_LIMITED)
		return VERDICT_RATE_LIMITED_DRY;
	return VERDICT_STRANGERS_LIMITED_DRY;
}

#endif
