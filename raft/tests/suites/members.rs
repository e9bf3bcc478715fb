//! Members that come, go, learn and are promoted, while leaders change and members restart.

use std::sync::Arc;
use std::time::Duration;

use crate::world::{World, put_on, put_until_done, within};
use holdfast_raft::{ClusterState, Member, MemberError, MemberRefusal, OpenError};
use holdfast_store::Effort;
use holdfast_store::files::MemoryFiles;
use holdfast_store::files::memory::Unsynced;
use holdfast_store::record::value_of;

/// Seconds since 1970, different for every member that is added.
fn seconds(n: u64) -> u64 {
    1_700_000_000 + n
}

/// Has any of `askers` add member `i`; gives its id.
async fn add(world: &World, asker: usize, i: usize, is_learner: bool) -> u64 {
    for _ in 0..200 {
        let urls = vec![world.url(i)];
        let added = world.node(asker).add_member(urls, is_learner, seconds(i as u64));
        match within(60, added).await {
            Err(MemberError::Refused(MemberRefusal::Unhealthy)) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            added => return added.expect("added").0.id,
        }
    }
    panic!("the cluster never becomes healthy");
}

fn id(world: &World, i: usize) -> u64 {
    world.node(i).identity().member_id
}

/// Promotes a learner as soon as it is in sync.
async fn promote(world: &World, asker: usize, learner: u64) -> Vec<Member> {
    for _ in 0..200 {
        match within(60, world.node(asker).promote_member(learner)).await {
            Err(MemberError::Refused(MemberRefusal::LearnerNotReady)) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            promoted => return promoted.expect("promoted"),
        }
    }
    panic!("the learner is never in sync");
}

/// Removes a member once the leader counts enough others as connected.
async fn remove(world: &World, asker: usize, member: u64) -> Result<(), MemberError> {
    for _ in 0..200 {
        match within(60, world.node(asker).remove_member(member)).await {
            Err(MemberError::Refused(MemberRefusal::Unhealthy)) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            result => return result.map(|_| ()),
        }
    }
    panic!("the cluster never becomes healthy");
}

#[tokio::test(start_paused = true)]
async fn a_voter_is_added_by_a_follower_joins_and_counts() {
    let mut world = World::with(3, |config| {
        config.snapshot_count = 10;
        config.snapshot_catchup_entries = 1;
    });
    world.start_all().await;
    let follower = world.follower().await;
    for n in 0..200 {
        put_on(&world.port(follower), "k", &n.to_string()).await.expect("applied");
    }
    let new = world.grow(&[0, 1, 2]);
    let new_id = add(&world, follower, new, false).await;
    let listed = world.node(follower).members();
    let unstarted = listed.iter().find(|member| member.id == new_id).expect("it is listed");
    assert!(unstarted.name.is_empty() && unstarted.client_urls.is_empty() && !unstarted.is_learner);
    world.start_ready(new).await;
    assert_eq!(id(&world, new), new_id);
    let written = put_on(&world.port(new), "k", "new").await.expect("applied");
    assert!(world.node(new).reader().revision() >= written.outcome.revision);
    assert_eq!(world.node(new).members().len(), 4);
    assert!(world.node(new).members().iter().all(|member| !member.name.is_empty()));
    // Three of four are a quorum, two are not: the new one counts.
    world.crash((0..3).find(|i| *i != follower).expect("another")).await;
    put_until_done(&world.port(new), "k", "3 of 4").await;
}

#[tokio::test(start_paused = true)]
async fn a_learner_is_promoted_once_it_is_in_sync() {
    let mut world = World::new(3);
    world.start_all().await;
    let new = world.grow(&[0, 1, 2]);
    let learner = add(&world, 0, new, true).await;
    let early = within(60, world.node(0).promote_member(learner)).await;
    assert_eq!(early, Err(MemberRefusal::LearnerNotReady.into()));
    let second = world.node(0).add_member(vec!["http://x:1".to_owned()], true, seconds(99));
    let second = within(60, second).await.map(|_| ());
    assert_eq!(second, Err(MemberRefusal::TooManyLearners.into()));
    world.start_ready(new).await;
    assert!(world.node(new).status().is_learner);
    let members = promote(&world, 1, learner).await;
    assert!(members.iter().all(|member| !member.is_learner));
    let again = within(60, world.node(2).promote_member(learner)).await;
    assert_eq!(again, Err(MemberRefusal::NotLearner.into()));
    within(60, async {
        while world.node(new).status().is_learner {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(world.node(world.leader().await).transfer_leadership(Some(learner)).await);
    assert_eq!(world.leader().await, new);
}

#[tokio::test(start_paused = true)]
async fn a_removed_member_stops_and_is_refused_for_ever() {
    let mut world = World::new(3);
    world.start_all().await;
    let gone = world.follower().await;
    let leader = world.leader().await;
    let gone_id = id(&world, gone);
    let fatal = world.node(gone).fatal();
    remove(&world, leader, gone_id).await.expect("removed");
    let fatal = within(60, fatal).await.to_string();
    assert!(fatal.contains("the member has been permanently removed from the cluster"), "{fatal}");
    world.crash(gone).await;
    let refused = world.start(gone).await.expect_err("it is marked");
    assert!(matches!(refused, OpenError::Removed(member) if member == gone_id), "{refused}");
    let again = within(60, world.node(leader).remove_member(gone_id)).await.map(|_| ());
    assert_eq!(again, Err(MemberRefusal::NotFound.into()));
    put_on(&world.port(leader), "k", "2 of 2").await.expect("applied");
}

#[tokio::test(start_paused = true)]
async fn a_member_removed_while_it_is_down_finds_out_when_it_is_back() {
    let mut world = World::new(3);
    world.start_all().await;
    let gone = world.follower().await;
    let leader = world.leader().await;
    let gone_id = id(&world, gone);
    world.crash(gone).await;
    // The leader has to notice first that it is down.
    remove(&world, leader, gone_id).await.expect("removed");
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.start(gone).await.expect("it has not been told");
    let fatal = within(60, world.node(gone).fatal()).await.to_string();
    assert!(fatal.contains("permanently removed"), "{fatal}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_removes_itself() {
    let mut world = World::new(3);
    world.start_all().await;
    let leader = world.leader().await;
    let gone_id = id(&world, leader);
    let fatal = world.node(leader).fatal();
    let began = tokio::time::Instant::now();
    remove(&world, leader, gone_id).await.expect("it answers before it goes");
    // It hands over, so that nobody waits for an election.
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    let fatal = within(60, fatal).await.to_string();
    assert!(fatal.contains("permanently removed"), "{fatal}");
    world.crash(leader).await;
    let (_, unknown) = put_until_done(&world.port((leader + 1) % 3), "k", "2 of 2").await;
    assert!(unknown <= 2, "{unknown} writes without an answer");
    assert_eq!(world.node((leader + 1) % 3).members().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_lost_its_data_comes_back_at_its_old_address() {
    let mut world = World::new(3);
    world.start_all().await;
    let lost = world.follower().await;
    let leader = world.leader().await;
    let old = id(&world, lost);
    put_on(&world.port(leader), "k", "v").await.expect("applied");
    world.crash(lost).await;
    world.wipe(lost);
    world.configs[lost].initial_cluster_state = ClusterState::Existing;
    let refused = world.start(lost).await.expect_err("the cluster knows its old directory");
    assert!(
        matches!(refused, OpenError::AlreadyBootstrapped(member) if member == old),
        "{refused}"
    );
    remove(&world, leader, old).await.expect("removed");
    let new = add(&world, leader, lost, false).await;
    assert_ne!(new, old);
    world.wipe(lost);
    world.start_ready(lost).await;
    assert_eq!(id(&world, lost), new);
    // It finds itself again, whatever its flags would make of it.
    world.crash(lost).await;
    world.start_ready(lost).await;
    put_on(&world.port(lost), "k", "w").await.expect("applied");
    assert_eq!(world.node(lost).members().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_member_moves_to_another_address() {
    let mut world = World::new(3);
    world.start_all().await;
    let moving = world.follower().await;
    let leader = world.leader().await;
    let member = id(&world, moving);
    let taken = world.node(leader).update_member(member, vec![world.url(leader)]);
    let taken = within(60, taken).await.map(|_| ());
    assert_eq!(taken, Err(MemberRefusal::PeerUrlExists.into()));
    let url = "http://elsewhere:2380".to_owned();
    let updated = world.node(leader).update_member(member, vec![url.clone()]);
    let updated = within(60, updated).await.expect("updated");
    let found = updated.iter().find(|m| m.id == member).expect("still there");
    assert_eq!((found.peer_urls.clone(), found.is_learner), (vec![url.clone()], false));
    world.crash(moving).await;
    world.configs[moving].initial_advertise_peer_urls = vec![url];
    world.start_ready(moving).await;
    let written = put_on(&world.port(moving), "k", "moved").await.expect("applied");
    assert!(world.node(moving).reader().revision() >= written.outcome.revision);
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_together_happen_one_after_the_other() {
    let mut world = World::new(3);
    world.start_all().await;
    let adds = (0..3).map(|i| {
        let url = format!("http://new{i}:2380");
        let node = world.node(i).clone();
        async move { node.add_member(vec![url], false, seconds(i as u64)).await.map(|_| ()) }
    });
    let results = within(60, futures_util::future::join_all(adds)).await;
    // Two more voters that have not started leave no room for a third.
    let done = results.iter().filter(|result| result.is_ok()).count();
    let refused = results.iter().filter(|result| {
        **result == Err(MemberRefusal::NotEnoughStarted.into())
            || **result == Err(MemberRefusal::Unhealthy.into())
    });
    assert_eq!((done, refused.count()), (2, 1), "{results:?}");
    assert_eq!(world.node(world.leader().await).members().len(), 3 + done);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_loses_its_leader_has_happened_or_not_on_every_member() {
    for delay in [0, 1, 3, 10, 30, 100, 300] {
        let mut world = World::new(3);
        world.start_all().await;
        let leader = world.leader().await;
        let asker = world.follower().await;
        let node = world.node(asker).clone();
        let asked = tokio::spawn(async move {
            node.add_member(vec!["http://new:2380".to_owned()], false, seconds(1)).await
        });
        tokio::time::sleep(Duration::from_millis(delay)).await;
        world.crash(leader).await;
        let result = within(60, asked).await.expect("no panic");
        put_until_done(&world.port(asker), "k", "v").await;
        let other = (0..3).find(|i| *i != asker && *i != leader).expect("three");
        within(30, world.port(other).read_barrier()).await.ok();
        within(30, world.port(asker).read_barrier()).await.ok();
        let members = world.node(asker).members().len();
        match result {
            Ok(_) => assert_eq!(members, 4, "after {delay} ms"),
            Err(MemberError::TimedOut) => assert!(members == 3 || members == 4),
            Err(error) => panic!("after {delay} ms: {error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_member_grows_to_three_and_shrinks_to_one() {
    let mut world = World::new(1);
    world.start_all().await;
    let port = world.port(0);
    put_on(&port, "k", "1").await.expect("applied");
    within(10, port.read_barrier()).await.expect("alone");
    for n in 1..3 {
        let beside: Vec<usize> = (0..n).collect();
        let new = world.grow(&beside);
        add(&world, 0, new, false).await;
        world.start_ready(new).await;
        let written = put_on(&world.port(new), "k", "v").await.expect("applied");
        within(10, port.read_barrier()).await.expect("a quorum");
        assert!(world.node(0).reader().revision() >= written.outcome.revision);
    }
    for n in (1..3).rev() {
        let leader = world.leader().await;
        let gone = id(&world, n);
        remove(&world, leader, gone).await.expect("removed");
        within(60, world.node(n).fatal()).await;
        world.crash(n).await;
        put_until_done(&port, "k", "smaller").await;
        within(30, port.read_barrier()).await.expect("a quorum");
    }
    let last = within(60, world.node(0).remove_member(id(&world, 0))).await.map(|_| ());
    assert_eq!(last, Err(MemberRefusal::NotEnoughStarted.into()));
    assert_eq!(world.node(0).members().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_joins_must_describe_the_cluster_as_it_is() {
    let mut world = World::new(3);
    world.start_all().await;
    let early = world.grow(&[0, 1, 2]);
    let refused = world.start(early).await.expect_err("not added");
    assert!(refused.to_string().contains("member count is unequal"), "{refused}");
    add(&world, 0, early, false).await;
    let wrong = world.configs[early].initial_cluster.clone();
    world.configs[early].initial_cluster[0].1 = vec!["http://wrong:2380".to_owned()];
    let refused = world.start(early).await.expect_err("a member is missing");
    assert!(refused.to_string().contains("no match found for existing member"), "{refused}");
    world.configs[early].initial_cluster = wrong;
    world.configs[early].initial_cluster_token = "another".to_owned();
    world.start_ready(early).await;
    let mut lonely = World::new(1);
    lonely.configs[0].initial_cluster_state = ClusterState::Existing;
    lonely.configs[0].initial_cluster.push(("x".to_owned(), vec!["http://x:2380".to_owned()]));
    let refused = within(60, lonely.start(0)).await.expect_err("nobody answers");
    let text = refused.to_string();
    assert!(text.starts_with("cannot fetch cluster info from peer urls: could not retrieve"));
    assert!(text.contains("http://x:2380"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn leadership_goes_to_nobody_who_does_not_vote_yet() {
    let mut world = World::new(1);
    world.start_all().await;
    let joining = world.grow(&[0]);
    let joining = add(&world, 0, joining, false).await;
    assert!(!world.node(0).transfer_leadership(Some(joining)).await);
    assert!(!world.node(0).transfer_leadership(None).await);
    put_on(&world.port(0), "k", "v").await.expect("it still leads");
}

#[tokio::test(start_paused = true)]
async fn a_member_of_a_lost_cluster_goes_on_alone_and_grows_again() {
    let mut world = World::with(3, |config| config.snapshot_count = 50);
    world.start_all().await;
    for n in 0..120 {
        put_until_done(&world.port(0), "k", &n.to_string()).await;
    }
    let revision = world.node(0).reader().revision();
    let alone = id(&world, 0);
    for i in 0..3 {
        world.crash(i).await;
    }
    for _ in 0..2 {
        world.configs[0].force_new_cluster = true;
        world.start_ready(0).await;
        let members = world.node(0).members();
        assert_eq!(members.iter().map(|member| member.id).collect::<Vec<_>>(), [alone]);
        assert!(world.node(0).reader().revision() >= revision);
        put_on(&world.port(0), "k", "alone").await.expect("a quorum of one");
        world.crash(0).await;
    }
    world.configs[0].force_new_cluster = false;
    world.start_ready(0).await;
    let cluster = world.node(0).identity().cluster_id;
    // Those that were lost are of another cluster, and keep what they have.
    world.start(1).await.expect("it has not been told");
    assert_ne!(world.node(1).identity().cluster_id, cluster);
    stays_apart(&world, 1).await;
    world.crash(1).await;
    world.wipe(1);
    world.configs[1].initial_cluster.truncate(2);
    world.configs[1].initial_cluster_state = ClusterState::Existing;
    add(&world, 0, 1, false).await;
    world.start_ready(1).await;
    put_on(&world.port(1), "k", "two").await.expect("applied");
    assert_eq!(world.node(1).identity().cluster_id, cluster);
}

/// For longer than it takes a member without a leader to ask its peers twice, nothing ends it.
async fn stays_apart(world: &World, i: usize) {
    let end = tokio::time::timeout(Duration::from_secs(20), world.node(i).fatal()).await;
    if let Ok(fatal) = end {
        panic!("member {i} has ended: {fatal}");
    }
}

/// Waits until `member` votes, as `asker` knows it.
async fn votes(world: &World, asker: usize, member: u64) {
    within(60, async {
        while !world.node(asker).votes(member) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Starts member 0 as a cluster of its own while nobody reaches it, and has it acknowledge a write.
async fn force_apart(world: &mut World) {
    world.net.isolate(&world.url(0));
    world.crash(0).await;
    world.configs[0].force_new_cluster = true;
    world.start_ready(0).await;
    put_on(&world.port(0), "apart", "first").await.expect("a quorum of one");
}

fn value(world: &World, i: usize, key: &str) -> Option<String> {
    let (_, found) = world.node(i).reader().get(key.as_bytes(), Effort::Inline).expect("in memory");
    let value = found.map(|record| value_of(&record).expect("a record"));
    value.map(|value| String::from_utf8_lossy(&value).into_owned())
}

#[tokio::test(start_paused = true)]
async fn a_majority_that_was_not_lost_is_left_alone() {
    let mut world = World::new(3);
    world.start_all().await;
    put_until_done(&world.port(0), "k", "all").await;
    force_apart(&mut world).await;
    put_until_done(&world.port(1), "k", "majority").await;
    let majority = world.node(1).identity().cluster_id;
    assert_ne!(world.node(0).identity().cluster_id, majority);
    // One of them is without a leader as well, so it asks, and then both are again.
    world.crash(2).await;
    world.net.heal(&world.url(0));
    stays_apart(&world, 1).await;
    world.crash(1).await;
    world.start(2).await.expect("keeps its data");
    stays_apart(&world, 2).await;
    world.start_ready(1).await;
    put_until_done(&world.port(2), "k", "still").await;
    assert_eq!(world.node(2).identity().cluster_id, majority);
    assert_eq!(value(&world, 1, "apart"), None);
    assert_eq!(world.node(1).members().len(), 3);
    put_on(&world.port(0), "apart", "second").await.expect("it still leads");
    assert_eq!(value(&world, 0, "k").as_deref(), Some("all"));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_the_forced_one_never_heard_of_stays_a_stranger() {
    let mut world = World::with(3, |config| config.strict_reconfig_check = false);
    world.start_all().await;
    put_until_done(&world.port(0), "k", "three").await;
    world.net.isolate(&world.url(0));
    let asker = within(60, async {
        loop {
            match (1..3).find(|i| world.node(*i).status().is_leader) {
                Some(leader) => return leader,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await;
    let new = world.grow(&[0, 1, 2]);
    let new_id = add(&world, asker, new, false).await;
    world.start_ready(new).await;
    votes(&world, asker, new_id).await;
    force_apart(&mut world).await;
    world.net.heal(&world.url(0));
    // Whoever leads calls the forced member, which their membership still names.
    for i in [1, 2, new] {
        world.crash(i).await;
        world.start(i).await.expect("keeps its data");
    }
    for i in [1, 2, new] {
        put_until_done(&world.port(i), "k", "four").await;
        stays_apart(&world, i).await;
        assert_eq!(value(&world, i, "apart"), None);
        assert_eq!(world.node(i).members().len(), 4);
    }
    assert_eq!(value(&world, 0, "apart").as_deref(), Some("first"));
    assert_eq!(value(&world, 0, "k").as_deref(), Some("three"));
    put_on(&world.port(0), "apart", "second").await.expect("it still leads");
    assert_eq!(world.node(0).members().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_flag_left_in_place_is_refused_once_others_have_joined() {
    let mut world = World::new(1);
    world.configs[0].force_new_cluster = true;
    world.start_all().await;
    let founded = world.node(0).identity().cluster_id;
    for kept in ["new", "forced"] {
        for _ in 0..2 {
            let joining = world.grow(&(0..world.nodes.len()).collect::<Vec<_>>());
            let joining_id = add(&world, 0, joining, false).await;
            world.start_ready(joining).await;
            votes(&world, 0, joining_id).await;
        }
        put_until_done(&world.port(0), "k", kept).await;
        let before = world.node(0).identity();
        world.crash(0).await;
        for _ in 0..2 {
            let refused = world.start(0).await.expect_err("others may know more");
            assert!(matches!(refused, OpenError::ForcedBefore), "{refused}");
        }
        let joined = world.nodes.len() - 1;
        put_until_done(&world.port(joined), "k", "without").await;
        world.configs[0].force_new_cluster = false;
        world.start_ready(0).await;
        assert_eq!(world.node(0).identity(), before);
        put_until_done(&world.port(0), "k", kept).await;
        assert_eq!(value(&world, joined, "k").as_deref(), Some(kept));
        // After a start without it, it acts again.
        for i in 0..world.nodes.len() {
            world.crash(i).await;
        }
        world.configs.truncate(1);
        world.files.truncate(1);
        world.nodes.truncate(1);
        world.configs[0].force_new_cluster = true;
        world.start_ready(0).await;
        assert_eq!(world.node(0).members().len(), 1);
        assert_eq!(value(&world, 0, "k").as_deref(), Some(kept));
        assert!(![founded, before.cluster_id].contains(&world.node(0).identity().cluster_id));
    }
}

#[tokio::test(start_paused = true)]
async fn who_joins_waits_for_a_quorum_to_say_who_it_is() {
    let mut world = World::new(3);
    world.start_all().await;
    let new = world.grow(&[0, 1, 2]);
    add(&world, 0, new, true).await;
    world.crash(1).await;
    world.crash(2).await;
    let refused = within(60, world.start(new)).await.expect_err("one of three has answered");
    assert!(refused.to_string().contains("no quorum answers"), "{refused}");
    world.start(1).await.expect("starts");
    // Nothing was written down.
    world.start_ready(new).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_while_being_forced_is_as_before_or_is_finished_by_the_flag() {
    let base = MemoryFiles::default();
    let mut world = World::new(3);
    world.files[0] = Arc::new(base.clone());
    world.start_all().await;
    put_until_done(&world.port(0), "k", "kept").await;
    within(30, world.port(0).read_barrier()).await.expect("a quorum");
    let before = world.node(0).identity();
    for i in 0..3 {
        world.crash(i).await;
    }
    let (mut as_before, mut unfinished, mut finished) = (0, 0, 0);
    for count in 0..200 {
        let files = base.duplicate();
        world.files[0] = Arc::new(files.clone());
        world.configs[0].force_new_cluster = true;
        files.power_off_after(count);
        if world.start(0).await.is_ok() {
            let node = world.node(0);
            let _ended = tokio::time::timeout(Duration::from_secs(10), node.wait_ready()).await;
            world.crash(0).await;
        }
        let unsynced = if count % 2 == 0 { Unsynced::Lost } else { Unsynced::Kept };
        files.crash(unsynced, &mut |_| 0);
        // Without the flag.
        world.files[0] = Arc::new(files.duplicate());
        world.configs[0].force_new_cluster = false;
        match world.start(0).await {
            Ok(()) if world.node(0).identity() == before => {
                as_before += 1;
                world.crash(0).await;
            }
            Ok(()) => {
                finished += 1;
                within(60, world.node(0).wait_ready()).await;
                assert_eq!(world.node(0).members().len(), 1, "after {count} operations");
                world.crash(0).await;
            }
            Err(OpenError::ForceUnfinished) => unfinished += 1,
            Err(other) => panic!("after {count} operations: {other}"),
        }
        // With it.
        world.files[0] = Arc::new(files);
        world.configs[0].force_new_cluster = true;
        world.start_ready(0).await;
        assert_eq!(world.node(0).members().len(), 1, "after {count} operations");
        assert_ne!(world.node(0).identity().cluster_id, before.cluster_id);
        assert_eq!(value(&world, 0, "k").as_deref(), Some("kept"));
        world.crash(0).await;
        if finished > 3 {
            break;
        }
    }
    let seen = format!("{as_before} as before, {unfinished} unfinished, {finished} finished");
    assert!(as_before > 0 && unfinished > 0 && finished > 0, "{seen}");
}
