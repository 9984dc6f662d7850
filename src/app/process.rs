//! The running process: what is built at start, what happens on signals, what is taken down.

mod activity;
mod explain;
mod health;
mod operator;
mod telling;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Duration, MissedTickBehavior, interval};
use tracing::{debug, error, info, warn};

use self::activity::Activity;
use self::telling::{call_log, log_changes, names, readings, wanted_call_log, wanted_log};
use super::handler::SipHandler;
use super::history::History;
use super::known::KnownSources;
use super::network::{Network, NetworkError};
use super::observer::Observer;
use super::reload::restart_needed;
use super::samples::Samples;
use super::secret::{self, SecretError};
use crate::admin::control::{self, ControlError, ControlSocket, SocketFile};
use crate::admin::{self, Asked, CaptureService, Names, Page};
use crate::affinity::{Keys, Pins};
use crate::balance::Board;
use crate::bpf::SteerCounts;
use crate::capture::{Captures, Interface};
use crate::clf;
use crate::config::{self, Config, ConfigError};
use crate::datapath::{self, Running};
use crate::forward::{Forwarder, Shared};
use crate::health::Monitor;
use crate::journal::{self, CallJournal, CallRecord};
use crate::limits::{HEALTH_TICK, MOVED_FLOWS_MAX};
use crate::metrics::{HealthMetrics, WorkerMetrics};
use crate::net::WorkerIndex;
use crate::proxy::{Proxy, Room};
use crate::route::{Plan, PlanError, ServerRegistry, Standing};
use crate::sys::{clock, memory};
use crate::verdict::DropReason;

/// Why viaduct did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The configuration cannot become a plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// No data path could be had.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The kernel refused a thread or a descriptor.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    /// The control socket that the configuration names cannot be had.
    #[error("control.socket: {0}")]
    Control(#[from] ControlError),
    /// The common log cannot be opened.
    #[error(transparent)]
    Log(#[from] journal::OpenError),
    /// The metrics page has no port.
    #[error("metrics.address: cannot serve on {address}: {error}")]
    Metrics {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        error: std::io::Error,
    },
}

/// Everything that lives as long as the process serves.
pub(super) struct Process {
    file: PathBuf,
    config: Config,
    keys: Arc<Keys>,
    registry: ServerRegistry,
    /// What is known of the servers besides the configuration. Changed here only, by
    /// [`Process::change_standing`]: so neither a reload nor a change of health undoes the other.
    standing: Standing,
    plan: Arc<ArcSwap<Plan>>,
    /// Plans that a worker may still read; freed here and not on a worker.
    old_plans: Vec<Arc<Plan>>,
    names: Arc<ArcSwap<Names>>,
    counts: Arc<Counts>,
    samples: Arc<Samples>,
    captures: Arc<Captures>,
    known: Arc<KnownSources>,
    log: Arc<clf::Service>,
    calls: Arc<journal::Service<CallRecord>>,
    metrics: Vec<Arc<WorkerMetrics>>,
    /// What servers have to do now.
    board: Arc<Board>,
    pins: Arc<Pins>,
    shared: Arc<Shared>,
    history: History,
    activity: Activity,
    desk: operator::Desk,
    /// Commands that come to the desk; until they are listened to.
    asked: Option<tokio::sync::mpsc::Receiver<Asked>>,
    monitor: Monitor,
    network: Arc<Network>,
    running: Running<SipHandler>,
    /// The running configuration as the control socket shows it.
    shown: Arc<ArcSwap<Option<String>>>,
    _control: Option<SocketFile>,
    /// Until they are listened to.
    signals: Option<Signals>,
    runtime: Runtime,
}

/// The signals that an operator sends. Unhandled each of them would end the process on the spot, so
/// they are handled before anybody can know that it runs.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new(runtime: &Runtime) -> std::io::Result<Self> {
        let _context = runtime.enter();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Numbers about the process that the metrics page shows.
#[derive(Debug, Default)]
struct Counts {
    plan_version: AtomicU64,
    reloads_refused: AtomicU64,
}

impl Process {
    /// Reads the configuration and builds everything; at the return packets are served.
    ///
    /// # Errors
    /// See [`StartError`]; nothing stays behind.
    pub(super) fn start(file: &Path) -> Result<Self, StartError> {
        let (config, text) = Config::load_with_text(file)?;
        // Before anything else is opened: another viaduct is noticed here.
        let control = control_socket(&config)?;
        let log = Arc::new(clf::Service::default());
        let log_file = log.prepare(wanted_log(&config))?;
        let names = Arc::new(ArcSwap::from_pointee(Names::default()));
        let calls = Arc::new(call_log(names.clone()));
        let calls_file = calls.prepare(wanted_call_log(&config))?;
        let keys = Arc::new(secret::keys(&config.secret)?);
        let mut registry = ServerRegistry::new();
        let mut plan = Plan::build(&config, &mut registry, &keys)?;
        plan.version = 1;
        let standing = Standing::new();
        let (mut history, mut activity) = (History::default(), Activity::default());
        history.add((&plan, &config, &standing), clock::real_nanos(), "start");
        activity.on_plan(&plan, clock::real_nanos());
        names.store(Arc::new(telling::names(&plan)));
        let plan = Arc::new(ArcSwap::from_pointee(plan));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("viaduct-control")
            .enable_all()
            .build()?;
        let signals = Some(Signals::new(&runtime)?);

        let (network, datapath, metrics) = Network::open(&config, &plan.load(), runtime.handle())?;
        let network = Arc::new(network);
        let pins = Arc::new(Pins::new(config.datapath.pins));
        if config.datapath.hugepages
            && let Err(error) = memory::collapse(pins.memory())
        {
            debug!("the pin table stays on normal pages: {error}");
        }
        let shared = Arc::new(Shared::new(MOVED_FLOWS_MAX).remembering(config.control.decisions));
        let board = Arc::new(Board::new());
        let samples = Arc::new(Samples::new());
        let known = Arc::new(KnownSources::new());
        known.set_wanted(network.limits(&config));
        runtime.spawn(limiter_learns(network.clone(), known.clone()));
        let captures = Arc::new(Captures::new(interfaces(&config)));
        let workers = u8::try_from(metrics.len()).unwrap_or(u8::MAX);
        let make = |worker: WorkerIndex| {
            let metrics = metrics[usize::from(worker.0)].clone();
            let forwarder =
                Forwarder::new(worker, workers, pins.clone(), metrics).with_shared(shared.clone());
            let observer = Observer::default()
                .capture(captures.tap(worker))
                .log(log.tap());
            let room = Room::of(&config.transactions, workers);
            let proxy = Proxy::new(forwarder, room, board.clone(), clock::now())
                .with_journal(CallJournal::new(calls.follow()));
            SipHandler::new(proxy, plan.clone(), samples.clone())
                .telling(known.clone())
                .observed(observer)
        };
        let idle = match config.workers.idle {
            config::Idle::Adaptive => datapath::Idle::Adaptive,
            config::Idle::Sleep => datapath::Idle::Sleep,
            config::Idle::Spin => datapath::Idle::Spin,
        };
        // Before the first packet: what has waited in the sockets since they were bound is logged too.
        log.commit(log_file)?;
        calls.commit(calls_file)?;
        let running = datapath.idle(idle).start(make, network.cores())?;

        let health = Arc::new(HealthMetrics::new());
        let counts = Arc::new(Counts::default());
        counts.plan_version.store(1, Ordering::Relaxed);
        let page = Arc::new(Page {
            workers: metrics.clone(),
            names: names.clone(),
            health: health.clone(),
            readings: Box::new(readings(
                counts.clone(),
                network.clone(),
                pins.clone(),
                (log.clone(), calls.clone()),
                plan.clone(),
            )),
        });
        if let Some(address) = config.metrics.address {
            let error = |error| StartError::Metrics { address, error };
            let listener = runtime.block_on(admin::bind(address)).map_err(error)?;
            runtime.spawn(async move {
                if let Err(error) = admin::serve(listener, page).await {
                    error!("metrics page: {error}");
                }
            });
        }
        let shown = Arc::new(ArcSwap::from_pointee(config::redact(&text)));
        let (desk, asked) = admin::desk();
        let control = control.map(|socket| {
            let (listener, file) = socket.into_parts();
            let shown = shown.clone();
            let asked = control::Control {
                config: Box::new(move || (**shown.load()).clone()),
                captures: Arc::new(CaptureService::new(captures.clone())),
                desk,
            };
            runtime.spawn(async move {
                if let Err(error) = control::serve(listener, Arc::new(asked)).await {
                    error!("control socket: {error}");
                }
            });
            file
        });
        let process = Self {
            file: file.to_owned(),
            config,
            keys,
            registry,
            standing,
            plan,
            old_plans: Vec::new(),
            names,
            counts,
            samples,
            captures,
            known,
            log,
            calls,
            metrics,
            board,
            pins,
            shared,
            history,
            activity,
            desk: operator::Desk::default(),
            asked: Some(asked),
            monitor: Monitor::new(health),
            network,
            running,
            shown,
            _control: control,
            signals,
            runtime,
        };
        process.summary();
        Ok(process)
    }

    /// Serves until SIGTERM or SIGINT; SIGHUP reloads.
    pub(super) fn serve(mut self) -> ExitCode {
        let handle = self.runtime.handle().clone();
        let code = handle.block_on(self.until_stopped());
        let stopping = sd_notify::NotifyState::Stopping;
        let _no_service_manager = sd_notify::notify(&[stopping]);
        self.network.detach();
        self.running.stop();
        self.log.stop();
        self.calls.stop();
        info!("stopped");
        code
    }

    async fn until_stopped(&mut self) -> ExitCode {
        let (Some(signals), Some(mut asked)) = (self.signals.take(), self.asked.take()) else {
            return ExitCode::FAILURE;
        };
        let Signals {
            mut terminate,
            mut interrupt,
            mut hangup,
        } = signals;
        let _no_service_manager = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = interval(HEALTH_TICK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut drops = [0; DropReason::COUNT];
        let mut steered = SteerCounts::default();
        loop {
            tokio::select! {
                _ = terminate.recv() => if self.stop_at_once() { return ExitCode::SUCCESS },
                _ = interrupt.recv() => if self.stop_at_once() { return ExitCode::SUCCESS },
                _ = hangup.recv() => self.reload(),
                Some(Asked { command, reply }) = asked.recv() => {
                    let _client_gone = reply.send(self.on_command(command));
                }
                _ = looks.tick() => self.look_at_health(),
                _ = ticks.tick() => {
                    self.log_drops(&mut drops);
                    self.activity.look(&self.metrics, clock::now());
                    self.look_at_drains();
                    if self.may_stop() {
                        return ExitCode::SUCCESS;
                    }
                    if self.known.is_wanted()
                        && let Err(error) = self.network.log_refused(&mut steered)
                    {
                        warn!("limiter: {error}");
                    }
                    self.old_plans.retain(|plan| Arc::strong_count(plan) > 1);
                    self.captures.reap();
                    self.log.reap();
                    self.calls.reap();
                    if self.running.has_ended() {
                        // A worker ends by itself only by a fault of ours. The kernel path of the
                        // others goes on, but half a data path is not what was promised: end, and
                        // let the service manager start a whole one.
                        error!("a worker has ended unexpectedly");
                        return ExitCode::FAILURE;
                    }
                }
            }
        }
    }

    /// Takes the changed file, whole or not at all.
    fn reload(&mut self) {
        let _no_service_manager = sd_notify::notify(&[
            sd_notify::NotifyState::Reloading,
            sd_notify::NotifyState::MonotonicUsec(i128::from(clock::now().as_nanos() / 1000)),
        ]);
        match self.take_changes() {
            Ok(()) => {
                let version = self.counts.plan_version.load(Ordering::Relaxed);
                info!(version, "configuration reloaded");
            }
            Err(reasons) => {
                self.counts.reloads_refused.fetch_add(1, Ordering::Relaxed);
                error!("reload refused, nothing changed:\n{reasons}");
            }
        }
        let _no_service_manager = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }

    fn take_changes(&mut self) -> Result<(), String> {
        let (config, text) =
            Config::load_with_text(&self.file).map_err(|error| error.to_string())?;
        let faults = restart_needed(&self.config, &config);
        if !faults.is_empty() {
            return Err(ConfigError {
                file: Some(self.file.clone()),
                faults,
            }
            .to_string());
        }
        let keys = if config.secret == self.config.secret {
            self.keys.clone()
        } else {
            Arc::new(secret::keys(&config.secret).map_err(|error| error.to_string())?)
        };
        if keys.table_seed() != self.keys.table_seed() {
            // Every branch and every server choice would change in the middle of every transaction
            // (RFC 3261 §16.11).
            return Err("secret: the master secret cannot change while running".to_owned());
        }
        let mut standing = self.standing.clone();
        let yielded = standing.yield_to(&self.config, &config);
        standing.settle(&config);
        let plan = Plan::build_standing(&config, &mut self.registry, &keys, &standing)
            .map_err(|error| error.to_string())?;
        // Opened again at every reload: log rotation has moved the old file away.
        let log = self
            .log
            .prepare(wanted_log(&config))
            .map_err(|error| error.to_string())?;
        let calls = self
            .calls
            .prepare(wanted_call_log(&config))
            .map_err(|error| error.to_string())?;
        self.network
            .take_lists(&config, &plan)
            .map_err(|error| error.to_string())?;
        self.known.set_wanted(self.network.limits(&config));
        if self.config.limit != config.limit {
            self.network.log_limit(&config);
        }
        self.log.commit(log).map_err(|error| error.to_string())?;
        self.calls
            .commit(calls)
            .map_err(|error| error.to_string())?;
        self.standing = standing;
        self.config = config;
        self.keys = keys;
        self.publish(plan, "reload");
        self.shown.store(Arc::new(config::redact(&text)));
        for line in yielded {
            info!("reload: {line}");
        }
        Ok(())
    }

    /// Takes a change of what is known of the servers, whole or not at all.
    ///
    /// # Errors
    /// The configuration with that change is no plan; nothing has changed.
    pub(super) fn change_standing(
        &mut self,
        why: &str,
        change: impl FnOnce(&mut Standing),
    ) -> Result<(), PlanError> {
        let mut standing = self.standing.clone();
        change(&mut standing);
        if standing == self.standing {
            return Ok(());
        }
        let plan = Plan::build_standing(&self.config, &mut self.registry, &self.keys, &standing)?;
        self.standing = standing;
        self.publish(plan, why);
        Ok(())
    }

    /// Puts a plan in the place of the one that workers follow. Configuration and standing are those
    /// that it was built of; `why` is what operators are told.
    fn publish(&mut self, mut plan: Plan, why: &str) {
        let version = self.counts.plan_version.fetch_add(1, Ordering::Relaxed) + 1;
        // The low bits name it well enough among those that are remembered.
        plan.version = u32::try_from(version & u64::from(u32::MAX)).unwrap_or(0);
        plan.draining = self.desk.node_draining;
        let real_now = clock::real_nanos();
        self.history
            .add((&plan, &self.config, &self.standing), real_now, why);
        self.activity.on_plan(&plan, real_now);
        log_changes(&self.plan.load(), &plan);
        self.names.store(Arc::new(names(&plan)));
        self.old_plans.push(self.plan.swap(Arc::new(plan)));
    }

    /// At most one line a second for each reason, with a sample where a worker left one.
    fn log_drops(&self, before: &mut [u64; DropReason::COUNT]) {
        let samples = self.samples.take();
        for (reason, before) in DropReason::ALL.iter().zip(before) {
            let total: u64 = self
                .metrics
                .iter()
                .map(|worker| worker.drops[*reason as usize].value())
                .sum();
            let count = total.wrapping_sub(*before);
            *before = total;
            // Keepalives are no news.
            if count == 0 || *reason == DropReason::Keepalive {
                continue;
            }
            match samples.iter().find(|sample| sample.reason == *reason) {
                Some(sample) => {
                    let (peer, first_line) = (sample.flow.peer, sample.first_line());
                    warn!(reason = reason.as_str(), count, %peer, first_line, "dropped");
                }
                None => warn!(reason = reason.as_str(), count, "dropped"),
            }
        }
    }

    /// What was built, in words.
    fn summary(&self) {
        let plan = self.plan.load();
        for line in self.network.summary() {
            info!("{line}");
        }
        self.network.log_limit(&self.config);
        for config in &self.config.listeners {
            info!(
                name = config.name,
                address = %config.address,
                side = ?config.side,
                "listener"
            );
        }
        for (rule, number) in plan.rules().iter().zip(0_usize..) {
            info!(number, name = rule.name.as_deref(), action = %plan.describe(&rule.action), "route");
        }
        for server in plan.servers() {
            info!(name = %server.name, address = %server.address, state = ?server.state, "server");
        }
        info!(
            datapath = self.network.datapath(),
            workers = self.metrics.len(),
            version = env!("CARGO_PKG_VERSION"),
            "serving"
        );
    }
}

/// The listeners as a capture names them.
fn interfaces(config: &Config) -> Vec<Interface> {
    let interface = |listener: &config::Listener| Interface {
        name: listener.name.clone(),
        description: listener.address.to_string(),
    };
    config.listeners.iter().map(interface).collect()
}

/// The control socket that `config` asks for.
fn control_socket(config: &Config) -> Result<Option<ControlSocket>, ControlError> {
    let Some(path) = config.control.socket.path() else {
        return Ok(None);
    };
    match ControlSocket::bind(path) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if config.control.socket == config::ControlSocket::Usual => {
            warn!("no control socket: {error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// How often sources that the farm has accepted are taken to the limiter: a caller's next message
/// comes no sooner than a round trip.
const LEARN_INTERVAL: Duration = Duration::from_millis(20);

/// How often it is looked whether there is a limiter.
const LEARN_INTERVAL_OFF: Duration = Duration::from_secs(1);

/// Takes sources from the workers to the limiter, for as long as the runtime lives.
async fn limiter_learns(network: Arc<Network>, known: Arc<KnownSources>) {
    let mut failed = false;
    loop {
        let next = if known.is_wanted() {
            LEARN_INTERVAL
        } else {
            LEARN_INTERVAL_OFF
        };
        tokio::time::sleep(next).await;
        let learned = network.make_known(known.take());
        if let Err(error) = &learned
            && !failed
        {
            warn!("limiter: {error}");
        }
        failed = learned.is_err();
    }
}
