//! `viaduct generate capacity`: the largest rate at which no call fails, found by trials.
//!
//! Each trial is a run of its own, with new calls. A trial passes if every session was set up and
//! ended as intended, and if the generator kept up: a rate that the generator cannot make says
//! nothing of the target, and the report tells which of the two it was. `search` decides which
//! rate comes next.

mod search;

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

pub use search::{Bounds, Outcome, Step, next};

use super::args::{CallArgs, parse_rate, parse_seconds};
use super::config::{GeneratorError, UacConfig};
use super::report::Report;
use super::schedule::Limit;
use super::uac;
use crate::sys::clock;
use crate::time::Duration;

/// Rate of the first trial, calls per second.
const FIRST_RATE: f64 = 1000.0;
/// How often a stop is looked for while calls of the last trial die away.
const LOOK: Duration = Duration::from_millis(50);

/// `viaduct generate capacity`.
#[derive(clap::Args, Clone, Debug)]
pub struct CapacityArgs {
    /// The calls. --rate is that of the first trial, 1000 without it; --sessions takes the place of
    /// --calls and --duration.
    #[command(flatten)]
    pub call: CallArgs,
    /// Sessions without a failure that prove a rate: N of RFC 7502 §4.10.
    #[arg(long, value_name = "N", default_value = "50000", value_parser = clap::value_parser!(u64).range(1..))]
    pub sessions: u64,
    /// Times that the result must pass so many sessions.
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=10))]
    pub passes: u32,
    /// Distance between the result and a rate that fails, as a share of the result.
    #[arg(long, value_name = "SHARE", default_value = "0.02", value_parser = parse_share)]
    pub resolution: f64,
    /// Try no higher rate, in calls per second.
    #[arg(long, value_name = "RATE", default_value = "1000000", value_parser = parse_rate)]
    pub max_rate: f64,
    /// Trials at most.
    #[arg(long, value_name = "N", default_value = "30", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_trials: u16,
    /// Begin no trial after this time (a bare number is seconds).
    #[arg(long, value_parser = parse_seconds, default_value = "20m")]
    pub max_time: Duration,
    /// Pause between trials, for what is on its way to arrive (a bare number is seconds).
    #[arg(long, value_parser = parse_seconds, default_value = "2s")]
    pub settle: Duration,
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.001..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0.001 to 1".to_owned()),
    }
}

impl CapacityArgs {
    /// What they mean for the search.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            first: self.call.load.rate.unwrap_or(FIRST_RATE),
            rate_max: self.max_rate,
            sessions: self.sessions,
            passes: self.passes,
            resolution: self.resolution,
            trials_max: usize::from(self.max_trials),
        }
    }
}

/// One trial.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// Calls per second.
    pub rate: f64,
    /// Sessions attempted; fewer than intended if one failed.
    pub sessions: u64,
    /// Sessions that failed.
    pub failed: u64,
    /// Requests sent again.
    pub retransmissions: u64,
    /// 99 % of the sessions were set up within this, in milliseconds.
    pub setup_p99_ms: f64,
    /// 99 % of the calls started no later than this, in milliseconds.
    pub late_p99_ms: f64,
    /// Share of its core that the busiest thread of the generator used.
    pub cpu: f64,
    /// The generator did not keep up.
    pub generator_limited: bool,
    /// No session failed and the generator kept up.
    pub passed: bool,
}

impl Trial {
    fn new(rate: f64, report: &Report) -> Self {
        Self {
            rate,
            sessions: report.offered,
            failed: report.failed,
            retransmissions: report.traffic.retransmissions,
            setup_p99_ms: report.setup_ms.p99,
            late_p99_ms: report.lateness_ms.p99,
            cpu: report.cpu,
            generator_limited: report.bottleneck,
            passed: report.failed == 0 && !report.bottleneck,
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            rate: self.rate,
            sessions: self.sessions,
            passed: self.passed,
        }
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.passed, self.generator_limited) {
            (true, _) => "passed",
            (false, true) => "the generator was the limit",
            (false, false) => "failed",
        };
        write!(
            f,
            "{:>9.0}/s {:>8} sessions {:>7} failed  set-up p99 {:>8.2} ms  late p99 {:>6.2} ms  cpu {:>3.0} %  {verdict}",
            self.rate,
            self.sessions,
            self.failed,
            self.setup_p99_ms,
            self.late_p99_ms,
            100.0 * self.cpu,
        )
    }
}

/// What a search has found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CapacityReport {
    /// The largest rate without a failure, in calls per second; `None` if every one failed.
    pub capacity: Option<f64>,
    /// It passed `sessions` sessions as often as wanted, and what is above it failed or was not to
    /// be tried.
    pub proven: bool,
    /// What stopped the search from going higher was the generator, not the target.
    pub generator_limited: bool,
    /// Sessions in a row that prove a rate.
    pub sessions: u64,
    /// All trials, in order.
    pub trials: Vec<Trial>,
}

impl CapacityReport {
    fn new(trials: Vec<Trial>, bounds: &Bounds, capacity: Option<f64>, proven: bool) -> Self {
        // Of the lowest rate that failed, whose fault it was.
        let failed = trials.iter().filter(|trial| !trial.passed);
        let lowest = failed.min_by(|a, b| a.rate.total_cmp(&b.rate));
        Self {
            capacity,
            proven,
            generator_limited: lowest.is_some_and(|trial| trial.generator_limited),
            sessions: bounds.sessions,
            trials,
        }
    }

    /// As JSON.
    pub fn json(&self) -> String {
        // Strings, numbers and lists always serialise.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

impl fmt::Display for CapacityReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for trial in &self.trials {
            writeln!(f, "{trial}")?;
        }
        match (self.capacity, self.proven) {
            (Some(rate), true) => write!(
                f,
                "capacity           {rate:.0} calls/s: {} sessions without a failure",
                self.sessions
            )?,
            (Some(rate), false) => write!(
                f,
                "capacity           at least {rate:.0} calls/s: cut short before it was proven"
            )?,
            (None, _) => write!(f, "capacity           none: every rate failed")?,
        }
        if self.generator_limited {
            write!(f, "; the generator was the limit, not the target")?;
        }
        Ok(())
    }
}

/// Searches. Each trial is told to `each` when it is over; `max_time` and `settle` as in
/// [`CapacityArgs`]. Ends early when `stop` is set.
///
/// # Errors
/// What kept a trial from starting.
pub fn run(
    config: &UacConfig,
    bounds: &Bounds,
    max_time: Duration,
    settle: Duration,
    stop: &AtomicBool,
    mut each: impl FnMut(&Trial),
) -> Result<CapacityReport, GeneratorError> {
    let end = clock::now() + max_time;
    let mut trials: Vec<Trial> = Vec::new();
    let mut outcomes: Vec<Outcome> = Vec::new();
    loop {
        let is_cut = stop.load(Ordering::Relaxed) || clock::now() >= end;
        let step = match is_cut {
            // The best so far, as if no further trial were allowed.
            true => next(
                &outcomes,
                &Bounds {
                    trials_max: 0,
                    ..*bounds
                },
            ),
            false => next(&outcomes, bounds),
        };
        let (rate, sessions) = match step {
            Step::Try { rate, sessions } => (rate, sessions),
            Step::End { rate, is_proven } => {
                return Ok(CapacityReport::new(trials, bounds, rate, is_proven));
            }
        };
        if !trials.is_empty() {
            pause(settle, stop);
        }
        let number = u64::try_from(trials.len()).unwrap_or(0);
        let report = uac::run(
            &UacConfig {
                rate,
                limit: Limit {
                    calls: Some(sessions),
                    duration: None,
                },
                // New calls: what is left of the last trial belongs to none of them.
                seed: config.seed.wrapping_add(number),
                ends_at_failure: true,
                ..config.clone()
            },
            stop,
        )?;
        if stop.load(Ordering::Relaxed) {
            // Half a trial proves nothing.
            continue;
        }
        let trial = Trial::new(rate, &report);
        each(&trial);
        outcomes.push(trial.outcome());
        trials.push(trial);
    }
}

fn pause(time: Duration, stop: &AtomicBool) {
    let end = clock::now() + time;
    while !stop.load(Ordering::Relaxed) {
        let rest = end.since(clock::now());
        if rest.is_zero() {
            return;
        }
        std::thread::sleep(rest.min(LOOK));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(rate: f64, passed: bool, generator_limited: bool) -> Trial {
        Trial {
            rate,
            sessions: 50_000,
            failed: u64::from(!passed && !generator_limited),
            retransmissions: 0,
            setup_p99_ms: 1.0,
            late_p99_ms: 0.1,
            cpu: 0.5,
            generator_limited,
            passed,
        }
    }

    fn report(trials: Vec<Trial>, proven: bool) -> CapacityReport {
        let bounds = Bounds {
            first: 1000.0,
            rate_max: 1e6,
            sessions: 50_000,
            passes: 1,
            resolution: 0.02,
            trials_max: 30,
        };
        CapacityReport::new(trials, &bounds, Some(2000.0), proven)
    }

    #[test]
    fn the_lowest_rate_that_failed_says_whose_limit_it_is() {
        let target = trial(2040.0, false, false);
        let generator = trial(4000.0, false, true);
        let passed = trial(2000.0, true, false);
        let by_target = report(
            vec![generator.clone(), target.clone(), passed.clone()],
            true,
        );
        assert!(!by_target.generator_limited);
        assert!(!by_target.to_string().contains("not the target"));
        let by_generator = report(vec![generator, passed.clone()], true);
        assert!(by_generator.to_string().contains("not the target"));
        let cut = report(vec![target, passed], false).to_string();
        assert!(cut.contains("at least 2000 calls/s"), "{cut}");
        let json: serde_json::Value = serde_json::from_str(&by_generator.json()).unwrap();
        assert_eq!(json["trials"][0]["generator_limited"], true);
        assert_eq!(json["capacity"], 2000.0);
    }
}
