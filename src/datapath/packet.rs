//! A received or composed datagram, the memory it stands in, and the pool of kernel-path buffers.
//!
//! Memory moves with the packet and always goes back to a pool through [`Out`](super::Out); a
//! packet that is merely forgotten is lost to its pool until the process ends.

use core::fmt;
use core::ops::Range;
use std::sync::Arc;

use crate::limits::{DATAGRAM_LEN_MAX, GROWTH_MAX, KERNEL_BUFFER_LEN, L2_L4_LEN_MAX};
use crate::net::Flow;
use crate::packet::Buffer;
use crate::xsk::{Frame, Queue};

/// Where a packet came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Another worker handed it over.
    HandOver,
    /// A kernel socket.
    Kernel,
    /// [`Out::allocate`](super::Out::allocate): the handler made it.
    Own,
    /// It is a datagram of ours that did not arrive, or the part of it that an ICMP error quotes;
    /// so it stays when a worker hands it over. See
    /// [`Handler::on_unreachable`](super::Handler::on_unreachable).
    Unreachable,
    /// An XDP link.
    Xdp,
}

/// One datagram with its flow.
#[must_use = "give it to Out, or its memory is lost"]
pub struct Packet {
    /// The direction it was received in; set it to where it goes before sending.
    pub flow: Flow,
    pub(super) memory: Memory,
    pub(super) origin: Origin,
    /// Position of the link a raw frame came in on.
    pub(super) ingress: u8,
    /// Times it was handed over.
    pub(super) hops: u8,
}

/// What a packet stands in.
pub(super) enum Memory {
    /// A frame of the UMEM.
    Frame(Frame),
    /// A buffer of the kernel path.
    Kernel(KernelBuffer),
}

impl Packet {
    /// Where it came from.
    #[inline]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Times it was handed over from worker to worker.
    pub fn hops(&self) -> u8 {
        self.hops
    }

    /// The UDP payload; in raw mode the whole frame.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        match &self.memory {
            Memory::Frame(frame) => frame.data(),
            Memory::Kernel(buffer) => buffer.payload(),
        }
    }

    /// The payload, for changes that keep its length.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Frame(frame) => frame.data_mut(),
            Memory::Kernel(buffer) => buffer.payload_mut(),
        }
    }

    /// Decides over the payload, with the room around it, and the flow. What `decide` leaves in the
    /// buffer is the payload from then on.
    #[inline]
    pub fn edit<R>(&mut self, decide: impl FnOnce(&mut Buffer<'_>, &mut Flow) -> R) -> R {
        let Self { flow, memory, .. } = self;
        let (bytes, range): (&mut [u8], _) = match memory {
            Memory::Frame(frame) => {
                let range = frame.range();
                (frame.bytes_mut(), range)
            }
            Memory::Kernel(buffer) => buffer.parts(),
        };
        let mut buffer = Buffer::new(bytes, range.start, range.end);
        let result = decide(&mut buffer, flow);
        let range = buffer.into_range();
        match memory {
            Memory::Frame(frame) => frame.set_range(range.start, range.end),
            Memory::Kernel(buffer) => buffer.set_range(range),
        }
        result
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("flow", &self.flow)
            .field("origin", &self.origin)
            .field("len", &self.payload().len())
            .finish_non_exhaustive()
    }
}

/// Room in front of a datagram read by a kernel socket.
pub(super) const KERNEL_HEADROOM: usize = (GROWTH_MAX + L2_L4_LEN_MAX).next_multiple_of(64);
const _: () = assert!(KERNEL_HEADROOM + DATAGRAM_LEN_MAX <= KERNEL_BUFFER_LEN);

/// Memory for the largest datagram and its growth.
pub(super) struct KernelBuffer {
    bytes: Box<[u8]>,
    // INVARIANT: start <= end <= KERNEL_BUFFER_LEN.
    start: u32,
    end: u32,
}

impl KernelBuffer {
    /// Zero pages, touched when first used.
    fn new() -> Self {
        Self {
            bytes: vec![0; KERNEL_BUFFER_LEN].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    /// No memory at all.
    #[cfg(test)]
    pub(super) fn empty() -> Self {
        Self {
            bytes: Box::default(),
            start: 0,
            end: 0,
        }
    }

    fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    #[inline]
    pub(super) fn payload(&self) -> &[u8] {
        self.bytes.get(self.range()).unwrap_or_default()
    }

    #[inline]
    pub(super) fn payload_mut(&mut self) -> &mut [u8] {
        let range = self.range();
        self.bytes.get_mut(range).unwrap_or_default()
    }

    fn parts(&mut self) -> (&mut [u8], Range<usize>) {
        let range = self.range();
        (&mut self.bytes, range)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "both are at most KERNEL_BUFFER_LEN"
    )]
    fn set_range(&mut self, range: Range<usize>) {
        let end = range.end.min(KERNEL_BUFFER_LEN);
        self.start = range.start.min(end) as u32;
        self.end = end as u32;
    }

    /// Where the kernel writes a received datagram.
    pub(super) fn receive_area(&mut self) -> &mut [u8] {
        self.bytes.get_mut(KERNEL_HEADROOM..).unwrap_or_default()
    }

    /// Makes the first `len` bytes of the receive area the payload.
    pub(super) fn set_received(&mut self, len: usize) {
        self.set_range(KERNEL_HEADROOM..KERNEL_HEADROOM.saturating_add(len));
    }
}

/// All kernel-path buffers that are in no worker's cache and no packet. Shared, lock-free.
pub(super) struct BufferPool(Queue<KernelBuffer>);

impl BufferPool {
    /// A pool of `count` buffers.
    pub(super) fn new(count: usize) -> Self {
        let queue = Queue::with_capacity(count);
        for _ in 0..count {
            let _ = queue.push(KernelBuffer::new());
        }
        Self(queue)
    }

    /// Buffers in it now.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Buffers moved between a cache and the pool at once.
const SLAB: usize = 32;
/// Buffers a cache holds at most. Half of a worker's share, so that workers that receive and those
/// that release what was handed over to them cannot starve each other.
const CACHE_MAX: usize = crate::limits::KERNEL_BUFFERS_PER_WORKER / 2;
const _: () = assert!(CACHE_MAX >= crate::limits::BATCH + SLAB);

/// A worker's stock of kernel-path buffers.
pub(super) struct BufferCache {
    pool: Arc<BufferPool>,
    free: Vec<KernelBuffer>,
}

impl BufferCache {
    /// An empty cache over `pool`.
    pub(super) fn new(pool: Arc<BufferPool>) -> Self {
        Self {
            pool,
            free: Vec::with_capacity(CACHE_MAX),
        }
    }

    /// A buffer, or `None` when all are in use.
    #[inline]
    pub(super) fn allocate(&mut self) -> Option<KernelBuffer> {
        if self.free.is_empty() {
            while self.free.len() < SLAB {
                let Some(buffer) = self.pool.0.pop() else {
                    break;
                };
                self.free.push(buffer);
            }
        }
        self.free.pop()
    }

    /// Gives a buffer back.
    #[inline]
    pub(super) fn release(&mut self, buffer: KernelBuffer) {
        if self.free.len() == CACHE_MAX {
            for buffer in self.free.drain(CACHE_MAX - SLAB..) {
                // The pool holds every buffer there is, so it is never full.
                let _ = self.pool.0.push(buffer);
            }
        }
        self.free.push(buffer);
    }

    /// Gives all back to the pool.
    pub(super) fn flush(&mut self) {
        for buffer in self.free.drain(..) {
            let _ = self.pool.0.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_never_keeps_more_than_its_share_and_all_come_home() {
        let pool = Arc::new(BufferPool::new(2 * CACHE_MAX));
        let mut cache = BufferCache::new(pool.clone());
        let mut taken: Vec<_> = core::iter::from_fn(|| cache.allocate()).collect();
        assert_eq!(taken.len(), 2 * CACHE_MAX);
        assert_eq!(pool.len(), 0);
        for buffer in taken.drain(..) {
            cache.release(buffer);
            assert!(cache.free.len() <= CACHE_MAX);
        }
        assert_eq!(pool.len() + cache.free.len(), 2 * CACHE_MAX);
        cache.flush();
        assert_eq!(pool.len(), 2 * CACHE_MAX);
    }

    #[test]
    fn a_buffer_keeps_its_range_inside_its_memory() {
        let mut buffer = KernelBuffer::new();
        buffer.set_received(DATAGRAM_LEN_MAX);
        assert_eq!(buffer.payload().len(), DATAGRAM_LEN_MAX);
        buffer.set_received(usize::MAX);
        assert_eq!(buffer.payload().len(), KERNEL_BUFFER_LEN - KERNEL_HEADROOM);
        buffer.set_range(usize::MAX..usize::MAX);
        assert!(buffer.payload_mut().is_empty());
    }
}
