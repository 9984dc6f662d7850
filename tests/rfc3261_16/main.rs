//! RFC 3261 §16.11 and what belongs to it, one test per duty, named by the row of
//! `tests/conformance.tsv` that it proves.
//!
//! Every test is bytes in, bytes out: no network, no clock.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod alone;
mod answers;
mod client_address;
mod dialog;
mod directions;
mod fixture;
mod overload_control;
mod record_route;
mod responses;
mod routing;
mod syntax;
mod transactions;
mod unreachable;
mod validation;
mod via;
