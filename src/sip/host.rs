//! Hosts: names, IPv4 addresses, bracketed IPv6 references (RFC 3261 §25.1, RFC 5954).
//!
//! An address is parsed to binary once, here, so that equality above is `==` on values: RFC 5954
//! §4.2 wants IPv6 compared in binary. IPv4-mapped addresses become IPv4. Names stay spans; they
//! compare without case ([`Host::is_name`]).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::scan::{HOST_NAME, Number, byte, find_any, leading_number};
use super::{ParseError, Span};
use crate::net::canonical;

/// Longest host name, RFC 1035 §2.3.4.
const NAME_LEN_MAX: usize = 255;

/// The host of a URI or a sent-by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address literal, IPv4-mapped IPv6 as IPv4.
    Ip(IpAddr),
    /// A name.
    Name(Span),
}

impl Host {
    /// The address, if it is a literal.
    pub const fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(ip),
            Self::Name(_) => None,
        }
    }

    /// Whether it is this name, in any case (RFC 3261 §19.1.4).
    pub fn is_name(self, bytes: &[u8], name: &[u8]) -> bool {
        matches!(self, Self::Name(span) if span.of(bytes).eq_ignore_ascii_case(name))
    }

    /// Parses the host at `pos` and tells where it ends.
    #[inline(always)]
    pub(super) fn parse_at(
        bytes: &[u8],
        pos: usize,
        end: usize,
    ) -> Result<(Self, usize), ParseError> {
        if byte(bytes, pos).is_ascii_digit()
            && let Some((ip, after)) = leading_ipv4(bytes, pos, end)
            && (after >= end || !HOST_NAME[usize::from(byte(bytes, after))])
        {
            return Ok((Self::Ip(IpAddr::V4(ip)), after));
        }
        Self::parse_other_at(bytes, pos, end)
    }

    /// Parses a host that is no IPv4 address.
    fn parse_other_at(bytes: &[u8], pos: usize, end: usize) -> Result<(Self, usize), ParseError> {
        if pos < end && byte(bytes, pos) == b'[' {
            let close = find_any(bytes, pos + 1, end, [b']']);
            if close >= end {
                return Err(ParseError::Host);
            }
            let text = bytes.get(pos + 1..close).unwrap_or_default();
            let ip = parse_ipv6(text).ok_or(ParseError::Host)?;
            return Ok((Self::Ip(canonical(IpAddr::V6(ip))), close + 1));
        }
        let text = bytes.get(pos..end).unwrap_or_default();
        let len = text
            .iter()
            .position(|byte| !HOST_NAME[usize::from(*byte)])
            .unwrap_or(text.len());
        let text = text.get(..len).unwrap_or_default();
        // `toplabel` starts with a letter: a name never ends in a label of digits, so what looks
        // like an address and is none is refused rather than looked up.
        if len == 0 || len > NAME_LEN_MAX || last_label_is_numeric(text) {
            return Err(ParseError::Host);
        }
        Ok((Self::Name(Span::at(pos, pos + len)), pos + len))
    }
}

/// An address as `received`, `maddr` or an address list spell it: with or without brackets.
///
/// RFC 5118 §4.5: accept `received` with and without `[` and `]`.
pub fn parse_ip(text: &[u8]) -> Option<IpAddr> {
    if let Some(ip) = parse_ipv4(text) {
        return Some(IpAddr::V4(ip));
    }
    let inner = match text {
        [b'[', inner @ .., b']'] => inner,
        _ => text,
    };
    parse_ipv6(inner).map(|ip| canonical(IpAddr::V6(ip)))
}

/// `port = 1*DIGIT`, and a UDP or TCP port at that. Tells also where it ends.
#[inline(always)]
pub(super) fn parse_port(bytes: &[u8], pos: usize, end: usize) -> Result<(u16, usize), ParseError> {
    let (number, after) = leading_number(bytes, pos, end);
    match number {
        Number::Value(value @ 1..) => u16::try_from(value)
            .map(|port| (port, after))
            .map_err(|_| ParseError::Port),
        _ => Err(ParseError::Port),
    }
}

fn last_label_is_numeric(name: &[u8]) -> bool {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let label = name.rsplit(|byte| *byte == b'.').next().unwrap_or(name);
    label.iter().all(u8::is_ascii_digit)
}

fn parse_ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let (ip, after) = leading_ipv4(text, 0, text.len())?;
    (after == text.len()).then_some(ip)
}

/// `IPv4address = 1*3DIGIT "." 1*3DIGIT "." 1*3DIGIT "." 1*3DIGIT`, each decimal also with leading
/// zeros. Tells also where it ends.
#[inline(always)]
fn leading_ipv4(bytes: &[u8], mut pos: usize, end: usize) -> Option<(Ipv4Addr, usize)> {
    let mut address = 0;
    for octets_left in (0..4).rev() {
        let start = pos;
        let mut octet = 0;
        while pos < end && pos < start + 4 {
            let digit = byte(bytes, pos).wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            octet = octet * 10 + u32::from(digit);
            pos += 1;
        }
        if pos == start || pos == start + 4 || octet > 255 {
            return None;
        }
        address = address << 8 | octet;
        if octets_left > 0 {
            if pos >= end || byte(bytes, pos) != b'.' {
                return None;
            }
            pos += 1;
        }
    }
    Some((Ipv4Addr::from_bits(address), pos))
}

/// `IPv6address` as RFC 5954 §4.1 corrects it, without zone.
fn parse_ipv6(text: &[u8]) -> Option<Ipv6Addr> {
    let mut groups = [0u16; 8];
    let mut count = 0;
    // How many groups stand before the `::`.
    let mut gap = None;
    let mut rest = text;
    if let Some(after) = text.strip_prefix(b"::") {
        gap = Some(0);
        rest = after;
    }
    while !rest.is_empty() {
        // RFC 5118 §4.10: the grammar of RFC 3261 put a third colon between `::` and an IPv4
        // address; tolerate it.
        if gap == Some(count)
            && let Some(after) = rest.strip_prefix(b":")
            && after.contains(&b'.')
        {
            rest = after;
        }
        if !rest.contains(&b':') && rest.contains(&b'.') {
            let tail = parse_ipv4(rest)?.to_bits();
            *groups.get_mut(count)? = u16::try_from(tail >> 16).ok()?;
            *groups.get_mut(count + 1)? = u16::try_from(tail & 0xffff).ok()?;
            count += 2;
            break;
        }
        let digits = rest
            .iter()
            .position(|byte| !byte.is_ascii_hexdigit())
            .unwrap_or(rest.len());
        let (text, after) = rest.split_at_checked(digits)?;
        *groups.get_mut(count)? = parse_group(text)?;
        count += 1;
        rest = match after {
            [] => break,
            [b':', b':', after @ ..] if gap.is_none() => {
                gap = Some(count);
                after
            }
            [b':', after @ ..] if !after.is_empty() => after,
            _ => return None,
        };
    }
    match gap {
        None => (count == 8).then(|| Ipv6Addr::from(groups)),
        // `::` stands for at least one group.
        Some(before) if count < 8 => {
            let mut spread = [0; 8];
            let (head, tail) = groups.get(..count)?.split_at_checked(before)?;
            spread.get_mut(..before)?.copy_from_slice(head);
            spread.get_mut(8 - tail.len()..)?.copy_from_slice(tail);
            Some(Ipv6Addr::from(spread))
        }
        Some(_) => None,
    }
}

/// `hex4 = 1*4HEXDIG`.
fn parse_group(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 4 {
        return None;
    }
    digits.iter().try_fold(0u16, |group, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        Some(group << 4 | u16::try_from(digit).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(text: &[u8]) -> Result<(Host, usize), ParseError> {
        Host::parse_at(text, 0, text.len())
    }

    #[test]
    fn literals_become_binary_and_names_stay_spans() {
        assert_eq!(
            host(b"192.0.2.1:5060"),
            Ok((Host::Ip("192.0.2.1".parse().unwrap()), 9))
        );
        assert_eq!(
            host(b"[2001:DB8::10]:5070"),
            Ok((Host::Ip("2001:db8::10".parse().unwrap()), 14))
        );
        assert_eq!(
            host(b"[::ffff:192.0.2.10]"),
            Ok((Host::Ip("192.0.2.10".parse().unwrap()), 19))
        );
        assert_eq!(
            host(b"hlau_4100.Example;x"),
            Ok((Host::Name(Span::new(0, 17)), 17))
        );
        assert_eq!(
            host(b"192.000.002.001"),
            Ok((Host::Ip("192.0.2.1".parse().unwrap()), 15))
        );
    }

    #[test]
    fn what_is_neither_name_nor_address_is_refused() {
        for text in [
            &b""[..],
            b"192.0.2.256",
            b"192.0.2",
            b"192.0.2.1.5",
            b"2001",
            b"[2001:db8::10",
            b"[2001:db8::1::2]",
            b"[1:2:3:4:5:6:7]",
            b"[1:2:3:4:5:6:7:8:9]",
            b"[1:2:3:4:5:6:7::8]",
            b"[12345::]",
            b"[1:]",
            b"[fe80::1%eth0]",
            b";x",
        ] {
            assert_eq!(host(text), Err(ParseError::Host), "{}", text.escape_ascii());
        }
        assert!(host(&[b'a'; 255]).is_ok());
        assert_eq!(host(&[b'a'; 256]), Err(ParseError::Host));
    }

    // RFC 5118 §4.10
    #[test]
    fn a_third_colon_before_an_ipv4_tail_is_tolerated() {
        assert_eq!(
            parse_ip(b"2001:db8:::192.0.2.1"),
            Some("2001:db8::192.0.2.1".parse().unwrap())
        );
        assert_eq!(parse_ip(b"2001:db8:::1"), None);
    }

    // RFC 5118 §4.5
    #[test]
    fn an_address_may_wear_brackets() {
        let ip = Some("2001:db8::9:255".parse().unwrap());
        assert_eq!(parse_ip(b"[2001:db8::9:255]"), ip);
        assert_eq!(parse_ip(b"2001:db8::9:255"), ip);
        assert_eq!(parse_ip(b"example.com"), None);
    }

    #[test]
    fn ports_are_one_to_65535() {
        assert_eq!(parse_port(b"65535;", 0, 6), Ok((65_535, 5)));
        assert_eq!(parse_port(b"1", 0, 1), Ok((1, 1)));
        for text in [&b"65536"[..], b"0", b"", b";", b"99999999999999999999"] {
            assert_eq!(parse_port(text, 0, text.len()), Err(ParseError::Port));
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_standard_library(bits in any::<u128>(), zeros in any::<u8>()) {
            // Blank out groups, so that `::` is met in every place.
            let mut groups = Ipv6Addr::from_bits(bits).segments();
            for (index, group) in groups.iter_mut().enumerate() {
                if zeros >> index & 1 == 1 {
                    *group = 0;
                }
            }
            let ip = Ipv6Addr::from(groups);
            prop_assert_eq!(parse_ipv6(ip.to_string().as_bytes()), Some(ip));
            let [.., a, b, c, d] = ip.octets();
            let v4 = Ipv4Addr::new(a, b, c, d);
            prop_assert_eq!(parse_ipv4(v4.to_string().as_bytes()), Some(v4));
        }

        #[test]
        fn refuses_what_the_standard_library_refuses(text in "[0-9a-f:.]{0,24}") {
            let expected: Option<Ipv6Addr> = text.parse().ok();
            let ours = parse_ipv6(text.as_bytes());
            // Ours also takes leading zeros in an IPv4 tail and the third colon.
            if ours != expected {
                prop_assert!(text.contains('.'), "{} {:?}", text, ours);
                prop_assert!(expected.is_none());
            }
        }
    }
}
