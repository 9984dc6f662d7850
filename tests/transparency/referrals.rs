//! REFER and what goes with it, lists, consent.

use crate::exchange::*;
use crate::fixture::*;

const REFER_TO: &str =
    "Refer-To: <sip:c@x.example?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2&Accept-Contact=%2a>";

/// Outside a dialog it makes one: the NOTIFY comes back through us.
#[test]
fn r3515_refer_passes_and_its_notify_comes_back_through_us() {
    exchange("REFER")
        .rows(&[REFER_TO, "r: <sip:d@y.example;method=SUBSCRIBE>"])
        .answer("202 Accepted", &[])
        .answer("603 Decline", &[])
        .check();
    for mut stage in Stage::all() {
        let refer = exchange("REFER").row(REFER_TO);
        let sent = stage.client_sends(&refer.bytes(stage.client, "sip.lab.example", "refer", &[]));
        let routes = rows(&sent.bytes, "Record-Route");
        assert!(!routes.is_empty());
        // The NOTIFY may overtake the 202.
        let notify = exchange("NOTIFY")
            .in_dialog()
            .rows(&[
                "Event: refer;id=93809824",
                "Subscription-State: terminated;reason=noresource",
            ])
            .body("message/sipfrag;version=2.0", "SIP/2.0 200 OK\r\n")
            .bytes(sent.to, &stage.client.to_string(), "refer", &routes);
        let back = stage.server_sends(&notify, sent.to);
        let ok = Answer::new("200 OK", &[], b"");
        stage.response(&ok.bytes(&back.bytes, back.to), &back);
    }
}

#[test]
fn r3892_referred_by_stays() {
    let token = multipart(
        "unique-boundary-1",
        &[
            (&["Content-Type: application/sdp"], SDP),
            (
                &[
                    "Content-Type: multipart/signed;protocol=\"application/pkcs7-signature\";boundary=d",
                    "Content-ID: <20398823.2UWQFN309shb3@referrer.example>",
                ],
                &binary(400),
            ),
        ],
    );
    for row in [
        "b: \"Ref\" <sip:r@ref.example>\r\n\t;cid=\"20398823.2UWQFN309shb3@referrer.example\"",
        "Referred-By: sip:r@ref.example ; cid=\"20398823.2UWQFN309shb3@referrer.example\"",
    ] {
        exchange("INVITE")
            .rows(&[row, "c: multipart/mixed; boundary=unique-boundary-1"])
            .plain_body(&token)
            .answer("429 Provide Referrer Identity", &[])
            .check();
    }
}

#[test]
fn r4488_a_refer_without_subscription_passes() {
    exchange("REFER")
        .rows(&[REFER_TO, "Refer-Sub: false", "Require: norefersub"])
        .answer("200 OK", &["Refer-Sub: false"])
        .answer("420 Bad Extension", &["Unsupported: norefersub"])
        .check();
}

#[test]
fn r4508_feature_tags_of_refer_to_stay() {
    exchange("REFER")
        .row("Refer-To: <sip:conf@x.example>;isfocus;audio;+g.x=\"<a,b>\"")
        .answer("202 Accepted", &[])
        .check();
}

#[test]
fn r5368_refers_to_many_pass() {
    let body = multipart(
        "b",
        &[(
            &[
                "Content-Type: application/resource-lists+xml",
                "Content-ID: <cn35t8jf02@x.example>",
                "Content-Disposition: recipient-list",
            ],
            b"<resource-lists><list><entry uri=\"sip:b@x\"/></list></resource-lists>",
        )],
    );
    exchange("REFER")
        .rows(&[
            "Refer-To: <cid:cn35t8jf02@x.example>",
            "Refer-Sub: false",
            "Require: multiple-refer, norefersub",
        ])
        .body("multipart/mixed;boundary=b", body)
        .answer("200 OK", &["Refer-Sub: false"])
        .check();
}

#[test]
fn r7614_explicit_subscriptions_for_refer_pass() {
    exchange("REFER")
        .rows(&[REFER_TO, "Require: explicitsub"])
        .answer(
            "200 OK",
            &["Refer-Events-At: <sips:vPT3izGmo8NTxdPADRZvEAY22jKlCnBPQ>"],
        )
        .check();
    exchange("REFER")
        .in_dialog()
        .rows(&[REFER_TO, "Require: nosub"])
        .answer("200 OK", &[])
        .check();
}

/// Sending to one server of a farm multiplies nothing, so consent is not ours to ask.
#[test]
fn r5360_consent_is_the_relays_to_ask() {
    exchange("MESSAGE")
        .row("Trigger-Consent: sip:123@relay.example;target-uri=\"sip:friends@x.example\"")
        .body("text/plain", "hi")
        .answer(
            "470 Consent Needed",
            &["Permission-Missing: sip:C@x.example, <sip:d@y.example>;a=b"],
        )
        .check();
}

/// The headers that say who was asked before.
#[test]
fn r4244_history_stays_in_order() {
    history();
}

/// RFC 7044 §9: a proxy that adds no entry leaves a permitted gap.
#[test]
fn r7044_history_with_its_parameters_stays_in_order() {
    history();
    exchange("INVITE")
        .rows(&[
            "Supported: histinfo",
            "History-Info: <sip:bob@x.example>;index=1",
            "History-Info: <sip:bob@y.example;cause=302>;index=1.1;rc=1 , <sip:v@z>;index=1.1.1;np=1.1",
        ])
        .answer("200 OK", &["History-Info: <sip:v@z>;index=1.1.1;mp=1"])
        .check();
}

#[track_caller]
fn history() {
    let first = "History-Info: <sip:UserA@ims.example?Reason=SIP%3Bcause%3D302&Privacy=history>;index=1;\
        foo=bar,\r\n <sip:UserA@ims.example?Privacy=history&Reason=SIP%3Bcause%3D486>;index=1.1";
    let second = "History-Info: <sip:45432@192.168.0.3>;index=1.2 ,<sip:B@x>;index=1.3";
    exchange("INVITE")
        .rows(&[first, second, "Supported: histinfo"])
        .answer("181 Call Is Being Forwarded", &[first])
        .answer("200 OK", &[second, first])
        .check();
}

#[test]
fn r5806_diversions_stay_in_order() {
    exchange("INVITE")
        .rows(&[
            "Diversion: <sip:+1972@gw.x.example>;reason=user-busy;screen=\"no\";privacy=off",
            "Diversion: \"A, B\" <tel:+1>;reason=unconditional;counter=3, <tel:+2>;reason=no-answer",
        ])
        .answer("302 Moved Temporarily", &["Diversion: <sip:a@b>;reason=deflection"])
        .check();
}
