//! Where transactions live: fixed in size, O(1), nothing allocated after start.
//!
//! ```text
//! Index   128-bit key → Handle        a branch finds its transaction
//! Slab    Handle → record             the transaction itself
//! Blobs   Blob → bytes                the messages it remembers
//! ```
//!
//! All three reserve their address space at start and touch it only as far as they have ever been
//! filled: a table of a million costs what is used of it. [`Slab`] and [`Index`] share their
//! numbering, as [`wheel`](super::wheel) does: a record's index in the slab is its place in the
//! others.
//!
//! ```
//! use viaduct::transaction::store::{Blobs, Index, Slab};
//!
//! let (mut slab, mut index) = (Slab::new(1000), Index::new(1000));
//! let mut blobs = Blobs::new(1 << 20);
//!
//! let request = blobs.store(&[b"INVITE sip:bob@example.com SIP/2.0\r\n"]).ok_or("full")?;
//! let handle = slab.insert(request).map_err(|_| "full")?;
//! index.insert(0x1234, handle).map_err(|_| "there already")?;
//!
//! let found = index.find(0x1234).and_then(|handle| slab.at(handle)).ok_or("lost")?;
//! assert_eq!(found.len(), 36);
//! let gone = index.remove(0x1234).and_then(|handle| slab.remove(handle)).ok_or("lost")?;
//! blobs.free(gone);
//! assert_eq!(blobs.free_bytes(), blobs.capacity_bytes());
//! # Ok::<(), &str>(())
//! ```

mod blobs;
mod index;
mod slab;

pub use blobs::{Blob, Blobs};
pub use index::Index;
pub use slab::{Handle, Slab};

/// No place: ends a list.
const NONE: u32 = u32::MAX;
