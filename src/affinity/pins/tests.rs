//! Tests of the pin table: lives, evictions, and threads that hammer one bucket.

use std::sync::Barrier;
use std::thread;

use proptest::prelude::*;

use super::*;

const NOW: Instant = Instant::from_nanos(1 << 40);
const TICK: Duration = Duration::from_nanos(1 << TICK_SHIFT);

const INVITE: Transaction = Transaction {
    invite: true,
    cseq: 1,
};
const OPTIONS: Transaction = Transaction {
    invite: false,
    cseq: 1,
};

fn new(server: u16, transaction: Transaction) -> NewPin {
    NewPin {
        server: ServerIndex(server),
        mode: Mode::Stateless,
        transaction,
    }
}

fn invite(server: u16) -> NewPin {
    new(server, INVITE)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The server of a Call-ID's pin.
fn server(pins: &Pins, call_id: u64, now: Instant) -> Option<u16> {
    pins.find(CallIdHash(call_id), now).map(|pin| pin.server.0)
}

/// Asserts that a pin lives for `life` from `now`, and two ticks later does not.
#[track_caller]
fn assert_life(pins: &Pins, call_id: u64, now: Instant, life: Duration) {
    assert!(server(pins, call_id, now + life).is_some(), "too short");
    assert!(
        server(pins, call_id, now + life + TICK + TICK).is_none(),
        "too long"
    );
}

#[test]
fn the_first_server_of_a_call_id_holds() {
    let pins = Pins::new(64);
    let call_id = CallIdHash(7);
    assert_eq!(pins.find(call_id, NOW), None);
    assert_eq!(pins.renew(call_id, INVITE, NOW), None);
    let stateful = NewPin {
        mode: Mode::Stateful,
        ..invite(1)
    };
    assert_eq!(
        pins.insert(call_id, stateful, NOW).outcome,
        PinOutcome::Made
    );
    let second = pins.insert(call_id, invite(2), NOW);
    assert_eq!(second.outcome, PinOutcome::Existing);
    assert_eq!(second.pin.server, ServerIndex(1));
    assert_eq!(second.pin.mode, Mode::Stateful);
    assert_eq!(pins.find(call_id, NOW), Some(second.pin));
    assert_eq!(server(&pins, 8, NOW), None);
}

#[test]
fn every_hash_and_every_server_can_be_pinned() {
    let pins = Pins::new(1 << 12);
    for (call_id, slot) in [(0, 0), (u64::MAX, u16::MAX), (1 << 32, 1), (1, 4095)] {
        assert_eq!(server(&pins, call_id, NOW), None);
        pins.insert(CallIdHash(call_id), invite(slot), NOW);
        assert_eq!(server(&pins, call_id, NOW), Some(slot));
    }
}

#[test]
fn a_pin_takes_sixteen_bytes() {
    for (asked, given) in [(0, 8), (1, 8), (8, 8), (9, 16), (1 << 16, 1 << 16)] {
        let pins = Pins::new(asked);
        assert_eq!(pins.capacity(), given);
        assert_eq!(size_of_val(&*pins.buckets), given * 16);
        assert_eq!(align_of_val(&*pins.buckets), 128);
    }
}

/// A worker's calls lie together, so that no line is written by two workers.
#[test]
fn home_workers_write_in_regions_of_their_own() {
    let pins = Pins::new(1 << 12);
    let mut regions = [(usize::MAX, 0); 4];
    for number in 0..10_000u64 {
        let call_id = CallIdHash(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let place = core::ptr::from_ref(pins.bucket(call_id)).addr();
        let worker = super::super::home_worker(call_id, 4);
        let (low, high) = &mut regions[usize::from(worker.0)];
        *low = place.min(*low);
        *high = place.max(*high);
    }
    assert!(regions.windows(2).all(|pair| pair[0].1 < pair[1].0));
}

// ---- lives --------------------------------------------------------------------------------------

/// Trap 4: an unanswered INVITE is pinned until Timer C, another request for 64·T1.
#[test]
fn a32_pin_of_an_invite_lives_until_timer_c_and_others_64_t1() {
    let pins = Pins::new(64);
    pins.insert(CallIdHash(1), invite(1), NOW);
    assert_life(&pins, 1, NOW, TIMER_C);
    pins.insert(CallIdHash(2), new(1, OPTIONS), NOW);
    assert_life(&pins, 2, NOW, T1_64);
}

/// RFC 3261 §16.7 step 2: 101 to 199 reset Timer C, 100 does not.
#[test]
fn a32_ringing_keeps_the_pin_and_100_does_not() {
    let pins = Pins::new(64);
    let call_id = CallIdHash(1);
    pins.insert(call_id, invite(1), NOW);
    pins.on_response(call_id, INVITE, 100, NOW + seconds(100));
    assert_life(&pins, 1, NOW, TIMER_C);
    let mut now = NOW;
    for status in [101, 180, 199] {
        now += seconds(180);
        pins.on_response(call_id, INVITE, status, now);
        assert_life(&pins, 1, now, TIMER_C);
    }
}

/// After the final response 64·T1 remain, for ACK and retransmissions; nothing late brings the
/// pin back to a longer life.
#[test]
fn a32_final_response_leaves_64_t1() {
    for status in [200, 302, 401, 486, 503, 699] {
        let pins = Pins::new(64);
        let call_id = CallIdHash(1);
        pins.insert(call_id, invite(1), NOW);
        let now = NOW + seconds(10);
        pins.on_response(call_id, INVITE, 180, now);
        pins.on_response(call_id, INVITE, status, now);
        assert_life(&pins, 1, now, T1_64);
        for late in [100, 180, status] {
            pins.on_response(call_id, INVITE, late, now + seconds(20));
        }
        assert_life(&pins, 1, now, T1_64);
        // A retransmission either.
        pins.renew(call_id, INVITE, now + seconds(20));
        assert_life(&pins, 1, now, T1_64);
    }
}

/// The 200 of a CANCEL or a PRACK, and a late answer to an earlier try, end no INVITE.
#[test]
fn a32_responses_of_other_transactions_change_nothing() {
    let pins = Pins::new(64);
    let call_id = CallIdHash(1);
    let second = Transaction {
        invite: true,
        cseq: 2,
    };
    pins.insert(call_id, new(1, second), NOW);
    let now = NOW + seconds(50);
    let cancel = Transaction {
        invite: false,
        cseq: 2,
    };
    pins.on_response(call_id, cancel, 200, now);
    pins.on_response(call_id, INVITE, 401, now);
    assert_life(&pins, 1, NOW, TIMER_C);
    // Nor does a response make a pin.
    pins.on_response(CallIdHash(2), INVITE, 180, now);
    assert_eq!(server(&pins, 2, now), None);
}

/// RFC 3261 §8.1.3.5: the authenticated retry has the Call-ID and a new CSeq, and goes where the
/// challenge came from.
#[test]
fn a32_authenticated_retry_stays_and_lives_anew() {
    let pins = Pins::new(64);
    let call_id = CallIdHash(1);
    pins.insert(call_id, invite(1), NOW);
    pins.on_response(call_id, INVITE, 401, NOW);
    let now = NOW + seconds(5);
    let retry = Transaction {
        invite: true,
        cseq: 2,
    };
    let pin = pins.renew(call_id, retry, now).unwrap();
    assert_eq!(pin.server, ServerIndex(1));
    // As it was found: the retry is another transaction than the pin's.
    assert!(pin.is_of(1) && !pin.is_of(2));
    assert_life(&pins, 1, now, TIMER_C);
    assert!(pins.find(call_id, now).unwrap().is_of(2));
    pins.on_response(call_id, retry, 200, now);
    assert_life(&pins, 1, now, T1_64);
}

#[test]
fn a32_other_requests_do_not_disturb_a_ringing_invite() {
    let pins = Pins::new(64);
    let call_id = CallIdHash(1);
    pins.insert(call_id, invite(1), NOW);
    pins.on_response(call_id, INVITE, 180, NOW);
    let update = Transaction {
        invite: false,
        cseq: 2,
    };
    pins.renew(call_id, update, NOW + seconds(1));
    pins.on_response(call_id, update, 200, NOW + seconds(1));
    assert_life(&pins, 1, NOW, TIMER_C);
    assert_eq!(pins.usage(NOW).proceeding, 1);
    // Near the end of its life the pin gets the 64·T1 of the other request.
    let late = NOW + seconds(180);
    let info = Transaction {
        invite: false,
        cseq: 3,
    };
    pins.renew(call_id, info, late);
    assert_life(&pins, 1, late, T1_64);
}

#[test]
fn only_a_pin_that_is_there_moves() {
    let pins = Pins::new(64);
    let call_id = CallIdHash(1);
    let retry = Transaction {
        invite: true,
        cseq: 2,
    };
    pins.repin(call_id, invite(2), NOW);
    assert_eq!(pins.find(call_id, NOW), None);
    pins.insert(call_id, invite(1), NOW);
    pins.repin(call_id, new(2, retry), NOW);
    assert_eq!(server(&pins, 1, NOW), Some(2));
    assert!(pins.find(call_id, NOW).unwrap().is_of(retry.cseq));
}

/// The coarse ticks wrap every 3.2 days; pins live across it, and what has expired stays expired.
#[test]
fn lives_hold_across_the_wrap_of_the_ticks() {
    let period = 1u64 << (TICK_SHIFT + TICK_BITS);
    for before in [0, 1, 40, 185, 186] {
        let now = Instant::from_nanos(2 * period) - seconds(before);
        let pins = Pins::new(64);
        pins.insert(CallIdHash(1), invite(1), now);
        assert_life(&pins, 1, now, TIMER_C);
        // Every minute but those at the end of a period, when the ticks are those of its life.
        for minute in 4..period / 60_000_000_000 - 10 {
            assert_eq!(server(&pins, 1, now + seconds(60 * minute)), None);
        }
    }
}

/// Workers read the clock at their own time: one that is behind still finds the pin.
#[test]
fn a_worker_whose_clock_is_behind_finds_the_pin() {
    let pins = Pins::new(64);
    pins.insert(CallIdHash(1), invite(1), NOW);
    assert_eq!(server(&pins, 1, NOW - seconds(5)), Some(1));
}

// ---- full buckets -------------------------------------------------------------------------------

/// A table of one bucket.
fn bucket() -> Pins {
    Pins::new(WAYS)
}

/// Fills a bucket with Call-IDs 0 to 7, a second apart, each at the server of its number.
fn fill(pins: &Pins, status: Option<u16>) -> Instant {
    let mut now = NOW;
    for call_id in 0..8 {
        let server = u16::try_from(call_id).unwrap_or(u16::MAX);
        pins.insert(CallIdHash(call_id), invite(server), now);
        if let Some(status) = status {
            pins.on_response(CallIdHash(call_id), INVITE, status, now);
        }
        now += seconds(1);
    }
    now
}

#[test]
fn the_oldest_unanswered_pin_goes_first() {
    let pins = bucket();
    let now = fill(&pins, None);
    pins.on_response(CallIdHash(0), INVITE, 180, now);
    pins.on_response(CallIdHash(1), INVITE, 486, now);
    for (new, old) in [(10, 2), (11, 3), (12, 4)] {
        let insertion = pins.insert(CallIdHash(new), invite(9), now);
        assert_eq!(insertion.outcome, PinOutcome::Evicted);
        assert_eq!(server(&pins, old, now), None);
        assert_eq!(server(&pins, new, now), Some(9));
    }
    let usage = PinUsage {
        unanswered: 6,
        proceeding: 1,
        finished: 1,
    };
    assert_eq!(pins.usage(now), usage);
}

#[test]
fn expired_pins_go_before_all_others() {
    let pins = bucket();
    let now = fill(&pins, Some(180));
    // Number 5 alone is at its end.
    pins.on_response(CallIdHash(5), INVITE, 200, now);
    let now = now + T1_64 + TICK + TICK;
    let insertion = pins.insert(CallIdHash(10), invite(9), now);
    assert_eq!(insertion.outcome, PinOutcome::Made);
    for call_id in (0..8).filter(|call_id| *call_id != 5) {
        assert!(server(&pins, call_id, now).is_some());
    }
}

#[test]
fn finished_pins_go_oldest_first_when_none_is_unanswered() {
    let pins = bucket();
    let now = fill(&pins, Some(180));
    pins.on_response(CallIdHash(6), INVITE, 200, now);
    pins.on_response(CallIdHash(3), INVITE, 200, now + seconds(1));
    let now = now + seconds(2);
    pins.insert(CallIdHash(10), invite(9), now);
    pins.on_response(CallIdHash(10), INVITE, 180, now);
    assert_eq!(server(&pins, 6, now), None);
    pins.insert(CallIdHash(11), invite(9), now);
    assert_eq!(server(&pins, 3, now), None);
}

/// The place of a full bucket that a flood gets is one: its own pins fight for it.
#[test]
fn a_flood_of_unanswered_requests_takes_one_place_of_a_full_bucket() {
    let pins = bucket();
    let now = fill(&pins, Some(200));
    for call_id in 1_000..2_000 {
        let insertion = pins.insert(CallIdHash(call_id), invite(9), now);
        assert_eq!(insertion.outcome, PinOutcome::Evicted);
    }
    let left = (0..8).filter(|call_id| server(&pins, *call_id, now).is_some());
    assert_eq!(left.count(), 7);
}

#[test]
fn pins_that_wait_for_a_final_response_never_go() {
    let pins = bucket();
    let now = fill(&pins, Some(180));
    for call_id in 1_000..2_000 {
        let insertion = pins.insert(CallIdHash(call_id), invite(9), now);
        assert_eq!(insertion.outcome, PinOutcome::Refused);
        assert_eq!(insertion.pin.server, ServerIndex(9));
        assert_eq!(server(&pins, call_id, now), None);
    }
    for call_id in 0..8 {
        assert_eq!(server(&pins, call_id, now).map(u64::from), Some(call_id));
    }
}

/// Well-mixed numbers (`SplitMix64`), as the keyed hash of Call-IDs is.
fn hash(number: u64) -> CallIdHash {
    let x = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    CallIdHash(x ^ (x >> 31))
}

/// A table half full of ringing calls, and a spoofed flood ten times its size between them: no
/// ringing call is lost, and new calls that are answered stay too.
#[test]
fn a32_spoofed_flood_does_not_push_out_the_real_ones() {
    let pins = Pins::new(1 << 12);
    let real = |number| invite(u16::try_from(number % 100).unwrap());
    let mut kept = Vec::new();
    let mut refused = 0;
    for number in 0..1 << 11 {
        let call_id = hash(number);
        match pins.insert(call_id, real(number), NOW).outcome {
            PinOutcome::Refused => refused += 1,
            _ => kept.push(number),
        }
        pins.on_response(call_id, INVITE, 180, NOW);
        for spoofed in 0..20 {
            let call_id = hash(1_000_000 + number * 20 + spoofed);
            pins.insert(call_id, invite(999), NOW + seconds(1));
        }
    }
    // Half full, eight to a bucket: Poisson says that about 1 in 100 finds its bucket taken.
    assert!(refused < 50, "{refused}");
    for number in kept {
        let pin = pins.find(hash(number), NOW + seconds(2)).unwrap();
        assert_eq!(u64::from(pin.server.0), number % 100);
    }
}

// ---- threads ------------------------------------------------------------------------------------

/// All workers that pin one Call-ID at once get one server.
#[test]
fn a32_concurrent_insertions_of_one_call_id_agree() {
    const THREADS: u16 = 4;
    const ROUNDS: u64 = 5_000;
    let pins = bucket();
    let barrier = Barrier::new(usize::from(THREADS));
    let servers: Vec<Vec<u16>> = thread::scope(|scope| {
        let run = |thread| {
            let (pins, barrier) = (&pins, &barrier);
            move || {
                let mut servers = Vec::new();
                for round in 0..ROUNDS {
                    barrier.wait();
                    let insertion = pins.insert(hash(round), invite(thread), NOW);
                    assert_ne!(insertion.outcome, PinOutcome::Refused);
                    servers.push(insertion.pin.server.0);
                }
                servers
            }
        };
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(run(thread)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for round in 0..usize::try_from(ROUNDS).unwrap() {
        assert!(
            servers
                .iter()
                .all(|of_thread| of_thread[round] == servers[0][round])
        );
    }
}

/// Whatever is found for a Call-ID is the server that belongs to it, while eight slots change
/// their keys all the time under readers and writers.
#[test]
fn readers_never_get_the_server_of_another_call_id() {
    const KEYS: u64 = 24;
    let pins = bucket();
    let of = |number: u64| u16::try_from(number * 7 + 1).unwrap();
    let found: u64 = thread::scope(|scope| {
        let run = |thread: u64| {
            let pins = &pins;
            move || {
                let mut found = 0;
                for step in 0..100_000u64 {
                    let number = hash(step ^ (thread << 32)).0 % KEYS;
                    let call_id = hash(number);
                    let pin = match step % 4 {
                        0 => Some(pins.insert(call_id, invite(of(number)), NOW).pin),
                        1 => pins.renew(call_id, INVITE, NOW),
                        2 => {
                            let status = [100, 200, 486][usize::try_from(step / 4 % 3).unwrap()];
                            pins.on_response(call_id, INVITE, status, NOW);
                            None
                        }
                        _ => pins.find(call_id, NOW),
                    };
                    if let Some(pin) = pin {
                        assert_eq!(pin.server.0, of(number));
                        found += 1;
                    }
                }
                found
            }
        };
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(run(thread))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert!(found > 100_000, "{found}");
}

// ---- properties ---------------------------------------------------------------------------------

proptest! {
    /// Against a map that never forgets: what the table finds is what was pinned first.
    #[test]
    fn the_table_agrees_with_a_map(steps in prop::collection::vec((0..40u64, 0..5u8, 0..60u64), 1..300)) {
        let pins = Pins::new(16);
        let mut first = std::collections::HashMap::new();
        let mut now = NOW;
        for (index, (number, what, pause)) in steps.into_iter().enumerate() {
            now += Duration::from_millis(pause * 500);
            let call_id = hash(number);
            let known = pins.find(call_id, now).map(|pin| pin.server.0);
            if let Some(server) = known {
                prop_assert_eq!(first.get(&number), Some(&server));
            }
            match what {
                0 => pins.on_response(call_id, INVITE, 180, now),
                1 => pins.on_response(call_id, INVITE, 200, now),
                2 => prop_assert_eq!(pins.renew(call_id, INVITE, now).map(|pin| pin.server.0), known),
                _ => {
                    let server = u16::try_from(index).unwrap();
                    let insertion = pins.insert(call_id, invite(server), now);
                    prop_assert_eq!(insertion.outcome == PinOutcome::Existing, known.is_some());
                    if known.is_none() {
                        first.insert(number, server);
                    }
                    prop_assert_eq!(Some(&insertion.pin.server.0), first.get(&number));
                }
            }
        }
    }
}
