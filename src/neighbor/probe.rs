//! When to ask a neighbour whether its MAC address still holds.
//!
//! The kernel does not see what leaves through an AF_XDP socket, so to it a neighbour that viaduct
//! talks to all day is unused, and even one that it knows to be used it believes for
//! `base_reachable_time` (30 s), then asks after `delay_first_probe_time` (5 s) three times a second
//! apart. A server that takes a new MAC address silently would be lost for half a minute. So here
//! every neighbour in use is asked once a second, by the kernel's own machine:
//!
//! ```text
//!            in use, not confirmed for PROBE_INTERVAL       unanswered for UNANSWERED
//!   Reachable ──────────────── NUD_PROBE ──────► Probing ──── NUD_FAILED + NTF_USE ──► Unknown
//!   or Stale ◄───────────────────────────────────── │                                    │
//!       ▲          the same MAC address answers      unicast, one a second     broadcast │
//!       └────────────────────────────────────────────────────────────────────────────────┘
//!                                        a new MAC address answers
//! ```
//!
//! `NUD_PROBE` makes the kernel send a unicast request at once and keep the entry in use meanwhile;
//! `NTF_USE` on a failed entry makes it broadcast at once. A silent change is thus followed within
//! `PROBE_INTERVAL` + `UNANSWERED` + two ticks, 3 s; a gratuitous ARP or an unsolicited
//! advertisement at once, by its event. One lost answer changes nothing: the second request is sent
//! before `UNANSWERED` is over.
//!
//! Pure: takes `now`, returns what to do.

use std::collections::BTreeMap;

use super::decode::Reachability;
use crate::limits::{NEIGHBOURS_MAX, PROBES_PER_TICK};
use crate::net::IpAddr;
use crate::time::{Duration, Instant};

/// A confirmation is good for this long.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Unanswered for this long a neighbour is looked for under another MAC address. Between the second
/// and the third of the kernel's requests (`retrans_time`, 1 s).
const UNANSWERED: Duration = Duration::from_millis(1500);

/// A neighbour not used for this long is no longer asked.
const FORGET: Duration = Duration::from_secs(5);

/// An unknown neighbour is asked for at most this often.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(1);

/// Interface and address.
pub(super) type Key = (u32, IpAddr);

/// What to tell the kernel about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// `NUD_PROBE`: ask it, keep using it.
    Probe,
    /// `NUD_FAILED`, then `NTF_USE`: look for it anew.
    Restart,
    /// `NTF_USE`: look for it.
    Resolve,
}

#[derive(Debug)]
struct InUse {
    used: Instant,
    confirmed: Option<Instant>,
    asked: Option<Instant>,
    resolved: Option<Instant>,
}

/// The neighbours in use.
#[derive(Debug, Default)]
pub(super) struct Prober {
    in_use: BTreeMap<Key, InUse>,
    /// Where the next tick goes on, if the last could not ask all.
    next: Option<Key>,
}

impl Prober {
    /// The data path has sent to `key`, or would have if its MAC address were known.
    pub(super) fn on_use(&mut self, key: Key, now: Instant) {
        if self.in_use.len() >= NEIGHBOURS_MAX && !self.in_use.contains_key(&key) {
            return;
        }
        let fresh = InUse {
            used: now,
            confirmed: None,
            asked: None,
            resolved: None,
        };
        self.in_use.entry(key).or_insert(fresh).used = now;
    }

    /// The kernel reports a state of `key`.
    pub(super) fn on_state(&mut self, key: Key, reachability: Reachability, now: Instant) {
        let Some(entry) = self.in_use.get_mut(&key) else {
            return;
        };
        match reachability {
            Reachability::Reachable | Reachability::Fixed => {
                entry.confirmed = Some(now);
                entry.asked = None;
            }
            Reachability::Probing => {
                entry.asked.get_or_insert(now);
            }
            Reachability::Stale | Reachability::Unknown => entry.asked = None,
        }
    }

    /// What is due, at most [`PROBES_PER_TICK`] actions. `reachability` is the state of a neighbour
    /// now.
    pub(super) fn on_tick(
        &mut self,
        now: Instant,
        reachability: impl Fn(Key) -> Reachability,
    ) -> Vec<(Key, Action)> {
        self.in_use
            .retain(|_, entry| now.since(entry.used) < FORGET);
        let elapsed =
            |since: Option<Instant>, limit| since.is_none_or(|since| now.since(since) >= limit);
        let mut actions = Vec::new();
        // From where the last tick stopped, once around.
        let start = self.next.take().filter(|key| self.in_use.contains_key(key));
        let mut order: Vec<Key> = self.in_use.keys().copied().collect();
        if let Some(start) = start {
            let at = order.partition_point(|key| *key < start);
            order.rotate_left(at);
        }
        for key in order {
            let Some(entry) = self.in_use.get_mut(&key) else {
                continue;
            };
            let action = match reachability(key) {
                Reachability::Fixed => None,
                Reachability::Reachable | Reachability::Stale => {
                    elapsed(entry.confirmed, PROBE_INTERVAL).then_some(Action::Probe)
                }
                Reachability::Probing => {
                    let asked = *entry.asked.get_or_insert(now);
                    (now.since(asked) >= UNANSWERED).then_some(Action::Restart)
                }
                Reachability::Unknown => {
                    elapsed(entry.resolved, RESOLVE_INTERVAL).then_some(Action::Resolve)
                }
            };
            let Some(action) = action else { continue };
            if actions.len() == PROBES_PER_TICK {
                self.next = Some(key);
                break;
            }
            match action {
                Action::Probe => entry.asked = Some(now),
                Action::Restart | Action::Resolve => {
                    entry.asked = None;
                    entry.resolved = Some(now);
                }
            }
            actions.push((key, action));
        }
        actions
    }
}
