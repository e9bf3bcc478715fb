//! Joining a cluster: its members are asked who they are, and which of them this one is.
//!
//! Ids cannot be computed from the flags: that of a member added later depends on when it was added.
//! What the flags say must be what the cluster says, URL by URL. A peer that lags behind may still
//! know a member that has been removed since and was reached at the same URLs, so a quorum has to
//! answer, and nobody may know the id found: what is written down once is for good.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_proto::peer;
use tonic::Request;

use crate::config::{NodeConfig, Seams};
use crate::error::OpenError;
use crate::identity::Identity;
use crate::node::plan::{Plan, cluster};
use crate::peer::{Gate, Lane, Peers, Standing};
use crate::types::{PeerNode, StoredMembership, stored_membership_from_wire};

/// How long each peer has to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// One that joins knows no id yet.
const NOBODY: Identity = Identity { member_id: 0, cluster_id: 0, incarnation: 0 };

/// What a peer said of the cluster.
struct Report {
    cluster_id: u64,
    member_id: u64,
    membership: StoredMembership,
}

/// The plan of a member that has no data yet and is to join the cluster of its flags.
pub(crate) async fn plan(config: &NodeConfig, seams: &Seams) -> Result<Plan, OpenError> {
    let listed = cluster(config)?;
    let others: Vec<&Vec<String>> =
        listed.iter().filter(|(name, _)| *name != config.name).map(|(_, urls)| urls).collect();
    let gate = Gate::new(NOBODY, std::sync::Arc::new(|_| Standing::Unknown));
    let counts = std::sync::Arc::default();
    let peers = Peers::new(gate, seams.connector.clone(), config.election_timeout, counts);
    let asked = others.iter().zip(1..).map(|(urls, number)| ask(&peers, number, urls));
    let (mut reports, mut silent) = (Vec::new(), Vec::new());
    for answer in join_all(asked).await {
        match answer {
            Ok(report) => reports.push(report),
            Err(why) => silent.push(why),
        }
    }
    // A member that lags behind may not know of this one yet.
    let newest = reports.iter().max_by_key(|report| *report.membership.log_id());
    let Some(newest) = newest else {
        let asked = match silent.is_empty() {
            true => "--initial-cluster names no other member".to_owned(),
            false => silent.join("; "),
        };
        return Err(OpenError::NoCluster(asked));
    };
    if reports.iter().any(|report| report.cluster_id != newest.cluster_id) {
        return other("the given URLs belong to different clusters".to_owned());
    }
    let plan = assign(config, &listed, newest)?;
    check_quorum(&reports, newest, plan.member_id, &silent)?;
    let asked =
        others.iter().zip(1..).map(|(urls, number)| inquire(&peers, number, urls, plan.member_id));
    for answer in join_all(asked).await.into_iter().flatten() {
        if answer.removed {
            return Err(OpenError::Removed(plan.member_id));
        }
        if answer.known_incarnation != 0 {
            return Err(OpenError::AlreadyBootstrapped(plan.member_id));
        }
    }
    Ok(plan)
}

/// Whether a quorum of the voters has answered, so that somebody knows who was removed.
fn check_quorum(
    reports: &[Report],
    newest: &Report,
    own: u64,
    silent: &[String],
) -> Result<(), OpenError> {
    let voters = newest.membership.voter_ids().filter(|voter| *voter != own).count();
    let answered = newest
        .membership
        .voter_ids()
        .filter(|voter| *voter != own && reports.iter().any(|report| report.member_id == *voter));
    if answered.count() <= voters / 2 {
        return Err(OpenError::NoCluster(format!("no quorum answers: {}", silent.join("; "))));
    }
    Ok(())
}

/// `number` tells the connections apart.
async fn ask(peers: &Peers, number: u64, urls: &[String]) -> Result<Report, String> {
    let shown = urls.join(",");
    let answer = inquire(peers, number, urls, 0).await?;
    let (cluster_id, member_id) = (answer.cluster_id, answer.member_id);
    let membership = stored_membership_from_wire(&answer.membership.unwrap_or_default())
        .map_err(|error| format!("{shown}: {error}"))?;
    if membership.nodes().next().is_none() {
        return Err(format!("{shown}: has no cluster itself yet"));
    }
    Ok(Report { cluster_id, member_id, membership })
}

/// What a peer knows of `member`, and of the cluster.
async fn inquire(
    peers: &Peers,
    number: u64,
    urls: &[String],
    member: u64,
) -> Result<peer::InquireResponse, String> {
    let shown = urls.join(",");
    let mut request = Request::new(peer::InquireRequest { member });
    peers.gate().sign(&mut request, 0);
    let mut client = peers.client(number, urls, Lane::Pulse);
    match tokio::time::timeout(PATIENCE, client.inquire(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(format!("{shown}: {}", status.message())),
        Err(_) => Err(format!("{shown}: no answer within {PATIENCE:?}")),
    }
}

/// Finds every member of the cluster in the flags, by its URLs.
fn assign(
    config: &NodeConfig,
    listed: &[(String, Vec<String>)],
    report: &Report,
) -> Result<Plan, OpenError> {
    let members: BTreeMap<u64, PeerNode> =
        report.membership.nodes().map(|(member, node)| (*member, node.clone())).collect();
    if members.len() != listed.len() {
        return other(format!(
            "member count is unequal: the cluster has {}, and --initial-cluster has {}",
            members.len(),
            listed.len()
        ));
    }
    let mut own = None;
    for (member, node) in &members {
        let Some((name, _)) =
            listed.iter().find(|(_, urls)| PeerNode::new(urls).peer_urls == node.peer_urls)
        else {
            return other(format!(
                "PeerURLs: no match found for existing member ({member:x}, {:?})",
                node.peer_urls
            ));
        };
        if *name == config.name {
            own = Some(*member);
        }
    }
    match own {
        Some(member_id) => Ok(Plan { member_id, cluster_id: report.cluster_id, members }),
        None => other(format!("{:?} is no member of the cluster", config.name)),
    }
}

fn other<T>(what: String) -> Result<T, OpenError> {
    Err(OpenError::OtherCluster(what))
}
