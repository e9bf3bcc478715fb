//! Between the wire's types and the store's; the only file that knows both.
//!
//! Requests have passed `admit`. What a client left out is filled in here, so that the store never
//! meets an absent value.

use holdfast_proto::EncodedKeyValue;
use holdfast_proto::etcdserverpb::{self as pb, ResponseHeader, compare, request_op, response_op};
use holdfast_store::command::{
    Change, Command, Compact, Compare, CompareResult, CompareTarget, DeleteRange, LeaseGrant,
    LeaseRevoke, Operation, OperationKind, Put, Range, Txn,
};
use holdfast_store::{RangeResult, RecordBytes, Response, TxnPart};

use crate::header::nested;

/// A range, as the store reads it.
pub fn range(request: pb::RangeRequest) -> Range {
    Range {
        key: request.key,
        range_end: request.range_end,
        limit: request.limit,
        revision: request.revision,
        sort_order: request.sort_order,
        sort_target: request.sort_target,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    }
}

/// A put, as it is replicated.
pub fn put(request: pb::PutRequest) -> Put {
    Put {
        key: request.key,
        value: request.value,
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

/// A delete, as it is replicated.
pub fn delete_range(request: pb::DeleteRangeRequest) -> DeleteRange {
    DeleteRange { key: request.key, range_end: request.range_end, prev_kv: request.prev_kv }
}

/// A transaction, as it is replicated or evaluated.
pub fn txn(request: pb::TxnRequest) -> Txn {
    Txn {
        compare: request.compare.into_iter().map(self::compare).collect(),
        success: request.success.into_iter().map(operation).collect(),
        failure: request.failure.into_iter().map(operation).collect(),
    }
}

fn operation(operation: pb::RequestOp) -> Operation {
    use request_op::Request;
    let kind = operation.request.map(|request| match request {
        Request::RequestRange(request) => OperationKind::Range(range(request)),
        Request::RequestPut(request) => OperationKind::Put(put(request)),
        Request::RequestDeleteRange(request) => OperationKind::DeleteRange(delete_range(request)),
        Request::RequestTxn(request) => OperationKind::Txn(txn(request)),
    });
    Operation { kind }
}

/// A guard. A value of another kind than the target's counts as absent, and an absent one as zero.
fn compare(given: pb::Compare) -> Compare {
    use compare::{CompareTarget as Target, TargetUnion as Given};
    let number = |found: Option<i64>| found.unwrap_or(0);
    let value = given.target_union;
    let target = match Target::try_from(given.target) {
        Ok(Target::Version) => CompareTarget::Version(number(match value {
            Some(Given::Version(number)) => Some(number),
            _ => None,
        })),
        Ok(Target::Create) => CompareTarget::CreateRevision(number(match value {
            Some(Given::CreateRevision(number)) => Some(number),
            _ => None,
        })),
        Ok(Target::Mod) => CompareTarget::ModRevision(number(match value {
            Some(Given::ModRevision(number)) => Some(number),
            _ => None,
        })),
        Ok(Target::Value) => CompareTarget::Value(match value {
            Some(Given::Value(bytes)) => bytes,
            _ => Default::default(),
        }),
        Ok(Target::Lease) => CompareTarget::Lease(number(match value {
            Some(Given::Lease(number)) => Some(number),
            _ => None,
        })),
        Err(_) => return compare_with_nothing(given.key, given.result),
    };
    Compare {
        result: given.result,
        key: given.key,
        range_end: given.range_end,
        target: Some(target),
    }
}

/// A guard on a target that does not exist: whatever is stored counts as equal to whatever is
/// given. Versions are never below zero, which makes a guard that never holds.
fn compare_with_nothing(key: bytes::Bytes, result: i32) -> Compare {
    /// Any number that is no [`CompareResult`] holds always.
    const ALWAYS: i32 = -1;
    let holds = !matches!(
        CompareResult::try_from(result),
        Ok(CompareResult::Greater | CompareResult::Less | CompareResult::NotEqual)
    );
    Compare {
        result: if holds { ALWAYS } else { CompareResult::Less as i32 },
        key,
        range_end: Default::default(),
        target: Some(CompareTarget::Version(0)),
    }
}

/// A command of one change.
pub fn command(change: Change) -> Command {
    Command::from(change)
}

/// A client's compaction, as it is replicated.
pub fn compact(revision: i64) -> Command {
    command(Change::Compact(Compact { revision, automatic: false }))
}

/// A compaction that a member makes by itself.
pub fn automatic_compaction(revision: i64) -> Command {
    command(Change::Compact(Compact { revision, automatic: true }))
}

/// A grant, as it is replicated.
pub fn lease_grant(id: i64, ttl: i64) -> Command {
    command(Change::LeaseGrant(LeaseGrant { id, ttl }))
}

/// A client's revoke, as it is replicated.
pub fn lease_revoke(id: i64) -> Command {
    command(Change::LeaseRevoke(LeaseRevoke { id, decided_in_term: 0 }))
}

/// The wire form of records, which is the one they have.
fn records(records: Vec<RecordBytes>) -> Vec<EncodedKeyValue> {
    records.into_iter().map(EncodedKeyValue::new).collect()
}

/// The answer to a range.
pub fn range_response(header: ResponseHeader, result: RangeResult) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header),
        kvs: records(result.records),
        more: result.more,
        count: result.count,
    }
}

/// The answer to a put.
pub fn put_response(header: ResponseHeader, prev: Option<RecordBytes>) -> pb::PutResponse {
    pb::PutResponse { header: Some(header), prev_kv: prev.map(EncodedKeyValue::new) }
}

/// The answer to a delete.
pub fn delete_range_response(
    header: ResponseHeader,
    deleted: i64,
    prevs: Vec<RecordBytes>,
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse { header: Some(header), deleted, prev_kvs: records(prevs) }
}

/// The answer to a transaction.
pub fn txn_response(
    header: ResponseHeader,
    succeeded: bool,
    parts: Vec<TxnPart>,
) -> pb::TxnResponse {
    let responses = parts.into_iter().map(part).collect();
    pb::TxnResponse { header: Some(header), succeeded, responses }
}

fn part(part: TxnPart) -> pb::ResponseOp {
    use response_op::Response as Answer;
    let header = nested(part.revision);
    let response = match part.response {
        Response::Range(result) => Answer::ResponseRange(range_response(header, result)),
        Response::Put { prev } => Answer::ResponsePut(put_response(header, prev)),
        Response::DeleteRange { deleted, prevs } => {
            Answer::ResponseDeleteRange(delete_range_response(header, deleted, prevs))
        }
        Response::Txn { succeeded, responses } => {
            Answer::ResponseTxn(txn_response(header, succeeded, responses))
        }
        Response::LeaseGrant { .. } | Response::Alarm { .. } | Response::Done => {
            unreachable!("a transaction has no operation with this answer")
        }
    };
    pb::ResponseOp { response: Some(response) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(target: i32, union: Option<compare::TargetUnion>) -> Option<CompareTarget> {
        let given = pb::Compare { target, target_union: union, ..Default::default() };
        compare(given).target
    }

    #[test]
    fn a_missing_or_foreign_value_counts_as_zero() {
        use compare::TargetUnion as Given;
        assert_eq!(guard(0, None), Some(CompareTarget::Version(0)));
        assert_eq!(guard(0, Some(Given::Version(3))), Some(CompareTarget::Version(3)));
        assert_eq!(guard(0, Some(Given::ModRevision(3))), Some(CompareTarget::Version(0)));
        assert_eq!(
            guard(1, Some(Given::CreateRevision(3))),
            Some(CompareTarget::CreateRevision(3))
        );
        assert_eq!(guard(2, None), Some(CompareTarget::ModRevision(0)));
        assert_eq!(guard(3, None), Some(CompareTarget::Value(Default::default())));
        assert_eq!(guard(4, Some(Given::Lease(9))), Some(CompareTarget::Lease(9)));
    }

    #[test]
    fn an_unknown_target_compares_as_equal() {
        for (result, holds) in [(0, true), (1, false), (2, false), (3, false), (4, true)] {
            let made = compare(pb::Compare { target: 77, result, ..Default::default() });
            assert_eq!(made.target, Some(CompareTarget::Version(0)));
            assert_eq!(made.result, if holds { -1 } else { 2 }, "result {result}");
        }
    }
}
