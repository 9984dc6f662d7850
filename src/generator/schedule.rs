//! When calls start: an open loop, fixed before the first answer arrives.
//!
//! The intended time of call *n* depends on nothing but *n*, the rate and the seed. A target that
//! stalls therefore meets every call that its users would have made meanwhile, and a latency counted
//! from the intended time contains the stall (no coordinated omission).

use super::ramp::Ramp;
use crate::time::Duration;

const NANOS_PER_SECOND: f64 = 1e9;

/// Distances between calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrivals {
    /// Even: one call each 1/rate.
    #[default]
    Even,
    /// A Poisson process: exponential distances, as independent callers make them.
    Poisson,
}

/// The intended start times of a run, as offsets from its beginning.
#[derive(Clone, Debug)]
pub struct Schedule {
    rate: f64,
    arrivals: Arrivals,
    ramp: Ramp,
    limit: Limit,
    next: u64,
    /// From one call of ours to the next: as many as there are threads.
    stride: u64,
    due: Option<Duration>,
    random: u64,
}

/// Where a schedule ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Calls at most.
    pub calls: Option<u64>,
    /// No call is due at this offset or later.
    pub duration: Option<Duration>,
}

impl Schedule {
    /// Calls at `rate` per second, which must be above zero, once `ramp` is over.
    pub fn new(rate: f64, arrivals: Arrivals, ramp: Ramp, limit: Limit, seed: u64) -> Self {
        let mut schedule = Self {
            rate: rate.max(f64::MIN_POSITIVE),
            arrivals,
            ramp,
            limit,
            next: 0,
            stride: 1,
            due: None,
            random: seed,
        };
        schedule.due = schedule.bounded(Duration::ZERO);
        schedule
    }

    /// Every `of`th call, from call `thread` on: together the shares are the whole schedule.
    ///
    /// Poisson calls stay one: a process of independent calls is the sum of such processes.
    pub fn share(mut self, thread: u64, of: u64) -> Self {
        self.stride = of.max(1);
        self.next = thread;
        // Threads that draw the same numbers would call at the same times.
        self.random = self.random.wrapping_add(thread << 32);
        let first = match self.arrivals {
            Arrivals::Even => self.after(self.next_as_f64()),
            Arrivals::Poisson => self.following(Duration::ZERO),
        };
        self.due = self.bounded(if thread == 0 { Duration::ZERO } else { first });
        self
    }

    /// When the next call is due, or `None` after the last.
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Calls taken so far are below this serial number.
    pub fn taken(&self) -> u64 {
        self.next
    }

    /// Takes the next call if it is due by `elapsed`: its serial number and intended time.
    pub fn take(&mut self, elapsed: Duration) -> Option<(u64, Duration)> {
        let due = self.due.filter(|due| *due <= elapsed)?;
        let serial = self.next;
        self.next += self.stride;
        let following = self.following(due);
        self.due = self.bounded(following);
        Some((serial, due))
    }

    /// Ends the schedule now.
    pub fn stop(&mut self) {
        self.due = None;
    }

    /// The time of call `self.next`, given that of the one before it.
    fn following(&mut self, due: Duration) -> Duration {
        match self.arrivals {
            Arrivals::Even => self.after(self.next_as_f64()),
            Arrivals::Poisson => {
                // Inverse of the exponential distribution, in units of expected calls; 1 − u > 0.
                #[expect(clippy::cast_precision_loss, reason = "threads are few")]
                let calls = -(1.0 - self.uniform()).ln() * self.stride as f64;
                let reached = self.expected(due);
                self.after(reached + calls)
            }
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "2^53 calls are more than anyone makes"
    )]
    fn next_as_f64(&self) -> f64 {
        self.next as f64
    }

    /// Calls expected up to `offset`: the integral of the rate.
    fn expected(&self, offset: Duration) -> f64 {
        self.ramp.expected(self.rate, offset.as_secs_f64())
    }

    /// The offset at which `calls` are expected: the inverse of [`Self::expected`].
    fn after(&self, calls: f64) -> Duration {
        let seconds = self.ramp.after(self.rate, calls);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "`as` saturates, and no offset is negative"
        )]
        Duration::from_nanos((seconds * NANOS_PER_SECOND).round() as u64)
    }

    fn bounded(&self, due: Duration) -> Option<Duration> {
        let in_calls = self.limit.calls.is_none_or(|calls| self.next < calls);
        let in_time = self.limit.duration.is_none_or(|end| due < end);
        (in_calls && in_time).then_some(due)
    }

    /// A number in [0, 1), by splitmix64.
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits fit a double's mantissa"
    )]
    fn uniform(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        (x >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NO_LIMIT: Limit = Limit {
        calls: None,
        duration: None,
    };

    fn collect(schedule: &mut Schedule, elapsed: Duration) -> Vec<(u64, Duration)> {
        core::iter::from_fn(|| schedule.take(elapsed)).collect()
    }

    #[test]
    fn even_calls_are_one_over_rate_apart() {
        let mut schedule = Schedule::new(1000.0, Arrivals::Even, Ramp::None, NO_LIMIT, 0);
        let calls = collect(&mut schedule, Duration::from_millis(5));
        let offsets: Vec<_> = calls.iter().map(|(_, due)| due.as_micros()).collect();
        assert_eq!(offsets, [0, 1000, 2000, 3000, 4000, 5000]);
        assert_eq!(schedule.due(), Some(Duration::from_millis(6)));
    }

    #[test]
    fn calls_and_duration_both_end_it() {
        let limit = Limit {
            calls: Some(3),
            duration: None,
        };
        let mut schedule = Schedule::new(10.0, Arrivals::Even, Ramp::None, limit, 0);
        assert_eq!(collect(&mut schedule, Duration::from_secs(60)).len(), 3);
        assert_eq!(schedule.due(), None);

        let limit = Limit {
            calls: None,
            duration: Some(Duration::from_secs(20)),
        };
        let mut schedule = Schedule::new(1000.0, Arrivals::Even, Ramp::None, limit, 0);
        assert_eq!(
            collect(&mut schedule, Duration::from_secs(60)).len(),
            20_000
        );
    }

    #[test]
    fn a_ramp_reaches_the_rate_in_a_straight_line() {
        let ramp = Duration::from_secs(10);
        let mut schedule = Schedule::new(100.0, Arrivals::Even, Ramp::Straight(ramp), NO_LIMIT, 0);
        // Half of the ramp's time brings a quarter of its calls, the whole ramp half of the rate's.
        assert_eq!(collect(&mut schedule, ramp / 2).len(), 126);
        assert_eq!(collect(&mut schedule, ramp).len(), 501 - 126);
        assert_eq!(
            collect(&mut schedule, Duration::from_secs(11)).len(),
            601 - 501
        );
    }

    #[test]
    fn poisson_calls_keep_the_rate_and_scatter() {
        let mut schedule = Schedule::new(1000.0, Arrivals::Poisson, Ramp::None, NO_LIMIT, 9);
        let calls = collect(&mut schedule, Duration::from_secs(20));
        // Mean 20,000, standard deviation 141; five of them.
        assert!((19_300..20_700).contains(&calls.len()), "{}", calls.len());
        let gaps: Vec<f64> = calls
            .windows(2)
            .map(|pair| (pair[1].1 - pair[0].1).as_secs_f64())
            .collect();
        let count = f64::from(u32::try_from(gaps.len()).unwrap());
        let mean = gaps.iter().sum::<f64>() / count;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count;
        // An exponential distribution's deviation equals its mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.1);
    }

    /// Independent calls of several threads are independent calls of as many as were asked for.
    #[test]
    fn threads_keep_the_poisson_rate_together() {
        let whole = Schedule::new(1000.0, Arrivals::Poisson, Ramp::None, NO_LIMIT, 9);
        let shares = (0..4).map(|thread| whole.clone().share(thread, 4));
        let mut calls: Vec<_> = shares
            .flat_map(|mut share| collect(&mut share, Duration::from_secs(20)))
            .collect();
        assert!((19_300..20_700).contains(&calls.len()), "{}", calls.len());
        calls.sort_unstable_by_key(|(serial, _)| *serial);
        calls.dedup_by_key(|(serial, _)| *serial);
        assert!((19_300..20_700).contains(&calls.len()), "{}", calls.len());
    }

    proptest! {
        #[test]
        fn no_call_is_early_lost_or_out_of_order(
            rate in 0.1f64..100_000.0,
            poisson: bool,
            stairs: bool,
            threads in 1u64..5,
            ramp_ms in 0u64..3000,
            steps in prop::collection::vec(0u64..200, 1..40),
            seed: u64,
        ) {
            let arrivals = if poisson { Arrivals::Poisson } else { Arrivals::Even };
            let limit = Limit { calls: Some(2000), duration: None };
            let ramp = Duration::from_millis(ramp_ms);
            let ramp = match stairs {
                true => Ramp::Steps { step: rate / 3.5, every: ramp + Duration::from_millis(1) },
                false => Ramp::Straight(ramp),
            };
            let mut at_once = Schedule::new(rate, arrivals, ramp, limit, seed);
            let mut stepwise = at_once.clone();
            let mut elapsed = Duration::ZERO;
            let mut calls = Vec::new();
            for step in steps {
                elapsed += Duration::from_millis(step);
                calls.extend(collect(&mut stepwise, elapsed));
                prop_assert!(stepwise.due().is_none_or(|due| due > elapsed));
            }
            // Threads share the schedule: evenly spaced calls are the same ones, each made once.
            if !poisson {
                let whole = Schedule::new(rate, arrivals, ramp, limit, seed);
                let shares = (0..threads).map(|thread| whole.clone().share(thread, threads));
                let mut shared: Vec<_> = shares
                    .flat_map(|mut share| collect(&mut share, elapsed))
                    .collect();
                shared.sort_unstable();
                prop_assert_eq!(&shared, &calls);
            }
            // Late polling changes nothing: intended times do not depend on who asks when.
            prop_assert_eq!(&calls, &collect(&mut at_once, elapsed));
            for (place, (serial, due)) in calls.iter().enumerate() {
                prop_assert_eq!(*serial, place as u64);
                prop_assert!(*due <= elapsed);
            }
            prop_assert!(calls.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        }
    }
}
