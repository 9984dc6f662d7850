//! SipHash under the key of one purpose.
//!
//! A hasher is made from its key each time: two words instead of nine in memory, and the compiler
//! sees that its buffer is empty, so that whole words written first cost their rounds and nothing
//! else. Integers are written in little-endian order.

use siphasher::{sip, sip128};

/// The 16-byte key of one purpose.
#[derive(Clone, Copy)]
pub(super) struct Key(u64, u64);

impl Key {
    pub(super) fn new(bytes: [u8; 16]) -> Self {
        let (low, high) = halves(u128::from_le_bytes(bytes));
        Self(low, high)
    }

    pub(super) fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.1) << 64 | u128::from(self.0)).to_le_bytes()
    }

    /// SipHash-1-3, 64 bits: where nobody sees the result.
    #[inline]
    pub(super) fn sip_1_3(self) -> sip::SipHasher13 {
        sip::SipHasher13::new_with_keys(self.0, self.1)
    }

    /// SipHash-1-3, 128 bits: where results must not collide or be foreseen, and authenticate
    /// nothing.
    #[inline]
    pub(super) fn sip128_1_3(self) -> sip128::SipHasher13 {
        sip128::SipHasher13::new_with_keys(self.0, self.1)
    }

    /// SipHash-2-4, 64 bits: a MAC.
    #[inline]
    pub(super) fn sip_2_4(self) -> sip::SipHasher24 {
        sip::SipHasher24::new_with_keys(self.0, self.1)
    }

    /// SipHash-2-4, 128 bits: key derivation.
    #[inline]
    pub(super) fn sip128_2_4(self) -> sip128::SipHasher24 {
        sip128::SipHasher24::new_with_keys(self.0, self.1)
    }
}

/// The low and the high word of 128 bits.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
pub(super) const fn halves(value: u128) -> (u64, u64) {
    (value as u64, (value >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher as _;

    use super::*;

    /// The vector of the paper (Aumasson, Bernstein, appendix A): key 00 … 0f, message 00 … 0e;
    /// and what the rest of this module builds on: a word stands for its bytes.
    #[test]
    fn siphash_2_4_vector() {
        let bytes: [u8; 16] = core::array::from_fn(|index| u8::try_from(index).unwrap());
        let key = Key::new(bytes);
        assert_eq!(key.to_bytes(), bytes);
        assert_eq!(key.sip_2_4().hash(&bytes[..15]), 0xa129_ca61_49be_45e5);
        let mut hasher = key.sip_2_4();
        hasher.write_u64(0x0706_0504_0302_0100);
        assert_eq!(hasher.hash(&bytes[8..15]), 0xa129_ca61_49be_45e5);
        hasher.write_u32(0x0b0a_0908);
        hasher.write_u16(0x0d0c);
        hasher.write_u8(0x0e);
        assert_eq!(hasher.finish(), 0xa129_ca61_49be_45e5);
    }
}
