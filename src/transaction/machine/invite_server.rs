//! INVITE server transaction: RFC 3261 §17.2.1, figure 7 as replaced by RFC 6026 §8.6.

use super::{Actions, Step, Transport};

/// Where the transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// No final response has been sent.
    Proceeding,
    /// A final response of 300 to 699 is sent until its ACK comes.
    Completed,
    /// Its ACK has come; further ones are absorbed.
    Confirmed,
    /// A 2xx has been sent; the INVITE's retransmissions are absorbed.
    Accepted,
    /// Over: destroyed at once.
    Terminated,
}

/// What happens to it. Responses are those that the transaction user passes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The INVITE again.
    Invite,
    /// An ACK that matches (RFC 3261 §17.2.3).
    Ack,
    /// A response of 100 to 199.
    Provisional,
    /// A response of 200 to 299.
    Success,
    /// A response of 300 to 699.
    Failure,
    /// Timer G fires.
    TimerG,
    /// Timer H fires.
    TimerH,
    /// Timer I fires.
    TimerI,
    /// Timer L fires.
    TimerL,
    /// What was sent last could not be delivered (RFC 3261 §17.2.4).
    TransportError,
}

impl State {
    /// All, in the standard's order.
    pub const ALL: [Self; 5] = [
        Self::Proceeding,
        Self::Completed,
        Self::Confirmed,
        Self::Accepted,
        Self::Terminated,
    ];
}

impl Event {
    /// All.
    pub const ALL: [Self; 10] = [
        Self::Invite,
        Self::Ack,
        Self::Provisional,
        Self::Success,
        Self::Failure,
        Self::TimerG,
        Self::TimerH,
        Self::TimerI,
        Self::TimerL,
        Self::TransportError,
    ];

    /// The event that sending a response with this status code is.
    pub const fn of_status(status: u16) -> Self {
        match status {
            ..=199 => Self::Provisional,
            200..=299 => Self::Success,
            300.. => Self::Failure,
        }
    }
}

/// RFC 3261 §17.2.1: the request goes up, and a 100 is generated, since a proxy does not know that
/// it will answer within 200 ms.
pub const fn start() -> Step<State> {
    Step::to(
        State::Proceeding,
        Actions::SEND_TRYING.union(Actions::PASS_UP),
    )
}

/// What `event` does in `state`.
pub const fn step(state: State, event: Event, transport: Transport) -> Step<State> {
    use Event as E;
    use State as S;
    const STOP: Actions = Actions::STOP_TIMERS;

    match (state, event) {
        // RFC 3261 §17.2.1: "the most recent provisional response" once more.
        (S::Proceeding, E::Invite) => Step::to(S::Proceeding, Actions::RESEND_RESPONSE),
        // RFC 3261 §17.2.1: each provisional response is sent, none is repeated by itself.
        (S::Proceeding, E::Provisional) => Step::to(
            S::Proceeding,
            Actions::SEND_RESPONSE.union(Actions::KEEP_RESPONSE),
        ),
        // RFC 6026 §8.5, §8.7: a 2xx is sent and leads to `Accepted` with timer L. It is not kept:
        // its repetition is the UAS's, end to end.
        (S::Proceeding, E::Success) => Step::to(
            S::Accepted,
            STOP.union(Actions::SEND_RESPONSE).union(Actions::START_L),
        ),
        // RFC 3261 §17.2.1: sent, timers G (unreliable transports) and H start.
        (S::Proceeding, E::Failure) => Step::to(
            S::Completed,
            STOP.union(Actions::SEND_RESPONSE)
                .union(Actions::KEEP_RESPONSE)
                .union(Actions::START_G)
                .union(Actions::START_H),
        )
        .over(transport),
        // Nothing has been sent that an ACK could be for.
        (S::Proceeding, E::Ack) => Step::to(S::Proceeding, Actions::NONE),

        // RFC 3261 §17.2.1: a retransmission of the request gets the response again.
        (S::Completed, E::Invite) => Step::to(S::Completed, Actions::RESEND_RESPONSE),
        // RFC 3261 §17.2.1: sent again, interval doubled up to T2.
        (S::Completed, E::TimerG) => {
            let actions = Actions::RESEND_RESPONSE.union(Actions::START_G);
            Step::repeat(S::Completed, actions, transport)
        }
        // RFC 3261 §17.2.1: the ACK ends the retransmissions; timer I starts.
        (S::Completed, E::Ack) => Step::to(S::Confirmed, STOP.union(Actions::START_I)),
        // RFC 3261 §17.2.1: the ACK never came, "MUST indicate to the TU".
        (S::Completed, E::TimerH) => Step::to(S::Terminated, STOP.union(Actions::TIMEOUT)),

        // RFC 3261 §17.2.1: "absorb any additional ACK messages that arrive".
        (S::Confirmed, E::Ack) => Step::to(S::Confirmed, Actions::NONE),
        (S::Confirmed, E::TimerI) => Step::to(S::Terminated, STOP),
        // The client has had the response: it has acknowledged it.
        (S::Confirmed, E::Invite) => Step::to(S::Confirmed, Actions::NONE),

        // RFC 3261 §16.7 step 5: after a final response "any 2xx response to an INVITE request"
        // MUST still be forwarded: of a branch that was given up, or of a fork beyond it. It is
        // not kept: the final response sent first is what is repeated.
        (S::Completed | S::Confirmed, E::Success) => Step::to(state, Actions::SEND_RESPONSE),
        // RFC 3261 §16.7 step 5: nothing else is forwarded after a final response.
        (S::Completed | S::Confirmed | S::Accepted, E::Provisional | E::Failure) => {
            Step::to(state, Actions::NONE)
        }

        // RFC 6026 §8.7: "absorbed entirely within the server transaction".
        (S::Accepted, E::Invite) => Step::to(S::Accepted, Actions::NONE),
        // RFC 6026 §8.7: the ACK of a 2xx "must be passed up to the TU". An RFC 2543 client sends
        // it with the INVITE's Via, so it matches.
        (S::Accepted, E::Ack) => Step::to(S::Accepted, Actions::PASS_UP),
        // RFC 6026 §8.7: further 2xx are sent.
        (S::Accepted, E::Success) => Step::to(S::Accepted, Actions::SEND_RESPONSE),
        (S::Accepted, E::TimerL) => Step::to(S::Terminated, STOP),

        // RFC 6026 §8.8: the transaction user is told, and the transaction "MUST remain in the
        // current state".
        (S::Proceeding | S::Completed | S::Confirmed | S::Accepted, E::TransportError) => {
            Step::to(state, Actions::TRANSPORT_FAILURE)
        }
        // Stray timers.
        (S::Proceeding, E::TimerG | E::TimerH | E::TimerI | E::TimerL)
        | (S::Completed, E::TimerI | E::TimerL)
        | (S::Confirmed, E::TimerG | E::TimerH | E::TimerL)
        | (S::Accepted, E::TimerG | E::TimerH | E::TimerI) => Step::to(state, Actions::NONE),
        // RFC 6026 §8.3: what is passed down after the end is discarded.
        (S::Terminated, _) => Step::to(S::Terminated, Actions::NONE),
    }
}
