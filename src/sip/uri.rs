//! URIs: sip and sips in full, tel and urn as far as a proxy looks, any other as its scheme
//! (RFC 3261 §19.1, §25.1; RFC 3966; RFC 5031).
//!
//! The user part is never looked into: `?`, `;`, `,` and `/` are ordinary there, and escapes stay
//! as they are (RFC 4475 §3.1.1.3: they are not expanded). An `@` can only end the user part, since
//! the grammar lets it stand nowhere else unescaped.

use super::host::{Host, parse_ip, parse_port};
use super::params::{Param, Params};
use super::scan::{byte, find_any, find_any_or_blank, front, lower, pack, word};
use super::via::Transport;
use super::{ParseError, Span};

/// Scheme of a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `im:`, RFC 3860.
    Im,
    /// `pres:`, RFC 3859.
    Pres,
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:`, RFC 3966.
    Tel,
    /// `urn:`, RFC 5031 for `urn:service:`.
    Urn,
    /// Any other.
    Other,
}

impl Scheme {
    fn of(name: &[u8]) -> Self {
        for (text, scheme) in [
            (&b"sip"[..], Self::Sip),
            (b"sips", Self::Sips),
            (b"tel", Self::Tel),
            (b"urn", Self::Urn),
            (b"im", Self::Im),
            (b"pres", Self::Pres),
        ] {
            if name.eq_ignore_ascii_case(text) {
                return scheme;
            }
        }
        Self::Other
    }

    /// Whether it is `sip:` or `sips:`.
    pub const fn is_sip(self) -> bool {
        matches!(self, Self::Sip | Self::Sips)
    }
}

/// A URI, decoded as far as routing needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri {
    /// The scheme.
    pub scheme: Scheme,
    /// All of it.
    pub span: Span,
    /// User part without password; the subscriber of a `tel:`; `None` without `@`.
    pub user: Option<Span>,
    /// What stands between `:` and `@`.
    pub password: Option<Span>,
    /// The host; `None` for schemes but sip and sips.
    pub host: Option<Host>,
    /// The port, if one is written.
    pub port: Option<u16>,
    /// `host[:port]` as written; empty for schemes but sip and sips.
    pub host_port: Span,
    /// Parameters, from the first `;`; empty if there are none.
    pub params: Span,
    /// What stands behind `?`.
    pub headers: Option<Span>,
}

impl Uri {
    /// Parses the URI that fills `span`, which has no white space around it.
    ///
    /// # Errors
    ///
    /// `UriScheme`, `UriByte`, `UriUser`, `UriTrailer`, `Host` or `Port`. A URI of an unknown scheme
    /// is no error.
    #[inline(always)]
    pub fn parse(bytes: &[u8], span: Span) -> Result<Self, ParseError> {
        const SIP: u64 = pack(b"sip:");
        let (start, end) = (span.start(), span.end().min(bytes.len()));
        if end - start.min(end) > 4 && lower(front(word(bytes, start), 4)) == SIP {
            return Self::parse_sip(bytes, span, Scheme::Sip, start + 4, end);
        }
        Self::parse_any(bytes, span, start, end)
    }

    /// Parses a URI that does not start with `sip:`.
    fn parse_any(bytes: &[u8], span: Span, start: usize, end: usize) -> Result<Self, ParseError> {
        let text = bytes.get(start..end).unwrap_or_default();
        let colon = text
            .iter()
            .position(|byte| !is_scheme_byte(*byte))
            .filter(|at| *at > 0 && text.get(*at) == Some(&b':'))
            .ok_or(ParseError::UriScheme)?;
        if !text.first().is_some_and(u8::is_ascii_alphabetic) {
            return Err(ParseError::UriScheme);
        }
        let scheme = Scheme::of(text.get(..colon).unwrap_or_default());
        let rest = start + colon + 1;
        if scheme.is_sip() {
            return Self::parse_sip(bytes, span, scheme, rest, end);
        }
        if find_any_or_blank(bytes, rest, end, NEVER) < end {
            return Err(ParseError::UriByte);
        }
        Ok(Self::opaque(bytes, span, scheme, rest, end))
    }

    /// `SIP-URI = "sip:" [ userinfo ] hostport uri-parameters [ headers ]`
    #[inline(always)]
    fn parse_sip(
        bytes: &[u8],
        span: Span,
        scheme: Scheme,
        start: usize,
        end: usize,
    ) -> Result<Self, ParseError> {
        let [b0, b1, b2, b3] = NEVER;
        let at = find_any_or_blank(bytes, start, end, [b'@', b0, b1, b2, b3]);
        let (mut user, mut password, mut pos) = (None, None, start);
        if at < end {
            if byte(bytes, at) != b'@' {
                return Err(ParseError::UriByte);
            }
            let colon = find_any(bytes, start, at, [b':']);
            if colon == start {
                return Err(ParseError::UriUser);
            }
            user = Some(Span::at(start, colon));
            if colon < at {
                password = Some(Span::at(colon + 1, at));
            }
            pos = at + 1;
        }
        let host_start = pos;
        let (host, mut pos) = Host::parse_at(bytes, pos, end)?;
        let mut port = None;
        if pos < end && byte(bytes, pos) == b':' {
            let (value, after) = parse_port(bytes, pos + 1, end)?;
            (port, pos) = (Some(value), after);
        }
        let host_port = Span::at(host_start, pos);
        let (mut params, mut headers) = (Span::at(pos, pos), None);
        if pos < end {
            (params, headers) = parse_tail(bytes, pos, end)?;
        }
        Ok(Self {
            scheme,
            span,
            user,
            password,
            host: Some(host),
            port,
            host_port,
            params,
            headers,
        })
    }

    /// A URI whose inside is not ours to judge; `tel:` has its parameters.
    fn opaque(bytes: &[u8], span: Span, scheme: Scheme, start: usize, end: usize) -> Self {
        let subscriber_end = match scheme {
            Scheme::Tel => find_any(bytes, start, end, [b';']),
            _ => end,
        };
        Self {
            scheme,
            span,
            user: (scheme == Scheme::Tel).then(|| Span::at(start, subscriber_end)),
            password: None,
            host: None,
            port: None,
            host_port: Span::at(end, end),
            params: Span::at(subscriber_end, end),
            headers: None,
        }
    }

    /// A parameter by name, in any case: `None` if absent, `Some(None)` if it has no value.
    #[inline]
    pub fn param(&self, bytes: &[u8], name: &[u8]) -> Option<Option<Span>> {
        self.param_row(bytes, name).map(|param| param.value)
    }

    /// A parameter with all its spans.
    pub fn param_row(&self, bytes: &[u8], name: &[u8]) -> Option<Param> {
        Params::new(bytes, self.params).named(name)
    }

    /// Whether the URI is a loose router's (RFC 3261 §19.1.1). The presence of `lr` counts, not its
    /// value: `lr=on` is written in the field.
    pub fn has_lr(&self, bytes: &[u8]) -> bool {
        self.param(bytes, b"lr").is_some()
    }

    /// The `maddr` parameter; an unreadable one is an error, not an absent one.
    ///
    /// # Errors
    ///
    /// `Host` if the value is no host.
    pub fn maddr(&self, bytes: &[u8]) -> Result<Option<Host>, ParseError> {
        let Some(value) = self.param(bytes, b"maddr") else {
            return Ok(None);
        };
        let value = value.ok_or(ParseError::Host)?;
        if let Some(ip) = parse_ip(value.of(bytes)) {
            return Ok(Some(Host::Ip(ip)));
        }
        match Host::parse_at(bytes, value.start(), value.end()) {
            Ok((host, after)) if after == value.end() => Ok(Some(host)),
            _ => Err(ParseError::Host),
        }
    }

    /// The `transport` parameter.
    pub fn transport(&self, bytes: &[u8]) -> Option<Transport> {
        let value = self.param(bytes, b"transport")??;
        Some(Transport::parse(value.of(bytes)))
    }

    /// The scheme as written, without colon.
    pub fn scheme_span(&self, bytes: &[u8]) -> Span {
        let colon = find_any(bytes, self.span.start(), self.span.end(), [b':']);
        Span::at(self.span.start(), colon)
    }
}

/// What stands in no URI unescaped, beside blanks and controls.
const NEVER: [u8; 4] = [b'<', b'>', b'"', 0x7f];

/// `uri-parameters [ headers ]`, which is not empty.
fn parse_tail(bytes: &[u8], pos: usize, end: usize) -> Result<(Span, Option<Span>), ParseError> {
    let [b0, b1, b2, b3] = NEVER;
    let fault = |at: usize| match byte(bytes, at) {
        // Host and port were read, so a first `@` before them ended the user part.
        b'@' => Err(ParseError::UriUser),
        _ => Err(ParseError::UriByte),
    };
    let mark = match byte(bytes, pos) {
        b';' => find_any_or_blank(bytes, pos, end, [b'?', b'@', b0, b1, b2, b3]),
        b'?' => pos,
        b'@' => return Err(ParseError::UriUser),
        _ => return Err(ParseError::UriTrailer),
    };
    let params = Span::at(pos, mark);
    if mark == end {
        return Ok((params, None));
    }
    if byte(bytes, mark) != b'?' {
        return fault(mark);
    }
    match find_any_or_blank(bytes, mark, end, [b'@', b0, b1, b2, b3]) {
        at if at < end => fault(at),
        _ => Ok((params, Some(Span::at(mark + 1, end)))),
    }
}

/// `scheme = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )`
fn is_scheme_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    fn parse(text: &[u8]) -> Result<Uri, ParseError> {
        Uri::parse(text, Span::whole(text).unwrap())
    }

    #[test]
    fn a_sip_uri_falls_into_its_parts() {
        let text = b"SIPS:alice:secret@[2001:db8::1]:5061;LR=on;maddr=192.0.2.9?subject=x";
        let uri = parse(text).unwrap();
        assert_eq!(uri.scheme, Scheme::Sips);
        assert_eq!(uri.scheme_span(text).of(text), b"SIPS");
        assert_eq!(uri.user.unwrap().of(text), b"alice");
        assert_eq!(uri.password.unwrap().of(text), b"secret");
        assert_eq!(
            uri.host,
            Some(Host::Ip("2001:db8::1".parse::<IpAddr>().unwrap()))
        );
        assert_eq!(uri.port, Some(5061));
        assert_eq!(uri.host_port.of(text), b"[2001:db8::1]:5061");
        assert_eq!(uri.params.of(text), b";LR=on;maddr=192.0.2.9");
        assert_eq!(uri.headers.unwrap().of(text), b"subject=x");
        assert!(uri.has_lr(text));
        assert_eq!(
            uri.maddr(text),
            Ok(Some(Host::Ip("192.0.2.9".parse().unwrap())))
        );
        assert_eq!(uri.transport(text), None);
    }

    #[test]
    fn the_least_uri_is_a_host() {
        let text = b"sip:example.com";
        let uri = parse(text).unwrap();
        assert_eq!((uri.user, uri.port, uri.headers), (None, None, None));
        assert!(uri.host.unwrap().is_name(text, b"EXAMPLE.com"));
        assert!(uri.params.is_empty());
        assert_eq!(uri.maddr(text), Ok(None));
    }

    // RFC 4475 §3.1.1.2, §3.1.1.9: delimiters of the rest are ordinary in the user part.
    #[test]
    fn the_user_part_holds_what_delimits_elsewhere() {
        let text = b"sip:user;par=u%40example.net?a,b/c@example.com;p";
        let uri = parse(text).unwrap();
        assert_eq!(
            uri.user.unwrap().of(text),
            b"user;par=u%40example.net?a,b/c"
        );
        assert_eq!(uri.params.of(text), b";p");
    }

    #[test]
    fn other_schemes_are_told_apart() {
        for (text, scheme) in [
            (&b"urn:service:sos"[..], Scheme::Urn),
            (b"im:a@b", Scheme::Im),
            (b"pres:a@b", Scheme::Pres),
            (b"soap.beep://192.0.2.103:3002", Scheme::Other),
            (b"nobodyKnowsThisScheme:totallyopaquecontent", Scheme::Other),
        ] {
            let uri = parse(text).unwrap();
            assert_eq!((uri.scheme, uri.host), (scheme, None));
        }
        let text = b"tel:+1-201-555-0123;phone-context=example.com";
        let uri = parse(text).unwrap();
        assert_eq!(uri.scheme, Scheme::Tel);
        assert_eq!(uri.user.unwrap().of(text), b"+1-201-555-0123");
        let context = uri.param(text, b"Phone-Context").unwrap().unwrap();
        assert_eq!(context.of(text), b"example.com");
    }

    #[test]
    fn each_fault_has_its_cause() {
        for (text, error) in [
            (&b"example.com"[..], ParseError::UriScheme),
            (b":x", ParseError::UriScheme),
            (b"1sip:x", ParseError::UriScheme),
            (b"", ParseError::UriScheme),
            (b"sip:@example.com", ParseError::UriUser),
            (b"sip::p@example.com", ParseError::UriUser),
            (b"sip:a@b@example.com", ParseError::UriUser),
            (b"sip:", ParseError::Host),
            (b"sip:a@", ParseError::Host),
            (b"sip:a@[::1", ParseError::Host),
            (b"sip:h:", ParseError::Port),
            (b"sip:h:0", ParseError::Port),
            (b"sip:h:65536", ParseError::Port),
            (b"sip:2001:db8::10", ParseError::Host),
            (b"sip:h/x", ParseError::UriTrailer),
            (b"sip:h:5060x", ParseError::UriTrailer),
            (b"sip:a b@h", ParseError::UriByte),
            (b"sip:<a>@h", ParseError::UriByte),
            (b"sip:h;a=\x7f", ParseError::UriByte),
            (b"sip:a@h;b@c", ParseError::UriUser),
            (b"sip:a@h?b@c", ParseError::UriUser),
            (b"sip:a@h?b=<c>", ParseError::UriByte),
            (b"tel:+1 2", ParseError::UriByte),
        ] {
            assert_eq!(parse(text), Err(error), "{}", text.escape_ascii());
        }
        let text = b"sip:h;maddr";
        assert_eq!(parse(text).unwrap().maddr(text), Err(ParseError::Host));
    }
}
