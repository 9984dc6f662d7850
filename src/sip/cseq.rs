//! CSeq: a number and a method (RFC 3261 §20.16).

use super::method::Method;
use super::scan::{Number, is_token, leading_number, skip_lws};
use super::{ParseError, Span};

/// Numbers of a CSeq stay below this (RFC 3261 §8.1.1.5).
pub(super) const NUMBER_END: u32 = 1 << 31;

/// A CSeq, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq {
    /// The sequence number.
    pub number: u32,
    /// The method.
    pub method: Method,
    /// The method as written.
    pub method_span: Span,
}

impl CSeq {
    /// `CSeq = 1*DIGIT LWS Method`
    #[inline(always)]
    pub(super) fn parse(bytes: &[u8], span: Span) -> Result<Self, ParseError> {
        let (start, end) = (span.start(), span.end());
        let (number, digits_end) = leading_number(bytes, start, end);
        let method_start = skip_lws(bytes, digits_end, end);
        let method = Method::at(bytes, method_start, end - method_start);
        let method_span = Span::at(method_start, end);
        if method_start == digits_end
            || (method == Method::Other && !is_token(method_span.of(bytes)))
        {
            return Err(ParseError::CSeq);
        }
        match number {
            Number::Value(number) if number < NUMBER_END => Ok(Self {
                number,
                method,
                method_span,
            }),
            Number::Malformed => Err(ParseError::CSeq),
            _ => Err(ParseError::CSeqTooLarge),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<CSeq, ParseError> {
        CSeq::parse(text, Span::whole(text).unwrap())
    }

    #[test]
    fn number_and_method() {
        let cseq = parse(b"0009\r\n  INVITE").unwrap();
        assert_eq!((cseq.number, cseq.method), (9, Method::Invite));
        let cseq = parse(b"1 RE%47IST%45R").unwrap();
        assert_eq!(cseq.method, Method::Other);
    }

    // RFC 3261 §8.1.1.5: less than 2^31.
    #[test]
    fn the_number_ends_below_two_to_the_31() {
        assert_eq!(
            parse(b"2147483647 ACK").map(|cseq| cseq.number),
            Ok(NUMBER_END - 1)
        );
        assert_eq!(parse(b"2147483648 ACK"), Err(ParseError::CSeqTooLarge));
        assert_eq!(
            parse(b"36893488147419103232 REGISTER"),
            Err(ParseError::CSeqTooLarge)
        );
    }

    #[test]
    fn anything_else_is_malformed() {
        for text in [
            &b""[..],
            b"1",
            b"INVITE",
            b"1INVITE",
            b"-1 INVITE",
            b"1 A B",
            b"1 A@",
        ] {
            assert_eq!(
                parse(text),
                Err(ParseError::CSeq),
                "{}",
                text.escape_ascii()
            );
        }
    }
}
