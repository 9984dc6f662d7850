//! Loom models of everything that two sides share: every order in which the steps of the threads
//! can be seen, within a bound on preemptions. A plain thread plays the kernel.
//!
//! Run by `scripts/loom`. The cells stand for frames: loom reports two sides touching one at a
//! time, and a side that sees an old value.

#![cfg(loom)]

use arrayvec::ArrayVec;
use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

use super::ledger::{Ledger, Place};
use super::pool::{Chunk, FreeList, LocalList};
use super::queue::Queue;
use super::ring::{Consumer, Producer};
use super::sync::Cell;
use super::testing::pair;

/// Indices wrap at the second entry of each model.
const NEAR_WRAP: u32 = u32::MAX;

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// The memory of a few chunks, a number in each.
struct Memory(Vec<Cell<u64>>);

// SAFETY: what the models are to show; loom watches every access.
unsafe impl Sync for Memory {}
// SAFETY: as above.
unsafe impl Send for Memory {}

impl Memory {
    fn new(chunks: u32) -> Arc<Self> {
        Arc::new(Self((0..chunks).map(|_| Cell::new(0)).collect()))
    }

    fn read(&self, chunk: u64) -> u64 {
        // SAFETY: loom checks that nobody writes meanwhile.
        self.0[usize::try_from(chunk).unwrap()].with(|value| unsafe { value.read() })
    }

    fn write(&self, chunk: u64, value: u64) {
        // SAFETY: loom checks that nobody else touches it meanwhile.
        self.0[usize::try_from(chunk).unwrap()].with_mut(|cell| unsafe { cell.write(value) });
    }
}

/// Takes one entry, however long it takes to come.
fn take(ring: &mut Consumer<u64>) -> u64 {
    loop {
        let mut taken = None;
        ring.consume(1, |entry| taken = Some(entry));
        if let Some(entry) = taken {
            return entry;
        }
        thread::yield_now();
    }
}

/// Puts one entry, however long it takes to fit.
fn put(ring: &mut Producer<u64>, entry: u64) {
    while ring.produce(1, || Some(entry)) == 0 {
        thread::yield_now();
    }
}

/// More entries than the ring has, with nothing else between the two sides.
#[test]
fn entries_are_not_overwritten_before_they_are_read() {
    check(3, || {
        let (mut producer, mut consumer) = pair::<u64>(2, NEAR_WRAP);
        let other = thread::spawn(move || {
            for entry in 0..4 {
                put(&mut producer, entry);
            }
        });
        for entry in 0..4 {
            assert_eq!(take(&mut consumer), entry);
        }
        other.join().unwrap();
    });
}

const QUEUE: u16 = 1;

/// User space fills and receives; the kernel writes each frame between the two. One chunk goes
/// round more often than the rings have entries.
#[test]
fn received_frames_are_whole_and_ours() {
    check(3, || {
        let memory = Memory::new(2);
        let ledger = Arc::new(Ledger::new(2));
        let (mut fill, mut fill_end) = pair::<u64>(2, NEAR_WRAP);
        let (mut rx_end, mut rx) = pair::<u64>(2, NEAR_WRAP);
        let kernel = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                for number in 0..3 {
                    let chunk = take(&mut fill_end);
                    memory.write(chunk, number);
                    put(&mut rx_end, chunk);
                }
            })
        };
        for chunk in 0..2 {
            ledger.give(chunk, Place::receiving(QUEUE));
            put(&mut fill, chunk.into());
        }
        for number in 0..3 {
            let chunk = take(&mut rx);
            assert!(ledger.take(u32::try_from(chunk).unwrap(), Place::receiving(QUEUE)));
            assert_eq!(memory.read(chunk), number);
            // Ours to write, until it is filled again.
            memory.write(chunk, 99);
            if number == 0 {
                ledger.give(u32::try_from(chunk).unwrap(), Place::receiving(QUEUE));
                put(&mut fill, chunk);
            }
        }
        kernel.join().unwrap();
        assert!(fill.is_empty() && rx.is_empty());
    });
}

/// User space sends and reclaims; the kernel reads each frame between the two.
#[test]
fn sent_frames_are_whole_and_come_back() {
    check(3, || {
        let memory = Memory::new(2);
        let (mut tx, mut tx_end) = pair::<u64>(2, NEAR_WRAP);
        let (mut completion_end, mut completion) = pair::<u64>(2, NEAR_WRAP);
        let kernel = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                for number in 0..3 {
                    let chunk = take(&mut tx_end);
                    assert_eq!(memory.read(chunk), number);
                    put(&mut completion_end, chunk);
                }
            })
        };
        let mut free = ArrayVec::<u64, 2>::from([0, 1]);
        for number in 0..3 {
            let chunk = match free.pop() {
                Some(chunk) => chunk,
                None => take(&mut completion),
            };
            memory.write(chunk, number);
            put(&mut tx, chunk);
        }
        kernel.join().unwrap();
        assert!(tx.is_empty());
        assert_eq!(completion.len(), 2);
    });
}

/// Takes one entry if there is one.
fn try_take(ring: &mut Consumer<u64>) -> Option<u64> {
    let mut taken = None;
    ring.consume(1, |entry| taken = Some(entry));
    taken
}

/// One thread owns the fill ring, another receives what comes of it and sends it, the first
/// reclaims: the ledger's entry and the frame follow through the kernel. Nobody waits, so that the
/// model ends; the orders in which each finds what it looks for are among those tried.
#[test]
fn frames_follow_through_three_hands() {
    check(3, || {
        let memory = Memory::new(1);
        let ledger = Arc::new(Ledger::new(1));
        let (mut fill, mut fill_end) = pair::<u64>(1, NEAR_WRAP);
        let (mut rx_end, mut rx) = pair::<u64>(1, NEAR_WRAP);
        let (mut tx, mut tx_end) = pair::<u64>(1, NEAR_WRAP);
        let (mut completion_end, mut completion) = pair::<u64>(1, NEAR_WRAP);
        let kernel = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                if let Some(chunk) = try_take(&mut fill_end) {
                    memory.write(chunk, 1);
                    put(&mut rx_end, chunk);
                }
                if let Some(chunk) = try_take(&mut tx_end) {
                    assert_eq!(memory.read(chunk), 2);
                    put(&mut completion_end, chunk);
                }
            })
        };
        let sharer = {
            let (memory, ledger) = (Arc::clone(&memory), Arc::clone(&ledger));
            thread::spawn(move || {
                if let Some(chunk) = try_take(&mut rx) {
                    assert!(ledger.take(0, Place::receiving(QUEUE)));
                    assert_eq!(memory.read(chunk), 1);
                    memory.write(chunk, 2);
                    ledger.give(0, Place::sending(QUEUE));
                    put(&mut tx, chunk);
                }
            })
        };
        ledger.give(0, Place::receiving(QUEUE));
        put(&mut fill, 0);
        if let Some(chunk) = try_take(&mut completion) {
            assert!(ledger.take(0, Place::sending(QUEUE)));
            memory.write(chunk, 3);
            REACHED.store(true, core::sync::atomic::Ordering::Relaxed);
        }
        kernel.join().unwrap();
        sharer.join().unwrap();
    });
    assert!(REACHED.load(core::sync::atomic::Ordering::Relaxed));
}

/// That the way through all three hands was among the orders tried.
static REACHED: core::sync::atomic::AtomicBool = core::sync::atomic::AtomicBool::new(false);

/// Two threads allocate, write, and give back over one pool: no chunk is in two hands.
#[test]
fn free_chunks_are_in_one_hand() {
    check(3, || {
        let memory = Memory::new(2);
        let free = Arc::new(FreeList::<1>::new(2));
        for chunk in 0..2 {
            free.give(ArrayVec::from([chunk]));
        }
        let work = |free: &FreeList<1>, memory: &Memory| {
            let mut local = LocalList::<1>::new();
            for _ in 0..2 {
                if let Some(chunk) = local.allocate(free) {
                    memory.write(chunk.into(), 1);
                    local.release(chunk, free);
                    local.flush(free);
                }
            }
        };
        let other = {
            let (free, memory) = (Arc::clone(&free), Arc::clone(&memory));
            thread::spawn(move || work(&free, &memory))
        };
        work(&free, &memory);
        other.join().unwrap();
        assert_eq!(free.pooled() + free.orphans(), 2);
        assert_eq!(count(&free), 2);
    });
}

/// Frames dropped by one thread and one that collects them meanwhile.
#[test]
fn orphans_are_collected_once() {
    check(3, || {
        let memory = Memory::new(3);
        let free = Arc::new(FreeList::<2>::new(3));
        free.push_orphan(2);
        let dropper = {
            let (free, memory) = (Arc::clone(&free), Arc::clone(&memory));
            thread::spawn(move || {
                for chunk in 0..2 {
                    memory.write(chunk.into(), 1);
                    free.push_orphan(chunk);
                }
            })
        };
        let mut local = LocalList::<2>::new();
        for _ in 0..2 {
            if let Some(chunk) = local.allocate(&free) {
                memory.write(chunk.into(), 2);
                // Dropped again, at once: it may come back before the others.
                free.push_orphan(chunk);
            }
        }
        dropper.join().unwrap();
        assert_eq!(free.pooled() + free.orphans() + local.len(), 3);
        local.flush(&free);
        assert_eq!(count(&free), 3);
    });
}

/// Different chunks that are there to be taken, all threads gone.
fn count<const SLAB: usize>(free: &FreeList<SLAB>) -> usize {
    let mut all: Vec<Chunk> = core::iter::from_fn(|| free.take()).flatten().collect();
    free.take_orphans(|chunk| all.push(chunk));
    all.sort_unstable();
    all.dedup();
    all.len()
}

/// Two push, one pops; tickets wrap.
#[test]
fn queue_takes_from_two_and_loses_nothing() {
    check(3, || {
        let queue = Arc::new(Queue::starting_at(2, usize::MAX));
        let pushers: Vec<_> = [1, 2]
            .map(|value| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || queue.push(value).unwrap())
            })
            .into_iter()
            .collect();
        let mut sum = 0;
        let mut popped = 0;
        while popped < 2 {
            match queue.pop() {
                Some(value) => {
                    sum += value;
                    popped += 1;
                }
                None => thread::yield_now(),
            }
        }
        assert_eq!(sum, 3);
        assert_eq!(queue.pop(), None);
        for pusher in pushers {
            pusher.join().unwrap();
        }
    });
}

/// One pushes more than fits while another pops: in order, none twice.
#[test]
fn queue_keeps_the_order_over_its_wrap() {
    check(3, || {
        let queue = Arc::new(Queue::starting_at(2, usize::MAX));
        let pusher = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                for value in 0..3 {
                    while queue.push(value).is_err() {
                        thread::yield_now();
                    }
                }
            })
        };
        for expected in 0..3 {
            let value = loop {
                match queue.pop() {
                    Some(value) => break value,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(value, expected);
        }
        pusher.join().unwrap();
    });
}

/// Two pop what is there: each value once.
#[test]
fn queue_gives_each_value_to_one_of_two() {
    check(3, || {
        let queue = Arc::new(Queue::starting_at(2, 0));
        queue.push(1).unwrap();
        queue.push(2).unwrap();
        let other = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.pop())
        };
        let mine = queue.pop();
        let theirs = other.join().unwrap();
        assert_eq!(mine.unwrap() + theirs.unwrap(), 3);
        assert!(queue.is_empty());
    });
}

/// What is left inside is dropped with the queue; loom reports a value that is not.
#[test]
fn queue_drops_what_is_left() {
    check(2, || {
        let queue = Arc::new(Queue::with_capacity(2));
        let value = Arc::new(());
        let pusher = {
            let (queue, value) = (Arc::clone(&queue), Arc::clone(&value));
            thread::spawn(move || drop(queue.push(value)))
        };
        drop(queue.pop());
        pusher.join().unwrap();
        drop(queue);
        drop(value);
    });
}
