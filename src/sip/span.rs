//! A range of bytes inside one datagram, in four bytes.
//!
//! Spans are offsets, so they carry no lifetime and stay true when the frame that holds the
//! datagram moves from ring to ring. They are only ever made for positions inside a datagram that
//! [`Message::parse`](super::Message::parse) accepted as short enough; what they mean for other
//! bytes is the caller's affair, and [`Span::of`] answers then with an empty slice, not a panic.

use core::fmt;
use core::ops::Range;

/// A half-open range `start..end` of byte offsets.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Span {
    // INVARIANT: start <= end.
    start: u16,
    end: u16,
}

const _: () = assert!(size_of::<Span>() == 4);

impl Span {
    /// No bytes, at offset 0.
    pub const EMPTY: Self = Self { start: 0, end: 0 };

    /// The range `start..end`; empty at `start` if `end` lies before it.
    pub const fn new(start: u16, end: u16) -> Self {
        let end = if end < start { start } else { end };
        Self { start, end }
    }

    /// The span of a whole slice; `None` if it is longer than a datagram can be.
    pub fn whole(bytes: &[u8]) -> Option<Self> {
        u16::try_from(bytes.len())
            .ok()
            .map(|end| Self { start: 0, end })
    }

    /// A span from offsets that the parser has proven to lie inside a datagram.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "offsets lie inside a datagram, and `parse` refuses more than 65,535 bytes"
    )]
    pub(super) const fn at(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= u16::MAX as usize);
        Self {
            start: start as u16,
            end: end as u16,
        }
    }

    /// Offset of the first byte.
    #[inline]
    pub const fn start(self) -> usize {
        self.start as usize
    }

    /// Offset after the last byte.
    #[inline]
    pub const fn end(self) -> usize {
        self.end as usize
    }

    /// Bytes covered.
    #[inline]
    pub const fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Whether no byte is covered.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// As a range of `usize`.
    #[inline]
    pub const fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The bytes covered; empty if `bytes` is too short, which means it is another datagram.
    #[inline]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.range()).unwrap_or_default()
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl From<Span> for Range<usize> {
    fn from(span: Span) -> Self {
        span.range()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_of_foreign_bytes_is_empty() {
        let span = Span::new(2, 5);
        assert_eq!(span.of(b"abcdef"), b"cde");
        assert_eq!(span.of(b"abcd"), b"");
        assert_eq!(Span::new(5, 2).len(), 0);
        assert_eq!(Span::whole(&[0; 65_535]).map(Span::len), Some(65_535));
        assert_eq!(Span::whole(&[0; 65_536]), None);
    }
}
