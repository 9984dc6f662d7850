//! Why a request is not forwarded, and the one place that says what goes on the wire for it.

use crate::sip::{Method, ParseError};
use crate::verdict::DropReason;

/// Why a request is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// It is malformed in a part that forwarding needs (RFC 3261 §16.3 step 1).
    Syntax(ParseError),
    /// The scheme of the Request-URI is unknown, or `sips` where there is no TLS (§16.3 step 2).
    UriScheme,
    /// Max-Forwards is 0 (§16.3 step 3).
    MaxForwards,
    /// It has passed here too often (§16.3 step 4).
    Loop,
    /// Its Max-Breadth leaves no room for even one branch (RFC 5393 §5.3.3).
    MaxBreadth,
    /// A Proxy-Require option tag that nobody here understands (§16.3 step 5).
    ProxyRequire,
    /// A REGISTER without `Supported: path` where that is required (RFC 3327 §5.2).
    PathRequired,
    /// It asks to be relayed where its sender may not send (§26.1.5, §21.4.4).
    Relay,
    /// A rule of the route table says so, with this status.
    Rule(u16),
    /// From the farm, with a Request-URI that leads nowhere and no Route.
    NotFound,
    /// The next hop is a name or another transport, and nobody here can look it up or speak it.
    Unresolved,
    /// A `sips` next hop: never in clear (RFC 5630 §5.3).
    Secure,
    /// No server takes new calls; what the client is told then.
    NoServer(u16),
    /// Larger than the pool accepts over UDP.
    TooLarge,
    /// OPTIONS for ourselves while this node is drained.
    Draining,
    /// OPTIONS for ourselves, and a server is up (§11).
    OwnOptions,
    /// We are overloaded, and it would begin something new.
    Overload,
    /// There is no room for another transaction (RFC 3261 §21.5.4).
    Full,
    /// Dropped without an answer.
    Silent(DropReason),
}

/// What goes on the wire for a rejected request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A stateless answer with this status.
    Answer(u16),
    /// Nothing.
    Silence(DropReason),
}

impl Rejection {
    /// The status of the answer; `None` if there is never one.
    fn status(self, method: Method) -> Option<u16> {
        Some(match self {
            Self::Syntax(error) => match error {
                ParseError::NotSip => return None,
                ParseError::VersionUnsupported => 505,
                // RFC 4475 §3.1.2.18: a 501 for an unknown method "has better future-proof
                // characteristics" than a 400.
                ParseError::CSeqMethod if method == Method::Other => 501,
                _ => 400,
            },
            Self::UriScheme => 416,
            Self::MaxForwards => 483,
            Self::Loop => 482,
            Self::MaxBreadth => 440,
            Self::ProxyRequire => 420,
            Self::PathRequired => 421,
            Self::Relay => 403,
            Self::Rule(status) => status,
            Self::NotFound => 404,
            // RFC 5057 §5.1: 404, 480 or 481 would end a dialog that is well; 500 ends this
            // transaction only.
            Self::Unresolved => 500,
            Self::Secure => 480,
            Self::NoServer(status) => status,
            Self::Draining | Self::Overload | Self::Full => 503,
            Self::TooLarge => 513,
            Self::OwnOptions => 200,
            Self::Silent(_) => return None,
        })
    }

    /// The counter of a rejection that gets no answer.
    fn silent_reason(self) -> DropReason {
        match self {
            Self::Silent(reason) => reason,
            Self::Syntax(ParseError::NotSip) => DropReason::NotSip,
            Self::Syntax(_) => DropReason::Malformed,
            Self::MaxForwards => DropReason::AckMaxForwards,
            Self::Loop => DropReason::Loop,
            Self::Relay | Self::NotFound | Self::Secure => DropReason::NextHopForbidden,
            Self::Unresolved => DropReason::NextHopUnresolved,
            Self::Draining | Self::NoServer(_) => DropReason::NoServer,
            Self::UriScheme
            | Self::MaxBreadth
            | Self::ProxyRequire
            | Self::PathRequired
            | Self::TooLarge
            | Self::OwnOptions
            | Self::Overload
            | Self::Full
            | Self::Rule(_) => DropReason::AckRejected,
        }
    }

    /// Maps a rejection to what goes on the wire.
    pub(crate) fn reply(self, method: Method) -> Reply {
        match self.status(method) {
            // RFC 3261 §17: there is never a response to an ACK.
            Some(_) if method == Method::Ack => Reply::Silence(self.silent_reason()),
            // RFC 3261 §8.2.7: a CANCEL is ignored when its INVITE was answered statelessly. It
            // carries the INVITE's Request-URI and Route, so what these earned, both earned.
            Some(_) if method == Method::Cancel && self.is_shared_with_cancel() => {
                Reply::Silence(DropReason::CancelOwnAnswer)
            }
            Some(status) => Reply::Answer(status),
            None => Reply::Silence(self.silent_reason()),
        }
    }

    fn is_shared_with_cancel(self) -> bool {
        matches!(
            self,
            Self::UriScheme
                | Self::Relay
                | Self::Rule(_)
                | Self::NotFound
                | Self::Unresolved
                | Self::Secure
                | Self::Draining
                | Self::NoServer(_)
                | Self::TooLarge
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_per_cause_and_none_for_ack() {
        let cases = [
            (Rejection::Syntax(ParseError::CSeqTooLarge), 400),
            (Rejection::Syntax(ParseError::VersionUnsupported), 505),
            (Rejection::Syntax(ParseError::CSeqMethod), 400),
            (Rejection::UriScheme, 416),
            (Rejection::MaxForwards, 483),
            (Rejection::Loop, 482),
            (Rejection::MaxBreadth, 440),
            (Rejection::ProxyRequire, 420),
            (Rejection::PathRequired, 421),
            (Rejection::Relay, 403),
            (Rejection::NotFound, 404),
            (Rejection::Unresolved, 500),
            (Rejection::Secure, 480),
            (Rejection::Draining, 503),
            (Rejection::NoServer(503), 503),
            (Rejection::TooLarge, 513),
        ];
        for (rejection, status) in cases {
            assert_eq!(rejection.reply(Method::Invite), Reply::Answer(status));
            assert!(matches!(rejection.reply(Method::Ack), Reply::Silence(_)));
        }
        let mismatch = Rejection::Syntax(ParseError::CSeqMethod);
        assert_eq!(mismatch.reply(Method::Other), Reply::Answer(501));
        assert_eq!(
            Rejection::NoServer(503).reply(Method::Cancel),
            Reply::Silence(DropReason::CancelOwnAnswer)
        );
        assert_eq!(
            Rejection::MaxForwards.reply(Method::Cancel),
            Reply::Answer(483)
        );
        assert_eq!(
            Rejection::Syntax(ParseError::NotSip).reply(Method::Other),
            Reply::Silence(DropReason::NotSip)
        );
    }
}
