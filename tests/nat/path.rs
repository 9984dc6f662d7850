//! `Path` (RFC 3327): REGISTER, and calls to a registered phone behind a NAT.

use viaduct::affinity::Binding;
use viaduct::net::{ListenerIndex, ServerId};

use crate::fixture::*;
use crate::phone::*;

/// The address of ours that the farm reaches.
const ARMS: [(&str, &str); 2] = [(ONE_ARMED, VIP), (TWO_ARMED, "198.18.1.1:5060")];

fn with_path(config: &str, policy: &str) -> String {
    let table = "[[listeners]]";
    config.replacen(table, &format!("{table}\npath = \"{policy}\""), 1)
}

/// A REGISTER of the phone, with these rows.
fn register(call_id: &str, extra: &str) -> Vec<u8> {
    let bytes = request("REGISTER", "sip:sip.lab.example", call_id, "z9hG4bK1", 1);
    let bytes = replaced(&bytes, "198.18.200.7:5060", INSIDE);
    let bytes = replaced(&bytes, "branch=z9hG4bK1", "branch=z9hG4bK1;rport");
    replaced(&bytes, "User-Agent:", &format!("{extra}User-Agent:"))
}

const SUPPORTED: &str = "Supported: 100rel, PATH\r\n";

/// Matrix 3327 (a): topmost, the same every time, with the registering flow, naming the farm's side.
#[test]
fn r3327_a_register_of_a_client_that_supports_it_gets_our_path() {
    for (config, ours) in ARMS {
        let mut lab = Lab::new(&with_path(config, "auto"));
        for (extra, below) in [
            (SUPPORTED, vec![]),
            ("k: path\r\n", vec![]),
            ("Require: path\r\n", vec![]),
            (
                "Supported: path\r\nPath: <sip:p1.example;lr>,\r\n <sip:p2.example;lr>\r\n",
                vec!["<sip:p1.example;lr>,"],
            ),
        ] {
            let bytes = register("path-1", extra);
            let sent = lab.send(&bytes, FLOW).sent();
            let paths = rows(&sent.bytes, "Path");
            assert!(paths[0].ends_with(&format!("@{ours};lr>")), "{}", paths[0]);
            assert_eq!(paths[1..], below);
            assert_eq!(rows(&sent.bytes, "Require"), rows(&bytes, "Require"));
            assert!(rows(&sent.bytes, "Record-Route").is_empty());
            let token = token_of(&lab, &paths[0], Binding::Path);
            assert_eq!(token.flow.unwrap().address.to_string(), FLOW);
            assert_eq!(token.listener, ListenerIndex(0));
            assert_eq!(token.server, ServerId::OUTSIDE);
            assert!(token.nat && token.callee);
            assert_eq!(lab.send(&bytes, FLOW).sent(), sent);
            // Whichever server registers it, whatever the Call-ID: one binding, one Path.
            for other in ["path-2", "path-3", "path-4"] {
                let again = lab.send(register(other, extra), FLOW).sent();
                assert_eq!(rows(&again.bytes, "Path"), paths);
            }
        }
    }
}

/// RFC 3327 §5.3: a registrar answers 420 to a Path that the client has not offered.
#[test]
fn r3327_there_is_never_a_silent_path() {
    for (policy, extra) in [
        ("off", SUPPORTED),
        ("auto", ""),
        (
            "auto",
            "Supported: 100rel, pathos\r\nProxy-Require: sec-agree\r\n",
        ),
    ] {
        let config = format!("sip.proxy_require = [\"sec-agree\"]\n{ONE_ARMED}");
        let mut lab = Lab::new(&with_path(&config, policy));
        let sent = lab.send(register("path-5", extra), FLOW).sent();
        assert!(rows(&sent.bytes, "Path").is_empty(), "{policy} {extra}");
    }
    // Other methods do not register, and what a server registers elsewhere comes back to it.
    let mut lab = Lab::new(&with_path(ONE_ARMED, "require"));
    let bytes = with_row(
        &invite("path-6", "z9hG4bK1"),
        "User-Agent",
        "Supported: path",
    );
    assert!(rows(&lab.send(bytes, FLOW).sent().bytes, "Path").is_empty());
    let bytes = request("REGISTER", "sip:203.0.113.9", "path-7", "z9hG4bK1", 1);
    let bytes = replaced(&bytes, "198.18.200.7:5060", SERVERS[0]);
    let sent = lab.send(bytes, SERVERS[0]).sent();
    assert_eq!(sent.to.to_string(), "203.0.113.9:5060");
    assert!(rows(&sent.bytes, "Path").is_empty());
}

/// Matrix 3327 (b), RFC 3327 §5.2: "reject the request with a 421 response".
#[test]
fn r3327_where_path_is_required_a_client_without_it_gets_421() {
    let mut lab = Lab::new(&with_path(TWO_ARMED, "require"));
    let bytes = register("path-8", "Supported: 100rel\r\n");
    let answer = lab.send(&bytes, FLOW).sent();
    assert_eq!(start_line(&answer.bytes), "SIP/2.0 421 Extension Required");
    assert_eq!(row(&answer.bytes, "Require"), "path");
    assert_eq!(answer.to.to_string(), FLOW);
    assert!(answer.bytes.len() <= bytes.len());
    // The registrar must know it as well.
    let sent = lab.send(register("path-9", SUPPORTED), FLOW).sent();
    assert_eq!(rows(&sent.bytes, "Path").len(), 1);
    assert_eq!(row(&sent.bytes, "Require"), "path");
    let sent = lab
        .send(register("path-9", "Require: x, path\r\n"), FLOW)
        .sent();
    assert_eq!(row(&sent.bytes, "Require"), "x, path");
}

/// Matrix 3327 (c): "SHOULD NOT alter any Path header field values" of responses.
#[test]
fn r3327_paths_of_responses_are_untouched() {
    let mut lab = Lab::new(&with_path(TWO_ARMED, "auto"));
    let sent = lab.send(register("path-10", SUPPORTED), FLOW).sent();
    let paths = format!("{}, <sip:p1.example;lr>", row(&sent.bytes, "Path"));
    let ok = with_row(
        &response(&sent, 200, "r1"),
        "Contact",
        &format!("Path: {paths}"),
    );
    let back = lab.reply(ok, &sent).sent();
    assert_eq!(row(&back.bytes, "Path"), paths);
    assert_eq!(back.to.to_string(), FLOW);
}

/// The Path that the registrar has of the phone.
#[track_caller]
fn registered(lab: &mut Lab, flow: &str) -> String {
    let sent = lab.send(register("path-r", SUPPORTED), flow).sent();
    row(&sent.bytes, "Path")
}

/// A request of a server to the registered Contact.
fn call(method: &str, call_id: &str, server: &str, route: &str) -> Vec<u8> {
    let uri = format!("sip:alice@{INSIDE}");
    let bytes = request(method, &uri, call_id, "z9hG4bKc", 1);
    let bytes = replaced(&bytes, "198.18.200.7:5060", server);
    with_row(&bytes, "Max-Forwards", &format!("Route: {route}"))
}

/// Matrix 3327 (d), and the whole call: INVITE, 200, ACK, BYE from either end, from any server, by
/// any worker, after a restart.
#[test]
fn r3327_a_call_to_a_registered_phone_takes_its_flow() {
    for (config, ours) in ARMS {
        let config = with_path(config, "auto");
        let mut lab = Lab::with_workers(&config, 3);
        let path = registered(&mut lab, FLOW);
        for (number, server) in SERVERS.into_iter().enumerate() {
            let call_id = format!("path-call-{number}");
            lab.restart();
            let bytes = call("INVITE", &call_id, server, &path);
            let sent = lab.send_to(&bytes, server, ours).sent();
            assert_eq!(
                (sent.from.to_string().as_str(), sent.to.to_string().as_str()),
                (VIP, FLOW)
            );
            assert!(start_line(&sent.bytes).starts_with("INVITE sip:alice@192.168.1.5:5060 "));
            assert!(rows(&sent.bytes, "Route").is_empty());
            assert_eq!(lab.send_to(&bytes, server, ours).sent(), sent);

            let ok = replaced(
                &response(&sent, 200, "a9"),
                &format!("<sip:{FLOW}>"),
                &format!("<sip:alice@{INSIDE}>"),
            );
            let back = lab.reply(ok, &sent).sent();
            assert_eq!(
                (back.from.to_string().as_str(), back.to.to_string().as_str()),
                (ours, server)
            );
            let record_route = rows(&back.bytes, "Record-Route");
            assert_eq!(record_route.len(), if ours == VIP { 1 } else { 2 });

            // The caller is a server: its route set is the reverse of what it received.
            let route: Vec<String> = record_route.iter().rev().cloned().collect();
            let by_server = |method: &str, cseq: u32| {
                let bytes = call(method, &call_id, server, &route.join(", "));
                let bytes = replaced(&bytes, "CSeq: 1 ", &format!("CSeq: {cseq} "));
                replaced(
                    &bytes,
                    "sip:bob@sip.lab.example>",
                    "sip:bob@sip.lab.example>;tag=a9",
                )
            };
            for (method, cseq) in [("ACK", 1), ("INVITE", 2), ("BYE", 3)] {
                let sent = lab.send_to(by_server(method, cseq), server, ours).sent();
                assert_eq!(
                    (sent.from.to_string().as_str(), sent.to.to_string().as_str()),
                    (VIP, FLOW),
                    "{method}"
                );
            }

            // The phone hangs up, from another port of its NAT; and is still there for a challenge.
            let routes: String = record_route
                .iter()
                .map(|value| format!("Route: {value}\n"))
                .collect();
            let by_phone = |method: &str| {
                sip(&format!(
                    "{method} sip:alice@{server} SIP/2.0
                    Via: SIP/2.0/UDP {INSIDE};branch=z9hG4bKh
                    {routes}Max-Forwards: 70
                    From: <sip:alice@x.example>;tag=a9
                    To: <sip:alice@client.example>;tag=a1
                    Call-ID: {call_id}
                    CSeq: 1 {method}
                    Contact: <sip:alice@{INSIDE}>"
                ))
            };
            let sent = lab.send(by_phone("INFO"), NEWER).sent();
            assert_eq!(
                (sent.from.to_string().as_str(), sent.to.to_string().as_str()),
                (ours, server)
            );
            let sent = lab.send_to(by_server("INFO", 4), server, ours).sent();
            assert_eq!(sent.to.to_string(), NEWER);
            assert_eq!(
                lab.send(by_phone("BYE"), NEWER).sent().to.to_string(),
                server
            );
        }
    }
}

/// CANCEL and the non-2xx ACK of an INVITE carry its Route (RFC 3261 §9.1, §17.1.1.3).
#[test]
fn r3327_cancel_and_ack_follow_their_invite() {
    let mut lab = Lab::new(&with_path(TWO_ARMED, "auto"));
    let path = registered(&mut lab, FLOW);
    let ours = "198.18.1.1:5060";
    let sent = |lab: &mut Lab, method: &str| {
        let bytes = call(method, "path-11", SERVERS[1], &path);
        let sent = lab.send_to(bytes, SERVERS[1], ours).sent();
        assert_eq!(sent.to.to_string(), FLOW, "{method}");
        branch(&sent.bytes)
    };
    let invite = sent(&mut lab, "INVITE");
    assert_eq!(sent(&mut lab, "CANCEL"), invite);
    assert_eq!(sent(&mut lab, "ACK"), invite);
    sent(&mut lab, "MESSAGE");
    sent(&mut lab, "NOTIFY");
}

/// Behind another proxy: that one's Path value comes next, and where none does, the flow is its.
#[test]
fn r3327_a_proxy_between_is_the_next_hop() {
    let mut lab = Lab::new(&with_path(ONE_ARMED, "auto"));
    let proxy = "203.0.113.20:5080";
    let bytes = register("path-12", SUPPORTED);
    let via = "\r\nVia: SIP/2.0/UDP 192.168.1.5:5060";
    let bytes = replaced(
        &bytes,
        via,
        &format!("\r\nVia: SIP/2.0/UDP {proxy};branch=z9hG4bKq{via}"),
    );
    let sent = lab.send(&bytes, proxy).sent();
    let path = row(&sent.bytes, "Path");
    assert!(!path.contains(";ob"));
    for (behind, to) in [
        ("", proxy),
        (", <sip:203.0.113.21:5090;lr>", "203.0.113.21:5090"),
        (", <sip:p1.example;lr>", proxy),
    ] {
        let bytes = call("INVITE", "path-13", SERVERS[0], &format!("{path}{behind}"));
        let sent = lab.send(&bytes, SERVERS[0]).sent();
        assert_eq!(sent.to.to_string(), to);
        assert_eq!(
            rows(&sent.bytes, "Route").len(),
            usize::from(!behind.is_empty())
        );
    }
}

/// RFC 5626 §5.3.1: a flow is for the farm to use; who brings a token from outside gets nothing.
#[test]
fn r5626_a_path_token_opens_nothing_from_outside() {
    let config = with_path(ONE_ARMED, "auto");
    let mut lab = Lab::new(&config);
    let path = registered(&mut lab, FLOW);
    for source in ["198.51.100.66:5060", "198.18.100.9:5060", NEWER] {
        for method in ["INVITE", "MESSAGE", "BYE"] {
            let bytes = call(method, "path-14", source, &path);
            let answer = lab.send(&bytes, source).sent();
            assert_eq!(
                start_line(&answer.bytes),
                "SIP/2.0 403 Forbidden",
                "{source}"
            );
            assert_eq!(answer.to.to_string(), source);
        }
    }
    // Its own flow: an outgoing request (RFC 5626 §5.3) whose Route is us and no more.
    let bytes = with_row(
        &invite("path-15", "z9hG4bK1"),
        "Max-Forwards",
        &format!("Route: {path}"),
    );
    let sent = lab.send(&bytes, FLOW).sent();
    assert!(SERVERS.contains(&sent.to.to_string().as_str()));
    // The dialog of that token is none: nobody is moved, nobody is reached.
    assert_eq!(lab.metrics[0].flows_moved.value(), 0);
}

/// RFC 5626 §5.3.1: "If the flow token has been tampered with, the proxy SHOULD send a 403".
#[test]
fn r5626_a_damaged_flow_token_from_the_farm_gets_403() {
    let mut lab = Lab::new(&with_path(ONE_ARMED, "auto"));
    let path = registered(&mut lab, FLOW);
    let token = path.split(['@', ':']).nth(1).unwrap().to_owned();
    for at in 2..token.len() {
        let mut forged = token.clone().into_bytes();
        forged[at] = if forged[at] == b'0' { b'8' } else { b'0' };
        let route = path.replace(&token, &text(&forged));
        let bytes = call("INVITE", "path-16", SERVERS[0], &route);
        let answer = lab.send(&bytes, SERVERS[0]).sent();
        assert_eq!(start_line(&answer.bytes), "SIP/2.0 403 Forbidden", "{at}");
    }
    // In any case it is the same token, and servers may lose its parameters.
    let shouted = format!("<sip:{}@198.18.0.1:5060>", token.to_uppercase());
    let sent = lab
        .send(call("INVITE", "path-16", SERVERS[0], &shouted), SERVERS[0])
        .sent();
    assert_eq!(sent.to.to_string(), FLOW);
}

/// The rows stay within the growth that the headroom is made for, and within their budget.
#[test]
fn r3327_growth_stays_within_its_limit() {
    use viaduct::limits::{GROWTH_MAX, RECORD_ROUTE_ROW_LEN_MAX_IPV4};
    let worst = FAMILIES
        .replace(
            "198.18.0.1:5060",
            "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:1111]:15060",
        )
        .replace(
            "[2001:db8:1::1]:5060",
            "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:2222]:15060",
        )
        .replace("[2001:db8:1::1", "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:333")
        .replace("name = \"farm\"", "name = \"farm\"\nreach = \"route\"");
    let worst = with_nat(&with_path(&worst, "require"), "force-rport");
    let mut lab = Lab::new(&worst);
    let source = "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:4444]:65535";
    for bytes in [
        register("path-17", SUPPORTED),
        invite_of("path-18", "[fd00::1]:5060", "<sip:a@[fd00::1]:5060>"),
        invite_of("path-18", "h", "<sip:a@[fd00::1]:5060>"),
    ] {
        let bytes = replaced(&bytes, "Max-Forwards: 70\r\n", "");
        let bytes = text(&bytes).replace(";rport", "").into_bytes();
        let sent = lab.send(&bytes, source).sent();
        let growth = sent.bytes.len() - bytes.len();
        assert!(growth <= GROWTH_MAX, "{growth}");
        assert!(growth > 400, "{growth}: the worst case is worse");
    }
    let longest = with_path(
        &ONE_ARMED.replace("198.18.0.1:", "198.118.100.101:1"),
        "auto",
    );
    let sent = Lab::new(&longest)
        .send(register("path-19", SUPPORTED), "203.113.213.123:65535")
        .sent();
    let path = row(&sent.bytes, "Path").len() + "Path: \r\n".len();
    assert!(path <= RECORD_ROUTE_ROW_LEN_MAX_IPV4, "{path}");
}
