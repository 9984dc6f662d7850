//! SIPp's scenarios, played by viaduct against SIPp itself: what SIPp prints with `-sd` runs as it is.
//!
//! Loopback, no privileges. Through a balancer they run in `scripts/interop sipp`.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use viaduct::generator::sipp::{Play, Program};
use viaduct::generator::{
    AnswerReport, Limit, Load, Report, Timers, UacConfig, UasConfig, uac, uas,
};

const CALLS: u64 = 1000;
const RATE: f64 = 500.0;

/// SIPp's own scenarios are its text: the installed one prints them.
fn stock(name: &str) -> Play {
    let output = Command::new("sipp").args(["-sd", name]).output().unwrap();
    let program: Program = String::from_utf8(output.stdout).unwrap().parse().unwrap();
    Play::new(program, None, Duration::ZERO).unwrap()
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
}

fn registration() -> Play {
    let table = data("data/sipp/users.csv");
    Play::load(
        &data("data/sipp/uac_register.xml"),
        Some(&table),
        Duration::ZERO,
    )
    .unwrap()
}

fn free_address() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

/// A SIPp of our own, ended with the test.
struct Sipp(Child);

impl Sipp {
    fn start(address: SocketAddr, arguments: &[&str]) -> Self {
        let port = address.port().to_string();
        let child = Command::new("sipp")
            .args([
                "-i",
                "127.0.0.1",
                "-p",
                &port,
                "-nostdin",
                "-buff_size",
                "4194304",
            ])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sipp = Self(child);
        // Once it has the port, nobody else can bind it.
        for _ in 0..500 {
            if UdpSocket::bind(address).is_err() {
                return sipp;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("sipp does not listen");
    }

    /// Its exit status: 0 if all its calls were good.
    fn finish(mut self) -> Option<i32> {
        for _ in 0..3000 {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Sipp {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn played(address: SocketAddr, play: Play, calls: u64, rate: f64) -> Report {
    let target = format!("sip:service@{address}").parse().unwrap();
    let config = UacConfig {
        rate,
        limit: Limit {
            calls: Some(calls),
            duration: None,
        },
        drain: Some(Duration::from_secs(20)),
        ..UacConfig::new(target, Load::Scenario(Arc::new(play)))
    };
    let report = uac::run(&config, &AtomicBool::new(false)).unwrap();
    println!("{report}");
    report
}

/// Our answering side on a thread.
struct Answering {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<AnswerReport>,
}

fn answering(adjust: impl FnOnce(&mut UasConfig)) -> Answering {
    let mut config = UasConfig::new(vec!["127.0.0.1:0".parse().unwrap()], "ours");
    adjust(&mut config);
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let server = uas::Server::bind(&config).unwrap();
            sender.send(server.addresses()[0]).unwrap();
            server.run(&stop).unwrap()
        }
    });
    Answering {
        address: receiver.recv().unwrap(),
        stop,
        thread,
    }
}

impl Answering {
    fn finish(self) -> AnswerReport {
        std::thread::sleep(Duration::from_millis(300));
        self.stop.store(true, Ordering::Relaxed);
        let report = self.thread.join().unwrap();
        println!("{report}");
        report
    }
}

/// No call fails, on neither side; SIPp says so itself by its exit status.
fn against_sipp(ours: &str, theirs: &str, calls: u64) -> Report {
    let address = free_address();
    let count = calls.to_string();
    let sipp = Sipp::start(address, &["-sn", theirs, "-m", &count]);
    let report = played(address, stock(ours), calls, RATE);
    assert_eq!(
        (report.offered, report.answered, report.failed),
        (calls, calls, 0)
    );
    assert_eq!(sipp.finish(), Some(0), "SIPp saw failed calls");
    report
}

#[test]
fn the_stock_uac_calls_sipp() {
    let report = against_sipp("uac", "uas", CALLS);
    assert_eq!(report.response_times_ms.len(), 1);
    assert!(report.response_times_ms["1"].p50 > 0.0);
    assert!(report.timeline.csv().lines().count() > 2);
}

/// Searches with groups, variables in a message, response times from one step to another.
#[test]
fn the_stock_regexp_scenario_calls_sipp() {
    let report = against_sipp("regexp", "uas", 300);
    assert!(
        report.response_times_ms["1"].p50 >= 1000.0,
        "its pause is a second"
    );
}

/// SIPp's uac against the stock uas scenario of ours.
#[test]
fn sipp_calls_the_stock_uas() {
    let server = answering(|config| config.scenario = Some(Arc::new(stock("uas"))));
    let (target, count) = (server.address.to_string(), CALLS.to_string());
    let arguments = [
        "-sn",
        "uac",
        "-m",
        &count,
        "-r",
        "500",
        "-l",
        "5000",
        "-recv_timeout",
        "10000",
        &target,
    ];
    let sipp = Sipp::start(free_address(), &arguments);
    assert_eq!(sipp.finish(), Some(0), "SIPp saw failed calls");
    let report = server.finish();
    assert_eq!(
        (report.calls, report.ended, report.failed),
        (CALLS, CALLS, 0)
    );
}

/// Branches, labels and conditions, ours on both sides: a call of one scenario that meets the other.
#[test]
fn the_stock_branch_scenarios_meet_each_other() {
    let server = answering(|config| config.scenario = Some(Arc::new(stock("branchs"))));
    let report = played(server.address, stock("branchc"), 30, 100.0);
    let answers = server.finish();
    assert_eq!((report.offered, report.failed), (30, 0));
    assert_eq!((answers.calls, answers.failed), (30, 0));
}

/// One file, played by SIPp and by us, against a registrar that checks the digest.
#[test]
fn a_phone_registers_with_a_password() {
    let auth = |config: &mut UasConfig| config.credentials = Some("alice:secret".parse().unwrap());
    let server = answering(auth);
    let report = played(server.address, registration(), CALLS, RATE);
    assert_eq!((report.offered, report.failed), (CALLS, 0));
    assert_eq!(report.traffic.responses_received["401"], 2 * CALLS);
    assert_eq!(report.traffic.responses_received["200"], 2 * CALLS);
    assert!(report.response_times_ms.contains_key("registered"));

    let (file, table) = (
        data("data/sipp/uac_register.xml"),
        data("data/sipp/users.csv"),
    );
    let target = server.address.to_string();
    let arguments = [
        "-sf",
        file.to_str().unwrap(),
        "-inf",
        table.to_str().unwrap(),
        "-m",
        "50",
        "-r",
        "50",
        &target,
    ];
    assert_eq!(Sipp::start(free_address(), &arguments).finish(), Some(0));
    server.finish();
}

/// A wrong password is a failed call, not a quiet one.
#[test]
fn a_wrong_password_fails() {
    let server = answering(|config| config.credentials = Some("alice:other".parse().unwrap()));
    let report = played(server.address, registration(), 20, 200.0);
    assert_eq!(report.failed, 20);
    assert_eq!(report.failures["challenge_401"], 20);
    server.finish();
}

/// RFC 3261 §17: what is lost is sent again, from both sides, as `retrans` says.
#[test]
fn lost_messages_are_sent_again() {
    let scenario = |name: &str| {
        let output = Command::new("sipp").args(["-sd", name]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        // One in five requests and final responses never leaves.
        let text = text.replace("retrans=\"500\"", "retrans=\"50\" lost=\"20\"");
        Play::new(text.parse().unwrap(), None, Duration::ZERO).unwrap()
    };
    let timers = Timers {
        t1: Duration::from_millis(50),
        t2: Duration::from_millis(400),
    };
    let server = answering(|config| {
        config.scenario = Some(Arc::new(scenario("uas")));
        config.timers = timers;
    });
    let report = played(server.address, scenario("uac"), 300, 300.0);
    let answers = server.finish();
    assert_eq!((report.offered, report.failed), (300, 0));
    assert!(
        report.traffic.retransmissions > 50,
        "{}",
        report.traffic.retransmissions
    );
    assert!(answers.traffic.retransmissions > 20);
    assert_eq!((answers.calls, answers.failed), (300, 0));
}

/// A refusal that the scenario does not expect is acknowledged, and fails the call by its name.
#[test]
fn an_unexpected_refusal_fails_the_call_and_is_acknowledged() {
    let server = answering(|config| config.reject = Some(486));
    let report = played(server.address, stock("uac"), 50, 500.0);
    let answers = server.finish();
    assert_eq!(report.failed, 50);
    assert_eq!(report.failures["invite_486"], 50);
    assert_eq!(answers.traffic.requests_received["ACK"], 50);
    assert_eq!(answers.unanswered, 0);
}

/// Every scenario of the interop runs can be played by us too.
#[test]
fn the_interop_scenarios_are_read() {
    let mut count = 0;
    for entry in std::fs::read_dir(data("interop/sipp")).unwrap() {
        let path = entry.unwrap().path();
        let play = Play::load(&path, None, Duration::ZERO).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert_eq!(
            play.program().is_caller(),
            name.starts_with("uac"),
            "{name}"
        );
        count += 1;
    }
    assert!(count >= 6);
}

/// The route set of a recorded route, both ends played by us, through a proxy that only records.
#[test]
fn a_recorded_route_is_followed() {
    let load = |name: &str| {
        Play::load(
            &data(&format!("interop/sipp/{name}.xml")),
            None,
            Duration::ZERO,
        )
        .unwrap()
    };
    let server = answering(|config| config.scenario = Some(Arc::new(load("uas_record_route"))));
    let proxy = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (address, server_address) = (proxy.local_addr().unwrap(), server.address);
    let caller = std::thread::spawn(move || played(address, load("uac_record_route"), 20, 100.0));
    proxy
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let (mut buffer, mut caller_address, mut routed) = ([0; 4096], None, 0);
    // The smallest proxy: one Record-Route on top of the INVITE, and the Vias as they are.
    while let Ok((len, from)) = proxy.recv_from(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        if from == server_address {
            proxy
                .send_to(text.as_bytes(), caller_address.unwrap())
                .unwrap();
            continue;
        }
        caller_address = Some(from);
        let sent = match text.split_once("\r\n") {
            Some((line, rest)) if line.starts_with("INVITE") => {
                format!("{line}\r\nRecord-Route: <sip:{address};lr>\r\n{rest}")
            }
            _ => {
                assert!(
                    text.contains(&format!("\r\nRoute: <sip:{address};lr>\r\n")),
                    "{text}"
                );
                assert!(
                    text.contains(&format!(" sip:{server_address};transport=UDP SIP/2.0\r\n")),
                    "{text}"
                );
                routed += 1;
                text
            }
        };
        proxy.send_to(sent.as_bytes(), server_address).unwrap();
    }
    let report = caller.join().unwrap();
    assert_eq!((report.offered, report.failed), (20, 0));
    assert_eq!(routed, 40);
    assert_eq!(server.finish().ended, 20);
}
