//! Whether a message costs the same in a large installation as in a small one: the rate of one
//! worker's decisions against servers, pins, open transactions, headers and length.
//!
//! `cargo bench --bench growth [-- --csv FILE]`. Each point is the best of several short runs: what
//! else a machine does only takes away. Call-IDs come in an order that no prefetcher guesses, so that
//! a table larger than the caches costs what memory costs. Rings and checksums are not in it.
//!
//! Printed last for each curve: the slope of log10(rate) against log10(x), fitted by least squares; -0.1 is a
//! fifth of the rate lost with each decade.

#![allow(clippy::unwrap_used, reason = "a bench that cannot set up fails")]
#![allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]

#[path = "../tests/rfc3261_16/fixture.rs"]
mod fixture;

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use fixture::Lab;
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

/// Where received payloads start in a frame: our headroom, the kernel's, and the headers.
const START: usize = 512 + 256 + 42;
const CLIENT: &str = "198.18.100.7:5060";
/// Short runs of a point, of which the best counts.
const RUNS: usize = 7;
/// Decisions in one run, less in `--quick`.
const DECISIONS: usize = 100_000;
/// Call-IDs of curves that are not about their number: more than the caches hold pins of.
const CALLS: u64 = 1 << 18;

/// One point of a curve.
struct Point {
    curve: &'static str,
    x: usize,
    rate: f64,
}

/// Uniform numbers, always the same (the finisher of SplitMix64 over a counter).
fn mixed(number: u64) -> u64 {
    let mut x = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A number below `bound`.
fn below(number: u64, bound: u64) -> u64 {
    u64::try_from((u128::from(mixed(number)) * u128::from(bound)) >> 64).unwrap()
}

fn config(servers: usize, stateful: bool) -> String {
    let methods = if stateful { "\"INVITE\"" } else { "" };
    let mut text = format!(
        "[[listeners]]\nname = \"clients\"\naddress = \"198.18.0.1:5060\"\nstateful = [{methods}]\n\
         [[pools]]\nname = \"farm\"\n"
    );
    for number in 0..servers {
        let (high, low) = (number / 250, 1 + number % 250);
        let _ = write!(
            text,
            "[[pools.servers]]\nname = \"s{number}\"\naddress = \"198.19.{high}.{low}:5060\"\n"
        );
    }
    text
}

/// An INVITE with its digits, and where they are.
struct Template {
    bytes: Vec<u8>,
    places: Vec<usize>,
}

impl Template {
    /// `headers` rows more than an INVITE needs, and as many bytes in all as asked for.
    fn new(headers: usize, len: usize) -> Self {
        let message = |fill: usize| {
            let mut text = format!(
                "INVITE sip:service@198.18.0.1:5060 SIP/2.0\r\n\
                 Via: SIP/2.0/UDP {CLIENT};branch=z9hG4bK0000000000000000;rport\r\n\
                 Max-Forwards: 70\r\nFrom: <sip:alice@198.18.100.7>;tag=1\r\n\
                 To: <sip:service@198.18.0.1>\r\nCall-ID: 0000000000000000@198.18.100.7\r\nCSeq: 1 INVITE\r\n"
            );
            for number in 0..headers {
                let _ = write!(text, "X-{number}: y\r\n");
            }
            let _ = write!(text, "Content-Length: {fill:4}\r\n\r\n");
            text + &"x".repeat(fill)
        };
        let fill = len.checked_sub(message(0).len()).unwrap();
        let bytes = message(fill).into_bytes();
        assert_eq!(bytes.len(), len);
        let zeros = b"0000000000000000";
        let places = (0..len - zeros.len())
            .filter(|at| bytes[*at..].starts_with(zeros))
            .collect();
        Self { bytes, places }
    }

    fn set(&mut self, number: u64) {
        for place in &self.places {
            for (digit, to) in self.bytes[*place..place + 16].iter_mut().enumerate() {
                *to = b"0123456789abcdef"[(number >> (4 * digit) & 15) as usize];
            }
        }
    }
}

/// The best rate of several runs of `decide(number)`, a second.
fn best(decisions: usize, mut decide: impl FnMut(u64)) -> f64 {
    let mut number = 0;
    (0..RUNS)
        .map(|_| {
            let began = viaduct::sys::clock::now();
            for _ in 0..decisions {
                decide(number);
                number += 1;
            }
            let took = viaduct::sys::clock::now().since(began);
            decisions as f64 / took.as_secs_f64()
        })
        .fold(0.0, f64::max)
}

/// One stateless decision over a copy of the message; it must be forwarded.
fn forward(lab: &mut Lab, memory: &mut [u8], message: &[u8]) {
    let end = START + message.len();
    memory[START..end].copy_from_slice(message);
    let mut buffer = Buffer::new(memory, START, end);
    let mut flow = Flow {
        listener: ListenerIndex(0),
        local: lab.plan.listeners()[0].address,
        peer: CLIENT.parse().unwrap(),
    };
    let verdict = lab.forwarders[0].decide(&lab.plan, &mut buffer, &mut flow, lab.now);
    assert_eq!(verdict, Verdict::Transmit);
    black_box(buffer.into_range());
}

fn stateless(decisions: usize, lab: &mut Lab, template: &mut Template, calls: u64) -> f64 {
    let mut memory = vec![0; 4096];
    // Every call once: its pin is there and its memory touched.
    for number in 0..calls {
        template.set(mixed(number));
        forward(lab, &mut memory, &template.bytes);
    }
    best(decisions, |number| {
        template.set(mixed(below(number, calls)));
        forward(lab, &mut memory, &template.bytes);
    })
}

/// Takes what is sent beside the message, as a TX ring would.
struct Ring(Vec<u8>);

impl Outbox for Ring {
    fn send(&mut self, _flow: Flow, payload: &[u8]) {
        self.0[..payload.len()].copy_from_slice(payload);
    }
}

/// A proxy with its own table, clock and memory.
struct Core {
    plan: Plan,
    proxy: Proxy,
    now: Instant,
    ring: Ring,
    memory: Vec<u8>,
}

impl Core {
    fn new(transactions: usize) -> Self {
        let secret = Secret::from_hex(&"0123456789abcdef".repeat(4)).unwrap();
        let keys = Arc::new(Keys::new(&secret));
        let config = Config::parse(&config(3, true)).unwrap();
        let plan = Plan::build(&config, &mut ServerRegistry::new(), &keys).unwrap();
        let pins = Arc::new(Pins::new(1 << 21));
        let forwarder = Forwarder::new(WorkerIndex(0), 1, pins, Arc::new(WorkerMetrics::new()));
        let room = Room {
            transactions: u32::try_from(transactions).unwrap(),
            message_bytes: 4096 * transactions,
            rescue: false,
        };
        Self {
            plan,
            proxy: Proxy::new(forwarder, room, Arc::new(Board::new()), Instant::ZERO),
            now: Instant::from_nanos(1_000_000_000),
            ring: Ring(vec![0; 4096]),
            memory: vec![0; 4096],
        }
    }

    /// Gives it a message; what it does with it, whom it sends it to, and what it sends.
    fn take(&mut self, from: SocketAddr, message: &[u8]) -> (Verdict, SocketAddr, &[u8]) {
        let end = START + message.len();
        self.memory[START..end].copy_from_slice(message);
        let mut buffer = Buffer::new(&mut self.memory, START, end);
        let mut flow = Flow {
            listener: ListenerIndex(0),
            local: "198.18.0.1:5060".parse().unwrap(),
            peer: from,
        };
        let (plan, ring) = (&self.plan, &mut self.ring);
        let verdict = self
            .proxy
            .on_message(plan, &mut buffer, &mut flow, self.now, ring);
        let range = buffer.into_range();
        (verdict, flow.peer, &self.memory[range])
    }
}

/// INVITE, refusal and ACK of a call that is not taken, with who sends each; `status` instead of the
/// refusal's.
fn call(
    core: &mut Core,
    template: &mut Template,
    number: u64,
    status: u16,
) -> [(SocketAddr, Vec<u8>); 3] {
    let client: SocketAddr = CLIENT.parse().unwrap();
    template.set(mixed(number));
    let (verdict, server, forwarded) = core.take(client, &template.bytes);
    assert_eq!(verdict, Verdict::Transmit);
    let mut response = format!("SIP/2.0 {status} x\r\n");
    for row in std::str::from_utf8(forwarded).unwrap().lines() {
        match row.split(':').next().unwrap_or("") {
            "Via" | "From" | "Call-ID" | "CSeq" => response += &format!("{row}\r\n"),
            "To" => response += &format!("{row};tag=uas\r\n"),
            _ => {}
        }
    }
    response += "Content-Length: 0\r\n\r\n";
    let invite = template.bytes.clone();
    let text = String::from_utf8(invite.clone()).unwrap();
    let (head, _) = text.split_once("Content-Length").unwrap();
    let ack = head.replace("INVITE", "ACK").replace(
        "<sip:service@198.18.0.1>",
        "<sip:service@198.18.0.1>;tag=uas",
    );
    let ack = format!("{ack}Content-Length: 0\r\n\r\n");
    [
        (client, invite),
        (server, response.into_bytes()),
        (client, ack.into_bytes()),
    ]
}

/// Calls that are refused, one after the other, while `open` others ring. A refused call's
/// transactions stay for 32 s (Timer D), 4,000 of them beside the open ones.
fn transactions(decisions: usize, open: usize) -> f64 {
    const SPACING: Duration = Duration::from_millis(8);
    const DISTINCT: usize = 4_100;
    let decisions = decisions.min(4_000) / 2;
    let mut template = Template::new(0, 507);
    let mut maker = Core::new(4 * DISTINCT);
    let calls: Vec<_> = (0..DISTINCT)
        .map(|number| call(&mut maker, &mut template, number as u64, 486))
        .collect();
    drop(maker);
    let mut core = Core::new(2 * open + 8 * DISTINCT);
    for number in 0..open {
        let [_, (server, ringing), _] =
            call(&mut core, &mut template, (1 << 40) + number as u64, 180);
        assert_eq!(core.take(server, &ringing).0, Verdict::Transmit);
    }
    assert!(core.proxy.open_transactions() as usize >= open);
    best(decisions, |number| {
        for (from, message) in &calls[usize::try_from(number).unwrap() % DISTINCT] {
            black_box(core.take(*from, message).0);
        }
        core.now += SPACING;
        black_box(core.proxy.on_timer(&core.plan, core.now, &mut core.ring));
    })
}

/// Slope of log10(rate) over log10(x), least squares.
fn slope(points: &[&Point]) -> f64 {
    let logs: Vec<(f64, f64)> = points
        .iter()
        .map(|point| ((point.x as f64).log10(), point.rate.log10()))
        .collect();
    let count = logs.len() as f64;
    let (mean_x, mean_y) = logs.iter().fold((0.0, 0.0), |(x, y), log| {
        (x + log.0 / count, y + log.1 / count)
    });
    let (over, under) = logs.iter().fold((0.0, 0.0), |(over, under), (x, y)| {
        (
            over + (x - mean_x) * (y - mean_y),
            under + (x - mean_x).powi(2),
        )
    });
    over / under
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let is_quick = arguments
        .iter()
        .any(|argument| argument == "--quick" || argument == "--test");
    let csv = arguments.iter().position(|argument| argument == "--csv");
    let csv = csv.and_then(|at| arguments.get(at + 1));
    let decisions = if is_quick { 2_000 } else { DECISIONS };
    let most = |x: usize| !is_quick || x <= 100_000;

    let mut points: Vec<Point> = Vec::new();
    let mut add = |curve, x, rate| {
        println!("{curve:<14} {x:>10} {rate:>12.0}/s");
        points.push(Point { curve, x, rate });
    };
    for servers in [3, 30, 300, 3_000] {
        let mut lab = Lab::with_pins(&config(servers, false), 1, 1 << 20);
        let rate = stateless(decisions, &mut lab, &mut Template::new(0, 507), CALLS);
        add("servers", servers, rate);
    }
    for pins in [10_000, 100_000, 1_000_000, 10_000_000]
        .into_iter()
        .filter(|pins| most(*pins))
    {
        let mut lab = Lab::with_pins(&config(3, false), 1, pins);
        let rate = stateless(decisions, &mut lab, &mut Template::new(0, 507), pins as u64);
        add("pins", pins, rate);
    }
    for open in [1_000, 10_000, 100_000, 1_000_000]
        .into_iter()
        .filter(|open| most(*open))
    {
        add("transactions", open, transactions(decisions, open));
    }
    for rows in [8, 16, 32, 64, 128] {
        let mut lab = Lab::with_pins(&config(3, false), 1, 1 << 20);
        // Seven rows are in every one; all are as long as the one with the most.
        let rate = stateless(
            decisions,
            &mut lab,
            &mut Template::new(rows - 7, 1_800),
            CALLS,
        );
        add("headers", rows, rate);
    }
    for len in [320, 507, 700, 1_000, 1_400] {
        let mut lab = Lab::with_pins(&config(3, false), 1, 1 << 20);
        let rate = stateless(decisions, &mut lab, &mut Template::new(0, len), CALLS);
        add("bytes", len, rate);
    }
    let mut text = "curve,x,rate_per_second\n".to_owned();
    for point in &points {
        let _ = writeln!(text, "{},{},{:.0}", point.curve, point.x, point.rate);
    }
    for curve in ["servers", "pins", "transactions", "headers", "bytes"] {
        let of: Vec<&Point> = points.iter().filter(|point| point.curve == curve).collect();
        if of.len() > 1 {
            println!("slope per decade of {curve}: {:.3}", slope(&of));
        }
    }
    if let Some(path) = csv {
        std::fs::write(path, text).unwrap();
    }
}
