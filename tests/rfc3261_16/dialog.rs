//! Requests inside a dialog: routed, never balanced (RFC 3261 §16.12, §12.2).

use crate::fixture::*;

#[test]
fn a13_in_dialog_requests_reach_their_server_whatever_the_table_says() {
    let mut lab = Lab::new(ONE_ARMED);
    let dialogs: Vec<Dialog> = (0..50)
        .map(|n| Dialog::set_up(&mut lab, &format!("d-1-{n}")))
        .collect();
    // Another farm altogether, pins forgotten, an hour later.
    lab.reload(
        &ONE_ARMED
            .replace("\"s", "\"t")
            .replace("198.18.1.1", "198.18.2.1"),
    );
    lab.restart();
    lab.wait(std::time::Duration::from_secs(3600));
    for dialog in &dialogs {
        for method in ["ACK", "UPDATE", "BYE"] {
            let sent = lab
                .send(dialog.by_client(method, 2, "z9hG4bK2"), CLIENT)
                .sent();
            assert_eq!(sent.to, dialog.server, "{method}");
            let bytes = dialog.by_server(method, 1, "z9hG4bK3");
            let sent = lab
                .deliver(&bytes, dialog.server, dialog.server_side)
                .sent();
            assert_eq!(sent.to, CLIENT.parse().unwrap(), "{method}");
        }
    }
}

/// A client whose Contact is an address behind its NAT is reached by the flow it came by.
#[test]
fn a13_a_client_behind_a_nat_is_reached_by_its_flow() {
    for config in [ONE_ARMED, TWO_ARMED] {
        let mut lab = Lab::new(config);
        let inside = "192.168.1.5:5060";
        let flow = "203.0.113.50:31337";
        let bytes = replaced(
            &invite("d-2", "z9hG4bK1;rport"),
            "198.18.200.7:5060",
            inside,
        );
        let sent = lab.send(&bytes, flow).sent();
        let back = lab.reply(response(&sent, 200, "b1"), &sent).sent();
        assert_eq!(back.to, flow.parse().unwrap());
        let dialog = Dialog {
            server: sent.to,
            server_side: sent.from,
            record_route: rows(&back.bytes, "Record-Route"),
            call_id: "d-2".to_owned(),
        };
        let bye = replaced(
            &dialog.by_server("BYE", 1, "z9hG4bK2"),
            "alice@198.18.200.7:5060",
            &format!("alice@{inside}"),
        );
        let sent = lab.deliver(&bye, dialog.server, dialog.server_side).sent();
        assert_eq!(
            (sent.from, sent.to),
            (VIP.parse().unwrap(), flow.parse().unwrap())
        );
        assert!(start_line(&sent.bytes).starts_with("BYE sip:alice@192.168.1.5:5060 "));
        let ok = lab.reply(response(&sent, 200, "a1"), &sent).sent();
        assert_eq!(ok.to, dialog.server);
    }
}

/// RFC 6141: the remote target may change; nothing of it is remembered here.
#[test]
fn a13_a_changed_contact_is_followed() {
    let mut lab = Lab::new(ONE_ARMED);
    let dialog = Dialog::set_up(&mut lab, "d-3");
    let moved = dialog.by_server("BYE", 1, "z9hG4bK2");
    let moved = replaced(&moved, "alice@198.18.200.7:5060", "alice@198.18.200.9:5066");
    let sent = lab
        .deliver(&moved, dialog.server, dialog.server_side)
        .sent();
    assert_eq!(sent.to, "198.18.200.9:5066".parse().unwrap());
    let moved = replaced(
        &dialog.by_client("BYE", 2, "z9hG4bK3"),
        &format!("bob@{}", dialog.server),
        &format!("bob@{}:5088", dialog.server.ip()),
    );
    assert_eq!(lab.send(moved, CLIENT).sent().to.port(), 5088);
}

/// A call that a server starts: the callee's requests come back to it.
#[test]
fn a13_a_call_from_the_farm_comes_back_to_its_server() {
    for (config, at) in [(ONE_ARMED, VIP), (TWO_ARMED, "198.18.1.1:5060")] {
        let mut lab = Lab::new(config);
        for server in SERVERS {
            let callee = "203.0.113.9:5080";
            let bytes = request(
                "INVITE",
                &format!("sip:carol@{callee}"),
                "d-4",
                "z9hG4bK1",
                1,
            );
            let bytes = replaced(&bytes, "198.18.200.7:5060", server);
            let sent = lab.send_to(&bytes, server, at).sent();
            assert_eq!(
                (sent.from, sent.to),
                (VIP.parse().unwrap(), callee.parse().unwrap())
            );
            let back = lab.reply(response(&sent, 200, "c1"), &sent).sent();
            assert_eq!(
                (back.from, back.to),
                (at.parse().unwrap(), server.parse().unwrap())
            );

            // The callee hangs up; its Contact of the server is a name that only the farm knows.
            let routes: String = rows(&back.bytes, "Record-Route")
                .iter()
                .map(|value| format!("Route: {value}\n"))
                .collect();
            let bye = sip(&format!(
                "BYE sip:pbx.internal.example SIP/2.0
                Via: SIP/2.0/UDP {callee};branch=z9hG4bK5
                {routes}Max-Forwards: 70
                From: <sip:carol@{callee}>;tag=c1
                To: Alice <sip:alice@client.example>;tag=a1
                Call-ID: d-4
                CSeq: 1 BYE"
            ));
            let sent = lab.send(&bye, callee).sent();
            assert_eq!(
                (sent.from.to_string().as_str(), sent.to),
                (at, server.parse().unwrap())
            );
        }
    }
}

/// A server that is a proxy: the request passes here twice, and so do its responses.
#[test]
fn a13_a_spiral_through_a_proxy_of_the_farm() {
    let mut lab = Lab::new(ONE_ARMED);
    let callee = "203.0.113.9:5080";
    let first = lab.send(invite("d-5", "z9hG4bK1"), CLIENT).sent();
    let server = first.to.to_string();
    let onward = replaced(
        &first.bytes,
        "INVITE sip:bob@sip.lab.example",
        &format!("INVITE sip:carol@{callee}"),
    );
    let onward = replaced(
        &onward,
        &format!("\r\nVia: SIP/2.0/UDP 198.18.0.1:5060;branch=z9hG4bK{MARK}"),
        &format!(
            "\r\nRecord-Route: <sip:{server};lr>\r\nVia: SIP/2.0/UDP {server};branch=z9hG4bKproxy\r\nVia: SIP/2.0/UDP 198.18.0.1:5060;branch=z9hG4bK{MARK}"
        ),
    );
    let second = lab.send(&onward, &server).sent();
    assert_eq!(second.to, callee.parse().unwrap());
    assert_eq!(rows(&second.bytes, "Via").len(), 4);
    assert_ne!(branch(&second.bytes), branch(&first.bytes));
    // The way back.
    let ok = response(&second, 200, "c1");
    let back = lab.reply(&ok, &second).sent();
    assert_eq!(back.to, first.to);
    let without = format!("Via: {}\r\n", rows(&back.bytes, "Via")[0]);
    let back = lab
        .send(replaced(&back.bytes, &without, ""), &server)
        .sent();
    assert_eq!(back.to, CLIENT.parse().unwrap());
    assert_eq!(rows(&back.bytes, "Via").len(), 1);

    // In the dialog: the server's Route stands behind our first value.
    let record_route = rows(&back.bytes, "Record-Route");
    assert_eq!(record_route.len(), 3);
    let dialog = Dialog {
        server: callee.parse().unwrap(),
        server_side: VIP.parse().unwrap(),
        record_route,
        call_id: "d-5".to_owned(),
    };
    let bye = lab
        .send(dialog.by_client("BYE", 2, "z9hG4bK7"), CLIENT)
        .sent();
    assert_eq!(bye.to, first.to);
    assert_eq!(rows(&bye.bytes, "Route").len(), 2);
    // The proxy takes its own value off and adds its Via.
    let route = format!("Route: <sip:{server};lr>\r\n");
    let onward = replaced(&bye.bytes, &route, "");
    let onward = with_row(
        &onward,
        "Via",
        "Via: SIP/2.0/UDP 198.18.1.99:5060;branch=z9hG4bKp2",
    );
    let onward = replaced(
        &onward,
        "Via: SIP/2.0/UDP 198.18.1.99:5060;branch=z9hG4bKp2\r\nVia: SIP/2.0/UDP 198.18.200.7",
        "Via: SIP/2.0/UDP 198.18.200.7",
    );
    let last = lab.send(&onward, &server).sent();
    assert_eq!(last.to, callee.parse().unwrap());
    assert!(rows(&last.bytes, "Route").is_empty());
}

/// Caller and callee are both in the farm.
#[test]
fn a13_a_hairpin_call_is_balanced_once_and_then_routed() {
    let mut lab = Lab::new(ONE_ARMED);
    let bytes = request(
        "INVITE",
        "sip:service@sip.lab.example",
        "d-6",
        "z9hG4bK1",
        1,
    );
    let bytes = replaced(&bytes, "198.18.200.7:5060", SERVERS[0]);
    let sent = lab.send(&bytes, SERVERS[0]).sent();
    assert!(SERVERS.contains(&sent.to.to_string().as_str()));
    let back = lab.reply(response(&sent, 200, "b1"), &sent).sent();
    assert_eq!(back.to, SERVERS[0].parse().unwrap());
    let own = row(&back.bytes, "Record-Route");
    // The initiator to the Request-URI of a Contact that is us: the token's server.
    let bye = request("BYE", "sip:198.18.0.1:5060", "d-6", "z9hG4bK2", 2);
    let bye = with_row(&bye, "Max-Forwards", &format!("Route: {own}"));
    assert_eq!(lab.send(&bye, SERVERS[0]).sent().to, sent.to);
}
