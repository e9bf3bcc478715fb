//! Where the connection runtimes hand their requests to the Raft runtime.
//!
//! One lock for a whole list of requests, and one wake for a list put into an empty queue. What
//! waits here and further on, until the log has it, is bounded in bytes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use holdfast_store::AlarmCause;
use holdfast_store::command::{Change, Command};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::PROPOSAL_QUEUE_BYTES_MAX;

/// A request's number: which port waits for it, and which of the port's requests it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

const COUNT_BITS: u32 = 40;

impl Ticket {
    pub(crate) fn new(port: usize, count: u64) -> Self {
        let port = port as u64;
        assert!(port < 1 << (64 - COUNT_BITS), "fewer ports than there are numbers for them");
        assert!(count < 1 << COUNT_BITS, "a port lives for fewer requests than 2^40");
        Self(port << COUNT_BITS | count)
    }

    pub(crate) fn port(self) -> usize {
        (self.0 >> COUNT_BITS) as usize
    }
}

/// What a member has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacks {
    /// For what adds something.
    Room,
    /// Nor for what needs room in the log alone.
    Log,
}

/// What a proposal needs of a file system that has little room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Room for what it adds.
    Room,
    /// Room in the log.
    Log,
    /// No more than the reserve is for. It goes before the others while there is little room.
    Reserve,
}

impl Needs {
    pub(crate) fn of(command: &Command) -> Self {
        match &command.change {
            Some(change) if change.needs_room() => Self::Room,
            // Whoever makes room has to log in first.
            Some(Change::Auth(change)) if change.is_login() => Self::Reserve,
            // What members raise for themselves is what the reserve is for.
            Some(Change::RaiseAlarm(raise)) if raise.cause == AlarmCause::Client as i32 => {
                Self::Log
            }
            Some(
                Change::DeleteRange(_) | Change::Txn(_) | Change::Auth(_) | Change::SetDowngrade(_),
            ) => Self::Log,
            Some(_) | None => Self::Reserve,
        }
    }

    /// Whether a member that lacks this has no room for it.
    pub(crate) fn is_lacking(self, lacks: Lacks) -> bool {
        match self {
            Self::Room => true,
            Self::Log => lacks == Lacks::Log,
            Self::Reserve => false,
        }
    }
}

/// A proposal on its way into the log.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    pub(crate) ticket: Ticket,
    pub(crate) needs: Needs,
    /// After it nobody waits any more, and the proposal is not sent.
    pub(crate) deadline: Instant,
    /// The encoding of a `Proposal`.
    pub(crate) encoded: Bytes,
}

/// What is asked of the leader's lease clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseQuestion {
    KeepAlive(i64),
    TimeToLive(i64),
}

/// A question on its way to the lease clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseSubmission {
    pub(crate) ticket: Ticket,
    pub(crate) deadline: Instant,
    pub(crate) question: LeaseQuestion,
}

/// One port's readers, who wait for a barrier together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BarrierSubmission {
    pub(crate) port: usize,
    /// Echoed in the answer: an answer must not release readers that came after the question.
    pub(crate) round: u64,
    /// When the last of them gives up.
    pub(crate) deadline: Instant,
}

/// What one port hands over at a time.
#[derive(Debug, Default)]
pub(crate) struct Parcel {
    pub(crate) proposals: Vec<Submission>,
    pub(crate) leases: Vec<LeaseSubmission>,
    /// Readers wait for a barrier that starts from now on.
    pub(crate) barrier: Option<BarrierSubmission>,
}

#[derive(Debug, Default)]
struct Queue {
    proposals: Vec<Submission>,
    leases: Vec<LeaseSubmission>,
    barriers: Vec<BarrierSubmission>,
    closed: bool,
}

/// The queue between the ports and the tasks of the Raft runtime.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    queue: Mutex<Queue>,
    proposals: Notify,
    leases: Notify,
    barriers: Notify,
    bytes: AtomicUsize,
}

impl Intake {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves room for a proposal; released once its fate is out of this member's hands.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > PROPOSAL_QUEUE_BYTES_MAX {
            self.release(bytes);
            return false;
        }
        true
    }

    /// Gives back what [`Intake::reserve`] took.
    pub(crate) fn release(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "released more than was reserved");
    }

    /// Hands over a list; false once the node has stopped.
    pub(crate) fn put(&self, parcel: Parcel) -> bool {
        let mut queue = self.lock();
        if queue.closed {
            return false;
        }
        let wake_proposals = queue.proposals.is_empty() && !parcel.proposals.is_empty();
        let wake_leases = queue.leases.is_empty() && !parcel.leases.is_empty();
        let wake_barriers = queue.barriers.is_empty() && parcel.barrier.is_some();
        queue.proposals.extend(parcel.proposals);
        queue.leases.extend(parcel.leases);
        queue.barriers.extend(parcel.barrier);
        drop(queue);
        for (wake, bell) in [
            (wake_proposals, &self.proposals),
            (wake_leases, &self.leases),
            (wake_barriers, &self.barriers),
        ] {
            if wake {
                bell.notify_one();
            }
        }
        true
    }

    /// Everything proposed since the last call; waits for the first.
    pub(crate) async fn proposals(&self) -> Vec<Submission> {
        loop {
            let taken = std::mem::take(&mut self.lock().proposals);
            if !taken.is_empty() {
                return taken;
            }
            self.proposals.notified().await;
        }
    }

    /// Everything asked of the lease clock since the last call; waits for the first.
    pub(crate) async fn leases(&self) -> Vec<LeaseSubmission> {
        loop {
            let taken = std::mem::take(&mut self.lock().leases);
            if !taken.is_empty() {
                return taken;
            }
            self.leases.notified().await;
        }
    }

    /// Every port that has asked for a barrier since the last call; waits for the first.
    pub(crate) async fn barriers(&self) -> Vec<BarrierSubmission> {
        loop {
            let taken = std::mem::take(&mut self.lock().barriers);
            if !taken.is_empty() {
                return taken;
            }
            self.barriers.notified().await;
        }
    }

    /// Takes nothing more.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        let proposals = std::mem::take(&mut queue.proposals);
        drop(queue);
        for submission in proposals {
            self.release(submission.encoded.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_store::command::{
        AssignToken, AuthChange, AuthChangeKind, DeleteRange, LeaseCheckpoint, Put, RaiseAlarm,
    };

    use super::*;

    #[test]
    fn who_has_no_room_takes_what_gives_some() {
        let needs = |change| Needs::of(&Command { change: Some(change), credentials: None });
        let login = AuthChange { kind: Some(AuthChangeKind::AssignToken(AssignToken::default())) };
        assert_eq!(needs(Change::Put(Put::default())), Needs::Room);
        assert_eq!(needs(Change::DeleteRange(DeleteRange::default())), Needs::Log);
        assert_eq!(needs(Change::Auth(AuthChange::default())), Needs::Log);
        let raise = |cause| RaiseAlarm { cause: cause as i32, ..RaiseAlarm::default() };
        assert_eq!(needs(Change::RaiseAlarm(raise(AlarmCause::Client))), Needs::Log);
        for change in [
            Change::Auth(login),
            Change::RaiseAlarm(raise(AlarmCause::Disk)),
            Change::LeaseCheckpoint(LeaseCheckpoint::default()),
            Change::Compact(holdfast_store::command::Compact::default()),
        ] {
            assert_eq!(needs(change), Needs::Reserve);
        }
        let lacking = [Lacks::Room, Lacks::Log]
            .map(|lacks| [Needs::Room, Needs::Log, Needs::Reserve].map(|n| n.is_lacking(lacks)));
        assert_eq!(lacking, [[true, false, false], [true, true, false]]);
    }
}
