//! What the caller sends: the request of each step, ACK, CANCEL.

use super::{Uac, key_of, step_name};
use crate::generator::call::{Call, Phase, Step};
use crate::generator::config::Load;
use crate::generator::dialog::Dialog;
use crate::generator::digest::Use;
use crate::generator::identity::{CallKey, hex};
use crate::generator::scenario::{Layout, Request, Shape};
use crate::generator::stats::Stray;
use crate::net::SocketAddr;
use crate::sip::Method;
use crate::time::Instant;

/// Set in the transaction number of an ACK to a 2xx, which is a transaction of its own.
const ACK: u16 = 0x8000;

/// The transaction number of a request: its CSeq.
pub(super) fn transaction(cseq: u32) -> u16 {
    u16::try_from(cseq & 0x7fff).unwrap_or(0)
}

impl Uac<'_> {
    /// Sends the request of the present step for the first time.
    pub(super) fn send_step(&mut self, index: u32, now: Instant) {
        self.authorize(index, now);
        self.resend_step(index);
    }

    /// Sends the request of the present step, the same bytes each time.
    pub(super) fn resend_step(&mut self, index: u32) {
        let config = self.config;
        let Some(call) = self.calls.at(index) else {
            return;
        };
        let name = match call.phase {
            Phase::Cancelling => "CANCEL",
            _ => step_name(config, call.step),
        };
        let authorization = call
            .authorization
            .as_ref()
            .map_or(&[][..], |authorization| &authorization.row);
        let user_to;
        let expires_rows;
        let mut request = Request {
            shape: Shape::Following,
            method: name,
            uri: config.target.uri().as_bytes(),
            to: &self.initial_to,
            cseq: call.cseq,
            transaction: transaction(call.cseq),
            routes: b"",
            rows: authorization,
            key: key_of(index, call),
            source: call.source,
        };
        let mut destination = config.target.address();
        match call.step {
            // RFC 3261 §9.1: Request-URI, To, CSeq number, top Via as in the request.
            Step::Invite if call.phase == Phase::Cancelling => request.rows = b"",
            Step::Invite => request.shape = Shape::Opening,
            Step::Single(_) => {
                let with_body = matches!(
                    config.load,
                    Load::Single {
                        with_body: true,
                        ..
                    }
                );
                request.shape = if with_body {
                    Shape::Opening
                } else {
                    Shape::Alone
                };
            }
            Step::Register | Step::Unregister => {
                let user = self.scenario.user(call.serial);
                // RFC 3261 §10.2: the Request-URI names the domain, To the address of record.
                user_to = format!("<sip:user{user}@{}>", config.target.host());
                let expires = match config.load {
                    Load::Register { expires, .. } if call.step == Step::Register => expires,
                    _ => 0,
                };
                let mut rows = format!("Expires: {expires}\r\n").into_bytes();
                rows.extend_from_slice(authorization);
                expires_rows = rows;
                request.shape = Shape::Alone;
                request.uri = &self.registrar;
                request.to = user_to.as_bytes();
                request.rows = &expires_rows;
            }
            Step::Dialog(_) | Step::Bye => {
                request.shape = match name {
                    "INVITE" | "UPDATE" => Shape::Refreshing,
                    _ => Shape::Following,
                };
                request.uri = call.dialog.uri();
                request.routes = call.dialog.routes();
                request.to = call.dialog.peer();
                destination = call.dialog.next_hop().unwrap_or(destination);
            }
        }
        self.stats
            .messages
            .sent
            .request(Method::parse(name.as_bytes()));
        let scenario = &self.scenario;
        self.sender.send(call.source, destination, |out| {
            scenario.write(&request, out)
        });
    }

    /// Answers the challenge that the call was given, for the request to come.
    fn authorize(&mut self, index: u32, now: Instant) {
        let config = self.config;
        let Some(call) = self.calls.at(index) else {
            return;
        };
        let (Some(authorization), Some(credentials)) =
            (call.authorization.as_mut(), &config.credentials)
        else {
            return;
        };
        authorization.count += 1;
        let uri = match call.step {
            Step::Register | Step::Unregister => self.registrar.as_slice(),
            Step::Dialog(_) | Step::Bye => call.dialog.uri(),
            Step::Invite | Step::Single(_) => config.target.uri().as_bytes(),
        };
        let cnonce = hex(now.as_nanos() ^ call.serial.rotate_left(32));
        let value = authorization.challenge.answer(
            credentials,
            Use {
                method: step_name(config, call.step),
                uri: &String::from_utf8_lossy(uri),
                cnonce: &String::from_utf8_lossy(&cnonce),
                count: authorization.count,
            },
        );
        let name = if authorization.by_proxy {
            "Proxy-Authorization"
        } else {
            "Authorization"
        };
        authorization.row = format!("{name}: {value}\r\n").into_bytes();
    }

    /// Sends CANCEL and goes on waiting for the INVITE's final response.
    pub(super) fn cancel(&mut self, index: u32, now: Instant) {
        let timers = &self.config.timers;
        if let Some(call) = self.calls.at(index) {
            call.phase = Phase::Cancelling;
            call.resend = Some(timers.other(now));
            // RFC 3261 §9.1: without a final response in 64·T1 the transaction is over.
            call.deadline = Some(now + timers.t1_64());
            self.resend_step(index);
        }
    }

    /// Acknowledges the 2xx of the present dialog.
    pub(super) fn acknowledge(&mut self, index: u32) {
        let target = self.config.target.address();
        let Some(call) = self.calls.at(index) else {
            return;
        };
        if call.dialog.next_hop().is_none() {
            self.stats.messages.stray(Stray::NextHopName);
        }
        let destination = call.dialog.next_hop().unwrap_or(target);
        let rows = authorization_row(call);
        let request = in_dialog("ACK", &call.dialog, key_of(index, call), call.source);
        let request = Request {
            cseq: call.invite_cseq,
            // RFC 3261 §13.2.2.4: the same ACK for each retransmission, with a branch of its own;
            // §22.1: with the credentials of the INVITE.
            transaction: transaction(call.invite_cseq) | ACK,
            rows,
            ..request
        };
        let scenario = &self.scenario;
        self.stats.messages.sent.request(Method::Ack);
        self.sender.send(call.source, destination, |out| {
            scenario.write(&request, out)
        });
    }

    /// Acknowledges a 2xx whose call is over or whose dialog is a second one, learnt in
    /// `self.late`; `method` is ACK or BYE.
    pub(super) fn send_late(&mut self, method: &'static str, key: CallKey, cseq: u32) {
        let source = self.source_of(key.serial);
        let destination = self.late.next_hop().unwrap_or(self.config.target.address());
        let request = Request {
            cseq,
            transaction: match method {
                "ACK" => transaction(cseq) | ACK,
                _ => transaction(cseq),
            },
            ..in_dialog(method, &self.late, key, source)
        };
        let scenario = &self.scenario;
        self.stats
            .messages
            .sent
            .request(Method::parse(method.as_bytes()));
        self.sender
            .send(source, destination, |out| scenario.write(&request, out));
    }

    /// Acknowledges a final response other than 2xx: part of the INVITE's transaction.
    pub(super) fn acknowledge_failure(&mut self, key: CallKey, cseq: u32, to: &[u8]) {
        let source = self.source_of(key.serial);
        let mut request = Request {
            shape: Shape::Following,
            method: "ACK",
            uri: self.config.target.uri().as_bytes(),
            // RFC 3261 §17.1.1.3: To of the response, all else of the INVITE: the branch as well.
            to,
            cseq,
            transaction: transaction(cseq),
            routes: b"",
            rows: b"",
            key,
            source,
        };
        let mut destination = self.config.target.address();
        if let Some(call) = self.calls.find(key)
            && matches!(call.step, Step::Dialog(_))
            && call.cseq == cseq
        {
            request.uri = call.dialog.uri();
            request.routes = call.dialog.routes();
            destination = call.dialog.next_hop().unwrap_or(destination);
        }
        let scenario = &self.scenario;
        self.stats.messages.sent.request(Method::Ack);
        self.sender
            .send(source, destination, |out| scenario.write(&request, out));
    }

    /// The address of a call: one of the thread's, in turn.
    pub(super) fn source_of(&self, serial: u64) -> usize {
        let own = serial / self.share.of.max(1);
        usize::try_from(own % self.source_count).unwrap_or(0)
    }

    /// Whether the layout of a call writes its routes in one row.
    pub(super) fn joins_routes(&self, serial: u64) -> bool {
        let layout = self.scenario.layout(serial);
        matches!(layout, Layout::Compact | Layout::Lists | Layout::Odd)
    }

    /// Queues a response to a request of the callee.
    pub(super) fn send_response(
        &mut self,
        source: usize,
        to: SocketAddr,
        status: u16,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.stats.messages.sent.response(status);
        self.sender.send(source, to, write);
    }
}

fn authorization_row(call: &Call) -> &[u8] {
    match (&call.authorization, call.step) {
        (Some(authorization), Step::Invite) => &authorization.row,
        _ => &[],
    }
}

fn in_dialog<'a>(method: &'a str, dialog: &'a Dialog, key: CallKey, source: usize) -> Request<'a> {
    Request {
        shape: Shape::Following,
        method,
        uri: dialog.uri(),
        to: dialog.peer(),
        cseq: 0,
        transaction: 0,
        routes: dialog.routes(),
        rows: b"",
        key,
        source,
    }
}
