//! The leader's side of a read barrier: everyone who asks shares one confirmation by a quorum.
//!
//! A peer that asks says its term at once, and in a cluster of three it and the leader are a quorum:
//! nobody else has to confirm anything. Otherwise openraft is asked, which sends heartbeats to all.
//!
//! Who asks while a confirmation is under way shares the next, because it was asked for before.
//! Confirmations follow each other, and overlap only where one takes long: the cost of one is
//! messages to peers, and under load more askers share each.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_proto::peer::read_index_response::Kind;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{RaftState, ReadPolicy};
use tokio::sync::{Notify, oneshot};

use crate::claim::Claim;
use crate::propose::Raft;
use crate::types::TypeConfig;

/// How long one confirmation may take before those who wait for it are told to ask again.
pub(crate) const RETRY: Duration = Duration::from_millis(500);
/// How long the next confirmation waits for the one before.
const PATIENCE: Duration = Duration::from_millis(20);
/// The index that covers every write acknowledged so far, or why this member cannot tell.
pub(crate) type ReadIndex = Result<u64, Kind>;

type Askers = Vec<oneshot::Sender<ReadIndex>>;

/// Where the leader is asked.
pub(crate) struct ReadIndexDesk {
    member: u64,
    raft: Raft,
    /// None once the node has stopped.
    waiting: Mutex<Option<Askers>>,
    bell: Notify,
}

impl ReadIndexDesk {
    pub(crate) fn new(member: u64, raft: Raft) -> Arc<Self> {
        Arc::new(Self {
            member,
            raft,
            waiting: Mutex::new(Some(Askers::new())),
            bell: Notify::new(),
        })
    }

    /// The term that this member is in, asked of openraft itself: what it publishes may be old.
    pub(crate) async fn term(&self) -> Option<u64> {
        let term = |state: &RaftState<TypeConfig>| state.vote_ref().leader_id.term;
        self.raft.with_raft_state(term).await.ok()
    }

    /// Asks this member, as the leader, on behalf of a peer that was in `term` when it asked.
    pub(crate) async fn ask_for(&self, peer: u64, term: u64) -> ReadIndex {
        match self.claim().await {
            Some(claim) if claim.is_confirmed_in(term) && claim.is_quorum_with(&[peer]) => {
                Ok(claim.index)
            }
            _ => self.ask().await,
        }
    }

    /// Asks this member, as the leader.
    pub(crate) async fn ask(&self) -> ReadIndex {
        let (sender, receiver) = oneshot::channel();
        if self.enter(sender)? == 1 {
            self.bell.notify_one();
        }
        receiver.await.unwrap_or(Err(Kind::NoQuorum))
    }

    /// Runs until the node stops and drops it.
    pub(crate) async fn run(self: Arc<Self>) {
        let open = Open(self.clone());
        loop {
            open.0.bell.notified().await;
            let Some(askers) = self.waiting().as_mut().map(std::mem::take) else { return };
            let round = tokio::spawn(self.clone().answer(askers));
            // A round that takes longer goes on by itself; one that panicked has told its askers.
            let _ = tokio::time::timeout(PATIENCE, round).await;
        }
    }

    async fn answer(self: Arc<Self>, askers: Askers) {
        let confirmed = tokio::time::timeout(RETRY, self.confirm()).await;
        let answer = confirmed.unwrap_or(Err(Kind::NoQuorum));
        for asker in askers {
            // Whoever is gone has stopped waiting, which is its right.
            let _ = asker.send(answer);
        }
    }

    async fn confirm(&self) -> ReadIndex {
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _)) => Ok(read.index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                Err(Kind::NotLeader)
            }
            Err(_) => Err(Kind::NoQuorum),
        }
    }

    async fn claim(&self) -> Option<Claim> {
        let member = self.member;
        self.raft.with_raft_state(move |state| Claim::of(state, member)).await.ok()?
    }

    /// Says how many wait now.
    fn enter(&self, asker: oneshot::Sender<ReadIndex>) -> Result<usize, Kind> {
        let mut waiting = self.waiting();
        let waiting = waiting.as_mut().ok_or(Kind::NoQuorum)?;
        waiting.push(asker);
        Ok(waiting.len())
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Askers>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The desk as long as somebody answers there; then whoever waits is sent away, and nobody else is
/// let in.
struct Open(Arc<ReadIndexDesk>);

impl Drop for Open {
    fn drop(&mut self) {
        *self.0.waiting() = None;
    }
}
