//! A call as a line of JSON.

use std::io::Write as _;

use super::call::CallRecord;
use crate::time::{Duration, Instant};

/// What numbers are called in the log.
pub trait CallNames {
    /// A listener.
    fn listener(&self, index: crate::net::ListenerIndex) -> Option<&str>;
    /// A pool.
    fn pool(&self, index: crate::net::PoolIndex) -> Option<&str>;
    /// A server.
    fn server(&self, index: crate::net::ServerIndex) -> Option<&str>;
}

/// Appends a record as one line of JSON. `real_now` is `now` in nanoseconds since the epoch.
pub fn call_line(
    record: &CallRecord,
    names: &impl CallNames,
    (real_now, now): (u64, Instant),
    out: &mut Vec<u8>,
) {
    let age = u64::try_from(now.since(record.started).as_nanos()).unwrap_or(u64::MAX);
    // Writing into a Vec cannot fail, here and below.
    out.extend_from_slice(b"{\"time\":\"");
    time(real_now.saturating_sub(age), out);
    out.extend_from_slice(b"\",\"call_id\":");
    string(record.call_id.bytes(), out);
    out.extend_from_slice(b",\"from\":");
    string(record.from_user.bytes(), out);
    out.extend_from_slice(b",\"to\":");
    string(record.to_user.bytes(), out);
    let _infallible = write!(out, ",\"source\":\"{}\",\"listener\":", record.source);
    name(names.listener(record.listener), out);
    out.extend_from_slice(b",\"pool\":");
    name(record.pool.and_then(|pool| names.pool(pool)), out);
    let last = record.attempts().last();
    out.extend_from_slice(b",\"server\":");
    name(last.and_then(|last| names.server(last.server)), out);
    let _infallible = write!(out, ",\"attempts\":{},\"tried\":[", record.attempt_count());
    for (index, attempt) in record.attempts().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"server\":");
        name(names.server(attempt.server), out);
        out.extend_from_slice(b",\"status\":");
        status(attempt.status, out);
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"status\":");
    status(record.status, out);
    for (label, at) in [
        ("ringing_ms", record.rang),
        ("final_ms", record.finished),
        ("end_ms", Some(record.ended)),
    ] {
        let _infallible = write!(out, ",\"{label}\":");
        match at {
            Some(at) => milliseconds(at.since(record.started), out),
            None => out.extend_from_slice(b"null"),
        }
    }
    let _infallible = writeln!(out, ",\"end\":\"{}\"}}", record.end.as_str());
}

fn status(status: u16, out: &mut Vec<u8>) {
    let _infallible = match status {
        0 => out.write_all(b"null"),
        status => write!(out, "{status}"),
    };
}

fn name(name: Option<&str>, out: &mut Vec<u8>) {
    match name {
        Some(name) => string(name.as_bytes(), out),
        None => out.extend_from_slice(b"null"),
    }
}

/// With three decimals: a server on the same switch answers within one.
fn milliseconds(duration: Duration, out: &mut Vec<u8>) {
    let micros = duration.as_micros();
    let _infallible = write!(out, "{}.{:03}", micros / 1000, micros % 1000);
}

/// RFC 8259 §7: quotation mark, reverse solidus and control characters are escaped. §8.1: JSON is
/// UTF-8, so what is none becomes U+FFFD. DEL and what a terminal obeys are escaped too: people read
/// this with `tail`.
fn string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
                // All of them are in the basic plane.
                _ if character.is_control() => {
                    let _infallible = write!(out, "\\u{:04x}", u32::from(character));
                }
                _ => {
                    let mut room = [0; 4];
                    out.extend_from_slice(character.encode_utf8(&mut room).as_bytes());
                }
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
}

/// Nanoseconds since the epoch as RFC 3339 writes them, UTC, with milliseconds.
pub fn rfc3339(nanos: u64) -> String {
    let mut text = Vec::with_capacity(24);
    time(nanos, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

fn time(nanos: u64, out: &mut Vec<u8>) {
    let (seconds, millis) = (nanos / 1_000_000_000, nanos / 1_000_000 % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let _infallible = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{millis:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
}

/// Year, month and day of a day since 1970-01-01. Years are counted from 1 March, so that the day
/// that comes and goes is the last one (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    // 0000-03-01 is 719,468 days before 1970-01-01; an era is 400 years.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::{Attempt, CallEnd};
    use super::*;
    use crate::net::{ListenerIndex, PoolIndex, ServerIndex};

    struct Names;

    impl CallNames for Names {
        fn listener(&self, index: ListenerIndex) -> Option<&str> {
            (index.0 == 0).then_some("clients")
        }
        fn pool(&self, index: PoolIndex) -> Option<&str> {
            (index.0 == 0).then_some("farm")
        }
        fn server(&self, index: ServerIndex) -> Option<&str> {
            ["s1", "s2"].get(usize::from(index.0)).copied()
        }
    }

    const NOW: Instant = Instant::from_nanos(90_000_000_000);
    /// 2026-11-22T21:10:33.123Z.
    const REAL_NOW: u64 = 1_795_381_833_123_000_000;

    fn record() -> CallRecord {
        let started = NOW - Duration::from_secs(2);
        let source = "[2001:db8::7]:5060".parse().unwrap();
        let mut record = CallRecord::new(started, source, ListenerIndex(0));
        record.pool = Some(PoolIndex(0));
        record.call_id.set(b"a84b4c76@pc33");
        record.from_user.set(b"alice");
        record.to_user.set(b"+4930123");
        record.attempt(Attempt {
            server: ServerIndex(1),
            status: 503,
        });
        record.attempt(Attempt {
            server: ServerIndex(0),
            status: 200,
        });
        record.rang = Some(started + Duration::from_micros(12_345));
        record.finished = Some(started + Duration::from_millis(1500));
        record.ended = NOW;
        record.status = 200;
        record.end = CallEnd::Answered;
        record
    }

    fn line(record: &CallRecord) -> String {
        let mut out = b"before".to_vec();
        call_line(record, &Names, (REAL_NOW, NOW), &mut out);
        String::from_utf8(out.split_off(6)).unwrap()
    }

    #[test]
    fn a_call_as_it_stands_in_the_file() {
        assert_eq!(
            line(&record()),
            "{\"time\":\"2026-11-22T21:10:31.123Z\",\"call_id\":\"a84b4c76@pc33\",\
             \"from\":\"alice\",\"to\":\"+4930123\",\"source\":\"[2001:db8::7]:5060\",\
             \"listener\":\"clients\",\"pool\":\"farm\",\"server\":\"s1\",\"attempts\":2,\
             \"tried\":[{\"server\":\"s2\",\"status\":503},{\"server\":\"s1\",\"status\":200}],\
             \"status\":200,\"ringing_ms\":12.345,\"final_ms\":1500.000,\"end_ms\":2000.000,\
             \"end\":\"answered\"}\n"
        );
    }

    #[test]
    fn what_is_not_known_is_null() {
        let source = "198.18.0.2:5060".parse().unwrap();
        let record = CallRecord::new(NOW, source, ListenerIndex(9));
        let value: Value = serde_json::from_str(&line(&record)).unwrap();
        for label in [
            "listener",
            "pool",
            "server",
            "status",
            "ringing_ms",
            "final_ms",
        ] {
            assert!(value[label].is_null(), "{label}");
        }
        assert_eq!(value["end"], "rejected");
        assert_eq!(value["attempts"], 0);
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_453, (2025, 12, 31)),
            (20_454, (2026, 1, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected);
        }
    }

    proptest! {
        /// Whatever a Call-ID holds, the line is one line of JSON, and says what it held if that
        /// was text.
        #[test]
        fn any_bytes_make_one_line_of_json(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b'\\'), Just(b'\n'), Just(0x7f), Just(0xc2), Just(0x85)], 0..200),
        ) {
            let mut record = record();
            record.call_id.set(&bytes);
            record.to_user.set(&bytes);
            let line = line(&record);
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
            let body = line.trim_end_matches('\n');
            prop_assert!(!body.chars().any(char::is_control));
            let value: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(value["call_id"].as_str().unwrap(), String::from_utf8_lossy(&bytes));
        }
    }
}
