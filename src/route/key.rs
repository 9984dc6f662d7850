//! What of a request chooses the server.
//!
//! A key is read from the message alone. CANCEL and ACK repeat what the INVITE said in Call-ID,
//! From and Request-URI (RFC 3261 §9.1, §17.1.1.3), so that these keys need no memory; a header
//! field they lack, and there the pin of the INVITE stands in.

use arrayvec::ArrayVec;

use super::rules::FieldName;
use crate::affinity::{CallIdHash, Keys};
use crate::balance::AffinityKey;
use crate::limits::AFFINITY_TEXT_LEN_MAX;
use crate::net::IpAddr;
use crate::sip::{HeaderName, Message, Method, NameAddr, Scheme, Span, Uri};

/// The header field of a header key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderKey(FieldName);

/// What of a request chooses the server: equal values, one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The Call-ID.
    CallId,
    /// The address of record that it is about: To of a REGISTER, else the Request-URI.
    Aor,
    /// The URI of From.
    From,
    /// The user part of the Request-URI.
    RuriUser,
    /// The source address.
    Source,
    /// The value of a header field.
    Header(HeaderKey),
}

impl From<&crate::config::KeySource> for KeySource {
    fn from(config: &crate::config::KeySource) -> Self {
        use crate::config::KeySource as Config;
        match config {
            Config::CallId => Self::CallId,
            Config::Aor => Self::Aor,
            Config::From => Self::From,
            Config::RuriUser => Self::RuriUser,
            Config::Source => Self::Source,
            Config::Header(name) => Self::Header(HeaderKey(FieldName::new(name))),
        }
    }
}

impl KeySource {
    /// Its name in the configuration; of a header key without the header.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::CallId => "call-id",
            Self::Aor => "aor",
            Self::From => "from",
            Self::RuriUser => "ruri-user",
            Self::Source => "source",
            Self::Header(_) => "header",
        }
    }

    /// The key of a request. What it lacks is replaced by its Call-ID.
    #[inline]
    pub fn of(
        &self,
        keys: &Keys,
        call_id: CallIdHash,
        message: &Message,
        bytes: &[u8],
        request_uri: &Uri,
        source: IpAddr,
    ) -> AffinityKey {
        let uri_of = |name: HeaderName| {
            let row = message.first(name)?;
            Some(NameAddr::parse(bytes, row.value).ok()?.uri)
        };
        let mut text = Text::new();
        let found = match self {
            Self::CallId => return AffinityKey(call_id.0),
            Self::Aor if message.method() == Method::Register => {
                uri_of(HeaderName::To).is_some_and(|uri| push_address(&mut text, bytes, &uri))
            }
            Self::Aor => push_address(&mut text, bytes, request_uri),
            Self::From => {
                uri_of(HeaderName::From).is_some_and(|uri| push_address(&mut text, bytes, &uri))
            }
            Self::RuriUser => push_user(&mut text, bytes, request_uri),
            Self::Source => push_ip(&mut text, source),
            Self::Header(HeaderKey(name)) => match name.values(message, bytes).next() {
                Some(value) => {
                    push(&mut text, value.iter().copied());
                    true
                }
                None => false,
            },
        };
        if !found {
            return AffinityKey(call_id.0);
        }
        AffinityKey(keys.affinity_hash(&text))
    }
}

/// The text that is hashed. What does not fit is left out: two long values with one beginning go
/// to one server, which is no fault.
type Text = ArrayVec<u8, AFFINITY_TEXT_LEN_MAX>;

fn push(text: &mut Text, bytes: impl IntoIterator<Item = u8>) {
    text.extend(bytes.into_iter().take(text.remaining_capacity()));
}

/// User and host, as they compare (RFC 3261 §19.1.4): the user with regard to case and without
/// escapes, the host without; no port, no parameters, so that one address of record is one key
/// however it is written.
fn push_address(text: &mut Text, bytes: &[u8], uri: &Uri) -> bool {
    match uri.scheme {
        Scheme::Sip | Scheme::Sips => {
            if push_user(text, bytes, uri) {
                push(text, *b"@");
            }
            let host = match uri.host {
                Some(crate::sip::Host::Ip(ip)) => return push_ip(text, ip),
                Some(crate::sip::Host::Name(name)) => name,
                None => Span::default(),
            };
            let host = host.of(bytes);
            let host = host.strip_suffix(b".").unwrap_or(host);
            push(text, host.iter().map(u8::to_ascii_lowercase));
            true
        }
        Scheme::Tel => push_user(text, bytes, uri),
        Scheme::Im | Scheme::Pres | Scheme::Urn | Scheme::Other => {
            push(text, uri.span.of(bytes).iter().copied());
            true
        }
    }
}

fn push_user(text: &mut Text, bytes: &[u8], uri: &Uri) -> bool {
    let Some(user) = uri.user.map(|user| user.of(bytes)) else {
        return false;
    };
    if uri.scheme == Scheme::Tel {
        // RFC 3966 §3, §4: visual separators do not count.
        push(
            text,
            user.iter().copied().filter(|byte| !b"-.()".contains(byte)),
        );
        return true;
    }
    let mut rest = user;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = match (byte, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                push(text, [high << 4 | low]);
                rest = &after[2..];
            }
            None => {
                push(text, [byte]);
                rest = after;
            }
        }
    }
    true
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

fn push_ip(text: &mut Text, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => push(text, v4.octets()),
        IpAddr::V6(v6) => push(text, v6.octets()),
    }
    true
}
