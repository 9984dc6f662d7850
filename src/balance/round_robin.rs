//! Weighted round robin: every server has its turns, as many as its weight, spread over the round.
//!
//! The round is written down when the pool is built: a server's *j*-th turn stands at
//! (*j* + ½) / weight of the round, the order that the smooth weighted round robin of nginx tends
//! to. So a choice is one step of a counter that all workers share, and no server's turns come in
//! a row because its weight is high.

use core::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Member;
use super::choice::Round;
use super::chooser::{DRAWS, Group};
use crate::limits::ROUND_LEN_MAX;
use crate::net::ServerIndex;

/// The servers of a round in the order of their turns.
#[derive(Clone, Debug)]
pub(super) struct RoundRobin {
    turns: Box<[ServerIndex]>,
}

impl RoundRobin {
    /// The round of servers that all have weight.
    pub(super) fn new(members: &[Member]) -> Self {
        let divisor = members
            .iter()
            .map(|member| member.weight)
            .fold(0, greatest_common_divisor)
            .max(1);
        let len: u64 = members
            .iter()
            .map(|member| u64::from(member.weight / divisor))
            .sum();
        // A round that is too long is shortened: shares are then right to a turn.
        let shorter = len.div_ceil(ROUND_LEN_MAX as u64).max(1);
        let count = |member: &Member| (u64::from(member.weight / divisor) / shorter).max(1);
        let len = members.iter().map(count).sum::<u64>();
        // Time, then the order of ids: a round does not depend on the order of the configuration.
        let mut next: BinaryHeap<Reverse<(u64, u32, usize)>> = (0..)
            .zip(members)
            .map(|(index, member)| Reverse((ROUND / count(member) / 2, member.id.0, index)))
            .collect();
        let mut turns = Vec::new();
        for _ in 0..len {
            let Some(mut turn) = next.peek_mut() else {
                break;
            };
            let Reverse((time, id, index)) = *turn;
            let Some(member) = members.get(index) else {
                break;
            };
            turns.push(member.server);
            *turn = Reverse((time + ROUND / count(member), id, index));
        }
        Self {
            turns: turns.into(),
        }
    }

    /// The server whose turn it is. If it cannot take the request, or the request had its turn
    /// already, whom its key draws: the turns of one server are spread over all others.
    pub(super) fn choose(&self, group: &Group, round: &Round<'_>) -> Option<ServerIndex> {
        let turn = round.turn().and_then(|turn| self.of(turn));
        if let Some(seat) = turn.and_then(|server| group.seat(server))
            && round.takes(seat)
        {
            return Some(seat.member.server);
        }
        let drawn = (0..DRAWS).filter_map(|number| group.drawn(round.draw(number)));
        match drawn.into_iter().find(|seat| round.takes(seat)) {
            Some(seat) => Some(seat.member.server),
            None => group.of_all(round.draw(0), round),
        }
    }

    fn of(&self, turn: u64) -> Option<ServerIndex> {
        let at = turn.checked_rem(self.turns.len() as u64)?;
        self.turns.get(usize::try_from(at).ok()?).copied()
    }
}

/// Length of a round in time.
const ROUND: u64 = 1 << 42;

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ServerId;

    fn members(weights: &[u32]) -> Vec<Member> {
        (0_u16..)
            .zip(weights)
            .map(|(slot, weight)| Member {
                server: ServerIndex(slot),
                id: ServerId(100 + u32::from(slot)),
                weight: *weight,
            })
            .collect()
    }

    #[test]
    fn a_round_has_every_turn_and_spreads_them() {
        let turns = |weights: &[u32]| -> Vec<u16> {
            let round = RoundRobin::new(&members(weights));
            round.turns.iter().map(|server| server.0).collect()
        };
        assert_eq!(turns(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(turns(&[500, 250, 250]), [0, 1, 2, 0]);
        assert_eq!(turns(&[5, 1, 1]), [0, 0, 0, 1, 2, 0, 0]);
        assert_eq!(turns(&[7]), [0]);
        assert!(turns(&[]).is_empty());
    }

    #[test]
    fn a_round_that_would_be_too_long_is_shortened_and_shares_stay() {
        let weights: Vec<u32> = (0..4096)
            .map(|slot| if slot < 4 { 999 } else { 100 })
            .collect();
        let round = RoundRobin::new(&members(&weights));
        assert!(round.turns.len() <= ROUND_LEN_MAX + weights.len());
        let count = |slot| round.turns.iter().filter(|of| of.0 == slot).count();
        let (heavy, light) = (count(0), count(4000));
        assert!((9..=11).contains(&(heavy / light)), "{heavy} {light}");
    }
}
