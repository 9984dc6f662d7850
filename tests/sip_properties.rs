//! The SIP parser against arbitrary and mutated input, its bounds, and what it reads back.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its data fails")]

#[path = "common/sip_invariants.rs"]
mod sip_invariants;

use std::sync::OnceLock;

use proptest::prelude::*;
use sip_invariants::check;
use viaduct::limits::{HEADER_SECTION_LEN_MAX, HEADERS_MAX, MESSAGE_LEN_MAX, VIAS_MAX};
use viaduct::sip::{Host, Message, NameAddr, ParseError, Scheme, Span, Uri, Via};

/// Every message file there is.
fn data() -> &'static [Vec<u8>] {
    static DATA: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    DATA.get_or_init(read_data)
}

fn read_data() -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for directory in ["rfc4475", "rfc5118", "messages"] {
        let path = format!("{}/tests/data/{directory}", env!("CARGO_MANIFEST_DIR"));
        let entries = std::fs::read_dir(path).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path: &std::path::PathBuf| path.extension() != Some("tsv".as_ref()));
        paths.sort();
        files.extend(paths.into_iter().map(|path| std::fs::read(path).unwrap()));
    }
    files
}

#[test]
fn every_message_and_every_cut_of_it_holds() {
    for bytes in data() {
        // Every cut of a short message; of a long one every seventh, which meets all residues of 16.
        let step = if bytes.len() < 800 { 1 } else { 7 };
        for len in (0..bytes.len()).step_by(step) {
            check(&bytes[..len]);
        }
        check(bytes);
    }
}

/// One byte of a message becomes each of the bytes that the grammar gives a meaning.
#[test]
fn every_byte_of_a_message_may_be_any_delimiter() {
    let path = format!(
        "{}/tests/data/messages/options.sip",
        env!("CARGO_MANIFEST_DIR")
    );
    let bytes = std::fs::read(path).unwrap();
    for index in 0..bytes.len() {
        for byte in *b"\0\t\n\r \"%,/:;<=>?@[\\]\xff" {
            let mut bytes = bytes.clone();
            bytes[index] = byte;
            check(&bytes);
        }
    }
}

/// What a mutation puts in: text that means something somewhere.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\r\n ",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"\"",
    b"\\",
    b"\\\"",
    b"<",
    b">",
    b",",
    b";",
    b"=",
    b":",
    b"@",
    b"?",
    b"[",
    b"]",
    b"/",
    b"\0",
    b"\xff",
    b"%00",
    b"Via: SIP/2.0/UDP h;branch=z9hG4bKx\r\n",
    b", SIP/2.0/UDP h2 ;branch=z9hG4bKy",
    b"v:",
    b"Content-Length: 3\r\n",
    b"l: -1\r\n",
    b"99999999999",
    b"SIP/2.0",
    b"SIP / 2.0 / UDP ",
    b";received=[::1]",
    b";rport",
    b";tag=x",
    b"sip:",
    b"tel:",
    b"INVITE ",
    b"CSeq: 1 INVITE\r\n",
    b"Max-Forwards: 0\r\n",
    b"Route: <sip:a;lr>, <sip:b;lr>\r\n",
];

/// Where, how many bytes go, what comes.
type Mutation = (prop::sample::Index, usize, Option<usize>);

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let piece = prop::option::of(0..PIECES.len());
    prop::collection::vec((any::<prop::sample::Index>(), 0usize..24, piece), 1..6)
}

fn mutate(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for (at, gone, piece) in mutations {
        let at = at.index(bytes.len() + 1);
        let to = (at + gone).min(bytes.len());
        let piece = piece.map_or(&b""[..], |piece| PIECES[piece]);
        bytes.splice(at..to, piece.iter().copied());
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn arbitrary_bytes_hold(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check(&bytes);
    }

    #[test]
    fn pieces_in_any_order_hold(pieces in prop::collection::vec(0..PIECES.len(), 0..40)) {
        let mut bytes = b"INVITE sip:a@b SIP/2.0\r\n".to_vec();
        for piece in pieces {
            bytes.extend_from_slice(PIECES[piece]);
        }
        check(&bytes);
    }

    #[test]
    fn mutated_messages_hold(file in any::<prop::sample::Index>(), mutations in mutations()) {
        check(&mutate(file.get(data()).clone(), &mutations));
    }

    #[test]
    fn two_messages_in_one_hold(
        first in any::<prop::sample::Index>(),
        second in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        from in any::<prop::sample::Index>(),
    ) {
        let (first, second) = (first.get(data()), second.get(data()));
        let mut bytes = first[..cut.index(first.len() + 1)].to_vec();
        bytes.extend_from_slice(&second[from.index(second.len() + 1)..]);
        check(&bytes);
    }
}

/// A host as text, and what it must be read as: an address, or itself.
fn host() -> impl Strategy<Value = (String, Option<std::net::IpAddr>)> {
    prop_oneof![
        any::<std::net::Ipv4Addr>().prop_map(|ip| (ip.to_string(), Some(ip.into()))),
        any::<std::net::Ipv6Addr>()
            .prop_filter("mapped is IPv4", |ip| ip.to_ipv4_mapped().is_none())
            .prop_map(|ip| (format!("[{ip}]"), Some(ip.into()))),
        "([a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?\\.){0,3}[a-z]([a-z0-9-]{0,8}[a-z0-9])?"
            .prop_map(|name| (name, None)),
    ]
}

fn param_text() -> impl Strategy<Value = Vec<(String, Option<String>)>> {
    // Names of their own, so that none of them is one that must stand once.
    let param = (
        "p[a-z0-9-]{1,8}",
        prop::option::of("[A-Za-z0-9!%*_+'~.-]{1,12}"),
    );
    prop::collection::vec(param, 0..4)
}

fn emit_params(params: &[(String, Option<String>)]) -> String {
    let one = |(name, value): &(String, Option<String>)| match value {
        Some(value) => format!(";{name}={value}"),
        None => format!(";{name}"),
    };
    params.iter().map(one).collect()
}

fn assert_host(bytes: &[u8], host: Host, expected: &(String, Option<std::net::IpAddr>)) {
    match expected.1 {
        Some(ip) => assert_eq!(host, Host::Ip(ip)),
        None => assert!(host.is_name(bytes, expected.0.to_uppercase().as_bytes())),
    }
}

proptest! {
    #[test]
    fn a_uri_is_read_as_it_was_written(
        sips in any::<bool>(),
        user in prop::option::of("[A-Za-z0-9_.!~*'()&=+$,;?/%-]{1,20}"),
        password in prop::option::of("[A-Za-z0-9&=+$,-]{0,8}"),
        host in host(),
        port in prop::option::of(1u16..),
        params in param_text(),
        headers in prop::option::of("[a-z]{1,5}=[a-z0-9%]{0,9}"),
    ) {
        let mut text = String::from(if sips { "sips:" } else { "sip:" });
        if let Some(user) = &user {
            text += user;
            if let Some(password) = &password {
                text = text + ":" + password;
            }
            text += "@";
        }
        text += &host.0;
        if let Some(port) = port {
            text += &format!(":{port}");
        }
        text += &emit_params(&params);
        if let Some(headers) = &headers {
            text = text + "?" + headers;
        }
        let bytes = text.as_bytes();
        let uri = Uri::parse(bytes, Span::whole(bytes).unwrap()).unwrap();
        let read = |span: Option<Span>| span.map(|span| span.of(bytes).to_vec());
        let wrote = |text: &Option<String>| text.as_ref().map(|text| text.clone().into_bytes());
        prop_assert_eq!(uri.scheme, if sips { Scheme::Sips } else { Scheme::Sip });
        prop_assert_eq!(read(uri.user), wrote(&user));
        prop_assert_eq!(read(uri.password), user.and(wrote(&password)));
        assert_host(bytes, uri.host.unwrap(), &host);
        prop_assert_eq!(uri.port, port);
        prop_assert_eq!(read(uri.headers), wrote(&headers));
        let emitted = emit_params(&params);
        prop_assert_eq!(uri.params.of(bytes), emitted.as_bytes());
        for (name, value) in &params {
            // The first of a name counts.
            let first = params.iter().find(|(other, _)| other == name).unwrap();
            if &first.1 == value {
                let found = uri.param(bytes, name.to_uppercase().as_bytes());
                prop_assert_eq!(found.map(read), Some(wrote(value)));
            }
        }
        // The same inside brackets, with a name before and a tag behind.
        let text = format!("\"N <,;\\\"> \" <{text}>;tag=7");
        let bytes = text.as_bytes();
        let address = NameAddr::parse(bytes, Span::whole(bytes).unwrap()).unwrap();
        prop_assert_eq!(address.uri.port, port);
        prop_assert_eq!(address.param(bytes, b"tag").unwrap().unwrap().of(bytes), b"7");
    }

    #[test]
    fn a_via_is_read_as_it_was_written(
        transport in "UDP|TCP|tls|SCTP|WS|wss|QUIC",
        host in host(),
        port in prop::option::of(1u16..),
        branch in "z9hG4bK[A-Za-z0-9.-]{1,30}",
        params in param_text(),
        rport in prop::option::of(prop::option::of(1u16..)),
        space in prop::sample::select(vec!["", " ", "\t", "\r\n ", "  \r\n\t"]),
        more in any::<bool>(),
    ) {
        let port_text = port.map_or(String::new(), |port| format!("{space}:{space}{port}"));
        let rport_text = match rport {
            Some(Some(port)) => format!("{space};{space}rport{space}={space}{port}"),
            Some(None) => format!("{space};rport"),
            None => String::new(),
        };
        let value = format!(
            "SIP{space}/{space}2.0{space}/{space}{transport} {space}{}{port_text}{}{rport_text}\
             {space};{space}Branch{space}={space}{branch}",
            host.0,
            emit_params(&params),
        );
        let text = if more { format!("{value}{space},{space}SIP/2.0/UDP x") } else { value.clone() };
        let bytes = text.as_bytes();
        let via = Via::parse(bytes, Span::whole(bytes).unwrap()).unwrap();
        prop_assert_eq!(via.value.of(bytes), value.as_bytes());
        prop_assert_eq!(via.transport.protocol().is_none(), transport == "QUIC");
        assert_host(bytes, via.host, &host);
        prop_assert_eq!(via.port, port);
        prop_assert_eq!(via.branch.unwrap().of(bytes), branch.as_bytes());
        prop_assert!(via.has_cookie(bytes));
        prop_assert_eq!(via.rport.is_some(), rport.is_some());
        prop_assert_eq!(via.rport_port(bytes), rport.flatten());
        for (name, value) in params.iter().rev().take(1) {
            let found = via.param_row(bytes, name.as_bytes()).unwrap();
            let first = params.iter().find(|(other, _)| other == name).unwrap();
            if &first.1 == value {
                let read = found.value.map(|span| span.of(bytes).to_vec());
                prop_assert_eq!(read, value.clone().map(String::into_bytes));
            }
        }
    }
}

/// A message with `rows` in the middle.
fn message(rows: &str) -> String {
    format!(
        "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
         To: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n{rows}\r\n"
    )
}

fn parse(text: &str) -> Result<Message, ParseError> {
    let mut message = Message::new();
    message.parse(text.as_bytes())?;
    Ok(message)
}

#[test]
fn rows_end_at_their_limit() {
    let rows = |count: usize| parse(&message(&"X: 1\r\n".repeat(count - 5)));
    assert_eq!(rows(HEADERS_MAX).unwrap().headers().len(), HEADERS_MAX);
    assert_eq!(
        rows(HEADERS_MAX + 1).unwrap_err(),
        ParseError::TooManyHeaders
    );
}

#[test]
fn the_header_section_ends_at_its_limit() {
    let section = |len: usize| {
        let rest = message("X: \r\n").len();
        parse(&message(&format!("X: {}\r\n", "x".repeat(len - rest))))
    };
    assert_eq!(
        section(HEADER_SECTION_LEN_MAX).unwrap().body_start(),
        HEADER_SECTION_LEN_MAX
    );
    assert_eq!(
        section(HEADER_SECTION_LEN_MAX + 1).unwrap_err(),
        ParseError::HeadersTooLong
    );
}

#[test]
fn a_datagram_ends_at_its_limit() {
    let datagram = |len: usize| {
        let head = message("");
        parse(&format!("{head}{}", "x".repeat(len - head.len())))
    };
    assert_eq!(
        datagram(MESSAGE_LEN_MAX).unwrap().message_end(),
        MESSAGE_LEN_MAX
    );
    assert_eq!(
        datagram(MESSAGE_LEN_MAX + 1).unwrap_err(),
        ParseError::MessageTooLong
    );
}

#[test]
fn vias_end_at_their_limit() {
    let vias = |count: usize| {
        let text = message(&format!(
            "v: x/2/y z{}\r\n",
            ", SIP/2.0/UDP h".repeat(count - 2)
        ))
        .replace("x/2/y z", "SIP/2.0/UDP g");
        let message = parse(&text).unwrap();
        let found: Result<Vec<Via>, _> = message.vias(text.as_bytes()).collect();
        found.map(|vias| vias.len())
    };
    assert_eq!(vias(VIAS_MAX), Ok(VIAS_MAX));
    assert_eq!(vias(VIAS_MAX + 1), Err(ParseError::TooManyVias));
}

/// RFC 3261 §18.3: the body may be longer than Content-Length says, never shorter.
#[test]
fn the_body_has_all_of_its_content_length() {
    let body = |length: &str, body: &str| {
        parse(&(message(&format!("Content-Length: {length}\r\n")) + body))
            .map(|message| message.body().len())
    };
    assert_eq!(body("4", "abcd"), Ok(4));
    assert_eq!(body("3", "abcd"), Ok(3));
    assert_eq!(body("0004", "abcd"), Ok(4));
    assert_eq!(body("5", "abcd"), Err(ParseError::BodyTruncated));
    assert_eq!(body("65535", "abcd"), Err(ParseError::BodyTruncated));
    assert_eq!(
        body("65536", "abcd"),
        Err(ParseError::ContentLengthTooLarge)
    );
    assert_eq!(
        body("18446744073709551617", "abcd"),
        Err(ParseError::ContentLengthTooLarge)
    );
    assert_eq!(body("-1", "abcd"), Err(ParseError::ContentLengthNegative));
    for text in ["", "4 4", "4,4", "+4", "0x4", "4;a"] {
        assert_eq!(body(text, "abcd"), Err(ParseError::ContentLength), "{text}");
    }
}

/// RFC 3261 §20.22: 0 to 255; what is beyond is the forwarder's to judge.
#[test]
fn max_forwards_is_a_byte_or_told_to_be_none() {
    let value = |text: &str| {
        let message = parse(&message(&format!("Max-Forwards: {text}\r\n"))).unwrap();
        message.max_forwards().map(|row| row.value)
    };
    assert_eq!(value("0"), Some(Some(0)));
    assert_eq!(value("255"), Some(Some(255)));
    for text in ["256", "300", "", "-1", "seven", "99999999999999999999"] {
        assert_eq!(value(text), Some(None), "{text}");
    }
    assert!(parse(&message("")).unwrap().max_forwards().is_none());
}

/// What may stand once may not stand twice; what is needed may not be missing.
#[test]
fn single_rows_are_counted() {
    for (row, error) in [
        ("From: <sip:a@b>;tag=1", ParseError::FromTwice),
        ("f: <sip:a@b>;tag=1", ParseError::FromTwice),
        ("To: <sip:a@b>", ParseError::ToTwice),
        ("i: 2", ParseError::CallIdTwice),
        ("CSEQ: 1 OPTIONS", ParseError::CSeqTwice),
        (
            "Max-Forwards: 1\r\nMax-Forwards: 1",
            ParseError::MaxForwardsTwice,
        ),
        ("Content-Length: 0\r\nl: 0", ParseError::ContentLengthTwice),
        (
            "Max-Breadth: 1\r\nMax-Breadth: 1",
            ParseError::MaxBreadthTwice,
        ),
    ] {
        assert_eq!(parse(&message(&format!("{row}\r\n"))).unwrap_err(), error);
    }
    for (name, error) in [
        ("Via", ParseError::ViaMissing),
        ("From", ParseError::FromMissing),
        ("To", ParseError::ToMissing),
        ("Call-ID", ParseError::CallIdMissing),
        ("CSeq", ParseError::CSeqMissing),
    ] {
        let text = message("").replace(&format!("\r\n{name}:"), "\r\nX:");
        assert_eq!(parse(&text).unwrap_err(), error);
    }
}

/// A CR or LF of its own is a line end for some and not for others: refused, wherever it stands in
/// the header section, and nobody's business in the body.
#[test]
fn bare_line_ends_are_refused() {
    for row in ["X: a\nVia: b", "X: a\rVia: b", "X: a\r\r", "X: a\n"] {
        let text = message(&format!("{row}\r\n"));
        assert_eq!(
            parse(&text).unwrap_err(),
            ParseError::BareLineEnd,
            "{row:?}"
        );
    }
    let text = message("").replace("\r\n", "\n");
    assert_eq!(parse(&text).unwrap_err(), ParseError::BareLineEnd);
    assert!(parse(&(message("") + "a\rb\nc")).is_ok());
}

/// RFC 3261 §16.3 step 1: what the proxy does not use may be anything.
#[test]
fn unused_rows_may_be_malformed() {
    let text = message(
        "Date: yesterday\r\nContact: \"<<;;,\r\nno colon here\r\nX\u{e9}: \u{e9}\r\n: empty\r\n\
         Expires: -1\r\nRoute: <<>\r\nSubject:\r\n \r\n\t\r\n",
    );
    assert_eq!(parse(&text).unwrap().headers().len(), 13);
    // But not in a way that makes another parser see another header.
    let folded = message("Via\r\n : SIP/2.0/UDP x\r\n");
    assert_eq!(parse(&folded).unwrap_err(), ParseError::HeaderWithoutColon);
    let folded = message("").replacen("\r\nVia", "\r\n Via", 1);
    assert_eq!(parse(&folded).unwrap_err(), ParseError::StartLineFolded);
}

/// RFC 3261 §7.5: empty lines before the start line are no part of the message.
#[test]
fn leading_line_ends_are_skipped() {
    let text = format!("\r\n\r\n{}", message(""));
    assert_eq!(parse(&text).unwrap().start_line().start(), 4);
    assert_eq!(parse("\r\n\r\n").unwrap_err(), ParseError::NotSip);
    assert_eq!(parse("").unwrap_err(), ParseError::NotSip);
}

/// Faults that mutation and fuzzing found, each as its shortest message.
#[test]
fn what_was_found_once_stays_found() {
    let valid = message("");
    for (from, to) in [
        // NUL behind a method passed for its padding.
        ("OPTIONS", "OPTIONS\0"),
        // A second `received` replaced the first, beyond the end of the value.
        ("z9hG4bK1", "z9hG4bK1;received=192.0.2.1;received=192.0.2.2"),
        // White space behind a sent-by without parameters.
        ("h;branch=z9hG4bK1", "h ,SIP/2.0/UDP g"),
        // An empty list element, skipped by one iterator and an error to the other.
        ("z9hG4bK1", "z9hG4bK1,\r\nVia: SIP/2.0/UDP g"),
        // `<` in a Via hid the comma behind it.
        ("z9hG4bK1", "z9hG4bK<1 , SIP/2.0/UDP g"),
    ] {
        assert!(valid.contains(from));
        check(valid.replace(from, to).as_bytes());
    }
}
