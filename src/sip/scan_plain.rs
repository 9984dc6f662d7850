//! The searches of `scan_simd.rs` as plain loops: for other machines, and for the tests to compare.

#![cfg_attr(
    target_arch = "x86_64",
    allow(
        dead_code,
        reason = "on this machine only the tests use the plain form"
    )
)]

use super::scan::BLOCK_LEN;

/// Bit n: byte n is a control byte up to CR. Text has none but CR, LF and HTAB.
pub(super) fn control_mask(block: &[u8; BLOCK_LEN]) -> u64 {
    let mut mask = 0;
    for (index, byte) in block.iter().enumerate() {
        mask |= u64::from(*byte <= b'\r') << index;
    }
    mask
}

/// Bit n: byte n is a colon.
pub(super) fn colon_mask(chunk: &[u8; 16]) -> u32 {
    let mut mask = 0;
    for (index, byte) in chunk.iter().enumerate() {
        mask |= u32::from(*byte == b':') << index;
    }
    mask
}

/// The first offset of `start..end` that holds one of `needles`, or `end`.
pub(super) fn find_any<const N: usize>(
    bytes: &[u8],
    start: usize,
    end: usize,
    needles: [u8; N],
) -> usize {
    let range = bytes.get(start..end).unwrap_or_default();
    let found = range.iter().position(|byte| needles.contains(byte));
    found.map_or(end, |index| start + index)
}

/// The first offset of `start..end` that holds one of `needles` or a byte up to SP, or `end`.
pub(super) fn find_any_or_blank<const N: usize>(
    bytes: &[u8],
    start: usize,
    end: usize,
    needles: [u8; N],
) -> usize {
    let range = bytes.get(start..end).unwrap_or_default();
    let found = range
        .iter()
        .position(|byte| *byte <= b' ' || needles.contains(byte));
    found.map_or(end, |index| start + index)
}
