//! Any datagram, from any sender, through the forwarder: no panic, and the invariants of
//! `tests/forward_properties.rs` hold.
//!
//! The first byte chooses configuration, listener and sender.

#![no_main]

#[path = "../../tests/rfc3261_16/fixture.rs"]
mod fixture;
#[path = "../../tests/rfc3261_16/invariants.rs"]
mod invariants;

use std::cell::RefCell;

use invariants::Invariants;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static INVARIANTS: RefCell<Invariants> = RefCell::new(Invariants::new());
}

fuzz_target!(|data: &[u8]| {
    if let Some((sender, bytes)) = data.split_first() {
        INVARIANTS.with_borrow_mut(|invariants| invariants.check(*sender, bytes));
    }
});
