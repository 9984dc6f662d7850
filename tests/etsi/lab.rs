//! One proxy, a clock that is set, and everything it sends with the time it was sent at.

use std::sync::Arc;
use std::time::Duration;

use viaduct::affinity::{Keys, Pins, Secret};
use viaduct::balance::Board;
use viaduct::config::Config;
use viaduct::forward::Forwarder;
use viaduct::metrics::WorkerMetrics;
use viaduct::net::{Flow, WorkerIndex};
use viaduct::packet::Buffer;
use viaduct::proxy::{Proxy, Room};
use viaduct::route::{Plan, ServerRegistry};
use viaduct::time::Instant;
use viaduct::verdict::Verdict;

use crate::fixture::{CLIENT, Sent, lines, response, start_line};

/// One server: nobody else is tried, every timer runs to its end.
pub(crate) const LONE: &str = r#"
    [[listeners]]
    name = "clients"
    address = "198.18.0.1:5060"
    aliases = ["sip.lab.example"]
    stateful = ["INVITE"]
    [[pools]]
    name = "farm"
    servers = [{ name = "s1", address = "198.18.1.11:5060" }]
"#;

const START: usize = 1024;

pub(crate) struct Bench {
    pub(crate) plan: Plan,
    proxy: Proxy,
    now: Instant,
    memory: Vec<u8>,
    sent: Vec<(Flow, Vec<u8>)>,
}

impl Bench {
    pub(crate) fn lone() -> Self {
        Self::new(LONE)
    }

    /// Every method has a transaction.
    pub(crate) fn stateful() -> Self {
        let methods = "[\"INVITE\", \"OPTIONS\", \"BYE\", \"MESSAGE\"]";
        Self::new(&LONE.replacen("[\"INVITE\"]", methods, 1))
    }

    #[track_caller]
    pub(crate) fn new(text: &str) -> Self {
        let secret = Secret::from_bytes(*b"0123456789abcdefghijklmnopqrstuv").unwrap();
        let keys = Arc::new(Keys::new(&secret));
        let mut config = Config::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        // The clock stands still between messages.
        config.sip.answers_per_source = None;
        let plan = Plan::build(&config, &mut ServerRegistry::new(), &keys).unwrap();
        let metrics = Arc::new(WorkerMetrics::new());
        let forwarder = Forwarder::new(WorkerIndex(0), 1, Arc::new(Pins::new(1024)), metrics);
        let room = Room {
            transactions: 64,
            message_bytes: 1 << 20,
            rescue: false,
        };
        let now = Instant::ZERO + Duration::from_secs(1000);
        Self {
            plan,
            proxy: Proxy::new(forwarder, room, Arc::new(Board::new()), now),
            now,
            memory: vec![0; 80_000],
            sent: Vec::new(),
        }
    }

    /// A datagram of the client; what is sent for it, in order.
    #[track_caller]
    pub(crate) fn client(&mut self, bytes: impl AsRef<[u8]>) -> Vec<Sent> {
        self.receive(CLIENT, bytes.as_ref())
    }

    /// The receiver of `to` answers it.
    #[track_caller]
    pub(crate) fn answer(&mut self, to: &Sent, status: u16) -> Vec<Sent> {
        self.receive(&to.to.to_string(), &response(to, status, "b1"))
    }

    #[track_caller]
    pub(crate) fn receive(&mut self, from: &str, bytes: &[u8]) -> Vec<Sent> {
        self.memory[START..START + bytes.len()].copy_from_slice(bytes);
        let mut buffer = Buffer::new(&mut self.memory, START, START + bytes.len());
        let listener = &self.plan.listeners()[0];
        let mut flow = Flow {
            listener: listener.index,
            local: listener.address,
            peer: from.parse().unwrap(),
        };
        let verdict =
            self.proxy
                .on_message(&self.plan, &mut buffer, &mut flow, self.now, &mut self.sent);
        match verdict {
            Verdict::Transmit => self.sent.push((flow, buffer.payload().to_vec())),
            Verdict::Drop(_) | Verdict::Absorb => {}
            Verdict::HandOver(_) => panic!("there is one worker"),
        }
        self.sent.drain(..).map(sent).collect()
    }

    /// Time without a message: what is sent, each with the milliseconds since now.
    pub(crate) fn wait(&mut self, millis: u64) -> Vec<(u64, Sent)> {
        let start = self.now;
        let end = start + Duration::from_millis(millis);
        let mut out = Vec::new();
        loop {
            let next = self.proxy.on_timer(&self.plan, self.now, &mut self.sent);
            let at = self.now.since(start);
            let at = u64::try_from(at.as_millis()).unwrap();
            out.extend(self.sent.drain(..).map(|one| (at, sent(one))));
            match next.filter(|next| *next <= end) {
                Some(next) => self.now = next.max(self.now + Duration::from_millis(1)),
                None => {
                    self.now = end;
                    return out;
                }
            }
        }
    }

    pub(crate) fn open_transactions(&self) -> u32 {
        self.proxy.open_transactions()
    }
}

fn sent((flow, bytes): (Flow, Vec<u8>)) -> Sent {
    Sent {
        from: flow.local,
        to: flow.peer,
        bytes,
    }
}

/// What went to whom: "100 client", "INVITE server".
pub(crate) fn names<'a>(sent: impl IntoIterator<Item = &'a Sent>) -> Vec<String> {
    sent.into_iter().map(name).collect()
}

pub(crate) fn name(sent: &Sent) -> String {
    let line = start_line(&sent.bytes);
    let mut words = line.split(' ');
    let first = words.next().unwrap();
    let what = match first {
        "SIP/2.0" => words.next().unwrap(),
        method => method,
    };
    let farm = sent.to.ip().to_string().starts_with("198.18.1.1");
    format!("{what} {}", if farm { "server" } else { "client" })
}

/// The times of what has this name, to a tick of the timers.
pub(crate) fn times(sent: &[(u64, Sent)], wanted: &str) -> Vec<u64> {
    let of = sent.iter().filter(|(_, one)| name(one) == wanted);
    // A timer is late by a few milliseconds, never early: rounded down to tens.
    of.map(|(at, _)| at / 10 * 10).collect()
}

/// The one message with this name.
#[track_caller]
pub(crate) fn only(sent: Vec<Sent>, wanted: &str) -> Sent {
    let all = names(&sent);
    let mut found = sent.into_iter().filter(|one| name(one) == wanted);
    let one = found.next();
    assert!(found.next().is_none(), "{wanted} more than once: {all:?}");
    one.unwrap_or_else(|| panic!("no {wanted}: {all:?}"))
}

/// The rows of a message with this name, as they stand.
pub(crate) fn whole_rows(bytes: &[u8], name: &str) -> Vec<String> {
    lines(bytes)
        .into_iter()
        .filter(|line| {
            line.split_once(':')
                .is_some_and(|(of, _)| of.eq_ignore_ascii_case(name))
        })
        .collect()
}
