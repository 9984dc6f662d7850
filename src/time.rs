//! Time as the decide layers see it: a number that comes in as `now`.
//!
//! No system clock here; `sys::clock` is the one place that reads it.

use core::ops::{Add, AddAssign, Sub};
pub use core::time::Duration;

/// A point on the monotonic clock, in nanoseconds from an origin that only the clock knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The origin; earlier than every reading of the clock.
    pub const ZERO: Self = Self(0);

    /// From nanoseconds since the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Milliseconds since the origin.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Time since `earlier`, zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A duration as nanoseconds, at most 584 years.
#[expect(
    clippy::cast_possible_truncation,
    reason = "u64 nanoseconds last 584 years"
)]
const fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

/// RFC 3261 §17.1.1.1 (table 4): T1, the round-trip time estimate.
pub const T1: Duration = Duration::from_millis(500);
/// RFC 3261 §17.1.2.2 (table 4): T2, the longest retransmission interval of non-INVITE requests.
pub const T2: Duration = Duration::from_secs(4);
/// RFC 3261 §17.1.2.2 (table 4): T4, the longest a message stays in the network: timers I and K.
pub const T4: Duration = Duration::from_secs(5);
/// RFC 4320 §4.1: after T1 + 2·T1 + 4·T1 a client's timer E is reset to T2: not before that may a
/// request other than INVITE get a 100 over UDP, and by then it must.
pub const TIMER_E_AT_T2: Duration = Duration::from_millis(3500);
const _: () = assert!(TIMER_E_AT_T2.as_millis() == 7 * T1.as_millis());
const _: () = assert!(8 * T1.as_millis() == T2.as_millis());
/// 64·T1: timers B, D, F, H, J, L and M.
pub const T1_64: Duration = Duration::from_secs(32);
/// RFC 3261 §16.6 step 11: Timer C "MUST be larger than 3 minutes".
pub const TIMER_C: Duration = Duration::from_secs(185);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_saturates_and_sums_hold() {
        let early = Instant::from_nanos(5);
        let late = early + Duration::from_secs(1);
        assert_eq!(late.since(early), Duration::from_secs(1));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(late - Duration::from_secs(1), early);
    }
}
