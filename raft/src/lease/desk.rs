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

/// How long a peer's question may wait for a revoke before it is told to ask again.
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
        match question {
            LeaseQuestion::KeepAlive(id) => Ok(match self.keep_alive(id)? {
                KeepAlive::Renewed(ttl) => Some(LeaseAnswer::KeepAlive(ttl)),
                KeepAlive::Gone => Some(LeaseAnswer::KeepAlive(0)),
                KeepAlive::Ending | KeepAlive::CommitFirst => None,
            }),
            LeaseQuestion::TimeToLive(id) => {
                let mut clock = self.clock();
                let clock = clock.as_mut().filter(|c| self.leads(c)).ok_or(LeaseError::NoLeader)?;
                self.catch_up(clock);
                Ok(Some(LeaseAnswer::TimeToLive(clock.time_to_live(id, Instant::now()))))
            }
        }
    }

    fn keep_alive(&self, id: i64) -> Result<KeepAlive, LeaseError> {
        let mut clock = self.clock();
        let clock = clock.as_mut().filter(|c| self.leads(c)).ok_or(LeaseError::NoLeader)?;
        // It may have been granted, or revoked, a moment ago.
        self.catch_up(clock);
        Ok(clock.keep_alive(id, Instant::now()))
    }

    /// The answer, waiting for what has to be decided or committed first.
    pub(super) async fn answer_one(
        &self,
        question: LeaseQuestion,
    ) -> Result<LeaseAnswer, LeaseError> {
        let LeaseQuestion::KeepAlive(id) = question else {
            return self.try_answer(question)?.ok_or(LeaseError::TimedOut);
        };
        loop {
            let decided = self.decided.notified();
            match self.keep_alive(id)? {
                KeepAlive::Renewed(ttl) => return Ok(LeaseAnswer::KeepAlive(ttl)),
                KeepAlive::Gone => return Ok(LeaseAnswer::KeepAlive(0)),
                KeepAlive::Ending => decided.await,
                KeepAlive::CommitFirst => self.commit_full(id).await?,
            }
        }
    }

    /// Replicates that a lease has its full TTL again.
    async fn commit_full(&self, id: i64) -> Result<(), LeaseError> {
        let remainders = vec![LeaseRemainder { id, remaining_ttl: 0 }];
        let change = Change::LeaseCheckpoint(LeaseCheckpoint { remainders });
        let proposed = self.port.propose(Command { change: Some(change) }).await;
        proposed.map_err(|_| LeaseError::TimedOut)?;
        let mut clock = self.clock();
        if let Some(clock) = clock.as_mut() {
            self.catch_up(clock);
        }
        Ok(())
    }

    /// Answers a peer's questions together.
    pub(crate) async fn answer(&self, asked: peer::LeaseRequest) -> peer::LeaseResponse {
        let leads = self.clock().as_ref().is_some_and(|clock| self.leads(clock));
        if !leads {
            return peer::LeaseResponse { not_leader: true, ..Default::default() };
        }
        let keep_alive = asked.keep_alive.into_iter().map(|lease| async move {
            let answering = self.answer_one(LeaseQuestion::KeepAlive(lease));
            let ttl = match tokio::time::timeout(PATIENCE, answering).await {
                Ok(Ok(LeaseAnswer::KeepAlive(ttl))) => Some(ttl),
                _ => None,
            };
            let unknown = ttl.is_none();
            peer::lease_response::KeepAlive { lease, ttl: ttl.unwrap_or(0), unknown }
        });
        let keep_alive = join_all(keep_alive).await;
        let mut time_to_live = Vec::new();
        for lease in asked.time_to_live {
            let Ok(Some(LeaseAnswer::TimeToLive(found))) =
                self.try_answer(LeaseQuestion::TimeToLive(lease))
            else {
                continue;
            };
            time_to_live.push(peer::lease_response::TimeToLive {
                lease,
                found: found.is_some(),
                granted: found.map_or(0, |found| found.granted),
                remaining: found.map_or(0, |found| found.remaining),
            });
        }
        peer::LeaseResponse { not_leader: false, keep_alive, time_to_live }
    }
}
