//! Frames: verify, edit, emit, and the egress lookup, on a 507-byte datagram.
//!
//! `cargo bench --bench packet`. Each bench asserts its result first. Throughput is printed in bytes
//! of UDP payload; one iteration is one message.

#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot be set up must fail"
)]

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use viaduct::datapath::egress::{
    EgressTable, Interface, Neighbour, NextHop, Resolution, Route, RouteTable, Target, Topology,
};
use viaduct::limits::{FRAME_LEN, UMEM_HEADROOM, XDP_PACKET_HEADROOM};
use viaduct::packet::{self, Buffer, EditList, LinkHeader, MacAddress, PartialChecksum, Sum, ipv4};

/// Where the driver puts a received frame in its chunk.
const FRAME_START: usize = UMEM_HEADROOM + XDP_PACKET_HEADROOM;
/// End of the request line of the datagram: our `Via` goes here.
const VIA_AT: usize = 38;
const VIA: [u8; 112] = [b'v'; 112];

fn addresses(v6: bool) -> (SocketAddr, SocketAddr) {
    let of = |text: &str| text.parse().unwrap();
    if v6 {
        (of("[2001:db8::1]:5060"), of("[2001:db8::2]:5060"))
    } else {
        (of("198.18.0.1:5060"), of("198.18.0.2:5060"))
    }
}

/// A chunk with a received frame of `len` bytes of payload, and the length of the frame.
fn chunk(len: usize, v6: bool) -> (Vec<u8>, usize) {
    let mut chunk = vec![0; FRAME_LEN];
    let link = LinkHeader::default();
    let (src, dst) = addresses(v6);
    let start = FRAME_START + packet::headers_len(&link, dst.ip());
    for (index, byte) in chunk[start..start + len].iter_mut().enumerate() {
        *byte = u8::try_from(index % 95).unwrap() + b' ';
    }
    let begin = packet::emit(&mut chunk, start..start + len, &link, src, dst, ipv4::TTL).unwrap();
    assert_eq!(begin, FRAME_START);
    (chunk, start + len - FRAME_START)
}

fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    for len in [507, 1400] {
        let bytes: Vec<u8> = (0..len)
            .map(|index: usize| u8::try_from(index % 251).unwrap())
            .collect();
        let pairs = bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
        let sum: u32 = pairs.sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        assert_eq!(
            u32::from(Sum::of(&bytes).folded()),
            (folded & 0xffff) + (folded >> 16)
        );
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len} bytes"), |bencher| {
            bencher.iter(|| Sum::of(black_box(&bytes)).folded());
        });
    }
    group.finish();
}

fn frame(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for (name, v6) in [("IPv4", false), ("IPv6", true)] {
        let (mut bytes, frame_len) = chunk(507, v6);
        let frame_end = FRAME_START + frame_len;
        let link = LinkHeader::default();
        let (src, dst) = addresses(v6);
        let headers =
            packet::parse(&bytes[FRAME_START..frame_end], PartialChecksum::Reject).unwrap();
        assert_eq!(headers.payload.len(), 507);
        group.throughput(Throughput::Bytes(507));

        group.bench_function(format!("verify {name}"), |bencher| {
            bencher.iter(|| {
                packet::parse(
                    black_box(&bytes[FRAME_START..frame_end]),
                    PartialChecksum::Reject,
                )
            });
        });
        group.bench_function(format!("emit {name}"), |bencher| {
            let payload = frame_end - 507..frame_end;
            bencher.iter(|| {
                let range = black_box(payload.clone());
                packet::emit(&mut bytes, range, &link, src, dst, ipv4::TTL).unwrap()
            });
        });

        // The whole way of a request, and of a response that loses the row again: the chunk is then
        // as it was, so an iteration is two messages in the same memory. The figure is for both.
        let (mut bytes, frame_len) = chunk(507, v6);
        let frame_end = FRAME_START + frame_len;
        let mut edits = EditList::new();
        let mut forward = |bytes: &mut [u8], start: usize, request: bool| {
            let headers = packet::parse(&bytes[start..frame_end], PartialChecksum::Reject).unwrap();
            let mut buffer = Buffer::new(bytes, start + headers.payload.start, frame_end);
            edits.clear();
            if request {
                edits.insert(VIA_AT, &VIA);
            } else {
                edits.delete(VIA_AT..VIA_AT + VIA.len());
            }
            edits.apply(&mut buffer).unwrap();
            let payload = buffer.into_range();
            packet::emit(bytes, payload, &link, src, dst, ipv4::TTL).unwrap()
        };
        let before = bytes[FRAME_START..].to_vec();
        let start = forward(&mut bytes, FRAME_START, true);
        assert_eq!(start, FRAME_START - VIA.len());
        let headers = packet::parse(&bytes[start..frame_end], PartialChecksum::Reject).unwrap();
        assert_eq!(
            bytes[start..frame_end][headers.payload][VIA_AT..VIA_AT + VIA.len()],
            VIA
        );
        assert_eq!(forward(&mut bytes, start, false), FRAME_START);
        assert_eq!(bytes[FRAME_START..], before);
        group.throughput(Throughput::Elements(2));
        group.bench_function(
            format!("verify, edit, emit: insert then delete 112 bytes {name}"),
            |bencher| {
                bencher.iter(|| {
                    let start = forward(&mut bytes, black_box(FRAME_START), true);
                    forward(&mut bytes, black_box(start), false)
                });
            },
        );
    }
    group.finish();
}

fn edit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("edit");
    let (mut bytes, _) = chunk(507, false);
    let start = FRAME_START + 42;
    let mut edits = EditList::new();
    group.throughput(Throughput::Elements(1));
    group.bench_function("insert 112 bytes", |bencher| {
        bencher.iter(|| {
            let mut buffer = Buffer::new(&mut bytes, black_box(start), start + 507);
            edits.clear();
            edits.insert(VIA_AT, &VIA);
            edits.apply(&mut buffer).unwrap();
            buffer.start()
        });
    });
    group.bench_function("six edits of a request", |bencher| {
        bencher.iter(|| {
            let mut buffer = Buffer::new(&mut bytes, black_box(start), start + 507);
            edits.clear();
            edits.insert(VIA_AT, &VIA);
            edits.insert(90, b";received=198.18.0.1");
            edits.replace(100..105, b"=5060");
            edits.replace(130..132, b"69");
            edits.delete(140..170);
            edits.insert(200, &VIA[..96]);
            edits.apply(&mut buffer).unwrap();
            buffer.start()
        });
    });
    group.finish();
}

/// Servers on the link, everything else behind a gateway.
fn table(servers: u8) -> EgressTable {
    let mac = |last| MacAddress([2, 0, 0, 0, 0, last]);
    let route = |destination: &str, gateway: Option<IpAddr>| Route {
        table: RouteTable::Main,
        destination: destination.parse().unwrap(),
        metric: 0,
        mtu: None,
        target: Target::Hops(vec![NextHop {
            ifindex: 2,
            gateway,
        }]),
    };
    let gateway: IpAddr = "198.18.0.254".parse().unwrap();
    let on_link = (1..=servers).map(|host| IpAddr::from([198, 18, 0, host]));
    EgressTable::build(&Topology {
        interfaces: vec![Interface {
            ifindex: 2,
            name: "eth0".into(),
            mac: mac(0),
            mtu: 1500,
            usable: true,
            addresses: Vec::new(),
        }],
        routes: vec![
            route("198.18.0.0/16", None),
            route("0.0.0.0/0", Some(gateway)),
        ],
        neighbours: on_link
            .chain([gateway])
            .map(|address| Neighbour {
                ifindex: 2,
                address,
                mac: mac(1),
            })
            .collect(),
        ..Topology::default()
    })
}

fn egress(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("egress");
    let local: IpAddr = "198.18.0.253".parse().unwrap();
    for servers in [3, 200] {
        let table = table(servers);
        let peers: Vec<SocketAddr> = (0..1024u32)
            .map(|number| {
                let [_, _, high, low] = number.to_be_bytes();
                let outside = IpAddr::from([203, 0, high, low]);
                let server = IpAddr::from([198, 18, 0, low % servers + 1]);
                SocketAddr::new(if number % 2 == 0 { server } else { outside }, 5060)
            })
            .collect();
        for peer in &peers {
            assert!(matches!(table.resolve(local, *peer), Resolution::Link(_)));
        }
        let mut next = 0;
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("resolve, {servers} servers"), |bencher| {
            bencher.iter(|| {
                next = (next + 1) % peers.len();
                table.resolve(local, black_box(peers[next]))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, checksum, frame, edit, egress);
criterion_main!(benches);
