//! What the caller's messages look like: header layouts and their templates.
//!
//! Each layout is another habit of real user agents: order and case of header names, compact
//! forms, folded rows, comma lists, long feature lists. A load of one layout would measure one
//! branch of a parser. Every text is a legal request; the tests hold them to it.

use std::net::{IpAddr, SocketAddr};

use super::identity::{CallKey, Identity};
use super::template::{Field, Template, write_decimal};

/// A way to write the header section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Layout {
    /// Long names, one value a row, the order of RFC 3261's examples.
    Plain,
    /// Compact forms and no blanks that are not needed; Content-Length early.
    Compact,
    /// Rows folded over several lines, blanks around every separator.
    Folded,
    /// Comma lists: two Vias in one row, as from behind another proxy; many values a row.
    Lists,
    /// The long header set of a desk phone: features, identities, statistics, vendor headers.
    Long,
    /// Odd but legal: mixed case, escapes, quoted pairs, empty parameters, Via last.
    Odd,
}

impl Layout {
    /// All layouts.
    pub const ALL: [Self; 6] = [
        Self::Plain,
        Self::Compact,
        Self::Folded,
        Self::Lists,
        Self::Long,
        Self::Odd,
    ];

    /// Vias in one request: a response must come back with as many.
    pub(super) fn via_count(self) -> usize {
        if matches!(self, Self::Lists) { 2 } else { 1 }
    }

    fn style(self) -> &'static Style {
        match self {
            Self::Plain => &PLAIN,
            Self::Compact => &COMPACT,
            Self::Folded => &FOLDED,
            Self::Lists => &LISTS,
            Self::Long => &LONG,
            Self::Odd => &ODD,
        }
    }
}

/// A row of the header section.
#[derive(Clone, Copy)]
enum Row {
    Via,
    MaxForwards,
    From,
    To,
    CallId,
    CSeq,
    Contact,
    /// Route rows and those of one request alone.
    Given,
    /// Rows that say what the user agent can do; only in requests that open a dialog.
    Features,
    /// Rows in every request.
    Always,
    ContentType,
    ContentLength,
}

struct Style {
    order: &'static [Row],
    via: &'static str,
    max_forwards: &'static str,
    from: &'static str,
    to: &'static str,
    call_id: &'static str,
    cseq: &'static str,
    contact: &'static str,
    features: &'static str,
    always: &'static str,
    content_type: &'static str,
    content_length: &'static str,
}

const COMMON_ORDER: &[Row] = &[
    Row::Via,
    Row::MaxForwards,
    Row::Given,
    Row::From,
    Row::To,
    Row::CallId,
    Row::CSeq,
    Row::Contact,
    Row::Features,
    Row::Always,
    Row::ContentType,
    Row::ContentLength,
];

const PLAIN: Style = Style {
    order: COMMON_ORDER,
    via: "Via: SIP/2.0/UDP {host}:{port};branch={branch};rport\r\n",
    max_forwards: "Max-Forwards: 70\r\n",
    from: "From: \"User {user}\" <sip:user{user}@{host}>;tag={from_tag}\r\n",
    to: "To: {to}\r\n",
    call_id: "Call-ID: {call_id}\r\n",
    cseq: "CSeq: {cseq} {method}\r\n",
    contact: "Contact: <sip:user{user}@{host}:{port}>\r\n",
    features: "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS\r\n",
    always: "",
    content_type: "Content-Type: application/sdp\r\n",
    content_length: "Content-Length: {length}\r\n",
};

const COMPACT: Style = Style {
    order: &[
        Row::Via,
        Row::ContentLength,
        Row::From,
        Row::To,
        Row::CallId,
        Row::CSeq,
        Row::MaxForwards,
        Row::Contact,
        Row::Features,
        Row::Given,
        Row::Always,
        Row::ContentType,
    ],
    via: "v:SIP/2.0/UDP {host}:{port};rport;branch={branch}\r\n",
    max_forwards: "Max-Forwards:70\r\n",
    from: "f:<sip:user{user}@{host}>;tag={from_tag}\r\n",
    to: "t:{to}\r\n",
    call_id: "i:{call_id}\r\n",
    cseq: "CSeq:{cseq} {method}\r\n",
    contact: "m:<sip:user{user}@{host}:{port}>\r\n",
    features: "k:timer,replaces\r\ns:compact\r\n",
    always: "",
    content_type: "c:application/sdp\r\n",
    content_length: "l:{length}\r\n",
};

const FOLDED: Style = Style {
    order: COMMON_ORDER,
    via: "Via: SIP / 2.0 / UDP\r\n {host}:{port}\r\n ; branch={branch}\r\n\t;rport\r\n",
    max_forwards: "Max-Forwards:\r\n 70\r\n",
    from: "From: \"Folded User {user}\"\r\n  <sip:user{user}@{host}>\r\n  ; tag={from_tag}\r\n",
    to: "To:\r\n {to}\r\n",
    call_id: "Call-ID : {call_id}\r\n",
    cseq: "CSeq:\r\n {cseq}\r\n {method}\r\n",
    contact: "Contact:\r\n <sip:user{user}@{host}:{port}>\r\n",
    features: "Subject: a call whose subject\r\n goes over\r\n\tthree lines\r\n\
        Supported: timer,\r\n replaces\r\n",
    always: "",
    content_type: "Content-Type: application/sdp\r\n",
    content_length: "Content-Length:\r\n {length}\r\n",
};

const LISTS: Style = Style {
    order: &[
        Row::From,
        Row::To,
        Row::Via,
        Row::CallId,
        Row::CSeq,
        Row::MaxForwards,
        Row::Given,
        Row::Contact,
        Row::Features,
        Row::Always,
        Row::ContentLength,
        Row::ContentType,
    ],
    via: "Via: SIP/2.0/UDP {host}:{port};branch={branch};rport, \
        SIP/2.0/TCP edge{user}.example.com:5062;branch=z9hG4bKedge{from_tag};received={host}\r\n",
    max_forwards: "Max-Forwards: 69\r\n",
    from: "From: <sip:user{user}@{host};user=phone>;tag={from_tag};epid=0a\r\n",
    to: "To: {to}\r\n",
    call_id: "Call-ID: {call_id}\r\n",
    cseq: "CSeq: {cseq} {method}\r\n",
    contact: "Contact: \"Lists, and more\" <sip:user{user}@{host}:{port};ob>\r\n",
    features: "Accept: application/sdp, application/dtmf-relay;q=0.5, text/plain\r\n\
        Accept-Language: da, en-gb;q=0.8, en;q=0.7\r\n\
        Allow: INVITE,ACK,CANCEL,BYE,OPTIONS,INFO,UPDATE,PRACK,REFER,NOTIFY,MESSAGE\r\n\
        Supported: timer, 100rel, replaces, norefersub, gruu\r\n\
        P-Asserted-Identity: \"User, {user}\" <sip:user{user}@{host}>, <tel:+4530{user}>\r\n\
        History-Info: <sip:first@example.com>;index=1, <sip:second@example.com>;index=1.1\r\n",
    always: "",
    content_type: "Content-Type: application/sdp\r\n",
    content_length: "Content-Length: {length}\r\n",
};

const LONG: Style = Style {
    order: COMMON_ORDER,
    via: "Via: SIP/2.0/UDP {host}:{port};branch={branch};rport;alias\r\n",
    max_forwards: "Max-Forwards: 70\r\n",
    from: "From: \"Front Desk {user}\" <sip:user{user}@{host}>;tag={from_tag}\r\n",
    to: "To: {to}\r\n",
    call_id: "Call-ID: {call_id}\r\n",
    cseq: "CSeq: {cseq} {method}\r\n",
    contact: "Contact: \"Front Desk {user}\" <sip:user{user}@{host}:{port}>\
        ;+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-{from_tag}>\"\r\n",
    features: "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, REFER, NOTIFY, \
        SUBSCRIBE, MESSAGE, PUBLISH\r\n\
        Supported: replaces, 100rel, timer, norefersub, join, path, outbound, gruu\r\n\
        Accept: application/sdp\r\n\
        Accept-Language: en\r\n\
        Allow-Events: talk, hold, conference, refer, check-sync\r\n\
        Session-Expires: 1800;refresher=uac\r\n\
        Min-SE: 90\r\n\
        P-Preferred-Identity: \"Front Desk {user}\" <sip:user{user}@{host}>\r\n\
        X-Line: 1\r\n\
        X-Serial: 0004F2{from_tag}\r\n",
    always: "User-Agent: Desk-Phone-670/4.0.11.0583 (en_GB)\r\n",
    content_type: "Content-Type: application/sdp\r\nContent-Disposition: session\r\n",
    content_length: "Content-Length: {length}\r\n",
};

const ODD: Style = Style {
    order: &[
        Row::MaxForwards,
        Row::To,
        Row::From,
        Row::Contact,
        Row::CSeq,
        Row::CallId,
        Row::Given,
        Row::Always,
        Row::Features,
        Row::ContentType,
        Row::ContentLength,
        Row::Via,
    ],
    via: "vIa:  sip/2.0/udp {host}:{port};RPORT;x=\"q;\\\"q\";bRaNcH={branch}\r\n",
    max_forwards: "max-forwards: 0068\r\n",
    from: "FROM: \"\\\"Odd\\\" \\\\ <user>, {user}\" <sip:us%65r{user}@{host}>;TAG={from_tag}\r\n",
    to: "tO: {to}\r\n",
    call_id: "cAlL-iD: {call_id}\r\n",
    cseq: "cseq: {cseq} {method}\r\n",
    contact: "m: sip:us%65r{user}@{host}:{port}\r\n",
    features: "Subject:\r\nUnknown-Header: $%&/()=?{;,\"\"<>\r\nORGANIZATION: \u{e9}tudes\r\n",
    always: "",
    content_type: "CONTENT-TYPE: Application/SDP;charset=\"x\"\r\n",
    content_length: "content-LENGTH: {length}\r\n",
};

const SDP: &str = "v=0\r\no=- 1 1 IN {family} {address}\r\ns=-\r\nc=IN {family} {address}\r\nt=0 0\r\n\
    m=audio 49172 RTP/AVP 8 0 101\r\na=rtpmap:101 telephone-event/8000\r\n";

/// A session description of `ip`, filled up to `len` bytes if it is shorter.
pub(super) fn session_description(ip: IpAddr, len: Option<usize>) -> Vec<u8> {
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    let mut body = SDP
        .replace("{family}", family)
        .replace("{address}", &ip.to_string())
        .into_bytes();
    const PAD: &[u8] = b"a=x-pad:";
    const LINE_LEN: usize = 72;
    while let Some(room) = len.and_then(|len| len.checked_sub(body.len() + PAD.len() + 2)) {
        // What would be too short for another line lengthens the last one.
        let rest = room.saturating_sub(LINE_LEN);
        let fill = if rest < PAD.len() + 2 { room } else { LINE_LEN };
        body.extend_from_slice(PAD);
        body.resize(body.len() + fill, b'x');
        body.extend_from_slice(b"\r\n");
    }
    body
}

/// Which rows a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Opens a dialog, or stands alone with a body: INVITE, MESSAGE.
    Opening,
    /// Stands alone without a body: OPTIONS, REGISTER.
    Alone,
    /// Inside a dialog, and renews the remote target: INVITE, UPDATE.
    Refreshing,
    /// Inside a dialog otherwise, and ACK and CANCEL.
    Following,
}

const SHAPES: [Shape; 4] = [
    Shape::Opening,
    Shape::Alone,
    Shape::Refreshing,
    Shape::Following,
];

impl Shape {
    fn text(self, style: &Style) -> String {
        let opens = matches!(self, Self::Opening | Self::Alone);
        let mut text = String::from("{method} {uri} SIP/2.0\r\n");
        for row in style.order {
            text.push_str(match row {
                Row::Via => style.via,
                Row::MaxForwards => style.max_forwards,
                Row::From => style.from,
                Row::To => style.to,
                Row::CallId => style.call_id,
                Row::CSeq => style.cseq,
                Row::Given => "{routes}{rows}",
                Row::Contact if self == Self::Following => "",
                Row::Contact => style.contact,
                Row::Features if !opens => "",
                Row::Features => style.features,
                Row::Always => style.always,
                Row::ContentType if self != Self::Opening => "",
                Row::ContentType => style.content_type,
                Row::ContentLength => style.content_length,
            });
        }
        text.push_str("\r\n{body}");
        text
    }
}

/// One request to be written. What stands here differs from request to request of a call; the rest
/// follows from the call's number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) shape: Shape,
    pub(super) method: &'a str,
    pub(super) uri: &'a [u8],
    /// The value of To, with its tag once there is one.
    pub(super) to: &'a [u8],
    pub(super) cseq: u32,
    /// Number of the transaction in its call: its branch.
    pub(super) transaction: u16,
    /// Route rows, each with CRLF.
    pub(super) routes: &'a [u8],
    /// Further rows, each with CRLF.
    pub(super) rows: &'a [u8],
    pub(super) key: CallKey,
    /// Place of the source among the scenario's.
    pub(super) source: usize,
}

/// Writes the messages of a run.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) identity: Identity,
    layouts: Vec<(Layout, [Template; SHAPES.len()])>,
    sources: Vec<Source>,
    users: u64,
}

#[derive(Clone, Debug)]
struct Source {
    /// Without brackets.
    ip: Vec<u8>,
    host: Vec<u8>,
    port: Vec<u8>,
    body: Vec<u8>,
}

impl Scenario {
    /// Messages in these layouts from these sources; `body_len` lengthens the session descriptions.
    pub(super) fn new(
        identity: Identity,
        layouts: &[Layout],
        sources: &[SocketAddr],
        users: u64,
        body_len: Option<usize>,
    ) -> Self {
        let layouts = if layouts.is_empty() {
            &Layout::ALL
        } else {
            layouts
        };
        let compile = |layout: &Layout| {
            let templates = SHAPES.map(|shape| Template::compile(&shape.text(layout.style())));
            (*layout, templates)
        };
        let source = |address: &SocketAddr| Source {
            ip: address.ip().to_string().into_bytes(),
            host: match address.ip() {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            }
            .into_bytes(),
            port: address.port().to_string().into_bytes(),
            body: session_description(address.ip(), body_len),
        };
        Self {
            identity,
            layouts: layouts.iter().map(compile).collect(),
            sources: sources.iter().map(source).collect(),
            users: users.max(1),
        }
    }

    /// The layout of a call.
    pub(super) fn layout(&self, serial: u64) -> Layout {
        self.pick(serial).0
    }

    /// The user number of a call.
    pub(super) fn user(&self, serial: u64) -> u64 {
        serial % self.users
    }

    fn pick(&self, serial: u64) -> &(Layout, [Template; SHAPES.len()]) {
        let count = u64::try_from(self.layouts.len()).unwrap_or(1).max(1);
        let place = usize::try_from(self.identity.pick(serial) % count).unwrap_or(0);
        &self.layouts[place]
    }

    /// Appends a request.
    pub(super) fn write(&self, request: &Request<'_>, out: &mut Vec<u8>) {
        let Some(source) = self.sources.get(request.source) else {
            return;
        };
        let serial = request.key.serial;
        let body: &[u8] = match request.shape {
            Shape::Opening => &source.body,
            _ => &[],
        };
        let template = &self.pick(serial).1[request.shape as usize];
        template.render(out, |field, out| match field {
            Field::Rows => out.extend_from_slice(request.rows),
            Field::Body => out.extend_from_slice(body),
            Field::Branch => self.identity.write_branch(serial, request.transaction, out),
            Field::CallId => self.identity.write_call_id(request.key, &source.ip, out),
            Field::CSeq => write_decimal(request.cseq.into(), out),
            Field::FromTag => out.extend_from_slice(&self.identity.tag(serial)),
            Field::Host => out.extend_from_slice(&source.host),
            Field::Length => write_decimal(u64::try_from(body.len()).unwrap_or(0), out),
            Field::Method => out.extend_from_slice(request.method.as_bytes()),
            Field::Port => out.extend_from_slice(&source.port),
            Field::Routes => out.extend_from_slice(request.routes),
            Field::To => out.extend_from_slice(request.to),
            Field::Uri => out.extend_from_slice(request.uri),
            Field::User => write_decimal(self.user(serial), out),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::sip::{HeaderName, Message, Method, NameAddr};

    fn scenario(layouts: &[Layout], body_len: Option<usize>) -> Scenario {
        let sources = ["198.18.0.10:5060", "[2001:db8::10]:5062"].map(|text| text.parse().unwrap());
        Scenario::new(Identity::new(3, "t-"), layouts, &sources, 1000, body_len)
    }

    fn request(shape: Shape, method: &'static str, serial: u64, source: usize) -> Request<'static> {
        Request {
            shape,
            method,
            uri: b"sip:service@198.18.0.1",
            to: b"<sip:service@198.18.0.1>;tag=x~1",
            cseq: 7,
            transaction: 7,
            routes: b"Route: <sip:198.18.0.1;lr>\r\n",
            rows: b"Expires: 60\r\n",
            key: CallKey { serial, index: 5 },
            source,
        }
    }

    fn methods(shape: Shape) -> &'static [&'static str] {
        match shape {
            Shape::Opening => &["INVITE", "MESSAGE"],
            Shape::Alone => &["OPTIONS", "REGISTER"],
            Shape::Refreshing => &["INVITE", "UPDATE"],
            Shape::Following => &["ACK", "BYE", "CANCEL", "INFO"],
        }
    }

    #[test]
    fn every_layout_writes_legal_requests_that_say_the_same() {
        for layout in Layout::ALL {
            let scenario = scenario(&[layout], None);
            for shape in SHAPES {
                for (method, source) in methods(shape).iter().flat_map(|m| [(*m, 0), (*m, 1)]) {
                    let mut bytes = Vec::new();
                    scenario.write(&request(shape, method, 77, source), &mut bytes);
                    let text = String::from_utf8_lossy(&bytes);
                    let mut message = Message::new();
                    let parsed = message.parse(&bytes);
                    assert_eq!(parsed, Ok(()), "{layout:?} {shape:?}:\n{text}");
                    assert_eq!(message.method(), Method::parse(method.as_bytes()));
                    let cseq = message.cseq().unwrap();
                    assert_eq!((cseq.number, cseq.method), (7, message.method()));
                    let identity = &scenario.identity;
                    let call_id = message.call_id().unwrap().of(&bytes);
                    let key = CallKey {
                        serial: 77,
                        index: 5,
                    };
                    assert_eq!(identity.read_call_id(call_id), Some(key));
                    assert_eq!(message.from_tag().unwrap().of(&bytes), identity.tag(77));
                    assert_eq!(message.to_tag().unwrap().of(&bytes), b"x~1");
                    let via = message.top_via().unwrap();
                    assert!(via.transport.is_udp() && via.rport.is_some());
                    assert!(identity.is_branch(via.branch.unwrap().of(&bytes), 77, 7));
                    let ip = core::str::from_utf8(&scenario.sources[source].ip).unwrap();
                    let ip: IpAddr = ip.parse().unwrap();
                    assert_eq!(via.host.ip(), Some(ip));
                    assert_eq!(message.vias(&bytes).count(), layout.via_count());
                    assert!(message.vias(&bytes).all(|via| via.is_ok()));
                    assert!(message.max_forwards().unwrap().value >= Some(68));
                    for name in [HeaderName::Route, HeaderName::Expires] {
                        assert_eq!(message.rows(name).count(), 1);
                    }
                    // RFC 3261 §8.1.1.8, §12.1.2: Contact where the remote target is given.
                    let contact = message.first(HeaderName::Contact);
                    assert_eq!(contact.is_some(), shape != Shape::Following);
                    if let Some(contact) = contact {
                        let contact = NameAddr::parse(&bytes, contact.value).unwrap();
                        assert_eq!(contact.uri.host.and_then(|host| host.ip()), Some(ip));
                    }
                    let (_, length) = message.content_length().unwrap();
                    let body = message.body().of(&bytes);
                    assert_eq!((length, message.message_end()), (body.len(), bytes.len()));
                    assert_eq!(body.is_empty(), shape != Shape::Opening);
                    let has_type = message.has(HeaderName::ContentType);
                    assert_eq!(has_type, shape == Shape::Opening);
                }
            }
        }
    }

    #[test]
    fn layouts_differ_and_take_turns() {
        let scenario = scenario(&[], None);
        let seen: HashSet<Layout> = (0..200).map(|serial| scenario.layout(serial)).collect();
        assert_eq!(seen.len(), Layout::ALL.len());
        let texts: HashSet<String> = Layout::ALL
            .iter()
            .map(|layout| Shape::Opening.text(layout.style()))
            .collect();
        assert_eq!(texts.len(), Layout::ALL.len());
        // The short one and the long one are what they say.
        let len = |layout: Layout| Shape::Opening.text(layout.style()).len();
        assert!(
            Layout::ALL
                .iter()
                .all(|other| len(Layout::Compact) <= len(*other))
        );
        assert!(
            Layout::ALL
                .iter()
                .all(|other| len(Layout::Long) >= len(*other))
        );
    }

    /// An Ethernet frame holds 1,472 bytes of datagram; what a proxy adds must fit beside it.
    #[test]
    fn no_layout_is_longer_than_a_frame_with_room_to_grow() {
        for layout in Layout::ALL {
            let mut bytes = Vec::new();
            let scenario = scenario(&[layout], None);
            scenario.write(&request(Shape::Opening, "INVITE", 999, 1), &mut bytes);
            assert!(bytes.len() + 240 <= 1452, "{layout:?}: {}", bytes.len());
        }
    }

    #[test]
    fn a_body_has_the_length_asked_for() {
        let ip: IpAddr = [198, 18, 0, 10].into();
        let shortest = session_description(ip, None).len();
        for len in [0, shortest, shortest + 9, shortest + 10, 300, 2500, 60_000] {
            let body = session_description(ip, Some(len));
            let expected = if len < shortest + 10 { shortest } else { len };
            assert_eq!(body.len(), expected);
            assert!(body.ends_with(b"\r\n"));
            assert!(
                body.split(|byte| *byte == b'\n')
                    .all(|line| line.len() <= 160)
            );
        }
        let of_ipv6 = session_description("2001:db8::1".parse().unwrap(), None);
        assert!(of_ipv6.windows(13).any(|text| text == b"c=IN IP6 2001"));
    }
}
