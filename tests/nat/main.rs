//! Clients behind a NAT: how they are told, how answers and requests reach them, what happens when
//! they move, how they are called, and what a stranger gets out of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../rfc3261_16/fixture.rs"]
mod fixture;
mod phone;

mod keepalive;
mod modes;
mod moved;
mod path;
mod strangers;
