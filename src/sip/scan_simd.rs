//! The searches that touch every byte, sixteen bytes at a time with SSE2, which every x86-64 has.
//!
//! The plain twin is `scan_plain.rs`; a property test holds the two together.
//!
//! ```text
//! find_any(needles):
//!   for each 16 bytes:  mask = OR over needles (compare each byte with the needle)
//!     if mask has a bit: the lowest one is the answer, unless it lies behind `end`
//!   what is left of the datagram is shorter than 16 bytes: take its last 16, drop those seen
//! ```

#![expect(unsafe_code, reason = "SIMD loads take raw pointers")]

use core::arch::x86_64::{
    __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128,
    _mm_set1_epi8, _mm_setzero_si128,
};

use super::scan::BLOCK_LEN;
use super::scan_plain;

#[inline]
#[target_feature(enable = "sse2")]
fn load(chunk: &[u8; 16]) -> __m128i {
    // SAFETY: the reference covers 16 readable bytes, and an unaligned load asks for no more.
    // JUSTIFICATION: these loops touch every byte of a header section. The gain over the plain
    // twin is not measured yet; bench `sip/parse/invite-507` is the place to do it.
    unsafe { _mm_loadu_si128(chunk.as_ptr().cast()) }
}

/// Bit n: byte n of the vector is all ones.
#[inline]
#[target_feature(enable = "sse2")]
fn bits(vector: __m128i) -> u32 {
    _mm_movemask_epi8(vector).cast_unsigned() & 0xffff
}

#[inline]
#[target_feature(enable = "sse2")]
fn equal(vector: __m128i, byte: u8) -> __m128i {
    _mm_cmpeq_epi8(vector, _mm_set1_epi8(byte.cast_signed()))
}

/// Unsigned min(byte, limit) is the byte itself only for bytes up to the limit.
#[inline]
#[target_feature(enable = "sse2")]
fn at_most(vector: __m128i, limit: u8) -> __m128i {
    let low = _mm_min_epu8(vector, _mm_set1_epi8(limit.cast_signed()));
    _mm_cmpeq_epi8(low, vector)
}

#[inline]
#[target_feature(enable = "sse2")]
fn control_mask_sse2(block: &[u8; BLOCK_LEN]) -> u64 {
    let mut mask = 0;
    for (index, chunk) in block.as_chunks::<16>().0.iter().enumerate() {
        mask |= u64::from(bits(at_most(load(chunk), b'\r'))) << (16 * index);
    }
    mask
}

#[inline]
#[target_feature(enable = "sse2")]
fn colon_mask_sse2(chunk: &[u8; 16]) -> u32 {
    bits(equal(load(chunk), b':'))
}

#[inline]
#[target_feature(enable = "sse2")]
fn matches_sse2<const N: usize, const BLANK: bool>(chunk: &[u8; 16], needles: [u8; N]) -> u32 {
    let vector = load(chunk);
    let mut found = _mm_setzero_si128();
    for needle in needles {
        found = _mm_or_si128(found, equal(vector, needle));
    }
    if BLANK {
        found = _mm_or_si128(found, at_most(vector, b' '));
    }
    bits(found)
}

/// Bit n: byte n is a control byte up to CR. Text has none but CR, LF and HTAB.
#[inline]
pub(super) fn control_mask(block: &[u8; BLOCK_LEN]) -> u64 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { control_mask_sse2(block) }
}

/// Bit n: byte n is a colon.
#[inline]
pub(super) fn colon_mask(chunk: &[u8; 16]) -> u32 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { colon_mask_sse2(chunk) }
}

/// Bit n: byte n is one of `needles` or, if `BLANK`, a byte up to SP.
#[inline]
fn matches<const N: usize, const BLANK: bool>(chunk: &[u8; 16], needles: [u8; N]) -> u32 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { matches_sse2::<N, BLANK>(chunk, needles) }
}

/// The first offset of `start..end` that holds one of `needles`, or `end`.
#[inline]
pub(super) fn find_any<const N: usize>(
    bytes: &[u8],
    start: usize,
    end: usize,
    needles: [u8; N],
) -> usize {
    search::<N, false>(bytes, start, end, needles)
}

/// The first offset of `start..end` that holds one of `needles` or a byte up to SP, or `end`.
#[inline]
pub(super) fn find_any_or_blank<const N: usize>(
    bytes: &[u8],
    start: usize,
    end: usize,
    needles: [u8; N],
) -> usize {
    search::<N, true>(bytes, start, end, needles)
}

#[inline]
fn search<const N: usize, const BLANK: bool>(
    bytes: &[u8],
    start: usize,
    end: usize,
    needles: [u8; N],
) -> usize {
    let mut pos = start;
    while pos < end {
        let Some(chunk) = bytes.get(pos..).and_then(<[u8]>::first_chunk::<16>) else {
            return search_tail::<N, BLANK>(bytes, pos, end, needles);
        };
        let mask = matches::<N, BLANK>(chunk, needles);
        if mask != 0 {
            return end.min(pos + mask.trailing_zeros() as usize);
        }
        pos += 16;
    }
    end
}

/// The search over the last bytes of the datagram, fewer than 16.
#[inline]
fn search_tail<const N: usize, const BLANK: bool>(
    bytes: &[u8],
    pos: usize,
    end: usize,
    needles: [u8; N],
) -> usize {
    let Some(chunk) = bytes.last_chunk::<16>() else {
        return if BLANK {
            scan_plain::find_any_or_blank(bytes, pos, end, needles)
        } else {
            scan_plain::find_any(bytes, pos, end, needles)
        };
    };
    let seen = pos.saturating_sub(bytes.len() - 16);
    let mask = matches::<N, BLANK>(chunk, needles) >> seen.min(16);
    if mask == 0 {
        return end;
    }
    end.min(pos + mask.trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Few distinct bytes, so that needles are met and missed alike.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            Just(b'\r'),
            Just(b'\n'),
            Just(b':'),
            Just(b';'),
            any::<u8>()
        ];
        proptest::collection::vec(byte, 0..200)
    }

    proptest! {
        #[test]
        fn simd_and_plain_agree(text in text(), start in 0usize..210, len in 0usize..210) {
            // Positions behind the datagram are the one thing callers never ask for.
            let start = start.min(text.len());
            let end = (start + len).min(text.len());
            let needles = *b";:";
            prop_assert_eq!(
                find_any(&text, start, end, needles),
                scan_plain::find_any(&text, start, end, needles)
            );
            prop_assert_eq!(
                find_any_or_blank(&text, start, end, needles),
                scan_plain::find_any_or_blank(&text, start, end, needles)
            );
            if let Some(block) = text.first_chunk() {
                prop_assert_eq!(control_mask(block), scan_plain::control_mask(block));
            }
            if let Some(chunk) = text.first_chunk() {
                prop_assert_eq!(colon_mask(chunk), scan_plain::colon_mask(chunk));
            }
        }
    }
}
