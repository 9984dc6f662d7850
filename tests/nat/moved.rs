//! Requests of servers to clients behind a NAT, and clients whose NAT changes its mind.

use std::time::Duration;

use viaduct::verdict::DropReason;

use crate::fixture::*;
use crate::phone::*;

/// A call of the phone at `FLOW`; and its messages from either end.
struct Call {
    dialog: Dialog,
}

impl Call {
    #[track_caller]
    fn set_up(lab: &mut Lab, call_id: &str, contact: &str) -> Self {
        let bytes = invite_of(call_id, &format!("{INSIDE};rport"), contact);
        let sent = lab.send(&bytes, FLOW).sent();
        let back = lab.reply(response(&sent, 200, "b1"), &sent).sent();
        assert_eq!(back.to.to_string(), FLOW);
        Self {
            dialog: Dialog {
                server: sent.to,
                server_side: sent.from,
                record_route: rows(&back.bytes, "Record-Route"),
                call_id: call_id.to_owned(),
            },
        }
    }

    fn by_phone(&self, method: &str, cseq: u32) -> Vec<u8> {
        let branch = format!("z9hG4bKp{cseq}");
        let bytes = self.dialog.by_client(method, cseq, &branch);
        replaced(&bytes, "198.18.200.7:5060", INSIDE)
    }

    /// Where a request of the server, to this Contact, goes.
    #[track_caller]
    fn to_phone(&self, lab: &mut Lab, uri: &str) -> String {
        let bytes = self.dialog.by_server("UPDATE", 7, "z9hG4bKs");
        let bytes = replaced(&bytes, "sip:alice@198.18.200.7:5060", uri);
        let sent = lab
            .deliver(&bytes, self.dialog.server, self.dialog.server_side)
            .sent();
        assert_eq!(sent.from.to_string(), VIP);
        let ok = lab.reply(response(&sent, 200, "a1"), &sent).sent();
        assert_eq!(ok.to, self.dialog.server);
        sent.to.to_string()
    }
}

const CONTACT: &str = "sip:alice@192.168.1.5:5060";

fn bracketed(uri: &str) -> String {
    format!("<{uri}>")
}

/// Where a Contact leads nowhere from here, the flow leads to its client; where it does, it counts.
#[test]
fn a_contact_that_leads_nowhere_gives_way_to_the_flow() {
    for config in [ONE_ARMED, TWO_ARMED] {
        let mut lab = Lab::new(config);
        for (contact, uri, to) in [
            (CONTACT, CONTACT, FLOW),
            (
                "sip:a@x.invalid;transport=ws",
                "sip:a@x.invalid;transport=ws",
                FLOW,
            ),
            ("sip:a@phone.example", "sip:a@phone.example", FLOW),
            (
                "sip:a@203.0.113.50;transport=tcp",
                "sip:a@203.0.113.50;transport=tcp",
                FLOW,
            ),
            ("tel:+15550100", "tel:+15550100", FLOW),
            ("sip:a@198.18.0.1", "sip:a@198.18.0.1", FLOW),
            ("sip:a@0.0.0.0", "sip:a@0.0.0.0", FLOW),
            // A later Contact that can be reached, of a client that is not behind a NAT.
            (
                "sip:a@phone.example",
                "sip:a@203.0.113.99:5070",
                "203.0.113.99:5070",
            ),
            // Behind a NAT whatever it says later.
            (CONTACT, "sip:a@203.0.113.99:5070", FLOW),
        ] {
            let call = Call::set_up(&mut lab, "moved-1", &bracketed(contact));
            assert_eq!(call.to_phone(&mut lab, uri), to, "{contact} {uri}");
        }
    }
}

/// The NAT gives the phone another port, another address; requests follow the last one heard.
#[test]
fn a_client_that_moves_in_the_middle_of_a_call_is_followed() {
    for config in [ONE_ARMED, TWO_ARMED] {
        for method in ["INVITE", "UPDATE", "INFO", "ACK", "BYE"] {
            let mut lab = Lab::with_workers(config, 3);
            let call = Call::set_up(&mut lab, "moved-2", &bracketed(CONTACT));
            assert_eq!(call.to_phone(&mut lab, CONTACT), FLOW);
            for (cseq, place) in [(2, NEWER), (3, "198.51.100.8:9"), (4, NEWER)] {
                let bytes = call.by_phone(method, cseq);
                // Any worker may hear it, and any other send the next request.
                let sent = lab
                    .deliver_at(2, &bytes, place.parse().unwrap(), VIP.parse().unwrap())
                    .sent();
                assert_eq!(sent.to, call.dialog.server);
                assert_eq!(call.to_phone(&mut lab, CONTACT), place, "{method}");
            }
            // Back at the first mapping.
            lab.send(call.by_phone(method, 5), FLOW).sent();
            assert_eq!(call.to_phone(&mut lab, CONTACT), FLOW);
            assert_eq!(lab.metrics[2].flows_moved.value(), 3);
        }
    }
}

/// What leaves for the server does not depend on what is remembered.
#[test]
fn a_retransmission_leaves_as_before_after_a_move() {
    let mut lab = Lab::new(ONE_ARMED);
    let call = Call::set_up(&mut lab, "moved-3", &bracketed(CONTACT));
    let bytes = call.by_phone("INVITE", 2);
    let first = lab.send(&bytes, NEWER).sent();
    assert_eq!(lab.send(&bytes, NEWER).sent(), first);
    lab.restart();
    assert_eq!(lab.send(&bytes, NEWER).sent(), first);
}

/// Two phones behind NATs in one call, both of whose legs pass here: each is followed alone.
#[test]
fn only_the_end_that_moves_is_followed() {
    let mut lab = Lab::new(ONE_ARMED);
    let first = Call::set_up(&mut lab, "moved-4", &bracketed(CONTACT));
    let other = "203.0.113.99:1";
    let bytes = invite_of("moved-4", &format!("{INSIDE};rport"), &bracketed(CONTACT));
    let sent = lab.send(&bytes, other).sent();
    let back = lab.reply(response(&sent, 200, "b1"), &sent).sent();
    let second = Call {
        dialog: Dialog {
            server: sent.to,
            server_side: sent.from,
            record_route: rows(&back.bytes, "Record-Route"),
            call_id: "moved-4".to_owned(),
        },
    };
    lab.send(first.by_phone("INFO", 2), NEWER).sent();
    assert_eq!(first.to_phone(&mut lab, CONTACT), NEWER);
    assert_eq!(second.to_phone(&mut lab, CONTACT), other);
}

#[test]
fn a_move_is_forgotten_after_a_day_and_by_a_restart() {
    let mut lab = Lab::new(ONE_ARMED);
    let call = Call::set_up(&mut lab, "moved-5", &bracketed(CONTACT));
    lab.send(call.by_phone("INFO", 2), NEWER).sent();
    lab.wait(Duration::from_secs(23 * 3600));
    assert_eq!(call.to_phone(&mut lab, CONTACT), NEWER);
    lab.send(call.by_phone("INFO", 3), NEWER).sent();
    lab.wait(Duration::from_secs(23 * 3600));
    assert_eq!(call.to_phone(&mut lab, CONTACT), NEWER);
    lab.wait(Duration::from_secs(3600));
    assert_eq!(call.to_phone(&mut lab, CONTACT), FLOW);
    lab.send(call.by_phone("INFO", 4), NEWER).sent();
    lab.restart();
    assert_eq!(call.to_phone(&mut lab, CONTACT), FLOW);
}

/// A client is moved by nobody but itself: token, Call-ID and tag must be its own.
#[test]
fn nobody_else_moves_a_client() {
    let mut lab = Lab::new(ONE_ARMED);
    let call = Call::set_up(&mut lab, "moved-6", &bracketed(CONTACT));
    let thief = "198.51.100.66:5060";
    let own = row(&call.by_phone("INFO", 2), "Route");
    let bytes = call.by_phone("INFO", 2);
    let damaged = {
        let token = own.split(['@', ':']).nth(1).unwrap();
        let last = token.chars().last().unwrap();
        let other = if last == '0' { '8' } else { '0' };
        let forged = format!("{}{other}", &token[..token.len() - 1]);
        replaced(&bytes, token, &forged)
    };
    for (what, forged) in [
        (
            "no token",
            replaced(&bytes, &format!("Route: {own}\r\n"), ""),
        ),
        ("a damaged token", damaged),
        (
            "another dialog",
            replaced(&bytes, "Call-ID: moved-6", "Call-ID: moved-7"),
        ),
        ("another tag", replaced(&bytes, ";tag=a1", ";tag=b1")),
        ("no To tag", replaced(&bytes, ";tag=b1", "")),
        (
            "through a proxy",
            replaced(
                &bytes,
                "\r\nMax-Forwards",
                "\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\nMax-Forwards",
            ),
        ),
    ] {
        lab.send(&forged, thief).sent();
        assert_eq!(call.to_phone(&mut lab, CONTACT), FLOW, "{what}");
    }
    let cancel = replaced(&bytes, "INFO", "CANCEL");
    lab.send(&cancel, thief).sent();
    assert_eq!(call.to_phone(&mut lab, CONTACT), FLOW);
    // The other end of the dialog, outside as well, moves itself at most.
    let server = call.dialog.by_server("INFO", 3, "z9hG4bKy");
    let _refused_or_not = lab.send(&server, thief);
    assert_eq!(call.to_phone(&mut lab, CONTACT), FLOW);
    assert_eq!(lab.metrics[0].flows_moved.value(), 0);
}

/// Somebody forges our own address as its source: nothing is sent to ourselves.
#[test]
fn a_flow_is_never_our_own_address() {
    let mut lab = Lab::new(ONE_ARMED);
    let call = Call::set_up(&mut lab, "moved-8", &bracketed(CONTACT));
    lab.send(call.by_phone("INFO", 2), "198.18.0.1:5070").sent();
    let bytes = replaced(
        &call.dialog.by_server("BYE", 7, "z9hG4bKs"),
        "sip:alice@198.18.200.7:5060",
        CONTACT,
    );
    let answer = lab
        .deliver(&bytes, call.dialog.server, call.dialog.server_side)
        .sent();
    assert_eq!(start_line(&answer.bytes), "SIP/2.0 403 Forbidden");
    let ack = replaced(&bytes, "BYE", "ACK");
    assert_eq!(
        lab.deliver(&ack, call.dialog.server, call.dialog.server_side)
            .dropped(),
        DropReason::NextHopForbidden
    );
}
