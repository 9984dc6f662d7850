//! Arbitrary sequences of messages and timers into the proxy; see `events.rs` for what must hold.
//!
//! `fuzz/fuzz_targets/proxy_events.rs` looks further with the same events.

mod events;

use events::Events;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_sequence_panics_or_leaves_anything(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        Events::new().play(&bytes);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The same proxy for sequence after sequence: what one leaves behind, the next would find.
    #[test]
    fn a_proxy_serves_again(
        sequences in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..8),
    ) {
        let mut events = Events::new();
        for bytes in sequences {
            events.play(&bytes);
        }
    }
}

/// The alphabet reaches what it is meant to reach: a call, its repetition, ringing, an answer.
#[test]
fn a_call_can_be_spelled() {
    let mut events = Events::new();
    // INVITE, 180 and 200, BYE.
    events.play(&[0, 0, 0, 5, 0, 1, 0, 5, 0, 4, 0, 0, 4, 8]);
    // INVITE, 486, two seconds, ACK.
    events.play(&[0, 0, 1, 5, 0, 17, 0, 10, 8, 0, 3, 1]);
    // INVITE, CANCEL, 180, 487 to the INVITE behind our CANCEL.
    events.play(&[0, 0, 2, 0, 2, 2, 5, 0, 1, 0, 5, 1, 18, 0]);
    assert!(events.opened() >= 3, "{} transactions", events.opened());
}
