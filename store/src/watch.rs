//! The watch hub: hands every change to everyone who asked for it, in order, once, whole.
//!
//! ```text
//!  publish(batch) ──► match keys against groups ──► one shared batch per group ─┐
//!                                                                               ▼
//!  create ─► synced ◄───── hand-over under the lock ───── behind ──► catch_up_step ──► stream queue ──► next()
//!              │                                            ▲
//!              └── its queue is full, or a read is needed ──┘
//! ```
//!
//! A *stream* is one client connection's queue of deliveries; it multiplexes *watchers*. A watcher
//! is **synced** (it stands in the group of its range and publishing feeds it) or **behind** (it
//! has a next revision, and catching up feeds it from stored records).
//!
//! The invariant, true whenever the hub's lock is free. Let `current` be the last published
//! revision, and let a watcher's matching events be those from its start revision on that its range
//! and filters let through:
//! * of a synced watcher, exactly the matching events up to `current` were queued;
//! * of a watcher behind with next revision `n`, exactly those before `n` were queued, and
//!   `n.main <= current`;
//! * what was queued was queued in revision order, and progress `p` was queued only when everything
//!   up to `p` had been.
//!
//! `current` moves only in `publish`, under the lock, and a watcher turns synced only under that
//! same lock and only when its next revision is `current + 1`: so no event falls between the two
//! feeds, and none comes from both. The last gap is closed from a ring of recent revisions in
//! memory, so that a fast writer cannot keep a watcher behind for ever.
//!
//! Promises: no thread, no clock, no IO while the lock is held (records come from memory there, or
//! the watcher is set aside); bounded memory per stream, except that one revision is never torn for
//! a watcher that did not ask for fragments. Lock order: hub, then a stream's queue, then whatever
//! the event source locks; the source must never call back. Wakes run outside all of them.
//!
//! Leaves out: headers, reasons in words, permissions, intervals: those are the API's.

mod batch;
mod catch_up;
mod event;
mod intervals;
mod limits;
mod live;
mod matcher;
mod queue;
mod range;
mod recent;
mod registry;
mod slab;
mod stream;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::auth::AuthRefusal;
use crate::record::{RecordHeader, RecordKind};
use crate::{Fatal, Revision};

pub use stream::WatchStream;

use limits::Limits;
use registry::Registry;

/// Called when a stream has something new: once, and then not again before `next` has returned
/// `None`. It may run on the apply thread, so it must be cheap and must not call the hub.
pub trait Wake: Send + Sync {
    /// Says so.
    fn wake(&self);
}

/// Where the hub finds records. None of these may call the hub.
///
/// `compacted` must rise before anything that a compaction removes is gone, and `published` before
/// the revisions it covers are given to [`WatchHub::publish`].
pub trait EventSource: Send + Sync {
    /// The record of a revision, from wherever it lies.
    fn record(&self, revision: Revision) -> Result<Bytes, Fatal>;
    /// As `record`, from memory only; `None` if it is not there.
    fn try_record(&self, revision: Revision) -> Result<Option<Bytes>, Fatal>;
    /// Headers at and after `from`, ascending, at most `max`; none only when there are no more.
    /// Records that a compaction removed may be missing, and unpublished ones may be there.
    fn headers(&self, from: Revision, max: usize) -> Result<Vec<RecordHeader>, Fatal>;
    /// The version of `key` that the change at `before` replaced; `None` if there was none.
    fn previous(&self, key: &[u8], before: Revision) -> Option<Revision>;
    /// The compacted revision; -1 before any compaction.
    fn compacted(&self) -> i64;
    /// The published revision.
    fn published(&self) -> i64;
}

/// One published revision.
#[derive(Clone, Debug)]
pub struct RevisionEvents {
    /// The store revision.
    pub revision: i64,
    /// Its changes, by ascending `sub`; ignored unless `complete`.
    pub changes: Vec<Change>,
    /// Whether `changes` is all of them. A revision with very many is given without; everyone
    /// catches up with it from the stored records.
    pub complete: bool,
}

impl RevisionEvents {
    /// Whether publishing matches this revision itself.
    fn is_live(&self, limits: &Limits) -> bool {
        self.complete && self.changes.len() <= limits.live_changes
    }
}

/// One change of one key.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its place within its revision.
    pub sub: i64,
    /// The key.
    pub key: Bytes,
    /// A write or a deletion.
    pub kind: RecordKind,
    /// The version it replaced, if there was one.
    pub prev: Option<Revision>,
}

/// How much one stream may hold.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Where a response is split for watchers that asked for fragments.
    pub fragment_bytes: usize,
    /// Queued bytes above which the stream's watchers are set aside.
    pub queue_bytes: usize,
}

/// What a client asks to watch.
#[derive(Clone, Debug, Default)]
pub struct WatchSpec {
    /// The id; 0 lets the stream choose.
    pub id: i64,
    /// The first key; empty stands for `\0`.
    pub key: Bytes,
    /// Empty for one key, `\0` for every key from `key` on, else the key after the last.
    pub range_end: Bytes,
    /// The first revision to deliver; 0 for whatever comes.
    pub start_revision: i64,
    /// Whether events carry the version before.
    pub prev_kv: bool,
    /// Whether to say periodically how far the watcher is.
    pub progress_notify: bool,
    /// Leave out writes.
    pub no_put: bool,
    /// Leave out deletions.
    pub no_delete: bool,
    /// Whether a revision may be split across deliveries.
    pub fragment: bool,
}

/// One message of a stream; they are to be sent in the order in which `next` gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The answer to a creation.
    Created {
        /// The watcher.
        id: i64,
        /// The store revision at that moment.
        revision: i64,
    },
    /// The answer to a creation that failed; nothing was created.
    Refused {
        /// Why.
        reason: RefusedReason,
    },
    /// Events of one watcher, all of them of whole revisions unless `more_fragments`.
    Events {
        /// The watcher.
        id: i64,
        /// Everything of this watcher up to this revision has now been delivered, unless
        /// `more_fragments`.
        revision: i64,
        /// Encoded `mvccpb.Event`s.
        events: Vec<Bytes>,
        /// The last revision goes on in the next delivery.
        more_fragments: bool,
    },
    /// Everything up to `revision` has been delivered.
    Progress {
        /// The watcher, or -1 for all of the stream (it was asked for).
        id: i64,
        /// How far.
        revision: i64,
    },
    /// Events that the watcher still needed have been compacted; it is gone.
    Compacted {
        /// The watcher.
        id: i64,
        /// The oldest revision that can be watched from.
        compact_revision: i64,
    },
    /// The answer to a cancellation; the watcher is gone.
    Canceled {
        /// The watcher.
        id: i64,
    },
}

/// Why a watcher was not created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedReason {
    /// The stream has a watcher of that id.
    #[error("the stream already has a watcher with this id")]
    DuplicateId,
    /// The range's end is not after its start.
    #[error("the range to watch is empty")]
    EmptyRange,
    /// A negative start revision.
    #[error("the start revision is below zero")]
    StartCompacted,
    /// Its owner may not hear of this; decided before the hub was asked.
    #[error(transparent)]
    Auth(#[from] AuthRefusal),
    /// Its owner has shown a token that nobody knows; decided before the hub was asked.
    #[error("the token is not valid")]
    InvalidToken,
}

/// Whether a step found anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worked {
    /// It did; there may be more.
    Something,
    /// Nobody is behind who could be served now.
    Nothing,
}

/// How many there are, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchCounts {
    /// Open streams.
    pub streams: usize,
    /// Watchers, synced and behind.
    pub watchers: usize,
    /// Watchers behind.
    pub behind: usize,
}

/// The hub. Clones share it.
#[derive(Clone)]
pub struct WatchHub {
    shared: Arc<Shared>,
}

/// What hub and streams share.
struct Shared {
    source: Arc<dyn EventSource>,
    registry: Mutex<Registry>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().expect("a panic under the hub's lock is fatal anyway")
    }
}

impl WatchHub {
    /// A hub without streams, at the source's published revision.
    pub fn new(source: Arc<dyn EventSource>) -> Self {
        Self::with_limits(source, limits::NORMAL)
    }

    fn with_limits(source: Arc<dyn EventSource>, limits: Limits) -> Self {
        let registry = Registry::new(source.published(), limits);
        Self { shared: Arc::new(Shared { source, registry: Mutex::new(registry) }) }
    }

    /// Opens a stream; dropping it cancels its watchers.
    pub fn open_stream(&self, wake: Arc<dyn Wake>, limits: StreamLimits) -> WatchStream {
        stream::open(self.shared.clone(), wake, limits)
    }

    /// Delivers what has just been published. Revisions follow each other without a gap.
    pub fn publish(&self, batch: Vec<RevisionEvents>) -> Result<(), Fatal> {
        live::publish(&self.shared, batch)
    }

    /// Tells the watchers that asked for it how far they are, unless they had events since the
    /// last tick or are behind.
    pub fn tick_progress(&self) {
        let wakes = self.shared.lock().tick_progress();
        wakes.fire();
    }

    /// One bounded step of feeding watchers that are behind; may read from disk.
    pub fn catch_up_step(&self) -> Result<Worked, Fatal> {
        catch_up::step(&self.shared)
    }

    /// Whether a step would find something to do.
    pub fn has_catch_up_work(&self) -> bool {
        self.shared.lock().has_work()
    }

    /// Whom to wake when there is catching up to do after there was none.
    pub fn on_catch_up_needed(&self, wake: Arc<dyn Wake>) {
        self.shared.lock().on_catch_up_needed(wake);
    }

    /// The store was replaced by a later state of the same history: everyone catches up from where
    /// they are to what is published now. Call it after the source has changed.
    pub fn reset_to_catch_up(&self) {
        let published = self.shared.source.published();
        let wakes = self.shared.lock().reset(published);
        wakes.fire();
    }

    /// Plants a fault: synced watchers miss every fiftieth revision.
    #[doc(hidden)]
    pub fn plant_dropped_events(&self) {
        self.shared.lock().drop_events = true;
    }

    /// How many streams and watchers there are.
    pub fn counts(&self) -> WatchCounts {
        self.shared.lock().counts()
    }
}
