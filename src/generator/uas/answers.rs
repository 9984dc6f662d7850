//! What the server makes of each message: RFC 3261 §8.2, §9.2, §13.3, §15.1.2.

use super::held::State;
use super::{DIALOG_LIFE, TRYING_AFTER, Uas, write_tag};
use crate::generator::dialog::Side;
use crate::generator::digest::Judgement;
use crate::generator::identity::hex;
use crate::generator::reply::{self, Reply};
use crate::generator::stats::Stray;
use crate::generator::transport::AddressIndex;
use crate::generator::wheel::Timekeeper as _;
use crate::net::SocketAddr;
use crate::sip::{HeaderName, Kind, MAGIC_COOKIE, Message, Method};
use crate::time::Instant;

const ALLOW: &[u8] = b"Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, INFO, UPDATE, MESSAGE, \
    NOTIFY, SUBSCRIBE, PUBLISH, REFER\r\n";
/// Registrations without a wish of their own live this long.
const EXPIRES_DEFAULT: &[u8] = b"3600";

/// A datagram that has been read.
#[derive(Clone, Copy)]
struct Arrival<'m> {
    bytes: &'m [u8],
    message: &'m Message,
    socket: AddressIndex,
    peer: SocketAddr,
    id: u64,
    cseq: u32,
}

impl Uas<'_> {
    /// Takes a datagram.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        socket: AddressIndex,
        peer: SocketAddr,
        now: Instant,
    ) {
        let Some(mut message) = self.message.take() else {
            return;
        };
        let parsed = message.parse(bytes);
        let cseq = message.cseq().map(|cseq| cseq.number);
        match (parsed, message.call_id(), cseq) {
            (Ok(()), Some(call_id), Some(cseq)) => {
                let arrival = Arrival {
                    bytes,
                    message: &message,
                    socket,
                    peer,
                    id: self.id_of(call_id.of(bytes)),
                    cseq,
                };
                match message.kind() {
                    Kind::Response => self.on_response(&arrival, now),
                    _ => self.on_request(&arrival, now),
                }
            }
            _ => self.messages.stray(Stray::Malformed),
        }
        self.message = Some(message);
    }

    fn on_request(&mut self, arrival: &Arrival<'_>, now: Instant) {
        let Arrival { bytes, message, .. } = *arrival;
        let method = message.method();
        self.messages.received.request(method);
        let call_id = message.call_id().map_or(&[][..], |span| span.of(bytes));
        let from_tag = message.from_tag().map_or(&[][..], |span| span.of(bytes));
        self.make_tag(call_id, from_tag);
        let to_tag = message.to_tag().map(|tag| tag.of(bytes));
        let is_own_dialog = to_tag.is_some_and(|tag| tag == self.tag);
        match method {
            Method::Ack => self.on_ack(arrival, is_own_dialog, now),
            Method::Cancel => self.on_cancel(arrival, now),
            Method::Invite if to_tag.is_none() => self.on_invite(arrival, now),
            _ if to_tag.is_none() => self.on_single(arrival, method, now),
            _ if !is_own_dialog => {
                // RFC 3261 §12.2.2: no such dialog here; it is another server's.
                self.counts.stray += 1;
                self.messages.stray(Stray::Dialog);
                self.respond(arrival, 481, b"");
            }
            Method::Invite => self.on_reinvite(arrival, now),
            Method::Bye => {
                match self.held.find(arrival.id) {
                    Some(index) => {
                        self.counts.ended += 1;
                        self.forget(index, now);
                    }
                    None => self.messages.seen_again += 1,
                }
                self.respond(arrival, 200, b"");
            }
            _ => self.respond(arrival, 200, b""),
        }
    }

    /// A request outside a dialog that opens none.
    fn on_single(&mut self, arrival: &Arrival<'_>, method: Method, now: Instant) {
        match method {
            Method::Register => self.on_register(arrival, now),
            // RFC 3261 §15.1.2, RFC 3262 §3, RFC 3311 §5.2: these live inside dialogs only.
            Method::Bye | Method::Prack | Method::Update => {
                self.counts.stray += 1;
                self.messages.stray(Stray::Dialog);
                self.respond(arrival, 481, b"");
            }
            Method::Other => self.respond(arrival, 501, ALLOW),
            _ => self.respond(arrival, 200, ALLOW),
        }
    }

    /// RFC 3261 §10.3, as far as a load needs it: nothing is stored, Contact comes back.
    fn on_register(&mut self, arrival: &Arrival<'_>, now: Instant) {
        if self.is_challenged(arrival, "REGISTER", now) {
            return;
        }
        let Arrival { bytes, message, .. } = *arrival;
        let expires = message
            .first(HeaderName::Expires)
            .map_or(EXPIRES_DEFAULT, |row| row.value.of(bytes));
        let mut rows = Vec::with_capacity(256);
        if expires != b"0" {
            for row in message.rows(HeaderName::Contact) {
                rows.extend_from_slice(row.row.of(bytes));
            }
        }
        rows.extend_from_slice(b"Expires: ");
        rows.extend_from_slice(expires);
        rows.extend_from_slice(b"\r\n");
        self.respond(arrival, 200, &rows);
    }

    /// Challenges a request that does not prove who sends it. `true` if it did.
    fn is_challenged(&mut self, arrival: &Arrival<'_>, method: &str, now: Instant) -> bool {
        let Some(verifier) = &self.verifier else {
            return false;
        };
        let judgement = arrival
            .message
            .first(HeaderName::Authorization)
            .map(|row| verifier.judge(row.value.of(arrival.bytes), method, now));
        let stale = match judgement {
            Some(Judgement::Accepted) => return false,
            Some(Judgement::Stale) => true,
            Some(Judgement::Refused) | None => false,
        };
        let challenge = verifier.challenge(now, stale);
        let row = format!("WWW-Authenticate: {challenge}\r\n");
        self.respond(arrival, 401, row.as_bytes());
        true
    }

    fn on_invite(&mut self, arrival: &Arrival<'_>, now: Instant) {
        let Arrival {
            bytes,
            message,
            socket,
            peer,
            id,
            cseq,
        } = *arrival;
        if let Some(index) = self.held.find(id) {
            let known = self.held.at(index).map_or(0, |held| held.cseq);
            if known == cseq {
                // RFC 3261 §17.2.1: a retransmission gets the latest response again.
                self.messages.seen_again += 1;
                self.respond_again(index);
                return;
            }
            self.forget(index, now);
        }
        if self.ended.contains(id, cseq) {
            self.messages.seen_again += 1;
            return;
        }
        if self.config.challenge_calls && self.is_challenged(arrival, "INVITE", now) {
            return;
        }
        let is_full = self.held.count() >= usize::try_from(self.config.calls_max).unwrap_or(0);
        let inserted = match is_full {
            true => None,
            false => self.held.insert(id, bytes, socket, peer, now),
        };
        let Some(index) = inserted else {
            self.respond(arrival, 503, b"");
            return;
        };
        self.counts.calls += 1;
        let config = self.config;
        if let Some(held) = self.held.at(index) {
            held.cseq = cseq;
            held.deadline = Some(now + config.ring);
            if config.bye_after.is_some() {
                // Without a Contact there is nobody to hang up on.
                let _ = held.dialog.learn(bytes, message, Side::Callee, false);
            }
        }
        if config.ring > TRYING_AFTER {
            self.respond_invite(index, bytes, message, 100);
        }
        if config.ring.is_zero() {
            self.respond_invite(index, bytes, message, 180);
            self.set_ringing(index);
            if config.answer.is_zero() {
                self.set_answered(index, bytes, message, now);
            }
        }
        self.arm(index);
    }

    /// RFC 3261 §14.2: a re-INVITE is answered at once.
    fn on_reinvite(&mut self, arrival: &Arrival<'_>, now: Instant) {
        let Some(index) = self.held.find(arrival.id) else {
            // The dialog was forgotten, the caller's tag proves that it was ours.
            self.respond(arrival, 481, b"");
            return;
        };
        let Some(held) = self.held.at(index) else {
            return;
        };
        if arrival.cseq == held.cseq {
            self.messages.seen_again += 1;
            self.respond_again(index);
            return;
        }
        held.cseq = arrival.cseq;
        held.request.clear();
        held.request.extend_from_slice(arrival.bytes);
        (held.socket, held.peer) = (arrival.socket, arrival.peer);
        self.respond_invite(index, arrival.bytes, arrival.message, 200);
        self.await_ack(index, now);
        self.arm(index);
    }

    fn on_ack(&mut self, arrival: &Arrival<'_>, is_own_dialog: bool, now: Instant) {
        if !is_own_dialog {
            self.counts.stray += 1;
            self.messages.stray(Stray::Dialog);
            return;
        }
        let config = self.config;
        let Some(index) = self.held.find(arrival.id) else {
            // The call was hung up before its ACK came, or this is one more ACK.
            self.messages.seen_again += 1;
            return;
        };
        let Some(held) = self.held.at(index) else {
            return;
        };
        if held.state != State::Answered || held.cseq != arrival.cseq {
            self.messages.seen_again += 1;
            return;
        }
        held.resend = None;
        if held.status >= 300 {
            self.forget(index, now);
            return;
        }
        held.state = State::Established;
        held.deadline = Some(now + config.bye_after.unwrap_or(DIALOG_LIFE));
        self.arm(index);
    }

    /// RFC 3261 §9.2: CANCEL is for the INVITE whose branch and sent-by it has.
    fn on_cancel(&mut self, arrival: &Arrival<'_>, now: Instant) {
        let Arrival { bytes, message, .. } = *arrival;
        let found = self.held.find(arrival.id).filter(|index| {
            let Some(held) = self.held.at(*index) else {
                return false;
            };
            let Some(stored) = self.stored.as_mut() else {
                return false;
            };
            held.cseq == arrival.cseq
                && stored.parse(&held.request).is_ok()
                && branch(&held.request, stored) == branch(bytes, message)
        });
        let Some(index) = found else {
            if self.ended.contains(arrival.id, arrival.cseq) {
                self.messages.seen_again += 1;
            } else {
                self.counts.stray += 1;
                self.messages.stray(Stray::Cancel);
            }
            self.respond(arrival, 481, b"");
            return;
        };
        self.respond(arrival, 200, b"");
        let Some(held) = self.held.at(index) else {
            return;
        };
        if matches!(held.state, State::Trying | State::Ringing) {
            self.counts.cancelled += 1;
            self.respond_stored(index, 487);
            self.await_ack(index, now);
            self.arm(index);
        }
    }

    /// A response to a BYE of ours.
    fn on_response(&mut self, arrival: &Arrival<'_>, now: Instant) {
        let message = arrival.message;
        self.messages.received.response(message.status());
        let method = message.cseq().map(|cseq| cseq.method);
        let found = self.held.find(arrival.id).filter(|index| {
            let held = self.held.at(*index);
            held.is_some_and(|held| held.state == State::HangingUp)
        });
        let Some(index) = found.filter(|_| method == Some(Method::Bye)) else {
            self.messages.stray(Stray::Response);
            return;
        };
        match message.status() {
            100..200 => {
                if let Some(resend) = self.held.at(index).and_then(|held| held.resend.as_mut()) {
                    resend.slow_down(now);
                }
            }
            200..300 => {
                self.counts.ended += 1;
                self.forget(index, now);
            }
            _ => {
                self.counts.unanswered += 1;
                self.forget(index, now);
            }
        }
    }

    /// Ringing time is over.
    pub(super) fn ring(&mut self, index: u32) {
        self.respond_stored(index, 180);
        self.set_ringing(index);
    }

    fn set_ringing(&mut self, index: u32) {
        let answer = self.config.answer.max(self.config.ring);
        if let Some(held) = self.held.at(index) {
            held.state = State::Ringing;
            held.deadline = Some(held.received + answer);
        }
    }

    /// Time to answer, or to reject.
    pub(super) fn answer(&mut self, index: u32, now: Instant) {
        let status = self.final_status();
        self.respond_stored(index, status);
        self.await_ack(index, now);
    }

    fn set_answered(&mut self, index: u32, bytes: &[u8], message: &Message, now: Instant) {
        let status = self.final_status();
        self.respond_invite(index, bytes, message, status);
        self.await_ack(index, now);
    }

    fn final_status(&mut self) -> u16 {
        let status = self.config.reject.unwrap_or(200);
        self.counts.answered += u64::from(status == 200);
        status
    }

    /// RFC 3261 §13.3.1.4, §17.2.1: a final response is repeated until its ACK comes, for 64·T1.
    fn await_ack(&mut self, index: u32, now: Instant) {
        let timers = &self.config.timers;
        if let Some(held) = self.held.at(index) {
            held.state = State::Answered;
            held.resend = Some(timers.other(now));
            held.deadline = Some(now + timers.t1_64());
        }
    }

    /// Sends the latest response to a stored INVITE once more.
    pub(super) fn respond_again(&mut self, index: u32) {
        if let Some(status) = self.held.at(index).map(|held| held.status)
            && status != 0
        {
            self.respond_stored(index, status);
        }
    }

    /// Responds to a stored INVITE.
    fn respond_stored(&mut self, index: u32, status: u16) {
        let Some(held) = self.held.at(index) else {
            return;
        };
        let request = core::mem::take(&mut held.request);
        if let Some(mut stored) = self.stored.take() {
            if stored.parse(&request).is_ok() {
                let call_id = stored.call_id().map_or(&[][..], |span| span.of(&request));
                let from_tag = stored.from_tag().map_or(&[][..], |span| span.of(&request));
                self.make_tag(call_id, from_tag);
                self.respond_invite(index, &request, &stored, status);
            }
            self.stored = Some(stored);
        }
        if let Some(held) = self.held.at(index) {
            held.request = request;
        }
    }

    /// Responds to an INVITE; `self.tag` is that of its dialog.
    fn respond_invite(&mut self, index: u32, bytes: &[u8], message: &Message, status: u16) {
        let Some(held) = self.held.at(index) else {
            return;
        };
        held.status = status;
        let makes_dialog = (101..300).contains(&status);
        let rows = match status {
            100 => None,
            200..300 => self.dialog_rows.get(held.socket),
            _ => self.plain_rows.get(held.socket),
        };
        let body = match status {
            200..300 => self.bodies.get(held.socket),
            _ => None,
        };
        let reply = Reply {
            status,
            // RFC 3261 §8.2.6.2: 100 has no tag of ours.
            to_tag: if status == 100 { b"" } else { &self.tag },
            record_route: makes_dialog,
            rows: rows.map_or(&[], Vec::as_slice),
            body: body.map_or(&[], Vec::as_slice),
        };
        self.messages.sent.response(status);
        let (socket, peer) = (held.socket, held.peer);
        let to = reply::destination(message, peer);
        self.sender.send(socket, to, |out| {
            reply::write(bytes, message, peer, &reply, out)
        });
    }

    /// Responds to anything else; `self.tag` is that of its dialog.
    fn respond(&mut self, arrival: &Arrival<'_>, status: u16, rows: &[u8]) {
        let Arrival {
            bytes,
            message,
            socket,
            peer,
            ..
        } = *arrival;
        let reply = Reply {
            status,
            to_tag: &self.tag,
            record_route: false,
            rows,
            body: b"",
        };
        self.messages.sent.response(status);
        let to = reply::destination(message, peer);
        self.sender.send(socket, to, |out| {
            reply::write(bytes, message, peer, &reply, out)
        });
    }

    /// Hangs up, if the caller left a Contact.
    pub(super) fn hang_up(&mut self, index: u32, now: Instant) {
        let timers = &self.config.timers;
        let Some(held) = self.held.at(index) else {
            return;
        };
        if !held.dialog.is_known() {
            self.counts.unanswered += 1;
            self.forget(index, now);
            return;
        }
        held.state = State::HangingUp;
        held.resend = Some(timers.other(now));
        held.deadline = Some(now + timers.t1_64());
        self.send_bye(index);
    }

    /// Sends the BYE of a call, the same bytes each time.
    pub(super) fn send_bye(&mut self, index: u32) {
        let Some(held) = self.held.at(index) else {
            return;
        };
        let Some(stored) = self.stored.as_mut() else {
            return;
        };
        if stored.parse(&held.request).is_err() {
            return;
        }
        let (request, dialog) = (&held.request, &held.dialog);
        let (Some(call_id), Some(from_tag), Some(to)) = (
            stored.call_id(),
            stored.from_tag(),
            stored.first(HeaderName::To),
        ) else {
            return;
        };
        let (call_id, from_tag) = (call_id.of(request), from_tag.of(request));
        let to = to.value.of(request);
        // A re-INVITE's To carries our tag already.
        let has_tag = stored.to_tag().is_some();
        let (socket, id) = (held.socket, held.id);
        let destination = dialog.next_hop().unwrap_or(held.peer);
        let Some(local) = self.sender.addresses().get(socket).copied() else {
            return;
        };
        write_tag(self.config, call_id, from_tag, &mut self.tag);
        let tag = &self.tag;
        self.messages.sent.request(Method::Bye);
        self.sender.send(socket, destination, |out| {
            let mut put =
                |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
            put(&[b"BYE ", dialog.uri(), b" SIP/2.0\r\nVia: SIP/2.0/UDP "]);
            put(&[
                local.to_string().as_bytes(),
                b";rport;branch=",
                MAGIC_COOKIE,
            ]);
            put(&[&hex(id), b"bye\r\nMax-Forwards: 70\r\n"]);
            put(&[dialog.routes(), b"From: ", to]);
            if !has_tag {
                put(&[b";tag=", tag]);
            }
            put(&[b"\r\nTo: ", dialog.peer(), b"\r\nCall-ID: ", call_id]);
            put(&[b"\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n"]);
        });
    }
}

/// The branch of the top Via.
fn branch<'a>(bytes: &'a [u8], message: &Message) -> Option<&'a [u8]> {
    let branch = message.top_via()?.branch?;
    Some(branch.of(bytes))
}
