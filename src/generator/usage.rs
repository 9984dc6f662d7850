//! CPU time of the calling thread.

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::sys::clock;
use crate::time::{Duration, Instant};

/// A stretch of time and of work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    wall: Instant,
    cpu: Duration,
}

impl Usage {
    /// From now, on this thread.
    pub(super) fn start() -> Self {
        Self {
            wall: clock::now(),
            cpu: thread_time(),
        }
    }

    /// Share of a core that this thread has worked since, 0 to 1: `idle` is CPU time that it has
    /// spent waiting.
    pub(super) fn cpu_share(&self, idle: Duration) -> f64 {
        let wall = clock::now().since(self.wall).as_secs_f64();
        let cpu = thread_time().saturating_sub(self.cpu + idle).as_secs_f64();
        if wall > 0.0 { cpu / wall } else { 0.0 }
    }
}

fn thread_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_is_no_work_and_a_busy_loop_is() {
        let usage = Usage::start();
        std::thread::sleep(Duration::from_millis(30));
        assert!(usage.cpu_share(Duration::ZERO) < 0.3);
        let usage = Usage::start();
        let mut sum = 0u64;
        while thread_time().saturating_sub(usage.cpu) < Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(usage.cpu_share(Duration::ZERO) > 0.0);
    }
}
