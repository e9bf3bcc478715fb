//! One transaction's writes: puts and deletes that share a main revision.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::command::{DeleteRange, Put};
use crate::index::{Cursor, KeyRange, Version};
use crate::record::{self, Record};
use crate::view::View;
use crate::watch::{Change, RevisionEvents};
use crate::{Effort, Fatal, Revision};

use super::Meanwhile;
use super::shared::Shared;
use super::usage::Growth;
use slice::Slice;

mod slice;

/// How many keys one hold of the index lock looks at or deletes.
const DELETE_SLICE: usize = 512;
/// A revision with more changes is handed to the watch hub without them.
const CHANGES_MAX: i64 = 10_000;

/// The writes of the transaction being applied.
pub(super) struct Write<'a> {
    shared: &'a Shared,
    /// The revision before it.
    begin: i64,
    compacted: i64,
    /// The changes so far, until they are too many to keep.
    changes: Vec<Change>,
    /// How many there were.
    count: i64,
    growth: Growth,
}

/// What a delete did.
pub(super) struct Deleted {
    pub count: i64,
    /// What was deleted, when it was asked for.
    pub prevs: Vec<Bytes>,
}

impl<'a> Write<'a> {
    pub(super) fn new(shared: &'a Shared, begin: i64, compacted: i64) -> Self {
        Self { shared, begin, compacted, changes: Vec::new(), count: 0, growth: Growth::default() }
    }

    /// The revision in force: the one before, until something has changed.
    pub(super) fn revision(&self) -> i64 {
        self.begin + i64::from(self.count > 0)
    }

    /// What reads inside the transaction see.
    pub(super) fn view(&self) -> View<'a> {
        View {
            shared: self.shared,
            current: self.revision(),
            compacted: self.compacted,
            effort: Effort::Blocking,
            registration: None,
        }
    }

    /// What the changes so far add to what the store holds.
    pub(super) fn growth(&self) -> Growth {
        self.growth
    }

    /// The changes, if there were any.
    pub(super) fn finish(self) -> Option<RevisionEvents> {
        let revision = self.begin + 1;
        let complete = self.changes.len() as i64 == self.count;
        let changes = self.changes;
        (self.count > 0).then_some(RevisionEvents { revision, changes, complete })
    }

    /// Writes one key. The caller has checked lease and flags. Gives the version before.
    pub(super) fn put(&mut self, put: &Put) -> Result<Option<Version>, Fatal> {
        let kept = if put.ignore_value || put.ignore_lease { self.live(&put.key) } else { None };
        // A key that an earlier operation of this transaction deleted keeps nothing.
        let lease = if put.ignore_lease { kept.map_or(0, |v| v.lease()) } else { put.lease };
        let value = match kept {
            Some(version) if put.ignore_value => {
                record::value_of(&self.shared.records.read(version.revision())?)?
            }
            _ => put.value.clone(),
        };
        let revision = self.next_revision();
        let written = self.shared.index_mut().put(&put.key, revision, lease, |v| {
            let (create, version) = (v.create_revision(), v.version());
            record::put_length(put.key.len(), value.len(), create, revision.main, version, lease)
        });
        let (create, version) = (written.version.create_revision(), written.version.version());
        let bytes = record::encode_put(&put.key, &value, create, revision.main, version, lease);
        assert_eq!(bytes.len(), written.version.length() as usize, "lengths are known beforehand");
        let key = record::key_within(&bytes, put.key.len());
        self.move_lease(&key, written.previous.map_or(0, |v| v.lease()), lease);
        let kind = written.version.kind();
        let record = Record { revision, key, kind, bytes };
        self.note(&record, written.previous);
        let counts = &self.shared.counts;
        counts.puts.add_alone(1);
        counts.put_bytes.add_alone((put.key.len() + value.len()) as u64);
        self.shared.records.append([record]);
        Ok(written.previous)
    }

    /// A range was read in the transaction.
    pub(super) fn count_range(&self) {
        self.shared.counts.ranges.add_alone(1);
    }

    /// Deletes the live keys of a range, a slice at a time; readers go on in between. If there is a
    /// `meanwhile`, nothing follows in this transaction, and so they may see its result from the
    /// first slice on.
    pub(super) fn delete(
        &mut self,
        delete: &DeleteRange,
        prev_kv: bool,
        mut meanwhile: Option<Meanwhile<'_>>,
    ) -> Result<Deleted, Fatal> {
        self.shared.counts.deletes.add_alone(1);
        let range = KeyRange::new(&delete.key, &delete.range_end);
        let mut deleted = Deleted { count: 0, prevs: Vec::new() };
        let mut cursor = None;
        loop {
            let show = meanwhile.is_some();
            let (slice, next) = self.delete_slice(&range, cursor.as_deref(), show);
            deleted.count += slice.len() as i64;
            self.note_slice(slice, prev_kv.then_some(&mut deleted.prevs))?;
            if next.is_none() {
                return Ok(deleted);
            }
            if let Some(meanwhile) = meanwhile.as_mut().filter(|_| deleted.count > 0) {
                meanwhile();
            }
            cursor = next;
        }
    }

    /// Deletes some keys, and says where to go on. With `show` the rest is dead to readers at the
    /// new revision, which becomes visible.
    ///
    /// Everything but the change itself is done while others may read the index, too: only this
    /// thread adds to it, and what a sweep may remove in between is not alive.
    fn delete_slice(
        &self,
        range: &KeyRange,
        from: Option<&[u8]>,
        show: bool,
    ) -> (Slice, Option<Cursor>) {
        let first = self.next_revision();
        let mut slice = Slice::new(first, from.is_some());
        // What is shown as deleted is found as it was before.
        let at = if show { self.begin } else { first.main };
        let mut budget = DELETE_SLICE;
        let next = self.shared.index().walk(range, from, at, &mut budget, |key, previous| {
            slice.add(key, *previous);
            ControlFlow::Continue(())
        });
        let show = show && (self.count > 0 || slice.len() > 0);
        if slice.len() > 0 || show {
            self.bury(range, from, next.as_deref(), &slice, show);
        }
        if show && next.is_some() {
            self.shared.show(first.main);
        }
        (slice, next)
    }

    /// Puts the tombstones of a slice into the index.
    fn bury(
        &self,
        range: &KeyRange,
        from: Option<&[u8]>,
        next: Option<&[u8]>,
        slice: &Slice,
        show: bool,
    ) {
        let first = self.next_revision();
        let part = range.part(from.unwrap_or(&range.start), next);
        let mut count = 0;
        let mut index = self.shared.index_mut();
        let rest = index.delete(&part, None, first, usize::MAX, |_, _, _| count += 1);
        if show {
            index.set_pending(range, next, first.main);
        }
        drop(index);
        assert_eq!((count, rest), (slice.len(), None), "what was alive is deleted");
    }

    /// Takes down what was deleted; `prevs` takes what was there, if it is asked for.
    fn note_slice(
        &mut self,
        slice: Slice,
        mut prevs: Option<&mut Vec<Bytes>>,
    ) -> Result<(), Fatal> {
        let mut records = Vec::with_capacity(slice.len());
        for (record, previous) in slice.records() {
            if let Some(prevs) = &mut prevs {
                prevs.push(self.shared.records.read(previous.revision())?);
            }
            self.move_lease(&record.key, previous.lease(), 0);
            self.note(&record, Some(previous));
            records.push(record);
        }
        self.shared.records.append(records);
        Ok(())
    }

    fn live(&self, key: &[u8]) -> Option<Version> {
        self.shared.index().live(key, self.revision()).copied()
    }

    fn next_revision(&self) -> Revision {
        Revision::new(self.begin + 1, self.count)
    }

    fn move_lease(&self, key: &Bytes, from: i64, to: i64) {
        if from == to {
            return;
        }
        let mut leases = self.shared.leases();
        if from != 0 {
            leases.detach(from, key);
        }
        if to != 0 {
            // A copy, so that the table does not hold on to the whole record.
            leases.attach(to, Bytes::copy_from_slice(key));
        }
    }

    fn note_growth(&mut self, record: &Record, previous: Option<Version>) {
        let length = record.bytes.len() as u64;
        self.growth.added += length;
        self.growth.superseded += previous.map_or(0, |version| u64::from(version.length()));
        if record.kind == record::RecordKind::Tombstone {
            self.growth.superseded += length;
        }
    }

    fn note(&mut self, record: &Record, previous: Option<Version>) {
        self.note_growth(record, previous);
        // As in etcd, an event's previous version is the one before the transaction.
        let before = record.revision.main - 1;
        let prev = match previous.map(|version| version.revision()) {
            Some(revision) if revision.main > before => {
                let index = self.shared.index();
                index.live(&record.key, before).map(|version| version.revision())
            }
            revision => revision,
        };
        assert_eq!(record.revision, self.next_revision(), "changes are numbered without a gap");
        if self.count < CHANGES_MAX {
            self.changes.push(Change {
                sub: record.revision.sub,
                key: record.key.clone(),
                kind: record.kind,
                prev,
            });
        } else {
            self.changes = Vec::new();
        }
        self.count += 1;
    }
}
