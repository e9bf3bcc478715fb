//! A leader's claim to know of every acknowledged write, and who has to confirm it.
//!
//! A member confirms by the term it is in: if that is no later than the leader's, it has voted for
//! no later leader so far. When a quorum has done so after readers came, no later leader was elected
//! before they came, and the claim of the moment holds for them (Raft dissertation, section 6.4).

use std::collections::BTreeSet;

use openraft::RaftState;

use crate::types::{LogId, TypeConfig};

/// What openraft knows of this member's leadership at one moment.
pub(crate) struct Claim {
    member: u64,
    /// The term that this member leads.
    term: u64,
    /// Covers every write acknowledged so far, if the claim is confirmed.
    pub(crate) index: u64,
    /// The voters, in two sets while they change.
    voters: Vec<BTreeSet<u64>>,
}

impl Claim {
    /// None if this member does not lead, or has committed nothing as the leader yet: until then,
    /// more may be committed than it knows.
    pub(crate) fn of(state: &RaftState<TypeConfig>, member: u64) -> Option<Self> {
        let vote = state.vote_ref();
        let leads = vote.is_committed() && vote.leader_id.voted_for == member;
        let voters = state.membership_state.effective().get_joint_config().clone();
        let term = vote.leader_id.term;
        leads.then(|| Self::new(member, term, voters, state.local_committed().copied()))?
    }

    fn new(
        member: u64,
        term: u64,
        voters: Vec<BTreeSet<u64>>,
        committed: Option<LogId>,
    ) -> Option<Self> {
        let committed = committed.filter(|id| id.committed_leader_id().term == term)?;
        Some(Self { member, term, index: committed.index(), voters })
    }

    /// Whether a member that is in `term` has voted for no later leader. 0 says nothing.
    pub(crate) fn is_confirmed_in(&self, term: u64) -> bool {
        term != 0 && term <= self.term
    }

    /// Whether this member and `peers` are a quorum.
    pub(crate) fn is_quorum_with(&self, peers: &[u64]) -> bool {
        let all: BTreeSet<u64> = peers.iter().copied().chain([self.member]).collect();
        self.voters.iter().all(|voters| all.intersection(voters).count() > voters.len() / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::log_id;

    fn claim(voters: &[&[u64]]) -> Claim {
        let voters = voters.iter().map(|voters| voters.iter().copied().collect()).collect();
        Claim::new(1, 7, voters, Some(log_id(7, 40))).expect("committed in its term")
    }

    #[test]
    fn a_leader_that_has_committed_nothing_yet_claims_nothing() {
        for committed in [None, Some(log_id(6, 39))] {
            assert!(Claim::new(1, 7, vec![BTreeSet::from([1])], committed).is_none());
        }
    }

    #[test]
    fn who_may_have_voted_later_confirms_nothing() {
        let claim = claim(&[&[1, 2, 3]]);
        assert!(claim.is_confirmed_in(7));
        assert!(claim.is_confirmed_in(6), "behind, so it has not voted later");
        assert!(!claim.is_confirmed_in(8));
        assert!(!claim.is_confirmed_in(0), "it does not say");
    }

    #[test]
    fn a_quorum_is_more_than_half_of_the_voters() {
        assert!(claim(&[&[1]]).is_quorum_with(&[]));
        assert!(claim(&[&[1, 2, 3]]).is_quorum_with(&[2]));
        assert!(claim(&[&[1, 2]]).is_quorum_with(&[2]));
        assert!(!claim(&[&[1, 2]]).is_quorum_with(&[1]), "one is no quorum of two");
        assert!(!claim(&[&[1, 2, 3, 4]]).is_quorum_with(&[2]));
        assert!(!claim(&[&[1, 2, 3, 4, 5]]).is_quorum_with(&[2, 2]), "two, however often");
        assert!(!claim(&[&[1, 3, 4]]).is_quorum_with(&[2]), "member 2 does not vote");
        assert!(!claim(&[&[2, 3, 4]]).is_quorum_with(&[2]), "the leader does not vote");
    }

    #[test]
    fn while_voters_change_both_sets_count() {
        assert!(claim(&[&[1, 2, 3], &[1, 2, 4]]).is_quorum_with(&[2]));
        assert!(!claim(&[&[1, 2, 3], &[1, 3, 4]]).is_quorum_with(&[2]));
    }
}
