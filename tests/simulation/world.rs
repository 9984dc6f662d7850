//! One simulation: everything that a seed holds, on one thread, in one order.

use viaduct::net::{Flow, SocketAddr};
use viaduct::time::{Duration, Instant};

use crate::balancer::{Balancer, Fate, Outputs};
use crate::client::{Client, Phase};
use crate::judge::{Cause, Judge, Violation};
use crate::message::View;
use crate::network::{Arm, ClientTimer, Event, Network};
use crate::rng::Rng;
use crate::scenario::{
    Change, Farm, Illness, LENGTH, SERVERS, Scenario, client_address, server_address, server_at,
};
use crate::server::Server;
use crate::tally::Tally;

/// Nothing goes on longer: ringing for 400 s, Timer C and 64·T1 a few times over, and room.
const END: Duration = Duration::from_secs(3600);
/// Bytes of a request that an ICMP error quotes (RFC 1812 §4.3.2.3: as much as fits 576).
const QUOTED: usize = 548;

pub(crate) struct World {
    scenario: Scenario,
    farm: Farm,
    net: Network,
    balancer: Balancer,
    clients: Vec<Client>,
    servers: Vec<Server>,
    judge: Judge,
    out: Outputs,
    /// When the event of a worker's timer is due; later ones of it mean nothing.
    timers: Vec<Option<Instant>>,
}

impl World {
    pub(crate) fn new(scenario: Scenario, traced: Option<usize>) -> Self {
        let rng = Rng::new(!scenario.seed);
        let net = Network::new(rng, scenario.clients, scenario.servers, traced);
        let clients = scenario.calls.iter().enumerate();
        let clients: Vec<Client> = clients
            .map(|(call, plan)| Client::new(call, scenario.seed, *plan))
            .collect();
        let servers = (0..SERVERS).map(|server| Server::new(server, &scenario.calls));
        Self {
            balancer: Balancer::new(&scenario.farm, scenario.workers, net.now),
            net,
            judge: Judge::new(&scenario.farm, clients.len()),
            clients,
            servers: servers.collect(),
            out: Outputs::default(),
            farm: scenario.farm,
            timers: vec![None; usize::from(scenario.workers)],
            scenario,
        }
    }

    /// Runs until nothing moves.
    pub(crate) fn run(&mut self) -> Result<Tally, Violation> {
        self.net.tally.seeds = 1;
        let begin = self.net.now;
        for (call, client) in self.clients.iter().enumerate() {
            debug_assert_eq!(client.address, client_address(call));
            let (timer, epoch) = (ClientTimer::Start, 0);
            let start = self.scenario.calls[call].start;
            self.net
                .at(begin + start, Event::ClientTimer { call, timer, epoch });
        }
        for (number, (at, _)) in self.scenario.changes.iter().enumerate() {
            self.net.at(begin + *at, Event::Change(number));
        }
        self.net.at(begin + LENGTH, Event::Tick);
        while let Some(event) = self.net.next() {
            if self.net.now.since(begin) > END {
                return Err(self.fault(0, format!("it never ends: {event:?}")));
            }
            self.on_event(event)?;
        }
        self.finish()?;
        Ok(self.net.tally)
    }

    pub(crate) fn trace(&self) -> &[String] {
        &self.net.trace
    }

    /// Where the callers' INVITEs have come to.
    pub(crate) fn phases(&self) -> Vec<Phase> {
        self.clients.iter().map(|client| client.phase).collect()
    }

    fn fault(&self, call: usize, text: impl Into<String>) -> Violation {
        let text = text.into();
        Violation { call, text }
    }

    fn finish(&self) -> Result<(), Violation> {
        self.judge.finish()?;
        for client in &self.clients {
            let stuck = matches!(
                client.phase,
                Phase::Calling | Phase::Proceeding | Phase::Idle
            );
            if stuck && !self.judge.is_excused(client.call) {
                let text = format!("the caller is stuck in {:?}", client.phase);
                return Err(self.fault(client.call, text));
            }
        }
        let (open, bytes) = self.balancer.held();
        if open > 0 || bytes > 0 {
            let text = format!("{open} transactions and {bytes} bytes are left at the end");
            return Err(self.fault(0, text));
        }
        for worker in 0..self.balancer.workers() {
            if let Some(at) = self.balancer.next_deadline(worker) {
                let text = format!("worker {worker} has a timer at {at:?} at the end");
                return Err(self.fault(0, text));
            }
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::AtBalancer { from, to, bytes } => {
                let worker = self.net.rng.index(self.balancer.workers());
                if let Some(listener) = self.balancer.listener(to) {
                    let flow = Flow {
                        listener,
                        local: to,
                        peer: from,
                    };
                    self.decide(worker, flow, bytes, false, 0)
                } else {
                    Err(self.fault(0, format!("a message to {to}")))
                }
            }
            Event::HandedOver {
                worker,
                flow,
                bytes,
                quoted,
                hops,
            } => self.decide(worker, flow, bytes, quoted, hops),
            Event::Unreachable {
                peer,
                local,
                quoted,
            } => {
                let worker = self.net.rng.index(self.balancer.workers());
                let Some(listener) = self.balancer.listener(local) else {
                    return Ok(());
                };
                let flow = Flow {
                    listener,
                    local,
                    peer,
                };
                self.net.tally.unreachables += 1;
                self.decide(worker, flow, quoted, true, 0)
            }
            Event::AtClient { to, bytes } => self.at_client(to, bytes),
            Event::AtServer {
                from,
                server,
                bytes,
            } => self.at_server(from, server, bytes),
            Event::WorkerTimer { worker } => self.worker_timer(worker),
            Event::ClientTimer { call, timer, epoch } => {
                self.clients[call].on_timer(&mut self.net, timer, epoch);
                Ok(())
            }
            Event::ServerTimer { server, uas, timer } => {
                self.servers[server].on_timer(&mut self.net, uas, timer);
                Ok(())
            }
            Event::Change(number) => {
                self.change(self.scenario.changes[number].1);
                Ok(())
            }
            Event::Tick => {
                self.net.calm = true;
                Ok(())
            }
        }
    }

    fn change(&mut self, change: Change) {
        self.net.note_text(format!("{change:?}"));
        match change {
            Change::Reload(farm) => {
                let weights = farm.weights.iter();
                self.net.tally.drains +=
                    weights.filter(|weight| **weight == Some(0)).count() as u64;
                self.net.tally.reloads += 1;
                let down = self.farm.down;
                self.reload(Farm { down, ..farm });
            }
            Change::Falls(server, illness) => {
                let tally = &mut self.net.tally;
                *match illness {
                    Illness::Dead => &mut tally.servers_dead,
                    Illness::Refusing => &mut tally.servers_refusing,
                    Illness::Overloaded => &mut tally.servers_overloaded,
                    Illness::Slow(_) => &mut tally.servers_slow,
                } += 1;
                self.servers[server].illness = Some(illness);
            }
            Change::Down(server) | Change::Up(server) => {
                let mut farm = self.farm;
                match change {
                    Change::Down(_) => farm.down |= 1 << server,
                    _ => farm.down &= !(1 << server),
                }
                self.net.tally.servers_down += 1;
                self.reload(farm);
            }
            Change::Recovers(server) => self.servers[server].illness = None,
            Change::Restart => {
                self.net.tally.restarts += 1;
                self.balancer.restart(self.scenario.workers, self.net.now);
                self.judge.restarted();
                self.timers.fill(None);
            }
        }
    }

    fn reload(&mut self, farm: Farm) {
        self.farm = farm;
        self.balancer.reload(&farm);
        self.judge.reloaded(&farm);
        // Workers find a new plan by looking, ten times a second.
        for worker in 0..self.balancer.workers() {
            let at = self.net.now + self.net.rng.millis(0, 100);
            self.arm(worker, at);
        }
    }

    /// A worker handles a message, or an ICMP error that quotes one.
    fn decide(
        &mut self,
        worker: usize,
        flow: Flow,
        bytes: Vec<u8>,
        quoted: bool,
        hops: u8,
    ) -> Result<(), Violation> {
        let now = self.net.now;
        self.net.tally.decided += 1;
        let view = View::of(&bytes);
        let call = view.and_then(|view| view.call).unwrap_or(0);
        let fate = if quoted {
            Ok(self
                .balancer
                .on_unreachable(worker, flow, &bytes, hops, now, &mut self.out))
        } else {
            self.balancer
                .on_message(worker, flow, &bytes, now, &mut self.out)
        };
        match fate.map_err(|text| self.fault(call, text))? {
            // A quote may end before the Call-ID that says whose it is.
            Fate::HandOver(home)
                if home == worker || hops > 0 && !quoted || hops >= self.scenario.workers =>
            {
                return Err(self.fault(
                    call,
                    format!("worker {worker} hands over to {home} what was handed over"),
                ));
            }
            Fate::HandOver(worker) => {
                if !self.out.is_empty() {
                    return Err(self.fault(call, "sent and handed over"));
                }
                self.net.tally.handed_over += 1;
                if self.net.rng.chance(self.scenario.rings_full) && !self.net.calm {
                    self.net.tally.rings_full += 1;
                    self.net.note(&bytes, "the ring of its worker is full");
                    return Ok(());
                }
                // The other worker may be in the middle of a batch.
                let wait = Duration::from_micros(5 + self.net.rng.below(400));
                self.net.after(
                    wait,
                    Event::HandedOver {
                        worker,
                        flow,
                        bytes,
                        quoted,
                        hops: hops + 1,
                    },
                );
                return Ok(());
            }
            Fate::Dropped(reason) => {
                self.net.tally.drops += u64::from(!quoted);
                self.net
                    .note(&bytes, &format!("dropped: {}", reason.as_str()));
            }
            Fate::Done => {}
        }
        if let Some(view) = view {
            let cause = if quoted {
                Cause::Unreachable(view)
            } else {
                Cause::Message(view, flow.peer)
            };
            self.judge.begin(&cause, now, &mut self.net.tally);
            self.send(call)?;
            self.judge.end(&mut self.net.tally)?;
        }
        self.net.give(bytes);
        self.set_timer(worker);
        Ok(())
    }

    fn worker_timer(&mut self, worker: usize) -> Result<(), Violation> {
        if self.timers[worker] != Some(self.net.now) {
            return Ok(());
        }
        self.timers[worker] = None;
        self.net.tally.worker_timers += 1;
        self.balancer.on_timer(worker, self.net.now, &mut self.out);
        self.judge
            .begin(&Cause::Timer, self.net.now, &mut self.net.tally);
        self.send(0)?;
        self.judge.end(&mut self.net.tally)?;
        self.set_timer(worker);
        Ok(())
    }

    /// Sees to it that a worker is called at its next deadline.
    fn set_timer(&mut self, worker: usize) {
        let Some(at) = self.balancer.next_deadline(worker) else {
            return;
        };
        self.arm(worker, at.max(self.net.now));
    }

    fn arm(&mut self, worker: usize, at: Instant) {
        if self.timers[worker].is_none_or(|set| at < set) {
            self.timers[worker] = Some(at);
            self.net.at(at, Event::WorkerTimer { worker });
        }
    }

    /// Puts on the network what a worker has sent, when the judge has seen it.
    fn send(&mut self, call: usize) -> Result<(), Violation> {
        let out = std::mem::take(&mut self.out);
        for (flow, bytes) in out.iter() {
            let Some(view) = View::of(bytes) else {
                return Err(self.fault(call, "it sends what is no SIP"));
            };
            let (from, to) = (flow.local, flow.peer);
            match server_at(to) {
                Some(server) => {
                    self.net.note(bytes, &format!("balancer → s{server}"));
                    let event = |bytes| Event::AtServer {
                        from,
                        server,
                        bytes,
                    };
                    self.net.carry(Arm::Servers, bytes, event);
                }
                None => {
                    self.net.note(bytes, "balancer → client");
                    let event = |bytes| Event::AtClient { to, bytes };
                    self.net.carry(Arm::Clients, bytes, event);
                }
            }
            self.judge
                .output(&view, to, self.net.now, &mut self.net.tally)?;
        }
        self.out = out;
        self.out.clear();
        Ok(())
    }

    fn at_client(&mut self, to: SocketAddr, bytes: Vec<u8>) -> Result<(), Violation> {
        let Some(view) = View::of(&bytes) else {
            return Ok(());
        };
        let call = view.call.filter(|call| *call < self.clients.len());
        let Some(call) = call.filter(|call| self.clients[*call].address == to) else {
            return Err(self.fault(view.call.unwrap_or(0), format!("{} to {to}", view.what())));
        };
        let done = self.clients[call].on_message(&mut self.net, &view);
        done.map_err(|text| self.fault(call, text))?;
        self.net.give(bytes);
        Ok(())
    }

    fn at_server(
        &mut self,
        from: SocketAddr,
        server: usize,
        bytes: Vec<u8>,
    ) -> Result<(), Violation> {
        match self.servers[server].illness {
            Some(Illness::Dead) => {}
            Some(Illness::Refusing) => {
                // The kernel limits what it sends of these.
                if self.net.rng.chance(500) {
                    let quoted = self.net.copy(&bytes[..bytes.len().min(QUOTED)]);
                    let (peer, local) = (server_address(server), from);
                    let after = Duration::from_micros(300);
                    self.net.after(
                        after,
                        Event::Unreachable {
                            peer,
                            local,
                            quoted,
                        },
                    );
                }
            }
            _ => {
                let Some(view) = View::of(&bytes) else {
                    return Ok(());
                };
                let call = view.call.unwrap_or(0);
                let done = self.servers[server].on_message(&mut self.net, from, &view);
                // What the balancer has forgotten it may lead astray.
                if let Err(text) = done
                    && !self.judge.is_lenient(call)
                {
                    return Err(self.fault(call, text));
                }
            }
        }
        self.net.give(bytes);
        Ok(())
    }
}
