//! The flattened table against the naive one: go through all routes and take the best.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const ETH0: u32 = 2;
const ETH1: u32 = 3;
const TUN0: u32 = 4;
const LOCAL: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(198, 18, 0, 1));

fn interface(ifindex: u32, usable: bool) -> Interface {
    Interface {
        ifindex,
        name: format!("eth{ifindex}"),
        mac: mac(0x10 + ifindex),
        mtu: 1500,
        usable,
        addresses: Vec::new(),
    }
}

fn mac(number: u32) -> MacAddress {
    let [_, b, c, d] = number.to_be_bytes();
    MacAddress([2, 0, 0, b, c, d])
}

fn route(destination: &str, ifindex: u32, gateway: Option<&str>) -> Route {
    Route {
        table: RouteTable::Main,
        destination: destination.parse().unwrap(),
        metric: 0,
        mtu: None,
        target: Target::Hops(vec![NextHop {
            ifindex,
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        }]),
    }
}

fn neighbour(ifindex: u32, address: &str, number: u32) -> Neighbour {
    Neighbour {
        ifindex,
        address: address.parse().unwrap(),
        mac: mac(number),
    }
}

fn topology(routes: Vec<Route>, neighbours: Vec<Neighbour>) -> Topology {
    Topology {
        interfaces: vec![
            interface(ETH0, true),
            interface(ETH1, true),
            interface(TUN0, false),
        ],
        routes,
        neighbours,
        ..Topology::default()
    }
}

fn resolve(table: &EgressTable, peer: &str) -> Resolution {
    table.resolve(LOCAL, SocketAddr::new(peer.parse().unwrap(), 5060))
}

fn link(ifindex: u32, number: u32) -> Resolution {
    Resolution::Link(Link {
        ifindex,
        src_mac: mac(0x10 + ifindex),
        dst_mac: mac(number),
        mtu: 1500,
    })
}

#[test]
fn on_link_gateway_and_unknown_neighbours() {
    let table = EgressTable::build(&topology(
        vec![
            route("198.18.0.0/16", ETH0, None),
            route("0.0.0.0/0", ETH0, Some("198.18.0.254")),
            route("198.19.0.0/16", ETH1, Some("198.18.0.253")),
            route("2001:db8::/64", ETH0, None),
            route("::/0", ETH0, Some("fe80::1")),
            route("203.0.113.0/24", TUN0, None),
            // RFC 5549: an IPv4 route whose next hop is an IPv6 router.
            route("192.0.2.0/24", ETH1, Some("fe80::2")),
        ],
        vec![
            neighbour(ETH0, "198.18.0.11", 11),
            neighbour(ETH0, "198.18.0.254", 254),
            neighbour(ETH0, "2001:db8::11", 611),
            neighbour(ETH0, "fe80::1", 601),
            neighbour(ETH1, "fe80::2", 602),
            // Not on the link that the route names.
            neighbour(ETH1, "198.18.0.12", 12),
        ],
    ));
    assert_eq!(resolve(&table, "198.18.0.11"), link(ETH0, 11));
    assert_eq!(
        resolve(&table, "198.18.0.10"),
        Resolution::Unresolved { ifindex: ETH0 }
    );
    assert_eq!(
        resolve(&table, "198.18.0.12"),
        Resolution::Unresolved { ifindex: ETH0 }
    );
    assert_eq!(resolve(&table, "8.8.8.8"), link(ETH0, 254));
    assert_eq!(
        resolve(&table, "198.19.1.1"),
        Resolution::Unresolved { ifindex: ETH1 }
    );
    assert_eq!(resolve(&table, "2001:db8::11"), link(ETH0, 611));
    assert_eq!(
        resolve(&table, "2001:db8::12"),
        Resolution::Unresolved { ifindex: ETH0 }
    );
    assert_eq!(resolve(&table, "2001:db8:1::1"), link(ETH0, 601));
    assert_eq!(resolve(&table, "192.0.2.1"), link(ETH1, 602));
    assert_eq!(resolve(&table, "203.0.113.1"), Resolution::Kernel);

    let next_hop = |peer: &str| table.next_hop(LOCAL, SocketAddr::new(peer.parse().unwrap(), 1));
    assert_eq!(
        next_hop("8.8.8.8"),
        Some((ETH0, "198.18.0.254".parse().unwrap()))
    );
    assert_eq!(
        next_hop("198.18.0.10"),
        Some((ETH0, "198.18.0.10".parse().unwrap()))
    );
    assert_eq!(next_hop("203.0.113.1"), None);
}

#[test]
fn the_local_table_goes_before_a_longer_prefix_of_main() {
    let local = |destination: &str, target| Route {
        table: RouteTable::Local,
        target,
        ..route(destination, ETH0, None)
    };
    let table = EgressTable::build(&topology(
        vec![
            route("198.18.5.0/24", ETH0, Some("198.18.0.254")),
            local("198.18.4.0/22", Target::Local),
            local("198.18.255.255/32", Target::Kernel),
            route("198.18.0.0/16", ETH0, None),
            Route {
                target: Target::Unreachable,
                ..route("198.18.9.0/24", ETH0, None)
            },
        ],
        vec![neighbour(ETH0, "198.18.5.1", 1)],
    ));
    assert_eq!(resolve(&table, "198.18.5.1"), Resolution::Local);
    assert_eq!(
        resolve(&table, "198.18.8.1"),
        Resolution::Unresolved { ifindex: ETH0 }
    );
    assert_eq!(resolve(&table, "198.18.255.255"), Resolution::Kernel);
    assert_eq!(resolve(&table, "198.18.9.200"), Resolution::NoRoute);
    assert_eq!(resolve(&table, "198.17.255.255"), Resolution::NoRoute);
    assert_eq!(resolve(&table, "2001:db8::1"), Resolution::NoRoute);
}

#[test]
fn multicast_broadcast_and_link_local_peers_are_the_kernels() {
    let table = EgressTable::build(&topology(
        vec![
            route("0.0.0.0/0", ETH0, Some("198.18.0.254")),
            route("224.0.0.0/4", ETH0, None),
            route("::/0", ETH0, Some("fe80::1")),
            route("fe80::/64", ETH0, None),
        ],
        vec![
            neighbour(ETH0, "198.18.0.254", 254),
            neighbour(ETH0, "fe80::1", 601),
            neighbour(ETH0, "224.0.0.22", 22),
        ],
    ));
    for peer in [
        "224.0.0.1",
        "224.0.0.22",
        "239.1.1.1",
        "255.255.255.255",
        "ff02::1",
        "fe80::1",
    ] {
        assert_eq!(resolve(&table, peer), Resolution::Kernel, "{peer}");
    }
    assert_eq!(resolve(&table, "223.255.255.255"), link(ETH0, 254));
    assert_eq!(resolve(&table, "febf::1"), Resolution::Kernel);
    assert_eq!(resolve(&table, "fec0::1"), link(ETH0, 601));
}

#[test]
fn a_rule_that_matches_gives_the_flow_to_the_kernel() {
    let mut topology = topology(
        vec![route("0.0.0.0/0", ETH0, Some("198.18.0.254"))],
        vec![neighbour(ETH0, "198.18.0.254", 254)],
    );
    topology.rules.push(PolicyRule {
        from: Some("198.18.7.0/24".parse().unwrap()),
        to: None,
    });
    let table = EgressTable::build(&topology);
    let peer = "8.8.8.8:5060".parse().unwrap();
    assert_eq!(
        table.resolve("198.18.7.7".parse().unwrap(), peer),
        Resolution::Kernel
    );
    assert_eq!(table.resolve(LOCAL, peer), link(ETH0, 254));
}

#[test]
fn multipath_spreads_flows_and_keeps_each_on_its_hop() {
    let hops = [ETH0, ETH1].map(|ifindex| NextHop {
        ifindex,
        gateway: Some(format!("198.18.{ifindex}.254").parse().unwrap()),
    });
    let table = EgressTable::build(&topology(
        vec![Route {
            target: Target::Hops(hops.into()),
            ..route("0.0.0.0/0", ETH0, None)
        }],
        vec![
            neighbour(ETH0, "198.18.2.254", 1),
            neighbour(ETH1, "198.18.3.254", 2),
        ],
    ));
    let mut counts = HashMap::new();
    for port in 1..=1000 {
        let peer = SocketAddr::new("203.0.113.9".parse().unwrap(), port);
        let resolution = table.resolve(LOCAL, peer);
        assert_eq!(table.resolve(LOCAL, peer), resolution);
        let Resolution::Link(link) = resolution else {
            panic!("{resolution:?}")
        };
        *counts.entry(link.ifindex).or_insert(0) += 1;
    }
    assert!(
        counts.len() == 2 && counts.values().all(|count| *count > 400),
        "{counts:?}"
    );
}

#[test]
fn the_mtu_is_the_lesser_of_route_and_interface() {
    let with_mtu = |mtu| {
        let mut short = route("198.18.0.0/16", ETH0, None);
        short.mtu = Some(mtu);
        let table = EgressTable::build(&topology(
            vec![short],
            vec![neighbour(ETH0, "198.18.0.11", 11)],
        ));
        match resolve(&table, "198.18.0.11") {
            Resolution::Link(link) => link.mtu,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((with_mtu(1280), with_mtu(9000)), (1280, 1500));
}

#[test]
fn use_is_noted_once_for_each_neighbour() {
    let table = EgressTable::build(&topology(
        vec![
            route("198.18.0.0/16", ETH0, None),
            route("0.0.0.0/0", ETH0, Some("198.18.0.254")),
        ],
        vec![
            neighbour(ETH0, "198.18.0.11", 11),
            neighbour(ETH0, "198.18.0.12", 12),
            neighbour(ETH0, "198.18.0.254", 254),
        ],
    ));
    assert_eq!(table.take_used().count(), 0);
    resolve(&table, "198.18.0.12");
    resolve(&table, "198.18.0.12");
    resolve(&table, "8.8.8.8");
    let used: Vec<_> = table
        .take_used()
        .map(|used| used.address.to_string())
        .collect();
    assert_eq!(used, ["198.18.0.12", "198.18.0.254"]);
    assert_eq!(table.take_used().count(), 0);
}

#[test]
fn beyond_a_limit_everything_is_the_kernels() {
    use crate::limits::{NEIGHBOURS_MAX, ROUTES_MAX};
    let host = |number: usize| {
        let number = u32::try_from(number).unwrap();
        Network::host(core::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into())
    };
    let routes = |count: usize| {
        let mut routes = vec![route("198.18.0.0/16", ETH0, None)];
        routes.extend((1..count).map(|number| Route {
            destination: host(number),
            target: Target::Unreachable,
            ..route("10.0.0.0/32", ETH0, None)
        }));
        routes
    };
    let known = vec![neighbour(ETH0, "198.18.0.11", 11)];
    let table = EgressTable::build(&topology(routes(ROUTES_MAX), known.clone()));
    assert_eq!(resolve(&table, "198.18.0.11"), link(ETH0, 11));
    let table = EgressTable::build(&topology(routes(ROUTES_MAX + 1), known));
    assert_eq!(resolve(&table, "198.18.0.11"), Resolution::Kernel);

    let neighbours: Vec<_> = (0..=NEIGHBOURS_MAX)
        .map(|number| Neighbour {
            ifindex: ETH0,
            address: host(number).address(),
            mac: mac(u32::try_from(number).unwrap()),
        })
        .collect();
    let table = EgressTable::build(&topology(vec![route("10.0.0.0/8", ETH0, None)], neighbours));
    let resolve = |number| table.resolve(LOCAL, SocketAddr::new(host(number).address(), 1));
    assert!(matches!(resolve(NEIGHBOURS_MAX - 1), Resolution::Link(_)));
    assert_eq!(
        resolve(NEIGHBOURS_MAX),
        Resolution::Unresolved { ifindex: ETH0 }
    );
}

#[test]
fn the_default_table_gives_everything_to_the_kernel() {
    assert_eq!(
        resolve(&EgressTable::default(), "198.18.0.11"),
        Resolution::Kernel
    );
}

/// The definition: the tables in their order, in each the longest prefix, then the lowest metric.
fn naive(topology: &Topology, peer: IpAddr) -> Resolution {
    let best = [RouteTable::Local, RouteTable::Main, RouteTable::Default]
        .iter()
        .find_map(|table| {
            let covering = topology
                .routes
                .iter()
                .filter(|route| route.table == *table && route.destination.contains(peer));
            // `min_by_key` takes the first of equals.
            covering.min_by_key(|route| (255 - route.destination.prefix_len(), route.metric))
        });
    let Some(best) = best else {
        return Resolution::NoRoute;
    };
    let hop = match &best.target {
        Target::Hops(hops) => hops[0],
        Target::Local => return Resolution::Local,
        Target::Unreachable => return Resolution::NoRoute,
        Target::Kernel => return Resolution::Kernel,
    };
    let address = hop.gateway.unwrap_or(peer);
    let interface = topology
        .interfaces
        .iter()
        .find(|known| known.ifindex == hop.ifindex);
    let Some(interface) = interface.filter(|known| known.usable) else {
        return Resolution::Kernel;
    };
    let known = topology
        .neighbours
        .iter()
        .rfind(|known| known.ifindex == hop.ifindex && known.address == address);
    match known {
        Some(known) => Resolution::Link(Link {
            ifindex: hop.ifindex,
            src_mac: interface.mac,
            dst_mac: known.mac,
            mtu: interface.mtu,
        }),
        None => Resolution::Unresolved {
            ifindex: hop.ifindex,
        },
    }
}

/// Addresses close together, so that prefixes nest and neighbours are hit.
fn near(v6: bool) -> impl Strategy<Value = IpAddr> {
    (0u8..4, 0u8..4, prop_oneof![0u8..8, 250u8..]).prop_map(move |(high, middle, low)| {
        if v6 {
            let segments = [
                0x2001,
                0xdb8,
                0,
                u16::from(high),
                0,
                u16::from(middle),
                0,
                u16::from(low),
            ];
            IpAddr::from(segments)
        } else {
            IpAddr::from([10, high, middle, low])
        }
    })
}

fn routes(v6: bool) -> impl Strategy<Value = Route> {
    let table = prop_oneof![
        1 => Just(RouteTable::Local),
        8 => Just(RouteTable::Main),
        1 => Just(RouteTable::Default),
    ];
    let target = prop_oneof![
        8 => (ETH0..=TUN0, proptest::option::of(near(v6)))
            .prop_map(|(ifindex, gateway)| Target::Hops(vec![NextHop { ifindex, gateway }])),
        1 => Just(Target::Local),
        1 => Just(Target::Unreachable),
        1 => Just(Target::Kernel),
    ];
    let len = if v6 { 0u8..=128 } else { 0u8..=32 };
    (table, near(v6), len, 0u32..3, target).prop_map(|(table, address, len, metric, target)| {
        Route {
            table,
            destination: Network::new(address, len).unwrap(),
            metric,
            mtu: None,
            target,
        }
    })
}

fn known(v6: bool) -> impl Strategy<Value = Neighbour> {
    (ETH0..=ETH1, near(v6), 0u32..1000).prop_map(|(ifindex, address, number)| Neighbour {
        ifindex,
        address,
        mac: mac(number),
    })
}

proptest! {
    #[test]
    fn the_longest_prefix_wins_as_in_the_naive_table(
        (routes, mut neighbours, peers) in any::<bool>().prop_flat_map(|v6| (
            proptest::collection::vec(routes(v6), 0..12),
            proptest::collection::vec(known(v6), 0..12),
            proptest::collection::vec(near(v6), 1..40),
        )),
    ) {
        // One MAC for each neighbour, as in the kernel.
        neighbours.sort_by_key(|known| (known.ifindex, known.address));
        neighbours.dedup_by_key(|known| (known.ifindex, known.address));
        let topology = topology(routes, neighbours);
        let table = EgressTable::build(&topology);
        for peer in peers {
            let resolution = table.resolve(LOCAL, SocketAddr::new(peer, 5060));
            prop_assert_eq!(resolution, naive(&topology, peer), "{}", peer);
        }
    }
}
