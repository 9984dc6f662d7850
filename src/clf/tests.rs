//! Lines as RFC 6873 prints them, and records from message to file.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::journal::is_sampled;
use crate::limits::{CLF_FIELD_LEN_MAX, CLF_QUEUE_LEN};
use crate::net::{Flow, ListenerIndex, SocketAddr};

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn text(record: &Record) -> String {
    let mut out = b"before".to_vec();
    line(record, &mut out);
    String::from_utf8(out.split_off(6)).unwrap()
}

/// RFC 6873 §5, the record without optional fields; the flag "original" is "stateless" with us.
#[test]
fn r6872_the_record_of_the_rfc() {
    let mut record = Record::new();
    record.nanos = 1_328_821_153_010_000_000;
    record.src = address("192.0.2.200:56485");
    record.dst = address("192.0.2.10:5060");
    record.set_fields([
        b"1 INVITE",
        b"sip:192.0.2.10",
        b"sip:192.0.2.10",
        b"",
        b"sip:1001@example.com:5060",
        b"DL88360fa5fc",
        b"DL70dff590c1-1079051554@example.com",
        b"S1781761-88",
        b"C67651-11",
    ]);
    let expected = "A000100,0053005C005E006D007D008F009E00A000BA00C700EB00F70100\n\
        1328821153.010\tRSRUU\t1 INVITE\t-\tsip:192.0.2.10\t192.0.2.10:5060\t192.0.2.200:56485\t\
        sip:192.0.2.10\t-\tsip:1001@example.com:5060\tDL88360fa5fc\t\
        DL70dff590c1-1079051554@example.com\tS1781761-88\tC67651-11\n";
    assert_eq!(expected.len(), 0x100);
    assert_eq!(text(&record), expected);
}

#[test]
fn r6872_nothing_in_a_field_ends_it() {
    let mut record = Record::new();
    record.is_response = true;
    record.is_sent = true;
    record.status = 99;
    record.dst = address("[2001:db8::1]:5060");
    let long = [b'\0'; 2 * CLF_FIELD_LEN_MAX];
    record.set_fields([
        b"a\tb",
        b"c\r\n d",
        b"e\x7f\xc3\xa9%41",
        b"",
        &long,
        &long,
        &long,
        &long,
        &long,
    ]);
    assert_eq!(
        record.field(Field::ClientTransaction).len(),
        CLF_FIELD_LEN_MAX
    );
    let text = text(&record);
    assert_eq!(text.matches('\n').count(), 2);
    let (index, fields) = text.split_once('\n').unwrap();
    assert_eq!(index.len(), 60);
    let fields: Vec<&str> = fields.trim_end().split('\t').collect();
    assert_eq!(fields.len(), 14);
    assert_eq!(fields[1..4], ["rSSUU", "a b", "099"]);
    assert_eq!(fields[4], "c%0D%0A d");
    assert_eq!(fields[5], "[2001:db8::1]:5060");
    assert_eq!(fields[7], "e%7F%C3%A9%41");
    // Every pointer leads to the field it is for, and the last to the end.
    let pointer = |n: usize| usize::from_str_radix(&index[8 + 4 * n..12 + 4 * n], 16).unwrap();
    for n in 0..12 {
        let field = &text[pointer(n) - 1..];
        assert_eq!(field.split(['\t', '\n']).next(), Some(fields[n + 2]), "{n}");
        assert_eq!(text.as_bytes()[pointer(n) - 2], b'\t');
    }
    assert_eq!(pointer(12), text.len());
    assert_eq!(usize::from_str_radix(&index[1..7], 16), Ok(text.len()));
}

const CLIENT: &str = "198.18.0.100:5070";
const SERVER: &str = "198.18.1.11:5060";

fn flow(peer: &str) -> Flow {
    Flow {
        listener: ListenerIndex(0),
        local: address("198.18.0.1:5060"),
        peer: address(peer),
    }
}

fn request(call_id: &str, via: &str) -> Vec<u8> {
    format!(
        "INVITE sip:b@x;transport=udp SIP/2.0\r\n{via}Via: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
         From: \"A\" <sip:a@x:5070;user=phone?h=1>;tag=1\r\nt: tel:+4930;tag=2\r\n\
         Call-ID: {call_id}\r\nCSeq: 1 INVITE\r\n\r\n"
    )
    .into_bytes()
}

fn response(via: &str) -> Vec<u8> {
    format!(
        "SIP/2.0 404 Not Found\r\n{via}Via: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
         From: <sip:a@x>;tag=1\r\nTo: <sip:b@x>;tag=2\r\nCall-ID: 7@h\r\nCSeq: 1 INVITE\r\n\r\n"
    )
    .into_bytes()
}

const OURS: &str = "Via: SIP/2.0/UDP 198.18.0.1;branch=z9hG4bKours\r\n";

/// A service that logs into `path`.
fn logging(path: &Path, sample: u32) -> Service {
    let service = Service::default();
    let prepared = service.prepare(Some((path, sample))).unwrap();
    service.commit(prepared).unwrap();
    service
}

/// The fields of the second lines.
fn fields(path: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().skip(1).step_by(2);
    lines
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect()
}

fn wait_for(mut done: impl FnMut() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "a test waits for a thread")]
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        #[expect(clippy::disallowed_methods, reason = "a test waits for a thread")]
        let now = Instant::now();
        assert!(now < end);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn r6872_both_sides_of_a_transaction_are_named_by_their_branches() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sip.clf");
    let service = logging(&path, 1);
    let mut tap = service.tap();
    assert!(tap.is_on());
    tap.received(&flow(CLIENT), &request("7@h", ""));
    tap.sent(&flow(SERVER), &request("7@h", OURS));
    tap.received(&flow(SERVER), &response(OURS));
    tap.sent(&flow(CLIENT), &response(""));
    // Answered by us; dropped; handed over; no SIP.
    tap.received(&flow(CLIENT), &request("8@h", ""));
    tap.sent(&flow(CLIENT), &response(""));
    tap.received(&flow(CLIENT), &request("9@h", ""));
    tap.dropped();
    tap.received(&flow(CLIENT), &request("9@h", ""));
    tap.handed_over();
    tap.received(&flow(CLIENT), b"hello");
    tap.dropped();
    tap.dropped();
    service.stop();
    assert_eq!(service.counts(), (7, 0));

    let lines = fields(&path);
    let told: Vec<_> = lines
        .iter()
        .map(|fields| [1, 2, 3, 4, 12, 13].map(|n| fields.get(n).map_or("", String::as_str)))
        .collect();
    let (invite, uri) = ("1 INVITE", "sip:b@x;transport=udp");
    let (server, client) = ("z9hG4bK1", "z9hG4bKours");
    assert_eq!(
        told,
        [
            ["RSRUU", invite, "-", uri, server, "-"],
            ["RSSUU", invite, "-", uri, server, client],
            ["rSRUU", invite, "404", "-", server, client],
            ["rSSUU", invite, "404", "-", server, client],
            ["RSRUU", invite, "-", uri, server, "-"],
            ["rSSUU", invite, "404", "-", server, "-"],
            ["RSRUU", invite, "-", uri, server, "-"],
        ]
    );
    let first = &lines[0];
    assert_eq!(first[5..7], ["198.18.0.1:5060", CLIENT]);
    assert_eq!(lines[1][5..7], [SERVER, "198.18.0.1:5060"]);
    // URIs without parameters and headers.
    assert_eq!(first[7..12], ["tel:+4930", "2", "sip:a@x:5070", "1", "7@h"]);
}

#[test]
fn r6872_what_cannot_be_read_is_said_so_and_the_rest_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sip.clf");
    let service = logging(&path, 1);
    let mut tap = service.tap();
    let broken = b"INVITE bad^uri SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nCall-ID:\r\n 7@h\r\n\
        From: \"A <sip:a@x>\r\nCSeq: many INVITE\r\n\r\n";
    tap.received(&flow(CLIENT), broken);
    tap.dropped();
    service.stop();
    let lines = fields(&path);
    assert_eq!(lines[0][2..5], ["?", "-", "?"]);
    assert_eq!(lines[0][7..14], ["-", "-", "?", "-", "7@h", "-", "-"]);
}

#[test]
fn a_sample_has_whole_calls() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sip.clf");
    let service = logging(&path, 10);
    let mut tap = service.tap();
    for n in 0..500 {
        let call_id = format!("{n}@h");
        tap.received(&flow(CLIENT), &request(&call_id, ""));
        tap.sent(&flow(SERVER), &request(&call_id, OURS));
    }
    tap.received(
        &flow(CLIENT),
        b"OPTIONS sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n\r\n",
    );
    tap.dropped();
    service.stop();
    let lines = fields(&path);
    let mut expected = Vec::new();
    for n in 0..500 {
        let call_id = format!("{n}@h");
        if is_sampled(call_id.as_bytes(), 10) {
            expected.extend([call_id.clone(), call_id]);
        }
    }
    let logged: Vec<_> = lines.iter().map(|fields| fields[11].clone()).collect();
    assert!((20..180).contains(&expected.len()));
    assert_eq!(logged, expected);
}

#[test]
fn a_commit_leaves_the_file_that_was_moved_away() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (
        folder.path().join("sip.clf"),
        folder.path().join("sip.clf.1"),
    );
    let service = logging(&path, 1);
    let mut tap = service.tap();
    let mut log = |n: u64| {
        tap.received(&flow(CLIENT), &request("7@h", ""));
        tap.dropped();
        wait_for(|| service.counts().0 == n);
    };
    log(1);
    fs::rename(&path, &old).unwrap();
    log(2);
    let prepared = service.prepare(Some((&path, 1))).unwrap();
    service.commit(prepared).unwrap();
    log(3);
    assert_eq!((fields(&old).len(), fields(&path).len()), (2, 1));

    let refused = service.prepare(Some((folder.path(), 1))).unwrap_err();
    assert!(refused.to_string().starts_with("log.common: "), "{refused}");
    log(4);
    service.commit(service.prepare(None).unwrap()).unwrap();
    assert!(!tap.is_on());
    assert_eq!(fields(&path).len(), 2);
}

#[test]
fn a_full_queue_or_disk_loses_records_and_counts_them() {
    let service = logging(Path::new("/dev/full"), 1);
    let mut tap = service.tap();
    let request = request("7@h", "");
    let total = 3 * CLF_QUEUE_LEN as u64;
    for _ in 0..total {
        tap.received(&flow(CLIENT), &request);
        tap.dropped();
    }
    service.stop();
    assert_eq!(service.counts(), (0, total));
}
