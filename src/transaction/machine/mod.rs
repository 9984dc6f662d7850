//! The four state machines of RFC 3261 §17, as tables of state and event.
//!
//! Each machine is a total function `step(state, event, transport) -> Step`: every cell is written
//! down, those where nothing happens too, and `tables/*.txt` holds all of them as text that a test
//! compares. The machines keep nothing: the caller stores the state, carries out the [`Actions`]
//! and arms the [`Timer`]s.
//!
//! | machine | RFC 3261 | amended by |
//! |---|---|---|
//! | [`invite_client`] | §17.1.1, figure 5 | RFC 6026 §7.2, §8.4 |
//! | [`non_invite_client`] | §17.1.2, figure 6 | RFC 4320 §4.2 |
//! | [`invite_server`] | §17.2.1, figure 7 | RFC 6026 §7.1, §8.5 to §8.8 |
//! | [`non_invite_server`] | §17.2.2, figure 8 | RFC 4320 §4.1, §4.2 |
//!
//! ```
//! use viaduct::time::T1;
//! use viaduct::transaction::machine::{Actions, Timer, Transport, invite_client};
//!
//! let start = invite_client::start(Transport::Unreliable);
//! assert!(start.actions.contains(Actions::SEND_REQUEST | Actions::START_A | Actions::START_B));
//! assert_eq!(Timer::A.duration(Transport::Unreliable), T1);
//!
//! let event = invite_client::Event::of_status(486);
//! let step = invite_client::step(start.next, event, Transport::Unreliable);
//! assert_eq!(step.next, invite_client::State::Completed);
//! assert!(step.actions.contains(Actions::SEND_ACK | Actions::PASS_UP));
//! ```

mod actions;
pub mod invite_client;
pub mod invite_server;
pub mod non_invite_client;
pub mod non_invite_server;
#[cfg(test)]
mod tests;
mod timer;

pub use actions::Actions;
pub use timer::Timer;

/// Whether the transport delivers what it was given, RFC 3261 §17's one question about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP, TLS, SCTP, WebSocket.
    Reliable,
    /// UDP.
    Unreliable,
}

impl Transport {
    /// Both, in the order of the tables.
    pub const ALL: [Self; 2] = [Self::Unreliable, Self::Reliable];
}

/// What one event does: the state that follows and what is to be done, stops before starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<S> {
    /// The state from now on. In `Terminated` the transaction is destroyed at once.
    pub next: S,
    /// What the caller does.
    pub actions: Actions,
}

impl<S> Step<S> {
    /// The next state and what leads there.
    const fn to(next: S, actions: Actions) -> Self {
        Self { next, actions }
    }

    /// This, but that timers A, E and G are not started where the transport is reliable (RFC 3261
    /// §17.1.1.2, §17.1.2.2, §17.2.1).
    const fn over(self, transport: Transport) -> Self
    where
        S: Copy,
    {
        let repeating = Actions::START_A
            .union(Actions::START_E)
            .union(Actions::START_G);
        match transport {
            Transport::Unreliable => self,
            Transport::Reliable => Self::to(self.next, self.actions.without(repeating)),
        }
    }

    /// A firing of timer A, E or G: nothing where the transport is reliable, since they do not run.
    const fn repeat(state: S, actions: Actions, transport: Transport) -> Self
    where
        S: Copy,
    {
        match transport {
            Transport::Unreliable => Self::to(state, actions),
            Transport::Reliable => Self::to(state, Actions::NONE),
        }
    }
}
