//! The branch of our `Via`: a function of the request, so that a retransmission, the CANCEL and the
//! non-2xx ACK of an INVITE get the branch of the INVITE on any worker, any node, after a restart.
//!
//! ```text
//! z9hG4bK  s  0  38oqi4pt9v5ufk0e3m9s1ja2dg
//! cookie   │  │  128-bit hash, base32hex
//!          │  attempt: which of several tries of one transaction
//!          mode: s stateless, t with a transaction
//! ```

use core::fmt;
use core::ops::Deref;

use super::base32;
use super::keyed_hash::{Key, halves};
use super::{CallIdHash, Keys, Mode};
use crate::net::{IpAddr, canonical};

/// RFC 3261 §8.1.1.7: what a branch of an RFC 3261 element begins with.
pub const MAGIC_COOKIE: &[u8; 7] = b"z9hG4bK";

/// Bytes of a [`Branch`]: cookie, mode, attempt, 26 characters for 128 bits.
pub const BRANCH_LEN: usize = MAGIC_COOKIE.len() + 2 + base32::chars(16);

/// Attempts there are of one transaction: the attempt is one base32hex character.
pub const ATTEMPTS_MAX: u8 = 32;

/// The host of a `Via`'s sent-by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentBy<'a> {
    /// A literal, compared by value (RFC 5954 §4.2).
    Ip(IpAddr),
    /// A name, compared without case.
    Name(&'a [u8]),
}

/// What the branch is made of. The caller fills in all of it; [`Keys::branch`] takes what the
/// received branch allows.
#[derive(Clone, Copy, Debug)]
pub struct BranchInput<'a> {
    /// The received top `Via`'s branch; empty if there is none.
    pub branch: &'a [u8],
    /// The received top `Via`'s host.
    pub sent_by: SentBy<'a>,
    /// The received top `Via`'s port, if it names one.
    pub port: Option<u16>,
    /// Hash of the Call-ID.
    pub call_id: CallIdHash,
    /// The number of the CSeq.
    pub cseq: u32,
    /// The received top `Via` value, byte for byte, before anything is added to it.
    pub via: &'a [u8],
    /// The From tag; empty if there is none (RFC 2543).
    pub from_tag: &'a [u8],
    /// The Request-URI as received.
    pub request_uri: &'a [u8],
}

impl BranchInput<'_> {
    /// Whether the received branch is one of RFC 3261: the cookie and something after it.
    ///
    /// A bare cookie (RFC 4475 §3.2.1) identifies nothing and counts as none.
    pub fn has_cookie(&self) -> bool {
        self.branch
            .split_at_checked(MAGIC_COOKIE.len())
            .is_some_and(|(cookie, rest)| {
                cookie.eq_ignore_ascii_case(MAGIC_COOKIE) && !rest.is_empty()
            })
    }
}

/// A branch of ours, in its text form, lower case but for the cookie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Branch {
    text: [u8; BRANCH_LEN],
    hash: u128,
}

impl Branch {
    fn new(mode: Mode, attempt: u8, hash: u128) -> Self {
        let mut text = [0; BRANCH_LEN];
        text[..7].copy_from_slice(MAGIC_COOKIE);
        text[7] = mode.character();
        text[8] = base32::digit(attempt);
        let (low, high) = halves(hash);
        text[9..].copy_from_slice(&base32::encode::<16, 2, 26>([high, low]));
        Self { text, hash }
    }

    /// Reads a branch of ours in any case; `None` for one that we cannot have made.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (head, tail) = text.split_at_checked(9)?;
        let (cookie, marks) = head.split_at(MAGIC_COOKIE.len());
        if !cookie.eq_ignore_ascii_case(MAGIC_COOKIE) {
            return None;
        }
        let mode = Mode::from_character(marks[0])?;
        let attempt = base32::value(marks[1])?;
        let [high, low] = base32::decode::<26, 16, 2>(tail.try_into().ok()?)?;
        let mut branch = Self {
            text: *text.first_chunk()?,
            hash: u128::from(high) << 64 | u128::from(low),
        };
        branch.text.make_ascii_lowercase();
        branch.text[..7].copy_from_slice(MAGIC_COOKIE);
        branch.text[7] = mode.character();
        branch.text[8] = base32::digit(attempt);
        Some(branch)
    }

    /// The same with other marks.
    #[must_use]
    pub fn marked(mut self, mode: Mode, attempt: u8) -> Self {
        self.text[7] = mode.character();
        self.text[8] = base32::digit(attempt);
        self
    }

    /// Whether a transaction stands behind it.
    pub fn mode(&self) -> Mode {
        if self.text[7] == Mode::Stateful.character() {
            Mode::Stateful
        } else {
            Mode::Stateless
        }
    }

    /// Its text, of a length that the compiler knows.
    #[inline]
    pub fn text(&self) -> &[u8; BRANCH_LEN] {
        &self.text
    }

    /// Which try of its transaction it names.
    pub fn attempt(&self) -> u8 {
        base32::value(self.text[8]).unwrap_or(0)
    }

    /// The 128 bits of the hash, without mode and attempt: the key of the transaction.
    pub fn hash(&self) -> u128 {
        self.hash
    }
}

impl Deref for Branch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.text
    }
}

impl fmt::Debug for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Branch({})", self.text.escape_ascii())
    }
}

impl Keys {
    /// The branch of a request that leaves through us.
    ///
    /// SipHash-1-3 with 128 bits of output: the branch must not collide and must not be
    /// predictable; it authenticates nothing, the MAC of the `Via` parameter does.
    pub fn branch(&self, mode: Mode, attempt: u8, input: &BranchInput<'_>) -> Branch {
        let hash = if input.has_cookie() {
            hash_cookie(self.branch, input)
        } else {
            hash_legacy(self.branch_legacy, input)
        };
        Branch::new(mode, attempt, hash)
    }
}

/// RFC 3261 §16.11: "a function of" the received branch, mixed with what else tells transactions
/// apart and is the same in INVITE, CANCEL and non-2xx ACK.
///
/// RFC 3261 §17.2.3: clients may choose equal branches, so sent-by (host and port) is part of it;
/// behind different NATs even private sent-by addresses are equal, so Call-ID and CSeq number are
/// too. Not the source address (a NAT may rebind between INVITE and CANCEL), not the method.
#[inline]
fn hash_cookie(key: Key, input: &BranchInput<'_>) -> u128 {
    // The kind of the host says how much of it follows; the branch comes last, to the end. So no
    // two inputs give the same bytes. RFC 3261 §18.2.2: no port means 5060.
    let hash = key.sip128_1_3().word(input.call_id.0);
    let head = |host_kind: u64| {
        u64::from(input.cseq) | u64::from(input.port.unwrap_or(5060)) << 32 | host_kind << 48
    };
    let (kind, (low, high)) = match input.sent_by {
        SentBy::Ip(address) => match canonical(address) {
            IpAddr::V4(v4) => {
                let hash = hash.word(head(4)).word(u64::from(v4.to_bits()));
                return hash.text(input.branch);
            }
            IpAddr::V6(v6) => (6, halves(v6.to_bits())),
        },
        SentBy::Name(name) => (0, halves(hash_name(key, name))),
    };
    let hash = hash.word(head(kind)).word(low).word(high);
    hash.text(input.branch)
}

/// Hash of a host name without its case, 64 bytes at a time.
fn hash_name(key: Key, name: &[u8]) -> u128 {
    name.chunks(64).fold(0, |hash, chunk| {
        let mut lower = [0; 64];
        let lower = &mut lower[..chunk.len()];
        lower.copy_from_slice(chunk);
        lower.make_ascii_lowercase();
        hash_after(key, halves(hash), lower)
    })
}

/// RFC 3261 §16.11: without a usable branch, a hash of the top `Via`, the From tag, the Call-ID,
/// the CSeq number and the Request-URI.
///
/// §16.11 recommends the To tag as well. The INVITE lacks it and its non-2xx ACK has it, so that
/// their branches would differ, against §16.6 step 8 and RFC 5393 §4.2.1. It is left out.
fn hash_legacy(key: Key, input: &BranchInput<'_>) -> u128 {
    // Each field ends a hash of its own, which begins with the hash before: no field runs into
    // the next.
    let first = (input.call_id.0, u64::from(input.cseq));
    let via = hash_after(key, first, input.via);
    let from_tag = hash_after(key, halves(via), input.from_tag);
    hash_after(key, halves(from_tag), input.request_uri)
}

/// Hash of two words and a field.
fn hash_after(key: Key, words: (u64, u64), field: &[u8]) -> u128 {
    let hash = key.sip128_1_3().word(words.0).word(words.1);
    hash.text(field)
}
