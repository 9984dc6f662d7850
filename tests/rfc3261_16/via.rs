//! `received`, `rport`, and where a response goes: RFC 3261 §18.2, RFC 3581, RFC 5118.

use crate::fixture::*;

const SOURCE: &str = "198.18.200.7:9988";

/// An INVITE whose top Via is `via`; `[…]` of the Via that the server sees, and where a response to
/// it goes.
#[track_caller]
fn through(lab: &mut Lab, via: &str, source: &str) -> (String, String) {
    let plain = "Via: SIP/2.0/UDP 198.18.200.7:5060;branch=z9hG4bK1";
    let bytes = replaced(&invite("via-1", "z9hG4bK1"), plain, &format!("Via: {via}"));
    let sent = lab.send(bytes, source).sent();
    let seen = rows(&sent.bytes, "Via").remove(1);
    let back = lab.reply(response(&sent, 200, "b1"), &sent).sent();
    assert_eq!(rows(&back.bytes, "Via")[0], seen);
    (seen, back.to.to_string())
}

/// RFC 3581 §6, in the addresses of its example.
#[test]
fn r3581_the_example_of_section_6() {
    let mut lab = Lab::new(
        r#"
        [[listeners]]
        name = "a"
        address = "192.0.2.2:5060"
        [[listeners]]
        name = "b"
        address = "192.0.2.2:5070"
        [[pools]]
        name = "farm"
        servers = [{ name = "s1", address = "198.18.1.11:5060" }]
        "#,
    );
    let bytes = sip("INVITE sip:user@example.com SIP/2.0
        Via: SIP/2.0/UDP 10.1.1.1:4540;rport;branch=z9hG4bKkjshdyff
        Max-Forwards: 70
        From: <sip:a@example.com>;tag=1
        To: <sip:user@example.com>
        Call-ID: example
        CSeq: 1 INVITE");
    for ours in ["192.0.2.2:5060", "192.0.2.2:5070"] {
        let sent = lab.send_to(&bytes, "192.0.2.1:9988", ours).sent();
        let vias = rows(&sent.bytes, "Via");
        assert!(
            vias[0].starts_with(&format!("SIP/2.0/UDP {ours};branch=z9hG4bK")),
            "{}",
            vias[0]
        );
        assert_eq!(
            vias[1],
            "SIP/2.0/UDP 10.1.1.1:4540;rport=9988;received=192.0.2.1;branch=z9hG4bKkjshdyff"
        );
        assert_eq!(vias.len(), 2);
        let back = lab.reply(response(&sent, 200, "b1"), &sent).sent();
        assert_eq!(rows(&back.bytes, "Via"), [vias[1].clone()]);
        // "sends the response to IP address 192.0.2.1, port 9988, and sends it from port 5060".
        assert_eq!(back.to, "192.0.2.1:9988".parse().unwrap());
        assert_eq!(back.from, ours.parse().unwrap());
    }
}

/// RFC 3581 §4: "it MUST set the value … even if it is identical".
#[test]
fn r3581_rport_is_filled_and_received_added_even_if_equal() {
    let mut lab = Lab::new(ONE_ARMED);
    let (seen, to) = through(
        &mut lab,
        "SIP/2.0/UDP 198.18.200.7:9988;rport;branch=z9hG4bK1",
        SOURCE,
    );
    assert_eq!(
        seen,
        "SIP/2.0/UDP 198.18.200.7:9988;rport=9988;received=198.18.200.7;branch=z9hG4bK1"
    );
    assert_eq!(to, SOURCE);
    let (seen, _) = through(
        &mut lab,
        "SIP/2.0/UDP 198.18.200.7;branch=z9hG4bK1;RPORT ",
        SOURCE,
    );
    assert_eq!(
        seen,
        "SIP/2.0/UDP 198.18.200.7;branch=z9hG4bK1;rport=9988;received=198.18.200.7"
    );
}

/// What a client wrote there is not believed.
#[test]
fn r3581_forged_marks_are_overwritten_and_not_doubled() {
    let mut lab = Lab::new(ONE_ARMED);
    let ends = "branch=z9hG4bK1";
    for (came, left, to) in [
        (
            format!("h.example;received=10.0.0.1;rport=1;{ends}"),
            format!("h.example;received=198.18.200.7;rport=9988;{ends}"),
            SOURCE,
        ),
        (
            format!("198.18.200.7;{ends};rport=1;x;received=10.0.0.1"),
            format!("198.18.200.7;{ends};rport=9988;x;received=198.18.200.7"),
            SOURCE,
        ),
        (
            format!("198.18.200.7;received=[2001:db8::9];{ends}"),
            format!("198.18.200.7;received=198.18.200.7;{ends}"),
            "198.18.200.7:5060",
        ),
        (
            format!("h.example:7000;{ends};rport=1"),
            format!("h.example:7000;{ends};rport=9988;received=198.18.200.7"),
            SOURCE,
        ),
    ] {
        let (seen, back) = through(&mut lab, &format!("SIP/2.0/UDP {came}"), SOURCE);
        assert_eq!(seen, format!("SIP/2.0/UDP {left}"));
        assert_eq!(back, to, "{came}");
    }
}

/// RFC 3261 §18.2.1: "contains a domain name, or … an IP address that differs".
#[test]
fn a43_received_is_added_when_the_sent_by_is_not_the_source() {
    let mut lab = Lab::new(ONE_ARMED);
    for (came, left) in [
        (
            "198.18.200.7:5060;branch=z9hG4bK1",
            "198.18.200.7:5060;branch=z9hG4bK1",
        ),
        (
            "client.example;branch=z9hG4bK1",
            "client.example;branch=z9hG4bK1;received=198.18.200.7",
        ),
        (
            "10.1.1.1;branch=z9hG4bK1;x=\"a;b\"",
            "10.1.1.1;branch=z9hG4bK1;x=\"a;b\";received=198.18.200.7",
        ),
    ] {
        let (seen, _) = through(&mut lab, &format!("SIP/2.0/UDP {came}"), SOURCE);
        assert_eq!(seen, format!("SIP/2.0/UDP {left}"));
    }
}

#[test]
fn a43_the_mark_stands_in_the_first_value_of_the_row() {
    let mut lab = Lab::new(ONE_ARMED);
    let first = "SIP/2.0/UDP c.example;branch=z9hG4bK1";
    let second = "SIP/2.0/UDP 203.0.113.9;received=1.2.3.4";
    let (seen, _) = through(&mut lab, &format!("{first} , {second}"), SOURCE);
    assert_eq!(seen, format!("{first};received=198.18.200.7 , {second}"));
}

/// RFC 5954 §4.2, RFC 5118 §4.5: compared in binary, written without brackets.
#[test]
fn a43_ipv6_sent_by_compares_in_binary() {
    let mut lab = Lab::new(IPV6);
    let source = "[2001:db8:c::7]:5060";
    for same in [
        "[2001:DB8:C:0:0:0:0:7]:5060",
        "[2001:db8:c::7]",
        "[2001:0db8:000c::0007]",
    ] {
        let (seen, to) = through(
            &mut lab,
            &format!("SIP/2.0/UDP {same};branch=z9hG4bK1"),
            source,
        );
        assert!(!seen.contains("received"), "{seen}");
        assert_eq!(to, source);
    }
    let other = "SIP/2.0/UDP [2001:db8:c::8];branch=z9hG4bK1";
    let (seen, to) = through(&mut lab, other, source);
    assert_eq!(seen, format!("{other};received=2001:db8:c::7"));
    assert_eq!(to, source);
}

/// RFC 3261 §18.2.2, RFC 3581 §4, over UDP: received and rport, received and sent-by port, sent-by.
#[test]
fn a44_responses_go_where_the_next_via_says() {
    let mut lab = Lab::new(ONE_ARMED);
    let end = "branch=z9hG4bK1";
    for (via, to) in [
        (format!("198.18.200.7;{end}"), "198.18.200.7:5060"),
        (format!("198.18.200.7:7000;{end}"), "198.18.200.7:7000"),
        (format!("198.18.200.7:7000;rport;{end}"), SOURCE),
        (format!("10.1.1.1;{end}"), "198.18.200.7:5060"),
        (format!("10.1.1.1:7000;{end}"), "198.18.200.7:7000"),
        (format!("10.1.1.1:7000;{end};rport"), SOURCE),
        (format!("c.example;{end}"), "198.18.200.7:5060"),
        (format!("c.example:7000;rport;{end}"), SOURCE),
        // Hardening: a client's maddr would send our responses anywhere.
        (
            format!("198.18.200.7:7000;maddr=203.0.113.9;{end}"),
            "198.18.200.7:7000",
        ),
    ] {
        assert_eq!(
            through(&mut lab, &format!("SIP/2.0/UDP {via}"), SOURCE).1,
            to,
            "{via}"
        );
    }
}

/// RFC 6026 §8.3 and RFC 3261 §16.7 step 9: what we put there is the next hop's to read.
#[test]
fn a27_received_and_rport_of_the_next_via_stay() {
    let mut lab = Lab::new(ONE_ARMED);
    let next = "SIP/2.0/UDP 10.1.1.1:4540;rport=9988;received=198.18.200.7;branch=z9hG4bK1";
    let came = "SIP/2.0/UDP 10.1.1.1:4540;rport;branch=z9hG4bK1";
    assert_eq!(
        through(&mut lab, came, SOURCE),
        (next.to_owned(), SOURCE.to_owned())
    );
}

/// Servers write Vias their own way: order, case, spaces, brackets.
#[test]
fn a44_the_next_hop_is_read_from_a_re_serialised_via() {
    let mut lab = Lab::new(ONE_ARMED);
    let plain = "198.18.200.7:5060;branch=z9hG4bK1";
    let bytes = replaced(
        &invite("via-3", "z9hG4bK1"),
        plain,
        "10.1.1.1:4540;rport;branch=z9hG4bK1",
    );
    let sent = lab.send(bytes, SOURCE).sent();
    let ok = response(&sent, 200, "b1");
    let from = "SIP/2.0/UDP 10.1.1.1:4540;rport=9988;received=198.18.200.7;branch=z9hG4bK1";
    for to in [
        "sip/2.0/udp 10.1.1.1:4540 ;RECEIVED=198.18.200.7; branch=z9hG4bK1 ;RPort = 9988",
        "SIP / 2.0 / UDP\r\n 10.1.1.1 : 4540;received=[::ffff:198.18.200.7];rport=9988",
    ] {
        assert_eq!(
            lab.reply(replaced(&ok, from, to), &sent).sent().to,
            SOURCE.parse().unwrap()
        );
    }
    // Our own Via in other words.
    let own = rows(&sent.bytes, "Via").remove(0);
    let parameter = via_parameter(&sent.bytes, "v");
    let branch = branch(&sent.bytes);
    for to in [
        format!(
            "SIP/2.0/UDP 198.18.0.1;V={};branch={branch}",
            parameter.to_uppercase()
        ),
        format!(
            "sip / 2.0 / udp 198.18.0.1 : 5060;x=y;branch = {branch};v={parameter};received=198.18.0.1"
        ),
    ] {
        assert_eq!(
            lab.reply(replaced(&ok, &own, &to), &sent).sent().to,
            SOURCE.parse().unwrap()
        );
    }
}
