//! The data path does not allocate after its start: a counting allocator holds it to that.
//!
//! Two real workers on loopback sockets are given 10^6 messages: distinct INVITEs and their
//! responses, in-dialog requests, the torture corpora, garbage, keepalives, requests that are
//! answered, requests that land on the wrong worker, 60 kB datagrams, a reload in the middle,
//! captures that begin and end, and a common log of every message.
//! From a worker's first batch until it is told to stop, whatever its thread allocates or frees is counted.

#![allow(unsafe_code, reason = "a global allocator is unsafe to implement")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use viaduct::affinity::{Binding, Keys, Pair, Pins, RouteToken, Secret};
use viaduct::app::{KnownSources, Observer, Samples, SipHandler};
use viaduct::balance::Board;
use viaduct::capture::{Captures, Filter, Running};
use viaduct::config::Config;
use viaduct::datapath::{Batch, Builder, Handler, Out};
use viaduct::forward::{Forwarder, Shared};
use viaduct::metrics::{ListenerMetrics, WorkerMetrics};
use viaduct::net::{Endpoint, ListenerIndex, Protocol};
use viaduct::proxy::{Proxy, Room};
use viaduct::route::{Plan, ServerRegistry, server_id};
use viaduct::time::Instant;

/// Messages sent in all.
const MESSAGES: usize = 1_000_000;

static COUNTED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread's allocations are counted.
    static ARMED: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

fn count() {
    if ARMED.try_with(Cell::get).unwrap_or(false) {
        COUNTED.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system allocator unchanged; counting touches no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Arms its thread at the first batch; the worker loop around it is counted from there on.
struct Armed<H>(H);

impl<H: Handler> Handler for Armed<H> {
    fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, now: Instant) {
        ARMED.with(|armed| armed.set(true));
        self.0.on_batch(batch, out, now);
    }

    fn on_timer(&mut self, now: Instant, out: &mut Out<'_>) -> Option<Instant> {
        self.0.on_timer(now, out)
    }
}

fn config(listener: SocketAddr, servers: &[SocketAddr], weight: u32) -> Config {
    let members: Vec<String> = servers
        .iter()
        .enumerate()
        .map(|(n, address)| {
            format!("{{ name = \"s{n}\", address = \"{address}\", weight = {weight} }}")
        })
        .collect();
    let text = format!(
        "[[listeners]]\nname = \"l\"\naddress = \"{listener}\"\nnat = \"force-rport\"\n\
         path = \"auto\"\n[[pools]]\nname = \"p\"\n\
         servers = [{}]\n[sip]\nanswers_per_second = 0\n\
         answers_per_source = 0\n",
        members.join(", ")
    );
    Config::parse(&text).unwrap()
}

fn request(method: &str, n: usize, vip: SocketAddr, from: SocketAddr, extra: &str) -> Vec<u8> {
    format!(
        "{method} sip:service@{vip} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{n:x}{method}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:a@{from}>;tag={n:x}\r\nTo: <sip:service@{vip}>\r\n\
         Call-ID: {n:x}@{from}\r\nCSeq: 1 {method}\r\nContact: <sip:a@{from}>\r\n{extra}\
         Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// A request in a dialog that began behind a NAT with another mapping.
fn moved(keys: &Keys, n: usize, vip: SocketAddr, from: SocketAddr) -> Vec<u8> {
    let token = RouteToken {
        server: server_id("s0"),
        flow: Some(Endpoint {
            address: "203.0.113.5:1024".parse().unwrap(),
            protocol: Protocol::Udp,
        }),
        listener: ListenerIndex(0),
        nat: true,
        callee: false,
        pair: Pair::Single,
        initiator: keys.tag_hash(format!("{n:x}").as_bytes()),
    };
    let call_id = keys.call_id_hash(format!("{n:x}@{from}").as_bytes());
    let token = token.seal(keys, Binding::Dialog(call_id));
    let route = format!(
        "Route: <sip:{}@{vip};lr>\r\n",
        str::from_utf8(&token).unwrap()
    );
    let request = request("UPDATE", n, vip, from, &route);
    let to = format!("To: <sip:service@{vip}>");
    let request = String::from_utf8(request).unwrap();
    request.replace(&to, &format!("{to};tag=b")).into_bytes()
}

/// A 200 as a server makes it: all Vias and Record-Routes of the request it got.
fn answer(request: &[u8]) -> Option<Vec<u8>> {
    let text = core::str::from_utf8(request).ok()?;
    let wanted = ["Via:", "Record-Route:", "From:", "To:", "Call-ID:", "CSeq:"];
    let mut response = String::from("SIP/2.0 200 OK\r\n");
    for line in text.split("\r\n").take_while(|line| !line.is_empty()) {
        if wanted.iter().any(|name| line.starts_with(name)) {
            response.push_str(line);
            response.push_str("\r\n");
        }
    }
    response.push_str("Content-Length: 0\r\n\r\n");
    Some(response.into_bytes())
}

/// Every torture message.
fn torture() -> Vec<Vec<u8>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let folders = ["rfc4475", "rfc5118"].map(|name| fs::read_dir(data.join(name)).unwrap());
    let files = folders
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path());
    let messages: Vec<_> = files
        .filter(|path| path.extension().is_none_or(|extension| extension == "dat"))
        .map(|path| fs::read(path).unwrap())
        .collect();
    assert!(messages.len() >= 60);
    messages
}

fn socket(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

#[test]
fn a_million_messages_without_an_allocation() {
    let servers: Vec<UdpSocket> = (2..5).map(|n| socket(&format!("127.0.0.{n}:0"))).collect();
    let addresses: Vec<SocketAddr> = servers.iter().map(|s| s.local_addr().unwrap()).collect();
    let port = socket("127.0.0.1:0").local_addr().unwrap().port();
    let vip = SocketAddr::from(([127, 0, 0, 1], port));

    let keys = Arc::new(Keys::new(&Secret::generate().unwrap()));
    let mut registry = ServerRegistry::new();
    let first = Plan::build(&config(vip, &addresses, 1), &mut registry, &keys).unwrap();
    let plan = Arc::new(ArcSwap::from_pointee(first));
    let metrics: Vec<_> = (0..2).map(|_| Arc::new(WorkerMetrics::new())).collect();
    let pins = Arc::new(Pins::new(1 << 16));
    let board = Arc::new(Board::new());
    let room = Room {
        transactions: 1 << 16,
        message_bytes: 64 << 20,
        rescue: false,
    };
    let shared = Arc::new(Shared::new(1024));
    let samples = Arc::new(Samples::new());
    let captures = Arc::new(Captures::new(Vec::new()));
    let known = Arc::new(KnownSources::new());
    known.set_wanted(true);
    let log = viaduct::clf::Service::default();
    let datapath = Builder::new(metrics.clone())
        .listener(ListenerIndex(0), vip)
        .build()
        .unwrap();
    let running = datapath
        .start(
            |worker| {
                let metrics = metrics[usize::from(worker.0)].clone();
                let forwarder =
                    Forwarder::new(worker, 2, pins.clone(), metrics).with_shared(shared.clone());
                let observer = Observer::default()
                    .capture(captures.tap(worker))
                    .log(log.tap());
                let handler = SipHandler::new(
                    Proxy::new(forwarder, room, board.clone(), Instant::ZERO),
                    plan.clone(),
                    samples.clone(),
                );
                Armed(handler.telling(known.clone()).observed(observer))
            },
            &[],
        )
        .unwrap();

    // Sources on several ports, so that SO_REUSEPORT feeds both workers.
    let clients: Vec<UdpSocket> = (0..16).map(|_| socket("127.0.0.9:0")).collect();
    let torture = torture();
    let big = {
        let mut big = request("INVITE", 0, vip, clients[0].local_addr().unwrap(), "");
        big.truncate(big.len() - "Content-Length: 0\r\n\r\n".len());
        big.extend_from_slice(b"Content-Length: 60000\r\n\r\n");
        big.resize(big.len() + 60_000, b'x');
        big
    };
    let mut room = vec![0; 65_536];
    let mut sent = 0;
    let mut old_plan = None;
    let mut capture: Option<Running> = None;
    let mut captured = 0;
    for n in 0.. {
        if sent >= MESSAGES {
            break;
        }
        let client = &clients[n % clients.len()];
        let from = client.local_addr().unwrap();
        let mut send = |message: &[u8]| {
            while client.send_to(message, vip).is_err() {
                std::thread::sleep(Duration::from_micros(50));
            }
            sent += 1;
        };
        send(&request("INVITE", n, vip, from, ""));
        match n % 16 {
            1 => send(&torture[n / 16 % torture.len()]),
            2 => send(b"\r\n\r\n"),
            3 => send(&request(
                "OPTIONS",
                n,
                vip,
                from,
                "Proxy-Require: nobody\r\n",
            )),
            4 => send(&request("INVITE", n, vip, from, "Max-Forwards: 0\r\n")),
            5 => send(&[0xa5; 700]),
            6 => send(&request("CANCEL", n, vip, from, "")),
            7 => send(&request("REGISTER", n, vip, from, "Supported: path\r\n")),
            // A client whose token says that it was elsewhere.
            9 => send(&moved(&keys, n, vip, from)),
            _ => {}
        }
        if n % 2000 == 8 {
            send(&big);
        }
        // Servers answer what they get, so that responses go back through the workers.
        if n % 8 == 0 {
            for server in &servers {
                while let Ok((len, peer)) = server.recv_from(&mut room) {
                    if let Some(response) = answer(&room[..len])
                        && server.send_to(&response, peer).is_ok()
                    {
                        sent += 1;
                    }
                }
            }
        }
        if n % 64 == 0 {
            for client in &clients {
                while client.recv_from(&mut room).is_ok() {}
            }
        }
        if n == MESSAGES / 20 || n == MESSAGES / 4 {
            let wanted = (n == MESSAGES / 20).then_some((Path::new("/dev/null"), 1));
            log.commit(log.prepare(wanted).unwrap()).unwrap();
        }
        // A capture of everything, one of nearly nothing, none; each for a hundredth of the run.
        match n % (MESSAGES / 100) {
            0 => {
                drop(capture.take());
                captures.reap();
                let filter = match n / (MESSAGES / 100) % 3 {
                    0 => Some(Filter::all()),
                    1 => Some(Filter::all().method(b"CANCEL").call_id(b"6@127.0.0.9")),
                    _ => None,
                };
                capture = filter.and_then(|filter| captures.begin(filter));
            }
            more if more % 64 == 0 => {
                while let Some(slot) = capture.as_ref().and_then(|capture| capture.take()) {
                    captured += 1;
                    if let Some(capture) = &capture {
                        capture.release(slot);
                    }
                }
            }
            _ => {}
        }
        if old_plan.is_none() && sent > MESSAGES / 2 {
            let changed = config(vip, &addresses[..2], 7);
            let next = Plan::build(&changed, &mut registry, &keys).unwrap();
            // Kept until the workers are done, as the process does: the last owner frees.
            old_plan = Some(plan.swap(Arc::new(next)));
        }
    }
    drop(capture);
    std::thread::sleep(Duration::from_millis(300));
    // The end of a worker frees what its start allocated; what counts is the time between.
    let counted = COUNTED.load(Ordering::Relaxed);
    running.stop();

    let total =
        |counter: fn(&WorkerMetrics) -> u64| metrics.iter().map(|m| counter(m)).sum::<u64>();
    let received = total(|m| m.received());
    // The kernel may drop what it has no room for on loopback; most must have arrived.
    assert!(
        received > MESSAGES as u64 * 8 / 10,
        "only {received} messages arrived"
    );
    // Each message counts once, whatever of the worker has it in hand.
    let listener = |counter: fn(&ListenerMetrics) -> u64| {
        let of_listener = |m: &Arc<WorkerMetrics>| counter(m.listener(ListenerIndex(0)));
        metrics.iter().map(of_listener).sum::<u64>()
    };
    assert_eq!(listener(|of| of.messages_in.value()), received);
    let sent_out = total(|m| m.kernel_out.value() + m.xdp_out.value());
    assert_eq!(listener(|of| of.messages_out.value()), sent_out);
    assert!(
        total(|m| m.hand_over_in.value()) > 1000,
        "nothing was handed over"
    );
    assert!(
        total(|m| m.dropped()) > 1000
            && total(|m| m.answers.iter().map(|a| a.value()).sum()) > 1000
    );
    assert!(
        total(|m| m.responses[1].value()) > 1000,
        "no responses came by"
    );
    assert_eq!(
        received + total(|m| m.originated.value()),
        total(|m| m.sent()) + total(|m| m.dropped()) + total(|m| m.absorbed.value()),
        "messages went missing"
    );
    let (logged, _lost) = log.counts();
    assert!(logged > 10_000, "only {logged} messages were logged");
    assert!(captured > 10_000, "only {captured} messages were captured");
    // Each of the two workers has told of the one caller, once in a while.
    let told: Vec<_> = known.take().collect();
    assert!((1..100).contains(&told.len()), "{}", told.len());
    assert!(told.iter().all(|source| source.to_string() == "127.0.0.9"));
    assert!(total(|m| m.flows_evicted.value()) > 1000, "nobody moved");
    assert_eq!(counted, 0, "the workers allocated");
}

#[test]
fn the_counter_counts() {
    let before = COUNTED.load(Ordering::Relaxed);
    std::thread::spawn(|| {
        ARMED.with(|armed| armed.set(true));
        drop(core::hint::black_box(Box::new(7)));
        ARMED.with(|armed| armed.set(false));
    })
    .join()
    .unwrap();
    let counted = COUNTED.load(Ordering::Relaxed) - before;
    // nextest runs each test in a process of its own; `cargo test` would mix the two.
    assert_eq!(counted, 2);
}
