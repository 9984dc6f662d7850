//! Route tokens in the wrong hands: RFC 5626 §5.3, RFC 3261 §16.12.

use viaduct::affinity::{Binding, RouteToken, TokenError};
use viaduct::net::{Ipv6Addr, SocketAddr};
use viaduct::route::server_id;

use crate::fixture::*;
use crate::tools::*;

/// Requests that whoever has seen the call's messages could send.
fn requests(call: &NatCall, call_id: &str) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for method in ["INVITE", "BYE", "MESSAGE", "REFER", "ACK"] {
        for uri in [
            format!("sip:alice@{INSIDE}"),
            format!("sip:alice@{FLOW}"),
            "sip:alice@phone.example".to_owned(),
            "sip:198.18.0.1:5060".to_owned(),
        ] {
            let bytes = routed(method, &uri, call_id, &call.routes());
            // As either end: the direction is in the tags.
            let turned = replaced(&bytes, "tag=a1", "tag=b1");
            all.push(bytes);
            all.push(turned);
        }
    }
    all
}

/// The flow of a client behind a NAT is for the farm to use. Its token travels end to end, so that
/// the callee, a carrier, anybody on the way holds it.
#[test]
fn r5626_a_stranger_with_a_valid_token_does_not_reach_the_clients_flow() {
    for config in [ONE_ARMED, TWO_ARMED] {
        let mut lab = Lab::new(config);
        let call = NatCall::set_up(&mut lab, "flow-1");
        for from in [STRANGER, TRUSTED, CLIENT, "203.0.113.50:9"] {
            for bytes in requests(&call, "flow-1") {
                let sent = lab.send(&bytes, from).sent();
                assert_eq!(sent.to, call.invite.to, "{from}\n{}", text(&bytes));
            }
        }
        // From its server it does.
        let bye = routed(
            "BYE",
            &format!("sip:alice@{INSIDE}"),
            "flow-1",
            &call.routes(),
        );
        let sent = lab.deliver(&bye, call.invite.to, call.invite.from).sent();
        assert_eq!(sent.to, FLOW.parse().unwrap());
    }
}

/// A token is good for its Call-ID: in another dialog it counts as none.
#[test]
fn r5626_a_token_moved_to_another_dialog_counts_as_none() {
    for config in [ONE_ARMED, TWO_ARMED] {
        let mut lab = Lab::new(config);
        let call = NatCall::set_up(&mut lab, "flow-2");
        let (server, ours) = (call.invite.to, call.invite.from);
        for other in ["flow-3", "FLOW-2", "flow-2 ".trim(), "flow-2x"] {
            let is_same = other == "flow-2";
            let bye = routed("BYE", &format!("sip:alice@{INSIDE}"), other, &call.routes());
            // From the farm a flow would have to be used: 403 (RFC 5626 §5.3.1), and not the flow.
            let sent = lab.deliver(&bye, server, ours).sent();
            assert_eq!(sent.to == FLOW.parse().unwrap(), is_same, "{other}");
            let refused = start_line(&sent.bytes) == "SIP/2.0 403 Forbidden";
            assert_eq!(refused, !is_same, "{other}");
            // From outside: a server that the other dialog's own hash means.
            let alone = routed("BYE", "sip:x@phone.example", other, "");
            let hashed = lab.send(&alone, STRANGER).sent().to;
            let moved = routed("BYE", "sip:x@phone.example", other, &call.routes());
            let sent = lab.send(&moved, STRANGER).sent();
            assert_eq!(sent.to, if is_same { server } else { hashed }, "{other}");
            assert!(rows(&sent.bytes, "Route").is_empty());
        }
        // A name as Request-URI needs the token; without it nobody is asked on the farm's behalf.
        let bye = routed("BYE", "sip:x@phone.example", "flow-3", &call.routes());
        let answer = lab.deliver(&bye, server, ours).sent();
        assert_eq!(start_line(&answer.bytes), "SIP/2.0 403 Forbidden");
    }
}

/// The three forms of a token.
fn forms(lab: &Lab, call_id: &str) -> [String; 3] {
    let v6: SocketAddr = (Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 2, 3, 4, 5), 6).into();
    [
        sealed(lab, server_id("s2"), None, call_id),
        sealed(lab, server_id("s2"), Some(FLOW), call_id),
        sealed(lab, server_id("s2"), Some(&v6.to_string()), call_id),
    ]
}

/// Every bit of every character: only a change of case leaves a token what it was.
#[test]
fn r5626_a_token_with_any_bit_changed_is_none() {
    let lab = Lab::new(ONE_ARMED);
    let binding = Binding::Dialog(lab.keys.call_id_hash(b"bits"));
    for token in forms(&lab, "bits") {
        let good = RouteToken::open(&lab.keys, token.as_bytes(), binding).unwrap();
        let mut refused = 0;
        for at in 0..token.len() {
            for bit in 0..8 {
                let mut changed = token.clone().into_bytes();
                changed[at] ^= 1 << bit;
                let opened = RouteToken::open(&lab.keys, &changed, binding);
                if changed.eq_ignore_ascii_case(token.as_bytes()) {
                    assert_eq!(opened, Ok(good));
                } else {
                    assert!(opened.is_err(), "{}", changed.escape_ascii());
                    refused += 1;
                }
            }
        }
        assert!(refused > token.len() * 6);
    }
}

/// Characters added, removed, swapped, and tokens of two forms cut together.
#[test]
fn r5626_a_token_cut_together_is_none() {
    let lab = Lab::new(ONE_ARMED);
    let binding = Binding::Dialog(lab.keys.call_id_hash(b"cut"));
    let tokens = forms(&lab, "cut");
    let one = sealed(&lab, server_id("s1"), None, "cut");
    let refused = |text: &str| {
        if tokens.iter().any(|token| token == text) || text == one {
            return;
        }
        let opened = RouteToken::open(&lab.keys, text.as_bytes(), binding);
        assert!(opened.is_err(), "{text}");
    };
    for token in &tokens {
        for at in 0..token.len() {
            refused(&token[..at]);
            refused(&format!("{}0{}", &token[..at], &token[at..]));
            refused(&format!("{}{}", &token[..at], &token[at + 1..]));
        }
        for other in &tokens {
            if other != token {
                for at in 1..token.len().min(other.len()) {
                    refused(&format!("{}{}", &token[..at], &other[at..]));
                }
            }
        }
        for at in 2..token.len() - 1 {
            let mut swapped = token.clone().into_bytes();
            swapped.swap(at, at + 1);
            if swapped != token.as_bytes() {
                refused(std::str::from_utf8(&swapped).unwrap());
            }
        }
    }
    // Two tokens of one dialog, half and half, under each other's key id, and as another binding.
    for at in 2..one.len() {
        refused(&format!("{}{}", &one[..at], &tokens[0][at..]));
    }
    for id in "123456789abcdef".chars() {
        refused(&format!("v{id}{}", &one[2..]));
    }
    let path = RouteToken::open(&lab.keys, one.as_bytes(), Binding::Path);
    assert!(matches!(
        path,
        Err(TokenError::OtherCallId | TokenError::Mac)
    ));
}

/// 200,000 guesses.
#[test]
fn r5626_tokens_are_not_guessed() {
    let lab = Lab::new(ONE_ARMED);
    let binding = Binding::Dialog(lab.keys.call_id_hash(b"guess"));
    let mut numbers = Numbers(1);
    for len in [31, 41, 60] {
        let mut guess = vec![b'0'; len];
        guess[0] = b'v';
        let mut formed = 0;
        for _ in 0..70_000 {
            for character in &mut guess[2..] {
                *character = b"0123456789abcdefghijklmnopqrstuv"[numbers.below(32)];
            }
            // Spare bits of the last character are zero.
            guess[len - 1] = b'0';
            let opened = RouteToken::open(&lab.keys, &guess, binding);
            formed += usize::from(opened != Err(TokenError::NotOurs));
            assert!(opened.is_err());
        }
        assert!(formed > 60_000, "{len}: {formed} had the form of a token");
    }
}

/// Through the forwarder: no change of a token's text reaches the flow.
#[test]
fn r5626_a_tampered_token_reaches_no_flow_from_anywhere() {
    let mut lab = Lab::new(ONE_ARMED);
    let call = NatCall::set_up(&mut lab, "tamper");
    let token = call.token();
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'4' { b'5' } else { b'4' };
        let changed = String::from_utf8(changed).unwrap();
        let routes = call.routes().replace(&token, &changed);
        let bye = routed("BYE", &format!("sip:alice@{INSIDE}"), "tamper", &routes);
        let from_server = lab.deliver(&bye, call.invite.to, call.invite.from).sent();
        if at == 0 {
            // No longer the form of a token: a user name like any other.
            assert_eq!(from_server.to, INSIDE.parse().unwrap());
        } else {
            // RFC 5626 §5.3.1: tampered with, and a flow would have to be used.
            assert_eq!(start_line(&from_server.bytes), "SIP/2.0 403 Forbidden");
            assert_eq!(from_server.to, call.invite.to, "{at}");
        }
        let from_stranger = lab.send(&bye, STRANGER).sent();
        assert!(is_server(&from_stranger), "{at}: {}", from_stranger.to);
    }
}
