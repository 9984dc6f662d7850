//! Twins of what `bpf/consts.h` and `bpf/structs.h` declare.
//!
//! Sizes and offsets are asserted on both sides with the same numbers; the loader compares the sizes
//! with the maps it has loaded. Keys are built as bytes here and nowhere else.

use core::mem::{offset_of, size_of};

use super::limit::BucketSizes;
use crate::net::{IpAddr, ListenerIndex, Network, SocketAddr, canonical};

/// `FAMILY_IPV4`, `FAMILY_IPV6`.
const FAMILY_IPV4: u32 = 4;
const FAMILY_IPV6: u32 = 6;

/// `SOURCE_KEY_FIXED_BITS`: the bits of `list` and `family` in front of the address.
const SOURCE_KEY_FIXED_BITS: u32 = 64;

macro_rules! steer_verdicts {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// What the steering program did with a frame: `enum steer_verdict`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum SteerVerdict { $($(#[$doc])* $name,)* }

        impl SteerVerdict {
            /// Every verdict, in the order of its counter.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// How many verdicts there are: `VERDICT_COUNT`.
            pub const COUNT: usize = Self::ALL.len();

            /// The metric label.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

steer_verdicts! {
    /// Given to the AF_XDP socket of a worker.
    Redirected = "redirected",
    /// The same; without the dry run it were [`RateLimited`](Self::RateLimited).
    RateLimitedDry = "rate_limited_dry",
    /// The same; without the dry run it were [`StrangersLimited`](Self::StrangersLimited).
    StrangersLimitedDry = "strangers_limited_dry",
    /// Passed to the kernel: the kill switch is off.
    Disabled = "disabled",
    /// Passed: the frame ends inside its headers.
    Truncated = "truncated",
    /// Passed: neither IPv4 nor IPv6 under at most two VLAN tags.
    NotIp = "not_ip",
    /// Passed: IPv4 options, an IPv6 extension header, or a version that is neither.
    IpOptions = "ip_options",
    /// Passed: a fragment, which the kernel reassembles.
    Fragment = "fragment",
    /// Passed: TCP, ICMP and other protocols.
    NotUdp = "not_udp",
    /// Passed: UDP to an address and port that no listener has.
    NotVip = "not_vip",
    /// Passed: longer than a UMEM chunk takes.
    TooLong = "too_long",
    /// Passed: no socket in the slot of the interface, queue and worker.
    NoSocket = "no_socket",
    /// Dropped: the source is on the listener's deny list.
    Denied = "denied",
    /// Dropped: the listener has an allow list and the source is not on it.
    NotAllowed = "not_allowed",
    /// Dropped: the source sends more than one source may.
    RateLimited = "rate_limited",
    /// Dropped: the source is a stranger, and strangers together send more than they may.
    StrangersLimited = "strangers_limited",
}

/// What the program returns for a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// `XDP_ABORTED`: the program failed. Ours never says so.
    Aborted = 0,
    /// `XDP_DROP`.
    Drop = 1,
    /// `XDP_PASS`: the kernel stack gets the frame.
    Pass = 2,
    /// `XDP_TX`: never used.
    Transmit = 3,
    /// `XDP_REDIRECT`: a socket gets the frame.
    Redirect = 4,
}

impl Action {
    /// From the number that the program returned.
    pub(super) const fn from_u32(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Aborted,
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Transmit,
            4 => Self::Redirect,
            _ => return None,
        })
    }
}

impl SteerVerdict {
    /// The action that goes with the verdict.
    pub const fn action(self) -> Action {
        match self {
            Self::Redirected | Self::RateLimitedDry | Self::StrangersLimitedDry => Action::Redirect,
            Self::Denied | Self::NotAllowed | Self::RateLimited | Self::StrangersLimited => {
                Action::Drop
            }
            _ => Action::Pass,
        }
    }
}

/// `struct address` with its family beside it, as both keys have it.
fn address_bytes(address: IpAddr) -> ([u8; 16], u32) {
    match canonical(address) {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            (bytes, FAMILY_IPV4)
        }
        IpAddr::V6(v6) => (v6.octets(), FAMILY_IPV6),
    }
}

/// `struct vip_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub(super) struct VipKey {
    address: [u8; 16],
    family: u32,
    port: u32,
}

const _: () = assert!(size_of::<VipKey>() == 24);
const _: () = assert!(offset_of!(VipKey, family) == 16);
const _: () = assert!(offset_of!(VipKey, port) == 20);

impl VipKey {
    pub(super) fn new(address: SocketAddr) -> Self {
        let (bytes, family) = address_bytes(address.ip());
        Self {
            address: bytes,
            family,
            port: u32::from(address.port().to_be()),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..16].copy_from_slice(&self.address);
        bytes[16..20].copy_from_slice(&self.family.to_ne_bytes());
        bytes[20..].copy_from_slice(&self.port.to_ne_bytes());
        bytes
    }
}

/// `VIP_LIMITED`, `VIP_LIMIT_DRY_RUN`.
const VIP_LIMITED: u16 = 1;
const VIP_LIMIT_DRY_RUN: u16 = 2;

/// Numbers of a VIP's source lists, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ListNumbers {
    pub(super) deny: u32,
    pub(super) allow: u32,
    pub(super) exempt: u32,
}

/// `struct vip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct VipValue {
    listener: u16,
    flags: u16,
    deny: u32,
    allow: u32,
    exempt: u32,
    interval: u64,
    tolerance: u64,
    strangers_interval: u64,
    strangers_tolerance: u64,
}

const _: () = assert!(size_of::<VipValue>() == 48);
const _: () = assert!(offset_of!(VipValue, deny) == 4);
const _: () = assert!(offset_of!(VipValue, allow) == 8);
const _: () = assert!(offset_of!(VipValue, exempt) == 12);
const _: () = assert!(offset_of!(VipValue, interval) == 16);
const _: () = assert!(offset_of!(VipValue, tolerance) == 24);
const _: () = assert!(offset_of!(VipValue, strangers_interval) == 32);
const _: () = assert!(offset_of!(VipValue, strangers_tolerance) == 40);

impl VipValue {
    /// Lists are numbers from `sources`; without `limit` everything passes.
    pub(super) fn new(
        listener: ListenerIndex,
        lists: ListNumbers,
        limit: Option<BucketSizes>,
    ) -> Self {
        let mut flags = 0;
        if let Some(limit) = &limit {
            flags |= VIP_LIMITED;
            if limit.dry_run {
                flags |= VIP_LIMIT_DRY_RUN;
            }
        }
        let sizes = limit.unwrap_or_default();
        Self {
            listener: u16::from(listener.0),
            flags,
            deny: lists.deny,
            allow: lists.allow,
            exempt: lists.exempt,
            interval: sizes.interval,
            tolerance: sizes.tolerance,
            strangers_interval: sizes.strangers_interval,
            strangers_tolerance: sizes.strangers_tolerance,
        }
    }

    pub(super) fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..2].copy_from_slice(&self.listener.to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.deny.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.allow.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.exempt.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.interval.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.tolerance.to_ne_bytes());
        bytes[32..40].copy_from_slice(&self.strangers_interval.to_ne_bytes());
        bytes[40..].copy_from_slice(&self.strangers_tolerance.to_ne_bytes());
        bytes
    }
}

/// `struct bucket_key`: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct BucketKey {
    family: u32,
    prefix: [u8; 8],
}

const _: () = assert!(size_of::<BucketKey>() == 12);
const _: () = assert!(offset_of!(BucketKey, prefix) == 4);

impl BucketKey {
    pub(super) fn new(source: IpAddr) -> Self {
        let (address, family) = address_bytes(source);
        let mut prefix = [0; 8];
        prefix.copy_from_slice(&address[..8]);
        Self { family, prefix }
    }

    pub(super) fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..4].copy_from_slice(&self.family.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.prefix);
        bytes
    }
}

/// Bytes of `struct refused`: the family, then the address.
pub(super) const REFUSED_LEN: usize = 20;

/// The source in a `struct refused`; `None` if there was none.
pub(super) fn refused_source(bytes: &[u8]) -> Option<IpAddr> {
    let (family, address) = bytes.split_first_chunk::<4>()?;
    match u32::from_ne_bytes(*family) {
        FAMILY_IPV4 => address.first_chunk::<4>().map(|octets| (*octets).into()),
        FAMILY_IPV6 => address.first_chunk::<16>().map(|octets| (*octets).into()),
        _ => None,
    }
}

/// `struct source_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct SourceKey {
    prefix_len: u32,
    list: u32,
    family: u32,
    address: [u8; 16],
}

const _: () = assert!(size_of::<SourceKey>() == 28);
const _: () = assert!(offset_of!(SourceKey, list) == 4);
const _: () = assert!(offset_of!(SourceKey, family) == 8);
const _: () = assert!(offset_of!(SourceKey, address) == 12);

impl SourceKey {
    pub(super) fn new(list: u32, network: &Network) -> Self {
        let (address, family) = address_bytes(network.address());
        Self {
            prefix_len: SOURCE_KEY_FIXED_BITS + u32::from(network.prefix_len()),
            list,
            family,
            address,
        }
    }

    pub(super) fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..4].copy_from_slice(&self.prefix_len.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.list.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.family.to_ne_bytes());
        bytes[12..].copy_from_slice(&self.address);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSTS: &str = include_str!("../../bpf/consts.h");
    const STRUCTS: &str = include_str!("../../bpf/structs.h");

    /// Value of `#define name value`.
    fn define(text: &str, name: &str) -> u32 {
        let value = text
            .lines()
            .filter_map(|line| line.strip_prefix("#define "))
            .find_map(|rest| rest.strip_prefix(name)?.strip_prefix(' '))
            .unwrap();
        value.trim().parse().unwrap()
    }

    #[test]
    fn constants_equal_the_header() {
        assert_eq!(define(CONSTS, "FAMILY_IPV4"), FAMILY_IPV4);
        assert_eq!(define(CONSTS, "FAMILY_IPV6"), FAMILY_IPV6);
        assert_eq!(
            define(STRUCTS, "SOURCE_KEY_FIXED_BITS"),
            SOURCE_KEY_FIXED_BITS
        );
        assert_eq!(
            define(CONSTS, "INTERFACES_MAX") as usize,
            crate::limits::INTERFACES_MAX
        );
        assert_eq!(define(CONSTS, "VIP_LIMITED"), u32::from(VIP_LIMITED));
        assert_eq!(
            define(CONSTS, "VIP_LIMIT_DRY_RUN"),
            u32::from(VIP_LIMIT_DRY_RUN)
        );
    }

    #[test]
    fn verdicts_equal_the_header_in_name_and_order() {
        let in_header: Vec<String> = CONSTS
            .lines()
            .filter_map(|line| line.strip_prefix("\tVERDICT_"))
            .map(|rest| rest.trim_end_matches([',', ' ', '0', '=']).to_lowercase())
            .collect();
        let mut here: Vec<String> = SteerVerdict::ALL
            .iter()
            .map(|verdict| verdict.as_str().to_owned())
            .collect();
        here.push("count".to_owned());
        assert_eq!(in_header, here);
    }

    #[test]
    fn the_order_of_verdicts_is_redirected_passed_dropped() {
        for verdict in SteerVerdict::ALL {
            let action = match *verdict as u32 {
                number if number < SteerVerdict::Disabled as u32 => Action::Redirect,
                number if number < SteerVerdict::Denied as u32 => Action::Pass,
                _ => Action::Drop,
            };
            assert_eq!(action, verdict.action(), "{verdict:?}");
        }
    }

    #[test]
    fn a_vip_without_limit_has_no_flag_and_no_rate() {
        let lists = ListNumbers {
            deny: 1,
            allow: 2,
            exempt: 3,
        };
        let bytes = VipValue::new(ListenerIndex(7), lists, None).to_bytes();
        assert_eq!(bytes[..2], 7_u16.to_ne_bytes());
        assert_eq!(bytes[2..4], [0, 0]);
        assert_eq!(bytes[12..16], 3_u32.to_ne_bytes());
        assert_eq!(bytes[16..], [0; 32]);

        let sizes = BucketSizes {
            interval: 4,
            tolerance: 5,
            strangers_interval: 6,
            strangers_tolerance: 7,
            dry_run: true,
        };
        let bytes = VipValue::new(ListenerIndex(7), lists, Some(sizes)).to_bytes();
        assert_eq!(bytes[2..4], 3_u16.to_ne_bytes());
        let words: Vec<u64> = bytes[16..]
            .as_chunks::<8>()
            .0
            .iter()
            .map(|word| u64::from_ne_bytes(*word))
            .collect();
        assert_eq!(words, [4, 5, 6, 7]);
    }

    #[test]
    fn a_refused_source_is_an_address_or_nobody() {
        let of = |text: &str| {
            let (address, family) = address_bytes(text.parse().unwrap());
            let bytes = [&family.to_ne_bytes()[..], &address].concat();
            assert_eq!(bytes.len(), REFUSED_LEN);
            refused_source(&bytes).unwrap().to_string()
        };
        assert_eq!(of("198.18.0.2"), "198.18.0.2");
        assert_eq!(of("2001:db8::2"), "2001:db8::2");
        assert_eq!(refused_source(&[0; REFUSED_LEN]), None);
        assert_eq!(refused_source(&[]), None);
    }

    #[test]
    fn a_bucket_is_an_ipv4_address_or_half_an_ipv6_address() {
        let key = |text: &str| BucketKey::new(text.parse().unwrap()).to_bytes();
        assert_eq!(key("198.18.0.2"), key("::ffff:198.18.0.2"));
        assert_ne!(key("198.18.0.2"), key("198.18.0.3"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:0:0:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        // The /64 whose octets are those of an IPv4 address is not that address.
        assert_ne!(key("198.18.0.2"), key("c612:2::1"));
        assert_eq!(key("198.18.0.2")[4..], [198, 18, 0, 2, 0, 0, 0, 0]);
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        let plain = VipKey::new("198.18.0.1:5060".parse().unwrap());
        let mapped = VipKey::new("[::ffff:198.18.0.1]:5060".parse().unwrap());
        assert_eq!(plain, mapped);
        let bytes = plain.to_bytes();
        assert_eq!(bytes[..5], [198, 18, 0, 1, 0]);
        assert_eq!(bytes[20..22], [0x13, 0xc4]);
    }
}
