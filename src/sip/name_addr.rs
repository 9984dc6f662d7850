//! Addresses of From, To, Contact, Route, Record-Route, Path and their kin: `name-addr` and
//! `addr-spec` (RFC 3261 §20.10, RFC 8217).
//!
//! ```text
//! "Bell, Alexander" <sip:a.g.bell@example.com;lr>;tag=43
//!                                            └┬┘ └──┬──┘
//!                                  of the URI      of the header
//! sip:a.g.bell@example.com;tag=43
//!                         └──┬──┘ without brackets all parameters are the header's (RFC 8217 §3)
//! ```

use super::params::{Param, Params};
use super::scan::{
    byte, find_any, find_any_or_blank, front, lower, pack, quoted_end, skip_lws, trim, word,
};
use super::uri::Uri;
use super::{ParseError, Span};

/// An address with its parameters, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr {
    /// The display name as written, quotes included; empty if there is none.
    pub display_name: Span,
    /// The URI.
    pub uri: Uri,
    /// Whether the URI stands in angle brackets.
    pub bracketed: bool,
    /// Parameters of the header, from the first `;`; empty if there are none.
    pub params: Span,
}

impl NameAddr {
    /// Parses the one address that fills `span`.
    ///
    /// White space between the brackets and the URI is tolerated (RFC 4475 §3.1.2.14).
    ///
    /// # Errors
    ///
    /// What the URI's parse says, `QuoteUnbalanced`, `BracketUnbalanced`, `AddressComma` or
    /// `AddressTrailer`.
    pub fn parse(bytes: &[u8], span: Span) -> Result<Self, ParseError> {
        let (start, end) = trim(bytes, span.start(), span.end().min(bytes.len()));
        let shape = Shape::of(bytes, start, end)?;
        let (uri_start, uri_end) = trim(bytes, shape.uri_start, shape.uri_end);
        let uri = Uri::parse(bytes, Span::at(uri_start, uri_end))?;
        // RFC 3261 §20.10: a URI with a question mark MUST be in angle brackets.
        if !shape.bracketed && uri.headers.is_some() {
            return Err(ParseError::UriHeaders);
        }
        let params = skip_lws(bytes, shape.after, end);
        if params < end && byte(bytes, params) != b';' {
            return Err(match byte(bytes, params) {
                b',' => ParseError::AddressComma,
                _ => ParseError::AddressTrailer,
            });
        }
        Ok(Self {
            display_name: Span::at(shape.name.0, shape.name.1),
            uri,
            bracketed: shape.bracketed,
            params: Span::at(params, end),
        })
    }

    /// A parameter of the header by name, in any case: `None` if absent, `Some(None)` if it has no
    /// value.
    pub fn param(&self, bytes: &[u8], name: &[u8]) -> Option<Option<Span>> {
        Params::new(bytes, self.params)
            .named(name)
            .map(|param| param.value)
    }
}

/// Where the parts of an address lie.
struct Shape {
    name: (usize, usize),
    uri_start: usize,
    uri_end: usize,
    /// Behind `>`, or the end of the URI without brackets.
    after: usize,
    bracketed: bool,
}

impl Shape {
    #[inline]
    fn of(bytes: &[u8], start: usize, end: usize) -> Result<Self, ParseError> {
        let mut pos = start;
        loop {
            pos = find_any(bytes, pos, end, [b'<', b';', b',', b'"']);
            if pos >= end {
                break;
            }
            match byte(bytes, pos) {
                b'"' => pos = quoted_end(bytes, pos, end)?,
                b'<' => {
                    let close = find_any(bytes, pos + 1, end, [b'>']);
                    if close >= end {
                        return Err(ParseError::BracketUnbalanced);
                    }
                    return Ok(Self {
                        name: trim(bytes, start, pos),
                        uri_start: pos + 1,
                        uri_end: close,
                        after: close + 1,
                        bracketed: true,
                    });
                }
                // RFC 4475 §3.1.2.15: an unquoted display name has no comma; RFC 3261 §20.10: a URI
                // with a comma MUST be in brackets. And it is no list.
                b',' => return Err(ParseError::AddressComma),
                _ => break,
            }
        }
        Ok(Self {
            name: (start, start),
            uri_start: start,
            uri_end: pos,
            after: pos,
            bracketed: false,
        })
    }
}

/// The tag of a From or To value, without looking at the URI.
#[inline(always)]
pub(super) fn tag(bytes: &[u8], start: usize, end: usize) -> Result<Option<Span>, ParseError> {
    // The usual forms first: `<…>`, `"…"<…>` or `"…" <…>`, with nothing behind or one tag.
    const TAG: u64 = pack(b";tag=");
    let mut open = start;
    if byte(bytes, start) == b'"' {
        open = quoted_end(bytes, start, end)?;
        open += usize::from(byte(bytes, open) == b' ');
    }
    if open < end && byte(bytes, open) == b'<' {
        let after = find_any(bytes, open + 1, end, [b'>']) + 1;
        if after == end {
            return Ok(None);
        }
        if lower(front(word(bytes, after), 5)) == TAG {
            let value = after + 5;
            if value < end && find_any_or_blank(bytes, value, end, [b';', b',', b'"']) == end {
                return Ok(Some(Span::at(value, end)));
            }
        }
    }
    odd_tag(bytes, start, end)
}

/// The same for any form of an address.
#[inline(never)]
fn odd_tag(bytes: &[u8], start: usize, end: usize) -> Result<Option<Span>, ParseError> {
    let mut pos = Shape::of(bytes, start, end)?.after;
    let mut tag = None;
    loop {
        pos = skip_lws(bytes, pos, end);
        if pos >= end {
            return Ok(tag);
        }
        match byte(bytes, pos) {
            b';' => {}
            b',' => return Err(ParseError::AddressComma),
            _ => return Err(ParseError::AddressTrailer),
        }
        let param = Param::parse_at(bytes, pos, end)?;
        if param.is_named(bytes, b"tag") {
            let value = param.value.filter(|value| !value.is_empty());
            if tag.is_some() || value.is_none() {
                return Err(ParseError::Tag);
            }
            tag = value;
        }
        pos = param.whole.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<NameAddr, ParseError> {
        NameAddr::parse(text, Span::whole(text).unwrap())
    }

    fn tag_of(text: &[u8]) -> Result<Option<&[u8]>, ParseError> {
        tag(text, 0, text.len()).map(|tag| tag.map(|tag| tag.of(text)))
    }

    #[test]
    fn parameters_inside_the_brackets_are_the_uris() {
        let text = br#""Bell, \"A\" <x>" <sip:a@example.com;lr;tag=no>;tag=43;x"#;
        let address = parse(text).unwrap();
        assert_eq!(address.display_name.of(text), br#""Bell, \"A\" <x>""#);
        assert_eq!(address.uri.params.of(text), b";lr;tag=no");
        assert_eq!(address.params.of(text), b";tag=43;x");
        assert_eq!(address.param(text, b"x"), Some(None));
        assert_eq!(tag_of(text), Ok(Some(&b"43"[..])));
    }

    // RFC 8217 §3
    #[test]
    fn parameters_without_brackets_are_the_headers() {
        let text = b"sip:+16505552222@ss1.example.net;user=phone;tag=x";
        let address = parse(text).unwrap();
        assert!(!address.bracketed);
        assert!(address.uri.params.is_empty());
        assert_eq!(address.params.of(text), b";user=phone;tag=x");
        assert_eq!(tag_of(text), Ok(Some(&b"x"[..])));
    }

    #[test]
    fn an_address_without_tag_is_fine_and_one_with_an_empty_tag_is_not() {
        assert_eq!(tag_of(b"sip:a@b"), Ok(None));
        assert_eq!(tag_of(b"caller<sip:a@b>;TAG = 9"), Ok(Some(&b"9"[..])));
        assert_eq!(tag_of(b"<sip:a@b>;x=\";tag=1\""), Ok(None));
        assert_eq!(tag_of(b"<sip:a@b>;tag"), Err(ParseError::Tag));
        assert_eq!(tag_of(b"<sip:a@b>;tag="), Err(ParseError::Tag));
        assert_eq!(tag_of(b"<sip:a@b>;tag=1;tag=1"), Err(ParseError::Tag));
    }

    #[test]
    fn each_fault_has_its_cause() {
        for (text, error) in [
            (
                &br#""Mr. J. User <sip:j.user@example.com>"#[..],
                ParseError::QuoteUnbalanced,
            ),
            (b"Bell, A <sip:a@b>;tag=43", ParseError::AddressComma),
            (b"<sip:a@b>, <sip:c@d>", ParseError::AddressComma),
            (b"<sip:a@b", ParseError::BracketUnbalanced),
            (b"<sip:a@b> x", ParseError::AddressTrailer),
        ] {
            assert_eq!(tag_of(text), Err(error), "{}", text.escape_ascii());
            assert_eq!(parse(text), Err(error), "{}", text.escape_ascii());
        }
        // RFC 4475 §3.1.2.13
        assert_eq!(parse(b"sip:a@b?Route=x"), Err(ParseError::UriHeaders));
        // RFC 4475 §3.1.2.14
        assert!(parse(b"\"W\" < sip:a@b >").is_ok());
    }
}
