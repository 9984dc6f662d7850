//! Rendezvous (highest random weight): every server draws a number for the key, the best one wins.
//!
//! Removing a server moves its own keys and no others, exactly; the price is a hash per server for
//! each key. For small pools, and where even Maglev's percent of moved keys is too much.
//!
//! With weights (Schindelhauer, Schomaker 2005): the draw of a server is −log₂(*u*) / weight with *u*
//! uniform in (0, 1), and the smallest wins; it is a race of exponential clocks, which each server
//! wins in proportion to its weight. The logarithm is in integers, so that all nodes agree to
//! the last bit.

use siphasher::sip::SipHasher13;

use super::{AffinityKey, Member, StatelessSelect, TableError, sorted};
use crate::net::ServerIndex;

/// A pool that chooses by rendezvous.
#[derive(Clone, Debug)]
pub struct Rendezvous {
    servers: Box<[Candidate]>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// Keyed hash of its id.
    hash: u64,
    weight: u64,
    server: ServerIndex,
}

impl Rendezvous {
    /// Prepares the servers of a pool.
    ///
    /// # Errors
    /// Refuses servers that cannot be told apart, too many of them, and weights out of bounds.
    pub fn new(seed: &[u8; 16], members: &[Member]) -> Result<Self, TableError> {
        let hasher = SipHasher13::new_with_key(seed);
        let candidates = sorted(members)?
            .into_iter()
            .filter(|member| member.weight > 0);
        Ok(Self {
            servers: candidates
                .map(|member| Candidate {
                    hash: hasher.hash(&member.id.0.to_le_bytes()),
                    weight: u64::from(member.weight),
                    server: member.server,
                })
                .collect(),
        })
    }
}

impl StatelessSelect for Rendezvous {
    fn select(&self, key: AffinityKey) -> Option<ServerIndex> {
        let draws = self.servers.iter().map(|candidate| Draw {
            distance: candidate.distance(key),
            weight: candidate.weight,
            server: candidate.server,
        });
        draws.reduce(Draw::nearer).map(|draw| draw.server)
    }
}

impl Rendezvous {
    /// The same, with weights of the moment below 2²⁴; who has none does not take part.
    pub(super) fn select_by(
        &self,
        key: AffinityKey,
        weight: impl Fn(ServerIndex) -> Option<u64>,
    ) -> Option<ServerIndex> {
        let draws = self.servers.iter().filter_map(|candidate| {
            Some(Draw {
                weight: weight(candidate.server)?,
                distance: candidate.distance(key),
                server: candidate.server,
            })
        });
        draws.reduce(Draw::nearer).map(|draw| draw.server)
    }
}

impl Candidate {
    #[inline]
    fn distance(&self, key: AffinityKey) -> u64 {
        negative_log2(mix(key.0 ^ self.hash))
    }
}

/// What a server drew for a key.
#[derive(Clone, Copy)]
struct Draw {
    distance: u64,
    weight: u64,
    server: ServerIndex,
}

impl Draw {
    /// a / w < b / v without division; equal draws leave the lower id first.
    #[inline]
    fn nearer(self, next: Self) -> Self {
        if next.distance * self.weight < self.distance * next.weight {
            next
        } else {
            self
        }
    }
}

/// A bijection in which each input bit moves half of the output bits (the finaliser of
/// `SplitMix64`). Key and candidate are keyed hashes already; this only takes their sum apart.
#[inline]
pub(super) fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// −log₂((x + 1) / 2⁶⁴) with 32 bits after the point, within 3 × 10⁻⁶.
#[inline]
pub(super) fn negative_log2(x: u64) -> u64 {
    let x = x | 1;
    let zeros = x.leading_zeros();
    // 1.m in 64 bits: eight bits choose a table entry, the next 24 lie between it and the next.
    let mantissa = x << zeros;
    let index = usize::from((mantissa << 1).to_be_bytes()[0]);
    let between = (mantissa << 9) >> 40;
    let (low, high) = (LOG2[index], LOG2[index + 1]);
    let log2 = low + (((high - low) * between) >> 24);
    (u64::from(zeros + 1) << 32) - log2
}

/// log₂(1 + i / 256) with 32 bits after the point.
static LOG2: [u64; 257] = {
    let mut table = [0; 257];
    let mut index = 0;
    while index < table.len() {
        table[index] = log2(256 + index as u128);
        index += 1;
    }
    table
};

/// log₂(m / 256) with 32 bits after the point, for m from 256 to 512, bit by bit: squaring doubles
/// the logarithm, and each time it passes 1 the next bit is set.
const fn log2(m: u128) -> u64 {
    let one = 1 << 62;
    let mut m = m << 54;
    let mut result = 0;
    if m >= 2 * one {
        m /= 2;
        result = 1;
    }
    let mut bit = 0;
    while bit < 32 {
        m = (m * m) >> 62;
        result <<= 1;
        if m >= 2 * one {
            m /= 2;
            result |= 1;
        }
        bit += 1;
    }
    result
}

#[cfg(test)]
mod tests;
