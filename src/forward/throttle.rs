//! Overload control of our servers, RFC 7339, as their client: what they ask for in the `oc` of our
//! `Via`, and which new requests do not go to them for it.
//!
//! ```text
//!   request   Via: …;v=…;oc;oc-algo="loss"
//!   response  Via: …;v=…;oc=20;oc-algo="loss";oc-validity=500;oc-seq=1282321615.782
//! ```
//!
//! Of the new requests for a server a share is refused, or sent to another server where a transaction
//! allows it; a hash of the Call-ID tells which. What is in dialog, what follows and emergency calls
//! always go (§5.10.1). The rate scheme (RFC 7415) is not offered.

use core::sync::atomic::{AtomicU64, Ordering};

use super::admission::Class;
use super::route_set::RouteSet;
use super::{Context, Forwarder};
use crate::affinity::CallIdHash;
use crate::limits::{OVERLOAD_VALIDITY_MAX, SERVERS_MAX};
use crate::net::ServerIndex;
use crate::packet::EditList;
use crate::route::Server;
use crate::sip::Via;
use crate::time::{Duration, Instant};

/// What our `Via` says in a request to a server that is asked: §4.1, §4.2. It follows the parameter
/// that is always there.
pub(super) const OFFER: &[u8] = b";oc;oc-algo=\"loss\"";

/// How long a value holds that says nothing of it (§4.3).
const VALIDITY: Duration = Duration::from_millis(500);

/// Digits of the fraction of an `oc-seq` (§9: `1*12DIGIT "." 1*5DIGIT`).
const FRACTION: usize = 5;

/// What a server asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Feedback {
    /// Requests that shall not come, in percent.
    loss: u8,
    validity: Duration,
    /// Hundred thousandths.
    sequence: u64,
}

impl Feedback {
    /// Reads our `Via` in a response; `None` if it asks for nothing that was offered.
    fn read(via: &Via, bytes: &[u8]) -> Option<Self> {
        let value = |name: &[u8]| via.param(bytes, name).map(|span| span.of(bytes));
        let loss = decimal(value(b"oc")?, 3)?;
        let algorithm = value(b"oc-algo").unwrap_or(b"\"loss\"");
        let quotes = |byte: &u8| *byte == b'"';
        let start = algorithm.iter().take_while(|byte| quotes(byte)).count();
        let name = algorithm.get(start..)?.split(quotes).next()?;
        if !name.eq_ignore_ascii_case(b"loss") {
            return None;
        }
        let validity = match value(b"oc-validity") {
            Some(text) => Duration::from_millis(decimal(text, 10)?).min(OVERLOAD_VALIDITY_MAX),
            None => VALIDITY,
        };
        let sequence = value(b"oc-seq")?;
        let mut parts = sequence.splitn(2, |byte| *byte == b'.');
        let whole = decimal(parts.next()?, 12)?;
        let fraction = match parts.next() {
            Some(text) => {
                let missing = u32::try_from(FRACTION.checked_sub(text.len())?).ok()?;
                decimal(text, FRACTION)? * 10_u64.pow(missing)
            }
            None => 0,
        };
        Some(Self {
            // §5.7: "when the value of the "oc-validity" parameter is 0, the client SHOULD disregard
            // the value in the "oc" parameter".
            loss: if validity.is_zero() {
                0
            } else {
                u8::try_from(loss.min(100)).ok()?
            },
            validity,
            sequence: whole * 100_000 + fraction,
        })
    }
}

/// A number of 1 to `digits` digits.
fn decimal(text: &[u8], digits: usize) -> Option<u64> {
    if text.is_empty() || text.len() > digits {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        Some(number * 10 + u64::from(digit))
    })
}

/// What one server has asked for last.
#[derive(Debug, Default)]
struct Throttle {
    sequence: AtomicU64,
    /// The loss in the upper byte, below it the millisecond at which it ends.
    state: AtomicU64,
}

const LOSS_SHIFT: u32 = 56;

/// What all servers have asked for; shared by the workers, any of which may read a response.
#[derive(Debug)]
pub(super) struct Throttles(Box<[Throttle]>);

impl Throttles {
    pub(super) fn new() -> Self {
        Self((0..SERVERS_MAX).map(|_| Throttle::default()).collect())
    }

    /// §5.4: a value counts if its sequence number is larger than the last one, or the last one has
    /// expired.
    fn note(&self, server: ServerIndex, feedback: Feedback, now: Instant) {
        let Some(throttle) = self.0.get(usize::from(server.0)) else {
            return;
        };
        let order = Ordering::Relaxed;
        if ends_at(throttle.state.load(order)) <= millis(now) {
            throttle.sequence.store(feedback.sequence, order);
        } else if throttle.sequence.fetch_max(feedback.sequence, order) >= feedback.sequence {
            return;
        }
        // What is told to end at once keeps its number for a while, or an older one would come back.
        let validity = match feedback.validity.is_zero() {
            true => VALIDITY,
            false => feedback.validity,
        };
        let ends = millis(now + validity) & ((1 << LOSS_SHIFT) - 1);
        let state = u64::from(feedback.loss) << LOSS_SHIFT | ends;
        throttle.state.store(state, order);
    }

    /// Percent of new requests that a server does not want now.
    fn loss(&self, server: ServerIndex, now: Instant) -> u8 {
        let Some(throttle) = self.0.get(usize::from(server.0)) else {
            return 0;
        };
        let state = throttle.state.load(Ordering::Relaxed);
        match ends_at(state) > millis(now) {
            true => u8::try_from(state >> LOSS_SHIFT).unwrap_or(0),
            false => 0,
        }
    }
}

fn millis(at: Instant) -> u64 {
    at.as_nanos() / 1_000_000
}

fn ends_at(state: u64) -> u64 {
    state & ((1 << LOSS_SHIFT) - 1)
}

/// Where a Call-ID stands between 0 and 99: not where our own admission sees it.
fn place(call_id: CallIdHash) -> u64 {
    let mixed = call_id.0.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32;
    (mixed * 100) >> 32
}

impl Forwarder {
    /// Takes note of what a server asks for in our `Via` of its response.
    pub(super) fn note_feedback(&self, bytes: &[u8], server: &Server, now: Instant) {
        let feedback = self
            .message
            .top_via()
            .and_then(|via| Feedback::read(via, bytes));
        if let Some(feedback) = feedback {
            self.base.shared.throttles.note(server.index, feedback, now);
        }
    }

    /// §5.4: takes values that a server has written into other `Via`s off: they are for nobody.
    pub(super) fn clear_feedback(&mut self, bytes: &[u8]) {
        for via in self.message.vias_below(bytes) {
            let Ok(via) = via else { return };
            for name in [&b"oc"[..], b"oc-validity", b"oc-seq"] {
                if let Some(param) = via.param_row(bytes, name) {
                    self.edits.delete(param.whole.range());
                }
            }
        }
    }
}

impl Context<'_> {
    /// Whether a new request is one that the server does not want.
    pub(super) fn is_throttled(&self, routes: &RouteSet, server: &Server) -> bool {
        if !server.overload_control {
            return false;
        }
        let loss = self.throttles.loss(server.index, self.now);
        loss > 0
            && place(self.call_id) < u64::from(loss)
            && matches!(self.class(routes), Class::Call | Class::Other)
    }

    /// §5.6: what the client says of itself goes no further.
    pub(super) fn remove_offer(&self, edits: &mut EditList, server: Option<&Server>, via: &Via) {
        if !server.is_some_and(|server| server.overload_control) {
            return;
        }
        for name in [&b"oc"[..], b"oc-algo", b"oc-validity", b"oc-seq"] {
            if let Some(param) = via.param_row(self.bytes, name) {
                edits.delete(param.whole.range());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::Span;

    fn read(params: &str) -> Option<Feedback> {
        let text = format!("SIP/2.0/UDP 198.18.0.1:5060;branch=z9hG4bK1;v=0;{params}");
        let via = Via::parse(text.as_bytes(), Span::whole(text.as_bytes()).unwrap()).unwrap();
        Feedback::read(&via, text.as_bytes())
    }

    #[test]
    fn r7339_feedback_is_read_as_section_9_writes_it() {
        let expected = |loss, millis, sequence| {
            Some(Feedback {
                loss,
                validity: Duration::from_millis(millis),
                sequence,
            })
        };
        let full = r#"oc=20;oc-algo="loss";oc-validity=5000;oc-seq=1282321615.782"#;
        assert_eq!(read(full), expected(20, 5000, 128_232_161_578_200));
        assert_eq!(read("oc=0;oc-seq=7"), expected(0, 500, 700_000));
        assert_eq!(read("OC=100;OC-SEQ=1.00001"), expected(100, 500, 100_001));
        assert_eq!(read("oc=250;oc-seq=1"), expected(100, 500, 100_000));
        assert_eq!(
            read("oc=30;oc-validity=0;oc-seq=1"),
            expected(0, 0, 100_000)
        );
        for other in [
            "oc;oc-algo=\"loss\"",
            "oc=20",
            "oc=;oc-seq=1",
            "oc=x;oc-seq=1",
            "oc=20;oc-seq=1.123456",
            "oc=20;oc-seq=1234567890123",
            "oc=20;oc-algo=\"rate\";oc-seq=1",
            "oc-validity=500;oc-seq=1",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    /// §5.4: older values do not count, newer do, and an expired one is as none.
    #[test]
    fn r7339_values_replace_older_ones_and_expire() {
        let throttles = Throttles::new();
        let server = ServerIndex(3);
        let start = Instant::from_nanos(5_000_000_000);
        let after = |millis| start + Duration::from_millis(millis);
        let note = |loss, validity, sequence, now| {
            let validity = Duration::from_millis(validity);
            let feedback = Feedback {
                loss,
                validity,
                sequence,
            };
            throttles.note(server, feedback, now);
        };
        assert_eq!(throttles.loss(server, start), 0);
        note(20, 1000, 10, start);
        assert_eq!(throttles.loss(server, start), 20);
        note(50, 1000, 9, start);
        note(60, 1000, 10, start);
        assert_eq!(
            throttles.loss(server, start),
            20,
            "older and equal do not count"
        );
        note(40, 1000, 11, after(500));
        assert_eq!(throttles.loss(server, after(1400)), 40, "it starts anew");
        assert_eq!(throttles.loss(server, after(1500)), 0, "expired");
        assert_eq!(throttles.loss(ServerIndex(4), after(600)), 0);
        // After that a server that was restarted may count from 1.
        note(30, 1000, 1, after(1600));
        assert_eq!(throttles.loss(server, after(1600)), 30);
        // Told to end, and an older response is late.
        note(0, 0, 2, after(1700));
        note(30, 1000, 1, after(1701));
        assert_eq!(throttles.loss(server, after(1702)), 0);
    }
}
