//! Which server a key means.
//!
//! A pool's lookup table is built once per snapshot and then only read. It is a function of the
//! seed and of the servers' stable ids and weights: not of their order in the configuration, nor of
//! the node, nor of time.
//!
//! RFC 3261 §16.11: a stateless proxy's choice of target "MUST only rely on fields in the message
//! and time-invariant properties of the server". The type system holds us to it: [`Maglev`] and
//! [`Rendezvous`] are [`StatelessSelect`]; what looks at load is [`StatefulSelect`], and whoever
//! forwards without a transaction cannot take it:
//!
//! ```compile_fail,E0277
//! use viaduct::balance::{AffinityKey, Round, StatefulSelect, StatelessSelect};
//! use viaduct::net::ServerIndex;
//!
//! struct LeastLoaded;
//! impl StatefulSelect for LeastLoaded {
//!     fn choose(&self, _: &Round<'_>) -> Option<ServerIndex> {
//!         Some(ServerIndex(0))
//!     }
//! }
//!
//! fn forward_without_state(policy: &impl StatelessSelect) -> Option<ServerIndex> {
//!     policy.select(AffinityKey(1))
//! }
//! forward_without_state(&LeastLoaded);
//! ```
//!
//! ```
//! use viaduct::balance::{AffinityKey, Maglev, Member, StatelessSelect};
//! use viaduct::net::{ServerId, ServerIndex};
//!
//! let member = |slot: u16, weight| Member {
//!     server: ServerIndex(slot),
//!     id: ServerId(1000 + u32::from(slot)),
//!     weight,
//! };
//! let table = Maglev::new(&[7; 16], &[member(0, 1), member(1, 2), member(2, 0)])?;
//! let server = table.select(AffinityKey(0x1234_5678_9abc_def0));
//! assert!(server.is_some_and(|server| server.0 < 2));
//! # Ok::<(), viaduct::balance::TableError>(())
//! ```

mod board;
mod choice;
mod chooser;
mod cost;
mod leases;
mod least;
mod maglev;
mod moves;
mod rendezvous;
mod round_robin;

pub use board::{Board, CallNote, Load, Outcomes, Probe, Work};
pub use choice::{Choice, Round};
pub use chooser::{Chooser, Seat};
pub use cost::Cost;
pub use leases::CallLeases;
pub use maglev::Maglev;
pub use moves::Moves;
pub use rendezvous::Rendezvous;

use crate::limits::{SERVERS_MAX, WEIGHT_MAX};
use crate::net::{ServerId, ServerIndex};

/// What a message is balanced by: a keyed hash, of the Call-ID by default, uniform over all 64 bits.
///
/// Tables take the high half; the low half chooses the home worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AffinityKey(pub u64);

/// A policy whose choice is a function of the key and of the configuration.
pub trait StatelessSelect {
    /// The server of a key, `None` if no server has weight.
    fn select(&self, key: AffinityKey) -> Option<ServerIndex>;
}

/// A policy that looks at what servers do now, so that its choice has to be remembered: only for
/// those who hold a transaction.
pub trait StatefulSelect {
    /// The server for a request, `None` if no server can take it.
    fn choose(&self, round: &Round<'_>) -> Option<ServerIndex>;
}

/// One server of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its slot, what a selection returns.
    pub server: ServerIndex,
    /// Its stable id, what its place in the table depends on.
    pub id: ServerId,
    /// Its share; 0 gets no new keys.
    pub weight: u32,
}

/// Why a table cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// More servers than there are slots.
    #[error("{0} servers are more than {SERVERS_MAX}")]
    TooManyServers(usize),
    /// Two servers with one id: their names hash alike, or one name is there twice.
    #[error("servers {0:?} and {1:?} have the same id; rename one of them")]
    SameId(ServerIndex, ServerIndex),
    /// A weight above the bound.
    #[error("server {0:?} has weight {1}, above {WEIGHT_MAX}")]
    Weight(ServerIndex, u32),
}

/// The members in the order of their ids, checked.
fn sorted(members: &[Member]) -> Result<Vec<Member>, TableError> {
    if members.len() > SERVERS_MAX {
        return Err(TableError::TooManyServers(members.len()));
    }
    let mut members = members.to_vec();
    members.sort_unstable_by_key(|member| member.id);
    for pair in members.windows(2) {
        if pair[0].id == pair[1].id {
            return Err(TableError::SameId(pair[0].server, pair[1].server));
        }
    }
    match members.iter().find(|member| member.weight > WEIGHT_MAX) {
        Some(heavy) => Err(TableError::Weight(heavy.server, heavy.weight)),
        None => Ok(members),
    }
}
