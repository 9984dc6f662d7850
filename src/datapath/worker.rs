//! The loop of one worker.
//!
//! Busy while there is work, asleep when there is none: after the last packet it spins for
//! [`SPIN`], then sleeps in `poll(2)` until a descriptor is readable, another worker hands it
//! something, or the handler's next deadline.

use core::sync::atomic::Ordering;

use super::out::{Out, Ports};
use super::packet::Origin;
use super::{Batch, Handler};
use crate::limits::BATCH;
use crate::net::{ListenerIndex, SocketAddr, WorkerIndex};
use crate::sys::{clock, event};
use crate::time::{Duration, Instant};
use crate::verdict::DropReason;

/// How long an idle worker looks for work before it sleeps. A wake-up costs some 5 µs and the
/// sender's next packet is usually nearer than this; at 20 packets/s it is 0.1 % of a core.
const SPIN: Duration = Duration::from_micros(50);

/// Longest sleep. Nothing depends on it: every source of work wakes the worker.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// One worker with its ports, before or on its thread.
pub struct Worker {
    ports: Ports,
    batch: Box<Batch>,
    deadline: Option<Instant>,
    started: bool,
}

impl Worker {
    pub(super) fn new(ports: Ports) -> Self {
        Self {
            ports,
            batch: Box::new(Batch::new()),
            deadline: None,
            started: false,
        }
    }

    /// Its number.
    pub fn index(&self) -> WorkerIndex {
        self.ports.index
    }

    /// Listener and bound address of each of its kernel sockets.
    pub fn addresses(&self) -> impl Iterator<Item = (ListenerIndex, SocketAddr)> {
        self.ports.sockets.addresses()
    }

    /// One round: everything that is waiting, at most a batch from each source, is received,
    /// decided and sent; timers that are due run. Returns how many packets were received.
    pub fn turn<H: Handler>(&mut self, handler: &mut H, now: Instant) -> usize {
        let mut work = 0;
        if !self.started || self.deadline.is_some_and(|deadline| deadline <= now) {
            self.started = true;
            let next = handler.on_timer(now, &mut Out(&mut self.ports));
            self.deadline = next;
        }
        work += self.take_handed_over(handler, now);
        work += self.take_datagrams(handler, now);
        self.ports.flush();
        if let Some(wake_at) = self.ports.wake_at.take() {
            self.deadline = Some(self.deadline.map_or(wake_at, |other| other.min(wake_at)));
        }
        work
    }

    fn take_handed_over<H: Handler>(&mut self, handler: &mut H, now: Instant) -> usize {
        let Some(mailbox) = self.ports.mailbox() else {
            return 0;
        };
        while !self.batch.is_full() {
            let Some(mut packet) = mailbox.pop() else {
                break;
            };
            packet.origin = Origin::HandOver;
            self.batch.push(packet);
        }
        let count = self.batch.len();
        self.ports.metrics.hand_over_in.add(count as u64);
        self.decide(handler, now);
        count
    }

    fn take_datagrams<H: Handler>(&mut self, handler: &mut H, now: Instant) -> usize {
        let mut count = 0;
        for position in 0..self.ports.sockets.count() {
            let Ports {
                sockets,
                buffers,
                metrics,
                ..
            } = &mut self.ports;
            sockets.receive(position, buffers, &mut self.batch, metrics);
            for packet in self.batch.iter() {
                let listener = metrics.listener(packet.flow.listener);
                listener.messages_in.increment();
            }
            count += self.batch.len();
            self.decide(handler, now);
        }
        count
    }

    /// Lets the handler decide over the batch.
    #[inline]
    fn decide<H: Handler>(&mut self, handler: &mut H, now: Instant) {
        if self.batch.is_empty() {
            return;
        }
        handler.on_batch(&mut self.batch, &mut Out(&mut self.ports), now);
        debug_assert!(self.batch.is_empty(), "the handler left packets behind");
        for packet in self.batch.drain(..) {
            self.ports.drop(packet, DropReason::NotHandled);
        }
    }

    /// Runs until [`Control::stop`](super::Control::stop); then sends what is queued, returns its
    /// frames and gives the handler back. Call it on a thread of its own.
    pub fn run<H: Handler>(mut self, mut handler: H) -> H {
        let mut now = clock::now();
        let mut idle_since = now;
        while !self.ports.stopping().load(Ordering::Relaxed) {
            if self.turn(&mut handler, now) > 0 {
                now = clock::now();
                idle_since = now;
                continue;
            }
            now = clock::now();
            if now.since(idle_since) >= SPIN {
                self.sleep(now);
                now = clock::now();
                // One more look at everything, then back to sleep unless it found something.
            } else {
                core::hint::spin_loop();
            }
        }
        self.finish();
        handler
    }

    fn sleep(&self, now: Instant) {
        let Some(mailbox) = self.ports.mailbox() else {
            return;
        };
        let timeout = self
            .deadline
            .map_or(SLEEP_MAX, |deadline| deadline.since(now).min(SLEEP_MAX));
        self.ports.metrics.sleeps.increment();
        mailbox.sleep(self.ports.stopping(), |event| {
            let descriptors = self.ports.sockets.descriptors();
            event::wait(descriptors.chain([event]), Some(timeout));
        });
    }

    /// What was handed over and not yet decided is dropped; all memory goes back to the pools.
    fn finish(&mut self) {
        while let Some(packet) = self.ports.mailbox().and_then(|mailbox| mailbox.pop()) {
            self.ports.metrics.hand_over_in.increment();
            self.ports.drop(packet, DropReason::Stopping);
        }
        self.ports.flush();
        let Ports {
            sockets, buffers, ..
        } = &mut self.ports;
        sockets.close(buffers);
        buffers.flush();
    }
}

const _: () = assert!(BATCH <= u8::MAX as usize);
