//! Responses: RFC 3261 §16.7, §16.11, §18.1.2, RFC 6026 §10.

use viaduct::verdict::DropReason;

use crate::fixture::*;

fn ringing(lab: &mut Lab, call_id: &str) -> (Sent, Vec<u8>) {
    let sent = lab.send(invite(call_id, "z9hG4bK1"), CLIENT).sent();
    let ringing = response(&sent, 180, "b1");
    (sent, ringing)
}

/// RFC 3261 §16.7 step 3: nothing below our Via: it answers something of ours.
#[test]
fn a22_a_response_with_only_our_via_goes_no_further() {
    let mut lab = Lab::new(ONE_ARMED);
    let (sent, ringing) = ringing(&mut lab, "p-1");
    let alone = replaced(
        &ringing,
        "Via: SIP/2.0/UDP 198.18.200.7:5060;branch=z9hG4bK1\r\n",
        "",
    );
    assert_eq!(lab.reply(alone, &sent).dropped(), DropReason::ResponseOwn);
}

/// RFC 3261 §18.1.2: not ours: "MUST be silently discarded".
#[test]
fn a36_responses_with_a_foreign_top_via_are_dropped() {
    let mut lab = Lab::new(ONE_ARMED);
    let (sent, ringing) = ringing(&mut lab, "p-3");
    for foreign in ["192.0.2.99:5060", "198.18.0.1:5999", "other.example"] {
        let bytes = replaced(
            &ringing,
            "UDP 198.18.0.1:5060;branch",
            &format!("UDP {foreign};branch"),
        );
        assert_eq!(
            lab.reply(bytes, &sent).dropped(),
            DropReason::ResponseViaForeign,
            "{foreign}"
        );
    }
}

#[test]
fn a36_our_via_must_carry_what_we_put_there() {
    let mut lab = Lab::new(ONE_ARMED);
    let (sent, ringing) = ringing(&mut lab, "p-5");
    let parameter = format!(";v={}", via_parameter(&sent.bytes, "v"));
    let branch = branch(&sent.bytes);
    for (from, to) in [
        (parameter.as_str(), ""),
        (parameter.as_str(), ";v"),
        (parameter.as_str(), ";v=short"),
        (branch.as_str(), "z9hG4bKother"),
        (branch.as_str(), ""),
    ] {
        let dropped = lab.reply(replaced(&ringing, from, to), &sent).dropped();
        assert_eq!(dropped, DropReason::ResponseViaInvalid, "{to}");
    }
}

/// RFC 6026 §10: "carefully control which peer elements can present traffic".
#[test]
fn a56_a_forged_or_altered_response_is_dropped() {
    let mut lab = Lab::new(ONE_ARMED);
    let (sent, ringing) = ringing(&mut lab, "p-6");
    let parameter = via_parameter(&sent.bytes, "v");
    // Every character of the parameter counts.
    for at in 0..parameter.len() {
        let mut guess = parameter.clone().into_bytes();
        guess[at] = if guess[at] == b'0' { b'8' } else { b'0' };
        let bytes = replaced(&ringing, &parameter, &text(&guess));
        let reason = lab.reply(bytes, &sent).dropped();
        assert!(
            matches!(
                reason,
                DropReason::ResponseMac | DropReason::ResponseViaInvalid
            ),
            "{at}: {}",
            reason.as_str()
        );
    }
    // One transaction's parameter with another's branch.
    let (other, _) = self::ringing(&mut lab, "p-7");
    let mixed = replaced(&ringing, &branch(&sent.bytes), &branch(&other.bytes));
    assert_eq!(lab.reply(mixed, &sent).dropped(), DropReason::ResponseMac);
}

/// A server answers from its networks, whatever the port.
#[test]
fn a56_a_servers_response_comes_from_its_networks() {
    let mut lab = Lab::new(ONE_ARMED);
    let (sent, ringing) = ringing(&mut lab, "p-8");
    let ip = sent.to.ip();
    lab.send(&ringing, &format!("{ip}:40000")).sent();
    for stranger in [CLIENT, "203.0.113.66:5060"] {
        assert_eq!(
            lab.send(&ringing, stranger).dropped(),
            DropReason::ResponseSource
        );
    }
    let other = SERVERS
        .iter()
        .find(|server| !server.starts_with(&ip.to_string()))
        .unwrap();
    assert_eq!(
        lab.send(&ringing, other).dropped(),
        DropReason::ResponseSource
    );

    let networks = ONE_ARMED.replace(
        "name = \"farm\"",
        "name = \"farm\"\nnetworks = [\"198.18.1.0/24\"]",
    );
    let mut lab = Lab::new(&networks);
    let (_, ringing) = self::ringing(&mut lab, "p-8");
    lab.send(&ringing, "198.18.1.200:5060").sent();
    assert_eq!(
        lab.send(&ringing, "198.18.2.1:5060").dropped(),
        DropReason::ResponseSource
    );
}

/// Phones and carriers answer the farm's requests from anywhere: the MAC alone counts.
#[test]
fn a56_responses_to_the_farms_requests_come_from_anywhere() {
    let mut lab = Lab::new(ONE_ARMED);
    let bytes = request("INVITE", "sip:carol@203.0.113.9:5080", "p-9", "z9hG4bK1", 1);
    let bytes = replaced(&bytes, "198.18.200.7", "198.18.1.12");
    let sent = lab.send(&bytes, SERVERS[1]).sent();
    assert_eq!(sent.to, "203.0.113.9:5080".parse().unwrap());
    let ringing = response(&sent, 180, "c1");
    for from in ["203.0.113.9:5080", "203.0.113.10:1024"] {
        assert_eq!(
            lab.send(&ringing, from).sent().to,
            SERVERS[1].parse().unwrap()
        );
    }
}

/// A server that is gone from the configuration may still answer; one that never was may not.
#[test]
fn a56_a_removed_server_may_still_answer() {
    let mut lab = Lab::new(ONE_ARMED);
    let (sent, ringing) = ringing(&mut lab, "p-10");
    let name = format!("s{}", sent.to.ip().to_string().chars().last().unwrap());
    let without: String = ONE_ARMED
        .lines()
        .filter(|line| !line.contains(&format!("\"{name}\"")))
        .map(|line| format!("{line}\n"))
        .collect();
    lab.reload(&without);
    assert_eq!(
        lab.reply(&ringing, &sent).sent().to,
        CLIENT.parse().unwrap()
    );
    // Another node with the same secret, but another farm.
    let mut stranger = Lab::new(&without);
    assert_eq!(
        stranger.reply(&ringing, &sent).dropped(),
        DropReason::ResponseSource
    );
}
