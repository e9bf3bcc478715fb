//! `--force-new-cluster`: a member whose cluster is lost goes on alone, with its data.
//!
//! One entry is appended to its log before Raft begins: a membership in which it is the only voter.
//! The log is kept whole. What stands there may have been acknowledged by a majority that is gone, and
//! to this member alone nothing says that it was not. By that entry the others are removed members,
//! which are refused for ever; each of them could be made a cluster of its own in the same way.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_store::Fatal;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::{EntryPayload, StorageHelper};

use crate::config::NodeConfig;
use crate::error::OpenError;
use crate::log::Log;
use crate::machine::Machine;
use crate::types::{Entry, Membership, PeerNode, StoredMembership, log_id};

/// Makes `member` the only one of its cluster. Nothing is written if it is so already, or if nothing
/// is known yet of any cluster.
pub(super) async fn make_alone(
    mut log: Log,
    mut machine: Machine,
    config: &NodeConfig,
    member: u64,
) -> Result<(), OpenError> {
    let mut helper = StorageHelper::new(&mut log, &mut machine);
    // As every start does, it lets the log begin after a checkpoint that goes further.
    helper.get_initial_state().await.map_err(Fatal::new)?;
    let memberships = helper.get_membership().await.map_err(Fatal::new)?;
    let Some(alone) = only(memberships.effective(), config, member) else { return Ok(()) };
    let state = log.get_log_state().await.map_err(Fatal::new)?;
    let Some(last) = state.last_log_id else { return Ok(()) };
    let vote = log.read_vote().await.map_err(Fatal::new)?;
    // A vote is never older than the log that follows it.
    let term = vote.map_or(0, |vote| vote.leader_id.term).max(*last.leader_id);
    let entry =
        Entry { log_id: log_id(term, last.index + 1), payload: EntryPayload::Membership(alone) };
    log.blocking_append([entry]).await.map_err(Fatal::new)?;
    tracing::warn!(
        index = last.index + 1,
        "this member is a cluster of its own from now on, and no other member may come back"
    );
    Ok(())
}

/// The membership of `member` alone; none if that is the one in force.
fn only(effective: &Arc<StoredMembership>, config: &NodeConfig, member: u64) -> Option<Membership> {
    let is_alone = effective.voter_ids().eq([member]) && effective.nodes().count() == 1;
    if is_alone || effective.nodes().next().is_none() {
        return None;
    }
    let urls = effective.get_node(&member).map(|node| &node.peer_urls);
    let node = PeerNode::new(urls.unwrap_or(&config.initial_advertise_peer_urls));
    let nodes = BTreeMap::from([(member, node)]);
    Some(Membership::new(vec![[member].into()], nodes).expect("the voter has a node"))
}
