// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * flood: makes requests, each a call of its own, and sends them out of an interface.
 *
 * Not attached anywhere: user space runs it with BPF_F_TEST_XDP_LIVE_FRAMES, and the kernel sends
 * what it redirects. Frames are rendered by user space, one record per source and layout; per frame
 * a record is copied, the digits that make the call a new one are written over it, and the UDP
 * checksum is closed. That costs the sender's core far less than a socket would, so that on one
 * machine the receiver is what is measured.
 *
 * One run lasts as long as the flood: each makes the kernel rebuild its XDP dispatcher and wait for
 * all CPUs, some ten milliseconds in which nothing would be sent. So the pace is kept in here, by
 * dropping frames that are not due.
 */
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Twins in src/bpf/flood.rs. */
#define FLOOD_FRAME_LEN_MAX 1500
#define FLOOD_FIELDS 4
#define FLOOD_FIELD_LEN 16
#define PACE_SHIFT 20

/* A frame with FLOOD_FIELDS fields of sixteen hexadecimal digits, written per call. */
struct flood_record {
	/* Octets of the frame. */
	__u16 len;
	/* Where the UDP checksum is, and its sum (not folded, not complemented) with all fields 0. */
	__u16 checksum_offset;
	__u32 sum;
	/* Where the fields are; 0 is none. */
	__u16 fields[FLOOD_FIELDS];
	__u8 frame[FLOOD_FRAME_LEN_MAX];
};

_Static_assert(sizeof(struct flood_record) == 1516, "flood_record");

/* ---- fixed at load --------------------------------------------------------------------------- */

const volatile __u32 egress_ifindex;
const volatile __u32 record_count = 1;
/* Calls made before they repeat. */
const volatile __u64 call_count = 1;
/* Makes the digits of two floods differ. */
const volatile __u64 seed;
/* Whether the last field of a record is the time of sending. */
const volatile __u8 timed;
/* Frames sent at most. */
const volatile __u64 frames_max = ~0ULL;
/* Frames per 2^30 ns times 2^PACE_SHIFT; 0 is as many as go. */
const volatile __u64 pace;

/* ---- maps ------------------------------------------------------------------------------------ */

/* Written once by user space, one entry per record. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flood_record);
} records SEC(".maps");

struct flood_state {
	/* Frames sent. Read by user space. */
	__u64 sent;
	/* The call to make next. */
	__u64 call;
	/* When the first frame was made, by the monotonic clock. */
	__u64 start;
};

_Static_assert(sizeof(struct flood_state) == 24, "flood_state");

/* Where the flood is. One thread runs the program, so there is one. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flood_state);
} state SEC(".maps");

/* A bijection that leaves no trace of counting (the finisher of SplitMix64). */
static __always_inline __u64 mixed(__u64 x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9;
	x ^= x >> 27;
	x *= 0x94d049bb133111eb;
	return x ^ x >> 31;
}

/* Eight hexadecimal digits of a word, as they stand in memory. */
static __always_inline __u64 digits(__u32 word)
{
	__u64 x = bpf_htonl(word), letters;

	/* One nibble per octet: spread by 16, by 8, by 4, the high nibble of each octet first. */
	x = (x | x << 16) & 0x0000ffff0000ffff;
	x = (x | x << 8) & 0x00ff00ff00ff00ff;
	x = (x >> 4 & 0x000f000f000f000f) | (x & 0x000f000f000f000f) << 8;
	/* '0' to '9' and 'a' to 'f' are 39 apart from being one row. */
	letters = (x + 0x0606060606060606) >> 4 & 0x0101010101010101;
	return x + 0x3030303030303030 + letters * 39;
}

/* One's complement sum of the four 16-bit words in eight octets. */
static __always_inline __u64 sum(__u64 octets)
{
	return (octets >> 48) + (octets >> 32 & 0xffff) + (octets >> 16 & 0xffff) +
	       (octets & 0xffff);
}

/* Whether a frame is to be sent now. */
static __always_inline int is_due(struct flood_state *flood)
{
	__u64 now, due;

	if (flood->sent >= frames_max)
		return 0;
	if (pace == 0)
		return 1;
	now = bpf_ktime_get_ns();
	if (flood->start == 0)
		flood->start = now;
	/* A thousand seconds at ten million a second stay below 2^64. */
	due = ((now - flood->start) >> 10) * pace >> (20 + PACE_SHIFT);
	return flood->sent < due;
}

SEC("xdp")
int flood(struct xdp_md *ctx)
{
	void *data, *end;
	__u64 call, total;
	__u32 zero = 0, index, len;
	struct flood_record *record;
	struct flood_state *flood;
	__be16 *checksum;

	flood = bpf_map_lookup_elem(&state, &zero);
	if (!flood)
		return XDP_ABORTED;
	if (!is_due(flood))
		return XDP_DROP;
	call = flood->call;

	index = call % record_count;
	record = bpf_map_lookup_elem(&records, &index);
	if (!record)
		return XDP_ABORTED;
	len = record->len;
	if (len == 0 || len > FLOOD_FRAME_LEN_MAX)
		return XDP_ABORTED;
	if (bpf_xdp_adjust_tail(ctx, (int)len - (int)bpf_xdp_get_buff_len(ctx)))
		return XDP_ABORTED;
	if (bpf_xdp_store_bytes(ctx, 0, record->frame, len))
		return XDP_ABORTED;

	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	total = record->sum;
#pragma unroll
	for (int field = 0; field < FLOOD_FIELDS; field++) {
		__u64 offset = record->fields[field] & 0x7ff;
		__u64 id = mixed(call * FLOOD_FIELDS + field + seed), words;
		__u64 *to = data + offset;

		if (offset == 0)
			continue;
		if (timed && field == FLOOD_FIELDS - 1)
			id = bpf_ktime_get_ns();
		if ((void *)(to + 2) > end)
			return XDP_ABORTED;
		to[0] = digits(id >> 32);
		to[1] = digits(id);
		words = sum(to[0]) + sum(to[1]);
		/* At an odd offset every octet is in the other half of its word (RFC 1071 section 2). */
		if (offset & 1)
			words = (words & 0x00ff00ff) << 8 | (words & 0xff00ff00) >> 8;
		total += words;
	}
	total = (total & 0xffff) + (total >> 16);
	total = (total & 0xffff) + (total >> 16);
	total = (total & 0xffff) + (total >> 16);

	checksum = data + (record->checksum_offset & 0x7ff);
	if ((void *)(checksum + 1) > end)
		return XDP_ABORTED;
	/* RFC 768: a sum of zero is sent as all ones. */
	*checksum = total == 0xffff ? 0xffff : ~total;
	flood->call = call + 1 < call_count ? call + 1 : 0;
	flood->sent++;
	return bpf_redirect(egress_ifindex, 0);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
