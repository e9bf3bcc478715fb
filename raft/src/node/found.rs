//! Founding a cluster: asking the peers first, then initialising with the membership of the flags.
//!
//! An emptied directory has forgotten what its member promised. Its peers have not: if they know
//! the member, it must not start without its log.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_proto::peer;
use openraft::errors::{InitializeError, RaftError};
use tonic::Request;

use crate::config::{ClusterState, NodeConfig};
use crate::error::OpenError;
use crate::identity::Identity;
use crate::node::plan::Plan;
use crate::peer::{Lane, Peers};
use crate::propose::Raft;
use crate::types::PeerNode;

/// How long each peer has to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Founds the cluster of the plan, unless its peers have done so or this member is to join one.
pub(crate) async fn found(
    raft: &Raft,
    plan: &Plan,
    config: &NodeConfig,
    identity: Identity,
    peers: &Peers,
) -> Result<(), OpenError> {
    if identity.cluster_id != plan.cluster_id {
        let of = |cluster: u64| format!("{:x} of cluster {cluster:x}", identity.member_id);
        return Err(OpenError::WrongMember {
            directory: config.data_directory.display().to_string(),
            found: of(identity.cluster_id),
            expected: of(plan.cluster_id),
        });
    }
    let is_founded = ask_peers(plan, identity, peers).await?;
    if is_founded || config.initial_cluster_state != ClusterState::New {
        return Ok(());
    }
    initialise(raft, &plan.members).await
}

/// Asks every peer about this member. True if the cluster has been founded without it.
async fn ask_peers(plan: &Plan, identity: Identity, peers: &Peers) -> Result<bool, OpenError> {
    let others = plan.members.iter().filter(|(member, _)| **member != identity.member_id);
    let answers = join_all(others.map(|(member, node)| ask(*member, node, identity, peers))).await;
    let mut founded = false;
    for answer in answers.into_iter().flatten() {
        if answer.removed {
            return Err(OpenError::Removed(identity.member_id));
        }
        // A member that a peer knows has had a log, and this one has none: it was emptied, whether
        // or not its identity was left.
        if answer.known_incarnation != 0 {
            return Err(OpenError::AlreadyBootstrapped(identity.member_id));
        }
        founded |= answer.bootstrapped;
    }
    Ok(founded)
}

/// A peer that cannot be asked knows nothing: it may not have started.
async fn ask(
    member: u64,
    node: &PeerNode,
    identity: Identity,
    peers: &Peers,
) -> Option<peer::InquireResponse> {
    let mut request = Request::new(peer::InquireRequest { member: identity.member_id });
    peers.gate().sign(&mut request, member);
    let mut client = peers.client(member, &node.peer_urls, Lane::Pulse);
    match tokio::time::timeout(PATIENCE, client.inquire(request)).await {
        Ok(Ok(answer)) => Some(answer.into_inner()),
        Ok(Err(status)) => {
            tracing::info!(member = format_args!("{member:x}"), %status, "a peer does not answer");
            None
        }
        Err(_) => None,
    }
}

/// Gives an empty log its first membership, the same on every member.
async fn initialise(raft: &Raft, members: &BTreeMap<u64, PeerNode>) -> Result<(), OpenError> {
    match raft.initialize(members.clone()).await {
        Ok(()) => Ok(()),
        // A leader was faster.
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(OpenError::Fatal(holdfast_store::Fatal::new(error))),
    }
}
