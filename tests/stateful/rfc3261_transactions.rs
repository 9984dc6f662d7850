//! RFC 3261 §16.6 to §16.10 and §17: what a proxy does only with a transaction.

use std::time::Duration;

use viaduct::proxy::Room;
use viaduct::verdict::{DropReason, Verdict};

use crate::fixture::*;

/// RFC 3261 §7.3, §17.1.1.3, §9.1: however the client spells it, our ACK and CANCEL match.
#[test]
fn a01_the_tortuous_invite_is_cancelled_and_acknowledged_by_us() {
    const SOURCE: &str = "192.0.2.2:5060";
    let invite = data("rfc4475/wsinv.dat");
    // At the proxy that its Route names.
    let mut lab = Lab::new(&ONE_ARMED.replace("sip.lab.example", "services.example.com"));
    let sent = lab.receive(&invite, SOURCE);
    assert_eq!(what(&sent)[0], "100 client");
    let forwarded = sent[1].clone();
    let cancel = replaced(&invite, "INVITE", "CANCEL");
    assert_eq!(what(&lab.receive(cancel, SOURCE)), ["200 client"]);
    let server = server(forwarded.to);
    let sent = lab.answer_with(&forwarded, ringing(&forwarded, 180));
    assert_eq!(
        what(&sent),
        [format!("CANCEL {server}"), "180 client".into()]
    );
    let cancel = &sent[0].bytes;
    assert_eq!(branch(cancel), branch(&forwarded.bytes));
    assert_eq!(row(cancel, "Max-Forwards"), "70");
    assert_eq!(
        start_line(cancel),
        start_line(&forwarded.bytes).replace("INVITE", "CANCEL")
    );
    let sent = lab.answer_with(&forwarded, ringing(&forwarded, 487));
    assert_eq!(what(&sent), [format!("ACK {server}"), "487 client".into()]);
    assert_eq!(branch(&sent[0].bytes), branch(&forwarded.bytes));
    assert!(text(&sent[0].bytes).contains("wsinv.ndaksdj@192.0.2.1"));
    lab.assert_ends();
}

/// A response whose rows have the spelling of the request: LWS, folds and compact names included.
fn ringing(to: &Sent, status: u16) -> Vec<u8> {
    let all = text(&to.bytes);
    let (head, _) = all.split_once("\r\n\r\n").unwrap();
    let unfolded = head.replace("\r\n ", "\u{1}").replace("\r\n\t", "\u{2}");
    let mut out = format!("SIP/2.0 {status} Reason\r\n");
    for row in unfolded.split("\r\n").skip(1) {
        let name = row.split(':').next().unwrap().trim().to_ascii_lowercase();
        let kept = ["via", "v", "from", "f", "to", "t", "call-id", "i", "cseq"];
        if kept.contains(&name.as_str()) {
            out += &row.replace('\u{1}', "\r\n ").replace('\u{2}', "\r\n\t");
            out += "\r\n";
        }
    }
    (out + "\r\n").into_bytes()
}

/// RFC 3261 §16.3, §8.2.7: what is refused at the door opens no transaction; §17.2.1 would repeat
/// the answer.
#[test]
fn a48_a_refused_request_opens_no_transaction() {
    let mut lab = Lab::new(ONE_ARMED);
    for (from, to) in [
        ("Max-Forwards: 70", "Max-Forwards: 0"),
        ("SIP/2.0\r\nVia", "SIP/3.0\r\nVia"),
        ("INVITE sip:bob", "INVITE nobody:bob"),
        ("CSeq: 1 INVITE", "CSeq: 1 OPTIONS"),
    ] {
        let bytes = replaced(&invite("t-0", "z9hG4bK1"), from, to);
        assert_eq!(lab.receive(&bytes, CLIENT).len(), 1, "{to}");
        assert_eq!(lab.open(), 0, "{to}");
        assert!(lab.pass(Duration::from_secs(40)).is_empty());
    }
}

/// RFC 3261 §16.6 step 8, RFC 3263 §4.3: each attempt has a branch of its own, and the client one
/// 100 and one final response.
#[test]
fn a19_each_attempt_has_its_branch_and_the_client_one_final_response() {
    let mut lab = Lab::new(ONE_ARMED);
    let mut attempt = lab.call("t-1");
    let mut seen = vec![(branch(&attempt.bytes), attempt.to)];
    for _ in 0..2 {
        let sent = lab.answer(&attempt, 503);
        assert_eq!(what(&sent)[0], format!("ACK {}", server(attempt.to)));
        assert_eq!(sent.len(), 2, "{}", what(&sent).join(", "));
        attempt = sent[1].clone();
        seen.push((branch(&attempt.bytes), attempt.to));
    }
    let sent = lab.answer(&attempt, 200);
    assert_eq!(what(&sent), ["200 client"]);
    for (index, (branch, to)) in seen.iter().enumerate() {
        assert!(
            seen[..index]
                .iter()
                .all(|other| other.0 != *branch && other.1 != *to)
        );
    }
    lab.assert_ends();
}

/// RFC 3261 §16.8: Timer C runs over three minutes, is reset by 101 to 199 and not by 100; then what
/// rings is cancelled, and what never rang counts as a 408.
#[test]
fn a21_timer_c_is_reset_by_ringing_only() {
    let mut lab = Lab::new(ONE_SERVER);
    let call = lab.call("t-2");
    for _ in 0..5 {
        assert_eq!(what(&lab.answer(&call, 180)), ["180 client"]);
        assert_eq!(what(&lab.pass(Duration::from_secs(120))), [""; 0]);
    }
    // The last 180 was two minutes ago.
    assert_eq!(what(&lab.pass(Duration::from_secs(59))), [""; 0]);
    let sent = lab.pass(Duration::from_secs(20));
    assert_eq!(what(&sent)[0], "CANCEL s1");
    assert_eq!(what(&lab.answer(&call, 487)), ["ACK s1", "487 client"]);

    // A 100 does not reset it: a server that keeps saying so is no ringing phone.
    let call = lab.call("t-3");
    let mut sent = Vec::new();
    for _ in 0..8 {
        sent.extend(lab.answer(&call, 100));
        sent.extend(lab.pass(Duration::from_secs(30)));
    }
    let sent = what(&sent);
    assert!(
        sent.iter()
            .any(|what| what == "CANCEL s1" || what == "408 client"),
        "{sent:?}"
    );
    lab.assert_ends();
}

/// RFC 3261 §16.7 step 3.
#[test]
fn a22_a_response_to_a_request_of_ours_goes_no_further() {
    let mut lab = Lab::new(ONE_SERVER);
    let call = lab.call("t-4");
    lab.answer(&call, 180);
    let cancel = client_cancel(&invite("t-4", "z9hG4bK1"));
    let sent = lab.receive(cancel, CLIENT);
    assert_eq!(what(&sent), ["CANCEL s1", "200 client"]);
    assert_eq!(what(&lab.answer(&sent[0], 200)), [""; 0]);
    assert_eq!(lab.verdict, Verdict::Absorb);
}

/// RFC 3261 §16.7 step 5: no 100 of a server, every other provisional and every 2xx at once, one
/// final response of the others.
#[test]
fn a23_provisional_responses_and_each_2xx_are_forwarded() {
    let mut lab = Lab::new(ONE_SERVER);
    let call = lab.call("t-5");
    assert_eq!(what(&lab.answer(&call, 100)), [""; 0]);
    for status in [180, 183, 183, 199, 180] {
        assert_eq!(
            what(&lab.answer(&call, status)),
            [format!("{status} client")]
        );
    }
    // Two phones have answered behind the server.
    for tag in ["b1", "b2", "b1"] {
        let sent = lab.answer_with(&call, response(&call, 200, tag));
        assert_eq!(what(&sent), ["200 client"]);
        assert_eq!(crate::fixture::tag(&sent[0].bytes, "To").unwrap(), tag);
    }
    // Nothing else after that.
    assert_eq!(what(&lab.answer(&call, 180)), [""; 0]);
    assert_eq!(what(&lab.answer(&call, 486)), [""; 0]);
}

/// RFC 3261 §16.7 step 6: the best of what came; only 503s become a 500; a 6xx is the last word; the
/// To tag of what is forwarded stays.
#[test]
fn a24_the_best_response_is_forwarded() {
    let cases: &[(&[u16], u16)] = &[
        (&[503, 503, 503], 500),
        (&[503, 486], 486),
        (&[503, 404], 404),
        (&[503, 603], 603),
        (&[503, 607], 607),
        (&[503, 503, 500], 500),
        (&[503, 302], 302),
        (&[503, 503, 401], 401),
    ];
    for (number, (statuses, expected)) in cases.iter().enumerate() {
        let mut lab = Lab::new(ONE_ARMED);
        let mut attempt = lab.call(&format!("t-6-{number}"));
        for (index, status) in statuses.iter().enumerate() {
            let mut sent = lab.answer(&attempt, *status);
            let last = sent.pop().unwrap();
            if index + 1 < statuses.len() {
                assert!(
                    start_line(&last.bytes).starts_with("INVITE "),
                    "{statuses:?}"
                );
                attempt = last;
            } else {
                assert_eq!(
                    what(std::slice::from_ref(&last)),
                    [format!("{expected} client")],
                    "{statuses:?}"
                );
                if *status == *expected && *expected != 500 {
                    let kept = format!("tag-{}", server(attempt.to));
                    assert_eq!(tag(&last.bytes, "To"), Some(kept));
                }
                assert!(rows(&last.bytes, "Retry-After").is_empty());
            }
        }
        lab.assert_ends();
    }
}

/// RFC 3261 §16.7 step 9: a response passed up from a transaction keeps received and rport.
#[test]
fn a27_received_and_rport_of_the_next_via_stay_with_a_transaction() {
    let mut lab = Lab::new(ONE_SERVER);
    let invite = replaced(
        &invite("t-7", "z9hG4bK1"),
        "branch=z9hG4bK1",
        "rport;branch=z9hG4bK1",
    );
    let sent = lab.receive(invite, "198.18.200.7:40000");
    let ringing = lab.answer(&sent[1], 180);
    assert_eq!(ringing[0].to, "198.18.200.7:40000".parse().unwrap());
    let expected =
        "SIP/2.0/UDP 198.18.200.7:5060;rport=40000;received=198.18.200.7;branch=z9hG4bK1";
    assert_eq!(row(&ringing[0].bytes, "Via"), expected);
    assert_eq!(row(&sent[0].bytes, "Via"), expected);
}

/// RFC 3261 §16.7 step 10: a final response ends the branches that are pending.
#[test]
fn a28_a_2xx_cancels_the_branch_that_was_given_up() {
    let mut lab = Lab::new(ONE_ARMED);
    let first = lab.call("t-8");
    let sent = lab.millis(2_100);
    let second = sent.last().unwrap().clone();
    assert_ne!(second.to, first.to);
    assert_eq!(what(&lab.answer(&second, 200)), ["200 client"]);
    // RFC 3261 §9.1: not before it has said something.
    assert!(
        lab.millis(300)
            .iter()
            .all(|sent| !start_line(&sent.bytes).starts_with("CANCEL"))
    );
    let sent = lab.answer(&first, 180);
    assert_eq!(what(&sent), [format!("CANCEL {}", server(first.to))]);
    assert_eq!(branch(&sent[0].bytes), branch(&first.bytes));
    // RFC 3326 §3.1: it was answered at the other one.
    assert_eq!(
        row(&sent[0].bytes, "Reason"),
        "SIP;cause=200;text=\"Call completed elsewhere\""
    );
    lab.assert_ends();
}

/// RFC 3261 §16.9: a request that cannot be delivered is a 503: the next server is tried, at once.
#[test]
fn a29_an_unreachable_server_is_left_at_once() {
    let mut lab = Lab::new(ONE_ARMED);
    let first = lab.call("t-9");
    let sent = lab.unreachable(&first);
    assert_eq!(sent.len(), 1, "{}", what(&sent).join(", "));
    assert!(what(&sent)[0].starts_with("INVITE s"));
    assert_ne!(sent[0].to, first.to);
    // It is not asked again, and what it says about something older counts no more.
    assert!(lab.millis(1_900).iter().all(|sent| sent.to != first.to));
    let second = sent[0].clone();
    assert_eq!(what(&lab.answer(&second, 180)), ["180 client"]);
    assert_eq!(what(&lab.unreachable(&second)), [""; 0]);
    assert_eq!(what(&lab.answer(&second, 200)), ["200 client"]);
}

/// RFC 3261 §16.9: all unreachable is all 503.
#[test]
fn a29_all_unreachable_is_one_final_response() {
    let mut lab = Lab::new(ONE_SERVER);
    let call = lab.call("t-10");
    let sent = lab.unreachable(&call);
    assert_eq!(what(&sent), ["500 client"]);
    lab.receive(client_ack(&invite("t-10", "z9hG4bK1"), &sent[0]), CLIENT);
    lab.assert_ends();
}

/// RFC 3261 §16.10, §9.2: 200 at once, with the tag of our other answers; the 487 comes from the
/// server and is acknowledged by us.
#[test]
fn a30_a_cancel_is_answered_here_and_ends_the_call() {
    let mut lab = Lab::new(ONE_SERVER);
    let bytes = invite("t-11", "z9hG4bK1");
    let call = lab.call_with(&bytes);
    lab.answer(&call, 180);
    let sent = lab.receive(client_cancel(&bytes), CLIENT);
    assert_eq!(what(&sent), ["CANCEL s1", "200 client"]);
    assert_eq!(row(&sent[1].bytes, "CSeq"), "1 CANCEL");
    assert_eq!(branch(&sent[0].bytes), branch(&call.bytes));
    assert_eq!(sent[0].to, call.to);
    // The client repeats it: again 200, nothing more downstream.
    assert_eq!(
        what(&lab.receive(client_cancel(&bytes), CLIENT)),
        ["200 client"]
    );
    assert_eq!(what(&lab.answer(&sent[0], 200)), [""; 0]);
    let sent = lab.answer(&call, 487);
    assert_eq!(what(&sent), ["ACK s1", "487 client"]);
    assert_eq!(tag(&sent[1].bytes, "To").unwrap(), "tag-s1");
    assert_eq!(
        what(&lab.receive(client_ack(&bytes, &sent[1]), CLIENT)),
        [""; 0]
    );
    lab.assert_ends();
}

/// RFC 3261 §9.2: a CANCEL has no effect on what has its final response; it is answered all the same.
#[test]
fn a30_a_cancel_after_the_answer_changes_nothing() {
    let mut lab = Lab::new(ONE_SERVER);
    let bytes = invite("t-12", "z9hG4bK1");
    let call = lab.call_with(&bytes);
    lab.answer(&call, 200);
    assert_eq!(
        what(&lab.receive(client_cancel(&bytes), CLIENT)),
        ["200 client"]
    );
    assert_eq!(what(&lab.pass(Duration::from_secs(5))), [""; 0]);
}

/// RFC 3261 §16.10: without a context the CANCEL is forwarded, on the branch that the INVITE had.
#[test]
fn a30_after_a_restart_a_cancel_goes_on_with_its_branch() {
    let mut lab = Lab::new(ONE_ARMED);
    let bytes = invite("t-13", "z9hG4bK1");
    let call = lab.call_with(&bytes);
    lab.restart();
    let sent = lab.receive(client_cancel(&bytes), CLIENT);
    assert_eq!(what(&sent), [format!("CANCEL {}", server(call.to))]);
    assert_eq!(branch(&sent[0].bytes), branch(&call.bytes));
    // Its 200 is that of the server: nobody else makes one.
    assert_eq!(what(&lab.answer(&sent[0], 200)), ["200 client"]);
}

/// RFC 3261 §9.1: not before a provisional response; a 100 is one.
#[test]
fn a31_a_cancel_waits_for_a_provisional_response() {
    for first in [100, 180] {
        let mut lab = Lab::new(ONE_SERVER);
        let bytes = invite("t-14", "z9hG4bK1");
        let call = lab.call_with(&bytes);
        assert_eq!(
            what(&lab.receive(client_cancel(&bytes), CLIENT)),
            ["200 client"]
        );
        let silent = lab.millis(1_000);
        assert!(
            what(&silent).iter().all(|what| what == "INVITE s1"),
            "{:?}",
            what(&silent)
        );
        let sent = lab.answer(&call, first);
        assert_eq!(what(&sent)[0], "CANCEL s1");
        let cancel = &sent[0];
        assert_eq!((cancel.to, cancel.from), (call.to, call.from));
        assert_eq!(rows(&cancel.bytes, "Via").len(), 1);
        assert_eq!(row(&cancel.bytes, "To"), row(&bytes, "To"));
    }
}

/// RFC 3261 §9.1, §17.1.2: the CANCEL is repeated while nobody answers it, and 64·T1 later the
/// INVITE is over.
#[test]
fn a31_a_cancel_is_repeated_and_ends_the_invite() {
    let mut lab = Lab::new(ONE_SERVER);
    let bytes = invite("t-15", "z9hG4bK1");
    let call = lab.call_with(&bytes);
    lab.answer(&call, 180);
    lab.receive(client_cancel(&bytes), CLIENT);
    let sent = lab.pass(Duration::from_secs(31));
    // Timer E: 0.5, 1.5, 3.5, 7.5, 11.5 … 27.5 or 31.5.
    let repeats = what(&sent)
        .iter()
        .filter(|what| *what == "CANCEL s1")
        .count();
    assert!((9..=10).contains(&repeats), "{:?}", what(&sent));
    let sent = lab.pass(Duration::from_secs(3));
    assert!(
        what(&sent).contains(&"487 client".to_owned()),
        "{:?}",
        what(&sent)
    );
    lab.assert_ends();
}

/// RFC 3261 §16.11, A35: with a transaction, too, the branch is a function of what came: a restart
/// does not change it, and the mode is part of it.
#[test]
fn a35_the_branch_survives_a_restart() {
    let mut lab = Lab::new(ONE_ARMED);
    let before = lab.call("t-16");
    lab.restart();
    let after = lab.call("t-16");
    assert_eq!(before, after);
    assert!(branch(&after.bytes).starts_with("z9hG4bKt0"));
    lab.forget();
    let other = lab.call_with(invite("t-16", "z9hG4bK2"));
    assert_ne!(branch(&other.bytes), branch(&after.bytes));
}

/// RFC 3261 §17.1.3: a response that no branch of the transaction made is not taken.
#[test]
fn a36_a_response_must_match_branch_and_method() {
    let mut lab = Lab::new(ONE_SERVER);
    let call = lab.call("t-17");
    let ok = response(&call, 200, "b1");
    for (from, to) in [
        ("CSeq: 1 INVITE", "CSeq: 2 INVITE"),
        ("CSeq: 1 INVITE", "CSeq: 1 OPTIONS"),
    ] {
        assert_eq!(
            what(&lab.answer_with(&call, replaced(&ok, from, to))),
            [""; 0]
        );
        assert_eq!(
            lab.verdict,
            Verdict::Drop(DropReason::ResponseStray),
            "{to}"
        );
    }
    assert_eq!(what(&lab.answer_with(&call, &ok)), ["200 client"]);
}

/// RFC 3261 §17.2.1, §8.2.6.1: a 100 at once with the Timestamp; a retransmitted INVITE gets the last
/// provisional response again and goes no further.
#[test]
fn a37_a_100_at_once_and_the_last_response_again() {
    let mut lab = Lab::new(ONE_SERVER);
    let bytes = with_row(&invite("t-18", "z9hG4bK1"), "Contact", "Timestamp: 54.5");
    let sent = lab.receive(&bytes, CLIENT);
    assert_eq!(what(&sent), ["100 client", "INVITE s1"]);
    assert_eq!(row(&sent[0].bytes, "Timestamp"), "54.5");
    assert_eq!(tag(&sent[0].bytes, "To"), None);
    assert_eq!(what(&lab.receive(&bytes, CLIENT)), ["100 client"]);
    lab.answer(&sent[1], 183);
    assert_eq!(what(&lab.receive(&bytes, CLIENT)), ["183 client"]);
    lab.answer(&sent[1], 180);
    assert_eq!(what(&lab.receive(&bytes, CLIENT)), ["180 client"]);
}

/// RFC 3261 §17.1.1.2: over UDP at 0.5 and 1.5 s, and not after a provisional response.
#[test]
fn a37_the_invite_is_repeated_until_something_comes() {
    let mut lab = Lab::new(ONE_SERVER);
    let call = lab.call("t-19");
    assert_eq!(what(&lab.millis(490)), [""; 0]);
    let sent = lab.millis(20);
    assert_eq!(sent, std::slice::from_ref(&call));
    assert_eq!(lab.millis(1_000), std::slice::from_ref(&call));
    lab.answer(&call, 100);
    assert_eq!(what(&lab.pass(Duration::from_secs(60))), [""; 0]);
}

/// RFC 3261 §17.2.3: sent-by is part of a transaction's name, and the port of it.
#[test]
fn a38_equal_branches_of_two_clients_are_two_transactions() {
    let mut lab = Lab::new(ONE_SERVER);
    let bytes = invite("t-20", "z9hG4bK1");
    let first = lab.call_with(&bytes);
    let other = replaced(&bytes, "UDP 198.18.200.7:5060", "UDP 198.18.200.7:5099");
    let second = lab.call_with(&other);
    assert_ne!(branch(&first.bytes), branch(&second.bytes));
    assert_eq!(lab.open(), 2);
    // RFC 3261 §17.2.3: and without the cookie by what RFC 2543 had.
    let old = replaced(&bytes, "branch=z9hG4bK1", "branch=1");
    let old = replaced(&old, "t-20", "t-21");
    let third = lab.call_with(&old);
    assert_eq!(what(&lab.receive(&old, CLIENT)), ["100 client"]);
    assert_ne!(branch(&third.bytes), branch(&first.bytes));
    assert_eq!(lab.open(), 3);
}

/// RFC 3261 §17.1.1.3, §17.2.1: our ACK, at once and for each copy; the client's is not forwarded,
/// and without it the response is repeated.
#[test]
fn a39_the_ack_of_a_failure_is_ours() {
    let mut lab = Lab::new(ONE_SERVER);
    let bytes = invite("t-22", "z9hG4bK1");
    let call = lab.call_with(&bytes);
    let sent = lab.answer(&call, 486);
    assert_eq!(what(&sent), ["ACK s1", "486 client"]);
    let ack = &sent[0].bytes;
    assert_eq!(row(ack, "Via"), rows(&call.bytes, "Via")[0]);
    assert_eq!(tag(ack, "To").unwrap(), "tag-s1");
    assert_eq!(row(ack, "CSeq"), "1 ACK");
    assert_eq!(
        start_line(ack),
        start_line(&call.bytes).replace("INVITE", "ACK")
    );
    assert_eq!(what(&lab.answer(&call, 486)), ["ACK s1"]);
    // Timer G: 0.5, 1.5, 3.5 s.
    assert_eq!(what(&lab.millis(3_600)), ["486 client"; 3]);
    let ack = client_ack(&bytes, &sent[1]);
    assert_eq!(what(&lab.receive(ack, CLIENT)), [""; 0]);
    assert_eq!(lab.verdict, Verdict::Absorb);
    assert_eq!(what(&lab.pass(Duration::from_secs(30))), [""; 0]);
    lab.assert_ends();
}

/// RFC 3261 §17, §13.3.1.4: 2xx and its ACK are end to end: nothing of them is ours.
#[test]
fn a40_each_200_and_each_ack_passes() {
    let mut lab = Lab::new(ONE_SERVER);
    let call = lab.call("t-23");
    let ok = response(&call, 200, "b1");
    let first = lab.answer_with(&call, &ok);
    let dialog_routes = rows(&first[0].bytes, "Record-Route");
    let routes: String = dialog_routes
        .iter()
        .map(|value| format!("Route: {value}\r\n"))
        .collect();
    let ack = request("ACK", "sip:198.18.1.11:5060", "t-23", "z9hG4bKack", 1);
    let ack = replaced(&ack, "Max-Forwards", &format!("{routes}Max-Forwards"));
    let ack = replaced(
        &ack,
        "To: Bob <sip:bob@sip.lab.example>",
        "To: Bob <sip:bob@sip.lab.example>;tag=b1",
    );
    for _ in 0..4 {
        assert_eq!(what(&lab.millis(900)), [""; 0]);
        assert_eq!(what(&lab.answer_with(&call, &ok)), ["200 client"]);
        assert_eq!(what(&lab.receive(&ack, CLIENT)), ["ACK s1"]);
    }
}

/// RFC 3261 §18.4, A46: an ICMP error whose quote we did not send ends nothing.
#[test]
fn a46_a_forged_icmp_error_ends_no_call() {
    let mut lab = Lab::new(ONE_ARMED);
    let call = lab.call("t-24");
    let via = via_parameter(&call.bytes, "v");
    let mut forged = call.clone();
    let other = via.replace(['0', '1', '2'], "3");
    forged.bytes = replaced(&call.bytes, &via, &other);
    assert_eq!(what(&lab.unreachable(&forged)), [""; 0]);
    assert_eq!(what(&lab.answer(&call, 180)), ["180 client"]);
}

/// RFC 5057 §5.1: what we say inside a dialog ends the transaction only.
#[test]
fn a51_own_answers_inside_a_dialog_end_no_dialog() {
    let mut lab = Lab::new(ONE_SERVER);
    let dialog = Dialog::set_up(&mut lab, "t-25");
    // Its server is gone.
    let sent = lab.receive(dialog.by_client("INVITE", 2, "z9hG4bK2"), CLIENT);
    assert_eq!(what(&sent), ["100 client", "INVITE s1"]);
    let sent = lab.pass(Duration::from_secs(40));
    let last = what(&sent)
        .into_iter()
        .find(|what| what.ends_with("client"));
    assert_eq!(last.as_deref(), Some("408 client"), "{:?}", what(&sent));
    let sent = lab.receive(dialog.by_client("INVITE", 3, "z9hG4bK3"), CLIENT);
    assert_eq!(what(&lab.unreachable(&sent[1])), ["500 client"]);
    let sent = lab.receive(dialog.by_client("INVITE", 4, "z9hG4bK4"), CLIENT);
    assert_eq!(what(&lab.answer(&sent[1], 503)), ["ACK s1", "500 client"]);
}

/// RFC 3261 §21.5.4, A53: the client never sees Retry-After, and new calls avoid the server so long;
/// what it has in hand it keeps.
#[test]
fn a53_retry_after_is_honoured_and_not_passed_on() {
    let mut lab = Lab::new(ONE_ARMED);
    let first = lab.call("t-26");
    let busy = with_row(&response(&first, 503, "b1"), "Contact", "Retry-After: 30");
    let sent = lab.answer_with(&first, busy);
    let second = sent.last().unwrap().clone();
    let sent = lab.answer(&second, 200);
    assert!(
        sent.iter()
            .all(|sent| rows(&sent.bytes, "Retry-After").is_empty())
    );
    let avoided = |lab: &mut Lab, from: usize| {
        (from..from + 60).all(|number| lab.call(&format!("t-27-{number}")).to != first.to)
    };
    assert!(avoided(&mut lab, 0));
    lab.pass(Duration::from_secs(31));
    assert!(!avoided(&mut lab, 100), "it is asked again");
}

/// RFC 3261 §16.2, A54: room is bounded: past it new requests get 503 without Retry-After, what is
/// there goes on.
#[test]
fn a54_a_full_table_refuses_new_requests_only() {
    let mut lab = Lab::new(ONE_SERVER);
    lab.room = Room {
        transactions: 8,
        message_bytes: 1 << 20,
        rescue: false,
    };
    lab.forget();
    let calls: Vec<Sent> = (0..8)
        .map(|number| lab.call(&format!("t-28-{number}")))
        .collect();
    let padded = with_row(
        &invite("t-29", "z9hG4bK1"),
        "Contact",
        &format!("X: {}", "x".repeat(60)),
    );
    let sent = lab.receive(&padded, CLIENT);
    assert_eq!(what(&sent), ["503 client"]);
    assert!(rows(&sent[0].bytes, "Retry-After").is_empty());
    for call in &calls {
        assert_eq!(what(&lab.answer(call, 200)), ["200 client"]);
    }
    // RFC 6026 §7.1: 64·T1 in Accepted, then there is room again.
    lab.pass(Duration::from_secs(33));
    assert_eq!(lab.open(), 0);
    lab.call("t-30");
}

/// RFC 6026 §10: a transaction takes responses from its server only.
#[test]
fn a56_a_transaction_answers_to_its_server_only() {
    let mut lab = Lab::new(ONE_ARMED);
    let call = lab.call("t-31");
    let ok = response(&call, 200, "b1");
    for stranger in [CLIENT, "203.0.113.66:5060"] {
        assert_eq!(what(&lab.receive(&ok, stranger)), [""; 0]);
        assert_eq!(lab.verdict, Verdict::Drop(DropReason::ResponseSource));
    }
    assert_eq!(what(&lab.answer_with(&call, &ok)), ["200 client"]);
}

/// RFC 3261 §16.3: a merged request is another transaction, at the same server.
#[test]
fn a10_merged_requests_are_two_records() {
    let mut lab = Lab::new(ONE_ARMED);
    let first = lab.call_with(invite("t-32", "z9hG4bK1"));
    let second = lab.call_with(invite("t-32", "z9hG4bK2"));
    assert_eq!(first.to, second.to);
    assert_ne!(branch(&first.bytes), branch(&second.bytes));
    assert_eq!(lab.open(), 2);
}

/// RFC 3261 §22, §16.7 step 7: challenges are for the client, however many rows, and never hunted.
#[test]
fn a25_challenges_are_passed_on_whole() {
    for status in [401, 407] {
        let name = if status == 401 {
            "WWW-Authenticate"
        } else {
            "Proxy-Authenticate"
        };
        let mut lab = Lab::new(ONE_ARMED);
        let bytes = invite("t-33", "z9hG4bK1");
        let call = lab.call_with(&bytes);
        let one = format!("{name}: Digest realm=\"a\", algorithm=SHA-256, nonce=\"1\"");
        let two = format!("{name}: Digest realm=\"a\", algorithm=MD5, nonce=\"2\"");
        let challenge = with_row(
            &response(&call, status, "b1"),
            "Contact",
            &format!("{one}\r\n{two}"),
        );
        let sent = lab.answer_with(&call, challenge);
        assert_eq!(
            what(&sent),
            [
                format!("ACK {}", server(call.to)),
                format!("{status} client")
            ]
        );
        let seen = text(&sent[1].bytes);
        assert!(seen.contains(&format!("{one}\r\n{two}\r\n")), "{seen}");
        lab.receive(client_ack(&bytes, &sent[1]), CLIENT);
        // The retry goes to the server whose nonce it carries.
        let again = replaced(&invite("t-33", "z9hG4bK2"), "CSeq: 1", "CSeq: 2");
        assert_eq!(lab.call_with(again).to, call.to);
    }
}
