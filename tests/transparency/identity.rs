//! Who calls and who vouches for it, where, and other headers that only pass.

use crate::exchange::*;
use crate::fixture::*;

fn identity(number: usize, ppt: &str) -> String {
    let passport = "eyJhbGciOiJFUzI1NiIsInR5cCI6InBhc3Nwb3J0In0".repeat(21);
    format!(
        "Identity: {passport}.{number}.sv5CTo05KqpSmtHt3dcEiO;info=<https://cert.x.example/{number}.cer>\
         ;alg=ES256{ppt}"
    )
}

/// Two signatures of over 900 bytes each, and Date: none is touched, none added.
#[test]
fn r4474_identities_and_what_they_cover_stay() {
    let rows = [identity(1, ""), identity(2, ";ppt=\"div\"")];
    assert!(rows.iter().all(|row| row.len() > 900));
    exchange("INVITE")
        .rows(&[
            &rows[0],
            "Date: Thu, 21 Feb 2002 13:02:03 GMT",
            &rows[1],
            "Identity-Info: <https://x.example/x.cer>;alg=rsa-sha1",
        ])
        .body("application/sdp", SDP)
        .answer("438 Invalid Identity Header", &[])
        .answer("428 Use Identity Header", &[])
        .answer("436 Bad Identity-Info", &[])
        .check();
    // No Date, none added.
    let mut stage = Stage::one_armed();
    let bytes = exchange("INVITE").bytes(stage.client, "sip.lab.example", "date", &[]);
    assert!(super::fixture::rows(&stage.client_sends(&bytes).bytes, "Date").is_empty());
}

/// RFC 8224 §4.1: From, To and Date are signed; the compact form is `y`.
#[test]
fn r8224_signed_identities_stay_in_either_form() {
    let row = identity(1, "");
    let compact = row.replacen("Identity:", "y:", 1);
    for row in [&row, &compact] {
        exchange("INVITE")
            .from("\"Alice\" <sip:+12155551212@client.example;user=phone>")
            .rows(&[row, "Date: Tue, 16 Aug 2016 19:23:38 GMT"])
            .answer("437 Unsupported Credential", &[])
            .answer("403 Stale Date", &["Date: Tue, 16 Aug 2016 19:23:39 GMT"])
            .check();
    }
}

#[test]
fn r8588_three_passports_stay_in_order() {
    let rows = [
        identity(1, ";ppt=\"shaken\""),
        identity(2, ";ppt=div"),
        identity(3, ";ppt=\"rph\""),
    ];
    exchange("INVITE")
        .rows(&[
            &rows[0],
            &rows[1],
            "Date: Tue, 16 Aug 2016 19:23:38 GMT",
            &rows[2],
        ])
        .answer("200 OK", &[])
        .check();
}

/// RFC 9410: several Reasons of one protocol; RFC 9796: long parameters of Call-Info.
#[test]
fn r9410_stir_reasons_and_rich_call_data_stay() {
    let icon = format!(
        "Call-Info: <https://x.example/jcard>;purpose=jcard;call-reason=\"a, b; c\";\
         verified=\"{}\" , <https://x.example/i.png>;purpose=icon",
        "x".repeat(800)
    );
    exchange("INVITE")
        .rows(&[&icon, &identity(1, ";ppt=\"rcd\"")])
        .answer(
            "183 Session Progress",
            &[
                "Reason: STIR ;cause=436 ;text=\"Bad Identity Info\" ;ppi=\"a.b.c\"",
                "Reason: STIR ;cause=437 ;text=\"Unsupported\", STIR;cause=438",
            ],
        )
        .check();
}

#[test]
fn r5079_anonymity_disallowed_passes() {
    exchange("INVITE")
        .from("\"Anonymous\" <sip:anonymous@anonymous.invalid>")
        .rows(&["Privacy: id;critical"])
        .answer("433 Anonymity Disallowed", &[])
        .check();
}

/// Privacy made by the user agent itself is routed like anybody else's request.
#[test]
fn r5767_anonymous_requests_are_routed_and_nothing_leaks() {
    let gruu = "<sip:tgruu.7hs==jd7vnzga5w7fajsc7-ajd6fabz0f8g5@x.example;gr>";
    for method in ["INVITE", "MESSAGE", "SUBSCRIBE"] {
        exchange(method)
            .from("\"Anonymous\" <sip:anonymous@anonymous.invalid>")
            .contact(gruu)
            .answer("200 OK", &[])
            .check();
    }
    exchange("BYE")
        .in_dialog()
        .from("\"Anonymous\" <sip:anonymous@anonymous.invalid>")
        .answer("200 OK", &[])
        .check();
    // The client's address stands in its own Via, and nowhere that it did not put it.
    let mut stage = Stage::one_armed();
    let bytes =
        exchange("INVITE")
            .contact(gruu)
            .bytes(stage.client, "sip.lab.example", "leak", &[]);
    let count = |bytes: &[u8]| text(bytes).matches("198.18.200.7").count();
    assert_eq!(count(&stage.client_sends(&bytes).bytes), count(&bytes));
}

/// Emergency: the location rides along, and the choice of a server does not look at it.
#[test]
fn r6442_locations_pass_and_do_not_route() {
    let body = multipart(
        "boundary1",
        &[
            (&["Content-Type: application/sdp"], SDP),
            (
                &[
                    "Content-Type: application/pidf+xml",
                    "Content-ID: <target123@x.example>",
                ],
                b"<presence entity=\"pres:alice@x.example\"><gp:geopriv/></presence>",
            ),
        ],
    );
    for uri in ["bob", "urn:service:sos"] {
        for routing in [
            "Geolocation-Routing: no",
            "Geolocation-Routing: yes;x=1",
            "X-None: 1",
        ] {
            exchange("INVITE")
                .uri(uri)
                .rows(&[
                    "Geolocation: <cid:target123@x.example>, <sips:3sdefrhy2jj7@lis.x.example>",
                    routing,
                ])
                .body("multipart/mixed;boundary=boundary1", &body)
                .answer(
                    "424 Bad Location Information",
                    &["Geolocation-Error: 300 ;code=\"Permission To Use\""],
                )
                .answer("200 OK", &["Geolocation: <https://lis.x.example/a>"])
                .check();
        }
    }
    let mut stage = Stage::one_armed();
    for number in 0..24 {
        let call_id = format!("location-{number}");
        let mut chosen = None;
        for place in [
            "X-None: 1",
            "Geolocation: <cid:a@b>",
            "Geolocation: <sip:c@d>",
        ] {
            let exchange = exchange("OPTIONS").row(place);
            let bytes = exchange.bytes(stage.client, "sip.lab.example", &call_id, &[]);
            let to = stage.client_sends(&bytes).to;
            assert_eq!(*chosen.get_or_insert(to), to);
        }
    }
}

#[test]
fn r5478_priorities_of_any_namespace_stay() {
    exchange("INVITE")
        .rows(&[
            "Resource-Priority: dsn-000000.9, drsn-00000a.1",
            "Resource-Priority: rts-000001.4 , crts-000002.0",
            "Require: resource-priority",
        ])
        .answer(
            "417 Unknown Resource-Priority",
            &["Accept-Resource-Priority: dsn-000000.9, q735.1"],
        )
        .check();
}

/// Inside the trust domain; there is no policy here that takes it away.
#[test]
fn r3313_media_authorization_stays() {
    exchange("INVITE")
        .row("P-Media-Authorization: 0020000100100101706466322e78797a2e636f6d")
        .answer(
            "183 Session Progress",
            &["P-Media-Authorization: 0020000100100101, 00200001"],
        )
        .check();
}

#[test]
fn r5009_private_headers_stay() {
    exchange("INVITE")
        .rows(&[
            "P-Early-Media: supported",
            "P-Served-User: <sip:u@x.example>; sescase=orig; regstate=reg",
            "P-Profile-Key: <sip:chatroom-!.*!@x.example>",
            "P-Refused-URI-List: sip:bob@x.example; members=<cid:an3bt8jf03@a>",
            "P-Charging-Vector: icid-value=\"1234bc9876e\";icid-generated-at=192.0.6.8",
        ])
        .answer("183 Session Progress", &["P-Early-Media: sendrecv, gated"])
        .check();
}

#[test]
fn r6809_feature_caps_keep_their_order() {
    let rows = [
        "Feature-Caps: *;+g.a=\"1\"",
        "Feature-Caps: *;+g.b,*;+g.c=\"x,y\"",
        "Feature-Caps: *;+g.a",
    ];
    exchange("INVITE")
        .rows(&rows)
        .answer("200 OK", &rows)
        .check();
}

#[test]
fn r6432_q850_reasons_of_responses_stay() {
    exchange("INVITE")
        .answer(
            "486 Busy Here",
            &[
                "Reason: Q.850;cause=17;location=LN;text=\"User, busy\"",
                "Reason: SIP;cause=486",
            ],
        )
        .answer("183 Session Progress", &["Reason: Q.850;cause=127"])
        .check();
    exchange("BYE")
        .in_dialog()
        .row("Reason: Q.850 ;cause=16 ;text=\"Terminated\", SIP;cause=200")
        .answer("200 OK", &[])
        .check();
}

#[test]
fn r7433_user_to_user_information_stays() {
    exchange("INVITE")
        .row("User-to-User: 56a390f3d2b7310023a2;encoding=hex;purpose=isdn-uui;content=isdn-uui, FD;encoding=hex")
        .answer("200 OK", &["User-to-User: \"q, x\";encoding=\"hex\""])
        .check();
    exchange("BYE")
        .in_dialog()
        .row("User-to-User: 56;encoding=hex")
        .answer("200 OK", &["User-to-User: 57;encoding=hex"])
        .check();
}

#[test]
fn r7462_alerts_content_ids_and_priorities_stay() {
    let rows = [
        "Alert-Info: <urn:alert:service:call-waiting>, <http://x.example/a;b>;appearance=2",
        "Join: 12345600@x.example;from-tag=1;to-tag=2",
        "Content-ID: <target123@x.example>",
        "Geolocation: <cid:target123@x.example>;loc-src=x.example",
        "Priority: psap-callback",
    ];
    exchange("INVITE")
        .rows(&rows)
        .body("application/pidf+xml", "<presence/>")
        .answer(
            "180 Ringing",
            &["Alert-Info: <urn:alert:tone:ring-3>;appearance=0"],
        )
        .check();
}

/// A signed parameter in the client's Via and in lower ones: quoted, with dots and colons.
#[test]
fn r8055_received_realms_stay_in_every_via() {
    exchange("INVITE")
        .via(";received-realm=\"tg.x.example:5060,a\";iss=\"a\\\"b\"")
        .row(
            "Via: SIP/2.0/TCP p.example;branch=z9hG4bKl;received-realm=\"myop.example\" ;v=\"x;y\"",
        )
        .answer("200 OK", &[])
        .check();
}
