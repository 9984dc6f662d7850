//! A phone behind a NAT: what it writes about itself, and the address that we see.

use viaduct::affinity::{Binding, RouteToken};

use crate::fixture::*;

/// The phone's own address, which means nothing outside its network.
pub(crate) const INSIDE: &str = "192.168.1.5:5060";
/// Where its NAT shows it.
pub(crate) const FLOW: &str = "203.0.113.50:31337";
/// Where its NAT shows it later.
pub(crate) const NEWER: &str = "203.0.113.50:40404";

/// The configuration with another mode of NAT help at its first listener.
pub(crate) fn with_nat(config: &str, mode: &str) -> String {
    let table = "[[listeners]]";
    config.replacen(table, &format!("{table}\nnat = \"{mode}\""), 1)
}

/// An INVITE with this sent-by (and Via parameters) and Contact.
#[track_caller]
pub(crate) fn invite_of(call_id: &str, sent_by: &str, contact: &str) -> Vec<u8> {
    let bytes = invite(call_id, "z9hG4bK1");
    let bytes = replaced(&bytes, "UDP 198.18.200.7:5060;", &format!("UDP {sent_by};"));
    if contact.is_empty() {
        replaced(&bytes, "Contact: <sip:alice@198.18.200.7:5060>\r\n", "")
    } else {
        replaced(&bytes, "<sip:alice@198.18.200.7:5060>", contact)
    }
}

/// The token in our lowest Record-Route or Path URI.
#[track_caller]
pub(crate) fn token_of(lab: &Lab, uri: &str, binding: Binding) -> RouteToken {
    let user = uri.split(['@', ':']).nth(1).unwrap();
    RouteToken::open(&lab.keys, user.as_bytes(), binding).unwrap()
}

/// The flow in the token of a request on its way to a server, and whether it counts more than
/// a Contact.
#[track_caller]
pub(crate) fn flow_of(lab: &Lab, sent: &Sent) -> Option<(String, bool)> {
    let call_id = row(&sent.bytes, "Call-ID");
    let hash = lab.keys.call_id_hash(call_id.as_bytes());
    let ours = rows(&sent.bytes, "Record-Route").remove(0);
    let token = token_of(lab, &ours, Binding::Dialog(hash));
    token.flow.map(|flow| (flow.address.to_string(), token.nat))
}
