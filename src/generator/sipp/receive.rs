//! What the player makes of what it receives.

use super::calls::{Challenged, Transaction};
use super::player::{Player, open_receives};
use super::program::{Expected, Kind, Optional, Receive};
use crate::generator::dialog::Side;
use crate::generator::digest::Challenge;
use crate::generator::reply::{self, Reply};
use crate::generator::server_name;
use crate::generator::stats::{Failure, Stray};
use crate::generator::transport::AddressIndex;
use crate::generator::wheel::Timekeeper as _;
use crate::net::SocketAddr;
use crate::sip::{CSeq, HeaderName, Kind as MessageKind, Message, Method};
use crate::time::Instant;

/// A datagram that was read.
struct Arrival<'a> {
    bytes: &'a [u8],
    message: &'a Message,
    socket: AddressIndex,
    peer: SocketAddr,
    of: Transaction,
    now: Instant,
}

impl Player<'_> {
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
        match (message.parse(bytes), message.cseq()) {
            (Ok(()), Some(CSeq { number, method, .. })) => {
                let arrival = Arrival {
                    bytes,
                    message: &message,
                    socket,
                    peer,
                    of: (number, method),
                    now,
                };
                self.on_message(&arrival);
            }
            _ => self.stats.messages.stray(Stray::Malformed),
        }
        self.message = Some(message);
    }

    fn on_message(&mut self, arrival: &Arrival<'_>) {
        let message = arrival.message;
        let is_response = message.kind() == MessageKind::Response;
        let received = &mut self.stats.messages.received;
        if is_response {
            received.response(message.status());
        } else {
            received.request(message.method());
        }
        let call_id = message
            .call_id()
            .map_or(&[][..], |span| span.of(arrival.bytes));
        let index = match self.find(call_id) {
            Some(index) => index,
            None if is_response => {
                // Of a call that is over, or of nobody's.
                return self.stats.messages.stray(Stray::CallId);
            }
            None if self.schedule.is_none() && self.matching(0, arrival).is_some() => {
                let made = self.accept(call_id, arrival.socket, arrival.peer, arrival.now);
                let Some(index) = made else { return };
                index
            }
            None => {
                self.stats.messages.stray(Stray::Request);
                return self.reply(arrival, 481);
            }
        };
        if is_response {
            self.on_response(index, arrival);
        } else {
            self.on_request(index, arrival);
        }
        self.arm(index);
    }

    /// The call that a Call-ID names. `x///` before it is SIPp's way to give one call several.
    fn find(&mut self, call_id: &[u8]) -> Option<u32> {
        if self.schedule.is_none() {
            return self.by_call_id.get(call_id).copied();
        }
        let own = match call_id.windows(3).position(|window| window == b"///") {
            Some(place) => call_id.get(place + 3..).unwrap_or_default(),
            None => call_id,
        };
        let key = self.constants.identity.read_call_id(own)?;
        let call = self.calls.at(key.index)?;
        (call.serial == key.serial).then_some(key.index)
    }

    /// The step that takes a message, for a call that waits in step `at`.
    fn matching(&self, at: usize, arrival: &Arrival<'_>) -> Option<usize> {
        let program = &self.play.program;
        let mut open = open_receives(program, at);
        let found = open.find(|(_, receive)| is_expected(receive, arrival));
        found.map(|(place, _)| place).or_else(|| {
            program.steps.iter().position(|step| match &step.kind {
                Kind::Receive(receive) => {
                    receive.optional == Optional::Global && is_expected(receive, arrival)
                }
                _ => false,
            })
        })
    }

    fn on_response(&mut self, index: u32, arrival: &Arrival<'_>) {
        let status = arrival.message.status();
        let Some(call) = self.calls.at(index) else {
            return;
        };
        // Requests that could not be read have no number to wait for.
        let is_open = call.open.contains(&arrival.of) || call.sent_of.is_none();
        if !is_open {
            self.stats.messages.seen_again += 1;
            // RFC 3261 §13.2.2.4, §17.1.1.3: each final response to INVITE is acknowledged again.
            if arrival.of.1 == Method::Invite && status >= 200 && !call.ack.is_empty() {
                let (socket, peer) = (call.socket, call.peer);
                self.sender
                    .send(socket, peer, |arena| arena.extend_from_slice(&call.ack));
            }
            return;
        }
        if call.sent_of == Some(arrival.of) {
            match (status, arrival.of.1) {
                // RFC 3261 §17.1.2.2: a provisional response slows a non-INVITE down.
                (100..200, method) if method != Method::Invite => {
                    if let Some(resend) = call.resend.as_mut() {
                        resend.slow_down(arrival.now);
                    }
                }
                _ => call.resend = None,
            }
        }
        if status >= 200 {
            call.open.retain(|open| *open != arrival.of);
        }
        let at = call.at;
        let Some(place) = self.matching(at, arrival) else {
            if status < 200 {
                // RFC 3261 §21.1: a provisional response is no reason to end anything.
                return;
            }
            if arrival.of.1 == Method::Invite && status >= 300 {
                self.acknowledge_refusal(index, arrival);
            }
            let failure = match status {
                401 | 407 => Failure::Challenge(status),
                _ => Failure::Status(arrival.of.1, status),
            };
            return self.fail(index, failure);
        };
        if (200..300).contains(&status) && !call_answered(self, index) {
            let Some(call) = self.calls.at(index) else {
                return;
            };
            call.answered = true;
            self.stats.answer(arrival.now.since(call.intended));
            self.stats
                .servers
                .add(server_name(arrival.bytes, arrival.message));
        }
        self.take(index, place, arrival);
    }

    fn on_request(&mut self, index: u32, arrival: &Arrival<'_>) {
        let method = arrival.message.method();
        let Some(call) = self.calls.at(index) else {
            return;
        };
        let at = call.at;
        if call.last_of == Some(arrival.of) && method != Method::Ack {
            self.stats.messages.seen_again += 1;
            // RFC 3261 §17.2: what is received again gets the last response again.
            if call.sent_is_response && call.sent_of == Some(arrival.of) {
                let (socket, peer) = (call.socket, call.peer);
                self.sender
                    .send(socket, peer, |arena| arena.extend_from_slice(&call.sent));
            }
            return;
        }
        if let Some(place) = self.matching(at, arrival) {
            let Some(call) = self.calls.at(index) else {
                return;
            };
            if method != Method::Ack {
                call.last_of = Some(arrival.of);
            }
            if call.sent_is_response {
                // An ACK, or something that only follows one.
                call.resend = None;
            }
            if self.schedule.is_none() {
                (call.socket, call.peer) = (arrival.socket, arrival.peer);
            }
            return self.take(index, place, arrival);
        }
        if method == Method::Ack {
            self.stats.messages.seen_again += 1;
            return;
        }
        // As SIPp does: the other side has left the scenario. It is answered, and the call has failed.
        let status = match method {
            Method::Bye | Method::Cancel => 200,
            _ => 481,
        };
        self.reply(arrival, status);
        self.fail(index, Failure::Unexpected(method));
    }

    /// A message that a step waited for.
    fn take(&mut self, index: u32, place: usize, arrival: &Arrival<'_>) {
        let Some(step) = self.play.program.steps.get(place) else {
            return;
        };
        let Kind::Receive(receive) = &step.kind else {
            return;
        };
        if step.lost > 0.0 && self.uniform() < step.lost {
            return;
        }
        self.learn(index, receive, arrival);
        if !self.finish_step(index, place, arrival.now) {
            return;
        }
        if receive.optional == Optional::No {
            self.advance(index, place);
        } else if let Some(to) = self.jump(index, place) {
            if let Some(call) = self.calls.at(index) {
                call.at = to;
                call.deadline = None;
            }
        } else {
            // What is optional may come again; the call waits on where it is.
            return;
        }
        self.walk(index, arrival.now);
    }

    /// Keeps what later messages are made of.
    fn learn(&mut self, index: u32, receive: &Receive, arrival: &Arrival<'_>) {
        let Arrival { bytes, message, .. } = *arrival;
        let is_response = message.kind() == MessageKind::Response;
        let Some(call) = self.calls.at(index) else {
            return;
        };
        call.last.clear();
        call.last.extend_from_slice(bytes);
        let tag = if is_response {
            message.to_tag()
        } else {
            message.from_tag()
        };
        if let Some(tag) = tag {
            call.peer_tag.clear();
            call.peer_tag.extend_from_slice(tag.of(bytes));
        }
        if receive.record_routes {
            let side = if is_response {
                Side::Caller
            } else {
                Side::Callee
            };
            // Without a Contact there is nothing to learn, and [routes] is empty.
            let _ = call.dialog.learn(bytes, message, side, true);
        }
        if receive.auth {
            let (name, by_proxy) = match message.status() {
                407 => (HeaderName::ProxyAuthenticate, true),
                _ => (HeaderName::WwwAuthenticate, false),
            };
            let mut rows = message.rows(name);
            let challenge = rows.find_map(|row| Challenge::parse(row.value.of(bytes)).ok());
            call.challenged = challenge.map(|challenge| {
                Box::new(Challenged {
                    challenge,
                    by_proxy,
                    count: 0,
                })
            });
        }
    }

    /// RFC 3261 §17.1.1.3: a refused INVITE is acknowledged even where the scenario did not expect
    /// the refusal.
    fn acknowledge_refusal(&mut self, index: u32, arrival: &Arrival<'_>) {
        let Arrival { bytes, message, .. } = *arrival;
        let Some(call) = self.calls.at(index) else {
            return;
        };
        if call.sent_of != Some(arrival.of) {
            return;
        }
        let invite = &call.sent;
        let mut reader = self.constants.reader.borrow_mut();
        if reader.parse(invite).is_err() {
            return;
        }
        let uri = reader.request_uri_span().of(invite);
        let row = |name| reader.first(name).map_or(&[][..], |row| row.row.of(invite));
        let to = message
            .first(HeaderName::To)
            .map_or(&[][..], |row| row.row.of(bytes));
        let number = arrival.of.0.to_string();
        let (socket, peer) = (call.socket, call.peer);
        self.stats.messages.sent.request(Method::Ack);
        self.sender.send(socket, peer, |out| {
            let mut put =
                |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
            put(&[b"ACK ", uri, b" SIP/2.0\r\n", row(HeaderName::Via)]);
            put(&[b"Max-Forwards: 70\r\n", row(HeaderName::Route)]);
            put(&[row(HeaderName::From), to, row(HeaderName::CallId)]);
            put(&[
                b"CSeq: ",
                number.as_bytes(),
                b" ACK\r\nContent-Length: 0\r\n\r\n",
            ]);
        });
    }

    fn reply(&mut self, arrival: &Arrival<'_>, status: u16) {
        let Arrival {
            bytes,
            message,
            socket,
            peer,
            ..
        } = *arrival;
        if message.method() == Method::Ack {
            return;
        }
        let reply = Reply {
            status,
            to_tag: b"scenario",
            record_route: false,
            rows: b"",
            body: b"",
        };
        self.stats.messages.sent.response(status);
        let to = reply::destination(message, peer);
        self.sender.send(socket, to, |out| {
            reply::write(bytes, message, peer, &reply, out)
        });
    }
}

fn call_answered(player: &mut Player<'_>, index: u32) -> bool {
    player.calls.at(index).is_some_and(|call| call.answered)
}

fn is_expected(receive: &Receive, arrival: &Arrival<'_>) -> bool {
    let message = arrival.message;
    let is_response = message.kind() == MessageKind::Response;
    match &receive.what {
        Expected::Request(method, name) => {
            !is_response
                && message.method() == *method
                && message.method_span().of(arrival.bytes) == name.as_slice()
        }
        Expected::Response(status) => is_response && message.status() == *status,
        Expected::Responses(regex) => {
            is_response && regex.is_match(message.status().to_string().as_bytes())
        }
    }
}
