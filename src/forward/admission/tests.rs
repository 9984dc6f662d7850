//! The levels, and a queue under twice the load it can bear, in virtual time.

use std::collections::{BTreeMap, VecDeque};

use super::*;

const START_AT: Instant = Instant::from_nanos(1_000_000_000);

fn queue(queue: u8) -> Signals {
    Signals { queue, table: 0 }
}

/// Thousandths refused of 100,000 Call-IDs.
fn refused(admission: &Admission, class: Class) -> u64 {
    let calls = (0..100_000_u64).map(|n| CallIdHash(n.wrapping_mul(0x2545_f491_4f6c_dd1d)));
    calls.filter(|call| !admission.admits(class, *call)).count() as u64 / 100
}

#[test]
fn refusing_begins_at_one_fill_and_ends_at_a_lower_one() {
    let mut admission = Admission::new();
    let mut now = START_AT;
    for fill in [0, 5, 15, START - 1] {
        admission.update(queue(fill), now);
        assert_eq!(admission.level(), 0, "{fill}");
    }
    admission.update(queue(START), now);
    assert_eq!(admission.level(), 0, "a burst is no overload yet");
    now += PATIENCE;
    admission.update(queue(START - 1), now);
    admission.update(queue(START), now);
    assert_eq!(admission.level(), 0, "it was another burst");
    now += PATIENCE;
    admission.update(queue(START), now);
    assert_eq!(admission.level(), 200);
    now += Duration::from_secs(1);
    admission.update(queue(15), now);
    assert_eq!(admission.level(), 100, "begun, it goes on");
    now += Duration::from_secs(1);
    admission.update(queue(STOP - 1), now);
    assert_eq!(admission.level(), 0);
    now += Duration::from_secs(1);
    admission.update(queue(15), now);
    assert_eq!(admission.level(), 0, "and does not begin again there");
}

#[test]
fn the_share_grows_with_the_fill_and_what_is_begun_always_passes() {
    let mut admission = Admission::new();
    admission.update(queue(START), START_AT - PATIENCE);
    for (fill, expected) in [(20, 200), (35, 500), (50, 800), (60, 900), (100, 900)] {
        admission.update(queue(fill), START_AT);
        assert_eq!(admission.level(), expected);
        let calls = refused(&admission, Class::Call);
        assert!(calls.abs_diff(u64::from(expected)) <= 10, "{fill}: {calls}");
        let other = refused(&admission, Class::Other);
        let twice = u64::from(expected * 2).min(900);
        assert!(other.abs_diff(twice) <= 10, "{fill}: {other}");
        for class in [Class::Emergency, Class::Ongoing] {
            assert_eq!(refused(&admission, class), 0, "{class:?}");
        }
    }
}

#[test]
fn a_table_that_fills_counts_too() {
    let mut admission = Admission::new();
    for (table, expected) in [(79, 0), (80, 0), (90, 500), (100, 900)] {
        admission.update(Signals { queue: 0, table }, START_AT);
        assert_eq!(admission.level(), expected, "{table}");
    }
}

/// Whoever is refused at a level is refused at every higher one: as long as the level does not fall
/// a retransmission cannot slip in, and it falls by a tenth in 10 ms at most.
#[test]
fn the_level_rises_at_once_and_falls_slowly() {
    let mut admission = Admission::new();
    let mut now = START_AT;
    admission.update(queue(60), now);
    assert_eq!(admission.level(), 900);
    // However often it is asked.
    for _ in 0..100 {
        now += Duration::from_micros(50);
        admission.update(queue(0), now);
    }
    assert!(
        (840..=860).contains(&admission.level()),
        "{}",
        admission.level()
    );
    for _ in 0..1000 {
        now += Duration::from_micros(100);
        admission.update(queue(0), now);
    }
    assert_eq!(admission.level(), 0);
    let taken_at = |level| {
        let admission = Admission {
            level,
            ..Admission::new()
        };
        (0..1000_u64).filter(move |n| admission.admits(Class::Call, CallIdHash(n << 20)))
    };
    let low: Vec<u64> = taken_at(300).collect();
    assert!(taken_at(600).all(|call| low.contains(&call)));
}

// ---- a worker under load, in virtual time ----

/// Entries of the ring.
const RING: usize = 2048;
/// What a message costs, in nanoseconds: a complete call 25 µs (the budget of a call with a
/// transaction), an INVITE refused with its ACK 2 µs.
const INVITE: u64 = 8_500;
const LATER: u64 = 3_300;
const REFUSED: u64 = 1_500;
const REFUSED_ACK: u64 = 500;
/// 180, 200, ACK, BYE and its 200 follow the INVITE. Short calls: what the start admits more, while
/// nobody hangs up yet, is over soon.
const FOLLOWING: [u64; 5] = [5_000_000, 6_000_000, 8_000_000, 50_000_000, 55_000_000];
const CALL: u64 = INVITE + FOLLOWING.len() as u64 * LATER;

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Invite { tries: u32 },
    Later(usize),
    RefusedAck,
}

#[derive(Clone, Copy, Debug)]
struct Arrival {
    call: u64,
    sos: bool,
    what: What,
}

#[derive(Debug, Default)]
struct Outcome {
    complete: u64,
    refused: u64,
    lost_in_dialog: u64,
    in_dialog: u64,
    sos: u64,
    sos_refused: u64,
    fill_max: usize,
}

struct Model {
    admission: Option<Admission>,
    due: BTreeMap<(u64, u64), Arrival>,
    serial: u64,
    ring: VecDeque<Arrival>,
    answered: std::collections::HashSet<u64>,
    /// Calls that came after the start-up, and only they, are counted.
    counts_from: u64,
    outcome: Outcome,
}

impl Model {
    fn at(&mut self, time: u64, arrival: Arrival) {
        self.serial += 1;
        self.due.insert((time, self.serial), arrival);
    }

    fn enqueue(&mut self, time: u64, arrival: Arrival) {
        if let What::Invite { tries } = arrival.what {
            if self.answered.contains(&arrival.call) {
                return;
            }
            // Timer A: 500 ms, doubled; three times is as long as the model runs.
            if tries < 3 {
                let again = Arrival {
                    what: What::Invite { tries: tries + 1 },
                    ..arrival
                };
                self.at(time + (500_000_000 << tries), again);
            }
        }
        if let What::Later(_) = arrival.what {
            self.outcome.in_dialog += 1;
        }
        if self.ring.len() == RING {
            self.outcome.lost_in_dialog += u64::from(matches!(arrival.what, What::Later(_)));
            return;
        }
        self.ring.push_back(arrival);
        self.outcome.fill_max = self.outcome.fill_max.max(self.ring.len());
    }

    /// Serves one message at `time`, and returns what it cost.
    fn serve(&mut self, time: u64, arrival: Arrival) -> u64 {
        let counts = arrival.call >= self.counts_from;
        match arrival.what {
            What::RefusedAck => REFUSED_ACK,
            What::Later(step) => {
                if let Some(wait) = FOLLOWING.get(step + 1) {
                    let next = Arrival {
                        what: What::Later(step + 1),
                        ..arrival
                    };
                    self.at(time + wait - FOLLOWING[step], next);
                } else if counts {
                    self.outcome.complete += 1;
                }
                LATER
            }
            What::Invite { .. } if !self.answered.insert(arrival.call) => LATER,
            What::Invite { .. } => {
                let class = if arrival.sos {
                    Class::Emergency
                } else {
                    Class::Call
                };
                let call_id = CallIdHash(arrival.call.wrapping_mul(0x2545_f491_4f6c_dd1d));
                let admission = self.admission.as_ref();
                let taken = admission.is_none_or(|one| one.admits(class, call_id));
                self.outcome.sos += u64::from(arrival.sos && counts);
                if taken {
                    let first = Arrival {
                        what: What::Later(0),
                        ..arrival
                    };
                    self.at(time + FOLLOWING[0], first);
                    return INVITE;
                }
                self.outcome.refused += 1;
                self.outcome.sos_refused += u64::from(arrival.sos);
                let ack = Arrival {
                    what: What::RefusedAck,
                    ..arrival
                };
                self.at(time + 1_000_000, ack);
                REFUSED
            }
        }
    }
}

/// Offers `rate` calls a second for 3 s, one in a hundred an emergency, and tells what became of
/// those of the last 2 s that could end. Arrivals have the jitter of a hash.
fn offer(rate: u64, admission: Option<Admission>) -> Outcome {
    let mut model = Model {
        admission,
        due: BTreeMap::new(),
        serial: 0,
        ring: VecDeque::new(),
        answered: std::collections::HashSet::new(),
        counts_from: 0,
        outcome: Outcome::default(),
    };
    const SECOND: u64 = 1_000_000_000;
    for call in 0..3 * rate {
        let jitter = call.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
        let arrival = Arrival {
            call,
            sos: call % 100 == 0,
            what: What::Invite { tries: 0 },
        };
        model.at(call * SECOND / rate + jitter, arrival);
    }
    let mut time = 0;
    let end = 3 * SECOND;
    let mut complete_at_start = 0;
    while time < end {
        while let Some(entry) = model.due.first_entry() {
            if entry.key().0 > time {
                break;
            }
            let ((due, _), arrival) = entry.remove_entry();
            model.enqueue(due, arrival);
        }
        // Once a batch, as the worker does.
        let fill = u8::try_from(100 * model.ring.len() / RING).unwrap();
        if let Some(admission) = &mut model.admission {
            admission.update(queue(fill), START_AT + Duration::from_nanos(time));
        }
        let mut worked = 0;
        for _ in 0..64 {
            let Some(arrival) = model.ring.pop_front() else {
                break;
            };
            worked += model.serve(time + worked, arrival);
        }
        if time < SECOND && time + worked.max(1000) >= SECOND {
            complete_at_start = model.outcome.complete;
        }
        time += worked.max(1_000);
    }
    model.outcome.complete -= complete_at_start;
    model.outcome
}

/// Two seconds at twice what the worker can do.
#[test]
fn at_twice_the_capacity_nine_tenths_of_it_are_served_and_no_emergency_is_refused() {
    let capacity = 1_000_000_000 / CALL;
    let outcome = offer(2 * capacity, Some(Admission::new()));
    let goodput = outcome.complete as f64 / (2 * capacity) as f64;
    assert!(goodput >= 0.9, "{goodput:.3} of capacity: {outcome:?}");
    assert_eq!(outcome.sos_refused, 0);
    assert!(outcome.sos > 1000, "{outcome:?}");
    let lost = outcome.lost_in_dialog as f64 / outcome.in_dialog as f64;
    assert!(lost <= 0.001, "{outcome:?}");
    assert!(outcome.fill_max < RING, "the ring was full: {outcome:?}");
    assert!(outcome.refused > 0);
}

/// What the model would say if nothing were refused: the test above can fail.
#[test]
fn without_admission_the_ring_fills_and_calls_break() {
    let capacity = 1_000_000_000 / CALL;
    let outcome = offer(2 * capacity, None);
    assert_eq!(outcome.fill_max, RING);
    let lost = outcome.lost_in_dialog as f64 / outcome.in_dialog as f64;
    assert!(lost > 0.1, "{outcome:?}");
    let goodput = outcome.complete as f64 / (2 * capacity) as f64;
    assert!(goodput < 0.8, "{goodput:.3}");
}

#[test]
fn below_the_capacity_nothing_is_refused() {
    let capacity = 1_000_000_000 / CALL;
    let outcome = offer(capacity * 9 / 10, Some(Admission::new()));
    assert_eq!(outcome.refused, 0, "{outcome:?}");
    assert_eq!(outcome.lost_in_dialog, 0);
}
