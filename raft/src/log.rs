//! openraft's log, over the write-ahead log.
//!
//! Promises what openraft asks of a log: a vote is durable when `save_vote` returns; entries can be
//! read when `append` returns and are durable when its callback says so; nothing else causes an
//! fsync. Leaves the order of records, recovery and damage to `wal`, and when to purge to its
//! caller. What `wal` keeps in memory includes decoded content, so that the way from append to
//! apply decodes nothing twice.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, TryStreamExt, stream};
use holdfast_store::Fatal;
use holdfast_store::files::Files;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend};
use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::sync::{oneshot, watch};

use crate::config::Workers;
use crate::log_facts::{Flushed, LogFacts};
use crate::sole::SoleMember;
use crate::types::{Entry, LogId, TypeConfig, Vote};
use crate::wal::{
    self, Failure, Hooks, Maintenance, Opened, Pace, Progress, Unflushed, Wal, WalCore, WalError,
    WalOptions, WalThreads,
};
use crate::work;

mod convert;
#[cfg(test)]
mod tests;

/// The most that one read for a follower, or one step of applying, takes into memory.
const READ_BYTES_MAX: u64 = 1 << 20;

/// How long a simulated fsync takes: long enough that a crash can fall between write and sync.
const SIMULATED_SYNC: Duration = Duration::from_millis(1);
/// The longest fsync of a slow simulated disk.
const SIMULATED_SLOW_SYNC_MS: u64 = 150;
/// One disk in so many is slow.
const SIMULATED_SLOW_DISKS: u32 = 3;

/// The length of a simulated segment: short, so that a run of seconds meets the ends of many.
const SIMULATED_SEGMENT_BYTES: u64 = 256 << 10;

/// The log of a member; clones share it, and its writer ends with the last of them.
#[derive(Clone)]
pub(crate) struct Log {
    wal: Wal,
    workers: Workers,
    facts: LogFacts,
    /// Told of every membership before it is written.
    sole: Arc<SoleMember>,
    _writer: Arc<Writer>,
}

/// What drives the log.
enum Writer {
    Threads(#[allow(dead_code, reason = "held for its drop")] WalThreads),
    Task(tokio::task::JoinHandle<()>),
}

impl Drop for Writer {
    fn drop(&mut self) {
        // In a simulation this is a crash: nothing is written on the way out.
        if let Self::Task(task) = self {
            task.abort();
        }
    }
}

/// A disk that is quick, or slow for as long as its member runs.
struct SimulatedDisk {
    random: Mutex<SmallRng>,
    is_slow: bool,
}

impl SimulatedDisk {
    fn new() -> Self {
        let mut random = crate::runtime::generator();
        let is_slow = random.random_ratio(1, SIMULATED_SLOW_DISKS);
        Self { random: Mutex::new(random), is_slow }
    }
}

impl Pace for SimulatedDisk {
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }

    fn sync_latency(&self) -> Duration {
        if !self.is_slow {
            return SIMULATED_SYNC;
        }
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let milliseconds = random.random_range(1..SIMULATED_SLOW_SYNC_MS);
        Duration::from_millis(milliseconds)
    }
}

impl Log {
    /// Opens the log that lies in a directory, or begins one there. Of the hooks, those that tell how
    /// far it is are its own.
    pub(crate) fn open(
        files: Arc<dyn Files>,
        home: &Path,
        workers: Workers,
        unsafe_no_fsync: bool,
        sole: Arc<SoleMember>,
        told: Hooks,
    ) -> Result<Self, WalError> {
        let space = files.space(home).map_err(|source| WalError::Io {
            operation: "measure the file system of",
            path: home.to_owned(),
            source,
        })?;
        let mut options = WalOptions { unsafe_no_fsync, ..WalOptions::for_space(space) };
        if workers == Workers::Inline {
            options.segment_bytes = options.segment_bytes.min(SIMULATED_SEGMENT_BYTES);
        }
        Self::open_with(files, home, workers, options, sole, told)
    }

    fn open_with(
        files: Arc<dyn Files>,
        home: &Path,
        workers: Workers,
        options: WalOptions,
        sole: Arc<SoleMember>,
        told: Hooks,
    ) -> Result<Self, WalError> {
        let progress = watch::Sender::new(Flushed::default());
        let facts = LogFacts::new(progress.subscribe());
        let hooks = hooks(progress.clone(), told);
        let directory = wal::directory(home);
        let Opened { wal, core, maintenance, torn } = wal::open(files, &directory, options, hooks)?;
        if let Some(torn) = torn {
            let (file, offset) = (torn.file.display(), torn.offset);
            tracing::info!(%file, offset, reason = torn.reason, "what follows here is not in the WAL");
        }
        progress.send_modify(|flushed| flushed.index = wal.flushed_index().unwrap_or(0));
        let writer = drive(core, maintenance, workers).map_err(|source| WalError::Io {
            operation: "start the writer of",
            path: directory,
            source,
        })?;
        Ok(Self { wal, workers, facts, sole, _writer: Arc::new(writer) })
    }

    /// Whether a log lies in a directory.
    pub(crate) fn exists(files: &dyn Files, home: &Path) -> Result<bool, Fatal> {
        wal::exists(files, &wal::directory(home)).map_err(Fatal::new)
    }

    /// Whether nothing was ever recorded.
    pub(crate) fn is_unused(&self) -> bool {
        self.wal.state() == wal::State::default()
    }

    /// How far the log is on disk.
    pub(crate) fn facts(&self) -> LogFacts {
        self.facts.clone()
    }

    /// The indexes of the newest entry purged, and of the newest of all.
    pub(crate) fn ends(&self) -> (Option<u64>, Option<u64>) {
        let state = self.wal.state();
        (state.purged.map(|log_id| log_id.index), state.last.map(|log_id| log_id.index))
    }

    /// How much there is of it.
    pub(crate) fn wal(&self) -> Wal {
        self.wal.clone()
    }

    /// How far the disk is behind.
    pub(crate) fn unflushed(&self) -> Unflushed {
        self.wal.unflushed()
    }
}

fn hooks(progress: watch::Sender<Flushed>, told: Hooks) -> Hooks {
    // tokio's clock, which a simulation can pause and move.
    let start = tokio::time::Instant::now();
    Hooks {
        clock: Arc::new(move || start.elapsed()),
        flushed: Arc::new(move |Progress { flushed, bytes }| {
            progress.send_replace(Flushed { index: flushed.unwrap_or(0), bytes });
        }),
        ..told
    }
}

fn drive(core: WalCore, maintenance: Maintenance, workers: Workers) -> io::Result<Writer> {
    match workers {
        Workers::Threads => WalThreads::spawn(core, maintenance).map(Writer::Threads),
        Workers::Inline => {
            Ok(Writer::Task(tokio::spawn(wal::drive(core, maintenance, SimulatedDisk::new()))))
        }
    }
}

/// Everything that fails here ends the member, so the text is what is left to say.
fn io_error(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// The bounds of a range of indexes, as `start <= index < end`.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl Log {
    /// Reads what is in memory in place, and what is only on disk off this runtime: a disk that
    /// stalls must not stall those who could hand over because of it.
    async fn read(&self, start: u64, end: u64, bytes: u64) -> io::Result<Vec<Entry>> {
        if self.wal.is_in_memory(start) {
            return self.read_here(start, end, bytes);
        }
        let log = self.clone();
        let read = work::block(self.workers, move || log.read_here(start, end, bytes));
        read.await.map_err(io_error)?
    }

    /// Whether the log goes as far as `index`, or has to, for the entry is committed.
    fn should_hold(&self, index: u64) -> bool {
        let wal::State { committed, last, .. } = self.wal.state();
        [committed, last].into_iter().flatten().any(|id| index <= id.index)
    }

    fn read_here(&self, start: u64, end: u64, bytes: u64) -> io::Result<Vec<Entry>> {
        let entries = self.wal.entries_limited(start, end, bytes).map_err(io_error)?;
        entries.into_iter().map(|entry| convert::to_raft(entry).map_err(io_error)).collect()
    }
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = bounds(&range);
        self.read(start, end, u64::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let entries = self.read(start, end, READ_BYTES_MAX).await?;
        // What begins later than asked would leave a hole at the follower. Nothing at all is taken
        // as a heartbeat, after which the leader sees that it has purged these entries.
        let begins_there = entries.first().is_some_and(|first| first.log_id.index == start);
        Ok(if begins_there { entries } else { Vec::new() })
    }

    /// In bounded steps: after a restart, there may be much to apply.
    async fn entries_stream<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend {
        let (start, end) = bounds(&range);
        let steps = Steps { log: self.clone(), next: start, end };
        stream::try_unfold(steps, Steps::take).try_flatten()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.wal.state().vote.map(convert::vote_to_raft))
    }
}

/// Entries in steps of bounded size, one after the other; ends where the log ends, or with an error.
struct Steps {
    log: Log,
    next: u64,
    end: u64,
}

/// One step.
type Step = stream::Iter<std::iter::Map<std::vec::IntoIter<Entry>, fn(Entry) -> io::Result<Entry>>>;

impl Steps {
    async fn take(mut self) -> io::Result<Option<(Step, Self)>> {
        if self.next >= self.end {
            return Ok(None);
        }
        let entries = self.log.read(self.next, self.end, READ_BYTES_MAX).await?;
        let Some(first) = entries.first() else {
            return if self.log.should_hold(self.next) { Err(self.hole()) } else { Ok(None) };
        };
        if first.log_id.index != self.next {
            return Err(self.hole());
        }
        self.next += entries.len() as u64;
        let step: fn(Entry) -> io::Result<Entry> = Ok;
        Ok(Some((stream::iter(entries.into_iter().map(step)), self)))
    }

    /// What is applied must not skip an entry.
    fn hole(&self) -> io::Error {
        io::Error::other(format!(
            "entry {} is not in the log, and later ones count on it",
            self.next
        ))
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.wal.state();
        Ok(LogState {
            last_purged_log_id: state.purged.map(convert::id_to_raft),
            last_log_id: state.last.map(convert::id_to_raft),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.sole.voting(vote.leader_id.voted_for);
        let (sender, receiver) = oneshot::channel();
        let completion = Box::new(move |result| {
            // The caller may have been dropped; then nobody answers with this vote.
            let _ = sender.send(result);
        });
        self.wal.save_vote(convert::vote_to_wal(vote), completion).map_err(io_error)?;
        let stopped = |_| io::Error::other("the writer of the log has stopped");
        receiver.await.map_err(stopped)?.map_err(io_error)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        self.wal.save_committed(convert::id_to_wal(&committed)).map_err(io_error)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.wal.state().committed.map(convert::id_to_raft))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.wal.ready().await;
        let completion = Box::new(move |result: Result<(), Failure>| {
            callback.io_completed(result.map_err(io_error));
        });
        let told = |entry: &Entry| {
            if let EntryPayload::Membership(membership) = &entry.payload {
                self.sole.appending(membership);
            }
        };
        let entries = entries.into_iter().inspect(told).map(convert::to_wal);
        self.wal.append(entries, completion).map_err(io_error)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.sole.lost();
        self.wal.truncate_after(last.as_ref().map(convert::id_to_wal)).map_err(io_error)
    }

    /// Whoever has openraft purge has verified the checkpoints that replace the entries, so their
    /// segments may go as well.
    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.wal.purge(convert::id_to_wal(&upto)).map_err(io_error)?;
        self.wal.allow_removal_below(upto.index + 1);
        Ok(())
    }
}
