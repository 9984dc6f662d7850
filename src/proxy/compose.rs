//! Requests that a client transaction of ours makes itself: the ACK of a final response that is no
//! 2xx (RFC 3261 §17.1.1.3), and CANCEL (RFC 3261 §9.1).
//!
//! Both are made of the rows of the INVITE as it left here, so its top `Via` is ours. Rows are
//! copied as they stand, in whatever spelling; only the `Via` value is cut out of a row that may
//! hold the others too. Nothing here keeps, sends or times anything.
//!
//! ```
//! use viaduct::proxy::compose::{self, Parsed, Reason};
//! use viaduct::sip::{Message, Method};
//!
//! let invite = b"INVITE sip:bob@biloxi.example SIP/2.0\r\n\
//!     Via: SIP/2.0/UDP 198.18.0.10;branch=z9hG4bKt0, SIP/2.0/UDP 198.18.0.1;branch=z9hG4bK1\r\n\
//!     To: <sip:bob@biloxi.example>\r\n\
//!     From: <sip:alice@atlanta.example>;tag=1\r\n\
//!     Call-ID: 1@198.18.0.1\r\n\
//!     CSeq: 7 INVITE\r\n\
//!     \r\n";
//! let mut message = Message::new();
//! message.parse(invite)?;
//! let mut text = [0; 1024];
//! let invite = Parsed::new(invite, &message);
//! let len = compose::cancel(invite, Reason::Status(200), &mut text).unwrap();
//! let mut cancel = Message::new();
//! cancel.parse(&text[..len])?;
//! assert_eq!(cancel.method(), Method::Cancel);
//! assert_eq!(cancel.vias(&text[..len]).count(), 1);
//! # Ok::<(), viaduct::sip::ParseError>(())
//! ```

use crate::packet::{Text, Writer};
use crate::sip::{HeaderName, HeaderRow, Message, reason_phrase};

/// A message and its index.
#[derive(Clone, Copy, Debug)]
pub struct Parsed<'a> {
    /// The bytes that `message` was parsed from.
    pub bytes: &'a [u8],
    /// The index of `bytes`.
    pub message: &'a Message,
}

impl<'a> Parsed<'a> {
    /// `message` must have been parsed from `bytes`.
    pub const fn new(bytes: &'a [u8], message: &'a Message) -> Self {
        Self { bytes, message }
    }
}

/// Why a CANCEL is sent (RFC 3326).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason<'a> {
    /// Nothing is said.
    None,
    /// What the client's CANCEL said, as [`reason_rows`] took it.
    Rows(&'a [u8]),
    /// A status: 200 is "Call completed elsewhere", others have their own phrase.
    Status(u16),
}

/// Composes the ACK of `response`, a final response to `invite` that is no 2xx. Tells its length;
/// `None` if it does not fit `out` or the INVITE lacks what the parser demands.
///
/// `invite` is the request as it was sent. A retransmitted response gets its ACK the same way.
pub fn ack(invite: Parsed<'_>, response: Parsed<'_>, out: &mut [u8]) -> Option<usize> {
    let mut out = Writer::new(out);
    begin(&mut out, invite, b"ACK")?;
    // RFC 3261 §17.1.1.3: To is that of the response, with its tag.
    let to = response.message.first(HeaderName::To)?;
    out.push(to.row.of(response.bytes));
    end(&mut out, invite, b"ACK")?;
    out.finish()
}

/// Composes the CANCEL of `invite`. Tells its length; `None` if it does not fit `out` or the INVITE
/// lacks what the parser demands.
///
/// `invite` is the request as it was sent. When to send, RFC 3261 §9.1: not before a provisional
/// response, not after a final one.
pub fn cancel(invite: Parsed<'_>, reason: Reason<'_>, out: &mut [u8]) -> Option<usize> {
    let mut out = Writer::new(out);
    begin(&mut out, invite, b"CANCEL")?;
    push_row(&mut out, invite, invite.message.first(HeaderName::To)?);
    match reason {
        Reason::None => {}
        Reason::Rows(rows) => out.push(rows),
        Reason::Status(status) => {
            out.push(b"Reason: SIP;cause=");
            out.push_decimal(u32::from(status));
            out.push(b";text=\"");
            // RFC 3326 §3.1: what a forking proxy says when another branch answered.
            out.push(match status {
                200 => b"Call completed elsewhere",
                _ => reason_phrase(status).as_bytes(),
            });
            out.push(b"\"\r\n");
        }
    }
    // RFC 7989 §7: the Session-ID of a CANCEL is that of its INVITE.
    for row in invite.message.rows(HeaderName::SessionId) {
        push_row(&mut out, invite, row);
    }
    end(&mut out, invite, b"CANCEL")?;
    out.finish()
}

/// Copies the `Reason` rows of a CANCEL into `out` for [`Reason::Rows`], and tells how many bytes
/// they are. A row that does not fit is left out, never cut.
///
/// RFC 3326 §2: a proxy that sends CANCEL because it received one copies its Reason.
pub fn reason_rows(cancel: Parsed<'_>, out: &mut [u8]) -> usize {
    let mut len = 0;
    for row in cancel.message.rows(HeaderName::Reason) {
        let row = row.row.of(cancel.bytes);
        if let Some(place) = out.get_mut(len..len + row.len()) {
            place.copy_from_slice(row);
            len += row.len();
        }
    }
    len
}

/// What stands above To: the request line, our `Via` alone, From and Call-ID.
fn begin(out: &mut Writer<'_>, invite: Parsed<'_>, method: &[u8]) -> Option<()> {
    let Parsed { bytes, message } = invite;
    out.push(method);
    out.push(b" ");
    // The Request-URI as it was sent, after what §16.6 did to it.
    out.push(message.request_uri_span().of(bytes));
    out.push(b" SIP/2.0\r\nVia: ");
    // RFC 3261 §17.1.1.3, §9.1: "a single Via header field", the top value of the INVITE.
    out.push(message.top_via()?.value.of(bytes));
    out.push(b"\r\n");
    push_row(out, invite, message.first(HeaderName::From)?);
    push_row(out, invite, message.first(HeaderName::CallId)?);
    Some(())
}

/// What stands below To: CSeq, Max-Forwards, and the rows that further proxies choose a way by.
fn end(out: &mut Writer<'_>, invite: Parsed<'_>, method: &[u8]) -> Option<()> {
    let Parsed { bytes, message } = invite;
    let number = message.first(HeaderName::CSeq)?.value.of(bytes);
    let digits = number.iter().take_while(|byte| byte.is_ascii_digit());
    out.push(b"CSeq: ");
    out.push(number.get(..digits.count()).unwrap_or_default());
    out.push(b" ");
    out.push(method);
    // A request of our own begins its hops anew (RFC 3261 §8.1.1.6).
    out.push(b"\r\nMax-Forwards: 70\r\n");
    for row in message.headers() {
        if follows(row, bytes) {
            push_row(out, invite, row);
        }
    }
    out.push(b"Content-Length: 0\r\n\r\n");
    Some(())
}

/// Rows of the INVITE that its ACK and its CANCEL carry too.
fn follows(row: &HeaderRow, bytes: &[u8]) -> bool {
    match row.name {
        // RFC 3261 §17.1.1.3, §9.1: "so that stateless proxies are able to route" them.
        HeaderName::Route => true,
        // RFC 3841: a stateless proxy that chooses by these must choose alike (RFC 3261 §16.11).
        HeaderName::AcceptContact | HeaderName::RejectContact | HeaderName::RequestDisposition => {
            true
        }
        // RFC 4412 §4.2: it may stand in any request. Who sheds load by it must not drop the ACK or
        // the CANCEL of the call that it let through.
        HeaderName::Other => row
            .name_bytes(bytes)
            .eq_ignore_ascii_case(b"Resource-Priority"),
        _ => false,
    }
}

fn push_row(out: &mut Writer<'_>, of: Parsed<'_>, row: &HeaderRow) {
    out.push(row.row.of(of.bytes));
}

#[cfg(test)]
mod tests;
