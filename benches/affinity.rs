//! What the four keys and the pins cost one message.
//!
//! `cargo bench --bench affinity`. Inputs are those of an INVITE through one more proxy. A request
//! takes one Call-ID hash, branch, `Via` parameter and sealed token, and one lookup in the pins;
//! a response takes one branch parsed, one parameter decoded.

use core::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use viaduct::affinity::{
    AnswerInput, Binding, Branch, BranchInput, CallIdHash, Keys, Mode, NewPin, NodeId, Pair,
    PinOutcome, Pins, RouteToken, Secret, SentBy, Transaction, ViaParameter,
};
use viaduct::net::{Endpoint, ListenerIndex, Protocol, ServerId, ServerIndex};
use viaduct::time::Instant;

const CALL_ID: &[u8] = b"f81d4fae-7dec-11d0-a765-00a0c91e6bf6@198.18.0.1";
const BRANCH: &[u8] = b"z9hG4bK776asdhds8a7d6as8d7";

fn keys() -> Keys {
    let bytes = core::array::from_fn(|index| u8::try_from(index).expect("32 bytes"));
    Keys::new(&Secret::from_bytes(bytes).expect("bytes differ"))
}

fn endpoint(text: &str) -> Endpoint {
    Endpoint {
        address: text.parse().expect("an address"),
        protocol: Protocol::Udp,
    }
}

fn input(keys: &Keys) -> BranchInput<'static> {
    BranchInput {
        branch: BRANCH,
        sent_by: SentBy::Ip("198.18.0.1".parse().expect("an address")),
        port: Some(5060),
        call_id: keys.call_id_hash(CALL_ID),
        cseq: 314_159,
        via: b"SIP/2.0/UDP 198.18.0.1:5060;branch=z9hG4bK776asdhds8a7d6as8d7;rport",
        from_tag: b"1928301774",
        request_uri: b"sip:bob@example.com",
    }
}

fn hashes(c: &mut Criterion) {
    let keys = keys();
    assert_eq!(keys.affinity_hash(CALL_ID), keys.call_id_hash(CALL_ID).0);
    c.bench_function("affinity_hash/47B", |b| {
        b.iter(|| keys.affinity_hash(black_box(CALL_ID)));
    });
    let answer = AnswerInput {
        call_id: keys.call_id_hash(CALL_ID),
        cseq: 1,
        from_tag: b"1928301774",
    };
    assert!(keys.is_own_answer_tag(&keys.answer_tag(&answer), &answer));
    c.bench_function("answer_tag", |b| {
        b.iter(|| keys.answer_tag(black_box(&answer)));
    });
    c.bench_function("tag_hash/10B", |b| {
        b.iter(|| keys.tag_hash(black_box(b"1928301774")));
    });
}

fn branch(c: &mut Criterion) {
    let keys = keys();
    let made = keys.branch(Mode::Stateless, 0, &input(&keys));
    assert_eq!(Branch::parse(&made), Some(made));
    let mut name = input(&keys);
    name.sent_by = SentBy::Name(b"pc33.atlanta.example.com");
    let mut legacy = input(&keys);
    legacy.branch = b"";
    for (label, input) in [("ipv4", input(&keys)), ("name", name), ("rfc2543", legacy)] {
        c.bench_function(&format!("branch/make/{label}"), |b| {
            b.iter(|| keys.branch(Mode::Stateless, 0, black_box(&input)));
        });
    }
    c.bench_function("branch/parse", |b| {
        b.iter(|| Branch::parse(black_box(&made)));
    });
}

fn via_parameter(c: &mut Criterion) {
    let keys = keys();
    let branch = keys.branch(Mode::Stateless, 0, &input(&keys));
    let parameter = ViaParameter {
        peer: ServerId(0xdead_beef),
        listener: ListenerIndex(1),
        node: NodeId(7),
        flags: 0,
    };
    for (label, next_hop) in [("ipv4", "198.18.0.1:5060"), ("ipv6", "[2001:db8::1]:5060")] {
        let next_hop = endpoint(next_hop);
        let text = parameter.encode(&keys, &branch, next_hop);
        let back = ViaParameter::decode(&keys, &text, &branch, next_hop);
        assert_eq!(back, Ok(parameter));
        c.bench_function(&format!("via_parameter/encode/{label}"), |b| {
            b.iter(|| parameter.encode(&keys, black_box(&branch), black_box(next_hop)));
        });
        c.bench_function(&format!("via_parameter/decode/{label}"), |b| {
            b.iter(|| ViaParameter::decode(&keys, black_box(&text), &branch, black_box(next_hop)));
        });
    }
}

fn route_token(c: &mut Criterion) {
    let keys = keys();
    let binding = Binding::Dialog(keys.call_id_hash(CALL_ID));
    for (label, flow) in [
        ("bare", None),
        ("ipv4", Some("198.18.0.1:5060")),
        ("ipv6", Some("[2001:db8::1]:5060")),
    ] {
        let token = RouteToken {
            server: ServerId(0xdead_beef),
            flow: flow.map(endpoint),
            listener: ListenerIndex(1),
            nat: flow.is_some(),
            callee: false,
            pair: Pair::Single,
            initiator: keys.tag_hash(b"1928301774"),
        };
        let text = token.seal(&keys, binding);
        assert_eq!(RouteToken::open(&keys, &text, binding), Ok(token));
        c.bench_function(&format!("route_token/seal/{label}"), |b| {
            b.iter(|| black_box(&token).seal(&keys, black_box(binding)));
        });
        c.bench_function(&format!("route_token/open/{label}"), |b| {
            b.iter(|| RouteToken::open(&keys, black_box(&text), black_box(binding)));
        });
    }
}

/// A sequence of well-mixed numbers (`SplitMix64`): the hashes of other and other calls.
struct Hashes(u64);

impl Hashes {
    fn next(&mut self) -> CallIdHash {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        CallIdHash(x ^ (x >> 31))
    }
}

fn pins(c: &mut Criterion) {
    let now = Instant::from_nanos(1 << 40);
    let transaction = Transaction {
        invite: true,
        cseq: 1,
    };
    let new = NewPin {
        server: ServerIndex(3),
        mode: Mode::Stateless,
        transaction,
    };
    // 2¹² pins stay in the first-level cache's reach, 2²⁰ (the default, 16 MiB) do not.
    for (label, capacity) in [("4Ki", 1 << 12), ("1Mi", 1 << 20)] {
        let pins = Pins::new(capacity);
        let mut hashes = Hashes(0);
        let known: Vec<CallIdHash> = (0..capacity / 2).map(|_| hashes.next()).collect();
        for call_id in &known {
            pins.insert(*call_id, new, now);
        }
        let found = known.iter().filter(|id| pins.find(**id, now).is_some());
        assert!(found.count() > capacity * 45 / 100);
        let mut next = known.iter().cycle();
        c.bench_function(&format!("pins/find_hit/{label}"), |b| {
            b.iter(|| pins.find(*next.next().expect("a cycle"), now));
        });
        let mut next = known.iter().cycle();
        c.bench_function(&format!("pins/renew_retransmission/{label}"), |b| {
            b.iter(|| pins.renew(*next.next().expect("a cycle"), transaction, now));
        });
        c.bench_function(&format!("pins/find_miss/{label}"), |b| {
            b.iter(|| pins.find(hashes.next(), now));
        });
        let mut next = known.iter().cycle();
        c.bench_function(&format!("pins/on_response/{label}"), |b| {
            b.iter(|| pins.on_response(*next.next().expect("a cycle"), transaction, 180, now));
        });
        c.bench_function(&format!("pins/insert/{label}"), |b| {
            b.iter(|| pins.insert(hashes.next(), new, now));
        });
        let last = pins.insert(known[0], new, now).outcome;
        assert_eq!(last, PinOutcome::Existing);
    }
}

criterion_group!(benches, hashes, branch, via_parameter, route_token, pins);
criterion_main!(benches);
