//! AF_XDP: frames between a device queue and user space, without the kernel's network stack.
//!
//! Knows frames only. One [`Umem`] per process holds them; each is at any moment in exactly one
//! place, and the places add up:
//!
//! ```text
//!            ┌───────── Pool (slabs of 64) ─────────┐
//!            │  FrameCache        FrameCache        │   one cache per worker
//!            ▼                                      ▼
//!   QueueRings::refill                        Frame (a worker has it) ──► Queue ──► another worker
//!            │ fill ring                        ▲          │ Socket::transmit
//!            ▼                                  │          ▼ TX ring, Socket::kick
//!         kernel ── RX ring ── Socket::receive ─┘       kernel
//!            (one RX per socket)                           │ completion ring
//!                                                          ▼ QueueRings::reclaim ──► FrameCache
//! ```
//!
//! A queue of a device ([`DeviceQueue`]) has one fill and one completion ring, with one owner, and
//! one socket per worker that it feeds. Guarantees of the public face, all of it safe: a frame has
//! one owner at a time; what the kernel hands over is checked against bounds and against what it
//! was given; a dropped token goes home. After start nothing allocates.
//!
//! ```
//! use arrayvec::ArrayVec;
//! use viaduct::xsk::{Frame, HugePages, Umem, UmemConfig, testing};
//!
//! // A kernel played by the test; `DeviceQueue::open` makes the same over a real device.
//! let umem = Umem::map(UmemConfig { frame_count: 4096, huge_pages: HugePages::Try })?;
//! let mut cache = umem.cache();
//! let (mut queue, mut device) = testing::device_queue(umem, 1, 0, &mut cache)?;
//! device.deliver(0, b"ping");
//!
//! let mut batch = ArrayVec::<Frame, 64>::new();
//! queue.sockets[0].receive(&mut batch);
//! batch[0].data_mut().reverse();
//! queue.sockets[0].transmit(&mut batch);
//! device.send(0, |data| assert_eq!(data, b"gnip"));
//! queue.rings.reclaim(&mut cache);
//! queue.rings.refill(&mut cache);
//! # Ok::<(), viaduct::xsk::XskError>(())
//! ```

#![allow(
    unsafe_code,
    reason = "the one home of shared memory, rings and tokens; the public face is safe"
)]

mod device;
mod error;
mod frame;
mod ledger;
#[cfg(test)]
mod models;
mod pool;
mod queue;
mod ring;
mod rings;
mod sender;
mod socket;
mod sync;
mod sys;
pub mod testing;
#[cfg(test)]
mod tests;
mod umem;

pub use device::{DeviceQueue, Mode, OpenQueues, QueueConfig};
pub use error::XskError;
pub use frame::{Frame, prefetched};
pub use pool::{FrameCache, Pool};
pub use queue::Queue;
pub use ring::{Consumer, Producer};
pub use rings::QueueRings;
pub use sender::Sender;
pub use socket::{Descriptor, Kick, KickCounts, Socket, Statistics};
pub use umem::{Census, HugePages, Pages, Umem, UmemConfig};
