//! Addresses, protocols and flows as every layer names them.

use core::fmt;
pub use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Transport protocol of a SIP hop (RFC 3261 §20.42, RFC 7118 §5.1, RFC 4168 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// SCTP, RFC 4168.
    Sctp = 0,
    /// TCP.
    Tcp = 1,
    /// TLS over TCP.
    Tls = 2,
    /// UDP.
    Udp = 3,
    /// WebSocket, RFC 7118.
    Ws = 4,
    /// WebSocket over TLS, RFC 7118.
    Wss = 5,
}

impl Protocol {
    /// The protocol of a number as the enum gives it out, `None` for any other number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Sctp,
            1 => Self::Tcp,
            2 => Self::Tls,
            3 => Self::Udp,
            4 => Self::Ws,
            5 => Self::Wss,
            _ => return None,
        })
    }
}

/// Position of a listener in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerIndex(pub u8);

/// Number of a datapath worker, 0-based.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerIndex(pub u8);

/// Slot of a server in the process. A slot belongs to one server name for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerIndex(pub u16);

/// Position of a pool in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolIndex(pub u8);

/// Stable id of a server: a hash of its configured name, the same on every node and after every
/// reload. Never an index. 0 means "outside the farm".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u32);

impl ServerId {
    /// Not a server: the peer is outside the farm.
    pub const OUTSIDE: Self = Self(0);
}

/// An address and how it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Address and port.
    pub address: SocketAddr,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// One direction of a UDP exchange as viaduct sees it.
///
/// For a received datagram `local` is the address it was sent to and `peer` who sent it; for one to
/// be sent `local` is the source it leaves from and `peer` where it goes. IPv4-mapped IPv6 addresses
/// are IPv4 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The listener whose address `local` is.
    pub listener: ListenerIndex,
    /// Our side.
    pub local: SocketAddr,
    /// The other side.
    pub peer: SocketAddr,
}

/// An address block in CIDR form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix_len: u8,
}

impl Network {
    /// A block; host bits are cleared.
    ///
    /// Returns `None` if `prefix_len` is longer than the address.
    pub fn new(address: IpAddr, prefix_len: u8) -> Option<Self> {
        let address = match canonical(address) {
            IpAddr::V4(v4) if prefix_len <= 32 => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(prefix_len))
                    .unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) if prefix_len <= 128 => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(prefix_len))
                    .unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
            _ => return None,
        };
        Some(Self {
            address,
            prefix_len,
        })
    }

    /// The block of one address.
    pub fn host(address: IpAddr) -> Self {
        let address = canonical(address);
        let prefix_len = if address.is_ipv4() { 32 } else { 128 };
        Self {
            address,
            prefix_len,
        }
    }

    /// First address of the block.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits of the prefix.
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Whether `address` lies in the block.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, canonical(address)) {
            (IpAddr::V4(net), IpAddr::V4(v4)) => {
                let shift = 32 - u32::from(self.prefix_len);
                (net.to_bits() ^ v4.to_bits())
                    .checked_shr(shift)
                    .unwrap_or(0)
                    == 0
            }
            (IpAddr::V6(net), IpAddr::V6(v6)) => {
                let shift = 128 - u32::from(self.prefix_len);
                (net.to_bits() ^ v6.to_bits())
                    .checked_shr(shift)
                    .unwrap_or(0)
                    == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

impl core::str::FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        match text.split_once('/') {
            Some((address, prefix_len)) => {
                let address = address.parse().map_err(|_| NetworkError)?;
                let prefix_len = prefix_len.parse().map_err(|_| NetworkError)?;
                Self::new(address, prefix_len).ok_or(NetworkError)
            }
            None => text.parse().map(Self::host).map_err(|_| NetworkError),
        }
    }
}

/// Not an address block such as `198.18.0.0/15`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address or a CIDR block such as 198.18.0.0/15")]
pub struct NetworkError;

/// The IPv4 address inside an IPv4-mapped IPv6 address (`::ffff:a.b.c.d`), else the address itself.
///
/// RFC 5954 §4.2: IP literals compare by binary value; one form per address makes that `==`.
pub fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_holds_its_addresses_and_no_others() {
        let lab: Network = "198.18.0.0/15".parse().unwrap();
        assert!(lab.contains("198.19.255.255".parse().unwrap()));
        assert!(!lab.contains("198.20.0.0".parse().unwrap()));
        assert!(lab.contains("::ffff:198.18.0.1".parse().unwrap()));
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("8.8.8.8".parse().unwrap()));
        assert!(!all.contains("2001:db8::1".parse().unwrap()));
        let v6: Network = "2001:db8::/32".parse().unwrap();
        assert!(v6.contains("2001:db8:ffff::1".parse().unwrap()));
        assert!("198.18.0.0/33".parse::<Network>().is_err());
        assert_eq!(
            "10.1.2.3/8".parse::<Network>().unwrap().to_string(),
            "10.0.0.0/8"
        );
    }
}
