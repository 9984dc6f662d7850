//! How the rate of a run rises from nothing to what was asked for.

use crate::time::Duration;

/// The way to the rate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Ramp {
    /// The full rate from the first call on.
    #[default]
    None,
    /// In a straight line over this time.
    Straight(Duration),
    /// In steps: each for as long, each so many calls per second above the last.
    Steps {
        /// Calls per second of a step, and of the first.
        step: f64,
        /// Length of a step.
        every: Duration,
    },
}

impl Ramp {
    /// Calls expected up to `seconds` on the way to `rate` calls per second: the integral of the
    /// rate.
    pub(super) fn expected(&self, rate: f64, seconds: f64) -> f64 {
        match *self {
            Self::None => rate * seconds,
            Self::Straight(ramp) => {
                let ramp = ramp.as_secs_f64();
                if seconds < ramp {
                    rate * seconds * seconds / (2.0 * ramp)
                } else {
                    rate * (seconds - ramp / 2.0)
                }
            }
            Self::Steps { step, every } => {
                let every = every.as_secs_f64();
                let level = (seconds / every).floor().min(levels(rate, step));
                before(level, step, every) + at(level, rate, step) * (seconds - level * every)
            }
        }
    }

    /// Seconds until `calls` are expected: the inverse of [`Self::expected`].
    pub(super) fn after(&self, rate: f64, calls: f64) -> f64 {
        match *self {
            Self::None => calls / rate,
            Self::Straight(ramp) => {
                let ramp = ramp.as_secs_f64();
                if calls < rate * ramp / 2.0 {
                    (2.0 * ramp * calls / rate).sqrt()
                } else {
                    calls / rate + ramp / 2.0
                }
            }
            Self::Steps { step, every } => {
                let every = every.as_secs_f64();
                // The largest level that begins with no more calls than these: before(level) <=
                // calls, solved for the level; rounding may have missed it by one.
                let root = ((1.0 + 8.0 * calls / (step * every)).sqrt() - 1.0) / 2.0;
                let mut level = root.floor().min(levels(rate, step));
                if before(level, step, every) > calls {
                    level -= 1.0;
                }
                level * every + (calls - before(level, step, every)) / at(level, rate, step)
            }
        }
    }
}

/// Steps below the full rate.
fn levels(rate: f64, step: f64) -> f64 {
    ((rate / step).ceil() - 1.0).max(0.0)
}

/// The rate of a step, the first being 0.
fn at(level: f64, rate: f64, step: f64) -> f64 {
    (step * (level + 1.0)).min(rate)
}

/// Calls before a step begins: 1 + 2 + … steps' worth.
fn before(level: f64, step: f64, every: f64) -> f64 {
    step * every * level * (level + 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEPS: Ramp = Ramp::Steps {
        step: 100.0,
        every: Duration::from_secs(10),
    };

    #[test]
    fn steps_are_stairs() {
        // 100 calls a second for ten seconds, 200 for ten, then 250, which is no whole step.
        for (seconds, calls) in [
            (0.0, 0.0),
            (5.0, 500.0),
            (10.0, 1000.0),
            (15.0, 2000.0),
            (20.0, 3000.0),
            (24.0, 4000.0),
            (60.0, 13_000.0),
        ] {
            let expected = STEPS.expected(250.0, seconds);
            assert!((expected - calls).abs() < 1e-6, "{seconds} s: {expected}");
            let after = STEPS.after(250.0, calls);
            assert!((after - seconds).abs() < 1e-6, "{calls} calls: {after}");
        }
    }

    #[test]
    fn a_step_above_the_rate_is_no_ramp() {
        assert!((STEPS.expected(40.0, 3.0) - 120.0).abs() < 1e-9);
        assert!((STEPS.after(40.0, 120.0) - 3.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn time_and_calls_belong_together(
            rate in 0.5f64..100_000.0,
            step in 0.5f64..10_000.0,
            every_ms in 1u64..60_000,
            seconds in 0.0f64..3000.0,
        ) {
            let every = Duration::from_millis(every_ms);
            let straight = Ramp::Straight(every);
            for ramp in [Ramp::None, straight, Ramp::Steps { step, every }] {
                let calls = ramp.expected(rate, seconds);
                let back = ramp.after(rate, calls);
                prop_assert!((back - seconds).abs() < 1e-6 * (1.0 + seconds), "{ramp:?}: {back}");
                prop_assert!(ramp.expected(rate, seconds + 0.1) > calls);
            }
        }
    }
}
