//! What keywords become: the values of one call, of the run and of the last message received.

use core::cell::RefCell;
use std::io::Write as _;
use std::net::IpAddr;

use super::calls::Call;
use super::table::Table;
use super::text::{Filled, Keyword, Text};
use crate::generator::digest::{Credentials, Use};
use crate::generator::identity::{CallKey, Identity, hex};
use crate::generator::template::write_decimal;
use crate::net::SocketAddr;
use crate::sip::{HeaderName, Message};
use crate::time::Instant;

/// SIPp's default port of media (`-mp`); no media is sent.
const MEDIA_PORT: u32 = 6000;

/// What is the same for all calls.
pub(super) struct Constants<'a> {
    pub(super) identity: Identity,
    /// Tells the numbers of this run's pauses and losses from those of another.
    pub(super) random_seed: u64,
    pub(super) service: Vec<u8>,
    pub(super) remote: Option<SocketAddr>,
    pub(super) locals: Vec<SocketAddr>,
    /// Their addresses as they stand in Call-IDs.
    pub(super) hosts: Vec<String>,
    pub(super) pid: u32,
    pub(super) start: Instant,
    pub(super) table: Option<&'a Table>,
    pub(super) credentials: Option<Credentials>,
    /// Reads the last message again.
    pub(super) reader: RefCell<Box<Message>>,
}

/// One text to be written for one call.
pub(super) struct Occasion<'a> {
    pub(super) call: &'a Call,
    /// Place in the slab, part of the Call-ID.
    pub(super) index: u32,
    pub(super) step: usize,
    pub(super) now: Instant,
}

impl Constants<'_> {
    /// Appends a text for a call.
    pub(super) fn write(&self, text: &Text, of: &Occasion<'_>, out: &mut Vec<u8>) {
        let mut reader = self.reader.borrow_mut();
        let last = text.reads_last || self.reads_field(text);
        let is_read = last && reader.parse(&of.call.last).is_ok();
        let message = is_read.then_some(&**reader);
        text.write(out, |keyword, begin, out| {
            self.fill(keyword, of, message, begin, out)
        });
    }

    /// A field of the table may read the last message too.
    fn reads_field(&self, text: &Text) -> bool {
        self.table.is_some()
            && text
                .keywords()
                .any(|keyword| matches!(keyword, Keyword::Field(_)))
    }

    fn fill(
        &self,
        keyword: &Keyword,
        of: &Occasion<'_>,
        message: Option<&Message>,
        begin: usize,
        out: &mut Vec<u8>,
    ) -> Filled {
        let Occasion { call, index, .. } = *of;
        let local = self.locals.get(call.socket).copied();
        let remote = self.remote.unwrap_or(call.peer);
        match keyword {
            Keyword::Authentication(own) => {
                let own = own.as_deref().map(|[user, password]| {
                    let text = |text| self.small(text, of, message, begin);
                    (text(user), text(password))
                });
                return self.authenticate(own, of, begin, out);
            }
            Keyword::Branch(more) => {
                let step = i64::try_from(of.step).unwrap_or(0) + 1 + i64::from(*more);
                let step = u16::try_from(step).unwrap_or(0);
                self.identity.write_branch(call.serial, step, out);
            }
            Keyword::CallId => match local {
                _ if !call.call_id.is_empty() => out.extend_from_slice(&call.call_id),
                Some(_) => {
                    let key = CallKey {
                        serial: call.serial,
                        index,
                    };
                    let host = self.hosts.get(call.socket).map_or("", String::as_str);
                    self.identity.write_call_id(key, host.as_bytes(), out);
                }
                None => {}
            },
            Keyword::CallNumber(more) => number(call.serial.saturating_add(1), *more, out),
            Keyword::ClockTick => {
                let since = of.now.since(self.start).as_millis();
                number(u64::try_from(since).unwrap_or(u64::MAX), 0, out);
            }
            Keyword::CSeq(more) => number(call.cseq.into(), *more, out),
            Keyword::Field(place) => {
                let field = self.table.and_then(|table| table.field(call.row, *place));
                let Some(field) = field else {
                    return Filled::Absent;
                };
                let mut filled = Filled::Written;
                // The field's own text counts from the message's beginning: its first line is needed.
                field.write(out, |keyword, _, out| {
                    filled = self.fill(keyword, of, message, begin, out);
                    filled
                });
                return filled;
            }
            Keyword::LastBranch
            | Keyword::LastCSeqNumber(_)
            | Keyword::LastHeader(..)
            | Keyword::LastMessage
            | Keyword::LastRequestUri => return last(keyword, call, message, out),
            // Put in when the body is written.
            Keyword::Len(_) => {}
            Keyword::LocalIp => ip(local.map(|local| local.ip()), out),
            Keyword::LocalIpType => {
                let is_ipv4 = local.is_none_or(|local| local.is_ipv4());
                out.push(if is_ipv4 { b'4' } else { b'6' });
            }
            Keyword::LocalPort(more) => port(local, *more, out),
            Keyword::MediaIp => {
                if let Some(local) = local {
                    // A `Vec` takes every write.
                    let _ = write!(out, "{}", local.ip());
                }
            }
            Keyword::MediaPort(more) => number(MEDIA_PORT.into(), *more, out),
            Keyword::MessageIndex => number(u64::try_from(of.step).unwrap_or(0), 0, out),
            Keyword::NextUrl => out.extend_from_slice(call.dialog.uri()),
            Keyword::PeerTagParam => {
                if !call.peer_tag.is_empty() {
                    out.extend_from_slice(b";tag=");
                    out.extend_from_slice(&call.peer_tag);
                }
            }
            Keyword::Pid => number(self.pid.into(), 0, out),
            Keyword::RemoteIp => ip(Some(remote.ip()), out),
            Keyword::RemotePort(more) => port(Some(remote), *more, out),
            Keyword::Routes => {
                let Some(routes) = call.dialog.routes().strip_suffix(b"\r\n") else {
                    return Filled::Absent;
                };
                out.extend_from_slice(routes);
            }
            Keyword::Service => out.extend_from_slice(&self.service),
            Keyword::Transport => out.extend_from_slice(b"UDP"),
            Keyword::Variable(place) => {
                if let Some(Some(value)) = call.variables.get(*place) {
                    value.write(out);
                }
            }
        }
        Filled::Written
    }

    /// A user name or a password, which may be a keyword.
    fn small(
        &self,
        text: &Text,
        of: &Occasion<'_>,
        message: Option<&Message>,
        begin: usize,
    ) -> String {
        let mut out = Vec::new();
        text.write(&mut out, |keyword, _, out| match keyword {
            // The reader refuses it; a field of a table could still hold one.
            Keyword::Authentication(_) => Filled::Absent,
            keyword => self.fill(keyword, of, message, begin, out),
        });
        String::from_utf8_lossy(&out).into_owned()
    }

    /// RFC 3261 §22: the row that answers the challenge; no challenge, no row.
    fn authenticate(
        &self,
        own: Option<(String, String)>,
        of: &Occasion<'_>,
        begin: usize,
        out: &mut Vec<u8>,
    ) -> Filled {
        let Some(challenged) = of.call.challenged.as_deref() else {
            return Filled::Absent;
        };
        let credentials = match (own, &self.credentials) {
            (Some((user, password)), _) => Credentials { user, password },
            (None, Some(credentials)) => credentials.clone(),
            (None, None) => return Filled::Absent,
        };
        let line = out.get(begin..).unwrap_or_default();
        let line = line.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).into_owned();
        let mut words = line.split(' ');
        let method = words.next().unwrap_or_default();
        let uri = words.next().unwrap_or_default();
        let cnonce = hex(self.identity.pick(of.call.serial) ^ u64::from(challenged.count));
        let usage = Use {
            method,
            uri,
            cnonce: &String::from_utf8_lossy(&cnonce),
            count: challenged.count,
        };
        let value = challenged.challenge.answer(&credentials, usage);
        out.extend_from_slice(if challenged.by_proxy {
            b"Proxy-Authorization: "
        } else {
            b"Authorization: "
        });
        out.extend_from_slice(value.as_bytes());
        Filled::Written
    }
}

fn number(number: u64, more: i32, out: &mut Vec<u8>) {
    write_decimal(number.saturating_add_signed(more.into()), out);
}

fn port(address: Option<SocketAddr>, more: i32, out: &mut Vec<u8>) {
    let port = address.map_or(0, |address| address.port());
    number(port.into(), more, out);
}

/// With the brackets that a URI and a Via want around IPv6.
fn ip(ip: Option<IpAddr>, out: &mut Vec<u8>) {
    // A `Vec` takes every write.
    let _ = match ip {
        Some(IpAddr::V6(ip)) => write!(out, "[{ip}]"),
        Some(IpAddr::V4(ip)) => write!(out, "{ip}"),
        None => Ok(()),
    };
}

/// Something of the last message received.
fn last(keyword: &Keyword, call: &Call, message: Option<&Message>, out: &mut Vec<u8>) -> Filled {
    let bytes = &call.last;
    if *keyword == Keyword::LastMessage {
        out.extend_from_slice(bytes);
        return Filled::Written;
    }
    let Some(message) = message else {
        return Filled::Absent;
    };
    match keyword {
        Keyword::LastBranch => {
            let branch = message.top_via().and_then(|via| via.branch);
            let Some(branch) = branch else {
                return Filled::Absent;
            };
            out.extend_from_slice(branch.of(bytes));
        }
        Keyword::LastCSeqNumber(more) => {
            let Some(cseq) = message.cseq() else {
                return Filled::Absent;
            };
            number(cseq.number.into(), *more, out);
        }
        Keyword::LastRequestUri => {
            let Some(uri) = message.request_uri() else {
                return Filled::Absent;
            };
            out.extend_from_slice(uri.span.of(bytes));
        }
        Keyword::LastHeader(known, name) => {
            let begin = out.len();
            for row in message.headers() {
                let written = row.name_bytes(bytes);
                let is_it = match known {
                    HeaderName::Other => written.eq_ignore_ascii_case(name),
                    known => HeaderName::parse(written) == *known,
                };
                if !is_it {
                    continue;
                }
                if out.len() > begin {
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(row.row.of(bytes).trim_ascii_end());
            }
            if out.len() == begin {
                return Filled::Absent;
            }
        }
        _ => return Filled::Absent,
    }
    Filled::Written
}
