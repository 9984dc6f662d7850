//! Tests of the lookup table: shares, agreement, and how little moves.

use proptest::prelude::*;

use super::*;
use crate::balance::Rendezvous;
use crate::limits::WEIGHT_MAX;
use crate::net::ServerId;

const SEED: [u8; 16] = [1; 16];

fn member(slot: u16, weight: u32) -> Member {
    Member {
        server: ServerIndex(slot),
        // A hash of a name, for all the table can tell.
        id: ServerId((u32::from(slot) + 1).wrapping_mul(0x9e37_79b1)),
        weight,
    }
}

fn equal(servers: u16) -> Vec<Member> {
    (0..servers).map(|slot| member(slot, 1)).collect()
}

fn shares(table: &Maglev, servers: usize) -> Vec<usize> {
    let mut shares = vec![0; servers];
    for server in table.entries() {
        shares[usize::from(server.0)] += 1;
    }
    shares
}

/// Entries that changed although their server before was not `gone`, as a share of all that were
/// not its.
fn moved(before: &Maglev, after: &Maglev, gone: ServerIndex) -> f64 {
    assert_eq!(before.len(), after.len());
    let others = before
        .entries()
        .zip(after.entries())
        .filter(|(old, _)| *old != gone);
    let (mut count, mut changed) = (0u32, 0u32);
    for (old, new) in others {
        assert_ne!(new, gone);
        count += 1;
        changed += u32::from(old != new);
    }
    f64::from(changed) / f64::from(count)
}

#[test]
fn shares_are_the_weights() {
    let weights = [1, 2, 0, 7, WEIGHT_MAX];
    let members: Vec<_> = (0u16..)
        .zip(weights)
        .map(|(slot, weight)| member(slot, weight))
        .collect();
    let table = Maglev::new(&SEED, &members).unwrap();
    let shares = shares(&table, weights.len());
    for (share, weight) in shares.iter().zip(weights) {
        let ideal = table.len() * usize::try_from(weight).unwrap() / (10 + 1000);
        assert!(share.abs_diff(ideal) <= 1, "{shares:?}");
    }
}

/// The smallest weight in the heaviest farm still gets an entry.
#[test]
fn every_server_with_weight_is_in_the_table() {
    let mut members: Vec<_> = (0..655).map(|slot| member(slot, WEIGHT_MAX)).collect();
    members[100].weight = 1;
    let table = Maglev::new(&SEED, &members).unwrap();
    assert_eq!(shares(&table, 655)[100], 1);
}

#[test]
fn servers_without_weight_get_nothing() {
    let none = Maglev::new(&SEED, &[]).unwrap();
    assert!(none.is_empty());
    assert_eq!(none.select(AffinityKey(1)), None);
    let idle = Maglev::new(&SEED, &[member(0, 0), member(1, 0)]).unwrap();
    assert_eq!(idle.select(AffinityKey(u64::MAX)), None);
    let one = Maglev::new(&SEED, &[member(0, 0), member(1, 1)]).unwrap();
    assert!(one.entries().all(|server| server == ServerIndex(1)));
    for key in [0, 1, u64::MAX] {
        assert_eq!(one.select(AffinityKey(key)), Some(ServerIndex(1)));
    }
}

#[test]
fn table_is_refused_with_its_reason() {
    let twin = Member {
        server: ServerIndex(5),
        ..member(0, 1)
    };
    let same = Maglev::new(&SEED, &[member(0, 1), member(1, 1), twin]);
    let (a, b) = (ServerIndex(0), ServerIndex(5));
    let same = same.unwrap_err();
    assert!([TableError::SameId(a, b), TableError::SameId(b, a)].contains(&same));
    let heavy = Maglev::new(&SEED, &[member(0, WEIGHT_MAX + 1)]);
    assert_eq!(heavy.unwrap_err(), TableError::Weight(a, WEIGHT_MAX + 1));
    let max = u16::try_from(SERVERS_MAX).unwrap();
    let many = Maglev::new(&SEED, &equal(max + 1));
    assert_eq!(
        many.unwrap_err(),
        TableError::TooManyServers(SERVERS_MAX + 1)
    );
}

#[test]
fn lengths_are_prime_and_at_least_a_hundred_per_server() {
    let prime = |n: usize| {
        n > 1
            && (2..)
                .take_while(|d| d * d <= n)
                .all(|d| !n.is_multiple_of(d))
    };
    assert!(TABLE_LENS.into_iter().all(prime));
    for (servers, len) in [
        (1, 65_537),
        (655, 65_537),
        (656, 131_101),
        (1_311, 131_101),
        (1_312, 262_147),
        (4_096, 524_309),
    ] {
        let table = Maglev::new(&SEED, &equal(servers)).unwrap();
        assert_eq!(table.len(), len);
        assert!(len >= usize::from(servers) * MAGLEV_ENTRIES_PER_SERVER);
        let shares = shares(&table, usize::from(servers));
        let (low, high) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        assert!(high - low <= 1, "{low} {high}");
    }
}

/// Draining by weight 0 never changes the table's length.
#[test]
fn weight_zero_counts_for_the_length() {
    let mut members = equal(656);
    members[3].weight = 0;
    assert_eq!(Maglev::new(&SEED, &members).unwrap().len(), 131_101);
}

/// Two nodes agree, whatever the order of their configuration and the slots in their process.
#[test]
fn table_is_a_function_of_ids_weights_and_seed() {
    let members: Vec<_> = (0..40)
        .map(|slot| member(slot, 1 + u32::from(slot) % 5))
        .collect();
    let table = Maglev::new(&SEED, &members).unwrap();
    let mut other: Vec<_> = members.iter().rev().copied().collect();
    for member in &mut other {
        member.server.0 += 1000;
    }
    let other = Maglev::new(&SEED, &other).unwrap();
    assert!(
        table
            .entries()
            .zip(other.entries())
            .all(|(a, b)| a.0 + 1000 == b.0)
    );

    let reseeded = Maglev::new(&[2; 16], &members).unwrap();
    assert!(moved(&table, &reseeded, ServerIndex(u16::MAX)) > 0.9);
}

/// Issue of every balancer that hashes modulo: losing one of N servers moves its own keys only.
#[test]
fn a32_removing_one_server_moves_less_than_two_percent_of_the_others() {
    for servers in [2, 3, 4, 10, 50, 100, 300, 655] {
        let members = equal(servers);
        let before = Maglev::new(&SEED, &members).unwrap();
        let gone = member(servers / 2, 1).server;
        let mut rest = members.clone();
        rest.retain(|member| member.server != gone);
        let after = Maglev::new(&SEED, &rest).unwrap();
        let share = moved(&before, &after, gone);
        assert!(share < 0.02, "{servers}: {share}");
        // Its own keys spread over all the others.
        let heirs = before
            .entries()
            .zip(after.entries())
            .filter(|(old, _)| *old == gone);
        let mut heirs: Vec<_> = heirs.map(|(_, new)| new).collect();
        heirs.sort_unstable();
        heirs.dedup();
        assert!(
            heirs.len() * 3 >= usize::from(servers - 1).min(60),
            "{}",
            heirs.len()
        );
    }
}

/// A worker's calls spread over all servers, and a server's over all workers: the two choices take
/// different halves of the hash.
#[test]
fn select_is_independent_of_the_low_half_of_the_key() {
    let table = Maglev::new(&SEED, &equal(8)).unwrap();
    let mut counts = [[0i32; 8]; 8];
    for number in 0..64_000u64 {
        let x = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let key = x ^ (x >> 27);
        // What `affinity::home_worker` computes.
        let worker = ((key & 0xffff_ffff) * 8) >> 32;
        let server = table.select(AffinityKey(key)).unwrap();
        counts[usize::from(server.0)][usize::try_from(worker).unwrap()] += 1;
    }
    // 1,000 expected, σ 32.
    assert!(
        counts
            .iter()
            .flatten()
            .all(|count| (count - 1000).abs() < 170),
        "{counts:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Over sizes, weights, seeds and which server goes.
    #[test]
    fn a32_little_moves_whatever_the_weights(weights in prop::collection::vec(1..20u32, 2..200),
                                             seed: [u8; 16], pick: prop::sample::Index) {
        let members: Vec<_> = (0u16..).zip(&weights).map(|(slot, w)| member(slot, *w)).collect();
        let before = Maglev::new(&seed, &members).unwrap();
        let total: u32 = weights.iter().sum();
        for (share, weight) in shares(&before, weights.len()).iter().zip(&weights) {
            let ideal = f64::from(*weight) / f64::from(total) * 65_537.0;
            let share = f64::from(u32::try_from(*share).unwrap());
            prop_assert!((share - ideal).abs() <= 1.0 + ideal * 0.01, "{share} {ideal}");
        }
        let gone = members[pick.index(members.len())].server;
        // Out of the configuration and drained by weight are the same to the others.
        let mut rest = members.clone();
        rest.retain(|member| member.server != gone);
        let removed = Maglev::new(&seed, &rest).unwrap();
        let mut drained = members.clone();
        drained.iter_mut().filter(|m| m.server == gone).for_each(|m| m.weight = 0);
        let drained = Maglev::new(&seed, &drained).unwrap();
        prop_assert!(removed.entries().eq(drained.entries()));
        let share = moved(&before, &removed, gone);
        prop_assert!(share < 0.02, "{share}");
    }

    /// Rendezvous moves nothing of the others' at all.
    #[test]
    fn rendezvous_moves_only_the_keys_of_the_one_that_goes(
        weights in prop::collection::vec(1..20u32, 2..40), seed: [u8; 16],
        pick: prop::sample::Index, keys in prop::collection::vec(any::<u64>(), 100)) {
        let members: Vec<_> = (0u16..).zip(&weights).map(|(slot, w)| member(slot, *w)).collect();
        let gone = members[pick.index(members.len())].server;
        let mut rest = members.clone();
        rest.retain(|member| member.server != gone);
        rest.reverse();
        let before = Rendezvous::new(&seed, &members).unwrap();
        let after = Rendezvous::new(&seed, &rest).unwrap();
        for key in keys.into_iter().map(AffinityKey) {
            let (old, new) = (before.select(key), after.select(key));
            prop_assert!(old == new || old == Some(gone));
        }
    }
}
