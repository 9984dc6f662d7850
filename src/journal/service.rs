//! A log as the process has it: the queue, the file, and the thread between them.
//!
//! A change is made in two steps, so that a reload takes it whole or not at all: [`Service::prepare`]
//! opens the file and may fail, [`Service::commit`] cannot.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use tracing::{error, info};

use crate::publish::{Follower, Published};

/// How often the queue is looked at: workers wake nobody.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes of lines that are written at once.
const PIECE: usize = 64 * 1024;

/// A log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {}: {error}", path.display())]
pub struct OpenError {
    key: &'static str,
    path: PathBuf,
    error: io::Error,
}

/// Appends what a record looks like in the file.
type Format<R> = dyn Fn(&R, &mut Vec<u8>) + Send + Sync;

/// Numbers about a log.
#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    lost: AtomicU64,
}

/// What workers see of a log.
#[derive(Debug)]
pub struct Journal<R> {
    sample: AtomicU32,
    queue: ArrayQueue<R>,
    counts: Arc<Counts>,
}

impl<R: Clone> Journal<R> {
    /// One of how many calls is logged.
    #[inline]
    pub fn sample(&self) -> u32 {
        self.sample.load(Ordering::Relaxed)
    }

    /// Adds a record. A full queue loses it. Does not block, does not allocate.
    pub fn add(&self, record: &R) {
        if self.queue.push(record.clone()).is_err() {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A log of the process.
pub struct Service<R> {
    /// The configuration's key, for messages.
    key: &'static str,
    /// Records between workers and writer.
    queue_len: usize,
    format: Arc<Format<R>>,
    published: Published<Journal<R>>,
    counts: Arc<Counts>,
    writer: Mutex<Option<Writer<R>>>,
}

/// A file that is open, or the wish for none.
#[derive(Debug)]
pub struct Prepared(Option<(File, PathBuf, u32)>);

/// The thread that writes, and what it is told.
struct Writer<R> {
    shared: Arc<Shared<R>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<R> {
    key: &'static str,
    format: Arc<Format<R>>,
    log: Arc<Journal<R>>,
    /// The file to write from now on.
    next: Mutex<Option<(File, PathBuf)>>,
    stop: AtomicBool,
}

impl<R: Clone + Send + 'static> Service<R> {
    /// The log that the configuration's `key` asks for, off yet. While it is on, `queue_len` records
    /// lie in memory.
    pub fn new(
        key: &'static str,
        queue_len: usize,
        format: impl Fn(&R, &mut Vec<u8>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            key,
            queue_len,
            format: Arc::new(format),
            published: Published::new(),
            counts: Arc::default(),
            writer: Mutex::new(None),
        }
    }

    /// The view of one worker.
    pub fn follow(&self) -> Follower<Journal<R>> {
        self.published.follow()
    }

    /// Opens the log's file, made with mode 0640 if it is not there; it is appended to.
    ///
    /// # Errors
    /// The system's, with the path.
    pub fn prepare(&self, wanted: Option<(&Path, u32)>) -> Result<Prepared, OpenError> {
        let Some((path, sample)) = wanted else {
            return Ok(Prepared(None));
        };
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(path)
            .map_err(|error| OpenError {
                key: self.key,
                path: path.to_owned(),
                error,
            })?;
        Ok(Prepared(Some((file, path.to_owned(), sample))))
    }

    /// Logs to the file that was prepared from now on, or not at all. A file of the same path that
    /// was moved away is thereby left, as log rotation wants it.
    ///
    /// # Errors
    /// The system's, if the first log finds no thread; there is no log then.
    pub fn commit(&self, prepared: Prepared) -> io::Result<()> {
        let Some((file, path, sample)) = prepared.0 else {
            self.stop();
            return Ok(());
        };
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *writer {
            Some(writer) => {
                writer.shared.log.sample.store(sample, Ordering::Relaxed);
                writer.shared.put(file, path);
            }
            none => {
                let log = Arc::new(Journal {
                    sample: AtomicU32::new(sample),
                    queue: ArrayQueue::new(self.queue_len),
                    counts: self.counts.clone(),
                });
                *none = Some(Writer::start(Shared {
                    key: self.key,
                    format: self.format.clone(),
                    log: log.clone(),
                    next: Mutex::new(Some((file, path))),
                    stop: AtomicBool::new(false),
                })?);
                self.published.set(Some(log));
            }
        }
        Ok(())
    }

    /// Ends the log; what workers have added is written first.
    pub fn stop(&self) {
        self.published.set(None);
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Records written and lost so far.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.counts.written.load(Ordering::Relaxed),
            self.counts.lost.load(Ordering::Relaxed),
        )
    }

    /// Whether there is a log.
    pub fn is_on(&self) -> bool {
        self.published.current().is_some()
    }

    /// Frees the memory of logs that have ended.
    pub fn reap(&self) {
        self.published.reap();
    }
}

impl<R> Shared<R> {
    fn put(&self, file: File, path: PathBuf) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some((file, path));
    }

    /// Writes until told to stop, then what is left.
    fn write(&self) {
        let mut output = None;
        let mut broken = false;
        let mut lines = Vec::with_capacity(2 * PIECE);
        loop {
            // Looked at before the queue: what was added before the end is written.
            let last = self.stop.load(Ordering::Acquire);
            let next = self
                .next
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if next.is_some() {
                output = next;
            }
            loop {
                lines.clear();
                let mut count = 0;
                while lines.len() < PIECE
                    && let Some(record) = self.log.queue.pop()
                {
                    (self.format)(&record, &mut lines);
                    count += 1;
                }
                if count == 0 {
                    break;
                }
                let Some((file, path)) = &mut output else {
                    break;
                };
                match file.write_all(&lines) {
                    Ok(()) => {
                        self.log.counts.written.fetch_add(count, Ordering::Relaxed);
                        if core::mem::take(&mut broken) {
                            info!("{}: {}: written again", self.key, path.display());
                        }
                    }
                    Err(error) => {
                        self.log.counts.lost.fetch_add(count, Ordering::Relaxed);
                        if !core::mem::replace(&mut broken, true) {
                            error!("{}: {}: {error}", self.key, path.display());
                        }
                    }
                }
            }
            if last {
                return;
            }
            thread::park_timeout(PAUSE);
        }
    }
}

impl<R: Send + 'static> Writer<R> {
    fn start(shared: Shared<R>) -> io::Result<Self> {
        let shared = Arc::new(shared);
        let thread = thread::Builder::new()
            .name("viaduct-log".to_owned())
            .spawn({
                let shared = shared.clone();
                move || shared.write()
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }
}

impl<R> Drop for Writer<R> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _panicked = thread.join();
        }
    }
}
