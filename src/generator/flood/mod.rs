//! The flood: requests as frames, far faster than user agents, to measure the data path alone.
//!
//! Nobody waits for an answer and nothing is retransmitted. Each frame is an INVITE of its own:
//! Call-ID, branch and From tag differ, sources take turns. Where the responder's frames come back
//! to the same interface, a sink counts them, by MAC address, so that what was forwarded is known
//! without a server.
//!
//! ```text
//!        ┌──────── this process ────────┐
//!        │ flood ──► interface ─────────┼──► target
//!        │ sink  ◄── (XDP, counts)  ◄───┼─── what it forwards, answers, returns
//!        └──────────────────────────────┘
//! ```
//!
//! Frames are made and sent in the kernel ([`crate::bpf::FloodProgram`]) on one core. Bounded in
//! frames and in time.

mod args;
mod report;
mod request;

use core::sync::atomic::{AtomicBool, Ordering};
use std::net::{IpAddr, SocketAddr};

pub use args::{FloodArgs, RawArgs};
pub use report::{FloodReport, StationReport, Window};
pub use request::RequestError;

use crate::bpf::{
    BpfError, FLOOD_RECORDS_MAX, FloodProgram, FloodProgramConfig, FloodRecord, Link,
    SINK_STATIONS_MAX, SinkCounts, SinkHook, SinkProgram,
};
use crate::packet::MacAddress;
use crate::sys::{clock, cpu};
use crate::time::{Duration, Instant};

/// How often the flood is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// How long frames that were sent last are given to come back.
const DRAIN: Duration = Duration::from_millis(200);

/// What to send, from where, to whom, and for how long.
#[derive(Clone, Debug)]
pub struct FloodConfig {
    /// Index of the interface to send by.
    pub interface: u32,
    /// MAC address to send from.
    pub source_mac: MacAddress,
    /// MAC address to send to.
    pub target_mac: MacAddress,
    /// Address and port to send to.
    pub target: SocketAddr,
    /// Source addresses, used in turn.
    pub sources: Vec<IpAddr>,
    /// Bytes of each message; the description of the session is filled up to it.
    pub message_len: usize,
    /// Calls before they repeat.
    pub calls: u64,
    /// Frames a second; without, as many as go.
    pub rate: Option<f64>,
    /// Before the measurement starts: rings fill, neighbours resolve, caches warm.
    pub warm_up: Duration,
    /// Length of the measurement.
    pub duration: Duration,
    /// Frames at most.
    pub frames: u64,
    /// Core to send on.
    pub core: Option<usize>,
    /// MAC addresses to count at; empty for no sink.
    pub stations: Vec<MacAddress>,
    /// Where they are counted.
    pub sink: SinkHook,
}

/// Why a flood could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum FloodError {
    /// The kernel refused a program.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The request cannot be made as asked.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A number of sources that there is no room for.
    #[error("{0} sources; 1 to {FLOOD_RECORDS_MAX} are possible")]
    Sources(usize),
    /// More MAC addresses than the sink counts.
    #[error("{0} MAC addresses to count at; at most {SINK_STATIONS_MAX} are possible")]
    Stations(usize),
}

/// Sends a flood and counts what comes back. Ends early when `stop` is set.
///
/// # Errors
/// See [`FloodError`].
pub fn run(config: &FloodConfig, stop: &AtomicBool) -> Result<FloodReport, FloodError> {
    if !(1..=FLOOD_RECORDS_MAX).contains(&config.sources.len()) {
        return Err(FloodError::Sources(config.sources.len()));
    }
    if config.stations.len() > SINK_STATIONS_MAX {
        return Err(FloodError::Stations(config.stations.len()));
    }
    let records = request::records(config)?;
    let frame_len = records.first().map_or(0, FloodRecord::frame_len);
    let program = FloodProgram::load(&FloodProgramConfig {
        egress: config.interface,
        rate: config.rate,
        frames: config.frames,
        calls: config.calls,
        seed: clock::now().as_nanos(),
        records: &records,
    })?;
    drop(records);
    let sink = Sink::attach(config)?;

    let core = config.core;
    let flood = program.start(move || {
        if let Some(core) = core {
            cpu::pin(core);
        }
    })?;
    let began = clock::now();
    let mut start = None;
    let end = loop {
        let sample = sink.sample(flood.sent()?)?;
        let past = sample.at.since(began);
        if start.is_none() && past >= config.warm_up {
            start = Some(sample.clone());
        }
        let is_over = past >= config.warm_up + config.duration
            || sample.sent >= config.frames
            || flood.has_ended();
        if is_over || stop.load(Ordering::Relaxed) {
            break sample;
        }
        std::thread::sleep(LOOK);
    };
    let sent = flood.stop()?;
    if !config.stations.is_empty() {
        std::thread::sleep(DRAIN);
    }
    let last = sink.sample(sent)?;
    let start = start.unwrap_or_else(|| last.clone());
    Ok(FloodReport::new(config, frame_len, &start, &end, &last))
}

/// What was counted at a moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    at: Instant,
    sent: u64,
    stations: Vec<SinkCounts>,
}

/// The counting end, if there is one.
struct Sink {
    program: Option<(SinkProgram, Link)>,
    stations: Vec<MacAddress>,
}

impl Sink {
    fn attach(config: &FloodConfig) -> Result<Self, BpfError> {
        let stations = config.stations.clone();
        if stations.is_empty() {
            return Ok(Self {
                program: None,
                stations,
            });
        }
        let addresses: Vec<[u8; 6]> = stations.iter().map(|station| station.0).collect();
        let program = SinkProgram::load(&addresses)?;
        let link = program.attach(config.interface, config.sink)?;
        Ok(Self {
            program: Some((program, link)),
            stations,
        })
    }

    fn sample(&self, sent: u64) -> Result<Sample, BpfError> {
        let mut counts = Vec::with_capacity(self.stations.len());
        if let Some((program, _)) = &self.program {
            for station in &self.stations {
                counts.push(program.counts(&station.0)?);
            }
        }
        Ok(Sample {
            at: clock::now(),
            sent,
            stations: counts,
        })
    }
}
