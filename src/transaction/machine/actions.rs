//! What a machine asks its caller to do: a set in a word.

use core::fmt;
use core::ops::BitOr;

use super::Timer;

/// A set of actions. The caller carries them out in the order of the constants: timers stop before
/// others start.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Actions(u32);

/// The names, for the tables and for logs, and the bit of each.
macro_rules! actions {
    ($($(#[$doc:meta])+ $name:ident = $bit:literal,)+) => {
        impl Actions {
            $($(#[$doc])+ pub const $name: Self = Self(1 << $bit);)+

            /// Every single action with its name.
            const NAMES: &[(Self, &str)] = &[$((Self::$name, stringify!($name)),)+];
        }
    };
}

actions! {
    /// Every running timer of this transaction stops.
    STOP_TIMERS = 0,
    /// The request goes to the transport, for the first time or again, the same bytes.
    SEND_REQUEST = 1,
    /// The ACK for a final response of 300 to 699 is built (RFC 3261 §17.1.1.3) and sent where the
    /// request was sent.
    SEND_ACK = 2,
    /// The response that the transaction user has passed goes to the transport.
    SEND_RESPONSE = 3,
    /// That response is the one that [`RESEND_RESPONSE`](Self::RESEND_RESPONSE) means from now on.
    KEEP_RESPONSE = 4,
    /// The response kept last goes to the transport again; nothing if there is none yet.
    RESEND_RESPONSE = 5,
    /// A 100 (Trying) is made (RFC 3261 §8.2.6.1), sent and kept.
    SEND_TRYING = 6,
    /// The message goes up to the transaction user.
    PASS_UP = 7,
    /// The transaction user learns of a timeout.
    TIMEOUT = 8,
    /// The transaction user learns that the transport failed.
    TRANSPORT_FAILURE = 9,
    /// Timer A starts: with [`Timer::duration`] at first, with [`Timer::again`] when it is its own
    /// firing that starts it. So with all that follow.
    START_A = 10,
    /// Timer B starts.
    START_B = 11,
    /// Timer D starts.
    START_D = 12,
    /// Timer E starts.
    START_E = 13,
    /// The interval of timer E is T2, whatever it was (RFC 3261 §17.1.2.2, `Proceeding`).
    E_AT_T2 = 14,
    /// Timer F starts.
    START_F = 15,
    /// Timer G starts.
    START_G = 16,
    /// Timer H starts.
    START_H = 17,
    /// Timer I starts.
    START_I = 18,
    /// Timer J starts.
    START_J = 19,
    /// Timer K starts.
    START_K = 20,
    /// Timer L starts.
    START_L = 21,
    /// Timer M starts.
    START_M = 22,
    /// The timer of RFC 4320 §4.1 starts.
    START_TRYING = 23,
}

impl Actions {
    /// Nothing is done.
    pub const NONE: Self = Self(0);

    /// Whether all of `other` are in.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is done.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These but for `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether `timer` is to be started.
    pub const fn starts(self, timer: Timer) -> bool {
        let action = match timer {
            Timer::A => Self::START_A,
            Timer::B => Self::START_B,
            // The proxy core starts it (RFC 3261 §16.6 step 11).
            Timer::C => return false,
            Timer::D => Self::START_D,
            Timer::E => Self::START_E,
            Timer::F => Self::START_F,
            Timer::G => Self::START_G,
            Timer::H => Self::START_H,
            Timer::I => Self::START_I,
            Timer::J => Self::START_J,
            Timer::K => Self::START_K,
            Timer::L => Self::START_L,
            Timer::M => Self::START_M,
            Timer::Trying => Self::START_TRYING,
        };
        self.contains(action)
    }
}

impl BitOr for Actions {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

/// The names with spaces between, `-` if there is none.
impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        let mut separator = "";
        for (action, name) in Self::NAMES {
            if self.contains(*action) {
                write!(f, "{separator}{name}")?;
                separator = " ";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Actions({self})")
    }
}
