//! The servers of a pool, and how one of them is chosen.
//!
//! Servers stand in groups by priority. Without state the key alone chooses, in the first group;
//! with state ([`Chooser::choose`]) the policy does, and what the first group cannot take goes to
//! the next.
//!
//! ```
//! use viaduct::balance::{AffinityKey, Board, Choice, Chooser, Member, Seat};
//! use viaduct::config::Policy;
//! use viaduct::net::{PoolIndex, ServerId, ServerIndex};
//! use viaduct::time::Instant;
//!
//! let seats = [1, 2].map(|slot| Seat {
//!     member: Member { server: ServerIndex(slot), id: ServerId(slot.into()), weight: 1 },
//!     priority: 0,
//!     max_calls: 0,
//!     max_calls_per_second: 0,
//!     returned_at: None,
//! });
//! let pool = Chooser::new(&[7; 16], Policy::RoundRobin, PoolIndex(0), &seats)?;
//! let board = Board::new();
//! let choose = |key, tried: &[ServerIndex]| {
//!     pool.choose(&Choice { board: &board, key: AffinityKey(key), tried, now: Instant::ZERO })
//! };
//! let first = choose(1, &[]).unwrap();
//! assert_ne!(choose(2, &[]), Some(first));
//! let second = choose(1, &[first]).unwrap();
//! assert_eq!(choose(1, &[first, second]), None);
//! # Ok::<(), viaduct::balance::TableError>(())
//! ```

use core::time::Duration;
use std::collections::BTreeMap;

use super::choice::{Choice, Round};
use super::least::Least;
use super::round_robin::RoundRobin;
use super::{AffinityKey, Maglev, Member, Rendezvous, StatefulSelect, StatelessSelect, TableError};
use crate::config::Policy;
use crate::net::{PoolIndex, ServerIndex};
use crate::time::Instant;

/// A server's place in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The server and its weight.
    pub member: Member,
    /// Its group; lower ones come first.
    pub priority: u8,
    /// Calls at once, those that are being set up included; 0 = no limit.
    pub max_calls: u32,
    /// New calls per second; 0 = no limit.
    pub max_calls_per_second: u32,
    /// When it came back from being down: from then on it grows to its weight.
    pub returned_at: Option<Instant>,
}

/// The servers of a pool, and how one of them is chosen.
#[derive(Debug)]
pub struct Chooser {
    pool: PoolIndex,
    slow_start: Duration,
    // INVARIANT: at least one; by priority.
    groups: Box<[Group]>,
}

/// Servers of one priority.
#[derive(Debug)]
pub(super) struct Group {
    /// In the order of their slots; every weight is above 0.
    seats: Box<[Seat]>,
    /// `None` for a pool that chooses by rendezvous: nothing looks keys up in it.
    table: Option<Maglev>,
    rendezvous: Rendezvous,
    selector: Selector,
}

#[derive(Debug)]
enum Selector {
    /// By key, with or without a table.
    ByKey,
    RoundRobin(RoundRobin),
    Least(Least),
}

/// Draws from a table before all its servers are looked at.
pub(super) const DRAWS: u64 = 8;

impl Chooser {
    /// Prepares a pool; servers without weight are not in it.
    ///
    /// # Errors
    /// Refuses servers that cannot be told apart, too many of them, and weights out of bounds.
    pub fn new(
        seed: &[u8; 16],
        policy: Policy,
        pool: PoolIndex,
        seats: &[Seat],
    ) -> Result<Self, TableError> {
        let mut seats: Vec<Seat> = seats.to_vec();
        // Faults of servers without weight are faults too.
        super::sorted(&members(&seats))?;
        seats.retain(|seat| seat.member.weight > 0);
        seats.sort_unstable_by_key(|seat| (seat.priority, seat.member.server));
        let groups = seats
            .chunk_by(|one, next| one.priority == next.priority)
            .map(|seats| Group::new(seed, policy, seats));
        Ok(Self {
            pool,
            slow_start: Duration::ZERO,
            groups: groups.collect::<Result<_, _>>()?,
        })
    }

    /// The same, and a server that returns grows to its weight over `span`.
    #[must_use]
    pub fn with_slow_start(self, span: Duration) -> Self {
        Self {
            slow_start: span,
            ..self
        }
    }

    /// Whether no server has weight.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The table of the first group, in which keys are looked up without state; `None` if the pool
    /// chooses by rendezvous, or no server has weight.
    pub fn table(&self) -> Option<&Maglev> {
        self.groups.first()?.table.as_ref()
    }

    /// The share of all keys, 0 to 1, that each server of the first group gets without state: of a
    /// table as it is, of rendezvous as it tends to be.
    pub fn shares(&self) -> Vec<(ServerIndex, f64)> {
        let Some(group) = self.groups.first() else {
            return Vec::new();
        };
        let mut counts = BTreeMap::new();
        match &group.table {
            None => counts.extend(
                group
                    .seats
                    .iter()
                    .map(|seat| (seat.member.server, seat.member.weight)),
            ),
            Some(table) => table
                .entries()
                .for_each(|server| *counts.entry(server).or_default() += 1),
        }
        let all = f64::from(counts.values().sum::<u32>());
        let share = |(server, count)| (server, f64::from(count) / all);
        counts.into_iter().map(share).collect()
    }

    /// The server of a request whose transaction we hold; `None` if no server can take it.
    ///
    /// Who was tried is left out, and who is full or asked for a pause. Taking a server counts
    /// against its calls per second at once; against its calls when the caller tells the board.
    /// Workers that choose at the same moment may together pass `max_calls` by one less than there
    /// are workers.
    pub fn choose(&self, choice: &Choice<'_>) -> Option<ServerIndex> {
        let round = Round::new(choice, self);
        for group in &self.groups {
            // Another worker may take the last of a server's calls per second in between.
            for _ in 0..DRAWS {
                let Some(server) = group.choose(&round) else {
                    break;
                };
                let rate = group
                    .seat(server)
                    .map_or(0, |seat| seat.max_calls_per_second);
                if choice.board.take_of_rate(server, rate, choice.now) {
                    return Some(server);
                }
            }
        }
        None
    }

    pub(super) fn pool(&self) -> PoolIndex {
        self.pool
    }

    pub(super) fn slow_start(&self) -> Duration {
        self.slow_start
    }

    pub(super) fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.groups.iter().flat_map(|group| &group.seats)
    }
}

impl StatelessSelect for Chooser {
    #[inline]
    fn select(&self, key: AffinityKey) -> Option<ServerIndex> {
        let group = self.groups.first()?;
        match &group.table {
            Some(table) => table.select(key),
            None => group.rendezvous.select(key),
        }
    }
}

impl Group {
    fn new(seed: &[u8; 16], policy: Policy, seats: &[Seat]) -> Result<Self, TableError> {
        let members = members(seats);
        Ok(Self {
            seats: seats.into(),
            table: match policy {
                Policy::Rendezvous => None,
                _ => Some(Maglev::new(seed, &members)?),
            },
            rendezvous: Rendezvous::new(seed, &members)?,
            selector: match policy {
                Policy::Maglev | Policy::Rendezvous => Selector::ByKey,
                Policy::RoundRobin => Selector::RoundRobin(RoundRobin::new(&members)),
                Policy::LeastLoaded => Selector::Least(Least::Loaded),
                Policy::Tlwl => Selector::Least(Least::Work),
            },
        })
    }

    pub(super) fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// The place of a server of this group.
    #[inline]
    pub(super) fn seat(&self, server: ServerIndex) -> Option<&Seat> {
        let at = self
            .seats
            .binary_search_by_key(&server, |seat| seat.member.server)
            .ok()?;
        self.seats.get(at)
    }

    /// The seat that a key draws, by weight.
    #[inline]
    pub(super) fn drawn(&self, key: AffinityKey) -> Option<&Seat> {
        self.seat(self.table.as_ref()?.select(key)?)
    }

    /// Of all servers that can take the request, the one that a key means.
    pub(super) fn of_all(&self, key: AffinityKey, round: &Round<'_>) -> Option<ServerIndex> {
        let weight = |server| round.weight(self.seat(server)?);
        self.rendezvous.select_by(key, weight)
    }
}

impl StatefulSelect for Group {
    fn choose(&self, round: &Round<'_>) -> Option<ServerIndex> {
        match &self.selector {
            Selector::ByKey => self.by_key(round),
            Selector::RoundRobin(policy) => policy.choose(self, round),
            Selector::Least(policy) => policy.choose(self, round),
        }
    }
}

impl Group {
    /// The server that the table gives; if that cannot take the request, the next that it gives for
    /// the same key; after some draws whichever of all the key means.
    fn by_key(&self, round: &Round<'_>) -> Option<ServerIndex> {
        if self.table.is_some() {
            let drawn = (0..DRAWS).filter_map(|number| self.drawn(round.draw(number)));
            if let Some(seat) = drawn.into_iter().find(|seat| round.takes(seat)) {
                return Some(seat.member.server);
            }
        }
        self.of_all(round.draw(0), round)
    }
}

fn members(seats: &[Seat]) -> Vec<Member> {
    seats.iter().map(|seat| seat.member).collect()
}

#[cfg(test)]
mod tests;
