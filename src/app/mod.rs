//! The composition: builds everything from the configuration, starts threads, handles signals,
//! reloads, and takes everything down again. Nobody imports it but `main`.

mod against;
mod capture;
mod ctl;
mod doctor;
mod explain;
mod handler;
mod history;
mod known;
mod network;
mod observer;
mod process;
mod reload;
mod samples;
mod secret;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;

use crate::affinity::{Keys, Secret};
use crate::config::Config;
use crate::route::{Plan, ServerRegistry};

pub use capture::capture;
pub use ctl::ctl;
pub use doctor::doctor;
pub use explain::{Question, explain};
pub use handler::SipHandler;
pub use known::KnownSources;
pub use observer::Observer;
pub use samples::{Sample, Samples};

/// `viaduct run`: serves until SIGTERM.
pub fn run(file: &Path) -> ExitCode {
    start_log();
    match process::Process::start(file) {
        Ok(process) => process.serve(),
        Err(error) => {
            eprintln!("viaduct: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `viaduct check`: reads the configuration as `run` would and names every fault; with `running` it
/// also says what would change for a viaduct that runs.
pub fn check(file: &Path, running: Option<&Path>) -> ExitCode {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    // The plan is built with a secret of the moment: its faults do not depend on the secret, and
    // `check` must neither read nor make the secret file.
    let secret = match Secret::generate() {
        Ok(secret) => secret,
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    };
    let keys = Arc::new(Keys::new(&secret));
    match Plan::build(&config, &mut ServerRegistry::new(), &keys) {
        Ok(plan) => {
            println!(
                "{}: {} listeners, {} pools, {} servers: ok",
                file.display(),
                plan.listeners().len(),
                plan.pools().len(),
                plan.servers().len()
            );
            match running {
                Some(running) => against::against(&config, file, running),
                None => ExitCode::SUCCESS,
            }
        }
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            ExitCode::FAILURE
        }
    }
}

/// Log lines on standard error; `VIADUCT_LOG` sets the level (`info` by default).
fn start_log() {
    let filter = EnvFilter::try_from_env("VIADUCT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let already_started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    let _kept = already_started;
}
