//! Packets from worker to worker, waking a worker that sleeps, and the stop flag.
//!
//! Each worker has one mailbox: a bounded lock-free ring that all others push to. A full ring is the
//! sender's counted drop, never a wait.

use core::sync::atomic::{AtomicBool, Ordering, fence};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crossbeam::utils::CachePadded;

use super::packet::Packet;
use crate::limits::HAND_OVER_RING_LEN;
use crate::net::WorkerIndex;
use crate::sys::event::Event;
use crate::xsk::Queue;

/// What one worker receives from the others.
pub(super) struct Mailbox {
    ring: Queue<Packet>,
    /// Set by the owner before it sleeps; whoever clears it writes the event.
    sleeping: CachePadded<AtomicBool>,
    event: Event,
}

impl Mailbox {
    fn new() -> io::Result<Self> {
        Ok(Self {
            ring: Queue::with_capacity(HAND_OVER_RING_LEN),
            sleeping: CachePadded::new(AtomicBool::new(false)),
            event: Event::new()?,
        })
    }

    /// Puts `packet` on the ring, or gives it back if the ring is full.
    #[inline]
    pub(super) fn push(&self, packet: Packet) -> Result<(), Packet> {
        self.ring.push(packet)
    }

    /// Takes the oldest packet.
    #[inline]
    pub(super) fn pop(&self) -> Option<Packet> {
        self.ring.pop()
    }

    /// Wakes the owner if it sleeps or is about to.
    #[inline]
    pub(super) fn wake(&self) {
        // Pairs with the fence in `sleep`: either this load sees the flag, or the owner sees what
        // was pushed (or the stop flag) before it sleeps.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            self.event.signal();
        }
    }

    /// Runs `wait` with the flag up, unless there is something to do already.
    pub(super) fn sleep(&self, stopping: &AtomicBool, wait: impl FnOnce(BorrowedFd<'_>)) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.ring.is_empty() && !stopping.load(Ordering::Relaxed) {
            wait(self.event.as_fd());
        }
        if !self.sleeping.swap(false, Ordering::AcqRel) {
            self.event.clear();
        }
    }
}

/// What the workers of one data path share.
pub(super) struct Shared {
    pub(super) mailboxes: Box<[Mailbox]>,
    pub(super) stopping: AtomicBool,
}

impl Shared {
    pub(super) fn new(workers: usize) -> io::Result<Self> {
        Ok(Self {
            mailboxes: (0..workers)
                .map(|_| Mailbox::new())
                .collect::<Result<_, _>>()?,
            stopping: AtomicBool::new(false),
        })
    }

    pub(super) fn mailbox(&self, worker: WorkerIndex) -> Option<&Mailbox> {
        self.mailboxes.get(usize::from(worker.0))
    }
}

/// A handle on running workers, for any thread.
#[derive(Clone)]
pub struct Control(pub(super) Arc<Shared>);

impl Control {
    /// Tells all workers to finish: they send what is on its way, return their frames and end.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
        for mailbox in &self.0.mailboxes {
            mailbox.wake();
        }
    }

    /// Wakes all sleeping workers, so that a new snapshot is picked up at once.
    pub fn wake(&self) {
        for mailbox in &self.0.mailboxes {
            mailbox.wake();
        }
    }
}
