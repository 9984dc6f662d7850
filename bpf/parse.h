/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * From the first octet of a frame to the destination of its UDP datagram.
 *
 * Reads only; says VERDICT_REDIRECTED when nothing speaks against the frame so far. Checksums and
 * length fields are verified in user space, where a wrong one is counted by reason.
 */
#ifndef VIADUCT_PARSE_H
#define VIADUCT_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "consts.h"
#include "structs.h"

/* 802.1Q tag without its TPID, which stands where the EtherType of the outer header was. */
struct vlan_tag {
	__be16 control;
	__be16 ethertype;
};

static __always_inline enum steer_verdict parse_udp(void *header, void *end,
						    struct datagram *datagram)
{
	struct udphdr *udp = header;

	if ((void *)(udp + 1) > end)
		return VERDICT_TRUNCATED;
	datagram->destination.port = udp->dest;
	datagram->payload = udp + 1;
	return VERDICT_REDIRECTED;
}

static __always_inline enum steer_verdict parse_ipv4(void *header, void *end,
						     struct datagram *datagram)
{
	struct iphdr *ip = header;

	if ((void *)(ip + 1) > end)
		return VERDICT_TRUNCATED;
	if (*(__u8 *)header != IPV4_VERSION_IHL_PLAIN)
		return VERDICT_IP_OPTIONS;
	if (ip->frag_off & bpf_htons(IPV4_FRAGMENT_MASK))
		return VERDICT_FRAGMENT;
	if (ip->protocol != IPPROTO_UDP)
		return VERDICT_NOT_UDP;
	datagram->source = (struct address){ .words = { ip->saddr } };
	datagram->destination.address = (struct address){ .words = { ip->daddr } };
	datagram->destination.family = FAMILY_IPV4;
	return parse_udp(ip + 1, end, datagram);
}

static __always_inline enum steer_verdict parse_ipv6(void *header, void *end,
						     struct datagram *datagram)
{
	struct ipv6hdr *ip = header;

	if ((void *)(ip + 1) > end)
		return VERDICT_TRUNCATED;
	if (*(__u8 *)header >> 4 != 6)
		return VERDICT_IP_OPTIONS;
	switch (ip->nexthdr) {
	case IPPROTO_UDP:
		break;
	case IPV6_FRAGMENT:
		return VERDICT_FRAGMENT;
	case IPV6_HOP_BY_HOP:
	case IPV6_ROUTING:
	case IPV6_DESTINATION_OPTIONS:
		return VERDICT_IP_OPTIONS;
	default:
		return VERDICT_NOT_UDP;
	}
	__builtin_memcpy(&datagram->source, &ip->saddr, sizeof(datagram->source));
	__builtin_memcpy(&datagram->destination.address, &ip->daddr,
			 sizeof(datagram->destination.address));
	datagram->destination.family = FAMILY_IPV6;
	return parse_udp(ip + 1, end, datagram);
}

static __always_inline enum steer_verdict parse(void *data, void *end, struct datagram *datagram)
{
	struct ethhdr *ethernet = data;
	void *header = ethernet + 1;
	__be16 ethertype;

	if (header > end)
		return VERDICT_TRUNCATED;
	ethertype = ethernet->h_proto;

#pragma unroll
	for (int tags = 0; tags < VLAN_TAGS_MAX; tags++) {
		struct vlan_tag *tag = header;

		if (ethertype != bpf_htons(ETH_P_8021Q) && ethertype != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 1) > end)
			return VERDICT_TRUNCATED;
		ethertype = tag->ethertype;
		header = tag + 1;
	}

	if (ethertype == bpf_htons(ETH_P_IP))
		return parse_ipv4(header, end, datagram);
	if (ethertype == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(header, end, datagram);
	return VERDICT_NOT_IP;
}

#endif
