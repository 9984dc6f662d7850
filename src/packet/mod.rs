//! Frames as bytes: Ethernet, VLAN, IPv4, IPv6 and UDP, checksums, and editing in place.
//!
//! Owns the way from a received frame to a UDP payload ([`parse`]), the change of that payload
//! inside its frame ([`Buffer`], [`EditList`]), and the way back to a frame ([`emit`]).
//!
//! ```text
//!   chunk start                                                        chunk end
//!   │ headroom          │ L2 │ IP │ UDP │ payload                 │ tailroom │
//!                       └── parse ──────► start..end
//!             start moves left by the growth ◄── EditList::apply
//!      │ L2 │ IP │ UDP │ ◄── emit: headers are written anew in front of the payload
//! ```
//!
//! Guarantees: no function panics for any bytes; nothing allocates; a datagram whose checksum is
//! wrong never becomes a [`Headers`], so no wrong checksum is ever laundered by [`emit`], which
//! computes it in full. Knows nothing of SIP and nothing of sockets. Fragments, IP options and
//! extension headers are the kernel's: the steering program does not send them up.
//!
//! ```
//! use viaduct::packet::{self, Buffer, EditList, LinkHeader, PartialChecksum};
//!
//! let mut chunk = [0; 2048];
//! chunk[1000..1005].copy_from_slice(b"hello");
//! let (src, dst) = ("198.18.0.1:5060".parse().unwrap(), "198.18.0.2:5060".parse().unwrap());
//!
//! let mut edits = EditList::new();
//! edits.replace(0..1, b"J");
//! edits.insert(5, b", bridge");
//! let mut buffer = Buffer::new(&mut chunk, 1000, 1005);
//! edits.apply(&mut buffer).unwrap();
//! let payload = buffer.into_range();
//!
//! let start = packet::emit(&mut chunk, payload.clone(), &LinkHeader::default(), src, dst, 64).unwrap();
//! let frame = &chunk[start..payload.end];
//! let headers = packet::parse(frame, PartialChecksum::Reject).unwrap();
//! assert_eq!((headers.src, headers.dst), (src, dst));
//! assert_eq!(&frame[headers.payload], b"Jello, bridge");
//! ```

mod buffer;
pub mod checksum;
mod edit;
pub mod ethernet;
pub mod ipv4;
pub mod ipv6;
pub mod raw;
mod text;
pub mod udp;
pub mod vlan;

use core::ops::Range;

pub use buffer::{Buffer, NoRoom};
pub use checksum::Sum;
pub use edit::{EditError, EditList, SAVED_EDITS_LEN_MAX};
pub use ethernet::MacAddress;
pub(crate) use text::Short;
pub use text::{Text, Writer};
pub use vlan::{Tag, Tags};

use crate::net::{IpAddr, SocketAddr};
use crate::verdict::DropReason;

/// Whether the device may deliver UDP datagrams whose checksum is not finished yet.
///
/// A datagram that another namespace or guest on the same host sent reaches veth and virtio in the
/// `CHECKSUM_PARTIAL` form (linux/skbuff.h): the field holds the folded sum of the pseudo header
/// alone, and nothing has travelled over a wire that could have damaged the body. From any other
/// device that value is an ordinary wrong checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialChecksum {
    /// The device may: veth, virtio.
    Accept,
    /// A wire is in between: the checksum must be whole.
    Reject,
}

/// What the received UDP checksum said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumState {
    /// RFC 768: zero, the sender computed none. Legal over IPv4 only.
    Absent,
    /// Left unfinished by a sender on this host, see [`PartialChecksum`].
    Partial,
    /// Summed over the whole datagram and right.
    Verified,
}

/// A received frame, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Source MAC address.
    pub src_mac: MacAddress,
    /// Destination MAC address.
    pub dst_mac: MacAddress,
    /// VLAN tags as received, outermost first.
    pub tags: Tags,
    /// Source address and port.
    pub src: SocketAddr,
    /// Destination address and port.
    pub dst: SocketAddr,
    /// The UDP payload, as a range of the frame given to [`parse`].
    pub payload: Range<usize>,
    /// What the UDP checksum said.
    pub checksum: ChecksumState,
}

/// The link-layer part of a frame to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkHeader {
    /// Source MAC address: the egress interface's.
    pub src_mac: MacAddress,
    /// Destination MAC address: the next hop's.
    pub dst_mac: MacAddress,
    /// VLAN tags of the egress interface, outermost first; empty for an untagged frame.
    pub tags: Tags,
}

/// Takes a received frame apart and verifies it in full.
///
/// `frame` starts with the Ethernet header. Bytes after the IP packet (Ethernet padding) are legal
/// and cut off, as are bytes after the UDP datagram.
///
/// # Errors
/// The reason to drop the frame under.
pub fn parse(frame: &[u8], partial: PartialChecksum) -> Result<Headers, DropReason> {
    let link = ethernet::Frame::new_checked(frame)?;
    let (src_ip, dst_ip, packet_start, segment) = match link.ethertype() {
        ethernet::ETHERTYPE_IPV4 => {
            let packet = ipv4::Packet::new_checked(link.payload())?;
            if packet.is_fragment() {
                return Err(DropReason::Fragment);
            }
            if packet.protocol() != udp::PROTOCOL {
                return Err(DropReason::NotUdp);
            }
            let (src, dst) = (packet.src(), packet.dst());
            (
                IpAddr::V4(src),
                IpAddr::V4(dst),
                ipv4::HEADER_LEN,
                packet.payload(),
            )
        }
        ethernet::ETHERTYPE_IPV6 => {
            let packet = ipv6::Packet::new_checked(link.payload())?;
            match packet.next_header() {
                udp::PROTOCOL => {}
                ipv6::FRAGMENT_HEADER => return Err(DropReason::Fragment),
                _ => return Err(DropReason::NotUdp),
            }
            let (src, dst) = (packet.src(), packet.dst());
            (
                IpAddr::V6(src),
                IpAddr::V6(dst),
                ipv6::HEADER_LEN,
                packet.payload(),
            )
        }
        _ => return Err(DropReason::NotUdp),
    };
    let datagram = udp::Datagram::new_checked(segment)?;
    if !is_answerable(src_ip) || datagram.src_port() == 0 {
        return Err(DropReason::SourceInvalid);
    }
    let checksum = datagram.verify(src_ip, dst_ip, partial)?;
    let start = link.header_len() + packet_start + udp::HEADER_LEN;
    Ok(Headers {
        src_mac: link.src(),
        dst_mac: link.dst(),
        tags: link.tags(),
        src: SocketAddr::new(src_ip, datagram.src_port()),
        dst: SocketAddr::new(dst_ip, datagram.dst_port()),
        payload: start..start + datagram.payload().len(),
        checksum,
    })
}

/// Whether an answer to `source` could ever be sent. The kernel drops these on its own path
/// ("martians", net/ipv4/route.c; IPv4-mapped: net/ipv6/ip6_input.c); XDP comes before it.
fn is_answerable(source: IpAddr) -> bool {
    match source {
        IpAddr::V4(v4) => {
            !(v4.octets()[0] == 0 || v4.is_loopback() || v4.is_multicast() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => {
            !(v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_multicast()
                || v6.to_ipv4_mapped().is_some())
        }
    }
}

/// Why a frame could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmitError {
    /// Source and destination are of different IP versions.
    AddressFamily,
    /// The headers do not fit in front of the payload, or the payload is not inside the frame.
    NoRoom,
    /// The payload is longer than a UDP datagram can be.
    TooLong,
}

impl From<EmitError> for DropReason {
    fn from(error: EmitError) -> Self {
        match error {
            EmitError::AddressFamily => Self::NoEgress,
            EmitError::NoRoom | EmitError::TooLong => Self::NoRoom,
        }
    }
}

/// Bytes of the headers that [`emit`] writes in front of a payload.
pub fn headers_len(link: &LinkHeader, dst: IpAddr) -> usize {
    let packet = if dst.is_ipv4() {
        ipv4::HEADER_LEN
    } else {
        ipv6::HEADER_LEN
    };
    ethernet::HEADER_LEN + link.tags.len() * vlan::TAG_LEN + packet + udp::HEADER_LEN
}

/// Writes UDP, IP, VLAN and Ethernet headers directly in front of `payload`, which is a range of
/// `bytes`, and computes both checksums in full. The frame is then `returned..payload.end`.
///
/// Headers are written, never moved: what stood in front of the payload is overwritten.
///
/// # Errors
/// See [`EmitError`]; `bytes` is then unchanged.
pub fn emit(
    bytes: &mut [u8],
    payload: Range<usize>,
    link: &LinkHeader,
    src: SocketAddr,
    dst: SocketAddr,
    ttl: u8,
) -> Result<usize, EmitError> {
    let headers_len = headers_len(link, dst.ip());
    let start = payload
        .start
        .checked_sub(headers_len)
        .ok_or(EmitError::NoRoom)?;
    let payload_len = payload.len();
    let frame = bytes.get_mut(start..payload.end).ok_or(EmitError::NoRoom)?;
    let (headers, payload) = frame
        .split_at_mut_checked(headers_len)
        .ok_or(EmitError::NoRoom)?;
    debug_assert_eq!(payload.len(), payload_len);

    // From the inside out: each header is taken from the end of what is left.
    let (headers, udp) = headers.split_last_chunk_mut().ok_or(EmitError::NoRoom)?;
    let datagram_len =
        u16::try_from(payload_len + udp::HEADER_LEN).map_err(|_| EmitError::TooLong)?;
    let (headers, ethertype) = match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let (headers, ip) = headers.split_last_chunk_mut().ok_or(EmitError::NoRoom)?;
            let repr = ipv4::Repr {
                src,
                dst,
                protocol: udp::PROTOCOL,
                payload_len: datagram_len,
                ttl,
            };
            repr.emit(ip).map_err(|_| EmitError::TooLong)?;
            (headers, ethernet::ETHERTYPE_IPV4)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let (headers, ip) = headers.split_last_chunk_mut().ok_or(EmitError::NoRoom)?;
            let repr = ipv6::Repr {
                src,
                dst,
                next_header: udp::PROTOCOL,
                payload_len: datagram_len,
                hop_limit: ttl,
            };
            repr.emit(ip);
            (headers, ethernet::ETHERTYPE_IPV6)
        }
        _ => return Err(EmitError::AddressFamily),
    };
    udp::emit(udp, src, dst, datagram_len, payload);
    ethernet::emit(headers, link, ethertype).map_err(|_| EmitError::NoRoom)?;
    Ok(start)
}

#[cfg(test)]
mod tests;
