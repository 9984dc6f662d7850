//! How a running viaduct is looked at: the Prometheus page on a loopback port, and the control
//! socket.
//!
//! Reads counters that the workers own and never makes them wait. The page is text over HTTP
//! without authentication, so the configuration admits loopback addresses only.

mod capture;
pub mod client;
mod command;
pub mod control;
mod lines;
mod prometheus;

use std::sync::Arc;

pub use capture::Service as CaptureService;
pub use command::{Command, NodeState, Reply};
pub use lines::{Asked, Desk, desk};

use arc_swap::ArcSwap;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::{HealthMetrics, WorkerMetrics};
use crate::net::{ServerIndex, SocketAddr};

/// Labels of listeners and servers; replaced at reload, never shrinking for servers.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Listener names by index.
    pub listeners: Vec<String>,
    /// Pool names by index.
    pub pools: Vec<String>,
    /// Servers by slot, removed ones included.
    pub servers: Vec<ServerName>,
    /// Pools by index that are in panic: servers that their traffic has taken out count as up.
    pub panics: Vec<bool>,
}

/// Labels and state of one server.
#[derive(Clone, Debug)]
pub struct ServerName {
    /// Slot of its counters.
    pub index: ServerIndex,
    /// Pool.
    pub pool: String,
    /// Name.
    pub server: String,
    /// One of [`SERVER_STATES`].
    pub state: &'static str,
    /// Whether somebody looks at its health.
    pub is_watched: bool,
}

/// What may be sent to a server, in the order of `route::ServerState`.
pub const SERVER_STATES: [&str; 6] = [
    "active", "probing", "draining", "down", "disabled", "retired",
];

/// Values read when the page is asked for.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// Data path obtained, as in `xdp-native-copy`.
    pub datapath: String,
    /// Version of the configuration snapshot.
    pub plan_version: u64,
    /// Reloads that were refused.
    pub reloads_refused: u64,
    /// Verdicts of the steering program.
    pub steering: Vec<(&'static str, u64)>,
    /// How workers were chosen, for AF_XDP and among kernel sockets.
    pub steered: Vec<(&'static str, u64)>,
    /// Records of the common log that were written.
    pub common_log_records: u64,
    /// Records of the common log that were lost.
    pub common_log_lost: u64,
    /// Records of the call log that were written.
    pub call_log_records: u64,
    /// Records of the call log that were lost.
    pub call_log_lost: u64,
    /// Whether this node says that it wants no traffic.
    pub node_draining: bool,
    /// Pins held now, by what they wait for.
    pub pins: [(&'static str, usize); 3],
}

/// Everything the page shows.
pub struct Page {
    /// Counters, one block a worker.
    pub workers: Vec<Arc<WorkerMetrics>>,
    /// Labels.
    pub names: Arc<ArcSwap<Names>>,
    /// What health checks count.
    pub health: Arc<HealthMetrics>,
    /// Values read at each request.
    pub readings: Box<dyn Fn() -> Readings + Send + Sync>,
}

impl Page {
    /// The page as Prometheus text (OpenMetrics 1.0).
    pub fn text(self: &Arc<Self>) -> String {
        prometheus::text(self)
    }
}

/// Binds the page's address, so that a taken port is known before anything is served.
///
/// # Errors
/// The socket's.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves the page until the future is dropped.
///
/// # Errors
/// The socket's.
pub async fn serve(listener: TcpListener, page: Arc<Page>) -> std::io::Result<()> {
    let metrics = move || async move {
        let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(CONTENT_TYPE, content_type)], page.text())
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/", get(|| async { "viaduct: see /metrics\n" }));
    axum::serve(listener, router).await
}
