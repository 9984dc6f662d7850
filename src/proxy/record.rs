//! What is kept of one request: its server transaction and the client transactions of its attempts.
//!
//! Times are milliseconds since the record began, so that a record stays small; the wheel knows the
//! earliest of them.

use arrayvec::ArrayVec;

use super::desk::Desk;
use crate::affinity::CallIdHash;
use crate::limits::HUNT_ATTEMPTS_MAX;
use crate::net::{Flow, ListenerIndex, PoolIndex, ServerIndex, SocketAddr};
use crate::sip::Method;
use crate::time::{Duration, Instant};
use crate::transaction::machine::{
    Actions, Step, Timer, Transport, invite_client, invite_server, non_invite_client,
    non_invite_server,
};
use crate::transaction::store::Blob;

/// All transactions are over UDP.
pub(super) const UDP: Transport = Transport::Unreliable;

/// A time since the record began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due(u32);

impl Due {
    /// Not at all.
    pub(super) const NEVER: Self = Self(u32::MAX);

    /// Of a time.
    pub(super) fn since(started: Instant, time: Instant) -> Self {
        Self(0).after(time.since(started))
    }

    fn after(self, duration: Duration) -> Self {
        let millis = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        Self(self.0.saturating_add(millis))
    }
}

/// A request that is sent again in growing intervals until something ends that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeat {
    pub(super) due: Due,
    interval_ms: u16,
}

impl Repeat {
    pub(super) const NEVER: Self = Self {
        due: Due::NEVER,
        interval_ms: 0,
    };

    /// First due after the timer's duration.
    pub(super) fn start(now: Due, timer: Timer) -> Self {
        let interval = timer.duration(UDP);
        Self {
            due: now.after(interval),
            interval_ms: u16::try_from(interval.as_millis()).unwrap_or(u16::MAX),
        }
    }

    /// Due again, after double the time, at most `longest`.
    pub(super) fn again(&mut self, now: Due, longest: Duration) {
        let longest = u16::try_from(longest.as_millis()).unwrap_or(u16::MAX);
        self.interval_ms = self.interval_ms.saturating_mul(2).min(longest);
        self.due = now.after(Duration::from_millis(self.interval_ms.into()));
    }

    /// Due again after `interval`, whatever it was.
    pub(super) fn every(&mut self, now: Due, interval: Duration) {
        self.interval_ms = u16::try_from(interval.as_millis()).unwrap_or(u16::MAX);
        self.due = now.after(interval);
    }

    pub(super) fn stop(&mut self) {
        self.due = Due::NEVER;
    }
}

/// Where the server transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerState {
    Invite(invite_server::State),
    Other(non_invite_server::State),
}

impl ServerState {
    /// The request has come again.
    pub(super) fn on_request(self) -> (Self, Actions) {
        match self {
            Self::Invite(state) => Self::invite(state, invite_server::Event::Invite),
            Self::Other(state) => Self::other(state, non_invite_server::Event::Request),
        }
    }

    /// A response of this status is to be sent.
    pub(super) fn on_response(self, status: u16) -> (Self, Actions) {
        match self {
            Self::Invite(state) => Self::invite(state, invite_server::Event::of_status(status)),
            Self::Other(state) => {
                let event = match status {
                    100 => non_invite_server::Event::Trying,
                    101..=199 => non_invite_server::Event::Provisional,
                    408 => non_invite_server::Event::RequestTimeout,
                    _ => non_invite_server::Event::Final,
                };
                Self::other(state, event)
            }
        }
    }

    /// Timers H, I, J and L, whichever runs.
    pub(super) fn on_end(self) -> (Self, Actions) {
        match self {
            Self::Invite(state) => {
                let event = match state {
                    invite_server::State::Completed => invite_server::Event::TimerH,
                    invite_server::State::Confirmed => invite_server::Event::TimerI,
                    _ => invite_server::Event::TimerL,
                };
                Self::invite(state, event)
            }
            Self::Other(state) => Self::other(state, non_invite_server::Event::TimerJ),
        }
    }

    /// What an event does that only an INVITE knows; nothing to others.
    pub(super) fn on_invite_event(self, event: invite_server::Event) -> (Self, Actions) {
        match self {
            Self::Invite(state) => Self::invite(state, event),
            other @ Self::Other(_) => (other, Actions::NONE),
        }
    }

    /// Timer of the 100 to a request that is no INVITE (RFC 4320 §4.1).
    pub(super) fn on_trying_due(self) -> (Self, Actions) {
        match self {
            Self::Other(state) => Self::other(state, non_invite_server::Event::TimerTrying),
            invite @ Self::Invite(_) => (invite, Actions::NONE),
        }
    }

    fn invite(state: invite_server::State, event: invite_server::Event) -> (Self, Actions) {
        let Step { next, actions } = invite_server::step(state, event, UDP);
        (Self::Invite(next), actions)
    }

    fn other(state: non_invite_server::State, event: non_invite_server::Event) -> (Self, Actions) {
        let Step { next, actions } = non_invite_server::step(state, event, UDP);
        (Self::Other(next), actions)
    }

    /// No final response has been sent.
    pub(super) fn is_open(self) -> bool {
        use non_invite_server::State as Other;
        matches!(
            self,
            Self::Invite(invite_server::State::Proceeding)
                | Self::Other(Other::Trying | Other::Proceeding)
        )
    }

    pub(super) fn is_over(self) -> bool {
        matches!(
            self,
            Self::Invite(invite_server::State::Terminated)
                | Self::Other(non_invite_server::State::Terminated)
        )
    }
}

/// Where a client transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientState {
    Invite(invite_client::State),
    Other(non_invite_client::State),
}

impl ClientState {
    /// A response of this status has come.
    pub(super) fn on_response(self, status: u16) -> (Self, Actions) {
        match self {
            Self::Invite(state) => Self::invite(state, invite_client::Event::of_status(status)),
            Self::Other(state) => {
                let event = match status {
                    ..=199 => non_invite_client::Event::Provisional,
                    200.. => non_invite_client::Event::Final,
                };
                Self::other(state, event)
            }
        }
    }

    /// Timers A and E.
    pub(super) fn on_resend_due(self) -> (Self, Actions) {
        match self {
            Self::Invite(state) => Self::invite(state, invite_client::Event::TimerA),
            Self::Other(state) => Self::other(state, non_invite_client::Event::TimerE),
        }
    }

    /// Timers B, D, F, K and M, whichever runs.
    pub(super) fn on_end(self) -> (Self, Actions) {
        match self {
            Self::Invite(state) => {
                let event = match state {
                    invite_client::State::Completed => invite_client::Event::TimerD,
                    invite_client::State::Accepted => invite_client::Event::TimerM,
                    _ => invite_client::Event::TimerB,
                };
                Self::invite(state, event)
            }
            Self::Other(state) => {
                let event = match state {
                    non_invite_client::State::Completed => non_invite_client::Event::TimerK,
                    _ => non_invite_client::Event::TimerF,
                };
                Self::other(state, event)
            }
        }
    }

    /// Given up: nothing that comes counts any more.
    pub(super) fn terminated(self) -> Self {
        match self {
            Self::Invite(_) => Self::Invite(invite_client::State::Terminated),
            Self::Other(_) => Self::Other(non_invite_client::State::Terminated),
        }
    }

    fn invite(state: invite_client::State, event: invite_client::Event) -> (Self, Actions) {
        let Step { next, actions } = invite_client::step(state, event, UDP);
        (Self::Invite(next), actions)
    }

    fn other(state: non_invite_client::State, event: non_invite_client::Event) -> (Self, Actions) {
        let Step { next, actions } = non_invite_client::step(state, event, UDP);
        (Self::Other(next), actions)
    }

    /// No response has come.
    pub(super) fn is_silent(self) -> bool {
        matches!(
            self,
            Self::Invite(invite_client::State::Calling)
                | Self::Other(non_invite_client::State::Trying)
        )
    }

    /// No final response has come.
    pub(super) fn is_open(self) -> bool {
        self.is_silent()
            || matches!(
                self,
                Self::Invite(invite_client::State::Proceeding)
                    | Self::Other(non_invite_client::State::Proceeding)
            )
    }

    pub(super) fn is_over(self) -> bool {
        matches!(
            self,
            Self::Invite(invite_client::State::Terminated)
                | Self::Other(non_invite_client::State::Terminated)
        )
    }
}

/// The CANCEL of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancel {
    /// Nobody wants one.
    None,
    /// To be sent with the first provisional response (RFC 3261 §9.1), for this reason.
    Wanted(CancelReason),
    /// Sent, no final response to it yet.
    Sent(CancelReason),
    /// Answered or given up.
    Done,
}

/// Why an attempt is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CancelReason {
    /// Another server is asked, or nobody is any more: nothing is said.
    Abandoned,
    /// The client has cancelled: its Reason is copied.
    Client,
    /// Another server has taken the call.
    Elsewhere,
    /// It took too long.
    Timeout,
}

/// One client transaction: the request at one server.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) peer: SocketAddr,
    pub(super) listener: ListenerIndex,
    pub(super) server: Option<ServerIndex>,
    pub(super) state: ClientState,
    /// Another server has been tried since: a late final response of this one does not count.
    pub(super) abandoned: bool,
    /// A response of 101 to 199 has come.
    pub(super) rang: bool,
    /// It counts on the board as open.
    pub(super) counted: bool,
    pub(super) status: u16,
    pub(super) cancel: Cancel,
    /// Timers A and E.
    pub(super) resend: Repeat,
    /// Timers B, D, F, K and M.
    pub(super) end: Due,
    /// Timer C.
    pub(super) ring: Due,
    /// When silence means that another server is tried.
    pub(super) silence: Due,
    /// Timers E and F of the CANCEL.
    pub(super) cancel_resend: Repeat,
    pub(super) cancel_end: Due,
    /// The edits that make the request as it left from the one that came.
    pub(super) edits: Option<Blob>,
}

impl Attempt {
    fn next_due(&self) -> Due {
        [
            self.resend.due,
            self.end,
            self.ring,
            self.silence,
            self.cancel_resend.due,
            self.cancel_end,
        ]
        .into_iter()
        .min()
        .unwrap_or(Due::NEVER)
    }

    /// Nothing more is to be sent or waited for.
    pub(super) fn is_over(&self) -> bool {
        self.state.is_over() && !matches!(self.cancel, Cancel::Sent(_))
    }

    /// Whether its edits are needed for an ACK, a CANCEL or a retransmission to come.
    pub(super) fn needs_edits(&self) -> bool {
        match self.state {
            ClientState::Invite(invite_client::State::Completed) => true,
            state => state.is_open() || matches!(self.cancel, Cancel::Sent(_)),
        }
    }
}

/// The best final response so far, kept while other servers are tried.
#[derive(Debug)]
pub(super) struct Best {
    pub(super) status: u16,
    /// Whose it is.
    pub(super) server: Option<ServerIndex>,
    pub(super) bytes: Blob,
}

/// One request with a transaction.
#[derive(Debug)]
pub(super) struct Record {
    /// The hash of its branch.
    pub(super) key: u128,
    pub(super) method: Method,
    pub(super) call_id: CallIdHash,
    pub(super) pin_key: CallIdHash,
    pub(super) cseq: u32,
    pub(super) started: Instant,
    /// As the request came.
    pub(super) flow: Flow,
    /// Where its responses go.
    pub(super) reply_to: SocketAddr,
    pub(super) server: ServerState,
    /// The client has cancelled it.
    pub(super) cancelled: bool,
    /// The pool whose other servers may be tried.
    pub(super) hunts: Option<PoolIndex>,
    /// Has a To tag: answers must not end the dialog (RFC 5057).
    pub(super) in_dialog: bool,
    /// Status of the last response sent.
    pub(super) status: u16,
    /// When the first provisional response but 100 was sent.
    pub(super) rang: Due,
    /// Status of the first final response sent; 0 = none yet.
    pub(super) outcome: u16,
    /// The call log has it.
    pub(super) logged: bool,
    /// Timer G.
    pub(super) resend: Repeat,
    /// Timers H, I, J and L.
    pub(super) end: Due,
    /// The 100 of RFC 4320 §4.1.
    pub(super) trying: Due,
    pub(super) request: Option<Blob>,
    /// The last response sent but 100.
    pub(super) last: Option<Blob>,
    pub(super) best: Option<Best>,
    /// Reason rows of the client's CANCEL.
    pub(super) reasons: Option<Blob>,
    pub(super) attempts: ArrayVec<Attempt, HUNT_ATTEMPTS_MAX>,
}

impl Record {
    /// `now` as time since the record began.
    pub(super) fn due(&self, now: Instant) -> Due {
        Due(0).after(now.since(self.started))
    }

    pub(super) fn after(&self, now: Instant, duration: Duration) -> Due {
        self.due(now).after(duration)
    }

    /// When something is due next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let own = [self.resend.due, self.end, self.trying];
        let of_attempts = self.attempts.iter().map(Attempt::next_due);
        let due = own.into_iter().chain(of_attempts).min()?;
        (due != Due::NEVER).then(|| self.started + Duration::from_millis(due.0.into()))
    }

    /// When the first provisional response but 100 was sent.
    pub(super) fn rang_at(&self) -> Option<Instant> {
        (self.rang != Due::NEVER).then(|| self.started + Duration::from_millis(self.rang.0.into()))
    }

    pub(super) fn is_over(&self) -> bool {
        self.server.is_over() && self.attempts.iter().all(Attempt::is_over)
    }

    /// Gives back what nothing will ask for any more.
    pub(super) fn tidy(&mut self, desk: &mut Desk) {
        for attempt in &mut self.attempts {
            if !attempt.needs_edits() {
                desk.forget(&mut attempt.edits);
            }
        }
        let done = !self.server.is_open();
        if done {
            self.drop_best(desk);
            if !matches!(
                self.server,
                ServerState::Invite(invite_server::State::Completed)
                    | ServerState::Other(non_invite_server::State::Completed)
            ) {
                desk.forget(&mut self.last);
            }
            if self.attempts.iter().all(|attempt| attempt.edits.is_none()) {
                desk.forget(&mut self.request);
                desk.forget(&mut self.reasons);
            }
        }
    }

    /// Gives the best final response so far back.
    pub(super) fn drop_best(&mut self, desk: &mut Desk) {
        if let Some(best) = self.best.take() {
            desk.blobs.free(best.bytes);
        }
    }

    /// Gives everything back.
    pub(super) fn clear(&mut self, desk: &mut Desk) {
        for attempt in &mut self.attempts {
            desk.forget(&mut attempt.edits);
        }
        self.drop_best(desk);
        for blob in [&mut self.request, &mut self.last, &mut self.reasons] {
            desk.forget(blob);
        }
    }

    /// Another server may still be tried, as far as the request itself says.
    pub(super) fn may_hunt(&self) -> bool {
        self.hunts.is_some() && !self.cancelled && !self.attempts.is_full() && self.server.is_open()
    }

    /// Whether a server that is still counted on has no final response yet.
    pub(super) fn has_live_attempt(&self) -> bool {
        self.attempts
            .iter()
            .any(|attempt| attempt.state.is_open() && !attempt.abandoned)
    }

    /// The servers that it was sent to.
    pub(super) fn tried(&self) -> ArrayVec<ServerIndex, HUNT_ATTEMPTS_MAX> {
        self.attempts
            .iter()
            .filter_map(|attempt| attempt.server)
            .collect()
    }
}
