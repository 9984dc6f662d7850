//! What holds for every datagram, whatever is in it: corpora cut, joined and scratched at random.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "rfc3261_16/fixture.rs"]
mod fixture;
#[path = "rfc3261_16/invariants.rs"]
mod invariants;

use std::cell::RefCell;
use std::path::Path;

use fixture::*;
use invariants::Invariants;
use proptest::prelude::*;
use viaduct::net::{Flow, ListenerIndex};
use viaduct::packet::Buffer;
use viaduct::verdict::Verdict;

/// Seeds: the torture messages, and messages of ours in both directions.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for folder in ["rfc4475", "rfc5118", "messages"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data")
            .join(folder);
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        seeds.extend(files.iter().map(|file| std::fs::read(file).unwrap()));
    }
    let mut lab = Lab::new(TWO_ARMED);
    let dialog = Dialog::set_up(&mut lab, "seed");
    seeds.push(dialog.by_client("BYE", 2, "z9hG4bK1"));
    seeds.push(dialog.by_server("BYE", 2, "z9hG4bK1"));
    seeds.push(invite("seed", "z9hG4bK1;rport"));
    for config in [ONE_ARMED, TWO_ARMED] {
        let sent = Lab::new(config)
            .send(invite("seed", "z9hG4bK1"), CLIENT)
            .sent();
        seeds.push(response(&sent, 200, "b1"));
    }
    seeds
}

/// Text that means something to a forwarder.
const WORDS: [&[u8]; 24] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\r\n ",
    b";",
    b",",
    b"<",
    b">",
    b"\"",
    b"@",
    b":",
    b";lr",
    b";rport",
    b";received=1.2.3.4",
    b";maddr=198.18.0.1",
    b";branch=z9hG4bK",
    b"Route: <sip:198.18.0.1;lr>\r\n",
    b"Record-Route: <sip:198.18.0.1>\r\n",
    b"Via: SIP/2.0/UDP 198.18.0.1:5060\r\n",
    b"Max-Forwards: 0\r\n",
    b"Max-Breadth: 99\r\n",
    b"Proxy-Require: x\r\n",
    b"Content-Length: 5\r\n",
    b"sip:198.18.1.11",
    b"[2001:db8::10]",
];

#[derive(Clone, Debug)]
enum Change {
    Insert(prop::sample::Index, usize),
    Delete(prop::sample::Index, u8),
    Byte(prop::sample::Index, u8),
    Copy(prop::sample::Index, prop::sample::Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), 0..WORDS.len()).prop_map(|(at, word)| Change::Insert(at, word)),
        2 => (at(), any::<u8>()).prop_map(|(at, len)| Change::Delete(at, len % 40)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        1 => (at(), at(), any::<u8>()).prop_map(|(from, to, len)| Change::Copy(from, to, len)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let len = bytes.len();
    if len == 0 {
        return;
    }
    match change {
        Change::Insert(at, word) => {
            let at = at.index(len);
            bytes.splice(at..at, WORDS[*word].iter().copied());
        }
        Change::Delete(at, count) => {
            let at = at.index(len);
            bytes.drain(at..(at + usize::from(*count)).min(len));
        }
        Change::Byte(at, byte) => bytes[at.index(len)] = *byte,
        Change::Copy(from, to, count) => {
            let from = from.index(len);
            let piece = bytes[from..(from + usize::from(*count)).min(len)].to_vec();
            let to = to.index(len);
            bytes.splice(to..to, piece);
        }
    }
}

thread_local! {
    static SEEDS: Vec<Vec<u8>> = seeds();
    static INVARIANTS: RefCell<Invariants> = RefCell::new(Invariants::new());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn no_datagram_breaks_an_invariant(
        seed in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 0..12),
        sender in any::<u8>(),
    ) {
        let mut bytes = SEEDS.with(|seeds| seeds[seed.index(seeds.len())].clone());
        for change in &changes {
            apply(&mut bytes, change);
        }
        INVARIANTS.with_borrow_mut(|invariants| invariants.check(sender, &bytes));
    }
}

#[test]
fn every_seed_keeps_the_invariants_from_every_sender() {
    let mut invariants = Invariants::new();
    for seed in seeds() {
        for sender in 0..=u8::MAX {
            invariants.check(sender, &seed);
        }
    }
}

/// A batch decided with each next message read ahead, as the data path does it, and one by one: the
/// same verdicts, flows and bytes. What is decided about need not be what was read.
#[test]
fn reading_ahead_changes_no_decision() {
    let seeds = seeds();
    let (mut plain, mut ahead) = (Lab::new(ONE_ARMED), Lab::new(ONE_ARMED));
    let mut places = 0;
    let local = plain.plan.listeners()[0].address;
    let messages: Vec<(Vec<u8>, Flow)> = (0..3 * seeds.len())
        .map(|number| {
            let from = [CLIENT, SERVERS[0], "198.18.100.7:5060"][number % 3];
            let flow = Flow {
                listener: ListenerIndex(0),
                local,
                peer: from.parse().unwrap(),
            };
            (
                [&[0; ROOM], &seeds[number % seeds.len()][..]].concat(),
                flow,
            )
        })
        .collect();
    let mut frames: Vec<Vec<u8>> = messages.iter().map(|(frame, _)| frame.clone()).collect();
    for (number, (message, flow)) in messages.iter().enumerate() {
        let expected = decide(&mut plain, &mut message.clone(), *flow);
        if let Some((_, flow)) = messages.get(number + 1) {
            let next = &frames[number + 1][ROOM..];
            let found = ahead.forwarders[0].look_ahead(&ahead.plan, next, flow);
            places += usize::from(found.is_some());
        }
        if number % 7 == 0 {
            // The frame is another one after all: its note must not be taken for this one.
            ahead.forwarders[0].forget_ahead();
            frames[number] = message.clone();
        }
        let got = decide(&mut ahead, &mut frames[number], *flow);
        assert_eq!(got, expected, "message {number}");
    }
    assert!(places > seeds.len(), "nothing was read ahead");
}

/// What was read ahead is not read again: the decision is about what stood there then.
#[test]
fn what_was_read_ahead_is_read_once() {
    let mut lab = Lab::new(ONE_ARMED);
    let flow = Flow {
        listener: ListenerIndex(0),
        local: lab.plan.listeners()[0].address,
        peer: CLIENT.parse().unwrap(),
    };
    let framed = |call_id| [&[0; ROOM], &invite(call_id, "z9hG4bK1")[..]].concat();
    let (mut first, mut second) = (framed("call-one"), framed("call-two"));
    let forwarder = &mut lab.forwarders[0];
    assert!(
        forwarder
            .look_ahead(&lab.plan, &first[ROOM..], &flow)
            .is_some()
    );
    assert!(
        forwarder
            .look_ahead(&lab.plan, &second[ROOM..], &flow)
            .is_some()
    );
    // Nobody does this; it shows which reading counts.
    for frame in [&mut first, &mut second] {
        frame[ROOM..ROOM + 6].copy_from_slice(b"\0\0\0\0\0\0");
    }
    for frame in [&mut first, &mut second] {
        let ((verdict, _), _) = decide(&mut lab, frame, flow);
        assert_eq!(verdict, Verdict::Transmit);
    }
    // Once only.
    let mut again = framed("call-three");
    assert!(
        lab.forwarders[0]
            .look_ahead(&lab.plan, &again[ROOM..], &flow)
            .is_some()
    );
    again[ROOM..ROOM + 6].copy_from_slice(b"\0\0\0\0\0\0");
    lab.forwarders[0].forget_ahead();
    let ((verdict, _), _) = decide(&mut lab, &mut again, flow);
    assert!(matches!(verdict, Verdict::Drop(_)), "{verdict:?}");
}

/// Room in front of a message for what it grows by.
const ROOM: usize = 1024;

fn decide(lab: &mut Lab, frame: &mut [u8], mut flow: Flow) -> ((Verdict, Vec<u8>), Flow) {
    let end = frame.len();
    let mut buffer = Buffer::new(frame, ROOM, end);
    let verdict = lab.forwarders[0].decide(&lab.plan, &mut buffer, &mut flow, lab.now);
    ((verdict, buffer.payload().to_vec()), flow)
}
