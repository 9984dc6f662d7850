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
    Check(ConfigArgs),
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
