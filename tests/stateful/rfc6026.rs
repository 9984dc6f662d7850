//! RFC 6026: INVITE transactions after a 2xx.

use std::time::Duration;

use viaduct::verdict::{DropReason, Verdict};

use crate::fixture::*;

/// §7.1, §7.2: for 64·T1 every copy of a 2xx is passed on, and a repeated INVITE is absorbed; §7.3:
/// then it is a stray.
#[test]
fn r6026_accepted_lasts_64_t1() {
    let mut lab = Lab::new(ONE_SERVER);
    let bytes = invite("a-1", "z9hG4bK1");
    let call = lab.call_with(&bytes);
    let ok = response(&call, 200, "b1");
    for _ in 0..8 {
        assert_eq!(what(&lab.answer_with(&call, &ok)), ["200 client"]);
        assert_eq!(what(&lab.receive(&bytes, CLIENT)), [""; 0]);
        assert_eq!(lab.verdict, Verdict::Absorb);
        assert_eq!(what(&lab.millis(3_900)), [""; 0]);
    }
    lab.pass(Duration::from_secs(34));
    assert_eq!(lab.open(), 0);
    assert_eq!(what(&lab.answer_with(&call, &ok)), [""; 0]);
    assert_eq!(lab.verdict, Verdict::Drop(DropReason::ResponseStray));
}

/// §7.3, §8.9: the mark of the mode decides: a crash took the transaction, its responses are strays,
/// unless the operator wants them rescued.
#[test]
fn r6026_a_lost_transaction_makes_strays_unless_rescued() {
    for rescue in [false, true] {
        let mut lab = Lab::new(ONE_SERVER);
        let call = lab.call("a-2");
        let ok = response(&call, 200, "b1");
        lab.room.rescue = rescue;
        lab.restart();
        let sent = what(&lab.answer_with(&call, ok));
        if rescue {
            assert_eq!(sent, ["200 client"]);
        } else {
            assert_eq!(sent, [""; 0]);
            assert_eq!(lab.verdict, Verdict::Drop(DropReason::ResponseStray));
        }
    }
}

/// §7.1: the ACK of a 2xx goes to the server, also from a client that gives it the INVITE's branch.
#[test]
fn r6026_an_ack_in_accepted_is_passed_on() {
    let mut lab = Lab::new(ONE_SERVER);
    let bytes = invite("a-3", "z9hG4bK1");
    let call = lab.call_with(&bytes);
    let ok = lab.answer(&call, 200).remove(0);
    let sent = lab.receive(client_ack(&bytes, &ok), CLIENT);
    assert_eq!(what(&sent), ["ACK s1"]);
}
