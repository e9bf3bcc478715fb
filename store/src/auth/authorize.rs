//! The one place that says whether somebody may do something.
//!
//! Writes are judged where they are applied, by the facts that hold there; reads where they are
//! served. The rules are etcd's: the rights of a user are those of all its roles together, a user
//! with the role root has all of them, and what cannot be judged is refused.

use std::cell::RefCell;
use std::collections::BTreeSet;

use bytes::Bytes;

use crate::AlarmCause;
use crate::command::{
    AuthChange, AuthChangeKind, Change, Command, Credentials, DeleteRange, Operation,
    OperationKind, Put, Range, Txn,
};

use super::intervals::Intervals;
use super::{AuthRefusal, AuthTable, User};

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub enum Access<'a> {
    /// Read a range.
    Range(&'a Range),
    /// Write a key; with `prev_kv` read it, and with a lease write all keys of that lease, which
    /// will share its end.
    Put(&'a Put),
    /// Delete a range; with `prev_kv` read it.
    DeleteRange(&'a DeleteRange),
    /// All of both branches, taken or not, and the guards.
    Txn(&'a Txn),
    /// Hear of changes in a range; both as in a [`Range`].
    Watch {
        /// The first key.
        key: &'a [u8],
        /// Where it ends.
        range_end: &'a [u8],
    },
    /// Go on hearing of them, by the rules as they are now, however many of them have changed since
    /// the authentication; as long as that still holds.
    WatchOn {
        /// The first key.
        key: &'a [u8],
        /// Where it ends.
        range_end: &'a [u8],
    },
    /// End a lease, and delete its keys.
    LeaseRevoke(i64),
    /// Keep a lease, and its keys.
    LeaseKeepAlive(i64),
    /// See each of these keys, which a lease has.
    Keys(&'a [Bytes]),
    /// See which leases there are.
    LeaseList,
    /// What anybody may do who is somebody: grant a lease, ask a member how it is.
    Authenticated,
    /// What only root may do.
    Administer,
    /// See the roles of a user: root, and the user itself.
    User(&'a str),
    /// See the permissions of a role: root, and who has the role.
    Role(&'a str),
}

/// The keys that hang on leases.
pub(crate) trait LeasedKeys {
    /// The first key of a lease that is not before `from`; none of a lease that does not exist.
    fn next_key(&self, lease: i64, from: &[u8]) -> Option<Bytes>;

    /// All leases.
    fn leases(&self) -> Vec<i64>;
}

#[derive(Clone, Copy)]
enum Right {
    Read,
    Write,
}

/// What an applied command needs; none for what members do of their own accord.
pub(crate) fn access_of(command: &Command) -> Option<Access<'_>> {
    match command.change.as_ref()? {
        Change::Put(put) => Some(Access::Put(put)),
        Change::DeleteRange(delete) => Some(Access::DeleteRange(delete)),
        Change::Txn(txn) => Some(Access::Txn(txn)),
        Change::Compact(compact) if compact.automatic => None,
        Change::Compact(_) => Some(Access::Administer),
        Change::LeaseGrant(_) => Some(Access::Authenticated),
        Change::LeaseRevoke(revoke) if revoke.decided_in_term != 0 => None,
        Change::LeaseRevoke(revoke) => Some(Access::LeaseRevoke(revoke.id)),
        // The password has been checked, which is all that there is to show.
        Change::Auth(AuthChange { kind: Some(AuthChangeKind::AssignToken(_)) }) => None,
        Change::Auth(_) => Some(Access::Administer),
        // Members raise and clear their own.
        Change::RaiseAlarm(raise) if raise.cause() != AlarmCause::Client => None,
        Change::ClearAlarm(clear) if clear.cause() != AlarmCause::Client => None,
        Change::RaiseAlarm(_) | Change::ClearAlarm(_) | Change::SetDowngrade(_) => {
            Some(Access::Administer)
        }
        Change::LeaseCheckpoint(_)
        | Change::MemberAttributes(_)
        | Change::RaiseLevel(_)
        | Change::SetQuota(_) => None,
    }
}

/// Whether `who` may have `access`, by these facts. Nobody is asked while authorization is off.
pub(crate) fn authorize(
    table: &AuthTable,
    leases: &dyn LeasedKeys,
    who: Option<&Credentials>,
    access: &Access<'_>,
) -> Result<(), AuthRefusal> {
    if !table.enabled {
        return Ok(());
    }
    let who = who.filter(|who| !who.user.is_empty()).ok_or(AuthRefusal::UserEmpty)?;
    let user = known(table, who, access)?;
    let judge = Judge { table, leases, who, user, passed: RefCell::default() };
    match *access {
        Access::Range(range) => judge.may(Right::Read, &range.key, &range.range_end),
        Access::Put(put) => judge.may_put(put),
        Access::DeleteRange(delete) => judge.may_delete(delete),
        Access::Txn(txn) => judge.may_txn(txn),
        Access::Watch { key, range_end } => judge.may(Right::Read, key, range_end),
        Access::WatchOn { key, range_end } => judge.has(Right::Read, key, range_end),
        Access::LeaseRevoke(id) | Access::LeaseKeepAlive(id) => judge.may_lease(Right::Write, id),
        Access::Keys(keys) => keys.iter().try_for_each(|key| judge.may(Right::Read, key, &[])),
        Access::LeaseList => {
            leases.leases().into_iter().try_for_each(|id| judge.may_lease(Right::Read, id))
        }
        Access::Authenticated => Ok(()),
        Access::Administer => judge.may_administer(),
        Access::User(name) if name == who.user => Ok(()),
        Access::Role(role) if judge.user.has_role(role) => Ok(()),
        Access::User(_) | Access::Role(_) => judge.may_administer(),
    }
}

/// The user that was authenticated. The name alone is not enough: the user may be gone, may be a
/// later one of the same name, or may have got another password because the old one was known.
fn known<'a>(
    table: &'a AuthTable,
    who: &Credentials,
    access: &Access<'_>,
) -> Result<&'a User, AuthRefusal> {
    let administers = matches!(access, Access::Administer | Access::User(_) | Access::Role(_));
    match table.user(&who.user) {
        // One above the revision of the table was given by some other history.
        Some(user) if !(user.since..=table.revision).contains(&who.auth_revision) => {
            Err(AuthRefusal::OldRevision)
        }
        Some(user) => Ok(user),
        None if administers => Err(AuthRefusal::UserNotFound),
        None if matches!(access, Access::WatchOn { .. }) => Err(AuthRefusal::PermissionDenied),
        None if who.auth_revision < table.revision => Err(AuthRefusal::OldRevision),
        None => Err(AuthRefusal::PermissionDenied),
    }
}

struct Judge<'a> {
    table: &'a AuthTable,
    leases: &'a dyn LeasedKeys,
    who: &'a Credentials,
    user: &'a User,
    /// Leases that may be written: a transaction can name one in each of its puts.
    passed: RefCell<BTreeSet<i64>>,
}

impl Judge<'_> {
    fn may(&self, right: Right, key: &[u8], range_end: &[u8]) -> Result<(), AuthRefusal> {
        self.must_be_current()?;
        self.has(right, key, range_end)
    }

    fn has(&self, right: Right, key: &[u8], range_end: &[u8]) -> Result<(), AuthRefusal> {
        if self.user.is_root() || self.allowed(right).covers(key, range_end) {
            return Ok(());
        }
        Err(AuthRefusal::PermissionDenied)
    }

    fn must_be_current(&self) -> Result<(), AuthRefusal> {
        let is_old = self.who.auth_revision < self.table.revision;
        if is_old { Err(AuthRefusal::OldRevision) } else { Ok(()) }
    }

    fn allowed(&self, right: Right) -> &Intervals {
        let allowed = self.table.allowed(self.user);
        match right {
            Right::Read => &allowed.read,
            Right::Write => &allowed.write,
        }
    }

    fn may_put(&self, put: &Put) -> Result<(), AuthRefusal> {
        self.may(Right::Write, &put.key, &[])?;
        if put.lease != 0 && !self.passed.borrow().contains(&put.lease) {
            self.may_lease(Right::Write, put.lease)?;
            self.passed.borrow_mut().insert(put.lease);
        }
        if put.prev_kv { self.may(Right::Read, &put.key, &[]) } else { Ok(()) }
    }

    fn may_delete(&self, delete: &DeleteRange) -> Result<(), AuthRefusal> {
        self.may(Right::Write, &delete.key, &delete.range_end)?;
        if delete.prev_kv { self.may(Right::Read, &delete.key, &delete.range_end) } else { Ok(()) }
    }

    fn may_txn(&self, txn: &Txn) -> Result<(), AuthRefusal> {
        for compare in &txn.compare {
            self.may(Right::Read, &compare.key, &compare.range_end)?;
        }
        txn.success.iter().chain(&txn.failure).try_for_each(|operation| self.may_do(operation))
    }

    fn may_do(&self, operation: &Operation) -> Result<(), AuthRefusal> {
        match &operation.kind {
            Some(OperationKind::Range(range)) => {
                self.may(Right::Read, &range.key, &range.range_end)
            }
            Some(OperationKind::Put(put)) => self.may_put(put),
            Some(OperationKind::DeleteRange(delete)) => self.may_delete(delete),
            Some(OperationKind::Txn(txn)) => self.may_txn(txn),
            None => Ok(()),
        }
    }

    /// From interval to interval: a lease can have very many keys, and a user has few intervals.
    fn may_lease(&self, right: Right, id: i64) -> Result<(), AuthRefusal> {
        if self.user.is_root() {
            return Ok(());
        }
        let mut from = Bytes::new();
        while let Some(key) = self.leases.next_key(id, &from) {
            self.must_be_current()?;
            match self.allowed(right).around(&key) {
                None => return Err(AuthRefusal::PermissionDenied),
                Some(None) => return Ok(()),
                Some(Some(end)) => from = end.clone(),
            }
        }
        Ok(())
    }

    /// The revision does not matter: root may go on changing the rules after it has changed them.
    fn may_administer(&self) -> Result<(), AuthRefusal> {
        if self.user.is_root() { Ok(()) } else { Err(AuthRefusal::PermissionDenied) }
    }
}
