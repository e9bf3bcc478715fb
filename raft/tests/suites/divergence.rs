//! Members that hold different things: noticed, named, and told to everybody.

use std::time::Duration;

use crate::world::{World, put_on, within};
use holdfast_raft::{Node, Plants};
use holdfast_store::command::{Change, Command, Compact};
use holdfast_store::{Alarm, AlarmCause, AlarmKind, Rejected};

const EVERY: Duration = Duration::from_secs(10);
const ALTERED: Plants = Plants {
    alter_values: true,
    acknowledge_early: false,
    drop_events: false,
    apply_twice: false,
    skip_flushed_comparison: false,
};

/// Puts, compacts half of it, and waits until all members have applied it.
async fn write(world: &World) {
    let port = world.port(0);
    let mut revision = 0;
    for key in ["a", "b", "a", "c"] {
        revision = put_on(&port, key, "1").await.expect("applied").outcome.revision;
    }
    let compact = Change::Compact(Compact { revision: revision - 1, ..Compact::default() });
    within(30, port.propose(Command::from(compact))).await.expect("applied");
    for i in 0..world.nodes.len() {
        within(30, world.port(i).read_barrier()).await.expect("a leader answers");
    }
}

async fn alarms_within(seconds: u64, node: &Node) -> Vec<Alarm> {
    within(seconds, async {
        while node.reader().alarms().is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        node.reader().alarms()
    })
    .await
}

/// Member 2 of three holds other values than the log; it is to be found.
async fn is_found(mut world: World) {
    world.plants[2] = ALTERED;
    world.start_all().await;
    write(&world).await;
    for i in 0..3 {
        let alarms = alarms_within(60, world.node(i)).await;
        let [alarm] = alarms[..] else { panic!("one alarm, not {alarms:?}") };
        let odd = world.node(2).identity().member_id;
        assert_eq!((alarm.kind, alarm.member), (AlarmKind::Corrupt, odd));
        assert!(alarm.has_cause(AlarmCause::Check));
    }
    let refused = put_on(&world.port(0), "d", "1").await.expect("applied").outcome.result;
    assert_eq!(refused, Err(Rejected::Corrupt));
}

#[tokio::test(start_paused = true)]
async fn a_member_with_other_values_is_found_at_the_newest_revision() {
    is_found(World::with(3, |config| config.corrupt_check_time = Some(EVERY))).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_with_other_values_is_found_after_a_compaction() {
    is_found(World::with(3, |config| config.compact_hash_check_time = Some(EVERY))).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_members_that_differ_neither_is_named() {
    let mut world = World::with(2, |config| config.corrupt_check_time = Some(EVERY));
    world.plants[1] = ALTERED;
    world.start_all().await;
    write(&world).await;
    let alarms = alarms_within(60, world.node(0)).await;
    assert_eq!(alarms.iter().map(|alarm| alarm.member).collect::<Vec<_>>(), [0]);
}

#[tokio::test(start_paused = true)]
async fn members_that_agree_raise_nothing() {
    let mut world = World::with(3, |config| {
        config.corrupt_check_time = Some(EVERY);
        config.compact_hash_check_time = Some(EVERY);
    });
    world.start_all().await;
    for _ in 0..3 {
        write(&world).await;
        tokio::time::sleep(2 * EVERY).await;
    }
    for i in 0..3 {
        assert_eq!(world.node(i).reader().alarms(), []);
        assert!(within(60, world.node(i).agrees_with_peers()).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_starts_is_told_whether_it_agrees_with_its_peers() {
    let mut world = World::new(3);
    world.plants[2] = ALTERED;
    world.start_all().await;
    write(&world).await;
    for (i, agrees) in [(0, true), (1, true), (2, false)] {
        assert_eq!(within(60, world.node(i).agrees_with_peers()).await, agrees, "member {i}");
    }
    // Who is not there contradicts nobody.
    world.crash(0).await;
    assert!(!within(60, world.node(1).agrees_with_peers()).await, "one against one");
    world.crash(2).await;
    assert!(within(60, world.node(1).agrees_with_peers()).await);
}
