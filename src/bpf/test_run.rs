//! Frames through a loaded program without an interface (`BPF_PROG_TEST_RUN`).

use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::libbpf_sys;

use super::error::BpfError;
use super::layout::Action;
use crate::limits::FRAME_LEN;

/// One frame to run.
#[derive(Clone, Copy, Debug)]
pub struct TestRun<'a> {
    /// The frame, from its Ethernet header, at least 14 bytes.
    pub frame: &'a [u8],
    /// The interface and RX queue it pretends to come from; without, the loopback interface and
    /// queue 0.
    pub ingress: Option<(u32, u32)>,
    /// How often to run.
    pub repeat: u32,
}

/// What a test run gave.
#[derive(Clone, Debug)]
pub struct TestRunOutcome {
    /// What the program returned; `None` if it is no XDP action.
    pub action: Option<Action>,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Time per run, on average.
    pub duration: Duration,
}

impl TestRun<'_> {
    /// Runs the program behind a descriptor over the frame.
    ///
    /// # Errors
    /// The kernel's: no such interface or queue, or a frame shorter than an Ethernet header.
    pub fn run(&self, program: impl AsFd) -> Result<TestRunOutcome, BpfError> {
        let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let (ifindex, queue) = self.ingress.unwrap_or_default();
        let context = libbpf_sys::xdp_md {
            data: 0,
            data_end: size(self.frame.len()),
            data_meta: 0,
            ingress_ifindex: ifindex,
            rx_queue_index: queue,
            egress_ifindex: 0,
        };
        // A program may make the frame longer, by what is left of a page at most.
        let mut frame = vec![0; self.frame.len() + FRAME_LEN];
        let mut options = libbpf_sys::bpf_test_run_opts {
            sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
            data_in: self.frame.as_ptr().cast(),
            data_size_in: size(self.frame.len()),
            data_out: frame.as_mut_ptr().cast(),
            data_size_out: size(frame.len()),
            repeat: i32::try_from(self.repeat.max(1)).unwrap_or(i32::MAX),
            ..Default::default()
        };
        if self.ingress.is_some() {
            options.ctx_in = (&raw const context).cast();
            options.ctx_size_in = size(size_of_val(&context));
        }
        let fd = program.as_fd().as_raw_fd();
        // SAFETY: every pointer in `options` leads to memory of the length beside it that outlives
        // the call; only `frame` is written, and it is ours.
        let ret = unsafe { libbpf_sys::bpf_prog_test_run_opts(fd, &raw mut options) };
        if ret < 0 {
            return Err(BpfError::TestRun {
                cause: io::Error::from_raw_os_error(-ret),
            });
        }
        frame.truncate(options.data_size_out as usize);
        Ok(TestRunOutcome {
            action: Action::from_u32(options.retval),
            frame,
            duration: Duration::from_nanos(options.duration.into()),
        })
    }
}
