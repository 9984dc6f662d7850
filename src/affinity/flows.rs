//! Client flows that have moved: where a client behind a NAT is now, if that is no longer what the
//! token of its dialog says.
//!
//! A route token holds the flow that the dialog began with. When the client's NAT gives it another
//! mapping in the middle of a call, the client's next request in the dialog shows the new one, and
//! what a server sends into the dialog must go there. The route set of a dialog never changes (RFC
//! 3261 §12.2), so a newer token would not reach the server: this is the one thing about a dialog
//! that is remembered rather than carried.
//!
//! # What is trusted
//!
//! An entry is written for a request that brings back a token sealed for its own Call-ID, from the
//! side of the dialog whose flow the token holds, as the tag in From tells. Who can send that has
//! seen the messages of the dialog, and could as well refresh the dialog's Contact (RFC 3261
//! §12.2.2), which moves the same requests to the same place.
//!
//! # What is lost
//!
//! Entries are of this process. After a restart, on another node, a day after the last request from
//! the new flow, or when newer ones push it out of its bucket, the token's own flow counts again,
//! until the client is heard once more.
//!
//! # The table
//!
//! One table for all workers, fixed in size, atomics only. A bucket is one cache line of keys and
//! three of values under one sequence number, odd while a writer is inside. A reader that meets a
//! writer tries again, and after a few times takes the token's flow; a writer that meets a writer
//! gives way likewise. Nobody waits.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use super::CallIdHash;
use super::keyed_hash::halves;
use crate::limits::MOVED_FLOWS_MAX;
use crate::net::{IpAddr, Ipv6Addr, ListenerIndex, SocketAddr, canonical};
use crate::time::{Duration, Instant};

/// Flows in a bucket: with the sequence number their keys fill a cache line.
const WAYS: usize = 7;

/// Times that a reader or a writer tries to get into a bucket. A writer stays for some ten stores.
const ATTEMPTS: usize = 64;

/// How long a flow is remembered after the last request from it: the longest dialog, which is how
/// long the key of its token is kept.
const LIFE: Duration = Duration::from_hours(24);

/// A flow that is still in use is written again when its entry is this old.
const REFRESH: Duration = Duration::from_hours(1);

/// A way to a client: where its NAT listens, and which address of ours that NAT lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientFlow {
    /// The client's address as we see it.
    pub address: SocketAddr,
    /// The listener it sends to.
    pub listener: ListenerIndex,
}

/// What [`MovedFlows::note`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowNote {
    /// Nothing new.
    Known,
    /// The client has moved.
    Moved,
    /// The client has moved, and an older move of another had to give way.
    Evicted,
    /// The client is back where its token says.
    Returned,
    /// Not remembered: the table has no room at all, or another worker was in the way.
    Refused,
}

/// The value of an entry: address, and `port 16 │ listener 8 │ seconds 40`.
type Words = [u64; 3];

/// Seven entries. Those whose key is zero are free.
#[derive(Debug)]
#[repr(C, align(64))]
struct Bucket {
    /// Odd while a writer is inside.
    sequence: AtomicU64,
    keys: [AtomicU64; WAYS],
    values: [[AtomicU64; 3]; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 256);

impl Bucket {
    fn new() -> Self {
        Self {
            sequence: AtomicU64::new(0),
            keys: core::array::from_fn(|_| AtomicU64::new(0)),
            values: core::array::from_fn(|_| core::array::from_fn(|_| AtomicU64::new(0))),
        }
    }

    fn position(&self, key: u64) -> Option<usize> {
        self.keys
            .iter()
            .position(|slot| slot.load(Ordering::Relaxed) == key)
    }

    fn value(&self, way: usize) -> Words {
        core::array::from_fn(|word| self.values[way][word].load(Ordering::Relaxed))
    }

    /// The value of a key, all three words from one writer.
    fn read(&self, key: u64) -> Option<Words> {
        for _ in 0..ATTEMPTS {
            // Acquire: an even number brings what was written before it.
            let before = self.sequence.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let value = self.position(key).map(|way| self.value(way));
                // Acquire: a word of a later writer brings that writer's odd number with it, so
                // that the second load sees it.
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return value;
                }
            }
            core::hint::spin_loop();
        }
        None
    }

    /// Lets `change` write, if no other writer comes in between for too long.
    fn write<T>(&self, change: impl FnOnce(&Self) -> T) -> Option<T> {
        for _ in 0..ATTEMPTS {
            let before = self.sequence.load(Ordering::Relaxed);
            // Acquire: what the last writer left is what this one changes.
            let entered = before.is_multiple_of(2)
                && self
                    .sequence
                    .compare_exchange(
                        before,
                        before.wrapping_add(1),
                        Ordering::Acquire,
                        Ordering::Relaxed,
                    )
                    .is_ok();
            if entered {
                // Release: whoever sees one of the words below sees the odd number.
                fence(Ordering::Release);
                let done = change(self);
                self.sequence
                    .store(before.wrapping_add(2), Ordering::Release);
                return Some(done);
            }
            core::hint::spin_loop();
        }
        None
    }
}

/// The table.
#[derive(Debug)]
pub struct MovedFlows {
    buckets: Box<[Bucket]>,
    /// Entries in use: while there are none, nobody looks.
    used: AtomicUsize,
}

impl MovedFlows {
    /// A table with room for `flows`, rounded up to whole buckets, [`MOVED_FLOWS_MAX`] at most.
    /// About 37 bytes each, all of them taken now. With room for none it remembers nothing.
    pub fn new(flows: usize) -> Self {
        let buckets = flows.min(MOVED_FLOWS_MAX).div_ceil(WAYS);
        Self {
            buckets: (0..buckets).map(|_| Bucket::new()).collect(),
            used: AtomicUsize::new(0),
        }
    }

    /// Flows there is room for.
    pub fn capacity(&self) -> usize {
        self.buckets.len() * WAYS
    }

    /// Entries in use, outdated ones included.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Where the client is that a token of this Call-ID says is at `flow`; `None` if it has not
    /// moved.
    #[inline]
    pub fn find(&self, call_id: CallIdHash, flow: ClientFlow, now: Instant) -> Option<ClientFlow> {
        if self.used() == 0 {
            return None;
        }
        let key = key(call_id, flow.address);
        let value = self.bucket(key)?.read(key)?;
        (age(value, now) < LIFE).then(|| unpack(value))
    }

    /// Takes note that the client whose token says `flow` has sent from `seen`.
    #[inline]
    pub fn note(
        &self,
        call_id: CallIdHash,
        flow: ClientFlow,
        seen: ClientFlow,
        now: Instant,
    ) -> FlowNote {
        // Nearly every client is where it was, and nearly always nobody has moved.
        if seen == flow && self.used() == 0 {
            return FlowNote::Known;
        }
        self.note_change(key(call_id, flow.address), flow, seen, now)
    }

    fn note_change(&self, key: u64, flow: ClientFlow, seen: ClientFlow, now: Instant) -> FlowNote {
        let Some(bucket) = self.bucket(key) else {
            return FlowNote::Refused;
        };
        let known = bucket.read(key);
        if seen == flow {
            return match known {
                None => FlowNote::Known,
                Some(_) => self.forget(bucket, key),
            };
        }
        if let Some(value) = known
            && unpack(value) == seen
            && age(value, now) < REFRESH
        {
            return FlowNote::Known;
        }
        self.remember(bucket, key, pack(seen, now), now)
    }

    fn forget(&self, bucket: &Bucket, key: u64) -> FlowNote {
        let freed = bucket.write(|bucket| {
            let way = bucket.position(key)?;
            bucket.keys[way].store(0, Ordering::Relaxed);
            self.used.fetch_sub(1, Ordering::Relaxed);
            Some(())
        });
        match freed {
            None => FlowNote::Refused,
            Some(None) => FlowNote::Known,
            Some(Some(())) => FlowNote::Returned,
        }
    }

    fn remember(&self, bucket: &Bucket, key: u64, value: Words, now: Instant) -> FlowNote {
        let note = bucket.write(|bucket| {
            let (way, note) = match bucket.position(key) {
                Some(way) if unpack(bucket.value(way)) == unpack(value) => (way, FlowNote::Known),
                Some(way) => (way, FlowNote::Moved),
                None => match bucket.position(0) {
                    Some(way) => {
                        self.used.fetch_add(1, Ordering::Relaxed);
                        (way, FlowNote::Moved)
                    }
                    None => {
                        let (way, age) = oldest(bucket, now);
                        let live = age < LIFE;
                        let note = if live {
                            FlowNote::Evicted
                        } else {
                            FlowNote::Moved
                        };
                        (way, note)
                    }
                },
            };
            bucket.keys[way].store(key, Ordering::Relaxed);
            for (slot, word) in bucket.values[way].iter().zip(value) {
                slot.store(word, Ordering::Relaxed);
            }
            note
        });
        note.unwrap_or(FlowNote::Refused)
    }

    #[inline]
    fn bucket(&self, key: u64) -> Option<&Bucket> {
        let low = key & u64::from(u32::MAX);
        // A product of two 32-bit numbers shifted by 32 is below the second, the bucket count.
        let index = (low * self.buckets.len() as u64) >> 32;
        self.buckets.get(usize::try_from(index).ok()?)
    }
}

/// The entry of the bucket that was written first, and its age.
fn oldest(bucket: &Bucket, now: Instant) -> (usize, Duration) {
    (0..WAYS)
        .map(|way| (way, age(bucket.value(way), now)))
        .max_by_key(|(_, age)| *age)
        .unwrap_or_default()
}

/// The key of a token's flow in its dialog: a call may have a client behind a NAT at either end.
///
/// The hash of the Call-ID is a secret function of it, so nobody can aim at another's bucket; the
/// flow is only mixed in. Never zero.
fn key(call_id: CallIdHash, flow: SocketAddr) -> u64 {
    let (low, high) = address_words(flow.ip());
    let flow = (high ^ low.rotate_left(16) ^ u64::from(flow.port()))
        // An odd constant without structure: the fraction of the golden ratio.
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (call_id.0 ^ flow ^ flow >> 32).max(1)
}

fn pack(flow: ClientFlow, now: Instant) -> Words {
    let (low, high) = address_words(flow.address.ip());
    let place = u64::from(flow.address.port()) << 48 | u64::from(flow.listener.0) << 40;
    [low, high, place | seconds(now)]
}

#[expect(clippy::cast_possible_truncation, reason = "each field is cut out")]
fn unpack([low, high, place]: Words) -> ClientFlow {
    let ip = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
    ClientFlow {
        address: SocketAddr::new(canonical(ip.into()), (place >> 48) as u16),
        listener: ListenerIndex((place >> 40) as u8),
    }
}

/// The halves of an address, IPv4 as IPv4-mapped IPv6.
fn address_words(ip: IpAddr) -> (u64, u64) {
    halves(match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    })
}

/// Whole seconds in 40 bits: 34,000 years.
fn seconds(now: Instant) -> u64 {
    now.as_millis() / 1000
}

/// Time since an entry was written, by whole seconds.
fn age([.., place]: Words, now: Instant) -> Duration {
    let written = place & ((1 << 40) - 1);
    Duration::from_secs(seconds(now).saturating_sub(written))
}

#[cfg(test)]
mod tests;
