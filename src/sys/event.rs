//! Waking a sleeping thread: an eventfd and a `poll` over borrowed descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use arrayvec::ArrayVec;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::time::Duration;

/// An eventfd: one thread sleeps on it in [`wait`], any other wakes it.
#[derive(Debug)]
pub struct Event(OwnedFd);

impl Event {
    /// A quiet one.
    ///
    /// # Errors
    /// The kernel's, when descriptors have run out.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC,
        )?))
    }

    /// Makes the descriptor readable. Never blocks: a full counter is readable already.
    pub fn signal(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes it quiet again.
    pub fn clear(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.0, &mut count);
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Descriptors one [`wait`] can watch.
pub const WAIT_MAX: usize = 192;

/// Sleeps until one of `fds` is readable or `timeout` has passed. Returns how many are readable.
///
/// An interrupted sleep returns 0: the caller looks at its work and comes back. Descriptors past
/// [`WAIT_MAX`] are not watched.
pub fn wait<'fd>(
    fds: impl IntoIterator<Item = BorrowedFd<'fd>>,
    timeout: Option<Duration>,
) -> usize {
    let mut set: ArrayVec<PollFd<'_>, WAIT_MAX> = fds
        .into_iter()
        .take(WAIT_MAX)
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    });
    poll(&mut set, timeout.as_ref()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_seen_until_cleared() {
        let event = Event::new().unwrap();
        let brief = Some(Duration::from_millis(1));
        assert_eq!(wait([event.as_fd()], brief), 0);
        event.signal();
        event.signal();
        assert_eq!(wait([event.as_fd()], brief), 1);
        event.clear();
        assert_eq!(wait([event.as_fd()], brief), 0);
    }

    #[test]
    fn a_signal_ends_an_endless_wait() {
        let event = std::sync::Arc::new(Event::new().unwrap());
        let sleeper = std::thread::spawn({
            let event = event.clone();
            move || wait([event.as_fd()], None)
        });
        event.signal();
        assert_eq!(sleeper.join().unwrap(), 1);
    }
}
