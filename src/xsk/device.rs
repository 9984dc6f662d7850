//! Opening the sockets of a device queue.
//!
//! Owns the order of the kernel calls and what of them must hold across sockets. Facts it rests on
//! (net/xdp/xsk.c, tried on 6.18):
//!
//! - A queue of a device has one fill and one completion ring. The socket that brings them is the
//!   owner; further sockets of the queue are bound with `XDP_SHARED_UMEM` naming the owner and
//!   without such rings (with them: EINVAL).
//! - The owner of another queue, or of another device, is bound with `XDP_SHARED_UMEM` naming any
//!   bound socket of the UMEM, and with rings of its own. So the UMEM is registered, pinned and
//!   accounted once.
//! - `XDP_SHARED_UMEM` tolerates no `XDP_COPY`, `XDP_ZEROCOPY` or `XDP_USE_NEED_WAKEUP` beside it:
//!   all are inherited. So the mode is one for all sockets over a UMEM.
//! - After a close the queue may stay busy for a while: the kernel clears it from a work queue.
//!   Binds that say EBUSY are tried again for up to two seconds.
//! - Some drivers lose buffers if the fill ring is empty at bind: it is filled before.

use core::fmt;
use core::time::Duration;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XDP_PGOFF_RX_RING,
    XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpMmapOffsets,
    XdpRingOffset, XdpUmemReg, XdpUmemRegFlags,
};

use super::error::XskError;
use super::ledger::Place;
use super::pool::FrameCache;
use super::ring::{Consumer, Producer, RingMemory, RingOffsets};
use super::rings::QueueRings;
use super::socket::{Descriptor, Socket};
use super::sys::{self, Mapping};
use super::umem::Umem;
use crate::limits::{FILL_RING_LEN, FRAME_LEN, RING_LEN, WORKERS_MAX};

/// How frames get between a device and the UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The kernel copies; every driver can.
    Copy,
    /// The device reads and writes the UMEM itself; some drivers can.
    ZeroCopy,
}

impl Mode {
    /// The word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::ZeroCopy => "zero-copy",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What to open on one queue of one device.
#[derive(Clone, Copy, Debug)]
pub struct QueueConfig {
    /// Interface index.
    pub interface: u32,
    /// Queue number on the interface.
    pub queue: u32,
    /// Sockets on the queue, one per worker that it feeds; the first is the owner's.
    pub sockets: usize,
    /// Entries of each RX and TX ring, a power of two.
    pub ring_len: u32,
    /// Entries of the fill and of the completion ring, a power of two.
    pub fill_len: u32,
}

impl QueueConfig {
    /// `sockets` sockets on a queue, with rings as in [`limits`](crate::limits).
    pub const fn new(interface: u32, queue: u32, sockets: usize) -> Self {
        Self {
            interface,
            queue,
            sockets,
            ring_len: RING_LEN,
            fill_len: FILL_RING_LEN,
        }
    }
}

/// An open queue of a device: its two rings, for the owner, and its sockets, one per worker.
#[derive(Debug)]
pub struct DeviceQueue {
    /// Fill and completion ring.
    pub rings: QueueRings,
    /// The sockets; the first is the owner's.
    pub sockets: Vec<Socket>,
}

impl DeviceQueue {
    /// Opens a queue in the given mode.
    ///
    /// # Errors
    /// See [`XskError`]; nothing stays open and no frame is lost. [`XskError::Bind`] with a mode of
    /// [`Mode::ZeroCopy`] usually means that the driver cannot.
    pub fn open(
        umem: &'static Umem,
        config: &QueueConfig,
        mode: Mode,
        cache: &mut FrameCache,
    ) -> Result<Self, XskError> {
        if config.sockets == 0 || config.sockets > WORKERS_MAX {
            return Err(XskError::SocketCount);
        }
        let number = umem.registry().number()?;
        let shared = Arc::new(Shared {
            umem,
            number,
            interface: config.interface,
            queue: config.queue,
            mode,
            bound: AtomicBool::new(false),
        });
        let owner = Unbound::new(config)?;
        let mut rings = owner.queue_rings(config, &shared)?;
        let got = rings.refill(cache);
        let wanted = rings.fill_target();
        if got < wanted {
            return Err(XskError::NoFrames { wanted, got });
        }
        let owner = owner.bind_owner(shared)?;
        let mut sockets = Vec::with_capacity(config.sockets);
        sockets.push(owner);
        while sockets.len() < config.sockets {
            let sharer = Unbound::new(config)?.bind_sharer(&sockets[0])?;
            sockets.push(sharer);
        }
        Ok(Self { rings, sockets })
    }

    /// Opens all queues of a process: in zero-copy mode if `try_zero_copy` and if every bind
    /// succeeds, else all in copy mode. Returns the mode taken and why zero-copy was not.
    ///
    /// # Errors
    /// The first error in copy mode; nothing stays open.
    pub fn open_all(
        umem: &'static Umem,
        configs: &[QueueConfig],
        try_zero_copy: bool,
        cache: &mut FrameCache,
    ) -> Result<OpenQueues, XskError> {
        let mut open = |mode| -> Result<Vec<Self>, XskError> {
            configs
                .iter()
                .map(|config| Self::open(umem, config, mode, cache))
                .collect()
        };
        let mut refusal = None;
        if try_zero_copy {
            match open(Mode::ZeroCopy) {
                Ok(queues) => {
                    return Ok(OpenQueues {
                        queues,
                        mode: Mode::ZeroCopy,
                        refusal,
                    });
                }
                Err(error) => refusal = Some(error),
            }
        }
        Ok(OpenQueues {
            queues: open(Mode::Copy)?,
            mode: Mode::Copy,
            refusal,
        })
    }
}

/// What [`DeviceQueue::open_all`] opened.
#[derive(Debug)]
pub struct OpenQueues {
    /// In the order asked for.
    pub queues: Vec<DeviceQueue>,
    /// The mode of all.
    pub mode: Mode,
    /// Why zero-copy was not to be had, if it was tried.
    pub refusal: Option<XskError>,
}

/// What the parts of a device queue have in common. When the last of them goes, the frames that
/// the kernel still has come back.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) umem: &'static Umem,
    /// Number of this opening, for the ledger.
    pub(super) number: u16,
    pub(super) interface: u32,
    pub(super) queue: u32,
    pub(super) mode: Mode,
    /// Whether the kernel ever got to see the rings.
    bound: AtomicBool,
}

impl Shared {
    /// For a queue that no kernel will ever see.
    pub(super) fn unbound(umem: &'static Umem) -> Result<Arc<Self>, XskError> {
        Ok(Arc::new(Self {
            umem,
            number: umem.registry().number()?,
            interface: 0,
            queue: 0,
            mode: Mode::Copy,
            bound: AtomicBool::new(false),
        }))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // All sockets are closed. In copy mode the close has waited for the receive path, and what
        // was sent was copied. In zero-copy mode the device may go on writing into frames of the
        // fill ring until the kernel has cleared the queue: they come back when the queue could be
        // bound again.
        if self.mode == Mode::ZeroCopy && self.bound.load(Ordering::Relaxed) {
            self.umem.registry().retired.push(Retired {
                number: self.number,
                interface: self.interface,
                queue: self.queue,
            });
        } else {
            self.umem.recover(self.number);
        }
    }
}

/// The sockets bound over a UMEM, and the queues whose frames are still out.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// INVARIANT: each descriptor is open: a socket leaves the list before it is closed.
    open: Vec<(RawFd, Mode)>,
    retired: Vec<Retired>,
    last_number: u16,
}

#[derive(Debug)]
struct Retired {
    number: u16,
    interface: u32,
    queue: u32,
}

impl Registry {
    /// A number for a queue to open, never given out before.
    fn number(&mut self) -> Result<u16, XskError> {
        if self.last_number == Place::QUEUE_MAX {
            return Err(XskError::SocketCount);
        }
        self.last_number += 1;
        Ok(self.last_number)
    }

    /// Takes a socket off the list; called before it closes.
    pub(super) fn remove(&mut self, fd: BorrowedFd<'_>) {
        self.open.retain(|(open, _)| *open != fd.as_raw_fd());
    }
}

/// A socket with its RX and TX ring, not yet bound.
struct Unbound {
    fd: OwnedFd,
    offsets: XdpMmapOffsets,
    rx: Consumer<Descriptor>,
    tx: Producer<Descriptor>,
}

impl Unbound {
    fn new(config: &QueueConfig) -> Result<Self, XskError> {
        let fd = sys::socket().map_err(XskError::Socket)?;
        let len = config.ring_len;
        sockopt::set_xdp_rx_ring_size(&fd, len).map_err(ring_error("RX", len))?;
        sockopt::set_xdp_tx_ring_size(&fd, len).map_err(ring_error("TX", len))?;
        let offsets = sockopt::xdp_mmap_offsets(&fd).map_err(XskError::Socket)?;
        // SAFETY: the kernel just made this ring with `len` descriptors; nobody else maps it.
        let rx = unsafe { map_ring(fd.as_fd(), "RX", len, XDP_PGOFF_RX_RING, offsets.rx)? };
        // SAFETY: as above.
        let tx = unsafe { map_ring(fd.as_fd(), "TX", len, XDP_PGOFF_TX_RING, offsets.tx)? };
        // Both are improvements that an old kernel or a lack of rights may refuse. In copy mode a
        // frame on its way counts against the send buffer, and 212,992 bytes hold under 100.
        let _ = sys::set_tx_budget(&fd, len);
        let buffer_len = len as usize * FRAME_LEN;
        let _ = sockopt::set_socket_send_buffer_size_force(&fd, buffer_len);
        Ok(Self {
            fd,
            offsets,
            rx: Consumer::new(rx),
            tx: Producer::new(tx),
        })
    }

    /// Makes the fill and the completion ring: for the owner, before it is bound.
    fn queue_rings(
        &self,
        config: &QueueConfig,
        shared: &Arc<Shared>,
    ) -> Result<QueueRings, XskError> {
        let len = config.fill_len;
        let fd = self.fd.as_fd();
        sockopt::set_xdp_umem_fill_ring_size(fd, len).map_err(ring_error("fill", len))?;
        sockopt::set_xdp_umem_completion_ring_size(fd, len)
            .map_err(ring_error("completion", len))?;
        let (fill_at, completion_at) = (XDP_UMEM_PGOFF_FILL_RING, XDP_UMEM_PGOFF_COMPLETION_RING);
        // SAFETY: the kernel just made this ring with `len` addresses; nobody else maps it.
        let fill = unsafe { map_ring(fd, "fill", len, fill_at, self.offsets.fr)? };
        // SAFETY: as above.
        let completion =
            unsafe { map_ring(fd, "completion", len, completion_at, self.offsets.cr)? };
        Ok(QueueRings::new(
            Producer::new(fill),
            Consumer::new(completion),
            Arc::clone(shared),
        ))
    }

    fn bind_owner(self, shared: Arc<Shared>) -> Result<Socket, XskError> {
        let mut registry = shared.umem.registry();
        let named = registry.open.first().copied();
        if let Some((_, open)) = named
            && open != shared.mode
        {
            return Err(XskError::ModeMismatch {
                open,
                wanted: shared.mode,
            });
        }
        let result = match named {
            // SAFETY: on the list, so open (invariant), and stays so while we hold the lock.
            Some((fd, _)) => self.bind_shared(&shared, unsafe { BorrowedFd::borrow_raw(fd) }),
            None => {
                self.register(shared.umem)?;
                let flags = match shared.mode {
                    Mode::Copy => SocketAddrXdpFlags::XDP_COPY,
                    Mode::ZeroCopy => SocketAddrXdpFlags::XDP_ZEROCOPY,
                };
                let flags = flags | SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
                let address = SocketAddrXdp::new(flags, shared.interface, shared.queue);
                retry_busy(|| rustix::net::bind(&self.fd, &address))
            }
        };
        result.map_err(bind_error(&shared))?;
        registry.open.push((self.fd.as_raw_fd(), shared.mode));
        // The queue was free: whatever the kernel had of an earlier opening is ours again.
        registry.retired.retain(|retired| {
            let same = (retired.interface, retired.queue) == (shared.interface, shared.queue);
            if same {
                shared.umem.recover(retired.number);
            }
            !same
        });
        drop(registry);
        shared.bound.store(true, Ordering::Relaxed);
        Ok(Socket::new(Some(self.fd), self.rx, self.tx, shared))
    }

    fn bind_sharer(self, owner: &Socket) -> Result<Socket, XskError> {
        let shared = Arc::clone(owner.shared());
        let mut registry = shared.umem.registry();
        let owner = owner.fd().ok_or(XskError::Socket(Errno::BADF))?;
        self.bind_shared(&shared, owner)
            .map_err(bind_error(&shared))?;
        registry.open.push((self.fd.as_raw_fd(), shared.mode));
        drop(registry);
        Ok(Socket::new(Some(self.fd), self.rx, self.tx, shared))
    }

    fn bind_shared(&self, shared: &Shared, named: BorrowedFd<'_>) -> Result<(), Errno> {
        let flags = SocketAddrXdpFlags::XDP_SHARED_UMEM;
        let address = SocketAddrXdpWithSharedUmem {
            addr: SocketAddrXdp::new(flags, shared.interface, shared.queue),
            shared_umem_fd: named,
        };
        retry_busy(|| rustix::net::bind(&self.fd, &address))
    }

    fn register(&self, umem: &Umem) -> Result<(), XskError> {
        let chunk_size = const {
            assert!(FRAME_LEN <= u32::MAX as usize);
            #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
            let chunk_size = FRAME_LEN as u32;
            chunk_size
        };
        let registration = XdpUmemReg {
            addr: umem.start_address(),
            len: umem.len() as u64,
            chunk_size,
            headroom: Umem::headroom(),
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        sockopt::set_xdp_umem_reg(&self.fd, registration).map_err(XskError::Register)
    }
}

/// Maps one ring of a socket.
///
/// # Safety
/// The socket has made this ring with `len` entries of type `T`, for which any bit pattern is
/// valid, and this end of it is mapped only once.
unsafe fn map_ring<T: Copy>(
    fd: BorrowedFd<'_>,
    ring: &'static str,
    len: u32,
    offset: u64,
    offsets: XdpRingOffset,
) -> Result<RingMemory<T>, XskError> {
    let error = ring_error(ring, len);
    let word = |offset: u64| usize::try_from(offset).map_err(|_| error(Errno::OVERFLOW));
    let offsets = RingOffsets {
        producer: word(offsets.producer)?,
        consumer: word(offsets.consumer)?,
        flags: word(offsets.flags.ok_or_else(|| error(Errno::NOSYS))?)?,
        entries: word(offsets.desc)?,
    };
    let bytes = offsets.entries + len as usize * size_of::<T>();
    let mapping = Mapping::ring(fd, bytes, offset).map_err(&error)?;
    // SAFETY: by the caller's promise; the offsets are the kernel's own for this socket.
    Ok(unsafe { RingMemory::mapped(mapping, offsets, len) })
}

fn ring_error(ring: &'static str, len: u32) -> impl Fn(Errno) -> XskError {
    move |source| XskError::Ring { ring, len, source }
}

fn bind_error(shared: &Shared) -> impl FnOnce(Errno) -> XskError {
    let (interface, queue, mode) = (shared.interface, shared.queue, shared.mode);
    move |source| XskError::Bind {
        interface,
        queue,
        mode,
        source,
    }
}

/// Pause between two attempts to bind.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Attempts to bind: two seconds of pauses.
const BUSY_ATTEMPTS: u32 = 200;

fn retry_busy(bind: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    retry(bind, || std::thread::sleep(BUSY_PAUSE))
}

/// Calls `bind` until it says anything but EBUSY, with a pause before each further attempt.
fn retry(
    mut bind: impl FnMut() -> Result<(), Errno>,
    mut pause: impl FnMut(),
) -> Result<(), Errno> {
    for _ in 0..BUSY_ATTEMPTS {
        match bind() {
            Err(Errno::BUSY) => pause(),
            done => return done,
        }
    }
    bind()
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_busy_queue_is_tried_for_two_seconds_and_no_longer() {
        let mut paused = Duration::ZERO;
        let result = retry(|| Err(Errno::BUSY), || paused += BUSY_PAUSE);
        assert_eq!(result, Err(Errno::BUSY));
        assert_eq!(paused, Duration::from_secs(2));
    }

    #[test]
    fn a_queue_that_becomes_free_is_bound_at_once() {
        let mut left = 3;
        let mut pauses = 0;
        let bind = || {
            left -= 1;
            if left > 0 { Err(Errno::BUSY) } else { Ok(()) }
        };
        assert_eq!(retry(bind, || pauses += 1), Ok(()));
        assert_eq!(pauses, 2);
    }

    #[test]
    fn only_busy_is_tried_again() {
        let mut calls = 0;
        let bind = || {
            calls += 1;
            Err(Errno::OPNOTSUPP)
        };
        assert_eq!(retry(bind, || panic!("paused")), Err(Errno::OPNOTSUPP));
        assert_eq!(calls, 1);
    }
}
