//! How messages get to a thread of the generator and from it: kernel sockets, or AF_XDP.
//!
//! Both paths look alike to the two sides: a number of local addresses, each with an index; batches
//! of datagrams in; messages out that leave with the next flush. A thread has its addresses alone,
//! so that nothing is shared between threads but the device.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::config::GeneratorError;
use super::socket::{self, Sockets};
use super::xdp::{self, Port, XdpConfig};
use crate::packet::MacAddress;
use crate::time::Duration;

/// Place of a local address among those of a thread.
pub(super) type AddressIndex = usize;

/// Which path messages take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Datapath {
    /// Kernel sockets, one for each address and port.
    #[default]
    Sockets,
    /// AF_XDP on one interface.
    Xdp(XdpConfig),
}

/// The path on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DatapathKind {
    /// Kernel sockets.
    #[default]
    Socket,
    /// AF_XDP: needs root, and an interface for itself.
    Xdp,
}

/// Options of the path.
#[derive(clap::Args, Clone, Debug)]
pub struct DatapathArgs {
    /// Send and receive through kernel sockets or through AF_XDP.
    #[arg(long, value_enum, default_value_t)]
    pub datapath: DatapathKind,
    /// With --datapath xdp: the interface; without it that of the route, or of the address.
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// With --datapath xdp: send everything to this MAC address; without it the kernel's routes and
    /// neighbours decide.
    #[arg(long, value_name = "MAC", value_parser = super::flood::parse_mac)]
    pub gateway_mac: Option<MacAddress>,
    /// With --datapath xdp: use the kernel's generic hook, which works with every driver.
    #[arg(long)]
    pub generic: bool,
    /// Threads, each with its share of the addresses; without it one, and with --datapath xdp one
    /// for each queue of the interface.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub threads: Option<u8>,
    /// Cores of the threads, in turn; without it the kernel chooses.
    #[arg(long, value_name = "CORES", value_delimiter = ',')]
    pub cores: Vec<usize>,
}

impl DatapathArgs {
    /// The path they name.
    pub fn datapath(&self) -> Datapath {
        match self.datapath {
            DatapathKind::Socket => Datapath::Sockets,
            DatapathKind::Xdp => Datapath::Xdp(XdpConfig {
                interface: self.interface.clone(),
                gateway_mac: self.gateway_mac,
                generic: self.generic,
            }),
        }
    }
}

/// The share of a thread: every `of`th address, and every `of`th call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Number of the thread.
    pub(super) thread: u64,
    /// Threads.
    pub(super) of: u64,
}

impl Share {
    /// The share of the only thread.
    #[cfg(test)]
    pub(super) const WHOLE: Self = Self { thread: 0, of: 1 };
}

/// What a thread will receive from and send to, before it is on its thread.
pub(super) enum Opened {
    Sockets(Sockets),
    Xdp(Box<Port>),
}

/// Opens the path for these addresses, divided among `threads` threads at most: an address has one
/// thread. `towards` is whom the addresses must reach; without it they answer.
pub(super) fn open(
    datapath: &Datapath,
    addresses: &[SocketAddr],
    threads: Option<usize>,
    towards: Option<SocketAddr>,
) -> Result<Vec<Opened>, GeneratorError> {
    match datapath {
        Datapath::Sockets => {
            let threads = threads.unwrap_or(1).clamp(1, addresses.len().max(1));
            (0..threads)
                .map(|thread| {
                    let share: Vec<SocketAddr> = share(addresses, thread, threads).collect();
                    Ok(Opened::Sockets(Sockets::bind(&share)?))
                })
                .collect()
        }
        Datapath::Xdp(config) => {
            let ports = xdp::open(config, addresses, threads, towards)?;
            Ok(ports.into_iter().map(Box::new).map(Opened::Xdp).collect())
        }
    }
}

/// The addresses of one thread.
pub(super) fn share(
    addresses: &[SocketAddr],
    thread: usize,
    threads: usize,
) -> impl Iterator<Item = SocketAddr> {
    addresses
        .iter()
        .copied()
        .skip(thread)
        .step_by(threads.max(1))
}

impl Opened {
    /// The addresses, with the port that port 0 became.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        match self {
            Self::Sockets(sockets) => sockets.addresses(),
            Self::Xdp(port) => port.addresses(),
        }
    }

    /// The two halves, for the thread that uses them.
    pub(super) fn split(self) -> Result<(Receiver, Sender), GeneratorError> {
        match self {
            Self::Sockets(sockets) => {
                let sockets = Rc::new(sockets);
                let receiver = socket::Receiver::new(&sockets);
                let receiver = receiver.map_err(|error| GeneratorError::System {
                    what: "epoll",
                    error,
                })?;
                let sender = socket::Sender::new(&sockets);
                Ok((Receiver::Sockets(receiver), Sender::Sockets(sender)))
            }
            Self::Xdp(port) => {
                let (receiver, sender) = port.split();
                Ok((Receiver::Xdp(receiver), Sender::Xdp(sender)))
            }
        }
    }
}

/// What a path of ours has lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    /// Datagrams that arrived and found no room.
    pub(super) receive_drops: u64,
    /// Messages that could not be sent.
    pub(super) send_refused: u64,
    /// Datagrams with a wrong checksum or length. The kernel drops those of its sockets unseen.
    pub(super) damaged: u64,
}

impl Losses {
    /// Adds those of another thread.
    pub(super) fn merge(&mut self, other: Self) {
        self.receive_drops += other.receive_drops;
        self.send_refused += other.send_refused;
        self.damaged += other.damaged;
    }
}

/// The receiving half.
pub(super) enum Receiver {
    Sockets(socket::Receiver),
    Xdp(xdp::Receiver),
}

impl Receiver {
    /// Waits until a datagram is there or `timeout` has passed. `true` if one is.
    pub(super) fn wait(&mut self, timeout: Duration) -> bool {
        match self {
            Self::Sockets(receiver) => receiver.wait(timeout),
            Self::Xdp(receiver) => receiver.wait(timeout),
        }
    }

    /// Gives each datagram that is there to `each`, as (bytes, local address, sender), until none
    /// is left or each queue has had its share.
    pub(super) fn receive(&mut self, each: impl FnMut(&[u8], AddressIndex, SocketAddr)) {
        match self {
            Self::Sockets(receiver) => receiver.receive(each),
            Self::Xdp(receiver) => receiver.receive(each),
        }
    }

    /// CPU time spent waiting: an AF_XDP thread looks at its rings instead of sleeping.
    pub(super) fn idle(&self) -> Duration {
        match self {
            Self::Sockets(_) => Duration::ZERO,
            Self::Xdp(receiver) => receiver.idle(),
        }
    }
}

/// The sending half.
pub(super) enum Sender {
    Sockets(socket::Sender),
    Xdp(xdp::Sender),
}

impl Sender {
    /// The local addresses.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        match self {
            Self::Sockets(sender) => sender.addresses(),
            Self::Xdp(sender) => sender.addresses(),
        }
    }

    /// Queues the message that `write` appends.
    #[inline]
    pub(super) fn send(
        &mut self,
        from: AddressIndex,
        peer: SocketAddr,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        match self {
            Self::Sockets(sender) => sender.send(from, peer, write),
            Self::Xdp(sender) => sender.send(from, peer, write),
        }
    }

    /// Sends everything queued.
    pub(super) fn flush(&mut self) {
        match self {
            Self::Sockets(sender) => sender.flush(),
            Self::Xdp(sender) => sender.flush(),
        }
    }

    /// What was lost so far, in either direction.
    pub(super) fn losses(&self) -> Losses {
        match self {
            Self::Sockets(sender) => sender.losses(),
            Self::Xdp(sender) => sender.losses(),
        }
    }
}

/// The address of ours that the kernel would send from to reach `peer`.
pub(super) fn source_towards(peer: SocketAddr) -> std::io::Result<IpAddr> {
    socket::source_towards(peer)
}
