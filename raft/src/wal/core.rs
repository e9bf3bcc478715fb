//! The writer: drains the queue into one group, writes it, syncs it, and hands back whom to tell.
//! Synchronous and driven from outside, by a thread in production and by a task in simulation.
//!
//! ```text
//! begin: drain, encode, (new segment), write     finish: sync, then the mark moves, completions
//! idle:  a group that carries the mark and what rides along, written and not synced
//! ```
//!
//! A group that finds no room on the disk waits for some; any other error is final.

use std::sync::Arc;
use std::time::Duration;

use holdfast_store::files::File;

use super::error::{Failure, WalError};
use super::format::{FIRST_GROUP, Mark, Place};
use super::group::GroupBuilder;
use super::handle::{Shared, Wal};
use super::limits::SHORT_SEGMENT_BYTES;
use super::queue::{Batch, Completion, Queue};
use super::record::Record;
use super::segment::{self, Draft, Origin};
use super::state::State;

/// Whom to tell about what became durable, or never will.
#[must_use = "whoever waits for durability waits until this is fired"]
pub struct Completions {
    callbacks: Vec<Completion>,
    result: Result<(), Failure>,
}

impl Completions {
    /// Tells them all.
    pub fn fire(self) {
        for callback in self.callbacks {
            callback(self.result.clone());
        }
    }

    /// Whether there is nobody to tell.
    pub fn is_empty(&self) -> bool {
        self.callbacks.is_empty()
    }
}

/// The segment being written.
pub(super) struct Active {
    pub(super) segment: u64,
    pub(super) file: Arc<dyn File>,
    pub(super) length: u64,
    /// Where the next group goes.
    pub(super) end: u64,
    /// The checksum of the last frame.
    pub(super) link: u32,
}

impl Active {
    /// A segment that holds nothing but its header.
    pub(super) fn new(segment: u64, draft: &Draft) -> Self {
        let (file, length, link) = (draft.file.clone(), draft.length, draft.link);
        Self { segment, file, length, end: FIRST_GROUP, link }
    }

    pub(super) fn place(&self) -> Place {
        Place { segment: self.segment, offset: self.end }
    }

    /// The mark that says: all that was written is flushed.
    pub(super) fn mark(&self) -> Mark {
        Mark { segment: self.segment, offset: self.end, link: self.link }
    }

    /// Seals and writes a group that fits.
    pub(super) fn write(
        &mut self,
        builder: &mut GroupBuilder,
        mark: Mark,
    ) -> std::io::Result<Place> {
        let place = self.place();
        let (bytes, link) = builder.seal(place, self.link, mark);
        assert!(self.end + bytes.len() as u64 <= self.length, "the caller made room");
        self.file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        self.link = link;
        Ok(place)
    }
}

/// What was written and is not yet synced, or has failed.
enum Step {
    Nothing,
    Written { callbacks: Vec<Completion>, cost: u64 },
    Failed { callbacks: Vec<Completion>, failure: Failure },
}

/// The log's only writer.
pub struct WalCore {
    pub(super) shared: Arc<Shared>,
    active: Active,
    builder: GroupBuilder,
    /// What is true after everything written.
    state: State,
    /// The end of what is flushed.
    mark: Mark,
    /// A group that carries `mark` was written.
    mark_written: bool,
    /// Something was written since the last sync.
    unsynced: bool,
    step: Step,
    /// What found no room, and the state before it; nothing else is written before it is.
    stuck: Option<(Batch, State)>,
    /// It was said that something is stuck.
    waits_for_room: bool,
}

impl WalCore {
    pub(super) fn new(shared: Arc<Shared>, active: Active, state: State) -> Self {
        let mark = active.mark();
        // A segment's header is a mark for all that is before it.
        let mark_written = active.end == FIRST_GROUP;
        let builder = GroupBuilder::default();
        Self {
            shared,
            active,
            builder,
            state,
            mark,
            mark_written,
            unsynced: false,
            step: Step::Nothing,
            stuck: None,
            waits_for_room: false,
        }
    }

    /// The handle on this log.
    pub fn wal(&self) -> Wal {
        Wal { shared: self.shared.clone() }
    }

    /// The index that follows what was written.
    pub(super) fn next_index(&self) -> u64 {
        self.state.next_index()
    }

    /// Where the next group goes.
    #[cfg(test)]
    pub(super) fn position(&self) -> Place {
        self.active.place()
    }

    /// Writes and syncs one group, if anything waits for it.
    pub fn step(&mut self) -> Completions {
        self.begin();
        self.finish()
    }

    /// Writes one group, if anything waits for it; [`Self::finish`] must follow. Returns whether
    /// there is anything to finish.
    pub fn begin(&mut self) -> bool {
        assert!(matches!(self.step, Step::Nothing), "finish() follows begin()");
        self.step = match self.stuck.take() {
            Some((batch, before)) => self.write_batch(batch, before),
            None if !self.shared.queue().wants_write() => return false,
            None => self.write_queued(),
        };
        !matches!(self.step, Step::Nothing)
    }

    /// Whether what was to be written found no room. Then [`Self::begin`] is to be called again
    /// after a while, however little is queued.
    pub fn is_stuck(&self) -> bool {
        self.stuck.is_some()
    }

    /// Whether the log was closed or has failed.
    pub(super) fn has_ended(&self) -> bool {
        let queue = self.shared.queue();
        queue.closed || queue.failure.is_some()
    }

    /// Gives up what found no room, at the end.
    pub(super) fn give_up(&mut self) -> Completions {
        let callbacks = self.stuck.take().map_or(Vec::new(), |(batch, _)| batch.completions);
        let failure = Failure("it was closed, or failed, while it waited for room".into());
        Completions { callbacks, result: Err(failure) }
    }

    /// Makes durable what [`Self::begin`] wrote. The first failure is final.
    pub fn finish(&mut self) -> Completions {
        match std::mem::replace(&mut self.step, Step::Nothing) {
            Step::Nothing => Completions { callbacks: Vec::new(), result: Ok(()) },
            Step::Written { callbacks, cost } => match self.sync() {
                Ok(()) => {
                    self.publish_flushed(cost);
                    Completions { callbacks, result: Ok(()) }
                }
                Err(error) => self.fail(callbacks, &error),
            },
            Step::Failed { callbacks, failure } => Completions { callbacks, result: Err(failure) },
        }
    }

    /// Writes what needs no sync, when the log has been idle for a while: the mark, and what rides.
    pub fn idle(&mut self) -> Completions {
        assert!(matches!(self.step, Step::Nothing), "finish() follows begin()");
        while let Some((batch, before)) = self.drain_idle() {
            match self.write_batch(batch, before) {
                Step::Failed { callbacks, failure } => {
                    return Completions { callbacks, result: Err(failure) };
                }
                Step::Written { callbacks, cost } => {
                    assert!(callbacks.is_empty() && cost == 0, "riders wait for nothing");
                }
                // There is no room for it.
                Step::Nothing => break,
            }
        }
        Completions { callbacks: Vec::new(), result: Ok(()) }
    }

    /// Whether [`Self::idle`] would write anything. Not while something waits for a sync: that
    /// group takes it along.
    pub fn has_idle_work(&self) -> bool {
        self.is_idle_work(&self.shared.queue())
    }

    fn is_idle_work(&self, queue: &Queue) -> bool {
        let idle = queue.failure.is_none() && !queue.wants_write() && self.stuck.is_none();
        idle && (!self.mark_written || queue.has_riders(self.state.next_index()))
    }

    /// Takes what an idle log has to write, and the state before it. Looks and takes under one
    /// lock: what is queued in between would have to be synced.
    fn drain_idle(&mut self) -> Option<(Batch, State)> {
        let shared = self.shared.clone();
        let mut queue = shared.queue();
        let before = self.state;
        self.is_idle_work(&queue).then(|| (queue.drain(&mut self.state), before))
    }

    fn write_queued(&mut self) -> Step {
        let before = self.state;
        let batch = self.shared.queue().drain(&mut self.state);
        self.write_batch(batch, before)
    }

    fn write_batch(&mut self, batch: Batch, before: State) -> Step {
        match self.write_group(&batch.records, before) {
            Ok(()) => {
                if std::mem::take(&mut self.waits_for_room) {
                    tracing::info!("there is room for the log again");
                }
                Step::Written { callbacks: batch.completions, cost: batch.cost }
            }
            Err(error) if error.is_want_of_room() => {
                if !std::mem::replace(&mut self.waits_for_room, true) {
                    tracing::warn!(%error, "no room for the log; it waits for some");
                }
                self.stuck = Some((batch, before));
                Step::Nothing
            }
            Err(error) => {
                let Completions { callbacks, result } = self.fail(batch.completions, &error);
                let failure = result.expect_err("it failed");
                Step::Failed { callbacks, failure }
            }
        }
    }

    fn write_group(&mut self, records: &[Record], before: State) -> Result<(), WalError> {
        self.builder.clear();
        for record in records {
            self.builder.push(record);
        }
        if self.active.end + self.builder.length() > self.active.length {
            self.begin_segment(before)?;
        }
        let path = segment::path(&self.shared.directory, self.active.segment);
        let place = self
            .active
            .write(&mut self.builder, self.mark)
            .map_err(WalError::io("write", &path))?;
        self.mark_written = true;
        self.unsynced = true;
        self.shared.places_mut().add_group(place, self.active.end, records);
        Ok(())
    }

    /// Goes on in a new segment. Its header says that all before it is flushed, so it is.
    fn begin_segment(&mut self, state: State) -> Result<(), WalError> {
        if self.unsynced {
            self.sync()?;
        }
        let origin = Origin {
            segment: self.active.segment + 1,
            previous_end: self.active.end,
            back_link: self.active.link,
            state,
        };
        let draft = self.make_segment(origin)?;
        let shared = &self.shared;
        self.active = Active::new(origin.segment, &draft);
        self.mark = self.active.mark();
        self.mark_written = true;
        shared.places_mut().add_segment(origin.segment, draft.file.clone(), FIRST_GROUP);
        shared.request_upkeep(|_| {});
        Ok(())
    }

    /// The file of a new segment, under its name.
    fn make_segment(&self, origin: Origin) -> Result<Draft, WalError> {
        let Shared { files, directory, options, hooks, .. } = &*self.shared;
        let full = options.segment_bytes;
        // Nothing takes more room at once, so whoever watches the disk is to know soon.
        (hooks.has_room_for)(full);
        let needed = FIRST_GROUP + self.builder.length();
        let spare = if needed <= full { self.shared.upkeep().spares.pop_front() } else { None };
        let draft = match spare {
            Some(spare) => Draft::from_spare(&**files, spare, origin, full)?,
            None => {
                // Whoever waits for room takes no more than is needed, however often it is tried.
                let length = match self.waits_for_room {
                    true => needed,
                    false => needed.max(full.min(SHORT_SEGMENT_BYTES)),
                };
                Draft::create(&**files, directory, origin, length, needed)?
            }
        };
        draft.publish(&**files, directory, !options.unsafe_no_fsync)?;
        Ok(draft)
    }

    fn sync(&mut self) -> Result<(), WalError> {
        let clock = &self.shared.hooks.clock;
        if !self.shared.options.unsafe_no_fsync {
            let path = segment::path(&self.shared.directory, self.active.segment);
            let started = clock();
            self.active.file.sync_data().map_err(WalError::io("sync", &path))?;
            let took: Duration = clock().saturating_sub(started);
            (self.shared.hooks.synced)(took);
        }
        self.unsynced = false;
        self.mark = self.active.mark();
        self.mark_written = false;
        Ok(())
    }

    fn publish_flushed(&mut self, cost: u64) {
        let options = self.shared.options;
        let flushed_next = {
            let mut queue = self.shared.queue();
            queue.flushed(self.state.next_index(), cost);
            self.shared.publish_flushed(&queue);
            queue.wake_waiting();
            queue.flushed_next
        };
        {
            let mut log = self.shared.log_mut();
            // A truncation may have come since: what it left is the durable part.
            let next = flushed_next.min(log.state.next_index());
            log.tail.evict(next, options.tail_bytes_max, options.tail_entries_max);
        }
        let purged_next = self.state.purged.map_or(0, |purged| purged.index + 1);
        if self.shared.upkeep().purged_next < purged_next {
            self.shared.request_upkeep(|upkeep| upkeep.purged_next = purged_next);
        }
    }

    fn fail(&mut self, mut callbacks: Vec<Completion>, error: &WalError) -> Completions {
        let failure = Failure(error.to_string().into());
        tracing::error!(%error, "the write-ahead log failed");
        callbacks.extend(self.shared.fail(&failure));
        Completions { callbacks, result: Err(failure) }
    }
}
