//! What the kernel has told so far.
//!
//! Neighbours change often and one at a time: their events are applied as they come. Everything
//! else changes seldom and in ways that are hard to follow (a deleted address takes routes with it,
//! a next hop is appended to a route): an event marks its kind as dirty, and it is read anew.

use std::collections::BTreeMap;
use std::io;

use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::rule::RuleMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tracing::warn;

use super::decode::{self, NeighbourEntry, Reachability};
use super::netlink::{Decoded, Netlink, Undecodable};
use super::probe::Key;
use crate::datapath::egress::{Interface, Neighbour, PolicyRule, Route, Topology};
use crate::limits::{
    ADDRESSES_KNOWN_MAX, INTERFACES_KNOWN_MAX, NEIGHBOURS_MAX, POLICY_RULES_MAX, ROUTES_MAX,
};

/// Dumps of one kind in a row that may be interrupted by changes.
const DUMP_ATTEMPTS: usize = 5;

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// The kinds of which the mirror may be out of date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dirty {
    links: bool,
    routes: bool,
    rules: bool,
    neighbours: bool,
    /// The mirror has changed since the last topology.
    changed: bool,
}

impl Dirty {
    pub(super) const ALL: Self = Self {
        links: true,
        routes: true,
        rules: true,
        neighbours: true,
        changed: true,
    };

    pub(super) fn any(self) -> bool {
        self != Self::default()
    }
}

/// The mirror.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    pub(super) dirty: Dirty,
    /// States of neighbours that events and dumps have told, for the prober.
    pub(super) states: Vec<(Key, Reachability)>,
    interfaces: Vec<Interface>,
    routes: Vec<Route>,
    rules: Vec<PolicyRule>,
    neighbours: BTreeMap<Key, NeighbourEntry>,
    left_out: LeftOut,
}

/// Objects of each kind that did not fit the limits or could not be decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LeftOut {
    interfaces: usize,
    routes: usize,
    rules: usize,
    neighbours: usize,
}

impl Mirror {
    /// One message of the event socket.
    pub(super) fn on_event(&mut self, message: Decoded) {
        use RouteNetlinkMessage as Event;
        let Ok(message) = message else {
            // Whatever it was: look.
            self.dirty = Dirty::ALL;
            return;
        };
        let NetlinkPayload::InnerMessage(event) = message.payload else {
            return;
        };
        match event {
            Event::NewNeighbour(message) => self.set_neighbour(&message),
            Event::DelNeighbour(message) => {
                if let Some((key, _)) = decode::neighbour(&message) {
                    self.states.push((key, Reachability::Unknown));
                    let gone = self.neighbours.remove(&key);
                    self.dirty.changed |= gone.is_some_and(|entry| entry.mac.is_some());
                }
            }
            Event::NewLink(_) | Event::DelLink(_) => {
                // An interface that goes takes routes and neighbours along without an event for
                // each (IPv4: fib_sync_down_dev).
                self.dirty.links = true;
                self.dirty.routes = true;
            }
            Event::NewAddress(_) | Event::DelAddress(_) => {
                self.dirty.links = true;
                self.dirty.routes = true;
            }
            Event::NewRoute(_) | Event::DelRoute(_) => self.dirty.routes = true,
            Event::NewRule(_) | Event::DelRule(_) => self.dirty.rules = true,
            _ => {}
        }
    }

    /// What is known of a neighbour.
    pub(super) fn reachability(&self, key: Key) -> Reachability {
        self.neighbours
            .get(&key)
            .map_or(Reachability::Unknown, |entry| entry.reachability)
    }

    /// Reads every dirty kind anew.
    pub(super) async fn refresh(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        if self.dirty.links {
            // Cleared first: an event that comes in meanwhile marks it again.
            self.dirty.links = false;
            let result = self.read_links(netlink).await;
            self.dirty.links |= result.is_err();
            result?;
        }
        if self.dirty.routes {
            self.dirty.routes = false;
            let result = self.read_routes(netlink).await;
            self.dirty.routes |= result.is_err();
            result?;
        }
        if self.dirty.rules {
            self.dirty.rules = false;
            let result = self.read_rules(netlink).await;
            self.dirty.rules |= result.is_err();
            result?;
        }
        if self.dirty.neighbours {
            self.dirty.neighbours = false;
            let result = self.read_neighbours(netlink).await;
            self.dirty.neighbours |= result.is_err();
            result?;
        }
        Ok(())
    }

    /// The input of a snapshot.
    pub(super) fn topology(&mut self) -> Topology {
        self.dirty.changed = false;
        let left_out = self.left_out;
        let neighbours = self
            .neighbours
            .iter()
            .filter_map(|((ifindex, address), entry)| {
                let mac = entry.mac?;
                Some(Neighbour {
                    ifindex: *ifindex,
                    address: *address,
                    mac,
                })
            });
        Topology {
            interfaces: self.interfaces.clone(),
            routes: self.routes.clone(),
            neighbours: neighbours.collect(),
            rules: self.rules.clone(),
            // A route or a rule that is missing could hide where a datagram really goes. Without an
            // interface or a neighbour it is unresolved, no more.
            incomplete: left_out.routes > 0 || left_out.rules > 0,
            left_out: left_out.interfaces + left_out.routes + left_out.rules + left_out.neighbours,
        }
    }

    async fn read_links(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut found = Bounded::new(INTERFACES_KNOWN_MAX);
        dump(netlink, &request, &mut found, |message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(decode::interface(&link)),
            _ => None,
        })
        .await?;
        let mut interfaces = std::mem::take(&mut found.objects);

        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let mut addresses = Bounded::new(ADDRESSES_KNOWN_MAX);
        dump(netlink, &request, &mut addresses, |message| match message {
            RouteNetlinkMessage::NewAddress(address) => decode::address(&address),
            _ => None,
        })
        .await?;
        interfaces.sort_by_key(|interface| interface.ifindex);
        addresses.objects.sort();
        for (ifindex, address) in addresses.objects {
            let found = interfaces.binary_search_by_key(&ifindex, |interface| interface.ifindex);
            if let Some(interface) = found.ok().and_then(|index| interfaces.get_mut(index)) {
                interface.addresses.push(address);
            }
        }
        found.over += addresses.over;
        found.undecodable += addresses.undecodable;
        report(
            &mut self.left_out.interfaces,
            &found,
            "interfaces and addresses",
        );
        self.interfaces = interfaces;
        self.dirty.changed = true;
        Ok(())
    }

    async fn read_routes(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        let mut found = Bounded::new(ROUTES_MAX);
        for family in FAMILIES {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let request = RouteNetlinkMessage::GetRoute(request);
            let mut routes = Bounded::new(ROUTES_MAX);
            dump(netlink, &request, &mut routes, |message| match message {
                RouteNetlinkMessage::NewRoute(route) => decode::route(&route),
                _ => None,
            })
            .await?;
            found.join(routes);
        }
        report(&mut self.left_out.routes, &found, "routes");
        self.routes = found.objects;
        self.dirty.changed = true;
        Ok(())
    }

    async fn read_rules(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        let mut found = Bounded::new(POLICY_RULES_MAX);
        for family in FAMILIES {
            let mut request = RuleMessage::default();
            request.header.family = family;
            let request = RouteNetlinkMessage::GetRule(request);
            let mut rules = Bounded::new(POLICY_RULES_MAX);
            dump(netlink, &request, &mut rules, |message| match message {
                RouteNetlinkMessage::NewRule(rule) => decode::rule(&rule),
                _ => None,
            })
            .await?;
            found.join(rules);
        }
        report(&mut self.left_out.rules, &found, "policy rules");
        if found.objects != self.rules && !found.objects.is_empty() {
            warn!(
                rules = found.objects.len(),
                "policy routing rules: flows that they may match go through the kernel socket"
            );
        }
        self.rules = found.objects;
        self.dirty.changed = true;
        Ok(())
    }

    async fn read_neighbours(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let mut found = Bounded::new(NEIGHBOURS_MAX);
        dump(netlink, &request, &mut found, |message| match message {
            RouteNetlinkMessage::NewNeighbour(neighbour) => decode::neighbour(&neighbour),
            _ => None,
        })
        .await?;
        report(&mut self.left_out.neighbours, &found, "neighbours");
        let states = found
            .objects
            .iter()
            .map(|(key, entry)| (*key, entry.reachability));
        self.states.extend(states);
        self.neighbours = found.objects.into_iter().collect();
        self.dirty.changed = true;
        Ok(())
    }

    fn set_neighbour(&mut self, message: &NeighbourMessage) {
        let Some((key, entry)) = decode::neighbour(message) else {
            return;
        };
        self.states.push((key, entry.reachability));
        let known = self.neighbours.get(&key);
        if known.is_none() && self.neighbours.len() >= NEIGHBOURS_MAX {
            // Until the next reading of all, which finds it if there is room by then.
            self.dirty.changed |= self.left_out.neighbours == 0;
            self.left_out.neighbours += 1;
            return;
        }
        // A probe that is answered changes the state twice and the table not at all.
        self.dirty.changed |= known.and_then(|known| known.mac) != entry.mac;
        self.neighbours.insert(key, entry);
    }
}

/// Objects of a dump, up to a limit.
struct Bounded<T> {
    objects: Vec<T>,
    max: usize,
    /// How many were over it.
    over: usize,
    undecodable: usize,
}

impl<T> Bounded<T> {
    fn new(max: usize) -> Self {
        Self {
            objects: Vec::new(),
            max,
            over: 0,
            undecodable: 0,
        }
    }

    fn push(&mut self, object: T) {
        if self.objects.len() < self.max {
            self.objects.push(object);
        } else {
            self.over += 1;
        }
    }

    fn join(&mut self, other: Self) {
        self.over += other.over;
        self.undecodable += other.undecodable;
        other
            .objects
            .into_iter()
            .for_each(|object| self.push(object));
    }
}

/// A dump, repeated while the kernel says that it was interrupted.
async fn dump<T>(
    netlink: &mut Netlink,
    request: &RouteNetlinkMessage,
    found: &mut Bounded<T>,
    decode: impl Fn(RouteNetlinkMessage) -> Option<T>,
) -> io::Result<()> {
    let mut attempts = 0;
    loop {
        *found = Bounded::new(found.max);
        let each = |message: Result<_, Undecodable>| match message {
            Ok(message) => {
                if let Some(object) = decode(message) {
                    found.push(object);
                }
            }
            Err(Undecodable) => found.undecodable += 1,
        };
        attempts += 1;
        match netlink.dump(request.clone(), each).await {
            Err(error)
                if error.kind() == io::ErrorKind::Interrupted && attempts < DUMP_ATTEMPTS => {}
            result => return result,
        }
    }
}

/// Notes how many objects of a kind are left out, and says so when it changes.
fn report<T>(left_out: &mut usize, found: &Bounded<T>, what: &str) {
    let now = found.over + found.undecodable;
    if now != *left_out {
        warn!(
            over = found.over,
            undecodable = found.undecodable,
            max = found.max,
            "{what} of the host left out: the kernel socket sends what they lead to"
        );
    }
    *left_out = now;
}
