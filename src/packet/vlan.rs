//! VLAN tags: 802.1Q and QinQ (802.1ad), kept as received so that a frame can leave with them.
//!
//! At most two tags; a frame with a third is for the kernel. A tag that the NIC strips in hardware
//! is not seen here.

use super::NoRoom;
use crate::verdict::DropReason;

/// Bytes of one tag: its protocol identifier and its control information.
pub const TAG_LEN: usize = 4;

/// Tags of one frame at most.
pub const TAGS_MAX: usize = 2;

/// Tag protocol identifier of IEEE 802.1Q: a customer tag.
pub const TPID_CUSTOMER: u16 = 0x8100;
/// Tag protocol identifier of IEEE 802.1ad: a service tag, the outer one of two.
pub const TPID_SERVICE: u16 = 0x88a8;

/// One tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tag {
    /// Tag protocol identifier, [`TPID_CUSTOMER`] or [`TPID_SERVICE`].
    pub tpid: u16,
    /// Tag control information: priority (3 bits), drop eligible (1), VLAN identifier (12).
    pub tci: u16,
}

impl Tag {
    /// VLAN identifier; 0 marks a tag that carries a priority only.
    pub fn vlan_id(self) -> u16 {
        self.tci & 0x0fff
    }
}

/// The tags of a frame, outermost first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tags {
    // INVARIANT: tags at `len` and after are `Tag::default()`, so that equality is that of the tags.
    tags: [Tag; TAGS_MAX],
    len: u8,
}

impl Tags {
    /// No tag.
    pub const NONE: Self = Self {
        tags: [Tag { tpid: 0, tci: 0 }; TAGS_MAX],
        len: 0,
    };

    /// One tag.
    pub const fn one(tag: Tag) -> Self {
        Self {
            tags: [tag, Tag { tpid: 0, tci: 0 }],
            len: 1,
        }
    }

    /// Two tags.
    pub const fn two(outer: Tag, inner: Tag) -> Self {
        Self {
            tags: [outer, inner],
            len: 2,
        }
    }

    /// How many tags there are.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether the frame is untagged.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The tags, outermost first.
    pub fn as_slice(&self) -> &[Tag] {
        self.tags.get(..self.len()).unwrap_or_default()
    }
}

/// Tags, EtherType and payload of what follows the addresses.
pub(super) fn parse(bytes: &[u8]) -> Result<(Tags, u16, &[u8]), DropReason> {
    let (ethertype, rest) = split_word(bytes)?;
    if !is_tpid(ethertype) {
        return Ok((Tags::NONE, ethertype, rest));
    }
    let (outer, ethertype, rest) = split_tag(ethertype, rest)?;
    if !is_tpid(ethertype) {
        return Ok((Tags::one(outer), ethertype, rest));
    }
    let (inner, ethertype, rest) = split_tag(ethertype, rest)?;
    if is_tpid(ethertype) {
        return Err(DropReason::NotUdp);
    }
    Ok((Tags::two(outer, inner), ethertype, rest))
}

/// Writes tags and EtherType into `bytes`, which must be exactly as long as they are.
pub(super) fn emit(bytes: &mut [u8], tags: &Tags, ethertype: u16) -> Result<(), NoRoom> {
    let (words, rest) = bytes.as_chunks_mut::<2>();
    if words.len() != 2 * tags.len() + 1 || !rest.is_empty() {
        return Err(NoRoom);
    }
    let tags = tags.as_slice().iter().flat_map(|tag| [tag.tpid, tag.tci]);
    for (word, value) in words.iter_mut().zip(tags.chain([ethertype])) {
        *word = value.to_be_bytes();
    }
    Ok(())
}

fn is_tpid(ethertype: u16) -> bool {
    matches!(ethertype, TPID_CUSTOMER | TPID_SERVICE)
}

fn split_tag(tpid: u16, bytes: &[u8]) -> Result<(Tag, u16, &[u8]), DropReason> {
    let (tci, rest) = split_word(bytes)?;
    let (ethertype, rest) = split_word(rest)?;
    Ok((Tag { tpid, tci }, ethertype, rest))
}

fn split_word(bytes: &[u8]) -> Result<(u16, &[u8]), DropReason> {
    let (word, rest) = bytes.split_first_chunk().ok_or(DropReason::Truncated)?;
    Ok((u16::from_be_bytes(*word), rest))
}
