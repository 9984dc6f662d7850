//! Building an egress table: routes, gateways and neighbours become disjoint ranges.
//!
//! Prefixes are laminar: two of them are nested or apart. So one sweep over them in the order of
//! their first address, with a stack of those that are open, knows at every address who covers it;
//! the best of these has the answer. Cost: a sort and a pass, twice (neighbours are added to the
//! routes that lead to them), at most every 50 ms, off the workers' threads.

use core::cmp::Reverse;
use core::sync::atomic::AtomicBool;
use std::collections::HashMap;

use super::{
    Answer, EgressTable, Hop, Interface, KERNEL, LOCAL, Link, NO_ROUTE, Neighbour, NeighbourUse,
    NextHop, Ranges, Resolution, Route, RouteTable, Target, Topology,
};
use crate::limits::{
    INTERFACES_KNOWN_MAX, NEIGHBOURS_MAX, NEXT_HOPS_MAX, POLICY_RULES_MAX, ROUTES_MAX,
};
use crate::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who wins where prefixes overlap: what is above all routes, then the table asked first, then the
/// longest prefix, then the lowest metric.
type Rank = (bool, RouteTable, u8, Reverse<u32>);

/// A prefix on its way into ranges, its address left-aligned in 128 bits.
#[derive(Clone, Copy, Debug)]
struct Prefix {
    start: u128,
    len: u8,
    rank: Rank,
    answer: Answer,
}

impl Prefix {
    fn last(&self) -> u128 {
        self.start | u128::MAX.checked_shr(u32::from(self.len)).unwrap_or(0)
    }
}

impl EgressTable {
    /// Melts what the kernel has told into a table.
    ///
    /// More of a kind than its limit makes the table give everything to the kernel; neighbours over
    /// theirs are left out, which makes them unresolved.
    pub fn build(topology: &Topology) -> Self {
        let neighbours = topology
            .neighbours
            .get(..NEIGHBOURS_MAX)
            .unwrap_or(&topology.neighbours);
        let incomplete = topology.incomplete
            || topology.routes.len() > ROUTES_MAX
            || topology.rules.len() > POLICY_RULES_MAX
            || topology.interfaces.len() > INTERFACES_KNOWN_MAX;
        let mut builder = Builder::new(&topology.interfaces, neighbours);
        if !incomplete {
            builder.add_special();
            topology
                .routes
                .iter()
                .for_each(|route| builder.add_route(route));
            builder.add_neighbours();
        }
        Self {
            v4: ranges(&builder.v4, |start| {
                u32::try_from(start >> 96).unwrap_or(u32::MAX)
            }),
            v6: ranges(&builder.v6, |start| start),
            hops: builder.hops.into(),
            neighbours: neighbours
                .iter()
                .map(|neighbour| NeighbourUse {
                    neighbour: *neighbour,
                    used: AtomicBool::new(false),
                })
                .collect(),
            rules: topology.rules.as_slice().into(),
            interfaces: topology.interfaces.as_slice().into(),
            incomplete,
            left_out: topology.left_out,
        }
    }
}

struct Builder<'a> {
    interfaces: HashMap<u32, &'a Interface>,
    neighbours: &'a [Neighbour],
    neighbour_index: HashMap<(u32, IpAddr), u32>,
    hops: Vec<Hop>,
    v4: Vec<Prefix>,
    v6: Vec<Prefix>,
}

impl<'a> Builder<'a> {
    fn new(interfaces: &'a [Interface], neighbours: &'a [Neighbour]) -> Self {
        // In the order of the constants NO_ROUTE, LOCAL and KERNEL.
        let fixed = [Resolution::NoRoute, Resolution::Local, Resolution::Kernel];
        Self {
            interfaces: interfaces
                .iter()
                .map(|interface| (interface.ifindex, interface))
                .collect(),
            neighbours,
            neighbour_index: (0..)
                .zip(neighbours)
                .map(|(index, neighbour)| ((neighbour.ifindex, neighbour.address), index))
                .collect(),
            hops: fixed.map(Hop::fixed).into(),
            v4: Vec::new(),
            v6: Vec::new(),
        }
    }

    /// Destinations that are never a plain unicast hop away, whatever the routes say.
    fn add_special(&mut self) {
        let special: [(IpAddr, u8); 4] = [
            (Ipv4Addr::new(224, 0, 0, 0).into(), 4),
            (Ipv4Addr::BROADCAST.into(), 32),
            (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8),
            // A link-local peer is known only together with its interface.
            (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(), 10),
        ];
        for (address, len) in special {
            let rank = (true, RouteTable::Local, len, Reverse(0));
            self.add_prefix(address, len, rank, KERNEL);
        }
    }

    fn add_route(&mut self, route: &Route) {
        let answer = match &route.target {
            Target::Hops(hops) => self.add_hops(hops, route.mtu),
            Target::Local => LOCAL,
            Target::Unreachable => NO_ROUTE,
            Target::Kernel => KERNEL,
        };
        let len = route.destination.prefix_len();
        let rank = (false, route.table, len, Reverse(route.metric));
        self.add_prefix(route.destination.address(), len, rank, answer);
    }

    fn add_hops(&mut self, hops: &[NextHop], mtu: Option<u32>) -> Answer {
        // Where one hop of several has no gateway, the destination itself may be on either link:
        // only the first is taken.
        let several = hops.iter().all(|hop| hop.gateway.is_some());
        let hops = hops
            .get(..if several { NEXT_HOPS_MAX } else { 1 })
            .unwrap_or(hops);
        let Ok(first) = u32::try_from(self.hops.len()) else {
            return KERNEL;
        };
        let mut count = 0;
        for hop in hops {
            self.hops.push(self.hop(hop, mtu));
            count += 1;
        }
        if count == 0 {
            KERNEL
        } else {
            Answer { first, count }
        }
    }

    fn hop(&self, hop: &NextHop, mtu: Option<u32>) -> Hop {
        let Some(interface) = self
            .interfaces
            .get(&hop.ifindex)
            .filter(|known| known.usable)
        else {
            return Hop::fixed(Resolution::Kernel);
        };
        let mtu = mtu.map_or(interface.mtu, |mtu| mtu.min(interface.mtu));
        match hop.gateway {
            Some(gateway) => self.hop_to(interface, gateway, mtu, Some(gateway)),
            None => Hop {
                resolution: Resolution::Unresolved {
                    ifindex: interface.ifindex,
                },
                gateway: None,
                mtu,
                neighbour: None,
            },
        }
    }

    /// A hop to the neighbour `address`.
    fn hop_to(
        &self,
        interface: &Interface,
        address: IpAddr,
        mtu: u32,
        gateway: Option<IpAddr>,
    ) -> Hop {
        let ifindex = interface.ifindex;
        let index = self.neighbour_index.get(&(ifindex, address)).copied();
        let neighbour = index.and_then(|index| self.neighbours.get(index as usize));
        let resolution = match neighbour {
            Some(neighbour) => Resolution::Link(Link {
                ifindex,
                src_mac: interface.mac,
                dst_mac: neighbour.mac,
                mtu,
            }),
            None => Resolution::Unresolved { ifindex },
        };
        Hop {
            resolution,
            gateway,
            mtu,
            neighbour: index,
        }
    }

    /// Makes each neighbour whose route leads to it directly a destination of its own.
    fn add_neighbours(&mut self) {
        let v4 = ranges(&self.v4, |start| start);
        let v6 = ranges(&self.v6, |start| start);
        for neighbour in self.neighbours {
            let key = key(neighbour.address);
            let answer = if neighbour.address.is_ipv4() {
                v4.lookup(key)
            } else {
                v6.lookup(key)
            };
            let Some(route) = self.hops.get(answer.first as usize) else {
                continue;
            };
            let on_link = route.gateway.is_none()
                && route.resolution
                    == Resolution::Unresolved {
                        ifindex: neighbour.ifindex,
                    };
            let Some(interface) = self.interfaces.get(&neighbour.ifindex).filter(|_| on_link)
            else {
                continue;
            };
            let hop = self.hop_to(interface, neighbour.address, route.mtu, None);
            let Ok(first) = u32::try_from(self.hops.len()) else {
                return;
            };
            self.hops.push(hop);
            let len = if neighbour.address.is_ipv4() { 32 } else { 128 };
            let rank = (true, RouteTable::Main, len, Reverse(0));
            self.add_prefix(neighbour.address, len, rank, Answer { first, count: 1 });
        }
    }

    fn add_prefix(&mut self, address: IpAddr, len: u8, rank: Rank, answer: Answer) {
        let prefixes = if address.is_ipv4() {
            &mut self.v4
        } else {
            &mut self.v6
        };
        prefixes.push(Prefix {
            start: key(address),
            len,
            rank,
            answer,
        });
    }
}

impl Hop {
    fn fixed(resolution: Resolution) -> Self {
        Self {
            resolution,
            gateway: None,
            mtu: 0,
            neighbour: None,
        }
    }
}

/// An address left-aligned in 128 bits.
fn key(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The disjoint ranges of `prefixes`, their keys made by `key`.
fn ranges<K: Ord + Copy>(prefixes: &[Prefix], key: impl Fn(u128) -> K) -> Ranges<K> {
    let mut sorted = prefixes.to_vec();
    // Stable, and the outer prefix before the inner one that starts at the same address.
    sorted.sort_by_key(|prefix| (prefix.start, prefix.len));

    let mut boundaries = vec![(0, NO_ROUTE)];
    // Open prefixes from the outermost, each with the best rank and answer up to it.
    let mut open: Vec<(u128, Option<Rank>, Answer)> = vec![(u128::MAX, None, NO_ROUTE)];
    let close = |open: &mut Vec<(u128, Option<Rank>, Answer)>,
                 boundaries: &mut Vec<_>,
                 before: Option<u128>| {
        while let [.., (_, _, outer), (last, _, _)] = open.as_slice()
            && before.is_none_or(|before| *last < before)
        {
            if let Some(start) = last.checked_add(1) {
                mark(boundaries, start, *outer);
            }
            open.pop();
        }
    };
    for prefix in &sorted {
        close(&mut open, &mut boundaries, Some(prefix.start));
        let Some((_, rank, answer)) = open.last().copied() else {
            break;
        };
        let best = if rank.is_none_or(|rank| prefix.rank > rank) {
            (prefix.last(), Some(prefix.rank), prefix.answer)
        } else {
            (prefix.last(), rank, answer)
        };
        mark(&mut boundaries, prefix.start, best.2);
        open.push(best);
    }
    close(&mut open, &mut boundaries, None);
    boundaries.dedup_by_key(|(_, answer)| *answer);
    Ranges {
        starts: boundaries.iter().map(|(start, _)| key(*start)).collect(),
        answers: boundaries.iter().map(|(_, answer)| *answer).collect(),
    }
}

/// From `start` on the answer is `answer`, until another is marked.
fn mark(boundaries: &mut Vec<(u128, Answer)>, start: u128, answer: Answer) {
    match boundaries.last_mut() {
        Some(last) if last.0 == start => last.1 = answer,
        _ => boundaries.push((start, answer)),
    }
}
