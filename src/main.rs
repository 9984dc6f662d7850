//! Entry point: parses the arguments and runs what they name.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use viaduct::cli::{Cli, Command};
use viaduct::{app, generator};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(arguments) => app::run(&arguments.config),
        Command::Check(arguments) => {
            app::check(&arguments.config.config, arguments.against.as_deref())
        }
        Command::Doctor(arguments) => app::doctor(
            &arguments.interface,
            arguments.config.as_deref(),
            arguments.json,
        ),
        Command::Explain(arguments) => app::explain(&app::Question {
            config: &arguments.config.config,
            message: &arguments.message,
            from: arguments.from,
            listener: arguments.listener.as_deref(),
            json: arguments.json,
        }),
        Command::Generate(arguments) => {
            until_signalled(|stop| generator::run_generate(&arguments, stop))
        }
        Command::Ctl(arguments) => match app::ctl(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("viaduct: {error}");
                ExitCode::FAILURE
            }
        },
        Command::Capture(arguments) => {
            until_signalled(|stop| app::capture(&arguments, stop).map(|()| true))
        }
        Command::Answer(arguments) => {
            until_signalled(|stop| generator::run_answer(&arguments, stop).map(|()| true))
        }
    }
}

/// Runs a load until it ends or SIGINT or SIGTERM asks it to; `false` from it is a failed run.
fn until_signalled<E: std::fmt::Display>(
    run: impl FnOnce(&AtomicBool) -> Result<bool, E>,
) -> ExitCode {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGINT, libc::SIGTERM] {
        if let Err(error) = signal_hook::flag::register(signal, stop.clone()) {
            eprintln!("viaduct: cannot handle signals: {error}");
            return ExitCode::FAILURE;
        }
    }
    match run(&stop) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("viaduct: {error}");
            ExitCode::FAILURE
        }
    }
}
