//! From netlink messages to the plain data of [`egress`](crate::datapath::egress).
//!
//! Pure. What is not understood becomes [`Target::Kernel`], or a rule that sends more to the kernel
//! than it must: the snapshot may know less than the kernel, never otherwise.

use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop,
    RouteNextHopFlags, RouteType, RouteVia,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, IpProtocol};

use crate::datapath::egress::{Interface, NextHop, PolicyRule, Route, RouteTable, Target};
use crate::net::{IpAddr, Ipv4Addr, Ipv6Addr, Network};
use crate::packet::MacAddress;

/// Interface of a link message, without its addresses.
pub(super) fn interface(message: &LinkMessage) -> Interface {
    let mut interface = Interface {
        ifindex: message.header.index,
        name: String::new(),
        mac: MacAddress::default(),
        mtu: 0,
        usable: false,
        addresses: Vec::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::Address(bytes) => {
                interface.mac = MacAddress::from_bytes(bytes).unwrap_or_default();
            }
            _ => {}
        }
    }
    let flags = message.header.flags;
    interface.usable = message.header.link_layer_type == LinkLayerType::Ether
        && flags.contains(LinkFlags::Up)
        && !flags.intersects(LinkFlags::Noarp | LinkFlags::Loopback)
        && interface.mac.is_unicast();
    interface
}

/// Interface index and address of an address message.
pub(super) fn address(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    // On a point-to-point link ADDRESS is the other end and LOCAL is ours (linux/if_addr.h).
    Some((message.header.index, local.or(address)?))
}

/// What the kernel thinks of a neighbour (`NUD_*`, linux/neighbour.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reachability {
    /// Set by hand or by the protocol: never asked for.
    Fixed,
    /// Confirmed a short while ago.
    Reachable,
    /// Known, not confirmed for a while, nobody asks.
    Stale,
    /// Known, the kernel has asked and waits for the answer.
    Probing,
    /// Not known.
    Unknown,
}

/// What a neighbour message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NeighbourEntry {
    pub(super) mac: Option<MacAddress>,
    pub(super) reachability: Reachability,
}

/// Interface index, address and entry of a neighbour message; `None` for bridge and proxy entries.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<((u32, IpAddr), NeighbourEntry)> {
    if !matches!(
        message.header.family,
        AddressFamily::Inet | AddressFamily::Inet6
    ) {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = MacAddress::from_bytes(bytes),
            _ => {}
        }
    }
    let reachability = match message.header.state {
        NeighbourState::Permanent | NeighbourState::Noarp => Reachability::Fixed,
        NeighbourState::Reachable => Reachability::Reachable,
        // Delay: the kernel has sent and will ask, but only after delay_first_probe_time, 5 s.
        NeighbourState::Stale | NeighbourState::Delay => Reachability::Stale,
        NeighbourState::Probe => Reachability::Probing,
        _ => Reachability::Unknown,
    };
    let mac = mac.filter(|mac| mac.is_unicast() && reachability != Reachability::Unknown);
    Some((
        (message.header.ifindex, address?),
        NeighbourEntry { mac, reachability },
    ))
}

const TABLE_DEFAULT: u32 = 253;
const TABLE_MAIN: u32 = 254;
const TABLE_LOCAL: u32 = 255;

fn table(number: u32) -> Option<RouteTable> {
    match number {
        TABLE_DEFAULT => Some(RouteTable::Default),
        TABLE_MAIN => Some(RouteTable::Main),
        TABLE_LOCAL => Some(RouteTable::Local),
        _ => None,
    }
}

/// Route of a route message; `None` if no datagram of ours takes it.
pub(super) fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    // Cloned ones are cached exceptions; routes for a type of service need one that we never set.
    if header
        .flags
        .intersects(RouteFlags::Cloned | RouteFlags::Dead)
        || header.tos != 0
    {
        return None;
    }
    let unspecified = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut table_number = u32::from(header.table);
    let (mut destination, mut metric, mut mtu) = (unspecified, 0, None);
    let mut hop = HopAttributes::default();
    let mut multipath: Option<&[RouteNextHop]> = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table_number = *number,
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::MultiPath(hops) => multipath = Some(hops),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            other => hop.read(other),
        }
    }
    let target = match header.kind {
        // A route for some sources only (IPv6 subtrees) is one that we do not model.
        RouteType::Unicast if header.source_prefix_length != 0 => Target::Kernel,
        RouteType::Unicast => match multipath {
            Some(hops) => multipath_target(hops),
            None => hop.target(hop.ifindex),
        },
        RouteType::Local => Target::Local,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => Target::Unreachable,
        _ => Target::Kernel,
    };
    Some(Route {
        table: table(table_number)?,
        destination: Network::new(destination, header.destination_prefix_length)?,
        metric,
        mtu,
        target,
    })
}

/// The attributes that say where one hop leads.
#[derive(Default)]
struct HopAttributes {
    ifindex: Option<u32>,
    gateway: Option<IpAddr>,
    /// A tunnel, or a next hop of another kind than an address.
    foreign: bool,
}

impl HopAttributes {
    fn read(&mut self, attribute: &RouteAttribute) {
        match attribute {
            RouteAttribute::Oif(ifindex) => self.ifindex = Some(*ifindex),
            RouteAttribute::Gateway(address) => self.gateway(ip(address)),
            RouteAttribute::Via(RouteVia::Inet(v4)) => self.gateway(Some(IpAddr::V4(*v4))),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => self.gateway(Some(IpAddr::V6(*v6))),
            RouteAttribute::Via(_) | RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => {
                self.foreign = true;
            }
            _ => {}
        }
    }

    fn gateway(&mut self, gateway: Option<IpAddr>) {
        self.foreign |= gateway.is_none();
        self.gateway = gateway;
    }

    fn hop(&self, ifindex: Option<u32>) -> Option<NextHop> {
        let ifindex = ifindex.filter(|_| !self.foreign)?;
        Some(NextHop {
            ifindex,
            gateway: self.gateway,
        })
    }

    fn target(&self, ifindex: Option<u32>) -> Target {
        self.hop(ifindex)
            .map_or(Target::Kernel, |hop| Target::Hops(vec![hop]))
    }
}

fn multipath_target(hops: &[RouteNextHop]) -> Target {
    let alive = hops
        .iter()
        .filter(|hop| !hop.flags.contains(RouteNextHopFlags::Dead));
    let hops: Option<Vec<NextHop>> = alive
        .map(|hop| {
            let mut attributes = HopAttributes::default();
            hop.attributes
                .iter()
                .for_each(|attribute| attributes.read(attribute));
            attributes.hop(Some(hop.interface_index))
        })
        .collect();
    hops.map_or(Target::Kernel, Target::Hops)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

/// The flows that a policy rule may route otherwise than the three default rules; `None` if it
/// cannot match a datagram of ours, which carries no mark, is UDP, and comes from this host.
pub(super) fn rule(message: &RuleMessage) -> Option<PolicyRule> {
    let header = &message.header;
    let inverted = header.flags.contains(RuleFlags::Invert);
    let (mut from, mut to) = (None, None);
    let mut table_number = u32::from(header.table);
    let (mut plain, mut foreign) = (true, false);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Table(number) => table_number = *number,
            RuleAttribute::Source(address) => from = Network::new(*address, header.src_len),
            RuleAttribute::Destination(address) => to = Network::new(*address, header.dst_len),
            RuleAttribute::Iifname(name) => foreign |= name != "lo",
            RuleAttribute::Oifname(_) => foreign = true,
            RuleAttribute::FwMark(mark) => foreign |= *mark != 0,
            RuleAttribute::IpProtocol(protocol) => foreign |= *protocol != IpProtocol::Udp,
            // Asks the table of the interface's VRF; ours are in none.
            RuleAttribute::L3MDev(asked) => foreign |= *asked,
            RuleAttribute::SuppressPrefixLen(len) => plain &= *len == u32::MAX,
            RuleAttribute::SuppressIfGroup(group) => plain &= *group == u32::MAX,
            RuleAttribute::Priority(_) | RuleAttribute::Protocol(_) | RuleAttribute::FwMask(_) => {}
            _ => plain = false,
        }
    }
    // A rule speaks for its own IP version only.
    let any = match header.family {
        AddressFamily::Inet => Network::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        AddressFamily::Inet6 => Network::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        _ => return None,
    };
    if inverted {
        return Some(PolicyRule {
            from: None,
            to: any,
        });
    }
    let is_default = plain
        && from.is_none()
        && to.is_none()
        && header.action == RuleAction::ToTable
        && table(table_number).is_some();
    (!foreign && !is_default).then_some(PolicyRule {
        from,
        to: to.or(any),
    })
}

#[cfg(test)]
mod tests;
