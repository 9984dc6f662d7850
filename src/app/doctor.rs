//! `viaduct doctor`: looks at an interface and says what it found.

use std::path::Path;
use std::process::ExitCode;

use crate::config::Config;
use crate::doctor::{Wanted, examine, gather};

/// Looks at `interface` for a start with `file`; exits with 1 if something fails.
pub fn doctor(interface: &str, file: Option<&Path>, json: bool) -> ExitCode {
    let wanted = match file.map(|file| (file, Config::load(file))) {
        None => Wanted::default(),
        Some((file, Ok(config))) => Wanted::new(&config, file.to_owned()),
        Some((_, Err(error))) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let report = match gather(interface) {
        Ok(facts) => examine(&facts, &wanted),
        Err(error) => {
            eprintln!("viaduct: {interface}: {error}");
            return ExitCode::FAILURE;
        }
    };
    if json {
        println!("{}", report.json());
    } else {
        println!("{report}");
    }
    if report.is_fit() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
