//! Whole frames: what `emit` writes `parse` reads, and nothing else passes.

use proptest::prelude::*;

use super::*;

fn address() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let port = 1u16..;
    let v4 = (any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(src, dst)| (src.into(), dst.into()));
    let v6 = (any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(|(src, dst)| (src.into(), dst.into()));
    (prop_oneof![v4, v6], port, any::<u16>())
        .prop_filter("an answerable source", |((src, _), _, _)| {
            is_answerable(*src)
        })
        .prop_map(|((src, dst), src_port, dst_port)| {
            (
                SocketAddr::new(src, src_port),
                SocketAddr::new(dst, dst_port),
            )
        })
}

fn link() -> impl Strategy<Value = LinkHeader> {
    let tag = (
        prop_oneof![Just(vlan::TPID_CUSTOMER), Just(vlan::TPID_SERVICE)],
        any::<u16>(),
    )
        .prop_map(|(tpid, tci)| Tag { tpid, tci });
    let tags = prop_oneof![
        Just(Tags::NONE),
        tag.clone().prop_map(Tags::one),
        (tag.clone(), tag).prop_map(|(outer, inner)| Tags::two(outer, inner)),
    ];
    (any::<[u8; 6]>(), any::<[u8; 6]>(), tags).prop_map(|(src, dst, tags)| LinkHeader {
        src_mac: MacAddress(src),
        dst_mac: MacAddress(dst),
        tags,
    })
}

proptest! {
    #[test]
    fn parse_reads_what_emit_wrote(
        (src, dst) in address(),
        link in link(),
        payload in proptest::collection::vec(any::<u8>(), 0..600),
        padding in 0usize..50,
    ) {
        let mut bytes = vec![0xa5; 100 + payload.len() + padding];
        let range = 100..100 + payload.len();
        bytes[range.clone()].copy_from_slice(&payload);
        let start = emit(&mut bytes, range.clone(), &link, src, dst, ipv4::TTL).unwrap();
        prop_assert!(bytes[..start].iter().all(|byte| *byte == 0xa5));

        let headers = parse(&bytes[start..], PartialChecksum::Reject).unwrap();
        prop_assert_eq!((headers.src, headers.dst), (src, dst));
        prop_assert_eq!((headers.src_mac, headers.dst_mac), (link.src_mac, link.dst_mac));
        prop_assert_eq!(headers.tags, link.tags);
        prop_assert_eq!(headers.checksum, ChecksumState::Verified);
        prop_assert_eq!(&bytes[start..][headers.payload], payload);
    }
}
