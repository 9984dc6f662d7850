//! The frames of a flood, rendered once, with room for what differs by call.

use std::net::{IpAddr, SocketAddr};

use super::FloodConfig;
use crate::bpf::{FLOOD_FIELD_LEN, FLOOD_FRAME_LEN_MAX, FloodRecord};
use crate::packet::{self, LinkHeader, udp};

/// Port that requests come from, and that their `Via` names.
const SOURCE_PORT: u16 = 5060;

/// TTL and hop limit.
const TTL: u8 = 64;

/// Bytes in front of the message: enough for any headers.
const HEADERS_LEN_MAX: usize = 128;

/// What stands where the digits of a call come: one octet per field, which no message contains.
const BRANCH: u8 = 1;
const CALL_ID: u8 = 2;
const FROM_TAG: u8 = 3;
const FIELDS: [u8; 3] = [BRANCH, CALL_ID, FROM_TAG];

/// Why a request cannot be made as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The length is below what the headers need, or beyond a frame.
    #[error("a message of {wanted} bytes; {least} to {most} are possible from these addresses")]
    Length {
        /// Bytes asked for.
        wanted: usize,
        /// Shortest possible.
        least: usize,
        /// Longest possible.
        most: usize,
    },
    /// Source and target are not of one IP version.
    #[error("{from} cannot send to {target}: one is IPv4, the other IPv6")]
    Family {
        /// The source.
        from: IpAddr,
        /// The target.
        target: SocketAddr,
    },
}

/// One record per source.
pub(super) fn records(config: &FloodConfig) -> Result<Vec<FloodRecord>, RequestError> {
    let target = config.target;
    let record_of = |from: &IpAddr| {
        if from.is_ipv4() != target.is_ipv4() {
            return Err(RequestError::Family {
                from: *from,
                target,
            });
        }
        let source = SocketAddr::new(*from, SOURCE_PORT);
        let message = message(source, target, config.message_len)?;
        record(config, source, &message).ok_or(RequestError::Length {
            wanted: message.len(),
            least: 0,
            most: FLOOD_FRAME_LEN_MAX - HEADERS_LEN_MAX,
        })
    };
    config.sources.iter().map(record_of).collect()
}

/// An INVITE of exactly `len` bytes, as a plain user agent without NAT sends it.
fn message(source: SocketAddr, target: SocketAddr, len: usize) -> Result<Vec<u8>, RequestError> {
    let field = |octet: u8| char::from(octet).to_string().repeat(FLOOD_FIELD_LEN);
    let (branch, call_id, from_tag) = (field(BRANCH), field(CALL_ID), field(FROM_TAG));
    let host = match source.ip() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    let (kind, address) = match source.ip() {
        IpAddr::V4(_) => ("IP4", source.ip()),
        IpAddr::V6(_) => ("IP6", source.ip()),
    };
    let render = |fill: usize| {
        let body = format!(
            "v=0\r\n\
             o=alice 53655765 2353687637 IN {kind} {address}\r\n\
             s={:-<fill$}\r\n\
             c=IN {kind} {address}\r\n\
             t=0 0\r\n\
             m=audio 6000 RTP/AVP 0\r\n",
            "-"
        );
        format!(
            "INVITE sip:service@{target} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {source};branch=z9hG4bK{branch};rport\r\n\
             Max-Forwards: 70\r\n\
             From: \"Alice\" <sip:alice@{host}>;tag={from_tag}\r\n\
             To: <sip:service@{target}>\r\n\
             Call-ID: {call_id}@{host}\r\n\
             CSeq: 1 INVITE\r\n\
             Contact: <sip:alice@{source}>\r\n\
             Content-Type: application/sdp\r\n\
             Content-Length: {}\r\n\
             \r\n\
             {body}",
            body.len()
        )
        .into_bytes()
    };
    let least = render(1).len();
    // The fill may change the digits of Content-Length, so aim, look, and correct once.
    let missing = len.checked_sub(least).ok_or(RequestError::Length {
        wanted: len,
        least,
        most: FLOOD_FRAME_LEN_MAX - HEADERS_LEN_MAX,
    })?;
    let aimed = render(1 + missing);
    let beyond = aimed.len().saturating_sub(len);
    let message = render((1 + missing).saturating_sub(beyond).max(1));
    if message.len() == len && len <= FLOOD_FRAME_LEN_MAX - HEADERS_LEN_MAX {
        return Ok(message);
    }
    Err(RequestError::Length {
        wanted: len,
        least,
        most: FLOOD_FRAME_LEN_MAX - HEADERS_LEN_MAX,
    })
}

/// The message with its headers and fields as the program takes it.
fn record(config: &FloodConfig, source: SocketAddr, message: &[u8]) -> Option<FloodRecord> {
    let mut bytes = vec![0; HEADERS_LEN_MAX];
    bytes.extend_from_slice(message);
    let payload = HEADERS_LEN_MAX..bytes.len();
    let link = LinkHeader {
        src_mac: config.source_mac,
        dst_mac: config.target_mac,
        ..LinkHeader::default()
    };
    let start = packet::emit(&mut bytes, payload, &link, source, config.target, TTL).ok()?;
    let frame = &bytes[start..];
    let payload_start = HEADERS_LEN_MAX - start;
    let fields: Vec<usize> = FIELDS
        .iter()
        .filter_map(|octet| message.iter().position(|byte| byte == octet))
        .map(|at| payload_start + at)
        .collect();
    FloodRecord::new(frame, payload_start - udp::HEADER_LEN, &fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(target: &str, source: &str) -> (SocketAddr, SocketAddr) {
        (target.parse().unwrap(), source.parse().unwrap())
    }

    #[test]
    fn a_message_has_the_length_asked_for_and_says_its_body_length() {
        for (target, source) in [
            ("198.18.0.1:5060", "198.18.100.200:5060"),
            ("[2001:db8::1]:5060", "[2001:db8::1:2]:5060"),
        ] {
            let (target, source) = addresses(target, source);
            let Err(RequestError::Length { least, most, .. }) = message(source, target, 0) else {
                panic!("an empty message");
            };
            let mut made = 0;
            for len in least..=most {
                // One length in a few hundred falls between two lengths of Content-Length.
                let Ok(message) = message(source, target, len) else {
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
            assert!(message(source, target, most + 1).is_err());
            assert!(message(source, target, least - 1).is_err());
        }
    }

    #[test]
    fn the_message_we_measure_with_is_possible() {
        let (target, source) = addresses("198.18.0.1:5060", "198.18.100.200:5060");
        assert_eq!(message(source, target, 507).unwrap().len(), 507);
    }

    #[test]
    fn each_field_stands_once_and_whole() {
        let (target, source) = addresses("198.18.0.1:5060", "198.18.100.200:5060");
        let message = message(source, target, 507).unwrap();
        for octet in FIELDS {
            let at = message.iter().position(|byte| *byte == octet).unwrap();
            let run = message[at..].iter().take_while(|byte| **byte == octet);
            assert_eq!(run.count(), FLOOD_FIELD_LEN);
            let count = message.iter().filter(|byte| **byte == octet).count();
            assert_eq!(count, FLOOD_FIELD_LEN);
        }
    }
}
