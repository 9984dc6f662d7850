//! Addresses that nobody may be sent to: RFC 4475 §3.3.10, RFC 6026 §10.

use viaduct::route::server_id;
use viaduct::verdict::DropReason;

use crate::fixture::*;
use crate::tools::*;

/// Nobody, everybody, a port that is none.
const FORBIDDEN: [&str; 10] = [
    "0.0.0.0",
    "255.255.255.255",
    "224.0.1.75",
    "239.255.255.250:1900",
    "[::]",
    "[ff02::1]",
    "[ff0e::1:2]:5070",
    "[::ffff:224.0.1.75]",
    "[::ffff:255.255.255.255]",
    "[::ffff:0.0.0.0]",
];

/// As Route or Request-URI of a server: 403, and silence for an ACK.
#[test]
fn a14_the_farm_sends_to_no_forbidden_address() {
    let mut lab = Lab::new(ONE_ARMED);
    for host in FORBIDDEN {
        for (uri, routes) in [
            (format!("sip:x@{host}"), String::new()),
            (
                format!("sip:x@y.example;maddr={}", bare(host)),
                String::new(),
            ),
            (
                "sip:x@203.0.113.9".to_owned(),
                format!("Route: <sip:{host};lr>\r\n"),
            ),
            (
                "sip:x@203.0.113.9".to_owned(),
                format!("Route: <sip:198.18.0.1;lr>, <sip:{host}>\r\n"),
            ),
        ] {
            let bytes = routed("INVITE", &uri, "hop-1", &routes);
            assert_eq!(
                status(lab.send(&bytes, SERVERS[0]), SERVERS[0]),
                403,
                "{uri} {routes}"
            );
            let ack = routed("ACK", &uri, "hop-1", &routes);
            assert_eq!(
                lab.send(&ack, SERVERS[0]).dropped(),
                DropReason::NextHopForbidden
            );
        }
    }
}

fn bare(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((ip, _)) if !host.ends_with(']') => ip,
        _ => host,
    }
}

/// A port of 0 is no port (RFC 3261 §25.1 lets it be written): malformed.
#[test]
fn a04_port_0_is_refused() {
    let mut lab = Lab::new(ONE_ARMED);
    for from in [SERVERS[0], STRANGER] {
        let bytes = routed("INVITE", "sip:x@203.0.113.9:0", "hop-2", "");
        assert_eq!(status(lab.send(&bytes, from), from), 400);
        let bytes = routed(
            "INVITE",
            "sip:x@y.example",
            "hop-2",
            "Route: <sip:203.0.113.9:0;lr>\r\n",
        );
        assert_eq!(status(lab.send(&bytes, from), from), 400);
        let bytes = replaced(
            &invite("hop-2", "z9hG4bK1"),
            "198.18.200.7:5060;branch",
            "h.example:0;branch",
        );
        assert_eq!(lab.send(&bytes, from).dropped(), DropReason::Malformed);
    }
    // From a source port 0, which no answer can reach.
    let bytes = routed("INVITE", "sip:x@203.0.113.9:0", "hop-2", "");
    let dropped = lab.send(&bytes, "203.0.113.66:0").dropped();
    assert_eq!(dropped, DropReason::NextHopForbidden);
}

/// From outside: refused as Route; as Request-URI nobody's but the farm's to look at, or refused.
#[test]
fn a14_a_stranger_sends_to_no_forbidden_address() {
    let mut lab = Lab::new(ONE_ARMED);
    let token = sealed(&lab, server_id("s2"), None, "hop-3");
    for own in [
        String::new(),
        format!("Route: <sip:{token}@198.18.0.1;lr>\r\n"),
    ] {
        for host in FORBIDDEN
            .into_iter()
            .chain(["127.0.0.1", "[::1]", "198.18.0.1:9999"])
        {
            let routes = format!("{own}Route: <sip:{host};lr>\r\n");
            let bytes = routed("INVITE", "sip:x@y.example", "hop-3", &routes);
            assert_eq!(
                status(lab.send(&bytes, STRANGER), STRANGER),
                403,
                "{routes}"
            );
            let bytes = routed("INVITE", &format!("sip:x@{host}"), "hop-3", &own);
            let sent = lab.send(&bytes, STRANGER).sent();
            let refused =
                sent.bytes.starts_with(b"SIP/2.0 403 ") && sent.to == STRANGER.parse().unwrap();
            assert!(refused || is_server(&sent), "{host} {own}: {}", sent.to);
        }
    }
}

/// A listener on loopback is a trial on one host: there loopback is the network.
#[test]
fn a14_on_loopback_loopback_is_reached() {
    let config = ONE_ARMED
        .replace("198.18.0.1:", "127.0.0.1:")
        .replace("198.18.1.1", "127.0.0.1");
    let mut lab = Lab::new(&config);
    let bytes = routed("INVITE", "sip:x@127.0.0.1:6000", "hop-6", "");
    let sent = lab.send(&bytes, "127.0.0.11:5060").sent();
    assert_eq!(sent.to, "127.0.0.1:6000".parse().unwrap());
}
