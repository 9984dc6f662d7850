//! Calls that stand, counted as leases: a lost BYE costs a count for a while, not for ever.
//!
//! A call is counted on its server from the 2xx of its INVITE until its BYE. Nobody can rely on the
//! BYE: it may be lost, or go another way. So every call is a lease, as long as its session may last
//! without a sign (RFC 4028), and whatever is not renewed ends by itself.
//!
//! One [`CallLeases`] per worker, for the Call-IDs at home there; what another worker sees of them,
//! it leaves for that one ([`Board::tell`], [`CallLeases::hear`]). All of them count on one
//! [`Board`]. Of fixed size: when it is full one of those that would end first goes, and is counted.
//! Each operation takes the same few steps however many leases there are; [`CallLeases::expire`]
//! does a bounded part of its work each time.
//!
//! ```
//! use std::sync::Arc;
//! use viaduct::affinity::CallIdHash;
//! use viaduct::balance::{Board, CallLeases};
//! use viaduct::net::ServerIndex;
//! use viaduct::time::{Duration, Instant};
//!
//! let board = Arc::new(Board::new());
//! let mut calls = CallLeases::new(1000, Arc::clone(&board));
//! let (call, server, now) = (CallIdHash(7), ServerIndex(1), Instant::ZERO);
//! calls.opened(call, server, now, Some(90), Duration::from_secs(14_400));
//! assert_eq!(board.load(server).calls, 1);
//! // Twice the session interval passes without a sign of the call.
//! calls.expire(now + Duration::from_secs(200));
//! assert_eq!(board.load(server).calls, 0);
//! assert_eq!(calls.ended(call), None);
//! ```

use std::sync::Arc;

use super::rendezvous::mix;
use super::{Board, CallNote};
use crate::affinity::CallIdHash;
use crate::limits::{CALL_MAX_SECONDS, CALL_NOTES_MAX};
use crate::net::{ServerIndex, WorkerIndex};
use crate::time::{Duration, Instant};

/// RFC 4028 §4: "the absolute minimum for the Session-Expires header field" is 90 seconds.
const SESSION_MIN: u32 = 90;

/// Seconds in one step of the wheel. Leases end up to this much late.
const TICK: u64 = 8;

/// Steps of the wheel: 4 h 33 min, more than the usual longest lease. A longer one is looked at when
/// the wheel has gone round, and put back.
const SLOTS: u32 = 2048;

/// Leases looked at in one call of [`CallLeases::expire`].
const EXPIRE_BATCH: usize = 256;

/// No lease.
const NONE: u32 = u32::MAX;

/// Marks the number of a slot where else that of a lease is.
const SLOT_MARK: u32 = 1 << 31;

/// A call that stands, or a free place.
#[derive(Clone, Copy, Debug)]
struct Lease {
    call: u64,
    /// The tick at which it ends.
    ends: u32,
    /// Seconds that it is renewed for.
    length: u32,
    /// The next of the same bucket, or the next free place.
    chain: u32,
    /// Neighbours in the slot of the wheel; before the first is the slot, with [`SLOT_MARK`].
    next: u32,
    previous: u32,
    server: ServerIndex,
}

const _: () = assert!(size_of::<Lease>() == 32);

/// The calls of one worker.
#[derive(Debug)]
pub struct CallLeases {
    board: Arc<Board>,
    /// Grows up to the capacity that it has from the start: what is not needed is never touched.
    leases: Vec<Lease>,
    capacity: usize,
    /// The place of the first lease of each bucket of hashes, and one; 0 is none. The length is a
    /// power of two.
    buckets: Box<[u32]>,
    /// First lease of each slot.
    wheel: Box<[u32]>,
    /// First free place.
    free: u32,
    /// The first tick whose slot has not been emptied.
    tick: u32,
    len: usize,
    evicted: u64,
    expired: u64,
}

impl CallLeases {
    /// Room for `capacity` calls, which are counted on `board`; 36 to 40 bytes each.
    pub fn new(capacity: usize, board: Arc<Board>) -> Self {
        let capacity = u32::try_from(capacity)
            .unwrap_or(NONE)
            .clamp(1, SLOT_MARK - 1);
        let capacity = capacity as usize;
        Self {
            board,
            leases: Vec::with_capacity(capacity),
            capacity,
            buckets: vec![0; capacity.next_power_of_two()].into(),
            wheel: vec![NONE; SLOTS as usize].into(),
            free: NONE,
            tick: 0,
            len: 0,
            evicted: 0,
            expired: 0,
        }
    }

    /// Calls that stand.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no call stands.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Calls that made room for newer ones since the start.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Calls whose lease ran out since the start: their BYE was not seen.
    pub fn expired(&self) -> u64 {
        self.expired
    }

    /// The server that a call is counted on.
    pub fn server(&self, call: CallIdHash) -> Option<ServerIndex> {
        let (_, at) = self.find(call.0)?;
        Some(self.leases.get(at as usize)?.server)
    }

    /// The INVITE of a call was answered with a 2xx: the call stands.
    ///
    /// `session_expires` is the value of that header field in the 2xx, if it has one; a call without
    /// is given up after `call_max`. A call that stands already is renewed, on another server if
    /// that is who answered last.
    pub fn opened(
        &mut self,
        call: CallIdHash,
        server: ServerIndex,
        now: Instant,
        session_expires: Option<u32>,
        call_max: Duration,
    ) {
        let call_max = u32::try_from(call_max.as_secs()).unwrap_or(u32::MAX);
        let length = session_expires.map_or(call_max, doubled);
        if let Some((_, at)) = self.find(call.0) {
            self.renew(at, now, length);
            if let Some(lease) = self.leases.get_mut(at as usize)
                && lease.server != server
            {
                self.board.call_closed(lease.server);
                self.board.call_opened(server);
                lease.server = server;
            }
            return;
        }
        let at = self.place();
        let bucket = self.bucket(call.0);
        let (Some(lease), Some(first)) = (
            self.leases.get_mut(at as usize),
            self.buckets.get_mut(bucket),
        ) else {
            return;
        };
        self.free = lease.chain;
        lease.call = call.0;
        lease.server = server;
        lease.chain = first.wrapping_sub(1);
        *first = at + 1;
        self.len += 1;
        self.board.call_opened(server);
        if self.len == 1 {
            // Nothing was there that could end: the wheel need not turn through all of that time.
            self.tick = self.tick.max(tick(now));
        }
        self.set(at, now, length);
    }

    /// A request in the dialog, or its 2xx: the call lives. `session_expires` changes what it is
    /// renewed for (RFC 4028 §10: the session timer starts anew with each refresh). A call that
    /// nobody knows stays unknown.
    pub fn refreshed(&mut self, call: CallIdHash, now: Instant, session_expires: Option<u32>) {
        let Some((_, at)) = self.find(call.0) else {
            return;
        };
        let Some(lease) = self.leases.get(at as usize) else {
            return;
        };
        let length = session_expires.map_or(lease.length, doubled);
        self.renew(at, now, length);
    }

    /// A BYE, from either side. The server that the call was counted on, if it was.
    pub fn ended(&mut self, call: CallIdHash) -> Option<ServerIndex> {
        let (before, at) = self.find(call.0)?;
        self.remove(before, at)
    }

    /// Ends leases that have run out, a bounded number of them. How many there were; call it again
    /// at [`CallLeases::next_deadline`].
    pub fn expire(&mut self, now: Instant) -> usize {
        let until = tick(now);
        if self.is_empty() {
            return 0;
        }
        // After a long stall every slot is looked at once.
        self.tick = self.tick.max((until + 1).saturating_sub(SLOTS));
        let (mut ended, mut looked_at) = (0, 0);
        while self.tick <= until {
            while let Some(at) = self.first(self.tick) {
                if looked_at == EXPIRE_BATCH {
                    return ended;
                }
                looked_at += 1;
                let Some(lease) = self.leases.get(at as usize) else {
                    return ended;
                };
                if lease.ends > until {
                    self.unlink(at);
                    self.link(at, self.tick + 1);
                } else if let Some((before, _)) = self.find(lease.call) {
                    self.remove(before, at);
                    self.expired += 1;
                    ended += 1;
                }
            }
            self.tick += 1;
        }
        ended
    }

    /// When [`CallLeases::expire`] has something to look at: at most one step of the wheel from now,
    /// in the past if it was not done.
    pub fn next_deadline(&self) -> Option<Instant> {
        let seconds = u64::from(self.tick) * TICK;
        (!self.is_empty()).then(|| Instant::ZERO + Duration::from_secs(seconds))
    }

    /// Applies what other workers have seen of the calls at home here, at most as many as may wait.
    pub fn hear(&mut self, worker: WorkerIndex, now: Instant) {
        let board = Arc::clone(&self.board);
        for _ in 0..CALL_NOTES_MAX {
            match board.next_note(worker) {
                Some(CallNote::Refreshed(call, session)) => self.refreshed(call, now, session),
                Some(CallNote::Ended(call)) => {
                    self.ended(call);
                }
                None => break,
            }
        }
    }

    /// The first free place, made free if there is none.
    fn place(&mut self) -> u32 {
        if self.free == NONE && self.leases.len() < self.capacity {
            let at = u32::try_from(self.leases.len()).unwrap_or(NONE);
            self.leases.push(Lease {
                call: 0,
                ends: 0,
                length: 0,
                chain: NONE,
                next: NONE,
                previous: NONE,
                server: ServerIndex(0),
            });
            return at;
        }
        if self.free == NONE {
            self.evict();
        }
        self.free
    }

    fn renew(&mut self, at: u32, now: Instant, length: u32) {
        self.unlink(at);
        self.set(at, now, length);
    }

    /// A lease that is in no slot gets its end.
    fn set(&mut self, at: u32, now: Instant, length: u32) {
        let length = length.min(*CALL_MAX_SECONDS.end());
        if let Some(lease) = self.leases.get_mut(at as usize) {
            lease.length = length;
            // Rounded up: no lease ends early.
            lease.ends = tick(now + Duration::from_secs(u64::from(length) + TICK - 1));
        }
        self.link(at, self.tick);
    }

    fn bucket(&self, call: u64) -> usize {
        // A worker's Call-IDs have something in common, which chose the worker.
        usize::try_from(mix(call)).unwrap_or(0) & (self.buckets.len() - 1)
    }

    /// The lease of a call and the one before it in its bucket.
    fn find(&self, call: u64) -> Option<(u32, u32)> {
        let mut before = NONE;
        let mut at = self.buckets.get(self.bucket(call))?.wrapping_sub(1);
        while let Some(lease) = self.leases.get(at as usize) {
            if lease.call == call {
                return Some((before, at));
            }
            before = at;
            at = lease.chain;
        }
        None
    }

    /// Ends a lease; `before` is the one before it in its bucket.
    fn remove(&mut self, before: u32, at: u32) -> Option<ServerIndex> {
        self.unlink(at);
        let Lease {
            call,
            chain,
            server,
            ..
        } = *self.leases.get(at as usize)?;
        let bucket = self.bucket(call);
        match self.leases.get_mut(before as usize) {
            Some(before) => before.chain = chain,
            None => *self.buckets.get_mut(bucket)? = chain.wrapping_add(1),
        }
        let free = self.free;
        self.leases.get_mut(at as usize)?.chain = free;
        self.free = at;
        self.len -= 1;
        self.board.call_closed(server);
        Some(server)
    }

    /// Ends the lease that would end first.
    fn evict(&mut self) {
        let mut ticks = self.tick..self.tick.saturating_add(SLOTS);
        let Some(at) = ticks.find_map(|tick| self.first(tick)) else {
            return;
        };
        let call = self.leases.get(at as usize).map(|lease| lease.call);
        if let Some((before, at)) = call.and_then(|call| self.find(call)) {
            self.remove(before, at);
            self.evicted += 1;
        }
    }

    fn first(&self, tick: u32) -> Option<u32> {
        let first = *self.wheel.get((tick % SLOTS) as usize)?;
        (first != NONE).then_some(first)
    }

    /// Takes a lease out of its slot.
    fn unlink(&mut self, at: u32) {
        let Some(Lease { next, previous, .. }) = self.leases.get(at as usize).copied() else {
            return;
        };
        if let Some(slot) = slot_of(previous) {
            if let Some(first) = self.wheel.get_mut(slot) {
                *first = next;
            }
        } else if let Some(before) = self.leases.get_mut(previous as usize) {
            before.next = next;
        }
        if let Some(after) = self.leases.get_mut(next as usize) {
            after.previous = previous;
        }
    }

    /// Puts a lease into the slot of its end, at `earliest` or later, and within one turn.
    fn link(&mut self, at: u32, earliest: u32) {
        let Some(lease) = self.leases.get_mut(at as usize) else {
            return;
        };
        let tick = lease
            .ends
            .clamp(earliest, self.tick.saturating_add(SLOTS - 1));
        let slot = tick % SLOTS;
        let Some(first) = self.wheel.get_mut(slot as usize) else {
            return;
        };
        lease.next = *first;
        lease.previous = SLOT_MARK | slot;
        let next = core::mem::replace(first, at);
        if let Some(after) = self.leases.get_mut(next as usize) {
            after.previous = at;
        }
    }
}

fn slot_of(neighbour: u32) -> Option<usize> {
    (neighbour & SLOT_MARK != 0).then_some((neighbour & !SLOT_MARK) as usize)
}

/// Seconds of a lease whose session has a timer: a refresh is due in half of the interval, and the
/// other half is for it to be late.
fn doubled(session_expires: u32) -> u32 {
    session_expires.max(SESSION_MIN).saturating_mul(2)
}

fn tick(at: Instant) -> u32 {
    u32::try_from(at.as_millis() / 1000 / TICK).unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests;
