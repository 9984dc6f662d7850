//! Requests of ours that did not arrive, RFC 3261 §18.4: which they were, and whether they were ours.
//!
//! An ICMP error quotes the start of the datagram that it is about: 520 bytes of the message from a
//! Linux host over IPv4, some 1,180 over IPv6, none from an old router. Anybody can write one, so it
//! counts only if the quote bears our `Via` with its MAC, which is at the top for this, and the `Via`
//! below, which the MAC covers.

use super::Forwarder;
use super::hop::listener_of;
use super::via::next_hop;
use crate::affinity::{Branch, CallIdHash, VIA_PARAMETER_NAME, ViaParameter};
use crate::net::{Endpoint, Flow, Protocol, ServerId, ServerIndex};
use crate::route::Plan;
use crate::sip::{Kind, Method, ParseError};
use crate::verdict::DropReason;

/// A request that was sent from here and did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// Its branch, which names its transaction.
    pub branch: Branch,
    /// What our `Via` says beside it.
    pub parameter: ViaParameter,
    /// The server it went to; `None` if it went outside.
    pub server: Option<ServerIndex>,
    /// Hash of its Call-ID; `None` if the quote ends before.
    pub call_id: Option<CallIdHash>,
    /// Its method.
    pub method: Method,
}

impl Forwarder {
    /// Reads the quoted part of a datagram of ours that went along `flow`.
    ///
    /// # Errors
    /// [`DropReason::Unreachable`] if it is no request that we forwarded: a response, whose loss its
    /// server repairs (RFC 3261 §16.9), or a message of our own. [`DropReason::UnreachableCut`] if the
    /// quote ends before that is known, and [`DropReason::UnreachableForged`] if we sent no such thing.
    pub fn undelivered(
        &mut self,
        plan: &Plan,
        quoted: &[u8],
        flow: &Flow,
    ) -> Result<Undelivered, DropReason> {
        // Whole rows are indexed, whatever follows them.
        let parsed = self.message.parse(quoted);
        let missing = match parsed {
            Err(ParseError::HeadersUnterminated) => DropReason::UnreachableCut,
            _ => DropReason::UnreachableForged,
        };
        match self.message.kind() {
            Kind::Request => {}
            Kind::Response => return Err(DropReason::Unreachable),
            Kind::Unknown => return Err(DropReason::UnreachableCut),
        }
        let forged = DropReason::UnreachableForged;
        let own = self.message.top_via().ok_or(missing)?;
        listener_of(plan, quoted, own.host, own.port).ok_or(forged)?;
        let branch = own.branch.map(|branch| branch.of(quoted));
        let branch = branch.and_then(Branch::parse).ok_or(forged)?;
        let parameter = own.param(quoted, VIA_PARAMETER_NAME).ok_or(forged)?;
        let next = self.message.next_via(quoted).map_err(|_| forged)?;
        let Some(next) = next else {
            // A request of our own has one Via, and nobody to be told.
            return Err(match missing {
                DropReason::UnreachableCut => missing,
                _ => DropReason::Unreachable,
            });
        };
        let hop = Endpoint {
            address: next_hop(&next, quoted).ok_or(forged)?,
            protocol: Protocol::Udp,
        };
        let parameter = ViaParameter::decode(plan.keys(), parameter.of(quoted), &branch, hop)
            .map_err(|_| forged)?;
        let server = match parameter.peer {
            ServerId::OUTSIDE => None,
            // Who has seen one of our requests cannot speak of another server by it.
            id => Some(
                plan.server_by_id(id)
                    .filter(|server| server.sends_from(flow.peer.ip()))
                    .ok_or(forged)?
                    .index,
            ),
        };
        let call_id = self.message.call_id();
        Ok(Undelivered {
            branch,
            parameter,
            server,
            call_id: call_id.map(|call_id| plan.keys().call_id_hash(call_id.of(quoted))),
            method: self.message.method(),
        })
    }

    /// Counts a datagram of ours that did not arrive, and says under which reason to drop it.
    pub fn on_unreachable(&mut self, plan: &Plan, quoted: &[u8], flow: &Flow) -> DropReason {
        match self.undelivered(plan, quoted, flow) {
            Ok(undelivered) => {
                if let Some(server) = undelivered.server {
                    self.base.metrics.server(server).unreachable.increment();
                }
                DropReason::Unreachable
            }
            Err(reason) => reason,
        }
    }
}
