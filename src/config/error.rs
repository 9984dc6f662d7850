//! What is wrong with a configuration: the file, the key path, the value and the reason, all at once.

use core::fmt;
use std::path::PathBuf;

/// One fault of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Path of the key, as in `pools[1].servers[0].weight`. Empty for the file as a whole.
    pub key: String,
    /// The value as written; empty if the key is missing.
    pub value: String,
    /// What is wrong with it and what would be right.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        if !self.value.is_empty() {
            write!(f, "{} ", self.value)?;
        }
        f.write_str(&self.reason)
    }
}

/// A configuration that was refused, with every fault found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, if the text came from one.
    pub file: Option<PathBuf>,
    /// The faults, in the order of the file's sections.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match &self.file {
                Some(file) => write!(f, "{}: {fault}", file.display())?,
                None => write!(f, "{fault}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
