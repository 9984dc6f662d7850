//! The ledger: per chunk, whether user space has it or which device queue.
//!
//! It is what makes a frame from the kernel believable: a descriptor whose chunk was not given to
//! that queue is refused, so that no second token for a chunk can exist. And it is how frames come
//! back that the kernel still had when its sockets were closed. Two bytes per chunk, written by
//! whoever owns the chunk at that moment.

use super::pool::Chunk;
use super::sync::{AtomicU16, Ordering};

/// Where a chunk is, as far as user space can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u16);

impl Place {
    /// In the pool, in a cache, or held as a token.
    const USER: Self = Self(0);

    /// Last device queue number that has a place.
    pub(super) const QUEUE_MAX: u16 = 0x7fff;

    /// Given to the fill ring of the device queue, and on its way through RX.
    pub(super) const fn receiving(queue: u16) -> Self {
        Self(queue)
    }

    /// Given to a TX ring of the device queue, and on its way through the completion ring.
    pub(super) const fn sending(queue: u16) -> Self {
        Self(queue | 0x8000)
    }
}

/// The place of every chunk.
pub(super) struct Ledger {
    places: Box<[AtomicU16]>,
}

// Relaxed throughout: a chunk's entry is written by its owner before the ring's index publishes the
// descriptor, and read by the next owner after the index was acquired. The rings order it.
impl Ledger {
    /// A ledger in which user space has every chunk below `chunks`.
    pub(super) fn new(chunks: Chunk) -> Self {
        let places = (0..chunks).map(|_| AtomicU16::new(Place::USER.0)).collect();
        Self { places }
    }

    /// Notes that `chunk`, which the caller owns, goes to the kernel.
    #[inline]
    pub(super) fn give(&self, chunk: Chunk, place: Place) {
        let entry = &self.places[chunk as usize];
        debug_assert_eq!(entry.load(Ordering::Relaxed), Place::USER.0);
        entry.store(place.0, Ordering::Relaxed);
    }

    /// Notes that `chunk` came back from `place`. False, and nothing noted, if it was not there.
    #[inline]
    pub(super) fn take(&self, chunk: Chunk, place: Place) -> bool {
        let Some(entry) = self.places.get(chunk as usize) else {
            return false;
        };
        let there = entry.load(Ordering::Relaxed) == place.0;
        if there {
            entry.store(Place::USER.0, Ordering::Relaxed);
        }
        there
    }

    /// Takes everything back that a device queue had, and gives each chunk to `keep`.
    pub(super) fn take_all(&self, queue: u16, mut keep: impl FnMut(Chunk)) {
        for (chunk, _) in (0..).zip(&self.places) {
            if self.take(chunk, Place::receiving(queue)) || self.take(chunk, Place::sending(queue))
            {
                keep(chunk);
            }
        }
    }

    /// Chunks that the kernel has to receive into, and chunks that it has to send.
    pub(super) fn count(&self) -> (usize, usize) {
        let (mut receiving, mut sending) = (0, 0);
        for entry in &self.places {
            match entry.load(Ordering::Relaxed) {
                0 => {}
                place if place <= Place::QUEUE_MAX => receiving += 1,
                _ => sending += 1,
            }
        }
        (receiving, sending)
    }
}
