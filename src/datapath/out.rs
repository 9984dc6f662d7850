//! Where packets go: the ports of one worker, and the handler's view of them.

use core::sync::atomic::AtomicBool;
use std::sync::Arc;

use super::hand_over::{Control, Mailbox, Shared};
use super::packet::{BufferCache, Memory, Origin, Packet};
use super::socket::Sockets;
use crate::limits::WORKERS_MAX;
use crate::metrics::WorkerMetrics;
use crate::net::{Flow, ListenerIndex, SocketAddr, WorkerIndex};
use crate::time::Instant;
use crate::verdict::DropReason;

/// Everything one worker receives from and sends to.
pub(super) struct Ports {
    pub(super) index: WorkerIndex,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) sockets: Sockets,
    pub(super) buffers: BufferCache,
    pub(super) shared: Arc<Shared>,
    /// Workers that were handed packets since the last flush, one bit each.
    to_wake: u64,
    /// Sockets that have packets queued, one bit each.
    queued: u32,
    /// Earliest deadline asked for by the handler.
    pub(super) wake_at: Option<Instant>,
}

const _: () = assert!(WORKERS_MAX <= 64);
const _: () = assert!(crate::limits::LISTENERS_MAX <= 32);

impl Ports {
    pub(super) fn new(
        index: WorkerIndex,
        metrics: Arc<WorkerMetrics>,
        sockets: Sockets,
        buffers: BufferCache,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            index,
            metrics,
            sockets,
            buffers,
            shared,
            to_wake: 0,
            queued: 0,
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
        match memory {
            Memory::Kernel(buffer) => self.buffers.release(buffer),
        }
    }

    /// Counts and frees a packet.
    #[inline]
    pub(super) fn drop(&mut self, packet: Packet, reason: DropReason) {
        (*self.metrics).drop(reason);
        self.release(packet.memory);
    }

    fn send(&mut self, packet: Packet) {
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
            buffers,
            ..
        } = self;
        sockets.flush(position, metrics, |memory| match memory {
            Memory::Kernel(buffer) => buffers.release(buffer),
        });
    }

    fn hand_over(&mut self, packet: Packet, worker: WorkerIndex) {
        match self.shared.mailbox(worker) {
            Some(mailbox) => match mailbox.push(packet) {
                Ok(()) => {
                    self.to_wake |= 1 << worker.0;
                    self.metrics.hand_over_out.increment();
                }
                Err(packet) => self.drop(packet, DropReason::HandOverFull),
            },
            None => self.drop(packet, DropReason::NotHandled),
        }
    }

    /// Sends everything queued and wakes the workers that were handed something.
    pub(super) fn flush(&mut self) {
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
        let mut buffer = self.0.buffers.allocate()?;
        buffer.set_received(0);
        self.0.metrics.originated.increment();
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        Some(Packet {
            flow: Flow {
                listener: ListenerIndex(0),
                local: unspecified,
                peer: unspecified,
            },
            memory: Memory::Kernel(buffer),
            origin: Origin::Own,
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

    /// Gives the packet to another worker, whose handler gets it with [`Origin::HandOver`]. Full
    /// ring: dropped and counted.
    #[inline]
    pub fn hand_over(&mut self, packet: Packet, worker: WorkerIndex) {
        self.0.hand_over(packet, worker);
    }

    /// Drops the packet, counted under `reason`.
    #[inline]
    pub fn drop(&mut self, packet: Packet, reason: DropReason) {
        self.0.drop(packet, reason);
    }

    /// Calls [`on_timer`](super::Handler::on_timer) no later than `deadline`.
    #[inline]
    pub fn wake_at(&mut self, deadline: Instant) {
        let wake_at = &mut self.0.wake_at;
        *wake_at = Some(wake_at.map_or(deadline, |earlier| earlier.min(deadline)));
    }
}
