//! What time brings: timers of the records, probes, servers that have gone down.

use super::Proxy;
use super::outbox::Outbox;
use crate::limits::SWEEP_STEP;
use crate::route::Plan;
use crate::time::{Duration, Instant};

/// How often the plan is looked at for servers that have gone down.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

impl Proxy {
    /// Runs what is due; returns when something is due next.
    pub fn on_timer(&mut self, plan: &Plan, now: Instant, out: &mut dyn Outbox) -> Option<Instant> {
        while let Some(place) = self.wheel.pop_due(now) {
            let Some(handle) = self.records.handle_of(place) else {
                continue;
            };
            if let Some((record, mut scene)) = self.scene(handle, plan, now, out) {
                scene.on_due(record);
            }
            self.settle(handle, plan, now, out);
        }
        self.watch_servers(plan, now, out);
        self.probes.on_timer(plan, &self.board, now, out);
        // A changed plan wakes nobody; who has transactions looks for one.
        let watch = (!self.records.is_empty()).then(|| now + WATCH_INTERVAL);
        let calls = self.tend_calls(now);
        let due = self.next_deadline();
        due.into_iter().chain(watch).chain(calls).min()
    }

    /// When something is due next of the transactions.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.sweep {
            Some(_) => Some(Instant::ZERO),
            None => {
                let deadlines = [self.wheel.next_deadline(), self.probes.next_deadline()];
                deadlines.into_iter().flatten().min()
            }
        }
    }

    /// Looks for servers that have gone down since, and then at the records, some at a time.
    fn watch_servers(&mut self, plan: &Plan, now: Instant, out: &mut dyn Outbox) {
        let down = plan.down_servers();
        if down != self.down {
            self.down = down;
            if down != 0 && !self.records.is_empty() {
                self.sweep = Some(0);
            }
        }
        let Some(from) = self.sweep else { return };
        let until = from.saturating_add(SWEEP_STEP).min(self.records.capacity());
        for place in from..until {
            let Some(handle) = self.records.handle_of(place) else {
                continue;
            };
            if let Some((record, mut scene)) = self.scene(handle, plan, now, out) {
                scene.on_server_down(record);
            }
            self.settle(handle, plan, now, out);
        }
        self.sweep = (until < self.records.capacity()).then_some(until);
    }
}
