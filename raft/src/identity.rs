//! Who a member is: ids computed from the flags exactly as etcd computes them.

use sha1::{Digest, Sha1};

/// Who a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The member.
    pub member_id: u64,
    /// Its cluster.
    pub cluster_id: u64,
    /// The random number of its data directory.
    pub incarnation: u64,
}

/// Who a member is within its cluster. The cluster's id can change while the member starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) member_id: u64,
    pub(crate) incarnation: u64,
}

impl From<Identity> for Own {
    fn from(identity: Identity) -> Self {
        Self { member_id: identity.member_id, incarnation: identity.incarnation }
    }
}

/// The id of a member of the initial cluster.
pub fn member_id(peer_urls: &[String], token: &str) -> u64 {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    let mut hash = Sha1::new();
    hash.update(urls.concat());
    hash.update(token);
    first_eight(&hash.finalize())
}

/// The id of a member added at `seconds` since 1970.
pub fn added_member_id(peer_urls: &[String], token: &str, seconds: u64) -> u64 {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    let mut hash = Sha1::new();
    hash.update(urls.concat());
    hash.update(token);
    hash.update(seconds.to_string());
    first_eight(&hash.finalize())
}

/// The id of the cluster that `members` found.
pub fn cluster_id(members: &[u64]) -> u64 {
    let mut members = members.to_vec();
    members.sort_unstable();
    let mut hash = Sha1::new();
    for member in members {
        hash.update(member.to_be_bytes());
    }
    first_eight(&hash.finalize())
}

/// The id of a cluster whose members were all filled with what has this digest. `planned` is the id
/// that they would have without it.
pub fn restored_cluster_id(planned: u64, digest: &[u8]) -> u64 {
    let mut hash = Sha1::new();
    hash.update(planned.to_be_bytes());
    hash.update(digest);
    first_eight(&hash.finalize())
}

/// The id of the cluster that a member of the cluster `before` becomes by the entry at `index`, which
/// nobody else has: those of the old one are strangers to it.
pub(crate) fn forced_cluster_id(before: Identity, index: u64) -> u64 {
    let mut hash = Sha1::new();
    hash.update(before.cluster_id.to_be_bytes());
    hash.update(before.member_id.to_be_bytes());
    hash.update(before.incarnation.to_be_bytes());
    hash.update(index.to_be_bytes());
    first_eight(&hash.finalize())
}

fn first_eight(digest: &[u8]) -> u64 {
    let bytes: [u8; 8] = digest[..8].try_into().expect("SHA-1 has 20 bytes");
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_etcd_prints() {
        // The member and cluster id of a plain `etcd` started without flags.
        let member = member_id(&["http://localhost:2380".to_owned()], "etcd-cluster");
        assert_eq!(format!("{member:x}"), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster_id(&[member])), "cdf818194e3a8c32");
    }

    #[test]
    fn every_forced_cluster_has_an_id_of_its_own() {
        let first = Identity { member_id: 1, cluster_id: 9, incarnation: 11 };
        let second = Identity { member_id: 2, cluster_id: 9, incarnation: 22 };
        let again = Identity { cluster_id: forced_cluster_id(first, 5), ..first };
        let ids = [(first, 5), (first, 6), (second, 5), (again, 6)];
        let ids = ids.map(|(before, index)| forced_cluster_id(before, index));
        let different: std::collections::BTreeSet<u64> = ids.into_iter().chain([9]).collect();
        assert_eq!(different.len(), 5);
    }

    #[test]
    fn the_order_of_urls_and_members_does_not_matter() {
        let [a, b] = ["http://a:1".to_owned(), "http://b:1".to_owned()];
        assert_eq!(member_id(&[a.clone(), b.clone()], "t"), member_id(&[b, a], "t"));
        assert_eq!(cluster_id(&[1, 2, 3]), cluster_id(&[3, 1, 2]));
    }
}
