/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * Maps and load-time constants: who writes, who reads, how large and why.
 */
#ifndef VIADUCT_MAPS_H
#define VIADUCT_MAPS_H

#include <bpf/bpf_helpers.h>

#include "consts.h"
#include "structs.h"

/* ---- fixed at load: the verifier sees constants and removes dead branches ------------------- */

/* Interfaces by position; 0 ends the list. Each (interface, queue) has sockets of its own. */
const volatile __u32 interfaces[INTERFACES_MAX];

/* RX queues served per interface, and workers. */
const volatile __u32 queues = 1;
const volatile __u32 workers = 1;

/* Whether a datagram's worker is chosen by its Call-ID; else, or without one, by its queue. */
const volatile __u32 by_call_id;

/* Key of the hash of Call-IDs, as src/affinity derives it from the secret. It does not change while
 * the program is loaded: a call's home would move. */
const volatile __u64 call_id_key[2];

/* Longest frame that fits one UMEM chunk behind both headrooms. */
const volatile __u32 frame_len_max = 1522;

/* ---- live ------------------------------------------------------------------------------------ */

/* The kill switch. Written by the loader and by an operator's hand:
 * `bpftool map update name control key 0 0 0 0 value 0 0 0 0` lets the kernel have everything. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} control SEC(".maps");

/* Bound addresses of the listeners. Written at start and on reload, read per UDP datagram.
 * Size: limits::VIPS_MAX, set by the loader. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct vip_key);
	__type(value, struct vip);
} vips SEC(".maps");

/* Networks of all source lists. Written at start and on reload, read per datagram to a VIP that has
 * a list. Size: limits, set by the loader; memory is taken per entry (tries are never preallocated). */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct source_key);
	__type(value, __u32);
} sources SEC(".maps");

/* Buckets of sources that the farm has accepted: entered by user space alone, so that no flood can
 * fill it, however many addresses it forges. Drained here. Size: limit.sources, set by the loader;
 * the source that has sent nothing for longest makes room. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct bucket_key);
	__type(value, __u64);
} known SEC(".maps");

/* Buckets of all others: entered and drained here. One that is pushed out and comes back starts
 * full, which costs no more than one burst. Size as above. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct bucket_key);
	__type(value, __u64);
} strangers SEC(".maps");

/* The source refused last: 0 for its own bucket, 1 for that of all strangers. Written here, each CPU
 * its own copy; read and emptied by user space, for a line in the log. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct refused);
} refused SEC(".maps");

/* The bucket of all strangers together. Every CPU reads it, few write: see take(). */
__u64 strangers_due SEC(".bss");

/* Sockets at (interface × queues + queue) × workers + worker. Written once, before the program is
 * attached; the kernel empties a slot when its socket is closed. Size set by the loader. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

/* Redirected frames by how their worker was chosen. Written here, each CPU its own copy, where the
 * Call-ID may choose; read and summed by the metrics page. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct steered);
} steered SEC(".maps");

/* Frames by verdict. Written here, each CPU its own copy; read and summed by the metrics page. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICT_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");

#endif
