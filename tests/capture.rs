//! `viaduct run`, `viaduct capture`, the control socket and the common log as an operator has them,
//! on loopback sockets; the files are read back here.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up fails")]

use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use viaduct::admin::client;
use viaduct::config::Config;

const VIADUCT: &str = env!("CARGO_BIN_EXE_viaduct");

const SECRET: &str = "0123456789abcdef00112233445566778899aabbccddeeff0123456789abcdef";

/// A running viaduct with two listeners, and one server.
struct Lab {
    folder: TempDir,
    viaduct: Child,
    clients: SocketAddr,
    server: UdpSocket,
    client: UdpSocket,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ended_already = self.viaduct.kill();
        let _status = self.viaduct.wait();
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    socket
}

/// An address whose port is free now.
fn free() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test waits for processes")]
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Lab {
    fn new(extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = UdpSocket::bind("127.0.0.2:0").unwrap();
        server
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let (clients, other) = (free(), free());
        let text = format!(
            "[secret]\nhex = \"{SECRET}\"\n[datapath]\nmode = \"socket\"\npins = 1024\n\
             [workers]\ncount = 2\n[metrics]\nenabled = false\n\
             [control]\nsocket = \"{folder}/run/control\"\n\
             [[listeners]]\nname = \"clients\"\naddress = \"{clients}\"\n\
             [[listeners]]\nname = \"other\"\naddress = \"{other}\"\n\
             [[pools]]\nname = \"farm\"\n\
             servers = [{{ name = \"s1\", address = \"{server}\" }}]\n{extra}",
            folder = folder.path().display(),
            server = server.local_addr().unwrap(),
        );
        std::fs::write(folder.path().join("viaduct.toml"), text).unwrap();
        let viaduct = Command::new(VIADUCT)
            .args(["run", "--config"])
            .arg(folder.path().join("viaduct.toml"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lab = Self {
            folder,
            viaduct,
            clients,
            server,
            client: socket(),
        };
        // Served means answered.
        let probe = socket();
        probe
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let bad = lab.request("OPTIONS", "probe", "Proxy-Require: nobody\r\n");
        wait_for("viaduct does not answer", || {
            probe.send_to(&bad, clients).unwrap();
            probe.recv(&mut [0; 2000]).is_ok()
        });
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn request(&self, method: &str, call_id: &str, extra: &str) -> Vec<u8> {
        format!(
            "{method} sip:service@{vip} SIP/2.0\r\n\
             Via: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK{call_id}{method};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:a@lab.example>;tag=1\r\n\
             To: <sip:service@lab.example>\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\n\
             {extra}Content-Length: 0\r\n\r\n",
            vip = self.clients
        )
        .into_bytes()
    }

    /// One request there and its 200 back: four datagrams.
    fn exchange(&self, method: &str, call_id: &str) {
        let request = self.request(method, call_id, "");
        self.client.send_to(&request, self.clients).unwrap();
        let mut room = [0; 4000];
        let (len, from) = self.server.recv_from(&mut room).unwrap();
        let text = core::str::from_utf8(&room[..len]).unwrap();
        let kept = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
        let mut response = "SIP/2.0 200 OK\r\n".to_owned();
        for line in text.split("\r\n") {
            if kept.iter().any(|name| line.starts_with(name)) {
                response += line;
                response += "\r\n";
            }
        }
        response += "Content-Length: 0\r\n\r\n";
        self.server.send_to(response.as_bytes(), from).unwrap();
        self.client.recv(&mut room).unwrap();
    }

    fn reload(&self) {
        let pid = rustix::process::Pid::from_child(&self.viaduct);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    fn capture(&self, file: &str, arguments: &[&str]) -> Child {
        Command::new(VIADUCT)
            .args(["capture", "--control"])
            .arg(self.path("run/control"))
            .args(["--write"])
            .arg(self.path(file))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// A capture that runs: its first blocks have been written.
    fn capturing(&self, file: &str, arguments: &[&str]) -> Child {
        let capture = self.capture(file, arguments);
        let path = self.path(file);
        wait_for("the capture does not start", || {
            std::fs::metadata(&path).is_ok_and(|file| file.len() > 0)
        });
        capture
    }
}

fn ended(capture: Child) -> String {
    let Output { status, stderr, .. } = capture.wait_with_output().unwrap();
    let told = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{told}");
    told
}

/// One packet of a file.
#[derive(Debug, PartialEq)]
struct Seen {
    interface: u32,
    inbound: bool,
    id: u64,
    src: SocketAddr,
    dst: SocketAddr,
    start_line: String,
    comment: String,
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

fn short(bytes: &[u8]) -> u16 {
    u16::from_be_bytes(bytes[..2].try_into().unwrap())
}

/// RFC 1071 over 16-bit words.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

fn seen(block: &[u8]) -> Seen {
    let len = word(&block[12..]) as usize;
    assert_eq!(word(&block[16..]) as usize, len, "cut short");
    let packet = &block[20..20 + len];
    assert_eq!(packet[0], 0x45);
    assert_eq!(usize::from(short(&packet[2..])), len);
    assert_eq!(sum(&[&packet[..20]]), 0xffff, "IP checksum");
    let udp = &packet[20..];
    let udp_len = u16::try_from(udp.len()).unwrap();
    let pseudo = [&[0, 17], &udp_len.to_be_bytes()[..]].concat();
    assert_eq!(
        sum(&[&packet[12..20], &pseudo, udp]),
        0xffff,
        "UDP checksum"
    );
    let address = |at: usize, port: usize| {
        let octets: [u8; 4] = packet[at..at + 4].try_into().unwrap();
        SocketAddr::from((octets, short(&udp[port..])))
    };
    let mut options = &block[20 + len.next_multiple_of(4)..];
    let (mut inbound, mut id, mut comment) = (None, None, None);
    while word(options) != 0 {
        let (code, len) = (word(options) & 0xffff, (word(options) >> 16) as usize);
        let value = &options[4..4 + len];
        match code {
            1 => comment = Some(String::from_utf8(value.to_vec()).unwrap()),
            2 => inbound = Some(word(value) & 3 == 1),
            5 => id = Some(u64::from_le_bytes(value.try_into().unwrap())),
            _ => panic!("option {code}"),
        }
        options = &options[4 + len.next_multiple_of(4)..];
    }
    let payload = String::from_utf8_lossy(&udp[8..]);
    Seen {
        interface: word(block),
        inbound: inbound.unwrap(),
        id: id.unwrap(),
        src: address(12, 0),
        dst: address(16, 2),
        start_line: payload.lines().next().unwrap_or("").to_owned(),
        comment: comment.unwrap(),
    }
}

/// The packets of a file that is whole.
fn read(path: &Path) -> Vec<Seen> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    let (mut packets, mut statistics) = (Vec::new(), 0);
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let len = word(&rest[4..]) as usize;
        let body = &rest[8..len - 4];
        match word(rest) {
            6 => packets.push(seen(body)),
            5 => statistics += 1,
            0x0a0d_0d0a | 1 => {}
            other => panic!("block {other}"),
        }
        rest = &rest[len..];
    }
    assert_eq!(statistics, 2, "one for each listener");
    packets
}

#[test]
fn both_sides_of_one_call_are_captured_with_their_fate() {
    let lab = Lab::new("");
    let capture = lab.capturing("file.pcapng", &["--call-id", "mine@lab", "--count", "5"]);
    lab.exchange("OPTIONS", "other@lab");
    lab.exchange("OPTIONS", "mine@lab");
    lab.exchange("OPTIONS", "not-mine@lab");
    let hopeless = lab.request("CANCEL", "mine@lab", "Max-Forwards: 0\r\n");
    lab.client.send_to(&hopeless, lab.clients).unwrap();
    let told = ended(capture);
    assert!(told.contains("captured packets: 5, lost: 0"), "{told}");

    let packets = read(&lab.path("file.pcapng"));
    let (client, server) = (
        lab.client.local_addr().unwrap(),
        lab.server.local_addr().unwrap(),
    );
    let ways: Vec<_> = packets
        .iter()
        .map(|seen| (seen.inbound, seen.src, seen.dst))
        .collect();
    assert_eq!(
        ways,
        [
            (true, client, lab.clients),
            (false, lab.clients, server),
            (true, server, lab.clients),
            (false, lab.clients, client),
            (true, client, lab.clients),
        ]
    );
    assert!(packets.iter().all(|seen| seen.interface == 0));
    assert!(packets[0].start_line.starts_with("OPTIONS "));
    assert_eq!(packets[2].start_line, "SIP/2.0 200 OK");
    assert!(
        packets[0]
            .comment
            .starts_with(&format!("forwarded to {server}, worker "))
    );
    assert!(
        packets[2]
            .comment
            .starts_with(&format!("forwarded to {client}, worker "))
    );
    assert!(packets[1].comment.starts_with("sent, worker "));
    assert_eq!(packets[0].id, packets[1].id);
    assert_eq!(packets[2].id, packets[3].id);
    assert_ne!(packets[0].id, packets[2].id);
    // Two Max-Forwards: answered 400.
    assert!(packets[4].comment.starts_with("answered 400, worker "));
}

#[test]
fn drops_are_marked_and_a_signal_ends_a_capture_in_order() {
    let lab = Lab::new("");
    let client = lab.client.local_addr().unwrap();
    let only = ["--address", &client.to_string(), "--seconds", "0"];
    let capture = lab.capturing("file.pcapng", &only);
    lab.client.send_to(b"hello", lab.clients).unwrap();
    lab.client.send_to(b"\r\n\r\n", lab.clients).unwrap();
    socket().send_to(b"somebody else", lab.clients).unwrap();
    lab.exchange("MESSAGE", "1@lab");

    // One at a time, and a refusal leaves no file behind.
    let second = lab
        .capture("second.pcapng", &[])
        .wait_with_output()
        .unwrap();
    assert!(!second.status.success());
    let told = String::from_utf8(second.stderr).unwrap();
    assert!(told.contains("a capture runs already"), "{told}");
    assert!(!lab.path("second.pcapng").exists());

    let pid = rustix::process::Pid::from_child(&capture);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let told = ended(capture);
    assert!(told.contains("captured packets: 6, lost: 0"), "{told}");
    let packets = read(&lab.path("file.pcapng"));
    let dropped: Vec<_> = packets
        .iter()
        .filter_map(|seen| seen.comment.strip_prefix("dropped: "))
        .filter_map(|comment| comment.split(',').next())
        .collect();
    assert_eq!(dropped, ["not_sip", "keepalive"]);

    // The place is free again.
    let third = lab.capturing("third.pcapng", &["--seconds", "1", "--method", "BYE"]);
    lab.exchange("OPTIONS", "2@lab");
    let told = ended(third);
    assert!(told.contains("captured packets: 0, lost: 0"), "{told}");
    assert!(read(&lab.path("third.pcapng")).is_empty());
}

#[test]
fn a_killed_client_makes_room_for_the_next() {
    let lab = Lab::new("");
    let mut killed = lab.capturing("killed.pcapng", &["--seconds", "0"]);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let path = lab.path("next.pcapng");
    wait_for("the dead capture goes on", || {
        let mut next = lab.capture("next.pcapng", &["--count", "4"]);
        loop {
            if std::fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
                lab.exchange("OPTIONS", "1@lab");
                ended(next);
                return true;
            }
            // Refused: the place is not free yet.
            if next.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    assert_eq!(read(&path).len(), 4);
}

#[test]
fn the_running_configuration_is_told_without_its_secret_and_follows_reloads() {
    let lab = Lab::new("");
    let socket = lab.path("run/control");
    let told = || client::get(&socket, "/config").unwrap().text().unwrap();
    let first = told();
    assert!(!first.contains(&SECRET[..32]) && !first.contains(&SECRET[32..]));
    let config = Config::parse_redacted(&first).unwrap();
    assert_eq!(config.listeners[0].address, lab.clients);

    let file = lab.path("viaduct.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("# changed\n{text}")).unwrap();
    lab.reload();
    wait_for("the reload is not told", || {
        told() == format!("# changed\n{first}")
    });
    // A file that is refused changes nothing.
    std::fs::write(&file, format!("node = 7\n{text}")).unwrap();
    lab.reload();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(told(), format!("# changed\n{first}"));
}

#[test]
fn r6872_the_common_log_has_both_sides_and_survives_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let (log, old) = (folder.path().join("sip.clf"), folder.path().join("old"));
    let lab = Lab::new(&format!("[log]\ncommon = \"{}\"\n", log.display()));
    lab.exchange("MESSAGE", "1@lab");
    let lines = |path: &Path, call_id: &str| -> Vec<Vec<String>> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().skip(1).step_by(2);
        lines
            .map(|line| line.split('\t').map(str::to_owned).collect())
            .filter(|fields: &Vec<String>| fields[11] == call_id)
            .collect()
    };
    wait_for("no lines", || lines(&log, "1@lab").len() == 4);
    let told = lines(&log, "1@lab");
    let flags: Vec<&str> = told.iter().map(|fields| &*fields[1]).collect();
    assert_eq!(flags, ["RSRUU", "RSSUU", "rSRUU", "rSSUU"]);
    let server = lab.server.local_addr().unwrap().to_string();
    let client = lab.client.local_addr().unwrap().to_string();
    let vip = lab.clients.to_string();
    let ways: Vec<[&str; 2]> = told.iter().map(|f| [&*f[6], &*f[5]]).collect();
    assert_eq!(
        ways,
        [
            [&*client, &*vip],
            [&vip, &server],
            [&server, &vip],
            [&vip, &client]
        ]
    );
    assert_eq!(told[2][3], "200");
    // The branches tie the four together.
    assert_eq!(told[0][12], "z9hG4bK1@labMESSAGE");
    assert!(told.iter().all(|fields| fields[12] == told[0][12]));
    assert_ne!(told[1][13], told[0][12]);
    assert!(told[1..].iter().all(|fields| fields[13] == told[1][13]));

    std::fs::rename(&log, &old).unwrap();
    lab.reload();
    wait_for("the log is not opened again", || log.exists());
    lab.exchange("MESSAGE", "2@lab");
    wait_for("no lines", || lines(&log, "2@lab").len() == 4);
    assert!(lines(&old, "2@lab").is_empty());
}
