//! Probes against a board: when they leave, what they say, and which answers count.

use std::sync::Arc;

use super::*;
use crate::affinity::{Keys, Secret};
use crate::config::Config;
use crate::route::{ServerRegistry, Standing, server_id};

const TEXT: &str = r#"
    [[listeners]]
    name = "clients"
    address = "198.18.0.1:5060"
    [[listeners]]
    name = "farm"
    address = "198.18.0.2:5060"
    side = "farm"
    [[listeners]]
    name = "farm6"
    address = "[2001:db8::2]:5060"
    side = "farm"
    [[pools]]
    name = "one"
    servers = [
        { name = "s1", address = "198.18.1.11:5060" },
        { name = "s2", address = "[2001:db8:1::12]:5070" },
        { name = "s3", address = "198.18.1.13:5060" },
    ]
    [pools.health]
    interval = 4.0
    timeout = 1.0
    rise = 2
    fall = 3
    codes = [200]
"#;

fn plan_of(text: &str, standing: &Standing) -> Plan {
    let secret = Secret::from_bytes(*b"0123456789abcdefghijklmnopqrstuv").unwrap();
    let keys = Arc::new(Keys::new(&secret));
    let config = Config::parse(text).unwrap();
    Plan::build_standing(&config, &mut ServerRegistry::new(), &keys, standing).unwrap()
}

fn plan() -> Plan {
    plan_of(TEXT, &Standing::new())
}

fn start() -> Instant {
    Instant::ZERO + Duration::from_secs(100)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Lets `seconds` pass, calling when it is asked for; returns when and where to probes left.
fn run(
    probes: &mut Probes,
    plan: &Plan,
    board: &Board,
    now: &mut Instant,
    seconds: u64,
    mut answer: impl FnMut(&Server) -> Option<u16>,
) -> Vec<(Instant, ServerIndex)> {
    let end = *now + Duration::from_secs(seconds);
    let mut log = Vec::new();
    while *now < end {
        let mut out: Vec<(Flow, Vec<u8>)> = Vec::new();
        let next = probes.on_timer(plan, board, *now, &mut out);
        // Who has nothing to send is called again when the plan may have changed.
        let next = next.unwrap_or(*now + LOOK);
        assert!(next > *now, "time goes on");
        for (flow, _) in out {
            let server = plan.server_at(flow.peer).unwrap();
            log.push((*now, server.index));
            if let Some(status) = answer(server) {
                let serial = board.probe(server.index).sent;
                board.probe_answered(server.index, serial, status, *now + millis(1));
            }
        }
        *now = next;
    }
    log
}

/// Times from probe to probe of a server, in milliseconds.
fn gaps(log: &[(Instant, ServerIndex)], server: u16) -> Vec<u64> {
    let times: Vec<Instant> = log
        .iter()
        .filter(|(_, of)| *of == ServerIndex(server))
        .map(|(at, _)| *at)
        .collect();
    let gap = |pair: &[Instant]| pair[1].since(pair[0]).as_millis().try_into().unwrap();
    times.windows(2).map(gap).collect()
}

/// The first probe of each server, by address.
fn first_probes(plan: &Plan, board: &Board, start: Instant) -> Vec<(Flow, Vec<u8>)> {
    let mut probes = Probes::new(WorkerIndex(0), 1);
    let mut out: Vec<(Flow, Vec<u8>)> = Vec::new();
    let mut now = start;
    while now <= start + Duration::from_secs(4) {
        now = probes.on_timer(plan, board, now, &mut out).unwrap();
    }
    out.sort_by_key(|(flow, _)| flow.peer);
    out.dedup_by_key(|(flow, _)| flow.peer);
    assert_eq!(out.len(), plan.servers().len());
    out
}

#[test]
fn a_probe_is_a_whole_request_from_the_side_of_the_farm() {
    let out = first_probes(&plan(), &Board::new(), start());
    let (flow, bytes) = &out[0];
    assert_eq!(flow.local, "198.18.0.2:5060".parse().unwrap());
    assert_eq!(flow.peer, "198.18.1.11:5060".parse().unwrap());
    let text = String::from_utf8(bytes.clone()).unwrap();
    let rows: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(rows[0], "OPTIONS sip:198.18.1.11:5060 SIP/2.0");
    assert!(rows[1].starts_with("Via: SIP/2.0/UDP 198.18.0.2:5060;branch=z9hG4bKt0"));
    assert_eq!(rows[2], "Max-Forwards: 70");
    assert!(rows[3].starts_with("From: <sip:viaduct@198.18.0.2:5060>;tag="));
    assert_eq!(rows[4], "To: <sip:198.18.1.11:5060>");
    assert_eq!(rows[6], "CSeq: 1 OPTIONS");
    assert_eq!(rows[7], "Content-Length: 0");
    let (flow, bytes) = &out[2];
    assert_eq!(flow.local, "[2001:db8::2]:5060".parse().unwrap());
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.starts_with("OPTIONS sip:[2001:db8:1::12]:5070 SIP/2.0\r\n"));
    for (_, bytes) in &out {
        let mut message = Message::new();
        message.parse(bytes).unwrap();
        assert_eq!(message.vias(bytes).count(), 1);
    }
}

#[test]
fn from_and_max_forwards_are_as_configured_and_the_longest_fits() {
    let from = format!("sip:{}@example.net", "x".repeat(112));
    let text = format!("{TEXT}\nfrom = \"{from}\"\nmax_forwards = 0");
    let mut plan = plan_of(&text, &Standing::new());
    let board = Board::new();
    // The longest serial, the longest address.
    for slot in 0..3 {
        board.probe_sent(ServerIndex(slot), u32::MAX / 2 - 1, Instant::ZERO);
    }
    for (_, bytes) in first_probes(&plan, &board, start()) {
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(&format!("\r\nFrom: <{from}>;tag=")));
        assert!(text.contains("\r\nMax-Forwards: 0\r\n"));
        assert!(text.contains("\r\nCSeq: 2147483647 OPTIONS\r\n"));
    }
    // And then the count begins anew.
    plan.node = 7;
    let out = first_probes(&plan, &board, start() + Duration::from_secs(60));
    assert!(String::from_utf8_lossy(&out[0].1).contains("\r\nCSeq: 1 OPTIONS\r\n"));
}

#[test]
fn a_server_that_answers_is_asked_once_in_an_interval() {
    let (plan, board) = (plan(), Board::new());
    let mut probes = Probes::new(WorkerIndex(0), 1);
    let mut now = start();
    let log = run(&mut probes, &plan, &board, &mut now, 60, |_| Some(200));
    for server in 0..3 {
        let gaps = gaps(&log, server);
        assert!(
            gaps.len() >= 13 && gaps.iter().all(|gap| *gap == 4000),
            "{gaps:?}"
        );
    }
    // Not all at once.
    let mut times: Vec<Instant> = log.iter().map(|(at, _)| *at).collect();
    times.dedup();
    assert_eq!(times.len(), log.len());
}

#[test]
fn a_server_in_doubt_is_asked_at_once_and_a_dead_one_more_and_more_rarely() {
    let board = Board::new();
    let mut probes = Probes::new(WorkerIndex(0), 1);
    let mut now = start();
    let silent = |server: &Server| (server.index.0 != 0).then_some(200);
    let log = run(&mut probes, &plan(), &board, &mut now, 12, silent);
    let in_doubt = gaps(&log, 0);
    assert!(in_doubt.iter().all(|gap| *gap == 1000), "{in_doubt:?}");
    let mut standing = Standing::new();
    standing.update(server_id("s1"), |server| server.health = Health::Down);
    let down = plan_of(TEXT, &standing);
    let log = run(&mut probes, &down, &board, &mut now, 300, silent);
    let pauses = gaps(&log, 0);
    assert_eq!(pauses[..4], [4000, 4000, 4000, 8000]);
    assert_eq!(pauses[4..7], [16_000, 30_000, 30_000]);
    // It answers: the next follow quickly until it is back.
    let log = run(&mut probes, &down, &board, &mut now, 60, |_| Some(200));
    let quick = gaps(&log, 0);
    assert!(
        quick.len() > 20 && quick.iter().all(|gap| *gap == 1000),
        "{quick:?}"
    );
    let log = run(&mut probes, &plan(), &board, &mut now, 20, |_| Some(200));
    assert!(gaps(&log, 0).iter().skip(1).all(|gap| *gap == 4000));
}

#[test]
fn an_answer_that_is_not_accepted_leaves_doubt() {
    let (plan, board) = (plan(), Board::new());
    let mut probes = Probes::new(WorkerIndex(0), 1);
    let mut now = start();
    let log = run(&mut probes, &plan, &board, &mut now, 20, |_| Some(503));
    assert!(gaps(&log, 1).iter().all(|gap| *gap == 1000));
}

#[test]
fn each_server_has_one_worker_and_those_that_are_out_have_none() {
    let mut standing = Standing::new();
    standing.update(server_id("s3"), |of| of.operator = OperatorState::Disabled);
    standing.update(server_id("s2"), |of| of.operator = OperatorState::Draining);
    let plan = plan_of(TEXT, &standing);
    let board = Board::new();
    let of_worker = |worker| {
        let mut now = start();
        let mut probes = Probes::new(WorkerIndex(worker), 2);
        let log = run(&mut probes, &plan, &board, &mut now, 30, |_| Some(200));
        let mut servers: Vec<u16> = log.iter().map(|(_, server)| server.0).collect();
        servers.sort_unstable();
        servers.dedup();
        servers
    };
    assert_eq!(of_worker(0), [0]);
    assert_eq!(of_worker(1), [1]);
    let without = plan_of(&TEXT.replace("interval = 4.0", "interval = 0"), &standing);
    let mut now = start();
    let mut probes = Probes::new(WorkerIndex(0), 1);
    assert!(run(&mut probes, &without, &board, &mut now, 30, |_| None).is_empty());
    assert_eq!(probes.next_deadline(), None);
}

#[test]
fn a_worker_sends_no_burst() {
    let servers: String = (0..4000)
        .map(|n| {
            let (third, last) = (n / 250, n % 250 + 1);
            format!("{{ name = \"s{n}\", address = \"198.19.{third}.{last}:5060\" }},\n")
        })
        .collect();
    let (head, tail) = TEXT.split_once("servers = [").unwrap();
    let (_, tail) = tail.split_once("]\n    [pools").unwrap();
    let text = format!("{head}servers = [{servers}]\n    [pools{tail}");
    let plan = plan_of(&text, &Standing::new());
    let board = Board::new();
    let mut probes = Probes::new(WorkerIndex(0), 1);
    let mut now = start();
    let log = run(&mut probes, &plan, &board, &mut now, 8, |_| Some(200));
    let mut seconds = [0; 8];
    for (at, _) in &log {
        seconds[usize::try_from(at.since(start()).as_secs()).unwrap()] += 1;
    }
    // 4,000 servers every 4 s.
    for count in seconds {
        assert!((850..1150).contains(&count), "{seconds:?}");
    }
    // All are due at once: the worker was stopped.
    now += Duration::from_secs(60);
    let mut out: Vec<(Flow, Vec<u8>)> = Vec::new();
    let next = probes.on_timer(&plan, &board, now, &mut out);
    assert_eq!(out.len(), PROBES_PER_TURN);
    assert_eq!(next, Some(now + TURN));
}

/// A probe to s1 and the response to it.
fn exchange(plan: &Plan, board: &Board) -> (Flow, Vec<u8>, Vec<u8>) {
    let mut out: Vec<(Flow, Vec<u8>)> = Vec::new();
    let mut probes = Probes::new(WorkerIndex(0), 1);
    let mut now = start();
    let (flow, request) = loop {
        now = probes.on_timer(plan, board, now, &mut out).unwrap();
        let found = out
            .iter()
            .find(|(flow, _)| flow.peer.ip().to_string() == "198.18.1.11");
        if let Some(found) = found {
            break found.clone();
        }
    };
    let text = String::from_utf8(request.clone()).unwrap();
    let rows = text.split_once("\r\n").unwrap().1;
    let response = format!("SIP/2.0 200 OK\r\n{rows}").replace("Max-Forwards: 70\r\n", "");
    (flow, request, response.into_bytes())
}

fn answered(plan: &Plan, board: &Board, bytes: &[u8], flow: &Flow) -> Option<ServerIndex> {
    let mut message = Message::new();
    let _whole = message.parse(bytes);
    on_response(plan, board, &message, bytes, flow, start())
}

#[test]
fn the_answer_of_the_server_counts_and_nobody_elses() {
    let (plan, board) = (plan(), Board::new());
    let (flow, _, response) = exchange(&plan, &board);
    let text = String::from_utf8(response.clone()).unwrap();
    let s1 = ServerIndex(0);
    let elsewhere = Flow {
        peer: "198.18.1.13:5060".parse().unwrap(),
        ..flow
    };
    let forged = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1).into_bytes()
    };
    let via = text.split("\r\n").nth(1).unwrap();
    let below = format!("{via}\r\nVia: SIP/2.0/UDP 198.18.9.9;branch=z9hG4bK7");
    let mac = via.split(";v=").nth(1).unwrap();
    let other: String = mac.chars().rev().collect();
    for bytes in [
        forged("CSeq: 1 ", "CSeq: 2 "),
        forged("1 OPTIONS", "1 INVITE"),
        forged(via, &below),
        forged(mac, &other),
        forged("z9hG4bKt0", "z9hG4bKs0"),
        forged("z9hG4bKt0", "z9hG4bKt1"),
    ] {
        assert_eq!(answered(&plan, &board, &bytes, &flow), None);
    }
    assert_eq!(answered(&plan, &board, &response, &elsewhere), None);
    assert_eq!(board.probe(s1).answered, 0);
    let trying = forged("200 OK", "100 Trying");
    assert_eq!(answered(&plan, &board, &trying, &flow), Some(s1));
    assert_eq!(board.probe(s1).answered, 0);
    // A response may come from another port, and its parameters in capital letters.
    let loud = forged(mac, &mac.to_uppercase());
    let port = Flow {
        peer: "198.18.1.11:32768".parse().unwrap(),
        ..flow
    };
    assert_eq!(answered(&plan, &board, &loud, &port), Some(s1));
    assert_eq!((board.probe(s1).answered, board.probe(s1).status), (1, 200));
}

#[test]
fn a_probe_that_cannot_be_delivered_has_failed_at_once() {
    let (plan, board) = (plan(), Board::new());
    let (flow, request, _) = exchange(&plan, &board);
    let mut message = Message::new();
    message.parse(&request).unwrap();
    let told = on_unreachable(&plan, &board, &message, &request, &flow, start());
    assert_eq!(told, Some(ServerIndex(0)));
    let probe = board.probe(ServerIndex(0));
    assert_eq!((probe.answered, probe.status), (1, 0));
}
