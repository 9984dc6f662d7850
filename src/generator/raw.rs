//! The raw forwarder: the data path's rings with a handler that writes two MAC addresses and nothing
//! else. What it reaches is the most that the data path can reach on a machine; the balancer is
//! measured against it.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::bpf::{AttachMode, BpfError, Slot, SteerConfig, SteerProgram, SteerVerdict, Vip};
use crate::datapath::{Batch, Builder, DatapathError, Handler, Interface, Out};
use crate::metrics::WorkerMetrics;
use crate::packet::{MacAddress, PartialChecksum};
use crate::sys::clock;
use crate::time::{Duration, Instant};

/// How often a stop is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// Where to take frames, and to whom to return them.
#[derive(Clone, Debug)]
pub struct RawConfig {
    /// Index of the interface.
    pub interface: u32,
    /// Datagrams to this address and port are taken.
    pub listen: SocketAddr,
    /// Written to each frame as where it comes from.
    pub source_mac: MacAddress,
    /// Written to each frame as where it goes.
    pub target_mac: MacAddress,
    /// Where in the receive path frames are taken.
    pub mode: AttachMode,
    /// Core to run on.
    pub core: Option<usize>,
    /// Ends after this time; without, when it is stopped.
    pub duration: Option<Duration>,
}

/// Why it did not run.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// The kernel refused a program.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The rings could not be made.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The thread was refused.
    #[error("cannot start a worker: {0}")]
    Thread(#[from] std::io::Error),
}

/// What it did.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RawReport {
    /// Frames that the steering program gave to the socket.
    pub redirected: u64,
    /// Frames received.
    pub received: u64,
    /// Frames sent.
    pub sent: u64,
    /// Frames dropped after they were received.
    pub dropped: u64,
}

impl fmt::Display for RawReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} frames redirected, {} received, {} sent, {} dropped",
            self.redirected, self.received, self.sent, self.dropped
        )
    }
}

/// Sends every frame back with new addresses.
struct RawForwarder {
    /// Destination and source as they open a frame.
    addresses: [u8; 12],
}

impl Handler for RawForwarder {
    const RAW: bool = true;

    fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, _now: Instant) {
        for mut packet in batch.drain(..) {
            if let Some(addresses) = packet.payload_mut().first_chunk_mut() {
                *addresses = self.addresses;
            }
            out.send(packet);
        }
    }
}

/// Forwards until `stop` is set or the time is over, with one worker on the first queue.
///
/// # Errors
/// See [`RawError`].
pub fn run(config: &RawConfig, stop: &AtomicBool) -> Result<RawReport, RawError> {
    let steer = SteerConfig::new(vec![config.interface], 1, 1);
    let mut program = SteerProgram::load(&steer)?;
    program.set_vip(config.listen, &Vip::default())?;
    let metrics = Arc::new(WorkerMetrics::new());
    let datapath = Builder::new(vec![metrics.clone()])
        .interface(Interface {
            ifindex: config.interface,
            queues: 1,
            partial_checksum: PartialChecksum::Accept,
        })
        .build()?;
    for link in datapath.links() {
        let slot = Slot {
            ifindex: link.ifindex,
            queue: link.queue,
            worker: link.worker.0.into(),
        };
        program.set_socket(slot, link.fd)?;
    }
    let link = program.attach(config.interface, config.mode)?;

    let mut addresses = [0; 12];
    addresses[..6].copy_from_slice(&config.target_mac.0);
    addresses[6..].copy_from_slice(&config.source_mac.0);
    let cores: Vec<usize> = config.core.into_iter().collect();
    let running = datapath.start(|_worker| RawForwarder { addresses }, &cores)?;
    let began = clock::now();
    while !stop.load(Ordering::Relaxed) && !running.has_ended() {
        let past = clock::now().since(began);
        if config.duration.is_some_and(|duration| past >= duration) {
            break;
        }
        std::thread::sleep(LOOK);
    }
    drop(link);
    running.stop();
    let counts = program.counts()?;
    Ok(RawReport {
        redirected: counts.of(SteerVerdict::Redirected),
        received: metrics.xdp_in.value(),
        sent: metrics.xdp_out.value(),
        dropped: metrics.dropped(),
    })
}
