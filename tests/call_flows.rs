//! The messages of the call flows of RFC 3665, each on its own way through the forwarder: what a
//! proxy may not change comes out as it went in.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "rfc3261_16/fixture.rs"]
mod fixture;

use std::path::Path;

use fixture::*;

/// We are every proxy of the flows.
fn config() -> String {
    let proxies = [
        "ss1.atlanta.example.com",
        "ss2.biloxi.example.com",
        "ss1.example.com",
        "ss2.example.com",
        "ss3.chicago.example.com",
        "alg1.atlanta.example.com",
    ];
    ONE_ARMED.replace(
        "\"sip.lab.example\"",
        &format!("\"{}\"", proxies.join("\", \"")),
    )
}

fn messages() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rfc3665");
    let mut found: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    found.sort();
    assert_eq!(found.len(), 181);
    found
}

/// RFC 3261 §16.6 step 1, undone by somebody who knows only what a proxy may do.
#[test]
fn a02_every_request_of_rfc_3665_can_be_undone() {
    let mut forwarded = 0;
    for (name, bytes) in messages() {
        let mut lab = Lab::new(&config());
        if start_line(&bytes).starts_with("SIP/2.0 ") {
            continue;
        }
        let sent = lab.send(&bytes, CLIENT).sent();
        if start_line(&bytes).contains(" sips:") {
            assert!(
                start_line(&sent.bytes).starts_with("SIP/2.0 416 "),
                "{name}"
            );
            continue;
        }
        forwarded += 1;
        // Our own Routes are the only ones in the flows.
        let received: String = text(&bytes)
            .replace("\r\n ", "\0")
            .split_inclusive("\r\n")
            .filter(|line| !line.starts_with("Route: "))
            .collect();
        // What the message says of its source is not believed.
        let top = received.find("\r\nVia:").unwrap() + 2;
        let top_end = top + received[top..].find("\r\n").unwrap();
        let received = match received[top..top_end].find(";received=") {
            Some(mark) => {
                let at = top + mark + ";received=".len();
                let (before, after) = received.split_at(at);
                let rest = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
                format!("{before}{}{rest}", CLIENT.split_once(':').unwrap().0)
            }
            None => received,
        };
        let received = received.replace('\0', "\r\n ");
        assert_eq!(
            text(&undone(&sent.bytes, received.as_bytes())),
            received,
            "{name}"
        );
        assert_eq!(lab.send(&bytes, CLIENT).sent(), sent, "{name}");
    }
    assert!(forwarded > 60, "{forwarded}");
}

/// RFC 3261 §16.11: a response loses our Via and nothing else.
#[test]
fn a02_every_response_of_rfc_3665_loses_our_via_alone() {
    let mut returned = 0;
    for (name, bytes) in messages() {
        let mut lab = Lab::new(&config());
        if !start_line(&bytes).starts_with("SIP/2.0 ") {
            continue;
        }
        let (sent, ours) = with_own_via(&mut lab, &bytes);
        let back = lab.reply(&ours, &sent).sent();
        let own = format!("Via: {}\r\n", rows(&sent.bytes, "Via")[0]);
        assert_eq!(
            text(&back.bytes),
            text(&ours).replacen(&own, "", 1),
            "{name}"
        );
        assert_eq!(
            back.to.ip(),
            CLIENT.parse::<std::net::SocketAddr>().unwrap().ip(),
            "{name}"
        );
        returned += 1;
    }
    assert!(returned > 60, "{returned}");
}
