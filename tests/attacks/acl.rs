//! Sources outside a listener's lists: silence, on every path.
//!
//! The steering program drops them before a socket sees them (`tests/bpf_program.rs`). What comes by
//! the kernel (a host without XDP, a datagram in fragments) meets the same lists here.

use viaduct::verdict::DropReason;

use crate::fixture::*;
use crate::tools::*;

const LISTS: &str = r#"
    [[listeners]]
    name = "clients"
    address = "198.18.0.1:5060"
    aliases = ["sip.lab.example"]
    allow = ["198.18.200.0/24", "198.18.1.0/24"]
    deny = ["198.18.200.66/32"]
    [[listeners]]
    name = "open"
    address = "198.18.0.1:5070"
    deny = ["203.0.113.0/24"]
    [[pools]]
    name = "farm"
    servers = [{ name = "s1", address = "198.18.1.11:5060" }]
"#;

#[test]
fn a_denied_source_is_met_with_silence() {
    let mut lab = Lab::new(LISTS);
    let denied = [
        "203.0.113.66:5060",
        "198.18.200.66:5060",
        "198.18.100.9:5060",
    ];
    for from in denied {
        let mut messages = vec![
            invite("acl", "z9hG4bK1"),
            replaced(
                &invite("acl", "z9hG4bK1"),
                "Max-Forwards: 70",
                "Max-Forwards: 0",
            ),
            request("OPTIONS", "sip:198.18.0.1", "acl", "z9hG4bK1", 1),
            b"INVITE nonsense SIP/2.0\r\n\r\n".to_vec(),
            b"\r\n\r\n".to_vec(),
        ];
        let sent = lab.send(invite("acl", "z9hG4bK1"), CLIENT).sent();
        messages.push(response(&sent, 200, "b1"));
        for bytes in messages {
            assert_eq!(
                lab.send(&bytes, from).dropped(),
                DropReason::SourceDenied,
                "{from}"
            );
        }
    }
    for from in [CLIENT, "198.18.200.65:9"] {
        assert_eq!(
            lab.send(invite("acl", "z9hG4bK1"), from).sent().to,
            SERVERS[0].parse().unwrap()
        );
    }
    // Each listener has its own lists.
    let open = "198.18.0.1:5070";
    lab.send_to(invite("acl", "z9hG4bK1"), "198.18.100.9:5060", open)
        .sent();
    let dropped = lab
        .send_to(invite("acl", "z9hG4bK1"), STRANGER, open)
        .dropped();
    assert_eq!(dropped, DropReason::SourceDenied);
}

#[test]
fn lists_change_by_reload() {
    let mut lab = Lab::new(LISTS);
    let from = "198.18.100.9:5060";
    assert_eq!(
        lab.send(invite("acl", "z9hG4bK1"), from).dropped(),
        DropReason::SourceDenied
    );
    lab.reload(&LISTS.replace("198.18.200.0/24", "198.18.0.0/16"));
    lab.send(invite("acl", "z9hG4bK1"), from).sent();
}

/// Who writes a server's address as its source would be taken for the farm. Where the farm has
/// a listener of its own, the outside one can be closed to its addresses.
#[test]
fn a_forged_source_of_the_farm_is_denied_at_the_outside_listener() {
    let address = "address = \"198.18.0.1:5060\"";
    let denied = format!("{address}\ndeny = [\"198.18.1.0/24\"]");
    let mut lab = Lab::new(&TWO_ARMED.replace(address, &denied));
    let relay = request("INVITE", "sip:x@203.0.113.99", "forged", "z9hG4bK1", 1);
    for server in SERVERS {
        let dropped = lab.send(&relay, server).dropped();
        assert_eq!(dropped, DropReason::SourceDenied);
        let sent = lab.send_to(&relay, server, "198.18.1.1:5060").sent();
        assert_eq!(sent.to, "203.0.113.99:5060".parse().unwrap());
    }
    let dialog = Dialog::set_up(&mut lab, "beside");
    let bye = dialog.by_server("BYE", 2, "z9hG4bK2");
    let sent = lab.deliver(&bye, dialog.server, dialog.server_side).sent();
    assert_eq!(sent.to, CLIENT.parse().unwrap());
}
