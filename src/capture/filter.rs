//! Which messages are captured.
//!
//! The same fields decide about a message and its edited twin: Call-ID and CSeq pass through
//! unchanged, and an address matches both if it is the peer of either.

use core::fmt;
use core::str::FromStr;

use memchr::memmem::Finder;

use crate::net::{IpAddr, Network, SocketAddr, canonical};
use crate::sip::{Kind, Message};

/// Conditions that must all hold; none: everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The Call-ID, searched as bytes first: nearly all others are told apart without parsing.
    call_id: Option<Finder<'static>>,
    /// The method in CSeq: a response has it, too.
    method: Option<Box<[u8]>>,
    peer: Option<Peer>,
}

impl Filter {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Only this Call-ID.
    #[must_use]
    pub fn call_id(self, call_id: &[u8]) -> Self {
        Self {
            call_id: Some(Finder::new(call_id).into_owned()),
            ..self
        }
    }

    /// Only requests of this method and their responses. RFC 3261 §7.1: methods have a case.
    #[must_use]
    pub fn method(self, method: &[u8]) -> Self {
        Self {
            method: Some(method.into()),
            ..self
        }
    }

    /// Only what came from or went to this peer.
    #[must_use]
    pub fn peer(self, peer: Peer) -> Self {
        Self {
            peer: Some(peer),
            ..self
        }
    }

    /// Whether the conditions on the message hold. `message` is working memory.
    pub(super) fn matches_message(&self, payload: &[u8], message: &mut Message) -> bool {
        if let Some(call_id) = &self.call_id
            && call_id.find(payload).is_none()
        {
            return false;
        }
        if self.call_id.is_none() && self.method.is_none() {
            return true;
        }
        // What was read before a fault counts: malformed messages are what one looks for.
        let _fault = message.parse(payload);
        let call_id = || message.call_id().unwrap_or_default().of(payload);
        let method = || match message.cseq() {
            Some(cseq) => cseq.method_span.of(payload),
            None if message.kind() == Kind::Request => message.method_span().of(payload),
            None => &[],
        };
        self.call_id
            .as_ref()
            .is_none_or(|wanted| wanted.needle() == call_id())
            && self
                .method
                .as_ref()
                .is_none_or(|wanted| **wanted == *method())
    }

    /// Whether the condition on the peer holds for a message and what was sent on.
    pub(super) fn matches_peers(&self, from: SocketAddr, to: Option<SocketAddr>) -> bool {
        self.peer
            .is_none_or(|peer| peer.contains(from) || to.is_some_and(|to| peer.contains(to)))
    }
}

/// An address, one port of it, or a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    network: Network,
    port: Option<u16>,
}

impl Peer {
    fn contains(&self, address: SocketAddr) -> bool {
        self.network.contains(address.ip()) && self.port.is_none_or(|port| port == address.port())
    }
}

/// Not an address such as `198.18.0.1`, `198.18.0.1:5060`, `[2001:db8::1]:5060` or a CIDR block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address, an address and port, or a CIDR block")]
pub struct PeerError;

impl FromStr for Peer {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self {
                network: Network::host(address.ip()),
                port: Some(address.port()),
            });
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        let network = match bare {
            Some(text) => Network::host(text.parse::<IpAddr>().map_err(|_| PeerError)?),
            None => text.parse().map_err(|_| PeerError)?,
        };
        Ok(Self {
            network,
            port: None,
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(canonical(self.network.address()), port).fmt(f),
            None => self.network.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
        From: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\ni: 7@h\r\nCSeq: 1 INVITE\r\n\
        Max-Forwards: 70\r\nSubject: 70@h is not it\r\n\r\n";
    const RESPONSE: &[u8] = b"SIP/2.0 180 Ringing\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
        From: <sip:a@x>;tag=1\r\nTo: <sip:b@x>;tag=2\r\nCall-ID:  7@h\r\nCSeq: 1\r\n INVITE\r\n\r\n";
    /// Max-Forwards is no number; the Call-ID stands behind it.
    const MALFORMED: &[u8] = b"INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
        Max-Forwards: many\r\nContent-Length: -9\r\nCall-ID: 7@h\r\nCSeq: 1 INVITE\r\n\r\n";

    fn matches(filter: &Filter, payload: &[u8]) -> bool {
        filter.matches_message(payload, &mut Message::new())
    }

    #[test]
    fn the_call_id_is_compared_whole_in_requests_and_responses() {
        let filter = Filter::all().call_id(b"7@h");
        assert!(matches(&filter, REQUEST));
        assert!(matches(&filter, RESPONSE));
        assert!(matches(&filter, MALFORMED));
        // A part of it, or the same bytes elsewhere, is not it.
        assert!(!matches(&Filter::all().call_id(b"7@"), REQUEST));
        assert!(!matches(&Filter::all().call_id(b"70@h"), REQUEST));
        assert!(!matches(&filter, b"\r\n\r\n"));
        assert!(!matches(&filter, b"7@h"));
    }

    #[test]
    fn the_method_is_that_of_the_cseq() {
        let invite = Filter::all().method(b"INVITE");
        assert!(matches(&invite, REQUEST) && matches(&invite, RESPONSE));
        assert!(matches(&invite, MALFORMED));
        assert!(!matches(&Filter::all().method(b"BYE"), RESPONSE));
        assert!(!matches(&Filter::all().method(b"invite"), REQUEST));
        let both = Filter::all().method(b"INVITE").call_id(b"8@h");
        assert!(!matches(&both, REQUEST));
    }

    #[test]
    fn without_conditions_everything_is_captured() {
        for payload in [REQUEST, RESPONSE, b"", b"\0\0\0\0"] {
            assert!(matches(&Filter::all(), payload));
        }
        assert!(Filter::all().matches_peers("198.18.0.1:1".parse().unwrap(), None));
    }

    #[test]
    fn a_peer_of_either_side_is_enough() {
        let server: SocketAddr = "198.18.1.11:5060".parse().unwrap();
        let client: SocketAddr = "198.18.0.100:5070".parse().unwrap();
        for (text, yes) in [
            ("198.18.1.11", true),
            ("198.18.1.11:5060", true),
            ("198.18.1.11:5061", false),
            ("198.18.0.0/24", true),
            ("198.18.2.0/24", false),
            ("[2001:db8::1]", false),
        ] {
            let filter = Filter::all().peer(text.parse().unwrap());
            assert_eq!(filter.matches_peers(client, Some(server)), yes, "{text}");
            assert_eq!(filter.matches_peers(server, Some(client)), yes, "{text}");
        }
        let filter = Filter::all().peer("198.18.1.11".parse().unwrap());
        assert!(!filter.matches_peers(client, None));
    }

    #[test]
    fn peers_are_written_as_they_are_read() {
        for text in [
            "198.18.0.1/32",
            "198.18.0.1:5060",
            "[2001:db8::1]:5060",
            "2001:db8::/32",
        ] {
            assert_eq!(text.parse::<Peer>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "host",
            "198.18.0.1:",
            "198.18.0.1:70000",
            "[1.2",
            "::/200",
        ] {
            assert_eq!(text.parse::<Peer>(), Err(PeerError), "{text}");
        }
    }
}
