//! Which rate to try next: a function of what came of the trials so far, and of nothing else.
//!
//! RFC 7502 §4.10 looks for the largest rate at which N sessions in a row are set up without an
//! error, by raising the rate a tenth at a time. Here it is doubled until it fails and then halved
//! in, by trials of a few seconds; only the rate that is found has to last N sessions, and more
//! than once. One that fails at that is a failure like any other, and the search goes on below it.

/// Lowest rate that is tried, calls per second.
const RATE_MIN: f64 = 1.0;
/// Seconds of a trial that only looks for the place.
const PROBE_SECONDS: f64 = 5.0;

/// What a search may cost, and how exact it shall be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Rate of the first trial, calls per second.
    pub first: f64,
    /// No rate above it is tried.
    pub rate_max: f64,
    /// Sessions that the result must set up in a row: N of RFC 7502.
    pub sessions: u64,
    /// Times that it must do so.
    pub passes: u32,
    /// Distance between the result and a rate that fails, as a share of the result.
    pub resolution: f64,
    /// Trials at most.
    pub trials_max: usize,
}

/// What came of a trial, as the search sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Calls per second.
    pub rate: f64,
    /// Sessions attempted.
    pub sessions: u64,
    /// Every one was set up and ended without an error, and the generator kept up.
    pub passed: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Another trial.
    Try {
        /// Calls per second.
        rate: f64,
        /// Sessions to attempt.
        sessions: u64,
    },
    /// It is over.
    End {
        /// The largest rate that has passed, whole if `is_proven`.
        rate: Option<f64>,
        /// It has set up N sessions in a row, as often as wanted, and what lies above has failed or
        /// may not be tried.
        is_proven: bool,
    },
}

/// The next step after these trials.
pub fn next(trials: &[Outcome], bounds: &Bounds) -> Step {
    // A rate that failed once has failed, and so has all above it.
    let failed = trials.iter().filter(|trial| !trial.passed);
    let ceiling = failed.map(|trial| trial.rate).reduce(f64::min);
    let below = |rate: f64| ceiling.is_none_or(|ceiling| rate < ceiling);
    let passed = || {
        trials
            .iter()
            .filter(|trial| trial.passed && below(trial.rate))
    };
    let floor = passed().map(|trial| trial.rate).reduce(f64::max);
    let end = |is_proven| Step::End {
        rate: floor,
        is_proven,
    };
    if trials.len() >= bounds.trials_max {
        return end(false);
    }
    let probe = |rate: f64| Step::Try {
        rate,
        sessions: probe_sessions(rate, bounds.sessions),
    };
    match (floor, ceiling) {
        (None, None) => probe(bounds.first.clamp(RATE_MIN, bounds.rate_max)),
        (None, Some(ceiling)) if ceiling <= RATE_MIN => end(true),
        (None, Some(ceiling)) => probe(rounded(ceiling / 2.0).max(RATE_MIN)),
        (Some(floor), None) if floor < bounds.rate_max => probe((2.0 * floor).min(bounds.rate_max)),
        (Some(floor), Some(ceiling)) if !is_close(floor, ceiling, bounds) => {
            probe(rounded(f64::midpoint(floor, ceiling)))
        }
        (Some(floor), _) => {
            let whole = |trial: &&Outcome| trial.sessions >= bounds.sessions;
            let at_floor = |trial: &&Outcome| trial.rate >= floor;
            let passes = passed().filter(at_floor).filter(whole).count();
            if passes >= usize::try_from(bounds.passes).unwrap_or(usize::MAX) {
                return end(true);
            }
            Step::Try {
                rate: floor,
                sessions: bounds.sessions,
            }
        }
    }
}

/// Whether nothing is left between a rate that passes and one that fails.
fn is_close(floor: f64, ceiling: f64, bounds: &Bounds) -> bool {
    let middle = rounded(f64::midpoint(floor, ceiling));
    ceiling - floor <= floor * bounds.resolution || middle <= floor || middle >= ceiling
}

/// Whole calls per second, where there are some.
fn rounded(rate: f64) -> f64 {
    if rate >= 10.0 { rate.round() } else { rate }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is positive, and the conversion saturates"
)]
fn probe_sessions(rate: f64, sessions: u64) -> u64 {
    ((rate * PROBE_SECONDS).ceil() as u64).clamp(1, sessions)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        first: 1000.0,
        rate_max: 1_000_000.0,
        sessions: 50_000,
        passes: 2,
        resolution: 0.02,
        trials_max: 40,
    };

    /// Searches a target that sets up `probe` calls a second for a moment and `lasting` for long.
    fn searched(bounds: &Bounds, probe: f64, lasting: f64) -> (Vec<Outcome>, Option<f64>, bool) {
        let mut trials = Vec::new();
        loop {
            match next(&trials, bounds) {
                Step::Try { rate, sessions } => {
                    let limit = match sessions >= bounds.sessions {
                        true => lasting,
                        false => probe,
                    };
                    let passed = rate <= limit;
                    trials.push(Outcome {
                        rate,
                        sessions,
                        passed,
                    });
                }
                Step::End { rate, is_proven } => return (trials, rate, is_proven),
            }
        }
    }

    #[test]
    fn doubles_until_it_fails_and_halves_in() {
        let (trials, found, is_proven) = searched(&BOUNDS, 5100.0, 5100.0);
        let rates: Vec<f64> = trials.iter().map(|trial| trial.rate).collect();
        let expected = [
            1000.0, 2000.0, 4000.0, 8000.0, 6000.0, 5000.0, 5500.0, 5250.0, 5125.0, 5063.0, 5063.0,
            5063.0,
        ];
        assert_eq!(rates, expected);
        assert_eq!((found, is_proven), (Some(5063.0), true));
        // Looking takes seconds; only the result lasts the whole number of sessions.
        let sessions: Vec<u64> = trials.iter().map(|trial| trial.sessions).collect();
        assert_eq!(sessions[..2], [5000, 10_000]);
        assert_eq!(sessions[9..], [25_315, 50_000, 50_000]);
    }

    #[test]
    fn a_first_rate_that_is_too_high_is_halved() {
        let (_, found, is_proven) = searched(&BOUNDS, 30.0, 30.0);
        assert!(is_proven);
        assert!((29.0..=30.0).contains(&found.unwrap()), "{found:?}");
        let (trials, found, is_proven) = searched(&BOUNDS, 0.0, 0.0);
        assert_eq!((found, is_proven), (None, true));
        assert_eq!(trials.last().unwrap().rate.to_bits(), RATE_MIN.to_bits());
    }

    #[test]
    fn what_passes_for_a_moment_only_is_not_the_result() {
        let (_, found, is_proven) = searched(&BOUNDS, 20_000.0, 15_000.0);
        assert!(is_proven);
        assert!((14_500.0..=15_000.0).contains(&found.unwrap()), "{found:?}");
    }

    #[test]
    fn a_target_beyond_the_bound_has_the_bound() {
        let bounds = Bounds {
            rate_max: 3000.0,
            ..BOUNDS
        };
        let (trials, found, is_proven) = searched(&bounds, 1e9, 1e9);
        assert_eq!((found, is_proven), (Some(3000.0), true));
        assert!(trials.iter().all(|trial| trial.rate <= 3000.0));
    }

    #[test]
    fn a_search_that_is_cut_short_says_so() {
        let bounds = Bounds {
            trials_max: 4,
            ..BOUNDS
        };
        let (trials, found, is_proven) = searched(&bounds, 5100.0, 5100.0);
        assert_eq!((trials.len(), found, is_proven), (4, Some(4000.0), false));
    }

    proptest! {
        /// Whatever the target can, the result is below it by no more than twice the resolution, and
        /// the search is short.
        #[test]
        fn the_result_is_what_the_target_can(
            limit in 2.0f64..200_000.0,
            first in 1.0f64..100_000.0,
            resolution in 0.01f64..0.2,
        ) {
            let bounds = Bounds { first, resolution, ..BOUNDS };
            let (trials, found, is_proven) = searched(&bounds, limit, limit);
            prop_assert!(is_proven && trials.len() <= 40);
            let found = found.unwrap();
            prop_assert!(found <= limit);
            prop_assert!(found * (1.0 + resolution) + 1.0 >= limit, "{found} of {limit}");
        }

        /// A target that fails by chance never makes the search endless, or its result untried.
        #[test]
        fn chance_ends_too(coin in prop::collection::vec(any::<bool>(), 40)) {
            let mut trials: Vec<Outcome> = Vec::new();
            while let Step::Try { rate, sessions } = next(&trials, &BOUNDS) {
                prop_assert!((RATE_MIN..=BOUNDS.rate_max).contains(&rate));
                let passed = coin[trials.len()];
                trials.push(Outcome { rate, sessions, passed });
            }
            prop_assert!(trials.len() <= 40);
            if let Step::End { rate: Some(rate), .. } = next(&trials, &BOUNDS) {
                let mut at_rate = trials.iter().filter(|trial| trial.rate.to_bits() == rate.to_bits());
                prop_assert!(at_rate.all(|trial| trial.passed));
            }
        }
    }
}
