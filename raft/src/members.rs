//! The rules by which the leader decides about a change of the membership: etcd's.
//!
//! A change is one entry in the log, so it has happened or it has not, whoever leads next. Nothing
//! here asks or waits: the leader brings what it knows in a [`View`].
//!
//! openraft counts a voter as soon as it is appended; etcd, once it is committed. Waiting for a
//! member that has yet to start would stop a cluster of one, so a member that is added as a voter
//! begins as openraft's learner, marked in its node, and votes once it is in sync. The rules and the
//! clients see a voter from the beginning.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::MemberRefusal;
use crate::identity::added_member_id;
use crate::types::{Membership, PeerNode};

/// A learner is in sync with so many hundredths of the leader's log.
const READY_PERCENT: u128 = 90;
/// A voter that joins votes when it lacks no more entries than these.
const NEAR: u64 = 1000;
/// How many ids are tried for a new member.
const DRAWS: u64 = 1000;

/// A change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MemberChange {
    /// A new member; the leader makes its id up of the URLs and of `seconds` since 1970.
    Add { seconds: u64, peer_urls: Vec<String>, is_learner: bool, learners_max: u64 },
    /// A member goes, for ever.
    Remove(u64),
    /// A learner votes from now on.
    Promote(u64),
    /// A member is reached elsewhere.
    Update { member: u64, peer_urls: Vec<String> },
}

/// What the leader knows when it decides.
pub(crate) struct View {
    /// The leader.
    pub(crate) leader: u64,
    /// The membership that is applied.
    pub(crate) membership: Membership,
    /// Who has ever been removed.
    pub(crate) removed: BTreeSet<u64>,
    /// Who has published a name.
    pub(crate) started: BTreeSet<u64>,
    /// Who has answered the leader lately; never the leader itself.
    pub(crate) connected: BTreeSet<u64>,
    /// How far each has come.
    pub(crate) matching: BTreeMap<u64, u64>,
    /// The end of the leader's log.
    pub(crate) last_index: u64,
}

impl View {
    /// The membership after `change`, or why there is none; `strict` protects the quorum.
    pub(crate) fn decide(
        &self,
        change: &MemberChange,
        strict: bool,
    ) -> Result<Membership, MemberRefusal> {
        let mut nodes: BTreeMap<u64, PeerNode> =
            self.membership.nodes().map(|(member, node)| (*member, node.clone())).collect();
        let mut voters: BTreeSet<u64> = self.membership.voter_ids().collect();
        match change {
            MemberChange::Add { seconds, peer_urls, is_learner, learners_max } => {
                self.check_add(*is_learner, strict)?;
                let member = self.draw_id(peer_urls, *seconds)?;
                self.check_urls(member, peer_urls)?;
                let learners = nodes.len() - self.voters().len();
                if *is_learner && learners as u64 >= *learners_max {
                    return Err(MemberRefusal::TooManyLearners);
                }
                let joins_as_voter = !is_learner;
                nodes.insert(member, PeerNode { joins_as_voter, ..PeerNode::new(peer_urls) });
            }
            MemberChange::Remove(member) => {
                nodes.remove(member).ok_or(MemberRefusal::NotFound)?;
                self.check_remove(*member, strict)?;
                voters.remove(member);
            }
            MemberChange::Promote(member) => {
                self.check_promote(*member, strict)?;
                if self.voters().contains(member) {
                    return Err(MemberRefusal::NotLearner);
                }
                voters.insert(*member);
            }
            MemberChange::Update { member, peer_urls } => {
                let node = nodes.get_mut(member).ok_or(MemberRefusal::NotFound)?;
                node.peer_urls = PeerNode::new(peer_urls).peer_urls;
                self.check_urls(*member, peer_urls)?;
            }
        }
        if voters.is_empty() {
            return Err(MemberRefusal::NotEnoughStarted);
        }
        if strict && !voters.iter().copied().eq(self.membership.voter_ids()) {
            self.check_quorum(&voters)?;
        }
        Ok(Membership::new(vec![voters], nodes).expect("every voter has a node"))
    }

    /// A member that was added as a voter and is in sync now, and the membership in which it votes.
    pub(crate) fn admissible(&self) -> Option<(u64, Membership)> {
        let mut voters: BTreeSet<u64> = self.membership.voter_ids().collect();
        let is_near = |member: &u64| {
            let matching = self.matching.get(member).copied().unwrap_or(0);
            self.started.contains(member) && self.last_index.saturating_sub(matching) <= NEAR
        };
        let waiting = self.voters().into_iter().filter(|member| !voters.contains(member));
        let member = waiting.filter(is_near).find(|member| self.connected.contains(member))?;
        voters.insert(member);
        let nodes: BTreeMap<u64, PeerNode> =
            self.membership.nodes().map(|(member, node)| (*member, node.clone())).collect();
        let admitted = Membership::new(vec![voters], nodes).expect("every voter has a node");
        Some((member, admitted))
    }

    /// As etcd makes it up; nobody has had it before. As in etcd, the token is no part of an id that
    /// is given at run time.
    fn draw_id(&self, peer_urls: &[String], seconds: u64) -> Result<u64, MemberRefusal> {
        let draw = |more| added_member_id(peer_urls, "", seconds.saturating_add(more));
        let is_free = |member: &u64| {
            !self.removed.contains(member) && self.membership.get_node(member).is_none()
        };
        (0..DRAWS).map(draw).find(is_free).ok_or(MemberRefusal::IdExists)
    }

    /// Those who vote from now on can commit what makes them do so, and what follows. The rules of
    /// etcd's count those that join, who do not.
    fn check_quorum(&self, voters: &BTreeSet<u64>) -> Result<(), MemberRefusal> {
        if self.started_of(voters) < quorum(voters.len()) {
            return Err(MemberRefusal::NotEnoughStarted);
        }
        if self.connected_of(voters) < quorum(voters.len()) {
            return Err(MemberRefusal::Unhealthy);
        }
        Ok(())
    }

    fn check_add(&self, is_learner: bool, strict: bool) -> Result<(), MemberRefusal> {
        let voters = self.voters();
        if !strict || voters.len() == 1 && self.started_of(&voters) == 1 {
            return Ok(());
        }
        if !is_learner && self.started_of(&voters) < quorum(voters.len() + 1) {
            return Err(MemberRefusal::NotEnoughStarted);
        }
        // The new one counts as down.
        if voters.len() > 1 && self.connected_of(&voters) < quorum(voters.len() + 1) {
            return Err(MemberRefusal::Unhealthy);
        }
        Ok(())
    }

    fn check_remove(&self, member: u64, strict: bool) -> Result<(), MemberRefusal> {
        let voters = self.voters();
        let is_learner = !voters.contains(&member) && self.membership.get_node(&member).is_some();
        if !strict || is_learner {
            return Ok(());
        }
        let left: BTreeSet<u64> = voters.iter().copied().filter(|voter| *voter != member).collect();
        if self.started_of(&left) < quorum(left.len()) {
            return Err(MemberRefusal::NotEnoughStarted);
        }
        // One that is down is no part of the quorum that holds now.
        if member != self.leader && !self.connected.contains(&member) {
            return Ok(());
        }
        if self.connected_of(&voters) - 1 < quorum(voters.len() - 1) {
            return Err(MemberRefusal::Unhealthy);
        }
        Ok(())
    }

    fn check_promote(&self, member: u64, strict: bool) -> Result<(), MemberRefusal> {
        self.membership.get_node(&member).ok_or(MemberRefusal::NotFound)?;
        let matching = self.matching.get(&member).copied().unwrap_or(0);
        let is_near = u128::from(matching) * 100 >= u128::from(self.last_index) * READY_PERCENT;
        // Before it is known by which directory it votes, another might vote in its name.
        let is_ready = is_near && self.started.contains(&member);
        if member != self.leader && !is_ready {
            return Err(MemberRefusal::LearnerNotReady);
        }
        let voters = self.voters();
        // The learner has started: it has just been found to be in sync.
        if strict && self.started_of(&voters) + 1 < quorum(voters.len() + 1) {
            return Err(MemberRefusal::NotEnoughStarted);
        }
        Ok(())
    }

    fn check_urls(&self, member: u64, peer_urls: &[String]) -> Result<(), MemberRefusal> {
        let others = self.membership.nodes().filter(|(other, _)| **other != member);
        let mut taken = others.flat_map(|(_, node)| &node.peer_urls);
        match taken.any(|url| peer_urls.contains(url)) {
            true => Err(MemberRefusal::PeerUrlExists),
            false => Ok(()),
        }
    }

    /// Those that vote, and those that will without being promoted.
    fn voters(&self) -> BTreeSet<u64> {
        let joining = self.membership.nodes().filter(|(_, node)| node.joins_as_voter);
        self.membership.voter_ids().chain(joining.map(|(member, _)| *member)).collect()
    }

    fn started_of(&self, voters: &BTreeSet<u64>) -> usize {
        voters.intersection(&self.started).count()
    }

    fn connected_of(&self, voters: &BTreeSet<u64>) -> usize {
        let is_connected = |voter: &&u64| **voter == self.leader || self.connected.contains(*voter);
        voters.iter().filter(is_connected).count()
    }
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

#[cfg(test)]
mod tests;
