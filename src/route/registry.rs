//! The servers of the process's life: name to slot, never reused.
//!
//! A pin or a counter speaks of a slot, a token of an id. Both must mean the same server after any
//! number of reloads, so a name keeps its slot for ever and a removed server keeps its last address:
//! calls that ring or talk there are still routed to it.

use core::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::limits::SERVERS_MAX;
use crate::net::{Network, ServerId, ServerIndex, SocketAddr};

/// Names of servers and what was last known of each.
#[derive(Clone, Debug, Default)]
pub struct ServerRegistry {
    entries: Vec<Entry>,
}

/// What is last known of a server.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) id: ServerId,
    pub(super) address: SocketAddr,
    /// Where its packets come from.
    pub(super) networks: Vec<Network>,
    pub(super) pool: u32,
}

/// A server cannot be given a slot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Too many distinct names since the process started.
    #[error(
        "server {0:?}: more than {SERVERS_MAX} server names since the start; restart to forget removed ones"
    )]
    Full(String),
    /// Two names have one id.
    #[error("servers {0:?} and {1:?} have the same 32-bit id; rename one of them")]
    Collision(String, String),
}

impl ServerRegistry {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The slot of `name`, made if it is new.
    pub(super) fn register(
        &mut self,
        name: &str,
        address: SocketAddr,
        networks: Vec<Network>,
        pool: u32,
    ) -> Result<ServerIndex, RegistryError> {
        let id = server_id(name);
        let slot = match self.entries.iter().position(|entry| entry.id == id) {
            Some(slot) => slot,
            None if self.entries.len() >= SERVERS_MAX => {
                return Err(RegistryError::Full(name.to_owned()));
            }
            None => self.entries.len(),
        };
        let entry = Entry {
            name: name.to_owned(),
            id,
            address,
            networks,
            pool,
        };
        match self.entries.get_mut(slot) {
            Some(known) if known.name != name => {
                return Err(RegistryError::Collision(known.name.clone(), entry.name));
            }
            Some(known) => *known = entry,
            None => self.entries.push(entry),
        }
        u16::try_from(slot)
            .map(ServerIndex)
            .map_err(|_| RegistryError::Full(name.to_owned()))
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The name in a slot.
    pub fn name(&self, index: ServerIndex) -> Option<&str> {
        self.entries
            .get(usize::from(index.0))
            .map(|entry| entry.name.as_str())
    }

    /// How many slots are taken.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no slot is taken.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The id of a server name: the same on every node and after every restart, so not keyed.
pub fn server_id(name: &str) -> ServerId {
    let hash = stable_hash(name);
    // 0 is ServerId::OUTSIDE.
    ServerId(hash.max(1))
}

/// A hash of a configured name that no restart changes.
pub(super) fn stable_hash(name: &str) -> u32 {
    let mut hasher = SipHasher13::new();
    hasher.write(name.as_bytes());
    let hash = hasher.finish();
    u32::try_from(hash >> 32).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_keeps_its_slot_and_takes_a_new_address() {
        let mut registry = ServerRegistry::new();
        let first = registry
            .register("s1", at("198.18.1.1:5060"), vec![], 1)
            .unwrap();
        let second = registry
            .register("s2", at("198.18.1.2:5060"), vec![], 1)
            .unwrap();
        assert_ne!(first, second);
        assert_eq!(
            registry.register("s1", at("198.18.1.9:5060"), vec![], 1),
            Ok(first)
        );
        assert_eq!(registry.name(first), Some("s1"));
        assert_eq!(registry.entries()[0].address, at("198.18.1.9:5060"));
        assert_eq!(registry.len(), 2);
    }

    #[test]
    fn ids_are_never_outside_and_never_shared() {
        assert_ne!(server_id("s1"), ServerId::OUTSIDE);
        let mut registry = ServerRegistry::new();
        registry
            .register("s1", at("198.18.1.1:5060"), vec![], 1)
            .unwrap();
        registry.entries[0].name = "other".to_owned();
        assert_eq!(
            registry.register("s1", at("198.18.1.1:5060"), vec![], 1),
            Err(RegistryError::Collision(
                "other".to_owned(),
                "s1".to_owned()
            ))
        );
    }

    #[test]
    fn the_last_slot_is_given_and_the_next_refused() {
        let mut registry = ServerRegistry::new();
        for number in 0..SERVERS_MAX {
            registry
                .register(
                    &format!("server-{number}"),
                    at("198.18.1.1:5060"),
                    vec![],
                    1,
                )
                .unwrap();
        }
        assert!(
            registry
                .register("server-0", at("198.18.1.1:5060"), vec![], 1)
                .is_ok()
        );
        assert_eq!(
            registry.register("one-more", at("198.18.1.1:5060"), vec![], 1),
            Err(RegistryError::Full("one-more".to_owned()))
        );
    }
}
