//! What a URI means as a place to send to.

use super::via::{DEFAULT_PORT, is_forbidden};
use crate::net::{ListenerIndex, SocketAddr};
use crate::route::Plan;
use crate::sip::{Host, Scheme, Uri};

/// Where a URI leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    /// To ourselves.
    Own(ListenerIndex),
    /// To an address, over UDP.
    Literal(SocketAddr),
    /// To a name that somebody would have to look up.
    Name,
    /// To an address, but over a transport that is not UDP.
    OtherTransport,
    /// To a `sips` URI: never over UDP.
    Secure,
    /// To an address that nobody may send to.
    Forbidden,
    /// Nowhere: a `tel`, a `urn`.
    Abstract,
}

/// Where `uri` leads.
///
/// RFC 3263 §4: the target is the maddr parameter, else the host; a literal address needs no look-up;
/// without a transport parameter it is UDP for `sip`, and the port is 5060.
pub(super) fn hop(plan: &Plan, bytes: &[u8], uri: &Uri) -> Hop {
    match uri.scheme {
        Scheme::Sip => {}
        // An own URI written as sips still names us; what it may not is be sent in clear.
        Scheme::Sips => return own_listener(plan, bytes, uri).map_or(Hop::Secure, Hop::Own),
        Scheme::Im | Scheme::Pres | Scheme::Tel | Scheme::Urn | Scheme::Other => {
            return Hop::Abstract;
        }
    }
    if let Some(listener) = own_listener(plan, bytes, uri) {
        return Hop::Own(listener);
    }
    if uri
        .transport(bytes)
        .is_some_and(|transport| !transport.is_udp())
    {
        return Hop::OtherTransport;
    }
    match target(bytes, uri) {
        None => Hop::Forbidden,
        Some(Host::Name(_)) => Hop::Name,
        Some(Host::Ip(ip)) => {
            let address = SocketAddr::new(ip, uri.port.unwrap_or(DEFAULT_PORT));
            if is_forbidden(address) {
                Hop::Forbidden
            } else {
                Hop::Literal(address)
            }
        }
    }
}

/// The listener that `uri` names, if it names us.
///
/// The port must be one of ours; user part and parameters play no role, and neither does the
/// transport, since every port of ours is one proxy. RFC 5954 §4.2: addresses compare in binary.
/// Not RFC 3261 §19.1.4, where an explicit 5060 would differ from an absent one.
#[inline]
pub(super) fn own_listener(plan: &Plan, bytes: &[u8], uri: &Uri) -> Option<ListenerIndex> {
    listener_of(plan, bytes, target(bytes, uri)?, uri.port)
}

/// The listener that a host and port name.
#[inline]
pub(super) fn listener_of(
    plan: &Plan,
    bytes: &[u8],
    host: Host,
    port: Option<u16>,
) -> Option<ListenerIndex> {
    match host {
        Host::Ip(ip) => plan.listener_at(SocketAddr::new(ip, port.unwrap_or(DEFAULT_PORT))),
        Host::Name(name) => plan.listener_named(name.of(bytes), port),
    }
}

/// The host that a URI is sent to: maddr, else its host; `None` if the maddr is unreadable or the
/// scheme has no host.
#[inline]
fn target(bytes: &[u8], uri: &Uri) -> Option<Host> {
    if uri.params.is_empty() {
        return uri.host;
    }
    uri.maddr(bytes).ok()?.or(uri.host)
}
