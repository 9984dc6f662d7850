//! The worker's side of the log.

use super::Log;
use super::record::{Branches, Record, branches};
use super::sample::call_id;
use crate::journal::is_sampled;
use crate::net::Flow;
use crate::publish::Follower;
use crate::sip::{Kind, Message};
use crate::sys::clock;

/// What one worker logs through. For every message [`received`](Self::received), then one of the
/// others, and nothing while [`is_on`](Self::is_on) says no.
#[derive(Debug)]
pub struct Tap {
    log: Follower<Log>,
    message: Box<Message>,
    /// The message at hand, if it is logged.
    received: Box<Record>,
    is_staged: bool,
    sent: Box<Record>,
}

impl Tap {
    pub(super) fn new(log: Follower<Log>) -> Self {
        Self {
            log,
            message: Box::new(Message::new()),
            received: Box::default(),
            is_staged: false,
            sent: Box::default(),
        }
    }

    /// To be called once on the worker's thread before its first packet.
    pub fn warm_up(&self) {
        self.log.warm_up();
    }

    /// Whether there is a log. One relaxed load: ask once a batch.
    #[inline]
    pub fn is_on(&mut self) -> bool {
        self.log.load().is_some()
    }

    /// A message, as it was received.
    #[inline]
    pub fn received(&mut self, flow: &Flow, payload: &[u8]) {
        self.is_staged = false;
        let Some(log) = self.log.load() else {
            return;
        };
        let one_of = log.sample();
        // Nearly all are told apart here; a Call-ID that is not found like this has the parser's
        // word.
        if call_id(payload).is_none_or(|call_id| is_sampled(call_id, one_of)) {
            self.stage(flow, payload, one_of);
        }
    }

    fn stage(&mut self, flow: &Flow, payload: &[u8], one_of: u32) {
        // What was read before a fault counts.
        let _fault = self.message.parse(payload);
        let call_id = self.message.call_id().unwrap_or_default().of(payload);
        if !is_sampled(call_id, one_of) || (call_id.is_empty() && one_of > 1) {
            return;
        }
        let (top, next) = branches(&self.message, payload);
        let branches = match self.message.kind() {
            Kind::Request => Branches {
                server: top,
                client: &[],
            },
            Kind::Response => Branches {
                server: next,
                client: top,
            },
            Kind::Unknown => return,
        };
        self.received.note(&self.message, payload, branches);
        self.received.nanos = clock::real_nanos();
        self.received.is_sent = false;
        (self.received.src, self.received.dst) = (flow.peer, flow.local);
        self.is_staged = true;
    }

    /// The message is sent, as it now is: forwarded, or answered.
    #[inline]
    pub fn sent(&mut self, flow: &Flow, payload: &[u8]) {
        if core::mem::take(&mut self.is_staged) {
            self.log_both(flow, payload);
        }
    }

    fn log_both(&mut self, flow: &Flow, payload: &[u8]) {
        let Self {
            log,
            message,
            received,
            sent,
            ..
        } = self;
        let Some(log) = log.load() else { return };
        let _fault = message.parse(payload);
        let (top, _) = branches(message, payload);
        let client = match (received.is_response, message.kind()) {
            (false, Kind::Request) => top,
            (true, Kind::Response) => received.field(super::Field::ClientTransaction),
            // Our own answer: there is no other side.
            _ => &[],
        };
        let branches = Branches {
            server: received.field(super::Field::ServerTransaction),
            client,
        };
        sent.note(message, payload, branches);
        sent.nanos = clock::real_nanos();
        sent.is_sent = true;
        (sent.src, sent.dst) = (flow.local, flow.peer);
        log.add(received);
        log.add(sent);
    }

    /// The message is dropped.
    #[inline]
    pub fn dropped(&mut self) {
        if core::mem::take(&mut self.is_staged)
            && let Some(log) = self.log.load()
        {
            log.add(&self.received);
        }
    }

    /// The message was for us and goes no further.
    #[inline]
    pub fn absorbed(&mut self) {
        self.dropped();
    }

    /// A message of our own is sent. What was received stays at hand.
    pub fn originated(&mut self, flow: &Flow, payload: &[u8]) {
        let Self {
            log, message, sent, ..
        } = self;
        let Some(log) = log.load() else { return };
        let _fault = message.parse(payload);
        let call_id = message.call_id().unwrap_or_default().of(payload);
        if !is_sampled(call_id, log.sample()) {
            return;
        }
        let (top, next) = branches(message, payload);
        let branches = match message.kind() {
            // Of an ACK or CANCEL of our own there is no server side.
            Kind::Request => Branches {
                server: next,
                client: top,
            },
            _ => Branches {
                server: top,
                client: &[],
            },
        };
        sent.note(message, payload, branches);
        sent.nanos = clock::real_nanos();
        sent.is_sent = true;
        (sent.src, sent.dst) = (flow.local, flow.peer);
        log.add(sent);
    }

    /// Another worker has it now, and logs it.
    #[inline]
    pub fn handed_over(&mut self) {
        self.is_staged = false;
    }
}
