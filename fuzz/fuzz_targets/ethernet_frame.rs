//! Any frame into the packet layer, then edited and sent on.
//!
//! The first byte says whether checksums are repaired (else hardly an input would pass them), whether
//! the partial form is accepted, and how many edits follow; each edit is five bytes; the rest is the
//! frame. Held to: ranges inside the frame, an edit list equal to a splice, and what is emitted
//! parses back to the same datagram.

#![no_main]

use libfuzzer_sys::fuzz_target;
use viaduct::packet::{
    Buffer, ChecksumState, EditList, Headers, LinkHeader, PartialChecksum, Sum, emit, parse, udp,
};

/// Room in front of a frame, as in a UMEM chunk.
const HEADROOM: usize = 768;

fuzz_target!(|input: &[u8]| {
    let Some((mode, input)) = input.split_first() else {
        return;
    };
    let edit_count = usize::from(mode >> 4);
    let Some((edits, frame)) = input.split_at_checked(5 * edit_count) else {
        return;
    };
    let mut bytes = vec![0; HEADROOM];
    bytes.extend(frame);
    if mode & 1 != 0 {
        repair(&mut bytes[HEADROOM..]);
    }
    let partial = match mode & 2 {
        0 => PartialChecksum::Reject,
        _ => PartialChecksum::Accept,
    };
    let Ok(headers) = parse(&bytes[HEADROOM..], partial) else {
        return;
    };
    assert!(headers.payload.start <= headers.payload.end && headers.payload.end <= frame.len());
    assert_eq!(headers.src.is_ipv4(), headers.dst.is_ipv4());
    assert!(headers.src.port() != 0);
    assert!(partial == PartialChecksum::Accept || headers.checksum != ChecksumState::Partial);
    forward(&mut bytes, &headers, edits);
});

fn forward(bytes: &mut [u8], headers: &Headers, wanted: &[u8]) {
    let mut expected = bytes[HEADROOM..][headers.payload.clone()].to_vec();
    let mut list = EditList::new();
    let mut planned = Vec::new();
    let mut after = 0;
    for edit in wanted.as_chunks::<5>().0 {
        let [skip, _, delete_len, text_len, byte] = *edit;
        let (start, end) = (
            after + usize::from(skip),
            after + usize::from(skip) + usize::from(delete_len),
        );
        if end > expected.len() {
            break;
        }
        let text = vec![byte; usize::from(text_len % 48)];
        list.replace(start..end, &text);
        planned.push((start..end, text));
        after = end;
    }
    for (range, text) in planned.into_iter().rev() {
        expected.splice(range, text);
    }

    let start = HEADROOM + headers.payload.start;
    let end = HEADROOM + headers.payload.end;
    let mut buffer = Buffer::new(bytes, start, end);
    // 15 edits of 47 bytes always fit into the headroom.
    list.apply(&mut buffer)
        .expect("in order, in range, and there is room");
    assert_eq!(buffer.payload(), expected);
    let payload = buffer.into_range();

    let link = LinkHeader {
        src_mac: headers.dst_mac,
        dst_mac: headers.src_mac,
        tags: headers.tags,
    };
    let Ok(begin) = emit(bytes, payload.clone(), &link, headers.src, headers.dst, 64) else {
        // Only where the longest growth meets the longest headers, or nearly 64 KiB.
        assert!(payload.start < 70 || payload.len() > 65_000);
        return;
    };
    let frame = &bytes[begin..payload.end];
    let again = parse(frame, PartialChecksum::Reject).expect("what is emitted parses");
    assert_eq!(
        (again.src, again.dst, again.tags),
        (headers.src, headers.dst, headers.tags)
    );
    assert_eq!(again.checksum, ChecksumState::Verified);
    assert_eq!(frame[again.payload], expected);
}

/// Writes right checksums into whatever looks like a UDP datagram.
fn repair(frame: &mut [u8]) {
    let mut at = 12;
    let word =
        |frame: &[u8], at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    while matches!(word(frame, at), Some(0x8100 | 0x88a8)) {
        at += 4;
    }
    let repaired = match word(frame, at) {
        Some(0x0800) => repair_v4(frame, at + 2),
        Some(0x86dd) => repair_v6(frame, at + 2),
        _ => None,
    };
    let _ = repaired;
}

fn repair_v4(frame: &mut [u8], at: usize) -> Option<()> {
    frame.get_mut(at + 10..at + 12)?.fill(0);
    let header: [u8; 20] = *frame.get(at..)?.first_chunk()?;
    let checksum = Sum::of(&header).checksum();
    frame
        .get_mut(at + 10..at + 12)?
        .copy_from_slice(&checksum.to_be_bytes());
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = header;
    repair_udp(
        frame,
        at + 20,
        [s0, s1, s2, s3].into(),
        [d0, d1, d2, d3].into(),
    )
}

fn repair_v6(frame: &mut [u8], at: usize) -> Option<()> {
    let src: [u8; 16] = *frame.get(at + 8..)?.first_chunk()?;
    let dst: [u8; 16] = *frame.get(at + 24..)?.first_chunk()?;
    repair_udp(frame, at + 40, src.into(), dst.into())
}

fn repair_udp(
    frame: &mut [u8],
    at: usize,
    src: std::net::IpAddr,
    dst: std::net::IpAddr,
) -> Option<()> {
    let len = u16::from_be_bytes([*frame.get(at + 4)?, *frame.get(at + 5)?]);
    frame.get_mut(at + 6..at + 8)?.fill(0);
    let datagram = frame.get(at..at + usize::from(len))?;
    let sum = Sum::pseudo_header(src, dst, udp::PROTOCOL, len).and(Sum::of(datagram));
    let checksum = if sum.checksum() == 0 {
        0xffff
    } else {
        sum.checksum()
    };
    frame
        .get_mut(at + 6..at + 8)?
        .copy_from_slice(&checksum.to_be_bytes());
    Some(())
}
