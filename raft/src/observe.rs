//! Looks at openraft and tells the rest of the node, as often as something changes and on a tick.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::Instant;
use openraft::async_runtime::watch::WatchReceiver;

use crate::propose::Raft;
use crate::shared::Shared;
use crate::status::{Evidence, Leadership, Observation};
use crate::types::LogId;

/// Runs until the node stops and drops it, or openraft stops by itself.
pub(crate) async fn observe(shared: Arc<Shared>, raft: Raft, tick: Duration) {
    let mut server = raft.server_metrics();
    let mut data = raft.data_metrics();
    let started = tokio::time::Instant::now();
    let mut ticks = tokio::time::interval(tick);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        look(&shared, &raft);
        tell(&shared, &mut told);
        let mut ticked = false;
        let open = tokio::select! {
            changed = server.changed() => changed.is_ok(),
            changed = data.changed() => changed.is_ok(),
            _ = ticks.tick() => {
                ticked = true;
                true
            }
        };
        if ticked {
            shared.look_at_members();
            shared.reader.tick(started.elapsed().as_millis() as u64);
        }
        let running = raft.metrics().borrow_watched().running_state.clone();
        if let Err(fatal) = running
            && !shared.has_stopped()
        {
            shared.fail(holdfast_store::Fatal::new(fatal));
        }
        if !open {
            return;
        }
    }
}

/// Says in the log who leads, whenever that is not what was `told` last.
fn tell(shared: &Shared, told: &mut Option<u64>) {
    let leader = shared.status.leader();
    if leader == *told {
        return;
    }
    let term = shared.status.term();
    match leader {
        Some(leader) if leader == shared.identity.member_id => {
            tracing::info!(term, "this member leads");
        }
        Some(leader) => tracing::info!(term, leader = format_args!("{leader:x}"), "has a leader"),
        None => tracing::warn!(term, "no leader is heard any more"),
    }
    *told = leader;
}

fn look(shared: &Shared, raft: &Raft) {
    let server = raft.server_metrics().borrow_watched().clone();
    let (last_index, committed_index, purged_index, acknowledged) = progress(raft);
    let leads = server.state == ServerState::Leader;
    // openraft does not refresh the acknowledgement of a quorum that is this member alone.
    let alone = server.membership_config.voter_ids().eq([shared.identity.member_id]);
    let evidence = match acknowledged {
        _ if !leads => Evidence::Leader,
        _ if alone => Evidence::Alone,
        acknowledged => Evidence::Quorum(acknowledged),
    };
    let own = server.membership_config.get_node(&shared.identity.member_id);
    let joins_as_voter = own.is_some_and(|node| node.joins_as_voter);
    shared.set_membership(server.membership_config.clone());
    let elected = shared.status.observe(&Observation {
        leadership: Leadership { term: server.vote.leader_id.term, leader: server.current_leader },
        learner: server.state == ServerState::Learner && !joins_as_voter,
        last_index,
        committed_index,
        purged_index,
        evidence,
    });
    shared.counts.leader_changes.add(u64::from(elected));
}

/// The indexes of the last entry, of the last one committed and of the last one purged, and how long
/// ago a quorum answered. These metrics change several times with every entry, and what else is in
/// them lies on the heap: they are not copied.
fn progress(raft: &Raft) -> (u64, u64, u64, Option<Duration>) {
    let metrics = raft.data_metrics();
    let data = metrics.borrow_watched();
    let index = |log_id: &Option<LogId>| log_id.as_ref().map_or(0, |log_id| log_id.index);
    let acknowledged = data.last_quorum_acked.as_ref().map(|at| at.elapsed());
    (index(&data.last_log), index(&data.local_committed), index(&data.purged), acknowledged)
}
