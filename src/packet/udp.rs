//! UDP headers (RFC 768; over IPv6 RFC 8200 §8.1).

use super::checksum::Sum;
use super::{ChecksumState, PartialChecksum};
use crate::net::{IpAddr, SocketAddr};
use crate::verdict::DropReason;

/// Bytes of a header.
pub const HEADER_LEN: usize = 8;

/// IP protocol number of UDP.
pub const PROTOCOL: u8 = 17;

/// A view of a received datagram, complete and without what follows it.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    header: &'a [u8; HEADER_LEN],
    /// Header and payload, as the checksum covers them.
    bytes: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// A view of the datagram that `bytes` starts with, or `Truncated`.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, DropReason> {
        let header = bytes
            .first_chunk::<HEADER_LEN>()
            .ok_or(DropReason::Truncated)?;
        // The IP packet may be longer than the datagram (RFC 9868 puts options there): cut, as the
        // kernel does.
        let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let bytes = bytes.get(..len).ok_or(DropReason::Truncated)?;
        let payload = bytes.get(HEADER_LEN..).ok_or(DropReason::Truncated)?;
        Ok(Self {
            header,
            bytes,
            payload,
        })
    }

    /// Source port.
    pub fn src_port(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// Destination port.
    pub fn dst_port(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// The checksum field.
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.header[6], self.header[7]])
    }

    /// The payload.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Verifies the checksum over pseudo header, header and payload.
    ///
    /// # Errors
    /// `UdpChecksum` if it is wrong, or absent over IPv6.
    pub fn verify(
        &self,
        src: IpAddr,
        dst: IpAddr,
        partial: PartialChecksum,
    ) -> Result<ChecksumState, DropReason> {
        if self.checksum() == 0 {
            // RFC 768: "an all zero transmitted checksum value means that the transmitter
            // generated no checksum". RFC 8200 §8.1: over IPv6 such a packet is discarded.
            return if src.is_ipv4() {
                Ok(ChecksumState::Absent)
            } else {
                Err(DropReason::UdpChecksum)
            };
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "cut to a u16 length in new_checked"
        )]
        let pseudo = Sum::pseudo_header(src, dst, PROTOCOL, self.bytes.len() as u16);
        if partial == PartialChecksum::Accept && self.checksum() == pseudo.folded() {
            return Ok(ChecksumState::Partial);
        }
        if pseudo.and(Sum::of(self.bytes)).is_valid() {
            Ok(ChecksumState::Verified)
        } else {
            Err(DropReason::UdpChecksum)
        }
    }
}

/// Writes the header of a datagram with `payload`, checksum included. `len` is that of header and
/// payload.
pub(super) fn emit(
    header: &mut [u8; HEADER_LEN],
    src: SocketAddr,
    dst: SocketAddr,
    len: u16,
    payload: &[u8],
) {
    let sum = Sum::pseudo_header(src.ip(), dst.ip(), PROTOCOL, len)
        .and(Sum::word(src.port()))
        .and(Sum::word(dst.port()))
        .and(Sum::word(len))
        .and(Sum::of(payload));
    // RFC 768: a checksum that comes out as zero is sent as all ones, for zero means none.
    let checksum = match sum.checksum() {
        0 => 0xffff,
        checksum => checksum,
    };
    let [s0, s1] = src.port().to_be_bytes();
    let [d0, d1] = dst.port().to_be_bytes();
    let [l0, l1] = len.to_be_bytes();
    let [c0, c1] = checksum.to_be_bytes();
    *header = [s0, s1, d0, d1, l0, l1, c0, c1];
}
