//! The Call-ID of a message, found quickly.

use memchr::memchr;

/// The Call-ID of a message that may be malformed, found without parsing the rest: only the starts
/// of lines are looked at. A value on a folded line is not seen; the parser's word counts then.
pub(super) fn call_id(message: &[u8]) -> Option<&[u8]> {
    // RFC 3261 §7.5: empty lines before the start line are ignored.
    let mut rest = message.trim_ascii_start();
    while let Some(end) = memchr(b'\n', rest) {
        rest = rest.get(end + 1..)?;
        match rest.first()? {
            b'c' | b'C' | b'i' | b'I' => {}
            // The empty line: a body follows.
            b'\r' | b'\n' => return None,
            _ => continue,
        }
        let line = rest.get(..memchr(b'\n', rest)?)?;
        let colon = memchr(b':', line)?;
        let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
        let name = name.trim_ascii_end();
        if name.eq_ignore_ascii_case(b"Call-ID") || name.eq_ignore_ascii_case(b"i") {
            return Some(value.trim_ascii()).filter(|value| !value.is_empty());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sip::Message;

    #[test]
    fn a_call_id_is_found_long_and_compact_and_not_in_bodies() {
        for (message, found) in [
            (
                &b"A b SIP/2.0\r\nCall-ID: 7@h\r\n\r\n"[..],
                Some(&b"7@h"[..]),
            ),
            (
                b"A b SIP/2.0\r\nContact: x\r\ncall-id  :7@h \r\n\r\n",
                Some(b"7@h"),
            ),
            (b"A b SIP/2.0\nCSeq: 1\ni: 7@h\n\n", Some(b"7@h")),
            (b"\r\n\r\nA b SIP/2.0\r\nI:7\r\n", Some(b"7")),
            (b"A b SIP/2.0\r\nX: y\r\n\r\nCall-ID: 7@h\r\n", None),
            (b"A b SIP/2.0\r\nCall-ID: 7@h", None),
            (b"A b SIP/2.0\r\nCall-ID:\r\n 7@h\r\n\r\n", None),
            (b"A b SIP/2.0\r\nContact\r\nCall-ID: 7@h\r\n", None),
            (b"", None),
            (b"\r\n\r\n", None),
        ] {
            assert_eq!(call_id(message), found, "{}", message.escape_ascii());
        }
    }

    proptest! {
        /// What is found here is what the parser finds, wherever the row stands.
        #[test]
        fn a_call_id_that_is_found_is_the_parsers(
            name in "(Call-ID|call-id|CALL-ID|i|I) ?",
            blank in "[ \t]{0,2}",
            value in "[a-z0-9<>%.]{1,9}(@[a-z.]{1,9})?",
            before in proptest::collection::vec("(Contact|Content-Type|X-i|Info): [ -~]{0,20}", 0..4),
            body in "(Call-ID: body\r\n)?",
        ) {
            let mut text = "OPTIONS sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n".to_owned();
            for row in before {
                text += &row;
                text += "\r\n";
            }
            text += &format!(
                "{name}:{blank}{value}{blank}\r\nCSeq: 1 OPTIONS\r\nFrom: <sip:a@x>;tag=1\r\n\
                 To: <sip:b@x>\r\n\r\n{body}"
            );
            let mut message = Message::new();
            let _fault = message.parse(text.as_bytes());
            let parsed = message.call_id().map(|span| span.of(text.as_bytes()));
            prop_assert_eq!(call_id(text.as_bytes()), Some(value.as_bytes()));
            prop_assert_eq!(parsed, Some(value.as_bytes()));
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'i'), Just(b':'), any::<u8>()], 0..200)) {
            let found = call_id(&bytes);
            prop_assert!(found.is_none_or(|found| !found.is_empty() && !found.contains(&b'\n')));
        }
    }
}
