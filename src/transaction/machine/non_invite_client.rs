//! Non-INVITE client transaction: RFC 3261 §17.1.2, figure 6.
//!
//! RFC 4320 §4.2: where [`TIMEOUT`](Actions::TIMEOUT) comes up, no 408 is made of it.

use super::{Actions, Step, Transport};

/// Where the transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The request is out, nothing has come back.
    Trying,
    /// A provisional response has come.
    Proceeding,
    /// The final response has come; its retransmissions are absorbed.
    Completed,
    /// Over: destroyed at once.
    Terminated,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A response of 100 to 199.
    Provisional,
    /// A response of 200 to 699.
    Final,
    /// Timer E fires.
    TimerE,
    /// Timer F fires.
    TimerF,
    /// Timer K fires.
    TimerK,
    /// What was sent last could not be delivered (RFC 3261 §17.1.4).
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
    pub const ALL: [Self; 6] = [
        Self::Provisional,
        Self::Final,
        Self::TimerE,
        Self::TimerF,
        Self::TimerK,
        Self::TransportError,
    ];

    /// The event that a response with this status code is.
    pub const fn of_status(status: u16) -> Self {
        match status {
            ..=199 => Self::Provisional,
            200.. => Self::Final,
        }
    }
}

/// RFC 3261 §17.1.2.2: the request is sent, timer F starts, and timer E over unreliable transports.
pub const fn start(transport: Transport) -> Step<State> {
    let actions = Actions::SEND_REQUEST
        .union(Actions::START_E)
        .union(Actions::START_F);
    Step::to(State::Trying, actions).over(transport)
}

/// What `event` does in `state`.
pub const fn step(state: State, event: Event, transport: Transport) -> Step<State> {
    use Event as E;
    use State as S;
    const STOP: Actions = Actions::STOP_TIMERS;

    match (state, event) {
        // RFC 3261 §17.1.2.2: passed up. Timers E and F run on: the final response is only sent
        // again when the request comes again.
        (S::Trying | S::Proceeding, E::Provisional) => Step::to(S::Proceeding, Actions::PASS_UP),
        // RFC 3261 §17.1.2.2: a final response is passed up, timer K starts.
        (S::Trying | S::Proceeding, E::Final) => Step::to(
            S::Completed,
            STOP.union(Actions::PASS_UP).union(Actions::START_K),
        ),
        // RFC 3261 §17.1.2.2: sent again, at MIN(2·T1, T2) and so on.
        (S::Trying, E::TimerE) => {
            let actions = Actions::SEND_REQUEST.union(Actions::START_E);
            Step::repeat(S::Trying, actions, transport)
        }
        // RFC 3261 §17.1.2.2: sent again, "Timer E MUST be reset with a value of T2".
        (S::Proceeding, E::TimerE) => {
            let actions = Actions::SEND_REQUEST
                .union(Actions::START_E)
                .union(Actions::E_AT_T2);
            Step::repeat(S::Proceeding, actions, transport)
        }
        // RFC 3261 §17.1.2.2: the transaction user is told and the transaction ends.
        (S::Trying | S::Proceeding, E::TimerF) => {
            Step::to(S::Terminated, STOP.union(Actions::TIMEOUT))
        }
        // RFC 3261 §17.1.4, figure 6.
        (S::Trying | S::Proceeding, E::TransportError) => {
            Step::to(S::Terminated, STOP.union(Actions::TRANSPORT_FAILURE))
        }

        // RFC 3261 §17.1.2.2: "buffer any additional response retransmissions".
        (S::Completed, E::Provisional | E::Final | E::TimerE | E::TimerF | E::TransportError) => {
            Step::to(S::Completed, Actions::NONE)
        }
        (S::Completed, E::TimerK) => Step::to(S::Terminated, STOP),

        // Stray timers: K does not run before `Completed`.
        (S::Trying | S::Proceeding, E::TimerK) => Step::to(state, Actions::NONE),
        // RFC 4320 §4.2: late responses go nowhere.
        (S::Terminated, _) => Step::to(S::Terminated, Actions::NONE),
    }
}
