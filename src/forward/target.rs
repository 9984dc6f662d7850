//! Where a request goes: RFC 3261 §16.5 and §16.6 step 7, with the directions of the farm.
//!
//! ```text
//! from outside   next Route in the farm > Request-URI in the farm > the token's server > the pool
//! from the farm  next Route > the token's client behind a NAT > Request-URI > the pool if it is us
//! ```
//!
//! A valid token never widens what its bearer may do: any caller holds one from its own 200.

use super::hop::{Hop, hop};
use super::route_set::RouteSet;
use super::{Context, Rejection};
use crate::affinity::{Mode, NewPin, PinOutcome, RouteToken, Transaction, home_worker};
use crate::balance::AffinityKey;
use crate::config::Side;
use crate::net::{PoolIndex, ServerIndex, SocketAddr, WorkerIndex};
use crate::route::{Direction, Pool, Server};
use crate::sip::Method;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The address.
    pub(super) peer: SocketAddr,
    /// Which side of us it is on.
    pub(super) side: Side,
    /// The server, if it is one.
    pub(super) server: Option<ServerIndex>,
    /// The pool, if we chose the server rather than the message: then its way to address a server
    /// applies.
    pub(super) pool: Option<PoolIndex>,
    /// The request goes to a client's flow instead of where its Request-URI says.
    pub(super) flow: bool,
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
        let token_server = self.token_server(routes);
        if let Some(next) = &routes.next {
            return match hop(self.plan, self.bytes, next) {
                Hop::Literal(address) => match self.in_farm(address, routes.token.is_some()) {
                    Some(target) => Ok(Choice::Forward(target)),
                    // RFC 3261 §26.1.5: not an open relay.
                    None => Err(Rejection::Relay),
                },
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
                if let Some(target) = self.in_farm(address, routes.token.is_some()) {
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
        match token_server {
            Some(server) => Ok(Choice::Forward(self.to_server(server))),
            None => self.balance(),
        }
    }

    fn choose_from_farm(&self, routes: &RouteSet) -> Result<Choice, Rejection> {
        if let Some(next) = &routes.next {
            return self.onward(hop(self.plan, self.bytes, next));
        }
        let client = routes
            .token
            .as_ref()
            .and_then(|token| self.client_flow(token));
        match (hop(self.plan, self.bytes, &routes.request_uri.uri), client) {
            // Its Contact is an address behind a NAT: the flow is the only way back.
            (Hop::Literal(address), Some(flow)) if !self.plan.is_farm(address.ip()) => {
                Ok(Choice::Forward(Target {
                    flow: true,
                    ..self.to_address(flow)
                }))
            }
            (Hop::Name | Hop::OtherTransport | Hop::Own(_), Some(flow)) => {
                Ok(Choice::Forward(Target {
                    flow: true,
                    ..self.to_address(flow)
                }))
            }
            (Hop::Own(_), None) => match self.token_server(routes) {
                // Caller and callee are both in the farm.
                Some(server) if self.is_from_initiator(routes) => {
                    Ok(Choice::Forward(self.to_server(server)))
                }
                _ => self.balance(),
            },
            (Hop::Abstract, _) => Err(Rejection::NotFound),
            (other, _) => self.onward(other),
        }
    }

    /// From the farm to where a URI leads.
    fn onward(&self, hop: Hop) -> Result<Choice, Rejection> {
        match hop {
            Hop::Literal(address) => Ok(Choice::Forward(self.to_address(address))),
            Hop::Name | Hop::OtherTransport => Err(Rejection::Unresolved),
            Hop::Secure => Err(Rejection::Secure),
            Hop::Abstract => Err(Rejection::NotFound),
            Hop::Own(_) | Hop::Forbidden => Err(Rejection::Relay),
        }
    }

    /// The literal address of a URI as a target inside the farm.
    ///
    /// With a token any port of the farm counts: Contacts use ports of their own. Without one only
    /// the configured ports do, or a stranger could have us send to any service of a server's host.
    fn in_farm(&self, address: SocketAddr, has_token: bool) -> Option<Target> {
        if !self.plan.is_farm(address.ip()) {
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
            flow: false,
        })
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
            flow: false,
        }
    }

    fn to_server(&self, server: &Server) -> Target {
        Target {
            peer: server.address,
            side: Side::Farm,
            server: Some(server.index),
            pool: server.pool,
            flow: false,
        }
    }

    fn token_server(&self, routes: &RouteSet) -> Option<&Server> {
        let token = routes.token.as_ref()?;
        self.plan.server_by_id(token.server)
    }

    fn client_flow(&self, token: &RouteToken) -> Option<SocketAddr> {
        let flow = token.flow.filter(|_| token.nat)?;
        Some(flow.address)
    }

    /// Whether the sender of an in-dialog request is the one whose request made the dialog.
    fn is_from_initiator(&self, routes: &RouteSet) -> bool {
        let from_tag = self.sender_tag();
        routes
            .token
            .as_ref()
            .is_some_and(|token| token.initiator == self.keys.tag_hash(from_tag))
    }

    /// Chooses a server of the pool: the pinned one, else the table's.
    fn balance(&self) -> Result<Choice, Rejection> {
        let listener = self.flow.listener;
        let index = self.plan.route(listener).ok_or(Rejection::NotFound)?;
        let pool = self.plan.pool(index).ok_or(Rejection::NotFound)?;

        // Pins belong to one worker per Call-ID: a CANCEL that overtook its INVITE on another
        // worker would miss its pin.
        let home = home_worker(self.call_id, self.workers);
        if home != self.worker {
            return Ok(Choice::HandOver(home));
        }

        let server = match self.pinned(pool) {
            Some(server) => server,
            None => self.select(pool)?,
        };
        Ok(Choice::Forward(Target {
            pool: Some(index),
            ..self.to_server(server)
        }))
    }

    /// The server that this Call-ID's requests go to.
    ///
    /// RFC 3261 §16.11: whatever becomes of the table, the rest of a transaction goes to the server
    /// that has its beginning. That server may be draining or gone from the configuration.
    fn pinned(&self, pool: &Pool) -> Option<&Server> {
        let key = super::pin_key(self.call_id, pool.id);
        let pin = match self.message.method() {
            Method::Ack | Method::Cancel => self.pins.find(key, self.now),
            _ => self.pins.renew(key, self.transaction(), self.now),
        };
        self.plan.server(pin?.server)
    }

    /// The server that the table gives a new Call-ID, pinned from now on.
    fn select(&self, pool: &Pool) -> Result<&Server, Rejection> {
        let chosen = pool
            .select(AffinityKey(self.call_id.0))
            .ok_or(Rejection::NoServer)?;
        let chosen = self.plan.server(chosen).ok_or(Rejection::NoServer)?;
        // ACK and CANCEL follow a request that has made the pin, or lost it.
        if matches!(self.message.method(), Method::Ack | Method::Cancel) {
            return Ok(chosen);
        }
        let new = NewPin {
            server: chosen.index,
            mode: Mode::Stateless,
            transaction: self.transaction(),
        };
        let key = super::pin_key(self.call_id, pool.id);
        let insertion = self.pins.insert(key, new, self.now);
        match insertion.outcome {
            PinOutcome::Made => self.metrics.pins_made.increment(),
            PinOutcome::Evicted => {
                self.metrics.pins_made.increment();
                self.metrics.pins_evicted.increment();
            }
            PinOutcome::Existing | PinOutcome::Refused => {}
        }
        let server = self.plan.server(insertion.pin.server).unwrap_or(chosen);
        self.metrics.server(server.index).selected.increment();
        Ok(server)
    }

    fn transaction(&self) -> Transaction {
        Transaction {
            invite: self.message.method() == Method::Invite,
            cseq: self.cseq(),
        }
    }
}
