//! What keeps a NAT open: STUN is answered where a listener says so, all else is dropped.

use super::Forwarder;
use crate::net::Flow;
use crate::packet::Buffer;
use crate::route::{Direction, Plan};
use crate::stun;
use crate::time::Instant;
use crate::verdict::{DropReason, Verdict};

impl Forwarder {
    /// What becomes of a datagram that is not read as a message, for `reason`.
    ///
    /// RFC 5626 §4.4.1 has a CRLF CRLF answered on streams; over UDP it has done its work when it
    /// has passed the NAT.
    #[cold]
    pub(crate) fn turn_away(
        &mut self,
        reason: DropReason,
        plan: &Plan,
        buffer: &mut Buffer<'_>,
        flow: &Flow,
        now: Instant,
    ) -> Verdict {
        match reason {
            DropReason::Stun => self.on_stun(plan, buffer, flow, now),
            _ => Verdict::Drop(reason),
        }
    }

    /// RFC 5626 §5.4, §8: a Binding request on the SIP port is answered from there.
    fn on_stun(
        &mut self,
        plan: &Plan,
        buffer: &mut Buffer<'_>,
        flow: &Flow,
        now: Instant,
    ) -> Verdict {
        let is_served = plan
            .listener(flow.listener)
            .is_some_and(|listener| listener.stun);
        if !is_served {
            return Verdict::Drop(DropReason::Stun);
        }
        let Some(answer) = stun::answer(buffer.payload(), flow.peer) else {
            return Verdict::Drop(DropReason::Stun);
        };
        // A source may be forged here as in SIP, and one budget is for both.
        let (source, sources) = (flow.peer.ip(), &self.base.shared.sources);
        let per_source = match plan.direction(flow.listener, source) {
            Direction::Outside => plan.rules.answers_per_source,
            Direction::Farm | Direction::Trusted => None,
        };
        if !sources.take(per_source, plan.keys(), source, now) {
            return Verdict::Drop(DropReason::AnswerLimitedSource);
        }
        let per_second = plan.rules.answers_per_second;
        if !self.budget.take(per_second, self.base.workers, now) {
            return Verdict::Drop(DropReason::AnswerLimited);
        }
        if buffer.replace(&answer).is_err() {
            return Verdict::Drop(DropReason::NoRoom);
        }
        self.base.metrics.stun_answers.increment();
        Verdict::Transmit
    }
}
