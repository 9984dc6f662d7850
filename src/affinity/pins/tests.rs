//! Tests of the pin table.

use super::*;

const INVITE: Transaction = Transaction {
    invite: true,
    cseq: 1,
};

fn new(server: u16) -> NewPin {
    NewPin {
        server: ServerIndex(server),
        mode: Mode::Stateless,
        transaction: INVITE,
    }
}

#[test]
fn the_first_server_of_a_call_id_holds() {
    let pins = Pins::new(64);
    let now = Instant::from_nanos(1 << 40);
    let call_id = CallIdHash(7);
    assert_eq!(pins.find(call_id, now), None);
    assert_eq!(pins.insert(call_id, new(1), now).outcome, PinOutcome::Made);
    let second = pins.insert(call_id, new(2), now);
    assert_eq!(second.outcome, PinOutcome::Existing);
    assert_eq!(second.pin.server, ServerIndex(1));
    assert_eq!(pins.find(call_id, now), Some(second.pin));
}
