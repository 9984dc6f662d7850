//! Sessions as workers and readers see them, and the bytes of a capture file.

use std::sync::Arc;

use super::pcapng::{self, Tally};
use super::*;
use crate::limits::{CAPTURE_SLOT_LEN, CAPTURE_SLOTS};
use crate::net::{Flow, ListenerIndex, SocketAddr, WorkerIndex};
use crate::verdict::DropReason;

const REQUEST: &[u8] = b"INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
    From: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: 7@h\r\nCSeq: 1 INVITE\r\n\r\n";
const ANSWER: &[u8] = b"SIP/2.0 403 Forbidden\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
    From: <sip:a@x>;tag=1\r\nTo: <sip:b@x>;tag=2\r\nCall-ID: 7@h\r\nCSeq: 1 INVITE\r\n\r\n";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn flow(listener: u8, peer: &str) -> Flow {
    Flow {
        listener: ListenerIndex(listener),
        local: address("198.18.0.1:5060"),
        peer: address(peer),
    }
}

fn captures() -> Arc<Captures> {
    let interface = |name: &str| Interface {
        name: name.to_owned(),
        description: "198.18.0.1:5060".to_owned(),
    };
    Arc::new(Captures::new(vec![interface("clients"), interface("farm")]))
}

const CLIENT: &str = "198.18.0.100:5070";
const SERVER: &str = "198.18.1.11:5060";

#[test]
fn what_is_received_and_sent_is_told_with_what_became_of_it() {
    let captures = captures();
    let mut tap = captures.tap(WorkerIndex(3));
    assert!(!tap.is_on());
    let running = captures.begin(Filter::all()).unwrap();
    assert!(tap.is_on());

    tap.received(&flow(0, CLIENT), REQUEST, false);
    tap.sent(&flow(1, SERVER), b"edited");
    tap.received(&flow(0, CLIENT), REQUEST, true);
    tap.sent(&flow(0, CLIENT), ANSWER);
    tap.received(&flow(0, CLIENT), b"hello", false);
    tap.dropped(DropReason::NotSip);
    tap.received(&flow(0, CLIENT), b"elsewhere", false);
    tap.handed_over();

    let taken: Vec<_> = core::iter::from_fn(|| running.take()).collect();
    let told: Vec<_> = taken
        .iter()
        .map(|slot| (slot.direction, slot.fate, slot.handed_over))
        .collect();
    let (inbound, outbound) = (Direction::Inbound, Direction::Outbound);
    let (forwarded, answered) = (Fate::Forwarded(address(SERVER)), Fate::Answered(403));
    assert_eq!(
        told,
        [
            (inbound, forwarded, false),
            (outbound, forwarded, false),
            (inbound, answered, true),
            (outbound, answered, true),
            (inbound, Fate::Dropped(DropReason::NotSip), false),
        ]
    );
    assert_eq!(taken[0].payload(), REQUEST);
    assert_eq!(taken[1].payload(), b"edited");
    assert_eq!(taken[1].flow, flow(1, SERVER));
    assert_eq!(taken[1].worker, WorkerIndex(3));
    assert_eq!(taken[0].id, taken[1].id);
    assert_ne!(taken[1].id, taken[2].id);
    assert_eq!(running.counts(ListenerIndex(0)), (4, 0));
    assert_eq!(running.counts(ListenerIndex(1)), (1, 0));
}

#[test]
fn a_filter_takes_both_twins_or_none_and_gives_the_slots_back() {
    let captures = captures();
    let mut tap = captures.tap(WorkerIndex(0));
    let server = Filter::all().peer("198.18.1.11".parse().unwrap());
    let running = captures.begin(server).unwrap();
    for _ in 0..2 * CAPTURE_SLOTS {
        tap.received(&flow(0, CLIENT), REQUEST, false);
        tap.sent(&flow(1, "198.18.1.12:5060"), b"edited");
        tap.received(&flow(0, CLIENT), REQUEST, false);
        tap.dropped(DropReason::NoServer);
        tap.received(&flow(0, CLIENT), REQUEST, false);
        tap.handed_over();
    }
    assert!(running.take().is_none());
    tap.received(&flow(0, CLIENT), REQUEST, false);
    tap.sent(&flow(1, SERVER), b"edited");
    let taken: Vec<_> = core::iter::from_fn(|| running.take()).collect();
    assert_eq!(taken.len(), 2);
    assert_eq!(running.counts(ListenerIndex(0)), (1, 0));
}

#[test]
fn one_capture_at_a_time_and_the_next_when_it_has_ended() {
    let captures = captures();
    let mut tap = captures.tap(WorkerIndex(0));
    let running = captures.begin(Filter::all()).unwrap();
    assert!(captures.begin(Filter::all()).is_none());
    // The capture ends between a message's coming and going: its copies stay with it.
    tap.received(&flow(0, CLIENT), REQUEST, false);
    running.end();
    tap.sent(&flow(1, SERVER), b"edited");
    tap.received(&flow(0, CLIENT), REQUEST, false);
    tap.sent(&flow(1, SERVER), b"edited");
    assert!(!tap.is_on());
    assert_eq!(core::iter::from_fn(|| running.take()).count(), 2);
    drop(running);
    let next = captures.begin(Filter::all()).unwrap();
    assert!(tap.is_on());
    assert!(next.take().is_none());
}

#[test]
fn without_a_free_slot_copies_are_lost_and_counted() {
    let captures = captures();
    let mut tap = captures.tap(WorkerIndex(0));
    let running = captures.begin(Filter::all()).unwrap();
    for _ in 0..CAPTURE_SLOTS {
        tap.received(&flow(1, CLIENT), REQUEST, false);
        tap.dropped(DropReason::NoServer);
    }
    tap.received(&flow(1, CLIENT), REQUEST, false);
    tap.sent(&flow(0, CLIENT), ANSWER);
    let full = CAPTURE_SLOTS as u64;
    assert_eq!(running.counts(ListenerIndex(1)), (full, 1));
    running.release(running.take().unwrap());
    // Room for the one, not for the other.
    tap.received(&flow(1, CLIENT), REQUEST, false);
    tap.sent(&flow(0, CLIENT), ANSWER);
    assert_eq!(running.counts(ListenerIndex(1)), (full + 1, 1));
    assert_eq!(running.counts(ListenerIndex(0)), (0, 1));
}

/// A block: its type and its body.
type Block<'a> = (u32, &'a [u8]);

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

fn blocks(mut file: &[u8]) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    while !file.is_empty() {
        let len = word(&file[4..]) as usize;
        assert_eq!(len % 4, 0);
        assert_eq!(word(&file[len - 4..]) as usize, len, "length at the end");
        found.push((word(file), &file[8..len - 4]));
        file = &file[len..];
    }
    found
}

/// Options by code.
fn options(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    loop {
        let code = u16::from_le_bytes([bytes[0], bytes[1]]);
        let len = usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
        if code == 0 {
            assert_eq!(bytes, [0; 4], "nothing behind the end of options");
            return found;
        }
        found.push((code, &bytes[4..4 + len]));
        bytes = &bytes[4 + len.next_multiple_of(4)..];
    }
}

fn slot(tap: &mut Tap, running: &Running, payload: &[u8]) -> Box<Slot> {
    tap.received(&flow(1, CLIENT), payload, true);
    tap.dropped(DropReason::NotSip);
    running.take().unwrap()
}

#[test]
fn a_file_is_section_interfaces_packets_and_statistics() {
    let captures = captures();
    let mut tap = captures.tap(WorkerIndex(2));
    let running = captures.begin(Filter::all()).unwrap();
    let mut file = Vec::new();
    pcapng::header(&mut file, captures.interfaces());
    let nanos = 0x0123_4567_89ab_cdef;
    for payload in [&b"hello"[..], &[b'x'; CAPTURE_SLOT_LEN + 1]] {
        let slot = slot(&mut tap, &running, payload);
        pcapng::packet(&mut file, &slot, nanos);
        running.release(slot);
    }
    pcapng::statistics(&mut file, 1, 2, [(0, 0), (2, 1 << 40)].into_iter());

    let blocks = blocks(&file);
    let types: Vec<u32> = blocks.iter().map(|block| block.0).collect();
    assert_eq!(types, [0x0a0d_0d0a, 1, 1, 6, 6, 5, 5]);

    let section = blocks[0].1;
    assert_eq!(word(section), 0x1a2b_3c4d);
    assert_eq!(
        section[4..16],
        [1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]
    );
    let interface = blocks[2].1;
    assert_eq!(word(interface), 101, "LINKTYPE_RAW");
    let told = options(&interface[8..]);
    assert_eq!(told[0], (2, &b"farm"[..]));
    assert_eq!(told[1], (3, &b"198.18.0.1:5060"[..]));
    assert_eq!(told[2], (9, &[9][..]));

    let packet = blocks[3].1;
    assert_eq!(word(packet), 1, "interface");
    assert_eq!(
        (word(&packet[4..]), word(&packet[8..])),
        (0x0123_4567, 0x89ab_cdef)
    );
    assert_eq!((word(&packet[12..]), word(&packet[16..])), (33, 33));
    assert_eq!(packet[20], 0x45);
    assert_eq!(packet[48..53], *b"hello");
    let told = options(&packet[20 + 36..]);
    assert_eq!(told[0], (2, &[1, 0, 0, 0][..]), "inbound");
    assert_eq!(told[1], (5, &[1, 0, 0, 0, 0, 0, 0, 0][..]));
    let comment = "dropped: not_sip, worker 2, handed over to it by another worker";
    assert_eq!(told[2], (1, comment.as_bytes()));
    let long = blocks[4].1;
    let kept = u32::try_from(CAPTURE_SLOT_LEN).unwrap() + 28;
    assert_eq!((word(&long[12..]), word(&long[16..])), (kept, kept + 1));

    let statistics = blocks[6].1;
    assert_eq!(word(statistics), 1);
    let told = options(&statistics[12..]);
    assert_eq!(told[2].0, 4);
    assert_eq!(told[2].1, ((1u64 << 40) + 2).to_le_bytes());
    assert_eq!(told[3], (5, &(1u64 << 40).to_le_bytes()[..]));
}

#[test]
fn a_tally_counts_however_the_file_is_cut() {
    let captures = captures();
    let mut tap = captures.tap(WorkerIndex(0));
    let running = captures.begin(Filter::all()).unwrap();
    let mut file = Vec::new();
    pcapng::header(&mut file, captures.interfaces());
    for len in [0, 1, 507, 2000] {
        let slot = slot(&mut tap, &running, &vec![b'x'; len]);
        pcapng::packet(&mut file, &slot, 0);
    }
    let packets_end = file.len();
    pcapng::statistics(&mut file, 1, 2, [(4, 7), (0, 1 << 40)].into_iter());
    for size in [1, 2, 7, 64, 1000, file.len()] {
        let mut tally = Tally::default();
        for piece in file[..packets_end].chunks(size) {
            tally.feed(piece);
        }
        assert_eq!((tally.packets, tally.lost, tally.ended), (4, 0, false));
        for piece in file[packets_end..].chunks(size) {
            tally.feed(piece);
        }
        let lost = (1 << 40) + 7;
        assert_eq!((tally.packets, tally.lost, tally.ended), (4, lost, true));
    }
    // Bytes that are no file end nowhere and break nothing.
    let mut tally = Tally::default();
    tally.feed(&[0; 4096]);
    tally.feed(&[0xff; 4096]);
    assert!(!tally.ended);
}
