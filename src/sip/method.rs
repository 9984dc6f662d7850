//! Request methods (RFC 3261 §7.1). Names are case-sensitive tokens; unknown ones are forwarded.

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
    #[inline]
    pub fn parse(name: &[u8]) -> Self {
        match name {
            b"INVITE" => Self::Invite,
            b"ACK" => Self::Ack,
            b"BYE" => Self::Bye,
            b"CANCEL" => Self::Cancel,
            b"OPTIONS" => Self::Options,
            b"REGISTER" => Self::Register,
            b"INFO" => Self::Info,
            b"MESSAGE" => Self::Message,
            b"NOTIFY" => Self::Notify,
            b"PRACK" => Self::Prack,
            b"PUBLISH" => Self::Publish,
            b"REFER" => Self::Refer,
            b"SUBSCRIBE" => Self::Subscribe,
            b"UPDATE" => Self::Update,
            _ => Self::Other,
        }
    }

    /// The label of the method's counter.
    pub fn as_str(self) -> &'static str {
        METHODS[self as usize]
    }
}

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
        assert_eq!(Method::parse(b"RE%47IST%45R"), Method::Other);
    }
}
