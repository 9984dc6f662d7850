//! Clients behind a NAT: how one is told, and which flow the token of its dialog holds.
//!
//! A client behind a NAT writes an address into its `Via` and Contact that means nothing here.
//! Responses find it by `received` and `rport`; requests of the dialog find it by the flow that its
//! own request came by, which our token in `Record-Route` carries.
//!
//! | the client's Contact, the request having one `Via` | flow |
//! |---|---|
//! | an address that is the source's | none, whatever the ports: it may listen elsewhere |
//! | another address, the one of sent-by too | yes |
//! | another address, private while the source is not | yes |
//! | another address in public | none: some clients listen on another host |
//! | a name below `.invalid` (RFC 7118 §5, RFC 6761 §6.4) | yes |
//! | another name, another transport, no SIP URI, ourselves, nobody | where nothing else leads |
//! | none, malformed, `*` | none |
//!
//! With several `Via`s a proxy stands between, whose Record-Route leads back (RFC 3261 §16.12).

use super::Context;
use super::hop::{Hop, hop};
use super::route_set::RouteSet;
use super::target::Target;
use crate::affinity::{ClientFlow, FlowNote, RouteToken};
use crate::config::{Nat, Side};
use crate::net::{IpAddr, Ipv4Addr, SocketAddr};
use crate::route::{Direction, Listener};
use crate::sip::{HeaderName, Host, Method, NameAddr, Via, values};

/// A client's flow, and when it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientFlowUse {
    pub(super) flow: ClientFlow,
    /// Instead of the Request-URI; else where the Request-URI leads nowhere.
    pub(super) nat: bool,
}

/// The flow of a dialog's client, as its token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DialogFlow {
    /// Where the client's requests come from.
    pub(super) address: SocketAddr,
    /// It counts more than the Request-URI of later requests.
    pub(super) nat: bool,
    /// It is that of the callee.
    pub(super) callee: bool,
}

impl DialogFlow {
    fn of(token: &RouteToken) -> Option<Self> {
        Some(Self {
            address: token.flow?.address,
            nat: token.nat,
            callee: token.callee,
        })
    }
}

impl Context<'_> {
    /// The flow that a request's new token holds.
    pub(super) fn dialog_flow(
        &self,
        routes: &RouteSet,
        target: &Target,
        received: &Listener,
        via: &Via,
    ) -> Option<DialogFlow> {
        // Called through its Path: requests of the dialog take the same way.
        if let Some(path) = routes.path.as_ref().filter(|_| target.flow.is_some()) {
            return DialogFlow::of(path);
        }
        let old = routes.token.as_ref();
        let held = old.and_then(DialogFlow::of);
        let by_owner = old.is_some_and(|token| self.is_flow_owner(token));
        if held.is_some() && !by_owner {
            return held;
        }
        if self.direction != Direction::Farm {
            return Some(DialogFlow {
                address: self.flow.peer,
                nat: self.is_behind_nat(received, via)?,
                callee: old.is_some_and(|token| token.callee),
            });
        }
        // Caller and callee are both in the farm: the token names the callee, and in this way the
        // caller, too.
        let caller = || match self.plan.server_at(self.flow.peer) {
            Some(server) => server.address,
            None => self.flow.peer,
        };
        held.or_else(|| {
            (target.side == Side::Farm).then(|| DialogFlow {
                address: caller(),
                nat: false,
                callee: false,
            })
        })
    }

    /// Whether both ends of a token's dialog are in the farm: its flow is the calling server then.
    pub(super) fn is_between_servers(&self, token: &RouteToken) -> bool {
        let caller = token.flow.filter(|_| !token.nat);
        caller.is_some_and(|caller| self.plan.is_farm(caller.address.ip()))
    }

    /// Where the client is that a token speaks of, and how much that counts.
    pub(super) fn client_flow(&self, token: &RouteToken) -> Option<ClientFlowUse> {
        if self.is_between_servers(token) {
            return None;
        }
        let told = told_flow(token)?;
        let moved = self.flows.find(self.call_id, told, self.now);
        Some(ClientFlowUse {
            flow: moved.unwrap_or(told),
            nat: token.nat,
        })
    }

    /// Takes note of where the client of a dialog is now: its NAT may have given it another mapping
    /// since the token was made.
    pub(super) fn note_flow(&self, routes: &RouteSet) {
        let Some(token) = &routes.token else { return };
        let Some(told) = told_flow(token) else { return };
        let seen = ClientFlow {
            address: self.flow.peer,
            listener: self.flow.listener,
        };
        if self.direction == Direction::Farm
            || self.message.to_tag().is_none()
            || self.message.method() == Method::Cancel
            || self.message.vias_below(self.bytes).next().is_some()
            || self.is_between_servers(token)
            || !self.is_flow_owner(token)
        {
            return;
        }
        match self.flows.note(self.call_id, told, seen, self.now) {
            FlowNote::Known | FlowNote::Returned | FlowNote::Refused => {}
            FlowNote::Moved => self.metrics.flows_moved.increment(),
            FlowNote::Evicted => {
                self.metrics.flows_moved.increment();
                self.metrics.flows_evicted.increment();
            }
        }
    }

    /// Whether the sender stands at the end of the dialog whose flow the token holds.
    pub(super) fn is_flow_owner(&self, token: &RouteToken) -> bool {
        let by_initiator = token.initiator == self.keys.tag_hash(self.sender_tag());
        by_initiator != token.callee
    }

    /// Whether the sender's flow is needed to reach it: `Some(true)` if nothing else does,
    /// `Some(false)` if its Contact leads nowhere from here, `None` if its Contact is to be used.
    fn is_behind_nat(&self, received: &Listener, via: &Via) -> Option<bool> {
        if received.nat == Nat::Rfc || self.message.vias_below(self.bytes).next().is_some() {
            return None;
        }
        let row = self.message.first(HeaderName::Contact)?;
        if via.host.ip() == Some(self.flow.peer.ip())
            && names_host(row.value.of(self.bytes), via.sent_by.of(self.bytes))
        {
            return None;
        }
        let contact = NameAddr::parse(self.bytes, values(self.bytes, row).next()?).ok()?;
        match hop(self.plan, self.bytes, &contact.uri) {
            Hop::Literal(address) => self.is_hidden(address.ip(), via).then_some(true),
            Hop::Name | Hop::OtherTransport => Some(match contact.uri.host? {
                Host::Ip(ip) => self.is_hidden(ip, via),
                Host::Name(name) => is_invalid(name.of(self.bytes)),
            }),
            Hop::Own(_) | Hop::Forbidden | Hop::Abstract => Some(false),
            // Nothing that leaves here in clear may go there.
            Hop::Secure => None,
        }
    }

    /// Whether an address in the sender's Contact is one behind a NAT.
    fn is_hidden(&self, contact: IpAddr, via: &Via) -> bool {
        let source = self.flow.peer.ip();
        contact != source
            && (via.host.ip() == Some(contact) || is_private(contact) && !is_private(source))
    }
}

/// Whether a Contact is plainly a SIP URI at that host and port, as most are: decided without parsing
/// it. False says nothing.
fn names_host(contact: &[u8], host_port: &[u8]) -> bool {
    let Some((b"<sip:", rest)) = contact.split_first_chunk::<5>().map(|(a, b)| (&a[..], b)) else {
        return false;
    };
    let Some(at) = memchr::memchr(b'@', rest) else {
        return false;
    };
    let after = rest.get(at + 1..).unwrap_or_default();
    // No parameter: a transport that is not UDP leads elsewhere.
    after
        .strip_prefix(host_port)
        .is_some_and(|rest| rest.starts_with(b">"))
}

/// The flow that a token holds.
fn told_flow(token: &RouteToken) -> Option<ClientFlow> {
    Some(ClientFlow {
        address: token.flow?.address,
        listener: token.listener,
    })
}

/// RFC 6761 §6.4: names below `invalid` never resolve. RFC 7118 §5: clients that cannot be
/// connected to put one into `Via` and Contact.
fn is_invalid(name: &[u8]) -> bool {
    let name = name.strip_suffix(b".").unwrap_or(name);
    name.rsplit(|byte| *byte == b'.')
        .next()
        .is_some_and(|label| label.eq_ignore_ascii_case(b"invalid"))
}

/// Whether an address means something on its own network or host only.
///
/// RFC 1918 §3, RFC 6598 §7 (shared by the customers of a carrier's NAT), RFC 3927 §2.1, RFC 4193
/// §3.1, RFC 4291 §2.5.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            v4.is_private() || v4.is_link_local() || v4.is_loopback() || is_shared(v4)
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback(),
    }
}

/// 100.64.0.0/10.
fn is_shared(v4: Ipv4Addr) -> bool {
    let [first, second, ..] = v4.octets();
    first == 100 && second & 0xc0 == 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_networks_end_where_their_rfcs_say() {
        for (ip, private) in [
            ("10.0.0.0", true),
            ("11.0.0.0", false),
            ("172.15.255.255", false),
            ("172.16.0.0", true),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("192.168.255.255", true),
            ("192.169.0.0", false),
            ("100.63.255.255", false),
            ("100.64.0.0", true),
            ("100.127.255.255", true),
            ("100.128.0.0", false),
            ("169.254.1.1", true),
            ("127.0.0.1", true),
            ("198.18.0.1", false),
            ("fc00::1", true),
            ("fdff::1", true),
            ("fe80::1", true),
            ("fec0::1", false),
            ("::1", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_private(ip.parse().unwrap()), private, "{ip}");
        }
    }
}
