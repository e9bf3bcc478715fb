//! The log's own state, as a fold over its records: vote, committed, and which indexes exist.
//!
//! The same fold runs in three places that must agree: when a caller asks (what readers see),
//! when the writer encodes (what a segment header says), and at opening.

use super::record::{LogId, Record, Vote};

/// What is true after some prefix of the records.
///
/// `purged.index < first <= last.index` when there are entries; without entries `last = purged`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The newest vote.
    pub vote: Option<Vote>,
    /// The newest committed entry that was recorded.
    pub committed: Option<LogId>,
    /// The newest entry that was removed from the front.
    pub purged: Option<LogId>,
    /// The index of the first entry; none if there are no entries.
    pub first: Option<u64>,
    /// The newest entry, or the newest purged one.
    pub last: Option<LogId>,
}

impl State {
    /// The index that the next entry must have, unless the log never held any.
    pub fn next_index(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    /// Whether the entry exists.
    pub fn contains(&self, index: u64) -> bool {
        self.first.is_some_and(|first| first <= index) && index < self.next_index()
    }

    /// Takes one record in, or says why it cannot follow what came before.
    pub fn apply(&mut self, record: &Record) -> Result<(), String> {
        match record {
            Record::Entry(entry) => self.append(entry.id)?,
            Record::Vote(vote) => self.vote = Some(*vote),
            Record::Committed(committed) => self.committed = Some(*committed),
            Record::Truncate(after) => self.truncate(*after)?,
            Record::Purge(upto) => self.purge(*upto),
        }
        self.check();
        Ok(())
    }

    fn append(&mut self, id: LogId) -> Result<(), String> {
        if let Some(last) = self.last {
            if id.index != last.index + 1 {
                return Err(format!("entry {} after entry {}", id.index, last.index));
            }
            if id.term < last.term {
                let LogId { term, index } = id;
                return Err(format!("entry {index} of term {term} after one of {}", last.term));
            }
        }
        self.first.get_or_insert(id.index);
        self.last = Some(id);
        Ok(())
    }

    fn truncate(&mut self, after: Option<LogId>) -> Result<(), String> {
        if let (Some(purged), Some(after)) = (self.purged, after)
            && after.index < purged.index
        {
            let (after, purged) = (after.index, purged.index);
            return Err(format!("truncation after {after}, below the purged {purged}"));
        }
        let Some(first) = self.first else { return Ok(()) };
        match after {
            Some(after) if after.index >= self.next_index().saturating_sub(1) => {}
            Some(after) if after.index >= first => self.last = Some(after),
            _ => {
                self.first = None;
                self.last = self.purged;
            }
        }
        Ok(())
    }

    fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        self.purged = Some(upto);
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.first = None;
            self.last = Some(upto);
        } else {
            self.first = self.first.map(|first| first.max(upto.index + 1));
        }
    }

    fn check(&self) {
        match self.first {
            Some(first) => {
                let last = self.last.expect("a log with a first entry has a last one");
                assert!(first <= last.index, "first entry {first} above the last {last:?}");
                assert!(self.purged.is_none_or(|purged| purged.index < first));
            }
            None => assert_eq!(self.last, self.purged, "an empty log ends where it was purged"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::record::{Entry, EntryKind};

    fn id(term: u64, index: u64) -> LogId {
        LogId { term, index }
    }

    fn entry(term: u64, index: u64) -> Record {
        Record::Entry(Entry::new(id(term, index), EntryKind::Blank, Default::default()))
    }

    #[test]
    fn entries_follow_one_another() {
        let mut state = State::default();
        state.apply(&entry(1, 5)).unwrap();
        assert_eq!((state.first, state.next_index()), (Some(5), 6));
        assert!(state.apply(&entry(1, 7)).unwrap_err().contains("entry 7 after entry 5"));
        assert!(state.apply(&entry(0, 6)).unwrap_err().contains("term 0"));
        state.apply(&entry(2, 6)).unwrap();
        assert!(state.contains(5) && state.contains(6) && !state.contains(7));
    }

    #[test]
    fn truncation_and_purge_move_the_ends() {
        let mut state = State::default();
        for index in 0..10 {
            state.apply(&entry(1, index)).unwrap();
        }
        state.apply(&Record::Purge(id(1, 3))).unwrap();
        assert_eq!(state.first, Some(4));
        state.apply(&Record::Truncate(Some(id(1, 12)))).unwrap();
        assert_eq!(state.last, Some(id(1, 9)));
        state.apply(&Record::Truncate(Some(id(1, 6)))).unwrap();
        assert_eq!(state.last, Some(id(1, 6)));
        assert!(state.apply(&Record::Truncate(Some(id(1, 2)))).is_err());
        state.apply(&Record::Truncate(Some(id(1, 3)))).unwrap();
        assert_eq!((state.first, state.last), (None, Some(id(1, 3))));
        state.apply(&entry(2, 4)).unwrap();
        state.apply(&Record::Purge(id(2, 20))).unwrap();
        assert_eq!((state.first, state.last), (None, Some(id(2, 20))));
        state.apply(&Record::Purge(id(2, 10))).unwrap();
        assert_eq!(state.purged, Some(id(2, 20)));
    }
}
