//! Kernel UDP sockets, one per listener and worker.
//!
//! On the `socket` datapath they are the data path; beside XDP they receive what XDP passes
//! (fragments, long datagrams) and send what XDP cannot (over the MTU, unresolved neighbours).
//! Datagrams to be sent wait in a batch per socket, so that a batch costs one system call per
//! socket in each direction.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use arrayvec::ArrayVec;

use super::Batch;
use super::packet::{BufferCache, KernelBuffer, Memory, Origin, Packet};
use super::sim::Network;
use crate::limits::{BATCH, LISTENERS_MAX};
use crate::metrics::WorkerMetrics;
use crate::net::{Flow, ListenerIndex, SocketAddr};
use crate::sys::datagram::{ReceiveBatch, SendBatch};
use crate::verdict::DropReason;

/// Times a full socket is offered the same datagram again before it is dropped. Between two offers
/// the worker yields its core once.
const SEND_RETRIES: usize = 8;

/// How a socket reaches its network.
pub(super) enum Io {
    Kernel(OwnedFd),
    Sim(Network),
}

/// One socket.
struct Socket {
    listener: ListenerIndex,
    local: SocketAddr,
    io: Io,
    pending: ArrayVec<Packet, BATCH>,
}

/// The sockets of one worker.
pub(super) struct Sockets {
    sockets: Box<[Socket]>,
    /// Position of each listener's socket; [`NONE`] where there is none.
    positions: [u8; LISTENERS_MAX],
    receive: ReceiveBatch,
    send: SendBatch,
    /// Buffers for the next receive call.
    ready: ArrayVec<KernelBuffer, BATCH>,
    /// Longest whole datagram that XDP takes; 0 without XDP.
    leak_len_max: usize,
}

const NONE: u8 = u8::MAX;

impl Sockets {
    /// Sockets over opened descriptors; at most one per listener.
    pub(super) fn new(sockets: Vec<(ListenerIndex, SocketAddr, Io)>, leak_len_max: usize) -> Self {
        let mut positions = [NONE; LISTENERS_MAX];
        for (position, (listener, ..)) in (0..NONE).zip(&sockets) {
            if let Some(slot) = positions.get_mut(usize::from(listener.0)) {
                *slot = position;
            }
        }
        let sockets = sockets
            .into_iter()
            .map(|(listener, local, io)| Socket {
                listener,
                local,
                io,
                pending: ArrayVec::new(),
            })
            .collect();
        Self {
            sockets,
            positions,
            receive: ReceiveBatch::new(),
            send: SendBatch::new(),
            ready: ArrayVec::new(),
            leak_len_max,
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.sockets.len()
    }

    /// Their descriptors, for sleeping on.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().filter_map(|socket| match &socket.io {
            Io::Kernel(fd) => Some(fd.as_fd()),
            Io::Sim(_) => None,
        })
    }

    /// The listener and address of each.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (ListenerIndex, SocketAddr)> {
        self.sockets
            .iter()
            .map(|socket| (socket.listener, socket.local))
    }

    /// Position of the socket that sends from `flow.local`.
    #[inline]
    pub(super) fn position(&self, flow: &Flow) -> Option<usize> {
        let hint = self.positions.get(usize::from(flow.listener.0));
        let hint = hint.map_or(usize::from(NONE), |position| usize::from(*position));
        match self.sockets.get(hint) {
            Some(socket) if socket.local == flow.local => Some(hint),
            _ => self
                .sockets
                .iter()
                .position(|socket| socket.local == flow.local),
        }
    }

    /// Reads up to a batch from the socket at `position` into `batch`.
    pub(super) fn receive(
        &mut self,
        position: usize,
        buffers: &mut BufferCache,
        batch: &mut Batch,
        metrics: &WorkerMetrics,
    ) {
        let Self {
            sockets,
            receive,
            ready,
            leak_len_max,
            ..
        } = self;
        let Some(socket) = sockets.get_mut(position) else {
            return;
        };
        while !ready.is_full() {
            let Some(buffer) = buffers.allocate() else {
                break;
            };
            ready.push(buffer);
        }
        let areas = ready
            .iter_mut()
            .take(batch.remaining_capacity())
            .map(KernelBuffer::receive_area);
        let flow = |peer| Flow {
            listener: socket.listener,
            local: socket.local,
            peer,
        };
        match &socket.io {
            Io::Kernel(fd) => {
                // An error here belongs to no datagram (ICMP errors are off); the next call goes
                // on. ENOMEM is the one seen in practice.
                let count = receive.receive(fd, areas).unwrap_or(0);
                metrics.kernel_in.add(count as u64);
                for (mut buffer, received) in ready.drain(..count).zip(receive.received()) {
                    let Some(peer) = received.source.filter(|_| !received.truncated) else {
                        metrics.drop(DropReason::Truncated);
                        buffers.release(buffer);
                        continue;
                    };
                    if !received.fragmented && received.len < *leak_len_max {
                        metrics.kernel_leak.increment();
                    }
                    buffer.set_received(received.len);
                    batch.push(Packet {
                        flow: flow(peer),
                        memory: Memory::Kernel(buffer),
                        origin: Origin::Kernel,
                        ingress: 0,
                    });
                }
            }
            Io::Sim(network) => {
                let mut received = ArrayVec::<(SocketAddr, usize), BATCH>::new();
                network.receive(socket.listener, areas, |peer, len| {
                    received.push((peer, len));
                });
                metrics.kernel_in.add(received.len() as u64);
                for (mut buffer, (peer, len)) in ready.drain(..received.len()).zip(received) {
                    buffer.set_received(len);
                    batch.push(Packet {
                        flow: flow(peer),
                        memory: Memory::Kernel(buffer),
                        origin: Origin::Kernel,
                        ingress: 0,
                    });
                }
            }
        }
    }

    /// Queues `packet` on the socket at `position`. Gives it back if its batch is full: flush first.
    #[inline]
    pub(super) fn queue(&mut self, position: usize, packet: Packet) -> Result<(), Packet> {
        match self.sockets.get_mut(position) {
            Some(socket) => socket
                .pending
                .try_push(packet)
                .map_err(|full| full.element()),
            None => Err(packet),
        }
    }

    /// Sends what is queued on the socket at `position` and passes each packet's memory to
    /// `release`. What the kernel refuses is dropped and counted.
    pub(super) fn flush(
        &mut self,
        position: usize,
        metrics: &WorkerMetrics,
        mut release: impl FnMut(Memory),
    ) {
        let Some(socket) = self.sockets.get_mut(position) else {
            return;
        };
        let Socket {
            io,
            pending,
            listener,
            ..
        } = socket;
        let mut rest = pending.as_slice();
        let mut retries = SEND_RETRIES;
        while let Some(after_first) = rest.get(1..) {
            let messages = rest
                .iter()
                .map(|packet| (packet.payload(), packet.flow.peer));
            let result = match io {
                Io::Kernel(fd) => self.send.send(fd, messages),
                Io::Sim(network) => network.send(*listener, messages),
            };
            match result {
                Ok(count) => {
                    let sent = count.min(rest.len());
                    metrics.kernel_out.add(sent as u64);
                    metrics.listener(*listener).messages_out.add(sent as u64);
                    rest = rest.get(sent..).unwrap_or_default();
                    retries = SEND_RETRIES;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && retries > 0 => {
                    retries -= 1;
                    std::thread::yield_now();
                }
                Err(_) => {
                    metrics.drop(DropReason::KernelSend);
                    rest = after_first;
                }
            }
        }
        for packet in pending.drain(..) {
            release(packet.memory);
        }
    }

    /// Gives the buffers kept for receiving back.
    pub(super) fn close(&mut self, buffers: &mut BufferCache) {
        for buffer in self.ready.drain(..) {
            buffers.release(buffer);
        }
    }
}
