//! Tables over facts: each check on both sides of its limit.

use super::facts::{Capabilities, Facts, Hugepages, ReversePath, Wanted};
use super::report::{Check, Level, Report};
use super::{examine, facts};
use crate::bpf::{AttachedProgram, DriverXdp, InterfaceXdp};
use crate::config::{Mode, ZeroCopy};
use crate::sys::ethtool::{Channels, Offload, Rings};

/// A server with a card that has everything.
fn fit() -> Facts {
    Facts {
        interface: "eth0".to_owned(),
        driver: Some("ice".to_owned()),
        mtu: 1500,
        addresses: vec!["198.18.0.1".parse().unwrap()],
        channels: Some(Channels {
            receive: 4,
            combined: 4,
            combined_max: 16,
        }),
        rings: Some(Rings {
            receive: 2048,
            receive_max: 4096,
        }),
        offloads: vec![],
        spread: Some(4),
        hashes_udp_ports: Some(true),
        vlans: vec![],
        xdp: InterfaceXdp {
            program: None,
            driver: Some(DriverXdp {
                native: true,
                redirect: true,
                zero_copy: true,
            }),
        },
        release: "6.18.0".to_owned(),
        version: Some((6, 18)),
        btf: true,
        xsk: Ok(()),
        programs: Ok(true),
        capabilities: Capabilities {
            net_admin: true,
            net_raw: true,
            bpf: true,
            perfmon: true,
            ipc_lock: true,
        },
        memlock: Some(8 << 20),
        reverse_path: Some(ReversePath {
            all: 0,
            interface: 2,
        }),
        irqbalance: false,
        hugepages: Some(Hugepages {
            free: 1000,
            total: 1000,
        }),
        busy_poll: Some(0),
        cores: 8,
    }
}

fn with(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = fit();
    change(&mut facts);
    facts
}

fn wanted(change: impl FnOnce(&mut Wanted)) -> Wanted {
    let mut wanted = Wanted {
        file: Some("/etc/v.toml".into()),
        ..Wanted::default()
    };
    change(&mut wanted);
    wanted
}

fn check<'r>(report: &'r Report, name: &str) -> &'r Check {
    let found = report.checks.iter().find(|check| check.name == name);
    found.unwrap_or_else(|| panic!("no check {name}"))
}

/// Level and fix of one check.
fn outcome(facts: &Facts, wanted: &Wanted, name: &str) -> (Level, String) {
    let report = examine(facts, wanted);
    for check in &report.checks {
        assert_eq!(
            check.fix.is_some(),
            check.level != Level::Ok,
            "one fix for each problem: {check}"
        );
        assert!(!check.to_string().contains("  fix:\n"), "{check}");
    }
    let check = check(&report, name);
    (check.level, check.fix.clone().unwrap_or_default())
}

#[test]
fn a_fit_host_has_no_problem() {
    let report = examine(&fit(), &Wanted::default());
    for check in &report.checks {
        assert_eq!(check.level, Level::Ok, "{check}");
    }
    assert!(report.is_fit());
    assert_eq!(report.datapath, "xdp-native-zero-copy");
    let last = report.to_string().lines().last().unwrap().to_owned();
    assert_eq!(
        last,
        format!(
            "eth0: expect xdp-native-zero-copy; {} ok, 0 warn, 0 fail",
            report.checks.len()
        )
    );
    assert_eq!(report.json()["fit"], true);
}

/// (what changes, check, level, fix), the last that is good beside the first that is not.
#[test]
fn each_check_has_both_sides_of_its_limit() {
    use Level::{Fail, Ok as Good, Warn};
    type Change = fn(&mut Facts);
    let table: &[(Change, &str, Level, &str)] = &[
        (|f| f.version = Some((5, 15)), "kernel", Good, ""),
        (
            |f| f.version = Some((5, 14)),
            "kernel",
            Warn,
            "install a kernel of 5.15 or newer and boot it",
        ),
        (
            |f| f.version = Some((5, 9)),
            "kernel",
            Warn,
            "install a kernel of 5.15 or newer and boot it",
        ),
        (
            |f| f.version = Some((5, 8)),
            "kernel",
            Fail,
            "install a kernel of 5.15 or newer and boot it",
        ),
        (
            |f| f.programs = Ok(false),
            "bpf",
            Fail,
            "boot a kernel with CONFIG_BPF_SYSCALL=y and CONFIG_NET=y",
        ),
        (
            |f| f.programs = Err("Function not implemented".to_owned()),
            "bpf",
            Fail,
            "boot a kernel with CONFIG_BPF_SYSCALL=y, outside of seccomp",
        ),
        (
            |f| f.xsk = Err("Address family not supported".to_owned()),
            "af_xdp",
            Fail,
            "boot a kernel with CONFIG_XDP_SOCKETS=y",
        ),
        (|f| f.btf = false, "btf", Good, ""),
        (|f| f.mtu = 3306, "mtu", Good, ""),
        (
            |f| f.mtu = 3307,
            "mtu",
            Warn,
            "ip link set dev eth0 mtu 1500",
        ),
        (
            |f| f.mtu = 9000,
            "mtu",
            Warn,
            "ip link set dev eth0 mtu 1500",
        ),
        (
            |f| {
                f.offloads = vec![(
                    "rx-lro".to_owned(),
                    Offload {
                        on: true,
                        fixed: false,
                    },
                )]
            },
            "lro",
            Warn,
            "ethtool -K eth0 lro off",
        ),
        (
            |f| {
                f.offloads = vec![(
                    "rx-lro".to_owned(),
                    Offload {
                        on: false,
                        fixed: false,
                    },
                )]
            },
            "lro",
            Good,
            "",
        ),
        (
            |f| {
                f.offloads = vec![(
                    "rx-gro-hw".to_owned(),
                    Offload {
                        on: true,
                        fixed: false,
                    },
                )]
            },
            "gro-hw",
            Warn,
            "ethtool -K eth0 rx-gro-hw off",
        ),
        (
            |f| {
                f.offloads = vec![(
                    "rx-gro-hw".to_owned(),
                    Offload {
                        on: true,
                        fixed: true,
                    },
                )]
            },
            "gro-hw",
            Warn,
            "start the virtual machine with guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off",
        ),
        (
            |f| {
                f.offloads = vec![(
                    "rx-vlan-hw-parse".to_owned(),
                    Offload {
                        on: true,
                        fixed: false,
                    },
                )];
            },
            "rx-vlan",
            Good,
            "",
        ),
        (
            |f| {
                f.offloads = vec![(
                    "rx-vlan-hw-parse".to_owned(),
                    Offload {
                        on: true,
                        fixed: false,
                    },
                )];
                f.vlans = vec!["eth0.5".to_owned()];
            },
            "rx-vlan",
            Warn,
            "ethtool -K eth0 rxvlan off",
        ),
        (|f| f.vlans = vec!["eth0.5".to_owned()], "rx-vlan", Good, ""),
        (
            |f| {
                f.rings = Some(Rings {
                    receive: 511,
                    receive_max: 4096,
                })
            },
            "rings",
            Warn,
            "ethtool -G eth0 rx 1024",
        ),
        (
            |f| {
                f.rings = Some(Rings {
                    receive: 512,
                    receive_max: 4096,
                })
            },
            "rings",
            Good,
            "",
        ),
        (
            |f| {
                f.rings = Some(Rings {
                    receive: 256,
                    receive_max: 256,
                })
            },
            "rings",
            Good,
            "",
        ),
        (
            |f| {
                f.rings = Some(Rings {
                    receive: 2049,
                    receive_max: 8192,
                })
            },
            "rings",
            Warn,
            "ethtool -G eth0 rx 2048",
        ),
        (
            |f| f.spread = Some(3),
            "rss",
            Warn,
            "ethtool -X eth0 equal 4",
        ),
        (|f| f.spread = None, "rss", Good, ""),
        (
            |f| f.hashes_udp_ports = Some(false),
            "rss-udp",
            Warn,
            "ethtool -N eth0 rx-flow-hash udp4 sdfn",
        ),
        (
            |f| {
                f.reverse_path = Some(ReversePath {
                    all: 1,
                    interface: 0,
                })
            },
            "rp_filter",
            Warn,
            "sysctl -w net.ipv4.conf.eth0.rp_filter=2",
        ),
        (
            |f| {
                f.reverse_path = Some(ReversePath {
                    all: 1,
                    interface: 2,
                })
            },
            "rp_filter",
            Good,
            "",
        ),
        (
            |f| f.irqbalance = true,
            "irqbalance",
            Warn,
            "systemctl disable --now irqbalance",
        ),
        (
            |f| {
                f.irqbalance = true;
                f.cores = 1;
            },
            "irqbalance",
            Good,
            "",
        ),
        (
            |f| f.busy_poll = Some(1),
            "busy_poll",
            Warn,
            "sysctl -w net.core.busy_poll=0",
        ),
    ];
    for (change, name, level, fix) in table {
        let got = outcome(&with(change), &wanted(|_| {}), name);
        assert_eq!(got, (*level, (*fix).to_owned()), "{name}");
    }
}

#[test]
fn missing_rights_are_named_and_sockets_are_what_is_left() {
    let facts = with(|facts| {
        facts.capabilities.bpf = false;
        facts.capabilities.net_raw = false;
        facts.programs = Ok(false);
        facts.xsk = Err("Operation not permitted".to_owned());
    });
    let report = examine(&facts, &Wanted::default());
    assert!(!report.is_fit());
    assert_eq!(report.datapath, "socket");
    let missing = check(&report, "capabilities");
    assert!(
        missing.finding.ends_with("CAP_NET_RAW CAP_BPF"),
        "{missing}"
    );
    let fix = missing.fix.as_deref().unwrap();
    assert!(fix.starts_with("setcap cap_net_admin,"), "{fix}");
    // One problem, one fix.
    for name in ["bpf", "af_xdp"] {
        assert_eq!(check(&report, name).level, Level::Ok);
    }
}

#[test]
fn another_program_is_named_by_its_id_and_taken_off_by_whoever_holds_it() {
    let program = |name: &str, mode, link| {
        with(|facts| {
            facts.xdp.program = Some(AttachedProgram {
                id: 42,
                name: Some(name.to_owned()),
                mode,
                link,
            });
        })
    };
    let of = |facts: &Facts| outcome(facts, &Wanted::default(), "program");
    let held = program("firewall", "native", Some(7));
    assert_eq!(
        of(&held),
        (Level::Fail, "bpftool link detach id 7".to_owned())
    );
    assert_eq!(examine(&held, &Wanted::default()).datapath, "socket");
    let report = examine(&held, &wanted(|wanted| wanted.mode = Mode::Native));
    assert_eq!(report.datapath, "no start");
    assert!(
        check(&report, "program")
            .finding
            .contains("id 42, `firewall`, native mode")
    );
    for (mode, fix) in [
        ("native", "ip link set dev eth0 xdpdrv off"),
        ("generic", "ip link set dev eth0 xdpgeneric off"),
        ("offloaded", "ip link set dev eth0 xdpoffload off"),
        ("unknown", "ip link set dev eth0 xdp off"),
    ] {
        assert_eq!(of(&program("firewall", mode, None)).1, fix);
    }
    assert_eq!(of(&program("steer", "native", Some(7))).0, Level::Ok);
}

#[test]
fn the_umem_counts_against_locked_memory_and_huge_pages() {
    // 4 queues, 4 workers: 4 × (4,096 + 2 × 2,048) frames of the rings, 4 × 4,352 of the workers and
    // 4 × 3 × 512 to transmit with: 56,320 frames of 4 KiB, 220 MiB.
    const UMEM: u64 = 56_320 * 4096;
    let locked = |memlock| {
        with(|facts| {
            facts.capabilities.ipc_lock = false;
            facts.memlock = memlock;
        })
    };
    let of = |facts: &Facts, name| outcome(facts, &Wanted::default(), name);
    assert_eq!(of(&locked(Some(UMEM)), "memlock").0, Level::Ok);
    assert_eq!(of(&locked(None), "memlock").0, Level::Ok);
    let (level, fix) = of(&locked(Some(UMEM - 1)), "memlock");
    assert_eq!((level, fix.as_str()), (Level::Fail, "ulimit -l unlimited"));

    let pages = |free| with(|facts| facts.hugepages = Some(Hugepages { free, total: 200 }));
    assert_eq!(of(&pages(110), "hugepages").0, Level::Ok);
    let (level, fix) = of(&pages(109), "hugepages");
    assert_eq!(level, Level::Warn);
    assert!(fix.starts_with("echo 201 > /sys/"), "{fix}");
    let without = wanted(|wanted| wanted.hugepages = false);
    assert_eq!(outcome(&pages(0), &without, "hugepages").0, Level::Ok);
}

#[test]
fn queues_are_held_against_workers_cores_and_what_drivers_want() {
    let queues = |driver: &str, combined, combined_max| {
        with(|facts| {
            facts.driver = Some(driver.to_owned());
            facts.channels = Some(Channels {
                receive: combined,
                combined,
                combined_max,
            });
        })
    };
    let of = |facts: &Facts, workers: Option<usize>| {
        let wanted = wanted(|wanted| wanted.workers = workers);
        let (_, fix) = outcome(facts, &wanted, "queues");
        fix
    };
    assert_eq!(of(&queues("ice", 4, 16), Some(4)), "");
    assert_eq!(
        of(&queues("ice", 4, 16), Some(6)),
        "ethtool -L eth0 combined 6"
    );
    assert_eq!(
        of(&queues("ice", 4, 5), Some(6)),
        "ethtool -L eth0 combined 5"
    );
    assert_eq!(of(&queues("ice", 4, 4), Some(6)), "");
    assert_eq!(
        of(&queues("ice", 4, 16), Some(8)),
        "ethtool -L eth0 combined 8"
    );
    assert_eq!(
        of(&queues("ice", 4, 16), Some(9)),
        "set workers.count = 8 in /etc/v.toml"
    );
    assert_eq!(of(&queues("ice", 64, 128), None), "");
    assert_eq!(
        of(&queues("ice", 65, 128), None),
        "ethtool -L eth0 combined 64"
    );
    // ena needs half of its queues for transmitting.
    assert_eq!(of(&queues("ena", 4, 8), None), "");
    assert_eq!(of(&queues("ena", 5, 8), None), "ethtool -L eth0 combined 4");
    // virtio_net needs one queue pair a core beside those in use; with fewer it takes a lock, and
    // nothing that ethtool says helps.
    assert_eq!(of(&queues("virtio_net", 2, 10), Some(2)), "");
    assert_eq!(
        of(&queues("virtio_net", 3, 10), Some(2)),
        "ethtool -L eth0 combined 2"
    );
    assert_eq!(of(&queues("virtio_net", 1, 1), None), "");
    let silent = with(|facts| facts.channels = None);
    assert_eq!(of(&silent, None), "");
}

#[test]
fn what_a_driver_lacks_is_a_fallback_or_a_refusal_as_the_configuration_says() {
    let driver = |native, zero_copy| {
        with(|facts| {
            facts.xdp.driver = Some(DriverXdp {
                native,
                redirect: native,
                zero_copy,
            });
        })
    };
    let report = |facts: &Facts, mode, zero_copy| {
        let wanted = wanted(|wanted| {
            wanted.mode = mode;
            wanted.zero_copy = zero_copy;
        });
        let report = examine(facts, &wanted);
        let levels = ["native", "zero-copy"].map(|name| check(&report, name).level);
        (levels, report.datapath)
    };
    use Level::{Fail, Ok as Good, Warn};
    use ZeroCopy::{Auto, Off, Require};
    let (all, native, none) = (
        driver(true, true),
        driver(true, false),
        driver(false, false),
    );
    let table = [
        (&all, Mode::Auto, Off, [Good, Good], "xdp-native-copy"),
        (&all, Mode::Generic, Auto, [Good, Good], "xdp-generic-copy"),
        (&all, Mode::Generic, Require, [Good, Fail], "no start"),
        (&native, Mode::Auto, Auto, [Good, Good], "xdp-native-copy"),
        (&native, Mode::Native, Require, [Good, Fail], "no start"),
        (&native, Mode::Auto, Require, [Good, Fail], "socket"),
        (&none, Mode::Auto, Auto, [Warn, Good], "xdp-generic-copy"),
        (&none, Mode::Native, Auto, [Fail, Good], "no start"),
        (&none, Mode::Generic, Auto, [Good, Good], "xdp-generic-copy"),
    ];
    for (facts, mode, zero_copy, levels, datapath) in table {
        let got = report(facts, mode, zero_copy);
        assert_eq!(got, (levels, datapath), "{mode:?} {zero_copy:?}");
    }
    // Redirecting is what feeds AF_XDP: a driver that only drops and passes will not do.
    let mut no_redirect = driver(true, false);
    no_redirect.xdp.driver.as_mut().unwrap().redirect = false;
    assert_eq!(report(&no_redirect, Mode::Auto, Auto).0[0], Warn);
}

#[test]
fn the_table_of_drivers_counts_where_the_kernel_is_silent() {
    let silent = |driver: Option<&str>| {
        with(|facts| {
            facts.version = Some((6, 1));
            facts.xdp.driver = None;
            facts.driver = driver.map(str::to_owned);
        })
    };
    let datapath = |driver| examine(&silent(driver), &Wanted::default()).datapath;
    assert_eq!(datapath(Some("mlx5_core")), "xdp-native-zero-copy");
    assert_eq!(datapath(Some("veth")), "xdp-native-copy");
    assert_eq!(datapath(Some("e1000e")), "xdp-generic-copy");
    assert_eq!(datapath(None), "xdp-generic-copy");
}

#[test]
fn sockets_need_no_xdp_and_loopback_has_only_them() {
    let facts = with(|facts| {
        facts.programs = Ok(false);
        facts.xdp.driver = None;
    });
    let report = examine(&facts, &wanted(|wanted| wanted.mode = Mode::Socket));
    assert!(report.is_fit());
    assert_eq!(report.datapath, "socket");
    let loopback = with(|facts| facts.interface = "lo".to_owned());
    let report = examine(&loopback, &Wanted::default());
    assert_eq!(report.datapath, "socket");
    assert_eq!(check(&report, "native").level, Level::Fail);
}

#[test]
fn what_is_wanted_comes_from_the_configuration() {
    let text = |extra: &str| {
        format!(
            "{extra}\n[[listeners]]\nname = \"c\"\naddress = \"198.18.0.1:5060\"\n[[pools]]\n\
             name = \"f\"\nservers = [{{ name = \"s\", address = \"198.18.1.1:5060\" }}]\n"
        )
    };
    let wanted = |extra: &str| {
        let config = crate::config::Config::parse(&text(extra)).unwrap();
        facts::Wanted::new(&config, "/etc/v.toml".into())
    };
    let plain = wanted("");
    assert_eq!(plain.listeners[0].name, "c");
    let without_listeners = facts::Wanted {
        listeners: vec![],
        ..plain
    };
    let defaults = facts::Wanted {
        file: Some("/etc/v.toml".into()),
        ..facts::Wanted::default()
    };
    assert_eq!(without_listeners, defaults);
    let listeners = |facts: &Facts| outcome(facts, &wanted(""), "listeners");
    assert_eq!(listeners(&fit()).0, Level::Ok);
    let elsewhere = with(|facts| facts.addresses.clear());
    let (level, fix) = listeners(&elsewhere);
    assert_eq!(
        (level, fix.as_str()),
        (Level::Warn, "ip address add 198.18.0.1/32 dev eth0")
    );
    // A standby has not got the address yet, and says where it will be.
    let mut standby = wanted("");
    standby.listeners[0].interface = Some("eth0".to_owned());
    assert_eq!(outcome(&elsewhere, &standby, "listeners").0, Level::Ok);
    assert_eq!(wanted("[workers]\ncount = 3").workers, Some(3));
    assert_eq!(wanted("[workers]\ncores = [1, 2]").workers, Some(2));
    let native =
        wanted("[datapath]\nmode = \"native\"\nzero_copy = \"require\"\nhugepages = false");
    assert_eq!(
        (native.mode, native.zero_copy, native.hugepages),
        (Mode::Native, ZeroCopy::Require, false)
    );
}
