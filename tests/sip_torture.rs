//! The torture messages of RFC 4475 and RFC 5118: what the parser says of each.
//!
//! Goal: every message has its one outcome here, with the fields that a proxy goes by, so that a
//! change of the parser that moves any of them is seen. What is then sent is the forwarder's test.
//!
//! A line reads: file, cause or `ok`, start line, top Via (transport, sent-by, branch, count of
//! values), CSeq, From tag, To tag, Max-Forwards, body of Content-Length, count of rows.

#![allow(
    clippy::unwrap_used,
    reason = "a torture message that lacks what is asked for fails its test"
)]

use viaduct::sip::{HeaderName, Host, Kind, Message, NameAddr, Scheme, Span, Transport, values};

const RFC4475: &str = "\
badaspec | ok | Options sip user@example.org | UDP host4.example.com:5060 z9hG4bKkdju43234 1 | 3923239 Options | 433423 - | 70 | 0/0 | 8
badbranch | ok | Options sip user@example.com | UDP 192.0.2.1 z9hG4bK 1 | 8 Options | 33242 - | 3 | 0/0 | 8
baddate | ok | Invite sip user@example.com | UDP host.example.com z9hG4bKkdjuw 1 | 1392934 Invite | 2234923 - | 70 | 150/150 | 10
baddn | address_comma | Options sip t.watson@example.org | UDP c.example.com:5060 z9hG4bKkdjuw 1 | 3923239 Options | - - | 70 | 0/0 | 8
badinv01 | via_parameter | Invite sip user@example.com | UDP 192.0.2.15 - via_parameter | 8 Invite | 134161461246 - | 7 | 152/152 | 9
badvers | version_unsupported | Options sip t.watson@example.org | UDP c.example.com z9hG4bKkdjuw via_protocol | 1 Options | qweoiqpe - | 70 | 0/0 | 7
bcast | ok | 200 OK | UDP 192.0.2.198 z9hG4bK1324923 2 | 35 Invite | 11141343 2229 | - | 154/154 | 9
bext01 | ok | Options sip user@example.com | TLS fold-and-staple.example.com z9hG4bKkdjuw 1 | 8 Options | 242etr - | 6 | 0/0 | 9
bigcode | status_code | 0 better not break the receiver | UDP 192.0.2.105 z9hG4bK2398ndaoe 1 | 353494 Invite | 39ansfi3 902jndnke3 | - | 0/0 | 7
clerr | body_truncated | Invite sip user@example.com | UDP host5.example.com z9hG4bK-39234-23523 1 | 8 Invite | 93942939o2 - | 80 | 154/9999 | 9
cparam01 | ok | Register sip example.com | UDP saturn.example.com:5060 z9hG4bKkdjuw 1 | 2 Register | DkfVgjkrtMwaerKKpe - | 70 | 0/0 | 8
cparam02 | ok | Register sip example.com | UDP saturn.example.com:5060 z9hG4bKkdjuw 1 | 3 Register | 838293 - | 70 | 0/0 | 8
dblreq | ok | Register sip example.com | UDP 192.0.2.125 z9hG4bKkdjuw23492 1 | 8 Register | 43251j3j324 - | 8 | 0/0 | 8
esc01 | ok | Invite sip sips%3Auser%40example.com@example.net | UDP host5.example.net z9hG4bKkdjuw 1 | 234234 Invite | 938 - | 87 | 150/150 | 9
esc02 | ok | Other sip registrar.example.com | TCP host.example.com z9hG4bK209%fzsnel234 1 | 29344 Other | f232jadfj23 - | 70 | 0/0 | 10
escnull | ok | Register sip example.com | UDP host5.example.com z9hG4bKkdjuw 1 | 14398234 Register | 839923423 - | 70 | 0/0 | 9
escruri | uri_headers | Invite sip user@example.com | UDP host-of-the-hour.example.com z9hG4bKkdjuw 1 | 149209342 Invite | 341518 - | 7 | 150/150 | 9
insuf | from_missing | Invite sip user@example.com | UDP 192.0.2.95 z9hG4bKkdj.insuf 1 | 193942 Invite | - - | - | 152/152 | 4
intmeth | ok | Other sip 1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com | TCP host1.example.com z9hG4bK-.!%66*_+`'~ 1 | 139122385 Other | _token~1'+`*%!-. - | 255 | 0/0 | 8
inv2543 | ok | Invite sip UserB@example.com | UDP iftgw.example.com - 1 | 56 Invite | - - | - | 105/- | 7
invut | ok | Invite sip user@example.com | UDP somehost.example.com z9hG4bKkdjuw 1 | 235448 Invite | 8392034 - | 70 | 40/40 | 9
longreq | ok | Invite sip user@example.com | TCP sip33.example.com - 34 | 3882340 Invite | 12982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982424 - | 70 | 150/150 | 43
ltgtruri | uri_brackets | Invite ? <sip:user@example.com> | UDP 192.0.2.5 - 1 | 1 Invite | 39291 - | 23 | 159/159 | 9
lwsdisp | ok | Options sip user@example.com | UDP funky.example.com z9hG4bKkdjuw 1 | 60 Options | 323 - | 70 | 0/0 | 7
lwsruri | uri_spaces | Invite ? sip:user@example.com; lr | UDP 192.0.2.1:5060 z9hG4bKkdjuw2395 1 | 2130706432 Invite | 231413434 3xfe-9921883-z9f | 5 | 159/159 | 9
lwsstart | start_line_spaces | Invite sip user@example.com | UDP host1.example.com z9hG4bKkdjuw3923 1 | 1893884 Invite | 8814 - | 8 | 150/150 | 9
mcl01 | content_length_twice | Options sip user@example.com | UDP host5.example.net z9hG4bK293423 1 | 15932 Options | 3923942 - | 60 | 13/13 | 9
mismatch01 | cseq_method | Options sip user@example.com | UDP host.example.com z9hG4bKkdjuw 1 | 8 Invite | 34525 - | 6 | 0/0 | 7
mismatch02 | cseq_method | Other sip user@example.com | UDP host.example.net z9hG4bKkdjuw 1 | 8 Invite | 34525 - | 6 | 138/138 | 9
mpart01 | ok | Message sip kumiko@example.org | UDP 127.0.0.1:5070 z9hG4bK-d87543-4dade06d0bdb11ee-1--d87543- 1 | 1 Message | 2fb0dcc9 - | 70 | 553/553 | 14
multi01 | from_twice | Invite sip user@company.com | UDP 192.0.2.25 z9hG4bKkdjuw 1 | 5 Invite | 3413415 - | 70 | 154/154 | 15
ncl | content_length_negative | Invite sip user@example.com | UDP 192.0.2.53 z9hG4bKkdjuw 1 | 0 Invite | 32394234 - | 254 | 152/- | 9
noreason | ok | 100  | UDP 192.0.2.105 z9hG4bK2398ndaoe 1 | 35 Invite | 39ansfi3 902jndnke3 | - | 0/0 | 7
novelsc | ok | Options ? soap.beep://192.0.2.103:3002 | TCP host9.example.com z9hG4bKkdjuw39234 1 | 3923423 Options | 384 - | 3 | 0/0 | 7
quotbal | quote_unbalanced | Invite sip user@example.com | UDP 192.0.2.59:5050 z9hG4bKkdjuw39234 1 | 8 Invite | 93334 - | 10 | 152/152 | 9
regaut01 | ok | Register sip example.com | TCP 192.0.2.253 z9hG4bKkdjuw 1 | 9338 Register | 87321hj23128 - | 8 | 0/0 | 8
regbadct | ok | Register sip example.com | UDP 135.180.130.133:5060 z9hG4bKkdjuw 1 | 1 Register | 998332 - | 70 | 0/0 | 8
regescrt | ok | Register sip example.com | UDP host5.example.com z9hG4bKkdjuw 1 | 14398234 Register | 8 - | 70 | 0/0 | 8
scalar02 | cseq_too_large | Register sip example.com | TCP host129.example.com z9hG4bK342sdfoi3 1 | - | 239232jh3 - | bad | 0/0 | 9
scalarlg | cseq_too_large | 503 Service Unavailable | TCP host129.example.com z9hG4bKzzxdiwo34sw 1 | - | 2easdjfejw - | - | 0/0 | 8
sdp01 | ok | Invite sip user@example.com | UDP 192.0.2.15 z9hG4bKkdjuw 1 | 8 Invite | 234 - | 5 | 150/150 | 10
semiuri | ok | Options sip user;par=u%40example.net@example.com | UDP 192.0.2.1 z9hG4bKkdjuw 1 | 8 Options | 33242 - | 3 | 0/0 | 8
transports | ok | Options sip user@example.com | UDP t1.example.com z9hG4bKkdjuw 5 | 60 Options | 323 - | 70 | 0/0 | 12
trws | start_line_spaces | Options sip remote-target@example.com | TCP host1.examle.com z9hG4bK299342093 1 | 238923 Options | 329429089 - | 70 | 0/0 | 8
unkscm | ok | Options ? nobodyKnowsThisScheme:totallyopaquecontent | TCP host9.example.com z9hG4bKkdjuw39234 1 | 3923423 Options | 384 - | 3 | 0/0 | 7
unksm2 | ok | Register sip example.com | UDP 192.0.2.21:5060 z9hG4bKkdjuw 1 | 234902 Register | 3234233 - | 70 | 0/0 | 8
unreason | ok | 200 = 2**3 * 5**2 но сто девяносто девять - простое | UDP 192.0.2.198 z9hG4bK1324923 1 | 35 Invite | 11141343 2229 | - | 154/154 | 8
wsinv | ok | Invite sip vivekg@chair-dnrc.example.com | UDP 192.0.2.2 390skdjuw 3 | 9 Invite | 98asjd8 1918181833n | 68 | 150/150 | 14
zeromf | ok | Options sip user@example.com | UDP host1.example.com z9hG4bKkdjuw2349i 1 | 39234321 Options | 3ghsd41 - | 0 | 0/0 | 7
";

const RFC5118: &str = "\
ipv4-mapped-ipv6 | ok | Invite sip user@example.com | UDP [::ffff:192.0.2.10]:19823 z9hG4bKbh19 2 | 612 Invite | 81x2 - | 70 | 245/245 | 10
ipv6-bad | host | Register ? sip:2001:db8::10 | UDP [2001:db8::9:1] z9hG4bKas3-111 1 | 98176 Register | 81x2 - | 70 | 0/0 | 8
ipv6-bug-abnf-3-colons | ok | Options sip user@2001:db8::c000:201 | UDP lab1.east.example.com z9hG4bKas3-111 1 | 689 Options | 810x2 - | 70 | 0/0 | 7
ipv6-correct-abnf-2-colons | ok | Options sip user@2001:db8::c000:201 | UDP lab1.east.example.com z9hG4bKas3-111 1 | 689 Options | 810x2 - | 70 | 0/0 | 7
ipv6-good | ok | Register sip 2001:db8::10 | UDP [2001:db8::9:1] z9hG4bKas3-111 1 | 98176 Register | 81x2 - | 70 | 0/0 | 8
ipv6-in-sdp | ok | Invite sip user@2001:db8::10 | UDP [2001:db8::20] z9hG4bKas3-111 1 | 8612 Invite | 81x2 - | 70 | 251/251 | 9
mult-ip-in-header | ok | Bye sip user@host.example.net | UDP [2001:db8::9:1]:6050 z9hG4bKas3-111 3 | 89187 Bye | 81x2 9817--94 | 70 | 0/0 | 9
mult-ip-in-sdp | ok | Invite sip user@2001:db8::10 | UDP [2001:db8::9:1] z9hG4bKas3-111 1 | 8912 Invite | 81x2 - | 70 | 189/189 | 9
port-ambiguous | ok | Register sip 2001:db8::10:5070 | UDP [2001:db8::9:1] z9hG4bKas3-111 1 | 98176 Register | 81x2 - | 70 | 0/0 | 8
port-unambiguous | ok | Register sip 2001:db8::10 port 5070 | UDP [2001:db8::9:1] z9hG4bKas3-111 1 | 98176 Register | 81x2 - | 70 | 0/0 | 8
via-received-param-no-delim | ok | Options sip 2001:db8::10 | UDP [2001:db8::9:1] z9hG4bKas3 1 | 921 Options | 81x2 - | 70 | 0/0 | 8
via-received-param-with-delim | ok | Bye sip 2001:db8::10 | UDP [2001:db8::9:1] z9hG4bKas3-111 1 | 321 Bye | 81x2 bd76ya | 70 | 0/0 | 7
";

fn read(path: &str) -> Vec<u8> {
    std::fs::read(format!(
        "{}/tests/data/{path}.dat",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap()
}

/// One message, parsed, with its bytes.
fn torture(path: &str) -> (Message, Vec<u8>) {
    let bytes = read(path);
    let mut message = Message::new();
    message.parse(&bytes).unwrap();
    (message, bytes)
}

fn text(bytes: &[u8], span: Span) -> String {
    String::from_utf8_lossy(span.of(bytes)).into_owned()
}

fn optional(bytes: &[u8], span: Option<Span>) -> String {
    span.map_or("-".into(), |span| text(bytes, span))
}

fn start_line(message: &Message, bytes: &[u8]) -> String {
    if message.kind() == Kind::Response {
        return format!("{} {}", message.status(), text(bytes, message.reason()));
    }
    let method = message.method();
    match message.request_uri() {
        Some(uri) if uri.scheme == Scheme::Sip => {
            let user = uri
                .user
                .map_or(String::new(), |user| text(bytes, user) + "@");
            let host = match uri.host.unwrap() {
                Host::Ip(ip) => ip.to_string(),
                Host::Name(name) => text(bytes, name),
            };
            let port = uri
                .port
                .map_or(String::new(), |port| format!(" port {port}"));
            format!("{method:?} sip {user}{host}{port}")
        }
        _ => format!("{method:?} ? {}", text(bytes, message.request_uri_span())),
    }
}

fn top_via(message: &Message, bytes: &[u8]) -> String {
    let Some(via) = message.top_via() else {
        return "-".into();
    };
    let transport = match via.transport {
        Transport::Known(protocol) => format!("{protocol:?}").to_uppercase(),
        Transport::Other => "?".into(),
    };
    let count: Result<Vec<_>, _> = message.vias(bytes).collect();
    format!(
        "{transport} {} {} {}",
        text(bytes, via.sent_by),
        optional(bytes, via.branch),
        count.map_or_else(|error| error.to_string(), |vias| vias.len().to_string()),
    )
}

fn summary(name: &str, message: &mut Message, bytes: &[u8]) -> String {
    let result = message.parse(bytes);
    let cseq = message.cseq();
    let max_forwards = message.max_forwards().map(|row| row.value);
    let length = message.content_length();
    format!(
        "{name} | {} | {} | {} | {} | {} {} | {} | {}/{} | {}",
        result.map_or_else(|error| error.as_str(), |()| "ok"),
        start_line(message, bytes),
        top_via(message, bytes),
        cseq.map_or("-".into(), |cseq| format!(
            "{} {:?}",
            cseq.number, cseq.method
        )),
        optional(bytes, message.from_tag()),
        optional(bytes, message.to_tag()),
        max_forwards.map_or("-".into(), |value| value
            .map_or("bad".into(), |value| value.to_string())),
        message.body().len(),
        length.map_or("-".into(), |(_, length)| length.to_string()),
        message.headers().len(),
    )
}

fn check(directory: &str, table: &str, count: usize) {
    // One index for all, in two orders: nothing of a message may leak into the next.
    let mut message = Message::new();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), count);
    let files = std::fs::read_dir(format!(
        "{}/tests/data/{directory}",
        env!("CARGO_MANIFEST_DIR")
    ));
    // EXPECTED.tsv stands beside the messages.
    let messages = files.unwrap().filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        name.to_string_lossy().ends_with(".dat")
    });
    assert_eq!(messages.count(), count, "a file without a line");
    for line in lines.iter().chain(lines.iter().rev()) {
        let name = line.split(" | ").next().unwrap();
        let bytes = read(&format!("{directory}/{name}"));
        assert_eq!(summary(name, &mut message, &bytes), *line);
    }
}

#[test]
fn rfc4475_every_message_has_its_outcome() {
    check("rfc4475", RFC4475, 49);
}

#[test]
fn rfc5118_every_message_has_its_outcome() {
    check("rfc5118", RFC5118, 12);
}

/// RFC 4475 §3.1.1.1: folds, compact names, white space everywhere, a comma list of Vias.
#[test]
fn wsinv_every_row_is_found() {
    let (message, bytes) = torture("rfc4475/wsinv");
    let names: Vec<HeaderName> = message.headers().iter().map(|row| row.name).collect();
    use HeaderName::*;
    assert_eq!(
        names,
        [
            To,
            From,
            MaxForwards,
            CallId,
            ContentLength,
            CSeq,
            Via,
            Subject,
            Other,
            Other,
            ContentType,
            Route,
            Via,
            Contact,
        ]
    );
    let vias: Vec<_> = message.vias(&bytes).map(Result::unwrap).collect();
    let sent_by: Vec<_> = vias.iter().map(|via| text(&bytes, via.sent_by)).collect();
    assert_eq!(
        sent_by,
        ["192.0.2.2", "spindle.example.com", "192.168.255.111"]
    );
    let branches: Vec<_> = vias
        .iter()
        .map(|via| optional(&bytes, via.branch))
        .collect();
    assert_eq!(branches, ["390skdjuw", "z9hG4bK9ikj8", "z9hG4bK30239"]);
    assert_eq!(message.next_via(&bytes), Ok(Some(vias[1])));
    let unknown = &message.headers()[8];
    assert_eq!(unknown.name_bytes(&bytes), b"NewFangledHeader");
    assert_eq!(
        text(&bytes, unknown.value),
        "newfangled value\r\n continued newfangled value"
    );
    assert!(message.first(Subject).unwrap().value.is_empty());
    let contact = NameAddr::parse(&bytes, message.first(Contact).unwrap().value).unwrap();
    assert_eq!(
        text(&bytes, contact.display_name),
        r#""Quoted string \"\"""#
    );
    assert_eq!(
        contact.param(&bytes, b"q").unwrap().unwrap().of(&bytes),
        b"0.33"
    );
    let from = NameAddr::parse(&bytes, message.first(From).unwrap().value).unwrap();
    assert_eq!(text(&bytes, from.uri.span), "sip:jdrosen@example.com");
    let route = NameAddr::parse(&bytes, message.first(Route).unwrap().value).unwrap();
    assert!(route.uri.has_lr(&bytes));
    // The rows tile the header section: nothing is lost, nothing is counted twice.
    let mut end = message.start_line().end() + 2;
    for row in message.headers() {
        assert_eq!(row.row.start(), end);
        end = row.row.end();
    }
    assert_eq!(end + 2, message.body_start());
}

/// RFC 4475 §3.1.1.8: what follows the body is not part of the message (RFC 3261 §18.3).
#[test]
fn dblreq_ends_where_its_content_length_says() {
    let (message, bytes) = torture("rfc4475/dblreq");
    assert!(bytes[..message.message_end()].ends_with(b"Content-Length: 0\r\n\r\n"));
    assert_eq!(bytes.len() - message.message_end(), 450);
    assert_eq!(message.rows(HeaderName::Via).count(), 1);
}

/// RFC 4475 §3.1.1.3: escapes are not expanded, neither in a URI nor in a parameter.
#[test]
fn esc01_keeps_its_escapes() {
    let (message, bytes) = torture("rfc4475/esc01");
    let contact =
        NameAddr::parse(&bytes, message.first(HeaderName::Contact).unwrap().value).unwrap();
    assert_eq!(text(&bytes, contact.uri.user.unwrap()), "cal%6Cer");
    assert_eq!(
        text(&bytes, contact.uri.params),
        ";%6C%72;n%61me=v%61lue%25%34%31"
    );
    assert!(!contact.uri.has_lr(&bytes));
}

/// RFC 4475 §3.1.1.5: an escaped header name is another name.
#[test]
fn esc02_has_two_contacts_not_three() {
    let (message, bytes) = torture("rfc4475/esc02");
    assert_eq!(message.rows(HeaderName::Contact).count(), 2);
    let other = message.rows(HeaderName::Other).next().unwrap();
    assert_eq!(other.name_bytes(&bytes), b"C%6Fntact");
}

/// RFC 4475 §3.1.1.10: any token is a transport.
#[test]
fn transports_are_told_apart() {
    use viaduct::net::Protocol;
    let (message, bytes) = torture("rfc4475/transports");
    let transports: Vec<_> = message
        .vias(&bytes)
        .map(|via| via.unwrap().transport.protocol())
        .collect();
    assert_eq!(
        transports,
        [
            Some(Protocol::Udp),
            Some(Protocol::Sctp),
            Some(Protocol::Tls),
            None,
            Some(Protocol::Tcp)
        ]
    );
}

/// RFC 4475 §3.3.5: the tags of Proxy-Require are the values of its list.
#[test]
fn bext01_lists_what_it_requires() {
    let (message, bytes) = torture("rfc4475/bext01");
    let row = message.first(HeaderName::ProxyRequire).unwrap();
    let tags: Vec<_> = values(&bytes, row).map(|span| text(&bytes, span)).collect();
    assert_eq!(tags, ["noProxiesSupportThis", "norDoAnyProxiesSupportThis"]);
    assert!(message.has(HeaderName::Require));
}

/// RFC 4475 §3.1.1.2: all but NUL in a quoted string, UTF-8 in a value, a method of odd characters.
#[test]
fn intmeth_addresses_are_read_in_full() {
    let (message, bytes) = torture("rfc4475/intmeth");
    assert_eq!(
        message.method_span().of(&bytes),
        b"!interesting-Method0123456789_*+`.%indeed'~"
    );
    let to = NameAddr::parse(&bytes, message.first(HeaderName::To).unwrap().value).unwrap();
    assert_eq!(
        to.display_name.of(&bytes),
        b"\"BEL:\\\x07 NUL:\\\x00 DEL:\\\x7f\""
    );
    assert_eq!(text(&bytes, to.uri.host_port), "example.com");
    let uri = message.request_uri().unwrap();
    assert_eq!(
        text(&bytes, uri.password.unwrap()),
        "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"
    );
}

/// RFC 4475 §3.1.2.13, §3.3.12, §3.3.13, §3.3.14: whose a parameter or a question mark is.
#[test]
fn contacts_without_brackets_own_no_parameters() {
    let contact = |name: &str| {
        let (message, bytes) = torture(name);
        let value = message.first(HeaderName::Contact).unwrap().value;
        NameAddr::parse(&bytes, value).map(|address| {
            let uri = text(&bytes, address.uri.params);
            (
                uri,
                text(&bytes, address.params),
                address.uri.headers.is_some(),
            )
        })
    };
    let parameter = || ";unknownparam".to_owned();
    assert_eq!(
        contact("rfc4475/cparam01"),
        Ok((String::new(), parameter(), false))
    );
    assert_eq!(
        contact("rfc4475/cparam02"),
        Ok((parameter(), String::new(), false))
    );
    assert_eq!(
        contact("rfc4475/regescrt"),
        Ok((String::new(), String::new(), true))
    );
    assert!(contact("rfc4475/regbadct").is_err());
}

/// RFC 4475 §3.3.8: after an error the first row of each header is the one an answer is made of.
#[test]
fn multi01_answers_from_its_first_rows() {
    let bytes = read("rfc4475/multi01");
    let mut message = Message::new();
    assert!(message.parse(&bytes).is_err());
    let first = |name| text(&bytes, message.first(name).unwrap().value);
    assert_eq!(first(HeaderName::CallId), "multi01.98asdh@192.0.2.1");
    assert_eq!(first(HeaderName::CSeq), "5 INVITE");
    assert_eq!(first(HeaderName::To), "sip:user@example.com");
    assert_eq!(message.rows(HeaderName::From).count(), 2);
}

/// RFC 5118 §4.5: `received` with and without brackets is one address.
#[test]
fn received_is_read_with_and_without_brackets() {
    for name in [
        "via-received-param-with-delim",
        "via-received-param-no-delim",
    ] {
        let (message, bytes) = torture(&format!("rfc5118/{name}"));
        let via = message.top_via().unwrap();
        assert_eq!(
            via.received_ip(&bytes),
            Some("2001:db8::9:255".parse().unwrap())
        );
        assert_eq!(via.host.ip(), Some("2001:db8::9:1".parse().unwrap()));
    }
}

/// RFC 5118 §4.7, §4.9: address families mix, and a mapped address is the IPv4 address.
#[test]
fn vias_of_both_families_are_read() {
    let hosts = |name: &str| {
        let (message, bytes) = torture(name);
        let vias: Vec<_> = message
            .vias(&bytes)
            .map(|via| via.unwrap().host.ip())
            .collect();
        vias.into_iter()
            .map(|ip| ip.unwrap().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        hosts("rfc5118/mult-ip-in-header"),
        ["2001:db8::9:1", "192.0.2.1", "2001:db8::9:255"]
    );
    assert_eq!(
        hosts("rfc5118/ipv4-mapped-ipv6"),
        ["192.0.2.10", "192.0.2.2"]
    );
}
