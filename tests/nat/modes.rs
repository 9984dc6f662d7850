//! `nat = "rfc" | "auto" | "force-rport"`: which clients are taken for hidden, and where answers go.

use crate::fixture::*;
use crate::phone::*;

const ALWAYS: Option<bool> = Some(true);
const ELSE: Option<bool> = Some(false);

/// (source, sent-by, Contact, what the token says of the flow)
const CLIENTS: &[(&str, &str, &str, Option<bool>)] = &[
    // In public, whatever the ports.
    (
        "203.0.113.5:5060",
        "203.0.113.5",
        "<sip:a@203.0.113.5>",
        None,
    ),
    (
        "203.0.113.5:1024",
        "203.0.113.5:5062",
        "<sip:a@203.0.113.5:5070>",
        None,
    ),
    ("203.0.113.5:1024", "203.0.113.5", "sip:a@203.0.113.5", None),
    (
        "203.0.113.5:1024",
        "203.0.113.5",
        "\"A\" <sip:a@203.0.113.5>;q=1",
        None,
    ),
    ("203.0.113.5:1024", "203.0.113.5", "<sip:203.0.113.5>", None),
    // What begins like the source and is another.
    (
        "203.0.113.5:1024",
        "203.0.113.5",
        "<sip:a@203.0.113.5.example>",
        ELSE,
    ),
    (
        "203.0.113.5:1024",
        "203.0.113.5",
        "<sip:a@203.0.113.50>",
        None,
    ),
    (
        "203.0.113.5:1024",
        "203.0.113.5",
        "<sip:a@203.0.113.5;maddr=10.0.0.1>",
        ALWAYS,
    ),
    (
        "203.0.113.5:1024",
        "203.0.113.5",
        "<tel:a@203.0.113.5>",
        ELSE,
    ),
    // A client that has learnt its address by STUN or by hand.
    (
        "203.0.113.5:1024",
        "192.168.1.5:5060",
        "<sip:a@203.0.113.5:5060>",
        None,
    ),
    // Behind a NAT.
    (FLOW, "192.168.1.5:5060", "<sip:a@192.168.1.5:5060>", ALWAYS),
    (
        FLOW,
        "192.168.1.5:5060",
        "sip:a@192.168.1.5:5071;x=y",
        ALWAYS,
    ),
    (
        FLOW,
        "192.168.1.5",
        "\"A, <B>\" <sip:192.168.1.5>;expires=60, <sip:a@203.0.113.9>",
        ALWAYS,
    ),
    // Behind two, the outer one private as well: sent-by and Contact agree.
    (
        "10.1.1.1:1024",
        "192.168.1.5",
        "<sip:a@192.168.1.5>",
        ALWAYS,
    ),
    // Sent-by corrected or a name, Contact private.
    (FLOW, "203.0.113.50:31337", "<sip:a@192.168.1.5>", ALWAYS),
    (FLOW, "phone.example", "<sip:a@10.9.8.7>", ALWAYS),
    (FLOW, "192.168.1.5", "<sip:a@100.64.1.1>", ALWAYS),
    (FLOW, "192.168.1.5", "<sip:a@169.254.3.4>", ALWAYS),
    (FLOW, "192.168.1.5", "<sip:a@127.0.0.1>", ALWAYS),
    (FLOW, "192.168.1.5", "<sip:a@[fe80::1]>", ALWAYS),
    // A public network used behind a NAT.
    (FLOW, "198.51.100.7", "<sip:a@198.51.100.7>", ALWAYS),
    // Two private addresses, and no reason to think that we cannot reach either.
    ("10.1.1.1:1024", "10.1.1.1", "<sip:a@10.2.2.2>", None),
    // A client that listens on another host.
    (FLOW, "203.0.113.50", "<sip:a@203.0.113.77>", None),
    (FLOW, "192.168.1.5", "<sip:a@203.0.113.77>", None),
    // RFC 7118 §5.
    (
        FLOW,
        "df7jal23ls0d.invalid",
        "<sip:a@df7jal23ls0d.INVALID.;transport=ws>",
        ALWAYS,
    ),
    (FLOW, "192.168.1.5", "<sip:a@invalid>", ALWAYS),
    (FLOW, "192.168.1.5", "<sip:a@valid.example>", ELSE),
    // What leads nowhere from here.
    (FLOW, "203.0.113.50", "<sip:a@phone.example>", ELSE),
    (
        FLOW,
        "203.0.113.50",
        "<sip:a@203.0.113.50;transport=tcp>",
        ELSE,
    ),
    (
        FLOW,
        "192.168.1.5",
        "<sip:a@192.168.1.5;transport=tcp>",
        ALWAYS,
    ),
    (FLOW, "203.0.113.50", "<tel:+15550100>", ELSE),
    (FLOW, "203.0.113.50", "<sip:a@0.0.0.0>", ELSE),
    (FLOW, "203.0.113.50", "<sip:a@sip.lab.example>", ELSE),
    // Never in clear; none; nonsense.
    (FLOW, "192.168.1.5", "<sips:a@192.168.1.5>", None),
    (FLOW, "192.168.1.5", "", None),
    (FLOW, "192.168.1.5", "*", None),
    (FLOW, "192.168.1.5", "<sip:a@192.168.1.5", None),
];

#[test]
fn clients_behind_a_nat_are_told_by_via_contact_and_source() {
    let mut lab = Lab::new(ONE_ARMED);
    for (source, sent_by, contact, expected) in CLIENTS {
        let bytes = invite_of("modes-1", sent_by, contact);
        let sent = lab.send(&bytes, source).sent();
        let flow = flow_of(&lab, &sent);
        let expected = expected.map(|nat| ((*source).to_owned(), nat));
        assert_eq!(flow, expected, "{source} {sent_by} {contact}");
        // RFC 3261 §16.11: the same on every retransmission.
        assert_eq!(lab.send(&bytes, source).sent(), sent);
    }
}

#[test]
fn ipv6_clients_behind_a_nat_are_told_too() {
    let mut lab = Lab::new(IPV6);
    let source = "[2001:db8:c::7]:31337";
    for (contact, expected) in [
        ("<sip:a@[fd00::5]:5060>", Some(true)),
        ("<sip:a@[FE80:0::5]>", Some(true)),
        ("<sip:a@[2001:DB8:C:0::7]:5060>", None),
    ] {
        let sent = lab
            .send(invite_of("modes-2", "[fd00::5]", contact), source)
            .sent();
        let flow = expected.map(|nat| (source.to_owned(), nat));
        assert_eq!(flow_of(&lab, &sent), flow, "{contact}");
    }
}

/// With a proxy in between its Record-Route is the way back, and its source is no client's flow.
#[test]
fn a_request_through_a_proxy_has_no_flow() {
    let mut lab = Lab::new(ONE_ARMED);
    let bytes = invite_of("modes-3", "192.168.1.5", "<sip:a@192.168.1.5>");
    for below in [
        "Via: SIP/2.0/UDP 192.168.1.6;branch=z9hG4bKb\r\nMax-Forwards:",
        "v: SIP/2.0/UDP 192.168.1.6, SIP/2.0/UDP 192.168.1.7\r\nMax-Forwards:",
    ] {
        let sent = lab
            .send(replaced(&bytes, "Max-Forwards:", below), FLOW)
            .sent();
        assert_eq!(flow_of(&lab, &sent), None);
    }
}

#[test]
fn mode_rfc_never_puts_a_flow_into_a_token() {
    let mut lab = Lab::new(&with_nat(ONE_ARMED, "rfc"));
    for (source, sent_by, contact, _) in CLIENTS {
        let sent = lab
            .send(invite_of("modes-4", sent_by, contact), source)
            .sent();
        assert_eq!(flow_of(&lab, &sent), None, "{sent_by} {contact}");
    }
    // And the modes are the listener's that the request came to.
    let bytes = invite_of("modes-4", "192.168.1.5", "<sip:a@192.168.1.5>");
    let sent = lab.send(&bytes, FLOW).sent();
    assert_eq!(flow_of(&lab, &sent), None);
    let sent = lab.send_to(&bytes, FLOW, "198.18.0.1:5070").sent();
    assert_eq!(flow_of(&lab, &sent), Some((FLOW.to_owned(), true)));
}

/// `[…]` of the Via that the server sees, and where its response goes.
#[track_caller]
fn through(lab: &mut Lab, via: &str, source: &str) -> (String, String) {
    let bytes = replaced(
        &invite("modes-5", "z9hG4bK1"),
        "198.18.200.7:5060;branch=z9hG4bK1",
        via,
    );
    let sent = lab.send(&bytes, source).sent();
    assert_eq!(lab.send(&bytes, source).sent(), sent);
    let seen = rows(&sent.bytes, "Via").remove(1);
    let back = lab.reply(response(&sent, 200, "b1"), &sent).sent();
    assert_eq!(rows(&back.bytes, "Via")[0], seen);
    (seen, back.to.to_string())
}

/// As if the client had asked: both parameters, and the response to the source port.
#[test]
fn r3581_forced_rport_answers_to_the_source_port() {
    let source = "203.0.113.5:1024";
    let end = ";branch=z9hG4bK1";
    for (sent_by, by_rfc, forced) in [
        (
            "203.0.113.5:5062",
            "203.0.113.5:5062",
            ";rport=1024;received=203.0.113.5",
        ),
        (
            "192.168.1.5",
            "203.0.113.5:5060",
            ";rport=1024;received=203.0.113.5",
        ),
        (
            "phone.example:5070",
            "203.0.113.5:5070",
            ";rport=1024;received=203.0.113.5",
        ),
    ] {
        let mut lab = Lab::new(ONE_ARMED);
        let (seen, to) = through(&mut lab, &format!("{sent_by}{end}"), source);
        assert!(!seen.contains("rport"), "{seen}");
        assert_eq!(to, by_rfc);
        let mut lab = Lab::new(&with_nat(ONE_ARMED, "force-rport"));
        let came = format!("{sent_by}{end}");
        let (seen, to) = through(&mut lab, &came, source);
        assert_eq!(seen, format!("SIP/2.0/UDP {came}{forced}"));
        assert_eq!(to, source);
        // The mode is the listener's: the second one has another.
        let bytes = replaced(
            &invite("modes-6", "z9hG4bK1"),
            "198.18.200.7:5060;branch=z9hG4bK1",
            &came,
        );
        let sent = lab.send_to(&bytes, source, "198.18.0.1:5070").sent();
        let back = lab.reply(response(&sent, 200, "b1"), &sent).sent();
        assert_eq!(back.to.to_string(), by_rfc);
    }
}

/// What a client forges or asks for itself is treated as ever.
#[test]
fn r3581_forced_rport_overwrites_and_never_doubles() {
    let mut lab = Lab::new(&with_nat(TWO_ARMED, "force-rport"));
    let source = "203.0.113.5:1024";
    let end = "branch=z9hG4bK1";
    for (came, left) in [
        (
            format!("10.0.0.1;received=10.9.9.9;{end}"),
            format!("10.0.0.1;rport=1024;received=203.0.113.5;{end}"),
        ),
        (
            format!("10.0.0.1;{end};rport"),
            format!("10.0.0.1;{end};rport=1024;received=203.0.113.5"),
        ),
        (
            format!("10.0.0.1;rport=7;{end};received=1.2.3.4"),
            format!("10.0.0.1;rport=1024;{end};received=203.0.113.5"),
        ),
    ] {
        let (seen, to) = through(&mut lab, &came, source);
        assert_eq!(seen, format!("SIP/2.0/UDP {left}"));
        assert_eq!(to, source);
    }
}

/// Answers of our own go the same way, from the same address.
#[test]
fn r3581_forced_rport_holds_for_answers_of_our_own() {
    let mut lab = Lab::new(&with_nat(ONE_ARMED, "force-rport"));
    let bytes = replaced(
        &invite_of("modes-7", "192.168.1.5:5060", "<sip:a@192.168.1.5>"),
        "Max-Forwards: 70",
        "Max-Forwards: 0",
    );
    let answer = lab.send(&bytes, FLOW).sent();
    assert_eq!(start_line(&answer.bytes), "SIP/2.0 483 Too Many Hops");
    assert_eq!(
        row(&answer.bytes, "Via"),
        "SIP/2.0/UDP 192.168.1.5:5060;branch=z9hG4bK1;rport=31337;received=203.0.113.50"
    );
    assert_eq!(answer.to.to_string(), FLOW);
    assert_eq!(answer.from.to_string(), VIP);
    // Without: to the port of sent-by, as RFC 3261 §18.2.2 says.
    let answer = Lab::new(ONE_ARMED).send(&bytes, FLOW).sent();
    assert_eq!(answer.to.to_string(), "203.0.113.50:5060");
}

/// A server stands behind no NAT: its sent-by holds.
#[test]
fn forced_rport_is_not_for_servers() {
    let mut lab = Lab::new(&with_nat(ONE_ARMED, "force-rport"));
    let bytes = request("INVITE", "sip:c@203.0.113.9", "modes-8", "z9hG4bK1", 1);
    let bytes = replaced(&bytes, "198.18.200.7:5060", SERVERS[0]);
    let sent = lab.send(&bytes, "198.18.1.11:45678").sent();
    let back = lab.reply(response(&sent, 200, "c1"), &sent).sent();
    assert_eq!(back.to.to_string(), SERVERS[0]);
}
