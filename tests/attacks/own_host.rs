//! The host that viaduct runs on is no next hop: RFC 6026 §10, RFC 3261 §26.1.5.

use viaduct::route::server_id;

use crate::fixture::*;
use crate::tools::*;

/// The host that viaduct runs on is behind no URI: neither its loopback, where its metrics page and
/// its neighbours on the host listen, nor another port of its own addresses.
#[test]
fn a14_the_farm_does_not_reach_our_own_host() {
    let networks = "name = \"farm\"\nnetworks = [\"198.18.1.0/24\"]";
    for config in [
        ONE_ARMED.to_owned(),
        TWO_ARMED.to_owned(),
        TWO_ARMED.replace("name = \"farm\"", networks),
    ] {
        let mut lab = Lab::new(&config);
        let mut own = vec![
            "127.0.0.1:9060",
            "127.1.2.3",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "198.18.0.1:9999",
            "[::ffff:198.18.0.1]:53",
        ];
        if config.contains("198.18.1.1:5060\"\n") {
            own.push("198.18.1.1:9999");
        }
        for host in own {
            for (uri, routes) in [
                (format!("sip:x@{host}"), String::new()),
                (
                    "sip:x@203.0.113.9".to_owned(),
                    format!("Route: <sip:{host};lr>\r\n"),
                ),
            ] {
                let bytes = routed("INVITE", &uri, "hop-4", &routes);
                assert_eq!(
                    status(lab.send(&bytes, SERVERS[0]), SERVERS[0]),
                    403,
                    "{uri} {routes}"
                );
            }
        }
    }
}

/// With a token from outside, too: a farm's networks may cover our own address on that side.
#[test]
fn a14_a_token_does_not_reach_our_own_host() {
    let networks = "name = \"farm\"\nnetworks = [\"198.18.1.0/24\"]";
    let mut lab = Lab::new(&TWO_ARMED.replace("name = \"farm\"", networks));
    let token = sealed(&lab, server_id("s2"), None, "hop-5");
    let own = format!("Route: <sip:{token}@198.18.0.1;lr>\r\n");
    for (uri, routes) in [
        ("sip:x@198.18.1.1:9999", own.clone()),
        (
            "sip:x@y.example",
            format!("{own}Route: <sip:198.18.1.1:9999;lr>\r\n"),
        ),
    ] {
        let sent = lab
            .send(routed("BYE", uri, "hop-5", &routes), STRANGER)
            .sent();
        assert_ne!(sent.to.ip().to_string(), "198.18.1.1", "{uri}");
    }
}
