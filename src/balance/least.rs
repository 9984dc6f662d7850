//! The least loaded server, by what it has to do relative to its weight.
//!
//! Two measures. *Least-loaded* counts open transactions and standing calls: for servers whose
//! calls cost something while they stand, a media server or a B2BUA. *TLWL*, transaction
//! least-work-left, counts what open transactions still cost: Jiang, Iyengar, Nahum, Segmuller,
//! Tantawi, Wright, "Design, Implementation, and Performance of a Load Balancer for SIP Server
//! Clusters" (IEEE/ACM Transactions on Networking 20(4), 2012), where it was the best of all: a
//! slow server has more open transactions, whatever its weight says.
//!
//! In a small pool all servers are compared. In a large one two are drawn by weight and the better
//! one taken (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001): nearly
//! as good, the cost does not grow with the pool, and workers that look at one board do not all run
//! to the same server. The drawing is by the key, so that a choice is a function of key and board.

use core::cmp::Ordering;

use super::choice::Round;
use super::chooser::{DRAWS, Group, Seat};
use super::rendezvous::{mix, negative_log2};
use super::{AffinityKey, Cost, Load};
use crate::limits::CHOICE_SCAN_MAX;
use crate::net::ServerIndex;

/// What is least.
#[derive(Clone, Copy, Debug)]
pub(super) enum Least {
    /// Open transactions and standing calls.
    Loaded,
    /// Work left of open transactions.
    Work,
}

/// A server that can take the request.
#[derive(Clone, Copy)]
struct Candidate<'g> {
    seat: &'g Seat,
    weight: u64,
    amount: u64,
}

impl Least {
    pub(super) fn choose(self, group: &Group, round: &Round<'_>) -> Option<ServerIndex> {
        let cost = match self {
            Self::Loaded => Cost::default(),
            Self::Work => round.cost(),
        };
        let candidate = |seat| {
            Some(Candidate {
                seat,
                weight: round.weight(seat)?,
                amount: self.amount(round.load(seat), cost),
            })
        };
        if group.seats().len() <= CHOICE_SCAN_MAX {
            let all = group.seats().iter().filter_map(candidate);
            let best = all.reduce(|best, next| better(best, next, round.choice.key))?;
            return Some(best.seat.member.server);
        }
        let mut first: Option<Candidate<'_>> = None;
        let drawn = (0..DRAWS).filter_map(|number| group.drawn(round.draw(number)));
        for next in drawn.filter_map(candidate) {
            match first {
                None => first = Some(next),
                Some(other) if other.seat.member.server == next.seat.member.server => {}
                Some(other) => {
                    // Who was drawn first has its share by weight already.
                    let second = next.cmp(&other) == Ordering::Less;
                    let best = if second { next } else { other };
                    return Some(best.seat.member.server);
                }
            }
        }
        match first {
            Some(only) => Some(only.seat.member.server),
            None => group.of_all(round.draw(0), round),
        }
    }

    fn amount(self, load: Load, cost: Cost) -> u64 {
        match self {
            Self::Loaded => u64::from(load.open()) + u64::from(load.calls),
            Self::Work => cost.of(load),
        }
    }
}

impl Candidate<'_> {
    /// Who has less to do for its weight.
    fn cmp(&self, other: &Self) -> Ordering {
        let left = u128::from(self.amount) * u128::from(other.weight);
        left.cmp(&(u128::from(other.amount) * u128::from(self.weight)))
    }

    /// As rendezvous does it: the smallest draw for its weight has the key.
    fn draw(&self, key: AffinityKey) -> u64 {
        let own = u64::from(self.seat.member.id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        negative_log2(mix(key.0 ^ mix(own)))
    }
}

/// The one with less to do for its weight. Servers that are alike share keys by weight.
fn better<'g>(one: Candidate<'g>, other: Candidate<'g>, key: AffinityKey) -> Candidate<'g> {
    let by_draw = || (one.draw(key) * other.weight).cmp(&(other.draw(key) * one.weight));
    match one.cmp(&other).then_with(by_draw) {
        Ordering::Greater => other,
        Ordering::Less | Ordering::Equal => one,
    }
}
