//! What holds for every datagram; the properties and the fuzz target check it alike.

#![allow(unreachable_pub, reason = "shared by a test binary and a fuzz target")]

use viaduct::limits::{DATAGRAM_LEN_MAX, GROWTH_MAX};
use viaduct::sip::{Kind, Message};

use crate::fixture::*;

/// A lab of each shape.
pub struct Invariants {
    labs: Vec<Lab>,
    message: Message,
}

impl Invariants {
    pub fn new() -> Self {
        let reach = |mode: &str| {
            TWO_ARMED.replace(
                "name = \"farm\"",
                &format!("name = \"farm\"\nreach = \"{mode}\""),
            )
        };
        let table = "[[listeners]]";
        let configs = [
            ONE_ARMED.to_owned(),
            TWO_ARMED.to_owned(),
            reach("route"),
            reach("request-uri"),
            FAMILIES.to_owned(),
            IPV6.to_owned(),
            ONE_ARMED.replacen(table, &format!("{table}\nnat = \"force-rport\""), 1),
            TWO_ARMED.replacen(table, &format!("{table}\npath = \"auto\""), 1),
        ];
        Self {
            labs: configs
                .iter()
                .map(|config| Lab::with_workers(config, 2))
                .collect(),
            message: Message::new(),
        }
    }

    /// Sends `bytes` from somewhere to somewhere, twice, and looks at what comes out.
    pub fn check(&mut self, sender: u8, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(DATAGRAM_LEN_MAX - GROWTH_MAX)];
        let count = self.labs.len();
        let lab = &mut self.labs[usize::from(sender) % count];
        let sender = usize::from(sender) / count;
        let listener = &lab.plan.listeners()[sender % lab.plan.listeners().len()];
        let to = listener.address;
        let ip = if to.is_ipv4() {
            ["198.18.200.7", "198.18.1.11", "198.18.100.1", "10.0.0.1"][sender / 2 % 4]
        } else {
            [
                "2001:db8:c::7",
                "2001:db8:1::11",
                "2001:db8:1::12",
                "fd00::1",
            ][sender / 2 % 4]
        };
        let from = std::net::SocketAddr::new(ip.parse().unwrap(), 5060);

        let first = lab.deliver_at(0, bytes, from, to);
        let again = lab.deliver_at(1, bytes, from, to);
        // RFC 3261 §16.11: the same transformation every time, on any worker.
        assert_eq!(first, again);
        let Outcome::Sent(sent) = first else {
            return;
        };
        assert!(!sent.to.ip().is_multicast() && !sent.to.ip().is_unspecified());
        assert_ne!(sent.to.port(), 0);
        assert!(lab.plan.listener_at(sent.to).is_none(), "sent to ourselves");
        assert!(
            lab.plan
                .listeners()
                .iter()
                .any(|listener| listener.address == sent.from)
        );

        assert!(self.message.parse(bytes).is_ok() || is_answer(&sent.bytes, bytes));
        let received_kind = self.message.kind();
        match self.message.parse(&sent.bytes) {
            Ok(()) => {}
            // An answer to a malformed request lacks what the request lacks.
            Err(_) => assert!(is_answer(&sent.bytes, bytes)),
        }
        match (received_kind, self.message.kind()) {
            (Kind::Request, Kind::Request) => {
                assert!(sent.bytes.len() <= bytes.len() + GROWTH_MAX);
            }
            (Kind::Request, Kind::Response) => {
                // No means of amplification, and back to where it came from.
                assert!(sent.bytes.len() <= bytes.len());
                assert_eq!(sent.to.ip(), from.ip());
            }
            (Kind::Response, Kind::Response) => assert!(sent.bytes.len() < bytes.len()),
            other => panic!("{other:?}"),
        }
    }
}

/// Whether `sent` is an answer of ours to `bytes`.
fn is_answer(sent: &[u8], bytes: &[u8]) -> bool {
    sent.starts_with(b"SIP/2.0 ") && !bytes.starts_with(b"SIP/2.0 ")
}
