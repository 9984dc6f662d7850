//! The work whose instructions are counted: `scripts/instructions` runs this under callgrind.
//!
//! `instructions CASE` does the work of CASE many times. Only what happens inside [`measured`] is
//! counted, so that inputs can be made between. Each case asserts its result before it is counted.
//! Without a case it does each once, so that `cargo bench` finds nothing broken.
//!
//! | case | work |
//! |---|---|
//! | `parse` | the index of a 507-byte INVITE |
//! | `request` | a new call's INVITE of 507 bytes, stateless: parse, decide, pin, edit; Record-Route on |
//! | `repeat` | the same INVITE again: its pin is there |
//! | `in-dialog` | a BYE that its route token leads |
//! | `response` | a 180 that the MAC in its recorded `Via` leads |
//! | `call` | a call of seven messages with a transaction for its INVITE, timers included |
//! | `wire` | 507 bytes: headers and checksum verified, and written anew |

#![allow(clippy::unwrap_used, reason = "a bench that cannot set up fails")]

#[path = "../tests/rfc3261_16/fixture.rs"]
mod fixture;

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fixture::*;
use viaduct::balance::Board;
use viaduct::net::{Flow, ListenerIndex};
use viaduct::packet::{self, Buffer, LinkHeader, MacAddress, PartialChecksum};
use viaduct::proxy::{Outbox, Proxy, Room};
use viaduct::sip::Message;
use viaduct::time::Instant;
use viaduct::verdict::Verdict;

/// How often a case is done; `scripts/instructions` divides by it.
const ROUNDS: usize = 500;

/// Rounds before counting: first use of memory, the first pins of a bucket.
const WARM_UP: usize = 20;

/// Where received payloads start in a frame: our headroom, the kernel's, and the headers.
const START: usize = 512 + 256 + 42;

/// What is counted, by name: does its work as often as it is told.
type Case = (&'static str, fn(usize));

const CASES: [Case; 7] = [
    ("parse", parse),
    ("request", request_of_a_new_call),
    ("repeat", request_again),
    ("in-dialog", request_in_dialog),
    ("response", response_of_a_server),
    ("call", stateful_call),
    ("wire", wire),
];

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    for (name, case) in CASES {
        match wanted.first() {
            None => case(1),
            Some(wanted) if wanted == name => case(ROUNDS),
            Some(_) => {}
        }
    }
}

/// What callgrind counts. It must have a name of its own in the binary.
#[inline(never)]
fn measured<R>(work: impl FnOnce() -> R) -> R {
    black_box(work())
}

/// The warm-up, uncounted, and then `rounds` rounds; `round` counts what it has to with
/// [`measured`], or not at all if its second argument says so.
fn rounds(rounds: usize, mut round: impl FnMut(usize, bool)) {
    (0..WARM_UP).for_each(|number| round(number, false));
    (WARM_UP..WARM_UP + rounds).for_each(|number| round(number, true));
}

/// A proxy of one worker over the lab's farm, and the frame it works in.
struct Bench {
    lab: Lab,
    proxy: Proxy,
    frame: Vec<u8>,
    ring: Ring,
}

/// Takes what is sent beside the message, as a TX ring would.
struct Ring(Vec<u8>);

impl Outbox for Ring {
    fn send(&mut self, _flow: Flow, payload: &[u8]) {
        self.0[..payload.len()].copy_from_slice(payload);
    }
}

impl Bench {
    fn new(stateful: bool) -> Self {
        let methods = if stateful { "\"INVITE\"" } else { "" };
        let config = ONE_ARMED.replacen(
            "[[listeners]]",
            &format!("[[listeners]]\nstateful = [{methods}]"),
            1,
        );
        let mut lab = Lab::with_pins(&config, 1, 1 << 14);
        let room = Room {
            transactions: if stateful { 1 << 12 } else { 0 },
            message_bytes: 4 << 20,
            rescue: false,
        };
        let board = Arc::new(Board::new());
        let proxy = Proxy::new(lab.forwarders.remove(0), room, board, lab.now);
        Self {
            lab,
            proxy,
            frame: vec![0; 4096],
            ring: Ring(vec![0; 4096]),
        }
    }

    /// Decides about a message; counted or not. The result is in the frame.
    fn decide(&mut self, bytes: &[u8], from: SocketAddr, count: bool) -> Sent {
        let end = START + bytes.len();
        self.frame[START..end].copy_from_slice(bytes);
        let Self {
            lab,
            proxy,
            frame,
            ring,
        } = self;
        let mut flow = Flow {
            listener: ListenerIndex(0),
            local: lab.plan.listeners()[0].address,
            peer: from,
        };
        let mut buffer = Buffer::new(frame, START, end);
        let (plan, now) = (&lab.plan, lab.now);
        let mut work = || proxy.on_message(plan, &mut buffer, &mut flow, now, ring);
        let verdict = if count { measured(work) } else { work() };
        assert_eq!(verdict, Verdict::Transmit);
        Sent {
            from: flow.local,
            to: flow.peer,
            bytes: buffer.payload().to_vec(),
        }
    }
}

/// 507 bytes, as the steering and flooding benches use them, number `number` of its kind.
fn invite_507(number: usize) -> Vec<u8> {
    let bytes = data("messages/invite-507.sip");
    let bytes = replaced(&bytes, "z9hG4bK-74bf9-1-0", &format!("z9hG4bK-{number:09}"));
    let call_id = format!("1-384827{number:08}0851@");
    let bytes = replaced(&bytes, "1-384827629822018851@", &call_id);
    assert_eq!(bytes.len(), 507);
    bytes
}

fn sipp() -> SocketAddr {
    "198.18.0.10:5061".parse().unwrap()
}

fn client() -> SocketAddr {
    CLIENT.parse().unwrap()
}

fn parse(count: usize) {
    let mut message = Message::new();
    rounds(count, |number, count| {
        let bytes = black_box(invite_507(number));
        let mut work = || message.parse(&bytes);
        let result = if count { measured(work) } else { work() };
        assert_eq!(result, Ok(()));
    });
}

fn request_of_a_new_call(count: usize) {
    let mut bench = Bench::new(false);
    rounds(count, |number, count| {
        let sent = bench.decide(&invite_507(number), sipp(), count);
        assert_eq!(rows(&sent.bytes, "Record-Route").len(), 1);
        assert_eq!(bench.lab.pins.usage(bench.lab.now).unanswered, number + 1);
    });
}

fn request_again(count: usize) {
    let mut bench = Bench::new(false);
    let invite = invite_507(0);
    let first = bench.decide(&invite, sipp(), false);
    rounds(count, |_, count| {
        assert_eq!(bench.decide(&invite, sipp(), count), first);
    });
}

fn request_in_dialog(count: usize) {
    let mut bench = Bench::new(false);
    let dialog = Dialog::set_up(&mut Lab::new(ONE_ARMED), "counted");
    rounds(count, |number, count| {
        let bye = dialog.by_client("BYE", 2, &format!("z9hG4bK{number:08}"));
        let sent = bench.decide(&bye, client(), count);
        assert_eq!(sent.to, dialog.server);
    });
}

fn response_of_a_server(count: usize) {
    let mut bench = Bench::new(false);
    rounds(count, |number, count| {
        let sent = bench.decide(&invite_507(number), sipp(), false);
        let ringing = response(&sent, 180, "b1");
        let back = bench.decide(&ringing, sent.to, count);
        assert_eq!(back.to, sipp());
    });
}

/// INVITE, 100, 180, 200, ACK, BYE, 200.
fn stateful_call(count: usize) {
    let mut bench = Bench::new(true);
    rounds(count, |number, count| {
        let call_id = format!("call-{number:08}");
        let branch = |method: &str| format!("z9hG4bK-{method}-{number:08}");
        let invite = invite(&call_id, &branch("i"));
        let sent = bench.decide(&invite, client(), count);
        let mut back = None;
        for status in [100, 180, 200] {
            let response = response(&sent, status, "b1");
            // RFC 3261 §16.7 step 5: a 100 goes no further.
            back = match status {
                100 => bench.absorb(&response, sent.to, count),
                _ => Some(bench.decide(&response, sent.to, count)),
            };
        }
        let dialog = Dialog {
            server: sent.to,
            server_side: sent.from,
            record_route: rows(&back.unwrap().bytes, "Record-Route"),
            call_id,
        };
        let ack = dialog.by_client("ACK", 1, &branch("a"));
        assert_eq!(bench.decide(&ack, client(), count).to, dialog.server);
        let bye = dialog.by_client("BYE", 2, &branch("b"));
        let bye = bench.decide(&bye, client(), count);
        let back = bench.decide(&response(&bye, 200, "b1"), bye.to, count);
        assert_eq!(back.to, client());
        bench.tick(count);
    });
}

impl Bench {
    /// A message that a transaction keeps for itself.
    fn absorb(&mut self, bytes: &[u8], from: SocketAddr, count: bool) -> Option<Sent> {
        let end = START + bytes.len();
        self.frame[START..end].copy_from_slice(bytes);
        let Self {
            lab,
            proxy,
            frame,
            ring,
        } = self;
        let mut flow = Flow {
            listener: ListenerIndex(0),
            local: lab.plan.listeners()[0].address,
            peer: from,
        };
        let mut buffer = Buffer::new(frame, START, end);
        let (plan, now) = (&lab.plan, lab.now);
        let mut work = || proxy.on_message(plan, &mut buffer, &mut flow, now, ring);
        let verdict = if count { measured(work) } else { work() };
        assert_eq!(verdict, Verdict::Absorb);
        None
    }

    /// A tenth of a second later: transactions end after some hundred rounds.
    fn tick(&mut self, count: bool) {
        self.lab.now += Duration::from_millis(100);
        let Self {
            lab, proxy, ring, ..
        } = self;
        let now: Instant = lab.now;
        let mut work = || proxy.on_timer(&lab.plan, now, ring);
        let _next = if count { measured(work) } else { work() };
    }
}

fn wire(count: usize) {
    let (local, peer) = (VIP.parse().unwrap(), sipp());
    let link = LinkHeader {
        src_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        dst_mac: MacAddress([2, 0, 0, 0, 0, 2]),
        ..LinkHeader::default()
    };
    let mut frame = vec![0; 4096];
    rounds(count, |number, count| {
        let end = START + 507;
        frame[START..end].copy_from_slice(&invite_507(number));
        let start = packet::emit(&mut frame, START..end, &link, peer, local, 64).unwrap();
        let mut work = || {
            let headers = packet::parse(&frame[start..end], PartialChecksum::Reject)?;
            let (src, dst) = (headers.dst, headers.src);
            let payload = start + headers.payload.start..start + headers.payload.end;
            let sent = packet::emit(&mut frame, payload, &link, src, dst, 64);
            assert_eq!(sent, Ok(start));
            Ok::<_, viaduct::verdict::DropReason>(())
        };
        let result = if count { measured(work) } else { work() };
        assert_eq!(result, Ok(()));
    });
}
