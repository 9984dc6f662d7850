//! Ethernet II frames (IEEE 802.3 §3.2.6), with the VLAN tags of `vlan` between addresses and type.

use core::fmt;

use super::vlan::{self, Tags};
use super::{LinkHeader, NoRoom};
use crate::verdict::DropReason;

/// Bytes of an Ethernet header without tags.
pub const HEADER_LEN: usize = 14;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// A 48-bit MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// From the first six bytes of `bytes`, if there are exactly six.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Whether the address names one station: neither a group nor all zero.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A view of a received frame, its tags decoded.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    addresses: &'a [u8; 12],
    tags: Tags,
    ethertype: u16,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// A view of `bytes`, or `Truncated` if the header is not complete.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, DropReason> {
        let (addresses, rest) = bytes.split_first_chunk().ok_or(DropReason::Truncated)?;
        let (tags, ethertype, payload) = vlan::parse(rest)?;
        Ok(Self {
            addresses,
            tags,
            ethertype,
            payload,
        })
    }

    /// Destination address.
    pub fn dst(&self) -> MacAddress {
        let [a, b, c, d, e, f, ..] = *self.addresses;
        MacAddress([a, b, c, d, e, f])
    }

    /// Source address.
    pub fn src(&self) -> MacAddress {
        let [.., a, b, c, d, e, f] = *self.addresses;
        MacAddress([a, b, c, d, e, f])
    }

    /// VLAN tags, outermost first.
    pub fn tags(&self) -> Tags {
        self.tags
    }

    /// Type of the payload. A value below 1536 is a length (802.3), which no IP packet has.
    pub fn ethertype(&self) -> u16 {
        self.ethertype
    }

    /// Bytes in front of the payload.
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.tags.len() * vlan::TAG_LEN
    }

    /// What follows the header, padding included.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// Writes the header of `link` into `header`, which must be exactly as long as it is.
pub(super) fn emit(header: &mut [u8], link: &LinkHeader, ethertype: u16) -> Result<(), NoRoom> {
    let (dst, rest) = header.split_first_chunk_mut().ok_or(NoRoom)?;
    let (src, rest) = rest.split_first_chunk_mut().ok_or(NoRoom)?;
    *dst = link.dst_mac.0;
    *src = link.src_mac.0;
    vlan::emit(rest, &link.tags, ethertype)
}
