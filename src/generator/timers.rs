//! Retransmission: when a message is sent again, and when no more is.

use crate::time::{Duration, Instant, T1, T2};

/// RFC 3261 §17.1.1.1: the two values all others follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Estimate of the round trip.
    pub t1: Duration,
    /// Longest interval for all but INVITE requests.
    pub t2: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self { t1: T1, t2: T2 }
    }
}

impl Timers {
    /// 64·T1: timers B, F and H, and how long a 2xx is repeated.
    pub fn t1_64(&self) -> Duration {
        self.t1.saturating_mul(64)
    }

    /// Timer A: intervals double without end (RFC 3261 §17.1.1.2).
    pub(super) fn invite(&self, now: Instant) -> Resend {
        self.doubling(now, Duration::MAX)
    }

    /// Timers E and G, and the 2xx of a UAS: intervals double up to T2 (RFC 3261 §17.1.2.2,
    /// §17.2.1, §13.3.1.4).
    pub(super) fn other(&self, now: Instant) -> Resend {
        self.doubling(now, self.t2)
    }

    fn doubling(&self, now: Instant, interval_max: Duration) -> Resend {
        Resend {
            at: now + self.t1,
            interval: self.t1,
            interval_max,
        }
    }
}

/// The next time a message is sent again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resend {
    at: Instant,
    interval: Duration,
    interval_max: Duration,
}

impl Resend {
    /// When it is due.
    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// Whether it is due; if so the next one is set.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.at <= now;
        if is_due {
            self.interval = self.interval.saturating_mul(2).min(self.interval_max);
            // From the time it was due: a late poll does not stretch the series.
            self.at += self.interval;
        }
        is_due
    }

    /// RFC 3261 §17.1.2.2: once a provisional response has come, a non-INVITE request is repeated
    /// each T2.
    pub(super) fn slow_down(&mut self, now: Instant) {
        self.interval = self.interval_max;
        self.at = now + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(mut resend: Resend, end: Duration) -> Vec<u64> {
        let mut times = Vec::new();
        while resend.at() < Instant::ZERO + end {
            let at = resend.at();
            assert!(!resend.is_due(at - Duration::from_nanos(1)));
            assert!(resend.is_due(at));
            times.push(at.as_millis());
        }
        times
    }

    /// RFC 3261 §17.1.1.2: "retransmitted … 500ms, 1s, 2s …" until 64·T1.
    #[test]
    fn timer_a_doubles_until_timer_b() {
        let timers = Timers::default();
        let times = series(timers.invite(Instant::ZERO), timers.t1_64());
        assert_eq!(times, [500, 1500, 3500, 7500, 15_500, 31_500]);
    }

    /// RFC 3261 §17.1.2.2: "intervals of 500 ms, 1 s, 2 s, 4 s, 4 s, 4 s, etc."
    #[test]
    fn timer_e_stops_growing_at_t2() {
        let timers = Timers::default();
        let times = series(timers.other(Instant::ZERO), timers.t1_64());
        let expected = [
            500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500,
        ];
        assert_eq!(times, expected);
    }

    #[test]
    fn a_provisional_slows_timer_e_down() {
        let mut resend = Timers::default().other(Instant::ZERO);
        resend.slow_down(Instant::from_nanos(100_000_000));
        assert_eq!(resend.at().as_millis(), 4100);
    }
}
