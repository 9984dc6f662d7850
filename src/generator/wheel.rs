//! A timer wheel: deadlines of calls in slots of one millisecond.
//!
//! An entry is a number of the caller's. Nothing is ever cancelled: an entry whose call has moved
//! on fires and is found stale, which is cheaper than finding it earlier. Setting and firing are
//! O(1); an entry beyond one turn stays in its slot until its turn comes.

use crate::time::{Duration, Instant};

/// One slot: RFC 3261's timers are multiples of 500 ms, ringing times are a person's milliseconds.
const TICK: Duration = Duration::from_nanos(TICK_NANOS);
const TICK_NANOS: u64 = 1_000_000;
/// Slots of one turn: 8.2 s, longer than all intervals but the final timeouts.
const SLOTS: u64 = 8192;

/// Deadlines, each with a number.
#[derive(Debug)]
pub(super) struct Wheel {
    slots: Vec<Vec<Entry>>,
    origin: Instant,
    /// The first tick that has not fired yet.
    tick: u64,
    pending: usize,
    /// What fires in one poll; kept for its memory.
    due: Vec<u64>,
}

/// What a timer needs to know of the call behind it.
pub(super) struct Timed<'a> {
    /// Tells this call from the next in its place, by its low half: the calls of one place are far
    /// less than 2^32 apart.
    pub(super) generation: u64,
    /// When something is next to be done for it.
    pub(super) due: Option<Instant>,
    /// The earliest entry of this call in the wheel.
    pub(super) armed: &'a mut Option<Instant>,
}

/// A side of the generator: calls in a slab, by their places, and the wheel with their timers.
pub(super) trait Timekeeper {
    fn wheel(&mut self) -> &mut Wheel;

    /// The call of a place, if one is there.
    fn timed(&mut self, index: u32) -> Option<Timed<'_>>;

    /// Something is due for the call of a place.
    fn on_timer(&mut self, index: u32, now: Instant);

    /// Sees that the wheel has an entry at or before the call's next time.
    fn arm(&mut self, index: u32) {
        let Some(timed) = self.timed(index) else {
            return;
        };
        let Some(due) = timed.due else { return };
        if timed.armed.is_none_or(|armed| due < armed) {
            *timed.armed = Some(due);
            let token = timed.generation << 32 | u64::from(index);
            self.wheel().insert(due, token);
        }
    }

    /// Fires the timers that are due.
    fn fire(&mut self, now: Instant) {
        let mut due = core::mem::take(&mut self.wheel().due);
        self.wheel().poll(now, &mut due);
        for token in due.drain(..) {
            let place = u32::try_from(token & u64::from(u32::MAX));
            let (Ok(index), generation) = (place, token >> 32) else {
                continue;
            };
            let Some(timed) = self.timed(index) else {
                continue;
            };
            if timed.generation & u64::from(u32::MAX) != generation {
                continue;
            }
            if timed.armed.is_some_and(|armed| armed <= now) {
                *timed.armed = None;
            }
            // An entry whose call has moved on meanwhile only sets the next.
            if timed.due.is_some_and(|due| due <= now) {
                self.on_timer(index, now);
            }
            self.arm(index);
        }
        self.wheel().due = due;
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    tick: u64,
    token: u64,
}

impl Wheel {
    /// An empty wheel that starts at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            origin: now,
            tick: 0,
            pending: 0,
            due: Vec::new(),
        }
    }

    /// Fires `token` at the first poll at or after `deadline`.
    pub(super) fn insert(&mut self, deadline: Instant, token: u64) {
        // Rounded up: a timer may be late by a tick, never early.
        let tick = self.tick_of(deadline + (TICK - Duration::from_nanos(1)));
        let tick = tick.max(self.tick);
        self.slot_mut(tick).push(Entry { tick, token });
        self.pending += 1;
    }

    /// Entries that have not fired.
    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    /// Moves every token due by `now` to `due`, in the order of their ticks.
    pub(super) fn poll(&mut self, now: Instant, due: &mut Vec<u64>) {
        let last = self.tick_of(now);
        if self.pending == 0 {
            self.tick = self.tick.max(last + 1);
            return;
        }
        while self.tick <= last {
            let tick = self.tick;
            let before = due.len();
            self.slot_mut(tick).retain(|entry| {
                let is_due = entry.tick <= tick;
                if is_due {
                    due.push(entry.token);
                }
                !is_due
            });
            self.pending -= due.len() - before;
            self.tick += 1;
        }
    }

    /// A time to sleep until: no entry is due before it. At most `horizon` ahead, and one turn.
    pub(super) fn sleep_until(&self, now: Instant, horizon: Duration) -> Instant {
        if self.pending == 0 {
            return now + horizon;
        }
        let last = self.tick_of(now + horizon).min(self.tick + SLOTS - 1);
        (self.tick..=last)
            .find(|tick| self.slot(*tick).iter().any(|entry| entry.tick <= *tick))
            .map_or(self.time_of(last + 1), |tick| self.time_of(tick))
            .min(now + horizon)
    }

    fn slot(&self, tick: u64) -> &Vec<Entry> {
        &self.slots[usize::try_from(tick % SLOTS).unwrap_or(0)]
    }

    fn slot_mut(&mut self, tick: u64) -> &mut Vec<Entry> {
        &mut self.slots[usize::try_from(tick % SLOTS).unwrap_or(0)]
    }

    fn tick_of(&self, time: Instant) -> u64 {
        time.as_nanos().saturating_sub(self.origin.as_nanos()) / TICK_NANOS
    }

    fn time_of(&self, tick: u64) -> Instant {
        self.origin + Duration::from_nanos(tick.saturating_mul(TICK_NANOS))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(5_000_000_123) + Duration::from_millis(ms)
    }

    fn polled(wheel: &mut Wheel, now: Instant) -> Vec<u64> {
        let mut due = Vec::new();
        wheel.poll(now, &mut due);
        due
    }

    #[test]
    fn fires_at_its_time_and_once() {
        let mut wheel = Wheel::new(at(0));
        wheel.insert(at(500), 1);
        wheel.insert(at(32_000), 2);
        wheel.insert(at(3), 3);
        assert_eq!(wheel.sleep_until(at(0), Duration::from_secs(1)), at(3));
        assert_eq!(polled(&mut wheel, at(2)), Vec::<u64>::new());
        assert_eq!(polled(&mut wheel, at(3)), [3]);
        assert_eq!(polled(&mut wheel, at(600)), [1]);
        assert_eq!(polled(&mut wheel, at(31_999)), Vec::<u64>::new());
        assert_eq!(wheel.pending(), 1);
        assert_eq!(polled(&mut wheel, at(32_000)), [2]);
        assert_eq!(wheel.pending(), 0);
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_the_next_poll() {
        let mut wheel = Wheel::new(at(0));
        assert_eq!(polled(&mut wheel, at(100)), Vec::<u64>::new());
        wheel.insert(at(50), 9);
        assert_eq!(polled(&mut wheel, at(101)), [9]);
    }

    proptest! {
        #[test]
        fn every_entry_fires_once_never_early_and_within_a_tick(
            deadlines in prop::collection::vec(0u64..40_000_000, 1..100),
            steps in prop::collection::vec(1u64..5_000, 1..60),
        ) {
            let mut wheel = Wheel::new(at(0));
            let mut waiting: Vec<(Instant, u64)> = Vec::new();
            for (token, micros) in deadlines.into_iter().enumerate() {
                let deadline = at(0) + Duration::from_micros(micros);
                wheel.insert(deadline, token as u64);
                waiting.push((deadline, token as u64));
            }
            let mut now = at(0);
            for step in steps {
                let sleep = wheel.sleep_until(now, Duration::from_secs(60));
                prop_assert!(waiting.iter().all(|(deadline, _)| *deadline + TICK >= sleep));
                now += Duration::from_millis(step);
                for token in polled(&mut wheel, now) {
                    let place = waiting.iter().position(|(_, other)| *other == token);
                    prop_assert!(place.is_some());
                    let (deadline, _) = waiting.swap_remove(place.unwrap());
                    prop_assert!(deadline <= now);
                }
                prop_assert!(waiting.iter().all(|(deadline, _)| *deadline + TICK > now));
                prop_assert_eq!(wheel.pending(), waiting.len());
            }
        }
    }
}
