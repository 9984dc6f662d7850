//! Dialogs outlive everything: reload, another order, two rotations of the token keys, a restart.

use std::net::SocketAddr;
use std::time::Duration;

use viaduct::affinity::{KeyId, KeyRing, Keys, Secret};

use crate::calls::Farm;
use crate::fixture::*;

fn secret(last: u8) -> Secret {
    let mut bytes = *b"0123456789abcdefghijklmnopqrstuv";
    if last > 0 {
        bytes[31] = last;
    }
    Secret::from_bytes(bytes).unwrap()
}

/// Keys whose ring holds these ids; the first makes new tokens.
fn ring(ids: &[u8]) -> Keys {
    let id = |number: u8| KeyId::new(number).unwrap();
    let mut ring = KeyRing::new(id(ids[0]), secret(ids[0]));
    for other in &ids[1..] {
        assert!(ring.add(id(*other), secret(*other)));
    }
    Keys::with_ring(&secret(0), &ring)
}

#[track_caller]
fn hangs_up(lab: &mut Lab, dialog: &Dialog, what: &str) {
    for method in ["ACK", "INVITE", "UPDATE", "BYE"] {
        let bytes = dialog.by_client(method, 2, "z9hG4bK2");
        let sent = lab.send(bytes, CLIENT).sent();
        assert_eq!(sent.to, dialog.server, "{what}: {method} by the client");
        assert!(rows(&sent.bytes, "Route").is_empty(), "{what}");
        let bytes = dialog.by_server(method, 3, "z9hG4bK3");
        let sent = lab
            .deliver(&bytes, dialog.server, dialog.server_side)
            .sent();
        assert_eq!(
            sent.to,
            CLIENT.parse().unwrap(),
            "{what}: {method} by the server"
        );
        let back = lab.reply(response(&sent, 200, "a1"), &sent).sent();
        assert_eq!(back.to, dialog.server, "{what}");
    }
    // With a name in the Request-URI the token alone leads to the server.
    let bytes = dialog.by_client("BYE", 4, "z9hG4bK4");
    let bytes = replaced(
        &bytes,
        &format!("sip:bob@{}", dialog.server),
        "sip:pbx.internal.example",
    );
    assert_eq!(
        lab.send(bytes, CLIENT).sent().to,
        dialog.server,
        "{what}: BYE to a name"
    );
}

#[test]
fn a13_a_dialog_outlives_reload_reorder_two_rotations_and_a_restart() {
    let first = Farm::of(&[1, 2, 3]).config();
    let mut lab = Lab::with_workers(&first, 2);
    let dialogs: Vec<Dialog> = (0..40)
        .map(|n| Dialog::set_up(&mut lab, &format!("outlives-{n}")))
        .collect();
    let check = |lab: &mut Lab, what: &str| {
        for dialog in &dialogs {
            hangs_up(lab, dialog, what);
        }
    };
    check(&mut lab, "at once");
    lab.wait(Duration::from_secs(3600));
    lab.reload(&Farm::of(&[3, 1, 2]).config());
    check(&mut lab, "another order");
    lab.reload(&Farm::of(&[5, 3, 4]).config());
    check(&mut lab, "servers removed and added");

    // Each rotation: first the new key on every node, then it makes the tokens.
    let farm = Farm::of(&[5, 3, 2, 1]).config();
    for (ids, what) in [
        (&[0, 1][..], "a new key to open with"),
        (&[1, 0], "a new key to seal with"),
        (&[1, 0, 2], "a third key"),
        (&[2, 1, 0], "a second rotation"),
    ] {
        lab.reload_with(&farm, ring(ids));
        check(&mut lab, what);
        let new = Dialog::set_up(&mut lab, &format!("new {}", ids[0]).replace(' ', "-"));
        let id = format!("<sip:v{}", ids[0]);
        assert!(
            new.record_route[0].starts_with(&id),
            "{}",
            new.record_route[0]
        );
        hangs_up(&mut lab, &new, what);
    }

    // A restart: secrets and configuration, and nothing else. The server list has another order,
    // so that no slot is what it was.
    let mut again = Lab::with_workers(&farm, 3);
    again.reload_with(&farm, ring(&[2, 1, 0]));
    check(&mut again, "a restart");
}

/// A key that is gone opens nothing: the dialog is then routed by its Request-URI, as if there had
/// never been a token, and nobody is misled.
#[test]
fn a13_without_its_key_a_token_counts_as_none() {
    let farm = Farm::of(&[1, 2, 3]).config();
    let mut lab = Lab::new(&farm);
    let dialog = Dialog::set_up(&mut lab, "gone");
    lab.reload_with(&farm, ring(&[2, 1]));
    let sent = lab
        .send(dialog.by_client("BYE", 2, "z9hG4bK2"), CLIENT)
        .sent();
    assert_eq!(sent.to, dialog.server);
    assert!(rows(&sent.bytes, "Route").is_empty());
    let sent = lab
        .deliver(
            &dialog.by_server("BYE", 2, "z9hG4bK3"),
            dialog.server,
            dialog.server_side,
        )
        .sent();
    assert_eq!(sent.to, CLIENT.parse().unwrap());
}

/// Responses bring the key of their request back: those in flight at a rotation pass.
#[test]
fn a33_responses_in_flight_pass_a_rotation() {
    let farm = Farm::of(&[1, 2, 3]).config();
    let mut lab = Lab::with_workers(&farm, 2);
    let sent = lab.send(invite("in-flight", "z9hG4bK1"), CLIENT).sent();
    let ok = response(&sent, 200, "b1");
    let first = lab.reply(&ok, &sent).sent();
    for ids in [&[0, 1][..], &[1, 0], &[2, 1, 0]] {
        lab.reload_with(&farm, ring(ids));
        assert_eq!(lab.reply(&ok, &sent).sent(), first);
        // Server and branch are of keys that never rotate; only the marks are new.
        let again = lab.send(invite("in-flight", "z9hG4bK1"), CLIENT).sent();
        assert_eq!(again.to, sent.to);
        assert_eq!(branch(&again.bytes), branch(&sent.bytes));
    }
    lab.reload_with(&farm, ring(&[2, 1]));
    let dropped = lab.reply(&ok, &sent).dropped();
    assert_eq!(dropped, viaduct::verdict::DropReason::ResponseViaInvalid);
}

/// A call rings through a rotation and a restart with the farm as it was.
#[test]
fn a30_a_ringing_call_passes_rotations_and_a_restart() {
    use crate::calls::{Ringing, cancelled};
    let farm = Farm::of(&[1, 2, 3]).config();
    let mut lab = Lab::with_workers(&farm, 3);
    let calls = Ringing::many(&mut lab, 30);
    for ids in [&[0, 1][..], &[1, 0], &[2, 1, 0]] {
        lab.reload_with(&farm, ring(ids));
        for call in &calls {
            call.holds_together(&mut lab, "rotation");
            call.answered(&mut lab, 180);
        }
    }
    let mut again = Lab::with_workers(&farm, 2);
    again.reload_with(&farm, ring(&[2, 1, 0]));
    cancelled(&mut again, &calls, "restart");
}

/// A client behind a NAT is found in the new process as in the old one.
#[test]
fn a13_a_flow_outlives_a_restart() {
    let farm = Farm::of(&[1, 2, 3]).config();
    let mut lab = Lab::new(&farm);
    let flow = "203.0.113.50:31337";
    let inside = "192.168.1.5:5060";
    let bytes = replaced(
        &invite("nat", "z9hG4bK1;rport"),
        "198.18.200.7:5060",
        inside,
    );
    let sent = lab.send(&bytes, flow).sent();
    let back = lab.reply(response(&sent, 200, "b1"), &sent).sent();
    let dialog = Dialog {
        server: sent.to,
        server_side: sent.from,
        record_route: rows(&back.bytes, "Record-Route"),
        call_id: "nat".to_owned(),
    };
    let mut again = Lab::with_workers(&Farm::of(&[9, 3, 1, 2]).config(), 4);
    again.reload_with(&Farm::of(&[9, 3, 1, 2]).config(), ring(&[2, 1, 0]));
    let bye = replaced(
        &dialog.by_server("BYE", 2, "z9hG4bK2"),
        "alice@198.18.200.7:5060",
        &format!("alice@{inside}"),
    );
    let sent = again
        .deliver(&bye, dialog.server, dialog.server_side)
        .sent();
    assert_eq!(sent.to, flow.parse::<SocketAddr>().unwrap());
}
