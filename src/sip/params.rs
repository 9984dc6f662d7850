//! Parameters: `;name` or `;name=value`, in URIs, Vias and addresses (RFC 3261 §25.1).
//!
//! Names compare without case (§7.3.1). A value is a token, a host, or a quoted string, which keeps
//! its quotes here. White space may stand around `;` and `=`.

use super::scan::{byte, find_any_or_blank, quoted_end, skip_lws};
use super::{ParseError, Span};

/// One parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// From the `;` to the end of the value: what to delete to remove the parameter.
    pub whole: Span,
    /// The name.
    pub name: Span,
    /// What stands behind `=`; `None` without `=`, and empty for nothing behind it.
    pub value: Option<Span>,
}

impl Param {
    /// Whether the name is `name`, in any case.
    #[inline]
    pub fn is_named(&self, bytes: &[u8], name: &[u8]) -> bool {
        self.name.of(bytes).eq_ignore_ascii_case(name)
    }

    /// Parses the parameter whose `;` stands at `semicolon`.
    ///
    /// The end of `whole` is where to go on: there, or behind white space, stands `;`, `,` or the
    /// end of the range, else the parameter is malformed.
    #[inline]
    pub(super) fn parse_at(bytes: &[u8], semicolon: usize, end: usize) -> Result<Self, ParseError> {
        let mut pos = semicolon + 1;
        if byte(bytes, pos) <= b' ' {
            pos = skip_lws(bytes, pos, end);
        }
        let name_start = pos;
        pos = find_any_or_blank(bytes, pos, end, [b'=', b';', b',', b'"']);
        if pos == name_start {
            return Err(ParseError::Parameter);
        }
        let name = Span::at(name_start, pos);
        let name_end = pos;
        if pos < end && byte(bytes, pos) <= b' ' {
            pos = skip_lws(bytes, pos, end);
        }
        if pos >= end || byte(bytes, pos) != b'=' {
            return Ok(Self {
                whole: Span::at(semicolon, name_end),
                name,
                value: None,
            });
        }
        pos += 1;
        if pos < end && byte(bytes, pos) <= b' ' {
            pos = skip_lws(bytes, pos, end);
        }
        let value_start = pos;
        pos = if pos < end && byte(bytes, pos) == b'"' {
            quoted_end(bytes, pos, end)?
        } else {
            find_any_or_blank(bytes, pos, end, [b';', b',', b'"'])
        };
        Ok(Self {
            whole: Span::at(semicolon, pos),
            name,
            value: Some(Span::at(value_start, pos)),
        })
    }
}

/// The parameters of a range that starts with `;` or is empty. Ends early where one is malformed.
#[derive(Clone, Debug)]
pub struct Params<'a> {
    bytes: &'a [u8],
    pos: usize,
    end: usize,
}

impl<'a> Params<'a> {
    /// The parameters in `span`.
    pub fn new(bytes: &'a [u8], span: Span) -> Self {
        Self {
            bytes,
            pos: span.start(),
            end: span.end().min(bytes.len()),
        }
    }

    /// The first parameter of this name, in any case.
    #[inline]
    pub fn named(mut self, name: &[u8]) -> Option<Param> {
        let bytes = self.bytes;
        self.find(|param| param.is_named(bytes, name))
    }
}

impl Iterator for Params<'_> {
    type Item = Param;

    fn next(&mut self) -> Option<Param> {
        let pos = skip_lws(self.bytes, self.pos, self.end);
        if pos >= self.end || byte(self.bytes, pos) != b';' {
            return None;
        }
        let param = Param::parse_at(self.bytes, pos, self.end).ok()?;
        self.pos = param.whole.end();
        Some(param)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, value, and what to delete.
    type Parts<'a> = (&'a [u8], Option<&'a [u8]>, &'a [u8]);

    fn all(text: &[u8]) -> Vec<Parts<'_>> {
        let span = Span::whole(text).unwrap();
        Params::new(text, span)
            .map(|param| {
                (
                    param.name.of(text),
                    param.value.map(|value| value.of(text)),
                    param.whole.of(text),
                )
            })
            .collect()
    }

    #[test]
    fn names_values_and_what_to_delete() {
        assert_eq!(
            all(b";lr;a=b ; c\r\n = \r\n \"x;\\\"y\" ;d="),
            [
                (&b"lr"[..], None, &b";lr"[..]),
                (b"a", Some(&b"b"[..]), b";a=b"),
                (b"c", Some(b"\"x;\\\"y\""), b"; c\r\n = \r\n \"x;\\\"y\""),
                (b"d", Some(b""), b";d="),
            ]
        );
        assert_eq!(all(b""), []);
        assert_eq!(all(b";;a"), []);
        assert_eq!(all(b";a=\"x"), []);
    }

    #[test]
    fn a_name_is_found_in_any_case_and_only_whole() {
        let text = b";transport=udp;TRANS=1";
        let params = Params::new(text, Span::whole(text).unwrap());
        let found = params.clone().named(b"trans").unwrap();
        assert_eq!(found.value.unwrap().of(text), b"1");
        assert!(params.named(b"tran").is_none());
    }
}
