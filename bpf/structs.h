/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * Keys and values of the maps. Twins in src/bpf/layout.rs, tied by the sizes and offsets below.
 * No implicit padding: map keys are compared and hashed as bytes.
 */
#ifndef VIADUCT_STRUCTS_H
#define VIADUCT_STRUCTS_H

#include <linux/types.h>

/* An IPv4 address fills the first word, the others are zero. Network byte order. */
struct address {
	__u32 words[4];
};

/* What a datagram must be addressed to. The port is in network byte order in the first two octets
 * of its word. Whole words, since the hash reads whole words: two halves written apart and read
 * together would stall the CPU's store forwarding. */
struct vip_key {
	struct address address;
	__u32 family;
	__u32 port;
};

/* Whose VIP it is, who may send to it and how much. Source lists are named by a number that is
 * never used twice: a changed list is a new list, and the update of this value is the switch. 0 =
 * no list. The rates stand here and not in a map of their own, so that a limiter that is off costs
 * one bit of a word that was read anyway, and one that changes does so as a whole. */
struct vip {
	__u16 listener;
	__u16 flags;
	__u32 deny;
	__u32 allow;
	/* Sources that are never limited. */
	__u32 exempt;
	/* Nanoseconds per datagram of one source, and how far it may be ahead of that. */
	__u64 interval;
	__u64 tolerance;
	/* The same of all strangers together; interval 0 = no such limit. */
	__u64 strangers_interval;
	__u64 strangers_tolerance;
};

/* Whose datagrams are counted together: an IPv4 address, or the first half of an IPv6 address,
 * since whoever has one address of a /64 has them all (RFC 4291 section 2.5.4). The family keeps
 * ::/64 from meaning 0.0.0.0. */
struct bucket_key {
	__u32 family;
	__u32 words[2];
};

/* Longest prefix match over (list, family, address); `prefix_len` counts all three. */
struct source_key {
	__u32 prefix_len;
	__u32 list;
	__u32 family;
	struct address address;
};

/* Bits of `list` and `family`, which every entry fixes. */
#define SOURCE_KEY_FIXED_BITS 64

/* A source that the limiter refused. */
struct refused {
	__u32 family;
	struct address address;
};

/* What parse() reads from the headers of a UDP datagram. */
struct datagram {
	struct address source;
	struct vip_key destination;
	/* Behind the UDP header: the first octet of the payload, if there is one. */
	void *payload;
};

/* How the workers of redirected datagrams were chosen. */
struct steered {
	/* By the Call-ID: the call's home. */
	__u64 by_call_id;
	/* By the queue (among kernel sockets: by the kernel), for no Call-ID was found within the bounds. */
	__u64 by_queue;
};

#define ASSERT_OFFSET(type, field, offset) \
	_Static_assert(__builtin_offsetof(type, field) == offset, #type "." #field)

_Static_assert(sizeof(struct vip_key) == 24, "vip_key");
ASSERT_OFFSET(struct vip_key, family, 16);
ASSERT_OFFSET(struct vip_key, port, 20);
_Static_assert(sizeof(struct vip) == 48, "vip");
ASSERT_OFFSET(struct vip, deny, 4);
ASSERT_OFFSET(struct vip, allow, 8);
ASSERT_OFFSET(struct vip, exempt, 12);
ASSERT_OFFSET(struct vip, interval, 16);
ASSERT_OFFSET(struct vip, tolerance, 24);
ASSERT_OFFSET(struct vip, strangers_interval, 32);
ASSERT_OFFSET(struct vip, strangers_tolerance, 40);
_Static_assert(sizeof(struct bucket_key) == 12, "bucket_key");
_Static_assert(sizeof(struct refused) == 20, "refused");
_Static_assert(sizeof(struct steered) == 16, "steered");
_Static_assert(sizeof(struct source_key) == 28, "source_key");
ASSERT_OFFSET(struct source_key, list, 4);
ASSERT_OFFSET(struct source_key, family, 8);
ASSERT_OFFSET(struct source_key, address, 12);

#endif
