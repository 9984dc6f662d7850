//! Every cell of every machine against the committed tables.
//!
//! `VIADUCT_WRITE_TABLES=1` writes them anew; whoever does so reads the difference against the RFC.

use core::fmt::Debug;
use core::fmt::Write as _;

use super::*;

/// One machine as text: one row per state and event, its outcome over either transport.
fn table<S: Debug + Copy + PartialEq, E: Debug + Copy>(
    title: &str,
    start: impl Fn(Transport) -> Step<S>,
    states: &[S],
    events: &[E],
    step: impl Fn(S, E, Transport) -> Step<S>,
) -> String {
    let mut text = format!("# {title}\n# state | event | next | actions\n");
    let mut row = |state: &str, event: &str, step: &dyn Fn(Transport) -> Step<S>| {
        let [unreliable, reliable] = Transport::ALL.map(step);
        let mut line = |mark: &str, step: Step<S>| {
            let next = format!("{:?}", step.next);
            let columns = format!("{state:<10} | {event:<14} | {next:<10} | {}", step.actions);
            writeln!(text, "{columns}{mark}").unwrap();
        };
        if unreliable == reliable {
            line("", unreliable);
        } else {
            line("  (unreliable)", unreliable);
            line("  (reliable)", reliable);
        }
    };
    row("-", "start", &start);
    for state in states {
        for event in events {
            let name = format!("{event:?}");
            row(&format!("{state:?}"), &name, &|transport| {
                step(*state, *event, transport)
            });
        }
    }
    text
}

/// Fails with the lines that differ.
fn compare(name: &str, committed: &str, made: &str) {
    if std::env::var_os("VIADUCT_WRITE_TABLES").is_some() {
        let path = format!(
            "{}/src/transaction/machine/tables/{name}.txt",
            env!("CARGO_MANIFEST_DIR")
        );
        std::fs::write(&path, made).unwrap();
        panic!("{path} is written: read it against the RFC, then run without the variable");
    }
    let (old, new): (Vec<_>, Vec<_>) = (committed.lines().collect(), made.lines().collect());
    let gone = old.iter().filter(|line| !new.contains(line));
    let come = new.iter().filter(|line| !old.contains(line));
    let changes: Vec<String> = gone
        .map(|line| format!("- {line}"))
        .chain(come.map(|line| format!("+ {line}")))
        .collect();
    assert!(changes.is_empty(), "{name}:\n{}", changes.join("\n"));
    assert_eq!(old, new, "{name}: rows in another order");
}

#[test]
fn invite_client_table() {
    use invite_client::{Event, State, start, step};
    let made = table(
        "INVITE client transaction: RFC 3261 17.1.1, RFC 6026 8.4",
        start,
        &State::ALL,
        &Event::ALL,
        step,
    );
    compare(
        "invite_client",
        include_str!("tables/invite_client.txt"),
        &made,
    );
}

#[test]
fn non_invite_client_table() {
    use non_invite_client::{Event, State, start, step};
    let made = table(
        "Non-INVITE client transaction: RFC 3261 17.1.2",
        start,
        &State::ALL,
        &Event::ALL,
        step,
    );
    compare(
        "non_invite_client",
        include_str!("tables/non_invite_client.txt"),
        &made,
    );
}

#[test]
fn invite_server_table() {
    use invite_server::{Event, State, start, step};
    let made = table(
        "INVITE server transaction: RFC 3261 17.2.1, RFC 6026 8.5 to 8.8",
        |_| start(),
        &State::ALL,
        &Event::ALL,
        step,
    );
    compare(
        "invite_server",
        include_str!("tables/invite_server.txt"),
        &made,
    );
}

#[test]
fn non_invite_server_table() {
    use non_invite_server::{Event, State, start, step};
    let made = table(
        "Non-INVITE server transaction: RFC 3261 17.2.2, RFC 4320 4, RFC 6026 8.8",
        |_| start(),
        &State::ALL,
        &Event::ALL,
        step,
    );
    compare(
        "non_invite_server",
        include_str!("tables/non_invite_server.txt"),
        &made,
    );
}

/// What must hold of every cell of a machine, whatever the table says.
fn laws<S: Debug + Copy + PartialEq, E: Debug + Copy>(
    states: &[S],
    events: &[E],
    terminated: S,
    step: impl Fn(S, E, Transport) -> Step<S>,
) {
    for (state, event, transport) in states.iter().flat_map(|state| {
        events
            .iter()
            .flat_map(move |event| Transport::ALL.map(|transport| (*state, *event, transport)))
    }) {
        let cell = (state, event, transport);
        let Step { next, actions } = step(state, event, transport);
        let starts = |timer: &Timer| actions.starts(*timer);
        // Terminated is the end, and nothing is left running there.
        if state == terminated {
            assert_eq!((next, actions), (terminated, Actions::NONE), "{cell:?}");
        } else if next == terminated {
            assert!(actions.contains(Actions::STOP_TIMERS), "{cell:?}");
            assert!(!Timer::ALL.iter().any(starts), "{cell:?}");
        }
        // What is kept has been sent, and nothing is sent twice for one event.
        assert!(
            !actions.contains(Actions::KEEP_RESPONSE) || actions.contains(Actions::SEND_RESPONSE),
            "{cell:?}"
        );
        let sends = [
            Actions::SEND_RESPONSE,
            Actions::RESEND_RESPONSE,
            Actions::SEND_TRYING,
        ];
        assert!(
            sends.iter().filter(|one| actions.contains(**one)).count() <= 1,
            "{cell:?}"
        );
        // Over a reliable transport nothing is sent again by a timer.
        if transport == Transport::Reliable {
            let repeats = [Timer::A, Timer::E, Timer::G];
            assert!(!repeats.iter().any(starts), "{cell:?}");
        }
    }
}

#[test]
fn laws_of_every_machine() {
    {
        use invite_client::{Event, State, step};
        laws(&State::ALL, &Event::ALL, State::Terminated, step);
    }
    {
        use invite_server::{Event, State, step};
        laws(&State::ALL, &Event::ALL, State::Terminated, step);
    }
    {
        use non_invite_client::{Event, State, step};
        laws(&State::ALL, &Event::ALL, State::Terminated, step);
    }
    {
        use non_invite_server::{Event, State, step};
        laws(&State::ALL, &Event::ALL, State::Terminated, step);
    }
}

/// RFC 6026 §7.1, §7.2: the corrected cells, one by one.
#[test]
fn rfc6026_keeps_the_transaction_after_a_2xx() {
    use invite_client::{Event as C, State as Client};
    use invite_server::{Event as S, State as Server};
    for transport in Transport::ALL {
        for state in [Client::Calling, Client::Proceeding] {
            let step = invite_client::step(state, C::Success, transport);
            assert_eq!(step.next, Client::Accepted);
            assert!(step.actions.contains(Actions::PASS_UP | Actions::START_M));
            assert!(!step.actions.contains(Actions::SEND_ACK));
        }
        let again = invite_client::step(Client::Accepted, C::Success, transport);
        assert_eq!(
            (again.next, again.actions),
            (Client::Accepted, Actions::PASS_UP)
        );
        let invite = invite_server::step(Server::Accepted, S::Invite, transport);
        assert_eq!(
            (invite.next, invite.actions),
            (Server::Accepted, Actions::NONE)
        );
        let ack = invite_server::step(Server::Accepted, S::Ack, transport);
        assert_eq!(
            (ack.next, ack.actions),
            (Server::Accepted, Actions::PASS_UP)
        );
        for state in [
            Server::Proceeding,
            Server::Completed,
            Server::Confirmed,
            Server::Accepted,
        ] {
            let step = invite_server::step(state, S::TransportError, transport);
            assert_eq!(step.next, state);
        }
    }
}

/// RFC 4320 §4.1, §4.2: no 408, no provisional but 100, and that not early over UDP.
#[test]
fn rfc4320_says_little_before_its_time() {
    use non_invite_server::{Event, State, step};
    let early = step(State::Trying, Event::of_status(100), Transport::Unreliable);
    assert_eq!((early.next, early.actions), (State::Trying, Actions::NONE));
    let early = step(State::Trying, Event::of_status(100), Transport::Reliable);
    assert!(early.actions.contains(Actions::SEND_RESPONSE));
    for transport in Transport::ALL {
        let due = step(State::Trying, Event::TimerTrying, transport);
        assert_eq!(due.next, State::Proceeding);
        assert!(due.actions.contains(Actions::SEND_TRYING));
        for state in State::ALL {
            for status in [180, 183, 199, 408] {
                let step = step(state, Event::of_status(status), transport);
                assert!(
                    !step.actions.contains(Actions::SEND_RESPONSE),
                    "{state:?} {status}"
                );
            }
        }
    }
}
