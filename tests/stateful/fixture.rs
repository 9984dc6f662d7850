//! A balancer that keeps a transaction for every request, without a network: one proxy per worker
//! and a clock that stands still until it is told to move.
//!
//! [`Lab::send`] speaks like the fixture of the stateless tests, so that those run here as they are:
//! each of their requests is new, whatever its branch. The tests of transactions use
//! [`Lab::receive`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use viaduct::affinity::{Keys, Pins, Secret};
use viaduct::balance::Board;
use viaduct::config::Config;
use viaduct::forward::{Forwarder, Shared};
use viaduct::limits::{DATAGRAM_LEN_MAX, KERNEL_BUFFER_LEN};
use viaduct::metrics::WorkerMetrics;
use viaduct::net::{Flow, WorkerIndex};
use viaduct::packet::Buffer;
use viaduct::proxy::{Proxy, Room};
use viaduct::route::{Plan, ServerRegistry};
use viaduct::time::Instant;
use viaduct::verdict::Verdict;

#[path = "../rfc3261_16/messages.rs"]
mod messages;

pub use self::messages::*;

const ROOM: Room = Room {
    transactions: 4096,
    message_bytes: 16 << 20,
    rescue: false,
};

/// Every listener keeps transactions for these.
const STATEFUL: &str = r#"stateful = ["INVITE", "BYE", "INFO", "MESSAGE", "NOTIFY", "OPTIONS", "PRACK", "PUBLISH", "REFER", "REGISTER", "SUBSCRIBE", "UPDATE"]"#;

/// One server behind one address.
pub const ONE_SERVER: &str = r#"
    [[listeners]]
    name = "clients"
    address = "198.18.0.1:5060"
    aliases = ["sip.lab.example"]
    [[pools]]
    name = "farm"
    servers = [{ name = "s1", address = "198.18.1.11:5060" }]
"#;

/// What our branches say of how a request is forwarded: with a transaction, first attempt.
pub const MARK: &str = "t0";

pub struct Lab {
    pub keys: Arc<Keys>,
    pub pins: Arc<Pins>,
    pub shared: Arc<Shared>,
    pub metrics: Vec<Arc<WorkerMetrics>>,
    pub registry: ServerRegistry,
    pub plan: Plan,
    pub board: Arc<Board>,
    pub proxies: Vec<Proxy>,
    pub room: Room,
    pub now: Instant,
    pub handed_over: usize,
    /// What became of the last datagram.
    pub verdict: Verdict,
    /// What was sent and not yet looked at.
    pub out: Vec<(Flow, Vec<u8>)>,
    memory: Vec<u8>,
}

impl Lab {
    /// With transactions for what the configuration says, and no other.
    #[track_caller]
    pub fn as_configured(config: &str) -> Self {
        let mut lab = Self::new(config);
        lab.plan = plan_as_is(config, &mut lab.registry, &lab.keys);
        lab
    }

    #[track_caller]
    pub fn with_pins(config: &str, workers: u8, pins: usize) -> Self {
        let secret = Secret::from_bytes(*b"0123456789abcdefghijklmnopqrstuv").unwrap();
        let keys = Arc::new(Keys::new(&secret));
        let mut registry = ServerRegistry::new();
        let plan = plan(config, &mut registry, &keys);
        let metrics = (0..workers).map(|_| Arc::new(WorkerMetrics::new()));
        let mut lab = Self {
            keys,
            pins: Arc::new(Pins::new(pins)),
            shared: Arc::new(Shared::new(4096)),
            metrics: metrics.collect(),
            registry,
            plan,
            board: Arc::new(Board::new()),
            proxies: Vec::new(),
            room: ROOM,
            now: Instant::ZERO + Duration::from_secs(1_000),
            handed_over: 0,
            verdict: Verdict::Absorb,
            out: Vec::new(),
            memory: vec![0; KERNEL_BUFFER_LEN],
        };
        lab.forget();
        lab
    }

    /// All transactions are lost; pins, board and counters stay.
    pub fn forget(&mut self) {
        let workers = u8::try_from(self.metrics.len()).unwrap();
        self.proxies = (0..workers)
            .map(|worker| {
                let metrics = self.metrics[usize::from(worker)].clone();
                let worker = WorkerIndex(worker);
                let forwarder = Forwarder::new(worker, workers, self.pins.clone(), metrics)
                    .with_shared(self.shared.clone());
                Proxy::new(forwarder, self.room, self.board.clone(), self.now)
            })
            .collect();
    }

    /// Another node, or this one after a restart: nothing but secret and configuration in common.
    pub fn restart(&mut self) {
        self.pins = Arc::new(Pins::new(4096));
        self.shared = Arc::new(Shared::new(4096));
        self.board = Arc::new(Board::new());
        self.forget();
    }

    // ---- as the stateless fixture ---------------------------------------------------------------

    pub fn wait(&mut self, time: Duration) {
        let _sent = self.pass(time);
    }

    /// What is sent in the place of a datagram that a certain worker reads first.
    #[track_caller]
    pub fn deliver_at(
        &mut self,
        worker: usize,
        bytes: &[u8],
        from: SocketAddr,
        to: SocketAddr,
    ) -> Outcome {
        self.hand_in(worker, bytes, from, to);
        let follows = |method: &[u8]| bytes.starts_with(method);
        let kinds = [&b"SIP/2.0"[..], b"ACK ", b"CANCEL "];
        if self.verdict == Verdict::Absorb && !kinds.into_iter().any(follows) {
            // It was taken for a retransmission.
            self.forget();
            self.out.clear();
            self.hand_in(worker, bytes, from, to);
        }
        let sent = self.taken();
        match self.verdict {
            Verdict::Drop(reason) => Outcome::Dropped(reason),
            Verdict::Transmit => Outcome::Sent(sent.last().unwrap().clone()),
            other => panic!("{other:?}, and sent {}", what(&sent).join(", ")),
        }
    }

    // ---- transactions ---------------------------------------------------------------------------

    /// A datagram to the first listener; everything that is sent then, in order.
    #[track_caller]
    pub fn receive(&mut self, bytes: impl AsRef<[u8]>, from: &str) -> Vec<Sent> {
        let to = self.plan.listeners()[0].address;
        self.hand_in(0, bytes.as_ref(), from.parse().unwrap(), to);
        self.taken()
    }

    /// What the receiver of `to` answers; everything that is sent then.
    #[track_caller]
    pub fn answer(&mut self, to: &Sent, status: u16) -> Vec<Sent> {
        let tag = match status {
            100 => String::new(),
            _ => format!("tag-{}", server(to.to)),
        };
        self.answer_with(to, response(to, status, &tag))
    }

    /// A datagram from the receiver of `to` to where that came from.
    #[track_caller]
    pub fn answer_with(&mut self, to: &Sent, bytes: impl AsRef<[u8]>) -> Vec<Sent> {
        self.hand_in(0, bytes.as_ref(), to.to, to.from);
        self.taken()
    }

    /// A new INVITE: the 100, and the request at its server.
    #[track_caller]
    pub fn call(&mut self, call_id: &str) -> Sent {
        self.call_with(invite(call_id, "z9hG4bK1"))
    }

    #[track_caller]
    pub fn call_with(&mut self, invite: impl AsRef<[u8]>) -> Sent {
        let mut sent = self.receive(invite, CLIENT);
        assert_eq!(sent.len(), 2, "{}", what(&sent).join(", "));
        assert!(what(&sent)[0] == "100 client" && what(&sent)[1].starts_with("INVITE s"));
        sent.remove(1)
    }

    /// Lets time pass; everything that timers send.
    pub fn pass(&mut self, time: Duration) -> Vec<Sent> {
        let end = self.now + time;
        loop {
            let mut next = end;
            for proxy in &mut self.proxies {
                while proxy.next_deadline().is_some_and(|due| due <= self.now) {
                    let _later = proxy.on_timer(&self.plan, self.now, &mut self.out);
                }
                if let Some(due) = proxy.on_timer(&self.plan, self.now, &mut self.out) {
                    next = next.min(due.max(self.now + Duration::from_millis(1)));
                }
            }
            if next >= end {
                break;
            }
            self.now = next;
        }
        self.now = end;
        for proxy in &mut self.proxies {
            let _later = proxy.on_timer(&self.plan, self.now, &mut self.out);
        }
        self.taken()
    }

    pub fn millis(&mut self, millis: u64) -> Vec<Sent> {
        self.pass(Duration::from_millis(millis))
    }

    /// An ICMP error for something that was sent.
    pub fn unreachable(&mut self, sent: &Sent) -> Vec<Sent> {
        let listeners = self.plan.listeners();
        let flow = Flow {
            listener: listeners
                .iter()
                .find(|listener| listener.address == sent.from)
                .unwrap()
                .index,
            local: sent.from,
            peer: sent.to,
        };
        let _counted = self.proxies[0].on_unreachable(
            &self.plan,
            &sent.bytes,
            &flow,
            0,
            self.now,
            &mut self.out,
        );
        self.taken()
    }

    pub fn open(&self) -> u32 {
        self.proxies.iter().map(Proxy::open_transactions).sum()
    }

    /// Nothing is left when everything has had its time.
    #[track_caller]
    pub fn assert_ends(&mut self) {
        let _sent = self.pass(Duration::from_secs(400));
        for proxy in &self.proxies {
            assert_eq!(proxy.open_transactions(), 0);
            assert_eq!(proxy.kept_bytes(), 0);
            assert_eq!(proxy.armed_timers(), 0);
        }
    }

    fn taken(&mut self) -> Vec<Sent> {
        let sent = self.out.drain(..).map(|(flow, bytes)| Sent {
            from: flow.local,
            to: flow.peer,
            bytes,
        });
        sent.collect()
    }

    #[track_caller]
    fn hand_in(&mut self, worker: usize, bytes: &[u8], from: SocketAddr, to: SocketAddr) {
        assert!(bytes.len() <= DATAGRAM_LEN_MAX);
        let listeners = self.plan.listeners();
        let listener = listeners.iter().find(|listener| listener.address == to);
        let received = Flow {
            listener: listener.expect("a listener of ours").index,
            local: to,
            peer: from,
        };
        let mut flow = received;
        let mut worker = worker;
        for _ in 0..2 {
            let start = 768;
            self.memory[start..start + bytes.len()].copy_from_slice(bytes);
            let mut buffer = Buffer::new(&mut self.memory, start, start + bytes.len());
            let proxy = &mut self.proxies[worker];
            self.verdict =
                proxy.on_message(&self.plan, &mut buffer, &mut flow, self.now, &mut self.out);
            let Verdict::HandOver(home) = self.verdict else {
                if self.verdict == Verdict::Transmit {
                    self.out.push((flow, buffer.payload().to_vec()));
                }
                return;
            };
            assert_eq!(buffer.payload(), bytes, "handed over untouched");
            assert_eq!(flow, received, "handed over untouched");
            assert_ne!(usize::from(home.0), worker, "handed over to itself");
            self.handed_over += 1;
            worker = usize::from(home.0);
        }
        panic!("handed over twice");
    }
}

#[track_caller]
fn plan(text: &str, registry: &mut ServerRegistry, keys: &Arc<Keys>) -> Plan {
    let stateful = format!("[[listeners]]\n{STATEFUL}");
    plan_as_is(&text.replace("[[listeners]]", &stateful), registry, keys)
}

#[track_caller]
fn plan_as_is(text: &str, registry: &mut ServerRegistry, keys: &Arc<Keys>) -> Plan {
    let mut config = match Config::parse(text) {
        Ok(config) => config,
        Err(error) => panic!("{error}"),
    };
    // The clock stands still: no test is answered more than a second's worth.
    if !text.contains("answers_per_source") {
        config.sip.answers_per_source = None;
    }
    Plan::build(&config, registry, keys).unwrap()
}

/// `s1` for the first server, `client` for whoever is none.
pub fn server(address: SocketAddr) -> String {
    let servers = SERVERS
        .iter()
        .position(|server| *server == address.to_string());
    servers.map_or("client".to_owned(), |index| format!("s{}", index + 1))
}

/// What was sent to whom: `INVITE s2`, `180 client`.
pub fn what(sent: &[Sent]) -> Vec<String> {
    let word = |sent: &Sent| {
        let line = start_line(&sent.bytes);
        let words: Vec<&str> = line.split(' ').collect();
        let word = if words[0] == "SIP/2.0" {
            words[1]
        } else {
            words[0]
        };
        format!("{word} {}", server(sent.to))
    };
    sent.iter().map(word).collect()
}

/// The client's ACK of a final response that is no 2xx: on the branch of its INVITE.
pub fn client_ack(invite: &[u8], answer: &Sent) -> Vec<u8> {
    let to = row(&answer.bytes, "To");
    let ack = replaced(invite, "INVITE sip:", "ACK sip:");
    let ack = replaced(&ack, " INVITE\r\n", " ACK\r\n");
    let old = row(invite, "To");
    replaced(&ack, &format!("To: {old}"), &format!("To: {to}"))
}

/// The client's CANCEL of its INVITE.
pub fn client_cancel(invite: &[u8]) -> Vec<u8> {
    let cancel = replaced(invite, "INVITE sip:", "CANCEL sip:");
    replaced(&cancel, " INVITE\r\n", " CANCEL\r\n")
}

/// The value of the parameter `tag` in a row.
pub fn tag(bytes: &[u8], name: &str) -> Option<String> {
    let value = row(bytes, name);
    let (_, tag) = value.split_once(";tag=")?;
    Some(tag.split(';').next().unwrap().to_owned())
}
