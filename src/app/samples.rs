//! Samples of what was dropped: at most one a second for each reason, for the log.
//!
//! A worker may not write a log line: that allocates and may block. It leaves a copy of the start
//! of the message in a bounded queue, and only when a sample of that reason is wanted; the main
//! thread turns samples into lines and wants new ones each second. A full queue loses samples,
//! never messages.

use core::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;

use crate::net::Flow;
use crate::verdict::DropReason;

/// Bytes of the message that a sample keeps: the start line of nearly all.
const SAMPLE_LEN: usize = 96;

/// A dropped message.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Why.
    pub reason: DropReason,
    /// From whom and to which address.
    pub flow: Flow,
    start: ArrayVec<u8, SAMPLE_LEN>,
}

impl Sample {
    /// The first line, with what does not print replaced.
    pub fn first_line(&self) -> String {
        let line = self
            .start
            .split(|byte| *byte == b'\r' || *byte == b'\n')
            .next()
            .unwrap_or(&[]);
        let printable = |byte: &u8| match byte {
            0x20..=0x7e => char::from(*byte),
            _ => '.',
        };
        line.iter().map(printable).collect()
    }
}

/// Where workers leave samples.
#[derive(Debug)]
pub struct Samples {
    wanted: [AtomicBool; DropReason::COUNT],
    queue: ArrayQueue<Sample>,
}

impl Samples {
    /// A queue with room for one sample of every reason.
    pub fn new() -> Self {
        Self {
            wanted: core::array::from_fn(|_| AtomicBool::new(true)),
            queue: ArrayQueue::new(DropReason::COUNT),
        }
    }

    /// Leaves a sample if one is wanted. Does not allocate, does not block.
    #[inline]
    pub fn offer(&self, reason: DropReason, flow: &Flow, message: &[u8]) {
        let wanted = &self.wanted[reason as usize];
        if wanted.load(Ordering::Relaxed) && wanted.swap(false, Ordering::Relaxed) {
            let mut start = ArrayVec::new();
            let len = message.len().min(SAMPLE_LEN);
            // Cannot fail: `len` is at most the capacity.
            let _fits = start.try_extend_from_slice(&message[..len]);
            let _lost_when_full = self.queue.push(Sample {
                reason,
                flow: *flow,
                start,
            });
        }
    }

    /// Takes what was left and wants new samples of every reason.
    pub fn take(&self) -> Vec<Sample> {
        let samples = core::iter::from_fn(|| self.queue.pop()).collect();
        for wanted in &self.wanted {
            wanted.store(true, Ordering::Relaxed);
        }
        samples
    }
}

impl Default for Samples {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ListenerIndex;

    #[test]
    fn one_sample_of_a_reason_until_taken() {
        let samples = Samples::new();
        let address = "198.18.0.1:5060".parse().unwrap();
        let flow = Flow {
            listener: ListenerIndex(0),
            local: address,
            peer: address,
        };
        for _ in 0..3 {
            samples.offer(DropReason::NotSip, &flow, b"hello\x01 world\r\nsecond");
            samples.offer(DropReason::Malformed, &flow, &[b'x'; 500]);
        }
        let taken = samples.take();
        assert_eq!(taken.len(), 2);
        assert_eq!(taken[0].first_line(), "hello. world");
        assert_eq!(taken[1].first_line().len(), SAMPLE_LEN);
        assert!(samples.take().is_empty());
        samples.offer(DropReason::NotSip, &flow, b"");
        assert_eq!(samples.take().len(), 1);
    }
}
