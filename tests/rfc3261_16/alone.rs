//! What a proxy does only where it keeps no transaction: every response as it comes, by what its
//! `Via` says; CANCEL and ACK like any request; on any worker, any node.

use viaduct::verdict::DropReason;

use crate::fixture::*;

fn ringing(lab: &mut Lab, call_id: &str) -> (Sent, Vec<u8>) {
    let sent = lab.send(invite(call_id, "z9hG4bK1"), CLIENT).sent();
    let ringing = response(&sent, 180, "b1");
    (sent, ringing)
}

/// RFC 3261 §16.7 step 5, §16.11: every response, the 100 included: nobody else makes one.
#[test]
fn a23_every_response_is_forwarded_at_once() {
    let mut lab = Lab::new(ONE_ARMED);
    let (sent, _) = ringing(&mut lab, "p-2");
    for status in [
        100, 180, 183, 183, 199, 200, 200, 302, 408, 486, 503, 603, 607, 699,
    ] {
        let bytes = response(&sent, status, "b1");
        let back = lab.reply(&bytes, &sent).sent();
        assert_eq!(start_line(&back.bytes), format!("SIP/2.0 {status} Reason"));
        assert_eq!(back.to, CLIENT.parse().unwrap());
    }
    let classes: Vec<u64> = lab.metrics[0]
        .responses
        .iter()
        .map(|of| of.value())
        .collect();
    assert_eq!(classes, [5, 2, 1, 2, 1, 3]);
}

/// RFC 4475 §3.3.10, and our hardening: never to nobody, everybody or ourselves.
#[test]
fn a36_responses_go_to_no_forbidden_address() {
    let mut lab = Lab::new(ONE_ARMED);
    let (sent, ringing) = ringing(&mut lab, "p-4");
    for (next, reason) in [
        ("255.255.255.255", DropReason::ResponseNextViaForbidden),
        ("224.0.1.75", DropReason::ResponseNextViaForbidden),
        ("0.0.0.0", DropReason::ResponseNextViaForbidden),
        ("[ff02::1]", DropReason::ResponseNextViaForbidden),
        ("198.18.0.1", DropReason::ResponseNextViaForbidden),
        ("198.18.0.1:5070", DropReason::ResponseNextViaForbidden),
        (
            "c.example;received=224.0.1.75",
            DropReason::ResponseNextViaForbidden,
        ),
        ("c.example", DropReason::ResponseNextViaUnresolved),
        (
            "c.example;received=nonsense",
            DropReason::ResponseNextViaUnresolved,
        ),
        ("198.18.200.8", DropReason::ResponseMac),
    ] {
        let bytes = replaced(&ringing, "198.18.200.7:5060;branch=z9hG4bK1", next);
        assert_eq!(lab.reply(bytes, &sent).dropped(), reason, "{next}");
    }
}

/// RFC 3581 §4: from the address and port the request came to, on any worker, any node.
#[test]
fn r3581_responses_leave_from_where_their_request_came_to() {
    for config in [ONE_ARMED.to_owned(), TWO_ARMED.to_owned()] {
        let mut lab = Lab::with_workers(&config, 3);
        let listeners: Vec<String> = lab
            .plan
            .listeners()
            .iter()
            .map(|of| of.address.to_string())
            .collect();
        let ours = if config == ONE_ARMED {
            &listeners[..]
        } else {
            &listeners[..1]
        };
        for listener in ours {
            let sent = lab
                .send_to(invite("via-2", "z9hG4bK1"), CLIENT, listener)
                .sent();
            let ok = response(&sent, 200, "b1");
            lab.restart();
            for worker in 0..3 {
                for read_at in &listeners {
                    let back = lab
                        .deliver_at(worker, &ok, sent.to, read_at.parse().unwrap())
                        .sent();
                    assert_eq!(back.from.to_string(), *listener, "read at {read_at}");
                    assert_eq!(back.to, CLIENT.parse().unwrap());
                }
            }
        }
    }
}

/// RFC 6026 §10: whoever answers cannot point the response elsewhere.
#[test]
fn a56_the_next_hop_is_the_one_the_request_came_from() {
    let mut lab = Lab::new(ONE_ARMED);
    let (sent, ringing) = ringing(&mut lab, "p-6");
    // A pool server that points it elsewhere.
    let elsewhere = [
        ("198.18.200.7:5060;branch", "203.0.113.66:5060;branch"),
        ("198.18.200.7:5060;branch", "198.18.200.7:5061;branch"),
        (
            "198.18.200.7:5060;branch",
            "198.18.200.7:5060;received=203.0.113.66;branch",
        ),
        (
            "198.18.200.7:5060;branch",
            "198.18.200.7;received=198.18.200.7;rport=99;branch",
        ),
    ];
    for (from, to) in elsewhere {
        let bytes = replaced(&ringing, from, to);
        assert_eq!(
            lab.reply(bytes, &sent).dropped(),
            DropReason::ResponseMac,
            "{to}"
        );
    }
    let bytes = request("INVITE", "sip:carol@203.0.113.9:5080", "p-9", "z9hG4bK1", 1);
    let bytes = replaced(&bytes, "198.18.200.7", "198.18.1.12");
    let sent = lab.send(&bytes, SERVERS[1]).sent();
    let ringing = response(&sent, 180, "c1");
    let altered = replaced(
        &ringing,
        "UDP 198.18.1.12:5060;branch=z9hG4bK1",
        "UDP 198.18.1.13:5060;branch=z9hG4bK1",
    );
    assert_eq!(
        lab.send(altered, "203.0.113.9:5080").dropped(),
        DropReason::ResponseMac
    );
}

/// RFC 3261 §16.11: CANCEL and non-2xx ACK get the identical edit.
#[test]
fn a16_cancel_and_ack_are_edited_like_their_invite() {
    for mode in ["destination", "route", "request-uri"] {
        let mut lab = Lab::new(&ONE_ARMED.replace(
            "name = \"farm\"",
            &format!("name = \"farm\"\nreach = \"{mode}\""),
        ));
        let uri = "sip:bob@sip.lab.example";
        let seen: Vec<_> = ["INVITE", "CANCEL", "ACK"]
            .iter()
            .map(|method| {
                let sent = lab
                    .send(request(method, uri, "r-16", "z9hG4bK1", 1), CLIENT)
                    .sent();
                let line = start_line(&sent.bytes);
                let uri = line.split(' ').nth(1).unwrap().to_owned();
                (
                    sent.to,
                    uri,
                    rows(&sent.bytes, "Route"),
                    branch(&sent.bytes),
                )
            })
            .collect();
        assert_eq!(seen[0], seen[1], "{mode}");
        assert_eq!(seen[0], seen[2], "{mode}");
    }
}
