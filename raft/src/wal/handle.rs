//! The log as its users see it: append, vote, truncate, purge, read. Every call returns at once;
//! what has to be durable says so through a completion.
//!
//! Locks, in the order in which they are taken: `log`, `queue`, `places`. None is held across
//! disk access or an await.

use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use holdfast_store::files::Files;

use super::error::{Failure, WalError};
use super::places::Places;
use super::queue::{Completion, Queue, Sleep, Urgency};
use super::record::{Entry, LogId, Memo, Record, Vote};
use super::state::State;
use super::tail::Tail;
use super::{Hooks, Progress, WalOptions, read};

/// A handle on the log; clones share it.
#[derive(Clone)]
pub struct Wal {
    pub(super) shared: Arc<Shared>,
}

/// What handles, writer and maintenance share.
pub(super) struct Shared {
    pub(super) files: Arc<dyn Files>,
    pub(super) directory: PathBuf,
    pub(super) options: WalOptions,
    pub(super) hooks: Hooks,
    log: RwLock<Log>,
    queue: Mutex<Queue>,
    /// Told when there is something to write, or nothing ever again.
    pub(super) work: Condvar,
    places: RwLock<Places>,
    pub(super) upkeep: Mutex<Upkeep>,
    /// Told when segments may go or a spare was used.
    pub(super) upkeep_work: Condvar,
    /// A copy of the queue's `flushed_next`, for readers without a lock.
    flushed_next: AtomicU64,
}

/// What readers see: everything that was queued, durable or not.
pub(super) struct Log {
    pub(super) state: State,
    pub(super) tail: Tail,
    /// Counts truncations and purges: a reader that meets one no longer reads one log.
    generation: u64,
}

/// What maintenance needs to know.
#[derive(Default)]
pub(super) struct Upkeep {
    /// Segments may go when all their entries are below.
    pub(super) removable_below: u64,
    /// Entries below are purged, durably.
    pub(super) purged_next: u64,
    /// Full-length files to make segments of.
    pub(super) spares: VecDeque<PathBuf>,
    /// Something changed since maintenance last looked.
    pub(super) requested: bool,
    pub(super) closed: bool,
}

/// How far the disk is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unflushed {
    /// Bytes queued or written, and not yet durable.
    pub bytes: u64,
    /// How long the oldest of them has waited.
    pub age: Duration,
}

const LOCK: &str = "a panic under this lock stops the process";

impl Shared {
    /// How many segments hold something.
    pub(super) fn segments(&self) -> usize {
        let places = self.places();
        let oldest = places.oldest_segment().unwrap_or_else(|| places.newest_segment());
        (places.newest_segment() - oldest) as usize + 1
    }

    pub(super) fn new(
        files: Arc<dyn Files>,
        directory: PathBuf,
        options: WalOptions,
        hooks: Hooks,
        log: (State, Places),
    ) -> Self {
        let (state, places) = log;
        let queue = Queue::new(state.next_index());
        let purged_next = state.purged.map_or(0, |purged| purged.index + 1);
        let upkeep = Upkeep { purged_next, requested: true, ..Upkeep::default() };
        Self {
            files,
            directory,
            options,
            hooks,
            log: RwLock::new(Log { state, tail: Tail::default(), generation: 0 }),
            queue: Mutex::new(queue),
            work: Condvar::new(),
            places: RwLock::new(places),
            upkeep: Mutex::new(upkeep),
            upkeep_work: Condvar::new(),
            flushed_next: AtomicU64::new(state.next_index()),
        }
    }

    pub(super) fn log(&self) -> RwLockReadGuard<'_, Log> {
        self.log.read().expect(LOCK)
    }

    pub(super) fn log_mut(&self) -> RwLockWriteGuard<'_, Log> {
        self.log.write().expect(LOCK)
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect(LOCK)
    }

    pub(super) fn places(&self) -> RwLockReadGuard<'_, Places> {
        self.places.read().expect(LOCK)
    }

    pub(super) fn places_mut(&self) -> RwLockWriteGuard<'_, Places> {
        self.places.write().expect(LOCK)
    }

    pub(super) fn upkeep(&self) -> MutexGuard<'_, Upkeep> {
        self.upkeep.lock().expect(LOCK)
    }

    /// Makes maintenance look.
    pub(super) fn request_upkeep(&self, change: impl FnOnce(&mut Upkeep)) {
        let mut upkeep = self.upkeep();
        change(&mut upkeep);
        upkeep.requested = true;
        drop(upkeep);
        self.upkeep_work.notify_all();
    }

    /// Publishes the queue's flushed index. The queue is locked, so changes are seen in order.
    pub(super) fn publish_flushed(&self, queue: &Queue) {
        self.flushed_next.store(queue.flushed_next, Ordering::Release);
        let flushed = queue.flushed_next.checked_sub(1);
        (self.hooks.flushed)(Progress { flushed, bytes: queue.flushed_bytes });
    }

    /// The first failure ends the log. Returns who still waited.
    pub(super) fn fail(&self, failure: &Failure) -> Vec<Completion> {
        let mut queue = self.queue();
        let first = queue.failure.is_none();
        let waiting = queue.fail(failure.clone());
        queue.wake_waiting();
        self.wake_writer(queue);
        if first {
            (self.hooks.failed)(failure);
        }
        waiting
    }

    /// Wakes the writer if it sleeps and this is what it waits for.
    fn wake_for(&self, urgency: Urgency, queue: MutexGuard<'_, Queue>) {
        if queue.sleep.ends_for(urgency) {
            self.wake_writer(queue);
        }
    }

    fn wake_writer(&self, mut queue: MutexGuard<'_, Queue>) {
        queue.sleep = Sleep::Awake;
        if let Some(writer) = queue.writer.take() {
            writer.wake();
        }
        drop(queue);
        self.work.notify_all();
    }
}

impl Wal {
    /// How many segments hold something.
    pub fn segments(&self) -> usize {
        self.shared.segments()
    }

    /// Appends entries. They can be read when this returns; `completion` is called when they, and
    /// all before them, are durable, or with the failure that prevents it.
    ///
    /// An error means that the completion is not called and that the log must not be used on.
    pub fn append(
        &self,
        entries: impl IntoIterator<Item = Entry>,
        completion: Completion,
    ) -> Result<(), WalError> {
        let now = (self.shared.hooks.clock)();
        let mut log = self.shared.log_mut();
        let mut queue = self.live_queue()?;
        let mut entries = entries.into_iter().peekable();
        let mut completion = Some(completion);
        while let Some(entry) = entries.next() {
            let completion = completion.take_if(|_| entries.peek().is_none());
            let record = Record::Entry(Entry { memo: Memo::default(), ..entry.clone() });
            log.state.apply(&record).map_err(WalError::Order)?;
            log.tail.push(entry);
            queue.push(record, Urgency::Durable, now, completion);
        }
        self.shared.wake_for(Urgency::Durable, queue);
        drop(log);
        if let Some(completion) = completion {
            // There was no entry, so nothing has to become durable.
            completion(Ok(()));
        }
        Ok(())
    }

    /// Records a vote. Until the completion says so, it must not be answered to anyone.
    pub fn save_vote(&self, vote: Vote, completion: Completion) -> Result<(), WalError> {
        let now = (self.shared.hooks.clock)();
        let record = Record::Vote(vote);
        let mut log = self.shared.log_mut();
        let mut queue = self.live_queue()?;
        log.state.apply(&record).map_err(WalError::Order)?;
        queue.push(record, Urgency::Durable, now, Some(completion));
        self.shared.wake_for(Urgency::Durable, queue);
        Ok(())
    }

    /// Notes what is committed; it rides with the next group.
    pub fn save_committed(&self, committed: LogId) -> Result<(), WalError> {
        let record = Record::Committed(committed);
        let mut log = self.shared.log_mut();
        let mut queue = self.live_queue()?;
        log.state.apply(&record).map_err(WalError::Order)?;
        queue.push_committed(committed);
        self.shared.wake_for(Urgency::Rides, queue);
        Ok(())
    }

    /// Removes the entries after `after`, or all above the purged ones. Ordered before whatever is
    /// appended next; not durable by itself.
    pub fn truncate_after(&self, after: Option<LogId>) -> Result<(), WalError> {
        let now = (self.shared.hooks.clock)();
        let record = Record::Truncate(after);
        let mut log = self.shared.log_mut();
        let mut queue = self.live_queue()?;
        let before = log.state.last;
        log.state.apply(&record).map_err(WalError::Order)?;
        if log.state.last == before {
            return Ok(());
        }
        let next = log.state.next_index();
        log.tail.truncate(next);
        log.generation += 1;
        queue.note_truncation(next);
        self.shared.publish_flushed(&queue);
        queue.push(record, Urgency::Rides, now, None);
        self.shared.wake_for(Urgency::Rides, queue);
        Ok(())
    }

    /// Removes the entries up to `upto` from what readers see. Their segments go once this is
    /// durable and [`Self::allow_removal_below`] permits it.
    pub fn purge(&self, upto: LogId) -> Result<(), WalError> {
        let now = (self.shared.hooks.clock)();
        let record = Record::Purge(upto);
        let mut log = self.shared.log_mut();
        let mut queue = self.live_queue()?;
        log.state.apply(&record).map_err(WalError::Order)?;
        log.tail.purge(upto.index + 1);
        log.generation += 1;
        queue.push(record, Urgency::Rides, now, None);
        self.shared.wake_for(Urgency::Rides, queue);
        Ok(())
    }

    /// Permits whole segments to be removed, or recycled, when all their entries are purged and
    /// below `index`. Nothing is removed before the first call.
    pub fn allow_removal_below(&self, index: u64) {
        self.shared
            .request_upkeep(|upkeep| upkeep.removable_below = upkeep.removable_below.max(index));
    }

    /// Has the upkeep look again at how much room there is.
    pub fn request_upkeep(&self) {
        self.shared.request_upkeep(|_| {});
        // In a simulation one task does both.
        self.shared.wake_writer(self.shared.queue());
    }

    /// Vote, committed, purged, first and last, as of everything queued.
    pub fn state(&self) -> State {
        self.shared.log().state
    }

    /// The first index such that it and all that is written above it take about `bytes` on disk.
    pub fn start_within(&self, bytes: u64) -> Option<u64> {
        self.shared.places().start_within(bytes)
    }

    /// The entries `start <= index < end` that exist: all of them, as of one moment.
    pub fn entries(&self, start: u64, end: u64) -> Result<Vec<Entry>, WalError> {
        self.entries_limited(start, end, u64::MAX)
    }

    /// As [`Self::entries`], but stops before the entry that would exceed `bytes`; never before
    /// the first one.
    pub fn entries_limited(
        &self,
        start: u64,
        end: u64,
        bytes: u64,
    ) -> Result<Vec<Entry>, WalError> {
        // Truncations and purges are rare, so a reader that met one starts over.
        loop {
            let generation = self.shared.log().generation;
            let entries = self.read_generation(start, end, bytes, generation)?;
            if let Some(entries) = entries {
                return Ok(entries);
            }
        }
    }

    fn read_generation(
        &self,
        start: u64,
        end: u64,
        mut budget: u64,
        generation: u64,
    ) -> Result<Option<Vec<Entry>>, WalError> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let log = self.shared.log();
            if log.generation != generation {
                return Ok(None);
            }
            let first = log.state.first.unwrap_or(u64::MAX);
            let start = entries.last().map_or(start.max(first), |last| last.id.index + 1);
            let end = end.min(log.state.next_index());
            if start >= end {
                return Ok(Some(entries));
            }
            let tail_start = log.tail.first().unwrap_or(log.state.next_index());
            if start >= tail_start {
                log.tail.copy(start..end, &mut entries, &mut budget);
                return Ok(Some(entries));
            }
            let runs = self.shared.places().runs(start, end.min(tail_start));
            drop(log);
            assert!(!runs.is_empty(), "what is not in memory has a place on disk");
            for run in &runs {
                if !read::read_run(&self.shared.directory, run, &mut entries, &mut budget)? {
                    let unchanged = self.shared.log().generation == generation;
                    return Ok(unchanged.then_some(entries));
                }
            }
        }
    }

    /// Whether reading from `start` on needs no disk, as far as can be told now.
    pub fn is_in_memory(&self, start: u64) -> bool {
        let log = self.shared.log();
        let next = log.state.next_index();
        let first = log.state.first.unwrap_or(next);
        start.max(first) >= log.tail.first().unwrap_or(next)
    }

    /// The newest entry that is durable, with all before it. Lower after a truncation, at once.
    pub fn flushed_index(&self) -> Option<u64> {
        self.shared.flushed_next.load(Ordering::Acquire).checked_sub(1)
    }

    /// How far the disk is behind.
    pub fn unflushed(&self) -> Unflushed {
        let now = (self.shared.hooks.clock)();
        let queue = self.shared.queue();
        let age = queue.oldest().map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest));
        Unflushed { bytes: queue.unflushed(), age }
    }

    /// Resolves when less than the permitted bytes are unflushed, or the log has failed.
    pub fn ready(&self) -> Ready<'_> {
        Ready { wal: self }
    }

    /// The failure that ended the log, if one did.
    pub fn failure(&self) -> Option<Failure> {
        self.shared.queue().failure.clone()
    }

    /// Takes no more; what is queued is still written, then the writer ends.
    pub fn close(&self) {
        let mut queue = self.shared.queue();
        queue.closed = true;
        queue.wake_waiting();
        self.shared.wake_writer(queue);
        self.shared.request_upkeep(|upkeep| upkeep.closed = true);
    }

    fn live_queue(&self) -> Result<MutexGuard<'_, Queue>, WalError> {
        let queue = self.shared.queue();
        match &queue.failure {
            Some(failure) => Err(failure.clone().into()),
            None if queue.closed => Err(Failure("it was closed".into()).into()),
            None => Ok(queue),
        }
    }
}

/// See [`Wal::ready`].
pub struct Ready<'a> {
    wal: &'a Wal,
}

impl Future for Ready<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let shared = &self.wal.shared;
        let mut queue = shared.queue();
        let over = queue.unflushed() >= shared.options.unflushed_bytes_max;
        if !over || queue.failure.is_some() || queue.closed {
            return Poll::Ready(());
        }
        if !queue.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            queue.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}
