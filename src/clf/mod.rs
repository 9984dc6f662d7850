//! The SIP Common Log Format: a line for every message, for whole calls picked by chance
//! (RFC 6872, in the form of RFC 6873).
//!
//! ```text
//!  worker: Call-ID ─► sampled? ─► record ─► decide ─► queue ◄─ record ◄─ sent
//!                                                       │
//!                                  writer thread ───────┴─► lines ─► file
//! ```
//!
//! A sample is one of N Call-IDs, told by a hash that is the same on every node: all messages of a
//! call are logged, or none. Workers fill records of fixed size and never wait: a full queue loses
//! records, and counts them. What became of a message is not part of the format; that a received
//! one has no sent one behind it says that it was dropped.

mod format;
mod record;
mod sample;
mod tap;
#[cfg(test)]
mod tests;

pub use format::line;
pub use record::{Field, Record};
pub use tap::Tap;

use crate::journal::{self, Journal};
use crate::limits::CLF_QUEUE_LEN;

/// The log as workers see it.
pub type Log = Journal<Record>;

/// The log of the process.
pub type Service = journal::Service<Record>;

impl Default for Service {
    fn default() -> Self {
        Self::new("log.common", CLF_QUEUE_LEN, line)
    }
}

impl Service {
    /// What a worker looks through.
    pub fn tap(&self) -> Tap {
        Tap::new(self.follow())
    }
}
