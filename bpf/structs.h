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

/* Whose VIP it is and who may send to it. Source lists are named by a number that is never used
 * twice: a changed list is a new list, and the update of this value is the switch. 0 = no list. */
struct vip {
	__u16 listener;
	__u16 flags;
	__u32 deny;
	__u32 allow;
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

/* What parse() reads from the headers of a UDP datagram. */
struct datagram {
	struct address source;
	struct vip_key destination;
};

#define ASSERT_OFFSET(type, field, offset) \
	_Static_assert(__builtin_offsetof(type, field) == offset, #type "." #field)

_Static_assert(sizeof(struct vip_key) == 24, "vip_key");
ASSERT_OFFSET(struct vip_key, family, 16);
ASSERT_OFFSET(struct vip_key, port, 20);
_Static_assert(sizeof(struct vip) == 12, "vip");
ASSERT_OFFSET(struct vip, deny, 4);
ASSERT_OFFSET(struct vip, allow, 8);
_Static_assert(sizeof(struct source_key) == 28, "source_key");
ASSERT_OFFSET(struct source_key, list, 4);
ASSERT_OFFSET(struct source_key, family, 8);
ASSERT_OFFSET(struct source_key, address, 12);

#endif
