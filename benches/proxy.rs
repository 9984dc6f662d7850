//! What a call costs to decide: INVITE, 100, 180, 200, ACK, BYE, 200, with a transaction for the
//! INVITE and without; timers included, rings and sockets not.
//!
//! The messages of all calls are made before, by a proxy with the same secret: what is forwarded is a
//! function of what came. Each is copied into the buffer, like a frame.

#![allow(clippy::unwrap_used, reason = "a bench that cannot set up fails")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use viaduct::affinity::{Keys, Pins, Secret};
use viaduct::balance::Board;
use viaduct::config::Config;
use viaduct::forward::Forwarder;
use viaduct::metrics::WorkerMetrics;
use viaduct::net::{Flow, ListenerIndex, SocketAddr, WorkerIndex};
use viaduct::packet::Buffer;
use viaduct::proxy::{Outbox, Proxy, Room};
use viaduct::route::{Plan, ServerRegistry};
use viaduct::time::{Duration, Instant};
use viaduct::verdict::Verdict;

const START: usize = 512 + 256 + 42;
const CALLS: usize = 4096;
const CLIENT: &str = "198.18.0.100:5062";

/// Takes what is sent beside the message, as a TX ring would.
struct Ring(Vec<u8>, usize);

impl Outbox for Ring {
    fn send(&mut self, _flow: Flow, payload: &[u8]) {
        self.0[..payload.len()].copy_from_slice(payload);
        self.1 += 1;
    }
}

fn plan(stateful: bool) -> Plan {
    let methods = if stateful { "\"INVITE\"" } else { "" };
    let text = format!(
        "[[listeners]]\nname = \"clients\"\naddress = \"198.18.0.1:5060\"\nstateful = [{methods}]\n\
         [[pools]]\nname = \"farm\"\nservers = [{{ name = \"s1\", address = \"198.18.1.11:5060\" }}, \
         {{ name = \"s2\", address = \"198.18.1.12:5060\" }}]"
    );
    let secret = Secret::from_hex(&"0123456789abcdef".repeat(4)).unwrap();
    let keys = Arc::new(Keys::new(&secret));
    let config = Config::parse(&text).unwrap();
    Plan::build(&config, &mut ServerRegistry::new(), &keys).unwrap()
}

fn proxy() -> Proxy {
    let metrics = Arc::new(WorkerMetrics::new());
    let pins = Arc::new(Pins::new(1 << 16));
    let forwarder = Forwarder::new(WorkerIndex(0), 1, pins, metrics);
    let room = Room {
        transactions: 1 << 18,
        message_bytes: 256 << 20,
        rescue: false,
    };
    Proxy::new(forwarder, room, Arc::new(Board::new()), Instant::ZERO)
}

struct Bench {
    plan: Plan,
    proxy: Proxy,
    memory: Vec<u8>,
    ring: Ring,
}

impl Bench {
    fn new(stateful: bool) -> Self {
        Self {
            plan: plan(stateful),
            proxy: proxy(),
            memory: vec![0; 4096],
            ring: Ring(vec![0; 4096], 0),
        }
    }

    fn decide(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) -> (Verdict, &[u8], Flow) {
        let end = START + bytes.len();
        self.memory[START..end].copy_from_slice(bytes);
        let mut buffer = Buffer::new(&mut self.memory, START, end);
        let mut flow = Flow {
            listener: ListenerIndex(0),
            local: "198.18.0.1:5060".parse().unwrap(),
            peer: from,
        };
        let verdict =
            self.proxy
                .on_message(&self.plan, &mut buffer, &mut flow, now, &mut self.ring);
        let range = buffer.into_range();
        (verdict, &self.memory[range], flow)
    }
}

fn request(method: &str, call: usize, route: &str) -> Vec<u8> {
    let tag = if route.is_empty() { "" } else { ";tag=uas" };
    let branch = if method == "INVITE" { "i" } else { method };
    let cseq = if method == "BYE" { 2 } else { 1 };
    let uri = if route.is_empty() {
        "sip:service@198.18.0.1:5060"
    } else {
        "sip:198.18.1.11:5060"
    };
    let body = if method == "INVITE" {
        "v=0\r\no=user1 53655765 2353687637 IN IP4 198.18.0.100\r\ns=-\r\nc=IN IP4 198.18.0.100\r\n\
         t=0 0\r\nm=audio 6000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
    } else {
        ""
    };
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {CLIENT};branch=z9hG4bK-{call:08}-{branch}\r\n\
         {route}From: sipp <sip:sipp@{CLIENT}>;tag={call:08}SIPpTag\r\nTo: service <sip:service@198.18.0.1:5060>{tag}\r\n\
         Call-ID: {call:08}-1@198.18.0.100\r\nCSeq: {cseq} {method}\r\nContact: sip:sipp@{CLIENT}\r\n\
         Max-Forwards: 70\r\nSubject: Performance Test\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn response(request: &[u8], status: u16) -> Vec<u8> {
    let mut text = format!("SIP/2.0 {status} OK\r\n");
    for row in core::str::from_utf8(request).unwrap().lines().skip(1) {
        let name = row.split(':').next().unwrap_or("");
        if ["Via", "From", "Call-ID", "CSeq", "Record-Route"].contains(&name) {
            text += &format!("{row}\r\n");
        } else if name == "To" {
            let tag = if status > 100 && !row.contains(";tag=") {
                ";tag=uas"
            } else {
                ""
            };
            text += &format!("{row}{tag}\r\n");
        }
    }
    (text + "Content-Length: 0\r\n\r\n").into_bytes()
}

/// The seven messages of a call with who sends them.
fn call(bench: &mut Bench, number: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let client: SocketAddr = CLIENT.parse().unwrap();
    let now = Instant::from_nanos(1);
    let invite = request("INVITE", number, "");
    let (verdict, forwarded, flow) = bench.decide(client, &invite, now);
    assert_eq!(verdict, Verdict::Transmit);
    let (forwarded, server) = (forwarded.to_vec(), flow.peer);
    let text = core::str::from_utf8(&forwarded).unwrap();
    let route = text
        .lines()
        .find(|row| row.starts_with("Record-Route"))
        .unwrap();
    let route = format!("{}\r\n", route.replace("Record-Route", "Route"));
    let (ack, bye) = (
        request("ACK", number, &route),
        request("BYE", number, &route),
    );
    let (verdict, forwarded_bye, _) = bench.decide(client, &bye, now);
    assert_eq!(verdict, Verdict::Transmit);
    let bye_answer = response(forwarded_bye, 200);
    vec![
        (client, invite),
        (server, response(&forwarded, 100)),
        (server, response(&forwarded, 180)),
        (server, response(&forwarded, 200)),
        (client, ack),
        (client, bye),
        (server, bye_answer),
    ]
}

fn calls(c: &mut Criterion) {
    let mut group = c.benchmark_group("proxy");
    group.throughput(Throughput::Elements(1));
    for (name, stateful) in [("call_stateful", true), ("call_stateless", false)] {
        let mut maker = Bench::new(stateful);
        let calls: Vec<_> = (0..CALLS).map(|number| call(&mut maker, number)).collect();
        let mut bench = Bench::new(stateful);
        let mut now = Instant::from_nanos(1_000_000_000);
        let mut number = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                for (from, bytes) in &calls[number % CALLS] {
                    black_box(bench.decide(*from, bytes, now));
                }
                // 10,000 calls/s: a Call-ID comes again after 0.4 s, its transaction is still there,
                // so that every round is later by as much as makes it new.
                number += 1;
                now += Duration::from_micros(100);
                if number % CALLS == 0 {
                    now += Duration::from_secs(40);
                }
                black_box(bench.proxy.on_timer(&bench.plan, now, &mut bench.ring));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, calls);
criterion_main!(benches);
