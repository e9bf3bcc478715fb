//! openraft's own suite against the log, and what the suite does not ask: that confirmations wait
//! for the disk, and that decoded content is shared.

use std::collections::BTreeMap;
use std::sync::Mutex;

use futures_util::StreamExt;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::OneshotReceiverOf;
use openraft::{EntryPayload, StorageError};

use super::*;
use crate::types::{Batch, Membership, PeerNode, StoredMembership, log_id};
use crate::wal::testing::MemoryFiles;

mod machine;

use machine::TestMachine;

fn open(files: &MemoryFiles, workers: Workers) -> Log {
    let options = WalOptions {
        segment_bytes: 64 << 10,
        unflushed_bytes_max: 1 << 20,
        tail_bytes_max: 4 << 10,
        tail_entries_max: 8,
        spare_segments: 1,
        spare_segments_max: 2,
        unsafe_no_fsync: false,
    };
    let (files, sole) = (Arc::new(files.clone()), Arc::new(SoleMember::new(1)));
    Log::open_with(files, Path::new("/data"), workers, options, sole, Hooks::default())
        .expect("opens")
}

fn entry(index: u64, length: usize) -> Entry {
    let bytes = vec![index as u8; length].into();
    Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(Batch::new(bytes)) }
}

struct Builder(Workers);

impl StoreBuilder<TypeConfig, Log, TestMachine> for Builder {
    async fn build(&self) -> Result<((), Log, TestMachine), StorageError<TypeConfig>> {
        Ok(((), open(&MemoryFiles::new(1), self.0), TestMachine::default()))
    }
}

#[tokio::test(start_paused = true)]
async fn openraft_accepts_the_log() {
    Suite::test_all(Builder(Workers::Inline)).await.expect("the suite passes");
}

#[tokio::test]
async fn openraft_accepts_the_log_with_threads() {
    Suite::test_all(Builder(Workers::Threads)).await.expect("the suite passes");
}

/// A callback whose outcome the test can look at.
fn callback() -> (IOFlushed<TypeConfig>, OneshotReceiverOf<TypeConfig, io::Result<()>>) {
    let (sender, receiver) = TypeConfig::oneshot();
    (IOFlushed::signal(sender), receiver)
}

#[tokio::test(start_paused = true)]
async fn votes_and_entries_are_confirmed_by_the_disk() {
    let files = MemoryFiles::new(1);
    let mut log = open(&files, Workers::Inline);
    // The first spare is made in the meantime, with syncs of its own.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = files.syncs();
    log.save_vote(&Vote::new(3, 7)).await.unwrap();
    assert_eq!(files.syncs(), before + 1, "a vote is synced before it is answered");
    let (done, mut confirmed) = callback();
    log.append([entry(0, 10), entry(1, 10)], done).await.unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 2, "readable at once");
    assert!(confirmed.try_recv().is_err(), "confirmed later");
    assert!(log.unflushed().bytes > 0);
    (&mut confirmed).await.unwrap().unwrap();
    assert_eq!(log.facts().flushed(), 1);
    let syncs = files.syncs();
    log.save_committed(Some(log_id(1, 1))).await.unwrap();
    log.truncate_after(Some(log_id(1, 0))).await.unwrap();
    assert_eq!(log.facts().flushed(), 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(files.syncs(), syncs, "riders cause no sync");

    let mut again = open(&files.power_cut(), Workers::Inline);
    assert_eq!(again.read_vote().await.unwrap(), Some(Vote::new(3, 7)));
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_reaches_the_callback_and_the_member() {
    let files = MemoryFiles::new(1);
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook = told.clone();
    let shared = Arc::new(files.clone());
    let failed = move |failure: &Failure| hook.lock().unwrap().push(failure.to_string());
    let sole = Arc::new(SoleMember::new(1));
    let told_of = Hooks { failed: Arc::new(failed), ..Hooks::default() };
    let log = Log::open(shared, Path::new("/data"), Workers::Inline, false, sole, told_of);
    let mut log = log.expect("opens");
    files.fail_sync(1);
    let (done, confirmed) = callback();
    log.append([entry(0, 10)], done).await.unwrap();
    assert!(confirmed.await.unwrap().unwrap_err().to_string().contains("cannot sync"));
    assert_eq!(told.lock().unwrap().len(), 1);
    assert!(log.save_vote(&Vote::new(3, 7)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn reads_are_bounded_and_share_what_is_decoded() {
    let mut log = open(&MemoryFiles::new(1), Workers::Inline);
    for index in 0..8 {
        let (done, confirmed) = callback();
        log.append([entry(index, 400 << 10)], done).await.unwrap();
        confirmed.await.unwrap().unwrap();
    }
    let some = log.limited_get_log_entries(2, 8).await.unwrap();
    assert_eq!(some.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(log.limited_get_log_entries(2, 3).await.unwrap(), [entry(2, 400 << 10)]);
    let all: Vec<_> = log.entries_stream(1..=7).await.map(Result::unwrap).collect().await;
    assert_eq!(all, (1..8).map(|index| entry(index, 400 << 10)).collect::<Vec<_>>());
    log.purge(log_id(1, 3)).await.unwrap();
    assert_eq!(log.limited_get_log_entries(2, 8).await.unwrap(), [], "no hole");

    let last = entry(8, 0);
    let (done, _) = callback();
    log.append([last.clone()], done).await.unwrap();
    let (EntryPayload::Normal(given), EntryPayload::Normal(read)) =
        (last.payload, log.try_get_log_entries(8..9).await.unwrap().remove(0).payload)
    else {
        panic!("a batch was appended");
    };
    let decoded: *const _ = given.decoded().expect("nothing is an entry without proposals");
    assert!(std::ptr::eq(decoded, read.decoded().unwrap()), "decoded once");
}

#[tokio::test(start_paused = true)]
async fn a_member_alone_is_told_of_others_before_they_are_written() {
    let mut log = open(&MemoryFiles::new(1), Workers::Inline);
    let voters = |voters: &[u64]| {
        let nodes: BTreeMap<_, _> =
            voters.iter().map(|voter| (*voter, PeerNode::default())).collect();
        let voters = vec![voters.iter().copied().collect()];
        Membership::new(voters, nodes).expect("every voter has a node")
    };
    let prove = |log: &Log| {
        let before = log.sole.before_round(&StoredMembership::new(None, voters(&[1])));
        before.into_iter().for_each(|before| log.sole.after_round(before));
        log.sole.is_proven()
    };
    assert!(prove(&log));
    let second = EntryPayload::Membership(voters(&[1, 2]));
    let (done, _written) = callback();
    log.append([Entry { log_id: log_id(1, 0), payload: second }], done).await.unwrap();
    assert!(!log.sole.is_proven() && !prove(&log));
    let alone = EntryPayload::Membership(voters(&[1]));
    let (done, _written) = callback();
    log.append([Entry { log_id: log_id(1, 1), payload: alone }], done).await.unwrap();
    assert!(prove(&log));
    log.save_vote(&Vote::new(2, 2)).await.unwrap();
    assert!(!log.sole.is_proven() && prove(&log));
    log.truncate_after(Some(log_id(1, 0))).await.unwrap();
    assert!(!log.sole.is_proven() && !prove(&log));
}

/// A log of entries of which all but the last few are on disk only.
async fn long(files: &MemoryFiles, workers: Workers) -> Log {
    let mut log = open(files, workers);
    let (done, confirmed) = callback();
    log.append((0..50).map(|index| entry(index, 100)), done).await.unwrap();
    confirmed.await.unwrap().unwrap();
    log
}

#[tokio::test(start_paused = true)]
async fn what_is_applied_has_no_holes() {
    let mut log = long(&MemoryFiles::new(1), Workers::Inline).await;
    log.purge(log_id(1, 20)).await.unwrap();
    let below: Vec<_> = log.entries_stream(20..30).await.collect().await;
    assert!(matches!(&below[..], [Err(error)] if error.to_string().contains("entry 20")));
    let all: Vec<_> = log.entries_stream(21..30).await.map(Result::unwrap).collect().await;
    assert_eq!(all.len(), 9);
    log.purge(log_id(1, 49)).await.unwrap();
    let gone: Vec<_> = log.entries_stream(30..40).await.collect().await;
    assert!(matches!(&gone[..], [Err(error)] if error.to_string().contains("entry 30")));
}

#[tokio::test]
async fn a_disk_that_stalls_stalls_no_runtime() {
    let files = MemoryFiles::new(1);
    let mut log = long(&files, Workers::Threads).await;
    let (reading, reader) = (files.reading(), log.clone());
    // The lock is held by a thread of its own, until it is told to let go.
    let (stalls, stalled) = std::sync::mpsc::channel();
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    let disk = std::thread::spawn(move || {
        let _held = reading.lock().unwrap();
        stalls.send(()).expect("the test waits for it");
        // An error says that the test is over.
        let _ = told.recv_timeout(Duration::from_secs(20));
    });
    stalled.recv().expect("the disk stalls");
    let mut read = tokio::spawn(async move {
        let mut reader = reader;
        reader.limited_get_log_entries(0, 5).await
    });
    let newest = log.limited_get_log_entries(49, 50).await.unwrap();
    assert_eq!(newest, [entry(49, 100)], "what is in memory needs no disk");
    tokio::select! {
        biased;
        _ = &mut read => panic!("nothing can be read"),
        () = tokio::time::sleep(Duration::from_millis(50)) => {}
    }
    go_on.send(()).expect("the disk waits for it");
    disk.join().unwrap();
    let read = read.await.unwrap().unwrap();
    assert_eq!(read, (0..5).map(|index| entry(index, 100)).collect::<Vec<_>>());
}
