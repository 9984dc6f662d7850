//! Counts of a running generator, and the report made of them.

use std::collections::BTreeMap;

use super::report::{Latencies, Names, Traffic};
use super::series::{Series, Totals};
use crate::metrics::METHODS;
use crate::sip::Method;
use crate::time::{Duration, Instant};

/// Status codes: 0 to 699.
const STATUSES: usize = 700;

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    /// No final response to this request.
    Timeout(Method),
    /// It rang, and nobody answered in time.
    NoAnswer,
    /// A final response that was not hoped for.
    Status(Method, u16),
    /// 401 or 407 that cannot be answered, or again after the answer.
    Challenge(u16),
    /// A 2xx without a Contact to send the ACK to.
    NoDialog,
    /// The callee did not hang up.
    NoBye,
    /// The callee hung up before it had answered.
    EarlyBye,
    /// As many calls as allowed were in progress.
    Limited,
    /// The run ended first.
    Unfinished,
    /// A search of a scenario did not find what it must, or found what it must not.
    Check,
    /// A scenario goes in a circle without waiting.
    Circle,
    /// Nothing came for which a scenario waited.
    Silence,
    /// A scenario said so.
    Stopped,
    /// A request that a scenario does not expect.
    Unexpected(Method),
}

impl Failure {
    pub(super) fn label(self) -> String {
        let lower = |method: Method| method.as_str().to_ascii_lowercase();
        match self {
            Self::Timeout(method) => format!("{}_timeout", lower(method)),
            Self::NoAnswer => "no_answer".to_owned(),
            Self::Status(method, status) => format!("{}_{status}", lower(method)),
            Self::Challenge(status) => format!("challenge_{status}"),
            Self::NoDialog => "no_dialog".to_owned(),
            Self::NoBye => "no_bye".to_owned(),
            Self::EarlyBye => "early_bye".to_owned(),
            Self::Limited => "max_calls".to_owned(),
            Self::Unfinished => "unfinished".to_owned(),
            Self::Check => "check".to_owned(),
            Self::Circle => "circle".to_owned(),
            Self::Silence => "silence".to_owned(),
            Self::Stopped => "stop_call".to_owned(),
            Self::Unexpected(method) => format!("unexpected_{}", lower(method)),
        }
    }
}

/// A message that fits nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stray {
    /// It came to another address than the request was sent from.
    Address,
    /// Its UDP checksum or a length is wrong.
    Checksum,
    /// Not SIP, or broken.
    Malformed,
    /// The Call-ID is none of ours.
    CallId,
    /// Branch, or number of Vias, is not that of a request of ours.
    Via,
    /// The From tag of a response, or the To tag of a request, is not ours.
    Tag,
    /// The dialog belongs to another server.
    Dialog,
    /// CANCEL of a transaction that was never seen.
    Cancel,
    /// A response to a request that was never sent.
    Response,
    /// A request that this side does not take.
    Request,
    /// A 2xx from a second server to one INVITE.
    Fork,
    /// The next hop of a dialog is a name; sent to the target instead.
    NextHopName,
}

impl Stray {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Checksum => "checksum",
            Self::Malformed => "malformed",
            Self::CallId => "call_id",
            Self::Via => "via",
            Self::Tag => "tag",
            Self::Dialog => "dialog",
            Self::Cancel => "cancel",
            Self::Response => "response",
            Self::Request => "request",
            Self::Fork => "fork",
            Self::NextHopName => "next_hop_name",
        }
    }
}

/// Requests by method and responses by status code, of one direction.
#[derive(Clone, Debug)]
pub(super) struct Kinds {
    requests: [u64; METHODS.len()],
    responses: Box<[u64]>,
}

impl Default for Kinds {
    fn default() -> Self {
        Self {
            requests: [0; METHODS.len()],
            responses: vec![0; STATUSES].into(),
        }
    }
}

impl Kinds {
    #[inline]
    pub(super) fn request(&mut self, method: Method) {
        self.requests[method as usize] += 1;
    }

    #[inline]
    pub(super) fn response(&mut self, status: u16) {
        if let Some(count) = self.responses.get_mut(usize::from(status)) {
            *count += 1;
        }
    }

    fn merge(&mut self, other: &Self) {
        let (counts, others) = (self.requests.iter_mut(), &other.requests);
        counts
            .zip(others)
            .for_each(|(count, other)| *count += other);
        let (counts, others) = (self.responses.iter_mut(), &other.responses);
        counts
            .zip(others)
            .for_each(|(count, other)| *count += other);
    }

    fn requests_by_method(&self) -> BTreeMap<String, u64> {
        let counts = METHODS.iter().zip(self.requests);
        counts
            .filter(|(_, count)| *count > 0)
            .map(|(method, count)| ((*method).to_owned(), count))
            .collect()
    }

    fn responses_by_status(&self) -> BTreeMap<String, u64> {
        let counts = self.responses.iter().enumerate();
        counts
            .filter(|(_, count)| **count > 0)
            .map(|(status, count)| (status.to_string(), *count))
            .collect()
    }
}

/// All messages of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Messages {
    pub(super) sent: Kinds,
    pub(super) received: Kinds,
    strays: BTreeMap<Stray, u64>,
    /// Sent again.
    pub(super) resent: u64,
    /// Received again.
    pub(super) seen_again: u64,
}

impl Messages {
    pub(super) fn stray(&mut self, stray: Stray) {
        self.strays(stray, 1);
    }

    /// Counts several of a kind.
    pub(super) fn strays(&mut self, stray: Stray, count: u64) {
        if count > 0 {
            *self.strays.entry(stray).or_default() += count;
        }
    }

    /// Adds the messages of another thread.
    pub(super) fn merge(&mut self, other: &Self) {
        self.sent.merge(&other.sent);
        self.received.merge(&other.received);
        for (stray, count) in &other.strays {
            *self.strays.entry(*stray).or_default() += count;
        }
        self.resent += other.resent;
        self.seen_again += other.seen_again;
    }

    /// For the report.
    pub(super) fn traffic(&self) -> Traffic {
        let strays = self.strays.iter();
        Traffic {
            retransmissions: self.resent,
            retransmissions_seen: self.seen_again,
            requests_sent: self.sent.requests_by_method(),
            responses_received: self.received.responses_by_status(),
            requests_received: self.received.requests_by_method(),
            responses_sent: self.sent.responses_by_status(),
            strays: strays
                .map(|(stray, count)| (stray.label().to_owned(), *count))
                .collect(),
        }
    }
}

/// Counts of a caller.
#[derive(Clone, Debug)]
pub(super) struct CallerStats {
    pub(super) offered: u64,
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
    pub(super) limited: u64,
    pub(super) failures: BTreeMap<Failure, u64>,
    pub(super) servers: Names,
    pub(super) setup: Latencies,
    pub(super) lateness: Latencies,
    pub(super) messages: Messages,
    /// The same, second by second.
    pub(super) series: Series,
}

impl CallerStats {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            offered: 0,
            answered: 0,
            failed: 0,
            cancelled: 0,
            limited: 0,
            failures: BTreeMap::new(),
            servers: Names::default(),
            setup: Latencies::new(),
            lateness: Latencies::new(),
            messages: Messages::default(),
            series: Series::new(start),
        }
    }

    /// A call was answered, this long after the time it should have started at.
    pub(super) fn answer(&mut self, latency: Duration) {
        self.answered += 1;
        self.setup.record(latency);
        self.series.record(latency);
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.failed += 1;
        *self.failures.entry(failure).or_default() += 1;
        self.series.fail(failure);
    }

    /// Ends a second of the series if it is over.
    pub(super) fn tick(&mut self, now: Instant, in_progress: u32) {
        if self.series.is_due(now) {
            self.end_series(now, in_progress);
        }
    }

    /// Ends the last second of the series, which may be a part of one.
    pub(super) fn end_series(&mut self, now: Instant, in_progress: u32) {
        let totals = Totals {
            offered: self.offered,
            answered: self.answered,
            failed: self.failed,
            cancelled: self.cancelled,
            resent: self.messages.resent,
        };
        self.series.close(now, totals, in_progress.into());
    }

    /// Adds the counts of another thread.
    pub(super) fn merge(&mut self, other: Self) {
        self.offered += other.offered;
        self.answered += other.answered;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.limited += other.limited;
        for (failure, count) in &other.failures {
            *self.failures.entry(*failure).or_default() += count;
        }
        self.servers.merge(&other.servers);
        self.setup.merge(&other.setup);
        self.lateness.merge(&other.lateness);
        self.messages.merge(&other.messages);
        self.series.merge(other.series);
    }

    pub(super) fn failures_by_label(&self) -> BTreeMap<String, u64> {
        let failures = self.failures.iter();
        failures
            .map(|(failure, count)| (failure.label(), *count))
            .collect()
    }
}
