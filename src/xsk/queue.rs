//! A bounded queue that any number of threads push to and pop from, without locks.
//!
//! Owns its slots, all made at creation: nothing is allocated afterwards. Each slot carries a turn
//! number; a pusher owns the slot whose turn equals its ticket, a popper the one whose turn is one
//! past its ticket (the bounded MPMC queue of Dmitry Vyukov). Order is first in, first out by
//! ticket. Leaves waiting to the caller: a full queue gives the value back, an empty one `None`.

use core::fmt;
use core::mem::MaybeUninit;

use crossbeam::utils::CachePadded;

use super::sync::{AtomicUsize, Cell, Ordering};

struct Slot<T> {
    /// `ticket` = free for the pusher of that ticket; `ticket + 1` = holds its value;
    /// `ticket + capacity` = free for the pusher one lap later.
    turn: AtomicUsize,
    // INVARIANT: initialised exactly while `turn` is one past a ticket.
    value: Cell<MaybeUninit<T>>,
}

/// A bounded, lock-free, allocation-free queue between threads.
///
/// ```
/// let queue = viaduct::xsk::Queue::with_capacity(4);
/// assert_eq!(queue.push("frame"), Ok(()));
/// assert_eq!(queue.pop(), Some("frame"));
/// assert_eq!(queue.pop(), None);
/// ```
pub struct Queue<T> {
    slots: Box<[Slot<T>]>,
    mask: usize,
    push_ticket: CachePadded<AtomicUsize>,
    pop_ticket: CachePadded<AtomicUsize>,
}

// SAFETY: values move from one thread to another through the slots; a slot is accessed only by the
// holder of its turn.
unsafe impl<T: Send> Send for Queue<T> {}
// SAFETY: as above; no `&T` is ever shared.
unsafe impl<T: Send> Sync for Queue<T> {}

impl<T> Queue<T> {
    /// A queue of `capacity` values, rounded up to a power of two, two at least.
    pub fn with_capacity(capacity: usize) -> Self {
        Self::starting_at(capacity, 0)
    }

    /// As [`with_capacity`](Self::with_capacity), the tickets starting at `ticket`: for tests of
    /// the wrap, which 64-bit tickets never reach by themselves.
    pub(super) fn starting_at(capacity: usize, ticket: usize) -> Self {
        let capacity = capacity.max(2).next_power_of_two();
        let mask = capacity - 1;
        let mut slots: Vec<_> = (0..capacity)
            .map(|_| Slot {
                turn: AtomicUsize::new(0),
                value: Cell::new(MaybeUninit::uninit()),
            })
            .collect();
        for offset in 0..capacity {
            let turn = ticket.wrapping_add(offset);
            slots[turn & mask].turn = AtomicUsize::new(turn);
        }
        Self {
            slots: slots.into_boxed_slice(),
            mask,
            push_ticket: CachePadded::new(AtomicUsize::new(ticket)),
            pop_ticket: CachePadded::new(AtomicUsize::new(ticket)),
        }
    }

    /// Puts `value` at the end.
    ///
    /// # Errors
    /// Gives the value back if the queue is full. A slot whose popper has taken its ticket but not
    /// yet its value still counts as full.
    pub fn push(&self, value: T) -> Result<(), T> {
        let mut ticket = self.push_ticket.load(Ordering::Relaxed);
        loop {
            let slot = &self.slots[ticket & self.mask];
            let turn = slot.turn.load(Ordering::Acquire);
            if turn == ticket {
                match self.push_ticket.compare_exchange_weak(
                    ticket,
                    ticket.wrapping_add(1),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        // SAFETY: the turn was ours and the ticket is taken by us alone, so nobody
                        // else touches this slot until the store below. It holds no value.
                        slot.value.with_mut(|cell| unsafe { (*cell).write(value) });
                        slot.turn.store(ticket.wrapping_add(1), Ordering::Release);
                        return Ok(());
                    }
                    Err(now) => ticket = now,
                }
            } else if is_before(turn, ticket) {
                return Err(value);
            } else {
                ticket = self.push_ticket.load(Ordering::Relaxed);
            }
        }
    }

    /// Takes the value at the front.
    ///
    /// A value whose pusher has taken its ticket but not yet finished is not there yet.
    pub fn pop(&self) -> Option<T> {
        let mut ticket = self.pop_ticket.load(Ordering::Relaxed);
        loop {
            let slot = &self.slots[ticket & self.mask];
            let turn = slot.turn.load(Ordering::Acquire);
            let filled = ticket.wrapping_add(1);
            if turn == filled {
                match self.pop_ticket.compare_exchange_weak(
                    ticket,
                    filled,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        let value = slot
                            .value
                            // SAFETY: the ticket is taken by us alone, so nobody else touches this
                            // slot until the store below, which says that the value is gone.
                            .with(|cell| unsafe { cell.read() });
                        // SAFETY: the turn said that the slot was filled.
                        let value = unsafe { value.assume_init() };
                        let next_lap = ticket.wrapping_add(self.slots.len());
                        slot.turn.store(next_lap, Ordering::Release);
                        return Some(value);
                    }
                    Err(now) => ticket = now,
                }
            } else if is_before(turn, filled) {
                return None;
            } else {
                ticket = self.pop_ticket.load(Ordering::Relaxed);
            }
        }
    }

    /// Values in the queue: exact when no other thread is using it, an estimate otherwise.
    pub fn len(&self) -> usize {
        let popped = self.pop_ticket.load(Ordering::Relaxed);
        let pushed = self.push_ticket.load(Ordering::Relaxed);
        let len = pushed.wrapping_sub(popped);
        if len > self.slots.len() { 0 } else { len }
    }

    /// Whether there is nothing to pop; as exact as [`len`](Self::len).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values that fit.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }
}

/// Whether turn `a` comes before turn `b`, on a circle.
fn is_before(a: usize, b: usize) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn first_in_first_out_up_to_the_capacity() {
        let queue = Queue::with_capacity(3);
        assert_eq!(queue.capacity(), 4);
        for value in 0..4 {
            assert_eq!(queue.push(value), Ok(()));
        }
        assert_eq!(queue.push(4), Err(4));
        assert_eq!(queue.len(), 4);
        for value in 0..4 {
            assert_eq!(queue.pop(), Some(value));
        }
        assert_eq!(queue.pop(), None);
        assert!(queue.is_empty());
    }

    #[test]
    fn tickets_wrap() {
        let queue = Queue::starting_at(4, usize::MAX - 5);
        for round in 0..20 {
            assert_eq!(queue.push(round), Ok(()));
            assert_eq!(queue.push(round + 100), Ok(()));
            assert_eq!(queue.len(), 2);
            assert_eq!(queue.pop(), Some(round));
            assert_eq!(queue.pop(), Some(round + 100));
            assert_eq!(queue.pop(), None);
        }
    }

    #[test]
    fn values_left_inside_are_dropped_once() {
        let token = Arc::new(());
        let queue = Queue::with_capacity(8);
        for _ in 0..5 {
            queue.push(Arc::clone(&token)).unwrap();
        }
        drop(queue.pop());
        assert_eq!(Arc::strong_count(&token), 5);
        drop(queue);
        assert_eq!(Arc::strong_count(&token), 1);
    }

    /// Two pushers and two poppers: every value comes out once, each pusher's in order per popper.
    #[test]
    fn nothing_is_lost_or_doubled_between_threads() {
        const EACH: u64 = 20_000;
        let queue = Arc::new(Queue::with_capacity(64));
        let pushers: Vec<_> = (0..2_u64)
            .map(|pusher| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || {
                    for count in 0..EACH {
                        let mut value = pusher * EACH + count;
                        while let Err(back) = queue.push(value) {
                            value = back;
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let poppers: Vec<_> = (0..2)
            .map(|_| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || {
                    let mut got = Vec::new();
                    while got.len() < usize::try_from(EACH).unwrap() {
                        match queue.pop() {
                            Some(value) => got.push(value),
                            None => thread::yield_now(),
                        }
                    }
                    got
                })
            })
            .collect();
        for pusher in pushers {
            pusher.join().unwrap();
        }
        let mut all = Vec::new();
        for popper in poppers {
            let got = popper.join().unwrap();
            for pusher in 0..2 {
                let from = got.iter().filter(|value| **value / EACH == pusher);
                assert!(from.is_sorted());
            }
            all.extend(got);
        }
        all.sort_unstable();
        assert!(all.into_iter().eq(0..2 * EACH));
    }
}
