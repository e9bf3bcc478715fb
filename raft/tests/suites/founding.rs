//! Directories filled with a history from elsewhere: whole or refused, and members of one cluster
//! only if they hold the same.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::world::{World, put_on, within};
use holdfast_raft::{Founded, Founding, NodeConfig, OpenError, Seams, TcpConnect, Workers};
use holdfast_store::files::memory::Unsynced;
use holdfast_store::files::{Files, MemoryFiles};
use holdfast_store::record::encode_put;
use holdfast_store::{BackendKind, Imported, Record, RecordKind, Revision};

const RECORDS: i64 = 20;

fn seams(files: &MemoryFiles) -> Seams {
    Seams {
        files: Arc::new(files.clone()),
        backend: BackendKind::Memory,
        seed: None,
        workers: Workers::Inline,
        connector: Arc::new(TcpConnect),
        listener: None,
        discover: None,
        plants: Default::default(),
    }
}

fn record(main: i64, value: &str) -> Record {
    let (key, content) = (format!("k{main}"), value.as_bytes());
    let bytes = encode_put(key.as_bytes(), content, main, main, 1, 0);
    let kind = RecordKind::Put { create_revision: main, version: 1, lease: 0 };
    Record { revision: Revision::new(main, 0), key: key.into(), kind, bytes }
}

/// Fills the directory of the member that `config` describes.
fn import(files: &MemoryFiles, config: &NodeConfig, value: &str) -> Result<Founded, String> {
    let mut founding = Founding::begin(config.clone(), seams(files)).map_err(|e| e.to_string())?;
    for main in 2..2 + RECORDS {
        founding.push(record(main, value)).map_err(|error| error.to_string())?;
    }
    let imported = Imported { revision: 1 + RECORDS, compacted: -1, ..Imported::default() };
    founding.finish(imported).map_err(|error| error.to_string())
}

/// One member on these files.
fn world_on(files: &MemoryFiles) -> World {
    let mut world = World::new(1);
    world.files[0] = Arc::new(files.clone());
    world
}

#[tokio::test(start_paused = true)]
async fn an_import_that_was_cut_short_is_no_empty_member() {
    let config = World::new(1).configs[0].clone();
    let whole = MemoryFiles::new();
    import(&whole, &config, "v").expect("nothing stops it");
    let mut seed = 1u64;
    let mut refused = 0;
    for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Prefix, Unsynced::Torn] {
        for count in 0..=whole.operations() {
            let files = MemoryFiles::new();
            files.power_off_after(count);
            let imported = import(&files, &config, "v");
            files.crash(unsynced, &mut |below| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                (seed >> 33) % below
            });
            refused += u32::from(start(&files, imported.is_ok()).await.is_err());
        }
    }
    assert!(refused > 50, "{refused}");
}

/// Starts on what is left. It starts with everything, or with nothing where nothing was left.
async fn start(files: &MemoryFiles, finished: bool) -> Result<(), ()> {
    let left = files.list(Path::new("/m0")).unwrap_or_default();
    let mut world = world_on(files);
    match world.start(0).await {
        Ok(()) => {
            let expected = if left.is_empty() { 1 } else { 1 + RECORDS };
            assert_eq!(world.node(0).reader().revision(), expected, "{left:?}");
            assert!(!left.is_empty() || !finished);
            world.crash(0).await;
            Ok(())
        }
        Err(OpenError::ImportUnfinished(_)) if !finished => {
            let again = import(files, &world.configs[0], "v").expect_err("it is not empty");
            assert!(again.contains("Remove it"), "{again}");
            Err(())
        }
        Err(other) => panic!("{other}, of {left:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn members_with_different_histories_are_of_different_clusters() {
    let mut world = World::new(3);
    let mut clusters = Vec::new();
    for (i, value) in ["same", "same", "other"].into_iter().enumerate() {
        let files = MemoryFiles::new();
        let founded = import(&files, &world.configs[i], value).expect("nothing stops it");
        clusters.push((founded.identity.cluster_id, founded.digest));
        world.files[i] = Arc::new(files);
    }
    assert_eq!(clusters[0], clusters[1]);
    assert!(clusters[0].0 != clusters[2].0 && clusters[0].1 != clusters[2].1);
    for i in 0..3 {
        world.start(i).await.expect("starts");
    }
    for i in 0..2 {
        within(60, world.node(i).wait_ready()).await;
    }
    let put = put_on(&world.port(1), "k", "v").await.expect("two of three agree");
    assert_eq!(put.outcome.revision, 2 + RECORDS);
    let stranger = tokio::time::timeout(Duration::from_secs(60), world.node(2).wait_ready()).await;
    assert!(stranger.is_err() && world.node(2).reader().revision() == 1 + RECORDS);
}

#[tokio::test(start_paused = true)]
async fn a_restored_log_may_lie_apart() {
    let mut config = World::new(1).configs[0].clone();
    config.log_directory = Some("/log".into());
    let files = MemoryFiles::new();
    files.create_directory(Path::new("/log/full")).expect("memory");
    let refused = import(&files, &config, "v").expect_err("it holds something");
    assert!(refused.contains("/log") && refused.contains("not empty"), "{refused}");
    files.remove_directory(Path::new("/log/full")).expect("memory");
    import(&files, &config, "v").expect("nothing is in the way");
    assert!(!files.exists(Path::new("/m0/wal")).expect("memory"));
    let mut world = world_on(&files);
    let refused = world.start(0).await.expect_err("its log lies apart");
    assert!(matches!(refused, OpenError::LogApart(_)), "{refused}");
    world.configs[0].log_directory = config.log_directory;
    world.start(0).await.expect("whole");
    assert_eq!(world.node(0).reader().revision(), 1 + RECORDS);
}
