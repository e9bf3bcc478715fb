//! Reads whose answers are used here, and not passed on as bytes.

use bytes::Bytes;
use holdfast_proto::etcdserverpb::{
    RangeRequest, RequestOp, ResponseHeader, TxnRequest, TxnResponse, range_request::SortOrder,
    range_request::SortTarget, request_op, response_op,
};
use holdfast_proto::mvccpb::KeyValue;
use prost::Message as _;

use super::Client;
use crate::kv;
use crate::status::Error;

/// Runs a transaction that was made here.
pub(super) async fn txn(services: &Client, txn: TxnRequest) -> Result<TxnResponse, Error> {
    let length = txn.encoded_len();
    kv::txn(services, &services.caller, txn, length).await
}

/// The keys of a range, and the header of the answer.
pub(super) async fn range(
    services: &Client,
    range: RangeRequest,
) -> Result<(ResponseHeader, Vec<KeyValue>), Error> {
    let success = vec![RequestOp { request: Some(request_op::Request::RequestRange(range)) }];
    let answer = txn(services, TxnRequest { success, ..TxnRequest::default() }).await?;
    let keys = keys_of(&answer, 0)?;
    Ok((answer.header.unwrap_or_default(), keys))
}

/// The keys that the range at `place` of a transaction found.
pub(super) fn keys_of(answer: &TxnResponse, place: usize) -> Result<Vec<KeyValue>, Error> {
    match answer.responses.get(place).and_then(|op| op.response.as_ref()) {
        Some(response_op::Response::ResponseRange(range)) => {
            let decoded = range.kvs.iter().map(|kv| kv.decode_message());
            decoded.collect::<Result<_, _>>().map_err(|error| Error::internal(error.to_string()))
        }
        other => unreachable!("a range was answered by {other:?}"),
    }
}

/// One key.
pub(super) fn key(key: &Bytes) -> RangeRequest {
    RangeRequest { key: key.clone(), ..RangeRequest::default() }
}

/// Of the keys that begin with `prefix`, the one created first.
pub(super) fn first_created(prefix: &Bytes) -> RangeRequest {
    RangeRequest {
        key: prefix.clone(),
        range_end: end_of(prefix),
        limit: 1,
        sort_order: SortOrder::Ascend as i32,
        sort_target: SortTarget::Create as i32,
        ..RangeRequest::default()
    }
}

/// Of the keys that begin with `prefix` and were created at or before a revision, the one created
/// last.
pub(super) fn last_created(prefix: &Bytes, max_create_revision: i64) -> RangeRequest {
    RangeRequest {
        sort_order: SortOrder::Descend as i32,
        max_create_revision,
        ..first_created(prefix)
    }
}

/// The end of the range of keys that begin with `prefix`, which ends with a slash.
pub(super) fn end_of(prefix: &Bytes) -> Bytes {
    let mut end = prefix.to_vec();
    let last = end.last_mut().expect("a prefix ends with a slash");
    *last += 1;
    end.into()
}
