//! XDP links: this worker's AF_XDP sockets, one for each interface and queue.
//!
//! Received frames are taken apart and verified here; frames to be sent get their headers here. A
//! queue's fill and completion rings are shared by the workers that have a socket on it. They stand
//! behind a try-lock that nobody waits for: its owner serves them every round, another worker when
//! it has received or sent there. So it does not matter who sleeps: whoever causes work for the
//! rings is awake and does it, or finds somebody else doing it.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use arrayvec::ArrayVec;
use tracing::warn;

use super::Batch;
use super::egress;
use super::packet::{Memory, Origin, Packet};
use crate::limits::{BATCH, INTERFACES_MAX, RING_LEN};
use crate::metrics::WorkerMetrics;
use crate::net::{Flow, Ipv4Addr, ListenerIndex, SocketAddr, SocketAddrV4};
use crate::packet::{self, LinkHeader, PartialChecksum, Tags};
use crate::verdict::DropReason;
use crate::xsk::{self, Frame, FrameCache, Kick, KickCounts, QueueRings};

/// Times a full TX ring is kicked for the same frames before they are dropped. Each kick sends at
/// least 32 where the device takes frames at all.
const TRANSMIT_RETRIES: usize = 4;

/// TTL and hop limit of what we send: RFC 1340's default, as Linux.
const TTL: u8 = 64;

/// The fill and completion ring of a device queue, and who else serves them.
pub(super) type SharedRings = Arc<Mutex<QueueRings>>;

/// This worker's socket on one queue of one interface.
pub(super) struct Link {
    ifindex: u32,
    socket: xsk::Socket,
    rings: SharedRings,
    /// Whether this worker serves the rings even when it has nothing to do with them.
    owner: bool,
    partial: PartialChecksum,
    /// Frames for the TX ring.
    pending: ArrayVec<Frame, BATCH>,
    /// Received or transmitted since the rings were last served.
    stirred: bool,
    /// Frames stand on the TX ring that the kernel has not taken.
    unsent: bool,
    /// The kernel says that the socket is no more.
    lost: bool,
}

impl Link {
    pub(super) fn new(
        ifindex: u32,
        socket: xsk::Socket,
        rings: SharedRings,
        owner: bool,
        partial: PartialChecksum,
    ) -> Self {
        Self {
            ifindex,
            socket,
            rings,
            owner,
            partial,
            pending: ArrayVec::new(),
            stirred: false,
            unsent: false,
            lost: false,
        }
    }

    pub(super) fn ifindex(&self) -> u32 {
        self.ifindex
    }

    pub(super) fn socket(&self) -> &xsk::Socket {
        &self.socket
    }

    /// Takes back what was sent and gives the kernel frames to receive into.
    fn serve(&mut self, frames: &mut FrameCache) {
        if !self.owner && !self.stirred && !self.unsent {
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

    fn note(&mut self, result: Result<Kick, xsk::XskError>) {
        match result {
            Ok(Kick::Idle | Kick::Done) => self.unsent = false,
            Ok(Kick::Again | Kick::Down) => self.unsent = true,
            Err(error) => {
                if !self.lost {
                    let (ifindex, queue) = (self.ifindex, self.socket.queue());
                    warn!(ifindex, queue, %error, "XDP link lost; its peers are reached through the kernel");
                }
                self.lost = true;
                self.unsent = false;
            }
        }
    }

    fn kick(&mut self, metrics: &WorkerMetrics) {
        let mut counts = KickCounts::default();
        let result = self.socket.kick(&mut counts);
        self.note(result);
        metrics.tx_kicks.add(counts.calls);
        metrics.tx_kicks_again.add(counts.again);
        metrics.tx_device_drops.add(counts.dropped);
    }

    /// Puts what is pending on the TX ring. What does not fit after some kicks is dropped.
    fn transmit(&mut self, frames: &mut FrameCache, metrics: &WorkerMetrics) {
        for _ in 0..=TRANSMIT_RETRIES {
            let count = self.socket.transmit(&mut self.pending);
            metrics.xdp_out.add(count as u64);
            self.unsent |= count > 0;
            self.stirred |= count > 0;
            if self.pending.is_empty() {
                return;
            }
            self.kick(metrics);
            self.serve(frames);
        }
        for frame in self.pending.drain(..) {
            metrics.drop(DropReason::TxRingFull);
            frames.release(frame);
        }
    }
}

/// A listener as frames are matched against it.
#[derive(Clone, Copy)]
struct Local {
    listener: ListenerIndex,
    address: SocketAddr,
}

/// All links of one worker.
pub(super) struct Links {
    links: Vec<Link>,
    frames: FrameCache,
    /// Which link sends on an interface.
    ways_out: ArrayVec<(u32, usize), INTERFACES_MAX>,
    locals: Locals,
    /// Links with frames pending, one bit each.
    queued: u128,
}

/// Links of one worker, by the width of the mask.
pub(super) const LINKS_MAX: usize = 128;

impl Links {
    /// At most [`LINKS_MAX`] links over one UMEM. For each interface the first one owned, else the
    /// first, is its way out.
    pub(super) fn new(
        links: Vec<Link>,
        frames: FrameCache,
        locals: impl IntoIterator<Item = (ListenerIndex, SocketAddr)>,
    ) -> Self {
        let mut ways_out = ArrayVec::<(u32, usize), INTERFACES_MAX>::new();
        for (position, link) in links.iter().enumerate() {
            let ifindex = link.ifindex;
            match ways_out.iter_mut().find(|way| way.0 == ifindex) {
                None => {
                    let _ = ways_out.try_push((ifindex, position));
                }
                Some(way) => {
                    if link.owner && !links[way.1].owner {
                        way.1 = position;
                    }
                }
            }
        }
        let locals = locals
            .into_iter()
            .map(|(listener, address)| Local { listener, address })
            .collect::<Vec<_>>();
        let locals = Locals(locals);
        Self {
            links,
            frames,
            ways_out,
            locals,
            queued: 0,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.links.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.iter()
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        // A lost socket would be readable (POLLERR) for ever.
        let live = self.links.iter().filter(|link| !link.lost);
        live.filter_map(|link| link.socket.fd())
    }

    /// Whether frames wait on a TX ring for another kick.
    pub(super) fn has_unsent(&self) -> bool {
        self.links.iter().any(|link| link.unsent)
    }

    pub(super) fn allocate(&mut self) -> Option<Frame> {
        self.frames.allocate()
    }

    #[inline]
    pub(super) fn release(&mut self, frame: Frame) {
        self.frames.release(frame);
    }

    /// Serves the rings of the link at `position`, then receives up to a batch from it. In raw mode
    /// frames go into `batch` as they are; else they are verified, and what is not for a listener
    /// of ours is dropped. Returns how many frames were received.
    #[inline]
    pub(super) fn receive<const RAW: bool>(
        &mut self,
        position: usize,
        batch: &mut Batch,
        metrics: &WorkerMetrics,
    ) -> usize {
        let Some(link) = self.links.get_mut(position) else {
            return 0;
        };
        link.serve(&mut self.frames);
        let mut received = ArrayVec::<Frame, BATCH>::new();
        let count = link.socket.receive(&mut received);
        if count == 0 {
            return 0;
        }
        link.stirred = true;
        metrics.xdp_in.add(count as u64);
        let (ifindex, partial) = (link.ifindex, link.partial);
        let prefetch = |frame: &Frame| match RAW {
            true => frame.prefetch(),
            false => frame.prefetch_whole(PREFETCH_HEADROOM),
        };
        received.iter().take(PREFETCH_AHEAD).for_each(prefetch);
        let mut rest = received.into_iter();
        while let Some(mut frame) = rest.next() {
            if let Some(ahead) = rest.as_slice().get(PREFETCH_AHEAD - 1) {
                prefetch(ahead);
            }
            let flow = if RAW {
                Ok(NO_FLOW)
            } else {
                self.locals.take_apart(&mut frame, partial, ifindex)
            };
            match flow {
                Ok(flow) => batch.push(Packet {
                    flow,
                    memory: Memory::Frame(frame),
                    origin: Origin::Xdp,
                    ingress: u8::try_from(position).unwrap_or(u8::MAX),
                    hops: 0,
                }),
                Err(reason) => {
                    metrics.drop(reason);
                    self.frames.release(frame);
                }
            }
        }
        count
    }

    /// How full the RX ring of the link at `position` is, in percent.
    pub(super) fn fill(&self, position: usize) -> u8 {
        let waiting = self
            .links
            .get(position)
            .map_or(0, |link| link.socket.rx_len());
        super::out::percent(waiting as usize, RING_LEN as usize)
    }

    /// Writes headers in front of the payload and queues the frame for the interface of `way`.
    ///
    /// `Err` gives the frame back, its payload as it was: there is no link on that interface, or
    /// the packet is longer than `way` takes. The kernel can send it.
    #[inline]
    pub(super) fn send(
        &mut self,
        mut frame: Frame,
        flow: &Flow,
        way: &egress::Link,
        metrics: &WorkerMetrics,
    ) -> Result<(), Frame> {
        let Some((_, position)) = self.ways_out.iter().find(|out| out.0 == way.ifindex) else {
            return Err(frame);
        };
        let headers_len = if flow.peer.is_ipv4() { 20 + 8 } else { 40 + 8 };
        let lost = self.links.get(*position).is_none_or(|link| link.lost);
        if lost || frame.len() + headers_len > way.mtu as usize {
            return Err(frame);
        }
        let header = LinkHeader {
            src_mac: way.src_mac,
            dst_mac: way.dst_mac,
            tags: Tags::default(),
        };
        let payload = frame.range();
        let end = payload.end;
        let start = packet::emit(
            frame.bytes_mut(),
            payload,
            &header,
            flow.local,
            flow.peer,
            TTL,
        );
        match start {
            Ok(start) => {
                frame.set_range(start, end);
                metrics.listener(flow.listener).messages_out.increment();
                self.queue(*position, frame, metrics);
                Ok(())
            }
            Err(_) => Err(frame),
        }
    }

    /// Queues a complete frame on the link at `position`.
    #[inline]
    pub(super) fn queue(&mut self, position: usize, frame: Frame, metrics: &WorkerMetrics) {
        let Some(link) = self.links.get_mut(position) else {
            metrics.drop(DropReason::NoEgress);
            self.frames.release(frame);
            return;
        };
        if link.pending.is_full() {
            link.transmit(&mut self.frames, metrics);
        }
        self.queued |= 1 << position;
        link.pending.push(frame);
    }

    /// Puts all pending frames on their TX rings and kicks those that have frames waiting.
    pub(super) fn flush(&mut self, metrics: &WorkerMetrics) {
        let mut queued = core::mem::take(&mut self.queued);
        while queued != 0 {
            let position = queued.trailing_zeros() as usize;
            queued &= queued - 1;
            if let Some(link) = self.links.get_mut(position) {
                link.transmit(&mut self.frames, metrics);
            }
        }
        for link in self.links.iter_mut().filter(|link| link.unsent) {
            link.kick(metrics);
        }
    }

    /// Sends what still waits, as far as the devices take it within `rounds`, and gives the frames
    /// of the cache back. The rest comes back when the sockets are closed.
    pub(super) fn close(&mut self, rounds: usize, metrics: &WorkerMetrics) {
        for _ in 0..rounds {
            self.flush(metrics);
            for link in &mut self.links {
                link.serve(&mut self.frames);
            }
            if !self.has_unsent() {
                break;
            }
            std::thread::yield_now();
        }
        self.frames.flush();
    }

    /// Adds up what the kernel counts for these sockets.
    pub(super) fn publish_statistics(&self, metrics: &WorkerMetrics) {
        let mut sum = xsk::Statistics::default();
        for link in &self.links {
            let Ok(counts) = link.socket.statistics() else {
                continue;
            };
            sum.rx_dropped += counts.rx_dropped;
            sum.rx_ring_full += counts.rx_ring_full;
            sum.fill_ring_empty += counts.fill_ring_empty;
            sum.rx_invalid += counts.rx_invalid;
            sum.tx_invalid += counts.tx_invalid;
        }
        let gauges = &metrics.xsk;
        gauges.rx_dropped.set(sum.rx_dropped);
        gauges.rx_ring_full.set(sum.rx_ring_full);
        gauges.fill_ring_empty.set(sum.fill_ring_empty);
        gauges.rx_invalid.set(sum.rx_invalid);
        gauges.tx_invalid.set(sum.tx_invalid);
    }
}

/// Frames that are on their way to the cache while one is taken apart. In copy mode another core has
/// written them; in raw mode nobody reads more than their first lines.
const PREFETCH_AHEAD: usize = 3;

/// Bytes in front of a frame that come with it: as much as our rows and marks make an INVITE grow.
const PREFETCH_HEADROOM: usize = 320;

/// The listeners by their bound addresses.
struct Locals(Vec<Local>);

impl Locals {
    /// Verifies `frame`, makes the UDP payload its data, and returns the flow.
    #[inline]
    fn take_apart(
        &self,
        frame: &mut Frame,
        partial: PartialChecksum,
        ifindex: u32,
    ) -> Result<Flow, DropReason> {
        let headers = packet::parse(frame.data(), partial)?;
        let to = headers.dst;
        let ours = |local: &&Local| {
            // Not `==`: a frame has no scope, a link-local listener address has one.
            local.address.port() == to.port() && local.address.ip() == to.ip()
        };
        let local = self.0.iter().find(ours).ok_or(DropReason::NotOurs)?;
        let mut peer = headers.src;
        if let SocketAddr::V6(v6) = &mut peer
            && v6.ip().is_unicast_link_local()
        {
            // The address means something on this interface only.
            v6.set_scope_id(ifindex);
        }
        let start = frame.start();
        frame.set_range(start + headers.payload.start, start + headers.payload.end);
        Ok(Flow {
            listener: local.listener,
            local: local.address,
            peer,
        })
    }
}

/// The flow of a raw frame.
const NO_FLOW: Flow = Flow {
    listener: ListenerIndex(0),
    local: UNSPECIFIED,
    peer: UNSPECIFIED,
};

/// 0.0.0.0:0.
pub(super) const UNSPECIFIED: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
