//! What must hold for any bytes given to the SIP parser.
//!
//! Shared by the property tests and the fuzz target `sip_datagram`. The reference here is written
//! from the grammar, line by line and byte by byte, with none of the parser's code.

use viaduct::limits::HEADERS_MAX;
use viaduct::sip::{
    HeaderName, HeaderRow, Kind, Message, NameAddr, Param, Params, ParseError, Span, Uri, Via,
    first_value_removal, values,
};

/// Parses `bytes` and holds the result against everything that must be true of it.
pub(super) fn check(bytes: &[u8]) {
    let mut message = Message::new();
    let result = message.parse(bytes);
    leaves_no_trace(bytes, &message, result);
    spans_lie_inside(bytes, &message);
    rows_are_those_of_the_reference(bytes, &message, result);
    values_lie_inside_their_rows(bytes, &message);
    if result.is_ok() {
        a_good_message_is_complete(bytes, &message);
        ends_where_it_says(bytes, &message);
        the_first_via_can_be_popped(bytes, &message);
    }
}

/// An index that was used before gives the same answer as a new one.
fn leaves_no_trace(bytes: &[u8], message: &Message, result: Result<(), ParseError>) {
    let mut used = Message::new();
    let before: &[u8] = b"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx;rport\r\n\
        Max-Forwards: 1\r\nMax-Breadth: 1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\n\
        Call-ID: x\r\nCSeq: 1 INVITE\r\nRoute: <sip:r;lr>\r\nContent-Length: 0\r\n\r\n";
    used.parse(before).expect("this message is well-formed");
    assert_eq!(used.parse(bytes), result);
    assert_eq!(used.headers(), message.headers());
    assert_eq!(fields(&used), fields(message));
    for name in HeaderName::ALL {
        assert_eq!(used.first(*name), message.first(*name));
    }
}

fn fields(message: &Message) -> impl PartialEq + core::fmt::Debug {
    (
        (message.kind(), message.method(), message.status()),
        (
            message.method_span(),
            message.request_uri_span(),
            message.request_uri().copied(),
        ),
        (message.version(), message.reason(), message.start_line()),
        (
            message.top_via().copied(),
            message.call_id(),
            message.cseq(),
        ),
        (message.from_tag(), message.to_tag()),
        (
            message.max_forwards(),
            message.max_breadth(),
            message.content_length(),
        ),
        message.body(),
    )
}

#[track_caller]
fn assert_inside(inner: Span, outer: Span) {
    assert!(
        inner.start() <= inner.end()
            && outer.start() <= inner.start()
            && inner.end() <= outer.end(),
        "{inner:?} outside {outer:?}"
    );
}

fn spans_lie_inside(bytes: &[u8], message: &Message) {
    let Some(whole) = Span::whole(bytes) else {
        assert!(message.headers().is_empty());
        return;
    };
    let line = message.start_line();
    assert_inside(line, whole);
    for span in [
        message.method_span(),
        message.request_uri_span(),
        message.version(),
        message.reason(),
    ] {
        if span != Span::EMPTY {
            assert_inside(span, line);
        }
    }
    if let Some(uri) = message.request_uri() {
        assert_eq!(uri.span, message.request_uri_span());
        check_uri(bytes, uri);
    }
    let mut end = line.end();
    for row in message.headers() {
        assert!(row.row.start() >= end);
        assert_inside(row.row, whole);
        assert_inside(row.value, row.row);
        assert!(row.row.of(bytes).ends_with(b"\n"));
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let value = row.value.of(bytes);
        assert!(!value.first().is_some_and(blank) && !value.last().is_some_and(blank));
        end = row.row.end();
    }
    assert_inside(message.body(), whole);
    let in_first = |name: HeaderName, span: Span| {
        assert_inside(span, message.first(name).expect("decoded from a row").value);
    };
    if let Some(via) = message.top_via() {
        in_first(HeaderName::Via, via.value);
        check_via(bytes, via);
    }
    for (name, span) in [
        (HeaderName::CallId, message.call_id()),
        (
            HeaderName::CSeq,
            message.cseq().map(|cseq| cseq.method_span),
        ),
        (HeaderName::From, message.from_tag()),
        (HeaderName::To, message.to_tag()),
        (
            HeaderName::MaxForwards,
            message.max_forwards().map(|row| row.span),
        ),
        (
            HeaderName::MaxBreadth,
            message.max_breadth().map(|row| row.span),
        ),
        (
            HeaderName::ContentLength,
            message.content_length().map(|row| row.0),
        ),
    ] {
        if let Some(span) = span {
            in_first(name, span);
        }
    }
}

fn check_uri(bytes: &[u8], uri: &Uri) {
    let parts = [uri.user, uri.password, uri.headers];
    for span in parts
        .into_iter()
        .flatten()
        .chain([uri.params, uri.host_port])
    {
        assert_inside(span, uri.span);
    }
    assert_inside(uri.scheme_span(bytes), uri.span);
    assert_eq!(uri.host.is_some(), uri.scheme.is_sip());
    check_params(bytes, uri.params);
    let _ = (uri.maddr(bytes), uri.transport(bytes), uri.has_lr(bytes));
    // What was parsed parses again, alone, to the same.
    let text = uri.span.of(bytes);
    let again = Uri::parse(text, Span::whole(text).expect("part of a datagram"));
    assert_eq!(
        again.map(|uri| (uri.scheme, uri.port)),
        Ok((uri.scheme, uri.port))
    );
}

fn check_params(bytes: &[u8], span: Span) {
    for param in Params::new(bytes, span) {
        check_param(bytes, span, &param);
    }
}

fn check_param(bytes: &[u8], outer: Span, param: &Param) {
    assert_inside(param.whole, outer);
    assert_inside(param.name, param.whole);
    assert!(param.whole.of(bytes).starts_with(b";") && !param.name.is_empty());
    if let Some(value) = param.value {
        assert_inside(value, param.whole);
        assert_eq!(value.end(), param.whole.end());
    }
}

fn check_via(bytes: &[u8], via: &Via) {
    assert_inside(via.sent_by, via.value);
    assert_inside(via.params, via.value);
    check_params(bytes, via.params);
    for param in [via.received, via.rport, via.maddr, via.ttl]
        .into_iter()
        .flatten()
    {
        check_param(bytes, via.params, &param);
    }
    if let Some(branch) = via.branch {
        assert_inside(branch, via.params);
        assert_eq!(via.param(bytes, b"BRANCH"), Some(branch));
    }
    let _ = (
        via.received_ip(bytes),
        via.rport_port(bytes),
        via.maddr_ip(bytes),
    );
}

fn values_lie_inside_their_rows(bytes: &[u8], message: &Message) {
    for row in message.headers() {
        let mut end = row.value.start();
        for value in values(bytes, row) {
            assert!(!value.is_empty() && value.start() >= end);
            assert_inside(value, row.value);
            end = value.end();
            if let Ok(address) = NameAddr::parse(bytes, value) {
                assert_inside(address.display_name, value);
                assert_inside(address.uri.span, value);
                assert_inside(address.params, value);
                check_uri(bytes, &address.uri);
                check_params(bytes, address.params);
            }
        }
        assert_inside(first_value_removal(bytes, row), row.row);
    }
    for via in message.vias(bytes).flatten() {
        check_via(bytes, &via);
    }
}

fn a_good_message_is_complete(bytes: &[u8], message: &Message) {
    assert_ne!(message.kind(), Kind::Unknown);
    assert_eq!(
        message.kind() == Kind::Request,
        message.request_uri().is_some()
    );
    assert_eq!(message.kind() == Kind::Response, message.status() != 0);
    assert!(message.top_via().is_some() && message.call_id().is_some_and(|id| !id.is_empty()));
    assert!(message.has(HeaderName::From) && message.has(HeaderName::To));
    let cseq = message.cseq().expect("a message without CSeq is an error");
    if message.kind() == Kind::Request {
        assert_eq!(cseq.method_span.of(bytes), message.method_span().of(bytes));
    }
    if let Some((_, length)) = message.content_length() {
        assert_eq!(message.body().len(), length);
    }
    assert!(bytes[..message.body_start()].ends_with(b"\r\n\r\n"));
}

/// RFC 3261 §18.3: cut where it ends, a message is the same message.
fn ends_where_it_says(bytes: &[u8], message: &Message) {
    let mut cut = Message::new();
    assert_eq!(cut.parse(&bytes[..message.message_end()]), Ok(()));
    assert_eq!(fields(&cut), fields(message));
    assert_eq!(cut.headers(), message.headers());
}

/// RFC 3261 §16.7 step 3: without its first Via value a message has its second on top.
fn the_first_via_can_be_popped(bytes: &[u8], message: &Message) {
    let row = message
        .first(HeaderName::Via)
        .expect("a message without Via is an error");
    let mut popped = bytes.to_vec();
    popped.drain(first_value_removal(bytes, row).range());
    let mut after = Message::new();
    let result = after.parse(&popped);
    match message.next_via(bytes) {
        Ok(Some(second)) => {
            let top = after.top_via().expect("the second Via is on top now");
            assert_eq!(top.value.of(&popped), second.value.of(bytes));
            assert_eq!(
                top.branch.map(|span| span.of(&popped)),
                second.branch.map(|span| span.of(bytes))
            );
            assert_eq!(result, Ok(()));
        }
        Ok(None) => assert_eq!(result, Err(ParseError::ViaMissing)),
        Err(_) => assert!(result.is_err()),
    }
    let rest = |message: &Message, bytes: &[u8]| -> Vec<Vec<u8>> {
        let others = message
            .headers()
            .iter()
            .filter(|row| row.name != HeaderName::Via);
        others.map(|row| row.row.of(bytes).to_vec()).collect()
    };
    assert_eq!(rest(message, bytes), rest(&after, &popped));
}

/// A row as the grammar has it: name in lower case, value with white space cut off.
struct Row {
    start: usize,
    end: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// RFC 3261 §7.3.1, read literally: lines, of which those that start with white space continue the
/// one before, up to the empty one. `None` in place of the end if there is no empty one.
fn reference(bytes: &[u8]) -> (Vec<Row>, Option<usize>) {
    let mut lines = Vec::new();
    let mut start = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if *byte == b'\n' {
            lines.push((start, index + 1));
            start = index + 1;
        }
    }
    let text = |line: &(usize, usize)| {
        let text = &bytes[line.0..line.1 - 1];
        text.strip_suffix(b"\r").unwrap_or(text)
    };
    let mut lines = lines
        .iter()
        .skip_while(|line| text(line).is_empty())
        .skip(1);
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let Some(line) = lines.next() else {
            return (rows, None);
        };
        let continues = matches!(bytes[line.0], b' ' | b'\t');
        if text(line).is_empty() {
            return (rows, Some(line.1));
        }
        match rows.last_mut() {
            Some(row) if continues => {
                row.end = line.1;
                row.value.extend_from_slice(&bytes[line.0..line.1]);
            }
            _ => {
                let all = &bytes[line.0..line.1];
                let colon = all.iter().position(|byte| *byte == b':');
                let (name, value) = all.split_at(colon.unwrap_or(all.len()));
                rows.push(Row {
                    start: line.0,
                    end: line.1,
                    name: match colon {
                        Some(_) => name.trim_ascii_end().to_ascii_lowercase(),
                        None => Vec::new(),
                    },
                    value: value.strip_prefix(b":").unwrap_or(value).to_vec(),
                });
            }
        }
    }
}

fn is_header(name: HeaderName, text: &[u8]) -> bool {
    let compact = name.compact().is_some_and(|compact| text == [compact]);
    compact || (name != HeaderName::Other && text == name.as_str().to_ascii_lowercase().as_bytes())
}

fn rows_are_those_of_the_reference(
    bytes: &[u8],
    message: &Message,
    result: Result<(), ParseError>,
) {
    if message.kind() == Kind::Unknown {
        return;
    }
    let (mut expected, body) = reference(bytes);
    match body {
        Some(start) if expected.len() <= HEADERS_MAX => assert_eq!(message.body_start(), start),
        Some(_) => assert!(result.is_err()),
        // The last row may go on where the datagram was cut, so it is not indexed.
        None => {
            assert!(result.is_err());
            let cut = message.headers().len();
            assert!(cut + 1 >= expected.len().min(HEADERS_MAX));
            expected.truncate(cut);
        }
    }
    expected.truncate(HEADERS_MAX);
    assert_eq!(message.headers().len(), expected.len());
    for (row, expected) in message.headers().iter().zip(&expected) {
        assert_eq!(
            (row.row.start(), row.row.end()),
            (expected.start, expected.end)
        );
        row_is_that_of_the_reference(bytes, message, row, expected, result);
    }
}

fn row_is_that_of_the_reference(
    bytes: &[u8],
    message: &Message,
    row: &HeaderRow,
    expected: &Row,
    result: Result<(), ParseError>,
) {
    let known = HeaderName::ALL
        .iter()
        .find(|name| is_header(**name, &expected.name));
    // A CR of its own makes the message an error; what it does to a name is of no account then.
    if !expected.name.contains(&b'\r') {
        assert_eq!(row.name, known.copied().unwrap_or(HeaderName::Other));
    } else {
        assert!(result.is_err());
    }
    if expected.name.is_empty() {
        return;
    }
    let cut = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let from = expected.value.iter().position(|byte| !cut(byte));
    let to = expected.value.iter().rposition(|byte| !cut(byte));
    let value = match (from, to) {
        (Some(from), Some(to)) => &expected.value[from..=to],
        _ => &[],
    };
    assert_eq!(row.value.of(bytes), value);
    assert!(message.rows(row.name).any(|other| other == row));
}
