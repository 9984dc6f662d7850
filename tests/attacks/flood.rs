//! Floods: what they must not do to calls that are there.

use std::time::Duration;

use viaduct::verdict::DropReason;

use crate::fixture::*;
use crate::tools::*;

/// Max-Forwards 0: answered within the rate, silence for ACKs, no pin, no server bothered.
#[test]
fn a06_a_flood_with_max_forwards_0_costs_no_pin_and_no_server() {
    let mut lab = Lab::new(&format!("sip.answers_per_second = 100\n{ONE_ARMED}"));
    let (mut answered, mut silent) = (0, 0);
    for n in 0..20_000 {
        let method = ["INVITE", "REGISTER", "OPTIONS", "ACK", "FROB"][n % 5];
        let bytes = request(
            method,
            "sip:bob@sip.lab.example",
            &format!("hops-{n}"),
            "z9hG4bK1",
            1,
        );
        let bytes = replaced(&bytes, "Max-Forwards: 70", "Max-Forwards: 0");
        match lab.send(&bytes, STRANGER) {
            Outcome::Sent(sent) => {
                assert!(start_line(&sent.bytes).starts_with("SIP/2.0 483 "));
                answered += 1;
            }
            Outcome::Dropped(DropReason::AckMaxForwards) => assert_eq!(method, "ACK"),
            Outcome::Dropped(reason) => {
                assert_eq!(reason, DropReason::AnswerLimited);
                silent += 1;
            }
        }
    }
    assert!(
        answered <= 200 && answered + silent == 16_000,
        "{answered} {silent}"
    );
    let usage = lab.pins.usage(lab.now);
    assert_eq!(usage.unanswered + usage.proceeding + usage.finished, 0);
}

/// A hundred thousand INVITEs of forged sources, a good part of them answered with 100, against
/// a table of 4,096 pins: a call that rings stays where it is, through a change of the farm.
#[test]
fn a32_a_flood_of_invites_pushes_out_no_ringing_call() {
    let mut lab = Lab::with_pins(ONE_ARMED, 1, 4096);
    let calls: Vec<(String, Sent)> = (0..100)
        .map(|n| {
            let id = format!("ringing-{n}");
            let sent = lab.send(invite(&id, "z9hG4bK1"), CLIENT).sent();
            lab.reply(response(&sent, 180, "b1"), &sent).sent();
            (id, sent)
        })
        .collect();
    let mut numbers = Numbers(5);
    for n in 0..100_000_u32 {
        let source = format!("203.0.{}.{}:5060", n >> 8 & 255, n & 255);
        let id = format!("{:x}", numbers.next());
        let sent = lab.send(invite(&id, "z9hG4bK1"), &source).sent();
        assert!(is_server(&sent));
        if n % 3 == 0 {
            let status = [100, 401, 180][usize::try_from(n / 3 % 3).unwrap()];
            lab.reply(response(&sent, status, "b1"), &sent).sent();
        }
        if n % 10_000 == 0 {
            lab.wait(Duration::from_secs(10));
        }
    }
    lab.reload(
        &ONE_ARMED
            .replace("198.18.1.1", "198.18.9.1")
            .replace("\"s", "\"t"),
    );
    for (id, sent) in &calls {
        for method in ["CANCEL", "ACK"] {
            let bytes = request(method, "sip:bob@sip.lab.example", id, "z9hG4bK1", 1);
            let follow = lab.send(&bytes, CLIENT).sent();
            assert_eq!(follow.to, sent.to, "{method} {id}");
            assert_eq!(branch(&follow.bytes), branch(&sent.bytes));
        }
    }
}

/// One Call-ID from everywhere: one pin, one server, and no way to move another's call.
#[test]
fn a32_a_flood_of_one_call_id_moves_nothing() {
    let mut lab = Lab::new(ONE_ARMED);
    let first = lab.send(invite("mine", "z9hG4bK1"), CLIENT).sent();
    lab.reply(response(&first, 180, "b1"), &first).sent();
    for n in 2..5000_u32 {
        let source = format!("203.0.{}.{}:5060", n >> 8 & 255, n & 255);
        let bytes = request(
            "INVITE",
            "sip:bob@sip.lab.example",
            "mine",
            &format!("z9hG4bK{n}"),
            n,
        );
        let sent = lab.send(&bytes, &source).sent();
        assert_eq!(sent.to, first.to);
        assert_ne!(branch(&sent.bytes), branch(&first.bytes));
    }
    assert_eq!(
        lab.pins.usage(lab.now).unanswered + lab.pins.usage(lab.now).proceeding,
        1
    );
    let again = lab.send(invite("mine", "z9hG4bK1"), CLIENT).sent();
    assert_eq!(again, first);
}
