//! Answers of our own: RFC 3261 §8.2.6, §8.2.7, §11, §16.5.

use std::time::Duration;

use viaduct::verdict::DropReason;

use crate::fixture::*;

const NO_SERVER: &str = r#"
    [[listeners]]
    name = "clients"
    address = "198.18.0.1:5060"
    aliases = ["sip.lab.example"]
    [[pools]]
    name = "farm"
    servers = [{ name = "s1", address = "198.18.1.11:5060", weight = 0 }]
"#;

/// RFC 3261 §16.5: one final response, and the same one again for a retransmission.
#[test]
fn a15_without_a_server_there_is_one_final_response() {
    let mut lab = Lab::new(NO_SERVER);
    let answer = lab.send(invite("w-1", "z9hG4bK1"), CLIENT).sent();
    assert_eq!(start_line(&answer.bytes), "SIP/2.0 503 Service Unavailable");
    assert!(rows(&answer.bytes, "Retry-After").is_empty());
    lab.wait(Duration::from_millis(500));
    assert_eq!(lab.send(invite("w-1", "z9hG4bK1"), CLIENT).sent(), answer);
    let ack = request("ACK", "sip:bob@sip.lab.example", "w-2", "z9hG4bK1", 1);
    assert_eq!(lab.send(ack, CLIENT).dropped(), DropReason::NoServer);
    let cancel = request("CANCEL", "sip:bob@sip.lab.example", "w-1", "z9hG4bK1", 1);
    assert_eq!(
        lab.send(cancel, CLIENT).dropped(),
        DropReason::CancelOwnAnswer
    );
}

/// RFC 3261 §16.5: a foreign Request-URI is nobody's to rewrite.
#[test]
fn a15_a_foreign_request_uri_leaves_unchanged() {
    let mut lab = Lab::new(ONE_ARMED);
    for uri in [
        "sip:x@other.example:5090;a=b",
        "sip:x@203.0.113.77;transport=tcp",
    ] {
        let sent = lab
            .send(request("INVITE", uri, "w-3", "z9hG4bK1", 1), CLIENT)
            .sent();
        assert_eq!(start_line(&sent.bytes), format!("INVITE {uri} SIP/2.0"));
        assert!(SERVERS.contains(&sent.to.to_string().as_str()));
    }
}

/// RFC 3261 §8.2.6.2: what an answer is made of.
#[test]
fn a48_an_answer_has_the_rows_of_its_request() {
    let mut lab = Lab::new(ONE_ARMED);
    let bytes = sip("INVITE sip:bob@sip.lab.example SIP/2.0
        v: SIP/2.0/UDP client.example:5066;branch=z9hG4bK1;rport,
        | SIP/2.0/UDP 203.0.113.4;branch=z9hG4bKz
        Max-Forwards: 0
        X-Other: this goes nowhere
        f: Alice <sip:alice@client.example>;tag=a1
        Via: SIP/2.0/UDP 203.0.113.5;branch=z9hG4bKy
        t: sip:bob@sip.lab.example
        i: w-4
        CSeq: 77 INVITE
        Content-Type: text/plain
        l: 5

        hello");
    let bytes = bytes[..bytes.len() - 2].to_vec();
    let answer = lab.send(&bytes, "198.18.200.9:6000").sent();
    let tag = text(&answer.bytes).split(";tag=").nth(2).unwrap()[..14].to_owned();
    let expected = format!(
        "SIP/2.0 483 Too Many Hops\r\n\
         v: SIP/2.0/UDP client.example:5066;branch=z9hG4bK1;rport=6000;received=198.18.200.9,\r\n \
         SIP/2.0/UDP 203.0.113.4;branch=z9hG4bKz\r\n\
         Via: SIP/2.0/UDP 203.0.113.5;branch=z9hG4bKy\r\n\
         f: Alice <sip:alice@client.example>;tag=a1\r\n\
         t: sip:bob@sip.lab.example;tag={}\r\n\
         i: w-4\r\nCSeq: 77 INVITE\r\nContent-Length: 0\r\n\r\n",
        tag.trim_end()
    );
    assert_eq!(text(&answer.bytes), expected);
    assert_eq!(answer.to, "198.18.200.9:6000".parse().unwrap());
    assert_eq!(answer.from, VIP.parse().unwrap());
}

fn rejected(call_id: &str, branch: &str) -> Vec<u8> {
    replaced(
        &invite(call_id, branch),
        "Max-Forwards: 70",
        "Max-Forwards: 0",
    )
}

fn to_tag(bytes: &[u8]) -> String {
    row(bytes, "To").split(";tag=").nth(1).unwrap().to_owned()
}

/// RFC 3261 §8.2.7: "the same To tag for the same request", and its ACK is ignored.
#[test]
fn a48_answers_are_reproducible_and_their_acks_swallowed() {
    let mut lab = Lab::new(ONE_ARMED);
    let first = lab.send(rejected("w-5", "z9hG4bK1"), CLIENT).sent();
    lab.wait(Duration::from_secs(1));
    assert_eq!(lab.send(rejected("w-5", "z9hG4bK1"), CLIENT).sent(), first);
    lab.restart();
    assert_eq!(lab.send(rejected("w-5", "z9hG4bK1"), CLIENT).sent(), first);
    let other = lab.send(rejected("w-6", "z9hG4bK1"), CLIENT).sent();
    assert_ne!(to_tag(&first.bytes), to_tag(&other.bytes));

    let ack = |tag: &str| {
        let ack = request("ACK", "sip:bob@sip.lab.example", "w-5", "z9hG4bK1", 1);
        let to = "To: Bob <sip:bob@sip.lab.example>";
        replaced(&ack, to, &format!("{to};tag={tag}"))
    };
    let own = to_tag(&first.bytes);
    assert_eq!(
        lab.send(ack(&own), CLIENT).dropped(),
        DropReason::AckOwnAnswer
    );
    assert_eq!(
        lab.send(ack(&own.to_uppercase()), CLIENT).dropped(),
        DropReason::AckOwnAnswer
    );
    // A server's tag, or the tag of another answer, is none of ours.
    lab.send(ack("b1"), CLIENT).sent();
    lab.send(ack(&to_tag(&other.bytes)), CLIENT).sent();
}

/// RFC 3261 §8.2.7: the CANCEL of what was answered statelessly is ignored, where that shows.
#[test]
fn a48_the_cancel_of_a_rejected_request_is_swallowed() {
    let mut lab = Lab::new(ONE_ARMED);
    let refused = |method: &str| {
        let bytes = request(method, "sip:bob@sip.lab.example", "w-7", "z9hG4bK1", 1);
        with_row(&bytes, "Contact", "Route: <sip:203.0.113.9;lr>")
    };
    let answer = lab.send(refused("INVITE"), CLIENT).sent();
    assert_eq!(start_line(&answer.bytes), "SIP/2.0 403 Forbidden");
    assert_eq!(
        lab.send(refused("CANCEL"), CLIENT).dropped(),
        DropReason::CancelOwnAnswer
    );
}

/// An answer is no means to send somebody more than one was sent.
#[test]
fn a48_answers_are_never_longer_than_their_request() {
    let mut lab = Lab::new(ONE_ARMED);
    let mut answered = 0;
    let mut silent = 0;
    for padding in 0..80 {
        let bytes = sip(&format!(
            "OPTIONS sip:h SIP/2.0
            v:SIP/2.0/UDP h;branch=z9hG4bK1
            f:sip:a@h;tag=1
            t:sip:h
            i:w-8
            CSeq:1 OPTIONS
            Max-Forwards:0
            X:{}",
            "x".repeat(padding)
        ));
        match lab.send(&bytes, CLIENT) {
            Outcome::Sent(answer) => {
                answered += 1;
                assert!(answer.bytes.len() <= bytes.len(), "{padding}");
            }
            Outcome::Dropped(reason) => {
                silent += 1;
                assert_eq!(reason, DropReason::AnswerTooLong);
            }
        }
    }
    assert!(answered > 20 && silent > 5, "{answered} {silent}");
}

/// All answers together have a rate.
#[test]
fn a48_answers_have_a_total_rate() {
    let mut lab = Lab::new(&format!("sip.answers_per_second = 10\n{ONE_ARMED}"));
    let sent = |lab: &mut Lab| {
        (0..30)
            .filter(|_| {
                matches!(
                    lab.send(rejected("w-9", "z9hG4bK1"), CLIENT),
                    Outcome::Sent(_)
                )
            })
            .count()
    };
    assert_eq!(sent(&mut lab), 10);
    let over = lab.send(rejected("w-9", "z9hG4bK1"), CLIENT).dropped();
    assert_eq!(over, DropReason::AnswerLimited);
    lab.wait(Duration::from_secs(5));
    assert_eq!(sent(&mut lab), 10);
}

/// RFC 3261 §11: for us if the Request-URI is ours and has no user part.
#[test]
fn a49_options_to_us_is_answered_and_to_a_user_forwarded() {
    let mut lab = Lab::new(ONE_ARMED);
    let options = |uri: &str| request("OPTIONS", uri, "w-10", "z9hG4bK1", 1);
    for uri in [
        "sip:198.18.0.1",
        "sip:198.18.0.1:5060;transport=udp",
        "sip:198.18.0.1:5070",
        "sip:SIP.lab.example",
        "sip:sip.lab.example.:5060",
    ] {
        let long = with_row(
            &options(uri),
            "Contact",
            &format!("X-Padding: {}", "x".repeat(200)),
        );
        let answer = lab.send(long, CLIENT).sent();
        assert_eq!(start_line(&answer.bytes), "SIP/2.0 200 OK", "{uri}");
        assert!(row(&answer.bytes, "Allow").contains("INVITE"));
        assert_eq!(rows(&answer.bytes, "Supported").len(), 1);
        assert_eq!(rows(&answer.bytes, "Accept").len(), 1);
        // What does not fit is left out.
        let answer = lab.send(options(uri), CLIENT).sent();
        assert_eq!(start_line(&answer.bytes), "SIP/2.0 200 OK", "{uri}");
    }
    for uri in [
        "sip:bob@198.18.0.1",
        "sip:198.18.0.1:5999",
        "sip:other.example",
    ] {
        let sent = lab.send(options(uri), CLIENT).sent();
        assert!(SERVERS.contains(&sent.to.to_string().as_str()), "{uri}");
    }
    // A server may ask, too.
    let answer = lab.send(options("sip:198.18.0.1"), SERVERS[1]).sent();
    assert_eq!(
        answer.to,
        CLIENT
            .replace("198.18.200.7", "198.18.1.12")
            .parse()
            .unwrap()
    );
}

#[test]
fn a49_options_to_us_without_a_server_gets_503() {
    let mut lab = Lab::new(NO_SERVER);
    let options = request("OPTIONS", "sip:198.18.0.1", "w-11", "z9hG4bK1", 1);
    let answer = lab.send(options, CLIENT).sent();
    assert_eq!(start_line(&answer.bytes), "SIP/2.0 503 Service Unavailable");
}

/// RFC 3261 §18.4: a stateless proxy has no transaction to fail; ICMP never reaches a decision.
#[test]
fn a46_icmp_errors_are_no_messages() {
    // Ethernet, IPv4, ICMP port unreachable quoting a datagram of ours.
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    let ip = [
        0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1, 0, 0, 198, 18, 1, 11, 198, 18, 0, 1,
    ];
    let sum: u32 = ip
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]))
        .sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    frame.extend_from_slice(&ip);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend_from_slice(&[3, 3, 0, 0, 0, 0, 0, 0]);
    frame.extend_from_slice(&ip);
    frame.extend_from_slice(&[0x13, 0xc4, 0x13, 0xc4, 0, 8, 0, 0]);
    let parsed = viaduct::packet::parse(&frame, viaduct::packet::PartialChecksum::Reject);
    assert_eq!(parsed.err(), Some(DropReason::NotUdp));
}
