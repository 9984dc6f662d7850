//! The route token: what a dialog's later requests must bring back to us, in the user part of our
//! `Record-Route` or `Path` URI.
//!
//! RFC 3261 §12.2.1.1: a UA that takes us for a strict router makes our URI its Request-URI, and
//! strips method and headers from it (§19.1.1, table 1). The user part survives that.
//!
//! ```text
//! v  k  base32hex( IV 64 │ enciphered: server 32, callee 1, From-tag hash 28, pair 2, NAT 1, listener 5,
//! │  │                        protocol 3, check 8 │ and with a flow: port 16, IPv4 32 or IPv6 128 )
//! │  key id, in clear
//! prefix
//! ```
//!
//! *Enciphered*, because the flow is the user's address and `Record-Route` goes end to end.
//! *Authenticated* in the way of SIV (RFC 5297): the IV is a keyed SipHash of the plain text and
//! the Call-ID, the key stream is a keyed SipHash of IV and counter. No nonce is needed, so
//! a retransmission gets the same bytes (RFC 3261 §16.11). Whoever changes a bit or the Call-ID
//! must guess 64 bits. Among 2³² tokens two share an IV with odds of two in five; who holds both
//! learns the difference of their plain texts, no more.
//!
//! The eight check bits are no part of that: they tell a token moved to another Call-ID from a
//! damaged one, for the counters, and may be wrong once in 256 times.

use core::fmt;
use core::ops::Deref;

use super::base32;
use super::keyed_hash::halves;
use super::secret::RingKeys;
use super::{CallIdHash, KeyId, Keys, TagHash, TokenError};
use crate::limits::{LISTENERS_MAX, ROUTE_TOKEN_LEN_MAX};
use crate::net::{
    Endpoint, IpAddr, Ipv4Addr, Ipv6Addr, ListenerIndex, Protocol, ServerId, SocketAddr, canonical,
};

/// First character: lets a reader pass over other user names without a hash.
const PREFIX: u8 = b'v';
/// Prefix and key id.
const CLEAR_LEN: usize = 2;
/// Bytes of IV and plain text: without a flow, with an IPv4 one, with an IPv6 one.
const LEN: usize = 8 + 10;
const LEN_V4: usize = LEN + 6;
const LEN_V6: usize = LEN + 18;

const CHARS: usize = base32::chars(LEN);
const CHARS_V4: usize = base32::chars(LEN_V4);
const CHARS_V6: usize = base32::chars(LEN_V6);

const TOKEN_LEN: usize = CLEAR_LEN + CHARS;
const TOKEN_LEN_V4: usize = CLEAR_LEN + CHARS_V4;
const TOKEN_LEN_V6: usize = CLEAR_LEN + CHARS_V6;

const _: () = assert!(TOKEN_LEN_V6 <= ROUTE_TOKEN_LEN_MAX);
// A listener is five bits of the token.
const _: () = assert!(LISTENERS_MAX <= 32);

/// Where the check bits stand in the second word.
const CHECK_SHIFT: u32 = 48;

/// What a token is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// `Record-Route`: good for this Call-ID only.
    Dialog(CallIdHash),
    /// `Path` (RFC 3327): requests to a registered contact have Call-IDs of their own.
    Path,
}

/// Which of two `Record-Route` rows a token stands in (RFC 5658 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Pair {
    /// The only one.
    #[default]
    Single = 0,
    /// The row that names our address on the client side.
    Outside = 1,
    /// The row that names our address on the farm side.
    Farm = 2,
}

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteToken {
    /// The server of the dialog.
    pub server: ServerId,
    /// The client's flow. A scope id or flow label is not kept.
    pub flow: Option<Endpoint>,
    /// The listener on the client side.
    pub listener: ListenerIndex,
    /// The client is behind a NAT: in-dialog requests go to the flow, not to the Request-URI.
    /// Without it the flow is used where the Request-URI leads nowhere.
    pub nat: bool,
    /// The flow is that of the dialog's callee, not of its initiator.
    pub callee: bool,
    /// One row or two.
    pub pair: Pair,
    /// Hash of the dialog initiator's From tag: tells the direction of a later request.
    pub initiator: TagHash,
}

/// The text of a token: 31 characters, 41 with an IPv4 flow, 60 with an IPv6 one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenText {
    text: [u8; TOKEN_LEN_V6],
    len: u8,
}

impl TokenText {
    #[inline]
    fn new<const N: usize>(id: KeyId, sealed: [u8; N]) -> Self {
        let mut text = [PREFIX; TOKEN_LEN_V6];
        text[1] = base32::digit(id.number());
        text[CLEAR_LEN..CLEAR_LEN + N].copy_from_slice(&sealed);
        let [len, ..] = (CLEAR_LEN + N).to_le_bytes();
        Self { text, len }
    }
}

impl Deref for TokenText {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.text[..usize::from(self.len).min(TOKEN_LEN_V6)]
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenText({})", self.escape_ascii())
    }
}

impl RouteToken {
    /// Whether a user part has the form of a token of ours; says nothing about who made it.
    #[inline]
    pub fn is_token(user: &[u8]) -> bool {
        matches!(user.len(), TOKEN_LEN | TOKEN_LEN_V4 | TOKEN_LEN_V6)
            && user[0].eq_ignore_ascii_case(&PREFIX)
            && base32::value(user[1]).is_some_and(|id| KeyId::new(id).is_some())
    }

    /// Whether a user part has the form of a token with a flow; says nothing about who made it.
    #[inline]
    pub fn is_flow_token(user: &[u8]) -> bool {
        Self::is_token(user) && user.len() != TOKEN_LEN
    }

    /// The text of this token under the current key.
    pub fn seal(&self, keys: &Keys, binding: Binding) -> TokenText {
        let (id, keys) = keys.sealing();
        let [first, second] = self.to_words();
        let Some(flow) = self.flow else {
            let words = seal::<2, 3>(keys, binding, [first, second], LEN);
            return TokenText::new(id, base32::encode::<LEN, 3, CHARS>(words));
        };
        let second = second | u64::from(flow.address.port()) << 32;
        match canonical(flow.address.ip()) {
            IpAddr::V4(v4) => {
                let plain = [first, second | u64::from(v4.to_bits())];
                let words = seal::<2, 3>(keys, binding, plain, LEN_V4);
                TokenText::new(id, base32::encode::<LEN_V4, 3, CHARS_V4>(words))
            }
            IpAddr::V6(v6) => {
                let (low, high) = halves(v6.to_bits());
                let plain = [
                    first,
                    second | high >> 32,
                    high << 32 | low >> 32,
                    low << 32,
                ];
                let words = seal::<4, 5>(keys, binding, plain, LEN_V6);
                TokenText::new(id, base32::encode::<LEN_V6, 5, CHARS_V6>(words))
            }
        }
    }

    /// Reads a token made for this binding, in any case.
    ///
    /// # Errors
    /// [`TokenError::NotOurs`] for another form, [`TokenError::UnknownKey`] if the key is not in
    /// the ring, [`TokenError::Mac`] if it is forged or damaged, [`TokenError::OtherCallId`] if it
    /// was made for another binding. The last two must look alike to whoever sent it.
    pub fn open(keys: &Keys, user: &[u8], binding: Binding) -> Result<Self, TokenError> {
        let form = TokenError::NotOurs;
        if !Self::is_token(user) {
            return Err(form);
        }
        let ([_, id], text) = user.split_first_chunk::<CLEAR_LEN>().ok_or(form)?;
        let id = base32::value(*id).and_then(KeyId::new).ok_or(form)?;
        let keys = keys.opening(id).ok_or(TokenError::UnknownKey);

        if let Ok(text) = text.try_into() {
            let words = base32::decode::<CHARS, LEN, 3>(text).ok_or(form)?;
            let [first, second] = open::<2, 3>(keys?, binding, words, LEN)?;
            Self::from_words(first, second, None)
        } else if let Ok(text) = text.try_into() {
            let words = base32::decode::<CHARS_V4, LEN_V4, 3>(text).ok_or(form)?;
            let [first, second] = open::<2, 3>(keys?, binding, words, LEN_V4)?;
            let [.., a, b, c, d] = second.to_be_bytes();
            Self::from_words(first, second, Some(Ipv4Addr::new(a, b, c, d).into()))
        } else if let Ok(text) = text.try_into() {
            let words = base32::decode::<CHARS_V6, LEN_V6, 5>(text).ok_or(form)?;
            let [first, second, third, fourth] = open::<4, 5>(keys?, binding, words, LEN_V6)?;
            let (high, low) = (second << 32 | third >> 32, third << 32 | fourth >> 32);
            let v6 = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
            Self::from_words(first, second, Some(v6.into()))
        } else {
            Err(form)
        }
    }

    /// All but the flow's address, in 80 bits; 48 zero bits follow.
    #[inline]
    fn to_words(self) -> [u64; 2] {
        let protocol = self.flow.map_or(0, |flow| flow.protocol as u64);
        let first = u64::from(self.server.0) << 32
            | u64::from(self.callee) << 31
            | u64::from(self.initiator.bits()) << 3
            | (self.pair as u64) << 1
            | u64::from(self.nat);
        let second = u64::from(self.listener.0 & 31) << 59 | protocol << 56;
        [first, second]
    }

    /// Fails only for what another version of viaduct sealed with our key.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "each field is cut to its width"
    )]
    fn from_words(first: u64, second: u64, ip: Option<IpAddr>) -> Result<Self, TokenError> {
        let protocol =
            Protocol::from_number((second >> 56) as u8 & 7).ok_or(TokenError::NotOurs)?;
        Ok(Self {
            server: ServerId((first >> 32) as u32),
            flow: ip.map(|ip| Endpoint {
                address: SocketAddr::new(ip, (second >> 32) as u16),
                protocol,
            }),
            listener: ListenerIndex((second >> 59) as u8),
            nat: first & 1 != 0,
            callee: first >> 31 & 1 != 0,
            pair: match first >> 1 & 3 {
                0 => Pair::Single,
                1 => Pair::Outside,
                2 => Pair::Farm,
                _ => return Err(TokenError::NotOurs),
            },
            initiator: TagHash::from_bits((first >> 3) as u32),
        })
    }
}

/// IV and enciphered text of a plain text, which gets its check bits here. `len` is that of all.
#[inline]
fn seal<const PLAIN: usize, const ALL: usize>(
    keys: &RingKeys,
    binding: Binding,
    mut plain: [u64; PLAIN],
    len: usize,
) -> [u64; ALL] {
    plain[1] |= check(&plain) << CHECK_SHIFT;
    let iv = synthetic_iv(keys, binding, &plain, len);
    apply_key_stream(keys, iv, &mut plain, len);
    let mut words = [iv; ALL];
    words[1..].copy_from_slice(&plain);
    words
}

/// The plain text of what [`seal`] made, if it was made for this binding.
#[inline]
fn open<const PLAIN: usize, const ALL: usize>(
    keys: &RingKeys,
    binding: Binding,
    words: [u64; ALL],
    len: usize,
) -> Result<[u64; PLAIN], TokenError> {
    let iv = words[0];
    let mut plain = [0; PLAIN];
    plain.copy_from_slice(&words[1..]);
    apply_key_stream(keys, iv, &mut plain, len);
    // One comparison of two registers: takes the same time wherever they differ.
    if iv == synthetic_iv(keys, binding, &plain, len) {
        return Ok(plain);
    }
    let written = plain[1] >> CHECK_SHIFT & 0xff;
    plain[1] &= !(0xff << CHECK_SHIFT);
    if written == check(&plain) {
        Err(TokenError::OtherCallId)
    } else {
        Err(TokenError::Mac)
    }
}

/// The IV: a MAC over what the token says, what it is bound to and its length.
#[inline]
fn synthetic_iv<const PLAIN: usize>(
    keys: &RingKeys,
    binding: Binding,
    plain: &[u64; PLAIN],
    len: usize,
) -> u64 {
    let (bound, kind) = match binding {
        Binding::Dialog(call_id) => (call_id.0, b'd'),
        Binding::Path => (0, b'p'),
    };
    let hash = keys.token_mac.sip_2_4().word(bound);
    let hash = plain.iter().fold(hash, |hash, word| hash.word(*word));
    // These stand beside SipHash's own length byte and cost no word.
    hash.last((len as u64 & 0xff) << 8 | u64::from(kind), 2)
}

/// Enciphers or deciphers: SipHash of IV and block number, two words at a time. The bits beyond
/// `len` stay zero.
#[inline]
fn apply_key_stream<const PLAIN: usize>(
    keys: &RingKeys,
    iv: u64,
    text: &mut [u64; PLAIN],
    len: usize,
) {
    let (pairs, _) = text.as_chunks_mut::<2>();
    for (number, [first, second]) in (0..).zip(pairs) {
        let (low, high) = keys.token_stream.sip128_1_3().word(iv).last(number, 1);
        *first ^= low;
        *second ^= high;
    }
    // IV and plain text are whole words but for the last.
    let beyond = (PLAIN + 1) * 64 - len * 8;
    text[PLAIN - 1] &= u64::MAX << beyond;
}

/// Eight bits over a plain text whose own check bits are zero.
#[inline]
fn check(plain: &[u64]) -> u64 {
    plain.iter().fold(0u64, |sum, word| {
        // An odd constant without structure: the fraction of the golden ratio.
        (sum.rotate_left(32) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }) >> 56
}
