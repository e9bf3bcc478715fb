//! openraft's type parameters, filled in once, and their encodings.
//!
//! The encodings are the messages of `peer.proto`: the WAL and the peers write the same ones.
//! Decoding checks what openraft asserts, so that bytes from outside never reach an assertion.

use holdfast_proto::peer;
use holdfast_store::Position;
use openraft::EntryPayload;
use openraft::vote::RaftLeaderId;

pub use crate::entry::Batch;
use crate::responder::WriteResponder;
use crate::runtime::Runtime;

/// The types of a Holdfast cluster.
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub struct TypeConfig;

// Written out because openraft's macro takes no responder with a type parameter.
impl openraft::RaftTypeConfig for TypeConfig {
    type D = Batch;
    type R = ();
    type NodeId = u64;
    type Node = PeerNode;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Batch, u64, PeerNode>;
    type Entry = openraft::Entry<<Self::LeaderId as RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = WriteResponder<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// One leader per term; the member is who the vote is for.
pub type LeaderId = <TypeConfig as openraft::RaftTypeConfig>::LeaderId;
/// What a committed leader leaves in log ids: its term.
pub type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
/// A place in the log.
pub type LogId = openraft::LogId<CommittedLeaderId>;
/// A log entry.
pub type Entry = <TypeConfig as openraft::RaftTypeConfig>::Entry;
/// A vote.
pub type Vote = <TypeConfig as openraft::RaftTypeConfig>::Vote;
/// The voters and learners.
pub type Membership = openraft::Membership<u64, PeerNode>;
/// A membership and where in the log it was made.
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, PeerNode>;
/// What openraft knows of a checkpoint.
pub type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, PeerNode>;

/// What openraft keeps about a member: where to reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNode {
    /// `--initial-advertise-peer-urls`, sorted.
    pub peer_urls: Vec<String>,
    /// Of a member that was added as a voter: openraft counts it as a learner until it is in sync,
    /// so that the quorum never waits for a member that has yet to start.
    pub joins_as_voter: bool,
}

impl PeerNode {
    /// A member that is reached at `peer_urls`.
    pub fn new(peer_urls: &[String]) -> Self {
        let mut peer_urls = peer_urls.to_vec();
        peer_urls.sort();
        Self { peer_urls, joins_as_voter: false }
    }
}

/// Bytes that do not say what they should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// The bytes are no such message.
    #[error("undecodable: {0}")]
    Undecodable(String),
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A membership without voters, or with a voter that has no node.
    #[error("not a membership: {0}")]
    NotAMembership(String),
}

/// The log id of `term` and `index`.
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::from(term), index)
}

/// The store's view of a log id.
pub fn position(log_id: &LogId) -> Position {
    Position { term: *log_id.leader_id, index: log_id.index }
}

/// openraft's view of a position; the default position is before every entry.
pub fn log_id_of(position: Position) -> Option<LogId> {
    (position != Position::default()).then(|| log_id(position.term, position.index))
}

/// Encodes a log id.
pub fn log_id_to_wire(log_id: &LogId) -> peer::LogId {
    peer::LogId { term: *log_id.leader_id, index: log_id.index }
}

/// Decodes a log id.
pub fn log_id_from_wire(wire: &peer::LogId) -> LogId {
    log_id(wire.term, wire.index)
}

/// Encodes a vote.
pub fn vote_to_wire(vote: &Vote) -> peer::Vote {
    peer::Vote {
        term: vote.leader_id.term,
        member: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

/// Decodes a vote.
pub fn vote_from_wire(wire: &peer::Vote) -> Vote {
    if wire.committed {
        Vote::new_committed(wire.term, wire.member)
    } else {
        Vote::new(wire.term, wire.member)
    }
}

/// Decodes a vote that must be there.
pub fn required_vote(wire: Option<&peer::Vote>) -> Result<Vote, ConvertError> {
    wire.map(vote_from_wire).ok_or(ConvertError::Missing("vote"))
}

/// Encodes a membership; equal memberships have equal encodings.
pub fn membership_to_wire(membership: &Membership) -> peer::Membership {
    peer::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|voters| peer::membership::Config { voters: voters.iter().copied().collect() })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(member, node)| peer::membership::Node {
                member: *member,
                peer_urls: node.peer_urls.clone(),
                joins_as_voter: node.joins_as_voter,
            })
            .collect(),
    }
}

/// Decodes a membership; the empty one stands for "none yet".
pub fn membership_from_wire(wire: &peer::Membership) -> Result<Membership, ConvertError> {
    if wire.configs.is_empty() && wire.nodes.is_empty() {
        return Ok(Membership::default());
    }
    let configs = wire.configs.iter().map(|c| c.voters.iter().copied().collect()).collect();
    let nodes: std::collections::BTreeMap<u64, PeerNode> = wire
        .nodes
        .iter()
        .map(|n| {
            let (peer_urls, joins_as_voter) = (n.peer_urls.clone(), n.joins_as_voter);
            (n.member, PeerNode { peer_urls, joins_as_voter })
        })
        .collect();
    Membership::new(configs, nodes).map_err(|e| ConvertError::NotAMembership(e.to_string()))
}

/// Encodes a membership and where it was made.
pub fn stored_membership_to_wire(stored: &StoredMembership) -> peer::StoredMembership {
    peer::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_wire),
        membership: Some(membership_to_wire(stored.membership())),
    }
}

/// Decodes a membership and where it was made; nothing at all is the membership before any.
pub fn stored_membership_from_wire(
    wire: &peer::StoredMembership,
) -> Result<StoredMembership, ConvertError> {
    let membership = match &wire.membership {
        Some(membership) => membership_from_wire(membership)?,
        None => Membership::default(),
    };
    Ok(StoredMembership::new(wire.log_id.as_ref().map(log_id_from_wire), membership))
}

/// Encodes an entry.
pub fn entry_to_wire(entry: &Entry) -> peer::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => None,
        EntryPayload::Normal(batch) => Some(peer::entry::Payload::Batch(batch.encoded().clone())),
        EntryPayload::Membership(membership) => {
            Some(peer::entry::Payload::Membership(membership_to_wire(membership)))
        }
    };
    peer::Entry { log_id: Some(log_id_to_wire(&entry.log_id)), payload }
}

/// Decodes an entry. The batch within stays undecoded.
pub fn entry_from_wire(wire: peer::Entry) -> Result<Entry, ConvertError> {
    let log_id = wire.log_id.as_ref().ok_or(ConvertError::Missing("log_id"))?;
    let payload = match wire.payload {
        None => EntryPayload::Blank,
        Some(peer::entry::Payload::Batch(bytes)) => EntryPayload::Normal(Batch::new(bytes)),
        Some(peer::entry::Payload::Membership(membership)) => {
            EntryPayload::Membership(membership_from_wire(&membership)?)
        }
    };
    Ok(Entry { log_id: log_id_from_wire(log_id), payload })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;

    fn node(url: &str) -> PeerNode {
        PeerNode { peer_urls: vec![url.to_owned()], joins_as_voter: url.ends_with('c') }
    }

    fn membership() -> Membership {
        let nodes = std::collections::BTreeMap::from([
            (1, node("http://a")),
            (2, node("http://b")),
            (3, node("http://c")),
        ]);
        Membership::new(vec![[1, 2].into(), [2, 3].into()], nodes).expect("valid")
    }

    #[test]
    fn entries_survive_their_encoding() {
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(Batch::new(Bytes::from_static(b"batch"))),
            EntryPayload::Membership(membership()),
        ];
        for payload in payloads {
            let entry = Entry { log_id: log_id(3, 9), payload };
            let bytes = entry_to_wire(&entry).encode_to_vec();
            let wire = peer::Entry::decode(bytes.as_slice()).expect("decodes");
            assert_eq!(entry_from_wire(wire), Ok(entry));
        }
    }

    #[test]
    fn votes_and_memberships_survive_their_encoding() {
        for vote in [Vote::new(4, 7), Vote::new_committed(4, 7)] {
            assert_eq!(vote_from_wire(&vote_to_wire(&vote)), vote);
        }
        let stored = StoredMembership::new(Some(log_id(1, 1)), membership());
        assert_eq!(stored_membership_from_wire(&stored_membership_to_wire(&stored)), Ok(stored));
    }

    #[test]
    fn a_voter_without_a_node_is_refused() {
        let mut wire = membership_to_wire(&membership());
        wire.nodes.pop();
        assert!(matches!(membership_from_wire(&wire), Err(ConvertError::NotAMembership(_))));
    }
}
