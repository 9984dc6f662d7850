//! Tests of the moved flows: what is found, what gives way, and threads in one bucket.

use std::sync::Barrier;
use std::thread;

use super::*;

const NOW: Instant = Instant::from_nanos(1 << 45);
const CALL: CallIdHash = CallIdHash(0x0123_4567_89ab_cdef);

fn flow(address: &str) -> ClientFlow {
    ClientFlow {
        address: address.parse().unwrap(),
        listener: ListenerIndex(1),
    }
}

#[test]
fn a_client_that_moves_is_found_where_it_was_heard_last() {
    let flows = MovedFlows::new(64);
    for (first, second, third) in [
        ("203.0.113.5:1024", "203.0.113.5:1025", "203.0.113.77:9"),
        ("[2001:db8::5]:1024", "[2001:db8::6]:1024", "203.0.113.5:7"),
    ] {
        let (first, second, third) = (flow(first), flow(second), flow(third));
        assert_eq!(flows.find(CALL, first, NOW), None);
        assert_eq!(flows.note(CALL, first, first, NOW), FlowNote::Known);
        assert_eq!(flows.used(), 0);
        assert_eq!(flows.note(CALL, first, second, NOW), FlowNote::Moved);
        assert_eq!(flows.note(CALL, first, second, NOW), FlowNote::Known);
        assert_eq!(flows.find(CALL, first, NOW), Some(second));
        assert_eq!(flows.note(CALL, first, third, NOW), FlowNote::Moved);
        assert_eq!(flows.find(CALL, first, NOW), Some(third));
        // Another dialog, and the other client of this one.
        assert_eq!(flows.find(CallIdHash(CALL.0 ^ 1), first, NOW), None);
        assert_eq!(flows.find(CALL, second, NOW), None);
        assert_eq!(flows.note(CALL, first, first, NOW), FlowNote::Returned);
        assert_eq!(flows.find(CALL, first, NOW), None);
        assert_eq!(flows.used(), 0);
    }
}

/// A NAT that lets through one address of ours: the one that the client sends to now.
#[test]
fn a_change_of_listener_is_a_move() {
    let flows = MovedFlows::new(64);
    let first = flow("203.0.113.5:1024");
    let other = ClientFlow {
        listener: ListenerIndex(31),
        ..first
    };
    assert_eq!(flows.note(CALL, first, other, NOW), FlowNote::Moved);
    assert_eq!(flows.find(CALL, first, NOW), Some(other));
}

#[test]
fn an_entry_lives_a_day_from_the_last_request() {
    let flows = MovedFlows::new(64);
    let (first, second) = (flow("203.0.113.5:1024"), flow("203.0.113.5:1025"));
    let hours = |hours| NOW + Duration::from_hours(hours);
    flows.note(CALL, first, second, NOW);
    assert_eq!(flows.find(CALL, first, hours(23)), Some(second));
    assert_eq!(flows.find(CALL, first, hours(24)), None);
    assert_eq!(flows.note(CALL, first, second, hours(20)), FlowNote::Known);
    assert_eq!(flows.find(CALL, first, hours(43)), Some(second));
    assert_eq!(flows.find(CALL, first, hours(44)), None);
    // A worker whose time is a little behind.
    assert_eq!(flows.find(CALL, first, NOW), Some(second));
}

#[test]
fn a_full_bucket_loses_its_oldest_entry() {
    let flows = MovedFlows::new(1);
    assert_eq!(flows.capacity(), WAYS);
    let (first, second) = (flow("203.0.113.5:1024"), flow("203.0.113.5:1025"));
    let call = |number| CallIdHash(CALL.0 + number);
    let at = |second| NOW + Duration::from_secs(second);
    for number in 0..7 {
        let note = flows.note(call(number), first, second, at(10 - number));
        assert_eq!(note, FlowNote::Moved);
    }
    assert_eq!(
        flows.note(call(7), first, second, at(11)),
        FlowNote::Evicted
    );
    assert_eq!(flows.find(call(6), first, at(11)), None);
    for number in [0, 1, 2, 3, 4, 5, 7] {
        assert_eq!(flows.find(call(number), first, at(11)), Some(second));
    }
    assert_eq!(flows.used(), WAYS);
    // What is outdated gives way and is not missed.
    let later = at(0) + LIFE + LIFE;
    assert_eq!(flows.note(call(8), first, second, later), FlowNote::Moved);
    assert_eq!(flows.used(), WAYS);
}

#[test]
fn a_table_without_room_remembers_nothing() {
    let flows = MovedFlows::new(0);
    let (first, second) = (flow("203.0.113.5:1024"), flow("203.0.113.5:1025"));
    assert_eq!(flows.note(CALL, first, second, NOW), FlowNote::Refused);
    assert_eq!(flows.find(CALL, first, NOW), None);
    assert_eq!(MovedFlows::new(usize::MAX).capacity(), 65_541);
}

/// Writers and readers in one bucket, more keys than it holds: a reader gets an address that
/// somebody wrote for its key, whole, or none.
#[test]
fn readers_get_whole_flows_of_their_own_key() {
    const KEYS: u64 = 10;
    const ROUNDS: u64 = 100_000;
    let flows = MovedFlows::new(1);
    let first = flow("[2001:db8::1]:1");
    // All words of a value tell its key and its round.
    let value = |key: u64, round: u64| ClientFlow {
        address: SocketAddr::new(
            Ipv6Addr::from_bits(u128::from(key << 32 | round) << 64 | u128::from(round << 8 | key))
                .into(),
            u16::try_from(round % 60_000).unwrap(),
        ),
        listener: ListenerIndex(u8::try_from(key).unwrap()),
    };
    let call = |key: u64| CallIdHash(0x1000_0000_0000 + key);
    for key in 0..KEYS {
        flows.note(call(key), first, value(key, 0), NOW);
    }
    let start = Barrier::new(4);
    let found: u64 = thread::scope(|scope| {
        for writer in 0..2 {
            let (flows, start) = (&flows, &start);
            scope.spawn(move || {
                start.wait();
                for round in 1..ROUNDS {
                    let key = (round * 7 + writer * 3) % KEYS;
                    let seen = if round % 97 == 0 {
                        first
                    } else {
                        value(key, round)
                    };
                    flows.note(call(key), first, seen, NOW);
                }
            });
        }
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let mut found = 0;
                    for round in 0..ROUNDS {
                        let key = round % KEYS;
                        let Some(seen) = flows.find(call(key), first, NOW) else {
                            continue;
                        };
                        let IpAddr::V6(ip) = seen.address.ip() else {
                            panic!("{seen:?}");
                        };
                        let (low, high) = halves(ip.to_bits());
                        let (of, written) = (high >> 32, high & 0xffff_ffff);
                        assert_eq!(of, key);
                        assert_eq!(low, written << 8 | key);
                        assert_eq!(seen, value(key, written));
                        found += 1;
                    }
                    found
                })
            })
            .collect();
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .sum()
    });
    assert!(found > 0);
    assert!(flows.used() <= WAYS);
    let kept = (0..KEYS).filter(|key| flows.find(call(*key), first, NOW).is_some());
    assert_eq!(kept.count(), flows.used());
}
