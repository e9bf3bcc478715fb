//! The backend on sled 0.34.7, used so that its known weaknesses do no harm.
//!
//! One tree, plain inserts and removes, one thread: no batches and no transactions, which would
//! take a process-wide lock. sled's `flush` does not fsync, so the database file is fsynced here
//! after it. Values stay far below a quarter of the segment size, beyond which sled would put them
//! into files that it never syncs. A crash while opening can leave a half-written `snap.*`
//! snapshot under a name that sled would then trust; it is removed first. Opening may panic or
//! abort on damage: a marker is left beside the database while it opens, and whoever finds one
//! begins anew.

use std::cell::Cell;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Backend, BackendError, Each};

/// 8 MiB segments keep values up to 2 MiB inline.
const SEGMENT_BYTES: usize = 8 << 20;
/// No value is longer: see the head of this file.
pub(super) const VALUE_BYTES_MAX: usize = 1 << 20;
/// sled treats it as a hint. Everything is read once, at a start, and written once.
const CACHE_BYTES: u64 = 16 << 20;
/// The background flusher is the only place where sled collects garbage.
const FLUSH_EVERY_MS: u64 = 500;
/// sled's own threads let go of its file some time after it was dropped: within this.
const LET_GO: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// sled, under one folder.
pub(crate) struct SledBackend {
    /// `None` only while it is dropped.
    db: Option<sled::Db>,
    file: PathBuf,
}

impl SledBackend {
    /// Opens the database in `folder`, making it if it is absent.
    pub(crate) fn open(folder: &Path) -> Result<Self, OpenFailure> {
        let marker = folder.with_extension("opening");
        if marker.exists() {
            return Err(OpenFailure::Doubtful(BackendError::new(
                "it did not survive being opened",
            )));
        }
        if folder.exists() {
            remove_unfinished_snapshots(folder)?;
        }
        fs::write(&marker, b"").map_err(BackendError::new)?;
        let opened = open_when_free(folder);
        fs::remove_file(&marker).map_err(BackendError::new)?;
        match opened {
            Ok(Ok(db)) => Ok(Self { db: Some(db), file: folder.join("db") }),
            Ok(Err(sled::Error::Io(error))) if is_lock(&error) => Err(OpenFailure::InUse),
            Ok(Err(error)) => Err(OpenFailure::Doubtful(BackendError::new(error))),
            Err(error) => Err(OpenFailure::Doubtful(error)),
        }
    }
}

/// Opens the database as soon as nobody else has it open, or says after a while that somebody has.
fn open_when_free(folder: &Path) -> Result<sled::Result<sled::Db>, BackendError> {
    let deadline = Instant::now() + LET_GO;
    loop {
        let opened = catch(|| configuration(folder).open());
        let is_used = matches!(&opened, Ok(Err(sled::Error::Io(error))) if is_lock(error));
        if !is_used || Instant::now() > deadline {
            return opened;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

impl SledBackend {
    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for SledBackend {
    fn drop(&mut self) {
        // The last one to let go of sled fsyncs, and panics if the disk refuses.
        let db = self.db.take();
        let _ = catch(|| drop(db));
    }
}

/// Why sled was not opened.
pub(crate) enum OpenFailure {
    /// Another process has it open.
    InUse,
    /// It is damaged, or may be.
    Doubtful(BackendError),
}

impl From<BackendError> for OpenFailure {
    fn from(error: BackendError) -> Self {
        Self::Doubtful(error)
    }
}

impl Backend for SledBackend {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        guarded(|| Ok(self.db().get(key)?.map(|value| value.to_vec())))
    }

    fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), BackendError> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(BackendError::new("the value is too long for sled"));
        }
        guarded(|| self.db().insert(key, value).map(drop))
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), BackendError> {
        guarded(|| self.db().remove(key).map(drop))
    }

    fn scan(&self, prefix: &[u8], each: Each<'_>) -> Result<(), BackendError> {
        let mut entries = self.db().scan_prefix(prefix);
        while let Some((key, value)) = guarded(|| entries.next().transpose())? {
            each(&key, &value)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BackendError> {
        guarded(|| self.db().flush().map(drop))?;
        let file = fs::File::open(&self.file).map_err(BackendError::new)?;
        file.sync_all().map_err(BackendError::new)
    }
}

fn configuration(folder: &Path) -> sled::Config {
    sled::Config::new()
        .path(folder)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(FLUSH_EVERY_MS))
        .use_compression(false)
}

/// The old snapshot is removed only after the new one has its name, so nothing is lost.
fn remove_unfinished_snapshots(folder: &Path) -> Result<(), BackendError> {
    let names = fs::read_dir(folder).map_err(BackendError::new)?;
    for entry in names {
        let entry = entry.map_err(BackendError::new)?;
        if entry.file_name().to_string_lossy().ends_with(".generating") {
            fs::remove_file(entry.path()).map_err(BackendError::new)?;
        }
    }
    Ok(())
}

/// sled panics where it should not; what it holds can be rebuilt, so that is an error like others.
fn guarded<T>(act: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, BackendError> {
    catch(act)?.map_err(BackendError::new)
}

fn catch<T>(act: impl FnOnce() -> T) -> Result<T, BackendError> {
    GUARDED.set(true);
    let result = catch_unwind(AssertUnwindSafe(act));
    GUARDED.set(false);
    result.map_err(|_| BackendError::new("sled panicked"))
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic on this thread, now, is caught and does no harm. For panic hooks that end the
/// process.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

fn is_lock(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.to_string().contains("could not acquire lock")
}

/// Removes the database in `folder`.
pub(super) fn wipe(folder: &Path) -> Result<(), BackendError> {
    for gone in [fs::remove_dir_all(folder), fs::remove_file(folder.with_extension("opening"))] {
        match gone {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(BackendError::new(error));
            }
            _ => {}
        }
    }
    Ok(())
}
