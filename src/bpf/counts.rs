//! The program's counters and its size.

use std::os::fd::AsFd;

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::error::{BpfError, map_error};
use super::layout::SteerVerdict;

/// Frames by verdict, summed over CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteerCounts([u64; SteerVerdict::COUNT]);

impl SteerCounts {
    /// Frames with this verdict.
    pub fn of(&self, verdict: SteerVerdict) -> u64 {
        self.0[verdict as usize]
    }

    /// Frames that the program has seen.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Every verdict with its frames.
    pub fn iter(&self) -> impl Iterator<Item = (SteerVerdict, u64)> + '_ {
        SteerVerdict::ALL.iter().copied().zip(self.0)
    }
}

/// How workers of datagrams were chosen, summed over CPUs: `struct steered`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteeredCounts {
    /// By the Call-ID: the worker is the call's home.
    pub by_call_id: u64,
    /// By the queue, or among kernel sockets by the kernel: no Call-ID was found within the program's
    /// bounds.
    pub by_queue: u64,
}

impl SteeredCounts {
    /// Bytes of `struct steered`.
    pub(super) const LEN: usize = 16;

    pub(super) fn read(map: &MapHandle) -> Result<Self, BpfError> {
        let per_cpu = map
            .lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| map_error("steered", "read", &error))?
            .unwrap_or_default();
        let mut counts = Self::default();
        for bytes in &per_cpu {
            let (words, _) = bytes.as_chunks::<8>();
            if let [by_call_id, by_queue] = words {
                counts.by_call_id += u64::from_ne_bytes(*by_call_id);
                counts.by_queue += u64::from_ne_bytes(*by_queue);
            }
        }
        Ok(counts)
    }
}

/// Reads the counters of a program, whoever owns it: for the metrics page and the report.
#[derive(Debug)]
pub struct CountsReader {
    verdicts: MapHandle,
}

impl CountsReader {
    pub(super) fn new(verdicts: MapHandle) -> Self {
        Self { verdicts }
    }

    /// Frames by verdict since the program was loaded.
    ///
    /// # Errors
    /// The system's.
    pub fn read(&self) -> Result<SteerCounts, BpfError> {
        let mut counts = SteerCounts::default();
        for (verdict, count) in SteerVerdict::ALL.iter().zip(&mut counts.0) {
            let key = (*verdict as u32).to_ne_bytes();
            let per_cpu = self
                .verdicts
                .lookup_percpu(&key, MapFlags::ANY)
                .map_err(|error| map_error("verdicts", "read", &error))?
                .unwrap_or_default();
            *count = per_cpu
                .iter()
                .filter_map(|bytes| bytes.as_slice().try_into().ok())
                .map(u64::from_ne_bytes)
                .sum();
        }
        Ok(counts)
    }

    /// A second reader of the same counters.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn try_clone(&self) -> Result<Self, BpfError> {
        MapHandle::try_from(&self.verdicts)
            .map(Self::new)
            .map_err(|error| map_error("verdicts", "open", &error))
    }
}

/// Sizes of a loaded program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramStatistics {
    /// Instructions after the verifier's rewriting.
    pub instructions: u32,
    /// Instructions that the verifier walked, all paths together; it gives up at one million.
    pub verified_instructions: u32,
}

impl ProgramStatistics {
    /// Of the program behind a descriptor; `None` if the kernel does not tell.
    pub fn read(program: impl AsFd) -> Option<Self> {
        let info = super::program_info(program.as_fd())?;
        Some(Self {
            // Eight bytes each.
            instructions: info.xlated_prog_len / 8,
            verified_instructions: info.verified_insns,
        })
    }
}
