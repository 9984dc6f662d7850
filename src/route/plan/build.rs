//! Builds a plan from its configuration.

use std::sync::Arc;

use super::super::listener::with_canonical_ip;
use super::super::networks::{AddressMap, Networks, address_key};
use super::super::registry::{ServerRegistry, server_id, stable_hash};
use super::super::standing::{Health, OperatorState, ServerStanding, Standing};
use super::super::{Action, KeySource, Listener, Rule};
use super::{Plan, PlanError, Pool, Rules, Server, ServerState, panic, side_number};
use crate::affinity::Keys;
use crate::balance::{Chooser, Member, Seat, TableError};
use crate::config::{self, Config};
use crate::limits::{LISTENERS_MAX, POOLS_MAX};
use crate::net::{IpAddr, ListenerIndex, Network, PoolIndex, ServerIndex, SocketAddr};

/// A server's place in a pool, as configured.
#[derive(Clone, Copy)]
struct Membership {
    pool: PoolIndex,
    server: ServerIndex,
    /// As configured, or what the operator has put in its place.
    weight: u32,
    priority: u8,
    max_calls: u32,
    max_calls_per_second: u32,
}

/// Collects the parts of a plan.
pub(super) struct Builder<'c> {
    config: &'c Config,
    standing: &'c Standing,
    listeners: Box<[Listener]>,
}

impl<'c> Builder<'c> {
    pub(super) fn new(config: &'c Config, standing: &'c Standing) -> Result<Self, PlanError> {
        let count = config.listeners.len();
        if !(1..=LISTENERS_MAX).contains(&count) {
            return Err(PlanError::Count("listeners", count, LISTENERS_MAX));
        }
        let count = config.pools.len();
        if !(1..=POOLS_MAX).contains(&count) {
            return Err(PlanError::Count("pools", count, POOLS_MAX));
        }
        let named = |name: &String| {
            let mut listeners = config.listeners.iter().zip(0_u8..);
            let (_, index) = listeners.find(|(listener, _)| listener.name == *name)?;
            Some(ListenerIndex(index))
        };
        let listeners = config
            .listeners
            .iter()
            .zip(0_u8..)
            .map(|(listener, index)| {
                let mut own = Listener::new(ListenerIndex(index), listener);
                own.node_listener = listener.node_listener.as_ref().and_then(named);
                own
            })
            .collect();
        Ok(Self {
            config,
            standing,
            listeners,
        })
    }

    pub(super) fn build(
        self,
        registry: &mut ServerRegistry,
        keys: &Arc<Keys>,
    ) -> Result<Plan, PlanError> {
        let mut members: Vec<Membership> = Vec::new();
        for (pool, index) in self.config.pools.iter().zip(0_u8..) {
            for server in self.standing.members(pool) {
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
                members.push(Membership {
                    pool: PoolIndex(index),
                    server: slot,
                    weight: self
                        .standing
                        .of(server_id(&server.name))
                        .weight
                        .unwrap_or(server.weight),
                    priority: server.priority,
                    max_calls: server.max_calls,
                    max_calls_per_second: server.max_calls_per_second,
                });
            }
        }
        let mut servers = self.servers(registry, &members);
        panic::relieve(&self.config.pools, &mut servers);
        let pools = self.pools(&servers, &members, keys)?;
        let mut servers_by_id: Vec<_> = servers
            .iter()
            .map(|server| (server.id, server.index))
            .collect();
        servers_by_id.sort_unstable();
        // Of two servers at one address the configured one counts, not the retired one.
        let mut by_age: Vec<&Server> = servers.iter().collect();
        by_age.sort_by_key(|server| server.state == ServerState::Retired);
        let table = self.table()?;
        Ok(Plan {
            version: 0,
            draining: false,
            node: self.config.node,
            rules: self.rules(),
            down_servers: down_servers(&servers),
            has_overload_control: self.config.pools.iter().any(|pool| pool.overload_control),
            asks_for_own_domain: table.iter().any(Rule::asks_for_own_domain),
            table,
            keys: Arc::clone(keys),
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
            on_loopback: self
                .listeners
                .iter()
                .any(|listener| listener.address.ip().is_loopback()),
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
        members: &[Membership],
        keys: &Keys,
    ) -> Result<Box<[Pool]>, TableError> {
        let pools = self.config.pools.iter().zip(0_u8..);
        pools
            .map(|(pool, index)| {
                let index = PoolIndex(index);
                let of_pool = members.iter().filter(|member| member.pool == index);
                let seats: Vec<Seat> = of_pool
                    .filter_map(|member| {
                        let server = servers.get(usize::from(member.server.0))?;
                        server.takes_calls.then_some(Seat {
                            member: Member {
                                server: member.server,
                                id: server.id,
                                weight: member.weight,
                            },
                            priority: member.priority,
                            max_calls: member.max_calls,
                            max_calls_per_second: member.max_calls_per_second,
                            returned_at: server.returned_at,
                        })
                    })
                    .collect();
                let in_panic = servers.iter().any(|server| {
                    server.pool == Some(index) && server.ejected && server.takes_calls
                });
                let servers = Chooser::new(&keys.table_seed(), pool.policy, index, &seats)?;
                Ok(Pool {
                    name: pool.name.as_str().into(),
                    reach: pool.reach,
                    udp_max_request: pool.udp_max_request,
                    client_address_header: pool
                        .client_address_header
                        .as_deref()
                        .map(|name| name.as_bytes().into()),
                    hunting: pool.hunting.clone(),
                    policy: pool.policy,
                    call_max: pool.call_max,
                    servers: Arc::new(servers.with_slow_start(pool.slow_start)),
                    health: pool.health.clone().map(Arc::new),
                    in_panic,
                })
            })
            .collect()
    }

    fn table(&self) -> Result<Box<[Rule]>, PlanError> {
        if self.config.routes.is_empty() {
            return Ok([Rule::everything_to(PoolIndex(0))].into());
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
                let action = self.action(&route.action).ok_or(PlanError::Route(number))?;
                Ok(Rule::new(route, listener, action))
            })
            .collect()
    }

    fn action(&self, action: &config::Action) -> Option<Action> {
        Some(match action {
            config::Action::Pool { pool, key } => {
                let mut pools = self.config.pools.iter().zip(0_u8..);
                let (_, index) = pools.find(|(of, _)| of.name == *pool)?;
                Action::Pool {
                    pool: PoolIndex(index),
                    key: KeySource::from(key),
                }
            }
            config::Action::NextHop(address) => Action::NextHop(with_canonical_ip(*address)),
            config::Action::Reject(status) => Action::Reject(*status),
            config::Action::Drop => Action::Drop,
        })
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
            answers_per_source: sip.answers_per_source,
            pins: self.config.datapath.pins > 0,
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

    fn servers(&self, registry: &ServerRegistry, members: &[Membership]) -> Box<[Server]> {
        let pool_ids: Vec<u32> = self
            .config
            .pools
            .iter()
            .map(|pool| stable_hash(&pool.name))
            .collect();
        let entries = registry.entries().iter().zip(0_u16..);
        entries
            .map(|(entry, slot)| {
                let index = ServerIndex(slot);
                let member = members.iter().find(|member| member.server == index);
                let standing = self.standing.of(entry.id);
                let state = state(member, &standing);
                Server {
                    index,
                    id: entry.id,
                    name: entry.name.as_str().into(),
                    address: with_canonical_ip(entry.address),
                    state,
                    health: standing.health,
                    ejected: standing.ejected,
                    operator: standing.operator,
                    returned_at: standing.returned_at,
                    pool: pool_ids
                        .iter()
                        .zip(0_u8..)
                        .find(|(id, _)| **id == entry.pool)
                        .map(|(_, pool)| PoolIndex(pool)),
                    overload_control: pool_ids
                        .iter()
                        .position(|id| *id == entry.pool)
                        .and_then(|pool| self.config.pools.get(pool))
                        .is_some_and(|pool| pool.overload_control),
                    networks: Networks::new(entry.networks.iter().copied()),
                    is_enabled: member.is_some_and(|member| member.weight > 0)
                        && standing.operator == OperatorState::Enabled,
                    is_down: matches!(
                        state,
                        ServerState::Down | ServerState::Probing | ServerState::Disabled
                    ),
                    takes_calls: state == ServerState::Active,
                }
            })
            .collect()
    }
}

/// What may be sent to a server. The strongest reason not to send is shown: of a draining server
/// that is down too, the operator wants to know the latter.
fn state(member: Option<&Membership>, standing: &ServerStanding) -> ServerState {
    let Some(member) = member else {
        return ServerState::Retired;
    };
    match (standing.operator, standing.health) {
        (OperatorState::Disabled, _) => ServerState::Disabled,
        (_, Health::Down) => ServerState::Down,
        (_, Health::Probing) => ServerState::Probing,
        (OperatorState::Draining, Health::Active) => ServerState::Draining,
        (OperatorState::Enabled, Health::Active) if member.weight == 0 => ServerState::Draining,
        (OperatorState::Enabled, Health::Active) => ServerState::Active,
    }
}

/// A number that differs as soon as another server is down; 0 if none is.
fn down_servers(servers: &[Server]) -> u64 {
    servers
        .iter()
        .filter(|server| server.is_down())
        .fold(0, |hash: u64, server| {
            (hash ^ u64::from(server.id.0) | 1 << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
}
