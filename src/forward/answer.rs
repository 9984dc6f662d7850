//! Answers of our own: stateless, RFC 3261 §8.2.6 and §8.2.7.
//!
//! An answer is made of the request's own rows, is never longer than the request, so that a forged
//! source address gains nothing, and is the same for the same request. It goes to the request's
//! source address, as often as `budget` allows.

use super::via::{is_forbidden, push_mark};
use super::{Context, Rejection};
use crate::limits::DATAGRAM_LEN_MAX;
use crate::net::SocketAddr;
use crate::packet::{Text as _, Writer};
use crate::sip::{HeaderName, HeaderRow, reason_phrase};
use crate::verdict::DropReason;

/// What OPTIONS is told about us (RFC 3261 §11.2), if it fits: we pass every method on, take no
/// body, and have no extension of our own.
const CAPABILITIES: &[u8] = b"Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, SUBSCRIBE, \
    NOTIFY, REFER, UPDATE, INFO, PRACK, MESSAGE, PUBLISH\r\nAccept:\r\nSupported:\r\n";

/// Where answers are composed.
#[derive(Debug)]
pub(crate) struct Answers {
    text: Box<[u8]>,
}

/// An answer, ready to be sent.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) peer: SocketAddr,
}

/// How much an answer says beyond what it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Detail {
    /// Status line, Via, From, To, Call-ID, CSeq.
    Bare,
    /// And the reason phrase.
    Reason,
    /// And Content-Length.
    Length,
    /// And what we can.
    Capabilities,
}

impl Answers {
    /// Room for the longest answer: no longer than the longest request.
    pub(crate) fn new() -> Self {
        Self {
            text: vec![0; DATAGRAM_LEN_MAX].into(),
        }
    }

    /// Composes the answer to a request.
    pub(crate) fn compose(
        &mut self,
        context: &Context<'_>,
        rejection: Rejection,
        status: u16,
    ) -> Result<Answer<'_>, DropReason> {
        let via = context.message.top_via().ok_or(DropReason::Malformed)?;
        let peer = context.response_target(via);
        // Somebody writes our own address into the source of a datagram.
        if is_forbidden(peer) || context.plan.listener_at(peer).is_some() {
            return Err(DropReason::NextHopForbidden);
        }
        let limit = context.bytes.len().min(self.text.len());
        let details = [
            Detail::Capabilities,
            Detail::Length,
            Detail::Reason,
            Detail::Bare,
        ];
        for detail in details {
            let text = self.text.get_mut(..limit).unwrap_or_default();
            if let Some(len) = context.write_answer(text, rejection, status, detail) {
                let bytes = self.text.get(..len).unwrap_or_default();
                return Ok(Answer { bytes, peer });
            }
        }
        Err(DropReason::AnswerTooLong)
    }
}

impl Context<'_> {
    /// Writes an answer; `None` if it does not fit.
    fn write_answer(
        &self,
        text: &mut [u8],
        rejection: Rejection,
        status: u16,
        detail: Detail,
    ) -> Option<usize> {
        let mut out = Writer::new(text);
        out.push(b"SIP/2.0 ");
        out.push_decimal(u32::from(status));
        out.push(b" ");
        if detail >= Detail::Reason {
            out.push(reason_phrase(status).as_bytes());
        }
        out.push(b"\r\n");
        self.write_vias(&mut out);
        for name in [
            HeaderName::From,
            HeaderName::To,
            HeaderName::CallId,
            HeaderName::CSeq,
        ] {
            // A row that is missing is why the answer is 400.
            let Some(row) = self.message.first(name) else {
                continue;
            };
            if name == HeaderName::To && self.message.to_tag().is_none() {
                self.write_to(&mut out, row);
            } else {
                out.push(row.row.of(self.bytes));
            }
        }
        if rejection == Rejection::ProxyRequire {
            // RFC 3261 §16.3 step 5: "MUST include an Unsupported header field listing" them.
            for (number, tag) in self.unsupported().enumerate() {
                out.push(if number == 0 { b"Unsupported: " } else { b", " });
                out.push(tag);
            }
            out.push(b"\r\n");
        }
        if rejection == Rejection::PathRequired {
            // RFC 3261 §21.4.16: "a Require header field listing the required extensions".
            out.push(b"Require: path\r\n");
        }
        if detail >= Detail::Capabilities && rejection == Rejection::OwnOptions {
            out.push(CAPABILITIES);
        }
        if detail >= Detail::Length {
            out.push(b"Content-Length: 0\r\n");
        }
        out.push(b"\r\n");
        out.finish()
    }

    /// RFC 3261 §8.2.6.2: the Via values are those of the request, in their order; the top one with
    /// what §18.2.1 and RFC 3581 §4 add.
    fn write_vias(&self, out: &mut Writer<'_>) {
        let mut marks = match self.message.top_via() {
            Some(via) => self.marks(via),
            None => Default::default(),
        };
        for row in self.message.rows(HeaderName::Via) {
            let mut pos = row.row.start();
            // The marks are all in the first row.
            for mark in marks.drain(..) {
                out.push(self.bytes.get(pos..mark.place.start()).unwrap_or_default());
                push_mark(out, &mark, self.flow.peer);
                pos = mark.place.end();
            }
            out.push(self.bytes.get(pos..row.row.end()).unwrap_or_default());
        }
    }

    /// RFC 3261 §8.2.6.2, §8.2.7: a To tag, "the same for the same request".
    fn write_to(&self, out: &mut Writer<'_>, row: &HeaderRow) {
        let (start, end) = (row.row.start(), row.row.end());
        let value_end = row.value.end();
        out.push(self.bytes.get(start..value_end).unwrap_or_default());
        out.push(b";tag=");
        out.push(&self.keys.answer_tag(&self.answer_input()));
        out.push(self.bytes.get(value_end..end).unwrap_or_default());
    }
}
