//! The Via values of a message one after the other, over comma lists and rows (RFC 3261 §7.3.1).

use super::super::scan::{byte, is_lws};
use super::super::via::Via;
use super::{HeaderName, Message, ParseError};
use crate::limits::VIAS_MAX;

/// The Via values of a message.
#[derive(Clone, Debug)]
pub struct Vias<'a> {
    message: &'a Message,
    datagram: &'a [u8],
    row: usize,
    /// Where to go on in the row; `None` at its start.
    pos: Option<usize>,
    count: usize,
}

impl<'a> Vias<'a> {
    pub(super) fn new(message: &'a Message, datagram: &'a [u8]) -> Self {
        Self {
            message,
            datagram,
            row: message.first_index(HeaderName::Via).unwrap_or(usize::MAX),
            pos: None,
            count: 0,
        }
    }

    /// The values below the first.
    #[inline]
    pub(super) fn below_top(message: &'a Message, datagram: &'a [u8]) -> Self {
        let (Some(via), Some(row)) = (message.top_via(), message.first(HeaderName::Via)) else {
            return Self::new(message, datagram);
        };
        let pos = via.value.end();
        // Nothing more in the row and no other row: no need to look through the others.
        let only_one = pos >= row.value.end() && message.repeated & HeaderName::Via.bit() == 0;
        Self {
            message,
            datagram,
            row: match message.first_index(HeaderName::Via) {
                Some(row) if !only_one => row,
                _ => usize::MAX,
            },
            pos: Some(pos),
            count: 1,
        }
    }
}

impl Iterator for Vias<'_> {
    type Item = Result<Via, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let row = self.message.headers().get(self.row)?;
            if row.name != HeaderName::Via {
                self.row += 1;
                continue;
            }
            let end = row.value.end().min(self.datagram.len());
            let mut start = self.pos.unwrap_or(row.value.start());
            // Empty elements are no values, here as in `values`.
            while self.pos.is_some() && start < end && is_separator(self.datagram, start) {
                start += 1;
            }
            if self.pos.is_some() && start >= end {
                self.row += 1;
                self.pos = None;
                continue;
            }
            if self.count == VIAS_MAX {
                self.row = usize::MAX;
                return Some(Err(ParseError::TooManyVias));
            }
            self.count += 1;
            let mut via = None;
            return Some(match Via::parse_at(self.datagram, start, end, &mut via) {
                Ok(after) => {
                    self.pos = Some(after);
                    via.ok_or(ParseError::ViaSentBy)
                }
                Err(error) => {
                    self.row = usize::MAX;
                    Err(error)
                }
            });
        }
    }
}

fn is_separator(datagram: &[u8], pos: usize) -> bool {
    let byte = byte(datagram, pos);
    byte == b',' || is_lws(byte)
}
