//! The generator on AF_XDP: user agents whose addresses no kernel knows.
//!
//! ```text
//!   thread 0 ── socket (queue 0, thread 0) ─┐                ┌─ bpf/agents.bpf.c: whose address is it?
//!            └─ socket (queue 1, thread 0) ─┼─ interface ────┤
//!   thread 1 ── socket (queue 0, thread 1) ─┤                └─ nobody's of ours: to the kernel
//!            └─ socket (queue 1, thread 1) ─┘
//! ```
//!
//! A thread has a socket on every queue, since answers come in where the device puts them, and
//! sends on one. Frames go to the MAC address that the peer's frames came from; before it has sent
//! any, to the one that the kernel's routes and neighbours name. A thread with work to expect looks
//! at its rings and does not sleep: a wake-up costs more than a message.

mod port;
mod ways;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use crossbeam::queue::ArrayQueue;
use tokio::runtime::Runtime;

use super::config::GeneratorError;
use super::transport::share;
use crate::bpf::{AgentsProgram, AttachMode, BpfError, Link};
use crate::datapath::egress::{EgressTable, Interface, Resolution};
use crate::limits::{AGENT_RING_LEN, BATCH, QUEUES_MAX, SLAB, WORKERS_MAX};
use crate::neighbor::{Monitor, NeighborError};
use crate::packet::{MacAddress, PartialChecksum};
use crate::sys::{clock, ethtool};
use crate::time::Duration;
use crate::xsk::{DeviceQueue, HugePages, QueueConfig, Umem, UmemConfig, XskError};

pub(super) use port::{Port, Receiver, Sender};
use ways::Ways;

/// How long a neighbour may take to answer before the start fails: three requests of the kernel's,
/// a second apart.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two looks meanwhile.
const RESOLVE_LOOK: Duration = Duration::from_millis(20);

/// Which interface, and how to reach others through it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdpConfig {
    /// Name of the interface; without, that of the route or of the address.
    pub interface: Option<String>,
    /// Where all frames are sent; without, where routes and neighbours say.
    pub gateway_mac: Option<MacAddress>,
    /// Take frames in the kernel's generic hook, not in the driver.
    pub generic: bool,
}

/// Why the generator has no AF_XDP path.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// The kernel refused the program.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// UMEM or sockets could not be made.
    #[error(transparent)]
    Xsk(#[from] XskError),
    /// Routes and neighbours cannot be read.
    #[error(transparent)]
    Neighbor(#[from] NeighborError),
    /// No interface is named and none can be guessed.
    #[error("no interface leads to {0}; name one with --interface")]
    NoInterface(IpAddr),
    /// There is no such interface, or it speaks no Ethernet.
    #[error("--interface {0}: no such Ethernet interface")]
    Unusable(String),
    /// Nobody answers for the next hop.
    #[error("no neighbour answers on the way to {0}; name its MAC address with --gateway-mac")]
    Unresolved(SocketAddr),
    /// The kernel refused something else.
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
}

/// Memory of earlier runs: a UMEM lives as long as the process, and runs may follow each other.
static IDLE: Mutex<Vec<&'static Umem>> = Mutex::new(Vec::new());

/// Frames for so many queues and threads: the fill rings are half full, the frames that were in them
/// stand on RX rings, and every thread sends.
fn frame_count(queues: usize, threads: usize) -> usize {
    let ring_len = AGENT_RING_LEN as usize;
    queues * (2 * ring_len) + threads * (ring_len + 2 * SLAB + 4 * BATCH)
}

/// A UMEM with so many frames that nobody uses.
fn umem(frame_count: usize) -> Result<&'static Umem, XskError> {
    let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(fitting) = idle.iter().position(|umem| umem.frames() >= frame_count) {
        return Ok(idle.swap_remove(fitting));
    }
    Umem::map(UmemConfig {
        frame_count,
        huge_pages: HugePages::Try,
    })
}

/// What all threads have together: it lives as long as any of them.
struct Device {
    // Detached first: no frame goes to a socket that closes.
    _link: Link,
    _program: AgentsProgram,
    _monitor: Monitor,
    /// Runs the monitor.
    _runtime: Runtime,
    umem: &'static Umem,
}

impl Drop for Device {
    fn drop(&mut self) {
        // Each port has closed its sockets before it let go of this.
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(self.umem);
    }
}

/// Opens the path on one interface; a port for each thread, `threads` at most.
pub(super) fn open(
    config: &XdpConfig,
    addresses: &[SocketAddr],
    threads: Option<usize>,
    towards: Option<SocketAddr>,
) -> Result<Vec<Port>, GeneratorError> {
    Ok(open_device(config, addresses, threads, towards)?)
}

fn open_device(
    config: &XdpConfig,
    addresses: &[SocketAddr],
    threads: Option<usize>,
    towards: Option<SocketAddr>,
) -> Result<Vec<Port>, XdpError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| XdpError::System("tokio", error))?;
    let egress: Arc<ArcSwap<EgressTable>> = Arc::default();
    let monitor = runtime.block_on(Monitor::start(egress.clone()))?;
    let wanted = monitor.wanted();
    let interface = interface(config, &egress.load(), addresses, towards)?;
    if let (Some(target), None) = (towards, config.gateway_mac) {
        resolve(&egress, &wanted, target, &interface)?;
    }

    let queues = ethtool::receive_queues(&interface.name)
        .map_err(|error| XdpError::System("ethtool channels", error))?
        .clamp(1, u32::try_from(QUEUES_MAX).unwrap_or(u32::MAX));
    let queue_count = queues as usize;
    let threads = threads
        .unwrap_or(queue_count)
        .clamp(1, addresses.len().clamp(1, WORKERS_MAX));
    let umem = umem(frame_count(queue_count, threads))?;
    let configs: Vec<QueueConfig> = (0..queues)
        .map(|queue| QueueConfig {
            ring_len: AGENT_RING_LEN,
            fill_len: 2 * AGENT_RING_LEN,
            ..QueueConfig::new(interface.ifindex, queue, threads)
        })
        .collect();
    let mut cache = umem.cache();
    let opened = DeviceQueue::open_all(umem, &configs, !config.generic, &mut cache)?;
    drop(cache);

    let thread_count = u32::try_from(threads).unwrap_or(u32::MAX);
    let agents: Vec<(SocketAddr, u32)> = addresses
        .iter()
        .zip((0..thread_count).cycle())
        .map(|(address, thread)| (*address, thread))
        .collect();
    let program = AgentsProgram::load(queues, thread_count, &agents)?;

    let mut links: Vec<Vec<port::QueueLink>> = (0..threads).map(|_| Vec::new()).collect();
    for (number, queue) in opened.queues.into_iter().enumerate() {
        let rings = Arc::new(Mutex::new(queue.rings));
        for (position, socket) in queue.sockets.into_iter().enumerate() {
            // The first socket is that of the rings' owner, which differs from queue to queue.
            let thread = (number + position) % threads;
            if let Some(fd) = socket.fd() {
                let thread = u32::try_from(thread).unwrap_or(u32::MAX);
                program.set_socket(socket.queue(), thread, fd)?;
            }
            links[thread].push(port::QueueLink::new(socket, rings.clone(), position == 0));
        }
    }
    let mode = match config.generic {
        true => AttachMode::Generic,
        false => AttachMode::Native,
    };
    let device = Arc::new(Device {
        _link: program.attach(interface.ifindex, mode)?,
        _program: program,
        _monitor: monitor,
        _runtime: runtime,
        umem,
    });
    let partial = partial_checksum(&interface.name);
    let ports = links.into_iter().enumerate().map(|(thread, links)| {
        let ways = Ways::new(
            interface.mac,
            interface.mtu,
            config.gateway_mac,
            egress.clone(),
            wanted.clone(),
        );
        let addresses = share(addresses, thread, threads).collect();
        Port::new(
            addresses,
            links,
            umem.cache(),
            ways,
            partial,
            device.clone(),
        )
    });
    Ok(ports.collect())
}

/// The interface that is named, or that leads to the target, or that has the first address.
fn interface(
    config: &XdpConfig,
    table: &EgressTable,
    addresses: &[SocketAddr],
    towards: Option<SocketAddr>,
) -> Result<Interface, XdpError> {
    let first = addresses.first().map(|address| address.ip());
    let found = match (&config.interface, towards, first) {
        (Some(name), ..) => {
            let named = table.interface_named(name);
            let named = named.filter(|interface| interface.usable);
            return named
                .cloned()
                .ok_or_else(|| XdpError::Unusable(name.clone()));
        }
        (None, Some(target), Some(first)) => table
            .next_hop(first, target)
            .and_then(|(ifindex, _)| table.interface(ifindex)),
        (None, None, Some(first)) => table.interface_of(first),
        (None, _, None) => None,
    };
    let wanted = towards.map(|target| target.ip()).or(first);
    found
        .filter(|interface| interface.usable)
        .cloned()
        .ok_or(XdpError::NoInterface(
            wanted.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)),
        ))
}

/// Waits until the kernel knows the MAC address on the way to `target`.
fn resolve(
    egress: &ArcSwap<EgressTable>,
    wanted: &ArrayQueue<IpAddr>,
    target: SocketAddr,
    interface: &Interface,
) -> Result<(), XdpError> {
    let local = interface.addresses.iter();
    let mut local = local.filter(|address| address.is_ipv4() == target.is_ipv4());
    let local = local.next().copied().unwrap_or(target.ip());
    let end = clock::now() + RESOLVE_TIMEOUT;
    loop {
        if let Resolution::Link(_) = egress.load().resolve(local, target) {
            return Ok(());
        }
        if clock::now() >= end {
            return Err(XdpError::Unresolved(target));
        }
        let _ = wanted.push(target.ip());
        std::thread::sleep(RESOLVE_LOOK);
    }
}

/// Virtual devices hand over what a sender on this host left for a network card to finish.
fn partial_checksum(interface: &str) -> PartialChecksum {
    match ethtool::driver(interface).as_deref() {
        Ok("veth" | "virtio_net" | "tun" | "bridge" | "netkit") => PartialChecksum::Accept,
        _ => PartialChecksum::Reject,
    }
}
