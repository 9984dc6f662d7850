//! The transparency test itself: it must fail for every edit that is not permitted.

use crate::exchange::*;
use crate::fixture::*;
use crate::transparency::{self, Facts};

fn facts() -> Facts {
    Facts {
        source: CLIENT.parse().unwrap(),
        own: vec![
            "198.18.0.1:5060".parse().unwrap(),
            "198.18.0.1:5070".parse().unwrap(),
        ],
        names: vec!["sip.lab.example".to_owned()],
        record_routes: 1,
        max_breadth: 60,
    }
}

fn check(received: &[u8], sent: &[u8]) -> Result<(), String> {
    transparency::request(received, sent, &facts())
}

/// A request with something of everything that may be edited.
fn received() -> Vec<u8> {
    sip("INVITE sip:bob@198.18.1.11:5060 SIP/2.0
        v : SIP / 2.0 / UDP client.example:5060 ;branch=z9hG4bK1;rport, SIP/2.0/TCP p.example;branch=z9hG4bK0
        Max-Forwards:  10
        Route: <sip:sip.lab.example;lr> , <sip:198.18.1.11;lr>;x=\"a,b\"
        X-Folded: a
        | b
        Record-Route: <sip:p.example;lr>
        From: <sip:a@b>;tag=a
        To: <sip:c@d>
        Call-ID: oracle
        CSeq: 1 INVITE
        WWW-Authenticate: a
        WWW-Authenticate: b
        Content-Length: 4

        body")
        .strip_suffix(b"\r\n")
        .unwrap()
        .to_vec()
}

fn both() -> (Vec<u8>, Vec<u8>) {
    let received = received();
    let sent = Lab::new(ONE_ARMED).send(&received, CLIENT).sent().bytes;
    (received, sent)
}

#[test]
fn what_a_proxy_does_is_permitted() {
    let (received, sent) = both();
    assert_eq!(check(&received, &sent), Ok(()));
    assert!(text(&sent).contains("\r\nRoute: <sip:198.18.1.11;lr>;x=\"a,b\"\r\n"));
    assert!(text(&sent).contains("\r\nMax-Forwards:  9\r\n"));
}

/// Every byte of what was sent counts, but those of our branch and our token.
#[test]
fn no_byte_may_change_be_lost_or_be_added() {
    let (received, sent) = both();
    let all = text(&sent);
    let range = |from: &str, to: &str| {
        let start = all.find(from).unwrap() + from.len();
        start..start + all[start..].find(to).unwrap()
    };
    let branch = range(";branch=z9hG4bK", "\r\n");
    let token = range("Record-Route: <sip:v0", "@");
    let mut held = 0;
    for at in 0..sent.len() {
        // Behind their last byte, too, they may grow.
        let hole = |range: &std::ops::Range<usize>| (range.start..=range.end).contains(&at);
        if hole(&branch) || hole(&token) {
            continue;
        }
        let mut changed = sent.clone();
        changed[at] = if changed[at] == b'!' { b'?' } else { b'!' };
        let mut lost = sent.clone();
        lost.remove(at);
        let mut added = sent.clone();
        added.insert(at, b'!');
        for (what, mutant) in [("changed", changed), ("lost", lost), ("added", added)] {
            assert!(
                check(&received, &mutant).is_err(),
                "byte {at} {what}: {}",
                mutant.escape_ascii()
            );
            held += 1;
        }
    }
    assert!(held > 1_000, "{held}");
}

/// No two rows may change places, no row may go, come twice or be joined with the next.
#[test]
fn no_row_may_move_go_or_come() {
    let (received, sent) = both();
    let parts = transparency::Parts::of(&sent);
    for at in 0..parts.rows.len() {
        let mut without = parts.clone();
        without.rows.remove(at);
        let mut twice = parts.clone();
        twice.rows.insert(at, parts.rows[at].clone());
        for mutant in [&without, &twice] {
            assert!(check(&received, &mutant.bytes()).is_err(), "row {at}");
        }
        if at + 1 < parts.rows.len() {
            // Our own rows may stand anywhere above the others of their name.
            let own = |row: &transparency::Row| {
                let bytes = text(&row.bytes);
                bytes.starts_with("Via: SIP/2.0/UDP 198.18.0.1")
                    || bytes.starts_with("Record-Route: <sip:v0")
                    || bytes.starts_with("Max-Breadth")
            };
            if own(&parts.rows[at]) || own(&parts.rows[at + 1]) {
                continue;
            }
            let mut swapped = parts.clone();
            swapped.rows.swap(at, at + 1);
            assert!(check(&received, &swapped.bytes()).is_err(), "row {at}");
        }
    }
    let joined = replaced(&sent, "\r\nWWW-Authenticate: b", ", b");
    assert!(check(&received, &joined).is_err());
    let unfolded = replaced(&sent, "a\r\n b", "a b");
    assert!(check(&received, &unfolded).is_err());
}

/// Each permitted edit, left out or done wrong.
#[test]
fn each_edit_is_held_to_its_rule() {
    let (received, sent) = both();
    let mut count = 0;
    for (from, to) in [
        (";rport=5060;received=198.18.200.7", ";rport"),
        (";rport=5060", ";rport=5061"),
        (";received=198.18.200.7", ";received=198.18.200.8"),
        (";received=198.18.200.7", ""),
        (
            ";received=198.18.200.7",
            ";received=198.18.200.7;received=198.18.200.7",
        ),
        ("Max-Forwards:  9", "Max-Forwards:  10"),
        ("Max-Forwards:  9", "Max-Forwards:  8"),
        ("Max-Forwards:  9", "Max-Forwards: 9"),
        ("Max-Breadth: 60", "Max-Breadth: 61"),
        ("Max-Breadth: 60\r\n", ""),
        (
            "Route: <sip:198.18.1.11",
            "Route: <sip:sip.lab.example;lr> , <sip:198.18.1.11",
        ),
        ("Route: <sip:198.18.1.11;lr>;x=\"a,b\"\r\n", ""),
        (
            "INVITE sip:bob@198.18.1.11:5060",
            "INVITE sip:bob@198.18.1.12:5060",
        ),
        (
            "Via: SIP/2.0/UDP 198.18.0.1:5060",
            "Via: SIP/2.0/UDP 198.18.0.9:5060",
        ),
        (
            "Via: SIP/2.0/UDP 198.18.0.1:5060;branch=z9hG4bK",
            "Via: SIP/2.0/UDP 198.18.0.1:5060;branch=b",
        ),
        ("@198.18.0.1:5060;lr>", "@198.18.0.1:5060>"),
        ("@198.18.0.1:5060;lr>", "@198.18.0.9:5060;lr>"),
    ] {
        assert!(
            check(&received, &replaced(&sent, from, to)).is_err(),
            "{from}"
        );
        count += 1;
    }
    assert_eq!(count, 17);
    // Record-Route at the end instead of on top, and one too many.
    let own = text(&sent)
        .split("Record-Route: <sip:v0")
        .nth(1)
        .unwrap()
        .to_owned();
    let own = format!(
        "Record-Route: <sip:v0{}\r\n",
        own.split("\r\n").next().unwrap()
    );
    let below = replaced(&sent, &own, "");
    let below = with_row(&below, "From", own.trim_end());
    assert!(check(&received, &below).is_err());
    let more = with_row(&sent, "Max-Forwards", own.trim_end());
    assert!(check(&received, &more).is_err());
}

#[test]
fn a_response_loses_our_via_and_nothing_else() {
    let (_, sent) = both();
    let received = Answer::new("180 Ringing", &["X-A: 1", "x-b: 2"], b"\x00\xff")
        .bytes(&sent, "198.18.1.11:5060".parse().unwrap());
    let own = format!("Via: {}\r\n", rows(&sent, "Via")[0]);
    let forwarded = String::from_utf8_lossy(&received).into_owned();
    let at = forwarded.find(&own).unwrap();
    let forwarded = [&received[..at], &received[at + own.len()..]].concat();
    let check = |sent: &[u8]| transparency::response(&received, sent, &facts());
    assert_eq!(check(&forwarded), Ok(()));
    assert!(check(&received).is_err());
    for at in 0..forwarded.len() {
        let mut changed = forwarded.clone();
        changed[at] ^= 1;
        let mut lost = forwarded.clone();
        lost.remove(at);
        for mutant in [changed, lost] {
            assert!(check(&mutant).is_err(), "byte {at}");
        }
    }
    let foreign =
        Answer::new("180 Ringing", &[], b"").bytes(&sent, "198.18.1.11:5060".parse().unwrap());
    let foreign = replaced(&foreign, "198.18.0.1:5060;branch", "198.18.0.9:5060;branch");
    assert!(transparency::response(&foreign, &forwarded, &facts()).is_err());
}

/// What it says names the place.
#[test]
fn a_failure_shows_the_first_difference() {
    let (received, sent) = both();
    let changed = replaced(&sent, "Call-ID: oracle", "Call-ID: Oracle");
    let told = check(&received, &changed).unwrap_err();
    assert!(told.starts_with("header row 8 differs at byte 9"), "{told}");
    assert!(told.contains("expected Call-ID: oracle"), "{told}");
    assert!(told.contains("sent     Call-ID: Oracle"), "{told}");
    let body = [&sent[..sent.len() - 1], b"Y"].concat();
    let told = check(&received, &body).unwrap_err();
    assert!(told.starts_with("the body differs at byte 3"), "{told}");
}

/// RFC 3261 §16.4 and §16.6 step 6: both fix-ups for strict routers, by an example each.
#[test]
fn strict_routes_are_fixed_up_and_only_so() {
    let mut lab = Lab::new(ONE_ARMED);
    let dialog = Dialog::set_up(&mut lab, "strict");
    let bye = dialog.by_client("BYE", 2, "z9hG4bKs");
    let own = dialog.record_route[0].trim_matches(['<', '>']).to_owned();
    let facts = Facts {
        record_routes: 0,
        ..facts()
    };

    // A strict router in front of us moved our value into the Request-URI.
    let uri = format!("sip:bob@{}", dialog.server);
    let upstream = replaced(&bye, &format!("BYE {uri} "), &format!("BYE {own} "));
    let upstream = replaced(
        &upstream,
        &format!("Route: <{own}>"),
        &format!("Route: <{uri}>"),
    );
    let sent = lab.send(&upstream, CLIENT).sent();
    assert_eq!(
        transparency::request(&upstream, &sent.bytes, &facts),
        Ok(())
    );
    assert!(start_line(&sent.bytes).starts_with(&format!("BYE {uri} ")));
    let kept = replaced(&sent.bytes, &format!("BYE {uri} "), &format!("BYE {own} "));
    assert!(transparency::request(&upstream, &kept, &facts).is_err());

    // A strict router behind us.
    let next = format!("sip:{}", dialog.server);
    let downstream = with_row(&bye, "Max-Forwards", &format!("Route: <{next}>"));
    let sent = lab.send(&downstream, CLIENT).sent();
    assert_eq!(
        transparency::request(&downstream, &sent.bytes, &facts),
        Ok(())
    );
    assert!(start_line(&sent.bytes).starts_with(&format!("BYE {next} ")));
    assert_eq!(rows(&sent.bytes, "Route"), [format!("<{uri}>")]);
    let kept = replaced(&sent.bytes, &format!("Route: <{uri}>\r\n"), "");
    assert!(transparency::request(&downstream, &kept, &facts).is_err());
}
