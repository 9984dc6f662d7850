//! The plan built from configurations, and what it says of addresses, names and servers.

use super::*;
use crate::affinity::{Keys, Secret};
use crate::balance::AffinityKey;
use crate::config::{Action, Config, KeySource, Side};
use crate::net::{ListenerIndex, PoolIndex, SocketAddr};

const CONFIG: &str = r#"
    trusted = ["198.18.100.0/24"]
    [[listeners]]
    name = "clients"
    address = "198.18.0.1:5060"
    advertise = "203.0.113.10:5080"
    aliases = ["sip.lab.example", "Alias.Example."]
    [[listeners]]
    name = "clients6"
    address = "[2001:db8::10]:5060"
    [[listeners]]
    name = "second"
    address = "198.18.0.1:5070"
    [[listeners]]
    name = "servers"
    address = "198.18.1.1:5060"
    side = "farm"
    [[pools]]
    name = "one"
    networks = ["198.18.1.0/24"]
    servers = [
        { name = "s1", address = "198.18.1.11:5060" },
        { name = "s2", address = "198.18.1.12:5060", weight = 0 },
        { name = "s2b", address = "198.18.1.12:5070" },
    ]
    [[pools]]
    name = "two"
    servers = [{ name = "t1", address = "[2001:db8:1::11]:5060" }]
    [[routes]]
    listener = "clients6"
    pool = "two"
    [[routes]]
    pool = "one"
"#;

fn keys() -> Keys {
    Keys::new(&Secret::from_bytes(*b"0123456789abcdefghijklmnopqrstuv").unwrap())
}

fn build(config: &str, registry: &mut ServerRegistry) -> Plan {
    Plan::build(&Config::parse(config).unwrap(), registry, &keys()).unwrap()
}

fn plan() -> Plan {
    build(CONFIG, &mut ServerRegistry::new())
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn own_addresses_are_bound_and_advertised_ones() {
    let plan = plan();
    for (address, listener) in [
        ("198.18.0.1:5060", Some(0)),
        ("203.0.113.10:5080", Some(0)),
        ("[2001:db8::10]:5060", Some(1)),
        ("198.18.0.1:5070", Some(2)),
        ("198.18.0.1:5080", None),
        ("203.0.113.10:5060", None),
    ] {
        assert_eq!(
            plan.listener_at(at(address)),
            listener.map(ListenerIndex),
            "{address}"
        );
    }
}

#[test]
fn own_names_are_read_in_any_case_with_a_port_of_ours_or_none() {
    let plan = plan();
    for (name, port, ours) in [
        ("sip.lab.example", None, true),
        ("SIP.Lab.Example.", Some(5060), true),
        ("alias.example", Some(5080), true),
        ("alias.example", Some(5070), false),
        ("lab.example", None, false),
    ] {
        let found = plan.listener_named(name.as_bytes(), port);
        assert_eq!(found, ours.then_some(ListenerIndex(0)), "{name}");
    }
}

#[test]
fn directions_go_by_source_address() {
    let plan = plan();
    for (source, direction) in [
        ("198.18.1.11", Direction::Farm),
        // The networks of the pool, not only its servers.
        ("198.18.1.200", Direction::Farm),
        ("2001:db8:1::11", Direction::Farm),
        ("2001:db8:1::12", Direction::Outside),
        ("198.18.100.3", Direction::Trusted),
        ("198.18.101.3", Direction::Outside),
        ("::ffff:198.18.1.11", Direction::Farm),
    ] {
        assert_eq!(
            plan.direction(source.parse().unwrap()),
            direction,
            "{source}"
        );
    }
}

#[test]
fn the_route_table_goes_by_listener_and_in_order() {
    let plan = plan();
    assert_eq!(plan.route(ListenerIndex(0)), Some(PoolIndex(0)));
    assert_eq!(plan.route(ListenerIndex(1)), Some(PoolIndex(1)));
    assert_eq!(plan.route(ListenerIndex(3)), Some(PoolIndex(0)));
}

#[test]
fn requests_leave_by_the_side_and_family_of_their_peer() {
    let plan = plan();
    let egress = |received: u8, side, peer: &str| {
        let listener = plan.egress(ListenerIndex(received), side, at(peer));
        listener.map(|listener| listener.index.0)
    };
    // To the farm by the farm side, if there is one of the family.
    assert_eq!(egress(0, Side::Farm, "198.18.1.11:5060"), Some(3));
    assert_eq!(egress(1, Side::Farm, "[2001:db8:1::11]:5060"), Some(1));
    assert_eq!(egress(0, Side::Farm, "[2001:db8:1::11]:5060"), Some(1));
    // To the outside by the listener that the request came to, if it faces there.
    assert_eq!(egress(2, Side::Outside, "203.0.113.9:5060"), Some(2));
    assert_eq!(egress(3, Side::Outside, "203.0.113.9:5060"), Some(0));
    assert_eq!(egress(3, Side::Outside, "[2001:db8:c::9]:5060"), Some(1));
    assert_eq!(egress(9, Side::Outside, "203.0.113.9:5060"), None);
    // No listener of the family.
    let v4 = CONFIG.replace("[2001:db8::10]:5060", "198.18.0.2:5060");
    let plan = build(&v4, &mut ServerRegistry::new());
    assert!(
        plan.egress(ListenerIndex(0), Side::Farm, at("[2001:db8:1::11]:5060"))
            .is_none()
    );
}

#[test]
fn weight_0_takes_no_new_calls_and_removal_retires() {
    let mut registry = ServerRegistry::new();
    let plan = build(CONFIG, &mut registry);
    let states: Vec<ServerState> = plan.servers().iter().map(|server| server.state).collect();
    assert_eq!(
        states,
        [
            ServerState::Active,
            ServerState::Draining,
            ServerState::Active,
            ServerState::Active
        ]
    );
    let pool = plan.pool(PoolIndex(0)).unwrap();
    for key in 0..1000_u64 {
        let key = AffinityKey(key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let server = plan.server(pool.select(key).unwrap()).unwrap();
        assert_ne!(&*server.name, "s2");
    }

    let without: String = CONFIG
        .lines()
        .filter(|line| !line.contains("\"s1\""))
        .collect::<Vec<_>>()
        .join("\n");
    let plan = build(&without, &mut registry);
    let retired = plan.server_by_id(server_id("s1")).unwrap();
    assert_eq!(retired.state, ServerState::Retired);
    assert_eq!(retired.address, at("198.18.1.11:5060"));
    assert_eq!(retired.pool, Some(PoolIndex(0)));
    // It may still answer and still counts as farm.
    assert!(retired.sends_from("198.18.1.11".parse().unwrap()));
    assert_eq!(
        plan.direction("198.18.1.11".parse().unwrap()),
        Direction::Farm
    );
    assert_eq!(
        plan.server_at(at("198.18.1.11:5060")).unwrap().index,
        retired.index
    );
}

#[test]
fn servers_of_one_host_are_told_apart_by_port() {
    let plan = plan();
    let name = |address: &str| plan.server_at(at(address)).map(|server| &*server.name);
    assert_eq!(name("198.18.1.12:5060"), Some("s2"));
    assert_eq!(name("198.18.1.12:5070"), Some("s2b"));
    assert_eq!(name("198.18.1.12:9999"), Some("s2"));
    assert_eq!(name("198.18.1.13:5060"), None);
}

#[test]
fn a_new_server_at_a_retired_ones_address_takes_it_over() {
    let mut registry = ServerRegistry::new();
    build(CONFIG, &mut registry);
    let renamed = CONFIG.replace("\"s1\"", "\"s1-new\"");
    let plan = build(&renamed, &mut registry);
    assert_eq!(
        &*plan.server_at(at("198.18.1.11:5060")).unwrap().name,
        "s1-new"
    );
}

#[test]
fn a_failed_build_leaves_the_registry_as_it_was() {
    let mut registry = ServerRegistry::new();
    build(CONFIG, &mut registry);
    let slots = registry.len();
    let mut config = Config::parse(&CONFIG.replace("\"s1\"", "\"new\"")).unwrap();
    config.routes[1].action = Action::Pool {
        pool: "nowhere".to_owned(),
        key: KeySource::CallId,
    };
    assert!(matches!(
        Plan::build(&config, &mut registry, &keys()),
        Err(PlanError::Route(1))
    ));
    assert_eq!(registry.len(), slots);
    config.pools.clear();
    assert!(matches!(
        Plan::build(&config, &mut registry, &keys()),
        Err(PlanError::Count("pools", 0, _))
    ));
    config.listeners.clear();
    assert!(matches!(
        Plan::build(&config, &mut registry, &keys()),
        Err(PlanError::Count("listeners", 0, _))
    ));
}
