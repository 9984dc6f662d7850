//! What a stranger's datagrams earn: silence for keepalives, and few answers.

use std::time::Duration;

use viaduct::verdict::DropReason;

use crate::fixture::*;
use crate::phone::*;

/// What phones send to keep their NAT's mapping.
const KEEPALIVES: [&[u8]; 6] = [b"", b"\r\n", b"\r\n\r\n", b"\0", b"\0\0\0\0", b"\n"];

#[test]
fn keepalives_are_dropped_and_no_news() {
    for config in [ONE_ARMED, TWO_ARMED] {
        let mut lab = Lab::new(config);
        for bytes in KEEPALIVES {
            assert_eq!(lab.send(bytes, FLOW).dropped(), DropReason::Keepalive);
        }
        assert_eq!(lab.metrics[0].punted.value(), 0);
    }
}

fn rejected(call_id: &str) -> Vec<u8> {
    replaced(
        &invite(call_id, "z9hG4bK1"),
        "Max-Forwards: 70",
        "Max-Forwards: 0",
    )
}

/// How many of 50 requests from this source are answered.
fn answered(lab: &mut Lab, source: &str) -> usize {
    (0..50)
        .filter(|_| matches!(lab.send(rejected("limit-1"), source), Outcome::Sent(_)))
        .count()
}

const LIMITED: &str = "sip.answers_per_source = 20\n";

#[test]
fn one_source_gets_few_answers_and_others_theirs() {
    let mut lab = Lab::new(&format!("{LIMITED}{ONE_ARMED}"));
    assert_eq!(answered(&mut lab, "203.0.113.1:5060"), 20);
    assert_eq!(
        lab.send(rejected("limit-2"), "203.0.113.1:1").dropped(),
        DropReason::AnswerLimitedSource
    );
    // OPTIONS to us is answered, and answers are counted, whatever they say.
    let options = request("OPTIONS", "sip:198.18.0.1", "limit-3", "z9hG4bK1", 1);
    assert_eq!(
        lab.send(&options, "203.0.113.1:1").dropped(),
        DropReason::AnswerLimitedSource
    );
    assert_eq!(answered(&mut lab, "203.0.113.2:5060"), 20);
    // What is forwarded needs no answer of ours.
    lab.send(invite("limit-4", "z9hG4bK1"), "203.0.113.1:5060")
        .sent();
    lab.wait(Duration::from_millis(500));
    assert_eq!(answered(&mut lab, "203.0.113.1:7777"), 10);
}

#[test]
fn an_ipv6_host_is_its_64() {
    let mut lab = Lab::new(&format!("{LIMITED}{IPV6}"));
    assert_eq!(answered(&mut lab, "[2001:db8:c::1]:5060"), 20);
    assert_eq!(answered(&mut lab, "[2001:db8:c::2]:5060"), 0);
    assert_eq!(answered(&mut lab, "[2001:db8:c:1::2]:5060"), 20);
}

/// Farm and trusted peers are told as often as they ask, within the total.
#[test]
fn who_is_known_is_answered() {
    let mut lab = Lab::new(&format!("{LIMITED}{ONE_ARMED}"));
    assert_eq!(answered(&mut lab, SERVERS[0]), 50);
    assert_eq!(answered(&mut lab, "198.18.100.7:5060"), 50);
}

/// All workers count together.
#[test]
fn a_source_gets_no_more_from_many_workers() {
    let mut lab = Lab::with_workers(&format!("{LIMITED}{ONE_ARMED}"), 4);
    let source = "203.0.113.1:5060".parse().unwrap();
    let vip = VIP.parse().unwrap();
    let answered = (0..100)
        .filter(|n| {
            let outcome = lab.deliver_at(n % 4, &rejected("limit-5"), source, vip);
            matches!(outcome, Outcome::Sent(_))
        })
        .count();
    assert_eq!(answered, 20);
}

/// A flood in many names is stopped by the total, and none of the names gets more than its share.
#[test]
fn a_flood_from_forged_sources_gets_no_more_than_the_total() {
    let config = format!("sip.answers_per_second = 1000\n{LIMITED}{ONE_ARMED}");
    let mut lab = Lab::new(&config);
    let bytes = rejected("limit-6");
    let mut sent = 0;
    for n in 0..20_000_u32 {
        let source = core::net::Ipv4Addr::from_bits(0xc633_0000 + n % 10_000);
        match lab.send(&bytes, &format!("{source}:5060")) {
            Outcome::Sent(answer) => {
                assert!(answer.bytes.len() <= bytes.len());
                sent += 1;
            }
            Outcome::Dropped(reason) => assert!(matches!(
                reason,
                DropReason::AnswerLimited | DropReason::AnswerLimitedSource
            )),
        }
    }
    assert_eq!(sent, 1000);
}

/// 0 is no limit, and the default is one.
#[test]
fn the_limit_is_configured() {
    let mut lab = Lab::new(&format!("sip.answers_per_source = 0\n{ONE_ARMED}"));
    assert_eq!(answered(&mut lab, "203.0.113.1:5060"), 50);
    let config = viaduct::config::Config::parse(ONE_ARMED).unwrap();
    assert_eq!(config.sip.answers_per_source, Some(20));
}
