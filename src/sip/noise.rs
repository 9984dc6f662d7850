//! What arrives on a SIP port and is no SIP: keepalives, STUN, SigComp.
//!
//! Told by the first bytes, before the parser sees the datagram.

/// A datagram that is no SIP message and deserves no answer in SIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// Nothing, CR and LF only, or NUL only: NAT keepalives as the field sends them.
    Keepalive,
    /// RFC 8489 §5: the two high bits are zero; RFC 5626 §8 tells it from SIP by the first octet.
    Stun,
    /// RFC 5049 §5: the five high bits of the first octet are set.
    SigComp,
}

/// Tells noise from what may be SIP; `None` is for the parser.
#[inline]
pub fn classify_noise(datagram: &[u8]) -> Option<Noise> {
    match datagram.first() {
        // Anything from SP up that is no SigComp: a token starts so.
        Some(b' '..0xf8) => None,
        Some(0xf8..) => Some(Noise::SigComp),
        None => Some(Noise::Keepalive),
        Some(_) => classify_control(datagram),
    }
}

/// A datagram that starts with a control byte.
fn classify_control(datagram: &[u8]) -> Option<Noise> {
    if datagram.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
        || datagram.iter().all(|byte| *byte == 0)
    {
        return Some(Noise::Keepalive);
    }
    // A STUN header is 20 bytes with a cookie; RFC 5626 §8 asks no more than the first octet.
    matches!(datagram.first(), Some(0 | 1)).then_some(Noise::Stun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_told_by_its_first_bytes() {
        for (datagram, noise) in [
            (&b""[..], Some(Noise::Keepalive)),
            (b"\r\n\r\n", Some(Noise::Keepalive)),
            (b"\r\n", Some(Noise::Keepalive)),
            (b"\0", Some(Noise::Keepalive)),
            (b"\0\0\0\0", Some(Noise::Keepalive)),
            (b"\0\x01\0\0\x21\x12\xa4\x42", Some(Noise::Stun)),
            (b"\x01\x01\0\0\x21\x12\xa4\x42", Some(Noise::Stun)),
            (b"\xf8abc", Some(Noise::SigComp)),
            (b"\xff", Some(Noise::SigComp)),
            (b"\xf7", None),
            (b"INVITE sip:a@b SIP/2.0", None),
            (b"\r\n\r\nINVITE sip:a@b SIP/2.0", None),
            (b"\x02", None),
        ] {
            assert_eq!(
                classify_noise(datagram),
                noise,
                "{}",
                datagram.escape_ascii()
            );
        }
    }
}
