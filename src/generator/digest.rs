//! Digest authentication, both sides: answers a challenge as a UAC, makes and checks one as a UAS.
//!
//! RFC 3261 §22.4 on RFC 2617: MD5 and MD5-sess, `qop=auth` or none (RFC 2069's form). A server's
//! nonce carries its time under a keyed hash, so no nonce is stored.

use core::fmt::Write as _;
use core::str::FromStr;

use md5::{Digest as _, Md5};

use super::identity::{hex, unhex};
use crate::time::{Duration, Instant};

/// A user name and its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password, in the clear.
    pub password: String,
}

impl FromStr for Credentials {
    type Err = CredentialsError;

    fn from_str(text: &str) -> Result<Self, CredentialsError> {
        let (user, password) = text.split_once(':').ok_or(CredentialsError)?;
        if user.is_empty() || text.contains(|c: char| c == '"' || c.is_control()) {
            return Err(CredentialsError);
        }
        Ok(Self {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }
}

/// Not `user:password`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("credentials are written user:password, without quotes")]
pub struct CredentialsError;

/// A challenge that cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// An algorithm other than MD5 and MD5-sess.
    #[error("digest algorithm other than MD5 and MD5-sess")]
    Algorithm,
    /// Only protection qualities other than `auth` are offered.
    #[error("no qop that is known here")]
    Qop,
    /// Another scheme than Digest.
    #[error("authentication scheme other than Digest")]
    Scheme,
    /// No realm or no nonce.
    #[error("challenge without realm or nonce")]
    Incomplete,
}

/// A challenge received with 401 or 407.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    session: bool,
    algorithm_named: bool,
    qop: bool,
    /// RFC 2617 §3.2.1: the credentials were right, only the nonce was old.
    pub(super) stale: bool,
}

/// What a request is authenticated for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use<'a> {
    pub(super) method: &'a str,
    pub(super) uri: &'a str,
    pub(super) cnonce: &'a str,
    /// How often the nonce was used, this time included.
    pub(super) count: u32,
}

impl Challenge {
    /// Reads the value of a WWW-Authenticate or Proxy-Authenticate header.
    pub(super) fn parse(value: &[u8]) -> Result<Self, ChallengeError> {
        let fields = after_scheme(value).ok_or(ChallengeError::Scheme)?;
        let find = |name: &str| field(fields, name);
        let algorithm = find("algorithm");
        let session = match algorithm.as_deref() {
            None => false,
            Some(name) if name.eq_ignore_ascii_case("MD5") => false,
            Some(name) if name.eq_ignore_ascii_case("MD5-sess") => true,
            Some(_) => return Err(ChallengeError::Algorithm),
        };
        let qop = match find("qop") {
            None => false,
            Some(list) => {
                let mut qualities = list.split(',').map(str::trim);
                if !qualities.any(|quality| quality.eq_ignore_ascii_case("auth")) {
                    return Err(ChallengeError::Qop);
                }
                true
            }
        };
        Ok(Self {
            realm: find("realm").ok_or(ChallengeError::Incomplete)?,
            nonce: find("nonce").ok_or(ChallengeError::Incomplete)?,
            opaque: find("opaque"),
            session,
            algorithm_named: algorithm.is_some(),
            qop,
            stale: find("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        })
    }

    /// The value of the Authorization or Proxy-Authorization header that answers the challenge.
    pub(super) fn answer(&self, credentials: &Credentials, usage: Use<'_>) -> String {
        let count = format!("{:08x}", usage.count);
        let response = response(
            credentials,
            &Terms {
                realm: &self.realm,
                nonce: &self.nonce,
                session: self.session,
                qop: self.qop.then_some(("auth", count.as_str(), usage.cnonce)),
                cnonce: usage.cnonce,
                method: usage.method,
                uri: usage.uri,
            },
        );
        let mut value = format!(
            "Digest username=\"{}\", realm=\"{}\", nonce=\"{}\", uri=\"{}\", response=\"{response}\"",
            credentials.user, self.realm, self.nonce, usage.uri,
        );
        // RFC 2617 §3.2.2: algorithm and opaque are given back as they came. A `String` takes
        // every write.
        if self.algorithm_named {
            let name = if self.session { "MD5-sess" } else { "MD5" };
            let _ = write!(value, ", algorithm={name}");
        }
        if let Some(opaque) = &self.opaque {
            let _ = write!(value, ", opaque=\"{opaque}\"");
        }
        if self.qop {
            let _ = write!(value, ", qop=auth, nc={count}");
        }
        if self.qop || self.session {
            let _ = write!(value, ", cnonce=\"{}\"", usage.cnonce);
        }
        value
    }
}

/// What goes into a digest beside the password.
struct Terms<'a> {
    realm: &'a str,
    nonce: &'a str,
    session: bool,
    /// Quality, count, cnonce.
    qop: Option<(&'a str, &'a str, &'a str)>,
    cnonce: &'a str,
    method: &'a str,
    uri: &'a str,
}

/// RFC 2617 §3.2.2.1: the request digest.
fn response(credentials: &Credentials, terms: &Terms<'_>) -> String {
    let Credentials { user, password } = credentials;
    let mut secret = md5(&[user, terms.realm, password]);
    if terms.session {
        secret = md5(&[&secret, terms.nonce, terms.cnonce]);
    }
    let request = md5(&[terms.method, terms.uri]);
    match terms.qop {
        Some((quality, count, cnonce)) => {
            md5(&[&secret, terms.nonce, count, cnonce, quality, &request])
        }
        None => md5(&[&secret, terms.nonce, &request]),
    }
}

/// MD5 over the parts with colons between them, in hexadecimal.
fn md5(parts: &[&str]) -> String {
    let digest = Md5::digest(parts.join(":").as_bytes());
    let (high, low) = digest.split_at(8);
    [high, low]
        .into_iter()
        .flat_map(|half| hex(half.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))))
        .map(char::from)
        .collect()
}

/// What a server makes of an Authorization header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// User, password and nonce are right.
    Accepted,
    /// Right, but the nonce is old: challenge again with `stale=true`.
    Stale,
    /// Anything else.
    Refused,
}

/// The server side: makes challenges and judges their answers.
#[derive(Clone, Debug)]
pub(super) struct Verifier {
    credentials: Credentials,
    realm: String,
    secret: u64,
    nonce_life: Duration,
}

impl Verifier {
    pub(super) fn new(credentials: Credentials, realm: &str, secret: u64) -> Self {
        Self {
            credentials,
            realm: realm.to_owned(),
            secret,
            nonce_life: Duration::from_secs(300),
        }
    }

    /// Nonces older than this are stale.
    pub(super) fn with_nonce_life(mut self, life: Duration) -> Self {
        self.nonce_life = life;
        self
    }

    /// The value of a WWW-Authenticate header.
    pub(super) fn challenge(&self, now: Instant, stale: bool) -> String {
        let stale = if stale { ", stale=true" } else { "" };
        format!(
            "Digest realm=\"{}\", nonce=\"{}\", algorithm=MD5, qop=\"auth\"{stale}",
            self.realm,
            self.nonce(now.as_millis()),
        )
    }

    /// Judges the value of an Authorization header.
    pub(super) fn judge(&self, value: &[u8], method: &str, now: Instant) -> Judgement {
        self.checked(value, method, now)
            .unwrap_or(Judgement::Refused)
    }

    fn checked(&self, value: &[u8], method: &str, now: Instant) -> Option<Judgement> {
        let fields = after_scheme(value)?;
        let find = |name: &str| field(fields, name);
        let (user, realm, nonce) = (find("username")?, find("realm")?, find("nonce")?);
        if user != self.credentials.user || realm != self.realm {
            return None;
        }
        let made_at = unhex(nonce.as_bytes().get(..16)?)?;
        if nonce != self.nonce(made_at) {
            return None;
        }
        let (cnonce, count) = (find("cnonce").unwrap_or_default(), find("nc"));
        let quality = find("qop");
        let qop = match (&quality, &count) {
            (Some(quality), Some(count)) => Some((quality.as_str(), count.as_str(), &*cnonce)),
            _ => None,
        };
        let expected = response(
            &self.credentials,
            &Terms {
                realm: &realm,
                nonce: &nonce,
                session: false,
                qop,
                cnonce: &cnonce,
                method,
                uri: &find("uri")?,
            },
        );
        if !find("response")?.eq_ignore_ascii_case(&expected) {
            return None;
        }
        let age = now.as_millis().saturating_sub(made_at);
        if u128::from(age) > self.nonce_life.as_millis() {
            return Some(Judgement::Stale);
        }
        Some(Judgement::Accepted)
    }

    fn nonce(&self, made_at: u64) -> String {
        let time: String = hex(made_at).into_iter().map(char::from).collect();
        let secret: String = hex(self.secret).into_iter().map(char::from).collect();
        let mac = md5(&[&time, &secret]);
        time + &mac
    }
}

/// The fields after the scheme `Digest`.
fn after_scheme(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let (scheme, fields) = value.split_at_checked(b"Digest".len())?;
    (scheme.eq_ignore_ascii_case(b"Digest") && fields.first().is_some_and(u8::is_ascii_whitespace))
        .then_some(fields)
}

/// The value of a field in `name=value, name="value"`, without quotes and escapes.
fn field(mut fields: &[u8], name: &str) -> Option<String> {
    while !fields.is_empty() {
        let equals = memchr::memchr(b'=', fields)?;
        let (key, rest) = (
            fields[..equals].trim_ascii(),
            fields[equals + 1..].trim_ascii_start(),
        );
        let (value, rest) = match rest.strip_prefix(b"\"") {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = memchr::memchr(b',', rest).unwrap_or(rest.len());
                (rest[..end].trim_ascii().to_vec(), &rest[end..])
            }
        };
        if key.eq_ignore_ascii_case(name.as_bytes()) {
            return String::from_utf8(value).ok();
        }
        fields = match memchr::memchr(b',', rest) {
            Some(comma) => &rest[comma + 1..],
            None => &[],
        };
    }
    None
}

/// The text up to the closing quote, and what follows it.
fn unquoted(quoted: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut text = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((place, &byte)) = bytes.next() {
        match byte {
            b'"' => return Some((text, &quoted[place + 1..])),
            b'\\' => text.push(*bytes.next()?.1),
            _ => text.push(byte),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of RFC 2617 §3.5.
    const RFC_2617: &[u8] = b"Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", \
        nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";

    fn mufasa() -> Credentials {
        "Mufasa:Circle Of Life".parse().unwrap()
    }

    const REQUEST: Use<'_> = Use {
        method: "GET",
        uri: "/dir/index.html",
        cnonce: "0a4f113b",
        count: 1,
    };

    fn response_of(value: &str) -> String {
        field(after_scheme(value.as_bytes()).unwrap(), "response").unwrap()
    }

    #[test]
    fn rfc_2617_section_3_5() {
        let challenge = Challenge::parse(RFC_2617).unwrap();
        let value = challenge.answer(&mufasa(), REQUEST);
        assert_eq!(response_of(&value), "6629fae49393a05397450978507c4ef1");
        assert!(value.contains("opaque=\"5ccc069c403ebaf9f0171e9517f40e41\""));
        assert!(value.contains("qop=auth, nc=00000001, cnonce=\"0a4f113b\""));
    }

    /// RFC 2069 §2.4 as corrected by its erratum: no qop.
    #[test]
    fn without_qop_the_older_form_is_used() {
        let challenge = Challenge::parse(
            b"Digest realm=\"testrealm@host.com\", \
              nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\"",
        )
        .unwrap();
        let mufasa = "Mufasa:CircleOfLife".parse().unwrap();
        let value = challenge.answer(&mufasa, REQUEST);
        assert_eq!(response_of(&value), "1949323746fe6a43ef61f9606e7febea");
        assert!(!value.contains("cnonce"));
    }

    #[test]
    fn challenges_that_cannot_be_answered_say_why() {
        let parse = |text: &str| Challenge::parse(text.as_bytes()).unwrap_err();
        assert_eq!(parse("Basic realm=\"x\""), ChallengeError::Scheme);
        assert_eq!(parse("Digestrealm=\"x\""), ChallengeError::Scheme);
        assert_eq!(parse("Digest realm=\"x\""), ChallengeError::Incomplete);
        let sha = "Digest realm=\"x\", nonce=\"y\", algorithm=SHA-256";
        assert_eq!(parse(sha), ChallengeError::Algorithm);
        let integrity = "Digest realm=\"x\", nonce=\"y\", qop=\"auth-int\"";
        assert_eq!(parse(integrity), ChallengeError::Qop);
    }

    #[test]
    fn quotes_escapes_and_case_are_met() {
        let fields = b" REALM=\"a \\\"b\\\", nonce=no\" , nonce = x ,stale=TRUE";
        assert_eq!(field(fields, "realm").unwrap(), "a \"b\", nonce=no");
        assert_eq!(field(fields, "nonce").unwrap(), "x");
        assert_eq!(field(fields, "stale").unwrap(), "TRUE");
        assert_eq!(field(fields, "opaque"), None);
        assert_eq!(field(b"realm=\"open", "realm"), None);
    }

    #[test]
    fn a_server_accepts_its_own_challenge_answered_rightly_and_nothing_else() {
        let verifier = Verifier::new(mufasa(), "viaduct", 99);
        let now = Instant::from_nanos(7_000_000_000);
        let challenge = Challenge::parse(verifier.challenge(now, false).as_bytes()).unwrap();
        let usage = Use {
            method: "REGISTER",
            uri: "sip:198.18.0.1",
            ..REQUEST
        };
        let value = challenge.answer(&mufasa(), usage);
        let judge = |value: &str, method, now| verifier.judge(value.as_bytes(), method, now);
        assert_eq!(judge(&value, "REGISTER", now), Judgement::Accepted);
        assert_eq!(judge(&value, "INVITE", now), Judgement::Refused);
        let late = now + Duration::from_secs(301);
        assert_eq!(judge(&value, "REGISTER", late), Judgement::Stale);
        let wrong = challenge.answer(&"Mufasa:wrong".parse().unwrap(), usage);
        assert_eq!(judge(&wrong, "REGISTER", now), Judgement::Refused);
        let other = Verifier::new(mufasa(), "viaduct", 100);
        assert_eq!(
            other.judge(value.as_bytes(), "REGISTER", now),
            Judgement::Refused
        );
        assert!(
            Challenge::parse(verifier.challenge(now, true).as_bytes())
                .unwrap()
                .stale
        );
    }

    #[test]
    fn session_keys_need_a_cnonce() {
        let text = b"Digest realm=\"x\", nonce=\"y\", algorithm=MD5-sess, qop=\"auth\"";
        let value = Challenge::parse(text).unwrap().answer(&mufasa(), REQUEST);
        assert!(value.contains("algorithm=MD5-sess"));
        let plain = b"Digest realm=\"x\", nonce=\"y\", algorithm=MD5, qop=\"auth\"";
        let other = Challenge::parse(plain).unwrap().answer(&mufasa(), REQUEST);
        assert_ne!(response_of(&value), response_of(&other));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(value: Vec<u8>) {
            let verifier = Verifier::new(mufasa(), "r", 1);
            let mut scheme = b"Digest ".to_vec();
            scheme.extend_from_slice(&value);
            let _ = Challenge::parse(&scheme);
            prop_assert_eq!(
                verifier.judge(&scheme, "REGISTER", Instant::ZERO),
                Judgement::Refused
            );
        }
    }
}
