//! The To tag of answers that we make ourselves.
//!
//! RFC 3261 §8.2.7: a stateless UAS gives the same request the same To tag and ignores the ACK and
//! the CANCEL that follow. The tag is therefore a keyed hash of the request, and the ACK of our
//! answer is recognised by making it again.

use core::ops::Deref;

use super::base32;
use super::{CallIdHash, Keys};

/// First character of our tags, so that those of servers are told apart without a hash.
const TAG_PREFIX: u8 = b'v';

/// Bytes of an [`AnswerTag`]: the prefix and 64 bits. RFC 3261 §19.3 asks for 32 bits at least.
pub const ANSWER_TAG_LEN: usize = 1 + base32::chars(8);

/// What the tag is made of: the same in a request, its retransmissions and the ACK of its answer.
#[derive(Clone, Copy, Debug)]
pub struct AnswerInput<'a> {
    /// Hash of the Call-ID.
    pub call_id: CallIdHash,
    /// The number of the CSeq.
    pub cseq: u32,
    /// The From tag; empty if there is none.
    pub from_tag: &'a [u8],
}

/// A To tag of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerTag([u8; ANSWER_TAG_LEN]);

impl Deref for AnswerTag {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Keys {
    /// The To tag of our own answer to a request that has none.
    pub fn answer_tag(&self, input: &AnswerInput<'_>) -> AnswerTag {
        let hash = self.answer.sip_2_4().word(input.call_id.0);
        let hash = hash.word(u64::from(input.cseq)).text(input.from_tag);
        let mut text = [TAG_PREFIX; ANSWER_TAG_LEN];
        text[1..].copy_from_slice(&base32::encode::<8, 1, 13>([hash]));
        AnswerTag(text)
    }

    /// Whether `to_tag` is the one that our answer to this request carried.
    pub fn is_own_answer_tag(&self, to_tag: &[u8], input: &AnswerInput<'_>) -> bool {
        to_tag.len() == ANSWER_TAG_LEN
            && to_tag[0].eq_ignore_ascii_case(&TAG_PREFIX)
            && to_tag.eq_ignore_ascii_case(&self.answer_tag(input))
    }
}
