//! What becomes of the keys when one table takes the place of another.
//!
//! Exact, not sampled: an entry of a table stands for a stretch of all 2⁶⁴ keys, and two tables cut
//! the keys at known places. Weights need no care: they are in the number of entries.

use std::collections::BTreeMap;

use super::{AffinityKey, Maglev};
use crate::net::ServerIndex;

/// All keys there are.
const KEYS: u128 = 1 << 64;

/// Sample keys, as a power of two: 131,072.
const SAMPLE_BITS: u32 = 17;

/// From which server to which one; `None` is no server at all.
type Way = (Option<ServerIndex>, Option<ServerIndex>);

/// Shares of all keys by the server they had and the server they get.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moves {
    ways: BTreeMap<Way, f64>,
}

impl Moves {
    /// Both tables are asked with the same keys. `None` is a pool without servers.
    pub fn between(old: Option<&Maglev>, new: Option<&Maglev>) -> Self {
        let mut counts: BTreeMap<Way, u128> = BTreeMap::new();
        let (mut old, mut new) = (Stretches::new(old), Stretches::new(new));
        let mut at = 0;
        while at < KEYS {
            let end = old.end().min(new.end());
            *counts.entry((old.server(), new.server())).or_default() += end - at;
            old.pass(end);
            new.pass(end);
            at = end;
        }
        let share = |count: u128| count as f64 / KEYS as f64;
        Self {
            ways: counts
                .into_iter()
                .map(|(way, count)| (way, share(count)))
                .collect(),
        }
    }

    /// The same for choices that no table makes (rendezvous): asked with sample keys spread evenly
    /// over all keys. Each share is right to about a third of a percent.
    pub fn sampled(
        old: impl Fn(AffinityKey) -> Option<ServerIndex>,
        new: impl Fn(AffinityKey) -> Option<ServerIndex>,
    ) -> Self {
        let mut ways = BTreeMap::new();
        for sample in 0..1_u64 << SAMPLE_BITS {
            let key = AffinityKey(sample << (64 - SAMPLE_BITS));
            *ways.entry((old(key), new(key))).or_default() +=
                0.5_f64.powi(SAMPLE_BITS.cast_signed());
        }
        Self { ways }
    }

    /// The new table is asked with other keys, or is built with another seed: where a key was says
    /// nothing about where it will be.
    pub fn unrelated(old: Option<&Maglev>, new: Option<&Maglev>) -> Self {
        Self::between(old, old).times(&Self::between(new, new))
    }

    /// The ways of keys whose old server says nothing about the new one: `self` tells the old shares,
    /// `new` the new ones.
    #[must_use]
    pub fn times(&self, new: &Self) -> Self {
        let old = self;
        let mut ways = BTreeMap::new();
        for ((from, _), was) in &old.ways {
            for ((to, _), is) in &new.ways {
                ways.insert((*from, *to), was * is);
            }
        }
        Self { ways }
    }

    /// Share of the keys that get another server, 0 to 1.
    pub fn share(&self) -> f64 {
        let moved = self.ways.iter().filter(|((from, to), _)| from != to);
        moved.map(|(_, share)| share).sum()
    }

    /// Each way that keys go, those that stay included, with its share.
    pub fn ways(
        &self,
    ) -> impl Iterator<Item = (Option<ServerIndex>, Option<ServerIndex>, f64)> + '_ {
        self.ways
            .iter()
            .map(|((from, to), share)| (*from, *to, *share))
    }

    /// Share of the keys that a server had and the share it gets.
    pub fn of(&self, server: ServerIndex) -> (f64, f64) {
        let sum = |at: fn(&Way) -> Option<ServerIndex>| {
            let ways = self.ways.iter().filter(|(way, _)| at(way) == Some(server));
            ways.map(|(_, share)| share).sum()
        };
        (sum(|way| way.0), sum(|way| way.1))
    }
}

/// A walk over the stretches of keys that a table's entries stand for.
struct Stretches {
    entries: Vec<Option<ServerIndex>>,
    position: usize,
}

impl Stretches {
    fn new(table: Option<&Maglev>) -> Self {
        let entries: Vec<_> =
            table.map_or_else(Vec::new, |table| table.entries().map(Some).collect());
        Self {
            entries: if entries.is_empty() {
                vec![None]
            } else {
                entries
            },
            position: 0,
        }
    }

    /// The key after the last of this stretch: the first with ⌊key · len / 2⁶⁴⌋ > position, which is
    /// how a table is asked.
    fn end(&self) -> u128 {
        let next = self.position as u128 + 1;
        (next * KEYS).div_ceil(self.entries.len() as u128)
    }

    fn server(&self) -> Option<ServerIndex> {
        self.entries.get(self.position).copied().flatten()
    }

    fn pass(&mut self, key: u128) {
        if self.end() == key {
            self.position += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{Member, Rendezvous, StatelessSelect};
    use crate::net::ServerId;

    fn table(members: &[(u16, u32)]) -> Maglev {
        let members: Vec<Member> = members
            .iter()
            .map(|(slot, weight)| Member {
                server: ServerIndex(*slot),
                id: ServerId(1000 + u32::from(*slot)),
                weight: *weight,
            })
            .collect();
        Maglev::new(&[7; 16], &members).unwrap()
    }

    fn close(a: f64, b: f64, by: f64) -> bool {
        (a - b).abs() < by
    }

    #[test]
    fn shares_are_those_that_keys_meet_also_between_tables_of_two_lengths() {
        // 656 servers take the next length of table.
        let many: Vec<(u16, u32)> = (0..656).map(|slot| (slot, 1)).collect();
        let pairs = [
            (
                table(&[(0, 1), (1, 1), (2, 2)]),
                table(&[(0, 1), (2, 2), (3, 5)]),
            ),
            (table(&[(0, 1), (1, 1)]), table(&many)),
        ];
        for (old, new) in &pairs {
            let moves = Moves::between(Some(old), Some(new));
            let all: f64 = moves.ways().map(|(_, _, share)| share).sum();
            assert!(close(all, 1.0, 1e-12), "{all}");
            let samples = 200_000_u64;
            // A golden-ratio sequence covers the keys evenly.
            let keys = (0..samples).map(|n| AffinityKey(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            let moved = keys
                .filter(|key| old.select(*key) != new.select(*key))
                .count();
            let sampled = moved as f64 / samples as f64;
            assert!(
                close(moves.share(), sampled, 0.002),
                "{} {sampled}",
                moves.share()
            );
        }
    }

    #[test]
    fn the_last_key_of_an_entry_and_the_first_of_the_next_are_told_apart() {
        let table = table(&[(0, 1), (1, 1)]);
        let mut stretches = Stretches::new(Some(&table));
        for _ in 0..table.len() {
            let (end, server) = (stretches.end(), stretches.server());
            let last = AffinityKey(u64::try_from(end - 1).unwrap());
            assert_eq!(table.select(last), server);
            stretches.pass(end);
            if let Ok(next) = u64::try_from(end) {
                assert_eq!(table.select(AffinityKey(next)), stretches.server());
            }
        }
    }

    #[test]
    fn losing_a_server_moves_its_keys_and_nearly_no_others() {
        let (old, new) = (table(&[(0, 1), (1, 1), (2, 1)]), table(&[(0, 1), (1, 1)]));
        let moves = Moves::between(Some(&old), Some(&new));
        let (was, is) = moves.of(ServerIndex(2));
        assert!(close(was, 1.0 / 3.0, 1e-3) && is == 0.0);
        assert!(moves.share() >= was && moves.share() < was + 0.01);
        let (was, is) = moves.of(ServerIndex(0));
        assert!(close(was, 1.0 / 3.0, 1e-3) && close(is, 0.5, 1e-3));
        assert_eq!(Moves::between(Some(&old), Some(&old)).share(), 0.0);
    }

    #[test]
    fn another_key_moves_all_but_what_chance_keeps() {
        let (old, new) = (table(&[(0, 1), (1, 1)]), table(&[(0, 3), (1, 1)]));
        let moves = Moves::unrelated(Some(&old), Some(&new));
        // ½ · ¾ + ½ · ¼ stay.
        assert!(close(moves.share(), 0.5, 1e-3), "{}", moves.share());
        let (was, is) = moves.of(ServerIndex(0));
        assert!(close(was, 0.5, 1e-3) && close(is, 0.75, 1e-3));
    }

    #[test]
    fn a_pool_without_servers_has_none_for_any_key() {
        let old = table(&[(0, 1)]);
        let moves = Moves::between(Some(&old), None);
        let ways: Vec<_> = moves.ways().collect();
        assert_eq!(ways, [(Some(ServerIndex(0)), None, 1.0)]);
        assert_eq!(Moves::between(None, None).share(), 0.0);
    }

    #[test]
    fn samples_tell_what_rendezvous_moves() {
        let members = |slots: &[u16]| -> Vec<Member> {
            let member = |slot: &u16| Member {
                server: ServerIndex(*slot),
                id: ServerId(1000 + u32::from(*slot)),
                weight: 1,
            };
            slots.iter().map(member).collect()
        };
        let pool = |slots: &[u16]| Rendezvous::new(&[7; 16], &members(slots)).unwrap();
        let (old, new) = (pool(&[0, 1, 2, 3]), pool(&[0, 1, 2]));
        let moves = Moves::sampled(|key| old.select(key), |key| new.select(key));
        // A quarter moves: what the server had that went, and nothing else.
        assert!(close(moves.share(), 0.25, 0.01), "{}", moves.share());
        assert!(close(moves.of(ServerIndex(3)).1, 0.0, 1e-9));
        let stays: f64 = moves
            .ways()
            .filter(|(from, to, _)| from == to)
            .map(|(_, _, share)| share)
            .sum();
        assert!(
            close(stays, moves.of(ServerIndex(0)).0 * 3.0, 0.02),
            "{stays}"
        );
    }
}
