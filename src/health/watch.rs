//! What is remembered of one server, and its state machine.

use core::time::Duration;

use super::window::Window;
use crate::balance::{Outcomes, Probe};
use crate::config;
use crate::limits::{EJECT_SAMPLE_MIN, EJECTION_MAX, EJECTION_MIN, FLAP_MEMORY};
use crate::metrics::{EJECTION_CAUSES, ServerHealthMetrics};
use crate::route::Health;
use crate::time::Instant;

/// Why a server's health changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// Probes had no accepted answer.
    ProbesFailed,
    /// The network reported it as unreachable.
    Unreachable,
    /// Requests in a row had no response.
    Silent,
    /// Its share of 5xx.
    Errors,
    /// It asked to be left alone for a time.
    RetryAfter,
    /// Probes had accepted answers.
    ProbesAnswered,
    /// The time is over for which its traffic took it out.
    TimeOver,
    /// More servers were out by their traffic than may be.
    TooMany,
    /// Nobody looks any more: its pool has no `health` table.
    #[default]
    Unwatched,
}

impl Cause {
    /// Name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ProbesFailed => "probes_failed",
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::Errors => "errors",
            Self::RetryAfter => "retry_after",
            Self::ProbesAnswered => "probes_answered",
            Self::TimeOver => "time_over",
            Self::TooMany => "too_many",
            Self::Unwatched => "unwatched",
        }
    }

    /// Its number among [`EJECTION_CAUSES`], if it is one.
    pub(super) fn traffic(self) -> Option<usize> {
        EJECTION_CAUSES
            .iter()
            .position(|name| *name == self.as_str())
    }
}

/// What is read of a server at a tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) outcomes: Outcomes,
    pub(super) probe: Probe,
    pub(super) retry_after_until: Instant,
}

/// What is remembered of one server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    pub(super) health: Health,
    /// Its traffic took it out, and no probe has said more.
    pub(super) ejected: bool,
    /// Why its health is what it is.
    pub(super) cause: Cause,
    /// Before then it does not come back.
    pub(super) until: Instant,
    /// Whether outcomes were read before: what happened before that is nobody's affair.
    begun: bool,
    seen: Outcomes,
    /// Silence in a row that it was forgiven when it came back.
    forgiven: u32,
    pub(super) window: Window,
    /// Newest probe that was judged.
    judged: u32,
    accepted_in_a_row: u32,
    failed_in_a_row: u32,
    /// How often it went down soon after it came back.
    flaps: u32,
    returned_at: Option<Instant>,
    /// Until when it has asked to be left alone.
    asked: Instant,
    /// The same when it last came back: what it asked for before does not count any more.
    heeded: Instant,
}

impl Watch {
    /// Takes note of where everything stands, and of nothing that happened.
    pub(super) fn skip(&mut self, reading: &Reading) {
        self.seen = reading.outcomes;
        self.forgiven = reading.outcomes.silent_in_a_row;
        self.judged = reading.probe.sent;
        self.accepted_in_a_row = 0;
        self.failed_in_a_row = 0;
        self.begun = true;
    }

    /// Judges the probes that have been answered or have had their time.
    pub(super) fn judge_probes(
        &mut self,
        now: Instant,
        probe: &Probe,
        settings: &config::Health,
        metrics: &ServerHealthMetrics,
    ) {
        let mut failed = 0;
        if probe.answered > self.judged {
            failed += probe.answered - self.judged - 1;
            self.judged = probe.answered;
            self.count_failed(failed, metrics);
            if settings.codes.accepts(probe.status) {
                metrics.probes_accepted.increment();
                self.failed_in_a_row = 0;
                self.accepted_in_a_row = self.accepted_in_a_row.saturating_add(1);
            } else {
                self.count_failed(1, metrics);
            }
        }
        if probe.sent > self.judged {
            // Those before the newest were given up by who sent them.
            self.count_failed(probe.sent - self.judged - 1, metrics);
            self.judged = probe.sent - 1;
            if now.since(probe.sent_at) >= settings.timeout {
                self.judged = probe.sent;
                self.count_failed(1, metrics);
            }
        }
    }

    fn count_failed(&mut self, count: u32, metrics: &ServerHealthMetrics) {
        if count > 0 {
            metrics.probes_failed.add(u64::from(count));
            self.accepted_in_a_row = 0;
            self.failed_in_a_row = self.failed_in_a_row.saturating_add(count);
        }
    }

    /// Looks at the traffic since the last tick: what of it speaks against the server, if it is up.
    /// The share of 5xx is not judged here: it says something only beside those of others.
    pub(super) fn look_at_traffic(
        &mut self,
        now: Instant,
        reading: &Reading,
        settings: &config::Health,
    ) -> Option<Cause> {
        let (old, new) = (self.seen, reading.outcomes);
        self.seen = new;
        self.asked = reading.retry_after_until;
        self.forgiven = self.forgiven.min(new.silent_in_a_row);
        if !self.begun {
            self.skip(reading);
            return None;
        }
        if self.health != Health::Active {
            return None;
        }
        let since = u64::wrapping_sub;
        let bad = since(new.failed, old.failed) + since(new.unavailable, old.unavailable);
        self.window
            .add(now, since(new.answered, old.answered) + bad, bad);
        // A message that was on its way when an answer came says nothing any more.
        let silent = new.silent_in_a_row - self.forgiven;
        if new.unreachable > old.unreachable && silent > 0 {
            return Some(Cause::Unreachable);
        }
        if settings.eject_timeouts > 0 && silent >= settings.eject_timeouts {
            return Some(Cause::Silent);
        }
        if self.asked > now && self.asked != self.heeded {
            return Some(Cause::RetryAfter);
        }
        None
    }

    /// Share of 5xx in percent, if enough responses came for one.
    pub(super) fn errors(&self, now: Instant) -> Option<u64> {
        let (all, bad) = self.window.sum(now);
        (all >= EJECT_SAMPLE_MIN).then(|| bad * 100 / all)
    }

    /// What probes and the clock make of the state.
    pub(super) fn step(&mut self, now: Instant, settings: &config::Health) {
        let is_probed = !settings.interval.is_zero();
        let has_fallen = is_probed && self.failed_in_a_row >= settings.fall;
        let has_risen = is_probed && self.accepted_in_a_row >= settings.rise;
        match self.health {
            Health::Active if has_fallen => {
                self.count_flap(now);
                // The first time, probes alone decide when it comes back.
                self.until = match self.flaps {
                    0 => now,
                    flaps => now + pause(flaps - 1),
                };
                self.go(Health::Down, Cause::ProbesFailed);
            }
            Health::Active => {}
            Health::Down | Health::Probing if self.ejected && has_fallen => {
                // Now it is known to be down, and not only for its traffic.
                self.ejected = false;
                self.go(Health::Down, Cause::ProbesFailed);
            }
            Health::Down if now < self.until => {}
            Health::Down if !is_probed => self.come_back(now, Cause::TimeOver),
            Health::Down | Health::Probing if has_risen => {
                self.come_back(now, Cause::ProbesAnswered);
            }
            Health::Down if self.accepted_in_a_row > 0 => {
                self.go(Health::Probing, Cause::ProbesAnswered);
            }
            Health::Down if self.ejected && self.failed_in_a_row == 0 => {
                self.go(Health::Probing, Cause::TimeOver);
            }
            Health::Down => {}
            Health::Probing if !is_probed => self.come_back(now, Cause::TimeOver),
            Health::Probing if self.failed_in_a_row > 0 => {
                self.go(Health::Down, Cause::ProbesFailed);
            }
            Health::Probing => {}
        }
    }

    /// Takes the server out for what its traffic shows.
    pub(super) fn eject(&mut self, now: Instant, cause: Cause, retry_after_until: Instant) {
        self.until = if cause == Cause::RetryAfter {
            // RFC 3261 §21.5.4: it says itself for how long.
            retry_after_until.min(now + EJECTION_MAX)
        } else {
            self.count_flap(now);
            now + pause(self.flaps)
        };
        self.ejected = true;
        self.accepted_in_a_row = 0;
        self.failed_in_a_row = 0;
        self.go(Health::Down, cause);
    }

    /// The server takes calls again.
    pub(super) fn come_back(&mut self, now: Instant, cause: Cause) {
        self.ejected = false;
        self.returned_at = Some(now);
        self.window = Window::default();
        self.forgiven = self.seen.silent_in_a_row;
        self.heeded = self.asked;
        self.failed_in_a_row = 0;
        self.go(Health::Active, cause);
    }

    fn go(&mut self, health: Health, cause: Cause) {
        self.health = health;
        self.cause = cause;
    }

    fn count_flap(&mut self, now: Instant) {
        self.flaps = match self.returned_at {
            Some(at) if now.since(at) < FLAP_MEMORY => self.flaps.saturating_add(1),
            _ => 0,
        };
    }
}

/// How long a server stays out that has come back and failed again so many times.
fn pause(flaps: u32) -> Duration {
    EJECTION_MIN
        .saturating_mul(1 << flaps.min(16))
        .min(EJECTION_MAX)
}
