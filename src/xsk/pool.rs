//! The free frames: a global pool that all workers share and a cache that each has alone.
//!
//! Chunks travel between the two in slabs of [`limits::SLAB`], so that the shared queue is touched
//! once per 64 frames. A cache gives out what came back last: it is still warm. Nothing is lost:
//! a [`Frame`] that is dropped instead of released goes to a list of orphans, which a cache
//! collects when it runs dry, and a cache that is dropped gives all back. Orphans are counted;
//! on the data path the count stays 0.

use std::fmt;

use arrayvec::ArrayVec;

use super::frame::Frame;
use super::queue::Queue;
use super::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use super::umem::Umem;
use crate::limits;

/// Number of a chunk: its address divided by the frame length.
pub(super) type Chunk = u32;

/// No chunk: the end of the list of orphans.
const NONE: Chunk = Chunk::MAX;

/// Free chunks as numbers, `SLAB` to a slab. [`Umem`] holds one with the slab of `limits`; the loom
/// models one with a slab of two.
pub(super) struct FreeList<const SLAB: usize> {
    slabs: Queue<ArrayVec<Chunk, SLAB>>,
    /// Chunks in `slabs`: counted up before a push and down after a pop.
    pooled: AtomicUsize,
    /// First orphan.
    first: AtomicU32,
    /// For each chunk the orphan after it.
    following: Box<[AtomicU32]>,
    orphans: AtomicUsize,
    orphans_total: AtomicU64,
}

impl<const SLAB: usize> FreeList<SLAB> {
    /// A list for chunks below `chunks`, holding none of them.
    pub(super) fn new(chunks: Chunk) -> Self {
        let chunks = chunks as usize;
        Self {
            // Twice what full slabs need: caches that are dropped give back part slabs. Should
            // it be full nevertheless, the chunks become orphans.
            slabs: Queue::with_capacity(2 * chunks.div_ceil(SLAB)),
            pooled: AtomicUsize::new(0),
            first: AtomicU32::new(NONE),
            following: (0..chunks).map(|_| AtomicU32::new(NONE)).collect(),
            orphans: AtomicUsize::new(0),
            orphans_total: AtomicU64::new(0),
        }
    }

    /// Takes a slab, full or not.
    pub(super) fn take(&self) -> Option<ArrayVec<Chunk, SLAB>> {
        let slab = self.slabs.pop()?;
        self.pooled.fetch_sub(slab.len(), Ordering::Relaxed);
        Some(slab)
    }

    /// Gives a slab back.
    pub(super) fn give(&self, slab: ArrayVec<Chunk, SLAB>) {
        if slab.is_empty() {
            return;
        }
        let len = slab.len();
        self.pooled.fetch_add(len, Ordering::Relaxed);
        if let Err(slab) = self.slabs.push(slab) {
            self.pooled.fetch_sub(len, Ordering::Relaxed);
            for chunk in slab {
                self.push_orphan(chunk);
            }
        }
    }

    /// Puts one chunk on the list of orphans. Any thread, any time, no lock.
    pub(super) fn push_orphan(&self, chunk: Chunk) {
        self.orphans.fetch_add(1, Ordering::Relaxed);
        let following = &self.following[chunk as usize];
        let mut first = self.first.load(Ordering::Relaxed);
        loop {
            following.store(first, Ordering::Relaxed);
            match self.first.compare_exchange_weak(
                first,
                chunk,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Counts a frame that became an orphan because it was dropped, in all time.
    pub(super) fn count_orphan(&self) {
        self.orphans_total.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the whole list of orphans and gives each to `keep`.
    pub(super) fn take_orphans(&self, mut keep: impl FnMut(Chunk)) {
        // The list is only ever taken whole, so that the usual trap of such lists (the first is
        // taken, comes back and hides a change behind it) does not exist. Acquiring the last
        // push acquires all before it: each was a read-modify-write of `first`.
        if self.first.load(Ordering::Relaxed) == NONE {
            return;
        }
        let mut chunk = self.first.swap(NONE, Ordering::Acquire);
        while chunk != NONE {
            // Read first: `keep` may put the chunk where its link is written again.
            let following = self.following[chunk as usize].load(Ordering::Relaxed);
            self.orphans.fetch_sub(1, Ordering::Relaxed);
            keep(chunk);
            chunk = following;
        }
    }

    pub(super) fn pooled(&self) -> usize {
        self.pooled.load(Ordering::Relaxed)
    }

    pub(super) fn orphans(&self) -> usize {
        self.orphans.load(Ordering::Relaxed)
    }

    pub(super) fn orphans_total(&self) -> u64 {
        self.orphans_total.load(Ordering::Relaxed)
    }
}

/// The free frames of a UMEM that no cache holds.
pub struct Pool {
    free: FreeList<{ limits::SLAB }>,
}

impl Pool {
    /// A pool holding every chunk below `chunks`.
    pub(super) fn full(chunks: Chunk) -> Self {
        let free = FreeList::new(chunks);
        let mut all = 0..chunks;
        loop {
            let slab: ArrayVec<_, { limits::SLAB }> = all.by_ref().take(limits::SLAB).collect();
            if slab.is_empty() {
                return Self { free };
            }
            free.give(slab);
        }
    }

    /// Frames in slabs. Exact while nobody moves any.
    pub fn frames(&self) -> usize {
        self.free.pooled()
    }

    /// Frames on the list of orphans. Exact while nobody moves any.
    pub fn orphans(&self) -> usize {
        self.free.orphans()
    }

    /// Frames that were ever dropped instead of being released.
    pub fn orphans_total(&self) -> u64 {
        self.free.orphans_total()
    }

    /// Takes back a frame that somebody dropped.
    pub(super) fn adopt(&self, chunk: Chunk) {
        self.free.count_orphan();
        self.free.push_orphan(chunk);
    }

    /// Takes back a chunk that the kernel had when its sockets were closed.
    pub(super) fn recover(&self, chunk: Chunk) {
        self.free.push_orphan(chunk);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("frames", &self.frames())
            .field("orphans", &self.orphans())
            .finish()
    }
}

/// Chunks that one thread keeps at hand: at most two slabs.
pub(super) struct LocalList<const SLAB: usize> {
    chunks: Vec<Chunk>,
}

impl<const SLAB: usize> LocalList<SLAB> {
    pub(super) fn new() -> Self {
        Self {
            chunks: Vec::with_capacity(2 * SLAB),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    #[inline]
    pub(super) fn allocate(&mut self, free: &FreeList<SLAB>) -> Option<Chunk> {
        if let Some(chunk) = self.chunks.pop() {
            return Some(chunk);
        }
        self.restock(free);
        self.chunks.pop()
    }

    #[cold]
    fn restock(&mut self, free: &FreeList<SLAB>) {
        if let Some(slab) = free.take() {
            self.chunks.extend_from_slice(&slab);
            return;
        }
        let mut slab = ArrayVec::<_, SLAB>::new();
        free.take_orphans(|chunk| {
            if self.chunks.len() < SLAB {
                self.chunks.push(chunk);
                return;
            }
            if let Err(full) = slab.try_push(chunk) {
                free.give(core::mem::take(&mut slab));
                slab.push(full.element());
            }
        });
        free.give(slab);
    }

    #[inline]
    pub(super) fn release(&mut self, chunk: Chunk, free: &FreeList<SLAB>) {
        if self.chunks.len() == 2 * SLAB {
            self.unload(free);
        }
        self.chunks.push(chunk);
    }

    /// Gives the older half away: what came back last is warm.
    #[cold]
    fn unload(&mut self, free: &FreeList<SLAB>) {
        free.give(self.chunks.drain(..SLAB).collect());
    }

    pub(super) fn flush(&mut self, free: &FreeList<SLAB>) {
        while !self.chunks.is_empty() {
            let count = self.chunks.len().min(SLAB);
            free.give(self.chunks.drain(..count).collect());
        }
    }
}

/// The free frames that one worker keeps at hand; up to two slabs, the rest in the [`Pool`].
///
/// Dropping it gives its frames back to the pool.
pub struct FrameCache {
    umem: &'static Umem,
    local: LocalList<{ limits::SLAB }>,
}

impl FrameCache {
    pub(super) fn new(umem: &'static Umem) -> Self {
        Self {
            umem,
            local: LocalList::new(),
        }
    }

    /// The UMEM whose frames these are.
    pub fn umem(&self) -> &'static Umem {
        self.umem
    }

    /// A free frame, empty, its data starting after the whole headroom; `None` if there is none.
    #[inline]
    pub fn allocate(&mut self) -> Option<Frame> {
        let chunk = self.allocate_chunk()?;
        Some(Frame::from_free(self.umem, chunk))
    }

    /// Takes a frame back.
    #[inline]
    pub fn release(&mut self, frame: Frame) {
        if !core::ptr::eq(frame.umem(), self.umem) {
            // Another UMEM's frame goes home by itself.
            debug_assert!(false, "frame released to the cache of another UMEM");
            return;
        }
        self.release_chunk(frame.into_chunk());
    }

    #[inline]
    pub(super) fn allocate_chunk(&mut self) -> Option<Chunk> {
        self.local.allocate(&self.umem.pool().free)
    }

    #[inline]
    pub(super) fn release_chunk(&mut self, chunk: Chunk) {
        self.local.release(chunk, &self.umem.pool().free);
    }

    /// Frames in this cache.
    pub fn len(&self) -> usize {
        self.local.len()
    }

    /// Whether this cache holds none; the pool may.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives all frames back to the pool.
    pub fn flush(&mut self) {
        self.local.flush(&self.umem.pool().free);
    }
}

impl Drop for FrameCache {
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for FrameCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameCache")
            .field("len", &self.len())
            .finish()
    }
}
