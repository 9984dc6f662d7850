//! Callers, a balancer of several workers and servers on one thread, all chance from one seed.
//!
//! A network that loses, doubles, delays and reorders; servers that are dead, slow, full or not
//! there; reload and drain while calls ring; a process that dies. Datagrams reach any worker, time is
//! virtual and passes only where something happens. The [`judge`](judge) reads what crosses the
//! balancer and holds it to RFC 3261 §16 and §17.
//!
//! | variable | meaning |
//! |---|---|
//! | `SEED` | this seed only; a failing one prints its own line |
//! | `SEEDS` | so many instead of 2,000 |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "numbers of a simulation are small"
)]

mod balancer;
mod cases;
mod client;
mod judge;
mod message;
mod network;
mod rng;
mod scenario;
mod server;
mod tally;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use scenario::Scenario;
use tally::Tally;
use world::World;

/// What went wrong: the rule, and all that is needed to look into it.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    seed: u64,
    rule: String,
    report: String,
}

fn run(seed: u64) -> Result<Tally, Failure> {
    run_scenario(&Scenario::new(seed))
}

/// Runs a scenario; on failure once more, with the messages of the call that failed.
fn run_scenario(scenario: &Scenario) -> Result<Tally, Failure> {
    World::new(scenario.clone(), None)
        .run()
        .map_err(|violation| {
            let mut again = World::new(scenario.clone(), Some(violation.call));
            let second = again.run().err();
            let same = second.is_some_and(|second| second.text == violation.text);
            let Scenario {
                seed,
                workers,
                farm,
                clients,
                servers,
                ..
            } = scenario;
            let report = format!(
                "seed {seed}, call {}: {}{}\n\
             reproduce: SEED={seed} cargo nextest run --test simulation every_seed_holds\n\
             {workers} workers, {farm:?}\nclients {clients:?}\nservers {servers:?}\n{:?}\n{}\n",
                violation.call,
                violation.text,
                if same {
                    ""
                } else {
                    " (and not again: the simulation is not a function of its seed)"
                },
                scenario.calls[violation.call],
                again.trace().join("\n"),
            );
            // Numbers differ from call to call, the rule is the same.
            let rule = violation
                .text
                .chars()
                .filter(|of| !of.is_ascii_digit())
                .collect();
            Failure {
                seed: *seed,
                rule,
                report,
            }
        })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs seeds on all processors until `failures_max` rules are broken; `prepare` is called on each
/// thread.
fn run_all(
    seeds: std::ops::Range<u64>,
    failures_max: usize,
    prepare: impl Fn() + Sync,
) -> (Tally, Vec<Failure>) {
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Tally::default());
    let failures = Mutex::new(Vec::<Failure>::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                prepare();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failures.lock().unwrap().len() >= failures_max {
                        break;
                    }
                    match run(seed) {
                        Ok(tally) => total.lock().unwrap().add(&tally),
                        Err(failure) => {
                            let mut failures = failures.lock().unwrap();
                            if !failures.iter().any(|other| other.rule == failure.rule) {
                                failures.push(failure);
                            }
                        }
                    }
                }
            });
        }
    });
    (total.into_inner().unwrap(), failures.into_inner().unwrap())
}

/// Every fault and every way to end a call is met, or the seeds prove less than they seem to.
fn assert_all_met(tally: &Tally) {
    let rows = tally.rows();
    let missing: Vec<_> = rows
        .iter()
        .filter(|(_, count)| *count < tally.seeds / 100)
        .collect();
    assert!(missing.is_empty(), "hardly met: {missing:?}");
}

#[test]
fn every_seed_holds() {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("SEEDS").unwrap_or(2000),
    };
    let many = seeds.end - seeds.start >= 1000;
    let (tally, failures) = run_all(seeds, 8, || {});
    for (name, count) in tally.rows() {
        println!("{name:<24} {count}");
    }
    let reports: String = failures
        .iter()
        .map(|failure| failure.report.as_str())
        .collect();
    assert!(failures.is_empty(), "{reports}");
    if many {
        assert_all_met(&tally);
    }
}

/// The judge sees what it claims to see: each bug on purpose is found within 200 seeds.
#[cfg(feature = "sabotage")]
#[test]
fn every_bug_on_purpose_is_found() {
    use viaduct::sabotage::{Bug, commit};
    let missed: Vec<Bug> = Bug::ALL
        .into_iter()
        .filter(|bug| {
            let (_, failures) = run_all(1..201, 1, || commit(Some(*bug)));
            let found = failures.first().map(|of| (of.seed, of.rule.as_str()));
            println!("{bug:?}: {found:?}");
            found.is_none()
        })
        .collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// A failure can be looked at: the same seed is the same run.
#[test]
fn a_seed_is_always_the_same_run() {
    for seed in 1..20 {
        let first = run(seed).map(|tally| tally.rows());
        assert_eq!(first, run(seed).map(|tally| tally.rows()));
    }
}
