//! The worker loop: what a packet costs besides its decision.
//!
//! `links/*` is the XDP path over rings in memory, without the device's share: receive, decide, send
//! of full batches. `raw` swaps MAC addresses only; `echo` verifies, takes apart, looks up the way
//! and writes headers anew, which is what every message costs before SIP.
//!
//! `socket/*` is the socket datapath over loopback with real sockets; the client runs on another
//! core and keeps a window in flight, so the figure is what one worker echoes, receiving and
//! sending, when it never waits.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a bench stops at the first fault"
)]

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use viaduct::datapath::egress::{
    EgressTable, Interface as Arm, Neighbour, NextHop, Route, RouteTable, Target, Topology,
};
use viaduct::datapath::{Batch, Builder, Handler, Interface, Out, Worker};
use viaduct::limits::BATCH;
use viaduct::metrics::WorkerMetrics;
use viaduct::net::{ListenerIndex, Network};
use viaduct::packet::{self, LinkHeader, MacAddress, PartialChecksum};
use viaduct::sys::datagram::{self, ReceiveBatch, SendBatch, SocketOptions};
use viaduct::sys::{clock, cpu, event};
use viaduct::xsk::testing::{FakeDevice, device_queue};
use viaduct::xsk::{Umem, UmemConfig};

/// Length of the INVITE that the project measures with.
const MESSAGE_LEN: usize = 507;

/// Datagrams on their way at once.
const WINDOW: u64 = 256;

struct Echo;

impl Handler for Echo {
    fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, _now: viaduct::time::Instant) {
        for packet in batch.drain(..) {
            out.send(packet);
        }
    }
}

/// A client with a socket and what it needs to keep a window in flight.
struct Client {
    socket: OwnedFd,
    send: SendBatch,
    receive: ReceiveBatch,
    message: Vec<u8>,
    buffers: Vec<Vec<u8>>,
}

impl Client {
    fn new(local: SocketAddr) -> Self {
        let options = SocketOptions {
            freebind: false,
            reuse_port: false,
            receive_buffer_len: 4 << 20,
            send_buffer_len: 4 << 20,
        };
        Self {
            socket: datagram::open(local, &options).unwrap(),
            send: SendBatch::new(),
            receive: ReceiveBatch::new(),
            message: vec![b'x'; MESSAGE_LEN],
            buffers: vec![vec![0; 2048]; BATCH],
        }
    }

    /// Sends `count` datagrams and waits for as many answers; how long it took.
    fn exchange(&mut self, server: SocketAddr, count: u64) -> Duration {
        let start = clock::now();
        let (mut sent, mut received) = (0, 0);
        while received < count {
            let room = (WINDOW - (sent - received)).min(count - sent);
            if room > 0 {
                let batch = usize::try_from(room).unwrap().min(BATCH);
                let messages = core::iter::repeat_n((&self.message[..], server), batch);
                sent += self.send.send(&self.socket, messages).unwrap() as u64;
            }
            let buffers = self.buffers.iter_mut().map(Vec::as_mut_slice);
            let got = self.receive.receive(&self.socket, buffers).unwrap() as u64;
            received += got;
            if got == 0 && sent - received == WINDOW.min(count - received) {
                use std::os::fd::AsFd;
                let timeout = viaduct::time::Duration::from_secs(1);
                assert!(
                    event::wait([self.socket.as_fd()], Some(timeout)) > 0,
                    "lost {} datagrams",
                    sent - received
                );
            }
        }
        clock::now().since(start)
    }
}

fn socket(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("socket");
    group.throughput(Throughput::Elements(1));
    group.measurement_time(Duration::from_secs(5));
    let cores = cpu::cores();
    for (name, local) in [("echo-v4", "127.0.0.1:0"), ("echo-v6", "[::1]:0")] {
        let local: SocketAddr = local.parse().unwrap();
        let metrics = vec![Arc::new(WorkerMetrics::new())];
        let datapath = Builder::new(metrics.clone())
            .listener(ListenerIndex(0), local)
            .build()
            .unwrap();
        let server = datapath.local_addresses()[0];
        let running = datapath.start(|_| Echo, &cores[..1]).unwrap();
        cpu::pin(*cores.last().unwrap());
        let mut client = Client::new(local);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| client.exchange(server, count));
        });
        running.stop();
        assert_eq!(metrics[0].received(), metrics[0].sent());
    }
    group.finish();
}

/// As a handler of the rings alone would do it.
struct SwapMacs;

impl Handler for SwapMacs {
    const RAW: bool = true;

    fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, _now: viaduct::time::Instant) {
        for mut packet in batch.drain(..) {
            if let Some((dst, rest)) = packet.payload_mut().split_first_chunk_mut::<6>()
                && let Some(src) = rest.first_chunk_mut::<6>()
            {
                core::mem::swap(dst, src);
            }
            out.send(packet);
        }
    }
}

const ARM: u32 = 7;

/// A link to `peer`, whose MAC address is known.
fn egress(peer: SocketAddr) -> EgressTable {
    EgressTable::build(&Topology {
        interfaces: vec![Arm {
            ifindex: ARM,
            name: "arm".to_owned(),
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            usable: true,
            addresses: Vec::new(),
        }],
        routes: vec![Route {
            table: RouteTable::Main,
            destination: Network::new(peer.ip(), 24).unwrap(),
            metric: 0,
            mtu: None,
            target: Target::Hops(vec![NextHop {
                ifindex: ARM,
                gateway: None,
            }]),
        }],
        neighbours: vec![Neighbour {
            ifindex: ARM,
            address: peer.ip(),
            mac: MacAddress([2, 0, 0, 0, 0, 2]),
        }],
        ..Topology::default()
    })
}

/// CPU time of this thread: what others do on a shared machine is not ours.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}

/// CPU time of `count` packets through a worker, in full batches.
fn laps<H: Handler>(
    worker: &mut Worker,
    device: &mut FakeDevice,
    handler: &mut H,
    frame: &[u8],
    count: u64,
) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..count.div_ceil(BATCH as u64) {
        for _ in 0..BATCH {
            assert!(device.deliver(0, frame));
        }
        let now = clock::now();
        let start = cpu_time();
        let work = worker.turn(handler, now);
        took += cpu_time() - start;
        assert_eq!(work, BATCH);
        for _ in 0..BATCH {
            assert!(device.send(0, |_| {}));
        }
    }
    took
}

fn links(criterion: &mut Criterion) {
    let client: SocketAddr = "198.18.0.1:5061".parse().unwrap();
    let vip: SocketAddr = "198.18.0.100:5060".parse().unwrap();
    let mut bytes = vec![0; 100];
    bytes.resize(100 + MESSAGE_LEN, b'x');
    let range = 100..bytes.len();
    let start = packet::emit(&mut bytes, range, &LinkHeader::default(), client, vip, 64).unwrap();
    let frame = bytes.split_off(start);

    let umem = Umem::map(UmemConfig::for_rings(1, 1, 1)).unwrap();
    let (queue, mut device) = device_queue(umem, 1, 0, &mut umem.cache()).unwrap();
    let interface = Interface {
        ifindex: ARM,
        queues: 1,
        partial_checksum: PartialChecksum::Reject,
    };
    let metrics = vec![Arc::new(WorkerMetrics::new())];
    let (datapath, _network) = Builder::new(metrics.clone())
        .listener(ListenerIndex(0), vip)
        .egress(Arc::new(ArcSwap::from_pointee(egress(client))))
        .build_sim(vec![(interface, 0, queue)])
        .unwrap();
    let mut worker = datapath.into_workers().remove(0);

    let mut group = criterion.benchmark_group("links");
    group.throughput(Throughput::Elements(1));
    group.bench_function("echo", |bencher| {
        bencher.iter_custom(|count| laps(&mut worker, &mut device, &mut Echo, &frame, count));
    });
    assert_eq!(metrics[0].xdp_in.value(), metrics[0].xdp_out.value());
    group.finish();

    // A worker takes its mode from its first handler.
    let (queue, mut device) = device_queue(umem, 1, 0, &mut umem.cache()).unwrap();
    let (datapath, _network) = Builder::new(metrics)
        .listener(ListenerIndex(0), vip)
        .build_sim(vec![(interface, 0, queue)])
        .unwrap();
    let mut worker = datapath.into_workers().remove(0);
    let mut group = criterion.benchmark_group("links");
    group.throughput(Throughput::Elements(1));
    group.bench_function("raw", |bencher| {
        bencher.iter_custom(|count| laps(&mut worker, &mut device, &mut SwapMacs, &frame, count));
    });
    group.finish();
}

criterion_group!(benches, links, socket);
criterion_main!(benches);
