//! What the kernel offers and no crate wraps as we need it: batched datagrams, wake-ups, the clock.
//!
//! Knows file descriptors and bytes only. The data path, the generator and the tools share it, so
//! nothing here decides anything: a call either does what its name says or returns the kernel's
//! error. Everything public is safe.

pub mod clock;
pub mod cpu;
pub mod datagram;
pub mod error_queue;
pub mod ethtool;
pub mod event;
pub mod interface;
pub mod kernel;
pub mod meminfo;
pub mod memory;
