//! What clients write into a request: RFC 3261 §7.3, §8.1.1, §16.6, §17.1.1.3; RFC 2543.

use std::time::Duration;

use crate::call::{SHAPES, Shape, WAYS, Way, vias};
use crate::fixture::*;

/// A request in a client's own hand: `METHOD`, `URI`, `HERE` (its address) and `TO` (the To value,
/// with a tag in the ACK) are filled in.
type Hand = (&'static str, &'static str);

const HANDS: &[Hand] = &[
    (
        "RFC 2543: no cookie, no tags, no rport, no hops, a Call-ID without @",
        "METHOD URI SIP/2.0
        Via: SIP/2.0/UDP HERE
        From: <sip:alice@a.example>
        To: TO
        Call-ID: 70710
        CSeq: 1 METHOD
        Content-Length: 0",
    ),
    (
        "RFC 2543: a branch without the cookie, addresses without brackets, a numeric Call-ID",
        "METHOD URI SIP/2.0
        Via: SIP/2.0/UDP HERE;branch=1
        From: sip:alice@a.example;tag=1
        To: sip:bob@b.example
        Call-ID: 1
        CSeq: 1 METHOD
        Contact: sip:alice@HERE
        Content-Length: 0",
    ),
    (
        "an empty branch",
        "METHOD URI SIP/2.0
        Via: SIP/2.0/UDP HERE;branch=;rport
        Max-Forwards: 70
        From: <sip:alice@a.example>;tag=a1
        To: TO
        Call-ID: empty@branch
        CSeq: 1 METHOD
        Content-Length: 0",
    ),
    (
        "a branch without =",
        "METHOD URI SIP/2.0
        Via: SIP/2.0/UDP HERE;branch
        Max-Forwards: 70
        From: <sip:alice@a.example>;tag=a1
        To: TO
        Call-ID: bare@branch
        CSeq: 1 METHOD
        Content-Length: 0",
    ),
    (
        "the cookie alone",
        "METHOD URI SIP/2.0
        Via: SIP/2.0/UDP HERE;branch=z9hG4bK
        Max-Forwards: 70
        From: <sip:alice@a.example>;tag=a1
        To: TO
        Call-ID: cookie
        CSeq: 1 METHOD
        Content-Length: 0",
    ),
    (
        "the cookie in another case",
        "METHOD URI SIP/2.0
        VIA: sip/2.0/udp HERE;BRANCH=Z9HG4BKx;RPORT
        MAX-FORWARDS: 70
        FROM: <SIP:alice@A.example>;TAG=a1
        TO: TO
        CALL-ID: case
        CSEQ: 1 METHOD
        CONTENT-LENGTH: 0",
    ),
    (
        "compact and without blanks",
        "METHOD URI SIP/2.0
        v:SIP/2.0/UDP HERE;branch=z9hG4bK1;rport
        f:<sip:alice@a.example>;tag=a1
        t:TO
        i:compact
        CSeq:1 METHOD
        m:<sip:alice@HERE>
        c:text/plain
        l:0",
    ),
    (
        "tabs",
        "METHOD URI SIP/2.0
        |Via:\tSIP/2.0/UDP\tHERE\t;\tbranch\t=\tz9hG4bK1\t;\trport
        |Max-Forwards:\t70\t
        |From\t:\t<sip:alice@a.example>\t;\ttag\t=\ta1
        |To:\tTO
        |Call-ID:\ttabs@x\t
        |CSeq:\t1\tMETHOD
        |Contact:\t<sip:alice@HERE>\t;\texpires=60
        |Content-Length:\t0\t",
    ),
    (
        "folds",
        "METHOD URI SIP/2.0
        Via:
        | SIP/2.0/UDP
        |\tHERE
        | ;branch
        | =z9hG4bK1
        Max-Forwards:
        |   70
        From:
        | \"Alice
        |  A.\"
        | <sip:alice@a.example>
        | ;tag=a1
        To:
        | TO
        Call-ID:
        | folds
        CSeq:
        |\t1
        |\tMETHOD
        Content-Length:
        | 0",
    ),
    (
        "display names with quotes, commas and what looks like tags",
        "METHOD URI SIP/2.0
        Via: SIP/2.0/UDP HERE;branch=z9hG4bK1
        Max-Forwards: 70
        From: \"Bell, \\\"A. <sip:x@y;tag=no>\\\", Jr.;tag=no\" <sip:alice@a.example;tag=no>;tag=a1;x=\"a,b;tag=no\"
        To: \"Bob, B. \\\\\" TO
        Call-ID: \"quoted,<call;id>\"@a.example
        CSeq: 1 METHOD
        Contact: \"Bell, A.\" <sip:alice@HERE>;q=\"0,5\", \"B, C\" <sip:b@HERE>
        Content-Length: 0",
    ),
    (
        "an unquoted display name of several words",
        "METHOD URI SIP/2.0
        Via: SIP/2.0/UDP HERE;branch=z9hG4bK1
        Max-Forwards: 70
        From: Alice  A Bell <sip:alice@a.example>;tag=a1
        To: Bob B TO
        Call-ID: words
        CSeq: 1 METHOD
        Contact: Alice Bell<sip:alice@HERE>
        Content-Length: 0",
    ),
    (
        "leading zeros, hops beyond the usual, marks it filled in itself",
        "METHOD URI SIP/2.0
        Via: SIP/2.0/UDP HERE;rport=9;received=203.0.113.1;branch=z9hG4bK1;ttl=1;x
        Max-Forwards: 0255
        From: <sip:alice@a.example>;tag=a1
        To: TO
        Call-ID: zeros
        CSeq: 0000000001 METHOD
        Content-Length: 0000",
    ),
    (
        "no Content-Length, a body",
        "METHOD URI SIP/2.0
        Via: SIP/2.0/UDP HERE;branch=z9hG4bK1
        Max-Forwards: 70
        From: <sip:alice@a.example>;tag=a1
        To: TO
        Call-ID: no-length
        CSeq: 1 METHOD
        Content-Type: application/sdp

        v=0",
    ),
    (
        "rows in an order of its own, Via last, several Vias in one row",
        "METHOD URI SIP/2.0
        Content-Length: 0
        CSeq: 1 METHOD
        Call-ID: order
        X-First: a
        To: TO
        From: <sip:alice@a.example>;tag=a1
        Max-Forwards: 70
        Via: SIP/2.0/UDP HERE;branch=z9hG4bK1,SIP/2.0/UDP 10.9.9.9;branch=z9hG4bK0 , SIP/2.0/TCP p.example;branch=z",
    ),
];

fn written(hand: &str, shape: &Shape, way: Way, method: &str, to_tag: &str) -> Vec<u8> {
    let (from, _, uri) = shape.caller(way);
    sip(&hand
        .replace("METHOD", method)
        .replace("URI", &uri)
        .replace("HERE", &from.to_string())
        .replace("TO:", "To:")
        .replace("TO", &format!("<sip:bob@b.example>{to_tag}")))
}

fn every(check: impl Fn(&mut Lab, &Shape, Way, &Hand)) {
    for shape in &SHAPES {
        for way in WAYS {
            for hand in HANDS {
                check(&mut shape.lab(), shape, way, hand);
            }
        }
    }
}

/// RFC 3261 §16.11: INVITE, retransmission, CANCEL and the ACK of a failure: one server, one branch;
/// each response goes back to where they came from; a client writes as it likes.
#[test]
fn a35_a_transaction_in_any_hand_is_one_transaction() {
    every(|lab, shape, way, (habit, hand)| {
        let what = format!("{habit}, {}, {way:?}", shape.name);
        let (from, to, _) = shape.caller(way);
        let send = |lab: &mut Lab, method: &str, to_tag: &str| {
            let bytes = written(hand, shape, way, method, to_tag);
            match lab.deliver(&bytes, from, to) {
                Outcome::Sent(sent) if !sent.bytes.starts_with(b"SIP/2.0") => sent,
                Outcome::Sent(sent) => panic!("{what}: {}\n{}", text(&sent.bytes), text(&bytes)),
                Outcome::Dropped(reason) => panic!("{what}: {}\n{}", reason.as_str(), text(&bytes)),
            }
        };
        let invite = send(lab, "INVITE", "");
        assert_eq!(
            vias(&invite.bytes).len(),
            vias(&written(hand, shape, way, "INVITE", "")).len() + 1
        );
        let back = lab.reply(answer(&invite, 180), &invite).sent();
        assert_eq!((back.to, back.from), (from, to), "{what}");
        lab.wait(Duration::from_millis(500));
        assert_eq!(send(lab, "INVITE", ""), invite, "{what}");
        let cancel = send(lab, "CANCEL", "");
        assert_eq!(cancel.to, invite.to, "{what}");
        assert_eq!(branch(&cancel.bytes), branch(&invite.bytes), "{what}");
        for (request, status) in [(&cancel, 200), (&invite, 487)] {
            let back = lab.reply(answer(request, status), request).sent();
            assert_eq!((back.to, back.from), (from, to), "{what}");
        }
        let ack = send(lab, "ACK", ";tag=b1");
        assert_eq!(ack.to, invite.to, "{what}");
        assert_eq!(branch(&ack.bytes), branch(&invite.bytes), "{what}");
        // Another worker, another node, after a restart.
        lab.restart();
        assert_eq!(send(lab, "INVITE", ""), invite, "{what}");
    });
}

/// A response with all the Vias of its request in one row, whatever the request's rows are named.
fn answer(to: &Sent, status: u16) -> Vec<u8> {
    let ours = format!(
        "SIP/2.0 {status} Reason\r\nVia: {}\r\n",
        vias(&to.bytes).join(", ")
    );
    let other = text(&to.bytes).replace("\r\n ", " ").replace("\r\n\t", " ");
    let kept: String = lines(other.as_bytes())
        .iter()
        .skip(1)
        .filter(|line| {
            let name = line.split(':').next().unwrap().trim().to_ascii_lowercase();
            ["from", "f", "to", "t", "call-id", "i", "cseq"].contains(&name.as_str())
        })
        .map(|line| format!("{line}\r\n"))
        .collect();
    format!("{ours}{kept}Content-Length: 0\r\n\r\n").into_bytes()
}

/// RFC 3261 §16.6 step 3, RFC 5393 §5.3.3: what a client of RFC 2543 does not send is added, once.
#[test]
fn a06_a_client_without_max_forwards_gets_one() {
    for shape in &SHAPES {
        for way in WAYS {
            let mut lab = shape.lab();
            let (from, to, _) = shape.caller(way);
            for method in ["INVITE", "CANCEL", "ACK", "BYE", "OPTIONS"] {
                let bytes = written(HANDS[0].1, shape, way, method, "");
                let sent = lab.deliver(&bytes, from, to).sent();
                assert_eq!(row(&sent.bytes, "Max-Forwards"), "70", "{method}");
            }
        }
    }
}

/// RFC 3581: a client that does not ask for `rport` gets its response at the port it names, from
/// whatever port it sends; one that does, at the port it sent from.
#[test]
fn a44_a_client_may_send_from_another_port_than_it_listens_on() {
    for shape in &SHAPES {
        for way in WAYS {
            let mut lab = shape.lab();
            let (mut from, to, uri) = shape.caller(way);
            let named = from;
            from.set_port(40_001);
            for (n, (rport, port)) in [("", 5060), (";rport", 40_001)].into_iter().enumerate() {
                let via = format!("Via: SIP/2.0/UDP {named}{rport};branch=z9hG4bK1");
                let bytes = crate::call::message("INVITE", &uri, &via, &format!("ports-{n}"), "");
                let sent = lab.deliver(&bytes, from, to).sent();
                let back = lab.reply(response(&sent, 200, "b1"), &sent).sent();
                assert_eq!((back.to.ip(), back.to.port()), (from.ip(), port));
                assert_eq!(back.from, to);
            }
        }
    }
}

/// A Contact says that its client is behind a NAT, in whatever form it is written.
#[test]
fn a13_a_contact_in_any_form_tells_of_the_nat() {
    let inside = "192.168.1.5:5060";
    for contact in [
        "Contact: <sip:alice@HERE>",
        "Contact: sip:alice@HERE",
        "Contact: sip:alice@HERE;expires=3600;q=0.5",
        "Contact:sip:HERE",
        "m: <sip:alice@HERE;transport=udp>",
        "CONTACT : \"Bell, \\\"A.\\\"\" <sip:alice@HERE;ob>;+sip.instance=\"<urn:uuid:0,1>\"",
        "Contact: Alice A <SIP:alice@HERE>",
        "Contact:\r\n \"A\"\r\n\t<sip:alice@HERE>\r\n ;expires=60",
        "Contact:\t<\tsip:alice@HERE\t>",
        "Contact: <sip:alice@HERE>, <sip:alice@203.0.113.9>",
        "Contact: <sip:alice@[::ffff:192.168.1.5]>",
    ] {
        for shape in SHAPES.iter().filter(|shape| shape.client == CLIENT) {
            let mut lab = shape.lab();
            let flow = "203.0.113.50:31337".parse().unwrap();
            let row = contact.replace("HERE", inside);
            let via = format!("Via: SIP/2.0/UDP {inside};rport;branch=z9hG4bK1");
            let bytes = crate::call::message("INVITE", "sip:bob@b.example", &via, "contact", "");
            let bytes = with_row(&bytes, "Content-Length", &row);
            let sent = lab.deliver(&bytes, flow, VIP.parse().unwrap()).sent();
            let back = lab.reply(response(&sent, 200, "b1"), &sent).sent();
            assert_eq!(back.to, flow, "{contact}");
            let call = crate::call::Call {
                id: "contact".to_owned(),
                caller: flow,
                caller_side: VIP.parse().unwrap(),
                callee: sent.to,
                callee_side: sent.from,
                record_route: rows(&back.bytes, "Record-Route"),
            };
            let end = crate::call::End::Callee;
            let routes: String = call
                .routes(end)
                .iter()
                .map(|value| format!("Route: {value}\r\n"))
                .collect();
            for uri in [
                format!("sip:alice@{inside}"),
                format!("sip:alice@{inside};ob;x=1"),
            ] {
                let bye = call.request(end, "BYE", &uri, &routes);
                call.reaches(&mut lab, end, &bye, contact);
            }
        }
    }
}
