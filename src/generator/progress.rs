//! A line each second while a run lasts.

use std::io::{IsTerminal as _, Write as _, stderr};

use crate::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);

/// Whether lines are wanted: asked for, or standard error is a terminal and nobody said no.
pub(super) fn is_wanted(progress: bool, quiet: bool) -> bool {
    progress || (!quiet && stderr().is_terminal())
}

/// Writes the lines.
#[derive(Debug)]
pub(super) struct Progress {
    start: Instant,
    next: Option<Instant>,
    on_terminal: bool,
    written: bool,
}

impl Progress {
    pub(super) fn new(is_wanted: bool, start: Instant) -> Self {
        Self {
            start,
            next: is_wanted.then(|| start + INTERVAL),
            on_terminal: stderr().is_terminal(),
            written: false,
        }
    }

    /// Whether a second has passed since the last line.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Writes a line; on a terminal over the last one.
    pub(super) fn write(&mut self, now: Instant, line: &str) {
        let seconds = now.since(self.start).as_secs();
        let mut out = stderr().lock();
        // A reader that has gone is no reason to end a run.
        let _ = if self.on_terminal {
            write!(out, "\r\x1b[K{seconds:>4} s  {line}").and_then(|()| out.flush())
        } else {
            writeln!(out, "{seconds:>4} s  {line}")
        };
        self.written = true;
        self.next = Some(now + INTERVAL);
    }

    /// Ends the line on a terminal.
    pub(super) fn end(&mut self) {
        if self.written && self.on_terminal {
            let _ = writeln!(stderr());
        }
    }
}
