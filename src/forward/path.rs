//! `Path` (RFC 3327): how a client behind a NAT is called.
//!
//! A registered Contact behind a NAT can be reached only from where it registered, and by us. With
//! `path` at a listener, a REGISTER gets our URI as the topmost `Path` value; its token holds the
//! client's flow. The registrar puts it into `Route` of each request to that Contact; when such a
//! request comes from the farm, it goes out on the flow.
//!
//! - `auto` does nothing without the client's `Supported: path`: a registrar that finds a `Path` the
//!   client has not offered answers 420 (§5.3). `Require: path` is not added: a registrar that does
//!   not know `Path` is no worse than without.
//! - `require` answers 421 to a client without it and adds `Require: path` (§5.2): a registrar that
//!   does not know `Path` answers 420, and nobody believes to be reachable who is not.
//! - One value, also between two networks: unlike `Record-Route` it is read on the way to the client
//!   only, so it names the address that the farm reaches. The listener on the client's side is in
//!   the token.
//! - No `ob` (RFC 5626 §5.1): it would promise an answer to STUN keepalives, which there is not yet.
//! - A token opens nothing to whoever is not in the farm: a request from outside that brings the
//!   token of another's flow gets 403, its own is no more than a route through us.

use super::client::ClientFlowUse;
use super::hop::{Hop, hop};
use super::route_set::RouteSet;
use super::{Context, Rejection};
use crate::affinity::{Binding, ClientFlow, Pair, RouteToken, TagHash};
use crate::config::PathPolicy;
use crate::net::{Endpoint, Protocol, ServerId};
use crate::packet::EditList;
use crate::route::{Direction, Listener};
use crate::sip::{HeaderName, Method};

/// The option tag of RFC 3327.
const TAG: &[u8] = b"path";

/// What a REGISTER gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PathRows {
    /// `Require: path`, too.
    require: bool,
}

impl Context<'_> {
    /// Whether the request gets our `Path`.
    pub(super) fn path_rows(&self, received: &Listener) -> Result<Option<PathRows>, Rejection> {
        // What a server registers elsewhere comes back to the server, not to a client.
        if self.message.method() != Method::Register
            || received.path == PathPolicy::Off
            || self.direction == Direction::Farm
        {
            return Ok(None);
        }
        let required = self.has_value(HeaderName::Require, TAG);
        let supported = required || self.has_value(HeaderName::Supported, TAG);
        match received.path {
            PathPolicy::Require if !supported => Err(Rejection::PathRequired),
            PathPolicy::Require => Ok(Some(PathRows { require: !required })),
            PathPolicy::Auto if supported => Ok(Some(PathRows { require: false })),
            // A deviation from RFC 3327 §5.2, which wants the client asked: most telephones do not
            // say that they support what asks nothing of them.
            PathPolicy::Always => Ok(Some(PathRows { require: false })),
            PathPolicy::Auto | PathPolicy::Off => Ok(None),
        }
    }

    /// Inserts our rows.
    pub(super) fn insert_path(
        &self,
        edits: &mut EditList,
        rows: PathRows,
        received: &Listener,
        egress: &Listener,
    ) {
        let token = RouteToken {
            // Any server may call the client, and the token is the same whichever registers it.
            server: ServerId::OUTSIDE,
            flow: Some(Endpoint {
                address: self.flow.peer,
                protocol: Protocol::Udp,
            }),
            listener: received.index,
            // RFC 5626 §5.1: "the first hop, as indicated by the Via header field".
            nat: self.message.vias_below(self.bytes).next().is_none(),
            callee: true,
            pair: Pair::Single,
            initiator: TagHash::default(),
        };
        // RFC 3327 §5.2: "as the topmost value in the Path header field".
        let row_start = |name| self.message.first(name).map(|row| row.row.start());
        let via_at = row_start(HeaderName::Via).unwrap_or_default();
        let at = row_start(HeaderName::Path).map_or(via_at, |path| path.min(via_at));
        edits.begin(at, 0);
        edits.push(b"Path: <sip:");
        edits.push(&token.seal(self.keys, Binding::Path));
        edits.push(egress.record_route_suffix());
        if rows.require {
            edits.push(b"Require: path\r\n");
        }
        edits.end();
    }

    /// The flow of the registered client that a request from the farm is routed to.
    ///
    /// With several `Via`s in the REGISTER another proxy stood between; if it put itself into `Path`
    /// as well, it is the next Route value, and where that leads, leads to the same client.
    pub(super) fn registered_flow(&self, routes: &RouteSet) -> Option<ClientFlowUse> {
        let token = routes.path.as_ref()?;
        let next = routes
            .next
            .as_ref()
            .map(|next| hop(self.plan, self.bytes, next));
        if !token.nat && matches!(next, Some(Hop::Literal(_) | Hop::Secure)) {
            return None;
        }
        Some(ClientFlowUse {
            flow: ClientFlow {
                address: token.flow?.address,
                listener: token.listener,
            },
            nat: true,
        })
    }

    /// Refuses what would use a flow from outside.
    ///
    /// RFC 5626 §5.3: a token whose flow is not the request's source asks for that flow.
    pub(super) fn refuse_foreign_flow(&self, routes: &RouteSet) -> Result<(), Rejection> {
        let asked = routes.path.as_ref().and_then(|token| token.flow);
        match asked {
            Some(flow) if flow.address != self.flow.peer => Err(Rejection::Relay),
            _ => Ok(()),
        }
    }
}
