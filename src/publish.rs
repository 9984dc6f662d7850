//! A value that workers follow and that others put there, change and take away.
//!
//! A worker looks once a batch, at the cost of one relaxed load while nothing changes. It must not
//! free what it followed: the old value is kept here until no worker holds it, and freed by
//! whoever publishes next or calls [`Published::reap`].

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwapOption, Cache};

/// The place of the value.
#[derive(Debug)]
pub struct Published<T> {
    current: Arc<ArcSwapOption<T>>,
    /// Values that a worker may still hold.
    retired: Mutex<Vec<Arc<T>>>,
}

impl<T> Published<T> {
    /// An empty place.
    pub fn new() -> Self {
        Self {
            current: Arc::new(ArcSwapOption::empty()),
            retired: Mutex::default(),
        }
    }

    /// The value now.
    pub fn current(&self) -> Option<Arc<T>> {
        self.current.load_full()
    }

    /// Puts a value there, or none.
    pub fn set(&self, value: Option<Arc<T>>) {
        let old = self.current.swap(value);
        self.retired
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(old);
        self.reap();
    }

    /// Frees the values that nobody holds any more.
    pub fn reap(&self) {
        self.retired
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|value| Arc::strong_count(value) > 1);
    }

    /// The view of one worker.
    pub fn follow(&self) -> Follower<T> {
        Follower(Cache::new(self.current.clone()))
    }
}

impl<T> Default for Published<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The value as one worker sees it.
#[derive(Debug)]
pub struct Follower<T>(Cache<Arc<ArcSwapOption<T>>, Option<Arc<T>>>);

impl<T> Follower<T> {
    /// The value now.
    #[inline]
    pub fn load(&mut self) -> Option<&Arc<T>> {
        self.0.load().as_ref()
    }

    /// To be called once on the worker's thread before its first packet: the first look of a thread
    /// at a changed value takes a place in a list that arc-swap allocates.
    pub fn warm_up(&self) {
        drop(self.0.arc_swap().load());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_value_lives_until_its_last_follower_looks_again() {
        let place = Published::new();
        let mut follower = place.follow();
        assert!(follower.load().is_none());
        let value = Arc::new(7);
        let gone = Arc::downgrade(&value);
        place.set(Some(value));
        assert_eq!(follower.load().map(|value| **value), Some(7));
        place.set(None);
        assert!(gone.upgrade().is_some(), "the follower would have freed it");
        assert!(follower.load().is_none());
        assert!(gone.upgrade().is_some(), "the follower freed it");
        place.reap();
        assert!(gone.upgrade().is_none());
    }
}
