//! The proxy as the data path's handler: one value per worker.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use super::known::{KnownSources, Reporter};
use super::observer::Observer;
use super::samples::Samples;
use crate::datapath::{Batch, Handler, Out, Packet};
use crate::net::Flow;
use crate::proxy::{Outbox, Proxy};
use crate::route::Plan;
use crate::sys::memory;
use crate::time::{Duration, Instant};
use crate::verdict::{DropReason, Verdict};

/// Decides over batches with the plan of the moment.
pub struct SipHandler {
    proxy: Proxy,
    plan: Cache<Arc<ArcSwap<Plan>>, Arc<Plan>>,
    samples: Arc<Samples>,
    observer: Observer,
    reporter: Option<Reporter>,
}

impl SipHandler {
    /// A handler that follows `plan` and leaves samples of drops.
    pub fn new(proxy: Proxy, plan: Arc<ArcSwap<Plan>>, samples: Arc<Samples>) -> Self {
        Self {
            proxy,
            plan: Cache::new(plan),
            samples,
            observer: Observer::default(),
            reporter: None,
        }
    }

    /// The same, and sources that the farm accepts are told to `known`.
    #[must_use]
    pub fn telling(self, known: Arc<KnownSources>) -> Self {
        Self {
            reporter: Some(Reporter::new(known)),
            ..self
        }
    }

    /// Lets `observer` see what comes in, what becomes of it and what goes out.
    #[must_use]
    pub fn observed(self, observer: Observer) -> Self {
        Self { observer, ..self }
    }
}

impl Handler for SipHandler {
    fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, now: Instant) {
        // One look a batch: all its messages are decided by one plan. The old plan is kept alive by
        // the main thread, so that letting go of it here frees nothing.
        let plan = self.plan.load();
        self.proxy.note_pressure(out.pressure(), now);
        let observed = self.observer.is_on();
        let mut reporter = self
            .reporter
            .as_mut()
            .filter(|reporter| reporter.is_wanted());
        let mut packets = batch.drain(..);
        let mut next = packets.next();
        while let Some(mut packet) = core::mem::replace(&mut next, packets.next()) {
            // What the next decision looks into comes from memory while this one is made.
            if let Some(next) = &next
                && let Some(places) = self.proxy.look_ahead(plan, next.payload(), &next.flow)
            {
                places.into_iter().for_each(memory::prefetch);
            }
            if observed {
                self.observer.received(&packet);
            }
            let (proxy, observer) = (&mut self.proxy, &mut self.observer);
            let verdict = packet.edit(|buffer, flow| {
                let mut sender = Sender {
                    out,
                    observer: observed.then_some(observer),
                };
                proxy.on_message(plan, buffer, flow, now, &mut sender)
            });
            match verdict {
                Verdict::Transmit => {
                    if let Some(reporter) = &mut reporter
                        && self.proxy.was_acceptance()
                    {
                        reporter.tell(packet.flow.peer.ip(), now);
                    }
                    if observed {
                        self.observer.sent(&packet);
                    }
                    out.send(packet);
                }
                Verdict::HandOver(worker) => {
                    let handed_over = out.try_hand_over(packet, worker);
                    if observed {
                        self.observer.handed_over(handed_over);
                    }
                }
                Verdict::Absorb => {
                    if observed {
                        self.observer.absorbed();
                    }
                    out.absorb(packet);
                }
                Verdict::Drop(reason) => {
                    if observed {
                        self.observer.dropped(reason);
                    }
                    self.samples.offer(reason, &packet.flow, packet.payload());
                    out.drop(packet, reason);
                }
            }
        }
        self.proxy.forget_ahead();
        if let Some(deadline) = self.proxy.next_deadline() {
            out.wake_at(deadline);
        }
    }

    fn on_unreachable(&mut self, packet: Packet, out: &mut Out<'_>, now: Instant) {
        let plan = self.plan.load();
        let observed = self.observer.is_on();
        let (payload, flow) = (packet.payload(), &packet.flow);
        let mut sender = Sender {
            out,
            observer: observed.then_some(&mut self.observer),
        };
        let verdict =
            self.proxy
                .on_unreachable(plan, payload, flow, packet.hops(), now, &mut sender);
        match verdict {
            Verdict::HandOver(home) => out.hand_over(packet, home),
            Verdict::Drop(reason) => {
                self.samples.offer(reason, flow, payload);
                out.drop(packet, reason);
            }
            Verdict::Absorb | Verdict::Transmit => out.absorb(packet),
        }
        if let Some(deadline) = self.proxy.next_deadline() {
            out.wake_at(deadline);
        }
    }

    fn on_timer(&mut self, now: Instant, out: &mut Out<'_>) -> Option<Instant> {
        // Called once before the first packet: the first look of a thread at a changed plan takes a
        // place in a list that arc-swap allocates, and that must not happen at a reload.
        drop(self.plan.arc_swap().load());
        self.observer.warm_up();
        self.proxy.warm_up();
        let observed = self.observer.is_on();
        let mut sender = Sender {
            out,
            observer: observed.then_some(&mut self.observer),
        };
        let next = self.proxy.on_timer(self.plan.load(), now, &mut sender);
        // A new plan wakes nobody, and may be one that has servers to probe.
        let look = now + PLAN_LOOK;
        Some(next.map_or(look, |next| next.min(look)))
    }
}

/// How often a worker with nothing to do looks at the plan.
const PLAN_LOOK: Duration = Duration::from_secs(1);

/// Messages of our own go out like any other.
struct Sender<'a, 'b> {
    out: &'a mut Out<'b>,
    /// Who looks, if anybody does.
    observer: Option<&'a mut Observer>,
}

impl Outbox for Sender<'_, '_> {
    fn send(&mut self, flow: Flow, payload: &[u8]) {
        let Some(mut packet) = self.out.allocate() else {
            // Made and lost: both are counted.
            self.out.metrics().originated.increment();
            self.out.metrics().drop(DropReason::NoFrame);
            return;
        };
        packet.flow = flow;
        match packet.edit(|buffer, _| buffer.replace(payload)) {
            Ok(()) => {
                if let Some(observer) = &mut self.observer {
                    observer.originated(&packet);
                }
                self.out.send(packet);
            }
            Err(error) => self.out.drop(packet, error.into()),
        }
    }
}
