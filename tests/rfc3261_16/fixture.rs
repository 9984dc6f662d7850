//! A balancer without a network: configuration, keys, pins, one forwarder per worker, and a clock
//! that stands still until it is told to move.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "messages.rs"]
mod messages;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use viaduct::affinity::{Keys, Pins, Secret};
use viaduct::config::Config;
use viaduct::forward::{Forwarder, Shared};
use viaduct::limits::{DATAGRAM_LEN_MAX, KERNEL_BUFFER_LEN};
use viaduct::metrics::WorkerMetrics;
use viaduct::net::{Flow, WorkerIndex};
use viaduct::packet::Buffer;
use viaduct::route::{Plan, ServerRegistry};
use viaduct::time::Instant;
use viaduct::verdict::Verdict;

pub use self::messages::*;

/// What our branches say of how a request is forwarded: stateless, first attempt.
pub const MARK: &str = "s0";

pub struct Lab {
    pub keys: Arc<Keys>,
    pub pins: Arc<Pins>,
    pub shared: Arc<Shared>,
    pub metrics: Vec<Arc<WorkerMetrics>>,
    pub registry: ServerRegistry,
    pub plan: Plan,
    pub forwarders: Vec<Forwarder>,
    pub now: Instant,
    pub handed_over: usize,
    memory: Vec<u8>,
}

impl Lab {
    #[track_caller]
    pub fn with_pins(config: &str, workers: u8, pins: usize) -> Self {
        let secret = Secret::from_bytes(*b"0123456789abcdefghijklmnopqrstuv").unwrap();
        let keys = Arc::new(Keys::new(&secret));
        let pins = Arc::new(Pins::new(pins));
        let shared = Arc::new(Shared::new(4096));
        let mut registry = ServerRegistry::new();
        let plan = plan(config, &mut registry, &keys);
        let metrics: Vec<Arc<WorkerMetrics>> = (0..workers)
            .map(|_| Arc::new(WorkerMetrics::new()))
            .collect();
        let forwarders = (0..workers)
            .map(|worker| {
                let metrics = metrics[usize::from(worker)].clone();
                let worker = WorkerIndex(worker);
                Forwarder::new(worker, workers, pins.clone(), metrics).with_shared(shared.clone())
            })
            .collect();
        Self {
            keys,
            pins,
            shared,
            metrics,
            registry,
            plan,
            forwarders,
            now: Instant::ZERO + Duration::from_secs(1_000),
            handed_over: 0,
            memory: vec![0; KERNEL_BUFFER_LEN],
        }
    }

    /// Another node, or this one after a restart: nothing but secret and configuration in common.
    pub fn restart(&mut self) {
        self.pins = Arc::new(Pins::new(4096));
        self.shared = Arc::new(Shared::new(4096));
        let workers = u8::try_from(self.forwarders.len()).unwrap();
        for worker in 0..workers {
            self.forwarders[usize::from(worker)] = Forwarder::new(
                WorkerIndex(worker),
                workers,
                self.pins.clone(),
                self.metrics[usize::from(worker)].clone(),
            )
            .with_shared(self.shared.clone());
        }
    }

    pub fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// A datagram that a certain worker reads first.
    #[track_caller]
    pub fn deliver_at(
        &mut self,
        worker: usize,
        bytes: &[u8],
        from: SocketAddr,
        to: SocketAddr,
    ) -> Outcome {
        assert!(bytes.len() <= DATAGRAM_LEN_MAX);
        let listeners = self.plan.listeners();
        let listener = listeners.iter().find(|listener| listener.address == to);
        let received = Flow {
            listener: listener.expect("a listener of ours").index,
            local: to,
            peer: from,
        };
        let mut flow = received;
        let mut worker = worker;
        for _ in 0..2 {
            let start = 768;
            self.memory[start..start + bytes.len()].copy_from_slice(bytes);
            let mut buffer = Buffer::new(&mut self.memory, start, start + bytes.len());
            match self.forwarders[worker].decide(&self.plan, &mut buffer, &mut flow, self.now) {
                Verdict::Transmit => {
                    return Outcome::Sent(Sent {
                        from: flow.local,
                        to: flow.peer,
                        bytes: buffer.payload().to_vec(),
                    });
                }
                Verdict::Drop(reason) => return Outcome::Dropped(reason),
                Verdict::Absorb => panic!("without transactions nothing is for us"),
                Verdict::HandOver(home) => {
                    assert_eq!(buffer.payload(), bytes, "handed over untouched");
                    assert_eq!(flow, received, "handed over untouched");
                    assert_ne!(usize::from(home.0), worker, "handed over to itself");
                    self.handed_over += 1;
                    worker = usize::from(home.0);
                }
            }
        }
        panic!("handed over twice");
    }
}

#[track_caller]
fn plan(config: &str, registry: &mut ServerRegistry, keys: &Arc<Keys>) -> Plan {
    let text = config;
    let mut config = match Config::parse(text) {
        Ok(config) => config,
        Err(error) => panic!("{error}"),
    };
    // The clock stands still: no test is answered more than a second's worth unless it asks for it.
    if !text.contains("answers_per_source") {
        config.sip.answers_per_source = None;
    }
    Plan::build(&config, registry, keys).unwrap()
}
