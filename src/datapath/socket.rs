//! Kernel UDP sockets, one per listener and worker.
//!
//! On the `socket` datapath they are the data path; beside XDP they receive what XDP passes
//! (fragments, long datagrams) and send what XDP cannot (over the MTU, unresolved neighbours).
//! Datagrams to be sent wait in a batch per socket, so that a batch costs one system call per
//! socket in each direction.
//!
//! What did not arrive comes back here too: ICMP errors from a socket's error queue, with the quoted
//! part of our datagram, and datagrams that the kernel refuses to send because it knows of no way.
//! An error that waits makes the next call on its socket fail once, whatever that call is about; so
//! a call that fails is repeated before its failure is believed, and the queue is read.

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
use crate::sys::error_queue::{self, Cause};
use crate::sys::meminfo;
use crate::verdict::DropReason;

/// Times a full socket is offered the same datagram again before it is dropped. Between two offers
/// the worker yields its core once.
const SEND_RETRIES: usize = 8;

/// Times a call is repeated that may have failed for an earlier datagram's ICMP error. Once is
/// enough, unless another error comes in between: under a flood of them.
const ERROR_RETRIES: usize = 3;

/// Reports read from a socket's error queue in one look, those nobody wants included.
pub(super) const REPORTS_PER_LOOK: usize = BATCH;

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
    /// Reports may wait on its error queue.
    reports: bool,
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
    /// What the kernel would not send, because nobody can be reached there.
    refused: ArrayVec<Packet, BATCH>,
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
                reports: false,
            })
            .collect();
        Self {
            sockets,
            positions,
            receive: ReceiveBatch::new(),
            send: SendBatch::new(),
            ready: ArrayVec::new(),
            refused: ArrayVec::new(),
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

    /// The listener of each that the kernel has, and its descriptor.
    pub(super) fn kernel_sockets(&self) -> impl Iterator<Item = (ListenerIndex, BorrowedFd<'_>)> {
        self.sockets.iter().filter_map(|socket| match &socket.io {
            Io::Kernel(fd) => Some((socket.listener, fd.as_fd())),
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

    /// How full the receive buffer of the socket at `position` is, in percent.
    pub(super) fn fill(&self, position: usize) -> u8 {
        match self.sockets.get(position).map(|socket| &socket.io) {
            Some(Io::Kernel(fd)) => meminfo::receive_fill(fd).unwrap_or(0),
            Some(Io::Sim(_)) | None => 0,
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
        let room = batch.remaining_capacity();
        let flow = |peer| Flow {
            listener: socket.listener,
            local: socket.local,
            peer,
        };
        match &socket.io {
            Io::Kernel(fd) => {
                // An error here belongs to no received datagram: an ICMP error of a sent one, and
                // ENOMEM seen in practice.
                let mut retries = ERROR_RETRIES;
                let count = loop {
                    let areas = ready.iter_mut().take(room).map(KernelBuffer::receive_area);
                    match receive.receive(fd, areas) {
                        Ok(count) => break count,
                        Err(_) => socket.reports = true,
                    }
                    if retries == 0 {
                        break 0;
                    }
                    retries -= 1;
                };
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
                        hops: 0,
                    });
                }
            }
            Io::Sim(network) => {
                let areas = ready.iter_mut().take(room).map(KernelBuffer::receive_area);
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
                        hops: 0,
                    });
                }
            }
        }
    }

    /// Whether something that was refused waits to be taken.
    #[inline]
    pub(super) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Takes what the kernel would not send.
    pub(super) fn take_refused(&mut self) -> Option<Packet> {
        self.refused.pop()
    }

    /// Has every error queue looked at next time, whether a call failed or not.
    pub(super) fn expect_reports(&mut self) {
        for socket in &mut self.sockets {
            socket.reports = matches!(socket.io, Io::Kernel(_));
        }
    }

    /// The next datagram of ours that somebody reports as undelivered to the socket at `position`:
    /// the part that is quoted, from us to where it went. Reports that say nothing of a failure are
    /// counted and skipped. At most [`REPORTS_PER_LOOK`] are read until `budget` is set anew.
    pub(super) fn take_report(
        &mut self,
        position: usize,
        budget: &mut usize,
        buffers: &mut BufferCache,
        metrics: &WorkerMetrics,
    ) -> Option<Packet> {
        let socket = self.sockets.get_mut(position)?;
        let Io::Kernel(fd) = &socket.io else {
            return None;
        };
        while socket.reports && *budget > 0 {
            *budget -= 1;
            let mut buffer = buffers.allocate()?;
            let report = error_queue::read(fd, buffer.receive_area());
            let Ok(Some(report)) = report else {
                socket.reports = false;
                buffers.release(buffer);
                return None;
            };
            let Some(peer) = report.destination.filter(|_| is_failure(report.cause)) else {
                metrics.icmp.ignored.increment();
                buffers.release(buffer);
                continue;
            };
            metrics.icmp.unreachable.increment();
            metrics.kernel_in.increment();
            buffer.set_received(report.len);
            return Some(Packet {
                flow: Flow {
                    listener: socket.listener,
                    local: socket.local,
                    peer,
                },
                memory: Memory::Kernel(buffer),
                origin: Origin::Unreachable,
                ingress: 0,
                hops: 0,
            });
        }
        None
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
    /// `release`. What the kernel refuses is dropped and counted, but what it has no way for waits
    /// to be [taken](Self::take_refused).
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
            reports,
            ..
        } = socket;
        let refused = &mut self.refused;
        let mut rest = pending.as_slice();
        let mut retries = SEND_RETRIES;
        let mut error_retries = ERROR_RETRIES;
        // Positions of those without a way, one bit each.
        let mut no_way = 0_u64;
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
                    // The rest was stopped by an error that this call has taken off the socket.
                    *reports |= sent < rest.len();
                    metrics.kernel_out.add(sent as u64);
                    metrics.listener(*listener).messages_out.add(sent as u64);
                    rest = rest.get(sent..).unwrap_or_default();
                    retries = SEND_RETRIES;
                    error_retries = ERROR_RETRIES;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && retries > 0 => {
                    retries -= 1;
                    std::thread::yield_now();
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock && error_retries > 0 => {
                    *reports = true;
                    error_retries -= 1;
                }
                Err(error) => {
                    let is_room = (no_way.count_ones() as usize) < refused.remaining_capacity();
                    if is_no_way(error.kind()) && is_room {
                        no_way |= 1 << (pending.len() - rest.len());
                    } else {
                        metrics.drop(DropReason::KernelSend);
                    }
                    rest = after_first;
                    error_retries = ERROR_RETRIES;
                }
            }
        }
        for (position, mut packet) in pending.drain(..).enumerate() {
            if no_way & (1 << position) == 0 {
                release(packet.memory);
                continue;
            }
            packet.origin = Origin::Unreachable;
            packet.hops = 0;
            // There is room: it was counted.
            let _ = refused.try_push(packet);
        }
    }

    /// Gives the buffers kept for receiving back. What was refused must have been taken.
    pub(super) fn close(&mut self, buffers: &mut BufferCache) {
        for buffer in self.ready.drain(..) {
            buffers.release(buffer);
        }
    }
}

const _: () = assert!(BATCH <= 64);

/// Whether a report says that a datagram did not arrive.
///
/// RFC 3261 §18.4: host, network, port and protocol unreachable and parameter problem are a failure in
/// sending; source quench and TTL exceeded are ignored. Type 3 of RFC 792 is all of the former, with
/// the codes that RFC 1122 §3.2.2.1 and RFC 1812 §5.2.7.1 add to it; its code 4 asks for fragments,
/// and so does type 2 of RFC 4443, whose type 1 is the unreachable one.
fn is_failure(cause: Cause) -> bool {
    match cause {
        Cause::Icmp { kind: 3, code } => code != 4,
        Cause::Icmp { kind: 12, .. } | Cause::Icmp6 { kind: 1 | 4, .. } => true,
        Cause::Icmp { .. } | Cause::Icmp6 { .. } | Cause::Other => false,
    }
}

/// Whether a refusal to send says that nobody can be reached there.
fn is_no_way(error: io::ErrorKind) -> bool {
    matches!(
        error,
        io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3261 §18.4.
    #[test]
    fn reports_of_a_failure_in_sending_are_told_from_others() {
        let icmp = |kind, code| is_failure(Cause::Icmp { kind, code });
        let icmp6 = |kind, code| is_failure(Cause::Icmp6 { kind, code });
        for code in [0, 1, 2, 3, 5, 6, 7, 9, 10, 13] {
            assert!(icmp(3, code), "{code}");
        }
        assert!(icmp(12, 0));
        assert!(!icmp(3, 4) && !icmp(4, 0) && !icmp(11, 0) && !icmp(11, 1) && !icmp(5, 1));
        for code in 0..=6 {
            assert!(icmp6(1, code), "{code}");
        }
        assert!(icmp6(4, 1));
        assert!(!icmp6(2, 0) && !icmp6(3, 0));
        assert!(!is_failure(Cause::Other));
    }
}
