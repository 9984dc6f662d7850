//! What the tests of forwarding say and read: configurations, messages as text, dialogs. Whoever
//! includes this gives a `Lab` to send them through.

use std::net::SocketAddr;
use std::sync::Arc;

use viaduct::affinity::Keys;
use viaduct::verdict::DropReason;

use super::{Lab, plan};

impl Lab {
    #[track_caller]
    pub fn new(config: &str) -> Self {
        Self::with_workers(config, 1)
    }

    #[track_caller]
    pub fn with_workers(config: &str, workers: u8) -> Self {
        Self::with_pins(config, workers, 4096)
    }

    /// The same keys, pins and server slots with another configuration.
    #[track_caller]
    pub fn reload(&mut self, config: &str) {
        self.plan = plan(config, &mut self.registry, &self.keys);
    }

    /// The same pins and server slots with other keys: a rotation by reload.
    #[track_caller]
    pub fn reload_with(&mut self, config: &str, keys: Keys) {
        self.keys = Arc::new(keys);
        self.reload(config);
    }

    /// A datagram to the first listener.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>, from: &str) -> Outcome {
        let to = self.plan.listeners()[0].address;
        self.deliver(bytes.as_ref(), from.parse().unwrap(), to)
    }

    /// A datagram to some address of ours.
    #[track_caller]
    pub fn send_to(&mut self, bytes: impl AsRef<[u8]>, from: &str, to: &str) -> Outcome {
        self.deliver(bytes.as_ref(), from.parse().unwrap(), to.parse().unwrap())
    }

    /// The answer to something that was sent: from its receiver, to where it came from.
    #[track_caller]
    pub fn reply(&mut self, bytes: impl AsRef<[u8]>, to: &Sent) -> Outcome {
        self.deliver(bytes.as_ref(), to.to, to.from)
    }

    #[track_caller]
    pub fn deliver(&mut self, bytes: &[u8], from: SocketAddr, to: SocketAddr) -> Outcome {
        self.deliver_at(0, bytes, from, to)
    }
}

pub const VIP: &str = "198.18.0.1:5060";
pub const CLIENT: &str = "198.18.200.7:5060";
pub const SERVERS: [&str; 3] = ["198.18.1.11:5060", "198.18.1.12:5060", "198.18.1.13:5060"];

/// One address for clients and servers, a second port, IPv6 beside it, three servers.
pub const ONE_ARMED: &str = r#"
    trusted = ["198.18.100.0/24"]
    [[listeners]]
    name = "clients"
    address = "198.18.0.1:5060"
    aliases = ["sip.lab.example"]
    [[listeners]]
    name = "second"
    address = "198.18.0.1:5070"
    [[pools]]
    name = "farm"
    servers = [
        { name = "s1", address = "198.18.1.11:5060" },
        { name = "s2", address = "198.18.1.12:5060" },
        { name = "s3", address = "198.18.1.13:5060" },
    ]
"#;

/// Clients on one network, servers on another.
pub const TWO_ARMED: &str = r#"
    [[listeners]]
    name = "clients"
    address = "198.18.0.1:5060"
    [[listeners]]
    name = "servers"
    address = "198.18.1.1:5060"
    side = "farm"
    [[pools]]
    name = "farm"
    servers = [
        { name = "s1", address = "198.18.1.11:5060" },
        { name = "s2", address = "198.18.1.12:5060" },
        { name = "s3", address = "198.18.1.13:5060" },
    ]
"#;

/// IPv4 clients, IPv6 servers.
pub const FAMILIES: &str = r#"
    [[listeners]]
    name = "clients"
    address = "198.18.0.1:5060"
    [[listeners]]
    name = "servers"
    address = "[2001:db8:1::1]:5060"
    side = "farm"
    [[pools]]
    name = "farm"
    servers = [
        { name = "s1", address = "[2001:db8:1::11]:5060" },
        { name = "s2", address = "[2001:db8:1::12]:5060" },
    ]
"#;

/// IPv6 on both sides, one address.
pub const IPV6: &str = r#"
    [[listeners]]
    name = "clients"
    address = "[2001:db8::10]:5060"
    [[pools]]
    name = "farm"
    servers = [
        { name = "s1", address = "[2001:db8:1::11]:5060" },
        { name = "s2", address = "[2001:db8:1::12]:5060" },
    ]
"#;

/// A message on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// What became of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Sent(Sent),
    Dropped(DropReason),
}

impl Outcome {
    #[track_caller]
    pub fn sent(self) -> Sent {
        match self {
            Self::Sent(sent) => sent,
            Self::Dropped(reason) => panic!("dropped: {}", reason.as_str()),
        }
    }

    #[track_caller]
    pub fn dropped(self) -> DropReason {
        match self {
            Self::Dropped(reason) => reason,
            Self::Sent(sent) => panic!("sent to {}:\n{}", sent.to, text(&sent.bytes)),
        }
    }
}

/// A message written with plain line ends and indentation: CRLF, no indentation, and an empty line
/// at the end of the headers if there is none.
pub fn sip(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.trim_start_matches('\n').lines() {
        // A continuation line is written with a bar where its white space starts.
        let line = line.trim_start();
        let line = line.strip_prefix('|').unwrap_or(line);
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    if !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An INVITE of the client, its Call-ID and branch as given.
pub fn invite(call_id: &str, branch: &str) -> Vec<u8> {
    request("INVITE", "sip:bob@sip.lab.example", call_id, branch, 1)
}

/// A request of the client at [`CLIENT`].
pub fn request(method: &str, uri: &str, call_id: &str, branch: &str, cseq: u32) -> Vec<u8> {
    sip(&format!(
        "{method} {uri} SIP/2.0
        Via: SIP/2.0/UDP 198.18.200.7:5060;branch={branch}
        Max-Forwards: 70
        From: Alice <sip:alice@client.example>;tag=a1
        To: Bob <sip:bob@sip.lab.example>
        Call-ID: {call_id}
        CSeq: {cseq} {method}
        Contact: <sip:alice@198.18.200.7:5060>
        User-Agent: lab phone 1.0
        Content-Length: 0"
    ))
}

/// The response of a server to a request that it received.
pub fn response(to: &Sent, status: u16, tag: &str) -> Vec<u8> {
    let mut out = format!("SIP/2.0 {status} Reason\r\n");
    for line in lines(&to.bytes) {
        let name = line.split(':').next().unwrap().trim().to_ascii_lowercase();
        match name.as_str() {
            "via" | "v" | "from" | "f" | "call-id" | "i" | "cseq" | "record-route" => {
                out += &line;
                out += "\r\n";
            }
            "to" | "t" => {
                out += &line;
                if !line.contains(";tag=") && !tag.is_empty() {
                    out += &format!(";tag={tag}");
                }
                out += "\r\n";
            }
            _ => {}
        }
    }
    out += &format!("Contact: <sip:{}>\r\nContent-Length: 0\r\n\r\n", to.to);
    out.into_bytes()
}

/// Header lines, unfolded by nothing: as they stand.
pub fn lines(bytes: &[u8]) -> Vec<String> {
    let all = text(bytes);
    let head = all.split("\r\n\r\n").next().unwrap();
    head.split("\r\n").map(str::to_owned).collect()
}

/// Values of the rows with this name, in order.
pub fn rows(bytes: &[u8], name: &str) -> Vec<String> {
    lines(bytes)
        .iter()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter(|(of, _)| of.trim().eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}

#[track_caller]
pub fn row(bytes: &[u8], name: &str) -> String {
    let mut rows = rows(bytes, name);
    assert_eq!(rows.len(), 1, "{name} in\n{}", text(bytes));
    rows.remove(0)
}

pub fn start_line(bytes: &[u8]) -> String {
    lines(bytes).remove(0)
}

/// A parameter of the top `Via`.
#[track_caller]
pub fn via_parameter(bytes: &[u8], name: &str) -> String {
    let top = rows(bytes, "Via").remove(0);
    let found = top
        .split(';')
        .find_map(|part| part.strip_prefix(&format!("{name}=")));
    found
        .unwrap_or_else(|| panic!("no {name} in {top}"))
        .to_owned()
}

pub fn branch(bytes: &[u8]) -> String {
    via_parameter(bytes, "branch")
}

/// With every occurrence of `from` written as `to`; there must be one.
#[track_caller]
pub fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let all = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(all.contains(from), "no {from:?} in\n{all}");
    all.replace(from, to).into_bytes()
}

/// With a row put in front of another one.
#[track_caller]
pub fn with_row(bytes: &[u8], before: &str, row: &str) -> Vec<u8> {
    replaced(
        bytes,
        &format!("\r\n{before}:"),
        &format!("\r\n{row}\r\n{before}:"),
    )
}

/// A dialog that the client set up: the server that has it, and the route set both sides hold.
pub struct Dialog {
    pub server: SocketAddr,
    pub server_side: SocketAddr,
    pub record_route: Vec<String>,
    pub call_id: String,
}

impl Dialog {
    /// INVITE and 200 through `lab`.
    #[track_caller]
    pub fn set_up(lab: &mut Lab, call_id: &str) -> Self {
        let invite = invite(call_id, "z9hG4bKsetup");
        let sent = lab.send(&invite, CLIENT).sent();
        let ok = response(&sent, 200, "b1");
        let back = lab.reply(&ok, &sent).sent();
        Self {
            server: sent.to,
            server_side: sent.from,
            record_route: rows(&back.bytes, "Record-Route"),
            call_id: call_id.to_owned(),
        }
    }

    /// A request of the client inside the dialog: route set in reverse order.
    pub fn by_client(&self, method: &str, cseq: u32, branch: &str) -> Vec<u8> {
        let routes: String = self
            .record_route
            .iter()
            .rev()
            .map(|value| format!("\r\nRoute: {value}"))
            .collect();
        let uri = format!("sip:bob@{}", self.server);
        let bytes = request(method, &uri, &self.call_id, branch, cseq);
        let bytes = replaced(
            &bytes,
            "To: Bob <sip:bob@sip.lab.example>",
            "To: Bob <sip:bob@sip.lab.example>;tag=b1",
        );
        replaced(
            &bytes,
            "\r\nMax-Forwards",
            &format!("{routes}\r\nMax-Forwards"),
        )
    }

    /// A request of the server inside the dialog: route set in order.
    pub fn by_server(&self, method: &str, cseq: u32, branch: &str) -> Vec<u8> {
        let routes: String = self
            .record_route
            .iter()
            .map(|value| format!("\r\nRoute: {value}"))
            .collect();
        let bytes = sip(&format!(
            "{method} sip:alice@198.18.200.7:5060 SIP/2.0
            Via: SIP/2.0/UDP {};branch={branch}
            Max-Forwards: 70
            From: Bob <sip:bob@sip.lab.example>;tag=b1
            To: Alice <sip:alice@client.example>;tag=a1
            Call-ID: {}
            CSeq: {cseq} {method}
            Content-Length: 0",
            self.server, self.call_id
        ));
        replaced(
            &bytes,
            "\r\nMax-Forwards",
            &format!("{routes}\r\nMax-Forwards"),
        )
    }
}

/// The request as it must have been received, read off what left: own `Via` and `Record-Route`
/// taken away, hop count put back, marks on the client's `Via` removed if `received` has none.
///
/// Knows nothing of how the forwarder works: it reads lines.
pub fn undone(sent: &[u8], received: &[u8]) -> Vec<u8> {
    let has = |name: &str| !rows(received, name).is_empty();
    let all = String::from_utf8_lossy(sent).into_owned();
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    let mut out: Vec<String> = Vec::new();
    let mut seen_via = false;
    let marked = rows(received, "Via")[0].contains(";received=");
    let mark = format!(";received={}", CLIENT.split_once(':').unwrap().0);
    for line in head.split("\r\n") {
        // With a transaction or without.
        let own = [";branch=z9hG4bKs0", ";branch=z9hG4bKt0"];
        let own_via =
            line.starts_with("Via: SIP/2.0/UDP ") && own.iter().any(|branch| line.contains(branch));
        if own_via && !seen_via {
            seen_via = true;
        } else if line.starts_with("Record-Route: <sip:v0")
            || (line.starts_with("Max-Breadth:") && !has("Max-Breadth"))
            || (line == "Max-Forwards: 70" && !has("Max-Forwards"))
        {
        } else if let Some(hops) = line.strip_prefix("Max-Forwards: ") {
            out.push(format!(
                "Max-Forwards: {}",
                hops.parse::<u32>().unwrap() + 1
            ));
        } else if seen_via && !marked && line.starts_with("Via:") && line.ends_with(&mark) {
            out.push(line.strip_suffix(&mark).unwrap().to_owned());
        } else {
            out.push(line.to_owned());
        }
    }
    assert!(seen_via, "no own Via in\n{all}");
    format!("{}\r\n\r\n{body}", out.join("\r\n")).into_bytes()
}

/// A file of the corpora that the repository carries.
#[track_caller]
pub fn data(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A response with our `Via` on top of it: that of an INVITE whose sender its first `Via` names.
#[track_caller]
pub fn with_own_via(lab: &mut Lab, bytes: &[u8]) -> (Sent, Vec<u8>) {
    let (start, end) = via_row(bytes);
    let row = text(&bytes[start..end]);
    let client = format!("{}:5060", row.split([' ', ';']).nth(2).unwrap());
    let client = client.parse().unwrap_or_else(|_| CLIENT.parse().unwrap());
    let plain = "Via: SIP/2.0/UDP 198.18.200.7:5060;branch=z9hG4bK1\r\n";
    let request = replaced(&invite("own-via", "z9hG4bK1"), plain, &row);
    let vip = lab.plan.listeners()[0].address;
    let sent = lab.deliver(&request, client, vip).sent();
    // The row that stands for the client gives way to what we sent.
    let (ours, ours_end) = via_row(&sent.bytes);
    let below = ours_end + via_row(&sent.bytes[ours_end - 2..]).0 - 2;
    let below_end = ours_end + via_row(&sent.bytes[ours_end - 2..]).1 - 2;
    let parts = [
        &bytes[..start],
        &sent.bytes[ours..ours_end],
        &sent.bytes[below..below_end],
        &bytes[end..],
    ];
    (sent.clone(), parts.concat())
}

/// Where the first `Via` row starts and ends, folds included.
#[track_caller]
fn via_row(bytes: &[u8]) -> (usize, usize) {
    let named = |window: &[u8]| window.eq_ignore_ascii_case(b"\r\nVia:");
    let start = bytes.windows(6).position(named).unwrap() + 2;
    let len = bytes[start..]
        .windows(3)
        .position(|three| three.starts_with(b"\r\n") && three[2] != b' ')
        .unwrap();
    (start, start + len + 2)
}
