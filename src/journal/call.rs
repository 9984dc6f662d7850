//! One INVITE transaction, as the call log tells it: memory of fixed size, filled while it lasts.

use super::sample::is_sampled;
use super::service::Journal;
use crate::limits::{CALL_ATTEMPTS_MAX, CALL_ID_LEN_MAX, CALL_USER_LEN_MAX};
use crate::net::{ListenerIndex, PoolIndex, ServerIndex, SocketAddr};
use crate::publish::Follower;
use crate::time::Instant;

/// Some bytes of a message; what is longer than `N` is cut.
#[derive(Clone, Copy, Debug)]
pub struct Text<const N: usize> {
    len: u16,
    bytes: [u8; N],
}

impl<const N: usize> Text<N> {
    const FITS: () = assert!(N <= u16::MAX as usize);

    /// Nothing.
    pub const fn new() -> Self {
        let () = Self::FITS;
        Self {
            len: 0,
            bytes: [0; N],
        }
    }

    /// Takes the first `N` bytes.
    pub fn set(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(N);
        if let (Some(room), Some(bytes)) = (self.bytes.get_mut(..len), bytes.get(..len)) {
            room.copy_from_slice(bytes);
            self.len = u16::try_from(len).unwrap_or(0);
        }
    }

    /// What was taken.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// How an INVITE transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// With a 2xx.
    Answered,
    /// The caller has cancelled it.
    Cancelled,
    /// Every server that could be tried was, in vain; the final response is our own.
    Exhausted,
    /// With another final response of a server.
    Refused,
    /// We have refused it before a server was tried.
    Rejected,
    /// No final response came in time.
    TimedOut,
}

impl CallEnd {
    /// Its name in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Cancelled => "cancelled",
            Self::Exhausted => "exhausted",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::TimedOut => "timed-out",
        }
    }
}

/// One server that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which.
    pub server: ServerIndex,
    /// Its final response; 0 if there was none.
    pub status: u16,
}

/// One INVITE transaction.
///
/// Times are of the monotonic clock; the writer knows what it means.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// When the INVITE came.
    pub started: Instant,
    /// When its first provisional response above 100 came.
    pub rang: Option<Instant>,
    /// When its final response was sent.
    pub finished: Option<Instant>,
    /// When the transaction ended.
    pub ended: Instant,
    /// How.
    pub end: CallEnd,
    /// The final response that the caller got; 0 if none.
    pub status: u16,
    /// Who sent the INVITE.
    pub source: SocketAddr,
    /// The listener that it came to.
    pub listener: ListenerIndex,
    /// The pool that it was led to.
    pub pool: Option<PoolIndex>,
    /// Its Call-ID.
    pub call_id: Text<CALL_ID_LEN_MAX>,
    /// The user part in From.
    pub from_user: Text<CALL_USER_LEN_MAX>,
    /// The user part in To.
    pub to_user: Text<CALL_USER_LEN_MAX>,
    attempts: [Attempt; CALL_ATTEMPTS_MAX],
    attempt_count: u8,
}

impl CallRecord {
    /// Of an INVITE that comes now, everything else empty.
    pub fn new(started: Instant, source: SocketAddr, listener: ListenerIndex) -> Self {
        let nobody = Attempt {
            server: ServerIndex(u16::MAX),
            status: 0,
        };
        Self {
            started,
            rang: None,
            finished: None,
            ended: started,
            end: CallEnd::Rejected,
            status: 0,
            source,
            listener,
            pool: None,
            call_id: Text::new(),
            from_user: Text::new(),
            to_user: Text::new(),
            attempts: [nobody; CALL_ATTEMPTS_MAX],
            attempt_count: 0,
        }
    }

    /// Adds a server that was tried. Of more than [`CALL_ATTEMPTS_MAX`] the first ones and the last
    /// are kept.
    pub fn attempt(&mut self, attempt: Attempt) {
        let index = usize::from(self.attempt_count).min(CALL_ATTEMPTS_MAX - 1);
        if let Some(room) = self.attempts.get_mut(index) {
            *room = attempt;
            self.attempt_count = self.attempt_count.saturating_add(1);
        }
    }

    /// The servers that were tried, in their order; the last had the last word.
    pub fn attempts(&self) -> &[Attempt] {
        let count = usize::from(self.attempt_count).min(CALL_ATTEMPTS_MAX);
        self.attempts.get(..count).unwrap_or_default()
    }

    /// How many were tried.
    pub fn attempt_count(&self) -> u8 {
        self.attempt_count
    }
}

/// What one worker logs its calls through.
#[derive(Debug)]
pub struct CallJournal(Follower<Journal<CallRecord>>);

impl CallJournal {
    /// Of the log that is followed.
    pub fn new(log: Follower<Journal<CallRecord>>) -> Self {
        Self(log)
    }

    /// To be called once on the worker's thread before its first packet.
    pub fn warm_up(&self) {
        self.0.warm_up();
    }

    /// Whether there is a log: a record need not be filled without. One relaxed load.
    #[inline]
    pub fn is_on(&mut self) -> bool {
        self.0.load().is_some()
    }

    /// Leaves a record, if there is a log and the call is in its sample. Does not block, does not
    /// allocate; a full queue loses it and counts it.
    pub fn offer(&mut self, record: &CallRecord) {
        if let Some(log) = self.0.load()
            && is_sampled(record.call_id.bytes(), log.sample())
        {
            log.add(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_and_attempts_keep_the_last() {
        let mut text = Text::<4>::new();
        text.set(b"abcdef");
        assert_eq!(text.bytes(), b"abcd");
        text.set(b"x");
        assert_eq!(text.bytes(), b"x");

        let source = "198.18.0.2:5060".parse().unwrap();
        let mut record = CallRecord::new(Instant::ZERO, source, ListenerIndex(0));
        assert!(record.attempts().is_empty());
        let tried = |server: usize| Attempt {
            server: ServerIndex(u16::try_from(server).unwrap()),
            status: 503,
        };
        for server in 0..CALL_ATTEMPTS_MAX + 2 {
            record.attempt(tried(server));
        }
        assert_eq!(record.attempts().len(), CALL_ATTEMPTS_MAX);
        assert_eq!(record.attempts()[0], tried(0));
        assert_eq!(
            record.attempts().last(),
            Some(&tried(CALL_ATTEMPTS_MAX + 1))
        );
        assert_eq!(usize::from(record.attempt_count()), CALL_ATTEMPTS_MAX + 2);
    }
}
