//! Answers of our own, RFC 3261 §8.2.6 and §8.2.7.
//!
//! An answer is made of the request's own rows, is the same for the same request, and goes to the
//! request's source address.
//!
//! To a stranger no answer is longer than the request, so that a forged source address gains no
//! bytes. Stateless answers are no longer than the request for anybody, and are sent as often as
//! `budget` allows. Answers of a transaction are bounded by the table of transactions: one 100, and
//! a final one that RFC 3261 §17.2.1 repeats ten times in 32 s while nobody acknowledges it. So a
//! forged INVITE moves at most 12 times its bytes by answers of ours, which is what it moves at any
//! server with transactions; what lowers the number is the limit of requests per source.

use super::request_uri::to_u16;
use super::via::{is_forbidden, push_mark};
use super::{Context, Rejection};
use crate::limits::DATAGRAM_LEN_MAX;
use crate::metrics::WorkerMetrics;
use crate::net::{Flow, SocketAddr};
use crate::packet::{Buffer, Text as _, Writer};
use crate::route::Direction;
use crate::sip::{HeaderName, HeaderRow, Method, Params, Span, reason_phrase, values};
use crate::time::Duration;
use crate::verdict::{DropReason, Verdict};

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

impl Answer<'_> {
    /// Puts it in the place of the request that it answers, and counts it.
    pub(super) fn put(
        self,
        status: u16,
        metrics: &WorkerMetrics,
        buffer: &mut Buffer<'_>,
        flow: &mut Flow,
    ) -> Verdict {
        if buffer.replace(self.bytes).is_err() {
            return Verdict::Drop(DropReason::NoRoom);
        }
        flow.peer = self.peer;
        metrics.answer(status);
        Verdict::Transmit
    }
}

/// What an answer of a transaction says besides its status.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extras<'a> {
    /// How long ago the request came: what a 100 adds to the client's Timestamp.
    pub(crate) delay: Duration,
    /// The To tag instead of our own: in a 199 that of the early dialog that ended, in the 200 of a
    /// CANCEL that of the INVITE's answers (RFC 3261 §9.2).
    pub(crate) to_tag: Option<&'a [u8]>,
    /// The status that ended the early dialog of a 199 (RFC 6228 §6).
    pub(crate) cause: Option<u16>,
}

/// All that an answer is made of, but the request.
#[derive(Clone, Copy, Debug)]
struct Content<'a> {
    status: u16,
    rejection: Option<Rejection>,
    extras: Extras<'a>,
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
    /// And Session-ID, Warning.
    Hints,
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

    /// Composes the stateless answer to a request.
    pub(crate) fn compose(
        &mut self,
        context: &Context<'_>,
        rejection: Rejection,
        status: u16,
    ) -> Result<Answer<'_>, DropReason> {
        let content = Content {
            status,
            rejection: Some(rejection),
            extras: Extras::default(),
        };
        self.compose_content(context, &content, context.bytes.len())
    }

    /// Composes the answer to a request that has a transaction; `context` is that of the request,
    /// with the flow that it came on.
    pub(crate) fn compose_stateful(
        &mut self,
        context: &Context<'_>,
        status: u16,
        extras: Extras<'_>,
    ) -> Result<Answer<'_>, DropReason> {
        let content = Content {
            status,
            rejection: None,
            extras,
        };
        // Whoever the operator knows does not forge its address, and gets the whole answer.
        let limit = match context.direction {
            Direction::Outside => context.bytes.len(),
            Direction::Farm | Direction::Trusted => usize::MAX,
        };
        self.compose_content(context, &content, limit)
    }

    fn compose_content(
        &mut self,
        context: &Context<'_>,
        content: &Content<'_>,
        limit: usize,
    ) -> Result<Answer<'_>, DropReason> {
        let via = context.message.top_via().ok_or(DropReason::Malformed)?;
        let peer = context.response_target(via);
        // Somebody writes our own address into the source of a datagram.
        if is_forbidden(peer) || context.plan.listener_at(peer).is_some() {
            return Err(DropReason::NextHopForbidden);
        }
        let limit = limit.min(self.text.len());
        let details = [
            Detail::Capabilities,
            Detail::Hints,
            Detail::Length,
            Detail::Reason,
            Detail::Bare,
        ];
        for detail in details {
            let text = self.text.get_mut(..limit).unwrap_or_default();
            if let Some(len) = context.write_answer(text, content, detail) {
                let bytes = self.text.get(..len).unwrap_or_default();
                return Ok(Answer { bytes, peer });
            }
        }
        Err(DropReason::AnswerTooLong)
    }
}

impl Context<'_> {
    /// Whether the client of this INVITE wants to hear of each early dialog that ended, and may.
    ///
    /// RFC 6228 §6: a proxy sends 199 if the INVITE has `Supported: 199`, and does not if it has
    /// `Require: 100rel`, since a proxy's 199 is not reliable.
    pub(crate) fn takes_early_end(&self) -> bool {
        self.message.method() == Method::Invite
            && self.message.to_tag().is_none()
            && self.has_value(HeaderName::Supported, b"199")
            && !self.has_value(HeaderName::Require, b"100rel")
    }

    /// Whether a header that is a list has this value, in any case.
    pub(super) fn has_value(&self, name: HeaderName, wanted: &[u8]) -> bool {
        let rows = self.message.rows(name);
        rows.flat_map(|row| values(self.bytes, row))
            .any(|value| value.of(self.bytes).eq_ignore_ascii_case(wanted))
    }

    /// Writes an answer; `None` if it does not fit.
    fn write_answer(
        &self,
        text: &mut [u8],
        content: &Content<'_>,
        detail: Detail,
    ) -> Option<usize> {
        let Content {
            status, rejection, ..
        } = *content;
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
            // RFC 3261 §8.2.6.2: a To tag, but in a 100.
            if name == HeaderName::To && self.message.to_tag().is_none() && status != 100 {
                self.write_to(&mut out, row, content.extras.to_tag);
            } else {
                out.push(row.row.of(self.bytes));
            }
        }
        if status == 100 {
            self.write_timestamp(&mut out, content.extras.delay);
        }
        if let Some(cause) = content.extras.cause {
            // RFC 6228 §6: a 199 says which response ended the dialog.
            out.push(b"Reason: SIP;cause=");
            out.push_decimal(u32::from(cause));
            out.push(b"\r\n");
        }
        if rejection == Some(Rejection::ProxyRequire) {
            // RFC 3261 §16.3 step 5: "MUST include an Unsupported header field listing" them.
            for (number, tag) in self.unsupported().enumerate() {
                out.push(if number == 0 { b"Unsupported: " } else { b", " });
                out.push(tag);
            }
            out.push(b"\r\n");
        }
        if rejection == Some(Rejection::PathRequired) {
            // RFC 3261 §21.4.16: "a Require header field listing the required extensions".
            out.push(b"Require: path\r\n");
        }
        if detail >= Detail::Hints {
            if rejection == Some(Rejection::Secure) {
                // RFC 5630 §5.3: the next hop is a sips URI, and there is no TLS to reach it by.
                out.push(b"Warning: 381 viaduct \"SIPS Required\"\r\n");
            }
            self.write_session_id(&mut out);
        }
        if detail >= Detail::Capabilities && rejection == Some(Rejection::OwnOptions) {
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
    fn write_to(&self, out: &mut Writer<'_>, row: &HeaderRow, tag: Option<&[u8]>) {
        let (start, end) = (row.row.start(), row.row.end());
        let value_end = row.value.end();
        out.push(self.bytes.get(start..value_end).unwrap_or_default());
        out.push(b";tag=");
        match tag {
            Some(tag) => out.push(tag),
            None => out.push(&self.keys.answer_tag(&self.answer_input())),
        }
        out.push(self.bytes.get(value_end..end).unwrap_or_default());
    }

    /// RFC 3261 §8.2.6.1: "any Timestamp header field present in the request MUST be copied into this
    /// 100", and a delay "SHOULD" be added to its value, in seconds.
    fn write_timestamp(&self, out: &mut Writer<'_>, delay: Duration) {
        let mut rows = self.message.headers().iter();
        let Some(row) = rows.find(|row| {
            row.name == HeaderName::Other
                && row
                    .name_bytes(self.bytes)
                    .eq_ignore_ascii_case(b"Timestamp")
        }) else {
            return;
        };
        let value = row.value.of(self.bytes);
        out.push(b"Timestamp: ");
        out.push(value);
        // A delay is there already, or something that is none of ours to complete.
        let is_number = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
        if delay >= Duration::from_millis(1) && value.iter().all(is_number) {
            out.push(b" ");
            out.push_decimal(u32::try_from(delay.as_secs()).unwrap_or(u32::MAX));
            let millis = delay.subsec_millis();
            out.push(match millis {
                0..10 => b".00",
                10..100 => b".0",
                _ => b".",
            });
            out.push_decimal(millis);
        }
        out.push(b"\r\n");
    }

    /// RFC 7989 §7: an answer of an intermediary carries the identifiers of the two ends as the
    /// receiver sees them: the peer's own first, nil if it is not known yet, then the receiver's.
    fn write_session_id(&self, out: &mut Writer<'_>) {
        let Some(row) = self.message.first(HeaderName::SessionId) else {
            return;
        };
        let value = row.value.of(self.bytes);
        let Some((sender, params)) = value.split_at_checked(SESSION_UUID_LEN) else {
            return;
        };
        // RFC 7989 §5: 32 lower-case hexadecimal digits. What is none of these is not handed back.
        if !is_session_uuid(sender) || params.first().is_some_and(|byte| is_token(*byte)) {
            return;
        }
        let params_start = row.value.start() + SESSION_UUID_LEN;
        let place = Span::new(to_u16(params_start), to_u16(row.value.end()));
        let remote = Params::new(self.bytes, place)
            .named(b"remote")
            .and_then(|param| param.value)
            .map(|value| value.of(self.bytes))
            .filter(|remote| is_session_uuid(remote));
        out.push(b"Session-ID: ");
        out.push(remote.unwrap_or(SESSION_NIL));
        out.push(b";remote=");
        out.push(sender);
        out.push(b"\r\n");
    }
}

/// Characters of a session identifier (RFC 7989 §5).
const SESSION_UUID_LEN: usize = 32;

/// "No identifier yet" (RFC 7989 §5).
const SESSION_NIL: &[u8; SESSION_UUID_LEN] = b"00000000000000000000000000000000";

fn is_session_uuid(text: &[u8]) -> bool {
    text.len() == SESSION_UUID_LEN && text.iter().all(u8::is_ascii_hexdigit)
}

/// Whether the digits before this byte may go on.
fn is_token(byte: u8) -> bool {
    !matches!(byte, b';' | b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests;
