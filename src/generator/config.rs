//! What a run is to do, checked: the arguments of the command line without their spellings.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use super::args::{AnswerArgs, ByeFrom, LoadArgs, ScenarioArgs, SourceRange};
use super::digest::Credentials;
use super::ramp::Ramp;
use super::scenario::Layout;
use super::schedule::{Arrivals, Limit};
use super::sipp::{Play, ScenarioError};
use super::socket::{BindError, SOCKETS_MAX};
use super::target::Target;
use super::timers::Timers;
use super::transport::{self, Datapath};
use super::xdp::XdpError;
use crate::limits::AGENT_ADDRESSES_MAX;
use crate::time::Duration;

/// Without an end of its own a run lasts this long.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);

/// Calls per second where none are asked for.
const RATE_DEFAULT: f64 = 10.0;
/// First source port over AF_XDP. RFC 3261 §18.1.1: a client may send from the port of SIP.
const SOURCE_PORT_DEFAULT: u16 = 5060;

/// Why a run could not start.
#[derive(Debug, thiserror::Error)]
pub enum GeneratorError {
    /// The interface to send by.
    #[error("--interface: {0}")]
    Interface(std::io::Error),
    /// A flood could not be sent.
    #[error(transparent)]
    Flood(#[from] super::flood::FloodError),
    /// The raw forwarder could not run.
    #[error(transparent)]
    Raw(#[from] super::raw::RawError),
    /// AF_XDP is not to be had.
    #[error("--datapath xdp: {0}")]
    Xdp(#[from] XdpError),
    /// A socket could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Source and target are of different address families.
    #[error("--source {source_address} cannot reach {target}: one is IPv4, the other IPv6")]
    Family {
        /// The source.
        source_address: IpAddr,
        /// The target.
        target: SocketAddr,
    },
    /// The kernel has no route to the target.
    #[error("no route to {target}: {error}; name a --source")]
    NoRoute {
        /// The target.
        target: SocketAddr,
        /// The kernel's word.
        error: std::io::Error,
    },
    /// More sockets than allowed.
    #[error("{wanted} sources times ports; at most {most} are possible")]
    Sources {
        /// Addresses times ports.
        wanted: u128,
        /// What the path takes.
        most: usize,
    },
    /// The ports after the first do not exist.
    #[error("--source-port {first} with --source-ports {count} goes beyond 65535")]
    Ports {
        /// First port.
        first: u16,
        /// Ports asked for.
        count: u16,
    },
    /// A wildcard cannot stand in Contact.
    #[error("--listen {0} is a wildcard; name the address that callers reach")]
    Wildcard(SocketAddr),
    /// The kernel refused something else.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The kernel's word.
        error: std::io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// Which one.
        path: String,
        /// The kernel's word.
        error: std::io::Error,
    },
    /// A scenario, or its table, cannot be played.
    #[error("{path}: {error}")]
    Scenario {
        /// Which file.
        path: String,
        /// Where and why.
        error: ScenarioError,
    },
    /// A scenario that answers was to call, or the other way round.
    #[error("{path} begins with {}", begins(.is_caller))]
    Side {
        /// Which file.
        path: String,
        /// Whether it calls.
        is_caller: bool,
    },
    /// The report could not be written.
    #[error("cannot write {path}: {error}")]
    Write {
        /// Where to.
        path: String,
        /// The kernel's word.
        error: std::io::Error,
    },
}

fn begins(is_caller: &bool) -> &'static str {
    if *is_caller {
        "a message of its own: play it with `viaduct generate scenario`"
    } else {
        "a message of the other side: play it with `viaduct answer --scenario`"
    }
}

/// What the caller sends.
#[derive(Clone, Debug)]
pub enum Load {
    /// Complete calls.
    Call {
        /// From the ACK to BYE.
        hold: Duration,
        /// Who hangs up.
        bye_from: ByeFrom,
        /// Requests inside the dialog.
        methods: Vec<String>,
        /// Give up ringing calls after this.
        cancel_after: Option<Duration>,
    },
    /// Requests outside a dialog.
    Single {
        /// Methods, in turn.
        methods: Vec<String>,
        /// With a body.
        with_body: bool,
    },
    /// Registrations.
    Register {
        /// Seconds asked for.
        expires: u32,
        /// Refreshes of each.
        refreshes: u32,
        /// Between refreshes.
        refresh_after: Duration,
        /// Remove it at the end.
        unregister: bool,
    },
    /// What a SIPp scenario says.
    Scenario(Arc<Play>),
}

/// A caller's run.
#[derive(Clone, Debug)]
pub struct UacConfig {
    /// Whom to call.
    pub target: Target,
    /// What to send.
    pub load: Load,
    /// Calls per second.
    pub rate: f64,
    /// Distances between calls.
    pub arrivals: Arrivals,
    /// The way to the rate.
    pub ramp: Ramp,
    /// End of the schedule.
    pub limit: Limit,
    /// Source addresses; empty: the one that leads to the target.
    pub sources: Vec<SourceRange>,
    /// First source port; 0: any.
    pub source_port: u16,
    /// Ports on each source address.
    pub source_ports: u16,
    /// Header layouts; empty: all.
    pub layouts: Vec<Layout>,
    /// Callers.
    pub users: u64,
    /// Prefix of Call-IDs.
    pub call_id_prefix: String,
    /// Seed of identities and arrivals.
    pub seed: u64,
    /// Until the answer.
    pub timeout: Duration,
    /// After the last call; `None`: until every call has ended by itself.
    pub drain: Option<Duration>,
    /// T1 and T2.
    pub timers: Timers,
    /// Calls in progress at most.
    pub calls_max: u32,
    /// Credentials for challenges.
    pub credentials: Option<Credentials>,
    /// Length of bodies.
    pub body_len: Option<usize>,
    /// Kernel sockets or AF_XDP.
    pub datapath: Datapath,
    /// Threads at most; `None`: one, and over AF_XDP one for each queue.
    pub threads: Option<usize>,
    /// Cores of the threads, in turn; empty: the kernel chooses.
    pub cores: Vec<usize>,
    /// End at the first failure, like at a stop.
    pub ends_at_failure: bool,
    /// A line each second to standard error.
    pub progress: bool,
}

impl UacConfig {
    /// Ten calls a second for ten seconds, with the defaults of the command line.
    pub fn new(target: Target, load: Load) -> Self {
        Self {
            target,
            load,
            rate: RATE_DEFAULT,
            arrivals: Arrivals::Even,
            ramp: Ramp::None,
            limit: Limit {
                calls: None,
                duration: Some(DURATION_DEFAULT),
            },
            sources: Vec::new(),
            source_port: 0,
            source_ports: 1,
            layouts: Vec::new(),
            users: 1_000_000,
            call_id_prefix: String::new(),
            seed: 1,
            timeout: Duration::from_secs(32),
            drain: None,
            timers: Timers::default(),
            calls_max: 500_000,
            credentials: None,
            body_len: None,
            datapath: Datapath::Sockets,
            threads: None,
            cores: Vec::new(),
            ends_at_failure: false,
            progress: false,
        }
    }

    /// From the command line; `progress` if lines are wanted.
    ///
    /// # Errors
    /// No random numbers for the seed, or a scenario that cannot be played.
    pub fn from_args(scenario: &ScenarioArgs, progress: bool) -> Result<Self, GeneratorError> {
        let (args, load, body_bytes) = match scenario {
            ScenarioArgs::Call(call) => {
                let load = Load::Call {
                    hold: call.hold,
                    bye_from: call.bye_from,
                    methods: call.methods.clone(),
                    cancel_after: call.cancel_after,
                };
                (&call.load, load, call.body_bytes)
            }
            ScenarioArgs::Options(options) => {
                let load = Load::Single {
                    methods: options.methods.clone(),
                    with_body: options.body_bytes.is_some(),
                };
                (&options.load, load, options.body_bytes)
            }
            ScenarioArgs::Register(register) => {
                let load = Load::Register {
                    expires: register.expires,
                    refreshes: register.refreshes,
                    refresh_after: register.refresh_after,
                    unregister: register.unregister,
                };
                (&register.load, load, None)
            }
            ScenarioArgs::Scenario(scenario) => {
                let play = Play::load(&scenario.file, scenario.inf.as_deref(), scenario.pause)?;
                check_side(&scenario.file, &play, true)?;
                (&scenario.load, Load::Scenario(Arc::new(play)), None)
            }
        };
        let target = match args.proxy {
            Some(address) => args.target.clone().through(address),
            None => args.target.clone(),
        };
        let duration = match (args.duration, args.calls) {
            (None, None) => Some(DURATION_DEFAULT),
            (duration, _) => duration,
        };
        Ok(Self {
            rate: args.rate.unwrap_or(RATE_DEFAULT),
            arrivals: args.arrivals,
            ramp: args.ramp(),
            limit: Limit {
                calls: args.calls,
                duration,
            },
            sources: args.source.clone(),
            source_port: args.source_port.unwrap_or(0),
            source_ports: args.source_ports,
            layouts: args.layouts.clone(),
            users: args.users,
            call_id_prefix: args.call_id_prefix.clone(),
            seed: match args.seed {
                Some(seed) => seed,
                None => random()?,
            },
            timeout: args.timeout,
            drain: args.drain,
            timers: Timers {
                t1: args.t1,
                t2: args.t2,
            },
            calls_max: args.max_calls,
            credentials: args.auth.clone(),
            body_len: body_bytes.and_then(|len| usize::try_from(len).ok()),
            datapath: args.path.datapath(),
            threads: args.path.threads.map(usize::from),
            cores: args.path.cores.clone(),
            progress,
            ..Self::new(target, load)
        })
    }

    /// Keeps the calling thread, which has this number, on its core.
    pub(super) fn pin(&self, thread: u64) {
        pin(&self.cores, thread);
    }

    /// Source addresses times ports.
    pub(super) fn source_count(&self) -> Result<usize, GeneratorError> {
        Ok(self.bind_addresses()?.len())
    }

    /// The addresses to bind: every source with every port.
    pub(super) fn bind_addresses(&self) -> Result<Vec<SocketAddr>, GeneratorError> {
        let target = self.target.address();
        let count = self.source_ports.max(1);
        let last = u32::from(self.source_port) + u32::from(count) - 1;
        if self.source_port != 0 && last > u32::from(u16::MAX) {
            return Err(GeneratorError::Ports {
                first: self.source_port,
                count,
            });
        }
        let addresses: u128 = self.sources.iter().map(SourceRange::count).sum();
        let wanted = addresses.saturating_mul(count.into());
        let most = match self.datapath {
            Datapath::Sockets => SOCKETS_MAX,
            Datapath::Xdp(_) => AGENT_ADDRESSES_MAX,
        };
        if wanted > most as u128 {
            return Err(GeneratorError::Sources { wanted, most });
        }
        let sources: Vec<IpAddr> = if self.sources.is_empty() {
            let source = transport::source_towards(target)
                .map_err(|error| GeneratorError::NoRoute { target, error })?;
            vec![source]
        } else {
            let ranges = self.sources.iter();
            ranges.flat_map(|range| range.addresses()).collect()
        };
        if let Some(source) = sources.iter().find(|ip| ip.is_ipv4() != target.is_ipv4()) {
            return Err(GeneratorError::Family {
                source_address: *source,
                target,
            });
        }
        // One port on every address, then the next: neighbours in time come from other hosts.
        let ports = (0..count).map(|place| match (self.source_port, &self.datapath) {
            (0, Datapath::Sockets) => 0,
            // There is no kernel to choose one.
            (0, Datapath::Xdp(_)) => SOURCE_PORT_DEFAULT.saturating_add(place),
            (first, _) => first.saturating_add(place),
        });
        Ok(ports
            .flat_map(|port| sources.iter().map(move |ip| SocketAddr::new(*ip, port)))
            .collect())
    }
}

/// An answering server's run.
#[derive(Clone, Debug)]
pub struct UasConfig {
    /// Where to answer; no wildcards.
    pub listen: Vec<SocketAddr>,
    /// Opens every To tag.
    pub name: String,
    /// From the INVITE to 180.
    pub ring: Duration,
    /// From the INVITE to the final response.
    pub answer: Duration,
    /// Answer INVITE with this instead of 200.
    pub reject: Option<u16>,
    /// From the ACK to a BYE of its own.
    pub bye_after: Option<Duration>,
    /// Challenge requests and accept only these.
    pub credentials: Option<Credentials>,
    /// Challenge INVITE too, not REGISTER alone.
    pub challenge_calls: bool,
    /// Until a nonce is stale.
    pub nonce_life: Duration,
    /// T1 and T2.
    pub timers: Timers,
    /// Calls held at most.
    pub calls_max: u32,
    /// End by itself after this.
    pub duration: Option<Duration>,
    /// Key of To tags and nonces.
    pub secret: u64,
    /// Kernel sockets or AF_XDP.
    pub datapath: Datapath,
    /// Threads at most; `None`: one, and over AF_XDP one for each queue.
    pub threads: Option<usize>,
    /// Cores of the threads, in turn; empty: the kernel chooses.
    pub cores: Vec<usize>,
    /// Answer as this scenario says, and by nothing else of the above but timers and limits.
    pub scenario: Option<Arc<Play>>,
    /// A line each second to standard error.
    pub progress: bool,
}

impl UasConfig {
    /// Keeps the calling thread, which has this number, on its core.
    pub(super) fn pin(&self, thread: u64) {
        pin(&self.cores, thread);
    }

    /// A server that rings and answers at once.
    pub fn new(listen: Vec<SocketAddr>, name: &str) -> Self {
        Self {
            listen,
            name: name.to_owned(),
            ring: Duration::ZERO,
            answer: Duration::ZERO,
            reject: None,
            bye_after: None,
            credentials: None,
            challenge_calls: false,
            nonce_life: Duration::from_secs(300),
            timers: Timers::default(),
            calls_max: 500_000,
            duration: None,
            secret: 1,
            datapath: Datapath::Sockets,
            threads: None,
            cores: Vec::new(),
            scenario: None,
            progress: false,
        }
    }

    /// From the command line; `progress` if lines are wanted.
    ///
    /// # Errors
    /// A wildcard to listen on, a scenario that cannot be played, or no random numbers for the secret.
    pub fn from_args(args: &AnswerArgs, progress: bool) -> Result<Self, GeneratorError> {
        if let Some(wildcard) = args
            .listen
            .iter()
            .find(|address| address.ip().is_unspecified())
        {
            return Err(GeneratorError::Wildcard(*wildcard));
        }
        let scenario = match &args.scenario {
            None => None,
            Some(path) => {
                let play = Play::load(path, args.inf.as_deref(), args.pause)?;
                check_side(path, &play, false)?;
                Some(Arc::new(play))
            }
        };
        Ok(Self {
            ring: args.ring,
            answer: args.answer,
            reject: args.reject,
            bye_after: args.bye_after,
            credentials: args.auth.clone(),
            challenge_calls: args.auth_calls,
            nonce_life: args.nonce_life,
            timers: Timers {
                t1: args.t1,
                t2: args.t2,
            },
            calls_max: args.max_calls,
            duration: args.duration,
            secret: random()?,
            datapath: args.path.datapath(),
            threads: args.path.threads.map(usize::from),
            cores: args.path.cores.clone(),
            scenario,
            progress,
            ..Self::new(args.listen.clone(), &args.name)
        })
    }
}

fn pin(cores: &[usize], thread: u64) {
    let place = usize::try_from(thread).unwrap_or(0);
    if let Some(core) = cores.get(place % cores.len().max(1)) {
        crate::sys::cpu::pin(*core);
    }
}

/// A scenario runs on the side that it is written for.
fn check_side(path: &Path, play: &Play, calls: bool) -> Result<(), GeneratorError> {
    let is_caller = play.program().is_caller();
    if is_caller == calls {
        return Ok(());
    }
    Err(GeneratorError::Side {
        path: path.display().to_string(),
        is_caller,
    })
}

fn random() -> Result<u64, GeneratorError> {
    getrandom::u64().map_err(|error| GeneratorError::System {
        what: "random numbers",
        error: std::io::Error::other(error.to_string()),
    })
}

/// Options of every kind of load.
pub(super) fn load_args(scenario: &ScenarioArgs) -> &LoadArgs {
    match scenario {
        ScenarioArgs::Call(call) => &call.load,
        ScenarioArgs::Options(options) => &options.load,
        ScenarioArgs::Register(register) => &register.load,
        ScenarioArgs::Scenario(scenario) => &scenario.load,
    }
}
