//! Header fields: their names, long and compact, in any case, and the rows they stand in.
//!
//! A name is recognised without branching on its bytes: they are loaded as lower-cased words (two,
//! or three for the few long names), a hash of the words picks one candidate, and comparing the
//! words decides. The hash table is made at compile time and has no collisions.

use super::Span;

/// One header field as it stands in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderRow {
    /// Which header.
    pub name: HeaderName,
    /// From the first byte of the name to behind the CRLF, folds included: what to delete to remove
    /// the header.
    pub row: Span,
    /// The value without white space around it; folds inside it are as received.
    pub value: Span,
}

impl HeaderRow {
    pub(super) const EMPTY: Self = Self {
        name: HeaderName::Other,
        row: Span::EMPTY,
        value: Span::EMPTY,
    };

    /// The name as written; for [`HeaderName::Other`] the only way to know it.
    pub fn name_bytes<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let row = self.row.of(bytes);
        let colon = row.iter().position(|byte| *byte == b':').unwrap_or(0);
        row.get(..colon).unwrap_or_default().trim_ascii_end()
    }
}

macro_rules! header_names {
    ($($(#[$doc:meta])* $name:ident = $long:literal $(| $compact:literal)?,)*) => {
        /// Headers that a proxy looks at or must treat with care; all others are `Other`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum HeaderName {
            $($(#[$doc])* $name,)*
            /// Any other name.
            Other,
        }

        impl HeaderName {
            /// Every name known, without `Other`.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The long form; empty for `Other`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $long,)* Self::Other => "" }
            }

            /// The compact form, for headers that have one.
            pub const fn compact(self) -> Option<u8> {
                match self {
                    $(Self::$name => compact!($($compact)?),)*
                    Self::Other => None,
                }
            }
        }
    };
}

macro_rules! compact {
    () => {
        None
    };
    ($byte:literal) => {
        Some($byte)
    };
}

header_names! {
    // Those decoded in the pass come first; `message.rs` tests them as bits.
    /// RFC 3261 §20.42.
    Via = "Via" | b'v',
    /// RFC 3261 §20.20.
    From = "From" | b'f',
    /// RFC 3261 §20.39.
    To = "To" | b't',
    /// RFC 3261 §20.8.
    CallId = "Call-ID" | b'i',
    /// RFC 3261 §20.16.
    CSeq = "CSeq",
    /// RFC 3261 §20.22.
    MaxForwards = "Max-Forwards",
    /// RFC 3261 §20.14.
    ContentLength = "Content-Length" | b'l',
    /// RFC 5393 §5.3.3.
    MaxBreadth = "Max-Breadth",
    // The rest by name.
    /// RFC 3841.
    AcceptContact = "Accept-Contact" | b'a',
    /// RFC 3261 §20.5.
    Allow = "Allow",
    /// RFC 6665.
    AllowEvents = "Allow-Events" | b'u',
    /// RFC 3261 §20.7.
    Authorization = "Authorization",
    /// RFC 3261 §20.9.
    CallInfo = "Call-Info",
    /// RFC 3261 §20.10.
    Contact = "Contact" | b'm',
    /// RFC 3261 §20.11.
    ContentDisposition = "Content-Disposition",
    /// RFC 3261 §20.12.
    ContentEncoding = "Content-Encoding" | b'e',
    /// RFC 3261 §20.15.
    ContentType = "Content-Type" | b'c',
    /// RFC 3261 §20.17.
    Date = "Date",
    /// RFC 6665.
    Event = "Event" | b'o',
    /// RFC 3261 §20.19.
    Expires = "Expires",
    /// RFC 7044.
    HistoryInfo = "History-Info",
    /// RFC 8224.
    Identity = "Identity" | b'y',
    /// RFC 4474.
    IdentityInfo = "Identity-Info" | b'n',
    /// RFC 3911.
    Join = "Join",
    /// RFC 3325.
    PAssertedIdentity = "P-Asserted-Identity",
    /// RFC 7315.
    PChargingVector = "P-Charging-Vector",
    /// RFC 3313.
    PMediaAuthorization = "P-Media-Authorization",
    /// RFC 3325.
    PPreferredIdentity = "P-Preferred-Identity",
    /// RFC 3327.
    Path = "Path",
    /// RFC 3323.
    Privacy = "Privacy",
    /// RFC 3261 §20.27.
    ProxyAuthenticate = "Proxy-Authenticate",
    /// RFC 3261 §20.28.
    ProxyAuthorization = "Proxy-Authorization",
    /// RFC 3261 §20.29.
    ProxyRequire = "Proxy-Require",
    /// RFC 3326.
    Reason = "Reason",
    /// RFC 3261 §20.30.
    RecordRoute = "Record-Route",
    /// RFC 3515.
    ReferTo = "Refer-To" | b'r',
    /// RFC 3892.
    ReferredBy = "Referred-By" | b'b',
    /// RFC 3841.
    RejectContact = "Reject-Contact" | b'j',
    /// RFC 3891.
    Replaces = "Replaces",
    /// RFC 3841.
    RequestDisposition = "Request-Disposition" | b'd',
    /// RFC 3261 §20.32.
    Require = "Require",
    /// RFC 3261 §20.33.
    RetryAfter = "Retry-After",
    /// RFC 3261 §20.34.
    Route = "Route",
    /// RFC 3329.
    SecurityClient = "Security-Client",
    /// RFC 3329.
    SecurityVerify = "Security-Verify",
    /// RFC 3261 §20.35.
    Server = "Server",
    /// RFC 3608.
    ServiceRoute = "Service-Route",
    /// RFC 4028.
    SessionExpires = "Session-Expires" | b'x',
    /// RFC 7989.
    SessionId = "Session-ID",
    /// RFC 3261 §20.36.
    Subject = "Subject" | b's',
    /// RFC 6665.
    SubscriptionState = "Subscription-State",
    /// RFC 3261 §20.37.
    Supported = "Supported" | b'k',
    /// RFC 4538.
    TargetDialog = "Target-Dialog",
    /// RFC 3261 §20.40.
    Unsupported = "Unsupported",
    /// RFC 3261 §20.41.
    UserAgent = "User-Agent",
    /// RFC 3261 §20.44.
    WwwAuthenticate = "WWW-Authenticate",
}

/// Names fit a word of bits, so that sets of names are masks.
pub(super) const NAMES: usize = HeaderName::ALL.len() + 1;
const _: () = assert!(NAMES <= 64);

impl HeaderName {
    /// The header of this name, long or compact, in any case (RFC 3261 §7.3.1, §7.3.3).
    pub fn parse(name: &[u8]) -> Self {
        // In lower case CR would pass for `-`, see `lower`.
        if name.is_empty() || name.len() > NAME_LEN_MAX || name.contains(&b'\r') {
            return Self::Other;
        }
        let mut padded = [0; NAME_LEN_MAX];
        for (to, from) in padded.iter_mut().zip(name) {
            *to = *from;
        }
        let (words, _) = padded.as_chunks::<8>();
        let long = lower(words[2], name.len(), 2);
        let [short, ..] = padded.as_chunks::<16>().0 else {
            return Self::Other;
        };
        let candidate = Self::candidate(short, name.len());
        if candidate.2 == long && candidate.1 {
            candidate.0
        } else {
            Self::Other
        }
    }

    /// The header whose name is the first `len` bytes of `chunk`, at most 15; the others do not
    /// matter, but no byte of the name may be CR.
    #[inline(always)]
    pub(super) fn of_chunk(chunk: &[u8; 16], len: usize) -> Self {
        let (name, equal, long) = Self::candidate(chunk, len);
        if equal && long == 0 {
            name
        } else {
            Self::Other
        }
    }

    /// The only name that can have these first 16 bytes, whether it has them, and what must follow.
    #[inline(always)]
    fn candidate(chunk: &[u8; 16], len: usize) -> (Self, bool, u64) {
        let (words, _) = chunk.as_chunks::<8>();
        let first = lower(words[0], len, 0);
        let second = lower(words[1], len, 1);
        let index = TABLE[slot(first, second, len, MULTIPLIER)];
        let candidate = &CANDIDATES[usize::from(index) % CANDIDATES_MAX];
        let different = (candidate.words[0] ^ first) | (candidate.words[1] ^ second);
        (candidate.name, different == 0, candidate.words[2])
    }

    /// The bit of this name in a set of names.
    #[inline]
    pub(super) const fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// Bytes of the longest name known, rounded up to words.
const NAME_LEN_MAX: usize = 24;

/// Word `index` of a name of `len` bytes in lower case, zero behind its end.
///
/// Bit 5 makes letters lower-case and leaves `-` alone. Of all other bytes only CR becomes one that
/// names have, `-`.
#[inline(always)]
const fn lower(word: [u8; 8], len: usize, index: usize) -> u64 {
    (u64::from_le_bytes(word) | 0x2020_2020_2020_2020) & MASKS[index][len % 32]
}

/// All ones for the bytes of a word that belong to a name, by word and length of the name.
static MASKS: [[u64; 32]; NAME_LEN_MAX / 8] = {
    let mut masks = [[0; 32]; NAME_LEN_MAX / 8];
    let mut len = 0;
    while len < 32 {
        let mut index = 0;
        while index < len && index < NAME_LEN_MAX {
            masks[index / 8][len] |= 0xff << (8 * (index % 8));
            index += 1;
        }
        len += 1;
    }
    masks
};

const SLOTS: usize = 1024;

#[inline(always)]
const fn slot(first: u64, second: u64, len: usize, multiplier: u64) -> usize {
    let mixed = first ^ second.rotate_left(23) ^ len as u64;
    (mixed.wrapping_mul(multiplier) >> 54) as usize
}
const _: () = assert!(1 << (64 - 54) == SLOTS);

#[derive(Clone, Copy)]
struct Candidate {
    words: [u64; NAME_LEN_MAX / 8],
    name: HeaderName,
    len: u8,
}

const _: () = assert!(size_of::<Candidate>() == 32);

const CANDIDATES_MAX: usize = 128;

/// Every spelling, long and compact; entry 0 matches nothing and stands for empty slots.
static CANDIDATES: [Candidate; CANDIDATES_MAX] = CANDIDATES_CONST;

const CANDIDATES_CONST: [Candidate; CANDIDATES_MAX] = {
    let none = Candidate {
        words: [u64::MAX; NAME_LEN_MAX / 8],
        len: 0,
        name: HeaderName::Other,
    };
    let mut candidates = [none; CANDIDATES_MAX];
    let mut count = 1;
    let mut index = 0;
    while index < HeaderName::ALL.len() {
        let name = HeaderName::ALL[index];
        candidates[count] = candidate(name, name.as_str().as_bytes());
        count += 1;
        if let Some(compact) = name.compact() {
            candidates[count] = candidate(name, &[compact]);
            count += 1;
        }
        index += 1;
    }
    candidates
};

#[expect(
    clippy::cast_possible_truncation,
    reason = "a name has at most 24 bytes"
)]
const fn candidate(name: HeaderName, text: &[u8]) -> Candidate {
    let mut padded = [0; NAME_LEN_MAX];
    let mut index = 0;
    while index < text.len() {
        padded[index] = text[index];
        index += 1;
    }
    let (words, _) = padded.as_chunks::<8>();
    Candidate {
        words: [
            lower(words[0], text.len(), 0),
            lower(words[1], text.len(), 1),
            lower(words[2], text.len(), 2),
        ],
        name,
        len: text.len() as u8,
    }
}

/// Position in [`CANDIDATES`] by hash; 0 for none.
static TABLE: [u8; SLOTS] = match table(MULTIPLIER) {
    Some(table) => table,
    None => panic!("the multiplier was found to be without collisions"),
};

/// A multiplier under which no two spellings share a slot, found when this is compiled.
const MULTIPLIER: u64 = {
    let mut multiplier = 0x9e37_79b9_7f4a_7c15u64;
    while table(multiplier).is_none() {
        multiplier = multiplier
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f)
            | 1;
    }
    multiplier
};

#[expect(
    clippy::cast_possible_truncation,
    reason = "there are fewer than 128 candidates"
)]
const fn table(multiplier: u64) -> Option<[u8; SLOTS]> {
    let mut table = [0; SLOTS];
    let mut index = 1;
    while index < CANDIDATES_MAX && CANDIDATES_CONST[index].len > 0 {
        let candidate = &CANDIDATES_CONST[index];
        let slot = slot(
            candidate.words[0],
            candidate.words[1],
            candidate.len as usize,
            multiplier,
        );
        if table[slot] != 0 {
            return None;
        }
        table[slot] = index as u8;
        index += 1;
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_is_known_in_any_case() {
        for name in HeaderName::ALL {
            let long = name.as_str();
            assert!(long.len() <= NAME_LEN_MAX, "{long}");
            assert_eq!(HeaderName::parse(long.as_bytes()), *name);
            assert_eq!(
                HeaderName::parse(long.to_uppercase().as_bytes()),
                *name,
                "{long}"
            );
            assert_eq!(HeaderName::parse(long.to_lowercase().as_bytes()), *name);
            if let Some(compact) = name.compact() {
                assert_eq!(HeaderName::parse(&[compact]), *name);
                assert_eq!(HeaderName::parse(&[compact.to_ascii_uppercase()]), *name);
            }
        }
    }

    #[test]
    fn a_near_miss_is_another_header() {
        for text in [
            &b""[..],
            b"z",
            b"Vi",
            b"Viaa",
            b"Call\rID",
            b"Call ID",
            b"C%6Fntact",
            b"Content-Lengt\x28",
            b"P-Media-Authorization-And-More",
            b"Via\0",
        ] {
            assert_eq!(
                HeaderName::parse(text),
                HeaderName::Other,
                "{}",
                text.escape_ascii()
            );
        }
    }

    fn naive(text: &[u8]) -> HeaderName {
        let found = HeaderName::ALL.iter().find(|name| {
            name.as_str().as_bytes().eq_ignore_ascii_case(text)
                || name
                    .compact()
                    .is_some_and(|compact| [compact].eq_ignore_ascii_case(text))
        });
        found.copied().unwrap_or(HeaderName::Other)
    }

    proptest! {
        #[test]
        fn hash_and_plain_search_agree(
            index in 0..HeaderName::ALL.len(),
            at in 0usize..24,
            byte in any::<u8>(),
            short in proptest::collection::vec(any::<u8>(), 0..3),
        ) {
            let mut name = HeaderName::ALL[index].as_str().as_bytes().to_vec();
            if let Some(place) = name.get_mut(at) {
                *place = byte;
            }
            prop_assert_eq!(HeaderName::parse(&name), naive(&name));
            prop_assert_eq!(HeaderName::parse(&short), naive(&short));
        }
    }
}
