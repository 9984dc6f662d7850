//! Responses of a user agent: what they copy from the request, and where they are sent.

use std::io::Write as _;

use super::template::write_decimal;
use crate::net::{IpAddr, SocketAddr};
use crate::sip::{HeaderName, HeaderRow, Host, Message, reason_phrase};

/// RFC 3261 §18.2.2: the default port of a sent-by without one.
const DEFAULT_PORT: u16 = 5060;

/// A response to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply<'a> {
    pub(super) status: u16,
    /// Goes into To if the request has none there; empty for 100.
    pub(super) to_tag: &'a [u8],
    /// RFC 3261 §12.1.1: responses that make a dialog copy every Record-Route.
    pub(super) record_route: bool,
    /// Further rows, each with CRLF.
    pub(super) rows: &'a [u8],
    /// Body; its Content-Type stands in `rows`.
    pub(super) body: &'a [u8],
}

/// Appends a response to `message`, which came from `peer`.
pub(super) fn write(
    bytes: &[u8],
    message: &Message,
    peer: SocketAddr,
    reply: &Reply<'_>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"SIP/2.0 ");
    write_decimal(reply.status.into(), out);
    out.push(b' ');
    out.extend_from_slice(phrase(reply.status).as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut is_top = true;
    for row in message.rows(HeaderName::Via) {
        if is_top {
            write_top_via(bytes, message, row, peer, out);
        } else {
            out.extend_from_slice(row.row.of(bytes));
        }
        is_top = false;
    }
    if reply.record_route {
        copy(bytes, message, HeaderName::RecordRoute, out);
    }
    copy(bytes, message, HeaderName::From, out);
    if let Some(to) = message.first(HeaderName::To) {
        let (row, value) = (to.row.range(), to.value.range());
        out.extend_from_slice(bytes.get(row.start..value.end).unwrap_or_default());
        if message.to_tag().is_none() && !reply.to_tag.is_empty() {
            out.extend_from_slice(b";tag=");
            out.extend_from_slice(reply.to_tag);
        }
        out.extend_from_slice(b"\r\n");
    }
    copy(bytes, message, HeaderName::CallId, out);
    copy(bytes, message, HeaderName::CSeq, out);
    out.extend_from_slice(reply.rows);
    out.extend_from_slice(b"Content-Length: ");
    write_decimal(u64::try_from(reply.body.len()).unwrap_or(0), out);
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(reply.body);
}

fn copy(bytes: &[u8], message: &Message, name: HeaderName, out: &mut Vec<u8>) {
    for row in message.rows(name) {
        out.extend_from_slice(row.row.of(bytes));
    }
}

/// RFC 3261 §18.2.1 and RFC 3581 §4: `received` where the sent-by is not the source, and both
/// `received` and the value of `rport` where the request asks with an empty `rport`.
fn write_top_via(
    bytes: &[u8],
    message: &Message,
    row: &HeaderRow,
    peer: SocketAddr,
    out: &mut Vec<u8>,
) {
    let whole = row.row.range();
    let part = |from: usize, to: usize| bytes.get(from..to).unwrap_or_default();
    let Some(via) = message.top_via() else {
        out.extend_from_slice(part(whole.start, whole.end));
        return;
    };
    let asks = via.rport.filter(|rport| rport.value.is_none());
    let is_source = matches!(via.host, Host::Ip(ip) if ip == peer.ip());
    let value_end = via.value.end();
    match asks {
        Some(rport) => {
            out.extend_from_slice(part(whole.start, rport.whole.end()));
            out.push(b'=');
            write_decimal(peer.port().into(), out);
            out.extend_from_slice(part(rport.whole.end(), value_end));
        }
        None => out.extend_from_slice(part(whole.start, value_end)),
    }
    if via.received.is_none() && (asks.is_some() || !is_source) {
        out.extend_from_slice(b";received=");
        write_address(peer.ip(), out);
    }
    out.extend_from_slice(part(value_end, whole.end));
}

/// Appends an address as text.
fn write_address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => {
            for (place, octet) in v4.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                write_decimal(octet.into(), out);
            }
        }
        // A `Vec` takes every write.
        IpAddr::V6(v6) => {
            let _ = write!(out, "{v6}");
        }
    }
}

/// RFC 3261 §18.2.2, RFC 3581 §4: to the source address; to its port if the request asked with
/// `rport`, else to the sent-by's.
pub(super) fn destination(message: &Message, peer: SocketAddr) -> SocketAddr {
    match message.top_via() {
        Some(via) if via.rport.is_none() => {
            SocketAddr::new(peer.ip(), via.port.unwrap_or(DEFAULT_PORT))
        }
        _ => peer,
    }
}

/// RFC 3261 §21: phrases, with those a callee uses and a proxy does not.
fn phrase(status: u16) -> &'static str {
    match status {
        180 => "Ringing",
        401 => "Unauthorized",
        407 => "Proxy Authentication Required",
        486 => "Busy Here",
        501 => "Not Implemented",
        600 => "Busy Everywhere",
        603 => "Decline",
        _ => reason_phrase(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: Reply<'_> = Reply {
        status: 180,
        to_tag: b"me~1",
        record_route: true,
        rows: b"Contact: <sip:198.18.1.11>\r\n",
        body: b"",
    };

    fn replied(via: &str, to: &str, peer: &str) -> (String, SocketAddr) {
        let text = format!(
            "INVITE sip:b@example.com SIP/2.0\r\n{via}Max-Forwards: 70\r\n\
             Record-Route: <sip:198.18.0.1;lr>\r\nf: <sip:a@example.com>;tag=f\r\nTo: {to}\r\n\
             i: 1@x\r\nCSeq: 1\r\n INVITE\r\nContact: <sip:a@198.18.0.9>\r\n\r\n"
        );
        let peer: SocketAddr = peer.parse().unwrap();
        let mut message = Message::new();
        message.parse(text.as_bytes()).unwrap();
        let mut out = Vec::new();
        write(text.as_bytes(), &message, peer, &REPLY, &mut out);
        let mut read_back = Message::new();
        read_back.parse(&out).unwrap();
        (String::from_utf8(out).unwrap(), destination(&message, peer))
    }

    /// RFC 3581 §4: "must set the value of the parameter to the source port of the request".
    #[test]
    fn an_empty_rport_is_filled_and_the_response_goes_to_the_source() {
        let via = "Via: SIP/2.0/UDP 10.0.0.1:5070;rport;branch=z9hG4bK1 , \
            SIP/2.0/TCP x.example.com;branch=z9hG4bK0\r\nVia: SIP/2.0/UDP y;branch=z9hG4bKy\r\n";
        let (text, to) = replied(via, "<sip:b@example.com>", "198.18.0.9:6000");
        assert_eq!(
            text,
            "SIP/2.0 180 Ringing\r\n\
             Via: SIP/2.0/UDP 10.0.0.1:5070;rport=6000;branch=z9hG4bK1;received=198.18.0.9 , \
             SIP/2.0/TCP x.example.com;branch=z9hG4bK0\r\nVia: SIP/2.0/UDP y;branch=z9hG4bKy\r\n\
             Record-Route: <sip:198.18.0.1;lr>\r\nf: <sip:a@example.com>;tag=f\r\n\
             To: <sip:b@example.com>;tag=me~1\r\ni: 1@x\r\nCSeq: 1\r\n INVITE\r\n\
             Contact: <sip:198.18.1.11>\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(to, "198.18.0.9:6000".parse().unwrap());
    }

    /// RFC 3261 §18.2.2: without rport "the port indicated in the sent-by".
    #[test]
    fn without_rport_the_response_goes_to_the_sent_by_port() {
        let via = "Via: SIP/2.0/UDP 198.18.0.9:5070;branch=z9hG4bK1\r\n";
        let (text, to) = replied(via, "b <sip:b@example.com>;tag=x", "198.18.0.9:6000");
        assert!(text.contains("Via: SIP/2.0/UDP 198.18.0.9:5070;branch=z9hG4bK1\r\n"));
        assert!(text.contains("To: b <sip:b@example.com>;tag=x\r\n"));
        assert_eq!(to, "198.18.0.9:5070".parse().unwrap());

        let via = "Via: SIP/2.0/UDP pc.example.com;branch=z9hG4bK1\r\n";
        let (text, to) = replied(via, "sip:b@example.com", "[2001:db8::9]:6000");
        assert!(text.contains(";branch=z9hG4bK1;received=2001:db8::9\r\n"));
        assert_eq!(to, "[2001:db8::9]:5060".parse().unwrap());
    }
}
