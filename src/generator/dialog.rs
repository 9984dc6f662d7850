//! A dialog as a user agent keeps it: remote target, route set, and where its requests are sent.
//!
//! RFC 3261 §12.1: learnt from the message that made it. Kept as text that goes into requests as
//! it stands, in one buffer that the next call uses again.

use arrayvec::ArrayVec;

use crate::net::{IpAddr, SocketAddr};
use crate::sip::{HeaderName, Host, Message, NameAddr, Span, Uri, values};

/// Routes of one dialog.
const ROUTES_MAX: usize = 32;
/// RFC 3261 §19.1.2: the default port of SIP over UDP.
const DEFAULT_PORT: u16 = 5060;

/// Whose dialog it is, and so from which message it is learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The caller, from the 2xx.
    Caller,
    /// The callee, from the INVITE.
    Callee,
}

/// Why no dialog came of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DialogError {
    /// No Contact, or one that is no SIP URI.
    Contact,
    /// A Record-Route that is no SIP URI, or too many.
    RecordRoute,
    /// No To or From.
    Party,
}

/// What requests inside the dialog are made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Dialog {
    text: Vec<u8>,
    uri_end: usize,
    routes_end: usize,
    next_hop: Option<SocketAddr>,
}

impl Dialog {
    /// The Request-URI.
    pub(super) fn uri(&self) -> &[u8] {
        self.text.get(..self.uri_end).unwrap_or_default()
    }

    /// Route rows with their CRLF.
    pub(super) fn routes(&self) -> &[u8] {
        let routes = self.uri_end..self.routes_end;
        self.text.get(routes).unwrap_or_default()
    }

    /// The other party as a header value, with its tag: To of our requests.
    pub(super) fn peer(&self) -> &[u8] {
        self.text.get(self.routes_end..).unwrap_or_default()
    }

    /// Where requests are sent; `None` if that is a name.
    pub(super) fn next_hop(&self) -> Option<SocketAddr> {
        self.next_hop
    }

    /// Whether a dialog has been learnt.
    pub(super) fn is_known(&self) -> bool {
        self.uri_end > 0
    }

    /// Forgets everything but the buffer.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        (self.uri_end, self.routes_end, self.next_hop) = (0, 0, None);
    }

    /// Learns the dialog that a message makes. `joined` writes all routes in one row.
    pub(super) fn learn(
        &mut self,
        bytes: &[u8],
        message: &Message,
        side: Side,
        joined: bool,
    ) -> Result<(), DialogError> {
        self.clear();
        let learnt = self.read(bytes, message, side, joined);
        if learnt.is_err() {
            self.clear();
        }
        learnt
    }

    fn read(
        &mut self,
        bytes: &[u8],
        message: &Message,
        side: Side,
        joined: bool,
    ) -> Result<(), DialogError> {
        let contact = message
            .first(HeaderName::Contact)
            .and_then(|row| values(bytes, row).next())
            .and_then(|value| NameAddr::parse(bytes, value).ok())
            .filter(|contact| contact.uri.host.is_some())
            .ok_or(DialogError::Contact)?;
        let mut routes = ArrayVec::<(Span, Uri), ROUTES_MAX>::new();
        for row in message.rows(HeaderName::RecordRoute) {
            for value in values(bytes, row) {
                let route = NameAddr::parse(bytes, value).map_err(|_| DialogError::RecordRoute)?;
                routes
                    .try_push((value, route.uri))
                    .map_err(|_| DialogError::RecordRoute)?;
            }
        }
        // RFC 3261 §12.1.2: the caller takes the Record-Route values in reverse order; §12.1.1:
        // the callee in the order of the request.
        let peer = match side {
            Side::Caller => {
                routes.reverse();
                HeaderName::To
            }
            Side::Callee => HeaderName::From,
        };
        let peer = message.first(peer).ok_or(DialogError::Party)?.value;

        // RFC 3261 §12.2.1.1: without `lr` the first route takes the place of the Request-URI, and
        // the remote target becomes the last route.
        let strict = routes
            .first()
            .filter(|(_, uri)| !uri.has_lr(bytes))
            .copied();
        let first_hop = routes.first().map_or(contact.uri, |(_, uri)| *uri);
        let target = contact.uri.span.of(bytes);
        match strict {
            Some((_, uri)) => self.text.extend_from_slice(uri.span.of(bytes)),
            None => self.text.extend_from_slice(target),
        }
        self.uri_end = self.text.len();
        let skipped = usize::from(strict.is_some());
        let mut open = false;
        for (value, _) in routes.iter().skip(skipped) {
            self.push_route(value.of(bytes), &mut open, joined);
        }
        if strict.is_some() {
            let value = [b"<", target, b">"].concat();
            self.push_route(&value, &mut open, joined);
        }
        if open {
            self.text.extend_from_slice(b"\r\n");
        }
        self.routes_end = self.text.len();
        self.text.extend_from_slice(peer.of(bytes));
        self.next_hop = address_of(bytes, &first_hop);
        Ok(())
    }

    fn push_route(&mut self, value: &[u8], open: &mut bool, joined: bool) {
        let before: &[u8] = match (*open, joined) {
            (false, _) => b"Route: ",
            (true, true) => b", ",
            (true, false) => b"\r\nRoute: ",
        };
        self.text.extend_from_slice(before);
        self.text.extend_from_slice(value);
        *open = true;
    }
}

/// The address that a URI names; `None` for names. RFC 3261 §18.1.1: maddr goes before the host.
pub(super) fn address_of(bytes: &[u8], uri: &Uri) -> Option<SocketAddr> {
    let host = match uri.maddr(bytes) {
        Ok(Some(maddr)) => maddr,
        _ => uri.host?,
    };
    let ip: IpAddr = match host {
        Host::Ip(ip) => ip,
        Host::Name(_) => return None,
    };
    Some(SocketAddr::new(ip, uri.port.unwrap_or(DEFAULT_PORT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(rows: &str, side: Side, joined: bool) -> Result<Dialog, DialogError> {
        let text = format!(
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 198.18.0.9;branch=z9hG4bK1\r\n\
             From: <sip:a@example.com>;tag=f\r\nTo: Bob <sip:b@example.com>;tag=t\r\n\
             Call-ID: 1@x\r\nCSeq: 1 INVITE\r\n{rows}Content-Length: 0\r\n\r\n"
        );
        let mut message = Message::new();
        message.parse(text.as_bytes()).unwrap();
        let mut dialog = Dialog::default();
        dialog
            .learn(text.as_bytes(), &message, side, joined)
            .map(|()| dialog)
    }

    const TWO_PROXIES: &str = "Record-Route: <sip:p2@198.18.0.2;lr>\r\n\
        Record-Route: <sip:p1@198.18.0.1:5070;lr>\r\nContact: <sip:b@198.18.1.11:5062>\r\n";

    /// RFC 3261 §12.1.2: "in reverse order, preserving all URI parameters".
    #[test]
    fn the_caller_reverses_the_record_route() {
        let dialog = learnt(TWO_PROXIES, Side::Caller, false).unwrap();
        assert_eq!(dialog.uri(), b"sip:b@198.18.1.11:5062");
        assert_eq!(
            dialog.routes(),
            b"Route: <sip:p1@198.18.0.1:5070;lr>\r\nRoute: <sip:p2@198.18.0.2;lr>\r\n"
        );
        assert_eq!(dialog.peer(), b"Bob <sip:b@example.com>;tag=t");
        assert_eq!(dialog.next_hop(), Some("198.18.0.1:5070".parse().unwrap()));
    }

    /// RFC 3261 §12.1.1: the callee keeps the order.
    #[test]
    fn the_callee_keeps_the_order_and_rows_may_be_joined() {
        let dialog = learnt(TWO_PROXIES, Side::Callee, true).unwrap();
        assert_eq!(
            dialog.routes(),
            b"Route: <sip:p2@198.18.0.2;lr>, <sip:p1@198.18.0.1:5070;lr>\r\n"
        );
        assert_eq!(dialog.peer(), b"<sip:a@example.com>;tag=f");
        assert_eq!(dialog.next_hop(), Some("198.18.0.2:5060".parse().unwrap()));
    }

    /// RFC 3261 §12.2.1.1: a first route without `lr` goes into the Request-URI.
    #[test]
    fn a_strict_router_gets_its_own_uri() {
        let rows = "Record-Route: <sip:198.18.0.2;lr>, <sip:198.18.0.1>\r\n\
            Contact: sip:b@198.18.1.11\r\n";
        let dialog = learnt(rows, Side::Caller, false).unwrap();
        assert_eq!(dialog.uri(), b"sip:198.18.0.1");
        assert_eq!(
            dialog.routes(),
            b"Route: <sip:198.18.0.2;lr>\r\nRoute: <sip:b@198.18.1.11>\r\n"
        );
        assert_eq!(dialog.next_hop(), Some("198.18.0.1:5060".parse().unwrap()));
    }

    #[test]
    fn without_routes_requests_go_to_the_contact() {
        let rows = "m: \"B, b\" <sip:b@[2001:db8::11]:5062;ob>;expires=60\r\n";
        let dialog = learnt(rows, Side::Caller, false).unwrap();
        assert_eq!(dialog.uri(), b"sip:b@[2001:db8::11]:5062;ob");
        assert_eq!(dialog.routes(), b"");
        assert_eq!(
            dialog.next_hop(),
            Some("[2001:db8::11]:5062".parse().unwrap())
        );
        let named = learnt("Contact: <sip:b@example.com>\r\n", Side::Caller, false).unwrap();
        assert_eq!(named.next_hop(), None);
        let maddr = "Contact: <sip:b@example.com;maddr=198.18.0.7>\r\n";
        let maddr = learnt(maddr, Side::Caller, false).unwrap();
        assert_eq!(maddr.next_hop(), Some("198.18.0.7:5060".parse().unwrap()));
    }

    #[test]
    fn no_dialog_without_a_contact() {
        assert_eq!(
            learnt("", Side::Caller, false).unwrap_err(),
            DialogError::Contact
        );
        let tel = learnt("Contact: <tel:+4512345678>\r\n", Side::Caller, false);
        assert_eq!(tel.unwrap_err(), DialogError::Contact);
    }
}
