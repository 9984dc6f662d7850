//! base32hex (RFC 4648 §7), lower case, without padding, eight characters at a time.
//!
//! SIP tokens and URI parameters are compared without case (RFC 3261 §7.3.1, §19.1.4), so what is
//! written here is one case and both are read. Every text has one meaning and every value one text:
//! spare bits of the last character must be zero.

/// Characters that `bytes` bytes take.
pub(super) const fn chars(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

/// One repeated byte.
const fn each(byte: u8) -> u64 {
    u64::from_be_bytes([byte; 8])
}

/// 40 bits to eight characters, the most significant first.
#[inline]
fn spread(bits: u64) -> [u8; 8] {
    // 40 → 20 + 20 → 4 × 10 → 8 × 5 bits, each in the low end of its lane.
    let x = ((bits << 12) & 0x000f_ffff_0000_0000) | (bits & 0x000f_ffff);
    let x = ((x << 6) & 0x03ff_0000_03ff_0000) | (x & 0x0000_03ff_0000_03ff);
    let x = ((x << 3) & 0x1f00_1f00_1f00_1f00) | (x & 0x001f_001f_001f_001f);
    // Bit 7 of a lane is set by the sum if the digit is ten or more; '0' + 39 + 10 = 'a'.
    let letters = ((x + each(118)) >> 7) & each(1);
    (x + each(b'0') + letters * 39).to_be_bytes()
}

/// Eight characters to 40 bits; and a word that is zero if all eight were base32hex. What is
/// wrong is looked at once for a whole text.
#[inline]
fn gather(text: [u8; 8]) -> (u64, u64) {
    let x = u64::from_be_bytes(text);
    // Bit 7 of a lane is set by a sum if the character is at least the one subtracted. Lanes are
    // cut to seven bits first, so that no sum carries into its neighbour.
    let seven = x & each(0x7f);
    let lower = seven | each(0x20);
    let digits = (seven + each(0x80 - b'0')) & !(seven + each(0x80 - b'9' - 1)) & each(0x80);
    let letters = (lower + each(0x80 - b'a')) & !(lower + each(0x80 - b'v' - 1)) & each(0x80);
    let wrong = ((digits | letters) ^ each(0x80)) | (x & each(0x80));
    // 'a' & 0x1f is 1 and means 10; '0' & 0x1f is 16 and means 0. What wrong characters come to
    // does not matter, but no lane may borrow from its neighbour: a digit's bit 4 is set.
    let x = (lower & each(0x1f)) + (letters >> 7) * 9 - (digits >> 3);
    let x = ((x >> 3) & 0x03e0_03e0_03e0_03e0) | (x & 0x001f_001f_001f_001f);
    let x = ((x >> 6) & 0x000f_fc00_000f_fc00) | (x & 0x0000_03ff_0000_03ff);
    (((x >> 12) & 0x00ff_fff0_0000) | (x & 0x000f_ffff), wrong)
}

/// The text of the first `BYTES` bytes of `words`, most significant byte first; the bits after
/// them must be zero.
///
/// Words, not bytes: they stay in registers, where bytes would be stored and loaded at odd places.
#[inline]
pub(super) fn encode<const BYTES: usize, const WORDS: usize, const CHARS: usize>(
    words: [u64; WORDS],
) -> [u8; CHARS] {
    const { assert!(CHARS == chars(BYTES) && WORDS == BYTES.div_ceil(8)) };
    let mut text = [0; CHARS];
    let bits = |chunk: usize| {
        let (word, shift) = (40 * chunk / 64, 40 * chunk % 64);
        let mut bits = words[word] << shift;
        if shift > 24 && word + 1 < WORDS {
            bits |= words[word + 1] >> (64 - shift);
        }
        bits >> 24
    };
    let (eights, rest) = text.as_chunks_mut::<8>();
    let count = eights.len();
    for (chunk, eight) in eights.iter_mut().enumerate() {
        *eight = spread(bits(chunk));
    }
    if !rest.is_empty() {
        rest.copy_from_slice(&spread(bits(count))[..rest.len()]);
    }
    text
}

/// The words of `text`, if all of it is base32hex in either case with spare bits zero.
#[inline]
pub(super) fn decode<const CHARS: usize, const BYTES: usize, const WORDS: usize>(
    text: &[u8; CHARS],
) -> Option<[u64; WORDS]> {
    const { assert!(CHARS == chars(BYTES) && WORDS == BYTES.div_ceil(8)) };
    let mut words = [0; WORDS];
    let mut wrong = 0;
    let mut set = |chunk: usize, text: [u8; 8]| {
        let (bits, invalid) = gather(text);
        wrong |= invalid;
        let (word, shift) = (40 * chunk / 64, 40 * chunk % 64);
        words[word] |= (bits << 24) >> shift;
        if shift > 24 {
            let beyond = bits << (88 - shift);
            if word + 1 < WORDS {
                words[word + 1] |= beyond;
            } else {
                wrong |= beyond;
            }
        }
    };
    let (eights, rest) = text.as_chunks::<8>();
    for (chunk, eight) in eights.iter().enumerate() {
        set(chunk, *eight);
    }
    if !rest.is_empty() {
        let mut characters = [b'0'; 8];
        characters[..rest.len()].copy_from_slice(rest);
        set(eights.len(), characters);
    }
    if !BYTES.is_multiple_of(8) {
        wrong |= words[WORDS - 1] << (BYTES % 8 * 8);
    }
    (wrong == 0).then_some(words)
}

/// The character of a value below 32.
pub(super) const fn digit(value: u8) -> u8 {
    match value & 31 {
        low @ 0..=9 => b'0' + low,
        high => b'a' + high - 10,
    }
}

/// The value of a character.
pub(super) const fn value(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'v' => Some(character - b'a' + 10),
        b'A'..=b'V' => Some(character - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, bit by bit.
    fn encode_naive(bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        let (mut bits, mut count) = (0u32, 0);
        for &byte in bytes {
            bits = (bits << 8) | u32::from(byte);
            count += 8;
            while count >= 5 {
                count -= 5;
                text.push(b"0123456789abcdefghijklmnopqrstuv"[(bits >> count) as usize & 31]);
            }
        }
        if count > 0 {
            text.push(b"0123456789abcdefghijklmnopqrstuv"[(bits << (5 - count)) as usize & 31]);
        }
        text
    }

    /// The words of `bytes`, zeros after them.
    fn words<const WORDS: usize>(bytes: &[u8]) -> [u64; WORDS] {
        core::array::from_fn(|word| {
            (8 * word..8 * word + 8).fold(0, |value, index| {
                value << 8 | u64::from(bytes.get(index).copied().unwrap_or(0))
            })
        })
    }

    /// RFC 4648 §10: the test vectors, in lower case and without padding.
    #[test]
    fn rfc_4648_vectors() {
        assert_eq!(&encode::<1, 1, 2>(words(b"f")), b"co");
        assert_eq!(&encode::<2, 1, 4>(words(b"fo")), b"cpng");
        assert_eq!(&encode::<3, 1, 5>(words(b"foo")), b"cpnmu");
        assert_eq!(&encode::<4, 1, 7>(words(b"foob")), b"cpnmuog");
        assert_eq!(&encode::<5, 1, 8>(words(b"fooba")), b"cpnmuoj1");
        assert_eq!(&encode::<6, 1, 10>(words(b"foobar")), b"cpnmuoj1e8");
    }

    #[test]
    fn every_character_is_read_as_its_value_or_refused() {
        for character in 0..=255u8 {
            let text = [b'0', b'0', b'0', character, b'0', b'0', b'0', b'0'];
            let expected = value(character).map(|value| [u64::from(value) << 44]);
            assert_eq!(decode::<8, 5, 1>(&text), expected);
            if let Some(value) = value(character) {
                assert_eq!(digit(value), character.to_ascii_lowercase());
            }
        }
    }

    #[test]
    fn spare_bits_are_refused() {
        assert_eq!(decode::<2, 1, 1>(b"vs"), Some([0xff << 56]));
        assert_eq!(decode::<2, 1, 1>(b"vt"), None);
        assert_eq!(decode::<5, 3, 1>(b"vvvvu"), Some([0xff_ffff << 40]));
        assert_eq!(decode::<5, 3, 1>(b"vvvvv"), None);
    }

    fn comes_back<const BYTES: usize, const WORDS: usize, const CHARS: usize>(bytes: &[u8]) {
        let bytes = &bytes[..BYTES];
        let words = words::<WORDS>(bytes);
        let mut text = encode::<BYTES, WORDS, CHARS>(words);
        assert_eq!(text.to_vec(), encode_naive(bytes));
        assert_eq!(decode::<CHARS, BYTES, WORDS>(&text), Some(words));
        text.make_ascii_uppercase();
        assert_eq!(decode::<CHARS, BYTES, WORDS>(&text), Some(words));
    }

    proptest! {
        #[test]
        fn text_is_the_definition_and_comes_back(bytes: [u8; 40]) {
            comes_back::<8, 1, 13>(&bytes);
            comes_back::<15, 2, 24>(&bytes);
            comes_back::<16, 2, 26>(&bytes);
            comes_back::<18, 3, 29>(&bytes);
            comes_back::<24, 3, 39>(&bytes);
            comes_back::<36, 5, 58>(&bytes);
            comes_back::<40, 5, 64>(&bytes);
        }
    }
}
