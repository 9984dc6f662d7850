//! RFC 4320: requests that are not INVITE.

use std::time::Duration;

use viaduct::verdict::{DropReason, Verdict};

use crate::fixture::*;

fn options(call_id: &str) -> Vec<u8> {
    request("OPTIONS", "sip:bob@sip.lab.example", call_id, "z9hG4bK1", 1)
}

/// §4.1, §4.2: over UDP no 100 before timer E would reach T2, one then, and never a 408; what comes
/// when the transaction is over is dropped.
#[test]
fn r4320_silence_gets_a_late_100_and_no_408() {
    let mut lab = Lab::new(ONE_SERVER);
    let sent = lab.receive(options("n-1"), CLIENT);
    assert_eq!(what(&sent), ["OPTIONS s1"]);
    let to_client = |sent: &[Sent]| -> Vec<String> {
        what(sent)
            .into_iter()
            .filter(|what| what.ends_with("client"))
            .collect()
    };
    assert_eq!(to_client(&lab.millis(3_490)), [""; 0]);
    assert_eq!(to_client(&lab.millis(60)), ["100 client"]);
    assert_eq!(to_client(&lab.pass(Duration::from_secs(40))), [""; 0]);
    lab.pass(Duration::from_secs(60));
    assert_eq!(what(&lab.answer(&sent[0], 200)), [""; 0]);
    assert_eq!(lab.verdict, Verdict::Drop(DropReason::ResponseStray));
    lab.assert_ends();
}

/// §4.1: no provisional response but 100, and that one hop only.
#[test]
fn r4320_provisional_responses_go_no_further() {
    let mut lab = Lab::new(ONE_SERVER);
    let sent = lab.receive(options("n-2"), CLIENT);
    for status in [100, 183, 199] {
        assert_eq!(what(&lab.answer(&sent[0], status)), [""; 0]);
    }
    assert_eq!(what(&lab.answer(&sent[0], 200)), ["200 client"]);
    // RFC 3261 §17.2.2: a retransmission gets it again, and the server sees none.
    assert_eq!(what(&lab.receive(options("n-2"), CLIENT)), ["200 client"]);
    lab.assert_ends();
}

/// §4.2: a server's own 408 is not passed on either.
#[test]
fn r4320_a_408_of_a_server_is_not_passed_on() {
    let mut lab = Lab::new(ONE_SERVER);
    let sent = lab.receive(options("n-3"), CLIENT);
    let answers = what(&lab.answer(&sent[0], 408));
    assert!(!answers.contains(&"408 client".to_owned()), "{answers:?}");
    lab.assert_ends();
}
