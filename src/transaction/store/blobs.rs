//! Byte strings in linked chunks of one arena.
//!
//! A message of 507 bytes takes four chunks, one of 64 KiB takes 512. There is no fragmentation: any
//! free chunk serves any string, so that a string is refused only if too few chunks are free.

use core::fmt;

use super::NONE;

/// Bytes of a chunk: two cache lines. Half a chunk is lost per string on average, and a link costs
/// four bytes per chunk: at 128 both together are least for strings of 300 to 1,000 bytes.
const CHUNK: usize = 128;

/// A string in [`Blobs`]: the only name of its chunks. It is no copy and cannot be copied; whoever
/// drops it without [`Blobs::free`] loses the chunks until the process ends.
#[must_use = "its chunks are lost if it is not freed"]
pub struct Blob {
    /// [`NONE`] if it is empty.
    first: u32,
    last: u32,
    len: u32,
}

impl Blob {
    /// A string of no bytes, which takes no chunk.
    pub const EMPTY: Self = Self {
        first: NONE,
        last: NONE,
        len: 0,
    };

    /// Its bytes.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Default for Blob {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.len)
    }
}

/// The arena.
#[derive(Debug)]
pub struct Blobs {
    /// [`CHUNK`] bytes per chunk; zeroed by the allocator, untouched until used.
    bytes: Vec<u8>,
    /// The chunk after each: of its string, or of the free list. One more than its number, so that
    /// zeroed memory is a list's end.
    links: Vec<u32>,
    /// Chunks from here on have never been used.
    fresh: u32,
    /// The chunk freed last, or [`NONE`].
    free: u32,
    free_count: u32,
}

impl Blobs {
    /// Room for `bytes` bytes, rounded up to whole chunks; no memory is touched yet.
    pub fn new(bytes: usize) -> Self {
        let chunks = u32::try_from(bytes.div_ceil(CHUNK)).unwrap_or(NONE);
        let chunks = chunks.min(NONE - 1);
        Self {
            bytes: vec![0; chunks as usize * CHUNK],
            links: vec![0; chunks as usize],
            fresh: 0,
            free: NONE,
            free_count: chunks,
        }
    }

    /// Bytes it can hold, if all strings fill their chunks.
    pub fn capacity_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes in free chunks.
    pub fn free_bytes(&self) -> usize {
        self.free_count as usize * CHUNK
    }

    /// Bytes of memory that a string of `len` bytes takes, links included.
    pub const fn bytes_for(len: usize) -> usize {
        len.div_ceil(CHUNK) * (CHUNK + size_of::<u32>())
    }

    /// Stores the parts as one string. `None` if there is too little room; nothing is kept then.
    pub fn store(&mut self, parts: &[&[u8]]) -> Option<Blob> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len.div_ceil(CHUNK) > self.free_count as usize || u32::try_from(len).is_err() {
            return None;
        }
        let mut blob = Blob::EMPTY;
        for part in parts {
            self.append(&mut blob, part);
        }
        Some(blob)
    }

    /// Puts `bytes` behind what the string has. False if there is too little room; the string is
    /// then as it was.
    pub fn append(&mut self, blob: &mut Blob, bytes: &[u8]) -> bool {
        let len = blob.len() + bytes.len();
        let more = len.div_ceil(CHUNK) - blob.len().div_ceil(CHUNK);
        if more > self.free_count as usize || u32::try_from(len).is_err() {
            return false;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let used = blob.len() % CHUNK;
            if used == 0 {
                let Some(chunk) = self.take() else {
                    return false;
                };
                match self.links.get_mut(blob.last as usize) {
                    Some(link) => *link = chunk + 1,
                    None => blob.first = chunk,
                }
                blob.last = chunk;
            }
            let (part, after) = rest.split_at(rest.len().min(CHUNK - used));
            let start = blob.last as usize * CHUNK + used;
            let Some(room) = self.bytes.get_mut(start..start + part.len()) else {
                return false;
            };
            room.copy_from_slice(part);
            blob.len += u32::try_from(part.len()).unwrap_or(0);
            rest = after;
        }
        true
    }

    /// The string's bytes, piece by piece.
    pub fn chunks<'a>(&'a self, blob: &Blob) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (mut chunk, mut rest) = (blob.first, blob.len());
        core::iter::from_fn(move || {
            let len = rest.min(CHUNK);
            let start = chunk as usize * CHUNK;
            let piece = self.bytes.get(start..start + len).filter(|_| len > 0)?;
            rest -= len;
            chunk = self
                .links
                .get(chunk as usize)
                .map_or(NONE, |link| link.wrapping_sub(1));
            Some(piece)
        })
    }

    /// Copies the string to the front of `out`, as much as it takes; returns the bytes copied.
    pub fn copy_to(&self, blob: &Blob, out: &mut [u8]) -> usize {
        let mut rest = out;
        let mut copied = 0;
        for piece in self.chunks(blob) {
            let len = piece.len().min(rest.len());
            let (room, after) = rest.split_at_mut(len);
            room.copy_from_slice(piece.split_at(len).0);
            copied += len;
            rest = after;
        }
        copied
    }

    /// Gives the string's chunks back.
    pub fn free(&mut self, blob: Blob) {
        let Some(link) = self.links.get_mut(blob.last as usize) else {
            return;
        };
        // The whole chain at once: its end is linked to the free list's start.
        *link = self.free.wrapping_add(1);
        self.free = blob.first;
        let chunks = blob.len().div_ceil(CHUNK);
        self.free_count += u32::try_from(chunks).unwrap_or(0);
    }

    /// Replaces the string by `parts`. False if there is too little room even without the old one,
    /// which is then gone all the same.
    pub fn replace(&mut self, blob: &mut Blob, parts: &[&[u8]]) -> bool {
        self.free(core::mem::take(blob));
        match self.store(parts) {
            Some(new) => {
                *blob = new;
                true
            }
            None => false,
        }
    }

    /// A free chunk, with no link.
    fn take(&mut self) -> Option<u32> {
        let chunk = match self.links.get_mut(self.free as usize) {
            Some(link) => {
                let chunk = self.free;
                self.free = core::mem::take(link).wrapping_sub(1);
                chunk
            }
            None => {
                let chunk = self.fresh;
                if chunk as usize >= self.links.len() {
                    return None;
                }
                self.fresh += 1;
                chunk
            }
        };
        self.free_count -= 1;
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(blobs: &Blobs, blob: &Blob) -> Vec<u8> {
        let mut out = vec![0; blob.len()];
        assert_eq!(blobs.copy_to(blob, &mut out), blob.len());
        out
    }

    fn text(len: usize, salt: usize) -> Vec<u8> {
        (0..len)
            .map(|at| u8::try_from((at * 7 + salt) % 251).unwrap())
            .collect()
    }

    #[test]
    fn every_length_around_a_chunk_comes_back() {
        let mut blobs = Blobs::new(1 << 17);
        let total = blobs.free_bytes();
        for len in [0, 1, 127, 128, 129, 255, 256, 257, 507, 65_507, 65_536] {
            let blob = blobs.store(&[&text(len, len)]).unwrap();
            assert_eq!((blob.len(), bytes(&blobs, &blob)), (len, text(len, len)));
            assert_eq!(total - blobs.free_bytes(), len.div_ceil(CHUNK) * CHUNK);
            let mut short = [0; 100];
            assert_eq!(blobs.copy_to(&blob, &mut short), len.min(100));
            blobs.free(blob);
            assert_eq!(blobs.free_bytes(), total);
        }
    }

    #[test]
    fn what_does_not_fit_leaves_everything_as_it_was() {
        let mut blobs = Blobs::new(4 * CHUNK);
        let mut blob = blobs.store(&[&text(300, 1)]).unwrap();
        assert!(blobs.store(&[&text(129, 2)]).is_none());
        assert!(!blobs.append(&mut blob, &text(213, 3)));
        assert_eq!(bytes(&blobs, &blob), text(300, 1));
        assert!(blobs.append(&mut blob, &text(212, 3)));
        assert_eq!((blob.len(), blobs.free_bytes()), (512, 0));
        assert!(blobs.store(&[b"x"]).is_none());
        blobs.store(&[]).map(|empty| blobs.free(empty)).unwrap();
        blobs.free(blob);
        assert_eq!(blobs.free_bytes(), blobs.capacity_bytes());
    }

    #[test]
    fn a_link_and_half_a_chunk_are_all_it_costs() {
        let blobs = Blobs::new(1 << 20);
        let overhead = blobs.links.len() * size_of::<u32>();
        assert_eq!(overhead * CHUNK, blobs.capacity_bytes() * 4);
        assert_eq!(Blobs::bytes_for(507), 4 * 132);
        assert_eq!(size_of::<Blob>(), 12);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Store(usize, usize),
        Append(usize, usize),
        Replace(usize, usize),
        Free(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        let len = || prop_oneof![0..3 * CHUNK, 0..20 * CHUNK];
        prop_oneof![
            3 => (len(), len()).prop_map(|(first, second)| Op::Store(first, second)),
            2 => (any::<usize>(), len()).prop_map(|(which, len)| Op::Append(which, len)),
            1 => (any::<usize>(), len()).prop_map(|(which, len)| Op::Replace(which, len)),
            2 => any::<usize>().prop_map(Op::Free),
        ]
    }

    proptest! {
        /// Against a list of byte vectors: every string keeps its bytes whatever others do, room is
        /// refused exactly when there is none, and in the end every chunk is back.
        #[test]
        fn behaves_like_a_list_of_vectors(ops in prop::collection::vec(op(), 1..150)) {
            let mut blobs = Blobs::new(64 * CHUNK);
            let mut model: Vec<(Blob, Vec<u8>)> = Vec::new();
            let chunks = |list: &[(Blob, Vec<u8>)]| -> usize {
                list.iter().map(|(_, bytes)| bytes.len().div_ceil(CHUNK)).sum()
            };
            for (salt, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Store(first, second) => {
                        let (first, second) = (text(first, salt), text(second, salt + 1));
                        let stored = blobs.store(&[&first, &second]);
                        let both = [first, second].concat();
                        prop_assert_eq!(
                            stored.is_some(),
                            chunks(&model) + both.len().div_ceil(CHUNK) <= 64
                        );
                        if let Some(blob) = stored {
                            model.push((blob, both));
                        }
                    }
                    Op::Append(which, len) if !model.is_empty() => {
                        let at = which % model.len();
                        let more = text(len, salt);
                        let (blob, bytes) = &mut model[at];
                        if blobs.append(blob, &more) {
                            bytes.extend(more);
                            prop_assert!(chunks(&model) <= 64);
                        } else {
                            bytes.extend(more);
                            prop_assert!(chunks(&model) > 64);
                            let (_, bytes) = &mut model[at];
                            bytes.truncate(bytes.len() - len);
                        }
                    }
                    Op::Replace(which, len) if !model.is_empty() => {
                        let at = which % model.len();
                        let new = text(len, salt);
                        let (blob, bytes) = &mut model[at];
                        let fits = blobs.replace(blob, &[&new]);
                        *bytes = new;
                        prop_assert_eq!(fits, chunks(&model) <= 64);
                        if !fits {
                            let (blob, bytes) = &mut model[at];
                            prop_assert!(blob.is_empty());
                            bytes.clear();
                        }
                    }
                    Op::Free(which) if !model.is_empty() => {
                        let at = which % model.len();
                        let (blob, _) = model.swap_remove(at);
                        blobs.free(blob);
                    }
                    Op::Append(..) | Op::Replace(..) | Op::Free(_) => {}
                }
                prop_assert_eq!(blobs.free_bytes(), (64 - chunks(&model)) * CHUNK);
                for (blob, expected) in &model {
                    prop_assert_eq!(&bytes(&blobs, blob), expected);
                }
            }
            for (blob, _) in model {
                blobs.free(blob);
            }
            prop_assert_eq!(blobs.free_bytes(), blobs.capacity_bytes());
            // Every chunk is reachable again, not only counted.
            let all = blobs.store(&[&text(64 * CHUNK, 0)]).unwrap();
            prop_assert_eq!(bytes(&blobs, &all), text(64 * CHUNK, 0));
            blobs.free(all);
        }
    }
}
