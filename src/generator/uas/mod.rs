//! The answering server: a user agent server that takes every call and counts what reaches it.
//!
//! Its To tag is its name and a keyed hash of Call-ID and From tag, so it recognises its own dialogs
//! without remembering them: a request inside a dialog with another tag was meant for another
//! server, and is answered 481 and counted as `stray`. State is held for what SIP needs it for:
//! ringing, repeating a final response until its ACK, hanging up.

mod answers;
mod held;

use core::hash::Hasher as _;
use core::sync::atomic::{AtomicBool, Ordering};

use siphasher::sip::SipHasher13;

use self::held::{Ended, HeldCalls, State};
use super::config::{GeneratorError, UasConfig};
use super::digest::Verifier;
use super::identity::hex;
use super::progress::Progress;
use super::report::AnswerReport;
use super::scenario::session_description;
use super::sipp;
use super::stats::{Messages, Stray};
use super::threads;
use super::transport::{self, Losses, Opened, Sender};
use super::usage::Usage;
use super::wheel::{Timed, Timekeeper, Wheel};
use crate::net::SocketAddr;
use crate::sip::Message;
use crate::sys::clock;
use crate::time::{Duration, Instant};

/// Longest sleep: a stop is noticed within it.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// A dialog that nothing is heard of for so long is forgotten.
const DIALOG_LIFE: Duration = Duration::from_secs(3600);
/// RFC 3261 §13.3.1.1: without a provisional response in 200 ms the server says 100.
const TRYING_AFTER: Duration = Duration::from_millis(200);

/// Answers until `stop` is set, or for the configured time, and reports.
///
/// # Errors
/// What kept it from starting.
pub fn run(config: &UasConfig, stop: &AtomicBool) -> Result<AnswerReport, GeneratorError> {
    Server::bind(config)?.run(stop)
}

/// A server whose addresses are open.
pub struct Server<'a> {
    config: &'a UasConfig,
    opened: Vec<Opened>,
}

impl<'a> Server<'a> {
    /// Opens the addresses: from now on requests wait for [`Self::run`].
    ///
    /// # Errors
    /// An address that cannot be had.
    pub fn bind(config: &'a UasConfig) -> Result<Self, GeneratorError> {
        let opened = transport::open(&config.datapath, &config.listen, config.threads, None)?;
        Ok(Self { config, opened })
    }

    /// The addresses bound, with the port that port 0 became.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let opened = self.opened.iter();
        opened.flat_map(Opened::addresses).copied().collect()
    }

    /// Answers until `stop` is set, or for the configured time, and reports.
    ///
    /// # Errors
    /// What kept a thread from starting.
    pub fn run(self, stop: &AtomicBool) -> Result<AnswerReport, GeneratorError> {
        let config = self.config;
        if let Some(play) = &config.scenario {
            return sipp::answer(config, play, self.opened, stop);
        }
        let tallies = threads::run_all(self.opened, |(thread, opened)| {
            config.pin(thread);
            run_thread(config, thread, opened, stop)
        })?;
        let mut tallies = tallies.into_iter();
        let Some(mut whole) = tallies.next() else {
            return Ok(AnswerReport::default());
        };
        tallies.for_each(|tally| whole.merge(&tally));
        Ok(whole.report(&config.name))
    }
}

/// Answers at the addresses of one thread.
fn run_thread(
    config: &UasConfig,
    thread: u64,
    opened: Opened,
    stop: &AtomicBool,
) -> Result<Tally, GeneratorError> {
    let (mut receiver, sender) = opened.split()?;
    let usage = Usage::start();
    let start = clock::now();
    let end = config.duration.map(|duration| start + duration);
    let mut uas = Uas::new(config, sender, start);
    let mut progress = Progress::new(config.progress && thread == 0, start);
    loop {
        let now = clock::now();
        uas.fire(now);
        uas.sender.flush();
        if stop.load(Ordering::Relaxed) || end.is_some_and(|end| end <= now) {
            break;
        }
        if progress.is_due(now) {
            progress.write(now, &uas.line());
        }
        let until = uas.wheel.sleep_until(now, SLEEP_MAX);
        let until = end.map_or(until, |end| until.min(end));
        if receiver.wait(until.since(now)) {
            let now = clock::now();
            receiver.receive(|bytes, address, peer| uas.receive(bytes, address, peer, now));
        }
    }
    progress.end();
    let mut tally = uas.tally();
    tally.cpu = usage.cpu_share(receiver.idle());
    tally.losses = uas.sender.losses();
    let damaged = tally.losses.damaged;
    tally.messages.strays(Stray::Checksum, damaged);
    Ok(tally)
}

/// Counts that only a server has.
#[derive(Clone, Debug, Default)]
struct Counts {
    calls: u64,
    answered: u64,
    ended: u64,
    cancelled: u64,
    unanswered: u64,
    stray: u64,
}

impl Counts {
    fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.answered += other.answered;
        self.ended += other.ended;
        self.cancelled += other.cancelled;
        self.unanswered += other.unanswered;
        self.stray += other.stray;
    }
}

/// The server's state.
struct Uas<'a> {
    config: &'a UasConfig,
    sender: Sender,
    held: HeldCalls,
    ended: Ended,
    wheel: Wheel,
    verifier: Option<Verifier>,
    counts: Counts,
    messages: Messages,
    /// Taken out while a message is read.
    message: Option<Box<Message>>,
    /// Reads a stored INVITE again; taken out meanwhile.
    stored: Option<Box<Message>>,
    /// Contact, Server and Content-Type rows of a 2xx to INVITE, by socket.
    dialog_rows: Vec<Vec<u8>>,
    /// Contact and Server rows without a body, by socket.
    plain_rows: Vec<Vec<u8>>,
    bodies: Vec<Vec<u8>>,
    tag: Vec<u8>,
}

impl<'a> Uas<'a> {
    fn new(config: &'a UasConfig, sender: Sender, start: Instant) -> Self {
        let addresses = sender.addresses().iter();
        let plain_rows: Vec<Vec<u8>> = addresses
            .clone()
            .map(|address| {
                let name = &config.name;
                format!("Contact: <sip:{name}@{address}>\r\nServer: viaduct-answer/{name}\r\n")
                    .into_bytes()
            })
            .collect();
        let with_type = |rows: &Vec<u8>| [&rows[..], b"Content-Type: application/sdp\r\n"].concat();
        let verifier = config.credentials.clone().map(|credentials| {
            Verifier::new(credentials, "viaduct", config.secret).with_nonce_life(config.nonce_life)
        });
        Self {
            config,
            held: HeldCalls::default(),
            ended: Ended::new(start),
            wheel: Wheel::new(start),
            verifier,
            counts: Counts::default(),
            messages: Messages::default(),
            message: Some(Box::new(Message::new())),
            stored: Some(Box::new(Message::new())),
            dialog_rows: plain_rows.iter().map(with_type).collect(),
            plain_rows,
            bodies: addresses
                .map(|address| session_description(address.ip(), None))
                .collect(),
            tag: Vec::new(),
            sender,
        }
    }

    /// The key of a Call-ID.
    fn id_of(&self, call_id: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.config.secret, 1);
        hasher.write(call_id);
        hasher.finish()
    }

    /// Makes the To tag of a dialog in `self.tag`.
    fn make_tag(&mut self, call_id: &[u8], caller_tag: &[u8]) {
        write_tag(self.config, call_id, caller_tag, &mut self.tag);
    }

    /// Forgets a call that is over, but not that it was.
    fn forget(&mut self, index: u32, now: Instant) {
        if let Some(held) = self.held.at(index) {
            self.ended.insert(held.id, held.cseq, now);
            self.held.remove(index);
        }
    }

    /// What the progress line says.
    fn line(&self) -> String {
        format!(
            "calls {}  answered {}  ended {}  held {}  stray {}  resent {}",
            self.counts.calls,
            self.counts.answered,
            self.counts.ended,
            self.held.count(),
            self.counts.stray,
            self.messages.resent,
        )
    }

    fn tally(&self) -> Tally {
        Tally {
            counts: self.counts.clone(),
            messages: self.messages.clone(),
            in_progress: u64::try_from(self.held.count()).unwrap_or(u64::MAX),
            losses: Losses::default(),
            cpu: 0.0,
        }
    }
}

/// What one thread has counted, and then all.
struct Tally {
    counts: Counts,
    messages: Messages,
    in_progress: u64,
    losses: Losses,
    /// Of the busiest thread.
    cpu: f64,
}

impl Tally {
    fn merge(&mut self, other: &Self) {
        self.counts.merge(&other.counts);
        self.messages.merge(&other.messages);
        self.in_progress += other.in_progress;
        self.losses.merge(other.losses);
        self.cpu = self.cpu.max(other.cpu);
    }

    fn report(&self, name: &str) -> AnswerReport {
        let mut report = AnswerReport {
            name: name.to_owned(),
            calls: self.counts.calls,
            answered: self.counts.answered,
            ended: self.counts.ended,
            cancelled: self.counts.cancelled,
            unanswered: self.counts.unanswered,
            stray: self.counts.stray,
            in_progress: self.in_progress,
            traffic: self.messages.traffic(),
            cpu: self.cpu,
            receive_drops: self.losses.receive_drops,
            send_refused: self.losses.send_refused,
            ..AnswerReport::default()
        };
        report.judge();
        report
    }
}

impl Timekeeper for Uas<'_> {
    fn wheel(&mut self) -> &mut Wheel {
        &mut self.wheel
    }

    fn timed(&mut self, index: u32) -> Option<Timed<'_>> {
        let held = self.held.at(index)?;
        Some(Timed {
            generation: held.generation.into(),
            due: held.due(),
            armed: &mut held.armed,
        })
    }

    fn on_timer(&mut self, index: u32, now: Instant) {
        let Some(held) = self.held.at(index) else {
            return;
        };
        if held.deadline.is_some_and(|deadline| deadline <= now) {
            match held.state {
                State::Trying => self.ring(index),
                State::Ringing => self.answer(index, now),
                State::Established if self.config.bye_after.is_some() => self.hang_up(index, now),
                // No ACK, or no answer to a BYE of ours, in 64·T1.
                State::Answered | State::HangingUp => {
                    self.counts.unanswered += 1;
                    self.forget(index, now);
                }
                State::Established => self.forget(index, now),
            }
            return;
        }
        if held
            .resend
            .as_mut()
            .is_some_and(|resend| resend.is_due(now))
        {
            self.messages.resent += 1;
            match held.state {
                State::HangingUp => self.send_bye(index),
                _ => self.respond_again(index),
            }
        }
    }
}

/// Writes the To tag of a dialog: name, `~`, keyed hash of Call-ID and caller's tag.
fn write_tag(config: &UasConfig, call_id: &[u8], caller_tag: &[u8], out: &mut Vec<u8>) {
    let mut hasher = SipHasher13::new_with_keys(config.secret, 2);
    hasher.write(call_id);
    hasher.write(b"\n");
    hasher.write(caller_tag);
    out.clear();
    out.extend_from_slice(config.name.as_bytes());
    out.push(super::NAME_END);
    out.extend_from_slice(&hex(hasher.finish()));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::generator::identity::{CallKey, Identity};
    use crate::generator::scenario::{Request, Scenario, Shape};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever is asked, whole, cut, changed or made up, the server goes on, and what it
        /// holds is what it took and did not end.
        #[test]
        fn no_datagram_makes_the_server_panic(
            requests in prop::collection::vec(
                (0u64..8, 0usize..8, 1u32..4, any::<bool>(), 0usize..2000, 0usize..1200, any::<u8>()),
                1..80,
            ),
            noise: Vec<u8>,
        ) {
            let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
            let config = UasConfig {
                bye_after: Some(Duration::from_millis(1)),
                credentials: Some("a:b".parse().unwrap()),
                calls_max: 6,
                ..UasConfig::new(vec![local], "x")
            };
            let mut opened = transport::open(&config.datapath, &config.listen, None, None).unwrap();
            // Answers go to the server itself, where nobody reads them.
            let peer = opened[0].addresses()[0];
            let (_, sender) = opened.remove(0).split().unwrap();
            let start = clock::now();
            let mut uas = Uas::new(&config, sender, start);
            let scenario = Scenario::new(Identity::new(1, ""), &[], &[peer], 9, None);
            uas.receive(&noise, 0, peer, start);
            let mut now = start;
            for (serial, method, cseq, in_dialog, cut, flipped, byte) in requests {
                let method = ["INVITE", "ACK", "BYE", "CANCEL", "REGISTER", "OPTIONS", "INFO", "X"][method];
                let key = CallKey { serial, index: 0 };
                let mut to = b"<sip:b@127.0.0.1>".to_vec();
                if in_dialog {
                    let mut call_id = Vec::new();
                    let host = peer.ip().to_string();
                    scenario.identity.write_call_id(key, host.as_bytes(), &mut call_id);
                    uas.make_tag(&call_id, &scenario.identity.tag(serial));
                    to.extend_from_slice(b";tag=");
                    to.extend_from_slice(&uas.tag);
                }
                let mut bytes = Vec::new();
                let request = Request {
                    shape: Shape::Opening,
                    method,
                    uri: b"sip:b@127.0.0.1",
                    to: &to,
                    cseq,
                    transaction: 1,
                    routes: b"",
                    rows: b"Record-Route: <sip:127.0.0.1:9>\r\n",
                    key,
                    source: 0,
                };
                scenario.write(&request, &mut bytes);
                if let Some(flipped) = bytes.get_mut(flipped).filter(|_| byte % 2 == 0) {
                    *flipped = byte;
                }
                bytes.truncate(cut.max(300));
                uas.receive(&bytes, 0, peer, now);
                now += Duration::from_millis(u64::from(byte) * 4);
                uas.fire(now);
                prop_assert!(uas.held.count() <= 6);
            }
            // Every held call ends by itself.
            for _ in 0..4000 {
                now += Duration::from_secs(1);
                uas.fire(now);
            }
            let report = uas.tally().report("x");
            prop_assert_eq!(report.in_progress, 0);
            prop_assert!(report.ended + report.cancelled + report.unanswered <= report.calls + 8);
            uas.sender.flush();
        }
    }
}
