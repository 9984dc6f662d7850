//! A million open transactions: store and wheel together, and what one of them costs.

use super::store::{Blob, Blobs, Handle, Index, Slab};
use super::wheel::{TICK, Wheel};
use crate::time::{Duration, Instant, T1_64};

const COUNT: u32 = 1_000_000;
/// The INVITE of the benchmarks.
const INVITE: [u8; 507] = [b'i'; 507];

/// A record as large as a proxy's with room for a few branches: what it is of is not asked here.
struct Record {
    number: u32,
    request: Blob,
    #[expect(dead_code, reason = "stands for what a proxy knows")]
    rest: [u64; 28],
}

/// Keys as a keyed hash gives them: an odd factor is a permutation.
fn key(n: u32) -> u128 {
    u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

/// Bytes of this process in memory now.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

struct Table {
    slab: Slab<Record>,
    index: Index,
    blobs: Blobs,
    wheel: Wheel,
}

impl Table {
    fn new(start: Instant) -> Self {
        Self {
            slab: Slab::new(COUNT),
            index: Index::new(COUNT),
            blobs: Blobs::new(COUNT as usize * 512),
            wheel: Wheel::new(COUNT, start),
        }
    }

    fn open(&mut self, n: u32, deadline: Instant) -> Handle {
        let record = Record {
            number: n,
            request: self.blobs.store(&[&INVITE]).unwrap(),
            rest: [0; 28],
        };
        let handle = self.slab.insert(record).ok().unwrap();
        self.index.insert(key(n), handle).unwrap();
        self.wheel.arm(handle.index(), deadline);
        handle
    }

    fn close(&mut self, handle: Handle) {
        let record = self.slab.remove(handle).unwrap();
        assert_eq!(self.index.remove(key(record.number)), Some(handle));
        self.blobs.free(record.request);
    }
}

/// Bytes per open transaction of this record with the 507-byte INVITE, by the types.
const PER_RECORD: usize = Slab::<Record>::bytes_per_record()
    + Index::bytes_per_record(COUNT)
    + Wheel::bytes_per_id()
    + Blobs::bytes_for(INVITE.len());

// Everything but the record itself: handle and key, deadline, the stored INVITE.
const _: () = assert!(PER_RECORD - size_of::<Record>() <= 600);

#[test]
fn a_million_open_transactions_cost_what_is_computed() {
    let start = Instant::from_nanos(1_000_000_000_000);
    let before = resident();
    let mut table = Table::new(start);

    // Memory is touched as it is used: room for a million, a thousand in use.
    for n in 0..1000 {
        table.open(n, start + T1_64);
    }
    let few = resident().saturating_sub(before);
    assert!(few < 16 << 20, "{few} bytes for a thousand");

    // Deadlines over a minute and a half: both levels of the wheel.
    let deadline = |n: u32| start + Duration::from_micros(u64::from(n) * 90);
    for n in 1000..COUNT {
        table.open(n, deadline(n));
    }
    let all = resident().saturating_sub(before) / COUNT as usize;
    assert!(
        all <= PER_RECORD + 64,
        "{all} bytes each, {PER_RECORD} computed"
    );
    assert_eq!((table.slab.len(), table.index.len()), (COUNT, COUNT));
    assert_eq!((table.wheel.armed(), table.blobs.free_bytes()), (COUNT, 0));
    assert_eq!(table.slab.next_handle(), None);

    // Each is found by its key.
    for n in 0..COUNT {
        let handle = table.index.find(key(n)).unwrap();
        assert_eq!(table.slab.at(handle).unwrap().number, n);
    }

    // Each fires once, at its time, and leaves nothing.
    let mut now = start;
    let mut fired = 0;
    while let Some(next) = table.wheel.next_deadline() {
        assert!(next > now);
        now = next;
        while let Some(id) = table.wheel.pop_due(now) {
            let handle = table.slab.handle_of(id).unwrap();
            if id >= 1000 {
                assert!(deadline(id) <= now && now < deadline(id) + TICK);
            }
            table.close(handle);
            fired += 1;
        }
    }
    assert_eq!(fired, COUNT);
    assert!(table.slab.is_empty() && table.index.is_empty());
    assert_eq!(table.blobs.free_bytes(), table.blobs.capacity_bytes());

    // And the memory serves again.
    let room = resident();
    for n in 0..COUNT {
        table.open(n + COUNT, now + T1_64);
    }
    let more = resident().saturating_sub(room);
    assert!(more < 16 << 20, "{more} bytes more the second time");
}
