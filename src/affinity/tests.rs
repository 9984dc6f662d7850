//! Tests across the keys: what belongs together comes out equal, what differs differs.

use proptest::prelude::*;

use super::*;
use crate::limits::{RECORD_ROUTE_ROW_LEN_MAX_IPV4, VIA_ROW_LEN_MAX_IPV4};
use crate::net::{Endpoint, IpAddr, ListenerIndex, Protocol, ServerId, SocketAddr};

fn secret(first: u8) -> Secret {
    let bytes = core::array::from_fn(|index| u8::try_from(index).unwrap() + first);
    Secret::from_bytes(bytes).unwrap()
}

fn keys() -> Keys {
    Keys::new(&secret(0))
}

fn endpoint(text: &str) -> Endpoint {
    Endpoint {
        address: text.parse().unwrap(),
        protocol: Protocol::Udp,
    }
}

fn ip(text: &str) -> SentBy<'static> {
    SentBy::Ip(text.parse().unwrap())
}

/// An INVITE's.
fn input<'a>(keys: &Keys, branch: &'a [u8]) -> BranchInput<'a> {
    BranchInput {
        branch,
        sent_by: ip("198.18.0.1"),
        port: Some(5060),
        call_id: keys.call_id_hash(b"a84b4c76e66710@pc33"),
        cseq: 314_159,
        via: b"SIP/2.0/UDP 198.18.0.1:5060",
        from_tag: b"1928301774",
        request_uri: b"sip:bob@example.com",
    }
}

fn branch(input: &BranchInput<'_>) -> Branch {
    keys().branch(Mode::Stateless, 0, input)
}

fn token(flow: Option<&str>) -> RouteToken {
    RouteToken {
        server: ServerId(0xdead_beef),
        flow: flow.map(endpoint),
        listener: ListenerIndex(31),
        nat: true,
        callee: false,
        pair: Pair::Farm,
        initiator: keys().tag_hash(b"1928301774"),
    }
}

const FLOWS: [Option<&str>; 3] = [None, Some("198.18.0.1:5060"), Some("[2001:db8::1]:5060")];

fn parameter() -> ViaParameter {
    ViaParameter {
        peer: ServerId(0x1234_5678),
        listener: ListenerIndex(2),
        node: NodeId(3),
        flags: 4,
    }
}

/// Every text that differs from `text` in one character, which is still base32hex.
fn altered(text: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..text.len()).flat_map(move |index| {
        (0..32).filter_map(move |value| {
            let mut other = text.to_vec();
            other[index] = base32::digit(value);
            (!other.eq_ignore_ascii_case(text)).then_some(other)
        })
    })
}

// ---- branch -------------------------------------------------------------------------------------

/// Matrix A35, RFC 3261 §16.11: with a cookie in the received branch, INVITE, CANCEL and the ACK of
/// a 486 have one branch, whatever else in them differs.
#[test]
fn a35_branch_is_made_of_what_invite_cancel_and_ack_share() {
    let keys = keys();
    let invite = input(&keys, b"z9hG4bK776asdhds");
    let cancel = BranchInput {
        via: b"SIP/2.0/UDP 198.18.0.1:5060;branch=z9hG4bK776asdhds;rport",
        from_tag: b"",
        request_uri: b"sip:bob@198.18.0.9",
        ..invite
    };
    assert_eq!(branch(&invite), branch(&cancel));
}

/// Matrix A35, trap 3: clients that choose equal branches get different ones of ours, and so do
/// the 2xx ACK and the re-INVITE of one client.
#[test]
fn a35_branch_differs_with_everything_it_is_made_of() {
    let keys = keys();
    let invite = input(&keys, b"z9hG4bK776asdhds");
    let others = [
        BranchInput {
            branch: b"z9hG4bK776asdhdt",
            ..invite
        },
        BranchInput {
            sent_by: ip("198.18.0.2"),
            ..invite
        },
        BranchInput {
            sent_by: SentBy::Name(b"pc33"),
            ..invite
        },
        BranchInput {
            port: Some(5061),
            ..invite
        },
        BranchInput {
            call_id: CallIdHash(1),
            ..invite
        },
        BranchInput {
            cseq: 314_160,
            ..invite
        },
    ];
    for other in others {
        assert_ne!(branch(&invite), branch(&other), "{other:?}");
    }
}

/// RFC 5954 §4.2: literals by value. RFC 3261 §19.1.4: names without case. §18.2.2: no port
/// is 5060.
#[test]
fn branch_takes_equal_sent_bys_as_equal() {
    let keys = keys();
    let invite = input(&keys, b"z9hG4bKx");
    let with = |sent_by, port| {
        branch(&BranchInput {
            sent_by,
            port,
            ..invite
        })
    };
    assert_eq!(with(ip("198.18.0.1"), None), branch(&invite));
    assert_eq!(with(ip("::ffff:198.18.0.1"), Some(5060)), branch(&invite));
    assert_eq!(
        with(SentBy::Name(b"PC33.Example.com"), None),
        with(SentBy::Name(b"pc33.example.COM"), None)
    );
    // Four bytes of a name are not the four bytes of an address.
    assert_ne!(
        with(SentBy::Name(&[198, 18, 0, 1]), None),
        with(ip("198.18.0.1"), None)
    );
}

/// Trap 2, matrix row 2543: without a usable branch, INVITE, CANCEL and non-2xx ACK still meet,
/// and what tells other transactions apart does.
#[test]
fn a35_rfc2543_branch_is_made_of_via_from_tag_call_id_cseq_and_request_uri() {
    let keys = keys();
    for received in [&b""[..], b"1", b"z9hG4bK", b"Z9HG4BK", b"z9hG4b"] {
        let invite = input(&keys, received);
        assert!(!invite.has_cookie());
        let others = [
            BranchInput {
                via: b"SIP/2.0/UDP 198.18.0.2:5060",
                ..invite
            },
            BranchInput {
                from_tag: b"",
                ..invite
            },
            BranchInput {
                call_id: CallIdHash(1),
                ..invite
            },
            BranchInput { cseq: 1, ..invite },
            BranchInput {
                request_uri: b"sip:bob@example.org",
                ..invite
            },
            // The same bytes, cut elsewhere.
            BranchInput {
                via: b"SIP/2.0/UDP 198.18.0.1:506",
                from_tag: b"01928301774",
                ..invite
            },
            BranchInput {
                from_tag: b"192830177",
                request_uri: b"4sip:bob@example.com",
                ..invite
            },
        ];
        for other in others {
            assert_ne!(branch(&invite), branch(&other), "{other:?}");
        }
    }
    // The cookie is a token: read without case.
    assert!(input(&keys, b"z9HG4bKx").has_cookie());
}

/// RFC 3261 §8.1.1.7, §16.6 step 8, §25.1: the cookie first, and token characters only.
#[test]
fn branch_is_a_token_that_begins_with_the_cookie() {
    let keys = keys();
    let made = keys.branch(Mode::Stateful, 31, &input(&keys, b"z9hG4bKx"));
    assert_eq!(made.len(), BRANCH_LEN);
    assert!(made.starts_with(b"z9hG4bKtv"));
    assert!(made.iter().all(u8::is_ascii_alphanumeric));
    assert_eq!((made.mode(), made.attempt()), (Mode::Stateful, 31));
}

/// RFC 3261 §7.3.1: tokens have no case.
#[test]
fn branch_is_parsed_in_any_case_and_nothing_else_is() {
    let keys = keys();
    let made = keys.branch(Mode::Stateful, 9, &input(&keys, b"z9hG4bKx"));
    assert_eq!(Branch::parse(&made), Some(made));
    assert_eq!(Branch::parse(&made.to_ascii_uppercase()), Some(made));
    assert_eq!(Branch::parse(&made.to_ascii_lowercase()), Some(made));
    for other in altered(&made) {
        assert_ne!(Branch::parse(&other), Some(made));
    }
    assert_eq!(Branch::parse(&made[..made.len() - 1]), None);
    assert_eq!(Branch::parse(&[&made[..], b"0"].concat()), None);
    assert_eq!(Branch::parse(b"z9hG4bK"), None);
    assert_eq!(Branch::parse(b""), None);
    let mut modeless = made.to_vec();
    modeless[7] = b'x';
    assert_eq!(Branch::parse(&modeless), None);
}

/// Attempts and modes share the hash: only what stands in clear differs.
#[test]
fn attempts_of_a_transaction_have_distinct_branches() {
    let keys = keys();
    let input = input(&keys, b"z9hG4bKx");
    let mut seen = std::collections::HashSet::new();
    for mode in [Mode::Stateless, Mode::Stateful] {
        for attempt in 0..ATTEMPTS_MAX {
            let made = keys.branch(mode, attempt, &input);
            assert_eq!((made.mode(), made.attempt()), (mode, attempt));
            assert!(seen.insert(made.to_vec()));
        }
    }
}

/// Matrix A33, trap 3: the same on every node, after a restart, and under any token key: these
/// texts must never change, or an upgrade tears transactions apart.
#[test]
fn a33_keys_make_the_texts_they_always_made() {
    let keys = keys();
    let name = BranchInput {
        sent_by: SentBy::Name(b"PC33.atlanta.example.com"),
        port: None,
        ..input(&keys, b"z9hG4bK776asdhds")
    };
    let made = branch(&name);
    let legacy = branch(&input(&keys, b""));
    let via = parameter().encode(&keys, &made, endpoint("198.18.0.1:5060"));
    let binding = Binding::Dialog(name.call_id);
    let answer = AnswerInput {
        call_id: name.call_id,
        cseq: 1,
        from_tag: b"1928301774",
    };
    let mut lines = vec![
        String::from_utf8(made.to_vec()).unwrap(),
        String::from_utf8(legacy.to_vec()).unwrap(),
        String::from_utf8(via.to_vec()).unwrap(),
        String::from_utf8(keys.answer_tag(&answer).to_vec()).unwrap(),
    ];
    for flow in FLOWS {
        let text = token(flow).seal(&keys, binding);
        lines.push(String::from_utf8(text.to_vec()).unwrap());
    }
    let expected = include_str!("../../tests/data/affinity_texts.txt");
    let expected: Vec<_> = expected
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(lines, expected);

    let mut ring = KeyRing::new(KeyId::new(5).unwrap(), secret(9));
    assert!(ring.add(KeyId::default(), secret(0)));
    let rotated = Keys::with_ring(&secret(0), &ring);
    assert_eq!(rotated.branch(Mode::Stateless, 0, &name), made);
    assert_eq!(rotated.call_id_hash(b"a84b4c76e66710@pc33"), name.call_id);
    assert_eq!(rotated.table_seed(), keys.table_seed());
    assert_eq!(rotated.answer_tag(&answer), keys.answer_tag(&answer));
}

// ---- Via parameter ------------------------------------------------------------------------------

/// The whole IPv4 `Via` row of the longest address is within its budget.
#[test]
fn via_row_is_within_its_budget() {
    let keys = keys();
    let branch = branch(&input(&keys, b"z9hG4bKx"));
    let value = parameter().encode(&keys, &branch, endpoint("255.255.255.255:65535"));
    let row = [
        &b"Via: SIP/2.0/UDP 255.255.255.255:65535;branch="[..],
        &branch,
        b";v=",
        &value,
        b"\r\n",
    ];
    assert_eq!(row.concat().len(), VIA_ROW_LEN_MAX_IPV4);
}

/// Matrix A56: a parameter holds for its branch and its next hop only, in any case.
#[test]
fn a56_via_parameter_holds_for_its_branch_and_next_hop_only() {
    let keys = keys();
    let made = branch(&input(&keys, b"z9hG4bKx"));
    for hop in ["198.18.0.1:5060", "[2001:db8::1]:5060"] {
        let hop = endpoint(hop);
        let text = parameter().encode(&keys, &made, hop);
        let decode =
            |text: &[u8], branch: &Branch, hop| ViaParameter::decode(&keys, text, branch, hop);
        assert_eq!(decode(&text, &made, hop), Ok(parameter()));
        assert_eq!(
            decode(&text.to_ascii_uppercase(), &made, hop),
            Ok(parameter())
        );
        let mac = Err(TokenError::Mac);
        let other = branch(&input(&keys, b"z9hG4bKy"));
        assert_eq!(decode(&text, &other, hop), mac);
        for (mode, attempt) in [(Mode::Stateful, 0), (Mode::Stateless, 1)] {
            let other = keys.branch(mode, attempt, &input(&keys, b"z9hG4bKx"));
            assert_eq!(decode(&text, &other, hop), mac);
        }
        let (ip, port) = (hop.address.ip(), hop.address.port());
        let elsewhere = [
            Endpoint {
                address: SocketAddr::new(ip, port + 1),
                ..hop
            },
            Endpoint {
                protocol: Protocol::Tcp,
                ..hop
            },
            endpoint("198.18.0.2:5060"),
            endpoint("[2001:db8::2]:5060"),
        ];
        for hop in elsewhere {
            assert_eq!(decode(&text, &made, hop), mac);
        }
        for other in altered(&text) {
            assert!(decode(&other, &made, hop).is_err());
        }
    }
    let mapped = endpoint("[::ffff:198.18.0.1]:5060");
    assert_eq!(
        parameter().encode(&keys, &made, mapped),
        parameter().encode(&keys, &made, endpoint("198.18.0.1:5060"))
    );
}

#[test]
fn via_parameter_of_another_form_or_key_is_told_apart() {
    let keys = keys();
    let made = branch(&input(&keys, b"z9hG4bKx"));
    let hop = endpoint("198.18.0.1:5060");
    let text = parameter().encode(&keys, &made, hop);
    let decode = |keys: &Keys, text: &[u8]| ViaParameter::decode(keys, text, &made, hop);
    for other in [&b""[..], &text[1..], b"w0000000000000000000000000"] {
        assert_eq!(decode(&keys, other), Err(TokenError::NotOurs));
    }
    let other = Keys::with_ring(&secret(0), &KeyRing::new(KeyId::new(1).unwrap(), secret(0)));
    assert_eq!(decode(&other, &text), Err(TokenError::UnknownKey));
    let forged = Keys::with_ring(&secret(0), &KeyRing::new(KeyId::default(), secret(1)));
    assert_eq!(decode(&forged, &text), Err(TokenError::Mac));
}

// ---- route token --------------------------------------------------------------------------------

#[test]
fn record_route_row_is_within_its_budget() {
    let keys = keys();
    let token = token(Some("255.255.255.255:65535"));
    let text = token.seal(&keys, Binding::Dialog(CallIdHash(1)));
    let row = [
        &b"Record-Route: <sip:"[..],
        &text,
        b"@255.255.255.255:65535;lr=on>\r\n",
    ];
    let len = row.concat().len();
    assert!(len <= RECORD_ROUTE_ROW_LEN_MAX_IPV4, "{len}");
}

#[test]
fn token_without_a_flow_is_shorter() {
    let keys = keys();
    let lens = FLOWS.map(|flow| token(flow).seal(&keys, Binding::Path).len());
    assert_eq!(lens, [31, 41, 60]);
}

/// RFC 3261 §19.1.4: the user part is compared with case, and some stacks change it all the same.
/// §25.1: no character that must be escaped there.
#[test]
fn token_is_read_in_any_case() {
    let keys = keys();
    for flow in FLOWS {
        let text = token(flow).seal(&keys, Binding::Path);
        assert!(text.iter().all(u8::is_ascii_alphanumeric));
        assert_eq!(text.to_ascii_lowercase(), &text[..]);
        assert!(RouteToken::is_token(&text));
        let upper = text.to_ascii_uppercase();
        assert_eq!(
            RouteToken::open(&keys, &upper, Binding::Path),
            Ok(token(flow))
        );
    }
}

#[test]
fn token_holds_for_its_binding_only() {
    let keys = keys();
    let dialog = |hash| Binding::Dialog(CallIdHash(hash));
    for flow in FLOWS {
        let text = token(flow).seal(&keys, dialog(1));
        let open = |binding| RouteToken::open(&keys, &text, binding);
        assert_eq!(open(dialog(1)), Ok(token(flow)));
        assert_eq!(open(dialog(2)), Err(TokenError::OtherCallId));
        assert_eq!(open(Binding::Path), Err(TokenError::OtherCallId));
        let path = token(flow).seal(&keys, Binding::Path);
        assert_eq!(
            RouteToken::open(&keys, &path, dialog(0)),
            Err(TokenError::OtherCallId)
        );
    }
}

/// A changed character never passes; nearly always it is seen as damage.
#[test]
fn altered_token_is_refused() {
    let keys = keys();
    let binding = Binding::Dialog(CallIdHash(1));
    for flow in FLOWS {
        let text = token(flow).seal(&keys, binding);
        let (mut mac, mut other_call_id) = (0, 0);
        for other in altered(&text) {
            match RouteToken::open(&keys, &other, binding) {
                Ok(token) => panic!("{token:?}"),
                Err(TokenError::Mac) => mac += 1,
                Err(TokenError::OtherCallId) => other_call_id += 1,
                Err(TokenError::NotOurs | TokenError::UnknownKey) => {}
            }
        }
        assert!(other_call_id * 64 < mac, "{other_call_id} of {mac}");
    }
}

#[test]
fn user_parts_of_another_form_are_passed_over() {
    let keys = keys();
    let text = token(None).seal(&keys, Binding::Path);
    let text = &text[..];
    let with = |index: usize, character| {
        let mut other = text.to_vec();
        other[index] = character;
        other
    };
    let others = [
        vec![],
        b"bob".to_vec(),
        b"v".to_vec(),
        text[1..].to_vec(),
        [text, b"0"].concat(),
        with(0, b'w'),
        // Key ids end at f.
        with(1, b'g'),
        with(1, b'-'),
        // No base32hex.
        with(9, b'w'),
        with(30, b'~'),
        vec![0xff; 31],
    ];
    for other in others {
        let result = RouteToken::open(&keys, &other, Binding::Path);
        assert_eq!(result, Err(TokenError::NotOurs), "{other:?}");
    }
    assert!(!RouteToken::is_token(b"verylongusernamewithoutanymeanin"));
}

/// The ring: old tokens open while their key is in it, and say so when it is not.
#[test]
fn token_keys_rotate() {
    let id = |number| KeyId::new(number).unwrap();
    let ring = |current: (u8, u8), old: &[(u8, u8)]| {
        let mut ring = KeyRing::new(id(current.0), secret(current.1));
        for &(number, first) in old {
            assert!(ring.add(id(number), secret(first)));
        }
        Keys::with_ring(&secret(0), &ring)
    };
    let binding = Binding::Dialog(CallIdHash(1));
    let before = ring((3, 1), &[]);
    let during = ring((4, 2), &[(3, 1)]);
    let after = ring((4, 2), &[]);
    let forged = ring((3, 9), &[]);
    for flow in FLOWS {
        let token = token(flow);
        let text = token.seal(&before, binding);
        let open = |keys: &Keys, text: &[u8]| RouteToken::open(keys, text, binding);
        assert_eq!(open(&during, &text), Ok(token));
        assert_eq!(open(&after, &text), Err(TokenError::UnknownKey));
        // Once in 256 times a wrong key passes for another Call-ID; these three do not.
        assert_eq!(open(&forged, &text), Err(TokenError::Mac));
        let newer = token.seal(&during, binding);
        assert_eq!(open(&after, &newer), Ok(token));
        assert_eq!(open(&before, &newer), Err(TokenError::UnknownKey));
        // Matrix A33: a retransmission gets the same bytes.
        assert_eq!(newer, token.seal(&during, binding));
    }
}

/// The flow is the user's address: texts of neighbouring flows have nothing in common.
#[test]
fn token_does_not_show_its_flow() {
    let keys = keys();
    let binding = Binding::Dialog(CallIdHash(1));
    let first = token(Some("198.18.0.1:5060")).seal(&keys, binding);
    let mut equal = 0;
    for port in 5061..5161 {
        let other = token(Some(&format!("198.18.0.1:{port}"))).seal(&keys, binding);
        equal += first[2..]
            .iter()
            .zip(&other[2..])
            .filter(|(a, b)| a == b)
            .count();
    }
    // 3,900 characters, one in 32 equal by chance: 122 expected, σ 11.
    assert!((70..180).contains(&equal), "{equal}");
}

// ---- To tag, home worker ------------------------------------------------------------------------

/// Matrix A48, RFC 3261 §8.2.7: the same tag for the same request; the ACK that bears it is ours.
#[test]
fn a48_answer_tag_is_recognised_in_the_ack() {
    let keys = keys();
    let input = AnswerInput {
        call_id: CallIdHash(1),
        cseq: 1,
        from_tag: b"1928301774",
    };
    let tag = keys.answer_tag(&input);
    assert_eq!(tag, keys.answer_tag(&input));
    assert!(keys.is_own_answer_tag(&tag.to_ascii_uppercase(), &input));
    for other in altered(&tag) {
        assert!(!keys.is_own_answer_tag(&other, &input));
    }
    assert!(!keys.is_own_answer_tag(b"", &input));
    assert!(!keys.is_own_answer_tag(&tag[1..], &input));
    let others = [
        AnswerInput { cseq: 2, ..input },
        AnswerInput {
            call_id: CallIdHash(2),
            ..input
        },
        AnswerInput {
            from_tag: b"1928301775",
            ..input
        },
    ];
    for other in others {
        assert!(!keys.is_own_answer_tag(&tag, &other), "{other:?}");
    }
}

#[test]
fn home_workers_share_the_calls_evenly() {
    let keys = keys();
    for workers in [1, 2, 3, 5, 64] {
        let mut calls = vec![0; usize::from(workers)];
        for number in 0..64_000 {
            let call_id = keys.call_id_hash(format!("{number}@198.18.0.1").as_bytes());
            calls[usize::from(home_worker(call_id, workers).0)] += 1;
        }
        let expected = 64_000 / i32::from(workers);
        // Six sigma.
        let bound = (6.0 * f64::from(expected).sqrt()).ceil();
        for count in calls {
            assert!(
                f64::from((count - expected).abs()) <= bound,
                "{count} {expected}"
            );
        }
    }
    assert_eq!(home_worker(CallIdHash(u64::MAX), 0).0, 0);
    assert_eq!(home_worker(CallIdHash(u64::MAX), 255).0, 254);
}

/// SipHash-1-3 from its definition (Aumasson, Bernstein, "SipHash: a fast short-input PRF"), as
/// the XDP program has to compute it.
fn siphash_1_3(key: &[u8; 16], bytes: &[u8]) -> u64 {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let (k0, k1) = (word(&key[..8]), word(&key[8..]));
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let round = |v: &mut [u64; 4]| {
        v[0] = v[0].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(13) ^ v[0];
        v[0] = v[0].rotate_left(32);
        v[2] = v[2].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(16) ^ v[2];
        v[0] = v[0].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(21) ^ v[0];
        v[2] = v[2].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(17) ^ v[2];
        v[2] = v[2].rotate_left(32);
    };
    let chunks = bytes.chunks_exact(8);
    let last = word(chunks.remainder()) | (bytes.len() as u64) << 56;
    for m in chunks.map(word).chain([last]) {
        v[3] ^= m;
        round(&mut v);
        v[0] ^= m;
    }
    v[2] ^= 0xff;
    for _ in 0..3 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

/// The vectors that the XDP program will be held to as well.
#[test]
fn affinity_vectors_hold() {
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let vectors = include_str!("../../tests/data/affinity_vectors.txt");
    let keys = keys();
    let mut count = 0;
    for line in vectors.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = line.split('\t').collect();
        let [hash, worker_of_3, worker_of_64, call_id] = fields[..] else {
            panic!("{line}");
        };
        let call_id = call_id.as_bytes();
        assert_eq!(
            siphash_1_3(&keys.affinity_key(), call_id),
            hex(hash),
            "{line}"
        );
        assert_eq!(keys.affinity_hash(call_id), hex(hash), "{line}");
        let hash = keys.call_id_hash(call_id);
        assert_eq!(home_worker(hash, 3).0.to_string(), worker_of_3);
        assert_eq!(home_worker(hash, 64).0.to_string(), worker_of_64);
        count += 1;
    }
    assert!(count >= 10);
    assert!(vectors.contains(&format!(
        "{:032x}",
        u128::from_be_bytes(keys.affinity_key())
    )));
}

// ---- properties ---------------------------------------------------------------------------------

proptest! {
    #[test]
    fn tokens_come_back(server: u32, port: u16, ip: IpAddr, listener in 0..32u8, nat: bool,
                        callee: bool, call_id: u64, tag: Vec<u8>, pair in 0..3usize, flow in 0..7u8) {
        let keys = keys();
        let token = RouteToken {
            server: ServerId(server),
            flow: Protocol::from_number(flow).map(|protocol| Endpoint {
                address: SocketAddr::new(crate::net::canonical(ip), port),
                protocol,
            }),
            listener: ListenerIndex(listener),
            nat,
            callee,
            pair: [Pair::Single, Pair::Outside, Pair::Farm][pair],
            initiator: keys.tag_hash(&tag),
        };
        let binding = Binding::Dialog(CallIdHash(call_id));
        let text = token.seal(&keys, binding);
        prop_assert!(RouteToken::is_token(&text));
        prop_assert_eq!(RouteToken::open(&keys, &text, binding), Ok(token));
    }

    #[test]
    fn via_parameters_come_back(peer: u32, listener: u8, node: u16, flags in 0..16u8, hash: u64,
                                ip: IpAddr, port: u16) {
        let keys = keys();
        let parameter = ViaParameter {
            peer: ServerId(peer),
            listener: ListenerIndex(listener),
            node: NodeId(node),
            flags,
        };
        let branch = branch(&BranchInput { call_id: CallIdHash(hash), ..input(&keys, b"z9hG4bKx") });
        let hop = Endpoint { address: SocketAddr::new(ip, port), protocol: Protocol::Udp };
        let text = parameter.encode(&keys, &branch, hop);
        prop_assert_eq!(ViaParameter::decode(&keys, &text, &branch, hop), Ok(parameter));
    }

    /// Nothing that a peer sends panics, and nothing made at random is taken for ours.
    #[test]
    fn foreign_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..70),
                                 text in "[vV][0-9a-vA-V]{30}|[vV][0-9a-vA-V]{40}|[0-9a-v]{26}") {
        let keys = keys();
        let made = branch(&input(&keys, b"z9hG4bKx"));
        for bytes in [&bytes[..], text.as_bytes()] {
            let binding = Binding::Dialog(CallIdHash(1));
            prop_assert!(RouteToken::open(&keys, bytes, binding).is_err());
            let hop = endpoint("198.18.0.1:5060");
            prop_assert!(ViaParameter::decode(&keys, bytes, &made, hop).is_err());
            prop_assert_eq!(Branch::parse(bytes), None);
        }
    }

    /// Long fields take another path to the same hash, and stay apart.
    #[test]
    fn branches_of_long_fields_differ(name in "[a-z.]{0,300}", tail in "[a-z0-9]{1,300}") {
        let keys = keys();
        let received = format!("z9hG4bK{tail}");
        let input = BranchInput {
            sent_by: SentBy::Name(name.as_bytes()),
            ..input(&keys, received.as_bytes())
        };
        let upper = name.to_ascii_uppercase();
        let same = BranchInput { sent_by: SentBy::Name(upper.as_bytes()), ..input };
        prop_assert_eq!(branch(&input), branch(&same));
        let longer = format!("{received}0");
        let other = BranchInput { branch: longer.as_bytes(), ..input };
        prop_assert_ne!(branch(&input), branch(&other));
    }
}
