//! The generator's sockets: one per source address and port, read and written in batches.
//!
//! Messages are written into one arena and leave with the next [`Sender::flush`], one `sendmmsg`
//! per socket that has any. Knows nothing of SIP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::event::{Timespec, epoll};

use super::transport::{AddressIndex, Losses};
use crate::limits::{BATCH, DATAGRAM_LEN_MAX};
use crate::sys::datagram::{self, ReceiveBatch, SendBatch, SocketOptions};
use crate::sys::meminfo;
use crate::time::Duration;

/// Sockets of one process: descriptors, and as many tables of the kernel.
pub(super) const SOCKETS_MAX: usize = 16_384;

/// Bytes waiting in one socket's buffer. 10,000 calls a second are 30,000 datagrams in each direction,
/// 1,280 bytes and more of kernel memory each; this bridges a pause of 200 ms without privileges
/// and of 400 ms with them (the kernel doubles the number, and caps it at `rmem_max` otherwise).
const SOCKET_BUFFER_LEN: usize = 8 << 20;

/// Batches read from one socket before the others and the timers have their turn.
const BATCHES_MAX: usize = 16;

/// Times a full send buffer is waited for before a message counts as not sent.
const SEND_RETRIES: u32 = 50;

/// All sockets, shared by the two halves.
#[derive(Debug)]
pub(super) struct Sockets {
    sockets: Vec<OwnedFd>,
    addresses: Vec<SocketAddr>,
}

/// A socket that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("no UDP socket on {address}: {error}{}", hint(.error))]
pub struct BindError {
    address: SocketAddr,
    error: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => "; add the address to an interface first",
        io::ErrorKind::AddrInUse => "; another socket has it",
        _ => "",
    }
}

impl Sockets {
    /// Opens a socket on each address; port 0 takes any free one.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub(super) fn bind(wanted: &[SocketAddr]) -> Result<Self, BindError> {
        let options = SocketOptions {
            reuse_port: false,
            freebind: false,
            receive_buffer_len: SOCKET_BUFFER_LEN,
            send_buffer_len: SOCKET_BUFFER_LEN,
        };
        let mut all = Self {
            sockets: Vec::with_capacity(wanted.len()),
            addresses: Vec::with_capacity(wanted.len()),
        };
        for &address in wanted.iter().take(SOCKETS_MAX) {
            let fail = |error| BindError { address, error };
            let socket = datagram::open(address, &options).map_err(fail)?;
            let bound = rustix::net::getsockname(&socket)
                .and_then(SocketAddr::try_from)
                .map_err(|errno| fail(errno.into()))?;
            all.sockets.push(socket);
            all.addresses.push(bound);
        }
        Ok(all)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.sockets.len()
    }

    /// Datagrams that found a receive buffer full.
    pub(super) fn receive_drops(&self) -> u64 {
        let drops = self.sockets.iter().map(meminfo::receive_drops);
        drops.flatten().map(u64::from).sum()
    }

    /// The addresses that the sockets are bound to.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// The address of ours that the kernel would send from to reach `peer`.
pub(super) fn source_towards(peer: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => [0; 4].into(),
        SocketAddr::V6(_) => [0; 16].into(),
    };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip())
}

/// The receiving half.
pub(super) struct Receiver {
    sockets: Rc<Sockets>,
    batch: ReceiveBatch,
    buffers: Vec<Vec<u8>>,
    epoll: OwnedFd,
    ready: Vec<epoll::Event>,
}

impl Receiver {
    pub(super) fn new(sockets: &Rc<Sockets>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, socket) in sockets.sockets.iter().enumerate() {
            let data = epoll::EventData::new_u64(u64::try_from(index).unwrap_or(u64::MAX));
            epoll::add(&epoll, socket, data, epoll::EventFlags::IN)?;
        }
        Ok(Self {
            sockets: sockets.clone(),
            batch: ReceiveBatch::new(),
            buffers: vec![vec![0; DATAGRAM_LEN_MAX]; BATCH],
            epoll,
            ready: Vec::with_capacity(sockets.count().min(256)),
        })
    }

    /// Sleeps until a socket is readable or `timeout` has passed. `true` if one is.
    pub(super) fn wait(&mut self, timeout: Duration) -> bool {
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        self.ready.clear();
        // An interrupted sleep is a short one: the caller looks at its work and comes back.
        let count = epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.ready),
            Some(&timeout),
        );
        count.is_ok_and(|count| count > 0)
    }

    /// Gives each datagram of the sockets found readable by the last [`Self::wait`] to `each`, as
    /// (bytes, socket, sender), until they are empty or have had their share.
    pub(super) fn receive(&mut self, mut each: impl FnMut(&[u8], AddressIndex, SocketAddr)) {
        for place in 0..self.ready.len() {
            let data = self.ready[place].data.u64();
            let Ok(index) = usize::try_from(data) else {
                continue;
            };
            for _ in 0..BATCHES_MAX {
                if self.receive_batch(index, &mut each) < BATCH {
                    break;
                }
            }
        }
        self.ready.clear();
    }

    fn receive_batch(
        &mut self,
        index: AddressIndex,
        each: &mut impl FnMut(&[u8], AddressIndex, SocketAddr),
    ) -> usize {
        let Some(socket) = self.sockets.sockets.get(index) else {
            return 0;
        };
        let buffers = self.buffers.iter_mut().map(Vec::as_mut_slice);
        // An error of the socket (an ICMP report) shows in what does not arrive.
        let Ok(count) = self.batch.receive(socket, buffers) else {
            return 0;
        };
        for (received, buffer) in self.batch.received().zip(&self.buffers) {
            // The buffers hold the longest datagram there is, so none is cut short.
            if let (Some(bytes), Some(peer)) = (buffer.get(..received.len), received.source) {
                each(bytes, index, peer);
            }
        }
        count
    }
}

#[derive(Clone, Copy, Debug)]
struct Queued {
    socket: AddressIndex,
    start: usize,
    end: usize,
    peer: SocketAddr,
}

/// The sending half.
pub(super) struct Sender {
    sockets: Rc<Sockets>,
    batch: SendBatch,
    arena: Vec<u8>,
    queue: Vec<Queued>,
    /// Messages given to the kernel.
    pub(super) sent: u64,
    /// Messages that the kernel did not take.
    pub(super) refused: u64,
    /// Times the send buffer was full.
    pub(super) full: u64,
    /// What the kernel said when it last refused one.
    pub(super) last_error: Option<io::Error>,
}

impl Sender {
    pub(super) fn new(sockets: &Rc<Sockets>) -> Self {
        Self {
            sockets: sockets.clone(),
            batch: SendBatch::new(),
            arena: Vec::with_capacity(256 * 1024),
            queue: Vec::with_capacity(4 * BATCH),
            sent: 0,
            refused: 0,
            full: 0,
            last_error: None,
        }
    }

    /// The addresses that the sockets are bound to.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        self.sockets.addresses()
    }

    /// What was lost so far, in either direction.
    pub(super) fn losses(&self) -> Losses {
        Losses {
            receive_drops: self.sockets.receive_drops(),
            send_refused: self.refused,
            damaged: 0,
        }
    }

    /// Queues the message that `write` appends.
    pub(super) fn send(
        &mut self,
        socket: AddressIndex,
        peer: SocketAddr,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = self.arena.len();
        write(&mut self.arena);
        self.queue.push(Queued {
            socket,
            start,
            end: self.arena.len(),
            peer,
        });
        if self.queue.len() >= 4 * BATCH {
            self.flush();
        }
    }

    /// Gives everything queued to the kernel.
    pub(super) fn flush(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        // One call per socket; the order of one socket's messages stays.
        if self.sockets.count() > 1 {
            self.queue.sort_by_key(|queued| queued.socket);
        }
        let queue = std::mem::take(&mut self.queue);
        for run in queue.chunk_by(|a, b| a.socket == b.socket) {
            self.flush_socket(run);
        }
        self.queue = queue;
        self.queue.clear();
        self.arena.clear();
    }

    fn flush_socket(&mut self, mut run: &[Queued]) {
        let mut retries = 0;
        while let Some(first) = run.first() {
            let Some(socket) = self.sockets.sockets.get(first.socket) else {
                return;
            };
            let messages = run.iter().map(|queued| {
                let bytes = self.arena.get(queued.start..queued.end).unwrap_or_default();
                (bytes, queued.peer)
            });
            match self.batch.send(socket, messages) {
                Ok(count) => {
                    self.sent += u64::try_from(count).unwrap_or(0);
                    run = &run[count.min(run.len())..];
                    retries = 0;
                }
                Err(error) => {
                    let is_full = error.kind() == io::ErrorKind::WouldBlock
                        || error.raw_os_error() == Some(libc::ENOBUFS);
                    if is_full && retries < SEND_RETRIES {
                        self.full += 1;
                        retries += 1;
                        std::thread::sleep(Duration::from_micros(100));
                        continue;
                    }
                    self.refused += 1;
                    self.last_error = Some(error);
                    run = &run[1..];
                    retries = 0;
                }
            }
        }
    }
}
