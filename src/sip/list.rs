//! Comma lists: the values of one row, and how to delete the first (RFC 3261 §7.3.1).
//!
//! Commas inside quoted strings and angle brackets do not separate; a Via has no brackets, so there
//! they are ordinary. Empty elements are no values.

use super::Span;
use super::header::{HeaderName, HeaderRow};
use super::scan::{byte, find_any, quoted_end, trim};

/// The values of a comma list. Each span is trimmed.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    bytes: &'a [u8],
    pos: usize,
    end: usize,
    brackets: bool,
}

/// The values of `row`, in order.
pub fn values<'a>(bytes: &'a [u8], row: &HeaderRow) -> Values<'a> {
    let end = row.value.end().min(bytes.len());
    Values {
        bytes,
        pos: row.value.start().min(end),
        end,
        brackets: row.name != HeaderName::Via,
    }
}

impl Iterator for Values<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        while self.pos < self.end {
            let comma = value_end(self.bytes, self.pos, self.end, self.brackets);
            let (start, end) = trim(self.bytes, self.pos, comma);
            self.pos = comma + 1;
            if start < end {
                return Some(Span::at(start, end));
            }
        }
        None
    }
}

/// Where the value at `pos` ends: at its comma or at `end`.
///
/// A quote or bracket without its other half takes the rest: what cannot be told apart stays
/// together.
fn value_end(bytes: &[u8], mut pos: usize, end: usize, brackets: bool) -> usize {
    while pos < end {
        pos = find_any(bytes, pos, end, [b',', b'"', b'<']);
        if pos >= end {
            break;
        }
        match byte(bytes, pos) {
            b',' => return pos,
            b'"' => pos = quoted_end(bytes, pos, end).unwrap_or(end),
            _ if brackets => pos = find_any(bytes, pos, end, [b'>']),
            _ => pos += 1,
        }
    }
    end
}

/// The bytes to delete so that exactly the first value of `row` disappears.
///
/// That is the whole row if it holds one value or none, else everything from the first value up to
/// the second; all other bytes stay as they are (RFC 3261 §16.7 step 3, §16.4).
pub fn first_value_removal(bytes: &[u8], row: &HeaderRow) -> Span {
    let mut values = values(bytes, row);
    match (values.next(), values.next()) {
        (Some(first), Some(second)) => Span::at(first.start(), second.start()),
        _ => row.row,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &[u8]) -> HeaderRow {
        let colon = text.iter().position(|byte| *byte == b':').unwrap();
        let (start, end) = trim(text, colon + 1, text.len());
        HeaderRow {
            name: HeaderName::Other,
            row: Span::whole(text).unwrap(),
            value: Span::at(start, end),
        }
    }

    #[test]
    fn a_via_has_no_brackets() {
        let text = b"v: SIP/2.0/UDP a;x=<,SIP/2.0/UDP b\r\n";
        let via = HeaderRow {
            name: HeaderName::Via,
            ..row(text)
        };
        assert_eq!(values(text, &via).count(), 2);
        assert_eq!(values(text, &row(text)).count(), 1);
    }

    fn split(text: &[u8]) -> Vec<&[u8]> {
        values(text, &row(text)).map(|span| span.of(text)).collect()
    }

    fn without_first(text: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        let gone = first_value_removal(&text, &row(&text));
        text.drain(gone.range());
        text
    }

    #[test]
    fn commas_in_quotes_and_brackets_do_not_separate() {
        assert_eq!(
            split(b"Route: \"a,\\\"b\" <sip:x,y@z>;q=\",\" ,\r\n <sip:b>,<sip:c>\r\n"),
            [
                &b"\"a,\\\"b\" <sip:x,y@z>;q=\",\""[..],
                b"<sip:b>",
                b"<sip:c>"
            ]
        );
        assert_eq!(split(b"X: , ,a,,b,\r\n"), [&b"a"[..], b"b"]);
        assert_eq!(split(b"X:\r\n"), [] as [&[u8]; 0]);
        assert_eq!(split(b"X: \"a,b\r\n"), [&b"\"a,b"[..]]);
        assert_eq!(split(b"X: <a,b\r\n"), [&b"<a,b"[..]]);
    }

    #[test]
    fn the_first_value_goes_and_the_rest_stays() {
        assert_eq!(without_first(b"v:  a ,\r\n b, c\r\n"), b"v:  b, c\r\n");
        assert_eq!(
            without_first(b"Via:\r\n a;x=\",\",b\r\n"),
            b"Via:\r\n b\r\n"
        );
        assert_eq!(without_first(b"Via: a\r\n"), b"");
        assert_eq!(without_first(b"Via: a,\r\n"), b"");
        assert_eq!(without_first(b"Via:\r\n"), b"");
    }
}
