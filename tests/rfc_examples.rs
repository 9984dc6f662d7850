//! The worked examples of RFC 3261 §16.12.1, RFC 3327 §5.5, RFC 3581 §6 and RFC 5658 §5, played by the
//! element of the example that we are.
//!
//! The RFCs print the lines that matter; the rest of a message comes from [`whole`]. Host names are
//! addresses where somebody would have to look them up. Of ours, `Via` and `Max-Breadth` are taken
//! off before the bytes are compared.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "rfc3261_16/fixture.rs"]
mod fixture;

use std::net::SocketAddr;

use fixture::*;

/// A message of an example with the headers that the RFC leaves out for brevity.
fn whole(example: &str, via: &str, hops: u8, cseq: &str) -> Vec<u8> {
    let (start, rows) = example
        .trim()
        .split_once('\n')
        .unwrap_or((example.trim(), ""));
    let mut text = format!("{start}\n{via}\n");
    if !start.starts_with("SIP/2.0 ") {
        text += &format!("Max-Forwards: {hops}\n");
    }
    for row in rows.lines() {
        text += row;
        text += "\n";
    }
    if !rows.contains("From:") {
        text += "From: <sip:caller@u1.example.com>;tag=1\nTo: <sip:callee@domain.com>;tag=2\n";
    }
    text += &format!("Call-ID: example\nCSeq: {cseq}\nContent-Length: 0\n");
    sip(&text)
}

/// What was sent, without our Via and Max-Breadth.
fn rest(sent: &Sent) -> String {
    let own = format!("Via: SIP/2.0/UDP {};", sent.from);
    let all = text(&sent.bytes);
    let lines = all.split_inclusive("\r\n");
    let kept = lines.filter(|line| !line.starts_with(&own) && !line.starts_with("Max-Breadth:"));
    kept.collect()
}

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

fn via(host: &str) -> String {
    format!("Via: SIP/2.0/UDP {host}:5060;branch=z9hG4bK{}", host.len())
}

/// One listener, one server behind it.
fn proxy(address: &str, names: &str, server: &str) -> Lab {
    Lab::new(&format!(
        r#"
        [[listeners]]
        name = "us"
        address = "{address}:5060"
        aliases = [{names}]
        [[pools]]
        name = "next"
        servers = [{{ name = "next", address = "{server}:5060" }}]
        "#
    ))
}

const U1: &str = "198.18.9.1";
const P1: &str = "198.18.9.11";
const P2: &str = "198.18.9.12";
const P3: &str = "198.18.9.13";
const P4: &str = "198.18.9.14";
const U2: &str = "198.18.9.2";

/// Dialog-forming INVITE through `lab`, and our Record-Route URI in it.
#[track_caller]
fn recorded(lab: &mut Lab, from: &str, to: &str, rows: &str) -> String {
    let invite = format!("INVITE sip:callee@domain.com SIP/2.0\nContact: sip:caller@{U1}\n{rows}");
    let bytes = whole(&invite, &via(from), 70, "1 INVITE");
    let sent = lab.send(&bytes, &format!("{from}:5060")).sent();
    assert_eq!(sent.to, at(&format!("{to}:5060")));
    let ours = first_uri(&sent.bytes);
    // Everything else of the INVITE as the example has it: our value on top of the others.
    let expected = format!("INVITE sip:callee@domain.com SIP/2.0\nRecord-Route: <{ours}>\n");
    assert!(rest(&sent).starts_with(&text(&sip(&expected)).replace("\r\n\r\n", "\r\n")));
    let undone = rest(&sent).replacen(&format!("Record-Route: <{ours}>\r\n"), "", 1);
    assert_eq!(undone, text(&whole(&invite, &via(from), 69, "1 INVITE")));
    // And the 200 comes back as it went.
    let ok = response(&sent, 200, "2");
    let back = lab.reply(&ok, &sent).sent();
    assert_eq!(back.to, at(&format!("{from}:5060")));
    assert_eq!(recorded_in(&back.bytes), recorded_in(&sent.bytes));
    ours
}

fn recorded_in(bytes: &[u8]) -> Vec<String> {
    rows(bytes, "Record-Route")
}

fn first_uri(bytes: &[u8]) -> String {
    recorded_in(bytes)[0].trim_matches(['<', '>']).to_owned()
}

/// RFC 3261 §16.12.1.1, as P1: names as printed, since the server that we chose stands for P2.
#[test]
fn a13_example_16_12_1_1_the_trapezoid_as_its_first_proxy() {
    let mut lab = proxy(P1, "\"p1.example.com\"", P2);
    let ours = recorded(&mut lab, U1, P2, "");
    let bye = |routes: &str, hops| {
        let bye = format!("BYE sip:callee@u2.domain.com SIP/2.0\nRoute: {routes}");
        whole(&bye, &via(U1), hops, "2 BYE")
    };
    let received = bye(&format!("<{ours}>,<sip:p2.domain.com;lr>"), 70);
    let sent = lab.send(&received, &format!("{U1}:5060")).sent();
    assert_eq!(sent.to, at(&format!("{P2}:5060")));
    assert_eq!(rest(&sent), text(&bye("<sip:p2.domain.com;lr>", 69)));
    // A preloaded Route names us without our cookie.
    let received = bye("<sip:p1.example.com;lr>,<sip:198.18.9.12;lr>", 70);
    let sent = lab.send(&received, &format!("{U1}:5060")).sent();
    assert_eq!(sent.to, at(&format!("{P2}:5060")));
    assert_eq!(rest(&sent), text(&bye("<sip:198.18.9.12;lr>", 69)));
}

/// RFC 3261 §16.12.1.1, as P2 in front of the callee.
#[test]
fn a13_example_16_12_1_1_the_trapezoid_as_its_second_proxy() {
    let mut lab = proxy(P2, "\"p2.domain.com\", \"domain.com\"", U2);
    let ours = recorded(&mut lab, P1, U2, "Record-Route: <sip:p1.example.com;lr>");
    for host in ["u2.domain.com", U2] {
        let bye = format!("BYE sip:callee@{host} SIP/2.0");
        let routed = format!("{bye}\nRoute: <{ours}>");
        let sent = lab
            .send(whole(&routed, &via(P1), 70, "2 BYE"), &format!("{P1}:5060"))
            .sent();
        assert_eq!(sent.to, at(&format!("{U2}:5060")));
        assert_eq!(rest(&sent), text(&whole(&bye, &via(P1), 69, "2 BYE")));
    }
}

/// RFC 3261 §16.12.1.2, as P4: the next Route has no `lr`.
#[test]
fn a18_example_16_12_1_2_before_a_strict_router() {
    let mut lab = proxy(P4, "", U2);
    let above = format!(
        "Record-Route: <sip:{P3}>\nRecord-Route: <sip:{P2};lr>\nRecord-Route: <sip:{P1};lr>"
    );
    let ours = recorded(&mut lab, P3, U2, &above);
    let received = format!(
        "BYE sip:caller@{U1} SIP/2.0\nRoute: <{ours}>\nRoute: <sip:{P3}>\n\
         Route: <sip:{P2};lr>\nRoute: <sip:{P1};lr>"
    );
    let sent = lab.send(
        whole(&received, &via(U2), 70, "1 BYE"),
        &format!("{U2}:5060"),
    );
    let sent = sent.sent();
    assert_eq!(sent.to, at(&format!("{P3}:5060")));
    let expected = format!(
        "BYE sip:{P3} SIP/2.0\nRoute: <sip:{P2};lr>\nRoute: <sip:{P1};lr>\n\
         Route: <sip:caller@{U1}>"
    );
    assert_eq!(rest(&sent), text(&whole(&expected, &via(U2), 69, "1 BYE")));
}

/// RFC 3261 §16.12.1.2, as P2: the strict router put our value into the Request-URI.
#[test]
fn a11_example_16_12_1_2_behind_a_strict_router() {
    let mut lab = proxy(P2, "", P3);
    let ours = recorded(&mut lab, P1, P3, &format!("Record-Route: <sip:{P1};lr>"));
    let received = format!("BYE {ours} SIP/2.0\nRoute: <sip:{P1};lr>\nRoute: <sip:caller@{U1}>");
    let sent = lab.send(
        whole(&received, &via(P3), 70, "1 BYE"),
        &format!("{P3}:5060"),
    );
    let sent = sent.sent();
    assert_eq!(sent.to, at(&format!("{P1}:5060")));
    let expected = format!("BYE sip:caller@{U1} SIP/2.0\nRoute: <sip:{P1};lr>");
    assert_eq!(rest(&sent), text(&whole(&expected, &via(P3), 69, "1 BYE")));
}

/// RFC 3261 §16.12.1.2, as P1: the last proxy before the caller.
#[test]
fn a13_example_16_12_1_2_the_last_proxy_follows_the_request_uri() {
    let mut lab = proxy(P1, "", P2);
    let ours = recorded(&mut lab, U1, P2, "");
    let bye = format!("BYE sip:caller@{U1} SIP/2.0");
    let received = format!("{bye}\nRoute: <{ours}>");
    let sent = lab.send(
        whole(&received, &via(P2), 70, "1 BYE"),
        &format!("{P2}:5060"),
    );
    let sent = sent.sent();
    assert_eq!(sent.to, at(&format!("{U1}:5060")));
    assert_eq!(rest(&sent), text(&whole(&bye, &via(P2), 69, "1 BYE")));
}

/// RFC 3581 §6: addresses, ports and branch as printed; the order of the parameters is free.
#[test]
fn r3581_example_6_a_response_through_a_nat() {
    let mut lab = Lab::new(
        r#"
        [[listeners]]
        name = "5060"
        address = "192.0.2.2:5060"
        aliases = ["proxy.example.com"]
        [[listeners]]
        name = "5070"
        address = "192.0.2.2:5070"
        [[pools]]
        name = "example.com"
        servers = [{ name = "s1", address = "198.18.1.11:5060" }]
        "#,
    );
    let invite = "INVITE sip:user@example.com SIP/2.0";
    let client = "Via: SIP/2.0/UDP 10.1.1.1:4540;rport;branch=z9hG4bKkjshdyff";
    let sent = lab
        .send_to(
            whole(invite, client, 70, "1 INVITE"),
            "192.0.2.1:9988",
            "192.0.2.2:5060",
        )
        .sent();
    assert_eq!(start_line(&sent.bytes), invite);
    let vias = rows(&sent.bytes, "Via");
    assert_eq!(vias.len(), 2);
    assert!(vias[0].starts_with("SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bK"));
    let parameters = |via: &str| {
        let mut parts: Vec<String> = via.split(';').map(str::to_owned).collect();
        parts[1..].sort();
        parts
    };
    let printed = "SIP/2.0/UDP 10.1.1.1:4540;received=192.0.2.1;rport=9988;branch=z9hG4bKkjshdyff";
    assert_eq!(parameters(&vias[1]), parameters(printed));

    let ok = response(&sent, 200, "2");
    let back = lab.reply(&ok, &sent).sent();
    assert_eq!(
        (back.from, back.to),
        (at("192.0.2.2:5060"), at("192.0.2.1:9988"))
    );
    assert_eq!(parameters(&row(&back.bytes, "Via")), parameters(printed));
}

/// RFC 5658 §5, figure 3: every message, both Route values removed at once, no rewriting.
#[test]
fn r5658_example_5_double_record_routing() {
    let mut lab = Lab::new(
        r#"
        [[listeners]]
        name = "ipv4"
        address = "192.0.2.254:5060"
        aliases = ["biloxi.example.com"]
        [[listeners]]
        name = "ipv6"
        address = "[2001:db8::1]:5060"
        side = "farm"
        [[pools]]
        name = "biloxi"
        servers = [{ name = "ua2", address = "[2001:db8::33]:5060" }]
        "#,
    );
    let (ua1, ua2) = (at("192.0.2.1:5060"), at("[2001:db8::33]:5060"));
    let (ipv4, ipv6) = (at("192.0.2.254:5060"), at("[2001:db8::1]:5060"));
    let via1 = "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKua1";
    let via2 = "Via: SIP/2.0/UDP [2001:db8::33]:5060;branch=z9hG4bKua2";
    let parties = "From: Alice <sip:alice@atlanta.example.com>;tag=1234\n\
        To: Bob <sip:bob@biloxi.example.com>";

    // F1, F2.
    let f1 = format!(
        "INVITE sip:bob@biloxi.example.com SIP/2.0\nRoute: <sip:192.0.2.254:5060;lr>\n{parties}\n\
         Contact: <sip:alice@192.0.2.1>"
    );
    let sent = lab
        .deliver(&whole(&f1, via1, 70, "1 INVITE"), ua1, ipv4)
        .sent();
    assert_eq!((sent.from, sent.to), (ipv6, ua2));
    let recorded = rows(&sent.bytes, "Record-Route");
    assert_eq!(recorded.len(), 2);
    assert!(recorded[0].ends_with("@[2001:db8::1]:5060;lr>"));
    assert!(recorded[1].ends_with("@192.0.2.254:5060;lr>"));
    let ours = format!(
        "Record-Route: {}\r\nRecord-Route: {}\r\n",
        recorded[0], recorded[1]
    );
    let f2 = f1.replace("Route: <sip:192.0.2.254:5060;lr>\n", "");
    assert!(rest(&sent).contains(&ours));
    assert_eq!(
        rest(&sent).replace(&ours, ""),
        text(&whole(&f2, via1, 69, "1 INVITE"))
    );

    // F3, F4: nothing is rewritten.
    let vias = rows(&sent.bytes, "Via");
    let f3 = |vias: &[String]| {
        let listed: Vec<String> = vias.iter().map(|via| format!("Via: {via}")).collect();
        let ok = format!(
            "SIP/2.0 200 OK\nRecord-Route: {}\nRecord-Route: {}\n{parties};tag=4567\n\
             Contact: <sip:bob@[2001:db8::33]>",
            recorded[0], recorded[1]
        );
        whole(&ok, &listed.join("\n"), 0, "1 INVITE")
    };
    let back = lab.deliver(&f3(&vias), ua2, ipv6).sent();
    assert_eq!((back.from, back.to), (ipv4, ua1));
    assert_eq!(text(&back.bytes), text(&f3(&vias[1..])));

    // F5, F6.
    let f6 = format!("ACK sip:bob@[2001:db8::33] SIP/2.0\n{parties};tag=4567");
    let routes = format!("SIP/2.0\nRoute: {}\nRoute: {}\n", recorded[1], recorded[0]);
    let f5 = f6.replace("SIP/2.0\n", &routes);
    let sent = lab
        .deliver(&whole(&f5, via1, 70, "1 ACK"), ua1, ipv4)
        .sent();
    assert_eq!((sent.from, sent.to), (ipv6, ua2));
    assert_eq!(rest(&sent), text(&whole(&f6, via1, 69, "1 ACK")));

    // F7, F8.
    let f8 = "BYE sip:alice@192.0.2.1 SIP/2.0\n\
        From: Bob <sip:bob@biloxi.example.com>;tag=4567\n\
        To: Alice <sip:alice@atlanta.example.com>;tag=1234";
    let routes = format!("SIP/2.0\nRoute: {}\nRoute: {}\n", recorded[0], recorded[1]);
    let f7 = f8.replace("SIP/2.0\n", &routes);
    let sent = lab
        .deliver(&whole(&f7, via2, 70, "1 BYE"), ua2, ipv6)
        .sent();
    assert_eq!((sent.from, sent.to), (ipv4, ua1));
    assert_eq!(rest(&sent), text(&whole(f8, via2, 69, "1 BYE")));
}

const UA1: &str = "192.0.2.4";
const EDGE: &str = "112.68.155.4";
const INNER: &str = "178.73.76.230";
const FIREWALL: &str = "19.31.97.3";
const REGISTRAR: &str = "143.70.6.83";

const REGISTER: &str = "REGISTER sip:REGISTRAR.EXAMPLEHOME.COM SIP/2.0\n\
    To: UA1 <sip:UA1@EXAMPLEHOME.COM>\nFrom: UA1 <sip:UA1@EXAMPLEHOME.COM>;tag=456248\n\
    Contact: <sip:UA1@192.0.2.4>\nSupported: path";

/// A proxy of RFC 3327 §5.5 that puts itself into Path.
fn on_the_path(address: &str, name: &str, server: &str, network: &str) -> Lab {
    Lab::new(&format!(
        r#"
        [[listeners]]
        name = "us"
        address = "{address}:5060"
        aliases = ["{name}"]
        path = "auto"
        [[pools]]
        name = "next"
        networks = ["{network}/32"]
        servers = [{{ name = "next", address = "{server}:5060" }}]
        "#
    ))
}

fn printed(host: &str, branch: &str) -> String {
    format!("Via: SIP/2.0/UDP {host}:5060;branch={branch}\n")
}

/// REGISTER through `lab` with the Path values that it came with, the response back; our URI.
#[track_caller]
fn registered(lab: &mut Lab, vias: &str, from: &str, to: &str, path: &str) -> String {
    let register = format!("{REGISTER}\n{path}");
    let received = whole(&register, vias.trim_end(), 70, "1826 REGISTER");
    let sent = lab.send(&received, &format!("{from}:5060")).sent();
    assert_eq!(sent.to, at(&format!("{to}:5060")));
    let paths = rows(&sent.bytes, "Path");
    let ours = format!("Path: {}\r\n", paths[0]);
    assert!(paths[0].ends_with(&format!("@{};lr>", sent.from)));
    assert_eq!(
        rest(&sent).replacen(&ours, "", 1),
        text(&whole(&register, vias.trim_end(), 69, "1826 REGISTER"))
    );
    // "The Path header field in the response is identical to the one received".
    let listed: Vec<String> = rows(&sent.bytes, "Via")
        .iter()
        .map(|via| format!("Via: {via}"))
        .collect();
    let ok = |vias: &[String]| {
        let ok = format!(
            "SIP/2.0 200 OK\nTo: UA1 <sip:UA1@EXAMPLEHOME.COM>;tag=251077\n\
             From: UA1 <sip:UA1@EXAMPLEHOME.COM>;tag=456248\nContact: <sip:UA1@192.0.2.4>\n\
             Supported: path\nPath: <sip:P3.EXAMPLEHOME.COM;lr>,{}",
            paths.join(",")
        );
        whole(&ok, &vias.join("\n"), 0, "1826 REGISTER")
    };
    let back = lab.reply(ok(&listed), &sent).sent();
    assert_eq!(back.to, at(&format!("{from}:5060")));
    assert_eq!(text(&back.bytes), text(&ok(&listed[1..])));
    paths[0].clone()
}

/// The INVITE of §5.5.2 with these rows.
fn to_ua1(rows: &str) -> String {
    format!(
        "INVITE sip:UA1@192.0.2.4 SIP/2.0\nTo: UA1 <sip:UA1@EXAMPLEHOME.COM>\n\
         From: UA2 <sip:UA2@FOREIGN.ELSEWHERE.ORG>;tag=224497\nContact: <sip:UA2@71.91.180.10>\n\
         {rows}"
    )
}

/// RFC 3327 §5.5, as P1 between the client and its home.
#[test]
fn r3327_example_5_5_the_proxy_of_the_client() {
    let mut lab = on_the_path(EDGE, "P1.EXAMPLEVISITED.COM", INNER, FIREWALL);
    let ours = registered(&mut lab, &printed(UA1, "z9hG4bKnashds7"), UA1, INNER, "");
    // F4 to F5: from P3, which P1 did not register with.
    let vias = printed(FIREWALL, "z9hG4bKjasg7li7nc9e")
        + &printed(REGISTRAR, "z9hG4bKlj25C107a7b176")
        + &printed("71.91.180.10", "z9hG4bKe2i95c5st3R");
    let below = "Record-Route: <sip:P3.EXAMPLEHOME.COM;lr>";
    let received = to_ua1(&format!("{below}\nRoute: {ours}"));
    let received = whole(&received, vias.trim_end(), 68, "29 INVITE");
    let sent = lab.send(&received, &format!("{FIREWALL}:5060")).sent();
    assert_eq!(sent.to, at(&format!("{UA1}:5060")));
    let recorded = recorded_in(&sent.bytes);
    assert_eq!(recorded.len(), 2);
    assert!(recorded[0].ends_with(&format!("@{EDGE}:5060;lr>")));
    assert_eq!(
        rest(&sent).replacen(&format!("Record-Route: {}\r\n", recorded[0]), "", 1),
        text(&whole(&to_ua1(below), vias.trim_end(), 67, "29 INVITE"))
    );
}

/// RFC 3327 §5.5, as P3 in front of the registrar: on top of the Path that is there.
#[test]
fn r3327_example_5_5_the_proxy_of_the_home() {
    let mut lab = on_the_path(FIREWALL, "P3.EXAMPLEHOME.COM", REGISTRAR, REGISTRAR);
    let vias = printed(INNER, "z9hG4bKiokioukju908")
        + &printed(EDGE, "z9hG4bK34ghi7ab04")
        + &printed(UA1, "z9hG4bKnashds7");
    let path = "Path: <sip:P1.EXAMPLEVISITED.COM;lr>";
    let ours = registered(&mut lab, &vias, INNER, REGISTRAR, path);
    // F3 to F4.
    let vias = printed(REGISTRAR, "z9hG4bKlj25C107a7b176")
        + &printed("71.91.180.10", "z9hG4bKe2i95c5st3R");
    let received = to_ua1(&format!("Route: {ours},<sip:{EDGE};lr>"));
    let received = whole(&received, vias.trim_end(), 70, "29 INVITE");
    let sent = lab.send(&received, &format!("{REGISTRAR}:5060")).sent();
    assert_eq!(sent.to, at(&format!("{EDGE}:5060")));
    let recorded = recorded_in(&sent.bytes);
    assert_eq!(recorded.len(), 1);
    assert_eq!(
        rest(&sent).replacen(&format!("Record-Route: {}\r\n", recorded[0]), "", 1),
        text(&whole(
            &to_ua1(&format!("Route: <sip:{EDGE};lr>")),
            vias.trim_end(),
            69,
            "29 INVITE"
        ))
    );
}
