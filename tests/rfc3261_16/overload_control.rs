//! Overload control of our servers (RFC 7339), as their client.

use std::time::Duration;

use crate::fixture::*;

fn lab() -> Lab {
    Lab::new(&ONE_ARMED.replacen(
        "name = \"farm\"",
        "name = \"farm\"\noverload_control = true",
        1,
    ))
}

/// A response whose top `Via` says this of overload.
fn feedback(sent: &Sent, status: u16, says: &str) -> Vec<u8> {
    replaced(&response(sent, status, "b1"), ";oc;oc-algo=\"loss\"", says)
}

/// Sends new INVITEs until one is for `server`; it, and how many of the others were refused.
fn refused(lab: &mut Lab, prefix: &str, count: usize) -> Vec<bool> {
    (0..count)
        .map(|n| {
            let sent = lab.send(invite(&format!("{prefix}-{n}"), "z9hG4bK1"), CLIENT);
            let line = start_line(&sent.sent().bytes);
            line == "SIP/2.0 503 Service Unavailable"
        })
        .collect()
}

/// RFC 7339 §4.1, §4.2: in every request, and without a value.
#[test]
fn r7339_every_request_to_the_pool_offers_the_loss_scheme() {
    let mut lab = lab();
    for method in ["INVITE", "REGISTER", "OPTIONS", "BYE", "ACK"] {
        let sent = lab.send(
            request(method, "sip:bob@sip.lab.example", method, "z9hG4bK1", 1),
            CLIENT,
        );
        let top = rows(&sent.sent().bytes, "Via").remove(0);
        assert!(top.ends_with(";oc;oc-algo=\"loss\""), "{top}");
    }
    let mut without = Lab::new(ONE_ARMED);
    let sent = without.send(invite("oc-0", "z9hG4bK1"), CLIENT).sent();
    assert!(!text(&sent.bytes).contains(";oc"));
}

/// RFC 7339 §5.5: "MUST NOT forward more requests"; §5.10.1: what is begun and emergencies go first.
#[test]
fn r7339_a_share_of_new_requests_is_refused_while_the_server_asks() {
    let mut lab = lab();
    // All servers ask for half; the first response of each tells.
    let mut asked = std::collections::BTreeSet::new();
    for n in 0..200 {
        let sent = lab
            .send(invite(&format!("oc-a-{n}"), "z9hG4bK1"), CLIENT)
            .sent();
        if asked.insert(sent.to) {
            let says = ";oc=50;oc-algo=\"loss\";oc-validity=5000;oc-seq=7.5";
            let busy = feedback(&sent, 180, says);
            let back = lab.reply(busy, &sent).sent();
            // §5.6: hop by hop.
            assert!(!text(&back.bytes).contains(";oc"), "{}", text(&back.bytes));
        }
        if asked.len() == SERVERS.len() {
            break;
        }
    }
    assert_eq!(asked.len(), SERVERS.len());
    let verdicts = refused(&mut lab, "oc-b", 400);
    let share = verdicts.iter().filter(|refused| **refused).count();
    assert!((150..=250).contains(&share), "{share} of 400");
    assert_eq!(
        refused(&mut lab, "oc-b", 400),
        verdicts,
        "retransmissions alike"
    );
    assert_eq!(lab.metrics[0].overload.throttled.value(), 2 * share as u64);
    for n in 0..50 {
        let sos = request(
            "INVITE",
            "urn:service:sos",
            &format!("oc-s-{n}"),
            "z9hG4bK1",
            1,
        );
        let sent = lab.send(sos, CLIENT).sent();
        assert!(start_line(&sent.bytes).starts_with("INVITE"));
        let bye = request(
            "BYE",
            "sip:bob@sip.lab.example",
            &format!("oc-y-{n}"),
            "z9hG4bK1",
            2,
        );
        let sent = lab.send(bye, CLIENT).sent();
        assert!(start_line(&sent.bytes).starts_with("BYE"));
    }
    // §5.7: the validity ends.
    lab.wait(Duration::from_millis(5001));
    assert!(!refused(&mut lab, "oc-c", 100).contains(&true));
}

/// RFC 7339 §5.4: "SHOULD remove … from all Via headers of a response received, except for the
/// topmost"; §5.6: what the client offers goes no further.
#[test]
fn r7339_nothing_of_it_passes_either_way() {
    let mut lab = lab();
    let offered = replaced(
        &invite("oc-d", "z9hG4bK1"),
        ";branch=z9hG4bK1",
        ";oc;oc-algo=\"loss,rate\";branch=z9hG4bK1",
    );
    let sent = lab.send(offered, CLIENT).sent();
    let client = rows(&sent.bytes, "Via").remove(1);
    assert!(!client.contains(";oc"), "{client}");
    assert!(client.contains(";branch=z9hG4bK1"));
    let leaking = feedback(&sent, 180, ";oc=10;oc-seq=1");
    let leaking = replaced(
        &leaking,
        ";branch=z9hG4bK1",
        ";branch=z9hG4bK1;oc=90;oc-validity=9000;oc-seq=3.1",
    );
    let back = lab.reply(leaking, &sent).sent();
    assert!(!text(&back.bytes).contains(";oc"), "{}", text(&back.bytes));
    assert_eq!(rows(&back.bytes, "Via").len(), 1);
}
