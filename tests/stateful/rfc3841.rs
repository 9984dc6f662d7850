//! RFC 3841 §7.1, §9.1: what the caller wants of proxies.

use crate::fixture::*;

/// "no-fork": one server, whatever it says.
#[test]
fn r3841_no_fork_means_one_server() {
    for row in [
        "Request-Disposition: no-fork",
        "d: proxy, NO-FORK",
        "Request-Disposition: no-cancel\r\nRequest-Disposition: no-fork,queue",
    ] {
        let mut lab = Lab::new(ONE_ARMED);
        let bytes = with_row(&invite("p-1", "z9hG4bK1"), "Contact", row);
        let call = lab.call_with(&bytes);
        assert!(text(&call.bytes).contains(row));
        let at = server(call.to);
        assert_eq!(
            what(&lab.answer(&call, 503)),
            [format!("ACK {at}"), "500 client".into()]
        );
        let mut lab = Lab::new(ONE_ARMED);
        let call = lab.call_with(&bytes);
        let sent = lab.millis(10_000);
        assert!(
            !sent.is_empty() && sent.iter().all(|sent| sent.to == call.to),
            "{row}"
        );
    }
}

/// Others are not about hunting one after another.
#[test]
fn r3841_other_dispositions_do_not_stop_it() {
    let mut lab = Lab::new(ONE_ARMED);
    let row = "Request-Disposition: fork, sequential";
    let call = lab.call_with(with_row(&invite("p-2", "z9hG4bK1"), "Contact", row));
    let sent = lab.answer(&call, 503);
    assert!(what(&sent)[1].starts_with("INVITE s"));
}

/// §6: whoever chooses by these finds them in our CANCEL and ACK, too (RFC 3261 §16.11).
#[test]
fn r3841_preferences_follow_in_cancel_and_ack() {
    let mut lab = Lab::new(ONE_SERVER);
    let prefs = "a: *;audio;require\r\nReject-Contact: *;video\r\nd: no-fork";
    let bytes = with_row(&invite("p-3", "z9hG4bK1"), "Contact", prefs);
    let call = lab.call_with(&bytes);
    lab.answer(&call, 180);
    let cancel = lab.receive(client_cancel(&bytes), CLIENT).remove(0);
    let ack = lab.answer(&call, 487).remove(0);
    for sent in [cancel, ack] {
        assert!(
            text(&sent.bytes).contains(&format!("\r\n{prefs}\r\n")),
            "{}",
            text(&sent.bytes)
        );
    }
}
