//! Response headers: who answers, at which store revision, in which term.

use holdfast_proto::etcdserverpb::ResponseHeader;
use holdfast_raft::{Identity, Node};

/// Makes headers in the name of one member.
#[derive(Clone)]
pub struct Headers {
    node: Node,
    identity: Identity,
}

impl Headers {
    /// Headers in the name of `node`.
    pub fn new(node: Node) -> Self {
        let identity = node.identity();
        Self { node, identity }
    }

    /// A header at `revision`, in the term of this moment.
    pub fn at(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.identity.cluster_id,
            member_id: self.identity.member_id,
            revision,
            raft_term: self.node.term(),
        }
    }

    /// A header that says nothing about the store, as membership answers have.
    pub fn without_revision(&self) -> ResponseHeader {
        self.at(0)
    }
}

/// The header of one operation's answer within a transaction's: the revision and nothing else.
pub fn nested(revision: i64) -> ResponseHeader {
    ResponseHeader { revision, ..ResponseHeader::default() }
}
