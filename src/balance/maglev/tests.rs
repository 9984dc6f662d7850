//! Tests of the lookup table.

use super::*;
use crate::net::ServerId;

fn member(slot: u16, weight: u32) -> Member {
    Member {
        server: ServerIndex(slot),
        id: ServerId(0x9e37_79b9u32.wrapping_mul(u32::from(slot) + 1)),
        weight,
    }
}

fn shares(table: &Maglev, servers: usize) -> Vec<usize> {
    let mut shares = vec![0; servers];
    for server in table.entries() {
        shares[usize::from(server.0)] += 1;
    }
    shares
}

#[test]
fn shares_are_the_weights() {
    let members = [member(0, 1), member(1, 2), member(2, 0), member(3, 7)];
    let table = Maglev::new(&[1; 16], &members).unwrap();
    let shares = shares(&table, 4);
    for (share, weight) in shares.iter().zip([1, 2, 0, 7]) {
        let ideal = table.len() * weight / 10;
        assert!(share.abs_diff(ideal) <= 2, "{shares:?}");
    }
}
