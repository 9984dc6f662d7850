//! Since when servers are what they are, and how many calls they get now.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::metrics::WorkerMetrics;
use crate::net::ServerIndex;
use crate::route::{Plan, ServerState};
use crate::time::Instant;

/// Looks, a second apart, that a rate is made of.
const LOOKS: usize = 11;

/// What is watched of every server, by slot.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// State, and since when: nanoseconds since the epoch.
    states: Vec<(ServerState, u64)>,
    /// When, and calls given to each server until then.
    looks: VecDeque<(Instant, Vec<u64>)>,
}

impl Activity {
    /// A plan is followed from now on.
    pub(super) fn on_plan(&mut self, plan: &Plan, real_now: u64) {
        for server in plan.servers() {
            match self.states.get_mut(usize::from(server.index.0)) {
                Some(known) if known.0 == server.state => {}
                Some(known) => *known = (server.state, real_now),
                None => self.states.push((server.state, real_now)),
            }
        }
    }

    /// To be called each second.
    pub(super) fn look(&mut self, metrics: &[Arc<WorkerMetrics>], now: Instant) {
        let mut counts = vec![0_u64; self.states.len()];
        for worker in metrics {
            for (count, server) in counts.iter_mut().zip(&worker.servers) {
                *count = count.wrapping_add(server.selected.value());
            }
        }
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back((now, counts));
    }

    /// Since when a server's state is what it is, in nanoseconds since the epoch.
    pub(super) fn since(&self, server: ServerIndex) -> Option<u64> {
        Some(self.states.get(usize::from(server.0))?.1)
    }

    /// New calls of a server per second over the last ten.
    pub(super) fn rate(&self, server: ServerIndex) -> f64 {
        let of = |look: &(Instant, Vec<u64>)| look.1.get(usize::from(server.0)).copied();
        let (Some(first), Some(last)) = (self.looks.front(), self.looks.back()) else {
            return 0.0;
        };
        let count = of(last).unwrap_or(0).wrapping_sub(of(first).unwrap_or(0));
        let seconds = last.0.since(first.0).as_secs_f64();
        if seconds > 0.0 {
            (count as f64 / seconds * 10.0).round() / 10.0
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    #[test]
    fn a_rate_is_that_of_the_last_ten_seconds() {
        let metrics = [
            Arc::new(WorkerMetrics::new()),
            Arc::new(WorkerMetrics::new()),
        ];
        let server = ServerIndex(1);
        let mut activity = Activity {
            states: vec![(ServerState::Active, 0); 2],
            ..Activity::default()
        };
        assert!(activity.rate(server) == 0.0);
        let mut now = Instant::ZERO;
        for second in 0..40 {
            activity.look(&metrics, now);
            now += Duration::from_secs(1);
            // Thirty a second, then none.
            if second < 20 {
                metrics[0].server(server).selected.add(10);
                metrics[1].server(server).selected.add(20);
            }
            match second {
                2..=20 => assert!(activity.rate(server) == 30.0),
                25 => assert!(activity.rate(server) == 15.0),
                31.. => assert!(activity.rate(server) == 0.0),
                _ => {}
            }
            assert!(activity.rate(ServerIndex(0)) == 0.0);
        }
    }
}
