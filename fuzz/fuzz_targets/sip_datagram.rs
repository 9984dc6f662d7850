//! Any UDP payload into the SIP parser, held against what must be true of every result.
//!
//! Seeds: `tests/data/rfc4475`, `tests/data/rfc5118`, `tests/data/messages`.

#![no_main]

#[path = "../../tests/common/sip_invariants.rs"]
mod sip_invariants;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = viaduct::sip::classify_noise(bytes);
    sip_invariants::check(bytes);
});
