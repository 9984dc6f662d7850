//! What ties the messages of a transaction, a call and a dialog together without remembering them:
//! four keys, four jobs; the pins for what a changed table would tear apart, the flows of clients
//! that have moved, and the decisions for who asks why.
//!
//! | key | made from | carried in | job |
//! |---|---|---|---|
//! | [`CallIdHash`] | Call-ID | nothing, recomputed | server, home worker, pin |
//! | [`Branch`] | received branch, sent-by, Call-ID, CSeq number | our `Via` | transaction |
//! | [`ViaParameter`] | peer, listener, node; MAC over branch and next hop | our `Via` | response |
//! | [`RouteToken`] | server, client flow, listener | our `Record-Route`, `Path` | dialog |
//!
//! Everything here is a function of bytes, keys and `now`; nothing allocates after start. Which
//! message gets which key is `forward`'s business, which server a key means is `balance`'s.
//!
//! ```
//! use viaduct::affinity::{AnswerInput, Keys, Secret, home_worker};
//!
//! let keys = Keys::new(&Secret::generate()?);
//! let call_id = keys.call_id_hash(b"a84b4c76e66710@pc33.atlanta.example.com");
//! assert!(home_worker(call_id, 4).0 < 4);
//! let input = AnswerInput { call_id, cseq: 1, from_tag: b"1928301774" };
//! let tag = keys.answer_tag(&input);
//! assert!(keys.is_own_answer_tag(&tag, &input));
//! # Ok::<(), viaduct::affinity::SecretError>(())
//! ```

mod answer;
mod base32;
mod branch;
mod decisions;
mod flows;
mod keyed_hash;
mod pins;
mod route_token;
mod secret;
mod via_parameter;

pub use answer::{ANSWER_TAG_LEN, AnswerInput, AnswerTag};
pub use branch::{ATTEMPTS_MAX, BRANCH_LEN, Branch, BranchInput, MAGIC_COOKIE, SentBy};
pub use decisions::{Decision, Decisions, Ground, Passage};
pub use flows::{ClientFlow, FlowNote, MovedFlows};
pub use pins::{Insertion, NewPin, Pin, PinOutcome, PinUsage, Pins, Transaction};
pub use route_token::{Binding, Pair, RouteToken, TokenText};
pub use secret::{KEY_IDS, KeyId, KeyRing, Keys, Secret, SecretError};
pub use via_parameter::{
    VIA_PARAMETER_LEN, VIA_PARAMETER_NAME, VIA_PASSING, VIA_PROBE, ViaParameter,
};

use crate::net::WorkerIndex;

/// Whether a transaction stands behind a message that we forwarded.
///
/// RFC 6026 §7.3: a proxy with transactions drops a response that matches none, a stateless one
/// must forward it (RFC 3261 §16.11). So the branch says which of the two we were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mode {
    /// No transaction: responses are forwarded by what their `Via` says.
    #[default]
    Stateless = 0,
    /// A transaction on the node that sent the request.
    Stateful = 1,
}

impl Mode {
    const fn character(self) -> u8 {
        match self {
            Self::Stateless => b's',
            Self::Stateful => b't',
        }
    }

    const fn from_character(character: u8) -> Option<Self> {
        match character {
            b's' | b'S' => Some(Self::Stateless),
            b't' | b'T' => Some(Self::Stateful),
            _ => None,
        }
    }
}

/// Number of a node of a group, from the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u16);

/// Keyed 64-bit hash of a Call-ID ([`Keys::call_id_hash`]).
///
/// Stands for the Call-ID wherever one is needed: whoever lacks the key cannot find two Call-IDs
/// with one hash, and by chance two of a million calls share one once in 37 million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallIdHash(pub u64);

/// Short keyed hash of a tag ([`Keys::tag_hash`]): 28 bits, what a route token has room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TagHash(u32);

impl TagHash {
    /// Bits of the hash. Two tags share a hash once in 268 million.
    const BITS: u32 = 28;

    fn new(hash: u64) -> Self {
        let [a, b, c, d, ..] = hash.to_le_bytes();
        Self::from_bits(u32::from_le_bytes([a, b, c, d]))
    }

    const fn from_bits(bits: u32) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }

    const fn bits(self) -> u32 {
        self.0
    }
}

/// The worker that owns a Call-ID: the same for every message, never carried.
///
/// Multiply-shift of the low half of the hash. The lookup table takes the high half
/// (`balance::AffinityKey`), so that a worker's calls spread over all servers.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is meant; the result is below `workers`"
)]
pub fn home_worker(call_id: CallIdHash, workers: u8) -> WorkerIndex {
    let low = u64::from(call_id.0 as u32);
    WorkerIndex(((low * u64::from(workers)) >> 32) as u8)
}

/// Why a `Via` parameter or a route token of ours was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenError {
    /// It has not the form of ours.
    #[error("not of our form")]
    NotOurs,
    /// Of our form, but made with a key that is not in the ring.
    #[error("made with a key that is not in the ring")]
    UnknownKey,
    /// Forged or damaged.
    #[error("the MAC does not hold")]
    Mac,
    /// Ours and undamaged, but made for another Call-ID.
    #[error("made for another Call-ID")]
    OtherCallId,
}

#[cfg(test)]
mod tests;
