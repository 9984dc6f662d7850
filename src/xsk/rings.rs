//! The fill and completion ring of a device queue.
//!
//! They have one owner: the worker that holds this value. Other workers with sockets on the queue
//! live on what the owner puts into the fill ring, so the owner may not sleep while one of them is
//! awake; or the value stands behind a `Mutex` that whoever sees the fill ring low takes with
//! `try_lock`.

use std::sync::Arc;

use super::device::Shared;
use super::ledger::Place;
use super::pool::FrameCache;
use super::ring::{Consumer, Producer};

/// The fill and completion ring of one device queue.
#[derive(Debug)]
pub struct QueueRings {
    fill: Producer<u64>,
    completion: Consumer<u64>,
    fill_target: u32,
    shared: Arc<Shared>,
}

impl QueueRings {
    pub(super) fn new(fill: Producer<u64>, completion: Consumer<u64>, shared: Arc<Shared>) -> Self {
        // Half: the kernel frees a slot some time before the frame in it is received, so a full
        // ring is seen full too long (Firedancer measured 200 ns per frame).
        let fill_target = fill.capacity() / 2;
        Self {
            fill,
            completion,
            fill_target,
            shared,
        }
    }

    /// Entries that [`refill`](Self::refill) keeps in the fill ring: half the ring.
    pub fn fill_target(&self) -> u32 {
        self.fill_target
    }

    /// Tops the fill ring up from `cache`; returns how many frames went in.
    ///
    /// Fewer than wanted if the pool is empty: the kernel then drops what it cannot place, and
    /// counts it.
    pub fn refill(&mut self, cache: &mut FrameCache) -> u32 {
        let wanted = self.fill_target.saturating_sub(self.fill.len());
        let umem = self.shared.umem;
        let place = Place::receiving(self.shared.number);
        self.fill.produce(wanted, || {
            let chunk = cache.allocate_chunk()?;
            Some(umem.give(chunk, place))
        })
    }

    /// Takes frames that were sent, by any socket of the queue, into `cache`; returns how many.
    ///
    /// That a frame comes back does not mean that it arrived, or even left.
    pub fn reclaim(&mut self, cache: &mut FrameCache) -> u32 {
        let umem = self.shared.umem;
        let place = Place::sending(self.shared.number);
        let wanted = self.completion.capacity();
        self.completion.consume(wanted, |address| {
            if let Some(chunk) = umem.take(address, place) {
                cache.release_chunk(chunk);
            }
        })
    }

    /// Whether the driver sleeps until it is woken to look at the fill ring
    /// ([`Socket::wake_receive`](super::Socket::wake_receive), or any `poll`).
    pub fn fill_needs_wakeup(&self) -> bool {
        self.fill.needs_wakeup()
    }

    /// Frames in the fill ring that the kernel has not taken yet.
    pub fn fill_len(&self) -> u32 {
        self.fill.len()
    }

    /// Frames in the completion ring that were not reclaimed yet.
    pub fn completion_len(&self) -> u32 {
        self.completion.len()
    }

    /// Index of the interface.
    pub fn interface(&self) -> u32 {
        self.shared.interface
    }

    /// Queue number on the interface.
    pub fn queue(&self) -> u32 {
        self.shared.queue
    }
}
