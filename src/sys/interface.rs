//! An interface by its name: its index and its MTU, in the network namespace of the caller.
#![expect(unsafe_code, reason = "no crate offers SIOCGIFMTU")]

use std::io;
use std::net::UdpSocket;
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

/// Any socket of the namespace will do.
fn socket() -> io::Result<UdpSocket> {
    UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::1]:0"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
