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
