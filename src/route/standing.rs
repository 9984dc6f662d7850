//! What is known of servers besides the configuration: the [`Standing`].
//!
//! Health checks and the operator change it while the process runs, a reload does not: a server that
//! is down stays down when the file is read again. Entries are kept by the stable id of a server's
//! name. A plan is built from both, so the data path learns of a change as it learns of a reload.

use std::collections::{BTreeMap, BTreeSet};

use super::registry::server_id;
use crate::config::{self, Config};
use crate::net::ServerId;
use crate::time::Instant;

/// Whether a server answers, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It answers, or nothing is known: a server begins so.
    #[default]
    Active,
    /// It was down and answers again, not yet often enough: no new calls.
    Probing,
    /// It does not answer, or its answers show that it does not work: no new calls.
    Down,
}

impl Health {
    /// Name in logs and on the control socket.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Probing => "probing",
            Self::Down => "down",
        }
    }
}

/// What the operator wants of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OperatorState {
    /// What its health allows.
    #[default]
    Enabled,
    /// No new calls; what it has goes on, pinned transactions too.
    Draining,
    /// As a server that is down, and not even probed. Requests of its dialogs still go there: no
    /// other server knows them.
    Disabled,
}

impl OperatorState {
    /// Name in logs and on the control socket.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }
}

/// What is known of one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStanding {
    /// Whether it answers.
    pub health: Health,
    /// Its traffic alone has taken it out, no probe: a pool that loses too many servers in this way
    /// goes on as if they were up.
    pub ejected: bool,
    /// What the operator wants.
    pub operator: OperatorState,
    /// Weight in place of the configured one.
    pub weight: Option<u32>,
    /// When it came back from being down: its share grows from here (slow start).
    pub returned_at: Option<Instant>,
}

/// What is known of all servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    servers: BTreeMap<ServerId, ServerStanding>,
    /// Servers that are in no file, with the name of their pool.
    added: Vec<(String, config::Server)>,
    /// Servers of the file that count as not configured.
    removed: BTreeSet<ServerId>,
}

impl Standing {
    /// Nothing known: every server is active, enabled and has its configured weight.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known of a server.
    pub fn of(&self, id: ServerId) -> ServerStanding {
        self.servers.get(&id).copied().unwrap_or_default()
    }

    /// Replaces what is known of a server.
    pub fn set(&mut self, id: ServerId, standing: ServerStanding) {
        if standing == ServerStanding::default() {
            self.servers.remove(&id);
        } else {
            self.servers.insert(id, standing);
        }
    }

    /// Changes what is known of a server.
    pub fn update(&mut self, id: ServerId, change: impl FnOnce(&mut ServerStanding)) {
        let mut standing = self.of(id);
        change(&mut standing);
        self.set(id, standing);
    }

    /// Adds a server to a pool, or changes one that was added. Whether name and address are free,
    /// the caller has looked.
    pub fn add(&mut self, pool: &str, server: config::Server) {
        self.removed.remove(&server_id(&server.name));
        self.added.retain(|(_, known)| known.name != server.name);
        self.added.push((pool.to_owned(), server));
    }

    /// Takes a server out of its pool, as if it were no longer configured.
    pub fn remove(&mut self, name: &str) {
        self.added.retain(|(_, known)| known.name != name);
        self.removed.insert(server_id(name));
        self.servers.remove(&server_id(name));
    }

    /// A server of the file that was taken out is back in its pool.
    pub fn restore(&mut self, id: ServerId) {
        self.removed.remove(&id);
    }

    /// Whether a server of the file was taken out.
    pub fn is_removed(&self, id: ServerId) -> bool {
        self.removed.contains(&id)
    }

    /// Whether a server is in no file.
    pub fn is_added(&self, name: &str) -> bool {
        self.added.iter().any(|(_, server)| server.name == name)
    }

    /// Takes note that a file has changed: where it now says something else of a server than it did,
    /// it has the last word. Returns what is no longer so, in words.
    ///
    /// A changed weight takes the place of the operator's. A server that was taken out and whose
    /// entry has changed is back.
    pub fn yield_to(&mut self, old: &Config, new: &Config) -> Vec<String> {
        let servers = |config: &Config| -> BTreeMap<String, (String, config::Server)> {
            let of_pool = |pool: &config::Pool| {
                let name = pool.name.clone();
                let pairs = pool.servers.iter();
                pairs
                    .map(|server| (server.name.clone(), (name.clone(), server.clone())))
                    .collect::<Vec<_>>()
            };
            config.pools.iter().flat_map(of_pool).collect()
        };
        let (old, new) = (servers(old), servers(new));
        let mut said = Vec::new();
        for (name, now) in &new {
            let id = server_id(name);
            let before = old.get(name);
            if before.is_some_and(|before| before == now) {
                continue;
            }
            if self.is_added(name) {
                said.push(format!("{name}: added at run time, now the file names it"));
            }
            if self.removed.remove(&id) {
                said.push(format!(
                    "{name}: removed at run time, now the file names it anew"
                ));
            }
            let is_same_weight = before.is_some_and(|(_, before)| before.weight == now.1.weight);
            if let Some(weight) = self.of(id).weight.filter(|_| !is_same_weight) {
                self.update(id, |standing| standing.weight = None);
                let file = now.1.weight;
                said.push(format!(
                    "{name}: weight {weight} of run time, now {file} of the file"
                ));
            }
        }
        said
    }

    /// The servers of a pool: those of the file that are not removed, then those added.
    pub fn members<'a>(
        &'a self,
        pool: &'a config::Pool,
    ) -> impl Iterator<Item = &'a config::Server> {
        let configured = pool.servers.iter();
        let added = self.added.iter().filter(|(name, _)| *name == pool.name);
        configured
            .filter(|server| !self.removed.contains(&server_id(&server.name)))
            .chain(added.map(|(_, server)| server))
    }

    /// Takes note of a file just read: what it now says itself need not be remembered, and of a
    /// server that is gone nothing is known. Where file and memory differ, the file has the added
    /// server's address and weight. What the file has changed since it was read before,
    /// [`yield_to`](Self::yield_to) looks at.
    pub fn settle(&mut self, config: &Config) {
        let configured: BTreeSet<ServerId> = config
            .pools
            .iter()
            .flat_map(|pool| &pool.servers)
            .map(|server| server_id(&server.name))
            .collect();
        let is_pool = |name: &str| config.pools.iter().any(|pool| pool.name == name);
        self.added.retain(|(pool, server)| {
            is_pool(pool) && !configured.contains(&server_id(&server.name))
        });
        self.removed.retain(|id| configured.contains(id));
        let added: BTreeSet<ServerId> = self
            .added
            .iter()
            .map(|(_, server)| server_id(&server.name))
            .collect();
        self.servers
            .retain(|id, _| configured.contains(id) || added.contains(id));
    }
}

#[cfg(test)]
mod tests;
