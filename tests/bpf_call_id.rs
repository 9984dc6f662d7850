//! Steering by Call-ID: the worker that the XDP program chooses is the one that the parser and the
//! hash of user space call the home, for vectors and for generated messages of every shape.
//!
//! Run as root: `cargo nextest run --test bpf_call_id --run-ignored all`.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod common;

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use common::steer::{CLIENT_V4, CLIENT_V6, LOOPBACK, VIP_V4, VIP_V6, address, frame, xdp_socket};
use viaduct::affinity::{Keys, Secret, home_worker};
use viaduct::bpf::{Action, CallIdKey, Slot, SteerConfig, SteerProgram, TestRun, Vip};
use viaduct::sip::Message;

/// The secret of tests/data/affinity_vectors.txt.
fn keys() -> Keys {
    let secret = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    Keys::new(&Secret::from_hex(secret).unwrap())
}

struct Bench {
    program: SteerProgram,
    workers: u32,
    socket: OwnedFd,
}

impl Bench {
    fn new(workers: u32, key: Option<CallIdKey>) -> Self {
        let mut program = SteerProgram::load(&SteerConfig {
            call_id_key: key,
            ..SteerConfig::new(vec![LOOPBACK], 1, workers)
        })
        .unwrap();
        let vips = [VIP_V4, VIP_V6].map(|at| (address(at), Vip::default()));
        program.replace_vips(&vips).unwrap();
        Self {
            program,
            workers,
            socket: xdp_socket(),
        }
    }

    fn steering(workers: u32) -> Self {
        Self::new(workers, Some(CallIdKey(keys().affinity_key())))
    }

    fn run(&self, frame: &[u8], repeat: u32) -> (Action, Duration) {
        let run = TestRun {
            frame,
            ingress: None,
            repeat,
        };
        let outcome = run.run(&self.program).unwrap();
        (outcome.action.unwrap(), outcome.duration)
    }

    /// Whether the frame goes to this worker: no other has a socket.
    fn reaches(&self, worker: u32, frames: &[Vec<u8>]) -> Vec<bool> {
        let slot = Slot {
            ifindex: LOOPBACK,
            queue: 0,
            worker,
        };
        self.program.set_socket(slot, self.socket.as_fd()).unwrap();
        let reached = frames
            .iter()
            .map(|frame| self.run(frame, 1).0 == Action::Redirect)
            .collect();
        self.program.clear_socket(slot).unwrap();
        reached
    }

    /// The worker of each frame, and whether its Call-ID decided.
    fn choices(&self, frames: &[Vec<u8>]) -> Vec<(u32, bool)> {
        let found: Vec<bool> = frames
            .iter()
            .map(|frame| {
                let before = self.program.steered().unwrap();
                self.run(frame, 1);
                let after = self.program.steered().unwrap();
                let found = after.by_call_id - before.by_call_id;
                assert_eq!(found + after.by_queue - before.by_queue, 1);
                found == 1
            })
            .collect();
        let mut workers = vec![None; frames.len()];
        for worker in 0..self.workers {
            for (chosen, reached) in workers.iter_mut().zip(self.reaches(worker, frames)) {
                if reached {
                    assert_eq!(chosen.replace(worker), None, "two workers for one frame");
                }
            }
        }
        let workers = workers.into_iter().map(|worker| worker.expect("a worker"));
        workers.zip(found).collect()
    }
}

fn datagram(payload: &[u8]) -> Vec<u8> {
    frame(&[], CLIENT_V4, VIP_V4, payload)
}

/// A request with this Call-ID line among the others.
fn request(call_id_line: &[u8]) -> Vec<u8> {
    let before = b"OPTIONS sip:a@example.org SIP/2.0\r\n\
        Via: SIP/2.0/UDP 198.18.0.2:40000;branch=z9hG4bK1\r\n\
        Max-Forwards: 70\r\nFrom: <sip:b@example.org>;tag=1\r\nTo: <sip:a@example.org>\r\n";
    let after = b"\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";
    [&before[..], call_id_line, &after[..]].concat()
}

// ---- one hash -----------------------------------------------------------------------------------

/// The vectors that `affinity` is held to as well, and that it alone reads behind the bound.
#[test]
#[ignore = "needs root"]
fn vectors_hold() {
    const LEN_MAX: usize = 127;
    let vectors = include_str!("data/affinity_vectors.txt");
    for (workers, column) in [(3, 1), (64, 2)] {
        let bench = Bench::steering(workers);
        let (mut found, mut too_long) = (0, 0);
        for line in vectors.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<_> = line.split('\t').collect();
            let call_id = fields[3];
            let frame = datagram(&request(format!("Call-ID: {call_id}").as_bytes()));
            let before = bench.program.steered().unwrap();
            let home = match call_id.len() <= LEN_MAX {
                true => fields[column].parse().unwrap(),
                false => 0,
            };
            assert_eq!(bench.reaches(home, &[frame]), [true], "{line}");
            let after = bench.program.steered().unwrap();
            found += after.by_call_id - before.by_call_id;
            too_long += after.by_queue - before.by_queue;
        }
        assert!(found >= 10 && too_long >= 1, "{found} {too_long}");
    }
}

/// Every length, so that every position of the end in a word is met, at every place in a block.
#[test]
#[ignore = "needs root"]
fn every_length_at_every_place_hashes_alike() {
    let bench = Bench::steering(16);
    let keys = keys();
    let mut frames = Vec::new();
    let mut homes = Vec::new();
    for len in 1..=127 {
        for shift in 0..64 {
            let call_id: String = (0..len)
                .map(|at| char::from(b'!' + u8::try_from((at * 7 + len + shift) % 90).unwrap()))
                .collect();
            let lines = format!("X: {}\r\nCall-ID: {call_id}", "x".repeat(shift));
            frames.push(datagram(&request(lines.as_bytes())));
            let home = home_worker(keys.call_id_hash(call_id.as_bytes()), 16);
            homes.push((u32::from(home.0), true));
        }
    }
    assert_eq!(bench.choices(&frames), homes);
}

/// 10^5 Call-IDs of one flow: each worker has its share, by chance within six sigma.
#[test]
#[ignore = "needs root"]
fn one_flow_spreads_evenly() {
    const CALLS: usize = 100_000;
    let bench = Bench::steering(2);
    let frames: Vec<_> = (0..CALLS)
        .map(|number| datagram(&request(format!("Call-ID: {number}@198.18.0.2").as_bytes())))
        .collect();
    let first = bench.reaches(0, &frames).iter().filter(|it| **it).count();
    assert!(first.abs_diff(CALLS / 2) < 950, "{first} of {CALLS}");
    let second = bench.reaches(1, &frames).iter().filter(|it| **it).count();
    assert_eq!(first + second, CALLS);
}

// ---- messages of every shape --------------------------------------------------------------------

/// SplitMix64: the same messages in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn one_in(&mut self, sides: usize) -> bool {
        self.below(sides) == 0
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn text(&mut self, len: usize) -> Vec<u8> {
        (0..len)
            .map(|_| match self.one_in(40) {
                true => 0x80 + u8::try_from(self.below(128)).unwrap(),
                false => b'!' + u8::try_from(self.below(94)).unwrap(),
            })
            .collect()
    }
}

/// Rows that might be taken for a Call-ID, and rows that are like any other.
const OTHERS: [&str; 16] = [
    "Call-ID-X: 1@wrong",
    "Call-Info: <http://wrong>",
    "CallID: wrong",
    "Info-Package: wrong",
    "In-Reply-To: wrong@wrong",
    "Identity: wrong",
    "X-Call-ID: wrong",
    "ii: wrong",
    "Subject: folded\r\n Call-ID: wrong",
    "Subject: folded\r\n\ti: wrong",
    "Contact: <sip:a@198.18.0.2>",
    "Allow: INVITE, ACK",
    "Organization: \u{1f4de} \u{e9}t\u{e9}",
    "Subject: i: wrong \u{7f}Call-ID: wrong",
    "X-Tab:\t\t\tvalue\t",
    "no colon here",
];

/// A message and whether its Call-ID stands where the program has to find it.
fn message(dice: &mut Dice) -> (Vec<u8>, bool) {
    let mut plain = true;
    let mut rows: Vec<Vec<u8>> = [
        "Via: SIP/2.0/UDP 198.18.0.2:40000;branch=z9hG4bK1",
        "From: \"B\" <sip:b@example.org>;tag=1",
        "t: <sip:a@example.org>",
        "CSeq: 1 INVITE",
        "Max-Forwards: 70",
    ]
    .iter()
    .map(|row| row.as_bytes().to_vec())
    .collect();
    for _ in 0..dice.below(7) {
        let row = dice.of(&OTHERS).as_bytes().to_vec();
        rows.insert(dice.below(rows.len() + 1), row);
    }
    if dice.one_in(8) {
        let len = 1 + dice.below(600);
        let long = [b"X-Long: ".to_vec(), dice.text(len)].concat();
        rows.insert(dice.below(rows.len() + 1), long);
    }
    if dice.one_in(20) {
        plain = false;
        for _ in 0..dice.below(150) {
            rows.insert(0, dice.of(&["a:", "Route: <sip:x>", "C: d"]).into());
        }
    }

    let len = match dice.below(12) {
        0 => 0,
        1 => 100 + dice.below(60),
        _ => 1 + dice.below(48),
    };
    let value = dice.text(len);
    let before = dice.of(&["", "", "", " ", "\t", "  "]);
    let after = dice.of(&[
        " ", " ", " ", "", "\t", "  ", " \t", "   ", "\r\n ", " \r\n\t",
    ]);
    plain &= (1..=127).contains(&len) && before.len() < 2 && after.len() < 3;
    plain &= !after.contains('\n');
    let row = [
        dice.of(&["Call-ID", "CALL-ID", "call-id", "cAll-iD", "i", "I"])
            .as_bytes(),
        before.as_bytes(),
        b":",
        after.as_bytes(),
        &value,
        dice.of(&["", "", "", " ", "\t", "  \t", "\r\n ", " more"])
            .as_bytes(),
    ]
    .concat();
    let times = [1, 1, 1, 1, 1, 1, 1, 1, 2, 0][dice.below(10)];
    for _ in 0..times {
        rows.insert(dice.below(rows.len() + 1), row.clone());
    }

    let start = dice.of(&[
        "INVITE sip:a@example.org SIP/2.0",
        "SIP/2.0 200 OK",
        "\r\nINVITE sip:a@example.org SIP/2.0",
    ]);
    let line_end: &[u8] = if dice.one_in(12) { b"\n" } else { b"\r\n" };
    let mut bytes = [start.as_bytes(), line_end].concat();
    for row in rows {
        bytes.extend(row);
        bytes.extend(line_end);
    }
    bytes.extend(line_end);
    bytes.extend(
        dice.of(&["", "Call-ID: wrong\r\n", "v=0\r\ni:wrong\r\n"])
            .bytes(),
    );
    if dice.one_in(15) {
        bytes.truncate(dice.below(bytes.len()));
    }
    if bytes.len() > 1400 {
        plain = false;
        bytes.truncate(1450);
    }
    (bytes, plain)
}

/// What the program finds is the parser's Call-ID; where it finds nothing, the queue decides, and
/// an everyday message it finds.
#[test]
#[ignore = "needs root"]
fn the_programs_choice_is_the_parsers() {
    const WORKERS: u8 = 5;
    const MESSAGES: usize = 20_000;
    let bench = Bench::steering(u32::from(WORKERS));
    let keys = keys();
    let mut dice = Dice(5060);
    let messages: Vec<_> = (0..MESSAGES).map(|_| message(&mut dice)).collect();
    let frames: Vec<_> = messages
        .iter()
        .zip([CLIENT_V4, CLIENT_V6].iter().cycle())
        .map(|((bytes, _), client)| match *client {
            CLIENT_V4 => datagram(bytes),
            client => frame(&[[0x81, 0x00, 0x00, 0x05]], client, VIP_V6, bytes),
        })
        .collect();
    let mut index = Message::new();
    let (mut taken, mut found_of_taken) = (0, 0);
    for ((bytes, is_plain), (worker, found)) in messages.iter().zip(bench.choices(&frames)) {
        let text = String::from_utf8_lossy(bytes);
        if !found {
            assert_eq!(worker, 0, "the queue's worker, {text}");
        }
        let parsed = index.parse(bytes);
        let (Ok(()), Some(call_id)) = (parsed, index.call_id()) else {
            continue;
        };
        taken += 1;
        found_of_taken += usize::from(found);
        let home = home_worker(keys.call_id_hash(call_id.of(bytes)), WORKERS);
        if found {
            assert_eq!(worker, u32::from(home.0), "{text}");
        }
        assert!(found || !is_plain, "not found: {text}");
    }
    println!("{MESSAGES} messages, {taken} of them valid, {found_of_taken} found");
    assert!(taken > MESSAGES / 4 && found_of_taken > taken / 2);
}

/// A message cut at every byte: found as soon as the value has an end, and nothing is ever read that
/// is not there.
#[test]
#[ignore = "needs root"]
fn a_message_cut_at_every_byte() {
    let bench = Bench::steering(4);
    let whole = request(b"Call-ID: 1-2377@198.18.0.2");
    let end = whole.windows(8).position(|it| it == b"18.0.2\r\n").unwrap() + 6;
    let frames: Vec<_> = (0..=whole.len())
        .map(|len| datagram(&whole[..len]))
        .collect();
    let choices = bench.choices(&frames);
    let last = *choices.last().unwrap();
    for (len, choice) in choices.iter().enumerate() {
        match len > end {
            true => assert_eq!(*choice, last, "{len}"),
            // A value that the datagram's end cuts off is not trusted to be one; NUL is its end.
            false if len < end - 17 => assert_eq!(*choice, (0, false), "{len}"),
            false => {}
        }
    }
    assert!(last.1);
}

/// The bounds, on both sides.
#[test]
#[ignore = "needs root"]
fn what_lies_behind_the_bounds_is_the_queues() {
    let bench = Bench::steering(4);
    let found = |bytes: &[u8]| bench.choices(&[datagram(bytes)])[0].1;
    let filled = |len: usize| {
        let filler = format!("X: {}\r\nCall-ID: a@b", "x".repeat(len));
        request(filler.as_bytes())
    };
    assert!(found(&filled(1_200)));
    assert!(found(&filled(1_600)));
    assert!(!found(&filled(1_900)));
    let of_len = |len: usize| request(format!("i:{}", "x".repeat(len)).as_bytes());
    assert!(found(&of_len(127)));
    assert!(!found(&of_len(128)));
    let lines = |count: usize| request(format!("{}i: a@b", "a:\r\n".repeat(count)).as_bytes());
    assert!(found(&lines(30)));
    assert!(!found(&lines(96)));
    assert!(!found(b""));
    assert!(!found(b"\r\n\r\n"));
    assert!(!found(b"Call-ID: a@b\r\n"));
}

// ---- cost ---------------------------------------------------------------------------------------

/// Not a gate, numbers: the whole program, by what it has to look for. `by queue` is the same
/// program without the search, `nothing` what such a run costs by itself: a frame that is no IP.
#[test]
#[ignore = "needs root"]
fn a_search_costs_well_under_a_microsecond() {
    let invite = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/messages/invite-507.sip"
    ))
    .unwrap();
    let lines = "Record-Route: <sip:198.18.0.20;lr;x=0123456789012345678901234567890123456789>\r\n";
    let text = String::from_utf8(invite.clone()).unwrap();
    let far = text.replace("Max-Forwards", &format!("{}Max-Forwards", lines.repeat(10)));
    let mut arp = datagram(&invite);
    arp[13] = 6;
    let frames = [
        ("nothing", arp),
        ("INVITE of 507 bytes, Call-ID at 222", datagram(&invite)),
        (
            "the same with the Call-ID at 1,012",
            datagram(far.as_bytes()),
        ),
        ("two-byte lines", datagram(&b"a\n".repeat(700))),
        ("one long line", datagram(&[b'a'; 1400])),
    ];
    let steering = Bench::steering(2);
    let plain = Bench::new(2, None);
    for (name, frame) in &frames {
        // The best of five: what else the machine does only adds.
        let best = |bench: &Bench| (0..5).map(|_| bench.run(frame, 1_000_000).1).min().unwrap();
        let (plain, steered) = (best(&plain), best(&steering));
        println!("{name}: {plain:?} by queue, {steered:?} by Call-ID");
        assert!(steered < Duration::from_micros(2));
    }
}
