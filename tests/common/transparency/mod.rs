//! The transparency test: what a stateless proxy may change of a message, undone by somebody who
//! knows RFC 3261 §16 and nothing of the forwarder.
//!
//! Permitted in a request: our `Via` on top; `received` and `rport` on the one below (RFC 3261
//! §18.2.1, RFC 3581 §4); `Max-Forwards` one less or added; `Max-Breadth` added or capped (RFC 5393
//! §5.3.3); our `Record-Route` on top; our `Route` values removed; the strict-route fix-up (RFC 3261
//! §16.4, §16.6 step 6). In a response: our `Via` value taken off. In both: line ends in front of
//! the start line and bytes behind the body (§7.5, §18.3). All else must leave byte for byte and in
//! the order in which it came.
//!
//! What we add is taken off the message that was sent; what we change or remove is done, from the
//! RFC's text, to the one received. The two must then be the same bytes. The code reads lines and
//! shares nothing with the parser under test.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses its part; a message of a test that cannot be read fails it"
)]

mod parts;

use std::net::{IpAddr, SocketAddr};

pub(crate) use parts::{Parts, Row};
use parts::{split_points, trimmed};

/// What the configuration makes of a message.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Where the message came from.
    pub(crate) source: SocketAddr,
    /// Our listeners.
    pub(crate) own: Vec<SocketAddr>,
    /// Our names.
    pub(crate) names: Vec<String>,
    /// `Record-Route` rows that this request must get.
    pub(crate) record_routes: usize,
    /// Cap of `Max-Breadth`.
    pub(crate) max_breadth: u32,
}

/// Whether `sent` is `received` with nothing but the permitted edits of a request.
///
/// # Errors
/// The first difference, in words.
pub(crate) fn request(received: &[u8], sent: &[u8], facts: &Facts) -> Result<(), String> {
    let (mut received, mut sent) = (Parts::read(received)?, Parts::read(sent)?);
    if sent.is_response() || received.is_response() {
        return Err("not a request".to_owned());
    }
    take_own_via(&mut sent, facts)?;
    take_record_routes(&mut sent, facts)?;
    undo_marks(&mut received, &mut sent, facts)?;
    count_hop(&mut received, &mut sent)?;
    cap_breadth(&mut received, &mut sent, facts)?;
    route(&mut received, facts);
    same(&received, &sent)
}

/// Whether `sent` is `received` without our `Via` on top.
///
/// # Errors
/// The first difference, in words.
pub(crate) fn response(received: &[u8], sent: &[u8], facts: &Facts) -> Result<(), String> {
    let (mut received, sent) = (Parts::read(received)?, Parts::read(sent)?);
    if !sent.is_response() || !received.is_response() {
        return Err("not a response".to_owned());
    }
    let value = *received.values("via").first().ok_or("no Via")?;
    // Behind our text may stand what its receiver added, in a fold of its own.
    let text = received.text(value);
    let ours = text.lines().next().unwrap_or_default();
    if !is_own_via(ours.trim_end(), facts) {
        return Err(format!("not our Via: {text}"));
    }
    match received.values("via").get(1) {
        Some(next) if next.row == value.row => {
            received.rows[value.row]
                .bytes
                .drain(value.start..next.start);
        }
        _ => {
            received.rows.remove(value.row);
        }
    }
    same(&received, &sent)
}

/// RFC 3261 §16.6 step 8.
fn take_own_via(sent: &mut Parts, facts: &Facts) -> Result<(), String> {
    let at = sent.position("via").ok_or("no Via was sent")?;
    let row = &sent.rows[at];
    let text = String::from_utf8_lossy(&row.bytes).into_owned();
    let plain = row.bytes.starts_with(b"Via: SIP/2.0/UDP ") && row.values().len() == 1;
    if !plain || !is_own_via(text.trim_start_matches("Via: ").trim_end(), facts) {
        return Err(format!("on top stands a Via that is not ours: {text}"));
    }
    sent.rows.remove(at);
    Ok(())
}

fn is_own_via(value: &str, facts: &Facts) -> bool {
    let Some(rest) = value.strip_prefix("SIP/2.0/UDP ") else {
        return false;
    };
    let (sent_by, params) = rest.split_once(';').unwrap_or((rest, ""));
    let own = sent_by.parse().is_ok_and(|of| facts.own.contains(&of));
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b',';
    own && params.starts_with("branch=z9hG4bK")
        && params.len() > "branch=z9hG4bK".len()
        && params.bytes().all(plain)
}

/// RFC 3261 §16.6 step 4, RFC 5658 §5: on top, `lr`, one value each.
fn take_record_routes(sent: &mut Parts, facts: &Facts) -> Result<(), String> {
    for number in 0..facts.record_routes {
        let at = sent.position("record-route");
        let at = at.ok_or_else(|| format!("Record-Route {} is missing", number + 1))?;
        let text = String::from_utf8_lossy(&sent.rows[at].bytes).into_owned();
        let value = text
            .strip_prefix("Record-Route: <sip:v0")
            .map(str::trim_end);
        let uri = value.and_then(|value| value.strip_suffix(";lr>"));
        let own = uri.is_some_and(|uri| {
            is_own(&format!("sip:{uri}"), facts) && !uri.contains([',', ';', '>', ' '])
        });
        if !own {
            return Err(format!(
                "on top stands a Record-Route that is not ours: {text}"
            ));
        }
        sent.rows.remove(at);
    }
    Ok(())
}

/// RFC 3261 §18.2.1 and RFC 3581 §4: the marks are checked and taken off both messages.
fn undo_marks(received: &mut Parts, sent: &mut Parts, facts: &Facts) -> Result<(), String> {
    let (old, new) = (received.position("via"), sent.position("via"));
    let (Some(old), Some(new)) = (old, new) else {
        return Err("the client's Via is gone".to_owned());
    };
    let (old, new) = (&mut received.rows[old], &mut sent.rows[new]);
    let asked = take_marks(old);
    let marks = take_marks(new);
    let differs = sent_by(old).parse::<IpAddr>().ok() != Some(facts.source.ip());
    let source = facts.source.ip().to_string();
    let wanted_ip = differs || !asked.is_empty();
    let of = |name: &str| -> Vec<Option<String>> {
        let found = marks.iter().filter(|(of, _)| of == name);
        found.map(|(_, value)| value.clone()).collect()
    };
    let received_ip = if wanted_ip {
        vec![Some(source)]
    } else {
        vec![]
    };
    if of("received") != received_ip {
        return Err(format!(
            "received is {:?}, not {received_ip:?}",
            of("received")
        ));
    }
    let wanted_port = asked.iter().any(|(name, _)| name == "rport");
    let port = Some(facts.source.port().to_string());
    let port = if wanted_port { vec![port] } else { vec![] };
    if of("rport") != port {
        return Err(format!("rport is {:?}, not {port:?}", of("rport")));
    }
    Ok(())
}

/// Takes `received` and `rport` off the first value of a Via row and returns them.
fn take_marks(row: &mut Row) -> Vec<(String, Option<String>)> {
    let (start, end) = row.values()[0];
    let value = row.bytes[start..end].to_vec();
    let mut points = split_points(&value, b';', false);
    let ends: Vec<usize> = points
        .iter()
        .skip(1)
        .copied()
        .chain([value.len()])
        .collect();
    let mut marks = Vec::new();
    for (from, to) in points.drain(..).zip(ends).rev() {
        let to = trimmed(&value, from, to).1;
        let text = String::from_utf8_lossy(&value[from + 1..to]).into_owned();
        let (name, of) = match text.split_once('=') {
            Some((name, of)) => (name, Some(of.trim().to_owned())),
            None => (text.as_str(), None),
        };
        let name = name.trim().to_ascii_lowercase();
        if name == "received" || name == "rport" {
            marks.push((name, of));
            row.bytes.drain(start + from..start + to);
        }
    }
    marks
}

/// The host of the first value's sent-by, brackets taken off.
fn sent_by(row: &Row) -> String {
    let (start, end) = row.values()[0];
    let value = String::from_utf8_lossy(&row.bytes[start..end]).into_owned();
    let value = value.split(';').next().unwrap().to_owned();
    // The protocol may have white space around its slashes.
    let protocol = value.rfind('/').map_or(0, |slash| slash + 1);
    let mut words = value[protocol..].split_whitespace().skip(1);
    let host = words.next().unwrap_or_default();
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap().to_owned(),
        None => host.split(':').next().unwrap().to_owned(),
    }
}

/// RFC 3261 §16.6 step 3.
fn count_hop(received: &mut Parts, sent: &mut Parts) -> Result<(), String> {
    let Some(at) = received.position("max-forwards") else {
        return take_added(sent, "Max-Forwards: 70\r\n");
    };
    let row = &mut received.rows[at];
    let hops = String::from_utf8_lossy(row.value()).into_owned();
    let less = match hops.parse::<u8>() {
        Ok(0) => return Err("forwarded with Max-Forwards 0".to_owned()),
        Ok(hops) => hops - 1,
        // RFC 4475 §3.1.2.4: an unreadable one may count as absent.
        Err(_) => 70,
    };
    let range = row.value_start()..row.value_end();
    row.bytes.splice(range, less.to_string().into_bytes());
    Ok(())
}

/// RFC 5393 §5.3.3: exactly one in every request; §5.4.1: of no meaning in CANCEL.
fn cap_breadth(received: &mut Parts, sent: &mut Parts, facts: &Facts) -> Result<(), String> {
    if received.method_and_uri().0 == "CANCEL" {
        return Ok(());
    }
    let Some(at) = received.position("max-breadth") else {
        return take_added(sent, &format!("Max-Breadth: {}\r\n", facts.max_breadth));
    };
    let row = &mut received.rows[at];
    let breadth = String::from_utf8_lossy(row.value()).into_owned();
    if !breadth
        .parse()
        .is_ok_and(|value: u32| value <= facts.max_breadth)
    {
        let range = row.value_start()..row.value_end();
        row.bytes
            .splice(range, facts.max_breadth.to_string().into_bytes());
    }
    Ok(())
}

fn take_added(sent: &mut Parts, row: &str) -> Result<(), String> {
    let at = sent.rows.iter().position(|of| of.bytes == row.as_bytes());
    sent.rows
        .remove(at.ok_or_else(|| format!("{} was not added", row.trim_end()))?);
    Ok(())
}

/// RFC 3261 §16.4 and §16.6 step 6, done to the request received.
fn route(received: &mut Parts, facts: &Facts) {
    let all = received.values("route");
    if all.is_empty() {
        return;
    }
    let last_row = all.last().unwrap().row;
    let mut kept = all.clone();
    // A Request-URI that we wrote into a Record-Route came from a strict router; it has our cookie.
    let uri = received.method_and_uri().1;
    if is_own(&uri, facts) && uri.starts_with("sip:v0") {
        let last = kept.pop().unwrap();
        let uri = uri_of(&received.text(last));
        received.set_uri(&uri);
    }
    while kept
        .first()
        .is_some_and(|first| is_own(&uri_of(&received.text(*first)), facts))
    {
        kept.remove(0);
    }
    let mut appended = None;
    if let Some(next) = kept.first() {
        let next = uri_of(&received.text(*next));
        if !next
            .split(';')
            .skip(1)
            .any(|param| param.eq_ignore_ascii_case("lr"))
        {
            kept.remove(0);
            appended = Some(received.method_and_uri().1);
            received.set_uri(next.split('?').next().unwrap());
        }
    }
    let of_row = |index: usize| kept.iter().filter(move |value| value.row == index);
    for index in (0..=last_row).rev() {
        if received.rows[index].name != "route" {
            continue;
        }
        let row = &received.rows[index];
        let before = row.values();
        let (first, last) = (of_row(index).next(), of_row(index).next_back());
        let bytes = match (first, last) {
            (Some(first), Some(last)) => {
                let tail = if last.end == before.last().unwrap().1 {
                    last.end
                } else {
                    row.value_end()
                };
                let parts = [
                    &row.bytes[..before[0].0],
                    &row.bytes[first.start..last.end],
                    &row.bytes[tail..],
                ];
                parts.concat()
            }
            _ => Vec::new(),
        };
        received.rows[index].bytes = bytes;
    }
    if let Some(uri) = appended {
        let row = format!("Route: <{uri}>\r\n").into_bytes();
        received.rows[last_row].bytes.extend_from_slice(&row);
    }
    received.rows.retain(|row| !row.bytes.is_empty());
}

/// The URI of a name-addr.
fn uri_of(value: &str) -> String {
    match value.split_once('<') {
        Some((_, rest)) => rest.split('>').next().unwrap().to_owned(),
        None => value.split(';').next().unwrap().to_owned(),
    }
}

/// Whether a URI names us: its maddr or host, and its port.
fn is_own(uri: &str, facts: &Facts) -> bool {
    let Some((_, rest)) = uri.split_once(':') else {
        return false;
    };
    let mut parts = rest.split(['?', ';']);
    let host_port = parts.next().unwrap().rsplit('@').next().unwrap();
    let (host, port) = match host_port
        .strip_prefix('[')
        .and_then(|text| text.split_once(']'))
    {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match host_port.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (host_port, None),
        },
    };
    let host = parts
        .find_map(|param| param.strip_prefix("maddr="))
        .unwrap_or(host);
    let port = port.map_or(Ok(5060), str::parse::<u16>);
    let Ok(port) = port else {
        return false;
    };
    match host.parse::<IpAddr>() {
        Ok(ip) => facts.own.contains(&SocketAddr::new(ip, port)),
        Err(_) => {
            facts
                .names
                .iter()
                .any(|name| name.eq_ignore_ascii_case(host))
                && facts.own.iter().any(|own| own.port() == port)
        }
    }
}

/// Byte identity and order, or the first difference.
fn same(received: &Parts, sent: &Parts) -> Result<(), String> {
    let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let differ = |what: &str, expected: &[u8], found: &[u8]| {
        let at = expected
            .iter()
            .zip(found)
            .take_while(|(a, b)| a == b)
            .count();
        Err(format!(
            "{what} differs at byte {at}\n  expected {}\n  sent     {}",
            shown(&expected[at.saturating_sub(60)..expected.len().min(at + 200)]),
            shown(&found[at.saturating_sub(60)..found.len().min(at + 200)]),
        ))
    };
    if received.start != sent.start {
        return differ("the start line", &received.start, &sent.start);
    }
    for (number, expected) in received.rows.iter().enumerate() {
        let found = sent.rows.get(number).map_or(&b""[..], |row| &row.bytes);
        if expected.bytes != found {
            return differ(
                &format!("header row {}", number + 1),
                &expected.bytes,
                found,
            );
        }
    }
    if let Some(row) = sent.rows.get(received.rows.len()) {
        return differ("behind the last row something", b"", &row.bytes);
    }
    if received.body != sent.body {
        return differ("the body", &received.body, &sent.body);
    }
    assert_eq!(received.bytes(), sent.bytes(), "the parts are all there is");
    Ok(())
}
