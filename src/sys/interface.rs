//! An interface by its name: its index, MTU and addresses, in the network namespace of the caller.
#![expect(unsafe_code, reason = "no crate offers SIOCGIFMTU and getifaddrs(3)")]

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;

/// The index of an interface.
///
/// # Errors
/// The kernel's: no such interface.
pub fn index(name: &str) -> io::Result<u32> {
    Ok(rustix::net::netdevice::name_to_index(socket()?, name)?)
}

/// The MTU of an interface in bytes.
///
/// # Errors
/// The kernel's: no such interface.
pub fn mtu(name: &str) -> io::Result<u32> {
    let mut ifr_name = [0; libc::IFNAMSIZ];
    if name.is_empty() || name.len() >= ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let mut request = libc::ifreq {
        ifr_name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_mtu: 0 },
    };
    let socket = socket()?;
    // SAFETY: the descriptor is open; the kernel reads the name of a whole `ifreq` of ours and
    // writes its `ifru_mtu`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just written this member; any bits are an integer.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(u32::try_from(mtu).unwrap_or(0))
}

/// The addresses of an interface; none if there is no such interface.
///
/// # Errors
/// The kernel's.
pub fn addresses(name: &str) -> io::Result<Vec<IpAddr>> {
    let list = Addresses::read()?;
    let mut found = Vec::new();
    let mut next = list.0;
    // SAFETY: a list of getifaddrs(3) that lives until `list` is dropped; its entries are linked by
    // `ifa_next` and the last has none.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        if entry.ifa_addr.is_null() || entry.ifa_name.is_null() {
            continue;
        }
        // SAFETY: not null, so the entry's name, which getifaddrs(3) ends with a NUL.
        let of = unsafe { CStr::from_ptr(entry.ifa_name) };
        if of.to_bytes() != name.as_bytes() {
            continue;
        }
        // SAFETY: not null, so a socket address whose family says how long it is.
        let family = unsafe { (*entry.ifa_addr).sa_family };
        match i32::from(family) {
            libc::AF_INET => {
                // SAFETY: of this family, so a whole `sockaddr_in`.
                let address =
                    unsafe { entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned() };
                let bits = u32::from_be(address.sin_addr.s_addr);
                found.push(IpAddr::V4(Ipv4Addr::from_bits(bits)));
            }
            libc::AF_INET6 => {
                // SAFETY: of this family, so a whole `sockaddr_in6`.
                let address =
                    unsafe { entry.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
                found.push(IpAddr::V6(Ipv6Addr::from(address.sin6_addr.s6_addr)));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// A list of getifaddrs(3), freed when dropped.
struct Addresses(*mut libc::ifaddrs);

impl Addresses {
    fn read() -> io::Result<Self> {
        let mut list = std::ptr::null_mut();
        // SAFETY: writes one pointer to ours.
        if unsafe { libc::getifaddrs(&raw mut list) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(list))
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        // SAFETY: a list of getifaddrs(3) that nobody else frees and nobody looks at any more.
        unsafe { libc::freeifaddrs(self.0) };
    }
}

/// Any socket of the namespace will do.
fn socket() -> io::Result<UdpSocket> {
    UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::1]:0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_its_address_and_the_unknown_none() {
        let here = addresses("lo").unwrap();
        assert!(here.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{here:?}");
        assert!(addresses("no-such-if0").unwrap().is_empty());
    }

    #[test]
    fn loopback_has_an_index_and_an_mtu_and_the_unknown_have_none() {
        assert_eq!(index("lo").unwrap(), 1);
        assert!(mtu("lo").unwrap() >= 1280);
        for name in ["no-such-if0", "", "a-name-that-is-too-long"] {
            assert!(index(name).is_err(), "{name}");
            assert!(mtu(name).is_err(), "{name}");
        }
    }
}
