//! Change while it rings: RFC 3261 §16.11 lets a stateless proxy change nothing of a transaction in
//! flight, and an INVITE is in flight for minutes.
//!
//! Servers come and go, weights, priorities, keys and ways of reaching a server change, messages
//! take another worker, another port, another node: one server and one branch through all of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../rfc3261_16/fixture.rs"]
mod fixture;

mod calls;
mod dialogs;
mod farm;
mod keys;
mod nodes;
mod rules;
mod workers;
