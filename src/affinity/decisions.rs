//! What was decided for a Call-ID: a table of fixed size that workers write and whoever asks why a
//! call went where it went reads.
//!
//! A place is one cache line of eight words, written by the worker that decides and read by anybody
//! at any time. Its first word counts: odd while the place is written, two more afterwards. A
//! reader that finds it even and the same before and after has read one decision and not parts of
//! two. A writer that finds it odd leaves its decision out: another worker is writing there, and
//! nobody waits.
//!
//! ```text
//! count │ Call-ID's hash │ key │ at │ plan 32, rule 16, pool 8, ground 8 │ listener 8, farm 8, tried 8 │ servers 8 × 16
//! ```
//!
//! Four places are a set, chosen by the low half of the hash as the home worker is, so that workers
//! write in regions of their own. A new Call-ID takes the place of the oldest of its set.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use arrayvec::ArrayVec;

use super::CallIdHash;
use crate::limits::{CALL_ATTEMPTS_MAX, DECISIONS_MAX};
use crate::net::{ListenerIndex, PoolIndex, ServerIndex};
use crate::time::Instant;

/// Places in a set.
const WAYS: usize = 4;

/// Words behind the count.
const WORDS: usize = 7;

// Four servers to a word, two words.
const _: () = assert!(CALL_ATTEMPTS_MAX == 8);

/// What a choice of server rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ground {
    /// The pool's table.
    Table = 0,
    /// The dialog that the request names (RFC 3891, RFC 3911, RFC 4538).
    NamedDialog = 1,
    /// The pool's policy, which looks at what servers do now and what they may get; it chose another
    /// than the table.
    Policy = 2,
    /// The pin of an earlier transaction of this Call-ID.
    Pin = 3,
}

impl Ground {
    const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::NamedDialog,
            2 => Self::Policy,
            3 => Self::Pin,
            _ => Self::Table,
        }
    }

    /// In words, as `viaduct explain` says them too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Table => "the pool's table",
            Self::NamedDialog => "the dialog that it names (Replaces, Join, Target-Dialog)",
            Self::Policy => "the pool's policy, by load and limits",
            Self::Pin => "the pin of its earlier transaction",
        }
    }
}

/// Which passage of a call through us: one that the farm sends back through us comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Its Call-ID.
    pub call_id: CallIdHash,
    /// The listener that it came to.
    pub listener: ListenerIndex,
    /// Whether the farm has sent it.
    pub from_farm: bool,
}

/// Why a call went where it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Which call.
    pub passage: Passage,
    /// The affinity key that it was balanced by.
    pub key: u64,
    /// When.
    pub at: Instant,
    /// Version of the plan that it was decided by, its low 32 bits.
    pub plan: u32,
    /// Position of the rule that it met; `None` = none was asked.
    pub rule: Option<u16>,
    /// The pool.
    pub pool: PoolIndex,
    /// What the first choice rests on.
    pub ground: Ground,
    /// The servers that were tried, in their order, the last one being that of the call; empty if
    /// none took new calls. Of more than there is room for the last stands last.
    pub tried: ArrayVec<ServerIndex, CALL_ATTEMPTS_MAX>,
}

impl Decision {
    /// The server of the call.
    pub fn server(&self) -> Option<ServerIndex> {
        self.tried.last().copied()
    }

    fn encode(&self) -> [u64; WORDS] {
        let (rule, tried) = (self.rule.unwrap_or(u16::MAX), self.tried.len() as u64);
        let mut servers = [u64::MAX; 2];
        for (index, server) in self.tried.iter().enumerate() {
            if let Some(word) = servers.get_mut(index / 4) {
                let shift = 16 * (index % 4);
                *word = *word & !(0xffff << shift) | u64::from(server.0) << shift;
            }
        }
        let [low, high] = servers;
        [
            self.passage.call_id.0,
            self.key,
            self.at.as_nanos(),
            u64::from(self.plan)
                | u64::from(rule) << 32
                | u64::from(self.pool.0) << 48
                | (self.ground as u64) << 56,
            u64::from(self.passage.listener.0)
                | u64::from(self.passage.from_farm) << 8
                | tried << 16,
            low,
            high,
        ]
    }

    fn decode([call_id, key, at, how, passage, low, high]: [u64; WORDS]) -> Self {
        let [p0, p1, p2, p3, r0, r1, pool, ground] = how.to_le_bytes();
        let [listener, farm, tried, ..] = passage.to_le_bytes();
        let rule = u16::from_le_bytes([r0, r1]);
        let servers = [low, high].into_iter().flat_map(|word| {
            let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
            [[a, b], [c, d], [e, f], [g, h]].map(|bytes| ServerIndex(u16::from_le_bytes(bytes)))
        });
        Self {
            passage: Passage {
                call_id: CallIdHash(call_id),
                listener: ListenerIndex(listener),
                from_farm: farm != 0,
            },
            key,
            at: Instant::from_nanos(at),
            plan: u32::from_le_bytes([p0, p1, p2, p3]),
            rule: Some(rule).filter(|rule| *rule != u16::MAX),
            pool: PoolIndex(pool),
            ground: Ground::from_number(ground),
            tried: servers.take(usize::from(tried)).collect(),
        }
    }
}

/// One place.
#[derive(Debug)]
#[repr(C, align(64))]
struct Place {
    /// Odd while it is written.
    count: AtomicU64,
    words: [AtomicU64; WORDS],
}

const _: () = assert!(size_of::<Place>() == 64);

impl Place {
    fn new() -> Self {
        Self {
            count: AtomicU64::new(0),
            words: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// The decision, if there is one and nobody writes.
    fn read(&self) -> Option<Decision> {
        // Acquire: an even count brings the words that were written before it.
        let before = self.count.load(Ordering::Acquire);
        if before == 0 || before % 2 == 1 {
            return None;
        }
        let words = core::array::from_fn(|index| {
            self.words
                .get(index)
                .map_or(0, |word| word.load(Ordering::Relaxed))
        });
        // A word of a later decision was written behind that decision's odd count: whoever has read
        // it sees that count, or a later one, from here on.
        fence(Ordering::Acquire);
        (self.count.load(Ordering::Relaxed) == before).then(|| Decision::decode(words))
    }

    /// Writes a decision, unless somebody writes there.
    fn write(&self, decision: &Decision) {
        let count = self.count.load(Ordering::Relaxed);
        if count % 2 == 1 {
            return;
        }
        // Acquire on success: what another worker wrote before is not mixed with what follows.
        let taken = self.count.compare_exchange(
            count,
            count.wrapping_add(1),
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        if taken.is_err() {
            return;
        }
        // Nobody sees a word below before the odd count.
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(decision.encode()) {
            word.store(value, Ordering::Relaxed);
        }
        // 0 stays the count of a place that was never written.
        let after = count.wrapping_add(2).max(2);
        self.count.store(after, Ordering::Release);
    }

    fn is_of(&self, passage: &Passage) -> bool {
        let word = |index: usize| {
            self.words
                .get(index)
                .map_or(0, |word: &AtomicU64| word.load(Ordering::Relaxed))
        };
        let of = u64::from(passage.listener.0) | u64::from(passage.from_farm) << 8;
        word(0) == passage.call_id.0 && word(4) & 0xffff == of && !self.is_empty()
    }

    fn at(&self) -> u64 {
        self.words
            .get(2)
            .map_or(0, |word| word.load(Ordering::Relaxed))
    }
}

/// The table.
#[derive(Debug)]
pub struct Decisions {
    sets: Box<[[Place; WAYS]]>,
}

impl Decisions {
    /// A table with room for `decisions`, rounded up to whole sets, [`DECISIONS_MAX`] at most; 0 = it
    /// remembers nothing. 64 bytes each, all of them taken now.
    pub fn new(decisions: usize) -> Self {
        let sets = decisions.min(DECISIONS_MAX).div_ceil(WAYS);
        Self {
            sets: (0..sets)
                .map(|_| core::array::from_fn(|_| Place::new()))
                .collect(),
        }
    }

    /// Whether it remembers anything.
    #[inline]
    pub fn is_on(&self) -> bool {
        !self.sets.is_empty()
    }

    /// How many it remembers at most.
    pub fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }

    #[inline]
    fn set(&self, call_id: CallIdHash) -> Option<&[Place; WAYS]> {
        let low = call_id.0 & u64::from(u32::MAX);
        let index = (low * self.sets.len() as u64) >> 32;
        self.sets.get(usize::try_from(index).ok()?)
    }

    /// Where the decision for a Call-ID lies if there is one, or will: memory to ask for before it is
    /// looked at.
    #[inline]
    pub fn place(&self, call_id: CallIdHash) -> core::ops::Range<*const u8> {
        let set = self.set(call_id).map_or(&[][..], |set| set).as_ptr_range();
        set.start.cast()..set.end.cast()
    }

    /// Remembers a decision in the place of an earlier one for this passage of the call, or of the
    /// oldest near it. Does not block, does not allocate.
    pub fn note(&self, decision: &Decision) {
        let Some(set) = self.set(decision.passage.call_id) else {
            return;
        };
        let own = set.iter().find(|place| place.is_of(&decision.passage));
        let place = own.or_else(|| set.iter().min_by_key(|place| place.at()));
        if let Some(place) = place {
            place.write(decision);
        }
    }

    /// Another server was tried for a call whose decision is remembered.
    pub fn tried(&self, passage: &Passage, server: ServerIndex) {
        let Some(set) = self.set(passage.call_id) else {
            return;
        };
        let Some(place) = set.iter().find(|place| place.is_of(passage)) else {
            return;
        };
        let Some(mut decision) = place.read().filter(|read| read.passage == *passage) else {
            return;
        };
        if decision.tried.is_full() {
            decision.tried.pop();
        }
        decision.tried.push(server);
        place.write(&decision);
    }

    /// What is remembered of a Call-ID, the latest first.
    pub fn find(&self, call_id: CallIdHash) -> ArrayVec<Decision, WAYS> {
        let set = self.set(call_id).map_or(&[][..], |set| set);
        let mut found: ArrayVec<Decision, WAYS> = set
            .iter()
            .filter_map(Place::read)
            .filter(|decision| decision.passage.call_id == call_id)
            .collect();
        found.sort_unstable_by_key(|decision| core::cmp::Reverse(decision.at));
        found
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;

    fn decision(call_id: u64, number: u64) -> Decision {
        let server = u16::try_from(number % 1000).unwrap();
        Decision {
            passage: Passage {
                call_id: CallIdHash(call_id),
                listener: ListenerIndex(0),
                from_farm: false,
            },
            key: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            at: Instant::from_nanos(number),
            plan: u32::try_from(number & 0xffff_ffff).unwrap(),
            rule: Some(server),
            pool: PoolIndex(1),
            ground: Ground::Table,
            tried: [ServerIndex(server), ServerIndex(server + 1)]
                .into_iter()
                .collect(),
        }
    }

    proptest! {
        #[test]
        fn a_decision_comes_back_as_it_was(
            (call_id, key, at, plan) in any::<(u64, u64, u64, u32)>(),
            rule in proptest::option::of(0..u16::MAX),
            (pool, listener, from_farm) in any::<(u8, u8, bool)>(),
            ground in 0..4_u8,
            tried in proptest::collection::vec(any::<u16>(), 0..=CALL_ATTEMPTS_MAX),
        ) {
            let decision = Decision {
                passage: Passage { call_id: CallIdHash(call_id), listener: ListenerIndex(listener), from_farm },
                key,
                at: Instant::from_nanos(at),
                plan,
                rule,
                pool: PoolIndex(pool),
                ground: Ground::from_number(ground),
                tried: tried.into_iter().map(ServerIndex).collect(),
            };
            prop_assert_eq!(Decision::decode(decision.encode()), decision.clone());
            let table = Decisions::new(8);
            table.note(&decision);
            let found = table.find(CallIdHash(call_id));
            prop_assert_eq!(found.as_slice(), [decision]);
        }
    }

    #[test]
    fn the_oldest_of_a_set_goes_and_passages_of_a_call_stand_side_by_side() {
        let table = Decisions::new(WAYS);
        for number in 1..=5 {
            table.note(&decision(number, number));
        }
        assert!(table.find(CallIdHash(1)).is_empty());
        assert!((2..=5).all(|number| table.find(CallIdHash(number)).len() == 1));
        // Decided again: its own place.
        table.note(&decision(2, 6));
        assert_eq!(table.find(CallIdHash(2)).as_slice(), [decision(2, 6)]);
        assert_eq!(table.find(CallIdHash(3)).len(), 1);
        let mut again = decision(2, 7);
        again.passage.from_farm = true;
        table.note(&again);
        assert_eq!(
            table.find(CallIdHash(2)).as_slice(),
            [again, decision(2, 6)]
        );
    }

    #[test]
    fn further_servers_are_added_and_the_last_stands_last() {
        let table = Decisions::new(64);
        let first = decision(7, 1);
        table.tried(&first.passage, ServerIndex(40));
        assert!(table.find(CallIdHash(7)).is_empty());
        table.note(&first);
        for server in 40..50 {
            table.tried(&first.passage, ServerIndex(server));
        }
        let found = &table.find(CallIdHash(7))[0];
        assert_eq!(found.server(), Some(ServerIndex(49)));
        let tried: Vec<u16> = found.tried.iter().map(|server| server.0).collect();
        assert_eq!(tried, [1, 2, 40, 41, 42, 43, 44, 49]);
    }

    #[test]
    fn a_table_without_room_remembers_nothing() {
        let table = Decisions::new(0);
        assert!(!table.is_on());
        table.note(&decision(1, 1));
        assert!(table.find(CallIdHash(1)).is_empty());
        assert_eq!(Decisions::new(5).capacity(), 8);
    }

    /// Two workers write one set while a reader looks: what it gets was decided, every word of it.
    #[test]
    fn nobody_reads_parts_of_two_decisions() {
        let table = Decisions::new(WAYS);
        let stop = AtomicBool::new(false);
        let whole =
            |found: &Decision| *found == decision(found.passage.call_id.0, found.at.as_nanos());
        std::thread::scope(|scope| {
            for worker in 0..2_u64 {
                let (table, stop) = (&table, &stop);
                scope.spawn(move || {
                    let mut number = 1;
                    while !stop.load(Ordering::Relaxed) {
                        table.note(&decision((number % 3) << 40, 2 * number + worker));
                        number += 1;
                    }
                });
            }
            let mut read = 0;
            while read < 20_000 {
                for call in 0..3_u64 {
                    for found in table.find(CallIdHash(call << 40)) {
                        assert!(whole(&found), "{found:?}");
                        read += 1;
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
