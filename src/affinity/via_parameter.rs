//! The parameter beside our branch (`;v=`): where the request went, and a MAC that only we can
//! make, so that a response is forwarded only if its request came through us.
//!
//! ```text
//! bits   32     8         16    4       4      64
//!        peer   listener  node  key id  flags  MAC(peer … flags, protocol, branch, next hop)
//! ```
//!
//! RFC 3261 §17.2.3: a server matches requests by branch, sent-by and method, so what stands here
//! never confuses it. RFC 6026 §10: without a MAC the stateless response path would forward
//! anybody's datagram to any address.

use super::base32;
use super::keyed_hash::halves;
use super::secret::RingKeys;
use super::{Branch, KeyId, Keys, NodeId, TokenError};
use crate::net::{Endpoint, IpAddr, ListenerIndex, ServerId, canonical};

/// Name of the parameter.
pub const VIA_PARAMETER_NAME: &[u8] = b"v";

/// Flag of [`ViaParameter::flags`]: the branch is that of a transaction that is not there, and the
/// response is forwarded by what its `Via` says.
pub const VIA_PASSING: u8 = 1;

/// Flag of [`ViaParameter::flags`]: the request is a probe of our own, and its response goes nowhere.
pub const VIA_PROBE: u8 = 2;

/// Characters of the parameter's value: 128 bits.
pub const VIA_PARAMETER_LEN: usize = base32::chars(16);

/// What we want to know again when the response comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViaParameter {
    /// The server the request was sent to, or [`ServerId::OUTSIDE`].
    pub peer: ServerId,
    /// The listener the request arrived at: its response leaves from there (RFC 3581 §4).
    pub listener: ListenerIndex,
    /// The node that sent the request.
    pub node: NodeId,
    /// Four bits for the forwarder's use; the rest is cut off.
    pub flags: u8,
}

impl ViaParameter {
    /// The value of the parameter in a request that leaves with `branch` and whose response will
    /// go to `next_hop`: the *resolved* address, because servers re-serialise the `Via` below ours
    /// and its bytes are nothing to rely on.
    pub fn encode(
        &self,
        keys: &Keys,
        branch: &Branch,
        next_hop: Endpoint,
    ) -> [u8; VIA_PARAMETER_LEN] {
        let (id, keys) = keys.sealing();
        let mac = self.mac(keys, branch, next_hop);
        base32::encode::<16, 2, VIA_PARAMETER_LEN>([self.fields(id), mac])
    }

    /// Reads the parameter of a response that came back with `branch` and would go to `next_hop`.
    ///
    /// # Errors
    /// [`TokenError::NotOurs`] if it has another form, [`TokenError::UnknownKey`] if the key is
    /// not in the ring, [`TokenError::Mac`] if the MAC does not hold.
    pub fn decode(
        keys: &Keys,
        text: &[u8],
        branch: &Branch,
        next_hop: Endpoint,
    ) -> Result<Self, TokenError> {
        let text = text.try_into().map_err(|_| TokenError::NotOurs)?;
        let words = base32::decode::<VIA_PARAMETER_LEN, 16, 2>(text);
        let [fields, mac] = words.ok_or(TokenError::NotOurs)?;
        let [p0, p1, p2, p3, listener, n0, n1, low] = fields.to_be_bytes();
        let parameter = Self {
            peer: ServerId(u32::from_be_bytes([p0, p1, p2, p3])),
            listener: ListenerIndex(listener),
            node: NodeId(u16::from_be_bytes([n0, n1])),
            flags: low & 15,
        };
        let keys = KeyId::new(low >> 4).and_then(|id| keys.opening(id));
        let keys = keys.ok_or(TokenError::UnknownKey)?;
        // One comparison of two registers: takes the same time wherever they differ.
        if mac == parameter.mac(keys, branch, next_hop) {
            Ok(parameter)
        } else {
            Err(TokenError::Mac)
        }
    }

    fn fields(&self, id: KeyId) -> u64 {
        (u64::from(self.peer.0) << 32)
            | (u64::from(self.listener.0) << 24)
            | (u64::from(self.node.0) << 8)
            | (u64::from(id.number()) << 4)
            | u64::from(self.flags & 15)
    }

    /// 31 bytes for IPv4, so that they and SipHash's length byte are four words.
    #[inline]
    fn mac(&self, keys: &RingKeys, branch: &Branch, next_hop: Endpoint) -> u64 {
        // The key id is known by the key itself; the protocol takes its place.
        let fields = self.fields(KeyId::default()) | (u64::from(next_hop.protocol as u8) << 4);
        let (low, high) = halves(branch.hash());
        let hash = keys.via.sip_2_4().word(fields).word(low).word(high);
        let port = u64::from(next_hop.address.port());
        let marks = u64::from((branch.mode() as u8) << 7 | branch.attempt());
        match canonical(next_hop.address.ip()) {
            IpAddr::V4(v4) => hash.last(marks << 48 | port << 32 | u64::from(v4.to_bits()), 7),
            IpAddr::V6(v6) => {
                let (low, high) = halves(v6.to_bits());
                hash.word(low).word(high).last(marks << 16 | port, 3)
            }
        }
    }
}
