//! What there is to know about a host and an interface, as plain data.

use std::path::PathBuf;

use crate::bpf::InterfaceXdp;
use crate::config::{Config, Listener, Mode, ZeroCopy};
use crate::net::IpAddr;
use crate::sys::ethtool::{Channels, Offload, Rings};

/// Everything the checks look at. What could not be found out is `None`, and no problem.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Name of the interface.
    pub interface: String,
    /// Name of its driver.
    pub driver: Option<String>,
    /// Bytes that a frame of it carries.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its queues.
    pub channels: Option<Channels>,
    /// Its receive rings.
    pub rings: Option<Rings>,
    /// Its offloads, by the kernel's name.
    pub offloads: Vec<(String, Offload)>,
    /// Queues that the receive hash spreads over.
    pub spread: Option<usize>,
    /// Whether the receive hash looks at UDP ports.
    pub hashes_udp_ports: Option<bool>,
    /// VLAN interfaces on top of it.
    pub vlans: Vec<String>,
    /// XDP on it.
    pub xdp: InterfaceXdp,
    /// Release of the kernel.
    pub release: String,
    /// Major and minor number of the kernel.
    pub version: Option<(u32, u32)>,
    /// Whether the kernel describes its types.
    pub btf: bool,
    /// Whether an AF_XDP socket could be made, or why not.
    pub xsk: Result<(), String>,
    /// Whether the kernel loads XDP programs for us, or why not.
    pub programs: Result<bool, String>,
    /// What we may do.
    pub capabilities: Capabilities,
    /// Memory we may lock; `None` = any.
    pub memlock: Option<u64>,
    /// `rp_filter`.
    pub reverse_path: Option<ReversePath>,
    /// Whether irqbalance runs.
    pub irqbalance: bool,
    /// Huge pages.
    pub hugepages: Option<Hugepages>,
    /// `net.core.busy_poll` in microseconds.
    pub busy_poll: Option<u32>,
    /// Cores that we may run on.
    pub cores: usize,
}

/// The capabilities that the XDP data path needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Attach programs, force buffer sizes, write neighbours.
    pub net_admin: bool,
    /// Make AF_XDP sockets.
    pub net_raw: bool,
    /// Load programs.
    pub bpf: bool,
    /// Load programs that the verifier treats as privileged.
    pub perfmon: bool,
    /// Lock memory above the limit.
    pub ipc_lock: bool,
}

/// `net.ipv4.conf.*.rp_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReversePath {
    /// Of `all`.
    pub all: u8,
    /// Of the interface.
    pub interface: u8,
}

/// Huge pages of 2 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hugepages {
    /// Free ones.
    pub free: u64,
    /// All.
    pub total: u64,
}

/// What the configuration asks of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The data path.
    pub mode: Mode,
    /// Zero-copy.
    pub zero_copy: ZeroCopy,
    /// Whether to try huge pages.
    pub hugepages: bool,
    /// Workers; `None` = one a queue.
    pub workers: Option<usize>,
    /// Listeners; empty = no configuration was given.
    pub listeners: Vec<Listener>,
    /// The file it stands in, if there is one.
    pub file: Option<PathBuf>,
}

impl Wanted {
    /// What `config` asks for.
    pub fn new(config: &Config, file: PathBuf) -> Self {
        let named = config.workers.cores.len();
        Self {
            mode: config.datapath.mode,
            zero_copy: config.datapath.zero_copy,
            hugepages: config.datapath.hugepages,
            workers: config.workers.count.or((named > 0).then_some(named)),
            listeners: config.listeners.clone(),
            file: Some(file),
        }
    }
}

impl Default for Wanted {
    /// The defaults of a configuration that says nothing.
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            zero_copy: ZeroCopy::Auto,
            hugepages: true,
            workers: None,
            listeners: Vec::new(),
            file: None,
        }
    }
}
