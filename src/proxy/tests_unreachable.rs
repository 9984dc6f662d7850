//! ICMP errors for requests with a transaction: whichever worker the kernel tells, the one that has
//! the transaction tries another server.

use super::*;
use crate::affinity::{Keys, Pins, Secret};
use crate::config::Config;
use crate::metrics::WorkerMetrics;
use crate::net::{ListenerIndex, SocketAddr};
use crate::route::ServerRegistry;

const CONFIG: &str = r#"
    [secret]
    hex = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
    [[listeners]]
    name = "clients"
    address = "198.18.0.1:5060"
    stateful = ["INVITE"]
    [[pools]]
    name = "farm"
    servers = [
        { name = "s1", address = "198.18.1.11:5060" },
        { name = "s2", address = "198.18.1.12:5060" },
    ]
"#;
const WORKERS: u8 = 4;

struct Lab {
    plan: Plan,
    proxies: Vec<Proxy>,
    metrics: Vec<Arc<WorkerMetrics>>,
    now: Instant,
}

/// What a worker sent.
type Sent = Vec<(Flow, Vec<u8>)>;

impl Lab {
    fn new() -> Self {
        let config = Config::parse(CONFIG).unwrap();
        let secret =
            Secret::from_bytes(core::array::from_fn(|byte| u8::try_from(byte).unwrap())).unwrap();
        let keys = Arc::new(Keys::new(&secret));
        let plan = Plan::build(&config, &mut ServerRegistry::new(), &keys).unwrap();
        let (pins, board) = (Arc::new(Pins::new(1024)), Arc::new(Board::new()));
        let now = Instant::from_nanos(1_000_000_000);
        let metrics: Vec<_> = (0..WORKERS)
            .map(|_| Arc::new(WorkerMetrics::new()))
            .collect();
        let room = Room {
            transactions: 64,
            message_bytes: 1 << 20,
            rescue: false,
        };
        let proxies = (0..WORKERS)
            .zip(&metrics)
            .map(|(worker, metrics)| {
                let worker = WorkerIndex(worker);
                let forwarder = Forwarder::new(worker, WORKERS, pins.clone(), metrics.clone());
                Proxy::new(forwarder, room, board.clone(), now)
            })
            .collect();
        Self {
            plan,
            proxies,
            metrics,
            now,
        }
    }

    /// Sends an INVITE; its home worker and the request as it left.
    fn invite(&mut self, call_id: &str) -> (usize, Flow, Vec<u8>) {
        let bytes = format!(
            "INVITE sip:bob@198.18.0.1 SIP/2.0\r\n\
             Via: SIP/2.0/UDP 198.18.0.100:5062;branch=z9hG4bK-{call_id}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:alice@a.example>;tag=1\r\nTo: <sip:bob@b.example>\r\n\
             Call-ID: {call_id}\r\nCSeq: 1 INVITE\r\nContact: <sip:alice@198.18.0.100:5062>\r\n\
             Content-Length: 0\r\n\r\n"
        );
        let mut worker = 0;
        loop {
            let mut memory = vec![0; 8192];
            memory[1024..1024 + bytes.len()].copy_from_slice(bytes.as_bytes());
            let mut buffer = Buffer::new(&mut memory, 1024, 1024 + bytes.len());
            let mut flow = Flow {
                listener: ListenerIndex(0),
                local: "198.18.0.1:5060".parse().unwrap(),
                peer: "198.18.0.100:5062".parse().unwrap(),
            };
            let mut sent = Sent::new();
            let proxy = &mut self.proxies[worker];
            match proxy.on_message(&self.plan, &mut buffer, &mut flow, self.now, &mut sent) {
                Verdict::Transmit => return (worker, flow, buffer.payload().to_vec()),
                Verdict::HandOver(home) => worker = usize::from(home.0),
                verdict => panic!("{verdict:?}"),
            }
        }
    }

    /// Gives an ICMP error to `worker` and follows it; the workers that it went through, and what
    /// the last one sent.
    fn report(&mut self, worker: usize, flow: Flow, quoted: &[u8]) -> (Vec<usize>, Sent) {
        let mut path = vec![worker];
        let mut sent = Sent::new();
        loop {
            let hops = u8::try_from(path.len() - 1).unwrap();
            let worker = *path.last().unwrap();
            let proxy = &mut self.proxies[worker];
            match proxy.on_unreachable(&self.plan, quoted, &flow, hops, self.now, &mut sent) {
                Verdict::HandOver(next) => path.push(usize::from(next.0)),
                Verdict::Drop(DropReason::Unreachable) => return (path, sent),
                verdict => panic!("{verdict:?}"),
            }
            assert!(sent.is_empty(), "sent and handed over");
            assert!(
                path.len() <= usize::from(WORKERS),
                "it goes round: {path:?}"
            );
        }
    }

    fn counted(&self, address: SocketAddr) -> u64 {
        let server = self.plan.server_at(address).unwrap().index;
        let counts = self.metrics.iter();
        counts
            .map(|one| one.server(server).unreachable.value())
            .sum()
    }
}

/// RFC 3261 §16.9, §18.4: as a 503, so another server is tried; the report is counted once.
#[test]
fn a29_the_home_worker_of_the_call_tries_another_server() {
    for told in 0..usize::from(WORKERS) {
        let mut lab = Lab::new();
        let (home, flow, bytes) = lab.invite("u-home");
        let quoted = &bytes[..bytes.len().min(520)];
        let (path, sent) = lab.report(told, flow, quoted);
        let expected = if told == home {
            vec![home]
        } else {
            vec![told, home]
        };
        assert_eq!(path, expected);
        let (next, request) = sent.last().expect("another server is tried");
        assert!(request.starts_with(b"INVITE "));
        assert_ne!(next.peer, flow.peer);
        assert_eq!(lab.counted(flow.peer), 1);
    }
}

/// The quote ends before the Call-ID: each worker is asked once.
#[test]
fn a29_a_quote_without_the_call_id_finds_its_worker() {
    for told in 0..usize::from(WORKERS) {
        let mut lab = Lab::new();
        let (home, flow, bytes) = lab.invite("u-cut");
        let text = String::from_utf8(bytes.clone()).unwrap();
        let quoted = &bytes[..text.find("Call-ID").unwrap()];
        let (path, sent) = lab.report(told, flow, quoted);
        assert_eq!(path.last(), Some(&home));
        assert!(sent.iter().any(|(to, _)| to.peer != flow.peer));
        assert_eq!(lab.counted(flow.peer), 1);
    }
}

/// Its transaction is over or never was: nothing goes round for ever, nothing is sent.
#[test]
fn a46_a_report_of_a_transaction_that_is_gone_ends() {
    let mut lab = Lab::new();
    let (_, flow, bytes) = lab.invite("u-gone");
    let mut other = Lab::new();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let cut = &bytes[..text.find("Call-ID").unwrap()];
    for told in 0..usize::from(WORKERS) {
        for quoted in [&bytes[..], cut] {
            let (_, sent) = other.report(told, flow, quoted);
            assert!(sent.is_empty());
        }
    }
    assert_eq!(other.counted(flow.peer), 2 * u64::from(WORKERS));
}
