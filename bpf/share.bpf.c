// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * share: which of the workers' kernel sockets on one address gets a datagram.
 *
 * The home worker's, by the Call-ID, as steer.bpf.c does it for AF_XDP: the kernel's own choice is a
 * hash of addresses and ports, which gives all of a trunk to one worker. Where no Call-ID is found
 * the kernel chooses as it always did.
 */
#include <linux/bpf.h>
#include <linux/udp.h>

#include <bpf/bpf_helpers.h>

#include "call_id.h"
#include "consts.h"
#include "structs.h"

/* ---- fixed at load --------------------------------------------------------------------------- */

/* Sockets of the address. */
const volatile __u32 workers = 1;

/* Key of the hash of Call-IDs: see maps.h. */
const volatile __u64 call_id_key[2];

/* ---- live ------------------------------------------------------------------------------------ */

/* The socket of each worker. Written once, before the program is attached; the kernel empties a slot
 * when its socket is closed. Size set by the loader. */
struct {
	__uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

/* The beginning of a message, and what a look at its last byte may reach. */
struct beginning {
	__u8 bytes[CALL_ID_TEXT_LEN + 64];
};

/* A socket buffer may lie in pieces, of which a program sees the first: copied here, each CPU its own.
 * Written and read within one run. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct beginning);
} beginnings SEC(".maps");

/* Datagrams by how their socket was chosen. Written here, each CPU its own copy; read and summed by
 * the metrics page. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct steered);
} shared SEC(".maps");

/* Not static: see its twin in steer.bpf.c. */
__attribute__((noinline)) int find_home(struct beginning *beginning, __u32 len, __u64 zero)
{
	struct text text = { .len = len, .zero = zero };

	if (!beginning)
		return -1;
	text.start = beginning->bytes;
	return home_worker(&text, call_id_key, workers);
}

SEC("sk_reuseport")
int share(struct sk_reuseport_md *ctx)
{
	__u32 zero = 0, home, len = ctx->len;
	struct beginning *beginning = bpf_map_lookup_elem(&beginnings, &zero);
	struct steered *count = bpf_map_lookup_elem(&shared, &zero);
	int found = -1;

	/* No socket chosen and SK_PASS leaves the choice to the kernel. */
	if (!beginning || !count)
		return SK_PASS;
	if (len > sizeof(struct udphdr)) {
		len -= sizeof(struct udphdr);
		if (len > CALL_ID_TEXT_LEN)
			len = CALL_ID_TEXT_LEN;
		if (!bpf_skb_load_bytes(ctx, sizeof(struct udphdr), beginning->bytes, len))
			found = find_home(beginning, len, 0);
	}
	home = found;
	if (found >= 0 && !bpf_sk_select_reuseport(ctx, &sockets, &home, 0))
		count->by_call_id++;
	else
		count->by_queue++;
	return SK_PASS;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
