//! Where each record of a block lies in its body; the part of a block that is always in memory.
//!
//! Eight bytes of lookup a record would be much when there are millions, so the common case, one
//! record for each main revision and none missing, keeps none: the slot is the difference of the
//! revisions. What remains is four bytes a record, the end of its bytes in the body.

use std::ops::Range;

use crate::{RecordHeader, Revision};

/// The records of a block, by revision.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    first: Revision,
    /// Revisions relative to the first's main revision, in order; `None` when they are consecutive
    /// main revisions, each with sub 0.
    sparse: Option<Box<[(u32, u32)]>>,
    ends: Box<[u32]>,
}

impl Slots {
    /// The slots of records in revision order; `None` if they lie too far apart for one block.
    pub(crate) fn of(headers: &[RecordHeader]) -> Option<Self> {
        let first = headers.first()?.revision;
        let relative: Box<[(u32, u32)]> =
            headers.iter().map(|header| relative(first, header.revision)).collect::<Option<_>>()?;
        let dense = relative.iter().enumerate().all(|(at, slot)| *slot == (at as u32, 0));
        let mut end = 0u32;
        let ends = headers
            .iter()
            .map(|header| {
                end = end.checked_add(header.length)?;
                Some(end)
            })
            .collect::<Option<_>>()?;
        Some(Self { first, sparse: (!dense).then_some(relative), ends })
    }

    /// Whether a block that begins with `first` can hold `revision` too.
    pub(crate) fn reaches(first: Revision, revision: Revision) -> bool {
        relative(first, revision).is_some()
    }

    /// The oldest revision.
    pub(crate) fn first(&self) -> Revision {
        self.first
    }

    /// The newest revision.
    pub(crate) fn last(&self) -> Revision {
        self.revision(self.count() - 1)
    }

    /// How many records.
    pub(crate) fn count(&self) -> usize {
        self.ends.len()
    }

    /// The length of the body.
    pub(crate) fn body_length(&self) -> u32 {
        *self.ends.last().expect("a block holds at least one record")
    }

    /// The slot of a revision.
    pub(crate) fn find(&self, revision: Revision) -> Option<usize> {
        let wanted = relative(self.first, revision)?;
        match &self.sparse {
            Some(slots) => slots.binary_search(&wanted).ok(),
            None => {
                (wanted.1 == 0 && (wanted.0 as usize) < self.count()).then_some(wanted.0 as usize)
            }
        }
    }

    /// The revision of a slot.
    pub(crate) fn revision(&self, slot: usize) -> Revision {
        let (main, sub) = self.sparse.as_ref().map_or((slot as u32, 0), |slots| slots[slot]);
        Revision::new(self.first.main + i64::from(main), i64::from(sub))
    }

    /// The first slot at or after a revision; the count if there is none.
    pub(crate) fn first_at_or_after(&self, revision: Revision) -> usize {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.revision(middle) < revision { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Where a slot's record lies in the body.
    pub(crate) fn range(&self, slot: usize) -> Range<usize> {
        let start = slot.checked_sub(1).map_or(0, |before| self.ends[before]);
        start as usize..self.ends[slot] as usize
    }
}

fn relative(first: Revision, revision: Revision) -> Option<(u32, u32)> {
    let main = u32::try_from(revision.main.checked_sub(first.main)?).ok()?;
    Some((main, u32::try_from(revision.sub).ok()?))
}
