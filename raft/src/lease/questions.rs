//! Taking the ports' questions about leases to whoever leads.
//!
//! Several lists are on their way at a time, so that a slow answer holds up nobody else's. What a
//! leader leaves unanswered is asked again, apart from what is new.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::peer;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Request;

use crate::error::LeaseError;
use crate::intake::{LeaseQuestion, LeaseSubmission, Parcel};
use crate::lease::desk::LeaseDesk;
use crate::peer::{Lane, Peers};
use crate::port::{LeaseAnswer, Mail, TimeToLive};

/// Between two attempts to reach a leader.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a leader may take over a list; it gives itself less.
const ANSWER: Duration = Duration::from_millis(1500);
/// Lists of new questions that are on their way to a leader.
const LISTS_MAX: usize = 4;

/// Answers the ports' questions, until the node stops and drops it.
pub(crate) async fn answer_ports(desk: LeaseDesk, peers: Arc<Peers>) {
    let mut errands = Errands {
        desk: desk.clone(),
        peers,
        asking: JoinSet::new(),
        left: Vec::new(),
        is_repeating: false,
        repeat_at: Instant::now(),
    };
    let intake = &desk.shared.intake;
    loop {
        tokio::select! {
            biased;
            Some(asked) = errands.asking.join_next() => {
                let Asked { left, repeated } = asked.expect("asking does not panic");
                errands.is_repeating &= !repeated;
                errands.keep(left);
            }
            () = tokio::time::sleep_until(errands.repeat_at), if errands.may_repeat() => {
                errands.repeat();
            }
            fresh = intake.leases(), if errands.has_room() => errands.ask(fresh, false),
        }
    }
}

/// What is on its way, and what has come back unanswered.
struct Errands {
    desk: LeaseDesk,
    peers: Arc<Peers>,
    asking: JoinSet<Asked>,
    left: Vec<LeaseSubmission>,
    is_repeating: bool,
    repeat_at: Instant,
}

/// The end of an errand.
struct Asked {
    left: Vec<LeaseSubmission>,
    /// Whether it had been left before.
    repeated: bool,
}

impl Errands {
    fn has_room(&self) -> bool {
        self.asking.len() < LISTS_MAX + usize::from(self.is_repeating)
    }

    fn may_repeat(&self) -> bool {
        !self.left.is_empty() && !self.is_repeating
    }

    fn keep(&mut self, left: Vec<LeaseSubmission>) {
        if self.left.is_empty() {
            self.repeat_at = Instant::now() + PAUSE;
        }
        self.left.extend(left);
    }

    fn repeat(&mut self) {
        let now = Instant::now();
        let mut left = std::mem::take(&mut self.left);
        left.retain(|submission| submission.deadline > now);
        self.ask(left, true);
    }

    fn ask(&mut self, list: Vec<LeaseSubmission>, repeated: bool) {
        let leader = self.desk.shared.status.leadership().borrow().leader;
        match leader {
            _ if list.is_empty() => {}
            None => self.keep(list),
            Some(leader) if leader == self.desk.shared.identity.member_id => {
                let left = answer_here(&self.desk, list);
                self.keep(left);
            }
            Some(leader) => {
                self.is_repeating |= repeated;
                let (desk, peers) = (self.desk.clone(), self.peers.clone());
                self.asking.spawn(async move {
                    Asked { left: ask_leader(desk, peers, leader, list).await, repeated }
                });
            }
        }
    }
}

/// Answers what can be answered at once, and leaves the rest to tasks. Gives back what this member
/// turns out not to decide.
fn answer_here(desk: &LeaseDesk, waiting: Vec<LeaseSubmission>) -> Vec<LeaseSubmission> {
    let mut left = Vec::new();
    let mut answers = Vec::new();
    for submission in waiting {
        match desk.try_answer(submission.question) {
            Ok(Some(answer)) => {
                answers.push((submission.ticket, Mail::Lease(submission.ticket, Ok(answer))));
            }
            Ok(None) => {
                let desk = desk.clone();
                tokio::spawn(async move { answer_later(desk, submission).await });
            }
            Err(_) => left.push(submission),
        }
    }
    desk.shared.post(answers);
    left
}

async fn answer_later(desk: LeaseDesk, submission: LeaseSubmission) {
    let answering = desk.answer_one(submission.question);
    let answer = match tokio::time::timeout_at(submission.deadline, answering).await {
        Ok(Err(LeaseError::NoLeader)) => {
            // It does not lead any more; whoever does can answer.
            tokio::time::sleep(PAUSE).await;
            desk.shared.intake.put(Parcel { leases: vec![submission], ..Default::default() });
            return;
        }
        Ok(answer) => answer,
        Err(_) => Err(LeaseError::TimedOut),
    };
    desk.shared.post(vec![(submission.ticket, Mail::Lease(submission.ticket, answer))]);
}

/// Asks the leader everything at once. Gives back what it did not answer.
async fn ask_leader(
    desk: LeaseDesk,
    peers: Arc<Peers>,
    leader: u64,
    waiting: Vec<LeaseSubmission>,
) -> Vec<LeaseSubmission> {
    let Some(urls) = desk.shared.peer_urls(leader) else { return waiting };
    let mut asked = peer::LeaseRequest::default();
    for submission in &waiting {
        match submission.question {
            LeaseQuestion::KeepAlive(id) => asked.keep_alive.push(id),
            LeaseQuestion::TimeToLive(id) => asked.time_to_live.push(id),
        }
    }
    for list in [&mut asked.keep_alive, &mut asked.time_to_live] {
        list.sort_unstable();
        list.dedup();
    }
    let mut request = Request::new(asked);
    peers.gate().sign(&mut request, leader);
    let mut client = peers.client(leader, &urls, Lane::Pulse);
    let answer = match tokio::time::timeout(ANSWER, client.lease(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        _ => return waiting,
    };
    settle(&desk, &answer, waiting)
}

fn settle(
    desk: &LeaseDesk,
    answer: &peer::LeaseResponse,
    waiting: Vec<LeaseSubmission>,
) -> Vec<LeaseSubmission> {
    let kept: BTreeMap<i64, i64> =
        answer.keep_alive.iter().filter(|k| !k.unknown).map(|k| (k.lease, k.ttl)).collect();
    let found: BTreeMap<i64, Option<TimeToLive>> = answer
        .time_to_live
        .iter()
        .map(|t| {
            let times = TimeToLive { granted: t.granted, remaining: t.remaining };
            (t.lease, t.found.then_some(times))
        })
        .collect();
    let mut left = Vec::new();
    let mut answers = Vec::new();
    for submission in waiting {
        let answer = match submission.question {
            LeaseQuestion::KeepAlive(id) => kept.get(&id).map(|ttl| LeaseAnswer::KeepAlive(*ttl)),
            LeaseQuestion::TimeToLive(id) => found.get(&id).map(|t| LeaseAnswer::TimeToLive(*t)),
        };
        match answer {
            Some(answer) => {
                answers.push((submission.ticket, Mail::Lease(submission.ticket, Ok(answer))));
            }
            None => left.push(submission),
        }
    }
    desk.shared.post(answers);
    left
}
