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

    /// How full the ring is, in percent.
    pub(super) fn fill(&self) -> u8 {
        super::out::percent(self.ring.len(), self.ring.capacity())
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
        self.sleeping.store(false, Ordering::Relaxed);
        // Always: who took the flag down may write the event only now, and such a late one must
        // not stay for longer than the next sleep, or there would be no sleep any more.
        self.event.clear();
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

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU64;
    use std::thread;

    use super::super::link::UNSPECIFIED;
    use super::super::packet::{KernelBuffer, Memory, Origin};
    use super::*;
    use crate::net::{Flow, ListenerIndex};
    use crate::sys::{clock, event};
    use crate::time::Duration;

    fn packet() -> Packet {
        Packet {
            flow: Flow {
                listener: ListenerIndex(0),
                local: UNSPECIFIED,
                peer: UNSPECIFIED,
            },
            memory: Memory::Kernel(KernelBuffer::empty()),
            origin: Origin::Own,
            ingress: 0,
            hops: 0,
        }
    }

    /// A waker took the flag down and was slow to write: that costs one sleep, not all.
    #[test]
    fn a_late_signal_disturbs_one_sleep() {
        let shared = Shared::new(1).unwrap();
        let mailbox = &shared.mailboxes[0];
        let brief = Some(Duration::from_millis(5));
        let mut readable = Vec::new();
        mailbox.event.signal();
        for _ in 0..3 {
            mailbox.sleep(&shared.stopping, |event| {
                readable.push(event::wait([event], brief));
            });
        }
        assert_eq!(readable, [1, 0, 0]);
    }

    /// The owner sleeps without a timeout after every packet, so one lost wake-up hangs the test:
    /// the sender waits for each to be taken, 5 s at most.
    #[test]
    fn no_wake_up_is_lost() {
        const COUNT: u64 = 20_000;
        let shared = Shared::new(1).unwrap();
        let taken = AtomicU64::new(0);
        let Shared {
            mailboxes,
            stopping,
        } = &shared;
        let mailbox = &mailboxes[0];
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stopping.load(Ordering::Relaxed) {
                    while mailbox.pop().is_some() {
                        taken.fetch_add(1, Ordering::Release);
                    }
                    mailbox.sleep(stopping, |event| {
                        event::wait([event], None);
                    });
                }
            });
            for count in 1..=COUNT {
                assert!(mailbox.push(packet()).is_ok());
                mailbox.wake();
                let deadline = clock::now() + Duration::from_secs(5);
                while taken.load(Ordering::Acquire) < count {
                    if clock::now() > deadline {
                        stopping.store(true, Ordering::Relaxed);
                        mailbox.event.signal();
                        panic!("packet {count} was not taken");
                    }
                    core::hint::spin_loop();
                }
            }
            stopping.store(true, Ordering::Relaxed);
            mailbox.wake();
        });
    }
}
