//! The token for one frame.
//!
//! Who has a [`Frame`] owns its chunk alone: the type is neither `Copy` nor `Clone`, and the other
//! places a chunk can be (pool, cache, the kernel's rings) hold numbers, not tokens. So no safe code
//! can see a chunk that somebody else, the kernel included, is writing.
//!
//! ```text
//! 0            512          768                                                  4096
//! | our headroom | kernel's   | data as received ...                       | tail |
//!                             ^ start                                      ^ end
//! ```

use core::fmt;
use core::ops::Range;

use super::pool::Chunk;
use super::umem::Umem;
use crate::limits::{FRAME_LEN, UMEM_HEADROOM, XDP_PACKET_HEADROOM};

/// Where data begins in a frame that has not been received: after the whole headroom.
const DATA_OFFSET: u16 = {
    assert!(UMEM_HEADROOM + XDP_PACKET_HEADROOM < FRAME_LEN && FRAME_LEN <= u16::MAX as usize);
    #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
    let offset = (UMEM_HEADROOM + XDP_PACKET_HEADROOM) as u16;
    offset
};

/// One frame of a [`Umem`], owned.
///
/// Give it back with [`FrameCache::release`](super::FrameCache::release) or send it with
/// [`Socket::transmit`](super::Socket::transmit). Dropping it is safe too, but slower and counted
/// ([`Pool::orphans_total`](super::Pool::orphans_total)): the chunk goes to a list that is
/// collected when a cache runs dry.
pub struct Frame {
    umem: &'static Umem,
    // INVARIANT: a chunk of `umem` that nobody else holds.
    chunk: Chunk,
    // INVARIANT: start <= end <= FRAME_LEN.
    start: u16,
    end: u16,
}

const _: () = assert!(size_of::<Option<Frame>>() == 16);

impl Frame {
    /// The token for a chunk that the caller takes from a list of free ones.
    #[inline]
    pub(super) fn from_free(umem: &'static Umem, chunk: Chunk) -> Self {
        debug_assert!((chunk as usize) < umem.frames());
        Self {
            umem,
            chunk,
            start: DATA_OFFSET,
            end: DATA_OFFSET,
        }
    }

    /// The token for a chunk that the kernel gave back with data in `start..end`.
    ///
    /// `None` if that is no range of a frame.
    #[inline]
    pub(super) fn from_kernel(
        umem: &'static Umem,
        chunk: Chunk,
        start: usize,
        end: usize,
    ) -> Option<Self> {
        if start > end || end > FRAME_LEN {
            return None;
        }
        Some(Self {
            umem,
            chunk,
            start: u16::try_from(start).ok()?,
            end: u16::try_from(end).ok()?,
        })
    }

    /// Gives up the token for the number.
    #[inline]
    pub(super) fn into_chunk(self) -> Chunk {
        let chunk = self.chunk;
        core::mem::forget(self);
        chunk
    }

    #[inline]
    pub(super) fn umem(&self) -> &'static Umem {
        self.umem
    }

    /// The whole chunk.
    #[inline]
    pub fn bytes(&self) -> &[u8; FRAME_LEN] {
        let pointer = self.umem.chunk_pointer(self.chunk).cast();
        // SAFETY: a whole chunk inside the mapping, which lives as long as the process; the token
        // is the only access to it, and it is borrowed.
        unsafe { pointer.as_ref() }
    }

    /// The whole chunk, for writing.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8; FRAME_LEN] {
        let mut pointer = self.umem.chunk_pointer(self.chunk).cast();
        // SAFETY: as in `bytes`; the token is borrowed mutably.
        unsafe { pointer.as_mut() }
    }

    /// The data: what was received or will be sent.
    #[inline]
    pub fn data(&self) -> &[u8] {
        let range = self.range();
        &self.bytes()[range]
    }

    /// The data, for writing.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let range = self.range();
        &mut self.bytes_mut()[range]
    }

    /// Where the data begins in the chunk.
    #[inline]
    pub fn start(&self) -> usize {
        usize::from(self.start)
    }

    /// Where the data ends in the chunk.
    #[inline]
    pub fn end(&self) -> usize {
        usize::from(self.end)
    }

    /// Where the data lies in the chunk.
    #[inline]
    pub fn range(&self) -> Range<usize> {
        self.start()..self.end()
    }

    /// Bytes of data.
    #[inline]
    pub fn len(&self) -> usize {
        self.end() - self.start()
    }

    /// Whether there is no data. Such a frame cannot be sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Says where the data now lies.
    ///
    /// # Panics
    /// Panics if `start > end` or `end > FRAME_LEN`: the caller has written the data there, so it
    /// has proven the range.
    #[inline]
    pub fn set_range(&mut self, start: usize, end: usize) {
        assert!(start <= end && end <= FRAME_LEN);
        #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
        {
            self.start = start as u16;
            self.end = end as u16;
        }
    }

    /// Empties the frame: no data, the whole headroom in front.
    #[inline]
    pub fn reset(&mut self) {
        self.start = DATA_OFFSET;
        self.end = DATA_OFFSET;
    }

    /// Asks the CPU for the first lines of the data: link to transport header and the start of the
    /// payload.
    #[inline]
    pub fn prefetch(&self) {
        const LINE: usize = 64;
        const LINES: usize = 4;
        let start = self.umem.chunk_pointer(self.chunk).as_ptr();
        for line in 0..LINES {
            // May point past the chunk's end: a prefetch never faults, and nothing is read.
            prefetch_line(start.wrapping_add(self.start() + line * LINE));
        }
    }

    /// Asks the CPU for all of the data, and for `headroom` bytes in front of it, where a message
    /// that grows is written: a store that misses holds up those behind it.
    #[inline]
    pub fn prefetch_whole(&self, headroom: usize) {
        const LINE: usize = 64;
        let chunk = self.umem.chunk_pointer(self.chunk).as_ptr();
        let mut at = self.start().saturating_sub(headroom) / LINE * LINE;
        while at < self.end() {
            prefetch_line(chunk.wrapping_add(at));
            at += LINE;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch_line(pointer: *const u8) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: SSE is part of x86-64; a prefetch of any address is harmless.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(pointer.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn prefetch_line(_: *const u8) {}

/// Walks over `frames`, asking the CPU for the lines of the next ones before each is given out.
///
/// In copy mode a received frame is warm in the cache of the core that ran the driver, not in
/// ours; asking three ahead hides most of the way.
pub fn prefetched(frames: &mut [Frame]) -> impl Iterator<Item = &mut Frame> {
    const AHEAD: usize = 3;
    for frame in frames.iter().take(AHEAD) {
        frame.prefetch();
    }
    Prefetched {
        rest: frames,
        ahead: AHEAD,
    }
}

struct Prefetched<'a> {
    rest: &'a mut [Frame],
    ahead: usize,
}

impl<'a> Iterator for Prefetched<'a> {
    type Item = &'a mut Frame;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(frame) = self.rest.get(self.ahead) {
            frame.prefetch();
        }
        let (first, rest) = core::mem::take(&mut self.rest).split_first_mut()?;
        self.rest = rest;
        Some(first)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.rest.len(), Some(self.rest.len()))
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.umem.pool().adopt(self.chunk);
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("chunk", &self.chunk)
            .field("range", &self.range())
            .finish()
    }
}
