//! The worker loop over networks in memory: every packet in leaves exactly once, whatever the
//! network refuses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use viaduct::datapath::sim::Network;
use viaduct::datapath::{Batch, Builder, Handler, Idle, Origin, Out, Packet, Worker};
use viaduct::limits::{BATCH, HAND_OVER_RING_LEN, KERNEL_BUFFERS_PER_WORKER};
use viaduct::metrics::WorkerMetrics;
use viaduct::net::{ListenerIndex, WorkerIndex};
use viaduct::time::{Duration, Instant};
use viaduct::verdict::DropReason;

const LISTENER: ListenerIndex = ListenerIndex(3);

fn peer(number: u16) -> SocketAddr {
    SocketAddr::from(([198, 18, 0, 1], number))
}

/// Decides by the first byte: `e`cho, `d`rop, `h`and over to the other worker, `s`end
/// from an address that is no listener's, `t`wice (a copy of its own).
#[derive(Default)]
struct Script {
    timers: usize,
}

impl Script {
    fn decide(mut packet: Packet, out: &mut Out<'_>) {
        if packet.origin() == Origin::HandOver {
            return out.send(packet);
        }
        match packet.payload().first() {
            Some(b'd') => out.drop(packet, DropReason::NotSip),
            Some(b'h') => {
                let other = WorkerIndex(1 - out.worker().0);
                out.hand_over(packet, other);
            }
            Some(b's') => {
                packet.flow.local = peer(1);
                out.send(packet);
            }
            Some(b't') => {
                if let Some(mut copy) = out.allocate() {
                    copy.flow = packet.flow;
                    copy.edit(|buffer, _| buffer.replace(packet.payload()))
                        .unwrap();
                    out.send(copy);
                }
                out.send(packet);
            }
            _ => out.send(packet),
        }
    }
}

impl Handler for Script {
    fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, now: Instant) {
        out.wake_at(now + Duration::from_millis(5));
        for packet in batch.drain(..) {
            Self::decide(packet, out);
        }
    }

    fn on_timer(&mut self, now: Instant, _out: &mut Out<'_>) -> Option<Instant> {
        self.timers += 1;
        (self.timers == 1).then(|| now + Duration::from_millis(100))
    }
}

struct Lab {
    workers: Vec<Worker>,
    networks: Vec<Network>,
    metrics: Vec<Arc<WorkerMetrics>>,
}

fn lab(workers: usize) -> Lab {
    let metrics: Vec<_> = (0..workers)
        .map(|_| Arc::new(WorkerMetrics::new()))
        .collect();
    let (datapath, networks) = Builder::new(metrics.clone())
        .listener(LISTENER, "198.18.0.100:5060".parse().unwrap())
        .build_sim(Vec::new())
        .unwrap();
    Lab {
        workers: datapath.into_workers(),
        networks,
        metrics,
    }
}

impl Lab {
    fn deliver(&self, worker: usize, count: u16, payload: &[u8]) {
        for number in 0..count {
            self.networks[worker].deliver(LISTENER, peer(1000 + number), payload);
        }
    }

    /// Turns all workers until nothing moves.
    fn settle(&mut self) {
        let mut handler = Script::default();
        loop {
            let mut work = 0;
            for worker in &mut self.workers {
                work += worker.turn(&mut handler, Instant::from_nanos(1));
            }
            if work == 0 {
                break;
            }
        }
    }

    fn drops(&self, worker: usize, reason: DropReason) -> u64 {
        self.metrics[worker].drops[reason as usize].value()
    }

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
    }
}

#[test]
fn what_comes_in_goes_back_with_its_bytes_and_peer() {
    let mut lab = lab(1);
    lab.deliver(0, 200, b"echo");
    lab.settle();
    let sent = lab.networks[0].sent();
    assert_eq!(sent.len(), 200);
    assert!(
        sent.iter()
            .all(|one| one.payload == b"echo" && one.listener == LISTENER)
    );
    let peers: std::collections::BTreeSet<_> = sent.iter().map(|one| one.peer).collect();
    assert_eq!(peers.len(), 200);
    assert_eq!(lab.metrics[0].kernel_in.value(), 200);
    assert_eq!(lab.metrics[0].listener(LISTENER).messages_in.value(), 200);
    assert_eq!(lab.metrics[0].listener(LISTENER).messages_out.value(), 200);
    lab.assert_conserved();
}

#[test]
fn a_socket_that_takes_only_part_of_a_batch_gets_the_rest_again() {
    for send_max in [1, 2, 63, 64] {
        let mut lab = lab(1);
        lab.networks[0].set_send_max(Some(send_max));
        lab.deliver(0, 130, b"echo");
        lab.settle();
        assert_eq!(lab.networks[0].sent().len(), 130);
        lab.assert_conserved();
    }
}

#[test]
fn a_socket_full_for_a_moment_loses_nothing_and_for_long_is_a_counted_drop() {
    let mut lab = lab(1);
    lab.networks[0].refuse([ErrorKind::WouldBlock; 3]);
    lab.deliver(0, 10, b"echo");
    lab.settle();
    assert_eq!(lab.networks[0].sent().len(), 10);
    lab.networks[0].set_send_max(Some(0));
    lab.deliver(0, 10, b"echo");
    lab.settle();
    assert_eq!(lab.networks[0].sent().len(), 0);
    assert_eq!(lab.drops(0, DropReason::KernelSend), 10);
    lab.assert_conserved();
}

#[test]
fn one_unreachable_peer_costs_only_its_own_datagram() {
    let mut lab = lab(1);
    lab.networks[0].set_unreachable(Some(peer(1005)));
    lab.deliver(0, 10, b"echo");
    lab.settle();
    assert_eq!(lab.networks[0].sent().len(), 9);
    assert_eq!(lab.drops(0, DropReason::Unreachable), 1);
    lab.assert_conserved();
}

#[test]
fn handed_over_packets_are_sent_by_the_other_worker() {
    let mut lab = lab(2);
    lab.deliver(0, 100, b"hand over");
    lab.settle();
    assert_eq!(lab.networks[0].sent().len(), 0);
    assert_eq!(lab.networks[1].sent().len(), 100);
    assert_eq!(lab.metrics[0].hand_over_out.value(), 100);
    assert_eq!(lab.metrics[1].hand_over_in.value(), 100);
    lab.assert_conserved();
}

#[test]
fn a_worker_that_does_not_turn_costs_buffers_and_no_packet() {
    let mut lab = lab(2);
    let mut handler = Script::default();
    // Worker 1 does not turn: what it is handed stays in its ring until all buffers are there.
    let offered = u16::try_from(HAND_OVER_RING_LEN + 3 * BATCH).unwrap();
    lab.deliver(0, offered, b"hand over");
    let mut idle = 0;
    while idle < 3 {
        let work = lab.workers[0].turn(&mut handler, Instant::from_nanos(1));
        idle = if work == 0 { idle + 1 } else { 0 };
    }
    // Out of buffers: the rest waits in the network, where a kernel would hold it.
    let held = lab.metrics[0].hand_over_out.value();
    assert!(held <= 2 * KERNEL_BUFFERS_PER_WORKER as u64);
    assert_eq!(lab.networks[0].waiting() as u64, u64::from(offered) - held);
    lab.settle();
    assert_eq!(lab.networks[1].sent().len(), usize::from(offered));
    lab.assert_conserved();
}

#[test]
fn drops_and_packets_without_egress_are_counted_by_reason() {
    let mut lab = lab(1);
    lab.deliver(0, 5, b"drop");
    lab.deliver(0, 6, b"send from elsewhere");
    lab.settle();
    assert_eq!(lab.drops(0, DropReason::NotSip), 5);
    assert_eq!(lab.drops(0, DropReason::NoEgress), 6);
    lab.assert_conserved();
    // Ten rounds more than there are buffers: none was lost.
    for _ in 0..10 {
        lab.deliver(0, 300, b"drop");
        lab.settle();
    }
    assert_eq!(lab.drops(0, DropReason::NotSip), 3005);
}

#[test]
fn more_than_a_batch_can_be_sent_from_one_batch() {
    let mut lab = lab(1);
    lab.deliver(0, 64, b"twice");
    lab.settle();
    assert_eq!(lab.networks[0].sent().len(), 128);
    assert_eq!(lab.metrics[0].originated.value(), 64);
    lab.assert_conserved();
}

#[test]
fn timers_run_at_their_deadlines_and_earlier_when_asked() {
    let mut lab = lab(1);
    let mut handler = Script::default();
    let mut turn = |millis: u64| {
        let now = Instant::from_nanos(millis * 1_000_000);
        lab.workers[0].turn(&mut handler, now);
        handler.timers
    };
    assert_eq!(turn(1), 1, "once at the start");
    assert_eq!(turn(100), 1, "before its deadline");
    assert_eq!(turn(101), 2, "at its deadline");
    assert_eq!(turn(1000), 2, "no deadline, no call");
    lab.networks[0].deliver(LISTENER, peer(9), b"echo");
    assert_eq!(turn(2000), 2);
    assert_eq!(turn(2004), 2);
    assert_eq!(turn(2005), 3, "5 ms after the batch that asked");
}

#[test]
fn workers_on_threads_finish_when_told() {
    for idle in [Idle::Adaptive, Idle::Sleep, Idle::Spin] {
        finishes_when_told(idle);
    }
}

fn finishes_when_told(idle: Idle) {
    let metrics: Vec<_> = (0..2).map(|_| Arc::new(WorkerMetrics::new())).collect();
    let (datapath, networks) = Builder::new(metrics.clone())
        .listener(LISTENER, "198.18.0.100:5060".parse().unwrap())
        .build_sim(Vec::new())
        .unwrap();
    let running = datapath
        .idle(idle)
        .start(|_| Script::default(), &[])
        .unwrap();
    for number in 0..500 {
        networks[0].deliver(LISTENER, peer(number), b"hand over");
    }
    running.control().wake();
    let deadline = std::time::Duration::from_secs(5);
    let mut waited = std::time::Duration::ZERO;
    while networks[0].waiting() > 0 && waited < deadline {
        std::thread::sleep(std::time::Duration::from_millis(1));
        waited += std::time::Duration::from_millis(1);
        // Who spins needs nobody to wake him.
        if idle != Idle::Spin {
            running.control().wake();
        }
    }
    assert_eq!(running.stop().len(), 2);
    let stopped = metrics[1].drops[DropReason::Stopping as usize].value();
    assert_eq!(networks[1].sent().len() as u64 + stopped, 500);
    assert_eq!(metrics[0].hand_over_out.value(), 500);
    assert_eq!(metrics[1].hand_over_in.value(), 500);
}
