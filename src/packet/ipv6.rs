//! IPv6 headers (RFC 8200), without extension headers.

use crate::net::Ipv6Addr;
use crate::verdict::DropReason;

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;

/// Next-header value of the Fragment header (RFC 8200 §4.5).
pub const FRAGMENT_HEADER: u8 = 44;

/// A view of a received packet, its payload complete and without what follows it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// A view of the packet that `bytes` starts with.
    ///
    /// # Errors
    /// `NotUdp` for another version, `Truncated` if the payload is not complete.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, DropReason> {
        let (header, rest) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(DropReason::Truncated)?;
        if header[0] >> 4 != 6 {
            return Err(DropReason::NotUdp);
        }
        // A length of 0 announces a jumbogram (RFC 2675), which has a hop-by-hop header and no
        // room in a frame; here it is an empty payload, too short for UDP.
        let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let payload = rest.get(..payload_len).ok_or(DropReason::Truncated)?;
        Ok(Self { header, payload })
    }

    /// Type of the header that follows.
    pub fn next_header(&self) -> u8 {
        self.header[6]
    }

    /// Hop limit.
    pub fn hop_limit(&self) -> u8 {
        self.header[7]
    }

    /// Source address.
    pub fn src(&self) -> Ipv6Addr {
        self.address(8)
    }

    /// Destination address.
    pub fn dst(&self) -> Ipv6Addr {
        self.address(24)
    }

    /// The payload.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    fn address(&self, offset: usize) -> Ipv6Addr {
        let octets = self
            .header
            .get(offset..)
            .and_then(<[u8]>::first_chunk::<16>);
        octets.map_or(Ipv6Addr::UNSPECIFIED, |octets| {
            Ipv6Addr::from_octets(*octets)
        })
    }
}

/// The values of a header to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// Type of the payload.
    pub next_header: u8,
    /// Bytes of payload.
    pub payload_len: u16,
    /// Hop limit.
    pub hop_limit: u8,
}

impl Repr {
    /// Writes the header. The flow label is 0, "not labelled" (RFC 6437 §2): all packets of a flow
    /// are then hashed by their addresses and ports.
    pub fn emit(&self, header: &mut [u8; HEADER_LEN]) {
        let (fixed, addresses) = header.split_at_mut(8);
        let [len_high, len_low] = self.payload_len.to_be_bytes();
        fixed.copy_from_slice(&[
            0x60,
            0,
            0,
            0,
            len_high,
            len_low,
            self.next_header,
            self.hop_limit,
        ]);
        let (src, dst) = addresses.split_at_mut(16);
        src.copy_from_slice(&self.src.octets());
        dst.copy_from_slice(&self.dst.octets());
    }
}
