//! Members whose file systems have little room: what they refuse, what they go on with, and that
//! they do not make it worse.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::world::{World, put_on, put_until_done, within};
use bytes::Bytes;
use holdfast_raft::{NodeConfig, Port, ProposeError};
use holdfast_store::AlarmKind;
use holdfast_store::command::{
    AssignToken, AuthChange, AuthChangeKind, Change, Command, Compact, DeleteRange, LeaseGrant,
};
use holdfast_store::files::memory::Operation;
use holdfast_store::files::{Files as _, MemoryFiles};

/// What files in memory without a capacity say they could hold.
const UNLIMITED: u64 = 1 << 40;

/// Makes the file system so small that `percent` of it is free.
fn leave_free(files: &MemoryFiles, percent: u64) -> u64 {
    files.set_capacity(None);
    let free = files.space(Path::new("/")).expect("memory").free;
    let total = (UNLIMITED - free) * 100 / (100 - percent);
    files.set_capacity(Some(total));
    total
}

/// Something else on the file system, so that its parts are large beside a few requests.
fn have_neighbour(files: &MemoryFiles) {
    files.create_directory(Path::new("/else")).expect("memory");
    let file = files.create(Path::new("/else/file")).expect("there is none");
    file.write_all_at(&vec![0; 32 << 20], 0).expect("there is room");
}

/// Makes the file system so small that nothing is free, but for a byte.
fn leave_nothing(files: &MemoryFiles) {
    files.set_capacity(None);
    let free = files.space(Path::new("/")).expect("memory").free;
    files.set_capacity(Some(UNLIMITED - free + 1));
}

/// A world with a file system of its own for each member.
fn world_on(disks: &[MemoryFiles], adjust: impl Fn(&mut NodeConfig)) -> World {
    let mut world = World::with(disks.len(), adjust);
    for (files, disk) in world.files.iter_mut().zip(disks) {
        *files = Arc::new(disk.clone());
    }
    world
}

/// A member alone, and its file system.
async fn alone() -> (World, MemoryFiles) {
    let files = MemoryFiles::default();
    let mut world = World::new(1);
    world.files[0] = Arc::new(files.clone());
    world.start_all().await;
    put_on(&world.port(0), "k", "v").await.expect("applied");
    (world, files)
}

/// The same, with what a member gives back at once, like a spare of its log, given back before.
async fn keep_free(files: &MemoryFiles, percent: u64) {
    leave_free(files, percent);
    seconds(1).await;
    leave_free(files, percent);
    seconds(2).await;
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

fn delete(key: impl Into<Bytes>) -> Command {
    let key = key.into();
    Command::from(Change::DeleteRange(DeleteRange { key, ..Default::default() }))
}

fn compact(revision: i64) -> Command {
    Command::from(Change::Compact(Compact { revision, automatic: false }))
}

#[tokio::test(start_paused = true)]
async fn below_its_reserve_a_member_refuses_puts_until_there_is_room_again() {
    let (world, files) = alone().await;
    let port = world.port(0);
    keep_free(&files, 4).await;
    assert!(world.node(0).reader().is_raised(AlarmKind::NoSpace));
    assert_eq!(put_on(&port, "k", "v").await, Err(ProposeError::NoSpace));
    within(10, port.propose(delete("k"))).await.expect("applied").outcome.result.expect("deleted");
    seconds(10).await;
    let before = world.node(0).status().last_index;
    seconds(300).await;
    let after = world.node(0).status().last_index;
    assert!(after - before <= 3, "an idle member grew its log from {before} to {after}");
    leave_free(&files, 50);
    seconds(15).await;
    assert_eq!(world.node(0).reader().alarms(), []);
    put_on(&port, "k", "v").await.expect("there is room").outcome.result.expect("put");
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_be_sent_is_refused_as_soon_as_there_is_no_room() {
    let disks: [_; 3] = std::array::from_fn(|_| MemoryFiles::default());
    let mut world = world_on(&disks, |_| {});
    world.start_all().await;
    world.net.isolate(&world.url(2));
    within(60, async {
        while world.node(2).status().leader.is_some() {
            seconds(1).await;
        }
    })
    .await;
    let port = world.port(2);
    let waiting = tokio::spawn(async move { put_on(&port, "k", "v").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished(), "it waits for a leader");
    leave_free(&disks[2], 4);
    let refused = within(1, waiting).await.expect("no panic");
    assert_eq!(refused, Err(ProposeError::NoSpace));
}

#[tokio::test(start_paused = true)]
async fn the_full_disk_of_a_member_that_is_lost_stops_nobody_else() {
    let disks: [_; 3] = std::array::from_fn(|_| MemoryFiles::default());
    let mut world = world_on(&disks, |_| {});
    world.start_all().await;
    let short = world.follower().await;
    let port = world.port(world.leader().await);
    put_on(&port, "k", "v").await.expect("applied");
    keep_free(&disks[short], 4).await;
    assert_eq!(put_on(&port, "k", "v").await, Err(ProposeError::NoSpace));
    world.net.isolate(&world.url(short));
    seconds(50).await;
    assert_eq!(put_on(&port, "k", "v").await, Err(ProposeError::NoSpace), "it may be back soon");
    seconds(20).await;
    let applied = put_on(&port, "k", "v").await.expect("the others have room");
    applied.outcome.result.expect("put");

    world.net.heal(&world.url(short));
    seconds(15).await;
    assert_eq!(put_on(&port, "k", "v").await, Err(ProposeError::NoSpace), "it is back");
}

#[tokio::test(start_paused = true)]
async fn with_almost_nothing_left_deletes_are_refused_too() {
    let (world, files) = alone().await;
    let port = world.port(0);
    keep_free(&files, 4).await;
    // What else is written now and then must not decide this.
    leave_nothing(&files);
    seconds(1).await;
    let refused = within(10, port.propose(delete("k"))).await;
    assert_eq!(refused, Err(ProposeError::NoSpace));
    leave_free(&files, 4);
    seconds(1).await;
    within(10, port.propose(delete("k"))).await.expect("applied").outcome.result.expect("deleted");
}

/// The follower has room enough; that its leader has not is no reason to keep anybody waiting.
#[tokio::test(start_paused = true)]
async fn what_a_leader_has_no_room_for_does_not_keep_back_what_gives_some() {
    let disks: [_; 3] = std::array::from_fn(|_| MemoryFiles::default());
    let mut world = world_on(&disks, |_| {});
    world.start_all().await;
    let leader = world.leader().await;
    let port = world.port(world.follower().await);
    put_on(&port, "k", "v").await.expect("applied");
    // What it gives back at once, like a spare of its log, is not to be taken for room.
    for _ in 0..2 {
        leave_nothing(&disks[leader]);
        seconds(1).await;
    }
    for _ in 0..100 {
        let deleted = port.propose(delete("k"));
        let compacted = port.propose(compact(1));
        let (deleted, compacted) = within(1, async { tokio::join!(deleted, compacted) }).await;
        assert_eq!(deleted, Err(ProposeError::NoSpace));
        compacted.expect("applied");
    }
    assert_eq!(world.leader().await, leader);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_rather_full_is_not_kept_busy() {
    let (world, files) = alone().await;
    let port = world.port(0);
    have_neighbour(&files);
    seconds(10).await;
    leave_free(&files, 15);
    let mut checkpoints = BTreeSet::new();
    for n in 0..60 {
        let put = put_on(&port, &format!("k{}", n % 7), &noise(n, 2000)).await.expect("applied");
        put.outcome.result.expect("put");
        if n % 5 == 0 {
            within(10, port.propose(compact(put.outcome.revision))).await.expect("applied");
        }
        seconds(1).await;
        checkpoints.extend(checkpoints_in(&files, 0));
    }
    assert!(checkpoints.len() <= 2, "{checkpoints:?}");
}

/// However few and large the entries are, and however many of them followers might want.
#[tokio::test(start_paused = true)]
async fn the_log_is_no_more_than_a_part_of_its_file_system() {
    let (world, files) = alone().await;
    files.set_capacity(Some(64 << 20));
    // Blocks pack it small, and the log does not; with all of it there still is ample room.
    let value = "v".repeat(256 << 10);
    for n in 0..160 {
        put_until_done(&world.port(0), &format!("k{n}"), &value).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    seconds(10).await;
    let kept = log_bytes(&files, 0);
    assert!(kept <= 20 << 20, "the log has {kept} bytes");
}

/// The bytes of the log of member `i`, as far as it is in files.
fn log_bytes(files: &MemoryFiles, i: usize) -> u64 {
    let folder = format!("/m{i}/wal");
    let of_log = files.paths().into_iter().filter(|path| path.starts_with(&folder));
    of_log.map(|path| files.open(&path).expect("listed").length().expect("memory")).sum()
}

/// The checkpoints that member `i` has.
fn checkpoints_in(files: &MemoryFiles, i: usize) -> BTreeSet<PathBuf> {
    let folder = format!("/m{i}/snap");
    files.paths().into_iter().filter(|path| path.starts_with(&folder)).collect()
}

/// Puts such keys, each with so many bytes of its own; gives the last revision.
async fn put_each(port: &Port, keys: Range<u64>, length: usize) -> i64 {
    let mut last = 0;
    for n in keys {
        let put = put_until_done(port, &format!("k{n}"), &noise(n, length)).await;
        last = put.0.outcome.revision;
        // Time for the keeper, who takes checkpoints between two looks.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    last
}

/// Waits until a member's log has forgotten so much.
async fn purged(world: &World, member: usize, index: u64) {
    within(60, async {
        while world.node(member).status().purged_index < index {
            seconds(1).await;
        }
    })
    .await;
}

/// Waits until a member knows so much.
async fn caught_up(world: &World, member: usize, revision: i64) {
    while world.node(member).reader().revision() < revision {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Text that hardly gets smaller.
fn noise(seed: u64, length: usize) -> String {
    let mut state = seed;
    let letter = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        char::from(b'0' + ((state >> 33) % 64) as u8)
    };
    (0..length).map(letter).collect()
}

/// A rolling restart is what operators do on a full cluster. There is no room for a checkpoint.
#[tokio::test(start_paused = true)]
async fn who_was_away_while_there_was_no_room_comes_back_by_what_the_log_has_kept() {
    let disks: [_; 3] = std::array::from_fn(|_| MemoryFiles::default());
    let mut world = world_on(&disks, |config| config.snapshot_count = 20);
    world.start_all().await;
    put_each(&world.port(0), 0..200, 2000).await;
    disks.iter().for_each(have_neighbour);
    for _ in 0..3 {
        for disk in &disks {
            leave_free(disk, 3);
        }
        seconds(2).await;
    }
    let away = world.follower().await;
    world.crash(away).await;
    let leader = world.leader().await;
    let port = world.port(leader);
    let before = checkpoints_in(&disks[leader], leader);
    let mut last = 0;
    for n in 0..100 {
        let deleted = within(10, port.propose(delete(format!("k{}", 2 * n)))).await;
        let deleted = deleted.expect("applied").outcome;
        last = deleted.revision;
        deleted.result.expect("deleted");
        if n % 10 == 9 {
            within(10, port.propose(compact(last))).await.expect("applied");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let after = checkpoints_in(&disks[leader], leader);
    assert!(before.is_disjoint(&after), "the log may forget what {before:?} end with");
    let disk = &disks[away];
    // What a start takes for itself is not what this is about.
    leave_free(disk, 50);
    world.start(away).await.expect("starts");
    leave_free(disk, 3);
    let kept = checkpoints_in(disk, away);
    within(30, caught_up(&world, away, last)).await;
    let free = disk.space(Path::new("/")).expect("memory");
    assert!(free.free < free.total / 20, "a checkpoint would have been refused");
    assert!(!kept.is_empty(), "it has something that a checkpoint would be sent beside");
}

#[tokio::test(start_paused = true)]
async fn with_almost_nothing_left_leases_are_kept_and_users_log_in() {
    let (world, files) = alone().await;
    let port = world.port(0);
    let grant = Change::LeaseGrant(LeaseGrant { id: 9, ttl: 600 });
    port.propose(Command::from(grant)).await.expect("applied").outcome.result.expect("granted");
    for _ in 0..3 {
        leave_nothing(&files);
        seconds(1).await;
    }
    // Remainders are replicated every five minutes.
    seconds(303).await;
    let refused = within(10, port.propose(delete("k"))).await;
    assert_eq!(refused, Err(ProposeError::NoSpace), "there is still nothing left");
    let left = world.node(0).reader().lease(9).expect("there").remaining_ttl;
    assert!((290..=305).contains(&left), "{left}");
    assert_eq!(within(10, port.keep_alive(9)).await, Ok(600));
    assert_eq!(world.node(0).reader().lease(9).expect("there").remaining_ttl, 0);
    let login = AuthChange { kind: Some(AuthChangeKind::AssignToken(AssignToken::default())) };
    within(10, port.propose(Command::from(Change::Auth(login)))).await.expect("judged by all");
}

/// A leader that leads for long though its disk takes nothing.
fn patient(config: &mut NodeConfig) {
    config.heartbeat_interval = Duration::from_secs(2);
    config.election_timeout = Duration::from_secs(20);
    config.snapshot_count = 20;
    config.snapshot_catchup_entries = 5;
}

#[tokio::test(start_paused = true)]
async fn a_log_without_room_does_not_keep_a_checkpoint_from_who_needs_it() {
    let disks: [_; 5] = std::array::from_fn(|_| MemoryFiles::default());
    let mut world = world_on(&disks, patient);
    world.start_all().await;
    let away = world.follower().await;
    world.crash(away).await;
    let leader = world.leader().await;
    put_each(&world.port(leader), 0..60, 100).await;
    purged(&world, leader, 20).await;

    let log = format!("/m{leader}/wal/");
    disks[leader].fail_from(Operation::Write, &log, 0, ErrorKind::StorageFull);
    let before = checkpoints_in(&disks[leader], leader);
    let last = put_each(&world.port(leader), 60..160, 100).await;
    let purged_before = world.node(leader).status().purged_index;
    world.start(away).await.expect("starts");
    within(14, caught_up(&world, away, last)).await;
    assert_eq!(checkpoints_in(&disks[leader], leader), before, "what is not flushed is in none");
    assert!(world.node(leader).status().is_leader, "nobody else has sent it");

    disks[leader].heal();
    purged(&world, leader, purged_before + 1).await;
}

/// Members that soon forget what a checkpoint holds.
fn forgetful(config: &mut NodeConfig) {
    config.snapshot_count = 20;
    config.snapshot_catchup_entries = 5;
}

/// It does not see its own alarm before it has caught up, for which it has no room.
#[tokio::test(start_paused = true)]
async fn who_lags_and_has_no_room_does_not_fill_the_log_of_the_others() {
    let disks: [_; 3] = std::array::from_fn(|_| MemoryFiles::default());
    let mut world = world_on(&disks, forgetful);
    world.start_all().await;
    let follower = world.follower().await;
    world.net.isolate(&world.url(follower));
    seconds(5).await;
    let leader = (0..3).find(|i| world.node(*i).status().is_leader).expect("two of three");
    let last = put_each(&world.port(leader), 0..60, 100).await;
    purged(&world, leader, 20).await;
    have_neighbour(&disks[follower]);
    keep_free(&disks[follower], 4).await;
    world.net.heal(&world.url(follower));
    seconds(20).await;
    assert!(
        world.node(leader).reader().is_raised(AlarmKind::NoSpace),
        "the others have heard of it"
    );
    let before = world.node(leader).status().last_index;
    seconds(120).await;
    assert!(world.node(follower).reader().revision() < last);
    let after = world.node(leader).status().last_index;
    assert!(after - before <= 3, "the log grew from {before} to {after}");
}

/// The spare segments that member `i` has.
fn spares_in(files: &MemoryFiles, i: usize) -> Vec<PathBuf> {
    let spare = format!("/m{i}/wal/spare-");
    files.paths().into_iter().filter(|path| path.to_string_lossy().starts_with(&spare)).collect()
}

#[tokio::test(start_paused = true)]
async fn an_idle_log_gives_back_what_it_can_do_without() {
    let (_world, files) = alone().await;
    have_neighbour(&files);
    seconds(10).await;
    assert!(!spares_in(&files, 0).is_empty());
    leave_free(&files, 8);
    seconds(1).await;
    assert!(spares_in(&files, 0).is_empty());
}

/// Puts so much that a log has forgotten some of it, and all of it is in a checkpoint.
async fn put_up_to_a_checkpoint(world: &World, leader: usize, disk: &MemoryFiles) -> i64 {
    put_each(&world.port(leader), 0..40, 20_000).await;
    let before = checkpoints_in(disk, leader);
    for n in 40..80 {
        let last = put_each(&world.port(leader), n..n + 1, 20_000).await;
        if checkpoints_in(disk, leader) != before {
            return last;
        }
    }
    panic!("a checkpoint is due after twenty entries");
}

#[tokio::test(start_paused = true)]
async fn what_the_log_can_do_without_gives_way_to_a_checkpoint() {
    let disks: [_; 3] = std::array::from_fn(|_| MemoryFiles::default());
    let mut world = world_on(&disks, forgetful);
    world.start_all().await;
    let follower = world.follower().await;
    world.crash(follower).await;
    let leader = world.leader().await;
    let last = put_up_to_a_checkpoint(&world, leader, &disks[leader]).await;
    purged(&world, leader, 20).await;
    let disk = &disks[follower];
    have_neighbour(disk);
    world.net.isolate(&world.url(follower));
    world.start(follower).await.expect("starts");
    seconds(2).await;
    let spare = &spares_in(disk, follower)[0];
    let spare = disk.contents(spare).expect("it is listed").len() as u64;
    let blocks = format!("/m{leader}/blocks");
    let is_block = |path: &PathBuf| path.starts_with(&blocks);
    let length = |path: PathBuf| disks[leader].contents(&path).expect("it is listed").len() as u64;
    let checkpoint: u64 = disks[leader].paths().into_iter().filter(is_block).map(length).sum();
    let used = UNLIMITED - disk.space(Path::new("/")).expect("memory").free;
    // A reserve is a twentieth.
    let total = (used + checkpoint - spare / 2) * 20 / 19;
    assert!(checkpoint < total / 20, "it would need two reserves");
    disk.set_capacity(Some(total));
    world.net.heal(&world.url(follower));
    within(30, caught_up(&world, follower, last)).await;
}

/// A world with a member that is down and needs a checkpoint, which member, its disk, and the newest
/// revision: `keys` were put meanwhile, with values of `length` bytes.
async fn left_behind(keys: u64, length: usize) -> (World, usize, MemoryFiles, i64) {
    let disks: [_; 3] = std::array::from_fn(|_| MemoryFiles::default());
    let mut world = world_on(&disks, forgetful);
    world.start_all().await;
    let follower = world.follower().await;
    world.crash(follower).await;
    let leader = world.leader().await;
    let last = put_each(&world.port(leader), 0..keys, length).await;
    purged(&world, leader, keys / 2).await;
    (world, follower, disks[follower].clone(), last)
}

/// All of it has arrived, and nothing more is needed to have it in the place of what was there before.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_has_arrived_is_installed_without_room() {
    let (mut world, follower, disk, last) = left_behind(100, 2000).await;
    have_neighbour(&disk);
    disk.fail_from(Operation::Sync, ".part", 0, ErrorKind::Other);
    world.start(follower).await.expect("starts");
    seconds(5).await;
    for _ in 0..3 {
        leave_free(&disk, 3);
        seconds(1).await;
    }
    assert!(world.node(follower).reader().revision() < last, "it cannot be made durable");
    disk.heal();
    within(10, caught_up(&world, follower, last)).await;
    let free = disk.space(Path::new("/")).expect("memory");
    assert!(free.free < free.total / 20, "there has been no room for another copy");
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_on_its_way_leaves_the_log_its_room() {
    let (mut world, follower, disk, last) = left_behind(200, 20_000).await;
    let total = leave_free(&disk, 15);
    world.start(follower).await.expect("starts");
    seconds(30).await;
    let free = disk.space(Path::new("/")).expect("memory").free;
    assert!(free >= total / 40, "{free} of {total} bytes are left");
    assert!(world.node(follower).reader().revision() < last);
    disk.set_capacity(None);
    within(60, world.node(follower).wait_ready()).await;
    within(30, world.port(follower).read_barrier()).await.expect("a leader answers");
    assert!(world.node(follower).reader().revision() >= last);
}
