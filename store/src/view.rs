//! One revision of the store, held still for a read.

use bytes::Bytes;

use crate::index::{Cursor, KeyRange, Version};
use crate::reader::registry::Registration;
use crate::state::shared::Shared;
use crate::{Effort, Fatal, ReadError, Rejected};
use std::ops::ControlFlow;

/// The most keys looked at under one hold of the index lock.
pub(crate) const WALK_KEYS_MAX: usize = 256;
/// The most record bytes of an inline read.
pub(crate) const INLINE_BYTES_MAX: u64 = 64 << 10;

/// A place to read from.
pub(crate) struct View<'a> {
    pub shared: &'a Shared,
    /// What "latest" means: the visible revision, or that of the transaction being applied.
    pub current: i64,
    pub compacted: i64,
    pub effort: Effort,
    /// None for the apply thread, which no compaction overtakes, and for single keys read under
    /// the index lock.
    pub registration: Option<Registration>,
}

impl View<'_> {
    /// The revision that a request for `revision` reads at.
    pub(crate) fn resolve(&self, revision: i64) -> Result<i64, Rejected> {
        if revision > self.current {
            return Err(Rejected::FutureRevision);
        }
        let at = if revision <= 0 { self.current } else { revision };
        if at < self.compacted { Err(Rejected::Compacted) } else { Ok(at) }
    }

    /// Walks `range` at `at`, giving the lock back every few keys; `each` may stop it, and then
    /// the cursor says where. An inline walk ends with `WouldBlock` when `budget` is used up.
    pub(crate) fn walk(
        &self,
        range: &KeyRange,
        at: i64,
        budget: &mut usize,
        mut each: impl FnMut(&[u8], &Version) -> ControlFlow<()>,
    ) -> Result<Option<Cursor>, ReadError> {
        let mut cursor = None;
        let mut stopped = false;
        loop {
            let mut slice = self.slice(budget)?;
            let before = slice;
            let index = self.shared.index();
            self.holds()?;
            cursor = index.walk(range, cursor.as_deref(), at, &mut slice, |key, version| {
                let flow = each(key, version);
                stopped = flow.is_break();
                flow
            });
            drop(index);
            *budget = budget.saturating_sub(before - slice);
            if stopped || cursor.is_none() {
                return Ok(cursor);
            }
        }
    }

    /// Counts the keys of `range` at `at` from `cursor` on.
    pub(crate) fn count(
        &self,
        range: &KeyRange,
        mut cursor: Option<Cursor>,
        at: i64,
        budget: &mut usize,
    ) -> Result<i64, ReadError> {
        let mut total = 0;
        loop {
            let mut slice = self.slice(budget)?;
            let before = slice;
            let index = self.shared.index();
            self.holds()?;
            let (count, next) = index.count(range, cursor.as_deref(), at, &mut slice);
            drop(index);
            *budget = budget.saturating_sub(before - slice);
            total += count;
            if next.is_none() {
                return Ok(total);
            }
            if self.effort == Effort::Inline {
                return Err(ReadError::WouldBlock);
            }
            cursor = next;
        }
    }

    fn slice(&self, budget: &usize) -> Result<usize, ReadError> {
        match self.effort {
            Effort::Blocking => Ok(WALK_KEYS_MAX),
            Effort::Inline if *budget == 0 => Err(ReadError::WouldBlock),
            Effort::Inline => Ok((*budget).min(WALK_KEYS_MAX)),
        }
    }

    /// Whether what the index says can still be read.
    pub(crate) fn holds(&self) -> Result<(), Rejected> {
        self.registration.as_ref().map_or(Ok(()), Registration::holds)
    }

    /// A record that the index named.
    pub(crate) fn record(&self, version: &Version) -> Result<Bytes, ReadError> {
        read_record(self.shared, version, self.effort, self.registration.as_ref())
    }
}

/// A record that the index named; `registration` tells a record that compaction or a checkpoint
/// took from under a reader apart from one that is missing.
pub(crate) fn read_record(
    shared: &Shared,
    version: &Version,
    effort: Effort,
    registration: Option<&Registration>,
) -> Result<Bytes, ReadError> {
    let revision = version.revision();
    let found = match effort {
        Effort::Inline => shared.records.try_read(revision),
        Effort::Blocking => shared.records.read(revision).map(Some),
    };
    match found {
        Ok(Some(bytes)) => {
            let length = bytes.len() as u64;
            if length != u64::from(version.length()) {
                return Err(misfit(version, length).into());
            }
            Ok(bytes)
        }
        Ok(None) => Err(ReadError::WouldBlock),
        Err(fatal) => {
            if let Some(registration) = registration {
                registration.holds()?;
            }
            Err(fatal.into())
        }
    }
}

fn misfit(version: &Version, length: u64) -> Fatal {
    let (revision, expected) = (version.revision(), version.length());
    Fatal::new(format_args!(
        "the record of revision {revision} has {length} bytes, and the index says {expected}"
    ))
}
