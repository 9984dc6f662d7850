//! Request methods (RFC 3261 §7.1). Names are case-sensitive tokens; unknown ones are forwarded.

use super::scan::{byte, front, pack, word};
use crate::metrics::METHODS;

/// Method of a request, in the order of [`METHODS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Method {
    /// ACK, RFC 3261.
    Ack,
    /// BYE, RFC 3261.
    Bye,
    /// CANCEL, RFC 3261.
    Cancel,
    /// INFO, RFC 6086.
    Info,
    /// INVITE, RFC 3261.
    Invite,
    /// MESSAGE, RFC 3428.
    Message,
    /// NOTIFY, RFC 6665.
    Notify,
    /// OPTIONS, RFC 3261.
    Options,
    /// PRACK, RFC 3262.
    Prack,
    /// PUBLISH, RFC 3903.
    Publish,
    /// REFER, RFC 3515.
    Refer,
    /// REGISTER, RFC 3261.
    Register,
    /// SUBSCRIBE, RFC 6665.
    Subscribe,
    /// UPDATE, RFC 3311.
    Update,
    /// Any other token.
    Other,
}

const _: () = assert!(Method::Other as usize + 1 == METHODS.len());

impl Method {
    /// The method of this name, byte for byte (RFC 3261 §7.1: the method is case-sensitive).
    pub fn parse(name: &[u8]) -> Self {
        Self::at(name, 0, name.len())
    }

    /// The method in the `len` bytes at `pos`.
    #[inline(always)]
    pub(super) fn at(bytes: &[u8], pos: usize, len: usize) -> Self {
        const SUBSCRIBE: u64 = pack(b"SUBSCRIB");
        let name = word(bytes, pos);
        if len > 8 {
            return match name {
                SUBSCRIBE if len == 9 && byte(bytes, pos + 8) == b'E' => Self::Subscribe,
                _ => Self::Other,
            };
        }
        let name = front(name, len);
        for (text, method) in SHORT {
            // The length tells text from text with NUL behind it.
            if name == pack(text) && len == text.len() {
                return method;
            }
        }
        Self::Other
    }

    /// The label of the method's counter.
    pub fn as_str(self) -> &'static str {
        METHODS[self as usize]
    }
}

/// The methods of up to eight letters, the frequent ones first.
const SHORT: [(&[u8], Method); 13] = [
    (b"INVITE", Method::Invite),
    (b"ACK", Method::Ack),
    (b"BYE", Method::Bye),
    (b"REGISTER", Method::Register),
    (b"OPTIONS", Method::Options),
    (b"CANCEL", Method::Cancel),
    (b"UPDATE", Method::Update),
    (b"PRACK", Method::Prack),
    (b"INFO", Method::Info),
    (b"NOTIFY", Method::Notify),
    (b"MESSAGE", Method::Message),
    (b"PUBLISH", Method::Publish),
    (b"REFER", Method::Refer),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_methods_agree() {
        for label in METHODS.iter().filter(|label| **label != "other") {
            let method = Method::parse(label.as_bytes());
            assert_ne!(method, Method::Other, "{label}");
            assert_eq!(method.as_str(), *label);
        }
        assert_eq!(Method::parse(b"invite"), Method::Other);
        assert_eq!(Method::parse(b"OPTIONS\0"), Method::Other);
        assert_eq!(Method::parse(b"RE%47IST%45R"), Method::Other);
    }
}
