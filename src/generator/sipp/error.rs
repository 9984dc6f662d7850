//! What a scenario or a table cannot be used for, and where it stands.

/// A scenario, or a table of fields, that cannot be played.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ScenarioError {
    /// Line of the file, from 1.
    pub line: u32,
    /// What is wrong there.
    pub reason: String,
}

impl ScenarioError {
    pub(super) fn new(line: u32, reason: impl Into<String>) -> Self {
        Self {
            line,
            reason: reason.into(),
        }
    }
}
