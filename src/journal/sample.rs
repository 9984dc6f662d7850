//! Which calls are logged.

use core::hash::Hasher as _;

use siphasher::sip::SipHasher13;

/// Whether a call of this Call-ID is logged when one of `one_of` is. The key is no secret: all
/// nodes and all logs pick the same calls.
pub fn is_sampled(call_id: &[u8], one_of: u32) -> bool {
    if one_of <= 1 {
        return true;
    }
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(call_id);
    hasher.finish().is_multiple_of(u64::from(one_of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_n_is_picked_and_always_the_same() {
        let picked = |one_of: u32| {
            (0..100_000)
                .filter(|n| is_sampled(format!("{n}@198.18.0.1").as_bytes(), one_of))
                .count()
        };
        assert_eq!(picked(1), 100_000);
        assert_eq!(picked(0), 100_000);
        // Five standard deviations around the mean.
        assert!((9_500..10_500).contains(&picked(10)), "{}", picked(10));
        assert!((50..150).contains(&picked(1000)), "{}", picked(1000));
        assert_eq!(picked(1000), picked(1000));
    }
}
