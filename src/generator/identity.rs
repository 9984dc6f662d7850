//! Identities of generated calls: Call-ID, tags and branches as functions of the call's number.
//!
//! Nothing is stored. A call has a serial number (never repeated in a run) and a place in the slab;
//! both stand in its Call-ID, so a response finds its call in O(1), and a response to a call that
//! is long over can still be recognised and acknowledged. The serial is passed through a keyed
//! permutation of the 64-bit numbers: distinct by construction, yet spread as random ids are.

/// RFC 3261 §8.1.1.7: the cookie that says "this branch is unique".
const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

/// Lower-case hexadecimal digits of a serial or a tag.
pub(super) const HEX_LEN: usize = 16;
/// Hexadecimal digits of a place in the slab.
const INDEX_LEN: usize = 8;
/// Hexadecimal digits of a transaction's number.
const TRANSACTION_LEN: usize = 4;

/// Where a Call-ID of ours points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallKey {
    /// Number of the call in this run, from 0.
    pub(super) serial: u64,
    /// Place in the slab while the call lives.
    pub(super) index: u32,
}

/// Writes and reads the identities of one run.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    call: Permutation,
    tag: Permutation,
    branch: Permutation,
    prefix: Vec<u8>,
}

impl Identity {
    /// Identities of the run with this seed; two runs with one seed write the same messages.
    pub(super) fn new(seed: u64, prefix: &str) -> Self {
        Self {
            call: Permutation::new(seed ^ 0x6361_6c6c_2d69_6400),
            tag: Permutation::new(seed ^ 0x6672_6f6d_2d74_6167),
            branch: Permutation::new(seed ^ 0x6272_616e_6368_0000),
            prefix: prefix.as_bytes().to_vec(),
        }
    }

    /// Appends the Call-ID; `host` is an address as text.
    #[inline]
    pub(super) fn write_call_id(&self, key: CallKey, host: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(&hex(self.call.apply(key.serial)));
        out.push(b'-');
        out.extend_from_slice(&hex(u64::from(key.index))[HEX_LEN - INDEX_LEN..]);
        out.push(b'@');
        out.extend_from_slice(host);
    }

    /// The call that a Call-ID names, if it is one of this run's.
    pub(super) fn read_call_id(&self, call_id: &[u8]) -> Option<CallKey> {
        let rest = call_id.strip_prefix(self.prefix.as_slice())?;
        let (serial, rest) = rest.split_at_checked(HEX_LEN)?;
        let (index, rest) = rest.strip_prefix(b"-")?.split_at_checked(INDEX_LEN)?;
        rest.strip_prefix(b"@")?;
        Some(CallKey {
            serial: self.call.invert(unhex(serial)?),
            index: u32::try_from(unhex(index)?).ok()?,
        })
    }

    /// The From tag of a call.
    pub(super) fn tag(&self, serial: u64) -> [u8; HEX_LEN] {
        hex(self.tag.apply(serial))
    }

    /// Appends the branch of the call's `transaction`th transaction.
    pub(super) fn write_branch(&self, serial: u64, transaction: u16, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC_COOKIE);
        out.extend_from_slice(&hex(self.branch.apply(serial)));
        out.extend_from_slice(&hex(u64::from(transaction))[HEX_LEN - TRANSACTION_LEN..]);
    }

    /// Whether `branch` is that of the call's `transaction`th transaction.
    pub(super) fn is_branch(&self, branch: &[u8], serial: u64, transaction: u16) -> bool {
        branch
            .strip_prefix(MAGIC_COOKIE)
            .and_then(|rest| rest.split_at_checked(HEX_LEN))
            .is_some_and(|(id, number)| {
                id == hex(self.branch.apply(serial))
                    && number == &hex(u64::from(transaction))[HEX_LEN - TRANSACTION_LEN..]
            })
    }

    /// A number that looks random and belongs to the call: picks layouts and users.
    pub(super) fn pick(&self, serial: u64) -> u64 {
        self.branch.apply(serial) >> 20
    }
}

/// A keyed one-to-one map of the 64-bit numbers.
#[derive(Clone, Copy, Debug)]
struct Permutation(u64);

/// Odd multipliers of `splitmix64`'s finaliser, and their inverses modulo 2^64.
const MULTIPLIERS: [u64; 2] = [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];
const INVERSES: [u64; 2] = [inverse(MULTIPLIERS[0]), inverse(MULTIPLIERS[1])];

/// The inverse of an odd number modulo 2^64, by Newton's iteration: each step doubles the bits.
const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut step = 0;
    while step < 6 {
        x = x.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(x)));
        step += 1;
    }
    x
}

impl Permutation {
    const fn new(key: u64) -> Self {
        Self(key)
    }

    const fn apply(self, number: u64) -> u64 {
        let x = (number ^ self.0).wrapping_mul(MULTIPLIERS[0]);
        let x = (x ^ (x >> 32)).wrapping_mul(MULTIPLIERS[1]);
        x ^ (x >> 32)
    }

    const fn invert(self, number: u64) -> u64 {
        let x = (number ^ (number >> 32)).wrapping_mul(INVERSES[1]);
        (x ^ (x >> 32)).wrapping_mul(INVERSES[0]) ^ self.0
    }
}

/// The 16 lower-case hexadecimal digits of a number.
#[inline]
pub(super) fn hex(number: u64) -> [u8; HEX_LEN] {
    let mut digits = [0; HEX_LEN];
    let (high, low) = digits.split_at_mut(HEX_LEN / 2);
    high.copy_from_slice(&hex_word(number >> 32));
    low.copy_from_slice(&hex_word(number & 0xffff_ffff));
    digits
}

/// Eight digits of a number below 2^32, all at once: a request has a hundred.
#[inline]
fn hex_word(number: u64) -> [u8; HEX_LEN / 2] {
    // One nibble per byte, the highest in the highest byte.
    let x = (number | number << 16) & 0x0000_ffff_0000_ffff;
    let x = (x | x << 8) & 0x00ff_00ff_00ff_00ff;
    let x = (x | x << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // From '0' to '9' to 'a' to 'f' it is one row but for the 39 characters in between.
    let letters = ((x + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (x + 0x3030_3030_3030_3030 + letters * 39).to_be_bytes()
}

/// The number behind hexadecimal digits of either case; at most 16 of them.
#[inline]
pub(super) fn unhex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > HEX_LEN {
        return None;
    }
    let mut number = 0;
    // Looked at once, at the end: a value of no digit has a bit above the nibble.
    let mut seen = 0;
    for digit in digits {
        let value = VALUES[usize::from(*digit)];
        seen |= value;
        number = number << 4 | u64::from(value & 0xf);
    }
    (seen & NO_DIGIT == 0).then_some(number)
}

/// Set in the value of a character that is no hexadecimal digit.
const NO_DIGIT: u8 = 0x80;

/// Values of characters as hexadecimal digits.
const VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut digit: u8 = 0;
    while digit < 10 {
        values[(b'0' + digit) as usize] = digit;
        digit += 1;
    }
    while digit < 16 {
        values[(b'a' + digit - 10) as usize] = digit;
        values[(b'A' + digit - 10) as usize] = digit;
        digit += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_call_id_reads_back(seed: u64, serial: u64, index: u32, prefix in "[a-z0-9.]{0,12}") {
            let identity = Identity::new(seed, &prefix);
            let key = CallKey { serial, index };
            let mut text = Vec::new();
            identity.write_call_id(key, b"198.18.0.10", &mut text);
            prop_assert_eq!(identity.read_call_id(&text), Some(key));
        }

        #[test]
        fn foreign_call_ids_are_refused_without_a_panic(text: Vec<u8>) {
            let identity = Identity::new(7, "load-");
            prop_assert_eq!(identity.read_call_id(&text), None);
        }

        #[test]
        fn a_branch_belongs_to_one_transaction(seed: u64, serial: u64, other: u64, number: u16) {
            let identity = Identity::new(seed, "");
            let mut branch = Vec::new();
            identity.write_branch(serial, number, &mut branch);
            prop_assert!(identity.is_branch(&branch, serial, number));
            prop_assert!(!identity.is_branch(&branch, serial, number.wrapping_add(1)));
            prop_assert_eq!(identity.is_branch(&branch, other, number), serial == other);
        }
    }

    #[test]
    fn a_million_calls_have_a_million_ids() {
        let identity = Identity::new(42, "");
        let mut branch = Vec::new();
        let (mut tags, mut branches): (Vec<_>, Vec<_>) = (0..1_000_000)
            .map(|serial| {
                branch.clear();
                identity.write_branch(serial, 1, &mut branch);
                let id: [u8; HEX_LEN] = *branch[MAGIC_COOKIE.len()..].first_chunk().unwrap();
                (identity.tag(serial), id)
            })
            .unzip();
        for ids in [&mut tags, &mut branches] {
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), 1_000_000);
        }
    }

    proptest! {
        #[test]
        fn digits_are_those_of_the_standard_library(number: u64, text: Vec<u8>) {
            let digits = hex(number);
            let expected = format!("{number:016x}");
            prop_assert_eq!(&digits[..], expected.as_bytes());
            prop_assert_eq!(unhex(&digits), Some(number));
            prop_assert_eq!(unhex(&digits.to_ascii_uppercase()), Some(number));
            let expected = core::str::from_utf8(&text).ok().filter(|text| !text.starts_with('+'));
            let expected = expected.filter(|text| text.len() <= 16);
            let expected = expected.and_then(|text| u64::from_str_radix(text, 16).ok());
            prop_assert_eq!(unhex(&text), expected);
        }
    }

    #[test]
    fn ids_of_neighbours_differ_everywhere() {
        // A hash of the Call-ID is only as good as its input: neighbours must not share digits.
        let identity = Identity::new(1, "");
        let same = (0..1000u64)
            .map(|n| (identity.call.apply(n) ^ identity.call.apply(n + 1)).count_ones())
            .sum::<u32>();
        assert!((28_000..36_000).contains(&same), "{same} bits differ");
    }
}
