//! Arbitrary sequences of messages, ICMP errors, reloads and time into the proxy: no panic, and no
//! transaction, timer or stored message is left when nothing has come for long enough.

#![no_main]

#[path = "../../tests/proxy_events/events.rs"]
mod events;

use std::cell::RefCell;

use events::Events;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static EVENTS: RefCell<Events> = RefCell::new(Events::new());
}

fuzz_target!(|data: &[u8]| EVENTS.with_borrow_mut(|events| events.play(data)));
