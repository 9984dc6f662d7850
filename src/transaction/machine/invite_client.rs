//! INVITE client transaction: RFC 3261 §17.1.1, figure 5 as replaced by RFC 6026 §8.4.

use super::{Actions, Step, Transport};

/// Where the transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The request is out, nothing has come back.
    Calling,
    /// A provisional response has come.
    Proceeding,
    /// A final response of 300 to 699 has come and is acknowledged whenever it comes again.
    Completed,
    /// A 2xx has come; further ones are waited for.
    Accepted,
    /// Over: destroyed at once.
    Terminated,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A response of 100 to 199.
    Provisional,
    /// A response of 200 to 299.
    Success,
    /// A response of 300 to 699.
    Failure,
    /// Timer A fires.
    TimerA,
    /// Timer B fires.
    TimerB,
    /// Timer D fires.
    TimerD,
    /// Timer M fires.
    TimerM,
    /// What was sent last could not be delivered (RFC 3261 §17.1.4).
    TransportError,
}

impl State {
    /// All, in the standard's order.
    pub const ALL: [Self; 5] = [
        Self::Calling,
        Self::Proceeding,
        Self::Completed,
        Self::Accepted,
        Self::Terminated,
    ];
}

impl Event {
    /// All.
    pub const ALL: [Self; 8] = [
        Self::Provisional,
        Self::Success,
        Self::Failure,
        Self::TimerA,
        Self::TimerB,
        Self::TimerD,
        Self::TimerM,
        Self::TransportError,
    ];

    /// The event that a response with this status code is. What is past 699 is a failure like the
    /// others, so that it is acknowledged.
    pub const fn of_status(status: u16) -> Self {
        match status {
            ..=199 => Self::Provisional,
            200..=299 => Self::Success,
            300.. => Self::Failure,
        }
    }
}

/// RFC 3261 §17.1.1.2: "the initial state, 'calling', MUST be entered" with the request sent, timer
/// A over unreliable transports and timer B over any.
pub const fn start(transport: Transport) -> Step<State> {
    let actions = Actions::SEND_REQUEST
        .union(Actions::START_A)
        .union(Actions::START_B);
    Step::to(State::Calling, actions).over(transport)
}

/// What `event` does in `state`.
pub const fn step(state: State, event: Event, transport: Transport) -> Step<State> {
    use Event as E;
    use State as S;
    const STOP: Actions = Actions::STOP_TIMERS;

    match (state, event) {
        // RFC 3261 §17.1.1.2: a provisional response ends the retransmissions; timer B guards
        // `Calling` only, from here on timer C of the proxy core does.
        (S::Calling, E::Provisional) => Step::to(S::Proceeding, STOP.union(Actions::PASS_UP)),
        // RFC 3261 §17.1.1.2: "any further provisional responses MUST be passed up".
        (S::Proceeding, E::Provisional) => Step::to(S::Proceeding, Actions::PASS_UP),
        // RFC 6026 §8.4: a 2xx leads to `Accepted` with timer M and is passed up; no ACK of ours.
        (S::Calling | S::Proceeding, E::Success) => Step::to(
            S::Accepted,
            STOP.union(Actions::PASS_UP).union(Actions::START_M),
        ),
        // RFC 6026 §8.4: 300 to 699 leads to `Completed`, is passed up and acknowledged "even if
        // the transport is reliable"; timer D starts.
        (S::Calling | S::Proceeding, E::Failure) => Step::to(
            S::Completed,
            STOP.union(Actions::SEND_ACK)
                .union(Actions::PASS_UP)
                .union(Actions::START_D),
        ),
        // RFC 3261 §17.1.1.2: sent again, interval doubled.
        (S::Calling, E::TimerA) => {
            let actions = Actions::SEND_REQUEST.union(Actions::START_A);
            Step::repeat(S::Calling, actions, transport)
        }
        // RFC 3261 §17.1.1.2: timeout to the transaction user, "MUST NOT generate an ACK".
        (S::Calling, E::TimerB) => Step::to(S::Terminated, STOP.union(Actions::TIMEOUT)),
        // RFC 3261 §17.1.4.
        (S::Calling, E::TransportError) => {
            Step::to(S::Terminated, STOP.union(Actions::TRANSPORT_FAILURE))
        }
        // Figure 5 has no transport error here: the server has answered, and an error that comes
        // after it tells of an earlier request.
        (S::Proceeding, E::TimerA | E::TimerB | E::TimerD | E::TimerM | E::TransportError) => {
            Step::to(S::Proceeding, Actions::NONE)
        }

        // RFC 6026 §8.4: the ACK once more, the response not passed up.
        (S::Completed, E::Failure) => Step::to(S::Completed, Actions::SEND_ACK),
        (S::Completed, E::TimerD) => Step::to(S::Terminated, STOP),
        // RFC 6026 §8.4, figure 5: the ACK could not be sent.
        (S::Completed, E::TransportError) => {
            Step::to(S::Terminated, STOP.union(Actions::TRANSPORT_FAILURE))
        }
        // Figure 5 has no arrow for these: a branch has one final response of 300 to 699 or any
        // number of 2xx, not both.
        (S::Completed, E::Provisional | E::Success | E::TimerA | E::TimerB | E::TimerM) => {
            Step::to(S::Completed, Actions::NONE)
        }

        // RFC 6026 §8.4: every further 2xx is passed up, "MUST NOT generate an ACK".
        (S::Accepted, E::Success) => Step::to(S::Accepted, Actions::PASS_UP),
        (S::Accepted, E::TimerM) => Step::to(S::Terminated, STOP),
        // RFC 6026 §8.4: "takes no further action". Nothing is sent here, so nothing can fail.
        (
            S::Accepted,
            E::Provisional | E::Failure | E::TimerA | E::TimerB | E::TimerD | E::TransportError,
        ) => Step::to(S::Accepted, Actions::NONE),

        // Stray timers: the states above stop them.
        (S::Calling, E::TimerD | E::TimerM) => Step::to(S::Calling, Actions::NONE),
        // RFC 6026 §7.3: what comes after the end is dropped.
        (S::Terminated, _) => Step::to(S::Terminated, Actions::NONE),
    }
}
