//! One Via value: sent-protocol, sent-by and parameters (RFC 3261 §20.42, RFC 3581).
//!
//! ```text
//! SIP/2.0/UDP 192.0.2.1:5060;received=192.0.2.9;rport=9988;branch=z9hG4bKkdjuw
//!         └┬┘ └─────┬──────┘
//!   transport    sent-by
//! ```
//!
//! White space may stand around every `/`, `:`, `;` and `=`, and most of it may be folds. The top
//! value is decoded while the message is indexed; the others on demand, see
//! [`Message::vias`](super::Message::vias).

use core::net::IpAddr;

use super::host::{Host, parse_ip, parse_port};
use super::params::{Param, Params};
use super::scan::{Number, byte, find_any_or_blank, front, lower, number, pack, skip_lws, word};
use super::{ParseError, Span};
use crate::net::Protocol;

/// The magic cookie at the front of a branch (RFC 3261 §8.1.1.7). Compared without case, as tokens are.
pub const MAGIC_COOKIE: &[u8; 7] = b"z9hG4bK";

/// The transport of a sent-protocol or of a `transport` parameter, in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One that we know.
    Known(Protocol),
    /// Any other token (RFC 4475 §3.1.1.10: legal).
    Other,
}

impl Transport {
    /// The transport of this name.
    #[inline]
    pub fn parse(name: &[u8]) -> Self {
        for (text, protocol) in [
            (&b"UDP"[..], Protocol::Udp),
            (b"TCP", Protocol::Tcp),
            (b"TLS", Protocol::Tls),
            (b"SCTP", Protocol::Sctp),
            (b"WS", Protocol::Ws),
            (b"WSS", Protocol::Wss),
        ] {
            if name.eq_ignore_ascii_case(text) {
                return Self::Known(protocol);
            }
        }
        Self::Other
    }

    /// The protocol, if we know it.
    pub const fn protocol(self) -> Option<Protocol> {
        match self {
            Self::Known(protocol) => Some(protocol),
            Self::Other => None,
        }
    }

    /// Whether it is UDP.
    pub const fn is_udp(self) -> bool {
        matches!(self, Self::Known(Protocol::Udp))
    }
}

/// One Via value, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via {
    /// The value: from `SIP` to the end of the last parameter.
    pub value: Span,
    /// The transport.
    pub transport: Transport,
    /// Host of the sent-by.
    pub host: Host,
    /// Port of the sent-by, if one is written.
    pub port: Option<u16>,
    /// The sent-by as written, `host[:port]`.
    pub sent_by: Span,
    /// All parameters, from the first `;`; empty if there are none.
    pub params: Span,
    /// Value of `branch`.
    pub branch: Option<Span>,
    /// The `received` parameter.
    pub received: Option<Param>,
    /// The `rport` parameter.
    pub rport: Option<Param>,
    /// The `maddr` parameter.
    pub maddr: Option<Param>,
    /// The `ttl` parameter.
    pub ttl: Option<Param>,
}

impl Via {
    /// Parses the first Via value of `span`.
    ///
    /// # Errors
    ///
    /// `ViaProtocol`, `ViaSentBy`, `ViaParameter`, `ViaParameterTwice` or `QuoteUnbalanced`.
    pub fn parse(bytes: &[u8], span: Span) -> Result<Self, ParseError> {
        let mut via = None;
        Self::parse_at(bytes, span.start(), span.end().min(bytes.len()), &mut via)?;
        via.ok_or(ParseError::ViaSentBy)
    }

    /// Parses the value at `start` and tells where it ends: at a comma or at `end`.
    ///
    /// `via` is set as soon as the sent-by is known, so that a value with malformed parameters can
    /// still be answered.
    #[inline(always)]
    pub(super) fn parse_at(
        bytes: &[u8],
        start: usize,
        end: usize,
        via: &mut Option<Self>,
    ) -> Result<usize, ParseError> {
        let (transport, version_ok, host_start) = parse_protocol(bytes, start, end)?;
        let (host, host_end) =
            Host::parse_at(bytes, host_start, end).map_err(|_| ParseError::ViaSentBy)?;
        let mut sent_by_end = host_end;
        let mut port = None;
        let mut pos = skip_blank(bytes, host_end, end);
        if pos < end && byte(bytes, pos) == b':' {
            let digits = skip_blank(bytes, pos + 1, end);
            let (value, after) =
                parse_port(bytes, digits, end).map_err(|_| ParseError::ViaSentBy)?;
            (port, sent_by_end) = (Some(value), after);
            pos = skip_blank(bytes, after, end);
        }
        let via = via.insert(Self {
            value: Span::at(start, sent_by_end),
            transport,
            host,
            port,
            sent_by: Span::at(host_start, sent_by_end),
            params: Span::at(sent_by_end, sent_by_end),
            branch: None,
            received: None,
            rport: None,
            maddr: None,
            ttl: None,
        });
        let params_start = pos;
        while pos < end && byte(bytes, pos) == b';' {
            let after = via.parse_param(bytes, pos, end)?;
            via.value = Span::at(start, after);
            via.params = Span::at(params_start, after);
            pos = skip_blank(bytes, after, end);
        }
        if !version_ok {
            return Err(ParseError::ViaProtocol);
        }
        if pos < end && byte(bytes, pos) != b',' {
            return Err(if params_start == pos {
                ParseError::ViaSentBy
            } else {
                ParseError::ViaParameter
            });
        }
        Ok(pos)
    }

    /// Reads the parameter whose `;` stands at `pos`, and tells where it ends.
    #[inline(always)]
    fn parse_param(&mut self, bytes: &[u8], pos: usize, end: usize) -> Result<usize, ParseError> {
        const BRANCH: u64 = pack(b";branch=");
        // Nearly every Via has a branch, and nearly every branch is written so.
        if lower(word(bytes, pos)) == BRANCH && self.branch.is_none() {
            let value = pos + 8;
            let after = find_any_or_blank(bytes, value, end, [b';', b',', b'"']);
            if after > value && (after == end || byte(bytes, after) == b';') {
                self.branch = Some(Span::at(value, after));
                return Ok(after);
            }
        }
        self.parse_any_param(bytes, pos, end)
    }

    fn parse_any_param(
        &mut self,
        bytes: &[u8],
        pos: usize,
        end: usize,
    ) -> Result<usize, ParseError> {
        let param = Param::parse_at(bytes, pos, end).map_err(|error| match error {
            ParseError::Parameter => ParseError::ViaParameter,
            other => other,
        })?;
        let name = param.name;
        let (head, tail) = (
            lower(front(word(bytes, name.start()), name.len())),
            name.len(),
        );
        let after = param.whole.end();
        // RFC 3261 §7.3.1: a parameter name MUST NOT appear more than once.
        let slot = match (head, tail) {
            (RPORT, 5) => &mut self.rport,
            (RECEIVED, 8) => &mut self.received,
            (MADDR, 5) => &mut self.maddr,
            (TTL, 3) => &mut self.ttl,
            (BRANCH, 6) => {
                let value = param.value.unwrap_or(Span::at(after, after));
                if self.branch.is_some() {
                    return Err(ParseError::ViaParameterTwice);
                }
                self.branch = Some(value);
                return Ok(after);
            }
            _ => return Ok(after),
        };
        if slot.is_some() {
            return Err(ParseError::ViaParameterTwice);
        }
        *slot = Some(param);
        Ok(after)
    }

    /// A parameter by name, in any case: its value, empty if it has none.
    #[inline]
    pub fn param(&self, bytes: &[u8], name: &[u8]) -> Option<Span> {
        let param = self.param_row(bytes, name)?;
        Some(
            param
                .value
                .unwrap_or(Span::at(param.whole.end(), param.whole.end())),
        )
    }

    /// A parameter with all its spans.
    pub fn param_row(&self, bytes: &[u8], name: &[u8]) -> Option<Param> {
        Params::new(bytes, self.params).named(name)
    }

    /// Whether the branch starts with the cookie and has more behind it (RFC 3261 §8.1.1.7,
    /// RFC 4475 §3.2.1).
    pub fn has_cookie(&self, bytes: &[u8]) -> bool {
        self.branch.is_some_and(|branch| {
            let branch = branch.of(bytes);
            branch.len() > MAGIC_COOKIE.len()
                && branch
                    .first_chunk::<7>()
                    .is_some_and(|head| head.eq_ignore_ascii_case(MAGIC_COOKIE))
        })
    }

    /// The address in `received`; `None` if it is absent or no address.
    pub fn received_ip(&self, bytes: &[u8]) -> Option<IpAddr> {
        parse_ip(self.received?.value?.of(bytes))
    }

    /// The port in `rport`; `None` if it is absent, empty or no port.
    pub fn rport_port(&self, bytes: &[u8]) -> Option<u16> {
        let value = self.rport?.value?;
        match number(bytes, value.start(), value.end()) {
            Number::Value(value @ 1..) => u16::try_from(value).ok(),
            _ => None,
        }
    }

    /// The address in `maddr`; `None` if it is absent or a name.
    pub fn maddr_ip(&self, bytes: &[u8]) -> Option<IpAddr> {
        parse_ip(self.maddr?.value?.of(bytes))
    }
}

const BRANCH: u64 = pack(b"branch");
const MADDR: u64 = pack(b"maddr");
const RECEIVED: u64 = pack(b"received");
const RPORT: u64 = pack(b"rport");
const TTL: u64 = pack(b"ttl");

/// Like `skip_lws`, with the usual case of no white space first.
#[inline]
fn skip_blank(bytes: &[u8], pos: usize, end: usize) -> usize {
    if pos < end && byte(bytes, pos) <= b' ' {
        skip_lws(bytes, pos, end)
    } else {
        pos
    }
}

/// `sent-protocol LWS`: the transport, whether the rest is `SIP/2.0`, and where the sent-by starts.
#[inline]
fn parse_protocol(
    bytes: &[u8],
    start: usize,
    end: usize,
) -> Result<(Transport, bool, usize), ParseError> {
    const USUAL: &[u8; 12] = b"SIP/2.0/UDP ";
    if end - start > USUAL.len()
        && let Some(head) = bytes.get(start..).and_then(<[u8]>::first_chunk::<12>)
        && head == USUAL
    {
        let host = skip_blank(bytes, start + USUAL.len(), end);
        return Ok((Transport::Known(Protocol::Udp), true, host));
    }
    // `protocol-name SLASH protocol-version SLASH transport`, SLASH = SWS "/" SWS
    let (name, pos) = protocol_part(bytes, start, end);
    let pos = slash(bytes, pos, end)?;
    let (version, pos) = protocol_part(bytes, pos, end);
    let pos = slash(bytes, pos, end)?;
    let (transport, pos) = protocol_part(bytes, pos, end);
    let host = skip_lws(bytes, pos, end);
    if host == pos || transport.is_empty() {
        return Err(ParseError::ViaProtocol);
    }
    let ok = name.of(bytes).eq_ignore_ascii_case(b"SIP") && version.of(bytes) == b"2.0";
    Ok((Transport::parse(transport.of(bytes)), ok, host))
}

fn protocol_part(bytes: &[u8], pos: usize, end: usize) -> (Span, usize) {
    let after = find_any_or_blank(bytes, pos, end, [b'/', b';', b',']);
    (Span::at(pos, after), after)
}

fn slash(bytes: &[u8], pos: usize, end: usize) -> Result<usize, ParseError> {
    let pos = skip_lws(bytes, pos, end);
    if pos < end && byte(bytes, pos) == b'/' {
        Ok(skip_lws(bytes, pos + 1, end))
    } else {
        Err(ParseError::ViaProtocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<Via, ParseError> {
        Via::parse(text, Span::whole(text).unwrap())
    }

    #[test]
    fn a_value_falls_into_its_parts() {
        let text =
            b"SIP/2.0/UDP 10.1.1.1:4540;received=192.0.2.1;rport=9988;branch=z9hG4bKkjshdyff;v=abc";
        let via = parse(text).unwrap();
        assert!(via.transport.is_udp());
        assert_eq!(via.host, Host::Ip("10.1.1.1".parse().unwrap()));
        assert_eq!(via.port, Some(4540));
        assert_eq!(via.sent_by.of(text), b"10.1.1.1:4540");
        assert_eq!(via.branch.unwrap().of(text), b"z9hG4bKkjshdyff");
        assert!(via.has_cookie(text));
        assert_eq!(via.received.unwrap().whole.of(text), b";received=192.0.2.1");
        assert_eq!(via.received_ip(text), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(via.rport_port(text), Some(9988));
        assert_eq!(via.param(text, b"V").unwrap().of(text), b"abc");
        assert_eq!(via.value.of(text), text);
    }

    // RFC 4475 §3.1.1.1
    #[test]
    fn white_space_may_stand_between_all_parts() {
        let text = b"SIP  / 2.0  / TCP     spindle.example.com  : 5061  ;\r\n  branch  =   z9hG4bK9ikj8  ,\r\n SIP/2.0/UDP x";
        let via = parse(text).unwrap();
        assert_eq!(via.transport, Transport::Known(Protocol::Tcp));
        assert!(via.host.is_name(text, b"Spindle.Example.Com"));
        assert_eq!(via.port, Some(5061));
        assert_eq!(via.branch.unwrap().of(text), b"z9hG4bK9ikj8");
        assert!(via.value.of(text).ends_with(b"z9hG4bK9ikj8"));
        let folded = b"SIP  /   2.0\r\n /UDP\r\n    192.0.2.2;branch=390skdjuw";
        let via = parse(folded).unwrap();
        assert_eq!(via.host, Host::Ip("192.0.2.2".parse().unwrap()));
        assert!(!via.has_cookie(folded));
    }

    #[test]
    fn rport_without_value_is_present_and_empty() {
        let text = b"SIP/2.0/UDP [2001:db8::9:1];rport;branch=z9hG4bK";
        let via = parse(text).unwrap();
        let rport = via.rport.unwrap();
        assert_eq!(rport.value, None);
        assert_eq!(rport.whole.of(text), b";rport");
        assert_eq!(via.rport_port(text), None);
        // RFC 4475 §3.2.1: the cookie alone is no branch.
        assert!(!via.has_cookie(text));
    }

    #[test]
    fn each_fault_has_its_cause() {
        for (text, error) in [
            (&b""[..], ParseError::ViaProtocol),
            (b"SIP/2.0/UDP", ParseError::ViaProtocol),
            (b"SIP/2.0 host", ParseError::ViaProtocol),
            (b"SIP/7.0/UDP host", ParseError::ViaProtocol),
            (b"HTTP/2.0/UDP host", ParseError::ViaProtocol),
            (b"SIP/2.0/UDP ;branch=x", ParseError::ViaSentBy),
            (b"SIP/2.0/UDP host:0", ParseError::ViaSentBy),
            (b"SIP/2.0/UDP host x", ParseError::ViaSentBy),
            (b"SIP/2.0/UDP 192.0.2.15;;,;,,", ParseError::ViaParameter),
            (b"SIP/2.0/UDP host;a=b c", ParseError::ViaParameter),
            (
                b"SIP/2.0/UDP host;branch=a;Branch=b",
                ParseError::ViaParameterTwice,
            ),
            (
                b"SIP/2.0/UDP host;rport;rport=1",
                ParseError::ViaParameterTwice,
            ),
            (b"SIP/2.0/UDP host;a=\"b", ParseError::QuoteUnbalanced),
        ] {
            assert_eq!(parse(text), Err(error), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_malformed_value_still_names_its_sender() {
        let text = b"SIP/2.0/UDP 192.0.2.15:5061;;,;,,";
        let mut via = None;
        let result = Via::parse_at(text, 0, text.len(), &mut via);
        assert_eq!(result, Err(ParseError::ViaParameter));
        assert_eq!(via.map(|via| via.port), Some(Some(5061)));
    }
}
