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
mod service;
mod tap;
#[cfg(test)]
mod tests;

pub use format::line;
pub use record::{Field, Record};
pub use sample::is_sampled;
pub use service::{Log, OpenError, Prepared, Service};
pub use tap::Tap;
