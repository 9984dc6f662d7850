//! Rings and device queues over ordinary memory, with the kernel's end in the test's hands.
//!
//! For tests and benches of whoever uses sockets: no privileges, no device.

use super::device::{DeviceQueue, Shared};
use super::error::XskError;
use super::pool::FrameCache;
use super::ring::{Consumer, Producer, RingMemory};
use super::rings::QueueRings;
use super::socket::{Descriptor, Socket};
use super::umem::Umem;
use crate::limits::{FILL_RING_LEN, FRAME_LEN, RING_LEN, UMEM_HEADROOM, XDP_PACKET_HEADROOM};

/// Both ends of a ring of `len` entries, its indices starting at `index` (near `u32::MAX` to see
/// them wrap).
///
/// # Panics
/// Panics if `len` is no power of two.
pub fn pair<T: Copy + Default>(len: u32, index: u32) -> (Producer<T>, Consumer<T>) {
    let (producer, consumer) = RingMemory::heap(len, index, T::default());
    (Producer::new(producer), Consumer::new(consumer))
}

/// The kernel's end of a device queue.
#[derive(Debug)]
pub struct FakeDevice {
    umem: &'static Umem,
    fill: Consumer<u64>,
    completion: Producer<u64>,
    ports: Vec<FakePort>,
}

/// The kernel's end of one socket.
#[derive(Debug)]
struct FakePort {
    rx: Producer<Descriptor>,
    tx: Consumer<Descriptor>,
}

/// A device queue with `sockets` sockets whose kernel is a [`FakeDevice`]; the indices of its rings
/// start at `index`.
///
/// # Errors
/// [`XskError::NoFrames`] if the pool cannot fill the fill ring.
pub fn device_queue(
    umem: &'static Umem,
    sockets: usize,
    index: u32,
    cache: &mut FrameCache,
) -> Result<(DeviceQueue, FakeDevice), XskError> {
    let shared = Shared::unbound(umem)?;
    let (fill, fill_end) = pair(FILL_RING_LEN, index);
    let (completion_end, completion) = pair(FILL_RING_LEN, index);
    let mut rings = QueueRings::new(fill, completion, std::sync::Arc::clone(&shared));
    let (wanted, got) = (rings.fill_target(), rings.refill(cache));
    if got < wanted {
        return Err(XskError::NoFrames { wanted, got });
    }
    let (sockets, ports) = (0..sockets)
        .map(|_| {
            let (rx_end, rx) = pair(RING_LEN, index);
            let (tx, tx_end) = pair(RING_LEN, index);
            let socket = Socket::new(None, rx, tx, std::sync::Arc::clone(&shared));
            let port = FakePort {
                rx: rx_end,
                tx: tx_end,
            };
            (socket, port)
        })
        .unzip();
    let device = FakeDevice {
        umem,
        fill: fill_end,
        completion: completion_end,
        ports,
    };
    Ok((DeviceQueue { rings, sockets }, device))
}

impl FakeDevice {
    /// Receives `data` on the socket at `port`, as copy mode does: takes a frame from the fill ring,
    /// writes behind the headroom. Returns whether there was a frame and room.
    pub fn deliver(&mut self, port: usize, data: &[u8]) -> bool {
        let headroom = UMEM_HEADROOM + XDP_PACKET_HEADROOM;
        let Some(FakePort { rx, .. }) = self.ports.get_mut(port) else {
            return false;
        };
        if data.len() > FRAME_LEN - headroom || rx.free(1) == 0 {
            return false;
        }
        let mut address = None;
        self.fill.consume(1, |entry| address = Some(entry));
        let Some(address) = address else { return false };
        let Ok(len) = u32::try_from(data.len()) else {
            return false;
        };
        let chunk = u32::try_from(address / FRAME_LEN as u64).unwrap_or(u32::MAX);
        assert!((chunk as usize) < self.umem.frames());
        // SAFETY: inside the chunk, as `data` is no longer than what follows the headroom.
        let place = unsafe { self.umem.chunk_pointer(chunk).add(headroom) };
        // SAFETY: the chunk came from the fill ring, so no token for it exists; `data` is not in it.
        unsafe { core::ptr::copy_nonoverlapping(data.as_ptr(), place.as_ptr(), data.len()) };
        let descriptor = Descriptor {
            address: u64::from(chunk) * FRAME_LEN as u64 + headroom as u64,
            len,
            options: 0,
        };
        self.inject(port, descriptor)
    }

    /// Puts any descriptor at all on the RX ring at `port`; returns whether there was room.
    pub fn inject(&mut self, port: usize, descriptor: Descriptor) -> bool {
        let Some(FakePort { rx, .. }) = self.ports.get_mut(port) else {
            return false;
        };
        rx.produce(1, || Some(descriptor)) == 1
    }

    /// Sends one frame of the socket at `port`: gives its data to `sink` and completes it. Returns
    /// whether there was one and room to complete it.
    pub fn send(&mut self, port: usize, sink: impl FnOnce(&[u8])) -> bool {
        let Some(FakePort { tx, .. }) = self.ports.get_mut(port) else {
            return false;
        };
        if self.completion.free(1) == 0 {
            return false;
        }
        let mut taken = None;
        tx.consume(1, |descriptor| taken = Some(descriptor));
        let Some(descriptor) = taken else {
            return false;
        };
        let (start, len) = (descriptor.address, descriptor.len as usize);
        assert!(start.saturating_add(len as u64) <= self.umem.len() as u64);
        let chunk = u32::try_from(start / FRAME_LEN as u64).unwrap_or(u32::MAX);
        let offset = usize::try_from(start % FRAME_LEN as u64).unwrap_or(usize::MAX);
        assert!(offset + len <= FRAME_LEN);
        // SAFETY: inside the chunk, by the assertion.
        let place = unsafe { self.umem.chunk_pointer(chunk).add(offset) };
        // SAFETY: the chunk came from the TX ring, so no token for it exists until it is completed.
        sink(unsafe { core::slice::from_raw_parts(place.as_ptr(), len) });
        self.completion.produce(1, || Some(start)) == 1
    }

    /// Takes `count` frames out of the fill ring and keeps them, as a driver's own ring does.
    /// Returns their addresses.
    pub fn hold_back(&mut self, count: u32) -> Vec<u64> {
        let mut held = Vec::new();
        self.fill.consume(count, |address| held.push(address));
        held
    }

    /// Makes the rings that the kernel consumes say whether it wants to be woken.
    pub fn set_needs_wakeup(&self, needs: bool) {
        self.fill.set_needs_wakeup(needs);
        for port in &self.ports {
            port.tx.set_needs_wakeup(needs);
        }
    }
}
