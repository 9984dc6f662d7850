//! The timers of RFC 3261 table 4 and RFC 6026 §8.11, under their letters.

use super::Transport;
use crate::time::{Duration, T1, T1_64, T2, T4, TIMER_C, TIMER_E_AT_T2};

/// A timer of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// INVITE request retransmit interval, unreliable transport only.
    A,
    /// INVITE transaction timeout.
    B,
    /// Proxy INVITE transaction timeout. The proxy core's, not a machine's (RFC 3261 §16.6 step 11).
    C,
    /// Wait time for response retransmits after a final response of 300 to 699.
    D,
    /// Non-INVITE request retransmit interval, unreliable transport only.
    E,
    /// Non-INVITE transaction timeout.
    F,
    /// INVITE response retransmit interval, unreliable transport only.
    G,
    /// Wait time for ACK receipt.
    H,
    /// Wait time for ACK retransmits.
    I,
    /// Wait time for non-INVITE request retransmits.
    J,
    /// Wait time for response retransmits of a non-INVITE request.
    K,
    /// Wait time for retransmits of an accepted INVITE.
    L,
    /// Wait time for retransmits of a 2xx to INVITE, and for further 2xx.
    M,
    /// RFC 4320 §4.1: when a request other than INVITE gets a 100. It has no letter there.
    Trying,
}

impl Timer {
    /// All, in the order of their letters.
    pub const ALL: [Self; 14] = [
        Self::A,
        Self::B,
        Self::C,
        Self::D,
        Self::E,
        Self::F,
        Self::G,
        Self::H,
        Self::I,
        Self::J,
        Self::K,
        Self::L,
        Self::M,
        Self::Trying,
    ];

    /// Time to its first firing. Zero where the standard says so: the timer then fires at once, and
    /// the state it would end is passed through.
    pub const fn duration(self, transport: Transport) -> Duration {
        let reliable = matches!(transport, Transport::Reliable);
        match self {
            // RFC 3261 §17.1.1.2, §17.1.2.2, §17.2.1: they start at T1. A machine over a reliable
            // transport does not ask for them.
            Self::A | Self::E | Self::G => T1,
            // RFC 3261 §17.1.1.2, §17.1.2.2, §17.2.1; RFC 6026 §8.4, §8.7: 64·T1 over any transport.
            Self::B | Self::F | Self::H | Self::L | Self::M => T1_64,
            // RFC 3261 §16.6 step 11.
            Self::C => TIMER_C,
            // RFC 6026 §8.4, RFC 3261 §17.1.2.2, §17.2.1, §17.2.2: zero over reliable transports.
            Self::D | Self::I | Self::J | Self::K if reliable => Duration::ZERO,
            // RFC 6026 §8.4: "at least 32 seconds", whatever T1 is. RFC 3261 §17.2.2: J is 64·T1.
            Self::D | Self::J => T1_64,
            // RFC 3261 §17.2.1, §17.1.2.2: I and K are T4.
            Self::I | Self::K => T4,
            // RFC 4320 §4.1: "without regard to transport".
            Self::Trying => TIMER_E_AT_T2,
        }
    }

    /// Time to its next firing, `previous` being the last: A doubles, E and G double up to T2. The
    /// others fire once; they have their duration.
    pub const fn again(self, previous: Duration, transport: Transport) -> Duration {
        let doubled = previous.saturating_mul(2);
        match self {
            // RFC 3261 §17.1.1.2: "intervals that double after each transmission". Timer B ends it.
            Self::A => doubled,
            // RFC 3261 §17.1.2.2, §17.2.1: MIN(2·T1, T2) and so on.
            Self::E | Self::G if doubled.as_nanos() > T2.as_nanos() => T2,
            Self::E | Self::G => doubled,
            _ => self.duration(transport),
        }
    }
}

const _: () = assert!(T1_64.as_secs() >= 32);

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(timer: Timer, count: usize) -> Vec<u128> {
        let first = timer.duration(Transport::Unreliable);
        core::iter::successors(Some(first), |previous| {
            Some(timer.again(*previous, Transport::Unreliable))
        })
        .take(count)
        .map(|interval| interval.as_millis())
        .collect()
    }

    /// RFC 3261 §17.1.1.2: 64·T1 "is equal to the amount of time required to send seven requests".
    #[test]
    fn timer_a_doubles_and_timer_b_allows_seven_requests() {
        assert_eq!(
            intervals(Timer::A, 7),
            [500, 1000, 2000, 4000, 8000, 16_000, 32_000]
        );
        let sixth: u128 = intervals(Timer::A, 6).iter().sum();
        assert!(sixth < T1_64.as_millis());
        assert!(sixth + 32_000 > T1_64.as_millis());
    }

    /// RFC 3261 §17.1.2.2: "500 ms, 1 s, 2 s, 4 s, 4 s, 4 s, etc."
    #[test]
    fn timers_e_and_g_double_up_to_t2() {
        for timer in [Timer::E, Timer::G] {
            assert_eq!(intervals(timer, 6), [500, 1000, 2000, 4000, 4000, 4000]);
        }
    }

    /// RFC 4320 §4.1: the time "it takes a client transaction's Timer E to be reset to T2".
    #[test]
    fn a_100_is_due_when_timer_e_is_reset_to_t2() {
        let before: Vec<u128> = intervals(Timer::E, 6)
            .into_iter()
            .take_while(|interval| *interval < T2.as_millis())
            .collect();
        for transport in Transport::ALL {
            assert_eq!(
                Timer::Trying.duration(transport).as_millis(),
                before.iter().sum::<u128>()
            );
        }
        assert_eq!(
            Timer::Trying.duration(Transport::Unreliable).as_millis(),
            3500
        );
    }

    /// RFC 3261 table 4, RFC 6026 §8.11.
    #[test]
    fn durations_are_table_4() {
        let row =
            |timer: Timer| Transport::ALL.map(|transport| timer.duration(transport).as_millis());
        for (timer, millis) in [
            (Timer::B, [32_000, 32_000]),
            (Timer::C, [185_000, 185_000]),
            (Timer::D, [32_000, 0]),
            (Timer::F, [32_000, 32_000]),
            (Timer::H, [32_000, 32_000]),
            (Timer::I, [5000, 0]),
            (Timer::J, [32_000, 0]),
            (Timer::K, [5000, 0]),
            (Timer::L, [32_000, 32_000]),
            (Timer::M, [32_000, 32_000]),
        ] {
            assert_eq!(row(timer), millis, "{timer:?}");
        }
    }
}
