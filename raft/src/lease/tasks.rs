//! Running the lease clock while this member leads.

use std::time::Duration;

use holdfast_store::AlarmKind;
use holdfast_store::command::{Change, Command, LeaseCheckpoint, LeaseRemainder, LeaseRevoke};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::lease::clock::{CHECKPOINT_LEASES_MAX, Clock};
use crate::lease::desk::LeaseDesk;
use crate::status::Leadership;

/// How often the clock looks for leases that have expired.
const TICK: Duration = Duration::from_millis(500);
/// Leases expired at one look.
const EXPIRE_MAX: usize = 500;
/// Revokes proposed and not decided.
const REVOKES_MAX: usize = 64;
/// How often remainders are replicated.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(300);

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
            checkpoint(desk, term).await;
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
    // It would be refused, and again as soon as it was.
    while desk.shared.reader.is_raised(AlarmKind::Corrupt) {
        tokio::time::sleep(TICK).await;
    }
    let change = Change::LeaseRevoke(LeaseRevoke { id, decided_in_term: term });
    // Whatever came of it: if the lease is still there, it has not been revoked yet.
    if desk.port.propose(Command::from(change)).await.is_err() {
        // Turned away, it may be at once and again at once: in an overload, which this must not feed.
        tokio::time::sleep(TICK).await;
    }
    with_clock(&desk, |clock| clock.revoke_failed(id));
    desk.decided.notify_waiters();
}

/// Replicates how long the long leases have left.
async fn checkpoint(desk: &LeaseDesk, term: u64) {
    let remainders = with_clock(desk, |clock| clock.remainders(Instant::now()));
    for chunk in remainders.chunks(CHECKPOINT_LEASES_MAX) {
        with_clock(desk, |clock| {
            for (id, _) in chunk {
                clock.mark_checkpointed(*id);
            }
        });
        let remainders =
            chunk.iter().map(|&(id, remaining_ttl)| LeaseRemainder { id, remaining_ttl }).collect();
        let change = Change::LeaseCheckpoint(LeaseCheckpoint { remainders, decided_in_term: term });
        if let Err(error) = desk.port.propose(Command::from(change)).await {
            tracing::warn!(%error, "the remainders of leases were not replicated");
            return;
        }
    }
}
