//! What becomes of an INVITE whose server does not take it: keys of `[[pools]]`.

use core::time::Duration;

use super::reader::Reader;

/// Fail-over from server to server, one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hunting {
    /// Final responses after which another server is tried: never a challenge (RFC 3261 §16.7 step 7)
    /// nor a 6xx, which is the last word everywhere (§21.6).
    pub on: Vec<u16>,
    /// What the client is told when all have refused with 503 (RFC 3261 §16.7 step 6).
    pub exhausted_code: u16,
    /// Silence after which another server is tried.
    pub attempt_timeout: Duration,
    /// Silence after which no server is tried any more.
    pub timeout: Duration,
    /// How many of a hundred new calls may go to another server because one is silent.
    pub retry_budget: u32,
    /// Whether calls that ring at a server which has gone down end at once.
    pub ends_ringing: bool,
}

impl Default for Hunting {
    fn default() -> Self {
        Self {
            on: vec![503],
            exhausted_code: 500,
            attempt_timeout: Duration::from_secs(2),
            timeout: Duration::from_secs(6),
            retry_budget: 10,
            ends_ringing: true,
        }
    }
}

impl Hunting {
    /// Whether no call goes to another server, whatever becomes of its own.
    pub fn is_off(&self) -> bool {
        self.on.is_empty() && self.retry_budget == 0
    }

    pub(super) fn read(table: &Reader<'_>) -> Self {
        let default = Self::default();
        let on = match table.integers("hunt_on", 400..=599) {
            Some(statuses) => statuses
                .into_iter()
                .filter_map(|status| u16::try_from(status).ok())
                .collect(),
            None => default.on,
        };
        for status in on.iter().filter(|status| matches!(status, 401 | 407)) {
            table.fault(
                "hunt_on",
                status,
                "is a challenge, which is for the client: no other server betters it",
            );
        }
        let choices = [("end", true), ("keep", false)];
        let hunting = Self {
            on,
            exhausted_code: table
                .integer("exhausted_code", 400..=699)
                .unwrap_or(default.exhausted_code),
            attempt_timeout: table
                .seconds("attempt_timeout", 0.5..=32.0)
                .unwrap_or(default.attempt_timeout),
            timeout: table
                .seconds("hunt_timeout", 0.5..=32.0)
                .unwrap_or(default.timeout),
            retry_budget: table
                .integer("retry_budget", 0..=100)
                .unwrap_or(default.retry_budget),
            ends_ringing: table
                .choice("down_ringing", &choices)
                .unwrap_or(default.ends_ringing),
        };
        if hunting.timeout < hunting.attempt_timeout {
            table.fault(
                "hunt_timeout",
                hunting.timeout.as_secs_f64(),
                "is shorter than attempt_timeout",
            );
        }
        hunting
    }
}
