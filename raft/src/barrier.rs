//! The read barrier: everyone who waits shares one question to the leader.
//!
//! One round is under way at a time; who comes meanwhile shares the next, because an answer that was
//! asked for before a read began proves nothing to it. The wait for apply is not part of a round: an
//! answer is the index, given when keys can be read as of after it.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::peer;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Request;

use crate::error::ReadBarrierError;
use crate::intake::BarrierSubmission;
use crate::peer::{Lane, Peers};
use crate::port::Mail;
use crate::read_index::{RETRY, ReadIndexDesk};
use crate::shared::Shared;
use crate::status::Leadership;

/// After an answer that helps nobody.
const PAUSE: Duration = Duration::from_millis(10);

/// In place of a term.
const UNSAID: u64 = 0;

/// What a round comes to.
struct Answer {
    /// Must be applied before the readers may read.
    index: u64,
    /// Whether this member led the round.
    led: bool,
}

/// The task that runs the rounds.
pub(crate) struct Barriers {
    pub(crate) shared: Arc<Shared>,
    /// Answers when this member leads.
    pub(crate) desk: Arc<ReadIndexDesk>,
    pub(crate) peers: Arc<Peers>,
}

impl Barriers {
    /// Runs until the node stops and drops it.
    pub(crate) async fn run(self) {
        loop {
            let asked = self.shared.intake.barriers().await;
            let last = asked.iter().map(|a| a.deadline).max().expect("never empty");
            let alone = self.shared.sole.before_round(&self.shared.membership());
            let round = self.round(last).await;
            if let (Some(alone), Ok(Answer { index, led: true })) = (alone, &round)
                && self.shared.status.visible_index() >= *index
            {
                self.shared.sole.after_round(alone);
            }
            match round {
                Ok(Answer { index, .. }) => self.answer_when_visible(asked, index, last),
                Err(error) => {
                    self.shared.counts.read_indexes_failed.add(1);
                    answer(&self.shared, &asked, &Err(error));
                }
            }
        }
    }

    /// As many rounds may wait for apply as there are ports: each port has one round at a time.
    fn answer_when_visible(&self, asked: Vec<BarrierSubmission>, index: u64, last: Instant) {
        let shared = self.shared.clone();
        if shared.status.visible_index() >= index {
            return answer(&shared, &asked, &Ok(index));
        }
        tokio::spawn(async move {
            let waited = tokio::time::timeout_at(last, shared.status.wait_visible(index)).await;
            let result = waited.map(|()| index).map_err(|_| ReadBarrierError::TimedOut);
            answer(&shared, &asked, &result);
        });
    }

    async fn round(&self, deadline: Instant) -> Result<Answer, ReadBarrierError> {
        let mut leadership = self.shared.status.leadership();
        let mut before = *leadership.borrow_and_update();
        loop {
            let asked = tokio::time::timeout(RETRY, self.ask(before));
            tokio::select! {
                biased;
                changed = wait_change(&mut leadership, before) => {
                    // Without a leader nobody was asked, so nothing was interrupted.
                    if before.leader.is_some() {
                        return Err(ReadBarrierError::LeaderChanged);
                    }
                    before = changed;
                }
                answer = asked => match answer {
                    Ok(Some(answer)) => return Ok(answer),
                    Ok(None) => tokio::time::sleep(PAUSE).await,
                    Err(_) => self.shared.counts.slow_read_indexes.add(1),
                },
                () = tokio::time::sleep_until(deadline) => return Err(ReadBarrierError::TimedOut),
            }
            if Instant::now() >= deadline {
                return Err(ReadBarrierError::TimedOut);
            }
        }
    }

    async fn ask(&self, leadership: Leadership) -> Option<Answer> {
        match leadership.leader {
            None => std::future::pending().await,
            Some(leader) if leader == self.shared.identity.member_id => {
                let index = self.desk.ask().await.ok()?;
                Some(Answer { index, led: true })
            }
            Some(leader) => {
                let index = self.ask_leader(leader).await?;
                Some(Answer { index, led: false })
            }
        }
    }

    async fn ask_leader(&self, leader: u64) -> Option<u64> {
        let urls = self.shared.peer_urls(leader)?;
        // Whose disk has this member wait can still read, if the leader asks others.
        let term = tokio::time::timeout(PAUSE, self.desk.term()).await.unwrap_or_default();
        let term = term.unwrap_or(UNSAID);
        let mut request = Request::new(peer::ReadIndexRequest { term });
        self.peers.gate().sign(&mut request, leader);
        let mut client = self.peers.client(leader, &urls, Lane::Pulse);
        let asked = Instant::now();
        let answer = client.read_index(request).await.ok()?.into_inner();
        self.shared.counts.peer(leader).round_trip.observe(asked.elapsed());
        match answer.kind() {
            peer::read_index_response::Kind::Ready => answer.log_id.map(|log_id| log_id.index),
            _ => None,
        }
    }
}

async fn wait_change(
    leadership: &mut watch::Receiver<Leadership>,
    before: Leadership,
) -> Leadership {
    let changed = leadership.wait_for(|now| *now != before).await;
    *changed.expect("the node keeps the sender while the task runs")
}

fn answer(shared: &Shared, asked: &[BarrierSubmission], result: &Result<u64, ReadBarrierError>) {
    for BarrierSubmission { port, round, .. } in asked {
        let mail = Mail::Barrier { round: *round, result: result.clone() };
        shared.post_to(*port, vec![mail]);
    }
}
