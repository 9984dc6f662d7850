//! How long a decision takes, by kind of message: parse, decide and edit in place, and for the
//! first kind also the headers and checksums of the wire.
//!
//! Every iteration copies its message into the buffer; `copy` is what that alone costs. Call-IDs and
//! branches change from message to message, over more of them than the caches hold pins for. Each
//! kind is decided once outside the measurement and its result asserted.

#![allow(clippy::unwrap_used, reason = "a bench that cannot set up fails")]

#[path = "../tests/rfc3261_16/fixture.rs"]
mod fixture;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fixture::*;
use viaduct::net::{Flow, ListenerIndex, SocketAddr};
use viaduct::packet::{self, Buffer, LinkHeader, MacAddress};
use viaduct::verdict::Verdict;

/// Where received payloads start in a frame: our headroom, the kernel's, and the headers.
const START: usize = 512 + 256 + 42;

/// A message whose Call-ID and branch hold a number of eight digits.
struct Template {
    bytes: Vec<u8>,
    places: Vec<usize>,
    number: u32,
    from: SocketAddr,
}

impl Template {
    /// `bytes` with the digits `00000000` wherever the number goes.
    fn new(bytes: &[u8], from: &str) -> Self {
        let places: Vec<usize> = (0..bytes.len() - 8)
            .filter(|at| &bytes[*at..*at + 8] == b"00000000")
            .collect();
        assert!(!places.is_empty());
        Self {
            bytes: bytes.to_vec(),
            places,
            number: 0,
            from: from.parse().unwrap(),
        }
    }

    fn advance(&mut self) {
        self.number = (self.number + 1) % 100_000_000;
        let mut rest = self.number;
        let mut digits = [b'0'; 8];
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap();
            rest /= 10;
        }
        for at in &self.places {
            self.bytes[*at..*at + 8].copy_from_slice(&digits);
        }
    }
}

/// 507 bytes, as the steering and flooding benches use them, Max-Forwards as a user agent sets it.
fn invite_507() -> Vec<u8> {
    let path = format!(
        "{}/tests/data/messages/invite-507.sip",
        env!("CARGO_MANIFEST_DIR")
    );
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(bytes.len(), 507);
    let bytes = replaced(&bytes, "z9hG4bK-74bf9-1-0", "z9hG4bK-000000000");
    replaced(&bytes, "1-384827629822018851@", "1-384827600000000851@")
}

const SIPP: &str = "198.18.0.10:5061";

/// One decision over a copy of the message. Not inlined, so that a profiler can tell it from the
/// preparations.
#[inline(never)]
fn decide(
    lab: &mut Lab,
    memory: &mut [u8],
    bytes: &[u8],
    from: SocketAddr,
) -> (Verdict, Flow, usize, usize) {
    let end = START + bytes.len();
    memory[START..end].copy_from_slice(bytes);
    let mut buffer = Buffer::new(memory, START, end);
    let mut flow = Flow {
        listener: ListenerIndex(0),
        local: lab.plan.listeners()[0].address,
        peer: from,
    };
    let verdict = lab.forwarders[0].decide(&lab.plan, &mut buffer, &mut flow, lab.now);
    let range = buffer.into_range();
    (verdict, flow, range.start, range.end)
}

fn forward(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("forward");
    let mut memory = vec![0; 4096];

    let invite = Template::new(&invite_507(), SIPP);
    group.throughput(Throughput::Bytes(507));
    group.bench_function("copy", |bencher| {
        bencher.iter(|| {
            memory[START..START + 507].copy_from_slice(black_box(&invite.bytes));
            black_box(&mut memory);
        });
    });

    let mut cases: Vec<(&str, &str, Template)> = Vec::new();
    let mut lab = lab();
    cases.push(("invite", "INVITE ", Template::new(&invite_507(), SIPP)));
    let rtp = replaced(&invite_507(), ";rport", "");
    cases.push(("invite, no rport", "INVITE ", Template::new(&rtp, SIPP)));
    let options = request(
        "OPTIONS",
        "sip:bob@sip.lab.example",
        "c-00000000",
        "z9hG4bK00000000",
        1,
    );
    cases.push((
        "options, no record-route",
        "OPTIONS ",
        Template::new(&options, CLIENT),
    ));
    for (name, start, mut template) in cases {
        let (verdict, ..) = decide(&mut lab, &mut memory, &template.bytes, template.from);
        assert_eq!(verdict, Verdict::Transmit, "{name}");
        assert!(
            memory
                .windows(start.len())
                .any(|part| part == start.as_bytes())
        );
        group.throughput(Throughput::Bytes(template.bytes.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                template.advance();
                decide(
                    &mut lab,
                    &mut memory,
                    black_box(&template.bytes),
                    template.from,
                )
            });
        });
    }

    // What a worker does with it besides the rings: headers and checksums in front.
    let link = LinkHeader {
        src_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        dst_mac: MacAddress([2, 0, 0, 0, 0, 2]),
        tags: Default::default(),
    };
    let mut template = Template::new(&invite_507(), SIPP);
    group.throughput(Throughput::Bytes(507));
    group.bench_function("invite, to the wire", |bencher| {
        bencher.iter(|| {
            template.advance();
            let (_, flow, start, end) = decide(
                &mut lab,
                &mut memory,
                black_box(&template.bytes),
                template.from,
            );
            packet::emit(&mut memory, start..end, &link, flow.local, flow.peer, 64).unwrap()
        });
    });

    in_dialog(&mut group, &mut lab, &mut memory);
    responses(&mut group, &mut lab, &mut memory);
    group.finish();
}

/// The farm of the lab with room for as many pins as a busy second makes.
fn lab() -> Lab {
    Lab::with_pins(ONE_ARMED, 1, 1 << 20)
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

/// A BYE that its token routes: no pin, no table. One dialog, its Via branches differ.
fn in_dialog(group: &mut Group<'_>, lab: &mut Lab, memory: &mut [u8]) {
    let dialog = Dialog::set_up(lab, "bench");
    let bye = dialog.by_client("BYE", 2, "z9hG4bK00000000");
    let mut template = Template::new(&bye, CLIENT);
    let (verdict, flow, ..) = decide(lab, memory, &template.bytes, template.from);
    assert_eq!((verdict, flow.peer), (Verdict::Transmit, dialog.server));
    group.throughput(Throughput::Bytes(template.bytes.len() as u64));
    group.bench_function("bye by token", |bencher| {
        bencher.iter(|| {
            template.advance();
            decide(lab, memory, black_box(&template.bytes), template.from)
        });
    });
}

/// Responses have a MAC over their own branch, so a number of different ones is made beforehand.
fn responses(group: &mut Group<'_>, lab: &mut Lab, memory: &mut [u8]) {
    const COUNT: usize = 1024;
    for (name, status, method) in [
        ("180 of an invite", 180, "INVITE"),
        ("200 of an invite", 200, "INVITE"),
        ("200 of a message", 200, "MESSAGE"),
    ] {
        let prepared: Vec<(Vec<u8>, SocketAddr)> = (0..COUNT)
            .map(|number| {
                let call_id = format!("{method}-{number}");
                let branch = format!("z9hG4bK{number}");
                let bytes = request(method, "sip:bob@sip.lab.example", &call_id, &branch, 1);
                let sent = lab.send(bytes, CLIENT).sent();
                (response(&sent, status, "b1"), sent.to)
            })
            .collect();
        let (verdict, flow, ..) = decide(lab, memory, &prepared[0].0, prepared[0].1);
        assert_eq!(
            (verdict, flow.peer),
            (Verdict::Transmit, CLIENT.parse().unwrap())
        );
        group.throughput(Throughput::Bytes(prepared[0].0.len() as u64));
        let mut next = 0;
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    next = (next + 1) % COUNT;
                    next
                },
                |number| {
                    let (bytes, from) = &prepared[number];
                    decide(lab, memory, black_box(bytes), *from)
                },
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, forward);
criterion_main!(benches);
