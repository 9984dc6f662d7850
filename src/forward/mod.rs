//! The stateless forwarder, RFC 3261 §16.11: one message in, one message out, nothing remembered
//! but pins and the flows of clients that have moved.
//!
//! [`Forwarder::decide`] takes the bytes of a datagram, where it came from and the time; it edits
//! the bytes in place and says where they go. The same bytes give the same result on every worker
//! and node: retransmissions leave byte-identical, and INVITE, CANCEL and non-2xx ACK share one
//! server and one branch.
//!
//! | file | RFC 3261 |
//! |---|---|
//! | `validate` | §16.3 request validation |
//! | `route_set`, `request_uri` | §16.4 route information preprocessing, §16.6 steps 2 and 6 |
//! | `target`, `hop` | §16.5 targets, §16.6 step 7 next hop |
//! | `request`, `record_route`, `via` | §16.6 steps 3 to 9, §18.2.1, RFC 3581 |
//! | `client_address` | nothing: a header of the operator's |
//! | `client`, `path` | clients behind a NAT: RFC 3327, RFC 5626 §5 |
//! | `response` | §16.11 responses, §18.2.2 |
//! | `unreachable` | §18.4 ICMP errors |
//! | `throttle` | RFC 7339 overload control of servers |
//! | `admission` | which requests are refused under overload |
//! | `keepalive` | RFC 5626 §8 STUN |
//! | `rejection`, `answer`, `budget` | §8.2.6, §8.2.7, §11.2 answers of our own |
//! | `explain`, `note` | nothing: tell why, for tools |
//!
//! What needs a transaction (forking, timers, own retransmissions) is not here.

mod admission;
mod answer;
mod budget;
mod client;
mod client_address;
mod explain;
mod hop;
mod keepalive;
mod note;
mod path;
mod record_route;
mod rejection;
mod request;
mod request_uri;
mod response;
mod route_set;
mod shared;
mod target;
mod throttle;
mod unreachable;
mod validate;
mod via;

use core::ops::Range;
use std::sync::Arc;

use arrayvec::ArrayVec;

use self::admission::Admission;
pub use self::admission::Signals;
pub(crate) use self::answer::{Answers, Extras};
use self::budget::AnswerBudget;
pub use self::explain::{
    Explanation, Leads, Refusal, RequestExplanation, ResponseExplanation, Way,
};
pub use self::note::pin_of;
pub(crate) use self::rejection::{Rejection, Reply};
pub(crate) use self::request::{Decision, Forwarding};
pub(crate) use self::response::OwnVia;
pub(crate) use self::route_set::RouteSet;
pub use self::shared::Shared;
use self::throttle::Throttles;
pub use self::unreachable::Undelivered;
use crate::affinity::{Branch, CallIdHash, Decisions, Keys, Mode, MovedFlows, Pin, Pins};
use crate::balance::{AffinityKey, Board};
use crate::metrics::WorkerMetrics;
use crate::net::{Flow, IpAddr, ListenerIndex, ServerIndex, WorkerIndex};
use crate::packet::{Buffer, EditList};
use crate::route::{Direction, Plan};
use crate::sip::{HeaderName, Kind, Message, Method, Noise, ParseError, classify_noise};
use crate::time::Instant;
use crate::verdict::{DropReason, Verdict};

/// Memory that a decision will look into.
pub type Places = ArrayVec<Range<*const u8>, 3>;

/// The stateless forwarder of one worker: what it reuses from message to message.
#[derive(Debug)]
pub struct Forwarder {
    pub(crate) base: Base,
    pub(crate) message: Box<Message>,
    /// The message being decided about and the one after it, in turn.
    ahead: [Ahead; 2],
    pub(crate) edits: Box<EditList>,
    pub(crate) routes: Box<RouteSet>,
    pub(crate) answers: Answers,
    budget: AnswerBudget,
}

/// What all decisions of one worker read and remember.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) worker: WorkerIndex,
    pub(crate) workers: u8,
    pub(crate) pins: Arc<Pins>,
    shared: Arc<Shared>,
    board: Option<Arc<Board>>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    admission: Admission,
}

/// How a request is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Course {
    /// What our branch says.
    pub(crate) mode: Mode,
    /// Which try of its transaction it is, 0 for the first.
    pub(crate) attempt: u8,
    /// The server that hunting has come to, instead of what the message says.
    pub(crate) server: Option<ServerIndex>,
    /// The branch is that of a transaction which is not here: a CANCEL whose INVITE a crash took
    /// (RFC 3261 §16.10). Its responses are forwarded by what their `Via` says.
    pub(crate) passing: bool,
    /// What has been found out already.
    pub(crate) known: Option<Known>,
}

/// What the look for a request's transaction has found out, not to be computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Our branch, whatever its marks.
    pub(crate) branch: Branch,
    pub(crate) pin: Option<Pin>,
}

impl Course {
    /// Without a transaction, where the message says.
    pub(crate) const STATELESS: Self = Self {
        mode: Mode::Stateless,
        attempt: 0,
        server: None,
        passing: false,
        known: None,
    };

    /// The first try of a transaction.
    pub(crate) fn stateful(known: Known) -> Self {
        Self {
            mode: Mode::Stateful,
            known: Some(known),
            ..Self::STATELESS
        }
    }
}

/// One request, and everything its decision may read.
pub(crate) struct Context<'a> {
    plan: &'a Plan,
    keys: &'a Keys,
    pins: &'a Pins,
    flows: &'a MovedFlows,
    decisions: &'a Decisions,
    board: Option<&'a Board>,
    metrics: &'a WorkerMetrics,
    message: &'a Message,
    bytes: &'a [u8],
    flow: Flow,
    direction: Direction,
    pub(crate) call_id: CallIdHash,
    worker: WorkerIndex,
    workers: u8,
    course: Course,
    admission: &'a Admission,
    throttles: &'a Throttles,
    now: Instant,
}

impl Base {
    /// A request with what its decision reads.
    #[inline]
    pub(crate) fn context<'a>(
        &'a self,
        plan: &'a Plan,
        message: &'a Message,
        bytes: &'a [u8],
        flow: Flow,
        now: Instant,
    ) -> Context<'a> {
        Context {
            plan,
            keys: plan.keys(),
            pins: &self.pins,
            flows: &self.shared.flows,
            decisions: &self.shared.decisions,
            board: self.board.as_deref(),
            metrics: &self.metrics,
            message,
            bytes,
            flow,
            direction: plan.direction(flow.listener, flow.peer.ip()),
            call_id: call_id_hash(plan, message, bytes),
            worker: self.worker,
            workers: self.workers,
            course: Course::STATELESS,
            admission: &self.admission,
            throttles: &self.shared.throttles,
            now,
        }
    }
}

impl Context<'_> {
    /// The same request, forwarded in another way.
    #[must_use]
    pub(crate) fn on(self, course: Course) -> Self {
        Self { course, ..self }
    }
}

impl Forwarder {
    /// A forwarder for worker `worker` of `workers`. Allocates here and never again.
    ///
    /// It forgets where clients move; [`Forwarder::with_shared`] changes that.
    pub fn new(
        worker: WorkerIndex,
        workers: u8,
        pins: Arc<Pins>,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        Self {
            base: Base {
                worker,
                workers: workers.max(1),
                pins,
                shared: Arc::new(Shared::new(0)),
                board: None,
                metrics,
                admission: Admission::new(),
            },
            message: Box::new(Message::new()),
            ahead: Default::default(),
            edits: Box::new(EditList::new()),
            routes: Box::default(),
            answers: Answers::new(),
            budget: AnswerBudget::default(),
        }
    }

    /// With the memory that it shares with the other workers' forwarders.
    #[must_use]
    pub fn with_shared(mut self, shared: Arc<Shared>) -> Self {
        self.base.shared = shared;
        self
    }

    /// With what is known of the servers, for requests whose transaction is held.
    #[must_use]
    pub fn with_board(mut self, board: Arc<Board>) -> Self {
        self.base.board = Some(board);
        self
    }

    /// Takes note of how full things are, once a batch.
    pub fn note_signals(&mut self, signals: Signals, now: Instant) {
        let admission = &mut self.base.admission;
        let before = admission.level();
        admission.update(signals, now);
        if admission.level() != before {
            self.base
                .metrics
                .overload
                .level
                .set(admission.level().into());
        }
    }

    /// Decides about one datagram.
    ///
    /// On [`Verdict::Transmit`] the buffer holds what to send and `flow` says from where to whom;
    /// on any other verdict both are as they were. Drops are counted by whoever drops.
    pub fn decide(
        &mut self,
        plan: &Plan,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
        now: Instant,
    ) -> Verdict {
        let parsed = match self.read(plan, buffer.payload(), flow) {
            Ok(parsed) => parsed,
            Err(reason) => return self.turn_away(reason, plan, buffer, flow, now),
        };
        match self.message.kind() {
            Kind::Request => self.on_request(parsed, Course::STATELESS, plan, buffer, flow, now),
            Kind::Response => self.on_response(parsed, plan, buffer, flow, now),
            Kind::Unknown => Verdict::Drop(DropReason::NotSip),
        }
    }

    /// Reads a datagram as a message, if it may be one.
    #[inline]
    pub(crate) fn read(
        &mut self,
        plan: &Plan,
        bytes: &[u8],
        flow: &Flow,
    ) -> Result<Result<(), ParseError>, DropReason> {
        for ahead in &mut self.ahead {
            if let Some(parsed) = ahead.take(bytes) {
                core::mem::swap(&mut self.message, &mut ahead.message);
                return Ok(parsed);
            }
        }
        Self::check_noise(plan, bytes, flow)?;
        Ok(self.message.parse(bytes))
    }

    /// Reads the datagram that the next decision will be about, while there is time: the decision
    /// then finds it read. Returns the memory that it will look into, to be asked for.
    ///
    /// To be called before the decision about the message in front of it, as that takes time. The
    /// bytes must not change until then; [`forget_ahead`](Self::forget_ahead) ends the batch. Whatever
    /// else is decided about is read as always.
    pub fn look_ahead(&mut self, plan: &Plan, bytes: &[u8], flow: &Flow) -> Option<Places> {
        // The other one is of the message that is decided about first.
        self.ahead.swap(0, 1);
        let [ahead, _] = &mut self.ahead;
        ahead.forget();
        Self::check_noise(plan, bytes, flow).ok()?;
        let message = &mut *ahead.message;
        let parsed = message.parse(bytes);
        let call_id = message.call_id();
        if let Some(call_id) = call_id {
            let hash = plan.keys().call_id_hash(call_id.of(bytes));
            message.note_call_id_hash(hash.0);
        }
        // A request inside a dialog has its token, which is a matter of the bytes alone.
        let hash = message.call_id_hash();
        let hash = hash.filter(|_| !message.has(HeaderName::Route));
        let kind = message.kind();
        ahead.note(bytes, parsed);
        Some(self.places(plan, kind, CallIdHash(hash?)))
    }

    /// Forgets what was read ahead: the memory it stood in may hold something else from now on.
    #[inline]
    pub fn forget_ahead(&mut self) {
        self.ahead.iter_mut().for_each(Ahead::forget);
    }

    /// The memory that a decision about a Call-ID looks into.
    fn places(&self, plan: &Plan, kind: Kind, call_id: CallIdHash) -> Places {
        let mut places = Places::new();
        if plan.rules.pins {
            // The lower half of a pin's key, which tells the place, is the Call-ID's.
            places.push(self.base.pins.place(call_id));
        }
        if kind == Kind::Request {
            places.push(self.base.shared.decisions.place(call_id));
            // With several pools the rule tells which, and that takes a decision.
            if let [pool] = plan.pools()
                && let Some(table) = pool.table()
            {
                places.push(table.place(AffinityKey(call_id.0)));
            }
        }
        places
    }

    /// What may be no message for us, before it is read.
    #[inline]
    fn check_noise(plan: &Plan, bytes: &[u8], flow: &Flow) -> Result<(), DropReason> {
        // The steering program has looked already; what came another way it has not seen.
        if !plan.admits(flow.listener, flow.peer.ip()) {
            return Err(DropReason::SourceDenied);
        }
        if let Some(noise) = classify_noise(bytes) {
            return Err(match noise {
                Noise::Keepalive => DropReason::Keepalive,
                Noise::Stun => DropReason::Stun,
                Noise::SigComp => DropReason::SigComp,
            });
        }
        Ok(())
    }

    /// Answers the message read last in its place, with a transaction behind it: no rate limit.
    pub(crate) fn answer_here(
        &mut self,
        status: u16,
        plan: &Plan,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
        now: Instant,
    ) -> Verdict {
        let context = self
            .base
            .context(plan, &self.message, buffer.payload(), *flow, now);
        let extras = Extras::default();
        match self.answers.compose_stateful(&context, status, extras) {
            Ok(answer) => answer.put(status, &self.base.metrics, buffer, flow),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Whether the last message was a 2xx to an INVITE or a REGISTER: a farm that asks for passwords
    /// gives them to nobody who cannot receive its challenge.
    pub fn was_acceptance(&self) -> bool {
        let accepted = |method| matches!(method, Method::Invite | Method::Register);
        self.message.kind() == Kind::Response
            && (200..300).contains(&self.message.status())
            && self
                .message
                .cseq()
                .is_some_and(|cseq| accepted(cseq.method))
    }

    #[inline]
    pub(crate) fn on_request(
        &mut self,
        parsed: Result<(), ParseError>,
        course: Course,
        plan: &Plan,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
        now: Instant,
    ) -> Verdict {
        let method = self.message.method();
        let context = self
            .base
            .context(plan, &self.message, buffer.payload(), *flow, now)
            .on(course);
        self.edits.clear();
        let decision = match parsed {
            Ok(()) => context.forward(&mut self.edits, &mut self.routes),
            Err(error) => Err(Rejection::Syntax(error)),
        };
        let rejection = match decision {
            Ok(Decision::Forward(forwarding)) => {
                self.base.metrics.requests[method as usize].increment();
                return match forwarding.apply(&self.edits, buffer) {
                    Ok(()) => {
                        *flow = forwarding.flow;
                        Verdict::Transmit
                    }
                    Err(reason) => Verdict::Drop(reason),
                };
            }
            Ok(Decision::HandOver(home)) => return Verdict::HandOver(home),
            Err(rejection) => rejection,
        };
        self.base.metrics.requests[method as usize].increment();
        self.reject(rejection, plan, buffer, flow, now)
    }

    /// Does what a rejection asks for: a stateless answer in the place of the request, or nothing.
    pub(crate) fn reject(
        &mut self,
        rejection: Rejection,
        plan: &Plan,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
        now: Instant,
    ) -> Verdict {
        let status = match rejection.reply(self.message.method()) {
            Reply::Silence(reason) => return Verdict::Drop(reason),
            Reply::Answer(status) => status,
        };
        let metrics = &self.base.metrics;
        metrics.punted.increment();
        let context = self
            .base
            .context(plan, &self.message, buffer.payload(), *flow, now);
        // Who the operator knows is told as often as it asks; the source of a stranger's
        // request may be somebody else.
        let per_source = match context.direction {
            Direction::Outside => plan.rules.answers_per_source,
            Direction::Farm | Direction::Trusted => None,
        };
        let source = flow.peer.ip();
        let sources = &self.base.shared.sources;
        if !sources.take(per_source, context.keys, source, now) {
            return Verdict::Drop(DropReason::AnswerLimitedSource);
        }
        let per_second = plan.rules.answers_per_second;
        if !self.budget.take(per_second, self.base.workers, now) {
            return Verdict::Drop(DropReason::AnswerLimited);
        }
        match self.answers.compose(&context, rejection, status) {
            Ok(answer) => answer.put(status, metrics, buffer, flow),
            Err(reason) => Verdict::Drop(reason),
        }
    }
}

/// A message read before its turn.
#[derive(Debug, Default)]
struct Ahead {
    message: Box<Message>,
    /// Where its bytes stand, and what reading them said; `None` when there is none.
    read: Option<(Range<usize>, Result<(), ParseError>)>,
}

impl Ahead {
    fn place(bytes: &[u8]) -> Range<usize> {
        let Range { start, end } = bytes.as_ptr_range();
        start.addr()..end.addr()
    }

    #[inline]
    fn forget(&mut self) {
        self.read = None;
    }

    #[inline]
    fn note(&mut self, bytes: &[u8], parsed: Result<(), ParseError>) {
        self.read = Some((Self::place(bytes), parsed));
    }

    /// What was said of these bytes, once, if it was they that were read.
    #[inline]
    fn take(&mut self, bytes: &[u8]) -> Option<Result<(), ParseError>> {
        match &self.read {
            Some((place, _)) if *place == Self::place(bytes) => {}
            _ => return None,
        }
        self.read.take().map(|(_, parsed)| parsed)
    }
}

/// The hash of a message's Call-ID, which may have been computed when it was read.
#[inline]
fn call_id_hash(plan: &Plan, message: &Message, bytes: &[u8]) -> CallIdHash {
    match message.call_id_hash() {
        Some(hash) => CallIdHash(hash),
        None => {
            let call_id = message.call_id().unwrap_or_default();
            plan.keys().call_id_hash(call_id.of(bytes))
        }
    }
}

/// The key of a pin: the Call-ID, and which passage of it through us this is. A request that the farm
/// sends back through us (a spiral, RFC 3261 §6) has the Call-ID that it came with.
///
/// The passage is told by the listener and, for the farm, by the sender: both are known again when
/// the response comes back. What the route table makes of the request is no part of it, so that
/// a changed table moves no transaction.
fn pin_key(
    call_id: CallIdHash,
    listener: ListenerIndex,
    farm_sender: Option<IpAddr>,
) -> CallIdHash {
    let sender = match farm_sender {
        None => 0,
        Some(IpAddr::V4(v4)) => u64::from(v4.to_bits()),
        Some(IpAddr::V6(v6)) => {
            let bits = v6.to_bits().to_le_bytes();
            let (low, high) = (bits.first_chunk::<8>(), bits.last_chunk::<8>());
            let half =
                |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
            half(low) ^ half(high).rotate_left(16)
        }
    };
    // An odd factor spreads addresses that differ in few bits; the low half chooses the bucket and
    // stays the Call-ID's.
    let passage = (sender << 8 | u64::from(listener.0)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    CallIdHash(call_id.0 ^ (passage & !u64::from(u32::MAX)))
}
