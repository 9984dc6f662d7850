//! What the choice of a server costs one message, and what a table costs a reload.
//!
//! `cargo bench --bench balance`.

use core::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use viaduct::balance::{AffinityKey, Maglev, Member, Rendezvous, StatelessSelect};
use viaduct::net::{ServerId, ServerIndex};

const SEED: [u8; 16] = [7; 16];

fn members(count: u16, weight: impl Fn(u16) -> u32) -> Vec<Member> {
    (0..count)
        .map(|slot| Member {
            server: ServerIndex(slot),
            id: ServerId((u32::from(slot) + 1).wrapping_mul(0x9e37_79b1)),
            weight: weight(slot),
        })
        .collect()
}

/// Keys in an order that no prefetcher guesses.
fn keys() -> impl FnMut() -> AffinityKey {
    let mut state = 0u64;
    move || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        AffinityKey(state ^ (state >> 29))
    }
}

fn select(c: &mut Criterion) {
    for count in [3, 100, 4096] {
        let maglev = Maglev::new(&SEED, &members(count, |_| 10)).expect("members are distinct");
        assert!(maglev.select(AffinityKey(0)).is_some());
        let mut next = keys();
        c.bench_function(&format!("maglev/select/{count}"), |b| {
            b.iter(|| maglev.select(black_box(next())));
        });
    }
    for count in [3, 16, 100] {
        let servers = members(count, |slot| 1 + u32::from(slot) % 3);
        let rendezvous = Rendezvous::new(&SEED, &servers).expect("members are distinct");
        assert!(rendezvous.select(AffinityKey(0)).is_some());
        let mut next = keys();
        c.bench_function(&format!("rendezvous/select/{count}"), |b| {
            b.iter(|| rendezvous.select(black_box(next())));
        });
    }
}

fn build(c: &mut Criterion) {
    let mut group = c.benchmark_group("maglev/build");
    group.sample_size(10);
    for (label, members) in [
        ("3", members(3, |_| 1)),
        ("655", members(655, |_| 1)),
        ("4096", members(4096, |_| 1)),
        (
            "4096_weighted",
            members(4096, |slot| 1 + u32::from(slot) % 1000),
        ),
    ] {
        let table = Maglev::new(&SEED, &members).expect("members are distinct");
        assert!(table.len() >= members.len() * 100);
        group.bench_function(label, |b| {
            b.iter_batched(
                || members.clone(),
                |members| Maglev::new(&SEED, &members),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, select, build);
criterion_main!(benches);
