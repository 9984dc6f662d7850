//! Which servers answer: what probes and traffic show becomes [`Health`] in a plan.
//!
//! ```text
//!   workers ──► balance::Board ──► Monitor::tick ──► route::Standing ──► Plan ──► workers
//!   probes, outcomes    every 100 ms, by whoever owns configuration and standing
//! ```
//!
//! The [`Monitor`] is pure: time, the board and the plan in, changes out. Two kinds of evidence:
//!
//! - *Probes* (`proxy::probe` sends them) are about one server alone. `fall` without an accepted
//!   answer take it out, whatever becomes of the pool; `rise` accepted ones bring it back.
//! - *Traffic* takes a server out at once (unreachable), after silence, by its share of 5xx or when
//!   it asks for it (Retry-After). What callees and carriers do shows there too, so it never takes
//!   out more than `max_ejected_percent` of a pool, counts 5xx only against a server that does worse
//!   than another, and lasts for a time that doubles while the server keeps failing.
//!
//! ```text
//!            fall probes, traffic              accepted probe, time over
//!   Active ────────────────────────► Down ────────────────────────────► Probing
//!      ▲                              ▲ failed probe                      │  │
//!      │                              └───────────────────────────────────┘  │
//!      └─────────────────────────────────────────────────────────────────────┘ rise probes
//! ```
//!
//! [`Health`]: crate::route::Health

mod monitor;
#[cfg(test)]
mod tests;
mod watch;
mod window;

pub use monitor::{Change, Monitor};
pub use watch::Cause;
