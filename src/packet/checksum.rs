//! The Internet checksum (RFC 1071), computed with wide adds.
//!
//! A [`Sum`] is a one's complement sum that is not folded yet. It is kept in the byte order of the
//! machine, because the sum of byte-swapped words is the byte-swapped sum (RFC 1071 §2 (B)): bytes
//! are loaded as they lie and swapped once at the end. 32-bit words are added into 64-bit lanes,
//! which cannot carry below 2^32 words (RFC 1071 §2 (C), deferred carries), so the inner loop is
//! plain adds without a dependency between lanes and the compiler makes vector code of it.

use crate::net::IpAddr;

/// A one's complement sum in the making.
///
/// Each part that is added must start at an even offset of the whole; only the last may be of odd
/// length (RFC 1071 §4.1: padded with a zero byte).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of `bytes`.
    #[inline]
    pub fn of(bytes: &[u8]) -> Self {
        const LANES: usize = 8;
        let (blocks, rest) = bytes.as_chunks::<{ 4 * LANES }>();
        let mut lanes = [0u64; LANES];
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let mut sum: u64 = lanes.iter().sum();
        let (words, rest) = rest.as_chunks::<4>();
        for word in words {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        Self(sum + u64::from(u32::from_ne_bytes(last)))
    }

    /// The sum of a word in host byte order.
    #[inline]
    pub const fn word(word: u16) -> Self {
        Self(word.to_be() as u64)
    }

    /// The sum over the pseudo header of RFC 768 or RFC 8200 §8.1.
    #[inline]
    pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: u16) -> Self {
        let addresses = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                Self::of(&src.octets()).and(Self::of(&dst.octets()))
            }
            (src, dst) => Self::address_v6(src).and(Self::address_v6(dst)),
        };
        addresses
            .and(Self::word(u16::from(protocol)))
            .and(Self::word(len))
    }

    fn address_v6(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::of(&v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => Self::of(&v6.octets()),
        }
    }

    /// Both parts together.
    #[inline]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        // Parts of a packet: each is far below 2^48.
        Self(self.0 + other.0)
    }

    /// The sum folded to 16 bits, in host byte order. 0 only if every byte was 0.
    #[inline]
    pub const fn folded(self) -> u16 {
        let mut sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
        u16::from_be(sum as u16)
    }

    /// The checksum: the complement of the folded sum, in host byte order.
    #[inline]
    pub const fn checksum(self) -> u16 {
        !self.folded()
    }

    /// Whether a block that contains its own checksum is undamaged.
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.folded() == 0xffff
    }
}
