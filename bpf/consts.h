/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * Numbers and verdicts of the steering program.
 *
 * Twins in src/bpf/layout.rs, where a test reads this file and compares.
 */
#ifndef VIADUCT_CONSTS_H
#define VIADUCT_CONSTS_H

/* 802.1Q inside 802.1ad at most; a frame with a third tag is nobody's we know. */
#define VLAN_TAGS_MAX 2

/* Interfaces one program serves: limits::INTERFACES_MAX. */
#define INTERFACES_MAX 8

/* IPv4 version 4 and header length 5 words in one octet: no options. */
#define IPV4_VERSION_IHL_PLAIN 0x45

/* More Fragments and the offset, not Don't Fragment (RFC 791 section 3.1). */
#define IPV4_FRAGMENT_MASK 0x3fff

/* IPv6 next header values that are headers, not protocols (RFC 8200 section 4.1). */
#define IPV6_HOP_BY_HOP 0
#define IPV6_ROUTING 43
#define IPV6_FRAGMENT 44
#define IPV6_DESTINATION_OPTIONS 60

/* `family` of addresses in map keys. Not AF_INET and AF_INET6: those are the host's business. */
#define FAMILY_IPV4 4
#define FAMILY_IPV6 6

/* Bits of `flags` in struct vip. */
#define VIP_LIMITED 1
#define VIP_LIMIT_DRY_RUN 2

/* Lines, or blocks of 64 bytes of a longer line, in front of the Call-ID. */
#define CALL_ID_STEPS 96

/* Bytes in front of the Call-ID. What fits an Ethernet frame is shorter. */
#define CALL_ID_BYTES_MAX 1792

/* Bytes of a Call-ID: the last of 16 words has a byte behind it. */
#define CALL_ID_LEN_MAX 127

/* A power of two, for positions are masked. */
#define CALL_ID_TEXT_LEN 2048

/*
 * What became of a frame. Everything before VERDICT_DISABLED was given to a socket (XDP_REDIRECT),
 * everything between VERDICT_DISABLED and VERDICT_NO_SOCKET goes to the kernel stack (XDP_PASS),
 * everything from VERDICT_DENIED on is dropped (XDP_DROP).
 */
enum steer_verdict {
	/* Given to the AF_XDP socket of a worker. */
	VERDICT_REDIRECTED = 0,
	/* The same, and without the dry run it were VERDICT_RATE_LIMITED. */
	VERDICT_RATE_LIMITED_DRY,
	/* The same, and without the dry run it were VERDICT_STRANGERS_LIMITED. */
	VERDICT_STRANGERS_LIMITED_DRY,

	/* The kill switch is off. */
	VERDICT_DISABLED,
	/* The frame ends inside its headers. */
	VERDICT_TRUNCATED,
	/* Neither IPv4 nor IPv6 under at most two VLAN tags: ARP, LLDP, a third tag. */
	VERDICT_NOT_IP,
	/* IPv4 with options, IPv6 with an extension header, or a version that is neither. */
	VERDICT_IP_OPTIONS,
	/* A fragment, the first one included: the kernel reassembles. */
	VERDICT_FRAGMENT,
	/* TCP, ICMP, SCTP and the rest. */
	VERDICT_NOT_UDP,
	/* UDP to an address and port that no listener has. */
	VERDICT_NOT_VIP,
	/* Longer than one UMEM chunk takes; a redirect would be a silent drop. */
	VERDICT_TOO_LONG,
	/* No socket in the slot, or a queue or interface that was not configured. */
	VERDICT_NO_SOCKET,

	/* The source is on the listener's deny list. */
	VERDICT_DENIED,
	/* The listener has an allow list and the source is not on it. */
	VERDICT_NOT_ALLOWED,
	/* The source sends more than one source may. */
	VERDICT_RATE_LIMITED,
	/* The source is a stranger, and strangers together send more than they may. */
	VERDICT_STRANGERS_LIMITED,

	VERDICT_COUNT
};

#endif
