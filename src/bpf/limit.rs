//! How much a source may send, as the operator says it and as the steering program counts it.
//!
//! `bpf/limit.h` has the design: a bucket a source, one for all strangers together, sources that are
//! known or exempt.

use crate::net::Network;

/// Age of the program's clock at most: a tick of the slowest kernel (`CONFIG_HZ=100`). Datagrams up
/// to this far apart may seem to have come together, which no source is to be blamed for.
const TICK_NS: u64 = 10_000_000;

/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;

/// How much the sources of a VIP may send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Datagrams a second of one source; 0 counts as 1.
    pub packets_per_second: u32,
    /// Datagrams that a source may send at once after a pause.
    pub burst: u32,
    /// Datagrams a second of all strangers together; 0 is no such limit.
    pub strangers_per_second: u32,
    /// Sources that are not limited.
    pub exempt: Vec<Network>,
    /// Count what would be dropped, and drop nothing.
    pub dry_run: bool,
}

/// The limits in the numbers of `struct vip`, all in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BucketSizes {
    pub(super) interval: u64,
    pub(super) tolerance: u64,
    pub(super) strangers_interval: u64,
    pub(super) strangers_tolerance: u64,
    pub(super) dry_run: bool,
}

impl Limit {
    pub(super) fn sizes(&self) -> BucketSizes {
        let (interval, tolerance) = bucket(self.packets_per_second.max(1), self.burst);
        // Strangers together may be a second ahead.
        let (strangers_interval, strangers_tolerance) = match self.strangers_per_second {
            0 => (0, 0),
            rate => bucket(rate, rate),
        };
        BucketSizes {
            interval,
            tolerance,
            strangers_interval,
            strangers_tolerance,
            dry_run: self.dry_run,
        }
    }
}

/// Time per datagram, and how far a bucket may be ahead of now when one more is taken: `burst` at
/// once are `burst - 1` intervals ahead when the last of them comes.
fn bucket(rate: u32, burst: u32) -> (u64, u64) {
    let interval = (SECOND_NS / u64::from(rate)).max(1);
    let tolerance = interval * u64::from(burst.saturating_sub(1));
    (interval, tolerance.max(TICK_NS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_an_interval_and_a_burst_is_a_tolerance() {
        let limit = Limit {
            packets_per_second: 100,
            burst: 1000,
            strangers_per_second: 500,
            ..Limit::default()
        };
        let sizes = limit.sizes();
        assert_eq!(sizes.interval, 10_000_000);
        assert_eq!(sizes.tolerance, 9_990_000_000);
        assert_eq!(sizes.strangers_interval, 2_000_000);
        assert_eq!(sizes.strangers_tolerance, 998_000_000);
    }

    #[test]
    fn no_strangers_limit_is_interval_zero() {
        let sizes = Limit::default().sizes();
        assert_eq!(
            (sizes.strangers_interval, sizes.strangers_tolerance),
            (0, 0)
        );
    }

    #[test]
    fn a_tolerance_is_never_below_the_clocks_age() {
        let limit = Limit {
            packets_per_second: 1_000_000,
            burst: 1,
            strangers_per_second: 1,
            ..Limit::default()
        };
        let sizes = limit.sizes();
        assert_eq!((sizes.interval, sizes.tolerance), (1000, TICK_NS));
        assert_eq!(sizes.strangers_tolerance, TICK_NS);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        for rate in [0, 1, u32::MAX] {
            let limit = Limit {
                packets_per_second: rate,
                burst: u32::MAX,
                strangers_per_second: rate,
                ..Limit::default()
            };
            // With the time since boot on top, as the program adds it.
            let sizes = limit.sizes();
            assert!(sizes.interval >= 1);
            assert!(sizes.tolerance < u64::MAX / 2);
        }
    }
}
