//! What the state and its readers share.
//!
//! Locks, in the order in which they may nest: `index`, then one of the records' own, `facts` or
//! the readers' registry. `leases`, `members` and `waiting` nest with nothing. None is held during
//! IO, but that installing a checkpoint removes old manifests.
//!
//! Publishing stores `revision` before `compacted`; a reader loads them the other way round, so
//! that the revision it sees is never below the compacted one it sees.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use crate::command::MemberAttributes;
use crate::index::Index;
use crate::lease::LeaseTable;
use crate::reader::registry::Registry;
use crate::record::RecordHeader;
use crate::watch::EventSource;
use crate::{Fatal, Position, ReceivedCheckpoint, Records, Revision};

/// Published facts that are not revisions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    pub position: Position,
    pub level: u32,
}

/// Someone to tell when a compaction has been carried out.
type Waiting = Vec<(i64, Box<dyn FnOnce() + Send>)>;

/// The store's memory.
pub(crate) struct Shared {
    index: RwLock<Index>,
    pub(crate) records: Records,
    revision: AtomicI64,
    compacted: AtomicI64,
    facts: Mutex<Facts>,
    leases: Mutex<LeaseTable>,
    members: Mutex<BTreeMap<u64, MemberAttributes>>,
    pub(crate) registry: Registry,
    epoch: AtomicU64,
    swept: AtomicI64,
    waiting: Mutex<Waiting>,
}

impl Shared {
    pub(crate) fn new(index: Index, records: Records) -> Self {
        Self {
            index: RwLock::new(index),
            records,
            revision: AtomicI64::new(1),
            compacted: AtomicI64::new(-1),
            facts: Mutex::default(),
            leases: Mutex::default(),
            members: Mutex::default(),
            registry: Registry::default(),
            epoch: AtomicU64::new(0),
            swept: AtomicI64::new(-1),
            waiting: Mutex::default(),
        }
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().expect(NO_PANIC)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().expect(NO_PANIC)
    }

    pub(crate) fn leases(&self) -> MutexGuard<'_, LeaseTable> {
        self.leases.lock().expect(NO_PANIC)
    }

    pub(crate) fn members(&self) -> MutexGuard<'_, BTreeMap<u64, MemberAttributes>> {
        self.members.lock().expect(NO_PANIC)
    }

    pub(crate) fn facts(&self) -> Facts {
        *self.facts.lock().expect(NO_PANIC)
    }

    /// The published revision.
    pub(crate) fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    /// The published compacted revision.
    pub(crate) fn compacted(&self) -> i64 {
        self.compacted.load(Ordering::Acquire)
    }

    /// Makes a state visible.
    pub(crate) fn publish(&self, revision: i64, compacted: i64, facts: Facts) {
        assert!(compacted <= revision, "compacted {compacted} <= revision {revision}");
        let before = self.revision.swap(revision, Ordering::AcqRel);
        assert!(before <= revision, "published {before}, now {revision}");
        self.compacted.store(compacted, Ordering::Release);
        *self.facts.lock().expect(NO_PANIC) = facts;
    }

    /// Rises when a checkpoint replaces everything: a sweep that began before is void.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Puts a checkpoint's contents in the place of what is there, and makes them visible, as one
    /// step for everyone who reads under the index lock. Registered readers are ended first; who
    /// registers from now on is refused what the new contents no longer hold.
    pub(crate) fn replace(
        &self,
        index: Index,
        checkpoint: ReceivedCheckpoint,
        revision: i64,
        compacted: i64,
        facts: Facts,
    ) -> Result<(), Fatal> {
        let mut current = self.index_mut();
        self.registry.end_below(i64::MAX);
        self.registry.sweep_target(compacted);
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.records.install(checkpoint)?;
        let old = std::mem::replace(&mut *current, index);
        self.publish(revision, compacted, facts);
        drop(current);
        drop(old);
        Ok(())
    }

    /// The compaction to `compacted` has been carried out.
    pub(crate) fn note_swept(&self, compacted: i64) {
        self.swept.fetch_max(compacted, Ordering::AcqRel);
        let ready = {
            let mut waiting = self.waiting.lock().expect(NO_PANIC);
            waiting.extract_if(.., |(revision, _)| *revision <= compacted).collect::<Vec<_>>()
        };
        ready.into_iter().for_each(|(_, then)| then());
    }

    pub(crate) fn when_swept(&self, revision: i64, then: Box<dyn FnOnce() + Send>) {
        {
            let mut waiting = self.waiting.lock().expect(NO_PANIC);
            if self.swept.load(Ordering::Acquire) < revision {
                waiting.push((revision, then));
                return;
            }
        }
        then();
    }
}

const NO_PANIC: &str = "a panic under a store lock ends the process";

impl EventSource for Shared {
    fn record(&self, revision: Revision) -> Result<Bytes, Fatal> {
        self.records.read(revision)
    }

    fn try_record(&self, revision: Revision) -> Result<Option<Bytes>, Fatal> {
        self.records.try_read(revision)
    }

    fn headers(&self, from: Revision, max: usize) -> Result<Vec<RecordHeader>, Fatal> {
        self.records.headers(from, max)
    }

    fn previous(&self, key: &[u8], before: Revision) -> Option<Revision> {
        self.index().previous(key, before).map(|version| version.revision())
    }

    fn compacted(&self) -> i64 {
        Shared::compacted(self)
    }

    fn published(&self) -> i64 {
        self.revision()
    }
}
