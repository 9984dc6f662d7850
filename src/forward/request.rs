//! Request forwarding, RFC 3261 §16.6: from a valid request to its edits and where it goes.

use super::request_uri::{RequestUri, push_host_port};
use super::route_set::RouteSet;
use super::target::{Choice, Target};
use super::throttle::OFFER;
use super::{Context, Rejection, record_route};
use crate::affinity::{
    AnswerInput, BRANCH_LEN, Branch, BranchInput, Mode, NodeId, SentBy, VIA_PARAMETER_LEN,
    VIA_PARAMETER_NAME, VIA_PASSING, ViaParameter,
};
use crate::config::{Reach, Side};
use crate::net::{Endpoint, Flow, PoolIndex, Protocol, ServerId, WorkerIndex};
use crate::packet::{Buffer, EditList, Short};
use crate::route::{Action, Direction, Listener, Pool, Server};
use crate::sip::{HeaderName, Host, Method, ParseError, Span, Via};
use crate::verdict::DropReason;

/// Max-Forwards of a request that came without (RFC 3261 §16.6 step 3).
const MAX_FORWARDS: &[u8] = b"Max-Forwards: 70\r\n";

/// Between our branch and the value of our parameter.
const VIA_PARAMETER_START: &[u8; 3] = b";v=";
const _: () = assert!(VIA_PARAMETER_NAME.len() == 1 && VIA_PARAMETER_NAME[0] == b'v');

/// What becomes of a request that is not rejected.
#[derive(Debug)]
pub(crate) enum Decision {
    Forward(Forwarding),
    HandOver(WorkerIndex),
}

/// A request about to leave: what the edit list does not say.
#[derive(Debug)]
pub(crate) struct Forwarding {
    pub(crate) flow: Flow,
    /// Where it goes.
    pub(crate) target: Target,
    /// Another server of this pool may be tried instead: the pool has chosen the server, and no
    /// dialog binds the request to it.
    pub(crate) hunts: Option<PoolIndex>,
    /// RFC 3261 §18.3: bytes behind the message are not forwarded.
    pub(crate) end: usize,
    /// Max-Forwards with as many digits as before: written in place.
    patch: Option<(Span, [u8; 3])>,
}

impl Forwarding {
    /// Changes the bytes.
    pub(crate) fn apply(
        &self,
        edits: &EditList,
        buffer: &mut Buffer<'_>,
    ) -> Result<(), DropReason> {
        buffer.truncate(self.end);
        if let Some((span, digits)) = self.patch
            && let Some(place) = buffer.payload_mut().get_mut(span.range())
            && let Some(digits) = digits.get(..place.len())
        {
            place.copy_from_slice(digits);
        }
        edits.apply(buffer).map_err(DropReason::from)
    }

    /// Makes the edit list say everything, for whoever keeps it.
    pub(crate) fn complete(&mut self, edits: &mut EditList) {
        if let Some((span, digits)) = self.patch.take() {
            edits.replace(span.range(), digits.get(..span.len()).unwrap_or_default());
        }
    }
}

impl Context<'_> {
    /// Decides where a well-formed request goes and lists its edits.
    pub(crate) fn forward(
        &self,
        edits: &mut EditList,
        routes: &mut RouteSet,
    ) -> Result<Decision, Rejection> {
        let via = self
            .message
            .top_via()
            .ok_or(Rejection::Silent(DropReason::Malformed))?;
        let received = self
            .plan
            .listener(self.flow.listener)
            .ok_or(Rejection::Silent(DropReason::NotOurs))?;
        let request_uri = self
            .message
            .request_uri()
            .ok_or(Rejection::Syntax(ParseError::UriScheme))?;
        self.validate(request_uri)?;
        routes.read(self, request_uri).map_err(Rejection::Syntax)?;
        routes.request_uri.strip_own_maddr(self.plan, self.bytes);
        self.own_options(routes)?;
        self.admit(routes)?;
        let path = self.path_rows(received)?;

        let hunted = self.course.server.and_then(|index| self.plan.server(index));
        let choice = match hunted {
            Some(server) => Choice::Forward(self.to_server(server)),
            None => self.choose(routes)?,
        };
        let target = match choice {
            Choice::Forward(target) => target,
            Choice::HandOver(home) => return Ok(Decision::HandOver(home)),
        };
        let egress = self
            .egress(routes, &target)
            .ok_or(Rejection::Silent(DropReason::NoEgress))?;

        let branch = self.branch(via);
        let reach = self.reach(routes, &target);
        let strict = reach != Reach::Route && routes.next_is_strict(self.bytes);
        // RFC 3261 §7.5: line ends in front of the start line are not part of the message.
        let start = self.message.start_line().start();
        if start > 0 {
            edits.delete(0..start);
        }
        self.edit_request_uri(edits, routes, &target, reach, strict);
        self.insert_rows(
            edits, routes, &target, received, egress, via, &branch, reach,
        );
        if let Some(rows) = path.filter(|_| target.side == Side::Farm) {
            self.insert_path(edits, rows, received, egress);
        }
        self.mark_source(edits, via);
        self.remove_client_address(edits, &target);
        self.remove_offer(edits, self.target_server(&target), via);
        routes.edit(edits, self, strict);
        let patch = self.count_hop(edits);

        let end = self.message.message_end().min(self.bytes.len());
        self.check_size(&target, end, edits)?;
        self.count_request(&target);
        self.note_flow(routes);
        let hunts = target
            .pool
            .filter(|_| routes.token.is_none() && self.message.to_tag().is_none());
        Ok(Decision::Forward(Forwarding {
            flow: Flow {
                listener: egress.index,
                local: egress.address,
                peer: target.peer,
            },
            target,
            hunts,
            end,
            patch,
        }))
    }

    /// RFC 3261 §11: OPTIONS whose Request-URI is ours, without a user part, is answered here.
    fn own_options(&self, routes: &RouteSet) -> Result<(), Rejection> {
        if self.message.method() != Method::Options
            || routes.next.is_some()
            || routes.request_uri.uri.user.is_some()
            || !routes.request_uri.is_own(self.plan, self.bytes)
        {
            return Ok(());
        }
        let rule = self.admitting_rule(routes, false)?;
        let up = match rule.map(|rule| &rule.action) {
            Some(Action::Pool { pool, .. }) => self.plan.pool(*pool).is_some_and(Pool::is_up),
            _ => self.plan.pools().iter().any(Pool::is_up),
        };
        // Who asks decides by the answer whether we get traffic (anycast, a balancer before us, DNS).
        Err(if self.plan.draining {
            Rejection::Draining
        } else if up {
            Rejection::OwnOptions
        } else {
            Rejection::NoServer(503)
        })
    }

    /// The listener a request leaves from.
    fn egress(&self, routes: &RouteSet, target: &Target) -> Option<&Listener> {
        // A client knows us by the address it sent to, and its NAT lets nothing else through.
        if let Some(index) = target.flow
            && let Some(listener) = self.plan.listener(index)
            && listener.same_family(target.peer)
        {
            return Some(listener);
        }
        let to_client = self.direction == Direction::Farm && target.server.is_none();
        if to_client
            && let Some(token) = &routes.token
            && let Some(listener) = self.plan.listener(token.listener)
            && listener.side == target.side
            && listener.same_family(target.peer)
        {
            return Some(listener);
        }
        self.plan
            .egress(self.flow.listener, target.side, target.peer)
    }

    /// How the server is addressed: the pool's way, if we chose the server.
    fn reach(&self, routes: &RouteSet, target: &Target) -> Reach {
        let Some(pool) = target.pool.and_then(|pool| self.plan.pool(pool)) else {
            return Reach::Destination;
        };
        match pool.reach {
            // RFC 3261 §16.5: only who is responsible for a Request-URI may change it.
            Reach::RequestUri if !routes.request_uri.is_own(self.plan, self.bytes) => {
                Reach::Destination
            }
            reach => reach,
        }
    }

    pub(crate) fn branch(&self, via: &Via) -> Branch {
        if let Some(known) = &self.course.known {
            return known.branch.marked(self.course.mode, self.course.attempt);
        }
        let bytes = self.bytes;
        self.keys.branch(
            self.course.mode,
            self.course.attempt,
            &BranchInput {
                branch: via.branch.unwrap_or_default().of(bytes),
                sent_by: match via.host {
                    Host::Ip(ip) => SentBy::Ip(ip),
                    Host::Name(name) => SentBy::Name(name.of(bytes)),
                },
                port: via.port,
                call_id: self.call_id,
                cseq: self.cseq(),
                via: via.value.of(bytes),
                from_tag: self.sender_tag(),
                request_uri: self.message.request_uri_span().of(bytes),
            },
        )
    }

    /// RFC 3261 §16.6 steps 2 and 6.
    fn edit_request_uri(
        &self,
        edits: &mut EditList,
        routes: &RouteSet,
        target: &Target,
        reach: Reach,
        strict: bool,
    ) {
        let old = self.message.request_uri_span();
        let host = (reach == Reach::RequestUri).then_some(target.peer);
        let swapped = routes.next.as_ref().filter(|_| strict);
        let changed = routes.request_uri.is_cut() || routes.request_uri.uri.span != old;
        if swapped.is_none() && host.is_none() && !changed {
            return;
        }
        self.metrics.punted.increment();
        edits.begin(old.start(), old.len());
        match swapped {
            Some(next) => {
                RequestUri::new(*next).push(edits, self.bytes, None);
            }
            None => routes.request_uri.push(edits, self.bytes, host),
        }
        edits.end();
    }

    /// The rows that we add, in one place above the first `Via`: nearest to the headroom, so that
    /// next to nothing moves.
    #[expect(clippy::too_many_arguments, reason = "the parts of one row each")]
    fn insert_rows(
        &self,
        edits: &mut EditList,
        routes: &RouteSet,
        target: &Target,
        received: &Listener,
        egress: &Listener,
        via: &Via,
        branch: &Branch,
        reach: Reach,
    ) {
        let method = self.message.method();
        let row_start = |name| {
            let row = self.message.first(name);
            row.map_or(usize::MAX, |row| row.row.start())
        };
        let via_at = row_start(HeaderName::Via);
        edits.begin(via_at, 0);

        // RFC 3261 §16.6 step 8, RFC 3581 §4: the listener that the request came to is in the
        // parameter, since the response must leave from it.
        edits.push(self.via_prefix(egress));
        let parameter = self.via_parameter(target).encode(
            self.keys,
            branch,
            Endpoint {
                address: self.response_target(via),
                protocol: Protocol::Udp,
            },
        );
        let mut rest = Short::<{ BRANCH_LEN + 3 + VIA_PARAMETER_LEN }>::new();
        rest.put(branch.text());
        rest.put(VIA_PARAMETER_START);
        rest.put(&parameter);
        edits.push(rest.bytes());
        // RFC 7339 §4.1: "to the topmost Via header it inserts into every SIP request".
        if self
            .target_server(target)
            .is_some_and(|server| server.overload_control)
        {
            edits.push(OFFER);
        }
        edits.push(b"\r\n");

        // RFC 3261 §16.6 step 3.
        if !self.message.has(HeaderName::MaxForwards) {
            edits.push(MAX_FORWARDS);
        }
        // RFC 5393 §5.3.3: every proxied request has exactly one; §5.4.1: means nothing in CANCEL.
        if method != Method::Cancel && !self.message.has(HeaderName::MaxBreadth) {
            edits.push(b"Max-Breadth: ");
            edits.push_decimal(self.plan.rules.max_breadth);
            edits.push(b"\r\n");
        }

        self.push_client_address(edits, target);

        // RFC 3261 §16.6 steps 4 and 6: in front of any value of the same name.
        if record_route::wanted(method) {
            open_at(edits, row_start(HeaderName::RecordRoute), via_at);
            self.push_record_route(edits, routes, target, received, egress, via);
        }
        if reach == Reach::Route {
            open_at(edits, row_start(HeaderName::Route), via_at);
            edits.push(b"Route: <sip:");
            push_host_port(edits, target.peer);
            edits.push(b";lr>\r\n");
        }
        edits.end();
    }

    /// Our `Via` up to its branch. A transaction is on one node: where nodes share the address, its
    /// responses must come to the node's own.
    fn via_prefix<'p>(&'p self, egress: &'p Listener) -> &'p [u8] {
        let own = match self.course.mode {
            Mode::Stateful if !self.course.passing => egress.node_listener,
            _ => None,
        };
        own.and_then(|own| self.plan.listener(own))
            .unwrap_or(egress)
            .via_prefix()
    }

    fn target_server(&self, target: &Target) -> Option<&Server> {
        self.plan.server(target.server?)
    }

    fn via_parameter(&self, target: &Target) -> ViaParameter {
        let server = target.server.and_then(|server| self.plan.server(server));
        ViaParameter {
            peer: server.map_or(ServerId::OUTSIDE, |server| server.id),
            listener: self.flow.listener,
            // RFC 3261 §16.11: a retransmission leaves as the same bytes, from whatever node. Only
            // a transaction has a node that its responses must come home to.
            node: match self.course.mode {
                Mode::Stateless => NodeId::default(),
                Mode::Stateful => NodeId(u16::from(self.plan.node)),
            },
            flags: if self.course.passing { VIA_PASSING } else { 0 },
        }
    }

    /// RFC 3261 §16.6 step 3 and RFC 5393 §5.3.3, for headers that are there.
    fn count_hop(&self, edits: &mut EditList) -> Option<(Span, [u8; 3])> {
        let max_breadth = self.plan.rules.max_breadth;
        if self.message.method() != Method::Cancel
            && let Some(row) = self.message.first(HeaderName::MaxBreadth)
        {
            // Never decremented; what is too large or unreadable is overwritten.
            let kept = self
                .message
                .max_breadth()
                .and_then(|breadth| breadth.value)
                .is_some_and(|value| value <= max_breadth);
            if !kept {
                edits.begin(row.value.start(), row.value.len());
                edits.push_decimal(max_breadth);
                edits.end();
            }
        }
        let hops = self.message.max_forwards()?;
        let Some(value) = hops.value else {
            // RFC 4475 §3.1.2.4: an unreadable one may count as absent.
            edits.replace(hops.span.range(), b"70");
            return None;
        };
        let (digits, len) = decimal(value.saturating_sub(1));
        if len == hops.span.len() {
            return Some((hops.span, digits));
        }
        edits.replace(hops.span.range(), &digits[..len]);
        None
    }

    /// RFC 3261 §18.1.1 wants a large request sent over TCP, which is not there yet.
    fn check_size(&self, target: &Target, end: usize, edits: &EditList) -> Result<(), Rejection> {
        let server = target.server.and_then(|server| self.plan.server(server));
        let pool = target.pool.or(server.and_then(|server| server.pool));
        let limit = pool
            .and_then(|pool| self.plan.pool(pool))
            .and_then(|pool| pool.udp_max_request);
        match (limit, end.checked_add_signed(edits.growth())) {
            (Some(limit), Some(len)) if len > limit => Err(Rejection::TooLarge),
            _ => Ok(()),
        }
    }

    fn count_request(&self, target: &Target) {
        if self.direction == Direction::Farm
            && let Some(server) = self.plan.server_at(self.flow.peer)
        {
            self.metrics.server(server.index).requests_in.increment();
        }
        if let Some(server) = target.server {
            self.metrics.server(server).requests_out.increment();
        }
    }

    pub(crate) fn sender_tag(&self) -> &[u8] {
        self.message.from_tag().unwrap_or_default().of(self.bytes)
    }

    pub(crate) fn cseq(&self) -> u32 {
        self.message.cseq().map_or(0, |cseq| cseq.number)
    }

    pub(crate) fn answer_input(&self) -> AnswerInput<'_> {
        AnswerInput {
            call_id: self.call_id,
            cseq: self.cseq(),
            from_tag: self.sender_tag(),
        }
    }
}

/// Goes on where the `Via` row is inserted, unless `first` stands above that place.
fn open_at(edits: &mut EditList, first: usize, via_at: usize) {
    if first < via_at {
        edits.begin(first, 0);
    }
}

/// A number of at most three digits and how many it has.
fn decimal(value: u8) -> ([u8; 3], usize) {
    let digit = |divisor: u8| b'0' + value / divisor % 10;
    match value {
        0..=9 => ([digit(1), 0, 0], 1),
        10..=99 => ([digit(10), digit(1), 0], 2),
        _ => ([digit(100), digit(10), digit(1)], 3),
    }
}
