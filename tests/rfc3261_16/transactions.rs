//! One transaction, one server, one branch: RFC 3261 §16.11, RFC 6026.

use std::collections::BTreeMap;
use std::time::Duration;

use viaduct::verdict::DropReason;

use crate::fixture::*;

fn follow_up(method: &str, call_id: &str, branch: &str) -> Vec<u8> {
    request(method, "sip:bob@sip.lab.example", call_id, branch, 1)
}

/// A farm of `servers` by number.
fn farm(servers: &[u8]) -> String {
    let list: Vec<String> = servers
        .iter()
        .map(|n| format!("{{ name = \"s{n}\", address = \"198.18.1.1{n}:5060\" }}"))
        .collect();
    format!(
        "[[listeners]]\nname = \"clients\"\naddress = \"198.18.0.1:5060\"\n\
         aliases = [\"sip.lab.example\"]\n\
         [[pools]]\nname = \"farm\"\nservers = [{}]\n",
        list.join(", ")
    )
}

/// RFC 3261 §16.11: no special processing, same server, same branch, no answer of ours.
#[test]
fn a30_cancel_follows_its_invite() {
    let mut lab = Lab::new(ONE_ARMED);
    let invite = lab.send(invite("t-1", "z9hG4bK1"), CLIENT).sent();
    let cancel = lab
        .send(follow_up("CANCEL", "t-1", "z9hG4bK1"), CLIENT)
        .sent();
    assert_eq!(cancel.to, invite.to);
    assert_eq!(branch(&cancel.bytes), branch(&invite.bytes));
    // RFC 3261 §16.10: after a restart, too: the branch is no secret of a process.
    lab.restart();
    let cancel = lab
        .send(follow_up("CANCEL", "t-1", "z9hG4bK1"), CLIENT)
        .sent();
    assert_eq!(cancel.to, invite.to);
    assert_eq!(branch(&cancel.bytes), branch(&invite.bytes));
    let ok = lab.reply(response(&cancel, 200, "b1"), &cancel).sent();
    assert_eq!(ok.to, CLIENT.parse().unwrap());
}

/// RFC 3261 §16.11: whatever becomes of the configuration while it rings.
#[test]
fn a32_a_ringing_call_stays_while_servers_come_and_go() {
    let mut lab = Lab::new(&farm(&[1, 2, 3]));
    let calls: Vec<(String, Sent)> = (0..200)
        .map(|n| {
            let call_id = format!("t-2-{n}");
            let sent = lab.send(invite(&call_id, "z9hG4bK1"), CLIENT).sent();
            let ringing = response(&sent, 180, "b1");
            lab.reply(&ringing, &sent).sent();
            (call_id, sent)
        })
        .collect();
    let mut by_server: BTreeMap<_, usize> = BTreeMap::new();
    for (_, sent) in &calls {
        *by_server.entry(sent.to).or_default() += 1;
    }
    assert_eq!(by_server.len(), 3, "{by_server:?}");

    for (servers, minutes) in [(&[2_u8, 3][..], 1), (&[4], 2), (&[1, 4, 5], 1), (&[5], 2)] {
        lab.reload(&farm(servers));
        for (call_id, first) in &calls {
            let again = lab.send(invite(call_id, "z9hG4bK1"), CLIENT).sent();
            assert_eq!(again, *first, "a retransmission is byte-identical");
            let cancel = lab
                .send(follow_up("CANCEL", call_id, "z9hG4bK1"), CLIENT)
                .sent();
            assert_eq!(cancel.to, first.to);
            assert_eq!(branch(&cancel.bytes), branch(&first.bytes));
            // Timer C starts again with every 180, also from a server that is gone.
            lab.reply(response(first, 180, "b1"), first).sent();
        }
        lab.wait(Duration::from_secs(60 * minutes));
    }
    for (call_id, first) in &calls {
        lab.reply(response(first, 487, "b1"), first).sent();
        let ack = lab
            .send(follow_up("ACK", call_id, "z9hG4bK1"), CLIENT)
            .sent();
        assert_eq!(ack.to, first.to);
        assert_eq!(branch(&ack.bytes), branch(&first.bytes));
    }
    // Long after, the table counts again.
    lab.wait(Duration::from_secs(600));
    for (call_id, _) in &calls {
        let sent = lab.send(invite(call_id, "z9hG4bKnew"), CLIENT).sent();
        assert_eq!(sent.to, "198.18.1.15:5060".parse().unwrap());
    }
}

/// The authenticated retry has a branch and a CSeq of its own, and its Call-ID.
#[test]
fn a32_an_authenticated_retry_goes_to_the_server_that_challenged() {
    let mut lab = Lab::new(&farm(&[1, 2, 3]));
    let mut servers = BTreeMap::new();
    for n in 0..100 {
        let call_id = format!("t-3-{n}");
        let uri = "sip:sip.lab.example";
        let first = lab
            .send(request("REGISTER", uri, &call_id, "z9hG4bK1", 1), CLIENT)
            .sent();
        lab.reload(&farm(if n % 2 == 0 {
            &[1, 2, 3, 4, 5]
        } else {
            &[4, 5]
        }));
        let retry = lab
            .send(request("REGISTER", uri, &call_id, "z9hG4bK2", 2), CLIENT)
            .sent();
        assert_eq!(first.to, retry.to);
        assert_ne!(branch(&first.bytes), branch(&retry.bytes));
        *servers.entry(first.to).or_insert(0) += 1;
        lab.reload(&farm(&[1, 2, 3]));
    }
    assert_eq!(servers.len(), 3);
}

/// RFC 3261 §16.11: a function of the message and of "time-invariant properties of the server".
#[test]
fn a32_the_choice_is_the_same_on_every_node() {
    let mut one = Lab::new(&farm(&[1, 2, 3, 4, 5]));
    let mut other = Lab::new(&format!("node = 7\n{}", farm(&[5, 3, 1, 2, 4])));
    for n in 0..100 {
        let call_id = format!("t-4-{n}");
        let a = one.send(invite(&call_id, "z9hG4bK1"), CLIENT).sent();
        let b = other.send(invite(&call_id, "z9hG4bK1"), CLIENT).sent();
        assert_eq!(a, b);
    }
}

/// Requests without a token are decided by the worker that owns their Call-ID's pins.
#[test]
fn a32_every_worker_gives_the_same_result() {
    let mut lab = Lab::with_workers(ONE_ARMED, 4);
    let (client, vip) = (CLIENT.parse().unwrap(), VIP.parse().unwrap());
    for n in 0..40 {
        let bytes = invite(&format!("t-5-{n}"), "z9hG4bK1");
        let first = lab.deliver_at(0, &bytes, client, vip).sent();
        for worker in 1..4 {
            assert_eq!(lab.deliver_at(worker, &bytes, client, vip).sent(), first);
            let cancel = follow_up("CANCEL", &format!("t-5-{n}"), "z9hG4bK1");
            let cancel = lab.deliver_at(worker, &cancel, client, vip).sent();
            assert_eq!(cancel.to, first.to);
        }
    }
    // Three of four workers are not the home of a Call-ID. A CANCEL finds its pin from everywhere.
    assert_eq!(lab.handed_over, 120);
    // Counted once, at home.
    let invites: u64 = lab.metrics.iter().map(|of| of.requests[4].value()).sum();
    assert_eq!(invites, 160);
}

/// With a token nothing needs a pin, so nothing is handed over.
#[test]
fn a32_requests_with_a_token_stay_on_their_worker() {
    let mut lab = Lab::with_workers(ONE_ARMED, 4);
    let dialog = Dialog::set_up(&mut lab, "t-6");
    let before = lab.handed_over;
    let bye = dialog.by_client("BYE", 2, "z9hG4bK2");
    let (client, vip) = (CLIENT.parse().unwrap(), VIP.parse().unwrap());
    let sent: Vec<Sent> = (0..4)
        .map(|worker| lab.deliver_at(worker, &bye, client, vip).sent())
        .collect();
    assert!(
        sent.iter()
            .all(|one| *one == sent[0] && one.to == dialog.server)
    );
    assert_eq!(lab.handed_over, before);
}

/// RFC 3261 §16.11: "All other message transformations … MUST result in the same transformation".
#[test]
fn a33_retransmissions_leave_byte_identical() {
    for config in [ONE_ARMED, TWO_ARMED, FAMILIES] {
        let mut lab = Lab::new(config);
        for method in [
            "INVITE",
            "REGISTER",
            "SUBSCRIBE",
            "MESSAGE",
            "OPTIONS",
            "FROB",
        ] {
            let bytes = follow_up(method, "t-7", "z9hG4bK1;rport");
            let first = lab.send(&bytes, "198.18.200.9:7777").sent();
            for n in 0..10 {
                if n == 5 {
                    lab.restart();
                }
                lab.wait(Duration::from_secs(4));
                assert_eq!(
                    lab.send(&bytes, "198.18.200.9:7777").sent(),
                    first,
                    "{method}"
                );
            }
        }
    }
}

/// RFC 3261 §16.11: no 100, no timers: one message in, one out.
#[test]
fn a34_nothing_is_sent_but_what_was_received() {
    let mut lab = Lab::new(ONE_ARMED);
    let sent = lab.send(invite("t-8", "z9hG4bK1"), CLIENT).sent();
    assert!(start_line(&sent.bytes).starts_with("INVITE "));
    // The server's own 100 is the client's only one.
    let trying = lab.reply(response(&sent, 100, ""), &sent).sent();
    assert_eq!(start_line(&trying.bytes), "SIP/2.0 100 Reason");
}

/// RFC 3261 §16.11, §16.6 step 8.
#[test]
fn a35_branch_is_a_function_of_the_received_branch() {
    let mut lab = Lab::new(ONE_ARMED);
    let seen = |lab: &mut Lab, bytes: &[u8]| branch(&lab.send(bytes, CLIENT).sent().bytes);
    let plain = seen(&mut lab, &invite("t-9", "z9hG4bK1"));
    assert!(plain.starts_with("z9hG4bK"));
    // RFC 3261 §25.1: a token.
    assert!(
        plain
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte))
    );
    for same in ["CANCEL", "ACK"] {
        assert_eq!(
            seen(&mut lab, &follow_up(same, "t-9", "z9hG4bK1")),
            plain,
            "{same}"
        );
    }
    // The 2xx ACK and the re-INVITE have branches of their own.
    assert_ne!(seen(&mut lab, &follow_up("ACK", "t-9", "z9hG4bK2")), plain);
    let reinvite = request("INVITE", "sip:bob@sip.lab.example", "t-9", "z9hG4bK3", 2);
    assert_ne!(seen(&mut lab, &reinvite), plain);
}

/// RFC 3261 §17.2.3: two clients may choose one branch.
#[test]
fn a35_equal_branches_of_two_clients_differ_here() {
    let mut lab = Lab::new(ONE_ARMED);
    let one = lab.send(invite("t-10", "z9hG4bK1"), CLIENT).sent();
    let variants = [
        ("198.18.200.7:5060;branch", "198.18.200.8:5060;branch"),
        ("198.18.200.7:5060;branch", "198.18.200.7:5062;branch"),
        ("Call-ID: t-10", "Call-ID: t-10b"),
        ("CSeq: 1", "CSeq: 2"),
    ];
    for (from, to) in variants {
        let bytes = replaced(&invite("t-10", "z9hG4bK1"), from, to);
        let other = lab.send(bytes, CLIENT).sent();
        assert_ne!(branch(&other.bytes), branch(&one.bytes), "{to}");
    }
    // A NAT may give INVITE and CANCEL different source ports.
    let moved = lab
        .send(
            follow_up("CANCEL", "t-10", "z9hG4bK1"),
            "198.18.200.7:40000",
        )
        .sent();
    assert_eq!(branch(&moved.bytes), branch(&one.bytes));
}

/// RFC 3261 §16.11 for clients of RFC 2543, without the To tag: see RFC 5393 §4.2.1.
#[test]
fn a35_clients_without_the_cookie_get_one_branch_per_transaction() {
    let mut lab = Lab::new(ONE_ARMED);
    for old in ["", ";branch=1", ";branch=z9hG4bK", ";branch=x/y="] {
        let bytes = |method: &str, to: &str| {
            let bytes = follow_up(method, "t-11", "z9hG4bK1");
            let bytes = replaced(&bytes, ";branch=z9hG4bK1", old);
            replaced(&bytes, "To: Bob <sip:bob@sip.lab.example>", to)
        };
        let to = "To: Bob <sip:bob@sip.lab.example>";
        let invite = lab.send(bytes("INVITE", to), CLIENT).sent();
        assert!(branch(&invite.bytes).starts_with("z9hG4bKs0"));
        let cancel = lab.send(bytes("CANCEL", to), CLIENT).sent();
        let ack = lab
            .send(bytes("ACK", &format!("{to};tag=b1")), CLIENT)
            .sent();
        assert_eq!(branch(&cancel.bytes), branch(&invite.bytes), "{old}");
        assert_eq!(branch(&ack.bytes), branch(&invite.bytes), "{old}");
        let other = replaced(&bytes("INVITE", to), "CSeq: 1", "CSeq: 2");
        assert_ne!(
            branch(&lab.send(other, CLIENT).sent().bytes),
            branch(&invite.bytes)
        );
    }
}

/// RFC 3261 §17.1.1.3: hop by hop, and we are no hop of our own.
#[test]
fn a39_the_ack_of_a_failure_is_forwarded_with_the_invites_branch() {
    let mut lab = Lab::new(ONE_ARMED);
    let invite = lab.send(invite("t-12", "z9hG4bK1"), CLIENT).sent();
    let busy = lab.reply(response(&invite, 486, "b1"), &invite).sent();
    assert_eq!(start_line(&busy.bytes), "SIP/2.0 486 Reason");
    let ack = follow_up("ACK", "t-12", "z9hG4bK1");
    let to = "To: Bob <sip:bob@sip.lab.example>";
    let ack = lab
        .send(replaced(&ack, to, &format!("{to};tag=b1")), CLIENT)
        .sent();
    assert_eq!(ack.to, invite.to);
    assert_eq!(branch(&ack.bytes), branch(&invite.bytes));
}

/// RFC 3261 §13.3.1.4: each 200 and each ACK passes; nobody here absorbs or repeats one.
#[test]
fn a40_each_200_and_each_ack_passes() {
    let mut lab = Lab::new(ONE_ARMED);
    let invite = lab.send(invite("t-13", "z9hG4bK1"), CLIENT).sent();
    let ok = response(&invite, 200, "b1");
    let first = lab.reply(&ok, &invite).sent();
    for seconds in [1, 1, 2, 4, 8, 16] {
        lab.wait(Duration::from_secs(seconds));
        assert_eq!(lab.reply(&ok, &invite).sent(), first);
    }
    let dialog = Dialog {
        server: invite.to,
        server_side: invite.from,
        record_route: rows(&first.bytes, "Record-Route"),
        call_id: "t-13".to_owned(),
    };
    for branch in ["z9hG4bK2", "z9hG4bK3"] {
        let ack = replaced(
            &dialog.by_client("ACK", 1, branch),
            "CSeq: 1 ACK",
            "CSeq: 1 ACK",
        );
        let sent = lab.send(ack, CLIENT).sent();
        assert_eq!(sent.to, invite.to);
        assert!(start_line(&sent.bytes).starts_with("ACK sip:bob@"));
    }
}

/// RFC 6026 §8.9: a stateless proxy forwards responses, however late.
#[test]
fn r6026_without_transactions_no_response_is_a_stray() {
    let mut lab = Lab::new(ONE_ARMED);
    let sent = lab.send(invite("t-14", "z9hG4bK1"), CLIENT).sent();
    let ok = response(&sent, 200, "b1");
    lab.wait(Duration::from_secs(3600));
    assert_eq!(lab.reply(ok, &sent).sent().to, CLIENT.parse().unwrap());
}

/// RFC 6026 §10: the mark cannot be taken off.
#[test]
fn r6026_the_mark_is_part_of_the_mac() {
    let mut lab = Lab::new(ONE_ARMED);
    let sent = lab.send(invite("t-15", "z9hG4bK1"), CLIENT).sent();
    let ok = response(&sent, 200, "b1");
    for other in ["s1", "t0"] {
        let other = replaced(&ok, ";branch=z9hG4bKs0", &format!(";branch=z9hG4bK{other}"));
        assert_eq!(lab.reply(other, &sent).dropped(), DropReason::ResponseMac);
    }
}

/// RFC 3261 §18.1.1 wants TCP for what is too long; until there is TCP the pool may refuse it.
#[test]
fn a41_large_requests_are_accepted_and_refused_only_where_configured() {
    let limited = ONE_ARMED.replace("name = \"farm\"", "name = \"farm\"\nudp_max_request = 1300");
    let mut lab = Lab::new(&limited);
    let padded = |len: usize| {
        let head = replaced(&invite("t-16", "z9hG4bK1"), "Length: 0", "Length: 00000");
        let body = len - head.len();
        let head = replaced(&head, "Length: 00000", &format!("Length: {body:05}"));
        [head, vec![b'x'; body]].concat()
    };
    let growth = lab.send(padded(1000), CLIENT).sent().bytes.len() - 1000;
    let most = lab.send(padded(1300 - growth), CLIENT).sent();
    assert_eq!(most.bytes.len(), 1300);
    let answer = lab.send(padded(1301 - growth), CLIENT).sent();
    assert_eq!(start_line(&answer.bytes), "SIP/2.0 513 Message Too Large");
    let ack = replaced(&padded(1400), "INVITE", "ACK");
    assert_eq!(lab.send(ack, CLIENT).dropped(), DropReason::AckRejected);
    // Responses are never switched, and by default nothing is refused.
    let mut lab = Lab::new(ONE_ARMED);
    let sent = lab.send(padded(65_000 - growth), CLIENT).sent();
    assert_eq!(sent.bytes.len(), 65_000);
    let long = replaced(&response(&sent, 200, "b1"), "Length: 0", "Length: 60000");
    let long = [long, vec![b'x'; 60_000]].concat();
    assert!(lab.reply(&long, &sent).sent().bytes.len() > 60_000);
}
