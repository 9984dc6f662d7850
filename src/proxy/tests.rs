//! One worker, a clock that is set, bytes in and out.

use super::*;
use crate::affinity::{Keys, Pins, Secret};
use crate::config::Config;
use crate::metrics::WorkerMetrics;
use crate::net::{ListenerIndex, SocketAddr, WorkerIndex};
use crate::route::ServerRegistry;
use crate::time::Duration;

const CONFIG: &str = r#"
    [secret]
    hex = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
    [[listeners]]
    name = "clients"
    address = "198.18.0.1:5060"
    stateful = ["INVITE"]
    [[pools]]
    name = "farm"
    servers = [
        { name = "s1", address = "198.18.1.11:5060" },
        { name = "s2", address = "198.18.1.12:5060" },
        { name = "s3", address = "198.18.1.13:5060" },
    ]
"#;

const CLIENT: &str = "198.18.0.100:5062";

struct Lab {
    plan: Plan,
    proxy: Proxy,
    now: Instant,
    memory: Vec<u8>,
    sent: Vec<(Flow, Vec<u8>)>,
}

impl Lab {
    fn new() -> Self {
        Self::with(CONFIG)
    }

    fn with(config: &str) -> Self {
        let config = Config::parse(config).unwrap();
        let keys = Arc::new(Keys::new(
            &Secret::from_bytes(core::array::from_fn(|byte| u8::try_from(byte).unwrap())).unwrap(),
        ));
        let plan = Plan::build(&config, &mut ServerRegistry::new(), &keys).unwrap();
        let metrics = Arc::new(WorkerMetrics::new());
        let forwarder = Forwarder::new(WorkerIndex(0), 1, Arc::new(Pins::new(1024)), metrics);
        let room = Room {
            transactions: 64,
            message_bytes: 1 << 20,
            rescue: false,
        };
        let now = Instant::from_nanos(1_000_000_000);
        Self {
            plan,
            proxy: Proxy::new(forwarder, room, Arc::new(Board::new()), now),
            now,
            memory: vec![0; 8192],
            sent: Vec::new(),
        }
    }

    fn receive(&mut self, from: &str, bytes: &[u8]) -> Verdict {
        let start = 1024;
        self.memory[start..start + bytes.len()].copy_from_slice(bytes);
        let mut buffer = Buffer::new(&mut self.memory, start, start + bytes.len());
        let mut flow = Flow {
            listener: ListenerIndex(0),
            local: "198.18.0.1:5060".parse().unwrap(),
            peer: from.parse().unwrap(),
        };
        let verdict =
            self.proxy
                .on_message(&self.plan, &mut buffer, &mut flow, self.now, &mut self.sent);
        if verdict == Verdict::Transmit {
            self.sent.push((flow, buffer.payload().to_vec()));
        }
        verdict
    }

    /// What was sent since: to whom, and the text.
    fn take(&mut self) -> Vec<(SocketAddr, String)> {
        let sent = self.sent.drain(..);
        sent.map(|(flow, bytes)| (flow.peer, String::from_utf8(bytes).unwrap()))
            .collect()
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self.proxy.on_timer(&self.plan, self.now, &mut self.sent);
            match next.filter(|next| *next <= end) {
                Some(next) => self.now = next.max(self.now + Duration::from_millis(1)),
                None => break,
            }
        }
        self.now = end;
    }

    fn assert_empty(&mut self) {
        self.pass(Duration::from_secs(400));
        assert_eq!(self.proxy.open_transactions(), 0);
        assert_eq!(self.proxy.kept_bytes(), 0);
        assert_eq!(self.proxy.armed_timers(), 0);
    }
}

fn invite(method: &str, call_id: &str) -> Vec<u8> {
    format!(
        "{method} sip:bob@198.18.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 198.18.0.100:5062;branch=z9hG4bK-{call_id}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:alice@a.example>;tag=1\r\nTo: <sip:bob@b.example>\r\n\
         Call-ID: {call_id}\r\nCSeq: 1 {method}\r\nContact: <sip:alice@198.18.0.100:5062>\r\n\
         Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// A server's response to a request that it got.
fn response(request: &str, status: u16) -> Vec<u8> {
    let mut text = format!("SIP/2.0 {status} Whatever\r\n");
    for row in request.lines().skip(1) {
        let name = row.split(':').next().unwrap_or("");
        if ["Via", "From", "Call-ID", "CSeq", "Record-Route"].contains(&name) {
            text += &format!("{row}\r\n");
        } else if name == "To" {
            let tag = if status > 100 && !row.contains("tag=") {
                ";tag=uas"
            } else {
                ""
            };
            text += &format!("{row}{tag}\r\n");
        }
    }
    (text + "Content-Length: 0\r\n\r\n").into_bytes()
}

fn lines(sent: &[(SocketAddr, String)]) -> Vec<String> {
    sent.iter()
        .map(|(peer, text)| {
            let line = text.lines().next().unwrap_or("");
            let words: Vec<&str> = line.split(' ').collect();
            let what = if words[0] == "SIP/2.0" {
                words[1]
            } else {
                words[0]
            };
            let side = if peer.ip().to_string().starts_with("198.18.1.") {
                "server"
            } else {
                "client"
            };
            format!("{what} {side}")
        })
        .collect()
}

/// What a call costs while it rings: its record, the INVITE of 507 bytes with the edits that make it
/// the one that left, and the 180 for its retransmissions.
#[test]
fn a_ringing_call_takes_no_more_than_two_kibibytes() {
    let mut lab = Lab::new();
    let bytes = String::from_utf8(invite("INVITE", "memory")).unwrap();
    let subject = "x".repeat(507 - bytes.len() - "Subject: \r\n".len());
    let bytes = bytes.replace("Contact:", &format!("Subject: {subject}\r\nContact:"));
    assert_eq!(bytes.len(), 507);
    lab.receive(CLIENT, bytes.as_bytes());
    let (server, forwarded) = lab.take()[1].clone();
    lab.receive(&server.to_string(), &response(&forwarded, 180));
    assert_eq!(lines(&lab.take()), ["180 client"]);
    let kept = lab.proxy.kept_bytes();
    let record = Slab::<Record>::bytes_per_record()
        + Index::bytes_per_record(1 << 20)
        + Wheel::bytes_per_id();
    assert!(record + kept <= 2048, "{record} and {kept} bytes");
}

#[test]
fn a_call_is_set_up_and_its_transaction_ends() {
    let mut lab = Lab::new();
    lab.receive(CLIENT, &invite("INVITE", "a"));
    let sent = lab.take();
    assert_eq!(lines(&sent), ["100 client", "INVITE server"]);
    assert!(!sent[0].1.contains("b.example>;tag"), "{}", sent[0].1);
    let (server, forwarded) = sent[1].clone();
    assert!(forwarded.contains("Max-Forwards: 69\r\n"), "{forwarded}");
    assert_eq!(lab.receive(CLIENT, &invite("INVITE", "a")), Verdict::Absorb);
    assert_eq!(lines(&lab.take()), ["100 client"]);
    lab.pass(Duration::from_millis(600));
    assert_eq!(lines(&lab.take()), ["INVITE server"]);
    let server = server.to_string();
    assert_eq!(
        lab.receive(&server, &response(&forwarded, 100)),
        Verdict::Absorb
    );
    lab.receive(&server, &response(&forwarded, 180));
    assert_eq!(lines(&lab.take()), ["180 client"]);
    lab.receive(CLIENT, &invite("INVITE", "a"));
    assert_eq!(lines(&lab.take()), ["180 client"]);
    for _ in 0..2 {
        lab.receive(&server, &response(&forwarded, 200));
        let sent = lab.take();
        assert_eq!(lines(&sent), ["200 client"]);
        assert_eq!(sent[0].1.matches("Via:").count(), 1);
    }
    assert_eq!(lab.receive(CLIENT, &invite("INVITE", "a")), Verdict::Absorb);
    lab.pass(Duration::from_secs(33));
    assert_eq!(lines(&lab.take()), [""; 0]);
    lab.assert_empty();
    let stray = lab.receive(&server, &response(&forwarded, 200));
    assert_eq!(stray, Verdict::Drop(DropReason::ResponseStray));
}

#[test]
fn a_refusal_is_acknowledged_here_and_repeated_until_the_client_does() {
    let mut lab = Lab::new();
    lab.receive(CLIENT, &invite("INVITE", "a"));
    let (server, forwarded) = lab.take().pop().unwrap();
    let server = server.to_string();
    lab.receive(&server, &response(&forwarded, 486));
    let sent = lab.take();
    assert_eq!(lines(&sent), ["ACK server", "486 client"]);
    lab.receive(&server, &response(&forwarded, 486));
    assert_eq!(lines(&lab.take()), ["ACK server"]);
    lab.pass(Duration::from_millis(1600));
    assert_eq!(lines(&lab.take()), ["486 client", "486 client"]);
    assert_eq!(lab.receive(CLIENT, &invite("ACK", "a")), Verdict::Absorb);
    lab.pass(Duration::from_secs(10));
    assert!(lab.take().is_empty());
    lab.assert_empty();
}

#[test]
fn a_cancel_waits_for_the_first_provisional_response() {
    let mut lab = Lab::new();
    lab.receive(CLIENT, &invite("INVITE", "a"));
    let (server, forwarded) = lab.take().pop().unwrap();
    let server = server.to_string();
    lab.receive(CLIENT, &invite("CANCEL", "a"));
    let sent = lab.take();
    assert_eq!(lines(&sent), ["200 client"]);
    assert!(sent[0].1.contains("CSeq: 1 CANCEL"));
    lab.receive(&server, &response(&forwarded, 180));
    let sent = lab.take();
    assert_eq!(lines(&sent), ["CANCEL server", "180 client"]);
    let cancel = sent[0].1.clone();
    assert_eq!(
        lab.receive(&server, &response(&cancel, 200)),
        Verdict::Absorb
    );
    lab.receive(&server, &response(&forwarded, 487));
    assert_eq!(lines(&lab.take()), ["ACK server", "487 client"]);
    lab.receive(CLIENT, &invite("ACK", "a"));
    lab.assert_empty();
}

#[test]
fn a_503_has_another_server_tried_and_all_503_are_a_500() {
    let mut lab = Lab::new();
    lab.receive(CLIENT, &invite("INVITE", "a"));
    let mut seen = Vec::new();
    for number in 0..3 {
        let (server, forwarded) = lab.take().pop().unwrap();
        assert!(!seen.contains(&server), "{server} twice");
        seen.push(server);
        lab.receive(&server.to_string(), &response(&forwarded, 503));
        let wanted = if number < 2 {
            "INVITE server"
        } else {
            "500 client"
        };
        assert_eq!(lines(&lab.sent_lines()), ["ACK server", wanted]);
    }
    lab.take();
    lab.receive(CLIENT, &invite("ACK", "a"));
    lab.assert_empty();
}

#[test]
fn a_silent_server_is_left_after_two_seconds_and_its_late_ringing_cancelled() {
    let mut lab = Lab::new();
    lab.receive(CLIENT, &invite("INVITE", "a"));
    let (first, early) = lab.take().pop().unwrap();
    lab.pass(Duration::from_millis(1990));
    assert_eq!(lines(&lab.take()), ["INVITE server", "INVITE server"]);
    lab.pass(Duration::from_millis(50));
    let (second, late) = lab.take().pop().unwrap();
    assert_ne!(first, second);
    lab.receive(&first.to_string(), &response(&early, 180));
    assert_eq!(lines(&lab.take()), ["CANCEL server"]);
    lab.receive(&second.to_string(), &response(&late, 200));
    assert_eq!(lines(&lab.take()), ["200 client"]);
    lab.receive(&first.to_string(), &response(&early, 487));
    assert_eq!(lines(&lab.take()), ["ACK server"]);
    lab.assert_empty();
}

#[test]
fn all_silent_is_a_408_after_six_seconds() {
    let mut lab = Lab::new();
    lab.receive(CLIENT, &invite("INVITE", "a"));
    lab.pass(Duration::from_millis(6100));
    let sent = lab.take();
    assert_eq!(lines(&sent).last().unwrap(), "408 client");
    let servers: std::collections::BTreeSet<_> = sent
        .iter()
        .filter(|(_, text)| text.starts_with("INVITE"))
        .map(|(peer, _)| *peer)
        .collect();
    assert_eq!(servers.len(), 3);
    lab.receive(CLIENT, &invite("ACK", "a"));
    lab.pass(Duration::from_secs(20));
    assert_eq!(lines(&lab.take()), [""; 0]);
    let (late, forwarded) = sent
        .iter()
        .rfind(|(_, text)| text.starts_with("INVITE"))
        .unwrap();
    lab.receive(&late.to_string(), &response(forwarded, 180));
    assert_eq!(lines(&lab.take()), ["CANCEL server"]);
    lab.assert_empty();
}

#[test]
fn where_nodes_share_an_address_a_transaction_writes_the_nodes_own() {
    let config = CONFIG.replace(
        "[[pools]]",
        "node_listener = \"own\"\n[[listeners]]\nname = \"own\"\naddress = \"198.18.0.2:5060\"\n[[pools]]",
    );
    let mut lab = Lab::with(&config);
    lab.receive(CLIENT, &invite("INVITE", "a"));
    let (server, forwarded) = lab.take().pop().unwrap();
    assert!(
        forwarded.contains("Via: SIP/2.0/UDP 198.18.0.2:5060;branch=z9hG4bKt0"),
        "{forwarded}"
    );
    assert!(forwarded.contains("@198.18.0.1:5060;lr>"), "{forwarded}");
    lab.receive(&server.to_string(), &response(&forwarded, 200));
    assert_eq!(lines(&lab.take()), ["200 client"]);
    lab.receive(CLIENT, &invite("OPTIONS", "b"));
    let (_, stateless) = lab.take().pop().unwrap();
    assert!(
        stateless.contains("Via: SIP/2.0/UDP 198.18.0.1:5060;branch=z9hG4bKs0"),
        "{stateless}"
    );
}

#[test]
fn path_is_added_as_the_listener_says() {
    for (policy, added) in [("off", false), ("supported", false), ("always", true)] {
        let path = format!("path = \"{policy}\"\n[[pools]]");
        let mut lab = Lab::with(&CONFIG.replace("[[pools]]", &path));
        lab.receive(CLIENT, &invite("REGISTER", "a"));
        let (_, forwarded) = lab.take().pop().unwrap();
        assert_eq!(
            forwarded.contains("\r\nPath: <sip:"),
            added,
            "{policy}: {forwarded}"
        );
        assert!(!forwarded.contains("Require: path"), "{policy}");
    }
}

#[test]
fn what_names_a_dialog_or_wants_no_fork_stays_with_its_server() {
    for row in [
        "Replaces: x@y;to-tag=1;from-tag=2",
        "Request-Disposition: proxy, no-fork",
    ] {
        let mut lab = Lab::new();
        let text = String::from_utf8(invite("INVITE", "a")).unwrap();
        let text = text.replace("Content-Length", &format!("{row}\r\nContent-Length"));
        lab.receive(CLIENT, text.as_bytes());
        let (server, forwarded) = lab.take().pop().unwrap();
        lab.receive(&server.to_string(), &response(&forwarded, 503));
        assert_eq!(lines(&lab.take()), ["ACK server", "500 client"], "{row}");
    }
}

impl Lab {
    fn sent_lines(&self) -> Vec<(SocketAddr, String)> {
        self.sent
            .iter()
            .map(|(flow, bytes)| (flow.peer, String::from_utf8(bytes.clone()).unwrap()))
            .collect()
    }
}

/// What the call log holds after `calls`, a line each.
fn logged(calls: impl FnOnce(&mut Lab)) -> Vec<String> {
    use crate::journal::{CallJournal, CallRecord, Service};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calls");
    let log = Service::new("test", 64, |call: &CallRecord, out: &mut Vec<u8>| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let tried: Vec<u16> = call.attempts().iter().map(|of| of.status).collect();
        let rang = call.rang.map(|at| at.since(call.started).as_millis());
        let finished = call.finished.map(|at| at.since(call.started).as_millis());
        let line = format!(
            "{} {}>{} {tried:?} {} {} rang {rang:?} final {finished:?}\n",
            text(call.call_id.bytes()),
            text(call.from_user.bytes()),
            text(call.to_user.bytes()),
            call.status,
            call.end.as_str(),
        );
        out.extend_from_slice(line.as_bytes());
    });
    log.commit(log.prepare(Some((&path, 1))).unwrap()).unwrap();
    let mut lab = Lab::new();
    lab.proxy = lab.proxy.with_journal(CallJournal::new(log.follow()));
    calls(&mut lab);
    lab.assert_empty();
    log.stop();
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn each_invite_is_in_the_call_log_once_with_how_it_ended() {
    let lines = logged(|lab| {
        let begin = |lab: &mut Lab, call_id: &str| {
            lab.receive(CLIENT, &invite("INVITE", call_id));
            let (server, forwarded) = lab.take().pop().unwrap();
            (server.to_string(), forwarded)
        };
        // Answered after a while; what comes again changes nothing.
        let (server, forwarded) = begin(lab, "answered");
        lab.pass(Duration::from_millis(40));
        lab.receive(&server, &response(&forwarded, 180));
        lab.pass(Duration::from_millis(60));
        lab.receive(&server, &response(&forwarded, 200));
        lab.receive(&server, &response(&forwarded, 200));
        lab.receive(CLIENT, &invite("INVITE", "answered"));
        // Busy.
        let (server, forwarded) = begin(lab, "busy");
        lab.receive(&server, &response(&forwarded, 486));
        lab.receive(CLIENT, &invite("ACK", "busy"));
        // Cancelled while it rings.
        let (server, forwarded) = begin(lab, "cancelled");
        lab.receive(&server, &response(&forwarded, 180));
        lab.receive(CLIENT, &invite("CANCEL", "cancelled"));
        lab.receive(&server, &response(&forwarded, 487));
        lab.receive(CLIENT, &invite("ACK", "cancelled"));
        lab.take();
        // No INVITE, not in it.
        lab.receive(CLIENT, &invite("OPTIONS", "options"));
    });
    assert_eq!(
        lines,
        [
            "answered alice>bob [200] 200 answered rang Some(40) final Some(100)",
            "busy alice>bob [486] 486 refused rang None final Some(0)",
            "cancelled alice>bob [487] 487 cancelled rang Some(0) final Some(0)",
        ]
    );
}

#[test]
fn an_invite_that_goes_nowhere_is_in_the_call_log_too() {
    let lines = logged(|lab| {
        // Nobody answers: what was tried, and our own 408 or what exhaustion says.
        lab.receive(CLIENT, &invite("INVITE", "silent"));
        lab.pass(Duration::from_secs(60));
        // Refused before a server was chosen.
        let far = String::from_utf8(invite("INVITE", "loop")).unwrap();
        let far = far.replace("Max-Forwards: 70", "Max-Forwards: 0");
        lab.receive(CLIENT, far.as_bytes());
        lab.take();
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("silent alice>bob [0"), "{lines:?}");
    let own = [" 408 timed-out ", " 500 exhausted "];
    assert!(own.iter().any(|own| lines[0].contains(own)), "{lines:?}");
    assert_eq!(
        lines[1],
        "loop alice>bob [] 483 rejected rang None final Some(0)"
    );
}
