//! One capture: its slots, its rings, what was lost.

use core::ops::Deref;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use super::filter::Filter;
use super::tap::Tap;
use crate::limits::{CAPTURE_SLOT_LEN, CAPTURE_SLOTS, LISTENERS_MAX};
use crate::net::{Flow, ListenerIndex, SocketAddr, WorkerIndex};
use crate::publish::Published;
use crate::sys::clock;
use crate::time::Instant;
use crate::verdict::DropReason;

/// Which way a datagram went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It was received.
    Inbound,
    /// It was sent.
    Outbound,
}

/// What became of a message, or why it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was answered by viaduct itself, with this status.
    Answered(u16),
    /// It was dropped.
    Dropped(DropReason),
    /// It was sent on.
    Forwarded(SocketAddr),
    /// It was for viaduct and went no further.
    Absorbed,
    /// It is viaduct's own: a retransmission, an answer with a transaction, another try.
    Originated,
}

/// Memory for one datagram, and the datagram in it.
#[derive(Debug)]
pub struct Slot {
    /// The same for a datagram received and what was sent because of it.
    pub id: u64,
    /// When the worker had it in hand, on the monotonic clock.
    pub at: Instant,
    /// From where to where.
    pub flow: Flow,
    /// Received or sent.
    pub direction: Direction,
    /// What became of it.
    pub fate: Fate,
    /// The worker that decided.
    pub worker: WorkerIndex,
    /// Whether another worker had received it.
    pub handed_over: bool,
    /// Length of the whole payload.
    pub len: usize,
    // INVARIANT: `kept` is at most the length of `bytes`.
    kept: usize,
    bytes: Box<[u8]>,
}

impl Slot {
    fn new() -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            id: 0,
            at: Instant::ZERO,
            flow: Flow {
                listener: ListenerIndex(0),
                local: nowhere,
                peer: nowhere,
            },
            direction: Direction::Inbound,
            fate: Fate::Dropped(DropReason::NotHandled),
            worker: WorkerIndex(0),
            handed_over: false,
            len: 0,
            kept: 0,
            bytes: vec![0; CAPTURE_SLOT_LEN].into_boxed_slice(),
        }
    }

    /// Copies a payload, as far as there is room.
    pub(super) fn fill(&mut self, flow: &Flow, payload: &[u8]) {
        self.at = clock::now();
        self.flow = *flow;
        self.len = payload.len();
        self.kept = payload.len().min(self.bytes.len());
        if let (Some(to), Some(from)) = (self.bytes.get_mut(..self.kept), payload.get(..self.kept))
        {
            to.copy_from_slice(from);
        }
    }

    /// What was kept of the payload: all of it, but for the very long.
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(..self.kept).unwrap_or_default()
    }
}

/// One capture, shared by the workers and by whoever writes it out.
#[derive(Debug)]
pub struct Session {
    pub(super) filter: Filter,
    free: ArrayQueue<Box<Slot>>,
    filled: ArrayQueue<Box<Slot>>,
    taken: [AtomicU64; LISTENERS_MAX],
    lost: [AtomicU64; LISTENERS_MAX],
    next_id: AtomicU64,
}

impl Session {
    /// A session with all its slots. Allocates [`CAPTURE_SLOTS`] × [`CAPTURE_SLOT_LEN`] bytes.
    pub fn new(filter: Filter) -> Self {
        let free = ArrayQueue::new(CAPTURE_SLOTS);
        for _ in 0..CAPTURE_SLOTS {
            let _fits = free.push(Box::new(Slot::new()));
        }
        Self {
            filter,
            free,
            filled: ArrayQueue::new(CAPTURE_SLOTS),
            taken: [const { AtomicU64::new(0) }; LISTENERS_MAX],
            lost: [const { AtomicU64::new(0) }; LISTENERS_MAX],
            next_id: AtomicU64::new(1),
        }
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// A free slot. None: whatever was to be kept is lost, and counted for `listener`.
    pub(super) fn free_slot(&self, listener: ListenerIndex) -> Option<Box<Slot>> {
        let slot = self.free.pop();
        if slot.is_none() {
            self.lost[usize::from(listener.0) % LISTENERS_MAX].fetch_add(1, Ordering::Relaxed);
        }
        slot
    }

    pub(super) fn keep(&self, slot: Box<Slot>) {
        let listener = usize::from(slot.flow.listener.0) % LISTENERS_MAX;
        self.taken[listener].fetch_add(1, Ordering::Relaxed);
        // Never full: it has room for every slot there is. Nor is `free`.
        let _fits = self.filled.push(slot);
    }

    /// The next datagram that was captured; give the slot back with [`release`](Self::release).
    pub fn take(&self) -> Option<Box<Slot>> {
        self.filled.pop()
    }

    /// Gives a slot back.
    pub fn release(&self, slot: Box<Slot>) {
        let _fits = self.free.push(slot);
    }

    /// Datagrams of a listener that were captured and that were lost for want of a slot.
    pub fn counts(&self, listener: ListenerIndex) -> (u64, u64) {
        let index = usize::from(listener.0) % LISTENERS_MAX;
        (
            self.taken[index].load(Ordering::Relaxed),
            self.lost[index].load(Ordering::Relaxed),
        )
    }
}

/// A listener, as a capture file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its address.
    pub description: String,
}

/// The place where the capture that runs is found, if one does.
#[derive(Debug, Default)]
pub struct Captures {
    published: Published<Session>,
    interfaces: Vec<Interface>,
    busy: AtomicBool,
}

impl Captures {
    /// No capture yet. `interfaces` are the listeners, in order.
    pub fn new(interfaces: Vec<Interface>) -> Self {
        Self {
            published: Published::new(),
            interfaces,
            busy: AtomicBool::new(false),
        }
    }

    /// The listeners, in order.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// What worker `worker` looks through.
    pub fn tap(&self, worker: WorkerIndex) -> Tap {
        Tap::new(self.published.follow(), worker)
    }

    /// Starts a capture; `None` if one runs.
    pub fn begin(self: &Arc<Self>, filter: Filter) -> Option<Running> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return None;
        }
        let session = Arc::new(Session::new(filter));
        self.published.set(Some(session.clone()));
        Some(Running {
            captures: self.clone(),
            session,
        })
    }

    /// Frees the memory of captures that have ended.
    pub fn reap(&self) {
        self.published.reap();
    }
}

/// A capture that runs, until this is dropped.
#[derive(Debug)]
pub struct Running {
    captures: Arc<Captures>,
    session: Arc<Session>,
}

impl Running {
    /// Ends it: workers add nothing from their next batch on. What they added stays to be taken.
    pub fn end(&self) {
        self.captures.published.set(None);
    }

    /// The listeners, in order.
    pub fn interfaces(&self) -> &[Interface] {
        self.captures.interfaces()
    }
}

impl Deref for Running {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
        self.captures.busy.store(false, Ordering::Release);
    }
}
