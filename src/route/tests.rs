//! The plan built from configurations, and what it says of addresses, names and servers.

use std::sync::Arc;

use super::*;
use crate::affinity::{Keys, Secret};
use crate::balance::{AffinityKey, Board, Choice};
use crate::config::{Config, Side};
use crate::net::{ListenerIndex, PoolIndex, ServerIndex, SocketAddr};
use crate::sip::Message;
use crate::time::{Duration, Instant};

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

fn keys() -> Arc<Keys> {
    let secret = Secret::from_bytes(*b"0123456789abcdefghijklmnopqrstuv").unwrap();
    Arc::new(Keys::new(&secret))
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
            plan.direction(ListenerIndex(0), source.parse().unwrap()),
            direction,
            "{source}"
        );
    }
}

/// A request with that start line, from that source to that listener: the number of its rule.
fn rule_of(plan: &Plan, start: &str, rows: &str, source: &str, listener: u8) -> Option<usize> {
    ask(plan, start, rows, source, listener, false)
}

fn ask(
    plan: &Plan,
    start: &str,
    rows: &str,
    source: &str,
    listener: u8,
    outbound: bool,
) -> Option<usize> {
    let (method, _) = start.split_once(' ').unwrap();
    let text = format!(
        "{start} SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.9;branch=z9hG4bKa\r\nFrom: <sip:a@b.example>;tag=1\r\n\
         To: <sip:Bob@Home.Example:5062>\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n{rows}\r\n"
    );
    let mut message = Message::new();
    message.parse(text.as_bytes()).unwrap();
    let source = source.parse().unwrap();
    let listener = ListenerIndex(listener);
    let question = Question {
        listener,
        source,
        direction: plan.direction(listener, source),
        outbound,
        message: &message,
        bytes: text.as_bytes(),
        request_uri: message.request_uri().unwrap(),
        is_own: start.contains("@self.example"),
    };
    let rule = plan.rule(&question)?;
    plan.rules().iter().position(|of| core::ptr::eq(of, rule))
}

#[test]
fn the_route_table_goes_by_listener_and_in_order() {
    let plan = plan();
    let rule = |listener| rule_of(&plan, "INVITE sip:a@b.example", "", "203.0.113.9", listener);
    assert_eq!(rule(0), Some(1));
    assert_eq!(rule(1), Some(0));
    assert_eq!(rule(3), Some(1));
    assert_eq!(
        plan.rules()[0].action,
        Action::Pool {
            pool: PoolIndex(1),
            key: KeySource::CallId
        }
    );
}

const RULES: &str = r#"
    trusted = ["198.18.100.0/24"]
    [[listeners]]
    name = "clients"
    address = "198.18.0.1:5060"
    trusted = ["198.18.101.1"]
    [[pools]]
    name = "one"
    servers = [{ name = "s1", address = "198.18.1.11:5060" }]
"#;

/// For each condition: what meets it and what just does not.
#[test]
fn each_condition_has_two_sides() {
    const INVITE: &str = "INVITE sip:bob@home.example";
    const OUTSIDE: &str = "203.0.113.9";
    for (condition, start, rows, source, met) in [
        ("from = 'outside'", INVITE, "", OUTSIDE, true),
        ("from = 'outside'", INVITE, "", "198.18.100.9", false),
        ("from = 'trusted'", INVITE, "", "198.18.100.9", true),
        ("from = 'trusted'", INVITE, "", "198.18.101.1", true),
        ("from = 'trusted'", INVITE, "", "198.18.101.2", false),
        ("from = 'farm'", INVITE, "", "198.18.1.11", false),
        ("sources = ['203.0.113.8/31']", INVITE, "", OUTSIDE, true),
        ("sources = ['203.0.113.10/31']", INVITE, "", OUTSIDE, false),
        ("methods = ['INVITE']", INVITE, "", OUTSIDE, true),
        ("methods = ['INVITE']", "CANCEL sip:b@h", "", OUTSIDE, true),
        ("methods = ['INVITE']", "ACK sip:b@h", "", OUTSIDE, true),
        ("methods = ['INVITE']", "BYE sip:b@h", "", OUTSIDE, false),
        (
            "methods = ['BYE', 'X-NEW']",
            "X-NEW sip:b@h",
            "",
            OUTSIDE,
            true,
        ),
        ("methods = ['X-NEW']", "X-OLD sip:b@h", "", OUTSIDE, false),
        (
            "schemes = ['tel']",
            "INVITE tel:+4930;phone-context=x",
            "",
            OUTSIDE,
            true,
        ),
        ("schemes = ['tel']", INVITE, "", OUTSIDE, false),
        (
            "schemes = ['urn']",
            "INVITE urn:service:sos",
            "",
            OUTSIDE,
            true,
        ),
        (
            "schemes = ['urn:service:sos']",
            "INVITE URN:Service:SOS.fire",
            "",
            OUTSIDE,
            true,
        ),
        (
            "schemes = ['urn:service:sos']",
            "INVITE urn:service:sosx",
            "",
            OUTSIDE,
            false,
        ),
        (
            "domains = ['home.example']",
            "INVITE sip:b@HOME.Example.:5080",
            "",
            OUTSIDE,
            true,
        ),
        (
            "domains = ['home.example']",
            "INVITE sip:b@x.home.example",
            "",
            OUTSIDE,
            false,
        ),
        (
            "domains = ['*.home.example']",
            "INVITE sip:b@x.Home.example",
            "",
            OUTSIDE,
            true,
        ),
        ("domains = ['*.home.example']", INVITE, "", OUTSIDE, false),
        (
            "domains = ['*.home.example']",
            "INVITE sip:b@xhome.example",
            "",
            OUTSIDE,
            false,
        ),
        (
            "domains = ['[2001:db8::1]']",
            "INVITE sip:b@[2001:DB8:0::1]:5080",
            "",
            OUTSIDE,
            true,
        ),
        (
            "domains = ['198.18.0.1']",
            "INVITE sip:b@198.18.0.2",
            "",
            OUTSIDE,
            false,
        ),
        (
            "domains = ['self']",
            "INVITE sip:b@self.example",
            "",
            OUTSIDE,
            true,
        ),
        ("domains = ['self']", INVITE, "", OUTSIDE, false),
        (
            "domains = ['home.example']",
            "INVITE tel:+49",
            "",
            OUTSIDE,
            false,
        ),
        (
            "user_prefixes = ['+49', '00']",
            "INVITE sip:+4930@h",
            "",
            OUTSIDE,
            true,
        ),
        (
            "user_prefixes = ['+49']",
            "INVITE tel:+4930;a=b",
            "",
            OUTSIDE,
            true,
        ),
        (
            "user_prefixes = ['+49']",
            "INVITE sip:+4@h",
            "",
            OUTSIDE,
            false,
        ),
        (
            "user_prefixes = ['+49']",
            "INVITE sip:h.example",
            "",
            OUTSIDE,
            false,
        ),
        (
            "header = { name = 'subject' }",
            INVITE,
            "s: x\r\n",
            OUTSIDE,
            true,
        ),
        ("header = { name = 'Subject' }", INVITE, "", OUTSIDE, false),
        (
            "header = { name = 'X-A', equals = 'Yes' }",
            INVITE,
            "x-a: yES\r\n",
            OUTSIDE,
            true,
        ),
        (
            "header = { name = 'X-A', equals = 'yes' }",
            INVITE,
            "x-a: yes!\r\n",
            OUTSIDE,
            false,
        ),
        (
            "header = { name = 'X-A', prefix = 'ye' }",
            INVITE,
            "X-A: YES\r\n",
            OUTSIDE,
            true,
        ),
        (
            "header = { name = 'X-A', prefix = 'es' }",
            INVITE,
            "X-A: YES\r\n",
            OUTSIDE,
            false,
        ),
        (
            "header = { name = 'User-Agent', contains = 'scan' }",
            INVITE,
            "User-Agent: a Scanner\r\n",
            OUTSIDE,
            true,
        ),
        (
            "header = { name = 'User-Agent', contains = 'scan' }",
            INVITE,
            "User-Agent: a Scaner sca\r\n",
            OUTSIDE,
            true,
        ),
        (
            "header = { name = 'User-Agent', contains = 'scann' }",
            INVITE,
            "User-Agent: a Scaner scan\r\n",
            OUTSIDE,
            false,
        ),
        (
            "header = { name = 'X-A', equals = 'b' }",
            INVITE,
            "X-A: a\r\nX-A: b\r\n",
            OUTSIDE,
            true,
        ),
    ] {
        let config = format!("{RULES}[[routes]]\n{condition}\ndrop = true\n");
        let plan = build(&config, &mut ServerRegistry::new());
        let rule = rule_of(&plan, start, rows, source, 0);
        assert_eq!(rule.is_some(), met, "{condition}: {start} {rows} {source}");
    }
}

#[test]
fn rules_for_the_farm_are_for_what_it_sends_out() {
    let rules =
        "[[routes]]\npool = 'one'\n[[routes]]\nfrom = 'farm'\nnext_hop = '198.18.9.1:5060'\n";
    let plan = build(&format!("{RULES}{rules}"), &mut ServerRegistry::new());
    let of_farm = |outbound| ask(&plan, "INVITE tel:+49", "", "198.18.1.11", 0, outbound);
    assert_eq!(of_farm(false), Some(0));
    assert_eq!(of_farm(true), Some(1));
    assert_eq!(
        rule_of(&plan, "INVITE tel:+49", "", "203.0.113.9", 0),
        Some(0)
    );
}

#[test]
fn who_is_allowed_and_not_denied_is_served() {
    for (lists, source, served) in [
        ("", "203.0.113.9", true),
        ("deny = ['203.0.113.9']", "203.0.113.9", false),
        ("deny = ['203.0.113.9']", "::ffff:203.0.113.9", false),
        ("deny = ['203.0.113.9']", "203.0.113.10", true),
        ("allow = ['203.0.113.0/24']", "203.0.113.255", true),
        ("allow = ['203.0.113.0/24']", "203.0.114.0", false),
        ("allow = ['203.0.113.0/24']", "2001:db8::9", false),
        (
            "allow = ['203.0.113.0/24']\ndeny = ['203.0.113.9']",
            "203.0.113.9",
            false,
        ),
        // The farm and who is trusted need not be listed, and can be denied.
        ("allow = ['203.0.113.0/24']", "198.18.1.11", true),
        ("allow = ['203.0.113.0/24']", "198.18.100.7", true),
        ("allow = ['203.0.113.0/24']", "198.18.101.1", true),
        ("deny = ['198.18.100.7']", "198.18.100.7", false),
    ] {
        let config = RULES.replace("[[pools]]", &format!("{lists}\n[[pools]]"));
        let plan = build(&config, &mut ServerRegistry::new());
        let admitted = plan.admits(ListenerIndex(0), source.parse().unwrap());
        assert_eq!(admitted, served, "{lists} {source}");
    }
    // What the steering program is told besides the list.
    let plan = build(RULES, &mut ServerRegistry::new());
    let mut always: Vec<String> = plan
        .always_allowed(ListenerIndex(0))
        .map(|network| network.to_string())
        .collect();
    always.sort();
    assert_eq!(
        always,
        ["198.18.1.11/32", "198.18.100.0/24", "198.18.101.1/32"]
    );
}

#[test]
fn one_address_of_record_is_one_key_however_it_is_written() {
    let keys = keys();
    let key = |source: &KeySource, start: &str, rows: &str| {
        let (method, _) = start.split_once(' ').unwrap();
        let text = format!(
            "{start} SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n{rows}\r\n"
        );
        let mut message = Message::new();
        let _incomplete = message.parse(text.as_bytes());
        let call_id = keys.call_id_hash(b"c");
        let uri = message.request_uri().unwrap();
        let ip = "198.18.9.9".parse().unwrap();
        source.of(&keys, call_id, &message, text.as_bytes(), uri, ip)
    };
    let people =
        "From: <sip:al@a.example>;tag=1\r\nTo: Bob <sips:b%6fb@Home.EXAMPLE.:5061;x=y>\r\n";
    let aor = |start: &str| key(&KeySource::Aor, start, people);
    let bob = aor("PUBLISH sip:bob@home.example");
    assert_eq!(aor("REGISTER sip:home.example"), bob);
    assert_eq!(
        aor("SUBSCRIBE sip:bob@home.example:5070;transport=udp"),
        bob
    );
    assert_ne!(aor("SUBSCRIBE sip:Bob@home.example"), bob);
    assert_ne!(aor("SUBSCRIBE sip:bob@other.example"), bob);
    assert_eq!(
        aor("MESSAGE tel:+49-30.1(2)"),
        aor("MESSAGE tel:+493012;x=y")
    );

    let from = |rows: &str| key(&KeySource::From, "INVITE sip:x@y", rows);
    assert_eq!(
        from("f: \"A, B\" <sip:al@A.example:5060>;tag=9\r\n"),
        from(people)
    );
    let user = |start: &str| key(&KeySource::RuriUser, start, people);
    assert_eq!(
        user("INVITE sip:bob@one.example"),
        user("INVITE sip:bob@two.example")
    );
    assert_ne!(
        user("INVITE sip:bob@one.example"),
        user("INVITE sip:bo@one.example")
    );
    let header = KeySource::from(&crate::config::KeySource::Header("X-Tenant".to_owned()));
    let tenant = |rows: &str| key(&header, "INVITE sip:x@y", rows);
    assert_eq!(tenant("x-tenant:  a \r\n"), tenant("X-Tenant: a\r\n"));
    assert_ne!(tenant("X-Tenant: b\r\n"), tenant("X-Tenant: a\r\n"));
    // What is not there is replaced by the Call-ID.
    let call_id = key(&KeySource::CallId, "INVITE sip:x@y", "");
    assert_eq!(tenant(""), call_id);
    assert_eq!(user("INVITE sip:one.example"), call_id);
    assert_ne!(key(&KeySource::Source, "INVITE sip:x@y", ""), call_id);
}

#[test]
fn the_lowest_priority_takes_the_calls() {
    let config = |weight| {
        format!(
            "[[listeners]]\nname = 'l'\naddress = '198.18.0.1:5060'\n[[pools]]\nname = 'p'\n\
             servers = [{{ name = 'a', address = '198.18.1.1:5060', priority = 1, weight = {weight} }},\n\
             {{ name = 'b', address = '198.18.1.2:5060', priority = 2 }}]"
        )
    };
    for (weight, name) in [(1, "a"), (0, "b")] {
        let plan = build(&config(weight), &mut ServerRegistry::new());
        let pool = plan.pool(PoolIndex(0)).unwrap();
        for key in 0..100_u64 {
            let chosen = pool.select(AffinityKey(key << 57 | key)).unwrap();
            assert_eq!(&*plan.server(chosen).unwrap().name, name);
        }
    }
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
        plan.direction(ListenerIndex(0), "198.18.1.11".parse().unwrap()),
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
    config.routes[1].action = crate::config::Action::Pool {
        pool: "nowhere".to_owned(),
        key: crate::config::KeySource::CallId,
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

#[test]
fn a_pool_chooses_as_it_is_configured() {
    let text = CONFIG
        .replace(
            "name = \"clients\"",
            "name = \"clients\"\nstateful = [\"INVITE\"]",
        )
        .replace(
            "name = \"one\"",
            "name = \"one\"\npolicy = \"round-robin\"\nslow_start = 0",
        )
        .replace(
            "11:5060\" },\n        {",
            "11:5060\", max_calls = 1 },\n        {",
        )
        .replace("name = \"s2b\"", "name = \"s2b\", max_calls_per_second = 1");
    let plan = build(&text, &mut ServerRegistry::new());
    let pool = plan.pool(PoolIndex(0)).unwrap();
    let board = Board::new();
    let now = Instant::ZERO + Duration::from_secs(10);
    let choose = |key, tried: &[ServerIndex]| {
        let choice = Choice {
            board: &board,
            key: AffinityKey(key),
            tried,
            now,
        };
        Some(&*plan.server(pool.choose(&choice)?).unwrap().name)
    };
    let mut names = [choose(1, &[]).unwrap(), choose(2, &[]).unwrap()];
    names.sort_unstable();
    assert_eq!(names, ["s1", "s2b"]);
    // One of the second in this second was all that it may have, and one call is all of the first's.
    let s1 = plan.server_by_id(server_id("s1")).unwrap().index;
    assert_eq!(choose(3, &[]), Some("s1"));
    assert_eq!(choose(3, &[s1]), None);
    board.call_opened(s1);
    assert_eq!(choose(4, &[]), None);
}
