//! What the health of servers makes of the plan.

use core::fmt::Write as _;

use tracing::error;

use super::Process;
use crate::sys::clock;

impl Process {
    /// Looks which servers answer, and publishes what has changed.
    pub(super) fn look_at_health(&mut self) {
        let plan = self.plan.load_full();
        let changes = self.monitor.tick(clock::now(), &self.board, &plan);
        if changes.is_empty() {
            return;
        }
        let mut why = String::new();
        for change in &changes {
            change.log(&plan);
            let name = plan.server(change.server).map_or("?", |of| &*of.name);
            let (to, cause) = (change.to.as_str(), change.cause.as_str());
            let separator = if why.is_empty() { "" } else { ", " };
            // Writing into a String cannot fail.
            let _infallible = write!(why, "{separator}{name} is {to}: {cause}");
        }
        let applied = self.change_standing(&why, |standing| {
            for change in &changes {
                change.apply(standing);
            }
        });
        if let Err(error) = applied {
            // The monitor will say so again.
            error!("health: {error}");
        }
    }
}
