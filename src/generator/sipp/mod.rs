//! SIPp's scenario files, played by the generator's own machinery.
//!
//! ```text
//!  uac.xml ──► source ──► Program: steps with compiled texts     read once, refused with the line
//!  users.csv ──► Table ────────┐                                 of what is not supported
//!                              ▼
//!  schedule ──► Player: calls at a step each ◄──► sockets, timer wheel
//!                     └──► report, the same as of `generate call`
//! ```
//!
//! A step waits (receive, pause) or does not (send, nop); a call walks until it waits. What a
//! scenario leaves to SIPp is done as SIPp does it: requests and final responses with `retrans` are
//! repeated by RFC 3261's timers, what is received again is answered again, an unexpected final
//! response ends the call as failed.
//!
//! Not here: media, commands of the shell, third-party call control, transports beside UDP.

mod actions;
mod calls;
mod error;
mod fill;
mod player;
mod program;
mod receive;
mod source;
mod table;
mod text;

use std::path::Path;

pub use error::ScenarioError;
pub(super) use player::{answer, call};
pub use program::Program;
pub use table::Table;

use super::config::GeneratorError;
use crate::time::Duration;

/// A scenario with what it needs beside it.
#[derive(Clone, Debug)]
pub struct Play {
    program: Program,
    table: Option<Table>,
    /// Length of a `<pause/>` that names none.
    pause: Duration,
}

impl Play {
    /// Puts them together.
    ///
    /// # Errors
    /// A scenario that uses more fields than the table has.
    pub fn new(
        program: Program,
        table: Option<Table>,
        pause: Duration,
    ) -> Result<Self, ScenarioError> {
        let width = table.as_ref().map_or(0, Table::width);
        if let Some(field) = program.field_max().filter(|field| *field >= width) {
            let reason = match table {
                None => format!("the scenario uses [field{field}], and there is no --inf"),
                Some(_) => {
                    format!("the scenario uses [field{field}], and a row has {width} fields")
                }
            };
            return Err(ScenarioError::new(1, reason));
        }
        Ok(Self {
            program,
            table,
            pause,
        })
    }

    /// Reads the files.
    ///
    /// # Errors
    /// A file that cannot be read, or what is in it.
    pub fn load(
        scenario: &Path,
        table: Option<&Path>,
        pause: Duration,
    ) -> Result<Self, GeneratorError> {
        let program = read(scenario)?;
        let table = table.map(read).transpose()?;
        Self::new(program, table, pause).map_err(|error| refused(scenario, error))
    }

    /// The scenario.
    pub fn program(&self) -> &Program {
        &self.program
    }
}

fn refused(path: &Path, error: ScenarioError) -> GeneratorError {
    GeneratorError::Scenario {
        path: path.display().to_string(),
        error,
    }
}

fn read<T: core::str::FromStr<Err = ScenarioError>>(path: &Path) -> Result<T, GeneratorError> {
    let bytes = std::fs::read(path).map_err(|error| GeneratorError::Read {
        path: path.display().to_string(),
        error,
    })?;
    source::decoded(bytes)
        .parse()
        .map_err(|error| refused(path, error))
}
