//! What an interface's driver says of itself: its name and its queues.
//!
//! `SIOCETHTOOL` (linux/ethtool.h) and not sysfs: sysfs shows the namespace it was mounted in, the
//! request asks the namespace of the caller.

#![allow(unsafe_code, reason = "an ioctl, documented at its place")]

use std::io;
use std::mem::size_of;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// `ETHTOOL_GDRVINFO`.
const GET_DRIVER_INFO: u32 = 0x03;
/// `ETHTOOL_GCHANNELS`.
const GET_CHANNELS: u32 = 0x3c;
/// `SIOCETHTOOL` (linux/sockios.h).
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware_version: [u8; 32],
    bus_info: [u8; 32],
    rom_version: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}
const _: () = assert!(size_of::<DriverInfo>() == 196);

/// `struct ethtool_channels`.
#[derive(Default)]
#[repr(C)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}
const _: () = assert!(size_of::<Channels>() == 36);

/// Name of the driver, as `veth`, `virtio_net`, `mlx5_core`.
///
/// # Errors
/// The kernel's: no such interface, or a driver that does not say.
pub fn driver(interface: &str) -> io::Result<String> {
    let mut info = DriverInfo {
        command: GET_DRIVER_INFO,
        driver: [0; 32],
        version: [0; 32],
        firmware_version: [0; 32],
        bus_info: [0; 32],
        rom_version: [0; 32],
        reserved: [0; 12],
        counts: [0; 5],
    };
    request(interface, &mut info)?;
    let name = info.driver.split(|byte| *byte == 0).next().unwrap_or(&[]);
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Receive queues in use. An interface whose driver does not say has one.
///
/// # Errors
/// The kernel's: no such interface.
pub fn receive_queues(interface: &str) -> io::Result<u32> {
    let mut channels = Channels {
        command: GET_CHANNELS,
        ..Channels::default()
    };
    match request(interface, &mut channels) {
        Ok(()) => Ok((channels.combined + channels.rx).max(1)),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(1),
        Err(error) => Err(error),
    }
}

/// Runs one ethtool command; `data` starts with its number.
fn request<T>(interface: &str, data: &mut T) -> io::Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    if interface.is_empty() || interface.len() >= name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: std::ptr::from_mut(data).cast(),
        },
    };
    // Any socket of the namespace will do.
    let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::1]:0"))?;
    // SAFETY: the descriptor is open; `request` is a whole `ifreq` whose data pointer is to a live,
    // exclusively borrowed structure of the size that its command writes (asserted above).
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        assert!(driver("no-such-if0").is_err());
        assert!(receive_queues("no-such-if0").is_err());
        assert!(driver("a-name-that-is-too-long").is_err());
        assert!(driver("").is_err());
    }

    #[test]
    fn loopback_has_a_queue() {
        assert_eq!(receive_queues("lo").unwrap(), 1);
    }
}
