//! Where a request goes: RFC 3261 §16.5 and §16.6 step 7, with the directions of the farm.
//!
//! ```text
//! from outside   next Route in the farm > Request-URI in the farm > the token's server > the table
//! from the farm  our Path > next Route > the token's client behind a NAT > Request-URI > the table
//! ```
//!
//! A valid token never widens what its bearer may do: any caller holds one from its own 200.

use super::hop::{Hop, hop};
use super::route_set::RouteSet;
use super::via::is_forbidden;
use super::{Context, Rejection, pin_key};
use crate::affinity::{
    CallIdHash, ClientFlow, Ground, Mode, NewPin, Pin, PinOutcome, Transaction, home_worker,
};
use crate::balance::{AffinityKey, Choice as ServerChoice};
use crate::config::Side;
use crate::net::{ListenerIndex, PoolIndex, ServerId, ServerIndex, SocketAddr, WorkerIndex};
use crate::route::{Action, Direction, KeySource, Pool, Question, Rule, Server};
use crate::sip::{HeaderName, Method, Uri};
use crate::verdict::DropReason;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The address.
    pub(crate) peer: SocketAddr,
    /// Which side of us it is on.
    pub(crate) side: Side,
    /// The server, if it is one.
    pub(crate) server: Option<ServerIndex>,
    /// The pool, if we chose the server rather than the message: then its way to address a server
    /// applies.
    pub(crate) pool: Option<PoolIndex>,
    /// The request goes to a client's flow instead of where its Request-URI says: the listener that
    /// the client sends to.
    pub(crate) flow: Option<ListenerIndex>,
}

/// What target selection found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Forward here.
    Forward(Target),
    /// Another worker holds the pins of this Call-ID.
    HandOver(WorkerIndex),
}

impl Context<'_> {
    /// Chooses the one target of a request.
    pub(super) fn choose(&self, routes: &RouteSet) -> Result<Choice, Rejection> {
        match self.direction {
            Direction::Farm => self.choose_from_farm(routes),
            Direction::Trusted | Direction::Outside => self.choose_from_outside(routes),
        }
    }

    fn choose_from_outside(&self, routes: &RouteSet) -> Result<Choice, Rejection> {
        self.refuse_foreign_flow(routes)?;
        // What no token of ours vouches for is looked at by the table first, unless it belongs to
        // a transaction that is under way: who is refused there does not reach a server by naming
        // its address.
        let (pin, continued, rule) = match routes.token {
            Some(_) => (None, None, None),
            None => {
                let pin = self.pin();
                match self.continued(pin) {
                    Some(choice) => (pin, Some(choice), None),
                    None => (pin, None, self.admitting_rule(routes, false)?),
                }
            }
        };
        let token_server = self.token_server(routes);
        let in_farm = |address| match routes.token {
            Some(_) => self.in_farm(address, true),
            None => {
                let pool = self.opened_pool(rule, pin.filter(|_| continued.is_some()))?;
                let target = self.in_farm(address, false)?;
                self.is_in_pool(&target, pool).then_some(target)
            }
        };
        if let Some(next) = &routes.next {
            return match hop(self.plan, self.bytes, next) {
                Hop::Literal(address) => in_farm(address)
                    .or_else(|| self.among_trusted(address, routes))
                    .map(Choice::Forward)
                    // RFC 3261 §26.1.5: not an open relay.
                    .ok_or(Rejection::Relay),
                // A server may record-route a name: it stands behind our own value, so the name is
                // that of the server we chose.
                Hop::Name | Hop::OtherTransport => match token_server {
                    Some(server) => Ok(Choice::Forward(self.to_server(server))),
                    None => Err(Rejection::Relay),
                },
                Hop::Secure => Err(Rejection::Secure),
                Hop::Own(_) | Hop::Forbidden | Hop::Abstract => Err(Rejection::Relay),
            };
        }
        match hop(self.plan, self.bytes, &routes.request_uri.uri) {
            Hop::Literal(address) => {
                if let Some(target) =
                    in_farm(address).or_else(|| self.among_trusted(address, routes))
                {
                    return Ok(Choice::Forward(target));
                }
                // RFC 3261 §16.5: with a maddr that is not ours the Request-URI is the only target,
                // and outside the farm it is none for a stranger.
                if routes.request_uri.uri.param(self.bytes, b"maddr").is_some() {
                    return Err(Rejection::Relay);
                }
            }
            Hop::Forbidden => return Err(Rejection::Relay),
            Hop::Own(_) | Hop::Name | Hop::OtherTransport | Hop::Secure | Hop::Abstract => {}
        }
        match (token_server, continued) {
            (Some(server), _) => Ok(Choice::Forward(self.to_server(server))),
            (None, Some(choice)) => Ok(choice),
            (None, None) if routes.token.is_some() => self.by_table(routes),
            (None, None) => self.by_rule(routes, rule, pin),
        }
    }

    fn choose_from_farm(&self, routes: &RouteSet) -> Result<Choice, Rejection> {
        if let Some(client) = self.registered_flow(routes) {
            return self.to_flow(client.flow);
        }
        if let Some(next) = &routes.next {
            return self.onward(routes, self.hop_from_farm(next));
        }
        // RFC 5626 §5.3.1: "If the flow token has been tampered with, the proxy SHOULD send a 403".
        if routes.is_flow_lost {
            return Err(Rejection::Relay);
        }
        let client = routes
            .token
            .as_ref()
            .and_then(|token| self.client_flow(token));
        match (self.hop_from_farm(&routes.request_uri.uri), client) {
            // Its Contact is an address behind a NAT: the flow is the only way back.
            (Hop::Literal(address), Some(client))
                if client.nat && !self.plan.is_farm(address.ip()) =>
            {
                self.to_flow(client.flow)
            }
            // Its Contact leads nowhere from here, and its flow does.
            (
                Hop::Name | Hop::OtherTransport | Hop::Own(_) | Hop::Abstract | Hop::Forbidden,
                Some(client),
            ) => self.to_flow(client.flow),
            (own @ (Hop::Own(_) | Hop::Name), None) => match (self.other_member(routes), own) {
                (Some(target), _) => Ok(Choice::Forward(target)),
                (None, Hop::Own(_)) => self.by_table(routes),
                (None, other) => self.onward(routes, other),
            },
            (other, _) => self.onward(routes, other),
        }
    }

    /// The other end of a dialog whose both ends are in the farm.
    ///
    /// The token of such a dialog names the called server, and in its flow, without the NAT mark,
    /// the calling one; the From tag tells who sends.
    fn other_member(&self, routes: &RouteSet) -> Option<Target> {
        let token = routes.token.as_ref()?;
        let caller = token.flow.filter(|_| !token.nat)?.address;
        if !self.plan.is_farm(caller.ip()) {
            return None;
        }
        if self.is_from_initiator(routes) {
            return self
                .token_server(routes)
                .map(|server| self.to_server(server));
        }
        Some(self.to_address(caller))
    }

    /// A dialog between two trusted peers that a rule has led through us goes on between them.
    fn among_trusted(&self, address: SocketAddr, routes: &RouteSet) -> Option<Target> {
        let relayed = routes
            .token
            .as_ref()
            .is_some_and(|token| token.server == ServerId::OUTSIDE);
        let trusted = self.direction == Direction::Trusted
            && self.plan.is_trusted(self.flow.listener, address.ip());
        (relayed && trusted).then(|| self.to_address(address))
    }

    /// Where a URI leads that the farm, or a client by way of it, would have us send to.
    fn hop_from_farm(&self, uri: &Uri) -> Hop {
        match hop(self.plan, self.bytes, uri) {
            Hop::Literal(address) if self.plan.is_this_host(address.ip()) => Hop::Forbidden,
            other => other,
        }
    }

    /// From the farm to where a URI leads; where it leads nowhere, to where the table says.
    fn onward(&self, routes: &RouteSet, hop: Hop) -> Result<Choice, Rejection> {
        let otherwise = match hop {
            Hop::Literal(address) => return Ok(Choice::Forward(self.to_address(address))),
            Hop::Secure => return Err(Rejection::Secure),
            Hop::Own(_) | Hop::Forbidden => return Err(Rejection::Relay),
            Hop::Name | Hop::OtherTransport => Rejection::Unresolved,
            Hop::Abstract => Rejection::NotFound,
        };
        let rule = self.admitting_rule(routes, true)?;
        match rule.map(|rule| &rule.action) {
            Some(Action::NextHop(address)) => Ok(Choice::Forward(self.to_address(*address))),
            _ => Err(otherwise),
        }
    }

    /// The literal address of a URI as a target inside the farm.
    ///
    /// With a token any port of the farm counts: Contacts use ports of their own. Without one only
    /// the configured ports do, or a stranger could have us send to any service of a server's host.
    fn in_farm(&self, address: SocketAddr, has_token: bool) -> Option<Target> {
        if !self.plan.is_farm(address.ip()) || self.plan.is_this_host(address.ip()) {
            return None;
        }
        let server = self.plan.server_at(address);
        let peer = match server {
            _ if has_token => address,
            Some(server) => server.address,
            None => return None,
        };
        Some(Target {
            peer,
            side: Side::Farm,
            server: server.map(|server| server.index),
            pool: None,
            flow: None,
        })
    }

    /// The pool whose servers a request without a token may name by their address: the one that its
    /// rule leads to, or that has its transaction. Else naming a server would be a way around the
    /// table.
    fn opened_pool(&self, rule: Option<&Rule>, pin: Option<Pin>) -> Option<PoolIndex> {
        match (rule.map(|rule| &rule.action), pin) {
            (Some(Action::Pool { pool, .. }), _) => Some(*pool),
            (None, Some(pin)) => self.plan.server(pin.server)?.pool,
            _ => None,
        }
    }

    /// Whether a target is a server of a pool. Servers of two pools may share an address.
    fn is_in_pool(&self, target: &Target, pool: PoolIndex) -> bool {
        let found = target.server.and_then(|server| self.plan.server(server));
        found.is_some_and(|server| server.pool == Some(pool))
            || self
                .plan
                .servers()
                .iter()
                .any(|server| server.pool == Some(pool) && server.address == target.peer)
    }

    fn to_address(&self, peer: SocketAddr) -> Target {
        let inside = self.plan.is_farm(peer.ip());
        Target {
            peer,
            side: if inside { Side::Farm } else { Side::Outside },
            server: inside
                .then(|| self.plan.server_at(peer))
                .flatten()
                .map(|server| server.index),
            pool: None,
            flow: None,
        }
    }

    pub(super) fn to_server(&self, server: &Server) -> Target {
        Target {
            peer: server.address,
            side: Side::Farm,
            server: Some(server.index),
            pool: server.pool,
            flow: None,
        }
    }

    fn token_server(&self, routes: &RouteSet) -> Option<&Server> {
        let token = routes.token.as_ref()?;
        self.plan.server_by_id(token.server)
    }

    /// From the farm to a client, by the way that the client's own requests come.
    fn to_flow(&self, flow: ClientFlow) -> Result<Choice, Rejection> {
        // A source that somebody has forged.
        if is_forbidden(flow.address) || self.plan.listener_at(flow.address).is_some() {
            return Err(Rejection::Relay);
        }
        Ok(Choice::Forward(Target {
            flow: Some(flow.listener),
            ..self.to_address(flow.address)
        }))
    }

    /// Whether the sender of an in-dialog request is the one whose request made the dialog.
    pub(super) fn is_from_initiator(&self, routes: &RouteSet) -> bool {
        let from_tag = self.sender_tag();
        routes
            .token
            .as_ref()
            .is_some_and(|token| token.initiator == self.keys.tag_hash(from_tag))
    }

    /// The request as the route table looks at it.
    pub(super) fn question<'q>(&'q self, routes: &'q RouteSet, outbound: bool) -> Question<'q> {
        Question {
            listener: self.flow.listener,
            source: self.flow.peer.ip(),
            direction: self.direction,
            outbound,
            message: self.message,
            bytes: self.bytes,
            request_uri: &routes.request_uri.uri,
            is_own: self.plan.asks_for_own_domain()
                && routes.request_uri.is_own(self.plan, self.bytes),
        }
    }

    /// The rule that the request meets, if that rule lets it on.
    pub(super) fn admitting_rule(
        &self,
        routes: &RouteSet,
        outbound: bool,
    ) -> Result<Option<&Rule>, Rejection> {
        let rule = self.plan.rule(&self.question(routes, outbound));
        match rule.map(|rule| &rule.action) {
            Some(Action::Reject(status)) => Err(Rejection::Rule(*status)),
            Some(Action::Drop) => Err(Rejection::Silent(DropReason::RouteDropped)),
            Some(Action::Pool { .. } | Action::NextHop(_)) | None => Ok(rule),
        }
    }

    /// Where the transaction goes that the request belongs to, if there is a pin of it.
    ///
    /// RFC 3261 §16.11: whatever becomes of the table, the rest of a transaction goes to the server
    /// that has its beginning. That server may be draining, in another pool or gone from the
    /// configuration; and rules that have changed, or that ask for what a CANCEL lacks, are not
    /// asked again.
    fn continued(&self, pin: Option<Pin>) -> Option<Choice> {
        let pin = pin?;
        if !pin.is_of(self.cseq()) {
            return None;
        }
        let server = self.plan.server(pin.server)?;
        if !self.follows() {
            if let Some(home) = self.elsewhere() {
                return Some(Choice::HandOver(home));
            }
            self.pins
                .renew(self.pin_key(), self.transaction(), self.now);
        }
        Some(Choice::Forward(self.to_server(server)))
    }

    /// Where a request goes that the table has to decide about.
    fn by_table(&self, routes: &RouteSet) -> Result<Choice, Rejection> {
        let pin = self.pin().filter(|_| !sabotaged!(HashByBranch));
        match self.continued(pin) {
            Some(choice) => Ok(choice),
            None => self.by_rule(routes, self.admitting_rule(routes, false)?, pin),
        }
    }

    /// The pin of this Call-ID on this passage.
    pub(crate) fn pin(&self) -> Option<Pin> {
        match (self.course.known, self.plan.rules.pins) {
            (Some(known), _) => known.pin,
            (None, true) => self.pins.find(self.pin_key(), self.now),
            (None, false) => None,
        }
    }

    /// Where a rule leads.
    fn by_rule(
        &self,
        routes: &RouteSet,
        rule: Option<&Rule>,
        pin: Option<Pin>,
    ) -> Result<Choice, Rejection> {
        match rule.map(|rule| &rule.action) {
            Some(Action::Pool { pool, key }) => self.balance(routes, *pool, key, pin),
            Some(Action::NextHop(address)) => Ok(Choice::Forward(self.to_address(*address))),
            // RFC 3261 §16.5 would try the Request-URI; for whom, the table has not said (§26.1.5).
            Some(Action::Reject(_) | Action::Drop) | None => Err(Rejection::Relay),
        }
    }

    /// Chooses a server of a pool: the pinned one, else the one of a dialog that the request names,
    /// else the table's.
    fn balance(
        &self,
        routes: &RouteSet,
        index: PoolIndex,
        key: &KeySource,
        pin: Option<Pin>,
    ) -> Result<Choice, Rejection> {
        let pool = self.plan.pool(index).ok_or(Rejection::NotFound)?;

        if let Some(home) = self.elsewhere() {
            return Ok(Choice::HandOver(home));
        }
        let server = match pin.and_then(|_| self.pinned(index)) {
            Some(server) => server,
            None => self.select(routes, index, pool, key)?,
        };
        Ok(Choice::Forward(self.to_server(server)))
    }

    /// Pins belong to one worker per Call-ID: a CANCEL that overtook its INVITE on another worker
    /// would miss its pin.
    fn elsewhere(&self) -> Option<WorkerIndex> {
        let home = home_worker(self.call_id, self.workers);
        (home != self.worker).then_some(home)
    }

    /// Whether no other server than the first may be tried: the client wants it so (RFC 3841 §9.1:
    /// "no-fork"), the request is about a dialog that only one server knows, or it comes round again.
    pub(crate) fn forbids_hunting(&self) -> bool {
        // RFC 5393 §4.1: who forwards to more than one "MUST ensure that request is not looping".
        if self.own_vias() != Ok(0) {
            return true;
        }
        let dialog = [
            HeaderName::Replaces,
            HeaderName::Join,
            HeaderName::TargetDialog,
        ];
        dialog.into_iter().any(|name| self.message.has(name))
            || self.has_value(HeaderName::RequestDisposition, b"no-fork")
    }

    pub(crate) fn pin_key(&self) -> CallIdHash {
        let sender = (self.direction == Direction::Farm).then_some(self.flow.peer.ip());
        pin_key(self.call_id, self.flow.listener, sender)
    }

    /// Whether it follows a request that has made the pin, or lost it.
    fn follows(&self) -> bool {
        matches!(self.message.method(), Method::Ack | Method::Cancel)
    }

    /// The server that this Call-ID's earlier requests went to, if it is in the pool: a registration
    /// that is asked for credentials comes again, and only that server knows its nonce.
    fn pinned(&self, pool: PoolIndex) -> Option<&Server> {
        let pin = match self.follows() {
            true => self.pins.find(self.pin_key(), self.now),
            false => self
                .pins
                .renew(self.pin_key(), self.transaction(), self.now),
        };
        let server = self.plan.server(pin?.server)?;
        // A new transaction has nothing to wait for at a server that is down.
        (server.pool == Some(pool) && !server.is_down()).then_some(server)
    }

    /// The chosen server, or another one if it asks for less (RFC 7339 §5.10) and a transaction allows
    /// a choice.
    fn unthrottled<'s>(
        &'s self,
        routes: &RouteSet,
        pool: &Pool,
        key: AffinityKey,
        chosen: &'s Server,
    ) -> Result<&'s Server, Rejection> {
        if !self.is_throttled(routes, chosen) {
            return Ok(chosen);
        }
        let other = match (self.course.mode, self.board) {
            (Mode::Stateful, Some(board)) => pool.choose(&ServerChoice {
                board,
                key,
                tried: &[chosen.index],
                now: self.now,
            }),
            _ => None,
        };
        let other = other.and_then(|other| self.plan.server(other));
        match other.filter(|other| !self.is_throttled(routes, other)) {
            Some(other) => {
                self.metrics.overload.diverted.increment();
                Ok(other)
            }
            None => {
                self.metrics.overload.throttled.increment();
                Err(Rejection::Overload)
            }
        }
    }

    /// The server that a new Call-ID gets, pinned from now on.
    fn select(
        &self,
        routes: &RouteSet,
        index: PoolIndex,
        pool: &Pool,
        key: &KeySource,
    ) -> Result<&Server, Rejection> {
        let by = key.of(
            self.keys,
            self.call_id,
            self.message,
            self.bytes,
            &routes.request_uri.uri,
            self.flow.peer.ip(),
        );
        let by = match self.message.top_via() {
            Some(via) if sabotaged!(HashByBranch) => {
                AffinityKey(u64::try_from(self.branch(via).hash() >> 64).unwrap_or(0))
            }
            _ => by,
        };
        let (chosen, ground) = match self.server_of_named_dialog(pool, key) {
            Some(server) => (Some(server), Ground::NamedDialog),
            None => {
                let of_key = pool.select(by);
                // RFC 3261 §16.11: without a transaction only what the message says may count.
                let chosen = match (self.course.mode, self.board) {
                    (Mode::Stateful, Some(board)) if !self.follows() => {
                        pool.choose(&ServerChoice {
                            board,
                            key: by,
                            tried: &[],
                            now: self.now,
                        })
                    }
                    _ => of_key,
                };
                let ground = match chosen == of_key {
                    true => Ground::Table,
                    false => Ground::Policy,
                };
                (chosen.and_then(|chosen| self.plan.server(chosen)), ground)
            }
        };
        if self.follows() {
            return chosen.ok_or(Rejection::NoServer(pool.no_server_code()));
        }
        let Some(chosen) = chosen else {
            self.note(index, key, by, ground, None);
            return Err(Rejection::NoServer(pool.no_server_code()));
        };
        let chosen = self.unthrottled(routes, pool, by, chosen)?;
        let forgetful = sabotaged!(DropPin | HashByBranch);
        if !self.plan.rules.pins || forgetful {
            self.note(index, key, by, ground, Some(chosen.index));
            return Ok(chosen);
        }
        let new = NewPin {
            server: chosen.index,
            mode: self.course.mode,
            transaction: self.transaction(),
        };
        let insertion = self.pins.insert(self.pin_key(), new, self.now);
        match insertion.outcome {
            PinOutcome::Made => self.metrics.pins_made.increment(),
            PinOutcome::Evicted => {
                self.metrics.pins_made.increment();
                self.metrics.pins_evicted.increment();
            }
            PinOutcome::Existing | PinOutcome::Refused => {}
        }
        let pinned = self.plan.server(insertion.pin.server);
        let holds = |server: &&Server| server.pool == Some(index) && !server.is_down();
        let server = match pinned.filter(holds) {
            Some(server) => server,
            None => {
                // An earlier transaction of this Call-ID went to another pool, or to a server that is
                // down; this one goes where the table now says.
                self.pins.repin(self.pin_key(), new, self.now);
                chosen
            }
        };
        let ground = match server.index == chosen.index {
            true => ground,
            false => Ground::Pin,
        };
        self.note(index, key, by, ground, Some(server.index));
        self.metrics.server(server.index).selected.increment();
        Ok(server)
    }

    /// The server of the dialog that a request from elsewhere names: RFC 3891 (`Replaces`), RFC 3911
    /// (`Join`) and RFC 4538 (`Target-Dialog`) mean a dialog that only one server knows.
    ///
    /// While that dialog's Call-ID has a pin, its server is known; later the table tells, as long as
    /// it is a function of the Call-ID and has not changed.
    fn server_of_named_dialog(&self, pool: &Pool, key: &KeySource) -> Option<&Server> {
        // CANCEL and ACK do not repeat these fields; without pins they would go elsewhere.
        if self.message.method() == Method::Invite && !self.plan.rules.pins {
            return None;
        }
        let names = [
            HeaderName::Replaces,
            HeaderName::Join,
            HeaderName::TargetDialog,
        ];
        let row = names
            .into_iter()
            .find_map(|name| self.message.first(name))?;
        let value = row.value.of(self.bytes);
        let end = value.iter().position(|byte| b"; \t\r\n".contains(byte));
        let call_id = value.get(..end.unwrap_or(value.len())).unwrap_or_default();
        let named = self.keys.call_id_hash(call_id);
        // It came by some listener, from outside most likely.
        let mut listeners = self.plan.listeners().iter();
        let pin = listeners.find_map(|of| self.pins.find(pin_key(named, of.index, None), self.now));
        let server = match (pin, key) {
            (Some(pin), _) => Some(pin.server),
            // A choice by load cannot be made again.
            (None, KeySource::CallId) if pool.policy.is_stateless() => {
                pool.select(AffinityKey(named.0))
            }
            (None, _) => None,
        };
        let server = self.plan.server(server?)?;
        // A dialog in another pool is no way into that pool.
        let of_pool = server.pool.and_then(|index| self.plan.pool(index))?;
        core::ptr::eq(of_pool, pool).then_some(server)
    }

    pub(crate) fn transaction(&self) -> Transaction {
        Transaction {
            invite: self.message.method() == Method::Invite,
            cseq: self.cseq(),
        }
    }
}
