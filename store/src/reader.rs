//! Reading the store, from any thread.

use bytes::Bytes;

use crate::command::{MemberAttributes, Range, Txn};
use crate::lease::{LeaseEvent, LeaseInfo};
use crate::{Fatal, Position, RangeResult, RecordBytes, Rejected, Response};

/// How much work a read may do where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Memory only, and little of it: see [`ReadError::WouldBlock`].
    Inline,
    /// Any amount, disk included.
    Blocking,
}

/// Why a read gave nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// It needs the disk, more than 64 KiB of records, more than 256 keys, or a sort by value.
    #[error("the read takes more than may be done inline")]
    WouldBlock,
    /// The store refuses it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// This member cannot go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// The hash of the history at one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC32-Castagnoli, as etcd computes it.
    pub hash: u32,
    /// The compacted revision it was computed under; -1 for none.
    pub compact_revision: i64,
    /// The revision it covers.
    pub hash_revision: i64,
    /// The published revision then.
    pub current_revision: i64,
}

/// How much the store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of block files and of what is not in one yet.
    pub total_bytes: u64,
    /// Bytes of records that are still part of the history.
    pub in_use_bytes: u64,
}

/// Reads at published revisions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {}

impl Reader {
    /// The published revision.
    pub fn revision(&self) -> i64 {
        1
    }
    /// The compacted revision; -1 before any compaction.
    pub fn compacted(&self) -> i64 {
        -1
    }
    /// The published log position.
    pub fn applied(&self) -> Position {
        Position::default()
    }
    /// One key at the published revision.
    pub fn get(
        &self,
        _key: &[u8],
        _effort: Effort,
    ) -> Result<(i64, Option<RecordBytes>), ReadError> {
        Ok((1, None))
    }
    /// Reads a range; the revision is the published one, for the response header.
    pub fn range(&self, _range: &Range, _effort: Effort) -> Result<(i64, RangeResult), ReadError> {
        Ok((1, RangeResult::default()))
    }
    /// Evaluates a transaction that only reads; [`Response::Txn`].
    pub fn txn(&self, _txn: &Txn, _effort: Effort) -> Result<(i64, Response), ReadError> {
        Ok((1, Response::Txn { succeeded: true, responses: Vec::new() }))
    }
    /// A range too big for one answer in memory, at a registered revision.
    pub fn stream(&self, _range: &Range) -> Result<RangeStream, ReadError> {
        Ok(RangeStream {})
    }
    /// The hash at a revision; 0 for the published one.
    pub fn hash_kv(&self, _revision: i64) -> Result<HashKv, ReadError> {
        Ok(HashKv { hash: 0, compact_revision: -1, hash_revision: 1, current_revision: 1 })
    }
    /// The hash of everything.
    pub fn hash_all(&self) -> Result<u32, ReadError> {
        Ok(0)
    }
    /// One lease.
    pub fn lease(&self, _id: i64) -> Option<LeaseInfo> {
        None
    }
    /// The keys attached to a lease, in order.
    pub fn lease_keys(&self, _id: i64) -> Vec<Bytes> {
        Vec::new()
    }
    /// All leases, by id.
    pub fn leases(&self) -> Vec<LeaseInfo> {
        Vec::new()
    }
    /// Begins (or ends) keeping lease events for [`Reader::take_lease_events`].
    pub fn subscribe_leases(&self, _on: bool) {}
    /// What happened to leases since the last call.
    pub fn take_lease_events(&self) -> Vec<LeaseEvent> {
        Vec::new()
    }
    /// What members have published of themselves.
    pub fn members(&self) -> Vec<MemberAttributes> {
        Vec::new()
    }
    /// The semantics level in force.
    pub fn level(&self) -> u32 {
        1
    }
    /// How much the store holds.
    pub fn sizes(&self) -> Sizes {
        Sizes::default()
    }
    /// Calls `then` when the compaction to `revision` has been carried out on the index; at once if
    /// it has.
    pub fn when_compacted(&self, _revision: i64, then: Box<dyn FnOnce() + Send>) {
        then();
    }
    /// Tells the store what time it is, in any monotonic milliseconds: ends registrations of
    /// readers that are older than 60 s. Call it every second or so.
    pub fn tick(&self, _now_milliseconds: u64) {}
}

/// A range at a registered revision, read in chunks.
#[derive(Debug)]
pub struct RangeStream {}

impl RangeStream {
    /// The published revision when the stream began, for the response header.
    pub fn revision(&self) -> i64 {
        1
    }
    /// As in [`RangeResult`].
    pub fn count(&self) -> i64 {
        0
    }
    /// As in [`RangeResult`].
    pub fn more(&self) -> bool {
        false
    }
    /// How many records there will be.
    pub fn records(&self) -> u64 {
        0
    }
    /// The sum of their lengths.
    pub fn record_bytes(&self) -> u64 {
        0
    }
    /// The length of all of them as repeated field of one message with a one-byte tag: each with
    /// its tag and length prefix.
    pub fn framed_bytes(&self) -> u64 {
        0
    }
    /// The next records: at least one, and then until either bound is reached; None at the end.
    pub fn next_chunk(
        &mut self,
        _max_bytes: usize,
        _max_keys: usize,
        _effort: Effort,
    ) -> Result<Option<Vec<RecordBytes>>, ReadError> {
        Ok(None)
    }
}
