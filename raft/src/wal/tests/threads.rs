//! The drivers: threads over real files, and a task on a paused clock.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::Duration;

use holdfast_store::files::RealFiles;

use super::*;

/// Fails a test that would hang.
const PATIENCE: Duration = Duration::from_secs(60);

fn open_real(directory: &Path) -> Opened {
    let options = WalOptions { segment_bytes: 256 << 10, ..options() };
    open(Arc::new(RealFiles), directory, options, Hooks::default()).unwrap()
}

#[test]
fn threads_write_in_groups_and_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("wal");
    let Opened { wal, core, maintenance, .. } = open_real(&directory);
    let threads = WalThreads::spawn(core, maintenance).unwrap();
    let (sender, receiver) = mpsc::channel();
    let count = 2_000;
    for index in 0..count {
        let sender = sender.clone();
        let completion = Box::new(move |result: Result<(), Failure>| {
            let _ = sender.send(result.map(|()| index));
        });
        wal.append([entry(1, index, 500)], completion).unwrap();
    }
    for index in 0..count {
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().unwrap(), index, "in order");
    }
    assert_eq!(wal.flushed_index(), Some(count - 1));
    // It rides, and nothing follows that it could ride with.
    wal.save_committed(id(1, count - 1)).unwrap();
    let held = Model::of(&wal);
    drop(threads);
    assert!(matches!(wal.purge(id(1, 1)), Err(WalError::Failed(_))), "closed");
    let again = open_real(&directory);
    assert_eq!(Model::of(&again.wal), held);
    assert_eq!(again.wal.state().committed, Some(id(1, count - 1)));
}

/// A vote that arrives while the writer finds that the log is idle has to be synced, so it is no
/// part of what an idle log writes. The votes come at all distances from the sync before them.
#[test]
fn an_idle_log_takes_nothing_that_wants_a_sync() {
    let mut log = Harness::open(&MemoryFiles::new(5)).unwrap();
    let (wal, succeeded) = (log.wal.clone(), log.succeeded.clone());
    let over = Arc::new(AtomicBool::new(false));
    let ends = over.clone();
    let voter = std::thread::spawn(move || {
        let mut given = 0;
        while !ends.load(Ordering::Relaxed) {
            let counter = succeeded.clone();
            let vote = Vote { term: given as u64, node: Some(1), committed: false };
            let completion = Box::new(move |result: Result<(), Failure>| {
                counter.fetch_add(result.map(|()| 1).expect("nothing fails"), Ordering::Relaxed);
            });
            wal.save_vote(vote, completion).unwrap();
            given += 1;
            while completion_is_missing(&succeeded, given, &ends) {
                std::hint::spin_loop();
            }
            (0..given % 97).for_each(|_| std::hint::spin_loop());
        }
        given
    });
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_secs(1) {
        log.step();
        log.idle();
    }
    over.store(true, Ordering::Relaxed);
    let given = voter.join().unwrap();
    log.step();
    assert_eq!(log.succeeded(), given);
}

fn completion_is_missing(succeeded: &AtomicUsize, given: usize, over: &AtomicBool) -> bool {
    succeeded.load(Ordering::Relaxed) < given && !over.load(Ordering::Relaxed)
}

struct Paused;

impl Pace for Paused {
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn sync_latency(&self) -> Duration {
        Duration::from_millis(3)
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_drives_the_same_writer() {
    let files = MemoryFiles::new(5);
    let Opened { wal, core, maintenance, .. } = open_on(&files).unwrap();
    let client = wal.clone();
    let work = async move {
        for index in 0..50 {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let completion = Box::new(move |result: Result<(), Failure>| {
                sender.send(result).expect("awaited");
            });
            client.append([entry(1, index, 300)], completion).unwrap();
            receiver.await.unwrap().unwrap();
        }
        // The mark and what rides are written when nothing follows for a while.
        client.save_committed(id(1, 49)).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let opened = open_on(&files.copy()).unwrap();
        assert_eq!(opened.wal.state(), client.state());
        client.close();
    };
    let started = tokio::time::Instant::now();
    tokio::join!(drive(core, maintenance, Paused), work);
    assert_eq!(started.elapsed(), Duration::from_millis(50 * 3 + 100));
}

#[tokio::test]
async fn callers_wait_while_too_much_is_unflushed() {
    let mut log = Harness::open(&MemoryFiles::new(5)).unwrap();
    log.append([entry(1, 0, 100 << 10)]);
    let wal = log.wal.clone();
    let mut ready = std::pin::pin!(wal.ready());
    assert!(futures_util::poll!(ready.as_mut()).is_pending());
    log.step();
    ready.await;
}
