//! Which messages make a source known to the limiter: a server's 2xx to an INVITE or a REGISTER.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "rfc3261_16/fixture.rs"]
mod fixture;

use fixture::{CLIENT, Lab, ONE_ARMED, request, response};

/// Whether the answer of a server with this status makes the caller known.
fn makes_known(lab: &mut Lab, method: &str, status: u16) -> bool {
    let call_id = format!("known-{method}-{status}");
    let branch = format!("z9hG4bK{method}{status}");
    let bytes = request(method, "sip:bob@sip.lab.example", &call_id, &branch, 1);
    let sent = lab.send(bytes, CLIENT).sent();
    assert!(!lab.forwarders[0].was_acceptance(), "a request");
    let back = lab.reply(response(&sent, status, "b1"), &sent).sent();
    assert_eq!(back.to, CLIENT.parse().unwrap());
    lab.forwarders[0].was_acceptance()
}

#[test]
fn a_call_or_a_registration_that_is_accepted_makes_known() {
    let mut lab = Lab::new(ONE_ARMED);
    for method in ["INVITE", "REGISTER"] {
        for status in [200, 202, 299] {
            assert!(makes_known(&mut lab, method, status), "{method} {status}");
        }
    }
}

/// What a server answers to anybody, before it has asked for a password.
#[test]
fn what_anybody_gets_makes_nobody_known() {
    let mut lab = Lab::new(ONE_ARMED);
    for method in ["INVITE", "REGISTER"] {
        for status in [100, 180, 302, 401, 403, 404, 407, 486, 503, 603] {
            assert!(!makes_known(&mut lab, method, status), "{method} {status}");
        }
    }
    for method in ["OPTIONS", "CANCEL", "MESSAGE", "SUBSCRIBE"] {
        assert!(!makes_known(&mut lab, method, 200), "{method}");
    }
    // An answer of our own.
    let options = request("OPTIONS", "sip:198.18.0.1", "own", "z9hG4bKown", 1);
    let own = lab.send(options, CLIENT).sent();
    assert!(own.bytes.starts_with(b"SIP/2.0 200"));
    assert!(!lab.forwarders[0].was_acceptance());
}
