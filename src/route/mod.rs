//! Where messages come from and where they go, as data: the [`Plan`].
//!
//! Built from the configuration, and from what is known of the servers besides ([`Standing`]), off
//! the data path, then immutable; workers pick a new one up
//! between batches. It knows our own addresses and names, the farm's, the route table, the keys, and
//! which listener a request leaves from. Where a dialog leads is [`forward`]'s affair; the table is
//! asked when none does.
//!
//! [`forward`]: crate::forward

mod key;
mod listener;
mod networks;
mod plan;
mod registry;
mod rules;
mod standing;
#[cfg(test)]
mod tests;

pub use key::{HeaderKey, KeySource};
pub use listener::Listener;
pub use networks::Networks;
pub use plan::{Plan, PlanError, Pool, Rules, Server, ServerState};
pub use registry::{RegistryError, ServerRegistry, server_id};
pub use rules::{Action, Condition, Question, Rule};
pub use standing::{Health, OperatorState, ServerStanding, Standing};

/// Where a datagram comes from, by its source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A server of a pool.
    Farm,
    /// A peer that the operator trusts: a carrier, another proxy.
    Trusted,
    /// Anybody else.
    Outside,
}
