//! The key index: every key's versions, in memory, in key order.
//!
//! ```text
//! BTreeMap   ""         ->  chunk [ a: 2.0  4.0t | b: 3.0 | c: 5.0 5.1t ]   live 1, garbage 4
//!            "d"        ->  chunk [ d: 6.0 | ... ]                          at most 64 keys each
//! ```
//!
//! A chunk covers the keys from its own bound up to the next chunk's. It counts its live keys and
//! knows its newest revision, so that a range at any later revision is counted chunk by chunk, not
//! key by key; and it counts its garbage, so that a compaction passes over clean chunks. A key with
//! one version (most of them) has it inline. While a long delete goes on, what it has yet to reach
//! is already dead to readers at its revision: see [`pending`].
//!
//! The index promises order and consistency of these counts, and that one call touches a bounded
//! number of keys; locking, publishing and the records' bytes are its callers' business.

mod chunk;
mod pending;
mod sweep;
mod version;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::Revision;
use chunk::Chunk;
use pending::Pending;

pub(crate) use version::{Version, Versions};

/// The keys a request speaks of, in etcd's terms.
#[derive(Clone, Debug)]
pub(crate) struct KeyRange {
    /// The first key.
    pub start: Bytes,
    /// Where it ends.
    pub end: RangeEnd,
}

/// Where a [`KeyRange`] ends.
#[derive(Clone, Debug)]
pub(crate) enum RangeEnd {
    /// After its first key.
    Single,
    /// Before this key.
    Before(Bytes),
    /// Never.
    Open,
}

impl KeyRange {
    /// Reads etcd's `key` and `range_end`.
    pub(crate) fn new(key: &Bytes, range_end: &Bytes) -> Self {
        let end = match range_end.as_ref() {
            [] => RangeEnd::Single,
            [0] => RangeEnd::Open,
            _ => RangeEnd::Before(range_end.clone()),
        };
        Self { start: key.clone(), end }
    }

    /// Every key.
    pub(crate) fn everything() -> Self {
        Self { start: Bytes::new(), end: RangeEnd::Open }
    }

    pub(crate) fn is_single(&self) -> bool {
        matches!(self.end, RangeEnd::Single)
    }

    /// What of it lies from `from` on and before `to`, if that is given.
    pub(crate) fn part(&self, from: &[u8], to: Option<&[u8]>) -> Self {
        let end = to.map(|to| RangeEnd::Before(Bytes::copy_from_slice(to)));
        Self { start: Bytes::copy_from_slice(from), end: end.unwrap_or_else(|| self.end.clone()) }
    }

    /// Whether `key`, which is not before the start, lies before the end.
    fn reaches(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => key == self.start.as_ref(),
            RangeEnd::Before(end) => key < end.as_ref(),
            RangeEnd::Open => true,
        }
    }
}

/// Where a bounded walk goes on: the next key it has not seen.
pub(crate) type Cursor = Box<[u8]>;

/// What a put found and made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// The live version before, if there was one.
    pub previous: Option<Version>,
    /// The version that was added.
    pub version: Version,
}

/// All keys.
#[derive(Debug)]
pub(crate) struct Index {
    /// By lower bound; the empty bound is always there.
    chunks: BTreeMap<Box<[u8]>, Chunk>,
    /// The newest revision added.
    newest: Revision,
    /// A delete at the newest main revision that is under way.
    pending: Option<Pending>,
}

impl Default for Index {
    fn default() -> Self {
        let chunks = BTreeMap::from([(Box::from([]), Chunk::default())]);
        Self { chunks, newest: Revision::default(), pending: None }
    }
}

impl Index {
    /// The version of `key` that is live at main revision `at`.
    pub(crate) fn live(&self, key: &[u8], at: i64) -> Option<&Version> {
        let version = self.versions(key)?.live(at)?;
        let doomed = self.pending_at(at).is_some_and(|pending| pending.holds(key));
        (!doomed).then_some(version)
    }

    /// The versions of `key` that were added, tombstones included; what a delete under way has
    /// yet to reach is as it was.
    pub(crate) fn versions(&self, key: &[u8]) -> Option<&Versions> {
        self.chunk(key).find(key)
    }

    /// Adds a write of `key`. `length` gives the record's length from the new version, whose own
    /// length is not set yet.
    pub(crate) fn put(
        &mut self,
        key: &[u8],
        revision: Revision,
        lease: i64,
        length: impl FnOnce(&Version) -> usize,
    ) -> Written {
        self.advance(revision);
        let chunk = chunk_mut(&mut self.chunks, key);
        let at = chunk.position(key);
        let previous = at.ok().and_then(|at| chunk.latest_live(at));
        let mut version = Version::put(revision, previous.as_ref(), lease);
        version.set_length(length(&version));
        if let Some((bound, upper)) = chunk.add(at, key, version) {
            self.chunks.insert(bound, upper);
        }
        Written { previous, version }
    }

    /// Adds tombstones to at most `max` live keys of `range` from `cursor` on, the first at
    /// `revision`, the next ones at the subs that follow. `each` is given the key and the versions
    /// deleted and added. Visits at most `max` keys in all; gives where to go on, if anywhere.
    pub(crate) fn delete(
        &mut self,
        range: &KeyRange,
        cursor: Option<&[u8]>,
        mut revision: Revision,
        max: usize,
        mut each: impl FnMut(&[u8], Version, Version),
    ) -> Option<Cursor> {
        let mut from: Cursor = Box::from(cursor.unwrap_or(&range.start));
        let mut left = max;
        loop {
            let (chunk, bound) = self.chunk_mut_and_next(&from);
            let mut at = chunk.position(&from).unwrap_or_else(|at| at);
            let first = revision.sub;
            // Keys are not looked into where that is not needed: this is done under a lock.
            let whole = chunk.last_key().is_some_and(|last| range.reaches(last));
            while let Some(key) = chunk.key(at) {
                if !whole && !range.reaches(key) {
                    return self.deleted(first, revision, None);
                }
                if left == 0 {
                    let next = Box::from(key);
                    return self.deleted(first, revision, Some(next));
                }
                left -= 1;
                if let Some(previous) = chunk.latest_live(at) {
                    let tombstone = Version::tombstone(revision, key.len());
                    each(key, previous, tombstone);
                    chunk.push(at, tombstone);
                    revision.sub += 1;
                }
                at += 1;
            }
            self.deleted(first, revision, None);
            from = bound.filter(|bound| range.reaches(bound))?;
        }
    }

    /// Takes in that tombstones were added from the sub `first` up to `next`.
    fn deleted(&mut self, first: i64, next: Revision, cursor: Option<Cursor>) -> Option<Cursor> {
        if next.sub > first {
            self.newest = Revision::new(next.main, next.sub - 1);
        }
        cursor
    }

    /// Adds a version as it was, in revision order; one that is there already is passed over.
    pub(crate) fn restore(&mut self, key: &[u8], version: Version) {
        if version.revision() <= self.newest {
            return;
        }
        self.newest = version.revision();
        let chunk = chunk_mut(&mut self.chunks, key);
        let at = chunk.position(key);
        if let Some((bound, upper)) = chunk.add(at, key, version) {
            self.chunks.insert(bound, upper);
        }
    }

    /// Shows `each` the versions of every key, in key order.
    pub(crate) fn each(&self, mut each: impl FnMut(&Versions)) {
        let keys = self.chunks.values().flat_map(|chunk| chunk.entries_from(&[]));
        keys.for_each(|(_, versions)| each(versions));
    }

    /// Shows `each` the keys of `range` that are live at `at`, from `cursor` on, until it breaks or
    /// `budget` keys were visited, live or not. Gives where to go on unless the range is done.
    pub(crate) fn walk(
        &self,
        range: &KeyRange,
        cursor: Option<&[u8]>,
        at: i64,
        budget: &mut usize,
        mut each: impl FnMut(&[u8], &Version) -> ControlFlow<()>,
    ) -> Option<Cursor> {
        let from = cursor.unwrap_or(&range.start);
        if range.is_single() {
            let version = self.live(from, at)?;
            *budget = budget.saturating_sub(1);
            let _ = each(from, version);
            return None;
        }
        let pending = self.pending_at(at);
        for chunk in self.chunks_from(from) {
            for (key, versions) in chunk.entries_from(from) {
                if !range.reaches(key) {
                    return None;
                }
                if *budget == 0 {
                    return Some(Box::from(key));
                }
                *budget -= 1;
                let Some(version) = versions.live(at) else { continue };
                if pending.is_some_and(|pending| pending.holds(key)) {
                    continue;
                }
                if each(key, version).is_break() {
                    // The cursor is the key after this one: the smallest longer key.
                    return Some(after(key));
                }
            }
        }
        None
    }

    /// Counts the keys of `range` live at `at` from `cursor` on. A chunk that lies inside the range
    /// and has not changed since `at` costs as much of the budget as one key.
    pub(crate) fn count(
        &self,
        range: &KeyRange,
        cursor: Option<&[u8]>,
        at: i64,
        budget: &mut usize,
    ) -> (i64, Option<Cursor>) {
        const CHUNK_COST: usize = 1;
        let from = cursor.unwrap_or(&range.start);
        if range.is_single() {
            return (i64::from(self.live(from, at).is_some()), None);
        }
        let pending = self.pending_at(at);
        let mut count = 0;
        for chunk in self.chunks_from(from) {
            let (Some(first), Some(last)) = (chunk.key(0), chunk.last_key()) else { continue };
            let whole = first >= from && range.reaches(last) && chunk.newest() <= at;
            let left = match pending {
                _ if !whole => None,
                None => Some(chunk.live()),
                Some(pending) => pending.leaves(first, last, chunk.live()),
            };
            if let Some(live) = left {
                if *budget < CHUNK_COST {
                    return (count, Some(Box::from(first)));
                }
                *budget -= CHUNK_COST;
                count += live as i64;
                continue;
            }
            for (key, versions) in chunk.entries_from(from) {
                if !range.reaches(key) {
                    return (count, None);
                }
                if *budget == 0 {
                    return (count, Some(Box::from(key)));
                }
                *budget -= 1;
                let doomed = pending.is_some_and(|pending| pending.holds(key));
                count += i64::from(!doomed && versions.live(at).is_some());
            }
        }
        (count, None)
    }

    /// The chunk that covers `key`.
    fn chunk(&self, key: &[u8]) -> &Chunk {
        let mut floor = self.chunks.range::<[u8], _>((Unbounded, Included(key)));
        floor.next_back().expect("the empty bound is always there").1
    }

    fn chunks_from(&self, key: &[u8]) -> impl Iterator<Item = &Chunk> {
        let after = self.chunks.range::<[u8], _>((Excluded(key), Unbounded));
        std::iter::once(self.chunk(key)).chain(after.map(|(_, chunk)| chunk))
    }

    /// The chunk that covers `key`, and the bound of the chunk after it.
    fn chunk_mut_and_next(&mut self, key: &[u8]) -> (&mut Chunk, Option<Cursor>) {
        let mut after = self.chunks.range::<[u8], _>((Excluded(key), Unbounded));
        let next = after.next().map(|(bound, _)| bound.clone());
        (chunk_mut(&mut self.chunks, key), next)
    }

    fn advance(&mut self, revision: Revision) {
        assert!(self.pending.is_none(), "a delete is carried out before anything follows it");
        assert!(revision > self.newest, "revision {revision} follows {}", self.newest);
        self.newest = revision;
    }
}

fn chunk_mut<'a>(chunks: &'a mut BTreeMap<Box<[u8]>, Chunk>, key: &[u8]) -> &'a mut Chunk {
    let mut floor = chunks.range_mut::<[u8], _>((Unbounded, Included(key)));
    floor.next_back().expect("the empty bound is always there").1
}

/// The smallest key after `key`.
pub(crate) fn after(key: &[u8]) -> Cursor {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into_boxed_slice()
}
