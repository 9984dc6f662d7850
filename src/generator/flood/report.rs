//! What a flood sent and what came back.

use core::fmt;

use serde::Serialize;

use super::{FloodConfig, LatencyReport, Sample};
use crate::bpf::SinkCounts;

/// The result of a flood.
#[derive(Clone, Debug, Serialize)]
pub struct FloodReport {
    /// Bytes of a frame, on average.
    pub frame_len: usize,
    /// Distinct calls.
    pub calls: u64,
    /// Distinct source addresses.
    pub sources: usize,
    /// The measurement itself, without warm-up and drain.
    pub window: Window,
    /// Frames sent in all.
    pub sent: u64,
    /// Frames that came back in all, of any kind.
    pub returned: u64,
    /// Share of all frames sent that did not come back as requests or responses, 0 to 1.
    pub loss: f64,
    /// How long they took, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyReport>,
    /// Responses made of requests that came back, and written to a file.
    pub recorded_responses: usize,
    /// Requests inside dialogs made of them.
    pub recorded_in_dialog: usize,
    /// What came back in all, by MAC address.
    pub stations: Vec<StationReport>,
}

/// What happened in the measured time.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Window {
    /// Its length.
    pub seconds: f64,
    /// Frames sent.
    pub sent: u64,
    /// Requests that came back.
    pub requests: u64,
    /// Responses that came back.
    pub responses: u64,
    /// Other datagrams that came back.
    pub others: u64,
    /// Frames sent a second.
    pub sent_per_second: f64,
    /// Requests that came back a second.
    pub requests_per_second: f64,
}

/// What came back at one MAC address.
#[derive(Clone, Debug, Serialize)]
pub struct StationReport {
    /// The address.
    pub mac: String,
    /// Requests.
    pub requests: u64,
    /// Responses.
    pub responses: u64,
    /// Other datagrams.
    pub others: u64,
}

impl FloodReport {
    pub(super) fn new(
        config: &FloodConfig,
        frame_len: usize,
        start: &Sample,
        end: &Sample,
        last: &Sample,
    ) -> Self {
        let total = |sample: &Sample| sample.stations.iter().copied().sum::<SinkCounts>();
        let (first, then, all) = (total(start), total(end), total(last));
        let seconds = end.at.since(start.at).as_secs_f64();
        let sent = end.sent - start.sent;
        let requests = then.requests - first.requests;
        Self {
            frame_len,
            calls: config.calls.min(last.sent),
            sources: config.sources.len(),
            window: Window {
                seconds,
                sent,
                requests,
                responses: then.responses - first.responses,
                others: then.others - first.others,
                sent_per_second: per(sent, seconds),
                requests_per_second: per(requests, seconds),
            },
            sent: last.sent,
            returned: all.requests + all.responses + all.others,
            loss: 1.0 - ratio(all.requests + all.responses, last.sent),
            latency: None,
            recorded_responses: 0,
            recorded_in_dialog: 0,
            stations: config
                .stations
                .iter()
                .zip(&last.stations)
                .map(|(mac, counts)| StationReport {
                    mac: mac.to_string(),
                    requests: counts.requests,
                    responses: counts.responses,
                    others: counts.others,
                })
                .collect(),
        }
    }

    /// The report for machines.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn per(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        1.0
    } else {
        part as f64 / whole as f64
    }
}

impl fmt::Display for FloodReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = &self.window;
        writeln!(
            f,
            "{} frames of {} bytes ({} calls, {} sources) in {:.1} s: {:.0}/s",
            window.sent,
            self.frame_len,
            self.calls,
            self.sources,
            window.seconds,
            window.sent_per_second
        )?;
        if self.stations.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "came back: {} requests ({:.0}/s), {} responses, {} others; {:.2} % of {} lost",
            window.requests,
            window.requests_per_second,
            window.responses,
            window.others,
            100.0 * self.loss,
            self.sent
        )?;
        if let Some(latency) = &self.latency {
            writeln!(f, "{latency}")?;
        }
        for station in &self.stations {
            writeln!(
                f,
                "  {}  {} requests, {} responses, {} others",
                station.mac, station.requests, station.responses, station.others
            )?;
        }
        Ok(())
    }
}
