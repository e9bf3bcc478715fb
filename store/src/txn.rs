//! Transactions: guards, the check of what would be refused, and which branches run.
//!
//! The guards of the whole tree are evaluated on the state before the transaction, nested ones
//! included; so is the check. Only then does anything run, and nothing that runs can be refused.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::command::{
    Compare, CompareResult, CompareTarget, Operation, OperationKind, Put, Range, Txn,
};
use crate::index::{KeyRange, Version};
use crate::view::{View, WALK_KEYS_MAX};
use crate::{ReadError, Rejected, record};

/// Which branch each transaction of a tree takes.
#[derive(Debug)]
pub(crate) struct Path {
    pub succeeded: bool,
    /// Of the nested transactions of that branch, in order.
    pub nested: Vec<Path>,
}

/// The operations that `path` runs at this level.
pub(crate) fn branch<'a>(txn: &'a Txn, path: &Path) -> &'a [Operation] {
    if path.succeeded { &txn.success } else { &txn.failure }
}

/// Evaluates the guards of a tree.
pub(crate) fn choose(view: &View<'_>, txn: &Txn) -> Result<Path, ReadError> {
    let succeeded = holds_all(view, &txn.compare)?;
    let mut path = Path { succeeded, nested: Vec::new() };
    for operation in branch(txn, &path) {
        if let Some(OperationKind::Txn(nested)) = &operation.kind {
            path.nested.push(choose(view, nested)?);
        }
    }
    Ok(path)
}

/// Whether an operation on `path` would be refused.
pub(crate) fn check(view: &View<'_>, txn: &Txn, path: &Path) -> Result<(), Rejected> {
    let mut nested = path.nested.iter();
    for operation in branch(txn, path) {
        match &operation.kind {
            Some(OperationKind::Range(range)) => check_range(view, range)?,
            Some(OperationKind::Put(put)) => check_put(view, put)?,
            Some(OperationKind::Txn(txn)) => {
                check(view, txn, nested.next().expect("a path for every nested transaction"))?;
            }
            Some(OperationKind::DeleteRange(_)) | None => {}
        }
    }
    Ok(())
}

/// Inside a transaction only 0 is the latest revision; a negative one is simply too old.
fn check_range(view: &View<'_>, range: &Range) -> Result<(), Rejected> {
    match range.revision {
        0 => Ok(()),
        revision if revision > view.current => Err(Rejected::FutureRevision),
        revision if revision < view.compacted => Err(Rejected::Compacted),
        _ => Ok(()),
    }
}

pub(crate) fn check_put(view: &View<'_>, put: &Put) -> Result<(), Rejected> {
    if put.lease != 0 && !view.shared.leases().contains(put.lease) {
        return Err(Rejected::LeaseNotFound);
    }
    let keeps = put.ignore_value || put.ignore_lease;
    if keeps && view.shared.index().live(&put.key, view.current).is_none() {
        return Err(Rejected::KeyNotFound);
    }
    Ok(())
}

fn holds_all(view: &View<'_>, compares: &[Compare]) -> Result<bool, ReadError> {
    for compare in compares {
        if !holds(view, compare)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether every key of the guard's range satisfies it; of an empty range, whether an absent key
/// does, which has no value to compare and zero for everything else.
fn holds(view: &View<'_>, compare: &Compare) -> Result<bool, ReadError> {
    let keys = KeyRange::new(&compare.key, &compare.range_end);
    if let Some(CompareTarget::Value(given)) = &compare.target {
        return value_holds(view, &keys, compare.result, given);
    }
    let (mut empty, mut all) = (true, true);
    let mut budget = WALK_KEYS_MAX;
    view.walk(&keys, view.current, &mut budget, |_, version| {
        empty = false;
        all = number_holds(compare, Some(version));
        if all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(if empty { number_holds(compare, None) } else { all })
}

fn number_holds(compare: &Compare, version: Option<&Version>) -> bool {
    let stored = |of: fn(&Version) -> i64| version.map_or(0, of);
    let ordering = match compare.target {
        Some(CompareTarget::Version(given)) => stored(Version::version).cmp(&given),
        Some(CompareTarget::CreateRevision(given)) => stored(Version::create_revision).cmp(&given),
        Some(CompareTarget::ModRevision(given)) => stored(Version::mod_revision).cmp(&given),
        Some(CompareTarget::Lease(given)) => stored(Version::lease).cmp(&given),
        Some(CompareTarget::Value(_)) => unreachable!("values are compared with their records"),
        None => stored(Version::version).cmp(&0),
    };
    related(ordering, compare.result)
}

fn value_holds(
    view: &View<'_>,
    keys: &KeyRange,
    result: i32,
    given: &Bytes,
) -> Result<bool, ReadError> {
    let mut versions = Vec::new();
    let mut budget = WALK_KEYS_MAX;
    view.walk(keys, view.current, &mut budget, |_, version| {
        versions.push(*version);
        ControlFlow::Continue(())
    })?;
    for version in &versions {
        let stored = record::value_of(&view.record(version)?)?;
        if !related(stored.cmp(given), result) {
            return Ok(false);
        }
    }
    Ok(!versions.is_empty())
}

fn related(ordering: Ordering, result: i32) -> bool {
    match CompareResult::try_from(result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}
