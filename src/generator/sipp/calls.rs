//! Calls that walk through a scenario: a slab whose places, and the buffers in them, are used again.

use arrayvec::ArrayVec;

use super::actions::Value;
use super::program::CLOCKS_MAX;
use crate::generator::dialog::Dialog;
use crate::generator::digest::Challenge;
use crate::generator::timers::Resend;
use crate::generator::transport::AddressIndex;
use crate::net::SocketAddr;
use crate::sip::{CSeq, Message, Method};
use crate::time::Instant;

/// Requests of one call that wait for their final response at once: INVITE, CANCEL, PRACK, UPDATE.
const OPEN_MAX: usize = 6;

/// Number and method of a request: RFC 3261 §17.1.3 and §17.2.3 without the branch, which a
/// scenario writes as it likes.
pub(super) type Transaction = (u32, Method);

/// A challenge that is to be answered.
#[derive(Clone, Debug)]
pub(super) struct Challenged {
    pub(super) challenge: Challenge,
    pub(super) by_proxy: bool,
    /// Requests with this nonce so far.
    pub(super) count: u32,
}

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) serial: u64,
    pub(super) socket: AddressIndex,
    pub(super) peer: SocketAddr,
    pub(super) call_id: Vec<u8>,
    /// When it should have started, or was received.
    pub(super) intended: Instant,
    /// The step it waits in.
    pub(super) at: usize,
    pub(super) resend: Option<Resend>,
    pub(super) resend_end: Instant,
    pub(super) deadline: Option<Instant>,
    pub(super) armed: Option<Instant>,
    pub(super) cseq: u32,
    /// The last message sent but ACK, and what it answers or asks.
    pub(super) sent: Vec<u8>,
    pub(super) sent_of: Option<Transaction>,
    pub(super) sent_is_response: bool,
    pub(super) ack: Vec<u8>,
    pub(super) open: ArrayVec<Transaction, OPEN_MAX>,
    /// The last message received.
    pub(super) last: Vec<u8>,
    /// What the request received last asks.
    pub(super) last_of: Option<Transaction>,
    pub(super) peer_tag: Vec<u8>,
    pub(super) dialog: Dialog,
    pub(super) challenged: Option<Box<Challenged>>,
    pub(super) variables: Vec<Option<Value>>,
    /// Row of the table.
    pub(super) row: usize,
    pub(super) clocks: [Option<Instant>; CLOCKS_MAX],
    /// A 2xx was received, or sent.
    pub(super) answered: bool,
    /// All is done; it only answers again.
    pub(super) is_over: bool,
}

impl Call {
    fn new(now: Instant, peer: SocketAddr) -> Self {
        Self {
            serial: 0,
            socket: 0,
            peer,
            call_id: Vec::new(),
            intended: now,
            at: 0,
            resend: None,
            resend_end: now,
            deadline: None,
            armed: None,
            cseq: 0,
            sent: Vec::new(),
            sent_of: None,
            sent_is_response: false,
            ack: Vec::new(),
            open: ArrayVec::new(),
            last: Vec::new(),
            last_of: None,
            peer_tag: Vec::new(),
            dialog: Dialog::default(),
            challenged: None,
            variables: Vec::new(),
            row: 0,
            clocks: [None; CLOCKS_MAX],
            answered: false,
            is_over: false,
        }
    }

    /// A fresh call in the buffers of an old one.
    fn renew(&mut self, now: Instant, peer: SocketAddr) {
        let old = core::mem::replace(self, Self::new(now, peer));
        for (mine, mut buffer) in [
            (&mut self.call_id, old.call_id),
            (&mut self.sent, old.sent),
            (&mut self.ack, old.ack),
            (&mut self.last, old.last),
            (&mut self.peer_tag, old.peer_tag),
        ] {
            buffer.clear();
            *mine = buffer;
        }
        self.dialog = old.dialog;
        self.dialog.clear();
        self.variables = old.variables;
        self.variables.clear();
    }

    /// The next time something is to be done for it.
    pub(super) fn due(&self) -> Option<Instant> {
        let resend = self.resend.map(|resend| resend.at().min(self.resend_end));
        [resend, self.deadline].into_iter().flatten().min()
    }

    /// Notes what was sent, as it reads.
    pub(super) fn note_sent(&mut self, message: &Message, is_response: bool) {
        let of = message
            .cseq()
            .map(|CSeq { number, method, .. }| (number, method));
        self.sent_of = of;
        self.sent_is_response = is_response;
        if let (Some(of), false) = (of, is_response)
            && !self.open.contains(&of)
        {
            if self.open.is_full() {
                self.open.remove(0);
            }
            self.open.push(of);
        }
    }
}

/// All calls in progress.
#[derive(Debug, Default)]
pub(super) struct Calls {
    places: Vec<(bool, Call)>,
    free: Vec<u32>,
    live: u32,
}

impl Calls {
    pub(super) fn live(&self) -> u32 {
        self.live
    }

    /// Takes a place for a fresh call.
    pub(super) fn insert(&mut self, now: Instant, peer: SocketAddr) -> Option<(u32, &mut Call)> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.places.push((false, Call::new(now, peer)));
                u32::try_from(self.places.len() - 1).ok()?
            }
        };
        let (is_live, call) = self.places.get_mut(usize::try_from(index).ok()?)?;
        *is_live = true;
        call.renew(now, peer);
        self.live += 1;
        Some((index, call))
    }

    pub(super) fn at(&mut self, index: u32) -> Option<&mut Call> {
        let (is_live, call) = self.places.get_mut(usize::try_from(index).ok()?)?;
        is_live.then_some(call)
    }

    pub(super) fn remove(&mut self, index: u32) {
        let place = usize::try_from(index)
            .ok()
            .and_then(|index| self.places.get_mut(index));
        if let Some((is_live, _)) = place
            && *is_live
        {
            *is_live = false;
            self.free.push(index);
            self.live -= 1;
        }
    }

    /// Places with a call.
    pub(super) fn indices(&self) -> Vec<u32> {
        (0u32..)
            .zip(&self.places)
            .filter(|(_, (is_live, _))| *is_live)
            .map(|(index, _)| index)
            .collect()
    }
}
