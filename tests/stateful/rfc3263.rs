//! RFC 3263 §4.3: fail-over from server to server.

use std::time::Duration;

use crate::fixture::*;

/// 503, silence and an unreachable server are failures, each with a new branch; other answers are
/// answers.
#[test]
fn r3263_the_next_server_is_tried_on_failure_only() {
    let mut lab = Lab::new(ONE_ARMED);
    let first = lab.call("f-1");
    let sent = lab.answer(&first, 503);
    let second = sent.last().unwrap().clone();
    assert_ne!(second.to, first.to);
    assert_ne!(branch(&second.bytes), branch(&first.bytes));
    // The request is the same but for our Via, and what it says of the server.
    let rest = |sent: &Sent| {
        let mut lines = lines(&sent.bytes);
        lines.retain(|line| !line.starts_with("Record-Route:"));
        lines.remove(1);
        lines
    };
    assert_eq!(rest(&first), rest(&second));

    for status in [302, 401, 404, 408, 480, 486, 500, 502, 504, 600, 603, 606] {
        let mut lab = Lab::new(ONE_ARMED);
        let call = lab.call("f-2");
        let sent = what(&lab.answer(&call, status));
        assert_eq!(
            sent,
            [
                format!("ACK {}", server(call.to)),
                format!("{status} client")
            ]
        );
    }
}

/// "or … failure … due to a timeout": sent at 0, 0.5 and 1.5 s, left at 2 s; 6 s in all.
#[test]
fn r3263_a_silent_server_is_left_after_two_seconds() {
    let mut lab = Lab::new(ONE_ARMED);
    let first = lab.call("f-3");
    assert_eq!(lab.millis(1_990), [first.clone(), first.clone()]);
    let sent = lab.millis(20);
    assert_eq!(sent.len(), 1);
    assert_ne!(sent[0].to, first.to);
    let sent = lab.millis(4_100);
    let last = sent.last().unwrap();
    assert_eq!(what(std::slice::from_ref(last)), ["408 client"]);
    lab.receive(client_ack(&invite("f-3", "z9hG4bK1"), last), CLIENT);
    lab.assert_ends();
}

/// A server that has said anything is not left, however long it takes.
#[test]
fn r3263_a_server_that_answered_is_not_left() {
    for status in [100, 180] {
        let mut lab = Lab::new(ONE_ARMED);
        let call = lab.call("f-4");
        lab.answer(&call, status);
        assert_eq!(what(&lab.pass(Duration::from_secs(60))), [""; 0]);
        assert_eq!(what(&lab.answer(&call, 200)), ["200 client"]);
    }
}

/// A dialog belongs to its server: nobody else can take its requests.
#[test]
fn r3263_requests_of_a_dialog_are_not_moved() {
    let mut lab = Lab::new(ONE_ARMED);
    let dialog = Dialog::set_up(&mut lab, "f-5");
    let sent = lab.receive(dialog.by_client("INVITE", 2, "z9hG4bK2"), CLIENT);
    let at = server(dialog.server);
    assert_eq!(
        what(&sent),
        ["100 client".to_owned(), format!("INVITE {at}")]
    );
    assert_eq!(
        what(&lab.answer(&sent[1], 503)),
        [format!("ACK {at}"), "500 client".into()]
    );
    let sent = lab.receive(dialog.by_client("INVITE", 3, "z9hG4bK3"), CLIENT);
    assert_eq!(what(&sent).len(), 2);
    let sent = lab.pass(Duration::from_secs(20));
    let mut invites = sent
        .iter()
        .filter(|sent| start_line(&sent.bytes).starts_with("INVITE"));
    assert!(
        invites.all(|sent| sent.to == dialog.server),
        "{:?}",
        what(&sent)
    );
}

/// The client's CANCEL ends hunting: a 503 after it tries nobody else.
#[test]
fn r3263_a_cancelled_call_is_not_moved() {
    let mut lab = Lab::new(ONE_ARMED);
    let bytes = invite("f-6", "z9hG4bK1");
    let call = lab.call_with(&bytes);
    assert_eq!(
        what(&lab.receive(client_cancel(&bytes), CLIENT)),
        ["200 client"]
    );
    let sent = lab.answer(&call, 503);
    assert!(
        what(&sent).iter().all(|what| !what.starts_with("INVITE")),
        "{:?}",
        what(&sent)
    );
    assert!(what(&sent).last().unwrap().ends_with("client"));
}

/// Who wants no call moved has none moved: not by a report that its server cannot be reached, not by
/// a refusal, not by silence.
#[test]
fn without_hunting_a_call_stays_where_it_is() {
    let config = ONE_ARMED.replace("[[pools]]", "[[pools]]\nhunt_on = []\nretry_budget = 0");
    let stays = |faults: fn(&mut Lab, &Sent) -> Vec<Sent>| {
        let mut lab = Lab::new(&config);
        let call = lab.call("f-8");
        let mut sent = faults(&mut lab, &call);
        sent.extend(lab.pass(Duration::from_secs(40)));
        let mut invites = sent
            .iter()
            .filter(|sent| start_line(&sent.bytes).starts_with("INVITE"));
        assert!(invites.all(|sent| sent.to == call.to), "{:?}", what(&sent));
        lab.assert_ends();
        what(&sent)
    };
    let answers = stays(|lab, call| lab.unreachable(call));
    assert_eq!(answers[0], "500 client");
    let answers = stays(|lab, call| lab.answer(call, 503));
    assert_eq!(answers[1], "500 client");
    let answers = stays(|_, _| Vec::new());
    assert!(answers.contains(&"408 client".to_owned()), "{answers:?}");
}

/// A late 2xx of the server that was left is a call that was taken: it is passed on.
#[test]
fn r3263_a_late_2xx_of_a_server_that_was_left_is_passed_on() {
    let mut lab = Lab::new(ONE_ARMED);
    let first = lab.call("f-7");
    let second = lab.millis(2_100).last().unwrap().clone();
    assert_eq!(what(&lab.answer(&first, 200)), ["200 client"]);
    // And the other one is ended as soon as it says something.
    assert_eq!(
        what(&lab.answer(&second, 180)),
        [format!("CANCEL {}", server(second.to))]
    );
    assert_eq!(
        what(&lab.answer(&second, 487)),
        [format!("ACK {}", server(second.to))]
    );
    lab.assert_ends();
}
