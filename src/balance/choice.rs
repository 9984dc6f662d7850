//! Choosing a server for a request whose transaction we hold: what is asked, and who can take it.

use core::cell::Cell;

use super::chooser::{Chooser, Seat};
use super::rendezvous::mix;
use super::{AffinityKey, Board, Cost, Load};
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

/// A whole weight: weights are multiplied by this, so that a part of the smallest is a number.
pub(super) const WHOLE: u64 = 1024;

/// One choice while it is made.
///
/// What is asked of the board more than once is asked once: the turn in a round, and whether
/// Retry-After is honoured.
pub struct Round<'a> {
    pub(super) choice: &'a Choice<'a>,
    chooser: &'a Chooser,
    turn: Cell<Option<u64>>,
    honours_retry_after: Cell<Option<bool>>,
}

impl<'a> Round<'a> {
    pub(super) fn new(choice: &'a Choice<'a>, chooser: &'a Chooser) -> Self {
        Self {
            choice,
            chooser,
            turn: Cell::new(None),
            honours_retry_after: Cell::new(None),
        }
    }

    /// The key of the `number`th draw: its own, then others that are a function of it.
    #[inline]
    pub(super) fn draw(&self, number: u64) -> AffinityKey {
        let key = self.choice.key;
        match number {
            0 => key,
            _ => AffinityKey(mix(key.0 ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
        }
    }

    /// The pool's turn, one for each request. `None` for another attempt of a request that had its
    /// turn: with one server dead, each of its turns would else take its successor's too.
    pub(super) fn turn(&self) -> Option<u64> {
        if !self.choice.tried.is_empty() {
            return None;
        }
        if self.turn.get().is_none() {
            let turn = self.choice.board.next_turn(self.chooser.pool());
            self.turn.set(Some(turn));
        }
        self.turn.get()
    }

    /// What the server has to do now.
    #[inline]
    pub(super) fn load(&self, seat: &Seat) -> Load {
        self.choice.board.load(seat.member.server)
    }

    /// What transactions with the servers of this pool cost.
    pub(super) fn cost(&self) -> Cost {
        self.choice.board.cost(self.chooser.pool())
    }

    /// The weight of a server in this choice, in [`WHOLE`]s; `None` if it cannot take the request.
    #[inline]
    pub(super) fn weight(&self, seat: &Seat) -> Option<u64> {
        let Choice {
            board, tried, now, ..
        } = *self.choice;
        let server = seat.member.server;
        let limited = seat.max_calls > 0;
        if tried.contains(&server)
            || limited && board.load(server).committed() >= seat.max_calls
            || !board.rate_allows(server, seat.max_calls_per_second, now)
            || board.retry_after_until(server) > now && self.honours_retry_after()
        {
            return None;
        }
        Some(u64::from(seat.member.weight) * self.grown(seat))
    }

    /// The part of its weight that a server has grown to, 1 to [`WHOLE`].
    #[inline]
    fn grown(&self, seat: &Seat) -> u64 {
        let Some(since) = seat.returned_at else {
            return WHOLE;
        };
        let (age, span) = (self.choice.now.since(since), self.chooser.slow_start());
        if age >= span {
            return WHOLE;
        }
        let part = age.as_nanos() * u128::from(WHOLE) / span.as_nanos().max(1);
        u64::try_from(part).unwrap_or(WHOLE).max(1)
    }

    /// Whether a server that was drawn takes the request. One that grows takes the keys below its
    /// part: more and more of them, and none that it took before is given up.
    #[inline]
    pub(super) fn takes(&self, seat: &Seat) -> bool {
        let Some(weight) = self.weight(seat) else {
            return false;
        };
        let full = u64::from(seat.member.weight) * WHOLE;
        if weight >= full {
            return true;
        }
        let own = u64::from(seat.member.id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let place = u128::from(mix(self.choice.key.0 ^ own)) * u128::from(full);
        place >> 64 < u128::from(weight)
    }

    /// RFC 3261 §21.5.4: a server that said 503 with Retry-After "SHOULD NOT" get requests until
    /// then. But a farm that relays its carrier's 503 is not to be emptied by it: while more than
    /// half of a pool asks for a pause, nobody has one.
    fn honours_retry_after(&self) -> bool {
        if let Some(known) = self.honours_retry_after.get() {
            return known;
        }
        let Choice { board, now, .. } = *self.choice;
        let (mut servers, mut waiting) = (0_usize, 0_usize);
        for seat in self.chooser.seats() {
            servers += 1;
            waiting += usize::from(board.retry_after_until(seat.member.server) > now);
        }
        let honours = waiting * 2 <= servers;
        self.honours_retry_after.set(Some(honours));
        honours
    }
}
