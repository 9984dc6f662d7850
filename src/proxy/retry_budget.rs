//! How many calls of a pool may move to another server because one is silent.
//!
//! A stall of the whole farm looks like silence of each server; moving every call on would double
//! the load that caused it. So moves are paid from what new calls leave: a percentage of them, and a
//! few for a quiet pool.

use crate::limits::{POOLS_MAX, RETRY_RESERVE};
use crate::net::PoolIndex;

/// Hundredths of a move saved per pool.
#[derive(Debug)]
pub(super) struct RetryBudget {
    hundredths: [u32; POOLS_MAX],
}

impl RetryBudget {
    pub(super) fn new() -> Self {
        Self {
            hundredths: [RETRY_RESERVE * 100; POOLS_MAX],
        }
    }

    /// A new call, of which `percent` hundredths of a move are saved.
    pub(super) fn earn(&mut self, pool: PoolIndex, percent: u32) {
        if let Some(saved) = self.hundredths.get_mut(usize::from(pool.0)) {
            *saved = saved.saturating_add(percent).min(RETRY_RESERVE * 100);
        }
    }

    /// Takes one move, if there is one. With 0 percent there never is.
    pub(super) fn take(&mut self, pool: PoolIndex, percent: u32) -> bool {
        match self.hundredths.get_mut(usize::from(pool.0)) {
            Some(saved) if percent > 0 && *saved >= 100 => {
                *saved -= 100;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_moves_the_reserve_and_then_its_share() {
        let mut budget = RetryBudget::new();
        let pool = PoolIndex(0);
        let moved = (0..1000)
            .filter(|_| {
                budget.earn(pool, 10);
                budget.take(pool, 10)
            })
            .count();
        let reserve = usize::try_from(RETRY_RESERVE).unwrap();
        assert!((100..=100 + reserve + 1).contains(&moved), "{moved}");
        assert!(!budget.take(PoolIndex(1), 0));
        assert!(budget.take(PoolIndex(1), 1));
    }
}
