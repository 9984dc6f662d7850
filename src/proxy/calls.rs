//! What the board learns of calls: that they stand, that they live, that they end; and how long
//! servers take.

use super::Proxy;
use super::record::Record;
use super::scene::{Scene, work};
use crate::affinity::home_worker;
use crate::balance::{CallNote, Work};
use crate::route::Plan;
use crate::sip::{HeaderName, Message, Method, delta_seconds};
use crate::time::Instant;

impl Proxy {
    /// A request in a dialog shows that its call lives, or that it ends. It may have come to another
    /// worker than the one that counts the call.
    pub(super) fn note_in_dialog(&mut self, plan: &Plan, bytes: &[u8], now: Instant) {
        let message = &self.forwarder.message;
        let method = message.method();
        if !self.board.counts_calls()
            || message.to_tag().is_none()
            || matches!(method, Method::Ack | Method::Cancel)
        {
            return;
        }
        let call_id = message.call_id().unwrap_or_default();
        let call = plan.keys().call_id_hash(call_id.of(bytes));
        let session = session_expires(message, bytes);
        let base = &self.forwarder.base;
        let home = home_worker(call, base.workers);
        let ends = method == Method::Bye;
        if home != base.worker {
            let _told = self.board.tell(
                home,
                match ends {
                    true => CallNote::Ended(call),
                    false => CallNote::Refreshed(call, session),
                },
            );
        } else if ends {
            self.calls.ended(call);
        } else {
            self.calls.refreshed(call, now, session);
        }
    }

    /// Runs what is due of the calls; returns when something is due next.
    pub(super) fn tend_calls(&mut self, now: Instant) -> Option<Instant> {
        self.calls.hear(self.forwarder.base.worker, now);
        self.calls.expire(now);
        let metrics = &self.forwarder.base.metrics.transactions;
        metrics.calls_expired.set(self.calls.expired());
        metrics.calls_evicted.set(self.calls.evicted());
        self.calls.next_deadline()
    }
}

impl Scene<'_> {
    /// An INVITE was answered with a 2xx, which is the current message: a call that we sent a server
    /// stands there, or one that stood lives.
    pub(super) fn note_call(&mut self, record: &Record, number: usize, bytes: &[u8]) {
        if record.method != Method::Invite {
            return;
        }
        let session = session_expires(&self.forwarder.message, bytes);
        let attempt = record.attempts.get(number);
        let server = attempt.and_then(|attempt| attempt.server);
        match server.filter(|_| !record.in_dialog) {
            None => self.calls.refreshed(record.call_id, self.now, session),
            Some(index) => {
                let pool = self.plan.server(index).and_then(|server| server.pool);
                if let Some(pool) = pool.and_then(|pool| self.plan.pool(pool)) {
                    self.calls
                        .opened(record.call_id, index, self.now, session, pool.call_max);
                }
            }
        }
    }

    /// The first response that says something: how long the server took to it. What it took when it
    /// was not the first that was asked, or a human may have waited for it, is not known.
    pub(super) fn note_response_time(&self, record: &Record, number: usize) {
        let attempt = record.attempts.get(number);
        let asked = attempt.filter(|attempt| number == 0 && !attempt.rang);
        let server = asked.and_then(|attempt| self.plan.server(attempt.server?));
        if let Some(pool) = server.and_then(|server| server.pool)
            && !record.in_dialog
        {
            let elapsed = self.now.since(record.started);
            let work: Work = work(record.method);
            self.board.note_response_time(pool, work, elapsed);
        }
    }
}

/// RFC 4028 §4: `Session-Expires: 1800;refresher=uac`.
fn session_expires(message: &Message, bytes: &[u8]) -> Option<u32> {
    delta_seconds(message.first(HeaderName::SessionExpires)?.value.of(bytes))
}
