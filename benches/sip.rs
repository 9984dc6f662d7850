//! How long indexing a message takes, by shape.
//!
//! Each message is parsed once outside the measurement and its fields are asserted; a bench that
//! measures the wrong result is worse than none. The same bytes are parsed over and over, so the
//! branch predictor knows them; `mixed` walks over all shapes in turn, which is nearer to a port.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use viaduct::sip::{HeaderName, Kind, Message, Method};

fn read(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Name in the report, file, method or status, count of rows.
const SHAPES: [(&str, &str, u16, Method, usize); 8] = [
    (
        "invite-507",
        "messages/invite-507.sip",
        0,
        Method::Invite,
        9,
    ),
    ("200-ok", "messages/ok-invite.sip", 200, Method::Invite, 10),
    ("200-ok-bye", "messages/ok-bye.sip", 200, Method::Bye, 7),
    (
        "200-ok-12-via",
        "messages/ok-12-via.sip",
        200,
        Method::Bye,
        17,
    ),
    ("options", "messages/options.sip", 0, Method::Options, 7),
    (
        "invite-trunk",
        "messages/invite-trunk.sip",
        0,
        Method::Invite,
        18,
    ),
    // The longest and the oddest of RFC 4475.
    ("longreq", "rfc4475/longreq.dat", 0, Method::Invite, 43),
    ("wsinv", "rfc4475/wsinv.dat", 0, Method::Invite, 14),
];

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sip/parse");
    let mut message = Message::new();
    let mut all = Vec::new();
    for (name, file, status, method, rows) in SHAPES {
        let bytes = read(file);
        assert_eq!(message.parse(&bytes), Ok(()), "{name}");
        assert_eq!(message.kind() == Kind::Response, status != 0);
        assert_eq!(message.status(), status);
        assert_eq!(message.cseq().map(|cseq| cseq.method), Some(method));
        assert_eq!(message.headers().len(), rows);
        assert_eq!(message.message_end(), bytes.len());
        assert!(message.top_via().is_some() && message.call_id().is_some());
        assert!(message.from_tag().is_some() && message.has(HeaderName::To));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let result = black_box(&mut message).parse(black_box(&bytes));
                assert!(result.is_ok());
            });
        });
        all.push(bytes);
    }
    group.throughput(Throughput::Elements(all.len() as u64));
    group.bench_function("mixed", |bencher| {
        bencher.iter(|| {
            for bytes in &all {
                let result = black_box(&mut message).parse(black_box(bytes));
                assert!(result.is_ok());
            }
        });
    });
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
