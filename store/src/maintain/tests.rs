use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::files::MemoryFiles;
use crate::files::memory::Unsynced;
use crate::testing::{Small, files, options, record};
use crate::{Options, Position, Records, Taken};

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

/// Random lives: writes, housekeeping, compaction, manifests, restarts and power cuts, against a
/// model that knows what was there at the newest manifest.
#[test]
fn lives_of_all_kinds_end_where_the_model_does() {
    for seed in 0..150 {
        let mut numbers = Numbers(seed);
        let files = files();
        let mut store = Small::open(options(&files)).unwrap();
        let mut durable = store.expected.clone();
        let mut compacted = store.compacted;
        for _ in 0..40 {
            match numbers.below(10) {
                0..=3 => {
                    let count = numbers.below(60);
                    store.apply(store.applied + count, numbers.below(300) as usize);
                }
                4 | 5 => assert!(store.maintainer.step(store.applied).is_ok()),
                6 => {
                    let (divisor, limit) = (2 + numbers.below(9), store.applied as i64);
                    store.compact(|main| main < limit && main % divisor as i64 != 0);
                    store.settle().unwrap();
                }
                7 | 8 => {
                    if let Taken::Manifest(_) = store.take().unwrap() {
                        durable = store.expected.clone();
                        compacted = store.compacted;
                    }
                }
                _ => {
                    drop(store);
                    let kind =
                        [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn][numbers.below(3) as usize];
                    files.crash(kind, &mut |bound| numbers.below(bound));
                    store = Small::open(options(&files)).unwrap();
                    store.compacted = compacted;
                    assert_eq!(store.expected, durable, "seed {seed}");
                }
            }
            store.check();
        }
    }
}

/// Readers on other threads find every record at every moment, while it goes from the tail into a
/// block, from a block into another, and its file away.
#[test]
fn readers_never_miss_a_record_that_moves() {
    const LAST: u64 = 6000;
    let files = files();
    let mut store = Small::open(options(&files)).unwrap();
    let (published, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (records, published, done) = (store.records.clone(), &published, &done);
            scope.spawn(move || read_until(&records, seed, published, done));
        }
        while store.applied < LAST {
            store.apply(store.applied + 100, 90);
            published.store(store.applied, Ordering::Release);
            store.maintainer.step(store.applied).unwrap();
            if store.applied.is_multiple_of(1000) {
                store.compact(|main| main % 8 != 0);
                store.settle().unwrap();
                store.take().unwrap();
            }
        }
        done.store(true, Ordering::Release);
    });
    store.check();
}

fn read_until(records: &Records, seed: u64, published: &AtomicU64, done: &AtomicBool) {
    let mut numbers = Numbers(seed);
    while !done.load(Ordering::Acquire) {
        // Every eighth revision is kept for ever; entry 8n + 7 makes revision 8n + 8.
        let kept = published.load(Ordering::Acquire) / 8;
        if kept == 0 {
            continue;
        }
        let index = 8 * numbers.below(kept) + 7;
        let expected = record(index, 90);
        assert_eq!(records.read(expected.revision).unwrap(), expected.bytes);
        let headers = records.headers(expected.revision, 1).unwrap();
        assert_eq!(headers, [expected.header()]);
    }
}

/// A transaction's changes share a main revision, and may be cut into several blocks.
#[test]
fn one_revision_may_fill_many_blocks() {
    let files = files();
    let mut store = Small::open(options(&files)).unwrap();
    for sub in 0..5000 {
        let key = bytes::Bytes::from(format!("{sub:05}"));
        let tombstone = crate::Record::tombstone(Revision::new(2, sub), key);
        store.expected.insert(tombstone.revision, tombstone.bytes.clone());
        store.records.append([tombstone]);
    }
    assert_eq!(store.maintainer.step(u64::MAX).unwrap(), Worked::Something, "the first look");
    assert!(store.records.shared.read().blocks.is_empty(), "the entry is not finished");
    store.records.end_entry(Position { term: 1, index: 1 });
    store.applied = 1;
    store.settle().unwrap();
    assert!(store.records.shared.read().blocks.len() > 10);
    store.check();
    store.take().unwrap();
    let expected = store.expected.clone();
    drop(store);
    assert_eq!(Small::open(options(&files)).unwrap().expected, expected);
}

/// A few records that are given up again and again do not pile up before a block is full.
#[test]
fn what_is_dead_leaves_the_tail() {
    let files = files();
    let mut store = Small::open(options(&files)).unwrap();
    store.apply(3, 20);
    store.compact(|_| true);
    store.settle().unwrap();
    assert_eq!(store.records.shared.read().tail.count_up_to(u64::MAX), 0);
    store.check();
}

/// What nothing needs goes first when the disk is full, and makes room for what has to be written.
#[test]
fn a_full_disk_gives_up_what_nothing_needs() {
    let files = files();
    let mut store = Small::open(options(&files)).unwrap();
    store.apply(400, 90);
    store.take().unwrap();
    store.compact(|main| main < 400);
    store.settle().unwrap();
    for index in [410, 420] {
        store.apply(index, 90);
        store.take().unwrap();
    }
    let used = |path: &std::path::PathBuf| files.contents(path).map_or(0, |bytes| bytes.len());
    let used: usize = files.paths().iter().map(used).sum();
    files.set_capacity(Some(used as u64));
    store.apply(500, 90);
    store.settle().unwrap();
    assert_eq!(store.maintainer.step(store.applied).unwrap(), Worked::Nothing, "not paused");
    store.check();
}

/// Many manifests of little each make many small blocks; they are merged.
#[test]
fn small_blocks_are_merged() {
    let files = files();
    let mut store = Small::open(options(&files)).unwrap();
    store.settle().unwrap();
    for _ in 0..40 {
        store.apply(store.applied + 1, 20);
        store.take().unwrap();
    }
    assert_eq!(store.records.shared.read().blocks.len(), 40);
    store.compact(|main| main == 2);
    store.settle().unwrap();
    assert!(store.records.shared.read().blocks.len() < 10);
    store.check();
}

/// With almost no room left new blocks wait, and what compaction has given up is still let go.
#[test]
fn who_holds_back_gives_up_what_is_dead() {
    let files = files();
    let mut store = Small::open(options(&files)).unwrap();
    store.apply(400, 90);
    store.take().unwrap();
    let blocks = |store: &Small| store.records.shared.read().blocks.len();
    let whole = blocks(&store);
    store.maintainer.hold_back(Held::Writes, u64::MAX);
    store.compact(|main| main < 200 || main % 3 != 0);
    store.apply(600, 90);
    store.settle().unwrap();
    let left = blocks(&store);
    assert!(left < whole, "blocks without live records are gone");
    store.maintainer.hold_back(Held::Seals, u64::MAX);
    store.settle().unwrap();
    assert!(blocks(&store) < left, "what is mostly dead is rewritten");
    store.check();
    let packed = blocks(&store);
    store.maintainer.hold_back(Held::Nothing, u64::MAX);
    store.settle().unwrap();
    assert!(blocks(&store) > packed, "new blocks are written");
    store.check();
}

/// While there is little room, what is scattered garbage is worth moving the rest for.
#[test]
fn scattered_garbage_is_given_back_where_room_is_little() {
    let files = files();
    let mut store = Small::open(options(&files)).unwrap();
    let used = |files: &MemoryFiles| {
        let length = |path: &std::path::PathBuf| files.contents(path).unwrap().len();
        files
            .paths()
            .iter()
            .filter(|path| path.starts_with("/data/blocks"))
            .map(length)
            .sum::<usize>()
    };
    let settle = |store: &mut Small| {
        for _ in 0..3 {
            store.settle().unwrap();
            store.apply(store.applied + 1, 10);
            store.take().unwrap();
        }
        store.settle().unwrap();
    };
    store.apply(600, 300);
    settle(&mut store);
    let before = used(&files);
    store.compact(|main| main % 3 == 0);
    settle(&mut store);
    assert!(used(&files) > before * 9 / 10, "a third is not worth it");
    store.maintainer.hold_back(Held::Eighths, 5000);
    let room = used(&files);
    store.settle().unwrap();
    assert!(used(&files) > room && used(&files) < room + 80_000, "the rest waits for manifests");
    let mut rounds = 0;
    while used(&files) > before * 8 / 10 {
        rounds += 1;
        assert!(rounds < 20, "{} of {before} bytes are left", used(&files));
        settle(&mut store);
    }
    store.maintainer.hold_back(Held::Eighths, u64::MAX);
    settle(&mut store);
    store.check();
    let settled = used(&files);
    settle(&mut store);
    assert!(used(&files) < settled + 1000, "it ends");
}

#[test]
fn block_files_are_a_small_part_of_their_file_system() {
    let files = files();
    let options = Options { block_file_bytes: 64 << 20, ..options(&files) };
    assert_eq!(options.block_file_bytes_here(), 64 << 20);
    files.set_capacity(Some(512 << 20));
    assert_eq!(options.block_file_bytes_here(), 8 << 20);
    files.set_capacity(Some(1 << 20));
    assert_eq!(options.block_file_bytes_here(), 1 << 20);
}
