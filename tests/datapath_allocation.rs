//! A worker that has started does not allocate: a counting allocator watches its thread.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    reason = "an allocator is unsafe; a test fails by panicking"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;

use viaduct::datapath::{Batch, Builder, Handler, Interface, Out, Worker};
use viaduct::limits::BATCH;
use viaduct::metrics::WorkerMetrics;
use viaduct::net::{ListenerIndex, WorkerIndex};
use viaduct::packet::{self, LinkHeader, PartialChecksum};
use viaduct::sys::{clock, event};
use viaduct::time::{Duration, Instant};
use viaduct::verdict::DropReason;
use viaduct::xsk::testing::device_queue;
use viaduct::xsk::{HugePages, Umem, UmemConfig};

struct Counting;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn note() {
    if WATCHED.get() {
        COUNT.set(COUNT.get() + 1);
    }
}

// SAFETY: hands everything to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note();
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, len) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations and frees of this thread while `work` runs.
fn count(work: impl FnOnce()) -> u64 {
    COUNT.set(0);
    WATCHED.set(true);
    work();
    WATCHED.set(false);
    COUNT.get()
}

#[test]
fn the_watch_sees_an_allocation() {
    assert_eq!(count(|| drop(std::hint::black_box(Box::new(7)))), 2);
}

/// Every exit there is: send, drop, hand over, a packet of its own.
struct Exits {
    turn: usize,
}

impl Handler for Exits {
    fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, now: Instant) {
        out.wake_at(now);
        for packet in batch.drain(..) {
            self.turn += 1;
            match self.turn % 4 {
                0 => out.drop(packet, DropReason::NotSip),
                1 => out.hand_over(packet, WorkerIndex(1 - out.worker().0)),
                2 => {
                    if let Some(mut own) = out.allocate() {
                        own.flow = packet.flow;
                        own.edit(|buffer, _| buffer.replace(packet.payload()))
                            .unwrap();
                        out.send(own);
                    }
                    out.send(packet);
                }
                _ => out.send(packet),
            }
        }
    }
}

const VIP: &str = "127.0.0.1:0";

fn turn_all(workers: &mut [Worker], handler: &mut Exits) {
    for worker in workers {
        worker.turn(handler, clock::now());
    }
}

#[test]
fn a_worker_does_not_allocate() {
    let umem = Umem::map(UmemConfig {
        frame_count: 3 * 4096,
        huge_pages: HugePages::Never,
    })
    .unwrap();
    let (queue, mut device) = device_queue(umem, 2, 0, &mut umem.cache()).unwrap();
    let interface = Interface {
        ifindex: 7,
        queues: 1,
        partial_checksum: PartialChecksum::Reject,
    };
    let metrics: Vec<_> = (0..2).map(|_| Arc::new(WorkerMetrics::new())).collect();
    let (datapath, _) = Builder::new(metrics.clone())
        .listener(ListenerIndex(0), "198.18.0.100:5060".parse().unwrap())
        .build_sim(vec![(interface, 0, queue)])
        .unwrap();
    let mut workers = datapath.into_workers();
    let mut handler = Exits { turn: 0 };

    let mut bytes = vec![b'x'; 600];
    let (client, vip): (SocketAddr, SocketAddr) = (
        "198.18.0.1:5061".parse().unwrap(),
        "198.18.0.100:5060".parse().unwrap(),
    );
    let start = packet::emit(
        &mut bytes,
        100..600,
        &LinkHeader::default(),
        client,
        vip,
        64,
    )
    .unwrap();
    let mut frame = bytes.split_off(start);
    let mut raw_bits = 0u8;
    for _ in 0..200 {
        for _ in 0..BATCH {
            // One in 256 is damaged.
            raw_bits = raw_bits.wrapping_add(1);
            let at = frame.len() - 1;
            frame[at] ^= u8::from(raw_bits == 0);
            assert!(device.deliver(0, &frame));
            frame[at] ^= u8::from(raw_bits == 0);
        }
        // Without an egress table everything is sent by the network in memory, which allocates
        // what it keeps; so only what is dropped or handed over is watched here.
        let mut dropper = Drops;
        let allocations = count(|| {
            for worker in &mut workers {
                worker.turn(&mut dropper, clock::now());
            }
        });
        assert_eq!(allocations, 0);
        while device.send(0, |_| {}) || device.send(1, |_| {}) {}
    }
    turn_all(&mut workers, &mut handler);
    assert!(metrics[1].hand_over_in.value() > 5000);
    assert!(metrics[0].drops[DropReason::UdpChecksum as usize].value() > 40);
}

/// Half is handed over, the other half dropped.
struct Drops;

impl Handler for Drops {
    fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, _now: Instant) {
        for (position, packet) in batch.drain(..).enumerate() {
            if out.worker() == WorkerIndex(0) && position % 2 == 0 {
                out.hand_over(packet, WorkerIndex(1));
            } else {
                out.drop(packet, DropReason::NotSip);
            }
        }
    }
}

#[test]
fn a_worker_on_kernel_sockets_does_not_allocate() {
    let metrics: Vec<_> = (0..1).map(|_| Arc::new(WorkerMetrics::new())).collect();
    let datapath = Builder::new(metrics.clone())
        .listener(ListenerIndex(0), VIP.parse().unwrap())
        .listener(ListenerIndex(1), "[::1]:0".parse().unwrap())
        .build()
        .unwrap();
    let addresses = datapath.local_addresses();
    let mut workers = datapath.into_workers();
    let mut handler = Exits { turn: 0 };
    let clients = [
        UdpSocket::bind("127.0.0.1:0").unwrap(),
        UdpSocket::bind("[::1]:0").unwrap(),
    ];
    let datagram = [b'x'; 9000];
    let mut answered = 0;
    for round in 0..300 {
        for (client, server) in clients.iter().zip(&addresses) {
            for len in [0, 507, 1500, 9000] {
                client.send_to(&datagram[..len], server).unwrap();
            }
        }
        let allocations = count(|| turn_all(&mut workers, &mut handler));
        assert_eq!(allocations, 0, "round {round}");
        let mut buffer = [0; 9000];
        for client in &clients {
            client.set_nonblocking(true).unwrap();
            while client.recv(&mut buffer).is_ok() {
                answered += 1;
            }
        }
    }
    assert!(answered > 1500, "{answered}");
    let waiting = clients.iter().map(AsFd::as_fd);
    assert_eq!(event::wait(waiting, Some(Duration::ZERO)), 0);
}
