//! Non-INVITE server transaction: RFC 3261 §17.2.2, figure 8, under RFC 4320.
//!
//! RFC 4320 §4.1 gives the machine a timer of its own: the 100 that a request other than INVITE gets
//! when it has no answer by the time a client's timer E is reset to T2, and not before that over
//! unreliable transports.

use super::{Actions, Step, Transport};

/// Where the transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// No response has been sent.
    Trying,
    /// A 100 has been sent.
    Proceeding,
    /// A final response has been sent, or none is to come any more.
    Completed,
    /// Over: destroyed at once.
    Terminated,
}

/// What happens to it. Responses are those that the transaction user passes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The request again.
    Request,
    /// A 100.
    Trying,
    /// A response of 101 to 199.
    Provisional,
    /// A final response, but 408.
    Final,
    /// A 408, or that no final response is to come.
    RequestTimeout,
    /// The timer of RFC 4320 §4.1 fires.
    TimerTrying,
    /// Timer J fires.
    TimerJ,
    /// What was sent last could not be delivered (RFC 3261 §17.2.4).
    TransportError,
}

impl State {
    /// All, in the standard's order.
    pub const ALL: [Self; 4] = [
        Self::Trying,
        Self::Proceeding,
        Self::Completed,
        Self::Terminated,
    ];
}

impl Event {
    /// All.
    pub const ALL: [Self; 8] = [
        Self::Request,
        Self::Trying,
        Self::Provisional,
        Self::Final,
        Self::RequestTimeout,
        Self::TimerTrying,
        Self::TimerJ,
        Self::TransportError,
    ];

    /// The event that sending a response with this status code is.
    pub const fn of_status(status: u16) -> Self {
        match status {
            ..=100 => Self::Trying,
            101..=199 => Self::Provisional,
            408 => Self::RequestTimeout,
            200.. => Self::Final,
        }
    }
}

/// RFC 3261 §17.2.2: the request goes up. RFC 4320 §4.1: the time to its 100 begins.
pub const fn start() -> Step<State> {
    Step::to(State::Trying, Actions::PASS_UP.union(Actions::START_TRYING))
}

/// What `event` does in `state`.
pub const fn step(state: State, event: Event, transport: Transport) -> Step<State> {
    use Event as E;
    use State as S;
    const STOP: Actions = Actions::STOP_TIMERS;

    match (state, event) {
        // RFC 3261 §17.2.2: "any further request retransmissions are discarded".
        (S::Trying, E::Request) => Step::to(S::Trying, Actions::NONE),
        // RFC 3261 §17.2.2: the provisional or the final response once more.
        (S::Proceeding | S::Completed, E::Request) => Step::to(state, Actions::RESEND_RESPONSE),
        // RFC 4320 §4.1: a 100 "over a reliable transport at any time", over others not before its
        // time, when the timer sends it.
        (S::Trying, E::Trying) => match transport {
            Transport::Reliable => Step::to(
                S::Proceeding,
                STOP.union(Actions::SEND_RESPONSE)
                    .union(Actions::KEEP_RESPONSE),
            ),
            Transport::Unreliable => Step::to(S::Trying, Actions::NONE),
        },
        // RFC 4320 §4.1: "MUST respond ... with a Status-Code of 100" by now.
        (S::Trying, E::TimerTrying) => Step::to(S::Proceeding, STOP.union(Actions::SEND_TRYING)),
        // RFC 3261 §17.2.2: further provisional responses are sent; of them RFC 4320 leaves 100.
        (S::Proceeding, E::Trying) => Step::to(
            S::Proceeding,
            Actions::SEND_RESPONSE.union(Actions::KEEP_RESPONSE),
        ),
        // RFC 4320 §4.1: no "provisional response with a Status-Code other than 100".
        (S::Trying | S::Proceeding, E::Provisional) => Step::to(state, Actions::NONE),
        // RFC 3261 §17.2.2: sent, timer J starts.
        (S::Trying | S::Proceeding, E::Final) => Step::to(
            S::Completed,
            STOP.union(Actions::SEND_RESPONSE)
                .union(Actions::KEEP_RESPONSE)
                .union(Actions::START_J),
        ),
        // RFC 4320 §4.2: a 408 is not sent, nor any other final response. The transaction stays
        // until timer J, so that the request's retransmissions are not taken for new requests.
        (S::Trying | S::Proceeding, E::RequestTimeout) => {
            Step::to(S::Completed, STOP.union(Actions::START_J))
        }

        // RFC 3261 §17.2.2: "any other final responses ... MUST be discarded".
        (S::Completed, E::Trying | E::Provisional | E::Final | E::RequestTimeout) => {
            Step::to(S::Completed, Actions::NONE)
        }
        (S::Completed, E::TimerJ) => Step::to(S::Terminated, STOP),

        // RFC 3261 §17.2.4, figure 8: the transaction user is told and the transaction ends. RFC
        // 6026 §8.8 changed §17.2.4 for every server transaction: it "MUST remain in the current
        // state", so that a retransmission is not taken for a new request.
        (S::Trying | S::Proceeding | S::Completed, E::TransportError) => {
            Step::to(state, Actions::TRANSPORT_FAILURE)
        }
        // Stray timers.
        (S::Trying | S::Proceeding, E::TimerJ) | (S::Proceeding | S::Completed, E::TimerTrying) => {
            Step::to(state, Actions::NONE)
        }
        // RFC 4320 §4.2: no response without a transaction that is not terminated.
        (S::Terminated, _) => Step::to(S::Terminated, Actions::NONE),
    }
}
