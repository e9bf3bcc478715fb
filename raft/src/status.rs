//! What a member believes about its cluster, in atomics that every thread may read.
//!
//! openraft names the leader of the last vote for as long as no newer vote arrives. Here a leader is
//! believed in only while it is heard: a follower hears appends, a leader hears a quorum's answers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::ProposeError;

/// What a member believes about its cluster at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The current term.
    pub term: u64,
    /// The leader, as long as it is heard.
    pub leader: Option<u64>,
    /// Whether this member is that leader.
    pub is_leader: bool,
    /// Whether this member is a learner, or no member at all.
    pub is_learner: bool,
    /// The index of the last entry in the log.
    pub last_index: u64,
    /// The index of the last entry known to be committed.
    pub committed_index: u64,
    /// The index of the last entry applied and published.
    pub applied_index: u64,
    /// The index of the last entry that the log has forgotten below a checkpoint.
    pub purged_index: u64,
    /// Whether the log's disk has taken nothing for ten seconds; proposals are refused meanwhile.
    pub is_disk_stalled: bool,
}

/// Who leads, and since which change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    pub(crate) term: u64,
    /// By the vote, heard or not.
    pub(crate) leader: Option<u64>,
}

pub(crate) struct StatusCell {
    member: u64,
    election_timeout: Duration,
    origin: Instant,
    term: AtomicU64,
    leader_heard: AtomicU64,
    elected_ms: AtomicU64,
    heard_ms: AtomicU64,
    /// Of this member as leader: when a quorum last answered; [`ALONE`] when there is none to ask.
    quorum_ms: AtomicU64,
    last_index: AtomicU64,
    committed_index: AtomicU64,
    purged_index: AtomicU64,
    applied: watch::Sender<u64>,
    /// At least `applied`.
    visible: watch::Sender<u64>,
    learner: AtomicBool,
    disk_stalled: AtomicBool,
    leadership: watch::Sender<Leadership>,
    leaderless: watch::Sender<bool>,
}

/// In place of a member id: nobody.
const NOBODY: u64 = 0;

/// In place of a time: nothing can have happened since.
const ALONE: u64 = u64::MAX;

/// What a member's belief in the leader rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// It follows: what it hears of the leader.
    Leader,
    /// It leads: how long ago a quorum answered; none when that has not happened yet.
    Quorum(Option<Duration>),
    /// It leads, and is the only voter.
    Alone,
}

/// What the observer saw of openraft.
pub(crate) struct Observation {
    pub(crate) leadership: Leadership,
    pub(crate) learner: bool,
    pub(crate) last_index: u64,
    pub(crate) committed_index: u64,
    pub(crate) purged_index: u64,
    pub(crate) evidence: Evidence,
}

impl StatusCell {
    pub(crate) fn new(member: u64, election_timeout: Duration) -> Self {
        Self {
            member,
            election_timeout,
            origin: Instant::now(),
            term: AtomicU64::new(0),
            leader_heard: AtomicU64::new(NOBODY),
            elected_ms: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            quorum_ms: AtomicU64::new(0),
            last_index: AtomicU64::new(0),
            committed_index: AtomicU64::new(0),
            purged_index: AtomicU64::new(0),
            applied: watch::Sender::new(0),
            visible: watch::Sender::new(0),
            learner: AtomicBool::new(false),
            disk_stalled: AtomicBool::new(false),
            leadership: watch::Sender::new(Leadership::default()),
            leaderless: watch::Sender::new(true),
        }
    }

    pub(crate) fn election_timeout(&self) -> Duration {
        self.election_timeout
    }

    pub(crate) fn snapshot(&self) -> Status {
        let leader = self.leader();
        let applied_index = self.applied_index();
        Status {
            term: self.term(),
            leader,
            is_leader: leader == Some(self.member),
            is_learner: self.is_learner(),
            // The observer comes after apply, and must not seem to lag behind it.
            last_index: self.last_index.load(Ordering::Acquire).max(applied_index),
            committed_index: self.committed_index.load(Ordering::Acquire).max(applied_index),
            applied_index,
            purged_index: self.purged_index.load(Ordering::Acquire),
            is_disk_stalled: self.is_disk_stalled(),
        }
    }

    pub(crate) fn is_learner(&self) -> bool {
        self.learner.load(Ordering::Acquire)
    }

    /// Whether the log's disk has taken nothing for so long that nothing more is promised.
    pub(crate) fn is_disk_stalled(&self) -> bool {
        self.disk_stalled.load(Ordering::Acquire)
    }

    pub(crate) fn set_disk_stalled(&self, is_stalled: bool) {
        self.disk_stalled.store(is_stalled, Ordering::Release);
    }

    pub(crate) fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    /// The leader, as long as it is heard: by the clock of this moment, because the observer may not
    /// have looked since the process was paused.
    pub(crate) fn leader(&self) -> Option<u64> {
        let leader = self.leader_heard.load(Ordering::Acquire);
        (leader != NOBODY && self.silence(leader) < self.election_timeout).then_some(leader)
    }

    /// For how long nothing has spoken for `leader`.
    fn silence(&self, leader: u64) -> Duration {
        let evidence = if leader == self.member { &self.quorum_ms } else { &self.heard_ms };
        Duration::from_millis(self.now_ms().saturating_sub(evidence.load(Ordering::Acquire)))
    }

    /// Who leads by the vote, with every change of it.
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// True once there has been no leader for three election timeouts.
    pub(crate) fn leaderless(&self) -> watch::Receiver<bool> {
        self.leaderless.subscribe()
    }

    /// Entries committed and not yet applied.
    pub(crate) fn backlog(&self) -> u64 {
        self.committed_index.load(Ordering::Acquire).saturating_sub(self.applied_index())
    }

    /// The index of the last entry applied and published.
    pub(crate) fn applied_index(&self) -> u64 {
        *self.applied.borrow()
    }

    pub(crate) fn set_applied(&self, index: u64) {
        self.set_visible(index);
        raise(&self.applied, index);
    }

    /// The index of the last entry after which keys can be read.
    pub(crate) fn visible_index(&self) -> u64 {
        *self.visible.borrow()
    }

    /// Keys can be read as of after the entry at `index`, applied or not.
    pub(crate) fn set_visible(&self, index: u64) {
        raise(&self.visible, index);
    }

    /// Returns once keys can be read as of after `index`.
    pub(crate) async fn wait_visible(&self, index: u64) {
        let mut visible = self.visible.subscribe();
        let waited = visible.wait_for(|visible| *visible >= index).await;
        waited.expect("the sender is in self");
    }

    /// Returns once `index` is applied and published.
    pub(crate) async fn wait_applied(&self, index: u64) {
        let mut applied = self.applied.subscribe();
        let waited = applied.wait_for(|applied| *applied >= index).await;
        waited.expect("the sender is in self");
    }

    /// A leader of the present term has spoken.
    pub(crate) fn heard_leader(&self) {
        self.heard_ms.store(self.now_ms(), Ordering::Release);
    }

    fn now_ms(&self) -> u64 {
        self.origin.elapsed().as_millis() as u64
    }

    /// Takes over what the observer saw. True if a leader has appeared.
    pub(crate) fn observe(&self, seen: &Observation) -> bool {
        self.last_index.store(seen.last_index, Ordering::Release);
        self.committed_index.fetch_max(seen.committed_index, Ordering::AcqRel);
        self.purged_index.store(seen.purged_index, Ordering::Release);
        self.learner.store(seen.learner, Ordering::Release);
        self.term.store(seen.leadership.term, Ordering::Release);
        let changed = self.leadership.send_if_modified(|known| {
            let changed = *known != seen.leadership;
            *known = seen.leadership;
            changed
        });
        let now = self.now_ms();
        let elected = changed && seen.leadership.leader.is_some();
        if elected {
            self.elected_ms.store(now, Ordering::Release);
            self.heard_ms.store(now, Ordering::Release);
        }
        self.quorum_ms.store(self.quorum_ms(seen.evidence, now), Ordering::Release);
        let leader = seen.leadership.leader.unwrap_or(NOBODY);
        self.leader_heard.store(leader, Ordering::Release);
        let leaderless = self.silence(leader) >= 3 * self.election_timeout;
        self.leaderless.send_if_modified(|known| {
            let changed = *known != leaderless;
            *known = leaderless;
            changed
        });
        elected
    }

    fn quorum_ms(&self, evidence: Evidence, now: u64) -> u64 {
        match evidence {
            Evidence::Leader => self.heard_ms.load(Ordering::Acquire),
            Evidence::Quorum(Some(silent)) => now.saturating_sub(silent.as_millis() as u64),
            // A leader begins with the votes of a quorum.
            Evidence::Quorum(None) => self.elected_ms.load(Ordering::Acquire),
            Evidence::Alone => ALONE,
        }
    }

    /// Why a proposal made at `since` has found no outcome, as far as this member can tell.
    pub(crate) fn explain_timeout(&self, since: Instant) -> ProposeError {
        let elected = self.origin + Duration::from_millis(self.elected_ms.load(Ordering::Acquire));
        let lost = elected.checked_sub(2 * self.election_timeout).unwrap_or(self.origin);
        if since > lost && since < elected {
            ProposeError::TimedOutLeaderLost
        } else if self.leader().is_none() {
            ProposeError::TimedOutConnectionLost
        } else {
            ProposeError::TimedOut
        }
    }
}

fn raise(known: &watch::Sender<u64>, index: u64) {
    known.send_if_modified(|known| {
        let forward = *known < index;
        *known = index.max(*known);
        forward
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn following(leader: Option<u64>, term: u64) -> Observation {
        Observation {
            leadership: Leadership { term, leader },
            learner: false,
            last_index: 0,
            committed_index: 0,
            purged_index: 0,
            evidence: Evidence::Leader,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_was_paused_does_not_believe_in_itself() {
        let status = StatusCell::new(1, TIMEOUT);
        let leading =
            |silent| Observation { evidence: Evidence::Quorum(silent), ..following(Some(1), 1) };
        tokio::time::advance(10 * TIMEOUT).await;
        status.observe(&leading(Some(TIMEOUT / 4)));
        assert_eq!(status.leader(), Some(1));
        tokio::time::advance(TIMEOUT * 3 / 4).await;
        assert_eq!(status.leader(), None, "the observer has not looked since");
        status.observe(&leading(Some(Duration::ZERO)));
        assert_eq!(status.leader(), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_nobody_ever_answered_is_none_after_a_while() {
        let status = StatusCell::new(1, TIMEOUT);
        let leading = Observation { evidence: Evidence::Quorum(None), ..following(Some(1), 1) };
        status.observe(&leading);
        assert_eq!(status.leader(), Some(1));
        tokio::time::advance(3 * TIMEOUT).await;
        status.observe(&leading);
        assert_eq!(status.leader(), None);
        assert!(*status.leaderless().borrow());
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_alone_needs_nobody() {
        let status = StatusCell::new(1, TIMEOUT);
        status.observe(&Observation { evidence: Evidence::Alone, ..following(Some(1), 1) });
        tokio::time::advance(10 * TIMEOUT).await;
        assert_eq!(status.leader(), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_falls_silent_is_no_leader() {
        let status = StatusCell::new(1, TIMEOUT);
        status.observe(&following(Some(2), 1));
        assert_eq!(status.leader(), Some(2));
        tokio::time::advance(TIMEOUT).await;
        status.observe(&following(Some(2), 1));
        assert_eq!(status.leader(), None);
        assert!(!*status.leaderless().borrow());
        tokio::time::advance(2 * TIMEOUT).await;
        status.observe(&following(Some(2), 1));
        assert!(*status.leaderless().borrow());
        status.heard_leader();
        status.observe(&following(Some(2), 1));
        assert_eq!(status.leader(), Some(2));
        assert!(!*status.leaderless().borrow());
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_around_an_election_names_the_lost_leader() {
        let status = StatusCell::new(1, TIMEOUT);
        tokio::time::advance(10 * TIMEOUT).await;
        let since = Instant::now();
        assert_eq!(status.explain_timeout(since), ProposeError::TimedOutConnectionLost);
        tokio::time::advance(TIMEOUT).await;
        status.observe(&following(Some(2), 2));
        assert_eq!(status.explain_timeout(since), ProposeError::TimedOutLeaderLost);
        assert_eq!(status.explain_timeout(Instant::now()), ProposeError::TimedOut);
    }
}
