//! Who looks over a worker's shoulder: captures and the common log.

use crate::capture;
use crate::clf;
use crate::datapath::{Origin, Packet};
use crate::verdict::DropReason;

/// The observers of one worker. Told of every message while [`is_on`](Self::is_on): first
/// [`received`](Self::received), then what became of it.
#[derive(Debug, Default)]
pub struct Observer {
    capture: Option<capture::Tap>,
    log: Option<clf::Tap>,
}

impl Observer {
    /// With captures.
    #[must_use]
    pub fn capture(self, tap: capture::Tap) -> Self {
        Self {
            capture: Some(tap),
            ..self
        }
    }

    /// With the common log.
    #[must_use]
    pub fn log(self, tap: clf::Tap) -> Self {
        Self {
            log: Some(tap),
            ..self
        }
    }

    /// To be called once on the worker's thread before its first packet.
    pub fn warm_up(&self) {
        if let Some(capture) = &self.capture {
            capture.warm_up();
        }
        if let Some(log) = &self.log {
            log.warm_up();
        }
    }

    /// Whether anybody looks. Ask once a batch.
    #[inline]
    pub fn is_on(&mut self) -> bool {
        self.capture.as_mut().is_some_and(capture::Tap::is_on)
            || self.log.as_mut().is_some_and(clf::Tap::is_on)
    }

    /// A message, as it was received.
    pub fn received(&mut self, packet: &Packet) {
        let handed_over = packet.origin() == Origin::HandOver;
        if let Some(capture) = &mut self.capture {
            capture.received(&packet.flow, packet.payload(), handed_over);
        }
        if let Some(log) = &mut self.log {
            log.received(&packet.flow, packet.payload());
        }
    }

    /// The message is sent, as it now is.
    pub fn sent(&mut self, packet: &Packet) {
        if let Some(capture) = &mut self.capture {
            capture.sent(&packet.flow, packet.payload());
        }
        if let Some(log) = &mut self.log {
            log.sent(&packet.flow, packet.payload());
        }
    }

    /// The message is dropped.
    pub fn dropped(&mut self, reason: DropReason) {
        if let Some(capture) = &mut self.capture {
            capture.dropped(reason);
        }
        if let Some(log) = &mut self.log {
            log.dropped();
        }
    }

    /// The message was for us and goes no further.
    pub fn absorbed(&mut self) {
        if let Some(capture) = &mut self.capture {
            capture.absorbed();
        }
        if let Some(log) = &mut self.log {
            log.absorbed();
        }
    }

    /// A message of our own is sent.
    pub fn originated(&mut self, packet: &Packet) {
        if let Some(capture) = &mut self.capture {
            capture.originated(&packet.flow, packet.payload());
        }
        if let Some(log) = &mut self.log {
            log.originated(&packet.flow, packet.payload());
        }
    }

    /// The message went to another worker, who tells the rest, or was dropped on the way.
    pub fn handed_over(&mut self, result: Result<(), DropReason>) {
        match result {
            Ok(()) => {
                if let Some(capture) = &mut self.capture {
                    capture.handed_over();
                }
                if let Some(log) = &mut self.log {
                    log.handed_over();
                }
            }
            Err(reason) => self.dropped(reason),
        }
    }
}
