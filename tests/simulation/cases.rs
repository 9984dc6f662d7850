//! Calls of a certain kind on a network without faults: what the seeds meet by chance, met for sure.

use std::time::Duration;

use crate::client::{End, Phase};
use crate::network::Faults;
use crate::scenario::{CallPlan, Change, Farm, Illness, Manner, SERVERS, Scenario};
use crate::tally::Tally;
use crate::world::World;

const CALLS: usize = 24;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn farm(servers: usize) -> Farm {
    let mut weights = [None; SERVERS];
    weights[..servers].fill(Some(1));
    Farm {
        weights,
        stateful: true,
        hunting: true,
        reach: "destination",
        down: 0,
        two_armed: false,
    }
}

/// Calls a second apart that are all treated alike.
fn scenario(manner: Manner, workers: u8) -> Scenario {
    let network = Faults {
        delay_ms: 3,
        ..Faults::default()
    };
    let call = |number: usize| CallPlan {
        start: Duration::from_millis(1000 * number as u64),
        patience: None,
        hold: seconds(5),
        server_hangs_up: number.is_multiple_of(2),
        reinvites: false,
        manners: [manner; SERVERS],
        trying: true,
        rings_after: Some(Duration::from_millis(300)),
        answers_after: seconds(2),
        rings_for: seconds(2000),
    };
    Scenario {
        seed: u64::from(workers),
        workers,
        farm: farm(3),
        clients: network,
        servers: network,
        rings_full: 0,
        changes: Vec::new(),
        calls: (0..CALLS).map(call).collect(),
    }
}

/// Runs it; every call must come to this end.
#[track_caller]
fn ends(scenario: &Scenario, end: End) -> Tally {
    let tally = match crate::run_scenario(scenario) {
        Ok(tally) => tally,
        Err(failure) => panic!("{}", failure.report),
    };
    let mut world = World::new(scenario.clone(), Some(0));
    world.run().expect("it ran a moment ago");
    let phases = world.phases();
    let wrong = phases.iter().find(|phase| **phase != Phase::Ended(end));
    assert!(
        wrong.is_none(),
        "{wrong:?} instead of {end:?}\n{}",
        world.trace().join("\n")
    );
    tally
}

/// RFC 3261 §9.2, §16.10: a quarter of an hour later, and whatever became of the farm meanwhile, the
/// CANCEL ends the INVITE at the server that rings, and the caller hears of it.
#[test]
fn ringing_a_quarter_of_an_hour_then_cancel() {
    for workers in [1, 2, 4] {
        for stateful in [false, true] {
            let mut scenario = scenario(Manner::Rings, workers);
            scenario.farm.stateful = stateful;
            for call in &mut scenario.calls {
                call.patience = Some(seconds(900));
            }
            let mut farm = scenario.farm;
            for (minute, server) in [(3, 0), (6, 1), (9, 2)] {
                farm.weights = [Some(1); SERVERS];
                farm.weights[server] = if minute == 6 { Some(0) } else { None };
                let change = Change::Reload(farm);
                scenario.changes.push((seconds(60 * minute), change));
            }
            let tally = ends(&scenario, End::Refused(487));
            assert_eq!(tally.cancelled, CALLS as u64);
            assert_eq!(tally.timer_c, 0, "each 180 sets Timer C anew");
        }
    }
}

/// RFC 3261 §16.8: a server that has rung and then says nothing, not even to the CANCEL, is waited
/// for no longer than Timer C and 64·T1.
#[test]
fn timer_c_ends_a_call_whose_server_has_died() {
    let scenario = scenario(Manner::RingsThenDead, 2);
    let tally = ends(&scenario, End::Refused(408));
    assert_eq!(tally.timer_c, CALLS as u64);
}

/// RFC 3261 §16.8: a server that only said 100 counts as one that has answered: it is cancelled.
#[test]
fn timer_c_cancels_a_server_that_only_said_100() {
    let scenario = scenario(Manner::OnlyTrying, 2);
    let tally = ends(&scenario, End::Refused(487));
    assert_eq!((tally.timer_c, tally.hunts), (CALLS as u64, 0));
}

/// One server of three has this manner, the others answer.
fn one_of_three(manner: Manner) -> Scenario {
    let mut scenario = scenario(Manner::Answers, 3);
    for call in &mut scenario.calls {
        call.manners[1] = manner;
    }
    scenario
}

#[test]
fn a_silent_server_is_passed_over() {
    let tally = ends(&one_of_three(Manner::Silent), End::Answered);
    assert!(tally.hunts > 0);
}

#[test]
fn a_server_that_is_full_is_passed_over() {
    let tally = ends(&one_of_three(Manner::Refuses(503)), End::Answered);
    assert!(tally.hunts > 0);
}

/// RFC 3261 §16.7 step 6: a 503 would tell the caller to avoid the whole farm.
#[test]
fn when_all_are_full_the_caller_hears_500() {
    ends(&scenario(Manner::Refuses(503), 2), End::Refused(500));
}

/// RFC 3261 §16.7 step 5: a challenge, a redirection, a refusal and a 6xx are the caller's affair.
#[test]
fn other_refusals_move_no_call() {
    for status in [302, 404, 486, 500, 600, 603] {
        let tally = ends(&scenario(Manner::Refuses(status), 2), End::Refused(status));
        assert_eq!(tally.hunts, 0);
    }
}

#[test]
fn a_server_that_is_not_there_is_passed_over_at_once() {
    let mut scenario = scenario(Manner::Answers, 3);
    let falls = Change::Falls(0, Illness::Refusing);
    scenario.changes.push((Duration::ZERO, falls));
    let tally = ends(&scenario, End::Answered);
    assert!(tally.hunts > 0 && tally.unreachables > 0);
}

/// The servers that were given up ring after all: they are told to stop.
#[test]
fn who_rings_too_late_is_cancelled() {
    let tally = ends(&one_of_three(Manner::LateRinging), End::Answered);
    assert!(tally.abandoned_cancelled > 0);
}

/// RFC 3261 §16.7 step 5: every 2xx is forwarded, also that of a server that was given up; the
/// caller ends the second call.
#[test]
fn who_answers_too_late_is_heard() {
    let tally = ends(&one_of_three(Manner::LateAnswer), End::Answered);
    assert!(tally.abandoned_answered > 0);
}

/// Nobody says a word: the caller hears that, and not later than its own Timer B.
#[test]
fn when_all_are_silent_the_caller_hears_408() {
    ends(&scenario(Manner::Silent, 2), End::Refused(408));
}

/// RFC 3261 §16.10: who has hung up is not connected to yet another server.
#[test]
fn a_cancel_stops_the_hunting() {
    let mut scenario = scenario(Manner::Silent, 2);
    for call in &mut scenario.calls {
        call.patience = Some(seconds(1));
    }
    let tally = ends(&scenario, End::Refused(487));
    assert_eq!(tally.hunts, 0);
}

/// RFC 3261 §16.7 step 5, §22.1: who asked for the password gets it, although the farm changes
/// between the two INVITEs.
#[test]
fn the_password_goes_to_who_asked_for_it() {
    for stateful in [false, true] {
        let mut scenario = scenario(Manner::Challenges(407), 3);
        scenario.farm.stateful = stateful;
        let mut farm = scenario.farm;
        for half in 0..2 * CALLS {
            farm.weights = [Some(1); SERVERS];
            farm.weights[half % SERVERS] = None;
            let at = Duration::from_millis(500 * half as u64 + 5);
            scenario.changes.push((at, Change::Reload(farm)));
        }
        let tally = ends(&scenario, End::Answered);
        assert_eq!(tally.challenged, CALLS as u64);
    }
}

/// With hunting off a call has one server, whatever it does.
#[test]
fn without_hunting_a_silent_server_keeps_its_calls() {
    let mut scenario = scenario(Manner::Silent, 2);
    scenario.farm.hunting = false;
    let tally = ends(&scenario, End::Refused(408));
    assert_eq!(tally.hunts, 0);
}
