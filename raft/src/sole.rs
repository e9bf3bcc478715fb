//! Whether this member is alone in its cluster, and so has nobody to ask before a read of keys.
//!
//! Alone means neither another voter nor a learner, which could acknowledge what it applied first.
//! What counts is the newest membership in the log, committed or not: once another member stands
//! there, it may acknowledge writes. openraft's metrics tell of it later, so the log tells here,
//! before it writes. Once a member that is alone has led a round to its end, all that was ever
//! acknowledged can be read from it, and nobody else acknowledges anything until another member is
//! appended, or another is voted for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::types::{Membership, StoredMembership};

/// What is known about the members of this member's cluster.
pub(crate) struct SoleMember {
    member: u64,
    proven: AtomicBool,
    newest: Mutex<Newest>,
}

#[derive(Default)]
struct Newest {
    /// Counts what has happened to the proof since the start.
    changes: u64,
    /// Whether the newest membership in the log has no member but this one; none if none has been
    /// appended since the start, and openraft's metrics are right.
    is_sole: Option<bool>,
}

/// What was known when a round began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    changes: u64,
}

impl SoleMember {
    pub(crate) fn new(member: u64) -> Self {
        Self { member, proven: AtomicBool::new(false), newest: Mutex::default() }
    }

    /// Whether every write acknowledged so far can be read here.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Acquire)
    }

    /// A membership is about to be written to the log.
    pub(crate) fn appending(&self, membership: &Membership) {
        self.change(self.is_sole_in(membership));
    }

    /// Memberships may have been taken out of the log, or replaced by a checkpoint's.
    pub(crate) fn lost(&self) {
        self.change(false);
    }

    /// A vote for `candidate` is about to be written; another that has it may lead.
    pub(crate) fn voting(&self, candidate: u64) {
        if candidate == self.member {
            return;
        }
        let mut newest = self.lock();
        newest.changes += 1;
        self.proven.store(false, Ordering::Release);
    }

    /// To be called before a round; none when there are other members. `known` is openraft's
    /// membership.
    pub(crate) fn before_round(&self, known: &StoredMembership) -> Option<Before> {
        let newest = self.lock();
        let is_sole = newest.is_sole.unwrap_or_else(|| self.is_sole_in(known.membership()));
        is_sole.then_some(Before { changes: newest.changes })
    }

    /// A round that this member led has ended, and keys can be read as of its index.
    pub(crate) fn after_round(&self, before: Before) {
        let newest = self.lock();
        if newest.changes == before.changes {
            self.proven.store(true, Ordering::Release);
        }
    }

    fn change(&self, is_sole: bool) {
        let mut newest = self.lock();
        newest.changes += 1;
        newest.is_sole = Some(is_sole);
        self.proven.store(false, Ordering::Release);
    }

    fn is_sole_in(&self, membership: &Membership) -> bool {
        let is_voter = membership.voter_ids().any(|voter| voter == self.member);
        is_voter && membership.nodes().count() == 1
    }

    fn lock(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::types::PeerNode;

    fn membership(configs: &[&[u64]]) -> Membership {
        let configs: Vec<BTreeSet<u64>> =
            configs.iter().map(|voters| voters.iter().copied().collect()).collect();
        let nodes = configs.iter().flatten().map(|voter| (*voter, PeerNode::default()));
        let nodes: BTreeMap<_, _> = nodes.collect();
        Membership::new(configs, nodes).expect("every voter has a node")
    }

    fn stored(configs: &[&[u64]]) -> StoredMembership {
        StoredMembership::new(None, membership(configs))
    }

    #[test]
    fn a_member_alone_is_proven_by_a_round() {
        let sole = SoleMember::new(1);
        assert!(!sole.is_proven());
        let before = sole.before_round(&stored(&[&[1]])).expect("nobody else votes");
        assert!(!sole.is_proven());
        sole.after_round(before);
        assert!(sole.is_proven());
        sole.appending(&membership(&[&[1], &[1, 2]]));
        assert!(!sole.is_proven());
    }

    #[test]
    fn a_vote_for_another_takes_the_proof_until_the_next_round() {
        let sole = SoleMember::new(1);
        let before = sole.before_round(&stored(&[&[1]])).expect("nobody else votes");
        sole.voting(1);
        sole.voting(2);
        sole.after_round(before);
        assert!(!sole.is_proven());
        let before = sole.before_round(&stored(&[&[1]])).expect("nobody else votes");
        sole.after_round(before);
        assert!(sole.is_proven());
    }

    #[test]
    fn a_learner_may_acknowledge_too() {
        let nodes = BTreeMap::from([1, 2].map(|member| (member, PeerNode::default())));
        let learner = Membership::new(vec![BTreeSet::from([1])], nodes).expect("a voter");
        let sole = SoleMember::new(1);
        sole.appending(&learner);
        assert!(sole.before_round(&stored(&[&[1]])).is_none());
    }

    #[test]
    fn other_voters_and_other_members_are_not_proven() {
        assert!(SoleMember::new(1).before_round(&stored(&[&[1, 2, 3]])).is_none());
        assert!(SoleMember::new(1).before_round(&stored(&[&[2]])).is_none());
        assert!(SoleMember::new(1).before_round(&stored(&[])).is_none());
    }

    #[test]
    fn a_membership_appended_during_a_round_spoils_it() {
        let sole = SoleMember::new(1);
        let before = sole.before_round(&stored(&[&[1]])).expect("nobody else votes");
        sole.appending(&membership(&[&[1], &[1, 2]]));
        sole.after_round(before);
        assert!(!sole.is_proven());
        // The metrics still tell of the old one.
        assert!(sole.before_round(&stored(&[&[1]])).is_none());
        sole.appending(&membership(&[&[1]]));
        let before = sole.before_round(&stored(&[&[1], &[1, 2]])).expect("the other is gone");
        sole.lost();
        sole.after_round(before);
        assert!(!sole.is_proven());
    }
}
