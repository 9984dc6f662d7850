//! What the process tells of itself: names, numbers, logs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use tracing::info;

use super::{Counts, Network};
use crate::admin::{Names, Readings, ServerName};
use crate::affinity::Pins;
use crate::clf;
use crate::config::Config;
use crate::journal::{self, CallNames, CallRecord, call_line};
use crate::limits::CALL_QUEUE_LEN;
use crate::net::{ListenerIndex, PoolIndex, ServerIndex};
use crate::route::Plan;
use crate::sys::clock;

/// The common log that `config` asks for.
pub(super) fn wanted_log(config: &Config) -> Option<(&Path, u32)> {
    let path = config.log.common.as_deref()?;
    Some((path, config.log.sample))
}

/// The call log that `config` asks for.
pub(super) fn wanted_call_log(config: &Config) -> Option<(&Path, u32)> {
    let path = config.transactions.call_log.as_deref()?;
    Some((path, config.transactions.call_sample))
}

/// The call log, off yet; it names things as the metrics page does.
pub(super) fn call_log(names: Arc<ArcSwap<Names>>) -> journal::Service<CallRecord> {
    journal::Service::new(
        "transactions.call_log",
        CALL_QUEUE_LEN,
        move |record: &CallRecord, out: &mut Vec<u8>| {
            let now = (clock::real_nanos(), clock::now());
            call_line(record, &**names.load(), now, out);
        },
    )
}

impl CallNames for Names {
    fn listener(&self, index: ListenerIndex) -> Option<&str> {
        let listener = self.listeners.get(usize::from(index.0))?;
        Some(listener)
    }

    fn pool(&self, index: PoolIndex) -> Option<&str> {
        let pool = self.pools.get(usize::from(index.0))?;
        Some(pool)
    }

    fn server(&self, index: ServerIndex) -> Option<&str> {
        let mut servers = self.servers.iter();
        let server = servers.find(|server| server.index == index)?;
        Some(&server.server)
    }
}

pub(super) fn readings(
    counts: Arc<Counts>,
    network: Arc<Network>,
    pins: Arc<Pins>,
    (log, calls): (Arc<clf::Service>, Arc<journal::Service<CallRecord>>),
    plan: Arc<ArcSwap<Plan>>,
) -> impl Fn() -> Readings + Send + Sync {
    move || {
        // Counted when asked for: the page is read every few seconds, the table is 16 MiB.
        let usage = pins.usage(clock::now());
        let (common_log_records, common_log_lost) = log.counts();
        let (call_log_records, call_log_lost) = calls.counts();
        Readings {
            datapath: network.datapath(),
            plan_version: counts.plan_version.load(Ordering::Relaxed),
            reloads_refused: counts.reloads_refused.load(Ordering::Relaxed),
            steering: network.steering_counts(),
            steered: network.steered_counts(),
            common_log_records,
            common_log_lost,
            call_log_records,
            call_log_lost,
            node_draining: plan.load().draining,
            pins: [
                ("unanswered", usage.unanswered),
                ("proceeding", usage.proceeding),
                ("finished", usage.finished),
            ],
        }
    }
}

/// Labels of a plan.
pub(super) fn names(plan: &Plan) -> Names {
    let server = |server: &crate::route::Server| ServerName {
        index: server.index,
        pool: server
            .pool
            .and_then(|pool| plan.pool(pool))
            .map_or_else(String::new, |pool| pool.name.to_string()),
        server: server.name.to_string(),
        state: server.state.as_str(),
        is_watched: server
            .pool
            .and_then(|pool| plan.pool(pool))
            .is_some_and(|pool| pool.health.is_some()),
    };
    Names {
        listeners: plan
            .listeners()
            .iter()
            .map(|listener| listener.name.to_string())
            .collect(),
        pools: plan
            .pools()
            .iter()
            .map(|pool| pool.name.to_string())
            .collect(),
        panics: plan.pools().iter().map(|pool| pool.in_panic).collect(),
        servers: plan.servers().iter().map(server).collect(),
    }
}

/// State changes of servers are events of their own in the log.
pub(super) fn log_changes(old: &Plan, new: &Plan) {
    for server in new.servers() {
        let before = old
            .server(server.index)
            .map(|server| (server.state, server.address));
        if before != Some((server.state, server.address)) {
            info!(
                name = %server.name,
                address = %server.address,
                from = before.map_or("new", |(before, _)| before.as_str()),
                to = server.state.as_str(),
                "server"
            );
        }
    }
}
