//! The checks: facts in, lines out.

mod host;
mod interface;
mod queues;

use super::facts::{Facts, Wanted};
use super::report::{Check, Level, Report};
use crate::config::{Mode, ZeroCopy};
use crate::datapath::frame_count;
use crate::limits::FRAME_LEN;

/// A viaduct's program on an interface has this name (bpf/steer.bpf.c).
const OWN_PROGRAM: &str = "steer";

/// Loopback: AF_XDP does not reliably round-trip there, so it is always served through sockets.
const LOOPBACK: &str = "lo";

/// Looks at everything.
pub fn examine(facts: &Facts, wanted: &Wanted) -> Report {
    let case = Case { facts, wanted };
    let mut checks = vec![host::kernel(&case)];
    if wanted.mode == Mode::Socket {
        checks.push(Check::ok(
            "xdp",
            "not asked for: datapath.mode = \"socket\"",
        ));
    } else {
        let of_xdp = [
            host::programs,
            host::xsk,
            host::btf,
            host::capabilities,
            host::memlock,
            interface::listeners,
            interface::program,
            interface::native,
            interface::zero_copy,
            interface::mtu,
            interface::vlan,
            interface::lro,
            interface::gro_hw,
            queues::queues,
            queues::rings,
            queues::spread,
            queues::hash_fields,
            host::hugepages,
        ];
        checks.extend(of_xdp.iter().map(|check| check(&case)));
    }
    checks
        .extend([host::reverse_path, host::irqbalance, host::busy_poll].map(|check| check(&case)));
    Report {
        interface: facts.interface.clone(),
        datapath: case.datapath(&checks),
        checks,
    }
}

/// What a check looks at.
struct Case<'a> {
    facts: &'a Facts,
    wanted: &'a Wanted,
}

impl Case<'_> {
    /// Name of the interface, for commands.
    fn name(&self) -> &str {
        &self.facts.interface
    }

    fn driver(&self) -> &str {
        self.facts.driver.as_deref().unwrap_or("unknown")
    }

    /// Queues that packets come in by.
    fn queues(&self) -> u32 {
        self.facts
            .channels
            .map_or(1, |channels| channels.receive.max(1))
    }

    /// Workers of a viaduct with this interface alone.
    fn workers(&self) -> usize {
        let queues = usize::try_from(self.queues()).unwrap_or(usize::MAX);
        let by_default = queues.min(self.facts.cores);
        self.wanted.workers.unwrap_or(by_default).max(1)
    }

    /// Bytes of the UMEM of a viaduct with this interface alone.
    fn umem_len(&self) -> u64 {
        let queues = usize::try_from(self.queues()).unwrap_or(usize::MAX);
        let frames = frame_count(queues.min(crate::limits::QUEUES_MAX), self.workers());
        u64::try_from(frames.saturating_mul(FRAME_LEN)).unwrap_or(u64::MAX)
    }

    /// A key of the configuration to set, as an order.
    fn set(&self, key: &str, value: &str) -> String {
        match &self.wanted.file {
            Some(file) => format!("set {key} = {value} in {}", file.display()),
            None => format!("set {key} = {value} in the configuration"),
        }
    }

    /// Level of having to take generic XDP for native.
    fn without_native(&self) -> Level {
        match self.wanted.mode {
            Mode::Native => Level::Fail,
            _ => Level::Warn,
        }
    }

    /// What a start would get, as the metrics page names it.
    fn datapath(&self, checks: &[Check]) -> &'static str {
        let of = |name: &str| checks.iter().find(|check| check.name == name);
        let is_ok = |name: &str| of(name).is_none_or(|check| check.level == Level::Ok);
        let needed = [
            "kernel",
            "bpf",
            "af_xdp",
            "capabilities",
            "memlock",
            "program",
        ];
        let xdp = needed
            .iter()
            .all(|name| of(name).is_none_or(|check| check.level != Level::Fail))
            && self.facts.interface != LOOPBACK;
        let native = self.has_native() && !self.mtu_refuses_native() && is_ok("gro-hw");
        let zero_copy = native && self.has_zero_copy();
        match (self.wanted.mode, self.wanted.zero_copy) {
            (Mode::Socket, _) => "socket",
            (Mode::Auto, _) if !xdp => "socket",
            (Mode::Native, _) if !xdp || !native => "no start",
            (Mode::Generic, _) if !xdp => "no start",
            (Mode::Generic, ZeroCopy::Require) => "no start",
            (_, ZeroCopy::Require) if !zero_copy => match self.wanted.mode {
                Mode::Auto => "socket",
                _ => "no start",
            },
            (Mode::Generic, _) => "xdp-generic-copy",
            (_, ZeroCopy::Auto | ZeroCopy::Require) if zero_copy => "xdp-native-zero-copy",
            _ if native => "xdp-native-copy",
            _ => "xdp-generic-copy",
        }
    }
}
