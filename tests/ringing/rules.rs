//! The route table changes while it rings: RFC 3261 §16.11. A call that rings has its server; a new
//! table is for new calls.

use std::time::Duration;

use crate::calls::{Farm, Ringing, cancelled, ring, spread};
use crate::fixture::*;

const OTHER: &str = "[[pools]]\nname = \"other\"\n\
    servers = [{ name = \"o1\", address = \"198.18.7.1:5060\" }]\n";

fn with_rest(rest: &str) -> String {
    format!("{}{OTHER}{rest}", Farm::of(&[1, 2, 3]).config())
}

/// Rings by a rule to the pool `farm`, then comes another table.
#[track_caller]
fn through(what: &str, changes: &[String]) {
    for workers in [1, 4] {
        let mut lab = Lab::with_workers(&with_rest("[[routes]]\npool = \"farm\"\n"), workers);
        let calls = Ringing::many(&mut lab, 40);
        assert_eq!(spread(&calls), 3);
        ring(&mut lab, &calls, changes, what);
    }
}

#[test]
fn a32_the_rule_leads_to_another_pool() {
    through("pool", &[with_rest("[[routes]]\npool = \"other\"\n")]);
}

#[test]
fn a32_the_rule_moves_in_the_table() {
    through(
        "order",
        &[
            with_rest(
                "[[routes]]\nmethods = [\"INVITE\"]\npool = \"other\"\n[[routes]]\npool = \"farm\"\n",
            ),
            with_rest(
                "[[routes]]\nmethods = [\"REGISTER\"]\npool = \"farm\"\n[[routes]]\npool = \"other\"\n",
            ),
        ],
    );
}

#[test]
fn a32_the_rule_gets_a_next_hop() {
    through(
        "next hop",
        &[with_rest(
            "[[routes]]\nnext_hop = \"198.18.100.1:5060\"\n[[routes]]\npool = \"farm\"\n",
        )],
    );
}

/// Who is locked out now may still end the call that rings.
#[test]
fn a32_the_rule_refuses() {
    let other = "[[routes]]\nsources = [\"203.0.113.0/24\"]\npool = \"farm\"\n";
    through(
        "reject",
        &[
            with_rest(&format!(
                "[[routes]]\nsources = [\"198.18.200.0/24\"]\nreject = 403\n{other}"
            )),
            with_rest(&format!(
                "[[routes]]\nsources = [\"198.18.200.0/24\"]\ndrop = true\n{other}"
            )),
            with_rest(other),
        ],
    );
    // A new call of theirs is refused at once.
    let mut lab = Lab::new(&with_rest("[[routes]]\npool = \"farm\"\n"));
    let calls = Ringing::many(&mut lab, 10);
    lab.reload(&with_rest(other));
    let answer = lab.send(invite("new", "z9hG4bK1"), CLIENT).sent();
    assert_eq!(start_line(&answer.bytes), "SIP/2.0 403 Forbidden");
    // And so is the old Call-ID with a new transaction, once the call is over.
    cancelled(&mut lab, &calls, "refused");
    lab.wait(Duration::from_secs(60));
    let again = lab.send(invite(&calls[0].id, "z9hG4bK9"), CLIENT).sent();
    assert_eq!(start_line(&again.bytes), "SIP/2.0 403 Forbidden");
}

#[test]
fn a32_the_pool_gets_another_name() {
    let renamed = Farm::of(&[4, 5])
        .config()
        .replace("name = \"farm\"", "name = \"renamed\"");
    through(
        "name",
        &[format!("{renamed}{OTHER}[[routes]]\npool = \"renamed\"\n")],
    );
}

/// The same servers, by the same names, in another pool.
#[test]
fn a32_the_servers_move_to_another_pool() {
    let moved = Farm::of(&[1, 2, 3])
        .config()
        .replace("name = \"farm\"", "name = \"moved\"");
    let farm = "[[pools]]\nname = \"farm\"\nservers = [{ name = \"o1\", address = \"198.18.7.1:5060\" }]\n";
    through(
        "move",
        &[format!("{moved}{farm}[[routes]]\npool = \"farm\"\n")],
    );
}

/// One Call-ID that passes twice, to a pool and from its server to another: two pins, each for its
/// own passage.
#[test]
fn a32_a_spiral_through_two_pools_keeps_its_two_servers() {
    let rules = |first: &str, second: &str| {
        with_rest(&format!(
            "[[routes]]\nuser_prefixes = [\"bob\"]\npool = \"{first}\"\n\
             [[routes]]\nuser_prefixes = [\"carol\"]\npool = \"{second}\"\n"
        ))
    };
    let mut lab = Lab::with_workers(&rules("other", "farm"), 2);
    let spiral = |lab: &mut Lab, method: &str, id: &str| {
        let bytes = request(method, "sip:bob@sip.lab.example", id, "z9hG4bK1", 1);
        let first = lab.send(&bytes, CLIENT).sent();
        let onward = replaced(
            &first.bytes,
            "sip:bob@sip.lab.example SIP",
            "sip:carol@sip.lab.example SIP",
        );
        let via = format!("Via: SIP/2.0/UDP {};branch=z9hG4bKproxy", first.to);
        let line = start_line(&onward);
        let onward = replaced(&onward, &line, &format!("{line}\r\n{via}"));
        let second = lab.deliver(&onward, first.to, first.from).sent();
        (first, second)
    };
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let id = format!("spiral-{n}");
            let (first, second) = spiral(&mut lab, "INVITE", &id);
            assert_eq!(first.to, "198.18.7.1:5060".parse().unwrap());
            assert!(SERVERS.contains(&second.to.to_string().as_str()));
            let back = lab.reply(response(&second, 180, "b1"), &second).sent();
            assert_eq!(back.to, first.to);
            (id, first, second)
        })
        .collect();
    lab.reload(&rules("farm", "other"));
    for (id, first, second) in &calls {
        for method in ["CANCEL", "INVITE", "ACK"] {
            let (one, two) = spiral(&mut lab, method, id);
            assert_eq!((one.to, two.to), (first.to, second.to), "{method} {id}");
            assert_eq!(branch(&one.bytes), branch(&first.bytes));
            assert_eq!(branch(&two.bytes), branch(&second.bytes));
        }
    }
}
