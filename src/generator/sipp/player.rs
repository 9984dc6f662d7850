//! The player: starts calls or waits for them, and walks each from step to step.

mod steps;

use core::cell::RefCell;
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::HashMap;

use super::Play;
use super::actions::Value;
use super::calls::{Call, Calls};
use super::fill::Constants;
use super::program::{Kind, Optional, Step};
use crate::generator::config::{GeneratorError, UacConfig, UasConfig};
use crate::generator::identity::Identity;
use crate::generator::progress::Progress;
use crate::generator::report::{AnswerReport, Latencies};
use crate::generator::schedule::Schedule;
use crate::generator::stats::{CallerStats, Failure, Stray};
use crate::generator::threads;
use crate::generator::timers::Timers;
use crate::generator::transport::{Opened, Receiver, Sender, Share};
use crate::generator::uac::Outcome;
use crate::generator::usage::Usage;
use crate::generator::wheel::{Timed, Timekeeper, Wheel};
use crate::limits::{BATCH, SIPP_STEPS_AT_ONCE_MAX};
use crate::sip::{Message, Method};
use crate::sys::clock;
use crate::time::{Duration, Instant};

/// Calls started between two looks at the sockets.
const STARTS_MAX: usize = BATCH;
/// Longest sleep: a stop is noticed within it.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// After a stop calls in progress get this long to end.
const STOP_DRAIN: Duration = Duration::from_secs(2);
/// A wait that names no end ends here: nothing is held for ever.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Plays a scenario that calls: the share of one thread.
pub(in crate::generator) fn call(
    config: &UacConfig,
    play: &Play,
    share: Share,
    opened: Opened,
    start: Instant,
    stop: &AtomicBool,
) -> Result<Outcome, GeneratorError> {
    let (receiver, sender) = opened.split()?;
    let threads = u32::try_from(share.of).unwrap_or(1).max(1);
    let setting = Setting {
        timers: config.timers,
        timeout: Some(config.timeout),
        calls_max: config.calls_max.div_ceil(threads),
        drain: config.drain,
        life: None,
        progress: config.progress && share.thread == 0,
    };
    let identity = Identity::new(config.seed, &config.call_id_prefix);
    let mut player = Player::new(play, sender, setting, identity, start);
    let user = config.target.user().unwrap_or("service");
    player.constants.service = user.as_bytes().to_vec();
    player.constants.remote = Some(config.target.address());
    player.constants.credentials.clone_from(&config.credentials);
    let schedule = Schedule::new(
        config.rate,
        config.arrivals,
        config.ramp,
        config.limit,
        config.seed,
    );
    player.schedule = Some(schedule.share(share.thread, share.of));
    let cpu = player.play(receiver, stop);
    Ok(player.outcome(cpu))
}

/// Plays a scenario that answers, on a thread for each share of the addresses.
pub(in crate::generator) fn answer(
    config: &UasConfig,
    play: &Play,
    opened: Vec<Opened>,
    stop: &AtomicBool,
) -> Result<AnswerReport, GeneratorError> {
    let reports = threads::run_all(opened, |(thread, opened)| {
        config.pin(thread);
        let (receiver, sender) = opened.split()?;
        let setting = Setting {
            timers: config.timers,
            timeout: None,
            calls_max: config.calls_max,
            drain: None,
            life: config.duration,
            progress: config.progress && thread == 0,
        };
        // Each thread counts its calls from 0: their branches must differ all the same.
        let identity = Identity::new(config.secret.wrapping_add(thread), "");
        let mut player = Player::new(play, sender, setting, identity, clock::now());
        player.constants.service = config.name.as_bytes().to_vec();
        player.constants.credentials.clone_from(&config.credentials);
        let cpu = player.play(receiver, stop);
        let in_progress = u64::from(player.calls.live() - player.over);
        let counts = (in_progress, player.completed);
        Ok((player.outcome(cpu), counts))
    })?;
    let mut reports = reports.into_iter();
    let Some((mut whole, (mut in_progress, mut completed))) = reports.next() else {
        return Ok(AnswerReport::default());
    };
    for (outcome, counts) in reports {
        whole.merge(outcome);
        in_progress += counts.0;
        completed += counts.1;
    }
    let stats = &whole.stats;
    let mut report = AnswerReport {
        name: config.name.clone(),
        calls: stats.offered,
        answered: stats.answered,
        ended: completed,
        failed: stats.failed,
        failures: stats.failures_by_label(),
        in_progress,
        traffic: stats.messages.traffic(),
        cpu: whole.cpu,
        receive_drops: whole.losses.receive_drops,
        send_refused: whole.losses.send_refused,
        ..AnswerReport::default()
    };
    report.judge();
    Ok(report)
}

/// What the command line says about every call.
struct Setting {
    timers: Timers,
    /// Until the answer; a callee has none.
    timeout: Option<Duration>,
    calls_max: u32,
    drain: Option<Duration>,
    /// Ends by itself after this.
    life: Option<Duration>,
    /// A line each second to standard error.
    progress: bool,
}

/// The state of a run.
pub(super) struct Player<'a> {
    pub(super) play: &'a Play,
    setting: Setting,
    pub(super) constants: Constants<'a>,
    pub(super) schedule: Option<Schedule>,
    start: Instant,
    pub(super) sender: Sender,
    pub(super) calls: Calls,
    /// Of an answering player.
    pub(super) by_call_id: HashMap<Vec<u8>, u32>,
    wheel: Wheel,
    pub(super) stats: CallerStats,
    clocks: Vec<Latencies>,
    /// Taken out while a message is read.
    pub(super) message: Option<Box<Message>>,
    /// Reads what is sent.
    sent: Box<Message>,
    last_due: Duration,
    drain_end: Option<Instant>,
    completed: u64,
    /// Calls that only answer again.
    over: u32,
    /// State of the numbers that pauses and losses are drawn from.
    random: u64,
    /// The scenario has said that it is enough.
    is_stopped: bool,
}

impl<'a> Player<'a> {
    fn new(
        play: &'a Play,
        sender: Sender,
        setting: Setting,
        identity: Identity,
        start: Instant,
    ) -> Self {
        let clocks = play.program.clocks.iter();
        Self {
            play,
            setting,
            constants: Constants {
                random_seed: identity.pick(0),
                identity,
                service: Vec::new(),
                remote: None,
                locals: sender.addresses().to_vec(),
                hosts: sender
                    .addresses()
                    .iter()
                    .map(|local| local.ip().to_string())
                    .collect(),
                pid: std::process::id(),
                start,
                table: play.table.as_ref(),
                credentials: None,
                reader: RefCell::new(Box::new(Message::new())),
            },
            schedule: None,
            start,
            sender,
            calls: Calls::default(),
            by_call_id: HashMap::new(),
            wheel: Wheel::new(start),
            stats: CallerStats::new(start),
            clocks: clocks.map(|_| Latencies::new()).collect(),
            message: Some(Box::new(Message::new())),
            sent: Box::new(Message::new()),
            last_due: Duration::ZERO,
            drain_end: None,
            completed: 0,
            over: 0,
            random: 0,
            is_stopped: false,
        }
    }

    /// Until the schedule and all calls have ended, its life is over or `stop` is set. Gives the
    /// share of a core that it took.
    fn play(&mut self, mut receiver: Receiver, stop: &AtomicBool) -> f64 {
        // The default slack of 50 µs would be lateness of ours.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let usage = Usage::start();
        let mut progress = Progress::new(self.setting.progress, self.start);
        let end = self.setting.life.map(|life| self.start + life);
        loop {
            let now = clock::now();
            if stop.load(Ordering::Relaxed) || end.is_some_and(|end| end <= now) {
                self.stop(now);
            }
            self.start_due(now);
            self.fire(now);
            self.sender.flush();
            self.stats.tick(now, self.calls.live());
            if self.is_finished(now) {
                break;
            }
            if progress.is_due(now) {
                progress.write(now, &self.line());
            }
            let until = end.map_or_else(|| self.wake(now), |end| self.wake(now).min(end));
            if receiver.wait(until.since(now)) {
                let now = clock::now();
                receiver.receive(|bytes, socket, peer| self.receive(bytes, socket, peer, now));
            }
        }
        progress.end();
        let damaged = self.sender.losses().damaged;
        self.stats.messages.strays(Stray::Checksum, damaged);
        usage.cpu_share(receiver.idle())
    }

    fn outcome(mut self, cpu: f64) -> Outcome {
        let end = clock::now();
        self.stats.end_series(end, self.calls.live());
        Outcome {
            losses: self.sender.losses(),
            stats: self.stats,
            clocks: self.clocks,
            cpu,
            last_due: self.last_due,
            end,
        }
    }

    /// Starts what is due, a batch at most: a late caller must not become a deaf one.
    fn start_due(&mut self, now: Instant) {
        for _ in 0..STARTS_MAX {
            let elapsed = now.since(self.start);
            let Some((serial, due)) = self.schedule.as_mut().and_then(|s| s.take(elapsed)) else {
                return;
            };
            let intended = self.start + due;
            self.last_due = due;
            self.stats.offered += 1;
            if self.calls.live() - self.over >= self.setting.calls_max {
                self.stats.limited += 1;
                self.stats.fail(Failure::Limited);
                continue;
            }
            // Read anew: a batch of calls takes longer than the distance between them.
            let now = clock::now();
            self.stats.lateness.record(now.since(intended));
            let Some(remote) = self.constants.remote else {
                return;
            };
            let Some((index, call)) = self.calls.insert(now, remote) else {
                continue;
            };
            call.serial = serial;
            call.intended = intended;
            let sockets = u64::try_from(self.constants.locals.len())
                .unwrap_or(1)
                .max(1);
            call.socket = usize::try_from(serial % sockets).unwrap_or(0);
            self.set_up(index);
            self.walk(index, now);
        }
    }

    /// Gives a new call its variables and its row of the table.
    pub(super) fn set_up(&mut self, index: u32) {
        let identity = &self.constants.identity;
        let Some(call) = self.calls.at(index) else {
            return;
        };
        call.variables
            .resize(self.play.program.variables.len(), None);
        if let Some(table) = &self.play.table {
            call.row = table.row(call.serial, identity.pick(call.serial));
        }
    }

    /// A new call of an answering player; `None` if there are as many as allowed.
    pub(super) fn accept(
        &mut self,
        call_id: &[u8],
        socket: usize,
        peer: crate::net::SocketAddr,
        now: Instant,
    ) -> Option<u32> {
        let serial = self.stats.offered;
        self.stats.offered += 1;
        if self.calls.live() >= self.setting.calls_max {
            self.stats.limited += 1;
            self.stats.fail(Failure::Limited);
            return None;
        }
        let (index, call) = self.calls.insert(now, peer)?;
        call.serial = serial;
        call.socket = socket;
        call.call_id.extend_from_slice(call_id);
        self.by_call_id.insert(call_id.to_vec(), index);
        self.set_up(index);
        Some(index)
    }

    /// Takes steps until one waits.
    pub(super) fn walk(&mut self, index: u32, now: Instant) {
        let program = &self.play.program;
        for _ in 0..SIPP_STEPS_AT_ONCE_MAX {
            let Some(call) = self.calls.at(index) else {
                return;
            };
            let place = call.at;
            let Some(step) = program.steps.get(place) else {
                return self.complete(index);
            };
            if !is_wanted(step, call) {
                call.at += 1;
                continue;
            }
            match &step.kind {
                Kind::Send(send) => self.send_step(index, place, send, step.lost, now),
                Kind::Receive(_) => return self.wait(index, now),
                Kind::Pause(pause) => {
                    let length = self.pause(*pause, index);
                    if !length.is_zero() {
                        return self.sleep(index, now + length);
                    }
                }
                Kind::TimeWait(length) => {
                    if !call.is_over {
                        call.is_over = true;
                        self.over += 1;
                        self.completed += 1;
                    }
                    return self.sleep(index, now + *length);
                }
                Kind::Nop => {}
            }
            if !self.finish_step(index, place, now) {
                return;
            }
            self.advance(index, place);
        }
        self.fail(index, Failure::Circle);
    }

    /// Clocks and actions of a step that is done. `false` if the call has ended by them.
    pub(super) fn finish_step(&mut self, index: u32, place: usize, now: Instant) -> bool {
        let Some(step) = self.play.program.steps.get(place) else {
            return true;
        };
        let Some(call) = self.calls.at(index) else {
            return false;
        };
        if let Some(clock) = step.stops {
            let since = call.clocks.get(clock).copied().flatten();
            let time = now.since(since.unwrap_or(call.intended));
            if let Some(latencies) = self.clocks.get_mut(clock) {
                latencies.record(time);
            }
        }
        if let Some(started) = step.starts.and_then(|clock| call.clocks.get_mut(clock)) {
            *started = Some(now);
        }
        step.actions
            .iter()
            .all(|action| self.act(index, place, action, now))
    }

    /// Goes to the next step, or where a jump leads.
    pub(super) fn advance(&mut self, index: u32, place: usize) {
        let to = self.jump(index, place).unwrap_or(place + 1);
        if let Some(call) = self.calls.at(index) {
            call.at = to;
            call.deadline = None;
        }
    }

    /// Where a step's jump leads, if it is taken.
    pub(super) fn jump(&mut self, index: u32, place: usize) -> Option<usize> {
        let jump = self.play.program.steps.get(place)?.next?;
        let call = self.calls.at(index)?;
        let is_set = |variable: usize| is_set(call, variable);
        if !jump.test.is_none_or(is_set) {
            return None;
        }
        (jump.chance >= 1.0 || self.uniform() < jump.chance).then_some(jump.to)
    }

    /// All steps are done.
    fn complete(&mut self, index: u32) {
        if let Some(call) = self.calls.at(index)
            && !call.is_over
        {
            self.completed += 1;
        }
        self.forget(index);
    }

    /// Counts a call as failed and forgets it.
    pub(super) fn fail(&mut self, index: u32, failure: Failure) {
        if let Some(call) = self.calls.at(index)
            && !call.is_over
        {
            self.stats.fail(failure);
        }
        self.forget(index);
    }

    fn forget(&mut self, index: u32) {
        let Some(call) = self.calls.at(index) else {
            return;
        };
        if call.is_over {
            self.over -= 1;
        }
        if !call.call_id.is_empty() {
            self.by_call_id.remove(&call.call_id);
        }
        self.calls.remove(index);
    }

    fn stop(&mut self, now: Instant) {
        if let Some(schedule) = self.schedule.as_mut() {
            schedule.stop();
        }
        self.is_stopped = true;
        // An answering player ends where it stands, as `viaduct answer` does.
        let drain = if self.schedule.is_some() {
            STOP_DRAIN
        } else {
            Duration::ZERO
        };
        self.drain_end.get_or_insert(now + drain);
    }

    fn is_finished(&mut self, now: Instant) -> bool {
        match &self.schedule {
            Some(schedule) if schedule.due().is_some() => return false,
            None if !self.is_stopped => return false,
            _ => {}
        }
        if self.calls.live() == self.over {
            return true;
        }
        if let (None, Some(drain)) = (self.drain_end, self.setting.drain) {
            self.drain_end = Some(now + drain);
        }
        if self.drain_end.is_none_or(|end| now < end) {
            return false;
        }
        if self.schedule.is_some() {
            for index in self.calls.indices() {
                self.fail(index, Failure::Unfinished);
            }
        }
        true
    }

    /// The next call, timer or limit.
    fn wake(&self, now: Instant) -> Instant {
        let mut until = self.wheel.sleep_until(now, SLEEP_MAX);
        if let Some(due) = self.schedule.as_ref().and_then(Schedule::due) {
            until = until.min(self.start + due);
        }
        self.drain_end.map_or(until, |end| until.min(end))
    }

    /// A number in [0, 1), by splitmix64.
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits fit a double's mantissa"
    )]
    pub(super) fn uniform(&mut self) -> f64 {
        self.random = self.random.wrapping_add(1);
        let seed = self.constants.random_seed;
        let drawn = self.constants.identity.pick(self.random ^ seed);
        (drawn & ((1 << 44) - 1)) as f64 / (1u64 << 44) as f64
    }

    /// What the progress line says.
    fn line(&self) -> String {
        let stats = &self.stats;
        format!(
            "calls {}  answered {}  completed {}  failed {}  in progress {}  resent {}",
            stats.offered,
            stats.answered,
            self.completed,
            stats.failed,
            self.calls.live() - self.over,
            stats.messages.resent,
        )
    }
}

impl Timekeeper for Player<'_> {
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
        let program = &self.play.program;
        let Some(call) = self.calls.at(index) else {
            return;
        };
        let (place, is_resending) = (call.at, call.resend.is_some());
        if is_resending && call.resend_end <= now {
            // No answer to a request, or no ACK of a response, in 64·T1.
            let method = if call.sent_is_response {
                Method::Ack
            } else {
                call.sent_of.map_or(Method::Other, |(_, method)| method)
            };
            return self.fail(index, Failure::Timeout(method));
        }
        if let Some(resend) = call.resend.as_mut()
            && resend.is_due(now)
        {
            self.stats.messages.resent += 1;
            let (socket, peer) = (call.socket, call.peer);
            self.sender
                .send(socket, peer, |arena| arena.extend_from_slice(&call.sent));
        }
        if call.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        call.deadline = None;
        match program.steps.get(place).map(|step| &step.kind) {
            Some(Kind::Receive(_)) => {
                let mut open = open_receives(program, place);
                let found = open.find_map(|(_, receive)| receive.on_timeout);
                match found {
                    Some(to) => {
                        call.at = to;
                        call.resend = None;
                        self.walk(index, now);
                    }
                    None => {
                        let open = call.open.last().map(|(_, method)| *method);
                        let failure = open.map_or(Failure::Silence, Failure::Timeout);
                        self.fail(index, failure);
                    }
                }
            }
            _ => {
                if self.finish_step(index, place, now) {
                    self.advance(index, place);
                    self.walk(index, now);
                }
            }
        }
    }
}

/// Whether a step's condition holds.
fn is_wanted(step: &Step, call: &Call) -> bool {
    step.condition
        .is_none_or(|(variable, wanted)| is_set(call, variable) == wanted)
}

fn is_set(call: &Call, variable: usize) -> bool {
    let value = call.variables.get(variable).and_then(Option::as_ref);
    value.is_some_and(Value::is_set)
}

/// The receive steps that a message may match: optional ones, and the first that is not.
pub(super) fn open_receives(
    program: &super::Program,
    from: usize,
) -> impl Iterator<Item = (usize, &super::program::Receive)> {
    let mut is_open = true;
    let steps = program.steps.iter().enumerate().skip(from);
    steps.map_while(move |(place, step)| match &step.kind {
        Kind::Receive(receive) if is_open => {
            is_open = receive.optional != Optional::No;
            Some((place, &**receive))
        }
        _ => None,
    })
}
