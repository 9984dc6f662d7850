//! Choosing a server for a request whose transaction we hold: by key, and by what is known now.

use super::rendezvous::mix;
use super::{AffinityKey, Board, Maglev, StatelessSelect};
use crate::net::ServerIndex;
use crate::time::Instant;

/// What a choice among the servers of a pool looks at besides the pool.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// What servers do now.
    pub board: &'a Board,
    /// What the request is balanced by.
    pub key: AffinityKey,
    /// Servers that this request was sent to already: never chosen again.
    pub tried: &'a [ServerIndex],
    /// The time.
    pub now: Instant,
}

/// Draws from a table before all its servers are looked at.
const DRAWS: u64 = 8;

impl Choice<'_> {
    /// The key of the `number`th draw: its own, then others that are a function of it.
    #[inline]
    pub(super) fn draw(&self, number: u64) -> AffinityKey {
        match number {
            0 => self.key,
            _ => AffinityKey(mix(self.key.0 ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
        }
    }

    /// The server that a table gives, or the next one that it gives for the same key if that was
    /// tried.
    pub fn of_table(&self, table: &Maglev) -> Option<ServerIndex> {
        let untried = |server: &ServerIndex| !self.tried.contains(server);
        let drawn = (0..DRAWS).filter_map(|number| table.select(self.draw(number)));
        drawn.chain(table.entries()).find(|server| untried(server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Member;
    use crate::net::ServerId;

    #[test]
    fn a_tried_server_is_never_chosen_again_and_each_comes_once() {
        let members: Vec<Member> = (0..5)
            .map(|slot| Member {
                server: ServerIndex(slot),
                id: ServerId(100 + u32::from(slot)),
                // The last server has hardly any entries: draws miss it, the scan does not.
                weight: if slot == 4 { 1 } else { 1000 },
            })
            .collect();
        let table = Maglev::new(&[7; 16], &members).unwrap();
        let board = Board::new();
        for key in 0..100_u64 {
            let key = AffinityKey(mix(key));
            let mut tried = Vec::new();
            let choose = |tried: &[ServerIndex]| {
                let choice = Choice {
                    board: &board,
                    key,
                    tried,
                    now: Instant::ZERO,
                };
                choice.of_table(&table)
            };
            assert_eq!(choose(&[]), table.select(key));
            while let Some(server) = choose(&tried) {
                assert!(!tried.contains(&server));
                tried.push(server);
            }
            assert_eq!(tried.len(), 5);
        }
    }
}
