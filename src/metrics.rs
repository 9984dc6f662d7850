//! Counters of the data path: plain memory that one worker writes and anybody reads.
//!
//! A [`Counter`] has one writer, so adding is a relaxed load and a relaxed store, no locked
//! instruction. Readers (the Prometheus page, the report) sum over workers.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{LISTENERS_MAX, SERVERS_MAX};
use crate::net::{ListenerIndex, ServerIndex};
use crate::verdict::DropReason;

/// A monotonic count with a single writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the owning thread may call it; two writers would lose counts, no more.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    /// Adds one.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Overwrites the value: for gauges that mirror a kernel statistic.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Labels of the request methods counted, in the order of `sip::Method`. The last is for all others.
pub const METHODS: [&str; 15] = [
    "ACK",
    "BYE",
    "CANCEL",
    "INFO",
    "INVITE",
    "MESSAGE",
    "NOTIFY",
    "OPTIONS",
    "PRACK",
    "PUBLISH",
    "REFER",
    "REGISTER",
    "SUBSCRIBE",
    "UPDATE",
    "other",
];

/// Labels of the status classes counted.
pub const STATUS_CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "6xx"];

/// Status codes of our own answers that have a counter each; the last is for all others.
pub const ANSWERS: [u16; 21] = [
    100, 199, 200, 400, 403, 404, 408, 416, 420, 421, 440, 480, 482, 483, 487, 500, 501, 503, 505,
    513, 0,
];

/// Counters of one worker.
#[derive(Debug)]
pub struct WorkerMetrics {
    /// Frames received through AF_XDP.
    pub xdp_in: Counter,
    /// Frames handed to a TX ring.
    pub xdp_out: Counter,
    /// Datagrams received by a kernel socket, own ones that came back as unreachable included.
    pub kernel_in: Counter,
    /// Datagrams sent by a kernel socket.
    pub kernel_out: Counter,
    /// Datagrams on a kernel socket that XDP should have taken: whole and short enough.
    pub kernel_leak: Counter,
    /// Messages taken from the hand-over ring.
    pub hand_over_in: Counter,
    /// Messages put on another worker's hand-over ring.
    pub hand_over_out: Counter,
    /// Messages composed by the worker itself, not answers written into a received one.
    pub originated: Counter,
    /// Messages that were for us: retransmissions that a transaction answered, ACKs of its answers,
    /// responses to requests of our own.
    pub absorbed: Counter,
    /// Drops by reason, indexed by `DropReason as usize`.
    pub drops: [Counter; DropReason::COUNT],
    /// Requests received by method, see [`METHODS`].
    pub requests: [Counter; METHODS.len()],
    /// Responses received by class, see [`STATUS_CLASSES`].
    pub responses: [Counter; STATUS_CLASSES.len()],
    /// Answers of our own by status code, see [`ANSWERS`].
    pub answers: [Counter; ANSWERS.len()],
    /// Requests handled with a transaction.
    pub transactions: TransactionMetrics,
    /// What was refused under overload.
    pub overload: OverloadMetrics,
    /// STUN Binding requests answered, errors included.
    pub stun_answers: Counter,
    /// Messages that left the in-place path ("punt"): same worker, ordinary code.
    pub punted: Counter,
    /// Pins made, and pins pushed out of a full bucket.
    pub pins_made: Counter,
    /// Pins pushed out by newer ones.
    pub pins_evicted: Counter,
    /// Clients that have moved in the middle of a dialog.
    pub flows_moved: Counter,
    /// Moved clients forgotten because newer ones needed the place.
    pub flows_evicted: Counter,
    /// `sendto` calls on AF_XDP sockets, and how many said "call again".
    pub tx_kicks: Counter,
    /// Kicks answered with EAGAIN, EBUSY or ENOBUFS.
    pub tx_kicks_again: Counter,
    /// Kicks that reported a frame dropped by the device (EBUSY); it counts as sent.
    pub tx_device_drops: Counter,
    /// What the kernel counts for this worker's AF_XDP sockets.
    pub xsk: XskMetrics,
    /// Times the worker went to sleep in `poll`.
    pub sleeps: Counter,
    /// Snapshots of the configuration picked up.
    pub snapshots: Counter,
    /// ICMP errors for datagrams of ours.
    pub icmp: IcmpMetrics,
    /// By listener.
    pub listeners: Box<[ListenerMetrics]>,
    /// By server slot.
    pub servers: Box<[ServerMetrics]>,
}

/// Transactions of one worker.
#[derive(Debug, Default)]
pub struct TransactionMetrics {
    /// Begun.
    pub opened: Counter,
    /// Over; what is begun and not over is open.
    pub closed: Counter,
    /// Requests refused because there was no room for their transaction.
    pub refused: Counter,
    /// Requests that were a retransmission of one with a transaction.
    pub repeated: Counter,
    /// Messages sent again because nothing came back.
    pub retransmitted: Counter,
    /// Requests sent to another server, since one was silent, unreachable or refused.
    pub hunted: Counter,
    /// CANCELs of our own.
    pub cancelled: Counter,
    /// Requests that no server answered in time.
    pub timed_out: Counter,
    /// Calls whose lease ran out: their BYE was not seen.
    pub calls_expired: Counter,
    /// Calls that are not counted any more because newer ones needed their place.
    pub calls_evicted: Counter,
}

/// Counters of requests refused because the worker is overloaded.
#[derive(Debug, Default)]
pub struct OverloadMetrics {
    /// INVITEs that would have begun a call.
    pub calls: Counter,
    /// Other requests that would have begun something.
    pub others: Counter,
    /// New requests refused because their server asks for less (RFC 7339).
    pub throttled: Counter,
    /// New requests that went to another server because theirs asks for less.
    pub diverted: Counter,
    /// Thousandths of new calls with a transaction that are refused now.
    pub level: Counter,
}

/// Mirror of `XDP_STATISTICS`, summed over a worker's AF_XDP sockets; at most a second old.
#[derive(Debug, Default)]
pub struct XskMetrics {
    /// Frames dropped for a reason that has no count of its own, as being too long.
    pub rx_dropped: Counter,
    /// Frames dropped because the RX ring was full.
    pub rx_ring_full: Counter,
    /// Frames dropped because the fill ring was empty.
    pub fill_ring_empty: Counter,
    /// Entries of a fill ring that were no address of a chunk.
    pub rx_invalid: Counter,
    /// Entries of a TX ring that could not be sent.
    pub tx_invalid: Counter,
}

/// ICMP errors for datagrams sent from a listener's address.
#[derive(Debug, Default)]
pub struct IcmpMetrics {
    /// Those that say it did not arrive; each is a datagram in `kernel_in`, too.
    pub unreachable: Counter,
    /// All others, as TTL exceeded (RFC 3261 §18.4).
    pub ignored: Counter,
}

/// Counters of one listener on one worker.
#[derive(Debug, Default)]
pub struct ListenerMetrics {
    /// Messages received.
    pub messages_in: Counter,
    /// Messages sent.
    pub messages_out: Counter,
}

/// Counters of one server on one worker.
#[derive(Debug, Default)]
pub struct ServerMetrics {
    /// Requests sent to the server.
    pub requests_out: Counter,
    /// Requests sent to it because the table chose it: no token, no pin.
    pub selected: Counter,
    /// Requests received from it.
    pub requests_in: Counter,
    /// Requests sent to it that came back as unreachable, as a verified ICMP error says or the kernel.
    pub unreachable: Counter,
    /// Responses received from it by class.
    pub responses: [Counter; STATUS_CLASSES.len()],
}

/// What health checks count, by server slot. One writer: the monitor.
#[derive(Debug)]
pub struct HealthMetrics {
    servers: Box<[ServerHealthMetrics]>,
}

/// What health checks count of one server.
#[derive(Debug, Default)]
pub struct ServerHealthMetrics {
    /// Probes with an accepted answer.
    pub probes_accepted: Counter,
    /// Probes with no accepted answer in their time.
    pub probes_failed: Counter,
    /// Changes of health by what it became, see [`HEALTHS`].
    pub transitions: [Counter; HEALTHS.len()],
    /// Times that traffic took the server out by cause, see [`EJECTION_CAUSES`].
    pub ejections: [Counter; EJECTION_CAUSES.len()],
}

/// Labels of what becomes of a server, in the order of `route::Health`.
pub const HEALTHS: [&str; 3] = ["active", "probing", "down"];

/// Labels of what in its traffic takes a server out.
pub const EJECTION_CAUSES: [&str; 4] = ["unreachable", "silent", "errors", "retry_after"];

impl HealthMetrics {
    /// All zero.
    pub fn new() -> Self {
        Self {
            servers: (0..SERVERS_MAX)
                .map(|_| ServerHealthMetrics::default())
                .collect(),
        }
    }

    /// Counters of a server.
    #[inline]
    pub fn server(&self, index: ServerIndex) -> &ServerHealthMetrics {
        &self.servers[usize::from(index.0) % SERVERS_MAX]
    }
}

impl Default for HealthMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerHealthMetrics {
    /// Counts a change of health, by the number of what it became.
    pub fn transition(&self, to: usize) {
        self.transitions[to % HEALTHS.len()].increment();
    }

    /// Counts that traffic took the server out, by the number of the cause.
    pub fn ejection(&self, cause: usize) {
        self.ejections[cause % EJECTION_CAUSES.len()].increment();
    }
}

impl WorkerMetrics {
    /// All zero.
    pub fn new() -> Self {
        fn zeros<const N: usize>() -> [Counter; N] {
            core::array::from_fn(|_| Counter::default())
        }
        Self {
            xdp_in: Counter::default(),
            xdp_out: Counter::default(),
            kernel_in: Counter::default(),
            kernel_out: Counter::default(),
            kernel_leak: Counter::default(),
            hand_over_in: Counter::default(),
            hand_over_out: Counter::default(),
            originated: Counter::default(),
            absorbed: Counter::default(),
            drops: zeros(),
            requests: zeros(),
            responses: zeros(),
            answers: zeros(),
            transactions: TransactionMetrics::default(),
            overload: OverloadMetrics::default(),
            stun_answers: Counter::default(),
            punted: Counter::default(),
            pins_made: Counter::default(),
            pins_evicted: Counter::default(),
            flows_moved: Counter::default(),
            flows_evicted: Counter::default(),
            tx_kicks: Counter::default(),
            tx_kicks_again: Counter::default(),
            tx_device_drops: Counter::default(),
            xsk: XskMetrics::default(),
            sleeps: Counter::default(),
            snapshots: Counter::default(),
            icmp: IcmpMetrics::default(),
            listeners: (0..LISTENERS_MAX)
                .map(|_| ListenerMetrics::default())
                .collect(),
            servers: (0..SERVERS_MAX).map(|_| ServerMetrics::default()).collect(),
        }
    }

    /// Counts a drop.
    #[inline]
    pub fn drop(&self, reason: DropReason) {
        self.drops[reason as usize].increment();
    }

    /// Counters of a listener.
    #[inline]
    pub fn listener(&self, index: ListenerIndex) -> &ListenerMetrics {
        &self.listeners[usize::from(index.0) % LISTENERS_MAX]
    }

    /// Counters of a server.
    #[inline]
    pub fn server(&self, index: ServerIndex) -> &ServerMetrics {
        &self.servers[usize::from(index.0) % SERVERS_MAX]
    }

    /// Counts an answer of our own.
    pub fn answer(&self, status: u16) {
        let index = ANSWERS
            .iter()
            .position(|code| *code == status)
            .unwrap_or(ANSWERS.len() - 1);
        self.answers[index].increment();
    }

    /// Frames and datagrams received.
    pub fn received(&self) -> u64 {
        self.xdp_in.value() + self.kernel_in.value()
    }

    /// Frames and datagrams sent.
    pub fn sent(&self) -> u64 {
        self.xdp_out.value() + self.kernel_out.value()
    }

    /// All drops.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().map(Counter::value).sum()
    }
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        Self::new()
    }
}
