//! The Request-URI that leaves: the received one, or a Route value in its place, perhaps without
//! its maddr, perhaps with another host.

use arrayvec::ArrayVec;

use super::hop::listener_of;
use crate::net::SocketAddr;
use crate::packet::EditList;
use crate::route::Plan;
use crate::sip::{Scheme, Span, Uri};

/// A Request-URI and what is cut out of it.
#[derive(Clone, Debug)]
pub(super) struct RequestUri {
    /// What routing reads: without the parts that are cut.
    pub(super) uri: Uri,
    /// Bytes that do not leave. INVARIANT: inside the URI.
    cuts: ArrayVec<Span, 4>,
}

impl Default for RequestUri {
    fn default() -> Self {
        Self::new(Uri {
            scheme: Scheme::Other,
            span: Span::EMPTY,
            user: None,
            password: None,
            host: None,
            port: None,
            host_port: Span::EMPTY,
            params: Span::EMPTY,
            headers: None,
        })
    }
}

impl RequestUri {
    pub(super) fn new(uri: Uri) -> Self {
        let mut cuts = ArrayVec::new();
        // RFC 3261 §19.1.1 table 1: a Request-URI has no headers part; a Route value may.
        if let Some(headers) = uri.headers {
            cuts.push(Span::new(before(headers), to_u16(headers.end())));
        }
        Self { uri, cuts }
    }

    /// RFC 3261 §16.4: a maddr that is ours goes, with "any non-default port or transport
    /// parameter", and processing goes on as if they had not been there.
    ///
    /// The RFC asks this only if the request came in on that port; else it is to be sent there
    /// first. Every port of ours is the same proxy, so that hop is left out.
    pub(super) fn strip_own_maddr(&mut self, plan: &Plan, bytes: &[u8]) {
        if self.uri.params.is_empty() {
            return;
        }
        let Some(maddr) = self.uri.param_row(bytes, b"maddr") else {
            return;
        };
        let Ok(Some(host)) = self.uri.maddr(bytes) else {
            return;
        };
        if listener_of(plan, bytes, host, self.uri.port).is_none() {
            return;
        }
        self.cut(maddr.whole);
        if let Some(transport) = self.uri.param_row(bytes, b"transport") {
            self.cut(transport.whole);
        }
        if self
            .uri
            .port
            .is_some_and(|port| port != super::via::DEFAULT_PORT)
        {
            let text = self.uri.host_port.of(bytes);
            if let Some(colon) = text.iter().rposition(|byte| *byte == b':') {
                let colon = self.uri.host_port.start() + colon;
                self.cut(Span::new(to_u16(colon), to_u16(self.uri.host_port.end())));
            }
        }
        self.uri.port = None;
        self.uri.params = Span::EMPTY;
    }

    fn cut(&mut self, span: Span) {
        // Room for headers, maddr, transport and port.
        let full = self.cuts.try_push(span);
        debug_assert!(full.is_ok());
        self.cuts.sort_by_key(|cut| cut.start());
    }

    /// Whether it differs from the bytes that it was read from.
    pub(super) fn is_cut(&self) -> bool {
        !self.cuts.is_empty()
    }

    /// Whether it names us.
    pub(super) fn is_own(&self, plan: &Plan, bytes: &[u8]) -> bool {
        self.uri
            .host
            .is_some_and(|host| listener_of(plan, bytes, host, self.uri.port).is_some())
    }

    /// Appends it to the open edit, with `host` in the place of its host and port.
    pub(super) fn push(&self, edits: &mut EditList, bytes: &[u8], host: Option<SocketAddr>) {
        let mut pos = self.uri.span.start();
        let copy = |edits: &mut EditList, from: usize, to: usize| {
            edits.push(bytes.get(from..to).unwrap_or_default());
        };
        if let Some(address) = host {
            copy(edits, pos, self.uri.host_port.start());
            push_host_port(edits, address);
            pos = self.uri.host_port.end();
        }
        for cut in &self.cuts {
            if cut.start() >= pos {
                copy(edits, pos, cut.start());
                pos = cut.end();
            }
        }
        copy(edits, pos, self.uri.span.end());
    }
}

/// Appends `host:port`, IPv6 in brackets, to the open edit.
pub(super) fn push_host_port(edits: &mut EditList, address: SocketAddr) {
    if address.is_ipv6() {
        edits.push(b"[");
    }
    edits.push_ip(address.ip());
    edits.push(if address.is_ipv6() { b"]:" } else { b":" });
    edits.push_decimal(u32::from(address.port()));
}

fn before(span: Span) -> u16 {
    to_u16(span.start().saturating_sub(1))
}

/// An offset inside a datagram.
pub(super) fn to_u16(offset: usize) -> u16 {
    u16::try_from(offset).unwrap_or(u16::MAX)
}
