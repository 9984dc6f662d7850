//! Messages of RFC 3665 and some more, explained.

use std::fs;
use std::path::Path;

use super::input::{Input, InputError};
use super::report::{Report, Subject};
use super::*;
use crate::affinity::{Keys, Secret};
use crate::forward::{Leads, Way};
use crate::verdict::DropReason;

const CONFIG: &str = r#"
    trusted = ["198.18.100.0/24"]
    [[listeners]]
    name = "clients"
    address = "198.18.0.1:5060"
    deny = ["198.19.0.0/16"]
    [[pools]]
    name = "farm"
    servers = [
        { name = "s1", address = "198.18.1.11:5060" },
        { name = "s2", address = "198.18.1.12:5060", weight = 2 },
        { name = "s3", address = "198.18.1.13:5060", priority = 1 },
    ]
    [[pools]]
    name = "registrars"
    servers = [{ name = "r1", address = "198.18.1.21:5060" }]
    [[routes]]
    name = "scanners"
    header = { name = "User-Agent", contains = "friendly-scanner" }
    drop = true
    [[routes]]
    name = "premium"
    user_prefixes = ["+4990"]
    reject = 603
    [[routes]]
    name = "registrations"
    methods = ["REGISTER"]
    pool = "registrars"
    key = "aor"
    [[routes]]
    name = "calls"
    pool = "farm"
    from = "outside"
"#;

struct Lab {
    config: Config,
    keys: Arc<Keys>,
    plan: Plan,
}

impl Lab {
    fn new() -> Self {
        let config = Config::parse(CONFIG).unwrap();
        let secret = Secret::from_hex(&"0123456789abcdef".repeat(4)).unwrap();
        let keys = Arc::new(Keys::new(&secret));
        let plan = Plan::build(&config, &mut ServerRegistry::new(), &keys).unwrap();
        Self { config, keys, plan }
    }

    fn ask(&self, message: &[u8], from: &str) -> (Outcome, Report) {
        let from = Some(from.parse().unwrap());
        let input = Input::new(message.to_vec(), from, None, &self.plan).unwrap();
        let outcome = decide(&self.plan, &input);
        let subject = Subject {
            config: &self.config,
            plan: &self.plan,
            keys: &self.keys,
            input: &input,
            outcome: &outcome,
        };
        let report = Report::new(&subject, "that of the test");
        (outcome, report)
    }
}

fn rfc3665(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rfc3665");
    fs::read(folder.join(format!("{name}.sip"))).unwrap()
}

fn has(report: &Report, lines: &[&str]) {
    let text = report.to_string();
    for line in lines {
        assert!(text.contains(line), "{line}:\n{text}");
    }
}

/// A request of a client, with what the caller adds to it.
fn request(method: &str, uri: &str, more: &str) -> Vec<u8> {
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 198.18.200.7:5060;branch=z9hG4bKa\r\n\
         Max-Forwards: 70\r\nFrom: <sip:a@example.com>;tag=1\r\nTo: <sip:b@example.com>\r\n\
         Call-ID: c1@example.com\r\nCSeq: 1 {method}\r\n{more}Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

const CLIENT: &str = "198.18.200.7:5060";

/// RFC 3665 §3.1: an INVITE with no more than itself.
#[test]
fn an_invite_goes_by_the_table_and_every_edit_is_shown() {
    let lab = Lab::new();
    let (outcome, report) = lab.ask(&rfc3665("3.1-F01"), CLIENT);
    assert_eq!(outcome.verdict, Verdict::Transmit);
    let request = outcome.explanation.request.as_ref().unwrap();
    assert_eq!(request.way, Some(Way::Table));
    assert!(request.refusal.is_none() && request.asks_table);
    let server = lab.plan.server(request.server.unwrap()).unwrap();
    assert_eq!(outcome.flow.peer, server.address);
    let bytes = String::from_utf8(outcome.bytes.clone()).unwrap();
    let via = bytes
        .lines()
        .find(|line| line.starts_with("Via: SIP/2.0/UDP 198.18.0.1:5060;"));
    has(
        &report,
        &[
            "INVITE sip:bob@biloxi.example.com SIP/2.0",
            "198.18.200.7:5060: outside, to listener clients 198.18.0.1:5060",
            "scanners: not met, header = { name = \"User-Agent\", contains = \"friendly-scanner\" }",
            "premium: not met, user_prefixes = [\"+4990\"]",
            "registrations: not met, methods = [\"REGISTER\"]",
            "calls: MET -> pool farm by call-id",
            "s2 198.18.1.12:5060 weight 2 priority 0: 66.7 % of the keys",
            "s3 198.18.1.13:5060 weight 1 priority 1: 0.0 % of the keys  <- then this",
            "<- this key",
            "<- next, were that down",
            "none offline",
            "chosen by    the pool's table: server s",
            "request forwarded: from 198.18.0.1:5060 (clients 198.18.0.1:5060) to 198.18.1.1",
            &format!("\n+ {}", via.unwrap()),
            "\n- Max-Forwards: 70\n+ Max-Forwards: 69",
            "\n+ Record-Route: <sip:v",
        ],
    );
    let json = report.json();
    assert_eq!(json["server"], *server.name);
    assert_eq!(json["sent"]["message"], bytes);
    assert_eq!(json["sent"]["to"], server.address.to_string());
}

#[test]
fn a_register_goes_by_its_own_rule_and_key() {
    let lab = Lab::new();
    // RFC 3665 §2.1 registers over TLS, with a sips URI: that is for nobody here.
    let (_, report) = lab.ask(&rfc3665("2.1-F01"), CLIENT);
    has(&report, &["answered with 416", "RFC 3261 §16.3 step 2"]);
    let (outcome, report) = lab.ask(&request("REGISTER", "sip:example.com", ""), CLIENT);
    assert_eq!(outcome.flow.peer, "198.18.1.21:5060".parse().unwrap());
    has(
        &report,
        &[
            "registrations: MET -> pool registrars by aor",
            "calls: would meet, a rule above came first",
            "key          aor: ",
            "r1 198.18.1.21:5060 weight 1 priority 0: 100.0 % of the keys  <- this key",
        ],
    );
}

/// The dialog of an INVITE: its 200 back, then the BYE with the token of its Record-Route.
#[test]
fn a_response_and_a_request_in_the_dialog_are_read_back() {
    let lab = Lab::new();
    let (sent, _) = lab.ask(&rfc3665("3.1-F01"), CLIENT);
    let forwarded = String::from_utf8(sent.bytes).unwrap();
    let row = |name: &str| -> Vec<&str> {
        let rows = forwarded.lines().filter(|line| line.starts_with(name));
        rows.map(str::trim_end).collect()
    };
    let server = sent.flow.peer;
    let response = format!(
        "SIP/2.0 200 OK\r\n{}\r\n{}\r\n{}\r\n{};tag=t2\r\n{}\r\n{}\r\n\
         Contact: <sip:b@{server}>\r\nContent-Length: 0\r\n\r\n",
        row("Via:").join("\r\n"),
        row("Record-Route:")[0],
        row("From:")[0],
        row("To:")[0],
        row("Call-ID:")[0],
        row("CSeq:")[0],
    );
    let (outcome, report) = lab.ask(response.as_bytes(), &server.to_string());
    assert_eq!(outcome.verdict, Verdict::Transmit);
    let said = outcome.explanation.response.unwrap();
    assert_eq!(said.next, Some(outcome.flow.peer));
    has(
        &report,
        &[
            "SIP/2.0 200 OK",
            "the top Via is ours: listener clients",
            "our parameter holds: the request came to listener clients 198.18.0.1:5060 on node 0 \
             and went to server s",
            "response forwarded: from 198.18.0.1:5060",
            "\n- Via: SIP/2.0/UDP 198.18.0.1:5060;",
        ],
    );
    // From another address the same response is nobody's.
    let (outcome, report) = lab.ask(response.as_bytes(), "198.18.1.99:5060");
    assert_eq!(outcome.verdict, Verdict::Drop(DropReason::ResponseSource));
    has(
        &report,
        &[
            "dropped, counted as response_source",
            DropReason::ResponseSource.meaning(),
        ],
    );

    let route = row("Record-Route:")[0].replace("Record-Route:", "Route:");
    let call_id = row("Call-ID:")[0];
    let bye = format!(
        "BYE sip:b@{server} SIP/2.0\r\nVia: SIP/2.0/UDP 198.18.200.7:5060;branch=z9hG4bKb\r\n\
         {route}\r\nMax-Forwards: 70\r\n{}\r\n{};tag=t2\r\n{call_id}\r\nCSeq: 2 BYE\r\n\
         Content-Length: 0\r\n\r\n",
        row("From:")[0],
        row("To:")[0],
    );
    let (outcome, report) = lab.ask(bye.as_bytes(), CLIENT);
    assert_eq!(outcome.flow.peer, server);
    let request = outcome.explanation.request.as_ref().unwrap();
    assert_eq!(request.way, Some(Way::RequestUri));
    assert!(!request.asks_table && request.own_routes == 1 && request.from_initiator);
    has(
        &report,
        &[
            "1 Route value(s) of our own, taken off",
            "ours: server s",
            "the only row; the sender began this dialog",
            "not asked: the message leads on by itself",
            &format!("\n- {route}"),
        ],
    );
    // The server takes us for the target: only the token tells.
    let bye = bye.replacen(&format!("sip:b@{server}"), "sip:b@farm.example.com", 1);
    let (outcome, _) = lab.ask(bye.as_bytes(), CLIENT);
    assert_eq!(outcome.flow.peer, server);
    let request = outcome.explanation.request.unwrap();
    assert_eq!(
        (request.way, request.request_uri),
        (Some(Way::Token), Leads::Name)
    );
}

#[test]
fn what_is_refused_says_by_whom() {
    let lab = Lab::new();
    let (outcome, report) = lab.ask(&request("INVITE", "sip:+49900@example.com", ""), CLIENT);
    assert_eq!(outcome.verdict, Verdict::Transmit);
    has(
        &report,
        &[
            "premium: MET -> reject 603",
            "answered with 603: from 198.18.0.1:5060 (clients 198.18.0.1:5060) to 198.18.200.7:5060",
            "the rule of the route table that it meets says so",
            "SIP/2.0 603",
        ],
    );
    assert!(report.json()["edits"].as_array().unwrap().is_empty());

    let scanner = request(
        "OPTIONS",
        "sip:100@198.18.0.1",
        "User-Agent: Friendly-Scanner\r\n",
    );
    let (outcome, report) = lab.ask(&scanner, CLIENT);
    assert_eq!(outcome.verdict, Verdict::Drop(DropReason::RouteDropped));
    has(
        &report,
        &["scanners: MET -> drop", "dropped, counted as route_dropped"],
    );

    // A trusted peer meets no rule: the last one is for strangers.
    let (_, report) = lab.ask(
        &request("INVITE", "sip:b@example.com", ""),
        "198.18.100.1:5060",
    );
    has(
        &report,
        &[
            "198.18.100.1:5060: a trusted peer",
            "calls: not met, from = \"outside\"",
            "no rule is met",
            "answered with 403",
            "RFC 3261 §26.1.5",
        ],
    );
    // The rule lets it on, its Route leads where a stranger may not go: no server was chosen.
    let away = request(
        "INVITE",
        "sip:b@example.com",
        "Route: <sip:p.example.com;lr>\r\n",
    );
    let (_, report) = lab.ask(&away, CLIENT);
    has(
        &report,
        &[
            "next Route: a name that is not ours",
            "calls: MET",
            "answered with 403",
        ],
    );
    assert!(!report.to_string().contains("this key"), "{report}");

    let spent = String::from_utf8(request("INVITE", "sip:b@example.com", "")).unwrap();
    let spent = spent.replace("Max-Forwards: 70", "Max-Forwards: 0");
    let (_, report) = lab.ask(spent.as_bytes(), CLIENT);
    has(
        &report,
        &[
            "answered with 483",
            "RFC 3261 §16.3 step 3: Max-Forwards is 0",
        ],
    );
    let ack = spent.replace("INVITE", "ACK");
    let (outcome, report) = lab.ask(ack.as_bytes(), CLIENT);
    assert_eq!(outcome.verdict, Verdict::Drop(DropReason::AckMaxForwards));
    has(&report, &["no answer to an ACK"]);
}

#[test]
fn a_pool_without_servers_is_told() {
    let mut lab = Lab::new();
    for server in &mut lab.config.pools[0].servers {
        server.weight = 0;
    }
    lab.plan = Plan::build(&lab.config, &mut ServerRegistry::new(), &lab.keys).unwrap();
    let (_, report) = lab.ask(&request("INVITE", "sip:b@example.com", ""), CLIENT);
    has(
        &report,
        &["pool farm: no server takes new calls", "answered with 503"],
    );
}

#[test]
fn what_is_no_sip_and_what_is_malformed_is_told() {
    let lab = Lab::new();
    let (outcome, report) = lab.ask(b"\r\n\r\n", CLIENT);
    assert_eq!(outcome.verdict, Verdict::Drop(DropReason::Keepalive));
    has(&report, &["dropped, counted as keepalive"]);
    let text = String::from_utf8(request("INVITE", "sip:b@example.com", "")).unwrap();
    let broken = text.replace("CSeq: 1 INVITE", "CSeq: x");
    let (_, report) = lab.ask(broken.as_bytes(), CLIENT);
    has(&report, &["syntax       ", "answered with 400"]);
    // Escape sequences of a message stay in the message.
    let hostile = text.replace("sip:a@", "\x1b]0;x\x07sip:a@");
    let (_, report) = lab.ask(hostile.as_bytes(), CLIENT);
    assert!(!report.to_string().contains('\x1b'));
}

#[test]
fn from_the_farm_the_message_leads_out() {
    let lab = Lab::new();
    let out = request("INVITE", "sip:+1555@203.0.113.9:5070", "");
    let (outcome, report) = lab.ask(&out, "198.18.1.11:5060");
    assert_eq!(outcome.flow.peer, "203.0.113.9:5070".parse().unwrap());
    let request_said = outcome.explanation.request.unwrap();
    assert_eq!(request_said.way, Some(Way::RequestUri));
    assert!(!request_said.asks_table);
    has(
        &report,
        &[
            "198.18.1.11:5060: the farm",
            "Request-URI: 203.0.113.9:5070, not in the farm",
            "chosen by    the address in the Request-URI",
        ],
    );
    let routed = request(
        "INVITE",
        "sip:b@example.com",
        "Route: <sip:198.18.100.1;lr>\r\n",
    );
    let (outcome, _) = lab.ask(&routed, "198.18.1.11:5060");
    assert_eq!(outcome.explanation.request.unwrap().way, Some(Way::Route));
}

/// The explanation must not be a second opinion: wherever a target is named it is the one sent to,
/// over all messages of RFC 3665 from all directions.
#[test]
fn the_explanation_agrees_with_the_decision() {
    let lab = Lab::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rfc3665");
    let mut requests = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "sip") {
            continue;
        }
        let message = fs::read(&file).unwrap();
        for from in [CLIENT, "198.18.100.1:5060", "198.18.1.11:5060"] {
            let (outcome, report) = lab.ask(&message, from);
            let Some(request) = &outcome.explanation.request else {
                continue;
            };
            requests += 1;
            let name = file.display();
            match (outcome.verdict, &request.refusal) {
                (Verdict::Transmit, None) => {
                    assert!(request.way.is_some(), "{name} from {from}:\n{report}");
                    if let Some(server) = request.server {
                        let server = lab.plan.server(server).unwrap();
                        assert_eq!(outcome.flow.peer.ip(), server.address.ip(), "{name}");
                    }
                }
                (Verdict::Transmit, Some(refusal)) => {
                    let status = refusal.status.unwrap().to_string();
                    let start = format!("SIP/2.0 {status}");
                    assert!(
                        outcome.bytes.starts_with(start.as_bytes()),
                        "{name} from {from}"
                    );
                }
                (Verdict::Drop(_), Some(refusal)) => assert_eq!(refusal.status, None, "{name}"),
                (verdict, None) => panic!("{name} from {from}: {verdict:?}:\n{report}"),
                (Verdict::Absorb, _) => panic!("{name}: no transaction takes anything"),
                (Verdict::HandOver(_), _) => panic!("{name}: one worker hands nothing over"),
            }
        }
    }
    assert!(requests > 200, "{requests}");
}

#[test]
fn what_was_not_said_is_assumed_and_told() {
    let lab = Lab::new();
    let message = request("INVITE", "sip:b@example.com", "");
    let input = Input::new(message.clone(), None, None, &lab.plan).unwrap();
    assert_eq!(input.flow.peer, "198.18.200.7:5060".parse().unwrap());
    assert_eq!(input.notes.len(), 2);
    let text = String::from_utf8(message).unwrap().replace("\r\n", "\n");
    let input = Input::new(text.clone().into_bytes(), None, Some("clients"), &lab.plan).unwrap();
    assert!(input.bytes.ends_with(b"\r\n\r\n"));
    assert!(input.notes[0].contains("LF alone"));
    let named = text.replace("198.18.200.7:5060", "client.example.com");
    let error = Input::new(named.into_bytes(), None, None, &lab.plan).unwrap_err();
    assert!(matches!(error, InputError::From));
    let error = Input::new(text.into_bytes(), None, Some("x"), &lab.plan).unwrap_err();
    assert!(error.to_string().ends_with("it has clients"), "{error}");
    let (_, report) = lab.ask(
        &request("INVITE", "sip:b@example.com", ""),
        "198.19.0.1:5060",
    );
    has(&report, &["the listener's `deny` has it"]);
}
