//! Where a peer's frames go: learnt from what it sends, else as the kernel says.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use crossbeam::queue::ArrayQueue;

use crate::datapath::egress::{EgressTable, Resolution};
use crate::packet::MacAddress;

/// Peers whose MAC address is at hand. One that shares its place with another is looked up anew.
const LEARNT: usize = 4096;

/// MAC addresses of peers.
pub(super) struct Ways {
    /// Of the interface.
    source: MacAddress,
    mtu: u32,
    gateway: Option<MacAddress>,
    learnt: Box<[Option<(IpAddr, MacAddress)>]>,
    egress: Cache<Arc<ArcSwap<EgressTable>>, Arc<EgressTable>>,
    wanted: Arc<ArrayQueue<IpAddr>>,
}

impl Ways {
    pub(super) fn new(
        source: MacAddress,
        mtu: u32,
        gateway: Option<MacAddress>,
        egress: Arc<ArcSwap<EgressTable>>,
        wanted: Arc<ArrayQueue<IpAddr>>,
    ) -> Self {
        Self {
            source,
            mtu,
            gateway,
            learnt: vec![None; LEARNT].into(),
            egress: Cache::new(egress),
            wanted,
        }
    }

    /// MAC address of the interface.
    pub(super) fn source(&self) -> MacAddress {
        self.source
    }

    /// Longest IP packet of the interface.
    pub(super) fn mtu(&self) -> usize {
        self.mtu as usize
    }

    /// Remembers where a frame of `peer` came from.
    #[inline]
    pub(super) fn learn(&mut self, peer: IpAddr, mac: MacAddress) {
        if self.gateway.is_none() {
            self.learnt[place(peer)] = Some((peer, mac));
        }
    }

    /// Where to send what goes from `local` to `peer`; `None` if nobody knows yet.
    #[inline]
    pub(super) fn towards(&mut self, local: IpAddr, peer: SocketAddr) -> Option<MacAddress> {
        if self.gateway.is_some() {
            return self.gateway;
        }
        match self.learnt[place(peer.ip())] {
            Some((known, mac)) if known == peer.ip() => Some(mac),
            _ => self.ask(local, peer),
        }
    }

    #[cold]
    fn ask(&mut self, local: IpAddr, peer: SocketAddr) -> Option<MacAddress> {
        match self.egress.load().resolve(local, peer) {
            Resolution::Link(link) => {
                self.learnt[place(peer.ip())] = Some((peer.ip(), link.dst_mac));
                Some(link.dst_mac)
            }
            _ => {
                // Full, and a report is lost: the message is sent again later, and asks again.
                let _ = self.wanted.push(peer.ip());
                None
            }
        }
    }
}

/// The place of a peer among those learnt.
#[inline]
fn place(peer: IpAddr) -> usize {
    let bits = match peer {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.segments().map(u64::from);
            (a << 48 | b << 32 | c << 16 | d) ^ (e << 48 | f << 32 | g << 16 | h)
        }
    };
    let hash = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    usize::try_from(hash).unwrap_or(0) % LEARNT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::egress::{
        Interface, Neighbour, NextHop, Route, RouteTable, Target, Topology,
    };

    const HERE: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const ROUTER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
    const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 3]);

    fn ways(gateway: Option<MacAddress>) -> (Ways, Arc<ArrayQueue<IpAddr>>) {
        let hop = NextHop {
            ifindex: 5,
            gateway: None,
        };
        let table = EgressTable::build(&Topology {
            interfaces: vec![Interface {
                ifindex: 5,
                name: "a0".to_owned(),
                mac: HERE,
                mtu: 1500,
                usable: true,
                addresses: vec!["198.18.0.1".parse().unwrap()],
            }],
            routes: vec![Route {
                table: RouteTable::Main,
                destination: "198.18.0.0/24".parse().unwrap(),
                metric: 0,
                mtu: None,
                target: Target::Hops(vec![hop]),
            }],
            neighbours: vec![Neighbour {
                ifindex: 5,
                address: "198.18.0.2".parse().unwrap(),
                mac: ROUTER,
            }],
            ..Topology::default()
        });
        let egress = Arc::new(ArcSwap::from_pointee(table));
        let wanted = Arc::new(ArrayQueue::new(4));
        (
            Ways::new(HERE, 1500, gateway, egress, wanted.clone()),
            wanted,
        )
    }

    #[test]
    fn a_peer_is_found_by_the_kernels_table_until_it_has_sent_a_frame() {
        let (mut ways, wanted) = ways(None);
        let local: IpAddr = "198.18.64.9".parse().unwrap();
        let known = "198.18.0.2:5060".parse().unwrap();
        let unknown: SocketAddr = "198.18.0.3:5060".parse().unwrap();
        assert_eq!(ways.towards(local, known), Some(ROUTER));
        assert_eq!(ways.towards(local, unknown), None);
        assert_eq!(wanted.pop(), Some(unknown.ip()));
        ways.learn(unknown.ip(), OTHER);
        assert_eq!(ways.towards(local, unknown), Some(OTHER));
        // It moved behind another MAC address, and the answer follows it.
        ways.learn(unknown.ip(), ROUTER);
        assert_eq!(ways.towards(local, unknown), Some(ROUTER));
    }

    #[test]
    fn a_gateway_that_was_named_is_asked_for_all() {
        let (mut ways, wanted) = ways(Some(OTHER));
        let local: IpAddr = "2001:db8::9".parse().unwrap();
        ways.learn(local, ROUTER);
        for peer in ["198.18.0.2:5060", "[2001:db8:7::1]:5060", "203.0.113.1:9"] {
            assert_eq!(ways.towards(local, peer.parse().unwrap()), Some(OTHER));
        }
        assert_eq!(wanted.pop(), None);
    }
}
