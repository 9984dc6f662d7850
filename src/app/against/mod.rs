//! `viaduct check --against`: what a new configuration would change for a viaduct that runs.
//!
//! Names what cannot change live, and says for each rule of the route table which share of its calls
//! another server would get. The share is exact over all keys a table can be asked with; how much of
//! the traffic meets which rule nobody can say offline, so nothing is added up over rules.

mod compare;
mod running;

use std::path::Path;
use std::process::ExitCode;

pub(super) use self::compare::Comparison;
use self::running::running;
use super::reload::restart_needed;
use super::secret;
use crate::config::{Config, ConfigError, Fault};

/// Compares the configuration in `file` with `against`: a file or the control socket of a running
/// viaduct. Exits with 1 if a reload would be refused.
pub(super) fn against(new: &Config, file: &Path, against: &Path) -> ExitCode {
    let mut old = match running(against) {
        Ok(old) => old,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    if old.is_redacted {
        old.take_secrets(new);
    }
    let mut faults = restart_needed(&old.config, new);
    let keys = secret::for_looking(&new.secret);
    let old_keys = if old.config.secret.master == new.secret.master {
        keys.keys.clone()
    } else {
        let old_keys = secret::for_looking(&old.config.secret);
        let known = !keys.is_stand_in && !old_keys.is_stand_in;
        if known && old_keys.keys.table_seed() != keys.keys.table_seed() {
            faults.push(Fault {
                key: "secret".to_owned(),
                value: String::new(),
                reason: "the master secret cannot change while running: restart viaduct".to_owned(),
            });
            old_keys.keys
        } else {
            // The same secret in another place, or one that we may not see: then it is taken to be.
            keys.keys.clone()
        }
    };
    let restart = !faults.is_empty();
    let comparison = match Comparison::new((&old.config, &old_keys), (new, &keys.keys)) {
        Ok(comparison) => comparison,
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    };
    if restart {
        let error = ConfigError {
            file: Some(file.to_owned()),
            faults,
        };
        println!("a reload would be refused:\n{error}");
    } else {
        println!("a reload would take it");
    }
    println!("{comparison}");
    println!("{}", staying(new, restart));
    println!("secret: {}", keys.origin);
    if old.is_redacted {
        println!("secrets in hex are not compared: a running viaduct does not show them");
    }
    if restart {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// What does not follow the tables.
fn staying(new: &Config, restart: bool) -> &'static str {
    match (restart, new.datapath.pins) {
        (true, _) => {
            "a restart forgets pins: calls that ring follow the new tables; dialogs stay (tokens) \
             at servers that the new configuration still has"
        }
        (false, 0) => {
            "datapath.pins = 0: calls that ring follow the new tables; dialogs stay (tokens)"
        }
        (false, _) => "calls that ring stay at their server (pins), dialogs too (tokens)",
    }
}
