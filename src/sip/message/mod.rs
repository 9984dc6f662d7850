//! The index of one message: what [`Message::parse`] finds in a datagram in one pass.
//!
//! ```text
//! INVITE sip:bob@… SIP/2.0 CRLF         decoded: method, URI
//! Via: SIP/2.0/UDP …;branch=… CRLF      row 0, decoded: the top Via
//! Max-Forwards: 70 CRLF                 row 1, decoded
//! …                                     row n: name and spans, nothing more
//! CRLF
//! body                                  a span, never looked at
//! ```
//!
//! One `Message` serves a worker for its life: it holds no reference to the datagram and no heap,
//! and starting over costs a few words, because rows behind `row_count` and first-row entries of
//! names not seen are never read. All spans lie inside the datagram that was parsed last.

mod index;
mod vias;

pub use vias::Vias;

use super::cseq::CSeq;
use super::header::{HeaderName, HeaderRow, NAMES};
use super::method::Method;
use super::start_line::StartLine;
use super::uri::Uri;
use super::via::Via;
use super::{ParseError, Span};
use crate::limits::{HEADERS_MAX, MESSAGE_LEN_MAX};

/// Whether a message is a request or a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request line was read.
    Request,
    /// A status line was read.
    Response,
    /// No start line could be read.
    Unknown,
}

/// The Max-Forwards of a request (RFC 3261 §20.22).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxForwards {
    /// The value as written.
    pub span: Span,
    /// 0 to 255; `None` if it is anything else, see RFC 4475 §3.1.2.4.
    pub value: Option<u8>,
}

/// The Max-Breadth of a request (RFC 5393 §5.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxBreadth {
    /// The value as written.
    pub span: Span,
    /// The number; `None` if it is none of 32 bits.
    pub value: Option<u32>,
}

/// The index of one message.
#[derive(Clone, Debug)]
pub struct Message {
    line: StartLine,
    top_via: Option<Via>,
    call_id: Option<Span>,
    call_id_hash: Option<u64>,
    cseq: Option<CSeq>,
    from_tag: Option<Span>,
    to_tag: Option<Span>,
    max_forwards: Option<MaxForwards>,
    max_breadth: Option<MaxBreadth>,
    content_length: Option<(Span, usize)>,
    body: Span,
    /// Names seen, and seen more than once, as [`HeaderName::bit`]s.
    seen: u64,
    repeated: u64,
    /// Row of the first header of each name; stale for names not in `seen`.
    first_rows: [u8; NAMES],
    /// INVARIANT: at most `HEADERS_MAX`; rows behind it are stale.
    row_count: usize,
    rows: [HeaderRow; HEADERS_MAX],
    error: Option<ParseError>,
}

const _: () = assert!(HEADERS_MAX <= u8::MAX as usize + 1);
const _: () = assert!(MESSAGE_LEN_MAX <= u16::MAX as usize);

impl Message {
    /// An empty index.
    pub fn new() -> Self {
        Self {
            line: StartLine::EMPTY,
            top_via: None,
            call_id: None,
            call_id_hash: None,
            cseq: None,
            from_tag: None,
            to_tag: None,
            max_forwards: None,
            max_breadth: None,
            content_length: None,
            body: Span::EMPTY,
            seen: 0,
            repeated: 0,
            first_rows: [0; NAMES],
            row_count: 0,
            rows: [HeaderRow::EMPTY; HEADERS_MAX],
            error: None,
        }
    }

    /// Request, response, or neither.
    #[inline]
    pub fn kind(&self) -> Kind {
        self.line.kind
    }

    /// The method of a request; `Other` for a response.
    #[inline]
    pub fn method(&self) -> Method {
        self.line.method
    }

    /// The method as written.
    pub fn method_span(&self) -> Span {
        self.line.method_span
    }

    /// The Request-URI, decoded; `None` if it is malformed or this is no request.
    #[inline]
    pub fn request_uri(&self) -> Option<&Uri> {
        self.line.uri.as_ref()
    }

    /// The Request-URI as written.
    pub fn request_uri_span(&self) -> Span {
        self.line.uri_span
    }

    /// The status code of a response; 0 for a request, or if the code is malformed.
    #[inline]
    pub fn status(&self) -> u16 {
        self.line.status
    }

    /// The reason phrase.
    pub fn reason(&self) -> Span {
        self.line.reason
    }

    /// The version as written.
    pub fn version(&self) -> Span {
        self.line.version
    }

    /// The start line without its line end. What stands before it is CRLF that does not belong to
    /// the message.
    pub fn start_line(&self) -> Span {
        self.line.span
    }

    /// All rows, in order.
    #[inline]
    pub fn headers(&self) -> &[HeaderRow] {
        self.rows.get(..self.row_count).unwrap_or_default()
    }

    /// Whether a header of this name is present.
    #[inline]
    pub fn has(&self, name: HeaderName) -> bool {
        self.seen & name.bit() != 0
    }

    /// The first row of this name.
    #[inline]
    pub fn first(&self, name: HeaderName) -> Option<&HeaderRow> {
        self.headers().get(self.first_index(name)?)
    }

    #[inline]
    fn first_index(&self, name: HeaderName) -> Option<usize> {
        if !self.has(name) {
            return None;
        }
        self.first_rows
            .get(name as usize)
            .map(|row| usize::from(*row))
    }

    /// All rows of this name, in order.
    pub fn rows(&self, name: HeaderName) -> impl Iterator<Item = &HeaderRow> + Clone {
        let rows = match self.first_index(name) {
            Some(first) => self.headers().get(first..).unwrap_or_default(),
            None => &[],
        };
        rows.iter().filter(move |row| row.name == name)
    }

    /// The first Via value. It is there after an error, too, if its sent-by could be read.
    #[inline]
    pub fn top_via(&self) -> Option<&Via> {
        self.top_via.as_ref()
    }

    /// The second Via value, in the same row or the next; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`Via::parse`].
    pub fn next_via(&self, datagram: &[u8]) -> Result<Option<Via>, ParseError> {
        self.vias_below(datagram).next().transpose()
    }

    /// The Via values below the first, which is decoded already; else as [`Message::vias`].
    #[inline]
    pub fn vias_below<'a>(&'a self, datagram: &'a [u8]) -> Vias<'a> {
        Vias::below_top(self, datagram)
    }

    /// All Via values in order, decoded one by one; ends behind the first malformed one.
    pub fn vias<'a>(&'a self, datagram: &'a [u8]) -> Vias<'a> {
        Vias::new(self, datagram)
    }

    /// The Call-ID.
    #[inline]
    pub fn call_id(&self) -> Option<Span> {
        self.call_id
    }

    /// What [`note_call_id_hash`](Self::note_call_id_hash) was told of this message.
    #[inline]
    pub fn call_id_hash(&self) -> Option<u64> {
        self.call_id_hash
    }

    /// Keeps a hash of the Call-ID beside the index, for whoever needs it again. The next parse
    /// forgets it.
    #[inline]
    pub fn note_call_id_hash(&mut self, hash: u64) {
        self.call_id_hash = Some(hash);
    }

    /// The CSeq.
    #[inline]
    pub fn cseq(&self) -> Option<CSeq> {
        self.cseq
    }

    /// The tag of From.
    #[inline]
    pub fn from_tag(&self) -> Option<Span> {
        self.from_tag
    }

    /// The tag of To.
    #[inline]
    pub fn to_tag(&self) -> Option<Span> {
        self.to_tag
    }

    /// The Max-Forwards; `None` if there is no such row.
    #[inline]
    pub fn max_forwards(&self) -> Option<MaxForwards> {
        self.max_forwards
    }

    /// The Max-Breadth; `None` if there is no such row.
    #[inline]
    pub fn max_breadth(&self) -> Option<MaxBreadth> {
        self.max_breadth
    }

    /// The Content-Length, as written and as a number.
    #[inline]
    pub fn content_length(&self) -> Option<(Span, usize)> {
        self.content_length
    }

    /// The body, cut to the Content-Length.
    #[inline]
    pub fn body(&self) -> Span {
        self.body
    }

    /// Where the body starts: behind the empty line.
    #[inline]
    pub fn body_start(&self) -> usize {
        self.body.start()
    }

    /// Where the message ends. RFC 3261 §18.3: what the datagram holds behind it MUST be discarded.
    /// Without an empty line that is the end of the datagram.
    #[inline]
    pub fn message_end(&self) -> usize {
        self.body.end()
    }
}

impl Default for Message {
    fn default() -> Self {
        Self::new()
    }
}
