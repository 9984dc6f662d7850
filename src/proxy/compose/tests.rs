//! ACK and CANCEL against the RFCs' own examples, torture messages and any legal spelling.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::sip::{Kind, Method, values};

fn parsed(bytes: &[u8]) -> Message {
    let mut message = Message::new();
    message
        .parse(bytes)
        .unwrap_or_else(|error| panic!("{error:?}: {}", bytes.escape_ascii()));
    message
}

fn compose_ack(invite: &[u8], response: &[u8]) -> Vec<u8> {
    let mut text = vec![0; 65_535];
    let (of, by) = (parsed(invite), parsed(response));
    let (invite, response) = (Parsed::new(invite, &of), Parsed::new(response, &by));
    let len = ack(invite, response, &mut text).unwrap();
    text.truncate(len);
    text
}

fn compose_cancel(invite: &[u8], reason: Reason<'_>) -> Vec<u8> {
    let mut text = vec![0; 65_535];
    let len = cancel(Parsed::new(invite, &parsed(invite)), reason, &mut text).unwrap();
    text.truncate(len);
    text
}

/// The values of a header, without their rows.
fn listed(bytes: &[u8], name: HeaderName) -> Vec<String> {
    let message = parsed(bytes);
    let rows = message.rows(name);
    rows.flat_map(|row| values(bytes, row))
        .map(|value| value.of(bytes).escape_ascii().to_string())
        .collect()
}

/// The only value of a header.
fn only(bytes: &[u8], name: HeaderName) -> String {
    let message = parsed(bytes);
    assert_eq!(message.rows(name).count(), 1, "{name:?}");
    let value = message.first(name).unwrap().value.of(bytes);
    value.escape_ascii().to_string()
}

/// What must be true of an ACK or CANCEL of `invite` whose To is that of `to`.
fn check(request: &[u8], invite: &[u8], to: &[u8], method: Method, word: &str) {
    let (made, of) = (parsed(request), parsed(invite));
    assert_eq!(made.kind(), Kind::Request);
    assert_eq!(made.method(), method);
    assert_eq!(made.method_span().of(request), word.as_bytes());
    assert_eq!(
        made.request_uri_span().of(request),
        of.request_uri_span().of(invite)
    );
    assert_eq!(made.vias(request).count(), 1);
    assert_eq!(
        made.top_via().unwrap().value.of(request),
        of.top_via().unwrap().value.of(invite)
    );
    for name in [HeaderName::CallId, HeaderName::From] {
        assert_eq!(only(request, name), only(invite, name));
    }
    assert_eq!(only(request, HeaderName::To), only(to, HeaderName::To));
    let (cseq, sent) = (made.cseq().unwrap(), of.cseq().unwrap());
    assert_eq!((cseq.number, cseq.method), (sent.number, method));
    for name in [
        HeaderName::Route,
        HeaderName::AcceptContact,
        HeaderName::RejectContact,
        HeaderName::RequestDisposition,
    ] {
        assert_eq!(listed(request, name), listed(invite, name), "{name:?}");
    }
    assert_eq!(made.max_forwards().unwrap().value, Some(70));
    assert_eq!(made.content_length().unwrap().1, 0);
    assert_eq!(made.message_end(), request.len());
    for name in [
        HeaderName::Require,
        HeaderName::ProxyRequire,
        HeaderName::RecordRoute,
        HeaderName::Contact,
        HeaderName::ContentType,
        HeaderName::MaxBreadth,
        HeaderName::Supported,
    ] {
        assert!(!made.has(name), "{name:?}");
    }
}

/// The response to `invite` as its next hop would send it.
fn response(invite: &[u8], status: u16, to: &str) -> Vec<u8> {
    let message = parsed(invite);
    let mut text = format!("SIP/2.0 {status} No\r\n").into_bytes();
    for row in message.headers() {
        match row.name {
            HeaderName::Via | HeaderName::From | HeaderName::CallId | HeaderName::CSeq => {
                text.extend_from_slice(row.row.of(invite));
            }
            _ => {}
        }
    }
    text.extend_from_slice(to.as_bytes());
    text.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
    text
}

/// RFC 3261 §17.1.1.3: the example there, header by header.
#[test]
fn the_ack_of_the_rfc_s_example() {
    let invite = b"INVITE sip:bob@biloxi.com SIP/2.0\r\n\
        Via: SIP/2.0/UDP pc33.atlanta.com;branch=z9hG4bKkjshdyff\r\n\
        To: Bob <sip:bob@biloxi.com>\r\n\
        From: Alice <sip:alice@atlanta.com>;tag=88sja8x\r\n\
        Max-Forwards: 70\r\n\
        Call-ID: 987asjd97y7atg\r\n\
        CSeq: 986759 INVITE\r\n\r\n";
    let response = response(invite, 404, "To: Bob <sip:bob@biloxi.com>;tag=99sa0xk");
    let made = compose_ack(invite, &response);
    let text = String::from_utf8(made).unwrap();
    let mut rows: Vec<_> = text.split_terminator("\r\n").collect();
    rows.sort_unstable();
    assert_eq!(
        rows,
        [
            "",
            "ACK sip:bob@biloxi.com SIP/2.0",
            "CSeq: 986759 ACK",
            "Call-ID: 987asjd97y7atg",
            "Content-Length: 0",
            "From: Alice <sip:alice@atlanta.com>;tag=88sja8x",
            "Max-Forwards: 70",
            "To: Bob <sip:bob@biloxi.com>;tag=99sa0xk",
            "Via: SIP/2.0/UDP pc33.atlanta.com;branch=z9hG4bKkjshdyff",
        ]
    );
}

const INVITE: &[u8] = b"INVITE sip:bob@198.18.0.20 SIP/2.0\r\n\
    Via: SIP/2.0/UDP 198.18.0.10;branch=z9hG4bKt0x, SIP/2.0/UDP 198.18.0.1;branch=z9hG4bK1\r\n\
    Max-Forwards: 12\r\n\
    Route: <sip:198.18.0.30;lr>\r\n\
    From: <sip:alice@lab.example>;tag=1\r\n\
    To: <sip:bob@lab.example>\r\n\
    Call-ID: 1@198.18.0.1\r\n\
    CSeq: 0007 INVITE\r\n\
    Require: 100rel\r\n\
    Proxy-Require: foo\r\n\
    resource-priority: ets.0\r\n\
    Session-ID: ab30317f1a784dc48ff824d0d3715d86;remote=00000000000000000000000000000000\r\n\
    Reason: SIP;cause=302\r\n\
    Content-Length: 4\r\n\r\nbody";

/// RFC 3326 §2: "SHOULD copy it into the new CANCEL request"; all of them, as they stand.
#[test]
fn a_cancel_says_why_as_the_client_s_did() {
    let client = b"CANCEL sip:bob@lab.example SIP/2.0\r\n\
        Via: SIP/2.0/UDP 198.18.0.1;branch=z9hG4bK1\r\n\
        Reason: SIP ;cause=580 ;text=\"Precondition\r\n Failure\"\r\n\
        From: <sip:alice@lab.example>;tag=1\r\n\
        To: <sip:bob@lab.example>\r\n\
        REASON: Q.850;cause=16,\r\n X;cause=1\r\n\
        Call-ID: 1@198.18.0.1\r\n\
        CSeq: 7 CANCEL\r\n\r\n";
    let both: &[u8] = b"Reason: SIP ;cause=580 ;text=\"Precondition\r\n Failure\"\r\n\
        REASON: Q.850;cause=16,\r\n X;cause=1\r\n";
    let message = parsed(client);
    let mut rows = [0; 256];
    let len = reason_rows(Parsed::new(client, &message), &mut rows);
    assert_eq!(&rows[..len], both);
    let made = compose_cancel(INVITE, Reason::Rows(&rows[..len]));
    check(&made, INVITE, INVITE, Method::Cancel, "CANCEL");
    let reasons = listed(&made, HeaderName::Reason);
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(made.windows(both.len()).any(|window| window == both));

    // A row that does not fit is left out whole.
    let mut short = [0; 60];
    let len = reason_rows(Parsed::new(client, &message), &mut short);
    assert_eq!(&short[..len], &both[..len]);
    assert!(both[..len].ends_with(b"Failure\"\r\n"));
    assert_eq!(
        reason_rows(Parsed::new(client, &message), &mut short[..9]),
        0
    );
}

/// RFC 3326 §3.1: the CANCEL of a branch that lost.
#[test]
fn a_cancel_of_our_own_gives_our_reason() {
    let made = compose_cancel(INVITE, Reason::Status(200));
    check(&made, INVITE, INVITE, Method::Cancel, "CANCEL");
    assert_eq!(
        only(&made, HeaderName::Reason),
        "SIP;cause=200;text=\\\"Call completed elsewhere\\\""
    );
    let made = compose_cancel(INVITE, Reason::Status(408));
    assert_eq!(
        only(&made, HeaderName::Reason),
        "SIP;cause=408;text=\\\"Request Timeout\\\""
    );
    // The INVITE's own Reason (RFC 3326: a transferred or diverted call) is not the CANCEL's.
    let made = compose_cancel(INVITE, Reason::None);
    assert!(!parsed(&made).has(HeaderName::Reason));
}

/// RFC 7989 §7, RFC 4412 §4.2.
#[test]
fn a_cancel_keeps_session_and_priority() {
    let text = String::from_utf8(compose_cancel(INVITE, Reason::None)).unwrap();
    assert!(text.contains("\r\nresource-priority: ets.0\r\n"));
    assert!(text.contains(
        "\r\nSession-ID: ab30317f1a784dc48ff824d0d3715d86;remote=00000000000000000000000000000000\r\n"
    ));
    assert!(text.contains("\r\nCSeq: 0007 CANCEL\r\n"));
}

/// The last length that fits, and the first that does not.
#[test]
fn what_does_not_fit_is_not_composed() {
    let of = parsed(INVITE);
    let invite = Parsed::new(INVITE, &of);
    let whole = compose_cancel(INVITE, Reason::Status(200));
    let mut text = vec![0; whole.len()];
    assert_eq!(
        cancel(invite, Reason::Status(200), &mut text),
        Some(whole.len())
    );
    text.pop();
    assert_eq!(cancel(invite, Reason::Status(200), &mut text), None);
    let answer = response(INVITE, 486, "To: <sip:bob@lab.example>;tag=9");
    let by = parsed(&answer);
    let answer = Parsed::new(&answer, &by);
    let mut text = vec![0; 65_535];
    let len = ack(invite, answer, &mut text).unwrap();
    assert_eq!(ack(invite, answer, &mut text[..len]), Some(len));
    assert_eq!(ack(invite, answer, &mut text[..len - 1]), None);
    assert_eq!(ack(invite, answer, &mut []), None);
}

fn files(directory: &str) -> Vec<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(directory);
    let entries = std::fs::read_dir(path).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension() != Some("tsv".as_ref()));
    files.sort();
    files
}

/// RFC 4475, RFC 5118, RFC 3665: every INVITE there that is well-formed can be ended.
#[test]
fn every_torture_invite_gets_a_good_ack_and_cancel() {
    let mut met = 0;
    for path in ["rfc4475", "rfc5118", "rfc3665", "messages"]
        .map(files)
        .iter()
        .flatten()
    {
        let invite = std::fs::read(path).unwrap();
        let mut message = Message::new();
        if message.parse(&invite).is_err() || message.method() != Method::Invite {
            continue;
        }
        met += 1;
        let made = compose_cancel(&invite, Reason::Status(200));
        check(&made, &invite, &invite, Method::Cancel, "CANCEL");
        let answer = response(
            &invite,
            486,
            "t: \"a, b\"\r\n <sip:b@lab.example> ; tag=\r\n 9",
        );
        let made = compose_ack(&invite, &answer);
        check(&made, &invite, &answer, Method::Ack, "ACK");
    }
    assert!(met >= 45, "{met}");
}

/// RFC 3665 §3: the ACK and CANCEL of the flows are those that we compose. Not compared is Route,
/// which the flows leave out of the ACK of Alice's INVITE.
#[test]
fn acks_and_cancels_of_the_call_flows_are_ours() {
    let mut met = (0, 0);
    let files = files("rfc3665");
    let read = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        let message = parsed(&bytes);
        (bytes, message)
    };
    let flow = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap()[..4].to_owned();
    for path in &files {
        let (bytes, message) = read(path);
        // Misprints of §3.8: the Request-URI of F11 is the caller's, the Via of F18 that of F16.
        let misprinted = path.ends_with("3.8-F11.sip") || path.ends_with("3.8-F18.sip");
        if misprinted || !matches!(message.method(), Method::Ack | Method::Cancel) {
            continue;
        }
        let branch = |bytes: &[u8], message: &Message| {
            let via = message.top_via().unwrap();
            via.branch.unwrap().of(bytes).to_vec()
        };
        let own = branch(&bytes, &message);
        let same: Vec<_> = files
            .iter()
            .filter(|other| flow(other) == flow(path))
            .map(read)
            .filter(|(bytes, message)| branch(bytes, message) == own)
            // The flows use a branch again for the next call.
            .filter(|(_, other)| other.cseq().unwrap().number == message.cseq().unwrap().number)
            .collect();
        let invite = same.iter().find(|(_, m)| m.method() == Method::Invite);
        let refused = same
            .iter()
            .find(|(_, message)| (300..700).contains(&message.status()));
        let Some((invite, _)) = invite else { continue };
        let ours = match (message.method(), refused) {
            (Method::Ack, Some((response, _))) => {
                met.0 += 1;
                compose_ack(invite, response)
            }
            (Method::Cancel, _) => {
                met.1 += 1;
                compose_cancel(invite, Reason::None)
            }
            _ => continue,
        };
        let name = path.display();
        let made = parsed(&ours);
        assert_eq!(
            made.request_uri_span().of(&ours),
            message.request_uri_span().of(&bytes),
            "{name}"
        );
        for header in [
            HeaderName::Via,
            HeaderName::From,
            HeaderName::To,
            HeaderName::CallId,
            HeaderName::CSeq,
        ] {
            assert_eq!(
                listed(&ours, header),
                listed(&bytes, header),
                "{name} {header:?}"
            );
        }
    }
    assert!(met.0 >= 9 && met.1 >= 2, "{met:?}");
}

/// A header name in one of its spellings, and what may stand around the colon (RFC 3261 §25.1).
fn spelled(name: HeaderName) -> impl Strategy<Value = String> {
    let long = name.as_str();
    let mut names = vec![long.to_owned(), long.to_uppercase(), long.to_lowercase()];
    if let Some(compact) = name.compact() {
        names.push(char::from(compact).to_string());
        names.push(char::from(compact.to_ascii_uppercase()).to_string());
    }
    let colons = select(vec![":", ": ", " : ", "\t:\t", ":\r\n ", " :\r\n\t "]);
    (select(names), colons).prop_map(|(name, colon)| name + colon)
}

/// White space where the grammar has LWS.
fn lws() -> impl Strategy<Value = &'static str> {
    select(vec![" ", "  ", "\t", "\r\n ", " \r\n\t"])
}

/// White space where the grammar has SWS.
fn sws() -> impl Strategy<Value = &'static str> {
    select(vec!["", " ", "\t ", "\r\n ", " \r\n  "])
}

/// A Via value in one of its spellings.
fn via(number: usize) -> impl Strategy<Value = String> {
    (sws(), lws(), sws(), sws(), any::<bool>()).prop_map(move |(slash, before, colon, semi, quoted)| {
        let extra = if quoted {
            ";x=\"a, \\\"b\\\" SIP/2.0\""
        } else {
            ";rport"
        };
        format!(
            "SIP{slash}/{slash}2.0/{slash}UDP{before}198.18.0.{number}{colon}:{colon}5070{semi};\
             {semi}branch{slash}={slash}z9hG4bKb{number}{extra}"
        )
    })
}

/// A list of values spread over rows: each value says whether it begins a row of its own.
fn list(name: HeaderName, values: Vec<String>) -> impl Strategy<Value = String> {
    let count = values.len();
    let glue = proptest::collection::vec((any::<bool>(), sws(), sws(), spelled(name)), count);
    glue.prop_map(move |glue| {
        let mut text = String::new();
        for (index, (value, (row, before, after, name))) in values.iter().zip(glue).enumerate() {
            if index == 0 || row {
                if index > 0 {
                    text += "\r\n";
                }
                text += &name;
            } else {
                text += before;
                text += ",";
                text += after;
            }
            text += value;
        }
        text + "\r\n"
    })
}

fn vias() -> impl Strategy<Value = (Vec<String>, String)> {
    (via(10), via(11), via(12))
        .prop_map(|(first, second, third)| vec![first, second, third])
        .prop_flat_map(|values| (Just(values.clone()), list(HeaderName::Via, values)))
}

fn routes() -> impl Strategy<Value = (Vec<String>, String)> {
    let value = select(vec![
        "<sip:198.18.0.30;lr>",
        "\"a, <b>\" <sip:x%2cy@198.18.0.31;lr;a=b?c=d>;p=\",\"",
        "<sip:[2001:db8::1]:5070;lr>",
    ]);
    proptest::collection::vec(value.prop_map(str::to_owned), 0..4).prop_flat_map(|values| {
        let text = if values.is_empty() {
            Just(String::new()).boxed()
        } else {
            list(HeaderName::Route, values.clone()).boxed()
        };
        (Just(values), text)
    })
}

fn address(name: HeaderName, tag: &'static str) -> impl Strategy<Value = (String, String)> {
    let address = select(vec![
        "sip:a@lab.example",
        "<sip:a@lab.example;x=y>",
        "\"A, \\\"B\\\" <c>\" <sip:a@lab.example>",
        "A\r\n  B <sip:a@lab.example>",
    ]);
    (spelled(name), address, sws(), sws()).prop_map(move |(name, address, before, around)| {
        let value = if tag.is_empty() {
            address.to_owned()
        } else {
            format!("{address}{before};{before}tag{around}={around}{tag}")
        };
        (value.clone(), format!("{name}{value}\r\n"))
    })
}

#[derive(Clone, Debug)]
struct Sample {
    invite: String,
    vias: Vec<String>,
    routes: Vec<String>,
    from: String,
    to: String,
    number: u32,
}

fn samples() -> impl Strategy<Value = Sample> {
    let cseq = (spelled(HeaderName::CSeq), 0_u32..0x7fff_ffff, lws());
    (
        vias(),
        routes(),
        address(HeaderName::From, "88sja8x"),
        address(HeaderName::To, ""),
        spelled(HeaderName::CallId),
        cseq,
        any::<usize>(),
    )
        .prop_map(|(vias, routes, from, to, call_id, cseq, order)| {
            let number = cseq.1;
            let mut rows = [
                vias.1,
                routes.1,
                from.1,
                to.1,
                format!("{call_id}987asjd97y7atg@198.18.0.1\r\n"),
                format!("{}{number}{}INVITE\r\n", cseq.0, cseq.2),
                "Max-Forwards: 3\r\n".to_owned(),
                "k: 100rel\r\nProxy-Require: x\r\nX: To: <sip:x@y>\r\n".to_owned(),
            ];
            // Rows in any order.
            let mut seed = order;
            for index in (1..rows.len()).rev() {
                rows.swap(index, seed % (index + 1));
                seed /= index + 1;
            }
            Sample {
                invite: format!(
                    "INVITE sip:b@lab.example;x=%20 SIP/2.0\r\n{}\r\n",
                    rows.concat()
                ),
                vias: vias.0,
                routes: routes.0,
                from: from.0,
                to: to.0,
                number,
            }
        })
}

fn escaped(text: &[String]) -> Vec<String> {
    text.iter()
        .map(|text| text.as_bytes().escape_ascii().to_string())
        .collect()
}

proptest! {
    /// RFC 3261 §7.3, §25.1: whatever the spelling, ACK and CANCEL carry what the INVITE said. What
    /// it said is known here from how it was spelled, not from the parser.
    #[test]
    fn every_spelling_survives(sample in samples(), to in address(HeaderName::To, "99sa0xk")) {
        let invite = sample.invite.as_bytes();
        let answer = response(invite, 404, to.1.trim_end());
        for (made, to_value, word) in [
            (compose_ack(invite, &answer), &to.0, "ACK"),
            (compose_cancel(invite, Reason::Status(200)), &sample.to, "CANCEL"),
        ] {
            let line = format!("{word} sip:b@lab.example;x=%20 SIP/2.0\r\n");
            prop_assert!(made.starts_with(line.as_bytes()));
            prop_assert_eq!(listed(&made, HeaderName::Via), escaped(&sample.vias[..1]));
            prop_assert_eq!(listed(&made, HeaderName::Route), escaped(&sample.routes));
            for (name, value) in [(HeaderName::From, &sample.from), (HeaderName::To, to_value)] {
                prop_assert_eq!(only(&made, name), value.as_bytes().escape_ascii().to_string());
            }
            prop_assert_eq!(only(&made, HeaderName::CallId), "987asjd97y7atg@198.18.0.1");
            prop_assert_eq!(only(&made, HeaderName::CSeq), format!("{} {word}", sample.number));
            prop_assert!(!parsed(&made).has(HeaderName::ProxyRequire));
        }
    }
}
