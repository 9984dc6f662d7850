//! What a capture is asked with, as the query of its request.

use core::fmt::Write as _;
use core::time::Duration;

use super::filter::{Filter, Peer};
use crate::limits::{CAPTURE_PACKETS_DEFAULT, CAPTURE_SECONDS_DEFAULT};

/// A capture that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Only this Call-ID.
    pub call_id: Option<String>,
    /// Only requests of this method and their responses.
    pub method: Option<String>,
    /// Only what came from or went to this peer.
    pub peer: Option<Peer>,
    /// Packets after which it ends; `None` = no limit.
    pub packets_max: Option<u64>,
    /// Time after which it ends; `None` = no limit.
    pub time_max: Option<Duration>,
}

impl Default for Request {
    /// Everything, with an end.
    fn default() -> Self {
        Self {
            call_id: None,
            method: None,
            peer: None,
            packets_max: Some(CAPTURE_PACKETS_DEFAULT),
            time_max: Some(Duration::from_secs(CAPTURE_SECONDS_DEFAULT)),
        }
    }
}

impl Request {
    /// The filter it describes.
    pub fn filter(&self) -> Filter {
        let mut filter = Filter::all();
        if let Some(call_id) = &self.call_id {
            filter = filter.call_id(call_id.as_bytes());
        }
        if let Some(method) = &self.method {
            filter = filter.method(method.as_bytes());
        }
        if let Some(peer) = self.peer {
            filter = filter.peer(peer);
        }
        filter
    }

    /// The query, without `?`. A limit of 0 is none.
    pub fn to_query(&self) -> String {
        let count = self.packets_max.unwrap_or(0).to_string();
        let seconds = self.time_max.map_or(0, |time| time.as_secs()).to_string();
        let peer = self.peer.map(|peer| peer.to_string());
        let pairs = [
            ("call-id", self.call_id.as_deref()),
            ("method", self.method.as_deref()),
            ("address", peer.as_deref()),
            ("count", Some(&*count)),
            ("seconds", Some(&*seconds)),
        ];
        let mut query = String::new();
        for (name, value) in pairs {
            let Some(value) = value else { continue };
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(name);
            query.push('=');
            encode(value, &mut query);
        }
        query
    }

    /// Reads a query.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn from_query(query: &str) -> Result<Self, String> {
        let mut request = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value).ok_or_else(|| format!("{name}: is not UTF-8"))?;
            let number = || {
                let number = value.parse::<u64>();
                number.map_err(|_| format!("{name}: {value:?} is not a number"))
            };
            match name {
                "call-id" | "method" if value.is_empty() => {
                    return Err(format!("{name}: is empty"));
                }
                "call-id" => request.call_id = Some(value),
                "method" => request.method = Some(value),
                "address" => {
                    let peer = value.parse();
                    request.peer =
                        Some(peer.map_err(|error| format!("{name}: {value:?} is {error}"))?);
                }
                "count" => request.packets_max = Some(number()?).filter(|count| *count > 0),
                "seconds" => {
                    let time = Duration::from_secs(number()?);
                    request.time_max = Some(time).filter(|time| !time.is_zero());
                }
                _ => return Err(format!("{name}: is no part of a capture")),
            }
        }
        Ok(request)
    }
}

/// RFC 3986 §2.1, everything but the unreserved.
fn encode(value: &str, query: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            query.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _infallible = write!(query, "%{byte:02X}");
        }
    }
}

/// The value; a `%` without two digits stands for itself.
fn decode(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let octet = || {
            let digits = core::str::from_utf8(behind.get(..2)?).ok()?;
            // `from_str_radix` would take a sign.
            let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            u8::from_str_radix(digits, 16).ok().filter(|_| hex)
        };
        match (first, octet()) {
            (b'%', Some(octet)) => {
                bytes.push(octet);
                rest = &behind[2..];
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_it_was_made_from() {
        let request = Request {
            call_id: Some("a%b&c=d @\"é<>;?".to_owned()),
            method: Some("INVITE".to_owned()),
            peer: Some("[2001:db8::1]:5060".parse().unwrap()),
            packets_max: None,
            time_max: Some(Duration::from_secs(5)),
        };
        let query = request.to_query();
        assert!(!query.contains([' ', '"', '<', '?', '\r']), "{query}");
        assert_eq!(Request::from_query(&query), Ok(request));
        assert_eq!(Request::from_query(""), Ok(Request::default()));
        let default = Request::default();
        assert_eq!(Request::from_query(&default.to_query()), Ok(default));
    }

    #[test]
    fn faults_are_named() {
        for (query, fault) in [
            ("count=x", "count: \"x\" is not a number"),
            ("seconds=-1", "seconds: \"-1\" is not a number"),
            ("method=", "method: is empty"),
            ("call-id", "call-id: is empty"),
            ("address=host", "address: \"host\" is not an address"),
            ("verdict=drop", "verdict: is no part of a capture"),
            ("call-id=%FF", "call-id: is not UTF-8"),
        ] {
            let told = Request::from_query(query).unwrap_err();
            assert!(told.starts_with(fault), "{told}");
        }
        let odd = Request::from_query("call-id=%+1%é%4").unwrap();
        assert_eq!(odd.call_id.as_deref(), Some("%+1%é%4"));
    }
}
