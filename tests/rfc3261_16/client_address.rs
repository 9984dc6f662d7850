//! `client_address_header`: servers are told who the client is, and by us alone.

use viaduct::verdict::DropReason;

use crate::fixture::*;

fn lab(config: &str) -> Lab {
    Lab::new(&config.replacen(
        "name = \"farm\"",
        "name = \"farm\"\nclient_address_header = \"X-Client\"",
        1,
    ))
}

#[test]
fn requests_to_the_pool_carry_the_address_they_came_from() {
    for config in [ONE_ARMED, TWO_ARMED] {
        let mut lab = lab(config);
        let calls = [
            invite("x-1", "z9hG4bK1"),
            request("REGISTER", "sip:sip.lab.example", "x-2", "z9hG4bK2", 1),
        ];
        for call in calls {
            let sent = lab.send(call, "198.18.200.7:40000").sent();
            assert_eq!(row(&sent.bytes, "X-Client"), "198.18.200.7");
        }
    }
    let mut lab = lab(IPV6);
    let sent = lab
        .send(invite("x-3", "z9hG4bK3"), "[2001:db8::7]:5060")
        .sent();
    assert_eq!(row(&sent.bytes, "X-Client"), "2001:db8::7");
}

/// Else anybody could be whom the server trusts.
#[test]
fn what_a_stranger_claims_is_taken_off() {
    let mut lab = lab(ONE_ARMED);
    let claimed = "x-client: 198.18.1.1\r\nX-Other: stays\r\nX-CLIENT : 10.0.0.1,\r\n 10.0.0.2";
    let forged = with_row(&invite("x-4", "z9hG4bK4"), "Contact", claimed);
    let forged = with_row(&forged, "Max-Forwards", "X-Client: 127.0.0.1");
    let sent = lab.send(&forged, CLIENT).sent();
    assert_eq!(row(&sent.bytes, "X-Client"), "198.18.200.7");
    assert_eq!(row(&sent.bytes, "X-Other"), "stays");
    for claim in ["198.18.1.1", "10.0.0.", "127.0.0.1"] {
        assert!(!text(&sent.bytes).contains(claim), "{claim}");
    }
    assert_eq!(
        lab.send(&forged, CLIENT).sent(),
        sent,
        "as it left at first"
    );
    // More of them than an edit list holds are nobody's honest message.
    let many = "X-Client: 127.0.0.1\r\n".repeat(40);
    let flood = with_row(&invite("x-5", "z9hG4bK5"), "Contact", many.trim_end());
    assert_eq!(lab.send(flood, CLIENT).dropped(), DropReason::NoRoom);
}

#[test]
fn a_trusted_peer_tells_its_own_clients_and_the_farm_is_left_alone() {
    let mut lab = lab(ONE_ARMED);
    let told = with_row(
        &invite("x-6", "z9hG4bK6"),
        "Contact",
        "X-Client: 203.0.113.7",
    );
    let sent = lab.send(&told, "198.18.100.9:5060").sent();
    assert_eq!(row(&sent.bytes, "X-Client"), "203.0.113.7");
    let sent = lab
        .send(invite("x-7", "z9hG4bK7"), "198.18.100.9:5060")
        .sent();
    assert_eq!(row(&sent.bytes, "X-Client"), "198.18.100.9");
    // A server's own call, to a client: nothing of it.
    let out = request(
        "INVITE",
        "sip:carol@198.18.200.9:5060",
        "x-8",
        "z9hG4bK8",
        1,
    );
    let sent = lab.send(out, SERVERS[0]).sent();
    assert!(rows(&sent.bytes, "X-Client").is_empty());
}

#[test]
fn a_pool_without_the_key_gets_nothing() {
    let mut lab = Lab::new(ONE_ARMED);
    let told = with_row(
        &invite("x-9", "z9hG4bK9"),
        "Contact",
        "X-Client: 203.0.113.7",
    );
    let sent = lab.send(&told, CLIENT).sent();
    assert_eq!(row(&sent.bytes, "X-Client"), "203.0.113.7");
}

#[test]
fn a_header_that_a_message_needs_is_refused() {
    for name in [
        "Via",
        "v",
        "P-Asserted-Identity",
        "X",
        "X-",
        "X-a b",
        "X-a:",
        "",
    ] {
        let config = ONE_ARMED.replacen(
            "name = \"farm\"",
            &format!("name = \"farm\"\nclient_address_header = \"{name}\""),
            1,
        );
        let error = viaduct::config::Config::parse(&config).unwrap_err();
        assert!(
            error.to_string().contains("client_address_header"),
            "{name}"
        );
    }
}
