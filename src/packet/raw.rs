//! IP and UDP headers without a link layer, for showing a datagram that has none.

use super::{ipv4, ipv6, udp};
use crate::net::{IpAddr, SocketAddr};

/// Bytes of the longest headers.
pub const HEADERS_LEN_MAX: usize = ipv6::HEADER_LEN + udp::HEADER_LEN;

/// The headers of a datagram of `len` bytes from `src` to `dst`, of which `payload` is the front.
///
/// Of a datagram that is not there in full no UDP checksum can be computed: it is 0 then. `None` if
/// the addresses are of two families or the datagram is longer than one can be.
pub fn headers<'a>(
    room: &'a mut [u8; HEADERS_LEN_MAX],
    src: SocketAddr,
    dst: SocketAddr,
    payload: &[u8],
    len: usize,
) -> Option<&'a [u8]> {
    let datagram_len = u16::try_from(len.checked_add(udp::HEADER_LEN)?).ok()?;
    let ip_len = match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let repr = ipv4::Repr {
                src,
                dst,
                protocol: udp::PROTOCOL,
                payload_len: datagram_len,
                ttl: ipv4::TTL,
            };
            repr.emit(room.first_chunk_mut()?).ok()?;
            ipv4::HEADER_LEN
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let repr = ipv6::Repr {
                src,
                dst,
                next_header: udp::PROTOCOL,
                payload_len: datagram_len,
                hop_limit: ipv4::TTL,
            };
            repr.emit(room.first_chunk_mut()?);
            ipv6::HEADER_LEN
        }
        _ => return None,
    };
    let header = room.get_mut(ip_len..)?.first_chunk_mut()?;
    udp::emit(header, src, dst, datagram_len, payload);
    if payload.len() != len {
        let [.., high, low] = header;
        (*high, *low) = (0, 0);
    }
    room.get(..ip_len + udp::HEADER_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{ChecksumState, PartialChecksum};

    #[test]
    fn headers_are_read_as_they_were_meant() {
        for (src, dst) in [
            ("198.18.0.1:5060", "198.18.0.2:5070"),
            ("[2001:db8::1]:5060", "[2001:db8::2]:5070"),
        ] {
            let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
            let mut room = [0; HEADERS_LEN_MAX];
            let payload = b"OPTIONS";
            let mut bytes = headers(&mut room, src, dst, payload, payload.len())
                .unwrap()
                .to_vec();
            bytes.extend_from_slice(payload);
            let segment = if src.is_ipv4() {
                let packet = ipv4::Packet::new_checked(&bytes).unwrap();
                assert_eq!(IpAddr::V4(packet.src()), src.ip());
                assert_eq!(IpAddr::V4(packet.dst()), dst.ip());
                packet.payload()
            } else {
                let packet = ipv6::Packet::new_checked(&bytes).unwrap();
                assert_eq!(IpAddr::V6(packet.src()), src.ip());
                packet.payload()
            };
            let datagram = udp::Datagram::new_checked(segment).unwrap();
            assert_eq!(datagram.payload(), payload);
            assert_eq!(datagram.dst_port(), 5070);
            let state = datagram.verify(src.ip(), dst.ip(), PartialChecksum::Reject);
            assert_eq!(state, Ok(ChecksumState::Verified));
        }
    }

    #[test]
    fn a_part_has_no_checksum_and_what_cannot_be_has_no_headers() {
        let src = "198.18.0.1:5060".parse().unwrap();
        let mut room = [0; HEADERS_LEN_MAX];
        let bytes = headers(&mut room, src, src, b"OPT", 7).unwrap();
        assert_eq!(bytes[24..28], [0, 15, 0, 0]);
        assert!(headers(&mut room, src, src, b"", 65_508).is_none());
        assert!(headers(&mut room, src, src, b"", usize::MAX).is_none());
        let other = "[2001:db8::1]:5060".parse().unwrap();
        assert!(headers(&mut room, src, other, b"", 0).is_none());
    }
}
