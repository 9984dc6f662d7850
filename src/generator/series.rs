//! What happened when: one point a second, for the CSV file and the plots of the HTML report.
//!
//! ```text
//!  counters ── difference to the last second ──►┐
//!  latencies ── buckets of this second ────────►├─► point ─► point ─► …   at most SERIES_POINTS_MAX,
//!  calls in progress ──────────────────────────►┘                         then two become one
//! ```
//!
//! Memory is bounded: when the points are full, each two neighbours become one of twice the length,
//! and later points are that long from the start. Latencies are kept as buckets, not as percentiles,
//! so that those of a longer point, or of several threads, are those of all its calls.

use super::report::Percentiles;
use super::stats::Failure;
use crate::limits::{SERIES_CAUSES_MAX, SERIES_POINTS_MAX};
use crate::time::{Duration, Instant};

/// Buckets of one octave: neighbours are 2.2 % apart.
const OCTAVE: u32 = 32;
/// Below 2^6 µs every microsecond has a bucket of its own.
const EXACT_BITS: u32 = 6;
/// Buckets in all: up to 2^32 µs, 71 minutes.
const BUCKETS: usize = (1 << EXACT_BITS) + (32 - EXACT_BITS as usize) * OCTAVE as usize;

/// Counters at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) offered: u64,
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
    pub(super) resent: u64,
}

impl Totals {
    fn each(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            offered: of(self.offered, other.offered),
            answered: of(self.answered, other.answered),
            failed: of(self.failed, other.failed),
            cancelled: of(self.cancelled, other.cancelled),
            resent: of(self.resent, other.resent),
        }
    }

    fn since(self, before: Self) -> Self {
        self.each(before, u64::saturating_sub)
    }

    fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }
}

/// Latencies by bucket, from the lowest bucket in use to the highest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Buckets {
    first: usize,
    counts: Vec<u32>,
}

impl Buckets {
    /// The buckets of a full table that is emptied by it.
    fn take(table: &mut [u32]) -> Self {
        let Some(first) = table.iter().position(|count| *count > 0) else {
            return Self::default();
        };
        let end = table.iter().rposition(|count| *count > 0).unwrap_or(first) + 1;
        let counts = table[first..end].to_vec();
        table[first..end].fill(0);
        Self { first, counts }
    }

    fn merge(&mut self, other: &Self) {
        if other.counts.is_empty() {
            return;
        }
        if self.counts.is_empty() {
            self.clone_from(other);
            return;
        }
        let first = self.first.min(other.first);
        let end = (self.first + self.counts.len()).max(other.first + other.counts.len());
        let mut counts = vec![0u32; end - first];
        for of in [&*self, other] {
            for (sum, count) in counts[of.first - first..].iter_mut().zip(&of.counts) {
                *sum = sum.saturating_add(*count);
            }
        }
        (self.first, self.counts) = (first, counts);
    }

    fn percentiles(&self) -> Percentiles {
        let total: u64 = self.counts.iter().copied().map(u64::from).sum();
        let at = |permille: u64| {
            // The smallest bucket that so many calls are not above.
            let wanted = (total * permille).div_ceil(1000).max(1);
            let mut seen = 0;
            let place = self.counts.iter().position(|count| {
                seen += u64::from(*count);
                seen >= wanted
            });
            place.map_or(0.0, |place| milliseconds(self.first + place))
        };
        Percentiles {
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p999: at(999),
            max: at(1000),
        }
    }
}

/// The bucket of a time.
fn bucket(time: Duration) -> usize {
    let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    let bits = u32::BITS - micros.leading_zeros();
    let place = match bits.checked_sub(EXACT_BITS + 1) {
        None => micros,
        // The five bits below the leading one choose the bucket within the octave.
        Some(octave) => {
            let within = (micros >> (bits - 6)) & (OCTAVE - 1);
            (1 << EXACT_BITS) + octave * OCTAVE + within
        }
    };
    usize::try_from(place).unwrap_or(0).min(BUCKETS - 1)
}

/// The middle of a bucket, in milliseconds.
fn milliseconds(bucket: usize) -> f64 {
    let bucket = u32::try_from(bucket).unwrap_or(0);
    let micros = match bucket.checked_sub(1 << EXACT_BITS) {
        None => f64::from(bucket),
        Some(above) => {
            let (octave, within) = (above / OCTAVE, above % OCTAVE);
            let low = f64::from(OCTAVE + within) * f64::from(octave + 1).exp2();
            low + f64::from(octave).exp2()
        }
    };
    micros / 1000.0
}

/// One point: what happened in its time.
#[derive(Clone, Debug, Default)]
struct Point {
    counts: Totals,
    /// Calls in progress at its end; of a longer point the most.
    in_progress: u64,
    latencies: Buckets,
    /// Calls failed by cause, in the order of [`Series::causes`].
    failures: Vec<u64>,
}

impl Point {
    /// Takes the next point into this one, or the same time's of another thread.
    fn merge(&mut self, other: &Self) {
        self.counts = self.counts.plus(other.counts);
        self.latencies.merge(&other.latencies);
        if self.failures.len() < other.failures.len() {
            self.failures.resize(other.failures.len(), 0);
        }
        for (sum, count) in self.failures.iter_mut().zip(&other.failures) {
            *sum = sum.saturating_add(*count);
        }
    }
}

/// The points of a run.
#[derive(Clone, Debug)]
pub(super) struct Series {
    start: Instant,
    /// Seconds of each point.
    step: u32,
    points: Vec<Point>,
    /// Latencies since the last point.
    table: Box<[u32]>,
    /// Counters at the end of the last point.
    before: Totals,
    causes: Vec<Failure>,
    /// Failures since the last point, in the order of `causes`, those beyond the bound last.
    failures: Vec<u64>,
}

impl Series {
    /// Empty, from `start`.
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            step: 1,
            points: Vec::new(),
            table: vec![0; BUCKETS].into(),
            before: Totals::default(),
            causes: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// A call was answered after this time.
    #[inline]
    pub(super) fn record(&mut self, latency: Duration) {
        if let Some(count) = self.table.get_mut(bucket(latency)) {
            *count = count.saturating_add(1);
        }
    }

    /// A call failed.
    pub(super) fn fail(&mut self, cause: Failure) {
        let place = self.place_of(cause);
        if self.failures.len() <= place {
            self.failures.resize(place + 1, 0);
        }
        self.failures[place] += 1;
    }

    fn step(&self) -> Duration {
        Duration::from_secs(u64::from(self.step))
    }

    /// The end of the present point.
    pub(super) fn due(&self) -> Instant {
        let count = u32::try_from(self.points.len()).unwrap_or(u32::MAX);
        self.start + self.step() * count.saturating_add(1)
    }

    /// Whether the present point's time is over.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due() <= now
    }

    /// Ends the present point, with those that passed unseen. `totals` counts from the start of the
    /// run.
    pub(super) fn close(&mut self, now: Instant, totals: Totals, in_progress: u64) {
        let point = Point {
            counts: totals.since(self.before),
            in_progress,
            latencies: Buckets::take(&mut self.table),
            failures: core::mem::take(&mut self.failures),
        };
        self.before = totals;
        self.push(point);
        // A pause of the whole machine: its seconds are empty ones.
        while self.is_due(now) {
            self.push(Point {
                in_progress,
                ..Point::default()
            });
        }
    }

    fn push(&mut self, point: Point) {
        self.points.push(point);
        if self.points.len() >= SERIES_POINTS_MAX {
            self.halve();
        }
    }

    /// Makes one point of each two.
    fn halve(&mut self) {
        let points = core::mem::take(&mut self.points);
        self.points = points
            .chunks(2)
            .map(|pair| {
                let mut merged = pair[0].clone();
                if let Some(next) = pair.get(1) {
                    merged.merge(next);
                    merged.in_progress = merged.in_progress.max(next.in_progress);
                }
                merged
            })
            .collect();
        self.step = self.step.saturating_mul(2);
    }

    /// Takes in the series of another thread of the same run. Both must be closed.
    pub(super) fn merge(&mut self, mut other: Self) {
        while self.step < other.step {
            self.halve();
        }
        while other.step < self.step {
            other.halve();
        }
        // Causes have the order in which each thread met them.
        let places: Vec<usize> = other
            .causes
            .iter()
            .map(|cause| self.place_of(*cause))
            .collect();
        for (place, point) in other.points.iter_mut().enumerate() {
            let failures = core::mem::take(&mut point.failures);
            for (from, count) in failures.into_iter().enumerate() {
                let to = places.get(from).copied().unwrap_or(SERIES_CAUSES_MAX);
                if point.failures.len() <= to {
                    point.failures.resize(to + 1, 0);
                }
                point.failures[to] += count;
            }
            match self.points.get_mut(place) {
                Some(mine) => {
                    mine.merge(point);
                    mine.in_progress += point.in_progress;
                }
                None => self.points.push(point.clone()),
            }
        }
    }

    /// The place of a cause; the one behind the last stands for all beyond the bound.
    fn place_of(&mut self, cause: Failure) -> usize {
        let known = self.causes.iter().position(|known| *known == cause);
        known.unwrap_or_else(|| {
            if self.causes.len() < SERIES_CAUSES_MAX {
                self.causes.push(cause);
                self.causes.len() - 1
            } else {
                SERIES_CAUSES_MAX
            }
        })
    }

    /// For the report, after the last point was closed at `end`: the last one may be shorter.
    pub(super) fn timeline(&self, end: Instant) -> Timeline {
        let mut causes: Vec<String> = self.causes.iter().map(|cause| cause.label()).collect();
        let has_others = |point: &Point| point.failures.len() > SERIES_CAUSES_MAX;
        if self.points.iter().any(has_others) {
            causes.push("others".to_owned());
        }
        let lasted = end.since(self.start).as_secs_f64();
        let step = f64::from(self.step);
        let mut from = 0.0;
        let moments = self.points.iter().map(|point| {
            let seconds = (lasted - from).clamp(0.001, step);
            let mut failures = point.failures.clone();
            failures.resize(causes.len(), 0);
            let moment = Moment {
                at: from,
                seconds,
                counts: point.counts,
                in_progress: point.in_progress,
                latency_ms: point.latencies.percentiles(),
                failures,
            };
            from += step;
            moment
        });
        let moments = moments.collect();
        Timeline {
            step: self.step,
            moments,
            causes,
        }
    }
}

/// The course of a run, for people.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// Seconds of each moment but the last.
    pub(super) step: u32,
    pub(super) moments: Vec<Moment>,
    /// Causes of failures, in the order of [`Moment::failures`].
    pub(super) causes: Vec<String>,
}

/// One second of a run, or several.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    /// Its beginning, in seconds from that of the run.
    pub(super) at: f64,
    /// Its length.
    pub(super) seconds: f64,
    pub(super) counts: Totals,
    pub(super) in_progress: u64,
    pub(super) latency_ms: Percentiles,
    pub(super) failures: Vec<u64>,
}

impl Timeline {
    /// One row a second (RFC 4180), with the names of its columns first.
    pub fn csv(&self) -> String {
        use core::fmt::Write as _;
        let mut out = String::from(
            "second,seconds,offered,answered,failed,cancelled,retransmissions,in_progress,\
             setup_p50_ms,setup_p90_ms,setup_p99_ms,setup_p999_ms,setup_max_ms",
        );
        // A `String` takes every write. A cause is a method, a status code and letters of ours, so
        // it needs no quotes.
        for cause in &self.causes {
            let _ = write!(out, ",failed_{cause}");
        }
        out.push_str("\r\n");
        for moment in &self.moments {
            let (counts, latency) = (&moment.counts, &moment.latency_ms);
            let _ = write!(
                out,
                "{:.0},{:.3},{},{},{},{},{},{},{:.3},{:.3},{:.3},{:.3},{:.3}",
                moment.at,
                moment.seconds,
                counts.offered,
                counts.answered,
                counts.failed,
                counts.cancelled,
                counts.resent,
                moment.in_progress,
                latency.p50,
                latency.p90,
                latency.p99,
                latency.p999,
                latency.max,
            );
            for count in &moment.failures {
                let _ = write!(out, ",{count}");
            }
            out.push_str("\r\n");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(7_000_000_000) + Duration::from_secs(seconds)
    }

    fn offered(offered: u64) -> Totals {
        Totals {
            offered,
            ..Totals::default()
        }
    }

    proptest! {
        #[test]
        fn a_bucket_is_off_by_two_percent_at_most(micros in 0u32..) {
            let place = bucket(Duration::from_micros(micros.into()));
            let middle = milliseconds(place) * 1000.0;
            let off = (middle - f64::from(micros)).abs();
            prop_assert!(place < BUCKETS);
            prop_assert!(off <= 0.022 * f64::from(micros), "{micros} is {middle}");
        }

        #[test]
        fn buckets_grow_with_time(a in 0u32.., b in 0u32..) {
            let of = |micros: u32| bucket(Duration::from_micros(micros.into()));
            prop_assert_eq!(of(a.min(b)).min(of(a.max(b))), of(a.min(b)));
        }

        /// However long the run, nothing is lost and the points are bounded.
        #[test]
        fn merged_points_keep_every_count(seconds in 1u64..20_000, pause in 1u64..50) {
            let mut series = Series::new(at(0));
            let (mut total, mut answered) = (0, 0);
            let mut now = 0;
            while now < seconds {
                now += if now % 97 == 0 { pause } else { 1 };
                total += now % 5;
                series.record(Duration::from_micros(now));
                answered += 1;
                series.fail(Failure::Timeout(crate::sip::Method::Invite));
                if series.is_due(at(now)) {
                    series.close(at(now), offered(total), now);
                }
            }
            series.close(at(now), offered(total), now);
            prop_assert!(series.points.len() <= SERIES_POINTS_MAX);
            let sum: u64 = series.points.iter().map(|point| point.counts.offered).sum();
            prop_assert_eq!(sum, total);
            let recorded: u64 = series.points.iter()
                .flat_map(|point| &point.latencies.counts).map(|count| u64::from(*count)).sum();
            prop_assert_eq!(recorded, answered);
            let failed: u64 = series.points.iter().flat_map(|point| &point.failures).sum();
            prop_assert_eq!(failed, answered);
        }
    }

    #[test]
    fn percentiles_of_a_second_are_those_of_its_calls() {
        let mut series = Series::new(at(0));
        for ms in 1..=1000 {
            series.record(Duration::from_millis(ms));
        }
        series.close(at(1), offered(1000), 3);
        series.record(Duration::from_millis(5));
        series.close(at(2), offered(1001), 0);
        let timeline = series.timeline(at(2));
        let first = timeline.moments[0].latency_ms;
        for (value, expected) in [(first.p50, 500.0), (first.p99, 990.0), (first.max, 1000.0)] {
            assert!((value / expected - 1.0f64).abs() < 0.03, "{value}");
        }
        let second = timeline.moments[1].latency_ms;
        assert!((second.p50 - 5.0).abs() < 0.15 && second.p50 == second.max);
        assert_eq!(timeline.moments[0].in_progress, 3);
    }

    #[test]
    fn threads_add_up_second_by_second() {
        let cause = |method| Failure::Timeout(method);
        let (invite, bye) = (crate::sip::Method::Invite, crate::sip::Method::Bye);
        let mut one = Series::new(at(0));
        one.fail(cause(invite));
        one.close(at(1), offered(5), 2);
        let mut other = Series::new(at(0));
        other.fail(cause(bye));
        other.fail(cause(invite));
        other.close(at(1), offered(7), 1);
        other.close(at(2), offered(8), 0);
        one.merge(other);
        let timeline = one.timeline(at(2));
        assert_eq!(timeline.causes, ["invite_timeout", "bye_timeout"]);
        let moments = &timeline.moments;
        assert_eq!(moments.len(), 2);
        assert_eq!((moments[0].counts.offered, moments[0].in_progress), (12, 3));
        assert_eq!(moments[0].failures, [2, 1]);
        assert_eq!((moments[1].counts.offered, moments[1].in_progress), (1, 0));
    }

    #[test]
    fn causes_are_bounded() {
        let mut series = Series::new(at(0));
        for status in 400..500 {
            series.fail(Failure::Status(crate::sip::Method::Invite, status));
        }
        series.close(at(1), offered(0), 0);
        let timeline = series.timeline(at(1));
        assert_eq!(timeline.causes.len(), SERIES_CAUSES_MAX + 1);
        assert_eq!(timeline.causes[SERIES_CAUSES_MAX], "others");
        let failed: u64 = timeline.moments[0].failures.iter().sum();
        assert_eq!(failed, 100);
    }

    #[test]
    fn a_row_a_second_with_named_columns() {
        let mut series = Series::new(at(0));
        series.fail(Failure::NoAnswer);
        series.close(at(1), offered(10), 4);
        series.close(at(1) + Duration::from_millis(500), offered(12), 0);
        let csv = series.timeline(at(1) + Duration::from_millis(500)).csv();
        let rows: Vec<Vec<&str>> = csv.lines().map(|row| row.split(',').collect()).collect();
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|row| row.len() == rows[0].len()));
        assert_eq!(rows[0][13], "failed_no_answer");
        assert_eq!((rows[1][2], rows[1][7], rows[1][13]), ("10", "4", "1"));
        assert_eq!((rows[2][1], rows[2][2]), ("0.500", "2"));
    }
}
