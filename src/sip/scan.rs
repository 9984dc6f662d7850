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
/// ```text
/// I N V I T E … 2 . 0 CR LF V i a :      control bytes of a block as bits: 0…0110000
///                     ^^^^^ lowest bit: CR LF? then both bits go, and the line ends here
/// ```
///
/// A line ends at LF. RFC 3261 §7 demands CRLF, and RFC 2543 allowed CR or LF alone: two parsers
/// that differ there see different headers in one message. So a CR or LF of its own is noted, see
/// [`Lines::bare`].
pub(super) struct Lines<'a> {
    bytes: &'a [u8],
    /// Offset of the block that `controls` speaks of.
    block: usize,
    /// Bit n: a control byte not yet looked at stands at `block` + n.
    controls: u64,
    /// 1 if the first byte of the next block is a LF that was looked at with its CR.
    carry: u64,
    /// A CR or LF of its own was met.
    bare: bool,
}

/// Where a line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineEnd {
    /// Behind the last byte of its text.
    pub(super) text: usize,
    /// Behind its CR LF: where the next line starts.
    pub(super) next: usize,
}

const CRLF: u16 = u16::from_le_bytes(*b"\r\n");

impl<'a> Lines<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            block: 0,
            controls: load_controls(bytes, 0),
            carry: 0,
            bare: false,
        }
    }

    /// The end of the next line.
    #[inline(always)]
    pub(super) fn next_end(&mut self) -> Option<LineEnd> {
        loop {
            while self.controls == 0 {
                self.block += BLOCK_LEN;
                if self.block >= self.bytes.len() {
                    return None;
                }
                self.controls = load_controls(self.bytes, self.block) & !self.carry;
                self.carry = 0;
            }
            let bit = self.controls.trailing_zeros() as usize;
            let found = self.block + bit;
            self.controls &= self.controls - 1;
            let pair = self.bytes.get(found..found + 2).unwrap_or_default();
            if let Ok(pair) = pair.try_into()
                && u16::from_le_bytes(pair) == CRLF
            {
                self.controls &= self.controls.wrapping_sub(1);
                self.carry = u64::from(bit == BLOCK_LEN - 1);
                return Some(LineEnd {
                    text: found,
                    next: found + 2,
                });
            }
            match byte(self.bytes, found) {
                b'\n' => {
                    self.bare = true;
                    return Some(LineEnd {
                        text: found,
                        next: found + 1,
                    });
                }
                b'\r' => self.bare = true,
                _ => {}
            }
        }
    }

    /// Whether a CR or LF of its own was met up to the last line handed out.
    #[inline]
    pub(super) fn bare(&self) -> bool {
        self.bare
    }
}

/// The control bytes of the block at `start`, which lies inside `bytes` or is empty.
#[inline(always)]
fn load_controls(bytes: &[u8], start: usize) -> u64 {
    match bytes
        .get(start..)
        .and_then(<[u8]>::first_chunk::<BLOCK_LEN>)
    {
        Some(block) => fast::control_mask(block),
        None => tail_controls(bytes, start),
    }
}

/// The control bytes of the last, short block.
#[inline(never)]
fn tail_controls(bytes: &[u8], start: usize) -> u64 {
    let len = bytes.len().saturating_sub(start) % BLOCK_LEN;
    // The last full block of the datagram reaches back over bytes already seen; shift them out.
    if let Some(block) = bytes.last_chunk::<BLOCK_LEN>() {
        return match len {
            0 => 0,
            _ => fast::control_mask(block) >> (BLOCK_LEN - len),
        };
    }
    // Padded with what is no control byte.
    let mut block = [b' '; BLOCK_LEN];
    for (to, from) in block.iter_mut().zip(bytes) {
        *to = *from;
    }
    fast::control_mask(&block)
}

/// Eight bytes at `pos`, the first one lowest; NUL behind the end.
#[inline(always)]
pub(super) fn word(bytes: &[u8], pos: usize) -> u64 {
    match bytes.get(pos..).and_then(<[u8]>::first_chunk::<8>) {
        Some(word) => u64::from_le_bytes(*word),
        None => tail_word(bytes, pos),
    }
}

#[inline(never)]
fn tail_word(bytes: &[u8], pos: usize) -> u64 {
    let mut word = [0; 8];
    for (to, from) in word.iter_mut().zip(bytes.get(pos..).unwrap_or_default()) {
        *to = *from;
    }
    u64::from_le_bytes(word)
}

/// The first `text.len()` bytes of a word, for comparing with [`pack`].
#[inline(always)]
pub(super) const fn front(word: u64, len: usize) -> u64 {
    match len {
        0..8 => word & ((1 << (8 * len)) - 1),
        _ => word,
    }
}

/// Up to eight bytes of text as a word.
pub(super) const fn pack(text: &[u8]) -> u64 {
    let mut word = 0;
    let mut index = text.len();
    while index > 0 {
        index -= 1;
        word = word << 8 | text[index] as u64;
    }
    word
}

/// Letters in lower case, for comparing with text of letters, digits, `-`, `=` and `;`.
///
/// Sets bit 5 where bit 6 is set: upper-case letters become lower-case, `@[\]^_` become others that
/// no such text has, and what is below `@`, such as CR against `-`, stays.
#[inline(always)]
pub(super) const fn lower(word: u64) -> u64 {
    word | (word & 0x4040_4040_4040_4040) >> 1
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
#[inline(always)]
pub(super) fn number(bytes: &[u8], start: usize, end: usize) -> Number {
    match leading_number(bytes, start, end) {
        (number, after) if after == end => number,
        _ => Number::Malformed,
    }
}

/// The value of the digits at `start`, and where they end.
#[inline(always)]
pub(super) fn leading_number(bytes: &[u8], start: usize, end: usize) -> (Number, usize) {
    let mut value = 0u64;
    let mut pos = start;
    while pos < end {
        let digit = byte(bytes, pos).wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        // Stays above 32 bits once there, without ever wrapping.
        value = (value * 10 + u64::from(digit)).min(1 << 40);
        pos += 1;
    }
    let number = match u32::try_from(value) {
        _ if pos == start => Number::Malformed,
        Ok(value) => Number::Value(value),
        Err(_) => Number::TooLarge,
    };
    (number, pos)
}

/// RFC 3261 §25.1: the `delta-seconds` that a value begins with. What is too large is the largest.
pub fn delta_seconds(value: &[u8]) -> Option<u32> {
    match leading_number(value, 0, value.len()).0 {
        Number::Value(seconds) => Some(seconds),
        Number::TooLarge => Some(u32::MAX),
        Number::Malformed => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_end_where_their_digits_do() {
        assert_eq!(delta_seconds(b"120 (maintenance)"), Some(120));
        assert_eq!(delta_seconds(b"1800;refresher=uac"), Some(1800));
        assert_eq!(delta_seconds(b"99999999999"), Some(u32::MAX));
        assert_eq!(delta_seconds(b"soon"), None);
    }

    #[test]
    fn numbers_know_their_bounds() {
        let number = |digits: &[u8]| number(digits, 0, digits.len());
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
