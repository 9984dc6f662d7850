//! Good files, bad files, and the message of each fault.

use core::time::Duration;

use super::*;

const SMALL: &str = r#"
    [[listeners]]
    name = "clients"
    address = "198.18.0.1:5060"
    [[pools]]
    name = "farm"
    servers = [{ name = "s1", address = "198.18.1.11:5060" }]
"#;

fn faults(text: &str) -> Vec<String> {
    match Config::parse(text) {
        Ok(_) => Vec::new(),
        Err(error) => error.faults.iter().map(Fault::to_string).collect(),
    }
}

#[test]
fn defaults_are_filled_in() {
    let config = Config::parse(SMALL).unwrap();
    assert_eq!(config.listeners[0].side, Side::Outside);
    assert_eq!(config.pools[0].reach, Reach::Destination);
    assert_eq!(config.pools[0].udp_max_request, None);
    assert_eq!(config.sip.max_breadth, 60);
    assert_eq!(
        config.metrics.address,
        Some("127.0.0.1:9464".parse().unwrap())
    );
    let master = SecretSource::File("/var/lib/viaduct/secret".into());
    assert_eq!(
        config.secret,
        Secret {
            master,
            tokens: Vec::new()
        }
    );
}

#[test]
fn the_reference_file_loads() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/viaduct.toml");
    let config = Config::load(&file).unwrap();
    assert!(!config.listeners.is_empty() && !config.pools.is_empty());
}

#[test]
fn every_fault_is_reported_at_once_with_its_key_path() {
    let text = r#"
        nodes = 1
        [[listeners]]
        name = "a b"
        address = "198.18.0.1"
        side = "inside"
        [[listeners]]
        name = "ok"
        address = "198.18.0.1:0"
        [[pools]]
        name = "farm"
        networks = ["198.18.0.0/99"]
        servers = [
          { name = "s1", address = "198.18.1.11:5060", weight = 1001 },
          { name = "s1", address = "198.18.1.12:5060" },
        ]
        [[routes]]
        pool = "fram"
    "#;
    let faults = faults(text);
    for expected in [
        "nodes: 1 is not a known key",
        "listeners[0].name: \"a b\" is not 1 to 64 letters",
        "listeners[0].address: \"198.18.0.1\" is not an address and port",
        "listeners[0].side: \"inside\" is not one of outside, farm",
        "listeners[1].address: 198.18.0.1:0 has port 0",
        "pools[0].networks[0]: \"198.18.0.0/99\" is not an address or a CIDR block",
        "pools[0].servers[0].weight: 1001 is outside 0..=1000",
        "pools[0].servers[1].name: s1 is taken already",
        "routes[0].pool: fram is not the name of a pool",
    ] {
        assert!(
            faults.iter().any(|fault| fault.starts_with(expected)),
            "{expected}\n{faults:#?}"
        );
    }
}

#[test]
fn wrong_types_and_missing_keys_are_named() {
    let faults = faults("node = \"x\"\nlisteners = 3\n[[pools]]\nservers = [1]\n");
    for expected in [
        "node: \"x\" is not an integer",
        "listeners: 3 is not an array of tables",
        "pools[0].name: is missing",
        "pools[0].servers[0]: 1 is not a table",
    ] {
        assert!(
            faults.iter().any(|fault| fault.starts_with(expected)),
            "{expected}\n{faults:#?}"
        );
    }
}

#[test]
fn syntax_errors_name_the_line() {
    let faults = faults("node = \n");
    assert!(faults[0].contains("line 1"), "{faults:?}");
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/nonexistent/viaduct.toml")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("/nonexistent/viaduct.toml: cannot be read")
    );
}

#[test]
fn secrets_are_checked_but_never_printed() {
    let text = format!("{SMALL}\n[secret]\nhex = \"hunter2\"\n");
    let faults = faults(&text);
    assert_eq!(faults.len(), 1);
    assert!(faults[0].starts_with("secret.hex: is not 64 hexadecimal digits"));
    assert!(!faults[0].contains("hunter2"));
}

#[test]
fn weights_at_both_sides_of_the_limit() {
    let with = |weight: i64| SMALL.replace("5060\" }]", &format!("5060\", weight = {weight} }}]"));
    assert!(faults(&with(1000)).is_empty());
    assert!(faults(&with(0)).is_empty());
    assert_eq!(faults(&with(1001)).len(), 1);
    assert_eq!(faults(&with(-1)).len(), 1);
}

#[test]
fn choosing_with_state_is_read_within_its_bounds() {
    let pool = |text: &str| SMALL.replace("name = \"farm\"", &format!("name = \"farm\"\n{text}"));
    let server = |text: &str| SMALL.replace("5060\" }]", &format!("5060\", {text} }}]"));
    let stateful = |text: &str| {
        let listener = "name = \"clients\"\nstateful = [\"INVITE\"]";
        text.replace("name = \"clients\"", listener)
    };
    let parse = |text: &str| Config::parse(&stateful(text)).unwrap().pools.remove(0);
    let usual = parse(SMALL);
    assert_eq!(usual.policy, Policy::Maglev);
    assert_eq!(usual.call_max, Duration::from_secs(14_400));
    assert_eq!(usual.slow_start, Duration::from_secs(30));
    assert_eq!(usual.servers[0].max_calls, 0);
    assert_eq!(usual.servers[0].max_calls_per_second, 0);
    for (name, policy) in [
        ("maglev", Policy::Maglev),
        ("rendezvous", Policy::Rendezvous),
        ("round-robin", Policy::RoundRobin),
        ("least-loaded", Policy::LeastLoaded),
        ("tlwl", Policy::Tlwl),
    ] {
        assert_eq!(parse(&pool(&format!("policy = \"{name}\""))).policy, policy);
    }
    let limited = parse(&server("max_calls = 500, max_calls_per_second = 20"));
    assert_eq!(limited.servers[0].max_calls, 500);
    assert_eq!(limited.servers[0].max_calls_per_second, 20);
    for (bad, good) in [
        (pool("call_max = 59"), pool("call_max = 60")),
        (pool("call_max = 604801"), pool("call_max = 604800")),
        (pool("slow_start = 3601"), pool("slow_start = 0")),
        (
            server("max_calls = 10000001"),
            server("max_calls = 10000000"),
        ),
        (server("max_calls = -1"), server("max_calls = 0")),
        (
            server("max_calls_per_second = 1000001"),
            server("max_calls_per_second = 1000000"),
        ),
        (pool("policy = \"random\""), pool("policy = \"tlwl\"")),
    ] {
        assert_eq!(faults(&stateful(&bad)).len(), 1, "{bad}");
        assert!(faults(&stateful(&good)).is_empty(), "{good}");
    }
}

#[test]
fn a_policy_with_state_is_refused_where_nothing_has_a_transaction() {
    let with = |policy: &str, stateful: &str, routes: &str| {
        let pool = format!("name = \"farm\"\npolicy = \"{policy}\"");
        let stateful = format!("name = \"clients\"\nstateful = [{stateful}]");
        let text = SMALL
            .replace("name = \"farm\"", &pool)
            .replace("name = \"clients\"", &stateful);
        faults(&format!("{text}\n{routes}"))
    };
    let invite = "\"INVITE\"";
    let register = "[[routes]]\nmethods = [\"REGISTER\"]\npool = \"farm\"\n";
    let both = &format!("{register}[[routes]]\npool = \"farm\"\n");
    for (stateful, routes) in [(invite, register), ("", both), ("", "")] {
        let refused = with("least-loaded", stateful, routes);
        assert!(
            refused[0].starts_with("pools[0].policy: least-loaded looks at load"),
            "{refused:?}"
        );
        assert!(with("rendezvous", stateful, routes).is_empty());
    }
    for (stateful, routes) in [(invite, ""), (invite, both), ("\"REGISTER\"", register)] {
        assert!(with("least-loaded", stateful, routes).is_empty());
    }
}

#[test]
fn a_metrics_page_beyond_loopback_is_refused() {
    let faults = faults(&format!(
        "{SMALL}\n[metrics]\naddress = \"198.18.0.1:9464\"\n"
    ));
    assert!(faults[0].starts_with("metrics.address: 198.18.0.1:9464 is not a loopback address"));
}

const ROUTES: &str = r#"
    [[routes]]
    name = "scanners"
    header = { name = "User-Agent", contains = "Friendly-Scanner" }
    drop = true
    [[routes]]
    from = "farm"
    schemes = ["tel", "urn:service"]
    user_prefixes = ["+49"]
    next_hop = "198.18.100.1:5060"
    [[routes]]
    listener = "clients"
    sources = ["198.18.9.0/24"]
    methods = ["REGISTER"]
    domains = ["self", "*.example.org", "198.18.0.1", "[2001:db8::1]"]
    pool = "farm"
    key = "aor"
    [[routes]]
    methods = ["SUBSCRIBE"]
    reject = 489
    [[routes]]
    pool = "farm"
    key = "header:X-Tenant"
"#;

#[test]
fn a_route_table_is_read_in_order() {
    let config = Config::parse(&format!("{SMALL}{ROUTES}")).unwrap();
    let actions: Vec<&Action> = config.routes.iter().map(|route| &route.action).collect();
    let farm = |key| Action::Pool {
        pool: "farm".to_owned(),
        key,
    };
    assert_eq!(
        actions,
        [
            &Action::Drop,
            &Action::NextHop("198.18.100.1:5060".parse().unwrap()),
            &farm(KeySource::Aor),
            &Action::Reject(489),
            &farm(KeySource::Header("X-Tenant".to_owned())),
        ]
    );
    let scanners = config.routes[0].header.clone().unwrap();
    assert_eq!(
        scanners.test,
        HeaderTest::Contains("friendly-scanner".to_owned())
    );
    assert_eq!(config.routes[1].from, Peers::Farm);
    assert_eq!(config.routes[2].domains.len(), 4);
    assert!(config.routes[4].admits_invite() && !config.routes[3].admits_invite());
}

#[test]
fn faults_of_routes_are_named() {
    for (route, expected) in [
        ("pool = \"farm\"\ndrop = true", "exactly one of pool"),
        ("listener = \"clients\"", "exactly one of pool"),
        ("reject = 200", "400..=699"),
        ("methods = [\"invite\"]\ndrop = true", "in capitals"),
        ("schemes = [\"http\"]\ndrop = true", "is not sip, sips"),
        ("domains = [\"a b\"]\ndrop = true", "is not a host name"),
        ("reject = 403\nkey = \"aor\"", "needs a pool"),
        ("pool = \"farm\"\nkey = \"to\"", "is not one of call-id"),
        ("from = \"farm\"\npool = \"farm\"", "go out by next_hop"),
        ("next_hop = \"198.18.0.1:5060\"", "one of our listeners"),
        (
            "listener = \"nobody\"\ndrop = true",
            "is not the name of a listener",
        ),
        ("header = { contains = \"x\" }\ndrop = true", "is missing"),
        (
            "header = { name = \"A\", contains = \"x\", equals = \"y\" }\ndrop = true",
            "cannot stand beside",
        ),
    ] {
        let found = faults(&format!("{SMALL}[[routes]]\n{route}\n"));
        assert!(
            found.iter().any(|fault| fault.contains(expected)),
            "{route}: {found:?}"
        );
    }
}

#[test]
fn without_pins_no_key_may_need_one() {
    let unpinned = "[datapath]\npins = 0\n";
    let with = |route: &str| faults(&format!("{unpinned}{SMALL}[[routes]]\n{route}\n"));
    let header_key = "pool = \"farm\"\nkey = \"header:X-Tenant\"";
    assert!(with(header_key)[0].contains("cannot be told for CANCEL and ACK"));
    let header = "pool = \"farm\"\nheader = { name = \"X-Tenant\" }";
    assert!(with(header)[0].contains("cannot be told for CANCEL and ACK"));
    assert!(with(&format!("{header_key}\nmethods = [\"REGISTER\"]")).is_empty());
    assert!(with("pool = \"farm\"\nkey = \"from\"").is_empty());
    let few = faults(&format!("[datapath]\npins = 10\n{SMALL}"));
    assert!(few[0].contains("at least 1024"), "{few:?}");
}

#[test]
fn the_limiter_is_off_unless_it_is_said() {
    let limit = |rest: &str| {
        Config::parse(&format!("{SMALL}\n[limit]\n{rest}"))
            .unwrap()
            .limit
    };
    assert!(!limit("").is_on());
    assert_eq!(Config::parse(SMALL).unwrap().limit, limit(""));
    let on = limit("packets_per_second = 200");
    assert!(on.is_on() && !on.dry_run);
    assert_eq!((on.burst, on.strangers_per_second), (2000, 0));
    assert_eq!(limit("packets_per_second = 1000000").burst, 10_000_000);
    assert_eq!(limit("packets_per_second = 5\nburst = 7").burst, 7);
    for (rest, expected) in [
        ("packets_per_second = -1", "limit.packets_per_second"),
        ("packets_per_second = 1000001", "limit.packets_per_second"),
        ("burst = 0", "limit.burst"),
        ("strangers_per_second = 5", "needs limit.packets_per_second"),
        ("sources = 1023", "limit.sources"),
        ("sources = 1048577", "limit.sources"),
        ("whitelist = [\"x\"]", "limit.whitelist[0]"),
        ("dry_run = 1", "limit.dry_run"),
        ("rate = 1", "limit.rate"),
    ] {
        let found = faults(&format!("{SMALL}\n[limit]\n{rest}\n"));
        assert!(
            found.len() == 1 && found[0].contains(expected),
            "{rest}: {found:?}"
        );
    }
}

#[test]
fn who_is_named_in_the_configuration_is_not_limited() {
    let config = Config::parse(
        r#"
        trusted = ["198.18.100.0/24"]
        [[listeners]]
        name = "clients"
        address = "198.18.0.1:5060"
        trusted = ["198.18.101.0/24"]
        [[listeners]]
        name = "others"
        address = "198.18.0.1:5070"
        [[pools]]
        name = "farm"
        networks = ["198.18.1.0/24"]
        servers = [{ name = "s1", address = "198.18.1.11:5060" }]
        [[routes]]
        next_hop = "198.18.102.1:5060"
        [limit]
        packets_per_second = 1
        whitelist = ["198.18.103.7"]
        "#,
    )
    .unwrap();
    let exempt = |listener: usize| {
        let mut texts: Vec<String> = config
            .exempt(&config.listeners[listener])
            .iter()
            .map(ToString::to_string)
            .collect();
        texts.sort();
        texts.join(" ")
    };
    assert_eq!(
        exempt(0),
        "198.18.1.0/24 198.18.1.11/32 198.18.100.0/24 198.18.101.0/24 198.18.102.1/32 \
         198.18.103.7/32"
    );
    assert!(!exempt(1).contains("198.18.101.0/24"));
}

#[test]
fn too_many_who_are_not_limited_are_a_fault_of_the_limiter_alone() {
    use std::fmt::Write as _;
    let mut text = String::new();
    for pool in 0..9 {
        let networks: Vec<String> = (0..1000)
            .map(|net| format!("\"198.18.{}.{}\"", net / 256, net % 256))
            .collect();
        let networks = networks.join(",");
        writeln!(
            text,
            "[[pools]]\nname = \"p{pool}\"\nnetworks = [{networks}]\n\
             servers = [{{ name = \"s{pool}\", address = \"198.18.9.{pool}:5060\" }}]"
        )
        .unwrap();
    }
    text.push_str("[[listeners]]\nname = \"c\"\naddress = \"198.18.0.1:5060\"\n");
    text.push_str("[[routes]]\npool = \"p0\"\n[limit]\n");
    assert!(faults(&text).is_empty());
    let found = faults(&format!("{text}packets_per_second = 1\n"));
    assert!(found[0].contains("limit.whitelist"), "{found:?}");
}

#[test]
fn the_control_socket_is_usual_named_or_off() {
    let control = |rest: &str| Config::parse(&format!("{SMALL}\n{rest}")).unwrap().control;
    assert_eq!(control("").socket, ControlSocket::Usual);
    assert_eq!(
        control("[control]\nsocket = \"\"").socket,
        ControlSocket::Off
    );
    let named = control("[control]\nsocket = \"/run/x/y\"");
    assert_eq!(named.socket.path(), Some(std::path::Path::new("/run/x/y")));
    assert_eq!(named.decisions, crate::limits::DECISIONS_DEFAULT);
    let drain = control("[control]\ndecisions = 0\ndrain_on_stop = 30");
    assert_eq!((drain.decisions, drain.drain_on_stop.as_secs()), (0, 30));
    let relative = faults(&format!("{SMALL}\n[control]\nsocket = \"x/y\"\n"));
    assert_eq!(
        relative,
        ["control.socket: \"x/y\" is not an absolute path"]
    );
}

#[test]
fn a_server_that_is_added_is_checked_as_one_of_the_file() {
    let server =
        |name, address: &str, weight| Server::checked(name, address.parse().unwrap(), weight);
    let good = server("s-4", "198.18.1.4:5060", 2).unwrap();
    assert_eq!(
        (good.name.as_str(), good.weight, good.priority),
        ("s-4", 2, 0)
    );
    for (name, address, weight, fault) in [
        (
            "s/4",
            "198.18.1.4:5060",
            1,
            "name: \"s/4\" is not 1 to 64 letters",
        ),
        ("", "198.18.1.4:5060", 1, "name"),
        ("s4", "198.18.1.4:0", 1, "has port 0"),
        ("s4", "224.0.0.1:5060", 1, "is not the address of one host"),
        (
            "s4",
            "198.18.1.4:5060",
            1_000_000,
            "weight: 1000000 is outside",
        ),
    ] {
        let said = server(name, address, weight).unwrap_err();
        assert!(said.contains(fault), "{said}");
    }
}

#[test]
fn health_is_off_without_its_table_and_within_its_bounds() {
    let with = |table: &str| format!("{SMALL}\n{table}");
    let read = |table: &str| Config::parse(&with(table)).unwrap().pools[0].health.clone();
    assert_eq!(read(""), None);
    assert_eq!(read("[pools.health]"), Some(Health::default()));
    // A short interval has a timeout that fits.
    let short = read("[pools.health]\ninterval = 0.5").unwrap();
    assert_eq!(short.timeout, Duration::from_millis(500));
    let none = read("[pools.health]\ninterval = 0").unwrap();
    assert_eq!(
        (none.interval, none.timeout),
        (Duration::ZERO, Duration::from_secs(2))
    );
    let codes = |codes: &str| {
        read(&format!("[pools.health]\ncodes = {codes}"))
            .unwrap()
            .codes
    };
    assert_eq!(codes("\"any\""), Codes::Any);
    assert_eq!(codes("[200, 483]"), Codes::List(vec![200, 483]));
    assert!(codes("\"any\"").accepts(405) && !codes("\"any\"").accepts(503));
    for (key, value) in [
        ("interval", "0.09"),
        ("interval", "3600.1"),
        ("timeout", "5.1"),
        ("timeout", "0.05"),
        ("rise", "0"),
        ("fall", "101"),
        ("codes", "\"some\""),
        ("codes", "[]"),
        ("codes", "[100]"),
        ("from", "\"viaduct\""),
        ("from", "\"sip:a>b@example.net\""),
        ("max_forwards", "256"),
        ("eject_timeouts", "1001"),
        ("eject_5xx_percent", "101"),
        ("max_ejected_percent", "101"),
        ("panic_percent", "-1"),
        ("no_server_code", "399"),
        ("unknown", "1"),
    ] {
        let found = faults(&with(&format!("[pools.health]\n{key} = {value}")));
        assert!(
            !found.is_empty()
                && found
                    .iter()
                    .all(|fault| fault.contains(&format!("health.{key}"))),
            "{key} = {value}: {found:?}"
        );
    }
}
