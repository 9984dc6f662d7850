//! Leases against a model that keeps every call in a list, with lost BYEs, and when full.

use std::collections::HashMap;

use super::*;

const MAX: Duration = Duration::from_secs(14_400);

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn leases(capacity: usize) -> (Arc<Board>, CallLeases) {
    let board = Arc::new(Board::new());
    (Arc::clone(&board), CallLeases::new(capacity, board))
}

/// Numbers that look random and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0) % bound
    }
}

#[test]
fn a_call_counts_until_its_bye() {
    let (board, mut calls) = leases(10);
    let (call, server) = (CallIdHash(1), ServerIndex(3));
    calls.opened(call, server, at(10), None, MAX);
    calls.opened(call, server, at(11), None, MAX);
    assert_eq!((board.load(server).calls, calls.len()), (1, 1));
    assert_eq!(calls.server(call), Some(server));
    // Another branch of a forked INVITE answered too.
    calls.opened(call, ServerIndex(4), at(12), None, MAX);
    assert_eq!(board.load(server).calls, 0);
    assert_eq!(calls.ended(call), Some(ServerIndex(4)));
    assert_eq!(calls.ended(call), None);
    assert_eq!(board.load(ServerIndex(4)).calls, 0);
    assert!(calls.is_empty() && calls.next_deadline().is_none());
}

#[test]
fn a_lease_lasts_twice_its_session_and_from_each_sign_of_life() {
    let (board, mut calls) = leases(10);
    let [timer, none] = [CallIdHash(1), CallIdHash(2)];
    let server = ServerIndex(0);
    calls.opened(timer, server, at(1000), Some(600), MAX);
    calls.opened(none, server, at(1000), None, MAX);
    calls.expire(at(2199));
    assert_eq!(board.load(server).calls, 2);
    calls.refreshed(timer, at(2199), None);
    calls.expire(at(3398));
    assert_eq!(board.load(server).calls, 2);
    // A shorter interval counts from its refresh on; below the RFC's minimum none counts.
    calls.refreshed(timer, at(3398), Some(1));
    calls.expire(at(3398 + 179));
    assert_eq!(board.load(server).calls, 2);
    calls.expire(at(3398 + 180 + 2 * TICK));
    assert_eq!((board.load(server).calls, calls.expired()), (1, 1));
    assert_eq!(calls.server(none), Some(server));
    // The wheel has gone round before this one ends.
    calls.refreshed(none, at(4000), Some(u32::MAX));
    calls.expire(at(4000 + 7 * 86_400 - 1));
    assert_eq!(board.load(server).calls, 1);
    while calls.expire(at(4000 + 7 * 86_400 + 2 * TICK)) > 0 {}
    assert_eq!(board.load(server).calls, 0);
    calls.refreshed(none, at(1), None);
    assert!(calls.is_empty());
}

#[test]
fn leases_are_what_a_list_of_calls_says() {
    let (board, mut calls) = leases(4096);
    let mut model: HashMap<u64, (ServerIndex, u64, u64)> = HashMap::new();
    let mut numbers = Numbers(1);
    let mut now = 5_000_000;
    for step in 0..200_000_u64 {
        now += numbers.below(4);
        // At times nobody asks for hours.
        if step % 20_000 == 19_999 {
            now += numbers.below(100_000);
        }
        let call = numbers.below(3000);
        let server = ServerIndex(u16::try_from(numbers.below(5)).unwrap());
        let session = (numbers.below(2) == 0).then(|| 90 + numbers.below(1800));
        let expires = session.map(|seconds| u32::try_from(seconds).unwrap());
        match numbers.below(4) {
            0 => {
                let length = session.map_or(MAX.as_secs(), |seconds| 2 * seconds);
                calls.opened(CallIdHash(call), server, at(now), expires, MAX);
                model.insert(call, (server, now + length, length));
            }
            1 => {
                calls.refreshed(CallIdHash(call), at(now), expires);
                if let Some((_, ends, length)) = model.get_mut(&call) {
                    *length = session.map_or(*length, |seconds| 2 * seconds);
                    *ends = now + *length;
                }
            }
            2 => {
                let ended = calls.ended(CallIdHash(call));
                assert_eq!(ended, model.remove(&call).map(|(server, ..)| server));
            }
            _ => {}
        }
        while calls.expire(at(now)) > 0 || calls.next_deadline().is_some_and(|due| due <= at(now)) {
        }
        // The model ends what the wheel has: up to two ticks late, and never early.
        model.retain(|call, (_, ends, _)| {
            let there = calls.server(CallIdHash(*call)).is_some();
            assert!(there || *ends <= now, "{call} ended early");
            assert!(!there || *ends + 2 * TICK > now, "{call} is late");
            there
        });
        assert_eq!(calls.len(), model.len());
    }
    for server in 0..5 {
        let expected = model.values().filter(|(of, ..)| of.0 == server).count();
        assert_eq!(board.load(ServerIndex(server)).calls as usize, expected);
    }
    while !calls.is_empty() {
        calls.expire(at(now + 20_000));
    }
    assert!((0..5).all(|server| board.load(ServerIndex(server)).calls == 0));
}

/// 10 % of the BYEs are never seen: counts follow the calls that stand and return to zero.
#[test]
fn with_lost_byes_counts_return_to_zero() {
    for session in [Some(1800), None] {
        let (board, mut calls) = leases(100_000);
        let mut numbers = Numbers(2);
        let mut ends: Vec<Vec<u64>> = vec![Vec::new(); 40_000];
        let (mut standing, mut lost) = (0_u32, 0_u64);
        // A call a second for five hours, two minutes each on average.
        for now in 0..40_000_u64 {
            if now < 18_000 {
                let server = ServerIndex(u16::try_from(now % 3).unwrap());
                calls.opened(CallIdHash(now), server, at(now), session, MAX);
                ends[usize::try_from(now + 1 + numbers.below(240)).unwrap()].push(now);
                standing += 1;
            }
            for call in &ends[usize::try_from(now).unwrap()] {
                standing -= 1;
                if numbers.below(10) == 0 {
                    lost += 1;
                } else {
                    assert!(calls.ended(CallIdHash(*call)).is_some());
                }
            }
            calls.expire(at(now));
            let counted: u32 = (0..3)
                .map(|server| board.load(ServerIndex(server)).calls)
                .sum();
            assert!(counted >= standing, "a call that stands is counted");
            // What is lost stays for one lease at most: a call in ten of the last hour, or four.
            let kept = session.map_or(14_400, |seconds| 2 * seconds) / 10;
            assert!(counted <= standing + kept * 12 / 10 + 60, "{now} {counted}");
        }
        assert_eq!(standing, 0);
        assert!(lost > 1_600, "{lost}");
        assert_eq!(calls.expired(), lost);
        let loads = (0..3).map(|server| board.load(ServerIndex(server)).calls);
        assert_eq!(loads.sum::<u32>(), 0);
        assert!(calls.is_empty());
    }
}

#[test]
fn when_full_the_lease_that_would_end_first_goes() {
    let (board, mut calls) = leases(100);
    let server = ServerIndex(0);
    for call in 0..100_u64 {
        let session = u32::try_from(1000 + 10 * call).unwrap();
        calls.opened(CallIdHash(call), server, at(0), Some(session), MAX);
    }
    calls.refreshed(CallIdHash(0), at(1000), None);
    calls.opened(CallIdHash(100), ServerIndex(1), at(1000), None, MAX);
    assert_eq!((calls.len(), calls.evicted()), (100, 1));
    assert_eq!(board.load(server).calls, 99);
    assert_eq!(board.load(ServerIndex(1)).calls, 1);
    assert_eq!(calls.server(CallIdHash(1)), None);
    assert!(
        [0, 2, 100]
            .iter()
            .all(|call| calls.server(CallIdHash(*call)).is_some())
    );
    // Through the whole table and again: nothing is lost of it.
    for call in 1000..3000 {
        let now = at(1001 + (call - 1000) * TICK);
        calls.expire(now);
        calls.opened(CallIdHash(call), server, now, None, MAX);
        assert_eq!(calls.len(), 100);
    }
    for call in 2900..3000 {
        assert_eq!(calls.ended(CallIdHash(call)), Some(server));
    }
    assert!(calls.is_empty());
    assert_eq!((board.load(server).calls, calls.expired()), (0, 0));
}

#[test]
fn what_another_worker_sees_counts_too() {
    let (board, mut calls) = leases(10);
    let [home, other] = [WorkerIndex(1), WorkerIndex(2)];
    let [first, second] = [CallIdHash(1), CallIdHash(2)];
    let server = ServerIndex(0);
    calls.opened(first, server, at(0), Some(90), MAX);
    calls.opened(second, server, at(0), Some(90), MAX);
    assert!(board.tell(home, CallNote::Refreshed(second, Some(900))));
    assert!(board.tell(home, CallNote::Ended(first)));
    calls.hear(other, at(100));
    assert_eq!(board.load(server).calls, 2);
    calls.hear(home, at(100));
    assert_eq!(calls.server(second), Some(server));
    assert_eq!(board.load(server).calls, 1);
    calls.expire(at(1_000));
    assert_eq!(board.load(server).calls, 1);
    // Full is full: the lease ends by itself.
    let told = (0..2_000).filter(|call| board.tell(home, CallNote::Ended(CallIdHash(*call))));
    assert_eq!(told.count(), CALL_NOTES_MAX);
    calls.hear(home, at(1_000));
    assert!(calls.is_empty() && board.tell(home, CallNote::Ended(first)));
}

#[test]
fn one_call_of_expire_does_a_bounded_part() {
    let (board, mut calls) = leases(10_000);
    let server = ServerIndex(0);
    for call in 0..10_000 {
        calls.opened(CallIdHash(call), server, at(0), None, MAX);
    }
    let mut rounds = 0;
    while !calls.is_empty() {
        assert!(calls.expire(at(20_000)) <= EXPIRE_BATCH);
        rounds += 1;
    }
    assert_eq!(rounds, 10_000_usize.div_ceil(EXPIRE_BATCH));
    assert_eq!(board.load(server).calls, 0);
}
