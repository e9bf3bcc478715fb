//! The records that are in no block yet, in revision order, with the log entries they belong to.
//!
//! ```text
//! records:   r2 r3 r4 | r5 | r6 r7 ...        one per change
//! ends:          (41, 3) (44, 4)               records before the 3rd belong to entries <= 41
//! ```
//!
//! Records after the last end belong to an entry that is still being applied.

use bytes::Bytes;

use crate::{Position, Record, Revision};

use super::queue::Queue;

/// The in-memory tail.
#[derive(Default)]
pub(crate) struct Tail {
    records: Queue<TailRecord>,
    ends: Queue<EntryEnd>,
    /// How many records have left at the front, ever: `ends` count from the very first record.
    removed: u64,
    bytes: u64,
}

/// A record and whether compaction has given it up.
#[derive(Clone)]
pub(crate) struct TailRecord {
    pub(crate) record: Record,
    pub(crate) dead: bool,
}

struct EntryEnd {
    index: u64,
    end: u64,
}

impl Tail {
    /// Adds the newest record.
    pub(crate) fn push(&mut self, record: Record) {
        if let Some(last) = self.last() {
            assert!(last < record.revision, "records are appended in revision order");
        }
        self.bytes += record.bytes.len() as u64;
        self.records.push_back(TailRecord { record, dead: false });
    }

    /// Everything so far belongs to entries up to `position`.
    pub(crate) fn end_entry(&mut self, position: Position) {
        let end = self.removed + self.records.len() as u64;
        if let Some(last) = self.ends.back() {
            assert!(last.index <= position.index, "entries end in order");
            if last.end == end {
                return;
            }
        }
        if end > self.removed {
            self.ends.push_back(EntryEnd { index: position.index, end });
        }
    }

    /// The bytes of a record, if it is here.
    pub(crate) fn read(&self, revision: Revision) -> Option<&Record> {
        let found = &self.records[self.find(revision)?];
        (!found.dead).then_some(&found.record)
    }

    /// Records from `from` on, those given up excepted.
    pub(crate) fn since(&self, from: Revision) -> impl Iterator<Item = &Record> {
        let start = self.records.partition_point(|r| r.record.revision < from);
        self.records.iter_from(start).filter(|r| !r.dead).map(|r| &r.record)
    }

    /// Gives a record up and frees its bytes. False if it is not here.
    pub(crate) fn forget(&mut self, revision: Revision) -> bool {
        let Some(at) = self.find(revision) else { return false };
        let found = &mut self.records[at];
        if !found.dead {
            found.dead = true;
            self.bytes -= found.record.bytes.len() as u64;
            found.record.bytes = Bytes::new();
            found.record.key = Bytes::new();
        }
        true
    }

    /// How many records at the front belong to entries up to `index`.
    pub(crate) fn count_up_to(&self, index: u64) -> usize {
        let ends = self.ends.partition_point(|end| end.index <= index);
        match ends.checked_sub(1) {
            Some(last) => (self.ends[last].end - self.removed) as usize,
            None => 0,
        }
    }

    /// The first `count` records.
    pub(crate) fn front(&self, count: usize) -> impl Iterator<Item = &TailRecord> {
        self.records.iter_from(0).take(count)
    }

    /// Lets the first `count` records go: they are in a block now, or all dead.
    pub(crate) fn remove_front(&mut self, count: usize) {
        self.records.remove_front(count, |gone| self.bytes -= gone.record.bytes.len() as u64);
        self.removed += count as u64;
        let past = self.ends.partition_point(|end| end.end <= self.removed);
        self.ends.remove_front(past, drop);
    }

    /// The newest revision here.
    pub(crate) fn last(&self) -> Option<Revision> {
        self.records.back().map(|last| last.record.revision)
    }

    /// Bytes of record encodings held.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn find(&self, revision: Revision) -> Option<usize> {
        let at = self.records.partition_point(|r| r.record.revision < revision);
        (at < self.records.len() && self.records[at].record.revision == revision).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(main: i64) -> Record {
        Record::put(Revision::new(main, 0), Bytes::from_static(b"k"), b"v", main, 1, 0)
    }

    fn at(index: u64) -> Position {
        Position { term: 1, index }
    }

    #[test]
    fn entries_bound_what_may_be_sealed() {
        let mut tail = Tail::default();
        tail.end_entry(at(3));
        tail.push(record(2));
        tail.push(record(3));
        tail.end_entry(at(4));
        tail.end_entry(at(5));
        tail.push(record(4));
        tail.end_entry(at(6));
        tail.push(record(5));
        assert_eq!([3, 4, 5, 6, 7].map(|index| tail.count_up_to(index)), [0, 2, 2, 3, 3]);
        tail.remove_front(1);
        assert_eq!([4, 6].map(|index| tail.count_up_to(index)), [1, 2]);
        tail.remove_front(2);
        assert_eq!(tail.count_up_to(9), 0);
        tail.end_entry(at(9));
        assert_eq!(tail.count_up_to(9), 1);
    }

    #[test]
    fn what_is_given_up_cannot_be_read() {
        let mut tail = Tail::default();
        (2..6).for_each(|main| tail.push(record(main)));
        assert!(tail.forget(Revision::new(3, 0)));
        assert!(!tail.forget(Revision::new(9, 0)));
        assert!(tail.read(Revision::new(3, 0)).is_none());
        assert_eq!(tail.read(Revision::new(4, 0)), Some(&record(4)));
        let since: Vec<_> = tail.since(Revision::new(3, 0)).map(|r| r.revision.main).collect();
        assert_eq!(since, [4, 5]);
    }
}
