//! The proxy core: requests that are handled with a transaction, RFC 3261 §16.2 to §16.10, and the
//! stateless forwarder for all others.
//!
//! [`Proxy::on_message`] takes a datagram like [`Forwarder::decide`]; messages of its own go to an
//! [`Outbox`], and [`Proxy::on_timer`] runs what is due. Pure: bytes and `now` in, bytes out.
//!
//! | file | RFC |
//! |---|---|
//! | `compose` | requests of our own on a branch: the ACK of RFC 3261 §17.1.1.3, the CANCEL of §9.1 |

pub mod compose;
mod outbox;

pub use self::outbox::Outbox;
use crate::forward::Forwarder;
use crate::net::Flow;
use crate::packet::Buffer;
use crate::route::Plan;
use crate::time::Instant;
use crate::verdict::{DropReason, Verdict};

/// The proxy of one worker.
#[derive(Debug)]
pub struct Proxy {
    forwarder: Forwarder,
}

impl Proxy {
    /// A proxy over a worker's forwarder.
    pub fn new(forwarder: Forwarder) -> Self {
        Self { forwarder }
    }

    /// Decides about one datagram.
    ///
    /// On [`Verdict::Transmit`] the buffer holds what to send and `flow` says from where to whom.
    pub fn on_message(
        &mut self,
        plan: &Plan,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
        now: Instant,
        _out: &mut dyn Outbox,
    ) -> Verdict {
        self.forwarder.decide(plan, buffer, flow, now)
    }

    /// An ICMP error says that a request of ours cannot be delivered: `quoted` is its beginning.
    /// Returns what the report is counted as.
    pub fn on_unreachable(
        &mut self,
        plan: &Plan,
        quoted: &[u8],
        flow: &Flow,
        _now: Instant,
        _out: &mut dyn Outbox,
    ) -> DropReason {
        self.forwarder.on_unreachable(plan, quoted, flow)
    }

    /// Runs what is due; returns when something is due next.
    pub fn on_timer(
        &mut self,
        _plan: &Plan,
        _now: Instant,
        _out: &mut dyn Outbox,
    ) -> Option<Instant> {
        None
    }

    /// When something is due next.
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// Whether the last message was a 2xx to an INVITE or a REGISTER.
    pub fn was_acceptance(&self) -> bool {
        self.forwarder.was_acceptance()
    }
}
