//! The tasks of the lease clock: running it while this member leads, and taking questions to
//! whoever does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::peer;
use holdfast_store::command::{Change, Command, LeaseCheckpoint, LeaseRemainder, LeaseRevoke};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Request;

use crate::error::LeaseError;
use crate::intake::{LeaseQuestion, LeaseSubmission};
use crate::lease::clock::{CHECKPOINT_LEASES_MAX, Clock};
use crate::lease::desk::LeaseDesk;
use crate::peer::{Lane, Peers};
use crate::port::{LeaseAnswer, Mail, TimeToLive};
use crate::status::Leadership;

/// How often the clock looks for leases that have expired.
const TICK: Duration = Duration::from_millis(500);
/// Leases expired at one look.
const EXPIRE_MAX: usize = 500;
/// Revokes proposed and not decided.
const REVOKES_MAX: usize = 64;
/// How often remainders are replicated.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(300);
/// Between two attempts to reach a leader.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs the clock whenever this member leads, until the node stops and drops it.
pub(crate) async fn keep_time(desk: LeaseDesk, election_timeout: Duration) {
    let mut leadership = desk.shared.status.leadership();
    let me = desk.shared.identity.member_id;
    loop {
        let now = *leadership.borrow_and_update();
        if now.leader == Some(me) {
            tokio::select! {
                biased;
                () = changed(&mut leadership, now) => {}
                () = lead(&desk, now.term, election_timeout) => {}
            }
            *desk.clock() = None;
            desk.shared.reader.subscribe_leases(false);
            // Whoever waited for a revoke learns that nobody here decides it any more.
            desk.decided.notify_waiters();
        } else {
            changed(&mut leadership, now).await;
        }
    }
}

async fn changed(leadership: &mut watch::Receiver<Leadership>, before: Leadership) {
    let changed = leadership.wait_for(|now| *now != before).await;
    changed.expect("the node keeps the sender while the task runs");
}

/// One term of leadership.
async fn lead(desk: &LeaseDesk, term: u64, election_timeout: Duration) {
    // Everything older terms have committed is applied once this term's first entry is.
    while desk.shared.reader.applied().term < term {
        let next = desk.shared.status.applied_index() + 1;
        let _ = tokio::time::timeout(TICK, desk.shared.status.wait_applied(next)).await;
    }
    desk.shared.reader.subscribe_leases(true);
    let leases = desk.shared.reader.leases();
    *desk.clock() = Some(Clock::start(term, &leases, election_timeout, Instant::now()));
    let mut checkpoint_due = Instant::now() + CHECKPOINT_EVERY;
    let mut revokes = tokio::task::JoinSet::new();
    loop {
        let expired = with_clock(desk, |clock| {
            clock.expire(Instant::now(), EXPIRE_MAX.min(REVOKES_MAX - revokes.len()))
        });
        for id in expired {
            revokes.spawn(revoke(desk.clone(), id, term));
        }
        if Instant::now() >= checkpoint_due {
            checkpoint(desk).await;
            checkpoint_due = Instant::now() + CHECKPOINT_EVERY;
        }
        let tick = Instant::now() + TICK;
        let next =
            with_clock(desk, |clock| clock.next_deadline()).filter(|at| *at > Instant::now());
        let wake = next.map_or(tick, |at| at.min(tick));
        tokio::select! {
            () = tokio::time::sleep_until(wake) => {}
            Some(_) = revokes.join_next() => while revokes.try_join_next().is_some() {},
        }
    }
}

/// Does something with the clock, which has caught up.
fn with_clock<R: Default>(desk: &LeaseDesk, work: impl FnOnce(&mut Clock) -> R) -> R {
    let mut clock = desk.clock();
    let Some(clock) = clock.as_mut() else { return R::default() };
    desk.catch_up(clock);
    work(clock)
}

async fn revoke(desk: LeaseDesk, id: i64, term: u64) {
    let change = Change::LeaseRevoke(LeaseRevoke { id, decided_in_term: term });
    // Whatever came of it: if the lease is still there, it has not been revoked yet.
    let _ = desk.port.propose(Command { change: Some(change) }).await;
    with_clock(&desk, |clock| clock.revoke_failed(id));
    desk.decided.notify_waiters();
}

/// Replicates how long the long leases have left.
async fn checkpoint(desk: &LeaseDesk) {
    let remainders = with_clock(desk, |clock| clock.remainders(Instant::now()));
    for chunk in remainders.chunks(CHECKPOINT_LEASES_MAX) {
        with_clock(desk, |clock| {
            for (id, _) in chunk {
                clock.mark_checkpointed(*id);
            }
        });
        let remainders =
            chunk.iter().map(|&(id, remaining_ttl)| LeaseRemainder { id, remaining_ttl }).collect();
        let change = Change::LeaseCheckpoint(LeaseCheckpoint { remainders });
        if let Err(error) = desk.port.propose(Command { change: Some(change) }).await {
            tracing::warn!(%error, "the remainders of leases were not replicated");
            return;
        }
    }
}

/// Takes the ports' questions to the leader, until the node stops and drops it.
pub(crate) async fn answer_ports(desk: LeaseDesk, peers: Arc<Peers>) {
    let mut waiting: Vec<LeaseSubmission> = Vec::new();
    loop {
        if waiting.is_empty() {
            waiting = desk.shared.intake.leases().await;
        } else {
            // Those left over from the last attempt; whoever has come meanwhile joins them.
            let more = tokio::time::timeout(PAUSE, desk.shared.intake.leases()).await;
            waiting.extend(more.unwrap_or_default());
            let now = Instant::now();
            waiting.retain(|submission| submission.deadline > now);
        }
        let leader = desk.shared.status.leadership().borrow().leader;
        waiting = match leader {
            Some(leader) if leader == desk.shared.identity.member_id => answer_here(&desk, waiting),
            Some(leader) => ask_leader(&desk, &peers, leader, waiting).await,
            None => waiting,
        };
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
        Ok(answer) => answer,
        Err(_) => Err(LeaseError::TimedOut),
    };
    desk.shared.post(vec![(submission.ticket, Mail::Lease(submission.ticket, answer))]);
}

/// Asks the leader everything at once. Gives back what it did not answer.
async fn ask_leader(
    desk: &LeaseDesk,
    peers: &Peers,
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
    let answer = match tokio::time::timeout(2 * TICK + TICK, client.lease(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        _ => return waiting,
    };
    settle(desk, &answer, waiting)
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
