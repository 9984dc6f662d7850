//! The secret and the keys that come from it, one per purpose.
//!
//! Every node of a group and every run of the program must compute the same branches, tokens and
//! tables, so all keys are functions of one 32-byte master secret. [`Secret::derive`] makes a key
//! for a label; knowing one key tells nothing about the secret or another key.
//!
//! Two kinds of key, by how long what they made lives:
//!
//! | key | made for | rotates |
//! |---|---|---|
//! | Call-ID hash, table seed | server choice, home worker, pins | never |
//! | branch, To tag of own answers | one transaction, recomputed from each message | never |
//! | From-tag hash | a dialog | never |
//! | `Via` parameter, route token | carried by the message, with the id of the key | by the ring |
//!
//! The first three are recomputed, not carried: RFC 3261 §16.11 makes a change of them a change of
//! configuration in the middle of every transaction. The last carries its key id, so a
//! [`KeyRing`] can hold the key of today beside those of the last day.

use core::fmt;

use super::keyed_hash::Key;
use super::{CallIdHash, TagHash};

/// Key ids there are: a key id is four bits in the `Via` parameter.
pub const KEY_IDS: usize = 16;

/// A 32-byte secret. Its text form is 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

/// Why a secret cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not 64 characters.
    #[error("a secret is 64 hexadecimal digits (32 bytes), this one has {0} characters")]
    Length(usize),
    /// A character that is no hexadecimal digit, and where.
    #[error("a secret is 64 hexadecimal digits; character {0} is none")]
    Digit(usize),
    /// All bytes are equal: a placeholder, not a secret.
    #[error("all 32 bytes of the secret are equal; make one with `openssl rand -hex 32`")]
    Constant,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes for a new secret")]
    Random,
}

impl Secret {
    /// From its bytes.
    ///
    /// # Errors
    /// [`SecretError::Constant`] if all bytes are equal.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, SecretError> {
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err(SecretError::Constant);
        }
        Ok(Self(bytes))
    }

    /// From 64 hexadecimal digits in either case; white space around them is ignored, so that the
    /// whole text of a secret file can be given.
    ///
    /// # Errors
    /// Says what is wrong without repeating the secret.
    pub fn from_hex(text: &str) -> Result<Self, SecretError> {
        let text = text.trim_ascii();
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(SecretError::Length(text.chars().count()));
        }
        let mut bytes = [0; 32];
        for (index, digit) in text.chars().enumerate() {
            let value = digit.to_digit(16).ok_or(SecretError::Digit(index + 1))?;
            // 64 bytes that are all ASCII digits so far, so `index` is below 64.
            bytes[index / 2] = (bytes[index / 2] << 4) | value.to_le_bytes()[0];
        }
        Self::from_bytes(bytes)
    }

    /// A new one from the operating system's random source.
    ///
    /// # Errors
    /// [`SecretError::Random`] if that source fails.
    pub fn generate() -> Result<Self, SecretError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|_| SecretError::Random)?;
        Self::from_bytes(bytes)
    }

    /// The 64 hexadecimal digits, lower case: what a secret file holds.
    pub fn to_hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::new(), |mut text, byte| {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The 16-byte key for a purpose.
    ///
    /// SipHash-2-4-128 twice, keyed by one half of the secret and then by the other:
    /// `SipHash(second half, SipHash(first half, label) ‖ label)`. SipHash is a pseudo-random
    /// function of its input for whoever lacks the key, so keys of different labels are
    /// independent, and a half alone gives nothing.
    pub fn derive(&self, label: &str) -> [u8; 16] {
        let (first, second) = self.0.split_at(16);
        let half = |bytes: &[u8]| {
            let mut key = [0; 16];
            key.copy_from_slice(bytes);
            Key::new(key)
        };
        let inner = half(first).sip128_2_4().text(label.as_bytes());
        let mut message = inner.to_le_bytes().to_vec();
        message.extend_from_slice(label.as_bytes());
        half(second).sip128_2_4().text(&message).to_le_bytes()
    }

    fn key(&self, label: &str) -> Key {
        Key::new(self.derive(label))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Number of a key in the [`KeyRing`], 0 to 15.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(u8);

impl KeyId {
    /// A key id, if it is below [`KEY_IDS`].
    pub const fn new(id: u8) -> Option<Self> {
        if id < 16 { Some(Self(id)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// The token secrets in use: one that makes new tokens, and others that still open old ones.
///
/// To rotate, first add the new secret on every node, then make it the current one everywhere, and
/// remove the old one when the longest dialog (a day) is over.
#[derive(Clone, Debug)]
pub struct KeyRing {
    secrets: [Option<Secret>; KEY_IDS],
    current: KeyId,
}

impl KeyRing {
    /// A ring of one key, which makes new tokens.
    pub fn new(id: KeyId, secret: Secret) -> Self {
        let mut secrets = [const { None }; KEY_IDS];
        secrets[usize::from(id.0)] = Some(secret);
        Self {
            secrets,
            current: id,
        }
    }

    /// Adds a key that only opens tokens. Returns false, and changes nothing, if the id is taken.
    #[must_use]
    pub fn add(&mut self, id: KeyId, secret: Secret) -> bool {
        let slot = &mut self.secrets[usize::from(id.0)];
        if slot.is_some() {
            return false;
        }
        *slot = Some(secret);
        true
    }
}

/// The keys of one entry of the ring.
#[derive(Clone)]
pub(super) struct RingKeys {
    /// MAC of the `Via` parameter. 64 bits of SipHash-2-4: each guess costs a sent message, and a
    /// right one lets a single response pass.
    pub(super) via: Key,
    /// Synthetic IV of the route token, which is its authentication too.
    pub(super) token_mac: Key,
    /// Key stream of the route token. SipHash-1-3: its input is an IV, which nobody chooses.
    pub(super) token_stream: Key,
}

impl RingKeys {
    fn new(secret: &Secret) -> Self {
        Self {
            via: secret.key("viaduct via parameter 1"),
            token_mac: secret.key("viaduct route token mac 1"),
            token_stream: secret.key("viaduct route token stream 1"),
        }
    }
}

/// Every key of the program, ready to hash with. Immutable; shared by all workers.
#[derive(Clone)]
pub struct Keys {
    affinity: Key,
    tag: Key,
    table_seed: [u8; 16],
    pub(super) branch: Key,
    pub(super) branch_legacy: Key,
    pub(super) answer: Key,
    ring: [Option<RingKeys>; KEY_IDS],
    current: KeyId,
}

impl Keys {
    /// The keys of a master secret that is also the only token secret, under key id 0.
    pub fn new(master: &Secret) -> Self {
        Self::with_ring(master, &KeyRing::new(KeyId::default(), master.clone()))
    }

    /// The keys of a master secret and a ring of token secrets.
    pub fn with_ring(master: &Secret, ring: &KeyRing) -> Self {
        Self {
            affinity: master.key("viaduct affinity 1"),
            tag: master.key("viaduct from tag 1"),
            table_seed: master.derive("viaduct table seed 1"),
            branch: master.key("viaduct branch 1"),
            branch_legacy: master.key("viaduct branch rfc2543 1"),
            answer: master.key("viaduct answer tag 1"),
            ring: core::array::from_fn(|id| ring.secrets[id].as_ref().map(RingKeys::new)),
            current: ring.current,
        }
    }

    /// Hash of the bytes a route balances by, the Call-ID by default.
    ///
    /// SipHash-1-3: the result is never sent, so its reader can only be guessed at from which
    /// server answers, and the XDP program computes it too.
    #[inline]
    pub fn affinity_hash(&self, bytes: &[u8]) -> u64 {
        self.affinity.sip_1_3().text(bytes)
    }

    /// Hash of a Call-ID, byte-exact (RFC 3261 §20.8: Call-IDs are case-sensitive).
    ///
    /// Computed once per message; server, home worker, pin, branch and token all take it from here.
    #[inline]
    pub fn call_id_hash(&self, call_id: &[u8]) -> CallIdHash {
        CallIdHash(self.affinity_hash(call_id))
    }

    /// Short hash of a dialog initiator's From tag, for the route token.
    #[inline]
    pub fn tag_hash(&self, tag: &[u8]) -> TagHash {
        TagHash::new(self.tag.sip_1_3().text(tag))
    }

    /// Seed of the lookup tables (`balance`).
    pub fn table_seed(&self) -> [u8; 16] {
        self.table_seed
    }

    /// The 16-byte key of [`Keys::affinity_hash`], for the BPF programs, which are loaded with it.
    pub fn affinity_key(&self) -> [u8; 16] {
        self.affinity.to_bytes()
    }

    /// The key id that new tokens carry.
    pub fn current(&self) -> KeyId {
        self.current
    }

    /// The current key of the ring, with its id.
    #[inline]
    pub(super) fn sealing(&self) -> (KeyId, &RingKeys) {
        let keys = self.ring[usize::from(self.current.0)].as_ref();
        (self.current, keys.expect("a ring holds its current key"))
    }

    /// The key of an id, if it is in the ring.
    #[inline]
    pub(super) fn opening(&self, id: KeyId) -> Option<&RingKeys> {
        self.ring[usize::from(id.0)].as_ref()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn hex_is_read_in_any_case_and_written_in_lower() {
        let secret = Secret::from_hex(&format!("  {}\n", HEX.to_uppercase())).unwrap();
        assert_eq!(secret.to_hex(), HEX);
        assert_eq!(Secret::from_hex(HEX).unwrap(), secret);
    }

    #[test]
    fn what_is_wrong_with_a_secret_is_said_and_the_secret_is_not() {
        assert_eq!(Secret::from_hex(""), Err(SecretError::Length(0)));
        assert_eq!(Secret::from_hex(&HEX[1..]), Err(SecretError::Length(63)));
        let bad = HEX.replacen("0a", "0g", 1);
        assert_eq!(Secret::from_hex(&bad), Err(SecretError::Digit(22)));
        // 64 bytes, but fewer characters.
        let wide = "é".repeat(32);
        assert_eq!(Secret::from_hex(&wide), Err(SecretError::Digit(1)));
        assert_eq!(
            Secret::from_hex(&"7f".repeat(32)),
            Err(SecretError::Constant)
        );
        let secret = Secret::from_hex(HEX).unwrap();
        assert!(!format!("{secret:?} {:?}", Keys::new(&secret)).contains("0102"));
    }

    #[test]
    fn generated_secrets_differ() {
        assert_ne!(Secret::generate().unwrap(), Secret::generate().unwrap());
    }

    #[test]
    fn keys_depend_on_the_label_and_on_both_halves_of_the_secret() {
        let secret = Secret::from_hex(HEX).unwrap();
        let key = secret.derive("a");
        assert_eq!(key, secret.derive("a"));
        assert_ne!(key, secret.derive("b"));
        for byte in [0, 31] {
            let mut bytes = secret.0;
            bytes[byte] ^= 1;
            assert_ne!(Secret::from_bytes(bytes).unwrap().derive("a"), key);
        }
    }

    #[test]
    fn a_ring_refuses_a_second_secret_under_one_id() {
        let secret = Secret::from_hex(HEX).unwrap();
        let id = |number| KeyId::new(number).unwrap();
        let mut ring = KeyRing::new(id(3), secret.clone());
        assert!(!ring.add(id(3), Secret::generate().unwrap()));
        assert!(ring.add(id(15), secret.clone()));
        assert_eq!(KeyId::new(16), None);
        let keys = Keys::with_ring(&secret, &ring);
        assert_eq!(keys.current(), id(3));
        assert!(keys.opening(id(15)).is_some());
        assert!(keys.opening(id(0)).is_none());
    }
}
