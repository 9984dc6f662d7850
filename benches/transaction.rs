//! What transactions cost: timers, lookups, stored messages.
//!
//! `cargo bench --bench transaction`. Tables hold 65,536 (the default) or 1,000,000 entries; keys and
//! ids come in an order that no prefetcher guesses, so that the large ones show what memory costs.

use core::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use viaduct::time::{Duration, Instant, T1, T1_64};
use viaduct::transaction::machine::{Transport, invite_client};
use viaduct::transaction::store::{Blobs, Index, Slab};
use viaduct::transaction::wheel::{TICK, Wheel};

const SIZES: [u32; 2] = [65_536, 1_000_000];
const START: Instant = Instant::from_nanos(1_000_000_000_000);

/// Uniform numbers, always the same.
fn numbers() -> impl FnMut() -> u64 {
    let mut state = 0u64;
    move || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        state ^ (state >> 29)
    }
}

fn below(number: u64, bound: u32) -> u32 {
    u32::try_from((u128::from(number) * u128::from(bound)) >> 64).expect("below the bound")
}

fn machine(c: &mut Criterion) {
    let mut next = numbers();
    c.bench_function("machine/step", |b| {
        b.iter(|| {
            let state = invite_client::State::ALL[below(next(), 5) as usize];
            let event = invite_client::Event::ALL[below(next(), 8) as usize];
            invite_client::step(black_box(state), event, Transport::Unreliable)
        });
    });
}

fn wheel(c: &mut Criterion) {
    for size in SIZES {
        let mut wheel = Wheel::new(size, START);
        let mut next = numbers();
        for id in 0..size {
            wheel.arm(
                id,
                START + T1_64 + Duration::from_millis(u64::from(id) % 8192),
            );
        }
        assert_eq!(wheel.armed(), size);
        // What every message does: the deadline of one of many is replaced.
        c.bench_function(&format!("wheel/arm/{size}"), |b| {
            b.iter(|| {
                let number = next();
                let deadline = START + T1 + Duration::from_millis(number % 32_000);
                wheel.arm(below(number, size), black_box(deadline));
            });
        });
        c.bench_function(&format!("wheel/next_deadline/{size}"), |b| {
            b.iter(|| black_box(&wheel).next_deadline());
        });

        // All fire over 32 s and are armed again, tick by tick; the cost is one firing's.
        let mut wheel = Wheel::new(size, START);
        for id in 0..size {
            wheel.arm(id, START + Duration::from_millis(next() % 32_000));
        }
        let mut now = START;
        c.bench_function(&format!("wheel/fire_and_arm/{size}"), |b| {
            b.iter(|| {
                let id = loop {
                    if let Some(id) = wheel.pop_due(now) {
                        break id;
                    }
                    now += TICK;
                };
                wheel.arm(id, now + T1_64);
                id
            });
        });
        assert_eq!(wheel.armed(), size);
    }
}

fn index(c: &mut Criterion) {
    for size in SIZES {
        let mut slab = Slab::new(size);
        let mut index = Index::new(size);
        let key = |n: u32| u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        for n in 0..size {
            let handle = slab.insert([u64::from(n); 32]).expect("room");
            index.insert(key(n), handle).expect("no such key yet");
        }
        let mut next = numbers();
        c.bench_function(&format!("index/find/{size}"), |b| {
            b.iter(|| {
                let handle = index.find(black_box(key(below(next(), size))));
                assert!(handle.is_some());
            });
        });
        c.bench_function(&format!("index/find_and_read/{size}"), |b| {
            b.iter(|| {
                let n = below(next(), size);
                let record = index.find(key(n)).and_then(|handle| slab.at(handle));
                assert_eq!(record.map(|record| record[31]), Some(u64::from(n)));
            });
        });
        c.bench_function(&format!("index/find_stranger/{size}"), |b| {
            b.iter(|| {
                assert!(
                    index
                        .find(black_box((u128::from(next()) << 40) | 1))
                        .is_none()
                )
            });
        });
        // One transaction goes, another comes.
        let mut fresh = size;
        let mut oldest = 0;
        c.bench_function(&format!("index/remove_and_insert/{size}"), |b| {
            b.iter(|| {
                let handle = index.remove(key(oldest)).expect("there");
                let record = slab.remove(handle).expect("there");
                let handle = slab.insert(record).expect("room");
                index.insert(key(fresh), handle).expect("no such key yet");
                oldest += 1;
                fresh += 1;
            });
        });
        assert_eq!(index.len(), size);
    }
}

fn blobs(c: &mut Criterion) {
    let mut group = c.benchmark_group("blobs");
    for len in [300usize, 507, 1400] {
        let mut blobs = Blobs::new(64 << 20);
        let message = vec![b'm'; len];
        // Chunks in an order that years of use would leave.
        let mut held: Vec<_> = (0..20_000)
            .map(|_| blobs.store(&[&message]).expect("room"))
            .collect();
        let mut next = numbers();
        let mut out = vec![0; len];
        group.throughput(Throughput::Bytes(u64::try_from(len).expect("small")));
        group.bench_function(format!("free_and_store/{len}"), |b| {
            b.iter(|| {
                let old = below(next(), 20_000) as usize;
                let new = blobs.store(&[black_box(&message)]).expect("room");
                blobs.free(core::mem::replace(&mut held[old], new));
            });
        });
        group.bench_function(format!("copy_to/{len}"), |b| {
            b.iter(|| {
                let blob = &held[below(next(), 20_000) as usize];
                assert_eq!(blobs.copy_to(blob, black_box(&mut out)), len);
            });
        });
        for blob in held {
            blobs.free(blob);
        }
        assert_eq!(blobs.free_bytes(), blobs.capacity_bytes());
    }
    group.finish();
}

criterion_group!(benches, machine, wheel, index, blobs);
criterion_main!(benches);
