//! What the workers of a process remember together, beside the pins.

use super::budget::SourceBudgets;
use super::throttle::Throttles;
use crate::affinity::{Decisions, MovedFlows};

/// Memory of all workers; each forwarder of a process is given the same one.
#[derive(Debug)]
pub struct Shared {
    pub(super) flows: MovedFlows,
    pub(super) sources: SourceBudgets,
    pub(super) throttles: Throttles,
    pub(super) decisions: Decisions,
}

impl Shared {
    /// With room for `moved_flows` clients that have moved in the middle of a dialog.
    pub fn new(moved_flows: usize) -> Self {
        Self {
            flows: MovedFlows::new(moved_flows),
            sources: SourceBudgets::new(),
            throttles: Throttles::new(),
            decisions: Decisions::new(0),
        }
    }

    /// Remembers so many decisions besides, see [`Decisions`].
    #[must_use]
    pub fn remembering(self, decisions: usize) -> Self {
        Self {
            decisions: Decisions::new(decisions),
            ..self
        }
    }

    /// What was decided.
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }
}
