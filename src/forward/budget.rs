//! How many answers of our own may still be sent: in all, and to one source.
//!
//! An answer goes to the source address of a request, which anybody can forge. It is never longer
//! than the request; and no address is sent more of them than `answers_per_source` a second, however
//! many requests come in its name.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::affinity::Keys;
use crate::limits::ANSWER_SOURCES;
use crate::net::IpAddr;
use crate::time::{Duration, Instant};

/// Answers that may be sent at once: what the rate gives in this time.
const BURST: Duration = Duration::from_secs(1);

/// Times that a worker tries to take from a budget that others take from.
const ATTEMPTS: usize = 8;

/// When all answers sent so far are paid for, after one more; `None` if it is one too many.
fn pay(paid_at: Instant, per_second: u32, now: Instant) -> Option<Instant> {
    let paid_at = paid_at.max(now);
    (paid_at.since(now) < BURST).then(|| paid_at + BURST / per_second.max(1))
}

/// One worker's share of all answers.
#[derive(Debug, Default)]
pub(super) struct AnswerBudget {
    paid_at: Instant,
}

impl AnswerBudget {
    /// Takes one answer out of a budget of `per_second`, if there is one.
    pub(super) fn take(&mut self, per_second: Option<u32>, workers: u8, now: Instant) -> bool {
        let Some(total) = per_second else {
            return true;
        };
        let share = (total / u32::from(workers.max(1))).max(1);
        let Some(paid_at) = pay(self.paid_at, share, now) else {
            return false;
        };
        self.paid_at = paid_at;
        true
    }
}

/// The budgets of sources, IPv6 by /64, which one host may fill at will.
///
/// Each source has the budget of its bucket; a keyed hash leads there, so that nobody can look for
/// addresses that share one with another's. All workers count together: a source's requests may
/// come to any of them, and one more than its rate is not one for each. Once a budget is used up
/// nobody writes to it, so that a flood costs the workers a read each.
#[derive(Debug)]
pub(super) struct SourceBudgets {
    /// When the answers sent so far are paid for, in nanoseconds.
    paid_at: Box<[AtomicU64]>,
}

impl SourceBudgets {
    pub(super) fn new() -> Self {
        Self {
            paid_at: (0..ANSWER_SOURCES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Takes one answer out of a source's budget of `per_second`, if there is one.
    pub(super) fn take(
        &self,
        per_second: Option<u32>,
        keys: &Keys,
        source: IpAddr,
        now: Instant,
    ) -> bool {
        let Some(rate) = per_second else {
            return true;
        };
        let hash = source_hash(keys, source) % ANSWER_SOURCES as u64;
        let Some(slot) = usize::try_from(hash)
            .ok()
            .and_then(|index| self.paid_at.get(index))
        else {
            return true;
        };
        for _ in 0..ATTEMPTS {
            let before = slot.load(Ordering::Relaxed);
            let Some(paid_at) = pay(Instant::from_nanos(before), rate, now) else {
                return false;
            };
            let (order, paid_at) = (Ordering::Relaxed, paid_at.as_nanos());
            if slot.compare_exchange(before, paid_at, order, order).is_ok() {
                return true;
            }
        }
        // All the others were quicker: the source has had its answers.
        false
    }
}

/// Hash of a source's network: the address, or the /64 of an IPv6 one.
fn source_hash(keys: &Keys, source: IpAddr) -> u64 {
    // The first byte keeps this apart from other uses of the key.
    match source {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            keys.affinity_hash(&[4, a, b, c, d])
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h, ..] = v6.octets();
            keys.affinity_hash(&[6, a, b, c, d, e, f, g, h])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affinity::Secret;

    const START: Instant = Instant::from_nanos(100_000_000_000);

    #[test]
    fn the_budget_is_a_rate_with_a_second_of_burst() {
        let mut budget = AnswerBudget::default();
        let taken = |budget: &mut AnswerBudget, now| {
            (0..50).filter(|_| budget.take(Some(20), 2, now)).count()
        };
        assert_eq!(taken(&mut budget, START), 10);
        assert_eq!(taken(&mut budget, START), 0);
        assert_eq!(taken(&mut budget, START + Duration::from_millis(500)), 5);
        assert_eq!(taken(&mut budget, START + Duration::from_secs(60)), 10);
        assert!((0..100).all(|_| budget.take(None, 2, START)));
    }

    #[test]
    fn each_source_has_a_rate_of_its_own() {
        let keys = Keys::new(&Secret::from_bytes(*b"0123456789abcdefghijklmnopqrstuv").unwrap());
        let budgets = SourceBudgets::new();
        let taken = |source: &str, now| {
            let source = source.parse().unwrap();
            (0..50)
                .filter(|_| budgets.take(Some(20), &keys, source, now))
                .count()
        };
        assert_eq!(taken("198.18.0.1", START), 20);
        assert_eq!(taken("198.18.0.1", START), 0);
        assert_eq!(taken("198.18.0.2", START), 20);
        assert_eq!(taken("198.18.0.1", START + Duration::from_millis(250)), 5);
        // One host has a whole /64.
        assert_eq!(taken("2001:db8:0:1::1", START), 20);
        assert_eq!(taken("2001:db8:0:1:ffff::2", START), 0);
        assert_eq!(taken("2001:db8:0:2::1", START), 20);
        let source = "198.18.0.1".parse().unwrap();
        assert!((0..100).all(|_| budgets.take(None, &keys, source, START)));
    }

    /// Sources in number share buckets, and only so many.
    #[test]
    fn sources_spread_over_the_buckets() {
        let keys = Keys::new(&Secret::from_bytes(*b"0123456789abcdefghijklmnopqrstuv").unwrap());
        let budgets = SourceBudgets::new();
        let alone = (0..1000_u32)
            .filter(|n| {
                let source = IpAddr::V4((0xc612_0000 + n).into());
                budgets.take(Some(1), &keys, source, START)
            })
            .count();
        // 4096 · (1 − (1 − 1/4096)^1000) ≈ 887 buckets are met.
        assert!((850..925).contains(&alone), "{alone}");
    }

    #[test]
    fn workers_take_from_one_budget() {
        let keys = Keys::new(&Secret::from_bytes(*b"0123456789abcdefghijklmnopqrstuv").unwrap());
        let budgets = SourceBudgets::new();
        let source = "198.18.0.1".parse().unwrap();
        let taken: usize = std::thread::scope(|scope| {
            let take = || {
                (0..1000)
                    .filter(|_| budgets.take(Some(100), &keys, source, START))
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(taken, 100);
    }
}
