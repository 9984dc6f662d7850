//! Everything between the host's interfaces and the workers: which data path is had, and why.
//!
//! Order of the way up: sockets opened, sockets put into the steering program's map, program
//! attached, threads started. Each candidate mode is tried as a whole; what a failed one opened is
//! closed before the next is tried. The way down is the reverse, and the kernel walks it by itself
//! if the process is killed: links and sockets die with their descriptors.

mod limiter;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tracing::warn;

use crate::bpf::{
    AttachMode, BpfError, CallIdKey, Link, ShareProgram, Slot, SteerConfig, SteerProgram,
    SteeredCounts, Vip,
};
use crate::config::{Config, Listener, Mode, ZeroCopy};
use crate::datapath::egress::EgressTable;
use crate::datapath::{self, Builder, Datapath, DatapathError};
use crate::limits::{QUEUES_MAX, WORKERS_MAX};
use crate::metrics::WorkerMetrics;
use crate::neighbor::{Monitor, NeighborError};
use crate::net::{ListenerIndex, SocketAddr};
use crate::packet::PartialChecksum;
use crate::route::Plan;
use crate::sys::{cpu, ethtool};
use crate::xsk::{self, HugePages};

/// Why no data path could be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetworkError {
    /// Routes and neighbours cannot be read.
    #[error("cannot read routes and neighbours: {0}")]
    Neighbor(#[from] NeighborError),
    /// A listener's address is on no interface that XDP could serve.
    #[error(
        "listener {name} ({address}): the address is on no interface that XDP can serve; \
         `interface` names one for an address that the host does not have yet"
    )]
    NoInterface {
        /// The listener.
        name: String,
        /// Its address.
        address: SocketAddr,
    },
    /// Sockets or threads could not be made.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The steering program could not be loaded or attached.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The kernel refused something.
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
    /// Nothing that `datapath.mode` allows could be had.
    #[error("datapath.mode = \"{mode}\" is not to be had:{reasons}")]
    Unavailable {
        /// The mode asked for.
        mode: &'static str,
        /// One line for each that was tried.
        reasons: String,
    },
}

/// An interface with listeners on it.
#[derive(Clone, Debug)]
struct Arm {
    ifindex: u32,
    name: String,
    driver: String,
    queues: u32,
}

/// The steering program on its interfaces.
struct Steering {
    program: Mutex<SteerProgram>,
    links: Mutex<Vec<Link>>,
}

/// What was obtained.
pub(super) struct Network {
    datapath: String,
    lines: Vec<String>,
    cores: Vec<usize>,
    steering: Option<Steering>,
    /// What chooses among the workers' kernel sockets, by listener.
    shares: Vec<ShareProgram>,
    /// Keeps the egress table fresh while it lives.
    _monitor: Option<Monitor>,
}

/// A data path with one block of counters a worker.
type Opened = (Network, Datapath, Vec<Arc<WorkerMetrics>>);

impl Network {
    /// Opens the best data path that the configuration allows. Packets flow into its sockets from
    /// here on; the caller starts the workers.
    ///
    /// # Errors
    /// See [`NetworkError`]; nothing stays open.
    pub(super) fn open(
        config: &Config,
        plan: &Plan,
        runtime: &Handle,
    ) -> Result<Opened, NetworkError> {
        let (candidates, mode): (&[Candidate], _) = match config.datapath.mode {
            Mode::Auto => (
                &[Candidate::Native, Candidate::Generic, Candidate::Socket],
                "auto",
            ),
            Mode::Native => (&[Candidate::Native], "native"),
            Mode::Generic => (&[Candidate::Generic], "generic"),
            Mode::Socket => (&[Candidate::Socket], "socket"),
        };
        let mut reasons = Vec::new();
        for candidate in candidates {
            let opened = match candidate {
                Candidate::Native => open_xdp(config, plan, runtime, AttachMode::Native),
                Candidate::Generic => open_xdp(config, plan, runtime, AttachMode::Generic),
                Candidate::Socket => open_sockets(config, plan),
            };
            match opened {
                Ok((mut network, datapath, metrics)) => {
                    network.lines.splice(0..0, reasons);
                    return Ok((network, datapath, metrics));
                }
                Err(error) => reasons.push(format!("{}: {error}", candidate.as_str())),
            }
        }
        let reasons = reasons
            .iter()
            .map(|reason| format!("\n  {reason}"))
            .collect();
        Err(NetworkError::Unavailable { mode, reasons })
    }

    /// The data path in one word, as `xdp-native-copy` or `socket`.
    pub(super) fn datapath(&self) -> String {
        self.datapath.clone()
    }

    /// What was obtained and what was not, in lines for the log.
    pub(super) fn summary(&self) -> &[String] {
        &self.lines
    }

    /// Cores of the workers, in order.
    pub(super) fn cores(&self) -> &[usize] {
        &self.cores
    }

    /// Puts a changed configuration's source lists into the steering program.
    ///
    /// # Errors
    /// The map's; the old lists stay.
    pub(super) fn take_lists(&self, config: &Config, plan: &Plan) -> Result<(), BpfError> {
        let Some(mut program) = self.program() else {
            return Ok(());
        };
        program.replace_vips(&vips(config, plan))
    }

    /// The steering program, if there is one.
    fn program(&self) -> Option<MutexGuard<'_, SteerProgram>> {
        let steering = self.steering.as_ref()?;
        let program = steering.program.lock();
        Some(program.unwrap_or_else(PoisonError::into_inner))
    }

    /// Detaches the program: every datagram goes to the kernel from here on.
    pub(super) fn detach(&self) {
        if let Some(steering) = &self.steering {
            steering
                .links
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clear();
        }
    }

    /// How workers were chosen so far, by the steering program and among kernel sockets.
    pub(super) fn steered_counts(&self) -> Vec<(&'static str, u64)> {
        let steered = self.program().and_then(|program| program.steered().ok());
        let shared = self.shares.iter().filter_map(|share| share.counts().ok());
        let shared = shared.reduce(|sum, counts| SteeredCounts {
            by_call_id: sum.by_call_id + counts.by_call_id,
            by_queue: sum.by_queue + counts.by_queue,
        });
        let mut told = Vec::new();
        if let Some(counts) = steered {
            told.push(("call_id", counts.by_call_id));
            told.push(("queue", counts.by_queue));
        }
        if let Some(counts) = shared {
            told.push(("socket_call_id", counts.by_call_id));
            told.push(("socket_kernel", counts.by_queue));
        }
        told
    }

    /// Verdicts of the steering program so far.
    pub(super) fn steering_counts(&self) -> Vec<(&'static str, u64)> {
        let Some(program) = self.program() else {
            return Vec::new();
        };
        match program.counts() {
            Ok(counts) => counts
                .iter()
                .map(|(verdict, count)| (verdict.as_str(), count))
                .collect(),
            Err(_) => Vec::new(),
        }
    }
}

/// A data path to try.
#[derive(Clone, Copy)]
enum Candidate {
    Native,
    Generic,
    Socket,
}

impl Candidate {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "xdp-native",
            Self::Generic => "xdp-generic",
            Self::Socket => "socket",
        }
    }
}

fn open_sockets(config: &Config, plan: &Plan) -> Result<Opened, NetworkError> {
    let (workers, cores) = workers(config, 1);
    let metrics = counters(workers);
    let builder = with_listeners(Builder::new(metrics.clone()), config);
    let datapath = builder.build()?;
    let mut lines = Vec::new();
    let network = Network {
        datapath: "socket".to_owned(),
        shares: share(config, plan, &datapath, metrics.len(), &mut lines),
        lines,
        cores,
        steering: None,
        _monitor: None,
    };
    Ok((network, datapath, metrics))
}

/// Has the Call-ID choose among the workers' kernel sockets of each listener. Without it the kernel
/// chooses by addresses and ports, and workers hand over what is not theirs.
fn share(
    config: &Config,
    plan: &Plan,
    datapath: &Datapath,
    workers: usize,
    lines: &mut Vec<String>,
) -> Vec<ShareProgram> {
    let mut shares = Vec::new();
    if workers == 1 {
        return shares;
    }
    for (index, listener) in numbered(config) {
        match share_one(plan, datapath, workers, index) {
            Ok(program) => shares.push(program),
            Err(error) => {
                lines.push(format!(
                    "{}: the kernel chooses a worker's socket, not the Call-ID: {error}",
                    listener.name
                ));
                // The next one is refused for the same reason.
                break;
            }
        }
    }
    shares
}

fn share_one(
    plan: &Plan,
    datapath: &Datapath,
    workers: usize,
    listener: ListenerIndex,
) -> Result<ShareProgram, BpfError> {
    let workers = u32::try_from(workers).unwrap_or(u32::MAX);
    let program = ShareProgram::load(workers, CallIdKey(plan.keys().affinity_key()))?;
    for (worker, socket) in (0..).zip(datapath.kernel_sockets(listener)) {
        program.set_socket(worker, socket)?;
    }
    if let Some(socket) = datapath.kernel_sockets(listener).next() {
        program.attach(socket)?;
    }
    Ok(program)
}

fn open_xdp(
    config: &Config,
    plan: &Plan,
    runtime: &Handle,
    attach: AttachMode,
) -> Result<Opened, NetworkError> {
    let egress: Arc<ArcSwap<EgressTable>> = Arc::default();
    let monitor = runtime.block_on(Monitor::start(egress.clone()))?;
    let arms = arms(config, &egress.load())?;
    let queues = arms.iter().map(|arm| arm.queues).max().unwrap_or(1);
    let (workers, cores) = workers(config, queues as usize);
    let metrics = counters(workers);

    let mut builder = with_listeners(Builder::new(metrics.clone()), config)
        .egress(egress)
        .huge_pages(if config.datapath.hugepages {
            HugePages::Try
        } else {
            HugePages::Never
        })
        .zero_copy(match (config.datapath.zero_copy, attach) {
            // Zero-copy is the driver's; the generic hook never has it.
            (ZeroCopy::Auto, AttachMode::Generic) | (ZeroCopy::Off, _) => datapath::ZeroCopy::Off,
            (ZeroCopy::Auto, AttachMode::Native) => datapath::ZeroCopy::Auto,
            (ZeroCopy::Require, _) => datapath::ZeroCopy::Require,
        });
    for arm in &arms {
        builder = builder.interface(datapath::Interface {
            ifindex: arm.ifindex,
            queues: arm.queues,
            partial_checksum: partial_checksum(&arm.driver),
        });
    }
    let datapath = builder.build()?;

    let indices = arms.iter().map(|arm| arm.ifindex).collect();
    let slots = u32::try_from(workers).unwrap_or(u32::MAX);
    let mut program = SteerProgram::load(&SteerConfig {
        limit_sources: config.limit.sources,
        call_id_key: Some(CallIdKey(plan.keys().affinity_key())),
        ..SteerConfig::new(indices, queues, slots)
    })?;
    program.replace_vips(&vips(config, plan))?;
    for link in datapath.links() {
        let slot = Slot {
            ifindex: link.ifindex,
            queue: link.queue,
            worker: u32::from(link.worker.0),
        };
        program.set_socket(slot, link.fd)?;
    }
    // Sockets stand in the map: now the program may send frames to them.
    let mut links = Vec::new();
    for arm in &arms {
        links.push(program.attach(arm.ifindex, attach)?);
    }

    let mut lines = Vec::new();
    if let Some(refusal) = datapath.zero_copy_refusal() {
        lines.push(format!(
            "zero-copy is not to be had ({refusal}): copy mode for all"
        ));
    }
    let mut mode = xsk::Mode::ZeroCopy;
    for arm in &arms {
        let obtained = datapath.mode(arm.ifindex).unwrap_or(xsk::Mode::Copy);
        if obtained == xsk::Mode::Copy {
            mode = xsk::Mode::Copy;
        }
        let Arm {
            name,
            driver,
            queues,
            ..
        } = arm;
        lines.push(format!(
            "{name}: driver {driver}, {queues} queues, {} XDP, {obtained}",
            attach.as_str()
        ));
    }
    let shares = share(config, plan, &datapath, workers, &mut lines);
    let network = Network {
        shares,
        datapath: format!("xdp-{}-{mode}", attach.as_str()),
        lines,
        cores,
        steering: Some(Steering {
            program: Mutex::new(program),
            links: Mutex::new(links),
        }),
        _monitor: Some(monitor),
    };
    Ok((network, datapath, metrics))
}

/// The interfaces that hold the listeners' addresses.
fn arms(config: &Config, table: &EgressTable) -> Result<Vec<Arm>, NetworkError> {
    let mut arms: Vec<Arm> = Vec::new();
    for listener in &config.listeners {
        let interface = match &listener.interface {
            Some(name) => table.interface_named(name),
            None => table.interface_of(listener.address.ip()),
        };
        // AF_XDP on loopback does not reliably round-trip; sockets are right there.
        let Some(interface) = interface.filter(|interface| interface.name != "lo") else {
            return Err(NetworkError::NoInterface {
                name: listener.name.clone(),
                address: listener.address,
            });
        };
        if arms.iter().any(|arm| arm.ifindex == interface.ifindex) {
            continue;
        }
        let queues = ethtool::receive_queues(&interface.name)
            .map_err(|error| NetworkError::System("ethtool channels", error))?;
        let most = u32::try_from(QUEUES_MAX).unwrap_or(u32::MAX);
        if queues > most {
            warn!(
                interface = interface.name,
                queues, "only {most} queues are served"
            );
        }
        arms.push(Arm {
            ifindex: interface.ifindex,
            name: interface.name.clone(),
            driver: ethtool::driver(&interface.name).unwrap_or_else(|_| "unknown".to_owned()),
            queues: queues.min(most),
        });
    }
    Ok(arms)
}

/// Virtual devices hand over what a sender on this host left for a network card to finish.
fn partial_checksum(driver: &str) -> PartialChecksum {
    match driver {
        "veth" | "virtio_net" | "tun" | "bridge" | "netkit" => PartialChecksum::Accept,
        _ => PartialChecksum::Reject,
    }
}

/// How many workers, and on which cores.
fn workers(config: &Config, queues: usize) -> (usize, Vec<usize>) {
    let available = cpu::cores();
    let cores = if config.workers.cores.is_empty() {
        available
    } else {
        config.workers.cores.clone()
    };
    let wanted = match (config.workers.count, config.workers.cores.len()) {
        (Some(count), _) => count,
        (None, 0) => queues.min(cores.len()),
        (None, named) => named,
    };
    (wanted.clamp(1, WORKERS_MAX), cores)
}

fn counters(workers: usize) -> Vec<Arc<WorkerMetrics>> {
    (0..workers)
        .map(|_| Arc::new(WorkerMetrics::new()))
        .collect()
}

/// Listeners with their numbers: positions in the configuration.
fn numbered(config: &Config) -> impl Iterator<Item = (ListenerIndex, &Listener)> {
    (0..=u8::MAX).map(ListenerIndex).zip(&config.listeners)
}

fn with_listeners(builder: Builder, config: &Config) -> Builder {
    numbered(config).fold(builder, |builder, (index, listener)| {
        let builder = builder.listener(index, listener.address);
        match listener.freebind {
            true => builder.freebind(listener.address),
            false => builder,
        }
    })
}

fn vips(config: &Config, plan: &Plan) -> Vec<(SocketAddr, Vip)> {
    let vip = |(index, listener): (ListenerIndex, &Listener)| {
        let vip = Vip {
            listener: index,
            // An empty list allows everybody.
            allow: match listener.allow.as_slice() {
                [] => Vec::new(),
                listed => listed
                    .iter()
                    .copied()
                    .chain(plan.always_allowed(index))
                    .collect(),
            },
            deny: listener.deny.clone(),
            limit: limiter::limit(config, listener),
        };
        (listener.address, vip)
    };
    numbered(config).map(vip).collect()
}
