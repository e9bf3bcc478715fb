//! A connection runtime's side of the node: requests leave in lists, and answers come in lists.
//!
//! ```text
//! propose() -> outgoing --(driver: one lock, one wake)--> Intake -> Raft runtime
//! caller   <- waiting  <--(driver: wakes its own)-------- mail   <- apply thread
//! ```
//!
//! The driver is a task of the runtime that made the port, so no request is woken across threads.
//! It runs after the requests that were ready, and so hands over everything they asked for at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use holdfast_store::Outcome;
use holdfast_store::command::Command;
use prost::Message;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::entry::{decodes_in_entry, encode_proposal, is_nested};
use crate::error::{LeaseError, ProposeError, ReadBarrierError};
use crate::intake::{
    BarrierSubmission, LeaseQuestion, LeaseSubmission, Needs, Parcel, Submission, Ticket,
};
use crate::limits::{BACKLOG_ENTRIES_MAX, LEASE_QUESTIONS_MAX};
use crate::shared::Shared;

/// How often a port looks for requests whose time is up.
const SWEEP: Duration = Duration::from_millis(100);

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The store's answer.
    pub outcome: Outcome,
    /// The term of the entry.
    pub term: u64,
    /// The index of the entry; several proposals can share it.
    pub index: u64,
}

/// What the lease clock knows of a lease, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    /// As granted.
    pub granted: i64,
    /// What is left; can be negative while a revoke is on its way.
    pub remaining: i64,
}

/// The lease clock's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseAnswer {
    KeepAlive(i64),
    TimeToLive(Option<TimeToLive>),
}

/// What comes back to a port.
#[derive(Debug)]
pub(crate) enum Mail {
    Proposal(Ticket, Result<Applied, ProposeError>),
    Lease(Ticket, Result<LeaseAnswer, LeaseError>),
    Barrier { round: u64, result: Result<u64, ReadBarrierError> },
}

enum Waiting {
    Proposal { since: Instant, answer: oneshot::Sender<Result<Applied, ProposeError>> },
    Lease { answer: oneshot::Sender<Result<LeaseAnswer, LeaseError>> },
}

struct Barrier {
    deadline: Instant,
    answer: oneshot::Sender<Result<u64, ReadBarrierError>>,
}

#[derive(Default)]
struct Local {
    count: u64,
    outgoing: Parcel,
    /// By ticket, and so by age: all have the same time to live.
    waiting: BTreeMap<u64, (Instant, Waiting)>,
    leases_waiting: usize,
    /// The number of the latest barrier asked for.
    round: u64,
    /// Answered by that barrier.
    barriers_asked: Vec<Barrier>,
    /// Too late for the barrier under way; they share the next.
    barriers_next: Vec<Barrier>,
}

pub(crate) struct PortShared {
    number: usize,
    node: Arc<Shared>,
    local: Mutex<Local>,
    mail: Mutex<Vec<Mail>>,
    bell: Arc<Notify>,
}

/// The way from one connection runtime to the node. Clones share it; all must stay on the runtime
/// that called [`crate::Node::port`].
#[derive(Clone)]
pub struct Port {
    shared: Arc<PortShared>,
}

impl Port {
    /// Makes port `number` and starts its driver on the calling runtime.
    pub(crate) fn open(number: usize, node: Arc<Shared>) -> (Self, Weak<PortShared>) {
        let shared = Arc::new(PortShared {
            number,
            node,
            local: Mutex::default(),
            mail: Mutex::default(),
            bell: Arc::default(),
        });
        let weak = Arc::downgrade(&shared);
        tokio::spawn(drive(weak.clone(), shared.bell.clone()));
        (Self { shared }, weak)
    }

    /// Replicates a command and gives its outcome once this member has applied it. Works on any
    /// member. Dropping the future takes nothing back.
    pub async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        let (ticket, answer) = self.shared.submit(command)?;
        let _forget = Forget { port: &self.shared, ticket };
        let result = answer.await.unwrap_or(Err(ProposeError::Stopped));
        if result.is_err() {
            self.shared.node.counts.proposals_failed.add(1);
        }
        result
    }

    /// Returns once the published revision includes every write acknowledged before the call.
    pub async fn read_barrier(&self) -> Result<(), ReadBarrierError> {
        let (deadline, answer) = self.shared.ask_for_barrier();
        let index = answer.await.unwrap_or(Err(ReadBarrierError::Stopped))?;
        let applied = self.shared.node.status.wait_applied(index);
        let waited = tokio::time::timeout_at(deadline, applied).await;
        waited.map_err(|_| ReadBarrierError::TimedOut)
    }

    /// Returns once the revision at which keys are read includes every write acknowledged before
    /// the call. That can be earlier than the published revision does: see
    /// [`Reader::visible`](holdfast_store::Reader::visible).
    pub async fn key_barrier(&self) -> Result<(), ReadBarrierError> {
        if self.shared.node.sole.is_proven() {
            return Ok(());
        }
        self.health_barrier().await
    }

    /// As [`Port::key_barrier`], and always by way of the Raft runtime: a member that is stuck is
    /// not healthy, even where nobody has to be asked.
    pub async fn health_barrier(&self) -> Result<(), ReadBarrierError> {
        let (_, answer) = self.shared.ask_for_barrier();
        answer.await.unwrap_or(Err(ReadBarrierError::Stopped)).map(|_| ())
    }

    /// Whether this member has applied the entry at `index`, which another one may have done.
    pub fn has_applied(&self, index: u64) -> bool {
        self.shared.node.status.applied_index() >= index
    }

    /// Returns once everything is published that keys can be read after now; or when that takes
    /// longer than a request may.
    pub async fn published(&self) {
        let node = &self.shared.node;
        let published = node.status.wait_applied(node.status.visible_index());
        let _ = tokio::time::timeout(node.request_timeout, published).await;
    }

    /// Starts a lease anew, through the leader. Gives its TTL, or 0 if the lease is gone.
    pub async fn keep_alive(&self, lease: i64) -> Result<i64, LeaseError> {
        match self.ask_lease(LeaseQuestion::KeepAlive(lease)).await? {
            LeaseAnswer::KeepAlive(ttl) => Ok(ttl),
            LeaseAnswer::TimeToLive(_) => unreachable!("a ticket is answered in its own kind"),
        }
    }

    /// How long a lease has left, by the leader's clock; none if the lease is unknown.
    pub async fn time_to_live(&self, lease: i64) -> Result<Option<TimeToLive>, LeaseError> {
        match self.ask_lease(LeaseQuestion::TimeToLive(lease)).await? {
            LeaseAnswer::TimeToLive(answer) => Ok(answer),
            LeaseAnswer::KeepAlive(_) => unreachable!("a ticket is answered in its own kind"),
        }
    }

    async fn ask_lease(&self, question: LeaseQuestion) -> Result<LeaseAnswer, LeaseError> {
        let (ticket, answer) = self.shared.ask_lease(question)?;
        let _forget = Forget { port: &self.shared, ticket };
        answer.await.unwrap_or(Err(LeaseError::Stopped))
    }
}

/// Stops waiting when the caller does.
struct Forget<'a> {
    port: &'a PortShared,
    ticket: Ticket,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let mut local = self.port.lock();
        if let Some((_, Waiting::Lease { .. })) = local.waiting.remove(&self.ticket.0) {
            local.leases_waiting -= 1;
        }
    }
}

impl PortShared {
    fn lock(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts answers into the mailbox; callable from any thread.
    pub(crate) fn post(&self, answers: impl IntoIterator<Item = Mail>) {
        let mut mail = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        let wake = mail.is_empty();
        mail.extend(answers);
        let wake = wake && !mail.is_empty();
        drop(mail);
        if wake {
            self.bell.notify_one();
        }
    }

    pub(crate) fn proposals_waiting(&self) -> usize {
        let local = self.lock();
        local.waiting.len() - local.leases_waiting
    }

    /// Has the driver look, though nothing has come.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    #[allow(clippy::type_complexity)]
    fn submit(
        &self,
        command: Command,
    ) -> Result<(Ticket, oneshot::Receiver<Result<Applied, ProposeError>>), ProposeError> {
        let status = &self.node.status;
        if status.backlog() > BACKLOG_ENTRIES_MAX || status.is_disk_stalled() {
            return Err(ProposeError::TooManyRequests);
        }
        if command.encoded_len() > self.node.request_bytes_max {
            return Err(ProposeError::TooLarge);
        }
        let (sender, receiver) = oneshot::channel();
        let since = Instant::now();
        let deadline = since + self.node.request_timeout;
        let mut local = self.lock();
        let ticket = local.next_ticket(self.number);
        let identity = &self.node.identity;
        let (nests, needs) = (is_nested(&command), Needs::of(&command));
        let encoded = encode_proposal(identity.member_id, self.node.nonce, ticket.0, command);
        // A committed entry that does not decode would stop every member, for good.
        if nests && !decodes_in_entry(&encoded) {
            return Err(ProposeError::TooDeep);
        }
        if !self.node.intake.reserve(encoded.len()) {
            return Err(ProposeError::TooManyRequests);
        }
        local.waiting.insert(ticket.0, (deadline, Waiting::Proposal { since, answer: sender }));
        local.outgoing.proposals.push(Submission { ticket, needs, deadline, encoded });
        drop(local);
        self.bell.notify_one();
        Ok((ticket, receiver))
    }

    #[allow(clippy::type_complexity)]
    fn ask_lease(
        &self,
        question: LeaseQuestion,
    ) -> Result<(Ticket, oneshot::Receiver<Result<LeaseAnswer, LeaseError>>), LeaseError> {
        let (sender, receiver) = oneshot::channel();
        let deadline = Instant::now() + self.node.request_timeout;
        let mut local = self.lock();
        if local.leases_waiting >= LEASE_QUESTIONS_MAX {
            return Err(LeaseError::TooManyRequests);
        }
        local.leases_waiting += 1;
        let ticket = local.next_ticket(self.number);
        local.waiting.insert(ticket.0, (deadline, Waiting::Lease { answer: sender }));
        local.outgoing.leases.push(LeaseSubmission { ticket, deadline, question });
        drop(local);
        self.bell.notify_one();
        Ok((ticket, receiver))
    }

    fn ask_for_barrier(&self) -> (Instant, oneshot::Receiver<Result<u64, ReadBarrierError>>) {
        let (sender, receiver) = oneshot::channel();
        let deadline = Instant::now() + self.node.request_timeout;
        self.lock().barriers_next.push(Barrier { deadline, answer: sender });
        self.bell.notify_one();
        (deadline, receiver)
    }

    /// One turn of the driver; says when the next is due at the latest.
    fn turn(&self) -> Option<Instant> {
        let mail = std::mem::take(&mut *self.mail.lock().unwrap_or_else(PoisonError::into_inner));
        let mut local = self.lock();
        for answer in mail {
            local.deliver(answer);
        }
        local.sweep(&self.node, Instant::now());
        if local.barriers_asked.is_empty() {
            local.outgoing.barrier = local.next_round(self.number);
        }
        let parcel = std::mem::take(&mut local.outgoing);
        let idle = local.is_idle();
        drop(local);
        let bytes: usize = parcel.proposals.iter().map(|p| p.encoded.len()).sum();
        if !self.node.intake.put(parcel) {
            self.node.intake.release(bytes);
            self.lock().stop();
            return None;
        }
        (!idle).then(|| Instant::now() + SWEEP)
    }
}

impl Drop for PortShared {
    fn drop(&mut self) {
        // The driver finds the port gone and ends.
        self.bell.notify_one();
    }
}

impl Local {
    fn next_ticket(&mut self, port: usize) -> Ticket {
        self.count += 1;
        Ticket::new(port, self.count)
    }

    /// Asks for a barrier in the name of everyone who waits for the next.
    fn next_round(&mut self, port: usize) -> Option<BarrierSubmission> {
        // Of the last: those before it give up by themselves, and must not take it with them.
        let deadline = self.barriers_next.last()?.deadline;
        self.barriers_asked = std::mem::take(&mut self.barriers_next);
        self.round += 1;
        Some(BarrierSubmission { port, round: self.round, deadline })
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.barriers_asked.is_empty() && self.barriers_next.is_empty()
    }

    fn deliver(&mut self, mail: Mail) {
        // A receiver that is gone has stopped waiting, which is its right.
        match mail {
            Mail::Proposal(ticket, result) => {
                if let Some((_, Waiting::Proposal { answer, .. })) = self.waiting.remove(&ticket.0)
                {
                    let _ = answer.send(result);
                }
            }
            Mail::Lease(ticket, result) => {
                if let Some((_, Waiting::Lease { answer })) = self.waiting.remove(&ticket.0) {
                    self.leases_waiting -= 1;
                    let _ = answer.send(result);
                }
            }
            // The readers of an earlier round have given up already.
            Mail::Barrier { round, .. } if round != self.round => {}
            Mail::Barrier { result, .. } => {
                for barrier in self.barriers_asked.drain(..) {
                    let _ = barrier.answer.send(result.clone());
                }
            }
        }
    }

    /// Answers those whose time is up.
    fn sweep(&mut self, node: &Shared, now: Instant) {
        while let Some(first) = self.waiting.first_entry() {
            if first.get().0 > now {
                break;
            }
            match first.remove().1 {
                Waiting::Proposal { since, answer } => {
                    let _ = answer.send(Err(node.status.explain_timeout(since)));
                }
                Waiting::Lease { answer } => {
                    self.leases_waiting -= 1;
                    let error = if node.status.leader().is_some() {
                        LeaseError::TimedOut
                    } else {
                        LeaseError::NoLeader
                    };
                    let _ = answer.send(Err(error));
                }
            }
        }
        for list in [&mut self.barriers_asked, &mut self.barriers_next] {
            // Arrivals are in order, so those whose time is up come first.
            let expired = list.partition_point(|barrier| barrier.deadline <= now);
            for barrier in list.drain(..expired) {
                let _ = barrier.answer.send(Err(ReadBarrierError::TimedOut));
            }
        }
    }

    fn stop(&mut self) {
        for (_, waiting) in std::mem::take(&mut self.waiting).into_values() {
            match waiting {
                Waiting::Proposal { answer, .. } => {
                    let _ = answer.send(Err(ProposeError::Stopped));
                }
                Waiting::Lease { answer } => {
                    let _ = answer.send(Err(LeaseError::Stopped));
                }
            }
        }
        self.leases_waiting = 0;
        for barrier in self.barriers_asked.drain(..).chain(self.barriers_next.drain(..)) {
            let _ = barrier.answer.send(Err(ReadBarrierError::Stopped));
        }
    }
}

async fn drive(port: Weak<PortShared>, bell: Arc<Notify>) {
    let mut due = None;
    loop {
        match due {
            Some(due) => {
                let _ = tokio::time::timeout_at(due, bell.notified()).await;
            }
            None => bell.notified().await,
        }
        let Some(port) = port.upgrade() else { return };
        due = port.turn();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_round_lasts_as_long_as_its_last_reader_waits() {
        let mut local = Local::default();
        let now = Instant::now();
        for seconds in 1..=3 {
            let (answer, _) = oneshot::channel();
            let deadline = now + Duration::from_secs(seconds);
            local.barriers_next.push(Barrier { deadline, answer });
        }
        let asked = local.next_round(0).expect("readers wait");
        assert_eq!(asked.deadline, now + Duration::from_secs(3));
    }
}
