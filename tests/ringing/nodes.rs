//! Two nodes of a group, and one node before and after: nothing in common but secret and
//! configuration, and the same bytes out for the same bytes in (RFC 3261 §16.11).

use std::cell::RefCell;
use std::net::SocketAddr;

use proptest::prelude::*;

use crate::calls::Farm;
use crate::fixture::*;

/// Labs of one configuration with another history each.
struct Nodes {
    one: Lab,
    /// Four workers.
    four: Lab,
    /// Other servers before these, so that every slot differs.
    late: Lab,
}

impl Nodes {
    fn new() -> Self {
        let farm = Farm::of(&[1, 2, 3, 4, 5]).config();
        let mut late = Lab::with_workers(&Farm::of(&[9, 5, 8, 3]).config(), 3);
        late.reload(&farm);
        Self {
            one: Lab::new(&farm),
            four: Lab::with_workers(&farm, 4),
            late,
        }
    }

    /// What all of them make of a datagram, on every worker; asserts that it is one and the same.
    fn decide(&mut self, bytes: &[u8], from: SocketAddr) -> Outcome {
        let vip: SocketAddr = VIP.parse().unwrap();
        let outcome = self.one.deliver(bytes, from, vip);
        for lab in [&mut self.four, &mut self.late] {
            for worker in 0..lab.forwarders.len() {
                assert_eq!(lab.deliver_at(worker, bytes, from, vip), outcome);
            }
        }
        outcome
    }
}

thread_local! {
    static NODES: RefCell<Nodes> = RefCell::new(Nodes::new());
}

/// A Call-ID as RFC 3261 §25.1 has it: words with and without an at.
fn call_id() -> impl Strategy<Value = String> {
    let word = "[a-zA-Z0-9.!%*_+`'~()<>:\\\\\"/\\[\\]?{}-]{1,40}";
    prop_oneof![
        word.prop_map(String::from),
        (word, word).prop_map(|(one, two)| format!("{one}@{two}")),
        "[0-9a-f]{32}@198\\.18\\.200\\.7",
    ]
}

/// A branch: cookie and token, other case, none of RFC 3261, empty, none.
fn branch_text() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "z9hG4bK[a-zA-Z0-9.!%*_+`'~-]{1,60}".prop_map(|text| format!(";branch={text}")),
        1 => "Z9HG4BK[a-z0-9]{1,20}".prop_map(|text| format!(";branch={text}")),
        1 => "[a-zA-Z0-9.]{1,20}".prop_map(|text| format!(";branch={text}")),
        1 => Just(";branch=z9hG4bK".to_owned()),
        1 => Just(";branch=".to_owned()),
        1 => Just(String::new()),
    ]
}

fn sent_by() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| std::net::Ipv4Addr::from(ip).to_string()),
        (any::<[u8; 4]>(), 1..u16::MAX)
            .prop_map(|(ip, port)| format!("{}:{port}", std::net::Ipv4Addr::from(ip))),
        any::<[u8; 16]>().prop_map(|ip| format!("[{}]:5070", std::net::Ipv6Addr::from(ip))),
        "[a-z][a-z0-9]{0,12}\\.invalid",
        Just("198.18.200.7:5060".to_owned()),
    ]
}

#[derive(Clone, Debug)]
struct Written {
    call_id: String,
    branch: String,
    sent_by: String,
    rport: bool,
    cseq: u32,
    from_tag: String,
    user: String,
}

fn written() -> impl Strategy<Value = Written> {
    (
        call_id(),
        branch_text(),
        sent_by(),
        any::<bool>(),
        0..=u32::MAX >> 1,
        "[a-z0-9]{0,10}",
        "[a-z0-9]{1,10}",
    )
        .prop_map(
            |(call_id, branch, sent_by, rport, cseq, from_tag, user)| Written {
                call_id,
                branch,
                sent_by,
                rport,
                cseq,
                from_tag,
                user,
            },
        )
}

impl Written {
    fn request(&self, method: &str, to_tag: &str) -> Vec<u8> {
        let rport = if self.rport { ";rport" } else { "" };
        let from_tag = match self.from_tag.as_str() {
            "" => String::new(),
            tag => format!(";tag={tag}"),
        };
        format!(
            "{method} sip:{0}@sip.lab.example SIP/2.0\r\n\
             Via: SIP/2.0/UDP {1}{rport}{2}\r\nMax-Forwards: 70\r\n\
             From: <sip:a@x>{from_tag}\r\nTo: <sip:{0}@sip.lab.example>{to_tag}\r\n\
             Call-ID: {3}\r\nCSeq: {4} {method}\r\nContent-Length: 0\r\n\r\n",
            self.user, self.sent_by, self.branch, self.call_id, self.cseq
        )
        .into_bytes()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// The same request, the same bytes, on every node and worker; CANCEL and non-2xx ACK with the
    /// INVITE's branch to the INVITE's server, from another port too; and its 180 back to the client.
    #[test]
    fn a33_one_request_one_result_everywhere(message in written(), port in 1_u16..) {
        NODES.with_borrow_mut(|nodes| {
            let from = SocketAddr::new("198.18.200.7".parse().unwrap(), port);
            let moved = SocketAddr::new(from.ip(), port ^ 1 | 1024);
            let invite = nodes.decide(&message.request("INVITE", ""), from).sent();
            prop_assert!(invite.bytes.starts_with(b"INVITE "), "{}", text(&invite.bytes));
            let again = nodes.decide(&message.request("INVITE", ""), from).sent();
            prop_assert_eq!(&again, &invite);
            for (method, to_tag) in [("CANCEL", ""), ("ACK", ";tag=b1"), ("INVITE", "")] {
                for source in [from, moved] {
                    let sent = nodes.decide(&message.request(method, to_tag), source).sent();
                    prop_assert_eq!(sent.to, invite.to);
                    prop_assert_eq!(branch(&sent.bytes), branch(&invite.bytes));
                }
            }
            let ringing = response(&invite, 180, "b1");
            let back = nodes.four.reply(&ringing, &invite).sent();
            prop_assert_eq!(back.to.ip(), from.ip());
            prop_assert_eq!(&nodes.late.reply(&ringing, &invite).sent(), &back);
            Ok(())
        })?;
    }

}

proptest! {
    // Each case builds two farms.
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// The same through a change of the farm: pins hold on the node that made them.
    #[test]
    fn a32_one_server_through_a_change_of_the_farm(
        message in written(),
        before in prop::collection::btree_set(1_u8..9, 1..6),
        after in prop::collection::btree_set(1_u8..9, 1..6),
        workers in 1_u8..5,
        minutes in 0_u64..3,
    ) {
        let farm = |numbers: std::collections::BTreeSet<u8>| {
            Farm::of(&numbers.into_iter().collect::<Vec<_>>()).config()
        };
        let mut lab = Lab::with_pins(&farm(before), workers, 64);
        let from: SocketAddr = CLIENT.parse().unwrap();
        let vip: SocketAddr = VIP.parse().unwrap();
        let invite = lab.deliver(&message.request("INVITE", ""), from, vip).sent();
        lab.reload(&farm(after));
        lab.wait(std::time::Duration::from_secs(60 * minutes));
        for (n, method) in ["INVITE", "CANCEL", "ACK", "CANCEL", "INVITE"].iter().enumerate() {
            let worker = n % usize::from(workers);
            let sent = lab.deliver_at(worker, &message.request(method, ""), from, vip).sent();
            prop_assert_eq!(sent.to, invite.to);
            prop_assert_eq!(branch(&sent.bytes), branch(&invite.bytes));
        }
    }
}

/// Another node number changes the mark beside the branch and nothing else.
#[test]
fn a35_the_node_is_no_part_of_the_branch() {
    let farm = Farm::of(&[1, 2, 3]).config();
    let mut one = Lab::with_workers(&farm, 4);
    let mut two = Lab::with_workers(&format!("node = 2\n{farm}"), 4);
    for n in 0..100 {
        let bytes = invite(&format!("node-{n}"), "z9hG4bK1");
        let (first, second) = (
            one.send(&bytes, CLIENT).sent(),
            two.send(&bytes, CLIENT).sent(),
        );
        assert_eq!(first.to, second.to);
        assert_eq!(branch(&first.bytes), branch(&second.bytes));
        let mark = via_parameter(&second.bytes, "v");
        let unmarked = replaced(&second.bytes, &mark, &via_parameter(&first.bytes, "v"));
        assert_eq!(text(&unmarked), text(&first.bytes));
        // Either takes the response of a request that the other has sent.
        let ok = response(&second, 200, "b1");
        assert_eq!(one.reply(&ok, &second).sent().to, CLIENT.parse().unwrap());
    }
}
