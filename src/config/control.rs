//! `[control]`: the socket on which a running viaduct is asked, and what it can say there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reader::Reader;
use crate::limits::{DECISIONS_DEFAULT, DECISIONS_MAX};

/// Where the control socket is unless the configuration says otherwise.
pub const CONTROL_SOCKET: &str = "/run/viaduct/control";

/// How a running viaduct is asked and stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The control socket.
    pub socket: ControlSocket,
    /// Decisions that are remembered for `ctl explain`; 0 = none.
    pub decisions: usize,
    /// How long a stop waits for open transactions, as a node that is drained; zero = it does not.
    pub drain_on_stop: Duration,
}

/// The control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlSocket {
    /// Nothing was said: [`CONTROL_SOCKET`] if it can be had, else none and a warning.
    Usual,
    /// This path, or refuse to start.
    At(PathBuf),
    /// None: the empty path.
    Off,
}

impl ControlSocket {
    /// The path, if there is to be a socket.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Usual => Some(Path::new(CONTROL_SOCKET)),
            Self::At(path) => Some(path),
            Self::Off => None,
        }
    }
}

impl Control {
    pub(super) fn read(table: Reader<'_>) -> Self {
        let socket = match table.string("socket") {
            None => ControlSocket::Usual,
            Some("") => ControlSocket::Off,
            Some(path) => {
                if !path.starts_with('/') {
                    table.fault("socket", format!("{path:?}"), "is not an absolute path");
                }
                ControlSocket::At(path.into())
            }
        };
        let control = Self {
            socket,
            decisions: table
                .integer("decisions", 0..=DECISIONS_MAX)
                .unwrap_or(DECISIONS_DEFAULT),
            drain_on_stop: Duration::from_secs(
                table.integer("drain_on_stop", 0..=86_400).unwrap_or(0),
            ),
        };
        table.finish();
        control
    }
}
