//! ACKs as clients send them: RFC 3261 §13.2.2.4, §17.1.1.3.

use std::time::Duration;

use crate::call::{SHAPES, WAYS, Way, message, via};
use crate::fixture::*;

/// Every server of `shape` replaced by one that is not in it.
fn another_farm(config: &str) -> String {
    config
        .replace("name = \"s", "name = \"other")
        .replace("address = \"198.18.1.1", "address = \"198.18.9.1")
        .replace("address = \"[2001:db8:1::1", "address = \"[2001:db8:9::1")
        .replace("198.18.9.1:5060\"\n    side", "198.18.1.1:5060\"\n    side")
        .replace(
            "[2001:db8:9::1]:5060\"\n    side",
            "[2001:db8:1::1]:5060\"\n    side",
        )
}

/// RFC 3261 §17.1.1.3: the ACK of a failure has the branch of its INVITE. Some clients make a new
/// one. The server matches by dialog then, so it must be the same server, whatever became of the
/// table; and no answer of ours.
#[test]
fn a39_the_ack_of_a_failure_with_a_branch_of_its_own_reaches_the_server() {
    for shape in &SHAPES {
        for way in WAYS {
            for (n, changed) in [false, true].into_iter().enumerate() {
                let mut lab = shape.lab();
                let (from, to, uri) = shape.caller(way);
                for call in 0..20 {
                    let id = format!("ack-{n}-{call}");
                    let invite = shape.invite(&mut lab, way, &id);
                    lab.reply(response(&invite, 180, "b1"), &invite).sent();
                    if changed {
                        lab.reload(&another_farm(shape.config));
                        let new = shape.invite(&mut lab, Way::In, &format!("{id}-new"));
                        assert_ne!(new.to.ip(), invite.to.ip(), "nothing changed");
                    }
                    lab.reply(response(&invite, 486, "b1"), &invite).sent();
                    lab.wait(Duration::from_secs(2));
                    for branch in ["z9hG4bKother", "z9hG4bK1", "", "x"] {
                        let ack = message("ACK", &uri, &via(from, branch), &id, "");
                        let ack =
                            replaced(&ack, "<sip:bob@b.example>", "<sip:bob@b.example>;tag=b1");
                        let mut moved = from;
                        moved.set_port(40_000);
                        for source in [from, moved] {
                            let sent = lab.deliver(&ack, source, to).sent();
                            assert_eq!(sent.to, invite.to, "{} {way:?} {branch}", shape.name);
                            assert!(sent.bytes.starts_with(b"ACK "));
                        }
                    }
                    lab.reload(shape.config);
                }
            }
        }
    }
}

/// RFC 3261 §13.2.2.4: the ACK of a 2xx is a request of its own, with a branch of its own. Some
/// clients use the INVITE's. It follows the route set all the same.
#[test]
fn a40_the_ack_of_a_success_with_the_branch_of_its_invite_reaches_the_server() {
    use crate::call::{End, via};
    for shape in &SHAPES {
        for way in WAYS {
            let mut lab = shape.lab();
            let call = shape.call(&mut lab, way, "ack-2xx");
            lab.restart();
            if way == Way::In {
                lab.reload(&another_farm(shape.config));
            }
            let routes: String = call
                .routes(End::Caller)
                .iter()
                .map(|value| format!("Route: {value}\r\n"))
                .collect();
            for branch in ["z9hG4bK1", "z9hG4bKother", "", "1"] {
                let target = call.target(End::Caller);
                let ack = call.request(End::Caller, "ACK", &target, &routes);
                let plain = via(call.caller, "z9hG4bKACK");
                let ack = replaced(&ack, &plain, &via(call.caller, branch));
                let what = format!("{} {way:?} {branch}", shape.name);
                call.reaches(&mut lab, End::Caller, &ack, &what);
            }
        }
    }
}
