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

/// A frame as `emit` makes it.
fn frame(src: &str, dst: &str, tags: Tags, payload: &[u8]) -> Vec<u8> {
    let link = LinkHeader {
        src_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        dst_mac: MacAddress([2, 0, 0, 0, 0, 2]),
        tags,
    };
    let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let len = headers_len(&link, dst.ip());
    let mut bytes = vec![0; len];
    bytes.extend(payload);
    let end = bytes.len();
    assert_eq!(
        emit(&mut bytes, len..end, &link, src, dst, ipv4::TTL),
        Ok(0)
    );
    bytes
}

fn v4_frame(payload: &[u8]) -> Vec<u8> {
    frame("198.18.0.1:5060", "198.18.0.2:5062", Tags::NONE, payload)
}

fn v6_frame(payload: &[u8]) -> Vec<u8> {
    frame(
        "[2001:db8::1]:5060",
        "[2001:db8::2]:5062",
        Tags::NONE,
        payload,
    )
}

fn tagged_frame(payload: &[u8]) -> Vec<u8> {
    let outer = Tag {
        tpid: vlan::TPID_SERVICE,
        tci: 0x6064,
    };
    let inner = Tag {
        tpid: vlan::TPID_CUSTOMER,
        tci: 0x0007,
    };
    frame(
        "198.18.0.1:5060",
        "198.18.0.2:5062",
        Tags::two(outer, inner),
        payload,
    )
}

/// Computes the IPv4 header checksum anew after a change.
fn repair_ip(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let checksum = Sum::of(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}

fn verdict(frame: &[u8]) -> Result<ChecksumState, DropReason> {
    parse(frame, PartialChecksum::Reject).map(|headers| headers.checksum)
}

/// The bytes on the wire, written out by hand.
#[test]
fn a_frame_byte_by_byte() {
    let frame = v4_frame(b"hi");
    let expected = [
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00, // Ethernet
        0x45, 0, 0, 30, 0, 0, 0x40, 0, 64, 17, 0xae, 0xa7, // IPv4: 30 bytes, DF, TTL 64, UDP
        198, 18, 0, 1, 198, 18, 0, 2, //
        0x13, 0xc4, 0x13, 0xc6, 0, 10, 0xe3, 0xbe, // UDP: 5060 to 5062, 10 bytes
        b'h', b'i',
    ];
    // c612 + 1 + c612 + 2 + 11 + a + 13c4 + 13c6 + a + 6869 = 21c3f, folded 1c41, inverted e3be.
    assert_eq!(frame, expected);
}

#[test]
fn tags_are_kept_in_order() {
    let frame = tagged_frame(b"x");
    assert_eq!(
        &frame[12..22],
        [0x88, 0xa8, 0x60, 0x64, 0x81, 0x00, 0x00, 0x07, 0x08, 0x00]
    );
    let headers = parse(&frame, PartialChecksum::Reject).unwrap();
    assert_eq!(
        headers
            .tags
            .as_slice()
            .iter()
            .map(|tag| tag.vlan_id())
            .collect::<Vec<_>>(),
        [100, 7]
    );
    // A third tag is for the kernel.
    let mut three = frame[..12].to_vec();
    three.extend([0x81, 0x00, 0, 1]);
    three.extend(&frame[12..]);
    assert_eq!(verdict(&three), Err(DropReason::NotUdp));
}

/// Every frame cut at every byte: a reason, never a panic, never a shorter message.
#[test]
fn truncated_anywhere_is_a_drop() {
    for frame in [
        v4_frame(b"a message"),
        v6_frame(b"a message"),
        tagged_frame(b"a message"),
    ] {
        assert_eq!(verdict(&frame), Ok(ChecksumState::Verified));
        for len in 0..frame.len() {
            assert_eq!(
                verdict(&frame[..len]),
                Err(DropReason::Truncated),
                "{len} bytes"
            );
        }
    }
}

/// One flipped bit anywhere from the IP header on is never a message with other content.
#[test]
fn one_flipped_bit_is_a_drop() {
    for frame in [v4_frame(b"odd message"), v6_frame(b"odd message")] {
        let whole = parse(&frame, PartialChecksum::Reject).unwrap();
        for bit in 14 * 8..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let Ok(headers) = parse(&damaged, PartialChecksum::Reject) else {
                continue;
            };
            // IPv6 has no header checksum: traffic class, flow label and hop limit may differ.
            assert_eq!(frame[14] >> 4, 6, "bit {bit}");
            assert_eq!(headers, whole, "bit {bit}");
        }
        let body = whole.payload.start * 8..whole.payload.end * 8;
        for bit in body {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verdict(&damaged), Err(DropReason::UdpChecksum), "bit {bit}");
        }
    }
}

/// Ethernet pads to 60 bytes: what follows the packet is cut.
#[test]
fn padding_is_cut() {
    for mut frame in [v4_frame(b"hi"), v6_frame(b"hi")] {
        let payload = parse(&frame, PartialChecksum::Reject).unwrap().payload;
        frame.extend([0xff; 20]);
        let headers = parse(&frame, PartialChecksum::Reject).unwrap();
        assert_eq!(headers.payload, payload);
        assert_eq!(&frame[headers.payload], b"hi");
    }
}

/// A UDP length less than the packet's is legal and cut (RFC 9868 puts options behind it); one that
/// is longer, or shorter than the header, is not.
#[test]
fn the_udp_length_is_inside_the_packet() {
    let with_udp_len = |len: u16| {
        let mut frame = v4_frame(b"abcd");
        frame[38..40].copy_from_slice(&len.to_be_bytes());
        frame[40..42].fill(0);
        parse(&frame, PartialChecksum::Reject).map(|headers| frame[headers.payload].to_vec())
    };
    assert_eq!(with_udp_len(12).unwrap(), b"abcd");
    assert_eq!(with_udp_len(11).unwrap(), b"abc");
    assert_eq!(with_udp_len(8).unwrap(), b"");
    for len in [0, 7, 13, 65_535] {
        assert_eq!(with_udp_len(len), Err(DropReason::Truncated), "{len}");
    }
}

/// RFC 768: zero is "no checksum" over IPv4. RFC 8200 §8.1: over IPv6 it is discarded.
#[test]
fn a_zero_checksum_is_legal_over_ipv4_only() {
    let mut frame = v4_frame(b"unsummed");
    frame[40..42].fill(0);
    assert_eq!(verdict(&frame), Ok(ChecksumState::Absent));
    let mut frame = v6_frame(b"unsummed");
    frame[60..62].fill(0);
    assert_eq!(verdict(&frame), Err(DropReason::UdpChecksum));
}

/// A body that makes the checksum come out as zero is sent with all ones, and received.
#[test]
fn a_checksum_of_zero_is_sent_as_ones() {
    let checksum = |frame: &[u8], at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    for (frame, at) in [(v4_frame as fn(&[u8]) -> Vec<u8>, 40), (v6_frame, 60)] {
        // With 0 in the body the field is the complement of the rest's sum; put there it makes 0.
        let body = checksum(&frame(&[0, 0]), at).to_be_bytes();
        let frame = frame(&body);
        assert_eq!(checksum(&frame, at), 0xffff);
        assert_eq!(verdict(&frame), Ok(ChecksumState::Verified));
    }
}

/// The form in which veth and virtio deliver what was sent on the same host: accepted from them
/// only, and only that value.
#[test]
fn the_partial_form_is_accepted_only_where_the_device_may_deliver_it() {
    for (mut frame, at) in [(v4_frame(b"local"), 40), (v6_frame(b"local"), 60)] {
        let headers = parse(&frame, PartialChecksum::Accept).unwrap();
        assert_eq!(headers.checksum, ChecksumState::Verified);
        let len = u16::try_from(headers.payload.len() + udp::HEADER_LEN).unwrap();
        let pseudo = Sum::pseudo_header(headers.src.ip(), headers.dst.ip(), udp::PROTOCOL, len);
        frame[at..at + 2].copy_from_slice(&pseudo.folded().to_be_bytes());
        let accepted = parse(&frame, PartialChecksum::Accept).unwrap();
        assert_eq!(accepted.checksum, ChecksumState::Partial);
        assert_eq!(verdict(&frame), Err(DropReason::UdpChecksum));

        frame[at] ^= 1;
        let damaged = parse(&frame, PartialChecksum::Accept).map(|headers| headers.checksum);
        assert_eq!(damaged, Err(DropReason::UdpChecksum));
    }
}

#[test]
fn what_xdp_should_not_have_sent_up_is_a_drop() {
    let change = |at: usize, value: u8| {
        let mut frame = v4_frame(b"x");
        frame[at] = value;
        repair_ip(&mut frame);
        verdict(&frame)
    };
    assert_eq!(change(14, 0x46), Err(DropReason::NotUdp), "IP options");
    assert_eq!(
        change(14, 0x65),
        Err(DropReason::NotUdp),
        "version 6 under the type of 4"
    );
    assert_eq!(change(12, 0x05), Err(DropReason::NotUdp), "an 802.3 length");
    assert_eq!(change(23, 6), Err(DropReason::NotUdp), "TCP");
    assert_eq!(
        change(20, 0x20),
        Err(DropReason::Fragment),
        "more fragments"
    );
    assert_eq!(change(21, 1), Err(DropReason::Fragment), "fragment offset");
    assert_eq!(
        change(17, 19),
        Err(DropReason::Truncated),
        "shorter than its header"
    );
    assert_eq!(
        change(18, 7),
        Ok(ChecksumState::Verified),
        "any identification"
    );
    let mut damaged = v4_frame(b"x");
    damaged[18] = 7;
    assert_eq!(verdict(&damaged), Err(DropReason::IpChecksum));

    let change = |at: usize, value: u8| {
        let mut frame = v6_frame(b"x");
        frame[at] = value;
        verdict(&frame)
    };
    assert_eq!(change(20, ipv6::FRAGMENT_HEADER), Err(DropReason::Fragment));
    assert_eq!(change(20, 0), Err(DropReason::NotUdp), "hop-by-hop options");
    assert_eq!(
        change(14, 0x45),
        Err(DropReason::NotUdp),
        "version 4 under the type of 6"
    );
    assert_eq!(
        change(19, 0),
        Err(DropReason::Truncated),
        "length 0, a jumbogram"
    );
}

#[test]
fn a_source_that_cannot_be_answered_is_a_drop() {
    let from = |src: &str| verdict(&frame(src, "198.18.0.2:5060", Tags::NONE, b"x"));
    for src in [
        "0.0.0.0:1",
        "0.1.2.3:1",
        "127.0.0.1:1",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "198.18.0.1:0",
    ] {
        assert_eq!(from(src), Err(DropReason::SourceInvalid), "{src}");
    }
    assert_eq!(from("198.18.0.1:1"), Ok(ChecksumState::Verified));
    let from = |src: &str| verdict(&frame(src, "[2001:db8::2]:5060", Tags::NONE, b"x"));
    for src in [
        "[::]:1",
        "[::1]:1",
        "[ff02::1]:1",
        "[::ffff:198.18.0.1]:1",
        "[2001:db8::1]:0",
    ] {
        assert_eq!(from(src), Err(DropReason::SourceInvalid), "{src}");
    }
    assert_eq!(from("[fe80::1]:1"), Ok(ChecksumState::Verified));
}

#[test]
fn what_cannot_be_emitted_changes_nothing() {
    let (v4, v6) = (
        "198.18.0.1:1".parse().unwrap(),
        "[2001:db8::1]:1".parse().unwrap(),
    );
    let link = LinkHeader::default();
    let emit = |len: usize, range: Range<usize>, src, dst| {
        let mut bytes = vec![0xa5; len];
        let result = emit(&mut bytes, range, &link, src, dst, ipv4::TTL);
        if result.is_err() {
            assert!(bytes.iter().all(|byte| *byte == 0xa5));
        }
        result
    };
    assert_eq!(emit(100, 42..100, v4, v4), Ok(0));
    assert_eq!(emit(100, 41..100, v4, v4), Err(EmitError::NoRoom));
    assert_eq!(emit(100, 62..100, v6, v6), Ok(0));
    assert_eq!(emit(100, 61..100, v6, v6), Err(EmitError::NoRoom));
    assert_eq!(emit(100, 50..101, v4, v4), Err(EmitError::NoRoom));
    assert_eq!(
        emit(100, Range { start: 60, end: 50 }, v4, v4),
        Err(EmitError::NoRoom)
    );
    assert_eq!(
        emit(100, Range { start: 60, end: 10 }, v4, v4),
        Err(EmitError::NoRoom)
    );
    assert_eq!(emit(200, 100..200, v4, v6), Err(EmitError::AddressFamily));
    assert_eq!(emit(200, 100..200, v6, v4), Err(EmitError::AddressFamily));
    // 65,507 bytes over IPv4 and 65,527 over IPv6 are the most.
    assert_eq!(emit(70_000, 100..100 + 65_507, v4, v4), Ok(58));
    assert_eq!(
        emit(70_000, 100..100 + 65_508, v4, v4),
        Err(EmitError::TooLong)
    );
    assert_eq!(emit(70_000, 100..100 + 65_527, v6, v6), Ok(38));
    assert_eq!(
        emit(70_000, 100..100 + 65_528, v6, v6),
        Err(EmitError::TooLong)
    );
}

proptest! {
    #[test]
    fn any_bytes_at_all(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes, PartialChecksum::Accept);
    }

    /// Near the real thing: a frame with a few bytes changed still gives ranges inside it.
    #[test]
    fn a_mutated_frame_stays_inside_itself(
        kind in 0usize..3,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut frame = [v4_frame, v6_frame, tagged_frame][kind](b"INVITE sip:a SIP/2.0\r\n\r\n");
        for (at, value) in changes {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        frame.truncate(keep.index(frame.len() + 1).max(frame.len() / 2));
        if let Ok(headers) = parse(&frame, PartialChecksum::Accept) {
            prop_assert!(headers.payload.start <= headers.payload.end);
            prop_assert!(headers.payload.end <= frame.len());
        }
    }
}
