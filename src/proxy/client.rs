//! What becomes of an attempt: its responses, its CANCEL, its end (RFC 3261 §16.7 to §16.10).

use super::compose::{self, Parsed, Reason};
use super::record::{Best, Cancel, CancelReason, ClientState, Due, Record, Repeat};
use super::scene::{Scene, flow_to};
use crate::balance::{Choice, Work};
use crate::forward::OwnVia;
use crate::net::Flow;
use crate::packet::Buffer;
use crate::sip::{HeaderName, Method, delta_seconds, first_value_removal};
use crate::time::{Duration, T1_64, TIMER_C};
use crate::transaction::machine::{Actions, Timer};
use crate::verdict::{DropReason, Verdict};

/// Longest that a server's Retry-After is believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

impl Scene<'_> {
    /// A response on one of the record's branches, which the forwarder has read.
    pub(super) fn on_response(
        &mut self,
        record: &mut Record,
        own: &OwnVia,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
    ) -> Verdict {
        let number = usize::from(own.branch.attempt());
        let message = &self.forwarder.message;
        let (status, cseq) = (message.status(), message.cseq());
        let parameter =
            self.forwarder
                .verify(own, record.reply_to, self.plan, buffer.payload(), flow);
        let (Some(attempt), Some(cseq)) = (record.attempts.get(number), cseq) else {
            return Verdict::Drop(DropReason::ResponseStray);
        };
        if let Err(reason) = parameter {
            return Verdict::Drop(reason);
        }
        if let Some(server) = attempt.server {
            self.board.note_sign_of_life(server, self.now);
            if let Some(server) = self.plan.server(server) {
                let key = record.pin_key;
                self.forwarder
                    .note_response(buffer.payload(), server, |_| key, self.now);
            }
        }
        // RFC 3261 §17.1.3: the method in the CSeq tells the response of a CANCEL from that of the
        // request that it cancels.
        if cseq.method == Method::Cancel && record.method == Method::Invite {
            return self.on_cancel_response(record, number, status);
        }
        if cseq.number != record.cseq || cseq.method != record.method {
            return Verdict::Drop(DropReason::ResponseStray);
        }
        // RFC 3261 §16.7 step 3: without another Via there is nobody that it could go to.
        match self.forwarder.message.next_via(buffer.payload()) {
            Ok(Some(_)) => {}
            Ok(None) => return Verdict::Drop(DropReason::ResponseOwn),
            Err(_) => return Verdict::Drop(DropReason::MalformedResponse),
        }
        let step = attempt.state.on_response(status);
        if let ClientState::Invite(_) = attempt.state {
            return self.on_invite_response(record, number, step, status, buffer, flow);
        }
        let (state, actions) = step;
        self.enter_client(record, number, state, actions);
        // RFC 4320 §4.1: no provisional response but 100, and 100 goes one hop only.
        if !actions.contains(Actions::PASS_UP) || status < 200 {
            return Verdict::Absorb;
        }
        self.note_final(record, number, status, buffer.payload());
        self.on_failure_or_answer(record, number, status, buffer, flow)
    }

    fn on_invite_response(
        &mut self,
        record: &mut Record,
        number: usize,
        (state, actions): (ClientState, Actions),
        status: u16,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
    ) -> Verdict {
        let ring = record.after(self.now, TIMER_C);
        let was_open = record
            .attempts
            .get(number)
            .is_some_and(|attempt| attempt.state.is_open());
        self.enter_client(record, number, state, actions);
        if actions.contains(Actions::SEND_ACK) && !(sabotaged!(ForgetAck) && status == 486) {
            self.send_ack(record, number, buffer.payload());
        }
        let Some(attempt) = record.attempts.get_mut(number) else {
            return Verdict::Absorb;
        };
        if status < 200 {
            if !actions.contains(Actions::PASS_UP) {
                return Verdict::Absorb;
            }
            if status > 100 {
                if attempt.counted
                    && !attempt.rang
                    && let Some(server) = attempt.server
                {
                    self.board
                        .transaction_changed(server, Work::Invite, Work::Ringing);
                }
                self.note_response_time(record, number);
            }
            let Some(attempt) = record.attempts.get_mut(number) else {
                return Verdict::Absorb;
            };
            if status > 100 {
                attempt.rang = true;
                // RFC 3261 §16.7 step 2: reset by 101 to 199, not by 100.
                if !sabotaged!(ForgetTimerCReset) {
                    attempt.ring = ring;
                }
            }
            // RFC 3261 §9.1: a CANCEL waits for the first provisional response.
            if let Cancel::Wanted(reason) = attempt.cancel {
                self.send_cancel(record, number, reason);
            } else if attempt.abandoned
                && attempt.cancel == Cancel::None
                && !sabotaged!(LetAbandonedRing)
            {
                self.send_cancel(record, number, CancelReason::Abandoned);
            }
            let abandoned = record
                .attempts
                .get(number)
                .is_none_or(|attempt| attempt.abandoned);
            // RFC 3261 §16.7 step 5: never a 100, all others at once.
            if status == 100 && !sabotaged!(ForwardTrying) || abandoned || !record.server.is_open()
            {
                return Verdict::Absorb;
            }
            return self.pass_up(record, status, buffer, flow);
        }
        if was_open {
            self.note_final(record, number, status, buffer.payload());
        }
        if !actions.contains(Actions::PASS_UP) {
            return Verdict::Absorb;
        }
        self.on_failure_or_answer(record, number, status, buffer, flow)
    }

    /// A final response that the transaction has passed up.
    fn on_failure_or_answer(
        &mut self,
        record: &mut Record,
        number: usize,
        status: u16,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
    ) -> Verdict {
        if status < 300 {
            // RFC 3261 §16.7 step 5: every 2xx at once; step 10: what else is pending is cancelled.
            let verdict = self.pass_up(record, status, buffer, flow);
            self.cancel_others(record, number, status);
            return verdict;
        }
        if !record.server.is_open() {
            return Verdict::Absorb;
        }
        let abandoned = record
            .attempts
            .get(number)
            .is_some_and(|attempt| attempt.abandoned);
        if abandoned && record.has_live_attempt() {
            self.keep_best(record, number, status, buffer.payload());
            if status >= 600 {
                // RFC 3261 §16.7 step 5: "not immediately forwarded", but all that is pending is
                // cancelled, and no new branch made.
                record.hunts = None;
                self.cancel_others(record, number, status);
            }
            return Verdict::Absorb;
        }
        if !abandoned && self.is_hunted(record, status) && self.hunt(record) {
            let rang = record
                .attempts
                .get(number)
                .is_some_and(|attempt| attempt.rang);
            if rang && let Some(tag) = self.forwarder.message.to_tag() {
                self.send_early_end(record, tag.of(buffer.payload()), status);
            }
            self.keep_best(record, number, status, buffer.payload());
            return Verdict::Absorb;
        }
        let server = record.attempts.get(number).and_then(|of| of.server);
        let verdict = self.conclude(record, Some((status, buffer, flow)));
        if verdict == Verdict::Transmit {
            self.repin(record, server);
        }
        self.cancel_others(record, number, status);
        verdict
    }

    /// What is learnt from a final response.
    fn note_final(&mut self, record: &mut Record, number: usize, status: u16, bytes: &[u8]) {
        if (200..300).contains(&status) {
            self.note_call(record, number, bytes);
        }
        self.note_response_time(record, number);
        let Some(attempt) = record.attempts.get_mut(number) else {
            return;
        };
        attempt.status = status;
        let Some(server) = attempt.server else { return };
        self.board.note_answer(server, status, self.now);
        if status == 503
            && let Some(row) = self.forwarder.message.first(HeaderName::RetryAfter)
        {
            // RFC 3261 §21.5.4: it "SHOULD NOT forward any other requests to that server" for so long.
            let seconds = delta_seconds(row.value.of(bytes)).unwrap_or(0);
            let time = Duration::from_secs(seconds.into()).min(RETRY_AFTER_MAX);
            self.board.note_retry_after(server, self.now + time);
        }
    }

    /// Whether a final response has another server tried.
    fn is_hunted(&self, record: &Record, status: u16) -> bool {
        self.hunted_pool(record)
            .is_some_and(|pool| pool.hunting.on.contains(&status))
    }

    /// Tries another server of the pool; false if there is none, or no time.
    pub(super) fn hunt(&mut self, record: &mut Record) -> bool {
        if !record.may_hunt() {
            return false;
        }
        let Some(pool) = self.hunted_pool(record) else {
            return false;
        };
        if pool.hunting.is_off() || self.now.since(record.started) >= pool.hunting.timeout {
            return false;
        }
        let tried = record.tried();
        let server = pool.choose(&Choice {
            board: self.board,
            key: crate::balance::AffinityKey(record.call_id.0),
            tried: &tried,
            now: self.now,
        });
        server.is_some_and(|server| self.start_attempt(record, server))
    }

    /// Keeps a final response if it is better than the best so far.
    fn keep_best(&mut self, record: &mut Record, number: usize, status: u16, bytes: &[u8]) {
        if record
            .best
            .as_ref()
            .is_some_and(|best| !is_better(status, best.status))
        {
            return;
        }
        // Without our Via, as it would leave.
        let message = &self.forwarder.message;
        let Some(row) = message.first(HeaderName::Via) else {
            return;
        };
        let own = first_value_removal(bytes, row);
        let head = bytes.get(..own.start()).unwrap_or_default();
        let tail = bytes.get(own.end()..message.message_end());
        let Some(kept) = self.desk.blobs.store(&[head, tail.unwrap_or_default()]) else {
            return;
        };
        record.drop_best(self.desk);
        record.best = Some(Best {
            status,
            server: record.attempts.get(number).and_then(|of| of.server),
            bytes: kept,
        });
    }

    /// RFC 3261 §16.7 step 6: the best of what has come is the final response.
    pub(super) fn conclude(
        &mut self,
        record: &mut Record,
        last: Option<(u16, &mut Buffer<'_>, &mut Flow)>,
    ) -> Verdict {
        if !record.server.is_open() {
            return Verdict::Absorb;
        }
        let kept = record.best.as_ref().map(|best| best.status);
        match (last, kept) {
            (Some((status, buffer, flow)), kept)
                if status != 503 && kept.is_none_or(|kept| !is_better(kept, status)) =>
            {
                record.drop_best(self.desk);
                self.pass_up(record, status, buffer, flow)
            }
            (_, Some(kept)) if kept != 503 => {
                self.pass_best_up(record);
                Verdict::Absorb
            }
            (last, kept) => {
                let status = match last.is_none() && kept.is_none() {
                    // RFC 3261 §9.2: the client wants it ended.
                    true if record.cancelled => 487,
                    true if record.attempts.iter().all(|attempt| attempt.status != 503) => 408,
                    // RFC 3261 §16.7 step 6: a 503 would have the client avoid us; §21.5.4.
                    _ => self
                        .hunted_pool(record)
                        .map_or(500, |pool| pool.hunting.exhausted_code),
                };
                record.drop_best(self.desk);
                self.answer(record, status);
                Verdict::Absorb
            }
        }
    }

    /// RFC 3261 §17.1.1.3: the ACK of a final response that is no 2xx is ours.
    fn send_ack(&mut self, record: &Record, number: usize, response: &[u8]) {
        let Some(attempt) = record.attempts.get(number) else {
            return;
        };
        let response = Parsed::new(response, &self.forwarder.message);
        if let Some(flow) = flow_to(self.plan, attempt.listener, attempt.peer)
            && let Some(bytes) = self.desk.compose(record, attempt, |invite, text| {
                compose::ack(invite, response, text)
            })
        {
            self.out.send(flow, bytes);
        }
    }

    // ---- CANCEL ---------------------------------------------------------------------------------

    /// Ends an attempt that has no final response: at once if it has a provisional one, else with
    /// the first (RFC 3261 §9.1).
    pub(super) fn cancel(&mut self, record: &mut Record, number: usize, reason: CancelReason) {
        let Some(attempt) = record.attempts.get_mut(number) else {
            return;
        };
        if !matches!(attempt.cancel, Cancel::None | Cancel::Wanted(_))
            || !matches!(attempt.state, ClientState::Invite(_))
            || !attempt.state.is_open()
        {
            return;
        }
        // What the client has said stays said.
        let reason = match attempt.cancel {
            Cancel::Wanted(CancelReason::Client) => CancelReason::Client,
            _ => reason,
        };
        if attempt.state.is_silent() && !sabotaged!(CancelAtOnce) {
            attempt.cancel = Cancel::Wanted(reason);
        } else {
            self.send_cancel(record, number, reason);
        }
    }

    /// RFC 3261 §16.7 step 10, after a response of this status.
    fn cancel_others(&mut self, record: &mut Record, number: usize, status: u16) {
        let reason = match status {
            ..300 => CancelReason::Elsewhere,
            300.. => CancelReason::Abandoned,
        };
        for other in 0..record.attempts.len() {
            if other != number {
                self.cancel(record, other, reason);
            }
        }
    }

    fn send_cancel(&mut self, record: &mut Record, number: usize, reason: CancelReason) {
        let (now, end) = (record.due(self.now), record.after(self.now, T1_64));
        if let Some(attempt) = record.attempts.get_mut(number) {
            attempt.cancel = Cancel::Sent(reason);
            attempt.cancel_resend = Repeat::start(now, Timer::E);
            attempt.cancel_end = end;
        }
        self.counts().cancelled.increment();
        self.put_cancel(record, number);
    }

    /// Sends the CANCEL of an attempt, for the first time or again.
    pub(super) fn put_cancel(&mut self, record: &Record, number: usize) {
        let Some(attempt) = record.attempts.get(number) else {
            return;
        };
        let (Cancel::Sent(reason), Some(flow)) = (
            attempt.cancel,
            flow_to(self.plan, attempt.listener, attempt.peer),
        ) else {
            return;
        };
        let mut rows = [0; crate::limits::CANCEL_REASONS_LEN_MAX];
        let len = match (&record.reasons, reason) {
            (Some(reasons), CancelReason::Client) => self.desk.blobs.copy_to(reasons, &mut rows),
            _ => 0,
        };
        let reason = match reason {
            // RFC 3326 §2: what the client's CANCEL says.
            CancelReason::Client => Reason::Rows(rows.get(..len).unwrap_or_default()),
            // RFC 3326 §3.1: said where another branch has answered, and nowhere else.
            CancelReason::Elsewhere => Reason::Status(200),
            CancelReason::Abandoned => Reason::None,
            CancelReason::Timeout => Reason::Status(408),
        };
        let composed = self.desk.compose(record, attempt, |invite, text| {
            compose::cancel(invite, reason, text)
        });
        if let Some(bytes) = composed {
            self.out.send(flow, bytes);
        }
    }

    fn on_cancel_response(&mut self, record: &mut Record, number: usize, status: u16) -> Verdict {
        let Some(attempt) = record.attempts.get_mut(number) else {
            return Verdict::Absorb;
        };
        if let Cancel::Sent(_) = attempt.cancel
            && status >= 200
        {
            attempt.cancel_resend.stop();
            attempt.cancel = Cancel::Done;
            // RFC 3261 §9.1: the request is taken as cancelled if it has no final response 64·T1
            // after its CANCEL. That timer goes on.
            if !attempt.state.is_open() {
                attempt.cancel_end = Due::NEVER;
            }
        }
        Verdict::Absorb
    }
}

/// RFC 3261 §16.7 step 6: any 6xx, else the lowest class; within it what asks the client for
/// something comes first. A 503 is the least of all.
fn is_better(status: u16, than: u16) -> bool {
    fn rank(status: u16) -> (u16, u16) {
        let class = match status {
            600.. => 0,
            503 => 10,
            other => other / 100,
        };
        let asks = !matches!(status, 401 | 407 | 415 | 420 | 484);
        (class, u16::from(asks))
    }
    rank(status) < rank(than)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_response_is_that_of_the_standard() {
        let best = |statuses: &[u16]| {
            statuses.iter().copied().reduce(|best, status| {
                if is_better(status, best) {
                    status
                } else {
                    best
                }
            })
        };
        assert_eq!(best(&[486, 404, 503]), Some(486));
        assert_eq!(best(&[503, 500]), Some(500));
        assert_eq!(best(&[404, 603]), Some(603));
        assert_eq!(best(&[486, 607, 401]), Some(607));
        assert_eq!(best(&[500, 404, 401]), Some(401));
        assert_eq!(best(&[302, 404]), Some(302));
    }
}
