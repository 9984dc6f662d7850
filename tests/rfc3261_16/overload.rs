//! Overload of our own: who is refused, and how (RFC 7339 §5.10).

use std::time::Duration;

use viaduct::forward::Signals;

use crate::fixture::*;

/// A lab whose queue is this full, in percent.
fn lab(fill: u8) -> Lab {
    let mut lab = Lab::new(ONE_ARMED);
    note(&mut lab, fill);
    lab
}

fn note(lab: &mut Lab, queue: u8) {
    let signals = Signals { queue, table: 0 };
    lab.forwarders[0].note_signals(signals, lab.now);
}

/// Whether a request is refused for overload; what is not must reach a server.
#[track_caller]
fn is_refused(lab: &mut Lab, request: &[u8], from: &str) -> bool {
    let sent = lab.send(request, from).sent();
    match start_line(&sent.bytes).as_str() {
        "SIP/2.0 503 Service Unavailable" => {
            // RFC 7339 §5.10.2: "without the Retry-After header".
            assert!(rows(&sent.bytes, "Retry-After").is_empty());
            assert_eq!(sent.to, from.parse().unwrap());
            true
        }
        line => {
            assert!(!line.starts_with("SIP/2.0"), "{line}");
            false
        }
    }
}

#[test]
fn r7339_only_what_is_new_is_refused() {
    let mut lab = lab(100);
    assert!(is_refused(&mut lab, &invite("o-1", "z9hG4bK1"), CLIENT));
    for method in ["REGISTER", "OPTIONS", "SUBSCRIBE", "MESSAGE"] {
        let new = request(method, "sip:bob@sip.lab.example", "o-2", "z9hG4bK2", 1);
        assert!(is_refused(&mut lab, &new, CLIENT), "{method}");
    }
    for method in ["ACK", "BYE", "CANCEL", "PRACK", "UPDATE"] {
        let ongoing = request(method, "sip:bob@sip.lab.example", "o-3", "z9hG4bK3", 1);
        assert!(!is_refused(&mut lab, &ongoing, CLIENT), "{method}");
    }
    let again = request("INVITE", "sip:bob@sip.lab.example", "o-4", "z9hG4bK4", 2);
    let in_dialog = replaced(
        &again,
        "<sip:bob@sip.lab.example>\r\n",
        "<sip:bob@sip.lab.example>;tag=b\r\n",
    );
    assert!(!is_refused(&mut lab, &in_dialog, CLIENT));
    let counts = &lab.metrics[0].overload;
    assert_eq!((counts.calls.value(), counts.others.value()), (1, 4));
    assert_eq!(counts.level.value(), 1000);
}

/// RFC 5031: emergency calls; RFC 4412 §4.7.3: a priority counts from those who are trusted.
#[test]
fn r7339_emergency_calls_and_trusted_priority_pass() {
    let mut lab = lab(100);
    for uri in [
        "urn:service:sos",
        "urn:service:sos.fire",
        "URN:Service:SOS.police",
    ] {
        let sos = request("INVITE", uri, "o-5", "z9hG4bK5", 1);
        assert!(!is_refused(&mut lab, &sos, CLIENT), "{uri}");
    }
    let other = request("INVITE", "urn:service:sosies", "o-6", "z9hG4bK6", 1);
    assert!(is_refused(&mut lab, &other, CLIENT));
    let urgent = with_row(
        &invite("o-7", "z9hG4bK7"),
        "Contact",
        "resource-priority: ets.0",
    );
    assert!(
        is_refused(&mut lab, &urgent, CLIENT),
        "anybody can write it"
    );
    assert!(!is_refused(&mut lab, &urgent, "198.18.100.9:5060"));
}

/// A retransmission has the verdict of its request: of one that was taken by its pin, of one that was
/// refused by its Call-ID.
#[test]
fn retransmissions_share_the_verdict_of_their_request() {
    let mut lab = lab(0);
    let taken = invite("o-8", "z9hG4bK8");
    let first = lab.send(&taken, CLIENT).sent();
    note(&mut lab, 100);
    assert_eq!(lab.send(&taken, CLIENT).sent(), first);
    // Half are refused, always the same.
    let mut lab = lab_at_half();
    let verdicts = |lab: &mut Lab| -> Vec<bool> {
        let calls = (0..200).map(|n| invite(&format!("o-half-{n}"), "z9hG4bK9"));
        calls.map(|call| is_refused(lab, &call, CLIENT)).collect()
    };
    let once = verdicts(&mut lab);
    lab.wait(Duration::from_millis(500));
    note(&mut lab, 35);
    assert_eq!(verdicts(&mut lab), once);
    let refused = once.iter().filter(|refused| **refused).count();
    assert!((70..=130).contains(&refused), "{refused} of 200");
}

/// A queue that stays a third full: a moment of it would be a burst and no overload.
fn lab_at_half() -> Lab {
    let mut lab = lab(35);
    lab.wait(Duration::from_millis(5));
    note(&mut lab, 35);
    lab
}

#[test]
fn a_burst_is_no_overload() {
    let mut lab = lab(35);
    for n in 0..200 {
        let call = invite(&format!("o-burst-{n}"), "z9hG4bK9");
        assert!(!is_refused(&mut lab, &call, CLIENT));
    }
}

/// The limit of answers to one stranger holds for these too; who is trusted gets them all.
#[test]
fn answers_under_overload_are_limited_like_all_and_never_all_lost() {
    let mut lab = Lab::new(&format!("{ONE_ARMED}\n[sip]\nanswers_per_source = 10\n"));
    note(&mut lab, 100);
    let mut answered = |from: &str| {
        (0..50)
            .filter(|n| {
                let call = invite(&format!("o-limit-{n}"), "z9hG4bK1");
                matches!(lab.send(&call, from), Outcome::Sent(_))
            })
            .count()
    };
    assert_eq!(answered(CLIENT), 10);
    assert_eq!(answered("198.18.100.9:5060"), 50);
}
