//! Which ranges hold a key: a hash map for single keys, intervals for spans.
//!
//! Iterated nowhere, so the order of the hash map cannot reach any output.

use std::collections::HashMap;

use bytes::Bytes;

use super::intervals::Intervals;
use super::range::WatchedRange;

/// Values by range.
pub(super) struct Matcher<T> {
    keys: HashMap<Bytes, T>,
    spans: Intervals<T>,
}

impl<T: Copy> Matcher<T> {
    pub(super) fn new() -> Self {
        Self { keys: HashMap::new(), spans: Intervals::new() }
    }

    pub(super) fn find(&self, range: &WatchedRange) -> Option<T> {
        match range {
            WatchedRange::Key(key) => self.keys.get(key).copied(),
            WatchedRange::Span { start, end } => self.spans.find(start, end),
        }
    }

    /// Adds a range that is not there.
    pub(super) fn insert(&mut self, range: WatchedRange, value: T) {
        match range {
            WatchedRange::Key(key) => {
                let before = self.keys.insert(key, value);
                assert!(before.is_none(), "a range is inserted once");
            }
            WatchedRange::Span { start, end } => self.spans.insert(start, end, value),
        }
    }

    /// Removes a range.
    pub(super) fn remove(&mut self, range: &WatchedRange) -> Option<T> {
        match range {
            WatchedRange::Key(key) => self.keys.remove(key),
            WatchedRange::Span { start, end } => self.spans.remove(start, end),
        }
    }

    /// Calls `found` with the value of every range that holds `key`.
    pub(super) fn holding(&self, key: &[u8], found: &mut dyn FnMut(T)) {
        if let Some(value) = self.keys.get(key) {
            found(*value);
        }
        self.spans.holding(key, found);
    }
}
