//! What became of the load: counts, latencies, shares, and whether the generator itself was too slow.

use core::fmt;
use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::series::Timeline;
use crate::time::Duration;

/// Longest time a histogram tells apart: an hour in microseconds.
const MICROS_MAX: u64 = 3_600_000_000;
/// Significant digits of a histogram: errors below 0.1 %.
const DIGITS: u8 = 3;

/// Calls later than this at the 99th percentile were not sent on time.
const LATENESS_LIMIT: Duration = Duration::from_millis(10);
/// Share of a core above which the generator has no time left.
const CPU_LIMIT: f64 = 0.95;
/// Names told apart; answers of further ones are counted together.
const NAMES_MAX: usize = 256;

/// Times from 1 µs to an hour.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub fn new() -> Self {
        // Both bounds are legal constants; the fallback resizes itself and differs in memory alone.
        Self(Histogram::new_with_bounds(1, MICROS_MAX, DIGITS).unwrap_or_else(|_| fallback()))
    }

    /// Adds one.
    #[inline]
    pub fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(MICROS_MAX);
        self.0.saturating_record(micros.clamp(1, MICROS_MAX));
    }

    /// Adds those of another thread.
    pub(super) fn merge(&mut self, other: &Self) {
        // Both have the same bounds, so that nothing is out of range.
        let _ = self.0.add(&other.0);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The percentiles of the report.
    pub fn percentiles(&self) -> Percentiles {
        let at = |quantile| milliseconds(self.0.value_at_quantile(quantile));
        Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: milliseconds(self.0.max()),
        }
    }
}

#[expect(clippy::unwrap_used, reason = "three significant digits are legal")]
fn fallback() -> Histogram<u64> {
    Histogram::new(DIGITS).unwrap()
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an hour in microseconds is below 2^53"
)]
fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// Percentiles in milliseconds; zeros if nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
            self.p50, self.p90, self.p99, self.p999, self.max
        )
    }
}

/// Counts by a short name that comes from the peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    counts: Vec<(Vec<u8>, u64)>,
    further: u64,
}

impl Names {
    #[inline]
    pub(super) fn add(&mut self, name: &[u8]) {
        self.add_many(name, 1);
    }

    #[inline]
    fn add_many(&mut self, name: &[u8], more: u64) {
        if let Some((_, count)) = self.counts.iter_mut().find(|(known, _)| known == name) {
            *count += more;
        } else if self.counts.len() < NAMES_MAX {
            self.counts.push((name.to_vec(), more));
        } else {
            self.further += more;
        }
    }

    /// Adds those of another thread.
    pub(super) fn merge(&mut self, other: &Self) {
        for (name, count) in &other.counts {
            self.add_many(name, *count);
        }
        self.further += other.further;
    }

    /// By name, those beyond the bound last.
    pub(super) fn shares(&self) -> Vec<ServerShare> {
        let mut shares: Vec<ServerShare> = self
            .counts
            .iter()
            .map(|(name, calls)| ServerShare {
                name: String::from_utf8_lossy(name).into_owned(),
                calls: *calls,
            })
            .collect();
        shares.sort_by(|a, b| a.name.cmp(&b.name));
        if self.further > 0 {
            shares.push(ServerShare {
                name: "(others)".to_owned(),
                calls: self.further,
            });
        }
        shares
    }
}

/// Calls that one server answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerShare {
    /// Its name: from the To tag of `viaduct answer`, else the host and port of Contact.
    pub name: String,
    /// Calls answered.
    pub calls: u64,
}

/// Whether the generator kept up, and where it did not.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SelfCheck {
    /// How late requests were sent that open a call.
    pub lateness_ms: Percentiles,
    /// CPU time of the busiest thread of the generator over wall time, without the time it spent
    /// looking at empty rings.
    pub cpu: f64,
    /// Datagrams that arrived and found the generator's own receive buffer or ring full.
    pub receive_drops: u64,
    /// Messages that could not be sent: refused by the kernel, no room on the TX ring, too long for
    /// a frame, or to a neighbour that nobody knows.
    pub send_refused: u64,
    /// Calls that were due while as many as allowed were in progress.
    pub limited: u64,
}

impl SelfCheck {
    /// What held the generator up; empty if it was not the bottleneck.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let late = self.lateness_ms.p99;
        if late > LATENESS_LIMIT.as_secs_f64() * 1000.0 {
            reasons.push(format!("calls started late (p99 {late:.1} ms)"));
        }
        if self.cpu > CPU_LIMIT {
            reasons.push(format!("its core was busy ({:.0} %)", 100.0 * self.cpu));
        }
        for (count, what) in [
            (
                self.receive_drops,
                "datagrams lost in its own receive buffer",
            ),
            (self.send_refused, "messages that it could not send"),
            (self.limited, "calls over --max-calls"),
        ] {
            if count > 0 {
                reasons.push(format!("{count} {what}"));
            }
        }
        reasons
    }
}

/// Messages of one side, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Messages sent again.
    pub retransmissions: u64,
    /// Messages received again.
    pub retransmissions_seen: u64,
    /// Requests sent by method, retransmissions included.
    pub requests_sent: BTreeMap<String, u64>,
    /// Responses received by status code.
    pub responses_received: BTreeMap<String, u64>,
    /// Requests received by method.
    pub requests_received: BTreeMap<String, u64>,
    /// Responses sent by status code.
    pub responses_sent: BTreeMap<String, u64>,
    /// Messages received that belong to nothing of ours, or are not what they should be.
    pub strays: BTreeMap<String, u64>,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<18} sent {}, seen {}",
            "retransmissions", self.retransmissions, self.retransmissions_seen
        )?;
        write_counts(f, "requests sent", &self.requests_sent)?;
        write_counts(f, "responses received", &self.responses_received)?;
        write_counts(f, "requests received", &self.requests_received)?;
        write_counts(f, "responses sent", &self.responses_sent)?;
        write_counts(f, "strays", &self.strays)
    }
}

/// The caller's report.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What was generated: `call`, `options` or `register`.
    pub scenario: String,
    /// Calls that were due.
    pub offered: u64,
    /// Calls with a 2xx answer.
    pub answered: u64,
    /// Calls that ended otherwise than intended, before or after the answer.
    pub failed: u64,
    /// Calls given up by CANCEL as intended.
    pub cancelled: u64,
    /// Seconds from the first call's time to the end of the last.
    pub seconds: f64,
    /// Calls per second while calls were due.
    pub rate: f64,
    /// Calls by answering server.
    pub servers: Vec<ServerShare>,
    /// From the intended time of the first request to its 2xx.
    pub setup_ms: Percentiles,
    /// Response times that a scenario measures, by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub response_times_ms: BTreeMap<String, Percentiles>,
    /// Messages by kind.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Why calls failed.
    pub failures: BTreeMap<String, u64>,
    /// How late opening requests were sent.
    pub lateness_ms: Percentiles,
    /// CPU time of the generator's thread over wall time.
    pub cpu: f64,
    /// Whether the generator, not the target, set the limit.
    pub bottleneck: bool,
    /// Why it did.
    pub bottleneck_reasons: Vec<String>,
    /// The measurements behind `bottleneck`.
    pub self_check: SelfCheck,
    /// The course of the run: for `--csv` and `--html`, too long for JSON that people read.
    #[serde(skip)]
    pub timeline: Timeline,
}

impl Report {
    /// As JSON, for people and programs.
    pub fn json(&self) -> String {
        json(self)
    }
}

fn json(value: &impl Serialize) -> String {
    // Strings, numbers and maps with text keys always serialise.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn write_counts(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    counts: &BTreeMap<String, u64>,
) -> fmt::Result {
    if counts.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    writeln!(f, "{title:<18} {}", list.join(", "))
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "what serde's attribute calls"
)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[expect(clippy::cast_precision_loss, reason = "shares for people")]
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    100.0 * part as f64 / whole as f64
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<18} offered {}, answered {}, failed {}{} in {:.1} s ({:.1}/s)",
            self.scenario,
            self.offered,
            self.answered,
            self.failed,
            match self.cancelled {
                0 => String::new(),
                count => format!(", cancelled {count}"),
            },
            self.seconds,
            self.rate,
        )?;
        for server in &self.servers {
            let share = percent(server.calls, self.answered);
            writeln!(
                f,
                "  {:<16} {:>8} calls {share:5.1} %",
                server.name, server.calls
            )?;
        }
        writeln!(f, "{:<18} {}", "set-up", self.setup_ms)?;
        for (name, times) in &self.response_times_ms {
            writeln!(f, "{:<18} {times}", format!("response time {name}"))?;
        }
        write!(f, "{}", self.traffic)?;
        write_counts(f, "failures", &self.failures)?;
        let verdict = if self.bottleneck {
            format!(
                "THE GENERATOR WAS THE LIMIT: {}",
                self.bottleneck_reasons.join("; ")
            )
        } else {
            "kept up".to_owned()
        };
        write!(
            f,
            "{:<18} {verdict} (late p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms, cpu {:.0} %, \
             own drops {}, not sent {})",
            "generator",
            self.lateness_ms.p50,
            self.lateness_ms.p99,
            self.lateness_ms.max,
            100.0 * self.cpu,
            self.self_check.receive_drops,
            self.self_check.send_refused,
        )
    }
}

/// The answering server's report.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AnswerReport {
    /// Its name.
    pub name: String,
    /// Calls that reached it: INVITEs outside a dialog, retransmissions not counted.
    pub calls: u64,
    /// Calls answered with 200.
    pub answered: u64,
    /// Calls ended by BYE, from either side.
    pub ended: u64,
    /// Calls cancelled before the answer.
    pub cancelled: u64,
    /// Answers that no ACK came for, and requests of its own that nobody answered.
    pub unanswered: u64,
    /// Requests inside a dialog that is not this server's: they belong to another one.
    pub stray: u64,
    /// Calls of a scenario that ended otherwise than it says.
    #[serde(skip_serializing_if = "is_zero")]
    pub failed: u64,
    /// Why they did.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<String, u64>,
    /// Calls held at the end.
    pub in_progress: u64,
    /// Messages by kind.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// CPU time of the server's thread over wall time.
    pub cpu: f64,
    /// Datagrams that arrived and found the server's own receive buffer full.
    pub receive_drops: u64,
    /// Datagrams that the kernel refused to send.
    pub send_refused: u64,
    /// Whether this server could not keep up.
    pub bottleneck: bool,
}

impl AnswerReport {
    /// As JSON.
    pub fn json(&self) -> String {
        json(self)
    }

    pub(super) fn judge(&mut self) {
        self.bottleneck = self.cpu > CPU_LIMIT || self.receive_drops + self.send_refused > 0;
    }
}

impl fmt::Display for AnswerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<18} calls {}, answered {}, ended {}, cancelled {}, unanswered {}, in progress {}",
            self.name,
            self.calls,
            self.answered,
            self.ended,
            self.cancelled,
            self.unanswered,
            self.in_progress,
        )?;
        writeln!(f, "{:<18} {}", "stray", self.stray)?;
        if self.failed > 0 {
            writeln!(f, "{:<18} {}", "failed", self.failed)?;
        }
        write_counts(f, "failures", &self.failures)?;
        write!(f, "{}", self.traffic)?;
        write!(
            f,
            "{:<18} {} (cpu {:.0} %, own drops {})",
            "server",
            if self.bottleneck {
                "THE BOTTLENECK"
            } else {
                "kept up"
            },
            100.0 * self.cpu,
            self.receive_drops,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut latencies = Latencies::new();
        for ms in 1..=1000 {
            latencies.record(Duration::from_millis(ms));
        }
        let percentiles = latencies.percentiles();
        for (value, expected) in [
            (percentiles.p50, 500.0),
            (percentiles.p90, 900.0),
            (percentiles.p99, 990.0),
            (percentiles.p999, 999.0),
            (percentiles.max, 1000.0),
        ] {
            assert!((value / expected - 1.0f64).abs() < 0.002, "{value}");
        }
        latencies.record(Duration::from_secs(100_000));
        assert!(latencies.percentiles().max >= 3_600_000.0);
        assert_eq!(Latencies::new().percentiles(), Percentiles::default());
    }

    #[test]
    fn names_are_bounded() {
        let mut names = Names::default();
        for n in 0..NAMES_MAX + 5 {
            names.add(n.to_string().as_bytes());
            names.add(b"0");
        }
        let shares = names.shares();
        assert_eq!(shares.len(), NAMES_MAX + 1);
        assert_eq!(shares[0].name, "0");
        let total: u64 = shares.iter().map(|share| share.calls).sum();
        assert_eq!(total, 2 * (NAMES_MAX as u64 + 5));
        assert_eq!(shares[NAMES_MAX].calls, 5);
    }

    #[test]
    fn the_generator_says_when_it_is_the_bottleneck() {
        let fine = SelfCheck {
            cpu: 0.5,
            ..SelfCheck::default()
        };
        assert!(fine.reasons().is_empty());
        let late = SelfCheck {
            lateness_ms: Percentiles {
                p99: 10.1,
                ..Percentiles::default()
            },
            ..fine.clone()
        };
        let busy = SelfCheck {
            cpu: 0.96,
            ..fine.clone()
        };
        let lossy = SelfCheck {
            receive_drops: 1,
            ..fine.clone()
        };
        let refused = SelfCheck {
            send_refused: 1,
            ..fine.clone()
        };
        let full = SelfCheck { limited: 1, ..fine };
        for check in [late, busy, lossy, refused, full] {
            assert_eq!(check.reasons().len(), 1, "{check:?}");
        }
    }

    #[test]
    fn json_has_what_the_demo_reads() {
        let report = Report {
            offered: 3,
            servers: vec![ServerShare {
                name: "server1".to_owned(),
                calls: 3,
            }],
            ..Report::default()
        };
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        for key in ["offered", "answered", "failed", "retransmissions", "cpu"] {
            assert!(json[key].is_number(), "{key}");
        }
        assert_eq!(json["servers"][0]["name"], "server1");
        for key in ["p50", "p90", "p99", "p999", "max"] {
            assert!(json["setup_ms"][key].is_number(), "{key}");
            assert!(json["lateness_ms"][key].is_number(), "{key}");
        }
        assert_eq!(json["bottleneck"], false);
        assert!(json["failures"].is_object());
    }
}
