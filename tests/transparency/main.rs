//! What a proxy has to let pass, RFC by RFC: every extension of SIP whose headers, bodies and
//! methods are none of a proxy's business leaves as it came.
//!
//! Each test is named by its row of `tests/conformance.tsv`. Each message goes through
//! `Forwarder::decide` in both directions and over four configurations, three times each, and is
//! held against the transparency test of `tests/common/transparency`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bodies;
mod events;
mod exchange;
#[path = "../rfc3261_16/fixture.rs"]
mod fixture;
mod identity;
mod oracle;
mod referrals;
mod registrations;
mod sessions;
mod torture;
#[path = "../common/transparency/mod.rs"]
mod transparency;
