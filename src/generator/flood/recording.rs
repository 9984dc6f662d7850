//! What the target's own messages call for: responses and requests inside dialogs.
//!
//! A balancer that keeps no state writes into each request what it needs to know later: its `Via`
//! leads the response back, its `Record-Route` the next request of the dialog. Made-up ones would
//! be refused, so requests are sent first and what the target forwards is read, by a packet socket
//! on the interface; from each request that came, the 200 of the server it was addressed to and the
//! BYE or ACK of the client that sent it are made, to be flooded later.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with, sockopt,
};

use super::FloodConfig;
use super::frames::{self, BRANCH, TO_TAG, field};
use crate::packet::{self, Headers, LinkHeader, MacAddress, PartialChecksum};

/// Files to write what was made to.
#[derive(Clone, Debug, Default)]
pub struct RecordTo {
    /// The servers' responses.
    pub responses: Option<PathBuf>,
    /// The clients' requests inside dialogs.
    pub in_dialog: Option<PathBuf>,
}

impl RecordTo {
    /// Whether anything is to be recorded.
    pub fn is_wanted(&self) -> bool {
        self.responses.is_some() || self.in_dialog.is_some()
    }
}

/// `ETH_P_ALL`: the kernel wants it in network byte order.
const ALL_PROTOCOLS: u16 = 0x0003;

/// Memory for frames that are not read yet: a tenth of a second of 100,000 frames a second, each
/// charged with a page.
const BUFFER_LEN: usize = 128 << 20;

/// Reads what arrives at the stations.
pub(super) struct Recording {
    socket: OwnedFd,
    stations: Vec<MacAddress>,
    balancer: MacAddress,
    target: SocketAddr,
    clients: MacAddress,
    most: usize,
    buffer: Vec<u8>,
    responses: Vec<Vec<u8>>,
    in_dialog: Vec<Vec<u8>>,
}

impl Recording {
    /// Opens the packet socket. It sees every interface of its network namespace; frames to the
    /// stations are told by their address.
    pub(super) fn open(config: &FloodConfig, most: usize) -> io::Result<Self> {
        let protocol = NonZeroU32::new(ALL_PROTOCOLS.to_be().into()).map(Protocol::from_raw);
        let socket = socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            protocol,
        )?;
        sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_LEN)?;
        Ok(Self {
            socket,
            stations: config.stations.clone(),
            balancer: config.target_mac,
            target: config.target,
            clients: config.source_mac,
            most,
            buffer: vec![0; 4096],
            responses: Vec::new(),
            in_dialog: Vec::new(),
        })
    }

    /// Reads what is waiting.
    pub(super) fn take(&mut self) {
        while let Ok((len, _)) = recv(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
            let frame = &self.buffer[..len];
            let Ok(headers) = packet::parse(frame, PartialChecksum::Accept) else {
                continue;
            };
            if !self.stations.contains(&headers.dst_mac) {
                continue;
            }
            let made = frame.get(headers.payload.clone()).and_then(|payload| {
                let text = std::str::from_utf8(payload).ok()?;
                self.made_of(&Request::read(text)?, &headers)
            });
            if let Some((response, in_dialog)) = made {
                if self.responses.len() < self.most {
                    self.responses.push(response);
                }
                if let Some(in_dialog) = in_dialog
                    && self.in_dialog.len() < self.most
                {
                    self.in_dialog.push(in_dialog);
                }
            }
        }
    }

    /// The frames of the response to a request and of the next request of its dialog.
    fn made_of(
        &self,
        request: &Request<'_>,
        headers: &Headers,
    ) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let link = |src_mac| LinkHeader {
            src_mac,
            dst_mac: self.balancer,
            ..LinkHeader::default()
        };
        let response = request.response(headers.dst);
        let response = frames::frame(
            &link(headers.dst_mac),
            headers.dst,
            self.target,
            response.as_bytes(),
        )?;
        let number = self.in_dialog.len();
        let in_dialog = request.next(headers.dst, number).and_then(|(text, from)| {
            frames::frame(&link(self.clients), from, self.target, text.as_bytes())
        });
        Some((response, in_dialog))
    }

    /// Writes what was made; how many responses and requests that is.
    pub(super) fn write(&self, to: &RecordTo) -> io::Result<(usize, usize)> {
        if let Some(path) = &to.responses {
            frames::write(path, &self.responses)?;
        }
        if let Some(path) = &to.in_dialog {
            frames::write(path, &self.in_dialog)?;
        }
        Ok((self.responses.len(), self.in_dialog.len()))
    }
}

/// The rows of a request that its answer and its successor need. The requests are our own, changed
/// by the target: no folded rows, no header whose compact form is not known here.
struct Request<'a> {
    method: &'a str,
    vias: Vec<&'a str>,
    routes: Vec<&'a str>,
    from: &'a str,
    to: &'a str,
    call_id: &'a str,
    cseq: &'a str,
}

impl<'a> Request<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (head, _) = text.split_once("\r\n\r\n")?;
        let mut rows = head.split("\r\n");
        let mut request = Self {
            method: rows.next()?.split(' ').next()?,
            vias: Vec::new(),
            routes: Vec::new(),
            from: "",
            to: "",
            call_id: "",
            cseq: "",
        };
        if request.method.starts_with("SIP/") {
            return None;
        }
        for row in rows {
            let (name, value) = row.split_once(':')?;
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "via" | "v" => request.vias.push(value),
                "record-route" => request.routes.push(value),
                "from" | "f" => request.from = value,
                "to" | "t" => request.to = value,
                "call-id" | "i" => request.call_id = value,
                "cseq" => request.cseq = value,
                _ => {}
            }
        }
        let is_whole = !request.vias.is_empty() && !request.call_id.is_empty();
        is_whole.then_some(request)
    }

    /// The 200 of the server at `server`; its To tag is left open, so that no two are alike.
    fn response(&self, server: SocketAddr) -> String {
        let mut text = "SIP/2.0 200 OK\r\n".to_owned();
        for via in &self.vias {
            text += &format!("Via: {via}\r\n");
        }
        for route in &self.routes {
            text += &format!("Record-Route: {route}\r\n");
        }
        let (from, to, call_id, cseq) = (self.from, self.to, self.call_id, self.cseq);
        let body = match self.method {
            "INVITE" => format!(
                "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 7000 RTP/AVP 0\r\n",
                ip = server.ip()
            ),
            _ => String::new(),
        };
        let kind = if body.is_empty() {
            ""
        } else {
            "Content-Type: application/sdp\r\n"
        };
        text + &format!(
            "From: {from}\r\nTo: {to};tag={tag}\r\nCall-ID: {call_id}\r\nCSeq: {cseq}\r\n\
             Contact: <sip:{server}>\r\n{kind}Content-Length: {len}\r\n\r\n{body}",
            tag = field(TO_TAG),
            len = body.len(),
        )
    }

    /// What the client of an INVITE sends next, by turns ACK and BYE, and from where; `None` for
    /// what opens no dialog. Its branch is left open.
    fn next(&self, server: SocketAddr, number: usize) -> Option<(String, SocketAddr)> {
        if self.method != "INVITE" || self.routes.is_empty() {
            return None;
        }
        let client = self.vias.last()?.split_whitespace().nth(1)?;
        let client: SocketAddr = client.split(';').next()?.parse().ok()?;
        let cseq: u32 = self.cseq.split_whitespace().next()?.parse().ok()?;
        let (method, cseq) = if number.is_multiple_of(2) {
            ("ACK", cseq)
        } else {
            ("BYE", cseq.wrapping_add(1))
        };
        let mut text = format!(
            "{method} sip:{server} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {client};branch=z9hG4bK{};rport\r\n",
            field(BRANCH)
        );
        for route in &self.routes {
            text += &format!("Route: {route}\r\n");
        }
        let (from, to, call_id) = (self.from, self.to, self.call_id);
        text += &format!(
            "Max-Forwards: 70\r\nFrom: {from}\r\nTo: {to};tag=server-1\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n"
        );
        Some((text, client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::Message;

    const INVITE: &str = "INVITE sip:service@198.18.0.1 SIP/2.0\r\n\
        Via: SIP/2.0/UDP 198.18.0.1:5060;branch=z9hG4bKs0\r\n\
        v:SIP/2.0/UDP 198.18.100.7:5060 ; branch=z9hG4bK1;rport=5060\r\n\
        Record-Route: <sip:token@198.18.0.1;lr>\r\n\
        f: <sip:a@b>;tag=1\r\nTO : <sip:c@d>\r\ni: x@y\r\nCSeq:7 INVITE\r\n\r\nbody";

    #[test]
    fn a_response_has_all_vias_and_no_dialog_has_another_route() {
        let request = Request::read(INVITE).unwrap();
        let server = "198.19.1.11:5060".parse().unwrap();
        let response = request.response(server);
        let bytes = response.replace(char::from(TO_TAG), "0").into_bytes();
        let mut message = Message::new();
        assert_eq!(message.parse(&bytes), Ok(()), "{response}");
        assert_eq!(message.vias(&bytes).count(), 2);
        assert_eq!(response.matches("Record-Route").count(), 1);
        for (number, cseq) in [(0, "7 ACK"), (1, "8 BYE")] {
            let (text, from) = request.next(server, number).unwrap();
            assert_eq!(from, "198.18.100.7:5060".parse().unwrap());
            let bytes = text.replace(char::from(BRANCH), "0").into_bytes();
            assert_eq!(message.parse(&bytes), Ok(()), "{text}");
            assert!(text.contains(&format!("CSeq: {cseq}\r\n")), "{text}");
            assert!(text.contains("Route: <sip:token@198.18.0.1;lr>\r\n"));
        }
    }

    #[test]
    fn what_opens_no_dialog_has_no_successor() {
        let options = INVITE.replace("INVITE", "OPTIONS");
        let request = Request::read(&options).unwrap();
        let server = "198.19.1.11:5060".parse().unwrap();
        assert_eq!(request.next(server, 0), None);
        assert!(
            request
                .response(server)
                .ends_with("Content-Length: 0\r\n\r\n")
        );
        assert!(Request::read("SIP/2.0 200 OK\r\nVia: x\r\n\r\n").is_none());
        assert!(Request::read("\r\n\r\n").is_none());
    }
}
