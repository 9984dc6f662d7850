//! Relay: RFC 3261 §26.1.5, RFC 6026 §10. A stranger gets nothing sent to a third host, whatever it
//! writes into Route and Request-URI, and a valid token changes nothing of that.

use viaduct::net::ServerId;
use viaduct::route::server_id;
use viaduct::verdict::DropReason;

use crate::fixture::*;
use crate::tools::*;

/// URIs that lead to the victim.
fn outside() -> Vec<String> {
    [
        "sip:x@VICTIM",
        "sip:VICTIM",
        "sip:x@VICTIM:5060;lr",
        "sip:x@VICTIM:53;lr=on",
        "sip:x@VICTIM;transport=udp;lr",
        "SIP:x@[::ffff:VICTIM];lr",
        "sip:x@farm.example;maddr=VICTIM;lr",
        "sip:x@198.18.0.1;maddr=VICTIM;lr",
        "sip:198.18.1.11;maddr=VICTIM;lr",
        "sip:TOKEN@VICTIM;lr",
    ]
    .map(|uri| uri.replace("VICTIM", VICTIM))
    .to_vec()
}

const METHODS: [&str; 8] = [
    "INVITE",
    "BYE",
    "OPTIONS",
    "REGISTER",
    "MESSAGE",
    "SUBSCRIBE",
    "REFER",
    "FROB",
];

/// What the bearer may hold: nothing, a token of this dialog, one that names nobody, one with a flow.
fn bearers(lab: &Lab, call_id: &str) -> Vec<Option<String>> {
    vec![
        None,
        Some(sealed(lab, server_id("s2"), None, call_id)),
        Some(sealed(lab, ServerId::OUTSIDE, None, call_id)),
        Some(sealed(
            lab,
            server_id("s2"),
            Some("203.0.113.99:5060"),
            call_id,
        )),
    ]
}

/// RFC 3261 §26.1.5: a Route to a third host earns 403, from strangers and from trusted peers.
#[test]
fn a14_a_route_to_a_third_host_is_refused() {
    let mut lab = Lab::new(ONE_ARMED);
    for from in [STRANGER, TRUSTED] {
        for token in bearers(&lab, "relay-1") {
            let own = token
                .as_ref()
                .map(|token| format!("Route: <sip:{token}@198.18.0.1:5060;lr>\r\n"));
            let own = own.unwrap_or_default();
            let user = token.clone().unwrap_or_else(|| "x".to_owned());
            for uri in outside() {
                let uri = uri.replace("TOKEN", &user);
                for method in METHODS {
                    let routes = format!("{own}Route: <{uri}>\r\n");
                    let bytes = routed(method, "sip:bob@b.example", "relay-1", &routes);
                    assert_eq!(
                        status(lab.send(&bytes, from), from),
                        403,
                        "{method} {routes}"
                    );
                    // In one row, behind ours; and as the second of two.
                    if !own.is_empty() {
                        let joined = format!("{},<{uri}>\r\n", own.trim_end());
                        let bytes = routed(method, "sip:bob@b.example", "relay-1", &joined);
                        assert_eq!(status(lab.send(&bytes, from), from), 403, "{joined}");
                    }
                }
                let ack = routed(
                    "ACK",
                    "sip:b@b.example",
                    "relay-1",
                    &format!("{own}Route: <{uri}>\r\n"),
                );
                assert_eq!(lab.send(&ack, from).dropped(), DropReason::NextHopForbidden);
                let cancel = routed(
                    "CANCEL",
                    "sip:b@b.example",
                    "relay-1",
                    &format!("{own}Route: <{uri}>\r\n"),
                );
                assert_eq!(
                    lab.send(&cancel, from).dropped(),
                    DropReason::CancelOwnAnswer
                );
            }
        }
    }
}

/// A Request-URI that names a third host goes to the farm, which may or may not serve it; with a
/// maddr it can mean nobody else and is refused.
#[test]
fn a15_a_request_uri_of_a_third_host_leads_to_the_farm_only() {
    let mut lab = Lab::new(ONE_ARMED);
    for from in [STRANGER, TRUSTED] {
        for token in bearers(&lab, "relay-2") {
            let own = token
                .as_ref()
                .map(|token| format!("Route: <sip:{token}@198.18.0.1:5060;lr>\r\n"));
            let own = own.unwrap_or_default();
            let user = token.clone().unwrap_or_else(|| "x".to_owned());
            for uri in outside() {
                let uri = uri.replace("TOKEN", &user);
                for method in METHODS {
                    let bytes = routed(method, &uri, "relay-2", &own);
                    let sent = lab.send(&bytes, from).sent();
                    if uri.contains("maddr") {
                        assert_eq!(start_line(&sent.bytes), "SIP/2.0 403 Forbidden", "{uri}");
                        assert_eq!(sent.to, from.parse().unwrap());
                    } else {
                        assert!(is_server(&sent), "{method} {uri} {own} to {}", sent.to);
                    }
                }
            }
        }
    }
}

/// The trick of a strict router (RFC 3261 §16.4): our own URI as Request-URI, the victim as the last
/// Route. The last Route becomes the Request-URI, and that opens nothing.
#[test]
fn a11_a_strict_route_to_a_third_host_leads_to_the_farm_only() {
    let mut lab = Lab::new(ONE_ARMED);
    for from in [STRANGER, TRUSTED] {
        for token in bearers(&lab, "relay-3").into_iter().flatten() {
            for uri in outside() {
                let own = format!("sip:{token}@198.18.0.1:5060;lr");
                let uri = uri.replace("TOKEN", &token);
                let one = routed("BYE", &own, "relay-3", &format!("Route: <{uri}>\r\n"));
                let sent = lab.send(&one, from).sent();
                if uri.contains("maddr") {
                    assert_eq!(start_line(&sent.bytes), "SIP/2.0 403 Forbidden", "{uri}");
                } else {
                    assert!(is_server(&sent), "{uri} to {}", sent.to);
                }
                // As the next hop before the last one.
                let two = format!("Route: <{uri}>, <sip:x@198.18.1.11>\r\n");
                let two = routed("BYE", &own, "relay-3", &two);
                assert_eq!(status(lab.send(&two, from), from), 403, "{uri}");
            }
        }
    }
}

/// RFC 3261 §16.6 step 6: a next hop of the farm without `lr` gets the Route as Request-URI; the
/// victim behind it is the server's affair.
#[test]
fn a18_a_strict_server_is_no_way_around() {
    let mut lab = Lab::new(ONE_ARMED);
    let routes = format!("Route: <sip:198.18.1.12>, <sip:{VICTIM};lr>\r\n");
    let sent = lab
        .send(
            routed("BYE", "sip:x@y.example", "relay-4", &routes),
            STRANGER,
        )
        .sent();
    assert_eq!(sent.to, SERVERS[1].parse().unwrap());
    // From the server's side the way is open: that is the farm's decision.
    let routes = format!("Route: <sip:{VICTIM};lr>\r\n");
    let sent = lab
        .send(
            routed("BYE", "sip:x@y.example", "relay-4", &routes),
            SERVERS[1],
        )
        .sent();
    assert_eq!(sent.to.ip().to_string(), VICTIM);
}

/// Names and other transports behind a token mean the token's server; without a token they are
/// refused. Nothing is looked up for a stranger.
#[test]
fn a14_names_and_transports_of_a_stranger_lead_nowhere_else() {
    let mut lab = Lab::new(ONE_ARMED);
    for uri in [
        "sip:evil.example;lr",
        "sip:x@VICTIM;transport=tcp;lr",
        "sip:x@VICTIM;transport=unheard-of;lr",
        "sip:x@198.18.1.11;maddr=evil.example;lr",
    ] {
        let uri = uri.replace("VICTIM", VICTIM);
        let plain = routed(
            "BYE",
            "sip:x@y.example",
            "relay-5",
            &format!("Route: <{uri}>\r\n"),
        );
        assert_eq!(status(lab.send(&plain, STRANGER), STRANGER), 403, "{uri}");
        let token = sealed(&lab, server_id("s3"), None, "relay-5");
        let routes = format!("Route: <sip:{token}@198.18.0.1:5060;lr>, <{uri}>\r\n");
        let sent = lab
            .send(
                routed("BYE", "sip:x@y.example", "relay-5", &routes),
                STRANGER,
            )
            .sent();
        assert_eq!(sent.to, SERVERS[2].parse().unwrap(), "{uri}");
    }
    let secure = format!("Route: <sips:{VICTIM};lr>\r\n");
    let secure = routed("BYE", "sip:x@y.example", "relay-5", &secure);
    assert_eq!(status(lab.send(&secure, STRANGER), STRANGER), 480);
    for uri in ["tel:+12015550123", "urn:service:sos", "mailto:x@y.example"] {
        let bytes = routed(
            "BYE",
            "sip:x@y.example",
            "relay-5",
            &format!("Route: <{uri}>\r\n"),
        );
        assert_eq!(status(lab.send(&bytes, STRANGER), STRANGER), 403, "{uri}");
    }
}

/// With a token any port of the farm's networks can be named (Contacts have ports of their own), but
/// no host outside them; without one only the configured ports.
#[test]
fn a14_a_token_opens_ports_of_the_farm_and_no_host() {
    let networks = "name = \"farm\"\nnetworks = [\"198.18.1.0/28\"]";
    let mut lab = Lab::new(&ONE_ARMED.replace("name = \"farm\"", networks));
    let token = sealed(&lab, server_id("s2"), None, "relay-6");
    let own = format!("Route: <sip:{token}@198.18.0.1:5060;lr>\r\n");
    for (host, with_token) in [
        ("198.18.1.11:5080", "198.18.1.11:5080"),
        ("198.18.1.14:7000", "198.18.1.14:7000"),
        // One beyond the network: the token's server.
        ("198.18.1.16:5060", SERVERS[1]),
        ("198.18.0.255:5060", SERVERS[1]),
    ] {
        let bytes = routed("BYE", &format!("sip:x@{host}"), "relay-6", &own);
        let sent = lab.send(&bytes, STRANGER).sent();
        assert_eq!(sent.to, with_token.parse().unwrap(), "{host}");
        let sent = lab
            .send(
                routed("BYE", &format!("sip:x@{host}"), "relay-6", ""),
                STRANGER,
            )
            .sent();
        assert!(is_server(&sent), "{host} without a token to {}", sent.to);
    }
}
