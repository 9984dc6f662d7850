//! Where stored messages are laid out again: memory of one worker, used for one message at a time.

use core::ops::Range;

use super::compose::Parsed;
use super::record::{Attempt, Record};
use crate::limits::{DATAGRAM_LEN_MAX, GROWTH_MAX, KERNEL_BUFFER_LEN};
use crate::packet::{Buffer, EditList, SAVED_EDITS_LEN_MAX};
use crate::sip::Message;
use crate::transaction::store::{Blob, Blobs};

/// Room in front of a stored request for what its edits insert.
const HEADROOM: usize = GROWTH_MAX.next_multiple_of(64);
const _: () = assert!(HEADROOM + DATAGRAM_LEN_MAX <= KERNEL_BUFFER_LEN);

/// Stored messages, and room to lay one out.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) blobs: Blobs,
    /// The index of the message laid out.
    pub(super) message: Box<Message>,
    pub(super) edits: Box<EditList>,
    memory: Box<[u8]>,
    saved: Box<[u8]>,
    /// Where messages are composed.
    pub(super) text: Box<[u8]>,
}

impl Desk {
    pub(super) fn new(blobs: Blobs) -> Self {
        Self {
            blobs,
            message: Box::new(Message::new()),
            edits: Box::new(EditList::new()),
            memory: vec![0; KERNEL_BUFFER_LEN].into(),
            saved: vec![0; SAVED_EDITS_LEN_MAX].into(),
            text: vec![0; DATAGRAM_LEN_MAX].into(),
        }
    }

    /// Stores bytes; `None` if there is no room.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> Option<Blob> {
        self.blobs.store(&[bytes])
    }

    /// Gives a stored message's room back.
    pub(super) fn forget(&mut self, blob: &mut Option<Blob>) {
        if let Some(blob) = blob.take() {
            self.blobs.free(blob);
        }
    }

    /// Stores an edit list.
    pub(super) fn keep_edits(&mut self, edits: &EditList) -> Option<Blob> {
        let len = edits.save(&mut self.saved).ok()?;
        self.blobs.store(&[self.saved.get(..len)?])
    }

    /// A stored message's bytes.
    pub(super) fn bytes(&mut self, blob: &Blob) -> &[u8] {
        let len = self.blobs.copy_to(blob, &mut self.text);
        self.text.get(..len).unwrap_or_default()
    }

    /// Lays the request out as it came and reads it.
    pub(super) fn lay_out(&mut self, record: &Record) -> Option<Buffer<'_>> {
        let request = record.request.as_ref()?;
        let room = self.memory.get_mut(HEADROOM..)?;
        let len = self.blobs.copy_to(request, room);
        let end = HEADROOM + len;
        self.message.parse(self.memory.get(HEADROOM..end)?).ok()?;
        Some(Buffer::new(&mut self.memory, HEADROOM, end))
    }

    /// What is laid out at `range`, its index, and room for text.
    pub(super) fn parts(&mut self, range: Range<usize>) -> (&[u8], &Message, &mut [u8]) {
        let bytes = self.memory.get(range).unwrap_or_default();
        (bytes, &self.message, &mut self.text)
    }

    /// What is laid out at `range`, to be edited.
    pub(super) fn buffer(&mut self, range: Range<usize>) -> Buffer<'_> {
        Buffer::new(&mut self.memory, range.start, range.end)
    }

    /// Lays the request out as it left on an attempt.
    fn lay_out_attempt(&mut self, record: &Record, attempt: &Attempt) -> Option<Buffer<'_>> {
        let request = record.request.as_ref()?;
        let edits = attempt.edits.as_ref()?;
        let len = self.blobs.copy_to(edits, &mut self.saved);
        self.edits.restore(self.saved.get(..len)?);
        let room = self.memory.get_mut(HEADROOM..)?;
        let len = self.blobs.copy_to(request, room);
        let mut buffer = Buffer::new(&mut self.memory, HEADROOM, HEADROOM + len);
        self.edits.apply(&mut buffer).ok()?;
        Some(buffer)
    }

    /// The request as it left on an attempt.
    pub(super) fn sent(&mut self, record: &Record, attempt: &Attempt) -> Option<&[u8]> {
        let buffer = self.lay_out_attempt(record, attempt)?;
        let range = buffer.into_range();
        self.memory.get(range)
    }

    /// Composes a message from the request as it left on an attempt.
    pub(super) fn compose(
        &mut self,
        record: &Record,
        attempt: &Attempt,
        write: impl FnOnce(Parsed<'_>, &mut [u8]) -> Option<usize>,
    ) -> Option<&[u8]> {
        let range = self.lay_out_attempt(record, attempt)?.into_range();
        let bytes = self.memory.get(range)?;
        self.message.parse(bytes).ok()?;
        let len = write(Parsed::new(bytes, &self.message), &mut self.text)?;
        self.text.get(..len)
    }
}
