//! Records that workers leave and a thread writes to a file, a line or more for each.
//!
//! ```text
//!  worker: record of fixed size ─► bounded queue ─► writer thread: lines ─► file
//! ```
//!
//! Workers never wait and never allocate: a full queue loses records, and counts them. The file is
//! opened again at every reload, as log rotation wants it. What a line looks like is the affair of
//! who makes the [`Service`]: the common log (`clf`) and the call log ([`CallRecord`]) do.

mod call;
mod line;
mod sample;
mod service;

pub use call::{Attempt, CallEnd, CallJournal, CallRecord, Text};
pub use line::{CallNames, call_line, rfc3339};
pub use sample::is_sampled;
pub use service::{Journal, OpenError, Prepared, Service};
