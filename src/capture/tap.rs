//! The worker's side of a capture.

use std::sync::Arc;

use super::session::{Direction, Fate, Session, Slot};
use crate::net::{Flow, WorkerIndex};
use crate::publish::Follower;
use crate::sip::Message;
use crate::verdict::DropReason;

/// What one worker captures through. For every message [`received`](Self::received), then one of
/// the others, and nothing while [`is_on`](Self::is_on) says no.
#[derive(Debug)]
pub struct Tap {
    session: Follower<Session>,
    worker: WorkerIndex,
    message: Box<Message>,
    /// The message at hand, if it may be captured.
    staged: Option<Staged>,
}

/// A copy that waits for its fate. Its session may have ended by then.
#[derive(Debug)]
struct Staged {
    session: Arc<Session>,
    slot: Box<Slot>,
}

impl Tap {
    pub(super) fn new(session: Follower<Session>, worker: WorkerIndex) -> Self {
        Self {
            session,
            worker,
            message: Box::new(Message::new()),
            staged: None,
        }
    }

    /// To be called once on the worker's thread before its first packet.
    pub fn warm_up(&self) {
        self.session.warm_up();
    }

    /// Whether a capture runs. One relaxed load: ask once a batch.
    #[inline]
    pub fn is_on(&mut self) -> bool {
        self.session.load().is_some()
    }

    /// A message, as it was received.
    pub fn received(&mut self, flow: &Flow, payload: &[u8], handed_over: bool) {
        let Some(session) = self.session.load() else {
            return;
        };
        if !session.filter.matches_message(payload, &mut self.message) {
            return;
        }
        let Some(mut slot) = session.free_slot(flow.listener) else {
            return;
        };
        slot.fill(flow, payload);
        slot.id = session.next_id();
        slot.direction = Direction::Inbound;
        slot.worker = self.worker;
        slot.handed_over = handed_over;
        let session = session.clone();
        self.staged = Some(Staged { session, slot });
    }

    /// The message is sent, as it now is: forwarded, or answered.
    pub fn sent(&mut self, flow: &Flow, payload: &[u8]) {
        let Some(Staged { session, mut slot }) = self.staged.take() else {
            return;
        };
        if !session
            .filter
            .matches_peers(slot.flow.peer, Some(flow.peer))
        {
            session.release(slot);
            return;
        }
        let fate = match (status(slot.payload()), status(payload)) {
            (None, Some(status)) => Fate::Answered(status),
            _ => Fate::Forwarded(flow.peer),
        };
        slot.fate = fate;
        let (id, handed_over) = (slot.id, slot.handed_over);
        session.keep(slot);
        let Some(mut slot) = session.free_slot(flow.listener) else {
            return;
        };
        slot.fill(flow, payload);
        slot.id = id;
        slot.direction = Direction::Outbound;
        slot.fate = fate;
        slot.worker = self.worker;
        slot.handed_over = handed_over;
        session.keep(slot);
    }

    /// The message is dropped.
    pub fn dropped(&mut self, reason: DropReason) {
        let Some(Staged { session, mut slot }) = self.staged.take() else {
            return;
        };
        if session.filter.matches_peers(slot.flow.peer, None) {
            slot.fate = Fate::Dropped(reason);
            session.keep(slot);
        } else {
            session.release(slot);
        }
    }

    /// The message was for us and goes no further.
    pub fn absorbed(&mut self) {
        let Some(Staged { session, mut slot }) = self.staged.take() else {
            return;
        };
        if session.filter.matches_peers(slot.flow.peer, None) {
            slot.fate = Fate::Absorbed;
            session.keep(slot);
        } else {
            session.release(slot);
        }
    }

    /// A message of our own is sent. What was received stays at hand.
    pub fn originated(&mut self, flow: &Flow, payload: &[u8]) {
        let Some(session) = self.session.load() else {
            return;
        };
        if !session.filter.matches_message(payload, &mut self.message)
            || !session.filter.matches_peers(flow.peer, None)
        {
            return;
        }
        let Some(mut slot) = session.free_slot(flow.listener) else {
            return;
        };
        slot.fill(flow, payload);
        slot.id = session.next_id();
        slot.direction = Direction::Outbound;
        slot.fate = Fate::Originated;
        slot.worker = self.worker;
        slot.handed_over = false;
        session.keep(slot);
    }

    /// Another worker has it now, and captures it.
    pub fn handed_over(&mut self) {
        if let Some(Staged { session, slot }) = self.staged.take() {
            session.release(slot);
        }
    }
}

/// The status of a response; `None` for anything else.
fn status(payload: &[u8]) -> Option<u16> {
    let code = payload
        .trim_ascii_start()
        .strip_prefix(b"SIP/2.0 ")?
        .get(..3)?;
    core::str::from_utf8(code).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_told_by_their_start_line() {
        assert_eq!(status(b"SIP/2.0 180 Ringing\r\n"), Some(180));
        assert_eq!(status(b"\r\nSIP/2.0 200"), Some(200));
        for other in [
            &b"INVITE sip:a@b SIP/2.0 200\r\n"[..],
            b"SIP/2.0 2",
            b"SIP/2.0 abc",
            b"",
        ] {
            assert_eq!(status(other), None);
        }
    }
}
