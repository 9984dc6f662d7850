//! What is read, and what leaves as it came: RFC 3261 §7, §16.3 step 1, §18.3.

use viaduct::verdict::DropReason;

use crate::fixture::*;

/// RFC 3261 §7.3: every spelling is one message. RFC 4475 §3.1.1.1, at the proxy its Route names.
#[test]
fn a01_the_tortuous_invite_is_forwarded_and_nothing_else_changes() {
    let mut lab = Lab::new(&ONE_ARMED.replace("sip.lab.example", "services.example.com"));
    let received = text(&data("rfc4475/wsinv.dat"));
    let sent = lab.send(&received, "192.0.2.2:5060").sent();
    let bytes = text(&sent.bytes);
    let own = rows(&sent.bytes, "Via").remove(0);
    let without: String = bytes
        .replacen(&format!("Via: {own}\r\n"), "", 1)
        .split_inclusive("\r\n")
        .filter(|line| !line.starts_with("Record-Route: <sip:v0") && *line != "Max-Breadth: 60\r\n")
        .collect();
    let route = "Route:\r\n <sip:services.example.com;lr;unknownwith=value;unknown-no-value>\r\n";
    assert!(received.contains(route) && received.contains("MaX-fOrWaRdS: 0068\r\n"));
    let expected = received
        .replace(route, "")
        .replace(": 0068\r\n", ": 67\r\n");
    assert_eq!(without, expected);
}

#[test]
fn a01_compact_names_and_any_case_are_read() {
    let mut lab = Lab::new(ONE_ARMED);
    let plain = lab.send(invite("c-1", "z9hG4bK1"), CLIENT).sent();
    let spelled = sip("INVITE sip:bob@sip.lab.example SIP/2.0
        v  :  SIP / 2.0 / UDP
        | 198.18.200.7 : 5060
        | ; branch = z9hG4bK1
        mAX-fORWARDS :70
        f: Alice <sip:alice@client.example>;TAG=a1
        t:Bob <sip:bob@sip.lab.example>
        i: c-1
        CSEQ: 0001
        |\tINVITE
        m: <sip:alice@198.18.200.7:5060>
        l: 0");
    let sent = lab.send(&spelled, CLIENT).sent();
    assert_eq!(sent.to, plain.to);
    assert_eq!(branch(&sent.bytes), branch(&plain.bytes));
    assert!(text(&sent.bytes).contains("mAX-fORWARDS :69\r\n"));
}

/// RFC 3261 §7.3.1, §16.6 step 1: rows, their order and unknown headers stay.
#[test]
fn a02_requests_leave_byte_equal_but_for_the_permitted_edits() {
    let mut lab = Lab::new(ONE_ARMED);
    let received = sip(
        "INVITE sip:bob@sip.lab.example SIP/2.0
        X-First: 1
        Via: SIP/2.0/UDP 198.18.200.7:5060;branch=z9hG4bK1
        Via: SIP/2.0/TCP 203.0.113.1;branch=z9hG4bKz;x;y=\"a,b;c\";z=1, SIP/2.0/UDP h.example;branch=q
        Record-Route: <sip:p1.example;lr>, <sip:p2.example;lr>
        Authorization: Digest username=\"a\", realm=\"x\"
        Max-Forwards: 70
        X-Mixed: one , two
        Authorization: Digest username=\"b\", realm=\"y\"
        Record-Route: <sip:p3.example;lr>
        From: Alice <sip:alice@client.example>;tag=a1
        Date: not a date at all
        To: Bob <sip:bob@sip.lab.example>
        Call-ID: c-2
        CSeq: 1 INVITE
        Contact: <sip:alice@198.18.200.7:5060>
        x-mixed: three
        Content-Type: application/sdp
        Content-Length: 4

        v=0",
    );
    let received = [&received[..received.len() - 2], b"\r\n"].concat();
    let received = replaced(&received, "Content-Length: 4", "Content-Length: 5");
    let sent = lab.send(&received, CLIENT).sent();
    assert_eq!(text(&undone(&sent.bytes, &received)), text(&received));
    // Ours are on top of their lists.
    assert!(rows(&sent.bytes, "Record-Route")[0].starts_with("<sip:v0"));
    assert!(branch(&sent.bytes).starts_with(&format!("z9hG4bK{MARK}")));
}

/// RFC 3261 §16.11, §16.7 step 9: a response loses our Via and nothing else.
#[test]
fn a02_responses_leave_byte_equal_but_for_our_via() {
    let mut lab = Lab::new(ONE_ARMED);
    let sent = lab.send(invite("c-3", "z9hG4bK1"), CLIENT).sent();
    let own = rows(&sent.bytes, "Via").remove(0);
    let rest = "From: Alice <sip:alice@client.example>;tag=a1\r\n\
         Record-Route: <sip:x.example;lr>,\r\n <sip:y.example;lr>\r\n\
         X-Unknown: 1\r\n\
         WWW-Authenticate: Digest realm=\"a\"\r\n\
         record-route: <sip:z.example;lr>\r\n\
         WWW-Authenticate: Digest realm=\"b\"\r\n\
         To: Bob <sip:bob@sip.lab.example>;tag=b1\r\n\
         Call-ID: c-3\r\nCSeq: 1 INVITE\r\n\
         P-Odd:\r\nRecord-Route: <sip:w.example;lr>\r\nContent-Length: 3\r\n\r\nabc"
        .to_string();
    let next = "SIP/2.0/UDP 198.18.200.7:5060;branch=z9hG4bK1";
    let forms = [
        (
            format!("Via: {own}\r\nVia: {next}\r\n"),
            format!("Via: {next}\r\n"),
        ),
        (format!("v: {own} , {next}\r\n"), format!("v: {next}\r\n")),
        (
            format!("Via: {own},\r\n\t{next}\r\n"),
            format!("Via: {next}\r\n"),
        ),
        (
            format!("Via: {own},{next}, SIP/2.0/UDP h\r\nVia: SIP/2.0/UDP g\r\n"),
            format!("Via: {next}, SIP/2.0/UDP h\r\nVia: SIP/2.0/UDP g\r\n"),
        ),
    ];
    for (vias, left) in forms {
        let answer = format!("SIP/2.0 200 OK\r\n{vias}{rest}");
        let back = lab.reply(&answer, &sent).sent();
        assert_eq!(text(&back.bytes), format!("SIP/2.0 200 OK\r\n{left}{rest}"));
    }
}

/// RFC 3261 §16.6 step 1: bodies are opaque, whatever they look like.
#[test]
fn a02_a_binary_body_is_untouched() {
    let mut lab = Lab::new(ONE_ARMED);
    let body: Vec<u8> = b"INVITE sip:\r\n\r\nVia: x\r\n"
        .iter()
        .copied()
        .chain(0..=255)
        .collect();
    let head = replaced(
        &invite("c-4", "z9hG4bK1"),
        "Length: 0",
        &format!("Length: {}", body.len()),
    );
    let received = [head, body.clone()].concat();
    let sent = lab.send(&received, CLIENT).sent();
    assert!(sent.bytes.ends_with(&body));
    assert_eq!(sent.bytes.len() - body.len(), {
        let end = sent
            .bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap();
        end + 4
    });
}

/// RFC 3261 §7.5 and practice: what keeps a NAT open is no message.
#[test]
fn a03_keepalives_and_other_protocols_are_dropped_without_an_answer() {
    let mut lab = Lab::new(ONE_ARMED);
    let cases: [(&[u8], DropReason); 9] = [
        (b"", DropReason::Keepalive),
        (b"\r\n", DropReason::Keepalive),
        (b"\r\n\r\n", DropReason::Keepalive),
        (b"\0", DropReason::Keepalive),
        (b"\0\0\0\0", DropReason::Keepalive),
        (b"\0\x01\0\0\x21\x12\xa4\x42abcdefghijkl", DropReason::Stun),
        (b"\xf8abcdef", DropReason::SigComp),
        (b"hello there\r\n\r\n", DropReason::NotSip),
        (b"GET / HTTP/1.1\r\n\r\n", DropReason::NotSip),
    ];
    for (bytes, reason) in cases {
        assert_eq!(lab.send(bytes, CLIENT).dropped(), reason, "{}", text(bytes));
    }
}

/// RFC 5626 §8: STUN on the SIP port, where it is asked for; over UDP a CRLF CRLF gets no pong.
#[test]
fn r5626_stun_is_answered_where_the_listener_says_so() {
    let config = ONE_ARMED.replacen("name = \"clients\"", "name = \"clients\"\nstun = true", 1);
    let mut lab = Lab::new(&config);
    let request = b"\0\x01\0\0\x21\x12\xa4\x42abcdefghijkl";
    let answer = lab.send(request, CLIENT).sent();
    // 198.18.200.7:5060, each byte with the cookie's.
    let expected =
        b"\x01\x01\0\x0c\x21\x12\xa4\x42abcdefghijkl\0\x20\0\x08\0\x01\x32\xd6\xe7\0\x6c\x45";
    assert_eq!(answer.bytes, expected);
    assert_eq!(answer.to, CLIENT.parse().unwrap());
    assert_eq!(answer.from, VIP.parse().unwrap());
    assert_eq!(lab.metrics[0].stun_answers.value(), 1);
    let cases: [(&[u8], DropReason); 3] = [
        // An answer is not answered: two balancers do not talk for ever.
        (&answer.bytes, DropReason::Stun),
        (b"\0\x11\0\0\x21\x12\xa4\x42abcdefghijkl", DropReason::Stun),
        (b"\r\n\r\n", DropReason::Keepalive),
    ];
    for (bytes, reason) in cases {
        assert_eq!(lab.send(bytes, CLIENT).dropped(), reason);
    }
    let second = lab.send_to(request, CLIENT, "198.18.0.1:5070");
    assert_eq!(second.dropped(), DropReason::Stun, "its listener has none");
    assert_eq!(lab.metrics[0].stun_answers.value(), 1);
}

/// STUN and SIP answers come out of one budget a source; those who are trusted have no limit.
#[test]
fn r5626_stun_answers_count_against_their_source() {
    let config = ONE_ARMED.replacen("name = \"clients\"", "name = \"clients\"\nstun = true", 1);
    let mut lab = Lab::new(&format!("{config}\n[sip]\nanswers_per_source = 10\n"));
    let request = b"\0\x01\0\0\x21\x12\xa4\x42abcdefghijkl";
    let mut limited = 0;
    for _ in 0..25 {
        match lab.send(request, CLIENT) {
            Outcome::Sent(_) => {}
            Outcome::Dropped(reason) => {
                assert_eq!(reason, DropReason::AnswerLimitedSource);
                limited += 1;
            }
        }
    }
    assert_eq!(limited, 15);
    for _ in 0..25 {
        lab.send(request, "198.18.100.9:5060").sent();
    }
}

#[test]
fn a03_blank_lines_before_the_start_line_are_ignored() {
    let mut lab = Lab::new(ONE_ARMED);
    let plain = lab.send(invite("c-5", "z9hG4bK1"), CLIENT).sent();
    let led = [b"\r\n\r\n".to_vec(), invite("c-5", "z9hG4bK1")].concat();
    assert_eq!(lab.send(led, CLIENT).sent(), plain);
}

/// RFC 3261 §16.3 step 1: methods and headers nobody knows, and what we do not use, pass.
#[test]
fn a04_only_what_is_used_must_be_well_formed() {
    let mut lab = Lab::new(ONE_ARMED);
    let odd = request("NEWMETHOD", "sip:bob@sip.lab.example", "c-6", "z9hG4bK1", 1);
    let odd = with_row(&odd, "Contact", "Date: yesterday, or so\r\nX-New: <<<\"");
    let odd = replaced(
        &odd,
        "Contact: <sip:alice@198.18.200.7:5060>",
        "Contact: \"\"\"::bad",
    );
    let sent = lab.send(&odd, CLIENT).sent();
    assert_eq!(text(&undone(&sent.bytes, &odd)), text(&odd));
    assert!(SERVERS.contains(&sent.to.to_string().as_str()));
}

#[test]
fn a04_malformed_requests_get_400_505_or_501() {
    let mut lab = Lab::new(ONE_ARMED);
    let good = invite("c-7", "z9hG4bK1");
    let cases = [
        ("SIP/2.0\r\nVia", "SIP/7.0\r\nVia", "505"),
        ("CSeq: 1 INVITE", "CSeq: 1 BYE", "400"),
        ("CSeq: 1 INVITE", "CSeq: INVITE", "400"),
        ("CSeq: 1 INVITE", "CSeq: 36893488147419103232 INVITE", "400"),
        ("Call-ID: c-7\r\n", "", "400"),
        (
            "From: Alice <sip:alice@client.example>;tag=a1\r\n",
            "",
            "400",
        ),
        (
            "CSeq: 1 INVITE\r\n",
            "CSeq: 1 INVITE\r\nCSeq: 2 INVITE\r\n",
            "400",
        ),
        ("Content-Length: 0", "Content-Length: 9", "400"),
        ("Content-Length: 0", "Content-Length: -1", "400"),
        ("INVITE sip:bob", "INVITE  sip:bob", "400"),
        (
            "sip:bob@sip.lab.example SIP",
            "<sip:bob@sip.lab.example> SIP",
            "400",
        ),
    ];
    for (from, to, status) in cases {
        let bad = replaced(&good, from, to);
        let answer = lab.send(&bad, CLIENT).sent();
        assert_eq!(
            start_line(&answer.bytes).split(' ').nth(1),
            Some(status),
            "{to}"
        );
        assert_eq!(answer.to, CLIENT.parse().unwrap());
    }
    // RFC 4475 §3.1.2.18.
    let unknown = request("NEWMETHOD", "sip:bob@sip.lab.example", "c-8", "z9hG4bK1", 1);
    let unknown = replaced(&unknown, "1 NEWMETHOD", "1 INVITE");
    assert!(start_line(&lab.send(unknown, CLIENT).sent().bytes).contains(" 501 "));
}

#[test]
fn a04_malformed_acks_and_responses_are_never_answered() {
    let mut lab = Lab::new(ONE_ARMED);
    let ack = request("ACK", "sip:bob@sip.lab.example", "c-9", "z9hG4bK1", 1);
    let ack = replaced(&ack, "1 ACK", "1 BYE");
    assert_eq!(lab.send(ack, CLIENT).dropped(), DropReason::Malformed);
    let response = sip("SIP/2.0 200 OK
        Via: SIP/2.0/UDP 198.18.0.1:5060;branch=z9hG4bKs0
        From: <sip:a@x>;tag=1
        Call-ID: c-9
        CSeq: x INVITE");
    assert_eq!(
        lab.send(response, SERVERS[0]).dropped(),
        DropReason::MalformedResponse
    );
}

/// RFC 3261 §16.3 step 2.
#[test]
fn a05_unknown_schemes_get_416_and_known_ones_go_to_the_farm() {
    let mut lab = Lab::new(ONE_ARMED);
    for uri in [
        "tel:+12015550123;phone-context=example.com",
        "urn:service:sos",
        "im:bob@example.com",
        "pres:bob@example.com",
        "sip:bob@elsewhere.example",
        "SIP:bob@203.0.113.5",
    ] {
        let sent = lab
            .send(request("INVITE", uri, "c-10", "z9hG4bK1", 1), CLIENT)
            .sent();
        assert!(SERVERS.contains(&sent.to.to_string().as_str()), "{uri}");
        assert_eq!(start_line(&sent.bytes), format!("INVITE {uri} SIP/2.0"));
    }
    // RFC 5630 §5.3: sips never came in clear and never leaves so.
    for uri in [
        "nobodyKnowsThisScheme:x",
        "soap.beep://192.0.2.103:3002",
        "sips:bob@x.example",
    ] {
        let answer = lab
            .send(request("INVITE", uri, "c-11", "z9hG4bK1", 1), CLIENT)
            .sent();
        assert!(
            start_line(&answer.bytes).starts_with("SIP/2.0 416 "),
            "{uri}"
        );
    }
}

/// RFC 3261 §18.3: bytes behind the body are cut; a short body is an error.
#[test]
fn a45_datagrams_end_at_content_length() {
    let mut lab = Lab::new(ONE_ARMED);
    let received = data("rfc4475/dblreq.dat");
    let sent = lab.send(&received, "192.0.2.125:5060").sent();
    assert!(!text(&sent.bytes).contains("INVITE"));
    assert!(sent.bytes.ends_with(b"\r\n\r\n"));

    let short = replaced(&invite("c-12", "z9hG4bK1"), "Length: 0", "Length: 1");
    assert!(start_line(&lab.send(&short, CLIENT).sent().bytes).contains(" 400 "));
    let no_length = replaced(&invite("c-13", "z9hG4bK1"), "Content-Length: 0\r\n", "");
    let with_body = [no_length, b"abc".to_vec()].concat();
    assert!(
        lab.send(&with_body, CLIENT)
            .sent()
            .bytes
            .ends_with(b"\r\n\r\nabc")
    );

    let sent = lab.send(invite("c-14", "z9hG4bK1"), CLIENT).sent();
    let ok = response(&sent, 200, "b1");
    let long = [ok.clone(), b"SIP/2.0 200 OK\r\n".to_vec()].concat();
    let plain = lab.reply(&ok, &sent).sent();
    assert_eq!(lab.reply(&long, &sent).sent(), plain);
    let short = replaced(&ok, "Content-Length: 0", "Content-Length: 1");
    assert_eq!(
        lab.reply(&short, &sent).dropped(),
        DropReason::MalformedResponse
    );
}
