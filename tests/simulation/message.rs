//! SIP as the endpoints of the simulation speak and read it.
//!
//! Reads with code of its own: a mistake of the library's parser must not hide itself.

use std::io::Write as _;
use std::net::SocketAddr;

use memchr::memchr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Invite,
    Ack,
    Cancel,
    Bye,
    Options,
    Other,
}

impl Method {
    fn of(text: &[u8]) -> Self {
        match text {
            b"INVITE" => Self::Invite,
            b"ACK" => Self::Ack,
            b"CANCEL" => Self::Cancel,
            b"BYE" => Self::Bye,
            b"OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Cancel => "CANCEL",
            Self::Bye => "BYE",
            Self::Options => "OPTIONS",
            Self::Other => "?",
        }
    }
}

/// What the simulation wants to know of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) bytes: &'a [u8],
    /// 0 for a request.
    pub(crate) status: u16,
    /// Of the CSeq.
    pub(crate) method: Method,
    /// Branch of the first `Via`.
    pub(crate) branch: &'a [u8],
    /// Branch of the second `Via`.
    pub(crate) below: &'a [u8],
    pub(crate) vias: usize,
    pub(crate) from_tag: &'a [u8],
    pub(crate) to_tag: &'a [u8],
    /// The number that the Call-ID begins with.
    pub(crate) call: Option<usize>,
    pub(crate) cseq: u32,
}

/// Rows of a message's head: name and value.
fn rows(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = memchr(b'\n', bytes).map_or(&[][..], |at| &bytes[at + 1..]);
    std::iter::from_fn(move || {
        let end = memchr(b'\n', rest)?;
        let line = rest[..end].trim_ascii_end();
        rest = &rest[end + 1..];
        let colon = memchr(b':', line)?;
        Some((line[..colon].trim_ascii(), line[colon + 1..].trim_ascii()))
    })
}

fn number(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    let (value, len) = digits.fold((0, 0), |(value, len), digit| {
        (value * 10 + usize::from(digit - b'0'), len + 1)
    });
    (len > 0).then_some(value)
}

/// A parameter of a `Via`, From or To value.
fn parameter<'a>(value: &'a [u8], name: &[u8]) -> &'a [u8] {
    let mut rest = value;
    while let Some(at) = memchr(b';', rest) {
        rest = &rest[at + 1..];
        if rest.len() > name.len() && rest.starts_with(name) && rest[name.len()] == b'=' {
            let text = &rest[name.len() + 1..];
            return &text[..memchr(b';', text).unwrap_or(text.len())];
        }
    }
    &[]
}

impl<'a> View<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Option<Self> {
        let mut view = Self {
            bytes,
            status: 0,
            method: Method::Other,
            branch: &[],
            below: &[],
            vias: 0,
            from_tag: &[],
            to_tag: &[],
            call: None,
            cseq: 0,
        };
        if let Some(rest) = bytes.strip_prefix(b"SIP/2.0 ") {
            view.status = number(rest).and_then(|status| u16::try_from(status).ok())?;
        } else if !bytes.first()?.is_ascii_uppercase() {
            return None;
        }
        for (name, value) in rows(bytes) {
            if name.eq_ignore_ascii_case(b"via") {
                view.vias += 1;
                match view.vias {
                    1 => view.branch = parameter(value, b"branch"),
                    2 => view.below = parameter(value, b"branch"),
                    _ => {}
                }
            } else if name.eq_ignore_ascii_case(b"from") {
                view.from_tag = parameter(value, b"tag");
            } else if name.eq_ignore_ascii_case(b"to") {
                view.to_tag = parameter(value, b"tag");
            } else if name.eq_ignore_ascii_case(b"call-id") {
                view.call = number(value);
            } else if name.eq_ignore_ascii_case(b"cseq") {
                view.cseq = u32::try_from(number(value)?).ok()?;
                let at = memchr(b' ', value)?;
                view.method = Method::of(value[at..].trim_ascii());
            }
        }
        Some(view)
    }

    pub(crate) fn is_request(&self) -> bool {
        self.status == 0
    }

    pub(crate) fn is_acceptance(&self) -> bool {
        (200..300).contains(&self.status) && self.method == Method::Invite
    }

    /// Method and status for people.
    pub(crate) fn what(&self) -> String {
        let method = self.method.as_str();
        match self.status {
            0 => method.to_owned(),
            status => format!("{status} ({method})"),
        }
    }

    /// Values of all rows of this name, in order.
    pub(crate) fn values(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        rows(self.bytes)
            .filter(move |(of, _)| of.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// The URI in the Contact.
    pub(crate) fn contact(&self) -> &'a [u8] {
        let value = self.values("contact").next().unwrap_or_default();
        let start = memchr(b'<', value).map_or(0, |at| at + 1);
        let end = memchr(b'>', value).unwrap_or(value.len());
        value.get(start..end).unwrap_or_default()
    }
}

/// A hash to tell texts apart, not to keep secrets.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mix =
        |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let chunks = bytes.chunks_exact(8);
    let tail = chunks.remainder();
    let hash = chunks.fold(bytes.len() as u64, |hash, chunk| {
        mix(
            hash,
            chunk
                .iter()
                .fold(0, |word, byte| word << 8 | u64::from(*byte)),
        )
    });
    mix(
        hash,
        tail.iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte)),
    )
}

/// A request of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) uri: &'a [u8],
    /// Where it is sent from: sent-by and Contact.
    pub(crate) source: SocketAddr,
    pub(crate) branch: &'a [u8],
    pub(crate) call_id: &'a str,
    pub(crate) cseq: u32,
    /// Value of From and of To.
    pub(crate) from: &'a [u8],
    pub(crate) to: &'a [u8],
    /// Rows between: Route, Authorization.
    pub(crate) rows: &'a [u8],
}

pub(crate) const BODY: &str = "v=0\r\no=- 1 1 IN IP4 198.18.200.7\r\ns=-\r\nc=IN IP4 198.18.200.7\r\n\
     t=0 0\r\nm=audio 40000 RTP/AVP 8\r\n";

impl Request<'_> {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let method = self.method.as_str();
        let body = match self.method {
            Method::Invite => BODY,
            _ => "",
        };
        let mut put = |text: &[u8]| out.extend_from_slice(text);
        put(method.as_bytes());
        put(b" ");
        put(self.uri);
        put(b" SIP/2.0\r\nVia: SIP/2.0/UDP ");
        let _ = write!(out, "{};branch=", self.source);
        let mut put = |text: &[u8]| out.extend_from_slice(text);
        put(self.branch);
        put(b"\r\nMax-Forwards: 70\r\n");
        put(self.rows);
        put(b"From: ");
        put(self.from);
        put(b"\r\nTo: ");
        put(self.to);
        let _ = write!(
            out,
            "\r\nCall-ID: {}\r\nCSeq: {} {method}\r\nContact: <sip:ua@{}>\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.call_id,
            self.cseq,
            self.source,
            body.len()
        );
    }
}

/// A response to `request`, RFC 3261 §8.2.6.2.
pub(crate) fn respond(
    out: &mut Vec<u8>,
    request: &[u8],
    status: u16,
    tag: &[u8],
    contact: SocketAddr,
    more: &str,
) {
    let _ = write!(out, "SIP/2.0 {status} {}\r\n", reason(status));
    for (name, value) in rows(request) {
        let copied: [&[u8]; 5] = [b"via", b"record-route", b"from", b"call-id", b"cseq"];
        let is_to = name.eq_ignore_ascii_case(b"to");
        if !is_to && !copied.iter().any(|of| of.eq_ignore_ascii_case(name)) {
            continue;
        }
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        if is_to && status > 100 && parameter(value, b"tag").is_empty() {
            out.extend_from_slice(b";tag=");
            out.extend_from_slice(tag);
        }
        out.extend_from_slice(b"\r\n");
    }
    let _ = write!(
        out,
        "{more}Contact: <sip:ua@{contact}>\r\nContent-Length: 0\r\n\r\n"
    );
}

fn reason(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        183 => "Session Progress",
        200 => "OK",
        302 => "Moved Temporarily",
        401 => "Unauthorized",
        407 => "Proxy Authentication Required",
        481 => "Call/Transaction Does Not Exist",
        486 => "Busy Here",
        487 => "Request Terminated",
        503 => "Service Unavailable",
        603 => "Decline",
        _ => "Reason",
    }
}
