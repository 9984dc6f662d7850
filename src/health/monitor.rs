//! All servers at once: who may be taken out, and what changes in the plan.

use std::sync::Arc;

use tracing::{info, warn};

use super::watch::{Cause, Reading, Watch};
use crate::balance::Board;
use crate::config;
use crate::metrics::HealthMetrics;
use crate::net::{PoolIndex, ServerId, ServerIndex};
use crate::route::{Health, OperatorState, Plan, Server, ServerState, Standing};
use crate::time::Instant;

/// A server whose health in the plan is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The server.
    pub server: ServerIndex,
    /// Its stable id.
    pub id: ServerId,
    /// What the plan says.
    pub from: Health,
    /// What it should say.
    pub to: Health,
    /// Whether traffic alone has taken it out.
    pub ejected: bool,
    /// Why.
    pub cause: Cause,
    /// When.
    pub at: Instant,
}

impl Change {
    /// One line in the log: a server that goes is a warning, one that comes back is news.
    pub fn log(&self, plan: &Plan) {
        let server = plan.server(self.server);
        let name = server.map_or("?", |server| &*server.name);
        let (from, to) = (self.from.as_str(), self.to.as_str());
        let cause = self.cause.as_str();
        let ejected = self.ejected;
        if self.to == Health::Down {
            warn!(name, from, to, cause, ejected, "server health");
        } else {
            info!(name, from, to, cause, "server health");
        }
    }

    /// Takes note of the change.
    pub fn apply(&self, standing: &mut Standing) {
        standing.update(self.id, |server| {
            server.health = self.to;
            server.ejected = self.ejected;
            if self.to == Health::Active {
                server.returned_at = Some(self.at);
            }
        });
    }
}

/// Watches every server of every pool that has a `health` table.
#[derive(Debug)]
pub struct Monitor {
    /// By slot.
    watches: Vec<Watch>,
    metrics: Arc<HealthMetrics>,
}

impl Monitor {
    /// A monitor that takes all servers for active, and counts in `metrics`.
    pub fn new(metrics: Arc<HealthMetrics>) -> Self {
        Self {
            watches: Vec::new(),
            metrics,
        }
    }

    /// Looks at everything once; to be called every [`HEALTH_TICK`]. Returns in what the plan should
    /// be different; until it is, each further call says so again.
    ///
    /// [`HEALTH_TICK`]: crate::limits::HEALTH_TICK
    pub fn tick(&mut self, now: Instant, board: &Board, plan: &Plan) -> Vec<Change> {
        self.watches.resize(
            self.watches.len().max(plan.servers().len()),
            Watch::default(),
        );
        let mut suspects = Vec::new();
        for (server, watch) in plan.servers().iter().zip(&mut self.watches) {
            let reading = read(board, server.index);
            match settings(plan, server) {
                _ if server.state == ServerState::Retired => *watch = Watch::default(),
                None => {
                    *watch = Watch::default();
                    watch.skip(&reading);
                }
                // Nobody looks while the operator has it out.
                Some(_) if server.operator == OperatorState::Disabled => watch.skip(&reading),
                Some(settings) => {
                    let metrics = self.metrics.server(server.index);
                    let suspicion = watch.look_at_traffic(now, &reading, settings);
                    watch.judge_probes(now, &reading.probe, settings, metrics);
                    watch.step(now, settings);
                    if let Some(cause) = suspicion.filter(|_| watch.health == Health::Active) {
                        suspects.push((server.index, cause));
                    }
                }
            }
        }
        for (pool, index) in plan.pools().iter().zip(0_u8..) {
            if let Some(settings) = &pool.health {
                self.eject(now, board, plan, PoolIndex(index), settings, &suspects);
            }
        }
        let servers = plan.servers().iter().zip(&self.watches);
        let changes: Vec<Change> = servers
            .filter(|(server, watch)| {
                server.state != ServerState::Retired
                    && (server.health != watch.health || server.ejected != watch.ejected)
            })
            .map(|(server, watch)| Change {
                server: server.index,
                id: server.id,
                from: server.health,
                to: watch.health,
                ejected: watch.ejected,
                cause: watch.cause,
                at: now,
            })
            .collect();
        for change in &changes {
            let metrics = self.metrics.server(change.server);
            if change.from != change.to {
                metrics.transition(change.to as usize);
            }
            if change.ejected
                && change.from == Health::Active
                && let Some(cause) = change.cause.traffic()
            {
                metrics.ejection(cause);
            }
        }
        changes
    }

    /// Takes out the servers of a pool that their traffic speaks against, as many as may be.
    fn eject(
        &mut self,
        now: Instant,
        board: &Board,
        plan: &Plan,
        pool: PoolIndex,
        settings: &config::Health,
        suspects: &[(ServerIndex, Cause)],
    ) {
        // Servers that the operator keeps from calls are neither lost nor left.
        let members: Vec<ServerIndex> = plan
            .servers()
            .iter()
            .filter(|server| server.pool == Some(pool) && server.is_enabled())
            .map(|server| server.index)
            .collect();
        let allowed = members.len() * settings.max_ejected_percent as usize / 100;
        let mut ejected: Vec<ServerIndex> = members
            .iter()
            .copied()
            .filter(|server| self.watch(*server).ejected)
            .collect();
        // A drain or a reload has made the pool smaller.
        ejected.sort_by_key(|server| self.watch(*server).until);
        while ejected.len() > allowed {
            let first = ejected.remove(0);
            self.change(first, |watch| watch.come_back(now, Cause::TooMany));
        }
        let mut room = allowed - ejected.len();
        // RFC 3261 §21.5.4 lets a server ask; a carrier's 503 that every server relays asks in the
        // name of all of them, and then it is not the servers.
        let asking = |server: &&ServerIndex| board.retry_after_until(**server) > now;
        let all_ask = members.iter().filter(asking).count() > allowed;
        let of_pool = suspects
            .iter()
            .filter(|(server, _)| members.contains(server));
        for (server, cause) in of_pool {
            if room == 0 {
                return;
            }
            if *cause == Cause::RetryAfter && all_ask {
                continue;
            }
            let until = board.retry_after_until(*server);
            self.change(*server, |watch| watch.eject(now, *cause, until));
            room -= 1;
        }
        while room > 0
            && let Some(worst) = self.worst(now, settings, &members)
        {
            let until = Instant::ZERO;
            self.change(worst, |watch| watch.eject(now, Cause::Errors, until));
            room -= 1;
        }
    }

    /// The server with the highest share of 5xx, if that is too high and its own: where every server
    /// fails as often, it is what they are asked, not who is.
    fn worst(
        &self,
        now: Instant,
        settings: &config::Health,
        members: &[ServerIndex],
    ) -> Option<ServerIndex> {
        let limit = u64::from(settings.eject_5xx_percent);
        if limit == 0 {
            return None;
        }
        let shares = members.iter().filter_map(|server| {
            let watch = self.watch(*server);
            let share = watch.errors(now)?;
            (watch.health == Health::Active).then_some((share, *server))
        });
        let best = shares.clone().min_by_key(|(share, _)| *share)?.0;
        let (share, server) = shares.max_by_key(|(share, _)| *share)?;
        (share >= limit && best * 2 <= share).then_some(server)
    }

    fn watch(&self, server: ServerIndex) -> Watch {
        let watch = self.watches.get(usize::from(server.0));
        watch.copied().unwrap_or_default()
    }

    fn change(&mut self, server: ServerIndex, change: impl FnOnce(&mut Watch)) {
        if let Some(watch) = self.watches.get_mut(usize::from(server.0)) {
            change(watch);
        }
    }
}

fn settings<'p>(plan: &'p Plan, server: &Server) -> Option<&'p config::Health> {
    plan.pool(server.pool?)?.health.as_deref()
}

fn read(board: &Board, server: ServerIndex) -> Reading {
    Reading {
        outcomes: board.outcomes(server),
        probe: board.probe(server),
        retry_after_until: board.retry_after_until(server),
    }
}
