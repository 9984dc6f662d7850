//! The sending end of a measurement: `bpf/flood.bpf.c`.
//!
//! Frames are rendered by the caller, one record per source and layout; the program writes the
//! digits that make each frame a call of its own. It is run, not attached: by
//! `BPF_F_TEST_XDP_LIVE_FRAMES` (kernel 5.18), on a thread of its own, in one system call that lasts
//! until a signal to that thread ends it.

use core::mem::{MaybeUninit, offset_of, size_of};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle, OpenObject, libbpf_sys};

use super::error::{BpfError, load_error, map_error, open_error};
use super::log;
use super::skeleton::flood::FloodSkelBuilder;

/// Longest frame of a record: `FLOOD_FRAME_LEN_MAX`.
pub const FLOOD_FRAME_LEN_MAX: usize = 1500;
/// Fields of a record: `FLOOD_FIELDS`.
pub const FLOOD_FIELDS: usize = 4;
/// Hexadecimal digits of a field: `FLOOD_FIELD_LEN`.
pub const FLOOD_FIELD_LEN: usize = 16;
/// Records at most: 199 MB of them, and as many forged sources.
pub const FLOOD_RECORDS_MAX: usize = 131_072;
/// `PACE_SHIFT`.
const PACE_SHIFT: u32 = 20;
/// Fastest pace that the program can count for a thousand seconds.
const RATE_MAX: f64 = 10_000_000.0;

/// Frames that the kernel sends together (the NAPI weight; it takes up to 256).
const BATCH: u32 = 64;

/// A frame with fields to be written per call: `struct flood_record`.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct FloodRecord {
    len: u16,
    checksum_offset: u16,
    sum: u32,
    fields: [u16; FLOOD_FIELDS],
    frame: [u8; FLOOD_FRAME_LEN_MAX],
}

const _: () = assert!(size_of::<FloodRecord>() == 1516);
const _: () = assert!(offset_of!(FloodRecord, sum) == 4);
const _: () = assert!(offset_of!(FloodRecord, fields) == 8);
const _: () = assert!(offset_of!(FloodRecord, frame) == 16);

impl FloodRecord {
    /// A record of an Ethernet frame whose UDP header is at `udp_offset`, with fields of
    /// [`FLOOD_FIELD_LEN`] at `fields`. `None` if one of them is not inside the frame, or the frame
    /// is too long.
    ///
    /// The frame's UDP checksum must be right for the digits that the fields now hold.
    pub fn new(frame: &[u8], udp_offset: usize, fields: &[usize]) -> Option<Self> {
        if fields.len() > FLOOD_FIELDS || fields.contains(&0) {
            return None;
        }
        let mut places = [0; FLOOD_FIELDS];
        places[..fields.len()].copy_from_slice(fields);
        Self::with_fields(frame, udp_offset, &places)
    }

    /// As [`FloodRecord::new`], with each field in its place and 0 for those that the frame lacks:
    /// the last holds the time of sending if [`FloodProgramConfig::timed`] says so.
    pub fn with_fields(
        frame: &[u8],
        udp_offset: usize,
        fields: &[usize; FLOOD_FIELDS],
    ) -> Option<Self> {
        let mut record = Self {
            len: u16::try_from(frame.len()).ok()?,
            checksum_offset: u16::try_from(udp_offset + 6).ok()?,
            sum: 0,
            fields: [0; FLOOD_FIELDS],
            frame: [0; FLOOD_FRAME_LEN_MAX],
        };
        let checksum = frame.get(udp_offset + 6..udp_offset + 8)?;
        record.frame.get_mut(..frame.len())?.copy_from_slice(frame);
        // The sum of everything but the checksum is its complement; what the fields add to it now is
        // taken away. In one's complement, taking away is adding the complement.
        let mut sum = u32::from(!u16::from_ne_bytes(checksum.try_into().ok()?));
        for (to, offset) in record.fields.iter_mut().zip(fields) {
            if *offset == 0 {
                continue;
            }
            // Never under the headers: 0 says that there is no field.
            let digits = frame.get(*offset..offset + FLOOD_FIELD_LEN)?;
            if *offset < udp_offset + 8 {
                return None;
            }
            *to = u16::try_from(*offset).ok()?;
            let odd = *offset % 2 == 1;
            sum += u32::from(!folded_sum(digits, odd));
        }
        record.sum = sum;
        Some(record)
    }

    /// Octets of the frame.
    pub fn frame_len(&self) -> usize {
        usize::from(self.len)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size_of::<Self>());
        bytes.extend(self.len.to_ne_bytes());
        bytes.extend(self.checksum_offset.to_ne_bytes());
        bytes.extend(self.sum.to_ne_bytes());
        for field in self.fields {
            bytes.extend(field.to_ne_bytes());
        }
        bytes.extend(self.frame);
        bytes
    }
}

/// One's complement sum of octets in the byte order of the machine, as the program computes it.
fn folded_sum(octets: &[u8], odd: bool) -> u16 {
    let mut sum: u32 = octets
        .as_chunks::<2>()
        .0
        .iter()
        .map(|word| u32::from(u16::from_ne_bytes(*word)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = u16::try_from(sum).unwrap_or(u16::MAX);
    // RFC 1071 §2 (B): at an odd offset every octet is in the other half of its word.
    if odd { sum.swap_bytes() } else { sum }
}

/// What a flood is made of.
#[derive(Clone, Copy, Debug)]
pub struct FloodProgramConfig<'a> {
    /// Frames a second, up to ten million; without, as many as go.
    pub rate: Option<f64>,
    /// Frames at most.
    pub frames: u64,
    /// Interface that the frames leave by.
    pub egress: u32,
    /// Calls before they repeat, at least 1.
    pub calls: u64,
    /// Makes the digits of two floods differ.
    pub seed: u64,
    /// The last field of a record is the time of sending: nanoseconds of the monotonic clock.
    pub timed: bool,
    /// Frames; call `n` uses record `n % records.len()`.
    pub records: &'a [FloodRecord],
}

/// The loaded flood.
#[derive(Debug)]
pub struct FloodProgram {
    program: OwnedFd,
    state: MapHandle,
}

impl FloodProgram {
    /// Loads it with its records.
    ///
    /// # Errors
    /// No record or too many; the kernel's refusal.
    pub fn load(config: &FloodProgramConfig<'_>) -> Result<Self, BpfError> {
        if !(1..=FLOOD_RECORDS_MAX).contains(&config.records.len()) {
            return Err(BpfError::FloodRecords {
                count: config.records.len(),
                max: FLOOD_RECORDS_MAX,
            });
        }
        let record_count = u32::try_from(config.records.len()).unwrap_or(u32::MAX);
        log::capture(|log| {
            let mut object = MaybeUninit::<OpenObject>::uninit();
            let mut open = FloodSkelBuilder::default()
                .open(&mut object)
                .map_err(|error| open_error(&error))?;
            let Some(constants) = open.maps.rodata_data.as_deref_mut() else {
                return Err(BpfError::Open {
                    cause: "it has no constants".to_owned(),
                });
            };
            constants.egress_ifindex = config.egress;
            constants.record_count = record_count;
            constants.call_count = config.calls.max(1);
            constants.seed = config.seed;
            constants.timed = config.timed.into();
            constants.frames_max = config.frames;
            constants.pace = config.rate.map_or(0, pace);
            open.maps
                .records
                .set_max_entries(record_count)
                .map_err(|error| load_error(&error, log))?;
            let loaded = open.load().map_err(|error| load_error(&error, log))?;
            let records = MapHandle::try_from(&loaded.maps.records)
                .map_err(|error| load_error(&error, log))?;
            for (index, record) in (0_u32..).zip(config.records) {
                records
                    .update(&index.to_ne_bytes(), &record.to_bytes(), MapFlags::ANY)
                    .map_err(|error| map_error("records", "write", &error))?;
            }
            let program = loaded.progs.flood.as_fd().try_clone_to_owned();
            Ok(Self {
                program: program.map_err(|error| load_error(&error.into(), log))?,
                state: MapHandle::try_from(&loaded.maps.state)
                    .map_err(|error| load_error(&error, log))?,
            })
        })
    }

    /// Frames sent so far.
    ///
    /// # Errors
    /// The system's.
    pub fn sent(&self) -> Result<u64, BpfError> {
        let state = self
            .state
            .lookup(&0_u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| map_error("state", "read", &error))?
            .unwrap_or_default();
        let sent = state.first_chunk::<8>().copied().unwrap_or_default();
        Ok(u64::from_ne_bytes(sent))
    }

    /// Sends on a thread of its own, on which `prepare` runs first, until it is stopped.
    ///
    /// Frames leave by the interface of that name in the calling thread's network namespace; when
    /// all are sent, the thread goes on without sending.
    ///
    /// # Errors
    /// The thread or the signal handler was refused.
    pub fn start(self, prepare: impl FnOnce() + Send + 'static) -> Result<FloodRun, BpfError> {
        let flood_error = |cause| BpfError::Flood { cause };
        let stop = Arc::new(AtomicBool::new(false));
        // The handler does nothing of use; that there is one lets the signal interrupt the call.
        let handled = Arc::new(AtomicBool::new(false));
        let handler = signal_hook::flag::register(SIGNAL, handled).map_err(flood_error)?;
        let program = Arc::new(self);
        let (thread_stop, thread_program) = (stop.clone(), program.clone());
        let thread = thread::Builder::new()
            .name("flood".to_owned())
            .spawn(move || {
                prepare();
                thread_program.run(&thread_stop)
            })
            .map_err(flood_error)?;
        Ok(FloodRun {
            program,
            stop,
            thread: Some(thread),
            handler,
        })
    }

    fn run(&self, stop: &AtomicBool) -> Result<(), BpfError> {
        let data = [0_u8; FLOOD_FRAME_LEN_MAX];
        let fd = self.program.as_raw_fd();
        while !stop.load(Ordering::Acquire) {
            let mut options = libbpf_sys::bpf_test_run_opts {
                sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
                data_in: data.as_ptr().cast(),
                data_size_in: u32::try_from(data.len()).unwrap_or(u32::MAX),
                repeat: i32::MAX,
                flags: libbpf_sys::BPF_F_TEST_XDP_LIVE_FRAMES,
                batch_size: BATCH,
                ..Default::default()
            };
            // SAFETY: `data` has the length said beside it and outlives the call, which only reads
            // it; no other pointer is set.
            let ret = unsafe { libbpf_sys::bpf_prog_test_run_opts(fd, &raw mut options) };
            if ret < 0 && ret != -libc::EINTR {
                return Err(BpfError::Flood {
                    cause: io::Error::from_raw_os_error(-ret),
                });
            }
        }
        Ok(())
    }
}

impl AsFd for FloodProgram {
    /// The program.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

/// Ends the sender's system call.
const SIGNAL: i32 = libc::SIGUSR2;

/// A flood on its way; dropping it stops it.
#[derive(Debug)]
pub struct FloodRun {
    program: Arc<FloodProgram>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), BpfError>>>,
    handler: signal_hook::SigId,
}

impl FloodRun {
    /// Frames sent so far.
    ///
    /// # Errors
    /// The system's.
    pub fn sent(&self) -> Result<u64, BpfError> {
        self.program.sent()
    }

    /// Whether it has ended by itself, by an error.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops it; how many frames were sent in all.
    ///
    /// # Errors
    /// What ended it before.
    pub fn stop(mut self) -> Result<u64, BpfError> {
        self.end()?;
        self.program.sent()
    }

    fn end(&mut self) -> Result<(), BpfError> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        self.stop.store(true, Ordering::Release);
        // Again and again: a signal between the sender's look at `stop` and its call is lost.
        while !thread.is_finished() {
            // SAFETY: the thread was not joined, so its id is valid; the signal has a handler.
            let _ = unsafe { libc::pthread_kill(thread.as_pthread_t(), SIGNAL) };
            thread::sleep(Duration::from_millis(1));
        }
        signal_hook::low_level::unregister(self.handler);
        match thread.join() {
            Ok(result) => result,
            Err(_) => Err(BpfError::Flood {
                cause: io::Error::other("the sending thread panicked"),
            }),
        }
    }
}

impl Drop for FloodRun {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// The program's measure of a rate: frames per 2^30 ns times 2^[`PACE_SHIFT`].
fn pace(rate: f64) -> u64 {
    let per_gibi_ns = rate.clamp(0.0, RATE_MAX) * f64::from(1 << 30) / 1e9;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 10^7 × 1.07 × 2^20, and not negative"
    )]
    let pace = (per_gibi_ns * f64::from(1 << PACE_SHIFT)) as u64;
    // 0 would be no limit at all.
    pace.max(1)
}
