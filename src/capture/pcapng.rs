//! pcapng: the blocks of a capture file (draft-ietf-opsawg-pcapng).
//!
//! One interface block a listener, link type RAW: no frame exists for what the kernel path carries,
//! so IP and UDP headers are written from the flow and Ethernet is left out. Addresses, ports,
//! lengths and checksums are right; TTL and identification are not those on the wire.

use core::fmt::Write as _;

use super::session::{Direction, Fate, Interface, Slot};
use crate::limits::CAPTURE_SLOT_LEN;
use crate::packet::{ipv6, raw};

/// LINKTYPE_RAW: an IPv4 or IPv6 packet, told by its first four bits.
const LINKTYPE_RAW: u16 = 101;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

const COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const EPB_PACKETID: u16 = 5;
const ISB_STARTTIME: u16 = 2;
const ISB_ENDTIME: u16 = 3;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;

/// Longest packet in a file: a full slot behind its headers.
const SNAP_LEN: usize = CAPTURE_SLOT_LEN + ipv6::HEADER_LEN + 8;

/// One block being written at the end of a buffer.
struct Block<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Block<'a> {
    fn new(out: &'a mut Vec<u8>, block_type: u32) -> Self {
        let start = out.len();
        let mut block = Self { out, start };
        block.u32(block_type);
        block.u32(0);
        block
    }

    fn u16(&mut self, value: u16) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// A time stamp: the high word first, whatever the byte order.
    #[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
    fn time(&mut self, nanos: u64) {
        self.u32((nanos >> 32) as u32);
        self.u32(nanos as u32);
    }

    fn pad(&mut self) {
        let len = (self.out.len() - self.start).next_multiple_of(4);
        self.out.resize(self.start + len, 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
        self.u16(code);
        self.u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
        self.out.extend_from_slice(value);
        self.pad();
    }

    fn time_option(&mut self, code: u16, nanos: u64) {
        self.u16(code);
        self.u16(8);
        self.time(nanos);
    }

    /// Ends the options and the block: its length stands at both ends.
    fn finish(mut self) {
        self.u32(0);
        let len = u32::try_from(self.out.len() + 4 - self.start).unwrap_or(u32::MAX);
        self.u32(len);
        if let Some(field) = self.out.get_mut(self.start + 4..self.start + 8) {
            field.copy_from_slice(&len.to_le_bytes());
        }
    }
}

/// The front of a file: section header and one block a listener.
pub fn header(out: &mut Vec<u8>, interfaces: &[Interface]) {
    let mut block = Block::new(out, SECTION_HEADER);
    block.u32(0x1a2b_3c4d);
    block.u16(1);
    block.u16(0);
    block.u64(u64::MAX); // the length of the section is not known yet
    let program = concat!("viaduct ", env!("CARGO_PKG_VERSION"));
    block.option(SHB_USERAPPL, program.as_bytes());
    block.finish();
    for interface in interfaces {
        let mut block = Block::new(out, INTERFACE_DESCRIPTION);
        block.u16(LINKTYPE_RAW);
        block.u16(0);
        block.u32(u32::try_from(SNAP_LEN).unwrap_or(u32::MAX));
        block.option(IF_NAME, interface.name.as_bytes());
        block.option(IF_DESCRIPTION, interface.description.as_bytes());
        block.option(IF_TSRESOL, &[9]); // nanoseconds
        block.finish();
    }
}

/// One datagram with its headers, captured at `nanos` since the epoch.
pub fn packet(out: &mut Vec<u8>, slot: &Slot, nanos: u64) {
    let (src, dst, direction) = match slot.direction {
        Direction::Inbound => (slot.flow.peer, slot.flow.local, 1),
        Direction::Outbound => (slot.flow.local, slot.flow.peer, 2),
    };
    let mut room = [0; raw::HEADERS_LEN_MAX];
    // A datagram that is too long for its own header was refused by the kernel as well.
    let Some(headers) = raw::headers(&mut room, src, dst, slot.payload(), slot.len) else {
        return;
    };
    let mut block = Block::new(out, ENHANCED_PACKET);
    block.u32(u32::from(slot.flow.listener.0));
    block.time(nanos);
    let len = |payload: usize| u32::try_from(headers.len() + payload).unwrap_or(u32::MAX);
    block.u32(len(slot.payload().len()));
    block.u32(len(slot.len));
    block.out.extend_from_slice(headers);
    block.out.extend_from_slice(slot.payload());
    block.pad();
    block.option(EPB_FLAGS, &u32::to_le_bytes(direction));
    block.option(EPB_PACKETID, &slot.id.to_le_bytes());
    block.option(COMMENT, comment(slot).as_bytes());
    block.finish();
}

/// What happened to the datagram, in words.
fn comment(slot: &Slot) -> String {
    let mut text = match (slot.direction, slot.fate) {
        (Direction::Inbound, Fate::Forwarded(to)) => format!("forwarded to {to}"),
        (Direction::Inbound, Fate::Answered(status)) => format!("answered {status}"),
        (_, Fate::Absorbed) => "taken: it was for us".to_owned(),
        (_, Fate::Originated) => "sent: our own".to_owned(),
        (_, Fate::Dropped(reason)) => format!("dropped: {}", reason.as_str()),
        (Direction::Outbound, Fate::Forwarded(_)) => "sent".to_owned(),
        (Direction::Outbound, Fate::Answered(_)) => "sent: our own answer".to_owned(),
    };
    // Writing into a String cannot fail.
    let _infallible = write!(text, ", worker {}", slot.worker.0);
    if slot.handed_over {
        text.push_str(", handed over to it by another worker");
    }
    text
}

/// The end of a file: what was captured and lost on each listener, in their order.
pub fn statistics(
    out: &mut Vec<u8>,
    started_nanos: u64,
    ended_nanos: u64,
    counts: impl Iterator<Item = (u64, u64)>,
) {
    for (interface, (taken, lost)) in (0..).zip(counts) {
        let mut block = Block::new(out, INTERFACE_STATISTICS);
        block.u32(interface);
        block.time(ended_nanos);
        block.time_option(ISB_STARTTIME, started_nanos);
        block.time_option(ISB_ENDTIME, ended_nanos);
        block.option(ISB_IFRECV, &(taken + lost).to_le_bytes());
        block.option(ISB_IFDROP, &lost.to_le_bytes());
        block.finish();
    }
}

/// Counts the blocks of a file that passes by, in pieces of any length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets seen.
    pub packets: u64,
    /// Packets that the statistics at the end call lost.
    pub lost: u64,
    /// Whether the statistics have come: the file is whole.
    pub ended: bool,
    block: Vec<u8>,
    /// Bytes of the block at hand; 0 until its length is known.
    len: usize,
    /// Bytes of it that have passed.
    passed: usize,
}

/// Bytes of a block that are kept: all of a statistics block.
const KEPT_LEN: usize = 128;

impl Tally {
    /// Takes the next piece.
    pub fn feed(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let wanted = if self.len == 0 { 8 } else { self.len } - self.passed;
            let (front, rest) = piece.split_at(wanted.min(piece.len()));
            let room = KEPT_LEN.saturating_sub(self.block.len());
            self.block
                .extend_from_slice(front.get(..room).unwrap_or(front));
            self.passed += front.len();
            piece = rest;
            if self.len == 0 && self.passed == 8 {
                // A block holds at least its type and its length at both ends.
                self.len = (word(&self.block, 4) as usize).max(12);
            }
            if self.passed == self.len {
                self.count();
                self.block.clear();
                (self.len, self.passed) = (0, 0);
            }
        }
    }

    fn count(&mut self) {
        match word(&self.block, 0) {
            ENHANCED_PACKET => self.packets += 1,
            INTERFACE_STATISTICS => {
                self.ended = true;
                let mut at = 20;
                while at + 4 < self.block.len() {
                    let code = word(&self.block, at);
                    let (code, len) = (code & 0xffff, (code >> 16) as usize);
                    if code == u32::from(ISB_IFDROP) {
                        self.lost += u64::from(word(&self.block, at + 4))
                            | u64::from(word(&self.block, at + 8)) << 32;
                    }
                    at += 4 + len.next_multiple_of(4);
                }
            }
            _ => {}
        }
    }
}

/// The little-endian word at `at`; 0 behind the end.
fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>);
    word.map_or(0, |word| u32::from_le_bytes(*word))
}
