//! Events and publications: SUBSCRIBE, NOTIFY, PUBLISH and what packages put into them.

use crate::exchange::*;
use crate::fixture::*;

/// SUBSCRIBE and NOTIFY of one package, inside a dialog and outside.
#[track_caller]
fn package(event: &str, kind: &str, body: &[u8]) {
    exchange("SUBSCRIBE")
        .rows(&[
            &format!("Event: {event}"),
            &format!("Accept: {kind}"),
            "Expires: 3600",
        ])
        .answer("200 OK", &["Expires: 3600"])
        .answer("489 Bad Event", &["Allow-Events: presence"])
        .check();
    exchange("NOTIFY")
        .in_dialog()
        .rows(&[
            &format!("Event: {event}"),
            "Subscription-State: active;expires=3599",
        ])
        .body(kind, body)
        .answer("200 OK", &[])
        .check();
}

#[test]
fn r3680_event_packages_pass_with_large_bodies() {
    package("reg", "application/reginfo+xml", b"<reginfo/>");
    package(
        "dialog;call-id=\"x@y\";sla",
        "application/dialog-info+xml",
        b"<dialog-info/>",
    );
    package(
        "message-summary",
        "application/simple-message-summary",
        b"Messages-Waiting: yes\r\n",
    );
    package(
        "presence",
        "application/pidf+xml",
        "<presence>\u{e4}</presence>".as_bytes(),
    );
    exchange("SUBSCRIBE")
        .rows(&[
            "o: presence;max-rate=0.5",
            "Supported: eventlist",
            "u: presence, dialog",
        ])
        .answer("202 Accepted", &["Require: eventlist", "Expires: 0"])
        .check();
    // A list of 30 kB, RFC 4662 §5.
    let mut rlmi = Vec::new();
    while rlmi.len() < 30_000 {
        rlmi.extend_from_slice(
            b"<resource uri=\"sip:a@x.example\"><instance id=\"1\"/></resource>\r\n",
        );
    }
    let body = multipart(
        "50UBfW7LSCVLtggUPe5z",
        &[
            (
                &[
                    "Content-Transfer-Encoding: binary",
                    "Content-ID: <nXYxAE@pres.x.example>",
                    "Content-Type: application/rlmi+xml;charset=\"UTF-8\"",
                ],
                &rlmi,
            ),
            (&["Content-Type: application/pidf+xml"], &binary(200)),
        ],
    );
    exchange("NOTIFY")
        .in_dialog()
        .rows(&["Event: presence", "Require: eventlist", "Subscription-State: active"])
        .body(
            "multipart/related;type=\"application/rlmi+xml\";\r\n start=\"<nXYxAE@pres.x.example>\";\
             boundary=\"50UBfW7LSCVLtggUPe5z\"",
            body,
        )
        .answer("200 OK", &[])
        .check();
}

#[test]
fn r5367_subscriptions_to_lists_pass() {
    exchange("SUBSCRIBE")
        .rows(&[
            "Require: recipient-list-subscribe",
            "Event: presence",
            "Content-Disposition: recipient-list",
        ])
        .body(
            "application/resource-lists+xml",
            b"<resource-lists><list/></resource-lists>",
        )
        .answer("200 OK", &["Require: eventlist"])
        .check();
    exchange("NOTIFY")
        .in_dialog()
        .rows(&[
            "Event: presence",
            "Subscription-State: active",
            "Require: eventlist",
        ])
        .body(
            "multipart/related;boundary=b",
            multipart(
                "b",
                &[(&["Content-Type: application/rlmi+xml"], b"<list/>")],
            ),
        )
        .answer("200 OK", &[])
        .check();
}

#[test]
fn r5839_conditional_notification_passes_with_its_204() {
    exchange("SUBSCRIBE")
        .rows(&["Event: presence", "Suppress-If-Match: *"])
        .answer("204 No Notification", &["SIP-ETag: abc"])
        .answer("200 OK", &["SIP-ETag: abc"])
        .check();
    exchange("NOTIFY")
        .in_dialog()
        .rows(&[
            "Event: presence",
            "SIP-ETag: faux-entity-tag",
            "Subscription-State: active",
        ])
        .answer("200 OK", &[])
        .check();
}

#[test]
fn r5875_xcap_diff_passes() {
    package(
        "xcap-diff; diff-processing=aggregate",
        "application/xcap-diff+xml",
        b"<xcap-diff xcap-root=\"http://x.example/root/\"/>",
    );
}

/// The user part is a device's name with escapes; the Request-URI stays as written.
#[test]
fn r6080_profile_subscriptions_keep_their_request_uri() {
    for uri in [
        "urn%3auuid%3a00000000-0000-1000-0000-00FF8D82EDCB",
        "device%3A%40;x=%41",
    ] {
        exchange("SUBSCRIBE")
            .uri(uri)
            .row("Event: ua-profile;profile-type=device;vendor=\"v.example\";model=\"Z100\";version=\"1.2.3\"")
            .answer("200 OK", &["Expires: 86400"])
            .check();
    }
    package(
        "ua-profile;profile-type=user",
        "message/external-body",
        b"Content-Type: a/b\r\n\r\n",
    );
}

/// RFC 5629: GRUU, REFER and SUBSCRIBE are all that an application needs of a proxy.
#[test]
fn r5629_application_interaction_passes() {
    exchange("REFER")
        .uri("bob;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6")
        .rows(&[
            "Refer-To: <http://app.x.example/script.vxml>",
            "Target-Dialog: fa77as7dad8-sd98ajzz@h;local-tag=1;remote-tag=2",
            "Require: tdialog",
        ])
        .answer("202 Accepted", &[])
        .check();
    package(
        "kpml;call-id=\"x@y\";remote-tag=\"a\"",
        "application/kpml-request+xml",
        b"<kpml-request/>",
    );
}

#[test]
fn r7200_load_control_passes() {
    package(
        "load-control",
        "application/load-control+xml",
        b"<ruleset/>",
    );
}

/// RFC 6795 and the headers of RFC 6794: policies are between the user agents and their servers.
#[test]
fn r6794_session_policies_pass() {
    exchange("INVITE")
        .rows(&[
            "Supported: policy",
            "Policy-ID: sip:p1.example;token=\"a\", sip:p2.example",
        ])
        .answer(
            "488 Not Acceptable Here",
            &[
                "Policy-Contact: <sip:policy@x.example>;non-cacheable, <sips:b@y>",
                "Policy-Contact: <sip:c@z>",
            ],
        )
        .check();
    package(
        "session-spec-policy;local-only",
        "application/media-policy-dataset+xml",
        b"<session-info/>",
    );
}

/// Refreshes are bound by the entity tag; their Call-ID may be another.
#[test]
fn r3903_publications_pass_with_their_entity_tags() {
    exchange("PUBLISH")
        .rows(&["Event: presence", "Expires: 3600"])
        .body("application/pidf+xml", b"<presence/>")
        .answer("200 OK", &["SIP-ETag: dx200xyz", "Expires: 1800"])
        .answer("412 Conditional Request Failed", &[])
        .check();
    exchange("PUBLISH")
        .rows(&["Event: presence", "SIP-If-Match: dx200xyz", "Expires: 0"])
        .answer("200 OK", &["SIP-ETag: kwj449x"])
        .answer("423 Interval Too Brief", &["Min-Expires: 60"])
        .check();
}

/// With the address-of-record as key a refresh under another Call-ID finds the server that knows
/// the entity tag (RFC 3903 §4.1); with the Call-ID as key it may not.
#[test]
fn r3903_refreshes_of_another_call_id_reach_the_same_server_by_their_key() {
    by_address_of_record("PUBLISH", "SIP-If-Match: dx200xyz");
}

/// RFC 5839 §5.3: a new subscription with the entity tag of an old one.
#[test]
fn r5839_a_resubscription_of_another_call_id_reaches_the_same_server_by_its_key() {
    by_address_of_record("SUBSCRIBE", "Suppress-If-Match: abc");
}

#[track_caller]
fn by_address_of_record(method: &str, tag: &str) {
    let by_record = format!(
        "{ONE_ARMED}\n[[routes]]\nmethods = [\"{method}\"]\npool = \"farm\"\nkey = \"aor\"\n\
         [[routes]]\npool = \"farm\"\n"
    );
    for (config, same) in [(by_record.as_str(), true), (ONE_ARMED, false)] {
        let mut stage = Stage::new(config, CLIENT);
        let (mut servers, mut moved) = (std::collections::HashSet::new(), 0);
        for user in 0..24 {
            let places = ["first", "second"].map(|call| {
                let exchange = exchange(method)
                    .uri(&format!("user{user}"))
                    .rows(&["Event: presence", tag]);
                let call_id = format!("{call}-{user}");
                let bytes = exchange.bytes(stage.client, "sip.lab.example", &call_id, &[]);
                stage.client_sends(&bytes).to
            });
            servers.insert(places[0]);
            moved += usize::from(places[0] != places[1]);
        }
        assert!(servers.len() > 1, "one server has them all: nothing shown");
        assert_eq!(moved == 0, same, "{moved} of 24 went elsewhere");
    }
}
