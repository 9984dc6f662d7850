//! What can go wrong between a program and an interface: object, cause, remedy.

use std::io;

use super::AttachMode;
use crate::limits::{INTERFACES_MAX, QUEUES_MAX, WORKERS_MAX};
use crate::net::SocketAddr;

/// A failure to load, fill, attach or read the steering program.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The configuration asks for more than a bound of `limits.rs`.
    #[error(
        "steering program for {interfaces} interfaces × {queues} queues × {workers} workers: each \
         must be at least 1 and at most {INTERFACES_MAX}, {QUEUES_MAX} and {WORKERS_MAX}"
    )]
    Size {
        /// Interfaces asked for.
        interfaces: usize,
        /// Queues per interface asked for.
        queues: u32,
        /// Workers asked for.
        workers: u32,
    },

    /// The object did not open: the build is broken, not the host.
    #[error("BPF: the built-in object does not open: {cause}; rebuild viaduct")]
    Open {
        /// What libbpf said.
        cause: String,
    },

    /// The kernel refused the maps or the program.
    #[error("BPF: the kernel refused to load the program: {cause}; {remedy}{}", Log(.log))]
    Load {
        /// The system's error.
        cause: io::Error,
        /// What to do about it.
        remedy: &'static str,
        /// What libbpf and the verifier printed.
        log: String,
    },

    /// A map is not what the layout says: the build is broken.
    #[error(
        "BPF: map `{map}` has keys of {key_size} and values of {value_size} bytes, \
         which is not the layout of this build; rebuild viaduct"
    )]
    Layout {
        /// Name of the map.
        map: &'static str,
        /// Bytes of a key.
        key_size: u32,
        /// Bytes of a value.
        value_size: u32,
    },

    /// A map could not be read or written.
    #[error("BPF: cannot {operation} map `{map}`: {cause}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What was tried.
        operation: &'static str,
        /// The system's error.
        cause: io::Error,
    },

    /// The program that shares datagrams among sockets could not be attached to them.
    #[error("BPF: cannot attach to the sockets of an address (SO_ATTACH_REUSEPORT_EBPF): {cause}")]
    Share {
        /// The system's error.
        cause: io::Error,
    },

    /// More VIPs than the map holds.
    #[error("steering program: no room for VIP {address}: at most {max} VIPs")]
    TooManyVips {
        /// The one that did not fit.
        address: SocketAddr,
        /// `limits::VIPS_MAX`.
        max: usize,
    },

    /// More networks in all source lists together than the map holds.
    #[error("steering program: {count} networks in allow and deny lists, at most {max} fit")]
    TooManyNetworks {
        /// Networks in all lists.
        count: usize,
        /// `limits::SOURCE_NETWORKS_MAX`.
        max: usize,
    },

    /// The slot is outside the loaded interfaces, queues and workers.
    #[error(
        "steering program: no slot for ifindex {ifindex}, queue {queue}, worker {worker}: it was \
         loaded without them"
    )]
    Slot {
        /// Interface of the socket.
        ifindex: u32,
        /// RX queue of the socket.
        queue: u32,
        /// Worker of the socket.
        worker: u32,
    },

    /// Another program is attached.
    #[error(
        "interface {interface}: another XDP program is attached ({program}); detach it with \
         `ip link set dev {interface} xdp off` (`bpftool link` if a link holds it) or take the \
         socket datapath"
    )]
    Occupied {
        /// Name of the interface.
        interface: String,
        /// Id, name and mode of the other program.
        program: String,
    },

    /// The kernel or the driver refused to attach.
    #[error("interface {interface}: cannot attach XDP in {mode} mode: {cause}; {remedy}")]
    Attach {
        /// Name of the interface.
        interface: String,
        /// The mode asked for.
        mode: AttachMode,
        /// The system's error.
        cause: io::Error,
        /// What to do about it.
        remedy: &'static str,
    },

    /// The kernel refused to attach behind the driver.
    #[error("interface {interface}: cannot attach to tc: {cause}; kernel 6.6 or newer is needed")]
    AttachTc {
        /// Name of the interface.
        interface: String,
        /// The system's error.
        cause: io::Error,
    },

    /// More frames than a flood has room for, or none.
    #[error("flood: {count} frames to send; 1 to {max} are possible")]
    FloodRecords {
        /// Frames given.
        count: usize,
        /// Frames possible.
        max: usize,
    },

    /// A flood could not be sent.
    #[error(
        "flood: the kernel refused to send frames: {cause}; kernel 5.18 or newer and root are needed"
    )]
    Flood {
        /// The system's error.
        cause: io::Error,
    },

    /// A test run failed to run.
    #[error("test run: {cause}")]
    TestRun {
        /// The system's error.
        cause: io::Error,
    },
}

/// The log on lines of its own, nothing if there is none.
struct Log<'a>(&'a str);

impl core::fmt::Display for Log<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, "\n{}", self.0.trim_end())
    }
}

/// An object that does not open.
pub(super) fn open_error(error: &libbpf_rs::Error) -> BpfError {
    BpfError::Open {
        cause: format!("{error:#}"),
    }
}

/// A program that does not load, with what `log` has kept.
pub(super) fn load_error(error: &libbpf_rs::Error, log: &dyn Fn() -> String) -> BpfError {
    let cause = io_error(error);
    BpfError::Load {
        remedy: load_remedy(&cause),
        cause,
        log: log(),
    }
}

/// What an operator can do about a failed load.
fn load_remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => {
            "run as root, or give CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
        }
        io::ErrorKind::OutOfMemory => "not enough memory or locked memory (LimitMEMLOCK=infinity)",
        _ => "kernel 5.15 or newer with CONFIG_BPF_SYSCALL and CONFIG_XDP_SOCKETS is needed",
    }
}

/// What an operator can do about a failed attachment.
pub(super) fn attach_remedy(cause: &io::Error, mode: AttachMode) -> &'static str {
    match (cause.raw_os_error(), mode) {
        (Some(libc::EPERM | libc::EACCES), _) => "run as root, or give CAP_NET_ADMIN and CAP_BPF",
        (Some(libc::ENODEV), _) => "the interface is gone",
        (Some(libc::EOPNOTSUPP), AttachMode::Native) => {
            "the driver has no native XDP: take mode = \"generic\" or \"socket\""
        }
        (_, AttachMode::Native) => {
            "the driver says why in `dmesg`: often the MTU (jumbo), LRO, or too few free queues; \
             mode = \"generic\" works without the driver"
        }
        (_, AttachMode::Generic) => "`dmesg` may say why",
    }
}

/// A failure at a map.
pub(super) fn map_error(
    map: &'static str,
    operation: &'static str,
    error: &libbpf_rs::Error,
) -> BpfError {
    BpfError::Map {
        map,
        operation,
        cause: io_error(error),
    }
}

/// libbpf-rs's error as the system's: its kind and its words, the number is not to be had.
fn io_error(error: &libbpf_rs::Error) -> io::Error {
    let kind = match error.kind() {
        libbpf_rs::ErrorKind::NotFound => io::ErrorKind::NotFound,
        libbpf_rs::ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        libbpf_rs::ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
        libbpf_rs::ErrorKind::OutOfMemory => io::ErrorKind::OutOfMemory,
        libbpf_rs::ErrorKind::Unsupported => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("{error:#}"))
}
