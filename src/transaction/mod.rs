//! Transactions: RFC 3261 §17 as amended by RFC 4320 and RFC 6026, without sockets and clocks.
//!
//! - [`machine`] says what each of the four state machines does at each event.
//! - [`store`] holds transactions: records, their keys, the messages they remember. Its size is
//!   fixed at start; memory is touched when it is first used and never allocated afterwards.
//! - [`wheel`] says which transaction's timer is due.
//!
//! What a transaction is made of (the request, its branches, the responses) is its user's; this
//! module gives the ground it stands on and knows no SIP message.

pub mod machine;
pub mod store;
pub mod wheel;

#[cfg(test)]
mod tests;
