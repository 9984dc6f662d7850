//! Which deadline is due: a timer wheel of two levels.
//!
//! An id is a record's index in its [`Slab`](super::store::Slab); each has one deadline at most.
//! Arming, disarming and firing are O(1), and so is asking for the next deadline: bitmaps say which
//! slots hold something. The lists through the slots are linked by id, so that nothing is allocated
//! and a million armed deadlines are never gone over.
//!
//! ```text
//! near   8192 slots of a tick (4 ms): 32.8 s, so that every timer of 64·T1 goes there at once
//! far      64 slots of 8192 ticks:    35 min; a slot whose time has come is dealt out to near
//! ```
//!
//! A deadline beyond that waits in the last far slot and is looked at again there.
//!
//! `generator::wheel` is another thing: many deadlines per call, none of which is ever taken back.

use crate::time::{Duration, Instant};

/// A deadline fires up to this much late, never early. RFC 3261's shortest timer is 125 times that.
pub const TICK: Duration = Duration::from_nanos(TICK_NANOS);
const TICK_NANOS: u64 = 4_000_000;

const NEAR_BITS: u32 = 13;
const NEAR: u64 = 1 << NEAR_BITS;
const FAR: u64 = 64;
/// No entry, and no slot.
const NONE: u32 = u32::MAX;
/// In `Entry::previous`: this bit and the slot, where the entry is the first of its slot.
const FIRST: u32 = 1 << 31;
/// Far slots come after the near ones in `Wheel::slots`.
const SLOTS: usize = (1 << NEAR_BITS) + 64;

/// Deadlines by id.
#[derive(Debug)]
pub struct Wheel {
    /// The first id of each slot, or [`NONE`].
    slots: Vec<u32>,
    /// By id; as long as the highest id seen, never longer than the capacity.
    entries: Vec<Entry>,
    capacity: u32,
    near: Bitmap,
    far: u64,
    /// All ticks up to this one have been looked at.
    elapsed: u64,
    armed: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    tick: u64,
    next: u32,
    /// [`NONE`] if the id is not armed.
    previous: u32,
}

impl Entry {
    const UNARMED: Self = Self {
        tick: 0,
        next: NONE,
        previous: NONE,
    };
}

impl Wheel {
    /// For ids below `capacity` (2³¹ at most); starts at `now`. No memory is touched for them yet.
    pub fn new(capacity: u32, now: Instant) -> Self {
        let capacity = capacity.min(FIRST);
        Self {
            slots: vec![NONE; SLOTS],
            entries: Vec::with_capacity(capacity as usize),
            capacity,
            near: Bitmap::default(),
            far: 0,
            elapsed: now.as_nanos() / TICK_NANOS,
            armed: 0,
        }
    }

    /// Ids that are armed.
    pub fn armed(&self) -> u32 {
        self.armed
    }

    /// Bytes one id takes.
    pub const fn bytes_per_id() -> usize {
        size_of::<Entry>()
    }

    /// Sets the deadline of `id`, in place of the one it has. What is due already fires at the next
    /// tick, so that whoever arms while he expires comes to an end. An id past the capacity has none.
    pub fn arm(&mut self, id: u32, deadline: Instant) {
        if id >= self.capacity {
            return;
        }
        if id as usize >= self.entries.len() {
            // Within the capacity reserved at start: it does not move.
            self.entries.resize(id as usize + 1, Entry::UNARMED);
        }
        // Rounded up: late by a tick, never early.
        let tick = deadline.as_nanos().div_ceil(TICK_NANOS);
        let tick = tick.max(self.elapsed + 1);
        self.disarm(id);
        self.link(id, tick);
        self.armed += 1;
    }

    /// Takes the deadline of `id` back, if it has one.
    pub fn disarm(&mut self, id: u32) {
        let Some(entry) = self.entries.get(id as usize).copied() else {
            return;
        };
        if entry.previous != NONE {
            self.unlink(id, entry);
            self.armed -= 1;
        }
    }

    /// The deadline of `id`, rounded up to a tick.
    pub fn deadline(&self, id: u32) -> Option<Instant> {
        let entry = self.entries.get(id as usize)?;
        (entry.previous != NONE).then(|| time_of(entry.tick))
    }

    /// An id whose deadline has come by `now`, the earliest tick first; it is no longer armed.
    /// `None` when there is no further one.
    pub fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let last = now.as_nanos() / TICK_NANOS;
        loop {
            let near = self.next_near();
            let far = self.next_far();
            match (near, far) {
                // A far slot is dealt out before the near slot of the same tick fires.
                (near, Some(start)) if start <= last && near.is_none_or(|tick| start <= tick) => {
                    self.elapsed = self.elapsed.max(start);
                    self.deal_out(start);
                }
                (Some(tick), _) if tick <= last => {
                    self.elapsed = self.elapsed.max(tick);
                    let id = *self.slots.get(near_slot(tick))?;
                    self.disarm(id);
                    return Some(id);
                }
                _ => {
                    self.elapsed = self.elapsed.max(last);
                    return None;
                }
            }
        }
    }

    /// Calls `due` with each id whose deadline has come by `now`.
    pub fn expire(&mut self, now: Instant, mut due: impl FnMut(u32)) {
        while let Some(id) = self.pop_due(now) {
            due(id);
        }
    }

    /// When to ask again: no deadline is due before it. Earlier than the first deadline if that is
    /// far off.
    pub fn next_deadline(&self) -> Option<Instant> {
        let tick = match (self.next_near(), self.next_far()) {
            (Some(near), Some(far)) => near.min(far),
            (near, far) => near.or(far)?,
        };
        Some(time_of(tick))
    }

    /// The tick of the first near slot that holds something. Near slots hold the ticks from
    /// `elapsed` to `elapsed + NEAR - 1`.
    fn next_near(&self) -> Option<u64> {
        let from = self.elapsed % NEAR;
        let slot = self.near.first_from(from)?;
        Some(self.elapsed + (slot.wrapping_sub(from) % NEAR))
    }

    /// The first tick of the first far slot that holds something. Far slots hold those after the one
    /// that `elapsed` lies in, 63 at most.
    fn next_far(&self) -> Option<u64> {
        if self.far == 0 {
            return None;
        }
        let current = self.elapsed >> NEAR_BITS;
        let ahead = self.far.rotate_right(far_bit(current)).trailing_zeros();
        Some((current + u64::from(ahead)) << NEAR_BITS)
    }

    /// Moves what waits in the far slot that begins at `start` to where it belongs now.
    fn deal_out(&mut self, start: u64) {
        let number = start >> NEAR_BITS;
        let Some(head) = self.slots.get_mut(far_slot(number)) else {
            return;
        };
        let mut id = core::mem::replace(head, NONE);
        self.far &= !(1 << far_bit(number));
        while let Some(entry) = self.entries.get(id as usize).copied() {
            self.link(id, entry.tick);
            id = entry.next;
        }
    }

    /// Puts an id that is in no list where `tick`, not before `elapsed`, belongs.
    fn link(&mut self, id: u32, tick: u64) {
        let slot = if tick - self.elapsed < NEAR {
            self.near.set(tick % NEAR);
            near_slot(tick)
        } else {
            let number = (tick >> NEAR_BITS).min((self.elapsed >> NEAR_BITS) + FAR - 1);
            self.far |= 1 << far_bit(number);
            far_slot(number)
        };
        let Some(head) = self.slots.get_mut(slot) else {
            return;
        };
        let next = core::mem::replace(head, id);
        if let Some(entry) = self.entries.get_mut(next as usize) {
            entry.previous = id;
        }
        if let Some(entry) = self.entries.get_mut(id as usize) {
            *entry = Entry {
                tick,
                next,
                previous: FIRST | u32::try_from(slot).unwrap_or(0),
            };
        }
    }

    /// Takes an id out of its list.
    fn unlink(&mut self, id: u32, entry: Entry) {
        if let Some(next) = self.entries.get_mut(entry.next as usize) {
            next.previous = entry.previous;
        }
        if entry.previous & FIRST == 0 {
            if let Some(previous) = self.entries.get_mut(entry.previous as usize) {
                previous.next = entry.next;
            }
        } else {
            let slot = u64::from(entry.previous & !FIRST);
            if let Some(head) = self.slots.get_mut((entry.previous & !FIRST) as usize) {
                *head = entry.next;
            }
            if entry.next == NONE {
                match slot.checked_sub(NEAR) {
                    None => self.near.clear(slot),
                    Some(far) => self.far &= !(1 << far_bit(far)),
                }
            }
        }
        if let Some(entry) = self.entries.get_mut(id as usize) {
            *entry = Entry::UNARMED;
        }
    }
}

fn time_of(tick: u64) -> Instant {
    Instant::from_nanos(tick.saturating_mul(TICK_NANOS))
}

const fn near_slot(tick: u64) -> usize {
    (tick % NEAR) as usize
}

#[expect(clippy::cast_possible_truncation, reason = "at most 8192 + 63")]
const fn far_slot(number: u64) -> usize {
    (NEAR + number % FAR) as usize
}

const fn far_bit(number: u64) -> u32 {
    (number % FAR) as u32
}

/// One bit per near slot, and one per word of them.
#[derive(Debug)]
struct Bitmap {
    words: [u64; (NEAR / 64) as usize],
    /// Which words are not zero.
    summary: u128,
}
const _: () = assert!(NEAR / 64 == 128);

impl Default for Bitmap {
    fn default() -> Self {
        Self {
            words: [0; (NEAR / 64) as usize],
            summary: 0,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "slots are below 8192, words below 128"
)]
impl Bitmap {
    fn set(&mut self, slot: u64) {
        if let Some(word) = self.words.get_mut((slot / 64) as usize) {
            *word |= 1 << (slot % 64);
            self.summary |= 1 << (slot / 64);
        }
    }

    fn clear(&mut self, slot: u64) {
        if let Some(word) = self.words.get_mut((slot / 64) as usize) {
            *word &= !(1 << (slot % 64));
            if *word == 0 {
                self.summary &= !(1 << (slot / 64));
            }
        }
    }

    /// The first slot that is set, looking from `from` on and around.
    fn first_from(&self, from: u64) -> Option<u64> {
        let start = from / 64;
        let rest = self.words.get(start as usize)? >> (from % 64);
        if rest != 0 {
            return Some(from + u64::from(rest.trailing_zeros()));
        }
        if self.summary == 0 {
            return None;
        }
        // The words after the first, around to the first itself: its bits before `from`.
        let turned = self.summary.rotate_right(start as u32 + 1);
        let word = (start + 1 + u64::from(turned.trailing_zeros())) % 128;
        let bits = self.words.get(word as usize)?;
        Some(word * 64 + u64::from(bits.trailing_zeros()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::time::{T1, T1_64, TIMER_C};

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(7_000_000_123) + Duration::from_millis(ms)
    }

    const NOTHING: [u32; 0] = [];

    fn due(wheel: &mut Wheel, now: Instant) -> Vec<u32> {
        let mut ids = Vec::new();
        wheel.expire(now, |id| ids.push(id));
        ids
    }

    #[test]
    fn fires_at_its_time_and_once() {
        let mut wheel = Wheel::new(10, at(0));
        wheel.arm(1, at(0) + T1);
        wheel.arm(2, at(0) + T1_64);
        wheel.arm(3, at(0) + TIMER_C);
        wheel.arm(4, at(0) + Duration::from_secs(3600));
        for (id, duration) in [
            (1, T1),
            (2, T1_64),
            (3, TIMER_C),
            (4, Duration::from_secs(3600)),
        ] {
            let deadline = at(0) + duration;
            assert_eq!(due(&mut wheel, deadline - TICK), NOTHING);
            assert_eq!(due(&mut wheel, deadline + TICK), [id]);
            assert_eq!(due(&mut wheel, deadline + TICK), NOTHING);
        }
        assert_eq!((wheel.armed(), wheel.next_deadline()), (0, None));
    }

    #[test]
    fn the_last_deadline_given_is_the_one() {
        let mut wheel = Wheel::new(4, at(0));
        wheel.arm(0, at(100));
        wheel.arm(0, at(40_000));
        wheel.arm(1, at(40_000));
        wheel.arm(1, at(100));
        wheel.arm(2, at(100));
        wheel.disarm(2);
        assert_eq!(due(&mut wheel, at(1000)), [1]);
        assert_eq!(due(&mut wheel, at(41_000)), [0]);
        wheel.disarm(0);
        wheel.disarm(3);
        wheel.disarm(99);
        wheel.arm(4, at(50_000));
        assert_eq!((wheel.armed(), wheel.deadline(4)), (0, None));
    }

    #[test]
    fn what_is_overdue_fires_at_the_next_tick_and_ends() {
        let mut wheel = Wheel::new(1, at(0));
        assert_eq!(due(&mut wheel, at(5000)), NOTHING);
        wheel.arm(0, at(1000));
        let mut fired = 0;
        while let Some(id) = wheel.pop_due(at(5004)) {
            fired += 1;
            wheel.arm(id, at(1000));
        }
        assert_eq!(fired, 1);
        assert_eq!(due(&mut wheel, at(5008)), [0]);
    }

    /// A worker that slept for a day, and a clock at its end.
    #[test]
    fn long_silence_and_the_last_instant() {
        let mut wheel = Wheel::new(3, at(0));
        let day = Duration::from_secs(86_400);
        wheel.arm(0, at(0) + day + T1);
        wheel.arm(1, at(10));
        assert_eq!(due(&mut wheel, at(0) + day), [1]);
        assert_eq!(due(&mut wheel, at(0) + day + T1 + TICK), [0]);
        wheel.arm(2, Instant::from_nanos(u64::MAX));
        assert_eq!(due(&mut wheel, at(0) + day * 2), NOTHING);
        assert!(wheel.deadline(2).is_some());
    }

    #[test]
    fn bitmap_looks_around() {
        let mut bitmap = Bitmap::default();
        assert_eq!(bitmap.first_from(5), None);
        for slot in [0, 63, 64, 4000, 8191] {
            bitmap.set(slot);
            for from in [0, 1, 63, 64, 65, 3999, 4000, 4001, 8190, 8191] {
                assert_eq!(bitmap.first_from(from), Some(slot), "{slot} from {from}");
            }
            bitmap.clear(slot);
        }
        bitmap.set(10);
        bitmap.set(70);
        assert_eq!(bitmap.first_from(11), Some(70));
        assert_eq!(bitmap.first_from(71), Some(10));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Arm(u32, u64),
        Disarm(u32),
        Pass(u64),
    }

    /// Times from a tick to beyond the wheel, and those at the edge of the near slots.
    fn millis() -> impl Strategy<Value = u64> {
        prop_oneof![
            0u64..100,
            0u64..40_000,
            32_700u64..32_800,
            0u64..5_000_000,
            Just(2_097_152u64),
        ]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0u32..32, millis()).prop_map(|(id, ms)| Op::Arm(id, ms)),
            1 => (0u32..32).prop_map(Op::Disarm),
            3 => millis().prop_map(Op::Pass),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        /// Against a map of deadlines: never early, at most a tick late, once, and the next
        /// deadline is never after the first one.
        #[test]
        fn behaves_like_a_map(ops in prop::collection::vec(op(), 1..120)) {
            let mut now = at(0);
            let mut wheel = Wheel::new(32, now);
            let mut model: HashMap<u32, Instant> = HashMap::new();
            for op in ops {
                match op {
                    Op::Arm(id, ms) => {
                        let deadline = now + Duration::from_millis(ms);
                        wheel.arm(id, deadline);
                        model.insert(id, deadline);
                    }
                    Op::Disarm(id) => {
                        wheel.disarm(id);
                        model.remove(&id);
                    }
                    Op::Pass(ms) => {
                        now += Duration::from_millis(ms);
                        let mut last = Instant::ZERO;
                        while let Some(id) = wheel.pop_due(now) {
                            let deadline = model.remove(&id);
                            prop_assert!(deadline.is_some(), "{} was not armed", id);
                            let deadline = deadline.unwrap();
                            prop_assert!(deadline <= now);
                            prop_assert!(deadline + TICK >= last, "out of order");
                            last = last.max(deadline);
                        }
                        prop_assert!(model.values().all(|deadline| *deadline + TICK > now));
                    }
                }
                prop_assert_eq!(wheel.armed() as usize, model.len());
                let next = wheel.next_deadline();
                prop_assert_eq!(next.is_none(), model.is_empty());
                if let Some(next) = next {
                    prop_assert!(model.values().all(|deadline| next <= *deadline + TICK));
                }
                for id in 0..32 {
                    prop_assert_eq!(wheel.deadline(id).is_some(), model.contains_key(&id));
                }
            }
        }
    }
}
