//! One message as a worker notes it: the fields as they stand in it, in memory of fixed size.

use crate::limits::{CLF_FIELD_LEN_MAX, CLF_TEXT_LEN};
use crate::net::SocketAddr;
use crate::sip::{HeaderName, Kind, Message, NameAddr, Span};

/// The fields that are text, in the order of RFC 6873 §4.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// CSeq number and method.
    CSeq,
    /// Request-URI.
    RequestUri,
    /// To without its parameters.
    To,
    /// To tag.
    ToTag,
    /// From without its parameters.
    From,
    /// From tag.
    FromTag,
    /// Call-ID.
    CallId,
    /// Branch on the side the request came from.
    ServerTransaction,
    /// Branch on the side the request went to.
    ClientTransaction,
}

/// How many there are.
const FIELDS: usize = 9;
const _: () = assert!(CLF_TEXT_LEN >= FIELDS * CLF_FIELD_LEN_MAX);

/// What stands for a field that is there and cannot be read.
const UNREADABLE: &[u8] = b"?";

/// One message.
#[derive(Clone, Debug)]
pub struct Record {
    /// Nanoseconds since the epoch.
    pub nanos: u64,
    /// Whether it was sent; else it was received.
    pub is_sent: bool,
    /// Whether it is a response.
    pub is_response: bool,
    /// The status code of a response.
    pub status: u16,
    /// Who sent it.
    pub src: SocketAddr,
    /// Who gets it.
    pub dst: SocketAddr,
    /// Where each field ends in `text`; it starts where the one before it ends.
    ends: [u16; FIELDS],
    text: [u8; CLF_TEXT_LEN],
}

impl Record {
    /// An empty one.
    pub fn new() -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            nanos: 0,
            is_sent: false,
            is_response: false,
            status: 0,
            src: nowhere,
            dst: nowhere,
            ends: [0; FIELDS],
            text: [0; CLF_TEXT_LEN],
        }
    }

    /// A field; empty if the message has none. Longer than [`CLF_FIELD_LEN_MAX`] it is cut.
    pub fn field(&self, field: Field) -> &[u8] {
        let index = field as usize;
        let start = match index.checked_sub(1) {
            Some(before) => usize::from(self.ends[before]),
            None => 0,
        };
        let end = usize::from(self.ends[index]);
        self.text.get(start..end).unwrap_or_default()
    }

    /// Sets all fields, in order.
    pub(super) fn set_fields(&mut self, fields: [&[u8]; FIELDS]) {
        let mut end = 0;
        for (field, mark) in fields.into_iter().zip(&mut self.ends) {
            let field = field.get(..CLF_FIELD_LEN_MAX).unwrap_or(field);
            if let Some(room) = self.text.get_mut(end..end + field.len()) {
                room.copy_from_slice(field);
                end += field.len();
            }
            // At most CLF_TEXT_LEN, which fits.
            *mark = u16::try_from(end).unwrap_or(u16::MAX);
        }
    }

    /// Notes a message that was parsed, well or not. The branches are those of its own Vias, the
    /// first on the client side (RFC 6872 §8.1: a transaction may be named by its branch).
    pub(super) fn note(&mut self, message: &Message, bytes: &[u8], branches: Branches<'_>) {
        self.is_response = message.kind() == Kind::Response;
        self.status = message.status();
        let cseq = match (message.cseq(), message.first(HeaderName::CSeq)) {
            (Some(_), Some(row)) => row.value.of(bytes),
            (None, Some(_)) => UNREADABLE,
            _ => &[],
        };
        let request_uri = match message.request_uri() {
            Some(uri) => uri.span.of(bytes),
            None if self.is_response => &[],
            None => UNREADABLE,
        };
        let of = |span: Option<Span>| span.unwrap_or_default().of(bytes);
        self.set_fields([
            cseq,
            request_uri,
            uri_of(message, bytes, HeaderName::To),
            of(message.to_tag()),
            uri_of(message, bytes, HeaderName::From),
            of(message.from_tag()),
            of(message.call_id()),
            branches.server,
            branches.client,
        ]);
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

/// The two transactions that a message belongs to; empty where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Branches<'a> {
    pub(super) server: &'a [u8],
    pub(super) client: &'a [u8],
}

/// The branches of a message's first and second Via.
pub(super) fn branches<'a>(message: &Message, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let of = |span: Option<Span>| span.unwrap_or_default().of(bytes);
    let top = message.top_via().and_then(|via| via.branch);
    let next = message.next_via(bytes).ok().flatten();
    (of(top), of(next.and_then(|via| via.branch)))
}

/// The URI of an address, without what follows host and port: RFC 6872 §8.1 wants it short.
fn uri_of<'a>(message: &Message, bytes: &'a [u8], name: HeaderName) -> &'a [u8] {
    let Some(row) = message.first(name) else {
        return &[];
    };
    let Ok(address) = NameAddr::parse(bytes, row.value) else {
        return UNREADABLE;
    };
    let uri = address.uri;
    let end = match (uri.params.is_empty(), uri.headers) {
        (false, _) => uri.params.start(),
        // Behind `?`.
        (true, Some(headers)) => headers.start().saturating_sub(1),
        (true, None) => uri.span.end(),
    };
    bytes.get(uri.span.start()..end).unwrap_or_default()
}
