//! Requests: new ones, and those of a record that is there (RFC 3261 §17.2, §16.10).

use super::compose::{self, Parsed};
use super::record::{Cancel, CancelReason, Due, Record, Repeat};
use super::scene::Scene;
use crate::limits::CANCEL_REASONS_LEN_MAX;
use crate::net::Flow;
use crate::packet::Buffer;
use crate::sip::Method;
use crate::time::T2;
use crate::transaction::machine::{Actions, invite_server};
use crate::verdict::Verdict;

impl Scene<'_> {
    /// The record's request once more.
    pub(super) fn on_request_again(&mut self, record: &mut Record) -> Verdict {
        let actions = self.enter_server(record, record.server.on_request());
        self.counts().repeated.increment();
        if actions.contains(Actions::RESEND_RESPONSE) {
            self.resend_last(record);
        }
        Verdict::Absorb
    }

    /// An ACK on the branch of the record's INVITE. `None`: it is not for us but for the server.
    pub(super) fn on_ack(&mut self, record: &mut Record) -> Option<Verdict> {
        let step = record.server.on_invite_event(invite_server::Event::Ack);
        let actions = self.enter_server(record, step);
        // RFC 6026 §7.1: the ACK of a 2xx, by a client that gives it the INVITE's branch.
        (!actions.contains(Actions::PASS_UP)).then_some(Verdict::Absorb)
    }

    /// A CANCEL of the record's INVITE: answered at once, and what is pending is cancelled
    /// (RFC 3261 §9.2, §16.10).
    pub(super) fn on_cancel(
        &mut self,
        record: &mut Record,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
    ) -> Verdict {
        if record.server.is_open() && !record.cancelled {
            record.cancelled = true;
            let mut rows = [0; CANCEL_REASONS_LEN_MAX];
            let cancel = Parsed::new(buffer.payload(), &self.forwarder.message);
            let len = compose::reason_rows(cancel, &mut rows);
            if len > 0 {
                let kept = self.desk.keep(rows.get(..len).unwrap_or_default());
                self.desk.forget(&mut record.reasons);
                record.reasons = kept;
            }
            let reached = match sabotaged!(AbsorbCancel) {
                true => 0,
                false => record.attempts.len(),
            };
            for number in 0..reached {
                self.cancel(record, number, CancelReason::Client);
            }
        }
        self.forwarder
            .answer_here(200, self.plan, buffer, flow, self.now)
    }

    /// Runs what is due at the record.
    pub(super) fn on_due(&mut self, record: &mut Record) {
        let now = record.due(self.now);
        if record.trying <= now {
            record.trying = Due::NEVER;
            self.on_trying_due(record);
        }
        if record.resend.due <= now {
            self.on_response_due(record);
        }
        if record.end <= now {
            self.on_server_end(record);
        }
        for number in 0..record.attempts.len() {
            self.on_attempt_due(record, number);
        }
    }

    /// RFC 4320 §4.1: "a 100 MUST be sent" when timer E has reached T2.
    fn on_trying_due(&mut self, record: &mut Record) {
        let actions = self.enter_server(record, record.server.on_trying_due());
        if actions.contains(Actions::SEND_TRYING) {
            self.send_trying(record);
        }
    }

    /// Timer G.
    fn on_response_due(&mut self, record: &mut Record) {
        let step = record.server.on_invite_event(invite_server::Event::TimerG);
        let actions = self.enter_server(record, step);
        if !actions.contains(Actions::START_G) {
            record.resend.stop();
        }
        if actions.contains(Actions::RESEND_RESPONSE) {
            self.resend_last(record);
            self.counts().retransmitted.increment();
        }
    }

    /// Timers H, I, J and L.
    fn on_server_end(&mut self, record: &mut Record) {
        record.end = Due::NEVER;
        (record.server, _) = record.server.on_end();
    }

    fn on_attempt_due(&mut self, record: &mut Record, number: usize) {
        let now = record.due(self.now);
        let due = |record: &Record| {
            let attempt = record.attempts.get(number)?;
            Some((
                attempt.resend.due <= now,
                attempt.silence <= now,
                attempt.ring <= now,
                attempt.end <= now,
                attempt.cancel_resend.due <= now,
                attempt.cancel_end <= now,
            ))
        };
        let Some((resend, silence, ring, end, cancel_resend, cancel_end)) = due(record) else {
            return;
        };
        if resend {
            self.on_request_due(record, number);
        }
        if silence {
            self.on_silence(record, number);
        }
        if ring {
            self.on_ring_end(record, number);
        }
        if end {
            self.on_attempt_end(record, number);
        }
        if cancel_resend && let Some(attempt) = record.attempts.get_mut(number) {
            attempt.cancel_resend.again(now, T2);
            self.put_cancel(record, number);
        }
        if cancel_end {
            self.on_cancel_end(record, number);
        }
    }

    /// Timers A and E.
    fn on_request_due(&mut self, record: &mut Record, number: usize) {
        let Some(attempt) = record.attempts.get_mut(number) else {
            return;
        };
        let (state, actions) = attempt.state.on_resend_due();
        self.enter_client(record, number, state, actions);
        if sabotaged!(RetransmitOnNewBranch)
            && let Some(server) = record.attempts.get(number).and_then(|of| of.server)
        {
            let _added = self.start_attempt(record, server);
        } else if actions.contains(Actions::SEND_REQUEST) {
            self.resend(record, number);
        } else if let Some(attempt) = record.attempts.get_mut(number) {
            attempt.resend.stop();
        }
    }

    /// The server has said nothing for as long as one attempt may take.
    fn on_silence(&mut self, record: &mut Record, number: usize) {
        let (Some(index), Some(pool)) = (record.hunts, self.hunted_pool(record)) else {
            return;
        };
        let hunting = &pool.hunting;
        let Some(attempt) = record.attempts.get_mut(number) else {
            return;
        };
        attempt.silence = Due::NEVER;
        let spoken = !attempt.state.is_silent() && !sabotaged!(HuntAfterProvisional);
        if attempt.abandoned || spoken {
            return;
        }
        if let Some(server) = attempt.server {
            self.board.note_timeout(server);
        }
        let started = record.started;
        let passed = self.now.since(started);
        let may_hunt = record.may_hunt() && passed < hunting.timeout;
        if may_hunt && self.budget.take(index, hunting.retry_budget) {
            let resend = self.abandon(record, number);
            if self.hunt(record) {
                return;
            }
            self.take_back(record, number, resend);
        }
        // Only who has been tried elsewhere in vain ends before timer B: a lone server may be slow.
        if record.attempts.len() > 1 && record.server.is_open() {
            if passed >= hunting.timeout {
                self.conclude(record, None);
                // Should one of them ring yet, it is told that nobody listens.
                for number in 0..record.attempts.len() {
                    self.abandon(record, number);
                    self.cancel(record, number, CancelReason::Timeout);
                }
            } else if let Some(attempt) = record.attempts.get_mut(number) {
                let left = hunting.timeout.saturating_sub(passed);
                attempt.silence = Due::since(started, self.now + left);
            }
        }
    }

    /// Another server is about to be tried: this one is not asked again. Returns when it would have
    /// been.
    fn abandon(&mut self, record: &mut Record, number: usize) -> Repeat {
        let Some(attempt) = record.attempts.get_mut(number) else {
            return Repeat::NEVER;
        };
        attempt.abandoned = true;
        core::mem::replace(&mut attempt.resend, Repeat::NEVER)
    }

    /// There was no other server: this one is asked on as if nothing had been (RFC 3261 §17.1.1.2,
    /// intervals that double).
    fn take_back(&mut self, record: &mut Record, number: usize, resend: Repeat) {
        if let Some(attempt) = record.attempts.get_mut(number) {
            attempt.abandoned = false;
            attempt.resend = resend;
        }
    }

    /// Timer C, RFC 3261 §16.8: cancelled if it rings, else as if a 408 had come.
    fn on_ring_end(&mut self, record: &mut Record, number: usize) {
        let Some(attempt) = record.attempts.get_mut(number) else {
            return;
        };
        attempt.ring = Due::NEVER;
        if attempt.state.is_silent() {
            self.end_attempt(record, number);
        } else {
            self.cancel(record, number, CancelReason::Timeout);
        }
    }

    /// Timers B, D, F, K and M.
    fn on_attempt_end(&mut self, record: &mut Record, number: usize) {
        let Some(attempt) = record.attempts.get_mut(number) else {
            return;
        };
        attempt.end = Due::NEVER;
        let (state, actions) = attempt.state.on_end();
        if actions.contains(Actions::TIMEOUT) {
            self.counts().timed_out.increment();
            self.end_attempt(record, number);
        } else {
            self.enter_client(record, number, state, actions);
        }
    }

    /// An attempt is over without a final response: as if a 408 had come (RFC 3261 §16.8).
    fn end_attempt(&mut self, record: &mut Record, number: usize) {
        let Some(attempt) = record.attempts.get_mut(number) else {
            return;
        };
        let (abandoned, server) = (attempt.abandoned, attempt.server);
        let state = attempt.state.terminated();
        let was_silent = attempt.state.is_silent();
        if let Some(server) = server
            && was_silent
            && !abandoned
        {
            self.board.note_timeout(server);
        }
        self.enter_client(record, number, state, Actions::STOP_TIMERS);
        if !record.has_live_attempt() {
            // RFC 3263 §4.3: a timeout without any response is a failure like a 503.
            if was_silent && !abandoned && self.hunt(record) {
                return;
            }
            self.conclude(record, None);
        }
    }

    /// Timer F of a CANCEL, and 64·T1 after it (RFC 3261 §9.1).
    fn on_cancel_end(&mut self, record: &mut Record, number: usize) {
        let Some(attempt) = record.attempts.get_mut(number) else {
            return;
        };
        attempt.cancel_end = Due::NEVER;
        attempt.cancel_resend.stop();
        attempt.cancel = Cancel::Done;
        if attempt.state.is_open() {
            self.end_attempt(record, number);
        }
    }

    /// The network says that an attempt's request has not arrived: as if a 503 had come
    /// (RFC 3261 §16.9).
    pub(super) fn on_unreachable(&mut self, record: &mut Record, number: usize) {
        let Some(attempt) = record.attempts.get_mut(number) else {
            return;
        };
        // Who has answered was reachable: the report is about something older.
        if !attempt.state.is_silent() || attempt.abandoned {
            return;
        }
        attempt.status = 503;
        let state = attempt.state.terminated();
        self.enter_client(record, number, state, Actions::STOP_TIMERS);
        if !self.hunt(record) && !record.has_live_attempt() {
            self.conclude(record, None);
        }
    }

    /// A server of the record has gone down: what has only a 100 from it goes to another one, what
    /// rings ends if that is wanted.
    pub(super) fn on_server_down(&mut self, record: &mut Record) {
        if record.method != Method::Invite || !record.server.is_open() {
            return;
        }
        for number in 0..record.attempts.len() {
            let Some(attempt) = record.attempts.get(number) else {
                continue;
            };
            let down = attempt
                .server
                .and_then(|server| self.plan.server(server))
                .is_some_and(crate::route::Server::is_down);
            if !down || attempt.abandoned || !attempt.state.is_open() {
                continue;
            }
            if !attempt.rang {
                let resend = self.abandon(record, number);
                if self.hunt(record) {
                    // Should it live after all, it need not go on.
                    self.cancel(record, number, CancelReason::Abandoned);
                } else {
                    self.take_back(record, number, resend);
                }
            } else if self
                .hunted_pool(record)
                .is_some_and(|pool| pool.hunting.ends_ringing)
            {
                // RFC 3261 §21.4.18: the callee's end is not available; RFC 5057 §5.1: within a
                // dialog that would end the dialog.
                let status = if record.in_dialog { 500 } else { 480 };
                self.answer(record, status);
                self.cancel(record, number, CancelReason::Timeout);
            }
        }
    }
}
