//! ICMP errors, RFC 3261 §18.4: what is quoted is ours only if it bears our MAC.

use std::net::SocketAddr;

use viaduct::affinity::Mode;
use viaduct::net::Flow;
use viaduct::verdict::DropReason;

use crate::fixture::*;

/// Bytes of a message that Linux quotes over IPv4: 576 − 2 · 20 − 2 · 8.
const QUOTE: usize = 520;

fn flow(lab: &Lab, sent: &Sent) -> Flow {
    let listeners = lab.plan.listeners();
    let listener = listeners.iter().find(|one| one.address == sent.from);
    Flow {
        listener: listener.unwrap().index,
        local: sent.from,
        peer: sent.to,
    }
}

fn unreachable(lab: &mut Lab, sent: &Sent, quoted: &[u8]) -> DropReason {
    let flow = flow(lab, sent);
    lab.forwarders[0].on_unreachable(&lab.plan, quoted, &flow)
}

/// Unreachable requests counted for the server at `address`.
fn counted(lab: &Lab, address: SocketAddr) -> u64 {
    let server = lab.plan.server_at(address).unwrap();
    lab.metrics[0].server(server.index).unreachable.value()
}

#[test]
fn a46_an_icmp_error_for_a_request_is_counted_for_its_server() {
    for config in [ONE_ARMED, TWO_ARMED, FAMILIES, IPV6] {
        let mut lab = Lab::new(config);
        let client = if lab.plan.listeners()[0].address.is_ipv6() {
            "[2001:db8::7]:5060"
        } else {
            CLIENT
        };
        let sent = lab.send(invite("u-1", "z9hG4bK1"), client).sent();
        let cut = &sent.bytes[..QUOTE.min(sent.bytes.len())];
        let flow = flow(&lab, &sent);
        let undelivered = lab.forwarders[0]
            .undelivered(&lab.plan, cut, &flow)
            .unwrap();
        assert_eq!(undelivered.branch.mode(), Mode::Stateless);
        let server = lab.plan.server_at(sent.to).unwrap();
        assert_eq!(undelivered.server, Some(server.index));
        assert_eq!(unreachable(&mut lab, &sent, cut), DropReason::Unreachable);
        assert_eq!(counted(&lab, sent.to), 1);
    }
}

/// A quote may end anywhere. Once our `Via` and the next one are whole it is known; the Call-ID
/// comes later.
#[test]
fn a46_a_quote_cut_anywhere_is_known_from_the_vias_on() {
    let mut lab = Lab::new(ONE_ARMED);
    let sent = lab.send(invite("u-2", "z9hG4bK1"), CLIENT).sent();
    let flow = flow(&lab, &sent);
    let text = text(&sent.bytes);
    let row_end = |name: &str| {
        let at = text.rfind(name).unwrap();
        at + text[at..].find("\r\n").unwrap() + 2
    };
    let (vias, call_id) = (row_end("Via:"), row_end("Call-ID:"));
    for len in 0..=sent.bytes.len() {
        let quoted = &sent.bytes[..len];
        let result = lab.forwarders[0].undelivered(&lab.plan, quoted, &flow);
        match result {
            Ok(undelivered) => {
                assert!(len >= vias, "{len}");
                assert_eq!(undelivered.call_id.is_some(), len >= call_id, "{len}");
            }
            Err(reason) => {
                assert!(len < vias, "{len}");
                assert_eq!(reason, DropReason::UnreachableCut, "{len}");
            }
        }
    }
}

/// Anybody can send an ICMP error; only who has seen a request of ours can quote one, and then it
/// speaks of the server that got it.
#[test]
fn a46_forged_icmp_counts_for_nobody() {
    let mut lab = Lab::new(ONE_ARMED);
    let sent = lab.send(invite("u-3", "z9hG4bK1"), CLIENT).sent();
    let forged = DropReason::UnreachableForged;
    let mac = via_parameter(&sent.bytes, "v");
    let other = if mac.ends_with('a') { "b" } else { "a" };
    let wrong = format!("{}{other}", &mac[..mac.len() - 1]);
    let branch = via_parameter(&sent.bytes, "branch");
    let changes = [
        (format!(";v={mac}"), format!(";v={wrong}")),
        (format!(";v={mac}"), String::new()),
        (branch, "z9hG4bKnothing".to_owned()),
        (
            "198.18.200.7:5060;branch".to_owned(),
            "198.18.200.8:5060;branch".to_owned(),
        ),
        (
            "UDP 198.18.0.1:5060".to_owned(),
            "UDP 198.18.0.99:5060".to_owned(),
        ),
    ];
    for (from, to) in changes {
        let quoted = replaced(&sent.bytes, &from, &to);
        assert_eq!(unreachable(&mut lab, &sent, &quoted), forged, "{from}");
    }
    // The quote is right, the address it is said to have gone to is another server's.
    let elsewhere = SERVERS
        .iter()
        .map(|server| server.parse().unwrap())
        .find(|server: &SocketAddr| *server != sent.to);
    let moved = Sent {
        to: elsewhere.unwrap(),
        ..sent.clone()
    };
    assert_eq!(unreachable(&mut lab, &moved, &sent.bytes), forged);
    // What a client sends us is no datagram of ours.
    let own = invite("u-3", "z9hG4bK1");
    assert_eq!(unreachable(&mut lab, &sent, &own), forged);
    for server in SERVERS {
        assert_eq!(counted(&lab, server.parse().unwrap()), 0);
    }
}

/// RFC 3261 §16.9: nothing follows from a response that could not be forwarded.
#[test]
fn a29_a_response_that_did_not_arrive_is_dropped() {
    let mut lab = Lab::new(ONE_ARMED);
    let sent = lab.send(invite("u-4", "z9hG4bK1"), CLIENT).sent();
    let ringing = response(&sent, 180, "b1");
    let back = lab.reply(ringing, &sent).sent();
    assert_eq!(
        unreachable(&mut lab, &back, &back.bytes),
        DropReason::Unreachable
    );
    assert_eq!(counted(&lab, sent.to), 0);
    for nothing in [
        &b""[..],
        b"\r\n\r\n",
        b"\0\x01\0\0!\x12\xa4B",
        b"INVITE sip:x",
    ] {
        assert_eq!(
            unreachable(&mut lab, &sent, nothing),
            DropReason::UnreachableCut
        );
    }
}
