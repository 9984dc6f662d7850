//! The counting end of a measurement: `bpf/sink.bpf.c`.

use core::mem::{MaybeUninit, offset_of, size_of};
use std::os::fd::{AsFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle, OpenObject, ProgramMut};

use super::error::{BpfError, load_error, map_error, open_error};
use super::link::{AttachMode, Link};
use super::log;
use super::skeleton::sink::SinkSkelBuilder;

/// Addresses that are counted apart: `SINK_STATIONS_MAX`.
pub const SINK_STATIONS_MAX: usize = 64;
/// Logarithm of the buckets per octave of latencies: `SINK_SUB_BUCKETS_SHIFT`.
const SUB_BUCKETS_SHIFT: u32 = 7;
/// Buckets of latencies: `SINK_BUCKETS`. Octaves from 2^8 to 2^34 ns, 26, and twice 128 below.
const BUCKETS: u32 = 3584;
const _: () = assert!(BUCKETS == (34 - 8 + 2) << SUB_BUCKETS_SHIFT);
/// Bytes from the sending time in a frame to the frame's end: `SINK_STAMP_FROM_END`.
pub const SINK_STAMP_FROM_END: usize = 18;

/// What arrived at one MAC address: `struct sink_counts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SinkCounts {
    /// SIP requests.
    pub requests: u64,
    /// SIP responses.
    pub responses: u64,
    /// Other datagrams.
    pub others: u64,
}

const _: () = assert!(size_of::<SinkCounts>() == 24);
const _: () = assert!(offset_of!(SinkCounts, others) == 16);

impl SinkCounts {
    fn from_bytes(bytes: &[u8]) -> Self {
        let mut words = bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|word| u64::from_ne_bytes(*word));
        let mut next = || words.next().unwrap_or(0);
        Self {
            requests: next(),
            responses: next(),
            others: next(),
        }
    }
}

impl core::ops::Add for SinkCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            responses: self.responses + other.responses,
            others: self.others + other.others,
        }
    }
}

impl core::iter::Sum for SinkCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), core::ops::Add::add)
    }
}

/// Where in the receive path frames are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SinkHook {
    /// Behind the driver (tcx, kernel 6.6). Cheaper than XDP where frames come as socket buffers, as
    /// out of a veth's other end.
    #[default]
    Tc,
    /// In the driver or the generic hook, as [`AttachMode`] says.
    Xdp(AttachMode),
}

/// The loaded sink.
#[derive(Debug)]
pub struct SinkProgram {
    tc: OwnedFd,
    xdp: OwnedFd,
    stations: MapHandle,
    latencies: MapHandle,
}

impl SinkProgram {
    /// Loads it, to count datagrams to these MAC addresses. All others go to the kernel.
    ///
    /// # Errors
    /// More than [`SINK_STATIONS_MAX`] addresses; the kernel's refusal.
    pub fn load(stations: &[[u8; 6]]) -> Result<Self, BpfError> {
        Self::load_with(stations, false)
    }

    /// As [`SinkProgram::load`]; each frame counted ends with the time it was sent at, as the flood
    /// writes it, [`SINK_STAMP_FROM_END`] before its end.
    ///
    /// # Errors
    /// As there.
    pub fn load_timed(stations: &[[u8; 6]]) -> Result<Self, BpfError> {
        Self::load_with(stations, true)
    }

    fn load_with(stations: &[[u8; 6]], timed: bool) -> Result<Self, BpfError> {
        log::capture(|log| {
            let mut object = MaybeUninit::<OpenObject>::uninit();
            let mut open = SinkSkelBuilder::default()
                .open(&mut object)
                .map_err(|error| open_error(&error))?;
            let Some(constants) = open.maps.rodata_data.as_deref_mut() else {
                return Err(BpfError::Open {
                    cause: "it has no constants".to_owned(),
                });
            };
            constants.timed = timed.into();
            let loaded = open.load().map_err(|error| load_error(&error, log))?;
            let owned = |program: &ProgramMut<'_>| {
                let fd = program.as_fd().try_clone_to_owned();
                fd.map_err(|error| load_error(&error.into(), log))
            };
            let sink = Self {
                tc: owned(&loaded.progs.sink_tc)?,
                xdp: owned(&loaded.progs.sink_xdp)?,
                stations: MapHandle::try_from(&loaded.maps.stations)
                    .map_err(|error| load_error(&error, log))?,
                latencies: MapHandle::try_from(&loaded.maps.latencies)
                    .map_err(|error| load_error(&error, log))?,
            };
            for station in stations {
                sink.add(station)?;
            }
            Ok(sink)
        })
    }

    fn add(&self, station: &[u8; 6]) -> Result<(), BpfError> {
        let cpus = libbpf_rs::num_possible_cpus().unwrap_or(1);
        let zeros = vec![vec![0; size_of::<SinkCounts>()]; cpus];
        self.stations
            .update_percpu(&key(station), &zeros, MapFlags::ANY)
            .map_err(|error| map_error("stations", "write", &error))
    }

    /// Attaches it to an interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// Another program is attached; the driver or the kernel cannot.
    pub fn attach(&self, ifindex: u32, hook: SinkHook) -> Result<Link, BpfError> {
        match hook {
            SinkHook::Tc => Link::attach_tc(self.tc.as_fd(), ifindex),
            SinkHook::Xdp(mode) => Link::attach(self.xdp.as_fd(), ifindex, mode),
        }
    }

    /// How long frames took since loading: (nanoseconds, frames), what is not zero, ascending. Each
    /// is the middle of its bucket, at most 0.4 % off.
    ///
    /// # Errors
    /// The system's.
    pub fn latencies(&self) -> Result<Vec<(u64, u64)>, BpfError> {
        let mut found = Vec::new();
        for bucket in 0..BUCKETS {
            let per_cpu = self
                .latencies
                .lookup_percpu(&bucket.to_ne_bytes(), MapFlags::ANY)
                .map_err(|error| map_error("latencies", "read", &error))?
                .unwrap_or_default();
            let count = |bytes: &Vec<u8>| bytes.first_chunk().map_or(0, |b| u64::from_ne_bytes(*b));
            let frames: u64 = per_cpu.iter().map(count).sum();
            if frames > 0 {
                found.push((middle(bucket), frames));
            }
        }
        Ok(found)
    }

    /// What arrived at a MAC address since loading.
    ///
    /// # Errors
    /// The system's.
    pub fn counts(&self, station: &[u8; 6]) -> Result<SinkCounts, BpfError> {
        let per_cpu = self
            .stations
            .lookup_percpu(&key(station), MapFlags::ANY)
            .map_err(|error| map_error("stations", "read", &error))?
            .unwrap_or_default();
        Ok(per_cpu
            .iter()
            .map(|bytes| SinkCounts::from_bytes(bytes))
            .sum())
    }
}

/// The middle of a bucket's values.
fn middle(bucket: u32) -> u64 {
    let octave = bucket >> SUB_BUCKETS_SHIFT;
    let shift = octave.saturating_sub(1);
    let first = u64::from(bucket - (shift << SUB_BUCKETS_SHIFT)) << shift;
    first + ((1 << shift) >> 1)
}

/// `struct sink_key`.
fn key(station: &[u8; 6]) -> [u8; 8] {
    let mut key = [0; 8];
    key[..6].copy_from_slice(station);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program's own arithmetic.
    fn bucket(nanoseconds: u64) -> u32 {
        let shift = (64 - nanoseconds.leading_zeros()).saturating_sub(SUB_BUCKETS_SHIFT + 1);
        (shift << SUB_BUCKETS_SHIFT) + u32::try_from(nanoseconds >> shift).unwrap()
    }

    #[test]
    fn the_middle_of_a_bucket_is_near_all_its_values() {
        for octave in 0..34 {
            for part in 0..100 {
                let value = (1_u64 << octave) + (part << octave) / 100;
                let middle = middle(bucket(value));
                assert!(bucket(value) < BUCKETS);
                assert!(middle.abs_diff(value) <= value / 256, "{value}: {middle}");
                assert_eq!(bucket(middle), bucket(value));
            }
        }
    }
}
