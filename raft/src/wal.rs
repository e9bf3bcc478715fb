//! The write-ahead log: one ordered stream of votes, entries, and what happened to them.
//!
//! Promises: what a completion confirms survives any crash; after one, the log is exactly a prefix
//! of what was recorded, and includes everything confirmed. Damage to what was known to be durable
//! is reported and never taken for a torn write, nor for absence. The first failed fsync, or
//! write but for want of room, is final; for room the writer waits.
//!
//! ```text
//! Wal::append ──► queue ──► WalCore: one group, one write, one fdatasync ──► completions
//!      │                         │
//!      ▼                         ▼
//!    tail (readers)         segment files ◄── Maintenance: recycle, remove, fill spares
//! ```
//!
//! Leaves out: what payloads mean, Raft's rules, and repair, which others do with the errors from
//! here. Names neither openraft nor tokio. The bytes are described in `docs/formats.md`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_store::files::Space;

mod core;
mod driver;
mod error;
mod format;
mod group;
mod handle;
pub mod limits;
mod newest;
mod open;
mod places;
mod queue;
mod read;
mod record;
mod replay;
mod segment;
mod state;
mod tail;
mod upkeep;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use core::{Completions, WalCore};
pub use driver::{Pace, WalThreads, drive};
pub use error::{Damage, Failure, FrameName, WalError};
pub use handle::{Ready, Unflushed, Wal};
pub use open::{Opened, check, exists, open};
pub use queue::Completion;
pub use record::{Entry, EntryKind, LogId, Memo, Record, Vote};
pub use state::State;
pub use upkeep::Maintenance;

/// What an operator or a test may choose.
#[derive(Clone, Copy, Debug)]
pub struct WalOptions {
    /// The length of a full segment; a multiple of the sector.
    pub segment_bytes: u64,
    /// Above this, [`Wal::ready`] waits.
    pub unflushed_bytes_max: u64,
    /// Bytes of the newest entries kept in memory.
    pub tail_bytes_max: u64,
    /// How many of the newest entries are kept in memory.
    pub tail_entries_max: usize,
    /// With fewer full segments written ahead, one is filled with zeros.
    pub spare_segments: usize,
    /// Up to so many purged segments are kept to be used again, which costs no zeros.
    pub spare_segments_max: usize,
    /// Never sync. A power cut may then lose or damage the log; a crash of the process does not.
    pub unsafe_no_fsync: bool,
}

impl WalOptions {
    /// The shipped settings for a file system of this size.
    pub fn for_space(space: Space) -> Self {
        let share = space.total / 32 / limits::SECTOR * limits::SECTOR;
        let segment_bytes = share.clamp(limits::SEGMENT_BYTES_MIN, limits::SEGMENT_BYTES_MAX);
        let reserve = limits::SPARE_BYTES_MAX.min(space.total / 20) / segment_bytes;
        Self {
            segment_bytes,
            unflushed_bytes_max: limits::UNFLUSHED_BYTES_MAX,
            tail_bytes_max: limits::TAIL_BYTES_MAX,
            tail_entries_max: limits::TAIL_ENTRIES_MAX,
            spare_segments: 1,
            spare_segments_max: reserve.max(1) as usize,
            unsafe_no_fsync: false,
        }
    }
}

/// A monotonic clock: the time since some fixed moment.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// How far the log is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The newest entry that is durable, with all before it; lower after a truncation, at once.
    pub flushed: Option<u64>,
    /// Bytes made durable since the log was opened.
    pub bytes: u64,
}

/// What the log tells, and asks, its surroundings. Hooks run under the log's locks, so they must
/// not block, nor call the log, but for one.
#[derive(Clone)]
pub struct Hooks {
    /// For ages and durations only; never decides what is written.
    pub clock: Clock,
    /// Called in order with every change.
    pub flushed: Arc<dyn Fn(Progress) + Send + Sync>,
    /// How long a sync took.
    pub synced: Arc<dyn Fn(Duration) + Send + Sync>,
    /// The log failed for good; the process has to stop.
    pub failed: Arc<dyn Fn(&Failure) + Send + Sync>,
    /// Looks at the file system: whether the log may take so many bytes that it can do without.
    /// Called without a lock, and may ask the system.
    pub has_room_for: Arc<dyn Fn(u64) -> bool + Send + Sync>,
}

impl Default for Hooks {
    /// The system's monotonic clock, and nobody to tell.
    fn default() -> Self {
        let start = Instant::now();
        Self {
            clock: Arc::new(move || start.elapsed()),
            flushed: Arc::new(|_| {}),
            synced: Arc::new(|_| {}),
            failed: Arc::new(|_| {}),
            has_room_for: Arc::new(|_| true),
        }
    }
}

/// The log's folder in a data directory, or in the directory that it has to itself.
pub fn directory(home: &Path) -> std::path::PathBuf {
    home.join("wal")
}
