//! From the workers to the limiter: sources that the farm has accepted.
//!
//! A 2xx of a server to an INVITE or a REGISTER makes the source that it goes to known (see
//! `bpf/limit.h`). A worker may not make the system call that says so: it leaves the address in a
//! bounded queue, which the main thread empties into the steering program. A full queue loses
//! addresses, never messages; the next answer brings them again.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::net::{IpAddr, canonical};
use crate::time::Instant;

/// Addresses that wait for the main thread: what 80,000 first answers a second leave between two of
/// its looks.
const QUEUE_LEN: usize = 4096;

/// Sources that a worker remembers to have told of.
const RECENT_LEN: usize = 1024;
const _: () = assert!(RECENT_LEN.is_power_of_two());

/// A worker tells of a source again after 2^35 ns, 34 s: a known source that was pushed out of the
/// limiter's map comes back with its next call.
const PERIOD_SHIFT: u32 = 35;

/// Where workers leave sources.
#[derive(Debug)]
pub struct KnownSources {
    wanted: AtomicBool,
    queue: ArrayQueue<IpAddr>,
}

impl KnownSources {
    /// An empty queue; nothing is wanted yet.
    pub fn new() -> Self {
        Self {
            wanted: AtomicBool::new(false),
            queue: ArrayQueue::new(QUEUE_LEN),
        }
    }

    /// Whether there is a limiter that wants to know.
    pub fn set_wanted(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Whether there is a limiter that wants to know.
    #[inline]
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Takes what was left, at most one queue's length.
    pub fn take(&self) -> impl Iterator<Item = IpAddr> {
        core::iter::from_fn(|| self.queue.pop()).take(QUEUE_LEN)
    }
}

impl Default for KnownSources {
    fn default() -> Self {
        Self::new()
    }
}

/// The end of one worker: tells of a source once in a while, and not with every answer.
#[derive(Debug)]
pub(super) struct Reporter {
    known: Arc<KnownSources>,
    /// Address bits that the limiter looks at, and the period they were told in.
    recent: Box<[(u64, u64); RECENT_LEN]>,
}

impl Reporter {
    /// Of a worker that has told of nobody yet.
    pub(super) fn new(known: Arc<KnownSources>) -> Self {
        // No period has this number.
        let nobody = (0, u64::MAX);
        Self {
            known,
            recent: Box::new([nobody; RECENT_LEN]),
        }
    }

    /// Whether there is a limiter that wants to know.
    #[inline]
    pub(super) fn is_wanted(&self) -> bool {
        self.known.is_wanted()
    }

    /// Tells of a source, unless that was done lately. Does not allocate, does not block.
    #[inline]
    pub(super) fn tell(&mut self, source: IpAddr, now: Instant) {
        let bits = match canonical(source) {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        };
        let told = (bits, now.as_nanos() >> PERIOD_SHIFT);
        // 2^64 divided by the golden ratio spreads neighbours over the table.
        let hash = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - RECENT_LEN.ilog2());
        let Some(slot) = usize::try_from(hash)
            .ok()
            .and_then(|at| self.recent.get_mut(at))
        else {
            return;
        };
        if *slot != told && self.known.queue.push(source).is_ok() {
            *slot = told;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_is_told_of_once_a_period() {
        let known = Arc::new(KnownSources::new());
        let mut reporter = Reporter::new(known.clone());
        let start = Instant::ZERO;
        for _ in 0..10 {
            reporter.tell(ip("198.18.0.2"), start);
            reporter.tell(ip("::ffff:198.18.0.2"), start);
            reporter.tell(ip("2001:db8::1"), start);
            reporter.tell(ip("2001:db8::2"), start);
        }
        let told: Vec<IpAddr> = known.take().collect();
        assert_eq!(told, [ip("198.18.0.2"), ip("2001:db8::1")]);
        reporter.tell(ip("198.18.0.2"), start + Duration::from_secs(30));
        assert_eq!(known.take().count(), 0);
        reporter.tell(ip("198.18.0.2"), start + Duration::from_secs(40));
        assert_eq!(known.take().count(), 1);
        // Another worker knows nothing of it.
        Reporter::new(known.clone()).tell(ip("198.18.0.2"), start);
        assert_eq!(known.take().count(), 1);
    }

    #[test]
    fn what_a_full_queue_loses_is_told_again() {
        let known = Arc::new(KnownSources::new());
        let mut reporter = Reporter::new(known.clone());
        for bits in 0..u32::try_from(QUEUE_LEN).unwrap() {
            reporter.tell(IpAddr::V4((0xc612_0000 + bits).into()), Instant::ZERO);
        }
        let last = ip("198.19.255.255");
        reporter.tell(last, Instant::ZERO);
        assert_eq!(known.take().count(), QUEUE_LEN);
        reporter.tell(last, Instant::ZERO);
        assert_eq!(known.take().collect::<Vec<_>>(), [last]);
    }
}
