//! A sender of frames as fast as one thread can: a device queue, its frames, and the loop around
//! both. For generators and tests.

use arrayvec::ArrayVec;

use super::device::{DeviceQueue, Mode, QueueConfig};
use super::error::XskError;
use super::frame::Frame;
use super::pool::FrameCache;
use super::socket::{Kick, KickCounts, Statistics};
use super::umem::Umem;
use crate::limits::BATCH;

/// One device queue with one socket and its own cache of frames.
#[derive(Debug)]
pub struct Sender {
    queue: DeviceQueue,
    cache: FrameCache,
    kicks: KickCounts,
}

impl Sender {
    /// Opens a queue of an interface in the calling thread's network namespace.
    ///
    /// # Errors
    /// As [`DeviceQueue::open`].
    pub fn open(umem: &'static Umem, config: &QueueConfig, mode: Mode) -> Result<Self, XskError> {
        let mut cache = umem.cache();
        let config = QueueConfig {
            sockets: 1,
            ..*config
        };
        let queue = DeviceQueue::open(umem, &config, mode, &mut cache)?;
        Ok(Self::over(queue, cache))
    }

    /// Over a queue that is open already; its first socket sends.
    pub fn over(queue: DeviceQueue, cache: FrameCache) -> Self {
        Self {
            queue,
            cache,
            kicks: KickCounts::default(),
        }
    }

    /// Sends up to a batch of frames: `write` is called for each with an empty frame, puts the data
    /// in and sets its range, or returns false to end the batch. Returns how many were queued: 0
    /// means that the device has not sent the earlier ones yet, or that `write` has no more.
    ///
    /// # Errors
    /// [`XskError::Lost`] if the socket no longer works.
    #[inline]
    pub fn send(&mut self, mut write: impl FnMut(&mut Frame) -> bool) -> Result<usize, XskError> {
        let Some(socket) = self.queue.sockets.first_mut() else {
            return Ok(0);
        };
        self.queue.rings.reclaim(&mut self.cache);
        let mut batch = ArrayVec::<Frame, BATCH>::new();
        let room = socket.room().min(BATCH);
        while batch.len() < room {
            let Some(mut frame) = self.cache.allocate() else {
                break;
            };
            if !write(&mut frame) {
                self.cache.release(frame);
                break;
            }
            batch.push(frame);
        }
        let sent = socket.transmit(&mut batch);
        debug_assert!(batch.is_empty(), "there was room");
        socket.kick(&mut self.kicks)?;
        Ok(sent)
    }

    /// Gives received frames to `take`, up to a batch, and keeps the fill ring full. Returns how
    /// many.
    pub fn receive(&mut self, mut take: impl FnMut(&Frame)) -> usize {
        let Some(socket) = self.queue.sockets.first_mut() else {
            return 0;
        };
        let cache = &mut self.cache;
        let received = socket.receive_each(BATCH, |frame| {
            take(&frame);
            cache.release(frame);
        });
        if received > 0 {
            self.queue.rings.refill(cache);
        }
        received
    }

    /// Pushes on what waits: reclaims what was sent and kicks.
    ///
    /// # Errors
    /// [`XskError::Lost`] if the socket no longer works.
    pub fn flush(&mut self) -> Result<Kick, XskError> {
        self.queue.rings.reclaim(&mut self.cache);
        match self.queue.sockets.first_mut() {
            Some(socket) => socket.kick(&mut self.kicks),
            None => Ok(Kick::Idle),
        }
    }

    /// What the kicks cost so far.
    pub fn kicks(&self) -> KickCounts {
        self.kicks
    }

    /// The kernel's counts.
    ///
    /// # Errors
    /// [`XskError::Lost`] if the socket no longer works.
    pub fn statistics(&self) -> Result<Statistics, XskError> {
        match self.queue.sockets.first() {
            Some(socket) => socket.statistics(),
            None => Ok(Statistics::default()),
        }
    }

    /// The queue, for the XSKMAP and for counting.
    pub fn queue(&self) -> &DeviceQueue {
        &self.queue
    }

    /// The cache, for counting.
    pub fn cache(&self) -> &FrameCache {
        &self.cache
    }
}
