//! Overload of viaduct itself: which requests are refused so that the others get through.
//!
//! ```text
//!   refused of all new calls with a transaction
//!    90 % ┤              ┌───────
//!         │            ╱
//!         │         ╱           nothing is refused below START; once begun, refusing ends
//!    20 % ┤      ┌              below STOP
//!     0 % ┼──────┘───────────────
//!         0   STOP START FULL  100   % of a ring filled
//! ```
//!
//! What is forwarded without a transaction is never refused: that costs no more than its refusal, and
//! needs a place in no table. When the ring is full it loses like everything else.
//!
//! The worker looks at how full its queues are and refuses a share of what is new, larger the fuller
//! they are: the queue settles where arrivals and work balance, well before the ring of the device
//! is full and drops whatever comes, in-dialog requests and responses too. Tables that fill up count
//! likewise.
//!
//! The share is told by a hash of the Call-ID: a retransmission gets the verdict of its request, as
//! long as the share stands, and it falls slowly.

use super::route_set::RouteSet;
use super::{Context, Rejection};
use crate::affinity::{CallIdHash, Mode};
use crate::route::Direction;
use crate::sip::{HeaderName, Method, Scheme};
use crate::time::{Duration, Instant};

/// Thousandths: the unit of levels.
const WHOLE: u16 = 1000;

/// Fill of a queue in percent at which refusing begins. At 100,000 messages a second a fifth of an RX
/// ring is 4 ms of work, less than any timer of SIP, and more than a burst of one batch a socket.
const START: u8 = 20;
/// Fill at which refusing ends.
const STOP: u8 = 10;
/// Fill at which the whole of [`REFUSED_MAX`] is reached, at once if need be; the rest of the ring is
/// for what must get through.
const FULL: u8 = 60;

/// Thousandths of new calls that are refused at the most. A transaction costs about 20 times its
/// refusal; of what a worker can do, a flood without end leaves `20 (1 - c) / (20 (1 - c) + c)` for
/// calls when a share `c` is refused: 69 % at this one, 51 % at 950, nothing at 1000. A smaller
/// share would let the ring fill sooner: with this one it takes 7 times what the worker can do.
const REFUSED_MAX: u16 = 900;

/// How long a queue stays above [`START`] before refusing begins, unless it is [`FULL`]: a server that
/// comes back from a pause sends what it owes at once, and that is no overload. A worker that gets
/// twice what it can do fills a fifth of a ring in this time.
const PATIENCE: Duration = Duration::from_millis(5);

/// Fill of a table in percent at which refusing begins; at 100 there is no room for any. A table
/// empties by the lifetime of what it holds, tens of seconds: a fifth is kept to slow down in.
const TABLE_START: u8 = 80;

/// Time in which a level may fall by a tenth of the whole. Rising has no such limit: a ring fills in
/// milliseconds.
const FALL: Duration = Duration::from_millis(10);

/// What a request is, as far as admission goes. Responses are always taken: their request was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// A request to an emergency service (`urn:service:sos`, RFC 5031), or with a
    /// `Resource-Priority` of somebody who is trusted (RFC 4412).
    Emergency,
    /// What belongs to something begun: in dialog, ACK, BYE, CANCEL, PRACK, UPDATE, a retransmission
    /// of a request that was taken.
    Ongoing,
    /// An INVITE that would begin a call.
    Call,
    /// Any other request that would begin something: REGISTER, SUBSCRIBE, OPTIONS, MESSAGE.
    Other,
}

/// How full things are, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// The fullest of the queues that the worker reads.
    pub queue: u8,
    /// The fullest of the tables that a new request needs a place in.
    pub table: u8,
}

/// The admission of one worker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Admission {
    /// Thousandths of new calls with a transaction that are refused.
    level: u16,
    /// The queue has passed [`START`] and not fallen below [`STOP`] since.
    begun: bool,
    /// Since when the queue has been above [`START`] without a break.
    above_since: Option<Instant>,
    updated: Instant,
}

impl Admission {
    /// Refuses nothing.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Takes note of how full things are, once a batch.
    #[inline]
    pub(super) fn update(&mut self, signals: Signals, now: Instant) {
        // Nothing to do, nothing begun: what a worker meets nearly always.
        if signals.queue < START {
            self.above_since = None;
        }
        if self.level == 0 && signals.queue < START && signals.table < TABLE_START {
            return;
        }
        self.raise_or_lower(signals, now);
    }

    #[cold]
    fn raise_or_lower(&mut self, signals: Signals, now: Instant) {
        let above = signals.queue >= START;
        let lasts = above && now.since(*self.above_since.get_or_insert(now)) >= PATIENCE;
        self.begun = lasts || signals.queue >= FULL || (self.begun && signals.queue >= STOP);
        let queue = match self.begun {
            true => share(signals.queue, STOP, FULL),
            false => 0,
        };
        let wanted = queue
            .max(share(signals.table, TABLE_START, 100))
            .min(REFUSED_MAX);
        let passed = now.since(self.updated).min(10 * FALL).as_micros();
        let fall = passed * u128::from(WHOLE / 10) / FALL.as_micros();
        let fall = u16::try_from(fall).unwrap_or(WHOLE);
        let level = wanted.max(self.level.saturating_sub(fall));
        // Less than a thousandth has passed: it is counted the next time.
        if level != self.level || fall > 0 {
            self.updated = now;
        }
        self.level = level;
    }

    /// Whether a message of this class is taken.
    #[inline]
    pub(super) fn admits(&self, class: Class, call_id: CallIdHash) -> bool {
        if self.level == 0 {
            return true;
        }
        let refused = match class {
            Class::Emergency | Class::Ongoing => return true,
            Class::Call => self.level,
            // What is no call goes first, twice as fast.
            Class::Other => self.level.saturating_mul(2).min(REFUSED_MAX),
        };
        place(call_id) >= refused
    }

    /// Thousandths of new calls that are refused now.
    #[inline]
    pub(super) fn level(&self) -> u16 {
        self.level
    }
}

impl Context<'_> {
    /// Whether there is time for the request.
    #[inline]
    pub(super) fn admit(&self, routes: &RouteSet) -> Result<(), Rejection> {
        if self.admission.level() == 0 || self.course.mode == Mode::Stateless {
            return Ok(());
        }
        self.weigh(routes)
    }

    #[cold]
    fn weigh(&self, routes: &RouteSet) -> Result<(), Rejection> {
        let class = self.class(routes);
        if self.admission.admits(class, self.call_id) {
            return Ok(());
        }
        let counts = &self.metrics.overload;
        match class {
            Class::Call => counts.calls.increment(),
            _ => counts.others.increment(),
        }
        // RFC 7339 §5.10.2: "a 503 (Service Unavailable) response without the Retry-After header".
        Err(Rejection::Overload)
    }

    pub(super) fn class(&self, routes: &RouteSet) -> Class {
        let method = self.message.method();
        let ongoing = matches!(
            method,
            Method::Ack | Method::Bye | Method::Cancel | Method::Prack | Method::Update
        );
        // Another server is tried for what has been taken already; a pin says the same.
        let taken = self.course.attempt > 0 || self.course.server.is_some();
        if ongoing
            || taken
            || routes.token.is_some()
            || self.message.to_tag().is_some()
            || self.pin().is_some()
        {
            return Class::Ongoing;
        }
        match method {
            _ if self.is_emergency() || self.is_privileged() => Class::Emergency,
            Method::Invite => Class::Call,
            _ => Class::Other,
        }
    }

    /// RFC 5031 §4.2: `urn:service:sos` and its kinds, in any case.
    fn is_emergency(&self) -> bool {
        let uri = self.message.request_uri_span().of(self.bytes);
        let is_sos = |uri: &[u8]| {
            uri.split_at_checked(SOS.len())
                .is_some_and(|(start, rest)| {
                    start.eq_ignore_ascii_case(SOS) && matches!(rest.first(), None | Some(b'.'))
                })
        };
        self.message
            .request_uri()
            .is_some_and(|uri| uri.scheme == Scheme::Urn)
            && is_sos(uri)
    }

    /// RFC 4412 §4.7.3: a priority counts if he who claims it is known.
    fn is_privileged(&self) -> bool {
        self.direction != Direction::Outside
            && self.message.headers().iter().any(|row| {
                row.name == HeaderName::Other
                    && row
                        .name_bytes(self.bytes)
                        .eq_ignore_ascii_case(b"Resource-Priority")
            })
    }
}

/// RFC 5031 §4.2.
const SOS: &[u8] = b"urn:service:sos";

/// Thousandths of the way from `from` to `to` that `fill` has come.
fn share(fill: u8, from: u8, to: u8) -> u16 {
    let (way, whole) = (fill.saturating_sub(from), to.saturating_sub(from).max(1));
    u16::from(way.min(whole)) * WHOLE / u16::from(whole)
}

/// Where a Call-ID stands between 0 and 999. Other bits than choose the worker or the server.
fn place(call_id: CallIdHash) -> u16 {
    let mixed = call_id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    u16::try_from((mixed * u64::from(WHOLE)) >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests;
