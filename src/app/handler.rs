//! The forwarder as the data path's handler: one value per worker.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use super::samples::Samples;
use crate::datapath::{Batch, Handler, Origin, Out, Packet};
use crate::forward::Forwarder;
use crate::route::Plan;
use crate::time::Instant;
use crate::verdict::{DropReason, Verdict};

/// Decides over batches with the plan of the moment.
pub struct SipHandler {
    forwarder: Forwarder,
    plan: Cache<Arc<ArcSwap<Plan>>, Arc<Plan>>,
    samples: Arc<Samples>,
}

impl SipHandler {
    /// A handler that follows `plan` and leaves samples of drops.
    pub fn new(forwarder: Forwarder, plan: Arc<ArcSwap<Plan>>, samples: Arc<Samples>) -> Self {
        Self {
            forwarder,
            plan: Cache::new(plan),
            samples,
        }
    }
}

impl Handler for SipHandler {
    fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, now: Instant) {
        // One look a batch: all its messages are decided by one plan. The old plan is kept alive by
        // the main thread, so that letting go of it here frees nothing.
        let plan = self.plan.load();
        for mut packet in batch.drain(..) {
            if !is_served(plan, &packet) {
                self.samples
                    .offer(DropReason::SourceDenied, &packet.flow, packet.payload());
                out.drop(packet, DropReason::SourceDenied);
                continue;
            }
            let forwarder = &mut self.forwarder;
            let verdict = packet.edit(|buffer, flow| forwarder.decide(plan, buffer, flow, now));
            match verdict {
                Verdict::Transmit => out.send(packet),
                Verdict::HandOver(worker) => out.hand_over(packet, worker),
                Verdict::Drop(reason) => {
                    self.samples.offer(reason, &packet.flow, packet.payload());
                    out.drop(packet, reason);
                }
            }
        }
    }

    fn on_timer(&mut self, _now: Instant, _out: &mut Out<'_>) -> Option<Instant> {
        // Called once before the first packet: the first look of a thread at a changed plan takes a
        // place in a list that arc-swap allocates, and that must not happen at a reload.
        drop(self.plan.arc_swap().load());
        None
    }
}

/// Whether the listener serves a packet's source. XDP has asked this of what it sent up; the kernel
/// path carries what XDP passes, and everything where there is no XDP.
fn is_served(plan: &Plan, packet: &Packet) -> bool {
    packet.origin() != Origin::Kernel
        || plan
            .listener(packet.flow.listener)
            .is_none_or(|listener| listener.serves(packet.flow.peer.ip()))
}
