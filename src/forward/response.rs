//! Responses, RFC 3261 §16.11: check that the top `Via` is ours, take it off, and send the rest to
//! where the next one says.

use super::hop::listener_of;
use super::via::{is_forbidden, next_hop};
use super::{Forwarder, pin_key};
use crate::affinity::{
    Branch, CallIdHash, Mode, TokenError, Transaction, VIA_PARAMETER_NAME, VIA_PASSING,
    ViaParameter,
};
use crate::net::{Endpoint, Flow, Protocol, ServerId, SocketAddr};
use crate::packet::Buffer;
use crate::route::{Plan, Server};
use crate::sip::{HeaderName, Method, ParseError, Span, StatusClass, first_value_removal};
use crate::time::Instant;
use crate::verdict::{DropReason, Verdict};

/// What the top `Via` of a response says, if that is ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnVia {
    pub(crate) branch: Branch,
    parameter: Span,
}

impl Forwarder {
    #[inline]
    pub(super) fn on_response(
        &mut self,
        parsed: Result<(), ParseError>,
        plan: &Plan,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
        now: Instant,
    ) -> Verdict {
        match self.own_via(parsed, plan, buffer.payload()) {
            Ok(own) => self.pass_response(&own, false, plan, buffer, flow, now),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Counts a response and reads its top `Via`.
    ///
    /// RFC 3261 §16.11, §18.1.2: the sent-by must be ours, else discard silently.
    #[inline]
    pub(crate) fn own_via(
        &self,
        parsed: Result<(), ParseError>,
        plan: &Plan,
        bytes: &[u8],
    ) -> Result<OwnVia, DropReason> {
        if let Some(class) = StatusClass::of(self.message.status()) {
            self.base.metrics.responses[class.index()].increment();
        }
        // RFC 3261 §18.3, RFC 4475 §3.1.2.5: a malformed response is dropped, never answered.
        if parsed.is_err() {
            return Err(DropReason::MalformedResponse);
        }
        let own = self
            .message
            .top_via()
            .ok_or(DropReason::MalformedResponse)?;
        if listener_of(plan, bytes, own.host, own.port).is_none() {
            return Err(DropReason::ResponseViaForeign);
        }
        let branch = own
            .branch
            .and_then(|branch| Branch::parse(branch.of(bytes)))
            .ok_or(DropReason::ResponseViaInvalid)?;
        let parameter = own
            .param(bytes, VIA_PARAMETER_NAME)
            .ok_or(DropReason::ResponseViaInvalid)?;
        Ok(OwnVia { branch, parameter })
    }

    /// Forwards a response by what its `Via`s say; with `rescue` also one of a transaction that is
    /// not here.
    pub(crate) fn pass_response(
        &mut self,
        own: &OwnVia,
        rescue: bool,
        plan: &Plan,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
        now: Instant,
    ) -> Verdict {
        match self.route_response(own, rescue, plan, buffer.payload(), flow, now) {
            Ok(next) => match self.uncover(plan, buffer) {
                Ok(()) => {
                    *flow = next;
                    Verdict::Transmit
                }
                Err(reason) => Verdict::Drop(reason),
            },
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Takes the top `Via` value off, and what stands behind the message.
    pub(crate) fn uncover(
        &mut self,
        plan: &Plan,
        buffer: &mut Buffer<'_>,
    ) -> Result<(), DropReason> {
        let row = self
            .message
            .first(HeaderName::Via)
            .ok_or(DropReason::MalformedResponse)?;
        self.edits.clear();
        self.edits
            .delete(first_value_removal(buffer.payload(), row).range());
        if plan.has_overload_control() {
            self.clear_feedback(buffer.payload());
        }
        buffer.truncate(self.message.message_end());
        self.edits.apply(buffer).map_err(DropReason::from)
    }

    /// Reads our parameter, whose MAC must hold for a response that goes on to `next`, and checks
    /// that who sends it is whom the request went to.
    ///
    /// RFC 6026 §10: only a request that came through us, from there, earns a response to there.
    pub(crate) fn verify(
        &self,
        own: &OwnVia,
        next: SocketAddr,
        plan: &Plan,
        bytes: &[u8],
        flow: &Flow,
    ) -> Result<ViaParameter, DropReason> {
        let hop = Endpoint {
            address: next,
            protocol: Protocol::Udp,
        };
        let text = own.parameter.of(bytes);
        let parameter = ViaParameter::decode(plan.keys(), text, &own.branch, hop).map_err(
            |error| match error {
                TokenError::NotOurs | TokenError::UnknownKey => DropReason::ResponseViaInvalid,
                TokenError::Mac | TokenError::OtherCallId => DropReason::ResponseMac,
            },
        )?;
        if parameter.peer != ServerId::OUTSIDE {
            plan.server_by_id(parameter.peer)
                .filter(|server| server.sends_from(flow.peer.ip()))
                .ok_or(DropReason::ResponseSource)?;
        }
        Ok(parameter)
    }

    /// Where a response goes.
    fn route_response(
        &self,
        own: &OwnVia,
        rescue: bool,
        plan: &Plan,
        bytes: &[u8],
        flow: &Flow,
        now: Instant,
    ) -> Result<Flow, DropReason> {
        // RFC 3261 §16.7 step 3: without another Via the response was for us.
        let next = self
            .message
            .next_via(bytes)
            .map_err(|_| DropReason::MalformedResponse)?
            .ok_or(DropReason::ResponseOwn)?;
        let peer = next_hop(&next, bytes).ok_or(DropReason::ResponseNextViaUnresolved)?;
        // RFC 4475 §3.3.10; multicast, unspecified and our own addresses likewise.
        if is_forbidden(peer) || plan.listener_at(peer).is_some() {
            return Err(DropReason::ResponseNextViaForbidden);
        }
        let parameter = self.verify(own, peer, plan, bytes, flow)?;
        // RFC 6026 §7.3: a response to a transaction that is not there any more is not forwarded.
        if own.branch.mode() == Mode::Stateful && !rescue && parameter.flags & VIA_PASSING == 0 {
            return Err(DropReason::ResponseStray);
        }
        if let Some(server) = plan.server_by_id(parameter.peer) {
            let key = |call_id: &[u8]| {
                let asker = plan.is_farm(peer.ip()).then_some(peer.ip());
                pin_key(plan.keys().call_id_hash(call_id), parameter.listener, asker)
            };
            self.note_response(bytes, server, key, now);
        }
        // RFC 3581 §4: "sent from the same address and port that the corresponding request was
        // received on".
        let listener = plan
            .listener(parameter.listener)
            .filter(|listener| listener.same_family(peer))
            .ok_or(DropReason::NoEgress)?;
        Ok(Flow {
            listener: listener.index,
            local: listener.address,
            peer,
        })
    }

    /// Counts a server's response and tells the pin of its transaction.
    pub(crate) fn note_response(
        &self,
        bytes: &[u8],
        server: &Server,
        key: impl FnOnce(&[u8]) -> CallIdHash,
        now: Instant,
    ) {
        let status = self.message.status();
        let Some(class) = StatusClass::of(status) else {
            return;
        };
        self.base.metrics.server(server.index).responses[class.index()].increment();
        if server.overload_control {
            self.note_feedback(bytes, server, now);
        }
        let Some(cseq) = self.message.cseq() else {
            return;
        };
        // Pins of other requests live 64·T1, answered or not.
        if cseq.method != Method::Invite {
            return;
        }
        let call_id = self.message.call_id().unwrap_or_default().of(bytes);
        let transaction = Transaction {
            invite: true,
            cseq: cseq.number,
        };
        self.base
            .pins
            .on_response(key(call_id), transaction, status, now);
    }
}
