//! The proxy core: requests that are handled with a transaction, RFC 3261 §16.2 to §16.10, and the
//! stateless forwarder for all others.
//!
//! [`Proxy::on_message`] takes a datagram like [`Forwarder::decide`]; messages of its own go to an
//! [`Outbox`], and [`Proxy::on_timer`] runs what is due. Pure: bytes and `now` in, bytes out.
//!
//! ```text
//!   request ─► is its method stateful here? ── no ─► forward
//!                 │ yes, on the Call-ID's home worker
//!                 ▼
//!              record (one server transaction, up to five client transactions, one after another)
//!                 │ key: the hash in our branch, which INVITE, CANCEL and ACK share (§17.2.3)
//!   response ─► its branch names record and attempt
//! ```
//!
//! | file | RFC |
//! |---|---|
//! | `compose` | requests of our own on a branch: the ACK of RFC 3261 §17.1.1.3, the CANCEL of §9.1 |
//! | `record` | what is kept of a request |
//! | `desk` | stored messages, laid out again |
//! | `scene` | what machines ask for: sending, keeping, arming (§17) |
//! | `server` | requests, timers, unreachable servers (§16.8 to §16.10, §17.2) |
//! | `timers` | what is due, servers that have gone down |
//! | `journal` | the call log's record of an INVITE |
//! | `client` | responses, the best of them, CANCEL, another server (§16.7, §17.1) |
//! | `probe` | OPTIONS to servers, §11 |

mod calls;
mod client;
pub mod compose;
mod desk;
mod journal;
mod outbox;
pub mod probe;
mod record;
mod retry_budget;
mod scene;
mod server;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_unreachable;
mod timers;

use std::sync::Arc;

use arrayvec::ArrayVec;

use self::desk::Desk;
pub use self::outbox::Outbox;
use self::probe::Probes;
use self::record::{Due, Record, Repeat, ServerState};
use self::retry_budget::RetryBudget;
use self::scene::Scene;
use crate::affinity::{Mode, home_worker};
use crate::balance::{Board, CallLeases};
use crate::config::Transactions;
use crate::forward::{
    Base, Course, Decision, Forwarder, Known, OwnVia, Places, Rejection, Reply, Signals,
};
use crate::journal::CallJournal;
use crate::limits::CALL_LEASES_MAX;
use crate::net::{Flow, WorkerIndex};
use crate::packet::Buffer;
use crate::route::Plan;
use crate::sip::{Kind, Method, ParseError};
use crate::time::Instant;
use crate::transaction::machine::{invite_server, non_invite_server};
use crate::transaction::store::{Blobs, Handle, Index, Slab};
use crate::transaction::wheel::Wheel;
use crate::verdict::{DropReason, Verdict};

/// Room for the transactions of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Transactions open at once.
    pub transactions: u32,
    /// Bytes of messages that they keep.
    pub message_bytes: usize,
    /// Forward responses whose transaction a crash took.
    pub rescue: bool,
}

impl Room {
    /// What one of `workers` workers gets of the configured room.
    pub fn of(config: &Transactions, workers: u8) -> Self {
        let share = |whole: usize| whole.div_ceil(usize::from(workers.max(1)));
        Self {
            transactions: u32::try_from(share(config.max)).unwrap_or(u32::MAX),
            message_bytes: share(config.message_bytes),
            rescue: config.rescue,
        }
    }

    /// No transactions: everything is forwarded without state.
    pub const NONE: Self = Self {
        transactions: 0,
        message_bytes: 0,
        rescue: false,
    };
}

/// What a request is to the transactions of a worker.
enum Place {
    /// It has a record.
    Known(Handle),
    /// It gets one.
    New(Known),
    /// It has none and is forwarded so.
    None(Course),
    /// The worker that its transaction is at.
    Elsewhere(WorkerIndex),
}

/// The proxy of one worker.
#[derive(Debug)]
pub struct Proxy {
    forwarder: Forwarder,
    records: Slab<Record>,
    index: Index,
    wheel: Wheel,
    desk: Desk,
    board: Arc<Board>,
    /// Calls that stand, of the Call-IDs at home here.
    calls: CallLeases,
    budget: RetryBudget,
    probes: Probes,
    journal: Option<CallJournal>,
    rescue: bool,
    has_room: bool,
    /// Servers that were down when the plan was last looked at, a hash of them.
    down: u64,
    /// The next place to be looked at for what is at a server gone down.
    sweep: Option<u32>,
}

impl Proxy {
    /// A proxy over a worker's forwarder. Allocates here and never again.
    pub fn new(forwarder: Forwarder, room: Room, board: Arc<Board>, now: Instant) -> Self {
        let (worker, workers) = (forwarder.base.worker, forwarder.base.workers);
        let calls = match room.transactions {
            0 => 1,
            _ => CALL_LEASES_MAX.div_ceil(usize::from(forwarder.base.workers.max(1))),
        };
        Self {
            calls: CallLeases::new(calls, Arc::clone(&board)),
            probes: Probes::new(worker, workers),
            forwarder: forwarder.with_board(Arc::clone(&board)),
            records: Slab::new(room.transactions),
            index: Index::new(room.transactions),
            wheel: Wheel::new(room.transactions, now),
            desk: Desk::new(Blobs::new(room.message_bytes)),
            board,
            budget: RetryBudget::new(),
            journal: None,
            rescue: room.rescue,
            has_room: room.transactions > 0,
            down: 0,
            sweep: None,
        }
    }

    /// With a log of its INVITE transactions.
    #[must_use]
    pub fn with_journal(self, journal: CallJournal) -> Self {
        Self {
            journal: Some(journal),
            ..self
        }
    }

    /// To be called once on the worker's thread before its first packet.
    pub fn warm_up(&self) {
        if let Some(journal) = &self.journal {
            journal.warm_up();
        }
    }

    /// Transactions that are open.
    pub fn open_transactions(&self) -> u32 {
        self.records.len()
    }

    /// Bytes of messages kept.
    pub fn kept_bytes(&self) -> usize {
        self.desk.blobs.capacity_bytes() - self.desk.blobs.free_bytes()
    }

    /// Takes note of how full the worker's fullest queue is, in percent, once a batch: when it
    /// fills, a share of new requests is refused, and when there is little room for transactions.
    pub fn note_pressure(&mut self, queue: u8, now: Instant) {
        let percent = |used: u64, whole: u64| {
            let percent = (100 * used).checked_div(whole).unwrap_or(0);
            u8::try_from(percent.min(100)).unwrap_or(100)
        };
        let records = percent(self.records.len().into(), self.records.capacity().into());
        let blobs = &self.desk.blobs;
        let kept = percent(self.kept_bytes() as u64, blobs.capacity_bytes() as u64);
        let table = records.max(kept);
        self.forwarder.note_signals(Signals { queue, table }, now);
    }

    /// Timers that are armed.
    pub fn armed_timers(&self) -> u32 {
        self.wheel.armed()
    }

    /// As [`Forwarder::forget_ahead`].
    #[inline]
    pub fn forget_ahead(&mut self) {
        self.forwarder.forget_ahead();
    }

    /// Reads the datagram that comes next, as [`Forwarder::look_ahead`].
    #[inline]
    pub fn look_ahead(&mut self, plan: &Plan, bytes: &[u8], flow: &Flow) -> Option<Places> {
        self.forwarder.look_ahead(plan, bytes, flow)
    }

    /// Decides about one datagram.
    ///
    /// On [`Verdict::Transmit`] the buffer holds what to send and `flow` says from where to whom.
    pub fn on_message(
        &mut self,
        plan: &Plan,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
        now: Instant,
        out: &mut dyn Outbox,
    ) -> Verdict {
        let parsed = match self.forwarder.read(plan, buffer.payload(), flow) {
            Ok(parsed) => parsed,
            Err(reason) => return self.forwarder.turn_away(reason, plan, buffer, flow, now),
        };
        match self.forwarder.message.kind() {
            Kind::Request => {
                if parsed.is_ok() {
                    self.note_in_dialog(plan, buffer.payload(), now);
                }
                self.on_request(parsed, plan, buffer, flow, now, out)
            }
            Kind::Response => {
                let own = match self.forwarder.own_via(parsed, plan, buffer.payload()) {
                    Ok(own) => own,
                    Err(reason) => return Verdict::Drop(reason),
                };
                match own.branch.mode() {
                    Mode::Stateless => self
                        .forwarder
                        .pass_response(&own, false, plan, buffer, flow, now),
                    Mode::Stateful => self.on_response(&own, plan, buffer, flow, now, out),
                }
            }
            Kind::Unknown => Verdict::Drop(DropReason::NotSip),
        }
    }

    fn on_request(
        &mut self,
        parsed: Result<(), ParseError>,
        plan: &Plan,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
        now: Instant,
        out: &mut dyn Outbox,
    ) -> Verdict {
        let mut course = Course::STATELESS;
        if parsed.is_ok() {
            match self.place_of(plan, buffer.payload(), *flow, now) {
                Place::Elsewhere(home) => return Verdict::HandOver(home),
                Place::New(branch) => return self.open(branch, plan, buffer, flow, now, out),
                Place::Known(handle) => {
                    let verdict = self.on_known_request(handle, plan, buffer, flow, now, out);
                    if let Some(verdict) = verdict {
                        return verdict;
                    }
                }
                Place::None(of) => course = of,
            }
        }
        self.forwarder
            .on_request(parsed, course, plan, buffer, flow, now)
    }

    /// What the request read last is to the transactions here.
    fn place_of(&self, plan: &Plan, bytes: &[u8], flow: Flow, now: Instant) -> Place {
        let Forwarder { base, message, .. } = &self.forwarder;
        let method = message.method();
        let follows = matches!(method, Method::Ack | Method::Cancel);
        let ruled = match follows {
            true => Method::Invite,
            false => method,
        };
        let stateful = self.has_room
            && plan
                .listener(flow.listener)
                .is_some_and(|listener| listener.is_stateful(ruled as usize));
        // What was begun with a transaction ends with it, whatever the configuration says by now.
        let concerns = stateful || (ruled == Method::Invite && !self.records.is_empty());
        let (true, Some(via)) = (concerns, message.top_via()) else {
            return Place::None(Course::STATELESS);
        };
        let context = base.context(plan, message, bytes, flow, now);
        let home = home_worker(context.call_id, base.workers);
        if home != base.worker {
            return Place::Elsewhere(home);
        }
        let branch = context.branch(via);
        if let Some(handle) = self.index.find(branch.hash())
            && let Some(record) = self.records.at(handle)
            && (record.method == method || (follows && record.method == Method::Invite))
        {
            return Place::Known(handle);
        }
        let known = Known {
            branch,
            pin: context.pin(),
        };
        // RFC 3261 §16.11: who has begun a transaction without state goes on so.
        let begun = known.pin.filter(|pin| pin.is_of(context.cseq()));
        let stateless = begun.is_some_and(|pin| pin.mode == Mode::Stateless);
        match stateful && !stateless {
            true if !follows => Place::New(known),
            // RFC 3261 §16.10: without its transaction a CANCEL is forwarded statelessly, on the
            // branch that the INVITE had at first.
            true => Place::None(Course {
                passing: true,
                ..Course::stateful(known)
            }),
            false => Place::None(Course {
                known: Some(known),
                ..Course::STATELESS
            }),
        }
    }

    /// A request of a record that is there; `None` if it is not for us.
    fn on_known_request(
        &mut self,
        handle: Handle,
        plan: &Plan,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
        now: Instant,
        out: &mut dyn Outbox,
    ) -> Option<Verdict> {
        let method = self.forwarder.message.method();
        let (record, mut scene) = self.scene(handle, plan, now, out)?;
        let verdict = match method {
            Method::Ack => scene.on_ack(record),
            Method::Cancel => Some(scene.on_cancel(record, buffer, flow)),
            _ => Some(scene.on_request_again(record)),
        };
        self.settle(handle, plan, now, out);
        // The ACK of a 2xx goes on to the server, and is counted there.
        if verdict.is_some() {
            self.forwarder.base.metrics.requests[method as usize].increment();
        }
        verdict
    }

    /// A new request that gets a transaction.
    fn open(
        &mut self,
        known: Known,
        plan: &Plan,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
        now: Instant,
        out: &mut dyn Outbox,
    ) -> Verdict {
        let Forwarder {
            base,
            message,
            edits,
            routes,
            ..
        } = &mut self.forwarder;
        let method = message.method();
        let context = base
            .context(plan, message, buffer.payload(), *flow, now)
            .on(Course::stateful(known));
        let Some(via) = message.top_via() else {
            return Verdict::Drop(DropReason::Malformed);
        };
        edits.clear();
        let decision = match self.records.next_handle() {
            Some(_) => context.forward(edits, routes),
            None => Err(Rejection::Full),
        };
        base.metrics.requests[method as usize].increment();
        let mut forwarding = match decision {
            Ok(Decision::Forward(forwarding)) => forwarding,
            Ok(Decision::HandOver(home)) => return Verdict::HandOver(home),
            Err(rejection) => {
                if rejection == Rejection::Full {
                    base.metrics.transactions.refused.increment();
                }
                if let (Some(journal), Reply::Answer(status)) =
                    (&mut self.journal, rejection.reply(method))
                {
                    let from = (flow.peer, flow.listener);
                    journal::refused(journal, (message, buffer.payload()), from, status, now);
                }
                return self.forwarder.reject(rejection, plan, buffer, flow, now);
            }
        };
        forwarding.complete(edits);
        let request = buffer.payload().get(..forwarding.end).unwrap_or_default();
        let Some(request) = self.desk.keep(request) else {
            base.metrics.transactions.refused.increment();
            return self
                .forwarder
                .reject(Rejection::Full, plan, buffer, flow, now);
        };
        let key = known.branch.hash();
        let record = Record {
            key,
            method,
            call_id: context.call_id,
            pin_key: context.pin_key(),
            cseq: context.cseq(),
            started: now,
            flow: *flow,
            reply_to: context.response_target(via),
            server: match method {
                Method::Invite => ServerState::Invite(invite_server::State::Proceeding),
                _ => ServerState::Other(non_invite_server::State::Trying),
            },
            cancelled: false,
            hunts: forwarding.hunts.filter(|_| !context.forbids_hunting()),
            in_dialog: message.to_tag().is_some(),
            status: 0,
            rang: Due::NEVER,
            outcome: 0,
            logged: false,
            resend: Repeat::NEVER,
            end: Due::NEVER,
            trying: Due::NEVER,
            request: Some(request),
            last: None,
            best: None,
            reasons: None,
            attempts: ArrayVec::new(),
        };
        if let Some(pool) = forwarding.hunts
            && let Some(of) = plan.pool(pool)
        {
            self.budget.earn(pool, of.hunting.retry_budget);
        }
        let handle = match self.records.insert(record) {
            Ok(handle) => handle,
            Err(mut record) => {
                self.desk.forget(&mut record.request);
                return self
                    .forwarder
                    .reject(Rejection::Full, plan, buffer, flow, now);
            }
        };
        // A key that is there already belongs to a request of another method: neither can be found
        // by the other's.
        let _taken = self.index.insert(key, handle);
        let Some((record, mut scene)) = self.scene(handle, plan, now, out) else {
            return Verdict::Drop(DropReason::Malformed);
        };
        let added = scene.add_attempt(record, &forwarding);
        if added {
            let request = buffer.payload().get(..forwarding.end).unwrap_or_default();
            scene.begin(record, request);
        }
        let applied = match added {
            true => forwarding.apply(&self.forwarder.edits, buffer),
            false => Err(DropReason::NoRoom),
        };
        match applied {
            Ok(()) => {
                self.forwarder.base.metrics.transactions.opened.increment();
                *flow = forwarding.flow;
                self.settle(handle, plan, now, out);
                Verdict::Transmit
            }
            Err(_) => {
                self.close(handle);
                self.forwarder
                    .reject(Rejection::Full, plan, buffer, flow, now)
            }
        }
    }

    fn on_response(
        &mut self,
        own: &OwnVia,
        plan: &Plan,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
        now: Instant,
        out: &mut dyn Outbox,
    ) -> Verdict {
        let Forwarder { base, message, .. } = &self.forwarder;
        let answered = probe::on_response(plan, &self.board, message, buffer.payload(), flow, now);
        if answered.is_some() {
            return Verdict::Absorb;
        }
        // A record is at home; where the message belongs that has none here, its Call-ID tells.
        let found = self.index.find(own.branch.hash());
        if found.is_none() {
            let call_id = message.call_id().unwrap_or_default();
            let call_id = plan.keys().call_id_hash(call_id.of(buffer.payload()));
            let home = home_worker(call_id, base.workers);
            if home != base.worker {
                return Verdict::HandOver(home);
            }
        }
        if let Some(handle) = found
            && let Some((record, mut scene)) = self.scene(handle, plan, now, out)
        {
            let verdict = scene.on_response(record, own, buffer, flow);
            self.settle(handle, plan, now, out);
            return verdict;
        }
        self.forwarder.pass_response(
            own,
            self.rescue || sabotaged!(ForwardStray),
            plan,
            buffer,
            flow,
            now,
        )
    }

    /// An ICMP error says that a request of ours cannot be delivered: `quoted` is its beginning.
    /// `hops` tells how often it was handed over. The kernel gives it to any worker, and the quote may
    /// end before the Call-ID.
    pub fn on_unreachable(
        &mut self,
        plan: &Plan,
        quoted: &[u8],
        flow: &Flow,
        hops: u8,
        now: Instant,
        out: &mut dyn Outbox,
    ) -> Verdict {
        let undelivered = match self.forwarder.undelivered(plan, quoted, flow) {
            Ok(undelivered) => undelivered,
            Err(reason) => {
                let message = &self.forwarder.message;
                probe::on_unreachable(plan, &self.board, message, quoted, flow, now);
                return Verdict::Drop(reason);
            }
        };
        // The worker that the kernel told counts it.
        if hops == 0
            && let Some(server) = undelivered.server
        {
            self.forwarder
                .base
                .metrics
                .server(server)
                .unreachable
                .increment();
            self.board.note_unreachable(server);
        }
        if let Some(handle) = self.index.find(undelivered.branch.hash())
            && let Some((record, mut scene)) = self.scene(handle, plan, now, out)
        {
            scene.on_unreachable(record, usize::from(undelivered.branch.attempt()));
            self.settle(handle, plan, now, out);
            return Verdict::Drop(DropReason::Unreachable);
        }
        let Base {
            worker, workers, ..
        } = self.forwarder.base;
        let next = match undelivered.call_id {
            // What is not found at home is over.
            Some(call_id) => home_worker(call_id, workers),
            // The quote ends before the Call-ID: each worker is asked once.
            None if hops.saturating_add(1) < workers => WorkerIndex((worker.0 + 1) % workers),
            None => worker,
        };
        match undelivered.branch.mode() {
            Mode::Stateful if next != worker => Verdict::HandOver(next),
            Mode::Stateful | Mode::Stateless => Verdict::Drop(DropReason::Unreachable),
        }
    }

    /// Whether the last message was a 2xx to an INVITE or a REGISTER.
    pub fn was_acceptance(&self) -> bool {
        self.forwarder.was_acceptance()
    }

    /// A record, and all else that an event of it may touch.
    fn scene<'a>(
        &'a mut self,
        handle: Handle,
        plan: &'a Plan,
        now: Instant,
        out: &'a mut dyn Outbox,
    ) -> Option<(&'a mut Record, Scene<'a>)> {
        let record = self.records.at_mut(handle)?;
        let scene = Scene {
            plan,
            now,
            out,
            forwarder: &mut self.forwarder,
            desk: &mut self.desk,
            board: &self.board,
            calls: &mut self.calls,
            budget: &mut self.budget,
        };
        Some((record, scene))
    }

    /// After an event: the record's next deadline is armed, or it goes; what it needs no more goes.
    fn settle(&mut self, handle: Handle, plan: &Plan, now: Instant, out: &mut dyn Outbox) {
        if let Some(mut journal) = self.journal.take() {
            if let Some((record, mut scene)) = self.scene(handle, plan, now, out)
                && journal::is_due(record)
            {
                scene.log_call(record, &mut journal);
            }
            self.journal = Some(journal);
        }
        let Some(record) = self.records.at_mut(handle) else {
            return;
        };
        if record.is_over() && !sabotaged!(KeepTransaction) {
            self.close(handle);
            return;
        }
        record.tidy(&mut self.desk);
        match record.deadline() {
            Some(deadline) => self.wheel.arm(handle.index(), deadline),
            None => self.wheel.disarm(handle.index()),
        }
    }

    fn close(&mut self, handle: Handle) {
        self.wheel.disarm(handle.index());
        let Some(mut record) = self.records.remove(handle) else {
            return;
        };
        if self.index.find(record.key) == Some(handle) {
            self.index.remove(record.key);
        }
        record.clear(&mut self.desk);
        self.forwarder.base.metrics.transactions.closed.increment();
    }
}
