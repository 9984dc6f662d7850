//! Lookups by address: a sorted table of single addresses and a list of wider blocks.
//!
//! Built once per plan, then read-only. Keys are 128-bit: an IPv4 address is its IPv4-mapped form,
//! so that one address has one key (RFC 5954 §4.2: IP literals compare by binary value).

use crate::net::{IpAddr, Network, SocketAddr, canonical};

/// The one number of an address.
#[inline]
pub(crate) fn address_key(address: IpAddr) -> u128 {
    match address {
        // ::ffff:a.b.c.d
        IpAddr::V4(v4) => 0xffff_0000_0000 | u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of a number.
fn key_address(key: u128) -> IpAddr {
    IpAddr::V6(core::net::Ipv6Addr::from_bits(key))
}

/// A map from addresses (with or without port) to small values, by binary search.
///
/// A farm has a handful of servers, sometimes thousands; a sorted array beats a hash table for the
/// first and is close for the second, and nobody can choose keys that collide.
#[derive(Clone, Debug)]
pub(crate) struct AddressMap<V> {
    // INVARIANT: sorted by (address, port), no two equal.
    entries: Box<[(u128, u16, V)]>,
}

impl<V: Copy> AddressMap<V> {
    /// From pairs; of two equal keys the first stays.
    pub(crate) fn new(pairs: impl IntoIterator<Item = (SocketAddr, V)>) -> Self {
        let mut entries: Vec<(u128, u16, V)> = pairs
            .into_iter()
            .map(|(address, value)| (address_key(address.ip()), address.port(), value))
            .collect();
        entries.sort_by_key(|(address, port, _)| (*address, *port));
        entries.dedup_by_key(|(address, port, _)| (*address, *port));
        Self {
            entries: entries.into_boxed_slice(),
        }
    }

    /// The value of an address and port.
    #[inline]
    pub(crate) fn find(&self, address: IpAddr, port: u16) -> Option<V> {
        let key = (address_key(address), port);
        let at = self
            .entries
            .binary_search_by_key(&key, |(address, port, _)| (*address, *port))
            .ok()?;
        self.entries.get(at).map(|(_, _, value)| *value)
    }

    /// The value of an address with `port` if there is one, else with its lowest port.
    #[inline]
    pub(crate) fn find_host(&self, address: IpAddr, port: u16) -> Option<V> {
        let key = address_key(address);
        let first = self.entries.partition_point(|(at, _, _)| *at < key);
        let same = self.entries.get(first..)?;
        let mut of_host = same.iter().take_while(|(at, _, _)| *at == key);
        let lowest = of_host.next()?;
        let exact = core::iter::once(lowest)
            .chain(of_host)
            .find(|(_, at, _)| *at == port);
        Some(exact.unwrap_or(lowest).2)
    }
}

/// A set of address blocks.
#[derive(Clone, Debug, Default)]
pub struct Networks {
    // INVARIANT: sorted.
    hosts: Box<[u128]>,
    blocks: Box<[Network]>,
}

impl Networks {
    /// The union of `networks`.
    pub fn new(networks: impl IntoIterator<Item = Network>) -> Self {
        let (hosts, blocks): (Vec<Network>, Vec<Network>) = networks
            .into_iter()
            .partition(|network| *network == Network::host(network.address()));
        let mut hosts: Vec<u128> = hosts
            .iter()
            .map(|network| address_key(network.address()))
            .collect();
        hosts.sort_unstable();
        hosts.dedup();
        Self {
            hosts: hosts.into_boxed_slice(),
            blocks: blocks.into_boxed_slice(),
        }
    }

    /// The blocks of the set.
    pub fn iter(&self) -> impl Iterator<Item = Network> {
        let hosts = self
            .hosts
            .iter()
            .map(|key| Network::host(canonical(key_address(*key))));
        hosts.chain(self.blocks.iter().copied())
    }

    /// Whether `address` is in the set.
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.hosts.binary_search(&address_key(address)).is_ok()
            || self.blocks.iter().any(|block| block.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_map_tells_ports_apart_and_mapped_addresses_not() {
        let map = AddressMap::new([
            (at("198.18.0.1:5060"), 1),
            (at("198.18.0.1:5070"), 2),
            (at("[2001:db8::10]:5060"), 3),
            (at("198.18.0.1:5060"), 4),
        ]);
        let v4 = "198.18.0.1".parse().unwrap();
        assert_eq!(map.find(v4, 5060), Some(1));
        assert_eq!(map.find(v4, 5070), Some(2));
        assert_eq!(map.find(v4, 5080), None);
        assert_eq!(
            map.find("::ffff:198.18.0.1".parse().unwrap(), 5060),
            Some(1)
        );
        assert_eq!(map.find("2001:DB8:0:0::10".parse().unwrap(), 5060), Some(3));
        assert_eq!(map.find_host(v4, 5070), Some(2));
        assert_eq!(map.find_host(v4, 9), Some(1));
        assert_eq!(map.find_host("198.18.0.2".parse().unwrap(), 5060), None);
    }

    #[test]
    fn a_set_holds_hosts_and_blocks() {
        let set = Networks::new([
            "198.18.1.0/24".parse().unwrap(),
            "198.18.2.7".parse().unwrap(),
            "2001:db8:1::/48".parse().unwrap(),
        ]);
        for inside in [
            "198.18.1.255",
            "198.18.2.7",
            "2001:db8:1::9",
            "::ffff:198.18.2.7",
        ] {
            assert!(set.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["198.18.2.8", "198.18.0.255", "2001:db8:2::9"] {
            assert!(!set.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(!Networks::default().contains("198.18.1.1".parse().unwrap()));
    }
}
