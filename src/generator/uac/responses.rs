//! What the caller makes of what it receives.

use super::requests::transaction;
use super::{Uac, step_method};
use crate::generator::args::ByeFrom;
use crate::generator::call::{Authorization, Phase, Step};
use crate::generator::config::Load;
use crate::generator::dialog::Side;
use crate::generator::digest::Challenge;
use crate::generator::identity::CallKey;
use crate::generator::reply::{self, Reply};
use crate::generator::server_name;
use crate::generator::stats::{Failure, Stray};
use crate::generator::transport::AddressIndex;
use crate::generator::wheel::Timekeeper as _;
use crate::net::SocketAddr;
use crate::sip::{CSeq, HeaderName, Kind, Message, Method};
use crate::time::Instant;

impl Uac<'_> {
    /// Takes a datagram.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        socket: AddressIndex,
        peer: SocketAddr,
        now: Instant,
    ) {
        // Out of `self`, so that the rest of it stays usable while the message is read.
        let Some(mut message) = self.message.take() else {
            return;
        };
        match message.parse(bytes) {
            Ok(()) if message.kind() == Kind::Response => {
                self.stats.messages.received.response(message.status());
                if let Err(stray) = self.on_response(bytes, &message, socket, now) {
                    self.stats.messages.stray(stray);
                }
            }
            Ok(()) => self.on_request(bytes, &message, socket, peer, now),
            Err(_) => self.stats.messages.stray(Stray::Malformed),
        }
        self.message = Some(message);
    }

    fn on_response(
        &mut self,
        bytes: &[u8],
        message: &Message,
        address: AddressIndex,
        now: Instant,
    ) -> Result<(), Stray> {
        let (key, cseq) = self.checked(bytes, message)?;
        // RFC 3581 §4: to where the request came from.
        if self.source_of(key.serial) != address {
            return Err(Stray::Address);
        }
        let status = message.status();
        let Some(call) = self.calls.find(key) else {
            self.on_late_response(bytes, message, key, cseq);
            return Ok(());
        };
        if cseq.number != call.cseq {
            self.on_late_response(bytes, message, key, cseq);
            return Ok(());
        }
        let (step, phase) = (call.step, call.phase);
        if cseq.method == Method::Cancel {
            if phase == Phase::Cancelling && status >= 200 {
                call.resend = None;
            }
            return Ok(());
        }
        if cseq.method != step_method(self.config, step) {
            return Err(Stray::Response);
        }
        if matches!(phase, Phase::Pausing | Phase::AwaitingBye) {
            self.on_late_response(bytes, message, key, cseq);
            return Ok(());
        }
        match status {
            100..200 => self.on_provisional(key.index, cseq.method, now),
            200..300 if cseq.method == Method::Invite => {
                self.on_invite_success(bytes, message, key, now);
            }
            200..300 => self.on_success(bytes, message, key, now),
            _ => self.on_failure(bytes, message, key, cseq, now),
        }
        self.arm(key.index);
        Ok(())
    }

    /// RFC 3261 §17.1.3: a response belongs to the request whose branch and method it has;
    /// §8.1.3.3: one with more Vias than the request had is not ours.
    fn checked(&self, bytes: &[u8], message: &Message) -> Result<(CallKey, CSeq), Stray> {
        let identity = &self.scenario.identity;
        let cseq = message.cseq().ok_or(Stray::Malformed)?;
        let key = message
            .call_id()
            .and_then(|call_id| identity.read_call_id(call_id.of(bytes)))
            .filter(|key| key.serial < self.schedule.taken())
            .ok_or(Stray::CallId)?;
        let branch = message.top_via().and_then(|via| via.branch);
        let is_ours = branch.is_some_and(|branch| {
            identity.is_branch(branch.of(bytes), key.serial, transaction(cseq.number))
        });
        let via_count = self.scenario.layout(key.serial).via_count();
        // The topmost is decoded already, and is there: it has a branch.
        if !is_ours || 1 + message.vias_below(bytes).count() != via_count {
            return Err(Stray::Via);
        }
        let tag = identity.tag(key.serial);
        match message.from_tag() {
            Some(from_tag) if from_tag.of(bytes) == tag => Ok((key, cseq)),
            _ => Err(Stray::Tag),
        }
    }

    /// A response to a request whose transaction is over. RFC 3261 §13.2.2.4, §17.1.1.3: each
    /// final response to INVITE is acknowledged again.
    fn on_late_response(&mut self, bytes: &[u8], message: &Message, key: CallKey, cseq: CSeq) {
        self.stats.messages.seen_again += 1;
        if cseq.method != Method::Invite || message.status() < 200 {
            return;
        }
        if message.status() >= 300 {
            let to = message.first(HeaderName::To).map(|row| row.value.of(bytes));
            self.acknowledge_failure(key, cseq.number, to.unwrap_or_default());
            return;
        }
        let joined = self.joins_routes(key.serial);
        if self
            .late
            .learn(bytes, message, Side::Caller, joined)
            .is_err()
        {
            return;
        }
        let other_dialog = self
            .calls
            .find(key)
            .is_some_and(|call| call.dialog.is_known() && call.dialog.peer() != self.late.peer());
        self.send_late("ACK", key, cseq.number);
        if other_dialog {
            // RFC 3261 §13.2.2.4: a second server answered; its dialog is ended at once.
            self.stats.messages.stray(Stray::Fork);
            self.send_late("BYE", key, cseq.number + 1);
        }
    }

    fn on_provisional(&mut self, index: u32, method: Method, now: Instant) {
        let cancel_after = match self.config.load {
            Load::Call { cancel_after, .. } => cancel_after,
            _ => None,
        };
        let timeout = self.config.timeout;
        let Some(call) = self.calls.at(index) else {
            return;
        };
        if method != Method::Invite {
            if let Some(resend) = call.resend.as_mut() {
                resend.slow_down(now);
            }
            call.phase = Phase::Proceeding;
            return;
        }
        if call.phase != Phase::Calling {
            return;
        }
        // RFC 3261 §17.1.1.2: no retransmission in Proceeding.
        call.resend = None;
        call.phase = Phase::Proceeding;
        if !call.answered {
            call.deadline = Some(call.intended + timeout);
            call.cancel_at = cancel_after.map(|after| now + after);
        }
    }

    fn on_invite_success(&mut self, bytes: &[u8], message: &Message, key: CallKey, now: Instant) {
        let joined = self.joins_routes(key.serial);
        let Some(call) = self.calls.at(key.index) else {
            return;
        };
        let was_cancelled = call.phase == Phase::Cancelling;
        call.invite_cseq = call.cseq;
        (call.resend, call.cancel_at) = (None, None);
        if !call.answered {
            if call
                .dialog
                .learn(bytes, message, Side::Caller, joined)
                .is_err()
            {
                self.fail(key.index, Failure::NoDialog);
                return;
            }
            self.count_answer(bytes, message, key.index, now);
        }
        self.acknowledge(key.index);
        if was_cancelled {
            // The answer crossed the CANCEL: RFC 3261 §15.1.1, hang up.
            self.begin(key.index, Step::Bye, now);
        } else {
            self.next_step(key.index, now);
        }
    }

    fn on_success(&mut self, bytes: &[u8], message: &Message, key: CallKey, now: Instant) {
        let Some(call) = self.calls.at(key.index) else {
            return;
        };
        call.resend = None;
        if !call.answered {
            self.count_answer(bytes, message, key.index, now);
        }
        self.next_step(key.index, now);
    }

    fn count_answer(&mut self, bytes: &[u8], message: &Message, index: u32, now: Instant) {
        let Some(call) = self.calls.at(index) else {
            return;
        };
        call.answered = true;
        self.stats.answer(now.since(call.intended));
        self.stats.servers.add(server_name(bytes, message));
    }

    fn on_failure(
        &mut self,
        bytes: &[u8],
        message: &Message,
        key: CallKey,
        cseq: CSeq,
        now: Instant,
    ) {
        let status = message.status();
        if cseq.method == Method::Invite {
            let to = message.first(HeaderName::To).map(|row| row.value.of(bytes));
            self.acknowledge_failure(key, cseq.number, to.unwrap_or_default());
        }
        let has_credentials = self.config.credentials.is_some();
        let Some(call) = self.calls.at(key.index) else {
            return;
        };
        if call.phase == Phase::Cancelling && status == 487 {
            if !call.failed {
                self.stats.cancelled += 1;
            }
            self.calls.remove(key.index);
            return;
        }
        if matches!(status, 401 | 407) && has_credentials {
            let step = call.step;
            if self.accept_challenge(bytes, message, key.index) {
                self.begin(key.index, step, now);
            } else {
                self.fail(key.index, Failure::Challenge(status));
            }
            return;
        }
        self.fail(key.index, Failure::Status(cseq.method, status));
    }

    /// Takes a challenge up. Not twice in a row, unless only the nonce had grown old.
    fn accept_challenge(&mut self, bytes: &[u8], message: &Message, index: u32) -> bool {
        let (name, by_proxy) = match message.status() {
            407 => (HeaderName::ProxyAuthenticate, true),
            _ => (HeaderName::WwwAuthenticate, false),
        };
        let challenge = message
            .rows(name)
            .find_map(|row| Challenge::parse(row.value.of(bytes)).ok());
        let (Some(challenge), Some(call)) = (challenge, self.calls.at(index)) else {
            return false;
        };
        if call.authorization.is_some() && !challenge.stale {
            return false;
        }
        call.authorization = Some(Box::new(Authorization {
            challenge,
            by_proxy,
            count: 0,
            row: Vec::new(),
        }));
        true
    }

    /// Goes on after a step that was answered.
    fn next_step(&mut self, index: u32, now: Instant) {
        let config = self.config;
        let Some(call) = self.calls.at(index) else {
            return;
        };
        let pause = match (&config.load, call.step) {
            (Load::Call { methods, .. }, Step::Invite) if !methods.is_empty() => {
                return self.begin(index, Step::Dialog(0), now);
            }
            (Load::Call { methods, .. }, Step::Dialog(place)) if place + 1 < methods.len() => {
                return self.begin(index, Step::Dialog(place + 1), now);
            }
            (Load::Call { hold, bye_from, .. }, Step::Invite | Step::Dialog(_)) => {
                let by_callee = match bye_from {
                    ByeFrom::Caller => false,
                    ByeFrom::Callee => true,
                    ByeFrom::Both => call.serial % 2 == 1,
                };
                if by_callee {
                    call.phase = Phase::AwaitingBye;
                    call.deadline = Some(now + *hold + config.timers.t1_64());
                    return;
                }
                if hold.is_zero() {
                    return self.begin(index, Step::Bye, now);
                }
                *hold
            }
            (
                Load::Register {
                    refreshes,
                    refresh_after,
                    unregister,
                    ..
                },
                Step::Register,
            ) => {
                if call.refreshes < *refreshes {
                    *refresh_after
                } else if *unregister {
                    return self.begin(index, Step::Unregister, now);
                } else {
                    return self.calls.remove(index);
                }
            }
            _ => return self.calls.remove(index),
        };
        call.phase = Phase::Pausing;
        call.deadline = Some(now + pause);
    }

    /// The hold, or the time between two registrations, is over.
    pub(super) fn continue_after_pause(&mut self, index: u32, now: Instant) {
        let Some(call) = self.calls.at(index) else {
            return;
        };
        match call.step {
            Step::Register => {
                call.refreshes += 1;
                self.begin(index, Step::Register, now);
            }
            _ => self.begin(index, Step::Bye, now),
        }
    }

    /// A request from the callee's side: BYE, or what a user agent answers inside a call.
    fn on_request(
        &mut self,
        bytes: &[u8],
        message: &Message,
        socket: AddressIndex,
        peer: SocketAddr,
        now: Instant,
    ) {
        let method = message.method();
        self.stats.messages.received.request(method);
        if method == Method::Ack {
            self.stats.messages.stray(Stray::Request);
            return;
        }
        let key = message
            .call_id()
            .and_then(|call_id| self.scenario.identity.read_call_id(call_id.of(bytes)))
            .filter(|key| key.serial < self.schedule.taken());
        let in_dialog = key.is_some_and(|key| {
            let tag = self.scenario.identity.tag(key.serial);
            message
                .to_tag()
                .is_some_and(|to_tag| to_tag.of(bytes) == tag)
        });
        let status = match (method, in_dialog) {
            (Method::Cancel | Method::Invite, _) | (_, false) => 481,
            _ => 200,
        };
        if status == 481 {
            self.stats.messages.stray(Stray::Request);
        }
        let reply = Reply {
            status,
            to_tag: b"caller",
            record_route: false,
            rows: b"",
            body: b"",
        };
        let to = reply::destination(message, peer);
        self.send_response(socket, to, status, |out| {
            reply::write(bytes, message, peer, &reply, out);
        });
        if let (Method::Bye, 200, Some(key)) = (method, status, key) {
            self.on_bye(key, now);
        }
    }

    fn on_bye(&mut self, key: CallKey, _now: Instant) {
        match self.calls.find(key) {
            Some(call) if call.answered => self.calls.remove(key.index),
            Some(_) => self.fail(key.index, Failure::EarlyBye),
            // The 200 was lost; it has just been sent again.
            None => self.stats.messages.seen_again += 1,
        }
    }
}
