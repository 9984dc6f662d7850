//! Tests of rendezvous selection.

use super::*;

#[test]
fn the_logarithm_is_one() {
    for x in [
        1,
        2,
        3,
        255,
        256,
        1 << 40,
        u64::MAX / 3,
        u64::MAX - 1,
        u64::MAX,
    ] {
        #[expect(clippy::cast_precision_loss, reason = "a reference in floating point")]
        let (fixed, float) = (
            negative_log2(x) as f64 / (1u64 << 32) as f64,
            64.0 - ((x | 1) as f64).log2(),
        );
        assert!((fixed - float).abs() < 3e-6, "{x}: {fixed} {float}");
    }
}
