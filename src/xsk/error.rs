//! What can go wrong while sockets are opened, and the one thing that can afterwards.

use rustix::io::Errno;

use super::device::Mode;

/// Why a UMEM or a socket could not be made, or no longer works.
#[derive(Clone, Debug, thiserror::Error)]
pub enum XskError {
    /// No memory for the UMEM.
    #[error("UMEM of {len} bytes: {source}; lower the number of queues or workers")]
    Map {
        /// Bytes asked for.
        len: usize,
        /// What the kernel said.
        source: Errno,
    },
    /// A UMEM of no frames, or of more than a chunk number can count.
    #[error("UMEM of {frame_count} frames: outside 1..2^32 - 1")]
    UmemSize {
        /// Frames asked for.
        frame_count: usize,
    },
    /// The kernel makes no AF_XDP sockets, or not for us.
    #[error("AF_XDP socket: {0}; needs CONFIG_XDP_SOCKETS and CAP_NET_RAW")]
    Socket(Errno),
    /// The UMEM could not be registered.
    #[error("registering the UMEM: {0}; needs CAP_IPC_LOCK or a higher RLIMIT_MEMLOCK")]
    Register(Errno),
    /// A ring could not be made.
    #[error("{ring} ring of {len} entries: {source}")]
    Ring {
        /// Which one.
        ring: &'static str,
        /// Its entries.
        len: u32,
        /// What the kernel said.
        source: Errno,
    },
    /// The socket could not be bound to its queue.
    #[error("{mode} bind to queue {queue} of interface {interface}: {source}{}", hint(*source))]
    Bind {
        /// Interface index.
        interface: u32,
        /// Queue number.
        queue: u32,
        /// Copy or zero-copy.
        mode: Mode,
        /// What the kernel said.
        source: Errno,
    },
    /// Sockets over one UMEM are all copy or all zero-copy.
    #[error("{wanted} wanted, but the UMEM is open in {open} mode")]
    ModeMismatch {
        /// Mode of the open sockets.
        open: Mode,
        /// Mode asked for.
        wanted: Mode,
    },
    /// Not enough free frames for a fill ring.
    #[error("{got} free frames for a fill ring that wants {wanted}")]
    NoFrames {
        /// Frames wanted.
        wanted: u32,
        /// Frames there were.
        got: u32,
    },
    /// A queue was asked for without sockets, or too often in one process.
    #[error(
        "a device queue has between 1 and {} sockets and is opened less than 32,768 times",
        crate::limits::WORKERS_MAX
    )]
    SocketCount,
    /// A socket that worked no longer does: the interface or its queue is gone.
    #[error("AF_XDP socket stopped working: {0}")]
    Lost(Errno),
}

/// What to do about a refused bind.
fn hint(source: Errno) -> &'static str {
    match source {
        Errno::BUSY => "; another program has an AF_XDP socket there",
        Errno::INVAL => "; is there such a queue? (ethtool -l)",
        Errno::OPNOTSUPP => "; the driver has no zero-copy",
        Errno::PERM => "; needs CAP_NET_RAW",
        Errno::NODEV | Errno::NXIO => "; is there such an interface?",
        _ => "",
    }
}
