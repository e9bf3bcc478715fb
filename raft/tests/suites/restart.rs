//! What outlives a process: acknowledged writes, votes, identities; and what brings a member back.

use std::sync::Arc;

use crate::world::{World, put_on, put_until_done, within};
use holdfast_raft::OpenError;
use holdfast_store::files::MemoryFiles;

#[tokio::test(start_paused = true)]
async fn one_member_finds_everything_again() {
    let mut world = World::new(1);
    world.start_all().await;
    let port = world.port(0);
    let mut last = 0;
    for n in 0..50 {
        last = put_on(&port, &format!("k{n}"), "v").await.expect("applied").outcome.revision;
    }
    world.crash(0).await;
    world.start_all().await;
    assert_eq!(world.node(0).reader().revision(), last);
    let next = put_on(&world.port(0), "k", "v").await.expect("applied");
    assert_eq!(next.outcome.revision, last + 1);
}

#[tokio::test(start_paused = true)]
async fn a_whole_cluster_finds_everything_again() {
    let mut world = World::with(3, |config| config.snapshot_count = 10);
    world.start_all().await;
    let mut last = 0;
    for n in 0..60 {
        let port = world.port(n % 3);
        last = put_on(&port, &format!("k{n}"), "v").await.expect("applied").outcome.revision;
    }
    for i in 0..3 {
        world.crash(i).await;
    }
    world.start_all().await;
    for i in 0..3 {
        within(30, world.port(i).read_barrier()).await.expect("a leader answers");
        assert_eq!(world.node(i).reader().revision(), last, "member {i}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_far_behind_comes_back_by_a_checkpoint() {
    let mut world = World::with(3, |config| {
        config.snapshot_count = 20;
        config.snapshot_catchup_entries = 5;
    });
    world.start_all().await;
    let follower = world.follower().await;
    world.crash(follower).await;
    let leader = world.leader().await;
    let port = world.port(leader);
    let mut last = 0;
    for n in 0..200 {
        last = put_until_done(&port, &format!("k{n}"), "v").await.0.outcome.revision;
        // Time for the keeper, who takes checkpoints between two looks.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    within(60, async {
        while world.node(leader).status().purged_index < 100 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
    world.start(follower).await.expect("starts");
    let node = world.node(follower);
    within(60, node.wait_ready()).await;
    within(30, node.port().read_barrier()).await.expect("a leader answers");
    assert!(node.reader().revision() >= last);
    let next = put_on(&node.port(), "k", "v").await.expect("applied");
    assert!(next.outcome.revision > last);
}

#[tokio::test(start_paused = true)]
async fn an_emptied_directory_is_not_the_member_it_was() {
    let mut world = World::new(3);
    world.start_all().await;
    let follower = world.follower().await;
    world.crash(follower).await;
    world.files[follower] = Arc::new(MemoryFiles::default());
    let refused = world.start(follower).await.expect_err("its peers know it");
    assert!(matches!(refused, OpenError::AlreadyBootstrapped(_)), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_log_and_an_identity_stand_for_each_other() {
    for lost in ["wal", "identity"] {
        let mut world = World::new(3);
        world.start_all().await;
        let follower = world.follower().await;
        world.crash(follower).await;
        let path = world.configs[follower].data_directory.join(lost);
        let files = world.files[follower].clone();
        match lost {
            "wal" => files.remove_directory(&path).expect("memory"),
            _ => files.remove(&path).expect("it is there"),
        }
        let refused = world.start(follower).await.expect_err("it is not the member it was");
        match lost {
            "wal" => assert!(matches!(refused, OpenError::LogMissing(_)), "{refused}"),
            _ => assert!(matches!(refused, OpenError::IdentityMissing(_)), "{refused}"),
        }
        let again = world.start(follower).await.expect_err("however often it is tried");
        assert_eq!(again.to_string(), refused.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn directories_of_others_are_refused() {
    let mut world = World::new(3);
    world.start_all().await;
    world.crash(0).await;
    world.crash(1).await;
    world.configs[0].data_directory = world.configs[1].data_directory.clone();
    world.files.swap(0, 1);
    let refused = world.start(0).await.expect_err("another member's");
    assert!(matches!(refused, OpenError::WrongMember { .. }), "{refused}");

    let mut world = World::new(1);
    let etcds = world.configs[0].data_directory.join("member");
    world.files[0].create_directory(&etcds).expect("memory");
    let refused = world.start(0).await.expect_err("etcd's");
    assert!(matches!(refused, OpenError::WrittenByEtcd(_)), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn an_emptied_directory_that_could_ask_nobody_is_told_later() {
    let mut world = World::new(3);
    world.start_all().await;
    let follower = world.follower().await;
    world.crash(follower).await;
    world.files[follower] = Arc::new(MemoryFiles::default());
    world.net.isolate(&world.url(follower));
    world.start(follower).await.expect("nobody contradicts it");
    world.net.heal(&world.url(follower));
    let reason = within(60, world.node(follower).fatal()).await;
    assert!(reason.to_string().contains("has already been bootstrapped"), "{reason}");
}
