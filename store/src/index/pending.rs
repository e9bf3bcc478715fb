//! A delete that is decided and not carried out everywhere yet.
//!
//! A long delete goes through the index a slice at a time. From its first deletion on, the state
//! after it is known: every key it has still to reach is dead at its revision. A [`Pending`] says
//! so in one piece, so that this state can be read while the delete goes on. Older revisions are
//! not touched by it.

use super::{Index, KeyRange, RangeEnd};

/// The keys that a delete has yet to reach.
#[derive(Debug)]
pub(crate) struct Pending {
    /// From the next key on.
    keys: KeyRange,
    /// The main revision of the delete; nothing newer is in the index.
    main: i64,
}

impl Pending {
    pub(super) fn holds(&self, key: &[u8]) -> bool {
        key >= self.keys.start.as_ref() && self.keys.reaches(key)
    }

    /// How many of `live` keys between `first` and `last` are left, if that can be told from there.
    pub(super) fn leaves(&self, first: &[u8], last: &[u8], live: usize) -> Option<usize> {
        let is_apart = last < self.keys.start.as_ref() || !self.keys.end_is_after(first);
        match (is_apart, self.holds(first) && self.holds(last)) {
            (true, _) => Some(live),
            (_, true) => Some(0),
            _ => None,
        }
    }
}

impl KeyRange {
    /// Whether the range ends after `key`, wherever it starts.
    fn end_is_after(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => key <= self.start.as_ref(),
            RangeEnd::Before(end) => key < end.as_ref(),
            RangeEnd::Open => true,
        }
    }
}

impl Index {
    /// The delete at main revision `main` has yet to reach the keys of `range` from `cursor` on;
    /// none when it is done. Before the first such call it must have deleted a key.
    pub(crate) fn set_pending(&mut self, range: &KeyRange, cursor: Option<&[u8]>, main: i64) {
        self.pending = cursor.map(|from| {
            assert_eq!(self.newest.main, main, "a pending delete has begun, and is the newest");
            Pending { keys: range.part(from, None), main }
        });
    }

    /// The delete that is under way, if a reader at `at` sees its effect.
    pub(super) fn pending_at(&self, at: i64) -> Option<&Pending> {
        self.pending.as_ref().filter(|pending| pending.main <= at)
    }
}
