//! Where questions about leases are answered, on the leader.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_proto::peer;
use holdfast_store::LeaseEvent;
use holdfast_store::command::{Change, Command, LeaseCheckpoint, LeaseRemainder};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::LeaseError;
use crate::intake::LeaseQuestion;
use crate::lease::clock::{Clock, KeepAlive};
use crate::port::{LeaseAnswer, Port};
use crate::shared::Shared;

/// How long a peer's question may wait before it has to be asked again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Answers questions while this member leads. Clones are the same desk.
#[derive(Clone)]
pub(crate) struct LeaseDesk {
    pub(super) shared: Arc<Shared>,
    pub(super) port: Port,
    clock: Arc<Mutex<Option<Clock>>>,
    pub(super) decided: Arc<Notify>,
}

impl LeaseDesk {
    pub(crate) fn new(shared: Arc<Shared>, port: Port) -> Self {
        Self { shared, port, clock: Arc::default(), decided: Arc::default() }
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    pub(super) fn clock(&self) -> MutexGuard<'_, Option<Clock>> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this member's clock is the one that counts, as far as it can know.
    fn leads(&self, clock: &Clock) -> bool {
        let status = &self.shared.status;
        status.term() == clock.term() && status.leader() == Some(self.shared.identity.member_id)
    }

    /// Takes over what was applied since the last time.
    pub(super) fn catch_up(&self, clock: &mut Clock) {
        let now = Instant::now();
        for event in self.shared.reader.take_lease_events() {
            match event {
                LeaseEvent::Rescan => clock.rescan(&self.shared.reader.leases(), now),
                event => clock.observe(&event, now),
            }
        }
    }

    /// The answer that can be given at once; none when it takes a while.
    pub(super) fn try_answer(
        &self,
        question: LeaseQuestion,
    ) -> Result<Option<LeaseAnswer>, LeaseError> {
        Ok(match self.look(question)? {
            Looked::Answer(answer) => Some(answer),
            Looked::Absent | Looked::Ending | Looked::CommitFirst => None,
        })
    }

    fn look(&self, question: LeaseQuestion) -> Result<Looked, LeaseError> {
        let mut clock = self.clock();
        let clock = clock.as_mut().filter(|c| self.leads(c)).ok_or(LeaseError::NoLeader)?;
        // It may have been granted, or revoked, a moment ago.
        self.catch_up(clock);
        let now = Instant::now();
        Ok(match question {
            LeaseQuestion::KeepAlive(id) => match clock.keep_alive(id, now) {
                KeepAlive::Renewed(ttl) => {
                    self.shared.counts.leases_renewed.add(1);
                    Looked::Answer(LeaseAnswer::KeepAlive(ttl))
                }
                KeepAlive::Gone => Looked::Absent,
                KeepAlive::Ending => Looked::Ending,
                KeepAlive::CommitFirst => Looked::CommitFirst,
            },
            LeaseQuestion::TimeToLive(id) => match clock.time_to_live(id, now) {
                Some(times) => Looked::Answer(LeaseAnswer::TimeToLive(Some(times))),
                None => Looked::Absent,
            },
        })
    }

    /// The answer, waiting for what has to be applied, decided or committed first.
    pub(super) async fn answer_one(
        &self,
        question: LeaseQuestion,
    ) -> Result<LeaseAnswer, LeaseError> {
        let mut is_applied = false;
        loop {
            let decided = self.decided.notified();
            match (self.look(question)?, question) {
                (Looked::Answer(answer), _) => return Ok(answer),
                (Looked::Absent, _) if !is_applied => {
                    self.apply_acknowledged().await?;
                    is_applied = true;
                }
                (Looked::CommitFirst, LeaseQuestion::KeepAlive(id)) => self.commit_full(id).await?,
                (Looked::Ending | Looked::CommitFirst, _) => decided.await,
                (Looked::Absent, LeaseQuestion::KeepAlive(_)) => {
                    return Ok(LeaseAnswer::KeepAlive(0));
                }
                (Looked::Absent, LeaseQuestion::TimeToLive(_)) => {
                    return Ok(LeaseAnswer::TimeToLive(None));
                }
            }
        }
    }

    /// Returns once every grant that anybody has been told of is applied here. Another member may
    /// apply an entry, and answer for it, before the leader does.
    async fn apply_acknowledged(&self) -> Result<(), LeaseError> {
        self.port.read_barrier().await.map_err(|_| LeaseError::NoLeader)
    }

    /// Replicates that a lease has its full TTL again.
    async fn commit_full(&self, id: i64) -> Result<(), LeaseError> {
        let term = self.clock().as_ref().map(Clock::term).ok_or(LeaseError::NoLeader)?;
        let remainders = vec![LeaseRemainder { id, remaining_ttl: 0 }];
        let checkpoint = LeaseCheckpoint { remainders, decided_in_term: term };
        let change = Change::LeaseCheckpoint(checkpoint);
        let proposed = self.port.propose(Command::from(change)).await;
        proposed.map_err(|_| LeaseError::TimedOut)?;
        let mut clock = self.clock();
        if let Some(clock) = clock.as_mut() {
            self.catch_up(clock);
        }
        Ok(())
    }

    /// Answers a peer's questions: all that can be answered at once, or else all that can be soon.
    /// What takes a while holds up nothing else: the peer asks for it again, by itself.
    pub(crate) async fn answer(&self, asked: peer::LeaseRequest) -> peer::LeaseResponse {
        let leads = self.clock().as_ref().is_some_and(|clock| self.leads(clock));
        if !leads {
            return peer::LeaseResponse { not_leader: true, ..Default::default() };
        }
        let keep_alive = asked.keep_alive.into_iter().map(LeaseQuestion::KeepAlive);
        let time_to_live = asked.time_to_live.into_iter().map(LeaseQuestion::TimeToLive);
        let mut response = peer::LeaseResponse::default();
        let mut open = Vec::new();
        for question in keep_alive.chain(time_to_live) {
            match self.try_answer(question) {
                Ok(Some(answer)) => add(&mut response, question, answer),
                Ok(None) | Err(_) => open.push(question),
            }
        }
        if !response.keep_alive.is_empty() || !response.time_to_live.is_empty() {
            return response;
        }
        let waiting = open.into_iter().map(|question| async move {
            let answer = tokio::time::timeout(PATIENCE, self.answer_one(question)).await;
            Some((question, answer.ok()?.ok()?))
        });
        for (question, answer) in join_all(waiting).await.into_iter().flatten() {
            add(&mut response, question, answer);
        }
        response
    }
}

/// What the clock says to a question.
enum Looked {
    Answer(LeaseAnswer),
    /// The lease is not known here, or not yet.
    Absent,
    /// The lease is about to be revoked; ask again when that is decided.
    Ending,
    /// A shorter remainder is replicated: "full again" must be committed first.
    CommitFirst,
}

fn add(response: &mut peer::LeaseResponse, question: LeaseQuestion, answer: LeaseAnswer) {
    use peer::lease_response as wire;
    match (question, answer) {
        (LeaseQuestion::KeepAlive(lease), LeaseAnswer::KeepAlive(ttl)) => {
            response.keep_alive.push(wire::KeepAlive { lease, ttl, unknown: false });
        }
        (LeaseQuestion::TimeToLive(lease), LeaseAnswer::TimeToLive(found)) => {
            response.time_to_live.push(wire::TimeToLive {
                lease,
                found: found.is_some(),
                granted: found.map_or(0, |found| found.granted),
                remaining: found.map_or(0, |found| found.remaining),
            });
        }
        _ => unreachable!("a question is answered in its own kind"),
    }
}
