//! From the ports into the log: by way of openraft on the leader, by way of the leader elsewhere.
//!
//! Everything that waits when there is room in the pipeline becomes one entry. An entry's fate is
//! one of three:
//!
//! * *refused*: certainly not appended; its proposals go back to the front of the queue;
//! * *committed* at an index: this member answers when it applies that index;
//! * *unknown*: never sent again; whoever waits learns it from apply, or from the deadline.

mod forward;
mod tracker;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::entry::BatchBuilder;
use crate::intake::Submission;
use crate::limits::PIPELINE_ENTRIES_MAX;
use crate::machine::Machine;
use crate::peer::Peers;
use crate::responder::{Dropped, Follow, WriteResponder};
use crate::shared::Shared;
use crate::status::Leadership;
use crate::types::{LogId, TypeConfig};

use forward::{Forwarder, Patience};
use tracker::Tracker;

pub(crate) type Raft = openraft::Raft<TypeConfig, Machine>;

/// After a refusal, unless the leader changes before.
const REFUSAL_PAUSE: Duration = Duration::from_millis(20);

/// What became of an entry, as far as its proposer can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Refused,
    Committed(LogId),
    Unknown,
}

/// Tells the fate of one entry, once.
pub(crate) struct Teller<F: FnOnce(Fate) + Send>(Option<F>);

impl<F: FnOnce(Fate) + Send> Teller<F> {
    pub(crate) fn new(tell: F) -> Self {
        Self(Some(tell))
    }

    fn tell(&mut self, fate: Fate) {
        if let Some(tell) = self.0.take() {
            tell(fate);
        }
    }
}

impl<F: FnOnce(Fate) + Send> Follow<ClientWriteResult<TypeConfig>> for Teller<F> {
    fn committed(&mut self, log_id: LogId) {
        self.tell(Fate::Committed(log_id));
    }

    fn complete(mut self: Box<Self>, result: Result<ClientWriteResult<TypeConfig>, Dropped>) {
        self.tell(match result {
            Ok(Ok(written)) => Fate::Committed(written.log_id),
            Ok(Err(ClientWriteError::ForwardToLeader(_))) => Fate::Refused,
            Ok(Err(_)) | Err(Dropped) => Fate::Unknown,
        });
    }
}

/// The task that empties the intake.
pub(crate) struct Proposer {
    shared: Arc<Shared>,
    raft: Raft,
    peers: Arc<Peers>,
    leadership: watch::Receiver<Leadership>,
    checkpoints: watch::Receiver<u64>,
    queue: VecDeque<Submission>,
    tracker: Tracker,
    told: mpsc::Receiver<(u64, Fate)>,
    fates: mpsc::Sender<(u64, Fate)>,
    forwarder: Option<Forwarder>,
    paused_until: Option<Instant>,
}

impl Proposer {
    pub(crate) fn new(shared: Arc<Shared>, raft: Raft, peers: Arc<Peers>) -> Self {
        let leadership = shared.status.leadership();
        let checkpoints = shared.checkpoints();
        // Every entry under way tells one fate, so there is always room for it.
        let (fates, told) = mpsc::channel(PIPELINE_ENTRIES_MAX);
        Self {
            checkpoints,
            shared,
            raft,
            peers,
            leadership,
            queue: VecDeque::new(),
            tracker: Tracker::default(),
            told,
            fates,
            forwarder: None,
            paused_until: None,
        }
    }

    /// Runs until the node stops and drops it.
    pub(crate) async fn run(mut self) {
        let shared = self.shared.clone();
        loop {
            let resume = self.paused_until.unwrap_or_else(far_off);
            tokio::select! {
                biased;
                Some((batch, fate)) = self.told.recv() => self.settle(batch, fate),
                Ok(()) = self.checkpoints.changed() => self.skip(),
                Ok(()) = self.leadership.changed() => self.follow(),
                () = tokio::time::sleep_until(resume), if self.paused_until.is_some() => {
                    self.paused_until = None;
                }
                submissions = shared.intake.proposals() => self.queue.extend(submissions),
            }
            self.drop_expired();
            while self.may_send() {
                if !self.send_next().await {
                    break;
                }
            }
        }
    }

    /// Somebody else leads, perhaps. A stream to the one before is given up here, not where the next
    /// parcel is sent: that waits for what the old one may hold for ever.
    fn follow(&mut self) {
        self.paused_until = None;
        let leader = self.leadership.borrow_and_update().leader;
        if leader.is_some() && self.forwarder.as_ref().map(Forwarder::leader) != leader {
            self.forwarder = None;
        }
    }

    fn may_send(&self) -> bool {
        !self.queue.is_empty()
            && self.paused_until.is_none()
            && self.tracker.under_way() < PIPELINE_ENTRIES_MAX
    }

    /// Those whose deadline has passed are not waited for, and must not surprise anyone later.
    fn drop_expired(&mut self) {
        let now = Instant::now();
        while let Some(first) = self.queue.front() {
            if first.deadline > now {
                break;
            }
            self.shared.intake.release(first.encoded.len());
            self.queue.pop_front();
        }
    }

    /// Sends one entry's worth to whoever leads; false when nobody does.
    async fn send_next(&mut self) -> bool {
        let Some(leader) = self.leadership.borrow_and_update().leader else { return false };
        if leader == self.shared.identity.member_id {
            self.forwarder = None;
            self.propose().await
        } else {
            self.forward(leader)
        }
    }

    async fn propose(&mut self) -> bool {
        let mut builder = BatchBuilder::new(self.shared.level());
        let mut submissions = Vec::new();
        while let Some(next) = self.queue.front()
            && builder.has_room(&next.encoded)
        {
            builder.push(&next.encoded);
            submissions.extend(self.queue.pop_front());
        }
        let number = self.tracker.start(submissions);
        let fates = self.fates.clone();
        let teller = Teller::new(move |fate| {
            // Once the node has stopped nobody wants to know.
            let told = fates.try_send((number, fate));
            assert!(
                !matches!(told, Err(TrySendError::Full(_))),
                "there is room for every entry's fate"
            );
        });
        let responder = WriteResponder::new(teller);
        // On an error openraft has stopped and dropped the responder, which has told.
        self.raft.client_write_ff(builder.finish(), Some(responder)).await.is_ok()
    }

    fn forward(&mut self, leader: u64) -> bool {
        if self.forwarder.as_ref().is_none_or(|f| f.leader() != leader || f.is_closed()) {
            let Some(urls) = self.shared.peer_urls(leader) else {
                // Nobody tells when the membership arrives.
                self.paused_until = Some(Instant::now() + REFUSAL_PAUSE);
                return false;
            };
            let client = self.peers.client(leader, &urls, crate::peer::Lane::Append);
            let gate = self.peers.gate().clone();
            let patience = Patience {
                answer: self.shared.request_timeout,
                farewell: self.shared.status.election_timeout(),
            };
            self.forwarder =
                Some(Forwarder::start(leader, client, gate, self.fates.clone(), patience));
        }
        let Some(forwarder) = &self.forwarder else { return false };
        let Some(slot) = forwarder.reserve() else { return false };
        let mut builder = forward::Parcel::default();
        let mut submissions = Vec::new();
        while let Some(next) = self.queue.front()
            && builder.has_room(&next.encoded)
        {
            builder.push(next.encoded.clone());
            submissions.extend(self.queue.pop_front());
        }
        let number = self.tracker.start(submissions);
        slot.send(builder.finish(number));
        true
    }

    fn settle(&mut self, number: u64, fate: Fate) {
        let submissions = self.tracker.finish(number);
        if fate == Fate::Refused {
            self.paused_until = Some(Instant::now() + REFUSAL_PAUSE);
            for submission in submissions.into_iter().rev() {
                self.queue.push_front(submission);
            }
            return;
        }
        for submission in &submissions {
            self.shared.intake.release(submission.encoded.len());
        }
        if let Fate::Committed(log_id) = fate {
            let applied = self.shared.status.applied_index();
            // After the look at what is applied, which may be a checkpoint.
            self.skip();
            let tickets = submissions.iter().map(|s| s.ticket).collect();
            let skipped = self.tracker.committed(log_id.index, tickets, applied);
            self.shared.post_skipped(skipped);
        }
    }

    /// A checkpoint has taken the place of entries.
    fn skip(&mut self) {
        let index = *self.checkpoints.borrow_and_update();
        let skipped = self.tracker.checkpoint(index);
        self.shared.post_skipped(skipped);
    }
}

fn far_off() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}
