//! The one place that says whether somebody may do something.
//!
//! Writes are judged where they are applied, by the facts that hold there; reads where they are
//! served. The rules are etcd's: the rights of a user are those of all its roles together, a user
//! with the role root has all of them, and what cannot be judged is refused.

use bytes::Bytes;

use crate::command::{
    AuthChange, AuthChangeKind, Change, Command, Credentials, DeleteRange, Operation,
    OperationKind, Put, Range, Txn,
};

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
    /// End a lease, and delete its keys.
    LeaseRevoke(i64),
    /// Keep a lease, and its keys.
    LeaseKeepAlive(i64),
    /// See which keys a lease has.
    LeaseKeys(i64),
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
    /// Whether all keys of a lease pass; true of a lease that does not exist.
    fn all_keys(&self, lease: i64, passes: &mut dyn FnMut(&Bytes) -> bool) -> bool;

    /// Whether the keys of all leases pass.
    fn all_leases(&self, passes: &mut dyn FnMut(&Bytes) -> bool) -> bool;
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
        // Members compact by themselves too. A client's compaction has been judged before.
        Change::Compact(_) => command.credentials.as_ref().map(|_| Access::Administer),
        Change::LeaseGrant(_) => Some(Access::Authenticated),
        Change::LeaseRevoke(revoke) if revoke.decided_in_term != 0 => None,
        Change::LeaseRevoke(revoke) => Some(Access::LeaseRevoke(revoke.id)),
        // The password has been checked, which is all that there is to show.
        Change::Auth(AuthChange { kind: Some(AuthChangeKind::AssignToken(_)) }) => None,
        Change::Auth(_) => Some(Access::Administer),
        Change::LeaseCheckpoint(_) | Change::MemberAttributes(_) | Change::RaiseLevel(_) => None,
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
    let judge = Judge { table, leases, who, user: table.user(&who.user) };
    match *access {
        Access::Range(range) => judge.may(Right::Read, &range.key, &range.range_end),
        Access::Put(put) => judge.may_put(put),
        Access::DeleteRange(delete) => judge.may_delete(delete),
        Access::Txn(txn) => judge.may_txn(txn),
        Access::Watch { key, range_end } => judge.may(Right::Read, key, range_end),
        Access::LeaseRevoke(id) | Access::LeaseKeepAlive(id) => judge.may_lease(Right::Write, id),
        Access::LeaseKeys(id) => judge.may_lease(Right::Read, id),
        Access::LeaseList => judge.may_list_leases(),
        Access::Authenticated => Ok(()),
        Access::Administer => judge.may_administer(),
        Access::User(name) if name == who.user => Ok(()),
        Access::Role(role) if judge.user.is_some_and(|user| user.has_role(role)) => Ok(()),
        Access::User(_) | Access::Role(_) => judge.may_administer(),
    }
}

struct Judge<'a> {
    table: &'a AuthTable,
    leases: &'a dyn LeasedKeys,
    who: &'a Credentials,
    /// None if there is no such user any more.
    user: Option<&'a User>,
}

impl Judge<'_> {
    fn may(&self, right: Right, key: &[u8], range_end: &[u8]) -> Result<(), AuthRefusal> {
        if self.who.auth_revision < self.table.revision {
            return Err(AuthRefusal::OldRevision);
        }
        let user = self.user.ok_or(AuthRefusal::PermissionDenied)?;
        if user.is_root() {
            return Ok(());
        }
        let allowed = self.table.allowed(user);
        let allowed = match right {
            Right::Read => &allowed.read,
            Right::Write => &allowed.write,
        };
        if allowed.covers(key, range_end) { Ok(()) } else { Err(AuthRefusal::PermissionDenied) }
    }

    fn may_put(&self, put: &Put) -> Result<(), AuthRefusal> {
        self.may(Right::Write, &put.key, &[])?;
        if put.lease != 0 {
            self.may_lease(Right::Write, put.lease)?;
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

    fn may_lease(&self, right: Right, id: i64) -> Result<(), AuthRefusal> {
        if self.may_administer().is_ok() {
            return Ok(());
        }
        let mut refusal = Ok(());
        self.leases.all_keys(id, &mut |key| {
            refusal = self.may(right, key, &[]);
            refusal.is_ok()
        });
        refusal
    }

    fn may_list_leases(&self) -> Result<(), AuthRefusal> {
        if self.may_administer().is_ok() {
            return Ok(());
        }
        let mut refusal = Ok(());
        self.leases.all_leases(&mut |key| {
            refusal = self.may(Right::Read, key, &[]);
            refusal.is_ok()
        });
        refusal
    }

    /// The revision does not matter: root may go on changing the rules after it has changed them.
    fn may_administer(&self) -> Result<(), AuthRefusal> {
        let user = self.user.ok_or(AuthRefusal::UserNotFound)?;
        if user.is_root() { Ok(()) } else { Err(AuthRefusal::PermissionDenied) }
    }
}
