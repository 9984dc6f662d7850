//! IPv4 headers (RFC 791).

use super::checksum::Sum;
use crate::net::Ipv4Addr;
use crate::verdict::DropReason;

/// Bytes of a header without options, the only kind there is here.
pub const HEADER_LEN: usize = 20;

/// TTL of what we send (RFC 1700: the recommended default).
pub const TTL: u8 = 64;

const VERSION_IHL: u8 = 0x45;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// A view of a received packet: header undamaged, payload complete and without what follows it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// A view of the packet that `bytes` starts with.
    ///
    /// # Errors
    /// `NotUdp` for another version or for options (the kernel's affair: it knows whether source
    /// routes are allowed), `Truncated` if a length does not fit, `IpChecksum`.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, DropReason> {
        let (header, rest) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(DropReason::Truncated)?;
        if header[0] != VERSION_IHL {
            return Err(DropReason::NotUdp);
        }
        // The frame may be longer than the packet: Ethernet pads to 60 bytes.
        let payload_len = usize::from(u16::from_be_bytes([header[2], header[3]]))
            .checked_sub(HEADER_LEN)
            .ok_or(DropReason::Truncated)?;
        let payload = rest.get(..payload_len).ok_or(DropReason::Truncated)?;
        if !Sum::of(header).is_valid() {
            return Err(DropReason::IpChecksum);
        }
        Ok(Self { header, payload })
    }

    /// Whether the packet is a fragment of a larger one, the first included.
    pub fn is_fragment(&self) -> bool {
        let field = u16::from_be_bytes([self.header[6], self.header[7]]);
        field & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    /// Time to live.
    pub fn ttl(&self) -> u8 {
        self.header[8]
    }

    /// Protocol of the payload.
    pub fn protocol(&self) -> u8 {
        self.header[9]
    }

    /// Source address.
    pub fn src(&self) -> Ipv4Addr {
        let [.., a, b, c, d, _, _, _, _] = *self.header;
        Ipv4Addr::new(a, b, c, d)
    }

    /// Destination address.
    pub fn dst(&self) -> Ipv4Addr {
        let [.., a, b, c, d] = *self.header;
        Ipv4Addr::new(a, b, c, d)
    }

    /// The payload.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// The values of a header to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Bytes of payload.
    pub payload_len: u16,
    /// Time to live.
    pub ttl: u8,
}

/// The packet would be longer than 65,535 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl Repr {
    /// Writes the header.
    ///
    /// # Errors
    /// [`TooLong`] if header and payload exceed the length field.
    pub fn emit(&self, header: &mut [u8; HEADER_LEN]) -> Result<(), TooLong> {
        let len = HEADER_LEN + usize::from(self.payload_len);
        let len = u16::try_from(len).map_err(|_| TooLong)?;
        // Summed from the values: reading back bytes just written would wait for the stores.
        let checksum = Sum::word(u16::from_be_bytes([VERSION_IHL, 0]))
            .and(Sum::word(len))
            .and(Sum::word(DONT_FRAGMENT))
            .and(Sum::word(u16::from_be_bytes([self.ttl, self.protocol])))
            .and(Sum::address(self.src.into()))
            .and(Sum::address(self.dst.into()))
            .checksum();
        let [len_high, len_low] = len.to_be_bytes();
        let [fragment_high, fragment_low] = DONT_FRAGMENT.to_be_bytes();
        let [sum_high, sum_low] = checksum.to_be_bytes();
        let [s0, s1, s2, s3] = self.src.octets();
        let [d0, d1, d2, d3] = self.dst.octets();
        // RFC 6864 §4.1: the identification of an atomic datagram (DF set, no fragment) means
        // nothing and may be any value.
        *header = [
            VERSION_IHL,
            0,
            len_high,
            len_low,
            0,
            0,
            fragment_high,
            fragment_low,
            self.ttl,
            self.protocol,
            sum_high,
            sum_low,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ];
        Ok(())
    }
}
