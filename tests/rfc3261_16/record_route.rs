//! `Record-Route`: RFC 3261 §16.6 step 4, RFC 5658, RFC 6157, RFC 6665 §4.3.

use crate::fixture::*;

/// RFC 3261 §16.6 step 4: on top, on whatever may make a dialog, the same bytes every time.
#[test]
fn a17_dialog_forming_methods_get_record_route_on_top() {
    let mut lab = Lab::new(ONE_ARMED);
    for method in [
        "INVITE",
        "SUBSCRIBE",
        "NOTIFY",
        "REFER",
        "UPDATE",
        "INFO",
        "PRACK",
        "FROB",
    ] {
        let bytes = request(method, "sip:bob@sip.lab.example", "rr-1", "z9hG4bK1", 1);
        let bytes = with_row(&bytes, "Contact", "Record-Route: <sip:p1.example;lr>");
        let sent = lab.send(&bytes, CLIENT).sent();
        let rows = rows(&sent.bytes, "Record-Route");
        assert_eq!(rows.len(), 2, "{method}");
        assert!(rows[0].starts_with("<sip:v0") && rows[0].ends_with("@198.18.0.1:5060;lr>"));
        assert!(!rows[0].contains("transport"));
        assert_eq!(rows[1], "<sip:p1.example;lr>");
        assert_eq!(lab.send(&bytes, CLIENT).sent(), sent);
    }
}

#[test]
fn a17_an_old_record_route_row_above_the_via_stays_below_ours() {
    let mut lab = Lab::new(ONE_ARMED);
    let bytes = with_row(
        &invite("rr-2", "z9hG4bK1"),
        "Via",
        "Record-Route: <sip:p1.example;lr>",
    );
    let sent = lab.send(&bytes, CLIENT).sent();
    assert!(rows(&sent.bytes, "Record-Route")[0].starts_with("<sip:v0"));
    assert_eq!(rows(&sent.bytes, "Record-Route")[1], "<sip:p1.example;lr>");
}

#[test]
fn a17_methods_that_make_no_dialog_get_none() {
    let mut lab = Lab::new(ONE_ARMED);
    for method in ["ACK", "BYE", "CANCEL", "MESSAGE", "OPTIONS", "PUBLISH"] {
        let bytes = request(method, "sip:bob@sip.lab.example", "rr-3", "z9hG4bK1", 1);
        let sent = lab.send(bytes, CLIENT).sent();
        assert!(rows(&sent.bytes, "Record-Route").is_empty(), "{method}");
    }
}

/// The rows stay within the budget that the datapath's headroom is made for.
#[test]
fn a17_rows_stay_within_their_budget() {
    use viaduct::limits::{GROWTH_MAX, RECORD_ROUTE_ROW_LEN_MAX_IPV4, VIA_ROW_LEN_MAX_IPV4};
    let longest = ONE_ARMED.replace("198.18.0.1:", "198.118.100.101:1");
    let mut lab = Lab::new(&longest);
    let bytes = replaced(
        &invite("rr-4", "z9hG4bK1"),
        "198.18.200.7:5060",
        "10.200.200.200:5060",
    );
    let sent = lab.send(bytes, "203.113.213.123:65535").sent();
    let via = rows(&sent.bytes, "Via").remove(0).len() + "Via: \r\n".len();
    let record_route = row(&sent.bytes, "Record-Route").len() + "Record-Route: \r\n".len();
    assert!(via <= VIA_ROW_LEN_MAX_IPV4, "{via}");
    assert!(
        record_route <= RECORD_ROUTE_ROW_LEN_MAX_IPV4,
        "{record_route}"
    );

    // Two-armed, IPv6, pushed Route, NAT, everything missing that can be added.
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
    let mut lab = Lab::new(&worst);
    let bytes = invite("rr-5", "z9hG4bK1;rport");
    let bytes = replaced(&bytes, "198.18.200.7:5060", "[fd00::1]:5060");
    let bytes = replaced(&bytes, "Max-Forwards: 70\r\n", "");
    let sent = lab
        .send(&bytes, "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:4444]:65535")
        .sent();
    assert_eq!(rows(&sent.bytes, "Record-Route").len(), 2);
    assert_eq!(rows(&sent.bytes, "Route").len(), 1);
    let growth = sent.bytes.len() - bytes.len();
    assert!(growth <= GROWTH_MAX, "{growth}");
    assert!(growth > 500, "{growth}: the worst case is worse");
}

/// RFC 3261 §16.7 step 8: rewriting in responses is only a MAY; double Record-Route needs none.
#[test]
fn a26_record_routes_of_responses_are_untouched() {
    let mut lab = Lab::new(TWO_ARMED);
    let sent = lab.send(invite("rr-6", "z9hG4bK1"), CLIENT).sent();
    let ok = with_row(
        &response(&sent, 200, "b1"),
        "Contact",
        "Record-Route: <sip:z.example;lr>",
    );
    let back = lab.reply(&ok, &sent).sent();
    assert_eq!(rows(&back.bytes, "Record-Route"), rows(&ok, "Record-Route"));
    assert_eq!(rows(&ok, "Record-Route").len(), 3);
}

/// RFC 3261 §10.3: a registrar ignores it, Path is the means; Contact is never ours to change.
#[test]
fn a50_register_gets_no_record_route_and_keeps_its_contacts() {
    let mut lab = Lab::new(ONE_ARMED);
    for contact in [
        "*",
        "<sip:a@10.0.0.1>;q=0.5, \"A, B\" <sip:b@10.0.0.2>;+g.x=\"<a,b>\"",
    ] {
        let bytes = request("REGISTER", "sip:sip.lab.example", "rr-7", "z9hG4bK1", 1);
        let bytes = replaced(&bytes, "<sip:alice@198.18.200.7:5060>", contact);
        let sent = lab.send(&bytes, CLIENT).sent();
        assert!(rows(&sent.bytes, "Record-Route").is_empty());
        assert!(rows(&sent.bytes, "Path").is_empty());
        assert_eq!(row(&sent.bytes, "Contact"), contact);
        assert_eq!(text(&undone(&sent.bytes, &bytes)), text(&bytes));
        assert!(SERVERS.contains(&sent.to.to_string().as_str()));
    }
}

/// RFC 5658 §5: two sides, two rows, the egress side on top.
#[test]
fn r5658_two_armed_means_two_record_routes() {
    let mut lab = Lab::new(TWO_ARMED);
    let sent = lab.send(invite("rr-8", "z9hG4bK1"), CLIENT).sent();
    let rows_of = rows(&sent.bytes, "Record-Route");
    assert_eq!(rows_of.len(), 2);
    assert!(
        rows_of[0].ends_with("@198.18.1.1:5060;lr>"),
        "{}",
        rows_of[0]
    );
    assert!(
        rows_of[1].ends_with("@198.18.0.1:5060;lr>"),
        "{}",
        rows_of[1]
    );
    assert_eq!(sent.from, "198.18.1.1:5060".parse().unwrap());
    assert!(rows(&sent.bytes, "Via")[0].starts_with("SIP/2.0/UDP 198.18.1.1:5060;"));
    // RFC 3581 §4: the response leaves from where the request came to.
    let back = lab.reply(response(&sent, 200, "b1"), &sent).sent();
    assert_eq!(
        (back.from, back.to),
        (VIP.parse().unwrap(), CLIENT.parse().unwrap())
    );
}

/// RFC 5658 §5: both own values go, on the way in either direction, and exactly one Via comes.
#[test]
fn r5658_both_own_routes_are_removed_in_either_direction() {
    let mut lab = Lab::new(TWO_ARMED);
    let dialog = Dialog::set_up(&mut lab, "rr-9");
    let bye = dialog.by_client("BYE", 2, "z9hG4bK2");
    assert_eq!(rows(&bye, "Route").len(), 2);
    let sent = lab.send(&bye, CLIENT).sent();
    assert!(rows(&sent.bytes, "Route").is_empty());
    assert_eq!(rows(&sent.bytes, "Via").len(), 2);
    assert_eq!((sent.from, sent.to), (dialog.server_side, dialog.server));

    let bye = dialog.by_server("BYE", 1, "z9hG4bK3");
    let sent = lab.deliver(&bye, dialog.server, dialog.server_side).sent();
    assert!(rows(&sent.bytes, "Route").is_empty());
    assert_eq!(rows(&sent.bytes, "Via").len(), 2);
    assert_eq!(
        (sent.from, sent.to),
        (VIP.parse().unwrap(), CLIENT.parse().unwrap())
    );
}

/// RFC 5658 §5: leaving by another port of ours is a change of interface, too.
#[test]
fn r5658_one_address_means_one_record_route() {
    let mut lab = Lab::new(ONE_ARMED);
    for listener in ["198.18.0.1:5060", "198.18.0.1:5070"] {
        let sent = lab
            .send_to(invite("rr-10", "z9hG4bK1"), CLIENT, listener)
            .sent();
        let record_route = row(&sent.bytes, "Record-Route");
        assert!(
            record_route.ends_with(&format!("@{listener};lr>")),
            "{record_route}"
        );
        assert_eq!(sent.from.to_string(), listener);
    }
}

/// RFC 6157 §3.1.1: between address families a Record-Route is a MUST, one per family.
#[test]
fn r6157_each_family_gets_a_record_route_it_can_reach() {
    let mut lab = Lab::new(FAMILIES);
    let bytes = [
        invite("rr-11", "z9hG4bK1"),
        b"c=IN IP4 198.18.200.7\r\n".to_vec(),
    ]
    .concat();
    let bytes = replaced(&bytes, "Content-Length: 0", "Content-Length: 23");
    let sent = lab.send(&bytes, CLIENT).sent();
    assert!(sent.to.is_ipv6() && sent.from.is_ipv6());
    assert!(sent.bytes.ends_with(b"c=IN IP4 198.18.200.7\r\n"));
    let record_routes = rows(&sent.bytes, "Record-Route");
    assert!(
        record_routes[0].ends_with("@[2001:db8:1::1]:5060;lr>"),
        "{record_routes:?}"
    );
    assert!(
        record_routes[1].ends_with("@198.18.0.1:5060;lr>"),
        "{record_routes:?}"
    );
    assert!(rows(&sent.bytes, "Via")[0].starts_with("SIP/2.0/UDP [2001:db8:1::1]:5060;"));

    let dialog = Dialog::set_up(&mut lab, "rr-12");
    let sent = lab
        .send(dialog.by_client("BYE", 2, "z9hG4bK2"), CLIENT)
        .sent();
    assert_eq!((sent.from, sent.to), (dialog.server_side, dialog.server));
    let bye = dialog.by_server("BYE", 1, "z9hG4bK3");
    let sent = lab.deliver(&bye, dialog.server, dialog.server_side).sent();
    assert_eq!(
        (sent.from, sent.to),
        (VIP.parse().unwrap(), CLIENT.parse().unwrap())
    );
}
