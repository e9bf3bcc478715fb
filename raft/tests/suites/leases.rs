//! Leases in time, on a cluster: they end, they are kept alive from any member, they outlive leaders.

use std::time::Duration;

use crate::world::{World, within};
use holdfast_raft::Port;
use holdfast_store::command::{Change, Command, LeaseGrant};

async fn grant(port: &Port, id: i64, ttl: i64) {
    let change = Change::LeaseGrant(LeaseGrant { id, ttl });
    let granted = within(30, port.propose(Command::from(change))).await;
    granted.expect("applied").outcome.result.expect("granted");
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_unless_it_is_kept_alive() {
    let mut world = World::new(3);
    world.start_all().await;
    let port = world.port(world.follower().await);
    grant(&port, 1, 4).await;
    grant(&port, 2, 4).await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(within(10, port.keep_alive(1)).await, Ok(4));
    }
    assert_eq!(within(10, port.keep_alive(2)).await, Ok(0), "nobody kept it");
    assert_eq!(within(10, port.time_to_live(2)).await, Ok(None));
    let left = within(10, port.time_to_live(1)).await.expect("answered").expect("there");
    assert_eq!(left.granted, 4);
    assert!((3..=4).contains(&left.remaining), "{left:?}");
    tokio::time::sleep(Duration::from_secs(6)).await;
    within(10, port.read_barrier()).await.expect("a leader answers");
    for node in world.nodes.iter().flatten() {
        assert!(node.reader().lease(2).is_none());
    }
    assert!(world.node(0).reader().leases().is_empty(), "both have ended");
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_gives_every_lease_its_time_again() {
    let mut world = World::new(3);
    world.start_all().await;
    let leader = world.leader().await;
    let port = world.port(leader);
    grant(&port, 7, 10).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    world.crash(leader).await;
    let leader = world.leader().await;
    let port = world.port(leader);
    let left = within(30, port.time_to_live(7)).await.expect("answered").expect("there");
    assert!((9..=11).contains(&left.remaining), "{left:?}");
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert_eq!(within(10, port.time_to_live(7)).await, Ok(None), "it ends all the same");
}

#[tokio::test(start_paused = true)]
async fn long_leases_resume_at_their_replicated_remainder() {
    // Slow heartbeats, or the simulated minutes would take real ones.
    let mut world = World::with(3, |config| {
        config.heartbeat_interval = Duration::from_secs(2);
        config.election_timeout = Duration::from_secs(10);
    });
    world.start_all().await;
    let leader = world.leader().await;
    grant(&world.port(leader), 9, 1000).await;
    tokio::time::sleep(Duration::from_secs(400)).await;
    let leader = world.leader().await;
    world.crash(leader).await;
    let port = world.port(world.leader().await);
    let left = within(30, port.time_to_live(9)).await.expect("answered").expect("there");
    assert!((600..=715).contains(&left.remaining), "{left:?}");
    assert_eq!(within(10, port.keep_alive(9)).await, Ok(1000));
    let info = world.node(world.leader().await).reader().lease(9).expect("there");
    assert_eq!(info.remaining_ttl, 0, "full again is committed before the answer");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_tells_nobody_that_a_lease_is_gone() {
    let mut world = World::new(3);
    world.start_all().await;
    let leader = world.leader().await;
    let port = world.port(leader);
    assert_eq!(within(10, port.keep_alive(5)).await, Ok(0), "nobody has granted it");
    assert_eq!(within(10, port.time_to_live(5)).await, Ok(None));
    world.net.isolate(&world.url(leader));
    // It still believes that it leads; but others might have granted the lease since.
    within(30, port.keep_alive(5)).await.expect_err("nobody confirms it");
}
