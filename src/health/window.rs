//! Final responses of the last seconds, by whether they were 5xx.

use crate::limits::EJECT_WINDOW_SECONDS;
use crate::time::Instant;

/// Counts of one second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    all: u64,
    bad: u64,
}

/// The last [`EJECT_WINDOW_SECONDS`] seconds, the running one included.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    seconds: [Second; EJECT_WINDOW_SECONDS],
}

impl Window {
    /// Adds what was counted since the last time.
    pub(super) fn add(&mut self, now: Instant, all: u64, bad: u64) {
        if all == 0 {
            return;
        }
        let number = second(now);
        let place = usize::try_from(number).unwrap_or(0) % EJECT_WINDOW_SECONDS;
        let Some(seconds) = self.seconds.get_mut(place) else {
            return;
        };
        if seconds.number != number {
            *seconds = Second {
                number,
                ..Second::default()
            };
        }
        seconds.all += all;
        seconds.bad += bad;
    }

    /// All responses and the 5xx among them.
    pub(super) fn sum(&self, now: Instant) -> (u64, u64) {
        let first = (second(now) + 1).saturating_sub(EJECT_WINDOW_SECONDS as u64);
        let seconds = self.seconds.iter().filter(|of| of.number >= first);
        seconds.fold((0, 0), |(all, bad), of| (all + of.all, bad + of.bad))
    }
}

/// From 1 on, so that an unused place is older than all.
fn second(now: Instant) -> u64 {
    now.as_millis() / 1000 + EJECT_WINDOW_SECONDS as u64 + 1
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let mut window = Window::default();
        assert_eq!(window.sum(at(0)), (0, 0));
        window.add(at(0), 10, 4);
        window.add(at(3), 5, 1);
        let last = EJECT_WINDOW_SECONDS as u64 - 1;
        assert_eq!(window.sum(at(last)), (15, 5));
        assert_eq!(window.sum(at(last + 1)), (5, 1));
        // The place of the first second is used again.
        window.add(at(last + 1), 7, 7);
        assert_eq!(window.sum(at(last + 1)), (12, 8));
        assert_eq!(window.sum(at(1000)), (0, 0));
    }
}
