//! Messages as the kernel writes them, by the fields that matter.

use rtnetlink::packet_route::neighbour::NeighbourFlags;
use rtnetlink::packet_route::route::{RouteHeader, RouteLwEnCapType};
use rtnetlink::packet_route::rule::RuleUidRange;

use super::*;

fn v4(text: &str) -> RouteAddress {
    RouteAddress::Inet(text.parse().unwrap())
}

fn route_message(len: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: AddressFamily::Inet,
        destination_prefix_length: len,
        table: RouteHeader::RT_TABLE_MAIN,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = attributes;
    message
}

fn hop(ifindex: u32, gateway: Option<&str>) -> NextHop {
    NextHop {
        ifindex,
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
    }
}

#[test]
fn plain_routes() {
    let message = route_message(
        16,
        vec![
            RouteAttribute::Destination(v4("198.18.0.0")),
            RouteAttribute::Oif(2),
            RouteAttribute::Priority(100),
            RouteAttribute::Metrics(vec![RouteMetric::Hoplimit(3), RouteMetric::Mtu(1400)]),
        ],
    );
    let expected = Route {
        table: RouteTable::Main,
        destination: "198.18.0.0/16".parse().unwrap(),
        metric: 100,
        mtu: Some(1400),
        target: Target::Hops(vec![hop(2, None)]),
    };
    assert_eq!(route(&message), Some(expected.clone()));

    // The default route has no destination; the table attribute goes before the header's byte.
    let mut message = route_message(
        0,
        vec![
            RouteAttribute::Gateway(v4("198.18.0.254")),
            RouteAttribute::Oif(2),
            RouteAttribute::Table(253),
        ],
    );
    message.header.table = 0;
    let default = route(&message).unwrap();
    assert_eq!(default.table, RouteTable::Default);
    assert_eq!(default.destination, "0.0.0.0/0".parse().unwrap());
    assert_eq!(
        default.target,
        Target::Hops(vec![hop(2, Some("198.18.0.254"))])
    );
    message.attributes.push(RouteAttribute::Table(1000));
    assert_eq!(
        route(&message),
        None,
        "a table that only a policy rule asks"
    );
}

#[test]
fn an_ipv4_route_may_have_an_ipv6_gateway() {
    let via = RouteVia::Inet6("fe80::1".parse().unwrap());
    let message = route_message(0, vec![RouteAttribute::Via(via), RouteAttribute::Oif(2)]);
    assert_eq!(
        route(&message).unwrap().target,
        Target::Hops(vec![hop(2, Some("fe80::1"))])
    );
}

#[test]
fn multipath_without_the_dead() {
    let next_hop = |ifindex, gateway: &str, flags| {
        let mut next_hop = RouteNextHop::default();
        next_hop.interface_index = ifindex;
        next_hop.flags = flags;
        next_hop.attributes = vec![RouteAttribute::Gateway(v4(gateway))];
        next_hop
    };
    let hops = vec![
        next_hop(2, "198.18.0.1", RouteNextHopFlags::empty()),
        next_hop(3, "198.18.1.1", RouteNextHopFlags::Dead),
        next_hop(4, "198.18.2.1", RouteNextHopFlags::Onlink),
    ];
    let mut message = route_message(0, vec![RouteAttribute::MultiPath(hops.clone())]);
    let expected = [hop(2, Some("198.18.0.1")), hop(4, Some("198.18.2.1"))];
    assert_eq!(
        route(&message).unwrap().target,
        Target::Hops(expected.into())
    );

    let mut tunnel = hops;
    tunnel[0]
        .attributes
        .push(RouteAttribute::EncapType(RouteLwEnCapType::Mpls));
    message.attributes = vec![RouteAttribute::MultiPath(tunnel)];
    assert_eq!(route(&message).unwrap().target, Target::Kernel);
}

#[test]
fn what_is_not_modelled_is_the_kernels() {
    let oif = || vec![RouteAttribute::Oif(2)];
    let target = |message: &RouteMessage| route(message).map(|route| route.target);
    for (kind, expected) in [
        (RouteType::Local, Target::Local),
        (RouteType::Broadcast, Target::Kernel),
        (RouteType::Anycast, Target::Kernel),
        (RouteType::Multicast, Target::Kernel),
        (RouteType::Throw, Target::Kernel),
        (RouteType::BlackHole, Target::Unreachable),
        (RouteType::Unreachable, Target::Unreachable),
        (RouteType::Prohibit, Target::Unreachable),
    ] {
        let mut message = route_message(0, oif());
        message.header.kind = kind;
        assert_eq!(target(&message), Some(expected), "{kind:?}");
    }
    // Next hop objects that the kernel does not spell out, tunnels, routes for some sources.
    assert_eq!(
        target(&route_message(0, vec![RouteAttribute::NhId(7)])),
        Some(Target::Kernel)
    );
    let mut message = route_message(0, oif());
    message.attributes.push(RouteAttribute::Encap(Vec::new()));
    assert_eq!(target(&message), Some(Target::Kernel));
    let mut message = route_message(0, oif());
    message.header.source_prefix_length = 64;
    assert_eq!(target(&message), Some(Target::Kernel));
    let mut message = route_message(0, oif());
    message
        .attributes
        .push(RouteAttribute::Gateway(RouteAddress::Other(vec![1])));
    assert_eq!(target(&message), Some(Target::Kernel));

    let mut message = route_message(0, oif());
    message.header.tos = 0x10;
    assert_eq!(target(&message), None);
    let mut message = route_message(0, oif());
    message.header.flags = RouteFlags::Cloned;
    assert_eq!(target(&message), None);
    assert_eq!(
        target(&route_message(33, oif())),
        None,
        "a prefix longer than the address"
    );
}

fn rule_message(attributes: Vec<RuleAttribute>) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.table = 254;
    message.header.action = RuleAction::ToTable;
    message.attributes = attributes;
    message
}

#[test]
fn only_rules_that_can_match_our_datagrams_count() {
    let any: Option<Network> = Some("0.0.0.0/0".parse().unwrap());
    for table in [253, 254, 255] {
        let message = rule_message(vec![
            RuleAttribute::Priority(1),
            RuleAttribute::Table(table),
        ]);
        assert_eq!(rule(&message), None, "a default rule");
    }
    let everything = Some(PolicyRule {
        from: None,
        to: any,
    });
    assert_eq!(
        rule(&rule_message(vec![RuleAttribute::Table(100)])),
        everything
    );

    let mut message = rule_message(vec![
        RuleAttribute::Source("198.18.7.0".parse().unwrap()),
        RuleAttribute::Table(100),
    ]);
    message.header.src_len = 24;
    let from = Some("198.18.7.0/24".parse().unwrap());
    assert_eq!(rule(&message), Some(PolicyRule { from, to: any }));
    let mut message = rule_message(vec![RuleAttribute::Destination(
        "198.18.7.0".parse().unwrap(),
    )]);
    message.header.dst_len = 24;
    assert_eq!(
        rule(&message),
        Some(PolicyRule {
            from: None,
            to: from
        })
    );

    for selector in [
        RuleAttribute::FwMark(1),
        RuleAttribute::Iifname("eth0".into()),
        RuleAttribute::Oifname("eth0".into()),
        RuleAttribute::IpProtocol(IpProtocol::Tcp),
        RuleAttribute::L3MDev(true),
    ] {
        let name = format!("{selector:?}");
        let mut message = rule_message(vec![RuleAttribute::Table(100), selector]);
        assert_eq!(rule(&message), None, "{name}");
        // "not": matches everything else, us included.
        message.header.flags = RuleFlags::Invert;
        assert_eq!(rule(&message), everything, "not {name}");
    }
    for selector in [
        RuleAttribute::FwMark(0),
        RuleAttribute::Iifname("lo".into()),
        RuleAttribute::IpProtocol(IpProtocol::Udp),
        RuleAttribute::UidRange(RuleUidRange { start: 0, end: 0 }),
        RuleAttribute::SuppressPrefixLen(0),
    ] {
        let name = format!("{selector:?}");
        let message = rule_message(vec![RuleAttribute::Table(100), selector]);
        assert_eq!(rule(&message), everything, "{name}");
    }
    // wg-quick's "lookup main suppress_prefixlength 0" changes what the default table would say.
    let message = rule_message(vec![RuleAttribute::SuppressPrefixLen(0)]);
    assert_eq!(rule(&message), everything);
    let message = rule_message(vec![RuleAttribute::SuppressPrefixLen(u32::MAX)]);
    assert_eq!(rule(&message), None);
}

fn neighbour_message(state: NeighbourState, mac: &[u8]) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = 2;
    message.header.state = state;
    message.header.flags = NeighbourFlags::Router;
    message.attributes = vec![
        NeighbourAttribute::Destination("198.18.0.11".parse::<IpAddr>().unwrap().into()),
        NeighbourAttribute::LinkLayerAddress(mac.into()),
    ];
    message
}

#[test]
fn neighbour_states() {
    let known = MacAddress([2, 0, 0, 0, 0, 11]);
    let entry = |state| neighbour(&neighbour_message(state, &known.0)).unwrap();
    let key = (2, "198.18.0.11".parse().unwrap());
    for (state, reachability, usable) in [
        (NeighbourState::Reachable, Reachability::Reachable, true),
        (NeighbourState::Stale, Reachability::Stale, true),
        (NeighbourState::Delay, Reachability::Stale, true),
        (NeighbourState::Probe, Reachability::Probing, true),
        (NeighbourState::Permanent, Reachability::Fixed, true),
        (NeighbourState::Noarp, Reachability::Fixed, true),
        (NeighbourState::Incomplete, Reachability::Unknown, false),
        (NeighbourState::Failed, Reachability::Unknown, false),
        (NeighbourState::None, Reachability::Unknown, false),
    ] {
        let mac = usable.then_some(known);
        assert_eq!(
            entry(state),
            (key, NeighbourEntry { mac, reachability }),
            "{state}"
        );
    }
    // A MAC address that is none, or a group's.
    for mac in [
        &[0; 6][..],
        &[1, 0, 0x5e, 0, 0, 22],
        &[2, 0, 0, 0],
        &[2; 20],
    ] {
        let message = neighbour_message(NeighbourState::Noarp, mac);
        assert_eq!(neighbour(&message).unwrap().1.mac, None, "{mac:?}");
    }
    let mut bridge = neighbour_message(NeighbourState::Reachable, &known.0);
    bridge.header.family = AddressFamily::Bridge;
    assert_eq!(neighbour(&bridge), None);
}

#[test]
fn only_ethernet_that_is_up_and_resolves_is_usable() {
    let message = |link_layer_type, flags, mac: &[u8]| {
        let mut message = LinkMessage::default();
        message.header.index = 2;
        message.header.link_layer_type = link_layer_type;
        message.header.flags = flags;
        message.attributes = vec![
            LinkAttribute::IfName("eth0".into()),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Address(mac.into()),
        ];
        message
    };
    let mac = [2, 0, 0, 0, 0, 1];
    let up = LinkFlags::Up | LinkFlags::Broadcast;
    let found = interface(&message(LinkLayerType::Ether, up, &mac));
    assert_eq!(
        (
            found.ifindex,
            found.name.as_str(),
            found.mtu,
            found.mac,
            found.usable
        ),
        (2, "eth0", 1500, MacAddress(mac), true)
    );
    for (kind, flags, mac) in [
        (LinkLayerType::Ether, LinkFlags::Broadcast, &mac[..]),
        (LinkLayerType::Ether, up | LinkFlags::Noarp, &mac),
        (LinkLayerType::Loopback, up | LinkFlags::Loopback, &[0; 6]),
        (LinkLayerType::None, up, &[]),
        (LinkLayerType::Ether, up, &[0; 6]),
    ] {
        assert!(
            !interface(&message(kind, flags, mac)).usable,
            "{kind:?} {flags:?} {mac:?}"
        );
    }
}

#[test]
fn the_local_end_of_a_point_to_point_address() {
    let mut message = AddressMessage::default();
    message.header.index = 2;
    assert_eq!(address(&message), None);
    message.attributes = vec![AddressAttribute::Address("2001:db8::1".parse().unwrap())];
    assert_eq!(address(&message), Some((2, "2001:db8::1".parse().unwrap())));
    message
        .attributes
        .push(AddressAttribute::Local("198.18.0.1".parse().unwrap()));
    assert_eq!(address(&message), Some((2, "198.18.0.1".parse().unwrap())));
}
