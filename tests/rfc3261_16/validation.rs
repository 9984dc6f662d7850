//! RFC 3261 §16.3, and RFC 5393 §5.3.3.

use viaduct::verdict::DropReason;

use crate::fixture::*;

fn with_hops(hops: &str) -> Vec<u8> {
    replaced(
        &invite("v-1", "z9hG4bK1"),
        "Max-Forwards: 70",
        &format!("Max-Forwards: {hops}"),
    )
}

/// RFC 3261 §16.6 step 3: one less, whatever that does to the length.
#[test]
fn a06_max_forwards_is_decremented_with_the_length_it_needs() {
    let mut lab = Lab::new(ONE_ARMED);
    let overhead = |lab: &mut Lab, hops: &str| {
        let sent = lab.send(with_hops(hops), CLIENT).sent();
        let left = row(&sent.bytes, "Max-Forwards");
        (
            left.clone(),
            sent.bytes.len() + hops.len() - left.len() - with_hops(hops).len(),
        )
    };
    let (_, usual) = overhead(&mut lab, "70");
    for (hops, left) in [
        ("70", "69"),
        ("100", "99"),
        ("10", "9"),
        ("1", "0"),
        ("255", "254"),
        ("101", "100"),
        ("11", "10"),
    ] {
        assert_eq!(overhead(&mut lab, hops), (left.to_owned(), usual), "{hops}");
    }
}

#[test]
fn a06_max_forwards_is_added_when_absent_or_unreadable() {
    let mut lab = Lab::new(ONE_ARMED);
    let without = replaced(&invite("v-1", "z9hG4bK1"), "Max-Forwards: 70\r\n", "");
    assert_eq!(
        row(&lab.send(without, CLIENT).sent().bytes, "Max-Forwards"),
        "70"
    );
    // RFC 4475 §3.1.2.4: may be treated as absent.
    for odd in ["300", "many", ""] {
        let sent = lab.send(with_hops(odd), CLIENT).sent();
        assert_eq!(row(&sent.bytes, "Max-Forwards"), "70", "{odd}");
    }
}

/// RFC 3261 §16.3 step 3.
#[test]
fn a06_max_forwards_0_gets_483_and_an_ack_silence() {
    let mut lab = Lab::new(ONE_ARMED);
    for method in ["INVITE", "OPTIONS", "REGISTER", "BYE", "CANCEL"] {
        let bytes = request(method, "sip:bob@sip.lab.example", "v-2", "z9hG4bK1", 1);
        let bytes = replaced(&bytes, "Max-Forwards: 70", "Max-Forwards: 0");
        let answer = lab.send(&bytes, CLIENT).sent();
        assert_eq!(
            start_line(&answer.bytes),
            "SIP/2.0 483 Too Many Hops",
            "{method}"
        );
    }
    let ack = request("ACK", "sip:bob@sip.lab.example", "v-2", "z9hG4bK1", 1);
    let ack = replaced(&ack, "Max-Forwards: 70", "Max-Forwards: 0");
    assert_eq!(lab.send(ack, CLIENT).dropped(), DropReason::AckMaxForwards);
}

/// RFC 3261 §16.3 step 4: a spiral passes, a loop ends.
#[test]
fn a07_too_many_own_vias_are_a_loop() {
    let mut lab = Lab::new(ONE_ARMED);
    let own = "Via: SIP/2.0/UDP 198.18.0.1:5060;branch=z9hG4bKs0x, SIP/2.0/UDP 203.0.113.1";
    for (count, looped) in [(1, false), (4, false), (5, true), (9, true)] {
        let vias = format!("{}\r\nMax-Forwards:", [own].repeat(count).join("\r\n"));
        let bytes = replaced(&invite("v-3", "z9hG4bK1"), "Max-Forwards:", &vias);
        let sent = lab.send(bytes, CLIENT).sent();
        assert_eq!(
            start_line(&sent.bytes).starts_with("SIP/2.0 482 "),
            looped,
            "{count}"
        );
    }
}

#[test]
fn a07_our_own_via_on_top_counts() {
    let mut lab = Lab::new(ONE_ARMED);
    let own = "198.18.0.1:5060;branch=z9hG4bKq";
    let bytes = replaced(
        &invite("v-4", "z9hG4bK1"),
        "198.18.200.7:5060;branch=z9hG4bK1",
        own,
    );
    let row = format!("Via: SIP/2.0/UDP {own}\r\n").repeat(4);
    let bytes = replaced(&bytes, "Max-Forwards:", &format!("{row}Max-Forwards:"));
    assert!(start_line(&lab.send(bytes, CLIENT).sent().bytes).starts_with("SIP/2.0 482 "));
}

/// RFC 3261 §16.3 step 5, RFC 4475 §3.3.5.
#[test]
fn a08_proxy_require_gets_420_naming_exactly_the_unknown_tags() {
    let mut lab = Lab::new(&format!("sip.proxy_require = [\"gin\"]\n{ONE_ARMED}"));
    let rows_of = "Proxy-Require: privacy, GIN\r\nRequire: nothing\r\nProxy-Require: sec-agree";
    let bytes = with_row(&invite("v-5", "z9hG4bK1"), "Contact", rows_of);
    let answer = lab.send(&bytes, CLIENT).sent();
    assert_eq!(start_line(&answer.bytes), "SIP/2.0 420 Bad Extension");
    assert_eq!(row(&answer.bytes, "Unsupported"), "privacy, sec-agree");
    // Require is the server's affair, and what the farm understands passes.
    let known = with_row(
        &invite("v-5", "z9hG4bK1"),
        "Contact",
        "Proxy-Require: gin\r\nRequire: x",
    );
    let sent = lab.send(&known, CLIENT).sent();
    assert_eq!(text(&undone(&sent.bytes, &known)), text(&known));
}

/// RFC 3261 §8.2.2.3: ignored in a CANCEL and in the ACK of a non-2xx response.
#[test]
fn a08_proxy_require_is_ignored_in_cancel_and_ack() {
    let mut lab = Lab::new(ONE_ARMED);
    for method in ["CANCEL", "ACK"] {
        let bytes = request(method, "sip:bob@sip.lab.example", "v-6", "z9hG4bK1", 1);
        let bytes = with_row(&bytes, "Contact", "Proxy-Require: privacy");
        let sent = lab.send(bytes, CLIENT).sent();
        assert!(SERVERS.contains(&sent.to.to_string().as_str()), "{method}");
    }
}

/// RFC 3261 §16.3: "a proxy is not required to detect merged requests and MUST NOT treat merged
/// requests as an error condition".
#[test]
fn a10_merged_requests_are_two_transactions_at_one_server() {
    let mut lab = Lab::new(ONE_ARMED);
    let first = lab.send(invite("v-7", "z9hG4bKfork1"), CLIENT).sent();
    let second = lab.send(invite("v-7", "z9hG4bKfork2"), CLIENT).sent();
    assert_eq!(first.to, second.to);
    assert_ne!(branch(&first.bytes), branch(&second.bytes));
}

/// RFC 5393 §5.3.3: exactly one, added, capped, never counted down.
#[test]
fn r5393_max_breadth_is_added_kept_or_capped() {
    let mut lab = Lab::new(ONE_ARMED);
    let with = |value: &str| {
        with_row(
            &invite("v-8", "z9hG4bK1"),
            "Contact",
            &format!("Max-Breadth: {value}"),
        )
    };
    let plain = lab.send(invite("v-8", "z9hG4bK1"), CLIENT).sent();
    assert_eq!(row(&plain.bytes, "Max-Breadth"), "60");
    for (value, left) in [
        ("30", "30"),
        ("60", "60"),
        ("1", "1"),
        ("61", "60"),
        ("500", "60"),
        ("99999999999999", "60"),
        ("x", "60"),
    ] {
        let sent = lab.send(with(value), CLIENT).sent();
        assert_eq!(row(&sent.bytes, "Max-Breadth"), left, "{value}");
    }
    let mut narrow = Lab::new(&format!("sip.max_breadth = 8\n{ONE_ARMED}"));
    let sent = narrow.send(with("30"), CLIENT).sent();
    assert_eq!(row(&sent.bytes, "Max-Breadth"), "8");
}

/// RFC 5393 §5.3.1, §5.3.3, §6.2: a breadth of 0 leaves no branch. CANCEL and ACK have no branches.
#[test]
fn r5393_no_breadth_at_all_is_440() {
    let mut lab = Lab::new(ONE_ARMED);
    let with = |method: &str| {
        with_row(
            &request(method, "sip:bob@sip.lab.example", "v-10", "z9hG4bK1", 1),
            "CSeq",
            "Max-Breadth: 0",
        )
    };
    for method in ["INVITE", "OPTIONS"] {
        let answer = lab.send(with(method), CLIENT).sent();
        assert_eq!(answer.to.to_string(), CLIENT);
        let line = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert!(
            line.starts_with("SIP/2.0 440 Max-Breadth Exceeded\r\n"),
            "{line}"
        );
    }
    for method in ["CANCEL", "ACK"] {
        assert_ne!(lab.send(with(method), CLIENT).sent().to.to_string(), CLIENT);
    }
}

/// RFC 5393 §5.4.1: meaningless in a CANCEL.
#[test]
fn r5393_a_cancel_gets_no_max_breadth() {
    let mut lab = Lab::new(ONE_ARMED);
    let cancel = request("CANCEL", "sip:bob@sip.lab.example", "v-9", "z9hG4bK1", 1);
    let sent = lab.send(&cancel, CLIENT).sent();
    assert!(rows(&sent.bytes, "Max-Breadth").is_empty());
    let ack = request("ACK", "sip:bob@sip.lab.example", "v-9", "z9hG4bK1", 1);
    assert_eq!(
        row(&lab.send(ack, CLIENT).sent().bytes, "Max-Breadth"),
        "60"
    );
}
