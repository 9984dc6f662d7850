//! The flood: requests as frames, far faster than user agents, to measure the data path alone.
//!
//! Nobody waits for an answer and nothing is retransmitted. Each frame is a message of its own:
//! Call-ID, branch and From tag differ, sources and shapes take turns. Responses and requests inside
//! dialogs carry what the target wrote into the requests that came before, so they are recorded
//! first and replayed. Where the responder's frames come back
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
mod frames;
mod latency;
mod recording;
mod report;
mod request;
mod shapes;

use core::sync::atomic::{AtomicBool, Ordering};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

pub(super) use args::parse_mac;
pub use args::{FloodArgs, RawArgs};
pub use latency::LatencyReport;
pub use recording::RecordTo;
use recording::Recording;
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

/// Frames a second while what comes back is recorded, unless a rate is given: a packet socket copies
/// each, on a core that has others to make.
const RECORDING_RATE: f64 = 50_000.0;

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
    /// Plain INVITEs of this many bytes; without, a mix of shapes.
    pub message_len: Option<usize>,
    /// Files of frames to send instead.
    pub replay: Vec<PathBuf>,
    /// The mix in turn with them.
    pub with_requests: bool,
    /// Where to write what the requests that come back call for.
    pub record_to: RecordTo,
    /// Plain INVITEs with the time they are sent at; how long they took is reported.
    pub latency: bool,
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
    /// A file of frames, or the socket that records them.
    #[error("{what}: {error}")]
    Frames {
        /// Which.
        what: String,
        /// The system's reason.
        error: std::io::Error,
    },
    /// A frame that is not one of a flood.
    #[error("frame {0} is no UDP datagram with right checksums and whole fields")]
    Frame(usize),
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
    let frames = frames_of(config)?;
    let record =
        |(number, frame): (usize, &Vec<u8>)| frames::record(frame).ok_or(FloodError::Frame(number));
    let records: Vec<FloodRecord> = frames
        .iter()
        .enumerate()
        .map(record)
        .collect::<Result<_, _>>()?;
    let frame_len = frames.iter().map(Vec::len).sum::<usize>() / frames.len().max(1);
    drop(frames);
    let program = FloodProgram::load(&FloodProgramConfig {
        egress: config.interface,
        rate: config
            .rate
            .or(config.record_to.is_wanted().then_some(RECORDING_RATE)),
        timed: config.latency,
        frames: config.frames,
        calls: config.calls,
        seed: clock::now().as_nanos(),
        records: &records,
    })?;
    drop(records);
    let sink = Sink::attach(config)?;
    let mut recording = match config.record_to.is_wanted() {
        true => {
            Some(Recording::open(config, FLOOD_RECORDS_MAX).map_err(frames_error("recording"))?)
        }
        false => None,
    };

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
            start = Some((sample.clone(), sink.latencies()?));
        }
        let is_over = past >= config.warm_up + config.duration
            || sample.sent >= config.frames
            || flood.has_ended();
        if is_over || stop.load(Ordering::Relaxed) {
            break sample;
        }
        if let Some(recording) = &mut recording {
            recording.take();
        }
        std::thread::sleep(LOOK);
    };
    let latencies = sink.latencies()?;
    let sent = flood.stop()?;
    if !config.stations.is_empty() {
        std::thread::sleep(DRAIN);
    }
    let last = sink.sample(sent)?;
    let (start, warm_up) = start.unwrap_or_else(|| (last.clone(), Vec::new()));
    let mut report = FloodReport::new(config, frame_len, &start, &end, &last);
    report.latency = config
        .latency
        .then(|| LatencyReport::new(&warm_up, &latencies));
    if let Some(mut recording) = recording {
        recording.take();
        let written = recording.write(&config.record_to);
        let (responses, in_dialog) = written.map_err(frames_error("recording"))?;
        (report.recorded_responses, report.recorded_in_dialog) = (responses, in_dialog);
    }
    Ok(report)
}

/// The frames to send, of all kinds in turn.
fn frames_of(config: &FloodConfig) -> Result<Vec<Vec<u8>>, FloodError> {
    let mut kinds = Vec::new();
    if config.replay.is_empty() || config.with_requests {
        kinds.push(request::frames(config)?);
    }
    for path in &config.replay {
        let name = path.display().to_string();
        let frames = frames::read(path, FLOOD_RECORDS_MAX).map_err(frames_error(&name))?;
        kinds.push(frames);
    }
    if let [_] = kinds.as_slice() {
        return Ok(kinds.pop().unwrap_or_default());
    }
    let longest = kinds.iter().map(Vec::len).max().unwrap_or(0);
    let in_turn = (0..longest).flat_map(|turn| {
        let of_kind = move |kind: &Vec<Vec<u8>>| kind.get(turn % kind.len().max(1)).cloned();
        kinds.iter().filter_map(of_kind)
    });
    Ok(in_turn.take(FLOOD_RECORDS_MAX).collect())
}

fn frames_error(what: &str) -> impl FnOnce(std::io::Error) -> FloodError {
    let what = what.to_owned();
    |error| FloodError::Frames { what, error }
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
    is_timed: bool,
}

impl Sink {
    fn attach(config: &FloodConfig) -> Result<Self, BpfError> {
        let stations = config.stations.clone();
        // What is dropped in the driver never comes to the socket that records.
        if stations.is_empty() || config.record_to.is_wanted() {
            return Ok(Self {
                program: None,
                stations,
                is_timed: false,
            });
        }
        let addresses: Vec<[u8; 6]> = stations.iter().map(|station| station.0).collect();
        let program = match config.latency {
            true => SinkProgram::load_timed(&addresses)?,
            false => SinkProgram::load(&addresses)?,
        };
        let link = program.attach(config.interface, config.sink)?;
        Ok(Self {
            program: Some((program, link)),
            stations,
            is_timed: config.latency,
        })
    }

    /// See [`SinkProgram::latencies`]; none if there is no sink.
    fn latencies(&self) -> Result<Vec<(u64, u64)>, BpfError> {
        match &self.program {
            Some((program, _)) if self.is_timed => program.latencies(),
            _ => Ok(Vec::new()),
        }
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
