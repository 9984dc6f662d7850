//! The plan: everything a decision reads besides the message, as one immutable snapshot.

mod build;
mod panic;

use std::sync::Arc;

use self::build::Builder;
use super::networks::{AddressMap, Networks, address_key};
use super::registry::{RegistryError, ServerRegistry};
use super::standing::{Health, OperatorState, Standing};
use super::{Action, Direction, Listener, Question, Rule};
use crate::affinity::Keys;
use crate::balance::{AffinityKey, Choice, Chooser, Maglev, StatelessSelect, TableError};
use crate::config::{self, Config, Hunting, Policy, Reach, Side};
use crate::net::{IpAddr, ListenerIndex, Network, PoolIndex, ServerId, ServerIndex, SocketAddr};
use crate::time::{Duration, Instant};

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
    /// What may be sent to it, as logs and metrics show it.
    pub state: ServerState,
    /// Whether it answers.
    pub health: Health,
    /// What the operator wants of it.
    pub operator: OperatorState,
    /// Whether its traffic alone has taken it out, no probe.
    pub ejected: bool,
    /// When it came back from being down (slow start).
    pub returned_at: Option<Instant>,
    /// Its pool, or the one it was last in: `None` if that pool is gone.
    pub pool: Option<PoolIndex>,
    /// Whether it is asked how much it can bear (RFC 7339).
    pub overload_control: bool,
    networks: Networks,
    is_enabled: bool,
    is_down: bool,
    takes_calls: bool,
}

impl Server {
    /// Whether a packet from `address` may be this server's. Ports are never compared.
    #[inline]
    pub fn sends_from(&self, address: IpAddr) -> bool {
        self.address.ip() == address || self.networks.contains(address)
    }

    /// Whether configuration and operator let it have new calls, whatever its health.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Whether it is given up: what waits for its answer need not wait on, and a pin to it holds for
    /// its transaction only. Requests of its dialogs go there still.
    ///
    /// A draining server is not, a disabled one is; a server whose pool has lost too many is not.
    #[inline]
    pub fn is_down(&self) -> bool {
        self.is_down
    }

    /// Whether it may get new calls: it has weight, is enabled and not down. Whether its priority
    /// group is the one that gets them, its pool says.
    #[inline]
    pub fn takes_calls(&self) -> bool {
        self.takes_calls
    }
}

/// What may be sent to a server, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// New calls and old ones.
    Active,
    /// It was down and answers again: old calls only until it has done so often enough.
    Probing,
    /// Old calls only: its weight is 0, or the operator drains it.
    Draining,
    /// It does not answer or does not work.
    Down,
    /// The operator has taken it out.
    Disabled,
    /// No longer configured; pins and tokens still lead there.
    Retired,
}

impl ServerState {
    /// All states, in the order of the enum.
    pub const ALL: [Self; 6] = [
        Self::Active,
        Self::Probing,
        Self::Draining,
        Self::Down,
        Self::Disabled,
        Self::Retired,
    ];

    /// Name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Probing => "probing",
            Self::Draining => "draining",
            Self::Down => "down",
            Self::Disabled => "disabled",
            Self::Retired => "retired",
        }
    }
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
    /// Header that tells its servers the address a request came from.
    pub client_address_header: Option<Box<[u8]>>,
    /// What becomes of an INVITE that its server does not take.
    pub hunting: Hunting,
    /// How the server of a new call is chosen where its transaction is held.
    pub policy: Policy,
    /// How long a call counts that says nothing of its session's length (RFC 4028).
    pub call_max: Duration,
    servers: Arc<Chooser>,
    /// How it is found out whether servers answer; `None` = they always count as up.
    pub health: Option<Arc<config::Health>>,
    /// Whether servers count as up that their traffic has taken out: too few others are left.
    pub in_panic: bool,
}

impl Pool {
    /// The server of a key, without state; `None` if no server takes new calls. A policy that needs
    /// state leaves this to Maglev over the same servers: those of the first priority.
    #[inline]
    pub fn select(&self, key: AffinityKey) -> Option<ServerIndex> {
        self.servers.select(key)
    }

    /// The server of a request whose transaction we hold, by the pool's policy and what is known of
    /// its servers now; `None` if no server can take it. Each call may be another choice: who asks
    /// remembers it.
    pub fn choose(&self, choice: &Choice<'_>) -> Option<ServerIndex> {
        self.servers.choose(choice)
    }

    /// The table that keys are looked up in; `None` if no server takes new calls, or the pool looks
    /// them up in none (rendezvous).
    pub fn table(&self) -> Option<&Maglev> {
        self.servers.table()
    }

    /// The share of all keys, 0 to 1, that each server gets without state.
    pub fn shares(&self) -> Vec<(ServerIndex, f64)> {
        self.servers.shares()
    }

    /// What a client is told when no server takes its request.
    pub fn no_server_code(&self) -> u16 {
        self.health.as_ref().map_or(503, |of| of.no_server_code)
    }

    /// Whether a server takes new calls.
    pub fn is_up(&self) -> bool {
        !self.servers.is_empty()
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
    /// Answers of our own per second to one stranger.
    pub answers_per_source: Option<u32>,
    /// Whether Call-IDs are pinned to their server.
    pub pins: bool,
}

/// The snapshot.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its number in the process's life, its low 32 bits; 0 until it is published.
    pub version: u32,
    /// This node wants no traffic, and says so to who asks whether it is well: OPTIONS to itself. All
    /// that comes nevertheless is served.
    pub draining: bool,
    /// Number of this node.
    pub node: u8,
    /// SIP rules with a choice.
    pub rules: Rules,
    listeners: Box<[Listener]>,
    pools: Box<[Pool]>,
    // INVARIANT: the server in slot n is at position n.
    servers: Box<[Server]>,
    table: Box<[Rule]>,
    asks_for_own_domain: bool,
    has_overload_control: bool,
    down_servers: u64,
    keys: Arc<Keys>,
    // INVARIANT: sorted by id.
    servers_by_id: Box<[(ServerId, ServerIndex)]>,
    servers_by_address: AddressMap<ServerIndex>,
    farm: Networks,
    trusted: Networks,
    own: AddressMap<ListenerIndex>,
    own_hosts: Box<[u128]>,
    on_loopback: bool,
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
    /// Builds the snapshot of `config`, with all servers up. On failure `registry` is unchanged.
    ///
    /// # Errors
    /// What the configuration's own check cannot see: slots and ids of servers.
    pub fn build(
        config: &Config,
        registry: &mut ServerRegistry,
        keys: &Arc<Keys>,
    ) -> Result<Self, PlanError> {
        Self::build_standing(config, registry, keys, &Standing::new())
    }

    /// Builds the snapshot of `config` and of what is known of the servers besides. On failure
    /// `registry` is unchanged.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_standing(
        config: &Config,
        registry: &mut ServerRegistry,
        keys: &Arc<Keys>,
        standing: &Standing,
    ) -> Result<Self, PlanError> {
        let mut known = registry.clone();
        let plan = Builder::new(config, standing)?.build(&mut known, keys)?;
        *registry = known;
        Ok(plan)
    }

    /// The keys of this configuration.
    #[inline]
    pub fn keys(&self) -> &Keys {
        &self.keys
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

    /// Whether any server is asked how much it can bear (RFC 7339).
    #[inline]
    pub fn has_overload_control(&self) -> bool {
        self.has_overload_control
    }

    /// The server in a slot.
    #[inline]
    pub fn server(&self, index: ServerIndex) -> Option<&Server> {
        self.servers.get(usize::from(index.0))
    }

    /// A fingerprint of which servers are down; 0 if none is.
    #[inline]
    pub fn down_servers(&self) -> u64 {
        self.down_servers
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

    /// Where a datagram from `source` to `listener` comes from.
    #[inline]
    pub fn direction(&self, listener: ListenerIndex, source: IpAddr) -> Direction {
        if self.is_farm(source) {
            Direction::Farm
        } else if self.is_trusted(listener, source) {
            Direction::Trusted
        } else {
            Direction::Outside
        }
    }

    /// Whether a peer at `address` is trusted on a listener.
    #[inline]
    pub fn is_trusted(&self, listener: ListenerIndex, address: IpAddr) -> bool {
        let on_listener = |listener: &Listener| listener.trusted.contains(address);
        self.trusted.contains(address) || self.listener(listener).is_some_and(on_listener)
    }

    /// Whether an address is in the farm.
    #[inline]
    pub fn is_farm(&self, address: IpAddr) -> bool {
        self.farm.contains(address)
    }

    /// Whether a listener serves a source: it is not denied, and if there is a list of those allowed
    /// it is on it, in the farm or trusted.
    #[inline]
    pub fn admits(&self, listener: ListenerIndex, source: IpAddr) -> bool {
        let lists = self.listener(listener).and_then(|of| of.lists.as_ref());
        let Some(lists) = lists else {
            return true;
        };
        let allowed = |allow: &Networks| {
            allow.contains(source) || self.is_farm(source) || self.is_trusted(listener, source)
        };
        !lists.deny.contains(source) && lists.allow.as_ref().is_none_or(allowed)
    }

    /// The sources that a listener's list of those allowed means besides the ones on it: the farm,
    /// removed servers included, and who is trusted.
    pub fn always_allowed(&self, listener: ListenerIndex) -> impl Iterator<Item = Network> {
        let on_listener = self.listener(listener).map(|of| of.trusted.iter());
        let trusted = self.trusted.iter().chain(on_listener.into_iter().flatten());
        self.farm.iter().chain(trusted)
    }

    /// Whether an IP address is this host, where no message has a business but at our own ports:
    /// a Contact of `127.0.0.1:53` would otherwise have us talk to our own services.
    ///
    /// A server may run on this host; and where a listener is on loopback, everything may (a lab).
    #[inline]
    pub fn is_this_host(&self, address: IpAddr) -> bool {
        (address.is_loopback() || self.own_hosts.contains(&address_key(address)))
            && !self.on_loopback
            && self.servers_by_address.find_host(address, 0).is_none()
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

    /// The route table.
    pub fn rules(&self) -> &[Rule] {
        &self.table
    }

    /// Whether a rule wants to know if the Request-URI names us.
    #[inline]
    pub fn asks_for_own_domain(&self) -> bool {
        self.asks_for_own_domain
    }

    /// The rule that a request meets: the first whose conditions all hold.
    #[inline]
    pub fn rule(&self, question: &Question<'_>) -> Option<&Rule> {
        self.table
            .iter()
            .find(|rule| rule.unmet(question).is_none())
    }

    /// An action in words, for logs and explanations.
    pub fn describe(&self, action: &Action) -> String {
        match action {
            Action::Pool { pool, key } => {
                let name = self.pool(*pool).map_or("?", |pool| &pool.name);
                format!("pool {name} by {}", key.as_str())
            }
            Action::NextHop(address) => format!("next hop {address}"),
            Action::Reject(status) => format!("reject {status}"),
            Action::Drop => "drop".to_owned(),
        }
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
