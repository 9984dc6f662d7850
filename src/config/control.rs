//! `[control]`: the socket on which a running viaduct is asked.

use std::path::{Path, PathBuf};

use super::reader::Reader;

/// Where the control socket is unless the configuration says otherwise.
pub const CONTROL_SOCKET: &str = "/run/viaduct/control";

/// The control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Nothing was said: [`CONTROL_SOCKET`] if it can be had, else none and a warning.
    Usual,
    /// This path, or refuse to start.
    At(PathBuf),
    /// None: the empty path.
    Off,
}

impl Control {
    /// The path, if there is to be a socket.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Usual => Some(Path::new(CONTROL_SOCKET)),
            Self::At(path) => Some(path),
            Self::Off => None,
        }
    }

    pub(super) fn read(table: Reader<'_>) -> Self {
        let control = match table.string("socket") {
            None => Self::Usual,
            Some("") => Self::Off,
            Some(path) => {
                if !path.starts_with('/') {
                    table.fault("socket", format!("{path:?}"), "is not an absolute path");
                }
                Self::At(path.into())
            }
        };
        table.finish();
        control
    }
}
