//! Frames through rings, pool and tokens, with the kernel's end played here. No privileges needed.

#![cfg(not(loom))]

use std::collections::HashSet;
use std::thread;

use arrayvec::ArrayVec;
use proptest::prelude::*;

use super::testing::{self, FakeDevice};
use super::*;
use crate::limits::{BATCH, FILL_RING_LEN, FRAME_LEN, RING_LEN, SLAB};
use crate::limits::{UMEM_HEADROOM, XDP_PACKET_HEADROOM};

const HEADROOM: usize = UMEM_HEADROOM + XDP_PACKET_HEADROOM;

type Batch = ArrayVec<Frame, BATCH>;

fn umem(frame_count: usize) -> &'static Umem {
    Umem::map(UmemConfig {
        frame_count,
        huge_pages: HugePages::Never,
    })
    .unwrap()
}

/// Frames that rings of this size need, and some.
const ENOUGH: usize = 4 * FILL_RING_LEN as usize;

/// Two ring lengths before the indices wrap.
const NEAR_WRAP: u32 = u32::MAX - 2 * FILL_RING_LEN;

fn fake(sockets: usize) -> (FrameCache, DeviceQueue, FakeDevice) {
    let mut cache = umem(ENOUGH).cache();
    let (queue, device) =
        testing::device_queue(cache.umem(), sockets, NEAR_WRAP, &mut cache).unwrap();
    (cache, queue, device)
}

/// Frames in every place, and that they add up to all there are. `held` is what the test has.
fn assert_adds_up(cache: &FrameCache, queue: &DeviceQueue, kernel: usize, held: usize) {
    let census = cache.umem().census();
    let in_rings = |len: fn(&Socket) -> u32| queue.sockets.iter().map(len).sum::<u32>() as usize;
    let (rx, tx) = (in_rings(Socket::rx_len), in_rings(Socket::tx_len));
    let fill = queue.rings.fill_len() as usize;
    let completion = queue.rings.completion_len() as usize;
    assert_eq!(census.receiving, fill + rx + kernel, "{census:?}");
    assert_eq!(census.sending, tx + completion, "{census:?}");
    let free = census.pooled + census.orphans + cache.len();
    assert_eq!(
        free + fill + rx + tx + completion + kernel + held,
        census.total,
        "{census:?}"
    );
}

// ---- rings --------------------------------------------------------------------------------------

#[test]
fn ring_holds_its_length_and_not_one_more() {
    let (mut producer, mut consumer) = testing::pair::<u64>(8, 0);
    let mut numbers = 0..;
    assert_eq!(producer.produce(9, || numbers.next()), 8);
    assert_eq!(producer.produce(1, || numbers.next()), 0);
    assert_eq!((producer.len(), consumer.len()), (8, 8));
    let mut got = Vec::new();
    assert_eq!(consumer.consume(3, |entry| got.push(entry)), 3);
    assert_eq!(producer.free(1), 3);
    assert_eq!(producer.produce(9, || numbers.next()), 3);
    assert_eq!(consumer.consume(100, |entry| got.push(entry)), 8);
    // What did not fit was not taken from the source.
    assert!(got.into_iter().eq(0..11));
    assert!(producer.is_empty() && consumer.is_empty());
}

#[test]
fn ring_indices_wrap() {
    let (mut producer, mut consumer) = testing::pair::<u64>(4, u32::MAX - 5);
    let mut next = 0;
    for round in 0..100_u64 {
        let count = u32::try_from(round % 5).unwrap();
        let mut numbers = next..;
        assert_eq!(producer.produce(count, || numbers.next()), count);
        assert_eq!(consumer.len(), count);
        let mut got = Vec::new();
        assert_eq!(consumer.consume(4, |entry| got.push(entry)), count);
        assert!(got.into_iter().eq(next..next + u64::from(count)));
        next += u64::from(count);
    }
    assert!(next > 64);
}

#[test]
fn ring_stops_when_the_source_does() {
    let (mut producer, consumer) = testing::pair::<u64>(8, u32::MAX);
    let mut numbers = 0..3;
    assert_eq!(producer.produce(8, || numbers.next()), 3);
    assert_eq!(consumer.len(), 3);
}

#[test]
fn ring_believes_no_index_that_is_more_than_a_ring_away() {
    let (mut producer, mut consumer) = testing::pair::<u64>(8, 0);
    assert_eq!(producer.produce(2, || Some(7)), 2);
    for index in [9, 1 << 20, u32::MAX] {
        consumer.corrupt_producer(index);
        assert_eq!(consumer.consume(8, |_| panic!("taken")), 0);
        assert!(consumer.len() <= 8);
    }
    consumer.corrupt_producer(2);
    assert_eq!(consumer.consume(8, |_| {}), 2);
    // A consumer ahead of the producer: full, so nothing is overwritten.
    for index in [3, 1 << 20, 1 << 31] {
        producer.corrupt_consumer(index);
        assert_eq!(producer.produce(8, || panic!("made")), 0);
    }
}

#[test]
fn panic_in_the_taker_gives_no_entry_out_twice() {
    let (mut producer, mut consumer) = testing::pair::<u64>(8, 0);
    let mut numbers = 0..;
    producer.produce(4, || numbers.next());
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        consumer.consume(4, |entry| assert!(entry < 1));
    }));
    assert!(result.is_err());
    let mut got = Vec::new();
    consumer.consume(4, |entry| got.push(entry));
    assert_eq!(got, [2, 3]);
}

proptest! {
    /// A ring against a list, at any starting index.
    #[test]
    fn ring_is_a_bounded_list(index: u32, steps in prop::collection::vec((0..12_u32, 0..12_u32), 1..64)) {
        let (mut producer, mut consumer) = testing::pair::<u64>(8, index);
        let mut list = std::collections::VecDeque::new();
        let mut next = 0;
        for (put, take) in steps {
            let fits = put.min(8 - u32::try_from(list.len()).unwrap());
            let count = producer.produce(put, || { list.push_back(next); next += 1; Some(next - 1) });
            prop_assert_eq!(count, fits);
            let there = take.min(u32::try_from(list.len()).unwrap());
            let mut got = Vec::new();
            prop_assert_eq!(consumer.consume(take, |entry| got.push(entry)), there);
            prop_assert!(got.into_iter().eq(list.drain(..there as usize)));
        }
    }
}

// ---- frames and pool ----------------------------------------------------------------------------

#[test]
fn every_frame_is_given_out_once() {
    let umem = umem(3 * SLAB);
    let mut cache = umem.cache();
    let frames: Vec<_> = core::iter::from_fn(|| cache.allocate()).collect();
    assert_eq!(frames.len(), 3 * SLAB);
    let starts: HashSet<_> = frames.iter().map(|frame| frame.bytes().as_ptr()).collect();
    assert_eq!(starts.len(), frames.len());
    assert!(
        frames
            .iter()
            .all(|frame| frame.start() == HEADROOM && frame.is_empty())
    );
    for frame in frames {
        cache.release(frame);
    }
    drop(cache);
    assert_eq!(umem.pool().frames(), 3 * SLAB);
    assert_eq!(umem.pool().orphans_total(), 0);
}

#[test]
fn frame_count_is_rounded_up_to_slabs() {
    assert_eq!(umem(1).frames(), SLAB);
    assert_eq!(umem(SLAB + 1).frames(), 2 * SLAB);
    assert_eq!(umem(SLAB).len(), SLAB * FRAME_LEN);
}

#[test]
fn umem_of_impossible_size_is_refused() {
    for frame_count in [0, u32::MAX as usize] {
        let config = UmemConfig {
            frame_count,
            huge_pages: HugePages::Try,
        };
        let error = Umem::map(config).unwrap_err();
        assert!(matches!(error, XskError::UmemSize { .. }), "{error}");
    }
}

#[test]
fn umem_begins_on_a_huge_page_and_is_blank() {
    let umem = umem(SLAB);
    let mut cache = umem.cache();
    let frames: Vec<_> = core::iter::from_fn(|| cache.allocate()).collect();
    let first = frames.iter().min_by_key(|frame| frame.bytes().as_ptr());
    let frame = first.unwrap();
    assert_eq!(frame.bytes().as_ptr() as usize % (2 << 20), 0);
    assert!(frame.bytes().iter().all(|byte| *byte == 0));
}

#[test]
fn cache_keeps_two_slabs_and_the_warm_ones() {
    let umem = umem(4 * SLAB);
    let mut cache = umem.cache();
    let frames: Vec<_> = core::iter::from_fn(|| cache.allocate()).collect();
    let last = frames[frames.len() - 1].bytes().as_ptr();
    for (released, frame) in frames.into_iter().enumerate() {
        cache.release(frame);
        assert!(cache.len() <= 2 * SLAB);
        assert_eq!(umem.pool().frames() + cache.len(), released + 1);
    }
    assert_eq!(cache.allocate().unwrap().bytes().as_ptr(), last);
}

#[test]
fn dropped_frame_goes_home_and_is_counted() {
    let umem = umem(SLAB);
    let mut cache = umem.cache();
    let frames: Vec<_> = core::iter::from_fn(|| cache.allocate()).collect();
    assert!(cache.allocate().is_none());
    drop(frames);
    assert_eq!(umem.pool().orphans(), SLAB);
    assert_eq!(umem.pool().orphans_total(), SLAB as u64);
    let frames: Vec<_> = core::iter::from_fn(|| cache.allocate()).collect();
    assert_eq!(frames.len(), SLAB);
    assert_eq!(umem.pool().orphans(), 0);
}

#[test]
fn more_orphans_than_a_cache_holds_go_to_the_pool() {
    let umem = umem(5 * SLAB);
    let mut cache = umem.cache();
    drop(core::iter::from_fn(|| cache.allocate()).collect::<Vec<_>>());
    let first = cache.allocate();
    assert!(first.is_some());
    assert_eq!(cache.len() + umem.pool().frames(), 5 * SLAB - 1);
    assert!(cache.len() < 2 * SLAB);
}

#[test]
fn part_slabs_without_end_are_not_lost() {
    let umem = umem(4 * SLAB);
    let mut caches: Vec<_> = (0..4 * SLAB).map(|_| umem.cache()).collect();
    let frames: Vec<_> = core::iter::from_fn(|| caches[0].allocate()).collect();
    // One frame to a slab: more slabs than the pool's queue has slots.
    for (cache, frame) in caches.iter_mut().zip(frames) {
        cache.release(frame);
        cache.flush();
    }
    let census = umem.census();
    assert_eq!(census.pooled + census.orphans, 4 * SLAB);
    assert!(census.orphans > 0);
    // They were not dropped by anybody.
    assert_eq!(umem.pool().orphans_total(), 0);
    let again: Vec<_> = core::iter::from_fn(|| caches[0].allocate()).collect();
    assert_eq!(again.len(), 4 * SLAB);
}

#[test]
fn set_range_takes_the_whole_chunk_and_no_more() {
    let mut cache = umem(SLAB).cache();
    let mut frame = cache.allocate().unwrap();
    frame.set_range(0, FRAME_LEN);
    assert_eq!(frame.data().len(), FRAME_LEN);
    frame.set_range(FRAME_LEN, FRAME_LEN);
    assert!(frame.is_empty());
    frame.reset();
    assert_eq!(frame.range(), HEADROOM..HEADROOM);
    for (start, end) in [(0, FRAME_LEN + 1), (2, 1), (usize::MAX, usize::MAX)] {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            frame.set_range(start, end);
        }));
        assert!(result.is_err(), "{start}..{end}");
    }
}

#[test]
fn prefetched_gives_every_frame_in_order() {
    let mut cache = umem(SLAB).cache();
    for len in 0..8 {
        let mut frames: Vec<_> = (0..len).map(|_| cache.allocate().unwrap()).collect();
        let expected: Vec<_> = frames.iter().map(|frame| frame.bytes().as_ptr()).collect();
        let got: Vec<_> = prefetched(&mut frames)
            .map(|frame| frame.bytes().as_ptr())
            .collect();
        assert_eq!(got, expected);
        frames.into_iter().for_each(|frame| cache.release(frame));
    }
}

/// Frames allocated here and released there, over the pool and over a queue of tokens.
#[test]
fn frames_travel_between_threads() {
    const ROUNDS: usize = 20_000;
    let umem = umem(8 * SLAB);
    let handed = Queue::with_capacity(128);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut cache = umem.cache();
                for round in 0..ROUNDS {
                    let Some(mut frame) = cache.allocate() else {
                        thread::yield_now();
                        continue;
                    };
                    frame.bytes_mut()[round % FRAME_LEN] = 1;
                    if let Err(frame) = handed.push(frame) {
                        cache.release(frame);
                    }
                    if round % 3 == 0 {
                        drop(handed.pop());
                    } else if let Some(frame) = handed.pop() {
                        cache.release(frame);
                    }
                }
            });
        }
    });
    while handed.pop().is_some() {}
    let census = umem.census();
    assert_eq!(census.pooled + census.orphans, census.total);
}

// ---- sockets ------------------------------------------------------------------------------------

#[test]
fn frame_goes_from_rx_to_tx_in_place() {
    let (mut cache, mut queue, mut device) = fake(1);
    assert!(device.deliver(0, b"....request"));
    let mut batch = Batch::new();
    assert_eq!(queue.sockets[0].receive(&mut batch), 1);
    assert_eq!(batch[0].data(), b"....request");
    assert_eq!(batch[0].start(), HEADROOM);
    // Grown by all the headroom, ours and the kernel's.
    batch[0].bytes_mut()[..HEADROOM].fill(b'v');
    batch[0].set_range(0, HEADROOM + 11);
    assert_eq!(queue.sockets[0].transmit(&mut batch), 1);
    assert!(batch.is_empty());
    assert!(device.send(0, |data| {
        assert_eq!(data.len(), HEADROOM + 11);
        assert!(data.ends_with(b"vv....request"));
    }));
    assert_adds_up(&cache, &queue, 0, 0);
    assert_eq!(queue.rings.reclaim(&mut cache), 1);
    assert_eq!(queue.rings.refill(&mut cache), 1);
    assert_adds_up(&cache, &queue, 0, 0);
    assert_eq!(cache.umem().refused(), 0);
}

#[test]
fn places_add_up_over_a_wrap_of_every_ring() {
    let (mut cache, mut queue, mut device) = fake(2);
    let mut sent = 0_u64;
    for round in 0..3 * FILL_RING_LEN {
        let port = round as usize % 2;
        for _ in 0..=round % 7 {
            assert!(device.deliver(port, &sent.to_ne_bytes()));
            sent += 1;
        }
        let mut batch = Batch::new();
        queue.sockets[port].receive(&mut batch);
        // What came on one socket of the queue may leave by another.
        queue.sockets[1 - port].transmit(&mut batch);
        assert!(batch.is_empty());
        while device.send(1 - port, |_| {}) {}
        if round % 5 == 0 {
            assert_adds_up(&cache, &queue, 0, 0);
        }
        queue.rings.reclaim(&mut cache);
        queue.rings.refill(&mut cache);
    }
    assert!(sent > 2 * u64::from(FILL_RING_LEN));
    assert_adds_up(&cache, &queue, 0, 0);
    let umem = cache.umem();
    drop((cache, queue));
    assert_eq!(umem.pool().frames() + umem.pool().orphans(), umem.frames());
    assert_eq!(umem.refused(), 0);
}

#[test]
fn refill_keeps_half_the_ring() {
    let (mut cache, mut queue, mut device) = fake(1);
    assert_eq!(queue.rings.fill_len(), FILL_RING_LEN / 2);
    assert_eq!(queue.rings.refill(&mut cache), 0);
    let held = device.hold_back(100);
    assert_eq!(held.len(), 100);
    assert_eq!(queue.rings.refill(&mut cache), 100);
    assert_adds_up(&cache, &queue, 100, 0);
}

#[test]
fn what_the_tx_ring_has_no_room_for_stays() {
    let (mut cache, mut queue, mut device) = fake(1);
    let socket = &mut queue.sockets[0];
    let mut frames = core::iter::from_fn(|| {
        let mut frame = cache.allocate()?;
        frame.set_range(HEADROOM, HEADROOM + 1);
        Some(frame)
    });
    let nearly_all = RING_LEN as usize - 5;
    assert_eq!(socket.transmit_each(nearly_all, &mut frames), nearly_all);
    assert_eq!(socket.room(), 5);
    let mut batch: Batch = frames.take(15).collect();
    let sixth = batch[5].bytes().as_ptr();
    assert_eq!(socket.transmit(&mut batch), 5);
    assert_eq!((batch.len(), batch[0].bytes().as_ptr()), (10, sixth));
    assert_eq!(socket.transmit(&mut batch), 0);
    assert_eq!((batch.len(), socket.room()), (10, 0));
    assert!(device.send(0, |_| {}));
    assert_eq!(socket.transmit(&mut batch), 1);
    assert_eq!(batch.len(), 9);
}

#[test]
fn batch_takes_no_more_than_it_holds() {
    let (_cache, mut queue, mut device) = fake(1);
    for number in 0..BATCH + 5 {
        assert!(device.deliver(0, &[u8::try_from(number).unwrap()]));
    }
    let mut batch = Batch::new();
    assert_eq!(queue.sockets[0].receive(&mut batch), BATCH);
    assert_eq!(queue.sockets[0].receive(&mut batch), 0);
    let mut rest = Batch::new();
    assert_eq!(queue.sockets[0].receive(&mut rest), 5);
    assert!(
        rest.iter()
            .map(|frame| frame.data()[0] as usize)
            .eq(BATCH..BATCH + 5)
    );
}

#[test]
fn descriptors_out_of_bounds_are_refused() {
    let (cache, mut queue, mut device) = fake(1);
    let umem = cache.umem();
    let len = umem.len() as u64;
    let bad = [
        (len, 1),
        (len + 4096, 1),
        (u64::MAX, 1),
        (u64::MAX - 4095, u32::MAX),
        (1 << 44, 0),
    ];
    for (address, len) in bad {
        assert!(device.inject(
            0,
            Descriptor {
                address,
                len,
                options: 0
            }
        ));
    }
    let mut batch = Batch::new();
    assert_eq!(queue.sockets[0].receive(&mut batch), 0);
    assert_eq!(umem.refused(), bad.len() as u64);
    assert_adds_up(&cache, &queue, 0, 0);
}

#[test]
fn descriptor_longer_than_its_chunk_is_refused_and_the_chunk_kept() {
    let (cache, mut queue, mut device) = fake(1);
    let address = device.hold_back(1)[0];
    for (start, len) in [(768, 4096 - 767), (0, 4097), (4095, 2), (768, u32::MAX)] {
        let address = address + start;
        assert!(device.inject(
            0,
            Descriptor {
                address,
                len,
                options: 0
            }
        ));
    }
    let mut batch = Batch::new();
    assert_eq!(queue.sockets[0].receive(&mut batch), 0);
    // The first gave the chunk back; the others speak of one that the kernel no longer has.
    assert_eq!(cache.umem().refused(), 4);
    assert_eq!(cache.umem().census().orphans, 1);
    assert_adds_up(&cache, &queue, 0, 0);
}

#[test]
fn frame_that_the_kernel_does_not_have_is_refused() {
    let (mut cache, mut queue, mut device) = fake(1);
    let umem = cache.umem();
    // In our hands.
    let mine = cache.allocate().unwrap();
    let address = mine.bytes().as_ptr() as u64 - umem.start_address();
    device.inject(
        0,
        Descriptor {
            address,
            len: 1,
            options: 0,
        },
    );
    // Received once already.
    let address = device.hold_back(1)[0];
    device.inject(
        0,
        Descriptor {
            address,
            len: 1,
            options: 0,
        },
    );
    device.inject(
        0,
        Descriptor {
            address,
            len: 1,
            options: 0,
        },
    );
    let mut batch = Batch::new();
    assert_eq!(queue.sockets[0].receive(&mut batch), 1);
    assert_eq!(umem.refused(), 2);
    // Given to send is not given to receive.
    queue.sockets[0].transmit(&mut batch);
    device.inject(
        0,
        Descriptor {
            address,
            len: 1,
            options: 0,
        },
    );
    assert_eq!(queue.sockets[0].receive(&mut batch), 0);
    assert_eq!(umem.refused(), 3);
    assert_adds_up(&cache, &queue, 0, 1);
    cache.release(mine);
}

#[test]
fn frame_of_another_queue_is_refused() {
    let (mut cache, mut queue, mut device) = fake(1);
    let umem = cache.umem();
    let (other, mut other_device) = testing::device_queue(umem, 1, 0, &mut cache).unwrap();
    let address = other_device.hold_back(1)[0];
    device.inject(
        0,
        Descriptor {
            address,
            len: 1,
            options: 0,
        },
    );
    assert_eq!(queue.sockets[0].receive(&mut Batch::new()), 0);
    assert_eq!(umem.refused(), 1);
    drop(other);
}

#[test]
fn frames_of_a_closed_queue_come_back() {
    let (cache, queue, mut device) = fake(2);
    let umem = cache.umem();
    // In the fill ring, held by the driver, in RX, in TX, completed.
    device.hold_back(7);
    for number in 0..20 {
        assert!(device.deliver(number % 2, b"frame"));
    }
    let DeviceQueue { rings, mut sockets } = queue;
    let mut batch = Batch::new();
    sockets[0].receive(&mut batch);
    sockets[0].transmit(&mut batch);
    device.send(0, |_| {});
    assert!(umem.census().receiving > 0 && umem.census().sending == 10);
    // The last part brings them back, whichever it is.
    drop(rings);
    drop(sockets.pop());
    assert!(umem.census().receiving > 0);
    drop(sockets);
    drop(cache);
    let census = umem.census();
    assert_eq!((census.receiving, census.sending), (0, 0));
    assert_eq!(census.pooled + census.orphans, census.total);
    // Nobody dropped a frame.
    assert_eq!(umem.pool().orphans_total(), 0);
}

#[test]
fn fill_ring_that_cannot_be_filled_is_an_error_and_loses_nothing() {
    let umem = umem(SLAB);
    let mut cache = umem.cache();
    let error = testing::device_queue(umem, 1, 0, &mut cache).unwrap_err();
    let wanted = FILL_RING_LEN / 2;
    let got = u32::try_from(SLAB).unwrap();
    assert!(
        matches!(error, XskError::NoFrames { wanted: w, got: g } if (w, g) == (wanted, got)),
        "{error}"
    );
    drop(cache);
    let census = umem.census();
    assert_eq!(census.pooled + census.orphans, census.total);
}

#[test]
fn kick_over_ordinary_memory_is_idle() {
    let (mut cache, mut queue, _device) = fake(1);
    let mut frame = cache.allocate().unwrap();
    frame.set_range(HEADROOM, HEADROOM + 1);
    let mut batch = Batch::from_iter([frame]);
    queue.sockets[0].transmit(&mut batch);
    let mut counts = KickCounts::default();
    assert!(matches!(queue.sockets[0].kick(&mut counts), Ok(Kick::Idle)));
    assert_eq!(counts, KickCounts::default());
}
