//! Extremes of length and number: refused or forwarded, within bounded time, never by half.

use std::time::Duration;

use viaduct::limits::{DATAGRAM_LEN_MAX, GROWTH_MAX, HEADERS_MAX, ROUTE_VALUES_MAX, VIAS_MAX};
use viaduct::route::server_id;
use viaduct::sys::clock;
use viaduct::verdict::DropReason;

use crate::fixture::*;
use crate::tools::*;

fn with_many(row: impl Fn(usize) -> String, count: usize) -> Vec<u8> {
    let rows: String = (0..count).map(|n| row(n) + "\r\n").collect();
    let bytes = request("BYE", "sip:bob@198.18.1.12", "many", "z9hG4bK1", 2);
    replaced(&bytes, "Max-Forwards", &format!("{rows}Max-Forwards"))
}

/// Header rows up to the bound are forwarded, one more is refused.
#[test]
fn a04_as_many_headers_as_there_is_room_for() {
    let mut lab = Lab::new(ONE_ARMED);
    let own = lines(&with_many(|_| String::new(), 0)).len() - 1;
    for (rows, served) in [
        (HEADERS_MAX - own, true),
        (HEADERS_MAX - own + 1, false),
        (3000, false),
        (4500, false),
    ] {
        for row in [
            |n| format!("X-{n}: y"),
            |n| format!("X:{}", n % 2),
            |_| "a".to_owned(),
        ] {
            let bytes = with_many(row, rows);
            let outcome = lab.send(&bytes, STRANGER);
            if served {
                assert!(is_server(&outcome.sent()));
            } else {
                assert_eq!(status(outcome, STRANGER), 400);
            }
            let ack = text(&bytes).replace("BYE", "ACK");
            match lab.send(&ack, STRANGER) {
                Outcome::Sent(sent) => assert!(served && is_server(&sent)),
                Outcome::Dropped(reason) => assert!(!served && reason == DropReason::Malformed),
            }
        }
    }
    // No Via within the bound: nobody to answer.
    let bytes = with_many(|n| format!("X-{n}: y"), HEADERS_MAX);
    let via = format!("Via: {}\r\n", row(&bytes, "Via"));
    let late = replaced(&bytes, &via, "");
    let late = replaced(&late, "Content-Length", &format!("{via}Content-Length"));
    assert_eq!(lab.send(&late, STRANGER).dropped(), DropReason::Malformed);
}

/// Route values up to the bound are followed, one more is refused; our own among them are taken off.
#[test]
fn a13_sixty_four_route_values_and_no_more() {
    let mut lab = Lab::new(ONE_ARMED);
    for joined in [true, false] {
        for (count, served) in [
            (ROUTE_VALUES_MAX - 1, true),
            (ROUTE_VALUES_MAX, true),
            (ROUTE_VALUES_MAX + 1, false),
            (150, false),
        ] {
            let value = |n: usize| format!("<sip:198.18.1.{};lr>", 11 + n % 3);
            let values: Vec<String> = (0..count).map(value).collect();
            let bytes = match joined {
                true => with_many(|_| format!("Route: {}", values.join(",")), 1),
                false => with_many(|n| format!("Route: {}", values[n]), count),
            };
            let outcome = lab.send(&bytes, STRANGER);
            if served {
                let sent = outcome.sent();
                assert_eq!(sent.to, SERVERS[0].parse().unwrap(), "{count}");
                assert_eq!(rows(&sent.bytes, "Route"), rows(&bytes, "Route"));
            } else {
                assert_eq!(status(outcome, STRANGER), 400, "{count}");
            }
        }
    }
}

/// A route set that is all ours, or nearly: what is not forwarded whole is refused, not cut.
#[test]
fn a13_many_own_routes_are_removed_or_refused() {
    let mut lab = Lab::new(ONE_ARMED);
    let token = sealed(&lab, server_id("s2"), None, "many");
    for joined in [true, false] {
        for count in 1..=ROUTE_VALUES_MAX {
            let value = format!("<sip:{token}@198.18.0.1:5060;lr>");
            let bytes = match joined {
                true => with_many(
                    |_| format!("Route: {}", vec![value.clone(); count].join(",")),
                    1,
                ),
                false => with_many(|_| format!("Route: {value}"), count),
            };
            match lab.send(&bytes, STRANGER) {
                Outcome::Sent(sent) => {
                    assert_eq!(sent.to, SERVERS[1].parse().unwrap());
                    assert!(rows(&sent.bytes, "Route").is_empty());
                    assert!(start_line(&sent.bytes).starts_with("BYE "), "{count}");
                }
                // More edits than a list holds.
                Outcome::Dropped(reason) => {
                    assert!(!joined && count > 16, "{count}");
                    assert_eq!(reason, DropReason::NoRoom);
                }
            }
        }
    }
}

#[test]
fn a07_a_hundred_vias_and_no_more() {
    let mut lab = Lab::new(ONE_ARMED);
    for (count, served) in [(VIAS_MAX - 1, true), (VIAS_MAX, false), (180, false)] {
        for joined in [true, false] {
            let value = |n: usize| format!("SIP/2.0/UDP 10.0.0.{n};branch=z9hG4bK{n}");
            let values: Vec<String> = (0..count).map(value).collect();
            let bytes = match joined {
                true => with_many(|_| format!("Via: {}", values.join(",")), 1),
                false => with_many(|n| format!("Via: {}", values[n]), count),
            };
            let outcome = lab.send(&bytes, STRANGER);
            if served {
                assert!(is_server(&outcome.sent()), "{count}");
            } else {
                assert_eq!(status(outcome, STRANGER), 400, "{count} {joined}");
            }
        }
    }
}

/// Fields as long as a datagram can be.
#[test]
fn a04_fields_as_long_as_a_datagram() {
    let mut lab = Lab::new(ONE_ARMED);
    for len in [255, 256, 1000, 16_000, 40_000, 60_000] {
        let long = "x".repeat(len);
        let base = |to: &str, from: &str| {
            let bytes = request("INVITE", "sip:bob@sip.lab.example", "long", "z9hG4bK1", 1);
            replaced(&bytes, to, from)
        };
        for bytes in [
            base(
                "sip:bob@sip.lab.example SIP",
                &format!("sip:{long}@sip.lab.example SIP"),
            ),
            base(
                "sip:bob@sip.lab.example SIP",
                &format!("sip:bob@sip.lab.example;p={long} SIP"),
            ),
            base(
                "sip:bob@sip.lab.example SIP",
                &format!("tel:{} SIP", "1".repeat(len)),
            ),
            base("Call-ID: long", &format!("Call-ID: {long}")),
            base("branch=z9hG4bK1", &format!("branch=z9hG4bK{long}")),
            base("branch=z9hG4bK1", &format!("branch=z9hG4bK1;{long}")),
            base("From: Alice", &format!("From: \"{long}\"")),
            base("tag=a1", &format!("tag={long}")),
            base(
                "Max-Forwards: 70",
                &format!("Max-Forwards: {}", "7".repeat(len)),
            ),
            base(
                "Max-Forwards: 70",
                &format!("Max-Forwards: {}70", "0".repeat(len)),
            ),
            base("CSeq: 1", &format!("CSeq: {}1", "0".repeat(len))),
            base("User-Agent: lab phone 1.0", &format!("{long}: y")),
            base(
                "User-Agent: lab phone 1.0",
                &format!("X:{}y", "\r\n ".repeat(len / 3)),
            ),
            base(
                "Max-Forwards",
                &format!("Route: <sip:198.18.1.12;lr;x={long}>\r\nMax-Forwards"),
            ),
            base(
                "Max-Forwards",
                &format!("Proxy-Require: {long}\r\nMax-Forwards"),
            ),
            base("Contact: <sip:", &format!("Contact: \"{long}\" <sip:")),
        ] {
            let outcome = lab.send(&bytes, CLIENT);
            match outcome {
                Outcome::Sent(sent) if sent.bytes.starts_with(b"SIP/2.0 ") => {
                    assert!(sent.bytes.len() <= bytes.len());
                    assert_eq!(sent.to, CLIENT.parse().unwrap());
                }
                Outcome::Sent(sent) => {
                    assert!(is_server(&sent));
                    assert!(sent.bytes.len() <= bytes.len() + GROWTH_MAX);
                    let back = lab.reply(response(&sent, 200, "b1"), &sent).sent();
                    assert_eq!(back.to, CLIENT.parse().unwrap());
                }
                Outcome::Dropped(reason) => {
                    let known = [DropReason::Malformed, DropReason::AnswerTooLong];
                    assert!(known.contains(&reason), "{len}: {}", reason.as_str());
                }
            }
        }
    }
}

/// What is written to be slow to read is read in time: nothing here is looked at more than a few
/// times over.
#[test]
fn a04_no_message_takes_long() {
    let mut lab = Lab::new(ONE_ARMED);
    let room = DATAGRAM_LEN_MAX - GROWTH_MAX - 1000;
    let fill = |piece: &str| piece.repeat(room.min(46_000) / piece.len());
    let mut messages = Vec::new();
    for name in [
        "Route",
        "Via",
        "Contact",
        "Proxy-Require",
        "From",
        "To",
        "Record-Route",
        "Require",
        "X",
        "CSeq",
        "Max-Forwards",
        "Content-Length",
        "Call-ID",
    ] {
        for piece in [
            ",",
            "<",
            "\"",
            "\\",
            "\"\"",
            "<>",
            ";",
            ";a",
            ";a=",
            ";a=\"b\"",
            "a,",
            "<sip:a>,",
            "\r\n ",
            " ",
            "\t",
            "<sip:198.18.0.1;lr>,",
            "[",
            ":",
            "@",
            "sip:",
            "(",
            "SIP/2.0/UDP a,",
            "=",
            ";lr",
        ] {
            let rows = format!("{name}: {}\r\nMax-Forwards", fill(piece));
            let bytes = request("BYE", "sip:bob@sip.lab.example", "slow", "z9hG4bK1", 2);
            messages.push(replaced(&bytes, "Max-Forwards", &rows));
        }
    }
    for piece in [
        ";", ";a", "@", ":", "[", "%41", "?", "&a=b", ";maddr=", ";lr;",
    ] {
        let uri = format!("sip:bob@sip.lab.example{}", fill(piece));
        messages.push(request("BYE", &uri, "slow", "z9hG4bK1", 2));
    }
    let started = clock::now();
    for bytes in &messages {
        let one = clock::now();
        for from in [STRANGER, SERVERS[0]] {
            let _any = lab.send(bytes, from);
        }
        let took = clock::now().since(one);
        assert!(
            took < Duration::from_millis(500),
            "{took:?}: {}",
            &text(bytes)[..300]
        );
    }
    assert!(
        clock::now().since(started) < Duration::from_secs(20),
        "{:?}",
        clock::now().since(started)
    );
}
