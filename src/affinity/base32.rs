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

/// Eight characters to 40 bits.
#[inline]
fn gather(text: [u8; 8]) -> Option<u64> {
    let x = u64::from_be_bytes(text);
    if x & each(0x80) != 0 {
        return None;
    }
    // No lane is above 0x7f, so no sum below carries into its neighbour; bit 7 is "at least".
    let digits = (x + each(0x80 - b'0')) & !(x + each(0x80 - b'9' - 1)) & each(0x80);
    let lower = x | each(0x20);
    let letters = (lower + each(0x80 - b'a')) & !(lower + each(0x80 - b'v' - 1)) & each(0x80);
    if digits | letters != each(0x80) {
        return None;
    }
    // 'a' & 0x1f is 1 and means 10; '0' & 0x1f is 16 and means 0.
    let x = (lower & each(0x1f)) + (letters >> 7) * 9 - (digits >> 3);
    let x = ((x >> 3) & 0x03e0_03e0_03e0_03e0) | (x & 0x001f_001f_001f_001f);
    let x = ((x >> 6) & 0x000f_fc00_000f_fc00) | (x & 0x0000_03ff_0000_03ff);
    Some(((x >> 12) & 0x00ff_fff0_0000) | (x & 0x000f_ffff))
}

/// Writes `bytes` as text into `text`, which is exactly [`chars`]`(bytes.len())` long.
#[inline]
pub(super) fn encode(bytes: &[u8], text: &mut [u8]) {
    debug_assert_eq!(text.len(), chars(bytes.len()));
    for (five, eight) in bytes.chunks(5).zip(text.chunks_mut(8)) {
        let mut bits = [0; 8];
        bits[3..3 + five.len()].copy_from_slice(five);
        let characters = spread(u64::from_be_bytes(bits));
        eight.copy_from_slice(&characters[..eight.len()]);
    }
}

/// Reads `text` into `bytes`; `text` must be exactly [`chars`]`(bytes.len())` long, all of it
/// base32hex in either case, spare bits zero. Returns whether it was.
#[inline]
pub(super) fn decode(text: &[u8], bytes: &mut [u8]) -> bool {
    if text.len() != chars(bytes.len()) {
        return false;
    }
    for (eight, five) in text.chunks(8).zip(bytes.chunks_mut(5)) {
        let mut characters = [b'0'; 8];
        characters[..eight.len()].copy_from_slice(eight);
        let Some(bits) = gather(characters) else {
            return false;
        };
        let bits = bits.to_be_bytes();
        five.copy_from_slice(&bits[3..3 + five.len()]);
        if bits[3 + five.len()..].iter().any(|&spare| spare != 0) {
            return false;
        }
    }
    true
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

    fn encoded(bytes: &[u8]) -> Vec<u8> {
        let mut text = vec![0; chars(bytes.len())];
        encode(bytes, &mut text);
        text
    }

    /// RFC 4648 §10: the test vectors, in lower case and without padding.
    #[test]
    fn rfc_4648_vectors() {
        let pairs = [
            ("", ""),
            ("f", "co"),
            ("fo", "cpng"),
            ("foo", "cpnmu"),
            ("foob", "cpnmuog"),
            ("fooba", "cpnmuoj1"),
            ("foobar", "cpnmuoj1e8"),
        ];
        for (plain, text) in pairs {
            assert_eq!(encoded(plain.as_bytes()), text.as_bytes());
        }
    }

    #[test]
    fn every_character_is_read_as_its_value_or_refused() {
        for character in 0..=255u8 {
            let mut byte = [0; 5];
            let text = [b'0', b'0', b'0', character, b'0', b'0', b'0', b'0'];
            assert_eq!(decode(&text, &mut byte), value(character).is_some());
            if let Some(value) = value(character) {
                assert_eq!(byte, [0, value >> 4, value << 4, 0, 0]);
                assert_eq!(digit(value), character.to_ascii_lowercase());
            }
        }
    }

    #[test]
    fn spare_bits_and_wrong_lengths_are_refused() {
        let mut byte = [0; 1];
        assert!(decode(b"vs", &mut byte));
        assert_eq!(byte, [255]);
        assert!(!decode(b"vt", &mut byte));
        assert!(!decode(b"v", &mut byte));
        assert!(!decode(b"vs0", &mut byte));
    }

    proptest! {
        #[test]
        fn text_is_the_definition_and_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut text = encoded(&bytes);
            prop_assert_eq!(&text, &encode_naive(&bytes));
            let mut back = vec![0; bytes.len()];
            prop_assert!(decode(&text, &mut back));
            prop_assert_eq!(&back, &bytes);
            text.make_ascii_uppercase();
            prop_assert!(decode(&text, &mut back));
            prop_assert_eq!(&back, &bytes);
        }
    }
}
