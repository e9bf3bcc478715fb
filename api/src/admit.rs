//! Checks a request before anything is read or proposed, in etcd's order and with its errors.
//!
//! Looks only at the request and the limits, never at the store: what depends on the state is
//! decided when a command is applied. Overlaps within a transaction are in `admit/overlap.rs`.

mod overlap;

#[cfg(test)]
mod tests;

use holdfast_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    range_request::{SortOrder, SortTarget},
    request_op::Request,
};

use crate::status::Error;

/// A lease may not be granted for longer, in seconds.
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;

/// How deep transactions may lie in one another. Every member decodes what is in the log, and
/// protobuf decoders do not follow any depth: prost follows a hundred messages, and a transaction
/// within another is two.
pub const TXN_DEPTH_MAX: usize = 45;

/// What one request may be, from the flags.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `--max-request-bytes`.
    pub request_bytes: usize,
    /// `--max-txn-ops`.
    pub txn_ops: usize,
}

/// Bytes that a message may have beyond `--max-request-bytes` before it is not even received.
const RECEIVE_OVERHEAD: usize = 512 << 10;

/// What etcd's log entry adds to the request it holds: an id of ten bytes in a header, and the tag
/// of the request.
const ENTRY_OVERHEAD: usize = 2 + 1 + 1 + 10 + 1;

impl Limits {
    /// The longest message that is received.
    pub fn receive_bytes(&self) -> usize {
        self.request_bytes + RECEIVE_OVERHEAD
    }

    /// Refuses a request whose log entry would be too large; `length` is its encoding's.
    pub fn check_size(&self, length: usize) -> Result<(), Error> {
        let entry = ENTRY_OVERHEAD + prost::length_delimiter_len(length) + length;
        if entry > self.request_bytes { Err(Error::RequestTooLarge) } else { Ok(()) }
    }
}

/// Checks a range, within a transaction or by itself.
pub fn range(request: &RangeRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err()
        || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(Error::InvalidSortOption);
    }
    Ok(())
}

/// Checks a range that is to be answered as a stream.
pub fn range_stream(request: &RangeRequest) -> Result<(), Error> {
    range(request)?;
    let by_key_ascending = request.sort_order == SortOrder::None as i32
        || (request.sort_order == SortOrder::Ascend as i32
            && request.sort_target == SortTarget::Key as i32);
    if !by_key_ascending {
        return Err(Error::unimplemented("RangeStream does not support custom sort orders"));
    }
    if has_revision_filters(request) {
        return Err(Error::unimplemented("RangeStream does not support revision filters"));
    }
    Ok(())
}

/// Whether the range leaves out versions by their revisions.
fn has_revision_filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

/// Checks a put, within a transaction or by itself.
pub fn put(request: &PutRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

/// Checks a delete, within a transaction or by itself.
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), Error> {
    if request.key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

/// Checks a transaction, both branches.
pub fn txn(request: &TxnRequest, limits: &Limits) -> Result<(), Error> {
    txn_level(request, limits.txn_ops, TXN_DEPTH_MAX)?;
    overlap::check(&request.success)?;
    overlap::check(&request.failure)
}

/// Checks one level; what it uses of the budget is taken from the levels within it.
fn txn_level(request: &TxnRequest, budget: usize, depth: usize) -> Result<(), Error> {
    let depth = depth.checked_sub(1).ok_or_else(Error::txn_too_deep)?;
    let used = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = budget.checked_sub(used).ok_or(Error::TooManyOps)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    request.success.iter().chain(&request.failure).try_for_each(|op| operation(op, left, depth))
}

fn operation(operation: &RequestOp, budget: usize, depth: usize) -> Result<(), Error> {
    match &operation.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => txn_level(request, budget, depth),
        None => Err(Error::KeyNotFound),
    }
}

/// How a transaction is to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnKind {
    /// It may change something, and is replicated. A transaction within makes one of these.
    Write,
    /// It only reads, and must see every acknowledged write.
    Read,
    /// It only reads, from this member as it is.
    SerializableRead,
}

/// Which kind a transaction is. One without any operation is a serializable read, as in etcd.
pub fn txn_kind(request: &TxnRequest) -> TxnKind {
    let mut serializable = true;
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(Request::RequestRange(range)) => serializable &= range.serializable,
            _ => return TxnKind::Write,
        }
    }
    if serializable { TxnKind::SerializableRead } else { TxnKind::Read }
}

/// Checks the time to live of a lease to be granted.
pub fn lease_ttl(ttl: i64) -> Result<(), Error> {
    if ttl > LEASE_TTL_MAX { Err(Error::LeaseTtlTooLarge) } else { Ok(()) }
}
