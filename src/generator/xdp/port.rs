//! The sockets of one thread, and its two halves.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use arrayvec::ArrayVec;

use super::Device;
use super::ways::Ways;
use crate::generator::transport::{AddressIndex, Losses};
use crate::limits::BATCH;
use crate::packet::{self, LinkHeader, PartialChecksum, Tags};
use crate::sys::{clock, event};
use crate::time::{Duration, Instant};
use crate::xsk::{self, Frame, FrameCache, KickCounts, QueueRings};

/// TTL and hop limit of what we send: RFC 1340's default, as Linux.
const TTL: u8 = 64;
/// Bytes of IP and UDP headers at most.
const PACKET_HEADERS_LEN: usize = 40 + 8;
/// Batches read from one queue before the others and the timers have their turn.
const BATCHES_MAX: usize = 4;
/// Times a full TX ring is kicked for the same frames before they are dropped.
const TRANSMIT_RETRIES: usize = 8;
/// Waiting for less is looking at the rings; and so long a thread looks on after the last message
/// before it sleeps. A wake-up takes some 50 µs on a virtual machine.
const LOOK: Duration = Duration::from_micros(200);

/// A thread's socket on one queue.
pub(super) struct QueueLink {
    socket: xsk::Socket,
    rings: Arc<Mutex<QueueRings>>,
    /// Whether this thread serves the rings even when it has nothing to do with them.
    owner: bool,
    /// Received or sent since the rings were served.
    stirred: bool,
    /// Frames stand on the TX ring that the kernel has not taken.
    unsent: bool,
}

impl QueueLink {
    pub(super) fn new(socket: xsk::Socket, rings: Arc<Mutex<QueueRings>>, owner: bool) -> Self {
        Self {
            socket,
            rings,
            owner,
            stirred: false,
            unsent: false,
        }
    }

    /// Takes back what was sent and gives the kernel frames to receive into.
    fn serve(&mut self, frames: &mut FrameCache) {
        if !self.owner && !self.stirred {
            return;
        }
        // Never waits: whoever has the lock is doing just this.
        let Ok(mut rings) = self.rings.try_lock() else {
            return;
        };
        rings.reclaim(frames);
        rings.refill(frames);
        self.stirred = false;
        if rings.fill_needs_wakeup() {
            drop(rings);
            self.socket.wake_receive();
        }
    }

    fn kick(&mut self) {
        let mut counts = KickCounts::default();
        // A lost socket shows in what does not arrive.
        let kick = self.socket.kick(&mut counts);
        self.unsent = matches!(kick, Ok(xsk::Kick::Again | xsk::Kick::Down));
    }
}

/// Everything one thread receives from and sends to.
pub(in crate::generator) struct Port {
    links: Vec<QueueLink>,
    /// The link to send on.
    out: usize,
    frames: FrameCache,
    pending: ArrayVec<Frame, BATCH>,
    addresses: Addresses,
    ways: Ways,
    partial: PartialChecksum,
    /// A message is written here first: it is warm, and its length is not known before.
    text: Vec<u8>,
    losses: Losses,
    _device: Arc<Device>,
}

impl Port {
    pub(super) fn new(
        addresses: Vec<SocketAddr>,
        links: Vec<QueueLink>,
        frames: FrameCache,
        ways: Ways,
        partial: PartialChecksum,
        device: Arc<Device>,
    ) -> Self {
        let own = links.iter().position(|link| link.owner);
        Self {
            out: own.unwrap_or(0),
            links,
            frames,
            pending: ArrayVec::new(),
            addresses: Addresses::new(addresses),
            ways,
            partial,
            text: Vec::with_capacity(crate::limits::FRAME_LEN),
            losses: Losses::default(),
            _device: device,
        }
    }

    pub(in crate::generator) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses.list
    }

    /// The two halves, for the thread that uses them.
    pub(in crate::generator) fn split(self) -> (Receiver, Sender) {
        let addresses = self.addresses.list.clone();
        let port = Rc::new(RefCell::new(self));
        let receiver = Receiver {
            port: port.clone(),
            busy: Instant::ZERO,
            idle: Duration::ZERO,
        };
        (receiver, Sender { port, addresses })
    }

    fn queue(&mut self, from: AddressIndex, peer: SocketAddr) {
        let sent = self.compose(from, peer);
        match sent {
            Some(frame) => {
                if self.pending.is_full() {
                    self.transmit();
                }
                self.pending.push(frame);
            }
            None => self.losses.send_refused += 1,
        }
    }

    /// A frame with the text; `None` if it is longer than a frame or nobody knows where it goes.
    fn compose(&mut self, from: AddressIndex, peer: SocketAddr) -> Option<Frame> {
        let local = *self.addresses.list.get(from)?;
        let len = self.text.len();
        if len + PACKET_HEADERS_LEN > self.ways.mtu() {
            return None;
        }
        let link = LinkHeader {
            src_mac: self.ways.source(),
            dst_mac: self.ways.towards(local.ip(), peer)?,
            tags: Tags::default(),
        };
        let mut frame = self.frames.allocate()?;
        let payload = frame.start()..frame.start() + len;
        let bytes = frame.bytes_mut();
        let written = match bytes.get_mut(payload.clone()) {
            Some(room) => {
                room.copy_from_slice(&self.text);
                packet::emit(bytes, payload.clone(), &link, local, peer, TTL).ok()
            }
            None => None,
        };
        match written {
            Some(start) => {
                frame.set_range(start, payload.end);
                Some(frame)
            }
            None => {
                self.frames.release(frame);
                None
            }
        }
    }

    /// Puts what is pending on the TX ring. What does not fit after some kicks is dropped.
    fn transmit(&mut self) {
        let Some(link) = self.links.get_mut(self.out) else {
            return;
        };
        for _ in 0..=TRANSMIT_RETRIES {
            let count = link.socket.transmit(&mut self.pending);
            link.unsent |= count > 0;
            link.stirred |= count > 0;
            if self.pending.is_empty() {
                return;
            }
            link.kick();
            link.serve(&mut self.frames);
        }
        for frame in self.pending.drain(..) {
            self.losses.send_refused += 1;
            self.frames.release(frame);
        }
    }

    fn flush(&mut self) {
        self.transmit();
        for link in self.links.iter_mut().filter(|link| link.unsent) {
            link.kick();
        }
    }

    /// Serves the rings of a link, then takes up to a batch of frames from it.
    fn take(&mut self, position: usize, batch: &mut ArrayVec<Frame, BATCH>) -> usize {
        let Some(link) = self.links.get_mut(position) else {
            return 0;
        };
        link.serve(&mut self.frames);
        let count = link.socket.receive(batch);
        link.stirred |= count > 0;
        count
    }

    /// Where a frame comes from and which address it is for; its data is the message from then on.
    fn open(&mut self, frame: &mut Frame) -> Option<(AddressIndex, SocketAddr)> {
        let Ok(headers) = packet::parse(frame.data(), self.partial) else {
            self.losses.damaged += 1;
            return None;
        };
        let index = self.addresses.index(headers.dst)?;
        self.ways.learn(headers.src.ip(), headers.src_mac);
        let start = frame.start();
        frame.set_range(start + headers.payload.start, start + headers.payload.end);
        Some((index, headers.src))
    }

    fn is_readable(&self) -> bool {
        self.links.iter().any(|link| link.socket.rx_len() > 0)
    }

    fn losses(&self) -> Losses {
        let mut losses = self.losses;
        for link in &self.links {
            if let Ok(counts) = link.socket.statistics() {
                // What finds the fill ring empty is among the dropped (xsk_rcv, net/xdp/xsk.c).
                losses.receive_drops += counts.rx_dropped + counts.rx_ring_full;
                losses.send_refused += counts.tx_invalid;
            }
        }
        losses
    }
}

/// The receiving half.
pub(in crate::generator) struct Receiver {
    port: Rc<RefCell<Port>>,
    /// When a message was last there.
    busy: Instant,
    /// Time spent looking at empty rings.
    idle: Duration,
}

impl Receiver {
    /// See [`transport::Receiver::wait`](crate::generator::transport::Receiver::wait).
    pub(in crate::generator) fn wait(&mut self, timeout: Duration) -> bool {
        let mut port = self.port.borrow_mut();
        if port.is_readable() {
            return true;
        }
        let began = clock::now();
        let end = began + timeout;
        let look_end = match timeout < LOOK {
            true => end,
            false => end.min(self.busy + LOOK),
        };
        let mut now = began;
        while now < look_end {
            core::hint::spin_loop();
            if port.is_readable() {
                self.idle += now.since(began);
                return true;
            }
            now = clock::now();
        }
        self.idle += now.since(began);
        if now >= end {
            return false;
        }
        // Nobody else may live on rings that are left alone.
        let Port { links, frames, .. } = &mut *port;
        for link in links.iter_mut() {
            link.serve(frames);
            if link.unsent {
                link.kick();
            }
        }
        let sockets = links.iter().filter_map(|link| link.socket.fd());
        event::wait(
            sockets.collect::<ArrayVec<BorrowedFd<'_>, 64>>(),
            Some(end.since(now)),
        ) > 0
    }

    /// See [`transport::Receiver::receive`](crate::generator::transport::Receiver::receive).
    pub(in crate::generator) fn receive(
        &mut self,
        mut each: impl FnMut(&[u8], AddressIndex, SocketAddr),
    ) {
        let count = self.port.borrow().links.len();
        let mut received = 0;
        for position in 0..count {
            for _ in 0..BATCHES_MAX {
                let mut batch = ArrayVec::<Frame, BATCH>::new();
                let taken = self.port.borrow_mut().take(position, &mut batch);
                received += taken;
                for frame in xsk::prefetched(&mut batch) {
                    // Not held while the message is answered: answers are queued on the same port.
                    let opened = self.port.borrow_mut().open(frame);
                    if let Some((index, peer)) = opened {
                        each(frame.data(), index, peer);
                    }
                }
                let mut port = self.port.borrow_mut();
                for frame in batch {
                    port.frames.release(frame);
                }
                if taken < BATCH {
                    break;
                }
            }
        }
        if received > 0 {
            self.busy = clock::now();
        }
    }

    /// Time spent looking at empty rings: CPU time without work.
    pub(in crate::generator) fn idle(&self) -> Duration {
        self.idle
    }
}

/// The sending half.
pub(in crate::generator) struct Sender {
    port: Rc<RefCell<Port>>,
    addresses: Vec<SocketAddr>,
}

impl Sender {
    pub(in crate::generator) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Queues the message that `write` appends.
    #[inline]
    pub(in crate::generator) fn send(
        &mut self,
        from: AddressIndex,
        peer: SocketAddr,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut port = self.port.borrow_mut();
        port.text.clear();
        write(&mut port.text);
        port.queue(from, peer);
    }

    pub(in crate::generator) fn flush(&mut self) {
        self.port.borrow_mut().flush();
    }

    pub(in crate::generator) fn losses(&self) -> Losses {
        self.port.borrow().losses()
    }
}

/// The addresses of a thread, by index and by themselves.
struct Addresses {
    list: Vec<SocketAddr>,
    index: HashMap<SocketAddr, AddressIndex, BuildHasherDefault<Mixer>>,
}

impl Addresses {
    fn new(list: Vec<SocketAddr>) -> Self {
        let index = list.iter().enumerate();
        Self {
            index: index.map(|(index, address)| (*address, index)).collect(),
            list,
        }
    }

    #[inline]
    fn index(&self, address: SocketAddr) -> Option<AddressIndex> {
        match self.list.as_slice() {
            [only] => (*only == address).then_some(0),
            _ => self.index.get(&address).copied(),
        }
    }
}

/// A hash of addresses of our own choice: nobody forges them.
#[derive(Default)]
struct Mixer(u64);

impl Mixer {
    #[inline]
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(26) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Mixer {
    #[inline]
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_ne_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.mix(u64::from_ne_bytes(last));
        }
    }

    #[inline]
    fn write_u16(&mut self, number: u16) {
        self.mix(number.into());
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        self.mix(number.into());
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }

    #[inline]
    fn write_isize(&mut self, number: isize) {
        self.mix(number.cast_unsigned() as u64);
    }
}
