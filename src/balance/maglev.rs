//! Maglev: a table that gives every server its share of a prime number of entries, and nearly the
//! same entries whoever else is in the pool.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016) §3.4:
//! each server has its own permutation of the table's entries; servers take turns, and at its turn
//! a server takes the first entry of its permutation that is still free.
//!
//! Weights are turns: server *i* has its *j*-th turn at time (*j* + ½) / weight, the first at 0 so
//! that the smallest weight gets an entry. A turn's time depends on nobody else's weight, so that
//! removing a server leaves the order of all other turns as it was.
//!
//! The table's length depends on the number of servers, and a table of another length is another
//! table: every key moves. So lengths come in steps of two, with servers of weight 0 counted: a farm
//! of up to 655 servers always has 65,537 entries, and only its 656th makes one such move.

use core::cmp::Reverse;
use std::collections::BinaryHeap;

use siphasher::sip128::SipHasher13;

use super::{AffinityKey, Member, StatelessSelect, TableError, sorted};
use crate::limits::{MAGLEV_ENTRIES_PER_SERVER, MAGLEV_TABLE_LEN_MIN, SERVERS_MAX};
use crate::net::ServerIndex;

/// Primes just above powers of two; the last holds `SERVERS_MAX` servers.
const TABLE_LENS: [usize; 4] = [65_537, 131_101, 262_147, 524_309];
const _: () = assert!(TABLE_LENS[0] >= MAGLEV_TABLE_LEN_MIN);
const _: () = assert!(TABLE_LENS[3] >= SERVERS_MAX * MAGLEV_ENTRIES_PER_SERVER);

/// An entry that nobody has taken yet. No slot has this number.
const FREE: u16 = u16::MAX;
const _: () = assert!(SERVERS_MAX <= FREE as usize);

/// A lookup table: key to server in one multiplication and one load.
#[derive(Clone, Debug)]
pub struct Maglev {
    /// Empty if no server has weight.
    entries: Box<[u16]>,
}

impl Maglev {
    /// Builds the table of a pool.
    ///
    /// # Errors
    /// Refuses servers that cannot be told apart, too many of them, and weights out of bounds.
    pub fn new(seed: &[u8; 16], members: &[Member]) -> Result<Self, TableError> {
        let members = sorted(members)?;
        let wanted = members.len() * MAGLEV_ENTRIES_PER_SERVER;
        let len = TABLE_LENS.into_iter().find(|len| *len >= wanted);
        let len = len.ok_or(TableError::TooManyServers(members.len()))?;
        Ok(Self {
            entries: fill(len, seed, &members),
        })
    }

    /// Entries of the table, 0 if no server has weight.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no server has weight.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where the entry of a key lies: memory to ask for before it is looked at.
    #[inline]
    pub fn place(&self, key: AffinityKey) -> core::ops::Range<*const u8> {
        let entry = self.entries.get(self.index(key)..).unwrap_or_default();
        let entry = entry.get(..1).unwrap_or_default().as_ptr_range();
        entry.start.cast()..entry.end.cast()
    }

    #[inline]
    fn index(&self, key: AffinityKey) -> usize {
        let index = (u128::from(key.0) * self.entries.len() as u128) >> 64;
        usize::try_from(index).unwrap_or(usize::MAX)
    }

    /// The servers of all entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = ServerIndex> {
        self.entries.iter().map(|slot| ServerIndex(*slot))
    }
}

impl StatelessSelect for Maglev {
    #[inline]
    fn select(&self, key: AffinityKey) -> Option<ServerIndex> {
        let slot = self.entries.get(self.index(key))?;
        Some(ServerIndex(*slot))
    }
}

/// A server while the table is filled.
struct Turn {
    /// Next entry of its permutation.
    entry: usize,
    /// Step of its permutation, 1 to length − 1: every entry comes once, the length being prime.
    skip: usize,
    /// Time between two turns.
    stride: u64,
    slot: u16,
}

/// A stride of weight 1. A server alone with weight 1 has 2¹⁹ turns, so times stay below 2⁶².
const STRIDE: u64 = 1 << 42;

fn fill(len: usize, seed: &[u8; 16], members: &[Member]) -> Box<[u16]> {
    let hasher = SipHasher13::new_with_key(seed);
    let modulo = |hash: u64, len: usize| usize::try_from(hash % len as u64).unwrap_or(0);
    let mut servers: Vec<Turn> = members
        .iter()
        .filter(|member| member.weight > 0)
        .map(|member| {
            let hash = hasher.hash(&member.id.0.to_le_bytes());
            Turn {
                entry: modulo(hash.h1, len),
                skip: modulo(hash.h2, len - 1) + 1,
                stride: STRIDE / u64::from(member.weight),
                slot: member.server.0,
            }
        })
        .collect();
    if servers.is_empty() {
        return Box::default();
    }
    let mut entries = vec![FREE; len].into_boxed_slice();
    // Time and place in the order of ids: equal times go by id.
    let mut turns: BinaryHeap<Reverse<(u64, usize)>> = (0..servers.len())
        .map(|index| Reverse((0, index)))
        .collect();
    for _ in 0..len {
        let Some(mut turn) = turns.peek_mut() else {
            break;
        };
        let Reverse((time, index)) = *turn;
        let server = &mut servers[index];
        while entries[server.entry] != FREE {
            server.entry = step(server.entry, server.skip, len);
        }
        entries[server.entry] = server.slot;
        server.entry = step(server.entry, server.skip, len);
        let pause = if time == 0 {
            server.stride + server.stride / 2
        } else {
            server.stride
        };
        *turn = Reverse((time + pause, index));
    }
    entries
}

#[inline]
fn step(entry: usize, skip: usize, len: usize) -> usize {
    let next = entry + skip;
    if next >= len { next - len } else { next }
}

#[cfg(test)]
mod tests;
