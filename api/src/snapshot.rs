//! Snapshots in etcd's own form: the Snapshot call, and what `holdfast util` does with files.
//!
//! A snapshot is a database of etcd's, made from the history at one moment in a temporary file that
//! has no name, and sent from there. Who asks while a file is being sent shares it, if nothing was
//! applied since its moment; otherwise a newer one is made. One is made at a time, in slices on the
//! pool, and no more than [`FILES_MAX`] exist.

pub mod build;
pub mod file;
pub mod schema;
mod stream;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use holdfast_store::{ReadError, Rejected};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Code;

use crate::maintenance::minor_version;
use crate::services::Services;
use crate::status::Error;
use build::{Build, BuildError};

pub use stream::Sending;

/// Files that are being made or sent.
const FILES_MAX: usize = 2;
/// How often a compaction may overtake the making of a file.
const ATTEMPTS: usize = 3;
/// What stays free on the file system, unless a twentieth of it is less.
const RESERVE_BYTES_MAX: u64 = 256 << 20;

/// Where snapshots are asked for; one for all runtimes.
pub struct Desk {
    directory: PathBuf,
    turn: Semaphore,
    files: Arc<Semaphore>,
    newest: Mutex<Weak<Built>>,
}

/// A snapshot in its file, which is gone with it.
pub struct Built {
    file: File,
    bytes: u64,
    /// The version of etcd that the file is made for.
    version: String,
    /// The last entry that it contains.
    index: u64,
    _permit: OwnedSemaphorePermit,
}

impl Desk {
    /// Temporary files will lie in `directory`.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            turn: Semaphore::new(1),
            files: Arc::new(Semaphore::new(FILES_MAX)),
            newest: Mutex::default(),
        }
    }

    /// A file that contains everything applied by now.
    async fn file(&self, services: &Services) -> Result<Arc<Built>, Error> {
        let wanted = services.reader.applied().index;
        let _turn = self.turn.acquire().await.map_err(|_| Error::Stopped)?;
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(newest) = newest.filter(|newest| newest.index >= wanted) {
            return Ok(newest);
        }
        let permit = self.files.clone().acquire_owned().await.map_err(|_| Error::Stopped)?;
        let built = Arc::new(self.build(services, permit).await?);
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&built);
        Ok(built)
    }

    async fn build(
        &self,
        services: &Services,
        permit: OwnedSemaphorePermit,
    ) -> Result<Built, Error> {
        let mut attempts = 1;
        let (file, bytes, index) = loop {
            match self.attempt(services).await {
                Err(BuildError::Read(ReadError::Rejected(Rejected::Compacted)))
                    if attempts < ATTEMPTS =>
                {
                    attempts += 1;
                }
                Err(error) => return Err(refusal(services, error)),
                Ok(made) => break made,
            }
        };
        tracing::info!(bytes, index, "made a snapshot");
        let version = minor_version(services.shared.etcd_version);
        Ok(Built { file, bytes, version, index, _permit: permit })
    }

    async fn attempt(&self, services: &Services) -> Result<(File, u64, u64), BuildError> {
        let history = services.node().history().await?;
        let index = history.position().index;
        let members = services.node().members();
        let version = minor_version(services.shared.etcd_version);
        let directory = self.directory.clone();
        let begin = move || {
            let bytes_max = room(&directory)?;
            Build::begin(nameless(&directory)?, bytes_max, history, &members, &version)
        };
        let mut build = services.shared.pool.run(begin).await.map_err(BuildError::Refused)??;
        loop {
            let step = move || build.step().map(|goes_on| (build, goes_on));
            let goes_on;
            (build, goes_on) =
                services.shared.pool.run(step).await.map_err(BuildError::Refused)??;
            if !goes_on {
                break;
            }
        }
        let (file, bytes) = build.finish()?;
        Ok((file, bytes, index))
    }
}

/// Answers the call: the stream begins when the file has been made.
pub async fn snapshot(services: Arc<Services>) -> Result<Sending, Error> {
    let built = services.shared.snapshots.file(&services).await?;
    Ok(Sending::new(services.shared.pool.clone(), built))
}

/// A file in `directory` that is gone with its handle.
fn nameless(directory: &Path) -> std::io::Result<File> {
    let path = directory.join("snapshot.tmp");
    // Only a crash between the two lines below leaves one.
    let _ = std::fs::remove_file(&path);
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// How many bytes a file may have.
fn room(directory: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(directory)?;
    let (free, total) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
    Ok(free.saturating_sub(RESERVE_BYTES_MAX.min(total / 20)))
}

fn refusal(services: &Services, error: BuildError) -> Error {
    match error {
        BuildError::Read(error) => services.read_error(error),
        BuildError::Refused(error) => error,
        BuildError::NoSpace => {
            tracing::warn!("no room for a snapshot's temporary file in the data directory");
            Error::Other(
                Code::ResourceExhausted,
                "no room for a snapshot's temporary file in the data directory".into(),
            )
        }
        BuildError::Io(error) => {
            tracing::error!(%error, "a snapshot's temporary file cannot be written");
            Error::internal(format!("a snapshot's temporary file cannot be written: {error}"))
        }
    }
}
