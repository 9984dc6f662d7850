//! Bodies of every kind: a proxy is 8-bit safe and looks at none (RFC 5621 §3.2).

use crate::exchange::*;
use crate::fixture::*;

/// SDP beside 300 bytes of ISUP that hold NUL, 0xFF, an empty line and a request line.
#[test]
fn r3204_isup_and_qsig_bodies_are_bit_exact() {
    let isup = binary(300);
    let body = multipart(
        "unique-boundary-1",
        &[
            (&["Content-Type: application/SDP; charset=ISO-10646"], SDP),
            (
                &[
                    "Content-Type: application/ISUP;version=nxv3; base=etsi121",
                    "Content-Disposition: signal;handling=optional",
                ],
                &isup,
            ),
            (
                &["Content-Type: application/QSIG; version=iso"],
                &binary(64),
            ),
        ],
    );
    assert!(
        contains(&body, b"\x00") && contains(&body, b"\xff") && contains(&body, b"INVITE sip:")
    );
    exchange("INVITE")
        .row("MIME-Version: 1.0")
        .body("multipart/mixed; boundary=unique-boundary-1", &body)
        .answer_with(
            "183 Session Progress",
            &["Content-Type: application/ISUP;version=nxv3"],
            &isup,
        )
        .answer_with("200 OK", &["Content-Type: application/qsig"], &binary(500))
        .check();
}

#[test]
fn r3420_sipfrag_bodies_are_not_read() {
    let frag = b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKfrag\r\n\
        Record-Route: <sip:frag.example>\r\nMax-Forwards: 1\r\nContent-Length: 0\r\n\r\n";
    exchange("NOTIFY")
        .in_dialog()
        .rows(&["Event: refer", "Subscription-State: active;expires=60"])
        .body("message/sipfrag;version=2.0", frag)
        .answer_with("200 OK", &["Content-Type: message/sipfrag"], frag)
        .check();
}

#[test]
fn r3459_handling_parameters_stay() {
    let part: (&[&str], &[u8]) = (
        &[
            "Content-Type: text/plain",
            "Content-Disposition: session;handling=optional",
        ],
        b"hello",
    );
    let body = multipart("b1", &[part, part]);
    exchange("INVITE")
        .row("Content-Disposition: session ; handling=required")
        .body("multipart/mixed;boundary=\"b1\"", &body)
        .answer(
            "415 Unsupported Media Type",
            &["Accept: application/sdp, multipart/mixed"],
        )
        .check();
}

#[test]
fn r3853_smime_bodies_are_bit_exact() {
    let body = multipart(
        "boundary42",
        &[
            (
                &[
                    "Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m",
                    "Content-Transfer-Encoding: binary",
                    "Content-Disposition: attachment; handling=required; filename=smime.p7m",
                ],
                &binary(700),
            ),
            (
                &[
                    "Content-Type: application/pkcs7-signature; name=smime.p7s",
                    "Content-Transfer-Encoding: binary",
                ],
                &binary(256),
            ),
        ],
    );
    let kind = "multipart/signed;\r\n protocol=\"application/pkcs7-signature\";\r\n\tmicalg=sha1; \
        boundary=boundary42";
    exchange("INVITE")
        .body(kind, &body)
        .answer_with(
            "200 OK",
            &["Content-Type: application/pkcs7-mime; smime-type=enveloped-data"],
            &binary(900),
        )
        .check();
}

/// What the signature covers is in the headers, too.
#[test]
fn r3893_an_authenticated_identity_body_and_what_it_covers_stay() {
    let aib = b"From: Alice <sip:alice@client.example>\r\nTo: Bob <sip:bob@sip.lab.example>\r\n\
        Contact: <sip:alice@pc33.client.example>\r\nDate: Thu, 21 Feb 2002 13:02:03 GMT\r\n\
        Call-ID: exchange-0\r\nCSeq: 7 INVITE\r\n";
    let body = multipart(
        "unique-boundary-1",
        &[
            (&["Content-Type: application/sdp"], SDP),
            (
                &[
                    "Content-Type: message/sipfrag",
                    "Content-Disposition: aib; handling=optional",
                ],
                aib,
            ),
            (
                &["Content-Type: application/pkcs7-signature; name=smime.p7s"],
                &binary(256),
            ),
        ],
    );
    exchange("INVITE")
        .contact("<sip:alice@pc33.client.example>")
        .row("Date: Thu, 21 Feb 2002 13:02:03 GMT")
        .body("multipart/mixed; boundary=unique-boundary-1", &body)
        .answer("200 OK", &["Date: Thu, 21 Feb 2002 13:02:04 GMT"])
        .check();
}

/// The inner empty line belongs to the body, whose length counts it.
#[test]
fn r4483_content_indirection_keeps_its_inner_headers() {
    let inner = b"Content-Type: text/plain\r\nContent-Disposition: render\r\n\r\n";
    let kind = "message/external-body; access-type=\"URL\";\r\n \
        expiration=\"Mon, 24 June 2002 09:00:00 GMT\"; URL=\"http://x.example/a;b,c\"; size=52";
    exchange("MESSAGE")
        .body(kind, inner)
        .answer("202 Accepted", &[])
        .check();
}

/// Nested parts, and a body as large as a datagram bears.
#[test]
fn r5621_nested_and_large_bodies_are_bit_exact() {
    let inner = multipart(
        "inner",
        &[
            (&["Content-Type: application/sdp", "Content-ID: <a@b>"], SDP),
            (&["Content-Transfer-Encoding: binary"], &binary(1000)),
        ],
    );
    let body = multipart(
        "outer",
        &[
            (
                &[
                    "Content-Type: multipart/alternative;boundary=inner",
                    "Content-Disposition: session;handling=required",
                ],
                &inner,
            ),
            (&["Content-Type: text/html"], b"<html/>"),
        ],
    );
    for body in [body, binary(60_000)] {
        exchange("INVITE")
            .rows(&["Content-Encoding: identity", "Content-Language: en, de"])
            .body("multipart/mixed;boundary=outer", &body)
            .answer_with("200 OK", &["Content-Type: application/octet-stream"], &body)
            .check();
    }
}

#[test]
fn r3264_offers_answers_and_trickled_candidates_stay_in_order() {
    let mut stage = Stage::two_armed();
    let dialog = set_up(&mut stage, "trickle", "183 Session Progress");
    for number in 1..=8 {
        let frag = format!(
            "a=ice-ufrag:8hhY\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\nm=audio 9 RTP/AVP 0\r\n\
             a=mid:1\r\na=candidate:{number} 1 UDP 2130706431 198.18.200.7 {} typ host\r\n",
            8998 + number
        );
        let info = exchange("INFO")
            .in_early_dialog()
            .cseq(10 + number)
            .rows(&[
                "Info-Package: trickle-ice",
                "Recv-Info: trickle-ice",
                "Content-Disposition: Info-Package",
            ])
            .body("application/trickle-ice-sdpfrag", frag);
        let bytes = info.bytes(
            stage.client,
            &dialog.server.to_string(),
            "trickle",
            &dialog.of_caller(),
        );
        let sent = stage.client_sends(&bytes);
        assert_eq!(
            sent.to, dialog.server,
            "each as it comes, to the one server"
        );
        let ok = Answer::new("200 OK", &[], b"");
        stage.response(&ok.bytes(&sent.bytes, sent.to), &sent);
    }
    exchange("INVITE")
        .in_dialog()
        .rows(&["Supported: ice2, trickle-ice, tdialog"])
        .body(
            "application/sdp",
            [SDP, b"a=setup:actpass\r\na=tls-id:abc3de65cddef001be82\r\n"].concat(),
        )
        .answer_with("200 OK", &["Content-Type: application/sdp"], SDP)
        .answer(
            "488 Not Acceptable Here",
            &["Warning: 304 x \"Media type not available\""],
        )
        .check();
}

#[test]
fn r5763_fingerprints_stay() {
    let sdp = [
        SDP,
        b"a=fingerprint:sha-256 4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B\r\na=setup:actpass\r\n",
    ]
    .concat();
    exchange("INVITE")
        .row("Identity: CyI4+nAkHrH3ntmaxgr01TMxTmtjP7MASwliNRdupRI1vpkXRvZXx1ja9k0nB2sN;alg=ES256")
        .body("application/sdp", &sdp)
        .answer_with("200 OK", &["Content-Type: application/sdp"], &sdp)
        .check();
}

/// `c=` lines of four preconditions are the server's to judge.
#[test]
fn r5027_security_preconditions_stay() {
    let sdp = [
        SDP,
        b"a=curr:sec e2e none\r\na=des:sec mandatory e2e sendrecv\r\na=key-mgmt:mikey AQAF\r\n",
    ]
    .concat();
    exchange("INVITE")
        .rows(&["Require: 100rel, precondition"])
        .body("application/sdp", &sdp)
        .answer_with(
            "183 Session Progress",
            &[
                "Require: 100rel, precondition",
                "RSeq: 5",
                "Content-Type: application/sdp",
            ],
            &sdp,
        )
        .answer("580 Precondition Failure", &[])
        .check();
}

#[test]
fn r7866_recording_sessions_pass() {
    let body = multipart(
        "foobar",
        &[
            (&["Content-Type: application/sdp"], SDP),
            (
                &[
                    "Content-Type: application/rs-metadata",
                    "Content-Disposition: recording-session",
                ],
                b"<?xml version=\"1.0\"?>\r\n<recording xmlns='urn:ietf:params:xml:ns:recording:1'/>",
            ),
        ],
    );
    exchange("INVITE")
        .contact("<sip:src@198.18.200.7>;+sip.src")
        .rows(&[
            "Require: siprec",
            "Accept: application/sdp, application/rs-metadata-request",
        ])
        .body("multipart/mixed;boundary=foobar", body)
        .answer("200 OK", &["Require: siprec", "Record-Aware: yes"])
        .check();
}

/// Above 1,500 bytes, in one piece.
#[test]
fn r5366_a_request_contained_list_passes() {
    let mut list = b"<?xml version=\"1.0\"?><resource-lists><list>\r\n".to_vec();
    for number in 0..60 {
        list.extend_from_slice(
            format!("<entry uri=\"sip:user{number}@x.example\" cp:copyControl=\"to\"/>\r\n")
                .as_bytes(),
        );
    }
    list.extend_from_slice(b"</list></resource-lists>");
    let body = multipart(
        "boundary1",
        &[
            (&["Content-Type: application/sdp"], SDP),
            (
                &[
                    "Content-Type: application/resource-lists+xml",
                    "Content-Disposition: recipient-list",
                ],
                &list,
            ),
        ],
    );
    assert!(body.len() > 1_500);
    exchange("INVITE")
        .row("Require: recipient-list-invite")
        .body("multipart/mixed;boundary=\"boundary1\"", body)
        .answer("200 OK", &["Supported: recipient-list-invite"])
        .check();
}

#[test]
fn r5365_a_message_to_a_list_passes() {
    let body = multipart(
        "b",
        &[
            (&["Content-Type: text/plain"], b"Hello World!"),
            (
                &[
                    "Content-Type: application/resource-lists+xml",
                    "Content-Disposition: recipient-list",
                ],
                b"<resource-lists/>",
            ),
        ],
    );
    exchange("MESSAGE")
        .row("Require: recipient-list-message")
        .body("multipart/mixed;boundary=\"b\"", body)
        .answer("202 Accepted", &[])
        .answer(
            "420 Bad Extension",
            &["Unsupported: recipient-list-message"],
        )
        .check();
}

/// 1,280 bytes and an `im` URI; whatever the size, nobody but the server answers.
#[test]
fn r3428_messages_pass_up_to_their_limit_and_above() {
    let cpim = [
        &b"From: <im:a@x.example>\r\nTo: <im:b@y.example>\r\nDateTime: 2000-12-13T13:40:00-08:00\r\n\
           \r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"[..],
        "h\u{e9}llo ".repeat(100).as_bytes(),
    ]
    .concat();
    for uri in ["bob", "im:bob@sip.lab.example"] {
        exchange("MESSAGE")
            .uri(uri)
            .body("message/cpim", &cpim)
            .answer("202 Accepted", &[])
            .answer("480 Temporarily Unavailable", &["Retry-After: 60"])
            .check();
    }
    let mut stage = Stage::one_armed();
    let empty = exchange("MESSAGE").body("text/plain", b"");
    let bytes = |len: usize| {
        let body = vec![b'x'; len];
        exchange("MESSAGE").body("text/plain", body).bytes(
            "198.18.200.7:5060".parse().unwrap(),
            "sip.lab.example",
            "1280",
            &[],
        )
    };
    let head = empty
        .bytes(stage.client, "sip.lab.example", "1280", &[])
        .len();
    let received = bytes(1_280 - head - 2);
    assert_eq!(received.len(), 1_280);
    let sent = stage.client_sends(&received);
    assert!(
        sent.bytes.len() > 1_300,
        "over the threshold of RFC 3261 §18.1.1"
    );
    // With a limit the sender is told, and told once each time (A41).
    let limited = ONE_ARMED.replace("name = \"farm\"", "name = \"farm\"\nudp_max_request = 1300");
    let mut lab = Lab::new(&limited);
    let answer = lab.send(&received, CLIENT).sent();
    assert!(start_line(&answer.bytes).starts_with("SIP/2.0 513 "));
}
