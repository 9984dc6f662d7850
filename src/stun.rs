//! STUN on the SIP port (RFC 8489, RFC 5626 §8): a Binding request is told the address it came from.
//!
//! ```text
//!  0                   4                   8                          20
//!  | type    | length  | 21 12 a4 42       | transaction id (12)      | attributes …
//!  attribute: | type (2) | length (2) | value, padded to 4 |
//! ```
//!
//! No more than a server without authentication needs. An answer has 32 bytes over IPv4 and 44 over
//! IPv6, 8 more with a FINGERPRINT, for a request of at least 20 (28): at most 2.2 times as many, and
//! 1.36 times with the headers below; whoever sends it limits how many one source gets.

use arrayvec::ArrayVec;

use crate::net::{IpAddr, SocketAddr, canonical};

/// Bytes of the header.
const HEADER_LEN: usize = 20;
/// The magic cookie, RFC 8489 §5.
const COOKIE: u32 = 0x2112_a442;

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const FINGERPRINT: u16 = 0x8028;

/// Attributes below 0x8000 that RFC 8489 §18.3 names; whoever knows them may let them be.
const KNOWN: [u16; 11] = [
    0x0001, 0x0006, 0x0008, 0x0009, 0x000a, 0x0014, 0x0015, 0x001c, 0x001d, 0x001e, 0x0020,
];

/// Unknown attributes that an answer names; a request with more of them is told these.
const UNKNOWN_MAX: usize = 8;

/// Bytes of the longest answer: that to [`UNKNOWN_MAX`] unknown attributes, with a FINGERPRINT.
const ANSWER_LEN_MAX: usize = HEADER_LEN + 8 + (4 + 2 * UNKNOWN_MAX) + 8;
const _: () = assert!(ANSWER_LEN_MAX >= HEADER_LEN + 24 + 8);

/// An answer.
pub type Answer = ArrayVec<u8, ANSWER_LEN_MAX>;

/// What a request wants.
#[derive(Debug)]
struct Request {
    /// Cookie and transaction id.
    identity: [u8; 16],
    /// Attributes that it says must be understood and nobody here does.
    unknown: ArrayVec<u16, UNKNOWN_MAX>,
    /// It has a FINGERPRINT, and the answer shall.
    fingerprint: bool,
}

/// The answer to a datagram from `source`; `None` if it is no Binding request: another method, an
/// indication or a response (which nobody answers), a wrong length, cookie or FINGERPRINT.
pub fn answer(datagram: &[u8], source: SocketAddr) -> Option<Answer> {
    let request = Request::parse(datagram)?;
    let mut body = ArrayVec::<u8, ANSWER_LEN_MAX>::new();
    let kind = if request.unknown.is_empty() {
        push_address(&mut body, &request.identity, source);
        BINDING_SUCCESS
    } else {
        // RFC 8489 §6.3.1: 420 with the attributes it is about; the reason phrase may be empty.
        push(&mut body, &ERROR_CODE.to_be_bytes());
        push(&mut body, &[0, 4, 0, 0, 4, 20]);
        let len = 2 * u16::try_from(request.unknown.len()).unwrap_or(0);
        push(&mut body, &UNKNOWN_ATTRIBUTES.to_be_bytes());
        push(&mut body, &len.to_be_bytes());
        for attribute in &request.unknown {
            push(&mut body, &attribute.to_be_bytes());
        }
        if len % 4 != 0 {
            push(&mut body, &[0, 0]);
        }
        BINDING_ERROR
    };
    let fingerprint_len = if request.fingerprint { 8 } else { 0 };
    let len = u16::try_from(body.len() + fingerprint_len).ok()?;
    let mut answer = Answer::new();
    push(&mut answer, &kind.to_be_bytes());
    push(&mut answer, &len.to_be_bytes());
    push(&mut answer, &request.identity);
    push(&mut answer, &body);
    if request.fingerprint {
        let value = fingerprint(&answer);
        push(&mut answer, &FINGERPRINT.to_be_bytes());
        push(&mut answer, &[0, 4]);
        push(&mut answer, &value.to_be_bytes());
    }
    Some(answer)
}

impl Request {
    fn parse(datagram: &[u8]) -> Option<Self> {
        let (header, mut rest) = datagram.split_first_chunk::<HEADER_LEN>()?;
        let (kind, header) = header.split_first_chunk::<2>()?;
        let (len, identity) = header.split_first_chunk::<2>()?;
        let identity: [u8; 16] = identity.try_into().ok()?;
        // RFC 8489 §5: the length tells the rest of the datagram, in whole words.
        let right = u16::from_be_bytes(*kind) == BINDING_REQUEST
            && usize::from(u16::from_be_bytes(*len)) == rest.len()
            && rest.len() % 4 == 0
            && identity.starts_with(&COOKIE.to_be_bytes());
        if !right {
            return None;
        }
        let mut request = Self {
            identity,
            unknown: ArrayVec::new(),
            fingerprint: false,
        };
        while !rest.is_empty() {
            let before = datagram.len() - rest.len();
            let (kind, after) = rest.split_first_chunk::<2>()?;
            let (len, after) = after.split_first_chunk::<2>()?;
            let len = usize::from(u16::from_be_bytes(*len));
            let value = after.get(..len)?;
            rest = after.get(len.next_multiple_of(4)..)?;
            match u16::from_be_bytes(*kind) {
                FINGERPRINT => {
                    // RFC 8489 §14.7: the last one, over all before it.
                    let expected = fingerprint(datagram.get(..before)?);
                    if !rest.is_empty() || value != expected.to_be_bytes() {
                        return None;
                    }
                    request.fingerprint = true;
                }
                kind if kind < 0x8000 && !KNOWN.contains(&kind) => {
                    // More than fit are told by those that did.
                    let _ = request.unknown.try_push(kind);
                }
                _ => {}
            }
        }
        Some(request)
    }
}

/// RFC 8489 §14.2: the address as seen here, under a mask that no meddling NAT sees through.
fn push_address(body: &mut ArrayVec<u8, ANSWER_LEN_MAX>, identity: &[u8; 16], source: SocketAddr) {
    let masked = |bytes: &[u8]| {
        let pairs = bytes.iter().zip(identity);
        pairs
            .map(|(byte, mask)| byte ^ mask)
            .collect::<ArrayVec<u8, 16>>()
    };
    let port = masked(&source.port().to_be_bytes());
    let (family, address) = match canonical(source.ip()) {
        IpAddr::V4(v4) => (1, masked(&v4.octets())),
        IpAddr::V6(v6) => (2, masked(&v6.octets())),
    };
    push(body, &XOR_MAPPED_ADDRESS.to_be_bytes());
    let len = u16::try_from(4 + address.len()).unwrap_or(0);
    push(body, &len.to_be_bytes());
    push(body, &[0, family]);
    push(body, &port);
    push(body, &address);
}

/// There is room: [`ANSWER_LEN_MAX`].
fn push<const N: usize>(to: &mut ArrayVec<u8, N>, bytes: &[u8]) {
    let result = to.try_extend_from_slice(bytes);
    debug_assert!(result.is_ok(), "the longest answer fits");
}

/// RFC 8489 §14.7: CRC-32 of what stands before the attribute, the length counting it, XOR `STUN`.
fn fingerprint(before: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in before {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            // ITU V.42's polynomial, reflected.
            crc = (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1));
        }
    }
    !crc ^ 0x5354_554e
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 §2.1, with all its attributes.
    const REQUEST: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\
        \xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x10STUN test client\
        \x00\x24\x00\x04\x6e\x00\x01\xff\
        \x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\
        \x00\x06\x00\x09evtj:h6vY\x20\x20\x20\
        \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\
        \xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
        \x80\x28\x00\x04\xe5\x7a\x3b\xcf";

    /// RFC 5769 §2.2 and §2.3: the XOR-MAPPED-ADDRESS of 192.0.2.1:32853 and of
    /// [2001:db8:1234:5678:11:2233:4455:6677]:32853 in the answer to it.
    const ADDRESS_V4: &[u8] = b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43";
    const ADDRESS_V6: &[u8] = b"\x00\x20\x00\x14\x00\x02\xa1\x47\
        \x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9";
    /// RFC 5769 §2.2 whole.
    const RESPONSE: &[u8] = b"\x01\x01\x00\x3c\x21\x12\xa4\x42\
        \xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x0btest vector\x20\
        \x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\
        \x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\
        \x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\
        \x80\x28\x00\x04\xc0\x7d\x4c\x96";

    fn v4() -> SocketAddr {
        "192.0.2.1:32853".parse().unwrap()
    }

    fn v6() -> SocketAddr {
        "[2001:db8:1234:5678:11:2233:4455:6677]:32853"
            .parse()
            .unwrap()
    }

    /// A Binding request with the sample's transaction id and these attributes.
    fn request(attributes: &[u8]) -> Vec<u8> {
        let mut bytes = REQUEST[..HEADER_LEN].to_vec();
        bytes[3] = u8::try_from(attributes.len()).unwrap();
        bytes.extend_from_slice(attributes);
        bytes
    }

    fn with_fingerprint(attributes: &[u8]) -> Vec<u8> {
        let mut bytes = request(attributes);
        bytes[3] += 8;
        let value = fingerprint(&bytes);
        bytes.extend_from_slice(&[0x80, 0x28, 0, 4]);
        bytes.extend_from_slice(&value.to_be_bytes());
        bytes
    }

    #[test]
    fn r5769_the_samples_fingerprints_are_ours() {
        for sample in [REQUEST, RESPONSE] {
            let (before, value) = sample.split_at(sample.len() - 8);
            assert_eq!(value[4..], fingerprint(before).to_be_bytes());
        }
    }

    #[test]
    fn r5769_an_answer_tells_the_address_as_the_samples_do() {
        for (source, address) in [(v4(), ADDRESS_V4), (v6(), ADDRESS_V6)] {
            let answer = answer(&request(&[]), source).unwrap();
            let (header, body) = answer.split_at(HEADER_LEN);
            assert_eq!(header[..2], [1, 1]);
            assert_eq!(usize::from(header[3]), body.len());
            assert_eq!(header[4..], REQUEST[4..HEADER_LEN]);
            assert_eq!(body, address);
        }
        let mapped = "[::ffff:192.0.2.1]:32853".parse().unwrap();
        assert_eq!(answer(&request(&[]), mapped).unwrap()[20..], *ADDRESS_V4);
    }

    /// RFC 8489 §14.7, §6.3.1.1: whoever asks with a FINGERPRINT gets one.
    #[test]
    fn a_fingerprint_is_checked_and_returned() {
        let bytes = with_fingerprint(b"\x80\x22\x00\x05phone\0\0\0");
        let answer_bytes = answer(&bytes, v4()).unwrap();
        let (before, attribute) = answer_bytes.split_at(answer_bytes.len() - 8);
        assert_eq!(attribute[..4], [0x80, 0x28, 0, 4]);
        assert_eq!(attribute[4..], fingerprint(before).to_be_bytes());
        assert_eq!(usize::from(answer_bytes[3]), answer_bytes.len() - 20);
        // Under another name it is an attribute that may be ignored.
        let name = bytes.len() - 8..bytes.len() - 6;
        for position in (0..bytes.len()).filter(|position| !name.contains(position)) {
            let mut wrong = bytes.clone();
            wrong[position] ^= 1;
            assert_eq!(answer(&wrong, v4()), None, "byte {position}");
        }
        // It must be the last.
        let mut followed = with_fingerprint(&[]);
        followed[3] += 4;
        followed.extend_from_slice(&[0x80, 0x22, 0, 0]);
        assert_eq!(answer(&followed, v4()), None);
    }

    /// RFC 8489 §6.3.1: PRIORITY of the sample is ICE's, which must be understood and is not.
    #[test]
    fn unknown_attributes_that_must_be_understood_are_refused() {
        let refused = answer(REQUEST, v4()).unwrap();
        assert_eq!(refused[..2], [1, 0x11]);
        assert_eq!(
            refused[HEADER_LEN..refused.len() - 8],
            *b"\x00\x09\x00\x04\x00\x00\x04\x14\x00\x0a\x00\x02\x00\x24\x00\x00"
        );
        let many: Vec<u8> = (0..50_u8).flat_map(|n| [0x40, n, 0, 0]).collect();
        let refused = answer(&with_fingerprint(&many), v6()).unwrap();
        assert_eq!(refused.len(), ANSWER_LEN_MAX);
    }

    #[test]
    fn what_is_no_binding_request_is_not_answered() {
        let plain = request(&[]);
        for kind in [0x0000_u16, 0x0003, 0x0011, 0x0101, 0x0111] {
            let mut other = plain.clone();
            other[..2].copy_from_slice(&kind.to_be_bytes());
            assert_eq!(answer(&other, v4()), None, "{kind:#x}");
        }
        // RFC 3489 had no cookie.
        let mut old = plain.clone();
        old[4] = 0;
        assert_eq!(answer(&old, v4()), None);
        for len in 0..REQUEST.len() {
            assert_eq!(answer(&REQUEST[..len], v4()), None, "{len}");
        }
        let mut long = plain;
        long.push(0);
        assert_eq!(answer(&long, v4()), None);
        // An attribute longer than the message.
        assert_eq!(answer(&request(b"\x80\x22\x00\x05abcd"), v4()), None);
    }

    /// What the module says of lengths: nobody is told more than 2.2 times what it asked with.
    #[test]
    fn an_answer_is_at_most_2_2_times_its_request() {
        for source in [v4(), v6()] {
            for unknown in 0..20_u8 {
                let attributes: Vec<u8> = (0..unknown).flat_map(|n| [0x40, n, 0, 0]).collect();
                for bytes in [request(&attributes), with_fingerprint(&attributes)] {
                    let answer = answer(&bytes, source).unwrap();
                    assert!(10 * answer.len() <= 22 * bytes.len());
                    let headers = if source.is_ipv4() { 28 } else { 48 };
                    let wire = |len: usize| 100 * (len + headers);
                    assert!(wire(answer.len()) <= wire(bytes.len()) * 136 / 100);
                }
            }
        }
    }
}
