//! How a store is opened: where its files are, and how much of everything it may use.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backend::{Backend, BackendError};
use crate::files::{Files, RealFiles, Space};

/// A block file is no larger than this part of its file system,
const FILE_SHARE: u64 = 64;
/// unless that is less than this.
const FILE_BYTES_MIN: u64 = 1 << 20;

/// What [`crate::open`] needs to know.
#[derive(Clone)]
pub struct Options {
    /// The data directory; `blocks/`, `snap/` and `sled/` are made beneath it.
    pub directory: PathBuf,
    /// The file system.
    pub files: Arc<dyn Files>,
    /// What holds the rebuildable block directory.
    pub backend: BackendKind,
    /// How many bytes of decompressed blocks are kept in memory.
    pub block_cache_bytes: u64,
    /// How many bytes of records make a block. A larger record is a block of its own.
    pub block_bytes: usize,
    /// At which length a block file is closed and the next begun; also at a 64th of the file system.
    pub block_file_bytes: u64,
    /// The random incarnation of the data directory; part of every block file's name, which must
    /// be unique among the members that exchange them.
    pub incarnation: u64,
    /// How much garbage registered readers may hold back from compaction.
    pub pin_garbage_bytes: u64,
    /// Faults built in on purpose, to prove that tests notice them.
    pub plants: Plants,
}

/// Where the block directory is kept.
#[derive(Clone)]
pub enum BackendKind {
    /// In sled, under `sled/`.
    Sled,
    /// In memory: rebuilt at every start.
    Memory,
    /// Whatever this makes, given the folder it may use.
    Custom(BackendMaker),
}

/// Makes a [`Backend`] in a folder.
pub type BackendMaker = Arc<dyn Fn(&Path) -> Result<Box<dyn Backend>, BackendError> + Send + Sync>;

/// Deliberate faults. Only tests set them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plants {
    /// Persist what was applied without asking whether the log has been flushed that far.
    pub skip_flushed_comparison: bool,
    /// Of every fiftieth revision, hide the changes from watchers.
    pub drop_events: bool,
}

impl Options {
    /// The defaults, for a data directory on a real file system.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            files: Arc::new(RealFiles),
            backend: BackendKind::Sled,
            block_cache_bytes: 64 << 20,
            block_bytes: 64 << 10,
            block_file_bytes: 64 << 20,
            incarnation: 0,
            pin_garbage_bytes: 1 << 30,
            plants: Plants::default(),
        }
    }
}

impl Options {
    /// At which length block files are closed on this file system. A file is given back as a whole:
    /// where it is a large part of the disk, moving what is alive of it would need room for it.
    pub(crate) fn block_file_bytes_here(&self) -> u64 {
        let share = |space: Space| (space.total / FILE_SHARE).max(FILE_BYTES_MIN);
        let share = self.files.space(&self.directory).map_or(u64::MAX, share);
        self.block_file_bytes.min(share)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("directory", &self.directory)
            .field("block_cache_bytes", &self.block_cache_bytes)
            .field("block_bytes", &self.block_bytes)
            .field("incarnation", &self.incarnation)
            .field("plants", &self.plants)
            .finish_non_exhaustive()
    }
}
