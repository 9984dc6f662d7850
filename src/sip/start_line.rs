//! The start line: request line or status line (RFC 3261 §7.1, §7.2).
//!
//! ```text
//! INVITE sip:bob@biloxi.example SIP/2.0        SIP/2.0 200 OK
//! ```
//!
//! Exactly one space separates the parts. More of them, or one at the end, is an error
//! (RFC 4475 §3.1.2.9, §3.1.2.10), but the parts are found all the same, so that an answer can be
//! made.

use super::method::Method;
use super::scan::{byte, find_any, is_token, trim};
use super::uri::Uri;
use super::{ParseError, Span};

/// What a start line says, as far as it could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartLine {
    Request {
        method: Method,
        method_span: Span,
        uri_span: Span,
        uri: Option<Uri>,
        version: Span,
    },
    Response {
        version: Span,
        /// 0 if it is none.
        status: u16,
        reason: Span,
    },
}

/// Reads the line `start..end`, without its line end.
#[inline]
pub(super) fn parse(
    bytes: &[u8],
    start: usize,
    end: usize,
) -> Result<(StartLine, Result<(), ParseError>), ParseError> {
    let line = bytes.get(start..end).unwrap_or_default();
    // A method is a token, and no token has a slash: what starts with `SIP/` is a response.
    if is_version_like(line) {
        return Ok(status_line(bytes, start, end));
    }
    request_line(bytes, start, end).ok_or(ParseError::NotSip)
}

/// `Status-Line = SIP-Version SP Status-Code SP Reason-Phrase`
#[inline]
fn status_line(bytes: &[u8], start: usize, end: usize) -> (StartLine, Result<(), ParseError>) {
    let version_end = find_any(bytes, start, end, [b' ']);
    let version = Span::at(start, version_end);
    let code_start = (version_end + 1).min(end);
    let code_end = find_any(bytes, code_start, end, [b' ']);
    let code = bytes.get(code_start..code_end).unwrap_or_default();
    let status = match *code {
        [a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        _ => 0,
    };
    let result = if !is_version_2(version.of(bytes)) {
        Err(ParseError::VersionUnsupported)
    } else if status == 0 {
        Err(ParseError::StatusCode)
    } else {
        Ok(())
    };
    let line = StartLine::Response {
        version,
        status,
        // An empty reason keeps its space (RFC 4475 §3.1.1.13); a missing space is let pass.
        reason: Span::at((code_end + 1).min(end), end),
    };
    (line, result)
}

/// `Request-Line = Method SP Request-URI SP SIP-Version`; `None` if it does not end in a version.
#[inline]
fn request_line(
    bytes: &[u8],
    start: usize,
    end: usize,
) -> Option<(StartLine, Result<(), ParseError>)> {
    let mut error = None;
    let mut line_end = end;
    while line_end > start && matches!(byte(bytes, line_end - 1), b' ' | b'\t') {
        line_end -= 1;
    }
    let line = bytes.get(start..line_end)?;
    let method_end = find_any(bytes, start, line_end, [b' ']);
    let version_start = match line {
        [
            ..,
            b' ',
            b'S' | b's',
            b'I' | b'i',
            b'P' | b'p',
            b'/',
            _,
            b'.',
            _,
        ] => line_end - 7,
        _ => start + line.iter().rposition(|byte| *byte == b' ')? + 1,
    };
    let version = Span::at(version_start, line_end);
    if !is_version_like(version.of(bytes)) || method_end + 1 >= version_start {
        return None;
    }
    let method_span = Span::at(start, method_end);
    let method = Method::parse(method_span.of(bytes));
    let (uri_start, uri_end) = trim(bytes, method_end + 1, version_start - 1);
    let uri_span = Span::at(uri_start, uri_end);
    if method == Method::Other && !is_token(method_span.of(bytes)) {
        error = Some(ParseError::Method);
    }
    let uri = request_uri(bytes, uri_span, &mut error);
    if line_end != end || uri_start != method_end + 1 || uri_end != version_start - 1 {
        // The spaces outrank what they do to the URI, but not a method that is none.
        error = match error {
            Some(ParseError::Method) => error,
            _ => Some(ParseError::StartLineSpaces),
        };
    }
    if !is_version_2(version.of(bytes)) {
        // RFC 3261 §16.3 step 1: another version is 505, whatever its other rules are.
        error = Some(ParseError::VersionUnsupported);
    }
    let line = StartLine::Request {
        method,
        method_span,
        uri_span,
        uri,
        version,
    };
    Some((line, error.map_or(Ok(()), Err)))
}

#[inline]
fn request_uri(bytes: &[u8], span: Span, error: &mut Option<ParseError>) -> Option<Uri> {
    match Uri::parse(bytes, span) {
        Ok(uri) => {
            // RFC 3261 §19.1.1 table 1: no headers part in a Request-URI; RFC 4475 §3.1.2.11.
            if uri.headers.is_some() {
                error.get_or_insert(ParseError::UriHeaders);
            }
            Some(uri)
        }
        Err(cause) => {
            let text = span.of(bytes);
            error.get_or_insert(if text.first() == Some(&b'<') {
                ParseError::UriBrackets
            } else if text.iter().any(|byte| matches!(byte, b' ' | b'\t')) {
                ParseError::UriSpaces
            } else {
                cause
            });
            None
        }
    }
}

/// `SIP/…`, in any case (RFC 3261 §7.1).
fn is_version_like(text: &[u8]) -> bool {
    text.first_chunk::<4>()
        .is_some_and(|head| head.eq_ignore_ascii_case(b"SIP/"))
}

fn is_version_2(text: &[u8]) -> bool {
    text == b"SIP/2.0" || text.eq_ignore_ascii_case(b"SIP/2.0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &[u8]) -> (StartLine, Result<(), ParseError>) {
        parse(text, 0, text.len()).unwrap()
    }

    fn fault(text: &[u8]) -> Result<(), ParseError> {
        line(text).1
    }

    #[test]
    fn a_request_line_has_three_parts() {
        let text = b"INVITE sip:bob@biloxi.example SIP/2.0";
        let (
            StartLine::Request {
                method,
                method_span,
                uri_span,
                uri,
                version,
            },
            Ok(()),
        ) = line(text)
        else {
            panic!("not a request")
        };
        assert_eq!(method, Method::Invite);
        assert_eq!(method_span.of(text), b"INVITE");
        assert_eq!(uri_span.of(text), b"sip:bob@biloxi.example");
        assert_eq!(uri.unwrap().user.unwrap().of(text), b"bob");
        assert_eq!(version.of(text), b"SIP/2.0");
        assert_eq!(fault(b"FOO urn:service:sos sip/2.0"), Ok(()));
    }

    #[test]
    fn a_status_line_has_three_parts_and_the_last_may_be_empty() {
        for (text, expected, phrase) in [
            (&b"SIP/2.0 200 OK"[..], 200, &b"OK"[..]),
            (b"SIP/2.0 100 ", 100, b""),
            (b"SIP/2.0 699", 699, b""),
            (b"SIP/2.0 200 = 2**3 * 5**2", 200, b"= 2**3 * 5**2"),
        ] {
            let (StartLine::Response { status, reason, .. }, Ok(())) = line(text) else {
                panic!("{}", text.escape_ascii())
            };
            assert_eq!((status, reason.of(text)), (expected, phrase));
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
            let result = parse(text, 0, text.len());
            assert_eq!(result, Err(ParseError::NotSip), "{}", text.escape_ascii());
        }
    }
}
