//! The rules of forwarding with a transaction for every request: RFC 3261 §16 as its stateless
//! tests hold it, and one module for each further RFC. Names begin with the row of
//! `tests/conformance.tsv` that they prove.
//!
//! Every test is bytes in, bytes out: no network, and a clock that is set.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, unreachable_pub, reason = "the fixture serves two kinds")]

mod calls;
mod fixture;

// What a proxy does to a message is the same with and without a transaction.
#[path = "../rfc3261_16/answers.rs"]
mod answers;
#[path = "../rfc3261_16/dialog.rs"]
mod dialog;
#[path = "../rfc3261_16/directions.rs"]
mod directions;
#[path = "../rfc3261_16/record_route.rs"]
mod record_route;
#[path = "../rfc3261_16/responses.rs"]
mod responses;
#[path = "../rfc3261_16/routing.rs"]
mod routing;
#[path = "../rfc3261_16/syntax.rs"]
mod syntax;
#[path = "../rfc3261_16/validation.rs"]
mod validation;
#[path = "../rfc3261_16/via.rs"]
mod via;

mod others;
mod overload;
mod rfc3261_transactions;
mod rfc3263;
mod rfc3326;
mod rfc3841;
mod rfc4320;
mod rfc6026;
