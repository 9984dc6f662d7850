//! Servers that send what no textbook shows: requests in the farm's own hand, and answers that a
//! load balancer must not stumble over.

use std::time::Duration;

use crate::call::{End, SHAPES, Way, message, via};
use crate::fixture::*;

/// A server that answers an in-dialog request with all rows in another order and case, and repeats
/// our Record-Route in every response, as RFC 3261 §12.1.1 forbids nobody.
#[test]
fn a26_record_routes_repeated_inside_a_dialog_stay_as_they_are() {
    for shape in &SHAPES {
        let mut lab = shape.lab();
        let call = shape.call(&mut lab, Way::In, "again");
        let routes: String = call
            .routes(End::Caller)
            .iter()
            .map(|value| format!("Route: {value}\r\n"))
            .collect();
        let target = call.target(End::Caller);
        let info = call.request(End::Caller, "INFO", &target, &routes);
        let sent = call.reaches(&mut lab, End::Caller, &info, shape.name);
        let own = rows(&sent.bytes, "Record-Route");
        let ok = replaced(
            &response(&sent, 200, "b1"),
            "\r\nContact",
            "\r\nRECORD-ROUTE :<sip:x.example;lr>\r\nContact",
        );
        let back = lab.reply(&ok, &sent).sent();
        assert_eq!(
            rows(&back.bytes, "Record-Route"),
            [own, vec!["<sip:x.example;lr>".to_owned()]].concat()
        );
    }
}

/// A server that retransmits its 200 long after, from another worker's queue, and once more after a
/// restart of ours: RFC 3261 §13.3.1.4, RFC 6026 §8.9.
#[test]
fn a40_a_late_200_passes_on_any_worker_after_a_restart() {
    for shape in &SHAPES {
        for way in [Way::In, Way::Out] {
            let mut lab = Lab::with_workers(shape.config, 4);
            let invite = shape.invite(&mut lab, way, "late");
            let ok = response(&invite, 200, "b1");
            let first = lab.reply(&ok, &invite).sent();
            lab.wait(Duration::from_secs(7200));
            lab.restart();
            for worker in 0..4 {
                let back = lab.deliver_at(worker, &ok, invite.to, invite.from).sent();
                assert_eq!(back, first);
            }
        }
    }
}

/// A server that sends its in-dialog request without the route set it was given: the farm sends
/// where its messages say, and a client that is not behind a NAT is reached.
#[test]
fn a14_a_server_that_forgets_its_route_set_still_reaches_the_client() {
    for shape in &SHAPES {
        let mut lab = shape.lab();
        let call = shape.call(&mut lab, Way::In, "forgets");
        let bye = call.request(End::Callee, "BYE", &call.target(End::Callee), "");
        let sent = lab.deliver(&bye, call.callee, call.callee_side).sent();
        assert_eq!(sent.to, call.caller, "{}", shape.name);
        let back = lab.reply(response(&sent, 200, "a1"), &sent).sent();
        assert_eq!(
            (back.to, back.from),
            (call.callee, call.callee_side),
            "{}",
            shape.name
        );
    }
}

/// A server that asks from a port of its own: its answer goes there if it says `rport`, else to the
/// port that it names.
#[test]
fn a44_a_server_may_ask_from_another_port() {
    for shape in &SHAPES {
        let mut lab = shape.lab();
        let (named, to, uri) = shape.caller(Way::Out);
        let mut from = named;
        from.set_port(32_768);
        for (rport, port) in [("", named.port()), (";rport", 32_768)] {
            let row = via(named, "z9hG4bK1") + rport;
            let bytes = message("OPTIONS", &uri, &row, "port", "");
            let sent = lab.deliver(&bytes, from, to).sent();
            assert_eq!(sent.to, shape.client.parse().unwrap());
            let back = lab.reply(response(&sent, 200, "b1"), &sent).sent();
            assert_eq!(
                (back.to.ip(), back.to.port(), back.from),
                (from.ip(), port, to)
            );
        }
    }
}
