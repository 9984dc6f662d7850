//! What an interface's driver says of itself: its name, queues, rings, offloads and how it spreads
//! received packets over queues.
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
/// `ETHTOOL_GRINGPARAM`.
const GET_RINGS: u32 = 0x10;
/// `ETHTOOL_GSTRINGS`.
const GET_STRINGS: u32 = 0x1b;
/// `ETHTOOL_GRXFH`.
const GET_HASH_FIELDS: u32 = 0x29;
/// `ETHTOOL_GSSET_INFO`.
const GET_STRING_SETS: u32 = 0x37;
/// `ETHTOOL_GRXFHINDIR`.
const GET_INDIRECTION: u32 = 0x38;
/// `ETHTOOL_GFEATURES`.
const GET_FEATURES: u32 = 0x3a;
/// `SIOCETHTOOL` (linux/sockios.h).
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// `ETH_SS_FEATURES`: the string set with the names of offloads.
const FEATURE_NAMES: u32 = 4;
/// `ETH_GSTRING_LEN`.
const NAME_LEN: usize = 32;
/// Offloads that are looked at; Linux 6.18 has 64.
const FEATURES_MAX: usize = 256;
/// Entries of an indirection table that are looked at; the largest of today's drivers has 2,048.
const INDIRECTION_MAX: usize = 4096;
/// `UDP_V4_FLOW`.
const UDP_OVER_IPV4: u32 = 0x02;
/// `RXH_L4_B_0_1 | RXH_L4_B_2_3`: source and destination port.
const HASH_PORTS: u64 = 1 << 6 | 1 << 7;

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
struct ChannelsRequest {
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
const _: () = assert!(size_of::<ChannelsRequest>() == 36);

/// `struct ethtool_ringparam`.
#[derive(Default)]
#[repr(C)]
struct RingsRequest {
    command: u32,
    rx_max: u32,
    rx_mini_max: u32,
    rx_jumbo_max: u32,
    tx_max: u32,
    rx: u32,
    rx_mini: u32,
    rx_jumbo: u32,
    tx: u32,
}
const _: () = assert!(size_of::<RingsRequest>() == 36);

/// `struct ethtool_sset_info` with room for one set.
#[derive(Default)]
#[repr(C)]
struct StringSets {
    command: u32,
    reserved: u32,
    mask: u64,
    len: u32,
    padding: u32,
}
const _: () = assert!(size_of::<StringSets>() == 24);

/// `struct ethtool_gstrings` with room for [`FEATURES_MAX`] names.
#[repr(C)]
struct Strings {
    command: u32,
    set: u32,
    len: u32,
    names: [[u8; NAME_LEN]; FEATURES_MAX],
}
const _: () = assert!(size_of::<Strings>() == 12 + FEATURES_MAX * NAME_LEN);

/// `struct ethtool_get_features_block`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct FeatureBlock {
    available: u32,
    requested: u32,
    active: u32,
    never_changed: u32,
}

/// `struct ethtool_gfeatures` with room for [`FEATURES_MAX`] bits.
#[repr(C)]
struct Features {
    command: u32,
    len: u32,
    blocks: [FeatureBlock; FEATURES_MAX / 32],
}
const _: () = assert!(size_of::<Features>() == 8 + FEATURES_MAX / 32 * 16);

/// `struct ethtool_rxfh_indir` with room for [`INDIRECTION_MAX`] entries.
#[repr(C)]
struct Indirection {
    command: u32,
    len: u32,
    queues: [u32; INDIRECTION_MAX],
}
const _: () = assert!(size_of::<Indirection>() == 8 + INDIRECTION_MAX * 4);

/// The part of `struct ethtool_rxnfc` that `ETHTOOL_GRXFH` reads and writes.
#[derive(Default)]
#[repr(C)]
struct HashFields {
    command: u32,
    flow_type: u32,
    fields: u64,
}
const _: () = assert!(size_of::<HashFields>() == 16);

/// Queues of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channels {
    /// Receive queues in use: combined ones and those that only receive.
    pub receive: u32,
    /// Combined queues in use.
    pub combined: u32,
    /// Combined queues at most; 0 if the driver has none of that kind.
    pub combined_max: u32,
}

/// Lengths of an interface's rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rings {
    /// Receive descriptors of a queue.
    pub receive: u32,
    /// Receive descriptors at most.
    pub receive_max: u32,
}

/// An offload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    /// Whether it is on.
    pub on: bool,
    /// Whether it cannot be changed.
    pub fixed: bool,
}

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
    Ok(channels(interface)?.map_or(1, |channels| channels.receive.max(1)))
}

/// Queues in use and possible; `None` if the driver does not say.
///
/// # Errors
/// The kernel's: no such interface.
pub fn channels(interface: &str) -> io::Result<Option<Channels>> {
    let mut channels = ChannelsRequest {
        command: GET_CHANNELS,
        ..ChannelsRequest::default()
    };
    let said = if_supported(request(interface, &mut channels))?;
    Ok(said.map(|()| Channels {
        receive: channels.combined.saturating_add(channels.rx),
        combined: channels.combined,
        combined_max: channels.max_combined,
    }))
}

/// Lengths of the receive ring; `None` if the driver does not say.
///
/// # Errors
/// The kernel's: no such interface.
pub fn rings(interface: &str) -> io::Result<Option<Rings>> {
    let mut rings = RingsRequest {
        command: GET_RINGS,
        ..RingsRequest::default()
    };
    let said = if_supported(request(interface, &mut rings))?;
    Ok(said.map(|()| Rings {
        receive: rings.rx,
        receive_max: rings.rx_max,
    }))
}

/// Every offload by the kernel's name for it, as `rx-vlan-hw-parse`, `rx-lro`, `rx-gro-hw`.
///
/// # Errors
/// The kernel's: no such interface; `OutOfMemory` if it has more offloads than there is room for.
pub fn offloads(interface: &str) -> io::Result<Vec<(String, Offload)>> {
    let mut sets = StringSets {
        command: GET_STRING_SETS,
        mask: 1 << FEATURE_NAMES,
        ..StringSets::default()
    };
    request(interface, &mut sets)?;
    // ETHTOOL_GSTRINGS writes all names whatever room it is told of: asked only if they fit.
    let count = usize::try_from(sets.len).unwrap_or(usize::MAX);
    if count > FEATURES_MAX {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let mut strings = Box::new(Strings {
        command: GET_STRINGS,
        set: FEATURE_NAMES,
        len: sets.len,
        names: [[0; NAME_LEN]; FEATURES_MAX],
    });
    request(interface, strings.as_mut())?;
    let blocks = [FeatureBlock::default(); FEATURES_MAX / 32];
    let mut features = Features {
        command: GET_FEATURES,
        len: u32::try_from(blocks.len()).unwrap_or(0),
        blocks,
    };
    request(interface, &mut features)?;
    let offload = |(index, name): (usize, &[u8; NAME_LEN])| {
        let name = name.split(|byte| *byte == 0).next().unwrap_or(&[]);
        let (block, bit) = (features.blocks[index / 32], 1 << (index % 32));
        let offload = Offload {
            on: block.active & bit != 0,
            fixed: block.never_changed & bit != 0 || block.available & bit == 0,
        };
        (String::from_utf8_lossy(name).into_owned(), offload)
    };
    let names = strings.names.iter().enumerate().take(count);
    Ok(names
        .map(offload)
        .filter(|(name, _)| !name.is_empty())
        .collect())
}

/// Queues that the receive hash spreads packets over; `None` if the driver does not say.
///
/// # Errors
/// The kernel's: no such interface.
pub fn spread(interface: &str) -> io::Result<Option<usize>> {
    let mut table = Box::new(Indirection {
        command: GET_INDIRECTION,
        len: u32::try_from(INDIRECTION_MAX).unwrap_or(0),
        queues: [u32::MAX; INDIRECTION_MAX],
    });
    if if_supported(request(interface, table.as_mut()))?.is_none() {
        return Ok(None);
    }
    let len = usize::try_from(table.len).unwrap_or(0).min(INDIRECTION_MAX);
    let mut queues = table.queues[..len].to_vec();
    queues.sort_unstable();
    queues.dedup();
    Ok(Some(queues.len()))
}

/// Whether the receive hash looks at the ports of UDP over IPv4; `None` if the driver does not say.
///
/// # Errors
/// The kernel's: no such interface.
pub fn hashes_udp_ports(interface: &str) -> io::Result<Option<bool>> {
    let mut hash = HashFields {
        command: GET_HASH_FIELDS,
        flow_type: UDP_OVER_IPV4,
        ..HashFields::default()
    };
    let said = if_supported(request(interface, &mut hash))?;
    Ok(said.map(|()| hash.fields & HASH_PORTS == HASH_PORTS))
}

/// `None` where the driver does not implement a command.
fn if_supported(result: io::Result<()>) -> io::Result<Option<()>> {
    match result {
        Ok(()) => Ok(Some(())),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
            Ok(None)
        }
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
    fn loopback_has_a_queue_and_no_rings() {
        assert_eq!(receive_queues("lo").unwrap(), 1);
        assert_eq!(rings("lo").unwrap(), None);
        assert_eq!(spread("lo").unwrap(), None);
        assert!(rings("no-such-if0").is_err());
    }

    #[test]
    fn offloads_come_with_the_kernels_names() {
        let offloads = offloads("lo").unwrap();
        let of = |wanted: &str| {
            let found = offloads.iter().find(|(name, _)| name == wanted);
            found.map(|(_, offload)| *offload)
        };
        // NETIF_F_LOOPBACK is always on for the loopback device and nobody may change it.
        let loopback = of("loopback").unwrap();
        assert!(loopback.on && loopback.fixed, "{offloads:?}");
        assert!(of("rx-vlan-hw-parse").is_some() && of("rx-lro").is_some());
    }
}
