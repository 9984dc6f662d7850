//! Forged, altered and replayed responses: RFC 3261 §18.1.2, RFC 6026 §10.
//!
//! The stateless way back (take our Via off, send to the next) would let anyone have us emit UDP to
//! anywhere. The mark beside our branch holds it to where a request came from.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use viaduct::sys::clock;
use viaduct::verdict::DropReason;

use crate::fixture::*;
use crate::tools::*;

const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// Where a text stands in a message.
#[track_caller]
fn place(bytes: &[u8], text: &str) -> std::ops::Range<usize> {
    let at = bytes
        .windows(text.len())
        .position(|window| window == text.as_bytes())
        .unwrap();
    at..at + text.len()
}

fn server(lab: &Lab) -> (SocketAddr, SocketAddr) {
    let ours = lab.plan.listeners()[0].address;
    (SERVERS[0].parse().unwrap(), ours)
}

/// A million responses with our sent-by and marks of the right form, from a server's address: none
/// passes. One guess in 2⁶⁴ would.
#[test]
fn r6026_a_million_forged_responses_are_dropped() {
    const COUNT: usize = 1_000_000;
    let mut lab = Lab::new(ONE_ARMED);
    let sent = lab.send(invite("forged-1", "z9hG4bK1"), CLIENT).sent();
    let mut bytes = response(&sent, 200, "b1");
    let branch = place(&bytes, &branch(&sent.bytes)[9..]);
    let parameter = place(&bytes, &via_parameter(&sent.bytes, "v"));
    let next = place(&bytes, "198.18.200.7:5060;branch");
    let (from, ours) = server(&lab);
    let mut numbers = Numbers(42);
    let mut reasons = [0_usize; DropReason::COUNT];
    let started = clock::now();
    for n in 0..COUNT {
        let mut bits = (0, 0_u64);
        for at in branch.clone().chain(parameter.clone()) {
            if bits.0 == 0 {
                bits = (12, numbers.next());
            }
            bytes[at] = DIGITS[usize::try_from(bits.1 & 31).unwrap()];
            bits = (bits.0 - 1, bits.1 >> 5);
        }
        // 128 bits are 25 characters and three fifths: the spare bits of the last are zero. The key
        // id is one that exists: characters 11 and 12 of the parameter hold it.
        bytes[branch.end - 1] = DIGITS[numbers.below(8) << 2];
        bytes[parameter.end - 1] = DIGITS[numbers.below(8) << 2];
        if n % 2 == 0 {
            bytes[parameter.start + 11] &= 0b1111_0000 | b'0';
            bytes[parameter.start + 11] = b'0';
            bytes[parameter.start + 12] = DIGITS[numbers.below(32)];
        }
        // Half of them to the client of the real call, half to a host of the attacker's choice.
        if n % 4 < 2 {
            // As long as what it replaces.
            let text = format!("203.0.113.{}:5060", 10 + numbers.below(90));
            bytes[next.start..next.start + 17].copy_from_slice(text.as_bytes());
        }
        match lab.deliver(&bytes, from, ours) {
            Outcome::Dropped(reason) => reasons[reason as usize] += 1,
            Outcome::Sent(sent) => panic!("{n} passed to {}:\n{}", sent.to, text(&bytes)),
        }
    }
    let took = clock::now().since(started);
    let of = |reason: DropReason| reasons[reason as usize];
    assert_eq!(
        of(DropReason::ResponseMac) + of(DropReason::ResponseViaInvalid),
        COUNT
    );
    assert!(of(DropReason::ResponseMac) > COUNT / 4, "{reasons:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
}

/// A million copies of a genuine response with one to four bytes changed in what we read of it: what
/// passes is the response that it was, and goes nowhere but to its client.
#[test]
fn r6026_a_million_altered_responses_lead_nowhere_else() {
    const COUNT: usize = 1_000_000;
    let mut lab = Lab::new(ONE_ARMED);
    let sent = lab
        .send(invite("forged-2", "z9hG4bK1;rport"), CLIENT)
        .sent();
    let genuine = response(&sent, 200, "b1");
    let vias = place(&genuine, "SIP/2.0/UDP 198.18.0.1").start..place(&genuine, "From:").start - 2;
    let (from, ours) = (sent.to, sent.from);
    let mut numbers = Numbers(7);
    let mut bytes = genuine.clone();
    let (mut passed, mut dropped) = (0, 0);
    let started = clock::now();
    for _ in 0..COUNT {
        let changes = 1 + numbers.below(4);
        let mut places = [0; 4];
        for at in &mut places[..changes] {
            *at = vias.start + numbers.below(vias.len());
            bytes[*at] = match numbers.below(3) {
                0 => b"0123456789.:;=,[] \tabcdefABCDEF"[numbers.below(31)],
                1 => bytes[*at] ^ (1 << numbers.below(8)),
                _ => u8::try_from(numbers.below(256)).unwrap(),
            };
        }
        match lab.deliver(&bytes, from, ours) {
            Outcome::Dropped(_) => dropped += 1,
            Outcome::Sent(back) => {
                passed += 1;
                assert_eq!(back.to, CLIENT.parse().unwrap(), "{}", text(&bytes));
                assert_eq!(back.from, VIP.parse().unwrap());
                // Branch and mark are what they were.
                let all = text(&bytes).to_lowercase();
                for part in [branch(&sent.bytes), via_parameter(&sent.bytes, "v")] {
                    assert!(all.contains(&part.to_lowercase()), "{}", text(&bytes));
                }
            }
        }
        for at in &places[..changes] {
            bytes[*at] = genuine[*at];
        }
    }
    let took = clock::now().since(started);
    // Most changes hit branch or mark; some only the client's own parameters.
    assert!(dropped > COUNT / 2 && passed > 1000, "{dropped} {passed}");
    assert!(took < Duration::from_secs(20), "{took:?}");
}

/// A genuine response, captured and sent again with another next Via: 200,000 addresses and ports.
#[test]
fn r6026_a_replay_to_another_next_via_is_dropped() {
    let mut lab = Lab::new(ONE_ARMED);
    let sent = lab.send(invite("forged-3", "z9hG4bK1"), CLIENT).sent();
    let genuine = text(&response(&sent, 200, "b1"));
    let (head, tail) = genuine
        .split_once("198.18.200.7:5060;branch=z9hG4bK1")
        .unwrap();
    let mut numbers = Numbers(99);
    let mut to_listeners = 0;
    for n in 0..200_000 {
        let ip = match n % 4 {
            // Its neighbours, and any.
            0 => Ipv4Addr::new(198, 18, 200, u8::try_from(numbers.below(256)).unwrap()),
            _ => Ipv4Addr::from_bits(u32::try_from(numbers.next() >> 32).unwrap()),
        };
        let port = 1 + numbers.below(65_535);
        if ip == Ipv4Addr::new(198, 18, 200, 7) && port == 5060 {
            continue;
        }
        let via = match n % 5 {
            0 => format!("{ip}:{port};branch=z9hG4bK1"),
            1 => format!("198.18.200.7:5060;received={ip};rport={port};branch=z9hG4bK1"),
            2 => format!("198.18.200.7:{port};received={ip};branch=z9hG4bK1"),
            3 => format!("x.example:{port};branch=z9hG4bK1;received={ip}"),
            _ => format!("x.example;rport={port};branch=z9hG4bK1;RECEIVED={ip}"),
        };
        let reason = lab.reply(format!("{head}{via}{tail}"), &sent).dropped();
        match reason {
            DropReason::ResponseMac => {}
            DropReason::ResponseNextViaForbidden => to_listeners += 1,
            other => panic!("{via}: {}", other.as_str()),
        }
    }
    assert!(to_listeners > 1000, "multicast is one in sixteen");
}

/// RFC 4475 §3.3.10 and ours: nobody, everybody, ourselves, and no place that the request came from.
#[test]
fn a36_forbidden_next_vias() {
    for config in [ONE_ARMED, TWO_ARMED] {
        let mut lab = Lab::new(config);
        let sent = lab.send(invite("forged-4", "z9hG4bK1"), CLIENT).sent();
        let genuine = response(&sent, 200, "b1");
        let forbidden = DropReason::ResponseNextViaForbidden;
        for (host, reason) in [
            ("255.255.255.255:5060", forbidden),
            ("224.0.0.1", forbidden),
            ("239.255.255.250:1900", forbidden),
            ("0.0.0.0:5060", forbidden),
            ("[::]:5060", forbidden),
            ("[ff02::fb]:5353", forbidden),
            ("[::ffff:224.0.0.1]", forbidden),
            ("[::ffff:0.0.0.0]", forbidden),
            ("198.18.0.1:5060", forbidden),
            ("198.18.0.1", forbidden),
            ("[::ffff:198.18.0.1]:5060", forbidden),
            ("127.0.0.1:5060", DropReason::ResponseMac),
            ("[::1]:5060", DropReason::ResponseMac),
            ("198.18.0.1:9999", DropReason::ResponseMac),
            ("198.18.255.255:5060", DropReason::ResponseMac),
            ("198.18.200.7:0", DropReason::MalformedResponse),
            ("198.18.200.7:65536", DropReason::MalformedResponse),
        ] {
            // As sent-by, and as what a server put behind it.
            let by = replaced(
                &genuine,
                "198.18.200.7:5060;branch",
                &format!("{host};branch"),
            );
            assert_eq!(lab.reply(&by, &sent).dropped(), reason, "{host}");
            let (ip, port) = match host.rsplit_once(':') {
                Some((ip, port)) if !host.ends_with(']') => (ip, port),
                _ => (host, "5060"),
            };
            if reason != DropReason::MalformedResponse {
                let marks = format!("198.18.200.7:5060;received={ip};rport={port};branch");
                let marked = replaced(&genuine, "198.18.200.7:5060;branch", &marks);
                assert_eq!(lab.reply(&marked, &sent).dropped(), reason, "{marks}");
            }
        }
        // Its own address by the other listener of the farm's side.
        for listener in lab.plan.listeners().to_vec() {
            let host = format!("{};branch", listener.address);
            let by = replaced(&genuine, "198.18.200.7:5060;branch", &host);
            assert_eq!(lab.reply(&by, &sent).dropped(), forbidden, "{host}");
        }
        // A name of ours resolves to nothing here.
        let by = replaced(
            &genuine,
            "198.18.200.7:5060;branch",
            "sip.lab.example;branch",
        );
        assert_eq!(
            lab.reply(&by, &sent).dropped(),
            DropReason::ResponseNextViaUnresolved
        );
        // An rport of 0 is none: the sent-by's port holds, and it is not what was asked.
        let marks = "198.18.200.7:5061;received=198.18.200.7;rport=0;branch";
        let by = replaced(&genuine, "198.18.200.7:5060;branch", marks);
        assert_eq!(lab.reply(&by, &sent).dropped(), DropReason::ResponseMac);
    }
}

/// A server answers for itself only; a stranger and a client for nobody.
#[test]
fn a56_only_the_server_that_was_asked_may_answer() {
    for config in [ONE_ARMED, TWO_ARMED] {
        let mut lab = Lab::new(config);
        for n in 0..20 {
            let sent = lab
                .send(invite(&format!("forged-5-{n}"), "z9hG4bK1"), CLIENT)
                .sent();
            for status in [100, 180, 200, 302, 486, 603] {
                let bytes = response(&sent, status, "b1");
                for from in SERVERS.into_iter().chain([CLIENT, STRANGER, TRUSTED, VIP]) {
                    let from: SocketAddr = from.parse().unwrap();
                    match lab.deliver(&bytes, from, sent.from) {
                        Outcome::Sent(back) => {
                            assert_eq!(from, sent.to);
                            assert_eq!(back.to, CLIENT.parse().unwrap());
                        }
                        Outcome::Dropped(reason) => {
                            assert_ne!(from, sent.to);
                            assert_eq!(reason, DropReason::ResponseSource, "{from}");
                        }
                    }
                }
            }
        }
    }
}

/// The mark of a farm-originated request cannot be turned into one for a server, nor the reverse;
/// nor one listener's into another's.
#[test]
fn r6026_marks_of_two_transactions_do_not_mix() {
    let mut lab = Lab::new(ONE_ARMED);
    let one = lab.send(invite("forged-6", "z9hG4bK1"), CLIENT).sent();
    let out = request("INVITE", "sip:carol@203.0.113.9", "forged-6", "z9hG4bK1", 1);
    let out = lab
        .send(replaced(&out, "198.18.200.7", "198.18.1.12"), SERVERS[1])
        .sent();
    let second = lab
        .send_to(invite("forged-6", "z9hG4bK1"), CLIENT, "198.18.0.1:5070")
        .sent();
    let all = [&one, &out, &second];
    for of in all {
        for other in all {
            let bytes = response(of, 200, "b1");
            let mixed = replaced(
                &bytes,
                &via_parameter(&of.bytes, "v"),
                &via_parameter(&other.bytes, "v"),
            );
            match lab.reply(&mixed, of) {
                Outcome::Sent(_) => assert_eq!(of.to, other.to),
                Outcome::Dropped(reason) => {
                    assert_eq!(reason, DropReason::ResponseMac);
                    assert_ne!(
                        via_parameter(&of.bytes, "v"),
                        via_parameter(&other.bytes, "v")
                    );
                }
            }
        }
    }
    // Field by field: the server, the listener, node and key id stand in front of the MAC.
    let genuine = response(&one, 200, "b1");
    let parameter = via_parameter(&one.bytes, "v");
    for at in 0..parameter.len() {
        for digit in DIGITS {
            let mut changed = parameter.clone().into_bytes();
            if changed[at] == *digit {
                continue;
            }
            changed[at] = *digit;
            let bytes = replaced(&genuine, &parameter, &text(&changed));
            for from in [
                one.to,
                STRANGER.parse().unwrap(),
                SERVERS[1].parse().unwrap(),
            ] {
                let reason = lab.deliver(&bytes, from, one.from).dropped();
                assert!(
                    matches!(
                        reason,
                        DropReason::ResponseMac | DropReason::ResponseViaInvalid
                    ),
                    "{}",
                    reason.as_str()
                );
            }
        }
    }
}

/// A client's Via maddr, RFC 3261 §18.2.2: it would send its responses anywhere, so it is not
/// followed, by neither the way back nor an answer of ours.
#[test]
fn a44_a_clients_maddr_redirects_nothing() {
    let mut lab = Lab::new(ONE_ARMED);
    for maddr in [
        VICTIM,
        "224.0.1.75;ttl=1",
        "198.18.0.1",
        "evil.example",
        "\"203.0.113.99\"",
    ] {
        let bytes = replaced(
            &invite("forged-7", "z9hG4bK1"),
            "5060;branch",
            &format!("5060;maddr={maddr};branch"),
        );
        let sent = lab.send(&bytes, CLIENT).sent();
        let back = lab.reply(response(&sent, 200, "b1"), &sent).sent();
        assert_eq!(back.to, CLIENT.parse().unwrap(), "{maddr}");
        let answer = replaced(&bytes, "Max-Forwards: 70", "Max-Forwards: 0");
        assert_eq!(status(lab.send(&answer, CLIENT), CLIENT), 483, "{maddr}");
        // One that a server writes into it afterwards changes nothing either.
        let genuine = response(&sent, 200, "b1");
        let added = replaced(&genuine, "branch=z9hG4bK1", "branch=z9hG4bK1;x=1");
        assert_eq!(lab.reply(added, &sent).sent().to, CLIENT.parse().unwrap());
    }
}

/// A response for a transaction with state behind it, where there is none; or with our sent-by in
/// clear and no mark at all.
#[test]
fn r6026_a_response_without_a_request_is_dropped() {
    let mut lab = Lab::new(ONE_ARMED);
    let of = |via: &str, below: &str| {
        sip(&format!(
            "SIP/2.0 200 OK
            Via: SIP/2.0/UDP {via}
            {below}From: <sip:a@x>;tag=1
            To: <sip:b@y>;tag=2
            Call-ID: forged-8
            CSeq: 1 INVITE
            Content-Length: 0"
        ))
    };
    let below = "Via: SIP/2.0/UDP 203.0.113.99:5060;branch=z9hG4bK1\n";
    let t = "z9hG4bKt003k66dqf5g0gp1gsqm4g4ctbh0";
    let s = "z9hG4bKs003k66dqf5g0gp1gsqm4g4ctbh0";
    let v = "v=h23iq7o000001o97637knf18q4";
    for (via, below, reason) in [
        (
            "203.0.113.1".to_owned(),
            below,
            DropReason::ResponseViaForeign,
        ),
        (
            "198.18.0.1:5999".to_owned(),
            below,
            DropReason::ResponseViaForeign,
        ),
        (
            "198.18.0.1".to_owned(),
            below,
            DropReason::ResponseViaInvalid,
        ),
        (
            "sip.lab.example".to_owned(),
            below,
            DropReason::ResponseViaInvalid,
        ),
        (
            format!("198.18.0.1;branch={s}"),
            below,
            DropReason::ResponseViaInvalid,
        ),
        (
            format!("198.18.0.1;branch={t}"),
            below,
            DropReason::ResponseViaInvalid,
        ),
        (
            format!("198.18.0.1;branch={t};{v}"),
            below,
            DropReason::ResponseMac,
        ),
        (
            format!("198.18.0.1;branch={s};{v}"),
            below,
            DropReason::ResponseMac,
        ),
        (
            format!("198.18.0.1;branch={s};{v}"),
            "",
            DropReason::ResponseOwn,
        ),
        (
            format!("198.18.0.1;branch={s};{v},198.18.0.1"),
            below,
            DropReason::MalformedResponse,
        ),
    ] {
        for from in [STRANGER, SERVERS[0], CLIENT] {
            let dropped = lab.send(of(&via, below), from).dropped();
            assert_eq!(dropped, reason, "{via} from {from}");
        }
    }
}
