//! A listener as the decide layers need it: its addresses and the text it writes into messages.

use core::fmt::Write as _;

use super::networks::Networks;
use crate::config::{Nat, PathPolicy, Side};
use crate::metrics::METHODS;
use crate::net::{ListenerIndex, SocketAddr, canonical};

/// One served address with its precomputed text.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its position in the configuration.
    pub index: ListenerIndex,
    /// Name in logs and metrics.
    pub name: Box<str>,
    /// The bound address: what datagrams leave from.
    pub address: SocketAddr,
    /// What peers see: in `Via` and `Record-Route`.
    pub advertised: SocketAddr,
    /// Which side it faces.
    pub side: Side,
    /// What is done for clients behind a NAT.
    pub nat: Nat,
    /// Whether a REGISTER gets our `Path`.
    pub path: PathPolicy,
    /// Whether STUN Binding requests are answered.
    pub stun: bool,
    /// Peers that are trusted here, besides those trusted everywhere.
    pub(super) trusted: Networks,
    /// Methods handled with a transaction, a bit each by their number in [`METHODS`].
    stateful: u16,
    /// The listener whose address transactions write into their `Via`.
    pub node_listener: Option<ListenerIndex>,
    pub(super) lists: Option<Lists>,
    via_prefix: Box<[u8]>,
    record_route_suffix: Box<[u8]>,
    host_port: Box<str>,
}

/// Who is served: everybody without such lists.
#[derive(Clone, Debug)]
pub(super) struct Lists {
    pub(super) deny: Networks,
    /// `None` = everybody.
    pub(super) allow: Option<Networks>,
}

impl Lists {
    fn new(config: &crate::config::Listener) -> Option<Self> {
        if config.allow.is_empty() && config.deny.is_empty() {
            return None;
        }
        let allow = &config.allow;
        Some(Self {
            deny: Networks::new(config.deny.iter().copied()),
            allow: (!allow.is_empty()).then(|| Networks::new(allow.iter().copied())),
        })
    }
}

impl Listener {
    /// From its configuration.
    pub(super) fn new(index: ListenerIndex, config: &crate::config::Listener) -> Self {
        let address = with_canonical_ip(config.address);
        let advertised = with_canonical_ip(config.advertise.unwrap_or(config.address));
        // SocketAddr's text is the sent-by of RFC 3261 §25.1: host ":" port, IPv6 in brackets.
        let mut host_port = String::new();
        let _ = write!(host_port, "{}", without_scope(advertised));
        // RFC 3581 §3: servers that see the bound address, not the advertised one, would answer to
        // it at the advertised port (RFC 3261 §18.2.2); asked for it they take the source port.
        let rport = if advertised.port() == address.port() {
            ""
        } else {
            ";rport"
        };
        Self {
            index,
            name: config.name.as_str().into(),
            address,
            advertised,
            side: config.side,
            nat: config.nat,
            path: config.path,
            stun: config.stun,
            trusted: Networks::new(config.trusted.iter().copied()),
            stateful: stateful(&config.stateful),
            node_listener: None,
            lists: Lists::new(config),
            via_prefix: format!("Via: SIP/2.0/UDP {host_port}{rport};branch=")
                .into_bytes()
                .into(),
            record_route_suffix: format!("@{host_port};lr>\r\n").into_bytes().into(),
            host_port: host_port.into(),
        }
    }

    /// `Via: SIP/2.0/UDP host:port;branch=`, with `;rport` if the advertised port is not the bound one.
    #[inline]
    pub fn via_prefix(&self) -> &[u8] {
        &self.via_prefix
    }

    /// `@host:port;lr>` and the line's end: what follows the token of a `Record-Route` row.
    #[inline]
    pub fn record_route_suffix(&self) -> &[u8] {
        &self.record_route_suffix
    }

    /// Whether requests of a method, by its number in [`METHODS`], are handled with a transaction.
    #[inline]
    pub fn is_stateful(&self, method: usize) -> bool {
        u32::try_from(method)
            .ok()
            .and_then(|method| self.stateful.checked_shr(method))
            .is_some_and(|bits| bits & 1 != 0)
    }

    /// `host:port` as advertised.
    pub fn host_port(&self) -> &str {
        &self.host_port
    }

    /// Whether it can send to a peer of `address`'s family.
    #[inline]
    pub fn same_family(&self, address: SocketAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
    }
}

/// The methods as bits.
fn stateful(methods: &[String]) -> u16 {
    let numbers = METHODS.iter().zip(0..);
    numbers
        .filter(|(name, _)| methods.iter().any(|method| method == *name))
        .fold(0, |bits, (_, number)| bits | 1_u16 << number)
}

const _: () = assert!(METHODS.len() <= 16);

/// The address with an IPv4-mapped IP as IPv4.
pub(super) fn with_canonical_ip(address: SocketAddr) -> SocketAddr {
    match canonical(address.ip()) {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// A zone id means nothing to a peer.
fn without_scope(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str, advertise: Option<&str>) -> Listener {
        Listener::new(ListenerIndex(0), &config(address, advertise))
    }

    fn config(address: &str, advertise: Option<&str>) -> crate::config::Listener {
        crate::config::Listener {
            name: "clients".to_owned(),
            address: address.parse().unwrap(),
            side: Side::Outside,
            advertise: advertise.map(|text| text.parse().unwrap()),
            aliases: vec![],
            allow: vec![],
            deny: vec![],
            trusted: vec![],
            nat: Nat::Auto,
            path: PathPolicy::Off,
            stun: false,
            freebind: false,
            interface: None,
            stateful: vec!["INVITE".to_owned()],
            node_listener: None,
        }
    }

    #[test]
    fn methods_are_stateful_as_configured() {
        let listener = listener("198.18.0.1:5060", None);
        for (number, name) in METHODS.iter().enumerate() {
            assert_eq!(listener.is_stateful(number), *name == "INVITE", "{name}");
        }
        assert!(!listener.is_stateful(99));
    }

    #[test]
    fn text_names_the_advertised_address() {
        let plain = listener("198.18.0.1:5060", None);
        assert_eq!(
            plain.via_prefix(),
            b"Via: SIP/2.0/UDP 198.18.0.1:5060;branch="
        );
        let nat = listener("198.18.0.1:5060", Some("203.0.113.10:5080"));
        assert_eq!(nat.record_route_suffix(), b"@203.0.113.10:5080;lr>\r\n");
        assert_eq!(nat.address, "198.18.0.1:5060".parse().unwrap());
        assert_eq!(
            nat.via_prefix(),
            b"Via: SIP/2.0/UDP 203.0.113.10:5080;rport;branch="
        );
        let same_port = listener("198.18.0.1:5060", Some("203.0.113.10:5060"));
        assert_eq!(
            same_port.via_prefix(),
            b"Via: SIP/2.0/UDP 203.0.113.10:5060;branch="
        );
        let v6 = listener("[2001:DB8::0:10]:5060", None);
        assert_eq!(v6.host_port(), "[2001:db8::10]:5060");
    }
}
