//! A checkpoint in openraft's hands: a handle, never the data.

use std::sync::Arc;

use holdfast_proto::peer;
use holdfast_store::{Export, ManifestInfo, ReceivedCheckpoint};
use prost::Message;

use crate::types::{
    ConvertError, SnapshotMeta, StoredMembership, log_id_of, stored_membership_from_wire,
    stored_membership_to_wire,
};

/// What openraft passes from the state machine to a peer, and from a peer to the state machine.
pub(crate) enum Checkpoint {
    /// On this member's disk, pinned while the handle lives.
    Local(Arc<Export>),
    /// Received and verified, ready to replace the state.
    Received(Box<ReceivedCheckpoint>),
    /// Not looked at, since the state is beyond it: openraft answers the leader and drops it.
    Superfluous,
}

/// The membership as the store keeps it.
pub(crate) fn membership_bytes(membership: &StoredMembership) -> bytes::Bytes {
    stored_membership_to_wire(membership).encode_to_vec().into()
}

/// The membership from what the store has kept; nothing is the membership before any.
pub(crate) fn membership_from_bytes(bytes: &[u8]) -> Result<StoredMembership, ConvertError> {
    let wire = peer::StoredMembership::decode(bytes)
        .map_err(|error| ConvertError::Undecodable(error.to_string()))?;
    stored_membership_from_wire(&wire)
}

/// What openraft wants to know of a manifest.
pub(crate) fn meta_of(info: &ManifestInfo) -> Result<SnapshotMeta, ConvertError> {
    Ok(SnapshotMeta {
        last_log_id: log_id_of(info.position),
        last_membership: membership_from_bytes(&info.membership)?,
    })
}
