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
use std::rc::Rc;

use siphasher::sip::SipHasher13;

use self::held::{Ended, Held, HeldCalls, State};
use super::config::{GeneratorError, UasConfig};
use super::digest::Verifier;
use super::identity::hex;
use super::progress::Progress;
use super::report::AnswerReport;
use super::scenario::session_description;
use super::socket::{Receiver, Sender, Sockets};
use super::stats::Messages;
use super::usage::Usage;
use super::wheel::Wheel;
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
    Ok(Server::bind(config)?.run(stop))
}

/// A server whose sockets are open.
pub struct Server<'a> {
    config: &'a UasConfig,
    sockets: Rc<Sockets>,
    receiver: Receiver,
}

impl<'a> Server<'a> {
    /// Opens the sockets: from now on requests wait for [`Self::run`].
    ///
    /// # Errors
    /// An address that cannot be had.
    pub fn bind(config: &'a UasConfig) -> Result<Self, GeneratorError> {
        let sockets = Sockets::bind(&config.listen)?;
        let receiver = Receiver::new(&sockets).map_err(|error| GeneratorError::System {
            what: "epoll",
            error,
        })?;
        Ok(Self {
            config,
            sockets,
            receiver,
        })
    }

    /// The addresses bound, with the port that port 0 became.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.addresses().to_vec()
    }

    /// Answers until `stop` is set, or for the configured time, and reports.
    pub fn run(mut self, stop: &AtomicBool) -> AnswerReport {
        let usage = Usage::start();
        let start = clock::now();
        let end = self.config.duration.map(|duration| start + duration);
        let mut uas = Uas::new(self.config, &self.sockets, start);
        let mut progress = Progress::new(self.config.progress, start);
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
            if self.receiver.wait(until.since(now)) {
                let now = clock::now();
                self.receiver
                    .receive(|bytes, socket, peer| uas.receive(bytes, socket, peer, now));
            }
        }
        progress.end();
        let mut report = uas.report();
        report.cpu = usage.cpu_share();
        report.receive_drops = self.sockets.receive_drops();
        report.send_refused = uas.sender.refused;
        report.judge();
        report
    }
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
    due: Vec<u64>,
}

impl<'a> Uas<'a> {
    fn new(config: &'a UasConfig, sockets: &Rc<Sockets>, start: Instant) -> Self {
        let addresses = sockets.addresses().iter();
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
            sender: Sender::new(sockets),
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
            due: Vec::new(),
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

    /// Sees that the wheel has an entry at or before the call's next time.
    fn arm(&mut self, index: u32) {
        let Some(held) = self.held.at(index) else {
            return;
        };
        let Some(due) = held.due() else { return };
        if held.armed.is_none_or(|armed| due < armed) {
            held.armed = Some(due);
            self.wheel.insert(due, token_of(index, held));
        }
    }

    /// Fires the timers that are due.
    fn fire(&mut self, now: Instant) {
        let mut due = core::mem::take(&mut self.due);
        self.wheel.poll(now, &mut due);
        for token in due.drain(..) {
            let Ok(index) = u32::try_from(token & u64::from(u32::MAX)) else {
                continue;
            };
            let Some(held) = self.held.at(index) else {
                continue;
            };
            if token_of(index, held) != token {
                continue;
            }
            if held.armed.is_some_and(|armed| armed <= now) {
                held.armed = None;
            }
            self.on_timer(index, now);
            self.arm(index);
        }
        self.due = due;
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

    fn report(&self) -> AnswerReport {
        AnswerReport {
            name: self.config.name.clone(),
            calls: self.counts.calls,
            answered: self.counts.answered,
            ended: self.counts.ended,
            cancelled: self.counts.cancelled,
            unanswered: self.counts.unanswered,
            stray: self.counts.stray,
            in_progress: u64::try_from(self.held.count()).unwrap_or(u64::MAX),
            traffic: self.messages.traffic(),
            ..AnswerReport::default()
        }
    }
}

/// The wheel's number for a call: its place, and which call of that place.
fn token_of(index: u32, held: &Held) -> u64 {
    u64::from(held.generation) << 32 | u64::from(index)
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
            let sockets = Sockets::bind(&config.listen).unwrap();
            let start = clock::now();
            let mut uas = Uas::new(&config, &sockets, start);
            // Answers go to the server itself, where nobody reads them.
            let peer = sockets.addresses()[0];
            let scenario = Scenario::new(Identity::new(1, ""), &[], &[peer], 9, None);
            uas.receive(&noise, 0, peer, start);
            let mut now = start;
            for (serial, method, cseq, in_dialog, cut, flipped, byte) in requests {
                let method = ["INVITE", "ACK", "BYE", "CANCEL", "REGISTER", "OPTIONS", "INFO", "X"][method];
                let key = CallKey { serial, index: 0 };
                let mut to = b"<sip:b@127.0.0.1>".to_vec();
                if in_dialog {
                    let mut call_id = Vec::new();
                    scenario.identity.write_call_id(key, peer.ip(), &mut call_id);
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
            let report = uas.report();
            prop_assert_eq!(report.in_progress, 0);
            prop_assert!(report.ended + report.cancelled + report.unanswered <= report.calls + 8);
            uas.sender.flush();
        }
    }
}
