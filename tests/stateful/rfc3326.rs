//! RFC 3326: why a CANCEL is sent.

use crate::fixture::*;

/// §2: the Reason of the client's CANCEL is copied into ours, both values as they stand, whether it
/// can be sent at once or must wait.
#[test]
fn r3326_the_reason_of_a_cancel_is_copied() {
    for early in [true, false] {
        let mut lab = Lab::new(ONE_SERVER);
        let bytes = invite("re-1", "z9hG4bK1");
        let call = lab.call_with(&bytes);
        if early {
            lab.answer(&call, 180);
        }
        let reasons =
            "Reason: SIP ;cause=480 ;text=\"Gone\"\r\nReason: Q.850;cause=16;text=\"Terminated\"";
        let cancel = with_row(&client_cancel(&bytes), "Contact", reasons);
        let mut sent = lab.receive(cancel, CLIENT);
        if !early {
            assert_eq!(what(&sent), ["200 client"]);
            sent = lab.answer(&call, 180);
        }
        assert_eq!(what(&sent)[0], "CANCEL s1");
        assert!(
            text(&sent[0].bytes).contains(&format!("\r\n{reasons}\r\n")),
            "early: {early}"
        );
    }
}

/// What the client did not say we do not either.
#[test]
fn r3326_a_cancel_without_reason_gets_none() {
    let mut lab = Lab::new(ONE_SERVER);
    let bytes = invite("re-2", "z9hG4bK1");
    let call = lab.call_with(&bytes);
    lab.answer(&call, 180);
    let sent = lab.receive(client_cancel(&bytes), CLIENT);
    assert!(rows(&sent[0].bytes, "Reason").is_empty());
}

/// §3.1: "Call completed elsewhere" is said to a server that rings late if another has answered, and
/// to none while the call is still looking for one.
#[test]
fn r3326_completed_elsewhere_is_said_when_it_is_so() {
    for answered in [false, true] {
        let mut lab = Lab::new(ONE_ARMED);
        let first = lab.call("re-3");
        let second = lab.millis(2_100).last().unwrap().clone();
        if answered {
            assert_eq!(what(&lab.answer(&second, 200)), ["200 client"]);
        }
        let sent = lab.answer(&first, 180);
        assert_eq!(what(&sent), [format!("CANCEL {}", server(first.to))]);
        let expected: &[&str] = match answered {
            true => &["SIP;cause=200;text=\"Call completed elsewhere\""],
            false => &[],
        };
        assert_eq!(rows(&sent[0].bytes, "Reason"), expected);
    }
}

/// What the client has said why stands, whatever comes before the CANCEL can be sent.
#[test]
fn r3326_the_reason_of_the_client_outlives_a_failure() {
    let mut lab = Lab::new(ONE_ARMED);
    let bytes = invite("re-4", "z9hG4bK1");
    let first = lab.call_with(&bytes);
    let second = lab.millis(2_100).last().unwrap().clone();
    let reason = "SIP ;cause=480 ;text=\"Gone\"";
    let cancel = with_row(
        &client_cancel(&bytes),
        "Contact",
        &format!("Reason: {reason}"),
    );
    lab.receive(cancel, CLIENT);
    lab.answer(&second, 486);
    let sent = lab.answer(&first, 180);
    assert_eq!(what(&sent), [format!("CANCEL {}", server(first.to))]);
    assert_eq!(rows(&sent[0].bytes, "Reason"), [reason]);
}
