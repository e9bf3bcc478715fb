//! Who may speak to whom: checked on every call, on both sides' terms.
//!
//! A data directory has one incarnation. Once the cluster has committed which one a member has, a
//! directory of another incarnation is refused: it may have forgotten a vote or an entry that it
//! acknowledged. Until then the first one heard counts. A member that has been removed is refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_proto::peer;
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Status};

use crate::identity::Identity;

const KEY: &str = "holdfast-handshake-bin";

/// What the cluster has committed about a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing yet.
    Unknown,
    /// The incarnation of its data directory.
    Known(u64),
    /// It has been removed, for ever.
    Removed,
}

/// Tells what the cluster has committed about a member.
pub(crate) type Standings = Arc<dyn Fn(u64) -> Standing + Send + Sync>;

/// What a removed member is told, in etcd's words.
const REMOVED: &str = "the member has been permanently removed from the cluster";

/// Checks the handshakes of those who call, and makes our own.
#[derive(Clone)]
pub(crate) struct Gate {
    identity: Identity,
    committed: Standings,
    heard: Arc<Mutex<BTreeMap<u64, u64>>>,
}

/// Members whose first incarnation is remembered; a cluster never has so many.
const HEARD_MAX: usize = 1024;

impl Gate {
    pub(crate) fn new(identity: Identity, committed: Standings) -> Self {
        Self { identity, committed, heard: Arc::default() }
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// The incarnation known of a member: committed, or else the first one heard.
    pub(crate) fn incarnation(&self, member: u64) -> Option<u64> {
        match (self.committed)(member) {
            Standing::Known(incarnation) => Some(incarnation),
            Standing::Removed => None,
            Standing::Unknown => {
                let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.get(&member).copied()
            }
        }
    }

    /// Adds our handshake to a request for member `to`.
    pub(crate) fn sign<T>(&self, request: &mut Request<T>, to: u64) {
        let handshake = peer::Handshake {
            cluster_id: self.identity.cluster_id,
            from_member: self.identity.member_id,
            to_member: to,
            incarnation: self.identity.incarnation,
            to_incarnation: self.incarnation(to).unwrap_or(0),
        };
        let value = MetadataValue::from_bytes(&handshake.encode_to_vec());
        request.metadata_mut().insert_bin(KEY, value);
    }

    /// Lets a call pass, or says why not. Gives the caller's member id.
    pub(crate) fn check(&self, metadata: &MetadataMap) -> Result<u64, Status> {
        let handshake = read(metadata)?;
        self.check_address(&handshake)?;
        let from = handshake.from_member;
        if (self.committed)(from) == Standing::Removed {
            return Err(Status::failed_precondition(REMOVED));
        }
        if let Some(known) = self.incarnation(from)
            && known != handshake.incarnation
        {
            return Err(Status::permission_denied(format!(
                "member {from:x} is known with another data directory"
            )));
        }
        self.remember(from, handshake.incarnation);
        Ok(from)
    }

    /// As [`Gate::check`], for the question a member asks before it knows its place. One that joins
    /// knows nobody's id yet.
    pub(crate) fn check_stranger(&self, metadata: &MetadataMap) -> Result<u64, Status> {
        let handshake = read(metadata)?;
        let peer::Handshake { cluster_id, from_member, to_member, .. } = handshake;
        if (cluster_id, from_member, to_member) == (0, 0, 0) {
            return Ok(0);
        }
        self.check_address(&peer::Handshake { to_incarnation: 0, ..handshake })?;
        Ok(handshake.from_member)
    }

    fn check_address(&self, handshake: &peer::Handshake) -> Result<(), Status> {
        if handshake.cluster_id != self.identity.cluster_id {
            return Err(Status::permission_denied(format!(
                "cluster ID mismatch: this is {:x}, not {:x}",
                self.identity.cluster_id, handshake.cluster_id
            )));
        }
        if handshake.to_member != self.identity.member_id {
            return Err(Status::permission_denied(format!(
                "this is member {:x}, not {:x}",
                self.identity.member_id, handshake.to_member
            )));
        }
        let expected = handshake.to_incarnation;
        if expected != 0 && expected != self.identity.incarnation {
            return Err(Status::permission_denied(format!(
                "member {:x} has another data directory than the caller knows",
                self.identity.member_id
            )));
        }
        Ok(())
    }

    fn remember(&self, member: u64, incarnation: u64) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() < HEARD_MAX {
            heard.entry(member).or_insert(incarnation);
        }
    }
}

fn read(metadata: &MetadataMap) -> Result<peer::Handshake, Status> {
    let value = metadata
        .get_bin(KEY)
        .ok_or_else(|| Status::permission_denied("a peer call needs a handshake"))?;
    let bytes = value
        .to_bytes()
        .map_err(|_| Status::permission_denied("the handshake is not valid metadata"))?;
    peer::Handshake::decode(bytes)
        .map_err(|_| Status::permission_denied("the handshake does not decode"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(member: u64, incarnation: u64, committed: &[(u64, u64)]) -> Gate {
        let committed: BTreeMap<u64, u64> = committed.iter().copied().collect();
        let identity = Identity { member_id: member, cluster_id: 9, incarnation };
        let standing =
            move |m| committed.get(&m).map_or(Standing::Unknown, |i| Standing::Known(*i));
        Gate::new(identity, Arc::new(standing))
    }

    fn call(from: &Gate, to: u64) -> MetadataMap {
        let mut request = Request::new(());
        from.sign(&mut request, to);
        request.metadata().clone()
    }

    #[test]
    fn a_known_member_may_speak_and_its_emptied_double_may_not() {
        let server = gate(1, 11, &[(2, 22)]);
        assert_eq!(server.check(&call(&gate(2, 22, &[]), 1)).expect("known"), 2);
        let refused = server.check(&call(&gate(2, 23, &[]), 1)).expect_err("another directory");
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    }

    #[test]
    fn the_first_incarnation_heard_counts_until_one_is_committed() {
        let server = gate(1, 11, &[]);
        assert!(server.check(&call(&gate(2, 22, &[]), 1)).is_ok());
        assert!(server.check(&call(&gate(2, 23, &[]), 1)).is_err());
        assert_eq!(server.incarnation(2), Some(22));
    }

    #[test]
    fn a_caller_that_knows_this_member_otherwise_is_refused() {
        let server = gate(1, 11, &[]);
        assert!(server.check(&call(&gate(2, 22, &[(1, 11)]), 1)).is_ok());
        assert!(server.check(&call(&gate(2, 22, &[(1, 10)]), 1)).is_err());
        assert!(server.check(&call(&gate(2, 22, &[]), 3)).is_err());
    }
}
