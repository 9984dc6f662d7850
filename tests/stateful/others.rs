//! Rules of further RFCs about a request with a transaction, a few tests each.

use std::time::Duration;

use crate::fixture::*;

/// RFC 4028 §8: nothing is added, nothing changed, in request and response.
#[test]
fn r4028_session_timers_pass_a_transaction() {
    let mut lab = Lab::new(ONE_SERVER);
    let timers = "Supported: timer\r\nx: 60;refresher=uac\r\nMin-SE: 90";
    let call = lab.call_with(with_row(&invite("o-1", "z9hG4bK1"), "Contact", timers));
    assert!(text(&call.bytes).contains(timers));
    let small = with_row(&response(&call, 422, "b1"), "Contact", "Min-SE: 1800");
    let sent = lab.answer_with(&call, small);
    assert_eq!(what(&sent), ["ACK s1", "422 client"]);
    assert_eq!(row(&sent[1].bytes, "Min-SE"), "1800");
    let call = lab.call("o-2");
    assert!(rows(&call.bytes, "Session-Expires").is_empty());
    let sent = lab.answer(&call, 200);
    assert!(rows(&sent[0].bytes, "Session-Expires").is_empty());
    assert!(rows(&sent[0].bytes, "Require").is_empty());
}

/// RFC 5057 §5.1: of our own answers, none that ends a dialog or a usage inside one.
#[test]
fn r5057_a_dialog_outlives_our_answers() {
    let ends_something = [
        404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 501, 502, 604,
    ];
    let mut lab = Lab::new(ONE_SERVER);
    let dialog = Dialog::set_up(&mut lab, "o-3");
    let mut answers = Vec::new();
    for (number, fault) in ["silence", "icmp", "503"].iter().enumerate() {
        let cseq = u32::try_from(number).unwrap() + 2;
        let bytes = dialog.by_client("INVITE", cseq, &format!("z9hG4bK{fault}"));
        let sent = lab.receive(&bytes, CLIENT);
        let sent = match *fault {
            "silence" => lab.pass(Duration::from_secs(40)),
            "icmp" => lab.unreachable(&sent[1]),
            _ => lab.answer(&sent[1], 503),
        };
        let own = what(&sent)
            .into_iter()
            .find(|what| what.ends_with("client"));
        let own = own.unwrap_or_else(|| panic!("{fault}: {:?}", what(&sent)));
        answers.push(own[..3].parse::<u16>().unwrap());
    }
    assert!(
        answers
            .iter()
            .all(|status| !ends_something.contains(status)),
        "{answers:?}"
    );
}

/// RFC 5393 §4.1: a request that comes round again is not tried elsewhere, and after some rounds it
/// is a loop.
#[test]
fn r5393_a_loop_ends() {
    let mut lab = Lab::new(ONE_ARMED);
    let mut at = lab.call("o-4");
    let mut rounds = 1;
    let refusal = loop {
        let from = at.to.to_string();
        let sent = lab.receive(&at.bytes, &from);
        let last = sent.last().unwrap().clone();
        if start_line(&last.bytes).starts_with("SIP/2.0 4") {
            break last;
        }
        rounds += 1;
        assert!(rounds < 8, "no end");
        at = last;
    };
    assert_eq!(start_line(&refusal.bytes), "SIP/2.0 482 Loop Detected");
    assert_eq!(rounds, 5);
}

/// RFC 5393 §4.1: who tries more than one server "MUST ensure that request is not looping": what has
/// been here before goes to one only.
#[test]
fn r5393_a_spiral_is_not_hunted() {
    let mut lab = Lab::new(ONE_ARMED);
    let first = lab.call("o-5");
    let from = first.to.to_string();
    let sent = lab.receive(&first.bytes, &from);
    let again = sent.last().unwrap().clone();
    assert!(start_line(&again.bytes).starts_with("INVITE "));
    let sent = lab.answer(&again, 503);
    assert!(
        what(&sent).iter().all(|what| !what.starts_with("INVITE")),
        "{:?}",
        what(&sent)
    );
}

/// RFC 5393 §5.3.3: the same Max-Breadth in each attempt: only one is live at a time.
#[test]
fn r5393_attempts_one_after_another_share_the_breadth() {
    let mut lab = Lab::new(ONE_ARMED);
    let call = lab.call_with(with_row(
        &invite("o-6", "z9hG4bK1"),
        "Contact",
        "Max-Breadth: 1",
    ));
    assert_eq!(row(&call.bytes, "Max-Breadth"), "1");
    let sent = lab.answer(&call, 503);
    assert_eq!(row(&sent[1].bytes, "Max-Breadth"), "1");
}

/// RFC 5630 §5.3: what must not leave in clear opens no transaction.
#[test]
fn r5630_sips_never_leaves_in_clear() {
    let mut lab = Lab::new(ONE_ARMED);
    let sips = replaced(&invite("o-7", "z9hG4bK1"), "INVITE sip:", "INVITE sips:");
    assert_eq!(what(&lab.receive(sips, CLIENT)), ["416 client"]);
    let onward = request("INVITE", "sip:carol@203.0.113.9", "o-8", "z9hG4bK1", 1);
    let onward = with_row(&onward, "Contact", "Route: <sips:203.0.113.9;lr>");
    let sent = lab.receive(onward, SERVERS[0]);
    assert_eq!(what(&sent), ["480 s1"]);
    assert_eq!(
        row(&sent[0].bytes, "Warning"),
        "381 viaduct \"SIPS Required\""
    );
    assert_eq!(lab.open(), 0);
    // A 3xx that leads to another scheme is the client's to follow.
    let call = lab.call("o-9");
    let moved = replaced(
        &response(&call, 302, "b1"),
        "Contact: <sip:",
        "Contact: <sips:",
    );
    let sent = what(&lab.answer_with(&call, moved));
    assert_eq!(
        sent,
        [format!("ACK {}", server(call.to)), "302 client".into()]
    );
}

/// RFC 6228 §6: a 199 passes like any provisional response.
#[test]
fn r6228_a_199_passes_a_transaction() {
    let mut lab = Lab::new(ONE_SERVER);
    let call = lab.call("o-10");
    lab.answer(&call, 180);
    let ended = with_row(
        &response(&call, 199, "b1"),
        "Contact",
        "Reason: SIP;cause=486",
    );
    let sent = lab.answer_with(&call, ended);
    assert_eq!(what(&sent), ["199 client"]);
    assert_eq!(row(&sent[0].bytes, "Reason"), "SIP;cause=486");
}

/// RFC 7989 §5, §7: our 100, our finals and our CANCEL carry the session's identifiers.
#[test]
fn r7989_what_a_transaction_says_carries_the_session() {
    let mut lab = Lab::new(ONE_SERVER);
    let a = "ab30317f1a784dc48ff824d0d3715d86";
    let nil = "00000000000000000000000000000000";
    let session = format!("Session-ID: {a};remote={nil}");
    let fill = format!("X-Fill: {}", "x".repeat(60));
    let bytes = with_row(
        &invite("o-11", "z9hG4bK1"),
        "Contact",
        &format!("{session}\r\n{fill}"),
    );
    let sent = lab.receive(&bytes, CLIENT);
    let turned = format!("{nil};remote={a}");
    assert_eq!(row(&sent[0].bytes, "Session-ID"), turned);
    lab.answer(&sent[1], 180);
    let ended = lab.receive(client_cancel(&bytes), CLIENT);
    assert_eq!(
        row(&ended[0].bytes, "Session-ID"),
        format!("{a};remote={nil}")
    );
    assert_eq!(row(&ended[1].bytes, "Session-ID"), turned);
}

/// RFC 8599 §4, §5: for whom we are no push proxy: parameters, Feature-Caps and 555 pass.
#[test]
fn r8599_push_parameters_pass_a_transaction() {
    let mut lab = Lab::new(ONE_SERVER);
    let register = request("REGISTER", "sip:sip.lab.example", "o-12", "z9hG4bK1", 1);
    let contact =
        "<sip:alice@198.18.200.7:5060;pn-provider=acme;pn-param=acme-param;pn-prid=ZTY4;pn-purr>";
    let register = replaced(&register, "<sip:alice@198.18.200.7:5060>", contact);
    let sent = lab.receive(register, CLIENT);
    assert_eq!(row(&sent[0].bytes, "Contact"), contact);
    let refused = with_row(
        &response(&sent[0], 555, "b1"),
        "Contact",
        "Feature-Caps: *;+sip.pns=\"acme\"",
    );
    let sent = lab.answer_with(&sent[0], refused);
    assert_eq!(what(&sent), ["555 client"]);
    assert_eq!(row(&sent[0].bytes, "Feature-Caps"), "*;+sip.pns=\"acme\"");
    // A call to such a Contact keeps its Request-URI.
    let uri = "sip:alice@sip.lab.example;pn-provider=acme;pn-prid=ZTY4";
    let call = lab.call_with(request("INVITE", uri, "o-13", "z9hG4bK1", 1));
    assert_eq!(start_line(&call.bytes), format!("INVITE {uri} SIP/2.0"));
}

/// RFC 6140 §5.1: a trunk registers with `Proxy-Require: gin`, which passes where it is allowed.
#[test]
fn r6140_gin_passes_where_it_is_allowed() {
    let register = request("REGISTER", "sip:sip.lab.example", "o-14", "z9hG4bK1", 1);
    let register = with_row(&register, "Contact", "Require: gin\r\nProxy-Require: gin");
    let register = replaced(
        &register,
        "<sip:alice@198.18.200.7:5060>",
        "<sip:198.18.200.7;bnc>",
    );
    let mut lab = Lab::new(ONE_SERVER);
    let sent = lab.receive(&register, CLIENT);
    assert_eq!(what(&sent), ["420 client"]);
    assert_eq!(row(&sent[0].bytes, "Unsupported"), "gin");
    let mut lab = Lab::new(&format!("sip.proxy_require = [\"gin\"]\n{ONE_SERVER}"));
    let sent = lab.receive(&register, CLIENT);
    assert_eq!(what(&sent), ["REGISTER s1"]);
    assert_eq!(row(&sent[0].bytes, "Contact"), "<sip:198.18.200.7;bnc>");
    assert_eq!(row(&sent[0].bytes, "Proxy-Require"), "gin");
}

/// RFC 6228 §6: the client hears of the early dialog that ended when another server is tried, with
/// its tag and the cause, if it can make use of that and wants no reliable responses.
#[test]
fn r6228_a_199_when_another_server_is_tried_after_ringing() {
    for (rows_of, told) in [
        ("Supported: 199", true),
        ("Supported: 100rel,199\r\nRequire: timer", true),
        ("Supported: timer", false),
        ("Supported: 199\r\nRequire: 100rel", false),
    ] {
        let mut lab = Lab::new(ONE_ARMED);
        let fill = format!("{rows_of}\r\nX-Fill: {}", "x".repeat(60));
        let call = lab.call_with(with_row(&invite("o-15", "z9hG4bK1"), "Contact", &fill));
        lab.answer(&call, 180);
        let sent = lab.answer(&call, 503);
        let ended: Vec<&Sent> = sent
            .iter()
            .filter(|sent| sent.to == CLIENT.parse().unwrap())
            .collect();
        assert_eq!(
            ended.len(),
            usize::from(told),
            "{rows_of}: {:?}",
            what(&sent)
        );
        if let Some(ended) = ended.first() {
            assert_eq!(
                start_line(&ended.bytes),
                "SIP/2.0 199 Early Dialog Terminated"
            );
            assert_eq!(
                tag(&ended.bytes, "To").unwrap(),
                format!("tag-{}", server(call.to))
            );
            assert_eq!(row(&ended.bytes, "Reason"), "SIP;cause=503");
            for name in ["Contact", "Record-Route", "RSeq"] {
                assert!(rows(&ended.bytes, name).is_empty());
            }
        }
        let next = sent
            .iter()
            .find(|sent| start_line(&sent.bytes).starts_with("INVITE"));
        assert_ne!(next.unwrap().to, call.to);
    }
    // What never rang has no early dialog.
    let mut lab = Lab::new(ONE_ARMED);
    let call = lab.call_with(with_row(
        &invite("o-16", "z9hG4bK1"),
        "Contact",
        "Supported: 199",
    ));
    lab.answer(&call, 100);
    assert!(!what(&lab.answer(&call, 503)).contains(&"199 client".to_owned()));
}
