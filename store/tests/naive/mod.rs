//! A naive history of the store: every state at every revision, in full.
//!
//! It says what etcd would answer, in the plainest way that can be thought of, and shares nothing
//! with the store but the command types and the record encoding.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holdfast_store::command::*;
use holdfast_store::record::{encode_put, encode_tombstone};
use holdfast_store::{RangeResult, Rejected, Response, Revision, TxnPart};

mod limits;

use limits::Limits;

#[derive(Clone, Debug, PartialEq)]
pub struct Kv {
    pub key: Bytes,
    pub value: Bytes,
    pub create: i64,
    pub modified: i64,
    pub version: i64,
    pub lease: i64,
}

impl Kv {
    pub fn encode(&self) -> Bytes {
        encode_put(&self.key, &self.value, self.create, self.modified, self.version, self.lease)
    }

    fn without_value(&self, lease: i64) -> Bytes {
        encode_put(&self.key, b"", self.create, self.modified, self.version, lease)
    }
}

type Keys = BTreeMap<Bytes, Kv>;

#[derive(Clone, Debug)]
pub struct Naive {
    /// `history[i]` is the state at revision `i + 1`.
    history: Vec<Keys>,
    changes: Vec<(Revision, Bytes, Option<Kv>)>,
    pub compacted: i64,
    pub leases: BTreeMap<i64, (i64, i64)>,
    limits: Limits,
}

/// A transaction in progress.
struct Work {
    keys: Keys,
    main: i64,
    changes: Vec<(Revision, Bytes, Option<Kv>)>,
}

impl Work {
    fn revision(&self) -> i64 {
        self.main - i64::from(self.changes.is_empty())
    }

    fn change(&mut self, key: &Bytes, kv: Option<Kv>) {
        let revision = Revision::new(self.main, self.changes.len() as i64);
        match &kv {
            Some(kv) => self.keys.insert(key.clone(), kv.clone()),
            None => self.keys.remove(key),
        };
        self.changes.push((revision, key.clone(), kv));
    }
}

fn within(key: &Bytes, start: &Bytes, end: &Bytes) -> bool {
    match end.as_ref() {
        b"" => key == start,
        b"\0" => key >= start,
        _ => key >= start && key < end,
    }
}

fn select<'a>(keys: &'a Keys, start: &Bytes, end: &Bytes) -> Vec<&'a Kv> {
    keys.values().filter(|kv| within(&kv.key, start, end)).collect()
}

impl Naive {
    pub fn new() -> Self {
        let history = vec![Keys::new()];
        let (changes, leases) = (Vec::new(), BTreeMap::new());
        Self { history, changes, compacted: -1, leases, limits: Limits::default() }
    }

    pub fn revision(&self) -> i64 {
        self.history.len() as i64
    }

    fn latest(&self) -> &Keys {
        self.history.last().unwrap()
    }

    pub fn lease_keys(&self, id: i64) -> Vec<Bytes> {
        let attached = self.latest().values().filter(|kv| kv.lease == id);
        attached.map(|kv| kv.key.clone()).collect()
    }

    pub fn apply(&mut self, term: u64, command: &Command) -> Result<Response, Rejected> {
        let change = command.change.as_ref().unwrap();
        self.admit(change)?;
        match change {
            Change::Put(put) => {
                self.check_put(put)?;
                Ok(self.write(|work| run_put(work, put)))
            }
            Change::DeleteRange(delete) => Ok(self.write(|work| run_delete(work, delete))),
            Change::Txn(txn) => {
                self.check_txn(txn)?;
                let before = self.clone();
                Ok(self.write(|work| run_txn(&before, work, txn)))
            }
            Change::Compact(compact) if compact.revision <= self.compacted => {
                Err(Rejected::Compacted)
            }
            Change::Compact(compact) if compact.revision > self.revision() => {
                Err(Rejected::FutureRevision)
            }
            Change::Compact(compact) => {
                self.compacted = compact.revision;
                Ok(Response::Done)
            }
            Change::LeaseGrant(grant) if self.leases.contains_key(&grant.id) => {
                Err(Rejected::LeaseExists)
            }
            Change::LeaseGrant(grant) => {
                self.leases.insert(grant.id, (grant.ttl, 0));
                Ok(Response::LeaseGrant { id: grant.id, ttl: grant.ttl })
            }
            Change::LeaseRevoke(revoke) => self.revoke(term, revoke),
            Change::LeaseCheckpoint(checkpoint) => {
                if ![0, term].contains(&checkpoint.decided_in_term) {
                    return Ok(Response::Done);
                }
                for remainder in &checkpoint.remainders {
                    if let Some(lease) = self.leases.get_mut(&remainder.id) {
                        lease.1 = remainder.remaining_ttl;
                    }
                }
                Ok(Response::Done)
            }
            other => Ok(self.change_limits(other)),
        }
    }

    fn revoke(&mut self, term: u64, revoke: &LeaseRevoke) -> Result<Response, Rejected> {
        if revoke.decided_in_term != 0 && revoke.decided_in_term != term {
            return Err(Rejected::ExpiryOutdated);
        }
        if !self.leases.contains_key(&revoke.id) {
            return Err(Rejected::LeaseNotFound);
        }
        let keys = self.lease_keys(revoke.id);
        self.write(|work| {
            keys.iter().for_each(|key| work.change(key, None));
            Response::Done
        });
        self.leases.remove(&revoke.id);
        Ok(Response::Done)
    }

    fn write(&mut self, run: impl FnOnce(&mut Work) -> Response) -> Response {
        let main = self.revision() + 1;
        let mut work = Work { keys: self.latest().clone(), main, changes: Vec::new() };
        let response = run(&mut work);
        if !work.changes.is_empty() {
            self.history.push(work.keys);
            self.changes.extend(work.changes);
        }
        response
    }

    fn check_put(&self, put: &Put) -> Result<(), Rejected> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(Rejected::LeaseNotFound);
        }
        if (put.ignore_value || put.ignore_lease) && !self.latest().contains_key(&put.key) {
            return Err(Rejected::KeyNotFound);
        }
        Ok(())
    }

    fn check_txn(&self, txn: &Txn) -> Result<(), Rejected> {
        let branch = if self.guards_hold(txn) { &txn.success } else { &txn.failure };
        for operation in branch {
            match operation.kind.as_ref().unwrap() {
                OperationKind::Range(range) if range.revision > self.revision() => {
                    return Err(Rejected::FutureRevision);
                }
                OperationKind::Range(range)
                    if range.revision != 0 && range.revision < self.compacted =>
                {
                    return Err(Rejected::Compacted);
                }
                OperationKind::Put(put) => self.check_put(put)?,
                OperationKind::Txn(txn) => self.check_txn(txn)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn guards_hold(&self, txn: &Txn) -> bool {
        txn.compare.iter().all(|compare| {
            let kvs = select(self.latest(), &compare.key, &compare.range_end);
            if kvs.is_empty() {
                return match compare.target.as_ref().unwrap() {
                    CompareTarget::Value(_) => false,
                    CompareTarget::Version(given)
                    | CompareTarget::CreateRevision(given)
                    | CompareTarget::ModRevision(given)
                    | CompareTarget::Lease(given) => relate(0.cmp(given), compare.result),
                };
            }
            kvs.iter().all(|kv| {
                let ordering = match compare.target.as_ref().unwrap() {
                    CompareTarget::Value(given) => kv.value.cmp(given),
                    CompareTarget::Version(given) => kv.version.cmp(given),
                    CompareTarget::CreateRevision(given) => kv.create.cmp(given),
                    CompareTarget::ModRevision(given) => kv.modified.cmp(given),
                    CompareTarget::Lease(given) => kv.lease.cmp(given),
                };
                relate(ordering, compare.result)
            })
        })
    }

    /// A range outside of transactions.
    pub fn range(&self, range: &Range) -> Result<RangeResult, Rejected> {
        if range.revision > self.revision() {
            return Err(Rejected::FutureRevision);
        }
        let at = if range.revision <= 0 { self.revision() } else { range.revision };
        if at < self.compacted {
            return Err(Rejected::Compacted);
        }
        Ok(run_range(&self.history[at as usize - 1], range))
    }

    /// HashKV as etcd computes it, over everything that ever happened.
    pub fn hash_kv(&self, at: i64) -> u32 {
        let mut last: BTreeMap<&Bytes, (Revision, bool)> = BTreeMap::new();
        let mut last_compacted: BTreeMap<&Bytes, Revision> = BTreeMap::new();
        let mut deleted_there = BTreeSet::new();
        for (revision, key, kv) in &self.changes {
            if revision.main <= at {
                last.insert(key, (*revision, kv.is_some()));
            }
            if revision.main == at && kv.is_none() {
                deleted_there.insert(key);
            }
            if revision.main <= self.compacted {
                last_compacted.insert(key, *revision);
            }
        }
        // etcd keeps nothing of a key that was deleted at that very revision, even if it came back.
        last.retain(|key, (_, live)| *live && !deleted_there.contains(key));
        let keep: Vec<_> = last.values().map(|(revision, _)| *revision).collect();
        let mut bytes = b"key".to_vec();
        for (revision, key, kv) in &self.changes {
            let old = revision.main <= self.compacted;
            let stored = !old || last_compacted.get(key) == Some(revision);
            let skipped = old && !keep.is_empty() && !keep.contains(revision);
            if revision.main > at || !stored || skipped || (old && kv.is_none()) {
                continue;
            }
            bytes.extend(revision.main.to_be_bytes());
            bytes.push(b'_');
            bytes.extend(revision.sub.to_be_bytes());
            match kv {
                Some(kv) => bytes.extend(kv.encode()),
                None => {
                    bytes.push(b't');
                    bytes.extend(encode_tombstone(key, 0));
                }
            }
        }
        crc32c::crc32c(&bytes)
    }
}

fn relate(ordering: Ordering, result: i32) -> bool {
    match result {
        0 => ordering.is_eq(),
        1 => ordering.is_gt(),
        2 => ordering.is_lt(),
        3 => ordering.is_ne(),
        _ => true,
    }
}

fn run_put(work: &mut Work, put: &Put) -> Response {
    let before = work.keys.get(&put.key).cloned();
    let kept = |ignore: bool| before.as_ref().filter(|_| ignore);
    let kv = Kv {
        key: put.key.clone(),
        value: kept(put.ignore_value).map_or(put.value.clone(), |kv| kv.value.clone()),
        create: before.as_ref().map_or(work.main, |kv| kv.create),
        modified: work.main,
        version: before.as_ref().map_or(0, |kv| kv.version) + 1,
        lease: kept(put.ignore_lease).map_or(put.lease, |kv| kv.lease),
    };
    work.change(&put.key, Some(kv));
    Response::Put { prev: before.filter(|_| put.prev_kv).map(|kv| kv.encode()) }
}

fn run_delete(work: &mut Work, delete: &DeleteRange) -> Response {
    let gone = select(&work.keys, &delete.key, &delete.range_end);
    let gone: Vec<_> = gone.into_iter().cloned().collect();
    gone.iter().for_each(|kv| work.change(&kv.key, None));
    let prevs = gone.iter().filter(|_| delete.prev_kv).map(Kv::encode).collect();
    Response::DeleteRange { deleted: gone.len() as i64, prevs }
}

fn run_txn(before: &Naive, work: &mut Work, txn: &Txn) -> Response {
    let succeeded = before.guards_hold(txn);
    let branch = if succeeded { &txn.success } else { &txn.failure };
    let mut responses = Vec::new();
    for operation in branch {
        let response = match operation.kind.as_ref().unwrap() {
            OperationKind::Put(put) => run_put(work, put),
            OperationKind::DeleteRange(delete) => run_delete(work, delete),
            OperationKind::Txn(txn) => run_txn(before, work, txn),
            OperationKind::Range(range) if range.revision > 0 => {
                Response::Range(run_range(&before.history[range.revision as usize - 1], range))
            }
            OperationKind::Range(range) => Response::Range(run_range(&work.keys, range)),
        };
        let nested = matches!(response, Response::Txn { .. });
        let revision = if nested { 0 } else { work.revision() };
        responses.push(TxnPart { revision, response });
    }
    Response::Txn { succeeded, responses }
}

fn run_range(keys: &Keys, range: &Range) -> RangeResult {
    let mut kvs = select(keys, &range.key, &range.range_end);
    let count = kvs.len() as i64;
    if range.count_only {
        return RangeResult { records: Vec::new(), more: false, count };
    }
    let (order, target) = (range.sort_order(), range.sort_target());
    let default =
        order == SortOrder::None || (order == SortOrder::Ascend && target == SortTarget::Key);
    let bounds = [
        range.max_mod_revision,
        range.min_mod_revision,
        range.max_create_revision,
        range.min_create_revision,
    ];
    if default && bounds == [0; 4] && range.limit > 0 {
        kvs.truncate(range.limit as usize + 1);
    }
    kvs.retain(|kv| bounds[0] == 0 || kv.modified <= bounds[0]);
    kvs.retain(|kv| bounds[1] == 0 || kv.modified >= bounds[1]);
    kvs.retain(|kv| bounds[2] == 0 || kv.create <= bounds[2]);
    kvs.retain(|kv| bounds[3] == 0 || kv.create >= bounds[3]);
    kvs.sort_by(|a, b| {
        let ordering = match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create.cmp(&b.create),
            SortTarget::Mod => a.modified.cmp(&b.modified),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        if order == SortOrder::Descend { ordering.reverse() } else { ordering }
    });
    let more = range.limit > 0 && kvs.len() > range.limit as usize;
    if more {
        kvs.truncate(range.limit as usize);
    }
    let encode = |kv: &&Kv| match (range.keys_only, target) {
        (false, _) => kv.encode(),
        (true, SortTarget::Value) => kv.without_value(kv.lease),
        (true, _) => kv.without_value(0),
    };
    RangeResult { records: kvs.iter().map(encode).collect(), more, count }
}
