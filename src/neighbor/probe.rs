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
//! `PROBE_INTERVAL` + `UNANSWERED` + two ticks, 4 s; a gratuitous ARP or an unsolicited
//! advertisement at once, by its event. Lost answers change nothing: three requests are sent
//! before `UNANSWERED` is over.
//!
//! Pure: takes `now`, returns what to do.

use std::collections::BTreeMap;

use super::decode::Reachability;
use crate::limits::{NEIGHBOURS_MAX, PROBES_PER_TICK};
use crate::net::IpAddr;
use crate::time::{Duration, Instant};

/// A confirmation is good for this long: with the answer's way and a tick, asked once a second.
const PROBE_INTERVAL: Duration = Duration::from_millis(900);

/// Unanswered for this long a neighbour is looked for under another MAC address. Between the third of
/// the kernel's requests (`retrans_time`, 1 s) and its own giving up.
///
/// Not sooner: until an interface that has just come up has its IPv6 link-local address, up to two
/// seconds (RFC 4862 §5.4), nothing answers there, and a broadcast would not be answered either; the
/// neighbour that was good until then would be lost for a second.
const UNANSWERED: Duration = Duration::from_millis(2500);

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

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(250);
    const KEY: Key = (2, IpAddr::V4(core::net::Ipv4Addr::new(198, 18, 0, 11)));

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    /// The kernel's side of it: a neighbour that answers while `present`, asked three times a second
    /// apart, and a prober that looks every tick.
    struct Kernel {
        state: Reachability,
        asked: u32,
        next_request: Option<u64>,
    }

    impl Kernel {
        fn act(&mut self, action: Action, now: u64, answers_broadcast: impl Fn() -> bool) {
            match action {
                Action::Probe => {
                    (self.state, self.asked, self.next_request) =
                        (Reachability::Probing, 0, Some(now));
                }
                Action::Restart | Action::Resolve => {
                    self.next_request = None;
                    self.state = match answers_broadcast() {
                        true => Reachability::Reachable,
                        false => Reachability::Unknown,
                    };
                }
            }
        }

        fn advance(&mut self, now: u64, answers_unicast: bool) {
            while let Some(due) = self.next_request.filter(|due| *due <= now) {
                self.asked += 1;
                self.next_request = Some(due + 1000);
                if answers_unicast {
                    (self.state, self.next_request) = (Reachability::Reachable, None);
                } else if self.asked > 3 {
                    (self.state, self.next_request) = (Reachability::Unknown, None);
                }
            }
        }
    }

    /// Runs 30 s; `unicast` and `broadcast` say whether a request at that time is answered. Returns
    /// the actions with their times.
    fn run(
        initial: Reachability,
        unicast: impl Fn(u64) -> bool,
        broadcast: impl Fn(u64) -> bool,
    ) -> Vec<(u64, Action)> {
        let mut prober = Prober::default();
        let mut kernel = Kernel {
            state: initial,
            asked: 0,
            next_request: None,
        };
        let mut actions = Vec::new();
        for now in (0..30_000).step_by(10) {
            let before = kernel.state;
            kernel.advance(now, unicast(now));
            if kernel.state != before {
                prober.on_state(KEY, kernel.state, at(now));
            }
            if now % 250 == 0 {
                prober.on_use(KEY, at(now));
                for (key, action) in prober.on_tick(at(now), |_| kernel.state) {
                    assert_eq!(key, KEY);
                    actions.push((now, action));
                    kernel.act(action, now, || broadcast(now));
                    prober.on_state(KEY, kernel.state, at(now));
                }
            }
        }
        actions
    }

    #[test]
    fn a_neighbour_in_use_is_asked_once_a_second() {
        let actions = run(Reachability::Reachable, |_| true, |_| true);
        assert!(actions.iter().all(|(_, action)| *action == Action::Probe));
        let gaps: Vec<u64> = actions
            .windows(2)
            .map(|pair| pair[1].0 - pair[0].0)
            .collect();
        assert!(gaps.iter().all(|gap| *gap == 1000), "{gaps:?}");
    }

    /// The MAC address changes at any time: found again within 4 s.
    #[test]
    fn a_silent_change_is_followed_within_four_seconds() {
        for change in (5000..7000).step_by(10) {
            // The old address answers nobody any more until the broadcast has found the new one.
            let found = core::cell::Cell::new(None);
            let actions = run(
                Reachability::Stale,
                |now| now < change || found.get().is_some(),
                |now| {
                    found.set(Some(now));
                    true
                },
            );
            let restarts: Vec<u64> = actions
                .iter()
                .filter(|(_, action)| *action == Action::Restart)
                .map(|(now, _)| *now)
                .collect();
            assert_eq!(restarts.len(), 1, "changed at {change}: {actions:?}");
            assert!(
                restarts[0] - change <= 4000,
                "changed at {change}, found at {}",
                restarts[0]
            );
        }
    }

    /// One lost answer in a row is made good by the kernel's second request.
    #[test]
    fn one_lost_answer_is_not_a_change() {
        let lost = core::cell::Cell::new(0u32);
        let every_other = |_| {
            lost.set(lost.get() + 1);
            lost.get().is_multiple_of(2)
        };
        let actions = run(Reachability::Reachable, every_other, |_| true);
        assert!(
            actions.iter().all(|(_, action)| *action == Action::Probe),
            "{actions:?}"
        );
    }

    /// A dead neighbour is looked for once a second, not more.
    #[test]
    fn a_dead_neighbour_is_asked_for_once_a_second() {
        let actions = run(Reachability::Unknown, |_| false, |_| false);
        assert!(actions.iter().all(|(_, action)| *action == Action::Resolve));
        assert!((25..=31).contains(&actions.len()), "{}", actions.len());
    }

    #[test]
    fn a_fixed_neighbour_is_never_asked() {
        assert!(run(Reachability::Fixed, |_| true, |_| true).is_empty());
    }

    #[test]
    fn a_neighbour_not_used_any_more_is_forgotten() {
        let mut prober = Prober::default();
        prober.on_use(KEY, at(0));
        assert_eq!(
            prober.on_tick(at(4999), |_| Reachability::Stale),
            [(KEY, Action::Probe)]
        );
        assert!(prober.on_tick(at(5000), |_| Reachability::Stale).is_empty());
    }

    /// More in use than one tick may ask: all have their turn.
    #[test]
    fn a_crowd_takes_turns() {
        let mut prober = Prober::default();
        let keys: Vec<Key> = (0..3 * PROBES_PER_TICK + 7)
            .map(|host| {
                (
                    2,
                    core::net::Ipv4Addr::from_bits(u32::try_from(host).unwrap()).into(),
                )
            })
            .collect();
        let mut asked = std::collections::HashSet::new();
        for tick in 0..4 {
            let now = Instant::ZERO + TICK * tick;
            keys.iter().for_each(|key| prober.on_use(*key, now));
            let actions = prober.on_tick(now, |_| Reachability::Reachable);
            assert!(actions.len() <= PROBES_PER_TICK);
            for (key, action) in actions {
                assert_eq!(action, Action::Probe);
                assert!(asked.insert(key), "{key:?} asked twice before others");
                prober.on_state(key, Reachability::Reachable, now);
            }
        }
        assert_eq!(asked.len(), keys.len());
    }

    /// An interface that has just come up answers nothing for up to two seconds.
    #[test]
    fn a_neighbour_that_is_silent_for_two_seconds_is_kept() {
        let key: Key = (1, "2001:db8::1".parse().unwrap());
        let mut prober = Prober::default();
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        prober.on_use(key, at(1000));
        let asked = prober.on_tick(at(1000), |_| Reachability::Stale);
        assert_eq!(asked, [(key, Action::Probe)]);
        for millis in [1250, 2000, 3000, 3250, 3499] {
            prober.on_use(key, at(millis));
            assert_eq!(prober.on_tick(at(millis), |_| Reachability::Probing), []);
        }
        let given_up = prober.on_tick(at(3500), |_| Reachability::Probing);
        assert_eq!(given_up, [(key, Action::Restart)]);
    }
}
