//! The loop of one worker.
//!
//! Busy while there is work, asleep when there is none: in `poll(2)` until a descriptor is readable,
//! another worker hands it something, or the handler's next deadline.
//!
//! A wake-up from another core costs more than a message does, so under load the worker paces
//! itself, as a NIC does that moderates its interrupts: where packets come closer together than
//! [`NAP`], it naps that long by a timer instead, and takes what has come by then in one batch. Who
//! needs the microseconds of a nap more than the core can have it spin, see [`Idle`].

use core::sync::atomic::Ordering;
use std::os::fd::BorrowedFd;

use super::hand_over::Mailbox;
use super::link::{Link, Links};
use super::out::{Out, Ports};
use super::packet::Origin;
use super::socket::REPORTS_PER_LOOK;
use super::{Batch, Handler};
use crate::limits::BATCH;
use crate::net::{ListenerIndex, SocketAddr, WorkerIndex};
use crate::sys::{clock, event};
use crate::time::{Duration, Instant};
use crate::verdict::DropReason;

/// What a worker under load sleeps between two looks; the kernel's timer slack adds 50 µs. Calls of
/// 3,000 a second, one wake-up for each packet: 160 µs of CPU a call; with naps 70 µs (a dev build
/// on a VM, whose wake-ups between cores are dear). A message waits half of it in the middle, which
/// is little beside the milliseconds of SIP; a ring holds 2,048 packets, 10 Mpps for this long.
const NAP: Duration = Duration::from_micros(150);

/// Work after a shorter sleep than this, nap or not: packets are dense. A nap lasts some 200 µs.
const DENSE: Duration = Duration::from_micros(300);

/// What a worker does that has no work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Sleeps until there is work; where packets are dense it naps by a timer.
    #[default]
    Adaptive,
    /// Sleeps until there is work, however dense.
    Sleep,
    /// Looks again at once: the core is its own, and a message waits for nobody.
    Spin,
}

/// Longest sleep. Nothing depends on it: every source of work wakes the worker.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// While its links are busy a worker looks at its kernel sockets after this many rounds or this
/// long, whichever comes first: a look is a system call per socket.
const KERNEL_ROUNDS: u32 = 64;
/// See [`KERNEL_ROUNDS`].
const KERNEL_INTERVAL: Duration = Duration::from_millis(1);

/// How often the kernel's counts of the links are copied to the metrics.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(1);

/// Rounds in which a stopping worker still tries to send what stands on its TX rings.
const CLOSE_ROUNDS: usize = 1000;

/// Sleep between kicks of a device that takes no frames, as one that is down.
const STUCK: Duration = Duration::from_millis(1);

/// One worker with its ports, before or on its thread.
pub struct Worker {
    ports: Ports,
    batch: Box<Batch>,
    deadline: Option<Instant>,
    started: bool,
    /// Rounds since the kernel sockets were looked at, and when that was.
    rounds: u32,
    kernel_seen: Instant,
    statistics_due: Instant,
    pub(super) idle: Idle,
}

impl Worker {
    pub(super) fn new(ports: Ports) -> Self {
        Self {
            ports,
            batch: Box::new(Batch::new()),
            deadline: None,
            started: false,
            rounds: KERNEL_ROUNDS,
            kernel_seen: Instant::ZERO,
            statistics_due: Instant::ZERO,
            idle: Idle::default(),
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

    /// Its kernel sockets, by listener.
    pub(super) fn kernel_sockets(&self) -> impl Iterator<Item = (ListenerIndex, BorrowedFd<'_>)> {
        self.ports.sockets.kernel_sockets()
    }

    /// Its AF_XDP sockets.
    pub(super) fn links(&self) -> impl Iterator<Item = &Link> {
        self.ports.links.iter().flat_map(Links::iter)
    }

    /// One round: everything that is waiting, at most a batch from each source, is received,
    /// decided and sent; timers that are due run. Returns how many packets were received.
    pub fn turn<H: Handler>(&mut self, handler: &mut H, now: Instant) -> usize {
        if !self.started {
            self.started = true;
            self.ports.raw = H::RAW;
            self.deadline = Some(now);
        }
        let mut work = 0;
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = handler.on_timer(now, &mut Out(&mut self.ports));
        }
        work += self.take_frames(handler, now);
        work += self.take_handed_over(handler, now);
        if self.kernel_is_due(now) {
            work += self.take_datagrams(handler, now);
        }
        self.ports.flush();
        // What was refused just now is looked at before any sleep.
        work += usize::from(self.ports.sockets.has_refused());
        if let Some(wake_at) = self.ports.wake_at.take() {
            self.deadline = Some(self.deadline.map_or(wake_at, |other| other.min(wake_at)));
        }
        work
    }

    /// From every link in turn, its rings served first: completions give the frames that the fill
    /// ring needs.
    fn take_frames<H: Handler>(&mut self, handler: &mut H, now: Instant) -> usize {
        let count = self.ports.links.as_ref().map_or(0, Links::count);
        let mut received = 0;
        let mut fullest = 0;
        for position in 0..count {
            let Ports {
                links,
                metrics,
                pressure,
                ..
            } = &mut self.ports;
            let Some(links) = links else { break };
            let taken = if H::RAW {
                links.receive::<true>(position, &mut self.batch, metrics)
            } else {
                links.receive::<false>(position, &mut self.batch, metrics)
            };
            received += taken;
            if taken == BATCH {
                fullest = links.fill(position).max(fullest);
                pressure.links = pressure.links.max(fullest);
            }
            if !H::RAW {
                self.count_messages();
            }
            self.decide(handler, now);
        }
        self.ports.pressure.links = fullest;
        received
    }

    /// On the socket datapath always; beside links now and then.
    fn kernel_is_due(&mut self, now: Instant) -> bool {
        if self.ports.links.is_none() || self.ports.sockets.has_refused() {
            return true;
        }
        self.rounds += 1;
        let due = self.rounds >= KERNEL_ROUNDS || now.since(self.kernel_seen) >= KERNEL_INTERVAL;
        if due {
            self.rounds = 0;
            self.kernel_seen = now;
        }
        due
    }

    fn count_messages(&self) {
        for packet in self.batch.iter() {
            let listener = self.ports.metrics.listener(packet.flow.listener);
            listener.messages_in.increment();
        }
    }

    fn take_handed_over<H: Handler>(&mut self, handler: &mut H, now: Instant) -> usize {
        let mut count = 0;
        while count < BATCH {
            let Some(mut packet) = self.ports.mailbox().and_then(Mailbox::pop) else {
                break;
            };
            self.ports.metrics.hand_over_in.increment();
            count += 1;
            if packet.origin == Origin::Unreachable {
                handler.on_unreachable(packet, &mut Out(&mut self.ports), now);
                continue;
            }
            packet.origin = Origin::HandOver;
            self.batch.push(packet);
        }
        self.ports.pressure.mailbox = match count {
            BATCH => self.ports.mailbox().map_or(0, Mailbox::fill),
            _ => 0,
        };
        self.decide(handler, now);
        count
    }

    fn take_datagrams<H: Handler>(&mut self, handler: &mut H, now: Instant) -> usize {
        let mut count = 0;
        let mut fullest = 0;
        for position in 0..self.ports.sockets.count() {
            let Ports {
                sockets,
                buffers,
                metrics,
                pressure,
                ..
            } = &mut self.ports;
            sockets.receive(position, buffers, &mut self.batch, metrics);
            if self.batch.is_full() {
                fullest = sockets.fill(position).max(fullest);
                pressure.sockets = pressure.sockets.max(fullest);
            }
            self.count_messages();
            count += self.batch.len();
            self.decide(handler, now);
            count += self.take_reports(position, handler, now);
        }
        self.ports.pressure.sockets = fullest;
        while let Some(packet) = self.ports.sockets.take_refused() {
            handler.on_unreachable(packet, &mut Out(&mut self.ports), now);
            count += 1;
        }
        count
    }

    /// What did not arrive, as a socket's error queue tells.
    fn take_reports<H: Handler>(
        &mut self,
        position: usize,
        handler: &mut H,
        now: Instant,
    ) -> usize {
        let mut budget = REPORTS_PER_LOOK;
        loop {
            let Ports {
                sockets,
                buffers,
                metrics,
                ..
            } = &mut self.ports;
            let Some(packet) = sockets.take_report(position, &mut budget, buffers, metrics) else {
                break;
            };
            handler.on_unreachable(packet, &mut Out(&mut self.ports), now);
        }
        REPORTS_PER_LOOK - budget
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
        let mut slept = SLEEP_MAX;
        let mut dense = false;
        while !self.ports.stopping().load(Ordering::Relaxed) {
            let work = self.turn(&mut handler, now);
            now = clock::now();
            if work > 0 {
                dense = slept < DENSE && self.idle == Idle::Adaptive;
            } else if self.idle == Idle::Spin {
                core::hint::spin_loop();
            } else {
                let began = now;
                // One nap that brings nothing, and it sleeps until there is something.
                if core::mem::take(&mut dense) {
                    self.nap(now);
                } else {
                    self.sleep(now);
                    // Woken or not: one look at everything.
                    self.rounds = KERNEL_ROUNDS;
                    // A waiting report alone makes its socket readable.
                    self.ports.sockets.expect_reports();
                }
                now = clock::now();
                slept = now.since(began);
            }
            if now >= self.statistics_due {
                self.statistics_due = now + STATISTICS_INTERVAL;
                self.ports.sockets.expect_reports();
                if let Some(links) = &self.ports.links {
                    links.publish_statistics(&self.ports.metrics);
                }
            }
        }
        self.finish();
        handler
    }

    /// Sleeps by a timer alone: what comes meanwhile wakes nobody and waits.
    fn nap(&self, now: Instant) {
        let due = self.deadline.map_or(NAP, |deadline| deadline.since(now));
        event::wait(core::iter::empty(), Some(due.min(NAP)));
    }

    fn sleep(&self, now: Instant) {
        let Some(mailbox) = self.ports.mailbox() else {
            return;
        };
        let links = self.ports.links.as_ref();
        let stuck = links.is_some_and(Links::has_unsent);
        let longest = if stuck { STUCK } else { SLEEP_MAX };
        let timeout = self
            .deadline
            .map_or(longest, |deadline| deadline.since(now).min(longest));
        self.ports.metrics.sleeps.increment();
        mailbox.sleep(self.ports.stopping(), |event| {
            let sockets = self.ports.sockets.descriptors();
            let links = links.into_iter().flat_map(Links::descriptors);
            let all = core::iter::once(event).chain(sockets).chain(links);
            event::wait(all, Some(timeout));
        });
    }

    /// What was handed over and not yet decided is dropped; all memory goes back to the pools.
    fn finish(&mut self) {
        while let Some(packet) = self.ports.mailbox().and_then(|mailbox| mailbox.pop()) {
            self.ports.metrics.hand_over_in.increment();
            self.ports.drop(packet, DropReason::Stopping);
        }
        self.ports.flush();
        while let Some(packet) = self.ports.sockets.take_refused() {
            self.ports.drop(packet, DropReason::Stopping);
        }
        let Ports {
            links,
            sockets,
            buffers,
            metrics,
            ..
        } = &mut self.ports;
        if let Some(links) = links {
            links.publish_statistics(metrics);
            links.close(CLOSE_ROUNDS, metrics);
        }
        sockets.close(buffers);
        buffers.flush();
    }
}
