//! The torture messages of RFC 4475 and RFC 5118, byte for byte, through the forwarder.
//!
//! The transport of a top `Via` that says TCP or TLS plays no role here: what came in a datagram is
//! answered in datagrams. Responses that test more than the `Via` get a valid one of ours on top.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "rfc3261_16/fixture.rs"]
mod fixture;

use fixture::*;
use viaduct::verdict::DropReason;

/// What a proxy does with a message.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// It goes to a server, changed only where a proxy may.
    Forward,
    /// It is answered with this status.
    Answer(u16),
    /// It is a response and reaches the client when our `Via` is on top.
    Return,
    /// It is a response and is dropped even with our `Via` on top.
    Drop(DropReason),
}

use Expected::{Answer, Drop, Forward, Return};

const RFC4475: [(&str, Expected); 49] = [
    ("wsinv", Forward),
    ("intmeth", Forward),
    ("esc01", Forward),
    ("escnull", Forward),
    ("esc02", Forward),
    ("lwsdisp", Forward),
    ("longreq", Forward),
    ("dblreq", Forward),
    ("semiuri", Forward),
    ("transports", Forward),
    ("mpart01", Forward),
    ("unreason", Return),
    // Absorbed by a stateful proxy only (RFC 3261 §16.7 step 5).
    ("noreason", Return),
    ("badinv01", Answer(400)),
    ("clerr", Answer(400)),
    ("ncl", Answer(400)),
    ("scalar02", Answer(400)),
    ("scalarlg", Drop(DropReason::MalformedResponse)),
    ("quotbal", Answer(400)),
    ("ltgtruri", Answer(400)),
    ("lwsruri", Answer(400)),
    ("lwsstart", Answer(400)),
    ("trws", Answer(400)),
    ("escruri", Answer(400)),
    ("baddate", Forward),
    ("regbadct", Forward),
    // The spaces are ignored.
    ("badaspec", Forward),
    ("baddn", Answer(400)),
    ("badvers", Answer(505)),
    ("mismatch01", Answer(400)),
    ("mismatch02", Answer(501)),
    ("bigcode", Drop(DropReason::MalformedResponse)),
    // Falls back to the transaction identifier of RFC 2543.
    ("badbranch", Forward),
    ("insuf", Answer(400)),
    ("unkscm", Answer(416)),
    ("novelsc", Answer(416)),
    ("unksm2", Forward),
    ("bext01", Answer(420)),
    ("invut", Forward),
    ("regaut01", Forward),
    ("multi01", Answer(400)),
    ("mcl01", Answer(400)),
    ("bcast", Drop(DropReason::ResponseNextViaForbidden)),
    ("zeromf", Answer(483)),
    ("cparam01", Forward),
    ("cparam02", Forward),
    ("regescrt", Forward),
    ("sdp01", Forward),
    ("inv2543", Forward),
];

const RFC5118: [(&str, Expected); 12] = [
    ("ipv6-good", Forward),
    ("ipv6-bad", Answer(400)),
    ("port-ambiguous", Forward),
    ("port-unambiguous", Forward),
    ("via-received-param-with-delim", Forward),
    ("via-received-param-no-delim", Forward),
    ("ipv6-in-sdp", Forward),
    ("mult-ip-in-header", Forward),
    ("mult-ip-in-sdp", Forward),
    ("ipv4-mapped-ipv6", Forward),
    ("ipv6-bug-abnf-3-colons", Forward),
    ("ipv6-correct-abnf-2-colons", Forward),
];

/// We are the proxy that the Routes of wsinv and mpart01 name.
fn config() -> String {
    ONE_ARMED
        .replace("sip.lab.example", "services.example.com")
        .replace("198.18.0.1:5070", "127.0.0.1:5080")
}

fn check(lab: &mut Lab, name: &str, bytes: &[u8], expected: Expected, client: &str) {
    match expected {
        Forward => {
            let sent = lab.send(bytes, client).sent();
            let servers = lab.plan.servers();
            assert!(
                servers.iter().any(|server| server.address == sent.to),
                "{name}: {}",
                sent.to
            );
            assert!(
                rows(&sent.bytes, "Via")[0].starts_with("SIP/2.0/UDP "),
                "{name}"
            );
            // A retransmission is the same in every byte.
            assert_eq!(lab.send(bytes, client).sent(), sent, "{name}");
        }
        Answer(status) => {
            let answer = lab.send(bytes, client).sent();
            let line = start_line(&answer.bytes);
            assert!(
                line.starts_with(&format!("SIP/2.0 {status} ")),
                "{name}: {line}"
            );
            assert_eq!(
                answer.to.ip().to_string(),
                client.rsplit_once(':').unwrap().0.trim_matches(['[', ']']),
                "{name}"
            );
            assert!(answer.bytes.len() <= bytes.len(), "{name}");
        }
        Return => {
            assert_eq!(
                lab.send(bytes, client).dropped(),
                DropReason::ResponseViaForeign,
                "{name}"
            );
            let (sent, ours) = with_own_via(lab, bytes);
            let back = lab.reply(&ours, &sent).sent();
            let own = format!("Via: {}\r\n", rows(&sent.bytes, "Via")[0]);
            let own_at = ours
                .windows(own.len())
                .position(|part| part == own.as_bytes())
                .unwrap();
            let expected = [&ours[..own_at], &ours[own_at + own.len()..]].concat();
            assert_eq!(back.bytes, expected, "{name}");
        }
        Drop(reason) => {
            lab.send(bytes, client).dropped();
            let bytes = if reason == DropReason::ResponseNextViaForbidden {
                // The proxy of the message is us: its own Via says so, the next one is broadcast.
                let (sent, ours) = with_own_via(lab, bytes);
                let next = rows(&sent.bytes, "Via").remove(1);
                let broadcast = replaced(&ours, &format!("Via: {next}\r\n"), "");
                let dropped = lab.reply(broadcast, &sent).dropped();
                assert_eq!(dropped, reason, "{name}");
                return;
            } else {
                bytes.to_vec()
            };
            assert_eq!(lab.send(bytes, SERVERS[0]).dropped(), reason, "{name}");
        }
    }
}

#[test]
fn r4475_every_torture_message_has_its_outcome() {
    let config = &config();
    for (name, expected) in RFC4475 {
        let mut lab = Lab::new(config);
        let mut bytes = data(&format!("rfc4475/{name}.dat"));
        if name == "baddn" && !bytes.ends_with(b"\r\n\r\n") {
            bytes.extend_from_slice(b"\r\n");
        }
        check(&mut lab, name, &bytes, expected, CLIENT);
    }
}

#[test]
fn r5118_every_ipv6_torture_message_has_its_outcome() {
    for (name, expected) in RFC5118 {
        let mut lab = Lab::new(&IPV6.replace("db8::10]", "db8::20]"));
        let bytes = data(&format!("rfc5118/{name}.dat"));
        check(&mut lab, name, &bytes, expected, "[2001:db8::9:1]:5060");
    }
}

/// RFC 4475 §3.3.5: exactly the tags of Proxy-Require.
#[test]
fn r4475_the_unsupported_header_lists_what_proxies_lack() {
    let mut lab = Lab::new(ONE_ARMED);
    let answer = lab.send(data("rfc4475/bext01.dat"), CLIENT).sent();
    assert_eq!(
        row(&answer.bytes, "Unsupported"),
        "noProxiesSupportThis, norDoAnyProxiesSupportThis"
    );
}

/// RFC 4475 §3.4.1: no branch, no From tag, no Max-Forwards, no Content-Length.
#[test]
fn r4475_an_rfc_2543_invite_gets_what_it_lacks() {
    let mut lab = Lab::new(ONE_ARMED);
    let received = data("rfc4475/inv2543.dat");
    let sent = lab.send(&received, CLIENT).sent();
    assert_eq!(row(&sent.bytes, "Max-Forwards"), "70");
    assert!(rows(&sent.bytes, "Content-Length").is_empty());
    let body = text(&received).split_once("\r\n\r\n").unwrap().1.to_owned();
    assert!(text(&sent.bytes).ends_with(&body));
    let ack = replaced(
        &replaced(&received, "INVITE sip", "ACK sip"),
        "INVITE\r\n",
        "ACK\r\n",
    );
    let ack = lab.send(ack, CLIENT).sent();
    assert_eq!((branch(&ack.bytes), ack.to), (branch(&sent.bytes), sent.to));
}

/// RFC 4475 §3.1.1.11: 553 bytes of body with NUL and bare CR.
#[test]
fn r4475_a_binary_multipart_body_is_bit_exact() {
    let mut lab = Lab::new(&config());
    let received = data("rfc4475/mpart01.dat");
    let sent = lab.send(&received, CLIENT).sent();
    assert!(sent.bytes.ends_with(&received[received.len() - 553..]));
}

/// RFC 4475 §3.3.7, §3.3.12 to §3.3.14: a registrar's affairs pass untouched.
#[test]
fn r4475_registrations_pass_untouched() {
    let mut lab = Lab::new(ONE_ARMED);
    for name in ["regaut01", "cparam01", "cparam02", "regescrt", "regbadct"] {
        let received = data(&format!("rfc4475/{name}.dat"));
        let sent = lab.send(&received, CLIENT).sent();
        for header in ["Contact", "Authorization"] {
            assert_eq!(rows(&sent.bytes, header), rows(&received, header), "{name}");
        }
    }
}

/// RFC 5118 §4.5: `received` is read with brackets and without, and written without.
#[test]
fn r5118_received_is_written_without_brackets() {
    let mut lab = Lab::new(&IPV6.replace("db8::10]", "db8::20]"));
    for name in [
        "via-received-param-with-delim",
        "via-received-param-no-delim",
    ] {
        let sent = lab
            .send(
                data(&format!("rfc5118/{name}.dat")),
                "[2001:db8::9:255]:5060",
            )
            .sent();
        let via = rows(&sent.bytes, "Via").remove(1);
        assert!(via.contains(";received=2001:db8::9:255;"), "{name}: {via}");
    }
}

/// RFC 5118 §4.3, §4.4: an address that swallows its port is another address.
#[test]
fn r5118_a_port_outside_the_brackets_is_a_port() {
    // Asked as OPTIONS, which we answer if the Request-URI is ours.
    let mut lab = Lab::new(&IPV6.replace("[2001:db8::10]:5060", "[2001:db8::10]:5070"));
    for (name, ours) in [("port-ambiguous", false), ("port-unambiguous", true)] {
        let bytes = text(&data(&format!("rfc5118/{name}.dat")));
        let method = bytes.split(' ').next().unwrap().to_owned();
        let options = replaced(bytes.as_bytes(), &method, "OPTIONS");
        let sent = lab.send(options, "[2001:db8::9:1]:5060").sent();
        let answered = start_line(&sent.bytes) == "SIP/2.0 200 OK";
        assert_eq!(answered, ours, "{name}");
    }
}
