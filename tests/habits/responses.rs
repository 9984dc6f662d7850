//! What peers do to the Vias of a response: RFC 3261 §7.3.1, §8.2.6.2, §16.11, §18.2.2, §20.42.

use viaduct::verdict::DropReason;

use crate::call::{
    SHAPES, Shape, WAYS, Way, embedded, expanded, message, respelled, values, vias, with_rows,
};
use crate::fixture::*;

/// Via values in, rows out.
type Habit = fn(&[String]) -> Vec<String>;

fn joined(values: &[String], between: &str) -> Vec<String> {
    vec![format!("Via: {}", values.join(between))]
}

fn each(values: &[String], change: impl Fn(&str) -> String) -> Vec<String> {
    values
        .iter()
        .map(|value| format!("Via: {}", change(value)))
        .collect()
}

/// A value in its parts: `SIP/2.0/UDP`, host and port, parameters.
fn parts(value: &str) -> (&str, Vec<&str>) {
    let mut parts = value.split(';');
    (parts.next().unwrap(), parts.collect())
}

fn rebuilt(value: &str, order: impl Fn(&mut Vec<&str>)) -> String {
    let (head, mut params) = parts(value);
    order(&mut params);
    format!("{head};{}", params.join(";"))
}

/// What a server may write and still have sent the same Vias back.
const HABITS: &[(&str, Habit)] = &[
    ("as they are", |all| each(all, str::to_owned)),
    ("joined", |all| joined(all, ", ")),
    ("joined without blanks", |all| joined(all, ",")),
    ("joined and folded", |all| joined(all, "\r\n\t,\r\n ")),
    ("joined with the fold in front", |all| {
        vec![format!("Via:\r\n {}", all.join(" ,\r\n "))]
    }),
    ("compact", |all| {
        all.iter().map(|value| format!("v:{value}")).collect()
    }),
    ("compact and joined", |all| {
        vec![format!("V : {}", all.join(","))]
    }),
    ("both names", |all| {
        let (first, rest) = all.split_first().unwrap();
        vec![format!("v: {first}"), format!("VIA: {}", rest.join(", "))]
    }),
    ("rows apart", |all| {
        all.iter()
            .map(|value| format!("Via: {value}\r\nX-Between: a, b"))
            .collect()
    }),
    ("parameters reversed", |all| {
        each(all, |value| rebuilt(value, |params| params.reverse()))
    }),
    ("parameters sorted", |all| {
        each(all, |value| rebuilt(value, |params| params.sort_unstable()))
    }),
    ("parameters added", |all| {
        each(all, |value| {
            rebuilt(value, |params| {
                params.insert(0, "alias");
                params.insert(1, "x=\"a;b,c\"");
                params.push("keep=30");
            })
        })
    }),
    ("received and rport on ours", |all| {
        let (first, rest) = all.split_first().unwrap();
        let marked = format!("{first};received=203.0.113.1;rport=61000");
        each(&[vec![marked], rest.to_vec()].concat(), str::to_owned)
    }),
    ("all in upper case", |all| each(all, str::to_uppercase)),
    ("all in lower case", |all| each(all, str::to_lowercase)),
    ("SIP/2.0/udp", |all| {
        each(all, |value| value.replace("SIP/2.0/UDP", "SIP/2.0/udp"))
    }),
    ("white space everywhere", |all| {
        each(all, |value| {
            let (head, params) = parts(value);
            let head = head
                .replace('/', " / ")
                .replace("]:", "] : ")
                .replace(".11:", ".11 : ");
            let params: Vec<String> = params
                .iter()
                .map(|param| param.replace('=', " = "))
                .collect();
            format!("{head} ; {}", params.join(" ; "))
        })
    }),
    ("tabs", |all| {
        each(all, |value| {
            value
                .replace("UDP ", "UDP\t")
                .replace(';', "\t;\t")
                .replace('=', "\t=\t")
        })
    }),
    ("folded inside", |all| {
        each(all, |value| {
            value
                .replace("UDP ", "UDP\r\n  ")
                .replace(';', "\r\n ;")
                .replace('=', "\r\n\t=\r\n ")
        })
    }),
    ("default port dropped", |all| {
        each(all, |value| value.replace(":5060", ""))
    }),
    ("default port added", |all| {
        each(all, |value| {
            value.replace("phone.example;", "phone.example:5060;")
        })
    }),
    ("port with a zero in front", |all| {
        each(all, |value| value.replace(":5060", ":05060"))
    }),
    ("IPv6 expanded", |all| {
        each(all, |value| respelled(value, expanded))
    }),
    ("IPv6 with an embedded IPv4", |all| {
        each(all, |value| respelled(value, embedded))
    }),
    ("received in brackets", |all| {
        each(all, |value| match value.split_once("received=2001") {
            None => value.to_owned(),
            Some((head, tail)) => {
                let (ip, rest) = tail.split_once(';').unwrap_or((tail, ""));
                format!("{head}received=[2001{ip}];{rest}")
                    .trim_end_matches(';')
                    .to_owned()
            }
        })
    }),
    ("received mapped into IPv6", |all| {
        each(all, |value| {
            value.replace("received=198.", "received=::ffff:198.")
        })
    }),
    ("received marks first", |all| {
        each(all, |value| {
            rebuilt(value, |params| {
                params.sort_unstable_by_key(|param| !param.starts_with('r'));
            })
        })
    }),
    ("more Vias below", |all| {
        let mut all = all.to_vec();
        all.push("SIP/2.0/TLS edge.phone.example;branch=z9hG4bKx".to_owned());
        all.push("SIP/2.0/SCTP [2001:db8:9::9]:5061;branch=z9hG4bKy;received=10.0.0.1".to_owned());
        each(&all, str::to_owned)
    }),
];

/// The Via of a sender: what it says of itself, and whether the marks are needed to find it again.
const SENDERS: &[&str] = &[
    "HERE",
    "HERE;rport",
    "10.1.1.1:4540;rport",
    "phone.example;rport",
];

/// Sends an INVITE whose Via is written as `sender`, from port 5060 of the caller, and hands back
/// where its response must go, what the callee got, and its 200.
#[track_caller]
fn asked(
    lab: &mut Lab,
    shape: &Shape,
    way: Way,
    sender: &str,
) -> (std::net::SocketAddr, Sent, Vec<u8>) {
    let (from, to, uri) = shape.caller(way);
    let via = format!(
        "Via: SIP/2.0/UDP {};branch=z9hG4bK1",
        sender.replace("HERE", &from.to_string())
    );
    let contact = format!("Contact: <sip:alice@{from}>\n");
    let bytes = message("INVITE", &uri, &via, "response", &contact);
    let sent = lab.deliver(&bytes, from, to).sent();
    let ok = response(&sent, 200, "b1");
    (from, sent, ok)
}

fn every(check: impl Fn(&mut Lab, &Shape, Way, &str)) {
    for shape in &SHAPES {
        for way in WAYS {
            for sender in SENDERS {
                check(&mut shape.lab(), shape, way, sender);
            }
        }
    }
}

/// RFC 3261 §16.7 step 3: exactly our value goes, the others leave as they came, whoever wrote them
/// how.
#[test]
fn a22_our_via_is_found_and_taken_off_in_any_spelling() {
    every(|lab, shape, way, sender| {
        let (caller, sent, ok) = asked(lab, shape, way, sender);
        let (_, ours, _) = shape.caller(way);
        for (habit, change) in HABITS {
            let what = format!("{habit}, {}, {way:?}, {sender}", shape.name);
            let bytes = with_rows(&ok, "Via", &change(&values(&rows(&ok, "Via"))));
            for status in ["180", "200", "486"] {
                let bytes = replaced(&bytes, "SIP/2.0 200 ", &format!("SIP/2.0 {status} "));
                let back = match lab.reply(&bytes, &sent) {
                    Outcome::Sent(back) => back,
                    Outcome::Dropped(reason) => {
                        panic!("{what}: {}\n{}", reason.as_str(), text(&bytes))
                    }
                };
                assert_eq!((back.to, back.from), (caller, ours), "{what}");
                let (came, left) = (vias(&bytes), vias(&back.bytes));
                assert_eq!(left, came[1..], "{what}\n{}", text(&back.bytes));
                // All but that one value is as it was.
                let tail = |bytes: &[u8]| text(bytes).split_once("From:").unwrap().1.to_owned();
                assert_eq!(tail(&back.bytes), tail(&bytes), "{what}");
            }
        }
    });
}

/// RFC 3261 §8.2.6.2: "The Via header field values in the response MUST equal the Via header field
/// values in the request". A server that drops what it does not know breaks the way back: without
/// our mark any datagram could be sent through us to anybody. It is dropped and counted.
#[test]
fn a36_a_server_that_drops_unknown_parameters_is_not_served() {
    every(|lab, shape, way, sender| {
        let (_, sent, ok) = asked(lab, shape, way, sender);
        let known = ["branch", "received", "rport", "maddr", "ttl"];
        let drop = |value: &str, kept: &[&str]| {
            let (head, params) = parts(value);
            let params = params
                .iter()
                .filter(|param| kept.contains(&param.split('=').next().unwrap()));
            params.fold(head.to_owned(), |value, param| value + ";" + param)
        };
        let values = values(&rows(&ok, "Via"));
        let without = |kept: &[&str]| {
            let mut values = values.clone();
            values[0] = drop(&values[0], kept);
            with_rows(&ok, "Via", &each(&values, str::to_owned))
        };
        let dropped = |lab: &mut Lab, bytes: &[u8]| lab.reply(bytes, &sent).dropped();
        assert_eq!(
            dropped(lab, &without(&known)),
            DropReason::ResponseViaInvalid
        );
        assert_eq!(
            dropped(lab, &without(&["v"])),
            DropReason::ResponseViaInvalid
        );
        assert_eq!(dropped(lab, &without(&[])), DropReason::ResponseViaInvalid);
        // An empty branch, and one without our marks.
        let branch = format!("branch={}", branch(&sent.bytes));
        for other in ["branch=", "branch", "branch=z9hG4bK", "branch=z9hG4bKs0"] {
            let bytes = replaced(&ok, &branch, other);
            assert_eq!(
                dropped(lab, &bytes),
                DropReason::ResponseViaInvalid,
                "{other}"
            );
        }
    });
}

/// The marks of the Via below ours are where the response goes. Without them it goes nowhere else.
#[test]
fn a44_a_server_that_loses_received_or_rport_does_not_mislead_us() {
    for shape in &SHAPES {
        for way in WAYS {
            let mut lab = shape.lab();
            let (_, sent, ok) = asked(&mut lab, shape, way, "10.1.1.1:4540;rport");
            let below = rows(&ok, "Via").remove(1);
            let received = parts(&below).1[1].to_owned();
            assert!(received.starts_with("received="), "{below}");
            for (gone, reason) in [
                (format!(";{received}"), DropReason::ResponseMac),
                (";rport=5060".to_owned(), DropReason::ResponseMac),
                (format!(";rport=5060;{received}"), DropReason::ResponseMac),
            ] {
                let bytes = replaced(&ok, &below, &below.replace(&gone, ""));
                assert_eq!(lab.reply(bytes, &sent).dropped(), reason, "{gone}");
            }
            let (_, sent, ok) = asked(&mut lab, shape, way, "phone.example;rport");
            let below = rows(&ok, "Via").remove(1);
            let bytes = replaced(&ok, &below, "SIP/2.0/UDP phone.example;branch=z9hG4bK1");
            let reason = DropReason::ResponseNextViaUnresolved;
            assert_eq!(lab.reply(bytes, &sent).dropped(), reason);
        }
    }
}

/// RFC 3261 §18.2.2 makes a server answer from where it was asked. Some do not.
#[test]
fn a56_a_server_answers_from_another_port_and_another_address_of_its_networks() {
    for shape in &SHAPES {
        let networks = if shape.config.contains("[2001:db8:1::11]") {
            "networks = [\"2001:db8:1::/64\"]"
        } else {
            "networks = [\"198.18.1.0/24\"]"
        };
        let config = shape
            .config
            .replace("name = \"farm\"", &format!("name = \"farm\"\n{networks}"));
        let mut lab = Lab::with_workers(&config, 2);
        let (caller, sent, ok) = asked(&mut lab, shape, Way::In, "HERE;rport");
        let mut from = sent.to;
        for port in [5060, 1024, 61_000] {
            from.set_port(port);
            assert_eq!(lab.deliver(&ok, from, sent.from).sent().to, caller);
        }
        for (address, served) in [
            ("198.18.1.250:5060", true),
            ("198.18.2.1:5060", false),
            ("[2001:db8:1::ffff]:7000", true),
            ("[2001:db8:2::11]:5060", false),
        ] {
            let from: std::net::SocketAddr = address.parse().unwrap();
            if from.is_ipv4() != sent.from.is_ipv4() {
                continue;
            }
            match lab.deliver(&ok, from, sent.from) {
                Outcome::Sent(back) => assert!(served && back.to == caller, "{address}"),
                Outcome::Dropped(reason) => {
                    assert_eq!(
                        (served, reason),
                        (false, DropReason::ResponseSource),
                        "{address}"
                    );
                }
            }
        }
        // A phone answers from wherever its NAT lets it.
        let (caller, sent, ok) = asked(&mut lab, shape, Way::Out, "HERE");
        let elsewhere = match sent.from.is_ipv4() {
            true => "203.0.113.200:61000",
            false => "[2001:db8:ffff::1]:61000",
        };
        let back = lab
            .deliver(&ok, elsewhere.parse().unwrap(), sent.from)
            .sent();
        assert_eq!(back.to, caller);
    }
}

/// Two paths, a resent datagram, a queue: each response passes, each time, in any order, and a late
/// 180 does not make a call ring again for its pin.
#[test]
fn a23_doubled_and_reordered_responses_all_pass() {
    use std::time::Duration;
    for shape in &SHAPES {
        for way in WAYS {
            let mut lab = shape.lab();
            let (caller, sent, ok) = asked(&mut lab, shape, way, "HERE;rport");
            let of = |status: &str| replaced(&ok, "SIP/2.0 200 ", &format!("SIP/2.0 {status} "));
            let first = lab.reply(of("183"), &sent).sent();
            for statuses in [
                ["200", "200", "180", "100", "183", "183"],
                ["486", "180", "486", "100", "200", "180"],
            ] {
                for status in statuses {
                    let back = lab.reply(of(status), &sent).sent();
                    assert_eq!(back.to, caller);
                    assert_eq!(start_line(&back.bytes), start_line(&of(status)));
                }
            }
            assert_eq!(lab.reply(of("183"), &sent).sent(), first);
            // 64·T1 after the final response the pin is gone, whatever came behind.
            let mut seen = lab.pins.usage(lab.now);
            assert_eq!((seen.unanswered, seen.proceeding), (0, 0), "{way:?}");
            assert_eq!(seen.finished, usize::from(way == Way::In));
            lab.wait(Duration::from_secs(20));
            lab.reply(of("180"), &sent).sent();
            lab.wait(Duration::from_secs(13));
            seen = lab.pins.usage(lab.now);
            assert_eq!((seen.proceeding, seen.finished), (0, 0), "{way:?}");
        }
    }
}

/// RFC 3261 §7.3.3: compact names and folds in the rows that we read of a response.
#[test]
fn a01_a_response_in_compact_form_is_a_response() {
    every(|lab, shape, way, sender| {
        let (caller, sent, ok) = asked(lab, shape, way, sender);
        let mut bytes = ok.clone();
        for (long, short) in [
            ("Via:", "v:"),
            ("From:", "f :"),
            ("To:", "T:\r\n "),
            ("Call-ID:", "i:\t"),
            ("CSeq: 1 INVITE", "CSEQ:\t00001\t \tINVITE\t "),
            ("Contact:", "m:"),
            ("Content-Length:", "l:"),
        ] {
            bytes = replaced(&bytes, &format!("\r\n{long}"), &format!("\r\n{short}"));
        }
        let back = lab.reply(&bytes, &sent).sent();
        assert_eq!(back.to, caller);
        assert_eq!(vias(&back.bytes), vias(&bytes)[1..]);
    });
}
