//! A log in a directory of its own: it is found again, and no other passes for it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::world::{World, put_on};
use holdfast_raft::{Node, NodeConfig, OpenError, Seams, TcpListen};
use holdfast_store::files::memory::Unsynced;
use holdfast_store::files::{Files, MemoryFiles};
use tokio::net::TcpListener;

/// A world of one member whose log lies in `log`.
fn world(log: Option<&str>) -> World {
    World::with(1, |config| config.log_directory = log.map(PathBuf::from))
}

/// Starts the member, writes, and stops it by a crash.
async fn used(log: Option<&str>) -> World {
    let mut world = world(log);
    world.start_all().await;
    put_on(&world.port(0), "k", "v").await.expect("applied");
    world.crash(0).await;
    world
}

fn give(world: &mut World, log: Option<&str>) {
    world.configs[0].log_directory = log.map(PathBuf::from);
}

/// The member does not start, however often it is tried.
async fn refused(world: &mut World, log: Option<&str>) -> OpenError {
    give(world, log);
    let refused = world.start(0).await.expect_err("refused");
    let again = world.start(0).await.expect_err("refused again");
    assert_eq!(refused.to_string(), again.to_string());
    refused
}

fn move_files(files: &dyn Files, from: &Path, to: &Path) {
    files.create_directory(to).expect("memory");
    for name in files.list(from).expect("there") {
        files.rename(&from.join(&name), &to.join(&name)).expect("there");
    }
    files.remove_directory(from).expect("there");
}

fn copy(files: &dyn Files, from: &Path, to: &Path) {
    let source = files.open(from).expect("there");
    let mut bytes = vec![0; usize::try_from(source.length().expect("memory")).expect("short")];
    source.read_exact_at(&mut bytes, 0).expect("read");
    files.create(to).expect("free").write_all_at(&bytes, 0).expect("written");
}

#[tokio::test(start_paused = true)]
async fn a_log_apart_is_found_again() {
    let mut world = used(Some("/log")).await;
    let files = world.files[0].clone();
    assert!(files.exists(Path::new("/log/wal")).expect("memory"));
    assert!(!files.exists(Path::new("/m0/wal")).expect("memory"));
    world.start_ready(0).await;
    assert_eq!(world.node(0).reader().revision(), 2);
    put_on(&world.port(0), "k", "w").await.expect("applied");
    world.crash(0).await;
    // The name of the directory is not part of it.
    move_files(&*files, Path::new("/log/wal"), Path::new("/elsewhere/wal"));
    copy(&*files, Path::new("/log/identity"), Path::new("/elsewhere/identity"));
    give(&mut world, Some("/elsewhere"));
    world.start_ready(0).await;
    assert_eq!(world.node(0).reader().revision(), 3);
}

#[tokio::test(start_paused = true)]
async fn no_other_log_passes_for_it() {
    let mut world = used(Some("/log")).await;
    assert!(matches!(refused(&mut world, None).await, OpenError::LogApart(_)));
    assert!(matches!(refused(&mut world, Some("/empty")).await, OpenError::LogLost { .. }));
    let files = world.files[0].clone();
    files.create_directory(Path::new("/etcd")).expect("memory");
    files.create(Path::new("/etcd/0000000000000000-0000000000000000.wal")).expect("memory");
    assert!(matches!(refused(&mut world, Some("/etcd")).await, OpenError::LogOfEtcd(_)));

    // The log of another data directory, of the same name and cluster.
    let data = world.configs[0].data_directory.clone();
    world.configs[0].data_directory = "/other".into();
    assert!(matches!(refused(&mut world, Some("/log")).await, OpenError::LogOfAnother { .. }));
    give(&mut world, Some("/new"));
    world.start(0).await.expect("both are new");
    world.crash(0).await;
    assert!(matches!(refused(&mut world, Some("/log")).await, OpenError::LogOfAnother { .. }));
    world.configs[0].data_directory = data;
    assert!(matches!(refused(&mut world, Some("/new")).await, OpenError::LogOfAnother { .. }));

    // Its segments alone are missing.
    files.remove_directory(Path::new("/log/wal")).expect("memory");
    assert!(matches!(refused(&mut world, Some("/log")).await, OpenError::LogMissing(_)));
}

#[tokio::test(start_paused = true)]
async fn a_log_is_moved_by_hand_and_the_old_one_is_never_used_again() {
    let mut world = used(None).await;
    let text = refused(&mut world, Some("/log")).await.to_string();
    assert!(text.contains("move /m0/wal into it, and copy /m0/identity into it"), "{text}");
    let files = world.files[0].clone();
    move_files(&*files, Path::new("/m0/wal"), Path::new("/log/wal"));
    copy(&*files, Path::new("/m0/identity"), Path::new("/log/identity"));
    world.start_ready(0).await;
    assert_eq!(world.node(0).reader().revision(), 2);
    world.crash(0).await;
    assert!(matches!(refused(&mut world, None).await, OpenError::LogApart(_)));
}

/// The power goes at every moment of a first start: also between the log's identity and the data
/// directory's, with a log that has begun and promised nothing.
#[tokio::test(start_paused = true)]
async fn a_first_start_that_was_cut_short_anywhere_goes_on() {
    let mut seen = BTreeSet::new();
    for unsynced in [Unsynced::Lost, Unsynced::Kept] {
        for operations in 0.. {
            assert!(operations < 1000, "a start is never over");
            let files = MemoryFiles::new();
            let mut world = world(Some("/log"));
            world.files[0] = Arc::new(files.clone());
            files.power_off_after(operations);
            if world.start(0).await.is_ok() {
                break;
            }
            files.crash(unsynced, &mut |_| 0);
            let is_there = |path| files.exists(Path::new(path)).expect("memory");
            seen.insert(["/log/wal", "/log/identity", "/m0/identity"].map(is_there));
            world.start_ready(0).await;
            put_on(&world.port(0), "k", "v").await.expect("applied");
            world.crash(0).await;
        }
    }
    assert!(seen.contains(&[true, true, false]), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_used_log_is_never_taken_for_one_whose_start_was_cut_short() {
    let mut world = world(Some("/log"));
    world.start_all().await;
    world.crash(0).await;
    // As if the crash had come between the two identities: nothing was promised yet.
    let files = world.files[0].clone();
    let mut fresh = self::world(Some("/log"));
    fresh.files[0] = files.clone();
    files.remove_directory(Path::new("/m0")).expect("memory");
    let used = fresh.start(0).await.expect_err("a log with votes is somebody's");
    assert!(matches!(used, OpenError::LogOfAnother { .. }), "{used}");
    files.remove_directory(Path::new("/log/wal")).expect("memory");
    fresh.start(0).await.expect("an identity alone has promised nothing");
}

/// A member on real files, which has its log elsewhere.
async fn on_disk(data: &Path, log: &Path) -> Result<Node, OpenError> {
    let mut config = NodeConfig::new("m0".to_owned(), data);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    config.initial_advertise_peer_urls = vec![url.clone()];
    config.initial_cluster = vec![("m0".to_owned(), vec![url])];
    config.log_directory = Some(log.to_owned());
    let mut seams = Seams::real();
    seams.listener = Some(Box::new(TcpListen::of(vec![listener])));
    Node::open(config, seams).await
}

#[tokio::test]
async fn two_members_never_share_the_directory_of_a_log() {
    let directory = tempfile::tempdir().expect("a folder");
    let path = |name| directory.path().join(name);
    let node = on_disk(&path("first"), &path("log")).await.expect("starts");
    node.wait_ready().await;
    let refused = on_disk(&path("second"), &path("log")).await.err();
    let Some(OpenError::DirectoryInUse(named)) = refused else { panic!("{refused:?}") };
    assert_eq!(Path::new(&named), path("log"));
    node.shutdown().await;
    drop(node);
    let refused = on_disk(&path("second"), &path("log")).await.err();
    assert!(matches!(refused, Some(OpenError::LogOfAnother { .. })), "{refused:?}");
}
