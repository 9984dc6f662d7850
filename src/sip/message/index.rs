//! The one pass over a datagram that fills the index.
//!
//! Line ends are found first, then the name of each row, then those few rows are decoded that every
//! message is forwarded by.
//!
//! # What is malformed
//!
//! RFC 3261 §16.3 step 1: only what a proxy uses must be well-formed; the rest is forwarded as it
//! is. Used here are the framing, the start line, the first Via value, Call-ID, CSeq, the addresses
//! and tags of From and To, Content-Length, and that the rows which may stand once do so. A bad
//! Max-Forwards is told by [`MaxForwards::value`], not by an error. After an error the index holds
//! all that could be read, so that an answer can be made of it.
//!
//! Line ends must be CRLF: a message in which a CR or LF of its own stands in the header section is
//! an error, since other parsers take it for a line end or not as they like, and then two elements
//! see two different messages. For the index a bare LF ends a line.

use super::super::cseq::CSeq;
use super::super::name_addr;
use super::super::scan::{self, LineEnd, Lines, Number, byte, colon_mask, number, trim};
use super::super::start_line::StartLine;
use super::super::via::Via;
use super::{
    HeaderName, HeaderRow, Kind, MaxBreadth, MaxForwards, Message, Method, ParseError, Span,
};
use crate::limits::{HEADER_SECTION_LEN_MAX, HEADERS_MAX, MESSAGE_LEN_MAX};

impl Message {
    /// Indexes a UDP datagram.
    ///
    /// # Errors
    ///
    /// The first cause met. The index holds what could be read.
    pub fn parse(&mut self, datagram: &[u8]) -> Result<(), ParseError> {
        self.reset();
        if datagram.len() > MESSAGE_LEN_MAX {
            return Err(ParseError::MessageTooLong);
        }
        // Until the empty line is met there is no body.
        self.body = Span::at(datagram.len(), datagram.len());
        let mut lines = Lines::new(datagram);
        let rows_start = self.read_start_line(datagram, &mut lines)?;
        let headers_end = match self.read_rows(datagram, &mut lines, rows_start) {
            Ok(headers_end) => headers_end,
            Err(error) => return Err(self.error.unwrap_or(error)),
        };
        if lines.bare() {
            self.fail(ParseError::BareLineEnd);
        }
        if headers_end - self.line.span.start() > HEADER_SECTION_LEN_MAX {
            self.fail(ParseError::HeadersTooLong);
        }
        self.check_counts();
        self.frame_body(headers_end, datagram.len());
        self.error.map_or(Ok(()), Err)
    }

    /// Forgets the last message. The tables keep their bytes; nothing reads them.
    #[inline]
    fn reset(&mut self) {
        self.line = StartLine::EMPTY;
        self.top_via = None;
        self.call_id = None;
        self.call_id_hash = None;
        self.cseq = None;
        self.from_tag = None;
        self.to_tag = None;
        self.max_forwards = None;
        self.max_breadth = None;
        self.content_length = None;
        self.body = Span::EMPTY;
        self.seen = 0;
        self.repeated = 0;
        self.row_count = 0;
        self.error = None;
    }

    #[inline]
    fn fail(&mut self, error: ParseError) {
        self.error.get_or_insert(error);
    }

    #[inline]
    fn note(&mut self, result: Result<(), ParseError>) {
        if let Err(error) = result {
            self.fail(error);
        }
    }

    /// Reads the start line and tells where the next line starts.
    #[inline]
    fn read_start_line(
        &mut self,
        datagram: &[u8],
        lines: &mut Lines<'_>,
    ) -> Result<usize, ParseError> {
        let mut start = 0;
        let (end, next) = loop {
            let LineEnd { text, next } = lines.next_end().ok_or(ParseError::NotSip)?;
            if text > start {
                break (text, next);
            }
            // RFC 3261 §7.5: CRLF before the start line is ignored.
            start = next;
        };
        let result = self.line.parse(datagram, start, end);
        if self.line.kind == Kind::Unknown {
            return Err(ParseError::NotSip);
        }
        self.note(result);
        if matches!(byte(datagram, next), b' ' | b'\t') {
            self.fail(ParseError::StartLineFolded);
        }
        Ok(next)
    }

    /// Reads all rows and tells where the body starts.
    #[inline]
    fn read_rows(
        &mut self,
        datagram: &[u8],
        lines: &mut Lines<'_>,
        mut start: usize,
    ) -> Result<usize, ParseError> {
        loop {
            let first = lines.next_end().ok_or(ParseError::HeadersUnterminated)?;
            if first.text == start {
                return Ok(first.next);
            }
            // RFC 3261 §7.3.1: a line that starts with white space continues the row.
            let mut last = first;
            while matches!(byte(datagram, last.next), b' ' | b'\t') {
                last = lines.next_end().ok_or(ParseError::HeadersUnterminated)?;
            }
            if self.row_count == HEADERS_MAX {
                return Err(ParseError::TooManyHeaders);
            }
            self.read_row(datagram, start, first.text, last);
            start = last.next;
        }
    }

    /// Indexes the row at `start`, whose first line ends at `first_end` and its last at `last`.
    #[inline(always)]
    fn read_row(&mut self, datagram: &[u8], start: usize, first_end: usize, last: LineEnd) {
        let end = last.text;
        let (name, colon) = match read_name(datagram, start, first_end) {
            Some(found) => found,
            None => {
                // RFC 3261 §16.3 step 1: not a header, so none that we use; it goes through as it
                // is. Folded, others might join the lines to a header that we did not see.
                if end != first_end {
                    self.fail(ParseError::HeaderWithoutColon);
                }
                (HeaderName::Other, end)
            }
        };
        let (value_start, value_end) = value_bounds(datagram, (colon + 1).min(end), end);
        let value = Span::at(value_start, value_end);
        if let Some(row) = self.rows.get_mut(self.row_count) {
            *row = HeaderRow {
                name,
                row: Span::at(start, last.next),
                value,
            };
        }
        let first = self.seen & name.bit() == 0;
        if first {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "row_count < HEADERS_MAX <= 256"
            )]
            if let Some(row) = self.first_rows.get_mut(name as usize) {
                *row = self.row_count as u8;
            }
            self.seen |= name.bit();
            self.row_count += 1;
            if name as u8 <= HeaderName::MaxBreadth as u8 {
                self.decode(datagram, name, value);
            }
        } else {
            self.repeated |= name.bit();
            self.row_count += 1;
        }
    }

    /// Decodes the first row of a header that the forwarder always needs.
    #[inline]
    fn decode(&mut self, datagram: &[u8], name: HeaderName, value: Span) {
        let (start, end) = (value.start(), value.end());
        match name {
            HeaderName::Via => {
                let result = Via::parse_at(datagram, start, end, &mut self.top_via);
                self.note(result.map(|_| ()));
            }
            HeaderName::From => match name_addr::tag(datagram, start, end) {
                Ok(tag) => self.from_tag = tag,
                Err(error) => self.fail(error),
            },
            HeaderName::To => match name_addr::tag(datagram, start, end) {
                Ok(tag) => self.to_tag = tag,
                Err(error) => self.fail(error),
            },
            HeaderName::CallId => {
                // RFC 3261 §25.1: callid = word [ "@" word ], and a word has no white space.
                let blank = scan::find_any_or_blank(datagram, start, end, []);
                if start < end && blank == end {
                    self.call_id = Some(value);
                } else {
                    self.fail(ParseError::CallId);
                }
            }
            HeaderName::CSeq => match CSeq::parse(datagram, value) {
                Ok(cseq) => {
                    self.cseq = Some(cseq);
                    // RFC 3261 §8.1.1.5: the method MUST match that of the request.
                    if self.line.kind == Kind::Request
                        && (cseq.method != self.line.method
                            || (cseq.method == Method::Other
                                && cseq.method_span.of(datagram)
                                    != self.line.method_span.of(datagram)))
                    {
                        self.fail(ParseError::CSeqMethod);
                    }
                }
                Err(error) => self.fail(error),
            },
            HeaderName::MaxForwards => {
                let number = match number(datagram, start, end) {
                    Number::Value(number) => u8::try_from(number).ok(),
                    _ => None,
                };
                self.max_forwards = Some(MaxForwards {
                    span: value,
                    value: number,
                });
            }
            HeaderName::MaxBreadth => {
                let number = match number(datagram, start, end) {
                    Number::Value(number) => Some(number),
                    _ => None,
                };
                self.max_breadth = Some(MaxBreadth {
                    span: value,
                    value: number,
                });
            }
            HeaderName::ContentLength => self.decode_content_length(datagram, value),
            _ => {}
        }
    }

    #[inline(always)]
    fn decode_content_length(&mut self, datagram: &[u8], value: Span) {
        let (start, end) = (value.start(), value.end());
        match number(datagram, start, end) {
            Number::Value(length) => match usize::try_from(length) {
                Ok(length) if length <= MESSAGE_LEN_MAX => {
                    self.content_length = Some((value, length));
                }
                _ => self.fail(ParseError::ContentLengthTooLarge),
            },
            Number::TooLarge => self.fail(ParseError::ContentLengthTooLarge),
            Number::Malformed => {
                let negative = byte(datagram, start) == b'-'
                    && number(datagram, start + 1, end) != Number::Malformed;
                self.fail(if negative {
                    ParseError::ContentLengthNegative
                } else {
                    ParseError::ContentLength
                });
            }
        }
    }

    /// RFC 3261 §8.1.1, §20: what every message has, and what it has once.
    #[inline]
    fn check_counts(&mut self) {
        const NEEDED: u64 = HeaderName::Via.bit()
            | HeaderName::From.bit()
            | HeaderName::To.bit()
            | HeaderName::CallId.bit()
            | HeaderName::CSeq.bit();
        const SINGLE: u64 = HeaderName::From.bit()
            | HeaderName::To.bit()
            | HeaderName::CallId.bit()
            | HeaderName::CSeq.bit()
            | HeaderName::MaxForwards.bit()
            | HeaderName::ContentLength.bit()
            | HeaderName::MaxBreadth.bit();
        if self.seen & NEEDED == NEEDED && self.repeated & SINGLE == 0 {
            return;
        }
        for (name, missing, twice) in [
            (HeaderName::Via, Some(ParseError::ViaMissing), None),
            (
                HeaderName::From,
                Some(ParseError::FromMissing),
                Some(ParseError::FromTwice),
            ),
            (
                HeaderName::To,
                Some(ParseError::ToMissing),
                Some(ParseError::ToTwice),
            ),
            (
                HeaderName::CallId,
                Some(ParseError::CallIdMissing),
                Some(ParseError::CallIdTwice),
            ),
            (
                HeaderName::CSeq,
                Some(ParseError::CSeqMissing),
                Some(ParseError::CSeqTwice),
            ),
            (
                HeaderName::MaxForwards,
                None,
                Some(ParseError::MaxForwardsTwice),
            ),
            (
                HeaderName::ContentLength,
                None,
                Some(ParseError::ContentLengthTwice),
            ),
            (
                HeaderName::MaxBreadth,
                None,
                Some(ParseError::MaxBreadthTwice),
            ),
        ] {
            let cause = if self.seen & name.bit() == 0 {
                missing
            } else if self.repeated & name.bit() != 0 {
                twice
            } else {
                None
            };
            if let Some(cause) = cause {
                self.fail(cause);
            }
        }
    }

    /// RFC 3261 §18.3: over UDP a body ends where Content-Length says, and without one where the
    /// datagram ends; a datagram that is too short for it is an error.
    #[inline]
    fn frame_body(&mut self, start: usize, datagram_len: usize) {
        let end = match self.content_length {
            Some((_, length)) if length <= datagram_len - start => start + length,
            Some(_) => {
                self.fail(ParseError::BodyTruncated);
                datagram_len
            }
            None => datagram_len,
        };
        self.body = Span::at(start, end);
    }
}

/// The name at `start` and where its colon is; `None` without a colon on the line.
#[inline(always)]
fn read_name(datagram: &[u8], start: usize, end: usize) -> Option<(HeaderName, usize)> {
    if let Some(chunk) = datagram.get(start..).and_then(<[u8]>::first_chunk::<16>) {
        // A bit beyond the chunk stands for "none".
        let len = (colon_mask(chunk) | 1 << 16).trailing_zeros() as usize;
        if len < 16 && len > 0 && start + len < end && byte(chunk, len - 1) > b' ' {
            return Some((HeaderName::of_chunk(chunk, len), start + len));
        }
    }
    read_odd_name(datagram, start, end)
}

/// The same for a long name, at the end of the datagram, or with white space before the colon.
#[inline(never)]
fn read_odd_name(datagram: &[u8], start: usize, end: usize) -> Option<(HeaderName, usize)> {
    let colon = scan::find_any(datagram, start, end, [b':']);
    if colon >= end {
        return None;
    }
    // RFC 3261 §25.1: HCOLON = *( SP / HTAB ) ":" SWS
    let name = datagram.get(start..colon).unwrap_or_default();
    Some((HeaderName::parse(name.trim_ascii_end()), colon))
}

/// The value in `start..end` without white space around it.
#[inline]
fn value_bounds(datagram: &[u8], start: usize, end: usize) -> (usize, usize) {
    // Nearly always one space, then text, and text up to the CR.
    let after = start + usize::from(byte(datagram, start) == b' ');
    if after < end && byte(datagram, after) > b' ' && byte(datagram, end - 1) > b' ' {
        return (after, end);
    }
    trim(datagram, start, end)
}
