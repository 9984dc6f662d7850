//! Checks of the interface: its driver's XDP, its MTU, its offloads.

use super::super::drivers;
use super::{Case, Check, LOOPBACK, Level, OWN_PROGRAM};
use crate::config::{Listener, Mode, ZeroCopy};
use crate::limits::RX_FRAME_LEN_MAX;

/// Largest MTU at which every driver takes a program that wants a packet in one piece. ena has the
/// smallest limit known, 3,498; veth's peer has 3,506.
const MTU_NATIVE_MAX: u32 = 3498;

/// Ethernet header and two VLAN tags.
const L2_LEN: usize = 14 + 8;

/// Largest MTU whose frames all fit a chunk of the UMEM.
const MTU_FRAME_MAX: u32 = {
    let max = RX_FRAME_LEN_MAX - L2_LEN;
    assert!(max < MTU_NATIVE_MAX as usize);
    #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
    let max = max as u32;
    max
};

impl Case<'_> {
    /// Native XDP with `XDP_REDIRECT`: by the kernel's word, else by the table.
    pub(super) fn has_native(&self) -> bool {
        match self.facts.xdp.driver {
            Some(driver) => driver.native && driver.redirect,
            None => drivers::find(self.driver()).is_some_and(|driver| driver.native),
        }
    }

    /// Zero-copy AF_XDP: by the kernel's word, else by the table.
    pub(super) fn has_zero_copy(&self) -> bool {
        match self.facts.xdp.driver {
            Some(driver) => driver.zero_copy,
            None => drivers::find(self.driver()).is_some_and(|driver| driver.zero_copy),
        }
    }

    pub(super) fn mtu_refuses_native(&self) -> bool {
        self.facts.mtu > MTU_NATIVE_MAX
    }

    /// Who says what the driver can.
    fn source(&self) -> &'static str {
        match self.facts.xdp.driver {
            Some(_) => "by the kernel's word",
            None => "by the table: the kernel does not say before 6.3",
        }
    }

    /// Whether an offload is on, and whether it can be turned off.
    fn offload(&self, name: &str) -> Option<crate::sys::ethtool::Offload> {
        let mut offloads = self.facts.offloads.iter();
        let found = offloads.find(|(of, _)| of == name);
        found
            .map(|(_, offload)| *offload)
            .filter(|offload| offload.on)
    }
}

pub(super) fn listeners(case: &Case<'_>) -> Check {
    let Some(first) = case.wanted.listeners.first() else {
        return Check::ok("listeners", "not looked at without --config");
    };
    let here = |listener: &&Listener| {
        listener.interface.as_deref() == Some(case.name())
            || case.facts.addresses.contains(&listener.address.ip())
    };
    let all = case.wanted.listeners.iter();
    let names: Vec<&str> = all.filter(here).map(|listener| &*listener.name).collect();
    if !names.is_empty() {
        return Check::ok(
            "listeners",
            format!("on this interface: {}", names.join(", ")),
        );
    }
    let ip = first.address.ip();
    let prefix = if ip.is_ipv4() { 32 } else { 128 };
    Check::problem(
        "listeners",
        Level::Warn,
        "no listener of the configuration is on this interface: XDP would not be put here",
        format!("ip address add {ip}/{prefix} dev {}", case.name()),
    )
}

pub(super) fn program(case: &Case<'_>) -> Check {
    let Some(program) = &case.facts.xdp.program else {
        return Check::ok("program", "no XDP program is attached");
    };
    if program.name.as_deref() == Some(OWN_PROGRAM) {
        return Check::ok("program", format!("a viaduct serves here: {program}"));
    }
    let (name, mode) = (case.name(), program.mode);
    let fix = match (program.link, mode) {
        // What a link holds only the link's end takes off.
        (Some(link), _) => format!("bpftool link detach id {link}"),
        (None, "generic") => format!("ip link set dev {name} xdpgeneric off"),
        (None, "native") => format!("ip link set dev {name} xdpdrv off"),
        (None, "offloaded") => format!("ip link set dev {name} xdpoffload off"),
        (None, _) => format!("ip link set dev {name} xdp off"),
    };
    let finding = format!("another XDP program is attached: {program}");
    Check::problem("program", Level::Fail, finding, fix).falls("xdp -> socket")
}

pub(super) fn native(case: &Case<'_>) -> Check {
    let driver = case.driver();
    if case.name() == LOOPBACK {
        return Check::problem(
            "native",
            Level::Fail,
            "loopback is served through sockets only",
            case.set("datapath.mode", "\"socket\""),
        )
        .falls("xdp -> socket");
    }
    if case.has_native() {
        let finding = format!("driver {driver} has native XDP, {}", case.source());
        return Check::ok("native", finding);
    }
    let finding = format!("driver {driver} has no native XDP, {}", case.source());
    if case.wanted.mode == Mode::Generic {
        return Check::ok("native", format!("{finding}; generic is asked for"));
    }
    // Nothing mends a driver: say that generic is meant, and this line is content.
    let fix = case.set("datapath.mode", "\"generic\"");
    Check::problem("native", case.without_native(), finding, fix).falls("native -> generic")
}

pub(super) fn zero_copy(case: &Case<'_>) -> Check {
    let driver = case.driver();
    if case.wanted.zero_copy == ZeroCopy::Off {
        return Check::ok("zero-copy", "not asked for: datapath.zero_copy = \"off\"");
    }
    let finding = match (case.wanted.mode, case.has_zero_copy() && case.has_native()) {
        (Mode::Generic, _) => "generic XDP has none".to_owned(),
        (_, true) => {
            let finding = format!("driver {driver} has it, {}", case.source());
            return Check::ok("zero-copy", finding).falls("copy if a bind is refused");
        }
        (_, false) => format!("driver {driver} has none, {}", case.source()),
    };
    if case.wanted.zero_copy == ZeroCopy::Require {
        let fix = case.set("datapath.zero_copy", "\"auto\"");
        return Check::problem("zero-copy", Level::Fail, finding, fix);
    }
    Check::ok("zero-copy", finding).falls("zero-copy -> copy")
}

pub(super) fn mtu(case: &Case<'_>) -> Check {
    let mtu = case.facts.mtu;
    let fix = format!("ip link set dev {} mtu 1500", case.name());
    if case.mtu_refuses_native() && case.wanted.mode != Mode::Generic {
        let finding = format!("{mtu}: drivers refuse native XDP above about {MTU_NATIVE_MAX}");
        return Check::problem("mtu", case.without_native(), finding, fix)
            .falls("native -> generic");
    }
    if mtu > MTU_FRAME_MAX {
        let finding = format!("{mtu}: frames of more than {RX_FRAME_LEN_MAX} bytes do not fit");
        return Check::problem("mtu", Level::Warn, finding, fix)
            .falls("longer frames: xdp -> kernel socket");
    }
    Check::ok(
        "mtu",
        format!("{mtu}: every frame fits ({MTU_FRAME_MAX} at most)"),
    )
}

pub(super) fn vlan(case: &Case<'_>) -> Check {
    let Some(offload) = case.offload("rx-vlan-hw-parse") else {
        return Check::ok("rx-vlan", "off: XDP sees VLAN tags");
    };
    if case.facts.vlans.is_empty() {
        return Check::ok("rx-vlan", "on, and there is no VLAN on this interface");
    }
    let finding = format!(
        "on: the driver may hide VLAN tags from XDP, and {} is on this interface",
        case.facts.vlans.join(", ")
    );
    let fix = if offload.fixed {
        format!("ip link del {}", case.facts.vlans[0])
    } else {
        format!("ethtool -K {} rxvlan off", case.name())
    };
    Check::problem("rx-vlan", Level::Warn, finding, fix)
}

pub(super) fn lro(case: &Case<'_>) -> Check {
    match case.offload("rx-lro") {
        None => Check::ok("lro", "off"),
        Some(_) => Check::problem(
            "lro",
            Level::Warn,
            "on: drivers refuse native XDP, or turn it off",
            format!("ethtool -K {} lro off", case.name()),
        ),
    }
}

pub(super) fn gro_hw(case: &Case<'_>) -> Check {
    match case.offload("rx-gro-hw") {
        None => Check::ok("gro-hw", "off"),
        Some(offload) if !offload.fixed => Check::problem(
            "gro-hw",
            Level::Warn,
            "on: packets come to XDP merged, or the driver refuses native XDP",
            format!("ethtool -K {} rx-gro-hw off", case.name()),
        )
        .falls("native -> generic"),
        // virtnet_xdp_set: "Can't set XDP while host is implementing GRO_HW/CSUM".
        Some(_) => Check::problem(
            "gro-hw",
            case.without_native(),
            "on and fixed: the host of this machine does it, and the driver refuses native XDP",
            "start the virtual machine with guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off",
        )
        .falls("native -> generic"),
    }
}
