//! The first failed write or sync ends the log for everyone.

use super::super::handle::Shared;
use super::*;

fn assert_refuses(log: &Harness) {
    let refusals = [
        log.wal.append([entry(9, 9, 1)], log.completion()),
        log.wal.save_vote(Vote { term: 9, node: None, committed: false }, log.completion()),
        log.wal.save_committed(id(1, 0)),
        log.wal.truncate_after(None),
        log.wal.purge(id(1, 0)),
    ];
    for refusal in refusals {
        assert!(matches!(refusal, Err(WalError::Failed(_))), "{refusal:?}");
    }
}

#[test]
fn a_failed_sync_fails_everyone_for_ever() {
    let files = MemoryFiles::new(3);
    let told = Arc::new(AtomicUsize::new(0));
    let hook = told.clone();
    let failed = Arc::new(move |_: &Failure| {
        hook.fetch_add(1, Ordering::Relaxed);
    });
    let hooks = Hooks { failed, ..Hooks::default() };
    let Opened { wal, core, maintenance, .. } =
        open(Arc::new(files.clone()), Path::new(DIRECTORY), options(), hooks).unwrap();
    let (succeeded, failed) = Default::default();
    let mut log = Harness { files, wal, core, maintenance, succeeded, failed };
    log.append([entry(1, 0, 100)]);
    log.step();
    assert_eq!(log.wal.flushed_index(), Some(0));

    log.append([entry(1, 1, 100)]);
    assert!(log.core.begin());
    log.append([entry(1, 2, 100)]);
    log.vote(2);
    log.files.fail_sync(1);
    log.core.finish().fire();
    let failures = log.failed.lock().unwrap().clone();
    assert_eq!(failures.len(), 3, "the one written and the two queued: {failures:?}");
    assert!(failures.iter().all(|failure| failure.contains("simulated failure of a sync")));
    assert!(log.wal.failure().is_some());

    // A later sync that works changes nothing.
    log.files.heal();
    log.step();
    log.idle();
    assert_refuses(&log);
    assert_eq!(log.succeeded(), 1);
    assert_eq!(log.wal.flushed_index(), Some(0));
    assert_eq!(told.load(Ordering::Relaxed), 1);
}

#[test]
fn a_write_without_room_waits_for_some() {
    let mut log = Harness::open(&MemoryFiles::new(3)).unwrap();
    log.files.fill_up_after(600);
    log.append([entry(1, 0, 1000)]);
    log.step();
    log.append([entry(1, 1, 10)]);
    log.wal.save_committed(id(1, 0)).unwrap();
    log.step();
    assert!(log.core.is_stuck() && !log.core.has_idle_work());
    assert!(log.wal.unflushed().bytes > 1000, "callers are made to wait");
    assert_eq!((log.succeeded(), log.failed.lock().unwrap().len()), (0, 0));
    log.files.heal();
    log.step();
    log.step();
    assert_eq!((log.succeeded(), log.core.is_stuck()), (2, false));
    let again = open_on(&log.files.power_cut()).unwrap();
    assert_eq!(Model::of(&again.wal), Model::of(&log.wal));
}

/// However often a segment finds no room, what is before it is whole, and it comes to be at last.
#[test]
fn a_segment_without_room_waits_for_some() {
    for refuse_names in [false, true] {
        let mut log = Harness::open(&MemoryFiles::new(3)).unwrap();
        for index in 0..20 {
            if refuse_names {
                log.files.refuse_names(false)
            } else {
                log.files.fill_up_after(1500)
            }
            log.append([entry(1, index, 900)]);
            log.step();
            log.step();
            let cut = open_on(&log.files.power_cut()).expect("whole");
            let flushed = log.wal.flushed_index();
            assert!(cut.wal.state().last.map(|last| last.index) >= flushed, "entry {index}");
            log.files.heal();
            log.step();
            assert_eq!(log.wal.flushed_index(), Some(index));
        }
        assert!(segments(&log.files) > 4);
        let again = open_on(&log.files.power_cut()).unwrap();
        assert_eq!(Model::of(&again.wal), Model::of(&log.wal));
    }
}

#[test]
fn what_waits_for_room_is_told_that_the_log_was_closed() {
    let files = MemoryFiles::new(3);
    let Opened { wal, core, maintenance, .. } = open_on(&files).unwrap();
    files.fill_up_after(0);
    let threads = WalThreads::spawn(core, maintenance).unwrap();
    let (sender, told) = std::sync::mpsc::channel();
    let completion = Box::new(move |result: Result<(), Failure>| sender.send(result).unwrap());
    wal.append([entry(1, 0, 100)], completion).unwrap();
    drop(threads);
    assert!(told.recv().unwrap().is_err());
}

#[test]
fn a_full_disk_is_opened_with_a_spare_or_with_what_is_needed() {
    let mut log = purged();
    log.wal.allow_removal_below(29);
    while log.maintenance.step() {}
    log.idle();
    let held = Model::of(&log.wal);
    let spares = |files: &MemoryFiles| {
        let is_spare = |path: &std::path::PathBuf| path.to_str().unwrap().contains("spare-");
        files.paths().into_iter().filter(is_spare).collect::<Vec<_>>()
    };
    let files = log.files.copy();
    let before = spares(&files).len();
    assert!(before > 0);
    // The header of a segment.
    files.fill_up_after(512);
    let again = open_on(&files).expect("a spare is there");
    assert_eq!(Model::of(&again.wal), held);
    assert_eq!(spares(&files).len(), before - 1);

    let files = log.files.copy();
    for spare in spares(&files) {
        holdfast_store::files::Files::remove(&files, &spare).unwrap();
    }
    files.fill_up_after(2048);
    let again = open_on(&files).expect("a segment need not have its usual length");
    assert_eq!(Model::of(&again.wal), held);
}

#[test]
fn no_spare_is_made_of_the_reserve() {
    let files = MemoryFiles::new(3);
    let asked = Arc::new(AtomicUsize::new(0));
    let asking = asked.clone();
    // Room for a part of one.
    let has_room_for = Arc::new(move |_| asking.fetch_add(1, Ordering::Relaxed) < 1);
    let hooks = Hooks { has_room_for, ..Hooks::default() };
    let Opened { mut maintenance, .. } =
        open(Arc::new(files.clone()), Path::new(DIRECTORY), options(), hooks).unwrap();
    while maintenance.step() {}
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    assert!(!files.paths().iter().any(|path| path.to_str().unwrap().contains("spare")));
}

#[test]
fn spares_without_space_only_pause() {
    let mut log = Harness::open(&MemoryFiles::new(3)).unwrap();
    log.files.fill_up_after(2000);
    while log.maintenance.step() {}
    assert!(log.wal.failure().is_none());
    assert!(!log.files.paths().iter().any(|path| path.to_str().unwrap().contains("spare")));
    log.files.heal();
    assert!(!log.maintenance.step(), "not tried again by itself");
    log.wal.allow_removal_below(1);
    while log.maintenance.step() {}
    assert!(log.files.paths().iter().any(|path| path.to_str().unwrap().ends_with("spare-1")));
}

/// A log of several segments, all but the last of them purged.
fn purged() -> Harness {
    let mut log = Harness::open(&MemoryFiles::new(3)).unwrap();
    for index in 0..30 {
        log.append([entry(1, index, 900)]);
        log.step();
    }
    log.wal.purge(id(1, 28)).unwrap();
    log.append([entry(1, 30, 900)]);
    log.step();
    log
}

fn spares(files: &MemoryFiles) -> usize {
    files.paths().iter().filter(|path| path.to_str().unwrap().contains("spare-")).count()
}

fn segments(files: &MemoryFiles) -> usize {
    let paths = files.paths();
    paths.iter().filter(|path| path.extension().is_some_and(|suffix| suffix == "wal")).count()
}

#[test]
fn a_segment_that_cannot_go_goes_before_any_later_one() {
    let mut log = purged();
    let before = segments(&log.files);
    log.files.refuse_names(true);
    log.wal.allow_removal_below(29);
    while log.maintenance.step() {}
    assert_eq!(segments(&log.files), before);
    log.files.heal();
    log.wal.allow_removal_below(29);
    while log.maintenance.step() {}
    assert!(segments(&log.files) < before - 1);
    let again = open_on(&log.files.copy()).expect("no segment is missing between others");
    assert_eq!(Model::of(&again.wal), Model::of(&log.wal));
    assert!(log.wal.failure().is_none());
}

#[test]
fn a_segment_that_cannot_be_recycled_is_removed() {
    let mut log = purged();
    let before = segments(&log.files);
    log.files.refuse_names(false);
    log.wal.allow_removal_below(29);
    while log.maintenance.step() {}
    assert!(segments(&log.files) < before - 1);
}

#[test]
fn without_room_no_spare_is_kept() {
    let mut log = purged();
    log.wal.allow_removal_below(29);
    while log.maintenance.step() {}
    let files = log.files.copy();
    assert!(spares(&files) > 1, "{:?}", files.paths());
    let hooks = Hooks { has_room_for: Arc::new(|_| false), ..Hooks::default() };
    let Opened { mut maintenance, .. } =
        open(Arc::new(files.clone()), Path::new(DIRECTORY), options(), hooks).unwrap();
    while maintenance.step() {}
    assert_eq!(spares(&files), 0);
}

/// As where what is overwritten takes room of its own until it is synced.
#[test]
fn a_spare_that_cannot_be_begun_is_not_lost() {
    let mut log = purged();
    log.wal.allow_removal_below(29);
    while log.maintenance.step() {}
    let before = spares(&log.files);
    assert!(before > 0);
    log.files.fill_up_after(0);
    log.append([entry(1, 31, 3000)]);
    for _ in 0..before + 2 {
        log.step();
        assert!(log.core.is_stuck());
        assert_eq!(spares(&log.files), log.core.shared.upkeep().spares.len());
    }
    log.files.heal();
    log.step();
    assert_eq!(log.wal.flushed_index(), Some(31));
}

#[test]
fn room_is_asked_for_without_a_lock() {
    let files = purged().files.copy();
    let shared = Arc::new(std::sync::OnceLock::<std::sync::Weak<Shared>>::new());
    let asking = shared.clone();
    let has_room_for = Arc::new(move |_| {
        let shared = asking.get().and_then(std::sync::Weak::upgrade);
        assert!(shared.is_none_or(|shared| shared.upkeep.try_lock().is_ok()));
        true
    });
    let hooks = Hooks { has_room_for, ..Hooks::default() };
    let Opened { wal, mut maintenance, .. } =
        open(Arc::new(files.clone()), Path::new(DIRECTORY), options(), hooks).unwrap();
    shared.set(Arc::downgrade(&wal.shared)).unwrap();
    wal.allow_removal_below(29);
    while maintenance.step() {}
    assert!(spares(&files) > 0, "one was recycled");
}

#[test]
fn starts_that_come_to_nothing_leave_no_segment_each() {
    let mut log = purged();
    log.idle();
    let files = log.files.copy();
    let held = Model::of(&open_on(&files).unwrap().wal);
    let before = segments(&files);
    for _ in 0..5 {
        let again = Harness::open(&files).unwrap();
        assert_eq!(Model::of(&again.wal), held);
        assert_eq!(segments(&files), before);
    }
    let mut last = Harness::open(&files.power_cut()).unwrap();
    last.append([entry(1, 31, 10)]);
    last.step();
    let again = open_on(&last.files.power_cut()).unwrap();
    assert_eq!(Model::of(&again.wal), Model::of(&last.wal));
}

#[test]
fn operations_out_of_order_are_refused() {
    let log = Harness::open(&MemoryFiles::new(3)).unwrap();
    log.append([entry(4, 5, 1)]);
    let hole = log.wal.append([entry(4, 7, 1)], log.completion());
    assert!(matches!(hole, Err(WalError::Order(_))), "{hole:?}");
    let older = log.wal.append([entry(3, 6, 1)], log.completion());
    assert!(matches!(older, Err(WalError::Order(_))), "{older:?}");
}

#[test]
fn riders_cause_no_sync() {
    let mut log = Harness::open(&MemoryFiles::new(3)).unwrap();
    log.append((0..9).map(|index| entry(1, index, 10)));
    log.step();
    let syncs = log.files.syncs();
    log.wal.save_committed(id(1, 4)).unwrap();
    log.wal.save_committed(id(1, 5)).unwrap();
    log.wal.purge(id(1, 2)).unwrap();
    log.wal.truncate_after(Some(id(1, 7))).unwrap();
    log.step();
    log.idle();
    assert_eq!(log.files.syncs(), syncs);
    assert_eq!(log.wal.flushed_index(), Some(7), "what was truncated is not durable any more");
    assert!(!log.core.has_idle_work());
    let again = open_on(&log.files).unwrap();
    assert_eq!(again.wal.state(), log.wal.state());
    assert_eq!(again.wal.state().committed, Some(id(1, 5)));
}

#[test]
fn a_truncation_takes_durability_back_at_once() {
    let mut log = Harness::open(&MemoryFiles::new(3)).unwrap();
    log.append((0..9).map(|index| entry(1, index, 10)));
    log.step();
    log.append([entry(1, 9, 10)]);
    assert!(log.core.begin());
    log.wal.truncate_after(Some(id(1, 3))).unwrap();
    log.append([entry(2, 4, 10)]);
    log.core.finish().fire();
    assert_eq!(log.wal.flushed_index(), Some(3), "entry 4 of term 2 is only queued");
    assert!(log.wal.unflushed().bytes > 0);
    log.step();
    assert_eq!(log.wal.flushed_index(), Some(4));
    assert_eq!(log.wal.unflushed(), Unflushed { bytes: 0, age: std::time::Duration::ZERO });
}
