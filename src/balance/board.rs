//! What is known of every server at this moment: how much it has to do, what became of what was
//! sent to it, and whether it answers probes.
//!
//! One [`Board`] for the process. Workers write, the health monitor and the metrics page read; all
//! of it is relaxed atomics, so that nobody waits for anybody. A server's slot is its place for the
//! life of the process, so that a reload loses nothing and no count speaks of another server.
//!
//! Load is counted up and down, and a count never falls below zero, whatever is closed twice.
//! Outcomes only grow: a reader remembers what it saw and takes the difference.
//!
//! ```
//! use viaduct::balance::{Board, Work};
//! use viaduct::net::ServerIndex;
//! use viaduct::time::Instant;
//!
//! let board = Board::new();
//! let server = ServerIndex(7);
//! board.transaction_opened(server, Work::Invite);
//! board.transaction_changed(server, Work::Invite, Work::Ringing);
//! assert_eq!(board.load(server).open(), 1);
//! board.note_answer(server, 200, Instant::ZERO);
//! board.transaction_closed(server, Work::Ringing);
//! board.transaction_closed(server, Work::Ringing);
//! assert_eq!(board.load(server).open(), 0);
//! assert_eq!(board.outcomes(server).answered, 1);
//! ```

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use crossbeam::queue::ArrayQueue;

use super::cost::{Cost, ResponseTimes};
use crate::affinity::CallIdHash;
use crate::limits::{CALL_NOTES_MAX, POOLS_MAX, SERVERS_MAX, WORKERS_MAX};
use crate::net::{PoolIndex, ServerIndex, WorkerIndex};
use crate::time::Instant;

/// What a server still has to do for a transaction; who holds the transaction remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// An INVITE that has no response yet but 100.
    Invite,
    /// An INVITE that rings: nothing is left to do until a human answers.
    Ringing,
    /// Any other request.
    Other,
}

/// What a server has to do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// INVITE transactions without a response but 100.
    pub invites: u32,
    /// INVITE transactions that ring.
    pub ringing: u32,
    /// Open transactions of other methods.
    pub others: u32,
    /// Calls that stand.
    pub calls: u32,
}

impl Load {
    /// Open transactions.
    pub fn open(self) -> u32 {
        self.pending().saturating_add(self.others)
    }

    /// Open INVITE transactions: calls that may come to stand.
    pub fn pending(self) -> u32 {
        self.invites.saturating_add(self.ringing)
    }

    /// Calls that stand or may come to.
    pub fn committed(self) -> u32 {
        self.pending().saturating_add(self.calls)
    }
}

/// What became of the requests sent to a server since the start; each request counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Final responses other than 5xx.
    pub answered: u64,
    /// 5xx responses but 503.
    pub failed: u64,
    /// 503 responses.
    pub unavailable: u64,
    /// Requests without any response.
    pub timeouts: u64,
    /// Requests that the network reported as undeliverable (ICMP, a send error).
    pub unreachable: u64,
    /// Timeouts and undeliverable requests since the last response of any kind.
    pub silent_in_a_row: u32,
    /// When the last response came; [`Instant::ZERO`] if none ever did.
    pub last_answer: Instant,
}

/// What a worker has seen of a call that is at home at another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallNote {
    /// A request in its dialog, with the Session-Expires that it has.
    Refreshed(CallIdHash, Option<u32>),
    /// Its BYE.
    Ended(CallIdHash),
}

/// The newest probe and the newest answer to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Serial of the newest probe; 0 = none was sent.
    pub sent: u32,
    /// When it was sent.
    pub sent_at: Instant,
    /// Serial of the newest probe that was answered; 0 = none.
    pub answered: u32,
    /// Status code of its answer; 0 = the network reported it as undeliverable.
    pub status: u16,
    /// When the answer came.
    pub answered_at: Instant,
}

/// Written with every transaction.
#[derive(Debug, Default)]
#[repr(align(64))]
struct LoadCells {
    invites: AtomicU32,
    ringing: AtomicU32,
    others: AtomicU32,
    calls: AtomicU32,
    /// When the next call may go there at the earliest, if they were spread evenly.
    next_call_at: AtomicU64,
    retry_after_until: AtomicU64,
}

/// Written with every final response.
#[derive(Debug, Default)]
#[repr(align(64))]
struct OutcomeCells {
    answered: AtomicU64,
    failed: AtomicU64,
    unavailable: AtomicU64,
    timeouts: AtomicU64,
    unreachable: AtomicU64,
    last_answer: AtomicU64,
    silent_in_a_row: AtomicU32,
}

/// Written with every probe.
#[derive(Debug, Default)]
#[repr(align(64))]
struct ProbeCells {
    sent: AtomicU32,
    sent_at: AtomicU64,
    /// Serial in the upper half, status in the lower: one store, so that they belong together.
    answered: AtomicU64,
    answered_at: AtomicU64,
}

/// The cells of one server: three cache lines, by who writes them.
#[derive(Debug, Default)]
struct ServerBoard {
    load: LoadCells,
    outcomes: OutcomeCells,
    probe: ProbeCells,
}

/// What a pool's choices share: its turns, and what its transactions cost.
#[derive(Debug, Default)]
#[repr(align(64))]
struct PoolCells {
    turns: AtomicU64,
    times: ResponseTimes,
}

/// What is known of every server at this moment, by slot; and the little that choices within a pool
/// share, by its place in the configuration. A reload that moves pools mixes the latter up: a round
/// starts elsewhere, and costs are learned again within a few dozen transactions.
///
/// A slot that does not exist takes every note and reads as zero.
#[derive(Debug)]
pub struct Board {
    servers: Box<[ServerBoard]>,
    pools: Box<[PoolCells]>,
    /// Whether a call ever stood: until then nobody need look for its end.
    counts_calls: AtomicBool,
    /// What workers have seen of calls at home elsewhere, by home.
    notes: Box<[ArrayQueue<CallNote>]>,
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

impl Board {
    /// A board on which nothing has happened, 3 MiB.
    pub fn new() -> Self {
        Self {
            servers: (0..SERVERS_MAX).map(|_| ServerBoard::default()).collect(),
            pools: (0..POOLS_MAX).map(|_| PoolCells::default()).collect(),
            counts_calls: AtomicBool::new(false),
            notes: (0..WORKERS_MAX)
                .map(|_| ArrayQueue::new(CALL_NOTES_MAX))
                .collect(),
        }
    }

    #[inline]
    fn at(&self, server: ServerIndex) -> Option<&ServerBoard> {
        self.servers.get(usize::from(server.0))
    }

    // ---- load -----------------------------------------------------------------------------------

    /// A transaction with the server begins.
    #[inline]
    pub fn transaction_opened(&self, server: ServerIndex, work: Work) {
        if let Some(cells) = self.at(server) {
            cells.load.of(work).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What is left of a transaction is something else now: an INVITE rings.
    #[inline]
    pub fn transaction_changed(&self, server: ServerIndex, from: Work, to: Work) {
        self.transaction_opened(server, to);
        self.transaction_closed(server, from);
    }

    /// A transaction with the server has its final response, or is given up.
    #[inline]
    pub fn transaction_closed(&self, server: ServerIndex, work: Work) {
        if let Some(cells) = self.at(server) {
            take_one(cells.load.of(work));
        }
    }

    /// A call on the server came to stand.
    #[inline]
    pub fn call_opened(&self, server: ServerIndex) {
        if let Some(cells) = self.at(server) {
            cells.load.calls.fetch_add(1, Ordering::Relaxed);
        }
        if !self.counts_calls() {
            self.counts_calls.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a call ever stood.
    #[inline]
    pub fn counts_calls(&self) -> bool {
        self.counts_calls.load(Ordering::Relaxed)
    }

    /// A call on the server ended.
    #[inline]
    pub fn call_closed(&self, server: ServerIndex) {
        if let Some(cells) = self.at(server) {
            take_one(&cells.load.calls);
        }
    }

    /// What the server has to do now.
    #[inline]
    pub fn load(&self, server: ServerIndex) -> Load {
        let Some(ServerBoard { load, .. }) = self.at(server) else {
            return Load::default();
        };
        let value = |cell: &AtomicU32| cell.load(Ordering::Relaxed);
        Load {
            invites: value(&load.invites),
            ringing: value(&load.ringing),
            others: value(&load.others),
            calls: value(&load.calls),
        }
    }

    /// Leaves a note for the worker that a call is at home at: a request of its dialog came to
    /// another. `false` if there is no room for it; the call's lease then ends by itself.
    #[inline]
    pub fn tell(&self, home: WorkerIndex, note: CallNote) -> bool {
        let notes = self.notes.get(usize::from(home.0));
        notes.is_some_and(|notes| notes.push(note).is_ok())
    }

    /// The oldest note left for a worker.
    #[inline]
    pub(super) fn next_note(&self, home: WorkerIndex) -> Option<CallNote> {
        self.notes.get(usize::from(home.0))?.pop()
    }

    // ---- choices --------------------------------------------------------------------------------

    /// The next turn of a pool.
    #[inline]
    pub(super) fn next_turn(&self, pool: PoolIndex) -> u64 {
        let cells = self.pools.get(usize::from(pool.0));
        cells.map_or(0, |cells| cells.turns.fetch_add(1, Ordering::Relaxed))
    }

    /// How long a transaction with a server of the pool took: an INVITE to its first response but
    /// 100 ([`Work::Invite`]), another request to its final response ([`Work::Other`]).
    #[inline]
    pub fn note_response_time(&self, pool: PoolIndex, work: Work, elapsed: Duration) {
        if let Some(cells) = self.pools.get(usize::from(pool.0)) {
            cells.times.note(work, elapsed);
        }
    }

    /// What an INVITE costs the servers of a pool, as far as it is known.
    #[inline]
    pub fn cost(&self, pool: PoolIndex) -> Cost {
        let cells = self.pools.get(usize::from(pool.0));
        cells.map_or_else(Cost::default, |cells| cells.times.cost())
    }

    /// Whether the server may have a call now, at `per_second` of them; 0 = always.
    #[inline]
    pub(super) fn rate_allows(&self, server: ServerIndex, per_second: u32, now: Instant) -> bool {
        let Some(ServerBoard { load, .. }) = self.at(server) else {
            return false;
        };
        per_second == 0
            || load.next_call_at.load(Ordering::Relaxed) <= (now + RATE_BURST).as_nanos()
    }

    /// Takes one call of the server's rate, if there is one left.
    ///
    /// The generic cell rate algorithm (ITU-T I.371, annex A): every call moves the time at which
    /// the next one is due by one interval; a call may come [`RATE_BURST`] before it is due.
    #[inline]
    pub(super) fn take_of_rate(&self, server: ServerIndex, per_second: u32, now: Instant) -> bool {
        let Some(ServerBoard { load, .. }) = self.at(server) else {
            return false;
        };
        let Some(interval) = SECOND.checked_div(u64::from(per_second)) else {
            return true;
        };
        let latest = (now + RATE_BURST).as_nanos();
        let take = |due: u64| (due <= latest).then(|| due.max(now.as_nanos()) + interval);
        load.next_call_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    // ---- outcomes -------------------------------------------------------------------------------

    /// A final response of the server to a request that we sent it.
    #[inline]
    pub fn note_answer(&self, server: ServerIndex, status: u16, now: Instant) {
        let Some(ServerBoard { outcomes, .. }) = self.at(server) else {
            return;
        };
        let count = match status {
            503 => &outcomes.unavailable,
            500..=599 => &outcomes.failed,
            _ => &outcomes.answered,
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.note_sign_of_life(server, now);
    }

    /// A provisional response, or any other message by which the server shows that it lives.
    #[inline]
    pub fn note_sign_of_life(&self, server: ServerIndex, now: Instant) {
        let Some(ServerBoard { outcomes, .. }) = self.at(server) else {
            return;
        };
        outcomes
            .last_answer
            .fetch_max(now.as_nanos(), Ordering::Relaxed);
        // Nearly always 0 already: a load keeps the line shared between workers.
        if outcomes.silent_in_a_row.load(Ordering::Relaxed) != 0 {
            outcomes.silent_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// A request of ours to the server had no response in its time.
    #[inline]
    pub fn note_timeout(&self, server: ServerIndex) {
        if let Some(ServerBoard { outcomes, .. }) = self.at(server) {
            outcomes.timeouts.fetch_add(1, Ordering::Relaxed);
            outcomes.silent_in_a_row.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The network reported a request of ours to the server as undeliverable.
    #[inline]
    pub fn note_unreachable(&self, server: ServerIndex) {
        if let Some(ServerBoard { outcomes, .. }) = self.at(server) {
            outcomes.unreachable.fetch_add(1, Ordering::Relaxed);
            outcomes.silent_in_a_row.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What became of the requests sent to the server.
    pub fn outcomes(&self, server: ServerIndex) -> Outcomes {
        let Some(ServerBoard { outcomes, .. }) = self.at(server) else {
            return Outcomes::default();
        };
        let value = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Outcomes {
            answered: value(&outcomes.answered),
            failed: value(&outcomes.failed),
            unavailable: value(&outcomes.unavailable),
            timeouts: value(&outcomes.timeouts),
            unreachable: value(&outcomes.unreachable),
            silent_in_a_row: outcomes.silent_in_a_row.load(Ordering::Relaxed),
            last_answer: Instant::from_nanos(value(&outcomes.last_answer)),
        }
    }

    /// The server asked for no new requests until then (RFC 3261 §20.33, §21.5.4). The latest of
    /// several counts.
    #[inline]
    pub fn note_retry_after(&self, server: ServerIndex, until: Instant) {
        if let Some(ServerBoard { load, .. }) = self.at(server) {
            load.retry_after_until
                .fetch_max(until.as_nanos(), Ordering::Relaxed);
        }
    }

    /// Until when the server asked for no new requests; in the past or [`Instant::ZERO`] if it does
    /// not.
    #[inline]
    pub fn retry_after_until(&self, server: ServerIndex) -> Instant {
        self.at(server).map_or(Instant::ZERO, |cells| {
            Instant::from_nanos(cells.load.retry_after_until.load(Ordering::Relaxed))
        })
    }

    // ---- probes ---------------------------------------------------------------------------------

    /// A probe leaves. Serials of one server grow from 1 on.
    #[inline]
    pub fn probe_sent(&self, server: ServerIndex, serial: u32, now: Instant) {
        if let Some(ServerBoard { probe, .. }) = self.at(server) {
            probe.sent_at.store(now.as_nanos(), Ordering::Relaxed);
            // Who reads the serial reads its time too.
            probe.sent.store(serial, Ordering::Release);
        }
    }

    /// The answer to a probe, on whichever worker it arrives. One to an older probe than the newest
    /// answered says nothing new.
    #[inline]
    pub fn probe_answered(&self, server: ServerIndex, serial: u32, status: u16, now: Instant) {
        let Some(ServerBoard { probe, .. }) = self.at(server) else {
            return;
        };
        let word = u64::from(serial) << 32 | u64::from(status);
        if probe.answered.load(Ordering::Relaxed) >> 32 < u64::from(serial) {
            probe.answered_at.store(now.as_nanos(), Ordering::Relaxed);
            probe.answered.fetch_max(word, Ordering::Release);
        }
    }

    /// The newest probe and the newest answer.
    pub fn probe(&self, server: ServerIndex) -> Probe {
        let Some(ServerBoard { probe, .. }) = self.at(server) else {
            return Probe::default();
        };
        let answered = probe.answered.load(Ordering::Acquire);
        let sent = probe.sent.load(Ordering::Acquire);
        Probe {
            sent,
            sent_at: Instant::from_nanos(probe.sent_at.load(Ordering::Relaxed)),
            answered: u32::try_from(answered >> 32).unwrap_or(0),
            status: u16::try_from(answered & 0xffff).unwrap_or(0),
            answered_at: Instant::from_nanos(probe.answered_at.load(Ordering::Relaxed)),
        }
    }
}

impl LoadCells {
    #[inline]
    fn of(&self, work: Work) -> &AtomicU32 {
        match work {
            Work::Invite => &self.invites,
            Work::Ringing => &self.ringing,
            Work::Other => &self.others,
        }
    }
}

const SECOND: u64 = 1_000_000_000;

/// How far calls may come before they are due: callers do not come evenly. So a second sees at most
/// a tenth more than its number, and one.
const RATE_BURST: Duration = Duration::from_millis(100);

/// One less, and never below zero.
#[inline]
fn take_one(cell: &AtomicU32) {
    let less = |count: u32| count.checked_sub(1);
    // An error says that it was zero already.
    let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ServerIndex = ServerIndex(1);

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn counts_never_fall_below_zero_and_servers_do_not_mix() {
        let board = Board::new();
        board.transaction_opened(ONE, Work::Invite);
        board.transaction_opened(ONE, Work::Other);
        board.call_opened(ONE);
        for _ in 0..3 {
            board.transaction_closed(ONE, Work::Invite);
            board.call_closed(ONE);
        }
        assert_eq!(
            board.load(ONE),
            Load {
                others: 1,
                ..Load::default()
            }
        );
        assert_eq!(board.load(ServerIndex(0)), Load::default());
        board.transaction_opened(ONE, Work::Invite);
        assert_eq!(board.load(ONE).invites, 1);
    }

    #[test]
    fn the_last_slot_is_there_and_none_beyond() {
        let board = Board::new();
        let last = ServerIndex(u16::try_from(SERVERS_MAX).unwrap() - 1);
        for server in [last, ServerIndex(last.0 + 1), ServerIndex(u16::MAX)] {
            board.call_opened(server);
            board.probe_sent(server, 1, at(1));
        }
        assert_eq!(board.load(last).calls, 1);
        assert_eq!(board.load(ServerIndex(last.0 + 1)).calls, 0);
        assert_eq!(board.probe(ServerIndex(u16::MAX)), Probe::default());
    }

    #[test]
    fn outcomes_by_status_and_silence_until_a_sign_of_life() {
        let board = Board::new();
        for status in [200, 404, 500, 504, 503, 603] {
            board.note_answer(ONE, status, at(3));
        }
        board.note_timeout(ONE);
        board.note_unreachable(ONE);
        let outcomes = Outcomes {
            answered: 3,
            failed: 2,
            unavailable: 1,
            timeouts: 1,
            unreachable: 1,
            silent_in_a_row: 2,
            last_answer: at(3),
        };
        assert_eq!(board.outcomes(ONE), outcomes);
        board.note_sign_of_life(ONE, at(2));
        let alive = Outcomes {
            silent_in_a_row: 0,
            ..outcomes
        };
        assert_eq!(board.outcomes(ONE), alive);
    }

    #[test]
    fn retry_after_keeps_the_latest() {
        let board = Board::new();
        board.note_retry_after(ONE, at(30));
        board.note_retry_after(ONE, at(10));
        assert_eq!(board.retry_after_until(ONE), at(30));
        assert_eq!(board.retry_after_until(ServerIndex(2)), Instant::ZERO);
    }

    #[test]
    fn a_late_answer_to_an_older_probe_does_not_hide_the_newer_one() {
        let board = Board::new();
        board.probe_sent(ONE, 1, at(1));
        board.probe_sent(ONE, 2, at(6));
        board.probe_answered(ONE, 2, 200, at(7));
        board.probe_answered(ONE, 1, 503, at(8));
        let newest = Probe {
            sent: 2,
            sent_at: at(6),
            answered: 2,
            status: 200,
            answered_at: at(7),
        };
        assert_eq!(board.probe(ONE), newest);
    }
}
