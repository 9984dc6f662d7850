//! The call log's record of an INVITE, made when its final response leaves.

use super::record::Record;
use super::scene::Scene;
use crate::journal::{self, CallEnd, CallJournal, CallRecord};
use crate::net::{ListenerIndex, ServerIndex, SocketAddr};
use crate::packet::Buffer;
use crate::sip::{HeaderName, Message, Method, NameAddr};
use crate::time::Instant;

/// A server transaction whose final response has left and that is not in the log yet.
pub(super) fn is_due(record: &Record) -> bool {
    record.method == Method::Invite && !record.logged && record.outcome != 0
}

impl Scene<'_> {
    /// Leaves the record of an INVITE in the log.
    pub(super) fn log_call(&mut self, record: &mut Record, journal: &mut CallJournal) {
        record.logged = true;
        if !journal.is_on() {
            return;
        }
        let listener = record.flow.listener;
        let mut call = CallRecord::new(record.started, record.flow.peer, listener);
        (call.rang, call.finished, call.ended) = (record.rang_at(), Some(self.now), self.now);
        call.status = record.outcome;
        for attempt in &record.attempts {
            call.attempt(journal::Attempt {
                server: attempt.server.unwrap_or(NO_SERVER),
                status: attempt.status,
            });
        }
        let mut servers = record.attempts.iter().filter_map(|attempt| attempt.server);
        call.pool = record.hunts.or_else(|| {
            let server = self.plan.server(servers.next()?)?;
            server.pool
        });
        call.end = end_of(record);
        if let Some(range) = self.desk.lay_out(record).map(Buffer::into_range) {
            let (bytes, message, _) = self.desk.parts(range);
            name(&mut call, message, bytes);
        }
        journal.offer(&call);
    }
}

/// An INVITE that was refused before it had a transaction.
pub(super) fn refused(
    journal: &mut CallJournal,
    (message, bytes): (&Message, &[u8]),
    (source, listener): (SocketAddr, ListenerIndex),
    status: u16,
    now: Instant,
) {
    if message.method() != Method::Invite || !journal.is_on() {
        return;
    }
    let mut call = CallRecord::new(now, source, listener);
    (call.status, call.finished) = (status, Some(now));
    name(&mut call, message, bytes);
    journal.offer(&call);
}

/// What stands for an attempt at an address that is no server's.
const NO_SERVER: ServerIndex = ServerIndex(u16::MAX);

/// Who is called by whom in which call.
fn name(call: &mut CallRecord, message: &Message, bytes: &[u8]) {
    let user = |name| {
        let row = message.first(name)?;
        let user = NameAddr::parse(bytes, row.value).ok()?.uri.user?;
        Some(user.of(bytes))
    };
    call.call_id
        .set(message.call_id().unwrap_or_default().of(bytes));
    call.from_user
        .set(user(HeaderName::From).unwrap_or_default());
    call.to_user.set(user(HeaderName::To).unwrap_or_default());
}

/// How a record ended.
fn end_of(record: &Record) -> CallEnd {
    let of_server = record
        .attempts
        .iter()
        .any(|attempt| attempt.status == record.outcome);
    match record.outcome {
        200..=299 => CallEnd::Answered,
        _ if record.cancelled => CallEnd::Cancelled,
        _ if of_server => CallEnd::Refused,
        408 => CallEnd::TimedOut,
        _ => CallEnd::Exhausted,
    }
}
