//! The replicated state: the only writer of the store.
//!
//! [`State::apply`] is a function of the state and the command: no clock, no randomness, no IO
//! error turned into an answer. What it changes is in memory at once and visible to readers only
//! after [`State::publish`]; what reaches the disk, and when, is the maintainer's business.

mod admission;
mod restore;
pub(crate) mod shared;
mod sweeper;
pub(crate) mod tables;
mod usage;
mod write;

use std::sync::Arc;

use bytes::Bytes;

use crate::auth::AuthRefusal;
use crate::auth::authorize::{access_of, authorize};
use crate::command::{
    AuthChange, Change, Command, Compact, DeleteRange, LEVEL_CURRENT, LeaseCheckpoint, LeaseGrant,
    LeaseRevoke, MemberAttributes, OperationKind, Put, RaiseLevel, Txn,
};
use crate::range::no_refusal;
use crate::txn::Path;
use crate::view::View;
use crate::watch::{RevisionEvents, WatchHub};
use crate::{
    Effort, Fatal, Frozen, LeaseInfo, Outcome, Position, RangeResult, ReadError, Rejected,
    Response, TxnPart, range, txn,
};

use shared::{Facts, Shared};
use usage::Usage;
use write::Write;

pub use admission::Quota;
pub(crate) use restore::{Restored, Restorer};

/// How many keys of a lease are looked at under one hold of the lease table's lock.
const LEASE_SLICE: usize = 1024;

/// What to call while a long delete goes on and its result can be read.
type Meanwhile<'a> = &'a mut dyn FnMut();

/// What an entry says of the commands in it.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Where the entry stands in the log.
    pub position: Position,
    /// The semantics level the entry was stamped with.
    pub level: u32,
    /// Whether somebody here waits for the answer; otherwise reads and previous versions are not
    /// built.
    pub respond: bool,
}

/// The replicated state; owned by the apply thread.
pub struct State {
    shared: Arc<Shared>,
    hub: WatchHub,
    /// Of everything applied; the published one may be behind.
    revision: i64,
    /// -1 <= compacted <= revision.
    compacted: i64,
    level: u32,
    quota: Quota,
    usage: Usage,
    position: Position,
    membership: (Position, Bytes),
    /// What has been applied and not published.
    events: Vec<RevisionEvents>,
}

/// How a command ends short of its answer.
enum Stop {
    Rejected(Rejected),
    Fatal(Fatal),
}

impl From<Rejected> for Stop {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

impl From<Fatal> for Stop {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Fatal(no_refusal(error))
    }
}

impl State {
    /// The position of the last finished entry.
    pub fn applied(&self) -> Position {
        self.position
    }

    /// What [`State::apply_membership`] was given last, and when.
    pub fn membership(&self) -> (Position, Bytes) {
        self.membership.clone()
    }

    /// The semantics level in force.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// Applies one command; several may share one entry. An error means that this member cannot
    /// go on; a refusal that every member reaches alike is part of the outcome.
    pub fn apply(&mut self, context: &Context, command: &Command) -> Result<Outcome, Fatal> {
        self.run(context, command, None)
    }

    /// As [`State::apply`], for the last command of an entry. While it deletes many keys,
    /// [`Reader::visible`](crate::Reader::visible) is already the revision after it, and
    /// `meanwhile` is called, again and again, for the first time when that has come about.
    pub fn apply_last(
        &mut self,
        context: &Context,
        command: &Command,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Outcome, Fatal> {
        self.run(context, command, Some(meanwhile))
    }

    fn run(
        &mut self,
        context: &Context,
        command: &Command,
        meanwhile: Option<Meanwhile<'_>>,
    ) -> Result<Outcome, Fatal> {
        if context.level > LEVEL_CURRENT {
            return Err(Fatal::new(format_args!(
                "an entry is of semantics level {}, and this version knows only {LEVEL_CURRENT}",
                context.level
            )));
        }
        assert!(context.position.index > self.position.index, "entries are applied once, in order");
        // Who may not write learns nothing of the room there is, and raises no alarm.
        let admitted = self.authorize(command).map_err(Rejected::Auth).and_then(|()| {
            command.change.as_ref().map(|change| self.admit(change).map(|()| change)).transpose()
        });
        let result = match admitted {
            Ok(Some(Change::DeleteRange(delete))) => self.delete_range(context, delete, meanwhile),
            Ok(Some(change)) => self.apply_change(context, change),
            Ok(None) => Ok(Response::Done),
            Err(rejected) => Err(rejected.into()),
        };
        let result = match result {
            Ok(response) => Ok(response),
            Err(Stop::Rejected(rejected)) => Err(rejected),
            Err(Stop::Fatal(fatal)) => return Err(fatal),
        };
        Ok(Outcome { revision: self.revision, result })
    }

    /// Notes the membership in force from `position` on; its bytes mean nothing here. Members that
    /// are `removed` by it stay so for ever, and what they have published is forgotten.
    pub fn apply_membership(&mut self, position: Position, membership: Bytes, removed: &[u64]) {
        self.membership = (position, membership);
        for member in removed {
            self.shared.removed().insert(*member);
            self.shared.members().remove(member);
        }
    }

    /// The entry at `position` is applied whole; also to be called for entries without commands.
    pub fn finish_entry(&mut self, position: Position) {
        // The log may begin at index 0, which is also where an empty state stands.
        let is_first = self.position == Position::default() && position.index == 0;
        let follows = is_first || position.index == self.position.index + 1;
        assert!(follows, "{position:?} follows {:?}", self.position);
        self.position = position;
        self.shared.records.end_entry(position);
    }

    /// Makes everything applied so far visible to readers and gives it to the watch hub. To be
    /// called after finished entries, and before anyone is told of their outcome.
    pub fn publish(&mut self) -> Result<(), Fatal> {
        let facts = Facts { position: self.position, level: self.level };
        self.shared.publish(self.revision, facts);
        self.shared.set_in_use(self.usage.bytes());
        if !self.events.is_empty() {
            self.hub.publish(std::mem::take(&mut self.events))?;
        }
        // Last, so that no sweep takes away what the hub has yet to encode.
        self.shared.publish_compacted(self.compacted);
        Ok(())
    }

    /// Reads ahead, off the apply thread's path, what applying `command` will have to read. Any
    /// error is left for apply to find again.
    pub fn prefetch(&self, command: &Command) {
        let view = self.view();
        if let Some(Change::Txn(txn)) = &command.change {
            let _ = txn::choose(&view, txn);
        }
    }

    /// A copy of the small tables as of the last finished entry.
    pub fn freeze(&self) -> Frozen {
        let (membership_position, membership) = self.membership.clone();
        Frozen {
            position: self.position,
            membership_position,
            membership,
            revision: self.revision,
            compacted: self.compacted,
            tables: self.tables(),
        }
    }

    /// Whether the user in whose name the command comes may do this, as things stand here.
    fn authorize(&self, command: &Command) -> Result<(), AuthRefusal> {
        if !self.shared.auth_enabled() {
            return Ok(());
        }
        let Some(access) = access_of(command) else { return Ok(()) };
        authorize(&self.shared.auth(), &*self.shared, command.credentials.as_ref(), &access)
    }

    fn view(&self) -> View<'_> {
        View {
            shared: &self.shared,
            current: self.revision,
            compacted: self.compacted,
            effort: Effort::Blocking,
            registration: None,
        }
    }

    fn apply_change(&mut self, context: &Context, change: &Change) -> Result<Response, Stop> {
        match change {
            Change::Put(put) => self.put(context, put),
            Change::DeleteRange(delete) => self.delete_range(context, delete, None),
            Change::Txn(txn) => self.txn(context, txn),
            Change::Compact(compact) => Ok(self.compact(compact)?),
            Change::LeaseGrant(grant) => Ok(self.lease_grant(grant)?),
            Change::LeaseRevoke(revoke) => self.lease_revoke(context, revoke),
            Change::LeaseCheckpoint(checkpoint) => Ok(self.lease_checkpoint(context, checkpoint)),
            Change::MemberAttributes(attributes) => Ok(self.member_attributes(attributes)),
            Change::RaiseLevel(raise) => Ok(self.raise_level(raise)?),
            Change::RaiseAlarm(raise) => Ok(self.raise_alarm(raise)),
            Change::ClearAlarm(clear) => Ok(self.clear_alarm(clear)),
            Change::SetQuota(set) => Ok(self.set_quota(set)),
            Change::SetDowngrade(set) => Ok(self.set_downgrade(set)?),
            Change::Auth(change) => Ok(self.change_auth(context, change)?),
        }
    }

    fn put(&mut self, context: &Context, put: &Put) -> Result<Response, Stop> {
        txn::check_put(&self.view(), put)?;
        self.write(|write| execute_put(write, context, put))
    }

    fn delete_range(
        &mut self,
        context: &Context,
        delete: &DeleteRange,
        meanwhile: Option<Meanwhile<'_>>,
    ) -> Result<Response, Stop> {
        self.write(|write| execute_delete(write, context, delete, meanwhile))
    }

    fn txn(&mut self, context: &Context, txn: &Txn) -> Result<Response, Stop> {
        let view = self.view();
        let path = txn::choose(&view, txn)?;
        txn::check(&view, txn, &path)?;
        if txn::branch(txn, &path).len() > 1 {
            self.shared.counts.txns.add_alone(1);
        }
        self.write(|write| execute_txn(write, context, txn, &path))
    }

    /// Runs one transaction's writes and takes their revision over.
    fn write(
        &mut self,
        run: impl FnOnce(&mut Write<'_>) -> Result<Response, Fatal>,
    ) -> Result<Response, Stop> {
        let mut write = Write::new(&self.shared, self.revision, self.compacted);
        let response = run(&mut write)?;
        let growth = write.growth();
        if let Some(events) = write.finish() {
            assert_eq!(events.revision, self.revision + 1, "revisions follow each other");
            self.revision = events.revision;
            self.usage.grow(self.revision, growth);
            self.events.push(events);
        }
        Ok(response)
    }

    fn compact(&mut self, compact: &Compact) -> Result<Response, Rejected> {
        if compact.revision <= self.compacted {
            return Err(Rejected::Compacted);
        }
        if compact.revision > self.revision {
            return Err(Rejected::FutureRevision);
        }
        self.compacted = compact.revision;
        self.usage.compact(self.compacted);
        Ok(Response::Done)
    }

    fn lease_grant(&mut self, grant: &LeaseGrant) -> Result<Response, Rejected> {
        let LeaseGrant { id, ttl } = *grant;
        if !self.shared.leases().grant(LeaseInfo { id, ttl, remaining_ttl: 0 }) {
            return Err(Rejected::LeaseExists);
        }
        self.usage.grant();
        self.shared.counts.leases_granted.add_alone(1);
        Ok(Response::LeaseGrant { id, ttl })
    }

    fn lease_revoke(&mut self, context: &Context, revoke: &LeaseRevoke) -> Result<Response, Stop> {
        let term = revoke.decided_in_term;
        if term != 0 && term != context.position.term {
            return Err(Rejected::ExpiryOutdated.into());
        }
        if !self.shared.leases().contains(revoke.id) {
            return Err(Rejected::LeaseNotFound.into());
        }
        let shared = self.shared.clone();
        self.write(|write| {
            loop {
                // Each key leaves the lease as it is deleted.
                let keys = shared.leases().keys(revoke.id, LEASE_SLICE);
                if keys.is_empty() {
                    return Ok(Response::Done);
                }
                for key in keys {
                    let delete = DeleteRange { key, range_end: Bytes::new(), prev_kv: false };
                    let deleted = write.delete(&delete, false, None)?;
                    assert_eq!(deleted.count, 1, "a lease's keys are alive");
                }
            }
        })?;
        self.shared.leases().revoke(revoke.id);
        self.usage.revoke();
        self.shared.counts.leases_revoked.add_alone(1);
        self.shared.counts.leases_expired.add_alone(u64::from(term != 0));
        Ok(Response::Done)
    }

    fn lease_checkpoint(&mut self, context: &Context, checkpoint: &LeaseCheckpoint) -> Response {
        let term = checkpoint.decided_in_term;
        if term != 0 && term != context.position.term {
            return Response::Done;
        }
        let mut leases = self.shared.leases();
        for remainder in &checkpoint.remainders {
            leases.checkpoint(remainder.id, remainder.remaining_ttl);
        }
        Response::Done
    }

    fn member_attributes(&mut self, attributes: &MemberAttributes) -> Response {
        // What a member says may arrive after its removal.
        let is_removed = self.shared.removed().contains(&attributes.member);
        if !is_removed {
            self.shared.members().insert(attributes.member, attributes.clone());
        }
        Response::Done
    }

    /// In force at once, ahead of what is published: see [`Shared`].
    fn change_auth(&self, context: &Context, change: &AuthChange) -> Result<Response, Rejected> {
        if let Some(change) = &change.kind {
            self.shared.change_auth(change, context.position.index).map_err(Rejected::Auth)?;
        }
        Ok(Response::Done)
    }

    fn raise_level(&mut self, raise: &RaiseLevel) -> Result<Response, Fatal> {
        if raise.level > LEVEL_CURRENT {
            return Err(Fatal::new(format_args!(
                "the cluster is at semantics level {}, and this version knows only {LEVEL_CURRENT}",
                raise.level
            )));
        }
        self.level = self.level.max(raise.level);
        Ok(Response::Done)
    }
}

fn execute_put(write: &mut Write<'_>, context: &Context, put: &Put) -> Result<Response, Fatal> {
    let previous = write.put(put)?;
    let prev = match previous {
        Some(version) if put.prev_kv && context.respond => {
            Some(write.view().record(&version).map_err(no_refusal)?)
        }
        _ => None,
    };
    Ok(Response::Put { prev })
}

fn execute_delete(
    write: &mut Write<'_>,
    context: &Context,
    delete: &DeleteRange,
    meanwhile: Option<Meanwhile<'_>>,
) -> Result<Response, Fatal> {
    let deleted = write.delete(delete, delete.prev_kv && context.respond, meanwhile)?;
    Ok(Response::DeleteRange { deleted: deleted.count, prevs: deleted.prevs })
}

/// Runs the branches of `path`. Nothing here can be refused any more.
fn execute_txn(
    write: &mut Write<'_>,
    context: &Context,
    txn: &Txn,
    path: &Path,
) -> Result<Response, Fatal> {
    let mut nested = path.nested.iter();
    let mut responses = Vec::new();
    for operation in txn::branch(txn, path) {
        let response = match &operation.kind {
            Some(OperationKind::Put(put)) => execute_put(write, context, put)?,
            Some(OperationKind::DeleteRange(delete)) => {
                execute_delete(write, context, delete, None)?
            }
            Some(OperationKind::Txn(txn)) => {
                let path = nested.next().expect("a path for every nested transaction");
                execute_txn(write, context, txn, path)?
            }
            Some(OperationKind::Range(range)) if context.respond => {
                write.count_range();
                Response::Range(range::execute(&write.view(), range).map_err(no_refusal)?)
            }
            Some(OperationKind::Range(_)) => Response::Range(RangeResult::default()),
            None => Response::Done,
        };
        // As in etcd, the header of a nested transaction stays empty.
        let is_txn = matches!(response, Response::Txn { .. });
        let revision = if is_txn { 0 } else { write.revision() };
        responses.push(TxnPart { revision, response });
    }
    Ok(Response::Txn { succeeded: path.succeeded, responses })
}
