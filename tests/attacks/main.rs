//! Attacks, each as a test: what a stranger, a client with a valid token, a neighbour of the farm or
//! a server may try, and that nothing of it gets through.
//!
//! Asserted is the reason of the drop or the status of the answer, not only that nothing was sent.
//!
//! A server of the farm is trusted: what it sends goes where its Route and Request-URI say, so that
//! it is an open relay for itself by design. What it may not do stands in `next_hop`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../rfc3261_16/fixture.rs"]
mod fixture;

mod acl;
mod answers;
mod extremes;
mod flood;
mod next_hop;
mod own_host;
mod pins;
mod relay;
mod responses;
mod table;
mod tokens;
mod tools;
