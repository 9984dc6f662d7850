//! `[transactions]`: room for requests that are handled with a transaction.

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
}

impl Transactions {
    pub(super) fn read(table: Reader<'_>) -> Self {
        let transactions = Self {
            max: table
                .integer("max", TRANSACTIONS_MIN..=TRANSACTIONS_MAX)
                .unwrap_or(TRANSACTIONS_DEFAULT),
            message_bytes: table
                .integer("message_bytes", STORED_BYTES_MIN..=STORED_BYTES_MAX)
                .unwrap_or(STORED_BYTES_DEFAULT),
            rescue: table.boolean("rescue").unwrap_or(false),
        };
        table.finish();
        transactions
    }
}
