//! The worker loop: what a packet costs besides its decision.
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

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use viaduct::datapath::{Batch, Builder, Handler, Out};
use viaduct::limits::BATCH;
use viaduct::metrics::WorkerMetrics;
use viaduct::net::ListenerIndex;
use viaduct::sys::datagram::{self, ReceiveBatch, SendBatch, SocketOptions};
use viaduct::sys::{clock, cpu, event};

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

criterion_group!(benches, socket);
criterion_main!(benches);
