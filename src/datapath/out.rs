//! Where packets go: the ports of one worker, and the handler's view of them.

use core::sync::atomic::AtomicBool;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use crossbeam::queue::ArrayQueue;

use super::egress::{EgressTable, Resolution};
use super::hand_over::{Control, Mailbox, Shared};
use super::link::{Links, UNSPECIFIED};
use super::packet::{BufferCache, Memory, Origin, Packet};
use super::socket::Sockets;
use crate::limits::WORKERS_MAX;
use crate::metrics::WorkerMetrics;
use crate::net::{Flow, IpAddr, ListenerIndex, WorkerIndex};
use crate::time::Instant;
use crate::verdict::DropReason;

/// Everything one worker receives from and sends to.
pub(super) struct Ports {
    pub(super) index: WorkerIndex,
    pub(super) metrics: Arc<WorkerMetrics>,
    /// `None` on the socket datapath.
    pub(super) links: Option<Links>,
    egress: EgressCache,
    wanted: Option<Arc<ArrayQueue<IpAddr>>>,
    pub(super) sockets: Sockets,
    pub(super) buffers: BufferCache,
    /// Packets are frames as received, see [`Handler::RAW`](super::Handler::RAW).
    pub(super) raw: bool,
    pub(super) shared: Arc<Shared>,
    /// Workers that were handed packets since the last flush, one bit each.
    to_wake: u64,
    /// Sockets that have packets queued, one bit each.
    queued: u32,
    pub(super) pressure: Pressure,
    /// Earliest deadline asked for by the handler.
    pub(super) wake_at: Option<Instant>,
}

const _: () = assert!(WORKERS_MAX <= 64);
const _: () = assert!(crate::limits::LISTENERS_MAX <= 32);

/// How full the queues are that this worker reads, in percent, as it last left them. A queue that
/// gave less than a batch is empty, so that nobody is asked while there is little to do.
#[derive(Clone, Copy, Default)]
pub(super) struct Pressure {
    pub(super) links: u8,
    pub(super) mailbox: u8,
    pub(super) sockets: u8,
}

/// Percent of `capacity` that `len` is.
#[inline]
pub(super) fn percent(len: usize, capacity: usize) -> u8 {
    let percent = (100 * len).checked_div(capacity).unwrap_or(0);
    u8::try_from(percent.min(100)).unwrap_or(100)
}

/// The egress table as this worker last saw it.
type EgressCache = Cache<Arc<ArcSwap<EgressTable>>, Arc<EgressTable>>;

/// What [`Ports`] are made of.
pub(super) struct Parts {
    pub(super) index: WorkerIndex,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) links: Option<Links>,
    pub(super) egress: Arc<ArcSwap<EgressTable>>,
    pub(super) wanted: Option<Arc<ArrayQueue<IpAddr>>>,
    pub(super) sockets: Sockets,
    pub(super) buffers: BufferCache,
    pub(super) shared: Arc<Shared>,
}

impl Ports {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            index: parts.index,
            metrics: parts.metrics,
            links: parts.links,
            egress: Cache::new(parts.egress),
            wanted: parts.wanted,
            sockets: parts.sockets,
            buffers: parts.buffers,
            shared: parts.shared,
            raw: false,
            to_wake: 0,
            queued: 0,
            pressure: Pressure::default(),
            wake_at: None,
        }
    }

    /// This worker's mailbox.
    pub(super) fn mailbox(&self) -> Option<&Mailbox> {
        self.shared.mailbox(self.index)
    }

    pub(super) fn stopping(&self) -> &AtomicBool {
        &self.shared.stopping
    }

    /// Frees the memory of a packet.
    #[inline]
    pub(super) fn release(&mut self, memory: Memory) {
        release(memory, self.links.as_mut(), &mut self.buffers);
    }

    /// Counts and frees a packet.
    #[inline]
    pub(super) fn drop(&mut self, packet: Packet, reason: DropReason) {
        (*self.metrics).drop(reason);
        self.release(packet.memory);
    }

    #[inline]
    fn send(&mut self, packet: Packet) {
        let Packet { flow, memory, .. } = packet;
        let memory = match (memory, &mut self.links) {
            (Memory::Frame(frame), Some(links)) => {
                if self.raw {
                    links.queue(usize::from(packet.ingress), frame, &self.metrics);
                    return;
                }
                match self.egress.load().resolve(flow.local.ip(), flow.peer) {
                    Resolution::Link(way) => match links.send(frame, &flow, &way, &self.metrics) {
                        Ok(()) => return,
                        Err(frame) => Memory::Frame(frame),
                    },
                    Resolution::Unresolved { .. } => {
                        if let Some(wanted) = &self.wanted {
                            let _ = wanted.push(flow.peer.ip());
                        }
                        Memory::Frame(frame)
                    }
                    // The kernel knows the way, or why there is none.
                    Resolution::Kernel | Resolution::Local | Resolution::NoRoute => {
                        Memory::Frame(frame)
                    }
                }
            }
            (memory, _) => memory,
        };
        self.send_by_kernel(Packet { memory, ..packet });
    }

    fn send_by_kernel(&mut self, packet: Packet) {
        let Some(position) = self.sockets.position(&packet.flow) else {
            self.drop(packet, DropReason::NoEgress);
            return;
        };
        self.queued |= 1 << position;
        if let Err(packet) = self.sockets.queue(position, packet) {
            self.flush_socket(position);
            if let Err(packet) = self.sockets.queue(position, packet) {
                self.drop(packet, DropReason::NoEgress);
            }
        }
    }

    fn flush_socket(&mut self, position: usize) {
        let Self {
            sockets,
            metrics,
            links,
            buffers,
            ..
        } = self;
        sockets.flush(position, metrics, |memory| {
            release(memory, links.as_mut(), buffers);
        });
    }

    fn hand_over(&mut self, mut packet: Packet, worker: WorkerIndex) -> Result<(), DropReason> {
        packet.hops = packet.hops.saturating_add(1);
        let (packet, reason) = match self.shared.mailbox(worker) {
            Some(mailbox) => match mailbox.push(packet) {
                Ok(()) => {
                    self.to_wake |= 1 << worker.0;
                    self.metrics.hand_over_out.increment();
                    return Ok(());
                }
                Err(packet) => (packet, DropReason::HandOverFull),
            },
            None => (packet, DropReason::NotHandled),
        };
        self.drop(packet, reason);
        Err(reason)
    }

    /// Memory for a datagram of our own.
    fn allocate(&mut self) -> Option<Memory> {
        if let Some(frame) = self.links.as_mut().and_then(Links::allocate) {
            return Some(Memory::Frame(frame));
        }
        let mut buffer = self.buffers.allocate()?;
        buffer.set_received(0);
        Some(Memory::Kernel(buffer))
    }

    /// Sends everything queued and wakes the workers that were handed something.
    pub(super) fn flush(&mut self) {
        if let Some(links) = &mut self.links {
            links.flush(&self.metrics);
        }
        while self.queued != 0 {
            let position = self.queued.trailing_zeros() as usize;
            self.queued &= self.queued - 1;
            self.flush_socket(position);
        }
        while self.to_wake != 0 {
            let worker = self.to_wake.trailing_zeros() as usize;
            self.to_wake &= self.to_wake - 1;
            if let Some(mailbox) = self.shared.mailboxes.get(worker) {
                mailbox.wake();
            }
        }
    }
}

/// Gives memory back to where it came from.
#[inline]
fn release(memory: Memory, links: Option<&mut Links>, buffers: &mut BufferCache) {
    match memory {
        Memory::Frame(frame) => {
            // Without links there are no frames; a dropped one would go home by itself.
            if let Some(links) = links {
                links.release(frame);
            }
        }
        Memory::Kernel(buffer) => buffers.release(buffer),
    }
}

/// What a [`Handler`](super::Handler) does with packets.
///
/// Packets are queued and leave in batches, before the worker looks for new ones.
pub struct Out<'a>(pub(super) &'a mut Ports);

impl Out<'_> {
    /// The worker this handler runs on.
    pub fn worker(&self) -> WorkerIndex {
        self.0.index
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.0.shared.mailboxes.len()
    }

    /// The counters of this worker.
    pub fn metrics(&self) -> &WorkerMetrics {
        &self.0.metrics
    }

    /// A handle to stop or wake all workers.
    pub fn control(&self) -> Control {
        Control(self.0.shared.clone())
    }

    /// An empty packet to compose a datagram in, with headroom; `None` when there is no memory
    /// (not counted: nothing was lost yet). Counted as originated.
    pub fn allocate(&mut self) -> Option<Packet> {
        let memory = self.0.allocate()?;
        self.0.metrics.originated.increment();
        Some(Packet {
            flow: Flow {
                listener: ListenerIndex(0),
                local: UNSPECIFIED,
                peer: UNSPECIFIED,
            },
            memory,
            origin: Origin::Own,
            ingress: 0,
            hops: 0,
        })
    }

    /// Sends the payload from `flow.local` to `flow.peer`.
    ///
    /// Through the TX ring of the interface that leads there if the peer's link address is known
    /// and the packet fits the MTU; else through the kernel socket bound to `flow.local`, which
    /// resolves and fragments. What cannot be sent is dropped and counted.
    #[inline]
    pub fn send(&mut self, packet: Packet) {
        self.0.send(packet);
    }

    /// Gives the packet to another worker, whose handler gets it with [`Origin::HandOver`], or with
    /// [`Origin::Unreachable`] if it had that. Full ring: dropped and counted.
    #[inline]
    pub fn hand_over(&mut self, packet: Packet, worker: WorkerIndex) {
        let _counted = self.0.hand_over(packet, worker);
    }

    /// As [`hand_over`](Self::hand_over), for whoever keeps a record of what became of it.
    ///
    /// # Errors
    /// Why the packet was dropped; it has been counted.
    #[inline]
    pub fn try_hand_over(&mut self, packet: Packet, worker: WorkerIndex) -> Result<(), DropReason> {
        self.0.hand_over(packet, worker)
    }

    /// Frees a packet that was for us.
    #[inline]
    pub fn absorb(&mut self, packet: Packet) {
        self.0.metrics.absorbed.increment();
        self.0.release(packet.memory);
    }

    /// Drops the packet, counted under `reason`.
    #[inline]
    pub fn drop(&mut self, packet: Packet, reason: DropReason) {
        self.0.drop(packet, reason);
    }

    /// How full the fullest of this worker's queues is, in percent: RX rings, the hand-over ring and
    /// receive buffers of kernel sockets. What comes when it is at 100 is lost.
    #[inline]
    pub fn pressure(&self) -> u8 {
        let Pressure {
            links,
            mailbox,
            sockets,
        } = self.0.pressure;
        links.max(mailbox).max(sockets)
    }

    /// Calls [`on_timer`](super::Handler::on_timer) no later than `deadline`.
    #[inline]
    pub fn wake_at(&mut self, deadline: Instant) {
        let wake_at = &mut self.0.wake_at;
        *wake_at = Some(wake_at.map_or(deadline, |earlier| earlier.min(deadline)));
    }
}
