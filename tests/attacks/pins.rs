//! A pin holds a transaction together; it is no leave to go anywhere.

use crate::fixture::*;
use crate::tools::*;

/// After an ordinary INVITE of the same Call-ID and CSeq: what a Route or a maddr earned before, it
/// earns now.
#[test]
fn a14_a_pin_opens_no_way_out() {
    for answered in [None, Some(180), Some(200), Some(486)] {
        let mut lab = Lab::with_workers(ONE_ARMED, 2);
        for id in ["pinned-1", "pinned-2", "pinned-3"] {
            let first = routed("INVITE", "sip:bob@sip.lab.example", id, "");
            let first = lab.send(first, STRANGER).sent();
            assert!(is_server(&first));
            if let Some(status) = answered {
                lab.reply(response(&first, status, "b1"), &first).sent();
            }
            for method in ["INVITE", "BYE", "MESSAGE", "OPTIONS", "REFER"] {
                for routes in [
                    format!("Route: <sip:{VICTIM};lr>\r\n"),
                    format!("Route: <sip:198.18.0.1;lr>, <sip:{VICTIM};lr>\r\n"),
                    "Route: <sip:evil.example;lr>\r\n".to_owned(),
                ] {
                    let bytes = routed(method, "sip:bob@sip.lab.example", id, &routes);
                    assert_eq!(
                        status(lab.send(&bytes, STRANGER), STRANGER),
                        403,
                        "{routes}"
                    );
                }
                let uri = format!("sip:bob@sip.lab.example;maddr={VICTIM}");
                let bytes = routed(method, &uri, id, "");
                assert_eq!(status(lab.send(&bytes, STRANGER), STRANGER), 403, "{uri}");
            }
        }
    }
}

/// RFC 3261 §13.2.2.4: the ACK of a 2xx has the CSeq number of its INVITE and follows the route set,
/// also where our token was lost on the way.
#[test]
fn a40_the_ack_of_a_success_follows_its_route_set_and_not_the_pin() {
    let mut lab = Lab::new(ONE_ARMED);
    for n in 0..30 {
        let id = format!("follows-{n}");
        let first = lab.send(invite(&id, "z9hG4bK1"), CLIENT).sent();
        lab.reply(response(&first, 200, "b1"), &first).sent();
        for server in SERVERS {
            for (uri, routes) in [
                (format!("sip:bob@{server}"), String::new()),
                (
                    format!("sip:bob@{server}"),
                    "Route: <sip:198.18.0.1;lr>\r\n".to_owned(),
                ),
                (
                    "sip:bob@x.example".to_owned(),
                    format!("Route: <sip:198.18.0.1;lr>, <sip:{server};lr>\r\n"),
                ),
            ] {
                let ack = request("ACK", &uri, &id, "z9hG4bK2", 1);
                let ack = replaced(&ack, "Max-Forwards", &format!("{routes}Max-Forwards"));
                let sent = lab.send(&ack, CLIENT).sent();
                assert_eq!(sent.to, server.parse().unwrap(), "{uri} {routes}");
            }
        }
    }
}
