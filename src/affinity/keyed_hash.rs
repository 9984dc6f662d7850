//! SipHash (Aumasson, Bernstein: "SipHash: a fast short-input PRF") under the key of one purpose.
//!
//! What is hashed here is a few words and perhaps one text behind them, so a hash is written as a
//! chain: `key.sip_2_4().word(a).word(b).text(bytes)`. All of it is inlined and stays in registers;
//! a hasher that buffers bytes for any order of writes takes twice the instructions. A word stands
//! for its eight bytes, the lowest first. The tests hold it to the `siphasher` crate.

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
    #[inline(always)]
    pub(super) fn sip_1_3(self) -> Sip<1, 3> {
        Sip(self.state(), 0)
    }

    /// SipHash-1-3, 128 bits: where results must not collide or be foreseen, and authenticate
    /// nothing.
    #[inline(always)]
    pub(super) fn sip128_1_3(self) -> Sip128<1, 3> {
        Sip128(self.wide_state(), 0)
    }

    /// SipHash-2-4, 64 bits: a MAC.
    #[inline(always)]
    pub(super) fn sip_2_4(self) -> Sip<2, 4> {
        Sip(self.state(), 0)
    }

    /// SipHash-2-4, 128 bits: key derivation.
    #[inline(always)]
    pub(super) fn sip128_2_4(self) -> Sip128<2, 4> {
        Sip128(self.wide_state(), 0)
    }

    /// "somepseudorandomlygeneratedbytes", a word in each.
    #[inline(always)]
    fn state(self) -> State {
        State([
            self.0 ^ 0x736f_6d65_7073_6575,
            self.1 ^ 0x646f_7261_6e64_6f6d,
            self.0 ^ 0x6c79_6765_6e65_7261,
            self.1 ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline(always)]
    fn wide_state(self) -> State {
        let State([v0, v1, v2, v3]) = self.state();
        State([v0, v1 ^ 0xee, v2, v3])
    }
}

/// The four words of SipHash.
#[derive(Clone, Copy)]
struct State([u64; 4]);

impl State {
    #[inline(always)]
    fn rounds<const COUNT: usize>(self) -> Self {
        let State([mut v0, mut v1, mut v2, mut v3]) = self;
        for _ in 0..COUNT {
            v0 = v0.wrapping_add(v1);
            v2 = v2.wrapping_add(v3);
            v1 = v1.rotate_left(13) ^ v0;
            v3 = v3.rotate_left(16) ^ v2;
            v0 = v0.rotate_left(32).wrapping_add(v3);
            v2 = v2.wrapping_add(v1);
            v3 = v3.rotate_left(21) ^ v0;
            v1 = v1.rotate_left(17) ^ v2;
            v2 = v2.rotate_left(32);
        }
        State([v0, v1, v2, v3])
    }

    #[inline(always)]
    fn absorb<const COUNT: usize>(self, word: u64) -> Self {
        let State([v0, v1, v2, v3]) = self;
        let State([v0, v1, v2, v3]) = State([v0, v1, v2, v3 ^ word]).rounds::<COUNT>();
        State([v0 ^ word, v1, v2, v3])
    }

    #[inline(always)]
    fn absorb_text<const COUNT: usize>(self, text: &[u8], before: u64) -> Self {
        let (words, rest) = text.as_chunks::<8>();
        let mut state = self;
        for word in words {
            state = state.absorb::<COUNT>(u64::from_le_bytes(*word));
        }
        let len = before.wrapping_add(text.len() as u64);
        state.absorb::<COUNT>(len << 56 | tail(text, rest))
    }

    #[inline(always)]
    fn xored(self) -> u64 {
        let State([v0, v1, v2, v3]) = self;
        v0 ^ v1 ^ v2 ^ v3
    }

    #[inline(always)]
    fn finish<const COUNT: usize>(self) -> u64 {
        let State([v0, v1, v2, v3]) = self;
        State([v0, v1, v2 ^ 0xff, v3]).rounds::<COUNT>().xored()
    }

    /// The low and the high word.
    #[inline(always)]
    fn finish_wide<const COUNT: usize>(self) -> (u64, u64) {
        let State([v0, v1, v2, v3]) = self;
        let first = State([v0, v1, v2 ^ 0xee, v3]).rounds::<COUNT>();
        let State([v0, v1, v2, v3]) = first;
        let second = State([v0, v1 ^ 0xdd, v2, v3]).rounds::<COUNT>();
        (first.xored(), second.xored())
    }
}

/// The last bytes of a text, fewer than eight, as a word: of a longer text in one load.
#[inline(always)]
fn tail(text: &[u8], rest: &[u8]) -> u64 {
    match text.last_chunk::<8>() {
        Some(_) if rest.is_empty() => 0,
        Some(last) => u64::from_le_bytes(*last) >> (64 - 8 * (rest.len() & 7)),
        None => {
            let bytes = rest.iter().rev();
            bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
        }
    }
}

/// SipHash with `C` rounds a word and `D` at the end, so far; and the bytes so far.
#[derive(Clone, Copy)]
pub(super) struct Sip<const C: usize, const D: usize>(State, u64);

impl<const C: usize, const D: usize> Sip<C, D> {
    /// Eight more bytes.
    #[inline(always)]
    pub(super) fn word(self, word: u64) -> Self {
        Self(self.0.absorb::<C>(word), self.1 + 8)
    }

    /// The hash, with `len` more bytes, fewer than eight: the low ones of `bytes`, whose others are
    /// zero.
    #[inline(always)]
    pub(super) fn last(self, bytes: u64, len: u64) -> u64 {
        let last = (self.1 + len) << 56 | bytes;
        self.0.absorb::<C>(last).finish::<D>()
    }

    /// The hash, with a text behind the words.
    #[inline(always)]
    pub(super) fn text(self, text: &[u8]) -> u64 {
        self.0.absorb_text::<C>(text, self.1).finish::<D>()
    }
}

/// As [`Sip`], for 128 bits, of which the low word comes first.
#[derive(Clone, Copy)]
pub(super) struct Sip128<const C: usize, const D: usize>(State, u64);

impl<const C: usize, const D: usize> Sip128<C, D> {
    /// Eight more bytes.
    #[inline(always)]
    pub(super) fn word(self, word: u64) -> Self {
        Self(self.0.absorb::<C>(word), self.1 + 8)
    }

    /// The hash, with `len` more bytes, fewer than eight: the low ones of `bytes`, whose others are
    /// zero.
    #[inline(always)]
    pub(super) fn last(self, bytes: u64, len: u64) -> (u64, u64) {
        let last = (self.1 + len) << 56 | bytes;
        self.0.absorb::<C>(last).finish_wide::<D>()
    }

    /// The hash, with a text behind the words.
    #[inline(always)]
    pub(super) fn text(self, text: &[u8]) -> u128 {
        let hash = self.0.absorb_text::<C>(text, self.1).finish_wide::<D>();
        u128::from(hash.1) << 64 | u128::from(hash.0)
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
    use proptest::prelude::*;
    use siphasher::{sip, sip128};

    use super::*;

    /// The vector of the paper, appendix A: key 00 … 0f, message 00 … 0e; and that a word stands for
    /// its bytes, as text and as the last ones.
    #[test]
    fn siphash_2_4_vector() {
        let bytes: [u8; 16] = core::array::from_fn(|index| u8::try_from(index).unwrap());
        let key = Key::new(bytes);
        assert_eq!(key.to_bytes(), bytes);
        let hash = 0xa129_ca61_49be_45e5;
        assert_eq!(key.sip_2_4().text(&bytes[..15]), hash);
        let first = key.sip_2_4().word(0x0706_0504_0302_0100);
        assert_eq!(first.text(&bytes[8..15]), hash);
        assert_eq!(first.last(0x000e_0d0c_0b0a_0908, 7), hash);
    }

    proptest! {
        #[test]
        fn the_crate_says_the_same(
            bytes in any::<[u8; 16]>(),
            words in proptest::collection::vec(any::<u64>(), 0..4),
            text in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let key = Key::new(bytes);
            let mut all: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            all.extend_from_slice(&text);
            let (mut narrow_13, mut narrow_24) = (key.sip_1_3(), key.sip_2_4());
            let (mut wide_13, mut wide_24) = (key.sip128_1_3(), key.sip128_2_4());
            for word in words {
                narrow_13 = narrow_13.word(word);
                narrow_24 = narrow_24.word(word);
                wide_13 = wide_13.word(word);
                wide_24 = wide_24.word(word);
            }
            let (k0, k1) = (key.0, key.1);
            let of_crate = sip::SipHasher13::new_with_keys(k0, k1).hash(&all);
            prop_assert_eq!(narrow_13.text(&text), of_crate);
            let of_crate = sip::SipHasher24::new_with_keys(k0, k1).hash(&all);
            prop_assert_eq!(narrow_24.text(&text), of_crate);
            let of_crate = sip128::SipHasher13::new_with_keys(k0, k1).hash(&all);
            prop_assert_eq!(wide_13.text(&text), u128::from(of_crate));
            let of_crate = sip128::SipHasher24::new_with_keys(k0, k1).hash(&all);
            prop_assert_eq!(wide_24.text(&text), u128::from(of_crate));
            if text.len() < 8 {
                let mut last = [0; 8];
                last[..text.len()].copy_from_slice(&text);
                let (last, len) = (u64::from_le_bytes(last), text.len() as u64);
                prop_assert_eq!(narrow_24.last(last, len), narrow_24.text(&text));
                let (low, high) = wide_13.last(last, len);
                prop_assert_eq!(halves(wide_13.text(&text)), (low, high));
            }
        }
    }
}
