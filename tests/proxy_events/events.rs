//! Sequences of messages, ICMP errors, plans and time into one proxy, spelled by bytes.
//!
//! Most bytes make what peers would send: requests of a few callers, responses to what the proxy
//! has sent, so that transactions come to every state. The rest cuts, flips and invents.
//!
//! What must hold: no panic; whatever is sent is a SIP message to a peer that exists; never more
//! transactions than there is room for; and after enough time without input every table is empty and
//! no server is charged for anything.

#![allow(unreachable_pub, reason = "shared by a test binary and a fuzz target")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use viaduct::affinity::{Keys, Pins, Secret};
use viaduct::balance::Board;
use viaduct::config::Config;
use viaduct::forward::Forwarder;
use viaduct::metrics::WorkerMetrics;
use viaduct::net::{Flow, ServerIndex, WorkerIndex};
use viaduct::packet::Buffer;
use viaduct::proxy::{Proxy, Room};
use viaduct::route::{Plan, ServerRegistry};
use viaduct::sip::{Kind, Message};
use viaduct::time::Instant;
use viaduct::verdict::Verdict;

const CLIENTS: [&str; 3] = ["198.18.200.7:5060", "198.18.200.8:5062", "198.18.1.12:5060"];
const METHODS: [&str; 8] = [
    "INVITE", "INVITE", "CANCEL", "ACK", "BYE", "OPTIONS", "REGISTER", "UPDATE",
];
const STATUSES: [u16; 24] = [
    100, 180, 183, 199, 200, 202, 299, 300, 302, 401, 404, 407, 408, 415, 420, 480, 484, 486, 487,
    500, 503, 600, 603, 699,
];
/// Around every timer of a transaction, in milliseconds.
const WAITS: [u64; 16] = [
    0, 1, 3, 4, 100, 499, 500, 1000, 2000, 3500, 4000, 6000, 31_999, 32_000, 64_000, 185_000,
];
/// Small, so that sequences come to the end of it.
const ROOM: Room = Room {
    transactions: 6,
    message_bytes: 24 * 1024,
    rescue: false,
};
/// Longer than any transaction lives without a message: a call that rings to the end of Timer C, its
/// CANCEL given 64·T1 for an answer, its last response 64·T1 for an ACK.
const QUIET: Duration = Duration::from_secs(600);
const START: usize = 1024;

/// The configurations that a sequence moves between, as reloads would.
fn configs() -> Vec<String> {
    let config = |listener: &str, pool: &str, servers: &[&str]| {
        let servers: Vec<String> = servers
            .iter()
            .map(|name| {
                let last = name.trim_start_matches('s');
                format!("{{ name = \"{name}\", address = \"198.18.1.1{last}:5060\" }}")
            })
            .collect();
        format!(
            "[[listeners]]\nname = \"clients\"\naddress = \"198.18.0.1:5060\"\n{listener}\n\
             [[pools]]\nname = \"farm\"\n{pool}\nservers = [{}]\n",
            servers.join(", ")
        )
    };
    vec![
        config("stateful = [\"INVITE\"]", "", &["s1", "s2", "s3"]),
        config(
            "stateful = [\"INVITE\"]",
            "hunt_on = [503, 500, 480]",
            &["s2", "s3"],
        ),
        config(
            "stateful = [\"INVITE\", \"BYE\", \"OPTIONS\", \"REGISTER\", \"UPDATE\"]",
            "",
            &["s1"],
        ),
        config("stateful = []", "", &["s1", "s2"]),
    ]
}

/// Bytes read one by one; zeros when there are none left.
struct Tape<'a>(&'a [u8]);

impl<'a> Tape<'a> {
    fn next(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.next()) % from.len()]
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// One proxy and all around it.
pub struct Events {
    plans: Vec<Plan>,
    plan: usize,
    proxy: Proxy,
    board: Arc<Board>,
    /// Servers of all plans.
    slots: u16,
    now: Instant,
    memory: Vec<u8>,
    /// What the proxy has sent, of its own and forwarded; the last 32.
    sent: Vec<(Flow, Vec<u8>)>,
    /// The requests among it that went to a server.
    requests: Vec<(Flow, Vec<u8>)>,
    message: Message,
    /// Transactions that were opened, in all.
    opened: u32,
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    pub fn new() -> Self {
        let keys = Arc::new(Keys::new(
            &Secret::from_bytes(*b"0123456789abcdefghijklmnopqrstuv").unwrap(),
        ));
        let mut registry = ServerRegistry::new();
        let plans: Vec<Plan> = configs()
            .iter()
            .map(|text| {
                let config = Config::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
                Plan::build(&config, &mut registry, &keys).unwrap()
            })
            .collect();
        let forwarder = Forwarder::new(
            WorkerIndex(0),
            1,
            Arc::new(Pins::new(1024)),
            Arc::new(WorkerMetrics::new()),
        );
        let now = Instant::ZERO + Duration::from_secs(1000);
        let board = Arc::new(Board::new());
        let slots = u16::try_from(registry.len()).unwrap();
        Self {
            plans,
            plan: 0,
            proxy: Proxy::new(forwarder, ROOM, Arc::clone(&board), now),
            board,
            slots,
            now,
            memory: vec![0; 16 * 1024],
            sent: Vec::new(),
            requests: Vec::new(),
            message: Message::new(),
            opened: 0,
        }
    }

    /// Transactions that sequences have opened so far, at least.
    #[allow(dead_code, reason = "the fuzz target does not ask")]
    pub fn opened(&self) -> u32 {
        self.opened
    }

    /// Plays a sequence to its end and then waits. The proxy is as good as new afterwards.
    pub fn play(&mut self, bytes: &[u8]) {
        let mut tape = Tape(bytes);
        while !tape.0.is_empty() {
            match tape.next() % 16 {
                0..=4 => self.client_sends(&mut tape),
                5..=9 => self.server_answers(&mut tape),
                10..=12 => self.pass(Duration::from_millis(tape.choose(&WAITS))),
                13 => self.unreachable(&mut tape),
                14 => self.plan = usize::from(tape.next()) % self.plans.len(),
                _ => self.noise(&mut tape),
            }
            assert!(self.proxy.open_transactions() <= ROOM.transactions);
            assert!(self.proxy.kept_bytes() <= ROOM.message_bytes);
            assert!(self.proxy.armed_timers() <= ROOM.transactions);
        }
        self.requests.clear();
        self.pass(QUIET);
        assert_eq!(self.proxy.open_transactions(), 0, "a transaction is left");
        assert_eq!(self.proxy.kept_bytes(), 0, "a stored message is left");
        assert_eq!(self.proxy.armed_timers(), 0, "a timer is left");
        for server in (0..self.slots).map(ServerIndex) {
            let load = self.board.load(server);
            assert_eq!(load.open(), 0, "{server:?} is charged for a transaction");
        }
    }

    /// One of a few calls: the same bytes again are a retransmission.
    fn client_sends(&mut self, tape: &mut Tape<'_>) {
        let method = tape.choose(&METHODS);
        let call = tape.next();
        let peer = CLIENTS[usize::from(call >> 6) % CLIENTS.len()];
        let (number, form) = (call % 4, (call >> 2) % 16);
        // RFC 3261 §17.2.3: without the magic cookie the client is of RFC 2543.
        let cookie = if form & 1 == 0 { "z9hG4bK" } else { "" };
        let tag = if form & 2 == 0 { "" } else { ";tag=uas" };
        let cseq = 1 + u32::from(form & 4 != 0);
        let hops = if form & 8 == 0 { 70 } else { 0 };
        let text = format!(
            "{method} sip:bob@198.18.0.1 SIP/2.0\r\n\
             Via: SIP/2.0/UDP {peer};branch={cookie}b{number}{cseq};rport\r\n\
             Max-Forwards: {hops}\r\n\
             From: <sip:alice@a.example>;tag=a{number}\r\n\
             To: <sip:bob@b.example>{tag}\r\n\
             Call-ID: call{number}\r\n\
             CSeq: {cseq} {method}\r\n\
             Contact: <sip:alice@{peer}>\r\n\
             Content-Length: 0\r\n\r\n"
        );
        self.receive(peer.parse().unwrap(), text.as_bytes());
    }

    /// A response to one of the requests that servers hold, sometimes damaged.
    fn server_answers(&mut self, tape: &mut Tape<'_>) {
        if self.requests.is_empty() {
            return;
        }
        // Zero is the newest.
        let which = usize::from(tape.next()) % self.requests.len();
        let which = self.requests.len() - 1 - which;
        let status = tape.choose(&STATUSES);
        let form = tape.next();
        let (flow, request) = self.requests[which].clone();
        let mut bytes = response(&request, status, form % 3);
        // Now and then a byte is another, a sender a stranger.
        if form >= 0xf0 {
            let at = usize::from(tape.next()) * 7 % bytes.len();
            bytes[at] ^= 1 << (form & 7);
        }
        let from = if form & 0xf0 == 0xe0 {
            CLIENTS[0].parse().unwrap()
        } else {
            flow.peer
        };
        self.receive(from, &bytes);
    }

    fn unreachable(&mut self, tape: &mut Tape<'_>) {
        if self.requests.is_empty() {
            return;
        }
        // Zero is the newest.
        let which = usize::from(tape.next()) % self.requests.len();
        let which = self.requests.len() - 1 - which;
        let (flow, request) = self.requests[which].clone();
        let cut = request.len() * (usize::from(tape.next()) + 1) / 256;
        let plan = &self.plans[self.plan];
        let (now, sent) = (self.now, &mut self.sent);
        self.proxy
            .on_unreachable(plan, &request[..cut], &flow, 0, now, sent);
        self.look();
    }

    /// Bytes as they are, from somebody.
    fn noise(&mut self, tape: &mut Tape<'_>) {
        let from = tape.choose(&CLIENTS).parse().unwrap();
        let len = usize::from(tape.next());
        let bytes = tape.take(len);
        self.receive(from, bytes);
    }

    fn receive(&mut self, from: SocketAddr, bytes: &[u8]) {
        let malformed = self.message.parse(bytes).is_err();
        self.memory[START..START + bytes.len()].copy_from_slice(bytes);
        let mut buffer = Buffer::new(&mut self.memory, START, START + bytes.len());
        let plan = &self.plans[self.plan];
        let listener = &plan.listeners()[0];
        let mut flow = Flow {
            listener: listener.index,
            local: listener.address,
            peer: from,
        };
        let before = self.proxy.open_transactions();
        let verdict = self
            .proxy
            .on_message(plan, &mut buffer, &mut flow, self.now, &mut self.sent);
        self.opened += self.proxy.open_transactions().saturating_sub(before);
        match verdict {
            Verdict::Transmit => self.sent.push((flow, buffer.payload().to_vec())),
            Verdict::Drop(_) | Verdict::Absorb => {}
            Verdict::HandOver(_) => panic!("there is one worker"),
        }
        self.look_after(malformed);
    }

    /// Runs the timers as a worker does: at each deadline that the proxy names.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        // 100 ms between looks at the plan, and every timer beside them.
        for _ in 0..100_000 {
            let plan = &self.plans[self.plan];
            let next = self.proxy.on_timer(plan, self.now, &mut self.sent);
            self.look();
            match next.filter(|next| *next <= end) {
                Some(next) => self.now = next.max(self.now + Duration::from_millis(1)),
                None => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the timers do not come to rest");
    }

    /// What was sent since the last look: each a SIP message to somebody else.
    fn look(&mut self) {
        self.look_after(false);
    }

    /// The same, after something that was `malformed` or not.
    fn look_after(&mut self, malformed: bool) {
        for (flow, bytes) in self.sent.drain(..) {
            let plan = &self.plans[self.plan];
            assert!(plan.listener_at(flow.peer).is_none(), "sent to ourselves");
            assert_ne!(flow.peer.port(), 0);
            let parsed = self.message.parse(&bytes);
            let text = String::from_utf8_lossy(&bytes);
            // The answer to what is no message has no more rows than that had.
            let answers = malformed && bytes.starts_with(b"SIP/2.0 ");
            assert!(parsed.is_ok() || answers, "not a message:\n{text}");
            assert_ne!(self.message.kind(), Kind::Unknown, "{text}");
            let farm = flow.peer.ip().to_string().starts_with("198.18.1.1");
            if farm && self.message.kind() == Kind::Request {
                self.requests.push((flow, bytes));
            }
        }
        let old = self.requests.len().saturating_sub(32);
        self.requests.drain(..old);
    }
}

/// A server's response: Via, From, To, Call-ID, CSeq and Record-Route of the request.
fn response(request: &[u8], status: u16, tag: u8) -> Vec<u8> {
    let request = String::from_utf8_lossy(request);
    let mut text = format!("SIP/2.0 {status} Reason\r\n");
    for row in request.lines().skip(1).take_while(|row| !row.is_empty()) {
        let name = row.split(':').next().unwrap_or("");
        if ["Via", "From", "To", "Call-ID", "CSeq", "Record-Route"].contains(&name) {
            text += row;
            if name == "To" && status > 100 && !row.contains(";tag=") {
                text += &format!(";tag=uas{tag}");
            }
            text += "\r\n";
        }
    }
    if tag == 2 {
        text += "Retry-After: 5\r\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\n";
    }
    text += "Content-Length: 0\r\n\r\n";
    text.into_bytes()
}
