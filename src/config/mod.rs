//! The configuration: what the operator wrote, checked and with every default filled in.
//!
//! One TOML file. [`Config::load`] reads and checks it and returns either a [`Config`] or every
//! fault at once. Plain data: building tables, sockets and threads from it is the work of others.
//! The commented reference is `deploy/viaduct.toml`, which a test loads.

mod control;
mod error;
mod health;
mod hunting;
mod limit;
mod log;
mod read;
mod reader;
mod redact;
mod route;
#[cfg(test)]
mod tests;
mod transactions;

use core::fmt;
use core::time::Duration;
use std::path::{Path, PathBuf};

pub use control::{CONTROL_SOCKET, Control, ControlSocket};
pub use error::{ConfigError, Fault};
pub use health::{Codes, Health};
pub use hunting::Hunting;
pub use limit::Limit;
pub use log::Log;
pub use redact::{REDACTED, redact};
pub use route::{Action, HeaderCondition, HeaderTest, KeySource, Peers, Route};
pub use transactions::Transactions;

use crate::net::{Network, SocketAddr};

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Number of this node among the nodes that share one configuration.
    pub node: u8,
    /// Where the secrets come from.
    pub secret: Secret,
    /// Worker threads.
    pub workers: Workers,
    /// How packets reach the workers.
    pub datapath: Datapath,
    /// Addresses that viaduct serves.
    pub listeners: Vec<Listener>,
    /// Farms.
    pub pools: Vec<Pool>,
    /// What becomes of a request that no dialog leads on; the first that matches counts.
    pub routes: Vec<Route>,
    /// Peers that are neither farm nor strangers: carriers, other proxies.
    pub trusted: Vec<Network>,
    /// How much a source may send.
    pub limit: Limit,
    /// Prometheus page.
    pub metrics: Metrics,
    /// Control socket.
    pub control: Control,
    /// What is logged of SIP.
    pub log: Log,
    /// Room for transactions.
    pub transactions: Transactions,
    /// SIP rules with a choice.
    pub sip: Sip,
}

/// The secrets that keys are derived from.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// The 32-byte master secret.
    pub master: SecretSource,
    /// Secrets of tokens; the first makes new tokens, all open old ones. Empty = the master secret.
    pub tokens: Vec<TokenSecret>,
}

/// Where the master secret comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// Written in the configuration, 64 hexadecimal digits.
    Hex(String),
    /// In a file of mode 0600, made at first start if it is not there.
    File(PathBuf),
}

/// A secret of tokens, with the id that its tokens carry.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret {
    /// 0 to 15.
    pub id: u8,
    /// 64 hexadecimal digits.
    pub hex: String,
}

// A secret never reaches a log by way of `{:?}`.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.master {
            SecretSource::Hex(_) => f.write_str("Secret(…)"),
            SecretSource::File(file) => write!(f, "Secret({})", file.display()),
        }
    }
}

/// Worker threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    /// How many; `None` = one per queue of the busiest interface, at most one per core.
    pub count: Option<usize>,
    /// Cores they are pinned to, in order; empty = cores 0, 1, 2 …
    pub cores: Vec<usize>,
    /// What they do while there is nothing to do.
    pub idle: Idle,
}

/// What a worker does that has no work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Sleeps until there is work, and naps by a timer where packets are dense.
    #[default]
    Adaptive,
    /// Sleeps until there is work.
    Sleep,
    /// Never sleeps.
    Spin,
}

/// How packets reach the workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datapath {
    /// Which data path.
    pub mode: Mode,
    /// Whether AF_XDP sockets are bound in zero-copy mode.
    pub zero_copy: ZeroCopy,
    /// Whether to ask for huge pages for the UMEM.
    pub hugepages: bool,
    /// Entries of the pin table; 0 = none.
    pub pins: usize,
}

/// Which data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The best that works: native, else generic, else socket.
    Auto,
    /// XDP in the driver, or refuse to start.
    Native,
    /// XDP on socket buffers, or refuse to start.
    Generic,
    /// Kernel UDP sockets only.
    Socket,
}

/// Whether AF_XDP sockets are bound in zero-copy mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Zero-copy for the whole group if every bind succeeds, else copy for all.
    Auto,
    /// Copy mode.
    Off,
    /// Zero-copy, or refuse to start.
    Require,
}

/// Which side of viaduct a listener faces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Clients, carriers, the internet.
    Outside,
    /// The servers.
    Farm,
}

/// An address that viaduct serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Name in logs and metrics.
    pub name: String,
    /// The bound address and port.
    pub address: SocketAddr,
    /// Which side it faces.
    pub side: Side,
    /// The address written into Via and Record-Route, if it differs (cloud NAT).
    pub advertise: Option<SocketAddr>,
    /// Host names that mean this listener.
    pub aliases: Vec<String>,
    /// If not empty, only these sources are served.
    pub allow: Vec<Network>,
    /// These sources are not served.
    pub deny: Vec<Network>,
    /// Peers that are trusted on this listener, besides those trusted on all.
    pub trusted: Vec<Network>,
    /// What is done for clients behind a NAT.
    pub nat: Nat,
    /// Whether a REGISTER gets our `Path`.
    pub path: PathPolicy,
    /// Whether STUN Binding requests are answered (RFC 5626 §8).
    pub stun: bool,
    /// Whether the address may be bound before the host has it (VRRP standby).
    pub freebind: bool,
    /// Where XDP serves the address; `None` = the interface that has it.
    pub interface: Option<String>,
    /// Methods of requests that are handled with a transaction. CANCEL and ACK follow INVITE.
    pub stateful: Vec<String>,
    /// The listener whose address transactions write into their `Via`, where nodes share this one.
    pub node_listener: Option<String>,
}

/// What is done for clients behind a NAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nat {
    /// RFC 3261 §18.2.1 and RFC 3581 to the letter, no more.
    Rfc,
    /// And in-dialog requests reach a client behind a NAT by the flow that its request came by.
    #[default]
    Auto,
    /// And responses go to the source port although the client did not ask for it with `rport`.
    ForceRport,
}

/// Whether a REGISTER gets our `Path` (RFC 3327).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathPolicy {
    /// Never.
    #[default]
    Off,
    /// If the client says that it supports it.
    Auto,
    /// Always; a client that does not support it gets 421.
    Require,
    /// Whatever the client says.
    Always,
}

/// How a server is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The packet goes to the server, the Request-URI stays (RFC 3261 §16.6 step 6, override).
    Destination,
    /// A Route to the server is pushed.
    Route,
    /// The host of the Request-URI is replaced.
    RequestUri,
}

/// How the server of a new call is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// By key, in a Maglev table.
    #[default]
    Maglev,
    /// By key, by rendezvous hashing.
    Rendezvous,
    /// One after the other, as often as their weights say. Needs a transaction.
    RoundRobin,
    /// The one with the fewest open transactions and calls for its weight. Needs a transaction.
    LeastLoaded,
    /// The one with the least work left in open transactions for its weight. Needs a transaction.
    Tlwl,
}

impl Policy {
    /// Whether the choice is a function of key and configuration, so that it can be made again.
    pub fn is_stateless(self) -> bool {
        matches!(self, Self::Maglev | Self::Rendezvous)
    }

    /// Its name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Maglev => "maglev",
            Self::Rendezvous => "rendezvous",
            Self::RoundRobin => "round-robin",
            Self::LeastLoaded => "least-loaded",
            Self::Tlwl => "tlwl",
        }
    }
}

/// A farm of servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Name in logs, metrics and routes.
    pub name: String,
    /// Members.
    pub servers: Vec<Server>,
    /// Source networks of the farm; empty = the servers' own addresses.
    pub networks: Vec<Network>,
    /// How a server is addressed.
    pub reach: Reach,
    /// Largest request sent over UDP; `None` = no limit (deviation from RFC 3261 §18.1.1).
    pub udp_max_request: Option<usize>,
    /// Header that tells the servers the address a request came from.
    pub client_address_header: Option<String>,
    /// Whether the servers are asked how much they can bear (RFC 7339).
    pub overload_control: bool,
    /// What becomes of an INVITE that its server does not take.
    pub hunting: Hunting,
    /// How the server of a new call is chosen.
    pub policy: Policy,
    /// How long a call counts as standing whose session has no timer (RFC 4028).
    pub call_max: Duration,
    /// How long a server that was down grows to its weight; zero = it has it at once.
    pub slow_start: Duration,
    /// How it is found out whether servers answer; `None` = they always count as up.
    pub health: Option<Health>,
}

/// A member of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Stable name: tokens and pins speak of it, also after a reload.
    pub name: String,
    /// Where its SIP port is.
    pub address: SocketAddr,
    /// Share of new calls, relative to the others; 0 = none.
    pub weight: u32,
    /// Servers of the lowest value that take calls get them all; the others stand by.
    pub priority: u8,
    /// Calls at once, those that are being set up included; 0 = no limit.
    pub max_calls: u32,
    /// New calls per second; 0 = no limit.
    pub max_calls_per_second: u32,
}

/// Prometheus page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Loopback address of the page; `None` = no page.
    pub address: Option<SocketAddr>,
}

/// SIP rules with a choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sip {
    /// `Max-Breadth` added or capped (RFC 5393 §5.3.3).
    pub max_breadth: u32,
    /// Own Vias in a request before it is a loop (482).
    pub own_vias_max: usize,
    /// Proxy-Require option tags that the farm understands.
    pub proxy_require: Vec<String>,
    /// Answers of our own per second, all sources together; `None` = no limit.
    pub answers_per_second: Option<u32>,
    /// Answers of our own per second to one source, if it is neither farm nor trusted; `None` = no
    /// limit.
    pub answers_per_source: Option<u32>,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Every fault found, or why the file could not be read.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::load_with_text(file).map(|(config, _)| config)
    }

    /// As [`load`](Self::load), with the text that was read.
    ///
    /// # Errors
    /// Every fault found, or why the file could not be read.
    pub fn load_with_text(file: &Path) -> Result<(Self, String), ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            file: Some(file.to_owned()),
            faults: vec![Fault {
                key: String::new(),
                value: String::new(),
                reason: format!("cannot be read: {error}"),
            }],
        })?;
        match Self::parse(&text) {
            Ok(config) => Ok((config, text)),
            Err(error) => Err(ConfigError {
                file: Some(file.to_owned()),
                ..error
            }),
        }
    }

    /// Checks a text.
    ///
    /// ```
    /// let config = viaduct::config::Config::parse(r#"
    ///     [[listeners]]
    ///     name = "clients"
    ///     address = "198.18.0.1:5060"
    ///     [[pools]]
    ///     name = "farm"
    ///     servers = [{ name = "s1", address = "198.18.1.11:5060" }]
    /// "#)?;
    /// assert_eq!(config.pools[0].servers[0].weight, 1);
    /// # Ok::<(), viaduct::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// Every fault found.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        read::config(text).map_err(|faults| ConfigError { file: None, faults })
    }
}
