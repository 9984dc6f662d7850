//! What is remembered of a choice, for who asks later why a call went where it went.

use super::{Context, pin_key};
use crate::affinity::{CallIdHash, Decision, Ground, Passage, Pin, Pins};
use crate::balance::AffinityKey;
use crate::net::{ListenerIndex, PoolIndex, ServerIndex};
use crate::route::{Action, Direction, KeySource};
use crate::time::Instant;

/// The pin of a call that came from outside the farm to a listener.
pub fn pin_of(
    pins: &Pins,
    call_id: CallIdHash,
    listener: ListenerIndex,
    now: Instant,
) -> Option<Pin> {
    pins.find(pin_key(call_id, listener, None), now)
}

impl Context<'_> {
    /// Which passage of its call a request belongs to.
    pub(super) fn passage(&self) -> Passage {
        Passage {
            call_id: self.call_id,
            listener: self.flow.listener,
            from_farm: self.direction == Direction::Farm,
        }
    }

    /// Remembers that another server was tried for a call.
    pub(crate) fn note_tried(&self, server: ServerIndex) {
        self.decisions.tried(&self.passage(), server);
    }

    /// Remembers which server of a pool a new call got by the rule that `source` stands in, or that
    /// none took new calls.
    pub(super) fn note(
        &self,
        pool: PoolIndex,
        source: &KeySource,
        key: AffinityKey,
        ground: Ground,
        server: Option<ServerIndex>,
    ) {
        if !self.decisions.is_on() {
            return;
        }
        let is_met = |action: &Action| match action {
            Action::Pool { key, .. } => core::ptr::eq(key, source),
            _ => false,
        };
        let mut rules = self.plan.rules().iter();
        let rule = rules.position(|rule| is_met(&rule.action));
        self.decisions.note(&Decision {
            passage: self.passage(),
            key: key.0,
            at: self.now,
            plan: self.plan.version,
            rule: rule.and_then(|rule| u16::try_from(rule).ok()),
            pool,
            ground,
            tried: server.into_iter().collect(),
        });
    }
}
