//! The call flows of RFC 3665, message by message through one balancer that plays an element of
//! the flow: a proxy of it, the application level gateway, or, where it has none, somebody between
//! its two ends.
//!
//! What is replaced in a message, and nothing else:
//!
//! 1. TCP and TLS are UDP, `sips` is `sip`, 5061 is 5060, and `transport=tcp` goes: there is UDP
//!    only.
//! 2. Host names of the table in RFC 3665 §1 are their addresses: nobody here asks a DNS. In the
//!    body they stay.
//! 3. A response carries our `Via` where it has the one of the element that we play, or on top if we
//!    stand between; and our `Record-Route` likewise: it is the request as we sent it that it
//!    answers. Where that element made the request itself, the `Via`s of the one that we forwarded
//!    follow.
//! 4. A request inside a dialog carries our `Record-Route` value as `Route` where it names the
//!    element that we play, or as its first one if in the flow it goes past that element.
//! 5. What [`ERRATA`] names.
//!
//! Every message to the element is sent, must be forwarded to the right party and is held against
//! the transparency test. Every message that the flow's element forwards is compared with what we
//! sent, header by header. The rest is listed with its reason; all are counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../rfc3261_16/fixture.rs"]
mod fixture;
mod runs;
#[path = "../common/transparency/mod.rs"]
mod transparency;

use std::collections::HashMap;
use std::net::SocketAddr;

use fixture::*;
use runs::{ERRATA, HOSTS, RUNS, Run};
use transparency::{Facts, Parts, Row};

/// A message of a flow as `flows.tsv` names it.
struct Printed {
    number: u8,
    from: String,
    to: String,
    /// The RFC says "same as" or nothing for retransmissions.
    bytes: Option<Vec<u8>>,
}

fn flow(section: &str) -> Vec<Printed> {
    let table = include_str!("flows.tsv");
    let rows = table.lines().skip(1).map(|line| line.split('\t').collect());
    let of_section = rows.filter(|row: &Vec<&str>| row[0] == section);
    let printed = of_section.map(|row| Printed {
        number: row[2].parse().unwrap(),
        from: row[3].to_owned(),
        to: row[4].to_owned(),
        bytes: (row[5] != "-").then(|| data(&format!("rfc3665/{}", row[5]))),
    });
    printed.collect()
}

/// Replacements 1, 2 and 5.
fn over_udp(section: &str, number: u8, bytes: &[u8]) -> Parts {
    let mut bytes = bytes.to_vec();
    for (of, message, from, to, _) in ERRATA {
        if *of == section && *message == number {
            bytes = replaced(&bytes, from, to);
        }
    }
    let mut parts = Parts::of(&bytes);
    let change = |bytes: &[u8]| {
        let mut text = text(bytes);
        for (from, to) in [
            ("SIP/2.0/TCP", "SIP/2.0/UDP"),
            ("SIP/2.0/TLS", "SIP/2.0/UDP"),
            ("sips:", "sip:"),
            (":5061", ":5060"),
            (";transport=tcp", ""),
        ]
        .iter()
        .chain(HOSTS)
        {
            text = text.replace(from, to);
        }
        text.into_bytes()
    };
    parts.start = change(&parts.start);
    for row in &mut parts.rows {
        row.bytes = change(&row.bytes);
    }
    parts
}

/// The flow in progress.
struct Play<'a> {
    run: &'a Run,
    lab: Lab,
    us: SocketAddr,
    /// Requests as we sent them, by receiver, Call-ID and CSeq.
    asked: HashMap<(SocketAddr, String, String), Sent>,
    /// Our Record-Route value, by Call-ID and tag of the side that answered.
    dialogs: HashMap<(String, String), String>,
    /// What we made of each message that we got.
    sent: HashMap<u8, Sent>,
}

impl<'a> Play<'a> {
    fn new(run: &'a Run) -> Self {
        let networks: Vec<String> = run.networks().map(|ip| format!("\"{ip}/32\"")).collect();
        let lab = Lab::new(&format!(
            r#"
            [[listeners]]
            name = "us"
            address = "{}:5060"
            [[pools]]
            name = "farm"
            networks = [{}]
            servers = [{{ name = "right", address = "{}:5060" }}]
            "#,
            run.address,
            networks.join(", "),
            run.right[0].2,
        ));
        Self {
            run,
            lab,
            us: format!("{}:5060", run.address).parse().unwrap(),
            asked: HashMap::new(),
            dialogs: HashMap::new(),
            sent: HashMap::new(),
        }
    }

    /// Whether a message comes to us, and whether in the flow it goes past the element we play.
    fn comes_to_us(&self, printed: &Printed) -> Option<bool> {
        let ends = |party: &str| self.run.address_of(party, printed.number).is_some();
        let sides_differ = self.run.is_left(&printed.from) != self.run.is_left(&printed.to);
        if !ends(&printed.from) {
            return None;
        }
        match self.run.us {
            Some(us) if printed.to == us => Some(false),
            _ if ends(&printed.to) && sides_differ => Some(true),
            _ => None,
        }
    }

    /// Sends one message and checks what becomes of it.
    #[track_caller]
    fn pass(&mut self, printed: &Printed, past: bool) {
        let place = format!("{} F{}", self.run.section, printed.number);
        let parts = over_udp(
            self.run.section,
            printed.number,
            printed.bytes.as_ref().unwrap(),
        );
        let from = self.run.address_of(&printed.from, printed.number).unwrap();
        let from: SocketAddr = format!("{from}:5060").parse().unwrap();
        let is_response = parts.start.starts_with(b"SIP/2.0 ");
        let parts = if is_response {
            self.as_an_answer(parts, from, &place)
        } else {
            self.inside_its_dialog(parts, past, &place)
        };
        let bytes = parts.bytes();
        let sent = match self.lab.deliver(&bytes, from, self.us) {
            Outcome::Sent(sent) => sent,
            Outcome::Dropped(reason) => panic!("{place}: {}\n{}", reason.as_str(), text(&bytes)),
        };
        for _ in 0..2 {
            assert_eq!(
                self.lab.deliver(&bytes, from, self.us).sent(),
                sent,
                "{place}"
            );
        }
        let method = start_line(&bytes).split(' ').next().unwrap().to_owned();
        let facts = Facts {
            source: from,
            own: vec![self.us],
            names: Vec::new(),
            record_routes: usize::from(method == "INVITE"),
            max_breadth: 60,
        };
        let result = if is_response {
            transparency::response(&bytes, &sent.bytes, &facts)
        } else {
            transparency::request(&bytes, &sent.bytes, &facts)
        };
        if let Err(difference) = result {
            panic!("{place}: {difference}\n{}", text(&sent.bytes));
        }
        let other_side = if self.run.is_left(&printed.from) {
            self.run.right
        } else {
            self.run.left
        };
        let ip = sent.to.ip().to_string();
        assert!(
            sent.to.port() == 5060 && other_side.iter().any(|(_, _, of)| *of == ip),
            "{place}: sent to {}\n{}",
            sent.to,
            text(&sent.bytes)
        );
        let (call_id, cseq) = (row(&bytes, "Call-ID"), row(&bytes, "CSeq"));
        if is_response {
            let own = format!("@{}", self.us);
            let to = row(&bytes, "To");
            let sent = Parts::of(&sent.bytes);
            let listed: Vec<String> = sent
                .named("record-route")
                .map(|row| text(row.value()))
                .collect();
            let ours = listed.iter().flat_map(|row| row.split(','));
            if let (Some((_, tag)), Some(value)) = (
                to.split_once(";tag="),
                ours.map(str::trim).find(|value| value.contains(&own)),
            ) {
                self.dialogs
                    .insert((call_id, tag.to_owned()), value.to_owned());
            }
        } else {
            self.asked.insert((sent.to, call_id, cseq), sent.clone());
        }
        self.sent.insert(printed.number, sent);
    }

    /// Replacement 3.
    #[track_caller]
    fn as_an_answer(&self, mut parts: Parts, from: SocketAddr, place: &str) -> Parts {
        let value = |name: &str| {
            let row = parts.named(name).next().unwrap();
            text(row.value())
        };
        let key = (from, value("call-id"), value("cseq"));
        let asked = self.asked.get(&key);
        let asked = asked.unwrap_or_else(|| panic!("{place}: nobody asked that: {key:?}"));
        let asked = Parts::of(&asked.bytes);
        let vias: Vec<&Row> = asked.named("via").collect();
        let first = parts.rows.iter().position(|row| row.name == "via").unwrap();
        let theirs = text(&parts.rows[first].bytes);
        if theirs.contains(&format!(" {};", self.us)) {
            // The first line is the Via itself, a fold what its receiver added.
            let fold = theirs.split_once("\r\n").unwrap().1;
            let ours = [text(&vias[0].bytes).trim_end(), "\r\n", fold].concat();
            parts.rows[first].bytes = ours.into_bytes();
            if parts.named("via").count() == 1 {
                for (number, via) in vias[1..].iter().enumerate() {
                    parts.rows.insert(first + 1 + number, (*via).clone());
                }
            }
        } else {
            parts.rows.insert(first, vias[0].clone());
        }
        if let Some(ours) = asked.named("record-route").next() {
            let value = text(ours.value());
            let plain = format!("<sip:{};lr>", self.run.address);
            let at = parts.rows.iter().position(|row| row.name == "record-route");
            let listed = at.map(|at| text(&parts.rows[at].bytes));
            match (at, listed.filter(|row| row.contains(&plain))) {
                (Some(at), Some(row)) => {
                    parts.rows[at].bytes = row.replace(&plain, &value).into_bytes();
                }
                // RFC 3261 §12.1.1: copied into what makes a dialog.
                _ if makes_a_dialog(&parts) => {
                    let from = parts.rows.iter().position(|row| row.name == "from");
                    parts.rows.insert(at.or(from).unwrap(), ours.clone());
                }
                _ => {}
            }
        }
        parts
    }

    /// Replacement 4.
    fn inside_its_dialog(&self, mut parts: Parts, past: bool, place: &str) -> Parts {
        let tag = |name: &str| {
            let row = parts.named(name).next().unwrap();
            let value = text(row.value());
            value.split_once(";tag=").map(|(_, tag)| tag.to_owned())
        };
        let call_id = text(parts.named("call-id").next().unwrap().value());
        let (Some(to), Some(from)) = (tag("to"), tag("from")) else {
            return parts;
        };
        let known = |tag: String| self.dialogs.get(&(call_id.clone(), tag)).cloned();
        let ours = known(to).or_else(|| known(from));
        let plain = format!("<sip:{};lr>", self.run.address);
        let names_us = |row: &&mut Row| row.name == "route" && text(&row.bytes).contains(&plain);
        if let Some(row) = parts.rows.iter_mut().find(names_us) {
            let ours = ours.unwrap_or_else(|| panic!("{place}: a Route of no dialog"));
            row.bytes = text(&row.bytes).replace(&plain, &ours).into_bytes();
        } else if past && let Some(ours) = ours {
            let at = parts
                .rows
                .iter()
                .position(|row| row.name == "from")
                .unwrap();
            parts.rows.insert(at, Row::new(&format!("Route: {ours}")));
        }
        parts
    }

    /// What the element of the flow sent must be what we sent, header by header.
    #[track_caller]
    fn compare(&self, got: u8, printed: &Printed, leave: &str) {
        let place = format!("{} F{got} to F{}", self.run.section, printed.number);
        let sent = self.sent.get(&got);
        let sent = sent.unwrap_or_else(|| panic!("{place}: nothing was sent"));
        let parts = over_udp(
            self.run.section,
            printed.number,
            printed.bytes.as_ref().unwrap(),
        );
        let ours = self.listed(&Parts::of(&sent.bytes), leave);
        let theirs = self.listed(&parts, leave);
        for (number, expected) in theirs.iter().enumerate() {
            let found = ours.get(number).map_or("nothing", String::as_str);
            assert_eq!(
                found,
                expected,
                "{place}: line {number}\n{}",
                text(&sent.bytes)
            );
        }
        assert_eq!(ours.len(), theirs.len(), "{place}: {:?}", ours.last());
    }

    /// The lines of a message without what any two proxies do differently: their own Via and
    /// Record-Route, Max-Breadth, folds, and where `received` repeats the sent-by.
    fn listed(&self, parts: &Parts, leave: &str) -> Vec<String> {
        let leave: Vec<&str> = leave.split(' ').collect();
        let is_request = !parts.start.starts_with(b"SIP/2.0 ");
        let mut list = Vec::new();
        let start = text(&parts.start);
        if leave.contains(&"uri") {
            list.push(start.split(' ').next().unwrap().to_owned());
        } else {
            list.push(start);
        }
        for row in &parts.rows {
            let name = row.name.as_str();
            if name == "max-breadth" || leave.contains(&name) {
                continue;
            }
            let value = text(row.value()).replace("\r\n ", " ").replace(" ;", ";");
            if !["via", "record-route", "route"].contains(&name) {
                list.push(format!("{name}: {value}"));
                continue;
            }
            for value in value.split(',').map(str::trim) {
                let ours_via = format!("SIP/2.0/UDP {};", self.us);
                let own = match name {
                    "via" => is_request && value.starts_with(&ours_via),
                    "record-route" => {
                        value.contains(&format!("@{}", self.us))
                            || value.contains(&format!("sip:{};", self.run.address))
                    }
                    _ => false,
                };
                if own {
                    continue;
                }
                let host = value.split([' ', ':', ';']).nth(1).unwrap_or_default();
                let value = value.replace(&format!(";received={host}"), "");
                list.push(format!("{name}: {value}"));
            }
        }
        list.push(parts.body.escape_ascii().to_string());
        list
    }
}

/// RFC 3261 §12.1: 101 to 299 to an INVITE, with a To tag.
fn makes_a_dialog(parts: &Parts) -> bool {
    let text = text(&parts.bytes());
    let provisional = text.starts_with("SIP/2.0 1") && !text.starts_with("SIP/2.0 100");
    let cseq = rows(text.as_bytes(), "CSeq").remove(0);
    (provisional || text.starts_with("SIP/2.0 2")) && cseq.ends_with("INVITE")
}

/// How many messages of a run were sent, compared, are made by the element itself, and go
/// elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: usize,
    compared: usize,
    made: usize,
    elsewhere: usize,
}

#[track_caller]
fn play(run: &Run) -> Count {
    let printed = flow(run.section);
    assert!(!printed.is_empty(), "{}", run.section);
    let mut play = Play::new(run);
    let mut count = Count::default();
    for message in &printed {
        let forwarded = run.forwards.iter().find(|(_, to, _)| *to == message.number);
        let made = run.made.iter().find(|(of, _)| *of == message.number);
        if let Some(past) = play.comes_to_us(message) {
            assert!(forwarded.is_none() && made.is_none(), "F{}", message.number);
            play.pass(message, past);
            count.passed += 1;
        } else if run.us == Some(&*message.from) {
            match (forwarded, made) {
                (Some((got, _, leave)), None) => {
                    play.compare(*got, message, leave);
                    count.compared += 1;
                }
                (None, Some(_)) => count.made += 1,
                _ => panic!("{} F{}: once", run.section, message.number),
            }
        } else {
            assert!(forwarded.is_none() && made.is_none(), "F{}", message.number);
            count.elsewhere += 1;
        }
    }
    let all = count.passed + count.compared + count.made + count.elsewhere;
    assert_eq!(all, printed.len(), "{}", run.section);
    assert_eq!(count.compared, run.forwards.len(), "{}", run.section);
    assert_eq!(count.made, run.made.len(), "{}", run.section);
    count
}

#[track_caller]
fn play_all(section: &str) {
    let runs: Vec<&Run> = RUNS.iter().filter(|run| run.section == section).collect();
    assert!(!runs.is_empty(), "no run of {section}");
    for run in runs {
        play(run);
    }
}

macro_rules! flows {
    ($($name:ident: $section:literal,)*) => {
        $(#[test]
        fn $name() {
            play_all($section);
        })*

        const SECTIONS: &[&str] = &[$($section),*];
    };
}

flows! {
    r3665_2_1_registration: "2.1",
    r3665_2_2_contact_list_update: "2.2",
    r3665_2_3_contact_list_request: "2.3",
    r3665_2_4_registration_cancelled: "2.4",
    r3665_2_5_registration_refused: "2.5",
    r3665_3_1_session: "3.1",
    r3665_3_2_session_through_two_proxies: "3.2",
    r3665_3_3_multiple_proxy_authentication: "3.3",
    r3665_3_4_proxy_failure: "3.4",
    r3665_3_5_application_level_gateway: "3.5",
    r3665_3_6_redirect_and_proxy: "3.6",
    r3665_3_7_reinvite_from_another_address: "3.7",
    r3665_3_8_no_answer: "3.8",
    r3665_3_9_busy: "3.9",
    r3665_3_10_no_response: "3.10",
    r3665_3_11_temporarily_unavailable: "3.11",
}

/// Every flow has its test, every message of the RFC its place, and the sums are these.
#[test]
fn r3665_every_message_is_accounted_for() {
    let table = include_str!("flows.tsv");
    let mut sections: Vec<&str> = table
        .lines()
        .skip(1)
        .map(|line| line.split('\t').next().unwrap())
        .collect();
    assert_eq!(sections.len(), 193);
    sections.dedup();
    assert_eq!(sections, SECTIONS);
    let mut sum = Count::default();
    for run in RUNS {
        let count = play(run);
        sum.passed += count.passed;
        sum.compared += count.compared;
        sum.made += count.made;
        sum.elsewhere += count.elsewhere;
    }
    assert_eq!(
        sum,
        Count {
            passed: 123,
            compared: 63,
            made: 41,
            elsewhere: 103,
        }
    );
}
