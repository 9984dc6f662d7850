//! Calls in both directions, and the parts of a message that habits change.

use std::net::SocketAddr;

use crate::fixture::*;

/// A farm and who talks to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) config: &'static str,
    /// A caller outside, and the address of ours that it knows.
    pub(crate) client: &'static str,
    pub(crate) outside: &'static str,
    /// A server, and the address of ours that it knows.
    pub(crate) server: &'static str,
    pub(crate) inside: &'static str,
}

const IPV6_CLIENT: &str = "[2001:db8:c::7]:5060";
const IPV6_SERVER: &str = "[2001:db8:1::11]:5060";

/// One address, two sides, two families, IPv6 alone.
pub(crate) const SHAPES: [Shape; 4] = [
    Shape {
        name: "one-armed",
        config: ONE_ARMED,
        client: CLIENT,
        outside: VIP,
        server: SERVERS[0],
        inside: VIP,
    },
    Shape {
        name: "two-armed",
        config: TWO_ARMED,
        client: CLIENT,
        outside: VIP,
        server: SERVERS[0],
        inside: "198.18.1.1:5060",
    },
    Shape {
        name: "families",
        config: FAMILIES,
        client: CLIENT,
        outside: VIP,
        server: IPV6_SERVER,
        inside: "[2001:db8:1::1]:5060",
    },
    Shape {
        name: "ipv6",
        config: IPV6,
        client: IPV6_CLIENT,
        outside: "[2001:db8::10]:5060",
        server: IPV6_SERVER,
        inside: "[2001:db8::10]:5060",
    },
];

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A client calls the farm.
    In,
    /// The farm calls a phone.
    Out,
}

pub(crate) const WAYS: [Way; 2] = [Way::In, Way::Out];

/// A call that is set up: who is at its ends and what route set they hold.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) caller: SocketAddr,
    /// The address of ours that the caller sends to.
    pub(crate) caller_side: SocketAddr,
    pub(crate) callee: SocketAddr,
    /// The address of ours that the callee sends to.
    pub(crate) callee_side: SocketAddr,
    /// Record-Route values of the 200, in its order.
    pub(crate) record_route: Vec<String>,
}

/// One end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Caller,
    Callee,
}

pub(crate) const ENDS: [End; 2] = [End::Caller, End::Callee];

/// A request, its Via row and body of headers as given.
pub(crate) fn message(method: &str, uri: &str, via: &str, call_id: &str, more: &str) -> Vec<u8> {
    sip(&format!(
        "{method} {uri} SIP/2.0
        {via}
        Max-Forwards: 70
        From: \"Alice, A.\" <sip:alice@a.example>;tag=a1
        To: <sip:bob@b.example>
        Call-ID: {call_id}
        CSeq: 1 {method}
        {more}Content-Length: 0"
    ))
}

/// The Via row of a sender.
pub(crate) fn via(sender: impl std::fmt::Display, branch: &str) -> String {
    format!("Via: SIP/2.0/UDP {sender};branch={branch}")
}

impl Shape {
    pub(crate) fn lab(&self) -> Lab {
        Lab::with_workers(self.config, 2)
    }

    /// Caller, the address of ours that it sends to, and its Request-URI.
    pub(crate) fn caller(&self, way: Way) -> (SocketAddr, SocketAddr, String) {
        let (from, to, uri) = match way {
            Way::In => (self.client, self.outside, "sip:bob@b.example".to_owned()),
            Way::Out => (self.server, self.inside, format!("sip:bob@{}", self.client)),
        };
        (from.parse().unwrap(), to.parse().unwrap(), uri)
    }

    /// The INVITE of a caller, as its callee gets it.
    #[track_caller]
    pub(crate) fn invite(&self, lab: &mut Lab, way: Way, call_id: &str) -> Sent {
        let (from, to, uri) = self.caller(way);
        let contact = format!("Contact: <sip:alice@{from}>\n");
        let bytes = message("INVITE", &uri, &via(from, "z9hG4bK1"), call_id, &contact);
        lab.deliver(&bytes, from, to).sent()
    }

    /// A call that is set up.
    #[track_caller]
    pub(crate) fn call(&self, lab: &mut Lab, way: Way, call_id: &str) -> Call {
        let invite = self.invite(lab, way, call_id);
        let back = lab.reply(response(&invite, 200, "b1"), &invite).sent();
        let (caller, caller_side, _) = self.caller(way);
        assert_eq!((back.to, back.from), (caller, caller_side));
        Call {
            id: call_id.to_owned(),
            caller,
            caller_side,
            callee: invite.to,
            callee_side: invite.from,
            record_route: values(&rows(&back.bytes, "Record-Route")),
        }
    }
}

impl Call {
    /// The addresses at `end`: itself and ours.
    pub(crate) fn at(&self, end: End) -> (SocketAddr, SocketAddr) {
        match end {
            End::Caller => (self.caller, self.caller_side),
            End::Callee => (self.callee, self.callee_side),
        }
    }

    /// Route values that `end` sends: the caller's route set is reversed (RFC 3261 §12.1.2).
    pub(crate) fn routes(&self, end: End) -> Vec<String> {
        let mut routes = self.record_route.clone();
        if end == End::Caller {
            routes.reverse();
        }
        routes
    }

    /// The Contact of the other end.
    pub(crate) fn target(&self, end: End) -> String {
        match end {
            End::Caller => format!("sip:{}", self.callee),
            End::Callee => format!("sip:alice@{}", self.caller),
        }
    }

    /// A request of `end` inside the dialog; its Route rows as given, line ends and all.
    pub(crate) fn request(&self, end: End, method: &str, uri: &str, route_rows: &str) -> Vec<u8> {
        let (from, _) = self.at(end);
        let (from_row, to_row) = match end {
            End::Caller => ("<sip:alice@a.example>;tag=a1", "<sip:bob@b.example>;tag=b1"),
            End::Callee => ("<sip:bob@b.example>;tag=b1", "<sip:alice@a.example>;tag=a1"),
        };
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{method}\r\n\
             Max-Forwards: 70\r\n{route_rows}From: {from_row}\r\nTo: {to_row}\r\n\
             Call-ID: {}\r\nCSeq: 2 {method}\r\nContent-Length: 0\r\n\r\n",
            self.id
        )
        .into_bytes()
    }

    /// Sends a request of `end` and asserts that it reaches the other one, bare of our Routes.
    #[track_caller]
    pub(crate) fn reaches(&self, lab: &mut Lab, end: End, bytes: &[u8], what: &str) -> Sent {
        let (from, ours) = self.at(end);
        let other = if end == End::Caller {
            End::Callee
        } else {
            End::Caller
        };
        let sent = match lab.deliver(bytes, from, ours) {
            Outcome::Sent(sent) => sent,
            Outcome::Dropped(reason) => panic!("{what}: {}\n{}", reason.as_str(), text(bytes)),
        };
        assert_eq!(
            (sent.to, sent.from),
            self.at(other),
            "{what}: {}",
            text(&sent.bytes)
        );
        assert!(
            rows(&sent.bytes, "Route").is_empty(),
            "{what}: {}",
            text(&sent.bytes)
        );
        sent
    }
}

/// The values of rows, taken apart at commas outside quotes and brackets.
pub(crate) fn values(rows: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    for row in rows {
        let (mut value, mut quoted, mut bracketed) = (String::new(), false, false);
        for character in row.chars() {
            match character {
                '"' => quoted = !quoted,
                '<' if !quoted => bracketed = true,
                '>' if !quoted => bracketed = false,
                ',' if !quoted && !bracketed => {
                    out.push(std::mem::take(&mut value));
                    continue;
                }
                _ => {}
            }
            value.push(character);
        }
        out.push(value);
    }
    out.iter()
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
        .collect()
}

/// All Via values of rows under either name, folds undone.
pub(crate) fn vias(bytes: &[u8]) -> Vec<String> {
    let unfolded = text(bytes).replace("\r\n ", " ").replace("\r\n\t", " ");
    let found: Vec<String> = lines(unfolded.as_bytes())
        .iter()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| ["via", "v"].contains(&name.trim().to_ascii_lowercase().as_str()))
        .map(|(_, value)| value.trim().to_owned())
        .collect();
    values(&found)
}

/// With `lines` in the place of all rows of this name, at the first of them.
#[track_caller]
pub(crate) fn with_rows(bytes: &[u8], name: &str, lines: &[String]) -> Vec<u8> {
    let all = text(bytes);
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    let mut out: Vec<String> = Vec::new();
    let mut done = false;
    for line in head.split("\r\n") {
        let is_row = line
            .split_once(':')
            .is_some_and(|(of, _)| of.trim().eq_ignore_ascii_case(name));
        if !is_row {
            out.push(line.to_owned());
        } else if !done {
            done = true;
            out.extend_from_slice(lines);
        }
    }
    assert!(done, "no {name} in\n{all}");
    format!("{}\r\n\r\n{body}", out.join("\r\n")).into_bytes()
}

/// Another spelling of every IPv6 address in `text`, with or without brackets.
pub(crate) fn respelled(text: &str, spell: fn(std::net::Ipv6Addr) -> String) -> String {
    let mut out = String::new();
    let is_part = |character: char| character.is_ascii_hexdigit() || character == ':';
    let mut rest = text;
    while let Some(at) = rest.find("2001:db8:") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let len = rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
        let address: std::net::Ipv6Addr = rest[..len].parse().unwrap();
        out.push_str(&spell(address));
        rest = &rest[len..];
    }
    out + rest
}

/// All eight groups, four digits each, upper case.
pub(crate) fn expanded(address: std::net::Ipv6Addr) -> String {
    let groups: Vec<String> = address
        .segments()
        .iter()
        .map(|group| format!("{group:04X}"))
        .collect();
    groups.join(":")
}

/// The last 32 bits as dotted decimal (RFC 4291 §2.2).
pub(crate) fn embedded(address: std::net::Ipv6Addr) -> String {
    let [a, b, c, d, e, f, ..] = address.segments();
    let [.., w, x, y, z] = address.octets();
    format!("{a:x}:{b:x}:{c:x}:{d:x}:{e:x}:{f:x}:{w}.{x}.{y}.{z}")
}
