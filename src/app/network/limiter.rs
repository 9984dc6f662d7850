//! The limiter in the steering program: what it is told, what it tells, what is said about it.

use tracing::{info, warn};

use super::Network;
use crate::bpf::{BpfError, Limit, SteerCounts, SteerVerdict};
use crate::config::{Config, Listener};
use crate::net::IpAddr;

/// What a listener's sources may send, as the configuration says it.
pub(super) fn limit(config: &Config, listener: &Listener) -> Option<Limit> {
    let limit = &config.limit;
    limit.is_on().then(|| Limit {
        packets_per_second: limit.packets_per_second,
        burst: limit.burst,
        strangers_per_second: limit.strangers_per_second,
        exempt: config.exempt(listener),
        dry_run: limit.dry_run,
    })
}

impl Network {
    /// Whether sources are limited: the configuration says so, and there is a program to do it.
    pub(in crate::app) fn limits(&self, config: &Config) -> bool {
        config.limit.is_on() && self.steering.is_some()
    }

    /// Says what is limited, or that what is wanted is not to be had.
    pub(in crate::app) fn log_limit(&self, config: &Config) {
        let limit = &config.limit;
        if !limit.is_on() {
            return;
        }
        if self.steering.is_none() {
            warn!("limit: kernel sockets have no limiter, only XDP has: nothing is limited");
            return;
        }
        info!(
            packets_per_second = limit.packets_per_second,
            burst = limit.burst,
            strangers_per_second = limit.strangers_per_second,
            dry_run = limit.dry_run,
            "limit"
        );
    }

    /// Tells the limiter which sources the farm has accepted.
    ///
    /// # Errors
    /// The map's; the sources from there on are lost.
    pub(in crate::app) fn make_known(
        &self,
        mut sources: impl Iterator<Item = IpAddr>,
    ) -> Result<(), BpfError> {
        // Looked at often, mostly for nothing: the lock only if there is something.
        let Some(first) = sources.next() else {
            return Ok(());
        };
        let Some(program) = self.program() else {
            return Ok(());
        };
        program.make_known(first)?;
        sources.try_for_each(|source| program.make_known(source))
    }

    /// Says what was refused since `before`, in one line for each verdict with one source that it
    /// befell: who sends most is named most often.
    ///
    /// # Errors
    /// The maps'.
    pub(in crate::app) fn log_refused(&self, before: &mut SteerCounts) -> Result<(), BpfError> {
        let Some(program) = self.program() else {
            return Ok(());
        };
        let now = program.counts()?;
        let [rate, strangers] = program.take_refused()?;
        drop(program);
        for (verdict, source) in [
            (SteerVerdict::RateLimited, rate),
            (SteerVerdict::RateLimitedDry, rate),
            (SteerVerdict::StrangersLimited, strangers),
            (SteerVerdict::StrangersLimitedDry, strangers),
        ] {
            let count = now.of(verdict).saturating_sub(before.of(verdict));
            if let Some(source) = source.filter(|_| count > 0) {
                warn!(verdict = verdict.as_str(), count, %source, "limited");
            }
        }
        *before = now;
        Ok(())
    }
}
