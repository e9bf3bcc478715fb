//! One row for every rule, and the error it ends in.

use bytes::Bytes;
use holdfast_proto::etcdserverpb::Compare;

use super::*;

const LIMITS: Limits = Limits { request_bytes: 1_572_864, txn_ops: 128 };

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn get(key: &'static str) -> RangeRequest {
    RangeRequest { key: bytes(key), ..Default::default() }
}

fn set(key: &'static str) -> PutRequest {
    PutRequest { key: bytes(key), ..Default::default() }
}

fn op(request: impl Into<Op>) -> RequestOp {
    RequestOp { request: Some(request.into().0) }
}

struct Op(Request);

impl From<RangeRequest> for Op {
    fn from(request: RangeRequest) -> Self {
        Self(Request::RequestRange(request))
    }
}

impl From<PutRequest> for Op {
    fn from(request: PutRequest) -> Self {
        Self(Request::RequestPut(request))
    }
}

impl From<DeleteRangeRequest> for Op {
    fn from(request: DeleteRangeRequest) -> Self {
        Self(Request::RequestDeleteRange(request))
    }
}

impl From<TxnRequest> for Op {
    fn from(request: TxnRequest) -> Self {
        Self(Request::RequestTxn(request))
    }
}

fn delete(key: &'static str, range_end: &'static str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: false }
}

fn branch(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..Default::default() }
}

#[test]
fn single_requests() {
    let rows = [
        (range(&get("")), Err(Error::EmptyKey)),
        (range(&get("k")), Ok(())),
        (range(&RangeRequest { sort_order: 2, sort_target: 4, ..get("k") }), Ok(())),
        (range(&RangeRequest { sort_order: 3, ..get("k") }), Err(Error::InvalidSortOption)),
        (range(&RangeRequest { sort_order: -1, ..get("k") }), Err(Error::InvalidSortOption)),
        (range(&RangeRequest { sort_target: 5, ..get("k") }), Err(Error::InvalidSortOption)),
        (range(&RangeRequest { sort_order: 9, ..get("") }), Err(Error::EmptyKey)),
        (put(&set("")), Err(Error::EmptyKey)),
        (put(&set("k")), Ok(())),
        (
            put(&PutRequest { ignore_value: true, value: bytes("v"), ..set("k") }),
            Err(Error::ValueProvided),
        ),
        (put(&PutRequest { ignore_value: true, ..set("k") }), Ok(())),
        (put(&PutRequest { ignore_lease: true, lease: 7, ..set("k") }), Err(Error::LeaseProvided)),
        (put(&PutRequest { ignore_lease: true, ..set("k") }), Ok(())),
        (delete_range(&delete("", "z")), Err(Error::EmptyKey)),
        (delete_range(&delete("a", "")), Ok(())),
        (lease_ttl(LEASE_TTL_MAX), Ok(())),
        (lease_ttl(LEASE_TTL_MAX + 1), Err(Error::LeaseTtlTooLarge)),
        (lease_ttl(-1), Ok(())),
    ];
    for (row, (found, expected)) in rows.into_iter().enumerate() {
        assert_eq!(found, expected, "row {row}");
    }
}

#[test]
fn streamed_ranges_are_in_key_order_and_unfiltered() {
    let unimplemented = |request| range_stream(&request).expect_err("refused").code();
    let code = tonic::Code::Unimplemented;
    assert_eq!(unimplemented(RangeRequest { sort_order: 2, ..get("k") }), code);
    assert_eq!(unimplemented(RangeRequest { sort_order: 1, sort_target: 3, ..get("k") }), code);
    assert_eq!(unimplemented(RangeRequest { min_mod_revision: 1, ..get("k") }), code);
    assert_eq!(unimplemented(RangeRequest { max_create_revision: 1, ..get("k") }), code);
    assert_eq!(range_stream(&RangeRequest { sort_order: 1, ..get("k") }), Ok(()));
    assert_eq!(range_stream(&RangeRequest { sort_target: 3, ..get("k") }), Ok(()));
    assert_eq!(range_stream(&get("")), Err(Error::EmptyKey));
}

#[test]
fn transactions() {
    let compare = Compare { key: bytes("k"), ..Default::default() };
    let nested = |outer: usize, inner: usize| {
        let mut operations = vec![op(get("k")); outer - 1];
        operations.push(op(branch(vec![op(get("k")); inner])));
        branch(operations)
    };
    let rows = [
        (TxnRequest::default(), Ok(())),
        (branch(vec![op(get("k")); 128]), Ok(())),
        (branch(vec![op(get("k")); 129]), Err(Error::TooManyOps)),
        (
            TxnRequest { failure: vec![op(get("k")); 129], ..Default::default() },
            Err(Error::TooManyOps),
        ),
        (
            TxnRequest { compare: vec![compare.clone(); 129], ..Default::default() },
            Err(Error::TooManyOps),
        ),
        // The inner budget is what the outer level has left.
        (nested(100, 28), Ok(())),
        (nested(100, 29), Err(Error::TooManyOps)),
        (
            TxnRequest { compare: vec![Compare::default()], ..Default::default() },
            Err(Error::EmptyKey),
        ),
        (branch(vec![RequestOp { request: None }]), Err(Error::KeyNotFound)),
        (branch(vec![op(get(""))]), Err(Error::EmptyKey)),
        (branch(vec![op(branch(vec![op(set(""))]))]), Err(Error::EmptyKey)),
        (
            TxnRequest { failure: vec![op(delete("", ""))], ..Default::default() },
            Err(Error::EmptyKey),
        ),
        (
            branch(vec![op(RangeRequest { sort_order: 7, ..get("k") })]),
            Err(Error::InvalidSortOption),
        ),
    ];
    for (row, (request, expected)) in rows.into_iter().enumerate() {
        assert_eq!(txn(&request, &LIMITS), expected, "row {row}");
    }
}

#[test]
fn keys_written_twice() {
    let either = |key| TxnRequest {
        success: vec![op(set(key))],
        failure: vec![op(set(key))],
        ..Default::default()
    };
    let duplicate = Err(Error::DuplicateKey);
    let rows = [
        (vec![op(set("a")), op(set("b"))], Ok(())),
        (vec![op(set("a")), op(set("a"))], duplicate.clone()),
        (vec![op(set("a")), op(delete("a", ""))], duplicate.clone()),
        (vec![op(delete("a", "c")), op(set("b"))], duplicate.clone()),
        (vec![op(delete("a", "c")), op(set("c"))], Ok(())),
        (vec![op(delete("a", "c")), op(delete("b", "d"))], Ok(())),
        (vec![op(delete("a", "c")), op(delete("b", "d")), op(set("cc"))], duplicate.clone()),
        (vec![op(delete("c", "a")), op(set("b"))], Ok(())),
        (vec![op(delete("a", "\0")), op(set("b"))], Ok(())),
        (vec![op(either("a"))], Ok(())),
        (vec![op(either("a")), op(set("a"))], duplicate.clone()),
        (vec![op(either("a")), op(either("a"))], duplicate.clone()),
        (vec![op(either("a")), op(delete("a", "b"))], duplicate.clone()),
        // A delete within forbids a put at the outer level, and one in a later sibling.
        (vec![op(branch(vec![op(delete("a", "c"))])), op(set("b"))], duplicate.clone()),
        (vec![op(branch(vec![op(delete("a", "c"))])), op(either("b"))], duplicate.clone()),
        (vec![op(either("b")), op(branch(vec![op(delete("a", "c"))]))], Ok(())),
    ];
    for (row, (operations, expected)) in rows.into_iter().enumerate() {
        assert_eq!(txn(&branch(operations.clone()), &LIMITS), expected, "success {row}");
        let failure = TxnRequest { failure: operations, ..Default::default() };
        assert_eq!(txn(&failure, &LIMITS), expected, "failure {row}");
    }
}

#[test]
fn the_kind_of_a_transaction() {
    let serializable = || RangeRequest { serializable: true, ..get("k") };
    let rows = [
        (TxnRequest::default(), TxnKind::SerializableRead),
        (branch(vec![op(get("k"))]), TxnKind::Read),
        (branch(vec![op(serializable())]), TxnKind::SerializableRead),
        (
            TxnRequest {
                success: vec![op(serializable())],
                failure: vec![op(get("k"))],
                ..Default::default()
            },
            TxnKind::Read,
        ),
        (branch(vec![op(set("k"))]), TxnKind::Write),
        (branch(vec![op(branch(vec![op(get("k"))]))]), TxnKind::Write),
    ];
    for (row, (request, expected)) in rows.into_iter().enumerate() {
        assert_eq!(txn_kind(&request), expected, "row {row}");
    }
}

#[test]
fn the_size_is_that_of_the_entry() {
    let limits = Limits { request_bytes: 1000, txn_ops: 128 };
    assert_eq!(limits.check_size(983), Ok(()));
    assert_eq!(limits.check_size(984), Err(Error::RequestTooLarge));
    assert_eq!(limits.receive_bytes(), 1000 + 524_288);
}

#[test]
fn transactions_may_lie_in_one_another_up_to_a_depth() {
    let nested = |depth: usize| {
        (1..depth).fold(TxnRequest::default(), |txn, _| TxnRequest {
            success: vec![RequestOp { request: Some(Request::RequestTxn(txn)) }],
            ..TxnRequest::default()
        })
    };
    for depth in 1..=60 {
        let expected = if depth <= TXN_DEPTH_MAX { Ok(()) } else { Err(Error::txn_too_deep()) };
        assert_eq!(txn(&nested(depth), &LIMITS), expected, "depth {depth}");
    }
}
