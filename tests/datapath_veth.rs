//! The data path against a real kernel: the steering program, AF_XDP sockets, the neighbour monitor
//! and kernel sockets over veth pairs.
//!
//! ```text
//!   namespace client               namespace lb                       namespace server
//!   c0 198.18.0.1/24 ─── veth ─── c 198.18.0.100   f 198.19.0.100 ─── veth ─── s0 198.19.0.11/24
//!      2001:db8:1::1/64              2001:db8:1::100  2001:db8:2::100             2001:db8:2::11/64
//! ```
//!
//! Run as root: `cargo nextest run --test datapath_veth --run-ignored all`.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod common;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use common::netns::{Namespace, ifindex};
use crossbeam::queue::ArrayQueue;
use tokio::sync::oneshot;
use viaduct::bpf::{AttachMode, Link, Slot, SteerConfig, SteerProgram, SteerVerdict, Vip};
use viaduct::datapath::egress::EgressTable;
use viaduct::datapath::{Batch, Builder, Handler, Interface, Out, Packet, Running};
use viaduct::limits::{BATCH, DATAGRAM_LEN_MAX};
use viaduct::metrics::WorkerMetrics;
use viaduct::neighbor::Monitor;
use viaduct::net::{ListenerIndex, WorkerIndex};
use viaduct::packet::PartialChecksum;
use viaduct::sys::datagram::{self, ReceiveBatch, SendBatch, SocketOptions};
use viaduct::sys::{clock, event};
use viaduct::time::Instant;
use viaduct::verdict::DropReason;
use viaduct::xsk::{Mode, Umem};

/// Client side, farm side and server by IP version.
struct Addresses {
    vip: &'static str,
    farm_vip: &'static str,
    client: &'static str,
    server: &'static str,
}

const V4: Addresses = Addresses {
    vip: "198.18.0.100:5060",
    farm_vip: "198.19.0.100:5060",
    client: "198.18.0.1:0",
    server: "198.19.0.11:5060",
};
const V6: Addresses = Addresses {
    vip: "[2001:db8:1::100]:5060",
    farm_vip: "[2001:db8:2::100]:5060",
    client: "[2001:db8:1::1]:0",
    server: "[2001:db8:2::11]:5060",
};
const FAMILIES: [Addresses; 2] = [V4, V6];

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What the workers do.
#[derive(Clone, Copy, PartialEq)]
enum Play {
    /// Answer.
    Echo,
    /// From a client to the server, and from the server to the client whose port the payload
    /// starts with.
    Forward,
    /// Answer, from the other worker.
    HandOver,
}

impl Handler for Play {
    fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, _now: Instant) {
        for mut packet in batch.drain(..) {
            let family = &FAMILIES[usize::from(packet.flow.local.is_ipv6())];
            match self {
                Play::HandOver if packet.origin() != viaduct::datapath::Origin::HandOver => {
                    let other = (usize::from(out.worker().0) + 1) % out.workers();
                    out.hand_over(packet, WorkerIndex(u8::try_from(other).unwrap()));
                    continue;
                }
                Play::Forward if packet.flow.local == address(family.vip) => {
                    packet.flow.local = address(family.farm_vip);
                    packet.flow.peer = address(family.server);
                    packet.flow.listener.0 += 1;
                }
                Play::Forward => {
                    let port = u16::from_be_bytes([packet.payload()[0], packet.payload()[1]]);
                    packet.flow.local = address(family.vip);
                    packet.flow.peer = address(family.client);
                    packet.flow.peer.set_port(port);
                    packet.flow.listener.0 -= 1;
                }
                _ => {}
            }
            out.send(packet);
        }
    }

    /// Forwarding, what did not reach the server goes back to its client.
    fn on_unreachable(&mut self, mut packet: Packet, out: &mut Out<'_>, _now: Instant) {
        let family = &FAMILIES[usize::from(packet.flow.local.is_ipv6())];
        let to_server = packet.flow.local == address(family.farm_vip)
            && packet.flow.peer == address(family.server);
        if *self != Play::Forward || !to_server || packet.payload().len() < 2 {
            return out.drop(packet, DropReason::Unreachable);
        }
        let port = u16::from_be_bytes([packet.payload()[0], packet.payload()[1]]);
        packet.flow.local = address(family.vip);
        packet.flow.peer = address(family.client);
        packet.flow.peer.set_port(port);
        packet.flow.listener.0 -= 1;
        out.send(packet);
    }
}

/// Namespaces joined by veth pairs with `queues` queues.
struct Lab {
    client: Namespace,
    lb: Namespace,
    server: Namespace,
}

impl Lab {
    fn new(queues: u32) -> Self {
        let (client, lb, server) = (Namespace::new(), Namespace::new(), Namespace::new());
        let sizes = format!("numrxqueues {queues} numtxqueues {queues}");
        for (inner, peer, namespace) in [("c", "c0", &client), ("f", "s0", &server)] {
            lb.ip(&format!(
                "link add {inner} {sizes} type veth peer name {peer} {sizes} netns {}",
                namespace.name()
            ));
        }
        let hosts = [
            (&client, "c0", "198.18.0.1/24", "2001:db8:1::1/64"),
            (&lb, "c", "198.18.0.100/24", "2001:db8:1::100/64"),
            (&lb, "f", "198.19.0.100/24", "2001:db8:2::100/64"),
            (&server, "s0", "198.19.0.11/24", "2001:db8:2::11/64"),
        ];
        for (namespace, device, v4, v6) in hosts {
            namespace.ip(&format!("addr add {v4} dev {device}"));
            namespace.ip(&format!("addr add {v6} dev {device} nodad"));
            namespace.ip(&format!("link set {device} up"));
        }
        Self { client, lb, server }
    }

    /// Runs `make` inside a namespace, on a thread of its own.
    fn inside<T: Send>(namespace: &Namespace, make: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                namespace.enter();
                make()
            });
            thread.join().unwrap()
        })
    }

    fn client_socket(&self, family: &Addresses) -> UdpSocket {
        let local = address(family.client);
        Self::inside(&self.client, move || bind(local))
    }

    /// A server that returns every datagram until it is dropped.
    fn start_server(&self) {
        for family in &FAMILIES {
            let local = address(family.server);
            let socket = Self::inside(&self.server, move || bind(local));
            socket.set_read_timeout(None).unwrap();
            thread::spawn(move || {
                let mut bytes = vec![0; DATAGRAM_LEN_MAX];
                // Ends with the process: the test.
                while let Ok((len, peer)) = socket.recv_from(&mut bytes) {
                    let _ = socket.send_to(&bytes[..len], peer);
                }
            });
        }
    }
}

fn bind(local: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(local).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket
}

/// A data path in the namespace `lb`, put together as the program does it.
struct Balancer {
    running: Running<Play>,
    metrics: Vec<Arc<WorkerMetrics>>,
    program: SteerProgram,
    links: Vec<Link>,
    umem: &'static Umem,
    _neighbours: Neighbours,
}

/// The neighbour monitor on a thread of its own, until dropped.
struct Neighbours {
    wanted: Arc<ArrayQueue<IpAddr>>,
    _stop: oneshot::Sender<()>,
}

impl Neighbours {
    /// In the calling thread's namespace, which the new thread inherits.
    fn watch(egress: Arc<ArcSwap<EgressTable>>) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, wanted) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let monitor = Monitor::start(egress).await.unwrap();
                ready.send(monitor.wanted()).unwrap();
                let _ = stopped.await;
            });
        });
        Self {
            wanted: wanted.recv().unwrap(),
            _stop: stop,
        }
    }
}

/// How to put it together.
struct Setup {
    workers: usize,
    queues: u32,
    attach: AttachMode,
    play: Play,
}

impl Setup {
    fn new(play: Play) -> Self {
        Self {
            workers: 1,
            queues: 1,
            attach: AttachMode::Native,
            play,
        }
    }

    /// Moves the calling thread into `lb`.
    fn start(&self, lab: &Lab) -> Balancer {
        lab.lb.enter();
        let egress = Arc::new(ArcSwap::from_pointee(EgressTable::default()));
        let neighbours = Neighbours::watch(egress.clone());
        let metrics: Vec<_> = (0..self.workers)
            .map(|_| Arc::new(WorkerMetrics::new()))
            .collect();
        let interfaces = [ifindex("c"), ifindex("f")];
        let vips: Vec<SocketAddr> = FAMILIES
            .iter()
            .flat_map(|family| [address(family.vip), address(family.farm_vip)])
            .collect();
        let mut builder = Builder::new(metrics.clone())
            .egress(egress)
            .wanted(neighbours.wanted.clone());
        for (index, vip) in (0..).zip(&vips) {
            builder = builder.listener(ListenerIndex(index), *vip);
        }
        for ifindex in interfaces {
            builder = builder.interface(Interface {
                ifindex,
                queues: self.queues,
                partial_checksum: PartialChecksum::Accept,
            });
        }
        let datapath = builder.build().unwrap();
        assert_eq!(datapath.mode(interfaces[0]), Some(Mode::Copy));

        let workers = u32::try_from(self.workers).unwrap();
        let config = SteerConfig::new(interfaces.to_vec(), self.queues, workers);
        let mut program = SteerProgram::load(&config).unwrap();
        let mut slots = 0;
        for link in datapath.links() {
            let slot = Slot {
                ifindex: link.ifindex,
                queue: link.queue,
                worker: u32::from(link.worker.0),
            };
            program.set_socket(slot, link.fd).unwrap();
            slots += 1;
        }
        assert_eq!(slots, 2 * self.queues * workers);
        let listened: Vec<_> = (0..)
            .zip(&vips)
            .map(|(index, vip)| {
                let listener = ListenerIndex(index);
                let vip_of = Vip {
                    listener,
                    ..Vip::default()
                };
                (*vip, vip_of)
            })
            .collect();
        program.replace_vips(&listened).unwrap();
        let links = interfaces
            .map(|ifindex| program.attach(ifindex, self.attach).unwrap())
            .into();
        let umem = datapath.umem().unwrap();
        let play = self.play;
        let running = datapath.start(|_| play, &[]).unwrap();
        Balancer {
            running,
            metrics,
            program,
            links,
            umem,
            _neighbours: neighbours,
        }
    }
}

impl Balancer {
    fn sum(&self, of: impl Fn(&WorkerMetrics) -> u64) -> u64 {
        self.metrics.iter().map(|metrics| of(metrics)).sum()
    }

    fn xdp_in(&self) -> u64 {
        self.sum(|worker| worker.xdp_in.value())
    }

    fn xdp_out(&self) -> u64 {
        self.sum(|worker| worker.xdp_out.value())
    }

    fn kernel_in(&self) -> u64 {
        self.sum(|worker| worker.kernel_in.value())
    }

    fn kernel_out(&self) -> u64 {
        self.sum(|worker| worker.kernel_out.value())
    }

    fn verdict(&self, verdict: SteerVerdict) -> u64 {
        self.program.counts().unwrap().of(verdict)
    }

    /// Forwards until both directions go through XDP.
    fn resolve(&self, client: &UdpSocket, family: &Addresses) {
        let deadline = clock::now() + Duration::from_secs(5);
        loop {
            let sent = self.xdp_out();
            exchange(client, address(family.vip), &addressed(client, 100));
            thread::sleep(Duration::from_millis(10));
            if self.xdp_out() == sent + 2 {
                return;
            }
            assert!(clock::now() < deadline, "still through the kernel");
        }
    }

    /// Stops it; every packet left once and every frame is back.
    fn stop(self) -> Vec<Arc<WorkerMetrics>> {
        drop(self.links);
        self.running.stop();
        for (index, metrics) in self.metrics.iter().enumerate() {
            let taken =
                metrics.received() + metrics.hand_over_in.value() + metrics.originated.value();
            let given = metrics.sent()
                + metrics.hand_over_out.value()
                + metrics.absorbed.value()
                + metrics.dropped();
            assert_eq!(taken, given, "worker {index}");
            let xsk = &metrics.xsk;
            assert_eq!(xsk.rx_invalid.value() + xsk.tx_invalid.value(), 0);
        }
        let census = self.umem.census();
        assert_eq!(census.pooled + census.orphans, census.total, "{census:?}");
        assert_eq!(self.umem.refused(), 0);
        assert_eq!(self.umem.pool().orphans_total(), 0, "a frame was dropped");
        self.metrics
    }
}

/// Sends `bytes` and waits for them to come back.
fn exchange(client: &UdpSocket, server: SocketAddr, bytes: &[u8]) {
    client.send_to(bytes, server).unwrap();
    let mut answer = vec![0; DATAGRAM_LEN_MAX];
    let (len, from) = client.recv_from(&mut answer).unwrap();
    assert_eq!(from, server);
    assert!(answer[..len] == *bytes, "other bytes came back");
}

/// A payload that starts with the port of `client`.
fn addressed(client: &UdpSocket, len: usize) -> Vec<u8> {
    let port = client.local_addr().unwrap().port().to_be_bytes();
    let rest = (0u8..251).cycle();
    port.into_iter().chain(rest).take(len).collect()
}

#[test]
#[ignore = "needs root"]
fn one_arm_echoes_through_xdp() {
    let lab = Lab::new(1);
    for attach in [AttachMode::Native, AttachMode::Generic] {
        let setup = Setup {
            attach,
            ..Setup::new(Play::Echo)
        };
        let balancer = setup.start(&lab);
        for family in &FAMILIES {
            let client = lab.client_socket(family);
            for len in [0, 1, 507, 1452] {
                exchange(&client, address(family.vip), &vec![b'x'; len]);
            }
        }
        assert_eq!(balancer.verdict(SteerVerdict::Redirected), 8);
        let metrics = balancer.stop();
        assert_eq!(metrics[0].xdp_in.value(), 8);
        assert_eq!(metrics[0].kernel_in.value(), 0);
    }
}

#[test]
#[ignore = "needs root"]
fn two_arms_forward_and_bring_the_answer_back() {
    let lab = Lab::new(1);
    lab.start_server();
    let balancer = Setup::new(Play::Forward).start(&lab);
    for family in &FAMILIES {
        let client = lab.client_socket(family);
        balancer.resolve(&client, family);
        let (xdp_in, kernel_out) = (balancer.xdp_in(), balancer.kernel_out());
        for len in [2, 507, 1452] {
            for _ in 0..50 {
                exchange(&client, address(family.vip), &addressed(&client, len));
            }
        }
        assert_eq!(balancer.xdp_in() - xdp_in, 300);
        assert_eq!(balancer.kernel_out(), kernel_out);
    }
    assert_eq!(balancer.kernel_in(), 0);
    balancer.stop();
}

#[test]
#[ignore = "needs root"]
fn fragments_take_the_kernel_path_both_ways() {
    let lab = Lab::new(1);
    lab.start_server();
    let balancer = Setup::new(Play::Forward).start(&lab);
    for family in &FAMILIES {
        let client = lab.client_socket(family);
        for len in [2500, 9000, DATAGRAM_LEN_MAX - 20] {
            exchange(&client, address(family.vip), &addressed(&client, len));
        }
    }
    assert!(balancer.verdict(SteerVerdict::Fragment) > 12);
    // A send is counted after the call, and by then the answer may be here.
    let metrics = balancer.stop();
    assert_eq!(metrics[0].kernel_in.value(), 12);
    assert_eq!(metrics[0].kernel_out.value(), 12);
    assert_eq!(metrics[0].xdp_in.value(), 0);
    assert_eq!(metrics[0].kernel_leak.value(), 0, "fragments are no leak");
}

#[test]
#[ignore = "needs root"]
fn whole_datagrams_that_xdp_missed_are_served_and_counted() {
    let lab = Lab::new(1);
    let balancer = Setup::new(Play::Echo).start(&lab);
    balancer.program.enable(false).unwrap();
    let client = lab.client_socket(&V4);
    for _ in 0..10 {
        exchange(&client, address(V4.vip), b"through the kernel");
    }
    assert_eq!(balancer.kernel_in(), 10);
    assert_eq!(balancer.sum(|worker| worker.kernel_leak.value()), 10);
    balancer.program.enable(true).unwrap();
    exchange(&client, address(V4.vip), b"through XDP");
    assert_eq!(balancer.xdp_in(), 1);
    balancer.stop();
}

#[test]
#[ignore = "needs root"]
fn an_unresolved_neighbour_is_reached_by_the_kernel_then_by_xdp() {
    let lab = Lab::new(1);
    lab.start_server();
    let balancer = Setup::new(Play::Forward).start(&lab);
    let client = lab.client_socket(&V4);
    exchange(&client, address(V4.vip), &addressed(&client, 100));
    balancer.resolve(&client, &V4);
    assert!(balancer.kernel_out() >= 1, "the first one was unresolved");
    // The server gets another MAC address: XDP follows within 5 s.
    lab.server.ip("link set s0 address 02:00:00:00:00:77");
    client
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let deadline = clock::now() + Duration::from_secs(5);
    let mut answer = [0; 2048];
    loop {
        let sent = balancer.xdp_out();
        client
            .send_to(&addressed(&client, 100), address(V4.vip))
            .unwrap();
        if client.recv_from(&mut answer).is_ok() && balancer.xdp_out() == sent + 2 {
            break;
        }
        assert!(clock::now() < deadline, "the new address was not learnt");
    }
    balancer.stop();
}

/// Nobody listens at the server. Its kernel says so to ours, which did not send the datagram (the TX
/// ring did) and yet finds the socket that is bound to its source address.
#[test]
#[ignore = "needs root"]
fn a_closed_port_behind_a_tx_ring_comes_back_by_icmp() {
    let lab = Lab::new(1);
    let balancer = Setup::new(Play::Forward).start(&lab);
    // A host quotes 576 bytes of IPv4 and the least MTU of IPv6, headers included.
    for (family, quoted) in FAMILIES.iter().zip([520, 1184]) {
        let client = lab.client_socket(family);
        client
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        let bytes = addressed(&client, 1400);
        let mut quote = [0; 2048];
        let deadline = clock::now() + Duration::from_secs(10);
        loop {
            let (xdp_out, kernel_out) = (balancer.xdp_out(), balancer.kernel_out());
            client.send_to(&bytes, address(family.vip)).unwrap();
            let received = client.recv_from(&mut quote);
            let by_link = balancer.kernel_out() == kernel_out;
            if let (Ok((len, from)), true) = (&received, by_link && balancer.xdp_out() > xdp_out) {
                assert_eq!(*from, address(family.vip));
                assert_eq!(quote[..*len], bytes[..quoted]);
                break;
            }
            // The first ones meet an unresolved neighbour and go through the kernel.
            assert!(
                clock::now() < deadline,
                "never over the TX ring: {received:?}"
            );
            thread::sleep(Duration::from_millis(100));
        }
    }
    let metrics = balancer.stop();
    assert!(metrics[0].icmp.unreachable.value() >= 2);
    assert_eq!(metrics[0].kernel_leak.value(), 0);
}

#[test]
#[ignore = "needs root"]
fn an_idle_data_path_sleeps() {
    let lab = Lab::new(2);
    let setup = Setup {
        workers: 2,
        queues: 2,
        ..Setup::new(Play::Echo)
    };
    let balancer = setup.start(&lab);
    let client = lab.client_socket(&V4);
    exchange(&client, address(V4.vip), b"busy for a moment");
    thread::sleep(Duration::from_millis(300));
    let before = cpu_time();
    thread::sleep(Duration::from_secs(3));
    let used = cpu_time() - before;
    // 2 % of one core, and the 10 ms grain of the counter.
    assert!(used <= Duration::from_millis(60 + 10), "{used:?} in 3 s");
    exchange(&client, address(V4.vip), b"and awake again");
    balancer.stop();
}

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next().unwrap().parse::<u64>().unwrap();
    // CLK_TCK is 100 on every Linux.
    Duration::from_millis(10 * (ticks() + ticks()))
}

/// Keeps datagrams in flight from several sources until `count` were answered or 60 s are over;
/// returns the answers.
fn flood(lab: &Lab, server: SocketAddr, count: u64) -> u64 {
    const WINDOW: u64 = 192;
    const SOURCES: usize = 8;
    let local = address(V4.client);
    let sockets = Lab::inside(&lab.client, move || {
        let options = SocketOptions {
            reuse_port: false,
            freebind: false,
            receive_buffer_len: 1 << 20,
            send_buffer_len: 1 << 20,
        };
        core::iter::repeat_with(|| datagram::open(local, &options).unwrap())
            .take(SOURCES)
            .collect::<Vec<_>>()
    });
    let message = [b'x'; 507];
    let mut buffers = vec![vec![0; 2048]; BATCH];
    let (mut send, mut receive) = (SendBatch::new(), ReceiveBatch::new());
    let (mut sent, mut answered) = (0, 0);
    let deadline = clock::now() + Duration::from_secs(60);
    while answered < count && clock::now() < deadline {
        for socket in &sockets {
            let room = WINDOW.saturating_sub(sent - answered).min(16);
            let batch = usize::try_from(room).unwrap();
            let messages = core::iter::repeat_n((&message[..], server), batch);
            sent += send.send(socket, messages).unwrap_or(0) as u64;
        }
        let before = answered;
        for socket in &sockets {
            let slices = buffers.iter_mut().map(Vec::as_mut_slice);
            answered += receive.receive(socket, slices).unwrap() as u64;
        }
        if answered == before {
            let all = sockets.iter().map(AsFd::as_fd);
            if event::wait(all, Some(Duration::from_millis(100))) == 0 {
                // What is still out was lost: a veth ring has 256 entries.
                sent = answered;
            }
        }
    }
    answered
}

/// Two queues, two workers, a million messages: every frame is somewhere, and at the end all are
/// back. Half of the runs send each packet through the other worker and its shared sockets.
#[test]
#[ignore = "needs root"]
fn frames_add_up_after_a_million_messages_over_two_queues() {
    let lab = Lab::new(2);
    for play in [Play::Echo, Play::HandOver] {
        let setup = Setup {
            workers: 2,
            queues: 2,
            ..Setup::new(play)
        };
        let balancer = setup.start(&lab);
        let client = lab.client_socket(&V4);
        exchange(&client, address(V4.vip), b"resolve");
        let answered = flood(&lab, address(V4.vip), 500_000);
        assert!(answered >= 500_000, "{answered} answers");
        let each: Vec<_> = balancer
            .metrics
            .iter()
            .map(|one| one.xdp_in.value())
            .collect();
        assert!(
            each.iter().all(|count| *count > 0),
            "one queue was idle: {each:?}"
        );
        if play == Play::HandOver {
            let handed = balancer.sum(|worker| worker.hand_over_out.value());
            assert!(handed >= 500_000);
        }
        assert_eq!(balancer.sum(WorkerMetrics::dropped), 0);
        balancer.stop();
    }
}

#[test]
#[ignore = "needs root"]
fn a_data_path_comes_up_again_right_after_a_stop() {
    let lab = Lab::new(1);
    for _ in 0..3 {
        let balancer = Setup::new(Play::Echo).start(&lab);
        let client = lab.client_socket(&V4);
        exchange(&client, address(V4.vip), b"again");
        balancer.stop();
    }
}
