//! Bytes with headroom: the place in which a message is edited.
//!
//! A [`Buffer`] is any memory (a UMEM chunk, a kernel-path buffer, an array of a test) and the range
//! of the payload inside it. It guarantees that the range always lies inside the memory, so none of
//! its accessors can panic. What the bytes mean is the caller's affair.

use core::ops::Range;

use crate::verdict::DropReason;

/// A payload inside memory that has room in front of it and behind it.
#[derive(Debug)]
pub struct Buffer<'a> {
    bytes: &'a mut [u8],
    // INVARIANT: start <= end <= bytes.len().
    start: usize,
    end: usize,
}

/// The new bytes do not fit into the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl From<NoRoom> for DropReason {
    fn from(_: NoRoom) -> Self {
        Self::NoRoom
    }
}

impl<'a> Buffer<'a> {
    /// A buffer over `bytes` with its payload at `start..end`. A range that does not lie inside
    /// `bytes` is cut to what does.
    #[inline]
    pub fn new(bytes: &'a mut [u8], start: usize, end: usize) -> Self {
        let end = end.min(bytes.len());
        let start = start.min(end);
        Self { bytes, start, end }
    }

    /// The payload.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The payload, for changes that keep its length.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Offset of the first payload byte in the memory.
    #[inline]
    pub fn start(&self) -> usize {
        self.start
    }

    /// Offset after the last payload byte.
    #[inline]
    pub fn end(&self) -> usize {
        self.end
    }

    /// Bytes of payload.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether the payload is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes free in front of the payload. Link, IP and UDP headers need theirs here.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.start
    }

    /// Bytes free behind the payload.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.bytes.len() - self.end
    }

    /// Cuts the payload to its first `len` bytes; no effect if it is shorter.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start.saturating_add(len));
    }

    /// Puts `payload` in the place of the old one, at the same start if it fits there, else as far
    /// to the right as the memory goes.
    ///
    /// # Errors
    /// [`NoRoom`] if the memory is too short; the old payload is then unchanged.
    pub fn replace(&mut self, payload: &[u8]) -> Result<(), NoRoom> {
        let start_max = self.bytes.len().checked_sub(payload.len()).ok_or(NoRoom)?;
        self.start = self.start.min(start_max);
        self.end = self.start + payload.len();
        self.payload_mut().copy_from_slice(payload);
        Ok(())
    }

    /// The payload's range in the memory, giving the memory back.
    #[inline]
    pub fn into_range(self) -> Range<usize> {
        self.start..self.end
    }

    /// The whole memory.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }

    /// Moves the start of the payload; `start` must not be after its end.
    pub(super) fn set_start(&mut self, start: usize) {
        self.start = start.min(self.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_outside_the_memory_is_cut() {
        let mut bytes = *b"abcdef";
        assert_eq!(Buffer::new(&mut bytes, 2, 4).payload(), b"cd");
        assert_eq!(Buffer::new(&mut bytes, 2, 40).payload(), b"cdef");
        assert!(Buffer::new(&mut bytes, 40, 50).is_empty());
        assert!(Buffer::new(&mut bytes, 4, 2).is_empty());
    }

    #[test]
    fn replace_keeps_the_start_and_uses_the_headroom_only_when_it_must() {
        let mut bytes = [0; 8];
        let mut buffer = Buffer::new(&mut bytes, 4, 6);
        buffer.replace(b"abcd").unwrap();
        assert_eq!((buffer.start(), buffer.end()), (4, 8));
        buffer.replace(b"abcdef").unwrap();
        assert_eq!(
            (buffer.start(), buffer.payload()),
            (2, b"abcdef".as_slice())
        );
        buffer.replace(b"12345678").unwrap();
        assert_eq!(buffer.replace(b"123456789"), Err(NoRoom));
        assert_eq!(buffer.payload(), b"12345678");
        assert_eq!((buffer.headroom(), buffer.tailroom()), (0, 0));
    }

    #[test]
    fn truncate_only_shortens() {
        let mut bytes = *b"abcdef";
        let mut buffer = Buffer::new(&mut bytes, 1, 5);
        buffer.truncate(usize::MAX);
        assert_eq!(buffer.payload(), b"bcde");
        buffer.truncate(1);
        assert_eq!(
            (buffer.payload(), buffer.len(), buffer.tailroom()),
            (b"b".as_slice(), 1, 4)
        );
    }
}
