//! Where a datagram leaves: the routing and neighbour tables of the kernel, flattened into one
//! lookup.
//!
//! An [`EgressTable`] is an immutable snapshot that `neighbor` builds and publishes and the pinned
//! workers read, one binary search for each datagram, without a lock and without allocating. Routes
//! of all tables, metrics, gateways and neighbours are melted at build time into disjoint address
//! ranges with one answer each:
//!
//! ```text
//!   0.0.0.0 ──────── 198.18.0.0 ─ 198.18.0.11 ─ 198.18.0.12 ─── 198.19.0.0 ──────►
//!   gateway's MAC    unresolved   server's MAC  unresolved      gateway's MAC
//! ```
//!
//! What the table does not model is answered with [`Resolution::Kernel`], never guessed: policy
//! rules, tunnels, multicast, link-local peers, interfaces that are not Ethernet, more routes than
//! [`ROUTES_MAX`](crate::limits::ROUTES_MAX). The datagram then goes out through the kernel socket and is routed right.

mod build;

use core::sync::atomic::{AtomicBool, Ordering};

use crate::net::{IpAddr, Network, SocketAddr};
use crate::packet::MacAddress;

/// How to reach a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Send a frame.
    Link(Link),
    /// The route is known, the next hop's MAC address is not: the kernel socket, which resolves it.
    Unresolved {
        /// Interface of the route.
        ifindex: u32,
    },
    /// The kernel must decide: it knows something that the table does not model.
    Kernel,
    /// The peer is an address of this host.
    Local,
    /// No route, or one that says unreachable.
    NoRoute,
}

/// Everything in front of the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface to send on.
    pub ifindex: u32,
    /// Its MAC address.
    pub src_mac: MacAddress,
    /// The next hop's MAC address.
    pub dst_mac: MacAddress,
    /// Longest IP packet that the route takes.
    pub mtu: u32,
}

/// An interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Number by which the kernel knows it.
    pub ifindex: u32,
    /// Name, for people.
    pub name: String,
    /// MAC address; zero if it has none.
    pub mac: MacAddress,
    /// Longest IP packet.
    pub mtu: u32,
    /// Up, and speaks Ethernet with address resolution.
    pub usable: bool,
    /// Addresses of the host on it.
    pub addresses: Vec<IpAddr>,
}

/// The kernel's routing tables in the order of its default rules, the last asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteTable {
    /// Table `default` (253).
    Default,
    /// Table `main` (254).
    Main,
    /// Table `local` (255): addresses of this host and broadcasts.
    Local,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Table it stands in.
    pub table: RouteTable,
    /// Destinations it covers.
    pub destination: Network,
    /// Lower is preferred among routes of the same destination.
    pub metric: u32,
    /// MTU of the route if it is less than the interface's.
    pub mtu: Option<u32>,
    /// Where it leads.
    pub target: Target,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To next hops; several are weighed equal and chosen by a hash over the flow.
    Hops(Vec<NextHop>),
    /// To this host.
    Local,
    /// Nowhere: blackhole, unreachable, prohibit.
    Unreachable,
    /// To something that only the kernel can do: broadcast, multicast, tunnel.
    Kernel,
}

/// A next hop of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Interface.
    pub ifindex: u32,
    /// Router on it, of either IP version (RFC 5549 style routes); without one the destination
    /// itself is on the link.
    pub gateway: Option<IpAddr>,
}

/// A neighbour whose MAC address may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Interface it is on.
    pub ifindex: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address.
    pub mac: MacAddress,
}

/// Flows that a policy rule may route otherwise: those between these blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// Source addresses, `None` for any.
    pub from: Option<Network>,
    /// Destination addresses, `None` for any.
    pub to: Option<Network>,
}

/// What the kernel has told: the input of [`EgressTable::build`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Interfaces, at any order.
    pub interfaces: Vec<Interface>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Usable neighbours.
    pub neighbours: Vec<Neighbour>,
    /// Rules besides the default ones that can match a datagram of ours.
    pub rules: Vec<PolicyRule>,
    /// Something is missing, so that an answer could be wrong: everything is the kernel's.
    pub incomplete: bool,
    /// Objects of all kinds that did not fit the limits or were not understood.
    pub left_out: usize,
}

/// One way out. `index` is that of the neighbour whose MAC address it uses.
#[derive(Clone, Copy, Debug)]
struct Hop {
    resolution: Resolution,
    gateway: Option<IpAddr>,
    mtu: u32,
    neighbour: Option<u32>,
}

/// A range of hops: one, or those of a multipath route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    first: u32,
    count: u32,
}

/// Ranges of one IP version: `starts[i]` to before `starts[i + 1]` has `answers[i]`.
#[derive(Debug)]
struct Ranges<K> {
    // INVARIANT: ascending, the first is 0, as many as answers.
    starts: Box<[K]>,
    answers: Box<[Answer]>,
}

impl<K: Ord + Copy> Ranges<K> {
    #[inline]
    fn lookup(&self, key: K) -> Answer {
        let index = self.starts.partition_point(|start| *start <= key);
        let answer = self.answers.get(index.wrapping_sub(1));
        answer.copied().unwrap_or(NO_ROUTE)
    }
}

/// Index of the answers that are always there.
const NO_ROUTE: Answer = Answer { first: 0, count: 1 };
const LOCAL: Answer = Answer { first: 1, count: 1 };
const KERNEL: Answer = Answer { first: 2, count: 1 };

/// A neighbour and whether a worker has sent to it.
#[derive(Debug)]
struct NeighbourUse {
    neighbour: Neighbour,
    used: AtomicBool,
}

/// The snapshot. See the module's description.
#[derive(Debug)]
pub struct EgressTable {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    hops: Box<[Hop]>,
    neighbours: Box<[NeighbourUse]>,
    rules: Box<[PolicyRule]>,
    interfaces: Box<[Interface]>,
    incomplete: bool,
    left_out: usize,
}

impl Default for EgressTable {
    /// A table that knows nothing and gives everything to the kernel.
    fn default() -> Self {
        Self::build(&Topology {
            incomplete: true,
            ..Topology::default()
        })
    }
}

impl EgressTable {
    /// How to reach `peer` with a datagram that leaves from `local`.
    #[inline]
    pub fn resolve(&self, local: IpAddr, peer: SocketAddr) -> Resolution {
        let Some(hop) = self.hop(local, peer) else {
            return Resolution::Kernel;
        };
        if let Some(neighbour) = hop
            .neighbour
            .and_then(|index| self.neighbours.get(index as usize))
        {
            // Read before write: the line stays shared between the workers' caches.
            if !neighbour.used.load(Ordering::Relaxed) {
                neighbour.used.store(true, Ordering::Relaxed);
            }
        }
        hop.resolution
    }

    /// The interface and address to resolve before `peer` can be reached, if there is such a one.
    pub fn next_hop(&self, local: IpAddr, peer: SocketAddr) -> Option<(u32, IpAddr)> {
        let hop = self.hop(local, peer)?;
        let ifindex = match hop.resolution {
            Resolution::Link(link) => link.ifindex,
            Resolution::Unresolved { ifindex } => ifindex,
            Resolution::Kernel | Resolution::Local | Resolution::NoRoute => return None,
        };
        Some((ifindex, hop.gateway.unwrap_or(peer.ip())))
    }

    /// The neighbours that a worker has sent to since the last call.
    pub fn take_used(&self) -> impl Iterator<Item = Neighbour> {
        self.neighbours
            .iter()
            .filter(|entry| entry.used.swap(false, Ordering::Relaxed))
            .map(|entry| entry.neighbour)
    }

    /// Whether everything is given to the kernel because the table may lack something.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Routes, neighbours, rules and interfaces of the host that the table does not have, because
    /// they did not fit the limits or were not understood.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Interfaces of the host.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The interface with the number `ifindex`.
    pub fn interface(&self, ifindex: u32) -> Option<&Interface> {
        self.interfaces
            .iter()
            .find(|interface| interface.ifindex == ifindex)
    }

    /// The interface that has `address`.
    pub fn interface_of(&self, address: IpAddr) -> Option<&Interface> {
        self.interfaces
            .iter()
            .find(|interface| interface.addresses.contains(&address))
    }

    /// The interface of a name.
    pub fn interface_named(&self, name: &str) -> Option<&Interface> {
        self.interfaces
            .iter()
            .find(|interface| interface.name == name)
    }

    fn hop(&self, local: IpAddr, peer: SocketAddr) -> Option<&Hop> {
        if self.incomplete || self.rules.iter().any(|rule| rule.matches(local, peer.ip())) {
            return None;
        }
        let answer = match peer.ip() {
            IpAddr::V4(v4) => self.v4.lookup(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.lookup(v6.to_bits()),
        };
        let chosen = if answer.count > 1 {
            flow_hash(local, peer) % answer.count
        } else {
            0
        };
        self.hops.get((answer.first + chosen) as usize)
    }
}

impl PolicyRule {
    fn matches(&self, local: IpAddr, peer: IpAddr) -> bool {
        self.from.is_none_or(|from| from.contains(local))
            && self.to.is_none_or(|to| to.contains(peer))
    }
}

/// Spreads flows over the hops of a multipath route; one flow always takes the same.
fn flow_hash(local: IpAddr, peer: SocketAddr) -> u32 {
    fn fold(address: IpAddr) -> u64 {
        match address {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h] = v6.segments().map(u64::from);
                ((a ^ e) << 48) | ((b ^ f) << 32) | ((c ^ g) << 16) | (d ^ h)
            }
        }
    }
    // Multiply and take the high half: Knuth's multiplicative hash with the golden ratio.
    let key = fold(local).rotate_left(16) ^ fold(peer.ip()) ^ (u64::from(peer.port()) << 48);
    let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ key.rotate_right(29);
    u32::try_from(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).unwrap_or_default()
}

#[cfg(test)]
mod tests;
