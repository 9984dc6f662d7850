//! Probes: OPTIONS to every server of a pool that has a `health` table (RFC 3261 §11), through the
//! data path and with a `Via` of ours, so that they take the way of calls.
//!
//! The worker with number `slot % workers` probes a server; the answer may arrive at any worker and is
//! written to the [`Board`], where the monitor finds it. A probe is not a transaction: it is sent
//! once, and the next one is its retransmission. Serial, server and listener are in our `Via` under
//! its MAC, so nothing is kept to know an answer by.
//!
//! ```text
//! OPTIONS sip:198.18.1.11:5060 SIP/2.0
//! Via: SIP/2.0/UDP 198.18.0.1:5060;branch=z9hG4bKt0…;v=…
//! Max-Forwards: 70
//! From: <sip:viaduct@198.18.0.1:5060>;tag=…
//! To: <sip:198.18.1.11:5060>
//! Call-ID: …
//! CSeq: 17 OPTIONS
//! Content-Length: 0
//! ```

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use super::Outbox;
use crate::affinity::{
    Branch, BranchInput, CallIdHash, MAGIC_COOKIE, Mode, NodeId, SentBy, VIA_PARAMETER_NAME,
    VIA_PROBE, ViaParameter,
};
use crate::balance::Board;
use crate::config::{self, Side};
use crate::limits::{PROBE_LEN_MAX, PROBE_PAUSE_MAX, PROBES_PER_TURN, SERVERS_MAX};
use crate::net::{Endpoint, Flow, ListenerIndex, Protocol, ServerIndex, SocketAddr, WorkerIndex};
use crate::packet::{Text, Writer};
use crate::route::{Health, Listener, OperatorState, Plan, Server, ServerState};
use crate::sip::{Message, Method};
use crate::time::Instant;

/// How often a worker looks whether there is something new to probe.
const LOOK: Duration = Duration::from_secs(1);

/// From one full turn of probes to the next.
const TURN: Duration = Duration::from_millis(1);

/// What stands in the MAC where a forwarded request has its response's next hop: nobody is there.
const NOWHERE: Endpoint = Endpoint {
    address: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    protocol: Protocol::Udp,
};

/// When a server is next looked at, and how often in a row it has not answered.
#[derive(Clone, Copy, Debug, Default)]
struct Next {
    /// [`Instant::ZERO`] = it is not probed.
    at: Instant,
    unanswered: u32,
}

/// The probes of one worker.
#[derive(Debug)]
pub struct Probes {
    worker: u8,
    workers: u8,
    /// By slot divided by the number of workers.
    next: Box<[Next]>,
    /// Before then there is nothing to do.
    deadline: Instant,
    is_probing: bool,
}

impl Probes {
    /// The probes of `worker`, of so many. All memory is taken here.
    pub fn new(worker: WorkerIndex, workers: u8) -> Self {
        let workers = workers.max(1);
        Self {
            worker: worker.0,
            workers,
            next: vec![Next::default(); SERVERS_MAX.div_ceil(workers.into())].into(),
            deadline: Instant::ZERO,
            is_probing: false,
        }
    }

    /// When something is due next; `None` while there is no server to probe.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.is_probing.then_some(self.deadline)
    }

    /// Sends the probes that are due; returns when to call again, `None` if not before the plan
    /// changes. A call before its time costs nothing.
    ///
    /// A new server's first probe comes at a time of its own within the interval, so that they do
    /// not leave in a burst.
    pub fn on_timer(
        &mut self,
        plan: &Plan,
        board: &Board,
        now: Instant,
        out: &mut dyn Outbox,
    ) -> Option<Instant> {
        if now < self.deadline {
            return self.next_deadline();
        }
        self.deadline = now + LOOK;
        self.is_probing = false;
        let mut sent = 0;
        let own = (usize::from(self.worker)..).step_by(self.workers.into());
        let slots = own.map_while(|slot| plan.servers().get(slot));
        for (server, next) in slots.zip(&mut self.next) {
            let Some(settings) = settings(plan, server) else {
                *next = Next::default();
                continue;
            };
            self.is_probing = true;
            if next.at == Instant::ZERO {
                next.at = now + phase(server, settings.interval);
            }
            if next.at <= now {
                if sent == PROBES_PER_TURN {
                    self.deadline = now + TURN;
                    continue;
                }
                if next.look(server, settings, board, now) {
                    sent += 1;
                    send(plan, server, settings, board, now, out);
                    next.at = now + settings.interval.min(settings.timeout);
                }
            }
            self.deadline = self.deadline.min(next.at.max(now + TURN));
        }
        self.next_deadline()
    }
}

impl Next {
    /// Whether the next probe is due; else `at` says when.
    ///
    /// A server that answers is asked once in an interval. As soon as its state is in doubt, the next
    /// probe leaves when the last one has had its time: so a dead server is known to be dead after
    /// one interval and `fall` timeouts, and one that answers again is back after `rise`. A server
    /// that stays down is asked more and more rarely.
    fn look(
        &mut self,
        server: &Server,
        settings: &config::Health,
        board: &Board,
        now: Instant,
    ) -> bool {
        let probe = board.probe(server.index);
        if probe.sent == 0 {
            return true;
        }
        let answered = probe.answered == probe.sent && settings.codes.accepts(probe.status);
        let quick = settings.interval.min(settings.timeout);
        let (pause, unanswered) = match (server.health, answered) {
            (Health::Active, true) => (settings.interval, 0),
            (Health::Probing, true) | (Health::Active, false) => (quick, 0),
            // Its first answer: whether it is Probing now, the monitor says in a moment.
            (Health::Down, true) => (quick, 0),
            (Health::Probing | Health::Down, false) => {
                let doubled = self.unanswered.saturating_sub(settings.fall).min(16);
                let longest = PROBE_PAUSE_MAX.max(settings.interval);
                let pause = settings.interval.saturating_mul(1 << doubled).min(longest);
                (pause, self.unanswered.saturating_add(1))
            }
        };
        let due = probe.sent_at + pause;
        if due <= now {
            self.unanswered = unanswered;
        } else {
            self.at = due;
        }
        due <= now
    }
}

/// The settings of a server that is to be probed.
fn settings<'p>(plan: &'p Plan, server: &Server) -> Option<&'p config::Health> {
    if server.state == ServerState::Retired || server.operator == OperatorState::Disabled {
        return None;
    }
    let health = plan.pool(server.pool?)?.health.as_deref()?;
    (!health.interval.is_zero()).then_some(health)
}

/// A time within the interval that is the server's own: its id is a hash.
fn phase(server: &Server, interval: Duration) -> Duration {
    let share = f64::from(server.id.0) / f64::from(u32::MAX);
    interval.mul_f64(share)
}

/// Sends the next probe of a server.
fn send(
    plan: &Plan,
    server: &Server,
    settings: &config::Health,
    board: &Board,
    now: Instant,
    out: &mut dyn Outbox,
) {
    let Some(egress) = plan.egress(ListenerIndex(0), Side::Farm, server.address) else {
        return;
    };
    // RFC 3261 §8.1.1.5: CSeq is below 2³¹; after 68 years of a probe a second it begins anew.
    let serial = board.probe(server.index).sent % (u32::MAX / 2) + 1;
    // Where nodes share an address, the answer must come home to this one.
    let home = egress.node_listener.and_then(|index| plan.listener(index));
    let probe = Probe {
        plan,
        server,
        via: home.unwrap_or(egress),
        serial,
    };
    let mut text = [0; PROBE_LEN_MAX];
    let Some(message) = probe
        .compose(settings, &mut text)
        .and_then(|len| text.get(..len))
    else {
        return;
    };
    // First, so that an answer cannot come before its probe.
    board.probe_sent(server.index, serial, now);
    let flow = Flow {
        listener: egress.index,
        local: egress.address,
        peer: server.address,
    };
    out.send(flow, message);
}

/// One probe.
struct Probe<'a> {
    plan: &'a Plan,
    server: &'a Server,
    via: &'a Listener,
    serial: u32,
}

impl Probe<'_> {
    fn compose(&self, settings: &config::Health, text: &mut [u8]) -> Option<usize> {
        let branch = branch(self.plan, self.server, self.serial);
        let parameter = ViaParameter {
            peer: self.server.id,
            listener: self.via.index,
            node: NodeId(self.plan.node.into()),
            flags: VIA_PROBE,
        };
        let parameter = parameter.encode(self.plan.keys(), &branch, NOWHERE);
        // The branch is as good as a random number.
        let random = branch.get(MAGIC_COOKIE.len() + 2..).unwrap_or_default();
        let (tag, call_id) = random.split_at_checked(10)?;
        let own = self.via.host_port().as_bytes();

        let mut out = Writer::new(text);
        out.push(b"OPTIONS sip:");
        push_address(&mut out, self.server.address);
        out.push(b" SIP/2.0\r\n");
        out.push(self.via.via_prefix());
        out.push(&branch);
        out.push(b";");
        out.push(VIA_PARAMETER_NAME);
        out.push(b"=");
        out.push(&parameter);
        out.push(b"\r\nMax-Forwards: ");
        out.push_decimal(settings.max_forwards.into());
        out.push(b"\r\nFrom: <");
        match &settings.from {
            Some(from) => out.push(from.as_bytes()),
            None => {
                out.push(b"sip:viaduct@");
                out.push(own);
            }
        }
        out.push(b">;tag=");
        out.push(tag);
        out.push(b"\r\nTo: <sip:");
        push_address(&mut out, self.server.address);
        out.push(b">\r\nCall-ID: ");
        out.push(call_id);
        out.push(b"\r\nCSeq: ");
        out.push_decimal(self.serial);
        out.push(b" OPTIONS\r\nContent-Length: 0\r\n\r\n");
        out.finish()
    }
}

/// Host and port as in a URI.
fn push_address(out: &mut Writer<'_>, address: SocketAddr) {
    if address.is_ipv6() {
        out.push(b"[");
        out.push_ip(address.ip());
        out.push(b"]:");
    } else {
        out.push_ip(address.ip());
        out.push(b":");
    }
    out.push_decimal(address.port().into());
}

/// The branch of a server's probe with a serial: nobody else can make it.
fn branch(plan: &Plan, server: &Server, serial: u32) -> Branch {
    let input = BranchInput {
        branch: b"z9hG4bK-probe",
        sent_by: SentBy::Name(b"probe"),
        port: Some(plan.node.into()),
        call_id: CallIdHash(server.id.0.into()),
        cseq: serial,
        via: b"",
        from_tag: b"",
        request_uri: b"",
    };
    plan.keys().branch(Mode::Stateful, 0, &input)
}

/// Takes the answer to a probe: writes it to the board and tells the server that it came from. `None`
/// if the response is none.
///
/// `message` must have been parsed from `bytes`, which came along `flow`.
pub fn on_response(
    plan: &Plan,
    board: &Board,
    message: &Message,
    bytes: &[u8],
    flow: &Flow,
    now: Instant,
) -> Option<ServerIndex> {
    let (server, serial) = probe_of(plan, message, bytes, flow)?;
    // RFC 3261 §17.1.3: a provisional answer is one, but says nothing yet.
    if message.status() >= 200 {
        board.probe_answered(server, serial, message.status(), now);
    }
    Some(server)
}

/// Takes note of a probe that an ICMP error reports as undeliverable: `message` is what could be
/// parsed of the quote. `None` if it quotes no probe.
pub fn on_unreachable(
    plan: &Plan,
    board: &Board,
    message: &Message,
    quoted: &[u8],
    flow: &Flow,
    now: Instant,
) -> Option<ServerIndex> {
    let (server, serial) = probe_of(plan, message, quoted, flow)?;
    board.probe_answered(server, serial, 0, now);
    Some(server)
}

/// Which probe a message is, or is the answer to: server and serial, if the `Via` is ours alone, its
/// MAC and branch hold, and the other end is the server.
fn probe_of(
    plan: &Plan,
    message: &Message,
    bytes: &[u8],
    flow: &Flow,
) -> Option<(ServerIndex, u32)> {
    let cseq = message.cseq()?;
    if cseq.method != Method::Options || !matches!(message.next_via(bytes), Ok(None)) {
        return None;
    }
    let via = message.top_via()?;
    let claimed = Branch::parse(via.branch?.of(bytes))?;
    let parameter = via.param(bytes, VIA_PARAMETER_NAME)?.of(bytes);
    let parameter = ViaParameter::decode(plan.keys(), parameter, &claimed, NOWHERE).ok()?;
    if parameter.flags & VIA_PROBE == 0 {
        return None;
    }
    let server = plan
        .server_by_id(parameter.peer)
        .filter(|server| server.sends_from(flow.peer.ip()))?;
    (claimed == branch(plan, server, cseq.number)).then_some((server.index, cseq.number))
}

#[cfg(test)]
mod tests;
