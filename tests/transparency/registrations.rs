//! What user agents tell registrars, and how they prove who they are.

use crate::exchange::*;
use crate::fixture::*;

/// The second REGISTER of a challenge: same Call-ID, so same server; rows never joined.
#[test]
fn r3310_a_challenge_is_answered_at_the_server_that_made_it() {
    let challenges = [
        "WWW-Authenticate: Digest realm=\"x.example\", nonce=\"MzQ0a2xrbGtmbGtsZm9wb2tsc2tqaHJzZXNy9uQyMzMzMzQK=\",\r\n \
         qop=\"auth,auth-int\", opaque=\"5ccc\", algorithm=AKAv1-MD5",
        "WWW-Authenticate: Digest realm=\"x.example\", nonce=\"dcd98b\", algorithm=MD5",
    ];
    exchange("REGISTER")
        .uri("")
        .answer("401 Unauthorized", &challenges)
        .answer(
            "401 Unauthorized",
            &["WWW-Authenticate: Digest auts=\"CjkyMzRfOiwg5CfkJ2UK=\""],
        )
        .check();
    for mut stage in Stage::all() {
        let mut servers = std::collections::HashSet::new();
        for number in 0..24 {
            let call_id = format!("aka-{number}");
            let challenged = exchange("REGISTER").uri("").cseq(1);
            let bytes = challenged.bytes(stage.client, "sip.lab.example", &call_id, &[]);
            let first = stage.client_sends(&bytes);
            let refused = Answer::new("401 Unauthorized", &challenges, b"");
            stage.response(&refused.bytes(&first.bytes, first.to), &first);
            let proven = exchange("REGISTER").uri("").cseq(2).row(
                "Authorization: Digest username=\"a\", realm=\"x.example\", nonce=\"MzQ0a2xrbGtmbGts\",\
                 uri=\"sip:x.example\", response=\"6629\", algorithm=AKAv1-MD5, auts=\"Cjky\"",
            );
            let bytes = proven.bytes(stage.client, "sip.lab.example", &call_id, &[]);
            assert_eq!(stage.client_sends(&bytes).to, first.to);
            servers.insert(first.to);
        }
        assert!(servers.len() > 1, "one server has them all: nothing shown");
    }
}

#[test]
fn r3840_capabilities_with_quoted_commas_stay() {
    exchange("REGISTER")
        .uri("")
        .contact(
            "\"A, B\" <sip:a@198.18.200.7;x=1>;audio;video;methods=\"INVITE,BYE\";\
             +sip.instance=\"<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>\",<sip:b@198.18.200.8>\
             ;+g.x=\"<a,b>\";q=0.5 , sip:c@198.18.200.9;mobility=\"fixed\"",
        )
        .answer(
            "200 OK",
            &["m: <sip:a@198.18.200.7>;expires=60;+g.x=\"<a,b>\",<sip:b@h>"],
        )
        .check();
}

/// The caller's preferences, compact and long; the CANCEL with them goes where the INVITE went.
#[test]
fn r3841_preferences_stay_and_do_not_route() {
    let rows = [
        "a: *;audio;require;+g.x=\"<a,b>\"",
        "j: *;video",
        "d: no-fork,no-cancel",
        "Accept-Contact: *;methods=\"BYE\";class=\"business\";explicit",
        "Reject-Contact: *;actor=\"msg-taker\"",
        "Request-Disposition: proxy, sequential",
    ];
    exchange("INVITE")
        .rows(&rows)
        .answer("200 OK", &[])
        .answer("486 Busy Here", &[])
        .check();
    for mut stage in Stage::all() {
        for number in 0..12 {
            let call_id = format!("preferences-{number}");
            let mut invited = None;
            for method in ["INVITE", "CANCEL", "ACK"] {
                let exchange = exchange(method).rows(&rows);
                let bytes = exchange.bytes(stage.client, "sip.lab.example", &call_id, &[]);
                let sent = stage.client_sends(&bytes);
                let place = (sent.to, branch(&sent.bytes));
                assert_eq!(*invited.get_or_insert(place.clone()), place, "{method}");
            }
        }
    }
    // Without an allow-list for it nobody here knows "pref".
    let required = exchange("INVITE").row("Proxy-Require: pref");
    let bytes = required.bytes(CLIENT.parse().unwrap(), "sip.lab.example", "pref", &[]);
    let answer = Lab::new(ONE_ARMED).send(bytes, CLIENT).sent();
    assert!(start_line(&answer.bytes).starts_with("SIP/2.0 420 "));
    assert_eq!(row(&answer.bytes, "Unsupported"), "pref");
}

/// `gr`, `ob` and whatever else a GRUU has: in Request-URI, Contact and answers.
#[test]
fn r5627_gruus_stay_as_they_are() {
    exchange("REGISTER")
        .uri("")
        .contact("<sip:callee@198.18.200.7;ob>;+sip.instance=\"<urn:uuid:f81d4fae-7dec-11d0-a765-00A0C91E6BF6>\"")
        .rows(&["Supported: path, outbound, gruu"])
        .answer(
            "200 OK",
            &["Contact: <sip:callee@198.18.200.7>;pub-gruu=\"sip:callee@x.example;gr=urn:uuid:f81d4fae-7dec\"\r\n \
               ;temp-gruu=\"sip:tgruu.7hs==jd7vnzga5w7fajsc7-ajd6fabz0f8g5@x.example;gr\";expires=3600"],
        )
        .check();
    for uri in [
        "callee;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        "tgruu.7hs==jd7vnzga5w7fajsc7-ajd6fabz0f8g5;gr",
        "c%41llee;GR=kjh29x97us97d;ob;Opaque=a",
    ] {
        exchange("INVITE")
            .uri(uri)
            .contact("<sip:a@x.example;gr=urn:uuid:1>;+sip.instance=\"<urn:uuid:1>\"")
            .answer("200 OK", &[])
            .check();
        exchange("BYE")
            .in_dialog()
            .uri(uri)
            .answer("200 OK", &[])
            .check();
    }
}

#[test]
fn r8599_push_parameters_stay() {
    let contact = "<sip:alice@198.18.200.7;pn-provider=acme;pn-param=acme-param;\
        pn-prid=ZTY4ZDJlMzODE1NmUgKi0K;pn-purr=c%2B>;+sip.pns=\"acme\"";
    exchange("REGISTER")
        .uri("")
        .contact(contact)
        .answer(
            "200 OK",
            &[
                "Feature-Caps: *;+sip.pns=\"acme\";+sip.pnsreg=\"121\"",
                "Contact: <sip:a@b;pn-prid=x>;expires=7200",
            ],
        )
        .answer("555 Push Notification Service Not Supported", &[])
        .check();
    exchange("INVITE")
        .uri("alice;pn-provider=acme;pn-param=acme-param;pn-prid=ZTY4ZDJlMzODE1NmUgKi0K")
        .answer("200 OK", &[])
        .check();
}

/// A token of 4 kB in a request of one datagram.
#[test]
fn r8898_large_tokens_stay() {
    let token = format!(
        "Authorization: Bearer {}",
        "eyJhbGciOiJSU0EtT0FFUCJ9.".repeat(164)
    );
    assert!(token.len() > 4_096);
    exchange("REGISTER")
        .uri("")
        .row(&token)
        .answer("401 Unauthorized", &["WWW-Authenticate: Bearer realm=\"x\", authz_server=\"https://a.example\", scope=\"sip\""])
        .answer("407 Proxy Authentication Required", &["Proxy-Authenticate: Bearer authz_server=\"https://a\""])
        .check();
}

/// The order of one server's challenges is its order of preference.
#[test]
fn r8760_challenges_keep_their_order() {
    exchange("INVITE")
        .answer(
            "401 Unauthorized",
            &[
                "WWW-Authenticate: Digest realm=\"a\", qop=\"auth\", algorithm=SHA-512-256, nonce=\"1\"",
                "WWW-Authenticate: Digest realm=\"a\", qop=\"auth\", algorithm=SHA-256, nonce=\"1\"",
                "Proxy-Authenticate: Digest realm=\"b\", algorithm=MD5, nonce=\"2\"",
                "WWW-Authenticate: Digest realm=\"a\", algorithm=MD5, nonce=\"1\"",
            ],
        )
        .check();
    exchange("REGISTER")
        .uri("")
        .rows(&[
            "Authorization: Digest username=\"a\", algorithm=SHA-256, userhash=true, response=\"x\"",
            "Proxy-Authorization: Digest username=\"a\", realm=\"b\", response=\"y\"",
            "Authorization: Digest username=\"b\", algorithm=MD5, response=\"z\"",
        ])
        .answer("200 OK", &["Authentication-Info: rspauth=\"a\", nextnonce=\"b\""])
        .check();
}

/// RFC 6314 asks of a proxy what RFC 3581 asks: the flow is kept without touching the rest.
#[test]
fn r6314_a_client_behind_a_nat_is_reached_by_its_flow() {
    for mut stage in [Stage::one_armed(), Stage::two_armed()] {
        let inside = "10.1.1.1:4540".parse().unwrap();
        let bytes = exchange("INVITE")
            .via(";rport")
            .bytes(inside, "sip.lab.example", "nat", &[]);
        let (client, outside) = ("198.18.200.7:9988".parse().unwrap(), stage.outside);
        let sent = stage.request(&bytes, client, outside);
        let ok = Answer::new("200 OK", &[], b"");
        let back = stage.response(&ok.bytes(&sent.bytes, sent.to), &sent);
        assert_eq!((back.from, back.to), (outside, client));
        // A request of the callee takes the flow, too: the Contact is a private address.
        let routes = rows(&back.bytes, "Record-Route");
        let bye = exchange("BYE")
            .in_dialog()
            .bytes(sent.to, "10.1.1.1:4540", "nat", &routes);
        let farm = stage.farm;
        let sent = stage.request(&bye, sent.to, farm);
        assert_eq!((sent.from, sent.to), (outside, client));
    }
}

/// RFC 5627 §6.2: a request inside a dialog may bring our Path URI instead of our Record-Route.
#[test]
fn r5627_a_request_with_our_path_as_its_route_takes_the_flow() {
    let config = ONE_ARMED.replacen("aliases", "path = \"auto\"\naliases", 1);
    let mut stage = Stage::new(&config, CLIENT);
    let (inside, flow) = ("10.1.1.1:4540".parse().unwrap(), "198.18.200.7:9988");
    let register = exchange("REGISTER")
        .uri("")
        .via(";rport")
        .row("Supported: path, outbound, gruu")
        .bytes(inside, "sip.lab.example", "register", &[]);
    let sent = stage.lab.send(&register, flow).sent();
    let path = row(&sent.bytes, "Path");
    for (method, uri) in [
        (
            "BYE",
            "callee;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        ),
        ("MESSAGE", "tgruu.7hs==jd7vnzga5w7fajsc7-ajd6fabz0f8g5;gr"),
    ] {
        let exchange = exchange(method).in_dialog().uri(uri);
        let routes = [path.clone()];
        let bytes = exchange.bytes(stage.server, "10.1.1.1:4540", "gruu", &routes);
        let (server, farm) = (stage.server, stage.farm);
        let sent = stage.request(&bytes, server, farm);
        assert_eq!(sent.to.to_string(), flow);
        assert!(rows(&sent.bytes, "Route").is_empty());
        let ok = Answer::new("200 OK", &[], b"");
        let back = stage.response(&ok.bytes(&sent.bytes, sent.to), &sent);
        assert_eq!(back.to, server);
    }
}
