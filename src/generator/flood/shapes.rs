//! What the requests of a flood look like: the layouts of several user agents and carriers.
//!
//! Header order, case, compact forms, blanks and lengths differ, methods too: a flood of one shape
//! would measure one path through a parser, with every branch predicted. Each text is a legal request; fields
//! stand as runs of one octet, see [`super::frames`]. The last row of a session description is the
//! place of the sending time, so that it ends the datagram.

use std::net::{IpAddr, SocketAddr};

use super::frames::{BRANCH, CALL_ID, FROM_TAG, SENT_AT, field};
use super::request::{LEN_MAX, RequestError};
use crate::generator::template::{Field, Template, write_decimal};

/// A request and the session description or text that it carries.
struct Shape {
    headers: &'static str,
    body: &'static str,
}

/// An audio call; the digits of its last row are replaced where the sending time is wanted.
const AUDIO: &str = "v=0\r\no=- 53655765 2353687637 IN {family} {host}\r\ns=-\r\nc=IN {family} {host}\r\n\
    t=0 0\r\nm=audio 6000 RTP/AVP 0\r\n";

const PLAIN: Shape = Shape {
    headers: "INVITE {uri} SIP/2.0\r\n\
        Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{branch};rport\r\n\
        Max-Forwards: 70\r\n\
        From: \"Alice\" <sip:alice@{host}>;tag={from_tag}\r\n\
        To: <{uri}>\r\n\
        Call-ID: {call_id}@{host}\r\n\
        CSeq: 1 INVITE\r\n\
        Contact: <sip:alice@{host}:{port}>\r\n\
        Content-Type: application/sdp\r\n\
        Content-Length: {length}\r\n\r\n",
    body: "v=0\r\no=alice 53655765 2353687637 IN {family} {host}\r\ns={fill}\r\nc=IN {family} {host}\r\nt=0 0\r\n\
        m=audio 6000 RTP/AVP 0\r\n",
};

/// In turn, by source. INVITEs are more than half, as where calls are most of the traffic.
const MIX: [Shape; 10] = [
    PLAIN,
    // A soft phone: Contact before Max-Forwards, a route to its proxy, what it can do.
    Shape {
        headers: "INVITE {uri} SIP/2.0\r\n\
            Via: SIP/2.0/UDP {host}:{port};rport;branch=z9hG4bKPj{branch}\r\n\
            From: <sip:1001@{host}>;tag={from_tag}\r\n\
            To: <{uri}>\r\n\
            Contact: <sip:1001@{host}:{port};ob>\r\n\
            Call-ID: {call_id}\r\n\
            CSeq: 21754 INVITE\r\n\
            Route: <{own};lr>\r\n\
            Allow: PRACK, INVITE, ACK, BYE, CANCEL, UPDATE, INFO, REFER\r\n\
            Supported: replaces, 100rel, timer\r\n\
            Max-Forwards: 70\r\n\
            Content-Type: application/sdp\r\n\
            Content-Length:   {length}\r\n\r\n",
        body: AUDIO,
    },
    // Compact forms throughout, no blank that is not needed.
    Shape {
        headers: "INVITE {uri} SIP/2.0\r\n\
            v:SIP/2.0/UDP {host}:{port};branch=z9hG4bK{branch}\r\n\
            f:<sip:bob@{host}>;tag={from_tag}\r\n\
            t:<{uri}>\r\n\
            i:{call_id}@{host}\r\n\
            CSeq:1 INVITE\r\n\
            Max-Forwards:70\r\n\
            m:<sip:bob@{host}:{port}>\r\n\
            c:application/sdp\r\n\
            l:{length}\r\n\r\n",
        body: AUDIO,
    },
    // A registration with an instance and credentials left out.
    Shape {
        headers: "REGISTER {own} SIP/2.0\r\n\
            Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK-{branch};rport\r\n\
            Max-Forwards: 70\r\n\
            To: \"1002\" <sip:1002@{host}>\r\n\
            From: \"1002\" <sip:1002@{host}>;tag={from_tag}\r\n\
            Call-ID: {call_id}\r\n\
            CSeq: 4 REGISTER\r\n\
            Contact: <sip:1002@{host}:{port};transport=udp>;expires=600\r\n\
            Allow-Events: presence, message-summary\r\n\
            User-Agent: deskphone 8.5\r\n\
            Content-Length: 0\r\n\r\n",
        body: "",
    },
    // A carrier's trunk: the caller's identity, Call-ID late, no rport.
    Shape {
        headers: "INVITE {uri} SIP/2.0\r\n\
            Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{branch}\r\n\
            From: <sip:+15551230001@{host};user=phone>;tag={from_tag}-1\r\n\
            To: <{uri};user=phone>\r\n\
            CSeq: 1 INVITE\r\n\
            Max-Forwards: 66\r\n\
            Contact: <sip:+15551230001@{host}:{port}>\r\n\
            P-Asserted-Identity: <sip:+15551230001@{host};user=phone>\r\n\
            Call-ID: {call_id}-trunk@{host}\r\n\
            Content-Length: {length}\r\n\
            Content-Type: application/sdp\r\n\r\n",
        body: AUDIO,
    },
    PLAIN,
    // A message of text.
    Shape {
        headers: "MESSAGE {uri} SIP/2.0\r\n\
            Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{branch};rport\r\n\
            Max-Forwards: 70\r\n\
            From: <sip:carol@{host}>;tag={from_tag}\r\n\
            To: <{uri}>\r\n\
            Call-ID: {call_id}@{host}\r\n\
            CSeq: 1 MESSAGE\r\n\
            Content-Type: text/plain\r\n\
            Content-Length: {length}\r\n\r\n",
        body: "The train is late. Please start without me.\r\n",
    },
    // A session border controller: timers, feature tags, display names.
    Shape {
        headers: "INVITE {uri} SIP/2.0\r\n\
            Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{branch}\r\n\
            To: \"Service\" <{uri}>\r\n\
            From: \"Reception, ground floor\" <sip:200@{host}>;tag={from_tag}\r\n\
            Call-ID: {call_id}@{host}\r\n\
            CSeq: 102 INVITE\r\n\
            Max-Forwards: 70\r\n\
            Supported: timer,path,replaces\r\n\
            Session-Expires: 1800;refresher=uac\r\n\
            Min-SE: 90\r\n\
            Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, SUBSCRIBE, NOTIFY, INFO\r\n\
            Contact: <sip:200@{host}:{port}>;+sip.src\r\n\
            Content-Type: application/sdp\r\n\
            Content-Length: {length}\r\n\r\n",
        body: AUDIO,
    },
    // A ping of a user, by another proxy's agent.
    Shape {
        headers: "OPTIONS {uri} SIP/2.0\r\n\
            Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK.{branch}\r\n\
            From: <sip:monitor@{host}>;tag={from_tag}\r\n\
            To: <{uri}>\r\n\
            Call-ID: {call_id}\r\n\
            CSeq: 50 OPTIONS\r\n\
            Contact: <sip:monitor@{host}:{port}>\r\n\
            Accept: application/sdp\r\n\
            Max-Forwards: 70\r\n\
            User-Agent: monitor\r\n\
            Content-Length: 0\r\n\r\n",
        body: "",
    },
    // Odd but legal: case of names, blanks around the colon and the semicolons.
    Shape {
        headers: "INVITE {uri} SIP/2.0\r\n\
            VIA : SIP/2.0/UDP {host}:{port} ; branch=z9hG4bK{branch} ; rport\r\n\
            max-forwards: 0068\r\n\
            FROM: dave <sip:dave@{host}> ; tag={from_tag}\r\n\
            TO:  <{uri}>\r\n\
            call-id : {call_id}@{host}\r\n\
            cseq: 0009   INVITE\r\n\
            CONTACT: <sip:dave@{host}:{port}>\r\n\
            X-Account: 7734-22;plan=gold;tier=2\r\n\
            content-type: application/sdp\r\n\
            content-length: {length}\r\n\r\n",
        body: AUDIO,
    },
];

/// Compiled once, rendered for each source.
pub(super) struct Shapes {
    target: SocketAddr,
    plain: (Template, &'static str),
    mix: Vec<(Template, &'static str)>,
}

impl Shapes {
    /// Requests to a target.
    pub(super) fn new(target: SocketAddr) -> Self {
        let own = format!("sip:{target}");
        let compile = |shape: &Shape| {
            let headers = shape.headers.replace("{own}", &own);
            (Template::compile(&headers), shape.body)
        };
        Self {
            target,
            plain: compile(&PLAIN),
            mix: MIX.iter().map(compile).collect(),
        }
    }

    /// The request of the mix that source number `number` sends.
    pub(super) fn mixed(&self, number: usize, source: SocketAddr) -> Vec<u8> {
        let (headers, body) = &self.mix[number % self.mix.len()];
        render(
            headers,
            &body_of(body, source.ip(), "-"),
            source,
            self.target,
        )
    }

    /// A plain INVITE of exactly `len` bytes; `timed`: it ends with a place for the sending time.
    pub(super) fn plain(
        &self,
        source: SocketAddr,
        len: usize,
        timed: bool,
    ) -> Result<Vec<u8>, RequestError> {
        let (headers, body) = &self.plain;
        let body = if timed {
            format!("{body}a=sent:{}\r\n", field(SENT_AT))
        } else {
            (*body).to_owned()
        };
        let message = |fill: usize| {
            let fill = "-".repeat(fill);
            render(
                headers,
                &body_of(&body, source.ip(), &fill),
                source,
                self.target,
            )
        };
        let least = message(1).len();
        let fault = RequestError::Length {
            wanted: len,
            least,
            most: LEN_MAX,
        };
        // The fill may change the digits of Content-Length, so aim, look, and correct once.
        let aim = 1 + len.checked_sub(least).ok_or(fault)?;
        let beyond = message(aim).len().saturating_sub(len);
        let message = message(aim.saturating_sub(beyond).max(1));
        if message.len() == len && len <= LEN_MAX {
            Ok(message)
        } else {
            Err(fault)
        }
    }
}

fn body_of(body: &str, host: IpAddr, fill: &str) -> String {
    let family = if host.is_ipv4() { "IP4" } else { "IP6" };
    body.replace("{family}", family)
        .replace("{host}", &host.to_string())
        .replace("{fill}", fill)
}

fn render(headers: &Template, body: &str, source: SocketAddr, target: SocketAddr) -> Vec<u8> {
    let mut message = Vec::with_capacity(LEN_MAX);
    headers.render(&mut message, |name, out| match name {
        Field::Branch => out.extend_from_slice(field(BRANCH).as_bytes()),
        Field::CallId => out.extend_from_slice(field(CALL_ID).as_bytes()),
        Field::FromTag => out.extend_from_slice(field(FROM_TAG).as_bytes()),
        Field::Host => match source.ip() {
            IpAddr::V4(v4) => out.extend_from_slice(v4.to_string().as_bytes()),
            IpAddr::V6(v6) => out.extend_from_slice(format!("[{v6}]").as_bytes()),
        },
        Field::Length => write_decimal(body.len() as u64, out),
        Field::Port => write_decimal(source.port().into(), out),
        Field::Uri => out.extend_from_slice(format!("sip:service@{target}").as_bytes()),
        _ => {}
    });
    message.extend_from_slice(body.as_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::super::frames::FIELDS;
    use super::*;
    use crate::bpf::FLOOD_FIELD_LEN;
    use crate::sip::Message;

    fn addresses(target: &str, source: &str) -> (SocketAddr, SocketAddr) {
        (target.parse().unwrap(), source.parse().unwrap())
    }

    const V4: (&str, &str) = ("198.18.0.1:5060", "198.18.100.200:5060");
    const V6: (&str, &str) = ("[2001:db8::1]:5060", "[2001:db8::1:2]:5060");

    /// As the kernel sends them: digits where the fields are.
    fn with_digits(message: &[u8]) -> Vec<u8> {
        let digit = |octet: &u8| match FIELDS.contains(octet) {
            true => b'a',
            false => *octet,
        };
        message.iter().map(digit).collect()
    }

    #[test]
    fn a_plain_message_has_the_length_asked_for_and_says_its_body_length() {
        for (target, source) in [V4, V6] {
            let (target, source) = addresses(target, source);
            let shapes = Shapes::new(target);
            for timed in [false, true] {
                let Err(RequestError::Length { least, most, .. }) = shapes.plain(source, 0, timed)
                else {
                    panic!("an empty message");
                };
                let mut made = 0;
                for len in least..=most {
                    // One length in a few hundred falls between two lengths of Content-Length.
                    let Ok(message) = shapes.plain(source, len, timed) else {
                        continue;
                    };
                    made += 1;
                    assert_eq!(message.len(), len);
                    let text = String::from_utf8(message).unwrap();
                    let (head, body) = text.split_once("\r\n\r\n").unwrap();
                    let length = head.split("Content-Length: ").nth(1).unwrap();
                    assert_eq!(length.parse(), Ok(body.len()));
                }
                assert!(made + 2 >= most - least, "{made} of {}", most - least);
                assert!(shapes.plain(source, most + 1, timed).is_err());
                assert!(shapes.plain(source, least - 1, timed).is_err());
            }
        }
    }

    #[test]
    fn every_shape_is_a_legal_request_with_each_field_once_and_whole() {
        for (target, source) in [V4, V6] {
            let (target, source) = addresses(target, source);
            let shapes = Shapes::new(target);
            for number in 0..MIX.len() {
                let message = shapes.mixed(number, source);
                for octet in [BRANCH, CALL_ID, FROM_TAG] {
                    let at = message.iter().position(|byte| *byte == octet).unwrap();
                    let run = message[at..].iter().take_while(|byte| **byte == octet);
                    assert_eq!(run.count(), FLOOD_FIELD_LEN);
                    let count = message.iter().filter(|byte| **byte == octet).count();
                    assert_eq!(count, FLOOD_FIELD_LEN);
                }
                let bytes = with_digits(&message);
                let text = String::from_utf8_lossy(&bytes);
                let mut parsed = Message::new();
                assert_eq!(parsed.parse(&bytes), Ok(()), "{text}");
                let branch = parsed.top_via().unwrap().branch.unwrap();
                assert!(branch.of(&bytes).starts_with(b"z9hG4bK"), "{text}");
                assert!(parsed.call_id().is_some(), "{text}");
                assert!(!text.contains('{'), "{text}");
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                let length = head.to_lowercase().replace("\nl:", "\ncontent-length:");
                let length = length.split("\ncontent-length:").nth(1).unwrap();
                let length = length.lines().next().unwrap().trim();
                assert_eq!(length.parse(), Ok(body.len()), "{text}");
            }
        }
    }

    /// The figures of the README are of messages of 507 bytes.
    #[test]
    fn messages_of_the_mix_have_507_bytes_on_average() {
        let (target, source) = addresses(V4.0, V4.1);
        let shapes = Shapes::new(target);
        let len = |number| shapes.mixed(number, source).len();
        let lens: Vec<usize> = (0..MIX.len()).map(len).collect();
        let mean = lens.iter().sum::<usize>() / MIX.len();
        assert!((497..=517).contains(&mean), "{mean}: {lens:?}");
    }

    #[test]
    fn the_sending_time_ends_the_datagram() {
        let (target, source) = addresses(V4.0, V4.1);
        let message = Shapes::new(target).plain(source, 540, true).unwrap();
        assert_eq!(message[540 - 18..540 - 2], [SENT_AT; 16]);
        assert_eq!(message.last_chunk(), Some(b"\r\n"));
    }
}
