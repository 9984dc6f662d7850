//! Looking: every fact from the kernel's own mouth, in the network namespace of the caller.
//!
//! sysfs shows the namespace it was mounted in, so nothing about the interface is read there.

use std::fs;
use std::io;
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::facts::{Capabilities, Facts, Hugepages, ReversePath};
use crate::bpf::{interface_xdp, loads_xdp_programs};
use crate::sys::{cpu, ethtool, interface, kernel};

/// Looks at `name` and at the host.
///
/// # Errors
/// There is no such interface, or the kernel refuses to speak of it.
pub fn gather(name: &str) -> io::Result<Facts> {
    let ifindex = interface::index(name)?;
    let release = kernel::release();
    Ok(Facts {
        interface: name.to_owned(),
        driver: ethtool::driver(name).ok().filter(|name| !name.is_empty()),
        mtu: interface::mtu(name)?,
        addresses: interface::addresses(name)?,
        channels: ethtool::channels(name)?,
        rings: ethtool::rings(name)?,
        offloads: ethtool::offloads(name).unwrap_or_default(),
        spread: ethtool::spread(name).ok().flatten(),
        hashes_udp_ports: ethtool::hashes_udp_ports(name).ok().flatten(),
        vlans: vlans_on(
            name,
            &read("/proc/thread-self/net/vlan/config").unwrap_or_default(),
        ),
        xdp: interface_xdp(ifindex)?,
        version: kernel::version_of(&release),
        release,
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        xsk: xsk_socket().map_err(|error| error.to_string()),
        programs: loads_xdp_programs().map_err(|error| error.to_string()),
        capabilities: effective(),
        memlock: getrlimit(Resource::Memlock).current,
        reverse_path: reverse_path(name),
        irqbalance: runs("irqbalance"),
        hugepages: hugepages(),
        busy_poll: number("/proc/sys/net/core/busy_poll"),
        cores: cpu::cores().len().max(1),
    })
}

fn read(file: &str) -> Option<String> {
    fs::read_to_string(file).ok()
}

fn number<N: std::str::FromStr>(file: &str) -> Option<N> {
    read(file)?.trim().parse().ok()
}

/// Makes an AF_XDP socket and closes it: the only way to know that it can be made.
fn xsk_socket() -> io::Result<()> {
    let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
    rustix::net::socket_with(AddressFamily::XDP, kind, flags, None)?;
    Ok(())
}

fn effective() -> Capabilities {
    let sets = capabilities(None).map(|sets| sets.effective);
    let held = sets.unwrap_or(CapabilitySet::empty());
    // CAP_SYS_ADMIN stands for what was split off from it in 5.8.
    let has = |set| held.contains(set);
    let admin = has(CapabilitySet::SYS_ADMIN);
    Capabilities {
        net_admin: has(CapabilitySet::NET_ADMIN),
        net_raw: has(CapabilitySet::NET_RAW),
        bpf: admin || has(CapabilitySet::BPF),
        perfmon: admin || has(CapabilitySet::PERFMON),
        ipc_lock: has(CapabilitySet::IPC_LOCK),
    }
}

/// /proc/sys/net is that of the reader's namespace, unlike sysfs.
fn reverse_path(name: &str) -> Option<ReversePath> {
    let of = |what: &str| number(&format!("/proc/sys/net/ipv4/conf/{what}/rp_filter"));
    Some(ReversePath {
        all: of("all")?,
        interface: of(name)?,
    })
}

/// Whether a process of this name runs.
fn runs(name: &str) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes
        .filter_map(Result::ok)
        .filter_map(|process| fs::read_to_string(process.path().join("comm")).ok())
        .any(|comm| comm.trim_end() == name)
}

/// VLAN interfaces on `parent`; rows are `eth0.5  | 5  | eth0`.
fn vlans_on(parent: &str, config: &str) -> Vec<String> {
    let row = |line: &str| {
        let mut fields = line.split('|').map(str::trim);
        let (name, _, on) = (fields.next()?, fields.next()?, fields.next()?);
        (on == parent).then(|| name.to_owned())
    };
    config.lines().filter_map(row).collect()
}

/// Of the size that the UMEM asks for, which need not be the default size. No network here: sysfs
/// will do.
fn hugepages() -> Option<Hugepages> {
    let of = |what: &str| number(&format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{what}"));
    Some(Hugepages {
        free: of("free_hugepages")?,
        total: of("nr_hugepages")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlan_interfaces_are_found_by_their_parent() {
        let config = "VLAN Dev name | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                      eth0.5         | 5  | eth0\neth1.5 | 5 | eth1\n";
        assert_eq!(vlans_on("eth0", config), ["eth0.5"]);
        assert!(vlans_on("eth2", config).is_empty());
    }

    #[test]
    fn loopback_can_be_looked_at_without_rights() {
        let facts = gather("lo").unwrap();
        assert_eq!(facts.interface, "lo");
        assert!(facts.mtu >= 1280 && facts.version.is_some());
        assert!(gather("no-such-if0").is_err());
    }
}
