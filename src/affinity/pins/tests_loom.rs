//! Loom models of the pin table: every order of every access of two workers, two slots to a bucket.

use loom::sync::Arc;
use loom::thread;

use super::*;

const NOW: Instant = Instant::from_nanos(1 << 40);

const INVITE: Transaction = Transaction {
    invite: true,
    cseq: 1,
};

fn pin(pins: &Pins, call_id: u64, server: u16) -> Insertion {
    let new = NewPin {
        server: ServerIndex(server),
        mode: Mode::Stateless,
        transaction: INVITE,
    };
    pins.insert(CallIdHash(call_id), new, NOW)
}

fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(run);
}

/// Two insertions of one key: one server for both, and one pin.
#[test]
fn insertions_of_one_key_agree() {
    model(|| {
        let pins = Arc::new(Pins::new(WAYS));
        let other = {
            let pins = pins.clone();
            thread::spawn(move || pin(&pins, 1, 11))
        };
        let mine = pin(&pins, 1, 22);
        let other = other.join().unwrap();
        let found = pins.find(CallIdHash(1), NOW).map(|pin| pin.server);
        for insertion in [mine, other] {
            assert_ne!(insertion.outcome, PinOutcome::Refused);
            assert_eq!(Some(insertion.pin.server), found);
        }
        assert_eq!(pins.usage(NOW).unanswered, 1);
    });
}

/// A response marks a pin while another call takes its place: the mark never lands on the newcomer.
#[test]
fn a_response_never_marks_another_call() {
    model(|| {
        let pins = Arc::new(Pins::new(WAYS));
        pin(&pins, 1, 11);
        let second = CallIdHash(2);
        pin(&pins, 2, 22);
        pins.on_response(second, INVITE, 180, NOW);
        let writer = {
            let pins = pins.clone();
            thread::spawn(move || pin(&pins, 3, 33))
        };
        pins.on_response(CallIdHash(1), INVITE, 180, NOW);
        let outcome = writer.join().unwrap().outcome;
        let usage = pins.usage(NOW);
        match outcome {
            // The first went before its answer came: the newcomer is unanswered.
            PinOutcome::Evicted => assert_eq!((usage.unanswered, usage.proceeding), (1, 1)),
            // The answer was first: both wait for a final response, and stay.
            PinOutcome::Refused => assert_eq!((usage.unanswered, usage.proceeding), (0, 2)),
            other => panic!("{other:?}"),
        }
    });
}
