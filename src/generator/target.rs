//! Whom to call: a SIP URI and the address that its requests are sent to.

use core::str::FromStr;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

/// RFC 3261 §19.1.2: the default port of SIP over UDP.
const DEFAULT_PORT: u16 = 5060;

/// A target on the command line: `sip:service@198.18.0.1:5060`, `sip:[2001:db8::1]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    uri: String,
    user: Option<String>,
    host: String,
    port: Option<u16>,
    address: SocketAddr,
}

impl Target {
    /// The Request-URI, as it was written.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The user part, if there is one.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The host part, with the brackets of an IPv6 reference, without port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, if one is written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Where requests outside a dialog are sent.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends to `address` whatever the URI says (an outbound proxy).
    #[must_use]
    pub fn through(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }
}

/// Why a target cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a target: {reason}; write a URI such as sip:service@198.18.0.1:5060")]
pub struct TargetError {
    text: String,
    reason: &'static str,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let fail = |reason| TargetError {
            text: text.to_owned(),
            reason,
        };
        if text.contains(|c: char| c.is_whitespace() || c.is_control() || "<>\"{}".contains(c)) {
            return Err(fail("a URI has no blanks, quotes or brackets like these"));
        }
        let (scheme, rest) = text.split_once(':').ok_or(fail("it has no scheme"))?;
        if !scheme.eq_ignore_ascii_case("sip") {
            return Err(fail("its scheme is not sip"));
        }
        let end = rest.find([';', '?']).unwrap_or(rest.len());
        let (user, host_port) = match rest[..end].rsplit_once('@') {
            Some((user, host_port)) => (Some(user), host_port),
            None => (None, &rest[..end]),
        };
        let (host, port) = split_port(host_port).ok_or(fail("its port is not a number"))?;
        if host.is_empty() {
            return Err(fail("its host is empty"));
        }
        let address = match (parse_host(host), port.unwrap_or(DEFAULT_PORT)) {
            (Some(ip), port) => SocketAddr::new(ip, port),
            (None, port) => (host, port)
                .to_socket_addrs()
                .ok()
                .and_then(|mut addresses| addresses.next())
                .ok_or(fail("its host is no address and does not resolve"))?,
        };
        Ok(Self {
            uri: text.to_owned(),
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
            address,
        })
    }
}

/// Host and port of `host[:port]`; the colons of an IPv6 reference stand in brackets.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let host_end = text.rfind(']').map_or(0, |bracket| bracket + 1);
    match text[host_end..].find(':') {
        Some(colon) => {
            let (host, port) = text.split_at(host_end + colon);
            Some((
                host,
                Some(port[1..].parse().ok().filter(|port| *port != 0)?),
            ))
        }
        None => Some((text, None)),
    }
}

/// An address literal, IPv6 in brackets.
fn parse_host(host: &str) -> Option<IpAddr> {
    match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_of_every_shape_lead_somewhere() {
        for (text, user, host, address) in [
            (
                "sip:service@198.18.0.1:5070",
                Some("service"),
                "198.18.0.1",
                "198.18.0.1:5070",
            ),
            ("sip:198.18.0.1", None, "198.18.0.1", "198.18.0.1:5060"),
            (
                "SIP:a:b@198.18.0.1;lr?x=y",
                Some("a:b"),
                "198.18.0.1",
                "198.18.0.1:5060",
            ),
            (
                "sip:a@[2001:db8::1]:5062",
                Some("a"),
                "[2001:db8::1]",
                "[2001:db8::1]:5062",
            ),
            (
                "sip:[2001:db8::1];lr",
                None,
                "[2001:db8::1]",
                "[2001:db8::1]:5060",
            ),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.uri(), text);
            assert_eq!(target.user(), user);
            assert_eq!(target.host(), host);
            assert_eq!(target.address(), address.parse().unwrap());
        }
    }

    #[test]
    fn what_is_no_target_says_why() {
        for (text, reason) in [
            ("198.18.0.1", "no scheme"),
            ("sips:198.18.0.1", "not sip"),
            ("sip:", "empty"),
            ("sip:a@198.18.0.1:x", "not a number"),
            ("sip:a@198.18.0.1:0", "not a number"),
            ("sip:a@198.18.0.1 ", "blanks"),
            ("sip:a@[2001:db8::1", "not a number"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(error.contains("sip:service@198.18.0.1:5060"));
        }
    }
}
