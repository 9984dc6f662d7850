//! Virtual time, and a network that loses, doubles, delays and reorders.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::Duration;

use viaduct::net::Flow;
use viaduct::time::Instant;

use crate::message::View;
use crate::rng::Rng;
use crate::tally::Tally;

/// What happens at some time.
#[derive(Debug)]
pub(crate) enum Event {
    /// A datagram is at some worker's socket.
    AtBalancer {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    /// What one worker has given to another.
    HandedOver {
        worker: usize,
        flow: Flow,
        bytes: Vec<u8>,
        quoted: bool,
        /// How often it was handed over.
        hops: u8,
    },
    /// An ICMP error quotes a request of ours.
    Unreachable {
        peer: SocketAddr,
        local: SocketAddr,
        quoted: Vec<u8>,
    },
    AtClient {
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    AtServer {
        from: SocketAddr,
        server: usize,
        bytes: Vec<u8>,
    },
    WorkerTimer {
        worker: usize,
    },
    ClientTimer {
        call: usize,
        timer: ClientTimer,
        epoch: u32,
    },
    ServerTimer {
        server: usize,
        uas: usize,
        timer: ServerTimer,
    },
    /// The n-th change of the scenario.
    Change(usize),
    Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientTimer {
    Start,
    /// RFC 3261 §17.1.1.2.
    A,
    B,
    /// The caller hangs up if nobody has answered.
    Patience,
    /// RFC 3261 §17.1.2.2, of the CANCEL.
    CancelE,
    /// RFC 3261 §9.1: 64·T1 after its CANCEL a client considers the INVITE ended.
    CancelEnd,
    Reinvite,
    HangUp,
    /// Of the BYE in the dialog of this number.
    ByeE(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerTimer {
    /// The next status of its plan.
    Send(u16),
    /// A 180 each minute, RFC 3261 §13.3.1.1.
    Ring,
    /// Final response again, until the ACK.
    Again,
    /// A 2xx long after its time.
    Stray,
    HangUp,
    ByeE,
}

#[derive(Debug)]
struct Entry {
    at: Instant,
    serial: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    // The heap gives its greatest: the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

/// Faults of one network.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Per mille.
    pub(crate) loss: u32,
    pub(crate) duplication: u32,
    /// Per mille of datagrams that come late, after others.
    pub(crate) reordering: u32,
    pub(crate) delay_ms: u64,
    pub(crate) late_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arm {
    Clients,
    Servers,
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) now: Instant,
    pub(crate) rng: Rng,
    pub(crate) tally: Tally,
    pub(crate) clients: Faults,
    pub(crate) servers: Faults,
    /// No fault any more: what is open may end.
    pub(crate) calm: bool,
    /// The call whose messages are written down, if any.
    pub(crate) traced: Option<usize>,
    pub(crate) trace: Vec<String>,
    events: BinaryHeap<Entry>,
    serial: u64,
    spare: Vec<Vec<u8>>,
}

impl Network {
    pub(crate) fn new(rng: Rng, clients: Faults, servers: Faults, traced: Option<usize>) -> Self {
        Self {
            now: Instant::ZERO + Duration::from_secs(1000),
            rng,
            tally: Tally::default(),
            clients,
            servers,
            calm: false,
            traced,
            trace: Vec::new(),
            events: BinaryHeap::with_capacity(1024),
            serial: 0,
            spare: Vec::new(),
        }
    }

    /// Memory for a message; [`Network::give`] brings it back.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_else(|| Vec::with_capacity(1024))
    }

    pub(crate) fn give(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < 256 {
            bytes.clear();
            self.spare.push(bytes);
        }
    }

    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut copy = self.take();
        copy.extend_from_slice(bytes);
        copy
    }

    pub(crate) fn at(&mut self, at: Instant, event: Event) {
        self.serial += 1;
        self.events.push(Entry {
            at: at.max(self.now),
            serial: self.serial,
            event,
        });
    }

    pub(crate) fn after(&mut self, time: Duration, event: Event) {
        self.at(self.now + time, event);
    }

    /// The next event; time is then its time.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let entry = self.events.pop()?;
        self.now = entry.at;
        self.tally.events += 1;
        Some(entry.event)
    }

    /// Carries a datagram, if it is to arrive at all. `event` makes the arrival from the bytes.
    pub(crate) fn carry(&mut self, arm: Arm, bytes: &[u8], event: impl Fn(Vec<u8>) -> Event) {
        let faults = match arm {
            Arm::Clients => self.clients,
            Arm::Servers => self.servers,
        };
        let faults = if self.calm {
            Faults {
                delay_ms: 1,
                ..Faults::default()
            }
        } else {
            faults
        };
        self.tally.datagrams += 1;
        if self.rng.chance(faults.loss) {
            self.tally.lost += 1;
            self.note(bytes, "lost");
            return;
        }
        let mut copies = 1;
        if self.rng.chance(faults.duplication) {
            self.tally.duplicated += 1;
            copies = 2;
        }
        for _ in 0..copies {
            let mut delay = self
                .rng
                .millis(faults.delay_ms, faults.delay_ms + faults.delay_ms / 4);
            if self.rng.chance(faults.reordering) {
                self.tally.reordered += 1;
                delay += self.rng.millis(1, faults.late_ms.max(2));
            }
            let copy = self.copy(bytes);
            self.after(delay, event(copy));
        }
    }

    /// Writes down what becomes of a message, if its call is traced.
    pub(crate) fn note(&mut self, bytes: &[u8], what: &str) {
        let Some(call) = self.traced else { return };
        let Some(view) = View::of(bytes) else { return };
        if view.call == Some(call) {
            let branch = String::from_utf8_lossy(view.branch).into_owned();
            let (tag, message) = (String::from_utf8_lossy(view.to_tag), view.what());
            let line = format!("{message:<14} cseq {} {branch} tag={tag} {what}", view.cseq);
            self.note_text(line);
        }
    }

    pub(crate) fn note_text(&mut self, text: String) {
        if self.traced.is_some() {
            let seconds = self.now.since(Instant::ZERO).as_secs_f64() - 1000.0;
            self.trace.push(format!("{seconds:>10.3}  {text}"));
        }
    }
}
