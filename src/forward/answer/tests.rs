//! Answers with and without a transaction, for one request each.

use std::sync::Arc;

use super::*;
use crate::affinity::{Keys, Pins, Secret};
use crate::config::Config;
use crate::forward::{Forwarder, Reply};
use crate::metrics::WorkerMetrics;
use crate::net::{Flow, ListenerIndex, WorkerIndex};
use crate::route::{Plan, ServerRegistry};
use crate::time::Instant;

const CLIENT: &str = "198.18.200.7:5062";
const TRUSTED: &str = "198.18.100.7:5062";

const INVITE: &str = "INVITE sip:bob@lab.example SIP/2.0\r\n\
    Via: SIP/2.0/UDP 198.18.200.7:5062;branch=z9hG4bK1;rport\r\n\
    Via: SIP/2.0/UDP client.example;branch=z9hG4bK0\r\n\
    Max-Forwards: 70\r\n\
    From: <sip:alice@lab.example>;tag=1\r\n\
    To: <sip:bob@lab.example>\r\n\
    Call-ID: 1@198.18.200.7\r\n\
    CSeq: 7 INVITE\r\n\
    Contact: <sip:alice@198.18.200.7:5062>\r\n\
    User-Agent: as long as the description of a session, so that every answer fits, whatever it says\r\n\
    {}\
    Content-Length: 0\r\n\r\n";

fn invite(rows: &str) -> String {
    INVITE.replace("{}", rows)
}

struct Lab {
    plan: Plan,
    forwarder: Forwarder,
}

impl Lab {
    fn new() -> Self {
        let secret = Secret::from_bytes(*b"0123456789abcdefghijklmnopqrstuv").unwrap();
        let keys = Arc::new(Keys::new(&secret));
        let config = Config::parse(
            r#"
            trusted = ["198.18.100.0/24"]
            [[listeners]]
            name = "clients"
            address = "198.18.0.1:5060"
            [[pools]]
            name = "farm"
            servers = [{ name = "s1", address = "198.18.1.11:5060" }]
            "#,
        )
        .unwrap();
        let metrics = Arc::new(WorkerMetrics::new());
        Self {
            plan: Plan::build(&config, &mut ServerRegistry::new(), &keys).unwrap(),
            forwarder: Forwarder::new(WorkerIndex(0), 1, Arc::new(Pins::new(4096)), metrics),
        }
    }

    fn with<T>(
        &mut self,
        request: &str,
        from: &str,
        then: impl FnOnce(&mut Answers, &Context<'_>) -> T,
    ) -> T {
        let Forwarder {
            base,
            message,
            answers,
            ..
        } = &mut self.forwarder;
        message.parse(request.as_bytes()).unwrap();
        let flow = Flow {
            listener: ListenerIndex(0),
            local: "198.18.0.1:5060".parse().unwrap(),
            peer: from.parse().unwrap(),
        };
        let now = Instant::from_nanos(1_000_000_000);
        let context = base.context(&self.plan, message, request.as_bytes(), flow, now);
        then(answers, &context)
    }

    fn stateful(&mut self, request: &str, from: &str, status: u16, extras: Extras<'_>) -> String {
        self.with(request, from, |answers, context| {
            let answer = answers.compose_stateful(context, status, extras).unwrap();
            assert_eq!(answer.peer, from.parse().unwrap());
            String::from_utf8(answer.bytes.to_vec()).unwrap()
        })
    }

    fn stateless(&mut self, request: &str, rejection: Rejection) -> String {
        self.with(request, CLIENT, |answers, context| {
            let Reply::Answer(status) = rejection.reply(context.message.method()) else {
                panic!("{rejection:?} is silent");
            };
            let answer = answers.compose(context, rejection, status).unwrap();
            String::from_utf8(answer.bytes.to_vec()).unwrap()
        })
    }
}

fn row<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut rows = text.split("\r\n").filter_map(|row| row.split_once(": "));
    rows.find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// RFC 3261 §8.2.6.1, §8.2.6.2: a 100 has the request's Via, From, To, Call-ID and CSeq, no tag of
/// its own, and the Timestamp with the delay, if there was one.
#[test]
fn a_100_has_no_tag_and_the_client_s_timestamp() {
    let mut lab = Lab::new();
    let request = invite("TIMESTAMP : 54.21\r\n");
    let text = lab.stateful(&request, CLIENT, 100, Extras::default());
    assert_eq!(
        text,
        "SIP/2.0 100 Trying\r\n\
         Via: SIP/2.0/UDP 198.18.200.7:5062;branch=z9hG4bK1;rport=5062;received=198.18.200.7\r\n\
         Via: SIP/2.0/UDP client.example;branch=z9hG4bK0\r\n\
         From: <sip:alice@lab.example>;tag=1\r\n\
         To: <sip:bob@lab.example>\r\n\
         Call-ID: 1@198.18.200.7\r\n\
         CSeq: 7 INVITE\r\n\
         Timestamp: 54.21\r\n\
         Content-Length: 0\r\n\r\n"
    );
    for (value, delay_ms, expected) in [
        ("54", 0, "54"),
        ("54", 7, "54 0.007"),
        ("54.5", 70, "54.5 0.070"),
        ("54.5", 3_500, "54.5 3.500"),
        // There is a delay already, or something that is not ours to add to.
        ("54.5 1.5", 3_500, "54.5 1.5"),
        ("now", 3_500, "now"),
    ] {
        let delay = Duration::from_millis(delay_ms);
        let request = invite(&format!("Timestamp: {value}\r\n"));
        let extras = Extras {
            delay,
            ..Extras::default()
        };
        let text = lab.stateful(&request, CLIENT, 100, extras);
        assert_eq!(row(&text, "Timestamp"), Some(expected));
        // Only a 100 has it.
        let text = lab.stateful(&request, CLIENT, 408, extras);
        assert_eq!(row(&text, "Timestamp"), None);
    }
    let text = lab.stateful(&invite(""), CLIENT, 100, Extras::default());
    assert_eq!(row(&text, "Timestamp"), None);
}

/// RFC 3261 §8.2.6.2, §8.2.7: the To tag of every answer to one request is one and the same, with
/// and without a transaction; CANCEL included (§9.2).
#[test]
fn one_request_has_one_tag() {
    let mut lab = Lab::new();
    let request = invite("");
    let cancel = request
        .replace("INVITE sip", "CANCEL sip")
        .replace("7 INVITE", "7 CANCEL");
    let mut tags: Vec<_> = [408, 480, 482, 487, 500, 503]
        .map(|status| lab.stateful(&request, CLIENT, status, Extras::default()))
        .iter()
        .map(|text| row(text, "To").unwrap().to_owned())
        .collect();
    tags.push(
        row(&lab.stateful(&cancel, CLIENT, 200, Extras::default()), "To")
            .unwrap()
            .to_owned(),
    );
    tags.push(
        row(&lab.stateless(&request, Rejection::NoServer(503)), "To")
            .unwrap()
            .to_owned(),
    );
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 1, "{tags:?}");
    assert!(tags[0].starts_with("<sip:bob@lab.example>;tag=v"));

    // The tag of the server whose answers the client has seen.
    let extras = Extras {
        to_tag: Some(b"s1"),
        ..Extras::default()
    };
    let text = lab.stateful(&cancel, CLIENT, 200, extras);
    assert_eq!(row(&text, "To"), Some("<sip:bob@lab.example>;tag=s1"));
    // A tag that the request has is kept.
    let re_invite = request.replace(
        "To: <sip:bob@lab.example>",
        "To: <sip:bob@lab.example>;tag=9",
    );
    let text = lab.stateful(&re_invite, CLIENT, 408, extras);
    assert_eq!(row(&text, "To"), Some("<sip:bob@lab.example>;tag=9"));
}

/// RFC 6228 §6: 199 for whoever supports it and does not insist on reliable provisional responses;
/// it has the tag of the dialog that ended and the cause, and no Contact and no Record-Route.
#[test]
fn r6228_a_199_names_the_dialog_and_its_end() {
    let mut lab = Lab::new();
    for (rows, wanted) in [
        ("", false),
        ("Supported: 100rel, 199\r\n", true),
        ("k: timer\r\nsupported: 199 , path\r\n", true),
        ("Supported: 1990\r\n", false),
        ("Supported: 199\r\nRequire: 100REL\r\n", false),
        ("Supported: 199\r\nRequire: timer\r\n", true),
    ] {
        let taken = lab.with(&invite(rows), CLIENT, |_, context| {
            context.takes_early_end()
        });
        assert_eq!(taken, wanted, "{rows}");
    }
    let extras = Extras {
        to_tag: Some(b"s1"),
        cause: Some(486),
        ..Extras::default()
    };
    let text = lab.stateful(&invite("Supported: 199\r\n"), CLIENT, 199, extras);
    assert!(text.starts_with("SIP/2.0 199 Early Dialog Terminated\r\n"));
    assert_eq!(row(&text, "To"), Some("<sip:bob@lab.example>;tag=s1"));
    assert_eq!(row(&text, "Reason"), Some("SIP;cause=486"));
    assert_eq!(row(&text, "Contact"), None);
}

/// RFC 7989 §5, §7: from the receiver's point of view, nil for an end that is not known yet; what is
/// no identifier is not handed back.
#[test]
fn r7989_answers_carry_the_session_identifiers_turned_around() {
    let mut lab = Lab::new();
    let a = "ab30317f1a784dc48ff824d0d3715d86";
    let b = "47755a9de7794ba387653f2099600ef2";
    let nil = "00000000000000000000000000000000";
    for (sent, expected) in [
        (
            format!("{a};remote={nil}"),
            Some(format!("{nil};remote={a}")),
        ),
        (format!("{a};remote={b}"), Some(format!("{b};remote={a}"))),
        (
            format!("{a} ; x=y ; REMOTE = {b};z"),
            Some(format!("{b};remote={a}")),
        ),
        // RFC 7329 had no remote.
        (a.to_owned(), Some(format!("{nil};remote={a}"))),
        (format!("{a};remote=x"), Some(format!("{nil};remote={a}"))),
        (format!("{a}0;remote={b}"), None),
        ("short".to_owned(), None),
        (a.replace('a', "x"), None),
    ] {
        let request = invite(&format!("Session-ID: {sent}\r\n"));
        for text in [
            lab.stateful(&request, CLIENT, 100, Extras::default()),
            lab.stateful(&request, CLIENT, 503, Extras::default()),
            lab.stateless(&request, Rejection::NotFound),
        ] {
            assert_eq!(row(&text, "Session-ID"), expected.as_deref(), "{sent}");
        }
    }
}

/// RFC 5630 §5.3: 480 with Warning 381 where only TLS would do.
#[test]
fn r5630_a_sips_next_hop_is_refused_with_its_warning() {
    let text = Lab::new().stateless(&invite(""), Rejection::Secure);
    assert!(text.starts_with("SIP/2.0 480 "));
    assert_eq!(row(&text, "Warning"), Some("381 viaduct \"SIPS Required\""));
    let text = Lab::new().stateless(&invite(""), Rejection::NotFound);
    assert_eq!(row(&text, "Warning"), None);
}

/// RFC 3261 §21.5.4: whoever reads Retry-After in our 503 avoids the whole farm.
#[test]
fn no_answer_of_ours_says_retry_after() {
    let mut lab = Lab::new();
    for text in [
        lab.stateful(&invite(""), CLIENT, 503, Extras::default()),
        lab.stateless(&invite(""), Rejection::NoServer(503)),
    ] {
        assert!(text.starts_with("SIP/2.0 503 Service Unavailable\r\n"));
        assert_eq!(row(&text, "Retry-After"), None);
    }
}

/// To a stranger no answer is longer than its request; to a known peer the whole answer goes.
#[test]
fn a_stranger_s_answer_is_never_longer_than_its_request() {
    let mut lab = Lab::new();
    let session = "ab30317f1a784dc48ff824d0d3715d86";
    let request = |fill: usize| {
        "INVITE sip:b SIP/2.0\r\nv:SIP/2.0/UDP a;branch=z9hG4bK1;rport\r\nf:<sip:a>;tag=1\r\n\
         t:<sip:b>\r\ni:1\r\nCSeq:1 INVITE\r\nSession-ID:S\r\nX:FILL\r\n\r\n"
            .replace("Session-ID:S", &format!("Session-ID:{session}"))
            .replace("FILL", &"x".repeat(fill))
    };
    let mut lengths = Vec::new();
    for fill in 0..200 {
        let request = request(fill);
        let made = lab.with(&request, CLIENT, |answers, context| {
            answers
                .compose_stateful(context, 408, Extras::default())
                .map(|answer| answer.bytes.len())
        });
        match made {
            Ok(len) => {
                assert!(len <= request.len(), "{len} for {}", request.len());
                lengths.push(len);
            }
            Err(reason) => assert_eq!(reason, DropReason::AnswerTooLong),
        }
        let known = lab.stateful(&request, TRUSTED, 408, Extras::default());
        assert!(row(&known, "Session-ID").is_some());
    }
    lengths.dedup();
    // Bare, with its phrase, with its length, with everything.
    assert!(lengths.len() >= 3, "{lengths:?}");
}
