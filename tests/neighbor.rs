//! The monitor against a real kernel: two namespaces joined by a veth pair, nothing else talking.
//!
//! ```text
//!   namespace lb                          namespace server
//!   lb0 198.18.1.1/24 ─────── veth ────── s0 198.18.1.2/24
//!       2001:db8:1::1/64                     2001:db8:1::2/64
//!   198.19.0.0/16, 2001:db8:2::/48 via the server; 2001:db8:3::/48 via its link-local address
//! ```

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod common;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use common::netns::{Namespace, command};
use tokio::time::{Instant, sleep};
use viaduct::datapath::egress::{EgressTable, Link, Resolution};
use viaduct::neighbor::Monitor;
use viaduct::packet::MacAddress;

const SERVER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

struct Lab {
    lb: Namespace,
    server: Namespace,
}

impl Lab {
    fn new() -> Self {
        let (lb, server) = (Namespace::new(), Namespace::new());
        lb.ip("link add lb0 address 02:00:00:00:00:01 type veth peer name s0");
        lb.ip(&format!(
            "link set s0 netns {} address 02:00:00:00:00:02",
            server.name()
        ));
        for (namespace, device, host) in [(&lb, "lb0", 1), (&server, "s0", 2)] {
            namespace.ip(&format!("addr add 198.18.1.{host}/24 dev {device}"));
            namespace.ip(&format!(
                "addr add 2001:db8:1::{host}/64 dev {device} nodad"
            ));
            namespace.ip(&format!("addr add fe80::{host}/64 dev {device} nodad"));
            namespace.ip(&format!("link set {device} up"));
        }
        lb.ip("route add 198.19.0.0/16 via 198.18.1.2");
        lb.ip("-6 route add 2001:db8:2::/48 via 2001:db8:1::2");
        lb.ip("-6 route add 2001:db8:3::/48 via fe80::2 dev lb0");
        Self { lb, server }
    }
}

/// What a worker does: looks up the snapshot for each datagram, reports what is unresolved.
struct Worker {
    shared: Arc<ArcSwap<EgressTable>>,
    monitor: Monitor,
}

impl Worker {
    async fn new() -> Self {
        let shared = Arc::new(ArcSwap::from_pointee(EgressTable::default()));
        let monitor = Monitor::start(Arc::clone(&shared)).await.unwrap();
        Self { shared, monitor }
    }

    fn resolve(&self, peer: &str) -> Resolution {
        let peer: IpAddr = peer.parse().unwrap();
        let local = if peer.is_ipv4() {
            "198.18.1.1"
        } else {
            "2001:db8:1::1"
        };
        let table = self.shared.load();
        let resolution = table.resolve(local.parse().unwrap(), SocketAddr::new(peer, 5060));
        if matches!(resolution, Resolution::Unresolved { .. }) {
            // A full queue is a lost report.
            let _ = self.monitor.wanted().push(peer);
        }
        resolution
    }

    /// Sends, so to say, to `peer` every 10 ms until the answer is as wanted; how long that took.
    async fn until(&self, peer: &str, wanted: impl Fn(Resolution) -> bool) -> Duration {
        let begin = Instant::now();
        loop {
            let resolution = self.resolve(peer);
            if wanted(resolution) {
                return begin.elapsed();
            }
            assert!(
                begin.elapsed() < Duration::from_secs(8),
                "{peer}: still {resolution:?}"
            );
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn mac_of(resolution: Resolution) -> Option<MacAddress> {
    match resolution {
        Resolution::Link(Link { dst_mac, .. }) => Some(dst_mac),
        _ => None,
    }
}

/// Runs `test` in the namespace of the balancer, where the monitor opens its sockets.
fn in_lab<F: Future<Output = ()>>(test: impl FnOnce(Lab) -> F + Send) {
    let lab = Lab::new();
    // A thread of its own: the namespace is the thread's.
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            lab.lb.enter();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(test(lab));
        });
        run.join().unwrap();
    });
}

#[test]
#[ignore = "needs root: network namespaces"]
fn on_link_peers_and_gateways_are_resolved_and_follow_events() {
    in_lab(async |lab| {
        let worker = Worker::new().await;
        for peer in [
            "198.18.1.2",
            "2001:db8:1::2",
            "198.19.5.5",
            "2001:db8:2::5",
            "2001:db8:3::5",
        ] {
            let took = worker
                .until(peer, |found| mac_of(found) == Some(SERVER_MAC))
                .await;
            assert!(took < Duration::from_secs(2), "{peer} took {took:?}");
        }
        let Resolution::Link(link) = worker.resolve("198.18.1.2") else {
            panic!("resolved just now")
        };
        let table = worker.shared.load_full();
        let interface = table.interface(link.ifindex).unwrap();
        assert_eq!(
            (interface.name.as_str(), interface.mac, link.mtu),
            ("lb0", link.src_mac, 1500)
        );
        assert_eq!(link.src_mac, MacAddress([2, 0, 0, 0, 0, 1]));
        assert_eq!(
            table.interface_of("198.18.1.1".parse().unwrap()),
            Some(interface)
        );

        assert_eq!(worker.resolve("198.18.1.1"), Resolution::Local);
        assert_eq!(worker.resolve("2001:db8:1::1"), Resolution::Local);
        assert_eq!(worker.resolve("198.18.1.255"), Resolution::Kernel);
        assert_eq!(worker.resolve("127.0.0.1"), Resolution::Local);
        assert_eq!(worker.resolve("198.18.2.1"), Resolution::NoRoute);
        let nobody = worker.resolve("198.18.1.99");
        assert!(matches!(nobody, Resolution::Unresolved { .. }));

        // Each change of the tables is followed by its event.
        let soon = Duration::from_millis(500);
        lab.lb.ip("route add 198.18.2.0/24 via 198.18.1.2 mtu 1300");
        let with_mtu =
            |found: Resolution| matches!(found, Resolution::Link(Link { mtu: 1300, .. }));
        assert!(worker.until("198.18.2.1", with_mtu).await < soon);
        lab.lb.ip("route replace blackhole 198.18.2.0/24");
        let gone = |found| found == Resolution::NoRoute;
        assert!(worker.until("198.18.2.1", gone).await < soon);

        lab.lb
            .ip("neigh replace 198.18.1.50 lladdr 02:00:00:00:00:50 dev lb0");
        let fifty = |found| mac_of(found) == Some(MacAddress([2, 0, 0, 0, 0, 0x50]));
        assert!(worker.until("198.18.1.50", fifty).await < soon);

        lab.lb.ip("rule add from 198.18.1.1 lookup 100");
        let kernel = |found| found == Resolution::Kernel;
        assert!(worker.until("198.18.1.2", kernel).await < soon);
        assert!(mac_of(worker.resolve("2001:db8:1::2")).is_some());
        lab.lb.ip("rule del from 198.18.1.1 lookup 100");
        let resolved = |found| mac_of(found).is_some();
        assert!(worker.until("198.18.1.2", resolved).await < soon);

        lab.lb.ip("link set lb0 down");
        let unrouted = |found| mac_of(found).is_none();
        assert!(worker.until("198.18.1.2", unrouted).await < soon);
        lab.lb.ip("link set lb0 up");
        assert!(worker.until("198.18.1.2", resolved).await < Duration::from_secs(3));
    });
}

/// A server that takes another MAC address and says nothing is followed within 5 s, IPv4 and IPv6,
/// on the link and behind it as a gateway.
#[test]
#[ignore = "needs root: network namespaces"]
fn a_silent_change_of_mac_address_is_followed_within_five_seconds() {
    in_lab(async |lab| {
        let worker = Worker::new().await;
        let peers = ["198.18.1.2", "2001:db8:1::2", "2001:db8:3::5"];
        for peer in peers {
            worker
                .until(peer, |found| mac_of(found) == Some(SERVER_MAC))
                .await;
        }
        let mut worst = Duration::ZERO;
        for round in 0..4u8 {
            // The change comes at another point of the interval between two probes each time.
            let settle = Instant::now();
            let pause = Duration::from_millis(2000 + 330 * u64::from(round));
            while settle.elapsed() < pause {
                for peer in peers {
                    worker.resolve(peer);
                }
                sleep(Duration::from_millis(10)).await;
            }
            let changed = MacAddress([2, 0, 0, 0, 1, round]);
            lab.server.ip(&format!("link set s0 address {changed}"));
            let begin = Instant::now();
            for peer in peers {
                worker
                    .until(peer, |found| mac_of(found) == Some(changed))
                    .await;
                println!("round {round}: {peer} after {:?}", begin.elapsed());
            }
            worst = worst.max(begin.elapsed());
            // A gateway that is a host of ours answers for itself: the table says so for all.
            assert!(worst < Duration::from_secs(5), "took {worst:?}");
        }
        println!("silent change of MAC address: followed after {worst:?} at worst");
    });
}

/// More events than the socket holds: the monitor notices and reads everything anew.
#[test]
#[ignore = "needs root: network namespaces"]
fn lost_events_lead_to_a_whole_reading() {
    in_lab(async |lab| {
        let worker = Worker::new().await;
        // While nobody reads, one batch fills the socket many times over.
        let batch: String = (0..6000)
            .map(|host| {
                let (high, low) = (host / 250, host % 250 + 1);
                format!(
                    "neigh replace 198.18.1.2 lladdr 02:00:00:00:{high:02x}:{low:02x} dev lb0\n"
                )
            })
            .chain(["route add 198.18.3.0/24 via 198.18.1.2\n".into()])
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch).unwrap();
        command(&format!(
            "ip -n {} -batch {}",
            lab.lb.name(),
            file.path().display()
        ));
        let last = MacAddress([2, 0, 0, 0, 23, 250]);
        let took = worker
            .until("198.18.3.1", |found| mac_of(found) == Some(last))
            .await;
        assert!(took < Duration::from_secs(2), "took {took:?}");
    });
}
