//! What must have been sent when a message was handled.

use super::{Judge, Meaning, Violation};
use crate::tally::Tally;

impl Judge {
    /// The step is over.
    pub(crate) fn end(&mut self, tally: &mut Tally) -> Result<(), Violation> {
        let step = self.step;
        let Some((call, at)) = step.at else {
            return Ok(());
        };
        let invite = &self.calls[call].invites[at];
        if invite.forgotten {
            if let Meaning::Acceptance { stray: true, .. } = step.meaning
                && step.acceptances == 0
            {
                tally.strays_dropped += 1;
            }
            return Ok(());
        }
        if !self.rules.stateful {
            return self.end_stateless(call, at);
        }
        let branch = step.branch.map(|branch| &invite.branches[branch]);
        match step.meaning {
            Meaning::Nothing => Ok(()),
            Meaning::Invite { first: true } => match step.outputs {
                0 => self.fail(call, "an INVITE gets nothing"),
                _ => Ok(()),
            },
            Meaning::Invite { first: false } => {
                // RFC 3261 §17.2.1, RFC 6026 §7.1.
                if step.invites > 0 && !invite.turned_away {
                    return self.fail(call, "a retransmitted INVITE is forwarded");
                }
                let owes =
                    invite.responses > 0 && invite.accepted.is_none() && !invite.acknowledged;
                if owes && step.trying + step.provisionals + step.refusals != 1 {
                    return self.fail(
                        call,
                        "a retransmitted INVITE does not get the last response",
                    );
                }
                Ok(())
            }
            Meaning::Cancel => {
                // RFC 3261 §16.10, §9.2.
                // §16.10: without its transaction it goes on, and the server answers it.
                let passed_on = invite.is_answered() && step.cancels == 1;
                if step.cancel_answers != 1 && !passed_on {
                    return self.fail(call, "a CANCEL without its answer");
                }
                let missed = |branch: &super::Branch| {
                    branch.is_live() && branch.provisional.is_some() && branch.cancelled.is_none()
                };
                if invite.branches.iter().any(missed) && !invite.is_answered() {
                    return self.fail(call, "a CANCEL does not reach the server");
                }
                Ok(())
            }
            Meaning::AckOfRefusal => match step.outputs {
                0 => Ok(()),
                _ => self.fail(call, "the ACK of a refusal goes on"),
            },
            Meaning::Provisional(status, awaited) => {
                let Some(branch) = branch else { return Ok(()) };
                let unwanted = invite.cancelled.is_some()
                    || branch.abandoned.is_some()
                    || invite.is_answered();
                let open = branch.refused.is_none() && branch.accepted.is_none() && awaited;
                if unwanted && open && branch.cancelled.is_none() {
                    return self.fail(
                        call,
                        "a branch that nobody wants speaks and is not cancelled",
                    );
                }
                // RFC 3261 §16.7 step 5.
                let forward =
                    status > 100 && branch.is_live() && !unwanted && !invite.is_answered();
                if forward && awaited && step.provisionals == 0 {
                    return self.fail(call, format!("{status} is not forwarded"));
                }
                Ok(())
            }
            Meaning::Acceptance { awaited, stray } => {
                if stray && step.acceptances == 0 {
                    tally.strays_dropped += 1;
                }
                match step.acceptances {
                    0 if awaited => self.fail(call, "a 2xx does not reach the caller"),
                    0 | 1 => Ok(()),
                    _ => self.fail(call, "a 2xx is forwarded twice"),
                }
            }
            Meaning::Refusal { awaited } => {
                // RFC 3261 §17.1.1.2.
                if awaited && step.acks == 0 {
                    return self.fail(call, "a refusal is not acknowledged");
                }
                Ok(())
            }
        }
    }

    /// RFC 3261 §16.11: one message in, one message out.
    fn end_stateless(&self, call: usize, at: usize) -> Result<(), Violation> {
        match (self.step.meaning, self.step.outputs) {
            (Meaning::Nothing, _) | (_, 1) => Ok(()),
            // RFC 3261 §8.2.7: of an answer of its own.
            (Meaning::AckOfRefusal, 0) if self.calls[call].invites[at].branches.is_empty() => {
                Ok(())
            }
            (meaning, outputs) => self.fail(
                call,
                format!("{meaning:?}: {outputs} messages of a stateless balancer"),
            ),
        }
    }
}
