//! How long messages took from the flood to the sink.

use core::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest that is told apart, nanoseconds: a minute.
const LONGEST: u64 = 60_000_000_000;

/// Percentiles of the time from sending to counting, microseconds. Both ends read the same clock.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LatencyReport {
    /// Messages.
    pub count: u64,
    /// Mean.
    pub mean_us: f64,
    /// Half of the messages took no longer.
    pub p50_us: f64,
    /// Nine of ten.
    pub p90_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1,000.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl LatencyReport {
    /// Of the frames counted at the end of a measurement less those before it, both as
    /// (nanoseconds, frames) in ascending order.
    pub(super) fn new(before: &[(u64, u64)], after: &[(u64, u64)]) -> Self {
        let Ok(mut histogram) = Histogram::<u64>::new_with_bounds(1, LONGEST, 3) else {
            return Self::default();
        };
        for (nanoseconds, frames) in after {
            let known = before.binary_search_by_key(nanoseconds, |(known, _)| *known);
            let known = known.ok().and_then(|at| before.get(at));
            let frames = frames.saturating_sub(known.map_or(0, |(_, frames)| *frames));
            if frames > 0 {
                // Everything fits: the kernel's buckets end at 17 s.
                let _ = histogram.record_n((*nanoseconds).max(1), frames);
            }
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "below 2^53: a minute of nanoseconds"
        )]
        let micros = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        let at = |quantile: f64| micros(histogram.value_at_quantile(quantile));
        Self {
            count: histogram.len(),
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: micros(histogram.max()),
        }
    }
}

impl fmt::Display for LatencyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "latency of {}: p50 {:.1} µs, p90 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs, max {:.1} µs",
            self.count, self.p50_us, self.p90_us, self.p99_us, self.p999_us, self.max_us
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_is_taken_away() {
        let before = [(1_000, 5), (9_000_000, 100)];
        let after = [(1_000, 995), (2_000, 10), (9_000_000, 100)];
        let report = LatencyReport::new(&before, &after);
        assert_eq!(report.count, 1_000);
        let near = |value: f64, wanted: f64| (value - wanted).abs() <= wanted / 500.0;
        assert!(
            near(report.p50_us, 1.0) && near(report.p99_us, 1.0),
            "{report}"
        );
        assert!(
            near(report.p999_us, 2.0) && near(report.max_us, 2.0),
            "{report}"
        );
    }

    #[test]
    fn nothing_took_no_time() {
        assert_eq!(LatencyReport::new(&[], &[]).count, 0);
    }
}
