//! What the naive history refuses: alarms, and a quota on what it counts anew each time.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holdfast_store::command::*;
use holdfast_store::record::encode_tombstone;
use holdfast_store::{AlarmCause, AlarmKind, Rejected, Response, Revision};

use super::Naive;

#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    /// Kind, member, cause.
    alarms: BTreeSet<(i32, u64, i32)>,
    quota: SetQuota,
}

impl Naive {
    /// Bytes of everything that can still be read, and of the leases.
    pub fn in_use(&self) -> u64 {
        let mut next: BTreeMap<&Bytes, Revision> = BTreeMap::new();
        let mut bytes = 64 * self.leases.len();
        for (revision, key, kv) in self.changes.iter().rev() {
            let superseded = next.insert(key, *revision).map(|next| next.main);
            let (length, end) = match kv {
                Some(kv) => (kv.encode().len(), superseded),
                None => (encode_tombstone(key, revision.main).len(), Some(revision.main)),
            };
            if end.is_none_or(|end| end > self.compacted) {
                bytes += length;
            }
        }
        bytes as u64
    }

    /// Members and kinds of alarms, by kind.
    pub fn alarms(&self) -> Vec<(i32, u64)> {
        let alarms = self.limits.alarms.iter().map(|(kind, member, _)| (*kind, *member));
        alarms.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn is_raised(&self, kind: AlarmKind) -> bool {
        self.limits.alarms.iter().any(|alarm| alarm.0 == kind as i32)
    }

    pub(super) fn admit(&mut self, change: &Change) -> Result<(), Rejected> {
        let reads_only = matches!(
            change,
            Change::LeaseCheckpoint(_)
                | Change::SetQuota(_)
                | Change::RaiseAlarm(_)
                | Change::ClearAlarm(_)
        );
        if self.is_raised(AlarmKind::Corrupt) && !reads_only {
            return Err(Rejected::Corrupt);
        }
        let cost = match change {
            Change::Put(put) => 256 + put.key.len() + put.value.len(),
            Change::Txn(txn) => txn_cost(txn),
            Change::LeaseGrant(_) => 64,
            _ => 0,
        };
        if cost == 0 {
            return Ok(());
        }
        let quota = self.limits.quota;
        if self.is_raised(AlarmKind::NoSpace) {
            return Err(Rejected::NoSpace);
        }
        if quota.bytes != 0 && self.in_use() + cost as u64 >= quota.bytes {
            let alarm = (AlarmKind::NoSpace as i32, quota.member, AlarmCause::Quota as i32);
            self.limits.alarms.insert(alarm);
            return Err(Rejected::NoSpace);
        }
        Ok(())
    }

    pub(super) fn change_limits(&mut self, change: &Change) -> Response {
        match change {
            Change::SetQuota(set) => {
                self.limits.quota = *set;
                Response::Done
            }
            Change::RaiseAlarm(raise) => {
                let changed = raise.kind != 0;
                if changed {
                    self.limits.alarms.insert((raise.kind, raise.member, raise.cause));
                }
                Response::Alarm { changed }
            }
            Change::ClearAlarm(clear) => {
                let quota = self.limits.quota.bytes;
                let margin = (quota / 20).max((quota / 2).min(2 << 20));
                let full = quota != 0 && self.in_use() >= quota - margin;
                let before = self.limits.alarms.len();
                if clear.cause != AlarmCause::Quota as i32 || !full {
                    self.limits.alarms.retain(|(kind, member, cause)| {
                        (*kind, *member) != (clear.kind, clear.member)
                            || (clear.cause != 0 && *cause != clear.cause)
                    });
                }
                Response::Alarm { changed: self.limits.alarms.len() < before }
            }
            other => panic!("the model does not know {other:?}"),
        }
    }
}

fn txn_cost(txn: &Txn) -> usize {
    let operation = |operation: &Operation| match operation.kind.as_ref().unwrap() {
        OperationKind::Put(put) => 256 + put.key.len() + put.value.len(),
        OperationKind::Txn(txn) => txn_cost(txn),
        _ => 0,
    };
    let branch = |branch: &[Operation]| branch.iter().map(operation).sum::<usize>();
    branch(&txn.success).max(branch(&txn.failure))
}
