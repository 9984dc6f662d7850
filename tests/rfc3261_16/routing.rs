//! Route information and targets: RFC 3261 §16.4, §16.5, §16.6 steps 2, 6 and 7.

use viaduct::affinity::{Binding, Pair, RouteToken};
use viaduct::net::{Endpoint, ListenerIndex, Protocol, ServerId};
use viaduct::route::server_id;
use viaduct::verdict::DropReason;

use crate::fixture::*;

/// A token of ours that names `server`, for a Record-Route of this Call-ID.
fn token(lab: &Lab, server: &str, call_id: &str) -> String {
    sealed(lab, server_id(server), None, call_id)
}

fn sealed(lab: &Lab, server: ServerId, flow: Option<&str>, call_id: &str) -> String {
    let token = RouteToken {
        server,
        flow: flow.map(|flow| Endpoint {
            address: flow.parse().unwrap(),
            protocol: Protocol::Udp,
        }),
        listener: ListenerIndex(0),
        nat: flow.is_some(),
        callee: false,
        pair: Pair::Single,
        initiator: lab.keys.tag_hash(b"a1"),
    };
    let hash = lab.keys.call_id_hash(call_id.as_bytes());
    text(&token.seal(&lab.keys, Binding::Dialog(hash)))
}

fn routed(method: &str, uri: &str, call_id: &str, route: &str) -> Vec<u8> {
    let bytes = request(method, uri, call_id, "z9hG4bKr", 2);
    with_row(&bytes, "Max-Forwards", route)
}

/// RFC 3261 §16.4: our Record-Route value as Request-URI means a strict router before us.
#[test]
fn a11_an_own_record_route_value_as_request_uri_gives_way_to_the_last_route() {
    let mut lab = Lab::new(ONE_ARMED);
    let token = token(&lab, "s2", "r-1");
    let uri = format!("sip:{token}@198.18.0.1:5060;lr");
    let route = "Route: <sip:198.18.1.13;lr>,\r\n <sip:callee@198.18.1.11:5080;x=y>";
    let sent = lab.send(routed("BYE", &uri, "r-1", route), CLIENT).sent();
    assert_eq!(
        start_line(&sent.bytes),
        "BYE sip:callee@198.18.1.11:5080;x=y SIP/2.0"
    );
    assert_eq!(row(&sent.bytes, "Route"), "<sip:198.18.1.13;lr>");
    assert_eq!(sent.to, SERVERS[2].parse().unwrap());

    // Without lr (RFC 3261 §12.2.1.1 lets a client lose it), and with only the callee left.
    let uri = format!("sip:{}@198.18.0.1:5060", token.to_uppercase());
    let route = "Route: <sip:callee@198.18.1.11:5080>";
    let sent = lab.send(routed("BYE", &uri, "r-1", route), CLIENT).sent();
    assert_eq!(
        start_line(&sent.bytes),
        "BYE sip:callee@198.18.1.11:5080 SIP/2.0"
    );
    assert!(rows(&sent.bytes, "Route").is_empty());
    assert_eq!(sent.to, "198.18.1.11:5080".parse().unwrap());
}

#[test]
fn a11_an_own_request_uri_and_an_own_route_together() {
    let mut lab = Lab::new(ONE_ARMED);
    let token = token(&lab, "s2", "r-2");
    let uri = format!("sip:{token}@198.18.0.1:5060;lr");
    let route = "Route: <sip:198.18.0.1;lr>, <sip:callee@198.18.1.11>";
    let sent = lab.send(routed("BYE", &uri, "r-2", route), CLIENT).sent();
    assert_eq!(
        start_line(&sent.bytes),
        "BYE sip:callee@198.18.1.11 SIP/2.0"
    );
    assert!(rows(&sent.bytes, "Route").is_empty());
    assert_eq!(sent.to, SERVERS[0].parse().unwrap());
}

/// RFC 3261 §16.4: an own maddr goes, with port and transport; a foreign one is the target.
#[test]
fn a12_an_own_maddr_is_stripped_and_a_foreign_one_followed() {
    let mut lab = Lab::new(ONE_ARMED);
    for (uri, left) in [
        ("sip:u@farm.example;maddr=198.18.0.1", "sip:u@farm.example"),
        (
            "sip:u@farm.example;a=b;maddr=198.18.0.1;c",
            "sip:u@farm.example;a=b;c",
        ),
        (
            "sip:u@farm.example:5070;transport=udp;MADDR=198.18.0.1;user=phone",
            "sip:u@farm.example;user=phone",
        ),
        (
            "sip:u@farm.example:5060;maddr=sip.lab.example",
            "sip:u@farm.example:5060",
        ),
    ] {
        let sent = lab
            .send(request("INVITE", uri, "r-3", "z9hG4bK1", 1), CLIENT)
            .sent();
        assert_eq!(start_line(&sent.bytes), format!("INVITE {left} SIP/2.0"));
        assert!(SERVERS.contains(&sent.to.to_string().as_str()));
    }
    let foreign = "sip:u@farm.example;maddr=203.0.113.5";
    let bytes = request("INVITE", foreign, "r-4", "z9hG4bK1", 1);
    let answer = lab.send(&bytes, CLIENT).sent();
    assert_eq!(start_line(&answer.bytes), "SIP/2.0 403 Forbidden");
    let sent = lab.send(&bytes, SERVERS[0]).sent();
    assert_eq!(sent.to, "203.0.113.5:5060".parse().unwrap());
    assert_eq!(start_line(&sent.bytes), format!("INVITE {foreign} SIP/2.0"));
    let inside = "sip:u@farm.example;maddr=198.18.1.12";
    let sent = lab
        .send(request("INVITE", inside, "r-5", "z9hG4bK1", 1), CLIENT)
        .sent();
    assert_eq!(sent.to, SERVERS[1].parse().unwrap());
}

/// RFC 3261 §16.4, §16.12: own values go, then the next Route or the Request-URI says where.
#[test]
fn a13_own_routes_are_removed_and_the_request_follows_its_route_set() {
    let mut lab = Lab::new(ONE_ARMED);
    let own = format!("<sip:{}@198.18.0.1:5060;lr>", token(&lab, "s2", "r-6"));
    let uri = "sip:callee@198.18.1.11:5080";
    let cases = [
        (format!("Route: {own}"), vec![], "198.18.1.11:5080"),
        (
            format!("Route: {own}, <sip:198.18.1.13;lr>"),
            vec!["<sip:198.18.1.13;lr>"],
            SERVERS[2],
        ),
        (
            format!("Route: {own}\r\nRoute: <sip:198.18.1.13;lr>,<sip:z.example;lr>"),
            vec!["<sip:198.18.1.13;lr>,<sip:z.example;lr>"],
            SERVERS[2],
        ),
        // Two of ours: a pair, or a spiral in one go.
        (format!("Route: {own},{own}"), vec![], "198.18.1.11:5080"),
        (
            format!("Route: {own}\r\nRoute: {own}, <sip:198.18.1.13;lr>;p=1"),
            vec!["<sip:198.18.1.13;lr>;p=1"],
            SERVERS[2],
        ),
        // By any name of ours, with parameters nobody knows.
        (
            // Without a token, so to the port that is configured.
            "Route: \"x\" <sip:SIP.Lab.Example;lr=on;foo=bar;x>".to_owned(),
            vec![],
            SERVERS[0],
        ),
        // Ours is not the first: it stays.
        (
            format!("Route: <sip:198.18.1.13;lr>, {own}"),
            vec!["<sip:198.18.1.13;lr>, OWN"],
            SERVERS[2],
        ),
    ];
    for (route, left, to) in cases {
        let sent = lab.send(routed("BYE", uri, "r-6", &route), CLIENT).sent();
        let left: Vec<String> = left
            .iter()
            .map(|value| value.replace("OWN", &own))
            .collect();
        assert_eq!(rows(&sent.bytes, "Route"), left, "{route}");
        assert_eq!(sent.to, to.parse().unwrap(), "{route}");
        assert_eq!(start_line(&sent.bytes), format!("BYE {uri} SIP/2.0"));
    }
}

/// Architecture: "else the token's server", never the hash, when the Request-URI is us or a name.
#[test]
fn a13_the_token_names_the_server_when_the_request_uri_does_not() {
    let mut lab = Lab::new(ONE_ARMED);
    for server in ["s1", "s2", "s3"] {
        let call_id = format!("r-7-{server}");
        let own = format!(
            "Route: <sip:{}@198.18.0.1:5060;lr>",
            token(&lab, server, &call_id)
        );
        for uri in [
            "sip:198.18.0.1:5060",
            "sip:bob@pbx.example",
            "sip:bob@203.0.113.80:5062",
        ] {
            let sent = lab.send(routed("BYE", uri, &call_id, &own), CLIENT).sent();
            let expected = SERVERS[usize::from(server.as_bytes()[1] - b'1')];
            assert_eq!(sent.to, expected.parse().unwrap(), "{uri}");
        }
        // A server behind us that record-routes a name.
        let route = format!("{own}, <sip:edge.example;lr>");
        let sent = lab
            .send(routed("BYE", "sip:bob@x.example", &call_id, &route), CLIENT)
            .sent();
        assert_eq!(row(&sent.bytes, "Route"), "<sip:edge.example;lr>");
        assert!(
            sent.to
                .to_string()
                .starts_with(&format!("198.18.1.1{}:", &server[1..]))
        );
    }
}

/// A token is good for its dialog only, and for nobody's use as a relay.
#[test]
fn a13_tokens_of_other_dialogs_and_damaged_ones_count_as_none() {
    let mut lab = Lab::new(ONE_ARMED);
    let hashed = lab
        .send(routed("BYE", "sip:bob@x.example", "r-8", "X: y"), CLIENT)
        .sent()
        .to;
    let good = token(&lab, "s1", "r-8");
    let other = token(&lab, "s1", "another call");
    let mut damaged = good.clone().into_bytes();
    damaged[9] = if damaged[9] == b'0' { b'1' } else { b'0' };
    for bad in [other, text(&damaged), "nobody".to_owned()] {
        let route = format!("Route: <sip:{bad}@198.18.0.1:5060;lr>");
        let sent = lab
            .send(routed("BYE", "sip:bob@x.example", "r-8", &route), CLIENT)
            .sent();
        assert_eq!(sent.to, hashed, "{bad}");
        assert!(rows(&sent.bytes, "Route").is_empty());
    }
}

/// RFC 3261 §16.6 step 7; §26.1.5: followed inside the farm, refused outside, never balanced.
#[test]
fn a14_a_foreign_first_route_is_followed_or_refused() {
    let mut lab = Lab::new(ONE_ARMED);
    for from in [CLIENT, "198.18.100.1:5060", SERVERS[0]] {
        for server in SERVERS {
            let route = format!("Route: <sip:{server};lr>");
            let bytes = routed("INVITE", "sip:bob@x.example", "r-9", &route);
            let sent = lab.send(&bytes, from).sent();
            assert_eq!(sent.to, server.parse().unwrap(), "{from}");
            assert_eq!(row(&sent.bytes, "Route"), format!("<sip:{server};lr>"));
        }
    }
    let outside = [
        "<sip:203.0.113.9;lr>",
        "<sip:elsewhere.example;lr>",
        "<sip:203.0.113.9;transport=tcp;lr>",
        "<sip:198.18.0.1:5999;lr>",
    ];
    for route in outside {
        let bytes = routed(
            "INVITE",
            "sip:bob@x.example",
            "r-10",
            &format!("Route: {route}"),
        );
        for from in [CLIENT, "198.18.100.1:5060"] {
            let answer = lab.send(&bytes, from).sent();
            assert_eq!(
                start_line(&answer.bytes),
                "SIP/2.0 403 Forbidden",
                "{route}"
            );
        }
    }
    let route = "Route: <sip:203.0.113.9;lr>";
    let sent = lab
        .send(
            routed("INVITE", "sip:bob@x.example", "r-11", route),
            SERVERS[1],
        )
        .sent();
    assert_eq!(sent.to, "203.0.113.9:5060".parse().unwrap());
}

/// A valid token does not make us a relay.
#[test]
fn a14_a_token_opens_no_way_out() {
    let mut lab = Lab::new(ONE_ARMED);
    let own = format!("<sip:{}@198.18.0.1:5060;lr>", token(&lab, "s2", "r-12"));
    let route = format!("Route: {own}, <sip:203.0.113.9;lr>");
    let answer = lab
        .send(routed("BYE", "sip:x@x.example", "r-12", &route), CLIENT)
        .sent();
    assert_eq!(start_line(&answer.bytes), "SIP/2.0 403 Forbidden");
    // Its flow is for the farm to use.
    let flow = sealed(&lab, server_id("s2"), Some("203.0.113.77:7777"), "r-12");
    let route = format!("Route: <sip:{flow}@198.18.0.1:5060;lr>");
    let bytes = routed("BYE", "sip:x@x.example", "r-12", &route);
    assert_eq!(
        lab.send(&bytes, CLIENT).sent().to,
        SERVERS[1].parse().unwrap()
    );
    let sent = lab.send(&bytes, SERVERS[1]).sent();
    assert_eq!(sent.to, "203.0.113.77:7777".parse().unwrap());
}

/// Without a token a stranger reaches the SIP ports of the farm and no others.
#[test]
fn a14_without_a_token_only_configured_ports_are_reached() {
    let mut lab = Lab::new(ONE_ARMED);
    for uri in ["sip:x@198.18.1.12:53", "sip:x@198.18.1.12"] {
        let sent = lab
            .send(request("INVITE", uri, "r-13", "z9hG4bK1", 1), CLIENT)
            .sent();
        assert_eq!(sent.to, SERVERS[1].parse().unwrap());
        let route = format!("Route: <{uri};lr>");
        let sent = lab
            .send(routed("INVITE", "sip:x@y.example", "r-13", &route), CLIENT)
            .sent();
        assert_eq!(sent.to, SERVERS[1].parse().unwrap());
    }
}

/// From the farm: Route, else Request-URI, else refused; never balanced unless it names us.
#[test]
fn a14_the_farm_sends_where_its_messages_say() {
    let mut lab = Lab::new(ONE_ARMED);
    let from = SERVERS[0];
    let sent = |lab: &mut Lab, uri: &str| {
        lab.send(request("INVITE", uri, "r-14", "z9hG4bK1", 1), from)
            .sent()
    };
    assert_eq!(
        sent(&mut lab, "sip:x@203.0.113.9").to,
        "203.0.113.9:5060".parse().unwrap()
    );
    assert_eq!(sent(&mut lab, "sip:x@203.0.113.9:5099").to.port(), 5099);
    assert_eq!(
        sent(&mut lab, "sip:x@198.18.1.13:5099").to,
        "198.18.1.13:5099".parse().unwrap()
    );
    let hairpin = sent(&mut lab, "sip:x@sip.lab.example");
    assert!(SERVERS.contains(&hairpin.to.to_string().as_str()));
    for (uri, status) in [
        ("sip:x@elsewhere.example", "500"),
        ("sip:x@203.0.113.9;transport=tcp", "500"),
        ("tel:+12015550123", "404"),
        ("sip:x@224.0.1.75", "403"),
        ("sip:x@255.255.255.255", "403"),
        ("sip:x@0.0.0.0", "403"),
    ] {
        let answer = sent(&mut lab, uri);
        assert_eq!(
            start_line(&answer.bytes).split(' ').nth(1),
            Some(status),
            "{uri}"
        );
        assert_eq!(
            answer.to.ip(),
            "198.18.1.11".parse::<std::net::IpAddr>().unwrap()
        );
    }
    let ack = request("ACK", "sip:x@elsewhere.example", "r-14", "z9hG4bK1", 1);
    assert_eq!(lab.send(ack, from).dropped(), DropReason::NextHopUnresolved);
    let ack = request("ACK", "sip:x@224.0.1.75", "r-14", "z9hG4bK1", 1);
    assert_eq!(lab.send(ack, from).dropped(), DropReason::NextHopForbidden);
}

fn reach(mode: &str) -> Lab {
    Lab::new(&ONE_ARMED.replace(
        "name = \"farm\"",
        &format!("name = \"farm\"\nreach = \"{mode}\""),
    ))
}

/// RFC 3261 §16.6 steps 2, 6 and 7: three ways to reach the chosen server.
#[test]
fn a16_a_server_is_reached_by_destination_route_or_request_uri() {
    let uri = "sip:b%6fb;x=1@sip.lab.example:5060;user=phone;q";
    let bytes = request("INVITE", uri, "r-15", "z9hG4bK1", 1);
    let line = |uri: &str| format!("INVITE {uri} SIP/2.0");

    let sent = reach("destination").send(&bytes, CLIENT).sent();
    assert_eq!(start_line(&sent.bytes), line(uri));
    assert!(rows(&sent.bytes, "Route").is_empty());
    let server = sent.to.to_string();

    let sent = reach("route").send(&bytes, CLIENT).sent();
    assert_eq!(start_line(&sent.bytes), line(uri));
    assert_eq!(row(&sent.bytes, "Route"), format!("<sip:{server};lr>"));

    let sent = reach("request-uri").send(&bytes, CLIENT).sent();
    assert_eq!(
        start_line(&sent.bytes),
        line(&uri.replace("sip.lab.example:5060", &server))
    );
    assert_eq!(sent.to.to_string(), server);
    // RFC 3261 §16.5: not responsible, so not to be changed.
    let foreign = "sip:bob@elsewhere.example";
    let bytes = request("INVITE", foreign, "r-15", "z9hG4bK1", 1);
    let sent = reach("request-uri").send(bytes, CLIENT).sent();
    assert_eq!(start_line(&sent.bytes), line(foreign));
}

#[test]
fn a16_a_pushed_route_stands_above_those_that_are_there() {
    let mut lab = reach("route");
    let own = token(&lab, "s2", "r-17");
    // A Route row above the Via, and the next hop a name that the token's server stands for.
    let bytes = request("INVITE", "sip:bob@x.example", "r-17", "z9hG4bK1", 1);
    let route = format!("Route: <sip:{own}@198.18.0.1:5060;lr>, <sip:edge.example;lr>");
    let sent = lab.send(with_row(&bytes, "Via", &route), CLIENT).sent();
    assert_eq!(
        rows(&sent.bytes, "Route"),
        [&format!("<sip:{};lr>", SERVERS[1]), "<sip:edge.example;lr>"]
    );
    assert_eq!(sent.to, SERVERS[1].parse().unwrap());
}

/// RFC 3261 §16.6 step 6: a next hop without lr is a strict router.
#[test]
fn a18_a_strict_router_gets_its_uri_as_request_uri() {
    let mut lab = Lab::new(ONE_ARMED);
    let own = format!("<sip:{}@198.18.0.1:5060;lr>", token(&lab, "s2", "r-18"));
    let uri = "sip:callee@198.18.9.9;p=1";
    let cases = [
        (
            format!("Route: {own},<sip:strict@198.18.1.13>"),
            vec![format!("<{uri}>")],
        ),
        (
            format!("Route: {own}\r\nRoute: <sip:strict@198.18.1.13>\r\nRoute: <sip:p.example>"),
            vec!["<sip:p.example>".to_owned(), format!("<{uri}>")],
        ),
        (
            "Route: <sip:strict@198.18.1.13>;x=1, <sip:p.example>".to_owned(),
            vec!["<sip:p.example>".to_owned(), format!("<{uri}>")],
        ),
    ];
    for (route, left) in cases {
        let sent = lab.send(routed("BYE", uri, "r-18", &route), CLIENT).sent();
        assert_eq!(
            start_line(&sent.bytes),
            "BYE sip:strict@198.18.1.13 SIP/2.0",
            "{route}"
        );
        assert_eq!(rows(&sent.bytes, "Route"), left, "{route}");
        assert_eq!(sent.to, SERVERS[2].parse().unwrap());
    }
}

/// RFC 5954 §4.2: own addresses compare in binary.
#[test]
fn r5954_own_addresses_compare_in_binary() {
    let mut lab = Lab::new(IPV6);
    let client = "[2001:db8:c::7]:5060";
    for own in [
        "[2001:DB8:0:0::10]",
        "[2001:db8::0:10]:5060",
        "[2001:0db8:0000::0010]",
    ] {
        let route = format!("Route: <sip:{own};lr>");
        let uri = "sip:x@[2001:DB8:1:0:0::12]:5070";
        let sent = lab.send(routed("BYE", uri, "r-19", &route), client).sent();
        assert!(rows(&sent.bytes, "Route").is_empty(), "{own}");
        let options = request("OPTIONS", &format!("sip:{own}"), "r-19", "z9hG4bK1", 1);
        assert_eq!(
            start_line(&lab.send(options, client).sent().bytes),
            "SIP/2.0 200 OK"
        );
    }
    // A response whose server wrote our address another way.
    let sent = lab
        .send(
            request("INVITE", "sip:x@y.example", "r-20", "z9hG4bK1", 1),
            client,
        )
        .sent();
    let ok = response(&sent, 200, "b1");
    let ok = replaced(
        &ok,
        &format!("UDP [2001:db8::10]:5060;branch=z9hG4bK{MARK}"),
        &format!("UDP [2001:DB8:0::10];branch=z9hG4bK{MARK}"),
    );
    assert_eq!(lab.reply(ok, &sent).sent().to.to_string(), client);
    // RFC 5954 §4.1: an octet is 0 to 255. (Three colons are let pass, RFC 5118 §4.10.)
    for bad in ["[2001:db8::192.0.2.256]", "[2001:db8::1::2]", "[2001:db8]"] {
        let bytes = request("INVITE", &format!("sip:x@{bad}"), "r-21", "z9hG4bK1", 1);
        let answer = lab.send(bytes, client).sent();
        assert!(start_line(&answer.bytes).contains(" 400 "), "{bad}");
    }
}

#[test]
fn r5954_a_mapped_address_is_the_ipv4_address() {
    let mut lab = Lab::new(ONE_ARMED);
    let route = "Route: <sip:[::ffff:198.18.0.1]:5060;lr>";
    let uri = "sip:x@[::ffff:198.18.1.12]";
    let sent = lab.send(routed("BYE", uri, "r-22", route), CLIENT).sent();
    assert!(rows(&sent.bytes, "Route").is_empty());
    assert_eq!(sent.to, SERVERS[1].parse().unwrap());
}
