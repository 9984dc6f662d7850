//! `[transactions]`: room for requests that are handled with a transaction.

use std::path::PathBuf;

use super::reader::Reader;
use crate::limits::{
    STORED_BYTES_DEFAULT, STORED_BYTES_MAX, STORED_BYTES_MIN, TRANSACTIONS_DEFAULT,
    TRANSACTIONS_MAX, TRANSACTIONS_MIN,
};

/// Room for transactions, all workers together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transactions {
    /// Transactions that are open at once. An INVITE keeps its place 32 s after its final response.
    pub max: usize,
    /// Bytes of messages that they keep.
    pub message_bytes: usize,
    /// Whether responses of transactions that a crash took are forwarded (a deviation from RFC 6026
    /// §7.3).
    pub rescue: bool,
    /// The file of one JSON line for each INVITE transaction; `None` = no log.
    pub call_log: Option<PathBuf>,
    /// One of how many Call-IDs is in it.
    pub call_sample: u32,
}

impl Transactions {
    pub(super) fn read(table: Reader<'_>) -> Self {
        let call_log = table.string("call_log").filter(|path| !path.is_empty());
        if let Some(path) = call_log
            && !path.starts_with('/')
        {
            table.fault("call_log", format!("{path:?}"), "is not an absolute path");
        }
        let transactions = Self {
            max: table
                .integer("max", TRANSACTIONS_MIN..=TRANSACTIONS_MAX)
                .unwrap_or(TRANSACTIONS_DEFAULT),
            message_bytes: table
                .integer("message_bytes", STORED_BYTES_MIN..=STORED_BYTES_MAX)
                .unwrap_or(STORED_BYTES_DEFAULT),
            rescue: table.boolean("rescue").unwrap_or(false),
            call_log: call_log.map(PathBuf::from),
            call_sample: table.integer("call_sample", 1..=1_000_000).unwrap_or(1),
        };
        table.finish();
        transactions
    }
}
