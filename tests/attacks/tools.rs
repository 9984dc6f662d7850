//! What the attacks share: tokens that the attacker holds, and numbers without end.

use viaduct::affinity::{Binding, Pair, RouteToken};
use viaduct::net::{Endpoint, ListenerIndex, Protocol, ServerId};

use crate::fixture::*;

pub(crate) const STRANGER: &str = "203.0.113.66:5060";
pub(crate) const TRUSTED: &str = "198.18.100.9:5060";
/// The host that nobody may be led to.
pub(crate) const VICTIM: &str = "203.0.113.99";

/// A client behind a NAT: its own address, and the one that it is seen at.
pub(crate) const INSIDE: &str = "192.168.1.5:5060";
pub(crate) const FLOW: &str = "203.0.113.50:31337";

/// A call of the client behind a NAT, as everybody on its way sees it.
pub(crate) struct NatCall {
    pub(crate) invite: Sent,
    pub(crate) record_route: Vec<String>,
}

impl NatCall {
    #[track_caller]
    pub(crate) fn set_up(lab: &mut Lab, id: &str) -> Self {
        let bytes = replaced(&invite(id, "z9hG4bK1;rport"), "198.18.200.7:5060", INSIDE);
        let invite = lab.send(&bytes, FLOW).sent();
        let back = lab.reply(response(&invite, 200, "b1"), &invite).sent();
        assert_eq!(back.to, FLOW.parse().unwrap());
        Self {
            invite,
            record_route: rows(&back.bytes, "Record-Route"),
        }
    }

    /// Route rows of either end; the order does not matter to who removes all of them.
    pub(crate) fn routes(&self) -> String {
        self.record_route
            .iter()
            .map(|value| format!("Route: {value}\r\n"))
            .collect()
    }

    /// The user part of the first value.
    pub(crate) fn token(&self) -> String {
        user(&self.record_route[0])
    }
}

/// The user part of `<sip:user@host;lr>`.
#[track_caller]
pub(crate) fn user(value: &str) -> String {
    let (_, rest) = value.split_once("sip:").unwrap();
    rest.split_once('@').unwrap().0.to_owned()
}

/// A request with Route rows, from whomever.
pub(crate) fn routed(method: &str, uri: &str, call_id: &str, routes: &str) -> Vec<u8> {
    let bytes = request(method, uri, call_id, "z9hG4bKattack", 2);
    let bytes = replaced(&bytes, "198.18.200.7:5060;branch", "h.example;rport;branch");
    replaced(&bytes, "Max-Forwards", &format!("{routes}Max-Forwards"))
}

/// A token that an insider could have been given: any server, any flow, this Call-ID.
pub(crate) fn sealed(lab: &Lab, server: ServerId, flow: Option<&str>, call_id: &str) -> String {
    let token = RouteToken {
        server,
        flow: flow.map(|flow| Endpoint {
            address: flow.parse().unwrap(),
            protocol: Protocol::Udp,
        }),
        listener: ListenerIndex(0),
        nat: flow.is_some(),
        callee: false,
        pair: Pair::Single,
        initiator: lab.keys.tag_hash(b"a1"),
    };
    let hash = lab.keys.call_id_hash(call_id.as_bytes());
    text(&token.seal(&lab.keys, Binding::Dialog(hash)))
}

/// Whether this went to a server of the farm.
pub(crate) fn is_server(sent: &Sent) -> bool {
    SERVERS.contains(&sent.to.to_string().as_str())
}

/// The status of an answer of ours, which goes to who asked.
#[track_caller]
pub(crate) fn status(outcome: Outcome, asked_from: &str) -> u16 {
    let sent = outcome.sent();
    let asked_from: std::net::SocketAddr = asked_from.parse().unwrap();
    assert_eq!(sent.to.ip(), asked_from.ip(), "{}", text(&sent.bytes));
    let line = start_line(&sent.bytes);
    let status = line.strip_prefix("SIP/2.0 ").expect(&line);
    status[..3].parse().unwrap()
}

/// A sequence of numbers that looks random and is the same in every run (splitmix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}
