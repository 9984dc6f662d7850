//! The route table as written: conditions on a request and what becomes of it.

use crate::net::{Network, SocketAddr};

/// A rule of the route table. Conditions that are absent or empty hold for every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Name in explanations and logs.
    pub name: Option<String>,
    /// Listener the request came to.
    pub listener: Option<String>,
    /// Whose requests.
    pub from: Peers,
    /// Where it comes from.
    pub sources: Vec<Network>,
    /// Methods; CANCEL and ACK count as the INVITE they belong to.
    pub methods: Vec<String>,
    /// Schemes of the Request-URI, a `urn` with as much of its text as matters.
    pub schemes: Vec<String>,
    /// Hosts of the Request-URI: names, addresses, `*.example.org`, or `self` for our own.
    pub domains: Vec<String>,
    /// What the user part of the Request-URI, or the number of a `tel`, begins with.
    pub user_prefixes: Vec<String>,
    /// A header field.
    pub header: Option<HeaderCondition>,
    /// What becomes of a request that matches.
    pub action: Action,
}

impl Route {
    /// Whether the methods admit an INVITE, and so its CANCEL and ACK.
    pub fn admits_invite(&self) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|method| method == "INVITE")
    }
}

/// Whose requests a rule is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Peers {
    /// Everybody's, of the farm only those that name ourselves.
    #[default]
    Any,
    /// Those from outside.
    Outside,
    /// Those of trusted peers.
    Trusted,
    /// Those that the farm sends out and whose Route and Request-URI lead nowhere by themselves.
    Farm,
}

/// A condition on a header field. Values compare without regard to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderCondition {
    /// Its name.
    pub name: String,
    /// What its value must be.
    pub test: HeaderTest,
}

/// What the value of a header field must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderTest {
    /// Anything: the field is there.
    Present,
    /// This.
    Equals(String),
    /// Something that begins with this.
    Prefix(String),
    /// Something that has this in it.
    Contains(String),
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A server of a pool gets it.
    Pool {
        /// Name of the pool.
        pool: String,
        /// What chooses the server.
        key: KeySource,
    },
    /// It goes to this address, whatever its Request-URI says.
    NextHop(SocketAddr),
    /// It is answered with this status.
    Reject(u16),
    /// It is dropped without an answer.
    Drop,
}

/// What of a request chooses the server: equal values, one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeySource {
    /// The Call-ID.
    #[default]
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
    Header(String),
}
