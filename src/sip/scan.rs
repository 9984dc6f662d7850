//! Searching bytes: line ends, first of a few bytes, white space, quoted strings, numbers.
//!
//! Every rule about bytes that more than one header shares is met here once. The two loops that
//! touch every byte, the line ends of a 64-byte block and the first of a few bytes, have a SIMD form
//! in `scan_simd.rs`; the plain form beside it serves other machines and is what the tests compare
//! with.
//!
//! Positions are offsets into the datagram, never relative to a row, so that nothing needs adding up
//! later. A search that finds nothing answers with the end of its range.

#[cfg(not(target_arch = "x86_64"))]
use super::scan_plain as fast;
#[cfg(target_arch = "x86_64")]
use super::scan_simd as fast;

use super::ParseError;

pub(super) use fast::{colon_mask, find_any, find_any_or_blank};

/// Bytes looked at together by [`Lines`].
pub(super) const BLOCK_LEN: usize = 64;

/// The ends of the lines of a header section, in order, found a block at a time.
///
/// A line ends at LF. RFC 3261 §7 demands CRLF, and RFC 2543 allowed CR or LF alone: two parsers
/// that differ there see different headers in one message. So a CR or LF of its own is noted, and
/// [`Lines::bare_line_end_before`] tells whether one stood in the part that was read.
pub(super) struct Lines<'a> {
    bytes: &'a [u8],
    /// Offset of the block that `line_feeds` speaks of.
    block: usize,
    /// Bit n: a LF not yet handed out at `block` + n.
    line_feeds: u64,
    /// Bit n: the byte at `block` + n is a LF and the one before is no CR, or the reverse.
    unpaired: u64,
    /// 1 if the last byte of the block is a CR.
    carry: u64,
    /// An unpaired CR or LF was seen in an earlier block.
    unpaired_before: bool,
}

impl<'a> Lines<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let mut lines = Self {
            bytes,
            block: 0,
            line_feeds: 0,
            unpaired: 0,
            carry: 0,
            unpaired_before: false,
        };
        lines.load();
        lines
    }

    #[inline]
    fn load(&mut self) {
        let (line_feeds, returns) = match self.bytes.get(self.block..) {
            Some(rest) => match rest.first_chunk::<BLOCK_LEN>() {
                Some(block) => fast::line_masks(block),
                None => tail_masks(self.bytes, rest),
            },
            None => (0, 0),
        };
        self.line_feeds = line_feeds;
        self.unpaired = ((returns << 1) | self.carry) ^ line_feeds;
        self.carry = returns >> 63;
    }

    /// Offset of the next LF.
    #[inline]
    pub(super) fn next_line_feed(&mut self) -> Option<usize> {
        while self.line_feeds == 0 {
            self.unpaired_before |= self.unpaired != 0;
            self.block += BLOCK_LEN;
            if self.block >= self.bytes.len() {
                self.unpaired = 0;
                return None;
            }
            self.load();
        }
        let found = self.block + self.line_feeds.trailing_zeros() as usize;
        self.line_feeds &= self.line_feeds - 1;
        Some(found)
    }

    /// Whether a CR without LF or a LF without CR stands before `end`, which must be just behind the
    /// last LF handed out.
    #[inline]
    pub(super) fn bare_line_end_before(&self, end: usize) -> bool {
        let below = match end.saturating_sub(self.block) {
            bits @ 0..BLOCK_LEN => (1 << bits) - 1,
            _ => u64::MAX,
        };
        self.unpaired_before || self.unpaired & below != 0
    }
}

/// Masks of the last, short block.
#[inline]
fn tail_masks(bytes: &[u8], rest: &[u8]) -> (u64, u64) {
    // The last full block of the datagram reaches back over bytes already seen; shift them out.
    if let Some(block) = bytes.last_chunk::<BLOCK_LEN>() {
        let seen = (BLOCK_LEN - rest.len()) % BLOCK_LEN;
        let (line_feeds, returns) = fast::line_masks(block);
        return (line_feeds >> seen, returns >> seen);
    }
    let mut block = [0; BLOCK_LEN];
    for (to, from) in block.iter_mut().zip(rest) {
        *to = *from;
    }
    fast::line_masks(&block)
}

/// `SP`, `HTAB`, and CR LF, which inside a row can only belong to a fold.
#[inline]
pub(super) const fn is_lws(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The byte at `pos`, or NUL behind the end.
#[inline]
pub(super) fn byte(bytes: &[u8], pos: usize) -> u8 {
    bytes.get(pos).copied().unwrap_or(0)
}

/// The first offset of `pos..end` that is no white space.
#[inline]
pub(super) fn skip_lws(bytes: &[u8], mut pos: usize, end: usize) -> usize {
    while pos < end && is_lws(byte(bytes, pos)) {
        pos += 1;
    }
    pos
}

/// `start..end` without white space at either side.
#[inline]
pub(super) fn trim(bytes: &[u8], start: usize, mut end: usize) -> (usize, usize) {
    let start = skip_lws(bytes, start, end);
    while end > start && is_lws(byte(bytes, end - 1)) {
        end -= 1;
    }
    (start, end)
}

/// The offset behind the quoted string that opens at `open`.
///
/// `quoted-string = SWS DQUOTE *(qdtext / quoted-pair) DQUOTE` (RFC 3261 §25.1).
#[inline]
pub(super) fn quoted_end(bytes: &[u8], open: usize, end: usize) -> Result<usize, ParseError> {
    let mut pos = open + 1;
    loop {
        pos = find_any(bytes, pos, end, [b'"', b'\\']);
        if pos >= end {
            return Err(ParseError::QuoteUnbalanced);
        }
        if byte(bytes, pos) == b'"' {
            return Ok(pos + 1);
        }
        // A quoted pair: the byte behind the backslash means itself.
        pos += 2;
    }
}

/// `token = 1*(alphanum / "-" / "." / "!" / "%" / "*" / "_" / "+" / "`" / "'" / "~")`
/// (RFC 3261 §25.1).
#[inline]
pub(super) const fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

const TOKEN: [bool; 256] = table(b"-.!%*_+`'~");

/// Bytes of a host name. The underscore is no part of `hostname`, but names in the field have it.
pub(super) const HOST_NAME: [bool; 256] = table(b"-._");

/// Letters, digits and `more`.
const fn table(more: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut index = 0;
    while index < more.len() {
        table[more[index] as usize] = true;
        index += 1;
    }
    table
}

/// Whether `bytes` is a token.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

/// What a run of digits means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// A value of 32 bits.
    Value(u32),
    /// Digits only, but more than 32 bits.
    TooLarge,
    /// Empty, or not only digits.
    Malformed,
}

/// The value of `1*DIGIT`.
#[inline]
pub(super) fn number(digits: &[u8]) -> Number {
    if digits.is_empty() {
        return Number::Malformed;
    }
    let mut value = 0u64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Number::Malformed;
        }
        // Stays above 32 bits once there, without ever wrapping.
        value = (value * 10 + u64::from(digit)).min(1 << 40);
    }
    u32::try_from(value).map_or(Number::TooLarge, Number::Value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_know_their_bounds() {
        assert_eq!(number(b"0068"), Number::Value(68));
        assert_eq!(number(b"4294967295"), Number::Value(u32::MAX));
        assert_eq!(number(b"4294967296"), Number::TooLarge);
        assert_eq!(number(&[b'9'; 400]), Number::TooLarge);
        assert_eq!(number(b""), Number::Malformed);
        assert_eq!(number(b"-1"), Number::Malformed);
        assert_eq!(number(b"1 "), Number::Malformed);
    }

    #[test]
    fn a_quoted_string_ends_at_its_own_quote() {
        let text = br#""a\"b\\" c"#;
        assert_eq!(quoted_end(text, 0, text.len()), Ok(8));
        assert_eq!(
            quoted_end(br#""a\""#, 0, 4),
            Err(ParseError::QuoteUnbalanced)
        );
        assert_eq!(
            quoted_end(br#""a\"#, 0, 3),
            Err(ParseError::QuoteUnbalanced)
        );
    }
}
