use std::io;
use std::path::Path;

use super::*;
use crate::files::memory::{Operation, Unsynced};
use crate::files::{Files, MemoryFiles};
use crate::maintain::Taken;
use crate::testing::{DIRECTORY, Small, files, options};
use crate::{Plants, Revision, Worked};

fn no_choice(_: u64) -> u64 {
    unreachable!("nothing to choose")
}

fn path_ending(files: &MemoryFiles, end: &str) -> PathBuf {
    let mut paths = files.paths();
    paths.retain(|path| path.to_string_lossy().ends_with(end));
    paths.pop().expect("there is such a file")
}

#[test]
fn a_checkpoint_survives_a_power_cut_and_nothing_else_does() {
    let files = files();
    let mut store = Small::open(options(&files)).unwrap();
    store.apply(100, 90);
    assert!(matches!(store.take().unwrap(), Taken::Manifest(_)));
    let at_manifest = store.expected.clone();
    store.apply(200, 90);
    store.settle().unwrap();
    store.check();
    files.crash(Unsynced::Lost, &mut no_choice);

    let mut store = Small::open(options(&files)).unwrap();
    assert_eq!(store.applied, 100);
    assert_eq!(store.expected, at_manifest);
    store.check();
    store.apply(300, 90);
    store.settle().unwrap();
    store.check();
    assert!(matches!(store.take().unwrap(), Taken::Manifest(_)));
    files.crash(Unsynced::Lost, &mut no_choice);
    let reopened = Small::open(options(&files)).unwrap();
    assert_eq!(reopened.expected, store.expected);
    assert_eq!(reopened.maintainer.manifests().len(), 2);
    assert_eq!(reopened.notes, [""; 0]);
}

/// Blocks may be sealed past the entry that a manifest is taken at, and then hold records that
/// the manifest must not bring back.
#[test]
fn a_manifest_of_an_earlier_entry_restores_that_entry() {
    let files = files();
    let mut store = Small::open(options(&files)).unwrap();
    store.apply(55, 90);
    let frozen = store.frozen();
    let then = store.expected.clone();
    store.apply(100, 90);
    store.settle().unwrap();
    let taken = store.maintainer.take_manifest(frozen, 100).unwrap();
    assert!(matches!(taken, Taken::Manifest(_)));
    store.check();
    drop(store);
    let mut store = Small::open(options(&files)).unwrap();
    assert_eq!(store.expected, then);
    store.apply(100, 80);
    store.check();
    store.settle().unwrap();
    store.check();

    // What was cut off stays off in the manifests that follow, though they reach beyond it.
    store.apply(120, 80);
    store.compact(|main| (56..100).contains(&main));
    store.settle().unwrap();
    store.take().unwrap();
    store.check();
    let then = store.expected.clone();
    drop(store);
    let store = Small::open(options(&files)).unwrap();
    assert_eq!(store.expected, then);
    store.check();
}

/// The older of two manifests is a spare.
#[test]
fn damage_that_only_the_older_manifest_meets_is_no_obstacle() {
    let files = files();
    let mut store = Small::open(options(&files)).unwrap();
    store.apply(100, 90);
    store.take().unwrap();
    let older: Vec<_> = store.maintainer.export().unwrap().files().to_vec();
    store.compact(|main| main < 100);
    store.settle().unwrap();
    store.apply(200, 90);
    store.take().unwrap();
    let newer: Vec<_> = store.maintainer.export().unwrap().files().to_vec();
    let expected = store.expected.clone();
    drop(store);
    let names: Vec<_> = newer.iter().map(|file| &file.name).collect();
    let victim = older.iter().find(|file| !names.contains(&&file.name)).expect("a file has gone");
    files.flip(&Path::new("/data/blocks").join(&victim.name), 3, 1).unwrap();
    let store = Small::open(options(&files)).unwrap();
    assert_eq!((store.maintainer.manifests().len(), store.notes.len()), (1, 1));
    assert_eq!(store.expected, expected);
}

#[test]
fn nothing_is_persisted_that_the_log_has_not_flushed() {
    let plant = Plants { skip_flushed_comparison: true, ..Plants::default() };
    for (plants, sealed) in [(Plants::default(), false), (plant, true)] {
        let files = files();
        let mut store = Small::open(Options { plants, ..options(&files) }).unwrap();
        store.apply(100, 90);
        store.maintainer.step(0).unwrap();
        let written = files.paths().iter().any(|path| path.starts_with("/data/blocks"));
        assert_eq!(written, sealed);
        let taken = store.maintainer.take_manifest(store.frozen(), 99).unwrap();
        assert_eq!(matches!(taken, Taken::Manifest(_)), sealed);
        assert_eq!(taken == Taken::NotFlushed, !sealed);
    }
}

#[test]
fn a_damaged_manifest_is_reported_and_the_one_before_it_used() {
    let files = files();
    let mut store = Small::open(options(&files)).unwrap();
    store.apply(100, 90);
    store.take().unwrap();
    let first = store.expected.clone();
    store.apply(200, 90);
    store.take().unwrap();
    drop(store);
    let newest = path_ending(&files, ".manifest");
    for offset in 0..files.contents(&newest).unwrap().len() as u64 {
        let files = files.duplicate();
        files.flip(&newest, offset, 1).unwrap();
        let store = Small::open(options(&files));
        if (4..8).contains(&offset) {
            // The format number: damage shows in the checksum, not as a newer version.
            assert!(store.is_ok());
        }
        let store = store.unwrap();
        assert_eq!(store.expected, first);
        assert_eq!(store.notes.len(), 1);
        assert!(store.notes[0].contains(newest.to_str().unwrap()), "{}", store.notes[0]);
    }
}

#[test]
fn when_no_manifest_can_be_used_each_is_named() {
    let files = files();
    let mut store = Small::open(options(&files)).unwrap();
    store.apply(100, 90);
    store.take().unwrap();
    drop(store);
    let manifest = path_ending(&files, ".manifest");
    files.flip(&manifest, 20, 1).unwrap();
    let error = Small::open(options(&files)).err().unwrap();
    assert!(error.to_string().contains(manifest.to_str().unwrap()), "{error}");
    assert!(files.exists(&manifest).unwrap(), "a refused directory is left as it is");
}

#[test]
fn a_flipped_bit_anywhere_in_a_block_file_is_noticed_and_named() {
    let files = files();
    let mut store = Small::open(options(&files)).unwrap();
    store.apply(30, 90);
    store.take().unwrap();
    drop(store);
    let blocks = path_ending(&files, ".blocks");
    for offset in 0..files.contents(&blocks).unwrap().len() as u64 {
        let files = files.duplicate();
        files.flip(&blocks, offset, 1 << (offset % 8)).unwrap();
        let error = match Small::open(options(&files)) {
            // The helper reads every value when it opens.
            Ok(_) => panic!("the flip at {offset} went unnoticed"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(blocks.to_str().unwrap()), "{error}");
    }
}

#[test]
fn blocks_that_the_disk_put_elsewhere_are_noticed() {
    let files = files();
    let mut store = Small::open(options(&files)).unwrap();
    store.apply(40, 90);
    store.take().unwrap();
    let places: Vec<_> = {
        let core = store.records.shared.read();
        core.blocks.values().map(|block| (block.place.offset, block.place.length)).collect()
    };
    drop(store);
    let path = path_ending(&files, ".blocks");
    let ((from, length), (to, _)) = (places[0], places[1]);
    let bytes = files.contents(&path).unwrap();
    let moved = &bytes[from as usize..(from + u64::from(length)) as usize];
    files.open(&path).unwrap().write_all_at(moved, to).unwrap();
    let error = Small::open(options(&files)).err().unwrap().to_string();
    assert!(error.contains("belongs to file"), "{error}");
}

#[test]
fn directories_of_others_and_of_newer_versions_are_refused_untouched() {
    let files = files();
    drop(Small::open(options(&files)).unwrap());
    let format = Path::new(DIRECTORY).join("holdfast.format");
    let file = files.open(&format).unwrap();
    file.write_all_at(b"holdfast 9\n", 0).unwrap();
    let error = Small::open(options(&files)).err().unwrap().to_string();
    assert!(error.contains('9') && error.contains('1'), "{error}");
    file.write_all_at(b"something ", 0).unwrap();
    assert!(matches!(Small::open(options(&files)).err(), Some(OpenError::Foreign { .. })));

    let files = crate::testing::files();
    files.create_directory(&Path::new(DIRECTORY).join("member")).unwrap();
    assert!(matches!(Small::open(options(&files)).err(), Some(OpenError::Foreign { .. })));
    assert!(!files.exists(&format).unwrap());
}

/// The power goes at every single operation of a life with manifests and compaction; afterwards
/// the newest manifest that was reported is there, or a newer one.
#[test]
fn the_power_may_go_at_any_moment() {
    let total = {
        let files = files();
        let before = files.operations();
        let mut newest = 0;
        live(&files, &mut newest).unwrap();
        files.operations() - before
    };
    assert!(total > 60, "{total}");
    for kind in [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn, Unsynced::Prefix] {
        for count in 0..total {
            let files = files();
            files.power_off_after(count);
            let mut newest = 0;
            let lived = live(&files, &mut newest);
            assert!(lived.is_err(), "{kind:?}: {count} of {total} operations were enough");
            let mut state = count + 1;
            files.crash(kind, &mut |below| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) % below
            });
            let mut store = Small::open(options(&files))
                .unwrap_or_else(|error| panic!("{kind:?} after {count}: {error}"));
            assert!(store.applied >= newest, "{kind:?} after {count}: a manifest is lost");
            store.check();
            store.apply(store.applied + 50, 90);
            store.take().unwrap();
            store.settle().unwrap();
            store.check();
        }
    }
}

fn live(files: &MemoryFiles, newest: &mut u64) -> Result<(), String> {
    let mut store = Small::open(options(files)).map_err(|error| error.to_string())?;
    let mut next = 40;
    for round in 0..5 {
        store.apply(next, 90);
        next += 40;
        store.settle().map_err(|fatal| fatal.what)?;
        if round == 2 {
            store.compact(|main| main % 3 != 0);
            store.settle().map_err(|fatal| fatal.what)?;
        }
        if let Taken::Manifest(info) = store.take().map_err(|fatal| fatal.what)? {
            *newest = info.position.index;
        }
        store.settle().map_err(|fatal| fatal.what)?;
    }
    Ok(())
}

#[test]
fn a_full_disk_pauses_and_goes_on() {
    let files = files();
    let mut store = Small::open(options(&files)).unwrap();
    store.apply(50, 90);
    store.take().unwrap();
    files.set_capacity(Some(8000));
    store.apply(300, 90);
    store.settle().unwrap();
    assert_eq!(store.maintainer.step(300).unwrap(), Worked::Paused);
    assert_eq!(store.take().unwrap(), Taken::NoSpace);
    store.check();
    files.set_capacity(None);
    store.settle().unwrap();
    assert!(matches!(store.take().unwrap(), Taken::Manifest(_)));
    store.check();
    drop(store);
    assert_eq!(Small::open(options(&files)).unwrap().applied, 300);
}

#[test]
fn other_errors_of_the_disk_are_fatal() {
    for (operation, path) in [
        (Operation::Write, ".blocks"),
        (Operation::Sync, ".blocks"),
        (Operation::Sync, ".manifest"),
        (Operation::SyncDirectory, "blocks"),
        (Operation::SyncDirectory, "snap"),
    ] {
        let files = files();
        let mut store = Small::open(options(&files)).unwrap();
        store.apply(50, 90);
        files.fail(operation, path, 0, io::ErrorKind::Other);
        let fatal = store.take().expect_err("the fault was met");
        assert!(fatal.what.contains("/data/"), "{fatal}");
    }
}

#[test]
fn files_grow_no_more_than_their_bound_and_names_are_never_used_twice() {
    let files = files();
    let mut seen = std::collections::BTreeMap::<PathBuf, Vec<u8>>::new();
    for life in 1..6u64 {
        let mut store = Small::open(options(&files)).unwrap();
        store.apply(life * 100, 90);
        store.settle().unwrap();
        if life != 3 {
            store.take().unwrap();
        }
        for path in files.paths().into_iter().filter(|path| path.starts_with("/data/blocks")) {
            let contents = files.contents(&path).unwrap();
            assert!(contents.len() < 8000 + 3000);
            if let Some(before) = seen.get(&path) {
                let shared = before.len().min(contents.len());
                assert_eq!(before[..shared], contents[..shared], "{}", path.display());
            }
            seen.insert(path, contents);
        }
    }
}

#[test]
fn compaction_reclaims_space_and_nothing_dead_comes_back() {
    let files = files();
    let mut store = Small::open(options(&files)).unwrap();
    store.apply(1000, 90);
    store.take().unwrap();
    store.settle().unwrap();
    let before = store.records.total_bytes();
    store.compact(|main| main % 10 != 0);
    store.settle().unwrap();
    store.check();
    for _ in 0..3 {
        store.apply(store.applied + 1, 90);
        assert!(matches!(store.take().unwrap(), Taken::Manifest(_)));
        store.settle().unwrap();
    }
    let after = store.records.total_bytes();
    assert!(after * 4 < before, "{after} bytes are left of {before}");
    let on_disk: usize = files.paths().iter().map(|p| files.contents(p).unwrap().len()).sum();
    assert!((on_disk as u64) < before / 2);
    store.check();
    drop(store);
    files.crash(Unsynced::Lost, &mut no_choice);
    let reopened = Small::open(options(&files)).unwrap();
    reopened.check();
    assert!(reopened.restored.iter().all(|h| h.revision.main % 10 == 0 || h.revision.main > 1001));
}

#[test]
fn a_manifest_frozen_before_a_compaction_is_not_taken_after_it() {
    let files = files();
    let mut store = Small::open(options(&files)).unwrap();
    store.apply(100, 90);
    let frozen = store.frozen();
    store.apply(101, 90);
    store.compact(|main| main < 50);
    store.settle().unwrap();
    assert_eq!(store.maintainer.take_manifest(frozen, 101).unwrap(), Taken::Stale);
    assert!(matches!(store.take().unwrap(), Taken::Manifest(_)));
    assert_eq!(store.take().unwrap(), Taken::Stale, "there is one at this position");
}

#[test]
fn large_values_are_blocks_of_their_own_and_reading_stays_within_the_cache() {
    let files = files();
    let budget = 200_000;
    let options = Options { block_cache_bytes: budget, ..options(&files) };
    let mut store = Small::open(options.clone()).unwrap();
    for size in [10, 30_000, 10, 150_000, 400_000, 10] {
        store.apply(store.applied + 1, size);
    }
    store.apply(200, 900);
    store.take().unwrap();
    store.check();
    assert!(store.records.shared.cache.facts().bytes <= budget);
    assert_eq!(store.records.try_read(Revision::new(6, 0)).unwrap(), None);
    drop(store);
    let store = Small::open(options).unwrap();
    assert_eq!(store.expected.len(), 200);
    store.check();
    assert!(store.records.shared.cache.facts().bytes <= budget);
}
