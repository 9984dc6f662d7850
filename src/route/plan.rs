//! The plan: everything a decision reads besides the message, as one immutable snapshot.

use std::sync::Arc;

use super::networks::{AddressMap, Networks, address_key};
use super::registry::{RegistryError, ServerRegistry, stable_hash};
use super::{Direction, Listener};
use crate::affinity::Keys;
use crate::balance::{AffinityKey, Maglev, Member, StatelessSelect, TableError};
use crate::config::{Config, Reach, Side};
use crate::limits::{LISTENERS_MAX, POOLS_MAX};
use crate::net::{IpAddr, ListenerIndex, Network, PoolIndex, ServerId, ServerIndex, SocketAddr};

/// A server as the decide layers see it.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its slot.
    pub index: ServerIndex,
    /// Its stable id.
    pub id: ServerId,
    /// Name in logs and metrics.
    pub name: Box<str>,
    /// Where its SIP port is.
    pub address: SocketAddr,
    /// What may be sent to it.
    pub state: ServerState,
    /// Whether it answers. Health checks come later; until then every server is up.
    pub up: bool,
    /// Its pool, or the one it was last in: `None` if that pool is gone.
    pub pool: Option<PoolIndex>,
    /// A stable number of that pool, mixed into the key of its pins.
    pub pool_id: u32,
    networks: Networks,
}

impl Server {
    /// Whether a packet from `address` may be this server's. Ports are never compared.
    #[inline]
    pub fn sends_from(&self, address: IpAddr) -> bool {
        self.address.ip() == address || self.networks.contains(address)
    }
}

/// What may be sent to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// New calls and old ones.
    Active,
    /// Old calls only: its weight is 0.
    Draining,
    /// No longer configured; pins and tokens still lead there.
    Retired,
}

/// A farm of servers.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Name in logs and metrics.
    pub name: Box<str>,
    /// How a server is addressed.
    pub reach: Reach,
    /// Largest request sent over UDP.
    pub udp_max_request: Option<usize>,
    /// A stable number, mixed into the key of its pins.
    pub id: u32,
    table: Option<Arc<Maglev>>,
}

impl Pool {
    /// The server of a key; `None` if no server takes new calls.
    #[inline]
    pub fn select(&self, key: AffinityKey) -> Option<ServerIndex> {
        self.table.as_ref()?.select(key)
    }

    /// Whether a server takes new calls.
    pub fn is_up(&self) -> bool {
        self.table.is_some()
    }
}

/// SIP rules with a choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `Max-Breadth` added or capped.
    pub max_breadth: u32,
    /// Own Vias in a request before it is a loop.
    pub own_vias_max: usize,
    /// Proxy-Require option tags that the farm understands.
    pub proxy_require: Box<[Box<str>]>,
    /// Answers of our own per second, all sources together.
    pub answers_per_second: Option<u32>,
}

/// One rule of the route table. A rule without conditions always matches; more conditions (method,
/// domain, source) join the listener when the table learns them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    listener: Option<ListenerIndex>,
    pool: PoolIndex,
}

/// The snapshot.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Number of this node.
    pub node: u8,
    /// SIP rules with a choice.
    pub rules: Rules,
    listeners: Box<[Listener]>,
    pools: Box<[Pool]>,
    // INVARIANT: the server in slot n is at position n.
    servers: Box<[Server]>,
    routes: Box<[Rule]>,
    // INVARIANT: sorted by id.
    servers_by_id: Box<[(ServerId, ServerIndex)]>,
    servers_by_address: AddressMap<ServerIndex>,
    farm: Networks,
    trusted: Networks,
    own: AddressMap<ListenerIndex>,
    own_hosts: Box<[u128]>,
    own_names: Box<[(Box<[u8]>, ListenerIndex)]>,
    /// First listener per side and family: `[side][is_ipv6]`.
    by_side: [[Option<ListenerIndex>; 2]; 2],
}

/// A configuration cannot become a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A server cannot be given a slot.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The lookup table of a pool cannot be built.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A route names a listener or pool that is not there.
    #[error("routes[{0}]: no such listener or pool")]
    Route(usize),
    /// More listeners or pools than the limits allow, or none.
    #[error("{0}: {1} is outside 1..={2}")]
    Count(&'static str, usize, usize),
}

impl Plan {
    /// Builds the snapshot of `config`. On failure `registry` is unchanged.
    ///
    /// # Errors
    /// What the configuration's own check cannot see: slots and ids of servers.
    pub fn build(
        config: &Config,
        registry: &mut ServerRegistry,
        keys: &Keys,
    ) -> Result<Self, PlanError> {
        let mut known = registry.clone();
        let plan = Builder::new(config)?.build(&mut known, keys)?;
        *registry = known;
        Ok(plan)
    }

    /// Every listener, in the order of the configuration.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// A listener.
    #[inline]
    pub fn listener(&self, index: ListenerIndex) -> Option<&Listener> {
        self.listeners.get(usize::from(index.0))
    }

    /// The listener bound to or advertised as `address`.
    #[inline]
    pub fn listener_at(&self, address: SocketAddr) -> Option<ListenerIndex> {
        self.own.find(address.ip(), address.port())
    }

    /// Every pool, in the order of the configuration.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// A pool.
    #[inline]
    pub fn pool(&self, index: PoolIndex) -> Option<&Pool> {
        self.pools.get(usize::from(index.0))
    }

    /// Every server ever known, by slot.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The server in a slot.
    #[inline]
    pub fn server(&self, index: ServerIndex) -> Option<&Server> {
        self.servers.get(usize::from(index.0))
    }

    /// The server of a token's id.
    #[inline]
    pub fn server_by_id(&self, id: ServerId) -> Option<&Server> {
        let at = self
            .servers_by_id
            .binary_search_by_key(&id, |(id, _)| *id)
            .ok()?;
        self.server(self.servers_by_id.get(at)?.1)
    }

    /// The server at an address; another port of its host counts too, if no server has that port.
    #[inline]
    pub fn server_at(&self, address: SocketAddr) -> Option<&Server> {
        self.server(
            self.servers_by_address
                .find_host(address.ip(), address.port())?,
        )
    }

    /// Where a datagram from `source` comes from.
    #[inline]
    pub fn direction(&self, source: IpAddr) -> Direction {
        if self.is_farm(source) {
            Direction::Farm
        } else if self.trusted.contains(source) {
            Direction::Trusted
        } else {
            Direction::Outside
        }
    }

    /// Whether an address is in the farm.
    #[inline]
    pub fn is_farm(&self, address: IpAddr) -> bool {
        self.farm.contains(address)
    }

    /// Whether an IP address is one of ours, whatever the port.
    #[inline]
    pub fn is_own_host(&self, address: IpAddr) -> bool {
        self.own_hosts.contains(&address_key(address))
    }

    /// The listener that a host name means, if it is ours and `port` is absent or a port of ours.
    pub fn listener_named(&self, name: &[u8], port: Option<u16>) -> Option<ListenerIndex> {
        // RFC 3261 §19.1.4: host names compare case-insensitively; a final dot is the root.
        let name = name.strip_suffix(b".").unwrap_or(name);
        let (_, index) = self
            .own_names
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))?;
        let listener = self.listener(*index)?;
        let served = port.is_none_or(|port| {
            port == listener.address.port() || port == listener.advertised.port()
        });
        served.then_some(*index)
    }

    /// The pool that the route table gives a request received on `listener`.
    #[inline]
    pub fn route(&self, listener: ListenerIndex) -> Option<PoolIndex> {
        self.routes
            .iter()
            .find(|rule| rule.listener.is_none_or(|of| of == listener))
            .map(|rule| rule.pool)
    }

    /// The listener a request leaves from on its way to `peer` on `side`: the receiving one if it
    /// faces that side, else the first that does, else any of the right family.
    ///
    /// RFC 3581 §4 is about responses; these leave from where their request arrived.
    #[inline]
    pub fn egress(
        &self,
        received: ListenerIndex,
        side: Side,
        peer: SocketAddr,
    ) -> Option<&Listener> {
        let received = self.listener(received)?;
        if received.side == side && received.same_family(peer) {
            return Some(received);
        }
        let family = usize::from(peer.is_ipv6());
        if let Some(index) = self.by_side[side_number(side)][family] {
            return self.listener(index);
        }
        if received.same_family(peer) {
            return Some(received);
        }
        self.listeners
            .iter()
            .find(|listener| listener.same_family(peer))
    }
}

fn side_number(side: Side) -> usize {
    match side {
        Side::Outside => 0,
        Side::Farm => 1,
    }
}

/// Collects the parts of a plan.
struct Builder<'c> {
    config: &'c Config,
    listeners: Box<[Listener]>,
}

impl<'c> Builder<'c> {
    fn new(config: &'c Config) -> Result<Self, PlanError> {
        let count = config.listeners.len();
        if !(1..=LISTENERS_MAX).contains(&count) {
            return Err(PlanError::Count("listeners", count, LISTENERS_MAX));
        }
        let count = config.pools.len();
        if !(1..=POOLS_MAX).contains(&count) {
            return Err(PlanError::Count("pools", count, POOLS_MAX));
        }
        let listeners = config
            .listeners
            .iter()
            .zip(0_u8..)
            .map(|(listener, index)| Listener::new(ListenerIndex(index), listener))
            .collect();
        Ok(Self { config, listeners })
    }

    fn build(self, registry: &mut ServerRegistry, keys: &Keys) -> Result<Plan, PlanError> {
        let mut members: Vec<(PoolIndex, ServerIndex, u32)> = Vec::new();
        for (pool, index) in self.config.pools.iter().zip(0_u8..) {
            for server in &pool.servers {
                let networks = if pool.networks.is_empty() {
                    vec![Network::host(server.address.ip())]
                } else {
                    pool.networks.clone()
                };
                let slot = registry.register(
                    &server.name,
                    server.address,
                    networks,
                    stable_hash(&pool.name),
                )?;
                members.push((PoolIndex(index), slot, server.weight));
            }
        }
        let servers = servers(self.config, registry, &members);
        let pools = self.pools(&servers, &members, keys)?;
        let mut servers_by_id: Vec<_> = servers
            .iter()
            .map(|server| (server.id, server.index))
            .collect();
        servers_by_id.sort_unstable();
        // Of two servers at one address the configured one counts, not the retired one.
        let mut by_age: Vec<&Server> = servers.iter().collect();
        by_age.sort_by_key(|server| server.state == ServerState::Retired);
        Ok(Plan {
            node: self.config.node,
            rules: self.rules(),
            routes: self.routes()?,
            servers_by_id: servers_by_id.into(),
            servers_by_address: AddressMap::new(
                by_age.iter().map(|server| (server.address, server.index)),
            ),
            farm: Networks::new(registry.entries().iter().flat_map(|entry| {
                let own = Network::host(entry.address.ip());
                entry.networks.iter().copied().chain([own])
            })),
            trusted: Networks::new(self.config.trusted.iter().copied()),
            own: self.own(),
            own_hosts: self.own_hosts(),
            own_names: self.own_names(),
            by_side: self.by_side(),
            listeners: self.listeners,
            pools,
            servers,
        })
    }

    fn pools(
        &self,
        servers: &[Server],
        members: &[(PoolIndex, ServerIndex, u32)],
        keys: &Keys,
    ) -> Result<Box<[Pool]>, TableError> {
        let pools = self.config.pools.iter().zip(0_u8..);
        pools
            .map(|(pool, index)| {
                let eligible: Vec<Member> = members
                    .iter()
                    .filter(|(of, _, weight)| *of == PoolIndex(index) && *weight > 0)
                    .filter_map(|(_, slot, weight)| {
                        let server = servers.get(usize::from(slot.0))?;
                        server.up.then_some(Member {
                            server: *slot,
                            id: server.id,
                            weight: *weight,
                        })
                    })
                    .collect();
                let table = match eligible.as_slice() {
                    [] => None,
                    some => Some(Arc::new(Maglev::new(&keys.table_seed(), some)?)),
                };
                Ok(Pool {
                    name: pool.name.as_str().into(),
                    reach: pool.reach,
                    udp_max_request: pool.udp_max_request,
                    id: stable_hash(&pool.name),
                    table,
                })
            })
            .collect()
    }

    fn routes(&self) -> Result<Box<[Rule]>, PlanError> {
        if self.config.routes.is_empty() {
            let rule = Rule {
                listener: None,
                pool: PoolIndex(0),
            };
            return Ok([rule].into());
        }
        let routes = self.config.routes.iter().enumerate();
        routes
            .map(|(number, route)| {
                let listener = match &route.listener {
                    None => None,
                    Some(name) => {
                        let of_name = |listener: &&Listener| *listener.name == **name;
                        let found = self.listeners.iter().find(of_name);
                        Some(found.ok_or(PlanError::Route(number))?.index)
                    }
                };
                let mut pools = self.config.pools.iter().zip(0_u8..);
                let crate::config::Action::Pool { pool: name, .. } = &route.action else {
                    return Err(PlanError::Route(number));
                };
                let (_, pool) = pools
                    .find(|(pool, _)| pool.name == *name)
                    .ok_or(PlanError::Route(number))?;
                Ok(Rule {
                    listener,
                    pool: PoolIndex(pool),
                })
            })
            .collect()
    }

    fn rules(&self) -> Rules {
        let sip = &self.config.sip;
        Rules {
            max_breadth: sip.max_breadth,
            own_vias_max: sip.own_vias_max,
            proxy_require: sip
                .proxy_require
                .iter()
                .map(|tag| tag.as_str().into())
                .collect(),
            answers_per_second: sip.answers_per_second,
        }
    }

    fn own(&self) -> AddressMap<ListenerIndex> {
        // Bound addresses first: of two listeners that claim one address the bound one has it.
        let bound = self
            .listeners
            .iter()
            .map(|listener| (listener.address, listener.index));
        let advertised = self
            .listeners
            .iter()
            .map(|listener| (listener.advertised, listener.index));
        let literal_aliases = self.aliases().filter_map(|(alias, listener)| {
            let host = alias.trim_start_matches('[').trim_end_matches(']');
            let ip: IpAddr = host.parse().ok()?;
            Some((
                SocketAddr::new(ip, listener.advertised.port()),
                listener.index,
            ))
        });
        AddressMap::new(bound.chain(advertised).chain(literal_aliases))
    }

    fn own_hosts(&self) -> Box<[u128]> {
        let hosts = self.listeners.iter().flat_map(|listener| {
            [listener.address.ip(), listener.advertised.ip()].map(address_key)
        });
        let mut hosts: Vec<u128> = hosts.collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts.into()
    }

    fn own_names(&self) -> Box<[(Box<[u8]>, ListenerIndex)]> {
        self.aliases()
            .map(|(alias, listener)| {
                let name = alias.strip_suffix('.').unwrap_or(alias);
                (name.as_bytes().into(), listener.index)
            })
            .collect()
    }

    fn aliases(&self) -> impl Iterator<Item = (&str, &Listener)> {
        let listeners = self.config.listeners.iter().zip(&self.listeners);
        listeners.flat_map(|(config, listener)| {
            config
                .aliases
                .iter()
                .map(move |alias| (alias.as_str(), listener))
        })
    }

    fn by_side(&self) -> [[Option<ListenerIndex>; 2]; 2] {
        let mut by_side = [[None; 2]; 2];
        for listener in self.listeners.iter().rev() {
            let family = usize::from(listener.address.is_ipv6());
            by_side[side_number(listener.side)][family] = Some(listener.index);
        }
        by_side
    }
}

fn servers(
    config: &Config,
    registry: &ServerRegistry,
    members: &[(PoolIndex, ServerIndex, u32)],
) -> Box<[Server]> {
    let pool_ids: Vec<u32> = config
        .pools
        .iter()
        .map(|pool| stable_hash(&pool.name))
        .collect();
    let entries = registry.entries().iter().zip(0_u16..);
    entries
        .map(|(entry, slot)| {
            let index = ServerIndex(slot);
            let member = members.iter().find(|(_, of, _)| *of == index);
            Server {
                index,
                id: entry.id,
                name: entry.name.as_str().into(),
                address: super::listener::with_canonical_ip(entry.address),
                state: match member {
                    None => ServerState::Retired,
                    Some((_, _, 0)) => ServerState::Draining,
                    Some(_) => ServerState::Active,
                },
                up: true,
                pool: pool_ids
                    .iter()
                    .zip(0_u8..)
                    .find(|(id, _)| **id == entry.pool)
                    .map(|(_, pool)| PoolIndex(pool)),
                pool_id: entry.pool,
                networks: Networks::new(entry.networks.iter().copied()),
            }
        })
        .collect()
}
