//! Threads at work on one UMEM, for ThreadSanitizer to watch. Run by scripts/sanitize.
//!
//! Without the test harness: the standard library is not instrumented, and the harness's channels
//! would be reported.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use arrayvec::ArrayVec;
use viaduct_xsk_alone::limits::{BATCH, FILL_RING_LEN};
use viaduct_xsk_alone::xsk::{DeviceQueue, Frame, HugePages, Queue, Umem, UmemConfig, testing};

const FRAMES: u64 = 50_000;

fn main() {
    workers_share_a_queue_and_hand_frames_over();
    frames_are_dropped_and_collected();
    queue_between_four();
    println!("no race");
}

fn umem() -> &'static Umem {
    Umem::map(UmemConfig {
        frame_count: 3 * FILL_RING_LEN as usize,
        huge_pages: HugePages::Never,
    })
    .unwrap()
}

/// A kernel thread; the owner of the rings with a socket; a sharer with another. Every frame that
/// one receives is written to, handed to the other, and sent by it.
fn workers_share_a_queue_and_hand_frames_over() {
    let umem = umem();
    let mut cache = umem.cache();
    let (queue, mut device) = testing::device_queue(umem, 2, u32::MAX - 100, &mut cache).unwrap();
    let DeviceQueue { mut rings, sockets } = queue;
    let stop = Arc::new(AtomicBool::new(false));
    let handed = [(); 2].map(|()| Arc::new(Queue::<Frame>::with_capacity(256)));

    let kernel = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            let (mut delivered, mut sent, mut sum) = (0, 0, 0_u64);
            while sent < FRAMES {
                let port = usize::try_from(delivered % 2).unwrap();
                if delivered < FRAMES && device.deliver(port, &delivered.to_ne_bytes()) {
                    delivered += 1;
                }
                for port in 0..2 {
                    let read = |data: &[u8]| {
                        sum += u64::from_ne_bytes(data[1..].try_into().unwrap());
                    };
                    if device.send(port, read) {
                        sent += 1;
                    }
                }
                if sent == delivered {
                    thread::yield_now();
                }
            }
            stop.store(true, Ordering::Release);
            assert_eq!(sum, (0..FRAMES).sum());
            device
        })
    };

    let mut workers = Vec::new();
    for (index, mut socket) in sockets.into_iter().enumerate() {
        let (mine, other) = (Arc::clone(&handed[index]), Arc::clone(&handed[1 - index]));
        let stop = Arc::clone(&stop);
        workers.push(move |between: &mut dyn FnMut()| {
            while !stop.load(Ordering::Acquire) {
                between();
                let mut batch = ArrayVec::<Frame, BATCH>::new();
                if other.len() < 128 {
                    socket.receive(&mut batch);
                }
                for mut frame in batch.drain(..) {
                    let (start, end) = (frame.start() - 1, frame.end());
                    frame.set_range(start, end);
                    frame.data_mut()[0] = 1;
                    other.push(frame).unwrap();
                }
                while !batch.is_full()
                    && let Some(frame) = mine.pop()
                {
                    batch.push(frame);
                }
                while !batch.is_empty() {
                    socket.transmit(&mut batch);
                }
            }
            socket
        });
    }
    let (sharer, owner) = (workers.pop().unwrap(), workers.pop().unwrap());
    let sharer = thread::spawn(move || sharer(&mut || {}));
    let owner = thread::spawn(move || {
        let socket = owner(&mut || {
            rings.reclaim(&mut cache);
            rings.refill(&mut cache);
        });
        rings.reclaim(&mut cache);
        (socket, rings, cache)
    });
    let device = kernel.join().unwrap();
    let sharer = sharer.join().unwrap();
    let (socket, rings, cache) = owner.join().unwrap();
    drop((socket, sharer, rings, cache, device));
    let census = umem.census();
    assert_eq!(census.pooled + census.orphans, census.total, "{census:?}");
    assert_eq!((umem.refused(), umem.pool().orphans_total()), (0, 0));
}

/// Two threads allocate, write, pass to each other, and drop or release.
fn frames_are_dropped_and_collected() {
    let umem = Umem::map(UmemConfig {
        frame_count: 256,
        huge_pages: HugePages::Never,
    })
    .unwrap();
    let passed = Arc::new(Queue::<Frame>::with_capacity(64));
    let threads = [0, 1].map(|_| {
        let passed = Arc::clone(&passed);
        thread::spawn(move || {
            let mut cache = umem.cache();
            for round in 0..FRAMES {
                let Some(mut frame) = cache.allocate() else {
                    drop(passed.pop());
                    continue;
                };
                frame.bytes_mut()[0] = frame.bytes()[0].wrapping_add(1);
                if let Err(frame) = passed.push(frame) {
                    cache.release(frame);
                }
                match passed.pop() {
                    Some(frame) if round % 2 == 0 => drop(frame),
                    Some(frame) => cache.release(frame),
                    None => {}
                }
            }
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
    while passed.pop().is_some() {}
    let census = umem.census();
    assert_eq!(census.pooled + census.orphans, census.total, "{census:?}");
}

/// Two push boxes, two pop them.
fn queue_between_four() {
    let queue = Arc::new(Queue::<Box<u64>>::with_capacity(16));
    let pushers = [0, 1].map(|_| {
        let queue = Arc::clone(&queue);
        thread::spawn(move || {
            for number in 0..FRAMES {
                let mut value = Box::new(number);
                while let Err(back) = queue.push(value) {
                    value = back;
                    thread::yield_now();
                }
            }
        })
    });
    let poppers = [0, 1].map(|_| {
        let queue = Arc::clone(&queue);
        thread::spawn(move || {
            let (mut count, mut sum) = (0, 0);
            while count < FRAMES {
                match queue.pop() {
                    Some(value) => {
                        sum += *value;
                        count += 1;
                    }
                    None => thread::yield_now(),
                }
            }
            sum
        })
    });
    for pusher in pushers {
        pusher.join().unwrap();
    }
    let sum: u64 = poppers.map(|popper| popper.join().unwrap()).iter().sum();
    assert_eq!(sum, 2 * (0..FRAMES).sum::<u64>());
}
