//! Which keys a transaction writes twice.
//!
//! A key may be put once, and no put may lie in a deleted range of the same level or of a
//! transaction within, whatever the order. The two branches of a transaction within exclude each
//! other and may put the same key. A delete of everything from a key on (`range_end` of one zero
//! byte) is not looked at, as etcd does not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use holdfast_proto::etcdserverpb::{DeleteRangeRequest, RequestOp, request_op::Request};

use crate::status::Error;

type Keys<'a> = BTreeSet<&'a Bytes>;

/// Refuses a branch that writes a key twice.
pub(super) fn check(operations: &[RequestOp]) -> Result<(), Error> {
    // The common transaction has one operation, or none.
    if let [] | [RequestOp { request: Some(Request::RequestPut(_)) }] = operations {
        return Ok(());
    }
    writes(operations).map(|_| ())
}

/// The keys that a branch puts, and the ranges that it deletes.
fn writes(operations: &[RequestOp]) -> Result<(Keys<'_>, Deleted), Error> {
    let mut deleted = Deleted::default();
    for operation in operations {
        if let Some(Request::RequestDeleteRange(request)) = &operation.request {
            deleted.add(request);
        }
    }
    let mut put = Keys::new();
    for operation in operations {
        let Some(Request::RequestTxn(within)) = &operation.request else { continue };
        let (success, deleted_success) = writes(&within.success)?;
        let (failure, deleted_failure) = writes(&within.failure)?;
        for key in success.union(&failure).copied() {
            deleted.forbids(key)?;
            if !put.insert(key) {
                return Err(Error::DuplicateKey);
            }
        }
        deleted.merge(deleted_success);
        deleted.merge(deleted_failure);
    }
    for operation in operations {
        let Some(Request::RequestPut(request)) = &operation.request else { continue };
        deleted.forbids(&request.key)?;
        if !put.insert(&request.key) {
            return Err(Error::DuplicateKey);
        }
    }
    Ok((put, deleted))
}

/// Deleted ranges, as disjoint intervals from start to end.
#[derive(Default)]
struct Deleted {
    intervals: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Deleted {
    fn add(&mut self, request: &DeleteRangeRequest) {
        let start = request.key.to_vec();
        let end = if request.range_end.is_empty() {
            [&request.key[..], &[0]].concat()
        } else {
            request.range_end.to_vec()
        };
        self.add_interval(start, end);
    }

    fn add_interval(&mut self, mut start: Vec<u8>, mut end: Vec<u8>) {
        if start >= end {
            return;
        }
        // Swallow every interval that this one touches, from the last that starts before its end.
        while let Some((other, other_end)) = self.intervals.range(..=end.clone()).next_back() {
            if *other_end < start {
                break;
            }
            let other = other.clone();
            let other_end = self.intervals.remove(&other).expect("it was just found");
            start = start.min(other);
            end = end.max(other_end);
        }
        self.intervals.insert(start, end);
    }

    fn merge(&mut self, other: Self) {
        for (start, end) in other.intervals {
            self.add_interval(start, end);
        }
    }

    fn forbids(&self, key: &Bytes) -> Result<(), Error> {
        let up_to = (Bound::Unbounded, Bound::Included(&key[..]));
        let before = self.intervals.range::<[u8], _>(up_to).next_back();
        match before {
            Some((_, end)) if end[..] > key[..] => Err(Error::DuplicateKey),
            _ => Ok(()),
        }
    }
}
