//! Why a message goes where it goes: the forwarder's own questions, asked once more and told.
//!
//! Nothing here decides. The target and the refusal come from the functions that
//! [`Forwarder::decide`] runs; the route table, Route values and tokens are read by the same code.
//! What is added is which of the answers the outcome rests on ([`Way`]), told by comparing them with
//! it. For tools: allocates, and is never called while packets are served.

use super::hop::{Hop, hop, listener_of};
use super::rejection::{Rejection, Reply};
use super::route_set::RouteSet;
use super::target::{Choice, Target};
use super::via::next_hop;
use super::{Context, Forwarder};
use crate::affinity::{Branch, CallIdHash, RouteToken, VIA_PARAMETER_NAME, ViaParameter};
use crate::balance::AffinityKey;
use crate::net::{Endpoint, Flow, ListenerIndex, PoolIndex, Protocol, ServerIndex, SocketAddr};
use crate::packet::EditList;
use crate::route::{Action, Condition, Direction, Plan};
use crate::sip::{Kind, ParseError, Uri};
use crate::time::Instant;

/// What the decision about a message rests on.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Request, response or neither.
    pub kind: Kind,
    /// What is wrong with its syntax.
    pub fault: Option<ParseError>,
    /// Where it comes from.
    pub direction: Direction,
    /// Hash of its Call-ID.
    pub call_id: CallIdHash,
    /// Of a request.
    pub request: Option<RequestExplanation>,
    /// Of a response.
    pub response: Option<ResponseExplanation>,
}

/// What the decision about a request rests on.
#[derive(Clone, Debug)]
pub struct RequestExplanation {
    /// Route values of our own, which are taken off.
    pub own_routes: usize,
    /// Where the next Route value leads, if one is left.
    pub next: Option<Leads>,
    /// Where the Request-URI leads.
    pub request_uri: Leads,
    /// Our token of this dialog, if it has one that opens.
    pub token: Option<RouteToken>,
    /// The token of our `Path`, which a registrar brings back (RFC 3327).
    pub path: Option<RouteToken>,
    /// Whether it has the form of a token with a flow and cannot be read: damaged, of another dialog,
    /// or under a key that is gone.
    pub is_flow_lost: bool,
    /// Whether the sender is the one whose request made the dialog of the token.
    pub from_initiator: bool,
    /// For each rule of the route table the first condition that does not hold.
    pub rules: Vec<Option<Condition>>,
    /// Whether the table is asked at all.
    pub asks_table: bool,
    /// The pool and the affinity key, if the rule that it meets leads to a pool.
    pub key: Option<(PoolIndex, AffinityKey)>,
    /// What the target rests on.
    pub way: Option<Way>,
    /// The server it goes to.
    pub server: Option<ServerIndex>,
    /// Why it is not forwarded.
    pub refusal: Option<Refusal>,
}

/// What the decision about a response rests on.
#[derive(Clone, Copy, Debug)]
pub struct ResponseExplanation {
    /// The listener that its top `Via` names, if that is ours.
    pub own: Option<ListenerIndex>,
    /// Where the `Via` below leads.
    pub next: Option<SocketAddr>,
    /// What our parameter says, if its MAC holds.
    pub parameter: Option<ViaParameter>,
}

/// Where a URI leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leads {
    /// To ourselves.
    Own(ListenerIndex),
    /// To an address, over UDP.
    Address(SocketAddr),
    /// To a name that somebody would have to look up.
    Name,
    /// To an address, but over another transport than UDP.
    OtherTransport,
    /// To a `sips` URI.
    Secure,
    /// To an address that nobody may send to.
    Forbidden,
    /// Nowhere: a `tel`, a `urn`.
    Nowhere,
}

impl From<Hop> for Leads {
    fn from(hop: Hop) -> Self {
        match hop {
            Hop::Own(listener) => Self::Own(listener),
            Hop::Literal(address) => Self::Address(address),
            Hop::Name => Self::Name,
            Hop::OtherTransport => Self::OtherTransport,
            Hop::Secure => Self::Secure,
            Hop::Forbidden => Self::Forbidden,
            Hop::Abstract => Self::Nowhere,
        }
    }
}

/// What a target rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The next Route value.
    Route,
    /// The address in the Request-URI.
    RequestUri,
    /// The server or the client that our token names.
    Token,
    /// The next hop of a rule.
    Rule,
    /// The table of the pool that a rule names.
    Table,
    /// The dialog that a `Replaces`, `Join` or `Target-Dialog` names.
    NamedDialog,
}

impl Way {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "the next Route value",
            Self::RequestUri => "the address in the Request-URI",
            Self::Token => "our token",
            Self::Rule => "the rule's next hop",
            Self::Table => "the pool's table",
            Self::NamedDialog => "the dialog that it names (Replaces, Join, Target-Dialog)",
        }
    }
}

/// Why a request is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the answer; none is silence.
    pub status: Option<u16>,
    /// Why, with the section that says so.
    pub meaning: &'static str,
}

impl Forwarder {
    /// Why [`decide`](Self::decide) does what it does with a message.
    ///
    /// Leaves pins and counts behind like a decision: for a forwarder that serves nobody.
    pub fn explain(&mut self, plan: &Plan, bytes: &[u8], flow: Flow, now: Instant) -> Explanation {
        let fault = self.message.parse(bytes).err();
        let call_id = self.message.call_id().unwrap_or_default().of(bytes);
        let call_id = plan.keys().call_id_hash(call_id);
        let mut explanation = Explanation {
            kind: self.message.kind(),
            fault,
            direction: plan.direction(flow.listener, flow.peer.ip()),
            call_id,
            request: None,
            response: None,
        };
        match explanation.kind {
            Kind::Request => {
                let context = self.base.context(plan, &self.message, bytes, flow, now);
                self.edits.clear();
                let request = context.explain(fault, &mut self.edits, &mut self.routes);
                explanation.request = Some(request);
            }
            Kind::Response => explanation.response = Some(self.explain_response(plan, bytes)),
            Kind::Unknown => {}
        }
        explanation
    }

    fn explain_response(&self, plan: &Plan, bytes: &[u8]) -> ResponseExplanation {
        let own = self.message.top_via();
        let next = self.message.next_via(bytes).ok().flatten();
        let next = next.and_then(|next| next_hop(&next, bytes));
        let parameter = own.zip(next).and_then(|(own, next)| {
            let branch = Branch::parse(own.branch?.of(bytes))?;
            let text = own.param(bytes, VIA_PARAMETER_NAME)?.of(bytes);
            let hop = Endpoint {
                address: next,
                protocol: Protocol::Udp,
            };
            ViaParameter::decode(plan.keys(), text, &branch, hop).ok()
        });
        ResponseExplanation {
            own: own.and_then(|own| listener_of(plan, bytes, own.host, own.port)),
            next,
            parameter,
        }
    }
}

impl Context<'_> {
    fn explain(
        &self,
        fault: Option<ParseError>,
        edits: &mut EditList,
        routes: &mut RouteSet,
    ) -> RequestExplanation {
        // The decision itself, for its refusal.
        let refusal = match fault {
            Some(fault) => Some(Rejection::Syntax(fault)),
            None => self.forward(edits, routes).err(),
        };
        // What it read on its way, also where it did not come so far.
        *routes = RouteSet::default();
        let request_uri = self.message.request_uri();
        let read = request_uri.is_some_and(|uri| routes.read(self, uri).is_ok());
        routes.request_uri.strip_own_maddr(self.plan, self.bytes);
        let leads = |uri: &Uri| Leads::from(hop(self.plan, self.bytes, uri));
        let next = routes.next.as_ref().map(leads);
        let request_uri = leads(&routes.request_uri.uri);
        let onward = next.unwrap_or(request_uri);
        let outbound = self.direction == Direction::Farm && !matches!(onward, Leads::Own(_));
        let rules = if read {
            let question = self.question(routes, outbound);
            let rules = self.plan.rules().iter();
            rules.map(|rule| rule.unmet(&question)).collect()
        } else {
            Vec::new()
        };
        let target = match refusal {
            None => match self.choose(routes) {
                Ok(Choice::Forward(target)) => Some(target),
                Ok(Choice::HandOver(_)) | Err(_) => None,
            },
            Some(_) => None,
        };
        let key = self.table_key(routes, &rules);
        let way = target.map(|target| self.way(routes, &target, key));
        let vouched =
            routes.token.is_some() || routes.path.is_some() || self.direction == Direction::Farm;
        RequestExplanation {
            own_routes: routes.own_values(),
            next,
            request_uri,
            token: routes.token,
            path: routes.path,
            is_flow_lost: routes.is_flow_lost,
            from_initiator: self.is_from_initiator(routes),
            asks_table: !vouched
                || matches!(way, Some(Way::Rule | Way::Table | Way::NamedDialog))
                || matches!(refusal, Some(Rejection::Rule(_))),
            rules,
            key,
            way,
            server: target.and_then(|target| target.server),
            refusal: refusal.map(|refusal| self.refusal(refusal)),
        }
    }

    /// The key that the first rule without an unmet condition asks its pool with.
    fn table_key(
        &self,
        routes: &RouteSet,
        rules: &[Option<Condition>],
    ) -> Option<(PoolIndex, AffinityKey)> {
        let met = rules.iter().position(Option::is_none)?;
        let Action::Pool { pool, key } = &self.plan.rules().get(met)?.action else {
            return None;
        };
        let key = key.of(
            self.keys,
            self.call_id,
            self.message,
            self.bytes,
            &routes.request_uri.uri,
            self.flow.peer.ip(),
        );
        Some((*pool, key))
    }

    /// Which of the answers the target is: they are compared in the order in which they count.
    fn way(
        &self,
        routes: &RouteSet,
        target: &Target,
        key: Option<(PoolIndex, AffinityKey)>,
    ) -> Way {
        let is_target = |hop: Hop| match hop {
            Hop::Literal(address) => {
                let server = self.plan.server_at(address).map(|server| server.index);
                address == target.peer || (server.is_some() && server == target.server)
            }
            _ => false,
        };
        // A server that the message names keeps its way to be addressed.
        if target.pool.is_none() {
            if let Some(next) = &routes.next
                && is_target(hop(self.plan, self.bytes, next))
            {
                return Way::Route;
            }
            let request_uri = hop(self.plan, self.bytes, &routes.request_uri.uri);
            if routes.next.is_none() && is_target(request_uri) {
                return Way::RequestUri;
            }
            let mut flows = [routes.path, routes.token].into_iter().flatten();
            let by_token = |token: RouteToken| {
                let flow = token.flow.map(|flow| flow.address);
                flow == Some(target.peer)
            };
            if flows.any(by_token) {
                return Way::Token;
            }
            return Way::Rule;
        }
        let named = routes
            .token
            .as_ref()
            .and_then(|token| self.plan.server_by_id(token.server));
        if named.is_some_and(|server| Some(server.index) == target.server) {
            return Way::Token;
        }
        let chosen = key.and_then(|(pool, key)| self.plan.pool(pool)?.select(key));
        if chosen == target.server {
            Way::Table
        } else {
            Way::NamedDialog
        }
    }

    fn refusal(&self, rejection: Rejection) -> Refusal {
        let method = self.message.method();
        match rejection.reply(method) {
            Reply::Answer(status) => Refusal {
                status: Some(status),
                meaning: meaning(rejection),
            },
            Reply::Silence(reason) => Refusal {
                status: None,
                meaning: match rejection {
                    Rejection::Silent(_) => reason.meaning(),
                    _ => meaning(rejection),
                },
            },
        }
    }
}

/// Why a request is refused, with the section that says so.
fn meaning(rejection: Rejection) -> &'static str {
    match rejection {
        Rejection::Overload => "RFC 7339 §5.10.2: we are overloaded",
        Rejection::Full => "RFC 3261 §21.5.4: there is no room for another transaction",
        Rejection::Syntax(error) => error.meaning(),
        Rejection::UriScheme => {
            "RFC 3261 §16.3 step 2: the scheme of the Request-URI is unknown, or sips where there \
             is no TLS"
        }
        Rejection::MaxBreadth => "RFC 5393 §5.3.3: Max-Breadth is 0",
        Rejection::MaxForwards => "RFC 3261 §16.3 step 3: Max-Forwards is 0",
        Rejection::Loop => "RFC 3261 §16.3 step 4: it has passed here too often",
        Rejection::ProxyRequire => {
            "RFC 3261 §16.3 step 5: a Proxy-Require option that nobody here understands"
        }
        Rejection::PathRequired => {
            "RFC 3327 §5.2: a REGISTER without Supported: path, which the listener asks for"
        }
        Rejection::Relay => {
            "RFC 3261 §26.1.5, §21.4.4: it asks to be relayed where its sender may not send, or no \
             rule is for it"
        }
        Rejection::Rule(_) => "the rule of the route table that it meets says so",
        Rejection::NotFound => {
            "RFC 3261 §16.5: from the farm, and neither Route, Request-URI nor a rule leads anywhere"
        }
        Rejection::Unresolved => {
            "RFC 3261 §16.6 step 7, RFC 5057 §5.1: the next hop is a name or another transport"
        }
        Rejection::Secure => "RFC 5630 §5.3: a sips next hop is never reached in clear",
        Rejection::Draining => {
            "RFC 3261 §11, §21.5.4: OPTIONS for ourselves, and this node is drained"
        }
        Rejection::NoServer(_) => "RFC 3261 §21.5.4: no server takes new calls",
        Rejection::TooLarge => "RFC 3261 §21.4.11: larger than the pool accepts over UDP",
        Rejection::OwnOptions => "RFC 3261 §11: OPTIONS for ourselves, and a server is up",
        Rejection::Silent(reason) => reason.meaning(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::DropReason;

    #[test]
    fn every_drop_and_every_fault_has_words() {
        for reason in DropReason::ALL {
            let meaning = reason.meaning();
            assert!(
                !meaning.starts_with(' ') && meaning.ends_with('.'),
                "{meaning}"
            );
        }
        for error in ParseError::ALL {
            assert!(error.meaning().ends_with('.'), "{}", error.as_str());
        }
    }
}
