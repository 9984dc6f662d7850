//! What an operator asks of the running process on the control socket.
//!
//! Everything here runs where plans are published: what a command changes it changes in the
//! [`Standing`](crate::route::Standing), and a new plan is what becomes of it. A drain is a state of
//! a server and a clock here: when the server has no calls left, or at the deadline, it is disabled.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tracing::info;

use super::Process;
use crate::admin::{Command, NodeState, Reply};
use crate::config;
use crate::limits::WEIGHT_MAX;
use crate::net::ServerId;
use crate::route::{OperatorState, server_id};
use crate::sys::clock;
use crate::time::Instant;

/// Looks, a second apart, that must find a draining server without calls: a worker may have chosen
/// it a moment before it learned of the drain.
const IDLE_LOOKS: u32 = 2;

/// Looks, a second apart, that must find no open transaction before a drained process ends: whoever
/// routes to it learns of the drain by its next probe, and may send a call until then.
const IDLE_LOOKS_STOP: u32 = 5;

/// Servers that an error names.
const NAMED_MAX: usize = 8;

/// A server that is drained.
#[derive(Clone, Debug)]
struct Drain {
    name: String,
    since: Instant,
    deadline: Option<Instant>,
    /// Looks in a row that found no calls.
    idle: u32,
}

/// What the operator's commands leave behind besides the standing of servers.
#[derive(Debug, Default)]
pub(super) struct Desk {
    drains: BTreeMap<ServerId, Drain>,
    /// This node wants no traffic.
    pub(super) node_draining: bool,
    /// The process is to end: at this time, or before, see [`Process::may_stop`].
    stop_at: Option<Instant>,
    /// Looks in a row that found no open transaction since.
    idle: u32,
}

/// A server as a command names it.
struct Named {
    name: String,
    pool: String,
    id: ServerId,
}

impl Process {
    /// Does what a command says.
    pub(super) fn on_command(&mut self, command: Command) -> Reply {
        match command {
            Command::List { pool } => self.list(pool.as_deref()),
            Command::Drain {
                server,
                deadline_seconds,
            } => self.drain(&server, deadline_seconds),
            Command::Enable { server } => self.enable(&server),
            Command::Disable { server } => self.disable(&server),
            Command::Weight { server, weight } => self.weigh(&server, weight),
            Command::Add {
                pool,
                name,
                address,
                weight,
            } => {
                let server = config::Server::checked(&name, address, weight.unwrap_or(1))?;
                self.add(&pool, server)
            }
            Command::Remove { server } => self.remove(&server),
            Command::Node { state } => self.node(state),
            Command::Explain { call_id } => self.explain(call_id.as_bytes()),
        }
    }

    /// To be called each second: ends drains that have come to their end.
    pub(super) fn look_at_drains(&mut self) {
        let now = clock::now();
        let counted = self.counts_calls();
        let mut ended = Vec::new();
        let mut drains = core::mem::take(&mut self.desk.drains);
        drains.retain(|id, drain| {
            let standing = self.standing.of(*id);
            let is_known = self.plan.load().server_by_id(*id).is_some();
            // Enabled or disabled by hand, or gone from the file.
            if standing.operator != OperatorState::Draining || !is_known {
                return false;
            }
            let left = self.calls_left(*id);
            drain.idle = if counted && left == 0 {
                drain.idle + 1
            } else {
                0
            };
            let is_over = drain.deadline.is_some_and(|deadline| now >= deadline);
            if drain.idle < IDLE_LOOKS && !is_over {
                return true;
            }
            ended.push((*id, drain.clone(), left));
            false
        });
        self.desk.drains = drains;
        for (id, drain, left) in ended {
            let seconds = now.since(drain.since).as_secs();
            let why = match drain.idle >= IDLE_LOOKS {
                true => "it has no calls left",
                false => "its deadline has come",
            };
            let calls = counted.then_some(left);
            info!(name = %drain.name, calls, seconds, why, "server drained, disabled");
            let done = self.change_standing(&format!("{} is drained", drain.name), |standing| {
                standing.update(id, |of| of.operator = OperatorState::Disabled);
            });
            if let Err(error) = done {
                tracing::error!(name = %drain.name, "cannot be disabled: {error}");
            }
        }
    }

    /// Calls and open transactions of a server.
    fn calls_left(&self, id: ServerId) -> u64 {
        let plan = self.plan.load();
        plan.server_by_id(id).map_or(0, |server| {
            let load = self.board.load(server.index);
            u64::from(load.calls) + u64::from(load.open())
        })
    }

    /// Transactions that are open, at all servers.
    fn open_transactions(&self) -> u64 {
        let plan = self.plan.load();
        let servers = plan.servers().iter();
        servers
            .map(|server| u64::from(self.board.load(server.index).open()))
            .sum()
    }

    /// Whether calls are counted at all: without a transaction nobody knows of a call.
    pub(super) fn counts_calls(&self) -> bool {
        let mut listeners = self.config.listeners.iter();
        listeners.any(|of| of.stateful.iter().any(|method| method == "INVITE"))
    }

    fn drain(&mut self, text: &str, deadline_seconds: Option<u64>) -> Reply {
        let server = self.named(text)?;
        if !self.counts_calls() && deadline_seconds.is_none() {
            return Err(format!(
                "{}: no listener handles INVITE with a transaction, so its calls are not counted \
                 and the drain would not end: say --deadline",
                server.name
            ));
        }
        let now = clock::now();
        let why = format!("{} is to be drained", server.name);
        self.set_operator(&server, OperatorState::Draining, &why)?;
        let deadline = deadline_seconds.map(|seconds| now + Duration::from_secs(seconds));
        let drains = &mut self.desk.drains;
        let since = drains.get(&server.id).map_or(now, |drain| drain.since);
        drains.insert(
            server.id,
            Drain {
                name: server.name.clone(),
                since,
                deadline,
                idle: 0,
            },
        );
        self.tell(&server)
    }

    fn enable(&mut self, text: &str) -> Reply {
        let server = self.named_or_removed(text)?;
        let id = server.id;
        self.change(&format!("{} is enabled", server.name), |standing| {
            standing.restore(id);
            standing.update(id, |of| of.operator = OperatorState::Enabled);
        })?;
        self.desk.drains.remove(&id);
        self.tell(&server)
    }

    fn disable(&mut self, text: &str) -> Reply {
        let server = self.named(text)?;
        let why = format!("{} is disabled", server.name);
        self.set_operator(&server, OperatorState::Disabled, &why)?;
        self.desk.drains.remove(&server.id);
        self.tell(&server)
    }

    fn weigh(&mut self, text: &str, weight: Option<u32>) -> Reply {
        let server = self.named(text)?;
        if let Some(weight) = weight.filter(|weight| *weight > WEIGHT_MAX) {
            return Err(format!("weight: {weight} is outside 0..={WEIGHT_MAX}"));
        }
        let id = server.id;
        let why = match weight {
            Some(weight) => format!("{} gets weight {weight}", server.name),
            None => format!("{} gets the weight of the file", server.name),
        };
        self.change(&why, |standing| {
            standing.update(id, |of| of.weight = weight);
        })?;
        self.tell(&server)
    }

    fn add(&mut self, pool: &str, server: config::Server) -> Reply {
        if !self.config.pools.iter().any(|of| of.name == pool) {
            return Err(self.no_pool(pool));
        }
        let id = server_id(&server.name);
        let name = server.name.clone();
        if self.standing.is_removed(id) {
            return Err(format!(
                "{name} is in the file and was removed: `enable` brings it back"
            ));
        }
        if self.members().any(|(_, known)| known.name == name) {
            return Err(format!("{name}: there is a server of that name"));
        }
        let mut listeners = self.config.listeners.iter();
        if listeners.any(|listener| listener.address == server.address) {
            return Err(format!("{}: is one of our listeners", server.address));
        }
        if let Some((of, known)) = self
            .members()
            .find(|(of, known)| *of == pool && known.address == server.address)
        {
            return Err(format!(
                "{}: is the address of {of}/{}",
                server.address, known.name
            ));
        }
        self.change(&format!("{name} is added"), |standing| {
            standing.add(pool, server);
        })?;
        self.take_lists()?;
        self.tell(&self.named(&name)?)
    }

    fn remove(&mut self, text: &str) -> Reply {
        let server = self.named(text)?;
        let pool = self.members().filter(|(pool, _)| *pool == server.pool);
        if pool.count() <= 1 {
            return Err(format!(
                "{} is the last server of pool {}: `disable` takes it out",
                server.name, server.pool
            ));
        }
        self.change(&format!("{} is removed", server.name), |standing| {
            standing.remove(&server.name);
        })?;
        self.take_lists()?;
        self.desk.drains.remove(&server.id);
        let mut fields = Map::new();
        fields.insert("server".to_owned(), server.name.into());
        fields.insert("pool".to_owned(), server.pool.into());
        fields.insert("state".to_owned(), "removed".into());
        Ok(fields)
    }

    fn node(&mut self, state: NodeState) -> Reply {
        self.drain_node(state == NodeState::Drain);
        Ok(fields(json!({ "node": self.tell_node() })))
    }

    /// Says from now on, or no longer, that this node wants no traffic.
    pub(super) fn drain_node(&mut self, draining: bool) {
        if self.desk.node_draining != draining {
            self.desk.node_draining = draining;
            let plan = (**self.plan.load()).clone();
            let why = match draining {
                true => "the node is drained",
                false => "the node is enabled",
            };
            self.publish(plan, why);
        }
    }

    /// A signal says that the process is to end: whether at once. Else the node is drained from here
    /// on, and [`may_stop`](Self::may_stop) says when.
    pub(super) fn stop_at_once(&mut self) -> bool {
        let span = self.config.control.drain_on_stop;
        if span.is_zero() || self.desk.stop_at.is_some() {
            return true;
        }
        info!(
            seconds = span.as_secs(),
            "stopping: the node is drained first"
        );
        self.drain_node(true);
        self.desk.stop_at = Some(clock::now() + span);
        false
    }

    /// To be called each second: whether a process that is to end may.
    pub(super) fn may_stop(&mut self) -> bool {
        let Some(stop_at) = self.desk.stop_at else {
            return false;
        };
        let is_idle = self.counts_calls() && self.open_transactions() == 0;
        self.desk.idle = if is_idle { self.desk.idle + 1 } else { 0 };
        self.desk.idle >= IDLE_LOOKS_STOP || clock::now() >= stop_at
    }

    fn set_operator(
        &mut self,
        server: &Named,
        state: OperatorState,
        why: &str,
    ) -> Result<(), String> {
        let id = server.id;
        self.change(why, |standing| {
            standing.update(id, |of| of.operator = state);
        })
    }

    fn change(
        &mut self,
        why: &str,
        change: impl FnOnce(&mut crate::route::Standing),
    ) -> Result<(), String> {
        self.change_standing(why, change)
            .map_err(|error| error.to_string())
    }

    /// The sources that the steering program lets through follow the farm.
    fn take_lists(&self) -> Result<(), String> {
        let plan = self.plan.load();
        self.network
            .take_lists(&self.config, &plan)
            .map_err(|error| error.to_string())
    }

    // ---- names ----------------------------------------------------------------------------------

    /// Every server that is in a pool, with the pool's name.
    fn members(&self) -> impl Iterator<Item = (&str, &config::Server)> {
        let pools = self.config.pools.iter();
        pools.flat_map(|pool| {
            let members = self.standing.members(pool);
            members.map(|server| (pool.name.as_str(), server))
        })
    }

    fn named(&self, text: &str) -> Result<Named, String> {
        let found = self.members().find_map(|of| named(of, text));
        if let Some(found) = found {
            return Ok(found);
        }
        if self.removed().any(|of| named(of, text).is_some()) {
            return Err(format!("{text} was removed: `enable` brings it back"));
        }
        let mut names: Vec<String> = self
            .members()
            .map(|(pool, server)| format!("{pool}/{}", server.name))
            .collect();
        let more = names.len().saturating_sub(NAMED_MAX);
        names.truncate(NAMED_MAX);
        if more > 0 {
            names.push(format!("{more} more"));
        }
        Err(format!(
            "no server {text:?}; there are {}",
            names.join(", ")
        ))
    }

    fn named_or_removed(&self, text: &str) -> Result<Named, String> {
        match self.removed().find_map(|of| named(of, text)) {
            Some(removed) => Ok(removed),
            None => self.named(text),
        }
    }

    /// Servers of the file that were removed.
    pub(super) fn removed(&self) -> impl Iterator<Item = (&str, &config::Server)> {
        let pools = self.config.pools.iter();
        let all = pools.flat_map(|pool| {
            let servers = pool.servers.iter();
            servers.map(|server| (pool.name.as_str(), server))
        });
        all.filter(|(_, server)| self.standing.is_removed(server_id(&server.name)))
    }

    fn no_pool(&self, pool: &str) -> String {
        let pools = self.config.pools.iter();
        let names: Vec<&str> = pools.map(|pool| pool.name.as_str()).collect();
        format!("no pool {pool:?}; there are {}", names.join(", "))
    }

    // ---- telling --------------------------------------------------------------------------------

    fn list(&self, pool: Option<&str>) -> Reply {
        if let Some(pool) = pool
            && !self.config.pools.iter().any(|of| of.name == pool)
        {
            return Err(self.no_pool(pool));
        }
        let pools = self.config.pools.iter();
        let pools: Vec<Value> = pools
            .filter(|of| pool.is_none_or(|pool| of.name == pool))
            .map(|of| {
                let members = self.standing.members(of);
                let mut servers: Vec<Value> = members.map(|server| self.server(server)).collect();
                let removed = self.removed().filter(|(pool, _)| *pool == of.name);
                servers.extend(removed.map(|(_, server)| {
                    json!({
                        "name": server.name,
                        "address": server.address.to_string(),
                        "weight": 0,
                        "weight_in_file": server.weight,
                        "state": "removed",
                        "operator": "removed",
                        "origin": "file",
                    })
                }));
                json!({ "name": of.name, "servers": servers })
            })
            .collect();
        Ok(fields(json!({
            "node": self.tell_node(),
            "plan": self.plan.load().version,
            "calls_counted": self.counts_calls(),
            "pools": pools,
        })))
    }

    fn tell_node(&self) -> Value {
        json!({
            "number": self.config.node,
            "state": match self.desk.node_draining {
                true => "draining",
                false => "enabled",
            },
            "transactions": self.counts_calls().then(|| self.open_transactions()),
        })
    }

    /// One server, as an answer of its own.
    fn tell(&self, server: &Named) -> Reply {
        let found = self
            .members()
            .find(|(_, known)| known.name == server.name)
            .map(|(_, known)| self.server(known));
        let mut told = fields(found.unwrap_or_default());
        told.insert("server".to_owned(), server.name.as_str().into());
        told.insert("pool".to_owned(), server.pool.as_str().into());
        Ok(told)
    }

    fn server(&self, server: &config::Server) -> Value {
        let id = server_id(&server.name);
        let standing = self.standing.of(id);
        let plan = self.plan.load();
        let Some(planned) = plan.server_by_id(id) else {
            return Value::Null;
        };
        let is_added = self.standing.is_added(&server.name);
        let load = self.board.load(planned.index);
        let counted = self.counts_calls();
        let now = clock::now();
        let drain = self.desk.drains.get(&id).map(|drain| {
            let left = drain.deadline.map(|deadline| deadline.since(now).as_secs());
            json!({
                "for_seconds": now.since(drain.since).as_secs(),
                "deadline_in_seconds": left,
            })
        });
        json!({
            "name": server.name,
            "address": planned.address.to_string(),
            "weight": standing.weight.unwrap_or(server.weight),
            // What counts again when the operator's word is taken back.
            "weight_in_file": (!is_added).then_some(server.weight),
            "priority": server.priority,
            "state": planned.state.as_str(),
            "health": planned.health.as_str(),
            "operator": standing.operator.as_str(),
            "origin": if is_added { "runtime" } else { "file" },
            "since": self.activity.since(planned.index).map(crate::journal::rfc3339),
            "calls": counted.then_some(load.calls),
            "transactions": counted.then(|| load.open()),
            "new_calls_per_second": self.activity.rate(planned.index),
            "drain": drain,
        })
    }
}

/// The server of a pool, if `text` names it: `pool/server` or the name alone.
fn named((pool, server): (&str, &config::Server), text: &str) -> Option<Named> {
    let is_named = match text.split_once('/') {
        Some((of, name)) => of == pool && name == server.name,
        None => text == server.name,
    };
    is_named.then(|| Named {
        name: server.name.clone(),
        pool: pool.to_owned(),
        id: server_id(&server.name),
    })
}

/// The fields of an object.
pub(super) fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
