//! From the ports into the log: by way of openraft on the leader, by way of the leader elsewhere.
//!
//! Everything that waits when there is room in the pipeline becomes one entry. An entry's fate is
//! one of three:
//!
//! * *refused*: certainly not appended; its proposals go back to the front of the queue, but for
//!   those that the leader has said it has no room for;
//! * *committed* at an index: this member answers when it applies that index;
//! * *unknown*: never sent again; whoever waits learns it from apply, or from the deadline.

mod forward;
mod tracker;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use holdfast_store::AlarmKind;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::entry::BatchBuilder;
use crate::error::ProposeError;
use crate::intake::{Lacks, Needs, Submission, Ticket};
use crate::limits::{PIPELINE_ENTRIES_MAX, PIPELINE_ENTRIES_MAX_PRESSED};
use crate::machine::Machine;
use crate::peer::Peers;
use crate::port::Mail;
use crate::responder::{Dropped, Follow, WriteResponder};
use crate::room::Room;
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
    /// Refused, since the leader has no room for something in it that has such needs.
    NoRoom(Lacks),
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
    room: watch::Receiver<Room>,
    queue: VecDeque<Submission>,
    /// The queue is not in the order of its deadlines.
    is_reordered: bool,
    tracker: Tracker,
    told: mpsc::Receiver<(u64, Fate)>,
    fates: mpsc::Sender<(u64, Fate)>,
    forwarder: Option<Forwarder>,
    /// The leader has refused something for want of room, and has taken nothing that needs some since.
    leader_lacks_room: bool,
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
            room: shared.gauge.changes(),
            shared,
            raft,
            peers,
            leadership,
            queue: VecDeque::new(),
            is_reordered: false,
            tracker: Tracker::default(),
            told,
            fates,
            forwarder: None,
            leader_lacks_room: false,
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
                Ok(()) = self.room.changed() => {}
                () = tokio::time::sleep_until(resume), if self.paused_until.is_some() => {
                    self.paused_until = None;
                }
                submissions = shared.intake.proposals() => self.take_in(submissions),
            }
            self.drop_expired();
            self.refuse_for_space();
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
        self.leader_lacks_room = false;
        let leader = self.leadership.borrow_and_update().leader;
        if leader.is_some() && self.forwarder.as_ref().map(Forwarder::leader) != leader {
            self.forwarder = None;
        }
    }

    fn may_send(&self) -> bool {
        !self.queue.is_empty()
            && self.paused_until.is_none()
            && self.tracker.under_way() < self.under_way_max()
    }

    fn under_way_max(&self) -> usize {
        match self.shared.gauge.is_pressed() {
            true => PIPELINE_ENTRIES_MAX_PRESSED,
            false => PIPELINE_ENTRIES_MAX,
        }
    }

    /// Those whose deadline has passed are not waited for, and must not surprise anyone later.
    fn drop_expired(&mut self) {
        let now = Instant::now();
        let intake = &self.shared.intake;
        let is_waited_for = |submission: &Submission| {
            let is_waited_for = submission.deadline > now;
            if !is_waited_for {
                intake.release(submission.encoded.len());
            }
            is_waited_for
        };
        if self.is_reordered {
            self.queue.retain(is_waited_for);
            self.is_reordered = !self.queue.is_empty();
            return;
        }
        while self.queue.front().is_some_and(|first| !is_waited_for(first)) {
            self.queue.pop_front();
        }
    }

    /// Whether there is so little room, here or elsewhere, that what needs it must not hold up what
    /// gives some.
    fn is_tight(&self) -> bool {
        self.leader_lacks_room
            || self.shared.gauge.is_short()
            || self.shared.reader.is_raised(AlarmKind::NoSpace)
    }

    /// Puts what gives room before the rest, both in their order.
    fn reorder(&mut self) {
        self.queue.make_contiguous().sort_by_key(|submission| submission.needs != Needs::Reserve);
        self.is_reordered = true;
    }

    /// What gives room, or says that there is none, must not wait behind what needs it.
    fn take_in(&mut self, submissions: Vec<Submission>) {
        self.queue.extend(submissions);
        if self.is_tight() {
            self.reorder();
        }
    }

    /// What has come before it was known that there is no room, and has not been sent: all of it
    /// together may be more than the reserve.
    fn refuse_for_space(&mut self) {
        let Shared { gauge, reader, .. } = &*self.shared;
        let is_raised = reader.is_raised(AlarmKind::NoSpace);
        if !gauge.is_short() && !is_raised {
            return;
        }
        // Corruption is told first, and by those who apply.
        let is_raised = is_raised && !reader.is_raised(AlarmKind::Corrupt);
        let is_let_in = |submission: &Submission| {
            gauge.lets_in(submission.needs) && !(is_raised && submission.needs == Needs::Room)
        };
        if self.queue.iter().all(is_let_in) {
            return;
        }
        let (left, refused): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.queue).into_iter().partition(is_let_in);
        self.queue = left;
        let refused = refused.iter().map(|submission| self.no_space(submission)).collect();
        self.shared.post(refused);
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
        let needs = self.queue.front().map(|first| first.needs);
        while let Some(next) = self.queue.front()
            && builder.has_room(&next.encoded)
            // A leader without room refuses a parcel as a whole.
            && (Some(next.needs) == needs || !self.is_tight())
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
        match fate {
            Fate::Refused => return self.put_back(submissions),
            Fate::NoRoom(lacks) => return self.refuse_for_leader(submissions, lacks),
            Fate::Committed(_) | Fate::Unknown => {}
        }
        for submission in &submissions {
            self.shared.intake.release(submission.encoded.len());
        }
        if let Fate::Committed(log_id) = fate {
            self.leader_lacks_room &= submissions.iter().all(|s| s.needs == Needs::Reserve);
            let applied = self.shared.status.applied_index();
            // After the look at what is applied, which may be a checkpoint.
            self.skip();
            let tickets = submissions.iter().map(|s| s.ticket).collect();
            let skipped = self.tracker.committed(log_id.index, tickets, applied);
            self.shared.post_skipped(skipped);
        }
    }

    /// The leader has not taken these, and may take them soon.
    fn put_back(&mut self, submissions: Vec<Submission>) {
        if submissions.is_empty() {
            return;
        }
        self.paused_until = Some(Instant::now() + REFUSAL_PAUSE);
        for submission in submissions.into_iter().rev() {
            self.queue.push_front(submission);
        }
        if self.is_tight() {
            self.reorder();
        }
    }

    /// The leader has no room for some of these. They are not offered again: the others, which may be
    /// what gives room, would be refused with them.
    fn refuse_for_leader(&mut self, submissions: Vec<Submission>, lacks: Lacks) {
        let (refused, left): (Vec<_>, Vec<_>) =
            submissions.into_iter().partition(|submission| submission.needs.is_lacking(lacks));
        let refused = refused.into_iter().map(|submission| self.no_space(&submission)).collect();
        self.shared.post(refused);
        self.leader_lacks_room = true;
        self.put_back(left);
    }

    fn no_space(&self, submission: &Submission) -> (Ticket, Mail) {
        self.shared.intake.release(submission.encoded.len());
        (submission.ticket, Mail::Proposal(submission.ticket, Err(ProposeError::NoSpace)))
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
