//! What can go wrong with the log, and who is at fault: the disk, the file, or the caller.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An error of the write-ahead log.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The operating system refused.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes that were known to be on disk are not what was written.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// The file was written by a newer release.
    #[error(
        "{} has WAL format {found}, this release reads formats {oldest} to {newest}: \
         start the release that wrote it, or a newer one",
        file.display()
    )]
    NewerFormat {
        /// The segment.
        file: PathBuf,
        /// Its format number.
        found: u32,
        /// The oldest format read here.
        oldest: u32,
        /// The newest format read here.
        newest: u32,
    },
    /// The caller asked for something that would break the order of the log.
    #[error("the log refuses an operation out of order: {0}")]
    Order(String),
    /// An earlier write or fsync failed; nothing is known of the disk since.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl WalError {
    /// An operating system error with what was being done.
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }

    /// Whether a write found no room. Nothing is lost by that, unlike by a sync that fails for
    /// whatever reason: it can be tried again.
    pub(super) fn is_want_of_room(&self) -> bool {
        let Self::Io { operation, source, .. } = self else { return false };
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        *operation != "sync" && full.contains(&source.kind())
    }
}

/// Where and how a file differs from what was written and flushed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("damaged WAL: {} at offset {offset} ({record}): {reason}", file.display())]
pub struct Damage {
    /// The segment.
    pub file: PathBuf,
    /// Where the frame begins that is wrong.
    pub offset: u64,
    /// Which frame that is.
    pub record: FrameName,
    /// What is wrong with it.
    pub reason: String,
}

/// The names of frames, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameName {
    /// The first sector of a segment.
    SegmentHeader,
    /// The head of a group.
    GroupHeader,
    /// The nth record of a group.
    Record(u32),
    /// An entry of the log, looked for by its index.
    Entry(u64),
}

impl fmt::Display for FrameName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SegmentHeader => f.write_str("segment header"),
            Self::GroupHeader => f.write_str("group header"),
            Self::Record(number) => write!(f, "record {number} of its group"),
            Self::Entry(index) => write!(f, "entry {index}"),
        }
    }
}

/// The first failed fsync, or write, but for want of room. Final: the process has to stop, because a failed fsync says
/// nothing about which bytes reached the disk, and a second one would not tell either.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the WAL failed and takes no more writes: {0}")]
pub struct Failure(pub(super) Arc<str>);
