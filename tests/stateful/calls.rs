//! Calls as the board counts them, and policies that look at it: what the proxy tells, on whichever
//! worker, is what the choice sees.

use std::time::Duration;

use viaduct::net::ServerIndex;

use super::fixture::*;

/// Three servers, the policy and what a server may have; INVITE alone has a transaction.
fn farm(policy: &str, server: &str) -> String {
    let servers: Vec<String> = (1..=3)
        .map(|number| {
            format!("{{ name = \"s{number}\", address = \"198.18.1.1{number}:5060\"{server} }}")
        })
        .collect();
    format!(
        "[[ listeners ]]\nname = \"clients\"\naddress = \"198.18.0.1:5060\"\n\
         aliases = [\"sip.lab.example\"]\nstateful = [\"INVITE\"]\n\
         [[pools]]\nname = \"farm\"\npolicy = \"{policy}\"\ncall_max = 600\n\
         servers = [{}]\n",
        servers.join(", ")
    )
}

/// Calls that stand, by server.
fn calls(lab: &Lab) -> [u32; 3] {
    [0, 1, 2].map(|server| lab.board.load(ServerIndex(server)).calls)
}

fn open(lab: &Lab) -> u32 {
    let open = (0..3).map(|server| lab.board.load(ServerIndex(server)).open());
    open.sum()
}

#[test]
fn a_call_counts_from_its_200_to_its_bye_on_whichever_worker_that_comes() {
    let mut lab = Lab::with_workers(&farm("least-loaded", ""), 3);
    let dialogs: Vec<Dialog> = (0..30)
        .map(|number| Dialog::set_up(&mut lab, &format!("call-{number}")))
        .collect();
    assert_eq!(calls(&lab), [10, 10, 10]);
    assert_eq!(open(&lab), 0);
    // Three BYEs are lost; the others come from both sides, to all workers.
    for (number, dialog) in dialogs.iter().enumerate().skip(3) {
        let outcome = match number % 2 {
            0 => {
                let to = lab.plan.listeners()[0].address;
                let bye = dialog.by_client("BYE", 2, "z9hG4bKbye");
                lab.deliver_at(number % 3, &bye, CLIENT.parse().unwrap(), to)
            }
            _ => {
                let bye = dialog.by_server("BYE", 2, "z9hG4bKbye");
                lab.deliver_at(number % 3, &bye, dialog.server, dialog.server_side)
            }
        };
        outcome.sent();
    }
    lab.wait(Duration::from_secs(20));
    assert_eq!(calls(&lab).iter().sum::<u32>(), 3);
    // One of them says something in its dialog: it is not given up with the others.
    lab.wait(Duration::from_secs(400));
    let info = dialogs[0].by_client("INFO", 2, "z9hG4bKinfo");
    let to = lab.plan.listeners()[0].address;
    for worker in 0..3 {
        lab.deliver_at(worker, &info, CLIENT.parse().unwrap(), to)
            .sent();
    }
    lab.wait(Duration::from_secs(250));
    assert_eq!(calls(&lab).iter().sum::<u32>(), 1);
    lab.wait(Duration::from_secs(400));
    assert_eq!(calls(&lab), [0, 0, 0]);
}

/// RFC 4028: the session's own interval counts, twice, and from each refresh on.
#[test]
fn r4028_a_session_that_is_not_refreshed_counts_no_more() {
    let mut lab = Lab::new(&farm("maglev", ""));
    let invite = invite("timed", "z9hG4bKtimed");
    let sent = lab.send(&invite, CLIENT).sent();
    let back = lab.reply(ok_of(&sent), &sent).sent();
    let dialog = Dialog {
        server: sent.to,
        server_side: sent.from,
        record_route: rows(&back.bytes, "Record-Route"),
        call_id: "timed".to_owned(),
    };
    lab.wait(Duration::from_secs(170));
    assert_eq!(calls(&lab).iter().sum::<u32>(), 1);
    let again = dialog.by_client("INVITE", 2, "z9hG4bKagain");
    let sent = lab.send(&again, CLIENT).sent();
    lab.reply(ok_of(&sent), &sent).sent();
    lab.wait(Duration::from_secs(170));
    assert_eq!(calls(&lab).iter().sum::<u32>(), 1);
    lab.wait(Duration::from_secs(30));
    assert_eq!(calls(&lab).iter().sum::<u32>(), 0);
}

fn ok_of(sent: &Sent) -> Vec<u8> {
    let row = "Session-Expires: 90;refresher=uac";
    with_row(&response(sent, 200, "b1"), "Contact", row)
}

/// What was chosen by load is remembered: the INVITE with credentials finds the server that asked
/// for them, although it is another's turn.
#[test]
fn the_invite_with_credentials_goes_to_who_asked_for_them() {
    for policy in ["round-robin", "least-loaded", "tlwl"] {
        let mut lab = Lab::new(&farm(policy, ""));
        for number in 0..9 {
            let call_id = format!("auth-{number}");
            let first = lab.send(invite(&call_id, "z9hG4bKfirst"), CLIENT).sent();
            lab.reply(response(&first, 407, "b1"), &first).sent();
            let second = replaced(&invite(&call_id, "z9hG4bKsecond"), "CSeq: 1 ", "CSeq: 2 ");
            let second = lab.send(second, CLIENT).sent();
            assert_eq!(second.to, first.to, "{policy} {number}");
        }
    }
}

/// Full servers get nothing, and a farm that is full says so.
#[test]
fn a_full_farm_refuses_until_a_call_ends() {
    for policy in [
        "maglev",
        "rendezvous",
        "round-robin",
        "least-loaded",
        "tlwl",
    ] {
        let mut lab = Lab::new(&farm(policy, ", max_calls = 2"));
        let dialogs: Vec<Dialog> = (0..6)
            .map(|number| Dialog::set_up(&mut lab, &format!("full-{number}")))
            .collect();
        assert_eq!(calls(&lab), [2, 2, 2], "{policy}");
        let refused = lab.send(invite("one-more", "z9hG4bK1"), CLIENT).sent();
        assert!(
            start_line(&refused.bytes).starts_with("SIP/2.0 503"),
            "{policy}"
        );
        let bye = dialogs[3].by_client("BYE", 2, "z9hG4bKbye");
        let at = lab.send(bye, CLIENT).sent().to;
        let taken = lab.send(invite("at-last", "z9hG4bK1"), CLIENT).sent();
        assert_eq!(taken.to, at, "{policy}");
        lab.assert_ends();
        assert_eq!(open(&lab), 0);
    }
}
