//! The Maintenance service: what one member knows of itself, hashes, and moving the leader.
//!
//! There is nothing to defragment, so that call returns at once. Alarms are in `alarm.rs`, downgrades
//! in `downgrade.rs`.

use holdfast_proto::etcdserverpb::{
    DefragmentResponse, HashKvRequest, HashKvResponse, HashResponse, MoveLeaderRequest,
    MoveLeaderResponse, StatusResponse,
};
use holdfast_store::{Quota, Reader, Sizes};

use crate::services::{Services, Shared};
use crate::status::{Error, STATUS_NO_LEADER};
use crate::{alarm, downgrade};

/// What an empty store takes: clients divide by the size.
const EMPTY_BYTES: u64 = 4096;

/// What this member knows of itself.
pub fn status(services: &Services) -> StatusResponse {
    let status = services.node().status();
    let no_leader = status.leader.is_none().then(|| STATUS_NO_LEADER.to_owned());
    let errors = no_leader.into_iter().chain(alarm::status_errors(services)).collect();
    let sizes = sizes(&services.reader);
    StatusResponse {
        header: Some(services.headers.at(services.reader.visible())),
        version: services.shared.etcd_version.to_owned(),
        db_size: saturated(sizes.total_bytes),
        leader: status.leader.unwrap_or(0),
        raft_index: status.committed_index,
        raft_term: status.term,
        raft_applied_index: status.applied_index,
        errors,
        db_size_in_use: saturated(sizes.in_use_bytes),
        is_learner: status.is_learner,
        storage_version: minor_version(services.shared.etcd_version),
        db_size_quota: quota_bytes(&services.shared),
        downgrade_info: Some(downgrade::info(services)),
    }
}

/// How much the store holds, as clients and metrics are told.
pub(crate) fn sizes(reader: &Reader) -> Sizes {
    let Sizes { total_bytes, in_use_bytes } = reader.sizes();
    Sizes { total_bytes: total_bytes.max(in_use_bytes).max(EMPTY_BYTES), in_use_bytes }
}

/// The quota in force, which is the leader's setting; this member's own until there is one. -1
/// without a limit.
pub(crate) fn quota_bytes(shared: &Shared) -> i64 {
    match shared.node.reader().quota() {
        Quota { member: 0, .. } => shared.quota_bytes,
        Quota { bytes: 0, .. } => -1,
        Quota { bytes, .. } => saturated(bytes),
    }
}

fn saturated(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The minor version that `version` belongs to: 3.6.13 to 3.6.0.
pub fn minor_version(version: &str) -> String {
    match version.rsplit_once('.') {
        Some((minor, _)) => format!("{minor}.0"),
        None => version.to_owned(),
    }
}

/// The hash of everything that this member stores.
pub async fn hash(services: &Services) -> Result<HashResponse, Error> {
    services.port.published().await;
    let reader = services.reader.clone();
    let read = move || (reader.revision(), reader.hash_all());
    let (revision, hash) = services.shared.pool.run(read).await?;
    let hash = hash.map_err(|error| services.read_error(error))?;
    Ok(HashResponse { header: Some(services.headers.at(revision)), hash })
}

/// The hash of the history up to a revision.
pub async fn hash_kv(services: &Services, request: HashKvRequest) -> Result<HashKvResponse, Error> {
    // The client may have read at the revision that it asks for.
    services.port.published().await;
    let reader = services.reader.clone();
    let read = services.shared.pool.run(move || reader.hash_kv(request.revision)).await?;
    let hash = read.map_err(|error| services.read_error(error))?;
    Ok(HashKvResponse {
        header: Some(services.headers.at(hash.current_revision)),
        hash: hash.hash,
        compact_revision: hash.compact_revision,
        hash_revision: hash.hash_revision,
    })
}

/// Nothing to do; the response has no header.
pub fn defragment() -> DefragmentResponse {
    DefragmentResponse { header: None }
}

/// Hands leadership to a voter; only the leader does. The response has no header.
pub async fn move_leader(
    services: &Services,
    request: MoveLeaderRequest,
) -> Result<MoveLeaderResponse, Error> {
    let node = services.node();
    if !node.status().is_leader {
        return Err(Error::NotLeader);
    }
    let target = node.members().into_iter().find(|member| member.id == request.target_id);
    // One that was added as a voter cannot lead before it has caught up.
    if target.is_none_or(|member| member.is_learner) || !node.votes(request.target_id) {
        return Err(Error::BadLeaderTransferee);
    }
    if request.target_id == node.identity().member_id
        || node.transfer_leadership(Some(request.target_id)).await
    {
        return Ok(MoveLeaderResponse { header: None });
    }
    Err(Error::Timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_version_has_no_patch() {
        assert_eq!(minor_version("3.6.13"), "3.6.0");
    }
}
