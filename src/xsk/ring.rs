//! The single-producer, single-consumer rings that user space and the kernel share.
//!
//! Owns the index arithmetic and the memory order; guarantees that no entry is read before it was
//! published or overwritten before it was consumed, whatever the other side writes into its index.
//! Knows nothing of what an entry means. A ring lies over memory mapped from an AF_XDP socket or
//! over ordinary memory, where the kernel's end is played by the opposite type: see
//! [`testing::pair`](super::testing::pair).
//!
//! Indices run freely over `u32` and wrap; the entry is `index & mask` (linux/if_xdp.h,
//! net/xdp/xsk_queue.h). The producer publishes with release, the consumer frees with release, each
//! reads the other's index with acquire.

use core::fmt;
use core::ptr::NonNull;

use super::sync::{Arc, AtomicU32, Cell, Ordering};
use super::sys::Mapping;

/// The other side asks to be woken by a system call (`XDP_RING_NEED_WAKEUP`, linux/if_xdp.h).
const NEED_WAKEUP: u32 = 1;

/// Where the words of a ring lie and what keeps them there.
pub(super) struct RingMemory<T> {
    // INVARIANT: all four point into `_keep` and stay valid as long as it lives; `entries` has
    // `mask + 1` elements, a power of two.
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<Cell<T>>,
    mask: u32,
    _keep: Keep<T>,
}

enum Keep<T> {
    Mapped { _mapping: Mapping },
    Heap { _heap: Arc<Heap<T>> },
}

struct Heap<T> {
    producer: AtomicU32,
    consumer: AtomicU32,
    flags: AtomicU32,
    entries: Box<[Cell<T>]>,
}

// SAFETY: the pointed-to memory is owned through `_keep` and reached only through atomics, or
// through entries whose owner the indices name.
unsafe impl<T: Send> Send for RingMemory<T> {}

/// Byte offsets of a ring's words in its mapping, from `XDP_MMAP_OFFSETS`.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingOffsets {
    pub(super) producer: usize,
    pub(super) consumer: usize,
    pub(super) flags: usize,
    pub(super) entries: usize,
}

impl<T: Copy> RingMemory<T> {
    /// A ring of `len` entries inside `mapping`.
    ///
    /// # Safety
    /// `mapping` is an AF_XDP ring of `len` entries of type `T`, `len` a power of two, with its
    /// words at `offsets` inside the mapping; any bit pattern is a valid `T`; and this process
    /// makes no second handle of the same end.
    #[cfg(not(loom))]
    pub(super) unsafe fn mapped(mapping: Mapping, offsets: RingOffsets, len: u32) -> Self {
        let word = |offset| mapping.pointer(offset).cast::<AtomicU32>();
        Self {
            producer: word(offsets.producer),
            consumer: word(offsets.consumer),
            flags: word(offsets.flags),
            entries: mapping.pointer(offsets.entries).cast(),
            mask: len - 1,
            _keep: Keep::Mapped { _mapping: mapping },
        }
    }

    /// Loom's atomics cannot be laid over kernel memory; its models use [`Self::heap`].
    ///
    /// # Safety
    /// None needed: it never returns.
    #[cfg(loom)]
    pub(super) unsafe fn mapped(mapping: Mapping, _: RingOffsets, _: u32) -> Self {
        let _ = Keep::<T>::Mapped { _mapping: mapping };
        unreachable!("the loom build opens no socket")
    }

    /// Both ends of a ring of `len` entries over ordinary memory, its indices starting at `index`.
    pub(super) fn heap(len: u32, index: u32, blank: T) -> (Self, Self) {
        assert!(len.is_power_of_two());
        let heap = Arc::new(Heap {
            producer: AtomicU32::new(index),
            consumer: AtomicU32::new(index),
            flags: AtomicU32::new(0),
            entries: (0..len).map(|_| Cell::new(blank)).collect(),
        });
        (Self::over(&heap), Self::over(&heap))
    }

    fn over(heap: &Arc<Heap<T>>) -> Self {
        Self {
            producer: NonNull::from(&heap.producer),
            consumer: NonNull::from(&heap.consumer),
            flags: NonNull::from(&heap.flags),
            entries: NonNull::from(&heap.entries[0]),
            mask: u32::try_from(heap.entries.len() - 1).unwrap_or(0),
            _keep: Keep::Heap {
                _heap: Arc::clone(heap),
            },
        }
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: valid by the invariant; an aligned word that both sides treat as atomic.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.flags.as_ref() }
    }

    #[inline]
    fn entry(&self, index: u32) -> &Cell<T> {
        // SAFETY: the masked index is inside the `mask + 1` entries.
        let entry = unsafe { self.entries.add((index & self.mask) as usize) };
        // SAFETY: valid by the invariant; the cell is only accessed by the side that owns it.
        unsafe { entry.as_ref() }
    }

    fn capacity(&self) -> u32 {
        self.mask + 1
    }

    /// Entries published and not yet consumed, as both indices stand now.
    fn len(&self) -> u32 {
        let consumer = self.consumer().load(Ordering::Acquire);
        let producer = self.producer().load(Ordering::Acquire);
        producer.wrapping_sub(consumer).min(self.capacity())
    }
}

/// The end of a ring that writes entries: fill and TX for user space.
pub struct Producer<T> {
    memory: RingMemory<T>,
    /// What the producer index says, without reading it back.
    next: u32,
    /// The consumer index as last read.
    consumed: u32,
}

impl<T: Copy> Producer<T> {
    /// Takes the producing end of `memory`, starting where its index stands.
    pub(super) fn new(memory: RingMemory<T>) -> Self {
        let next = memory.producer().load(Ordering::Relaxed);
        let consumed = memory.consumer().load(Ordering::Acquire);
        Self {
            memory,
            next,
            consumed,
        }
    }

    /// Entries that can be written now; looks at the consumer's index if fewer than `wanted` are
    /// known to be free.
    #[inline]
    pub fn free(&mut self, wanted: u32) -> u32 {
        let free = self.free_known();
        if free >= wanted {
            return free;
        }
        self.consumed = self.memory.consumer().load(Ordering::Acquire);
        self.free_known()
    }

    #[inline]
    fn free_known(&self) -> u32 {
        // A consumer index ahead of ours is no state of a ring; it reads as full and so as harmless.
        self.memory
            .capacity()
            .saturating_sub(self.next.wrapping_sub(self.consumed))
    }

    /// Writes up to `wanted` entries made by `make` and publishes them together.
    ///
    /// Returns how many: fewer if the ring has no room or `make` has no more. `make` is never asked
    /// for an entry that there is no room for.
    #[inline]
    pub fn produce(&mut self, wanted: u32, mut make: impl FnMut() -> Option<T>) -> u32 {
        let room = self.free(wanted).min(wanted);
        let mut count = 0;
        while count < room {
            let Some(value) = make() else { break };
            self.memory
                .entry(self.next.wrapping_add(count))
                // SAFETY: the entry lies between our index and the consumer's, one lap on: ours
                // until the index is published below.
                .with_mut(|entry| unsafe { entry.write(value) });
            count += 1;
        }
        if count > 0 {
            self.next = self.next.wrapping_add(count);
            self.memory.producer().store(self.next, Ordering::Release);
        }
        count
    }

    /// Entries published and not yet consumed by the other side.
    #[inline]
    pub fn len(&self) -> u32 {
        let consumed = self.memory.consumer().load(Ordering::Acquire);
        self.next.wrapping_sub(consumed).min(self.capacity())
    }

    /// Whether the other side has consumed everything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries of the ring.
    pub fn capacity(&self) -> u32 {
        self.memory.capacity()
    }

    /// Overwrites the other side's index: for tests of what a broken kernel may do.
    #[cfg(all(test, not(loom)))]
    pub(super) fn corrupt_consumer(&self, index: u32) {
        self.memory.consumer().store(index, Ordering::Release);
    }

    /// Whether the kernel sleeps on this ring until a system call wakes it.
    #[inline]
    pub fn needs_wakeup(&self) -> bool {
        self.memory.flags().load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }
}

/// The end of a ring that reads entries: RX and completion for user space.
pub struct Consumer<T> {
    memory: RingMemory<T>,
    /// What the consumer index says, or will once published.
    next: u32,
    /// The producer index as last read.
    produced: u32,
}

impl<T: Copy> Consumer<T> {
    /// Takes the consuming end of `memory`, starting where its index stands.
    pub(super) fn new(memory: RingMemory<T>) -> Self {
        let next = memory.consumer().load(Ordering::Relaxed);
        let produced = memory.producer().load(Ordering::Acquire);
        Self {
            memory,
            next,
            produced,
        }
    }

    #[inline]
    fn available(&mut self, wanted: u32) -> u32 {
        let known = self.produced.wrapping_sub(self.next);
        if known < wanted {
            self.produced = self.memory.producer().load(Ordering::Acquire);
        }
        let available = self.produced.wrapping_sub(self.next);
        // A producer index more than a ring ahead is no state of a ring: it is not believed, and
        // read again the next time.
        if available > self.memory.capacity() {
            self.produced = self.next;
            return 0;
        }
        available
    }

    /// Gives up to `wanted` entries to `take` and frees them together; returns how many.
    #[inline]
    pub fn consume(&mut self, wanted: u32, mut take: impl FnMut(T)) -> u32 {
        let count = self.available(wanted).min(wanted);
        for _ in 0..count {
            let value = self
                .memory
                .entry(self.next)
                // SAFETY: published by the producer (acquired in `available`) and not yet freed by
                // us, so nobody writes it; any bit pattern is a valid `T`.
                .with(|entry| unsafe { entry.read() });
            // Moved on before the call: if `take` panics the entry is not given out twice.
            self.next = self.next.wrapping_add(1);
            take(value);
        }
        if count > 0 {
            self.memory.consumer().store(self.next, Ordering::Release);
        }
        count
    }

    /// Entries published and not yet consumed.
    pub fn len(&self) -> u32 {
        self.memory.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries of the ring.
    pub fn capacity(&self) -> u32 {
        self.memory.capacity()
    }

    /// Sets or clears the need-wakeup flag, as the kernel does on the rings it consumes.
    pub(super) fn set_needs_wakeup(&self, needs: bool) {
        let flags = if needs { NEED_WAKEUP } else { 0 };
        self.memory.flags().store(flags, Ordering::Relaxed);
    }

    /// Overwrites the other side's index: for tests of what a broken kernel may do.
    #[cfg(all(test, not(loom)))]
    pub(super) fn corrupt_producer(&self, index: u32) {
        self.memory.producer().store(index, Ordering::Release);
    }
}

impl<T: Copy> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish()
    }
}

impl<T: Copy> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish()
    }
}
