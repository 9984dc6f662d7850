//! `Via` both ways: what a received one gets, what ours says, and where a response goes.
//!
//! A response to a request that we forwarded goes where RFC 3581 §4 and RFC 3261 §18.2.2 say, which
//! is always the request's source address: at its source port if the client asked for `rport`, else
//! at its sent-by port. [`response_target`] computes it from the request, [`next_hop`] from the
//! response that brings our marks back; the MAC in our own `Via` holds the two equal.

use arrayvec::ArrayVec;

use super::request_uri::to_u16;
use super::text::Text;
use crate::net::{IpAddr, SocketAddr};
use crate::packet::EditList;
use crate::sip::{Host, Span, Via};

/// Default port of SIP over UDP, RFC 3261 §19.1.2.
pub(super) const DEFAULT_PORT: u16 = 5060;

/// Where the response to a request goes whose top `Via` is `via` and which came from `source`.
#[inline]
pub(super) fn response_target(via: &Via, source: SocketAddr) -> SocketAddr {
    let port = match via.rport {
        Some(_) => source.port(),
        None => via.port.unwrap_or(DEFAULT_PORT),
    };
    // The client's maddr is not followed: it would send our responses anywhere.
    // RFC 3261 §18.2.2: maddr first; not done, see README, Conformance.
    SocketAddr::new(source.ip(), port)
}

/// A change to the top `Via` of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// What gives way.
    pub(super) place: Span,
    rport: bool,
    received: bool,
}

/// What the top `Via` of a request gets, in the order of its bytes.
#[inline]
pub(super) fn marks(via: &Via, source: SocketAddr) -> ArrayVec<Mark, 2> {
    let mut marks = ArrayVec::new();
    match (via.rport, via.received) {
        (None, None) => {
            // RFC 3261 §18.2.1: "if the host portion of the sent-by parameter contains a domain
            // name, or if it contains an IP address that differs from the packet source address".
            if via.host.ip() != Some(source.ip()) {
                let end = Span::new(to_u16(via.value.end()), to_u16(via.value.end()));
                marks.push(Mark {
                    place: end,
                    rport: false,
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
                rport: false,
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

/// Appends the text of a mark.
pub(super) fn push_mark(text: &mut impl Text, mark: &Mark, source: SocketAddr) {
    if mark.rport {
        text.push(b";rport=");
        text.push_decimal(u32::from(source.port()));
    }
    if mark.received {
        // RFC 5118 §4.5: an IPv6 address in received has no brackets.
        text.push(b";received=");
        text.push_ip(source.ip());
    }
}

/// Writes `received` and `rport` into the top `Via` of a request.
#[inline]
pub(super) fn mark_source(edits: &mut EditList, via: &Via, source: SocketAddr) {
    for mark in marks(via, source) {
        edits.begin(mark.place.start(), mark.place.len());
        push_mark(edits, &mark, source);
        edits.end();
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
