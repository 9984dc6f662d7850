//! What the workers of a process remember together, beside the pins.

use super::budget::SourceBudgets;
use crate::affinity::MovedFlows;

/// Memory of all workers; each forwarder of a process is given the same one.
#[derive(Debug)]
pub struct Shared {
    pub(super) flows: MovedFlows,
    pub(super) sources: SourceBudgets,
}

impl Shared {
    /// With room for `moved_flows` clients that have moved in the middle of a dialog.
    pub fn new(moved_flows: usize) -> Self {
        Self {
            flows: MovedFlows::new(moved_flows),
            sources: SourceBudgets::new(),
        }
    }
}
