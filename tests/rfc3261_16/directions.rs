//! Directions and the route table: who may send where, and what chooses the server.

use viaduct::affinity::{KeyId, KeyRing, Keys, Secret};
use viaduct::verdict::DropReason;

use crate::fixture::{
    CLIENT, Lab, ONE_ARMED, Outcome, SERVERS, Sent, branch, rows, sip as message, text,
};

const CARRIER: &str = "198.18.100.1:5060";
const OTHER_CARRIER: &str = "198.18.100.2:5060";

fn with_routes(routes: &str) -> Lab {
    Lab::new(&format!("{ONE_ARMED}{routes}"))
}

fn request(method: &str, uri: &str, call_id: &str, rows: &str) -> Vec<u8> {
    message(&format!(
        "{method} {uri} SIP/2.0
         Via: SIP/2.0/UDP host.example;rport;branch=z9hG4bK{call_id}{method}
         Max-Forwards: 70
         From: Alice <sip:alice@atlanta.example>;tag=alice
         To: Bob <sip:bob@biloxi.example>
         Call-ID: {call_id}
         CSeq: 1 {method}
         {rows}
         Contact: <sip:alice@pc33.atlanta.example>"
    ))
}

#[track_caller]
fn status(outcome: Outcome) -> String {
    let sent = outcome.sent();
    text(&sent.bytes)[8..11].to_owned()
}

/// The route set that the called end of `invite` has: our rows, in order.
fn route_set(invite: &Sent) -> String {
    let rows = rows(&invite.bytes, "Record-Route");
    assert!(!rows.is_empty());
    rows.join(", ")
}

/// A request inside the dialog of `call_id`, from the end whose tag is `from`.
fn inside(method: &str, uri: &str, call_id: &str, from: &str, route: &str) -> Vec<u8> {
    let (from, to) = match from {
        "alice" => (
            "alice@atlanta.example>;tag=alice",
            "bob@biloxi.example>;tag=bob",
        ),
        _ => (
            "bob@biloxi.example>;tag=bob",
            "alice@atlanta.example>;tag=alice",
        ),
    };
    message(&format!(
        "{method} {uri} SIP/2.0
         Via: SIP/2.0/UDP host.example;rport;branch=z9hG4bK{call_id}{method}
         Max-Forwards: 70
         From: <sip:{from}
         To: <sip:{to}
         Call-ID: {call_id}
         CSeq: 2 {method}
         Route: {route}"
    ))
}

#[test]
fn a05_outgoing_calls_take_the_configured_egress() {
    let mut lab = with_routes(
        r#"
        [[routes]]
        from = "farm"
        user_prefixes = ["+1"]
        next_hop = "198.18.100.2:5060"
        [[routes]]
        from = "farm"
        user_prefixes = ["0900"]
        reject = 603
        [[routes]]
        from = "farm"
        next_hop = "198.18.100.1:5060"
        [[routes]]
        pool = "farm"
        "#,
    );
    let mut call = |uri: &str| lab.send(request("INVITE", uri, "out", ""), SERVERS[1]);
    for (uri, to) in [
        ("tel:+49301234", CARRIER),
        ("tel:+1212", OTHER_CARRIER),
        ("sip:+1212@carrier.example", OTHER_CARRIER),
        ("sip:x@carrier.example;transport=tcp", CARRIER),
        ("urn:service:sos", CARRIER),
        // A literal Request-URI leads by itself.
        ("sip:x@198.18.77.1:5070", "198.18.77.1:5070"),
    ] {
        let sent = call(uri).sent();
        assert_eq!(sent.to.to_string(), to, "{uri}");
        assert!(text(&sent.bytes).starts_with(&format!("INVITE {uri} SIP/2.0\r\n")));
    }
    assert_eq!(status(call("tel:0900123")), "603");
    // Our own URI is balanced, not sent out.
    let hairpin = call("sip:bob@sip.lab.example").sent();
    assert!(SERVERS.contains(&hairpin.to.to_string().as_str()));
    // And the table of the farm is nobody else's.
    let from_outside = lab
        .send(request("INVITE", "tel:+1212", "in", ""), CLIENT)
        .sent();
    assert!(SERVERS.contains(&from_outside.to.to_string().as_str()));
}

#[test]
fn a13_a_call_between_two_servers_finds_both_ends() {
    let mut lab = Lab::new(ONE_ARMED);
    let mut distinct = 0;
    for number in 0..40 {
        let call_id = format!("hairpin{number}");
        let caller = SERVERS[number % 3];
        let invite = request("INVITE", "sip:bob@sip.lab.example", &call_id, "");
        let invite = lab.send(invite, caller).sent();
        let called = invite.to.to_string();
        distinct += usize::from(called != caller);
        let route = route_set(&invite);
        // Contacts that hide the servers behind us: only the token knows them.
        let uri = "sip:conference@sip.lab.example";
        for (from, sender, receiver) in [
            ("alice", caller, called.as_str()),
            ("bob", called.as_str(), caller),
        ] {
            let bye = lab.send(inside("BYE", uri, &call_id, from, &route), sender);
            assert_eq!(bye.sent().to.to_string(), receiver, "{from} of {call_id}");
        }
        // Literal Contacts lead by themselves, on whatever port.
        let literal = format!("sip:x@{}", caller.replace("5060", "5090"));
        let bye = lab.send(inside("BYE", &literal, &call_id, "bob", &route), &called);
        assert_eq!(bye.sent().to.to_string(), caller.replace("5060", "5090"));
    }
    assert!(distinct > 10);
}

#[test]
fn a14_a_rule_relays_between_trusted_peers_and_for_nobody_else() {
    let mut lab = with_routes(
        r#"
        [[routes]]
        from = "trusted"
        user_prefixes = ["+1"]
        next_hop = "198.18.100.2:5060"
        [[routes]]
        pool = "farm"
        "#,
    );
    let invite = request("INVITE", "sip:+1212@198.18.0.1", "relayed", "");
    let invite = lab.send(invite, CARRIER).sent();
    assert_eq!(invite.to.to_string(), OTHER_CARRIER);
    let route = route_set(&invite);
    let bye = |from: &str, uri: &str| inside("BYE", uri, "relayed", from, &route);
    let to_callee = lab
        .send(bye("alice", "sip:x@198.18.100.2:5070"), CARRIER)
        .sent();
    assert_eq!(to_callee.to.to_string(), "198.18.100.2:5070");
    let to_caller = lab
        .send(bye("bob", "sip:x@198.18.100.1"), OTHER_CARRIER)
        .sent();
    assert_eq!(to_caller.to.to_string(), CARRIER);
    // Not to a third host, and not for a stranger who has seen the token.
    let third = lab.send(bye("alice", "sip:x@203.0.113.9"), CARRIER).sent();
    assert_ne!(third.to.to_string(), "203.0.113.9:5060");
    let stranger = lab.send(bye("alice", "sip:x@198.18.100.2"), CLIENT).sent();
    assert_ne!(stranger.to.to_string(), OTHER_CARRIER);
    // The rule is not for strangers either.
    let outside = request("INVITE", "sip:+1212@198.18.0.1", "strange", "");
    let outside = lab.send(outside, CLIENT).sent();
    assert!(SERVERS.contains(&outside.to.to_string().as_str()));
}

#[test]
fn a15_what_no_rule_takes_is_refused() {
    let mut lab = with_routes(
        r#"
        [[routes]]
        domains = ["home.example", "self"]
        pool = "farm"
        "#,
    );
    let mut to = |uri: &str| lab.send(request("INVITE", uri, &uri.replace(':', "-"), ""), CLIENT);
    assert!(
        to("sip:bob@home.example")
            .sent()
            .to
            .to_string()
            .starts_with("198.18.1.")
    );
    assert!(
        to("sip:bob@sip.lab.example")
            .sent()
            .to
            .to_string()
            .starts_with("198.18.1.")
    );
    assert_eq!(status(to("sip:bob@other.example")), "403");
    assert_eq!(status(to("tel:+49")), "403");
    // OPTIONS for ourselves is about us, whatever the table says of calls.
    let options = message(
        "OPTIONS sip:198.18.0.1 SIP/2.0
         Via: SIP/2.0/UDP host.example;rport;branch=z9hG4bKo
         Max-Forwards: 70
         From: <sip:a@b.example>;tag=a
         To: <sip:198.18.0.1>
         Call-ID: options
         CSeq: 1 OPTIONS
         Accept: application/sdp
         User-Agent: keepalive",
    );
    assert_eq!(status(lab.send(options, CLIENT)), "200");
}

#[test]
fn rules_drop_scanners_and_leave_others() {
    let mut lab = with_routes(
        r#"
        [[routes]]
        header = { name = "User-Agent", contains = "friendly-scanner" }
        drop = true
        [[routes]]
        methods = ["REGISTER"]
        sources = ["198.18.200.0/24"]
        reject = 405
        [[routes]]
        pool = "farm"
        "#,
    );
    let scanner = "User-Agent: Friendly-Scanner";
    for uri in ["sip:100@198.18.0.1", "sip:198.18.0.1", "sip:x@198.18.1.11"] {
        for method in ["INVITE", "OPTIONS", "REGISTER"] {
            let outcome = lab.send(request(method, uri, "scan", scanner), CLIENT);
            assert_eq!(
                outcome.dropped(),
                DropReason::RouteDropped,
                "{method} {uri}"
            );
        }
    }
    let phone = request("INVITE", "sip:100@198.18.0.1", "call", "User-Agent: Phone");
    assert!(SERVERS.contains(&lab.send(phone, CLIENT).sent().to.to_string().as_str()));
    let register = request("REGISTER", "sip:198.18.0.1", "reg", "");
    assert_eq!(status(lab.send(&register, CLIENT)), "405");
    assert!(matches!(
        lab.send(&register, "198.18.201.1:5060"),
        Outcome::Sent(_)
    ));
}

#[test]
fn registrations_and_publications_of_one_user_meet_on_one_server() {
    let mut lab = with_routes(
        r#"
        [[routes]]
        methods = ["REGISTER", "PUBLISH", "SUBSCRIBE"]
        pool = "farm"
        key = "aor"
        [[routes]]
        pool = "farm"
        "#,
    );
    let mut seen = std::collections::BTreeSet::new();
    for user in 0..30 {
        let aor = format!("sip:user{user}@home.example");
        let mut servers = Vec::new();
        for (number, method) in ["PUBLISH", "SUBSCRIBE", "PUBLISH"].into_iter().enumerate() {
            let call_id = format!("{method}{user}-{number}");
            let sent = lab.send(request(method, &aor, &call_id, "Event: presence"), CLIENT);
            servers.push(sent.sent().to);
        }
        let register = message(&format!(
            "REGISTER sip:home.example SIP/2.0
             Via: SIP/2.0/UDP host.example;rport;branch=z9hG4bKr{user}
             Max-Forwards: 70
             From: <{aor}>;tag=r
             To: <{aor}>
             Call-ID: register{user}
             CSeq: 1 REGISTER"
        ));
        servers.push(lab.send(register, CLIENT).sent().to);
        seen.insert(servers[0]);
        assert!(
            servers.iter().all(|server| *server == servers[0]),
            "{servers:?}"
        );
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn a_header_key_carries_cancel_and_ack_by_the_pin() {
    let mut lab = with_routes("[[routes]]\npool = \"farm\"\nkey = \"header:X-Tenant\"\n");
    for number in 0..30 {
        let call_id = format!("tenant{number}");
        let tenant = format!("X-Tenant: {}", number % 7);
        let uri = "sip:bob@home.example";
        let invite = lab
            .send(request("INVITE", uri, &call_id, &tenant), CLIENT)
            .sent();
        for method in ["CANCEL", "ACK"] {
            let follows = lab.send(request(method, uri, &call_id, ""), CLIENT).sent();
            assert_eq!(follows.to, invite.to, "{method} of {call_id}");
        }
    }
}

#[test]
fn requests_that_name_a_dialog_go_to_its_server() {
    for (header, method) in [
        ("Replaces", "INVITE"),
        ("Join", "INVITE"),
        ("Target-Dialog", "REFER"),
    ] {
        let mut lab = Lab::new(ONE_ARMED);
        let uri = "sip:bob@home.example";
        for number in 0..30 {
            let named = format!("{header}{number}@host");
            let dialog = lab.send(request("INVITE", uri, &named, ""), CLIENT).sent();
            let row = format!("{header}: {named};to-tag=1;from-tag=2");
            let call_id = format!("new{number}");
            let first = lab
                .send(request(method, uri, &call_id, &row), CLIENT)
                .sent();
            assert_eq!(first.to, dialog.to, "{row}");
            // Its own transaction stays there.
            let cancel = lab
                .send(request("CANCEL", uri, &call_id, ""), CLIENT)
                .sent();
            assert_eq!(cancel.to, dialog.to);
            // Pins gone, the table says the same.
            lab.restart();
            let again = lab
                .send(request(method, uri, &call_id, &row), CLIENT)
                .sent();
            assert_eq!(again.to, dialog.to);
        }
    }
}

#[test]
fn token_keys_rotate_by_reload() {
    let master = Secret::from_bytes(*b"0123456789abcdefghijklmnopqrstuv").unwrap();
    let secret = |byte: u8| {
        let mut bytes = [byte; 32];
        bytes[0] = 99;
        Secret::from_bytes(bytes).unwrap()
    };
    let id = |number| KeyId::new(number).unwrap();
    let ring = |current: u8, others: &[u8]| {
        let mut ring = KeyRing::new(id(current), secret(current));
        for other in others {
            assert!(ring.add(id(*other), secret(*other)));
        }
        assert!(ring.add(id(0), master.clone()));
        Keys::with_ring(&master, &ring)
    };
    let mut lab = Lab::new(ONE_ARMED);
    let uri = "sip:bob@home.example";
    let invite = lab
        .send(request("INVITE", uri, "rotated", ""), CLIENT)
        .sent();
    let route = route_set(&invite);
    let bye = inside("BYE", "sip:bob@sip.lab.example", "rotated", "alice", &route);
    lab.reload_with(ONE_ARMED, ring(1, &[]));
    lab.reload_with(ONE_ARMED, ring(2, &[1]));
    lab.restart();
    assert_eq!(lab.send(&bye, CLIENT).sent().to, invite.to);
    let new = lab
        .send(request("INVITE", uri, "rotated", ""), CLIENT)
        .sent();
    assert_ne!(route_set(&new), route, "a new key makes new tokens");
    assert_eq!(
        branch(&new.bytes),
        branch(&invite.bytes),
        "branches do not rotate"
    );
}
