//! The newest entries, in memory, so that replication and apply never touch the disk. Bounded in
//! bytes and in entries; what is not yet durable stays whatever the bounds.

use std::collections::VecDeque;

use super::limits::MEMO_ENTRIES_MAX;
use super::record::{Entry, Memo};

/// The entries `first..`, consecutive up to the end of the log.
#[derive(Default)]
pub(super) struct Tail {
    entries: VecDeque<Entry>,
    bytes: u64,
}

impl Tail {
    pub(super) fn push(&mut self, entry: Entry) {
        let last = self.entries.back();
        assert!(last.is_none_or(|last| last.id.index + 1 == entry.id.index), "no holes");
        self.bytes += entry.cost();
        self.entries.push_back(entry);
        if let Some(older) = self.entries.len().checked_sub(MEMO_ENTRIES_MAX + 1) {
            self.entries[older].memo = Memo::default();
        }
    }

    /// The oldest index held here.
    pub(super) fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.id.index)
    }

    /// Drops entries from `next` on.
    pub(super) fn truncate(&mut self, next: u64) {
        while self.entries.back().is_some_and(|entry| entry.id.index >= next) {
            self.bytes -= self.entries.pop_back().expect("it was there").cost();
        }
    }

    /// Drops entries below `first`.
    pub(super) fn purge(&mut self, first: u64) {
        while self.first().is_some_and(|index| index < first) {
            self.pop_front();
        }
    }

    /// Drops durable entries until both bounds hold.
    pub(super) fn evict(&mut self, flushed_next: u64, bytes_max: u64, entries_max: usize) {
        let over = |tail: &Self| tail.bytes > bytes_max || tail.entries.len() > entries_max;
        while over(self) && self.first().is_some_and(|index| index < flushed_next) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        self.bytes -= self.entries.pop_front().expect("it was there").cost();
    }

    /// Appends clones of `start <= index < end` to `entries` until their costs reach the budget,
    /// at least one where `entries` is empty. Returns whether all were.
    pub(super) fn copy(
        &self,
        range: std::ops::Range<u64>,
        entries: &mut Vec<Entry>,
        budget: &mut u64,
    ) -> bool {
        let first = self.first().expect("the range is held here");
        assert!(first <= range.start, "the range is held here");
        let skip = (range.start - first) as usize;
        let count = (range.end - range.start) as usize;
        for entry in self.entries.range(skip..skip + count) {
            if !entries.is_empty() && *budget < entry.cost() {
                return false;
            }
            *budget = budget.saturating_sub(entry.cost());
            entries.push(entry.clone());
        }
        true
    }
}
