//! Our own answers as a weapon: RFC 3261 §26.1.5, §8.2.7. A forged source gains nothing: an answer is
//! never longer than its request, goes to no forbidden address, and all of them have a rate.

use std::time::Duration;

use viaduct::verdict::DropReason;

use crate::fixture::*;
use crate::tools::*;

/// A request for every answer that we have.
fn provocations() -> Vec<(u16, Vec<u8>)> {
    let plain = || {
        request(
            "INVITE",
            "sip:bob@sip.lab.example",
            "answers",
            "z9hG4bK1",
            1,
        )
    };
    let with = |row: &str| with_row(&plain(), "Max-Forwards", row);
    let many: String = (0..12).map(|_| "Via: SIP/2.0/UDP 198.18.0.1\r\n").collect();
    vec![
        (400, replaced(&plain(), "Call-ID: answers", "Call-ID: a b")),
        (
            400,
            replaced(&plain(), "CSeq: 1 INVITE", "CSeq: 99999999999 INVITE"),
        ),
        (
            400,
            replaced(&plain(), "Content-Length: 0", "Content-Length: 999"),
        ),
        (400, with("Call-ID: another")),
        (403, with("Route: <sip:203.0.113.9;lr>")),
        (
            416,
            replaced(&plain(), "sip:bob@sip.lab.example", "sips:bob@x.example"),
        ),
        (
            416,
            replaced(
                &plain(),
                "INVITE sip:bob@sip.lab.example",
                "INVITE http://x.example",
            ),
        ),
        (420, with("Proxy-Require: a, b")),
        (480, with("Route: <sips:203.0.113.9;lr>")),
        (482, with(&many[..many.len() - 2])),
        (
            483,
            replaced(&plain(), "Max-Forwards: 70", "Max-Forwards: 0"),
        ),
        (501, replaced(&plain(), "INVITE sip:bob", "FROB sip:bob")),
        (
            505,
            replaced(
                &plain(),
                "INVITE sip:bob@sip.lab.example SIP/2.0",
                "INVITE sip:b@x SIP/3.0",
            ),
        ),
        (
            200,
            request("OPTIONS", "sip:198.18.0.1", "answers", "z9hG4bK1", 1),
        ),
    ]
}

#[test]
fn a48_every_answer_is_shorter_than_its_request() {
    let mut lab = Lab::new(ONE_ARMED);
    for (expected, bytes) in provocations() {
        let asked = lab.send(&bytes, STRANGER).sent();
        assert_eq!(
            start_line(&asked.bytes)[8..11],
            expected.to_string(),
            "{}",
            text(&bytes)
        );
        assert!(asked.bytes.len() <= bytes.len());
        assert_eq!(asked.to, "203.0.113.66:5060".parse().unwrap());
        // Row by row taken away: shorter and shorter, malformed, never answered with more.
        let rows = lines(&bytes);
        for gone in 1..rows.len() {
            let mut left = rows.clone();
            left.remove(gone);
            let bytes = format!("{}\r\n\r\n", left.join("\r\n"));
            if let Outcome::Sent(sent) = lab.send(&bytes, STRANGER)
                && sent.bytes.starts_with(b"SIP/2.0")
            {
                assert!(sent.bytes.len() <= bytes.len(), "{bytes}");
            }
        }
        // Cut off anywhere.
        for len in 0..bytes.len() {
            if let Outcome::Sent(sent) = lab.send(&bytes[..len], STRANGER) {
                assert!(sent.bytes.len() <= len);
                assert_eq!(
                    sent.to.ip(),
                    "203.0.113.66".parse::<std::net::IpAddr>().unwrap()
                );
            }
        }
    }
}

/// The shortest requests that can be answered at all: names of one letter, no blanks, and a source
/// address that is longer than the sent-by in the Via.
#[test]
fn a48_short_requests_are_answered_within_their_length_or_not() {
    let mut answered = 0;
    let mut silent = 0;
    for (config, from) in [
        (ONE_ARMED, "198.118.213.244:65535"),
        (IPV6, "[2001:db8:1111:2222:3333:4444:5555:6666]:65535"),
    ] {
        let mut lab = Lab::new(config);
        for rport in ["", ";rport", ";rport=1;received=1"] {
            for tag in ["", ";tag=1"] {
                for padding in 0..60 {
                    let bytes = format!(
                        "OPTIONS sip:h SIP/2.0\r\nv:SIP/2.0/UDP h{rport}\r\nf:sip:a\r\nt:sip:b{tag}\r\n\
                         i:1\r\nCSeq:1 OPTIONS\r\nMax-Forwards:0\r\nX:{}\r\n\r\n",
                        "x".repeat(padding)
                    );
                    match lab.send(&bytes, from) {
                        Outcome::Sent(sent) => {
                            answered += 1;
                            assert!(sent.bytes.len() <= bytes.len(), "{bytes}");
                            assert!(start_line(&sent.bytes).starts_with("SIP/2.0 483 "));
                        }
                        Outcome::Dropped(reason) => {
                            silent += 1;
                            assert_eq!(reason, DropReason::AnswerTooLong);
                        }
                    }
                }
            }
        }
    }
    assert!(answered > 100 && silent > 50, "{answered} {silent}");
}

/// Somebody writes our own address, everybody's or nobody's as the source of a datagram.
#[test]
fn a48_no_answer_goes_to_a_forged_source_that_is_everybody_or_ourselves() {
    for config in [ONE_ARMED, TWO_ARMED] {
        let mut lab = Lab::new(config);
        let own = lab.plan.listeners().to_vec();
        let own = own.iter().map(|listener| listener.address.to_string());
        let forged = [
            "255.255.255.255:5060",
            "224.0.1.75:5060",
            "0.0.0.0:5060",
            "203.0.113.66:0",
        ];
        for source in forged.map(str::to_owned).into_iter().chain(own) {
            for (_, bytes) in provocations() {
                for via in [
                    "198.18.200.7:5060;branch",
                    "198.18.200.7:5060;rport;branch",
                    "h.example;branch",
                ] {
                    let bytes = replaced(&bytes, "198.18.200.7:5060;branch", via);
                    match lab.send(&bytes, &source) {
                        Outcome::Dropped(reason) => {
                            assert_eq!(reason, DropReason::NextHopForbidden, "{source} {via}");
                        }
                        // Without rport the answer goes to the port in the Via: another one of the
                        // same address, which may be no port of ours.
                        Outcome::Sent(sent) => {
                            assert!(
                                source.ends_with(":0") && !via.contains("rport"),
                                "{source} {via}"
                            );
                            assert_eq!(sent.to.port(), 5060);
                        }
                    }
                }
            }
        }
    }
}

/// All answers together have a rate, whatever the sources and the causes; requests that are
/// forwarded are not held up.
#[test]
fn a48_answers_to_many_sources_share_one_rate() {
    let limited = format!("sip.answers_per_second = 50\n{ONE_ARMED}");
    let mut lab = Lab::with_workers(&limited, 2);
    let provocations = provocations();
    let mut numbers = Numbers(3);
    for second in 0..5 {
        let (mut answered, mut limited) = (0, 0);
        for n in 0..2000 {
            let source = format!(
                "203.0.{}.{}:5060",
                numbers.below(256),
                1 + numbers.below(254)
            );
            let (_, bytes) = &provocations[n % provocations.len()];
            let to = VIP.parse().unwrap();
            match lab.deliver_at(n % 2, bytes, source.parse().unwrap(), to) {
                Outcome::Sent(sent) => {
                    assert!(sent.bytes.starts_with(b"SIP/2.0 "));
                    answered += 1;
                }
                Outcome::Dropped(reason) => {
                    assert_eq!(reason, DropReason::AnswerLimited);
                    limited += 1;
                }
            }
            if n % 100 == 0 {
                let call = invite(&format!("flooded-{second}-{n}"), "z9hG4bK1");
                assert!(is_server(&lab.send(call, CLIENT).sent()));
            }
        }
        assert!(
            (40..=100).contains(&answered),
            "second {second}: {answered}"
        );
        assert_eq!(answered + limited, 2000);
        lab.wait(Duration::from_secs(1));
    }
}

/// An ACK is never answered, whatever is wrong with it (RFC 3261 §17).
#[test]
fn a48_a_flood_of_acks_is_answered_by_nothing() {
    let mut lab = Lab::new(ONE_ARMED);
    for (_, bytes) in provocations() {
        let ack = text(&bytes)
            .replace("INVITE", "ACK")
            .replace("OPTIONS", "ACK")
            .replace("FROB", "ACK");
        match lab.send(&ack, STRANGER) {
            Outcome::Dropped(_) => {}
            Outcome::Sent(sent) => assert!(is_server(&sent), "{}", text(&sent.bytes)),
        }
    }
}
