//! Records under handles that go stale when the record goes.

use super::NONE;

/// Names one record for as long as it lives: after its removal the handle names nothing, also when
/// the place has a new record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    index: u32,
    generation: u32,
}

impl Handle {
    /// The record's place, below the slab's capacity: its number in [`Index`](super::Index) and
    /// [`Wheel`](crate::transaction::wheel::Wheel).
    pub const fn index(self) -> u32 {
        self.index
    }

    #[cfg(test)]
    pub(super) const fn new(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    pub(super) const fn parts(self) -> (u32, u32) {
        (self.index, self.generation)
    }

    pub(super) const fn of_parts(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }
}

/// A fixed number of records of one type.
#[derive(Debug)]
pub struct Slab<T> {
    /// As long as it has ever been full; its capacity is the slab's and never grows.
    slots: Vec<Slot<T>>,
    capacity: u32,
    /// The place freed last, or [`NONE`].
    free: u32,
    len: u32,
}

#[derive(Debug)]
struct Slot<T> {
    /// Counts the removals from this place.
    generation: u32,
    content: Content<T>,
}

#[derive(Debug)]
enum Content<T> {
    Used(T),
    /// Nothing here, and the next free place.
    Free(u32),
}

impl<T> Slab<T> {
    /// Room for `capacity` records; no memory is touched yet.
    pub fn new(capacity: u32) -> Self {
        // `NONE` is no place.
        let capacity = capacity.min(NONE - 1);
        Self {
            slots: Vec::with_capacity(capacity as usize),
            capacity,
            free: NONE,
            len: 0,
        }
    }

    /// Records it holds.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Records it can hold.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Bytes one record takes, the slab's own included.
    pub const fn bytes_per_record() -> usize {
        size_of::<Slot<T>>()
    }

    /// The handle that the next [`insert`](Self::insert) gives, `None` if it is full.
    pub fn next_handle(&self) -> Option<Handle> {
        if let Some(slot) = self.slots.get(self.free as usize) {
            return Some(Handle::of_parts(self.free, slot.generation));
        }
        let index = u32::try_from(self.slots.len()).ok()?;
        (index < self.capacity).then_some(Handle::of_parts(index, 0))
    }

    /// Puts a record in.
    ///
    /// # Errors
    /// The record itself, if there is no room.
    pub fn insert(&mut self, record: T) -> Result<Handle, T> {
        let Some(handle) = self.next_handle() else {
            return Err(record);
        };
        match self.slots.get_mut(handle.index as usize) {
            Some(slot) => {
                if let Content::Free(next) = slot.content {
                    self.free = next;
                }
                slot.content = Content::Used(record);
            }
            // Within the capacity reserved at start: it does not move.
            None => self.slots.push(Slot {
                generation: handle.generation,
                content: Content::Used(record),
            }),
        }
        self.len += 1;
        Ok(handle)
    }

    /// The record, if the handle is not stale.
    pub fn at(&self, handle: Handle) -> Option<&T> {
        let slot = self.slots.get(handle.index as usize)?;
        match &slot.content {
            Content::Used(record) if slot.generation == handle.generation => Some(record),
            _ => None,
        }
    }

    /// The record to be changed, if the handle is not stale.
    pub fn at_mut(&mut self, handle: Handle) -> Option<&mut T> {
        let slot = self.slots.get_mut(handle.index as usize)?;
        match &mut slot.content {
            Content::Used(record) if slot.generation == handle.generation => Some(record),
            _ => None,
        }
    }

    /// The handle of the record at a place now: a fired timer knows the place only.
    pub fn handle_of(&self, index: u32) -> Option<Handle> {
        let slot = self.slots.get(index as usize)?;
        matches!(slot.content, Content::Used(_)).then_some(Handle::of_parts(index, slot.generation))
    }

    /// Takes the record out, if the handle is not stale.
    pub fn remove(&mut self, handle: Handle) -> Option<T> {
        let slot = self.slots.get_mut(handle.index as usize)?;
        if slot.generation != handle.generation || matches!(slot.content, Content::Free(_)) {
            return None;
        }
        // Stale handles would be believed after 2^32 removals from one place within the life of
        // one of them; a transaction lives minutes.
        slot.generation = slot.generation.wrapping_add(1);
        let content = core::mem::replace(&mut slot.content, Content::Free(self.free));
        self.free = handle.index;
        self.len -= 1;
        match content {
            Content::Used(record) => Some(record),
            Content::Free(_) => None,
        }
    }

    /// Every record with its handle. Goes over all places ever used: for what happens seldom, like
    /// a server gone down, not for a message or a timer.
    pub fn iter(&self) -> impl Iterator<Item = (Handle, &T)> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| {
            let Content::Used(record) = &slot.content else {
                return None;
            };
            Some((Handle::of_parts(index, slot.generation), record))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn full_gives_the_record_back() {
        let mut slab = Slab::new(2);
        let first = slab.insert("a").unwrap();
        slab.insert("b").unwrap();
        assert_eq!(slab.next_handle(), None);
        assert_eq!(slab.insert("c"), Err("c"));
        assert_eq!(slab.remove(first), Some("a"));
        let third = slab.insert("c").unwrap();
        assert_eq!(third.index(), first.index());
        assert_eq!((slab.at(first), slab.at(third)), (None, Some(&"c")));
        assert_eq!(slab.remove(first), None);
        assert_eq!(Slab::<u8>::new(0).insert(1), Err(1));
    }

    #[test]
    fn it_never_allocates_after_start() {
        let mut slab = Slab::new(1000);
        let room = slab.slots.capacity();
        for _ in 0..3 {
            let handles: Vec<_> = (0..1000).map(|n| slab.insert(n).unwrap()).collect();
            assert!(slab.insert(0).is_err());
            for handle in handles {
                slab.remove(handle).unwrap();
            }
        }
        assert_eq!(slab.slots.capacity(), room);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u32),
        Remove(usize),
        Change(usize, u32),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            any::<u32>().prop_map(Op::Insert),
            any::<usize>().prop_map(Op::Remove),
            (any::<usize>(), any::<u32>()).prop_map(|(which, value)| Op::Change(which, value)),
        ]
    }

    proptest! {
        /// Against a map of every handle ever given: live ones find their record, all others
        /// nothing.
        #[test]
        fn behaves_like_a_map(ops in prop::collection::vec(op(), 1..300)) {
            let mut slab = Slab::new(16);
            let mut model: HashMap<Handle, u32> = HashMap::new();
            let mut given: Vec<Handle> = Vec::new();
            for op in ops {
                match op {
                    Op::Insert(value) => {
                        let next = slab.next_handle();
                        let inserted = slab.insert(value);
                        prop_assert_eq!(inserted.ok(), next);
                        prop_assert_eq!(inserted.is_ok(), model.len() < 16);
                        if let Ok(handle) = inserted {
                            prop_assert!(model.insert(handle, value).is_none());
                            given.push(handle);
                        }
                    }
                    Op::Remove(which) if !given.is_empty() => {
                        let handle = given[which % given.len()];
                        prop_assert_eq!(slab.remove(handle), model.remove(&handle));
                    }
                    Op::Change(which, value) if !given.is_empty() => {
                        let handle = given[which % given.len()];
                        if let Some(record) = slab.at_mut(handle) {
                            *record = value;
                        }
                        model.entry(handle).and_modify(|record| *record = value);
                    }
                    Op::Remove(_) | Op::Change(..) => {}
                }
                prop_assert_eq!(slab.len() as usize, model.len());
                for handle in &given {
                    prop_assert_eq!(slab.at(*handle), model.get(handle));
                }
                let all: HashMap<_, _> = slab.iter().map(|(handle, value)| (handle, *value)).collect();
                prop_assert_eq!(&all, &model);
                prop_assert!(model.keys().all(|one| slab.handle_of(one.index()) == Some(*one)));
            }
        }
    }
}
