//! Pins: which server a Call-ID's requests without a token go to, while a transaction lasts.
//!
//! RFC 3261 §16.11: when the configuration changes, requests of transactions in flight must not
//! change their server. A pin outlives a change of table, policy or weight: for an INVITE until
//! its final response and 64·T1 more, or until Timer C if none comes; for others 64·T1.
//!
//! # The table
//!
//! One table for all workers, fixed in size, atomics only. A bucket is eight pins in two cache
//! lines: their keys, then their values; a miss reads the first line only. The low half of the
//! hash chooses the bucket as it chooses the home worker, so workers write in regions of their own.
//!
//! ```text
//! key    the Call-ID's hash, 64 bits
//! value  server 16 │ phase 3 │ mode 1 │ CSeq 8 │ expiry 20 │ generation 16
//! ```
//!
//! # Why a reader never gets another key's server
//!
//! A slot changes its key only while its phase is `Busy`, and `Busy` counts the generation up.
//! A reader takes value, key, value: if the first is not `Busy` and the second has its generation,
//! the key between them is theirs. Whoever changes a value does so with a compare-exchange of the
//! whole word, generation included.
//!
//! # Why a key has one pin
//!
//! An insertion publishes its pin as `Tentative`, then looks through the bucket again, then makes it
//! `Unanswered` by compare-exchange. Of two insertions of one key the later to publish sees the earlier;
//! it yields to a live pin and strikes out a tentative one, whose own compare-exchange then fails
//! and which starts again. Lookups pass over tentative pins.
//!
//! # When a bucket is full
//!
//! Expired pins go first, then the oldest *unanswered* one, then the oldest *finished* one. Pins
//! that a server has answered and that wait for a final response never go: a flood of requests
//! that nobody answers gets at most one place of a full bucket, the one its own pins fight for.
//! If all eight wait for a final response, the new call is not pinned; it is then where every call
//! would be without pins, at the mercy of the next change of the table.

#[cfg(not(loom))]
use core::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};

use super::{CallIdHash, Mode};
use crate::limits::PINS_MAX;
use crate::net::ServerIndex;
use crate::time::{Duration, Instant, T1_64, TIMER_C};

/// Pins in a bucket: keys and values are a cache line each. Two in loom's models, which try every
/// order of every access.
const WAYS: usize = if cfg!(loom) { 2 } else { 8 };

/// An insertion that was struck out this often by others of the same key gives up. Each time
/// another worker took the same Call-ID within nanoseconds, which the home worker rules out.
const INSERT_ATTEMPTS: usize = if cfg!(loom) { 4 } else { 64 };

/// A coarse tick is 2²⁸ ns, about 268 ms; 20 bits of them are 3.2 days.
const TICK_SHIFT: u32 = 28;
const TICK_BITS: u32 = 20;
const TICK_MASK: u64 = (1 << TICK_BITS) - 1;

/// Longest time to expiry that is believed, in ticks. Timer C is the longest life; double allows
/// for workers whose `now` differ. What lies further ahead expired before the ticks wrapped.
const LIFE_TICKS_MAX: u64 = 2 * ((((TIMER_C.as_secs() + 1) * 1_000_000_000) >> TICK_SHIFT) + 2);
const _: () = assert!(LIFE_TICKS_MAX < 1 << (TICK_BITS - 1));
const _: () = assert!(T1_64.as_nanos() < TIMER_C.as_nanos());

/// Where a pinned transaction stands, in the order of the field's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Nothing here.
    Free,
    /// A worker is about to change the key.
    Busy,
    /// Published, not yet certain to be the only one of its key.
    Tentative,
    /// No response has been seen.
    Unanswered,
    /// The server has answered, the final response is still to come.
    Proceeding,
    /// The final response has passed.
    Finished,
}

/// The value word of a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Value(u64);

impl Value {
    const PHASE: u32 = 16;
    const INVITE: u32 = 19;
    const MODE: u32 = 20;
    const CSEQ: u32 = 21;
    const EXPIRY: u32 = 29;
    const GENERATION: u32 = 49;

    const fn field(self, shift: u32, bits: u32) -> u64 {
        (self.0 >> shift) & ((1 << bits) - 1)
    }

    const fn with(self, shift: u32, bits: u32, value: u64) -> Self {
        let mask = ((1 << bits) - 1) << shift;
        Self((self.0 & !mask) | ((value << shift) & mask))
    }

    const fn generation(self) -> u64 {
        self.0 >> Self::GENERATION
    }

    /// The word of a slot whose key is about to change.
    const fn busy_next(self) -> Self {
        Self((self.generation() + 1) << Self::GENERATION).with_phase(Phase::Busy)
    }

    const fn phase(self) -> Phase {
        match self.field(Self::PHASE, 3) {
            0 => Phase::Free,
            2 => Phase::Tentative,
            3 => Phase::Unanswered,
            4 => Phase::Proceeding,
            5 => Phase::Finished,
            _ => Phase::Busy,
        }
    }

    const fn with_phase(self, phase: Phase) -> Self {
        self.with(Self::PHASE, 3, phase as u64)
    }

    const fn is_invite(self) -> bool {
        self.field(Self::INVITE, 1) != 0
    }

    const fn cseq(self) -> u8 {
        self.field(Self::CSEQ, 8).to_le_bytes()[0]
    }

    fn with_transaction(self, transaction: Transaction) -> Self {
        self.with(Self::INVITE, 1, u64::from(transaction.invite))
            .with(Self::CSEQ, 8, u64::from(transaction.cseq))
    }

    fn with_server(self, server: ServerIndex, mode: Mode) -> Self {
        self.with(0, 16, u64::from(server.0))
            .with(Self::MODE, 1, mode as u64)
    }

    /// Ticks until it expires, zero if it has.
    const fn remaining(self, now: Instant) -> u64 {
        let ahead = self
            .field(Self::EXPIRY, TICK_BITS)
            .wrapping_sub(now.as_nanos() >> TICK_SHIFT)
            & TICK_MASK;
        if ahead <= LIFE_TICKS_MAX { ahead } else { 0 }
    }

    /// A pin that holds at `now`.
    fn is_live(self, now: Instant) -> bool {
        self.phase() >= Phase::Unanswered && self.remaining(now) > 0
    }

    /// Expiring `life` after `now`, up to one tick later.
    fn with_life(self, now: Instant, life: Duration) -> Self {
        let tick = ((now + life).as_nanos() >> TICK_SHIFT) + 1;
        self.with(Self::EXPIRY, TICK_BITS, tick & TICK_MASK)
    }

    /// Living at least `life` from `now`.
    fn with_life_at_least(self, now: Instant, life: Duration) -> Self {
        let longer = self.with_life(now, life);
        if longer.remaining(now) > self.remaining(now) {
            longer
        } else {
            self
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low 16 bits are meant")]
    fn pin(self) -> Pin {
        let stateful = self.field(Self::MODE, 1) != 0;
        Pin {
            server: ServerIndex(self.0 as u16),
            mode: if stateful {
                Mode::Stateful
            } else {
                Mode::Stateless
            },
            cseq: self.cseq(),
        }
    }
}

/// The transaction a message belongs to, as far as pins care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The method of the CSeq is INVITE.
    pub invite: bool,
    /// The number of the CSeq.
    pub cseq: u32,
}

/// What [`Pins::insert`] is asked to pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewPin {
    /// The server that was chosen.
    pub server: ServerIndex,
    /// Whether a transaction stands behind it.
    pub mode: Mode,
    /// The request's transaction.
    pub transaction: Transaction,
}

/// Where a Call-ID's requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The server.
    pub server: ServerIndex,
    /// How the first request was forwarded: the later ones must be too.
    pub mode: Mode,
    cseq: u8,
}

impl Pin {
    /// Whether a request with this CSeq number belongs to the transaction that the pin stood for,
    /// judged by the low eight bits.
    pub fn is_of(&self, cseq: u32) -> bool {
        cseq.to_le_bytes()[0] == self.cseq
    }
}

/// What an insertion did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinOutcome {
    /// A new pin in a free place.
    Made,
    /// A new pin in the place of a live one.
    Evicted,
    /// There was one already; its server holds, not the proposed one.
    Existing,
    /// No place: the proposed server holds for this request, and nothing is remembered.
    Refused,
}

/// The pin that holds after an insertion, and how it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insertion {
    /// The pin that holds.
    pub pin: Pin,
    /// What was done for it.
    pub outcome: PinOutcome,
}

/// Eight slots. The keys have a line of their own: most lookups of new calls end there.
#[derive(Debug)]
#[repr(C, align(128))]
struct Bucket {
    keys: [AtomicU64; WAYS],
    values: [AtomicU64; WAYS],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket>() == 16 * WAYS);

impl Bucket {
    fn new() -> Self {
        Self {
            keys: core::array::from_fn(|_| AtomicU64::new(0)),
            values: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// The slots whose key is `key` right now, each with a value that belongs to that key.
    #[inline]
    fn matching(&self, key: u64) -> impl Iterator<Item = (&AtomicU64, Value)> {
        self.keys
            .iter()
            .zip(&self.values)
            .filter(move |(slot_key, _)| slot_key.load(Ordering::Relaxed) == key)
            .filter_map(move |(slot_key, slot_value)| {
                Self::read(key, slot_key, slot_value).map(|value| (slot_value, value))
            })
    }

    /// Value, key, value: see the module's head.
    #[inline]
    fn read(key: u64, slot_key: &AtomicU64, slot_value: &AtomicU64) -> Option<Value> {
        // Acquire: a value that is not `Busy` brings the key of its generation with it.
        let first = Value(slot_value.load(Ordering::Acquire));
        // Acquire: a key of a later generation brings that generation's `Busy` with it, so that
        // the second load sees it.
        let same_key = slot_key.load(Ordering::Acquire) == key;
        let second = Value(slot_value.load(Ordering::Relaxed));
        let same_generation = first.generation() == second.generation();
        (same_key && same_generation && first.phase() != Phase::Busy).then_some(second)
    }
}

/// The table.
#[derive(Debug)]
pub struct Pins {
    buckets: Box<[Bucket]>,
}

/// How many pins are in the table, by what they wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinUsage {
    /// No response has been seen.
    pub unanswered: usize,
    /// The final response is still to come.
    pub proceeding: usize,
    /// The final response has passed.
    pub finished: usize,
}

impl Pins {
    /// A table with room for `pins`, rounded up to whole buckets, [`PINS_MAX`] at most. 16 bytes
    /// each, all of them taken now.
    pub fn new(pins: usize) -> Self {
        let buckets = pins.clamp(1, PINS_MAX).div_ceil(WAYS);
        Self {
            buckets: (0..buckets).map(|_| Bucket::new()).collect(),
        }
    }

    /// Where the table lies, for advice to the kernel about it.
    pub fn memory(&self) -> core::ops::Range<*const u8> {
        let buckets = self.buckets.as_ptr_range();
        buckets.start.cast()..buckets.end.cast()
    }

    /// Pins there is room for.
    pub fn capacity(&self) -> usize {
        self.buckets.len() * WAYS
    }

    #[inline]
    fn bucket(&self, call_id: CallIdHash) -> &Bucket {
        let low = call_id.0 & u64::from(u32::MAX);
        // A product of two 32-bit numbers shifted by 32 is below the second, the bucket count.
        let index = (low * self.buckets.len() as u64) >> 32;
        &self.buckets[usize::try_from(index).unwrap_or(0)]
    }

    /// Where the pin of a Call-ID lies if there is one: memory to ask for before it is looked at.
    #[inline]
    pub fn place(&self, call_id: CallIdHash) -> core::ops::Range<*const u8> {
        let bucket = core::slice::from_ref(self.bucket(call_id)).as_ptr_range();
        bucket.start.cast()..bucket.end.cast()
    }

    /// The pin of a Call-ID. Changes nothing: for CANCEL and ACK, which belong to a transaction
    /// that is there already, and for looking.
    #[inline]
    pub fn find(&self, call_id: CallIdHash, now: Instant) -> Option<Pin> {
        self.bucket(call_id)
            .matching(call_id.0)
            .find(|(_, value)| value.is_live(now))
            .map(|(_, value)| value.pin())
    }

    /// The pin of a Call-ID for a request that may open a transaction.
    ///
    /// A retransmission changes nothing. A new INVITE (an authenticated retry) starts the life of
    /// an INVITE again; another new request adds 64·T1, and does not disturb an INVITE that waits
    /// for its final response.
    #[inline]
    pub fn renew(
        &self,
        call_id: CallIdHash,
        transaction: Transaction,
        now: Instant,
    ) -> Option<Pin> {
        self.update(call_id, now, |value| renewed(value, transaction, now))
    }

    /// Takes note of a response from the pinned server: `status` to a request of `transaction`.
    pub fn on_response(
        &self,
        call_id: CallIdHash,
        transaction: Transaction,
        status: u16,
        now: Instant,
    ) {
        self.update(call_id, now, |value| {
            answered(value, transaction, status, now)
        });
    }

    /// Moves the pin of a Call-ID, if there is one, to another server: the pinned one is down, or
    /// another has been tried.
    pub fn repin(&self, call_id: CallIdHash, new: NewPin, now: Instant) {
        let _before = self.update(call_id, now, |value| match value.pin().server {
            server if server == new.server => value,
            _ => renewed(value, new.transaction, now).with_server(new.server, new.mode),
        });
    }

    /// Changes the live pin of a Call-ID and returns it as it was before.
    #[inline]
    fn update(
        &self,
        call_id: CallIdHash,
        now: Instant,
        change: impl Fn(Value) -> Value,
    ) -> Option<Pin> {
        let bucket = self.bucket(call_id);
        loop {
            let (slot, value) = bucket
                .matching(call_id.0)
                .find(|(_, value)| value.is_live(now))?;
            let changed = change(value);
            // Writing only what differs keeps a retransmission from taking the line for itself.
            if changed == value || exchange(slot, value, changed) {
                return Some(value.pin());
            }
        }
    }

    /// Pins a Call-ID to a server, unless it has a pin: then that one holds.
    pub fn insert(&self, call_id: CallIdHash, new: NewPin, now: Instant) -> Insertion {
        let live = Value(0)
            .with_server(new.server, new.mode)
            .with_transaction(new.transaction)
            .with_life(now, life(new.transaction))
            .with_phase(Phase::Unanswered);
        let proposed = |outcome| Insertion {
            pin: live.pin(),
            outcome,
        };
        let bucket = self.bucket(call_id);
        for _ in 0..INSERT_ATTEMPTS {
            if let Some(pin) = self.renew(call_id, new.transaction, now) {
                let outcome = PinOutcome::Existing;
                return Insertion { pin, outcome };
            }
            let Some((index, victim)) = victim(bucket, now) else {
                return proposed(PinOutcome::Refused);
            };
            // Another insertion of this key has become live since the look above: it must not be
            // pushed out by its own Call-ID. The key is the victim's if the exchange that takes
            // the slot succeeds, since that compares the generation too.
            let ours = bucket.keys[index].load(Ordering::Acquire) == call_id.0;
            if ours && victim.is_live(now) {
                continue;
            }
            if try_insert(bucket, index, victim, call_id.0, live, now) {
                return proposed(if victim.is_live(now) {
                    PinOutcome::Evicted
                } else {
                    PinOutcome::Made
                });
            }
        }
        proposed(PinOutcome::Refused)
    }

    /// Counts the live pins; reads the whole table.
    pub fn usage(&self, now: Instant) -> PinUsage {
        let mut usage = PinUsage::default();
        for slot in self.buckets.iter().flat_map(|bucket| &bucket.values) {
            let value = Value(slot.load(Ordering::Relaxed));
            if value.is_live(now) {
                match value.phase() {
                    Phase::Unanswered => usage.unanswered += 1,
                    Phase::Proceeding => usage.proceeding += 1,
                    Phase::Finished => usage.finished += 1,
                    Phase::Free | Phase::Busy | Phase::Tentative => {}
                }
            }
        }
        usage
    }
}

/// Life of a pin whose transaction begins.
fn life(transaction: Transaction) -> Duration {
    if transaction.invite { TIMER_C } else { T1_64 }
}

/// A pin after a request of `transaction`.
fn renewed(value: Value, transaction: Transaction, now: Instant) -> Value {
    let retransmission = transaction.cseq.to_le_bytes()[0] == value.cseq();
    let waiting = value.is_invite() && value.phase() != Phase::Finished;
    if retransmission {
        return value;
    }
    let longer = value.with_life_at_least(now, life(transaction));
    if waiting && !transaction.invite {
        return longer;
    }
    longer
        .with_transaction(transaction)
        .with_phase(Phase::Unanswered)
}

/// A pin after a response to a request of `transaction`.
fn answered(value: Value, transaction: Transaction, status: u16, now: Instant) -> Value {
    // Not the transaction the pin stands for: the 200 of a CANCEL, a late 401 of an earlier try.
    if transaction.invite != value.is_invite() || transaction.cseq.to_le_bytes()[0] != value.cseq()
    {
        return value;
    }
    match status {
        _ if value.phase() == Phase::Finished => value,
        ..=100 => value.with_phase(Phase::Proceeding),
        // RFC 3261 §16.7 step 2: "101 to 199 (inclusive)" reset Timer C, 100 does not.
        101..=199 if value.is_invite() => {
            value.with_phase(Phase::Proceeding).with_life(now, TIMER_C)
        }
        101..=199 => value.with_phase(Phase::Proceeding),
        // ACK and retransmissions follow for 64·T1 (RFC 3261 §17.1.1.2, RFC 6026 §7).
        _ if value.is_invite() => value.with_phase(Phase::Finished).with_life(now, T1_64),
        _ => value.with_phase(Phase::Finished),
    }
}

/// The slot that a new pin takes, and what is in it now: the first that nothing lives in, else the
/// oldest of the pins that may go.
fn victim(bucket: &Bucket, now: Instant) -> Option<(usize, Value)> {
    let mut oldest: Option<((u8, u64), usize, Value)> = None;
    for (index, slot) in bucket.values.iter().enumerate() {
        let value = Value(slot.load(Ordering::Relaxed));
        let rank = match value.phase() {
            Phase::Busy | Phase::Tentative => continue,
            _ if !value.is_live(now) => return Some((index, value)),
            Phase::Unanswered => 1,
            Phase::Finished => 2,
            _ => continue,
        };
        // The oldest is the one nearest to its end.
        let order = (rank, value.remaining(now));
        if oldest.is_none_or(|(least, ..)| order < least) {
            oldest = Some((order, index, value));
        }
    }
    oldest.map(|(_, index, value)| (index, value))
}

/// One attempt to put `live` into a slot. True if it is there and the only one of its key.
fn try_insert(
    bucket: &Bucket,
    index: usize,
    victim: Value,
    key: u64,
    live: Value,
    now: Instant,
) -> bool {
    let slot = &bucket.values[index];
    let busy = victim.busy_next();
    if !exchange(slot, victim, busy) {
        return false;
    }
    let live = Value(live.0 | busy.generation() << Value::GENERATION);
    let tentative = live.with_phase(Phase::Tentative);
    // Release: whoever sees this key also sees that the slot was busy before.
    bucket.keys[index].store(key, Ordering::Release);
    slot.store(tentative.0, Ordering::Release);
    // Of two insertions of one key, the later to pass here sees the tentative pin of the other.
    fence(Ordering::SeqCst);
    for (other, value) in bucket.matching(key) {
        if core::ptr::eq(other, slot) {
            continue;
        }
        if value.is_live(now) {
            // It was there first. If this fails, another insertion has struck ours out already.
            exchange(slot, tentative, tentative.with_phase(Phase::Free));
            return false;
        }
        if value.phase() != Phase::Free && !exchange(other, value, value.with_phase(Phase::Free)) {
            // It became live, or was struck out, just now: look again from the start.
            exchange(slot, tentative, tentative.with_phase(Phase::Free));
            return false;
        }
    }
    exchange(slot, tentative, live)
}

/// Replaces the word of a slot if it still is `old`.
#[inline]
fn exchange(slot: &AtomicU64, old: Value, new: Value) -> bool {
    slot.compare_exchange(old.0, new.0, Ordering::AcqRel, Ordering::Relaxed)
        .is_ok()
}

#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(all(test, loom))]
mod tests_loom;
