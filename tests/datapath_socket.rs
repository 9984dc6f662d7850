//! The socket datapath over loopback: real UDP sockets, real threads.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use viaduct::datapath::{Batch, Builder, Handler, Origin, Out, Packet, Running};
use viaduct::limits::DATAGRAM_LEN_MAX;
use viaduct::metrics::WorkerMetrics;
use viaduct::net::{ListenerIndex, WorkerIndex};
use viaduct::sys::clock;
use viaduct::time::Instant;
use viaduct::verdict::DropReason;

/// Answers every datagram from the worker `home`, handing over on the others.
struct Echo {
    home: Option<WorkerIndex>,
}

impl Handler for Echo {
    fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, _now: Instant) {
        for packet in batch.drain(..) {
            match self.home {
                Some(home) if home != out.worker() => out.hand_over(packet, home),
                _ => out.send(packet),
            }
        }
    }
}

struct Server<H> {
    running: Running<H>,
    metrics: Vec<Arc<WorkerMetrics>>,
    addresses: Vec<SocketAddr>,
}

/// An address of the family of `ip` whose port is free now.
fn free(ip: &str) -> SocketAddr {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.local_addr().unwrap()
}

fn serve(workers: usize, listeners: &[SocketAddr], home: Option<WorkerIndex>) -> Server<Echo> {
    start(workers, listeners, move |_| Echo { home })
}

fn start<H: Handler + Send + 'static>(
    workers: usize,
    listeners: &[SocketAddr],
    handler: impl FnMut(WorkerIndex) -> H,
) -> Server<H> {
    let metrics: Vec<_> = (0..workers)
        .map(|_| Arc::new(WorkerMetrics::new()))
        .collect();
    let mut builder = Builder::new(metrics.clone());
    for (index, address) in (0..).zip(listeners) {
        builder = builder.listener(ListenerIndex(index), *address);
    }
    let datapath = builder.build().unwrap();
    let addresses = datapath.local_addresses();
    let running = datapath.start(handler, &[]).unwrap();
    Server {
        running,
        metrics,
        addresses,
    }
}

impl<H> Server<H> {
    /// Stops it and checks that every packet in left exactly once.
    fn stop(self) -> Vec<Arc<WorkerMetrics>> {
        self.running.stop();
        for metrics in &self.metrics {
            let taken = metrics.received() + metrics.hand_over_in.value();
            let given = metrics.sent()
                + metrics.hand_over_out.value()
                + metrics.absorbed.value()
                + metrics.dropped();
            assert_eq!(taken, given);
        }
        self.metrics
    }
}

fn client(ip: &str) -> UdpSocket {
    let client = UdpSocket::bind((ip, 0)).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    client
}

fn exchange(client: &UdpSocket, server: SocketAddr, bytes: &[u8]) {
    client.send_to(bytes, server).unwrap();
    let mut answer = vec![0; DATAGRAM_LEN_MAX + 1];
    let (len, from) = client.recv_from(&mut answer).unwrap();
    assert_eq!(from, server);
    assert!(answer[..len] == *bytes);
}

#[test]
fn every_size_is_answered_from_the_address_it_was_sent_to() {
    let server = serve(
        1,
        &["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()],
        None,
    );
    for (ip, address) in ["127.0.0.1", "::1"].into_iter().zip(&server.addresses) {
        let client = client(ip);
        for len in [0, 1, 507, 1472, 1473, 9000, DATAGRAM_LEN_MAX] {
            let bytes: Vec<u8> = (0u8..249).cycle().take(len).collect();
            exchange(&client, *address, &bytes);
        }
    }
    let metrics = server.stop();
    assert_eq!(metrics[0].kernel_in.value(), 14);
    assert_eq!(metrics[0].kernel_out.value(), 14);
    assert_eq!(
        metrics[0].kernel_leak.value(),
        0,
        "there is no XDP to leak from"
    );
}

#[test]
fn many_sources_spread_over_workers_and_all_are_answered() {
    let address = free("127.0.0.1");
    let server = serve(2, &[address], None);
    let clients: Vec<_> = (0..200).map(|_| client("127.0.0.1")).collect();
    for round in 0..20u32 {
        for (number, client) in clients.iter().enumerate() {
            let bytes = format!("{round} {number}");
            client.send_to(bytes.as_bytes(), address).unwrap();
        }
        for (number, client) in clients.iter().enumerate() {
            let mut answer = [0; 64];
            let (len, _) = client.recv_from(&mut answer).unwrap();
            assert_eq!(&answer[..len], format!("{round} {number}").as_bytes());
        }
    }
    let metrics = server.stop();
    let received: Vec<_> = metrics.iter().map(|one| one.kernel_in.value()).collect();
    assert_eq!(received.iter().sum::<u64>(), 4000);
    assert!(received.iter().all(|count| *count > 500), "{received:?}");
}

#[test]
fn a_sleeping_worker_is_woken_by_what_it_is_handed() {
    let address = free("127.0.0.1");
    let server = serve(2, &[address], Some(WorkerIndex(1)));
    // One client is one flow and lands on one worker; enough of them land on both.
    for _ in 0..20 {
        let client = client("127.0.0.1");
        for _ in 0..5 {
            exchange(&client, address, b"to the other side");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let metrics = server.stop();
    assert_eq!(metrics[1].kernel_out.value(), 100);
    assert_eq!(
        metrics[0].hand_over_out.value(),
        metrics[0].kernel_in.value()
    );
    assert!(metrics[0].kernel_in.value() > 0, "the flows did not spread");
    assert!(metrics[1].sleeps.value() > 50);
}

#[test]
fn the_address_can_be_served_again_after_a_stop() {
    let address = free("::1");
    for _ in 0..3 {
        let server = serve(2, &[address], None);
        exchange(&client("::1"), address, b"again");
        server.stop();
    }
}

#[test]
fn a_burst_is_answered_whole() {
    let server = serve(1, &["127.0.0.1:0".parse().unwrap()], None);
    let client = client("127.0.0.1");
    let mut answers = BTreeSet::new();
    for number in 0..200u32 {
        client
            .send_to(&number.to_be_bytes(), server.addresses[0])
            .unwrap();
    }
    let mut answer = [0; 4];
    while answers.len() < 200 {
        client.recv_from(&mut answer).unwrap();
        answers.insert(u32::from_be_bytes(answer));
    }
    server.stop();
}

/// What came back to a [`Caller`]: payload and peer.
type Undelivered = Arc<Mutex<Vec<(Vec<u8>, SocketAddr, WorkerIndex)>>>;

/// Sends every datagram on to the port on this host that it starts with. What did not arrive is
/// noted by the worker `home`, to which the others hand it over.
struct Caller {
    home: WorkerIndex,
    undelivered: Undelivered,
}

impl Handler for Caller {
    fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, _now: Instant) {
        for mut packet in batch.drain(..) {
            assert_eq!(packet.origin(), Origin::Kernel);
            let port = u16::from_be_bytes([packet.payload()[0], packet.payload()[1]]);
            packet.flow.peer.set_port(port);
            out.send(packet);
        }
    }

    fn on_unreachable(&mut self, packet: Packet, out: &mut Out<'_>, _now: Instant) {
        assert_eq!(packet.origin(), Origin::Unreachable);
        assert!(usize::from(packet.hops()) < out.workers());
        if out.worker() != self.home {
            return out.hand_over(packet, self.home);
        }
        let noted = (packet.payload().to_vec(), packet.flow.peer, out.worker());
        self.undelivered.lock().unwrap().push(noted);
        out.drop(packet, DropReason::Unreachable);
    }
}

fn call(workers: usize, address: SocketAddr) -> (Server<Caller>, Undelivered) {
    let undelivered = Undelivered::default();
    let noted = undelivered.clone();
    let server = start(workers, &[address], move |_| Caller {
        home: WorkerIndex(0),
        undelivered: noted.clone(),
    });
    (server, undelivered)
}

/// `number`, addressed to a port.
fn addressed(to: SocketAddr, number: u32) -> Vec<u8> {
    let port = to.port().to_be_bytes();
    port.into_iter().chain(number.to_be_bytes()).collect()
}

/// Looks at `condition` until it holds, 5 s at most.
#[track_caller]
fn eventually(condition: impl Fn() -> bool) {
    let deadline = clock::now() + Duration::from_secs(5);
    while !condition() {
        assert!(clock::now() < deadline, "not in 5 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_closed_port_comes_back_as_undelivered_whichever_worker_the_kernel_tells() {
    for ip in ["127.0.0.1", "::1"] {
        let (address, closed) = (free(ip), free(ip));
        let (server, undelivered) = call(2, address);
        // Over many ports the kernel chooses both workers' sockets.
        let others: Vec<_> = (0..20).map(|_| free(ip)).collect();
        for number in 0..200 {
            let to = others.get(number as usize % 40).copied().unwrap_or(closed);
            client(ip).send_to(&addressed(to, number), address).unwrap();
        }
        eventually(|| undelivered.lock().unwrap().len() >= 200);
        let metrics = server.stop();
        let undelivered = undelivered.lock().unwrap();
        let mut numbers: Vec<u32> = undelivered
            .iter()
            .map(|(payload, peer, worker)| {
                assert_eq!(*worker, WorkerIndex(0));
                assert_eq!(payload[..2], peer.port().to_be_bytes());
                u32::from_be_bytes(payload[2..].try_into().unwrap())
            })
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..200).collect::<Vec<_>>());
        let reports = |of: &Arc<WorkerMetrics>| of.icmp.unreachable.value();
        assert_eq!(metrics.iter().map(reports).sum::<u64>(), 200);
        assert!(reports(&metrics[1]) > 0, "one worker got all reports");
        assert_eq!(
            metrics[0].kernel_in.value() + metrics[1].kernel_in.value(),
            400
        );
    }
}

/// An error that waits makes the next call on the socket fail, in both directions: every datagram to a
/// closed port has one between two datagrams that do arrive.
#[test]
fn errors_lose_no_datagram_of_others() {
    let (server, undelivered) = call(1, "127.0.0.1:0".parse().unwrap());
    let (sender, receiver) = (client("127.0.0.1"), client("127.0.0.1"));
    let open = receiver.local_addr().unwrap();
    let closed = free("127.0.0.1");
    let mut answer = [0; 16];
    for round in 0..500_u32 {
        for number in [2 * round, 2 * round + 1] {
            for to in [closed, open] {
                let bytes = addressed(to, number);
                sender.send_to(&bytes, server.addresses[0]).unwrap();
            }
        }
        for number in [2 * round, 2 * round + 1] {
            let (len, _) = receiver.recv_from(&mut answer).unwrap();
            assert_eq!(answer[..len], addressed(open, number));
        }
    }
    eventually(|| undelivered.lock().unwrap().len() >= 1000);
    let metrics = server.stop();
    assert_eq!(undelivered.lock().unwrap().len(), 1000);
    assert_eq!(metrics[0].kernel_in.value(), 3000);
    assert_eq!(metrics[0].kernel_out.value(), 2000);
    assert_eq!(metrics[0].drops[DropReason::KernelSend as usize].value(), 0);
}

/// Slow at first, and notes how full the worker says its queues are.
struct Slow(Arc<Mutex<Vec<u8>>>);

impl Handler for Slow {
    fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, _now: Instant) {
        let mut seen = self.0.lock().unwrap();
        if seen.is_empty() {
            std::thread::sleep(Duration::from_millis(500));
        }
        seen.push(out.pressure());
        for packet in batch.drain(..) {
            out.drop(packet, DropReason::NotSip);
        }
    }
}

#[test]
fn the_fill_of_a_receive_buffer_is_told_to_the_handler() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let address = "127.0.0.1:0".parse().unwrap();
    let server = start(1, &[address], move |_| Slow(noted.clone()));
    let sender = client("127.0.0.1");
    // The kernel reckons some 2 KiB for each of them; the buffer has at least 400 KiB.
    for _ in 0..2000 {
        sender.send_to(&[b'x'; 1000], server.addresses[0]).unwrap();
    }
    eventually(|| seen.lock().unwrap().iter().any(|fill| *fill >= 5));
    // One that comes alone finds an empty buffer.
    eventually(|| {
        sender.send_to(b"alone", server.addresses[0]).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        seen.lock().unwrap().last() == Some(&0)
    });
    server.stop();
}

/// More errors than the socket's queue holds, and nobody has to read them all: the data path goes on
/// and sleeps afterwards.
#[test]
fn a_flood_of_errors_ends_and_the_worker_sleeps_again() {
    let (server, _) = call(1, "127.0.0.1:0".parse().unwrap());
    let (sender, receiver) = (client("127.0.0.1"), client("127.0.0.1"));
    let (open, closed) = (receiver.local_addr().unwrap(), free("127.0.0.1"));
    for number in 0..20_000 {
        sender
            .send_to(&addressed(closed, number), server.addresses[0])
            .unwrap();
    }
    // The receive buffer may still be full of the flood.
    receiver
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut answer = [0; 16];
    let deadline = clock::now() + Duration::from_secs(5);
    let len = loop {
        sender
            .send_to(&addressed(open, 1), server.addresses[0])
            .unwrap();
        if let Ok((len, _)) = receiver.recv_from(&mut answer) {
            break len;
        }
        assert!(clock::now() < deadline, "the data path does not go on");
    };
    assert_eq!(answer[..len], addressed(open, 1));
    std::thread::sleep(Duration::from_millis(200));
    let before = cpu_time();
    std::thread::sleep(Duration::from_secs(1));
    let used = cpu_time() - before;
    assert!(used <= Duration::from_millis(20 + 10), "{used:?} in 1 s");
    let metrics = server.stop();
    assert!(metrics[0].icmp.unreachable.value() > 0);
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

#[test]
fn idle_workers_sleep() {
    let addresses = [free("127.0.0.1"), free("::1")];
    let server = serve(2, &addresses, None);
    exchange(&client("127.0.0.1"), addresses[0], b"busy for a moment");
    std::thread::sleep(Duration::from_millis(100));
    let before = cpu_time();
    std::thread::sleep(Duration::from_secs(2));
    let used = cpu_time() - before;
    // 2 % of one core, and the 10 ms grain of the counter.
    assert!(used <= Duration::from_millis(40 + 10), "{used:?} in 2 s");
    server.stop();
}

#[test]
fn a_listener_is_refused_by_name() {
    let metrics = || vec![Arc::new(WorkerMetrics::new())];
    let address: SocketAddr = "127.0.0.1:5060".parse().unwrap();
    let twice = Builder::new(metrics())
        .listener(ListenerIndex(0), address)
        .listener(ListenerIndex(1), address)
        .build();
    assert!(twice.err().unwrap().to_string().contains("127.0.0.1:5060"));
    let any = Builder::new(metrics())
        .listener(ListenerIndex(0), "0.0.0.0:5060".parse().unwrap())
        .build();
    assert!(any.err().unwrap().to_string().contains("unspecified"));
    let foreign = Builder::new(metrics())
        .listener(ListenerIndex(0), "198.18.7.7:5060".parse().unwrap())
        .build();
    assert!(
        foreign
            .err()
            .unwrap()
            .to_string()
            .contains("198.18.7.7:5060")
    );
    assert!(Builder::new(Vec::new()).build().is_err());
}
