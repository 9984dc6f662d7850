//! Overload of our own: who is refused, and how (RFC 7339 §5.10).

use std::time::Duration;

use crate::fixture::*;

/// A lab whose queue is this full, in percent.
fn lab(fill: u8) -> Lab {
    let mut lab = Lab::new(ONE_ARMED);
    note(&mut lab, fill);
    lab
}

fn note(lab: &mut Lab, queue: u8) {
    lab.proxies[0].note_pressure(queue, lab.now);
}

/// Whether a request is refused for overload; what is not must reach a server, or have reached it.
#[track_caller]
fn is_refused(lab: &mut Lab, request: &[u8], from: &str) -> bool {
    let sent = lab.receive(request, from);
    let sent = sent.last().expect("an answer or the request");
    match start_line(&sent.bytes).as_str() {
        "SIP/2.0 503 Service Unavailable" => {
            // RFC 7339 §5.10.2: "without the Retry-After header".
            assert!(rows(&sent.bytes, "Retry-After").is_empty());
            assert_eq!(sent.to, from.parse().unwrap());
            true
        }
        line => {
            assert!(
                !line.starts_with("SIP/2.0") || line == "SIP/2.0 100 Trying",
                "{line}"
            );
            false
        }
    }
}

/// A Call-ID that is refused at this level.
fn unlucky(lab: &mut Lab) -> String {
    let mut calls = (0..100).map(|n| format!("o-{n}"));
    calls
        .find(|call| is_refused(lab, &invite(call, "z9hG4bK0"), CLIENT))
        .expect("one of them is refused")
}

#[test]
fn r7339_only_what_is_new_is_refused() {
    let mut lab = lab(100);
    let call = unlucky(&mut lab);
    for method in ["REGISTER", "OPTIONS", "SUBSCRIBE", "MESSAGE"] {
        let new = request(method, "sip:bob@sip.lab.example", &call, "z9hG4bK2", 1);
        assert!(is_refused(&mut lab, &new, CLIENT), "{method}");
    }
    for method in ["ACK", "BYE", "CANCEL", "PRACK", "UPDATE"] {
        let ongoing = request(method, "sip:bob@sip.lab.example", &call, "z9hG4bK3", 1);
        assert!(!is_refused(&mut lab, &ongoing, CLIENT), "{method}");
    }
    let again = request("INVITE", "sip:bob@sip.lab.example", &call, "z9hG4bK4", 2);
    let in_dialog = replaced(
        &again,
        "<sip:bob@sip.lab.example>\r\n",
        "<sip:bob@sip.lab.example>;tag=b\r\n",
    );
    assert!(!is_refused(&mut lab, &in_dialog, CLIENT));
    let counts = &lab.metrics[0].overload;
    assert_eq!((counts.calls.value(), counts.others.value()), (1, 4));
}

/// A worker that refused everything would do nothing else as long as the flood lasts.
#[test]
fn one_of_ten_new_calls_is_served_however_full_the_queue_is() {
    let mut lab = lab(100);
    assert_eq!(lab.metrics[0].overload.level.value(), 900);
    let calls = (0..1000).map(|n| invite(&format!("o-flood-{n}"), "z9hG4bK1"));
    let refused = calls
        .filter(|call| is_refused(&mut lab, call, CLIENT))
        .count();
    assert!((870..=930).contains(&refused), "{refused} of 1000");
}

/// Forwarding it costs what refusing it would. INVITE alone has transactions here.
#[test]
fn what_needs_no_transaction_is_never_refused() {
    let mut lab = Lab::as_configured(ONE_ARMED);
    note(&mut lab, 100);
    let call = unlucky(&mut lab);
    let options = request("OPTIONS", "sip:bob@sip.lab.example", &call, "z9hG4bK2", 1);
    assert!(!is_refused(&mut lab, &options, CLIENT));
    assert_eq!(lab.metrics[0].overload.others.value(), 0);
}

/// RFC 5031: emergency calls; RFC 4412 §4.7.3: a priority counts from those who are trusted.
#[test]
fn r7339_emergency_calls_and_trusted_priority_pass() {
    let mut lab = lab(100);
    let call = unlucky(&mut lab);
    for (uri, refused) in [
        ("urn:service:sosies", true),
        ("urn:service:sos", false),
        ("urn:service:sos.fire", false),
        ("URN:Service:SOS.police", false),
    ] {
        let branch = format!("z9hG4bK{}", uri.len());
        let sos = request("INVITE", uri, &call, &branch, 1);
        assert_eq!(is_refused(&mut lab, &sos, CLIENT), refused, "{uri}");
        lab.restart();
        note(&mut lab, 100);
    }
    let urgent = with_row(
        &invite(&call, "z9hG4bK7"),
        "Contact",
        "resource-priority: ets.0",
    );
    assert!(
        is_refused(&mut lab, &urgent, CLIENT),
        "anybody can write it"
    );
    assert!(!is_refused(&mut lab, &urgent, "198.18.100.9:5060"));
}

/// A retransmission has the verdict of its request: of one that was taken by its transaction or its
/// pin, of one that was refused by its Call-ID.
#[test]
fn retransmissions_share_the_verdict_of_their_request() {
    let mut lab = lab(100);
    let call = unlucky(&mut lab);
    let mut lab = self::lab(0);
    let taken = invite(&call, "z9hG4bK8");
    let first = lab.call_with(&taken);
    note(&mut lab, 100);
    assert_eq!(what(&lab.receive(&taken, CLIENT)), ["100 client"]);
    lab.forget();
    note(&mut lab, 100);
    assert_eq!(lab.call_with(&taken), first);
    // Half are refused, always the same.
    let mut lab = lab_at_half();
    let verdicts = |lab: &mut Lab| -> Vec<bool> {
        let calls = (0..200).map(|n| invite(&format!("o-half-{n}"), "z9hG4bK9"));
        calls.map(|call| is_refused(lab, &call, CLIENT)).collect()
    };
    let once = verdicts(&mut lab);
    lab.wait(Duration::from_millis(400));
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
            .map(|n| lab.receive(invite(&format!("o-limit-{n}"), "z9hG4bK1"), from))
            .filter(|sent| what(sent) == ["503 client"])
            .count()
    };
    assert_eq!(answered(CLIENT), 10);
    assert!(answered("198.18.100.9:5060") > 30);
}
