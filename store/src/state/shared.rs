//! What the state and its readers share.
//!
//! Locks, in the order in which they may nest: `index`, then one of the records' own, `facts` or
//! the readers' registry. `leases`, `members`, `removed`, `alarms`, `quota`, `downgrade_target` and
//! `waiting` nest with nothing. None is held during
//! IO, but that installing a checkpoint removes old manifests.
//!
//! Who may do what (`auth`) changes as it is applied, ahead of what is published: whoever has read
//! something and then finds the auth revision unchanged was judged by rules no older than what it
//! read. Judging holds no lock while it looks at the keys of leases. `tokens` nests with nothing.
//!
//! Publishing raises `visible` and `revision`, feeds the watch hub, and then raises `compacted`; a
//! reader loads them the other way round, so that the revision it sees is not below the compacted
//! one it sees. The exception is the moment at which a checkpoint replaces everything: see
//! [`Shared::bounds`].
//!
//! `visible` runs ahead of `revision` while a long delete is carried out: the index then answers
//! for the state after it, and nothing else does. So keys are read at `visible`; hashes, watches
//! and everything that looks at records by revision stay with `revision`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use crate::alarm::{AlarmKind, AlarmTable};
use crate::auth::authorize::LeasedKeys;
use crate::auth::tokens::TokenTable;
use crate::auth::{AuthRefusal, AuthTable, Effect};
use crate::command::{AuthChangeKind, MemberAttributes};
use crate::index::Index;
use crate::lease::LeaseTable;
use crate::measure::Counts;
use crate::reader::registry::Registry;
use crate::record::RecordHeader;
use crate::watch::EventSource;
use crate::{Fatal, Position, Quota, ReceivedCheckpoint, Records, Revision};

/// Published facts that are not revisions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    pub position: Position,
    pub level: u32,
}

/// Which kinds of alarm are raised, for whichever member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AlarmsRaised {
    pub no_space: bool,
    pub corrupt: bool,
}

/// Someone to tell when a compaction has been carried out.
type Waiting = Vec<(i64, Box<dyn FnOnce() + Send>)>;

/// The store's memory.
pub(crate) struct Shared {
    index: RwLock<Index>,
    pub(crate) records: Records,
    revision: AtomicI64,
    /// The revision at which keys can be read: revision <= visible.
    visible: AtomicI64,
    compacted: AtomicI64,
    facts: Mutex<Facts>,
    leases: Mutex<LeaseTable>,
    members: Mutex<BTreeMap<u64, MemberAttributes>>,
    removed: Mutex<BTreeSet<u64>>,
    alarms: Mutex<AlarmTable>,
    /// What `alarms` says, for those who ask often.
    no_space: AtomicBool,
    corrupt: AtomicBool,
    quota: Mutex<Quota>,
    downgrade_target: Mutex<String>,
    /// Bytes of the history and the leases, as of the published revision.
    in_use: AtomicU64,
    auth: RwLock<Arc<AuthTable>>,
    /// Of `auth`: asked by every request.
    auth_enabled: AtomicBool,
    auth_revision: AtomicU64,
    tokens: Mutex<TokenTable>,
    pub(crate) registry: Registry,
    epoch: AtomicU64,
    swept: AtomicI64,
    pub(crate) counts: Counts,
    waiting: Mutex<Waiting>,
}

impl Shared {
    pub(crate) fn new(index: Index, records: Records) -> Self {
        Self {
            index: RwLock::new(index),
            records,
            revision: AtomicI64::new(1),
            visible: AtomicI64::new(1),
            compacted: AtomicI64::new(-1),
            facts: Mutex::default(),
            leases: Mutex::default(),
            members: Mutex::default(),
            removed: Mutex::default(),
            alarms: Mutex::default(),
            no_space: AtomicBool::new(false),
            corrupt: AtomicBool::new(false),
            quota: Mutex::default(),
            downgrade_target: Mutex::default(),
            in_use: AtomicU64::new(0),
            auth: RwLock::default(),
            auth_enabled: AtomicBool::new(false),
            auth_revision: AtomicU64::new(AuthTable::default().revision()),
            tokens: Mutex::default(),
            registry: Registry::default(),
            epoch: AtomicU64::new(0),
            swept: AtomicI64::new(-1),
            counts: Counts::default(),
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

    pub(crate) fn removed(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.removed.lock().expect(NO_PANIC)
    }

    pub(crate) fn alarms(&self) -> MutexGuard<'_, AlarmTable> {
        self.alarms.lock().expect(NO_PANIC)
    }

    /// Changes the alarms, and what is said of them.
    pub(crate) fn change_alarms<T>(&self, change: impl FnOnce(&mut AlarmTable) -> T) -> T {
        let mut alarms = self.alarms();
        let changed = change(&mut alarms);
        self.no_space.store(alarms.is_raised(AlarmKind::NoSpace), Ordering::Release);
        self.corrupt.store(alarms.is_raised(AlarmKind::Corrupt), Ordering::Release);
        changed
    }

    pub(crate) fn replace_alarms(&self, alarms: AlarmTable) {
        self.change_alarms(|present| *present = alarms);
    }

    pub(crate) fn alarms_raised(&self) -> AlarmsRaised {
        AlarmsRaised {
            no_space: self.no_space.load(Ordering::Acquire),
            corrupt: self.corrupt.load(Ordering::Acquire),
        }
    }

    pub(crate) fn quota(&self) -> Quota {
        *self.quota.lock().expect(NO_PANIC)
    }

    pub(crate) fn set_quota(&self, quota: Quota) {
        *self.quota.lock().expect(NO_PANIC) = quota;
    }

    /// The version that clients want to go down to; empty for none.
    pub(crate) fn downgrade_target(&self) -> MutexGuard<'_, String> {
        self.downgrade_target.lock().expect(NO_PANIC)
    }

    pub(crate) fn in_use(&self) -> u64 {
        self.in_use.load(Ordering::Acquire)
    }

    pub(crate) fn set_in_use(&self, bytes: u64) {
        self.in_use.store(bytes, Ordering::Release);
    }

    /// Whether anybody must be asked who they are. Relaxed: what it orders against is ordered by the
    /// revisions that are read with it.
    pub(crate) fn auth_enabled(&self) -> bool {
        self.auth_enabled.load(Ordering::Relaxed)
    }

    pub(crate) fn auth_revision(&self) -> u64 {
        self.auth_revision.load(Ordering::Relaxed)
    }

    /// Who may do what, as of the last command applied.
    pub(crate) fn auth(&self) -> Arc<AuthTable> {
        self.auth.read().expect(NO_PANIC).clone()
    }

    pub(crate) fn tokens(&self) -> MutexGuard<'_, TokenTable> {
        self.tokens.lock().expect(NO_PANIC)
    }

    /// Carries out a change of who may do what, of the entry at `index`.
    pub(crate) fn change_auth(
        &self,
        change: &AuthChangeKind,
        index: u64,
    ) -> Result<(), AuthRefusal> {
        if let AuthChangeKind::AssignToken(assign) = change {
            // Clients authenticate all the time, and whoever reads the table makes a change copy it.
            self.auth().may_assign(assign)?;
            self.tokens().assign(assign, index);
            return Ok(());
        }
        let effect = {
            let mut auth = self.auth.write().expect(NO_PANIC);
            let effect = Arc::make_mut(&mut auth).change(change)?;
            self.show_auth(&auth);
            effect
        };
        match effect {
            Effect::None => {}
            Effect::EndAll => self.tokens().end_all(),
            Effect::End(user) => self.tokens().end_of(user),
        }
        Ok(())
    }

    /// Puts the facts of a checkpoint in the place of what is there. Which tokens ended by what was
    /// skipped is not known, so all do.
    pub(crate) fn replace_auth(&self, table: AuthTable) {
        {
            let mut auth = self.auth.write().expect(NO_PANIC);
            *auth = Arc::new(table);
            self.show_auth(&auth);
        }
        self.tokens().end_all();
    }

    fn show_auth(&self, table: &AuthTable) {
        self.auth_enabled.store(table.is_enabled(), Ordering::Relaxed);
        self.auth_revision.store(table.revision(), Ordering::Relaxed);
    }

    pub(crate) fn facts(&self) -> Facts {
        *self.facts.lock().expect(NO_PANIC)
    }

    /// The published revision.
    pub(crate) fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    /// The revision at which keys can be read.
    pub(crate) fn visible(&self) -> i64 {
        self.visible.load(Ordering::Acquire)
    }

    /// The published compacted revision.
    pub(crate) fn compacted(&self) -> i64 {
        self.compacted.load(Ordering::Acquire)
    }

    /// The published revision and the compacted one, which is not above it.
    pub(crate) fn bounds(&self) -> (i64, i64) {
        self.bounds_of(Self::revision)
    }

    /// As [`Shared::bounds`], with the revision at which keys can be read.
    pub(crate) fn visible_bounds(&self) -> (i64, i64) {
        self.bounds_of(Self::visible)
    }

    fn bounds_of(&self, newest: impl Fn(&Self) -> i64) -> (i64, i64) {
        loop {
            let compacted = self.compacted();
            let revision = newest(self);
            if compacted <= revision {
                return (revision, compacted);
            }
            // A checkpoint is being installed under the index lock: wait for it.
            drop(self.index());
        }
    }

    /// Lets keys be read at `revision`, for which the index answers from now on.
    pub(crate) fn show(&self, revision: i64) {
        let before = self.visible.swap(revision, Ordering::AcqRel);
        assert!(before <= revision, "visible was {before}, now {revision}");
    }

    /// Makes a revision visible, and everything before it.
    pub(crate) fn publish(&self, revision: i64, facts: Facts) {
        self.show(revision);
        let before = self.revision.swap(revision, Ordering::AcqRel);
        assert!(before <= revision, "published {before}, now {revision}");
        *self.facts.lock().expect(NO_PANIC) = facts;
    }

    /// Lets go of what lies before `compacted`, which is published.
    pub(crate) fn publish_compacted(&self, compacted: i64) {
        assert!(compacted <= self.revision(), "a compaction lies in the past");
        self.raise_compacted(compacted);
    }

    fn raise_compacted(&self, compacted: i64) {
        let before = self.compacted.swap(compacted, Ordering::AcqRel);
        assert!(before <= compacted, "compacted {before}, now {compacted}");
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
        assert_eq!(self.visible(), self.revision(), "no delete is under way");
        self.registry.end_below(i64::MAX);
        self.registry.sweep_target(compacted);
        self.epoch.fetch_add(1, Ordering::AcqRel);
        // First, since it explains to readers without the lock why records are gone.
        self.raise_compacted(compacted);
        self.records.install(checkpoint)?;
        let old = std::mem::replace(&mut *current, index);
        self.publish(revision, facts);
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

impl LeasedKeys for Shared {
    fn next_key(&self, lease: i64, from: &[u8]) -> Option<Bytes> {
        Shared::leases(self).next_key(lease, from)
    }

    fn leases(&self) -> Vec<i64> {
        Shared::leases(self).all().map(|lease| lease.id).collect()
    }
}

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
        self.index().live(key, before.main - 1).map(|version| version.revision())
    }

    fn compacted(&self) -> i64 {
        Shared::compacted(self)
    }

    fn published(&self) -> i64 {
        self.revision()
    }
}
