//! The edit list: changes to a payload, collected first and applied in one pass.
//!
//! A forwarded request gains a `Via` after its start line, perhaps a `Record-Route`, a changed
//! Max-Forwards; a response loses its top `Via`. All of these stand near the front, so the bytes
//! *before* the last edit move, toward the headroom or away from it, each at most once, and the long
//! rest stays where it is.
//!
//! ```text
//!   before            │ request line │ Via: a… (many rows and the body) │
//!   edits                            ^ insert "Via: us…"
//!   after   │ request line │ Via: us… │ Via: a… (has not moved)         │
//! ```
//!
//! A list is fixed in size and reused for every message; nothing allocates. A change that does not
//! fit or overlaps another *poisons* the list: the first error stays and [`EditList::apply`] returns
//! it without touching the buffer, so that the code which composes rows needs no `?` on every word.

use core::fmt;
use core::ops::Range;

use arrayvec::ArrayVec;

use super::{Buffer, Short};
use crate::limits::{EDIT_BYTES_MAX, EDITS_MAX};
use crate::net::IpAddr;
use crate::verdict::DropReason;

/// Why an edit list could not be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditError {
    /// The result needs more headroom than the buffer has.
    NoRoom,
    /// Text was pushed while no edit was open.
    NotOpen,
    /// An edit reaches behind the end of the payload, or its range is reversed.
    OutOfRange,
    /// Two edits delete the same byte, or one inserts inside what another deletes.
    Overlap,
    /// More than [`EDIT_BYTES_MAX`] bytes of text.
    TooMuchText,
    /// More than [`EDITS_MAX`] edits.
    TooManyEdits,
}

impl From<EditError> for DropReason {
    fn from(_: EditError) -> Self {
        Self::NoRoom
    }
}

/// One change: the bytes `at..end` give way to a piece of the list's text.
#[derive(Clone, Copy, Debug)]
struct Edit {
    at: u32,
    end: u32,
    text_start: u16,
    text_end: u16,
}

const _: () = assert!(EDIT_BYTES_MAX <= u16::MAX as usize);

/// Bytes of one edit in a saved list.
const SAVED_EDIT_LEN: usize = 8;

/// Bytes of the longest saved list.
pub const SAVED_EDITS_LEN_MAX: usize = 1 + EDITS_MAX * SAVED_EDIT_LEN + EDIT_BYTES_MAX;
const _: () = assert!(EDITS_MAX <= u8::MAX as usize);

/// A kept segment on its way, in offsets of the buffer's memory.
#[derive(Clone, Copy)]
struct Move {
    src: usize,
    len: usize,
    dst: usize,
}

/// Changes to one payload, kept sorted by place.
///
/// Offsets are those of the payload *before* any change; edits may be added in any order.
/// Insertions at one place come out in the order they were added, and before the replacement of a
/// range that starts there.
#[derive(Debug, Default)]
pub struct EditList {
    // INVARIANT: sorted by (at, end), and no edit begins before the one in front of it ends.
    edits: ArrayVec<Edit, EDITS_MAX>,
    text: ArrayVec<u8, EDIT_BYTES_MAX>,
    /// The edit whose text is being composed: its text is the last in `text`.
    open: Option<usize>,
    error: Option<EditError>,
}

impl EditList {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all edits and the error, if there was one.
    #[inline]
    pub fn clear(&mut self) {
        self.edits.clear();
        self.text.clear();
        self.open = None;
        self.error = None;
    }

    /// Whether there is nothing to apply.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.error.is_none()
    }

    /// The error that has poisoned the list.
    pub fn error(&self) -> Option<EditError> {
        self.error
    }

    /// Bytes that the payload will grow by; negative if it shrinks.
    pub fn growth(&self) -> isize {
        let deleted: usize = self
            .edits
            .iter()
            .map(|edit| (edit.end - edit.at) as usize)
            .sum();
        self.text.len().cast_signed() - deleted.cast_signed()
    }

    /// Deletes `range`.
    pub fn delete(&mut self, range: Range<usize>) {
        self.replace(range, b"");
    }

    /// Inserts `text` in front of the byte at `at`.
    pub fn insert(&mut self, at: usize, text: &[u8]) {
        self.replace(at..at, text);
    }

    /// Puts `text` in the place of `range`.
    pub fn replace(&mut self, range: Range<usize>, text: &[u8]) {
        match range.end.checked_sub(range.start) {
            Some(delete_len) => {
                self.begin(range.start, delete_len);
                self.push(text);
                self.end();
            }
            None => self.poison(EditError::OutOfRange),
        }
    }

    /// Begins an edit at `at` that deletes `delete_len` bytes and inserts what is pushed from now
    /// on. An edit that was open ends.
    pub fn begin(&mut self, at: usize, delete_len: usize) {
        let (Ok(at), Ok(end)) = (
            u32::try_from(at),
            u32::try_from(at.saturating_add(delete_len)),
        ) else {
            return self.poison(EditError::OutOfRange);
        };
        if self.open.is_some() {
            self.end();
        }
        // Nearly always edits come in order.
        let index = match self.edits.last() {
            Some(last) if last.end > at => self.place_for(at, end),
            _ => self.edits.len(),
        };
        self.insert_edit(index, at, end);
    }

    #[cold]
    fn place_for(&self, at: u32, end: u32) -> usize {
        self.edits
            .partition_point(|edit| (edit.at, edit.end) <= (at, end))
    }

    #[inline]
    fn insert_edit(&mut self, index: usize, at: u32, end: u32) {
        let (before, after) = self.edits.split_at(index.min(self.edits.len()));
        let overlaps = before.last().is_some_and(|before| before.end > at)
            || after.first().is_some_and(|after| after.at < end);
        if overlaps {
            return self.poison(EditError::Overlap);
        }
        let text_at = self.text_len();
        let edit = Edit {
            at,
            end,
            text_start: text_at,
            text_end: text_at,
        };
        let inserted = match index == self.edits.len() {
            true => self.edits.try_push(edit).is_ok(),
            false => self.edits.try_insert(index, edit).is_ok(),
        };
        match inserted {
            true => self.open = Some(index),
            false => self.poison(EditError::TooManyEdits),
        }
    }

    /// Appends `text` to the open edit.
    #[inline]
    pub fn push(&mut self, text: &[u8]) {
        if self.open.is_none() {
            return self.poison(EditError::NotOpen);
        }
        if self.text.try_extend_from_slice(text).is_err() {
            self.poison(EditError::TooMuchText);
        }
    }

    /// Appends `value` in decimal to the open edit.
    pub fn push_decimal(&mut self, value: u32) {
        let mut digits = [0; 10];
        let mut first = digits.len();
        let mut rest = value;
        for (index, digit) in digits.iter_mut().enumerate().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            first = index;
            if rest == 0 {
                break;
            }
        }
        self.push(&digits[first..]);
    }

    /// Appends `address` to the open edit: dotted decimal, or RFC 5952 text without brackets.
    pub fn push_ip(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => {
                let mut text = Short::<16>::new();
                text.put_ipv4(v4);
                self.push(text.bytes());
            }
            // An error has poisoned the list already.
            IpAddr::V6(v6) => drop(fmt::Write::write_fmt(self, format_args!("{v6}"))),
        }
    }

    /// Ends the open edit.
    #[inline]
    pub fn end(&mut self) {
        let text_end = self.text_len();
        if let Some(edit) = self.open.take().and_then(|index| self.edits.get_mut(index)) {
            edit.text_end = text_end;
        }
    }

    /// Where the text of the edit at `index` ends.
    #[inline]
    fn text_end(&self, index: usize, edit: &Edit) -> u16 {
        match self.open == Some(index) {
            true => self.text_len(),
            false => edit.text_end,
        }
    }

    /// Writes the list in a form that [`restore`](Self::restore) reads, and returns its length, at
    /// most [`SAVED_EDITS_LEN_MAX`].
    ///
    /// ```text
    /// count 8 │ count × (at 16, end 16, text start 16, text end 16) │ text
    /// ```
    ///
    /// # Errors
    /// The error that poisoned the list; [`EditError::NoRoom`] if `out` is too short or an edit
    /// stands behind the first 65,535 bytes.
    pub fn save(&self, out: &mut [u8]) -> Result<usize, EditError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let len = 1 + self.edits.len() * SAVED_EDIT_LEN + self.text.len();
        let out = out.get_mut(..len).ok_or(EditError::NoRoom)?;
        let (count, rest) = out.split_first_mut().ok_or(EditError::NoRoom)?;
        *count = u8::try_from(self.edits.len()).map_err(|_| EditError::NoRoom)?;
        let (heads, text) = rest.split_at_mut(self.edits.len() * SAVED_EDIT_LEN);
        let heads = heads.chunks_exact_mut(SAVED_EDIT_LEN);
        for ((index, edit), head) in self.edits.iter().enumerate().zip(heads) {
            let short = |offset: u32| u16::try_from(offset).map_err(|_| EditError::NoRoom);
            let fields = [
                short(edit.at)?,
                short(edit.end)?,
                edit.text_start,
                self.text_end(index, edit),
            ];
            for (field, place) in fields.iter().zip(head.chunks_exact_mut(2)) {
                place.copy_from_slice(&field.to_le_bytes());
            }
        }
        text.copy_from_slice(&self.text);
        Ok(len)
    }

    /// Becomes the list that was saved; poisoned if `saved` is not one.
    pub fn restore(&mut self, saved: &[u8]) {
        self.clear();
        if self.try_restore(saved).is_none() {
            self.clear();
            self.poison(EditError::OutOfRange);
        }
    }

    fn try_restore(&mut self, saved: &[u8]) -> Option<()> {
        let (count, rest) = saved.split_first()?;
        let (heads, text) = rest.split_at_checked(usize::from(*count) * SAVED_EDIT_LEN)?;
        let mut last = 0;
        for head in heads.chunks_exact(SAVED_EDIT_LEN) {
            let mut fields = head
                .chunks_exact(2)
                .filter_map(|field| Some(u16::from_le_bytes(field.try_into().ok()?)));
            let edit = Edit {
                at: fields.next()?.into(),
                end: fields.next()?.into(),
                text_start: fields.next()?,
                text_end: fields.next()?,
            };
            let in_text =
                edit.text_start <= edit.text_end && usize::from(edit.text_end) <= text.len();
            if !in_text || edit.at < last || edit.end < edit.at {
                return None;
            }
            last = edit.end;
            self.edits.try_push(edit).ok()?;
        }
        self.text.try_extend_from_slice(text).ok()
    }

    /// Applies all edits to `buffer`. The end of the payload stays where it is in memory, its start
    /// moves by the growth.
    ///
    /// # Errors
    /// The error that poisoned the list, or that it does not fit this payload and its headroom. The
    /// buffer is then unchanged.
    pub fn apply(&self, buffer: &mut Buffer<'_>) -> Result<(), EditError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let Some(last) = self.edits.last() else {
            return Ok(());
        };
        if last.end as usize > buffer.len() {
            return Err(EditError::OutOfRange);
        }
        let base = buffer.start();
        let start = base
            .checked_add_signed(-self.growth())
            .ok_or(EditError::NoRoom)?;

        if self.all_move_to_the_front(base, start) {
            self.apply_forward(buffer.bytes_mut(), base, start);
        } else {
            self.apply_in_runs(buffer.bytes_mut(), base, start);
        }
        buffer.set_start(start);
        Ok(())
    }

    /// Each kept segment in front of an edit, where it goes, and the edit's text, which follows it.
    #[inline]
    fn moves(&self, base: usize, start: usize) -> impl Iterator<Item = (Move, &[u8])> {
        let (mut src, mut dst) = (base, start);
        self.edits.iter().enumerate().map(move |(index, edit)| {
            let text = usize::from(edit.text_start)..usize::from(self.text_end(index, edit));
            let text = self.text.get(text).unwrap_or_default();
            let len = (base + edit.at as usize).saturating_sub(src);
            let kept = Move { src, len, dst };
            src = base + edit.end as usize;
            dst += len + text.len();
            (kept, text)
        })
    }

    /// Whether no kept segment moves away from the headroom, as when the message only grows.
    #[inline]
    fn all_move_to_the_front(&self, base: usize, start: usize) -> bool {
        self.moves(base, start)
            .all(|(kept, _)| kept.dst <= kept.src)
    }

    /// In one pass: what a segment or a text may overwrite lies before the next segment's place,
    /// which is not behind that segment, and has moved already.
    #[inline]
    fn apply_forward(&self, bytes: &mut [u8], base: usize, start: usize) {
        for (kept, text) in self.moves(base, start) {
            kept.apply(bytes);
            kept.write_behind(bytes, text);
        }
    }

    #[cold]
    fn apply_in_runs(&self, bytes: &mut [u8], base: usize, start: usize) {
        let mut all = ArrayVec::<Move, EDITS_MAX>::new();
        all.extend(self.moves(base, start).map(|(kept, _)| kept));
        let mut rest = all.as_slice();
        while let Some((first, others)) = rest.split_first() {
            if first.dst <= first.src {
                // Toward the headroom: what it may overwrite lies before it and has moved already.
                first.apply(bytes);
                rest = others;
            } else {
                // Away from the headroom: a run of such segments goes from its end, so that each
                // lands where the next has left. A segment behind the run is never overwritten: its
                // destination is after this one's and itself not after its source.
                let run = rest.iter().take_while(|kept| kept.dst > kept.src).count();
                let (run, behind) = rest.split_at(run);
                run.iter().rev().for_each(|kept| kept.apply(bytes));
                rest = behind;
            }
        }
        for (kept, text) in self.moves(base, start) {
            kept.write_behind(bytes, text);
        }
    }

    fn text_len(&self) -> u16 {
        text_len(&self.text)
    }

    fn poison(&mut self, error: EditError) {
        self.error.get_or_insert(error);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "EDIT_BYTES_MAX fits, asserted above"
)]
fn text_len(text: &ArrayVec<u8, EDIT_BYTES_MAX>) -> u16 {
    text.len() as u16
}

impl Move {
    fn apply(&self, bytes: &mut [u8]) {
        if self.src != self.dst {
            bytes.copy_within(self.src..self.src + self.len, self.dst);
        }
    }

    #[inline]
    fn write_behind(&self, bytes: &mut [u8], text: &[u8]) {
        let at = self.dst + self.len;
        bytes[at..at + text.len()].copy_from_slice(text);
    }
}

/// Appends formatted text to the open edit.
impl fmt::Write for EditList {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        if self.error.is_some() {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
