//! Handing over leadership, by whoever has a reason to: a request, a stop, a disk that stalls.
//!
//! openraft's leader proposes nothing more from the moment it begins to hand over, for as long as it
//! leads. So it hands over only to a voter that has answered a moment ago; and if that one does not
//! take over in time, this leader falls silent, which makes the others elect one of theirs. Either way
//! somebody proposes again, without a restart.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;

use crate::propose::Raft;
use crate::shared::Shared;

/// Between two looks at who leads while this leader is silent.
const PAUSE: Duration = Duration::from_millis(10);

/// Whether a member is a voter of openraft's, in the newest membership of the log.
pub(crate) fn votes(raft: &Raft, member: u64) -> bool {
    let membership = raft.server_metrics().borrow_watched().membership_config.clone();
    membership.voter_ids().any(|voter| voter == member)
}

/// Hands leadership to `to`, or to the voter that is furthest on. True once another member leads,
/// within `patience`; false if this one does not lead, if nobody it could hand to has answered within
/// an election timeout, or if nobody takes over in time.
pub(crate) async fn hand_over(
    shared: &Arc<Shared>,
    raft: &Raft,
    to: Option<u64>,
    patience: Duration,
) -> bool {
    let me = shared.identity.member_id;
    let mut leadership = shared.status.leadership();
    let term = match *leadership.borrow() {
        now if now.leader == Some(me) => now.term,
        _ => return false,
    };
    let present = present(raft, me, shared.status.election_timeout());
    let Some(to) = present.into_iter().find(|voter| to.is_none_or(|to| to == *voter)) else {
        return false;
    };
    // Raft itself may wait for a disk that has stalled, and this must not wait for Raft.
    let trigger = raft.trigger();
    let begun = tokio::time::timeout(patience, trigger.transfer_leader(to)).await;
    if matches!(begun, Ok(Err(_))) {
        return false;
    }
    let taken = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader != me));
    let is_taken = matches!(tokio::time::timeout(patience, taken).await, Ok(Ok(_)));
    if !is_taken {
        tracing::warn!(to = format_args!("{to:x}"), "nobody took over: the others are to elect");
        tokio::spawn(fall_silent(shared.clone(), raft.clone(), term));
    }
    is_taken
}

/// The other voters that have answered within `lately`, the one with most of the log first; none if
/// this member does not lead.
fn present(raft: &Raft, me: u64, lately: Duration) -> Vec<u64> {
    let membership = raft.server_metrics().borrow_watched().membership_config.clone();
    let data = raft.data_metrics().borrow_watched().clone();
    let heard = data.heartbeat.unwrap_or_default();
    let matching = data.replication.unwrap_or_default();
    let answers = |voter: &u64| {
        let at = heard.get(voter).copied().flatten();
        at.is_some_and(|at| at.elapsed() < lately)
    };
    let mut others: Vec<u64> =
        membership.voter_ids().filter(|voter| *voter != me && answers(voter)).collect();
    others.sort_by_key(|voter| std::cmp::Reverse(matching.get(voter).copied().flatten()));
    others
}

/// Sends no heartbeats for as long as this member leads in `term`. Entries still go to the others, so
/// that whoever comes back can catch up and be elected.
async fn fall_silent(shared: Arc<Shared>, raft: Raft, term: u64) {
    let me = shared.identity.member_id;
    let leads = || {
        let leadership = shared.status.leadership();
        let now = *leadership.borrow();
        now.leader == Some(me) && now.term == term
    };
    raft.runtime_config().heartbeat(false);
    while leads() && !shared.has_stopped() {
        tokio::time::sleep(PAUSE).await;
    }
    raft.runtime_config().heartbeat(true);
}
