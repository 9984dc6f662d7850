//! Peers with habits: what phones, servers and carriers do to the messages that we gave them, and
//! still expect to be understood.
//!
//! A habit is a function on one message. Every habit runs for calls in both directions and in each
//! shape of a farm; what must hold is the same for all: the response goes where its request came
//! from, the request of a dialog reaches the other end, nothing of ours is left in either.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../rfc3261_16/fixture.rs"]
mod fixture;

mod ack;
mod call;
mod clients;
mod responses;
mod routes;
mod servers;
