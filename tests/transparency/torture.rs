//! The torture messages of RFC 4475 and RFC 5118 that a proxy forwards, held against the
//! transparency test: every odd spelling leaves as it came.

use std::path::Path;

use crate::exchange::*;
use crate::fixture::*;

/// Sends every message of a corpus; how many were forwarded.
#[track_caller]
fn forwarded(folder: &str, config: &str, client: &str) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|of| of == "dat"))
        .collect();
    files.sort();
    let mut count = 0;
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let mut stage = Stage::new(config, client);
        let (client, outside) = (stage.client, stage.outside);
        let Outcome::Sent(sent) = stage.lab.deliver(&bytes, client, outside) else {
            continue;
        };
        if !sent.bytes.starts_with(b"SIP/2.0 ") {
            println!("{}", file.display());
            stage.client_sends(&bytes);
            count += 1;
        }
    }
    count
}

#[test]
fn a02_torture_messages_leave_as_they_came() {
    // We are the proxy that the Routes of wsinv and mpart01 name.
    let config = ONE_ARMED
        .replace("sip.lab.example", "services.example.com")
        .replace("198.18.0.1:5070", "127.0.0.1:5080");
    assert_eq!(forwarded("rfc4475", &config, CLIENT), 23);
}

#[test]
fn a02_ipv6_torture_messages_leave_as_they_came() {
    let config = IPV6.replace("db8::10]", "db8::20]");
    assert_eq!(forwarded("rfc5118", &config, "[2001:db8::9:1]:5060"), 11);
}
