//! Requests through the proxy: `SIP_CC_PR_MP_RQ`. What is asked of INVITE, of CANCEL and of other
//! methods alike is tested with each.

use crate::fixture::*;
use crate::lab::*;

const B: &str = "z9hG4bKc1";
const BOB: &str = "sip:bob@sip.lab.example";
/// INVITE has a transaction here, the others none.
const METHODS: [&str; 5] = ["INVITE", "BYE", "OPTIONS", "MESSAGE", "NEWMETHOD"];

fn of(method: &str, uri: &str) -> Vec<u8> {
    request(method, uri, "call", B, 1)
}

/// What reaches the server.
#[track_caller]
fn through(bench: &mut Bench, bytes: &[u8]) -> Sent {
    let sent = bench.client(bytes);
    let mut found = sent
        .into_iter()
        .filter(|one| name(one).ends_with(" server"));
    let one = found.next().expect("nothing for a server");
    assert!(found.next().is_none());
    one
}

/// The status of the final answer.
#[track_caller]
fn refused(bench: &mut Bench, bytes: &[u8]) -> (String, Sent) {
    let sent = bench.client(bytes);
    assert_eq!(sent.len(), 1, "{:?}", names(&sent));
    let answer = sent.into_iter().next().unwrap();
    let status = start_line(&answer.bytes);
    (status.split(' ').nth(1).unwrap().to_owned(), answer)
}

/// A Request-URI of a scheme that nobody knows gets 416.
///
/// SIP_CC_PR_MP_RQ_V_001 SIP_CC_PR_MP_RQ_V_049
#[test]
fn an_unknown_scheme_is_416() {
    for method in METHODS {
        let bytes = of(method, "unknown:bob@example.com");
        assert_eq!(refused(&mut Bench::lone(), &bytes).0, "416", "{method}");
    }
}

/// Max-Forwards 0 gets 483; of OPTIONS too, whose Request-URI is another's.
///
/// SIP_CC_PR_MP_RQ_V_002 SIP_CC_PR_MP_RQ_V_050
#[test]
fn max_forwards_0_is_483() {
    for method in METHODS {
        let bytes = replaced(&of(method, BOB), "Max-Forwards: 70", "Max-Forwards: 0");
        assert_eq!(refused(&mut Bench::lone(), &bytes).0, "483", "{method}");
    }
}

/// A Proxy-Require that is not known gets 420, its tags in Unsupported.
///
/// SIP_CC_PR_MP_RQ_V_003 SIP_CC_PR_MP_RQ_V_051
#[test]
fn an_unknown_proxy_require_is_420_with_its_tags() {
    for method in METHODS {
        let bytes = with_row(&of(method, BOB), "Contact", "Proxy-Require: never-heard");
        let (status, answer) = refused(&mut Bench::lone(), &bytes);
        assert_eq!(status, "420", "{method}");
        assert_eq!(row(&answer.bytes, "Unsupported"), "never-heard");
    }
}

/// Behind a strict router our Record-Route value is the Request-URI: the last Route takes its place.
///
/// SIP_CC_PR_MP_RQ_V_004 SIP_CC_PR_MP_RQ_V_052
#[test]
fn our_record_route_as_request_uri_gives_way_to_the_last_route() {
    let mut bench = Bench::lone();
    let first = through(&mut bench, &of("INVITE", BOB));
    let own = rows(&first.bytes, "Record-Route").remove(0);
    let own = own
        .trim_start_matches('<')
        .split('>')
        .next()
        .unwrap()
        .to_owned();
    bench.answer(&first, 200);
    for (cseq, method) in [(2, "INVITE"), (3, "BYE"), (4, "MESSAGE")] {
        let bytes = request(method, &own, "call", &format!("{B}{cseq}"), cseq);
        let bytes = with_row(&bytes, "Max-Forwards", "Route: <sip:bob@198.18.1.11:5060>");
        let sent = through(&mut bench, &bytes);
        let line = start_line(&sent.bytes);
        assert_eq!(line, format!("{method} sip:bob@198.18.1.11:5060 SIP/2.0"));
        assert!(rows(&sent.bytes, "Route").is_empty());
    }
}

/// A maddr that is ours is stripped, with port and transport.
///
/// SIP_CC_PR_MP_RQ_V_005 SIP_CC_PR_MP_RQ_V_053
#[test]
fn our_maddr_is_stripped() {
    for method in METHODS {
        let uri = "sip:bob@farm.example;a=b;transport=udp;maddr=198.18.0.1";
        let sent = through(&mut Bench::lone(), &of(method, uri));
        let line = start_line(&sent.bytes);
        assert_eq!(line, format!("{method} sip:bob@farm.example;a=b SIP/2.0"));
    }
}

/// A first Route that is ours is removed, the next stays.
///
/// SIP_CC_PR_MP_RQ_V_019 SIP_CC_PR_MP_RQ_V_020
#[test]
fn our_route_is_removed() {
    for method in METHODS {
        let route = "Route: <sip:198.18.0.1;lr>, <sip:198.18.1.11;lr>";
        let bytes = with_row(&of(method, BOB), "Max-Forwards", route);
        let sent = through(&mut Bench::lone(), &bytes);
        assert_eq!(row(&sent.bytes, "Route"), "<sip:198.18.1.11;lr>");
        let alone = with_row(
            &of(method, BOB),
            "Max-Forwards",
            "Route: <sip:198.18.0.1;lr>",
        );
        let sent = through(&mut Bench::lone(), &alone);
        assert!(rows(&sent.bytes, "Route").is_empty());
    }
}

/// A maddr that is not ours, a domain that is not ours: the request's own target, unchanged, where
/// the sender may use it; a server may.
///
/// SIP_CC_PR_MP_RQ_V_006 SIP_CC_PR_MP_RQ_V_007 SIP_CC_PR_MP_RQ_V_009 SIP_CC_PR_MP_RQ_V_021
/// SIP_CC_PR_MP_RQ_V_022 SIP_CC_PR_MP_RQ_V_054 SIP_CC_PR_MP_RQ_V_055 SIP_CC_PR_MP_RQ_V_057
#[test]
fn a_target_that_is_not_ours_is_the_only_one() {
    for (uri, to) in [
        ("sip:x@203.0.113.9", "203.0.113.9:5060"),
        ("sip:x@203.0.113.9:5099", "203.0.113.9:5099"),
        (
            "sip:x@elsewhere.example;maddr=203.0.113.5",
            "203.0.113.5:5060",
        ),
    ] {
        for method in METHODS {
            let mut bench = Bench::lone();
            let sent = bench.receive(SERVERS[0], &of(method, uri));
            let out = sent.iter().find(|one| one.to.to_string() == to).unwrap();
            assert_eq!(start_line(&out.bytes), format!("{method} {uri} SIP/2.0"));
        }
    }
}

/// What leaves has one hop less, or 70 if it had none.
///
/// SIP_CC_PR_MP_RQ_V_011 SIP_CC_PR_MP_RQ_V_012 SIP_CC_PR_MP_RQ_V_013 SIP_CC_PR_MP_RQ_V_014
/// SIP_CC_PR_MP_RQ_V_023 SIP_CC_PR_MP_RQ_V_024 SIP_CC_PR_MP_RQ_V_025 SIP_CC_PR_MP_RQ_V_026
/// SIP_CC_PR_MP_RQ_V_059 SIP_CC_PR_MP_RQ_V_060 SIP_CC_PR_MP_RQ_V_061 SIP_CC_PR_MP_RQ_V_062
#[test]
fn max_forwards_is_decremented_or_added() {
    for method in METHODS {
        for (given, left) in [("70", "69"), ("1", "0"), ("255", "254")] {
            let row_of = |hops: &str| format!("Max-Forwards: {hops}\r\n");
            let bytes = replaced(&of(method, BOB), &row_of("70"), &row_of(given));
            let sent = through(&mut Bench::lone(), &bytes);
            assert_eq!(row(&sent.bytes, "Max-Forwards"), left);
        }
        let none = replaced(&of(method, BOB), "Max-Forwards: 70\r\n", "");
        let sent = through(&mut Bench::lone(), &none);
        assert_eq!(row(&sent.bytes, "Max-Forwards"), "70");
    }
}

/// A first Route without lr is a strict router: it becomes the Request-URI, which goes last.
///
/// SIP_CC_PR_MP_RQ_V_015 SIP_CC_PR_MP_RQ_V_027 SIP_CC_PR_MP_RQ_V_063
#[test]
fn a_strict_router_gets_its_uri_as_request_uri() {
    for method in METHODS {
        let bytes = with_row(&of(method, BOB), "Max-Forwards", "Route: <sip:198.18.1.11>");
        let sent = through(&mut Bench::lone(), &bytes);
        assert_eq!(
            start_line(&sent.bytes),
            format!("{method} sip:198.18.1.11 SIP/2.0")
        );
        assert_eq!(
            rows(&sent.bytes, "Route").last().unwrap(),
            &format!("<{BOB}>")
        );
        assert_eq!(sent.to.to_string(), "198.18.1.11:5060");
    }
}

/// The next hop is the first Route if there is one, else what the Request-URI names; a port that is
/// written down is used, 5060 if none is.
///
/// SIP_CC_PR_MP_RQ_V_016 SIP_CC_PR_MP_RQ_V_017 SIP_CC_PR_MP_RQ_V_029 SIP_CC_PR_MP_RQ_V_064
/// SIP_CC_PR_MP_RQ_V_065
#[test]
fn the_next_hop_is_the_first_route_else_the_request_uri() {
    for method in METHODS {
        for (route, to) in [
            ("<sip:203.0.113.8;lr>", "203.0.113.8:5060"),
            ("<sip:203.0.113.8:5088;lr>", "203.0.113.8:5088"),
        ] {
            let uri = "sip:x@203.0.113.9";
            let bytes = with_row(&of(method, uri), "Max-Forwards", &format!("Route: {route}"));
            let mut bench = Bench::lone();
            let sent = bench.receive(SERVERS[0], &bytes);
            let out = sent.iter().find(|one| one.to.to_string() == to).unwrap();
            assert_eq!(row(&out.bytes, "Route"), route);
            assert_eq!(start_line(&out.bytes), format!("{method} {uri} SIP/2.0"));
        }
    }
}

/// Our Via stands on top: our address, the transport, a branch with the magic cookie that no other
/// request has.
///
/// SIP_CC_PR_MP_RQ_V_018 SIP_CC_PR_MP_RQ_V_030 SIP_CC_PR_MP_RQ_V_066
#[test]
fn our_via_stands_on_top_with_the_magic_cookie() {
    for method in METHODS {
        let mut bench = Bench::lone();
        let first = through(&mut bench, &of(method, BOB));
        let other = request(method, BOB, "other", "z9hG4bKc2", 1);
        let other = through(&mut bench, &other);
        let top = rows(&first.bytes, "Via").remove(0);
        assert!(top.starts_with("SIP/2.0/UDP 198.18.0.1"), "{top}");
        assert!(branch(&first.bytes).starts_with("z9hG4bK"));
        assert!(branch(&first.bytes).len() > "z9hG4bK".len());
        assert_ne!(branch(&first.bytes), branch(&other.bytes));
        assert_eq!(rows(&first.bytes, "Via").len(), 2);
    }
}

/// A CANCEL of a request that has no transaction here is forwarded by the same rules: hops, Via, Route.
/// Nothing refuses it for its Proxy-Require.
///
/// SIP_CC_PR_MP_RQ_V_034 SIP_CC_PR_MP_RQ_V_036 SIP_CC_PR_MP_RQ_V_041 SIP_CC_PR_MP_RQ_V_042
/// SIP_CC_PR_MP_RQ_V_043 SIP_CC_PR_MP_RQ_V_044 SIP_CC_PR_MP_RQ_V_046 SIP_CC_PR_MP_RQ_V_048
#[test]
fn a_cancel_without_a_transaction_is_forwarded() {
    let mut bench = Bench::lone();
    let cancel = of("CANCEL", BOB);
    let sent = through(&mut bench, &cancel);
    assert_eq!(row(&sent.bytes, "Max-Forwards"), "69");
    assert!(branch(&sent.bytes).starts_with("z9hG4bK"));
    assert_eq!(start_line(&sent.bytes), format!("CANCEL {BOB} SIP/2.0"));
    let none = replaced(&cancel, "Max-Forwards: 70\r\n", "");
    assert_eq!(row(&through(&mut bench, &none).bytes, "Max-Forwards"), "70");
    let routed = with_row(&cancel, "Max-Forwards", "Route: <sip:198.18.0.1;lr>");
    assert!(rows(&through(&mut bench, &routed).bytes, "Route").is_empty());
    // It has the branch that its INVITE will have, should that come after it.
    let late = through(&mut bench, &of("INVITE", BOB));
    assert_eq!(branch(&late.bytes), branch(&sent.bytes));
}

/// Headers and a method parameter in a Request-URI are not allowed there. The request is not taken
/// apart for them: it goes on or is refused, and nothing of them is followed.
///
/// SIP_CC_PR_MP_RQ_I_001 SIP_CC_PR_MP_RQ_I_002 SIP_CC_PR_MP_RQ_I_003 SIP_CC_PR_MP_RQ_I_004
#[test]
fn what_a_request_uri_may_not_have_is_not_followed() {
    for uri in [
        "sip:bob@sip.lab.example;method=BYE",
        "sip:bob@sip.lab.example?Subject=x&Route=%3Csip:203.0.113.9%3E",
    ] {
        let sent = Bench::lone().client(of("INVITE", uri));
        let to_others = sent.iter().filter(|one| {
            let to = one.to.to_string();
            to != CLIENT && to != SERVERS[0]
        });
        assert_eq!(to_others.count(), 0, "{uri}");
        for one in sent.iter().filter(|one| name(one).ends_with(" server")) {
            assert!(start_line(&one.bytes).starts_with("INVITE "), "{uri}");
            assert!(rows(&one.bytes, "Subject").is_empty());
        }
    }
}
