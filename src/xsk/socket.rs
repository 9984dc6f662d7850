//! One AF_XDP socket: an RX and a TX ring on one queue of one device, for one worker.
//!
//! Copy mode sends inside the system call that [`Socket::kick`] makes, in our thread; so every batch
//! is kicked, and as often as the kernel says "call again" and progress is possible.

use core::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::xdp::XdpOptionsFlags;
use rustix::net::{RecvFlags, SendFlags};

use super::device::{Mode, Shared};
use super::error::XskError;
use super::frame::Frame;
use super::ledger::Place;
use super::ring::{Consumer, Producer};
use super::umem::Umem;

/// An entry of an RX or TX ring: `struct xdp_desc` of linux/if_xdp.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Descriptor {
    /// Offset of the data in the UMEM.
    pub address: u64,
    /// Bytes of data.
    pub len: u32,
    /// Flags; none is used here.
    pub options: u32,
}

const _: () = assert!(size_of::<Descriptor>() == 16);

/// One socket on a device queue. Move it to the worker that uses it.
pub struct Socket {
    /// `None` over rings in ordinary memory.
    fd: Option<OwnedFd>,
    rx: Consumer<Descriptor>,
    tx: Producer<Descriptor>,
    umem: &'static Umem,
    receiving: Place,
    sending: Place,
    // Last, so that the socket is closed before the queue's frames are recovered.
    shared: Arc<Shared>,
}

/// What came of a kick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kick {
    /// Nothing was waiting, or nobody needs to be woken: no system call was made.
    Idle,
    /// All that waited is on its way.
    Done,
    /// Frames still wait: reclaim completions, then kick again.
    Again,
    /// The interface is down. Frames wait until it is up.
    Down,
}

/// What kicks cost, for counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KickCounts {
    /// System calls made.
    pub calls: u64,
    /// Calls answered with "again": EAGAIN or ENOBUFS.
    pub again: u64,
    /// Calls that reported a frame dropped by the device (EBUSY).
    pub dropped: u64,
    /// Calls answered with ENETDOWN.
    pub down: u64,
}

/// The kernel's counts for one socket (`XDP_STATISTICS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames dropped for a reason that has no count of its own, as being too long.
    pub rx_dropped: u64,
    /// Frames dropped because the RX ring was full.
    pub rx_ring_full: u64,
    /// Frames dropped because the fill ring was empty.
    pub fill_ring_empty: u64,
    /// Entries of the fill ring that were no address of a chunk.
    pub rx_invalid: u64,
    /// Entries of the TX ring that could not be sent. Their frames do not come back.
    pub tx_invalid: u64,
    /// Times that the TX ring was found empty.
    pub tx_ring_empty: u64,
}

impl Socket {
    pub(super) fn new(
        fd: Option<OwnedFd>,
        rx: Consumer<Descriptor>,
        tx: Producer<Descriptor>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            fd,
            rx,
            tx,
            umem: shared.umem,
            receiving: Place::receiving(shared.number),
            sending: Place::sending(shared.number),
            shared,
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Takes received frames until `frames` is full or none is left; returns how many.
    #[inline]
    pub fn receive<const N: usize>(&mut self, frames: &mut ArrayVec<Frame, N>) -> usize {
        let before = frames.len();
        self.receive_each(N - before, |frame| frames.push(frame));
        frames.len() - before
    }

    /// Gives up to `count` received frames to `take`; returns how many.
    #[inline]
    pub fn receive_each(&mut self, count: usize, mut take: impl FnMut(Frame)) -> usize {
        let (umem, place) = (self.umem, self.receiving);
        let mut taken = 0;
        let wanted = u32::try_from(count).unwrap_or(u32::MAX);
        self.rx.consume(wanted, |descriptor| {
            if let Some(frame) = umem.take_frame(descriptor.address, descriptor.len, place) {
                taken += 1;
                take(frame);
            }
        });
        taken
    }

    /// Puts frames on the TX ring, from the front of `frames`, as long as it has room; returns how
    /// many. The rest stays. They leave with the next [`kick`](Self::kick).
    #[inline]
    pub fn transmit<const N: usize>(&mut self, frames: &mut ArrayVec<Frame, N>) -> usize {
        let wanted = u32::try_from(frames.len()).unwrap_or(u32::MAX);
        let room = self.tx.free(wanted).min(wanted) as usize;
        if room == 0 {
            return 0;
        }
        self.transmit_each(room, frames.drain(..room));
        room
    }

    /// Puts up to `count` frames from `frames` on the TX ring; returns how many fitted. No frame is
    /// taken from the iterator that there is no room for.
    #[inline]
    pub fn transmit_each(
        &mut self,
        count: usize,
        frames: impl IntoIterator<Item = Frame>,
    ) -> usize {
        let (umem, place) = (self.umem, self.sending);
        let mut frames = frames.into_iter();
        let wanted = u32::try_from(count).unwrap_or(u32::MAX);
        let sent = self.tx.produce(wanted, || {
            loop {
                let frame = frames.next()?;
                // The kernel takes an empty descriptor for invalid and never completes it. And
                // another UMEM's chunk is not ours to send.
                if frame.is_empty() || !core::ptr::eq(frame.umem(), umem) {
                    debug_assert!(false, "{frame:?} cannot be sent");
                    continue;
                }
                let (start, len) = (frame.start() as u64, frame.len());
                let address = umem.give(frame.into_chunk(), place) + start;
                #[expect(clippy::cast_possible_truncation, reason = "at most FRAME_LEN")]
                let len = len as u32;
                return Some(Descriptor {
                    address,
                    len,
                    options: 0,
                });
            }
        });
        sent as usize
    }

    /// Frames that fit on the TX ring now.
    #[inline]
    pub fn room(&mut self) -> usize {
        let capacity = self.tx.capacity();
        self.tx.free(capacity) as usize
    }

    /// Makes the kernel send what waits on the TX ring: system calls until nothing waits, or until
    /// calling again has no use before completions are reclaimed.
    ///
    /// # Errors
    /// [`XskError::Lost`] if the socket no longer works.
    pub fn kick(&mut self, counts: &mut KickCounts) -> Result<Kick, XskError> {
        let Some(fd) = &self.fd else {
            return Ok(Kick::Idle);
        };
        let waiting = self.tx.len();
        // In zero-copy mode the device looks by itself unless it says otherwise; in copy mode
        // nothing moves without a call.
        if waiting == 0 || (self.shared.mode == Mode::ZeroCopy && !self.tx.needs_wakeup()) {
            return Ok(Kick::Idle);
        }
        // One call sends 32 frames where the budget cannot be raised. And an old kernel shows its
        // progress on the ring only when it has emptied it, so progress is no condition.
        let calls_max = waiting.div_ceil(32) + 1;
        for _ in 0..calls_max {
            counts.calls += 1;
            match rustix::net::send(fd, &[], SendFlags::DONTWAIT) {
                Ok(_) => {}
                Err(Errno::INTR) => {}
                // The budget is used up, or there is no completion slot, or the device is busy.
                Err(Errno::AGAIN) => counts.again += 1,
                // No memory for the packet: no use in asking again at once.
                Err(Errno::NOBUFS | Errno::NOMEM) => {
                    counts.again += 1;
                    return Ok(Kick::Again);
                }
                // The device dropped a frame; it is completed, and the rest waits.
                Err(Errno::BUSY) => counts.dropped += 1,
                Err(Errno::NETDOWN) => {
                    counts.down += 1;
                    return Ok(Kick::Down);
                }
                Err(lost) => return Err(XskError::Lost(lost)),
            }
            if self.tx.is_empty() {
                return Ok(Kick::Done);
            }
            if self.shared.mode == Mode::ZeroCopy {
                // The device works on it now; the ring empties at its pace.
                return Ok(Kick::Done);
            }
        }
        Ok(Kick::Again)
    }

    /// Wakes a driver that sleeps on the fill ring; see
    /// [`QueueRings::fill_needs_wakeup`](super::QueueRings::fill_needs_wakeup).
    pub fn wake_receive(&self) {
        if let Some(fd) = &self.fd {
            // Whatever it says: the next `poll` or kick will say it too.
            let _ = rustix::net::recv(fd, &mut [0_u8; 0][..], RecvFlags::DONTWAIT);
        }
    }

    /// Received frames that wait.
    pub fn rx_len(&self) -> u32 {
        self.rx.len()
    }

    /// Frames on the TX ring that the kernel has not taken yet.
    pub fn tx_len(&self) -> u32 {
        self.tx.len()
    }

    /// The socket, for `poll` (only for reading: a TX ring with room is always writable) and for the
    /// XSKMAP. `None` over rings in ordinary memory.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// The UMEM.
    pub fn umem(&self) -> &'static Umem {
        self.umem
    }

    /// Index of the interface.
    pub fn interface(&self) -> u32 {
        self.shared.interface
    }

    /// Queue number on the interface.
    pub fn queue(&self) -> u32 {
        self.shared.queue
    }

    /// The mode asked for.
    pub fn mode(&self) -> Mode {
        self.shared.mode
    }

    /// The mode that the kernel says the socket has (`XDP_OPTIONS`).
    ///
    /// # Errors
    /// [`XskError::Lost`] if the kernel does not answer.
    pub fn mode_obtained(&self) -> Result<Mode, XskError> {
        let Some(fd) = &self.fd else {
            return Ok(Mode::Copy);
        };
        let options = sockopt::xdp_options(fd).map_err(XskError::Lost)?;
        if options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY) {
            Ok(Mode::ZeroCopy)
        } else {
            Ok(Mode::Copy)
        }
    }

    /// The kernel's counts (`XDP_STATISTICS`); the queue's sockets count separately.
    ///
    /// # Errors
    /// [`XskError::Lost`] if the kernel does not answer.
    pub fn statistics(&self) -> Result<Statistics, XskError> {
        let Some(fd) = &self.fd else {
            return Ok(Statistics::default());
        };
        let counts = sockopt::xdp_statistics(fd).map_err(XskError::Lost)?;
        Ok(Statistics {
            rx_dropped: counts.rx_dropped,
            rx_ring_full: counts.rx_ring_full.unwrap_or(0),
            fill_ring_empty: counts.rx_fill_ring_empty_descs.unwrap_or(0),
            rx_invalid: counts.rx_invalid_descs,
            tx_invalid: counts.tx_invalid_descs,
            tx_ring_empty: counts.tx_ring_empty_descs.unwrap_or(0),
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(fd) = &self.fd {
            self.umem.registry().remove(fd.as_fd());
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("interface", &self.interface())
            .field("queue", &self.queue())
            .field("mode", &self.mode())
            .field("rx", &self.rx)
            .field("tx", &self.tx)
            .finish()
    }
}
