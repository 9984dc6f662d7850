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
        Self::address(src)
            .and(Self::address(dst))
            .and(Self::word(u16::from(protocol)))
            .and(Self::word(len))
    }

    /// The sum of an address.
    #[inline]
    pub fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self(u64::from(u32::from_ne_bytes(v4.octets()))),
            IpAddr::V6(v6) => {
                let octets = v6.octets();
                let (words, _) = octets.as_chunks::<4>();
                Self(
                    words
                        .iter()
                        .map(|word| u64::from(u32::from_ne_bytes(*word)))
                        .sum(),
                )
            }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 §4.1, word by word: the twin that [`Sum::of`] is held to.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    /// The example of RFC 1071 §3.
    #[test]
    fn the_example_of_the_rfc() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::of(&bytes).folded(), 0xddf2);
        assert_eq!(Sum::of(&bytes).checksum(), !0xddf2);
    }

    /// 0 and 0xffff are both zero in one's complement; the sum of something is never 0.
    #[test]
    fn only_zeros_sum_to_zero() {
        assert_eq!(Sum::of(&[]).folded(), 0);
        assert_eq!(Sum::of(&[0; 1500]).folded(), 0);
        assert_eq!(Sum::of(&[0xff; 1500]).folded(), 0xffff);
        assert_eq!(Sum::of(&[0xff; 65_535]).folded(), naive(&[0xff; 65_535]));
        assert_eq!(Sum::of(&[0xff, 0xfe, 0x00, 0x01]).folded(), 0xffff);
    }

    #[test]
    fn every_length_to_the_mtu() {
        let bytes: Vec<u8> = (0..1500u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        for len in 0..=bytes.len() {
            assert_eq!(
                Sum::of(&bytes[..len]).folded(),
                naive(&bytes[..len]),
                "{len} bytes"
            );
        }
    }

    /// RFC 768 and RFC 8200 §8.1, the pseudo header written out.
    #[test]
    fn pseudo_headers_sum_as_if_written_out() {
        let v4 = Sum::pseudo_header([198, 18, 0, 1].into(), [198, 19, 255, 254].into(), 17, 515);
        let written = [
            198,
            18,
            0,
            1,
            198,
            19,
            255,
            254,
            0,
            17,
            515u16.to_be_bytes()[0],
            3,
        ];
        assert_eq!(v4.folded(), naive(&written));

        let (src, dst) = (
            "2001:db8::1".parse().unwrap(),
            "2001:db8:ffff::fffe".parse().unwrap(),
        );
        let mut written = Vec::new();
        for address in [src, dst] {
            let IpAddr::V6(v6) = address else {
                unreachable!()
            };
            written.extend(v6.octets());
        }
        written.extend([0, 0, 255, 255, 0, 0, 0, 17]);
        assert_eq!(
            Sum::pseudo_header(src, dst, 17, 65_535).folded(),
            naive(&written)
        );
    }

    proptest! {
        #[test]
        fn wide_adds_equal_words(bytes in proptest::collection::vec(any::<u8>(), 0..2000), cut in any::<prop::sample::Index>()) {
            prop_assert_eq!(Sum::of(&bytes).folded(), naive(&bytes));
            // In two parts, the first of even length.
            let (first, second) = bytes.split_at(cut.index(bytes.len() + 1) & !1);
            prop_assert_eq!(Sum::of(first).and(Sum::of(second)).folded(), naive(&bytes));
        }

        #[test]
        fn a_flipped_bit_is_seen(mut bytes in proptest::collection::vec(any::<u8>(), 2..600), bit in any::<prop::sample::Index>()) {
            let checksum = Sum::of(&bytes);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(Sum::of(&bytes).folded(), checksum.folded());
        }
    }
}
