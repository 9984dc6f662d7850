//! What transactions cost a server, relative to each other, as the servers themselves tell.
//!
//! Jiang et al. (2012) found an INVITE to cost 1.75 times a BYE on their servers and wrote that
//! number down. Here it is learned for each pool: the mean time to the first response but 100 of
//! its INVITEs, over the mean time to the final response of its other requests. Both contain the
//! network and the queue, so that the ratio tends to 1 as servers fill; it errs to the side where
//! every transaction counts alike, which is nearly as good (the paper's *TLL*).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use super::{Load, Work};

/// What an INVITE costs, in 256ths of another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    invite: u32,
}

/// One other request.
const ONE: u32 = 256;

/// The paper's ratio, until there is a better one.
impl Default for Cost {
    fn default() -> Self {
        Self {
            invite: ONE * 7 / 4,
        }
    }
}

impl Cost {
    /// What an INVITE costs; another request is 1.
    pub fn ratio(self) -> f64 {
        f64::from(self.invite) / f64::from(ONE)
    }

    /// The work left of open transactions, in 256ths of a request that is not an INVITE.
    ///
    /// An INVITE that rings waits for a human, and its server has nothing to do for it until then.
    /// Counting even a sixteenth of a request for it makes phones that ring, of which there are many
    /// more than requests in work, outweigh the queue of a slow server: in the simulation of
    /// `tests/choosing.rs` that takes five times the set-up time.
    #[inline]
    pub(super) fn of(self, load: Load) -> u64 {
        u64::from(load.invites) * u64::from(self.invite) + u64::from(load.others) * u64::from(ONE)
    }
}

/// Response times of one pool; written by all workers. Of two that write at once one may be lost,
/// which a mean does not mind.
#[derive(Debug, Default)]
pub(super) struct ResponseTimes {
    invite: Mean,
    other: Mean,
}

impl ResponseTimes {
    #[inline]
    pub(super) fn note(&self, work: Work, elapsed: Duration) {
        match work {
            Work::Invite | Work::Ringing => self.invite.note(elapsed),
            Work::Other => self.other.note(elapsed),
        }
    }

    /// The ratio learned so far.
    #[inline]
    pub(super) fn cost(&self) -> Cost {
        match (self.invite.value(), self.other.value()) {
            (Some(invite), Some(other)) => {
                let ratio = u128::from(invite) * u128::from(ONE) / u128::from(other.max(1));
                let ratio = u32::try_from(ratio).unwrap_or(u32::MAX);
                // An INVITE is never less work than what has no dialog, and a server that queries
                // a database for each is not to be left idle by one that rings at once.
                Cost {
                    invite: ratio.clamp(ONE, 8 * ONE),
                }
            }
            _ => Cost::default(),
        }
    }
}

/// A mean in which the last few dozen samples count most.
#[derive(Debug, Default)]
struct Mean {
    nanos: AtomicU64,
    samples: AtomicU32,
}

/// Samples before a mean is believed, and the weight of the old in each step.
const SAMPLES: u32 = 32;

/// Longer than this no response is waited for (Timer B); it bounds what one sample can do.
const LONGEST: u64 = 32_000_000_000;

impl Mean {
    fn note(&self, elapsed: Duration) {
        let sample = u64::try_from(elapsed.as_nanos())
            .unwrap_or(LONGEST)
            .min(LONGEST);
        let samples = self.samples.load(Ordering::Relaxed);
        let weight = u64::from(samples.min(SAMPLES - 1)) + 1;
        let old = self.nanos.load(Ordering::Relaxed);
        let new = (old * (weight - 1) + sample) / weight;
        self.nanos.store(new, Ordering::Relaxed);
        if samples < SAMPLES {
            self.samples.store(samples + 1, Ordering::Relaxed);
        }
    }

    fn value(&self) -> Option<u64> {
        let believed = self.samples.load(Ordering::Relaxed) >= SAMPLES;
        believed.then(|| self.nanos.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(invite: u64, other: u64) -> Cost {
        let times = ResponseTimes::default();
        for _ in 0..SAMPLES {
            times.note(Work::Invite, Duration::from_millis(invite));
            times.note(Work::Other, Duration::from_millis(other));
        }
        times.cost()
    }

    #[test]
    fn the_ratio_is_learned_within_bounds() {
        assert!((learned(30, 10).ratio() - 3.0).abs() < 0.01);
        assert!((learned(1, 10).ratio() - 1.0).abs() < 0.01);
        assert!((learned(10_000, 0).ratio() - 8.0).abs() < 0.01);
    }

    #[test]
    fn a_few_samples_say_nothing_and_many_follow_a_change() {
        let times = ResponseTimes::default();
        for number in 0..SAMPLES - 1 {
            times.note(Work::Invite, Duration::from_millis(40));
            times.note(Work::Other, Duration::from_millis(10));
            assert_eq!(times.cost(), Cost::default(), "{number}");
        }
        times.note(Work::Invite, Duration::from_millis(40));
        times.note(Work::Other, Duration::from_millis(10));
        assert!((times.cost().ratio() - 4.0).abs() < 0.01);
        for _ in 0..200 {
            times.note(Work::Invite, Duration::from_millis(20));
        }
        assert!((times.cost().ratio() - 2.0).abs() < 0.05);
    }

    #[test]
    fn what_rings_is_no_work() {
        let load = |invites, ringing, others| Load {
            invites,
            ringing,
            others,
            calls: 100,
        };
        let cost = Cost::default();
        assert_eq!(cost.of(load(0, 0, 1)), 256);
        assert_eq!(cost.of(load(1, 0, 0)), 448);
        assert_eq!(cost.of(load(1, 1000, 1)), 704);
    }
}
