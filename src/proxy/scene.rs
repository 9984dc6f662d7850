//! One event at one record: what is sent, what is kept, what is armed.
//!
//! The machines of [`transaction`](crate::transaction) say what an event does; here it is done.

use super::desk::Desk;
use super::outbox::Outbox;
use super::record::{Attempt, Best, Cancel, ClientState, Due, Record, Repeat, ServerState, UDP};
use super::retry_budget::RetryBudget;
use crate::affinity::{Mode, NewPin, Transaction};
use crate::balance::{Board, CallLeases, Work};
use crate::forward::{Course, Decision, Extras, Forwarder, Forwarding};
use crate::metrics::TransactionMetrics;
use crate::net::{Flow, ListenerIndex, ServerIndex, SocketAddr};
use crate::packet::Buffer;
use crate::route::{Plan, Pool};
use crate::sip::Method;
use crate::time::{Instant, T2, TIMER_C};
use crate::transaction::machine::{Actions, Timer, invite_client, non_invite_client};
use crate::verdict::{DropReason, Verdict};

/// Everything but the record that an event of it touches.
pub(super) struct Scene<'a> {
    pub(super) plan: &'a Plan,
    pub(super) now: Instant,
    pub(super) out: &'a mut dyn Outbox,
    pub(super) forwarder: &'a mut Forwarder,
    pub(super) desk: &'a mut Desk,
    pub(super) board: &'a Board,
    pub(super) calls: &'a mut CallLeases,
    pub(super) budget: &'a mut RetryBudget,
}

impl<'a> Scene<'a> {
    /// Where transactions are counted.
    pub(super) fn counts(&self) -> &TransactionMetrics {
        &self.forwarder.base.metrics.transactions
    }

    /// The pool whose other servers may be tried for the record.
    pub(super) fn hunted_pool(&self, record: &Record) -> Option<&'a Pool> {
        self.plan.pool(record.hunts?)
    }

    // ---- server transaction ---------------------------------------------------------------------

    /// The flow that responses of the record leave along.
    pub(super) fn reply_flow(&self, record: &Record) -> Option<Flow> {
        // RFC 3581 §4: from the address and port that the request was received on.
        let listener = self.plan.listener(record.flow.listener)?;
        Some(Flow {
            listener: listener.index,
            local: record.flow.local,
            peer: record.reply_to,
        })
    }

    /// Passes a server's response on: our `Via` is taken off, and the server transaction told.
    pub(super) fn pass_up(
        &mut self,
        record: &mut Record,
        status: u16,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
    ) -> Verdict {
        let actions = self.step_server(record, status);
        // RFC 3261 §16.7 step 9: a 2xx whose server transaction has ended before this client
        // transaction is forwarded without it.
        let late = record.server.is_over()
            && record.method == Method::Invite
            && (200..300).contains(&status);
        if !actions.contains(Actions::SEND_RESPONSE) && !late {
            return Verdict::Absorb;
        }
        let Some(way) = self.reply_flow(record) else {
            return Verdict::Drop(DropReason::NoEgress);
        };
        if let Err(reason) = self.forwarder.uncover(self.plan, buffer) {
            return Verdict::Drop(reason);
        }
        if actions.contains(Actions::KEEP_RESPONSE) {
            self.keep_last(record, status, buffer.payload());
        }
        *flow = way;
        Verdict::Transmit
    }

    /// The Call-ID belongs to the server that the client hears of, which need not be the last that
    /// was tried: it alone knows the nonce of its challenge.
    pub(super) fn repin(&self, record: &Record, server: Option<ServerIndex>) {
        if let Some(server) = server
            && self.plan.rules.pins
        {
            let new = NewPin {
                server,
                mode: Mode::Stateful,
                transaction: Transaction {
                    invite: record.method == Method::Invite,
                    cseq: record.cseq,
                },
            };
            let pins = &self.forwarder.base.pins;
            pins.repin(record.pin_key, new, self.now);
        }
    }

    /// Sends a kept response as the final one.
    pub(super) fn pass_best_up(&mut self, record: &mut Record) {
        let Some(best) = record.best.take() else {
            return;
        };
        let Best {
            status,
            server,
            bytes,
        } = best;
        self.repin(record, server);
        let actions = self.step_server(record, status);
        if actions.contains(Actions::SEND_RESPONSE) {
            self.desk.forget(&mut record.last);
            record.last = Some(bytes);
            record.status = status;
            self.resend_last(record);
        } else {
            self.desk.blobs.free(bytes);
        }
    }

    /// Answers the request itself.
    pub(super) fn answer(&mut self, record: &mut Record, status: u16) {
        self.answer_with(record, status, Extras::default());
    }

    /// The same, saying more.
    pub(super) fn answer_with(&mut self, record: &mut Record, status: u16, extras: Extras<'_>) {
        let actions = self.step_server(record, status);
        if !actions.contains(Actions::SEND_RESPONSE) {
            return;
        }
        self.forwarder.base.metrics.answer(status);
        if let Some(way) = self.reply_flow(record)
            && let Some(len) = self.compose_answer(record, status, extras)
        {
            let bytes = self.desk.text.get(..len).unwrap_or_default();
            self.out.send(way, bytes);
            if actions.contains(Actions::KEEP_RESPONSE) {
                let kept = self.desk.blobs.store(&[bytes]);
                self.desk.forget(&mut record.last);
                record.last = kept;
                record.status = status;
            }
        }
    }

    /// Composes an answer to the record's request into the desk's text.
    fn compose_answer(
        &mut self,
        record: &Record,
        status: u16,
        extras: Extras<'_>,
    ) -> Option<usize> {
        let bytes = self.desk.lay_out(record)?.into_range();
        let (bytes, message, text) = self.desk.parts(bytes);
        let context = self
            .forwarder
            .base
            .context(self.plan, message, bytes, record.flow, self.now);
        let answer = self
            .forwarder
            .answers
            .compose_stateful(&context, status, extras)
            .ok()?;
        let room = text.get_mut(..answer.bytes.len())?;
        room.copy_from_slice(answer.bytes);
        Some(answer.bytes.len())
    }

    /// What a new request begins with: an INVITE gets its 100 (RFC 3261 §17.2.1). `request` is what
    /// the forwarder has read last: nothing need be laid out and read again.
    pub(super) fn begin(&mut self, record: &mut Record, request: &[u8]) {
        match record.server {
            ServerState::Invite(_) => {
                let way = self.reply_flow(record);
                let Forwarder {
                    base,
                    message,
                    answers,
                    ..
                } = &mut *self.forwarder;
                let context = base.context(self.plan, message, request, record.flow, self.now);
                let answer = answers.compose_stateful(&context, 100, Extras::default());
                if let (Some(way), Ok(answer)) = (way, answer) {
                    base.metrics.answer(100);
                    self.out.send(way, answer.bytes);
                }
            }
            ServerState::Other(_) => {
                record.trying = record.after(self.now, Timer::Trying.duration(UDP));
            }
        }
    }

    /// Tells the client that an early dialog has ended, if it wants to know (RFC 6228 §6): another
    /// server is tried although this one has rung.
    pub(super) fn send_early_end(&mut self, record: &mut Record, tag: &[u8], status: u16) {
        let wanted = self.desk.lay_out(record).map(Buffer::into_range);
        let Some(range) = wanted else { return };
        let (bytes, message, _) = self.desk.parts(range);
        let takes = self
            .forwarder
            .base
            .context(self.plan, message, bytes, record.flow, self.now)
            .takes_early_end();
        if takes {
            let extras = Extras {
                to_tag: Some(tag),
                cause: Some(status),
                ..Extras::default()
            };
            self.answer_with(record, 199, extras);
        }
    }

    /// Sends a 100 for the record's request, RFC 3261 §8.2.6.1; it is not kept, it can be made again.
    pub(super) fn send_trying(&mut self, record: &mut Record) {
        let extras = Extras {
            delay: self.now.since(record.started),
            ..Extras::default()
        };
        if let Some(way) = self.reply_flow(record)
            && let Some(len) = self.compose_answer(record, 100, extras)
        {
            self.forwarder.base.metrics.answer(100);
            self.out
                .send(way, self.desk.text.get(..len).unwrap_or_default());
        }
    }

    /// Sends the last response again, the 100 if there is no other.
    pub(super) fn resend_last(&mut self, record: &mut Record) {
        let Some(last) = &record.last else {
            if record.server.is_open() {
                self.send_trying(record);
            }
            return;
        };
        if let Some(way) = self.reply_flow(record) {
            let bytes = self.desk.bytes(last);
            self.out.send(way, bytes);
        }
    }

    fn keep_last(&mut self, record: &mut Record, status: u16, bytes: &[u8]) {
        let kept = self.desk.keep(bytes);
        self.desk.forget(&mut record.last);
        record.last = kept;
        record.status = status;
    }

    /// Tells the server transaction that a response is to be sent, and arms its timers.
    pub(super) fn step_server(&mut self, record: &mut Record, status: u16) -> Actions {
        let actions = self.enter_server(record, record.server.on_response(status));
        if actions.contains(Actions::SEND_RESPONSE) {
            match status {
                101..=199 if record.rang == Due::NEVER => record.rang = record.due(self.now),
                200.. if record.outcome == 0 => record.outcome = status,
                _ => {}
            }
        }
        actions
    }

    /// Takes a state of the server transaction and arms its timers; what else is to be done.
    pub(super) fn enter_server(
        &self,
        record: &mut Record,
        (state, actions): (ServerState, Actions),
    ) -> Actions {
        record.server = state;
        if actions.contains(Actions::STOP_TIMERS) {
            record.resend.stop();
            record.end = Due::NEVER;
            record.trying = Due::NEVER;
        }
        if actions.contains(Actions::START_G) {
            match record.resend.due {
                Due::NEVER => record.resend = Repeat::start(record.due(self.now), Timer::G),
                _ => {
                    let now = record.due(self.now);
                    record.resend.again(now, T2);
                }
            }
        }
        let ends = [
            (Actions::START_H, Timer::H),
            (Actions::START_I, Timer::I),
            (Actions::START_J, Timer::J),
            (Actions::START_L, Timer::L),
        ];
        for (action, timer) in ends {
            if actions.contains(action) {
                record.end = record.after(self.now, timer.duration(UDP));
            }
        }
        if actions.contains(Actions::START_TRYING) {
            record.trying = record.after(self.now, Timer::Trying.duration(UDP));
        }
        actions
    }

    // ---- client transactions --------------------------------------------------------------------

    /// Adds the attempt that `forwarding` and the forwarder's edit list are. The caller sends it.
    pub(super) fn add_attempt(&mut self, record: &mut Record, forwarding: &Forwarding) -> bool {
        let Some(edits) = self.desk.keep_edits(&self.forwarder.edits) else {
            return false;
        };
        let now = record.due(self.now);
        let invite = record.method == Method::Invite;
        let (state, timer, last) = match invite {
            true => (
                ClientState::Invite(invite_client::State::Calling),
                Timer::A,
                Timer::B,
            ),
            false => (
                ClientState::Other(non_invite_client::State::Trying),
                Timer::E,
                Timer::F,
            ),
        };
        let attempt = Attempt {
            peer: forwarding.flow.peer,
            listener: forwarding.flow.listener,
            server: forwarding.target.server,
            state,
            abandoned: false,
            rang: false,
            counted: false,
            status: 0,
            cancel: Cancel::None,
            resend: Repeat::start(now, timer),
            end: record.after(self.now, last.duration(UDP)),
            ring: match invite {
                true => record.after(self.now, TIMER_C),
                false => Due::NEVER,
            },
            silence: match self.hunted_pool(record) {
                Some(pool) => record.after(self.now, pool.hunting.attempt_timeout),
                None => Due::NEVER,
            },
            cancel_resend: Repeat::NEVER,
            cancel_end: Due::NEVER,
            edits: Some(edits),
        };
        if let Err(full) = record.attempts.try_push(attempt) {
            let mut edits = full.element().edits;
            self.desk.forget(&mut edits);
            return false;
        }
        if let (Some(server), Some(attempt)) =
            (forwarding.target.server, record.attempts.last_mut())
        {
            self.board.transaction_opened(server, work(record.method));
            attempt.counted = true;
        }
        true
    }

    /// Sends the request to another server, on a new branch.
    pub(super) fn start_attempt(&mut self, record: &mut Record, server: ServerIndex) -> bool {
        let Some(buffer) = self.desk.lay_out(record) else {
            return false;
        };
        let range = buffer.into_range();
        let Ok(number) = u8::try_from(record.attempts.len()) else {
            return false;
        };
        let (bytes, message, _) = self.desk.parts(range.clone());
        let context = self
            .forwarder
            .base
            .context(self.plan, message, bytes, record.flow, self.now)
            .on(Course {
                mode: Mode::Stateful,
                attempt: number,
                server: Some(server),
                ..Course::STATELESS
            });
        self.forwarder.edits.clear();
        let decision = context.forward(&mut self.forwarder.edits, &mut self.forwarder.routes);
        let Ok(Decision::Forward(mut forwarding)) = decision else {
            return false;
        };
        context.note_tried(server);
        self.repin(record, Some(server));
        forwarding.complete(&mut self.forwarder.edits);
        if !self.add_attempt(record, &forwarding) {
            return false;
        }
        let mut buffer = self.desk.buffer(range);
        if self.forwarder.edits.apply(&mut buffer).is_ok() {
            self.out.send(forwarding.flow, buffer.payload());
        }
        self.counts().hunted.increment();
        true
    }

    /// The flow of an attempt.
    fn flow_of(&self, attempt: &Attempt) -> Option<Flow> {
        flow_to(self.plan, attempt.listener, attempt.peer)
    }

    /// Sends an attempt's request again.
    pub(super) fn resend(&mut self, record: &Record, number: usize) {
        if let Some(attempt) = record.attempts.get(number)
            && let Some(flow) = self.flow_of(attempt)
            && let Some(bytes) = self.desk.sent(record, attempt)
        {
            self.out.send(flow, bytes);
            self.counts().retransmitted.increment();
        }
    }

    /// Takes a state of a client transaction, arms its timers and counts it off the board.
    pub(super) fn enter_client(
        &self,
        record: &mut Record,
        number: usize,
        state: ClientState,
        actions: Actions,
    ) {
        let (now, method) = (record.due(self.now), record.method);
        let ends = [
            (Actions::START_D, Timer::D),
            (Actions::START_K, Timer::K),
            (Actions::START_M, Timer::M),
        ];
        let end = ends
            .into_iter()
            .find(|(action, _)| actions.contains(*action))
            .map(|(_, timer)| record.after(self.now, timer.duration(UDP)));
        let Some(attempt) = record.attempts.get_mut(number) else {
            return;
        };
        attempt.state = state;
        if actions.contains(Actions::STOP_TIMERS) {
            attempt.resend.stop();
            attempt.end = Due::NEVER;
        }
        if actions.contains(Actions::START_A) {
            attempt.resend.again(now, core::time::Duration::MAX);
        }
        // RFC 3261 §17.1.2.2: after a provisional response every T2, before it in growing intervals.
        if actions.contains(Actions::E_AT_T2) {
            attempt.resend.every(now, T2);
        } else if actions.contains(Actions::START_E) {
            attempt.resend.again(now, T2);
        }
        if let Some(end) = end {
            attempt.end = end;
        }
        if !state.is_silent() && !sabotaged!(HuntAfterProvisional) {
            attempt.silence = Due::NEVER;
        }
        if !state.is_open() {
            attempt.ring = Due::NEVER;
            if attempt.counted
                && let Some(server) = attempt.server
            {
                attempt.counted = false;
                let work = match (method, attempt.rang) {
                    (Method::Invite, true) => Work::Ringing,
                    _ => work(method),
                };
                self.board.transaction_closed(server, work);
            }
        }
    }
}

/// From a listener to a peer.
pub(super) fn flow_to(plan: &Plan, listener: ListenerIndex, peer: SocketAddr) -> Option<Flow> {
    let listener = plan.listener(listener)?;
    Some(Flow {
        listener: listener.index,
        local: listener.address,
        peer,
    })
}

/// What a request is on the board.
pub(super) fn work(method: Method) -> Work {
    match method {
        Method::Invite => Work::Invite,
        _ => Work::Other,
    }
}
