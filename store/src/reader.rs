//! Reading the store, from any thread, at published revisions; keys also at the revision of a long
//! delete that is being carried out.
//!
//! A read of one key holds the index lock for as long as it takes to find the key and its bytes in
//! memory. Everything larger registers its revision and looks at the index a few keys at a time;
//! values are read with no lock held.

pub(crate) mod registry;
mod stream;

use std::sync::Arc;

use bytes::Bytes;

use crate::auth::authorize::authorize;
use crate::auth::{Access, AuthRefusal, AuthRules, AuthTable};
use crate::cache::CacheFacts;
use crate::command::{Credentials, MemberAttributes, OperationKind, Range, Txn};
use crate::index::KeyRange;
use crate::lease::{LeaseEvent, LeaseInfo};
use crate::measure::Counts;
use crate::state::shared::Shared;
use crate::txn::Path;
use crate::view::{View, read_record};
use crate::{
    Alarm, AlarmKind, Fatal, Frozen, History, Position, Quota, RangeResult, RecordBytes, Rejected,
    Response, TxnPart, hash, range, txn,
};

pub use stream::RangeStream;

/// How often a read of the latest revision starts anew when a compaction or a checkpoint overtakes
/// it before it gives up.
const ATTEMPTS: usize = 3;

/// How much work a read may do where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Memory only, and little of it: see [`ReadError::WouldBlock`].
    Inline,
    /// Any amount, disk included.
    Blocking,
}

/// Why a read gave nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// It needs the disk, more than 64 KiB of records, more than 256 keys, or a sort by value.
    #[error("the read takes more than may be done inline")]
    WouldBlock,
    /// The store refuses it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// This member cannot go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// The hash of the history at one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC32-Castagnoli, as etcd computes it.
    pub hash: u32,
    /// The compacted revision it was computed under; -1 for none.
    pub compact_revision: i64,
    /// The revision it covers.
    pub hash_revision: i64,
    /// The published revision then.
    pub current_revision: i64,
}

/// How much the store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of block files and of what is not in one yet.
    pub total_bytes: u64,
    /// Bytes of the records that are part of the history, and of the leases: what is held against
    /// the quota. The same on every member.
    pub in_use_bytes: u64,
}

/// Reads at published revisions. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The published revision.
    pub fn revision(&self) -> i64 {
        self.shared.revision()
    }

    /// The revision at which the latest keys are read: the published one, or that of a long delete
    /// which is being carried out.
    pub fn visible(&self) -> i64 {
        self.shared.visible()
    }

    /// The compacted revision; -1 before any compaction.
    pub fn compacted(&self) -> i64 {
        self.shared.compacted()
    }

    /// The published log position.
    pub fn applied(&self) -> Position {
        self.shared.facts().position
    }

    /// One key at the visible revision, which comes with it for the response header.
    pub fn get(&self, key: &[u8], effort: Effort) -> Result<(i64, Option<RecordBytes>), ReadError> {
        let (revision, found) = {
            let index = self.shared.index();
            let revision = self.shared.visible();
            let Some(version) = index.live(key, revision) else { return Ok((revision, None)) };
            // Under the lock, since only then no sweep can take the record away.
            match read_record(&self.shared, version, Effort::Inline, None) {
                Err(ReadError::WouldBlock) => (revision, None),
                other => (revision, Some(other?)),
            }
        };
        if found.is_some() {
            return Ok((revision, found));
        }
        if effort == Effort::Inline {
            return Err(ReadError::WouldBlock);
        }
        let range = Range { key: Bytes::copy_from_slice(key), ..Range::default() };
        let (revision, result) = self.range(&range, effort)?;
        Ok((revision, result.records.into_iter().next()))
    }

    /// Reads a range; the revision is the visible one, for the response header.
    pub fn range(&self, range: &Range, effort: Effort) -> Result<(i64, RangeResult), ReadError> {
        self.attempt(range.revision <= 0, |reader| {
            let view = reader.view(range.revision, effort)?;
            Ok((view.current, range::execute(&view, range)?))
        })
    }

    /// Evaluates a transaction that only reads, at one visible revision; gives a
    /// [`Response::Txn`].
    pub fn txn(&self, txn: &Txn, effort: Effort) -> Result<(i64, Response), ReadError> {
        self.attempt(true, |reader| {
            let view = txn_view(&reader.shared, txn, effort)?;
            let path = txn::choose(&view, txn)?;
            txn::check(&view, txn, &path)?;
            Ok((view.current, read_branch(&view, txn, &path)?))
        })
    }

    /// A range too big for one answer in memory, at a registered revision. Looks at every key of
    /// the range before it returns.
    pub fn stream(&self, range: &Range) -> Result<RangeStream, ReadError> {
        self.attempt(range.revision <= 0, |reader| RangeStream::open(reader.shared.clone(), range))
    }

    /// The whole history as of `frozen`, a copy of the state that was taken a moment ago.
    pub fn history(&self, frozen: &Frozen) -> Result<History, ReadError> {
        History::open(self.shared.clone(), frozen)
    }

    /// The hash at a revision; 0 for the published one. Reads every record of the history.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, ReadError> {
        hash::hash_kv(&self.shared, revision)
    }

    /// The hash of everything that is replicated.
    pub fn hash_all(&self) -> Result<u32, ReadError> {
        hash::hash_all(&self.shared)
    }

    /// One lease.
    pub fn lease(&self, id: i64) -> Option<LeaseInfo> {
        self.shared.leases().info(id)
    }

    /// The keys attached to a lease, in order.
    pub fn lease_keys(&self, id: i64) -> Vec<Bytes> {
        self.shared.leases().keys(id, usize::MAX)
    }

    /// All leases, by id.
    pub fn leases(&self) -> Vec<LeaseInfo> {
        self.shared.leases().all().collect()
    }

    /// Begins (or ends) keeping lease events for [`Reader::take_lease_events`]. Read
    /// [`Reader::leases`] after beginning; what happens in between comes twice.
    pub fn subscribe_leases(&self, on: bool) {
        self.shared.leases().subscribe(on);
    }

    /// What happened to leases since the last call.
    pub fn take_lease_events(&self) -> Vec<LeaseEvent> {
        self.shared.leases().take_events()
    }

    /// What members have published of themselves.
    pub fn members(&self) -> Vec<MemberAttributes> {
        self.shared.members().values().cloned().collect()
    }

    /// The members that have been removed, none of which ever comes back.
    pub fn removed_members(&self) -> Vec<u64> {
        self.shared.removed().iter().copied().collect()
    }

    /// The alarms that are raised, by kind and member.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.shared.alarms().all().collect()
    }

    /// Whether an alarm of this kind is raised, for whichever member.
    pub fn is_raised(&self, kind: AlarmKind) -> bool {
        let raised = self.shared.alarms_raised();
        match kind {
            AlarmKind::None => false,
            AlarmKind::NoSpace => raised.no_space,
            AlarmKind::Corrupt => raised.corrupt,
        }
    }

    /// The byte quota in force.
    pub fn quota(&self) -> Quota {
        self.shared.quota()
    }

    /// The version that clients want to go down to; empty for none.
    pub fn downgrade_target(&self) -> String {
        self.shared.downgrade_target().clone()
    }

    /// Whether anybody must be asked who they are: one relaxed load.
    pub fn auth_enabled(&self) -> bool {
        self.shared.auth_enabled()
    }

    /// Rises with every change of who may do what.
    pub fn auth_revision(&self) -> u64 {
        self.shared.auth_revision()
    }

    /// Changes whenever who may do what does.
    pub fn auth_rules(&self) -> AuthRules {
        AuthRules { enabled: self.auth_enabled(), revision: self.auth_revision() }
    }

    /// Who may do what, as of the last command applied; not older than anything that can be read.
    pub fn auth(&self) -> Arc<AuthTable> {
        self.shared.auth()
    }

    /// Whether `who` may have `access`. Of a lease it looks at no more keys than the user has ranges.
    pub fn authorize(
        &self,
        who: Option<&Credentials>,
        access: &Access<'_>,
    ) -> Result<(), AuthRefusal> {
        authorize(&self.shared.auth(), &*self.shared, who, access)
    }

    /// Whose token has this digest and was made by the entry at `index`. Using a token gives it its
    /// whole lifetime again.
    pub fn token_user(&self, digest: &[u8], index: u64) -> Option<Arc<str>> {
        self.shared.tokens().user(digest, index)
    }

    /// How long a token lives that is not used.
    pub fn set_token_lifetime(&self, milliseconds: u64) {
        self.shared.tokens().set_lifetime(milliseconds);
    }

    /// The semantics level in force.
    pub fn level(&self) -> u32 {
        self.shared.facts().level
    }

    /// What was counted since the store was opened.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// How many keys are alive, about: writers go on between the steps of the count, none of which
    /// holds the index for long.
    pub fn keys(&self) -> i64 {
        const STEP_CHUNKS: usize = 1024;
        let (range, at) = (KeyRange::everything(), self.shared.visible());
        let (mut total, mut cursor) = (0, None);
        loop {
            let mut budget = STEP_CHUNKS;
            let index = self.shared.index();
            let (count, next) = index.count(&range, cursor.as_deref(), at, &mut budget);
            drop(index);
            total += count;
            match next {
                Some(_) => cursor = next,
                None => return total,
            }
        }
    }

    /// How the block cache fares.
    pub fn cache(&self) -> CacheFacts {
        self.shared.records.cache()
    }

    /// How much the store holds.
    pub fn sizes(&self) -> Sizes {
        let total_bytes = self.shared.records.total_bytes();
        Sizes { total_bytes, in_use_bytes: self.shared.in_use() }
    }

    /// Calls `then` when the compaction to `revision` has been carried out; at once if it has.
    pub fn when_compacted(&self, revision: i64, then: Box<dyn FnOnce() + Send>) {
        self.shared.when_swept(revision, then);
    }

    /// Tells the store what time it is, in any monotonic milliseconds, so that registrations of
    /// readers older than 60 s end, and tokens that were not used. To be called every second or so.
    pub fn tick(&self, now_milliseconds: u64) {
        self.shared.registry.tick(now_milliseconds);
        self.shared.tokens().tick(now_milliseconds);
    }

    /// A registered view. The refusal of a revision that cannot be read comes from reading it.
    fn view(&self, revision: i64, effort: Effort) -> Result<View<'_>, Rejected> {
        registered_view(&self.shared, revision, effort)
    }

    fn attempt<T>(
        &self,
        is_latest: bool,
        read: impl Fn(&Self) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        for _ in 1..ATTEMPTS {
            match read(self) {
                Err(ReadError::Rejected(Rejected::Compacted)) if is_latest => {}
                other => return other,
            }
        }
        read(self)
    }
}

/// A view that compaction leaves alone down to `revision`, or down to the present if that is not
/// above 0.
pub(crate) fn registered_view(
    shared: &Shared,
    revision: i64,
    effort: Effort,
) -> Result<View<'_>, Rejected> {
    let mut view = unregistered_view(shared, effort);
    let at = view.resolve(revision)?;
    view.registration = Some(shared.registry.register(at)?);
    Ok(view)
}

fn unregistered_view(shared: &Shared, effort: Effort) -> View<'_> {
    let (current, compacted) = shared.visible_bounds();
    View { shared, current, compacted, effort, registration: None }
}

/// A view that compaction leaves alone down to the oldest revision which a range of `txn` asks for
/// and which can be read. Which branch is taken is decided on it, so it covers both; a range that
/// cannot be read is refused if its branch is taken.
fn txn_view<'a>(shared: &'a Shared, txn: &Txn, effort: Effort) -> Result<View<'a>, Rejected> {
    let mut view = unregistered_view(shared, effort);
    let operations = txn.success.iter().chain(&txn.failure);
    let revisions = operations.filter_map(|operation| match &operation.kind {
        Some(OperationKind::Range(range)) => view.resolve(range.revision).ok(),
        _ => None,
    });
    let oldest = revisions.fold(view.current, i64::min);
    view.registration = Some(shared.registry.register(oldest)?);
    Ok(view)
}

fn read_branch(view: &View<'_>, txn: &Txn, path: &Path) -> Result<Response, ReadError> {
    let mut nested = path.nested.iter();
    let mut responses = Vec::new();
    for operation in txn::branch(txn, path) {
        let (revision, response) = match &operation.kind {
            Some(OperationKind::Range(range)) => {
                (view.current, Response::Range(range::execute(view, range)?))
            }
            Some(OperationKind::Txn(txn)) => {
                let path = nested.next().expect("a path for every nested transaction");
                (0, read_branch(view, txn, path)?)
            }
            _ => return Err(Fatal::new("a transaction that writes was given to a reader").into()),
        };
        responses.push(TxnPart { revision, response });
    }
    Ok(Response::Txn { succeeded: path.succeeded, responses })
}

#[cfg(test)]
mod tests;
