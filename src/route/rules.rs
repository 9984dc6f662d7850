//! The route table: what becomes of a request that no dialog leads on.
//!
//! Rules are tried in their order; the first whose conditions all hold counts. A rule sees the
//! message, its source and the listener, and nothing that changes with time, so every copy of
//! a request meets the same rule (RFC 3261 §16.11).

use memchr::memchr2_iter;

use super::networks::{Networks, address_key};
use super::{Direction, KeySource};
use crate::config::{HeaderTest, Peers};
use crate::net::{IpAddr, ListenerIndex, PoolIndex, SocketAddr};
use crate::sip::{HeaderName, Host, Message, Method, Scheme, Uri};

/// What becomes of a request that meets a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A server of a pool gets it.
    Pool {
        /// The pool.
        pool: PoolIndex,
        /// What chooses the server.
        key: KeySource,
    },
    /// It goes to this address.
    NextHop(SocketAddr),
    /// It is answered with this status.
    Reject(u16),
    /// It is dropped.
    Drop,
}

/// A condition that a rule can have, in the order of their tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Whose request it is.
    From,
    /// The listener it came to.
    Listener,
    /// Its source address.
    Source,
    /// Its method.
    Method,
    /// The scheme of its Request-URI.
    Scheme,
    /// The host of its Request-URI.
    Domain,
    /// The user part of its Request-URI.
    UserPrefix,
    /// A header field.
    Header,
}

/// One request, as the table looks at it.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The listener it came to.
    pub listener: ListenerIndex,
    /// Its source address.
    pub source: IpAddr,
    /// Where that is.
    pub direction: Direction,
    /// The farm sends it out, and neither Route nor Request-URI leads anywhere by itself.
    pub outbound: bool,
    /// The request.
    pub message: &'a Message,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Its Request-URI, after RFC 3261 §16.4.
    pub request_uri: &'a Uri,
    /// Whether that names us.
    pub is_own: bool,
}

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name, if it has one.
    pub name: Option<Box<str>>,
    /// What becomes of a request that meets it.
    pub action: Action,
    from: Peers,
    listener: Option<ListenerIndex>,
    sources: Option<Networks>,
    methods: Box<[MethodTest]>,
    schemes: Box<[SchemeTest]>,
    domains: Box<[DomainTest]>,
    user_prefixes: Box<[Box<[u8]>]>,
    header: Option<Header>,
    /// No condition but `from`.
    is_plain: bool,
}

impl Rule {
    /// From its configuration, with names looked up.
    pub(super) fn new(
        config: &crate::config::Route,
        listener: Option<ListenerIndex>,
        action: Action,
    ) -> Self {
        let sources = &config.sources;
        Self {
            name: config.name.as_deref().map(Into::into),
            action,
            from: config.from,
            listener,
            sources: (!sources.is_empty()).then(|| Networks::new(sources.iter().copied())),
            methods: config
                .methods
                .iter()
                .map(|name| MethodTest::new(name))
                .collect(),
            schemes: config
                .schemes
                .iter()
                .map(|text| SchemeTest::new(text))
                .collect(),
            domains: config
                .domains
                .iter()
                .map(|text| DomainTest::new(text))
                .collect(),
            user_prefixes: config
                .user_prefixes
                .iter()
                .map(|prefix| prefix.as_bytes().into())
                .collect(),
            header: config.header.as_ref().map(Header::new),
            is_plain: listener.is_none()
                && config.sources.is_empty()
                && config.methods.is_empty()
                && config.schemes.is_empty()
                && config.domains.is_empty()
                && config.user_prefixes.is_empty()
                && config.header.is_none(),
        }
    }

    /// The rule that sends everything to the only pool.
    pub(super) fn everything_to(pool: PoolIndex) -> Self {
        let action = Action::Pool {
            pool,
            key: KeySource::CallId,
        };
        Self {
            name: None,
            action,
            from: Peers::Any,
            listener: None,
            sources: None,
            methods: [].into(),
            schemes: [].into(),
            domains: [].into(),
            user_prefixes: [].into(),
            header: None,
            is_plain: true,
        }
    }

    /// The first condition of this rule that a request does not meet.
    #[inline]
    pub fn unmet(&self, question: &Question<'_>) -> Option<Condition> {
        if !self.is_for(question) {
            return Some(Condition::From);
        }
        if self.is_plain {
            return None;
        }
        self.unmet_by_contents(question)
    }

    fn unmet_by_contents(&self, question: &Question<'_>) -> Option<Condition> {
        let method = question.message.method();
        let user = question.request_uri.user.unwrap_or_default();
        if self.listener.is_some_and(|of| of != question.listener) {
            return Some(Condition::Listener);
        }
        let in_sources = |sources: &Networks| sources.contains(question.source);
        if !self.sources.as_ref().is_none_or(in_sources) {
            return Some(Condition::Source);
        }
        let name = question.message.method_span().of(question.bytes);
        if !any(&self.methods, |test| test.holds(method, name)) {
            return Some(Condition::Method);
        }
        if !any(&self.schemes, |test| test.holds(question)) {
            return Some(Condition::Scheme);
        }
        if !any(&self.domains, |test| test.holds(question)) {
            return Some(Condition::Domain);
        }
        let user = user.of(question.bytes);
        if !any(&self.user_prefixes, |prefix| user.starts_with(prefix)) {
            return Some(Condition::UserPrefix);
        }
        match &self.header {
            Some(header) if !header.holds(question.message, question.bytes) => {
                Some(Condition::Header)
            }
            _ => None,
        }
    }

    /// Whether one of its domains is our own.
    pub(super) fn asks_for_own_domain(&self) -> bool {
        self.domains
            .iter()
            .any(|test| matches!(test, DomainTest::Own))
    }

    fn is_for(&self, question: &Question<'_>) -> bool {
        match (self.from, question.direction) {
            (Peers::Any, Direction::Farm) => !question.outbound,
            (Peers::Any, Direction::Outside | Direction::Trusted) => true,
            (Peers::Outside, direction) => direction == Direction::Outside,
            (Peers::Trusted, direction) => direction == Direction::Trusted,
            (Peers::Farm, direction) => direction == Direction::Farm && question.outbound,
        }
    }
}

/// Whether one of the tests holds; none at all is no condition.
#[inline]
fn any<T>(tests: &[T], holds: impl FnMut(&T) -> bool) -> bool {
    tests.is_empty() || tests.iter().any(holds)
}

/// One method of a condition.
#[derive(Clone, Debug)]
enum MethodTest {
    Known(Method),
    Named(Box<[u8]>),
}

impl MethodTest {
    fn new(name: &str) -> Self {
        match Method::parse(name.as_bytes()) {
            Method::Other => Self::Named(name.as_bytes().into()),
            method => Self::Known(method),
        }
    }

    fn holds(&self, method: Method, name: &[u8]) -> bool {
        match self {
            // RFC 3261 §9.1, §17.1.1.3: they go where their INVITE went.
            Self::Known(Method::Invite) => {
                matches!(method, Method::Invite | Method::Cancel | Method::Ack)
            }
            Self::Known(known) => *known == method,
            Self::Named(other) => **other == *name,
        }
    }
}

/// One scheme of a condition.
#[derive(Clone, Debug)]
enum SchemeTest {
    Scheme(Scheme),
    /// `urn:service:sos` and all below it (RFC 5031 §3).
    Urn(Box<[u8]>),
}

impl SchemeTest {
    fn new(text: &str) -> Self {
        match text {
            "sip" => Self::Scheme(Scheme::Sip),
            "sips" => Self::Scheme(Scheme::Sips),
            "tel" => Self::Scheme(Scheme::Tel),
            "im" => Self::Scheme(Scheme::Im),
            "pres" => Self::Scheme(Scheme::Pres),
            "urn" => Self::Scheme(Scheme::Urn),
            urn => Self::Urn(urn.as_bytes().into()),
        }
    }

    fn holds(&self, question: &Question<'_>) -> bool {
        let uri = question.request_uri;
        match self {
            Self::Scheme(scheme) => uri.scheme == *scheme,
            Self::Urn(start) => {
                let text = uri.span.of(question.bytes);
                let whole_labels = |rest: &[u8]| rest.is_empty() || b".:;".contains(&rest[0]);
                uri.scheme == Scheme::Urn
                    && text
                        .split_at_checked(start.len())
                        .is_some_and(|(head, rest)| {
                            head.eq_ignore_ascii_case(start) && whole_labels(rest)
                        })
            }
        }
    }
}

/// One host of a condition.
#[derive(Clone, Debug)]
enum DomainTest {
    /// Any address or alias of ours.
    Own,
    Address(u128),
    Name(Box<[u8]>),
    /// What a name ends with, from the dot.
    Below(Box<[u8]>),
}

impl DomainTest {
    fn new(text: &str) -> Self {
        let text = text.strip_suffix('.').unwrap_or(text);
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        match (text, bare.parse::<IpAddr>(), text.strip_prefix('*')) {
            ("self", _, _) => Self::Own,
            (_, Ok(address), _) => Self::Address(address_key(address)),
            (_, _, Some(below)) => Self::Below(below.as_bytes().into()),
            (name, _, _) => Self::Name(name.as_bytes().into()),
        }
    }

    fn holds(&self, question: &Question<'_>) -> bool {
        // RFC 3261 §19.1.4: names compare without regard to case; RFC 5954 §4.2: addresses in
        // binary.
        let name = |span: crate::sip::Span| {
            let name = span.of(question.bytes);
            name.strip_suffix(b".").unwrap_or(name)
        };
        match (self, question.request_uri.host) {
            (Self::Own, _) => question.is_own,
            (Self::Address(own), Some(Host::Ip(ip))) => *own == address_key(ip),
            (Self::Name(own), Some(Host::Name(span))) => name(span).eq_ignore_ascii_case(own),
            (Self::Below(own), Some(Host::Name(span))) => {
                let name = name(span);
                let at = name.len().checked_sub(own.len()).unwrap_or(name.len());
                at > 0 && name.split_at(at).1.eq_ignore_ascii_case(own)
            }
            _ => false,
        }
    }
}

/// A condition on a header field.
#[derive(Clone, Debug)]
struct Header {
    name: FieldName,
    test: HeaderTest,
}

impl Header {
    fn new(config: &crate::config::HeaderCondition) -> Self {
        Self {
            name: FieldName::new(&config.name),
            test: config.test.clone(),
        }
    }

    fn holds(&self, message: &Message, bytes: &[u8]) -> bool {
        self.name
            .values(message, bytes)
            .any(|value| match &self.test {
                HeaderTest::Present => true,
                HeaderTest::Equals(text) => value.eq_ignore_ascii_case(text.as_bytes()),
                HeaderTest::Prefix(text) => value
                    .get(..text.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(text.as_bytes())),
                HeaderTest::Contains(text) => contains(value, text.as_bytes()),
            })
    }
}

/// Whether `text` stands in `value`, without regard to case.
fn contains(value: &[u8], text: &[u8]) -> bool {
    let Some(first) = text.first() else {
        return true;
    };
    memchr2_iter(
        first.to_ascii_lowercase(),
        first.to_ascii_uppercase(),
        value,
    )
    .any(|at| {
        value
            .get(at..at + text.len())
            .is_some_and(|part| part.eq_ignore_ascii_case(text))
    })
}

/// The name of a header field, known to the parser or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FieldName {
    Known(HeaderName),
    Named(Box<[u8]>),
}

impl FieldName {
    pub(super) fn new(name: &str) -> Self {
        match HeaderName::parse(name.as_bytes()) {
            HeaderName::Other => Self::Named(name.as_bytes().into()),
            known => Self::Known(known),
        }
    }

    /// The values of the rows of this name.
    pub(super) fn values<'a>(
        &'a self,
        message: &'a Message,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = &'a [u8]> {
        let name = match self {
            Self::Known(name) => *name,
            Self::Named(_) => HeaderName::Other,
        };
        message
            .rows(name)
            .filter(move |row| match self {
                Self::Known(_) => true,
                Self::Named(name) => row.name_bytes(bytes).eq_ignore_ascii_case(name),
            })
            .map(move |row| row.value.of(bytes))
    }
}
