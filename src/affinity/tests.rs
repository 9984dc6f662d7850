//! Tests across the keys: what belongs together comes out equal, what differs differs.

use proptest::prelude::*;

use super::*;
use crate::limits::{RECORD_ROUTE_ROW_LEN_MAX_IPV4, VIA_ROW_LEN_MAX_IPV4};
use crate::net::{Endpoint, IpAddr, ListenerIndex, Protocol, ServerId, SocketAddr};

fn keys() -> Keys {
    let bytes = core::array::from_fn(|index| u8::try_from(index).unwrap());
    Keys::new(&Secret::from_bytes(bytes).unwrap())
}

fn next_hop(text: &str) -> Endpoint {
    Endpoint {
        address: text.parse().unwrap(),
        protocol: Protocol::Udp,
    }
}

fn input<'a>(keys: &Keys, branch: &'a [u8]) -> BranchInput<'a> {
    BranchInput {
        branch,
        sent_by: SentBy::Ip("198.18.0.1".parse().unwrap()),
        port: Some(5060),
        call_id: keys.call_id_hash(b"a84b4c76e66710@pc33"),
        cseq: 314_159,
        via: b"SIP/2.0/UDP 198.18.0.1:5060",
        from_tag: b"1928301774",
        request_uri: b"sip:bob@example.com",
    }
}

fn token(flow: Option<&str>) -> RouteToken {
    RouteToken {
        server: ServerId(0xdead_beef),
        flow: flow.map(next_hop),
        listener: ListenerIndex(31),
        nat: true,
        pair: Pair::Farm,
        initiator: keys().tag_hash(b"1928301774"),
    }
}

/// Matrix A35: the whole IPv4 `Via` row of the worst address is within its budget.
#[test]
fn via_row_is_within_its_budget() {
    let keys = keys();
    let branch = keys.branch(Mode::Stateless, 0, &input(&keys, b"z9hG4bKx"));
    let parameter = ViaParameter {
        peer: ServerId(u32::MAX),
        listener: ListenerIndex(31),
        node: NodeId(u16::MAX),
        flags: 15,
    };
    let value = parameter.encode(&keys, &branch, next_hop("255.255.255.255:65535"));
    let mut row = b"Via: SIP/2.0/UDP 255.255.255.255:65535;branch=".to_vec();
    row.extend_from_slice(&branch);
    row.extend_from_slice(b";v=");
    row.extend_from_slice(&value);
    row.extend_from_slice(b"\r\n");
    assert_eq!(row.len(), VIA_ROW_LEN_MAX_IPV4);
}

#[test]
fn record_route_row_is_within_its_budget() {
    let keys = keys();
    let token = token(Some("255.255.255.255:65535"));
    let text = token.seal(&keys, Binding::Dialog(CallIdHash(1)));
    let mut row = b"Record-Route: <sip:".to_vec();
    row.extend_from_slice(&text);
    row.extend_from_slice(b"@255.255.255.255:65535;lr=on>\r\n");
    assert!(row.len() <= RECORD_ROUTE_ROW_LEN_MAX_IPV4, "{}", row.len());
}

proptest! {
    #[test]
    fn tokens_come_back(server: u32, port: u16, ip: IpAddr, listener in 0..32u8, nat: bool,
                        call_id: u64, tag: Vec<u8>, flow in 0..3u8) {
        let keys = keys();
        let token = RouteToken {
            server: ServerId(server),
            flow: (flow > 0).then(|| Endpoint {
                address: SocketAddr::new(crate::net::canonical(ip), port),
                protocol: if flow == 1 { Protocol::Udp } else { Protocol::Wss },
            }),
            listener: ListenerIndex(listener),
            nat,
            pair: Pair::Outside,
            initiator: keys.tag_hash(&tag),
        };
        let binding = Binding::Dialog(CallIdHash(call_id));
        let text = token.seal(&keys, binding);
        prop_assert_eq!(RouteToken::open(&keys, &text, binding), Ok(token));
        prop_assert_eq!(
            RouteToken::open(&keys, &text.to_ascii_uppercase(), binding), Ok(token));
        prop_assert_eq!(
            RouteToken::open(&keys, &text, Binding::Path), Err(TokenError::OtherCallId));
    }
}
