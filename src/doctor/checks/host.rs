//! Checks of the host: kernel, rights, memory, settings.

use super::{Case, Check, Level};

const SETCAP: &str = "setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock+ep \
                      \"$(command -v viaduct)\"";

/// `bpf_link` for XDP, which takes the program off when the process ends.
const KERNEL_MIN: (u32, u32) = (5, 9);
/// The oldest that the programs are written for.
const KERNEL_MEANT: (u32, u32) = (5, 15);

pub(super) fn kernel(case: &Case<'_>) -> Check {
    let release = &case.facts.release;
    let fix = "install a kernel of 5.15 or newer and boot it";
    match case.facts.version {
        Some(version) if version < KERNEL_MIN => Check::problem(
            "kernel",
            Level::Fail,
            format!("{release}: bpf_link for XDP is there since 5.9"),
            fix,
        )
        .falls("xdp -> socket"),
        Some(version) if version < KERNEL_MEANT => Check::problem(
            "kernel",
            Level::Warn,
            format!("{release}: viaduct is written for 5.15 and newer"),
            fix,
        ),
        _ => Check::ok("kernel", release),
    }
}

pub(super) fn programs(case: &Case<'_>) -> Check {
    let held = case.facts.capabilities;
    let (finding, fix) = match &case.facts.programs {
        Ok(true) => return Check::ok("bpf", "the kernel loads XDP programs"),
        // One problem, one line: that of the capabilities.
        _ if !held.bpf || !held.net_admin => {
            return Check::ok("bpf", "cannot be tried without the capabilities");
        }
        Ok(false) => (
            "the kernel loads no XDP programs".to_owned(),
            "boot a kernel with CONFIG_BPF_SYSCALL=y and CONFIG_NET=y",
        ),
        Err(error) => (
            format!("the bpf system call fails: {error}"),
            "boot a kernel with CONFIG_BPF_SYSCALL=y, outside of seccomp",
        ),
    };
    Check::problem("bpf", Level::Fail, finding, fix).falls("xdp -> socket")
}

pub(super) fn xsk(case: &Case<'_>) -> Check {
    match &case.facts.xsk {
        Ok(()) => Check::ok("af_xdp", "a socket can be made"),
        Err(_) if !case.facts.capabilities.net_raw => {
            Check::ok("af_xdp", "cannot be tried without the capabilities")
        }
        Err(error) => {
            let fix = "boot a kernel with CONFIG_XDP_SOCKETS=y";
            let finding = format!("no socket can be made: {error}");
            Check::problem("af_xdp", Level::Fail, finding, fix).falls("xdp -> socket")
        }
    }
}

pub(super) fn btf(case: &Case<'_>) -> Check {
    Check::ok(
        "btf",
        if case.facts.btf {
            "/sys/kernel/btf/vmlinux is there"
        } else {
            "none: viaduct needs none, xdpdump would"
        },
    )
}

pub(super) fn capabilities(case: &Case<'_>) -> Check {
    let held = case.facts.capabilities;
    let needed = [
        (held.net_admin, "CAP_NET_ADMIN"),
        (held.net_raw, "CAP_NET_RAW"),
        (held.bpf, "CAP_BPF"),
        (held.perfmon, "CAP_PERFMON"),
    ];
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(held, _)| !held)
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return Check::ok("capabilities", "NET_ADMIN NET_RAW BPF PERFMON");
    }
    let finding = format!("missing for this user: {}", missing.join(" "));
    Check::problem("capabilities", Level::Fail, finding, SETCAP).falls("xdp -> socket")
}

pub(super) fn memlock(case: &Case<'_>) -> Check {
    let mib = case.umem_len().div_ceil(1 << 20);
    if case.facts.capabilities.ipc_lock {
        return Check::ok(
            "memlock",
            format!("CAP_IPC_LOCK: no limit for the {mib} MiB UMEM"),
        );
    }
    match case.facts.memlock {
        Some(limit) if limit < case.umem_len() => Check::problem(
            "memlock",
            Level::Fail,
            format!("RLIMIT_MEMLOCK {} KiB, the UMEM is {mib} MiB", limit / 1024),
            "ulimit -l unlimited",
        )
        .falls("xdp -> socket"),
        _ => Check::ok("memlock", format!("enough for the {mib} MiB UMEM")),
    }
}

/// 2 MiB.
const HUGEPAGE_LEN: u64 = 2 << 20;

pub(super) fn hugepages(case: &Case<'_>) -> Check {
    if !case.wanted.hugepages {
        return Check::ok("hugepages", "not asked for: datapath.hugepages = false");
    }
    let wanted = case.umem_len().div_ceil(HUGEPAGE_LEN);
    let Some(pages) = case.facts.hugepages else {
        return Check::ok("hugepages", "the kernel has none of 2 MiB")
            .falls("hugepages -> normal pages");
    };
    if pages.free >= wanted {
        let finding = format!("{} free, the UMEM takes {wanted}", pages.free);
        return Check::ok("hugepages", finding);
    }
    let total = pages.total + (wanted - pages.free);
    Check::problem(
        "hugepages",
        Level::Warn,
        format!("{} free, the UMEM wants {wanted}", pages.free),
        format!("echo {total} > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"),
    )
    .falls("hugepages -> normal pages")
}

pub(super) fn reverse_path(case: &Case<'_>) -> Check {
    let Some(filter) = case.facts.reverse_path else {
        return Check::ok("rp_filter", "the kernel does not say");
    };
    // Documentation/networking/ip-sysctl.rst: the larger of `all` and the interface's counts.
    let counts = filter.all.max(filter.interface);
    if counts != 1 {
        return Check::ok("rp_filter", format!("{counts}: not strict"));
    }
    Check::problem(
        "rp_filter",
        Level::Warn,
        format!(
            "strict (all {}, {} {}): what the kernel takes (fragments, sockets) is dropped when \
             the way back leads through another interface",
            filter.all,
            case.name(),
            filter.interface,
        ),
        format!("sysctl -w net.ipv4.conf.{}.rp_filter=2", case.name()),
    )
}

pub(super) fn irqbalance(case: &Case<'_>) -> Check {
    if !case.facts.irqbalance {
        return Check::ok("irqbalance", "does not run");
    }
    if case.facts.cores < 2 {
        return Check::ok("irqbalance", "runs, and has one core to choose from");
    }
    Check::problem(
        "irqbalance",
        Level::Warn,
        "runs: it moves interrupts onto the cores of workers",
        "systemctl disable --now irqbalance",
    )
}

pub(super) fn busy_poll(case: &Case<'_>) -> Check {
    match case.facts.busy_poll {
        Some(micros @ 1..) => Check::problem(
            "busy_poll",
            Level::Warn,
            format!("net.core.busy_poll = {micros}: poll(2) of an idle worker spins in the kernel"),
            "sysctl -w net.core.busy_poll=0",
        ),
        Some(0) => Check::ok("busy_poll", "net.core.busy_poll = 0"),
        None => Check::ok("busy_poll", "the kernel has none"),
    }
}
