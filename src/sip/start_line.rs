//! The start line: request line or status line (RFC 3261 §7.1, §7.2).
//!
//! ```text
//! INVITE sip:bob@biloxi.example SIP/2.0        SIP/2.0 200 OK
//! ```
//!
//! Exactly one space separates the parts. More of them, or one at the end, is an error
//! (RFC 4475 §3.1.2.9, §3.1.2.10), but the parts are found all the same, so that an answer can be
//! made.

use super::message::Kind;
use super::method::Method;
use super::scan::{find_any, front, is_token, lower, pack, trim, word};
use super::uri::Uri;
use super::{ParseError, Span};

/// What a start line says, as far as it could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StartLine {
    pub(super) kind: Kind,
    /// `Other` in a response.
    pub(super) method: Method,
    pub(super) method_span: Span,
    pub(super) uri_span: Span,
    /// `None` if it is malformed, and in a response.
    pub(super) uri: Option<Uri>,
    pub(super) version: Span,
    /// 0 if it is malformed, and in a request.
    pub(super) status: u16,
    pub(super) reason: Span,
    /// The whole line.
    pub(super) span: Span,
}

impl StartLine {
    pub(super) const EMPTY: Self = Self {
        kind: Kind::Unknown,
        method: Method::Other,
        method_span: Span::EMPTY,
        uri_span: Span::EMPTY,
        uri: None,
        version: Span::EMPTY,
        status: 0,
        reason: Span::EMPTY,
        span: Span::EMPTY,
    };

    /// Reads the line `start..end`, without its line end. `self` is empty.
    #[inline(always)]
    pub(super) fn parse(
        &mut self,
        bytes: &[u8],
        start: usize,
        end: usize,
    ) -> Result<(), ParseError> {
        self.span = Span::at(start, end);
        // A method is a token, and no token has a slash: what starts with `SIP/` is a response.
        if end - start >= 4 && lower(front(word(bytes, start), 4)) == SIP {
            self.status_line(bytes, start, end)
        } else {
            self.request_line(bytes, start, end)
        }
    }

    /// `Status-Line = SIP-Version SP Status-Code SP Reason-Phrase`
    #[inline(always)]
    fn status_line(&mut self, bytes: &[u8], start: usize, end: usize) -> Result<(), ParseError> {
        self.kind = Kind::Response;
        let version_end = find_any(bytes, start, end, [b' ']);
        self.version = Span::at(start, version_end);
        let code_start = (version_end + 1).min(end);
        let code_end = find_any(bytes, code_start, end, [b' ']);
        // An empty reason keeps its space (RFC 4475 §3.1.1.13); a missing space is let pass.
        self.reason = Span::at((code_end + 1).min(end), end);
        if let Some([a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9']) =
            bytes.get(code_start..code_end)
        {
            self.status =
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
        }
        if !is_version_2(bytes, self.version) {
            Err(ParseError::VersionUnsupported)
        } else if self.status == 0 {
            Err(ParseError::StatusCode)
        } else {
            Ok(())
        }
    }

    /// `Request-Line = Method SP Request-URI SP SIP-Version`
    #[inline(always)]
    fn request_line(&mut self, bytes: &[u8], start: usize, end: usize) -> Result<(), ParseError> {
        const TAIL: u64 = pack(b" sip/2.0");
        let method_end = find_any(bytes, start, end, [b' ']);
        // Eight bytes for the version and its space, and one for a URI.
        if end - start <= 9 || method_end + 1 >= end - 8 || lower(word(bytes, end - 8)) != TAIL {
            return self.odd_request_line(bytes, start, end);
        }
        let uri_span = Span::at(method_end + 1, end - 8);
        self.kind = Kind::Request;
        self.method = Method::at(bytes, start, method_end - start);
        self.method_span = Span::at(start, method_end);
        self.uri_span = uri_span;
        self.version = Span::at(end - 7, end);
        match Uri::parse(bytes, uri_span) {
            // RFC 3261 §19.1.1 table 1: no headers part in a Request-URI; RFC 4475 §3.1.2.11.
            Ok(uri) if uri.headers.is_none() && self.method != Method::Other => {
                self.uri = Some(uri);
                Ok(())
            }
            _ => self.odd_request_line(bytes, start, end),
        }
    }

    /// A request line with an unusual method or anything malformed.
    ///
    /// # Errors
    ///
    /// `NotSip` if the line does not end in a version; otherwise what is wrong, with all parts found.
    #[inline(never)]
    fn odd_request_line(
        &mut self,
        bytes: &[u8],
        start: usize,
        end: usize,
    ) -> Result<(), ParseError> {
        let line = bytes.get(start..end).unwrap_or_default();
        let line_end = start + line.trim_ascii_end().len();
        let line = bytes.get(start..line_end).unwrap_or_default();
        let space = line.iter().rposition(|byte| *byte == b' ');
        let version = Span::at(space.map_or(start, |space| start + space + 1), line_end);
        let method_end = find_any(bytes, start, line_end, [b' ']);
        if version.len() < 5
            || lower(front(word(bytes, version.start()), 4)) != SIP
            || method_end + 1 >= version.start()
        {
            return Err(ParseError::NotSip);
        }
        let (uri_start, uri_end) = trim(bytes, method_end + 1, version.start() - 1);
        self.kind = Kind::Request;
        self.method = Method::at(bytes, start, method_end - start);
        self.method_span = Span::at(start, method_end);
        self.uri_span = Span::at(uri_start, uri_end);
        self.version = version;
        let uri = Uri::parse(bytes, self.uri_span);
        self.uri = uri.ok();
        let text = self.uri_span.of(bytes);
        // RFC 3261 §16.3 step 1: another version is 505, whatever its other rules are.
        if !is_version_2(bytes, version) {
            return Err(ParseError::VersionUnsupported);
        }
        if self.method == Method::Other && !is_token(self.method_span.of(bytes)) {
            return Err(ParseError::Method);
        }
        let spaces =
            line_end != end || uri_start != method_end + 1 || uri_end != version.start() - 1;
        match uri {
            _ if spaces => Err(ParseError::StartLineSpaces),
            Err(_) if text.first() == Some(&b'<') => Err(ParseError::UriBrackets),
            Err(_) if text.iter().any(|byte| matches!(byte, b' ' | b'\t')) => {
                Err(ParseError::UriSpaces)
            }
            Err(cause) => Err(cause),
            Ok(uri) if uri.headers.is_some() => Err(ParseError::UriHeaders),
            Ok(_) => Ok(()),
        }
    }
}

const SIP: u64 = pack(b"sip/");

/// RFC 3261 §7.1: the version is compared without case.
#[inline(always)]
fn is_version_2(bytes: &[u8], version: Span) -> bool {
    const VERSION: u64 = pack(b"sip/2.0");
    version.len() == 7 && lower(front(word(bytes, version.start()), 7)) == VERSION
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> (StartLine, Result<(), ParseError>) {
        let mut line = StartLine::EMPTY;
        let result = line.parse(text, 0, text.len());
        (line, result)
    }

    fn fault(text: &[u8]) -> Result<(), ParseError> {
        parse(text).1
    }

    #[test]
    fn a_request_line_has_three_parts() {
        let text = b"INVITE sip:bob@biloxi.example SIP/2.0";
        let (line, result) = parse(text);
        assert_eq!((line.kind, result), (Kind::Request, Ok(())));
        assert_eq!(line.method, Method::Invite);
        assert_eq!(line.method_span.of(text), b"INVITE");
        assert_eq!(line.uri_span.of(text), b"sip:bob@biloxi.example");
        assert_eq!(line.uri.unwrap().user.unwrap().of(text), b"bob");
        assert_eq!(line.version.of(text), b"SIP/2.0");
        assert_eq!(fault(b"FOO urn:service:sos sip/2.0"), Ok(()));
        assert_eq!(fault(b"A x: SIP/2.0"), Ok(()));
    }

    #[test]
    fn a_status_line_has_three_parts_and_the_last_may_be_empty() {
        for (text, expected, phrase) in [
            (&b"SIP/2.0 200 OK"[..], 200, &b"OK"[..]),
            (b"sip/2.0 100 ", 100, b""),
            (b"SIP/2.0 699", 699, b""),
            (b"SIP/2.0 200 = 2**3 * 5**2", 200, b"= 2**3 * 5**2"),
        ] {
            let (line, result) = parse(text);
            assert_eq!((line.kind, result), (Kind::Response, Ok(())));
            assert_eq!((line.status, line.reason.of(text)), (expected, phrase));
        }
        for text in [
            &b"SIP/2.0 4294967301 x"[..],
            b"SIP/2.0 099 x",
            b"SIP/2.0 700 x",
            b"SIP/2.0 20 x",
            b"SIP/2.0  200 x",
            b"SIP/2.0",
        ] {
            assert_eq!(
                fault(text),
                Err(ParseError::StatusCode),
                "{}",
                text.escape_ascii()
            );
        }
        assert_eq!(
            fault(b"SIP/7.0 200 OK"),
            Err(ParseError::VersionUnsupported)
        );
    }

    #[test]
    fn each_fault_of_a_request_line_has_its_cause() {
        for (text, error) in [
            (
                &b"INVITE  sip:a@b  SIP/2.0"[..],
                ParseError::StartLineSpaces,
            ),
            (b"INVITE sip:a@b SIP/2.0  ", ParseError::StartLineSpaces),
            (b"INVITE sip:a@b SIP/2.0\t", ParseError::StartLineSpaces),
            (b"INVITE  SIP/2.0", ParseError::UriScheme),
            (b"INVITE sip:a@b; lr SIP/2.0", ParseError::UriSpaces),
            (b"INVITE <sip:a@b> SIP/2.0", ParseError::UriBrackets),
            (
                b"INVITE sip:a@b?Route=%3Csip:c%3E SIP/2.0",
                ParseError::UriHeaders,
            ),
            (b"INVITE nothing SIP/2.0", ParseError::UriScheme),
            (b"INVITE sip:a@b SIP/7.0", ParseError::VersionUnsupported),
            (b"INVITE sip:a@b SIP/2.00", ParseError::VersionUnsupported),
            (b"IN@VITE sip:a@b SIP/2.0", ParseError::Method),
            (b" sip:a@b SIP/2.0", ParseError::Method),
        ] {
            assert_eq!(fault(text), Err(error), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn what_has_no_version_is_not_sip() {
        for text in [
            &b""[..],
            b"GET / HTTP/1.1",
            b"INVITE",
            b"INVITE sip:a@b",
            b"hello world",
            b"INVITE SIP/2.0",
        ] {
            let (line, result) = parse(text);
            assert_eq!(result, Err(ParseError::NotSip), "{}", text.escape_ascii());
            assert_eq!(line.kind, Kind::Unknown);
        }
    }
}
