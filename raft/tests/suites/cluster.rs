//! What a cluster promises, member by member: writes, reads, elections, restarts.

use std::time::Duration;

use crate::world::{World, put, put_on, put_until_done, within};

#[tokio::test(start_paused = true)]
async fn one_member_applies_what_it_is_asked_to() {
    let mut world = World::new(1);
    world.start_all().await;
    let port = world.port(0);
    let before = world.node(0).reader().revision();
    let first = put_on(&port, "a", "1").await.expect("applied");
    let second = put_on(&port, "b", "2").await.expect("applied");
    assert_eq!(first.outcome.revision, before + 1);
    assert_eq!(second.outcome.revision, before + 2);
    within(10, port.read_barrier()).await.expect("leads");
    assert!(world.node(0).reader().revision() >= before + 2);
}

#[tokio::test(start_paused = true)]
async fn what_waits_together_shares_an_entry() {
    let mut world = World::new(1);
    world.start_all().await;
    let port = world.port(0);
    let puts = (0..100).map(|i| {
        let port = port.clone();
        async move { port.propose(put(&format!("k{i}"), "v")).await.expect("applied") }
    });
    let applied = within(30, futures_util::future::join_all(puts)).await;
    let mut indices: Vec<u64> = applied.iter().map(|a| a.index).collect();
    indices.dedup();
    assert!(indices.len() < 10, "{} entries for 100 puts", indices.len());
    let revisions: std::collections::BTreeSet<i64> =
        applied.iter().map(|a| a.outcome.revision).collect();
    assert_eq!(revisions.len(), 100, "each put has its own revision");
}

#[tokio::test(start_paused = true)]
async fn writes_on_any_member_are_read_on_every_member() {
    let mut world = World::new(3);
    world.start_all().await;
    for writer in 0..3 {
        let written = put_on(&world.port(writer), "k", "v").await.expect("applied");
        for reader in 0..3 {
            within(10, world.port(reader).read_barrier()).await.expect("a leader answers");
            let seen = world.node(reader).reader().revision();
            assert!(seen >= written.outcome.revision, "member {reader} reads {seen}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_a_leader_is_survived() {
    let mut world = World::new(3);
    world.start_all().await;
    let follower = world.follower().await;
    let port = world.port(follower);
    let before = put_on(&port, "k", "1").await.expect("applied");
    let leader = world.leader().await;
    world.crash(leader).await;
    let (after, unknown) = put_until_done(&port, "k", "2").await;
    let made = after.outcome.revision - before.outcome.revision;
    assert!(made >= 1 && made <= 1 + unknown as i64, "{made} revisions, {unknown} unknown");
    assert!(after.term > before.term);
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_a_write_times_out_and_nobody_claims_it_failed() {
    let mut world = World::new(3);
    world.start_all().await;
    let leader = world.leader().await;
    let port = world.port(leader);
    for i in 0..3 {
        if i != leader {
            world.crash(i).await;
        }
    }
    let refused = put_on(&port, "k", "1").await.expect_err("no quorum");
    let unknown = holdfast_raft::ProposeError::TimedOutConnectionLost;
    assert!(refused == unknown || refused == holdfast_raft::ProposeError::TimedOut, "{refused}");
    within(30, port.read_barrier()).await.expect_err("no quorum");
    let mut no_leader = world.node(leader).no_leader();
    within(30, no_leader.wait_for(|gone| *gone)).await.expect("noticed");
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_over() {
    let mut world = World::new(3);
    world.start_all().await;
    let leader = world.leader().await;
    let to = world.node((leader + 1) % 3).identity().member_id;
    assert!(world.node(leader).transfer_leadership(Some(to)).await);
    assert_eq!(world.leader().await, (leader + 1) % 3);
    assert!(!world.node(leader).transfer_leadership(None).await, "it does not lead any more");
}

#[tokio::test(start_paused = true)]
async fn leadership_is_not_handed_to_whom_nobody_has_heard_of_lately() {
    let mut world = World::new(3);
    world.start_all().await;
    let leader = world.leader().await;
    let gone = (leader + 1) % 3;
    let to = world.node(gone).identity().member_id;
    world.crash(gone).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!world.node(leader).transfer_leadership(Some(to)).await);
    let term = world.node(leader).status().term;
    let after = within(1, put_on(&world.port(leader), "k", "1")).await.expect("it still leads");
    assert_eq!(after.term, term);
    assert!(world.node(leader).transfer_leadership(None).await, "the third one takes over");
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_that_nobody_hears_of_ends_in_an_election() {
    for to_the_lost_one in [true, false] {
        let mut world = World::new(3);
        world.start_all().await;
        let leader = world.leader().await;
        let lost = (leader + 1) % 3;
        let to = world.node(lost).identity().member_id;
        let before = put_on(&world.port(leader), "k", "1").await.expect("applied");
        // It has answered a moment ago.
        world.net.isolate(&world.url(lost));
        let to = to_the_lost_one.then_some(to);
        world.node(leader).transfer_leadership(to).await;
        let (after, _) = within(10, put_until_done(&world.port(leader), "k", "2")).await;
        assert!(after.term > before.term, "somebody else was elected");
        world.net.heal(&world.url(lost));
        within(10, world.leader()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn proposals_through_many_elections_are_applied_at_most_once() {
    let mut world = World::new(3);
    world.start_all().await;
    let start = world.node(0).reader().revision();
    let mut writers = Vec::new();
    for i in 0..3 {
        let port = world.port(i);
        writers.push(tokio::spawn(async move {
            let (mut done, mut unknown) = (0, 0);
            for n in 0..200 {
                match port.propose(put(&format!("m{i}-{n}"), "v")).await {
                    Ok(_) => done += 1,
                    Err(_) => unknown += 1,
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (done, unknown)
        }));
    }
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let leader = world.leader().await;
        world.node(leader).transfer_leadership(None).await;
    }
    let (mut done, mut unknown) = (0, 0);
    for writer in writers {
        let (d, u) = within(600, writer).await.expect("no panic");
        done += d;
        unknown += u;
    }
    within(30, world.port(0).read_barrier()).await.expect("a leader answers");
    let applied = world.node(0).reader().revision() - start;
    assert!(applied >= done && applied <= done + unknown, "{applied} of {done} + {unknown}");
    assert!(done > 500, "{done} of 600");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_serves_nobody_and_catches_up_when_it_is_back() {
    let mut world = World::new(3);
    world.start_all().await;
    let old = world.leader().await;
    let before = put_on(&world.port(old), "k", "1").await.expect("applied");
    world.net.isolate(&world.url(old));
    let cut_off = world.port(old);
    let lost = tokio::spawn(async move { put_on(&cut_off, "k", "lost").await });
    let elsewhere = (old + 1) % 3;
    let (after, unknown) = put_until_done(&world.port(elsewhere), "k", "2").await;
    assert!(after.term > before.term);
    within(30, world.port(old).read_barrier()).await.expect_err("it must not read stale state");
    within(30, lost).await.expect("no panic").expect_err("nobody could acknowledge it");
    world.net.heal(&world.url(old));
    // The first may still find out that the leader has changed.
    let back = world.port(old);
    while within(30, back.read_barrier()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let seen = world.node(old).reader().revision();
    assert!(seen >= after.outcome.revision);
    // Neither the lost write nor an unknown one is applied twice.
    let made = seen - before.outcome.revision;
    assert!(made <= 1 + unknown as i64 + 1, "{made} revisions, {unknown} unknown");
}
