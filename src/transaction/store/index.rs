//! From a 128-bit key to a handle.
//!
//! Chained by number: a bucket names the first record of its chain, a record's entry the next one.
//! An entry lies at its handle's index, so that nothing is ever moved or marked as deleted: a table
//! that has been in use for a year is as fast as a new one. There are as many buckets as records or
//! up to twice as many; with all records in use a key that is there is found after 1.5 entries on
//! average.
//!
//! Keys come from a keyed hash that nobody outside can foresee; they are their own hash here.

use super::{Handle, NONE};

/// Keys of a [`Slab`](super::Slab)'s records, one per record at most.
#[derive(Debug)]
pub struct Index {
    /// First of each chain, one more than its index; 0 is an empty chain, so that the table comes
    /// zeroed from the allocator, untouched.
    buckets: Vec<u32>,
    /// By the handle's index; as long as the highest index seen, never longer than the capacity.
    entries: Vec<Entry>,
    capacity: u32,
    len: u32,
}

/// 24 bytes: the key as words keeps the alignment at eight.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: [u64; 2],
    generation: u32,
    /// As a bucket: one more than the next's index, 0 at the end, [`NONE`] if in no chain.
    next: u32,
}

impl Entry {
    const UNUSED: Self = Self {
        key: [0; 2],
        generation: 0,
        next: NONE,
    };
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
const fn words(key: u128) -> [u64; 2] {
    [key as u64, (key >> 64) as u64]
}

impl Index {
    /// For a slab of `capacity` records; no memory is touched yet.
    pub fn new(capacity: u32) -> Self {
        let capacity = capacity.min(NONE - 1);
        let buckets = (capacity as usize).next_power_of_two();
        Self {
            buckets: vec![0; buckets],
            entries: Vec::with_capacity(capacity as usize),
            capacity,
            len: 0,
        }
    }

    /// Keys it holds.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that one record of `capacity` takes here, rounded up.
    pub const fn bytes_per_record(capacity: u32) -> usize {
        let buckets = (capacity as usize).next_power_of_two() * size_of::<u32>();
        size_of::<Entry>() + buckets.div_ceil(if capacity == 0 { 1 } else { capacity as usize })
    }

    /// The handle under `key`.
    pub fn find(&self, key: u128) -> Option<Handle> {
        let words = words(key);
        let mut at = *self.buckets.get(self.bucket(words))?;
        while let Some(index) = at.checked_sub(1) {
            let entry = self.entries.get(index as usize)?;
            if entry.key == words {
                return Some(Handle::of_parts(index, entry.generation));
            }
            at = entry.next;
        }
        None
    }

    /// Puts a handle under `key`. A key that its record had before is forgotten.
    ///
    /// # Errors
    /// The handle that is there already; it stays. The given one, if it is of a larger slab.
    pub fn insert(&mut self, key: u128, handle: Handle) -> Result<(), Handle> {
        let (index, generation) = handle.parts();
        if index >= self.capacity {
            return Err(handle);
        }
        if let Some(there) = self.find(key) {
            return Err(there);
        }
        let at = index as usize;
        if at >= self.entries.len() {
            // Within the capacity reserved at start: it does not move.
            self.entries.resize(at + 1, Entry::UNUSED);
        }
        if let Some(entry) = self.entries.get(at).copied()
            && entry.next != NONE
        {
            self.unlink(entry.key, index);
        }
        let words = words(key);
        let bucket = self.bucket(words);
        if let (Some(head), Some(entry)) = (self.buckets.get_mut(bucket), self.entries.get_mut(at))
        {
            *entry = Entry {
                key: words,
                generation,
                next: *head,
            };
            *head = index + 1;
            self.len += 1;
        }
        Ok(())
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: u128) -> Option<Handle> {
        let handle = self.find(key)?;
        self.unlink(words(key), handle.index());
        Some(handle)
    }

    /// Takes the entry `index`, which has this key, out of its chain.
    fn unlink(&mut self, key: [u64; 2], index: u32) {
        let bucket = self.bucket(key);
        let Some(gone) = self.entries.get_mut(index as usize) else {
            return;
        };
        let after = core::mem::replace(&mut gone.next, NONE);
        let Some(head) = self.buckets.get_mut(bucket) else {
            return;
        };
        let mut at = *head;
        if at == index + 1 {
            *head = after;
        } else {
            while let Some(before) = at.checked_sub(1)
                && let Some(entry) = self.entries.get_mut(before as usize)
            {
                at = entry.next;
                if at == index + 1 {
                    entry.next = after;
                    break;
                }
            }
        }
        self.len -= 1;
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "masked to the table's length"
    )]
    fn bucket(&self, key: [u64; 2]) -> usize {
        key[0] as usize & (self.buckets.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_key_has_one_handle_and_one_record_one_key() {
        let mut index = Index::new(4);
        let (a, b) = (Handle::new(0, 7), Handle::new(3, 1));
        assert_eq!(index.insert(1, a), Ok(()));
        assert_eq!(index.insert(1, b), Err(a));
        assert_eq!(index.insert(5, b), Ok(()));
        assert_eq!((index.find(1), index.find(5)), (Some(a), Some(b)));
        // Equal in the low word, which chooses the bucket, and not the same key.
        assert_eq!(index.find(1 | (1 << 64)), None);
        assert_eq!(index.insert(9, b), Ok(()));
        assert_eq!((index.find(5), index.find(9)), (None, Some(b)));
        assert_eq!(index.len(), 2);
        let far = Handle::new(4, 0);
        assert_eq!(index.insert(2, far), Err(far));
        assert_eq!(index.remove(2), None);
    }

    #[test]
    fn it_never_allocates_after_start() {
        let mut index = Index::new(1000);
        let room = (index.entries.capacity(), index.buckets.capacity());
        for round in 0..3u128 {
            for n in 0..1000u32 {
                let key = u128::from(n) * 0x9e37_79b9_7f4a_7c15 + round;
                index.insert(key, Handle::new(n, 0)).unwrap();
            }
            for n in 0..1000u32 {
                let key = u128::from(n) * 0x9e37_79b9_7f4a_7c15 + round;
                assert_eq!(index.remove(key), Some(Handle::new(n, 0)));
            }
        }
        assert!(index.is_empty());
        assert_eq!((index.entries.capacity(), index.buckets.capacity()), room);
    }

    proptest! {
        /// Against a map, with keys so few that chains are long.
        #[test]
        fn behaves_like_a_map(
            ops in prop::collection::vec((0u128..24, 0u32..16, any::<u32>(), any::<bool>()), 1..400),
        ) {
            let mut index = Index::new(16);
            let mut model: HashMap<u128, Handle> = HashMap::new();
            for (key, place, generation, insert) in ops {
                // Every third key shares its low word with two others.
                let key = ((key / 3) * 16) | ((key % 3) << 64);
                if insert {
                    let handle = Handle::new(place, generation);
                    let expected = match model.get(&key) {
                        Some(there) => Err(*there),
                        None => Ok(()),
                    };
                    prop_assert_eq!(index.insert(key, handle), expected);
                    if expected.is_ok() {
                        model.retain(|_, other| other.index() != place);
                        model.insert(key, handle);
                    }
                } else {
                    prop_assert_eq!(index.remove(key), model.remove(&key));
                }
                prop_assert_eq!(index.len() as usize, model.len());
                for key in (0u128..24).map(|key| ((key / 3) * 16) | ((key % 3) << 64)) {
                    prop_assert_eq!(index.find(key), model.get(&key).copied());
                }
            }
        }
    }
}
