/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * From the first octet of a SIP message to the home worker of its Call-ID.
 *
 * A hint: the worker reads the message again, as a parser does, and hands over what is not its own.
 * So this gives up wherever going on would cost more than a hand-over: behind CALL_ID_STEPS lines
 * (or blocks of a long line), behind CALL_ID_BYTES_MAX, at a value longer than CALL_ID_LEN_MAX, at a
 * value that begins on a folded line. Where it finds one, it is the Call-ID of every message that
 * the parser takes (src/sip), to the byte, and the hash is that of src/affinity: SipHash-1-3.
 *
 * What the verifier makes of a position decides whether it takes the loop. A position that it can
 * bound is a new state for each way that led to it, and ways multiply with every step; one that it
 * knows nothing of is the same state. So every position is xored with `zero`, of which only the
 * caller knows that it is 0, and masked.
 *
 * The text is either a packet (`is_packet`), whose pointers the verifier compares with its end, or
 * CALL_ID_TEXT_LEN bytes of memory.
 */
#ifndef VIADUCT_CALL_ID_H
#define VIADUCT_CALL_ID_H

#include <linux/types.h>

#include <bpf/bpf_helpers.h>

#include "consts.h"

/* The eight bytes of a word, each the same. */
#define BYTES(byte) (0x0101010101010101ULL * (byte))

/* LF and `call-id`. */
#define CALL_ID_WORD 0x64692d6c6c61630aULL

/* Bytes looked at in one step: eight words, each of which has the first byte of the next one. */
#define BLOCK_LEN 56

/* A line behind the last block, a name, a colon, a value and a word still lie inside. */
_Static_assert(CALL_ID_BYTES_MAX + BLOCK_LEN + 1 + 8 + 4 + CALL_ID_LEN_MAX + 8 <= CALL_ID_TEXT_LEN,
	       "positions wrap around");

struct text {
	void *start;
	void *end;
	__u32 len;
	__u64 zero;
	int is_packet;
};

static __always_inline __u64 hidden(const struct text *text, __u64 position)
{
	return (position ^ text->zero) & (CALL_ID_TEXT_LEN - 1);
}

/* Whether the text ends before `position`, of which the verifier learns nothing. */
static __always_inline int is_behind(const struct text *text, __u64 position)
{
	return (position ^ text->zero) >= text->len;
}

/* The place of `position`, a hidden one, if `len` bytes from there are inside. */
static __always_inline void *place(const struct text *text, __u64 position, __u32 len)
{
	void *place = text->start + position;

	/* Check and use must be of one register, or the verifier sees two places. */
	asm volatile("" : "+r"(place));
	if (text->is_packet ? place + len > text->end : is_behind(text, position + len - 1))
		return NULL;
	return place;
}

/* The word at `position`; NUL behind the end of the text. */
static __always_inline __u64 word_at(const struct text *text, __u64 position)
{
	__u64 *word = place(text, position, 8);
	__u64 last;

	if (word)
		return *word;
	if (is_behind(text, position) || text->len < 8)
		return 0;
	/* The last whole word reaches back over bytes seen already. */
	last = hidden(text, text->len - 8);
	word = place(text, last, 8);
	return word ? *word >> ((position - last) * 8 & 63) : 0;
}

/*
 * The top bit of each byte of the first seven that is LF with an odd byte behind it: `C` and `I` of
 * either case are odd, and so is CR, which ends the headers; `V`, `F`, `T`, `R` and `P`, which most
 * lines in front of a Call-ID begin with, are not. Control bytes below LF, bytes of no ASCII and VT
 * behind another LF may seem to be one.
 */
static __always_inline __u64 line_starts(__u64 word)
{
	return (word - BYTES('\n' + 1)) & word >> 1;
}

/* The top bit of the lowest byte up to SP, which no Call-ID has; what is above it may be wrong. */
static __always_inline __u64 blanks(__u64 word)
{
	return (word - BYTES(' ' + 1)) & ~word & BYTES(0x80);
}

/* Number of the lowest byte whose top bit is set; 8 if none is. */
static __always_inline __u64 first_of(__u64 tops)
{
	tops >>= 7;
	return (((tops & -tops) - 1) & BYTES(1)) * BYTES(1) >> 56;
}

/* As `lower` in src/sip/scan.rs. */
static __always_inline __u64 lower(__u64 word)
{
	return word | (word & BYTES(0x40)) >> 1;
}

static __always_inline int is_blank(__u8 byte)
{
	return byte == ' ' || byte == '\t';
}

/* Where the value of the first Call-ID begins; 0 if there is none within the bounds. */
static __always_inline __u64 find_call_id(const struct text *text)
{
	__u64 position = hidden(text, 0);
	__u64 word, starts;
	__u32 offset;
	int is_near = 0;
	void *block;
	__u8 byte;

#pragma clang loop unroll(disable)
	for (int step = 0; step < CALL_ID_STEPS; step++) {
		if (position > CALL_ID_BYTES_MAX)
			return 0;
		block = is_near ? NULL : place(text, position, BLOCK_LEN + 1);
		if (block) {
#pragma unroll
			for (offset = 0; offset < BLOCK_LEN; offset += BLOCK_LEN / 2) {
				starts = line_starts(*(__u64 *)(block + offset));
				starts |= line_starts(*(__u64 *)(block + offset + 7));
				starts |= line_starts(*(__u64 *)(block + offset + 14));
				starts |= line_starts(*(__u64 *)(block + offset + 21));
				if (starts & BYTES(0x80)) {
					is_near = 1;
					break;
				}
			}
			position = hidden(text, position + offset);
			continue;
		}
		if (is_behind(text, position))
			return 0;
		starts = line_starts(word_at(text, position)) & BYTES(0x80);
		if (!starts) {
			position = hidden(text, position + 7);
			continue;
		}
		is_near = 0;
		position = hidden(text, position + first_of(starts));
		word = lower(word_at(text, position));
		if (word == CALL_ID_WORD) {
			position = hidden(text, position + 8);
		} else {
			position = hidden(text, position + 1);
			if ((__u8)word != '\n')
				continue;
			byte = word >> 8;
			/* The empty line: the body is no header. */
			if (byte == '\r' || byte == '\n')
				return 0;
			if (byte != 'i')
				continue;
			position = hidden(text, position + 1);
		}
		/* RFC 3261 section 25.1: HCOLON = *( SP / HTAB ) ":" SWS. One blank before and two behind
		 * are more than anybody writes. */
		word = word_at(text, position);
		if (is_blank(word)) {
			word >>= 8;
			position++;
		}
		if ((__u8)word == ':') {
			position += 1 + is_blank(word >> 8);
			return position + (is_blank(word >> 8) && is_blank(word >> 16));
		}
		position = hidden(text, position);
	}
	return 0;
}

static __always_inline __u64 rotated(__u64 word, int bits)
{
	return word << bits | word >> (64 - bits);
}

#define SIP_ROUND(v0, v1, v2, v3)                 \
	do {                                      \
		v0 += v1;                         \
		v2 += v3;                         \
		v1 = rotated(v1, 13) ^ v0;        \
		v3 = rotated(v3, 16) ^ v2;        \
		v0 = rotated(v0, 32) + v3;        \
		v2 += v1;                         \
		v3 = rotated(v3, 21) ^ v0;        \
		v1 = rotated(v1, 17) ^ v2;        \
		v2 = rotated(v2, 32);             \
	} while (0)

/*
 * The home worker of the message's Call-ID, -1 if there is none within the bounds.
 * SipHash-1-3 (Aumasson, Bernstein) of the bytes up to the first blank, as src/affinity has it.
 */
static __always_inline int home_worker(const struct text *text, const volatile __u64 *key,
				       __u32 workers)
{
	__u64 v0 = key[0] ^ 0x736f6d6570736575ULL, v1 = key[1] ^ 0x646f72616e646f6dULL;
	__u64 v2 = key[0] ^ 0x6c7967656e657261ULL, v3 = key[1] ^ 0x7465646279746573ULL;
	__u64 position = find_call_id(text);
	__u64 word = 0, tops = 0, len;

	if (!position)
		return -1;
#pragma clang loop unroll(disable)
	for (len = 0; len <= CALL_ID_LEN_MAX; len += 8) {
		word = word_at(text, hidden(text, position + len));
		tops = blanks(word);
		if (tops)
			break;
		v3 ^= word;
		SIP_ROUND(v0, v1, v2, v3);
		v0 ^= word;
	}
	if (!tops)
		return -1;
	tops = first_of(tops);
	if (len + tops == 0)
		return -1;
	word &= (1ULL << (tops * 8)) - 1;
	word |= (len + tops) << 56;
	v3 ^= word;
	SIP_ROUND(v0, v1, v2, v3);
	v0 ^= word;
	v2 ^= 0xff;
	SIP_ROUND(v0, v1, v2, v3);
	SIP_ROUND(v0, v1, v2, v3);
	SIP_ROUND(v0, v1, v2, v3);
	/* The low half of the hash, scaled to the number of workers. */
	return (__u64)(__u32)(v0 ^ v1 ^ v2 ^ v3) * workers >> 32;
}

#endif
