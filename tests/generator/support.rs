//! What the generator's tests share: a server on a thread, a relay that loses or misroutes.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use viaduct::generator::{
    AnswerReport, ByeFrom, Limit, Load, Report, Target, Timers, UacConfig, UasConfig, uac, uas,
};

/// T1 of a test that waits for retransmissions.
pub(crate) const FAST: Timers = Timers {
    t1: Duration::from_millis(50),
    t2: Duration::from_millis(400),
};

/// An answering server on a thread of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<AnswerReport>>,
}

impl Server {
    pub(crate) fn start(host: &str, name: &str, adjust: impl FnOnce(&mut UasConfig)) -> Self {
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
                server.run(&stop).unwrap()
            }
        });
        Self {
            address: receiver.recv().unwrap(),
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn target(&self) -> Target {
        target(self.address)
    }

    /// Ends it, once what is on its way has arrived.
    pub(crate) fn finish(mut self) -> AnswerReport {
        std::thread::sleep(Duration::from_millis(300));
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn target(address: SocketAddr) -> Target {
    format!("sip:service@{address}").parse().unwrap()
}

/// A call that is hung up at once.
pub(crate) fn call() -> Load {
    held_call(Duration::ZERO, ByeFrom::Caller)
}

pub(crate) fn held_call(hold: Duration, bye_from: ByeFrom) -> Load {
    Load::Call {
        hold,
        bye_from,
        methods: Vec::new(),
        cancel_after: None,
    }
}

pub(crate) fn config(target: Target, load: Load, calls: u64, rate: f64) -> UacConfig {
    UacConfig {
        rate,
        limit: Limit {
            calls: Some(calls),
            duration: None,
        },
        ..UacConfig::new(target, load)
    }
}

pub(crate) fn run(config: &UacConfig) -> Report {
    uac::run(config, &AtomicBool::new(false)).unwrap()
}

/// What a relay does with a datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relayed {
    To(SocketAddr),
    Lost,
}

/// A relay on the path of every message of one caller, as a NAT would be: it adds no Via, but puts
/// itself in the Record-Route of each INVITE.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Relay {
    /// `choose` gives the fate of the nth datagram, from 0; responses and what servers send go to
    /// the caller whatever address it names.
    pub(crate) fn start(
        servers: &[SocketAddr],
        mut choose: impl FnMut(u64, &[u8]) -> Relayed + Send + 'static,
    ) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        let back = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = front.local_addr().unwrap();
        for socket in [&front, &back] {
            socket.set_nonblocking(true).unwrap();
        }
        let servers = servers.to_vec();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let (mut caller, mut count, mut lost) = (None, 0, 0);
                let mut buffer = vec![0; 65_536];
                while !stop.load(Ordering::Relaxed) {
                    let mut idle = true;
                    for socket in [&front, &back] {
                        let Ok((len, from)) = socket.recv_from(&mut buffer) else {
                            continue;
                        };
                        idle = false;
                        let from_server = servers.contains(&from);
                        if !from_server {
                            caller = Some(from);
                        }
                        let bytes = recorded(&buffer[..len], address);
                        let fate = choose(count, &bytes);
                        count += 1;
                        match (fate, from_server, caller) {
                            (Relayed::Lost, ..) => lost += 1,
                            (Relayed::To(_), true, Some(caller)) => {
                                front.send_to(&bytes, caller).unwrap();
                            }
                            (Relayed::To(server), ..) => {
                                back.send_to(&bytes, server).unwrap();
                            }
                        }
                    }
                    if idle {
                        std::thread::sleep(Duration::from_micros(50));
                    }
                }
                lost
            }
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it; how many datagrams it lost.
    pub(crate) fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// An INVITE with a Record-Route of the relay, anything else as it is.
fn recorded(bytes: &[u8], relay: SocketAddr) -> Vec<u8> {
    let line_end = bytes.windows(2).position(|pair| pair == b"\r\n");
    match line_end {
        Some(end) if bytes.starts_with(b"INVITE ") => {
            let row = format!("\r\nRecord-Route: <sip:relay@{relay};lr>");
            [&bytes[..end], row.as_bytes(), &bytes[end..]].concat()
        }
        _ => bytes.to_vec(),
    }
}

/// A server by script: what it says to each request is up to the test.
pub(crate) struct Script {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Script {
    /// `answer` gives the responses to a request, each as (status line end, To tag, further rows).
    pub(crate) fn start(
        mut answer: impl FnMut(&str, &str) -> Vec<(&'static str, &'static str, String)> + Send + 'static,
    ) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut seen = Vec::new();
                let mut buffer = vec![0; 65_536];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((len, from)) = socket.recv_from(&mut buffer) else {
                        continue;
                    };
                    let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
                    let method = text.split(' ').next().unwrap();
                    for (status, tag, rows) in answer(method, &text) {
                        let response = response(&text, status, tag, &rows);
                        socket.send_to(response.as_bytes(), from).unwrap();
                    }
                    seen.push(text);
                }
                seen
            }
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it; the requests it received.
    pub(crate) fn finish(mut self) -> Vec<String> {
        std::thread::sleep(Duration::from_millis(300));
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The value of a header of a request in the plain layout.
pub(crate) fn header<'a>(text: &'a str, name: &str) -> &'a str {
    let row = text.lines().find(|line| line.starts_with(name)).unwrap();
    row[name.len()..].trim_start_matches(':').trim()
}

fn response(request: &str, status: &str, tag: &str, rows: &str) -> String {
    let copied = ["Via", "From", "Call-ID", "CSeq"]
        .map(|name| format!("{name}: {}\r\n", header(request, name)))
        .concat();
    let to = header(request, "To");
    let to = match to.contains(";tag=") {
        true => to.to_owned(),
        false => format!("{to};tag={tag}"),
    };
    format!("SIP/2.0 {status}\r\n{copied}To: {to}\r\n{rows}Content-Length: 0\r\n\r\n")
}
