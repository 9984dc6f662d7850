//! `[limit]`: how much a source may send, counted and dropped in the steering program.

use super::reader::Reader;
use super::{Action, Config, Listener, read};
use crate::limits::{LIMIT_SOURCES_DEFAULT, LIMIT_SOURCES_MAX, LIMIT_SOURCES_MIN};
use crate::net::Network;

/// Seconds' worth of datagrams that make the burst unless it is said: behind one address there may
/// be an office, and all its telephones register at once after a power cut.
const BURST_SECONDS: u32 = 10;

/// How much a source may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Datagrams a second of one source, an IPv4 address or an IPv6 /64; 0 = nothing is limited.
    pub packets_per_second: u32,
    /// Datagrams that a source may send at once after a pause.
    pub burst: u32,
    /// Datagrams a second of all strangers together; 0 = no such limit.
    pub strangers_per_second: u32,
    /// Sources that are not limited, besides farm and trusted peers.
    pub whitelist: Vec<Network>,
    /// Count what would be dropped, and drop nothing.
    pub dry_run: bool,
    /// Known sources and strangers, each, that are told apart.
    pub sources: u32,
}

impl Limit {
    /// Whether anything is limited at all.
    pub fn is_on(&self) -> bool {
        self.packets_per_second > 0
    }

    pub(super) fn read(table: Reader<'_>) -> Self {
        let rate = table
            .integer("packets_per_second", 0..=1_000_000)
            .unwrap_or(0);
        let limit = Self {
            packets_per_second: rate,
            burst: table
                .integer("burst", 1..=10_000_000)
                .unwrap_or(rate * BURST_SECONDS),
            strangers_per_second: table
                .integer("strangers_per_second", 0..=10_000_000)
                .unwrap_or(0),
            whitelist: read::networks(&table, "whitelist"),
            dry_run: table.boolean("dry_run").unwrap_or(false),
            sources: table
                .integer("sources", LIMIT_SOURCES_MIN..=LIMIT_SOURCES_MAX)
                .unwrap_or(LIMIT_SOURCES_DEFAULT),
        };
        if !limit.is_on() && limit.strangers_per_second > 0 {
            table.fault(
                "strangers_per_second",
                limit.strangers_per_second,
                "needs limit.packets_per_second: 0 there switches the limiter off",
            );
        }
        table.finish();
        limit
    }
}

impl Config {
    /// Sources that the limiter leaves alone on a listener: the farm, next hops and trusted peers,
    /// whom the operator has named already, and the whitelist.
    pub fn exempt(&self, listener: &Listener) -> Vec<Network> {
        let servers = self.pools.iter().flat_map(|pool| &pool.servers);
        let next_hops = self.routes.iter().filter_map(|route| match &route.action {
            Action::NextHop(address) => Some(address.ip()),
            _ => None,
        });
        let hosts = servers.map(|server| server.address.ip()).chain(next_hops);
        let networks = self.pools.iter().flat_map(|pool| &pool.networks);
        networks
            .chain(&self.trusted)
            .chain(&listener.trusted)
            .chain(&self.limit.whitelist)
            .copied()
            .chain(hosts.map(Network::host))
            .collect()
    }
}
