//! The balancer as the simulation holds it: workers that know nothing of each other, and what
//! stands around them in the process.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use viaduct::affinity::{Keys, Pins, Secret};
use viaduct::balance::Board;
use viaduct::config::Config;
use viaduct::forward::{Forwarder, Shared};
use viaduct::limits::KERNEL_BUFFER_LEN;
use viaduct::metrics::WorkerMetrics;
use viaduct::net::{Flow, ListenerIndex, SocketAddr, WorkerIndex};
use viaduct::packet::Buffer;
use viaduct::proxy::{Outbox, Proxy, Room};
use viaduct::route::{Health, Plan, ServerRegistry, Standing, server_id};
use viaduct::time::Instant;
use viaduct::verdict::{DropReason, Verdict};

use crate::scenario::{Farm, SERVERS};

/// Room for every call of a seed.
const ROOM: Room = Room {
    transactions: 256,
    message_bytes: 1 << 20,
    rescue: false,
};

/// Bytes in front of a received message.
const HEADROOM: usize = 768;

/// What became of what a worker was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Sent, absorbed, or both.
    Done,
    HandOver(usize),
    Dropped(DropReason),
}

/// Messages that a worker sends, in their order.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    sent: Vec<(Flow, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
}

impl Outputs {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Flow, Vec<u8>)> {
        self.sent.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        for (_, mut bytes) in self.sent.drain(..) {
            bytes.clear();
            self.spare.push(bytes);
        }
    }
}

impl Outbox for Outputs {
    fn send(&mut self, flow: Flow, payload: &[u8]) {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.extend_from_slice(payload);
        self.sent.push((flow, bytes));
    }
}

/// One process.
pub(crate) struct Balancer {
    pub(crate) plan: Arc<Plan>,
    workers: Vec<Proxy>,
    memory: Vec<u8>,
}

fn keys() -> Arc<Keys> {
    let secret = Secret::from_bytes(*b"0123456789abcdefghijklmnopqrstuv");
    Arc::new(Keys::new(&secret.expect("not all bytes are equal")))
}

/// Plans by farm: a lookup table takes longer than a simulated minute.
struct Plans {
    keys: Arc<Keys>,
    registry: ServerRegistry,
    plans: HashMap<Farm, Arc<Plan>>,
}

impl Plans {
    /// Every server gets its slot before the first plan, so that one registry fits all seeds.
    fn new() -> Self {
        let mut plans = Self {
            keys: keys(),
            registry: ServerRegistry::new(),
            plans: HashMap::new(),
        };
        plans.of(&Farm {
            weights: [Some(1); SERVERS],
            stateful: true,
            hunting: true,
            reach: "destination",
            down: 0,
            two_armed: false,
        });
        plans
    }

    fn of(&mut self, farm: &Farm) -> Arc<Plan> {
        if let Some(plan) = self.plans.get(farm) {
            return plan.clone();
        }
        let config = match Config::parse(&farm.config()) {
            Ok(config) => config,
            Err(error) => panic!("{error}\n{}", farm.config()),
        };
        let mut standing = Standing::new();
        for server in (0..SERVERS).filter(|server| farm.down & 1 << server != 0) {
            let id = server_id(&format!("s{server}"));
            standing.update(id, |of| of.health = Health::Down);
        }
        let plan = Plan::build_standing(&config, &mut self.registry, &self.keys, &standing);
        let plan = Arc::new(plan.expect("the configuration was checked"));
        self.plans.insert(*farm, plan.clone());
        plan
    }
}

thread_local! {
    static PLANS: RefCell<Plans> = RefCell::new(Plans::new());
}

pub(crate) fn plan(farm: &Farm) -> Arc<Plan> {
    PLANS.with_borrow_mut(|plans| plans.of(farm))
}

impl Balancer {
    pub(crate) fn new(farm: &Farm, workers: u8, now: Instant) -> Self {
        let mut balancer = Self {
            plan: plan(farm),
            workers: Vec::new(),
            memory: vec![0; KERNEL_BUFFER_LEN],
        };
        balancer.restart(workers, now);
        balancer
    }

    /// A new process: secret and configuration are what it has of the old one.
    pub(crate) fn restart(&mut self, workers: u8, now: Instant) {
        let pins = Arc::new(Pins::new(1024));
        let shared = Arc::new(Shared::new(0));
        let board = Arc::new(Board::new());
        self.workers = (0..workers)
            .map(|worker| {
                let metrics = Arc::new(WorkerMetrics::new());
                let worker = WorkerIndex(worker);
                let forwarder = Forwarder::new(worker, workers, pins.clone(), metrics);
                let forwarder = forwarder.with_shared(shared.clone());
                Proxy::new(forwarder, ROOM, board.clone(), now)
            })
            .collect();
    }

    pub(crate) fn reload(&mut self, farm: &Farm) {
        self.plan = plan(farm);
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// The listener whose address this is.
    pub(crate) fn listener(&self, local: SocketAddr) -> Option<ListenerIndex> {
        self.plan.listener_at(local)
    }

    pub(crate) fn on_message(
        &mut self,
        worker: usize,
        flow: Flow,
        bytes: &[u8],
        now: Instant,
        out: &mut Outputs,
    ) -> Result<Fate, String> {
        self.memory[HEADROOM..HEADROOM + bytes.len()].copy_from_slice(bytes);
        let mut buffer = Buffer::new(&mut self.memory, HEADROOM, HEADROOM + bytes.len());
        let mut after = flow;
        let proxy = &mut self.workers[worker];
        match proxy.on_message(&self.plan, &mut buffer, &mut after, now, out) {
            Verdict::Transmit => {
                // What is sent beside it was sent before it.
                out.send(after, buffer.payload());
                Ok(Fate::Done)
            }
            Verdict::Absorb => Ok(Fate::Done),
            verdict if buffer.payload() != bytes || after != flow => {
                Err(format!("{verdict:?} of a message that was changed"))
            }
            Verdict::HandOver(home) => Ok(Fate::HandOver(usize::from(home.0))),
            Verdict::Drop(reason) => Ok(Fate::Dropped(reason)),
        }
    }

    pub(crate) fn on_unreachable(
        &mut self,
        worker: usize,
        flow: Flow,
        quoted: &[u8],
        hops: u8,
        now: Instant,
        out: &mut Outputs,
    ) -> Fate {
        let proxy = &mut self.workers[worker];
        match proxy.on_unreachable(&self.plan, quoted, &flow, hops, now, out) {
            Verdict::HandOver(home) => Fate::HandOver(usize::from(home.0)),
            Verdict::Drop(reason) => Fate::Dropped(reason),
            Verdict::Transmit | Verdict::Absorb => Fate::Done,
        }
    }

    /// Lets a worker's timers run.
    pub(crate) fn on_timer(&mut self, worker: usize, now: Instant, out: &mut Outputs) {
        self.workers[worker].on_timer(&self.plan, now, out);
    }

    /// When a worker's next timer is due.
    pub(crate) fn next_deadline(&self, worker: usize) -> Option<Instant> {
        self.workers[worker].next_deadline()
    }

    /// Transactions that are still open, and bytes kept for them.
    pub(crate) fn held(&self) -> (usize, usize) {
        let open = self
            .workers
            .iter()
            .map(|of| of.open_transactions() as usize + of.armed_timers() as usize);
        let bytes = self.workers.iter().map(Proxy::kept_bytes);
        (open.sum(), bytes.sum())
    }
}
