//! Tests of rendezvous selection; how little moves is tested beside Maglev.

use super::*;
use crate::net::ServerId;

fn member(slot: u16, weight: u32) -> Member {
    Member {
        server: ServerIndex(slot),
        id: ServerId((u32::from(slot) + 1).wrapping_mul(0x9e37_79b1)),
        weight,
    }
}

#[test]
#[expect(clippy::cast_precision_loss, reason = "a reference in floating point")]
fn the_logarithm_is_one() {
    let mut x = 1u64;
    for _ in 0..100_000 {
        x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        for x in [x, x >> (x % 64), u64::MAX - (x >> 40)] {
            let fixed = negative_log2(x) as f64 / (1u64 << 32) as f64;
            let float = 64.0 - ((x | 1) as f64).log2();
            assert!((fixed - float).abs() < 3e-6, "{x}: {fixed} {float}");
        }
    }
    assert_eq!(negative_log2(0), 64 << 32);
    assert_eq!(negative_log2(u64::MAX) >> 10, 0);
}

#[test]
fn shares_are_the_weights() {
    let weights = [1, 2, 0, 7, 10];
    let members: Vec<_> = (0u16..)
        .zip(weights)
        .map(|(slot, weight)| member(slot, weight))
        .collect();
    let pool = Rendezvous::new(&[1; 16], &members).unwrap();
    let mut shares = [0u32; 5];
    for number in 0..100_000u64 {
        let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let server = pool.select(AffinityKey(key)).unwrap();
        shares[usize::from(server.0)] += 1;
    }
    for (share, weight) in shares.iter().zip(weights) {
        // Five sigma of the largest share: √(100,000 · ½ · ½) ≈ 158.
        assert!(share.abs_diff(weight * 5_000) < 800, "{shares:?}");
    }
    assert_eq!(shares[2], 0);
}

#[test]
fn servers_without_weight_get_nothing() {
    let none = Rendezvous::new(&[1; 16], &[member(0, 0)]).unwrap();
    assert_eq!(none.select(AffinityKey(1)), None);
    let twins = Rendezvous::new(&[1; 16], &[member(0, 1), member(0, 1)]);
    assert!(matches!(twins, Err(TableError::SameId(..))));
}
