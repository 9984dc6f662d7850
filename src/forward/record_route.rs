//! `Record-Route`: which requests get it and what it says.

use super::Context;
use super::route_set::RouteSet;
use super::target::Target;
use crate::affinity::{Binding, Pair, RouteToken};
use crate::config::Side;
use crate::net::{Endpoint, Protocol, ServerId};
use crate::packet::EditList;
use crate::route::{Direction, Listener};
use crate::sip::{Method, Via};

/// Whether a request of this method gets our `Record-Route`.
///
/// RFC 3261 §16.6 step 4: whatever may make a dialog, unknown methods included, and, with SHOULD,
/// requests inside one. RFC 6665 §4.3: SUBSCRIBE and every NOTIFY. Not those that neither make nor
/// renew a dialog: REGISTER (§10.3 ignores it, and Path is the means there), PUBLISH, MESSAGE,
/// OPTIONS, the ACK and CANCEL that follow an INVITE, and the BYE that ends it.
pub(super) fn wanted(method: Method) -> bool {
    match method {
        Method::Invite
        | Method::Subscribe
        | Method::Notify
        | Method::Refer
        | Method::Update
        | Method::Info
        | Method::Prack
        | Method::Other => true,
        Method::Ack
        | Method::Bye
        | Method::Cancel
        | Method::Message
        | Method::Options
        | Method::Publish
        | Method::Register => false,
    }
}

impl Context<'_> {
    /// Appends our `Record-Route` rows to the open edit.
    ///
    /// RFC 5658 §5, RFC 6157 §3.1.1: two rows when the request leaves from another address than it
    /// came to, the one of the egress side on top.
    pub(super) fn push_record_route(
        &self,
        edits: &mut EditList,
        routes: &RouteSet,
        target: &Target,
        received: &Listener,
        egress: &Listener,
        via: &Via,
    ) {
        let mut token = self.route_token(routes, target, received, egress, via);
        if received.index == egress.index {
            return self.push_row(edits, &token, egress);
        }
        for listener in [egress, received] {
            token.pair = match listener.side {
                Side::Outside => Pair::Outside,
                Side::Farm => Pair::Farm,
            };
            self.push_row(edits, &token, listener);
        }
    }

    fn push_row(&self, edits: &mut EditList, token: &RouteToken, listener: &Listener) {
        edits.push(b"Record-Route: <sip:");
        edits.push(&token.seal(self.keys, Binding::Dialog(self.call_id)));
        edits.push(listener.record_route_suffix());
    }

    /// What a later request of the dialog must bring back.
    fn route_token(
        &self,
        routes: &RouteSet,
        target: &Target,
        received: &Listener,
        egress: &Listener,
        via: &Via,
    ) -> RouteToken {
        let from_farm = self.direction == Direction::Farm;
        let server_at = from_farm
            .then(|| self.plan.server_at(self.flow.peer))
            .flatten();
        let server = match target.server {
            Some(server) => self.plan.server(server),
            None => server_at,
        };
        let old = routes.token.as_ref();
        // Both ends in the farm: the token is the same from either.
        if let Some(between) = old.filter(|token| self.is_between_servers(token)) {
            return *between;
        }
        let flow = self.dialog_flow(routes, target, received, via);
        RouteToken {
            server: server
                .map(|server| server.id)
                .or(old.map(|token| token.server))
                .unwrap_or(ServerId::OUTSIDE),
            flow: flow.map(|flow| Endpoint {
                address: flow.address,
                protocol: Protocol::Udp,
            }),
            listener: if target.side == Side::Farm {
                received.index
            } else {
                egress.index
            },
            nat: flow.is_some_and(|flow| flow.nat),
            callee: flow.is_some_and(|flow| flow.callee),
            pair: Pair::Single,
            initiator: match old {
                Some(token) => token.initiator,
                None => self.keys.tag_hash(self.sender_tag()),
            },
        }
    }
}
