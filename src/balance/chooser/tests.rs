//! Every policy under limits, priorities, pauses and slow start.

use super::*;
use crate::balance::{Board, Work};
use crate::net::ServerId;

const POLICIES: [Policy; 5] = [
    Policy::Maglev,
    Policy::Rendezvous,
    Policy::RoundRobin,
    Policy::LeastLoaded,
    Policy::Tlwl,
];

fn seat(slot: u16, weight: u32) -> Seat {
    Seat {
        member: Member {
            server: ServerIndex(slot),
            id: ServerId((u32::from(slot) + 1).wrapping_mul(0x9e37_79b1)),
            weight,
        },
        priority: 0,
        max_calls: 0,
        max_calls_per_second: 0,
        returned_at: None,
    }
}

fn seats(weights: &[u32]) -> Vec<Seat> {
    let seats = (0..).zip(weights);
    seats.map(|(slot, weight)| seat(slot, *weight)).collect()
}

fn chooser(policy: Policy, seats: &[Seat]) -> Chooser {
    Chooser::new(&[7; 16], policy, PoolIndex(3), seats)
        .unwrap()
        .with_slow_start(Duration::from_secs(30))
}

fn at(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(1_000_000 + millis)
}

/// The `number`th key, spread over all of them.
fn key(number: u64) -> AffinityKey {
    AffinityKey(super::super::rendezvous::mix(number))
}

/// A board and what is asked of it.
struct World {
    board: Board,
    pool: Chooser,
    now: Instant,
}

impl World {
    fn new(policy: Policy, seats: &[Seat]) -> Self {
        Self {
            board: Board::new(),
            pool: chooser(policy, seats),
            now: at(0),
        }
    }

    fn choose(&self, number: u64, tried: &[ServerIndex]) -> Option<u16> {
        let choice = Choice {
            board: &self.board,
            key: key(number),
            tried,
            now: self.now,
        };
        Some(self.pool.choose(&choice)?.0)
    }

    /// New calls that never end, by server.
    fn opened(&self, calls: u64, servers: usize) -> Vec<u32> {
        let mut counts = vec![0; servers];
        for number in 0..calls {
            if let Some(server) = self.choose(number, &[]) {
                self.board
                    .transaction_opened(ServerIndex(server), Work::Invite);
                counts[usize::from(server)] += 1;
            }
        }
        counts
    }
}

#[test]
fn shares_follow_the_weights() {
    for policy in POLICIES {
        let world = World::new(policy, &seats(&[1, 2, 0, 7, 10]));
        let counts = world.opened(20_000, 5);
        for (count, share) in counts.iter().zip([1_000, 2_000, 0, 7_000, 10_000]) {
            // Five sigma of the largest share where chance decides: √(20,000 · ½ · ½) ≈ 71, and
            // Maglev's table is right to a percent.
            let spread = match policy {
                Policy::Maglev | Policy::Rendezvous => 450,
                _ => 2,
            };
            assert!(count.abs_diff(share) <= spread, "{policy:?} {counts:?}");
        }
    }
}

#[test]
fn idle_servers_share_calls_by_weight_too() {
    for policy in POLICIES {
        let world = World::new(policy, &seats(&[1, 3]));
        let second = (0..20_000).filter(|number| world.choose(*number, &[]) == Some(1));
        let second = second.count();
        assert!((14_600..15_400).contains(&second), "{policy:?} {second}");
    }
}

#[test]
fn a_tried_server_is_never_chosen_again_and_each_comes_once() {
    for policy in POLICIES {
        for weights in [&[1000, 1000, 1000, 1000, 1][..], &[1; 40][..]] {
            let world = World::new(policy, &seats(weights));
            for number in 0..50 {
                let mut tried = Vec::new();
                while let Some(server) = world.choose(number, &tried) {
                    let server = ServerIndex(server);
                    assert!(!tried.contains(&server), "{policy:?}");
                    tried.push(server);
                }
                assert_eq!(tried.len(), weights.len(), "{policy:?}");
            }
        }
    }
}

#[test]
fn choice_by_key_is_the_stateless_one_while_nothing_is_in_the_way() {
    for policy in [Policy::Maglev, Policy::Rendezvous] {
        let world = World::new(policy, &seats(&[1, 2, 3]));
        for number in 0..1000 {
            let select = world.pool.select(key(number)).map(|server| server.0);
            assert_eq!(world.choose(number, &[]), select, "{policy:?}");
        }
    }
    // And a policy with state leaves requests without a transaction to Maglev.
    let (maglev, tlwl) = (
        chooser(Policy::Maglev, &seats(&[1, 2, 3])),
        chooser(Policy::Tlwl, &seats(&[1, 2, 3])),
    );
    assert!((0..1000).all(|number| maglev.select(key(number)) == tlwl.select(key(number))));
}

#[test]
fn load_decides_by_its_measure() {
    let least = World::new(Policy::LeastLoaded, &seats(&[1, 1]));
    least.board.call_opened(ServerIndex(0));
    assert!((0..100).all(|number| least.choose(number, &[]) == Some(1)));
    least
        .board
        .transaction_opened(ServerIndex(1), Work::Ringing);
    least.board.transaction_opened(ServerIndex(1), Work::Other);
    assert!((0..100).all(|number| least.choose(number, &[]) == Some(0)));

    // Two other requests are more work than one INVITE at 1.75, and less at 2.5.
    let work = World::new(Policy::Tlwl, &seats(&[1, 1]));
    let [zero, one] = [ServerIndex(0), ServerIndex(1)];
    (0..100).for_each(|_| work.board.call_opened(zero));
    work.board.transaction_opened(zero, Work::Invite);
    work.board.transaction_opened(one, Work::Other);
    work.board.transaction_opened(one, Work::Other);
    assert_eq!(work.choose(1, &[]), Some(0));
    for _ in 0..100 {
        let times = [(Work::Invite, 25), (Work::Other, 10)];
        for (kind, millis) in times {
            let elapsed = Duration::from_millis(millis);
            work.board.note_response_time(PoolIndex(3), kind, elapsed);
        }
    }
    assert_eq!(work.choose(1, &[]), Some(1));
    // As soon as it rings there is hardly anything left to do.
    work.board
        .transaction_changed(zero, Work::Invite, Work::Ringing);
    assert_eq!(work.choose(1, &[]), Some(0));
}

#[test]
fn two_choices_keep_a_large_pool_level() {
    let world = World::new(Policy::LeastLoaded, &seats(&[5; 200]));
    let counts = world.opened(20_000, 200);
    let (low, high) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    // One choice would spread them over some 65 to 135 (three to four sigma of √100).
    assert!(*low >= 92 && *high <= 108, "{low} {high}");
    // The same key and board, the same choice.
    assert!((0..100).all(|number| world.choose(number, &[]) == world.choose(number, &[])));
}

#[test]
fn a_full_server_gets_no_call_and_gets_one_again_when_one_ends() {
    for policy in POLICIES {
        let limited = |slot| Seat {
            max_calls: 10,
            ..seat(slot, 1)
        };
        let world = World::new(policy, &[limited(0), limited(1), seat(2, 1)]);
        let counts = world.opened(1000, 3);
        assert_eq!(&counts[..2], &[10, 10], "{policy:?}");
        assert_eq!(counts[2], 980, "{policy:?}");
        // What rang stands: still ten. One ends: one more.
        let zero = ServerIndex(0);
        world.board.transaction_closed(zero, Work::Invite);
        world.board.call_opened(zero);
        assert_eq!(world.opened(500, 3)[0], 0, "{policy:?}");
        world.board.call_closed(zero);
        assert_eq!(world.opened(500, 3)[0], 1, "{policy:?}");
    }
}

#[test]
fn calls_per_second_hold_in_every_second() {
    for policy in POLICIES {
        let slow = Seat {
            max_calls_per_second: 20,
            ..seat(0, 1)
        };
        let mut world = World::new(policy, &[slow, seat(1, 1)]);
        let mut taken = Vec::new();
        // 500 calls a second for five seconds, half of which want the slow server.
        for number in 0..2_500 {
            world.now = at(number * 2);
            if world.choose(number, &[]) == Some(0) {
                taken.push(number * 2);
            }
        }
        for start in &taken {
            let within = taken
                .iter()
                .filter(|at| (0..1000).contains(&at.wrapping_sub(*start)));
            assert!(within.count() <= 20 + 2 + 1, "{policy:?}");
        }
        // And the rate is used: 20 a second, and what it may have at once.
        assert!(
            (95..=103).contains(&taken.len()),
            "{policy:?} {}",
            taken.len()
        );
    }
}

#[test]
fn the_lowest_priority_that_can_takes_the_call() {
    for policy in POLICIES {
        let of = |slot, priority, max_calls| Seat {
            priority,
            max_calls,
            ..seat(slot, 1)
        };
        let farm = [of(0, 5, 2), of(1, 0, 3), of(2, 0, 3), of(3, 9, 0)];
        let world = World::new(policy, &farm);
        // Tried is as good as full.
        let both = [ServerIndex(1), ServerIndex(2)];
        assert_eq!(world.choose(1, &both), Some(0), "{policy:?}");
        assert_eq!(world.opened(6, 4), [0, 3, 3, 0], "{policy:?}");
        assert_eq!(world.opened(2, 4), [2, 0, 0, 0], "{policy:?}");
        assert_eq!(world.opened(7, 4), [0, 0, 0, 7], "{policy:?}");
        world.board.transaction_closed(ServerIndex(2), Work::Invite);
        assert_eq!(world.choose(1, &[]), Some(2), "{policy:?}");
        // Without state only the first group is asked.
        let first = |number| world.pool.select(key(number)).unwrap().0;
        assert!((0..100).all(|number| [1, 2].contains(&first(number))));
    }
}

#[test]
fn a_pause_is_honoured_unless_most_of_the_pool_asks_for_one() {
    for policy in POLICIES {
        let mut world = World::new(policy, &seats(&[1, 1, 1, 1]));
        let gets = |world: &World, slot| (0..100).any(|key| world.choose(key, &[]) == Some(slot));
        let pause = |world: &World, slot| {
            let until = at(30_000);
            world.board.note_retry_after(ServerIndex(slot), until);
        };
        pause(&world, 0);
        pause(&world, 1);
        assert!(!gets(&world, 0) && !gets(&world, 1), "{policy:?}");
        let rest = [ServerIndex(2), ServerIndex(3)];
        assert_eq!(world.choose(1, &rest), None, "{policy:?}");
        pause(&world, 2);
        assert!((0..4).all(|slot| gets(&world, slot)), "{policy:?}");
        world.now = at(30_000);
        assert!((0..4).all(|slot| gets(&world, slot)), "{policy:?}");
    }
}

#[test]
fn a_server_that_returns_grows_to_its_weight() {
    for policy in [Policy::Maglev, Policy::Rendezvous, Policy::RoundRobin] {
        let back = Seat {
            returned_at: Some(at(0)),
            ..seat(0, 1)
        };
        let mut world = World::new(policy, &[back, seat(1, 1)]);
        let mut before: Vec<bool> = Vec::new();
        // Of a table a part of the half; of rendezvous weights p : 1, so p / (1 + p).
        let shares = match policy {
            Policy::Rendezvous => [0, 2_000, 3_333, 5_000, 5_000],
            _ => [0, 1_250, 2_500, 5_000, 5_000],
        };
        for (millis, share) in [0, 7_500, 15_000, 30_000, 90_000].into_iter().zip(shares) {
            world.now = at(millis);
            let takes: Vec<bool> = (0..10_000)
                .map(|number| world.choose(number, &[]) == Some(0))
                .collect();
            let count = takes.iter().filter(|takes| **takes).count();
            assert!(count.abs_diff(share) < 250, "{policy:?} {millis} {count}");
            let given_up = before.iter().zip(&takes).any(|(was, is)| *was && !*is);
            assert!(!given_up || policy == Policy::RoundRobin, "{policy:?}");
            before = takes;
        }
    }
    for policy in [Policy::LeastLoaded, Policy::Tlwl] {
        let back = Seat {
            returned_at: Some(at(0)),
            ..seat(0, 1)
        };
        let mut world = World::new(policy, &[back, seat(1, 1)]);
        for _ in 0..100 {
            world.board.transaction_opened(ServerIndex(1), Work::Invite);
        }
        // At a quarter of its weight a quarter of the other's load is its due, and no more.
        world.now = at(7_500);
        let counts = world.opened(50, 2);
        let load = world.board.load(ServerIndex(0)).invites;
        assert!((28..=32).contains(&load), "{policy:?} {counts:?}");
    }
    // All at once: somebody has to take the calls.
    for policy in POLICIES {
        let back = |slot| Seat {
            returned_at: Some(at(0)),
            ..seat(slot, 1)
        };
        let world = World::new(policy, &[back(0), back(1)]);
        let first = (0..1000).filter(|number| world.choose(*number, &[]).unwrap() == 0);
        assert!((400..600).contains(&first.count()), "{policy:?}");
    }
}

#[test]
fn the_turns_of_a_dead_server_are_spread_over_all_others() {
    let world = World::new(Policy::RoundRobin, &seats(&[1, 1, 1, 1]));
    let dead = ServerIndex(1);
    let mut counts = [0_u32; 4];
    for number in 0..8_000 {
        let mut server = world.choose(number, &[]).unwrap();
        if server == dead.0 {
            server = world.choose(number, &[dead]).unwrap();
        }
        counts[usize::from(server)] += 1;
    }
    assert_eq!(counts[1], 0);
    for slot in [0, 2, 3] {
        assert!(counts[slot].abs_diff(2_667) < 150, "{counts:?}");
    }
}

#[test]
fn a_pool_without_servers_chooses_none() {
    for policy in POLICIES {
        for farm in [&seats(&[])[..], &seats(&[0, 0])[..]] {
            let world = World::new(policy, farm);
            assert!(world.pool.is_empty());
            assert_eq!(world.choose(1, &[]), None);
            assert_eq!(world.pool.select(key(1)), None);
            assert!(world.pool.shares().is_empty());
        }
        let twins = [seat(0, 1), seat(0, 0)];
        let fault = Chooser::new(&[7; 16], policy, PoolIndex(0), &twins);
        assert!(matches!(fault, Err(TableError::SameId(..))));
    }
}
