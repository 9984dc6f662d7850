//! The command line: types only, no logic.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::capture::Peer;
use crate::limits::{CAPTURE_PACKETS_DEFAULT, CAPTURE_SECONDS_DEFAULT};
use crate::net::SocketAddr;

/// Where the configuration is unless `--config` says otherwise.
pub const CONFIG_FILE: &str = "/etc/viaduct/viaduct.toml";

/// A SIP load balancer on XDP and AF_XDP.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve: take SIP at the listeners and balance it over the pools.
    Run(ConfigArgs),
    /// Read a configuration as `run` would and name every fault.
    Check(CheckArgs),
    /// Look at an interface and at the host: what XDP gets there, what falls back to what, and one
    /// command for each problem. Exits with 1 if something fails.
    Doctor(DoctorArgs),
    /// Say what would become of a message and why: the rule it meets, the server its key means, its
    /// token, every edit and where it is sent. Sends nothing.
    Explain(ExplainArgs),
    /// Make load: calls, OPTIONS or registrations.
    Generate(crate::generator::GenerateArgs),
    /// Answer calls, registrations and OPTIONS: the other end of `generate`.
    Answer(crate::generator::AnswerArgs),
    /// Copy what a running viaduct receives and sends into a pcapng file or pipe.
    Capture(CaptureArgs),
}

/// Which configuration.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file (TOML); `deploy/viaduct.toml` is the commented reference.
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    pub config: PathBuf,
}

/// Which configuration, and what it is compared with.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// What runs now: its configuration file, or the control socket of the running viaduct. Names
    /// what cannot change live and prints the share of calls that would move to another server.
    /// Exits with 1 if a reload would be refused.
    #[arg(long, value_name = "RUNNING")]
    pub against: Option<PathBuf>,
}

/// Which interface, for which configuration.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// The interface.
    #[arg(value_name = "IFACE")]
    pub interface: String,
    /// The configuration that is to run on it; without one the defaults count.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Which running viaduct.
#[derive(Debug, clap::Args)]
pub struct SocketArgs {
    /// The configuration file that names the control socket [default: /etc/viaduct/viaduct.toml].
    #[arg(long, value_name = "FILE", conflicts_with = "control")]
    pub config: Option<PathBuf>,
    /// The control socket itself.
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
}

/// What to capture. All conditions must hold; none: everything.
#[derive(Debug, clap::Args)]
pub struct CaptureArgs {
    /// Which running viaduct.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Only messages with this Call-ID.
    #[arg(long, value_name = "ID")]
    pub call_id: Option<String>,
    /// Only requests of this method and their responses, by CSeq.
    #[arg(long)]
    pub method: Option<String>,
    /// Only messages from or to this peer, as received or as sent on: IP, IP:PORT or CIDR.
    #[arg(long, value_name = "IP[:PORT]")]
    pub address: Option<Peer>,
    /// End after this many packets; 0 = no limit.
    #[arg(long, default_value_t = CAPTURE_PACKETS_DEFAULT)]
    pub count: u64,
    /// End after this many seconds; 0 = no limit.
    #[arg(long, default_value_t = CAPTURE_SECONDS_DEFAULT)]
    pub seconds: u64,
    /// The file to write; `-` = standard output, as for `| tshark -r -`.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub write: PathBuf,
}

/// Which message, and what is not in it.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// A file with one SIP message, as on the wire; `-` reads it from standard input.
    #[arg(value_name = "MESSAGE_FILE")]
    pub message: PathBuf,
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Where the message comes from. Default: where its top Via says.
    #[arg(long, value_name = "IP:PORT")]
    pub from: Option<SocketAddr>,
    /// Name of the listener it comes to. Default: the first that faces its sender.
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
