//! Calls that the server holds: from the INVITE until the dialog is over.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use crate::generator::dialog::Dialog;
use crate::generator::timers::Resend;
use crate::generator::transport::AddressIndex;
use crate::net::SocketAddr;
use crate::time::{Duration, Instant};

/// Ended calls are remembered this long at least: 64·T1 of RFC 3261 (timer L of RFC 6026).
const MEMORY: Duration = Duration::from_secs(32);
/// Ended calls remembered in one span of [`MEMORY`]; beyond it, none.
const REMEMBERED_MAX: usize = 3_600_000;

/// Where a held call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// INVITE received, 180 not sent yet.
    Trying,
    /// 180 sent.
    Ringing,
    /// The final response is repeated until its ACK comes.
    Answered,
    /// Acknowledged.
    Established,
    /// A BYE of ours is out.
    HangingUp,
}

/// A held call.
#[derive(Debug)]
pub(super) struct Held {
    /// Hash of the Call-ID.
    pub(super) id: u64,
    pub(super) state: State,
    /// The INVITE, to make later responses of.
    pub(super) request: Vec<u8>,
    pub(super) cseq: u32,
    pub(super) socket: AddressIndex,
    pub(super) peer: SocketAddr,
    /// Status of the latest response to the INVITE.
    pub(super) status: u16,
    pub(super) received: Instant,
    pub(super) resend: Option<Resend>,
    pub(super) deadline: Option<Instant>,
    pub(super) armed: Option<Instant>,
    /// Whether the place holds a call now.
    is_live: bool,
    /// Tells this call from the next in its place.
    pub(super) generation: u32,
    /// Learnt only where a BYE of ours is planned.
    pub(super) dialog: Dialog,
}

impl Held {
    pub(super) fn due(&self) -> Option<Instant> {
        let resend = self.resend.map(|resend| resend.at());
        [resend, self.deadline].into_iter().flatten().min()
    }
}

/// The keys are keyed hashes already.
#[derive(Default)]
pub(super) struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

type ReadyBuilder = BuildHasherDefault<Ready>;

/// All calls held, by the hash of their Call-ID.
#[derive(Default)]
pub(super) struct HeldCalls {
    by_id: HashMap<u64, u32, ReadyBuilder>,
    places: Vec<Held>,
    free: Vec<u32>,
}

impl HeldCalls {
    pub(super) fn count(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn find(&self, id: u64) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// The call of a place, if one is there.
    pub(super) fn at(&mut self, index: u32) -> Option<&mut Held> {
        let held = self.places.get_mut(usize::try_from(index).ok()?)?;
        held.is_live.then_some(held)
    }

    /// Takes a place for a call that arrived with `request`; its buffers are used again.
    pub(super) fn insert(
        &mut self,
        id: u64,
        request: &[u8],
        socket: AddressIndex,
        peer: SocketAddr,
        now: Instant,
    ) -> Option<u32> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.places.len()).ok()?;
                self.places.push(Held {
                    id,
                    state: State::Trying,
                    request: Vec::new(),
                    cseq: 0,
                    socket,
                    peer,
                    status: 0,
                    received: now,
                    resend: None,
                    deadline: None,
                    armed: None,
                    is_live: false,
                    generation: 0,
                    dialog: Dialog::default(),
                });
                index
            }
        };
        let held = self.places.get_mut(usize::try_from(index).ok()?)?;
        held.id = id;
        held.state = State::Trying;
        held.request.clear();
        held.request.extend_from_slice(request);
        (held.socket, held.peer) = (socket, peer);
        (held.cseq, held.status) = (0, 0);
        held.received = now;
        (held.resend, held.deadline, held.armed) = (None, None, None);
        held.is_live = true;
        held.generation = held.generation.wrapping_add(1);
        held.dialog.clear();
        self.by_id.insert(id, index);
        Some(index)
    }

    pub(super) fn remove(&mut self, index: u32) {
        let Some(held) = self.at(index) else { return };
        held.is_live = false;
        let id = held.id;
        self.by_id.remove(&id);
        self.free.push(index);
    }
}

/// Calls that ended a short while ago: a late retransmission must not open them again.
pub(super) struct Ended {
    recent: HashSet<u64, ReadyBuilder>,
    older: HashSet<u64, ReadyBuilder>,
    turn: Instant,
}

impl Ended {
    pub(super) fn new(now: Instant) -> Self {
        // In full from the start: to grow in the middle of a load takes tens of milliseconds, in
        // which a ring runs over. Memory is touched as it is used.
        let room = || HashSet::with_capacity_and_hasher(REMEMBERED_MAX, ReadyBuilder::default());
        Self {
            recent: room(),
            older: room(),
            turn: now + MEMORY,
        }
    }

    pub(super) fn insert(&mut self, id: u64, cseq: u32, now: Instant) {
        if now >= self.turn {
            core::mem::swap(&mut self.older, &mut self.recent);
            self.recent.clear();
            self.turn = now + MEMORY;
        }
        if self.recent.len() < REMEMBERED_MAX {
            self.recent.insert(key(id, cseq));
        }
    }

    pub(super) fn contains(&self, id: u64, cseq: u32) -> bool {
        let key = key(id, cseq);
        self.recent.contains(&key) || self.older.contains(&key)
    }
}

/// A later INVITE of the same Call-ID is another call.
fn key(id: u64, cseq: u32) -> u64 {
    id ^ u64::from(cseq).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_call_is_remembered_for_32_seconds_at_least() {
        let start = Instant::from_nanos(1_000_000_000);
        let mut ended = Ended::new(start);
        let almost = start + Duration::from_secs(31);
        ended.insert(7, 1, almost);
        assert!(ended.contains(7, 1));
        assert!(!ended.contains(7, 2));
        ended.insert(8, 1, start + Duration::from_secs(33));
        assert!(ended.contains(7, 1));
        ended.insert(9, 1, start + Duration::from_secs(66));
        assert!(!ended.contains(7, 1));
        assert!(ended.contains(8, 1));
    }

    #[test]
    fn a_place_is_used_again_under_another_generation() {
        let now = Instant::from_nanos(1);
        let peer = "198.18.0.9:5060".parse().unwrap();
        let mut calls = HeldCalls::default();
        let first = calls.insert(1, b"a", 0, peer, now).unwrap();
        let generation = calls.at(first).unwrap().generation;
        calls.remove(first);
        calls.remove(first);
        assert_eq!((calls.count(), calls.find(1)), (0, None));
        assert!(calls.at(first).is_none());
        let second = calls.insert(2, b"bc", 0, peer, now).unwrap();
        assert_eq!(second, first);
        let held = calls.at(second).unwrap();
        assert_eq!((held.id, &held.request[..]), (2, &b"bc"[..]));
        assert_ne!(held.generation, generation);
        assert_eq!(calls.insert(3, b"", 0, peer, now), Some(1));
    }
}
