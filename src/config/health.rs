//! How it is found out whether the servers of a pool answer: `[pools.health]`.

use core::time::Duration;

use super::reader::Reader;
use crate::limits::FROM_URI_LEN_MAX;

/// Probes and what traffic says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Time from probe to probe of a server that answers; zero = no probes.
    pub interval: Duration,
    /// Time that a probe's answer has.
    pub timeout: Duration,
    /// Accepted answers in a row that bring a server back.
    pub rise: u32,
    /// Probes without an accepted answer in a row that take a server out.
    pub fall: u32,
    /// Answers that are accepted.
    pub codes: Codes,
    /// URI of From; `None` = `sip:viaduct@` and the address that the probe leaves from.
    pub from: Option<String>,
    /// `Max-Forwards`; 0 has a server that is a proxy answer itself (RFC 3261 §11).
    pub max_forwards: u8,
    /// Requests without any response in a row that take a server out; 0 = none do.
    pub eject_timeouts: u32,
    /// Of a hundred final responses, how many 5xx take a server out; 0 = none do.
    pub eject_5xx_percent: u32,
    /// Of a hundred servers of the pool, how many traffic may take out.
    pub max_ejected_percent: u32,
    /// Of a hundred servers of the pool, how many are up at least: with fewer those that traffic has
    /// taken out count as up.
    pub panic_percent: u32,
    /// What the client is told when no server takes calls.
    pub no_server_code: u16,
}

/// Status codes of answers to probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Codes {
    /// Any but 503: whoever answers lives, whatever it thinks of OPTIONS.
    Any,
    /// These.
    List(Vec<u16>),
}

impl Codes {
    /// Whether the answer says that the server works.
    pub fn accepts(&self, status: u16) -> bool {
        match self {
            Self::Any => (200..700).contains(&status) && status != 503,
            Self::List(codes) => codes.contains(&status),
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
            codes: Codes::Any,
            from: None,
            max_forwards: 70,
            eject_timeouts: 5,
            eject_5xx_percent: 50,
            max_ejected_percent: 50,
            panic_percent: 50,
            no_server_code: 503,
        }
    }
}

impl Health {
    /// The table, if it is there.
    pub(super) fn read(pool: &Reader<'_>) -> Option<Self> {
        let table = pool.table("health");
        let health = table.is_there().then(|| Self::of(&table));
        table.finish();
        health
    }

    fn of(table: &Reader<'_>) -> Self {
        let default = Self::default();
        let interval = table.seconds("interval", 0.0..=3600.0);
        if let Some(interval) = interval
            && !interval.is_zero()
            && interval < Duration::from_millis(100)
        {
            let reason = "is neither 0 (no probes) nor at least 0.1 seconds";
            table.fault("interval", interval.as_secs_f64(), reason);
        }
        let interval = interval.unwrap_or(default.interval);
        let timeout = table.seconds("timeout", 0.1..=32.0);
        // Only the newest probe of a server is waited for.
        if let Some(timeout) = timeout
            && !interval.is_zero()
            && timeout > interval
        {
            let reason = "is longer than interval: the next probe would not wait for it";
            table.fault("timeout", timeout.as_secs_f64(), reason);
        }
        let timeout = timeout.unwrap_or_else(|| match interval.is_zero() {
            true => default.timeout,
            false => default.timeout.min(interval),
        });
        Self {
            interval,
            timeout,
            rise: table.integer("rise", 1..=100).unwrap_or(default.rise),
            fall: table.integer("fall", 1..=100).unwrap_or(default.fall),
            codes: codes(table).unwrap_or(default.codes),
            from: from(table),
            max_forwards: table
                .integer("max_forwards", 0..=255)
                .unwrap_or(default.max_forwards),
            eject_timeouts: table
                .integer("eject_timeouts", 0..=1000)
                .unwrap_or(default.eject_timeouts),
            eject_5xx_percent: table
                .integer("eject_5xx_percent", 0..=100)
                .unwrap_or(default.eject_5xx_percent),
            max_ejected_percent: table
                .integer("max_ejected_percent", 0..=100)
                .unwrap_or(default.max_ejected_percent),
            panic_percent: table
                .integer("panic_percent", 0..=100)
                .unwrap_or(default.panic_percent),
            no_server_code: table
                .integer("no_server_code", 400..=699)
                .unwrap_or(default.no_server_code),
        }
    }
}

/// `"any"` or a list of final status codes.
fn codes(table: &Reader<'_>) -> Option<Codes> {
    if table.is_string("codes") {
        return table.choice("codes", &[("any", ())]).map(|()| Codes::Any);
    }
    let codes: Vec<u16> = table
        .integers("codes", 200..=699)?
        .into_iter()
        .filter_map(|code| u16::try_from(code).ok())
        .collect();
    if codes.is_empty() {
        table.fault("codes", "[]", "is empty: no answer would do");
    }
    Some(Codes::List(codes))
}

/// A SIP URI that can stand between `<` and `>`.
fn from(table: &Reader<'_>) -> Option<String> {
    let uri = table.string("from")?;
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"<>\"\\".contains(&byte);
    let has_host = uri
        .strip_prefix("sip:")
        .is_some_and(|rest| !rest.is_empty());
    if !has_host || uri.len() > FROM_URI_LEN_MAX || !uri.bytes().all(is_plain) {
        let reason = format!("is not a sip: URI of at most {FROM_URI_LEN_MAX} characters");
        table.fault("from", format!("{uri:?}"), reason);
        return None;
    }
    Some(uri.to_owned())
}
