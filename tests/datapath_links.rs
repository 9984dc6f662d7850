//! XDP links over rings in memory: the test is the device. Frames in, frames out, and every frame
//! accounted for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use viaduct::datapath::egress::{
    EgressTable, Interface as Arm, Neighbour, NextHop, Route, RouteTable, Target, Topology,
};
use viaduct::datapath::sim::Network;
use viaduct::datapath::{Batch, Builder, Handler, Interface, Origin, Out, Worker};
use viaduct::limits::{FILL_RING_LEN, HAND_OVER_RING_LEN, RING_LEN};
use viaduct::metrics::WorkerMetrics;
use viaduct::net::{ListenerIndex, WorkerIndex};
use viaduct::packet::{self, LinkHeader, MacAddress, PartialChecksum};
use viaduct::time::Instant;
use viaduct::verdict::DropReason;
use viaduct::xsk::testing::{FakeDevice, device_queue};
use viaduct::xsk::{HugePages, Umem, UmemConfig};

const CLIENT_ARM: u32 = 7;
const FARM_ARM: u32 = 9;
const MTU: u32 = 1500;
/// Only reachable through the farm arm.
const SERVER: &str = "198.19.0.11:5060";
const CLIENT: &str = "198.18.0.1:5061";
const VIP: &str = "198.18.0.100:5060";
const FARM_VIP: &str = "198.19.0.100:5060";

fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, last])
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Two Ethernet links, a client on one, a server on the other, both with known MAC addresses.
fn egress() -> EgressTable {
    let arm = |ifindex, ip: &str, last| Arm {
        ifindex,
        name: format!("arm{ifindex}"),
        mac: mac(last),
        mtu: MTU,
        usable: true,
        addresses: vec![ip.parse::<IpAddr>().unwrap()],
    };
    let route = |destination: &str, ifindex| Route {
        table: RouteTable::Main,
        destination: destination.parse().unwrap(),
        metric: 0,
        mtu: None,
        target: Target::Hops(vec![NextHop {
            ifindex,
            gateway: None,
        }]),
    };
    let neighbour = |ifindex, peer: &str, last| Neighbour {
        ifindex,
        address: address(peer).ip(),
        mac: mac(last),
    };
    EgressTable::build(&Topology {
        interfaces: vec![
            arm(CLIENT_ARM, "198.18.0.100", 0xc0),
            arm(FARM_ARM, "198.19.0.100", 0xf0),
            arm(99, "203.0.113.1", 0x99),
        ],
        routes: vec![
            route("198.18.0.0/24", CLIENT_ARM),
            route("198.19.0.0/24", FARM_ARM),
            route("203.0.113.0/24", 99),
        ],
        neighbours: vec![
            neighbour(CLIENT_ARM, CLIENT, 0xc1),
            neighbour(FARM_ARM, SERVER, 0xf1),
            neighbour(99, "203.0.113.9:1", 0x9a),
        ],
        ..Topology::default()
    })
}

/// Sends to the server what comes from the client and the other way; the payload may say
/// otherwise.
struct Forward;

impl Handler for Forward {
    fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, _now: Instant) {
        for mut packet in batch.drain(..) {
            let flow = packet.flow;
            match packet.payload().first() {
                Some(b'e') => {}
                Some(b'h') if packet.origin() == Origin::Xdp => {
                    out.hand_over(packet, WorkerIndex(1 - out.worker().0));
                    continue;
                }
                Some(b'u') => packet.flow.peer = address("198.18.0.200:5060"),
                Some(b'x') => packet.flow.peer = address("203.0.113.9:5060"),
                Some(b'g') => {
                    // Grows over the MTU.
                    let long = vec![b'g'; 1473];
                    packet.edit(|buffer, _| buffer.replace(&long)).unwrap();
                }
                Some(b'm') => {
                    let exact = vec![b'm'; 1472];
                    packet.edit(|buffer, _| buffer.replace(&exact)).unwrap();
                }
                _ if flow.local == address(VIP) => {
                    packet.flow.listener = ListenerIndex(1);
                    packet.flow.local = address(FARM_VIP);
                    packet.flow.peer = address(SERVER);
                }
                _ => {
                    packet.flow.listener = ListenerIndex(0);
                    packet.flow.local = address(VIP);
                    packet.flow.peer = address(CLIENT);
                }
            }
            out.send(packet);
        }
    }
}

struct Lab {
    workers: Vec<Worker>,
    networks: Vec<Network>,
    metrics: Vec<Arc<WorkerMetrics>>,
    /// The client arm's queue 0, the farm arm's queue 0.
    devices: Vec<FakeDevice>,
    umem: &'static Umem,
}

fn lab(workers: usize, frames: usize, ring_index: u32) -> Lab {
    let umem = Umem::map(UmemConfig {
        frame_count: frames,
        huge_pages: HugePages::Never,
    })
    .unwrap();
    let mut cache = umem.cache();
    let mut queues = Vec::new();
    let mut devices = Vec::new();
    for ifindex in [CLIENT_ARM, FARM_ARM] {
        let (queue, device) = device_queue(umem, workers, ring_index, &mut cache).unwrap();
        let interface = Interface {
            ifindex,
            queues: 1,
            partial_checksum: PartialChecksum::Reject,
        };
        queues.push((interface, 0, queue));
        devices.push(device);
    }
    drop(cache);
    let metrics: Vec<_> = (0..workers)
        .map(|_| Arc::new(WorkerMetrics::new()))
        .collect();
    let (datapath, networks) = Builder::new(metrics.clone())
        .listener(ListenerIndex(0), address(VIP))
        .listener(ListenerIndex(1), address(FARM_VIP))
        .egress(Arc::new(ArcSwap::from_pointee(egress())))
        .build_sim(queues)
        .unwrap();
    Lab {
        workers: datapath.into_workers(),
        networks,
        metrics,
        devices,
        umem,
    }
}

const PLENTY: usize = 3 * FILL_RING_LEN as usize;

fn frame(src: &str, dst: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 100];
    bytes.extend_from_slice(payload);
    let range = 100..bytes.len();
    let link = LinkHeader::default();
    let start = packet::emit(&mut bytes, range, &link, address(src), address(dst), 64).unwrap();
    bytes.split_off(start)
}

impl Lab {
    fn settle(&mut self) {
        self.settle_with(&mut Forward);
    }

    fn settle_with<H: Handler>(&mut self, handler: &mut H) {
        let mut idle = 0;
        while idle < 70 {
            let mut work = 0;
            for worker in &mut self.workers {
                work += worker.turn(handler, Instant::from_nanos(1));
            }
            // Kernel sockets are looked at every 64 rounds.
            idle = if work == 0 { idle + 1 } else { 0 };
        }
    }

    /// Frames that left through a device, by any worker's socket.
    fn sent(&mut self, device: usize) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        for port in 0..self.workers.len() {
            while self.devices[device].send(port, |data| sent.push(data.to_vec())) {}
        }
        sent
    }

    fn drops(&self, reason: DropReason) -> u64 {
        let drops = self.metrics.iter().map(|one| &one.drops[reason as usize]);
        drops.map(viaduct::metrics::Counter::value).sum()
    }

    /// Packets: in = out + drops. Frames: those in the rings and the pool are all there are, but
    /// for two slabs in each worker's cache.
    fn assert_conserved(&self) {
        for (index, metrics) in self.metrics.iter().enumerate() {
            let taken =
                metrics.received() + metrics.hand_over_in.value() + metrics.originated.value();
            let given = metrics.sent()
                + metrics.hand_over_out.value()
                + metrics.absorbed.value()
                + metrics.dropped();
            assert_eq!(taken, given, "worker {index}");
        }
        let census = self.umem.census();
        let seen = census.pooled + census.orphans + census.receiving + census.sending;
        assert!(
            census.total - seen <= self.workers.len() * 128,
            "{census:?}"
        );
        assert_eq!(self.umem.pool().orphans_total(), 0, "a frame was dropped");
        assert_eq!(self.umem.refused(), 0);
    }
}

#[test]
fn a_datagram_goes_out_the_other_arm_with_the_servers_address_and_back() {
    let mut lab = lab(1, PLENTY, 0);
    assert!(lab.devices[0].deliver(0, &frame(CLIENT, VIP, b"request")));
    assert!(lab.devices[1].deliver(0, &frame(SERVER, FARM_VIP, b"response")));
    lab.settle();
    let to_server = lab.sent(1);
    let to_client = lab.sent(0);
    assert_eq!((to_server.len(), to_client.len()), (1, 1));
    let headers = packet::parse(&to_server[0], PartialChecksum::Reject).unwrap();
    assert_eq!(headers.src, address(FARM_VIP));
    assert_eq!(headers.dst, address(SERVER));
    assert_eq!((headers.src_mac, headers.dst_mac), (mac(0xf0), mac(0xf1)));
    assert_eq!(&to_server[0][headers.payload], b"request");
    let headers = packet::parse(&to_client[0], PartialChecksum::Reject).unwrap();
    assert_eq!(headers.src, address(VIP));
    assert_eq!(headers.dst, address(CLIENT));
    assert_eq!((headers.src_mac, headers.dst_mac), (mac(0xc0), mac(0xc1)));
    assert_eq!(lab.metrics[0].xdp_in.value(), 2);
    assert_eq!(lab.metrics[0].xdp_out.value(), 2);
    assert_eq!(
        lab.metrics[0]
            .listener(ListenerIndex(0))
            .messages_in
            .value(),
        1
    );
    assert_eq!(
        lab.metrics[0]
            .listener(ListenerIndex(1))
            .messages_out
            .value(),
        1
    );
    lab.settle();
    lab.assert_conserved();
}

#[test]
fn one_arm_answers_where_the_datagram_came_in() {
    let mut lab = lab(1, PLENTY, u32::MAX - 100);
    for _ in 0..500 {
        assert!(lab.devices[0].deliver(0, &frame(CLIENT, VIP, b"echo")));
    }
    lab.settle();
    assert_eq!(lab.sent(0).len(), 500);
    assert_eq!(lab.sent(1).len(), 0);
    lab.settle();
    lab.assert_conserved();
}

/// 64 × 200 frames through a ring of 2,048 whose indices wrap on the way.
#[test]
fn frames_add_up_after_many_laps() {
    let mut lab = lab(1, PLENTY, u32::MAX - 3000);
    let request = frame(CLIENT, VIP, b"request");
    for _ in 0..200 {
        for _ in 0..64 {
            assert!(lab.devices[0].deliver(0, &request));
        }
        lab.workers[0].turn(&mut Forward, Instant::from_nanos(1));
        assert_eq!(lab.sent(1).len(), 64);
    }
    lab.settle();
    assert_eq!(lab.metrics[0].xdp_out.value(), 12_800);
    let census = lab.umem.census();
    assert_eq!(census.sending, 0, "completions were not reclaimed");
    assert_eq!(
        census.receiving, FILL_RING_LEN as usize,
        "two half fill rings"
    );
    lab.assert_conserved();
}

/// Notes how full the worker says its queues are.
#[derive(Default)]
struct Watch(Vec<u8>);

impl Handler for Watch {
    fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, _now: Instant) {
        self.0.push(out.pressure());
        for packet in batch.drain(..) {
            out.send(packet);
        }
    }
}

/// What waits on the RX ring behind a batch is told as it shrinks, and an empty ring as empty.
#[test]
fn the_fill_of_the_rx_ring_is_told_to_the_handler() {
    let mut lab = lab(1, PLENTY, 0);
    for _ in 0..1024 {
        assert!(lab.devices[0].deliver(0, &frame(CLIENT, VIP, b"echo")));
    }
    let mut watch = Watch::default();
    lab.settle_with(&mut watch);
    assert_eq!(watch.0.len(), 16);
    // 960 of 2,048 behind the first batch.
    assert_eq!(watch.0[0], 46);
    assert!(watch.0.is_sorted_by(|a, b| a >= b), "{:?}", watch.0);
    // Until all rings were looked at again the last round's fill counts.
    assert!(watch.0[15] <= 3, "{:?}", watch.0);
    watch.0.clear();
    assert!(lab.devices[0].deliver(0, &frame(CLIENT, VIP, b"echo")));
    lab.settle_with(&mut watch);
    assert_eq!(watch.0, [0]);
    assert_eq!(lab.sent(0).len(), 1025);
    lab.settle();
    lab.assert_conserved();
}

#[test]
fn what_a_link_cannot_send_the_kernel_gets() {
    let mut lab = lab(1, PLENTY, 0);
    for payload in [
        &b"unresolved"[..],
        b"x: no link there",
        b"grows",
        b"m: fits exactly",
    ] {
        assert!(lab.devices[0].deliver(0, &frame(CLIENT, VIP, payload)));
    }
    lab.settle();
    let by_kernel = lab.networks[0].sent();
    let expected: [(&str, usize); 3] = [
        ("198.18.0.200:5060", 10),
        ("203.0.113.9:5060", 16),
        (CLIENT, 1473),
    ];
    let got: Vec<_> = by_kernel
        .iter()
        .map(|one| (one.peer.to_string(), one.payload.len()))
        .collect();
    for (peer, len) in expected {
        assert!(got.contains(&(peer.to_owned(), len)), "{got:?}");
    }
    assert_eq!(got.len(), 3);
    let frames = lab.sent(0);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].len(), 14 + MTU as usize);
    assert_eq!(lab.metrics[0].kernel_out.value(), 3);
    assert_eq!(lab.metrics[0].xdp_out.value(), 1);
    lab.settle();
    lab.assert_conserved();
}

#[test]
fn a_kernel_datagram_is_answered_by_the_kernel_from_the_egress_address() {
    let mut lab = lab(1, PLENTY, 0);
    let long = vec![b'r'; 9000];
    lab.networks[0].deliver(ListenerIndex(0), address(CLIENT), &long);
    lab.settle();
    let sent = lab.networks[0].sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].listener, ListenerIndex(1));
    assert_eq!(sent[0].peer, address(SERVER));
    assert_eq!(sent[0].payload, long);
    lab.assert_conserved();
}

#[test]
fn damaged_and_foreign_frames_are_dropped_by_reason() {
    let mut lab = lab(1, PLENTY, 0);
    let mut flipped = frame(CLIENT, VIP, b"request");
    *flipped.last_mut().unwrap() ^= 1;
    assert!(lab.devices[0].deliver(0, &flipped));
    assert!(lab.devices[0].deliver(0, &frame(CLIENT, "198.18.0.100:5062", b"request")));
    assert!(lab.devices[0].deliver(0, &[0; 13]));
    assert!(lab.devices[0].deliver(0, &frame(CLIENT, VIP, b"echo")));
    lab.settle();
    assert_eq!(lab.drops(DropReason::UdpChecksum), 1);
    assert_eq!(lab.drops(DropReason::NotOurs), 1);
    assert_eq!(lab.drops(DropReason::Truncated), 1);
    assert_eq!(lab.sent(0).len(), 1);
    lab.settle();
    lab.assert_conserved();
}

#[test]
fn a_device_that_sends_nothing_costs_counted_drops_and_no_frame() {
    let mut lab = lab(1, PLENTY, 0);
    let request = frame(CLIENT, VIP, b"request");
    let ring = RING_LEN as usize;
    for _ in 0..(ring + 640) / 64 {
        for _ in 0..64 {
            assert!(lab.devices[0].deliver(0, &request));
        }
        lab.workers[0].turn(&mut Forward, Instant::from_nanos(1));
    }
    assert_eq!(lab.drops(DropReason::TxRingFull), 640);
    assert_eq!(lab.metrics[0].xdp_out.value(), ring as u64);
    lab.assert_conserved();
    assert_eq!(lab.sent(1).len(), ring);
    lab.settle();
    assert_eq!(lab.umem.census().sending, 0);
    lab.assert_conserved();
}

#[test]
fn without_free_frames_the_device_drops_and_nothing_breaks() {
    // Just enough for the two fill rings.
    let mut lab = lab(1, FILL_RING_LEN as usize, 0);
    let request = frame(CLIENT, VIP, b"request");
    let mut taken = 0;
    // Nothing is completed, so every frame ends up on the TX ring, which is as long.
    for _ in 0..100 {
        for _ in 0..64 {
            taken += u64::from(lab.devices[0].deliver(0, &request));
        }
        lab.workers[0].turn(&mut Forward, Instant::from_nanos(1));
    }
    assert_eq!(taken, u64::from(RING_LEN));
    assert_eq!(lab.sent(1).len(), RING_LEN as usize);
    lab.settle();
    assert!(lab.devices[0].deliver(0, &request), "frames came back");
    lab.settle();
    lab.assert_conserved();
}

/// A packet of our own takes a frame, and a kernel buffer when there is none.
#[test]
fn own_packets_prefer_frames() {
    struct Own;
    impl Handler for Own {
        fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, _now: Instant) {
            for packet in batch.drain(..) {
                let mut own = out.allocate().unwrap();
                own.flow = packet.flow;
                own.edit(|buffer, _| buffer.replace(b"answer")).unwrap();
                out.send(own);
                out.drop(packet, DropReason::Keepalive);
            }
        }
    }
    let mut lab = lab(1, PLENTY, 0);
    assert!(lab.devices[0].deliver(0, &frame(CLIENT, VIP, b"ask")));
    lab.settle_with(&mut Own);
    let sent = lab.sent(0);
    let headers = packet::parse(&sent[0], PartialChecksum::Reject).unwrap();
    assert_eq!(&sent[0][headers.payload], b"answer");
    assert_eq!(lab.metrics[0].originated.value(), 1);
    lab.settle();
    lab.assert_conserved();
}

#[test]
fn raw_frames_go_back_where_they_came_in_as_they_are() {
    struct SwapMacs;
    impl Handler for SwapMacs {
        const RAW: bool = true;
        fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, _now: Instant) {
            for mut packet in batch.drain(..) {
                let (dst, src) = packet.payload_mut().split_at_mut(6);
                dst.swap_with_slice(&mut src[..6]);
                out.send(packet);
            }
        }
    }
    let mut lab = lab(1, PLENTY, 0);
    let frames: Vec<Vec<u8>> = (0..100u8).map(|number| vec![number; 60]).collect();
    for bytes in &frames {
        assert!(lab.devices[1].deliver(0, bytes));
    }
    lab.settle_with(&mut SwapMacs);
    assert_eq!(lab.sent(1), frames);
    lab.settle_with(&mut SwapMacs);
    lab.assert_conserved();
}

#[test]
fn a_frame_handed_over_is_sent_on_the_other_workers_socket() {
    let mut lab = lab(2, 2 * PLENTY, 0);
    for _ in 0..200 {
        assert!(lab.devices[0].deliver(0, &frame(CLIENT, VIP, b"hand over")));
    }
    lab.settle();
    let mut by_other = 0;
    while lab.devices[1].send(1, |_| {}) {
        by_other += 1;
    }
    assert_eq!(by_other, 200, "worker 1 has its own socket on the farm arm");
    assert_eq!(lab.metrics[0].hand_over_out.value(), 200);
    assert_eq!(lab.metrics[1].hand_over_in.value(), 200);
    assert_eq!(lab.metrics[1].xdp_out.value(), 200);
    lab.settle();
    // The completions were reclaimed although worker 1 owns no rings.
    assert_eq!(lab.umem.census().sending, 0);
    lab.assert_conserved();
}

#[test]
fn a_full_hand_over_ring_is_a_counted_drop() {
    let mut lab = lab(2, 2 * PLENTY, 0);
    let request = frame(CLIENT, VIP, b"hand over");
    let offered = HAND_OVER_RING_LEN + 320;
    for _ in 0..offered / 64 {
        for _ in 0..64 {
            assert!(lab.devices[0].deliver(0, &request));
        }
        lab.workers[0].turn(&mut Forward, Instant::from_nanos(1));
    }
    assert_eq!(lab.drops(DropReason::HandOverFull), 320);
    for _ in 0..offered / 64 + 80 {
        lab.workers[1].turn(&mut Forward, Instant::from_nanos(1));
        lab.sent(1);
    }
    assert_eq!(
        lab.metrics[1].hand_over_in.value(),
        HAND_OVER_RING_LEN as u64
    );
    lab.settle();
    lab.assert_conserved();
}
