//! Where messages come from and where they go, as data: the [`Plan`].
//!
//! Built from the configuration off the data path, then immutable; workers pick a new one up
//! between batches. It knows our own addresses and names, the farm's, which pool a listener's
//! requests go to and which listener a request leaves from. What a message says is [`forward`]'s
//! affair; this module never sees one.
//!
//! [`forward`]: crate::forward

mod listener;
mod networks;
mod plan;
mod registry;
#[cfg(test)]
mod tests;

pub use listener::Listener;
pub use networks::Networks;
pub use plan::{Plan, PlanError, Pool, Rules, Server, ServerState};
pub use registry::{RegistryError, ServerRegistry, server_id};

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
