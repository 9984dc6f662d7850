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

/// Runs a seed; on failure once more, with the messages of the call that failed.
fn run(seed: u64) -> Result<Tally, String> {
    let scenario = Scenario::new(seed);
    run_scenario(&scenario)
}

fn run_scenario(scenario: &Scenario) -> Result<Tally, String> {
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
            format!(
                "seed {seed}, call {}: {}{}\n\
             reproduce: SEED={seed} cargo nextest run --test simulation\n\
             {workers} workers, {farm:?}\nclients {clients:?}\nservers {servers:?}\n{:?}\n{}",
                violation.call,
                violation.text,
                if same {
                    ""
                } else {
                    " (and not again: the simulation is not a function of its seed)"
                },
                scenario.calls[violation.call],
                again.trace().join("\n"),
            )
        })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs seeds on all processors; the first that fails ends it.
fn run_all(seeds: std::ops::Range<u64>) -> Result<Tally, String> {
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Tally::default());
    let failed = Mutex::new(None::<(u64, String)>);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failed.lock().unwrap().is_some() {
                        break;
                    }
                    match run(seed) {
                        Ok(tally) => total.lock().unwrap().add(&tally),
                        Err(text) => {
                            let mut failed = failed.lock().unwrap();
                            if failed.as_ref().is_none_or(|(other, _)| seed < *other) {
                                *failed = Some((seed, text));
                            }
                        }
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap() {
        Some((_, text)) => Err(text),
        None => Ok(total.into_inner().unwrap()),
    }
}

/// Every fault and every way to end a call is met, or the seeds prove less than they seem to.
fn assert_all_met(tally: &Tally) {
    let never = [
        "hunts",
        "abandoned_cancelled",
        "abandoned_answered",
        "timer_c",
        "worker_timers",
        "drops",
    ];
    let rows = tally.rows();
    let missing: Vec<_> = rows
        .iter()
        .filter(|(name, count)| *count < tally.seeds / 100 && !never.contains(name))
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
    match run_all(seeds) {
        Ok(tally) => {
            for (name, count) in tally.rows() {
                println!("{name:<24} {count}");
            }
            if many {
                assert_all_met(&tally);
            }
        }
        Err(text) => panic!("{text}"),
    }
}

/// A failure can be looked at: the same seed is the same run.
#[test]
fn a_seed_is_always_the_same_run() {
    for seed in 1..20 {
        let first = run(seed).map(|tally| tally.rows());
        assert_eq!(first, run(seed).map(|tally| tally.rows()));
    }
}
