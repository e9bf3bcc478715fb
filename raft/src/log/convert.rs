//! Between openraft's entries and the write-ahead log's. Memberships are encoded as peers send
//! them.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_proto::peer;
use openraft::EntryPayload;
use prost::Message;

use crate::types::{
    Batch, ConvertError, Entry, LogId, Membership, Vote, log_id, membership_from_wire,
    membership_to_wire,
};
use crate::wal::{self, EntryKind, Memo};

/// Keeps the content as the memo, so that reading the entry back decodes nothing.
pub(super) fn to_wal(entry: Entry) -> wal::Entry {
    let id = id_to_wal(&entry.log_id);
    let (kind, payload, memo) = match entry.payload {
        EntryPayload::Blank => (EntryKind::Blank, Bytes::new(), Memo::default()),
        EntryPayload::Normal(batch) => {
            (EntryKind::Normal, batch.encoded().clone(), Memo(Some(Arc::new(batch))))
        }
        EntryPayload::Membership(membership) => {
            let encoded = membership_to_wire(&membership).encode_to_vec();
            (EntryKind::Membership, encoded.into(), Memo(Some(Arc::new(membership))))
        }
    };
    wal::Entry { id, kind, payload, memo }
}

/// An error says that the payload is not what its kind demands, although its checksum is right.
pub(super) fn to_raft(entry: wal::Entry) -> Result<Entry, ConvertError> {
    let wal::Entry { id, kind, payload, memo } = entry;
    let payload = match kind {
        EntryKind::Blank => EntryPayload::Blank,
        EntryKind::Normal => {
            let batch = remembered::<Batch>(&memo);
            EntryPayload::Normal(batch.unwrap_or_else(|| Batch::new(payload)))
        }
        EntryKind::Membership => EntryPayload::Membership(match remembered(&memo) {
            Some(membership) => membership,
            None => membership_from_bytes(payload)?,
        }),
    };
    Ok(Entry { log_id: id_to_raft(id), payload })
}

fn remembered<T: Clone + 'static>(memo: &Memo) -> Option<T> {
    memo.0.as_ref().and_then(|memo| memo.downcast_ref::<T>()).cloned()
}

fn membership_from_bytes(payload: Bytes) -> Result<Membership, ConvertError> {
    let wire = peer::Membership::decode(payload);
    membership_from_wire(&wire.map_err(|error| ConvertError::Undecodable(error.to_string()))?)
}

pub(super) fn id_to_wal(log_id: &LogId) -> wal::LogId {
    wal::LogId { term: *log_id.leader_id, index: log_id.index }
}

pub(super) fn id_to_raft(id: wal::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub(super) fn vote_to_wal(vote: &Vote) -> wal::Vote {
    let leader = vote.leader_id;
    wal::Vote { term: leader.term, node: Some(leader.voted_for), committed: vote.committed }
}

pub(super) fn vote_to_raft(vote: wal::Vote) -> Vote {
    // Every vote written here names a member.
    let node = vote.node.unwrap_or_default();
    match vote.committed {
        true => Vote::new_committed(vote.term, node),
        false => Vote::new(vote.term, node),
    }
}
