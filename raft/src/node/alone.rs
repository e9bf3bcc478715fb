//! `--force-new-cluster`: a member whose cluster is lost goes on alone, with its data.
//!
//! One entry is appended to its log before Raft begins: a membership in which it is the only voter.
//! The log is kept whole. What stands there may have been acknowledged by a majority that is gone, and
//! to this member alone nothing says that it was not.
//!
//! That majority may not be gone at all. So the cluster gets another id, and the members of the old
//! one are strangers from then on, which can neither harm this one nor be told that they are removed:
//! they keep their data, and what they go on to acknowledge. The id is on disk before the entry, and
//! says where the entry will stand: who stops in between gives the flag again.
//!
//! The flag acts once. Left in place, it changes nothing while the member is alone, and is refused
//! once others have joined: they may acknowledge what this log does not hold. A start without the
//! flag lets it act again.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_store::Fatal;
use holdfast_store::files::Files;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::{EntryPayload, StorageHelper};

use crate::config::NodeConfig;
use crate::directory::{self, Marks};
use crate::error::OpenError;
use crate::identity::{Identity, forced_cluster_id};
use crate::log::Log;
use crate::machine::Machine;
use crate::types::{Entry, Membership, PeerNode, StoredMembership, log_id};

/// What a member starts with.
pub(super) struct Start<'a> {
    pub(super) config: &'a NodeConfig,
    pub(super) files: &'a dyn Files,
}

impl Start<'_> {
    /// Does what the flag asks for, and gives the identity that counts from then on. Nobody may have
    /// been served yet.
    pub(super) async fn settle(
        &self,
        mut log: Log,
        machine: Machine,
        identity: Identity,
    ) -> Result<Identity, OpenError> {
        let mark = directory::marks(&self.config.data_directory, self.files)?.forced;
        let is_forced = self.config.force_new_cluster;
        if !is_forced && mark.is_none() {
            return Ok(identity);
        }
        let last = log.ends().1.unwrap_or(0);
        let is_unfinished = mark.is_some_and(|index| last < index);
        if !is_forced && is_unfinished {
            return Err(OpenError::ForceUnfinished);
        }
        let member = identity.member_id;
        let effective = effective(&mut log, machine, member).await?;
        let is_alone = effective.voter_ids().eq([member]) && effective.nodes().count() == 1;
        if is_alone {
            commit(&mut log).await?;
        }
        if !is_forced {
            self.record(identity, None)?;
            return Ok(identity);
        }
        let has_acted = mark.is_some() && !is_unfinished;
        if is_alone || effective.nodes().next().is_none() {
            if !has_acted {
                self.record(identity, Some(0))?;
            }
            return Ok(identity);
        }
        if has_acted {
            return Err(OpenError::ForcedBefore);
        }
        self.force(log, &effective, identity, is_unfinished).await
    }

    /// Begun before, the cluster has its new id.
    async fn force(
        &self,
        mut log: Log,
        effective: &StoredMembership,
        before: Identity,
        is_begun: bool,
    ) -> Result<Identity, OpenError> {
        let alone = only(effective, before.member_id)?;
        let state = log.get_log_state().await.map_err(Fatal::new)?;
        let last = state.last_log_id.expect("a membership has stood in the log");
        let index = last.index + 1;
        let cluster_id = match is_begun {
            true => before.cluster_id,
            false => forced_cluster_id(before, index),
        };
        let identity = Identity { cluster_id, ..before };
        self.record(identity, Some(index))?;
        let vote = log.read_vote().await.map_err(Fatal::new)?;
        // A vote is never older than the log that follows it.
        let term = vote.map_or(0, |vote| vote.leader_id.term).max(*last.leader_id);
        let payload = EntryPayload::Membership(alone);
        let entry = Entry { log_id: log_id(term, index), payload };
        log.blocking_append([entry]).await.map_err(Fatal::new)?;
        commit(&mut log).await?;
        let cluster = format_args!("{cluster_id:x}");
        tracing::warn!(cluster, index, "this member is a cluster of its own from now on");
        Ok(identity)
    }

    fn record(&self, identity: Identity, forced: Option<u64>) -> Result<(), OpenError> {
        let marks = Marks { forced, log_apart: self.config.log_directory.is_some() };
        directory::record(&self.config.data_directory, self.files, identity, marks)
    }
}

/// The membership of `member` alone, which has to be in the one in force: one that removes it would
/// be applied before its own.
fn only(effective: &StoredMembership, member: u64) -> Result<Membership, OpenError> {
    let node = effective.get_node(&member).ok_or(OpenError::NotNamed(member))?;
    let nodes = BTreeMap::from([(member, PeerNode::new(&node.peer_urls))]);
    Ok(Membership::new(vec![[member].into()], nodes).expect("the voter has a node"))
}

/// The newest membership in the log, once all that is known to be committed has been applied.
async fn effective(
    log: &mut Log,
    mut machine: Machine,
    member: u64,
) -> Result<Arc<StoredMembership>, OpenError> {
    let shared = machine.shared.clone();
    let mut helper = StorageHelper::new(log, &mut machine).with_id(member);
    // As every start does, it lets the log begin after a checkpoint that goes further.
    helper.get_initial_state().await.map_err(Fatal::new)?;
    if shared.is_removed(member) {
        return Err(OpenError::Removed(member));
    }
    let memberships = helper.get_membership().await.map_err(Fatal::new)?;
    Ok(memberships.effective().clone())
}

/// What the log of an only voter holds is committed. Known to be, it is applied before anybody is
/// served: who is removed by it is removed from the first call on.
async fn commit(log: &mut Log) -> Result<(), OpenError> {
    let state = log.get_log_state().await.map_err(Fatal::new)?;
    log.save_committed(state.last_log_id).await.map_err(Fatal::new)?;
    Ok(())
}
