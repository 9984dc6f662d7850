//! The generator against its own answering server, over loopback and through a relay that loses.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use viaduct::generator::{
    AnswerReport, Limit, Load, Report, Target, UacConfig, UasConfig, uac, uas,
};

/// An answering server on a thread of its own.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<AnswerReport>>,
}

impl Server {
    fn start(host: &str, name: &str, adjust: impl FnOnce(&mut UasConfig)) -> Self {
        let address: SocketAddr = format!("{host}:0").parse().unwrap();
        let mut config = UasConfig::new(vec![address], name);
        adjust(&mut config);
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let server = uas::Server::bind(&config).unwrap();
                sender.send(server.addresses()[0]).unwrap();
                server.run(&stop)
            }
        });
        Self {
            address: receiver.recv().unwrap(),
            stop,
            thread: Some(thread),
        }
    }

    fn target(&self) -> Target {
        format!("sip:service@{}", self.address).parse().unwrap()
    }

    fn finish(mut self) -> AnswerReport {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn call() -> Load {
    Load::Call {
        hold: Duration::ZERO,
        bye_from: viaduct::generator::ByeFrom::Caller,
        methods: Vec::new(),
        cancel_after: None,
    }
}

fn config(target: Target, load: Load, calls: u64, rate: f64) -> UacConfig {
    UacConfig {
        rate,
        limit: Limit {
            calls: Some(calls),
            duration: None,
        },
        ..UacConfig::new(target, load)
    }
}

fn run(config: &UacConfig) -> Report {
    uac::run(config, &AtomicBool::new(false)).unwrap()
}

fn two_thousand_calls(host: &str) {
    let server = Server::start(host, "server1", |_| {});
    let report = run(&config(server.target(), call(), 2000, 1000.0));
    let answers = server.finish();
    println!("{report}\n{answers}");
    assert_eq!(
        (report.offered, report.answered, report.failed),
        (2000, 2000, 0)
    );
    assert_eq!(report.servers.len(), 1);
    assert_eq!(
        (report.servers[0].name.as_str(), report.servers[0].calls),
        ("server1", 2000)
    );
    assert_eq!(report.strays.len(), 0);
    assert_eq!(
        (answers.calls, answers.answered, answers.ended),
        (2000, 2000, 2000)
    );
    assert_eq!(
        (answers.stray, answers.in_progress, answers.unanswered),
        (0, 0, 0)
    );
    assert_eq!(answers.strays.len(), 0);
}

#[test]
fn two_thousand_calls_over_ipv4() {
    two_thousand_calls("127.0.0.1");
}

#[test]
fn two_thousand_calls_over_ipv6() {
    two_thousand_calls("[::1]");
}
