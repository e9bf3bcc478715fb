//! Who is who, by the flags.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::NodeConfig;
use crate::error::OpenError;
use crate::identity::{Identity, cluster_id, member_id};
use crate::types::PeerNode;

/// The initial cluster.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) member_id: u64,
    pub(crate) cluster_id: u64,
    pub(crate) members: BTreeMap<u64, PeerNode>,
}

impl Plan {
    /// Of a member whose directory knows more than its flags.
    pub(crate) fn of(identity: Identity) -> Self {
        let Identity { member_id, cluster_id, .. } = identity;
        Self { member_id, cluster_id, members: BTreeMap::new() }
    }
}

/// The names of the initial cluster with their URLs, of which this member's are checked.
pub(crate) fn cluster(config: &NodeConfig) -> Result<Vec<(String, Vec<String>)>, OpenError> {
    let own = || (config.name.clone(), config.initial_advertise_peer_urls.clone());
    let cluster = match config.initial_cluster.is_empty() {
        true => vec![own()],
        false => config.initial_cluster.clone(),
    };
    if let Some((name, _)) = cluster.iter().find(|(_, urls)| urls.is_empty()) {
        return misconfigured(format!("member {name} has no peer URL"));
    }
    match cluster.iter().find(|(name, _)| *name == config.name) {
        Some((_, urls)) => check_urls(config, urls)?,
        None => {
            let name = &config.name;
            return misconfigured(format!(
                "couldn't find local name {name:?} in the initial cluster"
            ));
        }
    }
    Ok(cluster)
}

/// Reads the flags; the identity of members follows from their URLs and the token.
pub(crate) fn plan(config: &NodeConfig) -> Result<Plan, OpenError> {
    let mut members = BTreeMap::new();
    let token = &config.initial_cluster_token;
    for (name, urls) in cluster(config)? {
        if members.insert(member_id(&urls, token), PeerNode::new(&urls)).is_some() {
            return misconfigured(format!("two members have the peer URLs of {name}"));
        }
    }
    let member_id = member_id(&config.initial_advertise_peer_urls, token);
    let ids: Vec<u64> = members.keys().copied().collect();
    Ok(Plan { member_id, cluster_id: cluster_id(&ids), members })
}

fn check_urls(config: &NodeConfig, urls: &[String]) -> Result<(), OpenError> {
    let advertised: BTreeSet<&String> = config.initial_advertise_peer_urls.iter().collect();
    if advertised != urls.iter().collect() {
        return misconfigured(format!(
            "--initial-cluster has {} for {}, but --initial-advertise-peer-urls has {}",
            urls.join(","),
            config.name,
            config.initial_advertise_peer_urls.join(",")
        ));
    }
    Ok(())
}

fn misconfigured<T>(what: String) -> Result<T, OpenError> {
    Err(OpenError::Misconfigured(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, own: &str, cluster: &[(&str, &str)]) -> NodeConfig {
        let mut config = NodeConfig::new(name, "/data");
        config.initial_advertise_peer_urls = vec![own.to_owned()];
        let url = |url: &&str| vec![(*url).to_owned()];
        config.initial_cluster = cluster.iter().map(|(n, u)| ((*n).to_owned(), url(u))).collect();
        config
    }

    #[test]
    fn every_member_makes_the_same_plan() {
        let cluster = [("a", "http://a:1"), ("b", "http://b:1")];
        let a = plan(&config("a", "http://a:1", &cluster)).expect("valid");
        let b = plan(&config("b", "http://b:1", &cluster)).expect("valid");
        assert_eq!((a.cluster_id, &a.members), (b.cluster_id, &b.members));
        assert_ne!(a.member_id, b.member_id);
    }

    #[test]
    fn contradictions_are_refused() {
        let cluster = [("a", "http://a:1"), ("b", "http://b:1")];
        for (name, own) in [("c", "http://c:1"), ("a", "http://b:1")] {
            let refused = plan(&config(name, own, &cluster)).expect_err(name);
            assert!(matches!(refused, OpenError::Misconfigured(_)), "{refused}");
        }
        let twice = [("a", "http://a:1"), ("b", "http://a:1")];
        assert!(plan(&config("a", "http://a:1", &twice)).is_err());
    }
}
