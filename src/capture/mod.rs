//! Captures: copies of what workers receive and send, for an operator to look at.
//!
//! ```text
//!  worker: received ─► filter ─► slot ─► decide ─► mark it ─► filled ring ─┐
//!                                 ▲                 sent ─► slot ─► filled ─┤
//!                                 └───────────── free ring ◄── pcapng ◄─────┘  somebody else's thread
//! ```
//!
//! tcpdump sees nothing of what AF_XDP receives, so viaduct tells it itself. A [`Session`] owns a
//! fixed number of slots. Workers take free ones, copy into them and pass them on; they never
//! allocate, lock or wait: without a free slot the copy is lost and counted. While there is no
//! session a batch costs one relaxed load.
//!
//! Every datagram that is decided over appears once as received, with what became of it, and once
//! more as sent if it was; the two share a number. What the data path drops before the decision
//! (checksums, fragments, foreign addresses) is in the drop counters alone.
//!
//! Left to others: who asks, and where the bytes of [`pcapng`] go.

mod filter;
pub mod pcapng;
mod query;
mod session;
mod tap;
#[cfg(test)]
mod tests;

pub use filter::{Filter, Peer, PeerError};
pub use query::Request;
pub use session::{Captures, Direction, Fate, Interface, Running, Session, Slot};
pub use tap::Tap;
