//! Frames of a flood: how they mark what differs by call, and how they are kept in a file.
//!
//! A frame is complete, its checksums right, but where the digits of a call come it has a run of
//! [`FLOOD_FIELD_LEN`] equal octets that no message contains; which octet says what comes there.
//! A file of frames is a pcap file of link type Ethernet, so that any tool can show what was sent.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use crate::bpf::{FLOOD_FIELD_LEN, FLOOD_FRAME_LEN_MAX, FloodRecord};
use crate::packet::{self, LinkHeader, PartialChecksum, udp};

/// What stands where the digits of a call come.
pub(super) const BRANCH: u8 = 1;
pub(super) const CALL_ID: u8 = 2;
pub(super) const FROM_TAG: u8 = 3;
/// Where the time of sending comes.
pub(super) const SENT_AT: u8 = 4;
/// A To tag takes the place of the From tag: a frame has one or the other open.
pub(super) const TO_TAG: u8 = FROM_TAG;
/// In the order of the program's fields.
pub(super) const FIELDS: [u8; 4] = [BRANCH, CALL_ID, FROM_TAG, SENT_AT];

/// Bytes in front of the message: enough for any headers.
const HEADERS_LEN_MAX: usize = 128;

/// TTL and hop limit.
const TTL: u8 = 64;

/// Magic number of a pcap file in the byte order of this machine, microseconds; version 2.4.
const PCAP_MAGIC: u32 = 0xa1b2_c3d4;
/// `LINKTYPE_ETHERNET`.
const PCAP_ETHERNET: u32 = 1;

/// The run that marks a field.
pub(super) fn field(octet: u8) -> String {
    char::from(octet).to_string().repeat(FLOOD_FIELD_LEN)
}

/// A message with its headers; `None` if it is too long, or the addresses are of two families.
pub(super) fn frame(
    link: &LinkHeader,
    source: SocketAddr,
    target: SocketAddr,
    message: &[u8],
) -> Option<Vec<u8>> {
    let mut bytes = vec![0; HEADERS_LEN_MAX];
    bytes.extend_from_slice(message);
    let payload = HEADERS_LEN_MAX..bytes.len();
    let start = packet::emit(&mut bytes, payload, link, source, target, TTL).ok()?;
    bytes.drain(..start);
    (bytes.len() <= FLOOD_FRAME_LEN_MAX).then_some(bytes)
}

/// The frame as the program takes it; `None` if it is no UDP datagram with right checksums, or its
/// fields are cut.
pub(super) fn record(frame: &[u8]) -> Option<FloodRecord> {
    let headers = packet::parse(frame, PartialChecksum::Reject).ok()?;
    let mut fields = [0; FIELDS.len()];
    let payload = frame.get(headers.payload.clone())?;
    for (to, octet) in fields.iter_mut().zip(FIELDS) {
        if let Some(at) = payload.iter().position(|byte| *byte == octet) {
            let run = payload.get(at..at + FLOOD_FIELD_LEN)?;
            if run.iter().any(|byte| *byte != octet) {
                return None;
            }
            *to = headers.payload.start + at;
        }
    }
    FloodRecord::with_fields(frame, headers.payload.start - udp::HEADER_LEN, &fields)
}

/// Writes frames to a file.
pub(super) fn write(path: &Path, frames: &[Vec<u8>]) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    out.write_all(&PCAP_MAGIC.to_ne_bytes())?;
    out.write_all(&2_u16.to_ne_bytes())?;
    out.write_all(&4_u16.to_ne_bytes())?;
    out.write_all(&[0; 8])?;
    let len = |frame: &[u8]| u32::try_from(frame.len()).unwrap_or(u32::MAX);
    out.write_all(&len(&[0; FLOOD_FRAME_LEN_MAX]).to_ne_bytes())?;
    out.write_all(&PCAP_ETHERNET.to_ne_bytes())?;
    for frame in frames {
        // All at time 0; captured whole.
        out.write_all(&[0; 8])?;
        out.write_all(&len(frame).to_ne_bytes())?;
        out.write_all(&len(frame).to_ne_bytes())?;
        out.write_all(frame)?;
    }
    out.flush()
}

/// Reads at most `most` frames of a file.
pub(super) fn read(path: &Path, most: usize) -> io::Result<Vec<Vec<u8>>> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut file = BufReader::new(File::open(path)?);
    let mut header = [0; 24];
    file.read_exact(&mut header)?;
    let word = |bytes: &[u8], at: usize| {
        let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
        word.map_or(0, |word| u32::from_ne_bytes(*word))
    };
    if word(&header, 0) != PCAP_MAGIC || word(&header, 20) != PCAP_ETHERNET {
        return Err(damaged("no pcap file of Ethernet frames of this machine"));
    }
    let mut frames = Vec::new();
    let mut header = [0; 16];
    while frames.len() < most {
        match file.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
        let len = usize::try_from(word(&header, 8)).unwrap_or(usize::MAX);
        if len > FLOOD_FRAME_LEN_MAX {
            return Err(damaged("a frame of more than 1,500 bytes"));
        }
        let mut frame = vec![0; len];
        file.read_exact(&mut frame)?;
        frames.push(frame);
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(text: &str) -> Vec<u8> {
        let (source, target) = ("198.18.0.2:5060", "198.18.0.1:5060");
        let (source, target) = (source.parse().unwrap(), target.parse().unwrap());
        frame(&LinkHeader::default(), source, target, text.as_bytes()).unwrap()
    }

    #[test]
    fn frames_survive_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("frames.pcap");
        let frames = vec![example("a"), example(&field(BRANCH)), example("")];
        write(&path, &frames).unwrap();
        assert_eq!(read(&path, 10).unwrap(), frames);
        assert_eq!(read(&path, 2).unwrap(), frames[..2]);
        std::fs::write(&path, b"no pcap file, but long enough to be one").unwrap();
        assert!(read(&path, 10).is_err());
    }

    #[test]
    fn a_record_needs_whole_fields_and_right_checksums() {
        let whole = example(&format!("x{}y{}", field(CALL_ID), field(SENT_AT)));
        assert!(record(&whole).is_some());
        assert!(record(&example(&field(CALL_ID)[1..])).is_none());
        let mut damaged = whole;
        *damaged.last_mut().unwrap() ^= 1;
        assert!(record(&damaged).is_none());
    }

    #[test]
    fn a_frame_has_room_for_1500_bytes() {
        let headers = example("").len();
        let text = "x".repeat(FLOOD_FRAME_LEN_MAX - headers);
        assert_eq!(example(&text).len(), FLOOD_FRAME_LEN_MAX);
        let (source, target) = (
            "198.18.0.2:1".parse().unwrap(),
            "198.18.0.1:1".parse().unwrap(),
        );
        let text = format!("{text}x");
        assert!(frame(&LinkHeader::default(), source, target, text.as_bytes()).is_none());
    }
}
