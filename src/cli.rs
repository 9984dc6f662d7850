//! The command line: types only, no logic.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

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
    /// Make load: calls, OPTIONS or registrations.
    Generate(crate::generator::GenerateArgs),
    /// Answer calls, registrations and OPTIONS: the other end of `generate`.
    Answer(crate::generator::AnswerArgs),
}

/// Which configuration.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file (TOML); `deploy/viaduct.toml` is the commented reference.
    #[arg(long, value_name = "FILE", default_value = "/etc/viaduct/viaduct.toml")]
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
