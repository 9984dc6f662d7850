//! The load generator on AF_XDP, over a veth pair: user agents at thousands of addresses that no
//! interface has.
//!
//! ```text
//!   namespace callers                                  namespace farm
//!   a0 198.18.0.1/24  ─────────── veth ─────────── b0 198.18.0.2/24
//!      2001:db8::1/64                                 2001:db8::2/64
//!      agents: 198.18.64.0/18                         routes to the agents via a0
//!              2001:db8:1::/64
//! ```
//!
//! Run as root: `cargo nextest run --test generator_xdp --run-ignored all`.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod common;

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::netns::Namespace;
use viaduct::generator::{
    AnswerReport, ByeFrom, Datapath, GeneratorError, Limit, Load, Report, UacConfig, UasConfig,
    XdpConfig, XdpError, uac, uas,
};
use viaduct::limits::AGENT_RING_LEN;
use viaduct::packet::MacAddress;

/// Target, and addresses of agents.
const FAMILIES: [(&str, &str); 2] = [
    ("198.18.0.2:5060", "198.18.64.0/18"),
    ("[2001:db8::2]:5060", "2001:db8:1::/114"),
];

struct Lab {
    callers: Namespace,
    farm: Namespace,
}

impl Lab {
    fn new(queues: u32) -> Self {
        let (callers, farm) = (Namespace::new(), Namespace::new());
        let sizes = format!("numrxqueues {queues} numtxqueues {queues}");
        callers.ip(&format!(
            "link add a0 {sizes} type veth peer name b0 {sizes} netns {}",
            farm.name()
        ));
        for (namespace, device, last) in [(&callers, "a0", 1), (&farm, "b0", 2)] {
            namespace.ip(&format!("addr add 198.18.0.{last}/24 dev {device}"));
            namespace.ip(&format!("addr add 2001:db8::{last}/64 dev {device} nodad"));
            namespace.ip(&format!("link set {device} up"));
        }
        farm.ip("route add 198.18.64.0/18 via 198.18.0.1");
        farm.ip("-6 route add 2001:db8:1::/64 via 2001:db8::1");
        Self { callers, farm }
    }
}

fn xdp() -> Datapath {
    Datapath::Xdp(XdpConfig::default())
}

fn call() -> Load {
    Load::Call {
        hold: Duration::ZERO,
        bye_from: ByeFrom::Caller,
        methods: Vec::new(),
        cancel_after: None,
    }
}

fn caller(target: &str, sources: &str, load: Load, calls: u64) -> UacConfig {
    let target = format!("sip:service@{target}").parse().unwrap();
    UacConfig {
        rate: 4000.0,
        limit: Limit {
            calls: Some(calls),
            duration: None,
        },
        sources: vec![sources.parse().unwrap()],
        datapath: xdp(),
        ..UacConfig::new(target, load)
    }
}

/// Makes calls while a server answers them.
fn played(lab: &Lab, answers: Datapath, config: &UacConfig) -> (Report, AnswerReport) {
    let (ready, is_ready) = mpsc::channel();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            lab.farm.enter();
            let config = UasConfig {
                datapath: answers,
                ..UasConfig::new(vec![config.target.address()], "farm")
            };
            let server = uas::Server::bind(&config).unwrap();
            ready.send(()).unwrap();
            server.run(&stop).unwrap()
        });
        is_ready.recv().unwrap();
        let caller = scope.spawn(|| {
            lab.callers.enter();
            uac::run(config, &AtomicBool::new(false)).unwrap()
        });
        let report = caller.join().unwrap();
        stop.store(true, Ordering::Relaxed);
        let answers = server.join().unwrap();
        println!("{report}\n{answers}");
        (report, answers)
    })
}

fn assert_complete(report: &Report, answers: &AnswerReport, calls: u64) {
    assert_eq!(
        (report.offered, report.answered, report.failed),
        (calls, calls, 0)
    );
    assert!(report.traffic.strays.is_empty() && answers.traffic.strays.is_empty());
    assert_eq!((answers.calls, answers.ended), (calls, calls));
    assert_eq!((answers.stray, answers.in_progress), (0, 0));
    assert_eq!(report.self_check.send_refused, 0);
}

#[test]
#[ignore = "needs root"]
fn thousands_of_agents_call_over_both_ip_versions() {
    let lab = Lab::new(1);
    for (target, sources) in FAMILIES {
        let config = caller(target, sources, call(), 6000);
        let (report, answers) = played(&lab, xdp(), &config);
        assert_complete(&report, &answers, 6000);
    }
}

/// The other side leaves checksums to a network card that is not there.
#[test]
#[ignore = "needs root"]
fn a_kernel_socket_is_a_fine_other_end() {
    let lab = Lab::new(1);
    for (target, sources) in FAMILIES {
        let config = caller(target, sources, call(), 2000);
        let (report, answers) = played(&lab, Datapath::Sockets, &config);
        assert_complete(&report, &answers, 2000);
        let config = UacConfig {
            datapath: Datapath::Sockets,
            sources: Vec::new(),
            ..config
        };
        let (report, answers) = played(&lab, xdp(), &config);
        assert_complete(&report, &answers, 2000);
    }
}

/// A thread for each queue; an answer finds its thread on whichever queue it comes in.
#[test]
#[ignore = "needs root"]
fn threads_share_the_queues_and_the_calls() {
    let lab = Lab::new(2);
    let (target, sources) = FAMILIES[0];
    for threads in [None, Some(3)] {
        let config = UacConfig {
            threads,
            ..caller(target, sources, call(), 5000)
        };
        let (report, answers) = played(&lab, Datapath::Sockets, &config);
        assert_complete(&report, &answers, 5000);
    }
}

#[test]
#[ignore = "needs root"]
fn every_address_has_its_turn() {
    const CALLS: usize = 3000;
    let lab = Lab::new(1);
    for (target, sources) in FAMILIES {
        let load = Load::Single {
            methods: vec!["OPTIONS".to_owned()],
            with_body: false,
        };
        let config = UacConfig {
            drain: Some(Duration::ZERO),
            ..caller(target, sources, load, CALLS as u64)
        };
        let (ready, is_ready) = mpsc::channel();
        let seen: HashSet<SocketAddr> = thread::scope(|scope| {
            let counter = scope.spawn(|| {
                lab.farm.enter();
                let socket = UdpSocket::bind(target).unwrap();
                socket
                    .set_read_timeout(Some(Duration::from_secs(10)))
                    .unwrap();
                ready.send(()).unwrap();
                let mut buffer = [0; 2048];
                // Requests are sent again meanwhile: nobody answers.
                let mut seen = HashSet::new();
                while seen.len() < CALLS {
                    seen.insert(socket.recv_from(&mut buffer).unwrap().1);
                }
                seen
            });
            is_ready.recv().unwrap();
            scope.spawn(|| {
                lab.callers.enter();
                uac::run(&config, &AtomicBool::new(false)).unwrap();
            });
            counter.join().unwrap()
        });
        assert_eq!(seen.len(), CALLS);
        assert!(seen.iter().all(|peer| peer.port() == 5060));
    }
}

/// A server that does not look at its rings loses what they do not hold, and says so.
#[test]
#[ignore = "needs root"]
fn what_finds_no_room_is_counted() {
    const CALLS: u64 = 12_000;
    let lab = Lab::new(1);
    let (target, sources) = FAMILIES[0];
    let config = UacConfig {
        rate: 20_000.0,
        drain: Some(Duration::ZERO),
        ..caller(target, sources, call(), CALLS)
    };
    let answers = thread::scope(|scope| {
        let (ready, is_ready) = mpsc::channel();
        let (sent, is_sent) = mpsc::channel();
        let farm = &lab.farm;
        let server = scope.spawn(move || {
            farm.enter();
            let config = UasConfig {
                datapath: xdp(),
                ..UasConfig::new(vec![target.parse().unwrap()], "farm")
            };
            let server = uas::Server::bind(&config).unwrap();
            ready.send(()).unwrap();
            is_sent.recv().unwrap();
            server.run(&AtomicBool::new(true)).unwrap()
        });
        is_ready.recv().unwrap();
        let caller = scope.spawn(|| {
            lab.callers.enter();
            uac::run(&config, &AtomicBool::new(false)).unwrap()
        });
        let report = caller.join().unwrap();
        assert_eq!((report.offered, report.failed), (CALLS, CALLS));
        sent.send(()).unwrap();
        server.join().unwrap()
    });
    let fitting = u64::from(AGENT_RING_LEN);
    assert!(answers.receive_drops >= CALLS - fitting, "{answers}");
    assert!(answers.bottleneck);
}

#[test]
#[ignore = "needs root"]
fn a_silent_next_hop_is_an_error_unless_its_mac_address_is_named() {
    let lab = Lab::new(1);
    let config = caller("198.18.0.77:5060", "198.18.64.0/18", call(), 10);
    let config = UacConfig {
        drain: Some(Duration::ZERO),
        ..config
    };
    let run = |config: &UacConfig| {
        thread::scope(|scope| {
            let caller = scope.spawn(|| {
                lab.callers.enter();
                uac::run(config, &AtomicBool::new(false))
            });
            caller.join().unwrap()
        })
    };
    let refused = run(&config).unwrap_err();
    assert!(
        matches!(refused, GeneratorError::Xdp(XdpError::Unresolved(_))),
        "{refused}"
    );
    let named = UacConfig {
        datapath: Datapath::Xdp(XdpConfig {
            interface: Some("a0".to_owned()),
            gateway_mac: Some(MacAddress([2, 0, 0, 0, 0, 9])),
            generic: false,
        }),
        ..config.clone()
    };
    let report = run(&named).unwrap();
    assert_eq!((report.offered, report.self_check.send_refused), (10, 0));
    let unknown = UacConfig {
        datapath: Datapath::Xdp(XdpConfig {
            interface: Some("a9".to_owned()),
            ..XdpConfig::default()
        }),
        ..config
    };
    let refused = run(&unknown).unwrap_err();
    assert!(
        matches!(refused, GeneratorError::Xdp(XdpError::Unusable(_))),
        "{refused}"
    );
}
