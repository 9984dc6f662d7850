//! `Via` both ways: what a received one gets, what ours says, and where a response goes.
//!
//! A response to a request that we forwarded goes where RFC 3581 §4 and RFC 3261 §18.2.2 say, which
//! is always the request's source address: at its source port if the client asked for `rport`, else
//! at its sent-by port. [`Context::response_target`] computes it from the request, [`next_hop`] from the
//! response that brings our marks back; the MAC in our own `Via` holds the two equal.

use arrayvec::ArrayVec;

use super::Context;
use super::request_uri::to_u16;
use crate::config::Nat;
use crate::net::{IpAddr, SocketAddr};
use crate::packet::{EditList, Short, Text};
use crate::route::Direction;
use crate::sip::{Host, Span, Via};

/// Default port of SIP over UDP, RFC 3261 §19.1.2.
pub(super) const DEFAULT_PORT: u16 = 5060;

/// A change to the top `Via` of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// What gives way.
    pub(super) place: Span,
    rport: bool,
    received: bool,
}

impl Context<'_> {
    /// Where the response to the request goes, whose top `Via` is `via`.
    #[inline]
    pub(crate) fn response_target(&self, via: &Via) -> SocketAddr {
        let source = self.flow.peer;
        let port = match via.rport {
            Some(_) => source.port(),
            None if self.forces_rport() => source.port(),
            None => via.port.unwrap_or(DEFAULT_PORT),
        };
        // The client's maddr is not followed: it would send our responses anywhere.
        // RFC 3261 §18.2.2: maddr first; not done, see README, Conformance.
        SocketAddr::new(source.ip(), port)
    }

    /// What the top `Via` of the request gets, in the order of its bytes.
    #[inline]
    pub(super) fn marks(&self, via: &Via) -> ArrayVec<Mark, 2> {
        let mut marks = ArrayVec::new();
        match (via.rport, via.received) {
            (None, None) => {
                // RFC 3261 §18.2.1: "if the host portion of the sent-by parameter contains a domain
                // name, or if it contains an IP address that differs from the packet source address".
                let forced = self.forces_rport();
                if forced || via.host.ip() != Some(self.flow.peer.ip()) {
                    let end = Span::new(to_u16(via.value.end()), to_u16(via.value.end()));
                    marks.push(Mark {
                        place: end,
                        rport: forced,
                        received: true,
                    });
                }
            }
            // RFC 3581 §4: rport gets the source port, and received "even if it is identical".
            (Some(rport), None) => {
                marks.push(Mark {
                    place: rport.whole,
                    rport: true,
                    received: true,
                });
            }
            // What a client wrote there itself is not believed.
            (None, Some(received)) => {
                marks.push(Mark {
                    place: received.whole,
                    rport: self.forces_rport(),
                    received: true,
                });
            }
            (Some(rport), Some(received)) => {
                marks.push(Mark {
                    place: rport.whole,
                    rport: true,
                    received: false,
                });
                marks.push(Mark {
                    place: received.whole,
                    rport: false,
                    received: true,
                });
                marks.sort_by_key(|mark| mark.place.start());
            }
        }
        marks
    }

    /// Writes `received` and `rport` into the top `Via` of the request.
    #[inline]
    pub(super) fn mark_source(&self, edits: &mut EditList, via: &Via) {
        for mark in self.marks(via) {
            edits.begin(mark.place.start(), mark.place.len());
            push_mark(edits, &mark, self.flow.peer);
            edits.end();
        }
    }

    /// Whether the sender is treated as if it had asked for `rport`.
    ///
    /// RFC 3581 §4 makes it the client's choice. Clients behind a NAT that do not know of it get no
    /// response at all without; where they are, the operator may choose for them. Servers stand
    /// behind no NAT, and their sent-by holds.
    fn forces_rport(&self) -> bool {
        self.direction != Direction::Farm
            && self
                .plan
                .listener(self.flow.listener)
                .is_some_and(|listener| listener.nat == Nat::ForceRport)
    }
}

/// Appends the text of a mark.
#[inline]
pub(super) fn push_mark(text: &mut impl Text, mark: &Mark, source: SocketAddr) {
    let mut short = Short::<48>::new();
    if mark.rport {
        short.put(b";rport=");
        short.put_u16(source.port());
    }
    if mark.received {
        // RFC 5118 §4.5: an IPv6 address in received has no brackets.
        short.put(b";received=");
        if let IpAddr::V4(v4) = source.ip() {
            short.put_ipv4(v4);
        }
    }
    text.push(short.bytes());
    if let (true, IpAddr::V6(_)) = (mark.received, source.ip()) {
        text.push_ip(source.ip());
    }
}

/// Where a response goes next: the address in the `Via` under ours. `None` if it is a name that no
/// `received` resolves.
#[inline]
pub(super) fn next_hop(via: &Via, bytes: &[u8]) -> Option<SocketAddr> {
    let received = via.received_ip(bytes);
    let ip = match (received, via.host) {
        (Some(ip), _) | (None, Host::Ip(ip)) => ip,
        (None, Host::Name(_)) => return None,
    };
    let port = match via.rport_port(bytes) {
        Some(port) if received.is_some() => port,
        _ => via.port.unwrap_or(DEFAULT_PORT),
    };
    Some(SocketAddr::new(ip, port))
}

/// Whether nobody may be sent to at `address`: unspecified, multicast, broadcast, port 0.
///
/// RFC 4475 §3.3.10: a response whose next `Via` is a broadcast address must not be forwarded.
#[inline]
pub(super) fn is_forbidden(address: SocketAddr) -> bool {
    let forbidden = match address.ip() {
        IpAddr::V4(v4) => v4.is_unspecified() || v4.is_broadcast() || v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast(),
    };
    forbidden || address.port() == 0
}
