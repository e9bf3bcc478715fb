//! What waits to be written, and who waits for it. Bounded in bytes by the callers, who wait on
//! [`super::Wal::ready`] when too much is unflushed.
//!
//! Records that need no fsync of their own (committed, truncate, purge) do not make the writer
//! start; they ride with the next record that does, or with the group that an idle log writes.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use super::error::Failure;
use super::limits::GROUP_BYTES_MAX;
use super::record::{LogId, Record};
use super::state::State;

/// Called once, when the records before it are durable or will never be.
pub type Completion = Box<dyn FnOnce(Result<(), Failure>) + Send>;

/// What the writer waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sleep {
    /// Nothing: it works, or is about to.
    #[default]
    Awake,
    /// Something to sync; it looks by itself after a while.
    Light,
    /// Anything at all.
    Deep,
}

impl Sleep {
    /// Whether a record of this urgency ends the sleep.
    pub(super) fn ends_for(self, urgency: Urgency) -> bool {
        match self {
            Self::Awake => false,
            Self::Light => urgency == Urgency::Durable,
            Self::Deep => true,
        }
    }
}

/// Whether a record makes the writer start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    Durable,
    Rides,
}

struct Item {
    record: Record,
    urgency: Urgency,
    queued_at: Duration,
    completion: Option<Completion>,
}

/// Records drained for one group.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    pub(super) completions: Vec<Completion>,
    pub(super) cost: u64,
}

#[derive(Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    /// The newest committed entry that is not yet drained; older ones are of no use.
    committed: Option<LogId>,
    /// Items that make the writer start.
    urgent: usize,
    /// Costs of urgent items, queued or drained and not yet durable.
    unflushed: u64,
    /// When the oldest urgent item that was drained and is not yet durable was queued.
    drained_at: Option<Duration>,
    /// Items ever queued and drained: names for positions in the stream.
    queued: u64,
    drained: u64,
    /// Truncations that are not yet durable: position, and the index that follows what is left.
    truncations: VecDeque<(u64, u64)>,
    /// `index < flushed_next` means durable.
    pub(super) flushed_next: u64,
    /// Costs of everything made durable.
    pub(super) flushed_bytes: u64,
    pub(super) failure: Option<Failure>,
    pub(super) closed: bool,
    /// Whether the writer has to be woken, so that waking costs nothing while it works.
    pub(super) sleep: Sleep,
    /// Who waits for something to write.
    pub(super) writer: Option<Waker>,
    /// Who waits for room.
    pub(super) waiting: Vec<Waker>,
}

impl Queue {
    /// An empty queue of a log in which everything below `flushed_next` is durable.
    pub(super) fn new(flushed_next: u64) -> Self {
        Self { flushed_next, ..Self::default() }
    }

    pub(super) fn push(
        &mut self,
        record: Record,
        urgency: Urgency,
        queued_at: Duration,
        completion: Option<Completion>,
    ) {
        if urgency == Urgency::Durable {
            self.urgent += 1;
            self.unflushed += record.cost();
        }
        self.queued += 1;
        self.items.push_back(Item { record, urgency, queued_at, completion });
    }

    pub(super) fn push_committed(&mut self, committed: LogId) {
        self.committed = Some(committed);
    }

    /// Notes that entries from `next` on are no longer the durable ones, even before the record
    /// that says so is written.
    pub(super) fn note_truncation(&mut self, next: u64) {
        self.truncations.push_back((self.queued, next));
        self.flushed_next = self.flushed_next.min(next);
    }

    pub(super) fn wants_write(&self) -> bool {
        self.urgent > 0
    }

    /// Whether a group at a log that continues at `next` would have something to take along.
    pub(super) fn has_riders(&self, next: u64) -> bool {
        let covered = self.committed.is_some_and(|committed| committed.index < next);
        !self.items.is_empty() || covered
    }

    pub(super) fn unflushed(&self) -> u64 {
        self.unflushed
    }

    /// When the oldest unflushed byte was queued.
    pub(super) fn oldest(&self) -> Option<Duration> {
        let queued = self.items.iter().find(|item| item.urgency == Urgency::Durable);
        self.drained_at.or(queued.map(|item| item.queued_at))
    }

    /// Takes the records of the next group, and moves `state` past them. A truncation begins a
    /// group, so that reading from the start of a group never meets an entry twice.
    pub(super) fn drain(&mut self, state: &mut State) -> Batch {
        let mut batch = Batch::default();
        let mut bytes = 0;
        while let Some(item) = self.items.front() {
            let breaks = matches!(item.record, Record::Truncate(_));
            let full = bytes + item.record.cost() > GROUP_BYTES_MAX;
            if !batch.records.is_empty() && (breaks || full) {
                break;
            }
            let item = self.items.pop_front().expect("it was there a moment ago");
            bytes += item.record.cost();
            if item.urgency == Urgency::Durable {
                self.urgent -= 1;
                batch.cost += item.record.cost();
                self.drained_at.get_or_insert(item.queued_at);
            }
            self.drained += 1;
            state.apply(&item.record).expect("the order was checked when it was queued");
            batch.records.push(item.record);
            batch.completions.extend(item.completion);
        }
        self.drain_committed(state, &mut batch);
        batch
    }

    /// A committed record follows the entries that it covers, whatever a crash cuts.
    fn drain_committed(&mut self, state: &mut State, batch: &mut Batch) {
        let covered = |committed: &mut LogId| committed.index < state.next_index();
        if let Some(committed) = self.committed.take_if(covered) {
            let record = Record::Committed(committed);
            state.apply(&record).expect("a committed record can always follow");
            batch.records.push(record);
        }
    }

    /// Everything drained so far is durable, and ends with a log that continues at `next`.
    pub(super) fn flushed(&mut self, next: u64, cost: u64) {
        assert!(cost <= self.unflushed, "what is flushed was queued");
        self.unflushed -= cost;
        self.flushed_bytes += cost;
        self.drained_at = None;
        while self.truncations.front().is_some_and(|(position, _)| *position < self.drained) {
            self.truncations.pop_front();
        }
        let truncated = self.truncations.iter().map(|(_, next)| *next).min();
        self.flushed_next = truncated.map_or(next, |truncated| truncated.min(next));
    }

    /// Ends the queue for good. Returns who still waited for durability.
    pub(super) fn fail(&mut self, failure: Failure) -> Vec<Completion> {
        self.failure.get_or_insert(failure);
        self.urgent = 0;
        self.committed = None;
        self.items.drain(..).filter_map(|item| item.completion).collect()
    }

    /// Everyone to wake when something changed for those who wait for room.
    pub(super) fn wake_waiting(&mut self) {
        for waker in self.waiting.drain(..) {
            waker.wake();
        }
    }
}
