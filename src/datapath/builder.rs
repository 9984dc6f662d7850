//! Putting workers together: links, sockets, pools, hand-over rings.

use std::io;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use crossbeam::queue::ArrayQueue;

use super::egress::EgressTable;
use super::hand_over::Shared;
use super::link::{LINKS_MAX, Link, Links};
use super::out::{Parts, Ports};
use super::packet::{BufferCache, BufferPool};
use super::running::Datapath;
use super::sim::Network;
use super::socket::{Io, Sockets};
use super::worker::Worker;
use crate::limits::{
    BATCH, INTERFACES_MAX, KERNEL_BUFFERS_PER_WORKER, LISTENERS_MAX, QUEUES_MAX, RX_FRAME_LEN_MAX,
    WORKERS_MAX,
};
use crate::metrics::WorkerMetrics;
use crate::net::{IpAddr, ListenerIndex, SocketAddr, WorkerIndex};
use crate::packet::PartialChecksum;
use crate::sys::datagram::{self, SocketOptions};
use crate::sys::error_queue;
use crate::xsk::{DeviceQueue, HugePages, QueueConfig, Umem, UmemConfig, XskError};

/// Buffers of a kernel socket, per direction. 4 MiB holds some 3,000 datagrams of 500 bytes (the
/// kernel counts its own overhead), that is 10 ms at 300,000 a second.
const SOCKET_BUFFER_LEN: usize = 4 << 20;

/// Why a data path could not be built.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The number of workers is out of bounds.
    #[error("{0} workers; 1 to {WORKERS_MAX} are possible")]
    Workers(usize),
    /// Too many interfaces or queues, or an interface named twice.
    #[error(
        "{interfaces} interfaces with {queues} queues in all: at most {INTERFACES_MAX} different \
         interfaces, {QUEUES_MAX} queues on each and {LINKS_MAX} in all are possible"
    )]
    Interfaces {
        /// Interfaces asked for.
        interfaces: usize,
        /// Their queues.
        queues: usize,
    },
    /// Two listeners share an index or an address, or an index is out of bounds.
    #[error("listener {} on {address}: index or address is taken or out of bounds", index.0)]
    Listener {
        /// Its index.
        index: ListenerIndex,
        /// Its address.
        address: SocketAddr,
    },
    /// An address that names no single local address cannot be a listener's.
    #[error("{0} is unspecified; name the address to listen on")]
    Unspecified(SocketAddr),
    /// A kernel socket could not be opened.
    #[error("cannot bind UDP {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Zero-copy was required and is not to be had.
    #[error("zero-copy: {0}; `zero_copy = \"auto\"` would fall back to copy mode")]
    ZeroCopy(XskError),
    /// UMEM or AF_XDP sockets could not be made.
    #[error(transparent)]
    Xsk(#[from] XskError),
    /// A descriptor or a thread was refused.
    #[error("cannot set up workers: {0}")]
    System(#[from] io::Error),
}

/// An interface that XDP serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Number by which the kernel knows it.
    pub ifindex: u32,
    /// Its RX queues, all of which are served.
    pub queues: u32,
    /// Whether its driver delivers unfinished checksums of senders on this host.
    pub partial_checksum: PartialChecksum,
}

/// Whether the device may read and write the UMEM itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopy {
    /// If all queues can, else copy mode for all.
    #[default]
    Auto,
    /// Copy mode.
    Off,
    /// Or refuse to start.
    Require,
}

/// Where the links come from.
enum Devices {
    /// The host's interfaces.
    Real(Vec<Interface>),
    /// Queues in memory, with the interface they play and their number on it.
    Sim(Vec<(Interface, u32, DeviceQueue)>),
}

/// Collects what a data path is made of. One worker per counter block.
pub struct Builder {
    metrics: Vec<Arc<WorkerMetrics>>,
    listeners: Vec<(ListenerIndex, SocketAddr)>,
    freebind: Vec<SocketAddr>,
    devices: Devices,
    zero_copy: ZeroCopy,
    huge_pages: HugePages,
    egress: Arc<ArcSwap<EgressTable>>,
    wanted: Option<Arc<ArrayQueue<IpAddr>>>,
}

impl Builder {
    /// As many workers as `metrics`.
    pub fn new(metrics: Vec<Arc<WorkerMetrics>>) -> Self {
        Self {
            metrics,
            listeners: Vec::new(),
            freebind: Vec::new(),
            devices: Devices::Real(Vec::new()),
            zero_copy: ZeroCopy::Auto,
            huge_pages: HugePages::Try,
            egress: Arc::default(),
            wanted: None,
        }
    }

    /// A listener and the address it is bound to. Port 0 lets the kernel choose, with one worker.
    pub fn listener(mut self, index: ListenerIndex, address: SocketAddr) -> Self {
        self.listeners.push((index, address));
        self
    }

    /// A listener's address that the host may not have yet.
    pub fn freebind(mut self, address: SocketAddr) -> Self {
        self.freebind.push(address);
        self
    }

    /// An interface with AF_XDP sockets on all its queues. Without any it is the socket datapath.
    pub fn interface(mut self, interface: Interface) -> Self {
        match &mut self.devices {
            Devices::Real(interfaces) => interfaces.push(interface),
            sim @ Devices::Sim(_) => *sim = Devices::Real(vec![interface]),
        }
        self
    }

    /// Whether zero-copy is tried.
    pub fn zero_copy(mut self, zero_copy: ZeroCopy) -> Self {
        self.zero_copy = zero_copy;
        self
    }

    /// Which pages the UMEM lies on.
    pub fn huge_pages(mut self, huge_pages: HugePages) -> Self {
        self.huge_pages = huge_pages;
        self
    }

    /// The snapshot of routes and neighbours that links send by. Without, everything is sent by
    /// the kernel.
    pub fn egress(mut self, egress: Arc<ArcSwap<EgressTable>>) -> Self {
        self.egress = egress;
        self
    }

    /// Where peers are reported whose link address is not known; full, a report is lost.
    pub fn wanted(mut self, wanted: Arc<ArrayQueue<IpAddr>>) -> Self {
        self.wanted = Some(wanted);
        self
    }

    fn check(&self) -> Result<(), DatapathError> {
        let workers = self.metrics.len();
        if !(1..=WORKERS_MAX).contains(&workers) {
            return Err(DatapathError::Workers(workers));
        }
        for (position, (index, address)) in self.listeners.iter().enumerate() {
            let mut earlier = self.listeners.iter().take(position);
            let taken = earlier
                .any(|other| other.0 == *index || (other.1 == *address && address.port() != 0));
            if taken || usize::from(index.0) >= LISTENERS_MAX {
                return Err(DatapathError::Listener {
                    index: *index,
                    address: *address,
                });
            }
            if address.ip().is_unspecified() {
                return Err(DatapathError::Unspecified(*address));
            }
        }
        if let Devices::Real(interfaces) = &self.devices {
            check_interfaces(interfaces)?;
        }
        Ok(())
    }

    /// Opens all sockets and makes the workers.
    ///
    /// # Errors
    /// See [`DatapathError`]; no socket stays open.
    pub fn build(self) -> Result<Datapath, DatapathError> {
        let options = SocketOptions {
            reuse_port: self.metrics.len() > 1,
            freebind: false,
            receive_buffer_len: SOCKET_BUFFER_LEN,
            send_buffer_len: SOCKET_BUFFER_LEN,
        };
        let freebind = self.freebind.clone();
        self.build_with(|_worker, address| {
            let bind = |source| DatapathError::Bind { address, source };
            let options = SocketOptions {
                freebind: freebind.contains(&address),
                ..options
            };
            let socket = datagram::open(address, &options).map_err(bind)?;
            error_queue::enable(&socket).map_err(bind)?;
            let local = datagram::local_address(&socket).map_err(bind)?;
            Ok((local, Io::Kernel(socket)))
        })
    }

    /// The same workers over networks in memory, one per worker, and over queues in memory
    /// ([`xsk::testing`](crate::xsk::testing)): each with the interface it plays and its number.
    /// Their kernel ends stay with the caller.
    ///
    /// # Errors
    /// See [`DatapathError`].
    pub fn build_sim(
        mut self,
        queues: Vec<(Interface, u32, DeviceQueue)>,
    ) -> Result<(Datapath, Vec<Network>), DatapathError> {
        let networks: Vec<Network> = self.metrics.iter().map(|_| Network::new()).collect();
        self.devices = Devices::Sim(queues);
        let datapath = self.build_with(|worker, address| {
            Ok((address, Io::Sim(networks[usize::from(worker.0)].clone())))
        })?;
        Ok((datapath, networks))
    }

    fn build_with(
        self,
        mut open: impl FnMut(WorkerIndex, SocketAddr) -> Result<(SocketAddr, Io), DatapathError>,
    ) -> Result<Datapath, DatapathError> {
        self.check()?;
        let workers = self.metrics.len();
        let shared = Arc::new(Shared::new(workers)?);
        let pool = Arc::new(BufferPool::new(workers * KERNEL_BUFFERS_PER_WORKER));
        let opened = open_links(self.devices, workers, self.zero_copy, self.huge_pages)?;
        // A datagram that fills a chunk whole has at least 14 + 20 + 8 bytes of headers.
        let leak_len_max = match opened.umem {
            Some(_) => RX_FRAME_LEN_MAX - 42,
            None => 0,
        };
        let mut made = Vec::with_capacity(workers);
        let parts = (0..=u8::MAX).map(WorkerIndex).zip(&self.metrics);
        for ((index, metrics), links) in parts.zip(opened.links) {
            let mut sockets = Vec::with_capacity(self.listeners.len());
            for (listener, address) in &self.listeners {
                let (local, io) = open(index, *address)?;
                sockets.push((*listener, local, io));
            }
            let sockets = Sockets::new(sockets, leak_len_max);
            let links = opened
                .umem
                .map(|umem| Links::new(links, umem.cache(), sockets.addresses()));
            made.push(Worker::new(Ports::new(Parts {
                index,
                metrics: metrics.clone(),
                links,
                egress: self.egress.clone(),
                wanted: self.wanted.clone(),
                sockets,
                buffers: BufferCache::new(pool.clone()),
                shared: shared.clone(),
            })));
        }
        Ok(Datapath {
            workers: made,
            metrics: self.metrics,
            shared,
            pool,
            zero_copy_refusal: opened.refusal,
        })
    }
}

fn check_interfaces(interfaces: &[Interface]) -> Result<(), DatapathError> {
    let queues: usize = interfaces.iter().map(|one| one.queues as usize).sum();
    let each_fits = interfaces.iter().enumerate().all(|(position, one)| {
        let mut earlier = interfaces.iter().take(position);
        (1..=QUEUES_MAX).contains(&(one.queues as usize))
            && earlier.all(|other| other.ifindex != one.ifindex)
    });
    if each_fits && interfaces.len() <= INTERFACES_MAX && queues <= LINKS_MAX {
        Ok(())
    } else {
        Err(DatapathError::Interfaces {
            interfaces: interfaces.len(),
            queues,
        })
    }
}

/// Links by worker.
struct OpenLinks {
    links: Vec<Vec<Link>>,
    umem: Option<&'static Umem>,
    refusal: Option<XskError>,
}

/// Every queue gets a socket for every worker, since the steering program chooses the worker by
/// Call-ID. The owner of a queue's rings is the worker that it chooses where there is none.
fn open_links(
    devices: Devices,
    workers: usize,
    zero_copy: ZeroCopy,
    huge_pages: HugePages,
) -> Result<OpenLinks, DatapathError> {
    let mut refusal = None;
    let queues: Vec<(Interface, u32, DeviceQueue)> = match devices {
        Devices::Sim(queues) => queues,
        Devices::Real(interfaces) => {
            let places: Vec<(Interface, u32)> = interfaces
                .iter()
                .flat_map(|interface| (0..interface.queues).map(|queue| (*interface, queue)))
                .collect();
            let opened = open_queues(&places, workers, zero_copy, huge_pages, &mut refusal)?;
            let placed = places.into_iter().zip(opened);
            placed
                .map(|((interface, queue), opened)| (interface, queue, opened))
                .collect()
        }
    };
    let mut links: Vec<Vec<Link>> = (0..workers).map(|_| Vec::new()).collect();
    let mut umem = None;
    for (interface, queue, opened) in queues {
        let rings = Arc::new(Mutex::new(opened.rings));
        let owner = queue as usize % workers;
        for (position, socket) in opened.sockets.into_iter().enumerate() {
            umem = Some(socket.umem());
            // The first socket is the owner's, the others follow it in a circle.
            let worker = (owner + position) % workers;
            let link = Link::new(
                interface.ifindex,
                socket,
                rings.clone(),
                position == 0,
                interface.partial_checksum,
            );
            links[worker].push(link);
        }
    }
    Ok(OpenLinks {
        links,
        umem,
        refusal,
    })
}

/// Frames for `queues` device queues and `workers` workers; [`FRAME_LEN`](crate::limits::FRAME_LEN)
/// bytes each.
pub fn frame_count(queues: usize, workers: usize) -> usize {
    // Owners' rings can be full at once. Sockets of other workers only transmit: some batches.
    let transmitting = queues * workers.saturating_sub(1) * 8 * BATCH;
    UmemConfig::for_rings(queues, 1, workers).frame_count + transmitting
}

fn open_queues(
    places: &[(Interface, u32)],
    workers: usize,
    zero_copy: ZeroCopy,
    huge_pages: HugePages,
    refusal: &mut Option<XskError>,
) -> Result<Vec<DeviceQueue>, DatapathError> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let umem = Umem::map(UmemConfig {
        frame_count: frame_count(places.len(), workers),
        huge_pages,
    })?;
    let configs: Vec<QueueConfig> = places
        .iter()
        .map(|(interface, queue)| QueueConfig::new(interface.ifindex, *queue, workers))
        .collect();
    let mut cache = umem.cache();
    let opened = DeviceQueue::open_all(umem, &configs, zero_copy != ZeroCopy::Off, &mut cache)?;
    match opened.refusal {
        Some(error) if zero_copy == ZeroCopy::Require => Err(DatapathError::ZeroCopy(error)),
        other => {
            *refusal = other;
            Ok(opened.queues)
        }
    }
}
