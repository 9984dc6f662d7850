//! UMEM: the memory shared with the kernel, cut into fixed frames.
//!
//! Owns the mapping, the pool of free frames and the ledger of those that the kernel has. Gives a
//! token for a chunk that the kernel hands back only if the ledger says that the kernel had it.
//! Knows nothing of what is inside a frame.

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::device::Registry;
use super::error::XskError;
use super::frame::Frame;
use super::ledger::{Ledger, Place};
use super::pool::{Chunk, FrameCache, Pool};
use super::sys::{HUGE_PAGE_LEN, Mapping};
use crate::limits::{
    BATCH, FILL_RING_LEN, FRAME_LEN, HAND_OVER_RING_LEN, RING_LEN, SLAB, UMEM_HEADROOM,
};

/// Which pages a UMEM should lie on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Normal pages, without asking for more.
    Never,
    /// Pre-allocated 2 MiB pages if there are enough, else normal pages with the advice to merge.
    #[default]
    Try,
}

/// Which pages a UMEM lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Pre-allocated 2 MiB pages.
    Huge,
    /// Normal pages that the kernel may merge to huge ones (`MADV_HUGEPAGE`).
    Advised,
    /// Normal pages.
    Normal,
}

impl Pages {
    /// The word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Huge => "huge",
            Self::Advised => "advised",
            Self::Normal => "normal",
        }
    }
}

/// Size and pages of a UMEM.
#[derive(Clone, Copy, Debug)]
pub struct UmemConfig {
    /// Frames, rounded up to whole slabs.
    pub frame_count: usize,
    /// Which pages to try.
    pub huge_pages: HugePages,
}

impl UmemConfig {
    /// A UMEM that cannot run dry: room for every ring of `queues` device queues with
    /// `sockets_per_queue` sockets each, and for what `workers` workers hold.
    pub const fn for_rings(queues: usize, sockets_per_queue: usize, workers: usize) -> Self {
        // Completion entries are the same frames as TX entries, some moments later.
        let per_queue = FILL_RING_LEN as usize + 2 * RING_LEN as usize * sockets_per_queue;
        let per_worker = 2 * SLAB + 2 * BATCH + HAND_OVER_RING_LEN;
        Self {
            frame_count: queues * per_queue + workers * per_worker,
            huge_pages: HugePages::Try,
        }
    }
}

/// The frames shared with the kernel. Mapped once and for the life of the process, so that tokens
/// need no lifetime.
pub struct Umem {
    mapping: Mapping,
    // INVARIANT: the mapping holds `frames` chunks of FRAME_LEN.
    start: NonNull<u8>,
    frames: u32,
    pages: Pages,
    pool: Pool,
    ledger: Ledger,
    refused: AtomicU64,
    registry: Mutex<Registry>,
}

// SAFETY: `start` points into `mapping`, which is never unmapped; chunks are reached through tokens
// only, each the sole owner of its chunk.
unsafe impl Send for Umem {}
// SAFETY: as above; all other fields are Sync.
unsafe impl Sync for Umem {}

/// Every UMEM of the process, kept reachable.
static MAPPED: Mutex<Vec<&'static Umem>> = Mutex::new(Vec::new());

/// Where the frames of a UMEM are. The parts add up to `total` with what workers hold as
/// [`Frame`]s and in their caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// All frames.
    pub total: usize,
    /// In the pool, in slabs.
    pub pooled: usize,
    /// In the pool, on the list of orphans.
    pub orphans: usize,
    /// Given to fill rings and not yet received.
    pub receiving: usize,
    /// Given to TX rings and not yet reclaimed.
    pub sending: usize,
}

impl Umem {
    /// Maps a UMEM and puts all its frames into the pool.
    ///
    /// # Errors
    /// [`XskError::Map`] if there is no memory, [`XskError::UmemSize`] if the size is 0 or beyond
    /// what a chunk number can count.
    pub fn map(config: UmemConfig) -> Result<&'static Self, XskError> {
        let count = config.frame_count.next_multiple_of(SLAB);
        let too_many = XskError::UmemSize {
            frame_count: config.frame_count,
        };
        // The last number marks the end of a list.
        let frames = match u32::try_from(count) {
            Ok(frames) if frames > 0 && frames < u32::MAX => frames,
            _ => return Err(too_many),
        };
        let len = (count * FRAME_LEN).next_multiple_of(HUGE_PAGE_LEN);
        let (mapping, pages) = Self::map_pages(len, config.huge_pages)?;
        let umem: &'static Self = Box::leak(Box::new(Self {
            start: mapping.pointer(0),
            mapping,
            frames,
            pages,
            pool: Pool::full(frames),
            ledger: Ledger::new(frames),
            refused: AtomicU64::new(0),
            registry: Mutex::default(),
        }));
        MAPPED
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(umem);
        Ok(umem)
    }

    fn map_pages(len: usize, huge_pages: HugePages) -> Result<(Mapping, Pages), XskError> {
        if huge_pages == HugePages::Try
            && let Ok(mapping) = Mapping::huge(len)
        {
            return Ok((mapping, Pages::Huge));
        }
        let (mapping, advised) = Mapping::normal(len, huge_pages == HugePages::Try)
            .map_err(|source| XskError::Map { len, source })?;
        let pages = if advised {
            Pages::Advised
        } else {
            Pages::Normal
        };
        Ok((mapping, pages))
    }

    /// A new, empty cache of this UMEM's free frames.
    pub fn cache(&'static self) -> FrameCache {
        FrameCache::new(self)
    }

    /// The free frames.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// All frames, wherever they are.
    pub fn frames(&self) -> usize {
        self.frames as usize
    }

    /// Bytes of all frames: what is registered with the kernel.
    pub fn len(&self) -> usize {
        self.frames() * FRAME_LEN
    }

    /// Never: a UMEM without frames cannot be made.
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Which pages it lies on.
    pub fn pages(&self) -> Pages {
        self.pages
    }

    /// Descriptors of the kernel that were refused: out of bounds, or for a chunk that the kernel
    /// did not have. Not 0 means a bug below us.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Counts the frames by place. Looks at every chunk; exact while nobody moves any.
    pub fn census(&self) -> Census {
        let (receiving, sending) = self.ledger.count();
        Census {
            total: self.frames(),
            pooled: self.pool.frames(),
            orphans: self.pool.orphans(),
            receiving,
            sending,
        }
    }

    /// First byte of a chunk.
    #[inline]
    pub(super) fn chunk_pointer(&self, chunk: Chunk) -> NonNull<u8> {
        debug_assert!(chunk < self.frames);
        // SAFETY: chunk numbers come from `Pool::full` or were checked in `take`, so the chunk is
        // inside the mapping.
        unsafe { self.start.add(chunk as usize * FRAME_LEN) }
    }

    pub(super) fn start_address(&self) -> u64 {
        self.mapping.pointer(0).as_ptr() as u64
    }

    /// Our headroom, as registered.
    pub(super) const fn headroom() -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "less than FRAME_LEN")]
        let headroom = UMEM_HEADROOM as u32;
        headroom
    }

    /// Notes that a chunk goes to the kernel; returns its address.
    #[inline]
    pub(super) fn give(&self, chunk: Chunk, place: Place) -> u64 {
        self.ledger.give(chunk, place);
        u64::from(chunk) * FRAME_LEN as u64
    }

    /// Takes back the chunk at `address`, if the kernel had it in `place`.
    #[inline]
    pub(super) fn take(&self, address: u64, place: Place) -> Option<Chunk> {
        let chunk = Chunk::try_from(address / FRAME_LEN as u64).ok();
        let chunk = chunk.filter(|chunk| self.ledger.take(*chunk, place));
        if chunk.is_none() {
            self.refuse();
        }
        chunk
    }

    /// Takes back the frame at `address` with `len` bytes of data.
    #[inline]
    pub(super) fn take_frame(&'static self, address: u64, len: u32, place: Place) -> Option<Frame> {
        let chunk = self.take(address, place)?;
        #[expect(clippy::cast_possible_truncation, reason = "less than FRAME_LEN")]
        let start = (address % FRAME_LEN as u64) as usize;
        let frame = Frame::from_kernel(self, chunk, start, start.saturating_add(len as usize));
        if frame.is_none() {
            // The chunk is ours again even if the length makes no sense.
            self.refuse();
            self.pool.recover(chunk);
        }
        frame
    }

    #[cold]
    fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes back everything the kernel had of a device queue whose sockets are closed.
    pub(super) fn recover(&self, queue: u16) {
        self.ledger
            .take_all(queue, |chunk| self.pool.recover(chunk));
    }

    /// The sockets bound over this UMEM.
    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Umem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Umem")
            .field("frames", &self.frames)
            .field("pages", &self.pages)
            .field("pool", &self.pool)
            .finish()
    }
}
