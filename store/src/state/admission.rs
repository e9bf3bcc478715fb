//! What alarms and the quota let through. Decided as a command is applied, by every member alike.
//!
//! What needs room (a put, a transaction with a put in either branch, a grant) is refused while
//! NOSPACE is raised; and when it would fill the quota, which raises NOSPACE. Deletes, compaction
//! and revokes make room, and are let through. CORRUPT refuses everything that changes keys or
//! leases.

use crate::alarm::{AlarmCause, AlarmKind};
use crate::command::{
    Change, ClearAlarm, Operation, OperationKind, Put, RaiseAlarm, SetDowngrade, SetQuota, Txn,
};
use crate::{Rejected, Response};

use super::State;
use super::usage::LEASE_BYTES;

/// What a put costs beside its key and value when it is held against the quota, as in etcd.
const PUT_OVERHEAD: u64 = 256;

/// What must be free before a full store has room again, unless the quota is tiny.
const REQUEST_ROOM_BYTES: u64 = 2 << 20;

/// The byte quota in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Whose setting it is: the member that led when it was set. An excess is its alarm.
    pub member: u64,
    /// Bytes; 0 for no limit.
    pub bytes: u64,
}

impl Quota {
    /// Whether so little is used that a full store counts as one that has room again.
    ///
    /// A twentieth must be free, and whatever a request of the usual limit costs: the next one would
    /// fill the quota again otherwise, and the alarm come and go.
    fn has_room(&self, used: u64) -> bool {
        let margin = (self.bytes / 20).max(REQUEST_ROOM_BYTES.min(self.bytes / 2));
        self.bytes == 0 || used < self.bytes - margin
    }
}

impl State {
    pub(super) fn admit(&mut self, change: &Change) -> Result<(), Rejected> {
        let raised = self.shared.alarms_raised();
        if raised.corrupt && changes_data(change) {
            return Err(Rejected::Corrupt);
        }
        let cost = cost(change);
        if cost == 0 {
            return Ok(());
        }
        if raised.no_space {
            return Err(Rejected::NoSpace);
        }
        let quota = self.quota;
        if quota.bytes > 0 && self.usage.bytes().saturating_add(cost) >= quota.bytes {
            self.shared.change_alarms(|alarms| {
                alarms.raise(AlarmKind::NoSpace, quota.member, AlarmCause::Quota)
            });
            return Err(Rejected::NoSpace);
        }
        Ok(())
    }

    pub(super) fn raise_alarm(&self, raise: &RaiseAlarm) -> Response {
        let Some((kind, cause)) = known(raise.kind, raise.cause) else {
            return Response::Alarm { changed: false };
        };
        let changed = self.shared.change_alarms(|alarms| alarms.raise(kind, raise.member, cause));
        Response::Alarm { changed }
    }

    pub(super) fn clear_alarm(&self, clear: &ClearAlarm) -> Response {
        let Some((kind, cause)) = known(clear.kind, clear.cause) else {
            return Response::Alarm { changed: false };
        };
        // The proposer looked at an earlier state.
        let is_full = cause == AlarmCause::Quota && !self.quota.has_room(self.usage.bytes());
        let changed =
            !is_full && self.shared.change_alarms(|alarms| alarms.clear(kind, clear.member, cause));
        Response::Alarm { changed }
    }

    pub(super) fn set_downgrade(&self, set: &SetDowngrade) -> Result<Response, Rejected> {
        let mut target = self.shared.downgrade_target();
        if !set.target.is_empty() && !target.is_empty() {
            return Err(Rejected::DowngradeInProcess);
        }
        target.clone_from(&set.target);
        Ok(Response::Done)
    }

    pub(super) fn set_quota(&mut self, set: &SetQuota) -> Response {
        self.quota = Quota { member: set.member, bytes: set.bytes };
        self.shared.set_quota(self.quota);
        Response::Done
    }
}

/// A kind and a cause by their numbers. One that is not known changes nothing: read as the default,
/// an unknown cause would be a client's word, which clears everything. A new number needs a new level.
fn known(kind: i32, cause: i32) -> Option<(AlarmKind, AlarmCause)> {
    Some((AlarmKind::try_from(kind).ok()?, AlarmCause::try_from(cause).ok()?))
}

/// Whether keys or leases would be changed.
fn changes_data(change: &Change) -> bool {
    matches!(
        change,
        Change::Put(_)
            | Change::DeleteRange(_)
            | Change::Txn(_)
            | Change::Compact(_)
            | Change::LeaseGrant(_)
            | Change::LeaseRevoke(_)
    )
}

impl Change {
    /// Whether it adds to what is stored, and so is refused where there is no room.
    pub fn needs_room(&self) -> bool {
        cost(self) > 0
    }
}

/// What a change is held against the quota with; 0 if it needs no room.
fn cost(change: &Change) -> u64 {
    match change {
        Change::Put(put) => put_cost(put),
        Change::Txn(txn) => txn_cost(txn),
        Change::LeaseGrant(_) => LEASE_BYTES,
        _ => 0,
    }
}

fn put_cost(put: &Put) -> u64 {
    PUT_OVERHEAD + put.key.len() as u64 + put.value.len() as u64
}

/// Of the dearer branch: which one runs is not asked.
fn txn_cost(txn: &Txn) -> u64 {
    let branch = |operations: &[Operation]| -> u64 {
        operations.iter().filter_map(|operation| operation.kind.as_ref()).map(operation_cost).sum()
    };
    branch(&txn.success).max(branch(&txn.failure))
}

fn operation_cost(operation: &OperationKind) -> u64 {
    match operation {
        OperationKind::Put(put) => put_cost(put),
        OperationKind::Txn(txn) => txn_cost(txn),
        OperationKind::Range(_) | OperationKind::DeleteRange(_) => 0,
    }
}

impl crate::Reader {
    /// Whether the store holds so much less than its quota that what was refused for the quota's
    /// sake can go on.
    pub fn has_room(&self) -> bool {
        self.quota().has_room(self.sizes().in_use_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_needs_room_in_either_branch_and_below() {
        let operation = |kind| Operation { kind: Some(kind) };
        let put = operation(OperationKind::Put(Default::default()));
        let get = operation(OperationKind::Range(Default::default()));
        let within = Txn { failure: vec![put], ..Txn::default() };
        let nested = operation(OperationKind::Txn(within.clone()));
        assert!(Change::Txn(within).needs_room());
        let below = Txn { success: vec![get.clone(), nested], ..Txn::default() };
        assert!(Change::Txn(below).needs_room());
        assert!(!Change::Txn(Txn { success: vec![get], ..Txn::default() }).needs_room());
        assert!(!Change::Compact(Default::default()).needs_room());
    }
}
