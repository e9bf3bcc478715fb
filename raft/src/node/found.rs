//! Founding a cluster: asking the peers first, then initialising with the membership of the flags.
//!
//! An emptied directory has forgotten what its member promised. Its peers have not: if they know
//! the member, it must not start without its log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_proto::peer;
use holdfast_store::Fatal;
use openraft::errors::{InitializeError, RaftError};
use tokio::sync::watch;
use tonic::Request;

use crate::config::{ClusterState, NodeConfig};
use crate::error::OpenError;
use crate::identity::Identity;
use crate::node::plan::Plan;
use crate::peer::{Lane, Peers};
use crate::propose::Raft;
use crate::shared::Shared;
use crate::types::PeerNode;

/// How long each peer has to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a member that is not ready asks again.
const AGAIN: Duration = Duration::from_secs(5);

/// Founds the cluster of the plan, unless its peers have done so or this member is to join one.
pub(crate) async fn found(
    raft: &Raft,
    plan: &Plan,
    config: &NodeConfig,
    identity: Identity,
    peers: &Peers,
) -> Result<(), OpenError> {
    let is_founded = ask_peers(plan, identity, peers).await?;
    if is_founded || config.initial_cluster_state != ClusterState::New {
        return Ok(());
    }
    if plan.members.is_empty() {
        let text = "the data directory holds no log yet, and the flags describe no cluster";
        return Err(OpenError::Misconfigured(text.to_owned()));
    }
    if identity.cluster_id != plan.cluster_id {
        let of = |cluster: u64| format!("{:x} of cluster {cluster:x}", identity.member_id);
        return Err(OpenError::WrongMember {
            directory: config.data_directory.display().to_string(),
            found: of(identity.cluster_id),
            expected: of(plan.cluster_id),
        });
    }
    initialise(raft, &plan.members).await
}

/// Asks again whenever no leader is heard, or this member has not become ready. A peer that did not
/// answer at first may know the member by another directory; it refuses every call of this one, and
/// so would everybody, without a word. And a member that has been removed is sent nothing any more.
pub(crate) async fn ask_again(
    mut plan: Plan,
    shared: Arc<Shared>,
    peers: Arc<Peers>,
    ready: watch::Receiver<bool>,
) {
    let identity = peers.gate().identity();
    loop {
        tokio::time::sleep(AGAIN).await;
        if *ready.borrow() && shared.status.leader().is_some() {
            continue;
        }
        let membership = shared.membership();
        if membership.nodes().next().is_some() {
            plan.members = membership.nodes().map(|(id, node)| (*id, node.clone())).collect();
        }
        for answer in ask_all(&plan, identity, &peers).await {
            let known = answer.known_incarnation;
            if answer.removed {
                shared.dismiss();
            } else if known != 0 && known != identity.incarnation {
                shared.fail(Fatal::new(OpenError::AlreadyBootstrapped(identity.member_id)));
            }
        }
    }
}

/// The answers of those peers that give one.
async fn ask_all(plan: &Plan, identity: Identity, peers: &Peers) -> Vec<peer::InquireResponse> {
    let others = plan.members.iter().filter(|(member, _)| **member != identity.member_id);
    let answers = join_all(others.map(|(member, node)| ask(*member, node, identity, peers))).await;
    answers.into_iter().flatten().collect()
}

/// Asks every peer about this member. True if the cluster has been founded without it.
async fn ask_peers(plan: &Plan, identity: Identity, peers: &Peers) -> Result<bool, OpenError> {
    let mut founded = false;
    for answer in ask_all(plan, identity, peers).await {
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
            silent(member, node, status.message());
            None
        }
        Err(_) => {
            silent(member, node, &format!("no answer within {} s", PATIENCE.as_secs()));
            None
        }
    }
}

fn silent(member: u64, node: &PeerNode, error: &str) {
    let (peer, urls) = (format_args!("{member:x}"), &node.peer_urls);
    tracing::warn!(peer, ?urls, error, "a peer does not answer; it may not have started yet");
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
