//! The caller: starts calls by schedule and plays each to its end as a user agent client does.
//!
//! One thread, one loop: start what is due, fire timers, send, sleep until the next of these or a
//! datagram, receive. A call is a place in a slab; a message finds it by the place in its Call-ID.
//! What can be derived from the call's number or from a response is not stored, so that a response
//! to a call long over is acknowledged all the same.

mod requests;
mod responses;

use core::num::NonZeroU64;
use core::sync::atomic::{AtomicBool, Ordering};

use super::call::{Call, Calls, Phase, Step};
use super::config::{GeneratorError, Load, UacConfig};
use super::dialog::Dialog;
use super::identity::{CallKey, Identity};
use super::progress::Progress;
use super::report::{Latencies, Report, SelfCheck};
use super::scenario::Scenario;
use super::schedule::Schedule;
use super::sipp;
use super::stats::{CallerStats, Failure, Stray};
use super::threads;
use super::transport::{self, Losses, Opened, Sender, Share};
use super::usage::Usage;
use super::wheel::{Timed, Timekeeper, Wheel};
use crate::limits::BATCH;
use crate::sip::{Message, Method};
use crate::sys::clock;
use crate::time::{Duration, Instant};

/// Calls started between two looks at the sockets.
const STARTS_MAX: usize = BATCH;
/// Longest sleep: a stop is noticed within it.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// After a stop calls in progress get this long to end.
const STOP_DRAIN: Duration = Duration::from_secs(2);

/// Makes the load and reports on it. Ends by itself, or soon after `stop` is set.
///
/// # Errors
/// What kept the run from starting; while it runs, everything is counted.
pub fn run(config: &UacConfig, stop: &AtomicBool) -> Result<Report, GeneratorError> {
    let addresses = config.bind_addresses()?;
    let target = config.target.address();
    let opened = transport::open(&config.datapath, &addresses, config.threads, Some(target))?;
    let of = u64::try_from(opened.len()).unwrap_or(1);
    let start = clock::now();
    let failing = AtomicBool::new(false);
    let run_share = |(thread, opened): (u64, Opened)| {
        let share = Share { thread, of };
        config.pin(thread);
        run_thread(config, share, opened, start, [stop, &failing])
    };
    let outcomes: Vec<Outcome> = threads::run_all(opened, run_share)?;
    let mut outcomes = outcomes.into_iter();
    let Some(mut whole) = outcomes.next() else {
        return Ok(Report::default());
    };
    outcomes.for_each(|outcome| whole.merge(outcome));
    Ok(whole.report(config, start))
}

/// Plays the calls of one thread.
fn run_thread(
    config: &UacConfig,
    share: Share,
    opened: Opened,
    start: Instant,
    [stop, failing]: [&AtomicBool; 2],
) -> Result<Outcome, GeneratorError> {
    if let Load::Scenario(play) = &config.load {
        return sipp::call(config, play, share, opened, start, stop);
    }
    // The default slack of 50 µs would be lateness of ours.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let (mut receiver, sender) = opened.split()?;
    let usage = Usage::start();
    let mut uac = Uac::new(config, share, sender, start);
    // One thread speaks for all.
    let mut progress = Progress::new(config.progress && share.thread == 0, start);
    loop {
        let now = clock::now();
        if stop.load(Ordering::Relaxed) || failing.load(Ordering::Relaxed) {
            uac.stop(now);
        }
        if config.ends_at_failure && uac.stats.failed > 0 {
            failing.store(true, Ordering::Relaxed);
        }
        uac.start_due(now);
        uac.fire(now);
        uac.sender.flush();
        uac.stats.tick(now, uac.calls.live());
        if uac.is_finished(now) {
            break;
        }
        if progress.is_due(now) {
            progress.write(now, &uac.line());
        }
        if receiver.wait(uac.sleep(now)) {
            let now = clock::now();
            receiver.receive(|bytes, address, peer| uac.receive(bytes, address, peer, now));
        }
    }
    progress.end();
    let now = clock::now();
    uac.stats.end_series(now, uac.calls.live());
    let losses = uac.sender.losses();
    uac.stats.messages.strays(Stray::Checksum, losses.damaged);
    Ok(Outcome {
        losses,
        stats: uac.stats,
        clocks: Vec::new(),
        cpu: usage.cpu_share(receiver.idle()),
        last_due: uac.last_due,
        end: now,
    })
}

/// What came of one thread's calls, and then of all.
pub(super) struct Outcome {
    pub(super) stats: CallerStats,
    /// Response times that a scenario measures, in the order of their names.
    pub(super) clocks: Vec<Latencies>,
    pub(super) losses: Losses,
    /// Of the busiest thread.
    pub(super) cpu: f64,
    pub(super) last_due: Duration,
    pub(super) end: Instant,
}

impl Outcome {
    pub(super) fn merge(&mut self, other: Self) {
        self.stats.merge(other.stats);
        for (mine, theirs) in self.clocks.iter_mut().zip(&other.clocks) {
            mine.merge(theirs);
        }
        self.losses.merge(other.losses);
        self.cpu = self.cpu.max(other.cpu);
        self.last_due = self.last_due.max(other.last_due);
        self.end = self.end.max(other.end);
    }

    fn report(&self, config: &UacConfig, start: Instant) -> Report {
        let stats = &self.stats;
        let check = SelfCheck {
            lateness_ms: stats.lateness.percentiles(),
            cpu: self.cpu,
            receive_drops: self.losses.receive_drops,
            send_refused: self.losses.send_refused,
            limited: stats.limited,
        };
        let reasons = check.reasons();
        let scenario = match &config.load {
            Load::Call { .. } => "call",
            Load::Single { .. } => "options",
            Load::Register { .. } => "register",
            Load::Scenario(play) => play.program().name(),
        };
        let clocks: &[String] = match &config.load {
            Load::Scenario(play) => play.program().clocks(),
            _ => &[],
        };
        Report {
            scenario: scenario.to_owned(),
            offered: stats.offered,
            answered: stats.answered,
            failed: stats.failed,
            cancelled: stats.cancelled,
            seconds: self.end.since(start).as_secs_f64(),
            rate: rate(stats.offered, self.last_due),
            servers: stats.servers.shares(),
            setup_ms: stats.setup.percentiles(),
            response_times_ms: clocks
                .iter()
                .zip(&self.clocks)
                .map(|(name, times)| (name.clone(), times.percentiles()))
                .collect(),
            traffic: stats.messages.traffic(),
            failures: stats.failures_by_label(),
            lateness_ms: check.lateness_ms,
            cpu: check.cpu,
            bottleneck: !reasons.is_empty(),
            bottleneck_reasons: reasons,
            self_check: check,
            timeline: stats.series.timeline(self.end),
        }
    }
}

/// The caller's state.
struct Uac<'a> {
    config: &'a UacConfig,
    scenario: Scenario,
    schedule: Schedule,
    start: Instant,
    sender: Sender,
    share: Share,
    source_count: u64,
    calls: Calls,
    calls_max: u32,
    wheel: Wheel,
    stats: CallerStats,
    /// Taken out while a message is read.
    message: Option<Box<Message>>,
    /// Dialog of a response whose call is over.
    late: Dialog,
    initial_to: Vec<u8>,
    registrar: Vec<u8>,
    /// When waiting for calls in progress ends.
    drain_end: Option<Instant>,
    last_due: Duration,
}

impl<'a> Uac<'a> {
    fn new(config: &'a UacConfig, share: Share, sender: Sender, start: Instant) -> Self {
        let addresses = sender.addresses();
        let identity = Identity::new(config.seed, &config.call_id_prefix);
        let scenario = Scenario::new(
            identity,
            &config.layouts,
            addresses,
            config.users,
            config.body_len,
        );
        let schedule = Schedule::new(
            config.rate,
            config.arrivals,
            config.ramp,
            config.limit,
            config.seed,
        )
        .share(share.thread, share.of);
        let threads = u32::try_from(share.of).unwrap_or(1).max(1);
        let calls_max = config.calls_max.div_ceil(threads);
        let host_port = match config.target.port() {
            Some(port) => format!("{}:{port}", config.target.host()),
            None => config.target.host().to_owned(),
        };
        Self {
            config,
            scenario,
            schedule,
            start,
            share,
            source_count: u64::try_from(addresses.len()).unwrap_or(1).max(1),
            sender,
            calls: Calls::new(calls_max),
            calls_max,
            wheel: Wheel::new(start),
            stats: CallerStats::new(start),
            message: Some(Box::new(Message::new())),
            late: Dialog::default(),
            initial_to: format!("<{}>", config.target.uri()).into_bytes(),
            registrar: format!("sip:{host_port}").into_bytes(),
            drain_end: None,
            last_due: Duration::ZERO,
        }
    }

    /// Starts what is due, a batch at most: a late caller must not become a deaf one.
    fn start_due(&mut self, now: Instant) {
        for _ in 0..STARTS_MAX {
            let Some((serial, due)) = self.schedule.take(now.since(self.start)) else {
                return;
            };
            let intended = self.start + due;
            self.last_due = due;
            self.stats.offered += 1;
            if self.calls.live() >= self.calls_max {
                self.stats.limited += 1;
                self.stats.fail(Failure::Limited);
                continue;
            }
            // Read anew: a batch of calls takes longer than the distance between them.
            let now = clock::now();
            self.stats.lateness.record(now.since(intended));
            let source = self.source_of(serial);
            let inserted = self.calls.insert(|dialog| Call {
                serial,
                source,
                intended,
                step: Step::Invite,
                phase: Phase::Calling,
                cseq: 0,
                resend: None,
                deadline: None,
                cancel_at: None,
                armed: None,
                answered: false,
                failed: false,
                invite_cseq: 0,
                refreshes: 0,
                authorization: None,
                dialog,
            });
            let Some(index) = inserted else { continue };
            let step = match &self.config.load {
                Load::Call { .. } => Step::Invite,
                Load::Single { methods, .. } => {
                    let count = u64::try_from(methods.len()).unwrap_or(1).max(1);
                    Step::Single(usize::try_from(serial % count).unwrap_or(0))
                }
                Load::Register { .. } => Step::Register,
                // Played elsewhere.
                Load::Scenario(_) => return,
            };
            self.begin(index, step, now);
        }
    }

    /// Begins a step: a new CSeq, its request, its timers.
    fn begin(&mut self, index: u32, step: Step, now: Instant) {
        let config = self.config;
        let Some(call) = self.calls.at(index) else {
            return;
        };
        call.step = step;
        call.phase = Phase::Calling;
        call.cseq += 1;
        let timers = &config.timers;
        let is_invite = step_method(config, step) == Method::Invite;
        call.resend = Some(if is_invite {
            timers.invite(now)
        } else {
            timers.other(now)
        });
        let mut deadline = now + timers.t1_64();
        if !call.answered {
            deadline = deadline.min(call.intended + config.timeout);
        }
        call.deadline = Some(deadline);
        self.send_step(index, now);
        self.arm(index);
    }

    fn on_deadline(&mut self, index: u32, now: Instant) {
        let config = self.config;
        let Some(call) = self.calls.at(index) else {
            return;
        };
        let method = step_method(config, call.step);
        match call.phase {
            Phase::Pausing => self.continue_after_pause(index, now),
            Phase::AwaitingBye => self.fail(index, Failure::NoBye),
            // RFC 3261 §9.1: CANCEL only once a provisional response has come.
            Phase::Proceeding if call.step == Step::Invite => {
                call.failed = true;
                self.stats.fail(Failure::NoAnswer);
                self.cancel(index, now);
            }
            Phase::Calling | Phase::Proceeding => self.fail(index, Failure::Timeout(method)),
            Phase::Cancelling => self.fail(index, Failure::Timeout(Method::Cancel)),
        }
    }

    /// Counts a call as failed, once, and forgets it.
    fn fail(&mut self, index: u32, failure: Failure) {
        if let Some(call) = self.calls.at(index) {
            if !call.failed {
                self.stats.fail(failure);
            }
            self.calls.remove(index);
        }
    }

    fn stop(&mut self, now: Instant) {
        self.schedule.stop();
        self.drain_end.get_or_insert(now + STOP_DRAIN);
    }

    fn is_finished(&mut self, now: Instant) -> bool {
        if self.schedule.due().is_some() {
            return false;
        }
        if self.calls.live() == 0 {
            return true;
        }
        // Without a limit every call ends by itself: each wait has its deadline.
        if let (None, Some(drain)) = (self.drain_end, self.config.drain) {
            self.drain_end = Some(now + drain);
        }
        if self.drain_end.is_none_or(|end| now < end) {
            return false;
        }
        for index in self.calls.indices() {
            self.fail(index, Failure::Unfinished);
        }
        true
    }

    /// Until the next call, timer or limit.
    fn sleep(&self, now: Instant) -> Duration {
        // The next call first: the wheel looks no further ahead than is asked for.
        let horizon = match self.schedule.due() {
            Some(due) => (self.start + due).since(now).min(SLEEP_MAX),
            None => SLEEP_MAX,
        };
        let mut until = self.wheel.sleep_until(now, horizon);
        if let Some(end) = self.drain_end {
            until = until.min(end);
        }
        until.since(now)
    }

    /// What the progress line says.
    fn line(&self) -> String {
        let stats = &self.stats;
        format!(
            "started {}  answered {}  failed {}  in progress {}  resent {}  late p99 {:.2} ms",
            stats.offered,
            stats.answered,
            stats.failed,
            self.calls.live(),
            stats.messages.resent,
            stats.lateness.percentiles().p99,
        )
    }
}

impl Timekeeper for Uac<'_> {
    fn wheel(&mut self) -> &mut Wheel {
        &mut self.wheel
    }

    fn timed(&mut self, index: u32) -> Option<Timed<'_>> {
        let call = self.calls.at(index)?;
        Some(Timed {
            generation: call.serial,
            due: call.due(),
            armed: &mut call.armed,
        })
    }

    fn on_timer(&mut self, index: u32, now: Instant) {
        let Some(call) = self.calls.at(index) else {
            return;
        };
        if call.deadline.is_some_and(|deadline| deadline <= now) {
            self.on_deadline(index, now);
            return;
        }
        if call.cancel_at.is_some_and(|cancel_at| cancel_at <= now) {
            call.cancel_at = None;
            self.cancel(index, now);
            return;
        }
        if call
            .resend
            .as_mut()
            .is_some_and(|resend| resend.is_due(now))
        {
            self.stats.messages.resent += 1;
            self.resend_step(index);
        }
    }
}

/// Calls per second of `count` calls, the last of which was due at `last`.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(count: u64, last: Duration) -> f64 {
    if last.is_zero() {
        return 0.0;
    }
    (count - 1) as f64 / last.as_secs_f64()
}

/// The method of a step's request.
fn step_method(config: &UacConfig, step: Step) -> Method {
    Method::parse(step_name(config, step).as_bytes())
}

/// The method of a step's request, as written.
fn step_name(config: &UacConfig, step: Step) -> &str {
    match (step, &config.load) {
        (Step::Invite, _) => "INVITE",
        (Step::Register | Step::Unregister, _) => "REGISTER",
        (Step::Bye, _) => "BYE",
        (Step::Single(place), Load::Single { methods, .. })
        | (Step::Dialog(place), Load::Call { methods, .. }) => {
            methods.get(place).map_or("OPTIONS", String::as_str)
        }
        (Step::Single(_) | Step::Dialog(_), _) => "OPTIONS",
    }
}

/// The key of a call in progress.
fn key_of(index: u32, call: &Call) -> CallKey {
    CallKey {
        serial: call.serial,
        index,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::generator::args::ByeFrom;
    use crate::generator::reply::{self, Reply};
    use crate::generator::transport::Datapath;
    use crate::net::SocketAddr;

    /// A caller with ten calls under way, and the INVITEs it sent.
    fn started(config: &UacConfig) -> (Uac<'_>, Vec<Vec<u8>>) {
        let address = "127.0.0.1:0".parse().unwrap();
        let mut opened = transport::open(&Datapath::Sockets, &[address], None, None).unwrap();
        let (_, sender) = opened.remove(0).split().unwrap();
        let peer = std::net::UdpSocket::bind(config.target.address());
        let start = clock::now();
        let mut uac = Uac::new(config, Share::WHOLE, sender, start);
        uac.start_due(start + Duration::from_secs(1));
        uac.sender.flush();
        let mut invites = Vec::new();
        if let Ok(peer) = peer {
            peer.set_nonblocking(true).unwrap();
            let mut buffer = [0; 4096];
            while let Ok(len) = peer.recv(&mut buffer) {
                invites.push(buffer[..len].to_vec());
            }
        }
        (uac, invites)
    }

    fn free_address() -> SocketAddr {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    }

    fn config() -> UacConfig {
        let target = format!("sip:service@{}", free_address()).parse().unwrap();
        let load = Load::Call {
            hold: Duration::ZERO,
            bye_from: ByeFrom::Both,
            methods: vec!["INFO".to_owned()],
            cancel_after: None,
        };
        UacConfig {
            rate: 10.0,
            ..UacConfig::new(target, load)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever comes back, whole, cut, changed or made up, the caller goes on.
        #[test]
        fn no_datagram_makes_the_caller_panic(
            replies in prop::collection::vec(
                (0usize..10, 100u16..700, 0usize..2000, 0usize..1200, any::<u8>()),
                1..60,
            ),
            noise: Vec<u8>,
        ) {
            let config = config();
            let (mut uac, invites) = started(&config);
            prop_assert!(!invites.is_empty());
            let peer = config.target.address();
            uac.receive(&noise, 0, peer, clock::now());
            for (invite, status, cut, flipped, byte) in replies {
                let request = &invites[invite % invites.len()];
                let mut message = Message::new();
                message.parse(request).unwrap();
                let reply = Reply {
                    status,
                    to_tag: b"server~0123456789abcdef",
                    record_route: true,
                    rows: b"Contact: <sip:b@127.0.0.1:9>\r\nRecord-Route: <sip:127.0.0.1:9;lr>\r\n",
                    body: b"",
                };
                let mut bytes = Vec::new();
                reply::write(request, &message, peer, &reply, &mut bytes);
                if let Some(flipped) = bytes.get_mut(flipped).filter(|_| byte % 2 == 0) {
                    *flipped = byte;
                }
                bytes.truncate(cut.max(200));
                uac.receive(&bytes, 0, peer, clock::now());
                uac.fire(clock::now() + Duration::from_millis(u64::from(byte)));
            }
            // What is left ends by itself.
            let end = clock::now() + Duration::from_secs(600);
            uac.schedule.stop();
            for second in 0..600 {
                uac.fire(clock::now() + Duration::from_secs(second));
            }
            prop_assert!(uac.is_finished(end));
            let stats = &uac.stats;
            prop_assert!(stats.answered <= stats.offered && stats.failed <= stats.offered);
        }
    }
}
