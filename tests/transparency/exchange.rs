//! Requests and their answers through one balancer in both directions, each message held against
//! the transparency test.
#![allow(unreachable_pub, reason = "shared by the modules of one test binary")]

use std::net::SocketAddr;

use crate::fixture::*;
use crate::transparency::{self, Facts, Parts, Row};

/// A configuration with its places: client, server, and our address towards either.
pub struct Stage {
    pub lab: Lab,
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub outside: SocketAddr,
    pub farm: SocketAddr,
}

impl Stage {
    pub fn new(config: &str, client: &str) -> Self {
        let lab = Lab::new(config);
        let server = lab.plan.servers()[0].address;
        let listeners = lab.plan.listeners();
        let outside = listeners[0].address;
        let armed = listeners.len() > 1 && listeners[1].side == viaduct::config::Side::Farm;
        let farm = listeners[usize::from(armed)].address;
        Self {
            client: client.parse().unwrap(),
            server,
            outside,
            farm,
            lab,
        }
    }

    pub fn one_armed() -> Self {
        Self::new(ONE_ARMED, CLIENT)
    }

    pub fn two_armed() -> Self {
        Self::new(TWO_ARMED, CLIENT)
    }

    /// One address, two networks, two address families, IPv6 alone.
    pub fn all() -> [Self; 4] {
        [
            Self::one_armed(),
            Self::two_armed(),
            Self::new(FAMILIES, CLIENT),
            Self::new(IPV6, "[2001:db8::7]:5060"),
        ]
    }

    fn facts(&self, source: SocketAddr, record_routes: usize) -> Facts {
        let listeners = self.lab.plan.listeners();
        Facts {
            source,
            own: listeners.iter().map(|listener| listener.address).collect(),
            names: vec![
                "sip.lab.example".to_owned(),
                "services.example.com".to_owned(),
            ],
            record_routes,
            max_breadth: 60,
        }
    }

    /// A request through us, three times: the same bytes to the same place, and nothing of it
    /// changed but what a proxy may change.
    #[track_caller]
    pub fn request(&mut self, bytes: &[u8], from: SocketAddr, to: SocketAddr) -> Sent {
        let sent = self.lab.deliver(bytes, from, to).sent();
        assert!(
            !sent.bytes.starts_with(b"SIP/2.0 "),
            "answered:\n{}\nto:\n{}",
            text(&sent.bytes),
            text(bytes)
        );
        for _ in 0..2 {
            assert_eq!(self.lab.deliver(bytes, from, to).sent(), sent);
        }
        let arms = if sent.from == to { 1 } else { 2 };
        let method = start_line(bytes).split(' ').next().unwrap().to_owned();
        let record_routes = if is_recorded(&method) { arms } else { 0 };
        let facts = self.facts(from, record_routes);
        if let Err(difference) = transparency::request(bytes, &sent.bytes, &facts) {
            panic!("{difference}\nin\n{}", text(&sent.bytes));
        }
        sent
    }

    #[track_caller]
    pub fn client_sends(&mut self, bytes: &[u8]) -> Sent {
        let (client, outside) = (self.client, self.outside);
        let sent = self.request(bytes, client, outside);
        let servers = self.lab.plan.servers();
        assert!(
            servers.iter().any(|server| server.address == sent.to),
            "to {}, no server",
            sent.to
        );
        sent
    }

    #[track_caller]
    pub fn server_sends(&mut self, bytes: &[u8], server: SocketAddr) -> Sent {
        let farm = self.farm;
        let sent = self.request(bytes, server, farm);
        assert_eq!(sent.to, self.client);
        sent
    }

    /// A response through us, three times: each copy forwarded at once, to the request's sender.
    #[track_caller]
    pub fn response(&mut self, bytes: &[u8], of: &Sent) -> Sent {
        let sent = self.lab.reply(bytes, of).sent();
        for _ in 0..2 {
            assert_eq!(self.lab.reply(bytes, of).sent(), sent);
        }
        let facts = self.facts(of.to, 0);
        if let Err(difference) = transparency::response(bytes, &sent.bytes, &facts) {
            panic!("{difference}\nin\n{}", text(&sent.bytes));
        }
        sent
    }
}

/// RFC 3261 §16.6 step 4, RFC 6665 §4.3: what may make or renew a dialog.
fn is_recorded(method: &str) -> bool {
    let never = [
        "ACK", "BYE", "CANCEL", "MESSAGE", "OPTIONS", "PUBLISH", "REGISTER",
    ];
    !never.contains(&method)
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Outside any dialog.
    Alone,
    /// Inside a dialog that a provisional response made.
    Early,
    /// Inside a dialog that a 200 made.
    Dialog,
}

/// A response: its status and what it says beyond what it copies from the request.
#[derive(Clone, Debug)]
pub struct Answer {
    status: String,
    rows: Vec<String>,
    body: Vec<u8>,
}

/// A request with its answers, to be sent in both directions over every configuration.
#[derive(Clone, Debug)]
pub struct Exchange {
    method: String,
    /// User part and parameters of a SIP URI, or a whole URI of another scheme.
    uri: String,
    via: String,
    from: String,
    to: String,
    contact: Option<String>,
    cseq: u32,
    place: Place,
    rows: Vec<String>,
    body: Vec<u8>,
    answers: Vec<Answer>,
}

/// A request outside a dialog.
pub fn exchange(method: &str) -> Exchange {
    Exchange {
        method: method.to_owned(),
        uri: "bob".to_owned(),
        via: String::new(),
        from: "Alice <sip:alice@client.example>".to_owned(),
        to: "Bob <sip:bob@sip.lab.example>".to_owned(),
        contact: None,
        cseq: 7,
        place: Place::Alone,
        rows: Vec::new(),
        body: Vec::new(),
        answers: Vec::new(),
    }
}

impl Exchange {
    /// Inside a dialog.
    pub fn in_dialog(mut self) -> Self {
        self.place = Place::Dialog;
        self
    }

    /// Inside an early dialog.
    pub fn in_early_dialog(mut self) -> Self {
        self.place = Place::Early;
        self
    }

    /// User part and parameters of the Request-URI (`bob;gr=1`), or a whole URI (`tel:+1`).
    pub fn uri(mut self, uri: &str) -> Self {
        self.uri = uri.to_owned();
        self
    }

    /// More parameters of the sender's own Via.
    pub fn via(mut self, params: &str) -> Self {
        self.via = params.to_owned();
        self
    }

    pub fn cseq(mut self, cseq: u32) -> Self {
        self.cseq = cseq;
        self
    }

    pub fn from(mut self, from: &str) -> Self {
        self.from = from.to_owned();
        self
    }

    pub fn contact(mut self, contact: &str) -> Self {
        self.contact = Some(contact.to_owned());
        self
    }

    /// A header row of the request, without its line end.
    pub fn row(mut self, row: &str) -> Self {
        self.rows.push(row.to_owned());
        self
    }

    pub fn rows(mut self, rows: &[&str]) -> Self {
        self.rows.extend(rows.iter().map(|row| (*row).to_owned()));
        self
    }

    /// The body of the request and its type.
    pub fn body(mut self, kind: &str, body: impl AsRef<[u8]>) -> Self {
        self.rows.push(format!("Content-Type: {kind}"));
        self.body = body.as_ref().to_vec();
        self
    }

    /// The body of the request, its type among the rows.
    pub fn plain_body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    /// A status line's code and phrase, and what the answer has of its own.
    pub fn answer(self, status: &str, rows: &[&str]) -> Self {
        self.answer_with(status, rows, b"")
    }

    pub fn answer_with(mut self, status: &str, rows: &[&str], body: &[u8]) -> Self {
        self.answers.push(Answer::new(status, rows, body));
        self
    }

    /// Sends it from client to server and from server to client, over every configuration.
    #[track_caller]
    pub fn check(&self) {
        assert!(!self.answers.is_empty(), "an exchange has answers");
        for (number, mut stage) in Stage::all().into_iter().enumerate() {
            let call_id = format!("exchange-{number}");
            let dialog = self.dialog(&mut stage, &call_id);

            let routes: Vec<String> = dialog.routes.iter().rev().cloned().collect();
            let host = if self.place == Place::Alone {
                "sip.lab.example".to_owned()
            } else {
                dialog.server.to_string()
            };
            let bytes = self.bytes(stage.client, &host, &call_id, &routes);
            let sent = stage.client_sends(&bytes);
            if self.place != Place::Alone {
                assert_eq!(sent.to, dialog.server, "the server of the dialog");
            }
            self.answer_all(&mut stage, &bytes, &sent);

            let (mut routes, client) = (dialog.routes, stage.client);
            if self.is_whole_uri() && self.place == Place::Alone {
                // Only a Route says where a request to such a URI goes.
                routes.push(format!("<sip:{client};lr>"));
            }
            let call_id = if self.place == Place::Alone {
                format!("reverse-{number}")
            } else {
                call_id
            };
            let bytes = self.bytes(dialog.server, &client.to_string(), &call_id, &routes);
            let sent = stage.server_sends(&bytes, dialog.server);
            self.answer_all(&mut stage, &bytes, &sent);
        }
    }

    fn is_whole_uri(&self) -> bool {
        self.uri.contains(':') && !self.uri.contains("gr=urn:")
    }

    #[track_caller]
    fn answer_all(&self, stage: &mut Stage, request: &[u8], sent: &Sent) {
        for row in &self.rows {
            let row = format!("\r\n{row}\r\n");
            assert!(contains(&sent.bytes, row.as_bytes()), "{row}");
        }
        assert!(
            sent.bytes
                .ends_with(&[b"\r\n\r\n", &self.body[..]].concat())
        );
        for answer in &self.answers {
            let bytes = answer.bytes(&sent.bytes, sent.to);
            let back = stage.response(&bytes, sent);
            let (_, peer) = via_of(request);
            assert_eq!(back.to, peer);
            for row in &answer.rows {
                assert!(contains(&back.bytes, format!("\r\n{row}\r\n").as_bytes()));
            }
            assert!(back.bytes.ends_with(&answer.body));
        }
    }

    /// The bytes of the request as one side sends it.
    pub fn bytes(
        &self,
        sender: SocketAddr,
        host: &str,
        call_id: &str,
        routes: &[String],
    ) -> Vec<u8> {
        let method = &self.method;
        let uri = if self.is_whole_uri() {
            self.uri.clone()
        } else {
            let (user, params) = self.uri.split_once(';').unwrap_or((&self.uri, ""));
            let at = if user.is_empty() { "" } else { "@" };
            let semicolon = if params.is_empty() { "" } else { ";" };
            format!("sip:{user}{at}{host}{semicolon}{params}")
        };
        let contact = match &self.contact {
            Some(contact) => contact.clone(),
            None => format!("<sip:sender@{sender}>"),
        };
        let tag = if self.place == Place::Alone {
            ""
        } else {
            ";tag=b1"
        };
        let mut rows = vec![
            format!("{method} {uri} SIP/2.0"),
            format!(
                "Via: SIP/2.0/UDP {sender};branch=z9hG4bKex{}{}",
                self.cseq, self.via
            ),
            "X-First:  kept , as it is ".to_owned(),
            "Max-Forwards: 70".to_owned(),
        ];
        rows.extend(routes.iter().map(|route| format!("Route: {route}")));
        rows.extend([
            format!("From: {};tag=a1", self.from),
            format!("To: {}{tag}", self.to),
            format!("Call-ID: {call_id}"),
            format!("CSeq: {} {method}", self.cseq),
            format!("Contact: {contact}"),
        ]);
        rows.extend(self.rows.iter().cloned());
        rows.push("x-last: \"a, b\";c=<d>".to_owned());
        rows.push(format!("Content-Length: {}", self.body.len()));
        let head = rows.join("\r\n") + "\r\n\r\n";
        [head.as_bytes(), &self.body].concat()
    }

    /// The dialog that the request stands in; outside of one, a server and no route set.
    #[track_caller]
    fn dialog(&self, stage: &mut Stage, call_id: &str) -> Route {
        let status = match self.place {
            Place::Alone => {
                return Route {
                    server: stage.server,
                    routes: Vec::new(),
                };
            }
            Place::Early => "183 Session Progress",
            Place::Dialog => "200 OK",
        };
        set_up(stage, call_id, status)
    }
}

/// What both sides of a dialog know: the server, and the route set in the order of the response.
pub struct Route {
    pub server: SocketAddr,
    pub routes: Vec<String>,
}

impl Route {
    /// As the caller holds it.
    pub fn of_caller(&self) -> Vec<String> {
        self.routes.iter().rev().cloned().collect()
    }
}

/// INVITE of the client and the server's response with a To tag.
#[track_caller]
pub fn set_up(stage: &mut Stage, call_id: &str, status: &str) -> Route {
    let invite = exchange("INVITE").bytes(stage.client, "sip.lab.example", call_id, &[]);
    let sent = stage.client_sends(&invite);
    let answer = Answer::new(status, &[], b"");
    let back = stage.response(&answer.bytes(&sent.bytes, sent.to), &sent);
    Route {
        server: sent.to,
        routes: rows(&back.bytes, "Record-Route"),
    }
}

impl Answer {
    pub fn new(status: &str, rows: &[&str], body: &[u8]) -> Self {
        Self {
            status: status.to_owned(),
            rows: rows.iter().map(|row| (*row).to_owned()).collect(),
            body: body.to_vec(),
        }
    }

    /// RFC 3261 §8.2.6.2: what a response copies, then its own rows.
    pub fn bytes(&self, request: &[u8], sender: SocketAddr) -> Vec<u8> {
        let request = Parts::of(request);
        let mut parts = Parts {
            start: format!("SIP/2.0 {}", self.status).into_bytes(),
            rows: Vec::new(),
            body: self.body.clone(),
        };
        let copied = ["via", "record-route", "from", "to", "call-id", "cseq"];
        for row in request.rows {
            let untagged = row.name == "to" && !contains(&row.bytes, b";tag=");
            if untagged && !self.status.starts_with("100") {
                let line = text(&row.bytes).trim_end().to_owned();
                parts.rows.push(Row::new(&format!("{line};tag=b1")));
            } else if copied.contains(&row.name.as_str()) {
                parts.rows.push(row);
            }
        }
        let own = [
            "X-First:  kept , as it is ".to_owned(),
            format!("Contact: <sip:bob@{sender}>"),
        ];
        for row in own.iter().chain(&self.rows) {
            parts.rows.push(Row::new(row));
        }
        let length = format!("Content-Length: {}", self.body.len());
        parts.rows.push(Row::new(&length));
        parts.bytes()
    }
}

/// The sender of a message built here, read from its own Via.
fn via_of(request: &[u8]) -> (String, SocketAddr) {
    let via = rows(request, "Via").remove(0);
    let sent_by = via.split([' ', ';']).nth(1).unwrap().parse().unwrap();
    (via, sent_by)
}

pub fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Parts of a multipart body: headers and content of each.
pub fn multipart(boundary: &str, parts: &[(&[&str], &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (rows, content) in parts {
        body.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        for row in *rows {
            body.extend_from_slice(format!("{row}\r\n").as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    body
}

/// Bytes that break what reads a body as text: NUL, 0xFF, empty lines, a request line, all octets.
pub fn binary(len: usize) -> Vec<u8> {
    let mut bytes = b"\x00\xff\r\n\r\nINVITE sip:x@y SIP/2.0\r\nVia: z\r\n\r\n\n\n\x00".to_vec();
    let more = (0..).map(|number: usize| u8::try_from(number * 31 % 256).unwrap());
    bytes.extend(more.take(len.saturating_sub(bytes.len())));
    bytes
}

/// An offer.
pub const SDP: &[u8] = b"v=0\r\no=a 1 1 IN IP4 198.18.200.7\r\ns=-\r\nc=IN IP4 198.18.200.7\r\n\
    t=0 0\r\nm=audio 49172 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n";
