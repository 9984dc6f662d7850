//! The route token: what a dialog's later requests must bring back to us, in the user part of our
//! `Record-Route` or `Path` URI.
//!
//! RFC 3261 §12.2.1.1: a UA that takes us for a strict router makes our URI its Request-URI, and
//! strips method and headers from it (§19.1.1, table 1). The user part survives that.
//!
//! ```text
//! v  k  base32hex( IV 64 │ enciphered: server 32, From-tag hash 29, listener 5, NAT 1, pair 2,
//! │  │                               protocol 3, check 8 │ IPv4 32, port 16 or IPv6 128, port 16 )
//! │  key id, in clear
//! prefix
//! ```
//!
//! *Enciphered*, because the flow is the user's address and `Record-Route` goes end to end.
//! *Authenticated* in the way of SIV (RFC 5297): the IV is a keyed SipHash of the plain text and
//! the Call-ID, the key stream is a keyed SipHash of IV and counter. No nonce is needed, so
//! a retransmission gets the same bytes (RFC 3261 §16.11). Whoever changes a bit or the Call-ID
//! must guess 64 bits. Two of 2³² tokens share an IV with odds of one in two; who holds both
//! learns the difference of their plain texts, no more.
//!
//! The eight check bits are no part of that: they tell a token moved to another Call-ID from a
//! damaged one, for the counters, and may be wrong once in 256 times.

use core::fmt;
use core::ops::Deref;

use super::base32;
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
const IV_LEN: usize = 8;
/// Server, From-tag hash, listener, marks, protocol and check.
const BASE_LEN: usize = 10;
const V4_LEN: usize = BASE_LEN + 6;
const V6_LEN: usize = BASE_LEN + 18;

/// Characters of a token whose plain text has `plain` bytes.
const fn token_len(plain: usize) -> usize {
    CLEAR_LEN + base32::chars(IV_LEN + plain)
}

const TOKEN_LEN: usize = token_len(BASE_LEN);
const TOKEN_LEN_V4: usize = token_len(V4_LEN);
const TOKEN_LEN_V6: usize = token_len(V6_LEN);

const _: () = assert!(TOKEN_LEN_V6 <= ROUTE_TOKEN_LEN_MAX);
// A listener is five bits of the token.
const _: () = assert!(LISTENERS_MAX <= 32);

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
    /// The client's flow, where it has to be used. A scope id or flow label is not kept.
    pub flow: Option<Endpoint>,
    /// The listener on the client side.
    pub listener: ListenerIndex,
    /// The client is behind a NAT: in-dialog requests go to the flow, not to the Request-URI.
    pub nat: bool,
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

    /// The text of this token under the current key.
    pub fn seal(&self, keys: &Keys, binding: Binding) -> TokenText {
        let flow = self.flow.map(|flow| (flow, canonical(flow.address.ip())));
        match flow {
            None => self.seal_sized::<BASE_LEN>(keys, binding, &[]),
            Some((flow, IpAddr::V4(v4))) => {
                let [a, b, c, d] = v4.octets();
                let [high, low] = flow.address.port().to_be_bytes();
                self.seal_sized::<V4_LEN>(keys, binding, &[a, b, c, d, high, low])
            }
            Some((flow, IpAddr::V6(v6))) => {
                let mut address = [0; 18];
                address[..16].copy_from_slice(&v6.octets());
                address[16..].copy_from_slice(&flow.address.port().to_be_bytes());
                self.seal_sized::<V6_LEN>(keys, binding, &address)
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
        match user.len() {
            _ if !Self::is_token(user) => Err(TokenError::NotOurs),
            TOKEN_LEN => Self::open_sized::<BASE_LEN>(keys, user, binding),
            TOKEN_LEN_V4 => Self::open_sized::<V4_LEN>(keys, user, binding),
            TOKEN_LEN_V6 => Self::open_sized::<V6_LEN>(keys, user, binding),
            _ => Err(TokenError::NotOurs),
        }
    }

    #[inline]
    fn seal_sized<const PLAIN: usize>(
        &self,
        keys: &Keys,
        binding: Binding,
        address: &[u8],
    ) -> TokenText {
        let (id, keys) = keys.sealing();
        let mut plain = [0; PLAIN];
        plain[..4].copy_from_slice(&self.server.0.to_be_bytes());
        let protocol = self.flow.map_or(0, |flow| flow.protocol as u64);
        let marks = (u64::from(self.initiator.bits()) << 19)
            | (u64::from(self.listener.0 & 31) << 14)
            | (u64::from(self.nat) << 13)
            | ((self.pair as u64) << 11)
            | (protocol << 8);
        plain[4..10].copy_from_slice(&marks.to_be_bytes()[2..]);
        plain[BASE_LEN..].copy_from_slice(address);
        plain[9] = check(&plain);

        let iv = synthetic_iv(keys, binding, &plain);
        apply_key_stream(keys, iv, &mut plain);

        let mut bytes = [0; IV_LEN + V6_LEN];
        let bytes = &mut bytes[..IV_LEN + PLAIN];
        bytes[..IV_LEN].copy_from_slice(&iv.to_be_bytes());
        bytes[IV_LEN..].copy_from_slice(&plain);
        let mut text = [PREFIX; TOKEN_LEN_V6];
        text[1] = base32::digit(id.number());
        base32::encode(bytes, &mut text[CLEAR_LEN..token_len(PLAIN)]);
        TokenText {
            text,
            len: token_len(PLAIN).to_le_bytes()[0],
        }
    }

    #[inline]
    fn open_sized<const PLAIN: usize>(
        keys: &Keys,
        user: &[u8],
        binding: Binding,
    ) -> Result<Self, TokenError> {
        let id = base32::value(user[1]).and_then(KeyId::new);
        let mut bytes = [0; IV_LEN + V6_LEN];
        let bytes = &mut bytes[..IV_LEN + PLAIN];
        if !base32::decode(&user[CLEAR_LEN..], bytes) {
            return Err(TokenError::NotOurs);
        }
        let keys = id.and_then(|id| keys.opening(id));
        let keys = keys.ok_or(TokenError::UnknownKey)?;

        let mut iv = [0; IV_LEN];
        iv.copy_from_slice(&bytes[..IV_LEN]);
        let iv = u64::from_be_bytes(iv);
        let mut plain = [0; PLAIN];
        plain.copy_from_slice(&bytes[IV_LEN..]);
        apply_key_stream(keys, iv, &mut plain);

        // One comparison of two registers: takes the same time wherever they differ.
        if iv != synthetic_iv(keys, binding, &plain) {
            let written = core::mem::take(&mut plain[9]);
            return Err(if written == check(&plain) {
                TokenError::OtherCallId
            } else {
                TokenError::Mac
            });
        }
        Self::from_plain(&plain).ok_or(TokenError::NotOurs)
    }

    /// `None` only for a plain text that another version of viaduct sealed with our key.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "each field is masked to its width"
    )]
    fn from_plain(plain: &[u8]) -> Option<Self> {
        let (base, address) = plain.split_first_chunk::<BASE_LEN>()?;
        let [s0, s1, s2, s3, m0, m1, m2, m3, m4, m5] = *base;
        let marks = u64::from_be_bytes([0, 0, m0, m1, m2, m3, m4, m5]);
        let address = if let Ok([a, b, c, d, high, low]) = <[u8; 6]>::try_from(address) {
            let ip = Ipv4Addr::new(a, b, c, d);
            Some(SocketAddr::from((ip, u16::from_be_bytes([high, low]))))
        } else if let Some((ip, [high, low])) = address.split_first_chunk::<16>() {
            let ip = Ipv6Addr::from(*ip);
            Some(SocketAddr::from((ip, u16::from_be_bytes([*high, *low]))))
        } else {
            None
        };
        let protocol = Protocol::from_number((marks >> 8) as u8 & 7)?;
        Some(Self {
            server: ServerId(u32::from_be_bytes([s0, s1, s2, s3])),
            flow: address.map(|address| Endpoint { address, protocol }),
            listener: ListenerIndex((marks >> 14) as u8 & 31),
            nat: (marks >> 13) & 1 != 0,
            pair: match (marks >> 11) & 3 {
                0 => Pair::Single,
                1 => Pair::Outside,
                2 => Pair::Farm,
                _ => return None,
            },
            initiator: TagHash::from_bits((marks >> 19) as u32),
        })
    }
}

/// The IV: a MAC over what the token says and what it is bound to.
#[inline]
fn synthetic_iv<const PLAIN: usize>(keys: &RingKeys, binding: Binding, plain: &[u8; PLAIN]) -> u64 {
    // Kind and binding have a fixed length and the plain text comes last: nothing is ambiguous.
    // With an IPv4 flow these are 25 bytes, four words of SipHash with its length byte.
    let (kind, bound) = match binding {
        Binding::Dialog(call_id) => (b'd', call_id.0),
        Binding::Path => (b'p', 0),
    };
    let mut message = [kind; 9 + V6_LEN];
    message[1..9].copy_from_slice(&bound.to_le_bytes());
    message[9..9 + PLAIN].copy_from_slice(plain);
    keys.token_mac.hash(&message[..9 + PLAIN])
}

/// Enciphers or deciphers: SipHash of IV and block number, 16 bytes at a time.
#[inline]
fn apply_key_stream<const PLAIN: usize>(keys: &RingKeys, iv: u64, text: &mut [u8; PLAIN]) {
    let mut message = [0; IV_LEN + 1];
    message[..IV_LEN].copy_from_slice(&iv.to_le_bytes());
    for block in text.chunks_mut(16) {
        let stream = u128::from(keys.token_stream.hash(&message)).to_le_bytes();
        for (byte, key) in block.iter_mut().zip(stream) {
            *byte ^= key;
        }
        message[IV_LEN] += 1;
    }
}

/// Eight bits over a plain text whose own check byte is zero.
#[inline]
fn check(plain: &[u8]) -> u8 {
    plain
        .chunks(8)
        .fold(0u64, |sum, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            // An odd constant without structure: the fraction of the golden ratio.
            (sum.rotate_left(32) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
        .to_be_bytes()[0]
}
